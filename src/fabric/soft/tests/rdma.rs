//! Reads and writes of remote memory, the same cases for both ways.

use super::rig::{End, Host, Memory, Rig, number, until};
use crate::fabric::soft::rdma_direct::REFUSAL;
use crate::fabric::soft::{Options, Rdma};
use crate::fabric::{
    Access, DeregisterError, Ending, Endpoint, Event, Key, OpId, Outcome, Post, PostError, Posted,
    Region, RegisterError,
};

const WAYS: [(Rdma, &str); 2] = [(Rdma::Direct, "direct"), (Rdma::Pipelined, "pipelined")];

/// Runs a case for both ways, each on a connected pair.
fn both_ways(case: impl Fn(&mut Rig, End, End)) {
    for (rdma, path) in WAYS {
        let mut rig = Rig::new(Options {
            rdma,
            ..Options::default()
        });
        let (a, b) = rig.pair();
        assert_eq!(
            (a.endpoint.rdma_path(), b.endpoint.rdma_path()),
            (path, path)
        );
        case(&mut rig, a, b);
    }
}

#[allow(unsafe_code)]
fn expose(endpoint: &dyn Endpoint, bytes: &[u8], access: Access) -> (Key, [u8; 32]) {
    let mut descriptor = [0; 32];
    // SAFETY: tests keep the memory until the endpoint is gone.
    let key = unsafe { endpoint.expose(Memory::region(bytes), access, &mut descriptor) }.unwrap();
    (key, descriptor)
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from((index * 31 + seed * 7 + index / 251) & 0xFF).unwrap())
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Read,
    Write,
}

/// Starts a transfer between the start of `end`'s local memory and the remote region.
fn start(
    end: &End,
    way: Way,
    len: usize,
    remote: &[u8],
    offset: u64,
) -> Result<(OpId, Posted), PostError> {
    let op = OpId(number());
    let posted = match way {
        Way::Read => {
            let pieces = [end.inward.piece(0, len)];
            end.endpoint.post(Post::Read {
                op,
                pieces: &pieces,
                remote,
                offset,
            })
        }
        Way::Write => {
            let pieces = [end.out.piece(0, len)];
            end.endpoint.post(Post::Write {
                op,
                pieces: &pieces,
                remote,
                offset,
            })
        }
    };
    posted.map(|posted| (op, posted))
}

/// Waits for an operation of `a` while `b` is served too.
fn outcome(a: &mut End, b: &mut End, (op, posted): (OpId, Posted)) -> Outcome {
    match posted {
        Posted::Done(len) => Outcome::Done(len),
        Posted::Pending => until("a transfer", || {
            b.poll();
            a.outcome(op)
        }),
    }
}

#[test]
fn a_write_and_a_read_move_exactly_what_they_name() {
    both_ways(|_, mut a, mut b| {
        for len in [0, 1, 63, 4096, 32 << 10, (32 << 10) + 1, 300_000, 3 << 20] {
            let mut target = vec![0xEE; len + 20];
            let (key, descriptor) = expose(&*b.endpoint, &target, Access::WRITE);
            let data = pattern(len, 1);
            a.out.bytes[..len].copy_from_slice(&data);
            let write = start(&a, Way::Write, len, &descriptor, 10).unwrap();
            assert_eq!(outcome(&mut a, &mut b, write), Outcome::Done(len));
            b.endpoint.conceal(key).unwrap();
            assert!(target[10..10 + len] == data && target[..10] == [0xEE; 10]);
            assert_eq!(target[10 + len..], [0xEE; 10]);
            target[10..10 + len].copy_from_slice(&pattern(len, 2));
            let (key, descriptor) = expose(&*b.endpoint, &target, Access::READ);
            a.inward.bytes.fill(0x55);
            let read = start(&a, Way::Read, len, &descriptor, 10).unwrap();
            assert_eq!(outcome(&mut a, &mut b, read), Outcome::Done(len));
            assert!(a.inward.bytes[..len] == pattern(len, 2));
            assert!(a.inward.bytes[len..].iter().all(|&byte| byte == 0x55));
            b.endpoint.conceal(key).unwrap();
        }
    });
}

