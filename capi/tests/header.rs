//! The committed header is the generated one, and has every function with its documentation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::Path;

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/wsd_switch.h"));

/// The functions of the library, which are also its symbols.
const FUNCTIONS: &[&str] = &[
    "wsd_accept",
    "wsd_accept4",
    "wsd_bind",
    "wsd_close",
    "wsd_connect",
    "wsd_fd",
    "wsd_get_nonblocking",
    "wsd_getpeername",
    "wsd_getsockname",
    "wsd_getsockopt",
    "wsd_listen",
    "wsd_poll",
    "wsd_read",
    "wsd_readv",
    "wsd_recv",
    "wsd_recvmsg",
    "wsd_send",
    "wsd_sendmsg",
    "wsd_set_nonblocking",
    "wsd_setsockopt",
    "wsd_shutdown",
    "wsd_sockatmark",
    "wsd_socket",
    "wsd_stats",
    "wsd_transport",
    "wsd_version",
    "wsd_write",
    "wsd_writev",
];

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/wsd_switch.h");
    if std::env::var_os("WSD_BLESS").is_some() {
        fs::write(&path, GENERATED).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == GENERATED,
        "include/wsd_switch.h is not what capi/src says; \
         WSD_BLESS=1 cargo test -p wsd-capi --test header rewrites it"
    );
}

#[test]
fn the_header_declares_exactly_the_functions_of_the_library() {
    let mut found: Vec<&str> = GENERATED
        .lines()
        .filter(|line| !line.starts_with([' ', '*', '/', '#', '}']) && line.contains('('))
        .map(|line| line.split_once('(').unwrap().0)
        .map(|head| head.rsplit([' ', '*']).next().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, FUNCTIONS);
}

#[test]
fn every_function_is_described_and_the_rules_stand_at_the_top() {
    let mut before = "";
    for line in GENERATED.lines() {
        if line.contains(" wsd_") && line.contains('(') && !line.starts_with(' ') {
            assert_eq!(before, " */", "{line}");
        }
        before = line;
    }
    for part in ["Sockets.", "Results.", "Signals.", "Threads.", "fork."] {
        assert!(
            GENERATED.contains(part),
            "the header has lost its part {part:?}"
        );
    }
}
