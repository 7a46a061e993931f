//! Many connections at once, what they cost while nothing happens, and what is left afterwards.
//! One test, because it counts what belongs to the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use support::usage::{open_descriptors, raise_limit, resident, threads, until};
use support::{Numbers, here, is_ready};
use wsd_switch::{SanListener, SanStream};

const CONNECTIONS: usize = 1_000;
/// Both ends of each are in this process.
const DESCRIPTORS: u64 = 12_000;

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    // SAFETY: all zeroes is a valid value of this structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one structure.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |value: libc::timeval| {
        Duration::from_micros(u64::try_from(value.tv_sec * 1_000_000 + value.tv_usec).unwrap())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[test]
fn a_thousand_connections_work_cost_nothing_while_idle_and_leave_nothing() {
    raise_limit(DESCRIPTORS);
    let listener = SanListener::bind((here(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    // The first connection brings what stays for the life of the process.
    let first = SanStream::connect(at).unwrap();
    let mut other = listener.accept().unwrap().0;
    // So does the first sleep of a thread.
    let time = Some(Duration::from_millis(50));
    other.set_read_timeout(time).unwrap();
    other.read(&mut [0; 1]).unwrap_err();
    drop((first, other));
    thread::sleep(Duration::from_millis(300));
    let before = (open_descriptors(), threads(), resident());

    let connecting = thread::spawn(move || {
        (0..CONNECTIONS)
            .map(|_| SanStream::connect(at).unwrap())
            .collect::<Vec<_>>()
    });
    let mut accepted: Vec<_> = (0..CONNECTIONS)
        .map(|_| listener.accept().unwrap().0)
        .collect();
    let mut connected = connecting.join().unwrap();
    assert!(connected.iter().all(|stream| stream.transport().is_san()));
    accepted.sort_by_key(|stream| stream.peer_addr().unwrap().port());
    connected.sort_by_key(|stream| stream.local_addr().unwrap().port());

    for (index, (one, two)) in connected.iter_mut().zip(&mut accepted).enumerate() {
        let len = if index % 10 == 0 { 100_000 } else { 64 };
        let bytes = Numbers::new(index as u64).bytes(len);
        one.write_all(&bytes).unwrap();
        let mut got = vec![0; len];
        two.read_exact(&mut got).unwrap();
        assert!(got == bytes);
        two.write_all(&got[..8]).unwrap();
        one.read_exact(&mut got[..8]).unwrap();
    }
    let each = resident().saturating_sub(before.2) / (2 * CONNECTIONS);
    println!("{each} bytes resident for each end");

    // Some sleep in a call, some are polled for, most are just there.
    let sleeper = accepted[0].try_clone().unwrap();
    let sleeping = thread::spawn(move || (&sleeper).read(&mut [0; 1]));
    for stream in &accepted[1..20] {
        stream.set_nonblocking(true).unwrap();
        assert!(!is_ready(stream, Duration::ZERO));
    }
    thread::sleep(Duration::from_millis(500));
    let (start, used) = (Instant::now(), cpu_time());
    thread::sleep(Duration::from_secs(1));
    let share = (cpu_time() - used).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(
        share < 0.1,
        "idle connections use {share:.3} of a processor"
    );
    connected[0].write_all(b"!").unwrap();
    assert_eq!(sleeping.join().unwrap().unwrap(), 1);

    drop(connected);
    drop(accepted);
    until("every descriptor is closed", || {
        open_descriptors() <= before.0
    });
    until("no thread is left", || threads() <= before.1);
}
