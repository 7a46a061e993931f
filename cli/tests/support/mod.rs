//! Starts the command as a person would, and waits for it no longer than is sane.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than anything here takes, also on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn wsdirect<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsdirect"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process whose output is collected while it runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.spawn().expect("the command starts");
        let mut out = child.stdout.take().expect("stdout is a pipe");
        let err = child.stderr.take().expect("stderr is a pipe");
        let (tell, lines) = mpsc::channel();
        let stdout = std::thread::spawn(move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).expect("stdout can be read");
            all
        });
        let stderr = std::thread::spawn(move || {
            let (mut all, mut reader) = (Vec::new(), BufReader::new(err));
            loop {
                let mut line = Vec::new();
                if reader
                    .read_until(b'\n', &mut line)
                    .expect("stderr can be read")
                    == 0
                {
                    return all;
                }
                tell.send(String::from_utf8_lossy(&line).trim_end().to_owned())
                    .ok();
                all.extend(line);
            }
        });
        Running {
            child,
            stdout,
            stderr,
            lines,
        }
    }

    /// The rest of the first line on stderr that contains `words`, behind them.
    pub(crate) fn after(&self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("nothing on stderr says {words:?}"));
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the process can be waited for")
            .is_none()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Output {
        drop(self.child.stdin.take());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self
                .child
                .try_wait()
                .expect("the process can be waited for")
            {
                Some(status) => break status,
                None if Instant::now() > end => {
                    self.child.kill().ok();
                    self.child.wait().ok();
                    let stderr = self.stderr.join().unwrap_or_default();
                    panic!(
                        "it does not end; it said: {}",
                        String::from_utf8_lossy(&stderr)
                    );
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let stdout = self.stdout.join().expect("stdout was read");
        let stderr = self.stderr.join().expect("stderr was read");
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

/// The local address that transfers use: `WSD_TEST_ADDRESS`, or the loopback. RDMA devices do not
/// serve the loopback.
pub(crate) fn address() -> String {
    std::env::var("WSD_TEST_ADDRESS").unwrap_or_else(|_| "127.0.0.1".to_owned())
}

/// Any free port there.
pub(crate) fn anywhere() -> String {
    format!("{}:0", address())
}

/// A started `wsdirect recv`, and where it listens.
pub(crate) struct Receiver {
    pub(crate) process: Running,
    pub(crate) address: String,
}

impl Receiver {
    pub(crate) fn start(output: &Path, more: &[&str]) -> Receiver {
        let mut command = wsdirect(["recv", &anywhere(), "-o"]);
        command.arg(output).args(more);
        Receiver::from(command)
    }

    pub(crate) fn from(command: Command) -> Receiver {
        let process = Running::start(command);
        let address = process.after("listening on ");
        Receiver { process, address }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The process ended with this code; its stderr, which the message shows if not.
pub(crate) fn expect_code(output: &Output, code: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    stderr
}

/// Bytes that no shorter or shifted copy equals.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes in the temporary file of a receiver whose output is in this folder.
pub(crate) fn arrived(folder: &Path) -> u64 {
    let part = |name: &String| name.ends_with(".part");
    let name = names(folder).into_iter().find(part);
    name.and_then(|name| std::fs::metadata(folder.join(name)).ok())
        .map_or(0, |about| about.len())
}

/// The connections of these processes, as `wsdirect ss` shows them.
pub(crate) fn connections(pids: &[u32]) -> Vec<serde_json::Value> {
    let mut command = wsdirect(["ss", "--json"]);
    command.args(pids.iter().map(u32::to_string));
    let output = Running::start(command).finish();
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("ss prints a report");
    assert_eq!(report["version"], 1);
    report["connections"].as_array().expect("a list").clone()
}

/// The names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
