//! The library exports the interposed names, all of them, and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod library;

use std::collections::BTreeSet;
use std::process::Command;

fn nm(arguments: &[&str]) -> BTreeSet<String> {
    let out = Command::new("nm")
        .args(["-D", "--format=posix"])
        .args(arguments)
        .arg(library::path())
        .output()
        .expect("nm (package binutils)");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_library_exports_exactly_the_interposed_names() {
    let listed: Vec<_> = include_str!("../exports.txt").lines().collect();
    assert!(listed.is_sorted(), "exports.txt is sorted");
    let wanted: BTreeSet<_> = listed.into_iter().map(str::to_owned).collect();
    let found = nm(&["--defined-only"]);
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "missing: {missing:?}, surplus: {surplus:?}"
    );
}

/// What our own code calls on descriptors of its own making is ours, too: only so do they sit high.
#[test]
fn what_makes_descriptors_for_us_is_bound_inside() {
    let imported = nm(&["--undefined-only"]);
    for name in [
        "eventfd",
        "memfd_create",
        "timerfd_create",
        "socketpair",
        "pthread_create",
    ] {
        assert!(
            !imported.iter().any(|i| i.split('@').next() == Some(name)),
            "{name} is libc's"
        );
    }
}
