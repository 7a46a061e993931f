//! Kernel connections that go over to the SAN and back, as their applications see them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ends::{End, Numbers, check, fill, kernel_pair, pair, to_and_fro, until, upgrade, upgraded};
use wsd_switch::companion::{Companion, Path, Reason, Role, Watcher};

#[test]
fn a_busy_connection_goes_over_to_the_san() {
    let (one, two) = upgraded();
    for end in [&one, &two] {
        let before = end.companion.snapshot();
        assert_eq!(before.path, Path::San);
        assert_eq!(before.upgrades, 1);
    }
    let bytes = vec![3; 100_000];
    let mut room = vec![0; 100_000];
    let sender = thread::spawn(move || {
        one.send_all(&bytes).unwrap();
        one
    });
    two.receive_exactly(&mut room).unwrap();
    assert!(room.iter().all(|byte| *byte == 3));
    let one = sender.join().unwrap();
    assert!(one.companion.snapshot().sent_san >= 100_000);
    assert!(two.companion.snapshot().received_san >= 100_000);
}

/// Each piece is a byte that says whose it is, four that say how long, and then the first again.
#[test]
fn what_one_call_sends_stays_together_when_other_threads_send_too() {
    const PIECES: usize = 40;
    let (one, two) = upgraded();
    for most in [100, 2_500_000] {
        thread::scope(|scope| {
            for sender in 0..3_u8 {
                let one = &one;
                scope.spawn(move || {
                    for index in 0..PIECES * (3_000_000 / most).min(100) {
                        let len = most - index % 90;
                        let mut piece = vec![sender; 5 + len];
                        piece[1..5].copy_from_slice(&(len as u32).to_le_bytes());
                        assert_eq!(one.send(&piece, 0).unwrap(), piece.len());
                    }
                });
            }
            let two = &two;
            let reader = scope.spawn(move || {
                // Until none of them can go on.
                thread::sleep(std::time::Duration::from_millis(300));
                let (mut head, mut rest) = ([0; 5], vec![0; most]);
                for index in 0..3 * PIECES * (3_000_000 / most).min(100) {
                    two.receive_exactly(&mut head).unwrap();
                    let len = u32::from_le_bytes(head[1..].try_into().unwrap()) as usize;
                    if len > most {
                        return Err(format!("no head at piece {index}: {head:?}"));
                    }
                    two.receive_exactly(&mut rest[..len]).unwrap();
                    if rest[..len].iter().any(|byte| *byte != head[0]) {
                        return Err(format!("another's bytes in piece {index}"));
                    }
                }
                Ok(())
            });
            let read = reader.join().unwrap();
            if read.is_err() {
                // The senders would wait for ever.
                two.companion.shutdown(two.fd(), libc::SHUT_RDWR).unwrap();
                two.companion.close(two.fd());
            }
            read.unwrap();
        });
    }
}

/// In the kernel until the receiver has taken all of it, the call would keep the connection there.
#[test]
fn a_single_call_that_sends_very_much_goes_over_in_its_middle() {
    const LEN: usize = 64 << 20;
    let (one, two) = pair();
    let mut bytes = vec![0; LEN];
    fill(5, 0, &mut bytes);
    thread::scope(|scope| {
        let (one, bytes) = (&one, &bytes);
        let sender = scope.spawn(move || {
            assert!(one.companion.sends_in_pieces(LEN));
            let buffers = [libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: LEN,
            }];
            // SAFETY: the bytes are live and only read.
            let sent = unsafe { one.companion.send(one.fd(), &buffers, 0) };
            assert_eq!(sent.unwrap(), LEN);
        });
        let mut got = vec![0; LEN];
        let (early, late) = got.split_at_mut(LEN / 4);
        two.receive_exactly(early).unwrap();
        // The sender, if it has filled the kernel's buffers, waits.
        until("the path back goes over", || {
            two.companion.snapshot().upgrades == 1
        });
        two.receive_exactly(late).unwrap();
        sender.join().unwrap();
        assert!(got == *bytes);
    });
    assert!(
        one.companion.snapshot().sent_san > 0,
        "{:?}",
        one.companion.snapshot()
    );
}

