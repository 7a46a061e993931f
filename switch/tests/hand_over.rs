//! Connections that go back to the kernel for somebody who knows nothing of the switch: the kernel's
//! socket has every byte, and each once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io::{Read, Write};
use std::thread;

use ends::{End, Numbers, bytes, check, fill, pair, until, upgraded};
use wsd_switch::companion::{Path, Reason};

/// Gives the connection away; from here on only the kernel's socket is used at this end.
fn hand_over(end: &End) {
    end.companion.downgrade(end.fd(), Reason::Passed).unwrap();
    assert!(end.companion.on_kernel());
    assert_eq!(end.companion.path(), Path::Tcp);
}

#[test]
fn what_was_not_read_comes_again_over_the_kernel() {
    for len in [0, 1, 700, 40_000, 700_000] {
        let (one, two) = upgraded();
        let sent = bytes(1, len);
        one.send_all(&sent).unwrap();
        if len > 0 {
            until("something has arrived", || {
                two.companion.refresh() & libc::POLLIN != 0
            });
        }
        hand_over(&two);
        one.send_all(b"and more").unwrap();
        let mut room = vec![0; len + 8];
        (&two.tcp).read_exact(&mut room).unwrap();
        assert!(room[..len] == sent, "{len}");
        assert_eq!(&room[len..], b"and more");
        (&two.tcp).write_all(b"answer").unwrap();
        let mut room = [0; 6];
        one.receive_exactly(&mut room).unwrap();
        assert_eq!(&room, b"answer");
        assert_eq!(one.companion.reason(), Reason::PeerAsked);
    }
}

#[test]
fn what_the_peer_has_not_read_is_not_lost_either() {
    for len in [5, 60_000, 900_000] {
        let (one, two) = upgraded();
        let (theirs, ours) = (bytes(2, len), bytes(3, len));
        one.send_all(&theirs).unwrap();
        two.send_all(&ours).unwrap();
        hand_over(&two);
        (&two.tcp).write_all(b"behind").unwrap();
        let mut room = vec![0; len + 6];
        one.receive_exactly(&mut room).unwrap();
        assert!(room[..len] == ours && &room[len..] == b"behind");
        let mut room = vec![0; len];
        (&two.tcp).read_exact(&mut room).unwrap();
        assert!(room == theirs);
    }
}

#[test]
fn both_ends_may_be_handed_over_at_once() {
    for len in [0, 10, 30_000, 100_000] {
        let (one, two) = upgraded();
        let (theirs, ours) = (bytes(4, len), bytes(5, len));
        one.send_all(&theirs).unwrap();
        two.send_all(&ours).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| hand_over(&one));
            hand_over(&two);
        });
        for (end, expected) in [(&one, &ours), (&two, &theirs)] {
            (&end.tcp).write_all(b"x").unwrap();
            let mut room = vec![0; len];
            (&end.tcp).read_exact(&mut room).unwrap();
            assert!(room == *expected, "{len}");
        }
        for end in [&one, &two] {
            let mut room = [0];
            (&end.tcp).read_exact(&mut room).unwrap();
            assert_eq!(&room, b"x");
        }
    }
}

#[test]
fn a_half_closed_stream_is_handed_over_with_its_end() {
    for (len, own) in [(10, false), (50_000, false), (0, true)] {
        let (one, two) = upgraded();
        let sent = bytes(6, len);
        one.send_all(&sent).unwrap();
        one.shut();
        if own {
            two.shut();
        }
        // The session may be over already, and then nothing has to be given back.
        hand_over(&two);
        let mut all = Vec::new();
        (&two.tcp).read_to_end(&mut all).unwrap();
        assert!(all == sent);
        if !own {
            (&two.tcp).write_all(b"late").unwrap();
            let mut room = [0; 4];
            one.receive_exactly(&mut room).unwrap();
            assert_eq!(&room, b"late");
        }
        drop(two);
        assert_eq!(one.receive(&mut [0; 4], 0).unwrap(), 0);
    }
}

#[test]
fn a_connection_that_has_ended_is_handed_over_as_that() {
    let (one, two) = upgraded();
    one.shut();
    two.shut();
    assert_eq!(one.receive(&mut [0; 1], 0).unwrap(), 0);
    assert_eq!(two.receive(&mut [0; 1], 0).unwrap(), 0);
    thread::sleep(std::time::Duration::from_millis(20));
    hand_over(&two);
    let mut all = Vec::new();
    (&two.tcp).read_to_end(&mut all).unwrap();
    assert!(all.is_empty());
}

/// A peer that has closed cannot send anything again: what it has sent is still read here first.
#[test]
fn nothing_is_lost_silently_when_the_peer_has_closed() {
    let (one, two) = upgraded();
    one.send_all(b"last words").unwrap();
    drop(one);
    until("the end has arrived", || {
        two.companion.refresh() & libc::POLLRDHUP != 0
    });
    two.companion.downgrade(two.fd(), Reason::Passed).unwrap();
    assert!(!two.companion.on_kernel());
    let mut room = [0; 10];
    two.receive_exactly(&mut room).unwrap();
    assert_eq!(&room, b"last words");
    assert!(two.companion.on_kernel());
    assert_eq!(two.receive(&mut room, 0).unwrap(), 0);
}

