//! What goes wrong: a clear message, the documented exit code, and nothing under the final name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, Receiver, Running, expect_code, names, pattern, wsdirect};

/// A sender whose input stays open, so that it stands in the middle of its transfer.
fn endless_sender(address: &str, first: &[u8]) -> (Running, std::process::ChildStdin) {
    let mut send = wsdirect(["send", "-", address]);
    send.stdin(Stdio::piped());
    let mut sender = Running::start(send);
    let mut input = sender.child.stdin.take().unwrap();
    input.write_all(first).unwrap();
    (sender, input)
}

/// Waits until the receiver's temporary file in `folder` has bytes.
fn until_data_arrives(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    while !names(folder).iter().any(|name| {
        name.ends_with(".part")
            && fs::metadata(folder.join(name)).is_ok_and(|about| about.len() > 0)
    }) {
        assert!(Instant::now() < end, "no data arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2_with_a_hint() {
    for (args, hint) in [
        (&["send", "x"][..], "ADDR:PORT"),
        (&["send", "x", "127.0.0.1"], "port"),
        (&["send", "x", "::1:5"], "brackets"),
        (&["recv", "127.0.0.1:99999", "-o", "x"], "65535"),
        (&["recv", "127.0.0.1:0"], "--output"),
        (
            &["send", "x", "127.0.0.1:1", "--mode", "fast"],
            "possible values",
        ),
        (&["perf", "--sizes", "0"], "bytes from 1"),
        (&["perf", "--transports", "pigeon"], "possible values"),
        (&["nonsense"], "unrecognized"),
        (&[], "Usage"),
    ] {
        let output = Running::start(wsdirect(args)).finish();
        let stderr = expect_code(&output, 2);
        assert!(stderr.contains(hint), "{args:?}: no {hint:?} in: {stderr}");
    }
}

#[test]
fn a_missing_file_or_a_folder_cannot_be_sent() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for (path, words) in [
        (missing.as_path(), "No such file"),
        (folder.path(), "is a folder"),
    ] {
        let mut send = wsdirect(["send"]);
        send.arg(path).arg("127.0.0.1:1");
        let stderr = expect_code(&Running::start(send).finish(), 1);
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn sending_to_where_nobody_listens_says_so() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for mode in ["auto", "tcp"] {
        let mut send = wsdirect(["send", "-", &free, "--mode", mode]);
        send.stdin(Stdio::null());
        let stderr = expect_code(&Running::start(send).finish(), 1);
        assert!(stderr.contains("nobody listens there"), "{mode}: {stderr}");
    }
}

#[test]
fn a_listener_without_the_san_is_asked_twice_by_who_wants_the_san() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for mode in ["read", "write"] {
        let mut send = wsdirect(["send", "-", &address, "--mode", mode]);
        send.stdin(Stdio::null());
        let stderr = expect_code(&Running::start(send).finish(), 1);
        assert!(stderr.contains("the SAN does not carry"), "{stderr}");
        // It could have begun to listen on both between the two questions of the first time.
        listener.set_nonblocking(true).unwrap();
        let asked = std::iter::from_fn(|| listener.accept().ok()).count();
        assert_eq!(asked, 2, "{mode}");
    }
}

#[test]
fn a_receiver_that_leaves_before_the_transfer_has_taken_another_or_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut send = wsdirect(["send", "-", &address, "--mode", "tcp"]);
    send.stdin(Stdio::null());
    let sender = Running::start(send);
    // What the closing of a listener does to connections that wait to be accepted.
    drop(listener.accept().unwrap());
    let stderr = expect_code(&sender.finish(), 1);
    assert!(stderr.contains("took another sender"), "{stderr}");
    assert!(!stderr.contains("in the middle"), "{stderr}");
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_up_the_sender() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, b"all of it").unwrap();
    let receiver = Receiver::start(&to, &["--mode", "tcp"]);
    let silent = TcpStream::connect(&receiver.address).unwrap();
    let mut send = wsdirect(["send"]);
    send.arg(&from)
        .args([receiver.address.as_str(), "--mode", "tcp"]);
    expect_code(&Running::start(send).finish(), 0);
    // It would have been turned away, had anybody waited for it to the end.
    let stderr = expect_code(&receiver.process.finish(), 0);
    assert!(!stderr.contains("turned away"), "{stderr}");
    assert_eq!(fs::read(&to).unwrap(), b"all of it");
    drop(silent);
}

