//! `SanStream` over the embedded SAN, pushing and pulling, and over TCP: one behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Numbers, PATIENCE, amount, is_ready, is_ready_fd, pair, pair_with, read_tape, write_tape,
};
use wsd_switch::{Mode, SanStream, SendPolicy, StreamOptions, observe};

const MODES: [Mode; 3] = [Mode::Read, Mode::Write, Mode::Tcp];
const SAN: [Mode; 2] = [Mode::Read, Mode::Write];

#[test]
fn bytes_arrive_as_sent_in_pieces_of_any_length_in_both_directions_at_once() {
    for mode in MODES {
        let (one, two) = pair(mode);
        let total = amount(40_000_000);
        thread::scope(|scope| {
            scope.spawn(|| write_tape(&one, 1, total));
            scope.spawn(|| write_tape(&two, 2, total));
            scope.spawn(|| read_tape(&two, 1, total));
            scope.spawn(|| read_tape(&one, 2, total));
        });
    }
}

/// req: SEED-04 SEED-05 SEED-07 SEED-12 SEED-17 WSD-20
#[test]
fn the_path_of_the_bytes_is_the_one_that_was_asked_for() {
    for mode in SAN {
        let (mut one, mut two) = pair(mode);
        let small = Numbers::new(1).bytes(10_000);
        let large = Numbers::new(2).bytes(3_000_000);
        let reader = thread::spawn(move || {
            let mut got = vec![0; 3_010_000];
            two.read_exact(&mut got).unwrap();
            (got, two)
        });
        one.write_all(&small).unwrap();
        one.write_all(&large).unwrap();
        let (got, two) = reader.join().unwrap();
        assert!(got[..10_000] == small && got[10_000..] == large);
        // What completes the transfer comes to the sender before this.
        (&two).write_all(b"!").unwrap();
        one.read_exact(&mut [0]).unwrap();
        let (sender, receiver) = (one.stats(), two.stats());
        let moved = match mode {
            Mode::Write => (
                sender.rdma_writes,
                sender.rdma_write_bytes,
                receiver.rdma_reads,
            ),
            _ => (
                receiver.rdma_reads,
                receiver.rdma_read_bytes,
                sender.rdma_writes,
            ),
        };
        assert!(
            moved.0 > 0 && moved.1 > 2_900_000 && moved.2 == 0,
            "{mode:?} {moved:?}"
        );
        assert_eq!(sender.bytes_sent, 3_010_000);
        assert_eq!(receiver.bytes_received, 3_010_000);
        assert_eq!(sender.unsent, 0);
    }
}

/// Each writes its own pieces: one byte says whose, four say how long, the rest is whose again.
#[test]
fn what_a_thread_writes_in_one_call_stays_together_when_others_write_too() {
    const WRITERS: u8 = 4;
    for (mode, pieces, most) in [
        (Mode::Read, 10_000, 300),
        (Mode::Read, 60, 3_000_000),
        (Mode::Write, 60, 3_000_000),
    ] {
        let (one, mut two) = pair(mode);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let mut one = &one;
                scope.spawn(move || {
                    let mut lengths = Numbers::new(u64::from(writer));
                    for index in 0..pieces {
                        let len = if index % 3 == 0 { most } else { 300 } - lengths.below(290);
                        let mut piece = vec![writer; 5 + len];
                        piece[1..5].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
                        assert_eq!(one.write(&piece).unwrap(), piece.len());
                    }
                });
            }
            // Owns its end, so that its failure is everybody's.
            scope.spawn(move || {
                // Until none of them can go on.
                thread::sleep(Duration::from_millis(300));
                let (mut head, mut rest) = ([0; 5], vec![0; most]);
                for index in 0..usize::from(WRITERS) * pieces {
                    two.read_exact(&mut head).unwrap();
                    let len = usize::try_from(u32::from_le_bytes(head[1..].try_into().unwrap()));
                    let rest = rest.get_mut(..len.unwrap()).unwrap_or_else(|| {
                        panic!("{mode:?}, up to {most}, piece {index}: no head: {head:?}")
                    });
                    two.read_exact(rest).unwrap();
                    let whole = head[0] < WRITERS && rest.iter().all(|byte| *byte == head[0]);
                    assert!(whole, "{mode:?}, up to {most}, piece {index}");
                }
            });
        });
    }
}

