//! Small C programs behave with the library as they do without it.
//!
//! req: LATER-06
//!
//! Each program of `programs/` says what it observes. It is run as it is, then with the library and
//! the SAN off, then with the SAN and connections upgraded at once; what it says and how it ends must
//! be the same. Where the SAN is on, the library's own count must show that it was used.
//!
//! A program that includes `ends.h` has two ends, each a process; the others are run as they are.
//! Words after `proof:` in a program's first lines: `bulk` (nine tenths of the bytes must cross by
//! the SAN), `none` (there is no connection to be upgraded, or it must not be), `mixed` (also with
//! the library at one end only), `ends` (two ends by a `main` of its own).
//!
//! One program at a time: what they observe is also *when* something happens.
//!
//! `scripts/verbs-tests` runs a part of them over RDMA devices (`WSD_FABRIC=verbs`), at an address that
//! these serve (`WSD_TEST_ADDRESS`); only with the SAN at both ends, for nothing else is different there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod library;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one run may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same in an emulated machine.
const MORE_PATIENCE: Duration = Duration::from_secs(300);

/// Whether connections are upgraded at all.
const UPGRADES: bool = true;

/// With what an end is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum With {
    Nothing,
    SanOff,
    Eager,
}

struct Program {
    name: &'static str,
    file: PathBuf,
    proof: Vec<String>,
    two_ends: bool,
}

fn compiled(name: &'static str) -> Program {
    let source = programs_folder().join(name).with_extension("c");
    let text = fs::read_to_string(&source).unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("program-{name}"));
    if std::env::var_os("WSD_TEST_COMPILED").is_none() {
        compile(&source, &file);
    }
    let proof = text
        .split("proof:")
        .nth(1)
        .and_then(|rest| rest.split('.').next())
        .unwrap_or_default();
    Program {
        name,
        file,
        proof: proof.split([',', ' ']).map(str::to_owned).collect(),
        two_ends: text.contains("#include \"ends.h\"")
            && (!text.contains("#define OWN_MAIN") || proof.contains("ends")),
    }
}

fn programs_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

fn compile(source: &Path, file: &Path) {
    let out = Command::new("cc")
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-unused-function",
            "-pthread",
        ])
        .arg("-o")
        .arg(file)
        .arg(source)
        .output()
        .expect("cc");
    let said = String::from_utf8_lossy(&out.stderr);
    let is_good = out.status.success() && said.is_empty();
    assert!(is_good, "{}: {said}", source.display());
}

fn over_verbs() -> bool {
    std::env::var("WSD_FABRIC").is_ok_and(|fabric| fabric == "verbs")
}

/// For how many milliseconds the programs play before they observe, at least and at most: time for an
/// upgrade. That of a device may take seconds in an emulated machine.
fn warm(with: With) -> [(&'static str, &'static str); 2] {
    match (with, over_verbs()) {
        (With::Eager, true) => [("WARM", "0"), ("WARM_MOST", "30000")],
        (With::Eager, false) => [("WARM", "700"), ("WARM_MOST", "0")],
        (With::Nothing | With::SanOff, _) => [("WARM", "0"), ("WARM_MOST", "0")],
    }
}

/// A process whose output is collected meanwhile.
struct Running {
    child: Child,
    output: JoinHandle<String>,
    log: PathBuf,
}

impl Program {
    fn says(&self, word: &str) -> bool {
        self.proof.iter().any(|w| w == word)
    }

    /// Starts the program; with two ends, its first line is the port, which is given back.
    fn start(&self, arguments: &[&str], with: With, run: &str) -> (Running, String) {
        let end = arguments.first().copied().unwrap_or("whole");
        let log = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("program-{}-{run}-{end}.log", self.name));
        drop(fs::remove_file(&log));
        let mut command = Command::new(&self.file);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .env_remove("LD_PRELOAD")
            .envs(warm(with));
        if with != With::Nothing {
            command
                .env("LD_PRELOAD", library::path())
                .env("WSD_LOG", &log)
                .env(
                    if with == With::Eager {
                        "WSD_EAGER"
                    } else {
                        "WSD_SWITCH"
                    },
                    if with == With::Eager { "1" } else { "off" },
                );
        }
        let mut child = command.spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        if end == "server" {
            reader.read_line(&mut first).unwrap();
        }
        let output = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            String::from_utf8_lossy(&all).into_owned()
        });
        let port = first.trim().trim_start_matches("port ").to_owned();
        (Running { child, output, log }, port)
    }

    /// What the program says, and what the library counted in each of its processes.
    fn run(&self, server: With, client: With) -> (String, Vec<Counts>) {
        let run = format!("{server:?}-{client:?}");
        let patience = if over_verbs() {
            MORE_PATIENCE
        } else {
            PATIENCE
        };
        let deadline = Instant::now() + patience;
        if !self.two_ends {
            let (whole, _) = self.start(&[], server, &run);
            let (said, counts) = whole.finish(deadline);
            return (said, vec![counts]);
        }
        let (server, port) = self.start(&["server"], server, &run);
        let (client, _) = self.start(&["client", &port], client, &run);
        let (client_said, client_counts) = client.finish(deadline);
        let (server_said, server_counts) = server.finish(deadline);
        (
            format!("client:\n{client_said}server:\n{server_said}"),
            vec![server_counts, client_counts],
        )
    }
}

