//! Two processes that differ in what they want and can: who moves large data, and that every byte
//! arrives, with and without the kernel's help for remote memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Receiver, Running, expect_code, names, pattern, wsdirect};

type Environment = &'static [(&'static str, &'static str)];

/// What one end is started with.
#[derive(Clone, Copy, Debug)]
struct End {
    mode: &'static str,
    environment: Environment,
}

const fn end(mode: &'static str, environment: Environment) -> End {
    End { mode, environment }
}

const ANY: Environment = &[];
const NO_READS: Environment = &[("WSD_RDMA_READ", "0")];
const PIPELINED: Environment = &[("WSD_RDMA", "pipelined")];
const PIPELINED_NO_READS: Environment = &[("WSD_RDMA", "pipelined"), ("WSD_RDMA_READ", "0")];

/// Who must have moved the large data.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mover {
    /// The receiver pulled.
    Receiver,
    /// The sender pushed.
    Sender,
}

fn count(report: &Value, name: &str) -> u64 {
    report["counters"][name].as_u64().unwrap()
}

/// Moves `bytes` from a file to a file and checks the content, both reports and who moved them.
fn check(sender: End, receiver: End, bytes: &[u8], mover: Mover) {
    let case = format!("{sender:?} to {receiver:?}, {} bytes", bytes.len());
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, bytes).unwrap();
    let mut recv = wsdirect([
        "recv",
        &support::anywhere(),
        "--json",
        "--mode",
        receiver.mode,
        "-o",
    ]);
    recv.arg(&to).envs(receiver.environment.iter().copied());
    let waiting = Receiver::from(recv);
    let mut send = wsdirect(["send", "--json", "--mode", sender.mode]);
    send.arg(&from).arg(&waiting.address);
    send.envs(sender.environment.iter().copied());
    let sent = Running::start(send).finish();
    let received = waiting.process.finish();
    expect_code(&sent, 0);
    expect_code(&received, 0);
    assert!(fs::read(&to).unwrap() == bytes, "the file differs: {case}");
    assert_eq!(names(folder.path()), ["from", "to"], "{case}");

    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    let received: Value = serde_json::from_slice(&received.stdout).unwrap();
    assert_eq!(sent["checksum"], received["checksum"], "{case}");
    for report in [&sent, &received] {
        assert_eq!(report["bytes"], bytes.len(), "{case}");
        assert_eq!(report["checksum"]["equal"], true, "{case}");
        assert_eq!(report["path"]["kind"], "san", "{case}");
    }
    // The other direction carries verdicts only: nothing large, so nothing by RDMA.
    assert_eq!(count(&sent, "rdma_reads"), 0, "{case}: {sent}");
    assert_eq!(count(&received, "rdma_writes"), 0, "{case}: {received}");
    if bytes.len() < LARGE {
        return;
    }
    let (reads, writes) = (count(&received, "rdma_reads"), count(&sent, "rdma_writes"));
    let (right, wrong, word) = match mover {
        Mover::Receiver => (reads, writes, "read"),
        Mover::Sender => (writes, reads, "write"),
    };
    assert!(right > 0 && wrong == 0, "{case}: {sent} {received}");
    for (end, report) in [(sender, &sent), (receiver, &received)] {
        assert_eq!(report["path"]["mode"], word, "{case}: {report}");
        let why = report["path"]["gave_way"].as_str();
        let gave_way = end.mode == "read" && mover == Mover::Sender;
        assert_eq!(why.is_some(), gave_way, "{case}: {report}");
    }
}

/// From here on some of the data goes by RDMA for certain.
const LARGE: usize = 1 << 20;