/// req: SEED-16
#[test]
fn a_thread_may_write_to_both_ends_before_it_reads() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        // What any TCP takes without a reader.
        let len = if mode == Mode::Tcp { 50_000 } else { 2_000_000 };
        let bytes = Numbers::new(3).bytes(len);
        one.write_all(&bytes).unwrap();
        two.write_all(&bytes).unwrap();
        for end in [&mut one, &mut two] {
            let mut got = vec![0; len];
            end.read_exact(&mut got).unwrap();
            assert!(got == bytes);
        }
    }
}

#[test]
fn two_sides_that_write_at_once_go_on_as_far_as_the_buffers_reach() {
    for mode in SAN {
        for policy in [
            SendPolicy::ZeroCopy,
            SendPolicy::Background,
            SendPolicy::Auto,
        ] {
            let (one, two) = pair_with(&StreamOptions::new().mode(mode).send_policy(policy));
            // A lent buffer has to fit into what the other side takes in unasked; copies have this
            // side's send buffer besides.
            let lends = policy == SendPolicy::ZeroCopy;
            let len = if lends { 3_900_000 } else { 6_000_000 };
            let run = |mut end: SanStream, mine: u64, theirs: u64| {
                thread::spawn(move || {
                    end.write_all(&Numbers::new(mine).bytes(len)).unwrap();
                    let mut got = vec![0; len];
                    end.read_exact(&mut got).unwrap();
                    assert!(got == Numbers::new(theirs).bytes(len));
                    end
                })
            };
            let threads = [run(one, 1, 2), run(two, 2, 1)];
            let _ends = threads.map(|thread| thread.join().unwrap());
        }
    }
}

#[test]
fn a_half_close_is_one_way_only() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        one.write_all(b"the last words").unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(one.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut got = Vec::new();
        two.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"the last words");
        let bytes = Numbers::new(5).bytes(300_000);
        let sent = bytes.clone();
        let writer = thread::spawn(move || {
            two.write_all(&sent).unwrap();
            two.close().unwrap();
        });
        let mut got = Vec::new();
        one.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
        drop(one);
        writer.join().unwrap();
    }
}

#[test]
fn closing_with_something_unread_is_a_reset() {
    for mode in MODES {
        let (mut one, two) = pair(mode);
        one.write_all(b"nobody reads this").unwrap();
        assert_eq!(two.peek(&mut [0]).unwrap(), 1);
        drop(two);
        let error = one.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{mode:?}");
        assert!(one.write(b"x").is_err());
    }
}

#[test]
fn lingering_for_no_time_is_a_reset() {
    for mode in MODES {
        let (mut one, two) = pair(mode);
        assert_eq!(two.linger().unwrap(), None);
        two.set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(two.linger().unwrap(), Some(Duration::ZERO));
        drop(two);
        assert_eq!(
            one.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

/// What TCP is for: a peer that gives up is a reset, whoever was to move what is lost.
#[test]
fn lingering_that_gives_up_is_a_reset_in_either_mode() {
    for mode in SAN {
        for _ in 0..5 {
            let (mut one, two) = pair(mode);
            let bytes = Numbers::new(6).bytes(4 << 20);
            two.set_nonblocking(true).unwrap();
            while (&two).write(&bytes).is_ok() {}
            two.set_linger(Some(Duration::from_millis(20))).unwrap();
            drop(two);
            let mut room = vec![0; 1 << 20];
            let error = loop {
                match one.read(&mut room) {
                    Ok(0) => panic!("{mode:?}: a peer that gave up did not say goodbye"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{mode:?}");
        }
    }
}

#[test]
fn lingering_delivers_what_was_written() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        one.set_linger(Some(PATIENCE)).unwrap();
        let bytes = Numbers::new(6).bytes(1_500_000);
        let expected = bytes.clone();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            two.read_to_end(&mut got).unwrap();
            assert!(got == expected);
        });
        one.write_all(&bytes).unwrap();
        drop(one);
        reader.join().unwrap();
    }
}

#[test]
fn what_was_written_before_a_drop_is_read_after_it() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        let len = if mode == Mode::Tcp { 50_000 } else { 3_000_000 };
        let bytes = Numbers::new(7).bytes(len);
        one.write_all(&bytes).unwrap();
        drop(one);
        let mut got = Vec::new();
        two.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
    }
}