#[test]
fn a_peer_without_a_companion_gets_every_byte_and_nothing_else() {
    let (one, two) = kernel_pair();
    let one = End::new(one, Role::Connected);
    let reader = thread::spawn(move || {
        use std::io::Read;
        let mut all = Vec::new();
        let mut two = two;
        two.read_to_end(&mut all).unwrap();
        all
    });
    let mut bytes = vec![0; 300_000];
    fill(1, 0, &mut bytes);
    for piece in bytes.chunks(5_000) {
        one.send_all(piece).unwrap();
    }
    one.shut();
    assert!(reader.join().unwrap() == bytes);
    assert_eq!(one.companion.path(), Path::Tcp);
}

#[test]
fn an_accepted_end_without_a_beacon_at_its_peer_says_so() {
    let (one, two) = kernel_pair();
    let two = End::new(two, Role::Accepted);
    let writer = thread::spawn(move || {
        use std::io::Write;
        let mut one = one;
        one.write_all(&[1; 200_000]).unwrap();
        one
    });
    let mut room = vec![0; 200_000];
    two.receive_exactly(&mut room).unwrap();
    until("the peer is silent", || {
        two.companion.reason() == Reason::PeerSilent
    });
    assert_eq!(two.companion.path(), Path::Tcp);
    drop(writer.join().unwrap());
}