#[test]
fn many_pieces_are_gathered_and_filled_in_order() {
    // req: WSD-14
    both_ways(|_, mut a, mut b| {
        let target = vec![0u8; 1 << 20];
        let (_key, descriptor) = expose(&*b.endpoint, &target, Access::READ | Access::WRITE);
        let data = pattern(1 << 20, 3);
        a.out.bytes[..1 << 20].copy_from_slice(&data);
        let lens: Vec<_> = (0..64).map(|index| index * 131 % 4001).collect();
        let total: usize = lens.iter().sum();
        let mut pieces = Vec::new();
        let mut at = 1 << 20;
        let mut wanted = Vec::new();
        for &len in &lens {
            at -= len;
            pieces.push(a.out.piece(at, len));
            wanted.extend(&data[at..at + len]);
        }
        let op = OpId(number());
        let posted = a.endpoint.post(Post::Write {
            op,
            pieces: &pieces,
            remote: &descriptor,
            offset: 500,
        });
        assert_eq!(
            outcome(&mut a, &mut b, (op, posted.unwrap())),
            Outcome::Done(total)
        );
        assert!(target[500..500 + total] == wanted);
        let mut pieces = Vec::new();
        let mut at = 1 << 20;
        for &len in &lens {
            at -= len;
            pieces.push(a.inward.piece(at, len));
        }
        let op = OpId(number());
        let posted = a.endpoint.post(Post::Read {
            op,
            pieces: &pieces,
            remote: &descriptor,
            offset: 500,
        });
        assert_eq!(
            outcome(&mut a, &mut b, (op, posted.unwrap())),
            Outcome::Done(total)
        );
        assert!(a.inward.bytes[at..1 << 20] == data[at..]);
    });
}

/// What is wrong with an access, and what `post` or the completion says.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    TooFar,
    TooLong,
    OffsetOverflow,
    NoRight,
    Concealed,
    OtherConnection,
    Reflected,
    StaleGeneration,
    OtherSlot,
    /// The descriptor lies about the length.
    Widened,
    MoreRights,
}

#[test]
fn an_access_that_was_not_granted_moves_no_byte_and_ends_the_connection() {
    // req: WSD-13
    use Wrong::*;
    for wrong in [
        TooFar,
        TooLong,
        OffsetOverflow,
        NoRight,
        Concealed,
        OtherConnection,
        Reflected,
        StaleGeneration,
        OtherSlot,
        Widened,
        MoreRights,
    ] {
        for way in [Way::Read, Way::Write] {
            both_ways(|rig, mut a, mut b| {
                let (mut c, _d) = rig.pair();
                let memory = vec![0xAB; 8192];
                let (granted, other) = match way {
                    Way::Read => (Access::READ, Access::WRITE),
                    Way::Write => (Access::WRITE, Access::READ),
                };
                let rights = if matches!(wrong, NoRight | MoreRights) {
                    other
                } else {
                    granted
                };
                let owner = match wrong {
                    OtherConnection => &c,
                    Reflected => &a,
                    _ => &b,
                };
                // Only the first half is exposed.
                let (key, mut descriptor) = expose(&*owner.endpoint, &memory[..4096], rights);
                let (mut offset, mut len) = (0, 100);
                match wrong {
                    TooFar => offset = 4000,
                    TooLong => len = 4097,
                    OffsetOverflow => offset = u64::MAX - 50,
                    Concealed => b.endpoint.conceal(key).unwrap(),
                    StaleGeneration => {
                        b.endpoint.conceal(key).unwrap();
                        // Every slot is used again before the first one is.
                        let again = expose(&*b.endpoint, &memory[..4096], rights).1;
                        assert_eq!(again[4..8], descriptor[4..8]);
                    }
                    OtherSlot => descriptor[4] = 77,
                    Widened => {
                        descriptor[16..24].copy_from_slice(&8192u64.to_le_bytes());
                        offset = 4090;
                    }
                    MoreRights => descriptor[2] = 3,
                    _ => {}
                }
                a.out.bytes[..len].fill(1);
                let waiting = a.receive(1 << 20, 10);
                let started = start(&a, way, len, &descriptor, offset).unwrap();
                let ended = outcome(&mut a, &mut b, started);
                assert_eq!(ended, Outcome::RemoteAccess, "{wrong:?} {way:?}");
                assert_eq!(memory, [0xAB; 8192]);
                assert!(a.inward.bytes[..len].iter().all(|&byte| byte == 0));
                assert_eq!(a.end(waiting), Outcome::Flushed(Ending::Broken));
                assert_eq!(a.endpoint.ending(), Some(Ending::Broken));
                until("the end at the owner", || {
                    rig.host.poll();
                    b.poll();
                    b.endpoint.ending()
                });
                // Other connections live on.
                c.poll();
                assert_eq!(c.endpoint.ending(), None);
            });
        }
    }
}

