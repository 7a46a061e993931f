//! Registered memory, and RDMA between the two ends of a connection.

use super::harness::*;
use crate::abi::*;

const KIB: usize = 1024;

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from((n.wrapping_mul(31) ^ (n >> 8) ^ seed) & 0xFF).unwrap())
        .collect()
}

#[test]
fn registering_checks_region_rights_and_connection() {
    let _session = Session::new();
    let (a, _b) = pair();
    let area = Area::unregistered(64);
    let base = area.pointer(0);
    let idle = Sock::bound();
    assert_eq!(idle.register(base, 64, MEM_READ), Err(WSAENOTCONN));
    assert_eq!(idle.deregister(base.cast()), Err(WSAEINVAL));
    for flags in [0, 4, 7, u32::MAX] {
        assert_eq!(a.register(base, 64, flags), Err(WSAEINVAL));
        let exposed = a.expose(base, 64, flags, &mut [0; 64]);
        assert_eq!(exposed.unwrap_err().0, WSAEINVAL);
    }
    let high: *mut u8 = std::ptr::without_provenance_mut(usize::MAX - 10);
    let low: *mut u8 = std::ptr::without_provenance_mut(16);
    for (bad, length) in [(std::ptr::null_mut(), 64), (base, 0), (high, 64), (low, 64)] {
        assert_eq!(a.register(bad, length, MEM_READ), Err(WSAEFAULT));
        let exposed = a.expose(bad, length, MEM_READ, &mut [0; 64]);
        assert_eq!(exposed.unwrap_err().0, WSAEFAULT);
    }
    assert_eq!(a.deregister(std::ptr::null_mut()), Err(WSAEINVAL));
    assert_eq!(a.deregister(base.cast()), Err(WSAEINVAL));
}

// req: WSD-12
#[test]
fn the_same_region_with_the_same_rights_is_counted() {
    let _session = Session::new();
    let (a, _b) = pair();
    let area = Area::unregistered(64);
    let base = area.pointer(0);
    let first = a.register(base, 64, MEM_READ).unwrap();
    assert_eq!(a.register(base, 64, MEM_READ), Ok(first));
    let others = [
        a.register(base, 64, MEM_WRITE).unwrap(),
        a.register(base, 63, MEM_READ).unwrap(),
        a.register(base, 64, MEM_READWRITE).unwrap(),
    ];
    assert!(!others.contains(&first));
    a.deregister(first).unwrap();
    a.deregister(first).unwrap();
    assert_eq!(a.deregister(first), Err(WSAEINVAL));
    let again = a.register(base, 64, MEM_READ).unwrap();
    assert_ne!(again, first, "a number is not used again");
    for handle in others {
        a.deregister(handle).unwrap();
        assert_eq!(a.deregister(handle), Err(WSAEINVAL));
    }
}

// req: WSD-12
#[test]
fn memory_in_use_stays_registered() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let op = Op::polled();
    assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
    assert_eq!(b.deregister(area.handle), Err(WSAEINVAL));
    let source = Area::filled(&a, b"x");
    assert_eq!(a.send(&source.all(), &Op::polled()), WSA_IO_PENDING);
    assert_eq!(b.finish(&op), Ok(1));
    b.deregister(area.handle).unwrap();

    // Sends that wait for their turn use their memory, too.
    let source = Area::new(&a, 60_000, MEM_READ);
    let waiting: Vec<_> = (0..400)
        .map(|_| {
            let op = Op::polled();
            assert_eq!(a.send(&source.all(), &op), WSA_IO_PENDING);
            op
        })
        .collect();
    assert_eq!(a.deregister(source.handle), Err(WSAEINVAL));
    a.close().unwrap();
    assert!(waiting.iter().all(Op::has_ended));
}