#[test]
fn listening_on_a_port_in_use_or_a_foreign_address_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    let first = Receiver::start(&to, &[]);
    let mut second = wsdirect(["recv", &first.address, "-o"]);
    second.arg(folder.path().join("other"));
    let stderr = expect_code(&Running::start(second).finish(), 1);
    assert!(
        stderr.contains("another program listens on this port"),
        "{stderr}"
    );
    let mut foreign = wsdirect(["recv", "192.0.2.1:0", "-o"]);
    foreign.arg(folder.path().join("other"));
    let stderr = expect_code(&Running::start(foreign).finish(), 1);
    assert!(stderr.contains("no such address"), "{stderr}");
    let mut first = first.process;
    assert!(first.is_running());
    first.signal("TERM");
    assert_eq!(first.finish().status.signal(), Some(15));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn an_output_that_cannot_be_written_fails_before_anybody_connects() {
    let folder = tempfile::tempdir().unwrap();
    for (output, words) in [
        (
            folder.path().join("no/such/folder/file"),
            "the folder does not exist",
        ),
        (folder.path().to_owned(), "is a folder"),
        (folder.path().join(".."), "is a folder"),
    ] {
        let mut recv = wsdirect(["recv", "127.0.0.1:0", "-o"]);
        recv.arg(&output);
        let stderr = expect_code(&Running::start(recv).finish(), 1);
        assert!(stderr.contains(words), "{}: {stderr}", output.display());
        assert!(!stderr.contains("listening"), "{stderr}");
    }
}

#[test]
fn a_file_that_may_not_be_written_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept");
    fs::write(&file, "kept").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    // Its folder is anybody's, so that it could be replaced.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut recv = wsdirect(["recv", "127.0.0.1:0", "--mode", "tcp", "-o"]);
    if fs::metadata(&file).unwrap().uid() == 0 {
        // Root may write to everything: somebody else, then, who must get at the program.
        let program = folder.path().join("program");
        let built = Path::new(env!("CARGO_BIN_EXE_wsdirect"));
        fs::hard_link(built, &program)
            .or_else(|_| fs::copy(built, &program).map(drop))
            .unwrap();
        let args: Vec<_> = recv.get_args().map(ToOwned::to_owned).collect();
        recv = Command::new(&program);
        recv.args(args).uid(65_534).gid(65_534);
        recv.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }
    recv.arg(&file);
    let stderr = expect_code(&Running::start(recv).finish(), 1);
    assert!(stderr.contains("Permission denied"), "{stderr}");
    assert!(!stderr.contains("listening"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), b"kept");
    assert!(
        names(folder.path())
            .iter()
            .all(|name| !name.ends_with(".part"))
    );
}

#[test]
fn a_sender_that_is_killed_leaves_no_file_and_a_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    fs::write(&to, "old").unwrap();
    let receiver = Receiver::start(&to, &[]);
    let (mut sender, input) = endless_sender(&receiver.address, &pattern(9 << 20));
    until_data_arrives(folder.path());
    sender.kill();
    let stderr = expect_code(&receiver.process.finish(), 1);
    assert!(
        stderr.contains("the sender has gone in the middle"),
        "{stderr}"
    );
    assert_eq!(names(folder.path()), ["to"]);
    assert_eq!(fs::read(&to).unwrap(), b"old");
    drop(input);
    sender.finish();
}

#[test]
fn a_receiver_that_is_killed_is_noticed_by_an_idle_and_by_a_busy_sender() {
    for idle in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::start(&folder.path().join("to"), &[]);
        let (sender, mut input) = endless_sender(&receiver.address, &pattern(5 << 20));
        until_data_arrives(folder.path());
        receiver.process.kill();
        receiver.process.finish();
        if !idle {
            let more = pattern(1 << 20);
            while input.write_all(&more).is_ok() {}
        }
        // `finish` would close the input, which must not be what ends the sender.
        let mut sender = sender;
        let end = Instant::now() + PATIENCE;
        while sender.is_running() {
            assert!(
                Instant::now() < end,
                "the sender does not notice (idle: {idle})"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(input);
        let stderr = expect_code(&sender.finish(), 1);
        assert!(
            stderr.contains("the receiver has gone in the middle"),
            "{stderr}"
        );
        assert!(!folder.path().join("to").exists());
    }
}

#[test]
fn a_signal_removes_what_was_begun() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Receiver::start(&folder.path().join("to"), &[]);
        let (sender, input) = endless_sender(&receiver.address, &pattern(5 << 20));
        until_data_arrives(folder.path());
        receiver.process.signal(signal);
        assert_eq!(receiver.process.finish().status.signal(), Some(number));
        assert_eq!(names(folder.path()), Vec::<String>::new());
        drop(input);
        let stderr = expect_code(&sender.finish(), 1);
        assert!(stderr.contains("the receiver has gone"), "{stderr}");
    }
}

