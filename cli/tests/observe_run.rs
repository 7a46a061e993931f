//! `wsdirect ss` and `wsdirect trace` beside a program that does not know the switch: socat.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{PATIENCE, Running, connections, expect_code, text, wsdirect};

/// The preload library, which cargo builds as a dependency of these tests.
fn library() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_wsdirect")).parent().unwrap();
    beside.join("deps/libwsd_preload.so")
}

fn under_run(arguments: &[&str], eager: bool) -> Command {
    let mut command = wsdirect(["run"]);
    if eager {
        command.arg("--eager");
    }
    command
        .args(["--", "socat"])
        .args(arguments)
        .env("WSD_PRELOAD_LIBRARY", library());
    for variable in [
        "LD_PRELOAD",
        "WSD_RULES",
        "WSD_RULE",
        "WSD_EAGER",
        "WSD_LOG",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A server that sends back what it gets, and a client to whom a line is given.
struct Echo {
    server: Running,
    client: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Echo {
    fn start(client: impl FnOnce(&str) -> Command) -> Echo {
        let listen = ["-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1", "PIPE"];
        let server = Running::start(under_run(&listen, true));
        let port = server.after("listening on AF=2 127.0.0.1:");
        let mut client = client(&format!("TCP:127.0.0.1:{port}"));
        client.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        let to = client.stdin.take().unwrap();
        let from = BufReader::new(client.stdout.take().unwrap());
        Echo {
            server,
            client,
            to,
            from,
        }
    }

    fn say(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut back = String::new();
        self.from.read_line(&mut back).unwrap();
        assert_eq!(back.trim_end(), line);
    }

    /// Talks until both ends, as they are shown, are as they should be.
    fn until(&mut self, is: impl Fn(&[Value; 2]) -> bool) -> [Value; 2] {
        let end = Instant::now() + PATIENCE;
        loop {
            self.say("a line of some words, and of some more");
            let pids = [self.client.id(), self.server.child.id()];
            let seen = pids.map(|pid| connections(&[pid]).pop().unwrap_or_default());
            if is(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "{seen:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn finish(mut self) {
        drop(self.to);
        assert!(self.client.wait().unwrap().success());
        expect_code(&self.server.finish(), 0);
    }
}

/// The table for people.
fn report(pid: u32) -> String {
    let mut command = wsdirect(["ss"]);
    command.arg(pid.to_string());
    let output = Running::start(command).finish();
    expect_code(&output, 0);
    text(&output.stdout)
}

#[test]
fn a_program_that_does_not_know_the_switch_is_seen_at_both_ends_and_traced() {
    let mut echo = Echo::start(|address| under_run(&["-", address], true));
    let [client, server] = echo.until(|ends| {
        let carried = |end: &Value| end["path"] == "san" && end["bytes"]["san"]["sent"] != 0;
        ends.iter().all(carried)
    });
    assert_eq!(client["local"], server["peer"]);
    assert_eq!(client["session"], server["session"]);
    assert_eq!(
        (&client["role"], &server["role"]),
        (&"connected".into(), &"accepted".into())
    );
    for end in [&client, &server] {
        assert_eq!(
            (&end["program"], &end["upgrade"]),
            (&"socat".into(), &"upgraded".into())
        );
        assert!(
            end["fd"].as_i64() >= Some(0) && end["reason"].is_null(),
            "{end}"
        );
    }

    let table = report(echo.client.id());
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (headings, row) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!(lines.next(), None, "{table}");
    // Some fields in between are of several words.
    let ends = |line: &[&str]| (line[0].to_owned(), line[line.len() - 2..].join(" "));
    assert_eq!(ends(&headings), ("PROCESS".into(), "UPGRADE REASON".into()));
    assert_eq!(ends(&row), ("socat".into(), "upgraded -".into()), "{table}");

    let mut trace = wsdirect(["trace", "--count", "4"]);
    trace.arg(echo.server.child.id().to_string());
    let trace = Running::start(trace);
    trace.after("watching ");
    for _ in 0..4 {
        echo.say("traced");
    }
    let output = trace.finish();
    expect_code(&output, 0);
    let shown = text(&output.stdout);
    assert!(
        shown.contains("< Data offset=") && shown.contains("> Data offset="),
        "{shown}"
    );
    assert!(
        !shown.contains("traced"),
        "no byte of the program's: {shown}"
    );
    echo.finish();
}

#[test]
fn a_program_whose_peer_does_not_know_the_switch_stays_with_tcp_and_says_why() {
    let mut echo = Echo::start(|address| {
        let mut client = Command::new("socat");
        client.args(["-", address]).stdout(Stdio::piped());
        client
    });
    let pid = echo.server.child.id();
    let [client, server] = echo.until(|[_, server]| server["bytes"]["kernel"]["received"] != 0);
    assert!(client.is_null(), "{client}");
    assert_eq!(
        (&server["path"], &server["bytes"]["san"]["received"]),
        (&"kernel".into(), &0.into())
    );
    assert!(report(pid).contains("socat"));
    echo.finish();
}