// req: WSD-12
#[test]
fn a_registration_of_one_socket_is_nothing_on_another() {
    let _session = Session::new();
    let (a, b) = pair();
    let (c, d) = pair();
    let mine = Area::new(&a, 64, MEM_READWRITE);
    let window = Area::unregistered(64);
    let of_b = b.window(&window, MEM_READWRITE);
    let of_d = d.window(&window, MEM_READWRITE);
    assert_eq!(c.deregister(mine.handle), Err(WSAEINVAL));
    assert_eq!(d.conceal(&of_b), Err(WSAEINVAL));
    let op = Op::notified();
    for write in [true, false] {
        let code = c.rdma(write, &[mine.piece(0, 8)], &of_d, 0, &op);
        assert_eq!(code, WSAEINVAL);
    }
    assert!(c.completions().is_empty());
    a.deregister(mine.handle).unwrap();
    b.conceal(&of_b).unwrap();
    d.conceal(&of_d).unwrap();
}

// req: WSD-15
#[test]
fn too_little_room_for_a_descriptor_tells_the_length_and_registers_nothing() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::unregistered(64);
    let base = area.pointer(0);
    // The length comes first: neither the connection nor the region nor the rights count yet.
    let idle = Sock::bound();
    let (code, needed) = idle
        .expose(std::ptr::null_mut(), 0, 99, &mut [])
        .unwrap_err();
    assert_eq!(code, WSAEFAULT);
    assert!(needed > 0 && needed <= 64);
    for room in 0..needed as usize {
        let mut bytes = vec![0xAA; room];
        let probe = b.expose(base, 64, MEM_WRITE, &mut bytes);
        assert_eq!(probe, Err((WSAEFAULT, needed)));
        assert!(bytes.iter().all(|byte| *byte == 0xAA));
        assert_eq!(b.conceal(&vec![0; needed as usize]), Err(WSAEINVAL));
    }
    let mut more = vec![0xAA; needed as usize + 20];
    assert_eq!(b.expose(base, 64, MEM_WRITE, &mut more), Ok(needed));
    assert!(more[needed as usize..].iter().all(|byte| *byte == 0xAA));
    let descriptor = &more[..needed as usize];
    let source = Area::filled(&a, b"eight by");
    let op = Op::polled();
    assert_eq!(
        a.rdma(true, &[source.piece(0, 8)], descriptor, 56, &op),
        WSA_IO_PENDING
    );
    assert_eq!(a.finish(&op), Ok(8));
    assert_eq!(&area.bytes(64)[56..], b"eight by");
}

#[test]
fn exposures_are_counted_and_their_descriptor_is_one() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::unregistered(64);
    let first = b.window(&area, MEM_READ);
    let again = b.window(&area, MEM_READ);
    assert_eq!(first, again);
    assert_ne!(b.window(&area, MEM_READWRITE), first);
    assert_eq!(b.conceal(&first[1..]), Err(WSAEINVAL));
    b.conceal(&first).unwrap();
    let target = Area::new(&a, 8, MEM_WRITE);
    let op = Op::polled();
    assert_eq!(
        a.rdma(false, &[target.piece(0, 8)], &first, 0, &op),
        WSA_IO_PENDING
    );
    assert_eq!(a.finish(&op), Ok(8), "one use is left");
    b.conceal(&first).unwrap();
    assert_eq!(b.conceal(&first), Err(WSAEINVAL));
}

