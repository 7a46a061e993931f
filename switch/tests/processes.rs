//! Two processes: this one, and a copy of it in a role.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use support::role::{Role, Way, accepting_peer, connect, either_end, peer, say, ways};
use support::{Numbers, Tape, amount, here, read_tape, write_tape};
use wsd_switch::{SanListener, SanStream};

fn total() -> usize {
    amount(60_000_000)
}

#[test]
fn bytes_cross_between_processes_in_every_way() {
    // req: SEED-17 one side's provider may read while the other's may not
    for way in ways() {
        let (role, stream) = peer("role_exchange", way);
        thread::scope(|scope| {
            scope.spawn(|| write_tape(&stream, 11, total()));
            scope.spawn(|| read_tape(&stream, 12, total()));
        });
        role.finish();
    }
}

#[test]
#[ignore = "a role"]
fn role_exchange() {
    let stream = connect();
    thread::scope(|scope| {
        scope.spawn(|| write_tape(&stream, 12, total()));
        scope.spawn(|| read_tape(&stream, 11, total()));
    });
    stream.close().unwrap();
}

#[test]
fn a_process_that_ends_right_after_its_last_write_loses_nothing() {
    for way in ways() {
        let (role, mut stream) = peer("role_write_and_end", way);
        thread::sleep(Duration::from_millis(50));
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == Tape::new(13).take(2_000_000), "{} bytes", got.len());
        role.finish();
    }
}

#[test]
#[ignore = "a role"]
fn role_write_and_end() {
    let mut stream = connect();
    stream.write_all(&Tape::new(13).take(2_000_000)).unwrap();
}

/// More than the buffers of both ends take.
const MORE_THAN_GOES: usize = 64 << 20;

#[test]
#[ignore = "a role"]
fn role_fill_and_end() {
    let mut stream = connect();
    stream.set_nonblocking(true).unwrap();
    let bytes = Tape::new(13).take(MORE_THAN_GOES);
    let (mut done, mut last) = (0, Instant::now());
    // Until nothing has gone for a while: then the peer cannot have fetched everything.
    while last.elapsed() < Duration::from_secs(1) {
        match stream.write(&bytes[done..]) {
            Ok(count) => (done, last) = (done + count, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(done < bytes.len(), "nobody reads, and all of it goes");
    }
}

#[test]
fn a_process_that_cannot_wait_any_longer_leaves_an_error_and_not_an_early_end() {
    let (role, mut stream) = peer("role_fill_and_end", &[]);
    // It gives up after some seconds, because nothing is read here.
    role.finish();
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err().kind();
    let broken = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    assert!(broken.contains(&error), "{error}");
    assert!(Tape::new(13).take(MORE_THAN_GOES).starts_with(&got));
}

/// What a peer is at when it is killed.
const PHASES: [&str; 4] = ["role_idle", "role_small", "role_large", "role_reads"];

#[test]
fn a_peer_killed_at_any_time_is_a_reset() {
    killed_at_any_time(peer);
}

#[test]
fn so_is_one_that_had_accepted_the_connection() {
    killed_at_any_time(accepting_peer);
}

fn killed_at_any_time(start: impl Fn(&str, Way) -> (Role, SanStream)) {
    for way in ways() {
        for phase in PHASES {
            let (mut role, stream) = start(phase, way);
            let reader = stream.try_clone().unwrap();
            let reading = thread::spawn(move || {
                let mut room = vec![0; 100_000];
                loop {
                    match (&reader).read(&mut room) {
                        Ok(0) => panic!("a killed peer did not say goodbye"),
                        Ok(_) => {}
                        Err(error) => return error.kind(),
                    }
                }
            });
            let writer = stream.try_clone().unwrap();
            let writing = thread::spawn(move || {
                let bytes = Numbers::new(1).bytes(3_000_000);
                loop {
                    if let Err(error) = (&writer).write_all(&bytes) {
                        return error.kind();
                    }
                }
            });
            role.wait_for("now");
            thread::sleep(Duration::from_millis(30));
            role.kill();
            let ends = (reading.join().unwrap(), writing.join().unwrap());
            let reset = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
            assert!(
                reset.contains(&ends.0) && reset.contains(&ends.1),
                "{phase}: {ends:?}"
            );
        }
    }
}

fn for_ever(mut step: impl FnMut()) {
    say("now");
    loop {
        step();
    }
}

#[test]
#[ignore = "a role"]
fn role_idle() {
    let _stream = either_end();
    for_ever(|| thread::sleep(Duration::from_secs(1)));
}

#[test]
#[ignore = "a role"]
fn role_small() {
    let mut stream = either_end();
    for_ever(|| stream.write_all(b"small").unwrap());
}

#[test]
#[ignore = "a role"]
fn role_large() {
    let mut stream = either_end();
    let bytes = Numbers::new(2).bytes(1_000_000);
    for_ever(|| stream.write_all(&bytes).unwrap());
}

#[test]
#[ignore = "a role"]
fn role_reads() {
    let mut stream = either_end();
    let mut room = vec![0; 200_000];
    for_ever(|| {
        stream.read_exact(&mut room).unwrap();
    });
}

#[test]
fn a_server_survives_clients_that_vanish() {
    let listener = SanListener::bind((here(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    for _ in 0..3 {
        let mut role = Role::start("role_idle", at, &[]);
        let mut stream = listener.accept().unwrap().0;
        role.wait_for("now");
        role.kill();
        assert!(stream.read(&mut [0]).is_err());
    }
    let role = Role::start("role_echo", at, &[]);
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(b"still serving").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"still serving");
    role.finish();
}

#[test]
#[ignore = "a role"]
fn role_echo() {
    let mut stream = connect();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.write_all(&got).unwrap();
    stream.close().unwrap();
}