#[test]
fn time_outs_are_those_of_std() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        assert_eq!(
            one.set_read_timeout(Some(Duration::ZERO))
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidInput
        );
        one.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        assert!(one.read_timeout().unwrap().is_some());
        assert_eq!(
            one.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(
            one.peek(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        one.set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        assert!(one.write_timeout().unwrap().is_some());
        let bytes = Numbers::new(8).bytes(1 << 20);
        let mut sent = Vec::new();
        let error = loop {
            match one.write(&bytes) {
                Ok(count) => sent.extend_from_slice(&bytes[..count]),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        // The stream is whole: exactly what was accepted arrives.
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            two.read_to_end(&mut got).unwrap();
            got
        });
        one.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == sent);
    }
}

#[test]
fn one_loop_with_poll_serves_every_path() {
    for mode in MODES {
        for total in [200, amount(20_000_000)] {
            let (one, two) = pair(mode);
            one.set_nonblocking(true).unwrap();
            two.set_nonblocking(true).unwrap();
            assert!(!is_ready(&two, Duration::ZERO));
            let bytes = Arc::new(Numbers::new(9).bytes(total));
            let expected = Arc::clone(&bytes);
            let reader = thread::spawn(move || {
                let mut two = two;
                let mut got = Vec::new();
                let mut room = vec![0; 70_000];
                loop {
                    match two.read(&mut room) {
                        Ok(0) => break,
                        Ok(count) => got.extend_from_slice(&room[..count]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            assert!(is_ready(&two, PATIENCE), "{mode:?}: {} read", got.len());
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(got == *expected);
            });
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match (&one).write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        assert!(
                            is_ready(&one, PATIENCE),
                            "{mode:?}: {} to write",
                            rest.len()
                        );
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            one.shutdown(Shutdown::Write).unwrap();
            reader.join().unwrap();
        }
    }
}

#[test]
fn the_descriptor_is_quiet_until_there_is_something() {
    for mode in MODES {
        let (one, two) = pair(mode);
        assert!(!is_ready(&two, Duration::from_millis(20)));
        (&one).write_all(b"abc").unwrap();
        assert!(is_ready(&two, PATIENCE));
        let mut room = [0; 2];
        assert_eq!((&two).read(&mut room).unwrap(), 2);
        assert!(is_ready(&two, Duration::ZERO), "there is one byte left");
        assert_eq!((&two).read(&mut room).unwrap(), 1);
        assert!(!is_ready(&two, Duration::ZERO));
        drop(one);
        assert!(is_ready(&two, PATIENCE), "the end is something to read");
        assert_eq!((&two).read(&mut room).unwrap(), 0);
    }
}

#[test]
fn the_raw_descriptor_follows_the_last_call() {
    for mode in MODES {
        let (one, two) = pair(mode);
        let raw = two.as_raw_fd();
        assert!(!is_ready_fd(raw, Duration::ZERO), "{mode:?}");
        (&one).write_all(b"x").unwrap();
        assert!(is_ready_fd(raw, PATIENCE), "{mode:?}: a byte");
        assert_eq!((&two).read(&mut [0]).unwrap(), 1);
        assert!(!is_ready_fd(raw, Duration::ZERO), "{mode:?}");
        two.set_nonblocking(true).unwrap();
        let full = vec![0; 1 << 20];
        while (&two).write(&full).is_ok() {}
        let reader = thread::spawn(move || {
            let mut room = vec![0; 1 << 20];
            while (&one).read(&mut room).unwrap() > 0 {}
        });
        assert!(is_ready_fd(raw, PATIENCE), "{mode:?}: room");
        two.close().unwrap();
        reader.join().unwrap();
    }
}

#[test]
fn what_goes_by_tcp_is_counted_by_every_call() {
    let (one, two) = pair(Mode::Tcp);
    // What others see of an end.
    let carried = |end: &SanStream| {
        let (found, _) = observe::processes(&[std::process::id()]);
        let mut all = found.into_iter().flat_map(|process| process.connections);
        let own = |live: &observe::Live| {
            (live.local, live.peer) == (end.local_addr().ok(), end.peer_addr().ok())
        };
        let live = all.find(own).unwrap();
        (live.kernel_sent, live.kernel_received)
    };
    (&one).write_all(b"a").unwrap();
    assert_eq!(one.try_write(b"b").unwrap(), 1);
    let slices = [IoSlice::new(b"c"), IoSlice::new(b"d")];
    assert_eq!((&one).write_vectored(&slices).unwrap(), 2);
    assert_eq!(one.try_write_vectored(&slices).unwrap(), 2);
    assert_eq!(carried(&one), (6, 0));
    let (mut first, mut second) = ([0; 1], [0; 1]);
    (&two).read_exact(&mut first).unwrap();
    assert_eq!(two.peek(&mut first).unwrap(), 1);
    assert_eq!(two.try_peek(&mut first).unwrap(), 1);
    assert_eq!(carried(&two), (0, 1));
    assert_eq!(two.try_read(&mut first).unwrap(), 1);
    assert_eq!(carried(&two), (0, 2));
    let buffers = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(two.try_read_vectored(buffers).unwrap(), 2);
    assert_eq!(carried(&two), (0, 4));
    assert_eq!((&two).read_vectored(buffers).unwrap(), 2);
    assert_eq!(carried(&two), (0, 6));
}

#[test]
fn a_thread_that_polls_is_woken_for_what_another_thread_took_in() {
    let (one, two) = pair(Mode::Auto);
    assert!(!is_ready(&two, Duration::ZERO));
    // This thread's write has to wait and takes in what arrives meanwhile.
    let writer = two.try_clone().unwrap();
    let writing =
        thread::spawn(move || (&writer).write_all(&Numbers::new(1).bytes(amount(20_000_000))));
    (&one).write_all(b"for the poller").unwrap();
    assert!(is_ready(&two, PATIENCE));
    let mut room = [0; 14];
    (&two).read_exact(&mut room).unwrap();
    assert_eq!(&room, b"for the poller");
    let mut sink = vec![0; amount(20_000_000)];
    (&one).read_exact(&mut sink).unwrap();
    writing.join().unwrap().unwrap();
}

#[test]
fn urgent_data_is_tcps() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        assert_eq!(
            two.receive_urgent().unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        one.write_all(b"before").unwrap();
        assert_eq!(one.send_urgent(b"+!").unwrap(), 2);
        one.write_all(b"after").unwrap();
        let mut got = Vec::new();
        let mut room = [0; 32];
        while got.len() < 7 || !two.at_mark().unwrap() {
            let count = two.read(&mut room).unwrap();
            got.extend_from_slice(&room[..count]);
        }
        assert_eq!(got, b"before+", "{mode:?}");
        assert_eq!(two.receive_urgent().unwrap(), b'!');
        two.read_exact(&mut room[..5]).unwrap();
        assert_eq!(&room[..5], b"after");
        assert!(!two.at_mark().unwrap());
        two.set_oob_inline(true).unwrap();
        assert!(two.oob_inline().unwrap());
        assert_eq!(one.send_urgent(b"?").unwrap(), 1);
        one.write_all(b"rest").unwrap();
        two.read_exact(&mut room[..5]).unwrap();
        assert_eq!(&room[..5], b"?rest");
    }
}

/// Waits until it holds, without a call that takes anything out of the stream.
fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_asks_for_the_mark_before_each_read_stops_there() {
    for mode in MODES {
        let (mut one, mut two) = pair(mode);
        one.write_all(b"before").unwrap();
        one.send_urgent(b"!").unwrap();
        one.write_all(b"after").unwrap();
        let mut got = Vec::new();
        let mut room = [0; 3];
        // Nothing but reads, and questions, takes in what has arrived.
        while !two.at_mark().unwrap() {
            let count = two.read(&mut room).unwrap();
            got.extend_from_slice(&room[..count]);
            until(|| got.len() < 6 || two.at_mark().unwrap());
        }
        assert_eq!(got, b"before", "{mode:?}");
        assert_eq!(two.receive_urgent().unwrap(), b'!');
        assert!(two.at_mark().unwrap(), "{mode:?}: it is where it was");
        let mut rest = [0; 5];
        two.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"after");
        assert!(!two.at_mark().unwrap());
    }
}

#[test]
fn a_lone_urgent_byte_is_a_mark_nobody_has_to_read_for() {
    for mode in MODES {
        let (one, two) = pair(mode);
        assert!(!two.at_mark().unwrap());
        one.send_urgent(b"!").unwrap();
        until(|| two.at_mark().unwrap());
        assert_eq!(two.receive_urgent().unwrap(), b'!', "{mode:?}");
    }
}

#[test]
fn a_read_into_several_buffers_stops_at_the_mark() {
    for mode in MODES {
        for inline in [false, true] {
            let (mut one, mut two) = pair(mode);
            two.set_oob_inline(inline).unwrap();
            one.write_all(b"abc").unwrap();
            one.send_urgent(b"!").unwrap();
            one.write_all(b"def").unwrap();
            // All of it is there, so that nothing but the mark ends the read.
            one.shutdown(Shutdown::Write).unwrap();
            thread::sleep(Duration::from_millis(50));
            let (mut first, mut second) = ([0; 3], [0; 3]);
            let buffers = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            assert_eq!(two.read_vectored(buffers).unwrap(), 3, "{mode:?}");
            assert!(two.at_mark().unwrap(), "{mode:?}");
            let buffers = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let count = two.read_vectored(buffers).unwrap();
            assert!(!two.at_mark().unwrap(), "{mode:?}");
            let expected: &[u8] = if inline { b"!def" } else { b"def" };
            let got = [first, second].concat();
            assert_eq!(&got[..count], expected, "{mode:?}");
        }
    }
}

#[test]
fn urgent_bytes_in_line_are_where_they_belong() {
    for mode in MODES {
        let (one, mut two) = pair(mode);
        two.set_oob_inline(true).unwrap();
        for bytes in [&b"abcd+"[..], b"efgh-", b"*"] {
            assert_eq!(one.send_urgent(bytes).unwrap(), bytes.len());
        }
        one.shutdown(Shutdown::Write).unwrap();
        thread::sleep(Duration::from_millis(50));
        let mut room = [0; 32];
        // The mark is that of the last one.
        assert_eq!(two.read(&mut room).unwrap(), 10, "{mode:?}");
        assert_eq!(&room[..10], b"abcd+efgh-", "{mode:?}");
        assert!(two.at_mark().unwrap(), "{mode:?}");
        assert_eq!(two.read(&mut room[..1]).unwrap(), 1);
        assert_eq!(room[0], b'*', "{mode:?}");
        assert!(!two.at_mark().unwrap(), "{mode:?}: it was read");
        assert_eq!(two.read(&mut room).unwrap(), 0, "{mode:?}");
    }
}

#[test]
fn an_urgent_byte_that_was_read_past_is_gone() {
    for mode in MODES {
        for large in [false, true] {
            let (mut one, mut two) = pair(mode);
            one.write_all(b"before").unwrap();
            one.send_urgent(b"!").unwrap();
            let after = vec![7; if large { amount(1 << 20) } else { 5 }];
            let mut room = vec![0; 6 + after.len()];
            thread::scope(|scope| {
                scope.spawn(|| one.write_all(&after).unwrap());
                two.read_exact(&mut room).unwrap();
            });
            let error = two.receive_urgent().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{mode:?}");
            // What comes later is no worse for it.
            two.set_oob_inline(true).unwrap();
            one.send_urgent(b"?").unwrap();
            two.read_exact(&mut room[..1]).unwrap();
            assert_eq!(room[0], b'?', "{mode:?}");
        }
    }
}

#[test]
fn a_shutdown_wakes_those_who_wait() {
    for mode in MODES {
        let (one, _two) = pair(mode);
        let reader = one.try_clone().unwrap();
        let reading = thread::spawn(move || (&reader).read(&mut [0]));
        thread::sleep(Duration::from_millis(30));
        one.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reading.join().unwrap().unwrap(), 0);
        let writer = one.try_clone().unwrap();
        let writing = thread::spawn(move || (&writer).write_all(&vec![1; 100 << 20]));
        thread::sleep(Duration::from_millis(30));
        one.shutdown(Shutdown::Write).unwrap();
        let error = writing.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{mode:?}");
    }
}