#[test]
fn a_signal_that_was_ignored_from_the_start_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, b"all of it").unwrap();
    let mut command = Command::new("nohup");
    command
        .arg(env!("CARGO_BIN_EXE_wsdirect"))
        .args(["recv", "127.0.0.1:0", "-o"])
        .arg(&to)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let receiver = Receiver::from(command);
    receiver.process.signal("HUP");
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    expect_code(&Running::start(send).finish(), 0);
    expect_code(&receiver.process.finish(), 0);
    assert_eq!(fs::read(&to).unwrap(), b"all of it");
}

/// The receiver could not store: both ends say why, and nothing is left.
fn expect_refusal(receiver: Receiver, from: &Path, words: &str) {
    let mut send = wsdirect(["send"]);
    send.arg(from).arg(&receiver.address);
    expect_told(receiver, send, words);
}

fn expect_told(receiver: Receiver, send: Command, words: &str) {
    let sent = Running::start(send).finish();
    let stderr = expect_code(&receiver.process.finish(), 1);
    assert!(stderr.contains(words), "receiver: {stderr}");
    let stderr = expect_code(&sent, 1);
    assert!(
        stderr.contains("the receiver could not take it"),
        "sender: {stderr}"
    );
    assert!(stderr.contains(words), "sender: {stderr}");
}

#[test]
fn a_full_disk_in_the_middle_is_told_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(30 << 20)).unwrap();
    expect_refusal(
        Receiver::start("/dev/full".as_ref(), &[]),
        &from,
        "No space left on device",
    );
}

/// A receiver that may make no file of more than 1 MiB.
fn limited_receiver(to: &Path) -> Receiver {
    // ulimit -f counts blocks of 512 or 1024 bytes: at most 1 MiB in either case.
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            "ulimit -f 1024; exec \"$0\" recv 127.0.0.1:0 -o \"$1\"",
        ])
        .arg(env!("CARGO_BIN_EXE_wsdirect"))
        .arg(to)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Receiver::from(limited)
}

/// As `expect_refusal`, for a sender that does not know how much will come.
fn expect_stream_refused(receiver: Receiver, from: &Path, words: &str) {
    let mut send = wsdirect(["send", "-", &receiver.address]);
    send.stdin(fs::File::open(from).unwrap());
    expect_told(receiver, send, words);
}

#[test]
fn a_file_too_large_for_the_limit_is_refused_before_it_moves() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(8 << 20)).unwrap();
    let output = tempfile::tempdir().unwrap();
    let receiver = limited_receiver(&output.path().join("to"));
    expect_refusal(receiver, &from, "File too large");
    assert_eq!(names(output.path()), Vec::<String>::new());
}

#[test]
fn a_stream_that_outgrows_the_limit_ends_in_the_middle_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(8 << 20)).unwrap();
    let output = tempfile::tempdir().unwrap();
    let receiver = limited_receiver(&output.path().join("to"));
    expect_stream_refused(receiver, &from, "File too large");
    assert_eq!(names(output.path()), Vec::<String>::new());
}

/// Its own mount, so it needs the right to make one: `./test` runs it in a mount namespace.
#[test]
#[ignore = "mounts a file system; ./test runs it where that can be done"]
fn a_full_file_system_is_refused_and_left_empty() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "wsdirect-test"])
        .arg(mount.path())
        .status();
    assert!(mounted.unwrap().success(), "cannot mount");
    let unmount = Unmount(mount.path());
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(16 << 20)).unwrap();
    // A known size is refused before the first byte ...
    let receiver = Receiver::start(&mount.path().join("to"), &[]);
    expect_refusal(receiver, &from, "No space left on device");
    assert_eq!(names(mount.path()), Vec::<String>::new());
    // ... an unknown one when the disk is full.
    let receiver = Receiver::start(&mount.path().join("to"), &[]);
    expect_stream_refused(receiver, &from, "No space left on device");
    assert_eq!(names(mount.path()), Vec::<String>::new());
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().ok();
    }
}

#[test]
fn a_reader_of_standard_output_that_leaves_ends_the_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, pattern(30 << 20)).unwrap();
    let mut recv = Command::new("sh");
    recv.args([
        "-c",
        "\"$0\" recv 127.0.0.1:0 -o - | head -c 1000 >/dev/null; exit 7",
    ])
    .arg(env!("CARGO_BIN_EXE_wsdirect"))
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped());
    let receiver = Receiver::from(recv);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    let stderr = expect_code(&Running::start(send).finish(), 1);
    assert!(
        stderr.contains("whoever") || stderr.contains("Broken pipe"),
        "{stderr}"
    );
    expect_code(&receiver.process.finish(), 7);
}

#[test]
fn an_input_that_breaks_is_told_to_the_receiver() {
    // /proc/self/mem at offset 0 opens and cannot be read.
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&folder.path().join("to"), &[]);
    let send = wsdirect(["send", "/proc/self/mem", &receiver.address]);
    let stderr = expect_code(&Running::start(send).finish(), 1);
    assert!(stderr.contains("cannot read mem"), "{stderr}");
    let stderr = expect_code(&receiver.process.finish(), 1);
    assert!(
        stderr.contains("the sender gave up: cannot read mem"),
        "{stderr}"
    );
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

