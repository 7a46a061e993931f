//! Two processes: this one, and a copy of the test binary that runs one of the tests below marked
//! as a role.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use support::{Numbers, Tape, read_tape, write_tape};
use wsd_switch::{Mode, SanListener, SanStream, StreamOptions};

/// A role in a process of its own.
struct Role {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    fn start(role: &str, at: SocketAddr, environment: &[(&str, &str)]) -> Role {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                role,
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env("WSD_TEST_PEER", at.to_string())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Role { child, output }
    }

    /// Waits until the role says this.
    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let count = self.output.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "the other process never said {word}");
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn finish(mut self) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// In a role: the connection to the test.
fn connect() -> SanStream {
    let at: SocketAddr = std::env::var("WSD_TEST_PEER").unwrap().parse().unwrap();
    let mode = match std::env::var("WSD_TEST_MODE").as_deref() {
        Ok("write") => Mode::Write,
        _ => Mode::Auto,
    };
    let stream = SanStream::connect_with(at, &StreamOptions::new().mode(mode)).unwrap();
    assert!(stream.transport().is_san());
    stream
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{word}").unwrap();
    out.flush().unwrap();
}

/// In the test: a role and the connection it makes.
fn peer(role: &str, environment: &[(&str, &str)]) -> (Role, SanStream) {
    let listener = SanListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let role = Role::start(role, listener.local_addr().unwrap(), environment);
    let stream = listener.accept().unwrap().0;
    assert!(stream.transport().is_san());
    (role, stream)
}

const TOTAL: usize = 60_000_000;

/// The ways two processes can be: able to read or not, on either side, with or without the
/// kernel's help for remote memory.
const WAYS: [&[(&str, &str)]; 5] = [
    &[],
    &[("WSD_RDMA_READ", "0")],
    &[("WSD_TEST_MODE", "write")],
    &[("WSD_RDMA", "pipelined")],
    &[("WSD_RDMA", "pipelined"), ("WSD_RDMA_READ", "0")],
];

#[test]
fn bytes_cross_between_processes_in_every_way() {
    // req: SEED-17 one side's provider may read while the other's may not
    for way in WAYS {
        let (role, stream) = peer("role_exchange", way);
        thread::scope(|scope| {
            scope.spawn(|| write_tape(&stream, 11, TOTAL));
            scope.spawn(|| read_tape(&stream, 12, TOTAL));
        });
        role.finish();
    }
}

#[test]
#[ignore = "a role"]
fn role_exchange() {
    let stream = connect();
    thread::scope(|scope| {
        scope.spawn(|| write_tape(&stream, 12, TOTAL));
        scope.spawn(|| read_tape(&stream, 11, TOTAL));
    });
    stream.close().unwrap();
}

#[test]
fn a_process_that_ends_right_after_its_last_write_loses_nothing() {
    for way in WAYS {
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

/// What a peer is at when it is killed.
const PHASES: [&str; 4] = ["role_idle", "role_small", "role_large", "role_reads"];

#[test]
fn a_peer_killed_at_any_time_is_a_reset() {
    for way in WAYS {
        for phase in PHASES {
            let (mut role, stream) = peer(phase, way);
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
    let _stream = connect();
    for_ever(|| thread::sleep(Duration::from_secs(1)));
}

#[test]
#[ignore = "a role"]
fn role_small() {
    let mut stream = connect();
    for_ever(|| stream.write_all(b"small").unwrap());
}

#[test]
#[ignore = "a role"]
fn role_large() {
    let mut stream = connect();
    let bytes = Numbers::new(2).bytes(1_000_000);
    for_ever(|| stream.write_all(&bytes).unwrap());
}

#[test]
#[ignore = "a role"]
fn role_reads() {
    let mut stream = connect();
    let mut room = vec![0; 200_000];
    for_ever(|| {
        stream.read_exact(&mut room).unwrap();
    });
}

#[test]
fn a_server_survives_clients_that_vanish() {
    let listener = SanListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
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
