//! A switch for tests: upcalls that are recorded, and calls of the table that return results.

use core::ffi::{c_char, c_int, c_void};
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::args::RawAddress;
use super::super::{memory, transfer};
use crate::abi::*;

/// No test waits longer for what must come.
pub(super) const LONG: Duration = Duration::from_secs(30);

type Hook = Arc<dyn Fn(&Completion) + Send + Sync>;

/// A completion upcall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Completion {
    pub(super) switch_socket: SOCKET,
    pub(super) overlapped: usize,
    pub(super) error: c_int,
    pub(super) bytes: u32,
    pub(super) thread: ThreadId,
}

#[derive(Default)]
struct SwitchSocket {
    context: usize,
    catalog: DWORD,
    closed: usize,
    running: usize,
    completions: Vec<Completion>,
}

#[derive(Default)]
struct Recorded {
    sockets: HashMap<SOCKET, SwitchSocket>,
    hooks: HashMap<usize, Hook>,
    /// What went wrong in an upcall, where no test can fail.
    faults: Vec<String>,
    refuse: HashMap<ThreadId, c_int>,
    sets: HashMap<usize, usize>,
}

static RECORDED: LazyLock<Mutex<Recorded>> = LazyLock::new(Mutex::default);
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
pub(super) fn upcalls() -> WSPUPCALLTABLEEX {
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
fn await_recorded(what: &str, mut until: impl FnMut(&Recorded) -> bool) {
    let end = Instant::now() + LONG;
    let mut recorded = RECORDED.lock();
    while !until(&recorded) {
        if CHANGED.wait_until(&mut recorded, end).timed_out() {
            drop(recorded);
            panic!("{what} did not happen");
        }
    }
}

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
        let function = super::super::PROC_TABLE.$slot.unwrap();
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

/// A socket and what belongs to it.
pub(super) struct Sock {
    pub(super) s: SOCKET,
    pub(super) event: Event,
    pub(super) at: SocketAddr,
    /// Keeps the port, as the switch's TCP socket does.
    _companion: Option<TcpListener>,
}

impl Sock {
    /// An unbound socket.
    pub(super) fn new() -> Self {
        Self::of(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// An unbound socket for an address with a port of its own.
    pub(super) fn of(ip: IpAddr) -> Self {
        let companion = TcpListener::bind((ip, 0)).unwrap();
        let family = if ip.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        Self {
            s: socket_of(family, libc::SOCK_STREAM, libc::IPPROTO_TCP).unwrap(),
            event: Event::new(),
            at: companion.local_addr().unwrap(),
            _companion: Some(companion),
        }
    }

    fn accepted(s: SOCKET, at: SocketAddr) -> Self {
        Self {
            s,
            event: Event::new(),
            at,
            _companion: None,
        }
    }

    pub(super) fn bound() -> Self {
        Self::bound_to(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    pub(super) fn bound_to(ip: IpAddr) -> Self {
        let socket = Self::of(ip);
        socket.bind(socket.at).unwrap();
        socket
    }

    pub(super) fn listening(backlog: c_int) -> Self {
        let socket = Self::bound();
        socket.listen(backlog).unwrap();
        socket.select(FD_ACCEPT).unwrap();
        socket
    }

    pub(super) fn bind(&self, at: SocketAddr) -> Result<(), c_int> {
        let mut raw = RawAddress::new(at);
        let length = c_int::try_from(raw.len()).unwrap();
        let name = raw.as_mut_ptr().cast();
        call(SOCKET_ERROR, |e| table!(lpWSPBind(self.s, name, length, e))).map(drop)
    }

    pub(super) fn listen(&self, backlog: c_int) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| table!(lpWSPListen(self.s, backlog, e))).map(drop)
    }

    pub(super) fn select(&self, events: i32) -> Result<(), c_int> {
        self.select_with(self.event.handle(), events)
    }

    pub(super) fn select_with(&self, event: WSAEVENT, events: i32) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| {
            table!(lpWSPEventSelect(self.s, event, events, e))
        })
        .map(drop)
    }

    /// Takes out what happened; slots that were not written hold 77.
    pub(super) fn events(&self) -> WSANETWORKEVENTS {
        let mut events = WSANETWORKEVENTS {
            lNetworkEvents: -1,
            iErrorCode: [77; 10],
        };
        let event = self.event.handle();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPEnumNetworkEvents(self.s, event, &raw mut events, e))
        })
        .unwrap();
        events
    }

    pub(super) fn connect(&self, to: SocketAddr) -> c_int {
        let mut raw = RawAddress::new(to);
        let length = c_int::try_from(raw.len()).unwrap();
        let name = raw.as_mut_ptr().cast();
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPConnect(
                self.s,
                name,
                length,
                none,
                none,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    /// Begins to connect with the event selected.
    pub(super) fn begin_connect(&self, to: SocketAddr) {
        self.select(FD_CONNECT).unwrap();
        assert_eq!(self.connect(to), WSAEWOULDBLOCK);
    }

    /// The code of the connect.
    pub(super) fn connect_outcome(&self) -> c_int {
        let bit = usize::try_from(FD_CONNECT_BIT).unwrap();
        loop {
            self.event.wait();
            let events = self.events();
            if events.lNetworkEvents & FD_CONNECT != 0 {
                return events.iErrorCode[bit];
            }
        }
    }

    /// Waits for a request.
    pub(super) fn await_request(&self) {
        loop {
            self.event.wait();
            if self.events().lNetworkEvents & FD_ACCEPT != 0 {
                return;
            }
        }
    }

    pub(super) fn accept(&self) -> Result<Sock, c_int> {
        self.accept_if(None, 0)
    }

    pub(super) fn accept_if(&self, condition: LPCONDITIONPROC, data: usize) -> Result<Sock, c_int> {
        // SAFETY: any bytes are a sockaddr_in6.
        let mut room: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        let mut length = c_int::try_from(size_of_val(&room)).unwrap();
        let name: *mut libc::sockaddr = (&raw mut room).cast();
        let s = call(INVALID_SOCKET, |e| {
            table!(lpWSPAccept(
                self.s,
                name,
                &raw mut length,
                condition,
                data,
                e
            ))
        })?;
        // SAFETY: filled by the call.
        let peer = unsafe { super::super::args::address(name, length) }.unwrap();
        Ok(Sock::accepted(s, peer))
    }

    pub(super) fn close(&self) -> Result<(), c_int> {
        close_socket(self.s)
    }

    /// The switch's socket.
    pub(super) fn switch_socket(&self) -> SOCKET {
        let recorded = RECORDED.lock();
        let mut mine = recorded
            .sockets
            .iter()
            .filter(|(_, socket)| socket.context == self.s)
            .map(|(number, _)| *number);
        let found = mine.next().expect("no upcall has made a switch socket");
        assert!(
            mine.next().is_none(),
            "several switch sockets for one socket"
        );
        found
    }

    pub(super) fn catalog(&self) -> DWORD {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].catalog
    }

    /// The completions that were reported, in order.
    pub(super) fn completions(&self) -> Vec<Completion> {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].completions.clone()
    }

    pub(super) fn await_completions(&self, count: usize) -> Vec<Completion> {
        let number = self.switch_socket();
        await_recorded("a completion upcall", |recorded| {
            let socket = &recorded.sockets[&number];
            socket.completions.len() >= count && socket.running == 0
        });
        self.completions()
    }

    /// Whether the switch's socket was given back.
    pub(super) fn is_given_back(&self) -> bool {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].closed == 1
    }

    pub(super) fn await_given_back(&self) {
        let number = self.switch_socket();
        await_recorded("WPUCloseSocketHandle", |recorded| {
            recorded.sockets[&number].closed == 1
        });
    }

    pub(super) fn send(&self, buffers: &[WSABUF], op: &Op) -> c_int {
        let first = buffers.as_ptr().cast_mut();
        let count = u32::try_from(buffers.len()).unwrap();
        self.send_raw(first, count, 0, op.pointer())
    }

    pub(super) fn send_raw(
        &self,
        first: LPWSABUF,
        count: u32,
        flags: u32,
        op: LPWSAOVERLAPPED,
    ) -> c_int {
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPSend(
                self.s,
                first,
                count,
                none,
                flags,
                op,
                None,
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    pub(super) fn recv(&self, buffers: &[WSABUF], op: &Op) -> c_int {
        let first = buffers.as_ptr().cast_mut();
        let count = u32::try_from(buffers.len()).unwrap();
        self.recv_raw(first, count, 0, op.pointer())
    }

    pub(super) fn recv_raw(
        &self,
        first: LPWSABUF,
        count: u32,
        mut flags: u32,
        op: LPWSAOVERLAPPED,
    ) -> c_int {
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPRecv(
                self.s,
                first,
                count,
                none,
                &raw mut flags,
                op,
                None,
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    /// Asks for the result of an operation: (bytes, flags).
    pub(super) fn result(&self, op: &Op, wait: bool) -> Result<(u32, u32), c_int> {
        result_of(self.s, op.pointer(), wait)
    }

    /// Polls until the operation has ended.
    pub(super) fn finish(&self, op: &Op) -> Result<u32, c_int> {
        eventually("the end of an operation", || match self.result(op, false) {
            Err(WSA_IO_INCOMPLETE) => None,
            other => Some(other.map(|(bytes, _)| bytes)),
        })
    }

    pub(super) fn register(
        &self,
        base: *mut u8,
        length: usize,
        flags: u32,
    ) -> Result<HANDLE, c_int> {
        let length = u32::try_from(length).unwrap();
        call(std::ptr::null_mut(), |e| {
            // SAFETY: memory of the test.
            unsafe { memory::register(self.s, base.cast(), length, flags, e) }
        })
    }

    pub(super) fn deregister(&self, handle: HANDLE) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| {
            // SAFETY: any handle will do.
            unsafe { memory::deregister(self.s, handle, e) }
        })
        .map(drop)
    }

    /// Exposes memory; the room is as given.
    pub(super) fn expose(
        &self,
        base: *mut u8,
        length: usize,
        flags: u32,
        room: &mut [u8],
    ) -> Result<u32, (c_int, u32)> {
        let length = u32::try_from(length).unwrap();
        let mut used = u32::try_from(room.len()).unwrap();
        let to: LPVOID = room.as_mut_ptr().cast();
        let result = call(SOCKET_ERROR, |e| {
            // SAFETY: memory of the test.
            unsafe {
                memory::register_rdma(self.s, base.cast(), length, flags, to, &raw mut used, e)
            }
        });
        match result {
            Ok(_) => Ok(used),
            Err(code) => Err((code, used)),
        }
    }

    pub(super) fn window(&self, area: &Area, flags: u32) -> Vec<u8> {
        let mut room = vec![0; 64];
        let used = self
            .expose(area.pointer(0), area.len(), flags, &mut room)
            .unwrap();
        room.truncate(used as usize);
        room
    }

    pub(super) fn conceal(&self, descriptor: &[u8]) -> Result<(), c_int> {
        let length = u32::try_from(descriptor.len()).unwrap();
        let from: LPVOID = descriptor.as_ptr().cast_mut().cast();
        call(SOCKET_ERROR, |e| {
            // SAFETY: bytes of the test.
            unsafe { memory::deregister_rdma(self.s, from, length, e) }
        })
        .map(drop)
    }

    pub(super) fn rdma(
        &self,
        write: bool,
        pieces: &[WSABUFEX],
        descriptor: &[u8],
        offset: u32,
        op: &Op,
    ) -> c_int {
        let function = if write {
            memory::rdma_write as unsafe extern "C" fn(_, _, _, _, _, _, _, _, _, _, _, _) -> _
        } else {
            memory::rdma_read
        };
        let first = pieces.as_ptr().cast_mut();
        let count = u32::try_from(pieces.len()).unwrap();
        let remote: LPVOID = descriptor.as_ptr().cast_mut().cast();
        let remote_length = u32::try_from(descriptor.len()).unwrap();
        call(SOCKET_ERROR, |e| {
            // SAFETY: memory of the test.
            unsafe {
                function(
                    self.s,
                    first,
                    count,
                    remote,
                    remote_length,
                    offset,
                    std::ptr::null_mut(),
                    0,
                    op.pointer(),
                    None,
                    std::ptr::null_mut(),
                    e,
                )
            }
        })
        .unwrap_err()
    }

    /// (descriptor, pending)
    pub(super) fn arm(&self) -> Result<(c_int, bool), c_int> {
        let (mut descriptor, mut pending) = (-1, -1);
        call(SOCKET_ERROR, |e| {
            // SAFETY: places of ours.
            unsafe { transfer::arm_completion(self.s, &raw mut descriptor, &raw mut pending, e) }
        })?;
        Ok((descriptor, pending != 0))
    }
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

impl Drop for Sock {
    fn drop(&mut self) {
        // Most tests have closed it.
        let _ = self.close();
    }
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