#[test]
fn reads_and_writes_move_pieces_to_and_from_any_offset() {
    let _session = Session::new();
    let (a, b) = pair();
    const LENGTH: usize = 300 * KIB;
    let remote = Area::unregistered(LENGTH);
    let window = b.window(&remote, MEM_READWRITE);
    let local = Area::new(&a, LENGTH, MEM_READWRITE);
    for (round, (offset, sizes)) in [
        (0, vec![LENGTH]),
        (0, vec![1]),
        (LENGTH - 1, vec![1]),
        (1004, vec![100 * KIB, 1, 4095, 77]),
        (7, vec![1; 8]),
        (65_537, vec![3, 0, 50_000, 0, 65_536, 1, 2, 9]),
        (100, Vec::from([1000; 64])),
    ]
    .into_iter()
    .enumerate()
    {
        for notify in [false, true] {
            let make = || if notify { Op::notified() } else { Op::polled() };
            let total: usize = sizes.iter().sum();
            let before = pattern(LENGTH, round);
            remote.fill(&before);
            let bytes = pattern(LENGTH, round + 100);
            local.fill(&bytes);
            // The pieces lie backwards in memory.
            let mut pieces = Vec::new();
            let mut expected = Vec::new();
            let mut end = LENGTH;
            for size in &sizes {
                end -= size;
                pieces.push(local.piece(end, *size));
                expected.extend_from_slice(&bytes[end..end + size]);
            }
            let at = u32::try_from(offset).unwrap();
            let op = make();
            assert_eq!(a.rdma(true, &pieces, &window, at, &op), WSA_IO_PENDING);
            assert_eq!(a.finish(&op), Ok(u32::try_from(total).unwrap()));
            let now = remote.bytes(LENGTH);
            assert!(now[offset..offset + total] == expected[..]);
            assert!(now[..offset] == before[..offset]);
            assert!(now[offset + total..] == before[offset + total..]);

            local.fill(&vec![0; LENGTH]);
            let op = make();
            assert_eq!(a.rdma(false, &pieces, &window, at, &op), WSA_IO_PENDING);
            assert_eq!(a.finish(&op), Ok(u32::try_from(total).unwrap()));
            assert!(local.bytes(LENGTH)[end..] == bytes[end..]);
        }
    }
    assert_eq!(a.await_completions(14).len(), 14);
}

#[test]
fn arguments_of_rdma_are_checked() {
    let _session = Session::new();
    let (a, b) = pair();
    let remote = Area::unregistered(64);
    let window = b.window(&remote, MEM_READWRITE);
    let local = Area::new(&a, 64, MEM_READWRITE);
    let readable = Area::new(&a, 64, MEM_READ);
    let writable = Area::new(&a, 64, MEM_WRITE);
    let op = Op::notified();
    let piece = [local.piece(0, 8)];
    for write in [true, false] {
        let start = |pieces: &[WSABUFEX], remote: &[u8]| a.rdma(write, pieces, remote, 0, &op);
        assert_eq!(start(&[], &window), WSAEINVAL);
        assert_eq!(start(&piece, &window[1..]), WSAEINVAL);
        assert_eq!(start(&piece, &[]), WSAEINVAL);
        assert_eq!(start(&[local.piece(1, 64)], &window), WSAEFAULT);
        assert_eq!(start(&vec![local.piece(0, 1); 65_536], &window), WSAEINVAL);
        let wrong = if write { &writable } else { &readable };
        assert_eq!(start(&[wrong.piece(0, 8)], &window), WSAEFAULT);
        let mut foreign = local.piece(0, 8);
        foreign.handle = std::ptr::without_provenance_mut(4711);
        assert_eq!(start(&[foreign], &window), WSAEINVAL);
    }
    assert!(a.completions().is_empty());
    let (sent, received) = (Op::polled(), Op::polled());
    let target = Area::new(&b, 8, MEM_WRITE);
    assert_eq!(b.recv(&target.all(), &received), WSA_IO_PENDING);
    assert_eq!(a.send(&[local.buffer(0, 8)], &sent), WSA_IO_PENDING);
    assert_eq!(b.finish(&received), Ok(8), "the connection is as before");
}

/// What a forbidden access makes of an operation: refused at once, or failed.
fn outcome(socket: &Sock, code: i32, op: &Op) -> i32 {
    match code {
        WSA_IO_PENDING => socket.finish(op).unwrap_err(),
        code => code,
    }
}

