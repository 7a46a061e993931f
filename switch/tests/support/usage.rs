//! What this process has of descriptors, threads and memory.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Raises the limit of descriptors as far as it goes, which must be enough.
pub(crate) fn raise_limit(wanted: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes one structure.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert!(
        limit.rlim_max >= wanted,
        "this test needs {wanted} descriptors, and the hard limit is {}: raise `ulimit -Hn`",
        limit.rlim_max
    );
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: reads one structure.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Bytes of memory in use.
pub(crate) fn resident() -> usize {
    // SAFETY: takes no pointer; the allocator gives back what is free.
    unsafe { libc::malloc_trim(0) };
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Mappings that are shared with other processes.
pub(crate) fn shared_mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|how| how.ends_with('s'));
    maps.lines().filter(is_shared).count()
}

pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
