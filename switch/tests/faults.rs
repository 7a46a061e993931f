//! A process whose fabric fails as `WSD_FAULT` says, and one whose fabric does not: the bytes are
//! right or an error comes, at both ends; never a hang, never an end before the last byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use support::role::{Role, say, try_connect};
use support::{Numbers, PATIENCE, Tape};
use wsd_switch::{SanListener, SanStream};

const TOTAL: usize = 6_000_000;

/// Says the whole tape, or the error that kept it from doing so.
fn write(mut stream: &SanStream, seed: u64) -> io::Result<()> {
    let (mut tape, mut lengths) = (Tape::new(seed), Numbers::new(seed + 1));
    let mut left = TOTAL;
    while left > 0 {
        let len = lengths.length().min(left);
        stream.write_all(&tape.take(len))?;
        left -= len;
    }
    stream.shutdown(Shutdown::Write)
}

/// Hears the whole tape and its end, or an error. Anything else is what must never be.
fn read(mut stream: &SanStream, seed: u64) -> io::Result<()> {
    let mut tape = Tape::new(seed);
    let (mut done, mut room) = (0, vec![0; 300_000]);
    loop {
        let count = stream.read(&mut room)?;
        if count == 0 {
            assert_eq!(done, TOTAL, "an end as if all were there: bytes are lost");
            return Ok(());
        }
        assert!(room[..count] == tape.take(count)[..], "wrong after {done}");
        done += count;
    }
}

/// Both directions at once; "whole", or what went wrong.
fn exchange(stream: SanStream, says: u64, hears: u64) -> String {
    let (written, heard) = thread::scope(|scope| {
        let writing = scope.spawn(|| write(&stream, says));
        let reading = scope.spawn(|| read(&stream, hears));
        (writing.join().unwrap(), reading.join().unwrap())
    });
    if written.is_err() {
        // What is missing must not look like the end of the stream.
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(stream);
    match written.and(heard) {
        Ok(()) => "whole".to_owned(),
        Err(error) => format!("failed: {error}"),
    }
}

#[test]
#[ignore = "a role"]
fn role_faulty() {
    thread::spawn(|| {
        thread::sleep(PATIENCE);
        say("fate hangs");
        std::process::abort();
    });
    let fate = match try_connect() {
        Ok(stream) => exchange(stream, 42, 41),
        Err(error) => format!("no connection: {error}"),
    };
    say(&format!("fate {fate}"));
}

/// How it went at the end without faults (none if it never had a connection) and at the other.
fn run(fault: &str, way: &[(&str, &str)]) -> (Option<String>, String) {
    let listener = SanListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut environment = way.to_vec();
    environment.push(("WSD_FAULT", fault));
    let mut role = Role::start("role_faulty", listener.local_addr().unwrap(), &environment);
    let (tell, theirs) = mpsc::channel();
    thread::spawn(move || {
        let fate = role.wait_for("fate");
        role.finish();
        tell.send(fate)
    });
    let accepted = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        match theirs.recv_timeout(Duration::from_millis(2)) {
            Ok(fate) => return (None, fate),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("{fault} {way:?}: the other end is lost"),
        }
    };
    let (tell, ours) = mpsc::channel();
    thread::spawn(move || tell.send(exchange(accepted, 41, 42)));
    let wait = |fate: &mpsc::Receiver<String>, whose: &str| {
        let fate = fate.recv_timeout(2 * PATIENCE);
        fate.unwrap_or_else(|_| panic!("{fault} {way:?}: {whose} hangs or is wrong"))
    };
    (
        Some(wait(&ours, "this end")),
        wait(&theirs, "the other end"),
    )
}

/// Who moves large data, and how.
const READ: &[(&str, &str)] = &[];
const WRITE: &[(&str, &str)] = &[("WSD_TEST_MODE", "write")];
const PIPELINED: &[(&str, &str)] = &[("WSD_RDMA", "pipelined")];
const WAYS: [&[(&str, &str)]; 3] = [READ, WRITE, PIPELINED];

fn costs_nothing(fault: &str, way: &[(&str, &str)]) {
    let (ours, theirs) = run(fault, way);
    let fates = (ours.as_deref(), theirs.as_str());
    assert_eq!(fates, (Some("whole"), "whole"), "{fault} {way:?}");
}

/// At both ends, if there ever was a connection; `words` at the one with the fault.
fn is_an_error(fault: &str, way: &[(&str, &str)], words: &str) {
    let (ours, theirs) = run(fault, way);
    let case = format!("{fault} {way:?}: {ours:?}, {theirs}");
    let ours = ours.is_none_or(|fate| fate.starts_with("failed: "));
    let there = theirs.starts_with("failed: ") || theirs.starts_with("no connection: ");
    assert!(ours && there && theirs.contains(words), "{case}");
}

#[test]
fn completions_that_come_late_and_queues_that_are_full_cost_no_byte() {
    for way in WAYS {
        for fault in ["delay:1", "post:1", "post:9", "post:60", "delay:2,post:33"] {
            costs_nothing(fault, way);
        }
    }
}

#[test]
fn a_link_that_breaks_at_any_time_is_an_error_at_both_ends() {
    for way in WAYS {
        for post in [1, 4, 17, 18, 19, 20, 33, 40, 55, 70] {
            is_an_error(&format!("cut:{post}"), way, "");
        }
    }
}

#[test]
fn memory_that_cannot_be_registered_is_a_shortage_or_is_done_without() {
    // req: SEED-10
    const SHORTAGE: &str = "No buffer space available";
    for way in WAYS {
        // Not even that for control messages.
        is_an_error("register:0", way, SHORTAGE);
    }
    // Source and target of large transfers: the end that moves them must register, the other expose.
    for (fault, able, unable) in [
        (
            "register:4",
            [READ, PIPELINED].as_slice(),
            [WRITE].as_slice(),
        ),
        ("expose:0", &[WRITE], &[READ, PIPELINED]),
        ("expose:3", &[WRITE], &[READ, PIPELINED]),
    ] {
        for way in able {
            costs_nothing(fault, way);
        }
        for way in unable {
            is_an_error(fault, way, SHORTAGE);
        }
    }
}

#[test]
fn completions_that_never_come_end_the_attempt_to_connect_in_time() {
    is_an_error("hold", READ, "timed out");
}
