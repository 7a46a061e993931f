//! Progress that is made by the host.

use core::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::harness::*;
use crate::abi::*;
use crate::spi::progress;

fn take() -> Result<OwnedFd, c_int> {
    let mut descriptor = -1;
    call(SOCKET_ERROR, |e| {
        // SAFETY: places of the test.
        unsafe { progress::take(&raw mut descriptor, e) }
    })?;
    // SAFETY: just made for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// By who was given this descriptor.
fn make(descriptor: &OwnedFd) -> Result<u32, c_int> {
    make_as(descriptor.as_raw_fd())
}

fn make_as(host: c_int) -> Result<u32, c_int> {
    let mut next = 77;
    call(SOCKET_ERROR, |e| {
        // SAFETY: places of the test.
        unsafe { progress::make(host, &raw mut next, e) }
    })?;
    Ok(next)
}

fn own_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "wsd-progress")
        .count()
}

/// Makes progress until it is over, as a host does.
fn host(descriptor: OwnedFd) -> JoinHandle<()> {
    std::thread::spawn(move || {
        loop {
            let next = match make(&descriptor) {
                Ok(next) => next,
                Err(WSAEINPROGRESS) => 1,
                Err(WSAEINVAL | WSANOTINITIALISED) => return,
                Err(code) => panic!("{code}"),
            };
            let mut waiting = libc::pollfd {
                fd: descriptor.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // Larger than the type means for ever, too.
            let longest = c_int::try_from(next).unwrap_or(-1);
            // SAFETY: one entry of ours.
            unsafe { libc::poll(&raw mut waiting, 1, longest) };
        }
    })
}

/// A provider for the test alone, freshly started.
fn fresh() -> Session {
    let mut session = Session::alone();
    session.stop();
    session.restart();
    session
}

#[test]
fn a_host_that_makes_progress_needs_no_thread_of_the_provider() {
    let mut session = fresh();
    let host = host(take().unwrap());
    let (a, b) = pair();
    pass(&a, &b, b"there");
    pass(&b, &a, b"and back");
    // What nobody asks for is told by upcall.
    let area = Area::new(&b, 64, MEM_WRITE);
    let source = Area::filled(&a, b"told");
    for told in 1..=50 {
        let (sent, received) = (Op::notified(), Op::notified());
        assert_eq!(b.recv(&area.all(), &received), WSA_IO_PENDING);
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        assert_eq!(b.await_completions(told).len(), told);
        assert_eq!(a.await_completions(told).len(), told);
    }
    // A connect that nobody takes, and one that is refused.
    let listener = Sock::listening(4);
    let waiting = Sock::bound();
    waiting.begin_connect(listener.at);
    listener.await_request();
    listener.close().unwrap();
    assert_eq!(waiting.connect_outcome(), WSAECONNREFUSED);
    // An end that only an upcall tells of.
    let last = Op::notified();
    assert_eq!(b.recv(&area.all(), &last), WSA_IO_PENDING);
    a.close().unwrap();
    a.await_given_back();
    assert_eq!(b.await_completions(51).last().unwrap().error, 10_054);
    b.close().unwrap();
    b.await_given_back();
    assert_eq!(own_threads(), 0);
    session.stop();
    host.join().unwrap();
    session.restart();
}

#[test]
fn progress_is_taken_over_once_and_not_from_the_thread() {
    let mut session = fresh();
    assert_eq!(make_as(-1), Err(WSAEINVAL));
    let descriptor = take().unwrap();
    assert_eq!(take().err(), Some(WSAEALREADY));
    // One more start of the same provider has the same host.
    start();
    assert_eq!(take().err(), Some(WSAEALREADY));
    cleanup().unwrap();
    assert!(make(&descriptor).is_ok());
    let another = descriptor.try_clone().unwrap();
    assert_eq!(make(&another), Err(WSAEINVAL), "not the one it gave");
    session.stop();
    assert_eq!(make(&descriptor), Err(WSANOTINITIALISED));
    assert_eq!(take().err(), Some(WSANOTINITIALISED));
    session.restart();
    assert_eq!(
        make(&descriptor),
        Err(WSAEINVAL),
        "over since the last clean-up"
    );
    let (a, b) = pair();
    pass(&a, &b, b"by the thread");
    assert_eq!(own_threads(), 1);
    assert_eq!(take().err(), Some(WSAEALREADY));
    assert_eq!(make(&descriptor), Err(WSAEINVAL));
}

#[test]
fn null_places_are_refused_and_nothing_is_taken_over() {
    let mut session = fresh();
    let mut next = 77;
    let none = std::ptr::null_mut();
    // SAFETY: null is allowed.
    let taken = call(SOCKET_ERROR, |e| unsafe { progress::take(none, e) });
    assert_eq!(taken, Err(WSAEFAULT));
    // SAFETY: as above.
    let made = unsafe { progress::make(-1, &raw mut next, none) };
    assert_eq!(made, SOCKET_ERROR);
    assert_eq!(next, 77);
    let descriptor = take().unwrap();
    let number = descriptor.as_raw_fd();
    let made = call(SOCKET_ERROR, |e| {
        // SAFETY: null is allowed.
        unsafe { progress::make(number, none.cast(), e) }
    });
    assert_eq!(made, Err(WSAEFAULT));
    assert!(make(&descriptor).is_ok());
    drop(descriptor);
    session.stop();
    session.restart();
}

#[test]
fn the_descriptor_is_readable_when_there_is_something_to_do() {
    let mut session = fresh();
    let descriptor = take().unwrap();
    let is_readable = |longest| is_readable(descriptor.as_raw_fd(), longest);
    while make(&descriptor).unwrap() != WSA_INFINITE {}
    assert!(!is_readable(std::time::Duration::ZERO));
    let listener = Sock::listening(4);
    let waiting = Sock::bound();
    waiting.begin_connect(listener.at);
    // Only rounds at which it is readable, or that are due.
    let mut due = 0;
    while !listener.event.is_set() {
        assert!(due == 0 || is_readable(LONG));
        due = make(&descriptor).unwrap();
    }
    assert_eq!(listener.events().lNetworkEvents & FD_ACCEPT, FD_ACCEPT);
    session.stop();
    session.restart();
}

#[test]
fn a_round_within_a_round_is_refused_and_may_end_everything() {
    let mut session = fresh();
    let descriptor = take().unwrap();
    let number = descriptor.as_raw_fd();
    let host = host(descriptor);
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let within = Arc::new(AtomicUsize::new(0));
    let outcomes = Arc::clone(&within);
    let received = Op::then(move |_| {
        // By the host's round: nobody else asks for it.
        if make_as(number) == Err(WSAEINPROGRESS) {
            outcomes.fetch_add(1, Ordering::SeqCst);
        }
        cleanup().unwrap();
    });
    assert_eq!(b.recv(&area.all(), &received), WSA_IO_PENDING);
    let source = Area::filled(&a, b"the end");
    let sent = Op::polled();
    assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
    host.join().unwrap();
    assert_eq!(within.load(Ordering::SeqCst), 1);
    assert!(a.is_given_back());
    b.await_given_back();
    start();
    session.stop();
    session.restart();
}

#[test]
fn the_last_clean_up_waits_for_a_round_of_another_thread() {
    let mut session = fresh();
    let host = host(take().unwrap());
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let (inside, left) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (entered, leaves) = (Arc::clone(&inside), Arc::clone(&left));
    let received = Op::then(move |_| {
        entered.store(true, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(50));
        leaves.store(true, Ordering::SeqCst);
    });
    assert_eq!(b.recv(&area.all(), &received), WSA_IO_PENDING);
    let source = Area::filled(&a, b"slow");
    assert_eq!(a.send(&source.all(), &Op::polled()), WSA_IO_PENDING);
    eventually("the upcall", || inside.load(Ordering::SeqCst).then_some(()));
    session.stop();
    assert!(left.load(Ordering::SeqCst), "the round is over");
    host.join().unwrap();
    session.restart();
}

#[test]
fn each_host_is_told_that_it_is_over_although_others_have_taken_over_since() {
    let mut session = fresh();
    let mut former = Vec::new();
    for _ in 0..3 {
        let descriptor = take().unwrap();
        while make(&descriptor).unwrap() != WSA_INFINITE {}
        session.stop();
        session.restart();
        former.push(descriptor);
    }
    let current = take().unwrap();
    while make(&current).unwrap() != WSA_INFINITE {}
    for host in &former {
        assert!(is_readable(host.as_raw_fd(), std::time::Duration::ZERO));
        assert_eq!(make(host), Err(WSAEINVAL), "makes no round of another's");
    }
    assert!(make(&current).is_ok());
    drop(current);
    session.stop();
    session.restart();
}