#[test]
fn many_readers_and_writers_share_a_stream() {
    let (one, two) = pair(Mode::Auto);
    let (pieces, len) = (400, 1_000);
    thread::scope(|scope| {
        for name in 0..4u8 {
            let one = &one;
            scope.spawn(move || {
                for _ in 0..pieces {
                    (&*one).write_all(&vec![name; len]).unwrap();
                }
            });
        }
        let counts: Vec<_> = (0..3)
            .map(|_| {
                let two = &two;
                scope.spawn(move || {
                    let mut counts = [0; 4];
                    let mut room = vec![0; 3_000];
                    loop {
                        match (&*two).read(&mut room).unwrap() {
                            0 => return counts,
                            count => {
                                for name in &room[..count] {
                                    counts[usize::from(*name)] += 1;
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        let total = 4 * pieces * len;
        while two.stats().bytes_received < u64::try_from(total).unwrap() {
            thread::sleep(Duration::from_millis(1));
        }
        one.shutdown(Shutdown::Write).unwrap();
        let mut sum = [0; 4];
        for counts in counts {
            let counts = counts.join().unwrap();
            (0..4).for_each(|name| sum[name] += counts[name]);
        }
        assert_eq!(sum, [pieces * len; 4]);
    });
}

#[test]
fn options_answer_what_was_set() {
    for mode in MODES {
        let (one, two) = pair(mode);
        one.set_nodelay(true).unwrap();
        assert!(one.nodelay().unwrap());
        assert_eq!(one.peer_addr().unwrap(), two.local_addr().unwrap());
        assert_eq!(two.peer_addr().unwrap(), one.local_addr().unwrap());
        assert!(one.take_error().unwrap().is_none());
        assert!(format!("{one:?}").contains("transport"));
        let again = one.try_clone().unwrap();
        drop(one);
        (&again).write_all(b"still here").unwrap();
        let mut room = [0; 10];
        (&two).read_exact(&mut room).unwrap();
        assert_eq!(&room, b"still here");
    }
}

#[test]
fn an_idle_peer_is_asked_for_a_sign_of_life_and_gives_it() {
    let options = StreamOptions::new().keep_alive(Some(Duration::from_millis(50)));
    let (mut one, mut two) = pair_with(&options);
    thread::sleep(Duration::from_millis(400));
    one.write_all(b"alive").unwrap();
    let mut room = [0; 5];
    two.read_exact(&mut room).unwrap();
    assert!(two.stats().messages_received > 2, "{:?}", two.stats());
}

#[test]
fn errors_are_plain_io_errors() {
    let (one, two) = pair(Mode::Auto);
    two.set_linger(Some(Duration::ZERO)).unwrap();
    drop(two);
    let error = (&one).read(&mut [0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    let taken = one.take_error().unwrap().unwrap();
    assert_eq!(io::Error::kind(&taken), ErrorKind::ConnectionReset);
}
