//! Why a connection stays with the kernel, or went back to it, as the log tells its user.
//!
//! Each program makes its connections itself, both ends in one process, and is run with connections
//! upgraded at once. Where the reason is what somebody else does, it is done here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod library;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of `pair.h` with this in its main(), which may use what it includes.
fn compiled(name: &str, functions: &str, body: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (code, made) = (
        folder.join(format!("reason-{name}.c")),
        folder.join(format!("reason-{name}")),
    );
    let source = format!(
        "#define _GNU_SOURCE\n#include \"{}/tests/programs/pair.h\"\n#include <pthread.h>\n\
         {functions}\nint main(void) {{ {body} return 0; }}\n",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::write(&code, source).unwrap();
    let out = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function"])
        .args(["-pthread", "-o"])
        .arg(&made)
        .arg(&code)
        .output()
        .expect("cc");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    made
}

/// One end of a connection, by its line in the log.
#[derive(Debug)]
struct End {
    role: String,
    reason: String,
    upgrades: u64,
}

fn ends(log: &Path) -> Vec<End> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("end "));
    lines
        .map(|line| {
            let field = |name: &str| {
                let words = line.split_whitespace();
                let mut fields = words.filter_map(|word| word.split_once('='));
                let found = fields.find(|(key, _)| *key == name);
                found
                    .unwrap_or_else(|| panic!("{name} in {line}"))
                    .1
                    .to_owned()
            };
            End {
                role: field("role"),
                reason: field("reason"),
                upgrades: field("upgrades").parse().unwrap(),
            }
        })
        .collect()
}

fn log_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reason-{name}.log"))
}

/// Runs the program with these settings more, by this command if there is one.
fn run(name: &str, program: &Path, by: &[&str], settings: &[(&str, &str)]) -> Vec<End> {
    let log = log_of(name);
    drop(fs::remove_file(&log));
    let mut command = match by.split_first() {
        Some((first, more)) => {
            let mut command = Command::new(first);
            command.args(more).arg(program);
            command
        }
        None => Command::new(program),
    };
    let out = command
        .stdin(Stdio::null())
        .env("LD_PRELOAD", library::path())
        .env("WSD_LOG", &log)
        .env("WSD_EAGER", "1")
        .env_remove("WSD_RULES")
        .env_remove("WSD_RULE")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert!(out.status.success(), "{name}: {out:?}");
    ends(&log)
}

/// The reasons of the ends, those of the client first.
fn reasons(name: &str, program: &Path, by: &[&str], settings: &[(&str, &str)]) -> Vec<String> {
    let mut all = run(name, program, by, settings);
    assert_eq!(all.len(), 2, "{name}: {all:?}");
    all.sort_by(|one, other| one.role.cmp(&other.role));
    all.into_iter().map(|end| end.reason).collect()
}

#[test]
fn a_rule_says_tcp() {
    let body = "end_pair(warm_pair());";
    let program = compiled("rule", "", body);
    let rule = ("WSD_RULE", "use tcp to 127.0.0.1");
    assert_eq!(reasons("rule", &program, &[], &[rule]), ["rule", "rule"]);
}

#[test]
fn a_stream_of_stdio_is_made_of_the_connection() {
    let body = r#"
        struct pair p = warm_pair();
        FILE *stream = fdopen(p.client, "w");
        CHECK(stream && fputs("by stdio", stream) >= 0 && fflush(stream) == 0);
        take(p.server, 8);
        CHECK(fclose(stream) == 0);
        close(p.server);"#;
    let program = compiled("stdio", "", body);
    let ends = reasons("stdio", &program, &[], &[]);
    assert_eq!(ends, ["stdio", "peer-asked"]);
}

/// The kernel would not wake a receiver for the marker.
#[test]
fn a_receiver_wants_several_bytes_at_once() {
    let body = r#"
        struct pair p = make_pair();
        int two = 2;
        CHECK(setsockopt(p.client, SOL_SOCKET, SO_RCVLOWAT, &two, sizeof two) == 0);
        warm(p);
        end_pair(p);"#;
    let program = compiled("lowat", "", body);
    let ends = reasons("lowat", &program, &[], &[]);
    assert_eq!(ends.first().unwrap(), "unsupported-call", "{ends:?}");
}

/// Nobody knows which of their bytes came first.
#[test]
fn two_threads_of_the_client_receive_at_once() {
    let functions = r#"
        static void *receives(void *argument)
        {
            char byte;
            while (recv(*(int *)argument, &byte, 1, 0) == 1)
                ;
            return NULL;
        }"#;
    let body = r#"
        struct pair p = make_pair();
        pthread_t threads[2];
        for (int i = 0; i < 2; i++)
            CHECK(pthread_create(&threads[i], NULL, receives, &p.client) == 0);
        sleep_ms(100);
        /* Both wait nearly all the time. */
        for (int i = 0; i < 100; i++) {
            put(p.server, "s");
            put(p.client, "c");
            take(p.server, 1);
            sleep_ms(10);
        }
        shutdown(p.server, SHUT_WR);
        for (int i = 0; i < 2; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        end_pair(p);"#;
    let program = compiled("concurrent", functions, body);
    let ends = reasons("concurrent", &program, &[], &[]);
    // The other end learns only that its offer was not taken.
    assert_eq!(ends, ["concurrent", "tuple-mismatch"]);
}

/// Address translation between the ends: the client has connected to another port than the one at
/// which the server has accepted. Both see each other's beacons, but do not take each other for peers.
#[test]
fn address_translation_is_between_the_ends() {
    let body = r#"
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)},
                                 .sin_port = htons(7001)};
        int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 4) == 0);
        struct pair p = {.client = socket(AF_INET, SOCK_STREAM, 0)};
        at.sin_port = htons(7000);
        CHECK(connect(p.client, (struct sockaddr *)&at, sizeof at) == 0);
        p.server = accept(listener, NULL, NULL);
        CHECK(p.server >= 0);
        setsockopt(p.client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        warm(p);
        put(p.client, "is heard");
        take(p.server, 8);
        end_pair(p);"#;
    let program = compiled("translated", "", body);
    // A network of its own, with a rule that no other test meets.
    let own = [
        "unshare",
        "--net",
        "--map-root-user",
        "sh",
        "-c",
        "PATH=$PATH:/usr/sbin; ip link set lo up && nft -f - <<'.' && exec \"$0\"\n\
         table ip wsd {\n chain out {\n type nat hook output priority -100;\n \
         ip daddr 127.0.0.1 tcp dport 7000 redirect to :7001\n }\n}\n.\n",
    ];
    let mut trial = Command::new("unshare");
    trial.args(["--net", "--map-root-user", "sh", "-c"]);
    trial.arg("PATH=$PATH:/usr/sbin; ip link set lo up && nft add table ip wsd");
    if !trial
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        println!("skipped: no network namespaces, or no nft, are to be had here");
        return;
    }
    let ends = reasons("translated", &program, &own, &[]);
    assert_eq!(ends.last().unwrap(), "tuple-mismatch", "{ends:?}");
    let upgrades: u64 = run("translated", &program, &own, &[])
        .iter()
        .map(|end| end.upgrades)
        .sum();
    assert_eq!(upgrades, 0);
}
