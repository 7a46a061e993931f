//! The progress bar: drawn on a terminal, and nothing of it where standard error is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::{PATIENCE, Receiver, Running, expect_code, pattern, text, wsdirect};

/// A terminal, and everything that is written to it.
struct Terminal {
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// A new one of 24 lines and 80 columns, as the standard error of a command.
    fn of(command: &mut Command) -> Terminal {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        assert!(fd >= 0, "no terminal: {}", io::Error::last_os_error());
        // SAFETY: the new descriptor has no other owner.
        let near = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: takes no pointer; the descriptor is open.
        assert_eq!(unsafe { libc::grantpt(fd) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::unlockpt(fd) }, 0);
        let mut name = [0; 64];
        // SAFETY: the descriptor is open, and `name` as long as stated.
        let code = unsafe { libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) };
        assert_eq!(code, 0, "the terminal has no name");
        // SAFETY: ptsname_r has written a string that ends in zero.
        let path = unsafe { CStr::from_ptr(name.as_ptr()) };
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the request takes a live winsize.
        let code = unsafe { libc::ioctl(near.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(code, 0, "the terminal has no size");
        let far = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path.to_str().unwrap())
            .unwrap();
        command.stderr(far).env("TERM", "xterm");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            let (mut near, mut room) = (File::from(near), [0; 4096]);
            // An error (EIO) once nobody has the far end open.
            while let Ok(n @ 1..) = near.read(&mut room) {
                keep.lock().unwrap().extend(&room[..n]);
            }
        });
        Terminal { shown, reader }
    }

    fn text(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    fn wait_for(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.text().contains(words) {
            assert!(Instant::now() < end, "no {words:?}: {:?}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything, once the process has ended. Nobody else may have the far end open by then.
    fn all(self) -> String {
        self.reader.join().unwrap();
        let shown = self.shown.lock().unwrap();
        text(&shown)
    }
}

/// Whether one of the controls is there that bars are drawn with and plain lines are not.
fn is_drawn(text: &str) -> bool {
    text.contains('\x1b') || text.replace("\r\n", "\n").contains('\r')
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<()> {
    thread::spawn(move || {
        // Whoever has gone is reported by the ends themselves.
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    })
}

#[test]
fn a_sender_draws_a_bar_on_a_terminal_and_takes_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let bytes = pattern(3 << 20);
    fs::write(&from, &bytes).unwrap();
    let receiver = Receiver::start(&to, &[]);
    // Between both ends: keeps the sender waiting until its bar was seen.
    let gate = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut send = wsdirect(["send", "--mode", "tcp"]);
    send.arg(&from).arg(gate.local_addr().unwrap().to_string());
    let terminal = Terminal::of(&mut send);
    let sender = send.stdout(Stdio::piped()).spawn().unwrap();
    // The command holds the terminal's far end open.
    drop(send);
    terminal.wait_for("0%  0 B/3.00 MiB");
    let near = gate.accept().unwrap().0;
    let far = TcpStream::connect(&receiver.address).unwrap();
    let there = copy(near.try_clone().unwrap(), far.try_clone().unwrap());
    let back = copy(far, near);
    let sent = sender.wait_with_output().unwrap();
    assert!(sent.status.success(), "{}", terminal.all());
    expect_code(&receiver.process.finish(), 0);
    there.join().unwrap();
    back.join().unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
    let all = terminal.all();
    assert!(is_drawn(&all), "{all:?}");
    // Erased, and nothing drawn behind that.
    assert!(
        all.trim_end().ends_with("\x1b[2K") || all.ends_with("\x1b[K"),
        "{all:?}"
    );
    let report = text(&sent.stdout);
    assert!(report.contains("sent") && !is_drawn(&report), "{report:?}");
}

/// What a receiver on a terminal says first.
fn address_on(terminal: &Terminal) -> String {
    terminal.wait_for("\n");
    let text = terminal.text();
    let line = text.lines().next().unwrap();
    line.split_once("listening on ").unwrap().1.to_owned()
}

#[test]
fn a_receiver_draws_what_has_come_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    let mut recv = wsdirect(["recv", &support::anywhere(), "-o"]);
    recv.arg(&to);
    let terminal = Terminal::of(&mut recv);
    let receiver = recv.spawn().unwrap();
    drop(recv);
    let mut send = wsdirect(["send", "-", &address_on(&terminal)]);
    send.stdin(Stdio::piped());
    let mut sender = Running::start(send);
    // There is more to come for as long as the pipe is open.
    let mut input = sender.child.stdin.take().unwrap();
    let bytes = pattern(1 << 20);
    input.write_all(&bytes).unwrap();
    terminal.wait_for("1.00 MiB");
    drop(input);
    expect_code(&sender.finish(), 0);
    let received = receiver.wait_with_output().unwrap();
    let all = terminal.all();
    assert!(received.status.success(), "{all}");
    assert!(is_drawn(&all), "{all:?}");
    assert!(fs::read(&to).unwrap() == bytes);
}

#[test]
fn in_a_pipe_there_is_no_trace_of_a_bar() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    let receiver = Receiver::start(&to, &[]);
    let mut send = wsdirect(["send", "-", &receiver.address]);
    send.stdin(Stdio::piped());
    let mut sender = Running::start(send);
    let mut input = sender.child.stdin.take().unwrap();
    let bytes = pattern(1 << 20);
    input.write_all(&bytes).unwrap();
    // Several times as long as a bar on a terminal takes to be drawn.
    thread::sleep(Duration::from_secs(1));
    drop(input);
    let (sent, received) = (sender.finish(), receiver.process.finish());
    assert_eq!(expect_code(&sent, 0), "");
    let said = expect_code(&received, 0);
    assert_eq!(said.lines().count(), 1, "{said:?}");
    for output in [&sent.stdout, &received.stdout, &received.stderr] {
        assert!(!is_drawn(&text(output)), "{}", text(output));
    }
}