#[test]
fn one_end_that_wants_writes_is_enough_and_otherwise_the_receiver_reads() {
    let bytes = pattern((9 << 20) + 77);
    for (sender, receiver, mover) in [
        ("read", "write", Mover::Sender),
        ("write", "read", Mover::Sender),
        ("auto", "write", Mover::Sender),
        ("write", "auto", Mover::Sender),
        ("write", "write", Mover::Sender),
        ("read", "auto", Mover::Receiver),
        ("auto", "read", Mover::Receiver),
        ("read", "read", Mover::Receiver),
        ("auto", "auto", Mover::Receiver),
    ] {
        check(end(sender, ANY), end(receiver, ANY), &bytes, mover);
    }
}

#[test]
fn only_the_receivers_ability_to_read_counts() {
    // req: SEED-17
    let bytes = pattern((9 << 20) + 78);
    for mode in ["auto", "read"] {
        let (able, unable) = (end(mode, ANY), end(mode, NO_READS));
        check(able, unable, &bytes, Mover::Sender);
        check(unable, able, &bytes, Mover::Receiver);
        check(unable, unable, &bytes, Mover::Sender);
    }
    for (sender, receiver) in [(ANY, NO_READS), (NO_READS, ANY)] {
        let (sender, receiver) = (end("write", sender), end("write", receiver));
        check(sender, receiver, &bytes, Mover::Sender);
    }
}

#[test]
fn files_of_any_size_arrive_whole_over_pipelined_rdma_at_both_ends_or_at_one() {
    const CHUNK: usize = 4 << 20;
    for (at_sender, at_receiver) in [(PIPELINED, PIPELINED), (PIPELINED, ANY), (ANY, PIPELINED)] {
        for (mode, mover) in [("read", Mover::Receiver), ("write", Mover::Sender)] {
            for size in [0, 1, 4095, 65_537, CHUNK - 1, CHUNK + 1, 3 * CHUNK + 12_345] {
                let (sender, receiver) = (end(mode, at_sender), end(mode, at_receiver));
                check(sender, receiver, &pattern(size), mover);
            }
        }
    }
}

#[test]
fn over_pipelined_rdma_too_the_receivers_ability_to_read_decides() {
    let bytes = pattern((9 << 20) + 79);
    let able = end("auto", PIPELINED);
    let unable = end("auto", PIPELINED_NO_READS);
    check(able, unable, &bytes, Mover::Sender);
    check(unable, able, &bytes, Mover::Receiver);
    check(
        end("read", PIPELINED),
        end("write", ANY),
        &bytes,
        Mover::Sender,
    );
}

/// What both ends say to people: their standard errors, after a transfer of some MiB.
fn said(sender: End, receiver: End) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, pattern(9 << 20)).unwrap();
    let mut recv = wsdirect(["recv", &support::anywhere(), "--mode", receiver.mode, "-o"]);
    recv.arg(&to).envs(receiver.environment.iter().copied());
    let waiting = Receiver::from(recv);
    let mut send = wsdirect(["send", "--mode", sender.mode]);
    send.arg(&from).arg(&waiting.address);
    send.envs(sender.environment.iter().copied());
    let sent = Running::start(send).finish();
    let received = waiting.process.finish();
    [expect_code(&sent, 0), expect_code(&received, 0)]
}

#[test]
fn a_mode_that_gave_way_is_told_to_people_with_the_reason() {
    const NOTE: &str = "--mode read gave way: ";
    let [sent, received] = said(end("read", ANY), end("write", ANY));
    assert!(sent.contains(&format!("{NOTE}the receiver")), "{sent}");
    assert!(!received.contains("gave way"), "{received}");
    let [sent, received] = said(end("write", ANY), end("read", ANY));
    assert!(!sent.contains("gave way"), "{sent}");
    assert!(
        received.contains(&format!("{NOTE}the sender")),
        "{received}"
    );
    let [sent, received] = said(end("auto", ANY), end("read", NO_READS));
    assert!(!sent.contains("gave way"), "{sent}");
    let own = format!("{NOTE}this end has no RDMA read");
    assert!(received.contains(&own), "{received}");
    for text in said(end("read", NO_READS), end("read", ANY)) {
        assert!(!text.contains("gave way"), "{text}");
    }
}