#[test]
fn what_is_no_descriptor_starts_nothing() {
    both_ways(|_, a, b| {
        let memory = vec![0; 100];
        let (_, descriptor) = expose(&*b.endpoint, &memory, Access::READ);
        for bad in [&descriptor[..31], &[0; 32], &[], &[0xFF; 32]] {
            assert_eq!(
                start(&a, Way::Read, 1, bad, 0).err(),
                Some(PostError::BadDescriptor)
            );
        }
        assert_eq!(a.endpoint.ending(), None);
    });
}

#[test]
fn a_fabric_without_read_says_so_and_still_writes() {
    both_ways(|rig, _, _| {
        let options = Options {
            rdma_read: false,
            ..rig.host.options.clone()
        };
        let mut rig = Rig::new(options);
        let (mut a, mut b) = rig.pair();
        let memory = vec![0; 100];
        let (_, descriptor) = expose(&*b.endpoint, &memory, Access::READ | Access::WRITE);
        assert_eq!(
            start(&a, Way::Read, 1, &descriptor, 0).err(),
            Some(PostError::Unsupported)
        );
        a.out.bytes[..100].fill(9);
        let write = start(&a, Way::Write, 100, &descriptor, 0).unwrap();
        assert_eq!(outcome(&mut a, &mut b, write), Outcome::Done(100));
        assert_eq!(memory, [9; 100]);
    });
}

#[test]
fn a_send_does_not_overtake_the_write_or_read_before_it() {
    // req: WSD-14
    both_ways(|_, mut a, mut b| {
        for round in 0..200usize {
            let len = 1 + round * 1009 % 200_000;
            let mut memory = pattern(len, round);
            let (key, descriptor) = expose(&*b.endpoint, &memory, Access::READ | Access::WRITE);
            let way = if round % 2 == 0 {
                Way::Write
            } else {
                Way::Read
            };
            a.out.bytes[..len].copy_from_slice(&pattern(len, round + 1));
            let transfer = start(&a, way, len, &descriptor, 0).unwrap();
            let (op, sent) = a.send_at(len, b"done").unwrap();
            let receive = b.receive(0, 10);
            let arrived = if let Posted::Done(len) = receive.1 {
                Outcome::Done(len)
            } else {
                until("the message", || {
                    a.poll();
                    b.outcome(receive.0)
                })
            };
            assert_eq!(arrived, Outcome::Done(4));
            match way {
                Way::Write => assert!(memory == pattern(len, round + 1)),
                // The reader is done with the memory.
                Way::Read => memory.fill(0),
            }
            assert_eq!(outcome(&mut a, &mut b, transfer), Outcome::Done(len));
            assert_eq!(outcome(&mut a, &mut b, (op, sent)), Outcome::Done(4));
            if way == Way::Read {
                assert!(a.inward.bytes[..len] == pattern(len, round));
            }
            b.endpoint.conceal(key).unwrap();
        }
    });
}

