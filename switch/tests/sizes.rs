//! Single bytes and odd lengths between two processes, in every way and mode.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use support::role::{Way, connect, is_its_own, peer, peer_with, ways};
use support::{Numbers, Tape, amount};
use wsd_switch::{Mode, SanStream, StreamOptions};

fn single() -> usize {
    amount(20_000)
}

/// One call for each byte.
fn write_singly(mut stream: &SanStream, seed: u64) {
    for byte in Tape::new(seed).take(single()) {
        assert_eq!(stream.write(&[byte]).unwrap(), 1);
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// In pieces of one byte and of several.
fn read_singly(mut stream: &SanStream, seed: u64) {
    let (wanted, mut lengths) = (Tape::new(seed).take(single()), Numbers::new(seed));
    let (mut done, mut room) = (0, [0; 50]);
    loop {
        let len = if done % 3 == 0 {
            1 + lengths.below(50)
        } else {
            1
        };
        let count = stream.read(&mut room[..len]).unwrap();
        if count == 0 {
            break;
        }
        assert!(wanted[done..].starts_with(&room[..count]), "after {done}");
        done += count;
    }
    assert_eq!(done, single());
}

fn exchange_singly(stream: &SanStream, says: u64, hears: u64) {
    thread::scope(|scope| {
        scope.spawn(|| write_singly(stream, says));
        scope.spawn(|| read_singly(stream, hears));
    });
}

#[test]
fn thousands_of_single_bytes_cross_both_ways_in_order() {
    for way in ways() {
        let (role, stream) = peer("role_single", way);
        exchange_singly(&stream, 21, 22);
        role.finish();
    }
}

#[test]
#[ignore = "a role"]
fn role_single() {
    exchange_singly(&connect(), 22, 21);
}

/// Around every border: of words, pages, messages, the threshold of RDMA and a ring.
const SIZES: [usize; 22] = [
    1, 2, 3, 7, 63, 255, 257, 4_095, 4_097, 16_383, 32_767, 32_769, 65_471, 65_535, 65_536, 65_537,
    65_793, 131_071, 262_145, 1_048_575, 1_048_577, 3_333_333,
];

/// Whoever is first says each length in one call, the other says it back in one call.
fn volley(mut stream: &SanStream, is_first: bool) {
    let (mut there, mut back) = (Tape::new(31), Tape::new(32));
    for size in SIZES {
        let (there, back) = (there.take(size), back.take(size));
        let mut got = vec![0; size];
        if is_first {
            stream.write_all(&there).unwrap();
        }
        stream.read_exact(&mut got).unwrap();
        assert!(
            got == if is_first { back.as_slice() } else { &there },
            "{size} bytes"
        );
        if !is_first {
            stream.write_all(&back).unwrap();
        }
    }
}

#[test]
fn odd_sizes_arrive_whole_whoever_moves_them() {
    let write: Way = &[("WSD_TEST_MODE", "write")];
    let plain = ways().map(|way| (way, Mode::Auto));
    let mixed: [(Way, Mode); 6] = [
        (&[], Mode::Read),
        (write, Mode::Read),
        (&[], Mode::Write),
        (write, Mode::Write),
        (&[("WSD_RDMA", "pipelined")], Mode::Write),
        (
            &[("WSD_RDMA", "pipelined"), ("WSD_TEST_MODE", "write")],
            Mode::Read,
        ),
    ];
    let mixed = mixed.into_iter().filter(|(way, _)| is_its_own(way));
    for (environment, mode) in plain.chain(mixed) {
        let options = StreamOptions::new().mode(mode);
        let (role, stream) = peer_with("role_odd", environment, &options);
        volley(&stream, true);
        let stats = stream.stats();
        // The large ones went by RDMA: if this end wants writes it has made them, and if only the
        // other one can read, all of it was done there.
        let case = format!("{environment:?} {mode:?}: {stats:?}");
        let (reads, writes) = (stats.rdma_reads, stats.rdma_writes);
        let done_there = environment.contains(&("WSD_RDMA_READ", "1"));
        assert_eq!(reads + writes == 0, done_there, "{case}");
        assert!(mode != Mode::Write || (reads == 0 && writes > 0), "{case}");
        drop(stream);
        role.finish();
    }
}

#[test]
#[ignore = "a role"]
fn role_odd() {
    let mut stream = connect();
    volley(&stream, false);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}