#[test]
fn the_end_of_a_half_closed_stream_comes_after_its_last_byte() {
    let (one, two) = upgraded();
    let mut bytes = vec![0; 3_000_000];
    fill(2, 0, &mut bytes);
    let expected = bytes.clone();
    let writer = thread::spawn(move || {
        one.send_all(&bytes).unwrap();
        one.shut();
        let error = one.send(&[1], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        let mut answer = [0; 5];
        one.receive_exactly(&mut answer).unwrap();
        assert_eq!(&answer, b"done.");
        assert_eq!(one.receive(&mut answer, 0).unwrap(), 0);
    });
    let mut room = vec![0; expected.len()];
    two.receive_exactly(&mut room).unwrap();
    assert!(room == expected);
    assert_eq!(two.receive(&mut room, 0).unwrap(), 0);
    assert_eq!(two.receive(&mut room, 0).unwrap(), 0);
    two.send_all(b"done.").unwrap();
    drop(two);
    writer.join().unwrap();
}

#[test]
fn a_close_delivers_what_was_sent() {
    let (one, two) = upgraded();
    let mut bytes = vec![0; 1_000_000];
    fill(3, 0, &mut bytes);
    one.send_all(&bytes).unwrap();
    drop(one);
    let mut room = vec![0; bytes.len()];
    two.receive_exactly(&mut room).unwrap();
    assert!(room == bytes);
    assert_eq!(two.receive(&mut room, 0).unwrap(), 0);
}

/// The marker that the peer writes may come to who has closed, or lie there unread; that is not the
/// peer's fault, and takes nothing from it.
#[test]
fn a_close_in_the_middle_of_an_upgrade_delivers_what_was_sent_and_is_no_reset() {
    const LEN: usize = 300_000;
    let mut numbers = Numbers(77);
    let mut parts = 0;
    for round in 0..200 {
        let (one, two) = pair();
        let (closer, reader) = if round % 2 == 0 {
            (one, two)
        } else {
            (two, one)
        };
        let mut room = vec![0; 2048];
        for _ in 0..17 + numbers.below(12) {
            closer.send_all(&[1; 2048]).unwrap();
            reader.receive_exactly(&mut room).unwrap();
            reader.send_all(&[2; 2048]).unwrap();
            closer.receive_exactly(&mut room).unwrap();
        }
        let writer = thread::spawn(move || {
            let mut bytes = vec![0; LEN];
            fill(round, 0, &mut bytes);
            closer.send_all(&bytes).unwrap();
            let midway = closer.companion.path() != Path::San;
            drop(closer);
            midway
        });
        let mut bytes = vec![0; LEN];
        reader.receive_exactly(&mut bytes).unwrap();
        check(round, 0, &bytes);
        assert_eq!(reader.receive(&mut room, 0).unwrap(), 0, "round {round}");
        parts += u32::from(writer.join().unwrap());
    }
    assert!(
        parts > 20,
        "only {parts} were closed before they had gone over"
    );
}

/// Both ends send nothing but this byte at once, a dozen times over. How long it takes.
fn one_byte_both_ways(byte: u8) -> std::time::Duration {
    const LEN: usize = 12_000_000;
    let begun = std::time::Instant::now();
    for round in 0..12 {
        let (one, two) = pair();
        thread::scope(|scope| {
            for end in [&one, &two] {
                scope.spawn(|| {
                    let bytes = vec![byte; LEN];
                    end.send_all(&bytes).unwrap();
                });
                scope.spawn(|| {
                    // Large, so that a receive is under way most of the time.
                    let mut room = vec![!byte; 1 << 20];
                    let all = vec![byte; room.len()];
                    let mut left = LEN;
                    while left > 0 {
                        let most = left.min(room.len());
                        let count = end.receive(&mut room[..most], 0).unwrap();
                        assert_ne!(count, 0, "round {round}");
                        assert!(room[..count] == all[..count]);
                        left -= count;
                    }
                });
            }
        });
        // Not one byte too many, either.
        one.shut();
        assert_eq!(two.receive(&mut [0; 9], 0).unwrap(), 0);
    }
    begun.elapsed()
}

/// Whatever a receive gets ends in what could be the beginning of a marker.
#[test]
fn bytes_that_could_begin_a_marker_keep_nobody_waiting() {
    let usual = one_byte_both_ways(0);
    let doubtful = one_byte_both_ways(0xF7);
    // Who waits for the rest of a marker that is none does so for seconds each time.
    let most = 4 * usual + std::time::Duration::from_secs(30);
    assert!(doubtful < most, "{doubtful:?}, and otherwise {usual:?}");
}

#[test]
fn unread_bytes_make_a_close_a_reset() {
    let (one, two) = upgraded();
    one.send_all(&[1; 1000]).unwrap();
    until("the bytes are there", || {
        two.companion.refresh() & libc::POLLIN != 0
    });
    drop(two);
    let mut room = [0; 10];
    let error = one.receive(&mut room, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn a_downgrade_loses_and_repeats_nothing_and_an_upgrade_may_follow() {
    let (one, two) = upgraded();
    let mut bytes = vec![0; 50_000];
    fill(4, 0, &mut bytes);
    one.send_all(&bytes).unwrap();
    two.send_all(&bytes).unwrap();
    let reader = thread::spawn(move || {
        let mut room = vec![0; 55_000];
        two.receive_exactly(&mut room).unwrap();
        (two, room)
    });
    one.companion.downgrade(one.fd(), Reason::Asked).unwrap();
    assert_eq!(one.companion.path(), Path::Tcp);
    one.send_all(&bytes[..5_000]).unwrap();
    let (two, room) = reader.join().unwrap();
    assert!(room[..50_000] == bytes && room[50_000..] == bytes[..5_000]);
    let mut room = vec![0; 50_000];
    one.receive_exactly(&mut room).unwrap();
    assert!(room == bytes);
    assert_eq!(two.companion.path(), Path::Tcp);
    assert_eq!(two.companion.reason(), Reason::PeerAsked);
    upgrade(&one, &two);
    assert_eq!(one.companion.snapshot().upgrades, 2);
}

/// Where the companion was when its watcher was told last.
struct LastWord(AtomicBool);

impl Watcher for LastWord {
    fn moved(&self, companion: &Arc<Companion>) {
        self.0.store(companion.on_kernel(), Ordering::SeqCst);
    }
    fn used(&self, _companion: &Arc<Companion>) {}
    fn due(&self, _companion: &Arc<Companion>) {}
    fn closed(&self, _companion: &Arc<Companion>) {}
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A poll set would sleep for ever where the connection is no more.
#[test]
fn who_watches_a_peer_of_one_that_leaves_hears_of_it_though_no_call_is_made() {
    for round in 0..10 {
        let (one, two) = pair();
        let watch = |end: &End| {
            let told = Arc::new(LastWord(AtomicBool::new(true)));
            let own = Arc::clone(&told);
            end.companion.watch(|_| own);
            told
        };
        let told = [watch(&one), watch(&two)];
        upgrade(&one, &two);
        let (leaves, stays, told) = match round % 2 {
            0 => (&one, &two, &told[1]),
            _ => (&two, &one, &told[0]),
        };
        until("both know of the SAN", || !told.0.load(Ordering::SeqCst));
        leaves
            .companion
            .downgrade(leaves.fd(), Reason::Fork)
            .unwrap();
        until("the peer follows", || stays.companion.on_kernel());
        until("its watcher hears of it", || told.0.load(Ordering::SeqCst));
    }
}

#[test]
fn after_three_downgrades_the_kernel_keeps_the_connection() {
    let (one, two) = pair();
    for round in 0..3 {
        upgrade(&one, &two);
        let end = if round % 2 == 0 { &one } else { &two };
        end.companion.downgrade(end.fd(), Reason::Asked).unwrap();
        until("both are back", || {
            one.companion.refresh();
            two.companion.refresh();
            one.companion.path() == Path::Tcp && two.companion.path() == Path::Tcp
        });
    }
    to_and_fro(&one, &two, 1, 300);
    assert_eq!(one.companion.path(), Path::Tcp);
    assert_eq!(one.companion.snapshot().upgrades, 3);
}

#[test]
fn flags_of_a_receive_mean_what_they_mean_to_the_kernel() {
    let (one, two) = upgraded();
    let mut room = [0; 10];
    let error = two.receive(&mut room, libc::MSG_DONTWAIT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    one.send_all(b"abcdef").unwrap();
    assert_eq!(two.receive(&mut room[..3], libc::MSG_PEEK).unwrap(), 3);
    assert_eq!(&room[..3], b"abc");
    assert_eq!(two.receive(&mut room[..2], libc::MSG_TRUNC).unwrap(), 2);
    let writer = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(50));
        one.send_all(b"ghijkl").unwrap();
        one
    });
    assert_eq!(two.receive(&mut room, libc::MSG_WAITALL).unwrap(), 10);
    assert_eq!(&room, b"cdefghijkl");
    let one = writer.join().unwrap();
    one.send(b"x!", libc::MSG_OOB).unwrap();
    let mut byte = [0];
    until("the urgent byte is there", || {
        two.receive(&mut byte, libc::MSG_OOB).is_ok()
    });
    assert_eq!(&byte, b"!");
    assert_eq!(two.receive(&mut room, 0).unwrap(), 1);
    assert_eq!(room[0], b'x');
}

/// Only one of the ends has counted the urgent byte: nobody could say where the next change would be.
#[test]
fn urgent_bytes_on_the_san_are_the_last_change_of_path() {
    for sender in 0..2 {
        let ends = upgraded().into();
        let ends: [End; 2] = ends;
        let (from, to) = (&ends[sender], &ends[1 - sender]);
        from.send(b"!", libc::MSG_OOB).unwrap();
        until("the urgent byte is there", || {
            to.receive(&mut [0], libc::MSG_OOB).is_ok()
        });
        from.companion.downgrade(from.fd(), Reason::Asked).unwrap();
        let (mut sent, mut room) = ([0; 1000], [0; 1000]);
        for round in 0..300 {
            for (from, to, seed) in [(from, to, 1), (to, from, 2)] {
                fill(seed, round * 1000, &mut sent);
                from.send_all(&sent).unwrap();
                to.receive_exactly(&mut room).unwrap();
                check(seed, round * 1000, &room);
            }
        }
        assert_eq!(from.companion.snapshot().upgrades, 1);
        assert_eq!(from.companion.reason(), Reason::Urgent);
    }
}

#[test]
fn a_receive_keeps_to_its_time_out() {
    let (one, two) = upgraded();
    two.tcp
        .set_read_timeout(Some(std::time::Duration::from_millis(30)))
        .unwrap();
    let error = two.receive(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    two.tcp.set_read_timeout(None).unwrap();
    two.tcp.set_nonblocking(true).unwrap();
    let error = two.receive(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut sent = 0;
    let error = loop {
        match two.send(&[1; 60_000], 0) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut room = vec![0; sent];
    one.receive_exactly(&mut room).unwrap();
}

/// Both ways at once, sizes of all kinds, going over and back at random moments.
fn exchange(seed: u64, streams: [u64; 2], total: usize) -> (End, End) {
    let (one, two) = pair();
    let run = |end: &End, own: u64, other: u64, numbers: &mut Numbers| {
        thread::scope(|scope| {
            let mut lengths = Numbers(numbers.next() | 1);
            scope.spawn(move || {
                let mut sent = 0;
                let mut buffer = vec![0; 200_000];
                while sent < total {
                    let most = [10, 1000, 20_000, 200_000][lengths.below(4)];
                    let len = (1 + lengths.below(most)).min(total - sent);
                    fill(own, sent, &mut buffer[..len]);
                    end.send_all(&buffer[..len]).unwrap();
                    sent += len;
                }
            });
            let mut sizes = Numbers(numbers.next() | 1);
            let downgrade_at = sizes.below(total);
            let mut received = 0;
            let mut buffer = vec![0; 300_000];
            let mut downgraded = false;
            while received < total {
                let most = [10, 3000, 300_000][sizes.below(3)];
                let len = 1 + sizes.below(most);
                let count = end.receive(&mut buffer[..len], 0).unwrap();
                assert!(count > 0, "the end came early");
                check(other, received, &buffer[..count]);
                received += count;
                if !downgraded && received > downgrade_at {
                    downgraded = true;
                    end.companion.downgrade(end.fd(), Reason::Asked).unwrap();
                }
            }
            assert_eq!(received, total);
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&one, streams[0], streams[1], &mut Numbers(seed | 1)));
        run(
            &two,
            streams[1],
            streams[0],
            &mut Numbers(seed.wrapping_add(77) | 1),
        );
    });
    (one, two)
}

fn exchanges(streams: [u64; 2]) {
    let mut san = 0;
    let mut seed = 0;
    // On a loaded machine a connection may end before it was carried by the SAN for long.
    until("enough went over the SAN", || {
        seed += 1;
        let (one, two) = exchange(seed * 1_000_003, streams, 3_000_000);
        san += one.companion.snapshot().sent_san + two.companion.snapshot().sent_san;
        one.shut();
        two.shut();
        assert_eq!(one.receive(&mut [0; 10], 0).unwrap(), 0);
        assert_eq!(two.receive(&mut [0; 10], 0).unwrap(), 0);
        seed >= 8 && san > 1_000_000
    });
}

#[test]
fn random_exchanges_with_changes_of_path_keep_every_byte() {
    exchanges([11, 22]);
}

#[test]
fn so_do_those_in_which_every_other_byte_could_begin_a_marker() {
    exchanges([ends::DOUBTFUL + 11, ends::DOUBTFUL + 22]);
}

/// The moment in which it is decided where the stream goes on comes once in each.
#[test]
fn and_those_that_are_over_soon_after_the_change() {
    for seed in 1..120 {
        let streams = [ends::DOUBTFUL + seed, ends::DOUBTFUL + 1000 + seed];
        drop(exchange(seed * 77_003, streams, 100_000));
    }
}

#[test]
fn what_others_see_of_a_connection_is_where_it_is() {
    let seen = |end: &End| {
        let number = end.companion.snapshot().number;
        let (processes, _) = wsd_switch::observe::processes(&[std::process::id()]);
        let mut all = processes.into_iter().flat_map(|one| one.connections);
        // A descriptor's number stands for one connection at a time; those that linger are older.
        let found: Vec<_> = all
            .by_ref()
            .filter(|live| live.fd == Some(number))
            .collect();
        found.into_iter().max_by_key(|live| live.id).unwrap()
    };
    let (one, two) = upgraded();
    for end in [&one, &two] {
        until("it is shown on the SAN", || {
            seen(end).path == wsd_switch::observe::Path::San
        });
        let live = seen(end);
        assert_eq!(live.upgrade.code(), "upgraded");
        assert_eq!((&*live.reason, live.upgrades), ("", 1));
        assert!(!live.provider.is_empty() && live.session.is_some());
        let snapshot = end.companion.snapshot();
        assert_eq!(live.kernel_sent, snapshot.sent_tcp);
        assert_eq!(live.kernel_received, snapshot.received_tcp);
        assert!(live.local.is_some() && live.peer.is_some());
    }
    assert_eq!(seen(&one).session, seen(&two).session);
    assert_eq!(seen(&one).local, seen(&two).peer);
    let before = seen(&one).san_sent;
    one.send_all(&[5; 10_000]).unwrap();
    let mut room = [0; 10_000];
    two.receive_exactly(&mut room).unwrap();
    until("its bytes are counted", || {
        seen(&one).san_sent >= before + 10_000
    });
    assert!(seen(&two).san_received >= 10_000);
}
