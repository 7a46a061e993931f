//! The upcalls of the tests: recorded, and done as a switch does them.

use core::ffi::{c_int, c_void};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::ThreadId;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::LONG;

use crate::abi::*;

pub(super) type Hook = Arc<dyn Fn(&Completion) + Send + Sync>;

/// A completion upcall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::spi::tests) struct Completion {
    pub(in crate::spi::tests) switch_socket: SOCKET,
    pub(in crate::spi::tests) overlapped: usize,
    pub(in crate::spi::tests) error: c_int,
    pub(in crate::spi::tests) bytes: u32,
    pub(in crate::spi::tests) thread: ThreadId,
}

#[derive(Default)]
pub(super) struct SwitchSocket {
    pub(super) context: usize,
    pub(super) catalog: DWORD,
    pub(super) closed: usize,
    pub(super) running: usize,
    pub(super) completions: Vec<Completion>,
}

#[derive(Default)]
pub(super) struct Recorded {
    pub(super) sockets: HashMap<SOCKET, SwitchSocket>,
    pub(super) hooks: HashMap<usize, Hook>,
    /// What went wrong in an upcall, where no test can fail.
    pub(super) faults: Vec<String>,
    pub(super) refuse: HashMap<ThreadId, c_int>,
    pub(super) sets: HashMap<usize, usize>,
}

pub(super) static RECORDED: LazyLock<Mutex<Recorded>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();
static NEXT: AtomicUsize = AtomicUsize::new(0x5A00_0001);

unsafe extern "C" fn create(catalog: DWORD, context: DWORD_PTR, lp_errno: LPINT) -> SOCKET {
    let mut recorded = RECORDED.lock();
    let me = std::thread::current().id();
    if let Some(code) = recorded.refuse.remove(&me) {
        // SAFETY: the provider gives a pointer.
        unsafe { lp_errno.write(code) };
        return INVALID_SOCKET;
    }
    let socket = NEXT.fetch_add(4, Ordering::Relaxed);
    recorded.sockets.insert(
        socket,
        SwitchSocket {
            context,
            catalog,
            ..SwitchSocket::default()
        },
    );
    socket
}

unsafe extern "C" fn close(s: SOCKET, _lp_errno: LPINT) -> c_int {
    let mut recorded = RECORDED.lock();
    let Some(socket) = recorded.sockets.get_mut(&s) else {
        recorded
            .faults
            .push(format!("close of {s:#x}, which is no switch socket"));
        return SOCKET_ERROR;
    };
    socket.closed += 1;
    let (closed, running) = (socket.closed, socket.running);
    if closed > 1 || running > 0 {
        recorded.faults.push(format!(
            "close number {closed} with {running} upcalls running"
        ));
    }
    CHANGED.notify_all();
    0
}

unsafe extern "C" fn complete(
    s: SOCKET,
    overlapped: LPWSAOVERLAPPED,
    error: DWORD,
    bytes: DWORD,
    _lp_errno: LPINT,
) -> c_int {
    let completion = Completion {
        switch_socket: s,
        overlapped: overlapped.addr(),
        error: c_int::try_from(error).unwrap_or(-1),
        bytes,
        thread: std::thread::current().id(),
    };
    let hook = {
        let mut recorded = RECORDED.lock();
        // SAFETY: a structure of ours, in progress.
        if unsafe { (*overlapped).hEvent }.addr() & 1 == 1 {
            recorded
                .faults
                .push("an upcall for an operation that is polled".into());
        }
        let hook = recorded.hooks.remove(&completion.overlapped);
        match recorded.sockets.get_mut(&s) {
            Some(socket) if socket.closed == 0 => {
                socket.completions.push(completion);
                socket.running += 1;
                if socket.running > 1 && hook.is_none() {
                    // Only an upcall that waits for another one may have it within.
                    tracing::debug!("nested upcall");
                }
            }
            _ => recorded
                .faults
                .push(format!("a completion for {s:#x}, which is closed or none")),
        }
        hook
    };
    // SAFETY: a structure of ours, in progress: the switch stores the count, then the end.
    unsafe { (*overlapped).InternalHigh = bytes as usize };
    // SAFETY: as above.
    let internal = unsafe { &raw mut (*overlapped).Internal };
    // SAFETY: as above.
    unsafe { AtomicUsize::from_ptr(internal) }.store(0, Ordering::Release);
    if let Some(hook) = hook {
        hook(&completion);
    }
    let mut recorded = RECORDED.lock();
    if let Some(socket) = recorded.sockets.get_mut(&s) {
        socket.running -= 1;
    }
    CHANGED.notify_all();
    0
}

fn event_descriptor(event: WSAEVENT) -> c_int {
    c_int::try_from(event.addr()).unwrap_or(0) - 1
}

unsafe extern "C" fn set_event(event: WSAEVENT, _lp_errno: LPINT) -> BOOL {
    *RECORDED.lock().sets.entry(event.addr()).or_default() += 1;
    let one = 1_u64;
    // SAFETY: 8 bytes of ours.
    let written = unsafe {
        libc::write(
            event_descriptor(event),
            (&raw const one).cast::<c_void>(),
            8,
        )
    };
    BOOL::from(written == 8)
}

unsafe extern "C" fn reset_event(event: WSAEVENT, _lp_errno: LPINT) -> BOOL {
    let mut count = 0_u64;
    // SAFETY: 8 bytes of ours.
    unsafe {
        libc::read(
            event_descriptor(event),
            (&raw mut count).cast::<c_void>(),
            8,
        )
    };
    TRUE
}

/// The upcall table of the tests.
pub(in crate::spi::tests) fn upcalls() -> WSPUPCALLTABLEEX {
    WSPUPCALLTABLEEX {
        lpWPUCreateSocketHandle: Some(create),
        lpWPUCloseSocketHandle: Some(close),
        lpWPUCompleteOverlappedRequest: Some(complete),
        lpWPUSetEvent: Some(set_event),
        lpWPUResetEvent: Some(reset_event),
        ..WSPUPCALLTABLEEX::default()
    }
}

/// Waits until the record says so.
pub(super) fn await_recorded(what: &str, mut until: impl FnMut(&Recorded) -> bool) {
    let end = Instant::now() + LONG;
    let mut recorded = RECORDED.lock();
    while !until(&recorded) {
        if CHANGED.wait_until(&mut recorded, end).timed_out() {
            drop(recorded);
            panic!("{what} did not happen");
        }
    }
}