/// Both ends of a transfer from a pipe: their reports, and their standard errors. `feed` gets the
/// pipe and the output.
fn from_a_pipe(mode: &str, json: bool, feed: impl FnOnce(ChildStdin, &Path)) -> [Output; 2] {
    let folder = tempfile::tempdir().unwrap();
    let json: &[&str] = if json { &["--json"] } else { &[] };
    let mut recv = wsdirect(["recv", &support::anywhere(), "--mode", mode, "-o"]);
    recv.arg(folder.path().join("to")).args(json);
    let waiting = Receiver::from(recv);
    let mut send = wsdirect(["send", "-", &waiting.address, "--mode", mode]);
    send.args(json).stdin(Stdio::piped());
    let mut sender = Running::start(send);
    feed(sender.child.stdin.take().unwrap(), folder.path());
    let ends = [sender.finish(), waiting.process.finish()];
    for end in &ends {
        expect_code(end, 0);
    }
    ends
}

#[test]
fn what_a_fast_producer_writes_to_a_pipe_goes_by_rdma() {
    for (mode, end, counter) in [("read", 1, "rdma_reads"), ("write", 0, "rdma_writes")] {
        let reports = from_a_pipe(mode, true, |mut input, _| {
            input.write_all(&pattern(32 << 20)).unwrap();
        });
        let reports = reports.map(|end| serde_json::from_slice::<Value>(&end.stdout).unwrap());
        assert!(count(&reports[end], counter) > 0, "{mode}: {reports:?}");
        for report in &reports {
            assert_eq!(report["path"]["mode"], mode, "{report}");
            assert_eq!(report["path"]["gave_way"], Value::Null, "{report}");
        }
    }
}

#[test]
fn a_mode_that_came_to_nothing_as_all_pieces_were_small_is_told() {
    const PIECE: usize = 40_000;
    for mode in ["read", "write"] {
        let ends = from_a_pipe(mode, false, |mut input, folder| {
            for piece in 1..=3 {
                input.write_all(&pattern(PIECE)).unwrap();
                // The next one comes when this one is through.
                let end = Instant::now() + support::PATIENCE;
                while support::arrived(folder) < (piece * PIECE) as u64 {
                    assert!(Instant::now() < end);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        for end in &ends {
            let said = support::text(&end.stderr);
            let note = format!("--mode {mode} gave way: all of it came in pieces too small");
            assert!(said.contains(&note), "{said}");
        }
    }
}

#[test]
fn a_receiver_that_demands_the_san_takes_nothing_over_tcp() {
    for mode in ["read", "write"] {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, pattern(LARGE)).unwrap();
        let receiver = Receiver::start(&to, &["--mode", mode]);
        let mut send = wsdirect(["send", "--mode", "tcp"]);
        send.arg(&from).arg(&receiver.address);
        let sent = expect_code(&Running::start(send).finish(), 1);
        let received = expect_code(&receiver.process.finish(), 1);
        for said in [&sent, &received] {
            assert!(said.contains(&format!("--mode {mode} demands")), "{said}");
            assert!(said.contains("over TCP"), "{said}");
        }
        assert!(sent.contains("the receiver could not take it"), "{sent}");
        assert!(sent.contains("leave out --mode tcp here"), "{sent}");
        assert!(
            received.contains("allow TCP with --mode auto"),
            "{received}"
        );
        assert_eq!(names(folder.path()), ["from"]);
    }
}

#[test]
fn who_demands_the_san_where_there_is_none_need_not_wait_for_anybody() {
    for mode in ["read", "write"] {
        let folder = tempfile::tempdir().unwrap();
        let mut recv = wsdirect(["recv", &support::anywhere(), "--mode", mode, "-o"]);
        recv.arg(folder.path().join("to")).env("WSD_SWITCH", "off");
        let said = expect_code(&Running::start(recv).finish(), 1);
        assert!(said.contains("the SAN does not listen on"), "{said}");
        assert!(!said.contains("wsdirect: listening"), "{said}");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