/// The same if both have shut sending down, for then the session is over.
#[test]
fn nothing_is_lost_silently_when_both_streams_have_ended() {
    for (len, pause) in [(10, 0), (10, 50), (40_000, 0), (40_000, 50)] {
        let (one, two) = upgraded();
        let sent = bytes(7, len);
        one.send_all(&sent).unwrap();
        one.shut();
        two.shut();
        thread::sleep(std::time::Duration::from_millis(pause));
        two.companion.downgrade(two.fd(), Reason::Passed).unwrap();
        let mut room = vec![0; len];
        two.receive_exactly(&mut room).unwrap();
        assert!(room == sent);
        assert!(two.companion.on_kernel());
        assert_eq!(two.receive(&mut [0; 1], 0).unwrap(), 0);
    }
}

/// Sends a stream in pieces of all sizes, by the companion, and by the kernel once it is told to.
fn send_stream(end: &End, seed: u64, total: usize, shuts: bool, numbers: &mut Numbers) {
    let mut sent = 0;
    let mut buffer = vec![0; 200_000];
    while sent < total {
        let most = [10, 1000, 20_000, 200_000][numbers.below(4)];
        let len = (1 + numbers.below(most)).min(total - sent);
        fill(seed, sent, &mut buffer[..len]);
        end.send_all(&buffer[..len]).unwrap();
        sent += len;
    }
    if shuts {
        end.shut();
    }
}

/// Receives a stream, and gives the connection away somewhere in the middle, if at all.
fn receive_stream(end: &End, seed: u64, total: usize, at: Option<usize>, numbers: &mut Numbers) {
    let mut received = 0;
    let mut buffer = vec![0; 300_000];
    let (mut asked, mut handed) = (false, false);
    while received < total {
        if !asked && at.is_some_and(|at| received >= at) {
            end.companion.downgrade(end.fd(), Reason::Passed).unwrap();
            asked = true;
        }
        // The peer, which has left before, may have left too much to take it back.
        handed |= asked && end.companion.on_kernel();
        let most = [10, 3000, 300_000][numbers.below(3)];
        let mut len = 1 + numbers.below(most);
        if let Some(at) = at.filter(|_| !asked) {
            len = len.min(at - received);
        }
        let count = if handed {
            (&end.tcp).read(&mut buffer[..len]).unwrap()
        } else {
            end.receive(&mut buffer[..len], 0).unwrap()
        };
        assert!(count > 0, "the end came early");
        check(seed, received, &buffer[..count]);
        received += count;
        if numbers.below(8) == 0 {
            thread::sleep(std::time::Duration::from_micros(numbers.below(400) as u64));
        }
    }
}

#[test]
fn random_exchanges_that_are_handed_over_keep_every_byte() {
    let rounds = std::env::var("WSD_TEST_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let start = std::env::var("WSD_TEST_SEED").ok();
    let start: u64 = start.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut san = 0;
    for seed in start..start + rounds {
        let numbers = &mut Numbers(seed.wrapping_mul(1_000_003) | 1);
        let (one, two) = if numbers.below(4) == 0 {
            pair()
        } else {
            upgraded()
        };
        let total = [3_000, 100_000, 3_000_000][numbers.below(3)];
        let mut moment = |wanted: bool| wanted.then(|| numbers.below(total));
        // The first, the second, or both.
        let who = seed % 3;
        let ends = seed / 3 % 3;
        let (at_one, at_two) = (moment(who != 0), moment(who != 1));
        let mut four: Vec<Numbers> = (0..4).map(|_| Numbers(numbers.next() | 1)).collect();
        let (mut d, mut c, mut b, mut a) = (
            four.pop().unwrap(),
            four.pop().unwrap(),
            four.pop().unwrap(),
            four.pop().unwrap(),
        );
        thread::scope(|scope| {
            // Were both to end while there is something to be given back, the session would be over.
            scope.spawn(|| send_stream(&one, 11, total, ends == 1, &mut a));
            scope.spawn(|| send_stream(&two, 22, total, ends == 2, &mut b));
            scope.spawn(|| receive_stream(&one, 22, total, at_one, &mut c));
            receive_stream(&two, 11, total, at_two, &mut d);
        });
        san += one.companion.snapshot().sent_san + two.companion.snapshot().sent_san;
        for end in [&one, &two] {
            // Shut down before, perhaps.
            drop(end.companion.shutdown(end.fd(), libc::SHUT_WR));
        }
        for end in [&one, &two] {
            let mut all = Vec::new();
            (&end.tcp).read_to_end(&mut all).unwrap();
            assert!(all.is_empty(), "seed {seed}");
        }
    }
    assert!(san > 1_000_000, "only {san} bytes went over the SAN");
}