// req: WSD-13
#[test]
fn rdma_beyond_what_is_permitted_fails_and_moves_no_byte() {
    let _session = Session::new();
    for write in [true, false] {
        for (what, flags, offset, length) in [
            ("beyond the end", MEM_READWRITE, 0, 65),
            ("across the end", MEM_READWRITE, 60, 5),
            ("behind the end", MEM_READWRITE, 64, 1),
            ("far behind the end", MEM_READWRITE, u32::MAX, 1),
            (
                "against the rights",
                if write { MEM_READ } else { MEM_WRITE },
                0,
                8,
            ),
        ] {
            let (a, b) = pair();
            let remote = Area::unregistered(128);
            let before = pattern(128, 5);
            remote.fill(&before);
            let mut window = vec![0; 64];
            let used = b
                .expose(remote.pointer(32), 64, flags, &mut window)
                .unwrap();
            window.truncate(used as usize);
            let local = Area::new(&a, 128, MEM_READWRITE);
            local.fill(&[0xEE; 128]);
            let op = Op::polled();
            let code = a.rdma(write, &[local.piece(0, length)], &window, offset, &op);
            let code = outcome(&a, code, &op);
            assert!(
                [WSAEINVAL, WSAECONNABORTED].contains(&code),
                "{what}: {code}"
            );
            assert!(remote.bytes(128) == before, "{what}");
            assert!(local.bytes(128) == [0xEE; 128], "{what}");
        }
    }
}

// req: WSD-13
#[test]
fn a_descriptor_serves_its_own_connection_and_only_while_exposed() {
    let _session = Session::new();
    for write in [true, false] {
        // A failure may end the connection: each case has its own.
        for case in [
            "another connection",
            "the other direction",
            "no longer exposed",
        ] {
            let (a, b) = pair();
            let (c, _d) = pair();
            let remote = Area::unregistered(64);
            let before = pattern(64, 6);
            remote.fill(&before);
            let window = b.window(&remote, MEM_READWRITE);
            let user = match case {
                "another connection" => &c,
                "the other direction" => &b,
                _ => {
                    b.conceal(&window).unwrap();
                    &a
                }
            };
            let local = Area::new(user, 64, MEM_READWRITE);
            local.fill(&[0xEE; 64]);
            let op = Op::polled();
            let code = user.rdma(write, &[local.piece(0, 64)], &window, 0, &op);
            let code = outcome(user, code, &op);
            assert!(
                [WSAEINVAL, WSAECONNABORTED].contains(&code),
                "{case}: {code}"
            );
            assert!(local.bytes(64) == [0xEE; 64], "{case}");
            assert!(remote.bytes(64) == before, "{case}");
        }
    }
}

// req: WSD-14
#[test]
fn what_was_written_before_a_send_is_there_when_the_send_arrives() {
    let _session = Session::new();
    let (a, b) = pair();
    const LENGTH: usize = 40 * KIB;
    let remote = Area::unregistered(LENGTH);
    let window = b.window(&remote, MEM_WRITE);
    let local = Area::new(&a, LENGTH, MEM_READ);
    let target = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"done");
    for round in 0..60 {
        let received = Op::polled();
        assert_eq!(b.recv(&target.all(), &received), WSA_IO_PENDING);
        let bytes = pattern(LENGTH, round);
        local.fill(&bytes);
        let (half, rest) = (LENGTH / 2 + round, LENGTH / 2 - round);
        let (one, two, sent) = (Op::polled(), Op::polled(), Op::polled());
        let offset = u32::try_from(half).unwrap();
        let first = [local.piece(0, 10), local.piece(10, half - 10)];
        assert_eq!(a.rdma(true, &first, &window, 0, &one), WSA_IO_PENDING);
        let second = [local.piece(half, rest)];
        assert_eq!(a.rdma(true, &second, &window, offset, &two), WSA_IO_PENDING);
        // Without waiting for the writes.
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        // Nobody asks for the results at the sending side.
        assert_eq!(b.finish(&received), Ok(4));
        assert!(remote.bytes(LENGTH) == bytes, "round {round}");
        for op in [&one, &two, &sent] {
            a.finish(op).unwrap();
        }
    }
}

