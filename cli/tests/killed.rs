//! Ends that are killed with SIGKILL at any time: the other end says so, ends with code 1, and
//! nothing has the final name that is not whole; nor is anything left in a process that goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Receiver, Running, anywhere, arrived, connections, expect_code, names, pattern, wsdirect,
};

/// A survivor must have noticed by then.
const NOTICE: Duration = Duration::from_secs(30);

const WAYS: [(&str, &str); 4] = [
    ("read", "auto"),
    ("write", "auto"),
    ("read", "pipelined"),
    ("write", "pipelined"),
];

/// Both ends of a transfer from the sender's standard input, which stays open.
struct Transfer {
    folder: tempfile::TempDir,
    sender: Running,
    input: ChildStdin,
    receiver: Running,
}

impl Transfer {
    fn start((mode, rdma): (&str, &str)) -> Transfer {
        let folder = tempfile::tempdir().unwrap();
        let mut recv = wsdirect(["recv", &anywhere(), "--mode", mode, "-o"]);
        recv.arg(folder.path().join("to")).env("WSD_RDMA", rdma);
        let receiver = Receiver::from(recv);
        assert_eq!(listens(receiver.process.child.id()), 1);
        let mut send = wsdirect(["send", "-", &receiver.address, "--mode", mode]);
        send.env("WSD_RDMA", rdma).stdin(Stdio::piped());
        let mut sender = Running::start(send);
        let input = sender.child.stdin.take().unwrap();
        Transfer {
            folder,
            sender,
            input,
            receiver: receiver.process,
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + NOTICE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {NOTICE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The survivor ends in time and by itself; what it says.
fn survivor_fails(mut survivor: Running, case: &str) -> String {
    until(&format!("{case}: it notices"), || !survivor.is_running());
    let stderr = expect_code(&survivor.finish(), 1);
    assert!(!stderr.contains("panicked"), "{case}: {stderr}");
    stderr
}

fn kill(mut victim: Running) {
    victim.kill();
    victim.finish();
}

/// Feeds the sender without end, until its standard input is closed.
fn feed(mut input: ChildStdin) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let bytes = pattern(1 << 20);
        while input.write_all(&bytes).is_ok() {}
    })
}

/// Bytes that a process has read or written in its peer's memory.
fn moved_by_rdma(process: u32) -> u64 {
    let ends = connections(&[process]);
    let moved = |end: &Value| {
        let bytes = |name: &str| end["rdma"][name].as_u64().unwrap();
        bytes("read_bytes") + bytes("write_bytes")
    };
    ends.iter().map(moved).sum()
}

#[test]
fn killed_in_the_middle_of_the_stream_each_end_is_missed() {
    for way in WAYS {
        for sender_dies in [true, false] {
            let case = format!("{way:?}, sender dies: {sender_dies}");
            let transfer = Transfer::start(way);
            let folder = &transfer.folder;
            let feeder = feed(transfer.input);
            until(&case, || arrived(folder.path()) > 20 << 20);
            // Large data is what goes on when it is cut.
            let mover = match way.0 {
                "read" => transfer.receiver.child.id(),
                _ => transfer.sender.child.id(),
            };
            until(&case, || moved_by_rdma(mover) > 8 << 20);
            if sender_dies {
                kill(transfer.sender);
                let said = survivor_fails(transfer.receiver, &case);
                assert!(said.contains("the sender has gone in the middle"), "{said}");
                // The receiver tidies up after itself, too.
                assert_eq!(names(folder.path()), Vec::<String>::new(), "{case}");
            } else {
                kill(transfer.receiver);
                let said = survivor_fails(transfer.sender, &case);
                assert!(
                    said.contains("the receiver has gone in the middle"),
                    "{said}"
                );
                assert!(!folder.path().join("to").exists(), "{case}");
            }
            feeder.join().unwrap();
        }
    }
}

#[test]
fn killed_before_the_first_byte_each_end_is_missed() {
    for way in [WAYS[0], WAYS[1]] {
        for sender_dies in [true, false] {
            let case = format!("{way:?}, sender dies: {sender_dies}");
            let transfer = Transfer::start(way);
            // The sender begins to read its input when the receiver has told it to go: then both
            // ends are in the transfer, and there is nothing to move.
            let sender = transfer.sender.child.id();
            until(&case, || has_thread(sender, "read-ahead"));
            assert_eq!(arrived(transfer.folder.path()), 0, "{case}");
            if sender_dies {
                kill(transfer.sender);
                let said = survivor_fails(transfer.receiver, &case);
                assert!(said.contains("the sender has gone in the middle"), "{said}");
                assert_eq!(names(transfer.folder.path()), Vec::<String>::new());
            } else {
                kill(transfer.receiver);
                let said = survivor_fails(transfer.sender, &case);
                assert!(
                    said.contains("the receiver has gone in the middle"),
                    "{said}"
                );
                assert!(!transfer.folder.path().join("to").exists());
            }
            drop(transfer.input);
        }
    }
}

/// Whether a process has a thread of this name.
fn has_thread(process: u32, name: &str) -> bool {
    let Ok(mut threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    threads.any(|thread| {
        let named = thread.and_then(|thread| fs::read_to_string(thread.path().join("comm")));
        named.is_ok_and(|named| named.trim_end() == name)
    })
}

/// How many listening TCP sockets a process has.
fn listens(process: u32) -> usize {
    let Ok(own) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return 0;
    };
    let own: BTreeSet<String> = own
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    listening_in(&table).intersection(&own).count()
}

/// The listening sockets that the kernel's table names. While others come and go it may name one
/// twice.
fn listening_in(table: &str) -> BTreeSet<String> {
    let listening = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(3) == Some(&"0A")).then(|| format!("socket:[{}]", fields[9]))
    });
    listening.collect()
}

