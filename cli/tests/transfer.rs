//! `wsdirect send` and `wsdirect recv` as two processes: what arrives is what was sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use support::{Receiver, Running, expect_code, names, pattern, text, wsdirect};

/// Sends `bytes` from a file to a file; both reports.
fn send_and_receive(bytes: &[u8], more: &[&str]) -> (Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, bytes).unwrap();
    let mut options = vec!["--json"];
    options.extend(more);
    let receiver = Receiver::start(&to, &options);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address).args(&options);
    let sent = Running::start(send).finish();
    let received = receiver.process.finish();
    expect_code(&sent, 0);
    expect_code(&received, 0);
    assert!(fs::read(&to).unwrap() == bytes, "the file differs");
    assert_eq!(names(folder.path()), ["from", "to"]);
    let report = |output: &[u8]| serde_json::from_slice(output).unwrap();
    (report(&sent.stdout), report(&received.stdout))
}

#[test]
fn files_of_any_size_arrive_whole_in_every_mode() {
    const CHUNK: usize = 4 << 20;
    for mode in ["auto", "read", "write", "tcp"] {
        for size in [
            0,
            1,
            17,
            4095,
            65_537,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            3 * CHUNK + 12_345,
        ] {
            let (sent, received) = send_and_receive(&pattern(size), &["--mode", mode]);
            for report in [&sent, &received] {
                assert_eq!(report["bytes"], size, "{mode}");
                assert_eq!(report["name"], "from");
                assert_eq!(report["checksum"]["equal"], true);
                assert_eq!(report["checksum"]["sender"], report["checksum"]["receiver"]);
                let kind = if mode == "tcp" { "tcp" } else { "san" };
                assert_eq!(report["path"]["kind"], kind, "{mode} {size}: {report}");
            }
            assert_eq!(sent["checksum"], received["checksum"]);
        }
    }
}

#[test]
fn the_mode_decides_who_moves_large_data() {
    let bytes = pattern(9 << 20);
    let count = |report: &Value, name: &str| report["counters"][name].as_u64().unwrap();
    // req: SEED-07, req: SEED-12, req: SEED-17
    let (sent, received) = send_and_receive(&bytes, &["--mode", "read"]);
    assert!(count(&received, "rdma_reads") > 0, "{received}");
    assert_eq!(count(&sent, "rdma_writes"), 0, "{sent}");
    let (sent, received) = send_and_receive(&bytes, &["--mode", "write"]);
    assert!(count(&sent, "rdma_writes") > 0, "{sent}");
    assert_eq!(count(&received, "rdma_reads"), 0, "{received}");
    let (sent, received) = send_and_receive(&bytes, &["--mode", "tcp"]);
    for report in [sent, received] {
        assert_eq!(
            count(&report, "rdma_reads") + count(&report, "rdma_writes"),
            0
        );
        assert!(report["path"]["reason"].is_string(), "{report}");
    }
}

#[test]
fn standard_input_and_output_carry_data() {
    let bytes = pattern((5 << 20) + 3);
    let receiver = Receiver::from(wsdirect(["recv", "127.0.0.1:0", "-o", "-"]));
    let mut send = wsdirect(["send", "-", &receiver.address]);
    send.stdin(Stdio::piped());
    let mut sender = Running::start(send);
    let mut input = sender.child.stdin.take().unwrap();
    // In odd pieces, as a program that produces them would.
    for piece in bytes.chunks(77_777) {
        input.write_all(piece).unwrap();
    }
    drop(input);
    expect_code(&sender.finish(), 0);
    let received = receiver.process.finish();
    let stderr = expect_code(&received, 0);
    assert!(received.stdout == bytes, "standard output differs");
    assert!(
        stderr.contains("same at both ends"),
        "the report is on stderr: {stderr}"
    );
}

#[test]
fn a_slow_producer_is_sent_as_it_produces() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    let receiver = std::thread::spawn({
        let fifo = fifo.clone();
        move || Receiver::start(&fifo, &[])
    });
    let mut reader = fs::File::open(&fifo).unwrap();
    let receiver = receiver.join().unwrap();
    let mut send = wsdirect(["send", "-", &receiver.address]);
    send.stdin(Stdio::piped());
    let mut sender = Running::start(send);
    let mut input = sender.child.stdin.take().unwrap();
    // Each piece arrives although the producer has not ended.
    for piece in [b"first ", b"second"] {
        input.write_all(piece).unwrap();
        let mut got = [0; 6];
        std::io::Read::read_exact(&mut reader, &mut got).unwrap();
        assert_eq!(&got, piece);
    }
    drop(input);
    expect_code(&sender.finish(), 0);
    expect_code(&receiver.process.finish(), 0);
}

#[test]
fn devices_are_written_directly() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(1 << 20)).unwrap();
    let receiver = Receiver::start("/dev/null".as_ref(), &[]);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    expect_code(&Running::start(send).finish(), 0);
    expect_code(&receiver.process.finish(), 0);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn an_existing_file_is_replaced_through_its_link_and_keeps_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let (from, real) = (folder.path().join("from"), folder.path().join("real"));
    let link = folder.path().join("link");
    fs::write(&from, pattern(70_000)).unwrap();
    fs::write(&real, "old, and longer than nothing").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let receiver = Receiver::start(&link, &[]);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    expect_code(&Running::start(send).finish(), 0);
    expect_code(&receiver.process.finish(), 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap() == pattern(70_000));
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(names(folder.path()), ["from", "link", "real"]);
}

#[test]
fn the_report_for_people_says_path_rate_messages_and_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, pattern(1 << 20)).unwrap();
    let receiver = Receiver::start(&to, &[]);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    let sent = Running::start(send).finish();
    let received = receiver.process.finish();
    for (output, verb) in [(sent, "sent"), (received, "received")] {
        expect_code(&output, 0);
        let report = text(&output.stdout);
        for part in [
            verb,
            "1048576 B",
            "path",
            "rate",
            "B/s",
            "messages",
            "RDMA reads",
            "xxh3-128",
        ] {
            assert!(report.contains(part), "no {part:?} in: {report}");
        }
        // A pipe gets no progress bar.
        assert!(!text(&output.stderr).contains('\r'));
    }
}

#[test]
fn a_stranger_is_turned_away_and_the_receiver_goes_on_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, "hello").unwrap();
    let receiver = Receiver::start(&to, &[]);
    let mut stranger = std::net::TcpStream::connect(&receiver.address).unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
        .unwrap();
    receiver.process.after("turned away a connection");
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    expect_code(&Running::start(send).finish(), 0);
    expect_code(&receiver.process.finish(), 0);
    assert_eq!(fs::read(&to).unwrap(), b"hello");
}