impl Running {
    fn finish(mut self, deadline: Instant) -> (String, Counts) {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.to_string();
            }
            if Instant::now() > deadline {
                // With its children, who hold its output, too.
                let group = format!("-{}", self.child.id());
                let killed = Command::new("kill").args(["-9", "--", &group]).status();
                assert!(killed.unwrap().success());
                self.child.wait().unwrap();
                break "it did not end".to_owned();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = self.output.join().unwrap();
        (format!("{said}{status}\n"), Counts::read(&self.log))
    }
}

/// Sums over the connections of one process.
#[derive(Default, Debug)]
struct Counts {
    sums: HashMap<String, u64>,
}

impl Counts {
    fn read(log: &Path) -> Counts {
        let mut counts = Counts::default();
        for line in fs::read_to_string(log).unwrap_or_default().lines() {
            assert!(!line.starts_with("panic"), "{line}");
            for word in line.split_whitespace() {
                if let Some((key, value)) = word.split_once('=')
                    && let Ok(value) = value.parse::<u64>()
                {
                    *counts.sums.entry(key.to_owned()).or_default() += value;
                }
            }
        }
        counts
    }

    fn of(&self, key: &str) -> u64 {
        self.sums.get(key).copied().unwrap_or(0)
    }
}

/// Few programs run at a time: they mostly wait, but not for long.
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Turn {
        let most = if over_verbs() { 1 } else { 2 };
        let running = RUNNING.lock().unwrap();
        *ENDED
            .wait_while(running, |running| *running >= most)
            .unwrap() += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        ENDED.notify_one();
    }
}

fn is_the_same_with_the_library(name: &'static str) {
    let program = compiled(name);
    let _turn = Turn::take();
    let (plain, _) = program.run(With::Nothing, With::Nothing);
    let good = plain.lines().filter(|l| *l == "exit status: 0").count();
    assert_eq!(
        good,
        1 + usize::from(program.two_ends),
        "{name} alone: {plain}"
    );
    let mut ways = vec![(With::Eager, With::Eager)];
    if !over_verbs() {
        ways.insert(0, (With::SanOff, With::SanOff));
    }
    if program.says("mixed") && !over_verbs() {
        ways.push((With::Eager, With::Nothing));
        ways.push((With::Nothing, With::Eager));
    }
    for (server, client) in ways {
        let (said, counts) = program.run(server, client);
        assert_eq!(
            said, plain,
            "{name}, {server:?} to {client:?}, differs from how it is alone; {counts:?}"
        );
        if UPGRADES && (server, client) == (With::Eager, With::Eager) && !program.says("none") {
            proves_use(&program, &counts);
        }
    }
}

/// The SAN carried it, by the library's own count.
fn proves_use(program: &Program, counts: &[Counts]) {
    for process in counts {
        assert!(
            process.of("upgrades") > 0,
            "{}: no connection was upgraded: {process:?}",
            program.name
        );
        let san = process.of("san_in") + process.of("san_out");
        let all = san + process.of("tcp_in") + process.of("tcp_out");
        assert!(
            !program.says("bulk") || san * 10 >= all * 9,
            "{}: less than nine tenths crossed by the SAN: {process:?}",
            program.name
        );
    }
}

macro_rules! programs {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
        #[test]
        fn $name() {
            is_the_same_with_the_library(stringify!($name));
        }
        )*
    };
}

// Each is a file of `programs/`, and its first comment says what it shows.
programs! {
    brokenpipe
    bulk
    bynumber
    cancelled
    cancelwaits
    cloned
    clothed
    commands
    connecting
    crossing
    daemonic
    dupearly
    duplicates
    elsewhere
    epoll_modes
    epoll_turns
    faults
    files
    firstcalls
    flags
    forkers
    forking
    forkinglate
    fortified
    genuine
    halfclosed
    info
    inherited
    interrupted
    jump
    jumpsends
    jumpwaits
    killed
    leaving
    linger
    lingering
    mapped
    nonblocking
    numbers
    ownthreads
    passed
    prefork
    replaced
    reuseport
    ringed
    rings
    setforked
    sixth
    spawned
    standard
    streams
    threads
    threadsend
    timeouts
    unread
    upgrades
    urgent
    userthreads
    vectors
    waiting
}

/// For runs with `WSD_TEST_COMPILED`, where there is no compiler, or a slow one.
#[test]
#[ignore = "the others do it themselves"]
fn all_are_compiled() {
    for name in NAMES {
        compiled(name);
    }
}

#[test]
fn every_program_is_run() {
    let folder = programs_folder();
    let this = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour.rs"));
    let this = this.unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "c") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                this.lines().any(|l| l.trim() == name),
                "{name}.c is on no list"
            );
        }
    }
}