#[test]
fn a_listener_that_the_kernels_table_names_twice_is_one() {
    let line = |number: u32, state: &str, inode: u32| {
        format!(
            "{number:4}: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 \
             00000000 0 0 {inode} 1\n"
        )
    };
    let table = [line(0, "0A", 7), line(1, "01", 8), line(2, "0A", 7)].concat();
    assert_eq!(listening_in(&table).len(), 1);
}

#[test]
fn a_sender_killed_while_it_connects_is_turned_away_or_missed() {
    // Where the kill strikes is left to chance; each place is legal, and none may harm.
    for (round, way) in WAYS.iter().cycle().take(16).enumerate() {
        let transfer = Transfer::start(*way);
        std::thread::sleep(Duration::from_millis(2 * round as u64));
        kill(transfer.sender);
        let (mut receiver, folder) = (transfer.receiver, transfer.folder);
        // Had the sender not greeted yet, the receiver waits for the next one.
        std::thread::sleep(Duration::from_millis(100));
        if receiver.is_running() && listens(receiver.child.id()) > 0 {
            kill(receiver);
        } else {
            let said = survivor_fails(receiver, &format!("{way:?}, round {round}"));
            assert!(said.contains("the sender has gone in the middle"), "{said}");
        }
        assert!(!folder.path().join("to").exists());
    }
}

#[test]
fn a_receiver_killed_while_a_sender_connects_is_missed() {
    for (round, way) in WAYS.iter().cycle().take(16).enumerate() {
        let transfer = Transfer::start(*way);
        std::thread::sleep(Duration::from_millis(2 * round as u64));
        kill(transfer.receiver);
        let case = format!("{way:?}, round {round}");
        let said = survivor_fails(transfer.sender, &case);
        // A dying receiver may take connections over TCP a moment longer than over the SAN.
        let words = [
            "cannot connect to",
            "the receiver",
            "the SAN does not carry",
        ];
        let clear = words.iter().any(|words| said.contains(words));
        assert!(clear, "{case}: {said}");
        drop(transfer.input);
        assert!(!transfer.folder.path().join("to").exists());
    }
}

#[test]
fn killed_at_the_very_end_there_is_a_whole_file_or_none() {
    let bytes = pattern((8 << 20) + 1);
    for (round, way) in [WAYS[0], WAYS[1]].iter().cycle().take(24).enumerate() {
        let sender_dies = round % 4 < 2;
        let case = format!("{way:?}, round {round}, sender dies: {sender_dies}");
        let mut transfer = Transfer::start(*way);
        transfer.input.write_all(&bytes).unwrap();
        let folder = &transfer.folder;
        until(&case, || arrived(folder.path()) >= 8 << 20);
        // The end of the input is the end of the transfer, which the kill races.
        drop(transfer.input);
        std::thread::sleep(Duration::from_micros(300 * round as u64));
        let (victim, mut survivor) = if sender_dies {
            (transfer.sender, transfer.receiver)
        } else {
            (transfer.receiver, transfer.sender)
        };
        kill(victim);
        until(&format!("{case}: it ends"), || !survivor.is_running());
        let end = survivor.finish();
        let whole = fs::read(folder.path().join("to"));
        if let Ok(whole) = &whole {
            assert!(*whole == bytes, "{case}: not whole");
        }
        if end.status.code() == Some(0) {
            assert!(whole.is_ok(), "{case}: done, and no file");
        } else {
            // Also right if the file is whole, where only the last word about it was lost.
            let said = expect_code(&end, 1);
            assert!(said.contains("has gone in the middle"), "{case}: {said}");
        }
    }
}
