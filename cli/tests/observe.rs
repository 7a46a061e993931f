//! `wsdirect ss` and `wsdirect trace` beside real transfers: what they show is what happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{PATIENCE, Receiver, Running, connections, expect_code, pattern, text, wsdirect};

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A sender that sends what it is given, and its receiver.
struct Transfer {
    receiver: Running,
    sender: Running,
    input: ChildStdin,
}

impl Transfer {
    fn start(mode: &str) -> Transfer {
        // What comes out of a pipe comes in small pieces: they are to be large.
        let threshold = ("WSD_RDMA_THRESHOLD", "16384");
        let mut recv = wsdirect(["recv", "127.0.0.1:0", "-o", "/dev/null", "--mode", mode]);
        recv.env(threshold.0, threshold.1);
        let receiver = Receiver::from(recv);
        let mut send = wsdirect(["send", "-", &receiver.address, "--mode", mode]);
        send.env(threshold.0, threshold.1).stdin(Stdio::piped());
        let mut sender = Running::start(send);
        let input = sender.child.stdin.take().unwrap();
        Transfer {
            receiver: receiver.process,
            sender,
            input,
        }
    }

    fn pids(&self) -> [u32; 2] {
        [self.sender.child.id(), self.receiver.child.id()]
    }

    /// Both ends, once both show bytes that are the same for a while.
    fn both(&self, at_least: u64) -> [Value; 2] {
        let mut last = None;
        until("both ends show the same bytes", || {
            let [sender, receiver] = self.pids().map(|pid| connections(&[pid]).pop());
            let both = [sender?, receiver?];
            let carried = |end: &Value, way: &str| {
                let bytes = |path: &str| end["bytes"][path][way].as_u64().unwrap();
                bytes("san") + bytes("kernel")
            };
            let now = [
                carried(&both[0], "sent"),
                carried(&both[1], "received"),
                carried(&both[0], "received"),
                carried(&both[1], "sent"),
            ];
            let rests = last.replace(now) == Some(now);
            let same = now[0] == now[1] && now[2] == now[3];
            (rests && same && now[0] >= at_least).then_some(both)
        })
    }

    fn finish(self) {
        drop(self.input);
        expect_code(&self.sender.finish(), 0);
        expect_code(&self.receiver.finish(), 0);
    }
}

fn ss(more: &[&str]) -> std::process::Output {
    let mut command = wsdirect(["ss"]);
    command.args(more);
    Running::start(command).finish()
}

#[test]
fn both_ends_of_a_transfer_are_seen_with_what_they_have_carried() {
    const LEN: usize = (9 << 20) + 17;
    for mode in ["read", "write"] {
        let mut transfer = Transfer::start(mode);
        transfer.input.write_all(&pattern(LEN)).unwrap();
        let [sender, receiver] = transfer.both(LEN as u64);
        assert_eq!(sender["local"], receiver["peer"]);
        assert_eq!(sender["peer"], receiver["local"]);
        assert_eq!(sender["role"], "connected");
        assert_eq!(receiver["role"], "accepted");
        assert_eq!(sender["session"], receiver["session"]);
        assert_eq!(sender["session"].as_str().unwrap().len(), 32);
        for end in [&sender, &receiver] {
            assert_eq!(end["path"], "san", "{end}");
            assert_eq!(end["program"], "wsdirect");
            assert_eq!(end["upgrade"], "fixed");
            assert_eq!(end["reason"], Value::Null);
            assert_eq!(end["bytes"]["kernel"]["sent"], 0);
            assert!(end["credits"]["send"].as_u64().unwrap() > 0, "{end}");
            assert!(end["started"].as_f64().unwrap() > 1e9);
        }
        // One of them moves what is large, and all that is large.
        let moved = match mode {
            "read" => &receiver["rdma"]["read_bytes"],
            _ => &sender["rdma"]["write_bytes"],
        };
        assert!(moved.as_u64().unwrap() > 4 << 20, "{mode} {moved}");
        let trip = &sender["rtt_us"];
        assert!(trip["samples"].as_u64().unwrap() >= 1, "{sender}");
        assert!(trip["least"].as_f64() <= trip["smoothed"].as_f64());
        assert!(trip["least"].as_f64().unwrap() > 0.0);

        let table = text(&ss(&[&transfer.pids()[0].to_string()]).stdout);
        let mut lines = table.lines();
        assert!(lines.next().unwrap().starts_with("PROCESS"), "{table}");
        let line = lines.next().unwrap();
        assert!(line.contains(sender["local"].as_str().unwrap()), "{table}");
        assert!(line.contains("9.0M"), "{table}");
        assert_eq!(lines.next(), None);
        let pids = transfer.pids();
        transfer.finish();
        assert!(connections(&[]).iter().all(|end| {
            let pid = end["pid"].as_u64().unwrap();
            !pids.iter().any(|known| u64::from(*known) == pid)
        }));
    }
}

#[test]
fn a_connection_by_tcp_is_seen_with_its_reason() {
    let mut transfer = Transfer::start("tcp");
    transfer.input.write_all(&pattern(5 << 20)).unwrap();
    let [sender, receiver] = transfer.both(4 << 20);
    for (end, reason) in [(&sender, "asked"), (&receiver, "asked")] {
        assert_eq!(end["path"], "kernel", "{end}");
        assert_eq!(end["reason"], reason, "{end}");
        assert_eq!(end["session"], Value::Null);
        assert_eq!(end["rtt_us"], Value::Null);
        assert!(end["fd"].as_u64().is_some(), "{end}");
    }
    transfer.finish();
}

