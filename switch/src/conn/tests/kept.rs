//! Messages that wait in the buffers they came in.

use std::io::ErrorKind;
use std::time::Instant;

use super::super::Connection;
use super::super::pool::SPARES;
use super::{PATIENCE, pair, pattern, write_all};

const LENGTHS: [usize; 9] = [20_000, 1, 30_000, 5_000, 4_095, 31_000, 7, 12_000, 9_000];

/// Sends them, and has the other end take all of it in, although nobody reads.
fn fill(from: &Connection, to: &Connection, seed: u64) -> Vec<u8> {
    let sent = pattern(LENGTHS.iter().sum(), seed);
    let mut rest = &sent[..];
    for len in LENGTHS {
        let (now, later) = rest.split_at(len);
        write_all(from, now);
        rest = later;
    }
    let end = Instant::now() + PATIENCE;
    while usize::try_from(to.unread()).unwrap() < sent.len() {
        assert!(Instant::now() < end, "not everything arrives");
        to.look();
    }
    sent
}

#[test]
fn long_messages_wait_where_they_came_in_and_others_are_posted_in_their_place() {
    let (one, two) = pair();
    let kept = || {
        let state = two.lock();
        (state.main.kept(), state.pool.spare())
    };
    assert_eq!(kept(), (0, SPARES));
    for round in 0..20 {
        let sent = fill(&one, &two, round);
        assert_eq!(kept(), (SPARES, 0));
        let mut peeked = vec![0; 60_000];
        let count = two.peek(&mut peeked).unwrap();
        assert!(count > 0 && peeked[..count] == sent[..count]);
        let mut got = Vec::new();
        let mut room = vec![0; 8_192];
        while got.len() < sent.len() {
            let count = two.read(&mut room).unwrap();
            got.extend_from_slice(&room[..count]);
        }
        assert!(got == sent);
        assert_eq!(kept(), (0, SPARES));
    }
}

#[test]
fn what_waits_where_it_came_in_is_read_after_the_connection_is_gone() {
    let (one, two) = pair();
    let sent = fill(&one, &two, 1);
    drop(one);
    let end = Instant::now() + PATIENCE;
    while !two.lock().closed {
        assert!(Instant::now() < end, "the end is not noticed");
        two.look();
    }
    assert_eq!(two.lock().main.kept(), SPARES);
    let mut got = Vec::new();
    let mut room = vec![0; 10_000];
    loop {
        match two.read(&mut room) {
            Ok(0) => break,
            Ok(count) => got.extend_from_slice(&room[..count]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break;
            }
        }
    }
    assert!(got == sent);
}