#[test]
fn transfers_of_both_sides_at_once_with_full_rings_come_to_their_end() {
    both_ways(|_, mut a, mut b| {
        let memory = [vec![0u8; 1 << 20], vec![0u8; 1 << 20]];
        let all = Access::READ | Access::WRITE;
        let (_, at_a) = expose(&*a.endpoint, &memory[0], all);
        let (_, at_b) = expose(&*b.endpoint, &memory[1], all);
        let mut left = Vec::new();
        // Nobody receives: the message rings fill too.
        for round in 0..40 {
            for (end, remote) in [(&mut a, &at_b), (&mut b, &at_a)] {
                let way = if round % 2 == 0 {
                    Way::Write
                } else {
                    Way::Read
                };
                let started = start(end, way, 1 << 20, remote, 0).unwrap();
                left.push((end.token, started, 1 << 20));
                let sent = end.send_at(2 << 20, &[1; 60_000]).unwrap();
                left.push((end.token, sent, 60_000));
            }
        }
        let receives: Vec<_> = (0..40)
            .map(|_| (a.receive(3 << 20, 60_000), b.receive(3 << 20, 60_000)))
            .collect();
        for (at, started, len) in left {
            let (one, other) = if at == a.token {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            assert_eq!(outcome(one, other, started), Outcome::Done(len));
        }
        for (at_a, at_b) in receives {
            assert_eq!(outcome(&mut a, &mut b, at_a), Outcome::Done(60_000));
            assert_eq!(outcome(&mut b, &mut a, at_b), Outcome::Done(60_000));
        }
    });
}

#[test]
fn the_progress_thread_serves_a_target_that_nobody_polls() {
    for rdma in [Rdma::Pipelined, Rdma::Direct] {
        let mut rig = Rig::new(Options {
            rdma,
            ..Options::default()
        });
        let (mut a, b) = rig.pair();
        let memory = pattern(2 << 20, 1);
        let (_, descriptor) = expose(&*b.endpoint, &memory, Access::READ);
        let (op, posted) = start(&a, Way::Read, 2 << 20, &descriptor, 0).unwrap();
        if posted == Posted::Pending {
            let outcome = until("the read", || {
                rig.host.poll();
                a.outcome(op)
            });
            assert_eq!(outcome, Outcome::Done(2 << 20));
        }
        assert!(a.inward.bytes[..2 << 20] == memory);
    }
}

#[test]
fn registrations_and_exposures_in_use_are_kept() {
    // req: WSD-12
    both_ways(|_, mut a, mut b| {
        let receive = a.receive(0, 10);
        assert_eq!(
            a.endpoint.deregister(a.inward.key),
            Err(DeregisterError::InUse)
        );
        b.send(b"x").unwrap();
        assert_eq!(a.end(receive), Outcome::Done(1));
        assert_eq!(a.endpoint.deregister(a.inward.key), Ok(()));
        assert_eq!(
            a.endpoint.deregister(a.inward.key),
            Err(DeregisterError::Unknown)
        );
        // A key of one endpoint is unknown on another, also with the same number.
        let memory = vec![0; 10];
        let (key, _) = expose(&*a.endpoint, &memory, Access::READ);
        assert_eq!(a.endpoint.deregister(key), Err(DeregisterError::Unknown));
        assert_eq!(b.endpoint.conceal(key), Err(DeregisterError::Unknown));
        assert_eq!(a.endpoint.conceal(key), Ok(()));
        assert_eq!(a.endpoint.conceal(key), Err(DeregisterError::Unknown));
    });
}

#[test]
#[allow(unsafe_code)]
fn memory_that_is_not_there_cannot_be_registered_or_exposed() {
    both_ways(|_, a, _b| {
        let mut descriptor = [0; 32];
        for region in [
            Region { base: 0, len: 1 },
            Region { base: 8, len: 0 },
            Region {
                base: usize::MAX - 10,
                len: 100,
            },
            Region {
                base: a.out.bytes.as_ptr() as usize,
                len: 1 << 46,
            },
        ] {
            // SAFETY: nothing is posted on it.
            let registered = unsafe { a.endpoint.register(region, Access::READ) };
            assert_eq!(registered, Err(RegisterError::BadRegion));
            // SAFETY: the peer is not told.
            let exposed = unsafe { a.endpoint.expose(region, Access::READ, &mut descriptor) };
            assert_eq!(exposed, Err(RegisterError::BadRegion));
        }
    });
}

#[test]
#[allow(unsafe_code)]
fn windows_run_out_and_come_back() {
    both_ways(|_, a, _b| {
        let memory = vec![0; 10];
        let mut keys = Vec::new();
        let mut descriptor = [0; 32];
        let out = loop {
            let region = Memory::region(&memory);
            // SAFETY: the memory outlives the endpoint's use of it.
            match unsafe { a.endpoint.expose(region, Access::READ, &mut descriptor) } {
                Ok(key) => keys.push(key),
                Err(error) => break error,
            }
        };
        assert_eq!(out, RegisterError::NoResources);
        assert_eq!(keys.len(), 4096);
        for key in keys {
            a.endpoint.conceal(key).unwrap();
        }
        expose(&*a.endpoint, &memory, Access::READ);
    });
}

#[test]
fn a_transfer_that_waits_when_the_connection_ends_is_flushed() {
    let mut rig = Rig::new(Options {
        rdma: Rdma::Pipelined,
        ..Options::default()
    });
    let (mut a, b) = rig.pair();
    let memory = vec![0; 1 << 20];
    let (_, descriptor) = expose(&*b.endpoint, &memory, Access::READ);
    let reads: Vec<_> = (0..3)
        .map(|_| start(&a, Way::Read, 1 << 20, &descriptor, 0).unwrap().0)
        .collect();
    let sent = a.send(b"behind").unwrap();
    assert_eq!(sent.1, Posted::Pending);
    b.endpoint.disconnect();
    rig.host.next(
        "the end",
        |e| matches!(e, Event::Ended { endpoint, .. } if *endpoint == a.token),
    );
    a.poll();
    let mut flushed: Vec<_> = a.completions.iter().map(|c| (c.op.0, c.outcome)).collect();
    flushed.sort_by_key(|f| f.0);
    let ops = reads.into_iter().chain([sent.0]);
    let wanted: Vec<_> = ops
        .map(|op| (op.0, Outcome::Flushed(Ending::Peer)))
        .collect();
    assert_eq!(flushed, wanted);
}

#[test]
fn concealing_while_the_peer_reads_lets_no_read_see_what_comes_after() {
    for (rdma, _) in WAYS {
        let mut rig = Rig::new(Options {
            rdma,
            ..Options::default()
        });
        for _ in 0..30 {
            let (mut a, mut b) = rig.pair();
            let mut memory = vec![1u8; 1 << 20];
            let (key, descriptor) = expose(&*b.endpoint, &memory, Access::READ);
            let reader = std::thread::spawn(move || {
                let mut reads = 0;
                while let Ok(read) = start(&a, Way::Read, 1 << 20, &descriptor, 0) {
                    match a.end(read) {
                        Outcome::Done(_) => reads += 1,
                        _ => break,
                    }
                    assert!(a.inward.bytes[..1 << 20].iter().all(|&byte| byte == 1));
                }
                reads
            });
            for _ in 0..20 {
                b.poll();
                std::thread::yield_now();
            }
            until("silence", || b.endpoint.conceal(key).ok());
            memory.fill(2);
            until("the end of the reader", || {
                b.poll();
                reader.is_finished().then_some(())
            });
            reader.join().unwrap();
            assert!(memory.iter().all(|&byte| byte == 2));
        }
    }
}

#[test]
fn the_ways_may_differ_and_still_meet() {
    // A side that forbids direct access gets pipelined requests from a peer that would go direct.
    let mut listener = Rig::new(Options {
        rdma: Rdma::Pipelined,
        ..Options::default()
    });
    let mut connector = Host::new(Options::default());
    let (there, here) = (
        crate::fabric::Token(number()),
        crate::fabric::Token(number()),
    );
    let from = std::net::SocketAddr::new(listener.at.ip(), 0);
    let connecting = connector.fabric.connect(here, from, listener.at).unwrap();
    let accepted = listener
        .host
        .request(listener.listening)
        .accept(there)
        .unwrap();
    connector.connected(here).unwrap();
    assert_eq!(connecting.rdma_path(), "pipelined");
    assert_eq!(accepted.rdma_path(), "pipelined");
    // And one that insists on direct cannot connect to it.
    let mut insisting = Host::new(Options {
        rdma: Rdma::Direct,
        ..Options::default()
    });
    let here = crate::fabric::Token(number());
    let _endpoint = insisting.fabric.connect(here, from, listener.at).unwrap();
    let _accepted = listener.host.request(listener.listening).accept(there);
    assert!(insisting.connected(here).is_err());
}

#[test]
fn a_kernel_that_lacks_memory_for_good_is_gone_round_and_one_that_lacks_it_briefly_is_not() {
    for (briefly, path) in [(true, "direct"), (false, "pipelined")] {
        let mut rig = Rig::new(Options::default());
        let (mut a, mut b) = rig.pair();
        assert_eq!(a.endpoint.rdma_path(), "direct");
        let len = 3 << 20;
        let target = vec![0u8; len];
        let (_key, descriptor) = expose(&*b.endpoint, &target, Access::WRITE);
        let data = pattern(len, 4);
        a.out.bytes[..len].copy_from_slice(&data);
        REFUSAL.set(Some(libc::ENOMEM));
        let write = start(&a, Way::Write, len, &descriptor, 0).unwrap();
        assert_eq!(write.1, Posted::Pending);
        if briefly {
            a.poll();
            REFUSAL.set(None);
        }
        assert_eq!(outcome(&mut a, &mut b, write), Outcome::Done(len));
        REFUSAL.set(None);
        assert!(target == data);
        assert_eq!(a.endpoint.rdma_path(), path);
    }
}