#[test]
fn a_process_that_is_killed_is_gone_at_once_and_its_peer_is_still_seen() {
    let mut transfer = Transfer::start("read");
    transfer.input.write_all(&pattern(5 << 20)).unwrap();
    transfer.both(4 << 20);
    let [sender, _] = transfer.pids();
    // Stopped, the other end cannot end by itself.
    transfer.receiver.signal("STOP");
    transfer.sender.kill();
    let shown = |pid: u32| {
        let all = connections(&[]);
        all.iter().any(|end| end["pid"] == pid)
    };
    // The dead process has not been waited for yet.
    until("the killed process is gone", || {
        (!shown(sender)).then_some(())
    });
    assert!(shown(transfer.receiver.child.id()));
    drop(transfer.input);
    transfer.sender.finish();
    assert!(!shown(sender));
    transfer.receiver.signal("CONT");
    expect_code(&transfer.receiver.finish(), 1);
}

#[test]
fn nothing_found_is_said_and_is_no_failure() {
    // This process has no connections.
    let me = std::process::id().to_string();
    let output = ss(&[&me]);
    expect_code(&output, 0);
    assert_eq!(text(&output.stdout), "no connections\n");
    assert!(connections(&[std::process::id()]).is_empty());
    let output = ss(&["4194305"]);
    let stderr = expect_code(&output, 1);
    assert!(stderr.contains("no such process"), "{stderr}");
}

#[test]
fn it_is_shown_again_until_interrupted() {
    let transfer = Transfer::start("read");
    let [pid, _] = transfer.pids();
    until("it is connected", || connections(&[pid]).pop());
    let mut watch = wsdirect(["ss", "--json", "--watch=0.1"]);
    watch.arg(pid.to_string());
    let mut child = watch.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let report: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(report["connections"][0]["pid"], pid);
    }
    std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(2)
    );
    transfer.finish();
}

/// A `wsdirect trace` of one end, once it watches.
fn watch(args: &[&str]) -> Running {
    let mut command = wsdirect(["trace"]);
    command.args(args);
    let tracer = Running::start(command);
    tracer.after("watching ");
    tracer
}

#[test]
fn messages_are_shown_as_they_go_by_and_the_end_of_the_connection_is_said() {
    let mut transfer = Transfer::start("read");
    let [sender, receiver] = transfer.pids().map(|pid| pid.to_string());
    for pid in transfer.pids() {
        until("it is connected", || connections(&[pid]).pop());
    }
    let small = watch(&[&sender, "--count", "1"]);
    let whole = watch(&[&sender]);
    let json = watch(&[&receiver, "--json"]);
    transfer.input.write_all(&pattern(9 << 20)).unwrap();
    let first = small.finish();
    expect_code(&first, 0);
    assert_eq!(text(&first.stdout).lines().count(), 1);
    transfer.finish();

    let output = whole.finish();
    let stderr = expect_code(&output, 0);
    assert!(stderr.contains("the connection has ended"), "{stderr}");
    let shown = text(&output.stdout);
    let mut large = 0;
    for line in shown.lines() {
        let words: Vec<_> = line.split(' ').collect();
        assert!(
            words[0].len() == 15 && ["<", ">"].contains(&words[1]),
            "{line}"
        );
        assert!(line.contains(" credit="), "{line}");
        large += usize::from(words[1] == ">" && words[2] == "LargeRead");
    }
    assert!(large >= 2, "{shown}");
    for wanted in [
        "> Data offset=",
        "< ReadDone transfer=",
        " descriptor=",
        "> Shutdown",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }

    let output = json.finish();
    expect_code(&output, 0);
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let received = lines
        .iter()
        .filter(|line| line["type"] == "LargeRead" && line["direction"] == "received");
    assert_eq!(received.count(), large, "both ends show the same transfers");
    assert!(lines.iter().all(|line| line["length"].as_u64() >= Some(32)));
}

#[test]
fn a_connection_is_named_by_its_addresses_or_its_number_and_a_wrong_name_is_told() {
    let mut transfer = Transfer::start("read");
    let [pid, _] = transfer.pids();
    let end = until("it is connected", || connections(&[pid]).pop());
    let (local, peer) = (
        end["local"].as_str().unwrap(),
        end["peer"].as_str().unwrap(),
    );
    let by_address = watch(&["--local", local, "--peer", peer, "--count", "2"]);
    let number = end["id"].to_string();
    let by_number = watch(&[&pid.to_string(), "--id", &number, "--count", "2"]);
    transfer.input.write_all(&pattern(9 << 20)).unwrap();
    for tracer in [by_address, by_number] {
        let output = tracer.finish();
        expect_code(&output, 0);
        assert_eq!(text(&output.stdout).lines().count(), 2);
    }
    let failed = |args: &[&str]| {
        let mut command = wsdirect(["trace"]);
        command.args(args);
        expect_code(&Running::start(command).finish(), 1)
    };
    let said = failed(&[&pid.to_string(), "--id", "99999"]);
    assert!(
        said.contains("no such connection") && said.contains("wsdirect ss"),
        "{said}"
    );
    let said = failed(&["4194305"]);
    assert!(said.contains("cannot be read"), "{said}");
    transfer.finish();
}
