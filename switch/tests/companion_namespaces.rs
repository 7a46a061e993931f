//! Network namespaces: the embedded SAN is within each, and never between two.
//!
//! Needs to be allowed to make namespaces, and `ip` to give them addresses; elsewhere the tests pass
//! without having looked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use ends::{End, check, fill, to_and_fro, until, upgrade};
use wsd_switch::companion::{Path, Reason, Role};

const PLAY: &str = "WSD_TEST_PLAY";
const PORT: u16 = 7000;

/// Another process, in a namespace of its own: this test, told what to play. It says a word a line.
struct Apart {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Apart {
    fn new(play: &str, options: &[&str]) -> Apart {
        let mut process = Command::new("unshare")
            .arg("--net")
            .args(options)
            .arg(std::env::current_exe().unwrap())
            .args(["the_other_namespace", "--exact", "--nocapture"])
            .env(PLAY, play)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Apart { process, said }
    }

    /// Waits for it to say this.
    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(
                read > 0,
                "it ended before it said {word}: {:?}",
                self.process.wait()
            );
        }
    }

    fn tell(&mut self) {
        self.process
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"\n")
            .unwrap();
    }

    fn end(&mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// What the other process does to be heard.
fn say(word: &str) {
    println!("\n{word}");
    std::io::stdout().flush().unwrap();
}

fn wait() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn is_possible() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c"])
        .arg("ip link set lo up && ip link add wsd0 type veth peer name wsd1")
        .stderr(Stdio::null())
        .status();
    let possible = tried.is_ok_and(|status| status.success());
    if !possible {
        println!("skipped: no namespaces are to be had here");
    }
    possible
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(done.success(), "ip {words}");
}

#[test]
fn the_other_namespace() {
    let Ok(play) = std::env::var(PLAY) else {
        return;
    };
    match play.as_str() {
        "across" => across(),
        "server" => server(),
        seed => alone(seed.parse().unwrap()),
    }
}

/// The only connection of its namespace, with the same addresses as that of another.
fn alone(seed: u64) {
    ip("link set lo up");
    let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    // The port that the kernel chooses first is not the same everywhere.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "7001 7001").unwrap();
    let one = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    assert_eq!(one.local_addr().unwrap().port(), 7001);
    let one = End::new(one, Role::Connected);
    let two = End::new(listener.accept().unwrap().0, Role::Accepted);
    say("there");
    wait();
    upgrade(&one, &two);
    to_and_fro(&one, &two, seed, 500);
    say("over");
    wait();
    to_and_fro(&one, &two, seed + 1, 500);
    assert_eq!([one.companion.path(), two.companion.path()], [Path::San; 2]);
}

#[test]
fn connections_with_the_same_addresses_in_two_namespaces_do_not_meet() {
    if !is_possible() {
        return;
    }
    let mut both = ["10", "20"].map(|seed| Apart::new(seed, &["--map-root-user"]));
    for apart in &mut both {
        apart.hear("there");
    }
    for apart in &mut both {
        apart.tell();
    }
    for apart in &mut both {
        apart.hear("over");
    }
    for apart in &mut both {
        apart.tell();
    }
    for apart in &mut both {
        apart.end();
    }
}

/// One end of a connection to another namespace, which it makes.
fn across() {
    let mut other = Apart::new("server", &[]);
    other.hear("there");
    ip("link set lo up");
    ip("link add wsd0 type veth peer name wsd1");
    ip(&format!("link set wsd1 netns {}", other.process.id()));
    ip("addr add 10.99.0.1/24 dev wsd0");
    ip("link set wsd0 up");
    other.tell();
    other.hear("listens");
    let tcp = TcpStream::connect(("10.99.0.2", PORT)).unwrap();
    let end = End::new(tcp, Role::Connected);
    let (mut bytes, mut room) = ([0; 1000], [0; 1000]);
    for round in 0..1000 {
        fill(3, round * 1000, &mut bytes);
        end.send_all(&bytes).unwrap();
        end.receive_exactly(&mut room).unwrap();
        check(3, round * 1000, &room);
    }
    assert_eq!(end.companion.path(), Path::Tcp);
    end.shut();
    assert_eq!(end.receive(&mut room, 0).unwrap(), 0);
    other.end();
}

fn server() {
    say("there");
    wait();
    ip("link set lo up");
    ip("addr add 10.99.0.2/24 dev wsd1");
    ip("link set wsd1 up");
    let listener = TcpListener::bind(("10.99.0.2", PORT)).unwrap();
    say("listens");
    let end = End::new(listener.accept().unwrap().0, Role::Accepted);
    let mut room = [0; 1000];
    while end.receive_exactly(&mut room).is_ok() {
        end.send_all(&room).unwrap();
    }
    until("it says that nobody answers there", || {
        end.companion.reason() == Reason::PeerSilent
    });
    assert_eq!(end.companion.path(), Path::Tcp);
}

#[test]
fn a_connection_between_two_namespaces_stays_with_the_kernel() {
    if !is_possible() {
        return;
    }
    let mut apart = Apart::new("across", &["--map-root-user"]);
    apart.end();
}
