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
    for report in [&sent, &received] {
        assert_eq!(report["path"]["mode"], word, "{case}: {report}");
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