// req: WSD-14
#[test]
fn what_is_read_before_a_send_was_taken_when_the_send_arrives() {
    let _session = Session::new();
    let (a, b) = pair();
    const LENGTH: usize = 200 * KIB;
    let remote = Area::unregistered(LENGTH);
    let local = Area::new(&a, LENGTH, MEM_WRITE);
    let target = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"done");
    for round in 0..60 {
        let bytes = pattern(LENGTH, round);
        remote.fill(&bytes);
        let window = b.window(&remote, MEM_READ);
        let received = Op::polled();
        assert_eq!(b.recv(&target.all(), &received), WSA_IO_PENDING);
        let (read, sent) = (Op::polled(), Op::polled());
        assert_eq!(
            a.rdma(false, &[local.piece(0, LENGTH)], &window, 0, &read),
            WSA_IO_PENDING
        );
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        assert_eq!(b.finish(&received), Ok(4));
        // The message says that the memory is not needed any more.
        b.conceal(&window).unwrap();
        remote.fill(&vec![0; LENGTH]);
        assert_eq!(a.finish(&read), Ok(u32::try_from(LENGTH).unwrap()));
        a.finish(&sent).unwrap();
        assert!(local.bytes(LENGTH) == bytes, "round {round}");
    }
}

#[test]
fn rdma_in_both_directions_at_once_makes_progress() {
    let _session = Session::new();
    let (a, b) = pair();
    const LENGTH: usize = 100 * KIB;
    const COUNT: usize = 40;
    let run = |from: &Sock, window: &[u8], seed: usize| {
        let local = Area::new(from, LENGTH, MEM_READWRITE);
        local.fill(&pattern(LENGTH, seed));
        let ops: Vec<_> = (0..COUNT)
            .map(|n| {
                let op = if n % 3 == 0 {
                    Op::notified()
                } else {
                    Op::polled()
                };
                let piece = [local.piece(0, LENGTH)];
                let code = from.rdma(n % 2 == 0, &piece, window, 0, &op);
                assert_eq!(code, WSA_IO_PENDING);
                op
            })
            .collect();
        for op in &ops {
            assert_eq!(from.finish(op), Ok(u32::try_from(LENGTH).unwrap()));
        }
        assert!(local.bytes(LENGTH) == pattern(LENGTH, seed));
    };
    let (of_a, of_b) = (Area::unregistered(LENGTH), Area::unregistered(LENGTH));
    let window_a = a.window(&of_a, MEM_READWRITE);
    let window_b = b.window(&of_b, MEM_READWRITE);
    std::thread::scope(|scope| {
        scope.spawn(|| run(&a, &window_b, 1));
        scope.spawn(|| run(&b, &window_a, 2));
    });
    assert!(of_b.bytes(LENGTH) == pattern(LENGTH, 1));
    assert!(of_a.bytes(LENGTH) == pattern(LENGTH, 2));
    assert_eq!(
        a.await_completions(COUNT.div_ceil(3)).len(),
        COUNT.div_ceil(3)
    );
}

#[test]
fn closing_during_rdma_ends_it() {
    let _session = Session::new();
    const LENGTH: usize = 512 * KIB;
    for close_own in [true, false] {
        let (a, b) = pair();
        let remote = Area::unregistered(LENGTH);
        let window = b.window(&remote, MEM_READWRITE);
        let local = Area::new(&a, LENGTH, MEM_READWRITE);
        let ops: Vec<_> = (0..12)
            .map(|n| {
                let op = if n % 2 == 0 {
                    Op::notified()
                } else {
                    Op::polled()
                };
                let code = a.rdma(n % 3 == 0, &[local.piece(0, LENGTH)], &window, 0, &op);
                assert_eq!(code, WSA_IO_PENDING);
                op
            })
            .collect();
        let closing = if close_own { &a } else { &b };
        closing.close().unwrap();
        let code = if close_own { 995 } else { 10_054 };
        for op in &ops {
            eventually("the end of a transfer", || {
                let _ = a.result(op, false);
                op.has_ended().then_some(())
            });
            let fields = op.fields();
            assert!([0, code].contains(&fields.OffsetHigh), "{fields:?}");
            let length = if fields.OffsetHigh == 0 { LENGTH } else { 0 };
            assert_eq!(fields.InternalHigh, length);
        }
        assert_eq!(a.await_completions(6).len(), 6);
    }
}
