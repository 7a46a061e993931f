//! A switch for tests: upcalls that are recorded, and calls of the table that return results.

mod sock;
mod upcalls;

use core::ffi::{c_char, c_int};
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(super) use sock::Sock;
pub(super) use upcalls::{Completion, upcalls};

use self::upcalls::RECORDED;
use crate::abi::*;

/// No test waits longer for what must come.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// Waits until `done` gives something.
pub(super) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Tests run beside each other, but for those that need the provider for themselves.
static TURN: RwLock<()> = RwLock::new(());

enum Turn {
    Shared(#[allow(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>),
}

/// The started provider.
pub(super) struct Session {
    stopped: bool,
    _turn: Turn,
}

pub(super) fn start_with(
    version: WORD,
    data: LPWSPDATA,
    upcalls: LPWSPUPCALLTABLEEX,
    table: LPWSPPROC_TABLE,
) -> c_int {
    // SAFETY: null, or places of the test.
    unsafe { crate::WSPStartupEx(version, data, std::ptr::null_mut(), upcalls, table) }
}

/// One more start.
pub(super) fn start() -> WSPPROC_TABLE {
    let mut data = WSPDATA::default();
    let mut table = WSPPROC_TABLE::default();
    let mut upcalls = upcalls();
    let result = start_with(WSP_VERSION, &raw mut data, &raw mut upcalls, &raw mut table);
    assert_eq!(result, 0);
    table
}

impl Session {
    pub(super) fn new() -> Self {
        Self::begin(Turn::Shared(TURN.read()))
    }

    /// No other test runs meanwhile.
    pub(super) fn alone() -> Self {
        Self::begin(Turn::Alone(TURN.write()))
    }

    fn begin(turn: Turn) -> Self {
        start();
        Self {
            stopped: false,
            _turn: turn,
        }
    }

    /// Takes the start back early.
    pub(super) fn stop(&mut self) {
        assert_eq!(cleanup(), Ok(()));
        self.stopped = true;
    }

    pub(super) fn restart(&mut self) {
        assert!(self.stopped);
        start();
        self.stopped = false;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.stopped {
            let stopped = cleanup();
            if !std::thread::panicking() {
                assert_eq!(stopped, Ok(()));
            }
        }
        if !std::thread::panicking() {
            let faults = std::mem::take(&mut RECORDED.lock().faults);
            assert!(faults.is_empty(), "{faults:?}");
        }
    }
}

/// Runs a call; on failure gives the code.
pub(super) fn call<T: PartialEq>(failure: T, run: impl FnOnce(LPINT) -> T) -> Result<T, c_int> {
    let mut code: c_int = -12345;
    let result = run(&raw mut code);
    if result == failure {
        assert_ne!(code, -12345, "a failure without a code");
        Err(code)
    } else {
        assert_eq!(code, -12345, "a success with a code");
        Ok(result)
    }
}

macro_rules! table {
    ($slot:ident ( $($argument:expr),* $(,)? )) => {{
        let function = crate::spi::PROC_TABLE.$slot.unwrap();
        // SAFETY: a function of the table with arguments of the test.
        unsafe { function($($argument),*) }
    }};
}
pub(super) use table;

pub(super) fn cleanup() -> Result<(), c_int> {
    call(SOCKET_ERROR, |e| table!(lpWSPCleanup(e))).map(drop)
}

pub(super) fn socket_of(af: c_int, kind: c_int, protocol: c_int) -> Result<SOCKET, c_int> {
    call(INVALID_SOCKET, |e| {
        table!(lpWSPSocket(
            af,
            kind,
            protocol,
            std::ptr::null_mut(),
            0,
            WSA_FLAG_OVERLAPPED,
            e
        ))
    })
}

/// Lets the next WPUCreateSocketHandle of this thread fail.
pub(super) fn refuse_switch_socket(code: c_int) {
    RECORDED
        .lock()
        .refuse
        .insert(std::thread::current().id(), code);
}

/// How often an event was set.
pub(super) fn sets(event: &Event) -> usize {
    RECORDED
        .lock()
        .sets
        .get(&event.handle().addr())
        .copied()
        .unwrap_or(0)
}

/// An event object.
pub(super) struct Event(OwnedFd);

impl Event {
    pub(super) fn new() -> Self {
        // SAFETY: plain values.
        let made = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        assert!(made >= 0);
        // SAFETY: just made.
        let event = Self(unsafe { OwnedFd::from_raw_fd(made) });
        RECORDED.lock().sets.remove(&event.handle().addr());
        event
    }

    pub(super) fn handle(&self) -> WSAEVENT {
        let number = usize::try_from(self.0.as_raw_fd()).unwrap() + 1;
        std::ptr::without_provenance_mut(number)
    }

    pub(super) fn is_set(&self) -> bool {
        is_readable(self.0.as_raw_fd(), Duration::ZERO)
    }

