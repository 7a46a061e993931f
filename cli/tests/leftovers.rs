//! Peers killed with SIGKILL leave nothing behind: no memory and no descriptor in a process that
//! goes on, and no name on this host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, Receiver, Running, expect_code, pattern, wsdirect};

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A `wsdirect perf --listen`, which serves until it is killed.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let mut server = wsdirect(["perf", "--listen", &support::anywhere()]);
        server.stderr(Stdio::null());
        let mut child = server.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let address = address.to_owned();
        Server { child, address }
    }

    fn entries(&self, what: &str) -> usize {
        let folder = format!("/proc/{}/{what}", self.child.id());
        fs::read_dir(folder).unwrap().count()
    }

    /// Mappings of the memory that connections share.
    fn shared(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        // What is shown to those who look on stays, as one file for the life of the process.
        let shared =
            |line: &&str| line.contains("memfd:wsdirect") && !line.contains("wsdirect-observe");
        maps.lines().filter(shared).count()
    }

    /// What it holds: descriptors, threads, shared memory.
    fn holds(&self) -> [usize; 3] {
        [self.entries("fd"), self.entries("task"), self.shared()]
    }

    fn client(&self, mode: &str, wait: &str, slice: &str) -> Running {
        Running::start(wsdirect([
            "perf",
            "--connect",
            &self.address,
            "--transports",
            "san",
            "--mode",
            mode,
            "--wait",
            wait,
            "--sizes",
            "64,300K",
            "--rounds",
            "1",
            "--slice",
            slice,
            "--json",
        ]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_server_keeps_nothing_of_twenty_clients_that_were_killed() {
    let server = Server::start();
    // What is made once, at the first connection, is no leftover.
    expect_code(&server.client("read", "block", "5").finish(), 0);
    until("the server forgets a client", || server.shared() == 0);
    let mut before = server.holds();
    let quiet = Instant::now() + Duration::from_millis(300);
    while Instant::now() < quiet {
        before = server.holds();
        std::thread::sleep(Duration::from_millis(20));
    }

    for round in 0..20 {
        let mode = ["read", "write"][round % 2];
        let wait = ["block", "poll"][round / 2 % 2];
        let mut client = server.client(mode, wait, "10000");
        until("a client is connected", || server.shared() > 0);
        std::thread::sleep(Duration::from_millis(3 * round as u64));
        client.kill();
        client.finish();
        until("the server gives the memory back", || server.shared() == 0);
    }
    until("the server holds what it held before", || {
        server.holds() == before
    });

    // And it serves as before.
    expect_code(&server.client("write", "block", "5").finish(), 0);
}

/// The sockets on this host that have the SAN's name of a listener at `address`: the listener,
/// and the connections it has accepted.
fn named(address: &str) -> Vec<String> {
    let port = address.rsplit_once(':').unwrap().1;
    let end = format!("/{}/{port}", support::address());
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let ours = |line: &&str| line.contains("@wsdirect/") && line.ends_with(&end);
    table.lines().filter(ours).map(str::to_owned).collect()
}

/// Whether one of them still listens; the fourth column has a flag for it.
fn listens(address: &str) -> bool {
    let flags = |line: &String| line.split_whitespace().nth(3) == Some("00010000");
    named(address).iter().any(flags)
}

#[test]
fn the_names_of_twenty_receivers_end_with_them_when_they_are_killed() {
    let mut receivers: Vec<Receiver> = (0..20)
        .map(|_| Receiver::start(Path::new("/dev/null"), &[]))
        .collect();
    // Half of them are in the middle of a transfer, and listen no more.
    let mut senders = Vec::new();
    for (number, receiver) in receivers.iter().enumerate() {
        assert!(listens(&receiver.address), "{}", receiver.address);
        if number % 2 == 0 {
            let mut send = wsdirect(["send", "-", &receiver.address, "--mode", "read"]);
            send.stdin(Stdio::piped());
            let mut sender = Running::start(send);
            let mut input = sender.child.stdin.take().unwrap();
            input.write_all(&pattern(1 << 20)).unwrap();
            until("a receiver that was found listens no more", || {
                !listens(&receiver.address)
            });
            senders.push((sender, input));
        }
    }
    for receiver in &mut receivers {
        receiver.process.kill();
    }
    for receiver in receivers {
        receiver.process.finish();
        until("the name ends with its process", || {
            named(&receiver.address).is_empty()
        });
    }
    for (sender, input) in senders {
        let stderr = expect_code(&sender.finish(), 1);
        assert!(stderr.contains("the receiver has gone"), "{stderr}");
        drop(input);
    }
}
