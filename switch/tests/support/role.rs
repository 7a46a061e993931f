//! A second process: a copy of the test binary that runs one of its tests marked as a role.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use wsd_switch::{Mode, SanListener, SanStream, StreamOptions};

use super::here;

/// A role in a process of its own.
pub(crate) struct Role {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    pub(crate) fn start(role: &str, at: SocketAddr, environment: &[(&str, &str)]) -> Role {
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

    /// Waits until the role says this, and what else is on the line.
    pub(crate) fn wait_for(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.output.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "the other process never said {word}");
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn finish(mut self) {
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
pub(crate) fn connect() -> SanStream {
    let stream = try_connect().unwrap();
    assert!(stream.transport().is_san());
    stream
}

/// The same where it may fail, or go over TCP.
pub(crate) fn try_connect() -> io::Result<SanStream> {
    let at: SocketAddr = std::env::var("WSD_TEST_PEER").unwrap().parse().unwrap();
    SanStream::connect_with(at, &role_options())
}

fn role_options() -> StreamOptions {
    let mode = match std::env::var("WSD_TEST_MODE").as_deref() {
        Ok("write") => Mode::Write,
        _ => Mode::Auto,
    };
    StreamOptions::new().mode(mode)
}

/// Before the address at which a role accepts.
const ACCEPTS_AT: &str = "accepts at ";

/// In a role that may be either end: the connection, which it accepts if the test connects.
pub(crate) fn either_end() -> SanStream {
    if std::env::var_os("WSD_TEST_ACCEPTS").is_none() {
        return connect();
    }
    let listener = SanListener::bind_with((here(), 0), &role_options()).unwrap();
    say(&format!("{ACCEPTS_AT}{}", listener.local_addr().unwrap()));
    let stream = listener.accept().unwrap().0;
    assert!(stream.transport().is_san());
    stream
}

pub(crate) fn say(word: &str) {
    let mut out = io::stdout();
    writeln!(out, "\n{word}").unwrap();
    out.flush().unwrap();
}

/// In the test: a role and the connection it makes.
pub(crate) fn peer(role: &str, environment: &[(&str, &str)]) -> (Role, SanStream) {
    peer_with(role, environment, &StreamOptions::new())
}

/// In the test: a role and the connection that it accepts.
pub(crate) fn accepting_peer(role: &str, environment: &[(&str, &str)]) -> (Role, SanStream) {
    let mut environment = environment.to_vec();
    environment.push(("WSD_TEST_ACCEPTS", "1"));
    let nowhere = SocketAddr::new(here(), 0);
    let mut role = Role::start(role, nowhere, &environment);
    let at = role.wait_for(ACCEPTS_AT);
    let stream = SanStream::connect(&*at).unwrap();
    assert!(stream.transport().is_san());
    (role, stream)
}

/// The same as [`peer`] with options for this end.
pub(crate) fn peer_with(
    role: &str,
    environment: &[(&str, &str)],
    options: &StreamOptions,
) -> (Role, SanStream) {
    let listener = SanListener::bind_with((here(), 0), options).unwrap();
    let role = Role::start(role, listener.local_addr().unwrap(), environment);
    let stream = listener.accept().unwrap().0;
    assert!(stream.transport().is_san());
    (role, stream)
}

/// What the other process has in its environment.
pub(crate) type Way = &'static [(&'static str, &'static str)];

const WAYS: [Way; 6] = [
    &[],
    &[("WSD_RDMA_READ", "0")],
    &[("WSD_RDMA_READ", "1")],
    &[("WSD_TEST_MODE", "write")],
    &[("WSD_RDMA", "pipelined")],
    &[("WSD_RDMA", "pipelined"), ("WSD_RDMA_READ", "0")],
];

/// Whether a way differs from the others: the kernel's help for remote memory is asked for by the
/// embedded SAN only, and reading is as it is without being said.
pub(crate) fn is_its_own(way: Way) -> bool {
    let is = |name, value| std::env::var(name).is_ok_and(|set| set == value);
    let plain = if is("WSD_RDMA_READ", "0") { "0" } else { "1" };
    let embedded = !is("WSD_FABRIC", "verbs");
    !way.contains(&("WSD_RDMA_READ", plain))
        && (embedded || way.iter().all(|(name, _)| *name != "WSD_RDMA"))
}

/// The ways two processes can be: able to read or not, on either side, with or without the
/// kernel's help for remote memory.
pub(crate) fn ways() -> impl Iterator<Item = Way> {
    WAYS.into_iter().filter(|way| is_its_own(way))
}