    pub(super) fn wait(&self) {
        assert!(
            is_readable(self.0.as_raw_fd(), LONG),
            "the event was not set"
        );
    }
}

pub(super) fn is_readable(descriptor: c_int, longest: Duration) -> bool {
    let mut waiting = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    let longest = c_int::try_from(longest.as_millis()).unwrap();
    // SAFETY: one structure of ours.
    unsafe { libc::poll(&raw mut waiting, 1, longest) == 1 }
}

pub(super) fn result_of(s: SOCKET, op: LPWSAOVERLAPPED, wait: bool) -> Result<(u32, u32), c_int> {
    let (mut bytes, mut flags) = (0, 0);
    call(FALSE, |e| {
        table!(lpWSPGetOverlappedResult(
            s,
            op,
            &raw mut bytes,
            BOOL::from(wait),
            &raw mut flags,
            e
        ))
    })?;
    Ok((bytes, flags))
}

pub(super) fn close_socket(s: SOCKET) -> Result<(), c_int> {
    call(SOCKET_ERROR, |e| table!(lpWSPCloseSocket(s, e))).map(drop)
}

/// Two connected sockets: the connecting one and the accepted one.
pub(super) fn pair() -> (Sock, Sock) {
    let listener = Sock::listening(8);
    let pair = pair_through(&listener);
    listener.close().unwrap();
    pair
}

pub(super) fn pair_through(listener: &Sock) -> (Sock, Sock) {
    let a = Sock::bound_to(listener.at.ip());
    a.begin_connect(listener.at);
    listener.await_request();
    let b = listener.accept().unwrap();
    assert_eq!(a.connect_outcome(), 0);
    assert_eq!(b.at, a.at);
    (a, b)
}

/// An operation of the test. Its structure stays where it is for good: a test that fails leaves
/// operations in progress.
pub(super) struct Op(&'static UnsafeCell<WSAOVERLAPPED>);

// SAFETY: the structure is shared with the provider as the interface says.
unsafe impl Send for Op {}
// SAFETY: as above.
unsafe impl Sync for Op {}

impl Op {
    pub(super) fn polled() -> Self {
        Self::with(1)
    }

    pub(super) fn notified() -> Self {
        Self::with(0)
    }

    fn with(event: usize) -> Self {
        Self(Box::leak(Box::new(UnsafeCell::new(WSAOVERLAPPED {
            hEvent: std::ptr::without_provenance_mut(event),
            ..WSAOVERLAPPED::default()
        }))))
    }

    /// A notified operation with something to do in its upcall.
    pub(super) fn then(hook: impl Fn(&Completion) + Send + Sync + 'static) -> Self {
        let op = Self::notified();
        let place = op.pointer().addr();
        RECORDED.lock().hooks.insert(place, Arc::new(hook));
        op
    }

    pub(super) fn pointer(&self) -> LPWSAOVERLAPPED {
        self.0.get()
    }

    pub(super) fn address(&self) -> usize {
        self.pointer().addr()
    }

    pub(super) fn has_ended(&self) -> bool {
        // SAFETY: our structure.
        let internal = unsafe { &raw mut (*self.pointer()).Internal };
        // SAFETY: as above.
        unsafe { AtomicUsize::from_ptr(internal) }.load(Ordering::Acquire)
            != WSS_OPERATION_IN_PROGRESS
    }

    /// A copy of the structure.
    pub(super) fn fields(&self) -> WSAOVERLAPPED {
        // SAFETY: our structure; the operation has ended or was not started.
        unsafe { *self.pointer() }
    }
}

/// Memory of the test, with its registration. It stays for good, as `Op` does.
pub(super) struct Area {
    bytes: &'static [UnsafeCell<u8>],
    pub(super) handle: HANDLE,
}

// SAFETY: the tests share it with the provider as the interface says.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    pub(super) fn unregistered(length: usize) -> Self {
        Self {
            bytes: Box::leak((0..length).map(|_| UnsafeCell::new(0)).collect()),
            handle: std::ptr::null_mut(),
        }
    }

    pub(super) fn new(socket: &Sock, length: usize, flags: u32) -> Self {
        let mut area = Self::unregistered(length);
        area.handle = socket.register(area.pointer(0), length, flags).unwrap();
        area
    }

    pub(super) fn filled(socket: &Sock, bytes: &[u8]) -> Self {
        let area = Self::new(socket, bytes.len(), MEM_READ);
        area.fill(bytes);
        area
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn pointer(&self, at: usize) -> *mut u8 {
        self.bytes.as_ptr().cast::<u8>().cast_mut().wrapping_add(at)
    }

    pub(super) fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len());
        // SAFETY: our memory, not in use by an operation.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(0), bytes.len()) };
    }

    pub(super) fn bytes(&self, length: usize) -> Vec<u8> {
        assert!(length <= self.len());
        // SAFETY: our memory, not in use by an operation.
        unsafe { std::slice::from_raw_parts(self.pointer(0), length) }.to_vec()
    }

    pub(super) fn buffer(&self, at: usize, length: usize) -> WSABUF {
        WSABUF {
            len: u32::try_from(length).unwrap(),
            buf: self.pointer(at).cast::<c_char>(),
        }
    }

    pub(super) fn all(&self) -> [WSABUF; 1] {
        [self.buffer(0, self.len())]
    }

    pub(super) fn piece(&self, at: usize, length: usize) -> WSABUFEX {
        WSABUFEX {
            len: u32::try_from(length).unwrap(),
            buf: self.pointer(at).cast::<c_char>(),
            handle: self.handle,
        }
    }
}

/// Sends one message and receives it.
pub(super) fn pass(from: &Sock, to: &Sock, bytes: &[u8]) {
    let target = Area::new(to, bytes.len().max(1), MEM_WRITE);
    let source = Area::filled(from, if bytes.is_empty() { &[0] } else { bytes });
    let (sent, received) = (Op::polled(), Op::polled());
    assert_eq!(to.recv(&target.all(), &received), WSA_IO_PENDING);
    let buffer = source.buffer(0, bytes.len());
    assert_eq!(from.send(&[buffer], &sent), WSA_IO_PENDING);
    let length = u32::try_from(bytes.len()).unwrap();
    assert_eq!(to.finish(&received), Ok(length));
    assert_eq!(from.finish(&sent), Ok(length));
    assert_eq!(target.bytes(bytes.len()), bytes);
    from.deregister(source.handle).unwrap();
    to.deregister(target.handle).unwrap();
}