/// Where the process stands in this file.
fn position(process: u32, file: &Path) -> u64 {
    let entries = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten();
    let mut open = entries
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
    let about = open.next().and_then(|entry| {
        let number = entry.file_name();
        let number = number.to_str()?;
        fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()
    });
    let about = about.unwrap_or_default();
    let position = about.lines().find_map(|line| line.strip_prefix("pos:"));
    position.map_or(0, |position| position.trim().parse().unwrap())
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_sent_fails_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (from, go) = (folder.join("from"), folder.join("go"));
    let file = fs::File::create(&from).unwrap();
    file.set_len(1 << 30).unwrap();
    // Takes nothing for now, so that the sender gets no farther than the buffers on the way.
    let mut recv = Command::new("sh");
    let script = "\"$0\" recv 127.0.0.1:0 -o - | { until [ -e \"$1\" ]; do sleep 0.02; done; cat >/dev/null; }";
    recv.args(["-c", script, env!("CARGO_BIN_EXE_wsdirect")])
        .arg(&go)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let receiver = Receiver::from(recv);
    let mut send = wsdirect(["send"]);
    send.arg(&from).arg(&receiver.address);
    let sender = Running::start(send);
    let end = Instant::now() + PATIENCE;
    while position(sender.child.id(), &from) == 0 {
        assert!(Instant::now() < end, "nothing is read");
        std::thread::sleep(Duration::from_millis(5));
    }
    file.set_len(1000).unwrap();
    fs::write(&go, "").unwrap();
    let stderr = expect_code(&sender.finish(), 1);
    let words = "from has become shorter while it was sent";
    assert!(stderr.contains(words), "{stderr}");
    let stderr = expect_code(&receiver.process.finish(), 0);
    assert!(
        stderr.contains(&format!("the sender gave up: {words}")),
        "{stderr}"
    );
}

/// Copies, and changes a bit of the byte at this position.
fn copy_damaged(mut from: TcpStream, mut to: TcpStream, position: Option<usize>) {
    let (mut room, mut done) = ([0; 4096], 0);
    // Whoever has gone is reported by the ends themselves.
    while let Ok(count @ 1..) = from.read(&mut room) {
        if let Some(at) = position.and_then(|position| position.checked_sub(done))
            && at < count
        {
            room[at] ^= 1;
        }
        done += count;
        if to.write_all(&room[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

/// A transfer over TCP on whose way there or back a byte is damaged: what both ends say, and what
/// is left of it.
fn damaged(there: Option<usize>, back: Option<usize>) -> (Output, Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, pattern(100_000)).unwrap();
    let receiver = Receiver::start(&to, &[]);
    let gate = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut send = wsdirect(["send", "--mode", "tcp"]);
    send.arg(&from).arg(gate.local_addr().unwrap().to_string());
    let sender = Running::start(send);
    let near = gate.accept().unwrap().0;
    let far = TcpStream::connect(&receiver.address).unwrap();
    let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let copies = [
        std::thread::spawn(move || copy_damaged(ends.0, ends.1, there)),
        std::thread::spawn(move || copy_damaged(far, near, back)),
    ];
    let said = (sender.finish(), receiver.process.finish());
    for copy in copies {
        copy.join().unwrap();
    }
    (said.0, said.1, names(folder.path()))
}

#[test]
fn bytes_that_are_damaged_on_the_way_are_not_stored() {
    // Behind the greeting with its name, and the header of the first data.
    let (sent, received, left) = damaged(Some(24 + 4 + 8 + 1000), None);
    let words = "the bytes that arrived are not those that were sent";
    let stderr = expect_code(&received, 1);
    assert!(stderr.contains(words), "{stderr}");
    let stderr = expect_code(&sent, 1);
    assert!(stderr.contains(words), "{stderr}");
    assert_eq!(left, ["from"]);
}

#[test]
fn a_sum_that_is_not_the_senders_fails_the_sender() {
    // In the sum of the second verdict; the first one says: go.
    let (sent, received, left) = damaged(None, Some(32 + 8 + 8 + 3));
    let stderr = expect_code(&sent, 1);
    assert!(
        stderr.contains("the receiver got other bytes than were sent"),
        "{stderr}"
    );
    expect_code(&received, 0);
    assert_eq!(left.len(), 2, "{left:?}");
    // Without any damage both agree.
    let (sent, received, left) = damaged(None, None);
    expect_code(&sent, 0);
    expect_code(&received, 0);
    assert_eq!(left.len(), 2, "{left:?}");
}
