//! The mock's functions: the 17 slots, the 13 that must never be called, and the extensions.

use std::ffi::{c_char, c_int, c_void};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};

use wsdirect::abi::{
    self, BOOL, DWORD, DWORD_PTR, GROUP, GUID, HANDLE, HWND, INVALID_SOCKET, LPBOOL,
    LPCONDITIONPROC, LPDWORD, LPINT, LPQOS, LPVOID, LPWSABUF, LPWSABUFEX, LPWSANETWORKEVENTS,
    LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSAPROTOCOL_INFOW, LPWSATHREADID,
    LPWSPDATA, LPWSPPROC_TABLE, LPWSPUPCALLTABLEEX, LPWSTR, SOCKET, SOCKET_ERROR, UINT, WORD,
    WSABUF, WSAEVENT, WSPPROC_TABLE,
};

use super::work::{Upcall, later};
use super::{Overlapped, Registered, STATE, Socket, State, fresh, memory, record};

/// What an armed socket makes readable.
pub(crate) struct WakeUp {
    file: std::fs::File,
    is_armed: bool,
}

impl WakeUp {
    fn new() -> WakeUp {
        // SAFETY: takes no pointer; the new descriptor has one owner.
        let file = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            std::fs::File::from_raw_fd(fd)
        };
        WakeUp {
            file,
            is_armed: false,
        }
    }

    pub(crate) fn set(&self) {
        if self.is_armed {
            (&self.file).write_all(&1u64.to_ne_bytes()).unwrap();
        }
    }
}

/// Runs the body of one function unless it is to fail, and records how it went.
fn call<R>(
    socket: SOCKET,
    name: &'static str,
    detail: impl Into<String>,
    body: impl FnOnce(&mut State) -> Result<R, i32>,
) -> Result<R, i32> {
    let mut state = STATE.lock();
    let result = match state.config.failing.get(name) {
        Some(code) => Err(*code),
        None => body(&mut state),
    };
    let code = result.as_ref().err().copied().unwrap_or(0);
    state.trace.push(super::Call {
        socket,
        name,
        detail: detail.into(),
        code,
    });
    result
}

/// # Safety
/// `errno` is null or can be written to.
unsafe fn give(errno: LPINT, result: Result<(), i32>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => {
            // SAFETY: the caller vouches for it.
            unsafe { errno.write(code) };
            SOCKET_ERROR
        }
    }
}

fn existing(state: &mut State, socket: SOCKET) -> Result<&mut Socket, i32> {
    state.sockets.get_mut(&socket).ok_or(abi::WSAENOTSOCK)
}

/// # Safety
/// `name` is as long as stated.
unsafe fn address(name: *const libc::sockaddr, len: c_int) -> SocketAddr {
    let len = usize::try_from(len).unwrap();
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), len) };
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    if len == 16 {
        let ip: [u8; 4] = bytes[4..8].try_into().unwrap();
        (Ipv4Addr::from(ip), port).into()
    } else {
        let ip: [u8; 16] = bytes[8..24].try_into().unwrap();
        (Ipv6Addr::from(ip), port).into()
    }
}

fn family(number: c_int) -> [u8; 2] {
    u16::try_from(number).unwrap().to_ne_bytes()
}

fn bytes_of(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(family(libc::AF_INET));
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.resize(16, 0);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(family(libc::AF_INET6));
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(v6.ip().octets());
            bytes.resize(28, 0);
        }
    }
    bytes
}

/// The mock's WSPStartupEx.
///
/// # Safety
/// As the interface says.
pub(crate) unsafe extern "C" fn startup(
    version: WORD,
    data: LPWSPDATA,
    protocol: LPWSAPROTOCOL_INFOW,
    upcalls: LPWSPUPCALLTABLEEX,
    table: LPWSPPROC_TABLE,
) -> c_int {
    let started = call(0, "StartupEx", format!("{version:#06x}"), |state| {
        state.starts += 1;
        // SAFETY: the switch's table, live during the call.
        state.upcalls = Some(unsafe { *upcalls });
        Ok(state.config.null_slot)
    });
    let null_slot = match started {
        Ok(null_slot) => null_slot,
        Err(code) => return code,
    };
    // SAFETY: the switch's structure, live during the call.
    let protocol = unsafe { &*protocol };
    assert_eq!(
        protocol.iProtocol,
        libc::IPPROTO_TCP,
        "not the TCP provider's description"
    );
    // SAFETY: as above.
    let data = unsafe { &mut *data };
    data.wVersion = abi::WSP_VERSION;
    data.wHighVersion = abi::WSP_VERSION;
    for (to, from) in data.szDescription.iter_mut().zip("mock".encode_utf16()) {
        *to = from;
    }
    let slots = WSPPROC_TABLE {
        lpWSPAccept: Some(accept),
        lpWSPAddressToString: Some(address_to_string),
        lpWSPAsyncSelect: Some(async_select),
        lpWSPBind: Some(bind),
        lpWSPCancelBlockingCall: Some(cancel_blocking_call),
        lpWSPCleanup: Some(cleanup),
        lpWSPCloseSocket: Some(close_socket),
        lpWSPConnect: Some(connect),
        lpWSPDuplicateSocket: Some(duplicate_socket),
        lpWSPEnumNetworkEvents: Some(enum_network_events),
        lpWSPEventSelect: Some(event_select),
        lpWSPGetOverlappedResult: Some(get_overlapped_result),
        lpWSPGetPeerName: Some(get_peer_name),
        lpWSPGetSockName: Some(get_sock_name),
        lpWSPGetSockOpt: Some(get_sock_opt),
        lpWSPGetQOSByName: Some(get_qos_by_name),
        lpWSPIoctl: Some(ioctl),
        lpWSPJoinLeaf: Some(join_leaf),
        lpWSPListen: if null_slot { None } else { Some(listen) },
        lpWSPRecv: Some(recv),
        lpWSPRecvDisconnect: Some(recv_disconnect),
        lpWSPRecvFrom: Some(recv_from),
        lpWSPSelect: Some(select),
        lpWSPSend: Some(send),
        lpWSPSendDisconnect: Some(send_disconnect),
        lpWSPSendTo: Some(send_to),
        lpWSPSetSockOpt: Some(set_sock_opt),
        lpWSPShutdown: Some(shutdown),
        lpWSPSocket: Some(socket),
        lpWSPStringToAddress: Some(string_to_address),
    };
    // SAFETY: as above.
    unsafe { table.write(slots) };
    0
}

unsafe extern "C" fn cleanup(errno: LPINT) -> c_int {
    let result = call(0, "Cleanup", "", |state| {
        state.starts = state.starts.checked_sub(1).ok_or(abi::WSANOTINITIALISED)?;
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

/// Has the switch make a handle, outside the lock, and keeps the socket.
fn admit(mut made: Socket, without_handle: bool) -> SOCKET {
    let (number, upcalls) = {
        let mut state = STATE.lock();
        state.next += 1;
        (state.next, state.upcalls.unwrap())
    };
    if !without_handle {
        let mut errno = 0;
        // SAFETY: the switch's function.
        made.handle =
            unsafe { upcalls.lpWPUCreateSocketHandle.unwrap()(0, number, &raw mut errno) };
        assert_ne!(
            made.handle, INVALID_SOCKET,
            "the switch gives no handle: {errno}"
        );
        let mut context = 0;
        let query = upcalls.lpWPUQuerySocketHandleContext.unwrap();
        // SAFETY: the switch's function; both places are live.
        let result = unsafe { query(made.handle, &raw mut context, &raw mut errno) };
        assert_eq!(
            (result, context),
            (0, number),
            "the context does not come back"
        );
    }
    STATE.lock().sockets.insert(number, made);
    number
}

unsafe extern "C" fn socket(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    info: LPWSAPROTOCOL_INFOW,
    group: GROUP,
    flags: DWORD,
    errno: LPINT,
) -> SOCKET {
    let plain = (kind, protocol, group) == (libc::SOCK_STREAM, libc::IPPROTO_TCP, 0);
    let good = plain && flags == abi::WSA_FLAG_OVERLAPPED && info.is_null();
    let detail = if good { "overlapped" } else { "BAD arguments" };
    assert!(family == libc::AF_INET || family == libc::AF_INET6);
    let (failing, without) = {
        let config = &STATE.lock().config;
        (config.failing.get("Socket").copied(), config.no_handle)
    };
    let result = failing.map_or(Ok(()), Err);
    match result {
        Ok(()) => {
            let number = admit(Socket::default(), without);
            record(number, "Socket", detail, 0);
            number
        }
        Err(code) => {
            record(0, "Socket", detail, code);
            // SAFETY: the switch's.
            unsafe { errno.write(code) };
            INVALID_SOCKET
        }
    }
}

unsafe extern "C" fn bind(
    s: SOCKET,
    name: *const libc::sockaddr,
    len: c_int,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's address.
    let local = unsafe { address(name, len) };
    let result = call(s, "Bind", local.to_string(), |state| {
        let socket = existing(state, s)?;
        if socket.local.replace(local).is_some() {
            return Err(abi::WSAEINVAL);
        }
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn listen(s: SOCKET, backlog: c_int, errno: LPINT) -> c_int {
    let result = call(s, "Listen", backlog.to_string(), |state| {
        let socket = existing(state, s)?;
        if socket.local.is_none() {
            return Err(abi::WSAEINVAL);
        }
        socket.is_listening = true;
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

fn signal(socket: &mut Socket, bit: c_int, code: i32) {
    socket.record.lNetworkEvents |= 1 << bit;
    socket.record.iErrorCode[usize::try_from(bit).unwrap()] = code;
    if socket.mask & 1 << bit != 0 {
        later(Upcall::Signal(socket.event));
    }
}

unsafe extern "C" fn event_select(s: SOCKET, event: WSAEVENT, events: i32, errno: LPINT) -> c_int {
    let named = match events {
        abi::FD_ACCEPT => "FD_ACCEPT",
        abi::FD_CONNECT => "FD_CONNECT",
        _ => "BAD events",
    };
    let result = call(s, "EventSelect", named, |state| {
        let socket = existing(state, s)?;
        socket.event = event.addr();
        socket.mask = events;
        if socket.record.lNetworkEvents & events != 0 {
            later(Upcall::Signal(socket.event));
        }
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn enum_network_events(
    s: SOCKET,
    event: WSAEVENT,
    events: LPWSANETWORKEVENTS,
    errno: LPINT,
) -> c_int {
    let upcalls = STATE.lock().upcalls.unwrap();
    let mut ignored = 0;
    // Reset first: whatever is recorded afterwards sets it again.
    // SAFETY: the switch's function.
    unsafe { upcalls.lpWPUResetEvent.unwrap()(event, &raw mut ignored) };
    let result = call(s, "EnumNetworkEvents", "", |state| {
        let socket = existing(state, s)?;
        Ok(std::mem::take(&mut socket.record))
    });
    let result = result.map(|record| {
        // SAFETY: the switch's structure.
        unsafe { events.write(record) };
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

/// Puts a connect into the queue of the socket that listens there; `false` if none does.
fn request(state: &mut State, from: SOCKET, to: SocketAddr) -> bool {
    let serves = |socket: &Socket| {
        socket.is_listening
            && socket.local.is_some_and(|local| {
                local.port() == to.port() && (local.ip() == to.ip() || local.ip().is_unspecified())
            })
    };
    match state.sockets.values_mut().find(|socket| serves(socket)) {
        Some(listener) => {
            listener.requests.push_back(from);
            signal(listener, abi::FD_ACCEPT_BIT, 0);
            true
        }
        None => false,
    }
}

pub(crate) fn silent_peer(to: SocketAddr) -> SOCKET {
    let mut state = STATE.lock();
    state.next += 1;
    let number = state.next;
    let local = SocketAddr::new(to.ip(), u16::try_from(number % 60_000).unwrap() + 1);
    let peer = Socket {
        local: Some(local),
        remote: Some(to),
        ..Socket::default()
    };
    state.sockets.insert(number, peer);
    assert!(request(&mut state, number, to), "nobody listens there");
    number
}

pub(crate) fn end_peer(peer: SOCKET) {
    let mut state = STATE.lock();
    state.flush(peer);
    let handle = state
        .sockets
        .remove(&peer)
        .map_or(0, |socket| socket.handle);
    if handle != 0 {
        later(Upcall::Close(handle));
    }
}

unsafe extern "C" fn connect(
    s: SOCKET,
    name: *const libc::sockaddr,
    len: c_int,
    caller: LPWSABUF,
    callee: LPWSABUF,
    sqos: LPQOS,
    gqos: LPQOS,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's address.
    let to = unsafe { address(name, len) };
    let extras = !caller.is_null() || !callee.is_null() || !sqos.is_null() || !gqos.is_null();
    let detail = if extras {
        "BAD extras".to_owned()
    } else {
        to.to_string()
    };
    let result = call(s, "Connect", detail, |state| {
        let outcome = state.config.connect_outcome;
        let socket = existing(state, s)?;
        if socket.event == 0 || socket.mask & abi::FD_CONNECT == 0 {
            return Err(abi::WSAEINVAL);
        }
        socket.remote = Some(to);
        match outcome {
            None => {}
            Some(0) if request(state, s, to) => {}
            // It may be that TCP is served there.
            Some(0) => signal(existing(state, s)?, abi::FD_CONNECT_BIT, abi::WSAETIMEDOUT),
            Some(code) => signal(existing(state, s)?, abi::FD_CONNECT_BIT, code),
        }
        Err(abi::WSAEWOULDBLOCK)
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn accept(
    s: SOCKET,
    addr: *mut libc::sockaddr,
    addrlen: LPINT,
    condition: LPCONDITIONPROC,
    data: DWORD_PTR,
    errno: LPINT,
) -> SOCKET {
    let detail = if condition.is_some() {
        "condition"
    } else {
        "BAD no condition"
    };
    let next = {
        let mut state = STATE.lock();
        if let Some(code) = state.config.failing.get("Accept").copied() {
            // What fails to be accepted is refused.
            let refused = state
                .sockets
                .get_mut(&s)
                .and_then(|socket| socket.requests.pop_front());
            if let Some(socket) = refused.and_then(|number| state.sockets.get_mut(&number)) {
                signal(socket, abi::FD_CONNECT_BIT, abi::WSAECONNREFUSED);
            }
            Err(if refused.is_some() {
                code
            } else {
                abi::WSAEWOULDBLOCK
            })
        } else {
            loop {
                let Some(socket) = state.sockets.get_mut(&s) else {
                    break Err(abi::WSAENOTSOCK);
                };
                let Some(number) = socket.requests.pop_front() else {
                    break Err(abi::WSAEWOULDBLOCK);
                };
                // A connector that was closed meanwhile is no request.
                if let Some(connector) = state.sockets.get(&number) {
                    break Ok((number, connector.local.unwrap(), connector.remote.unwrap()));
                }
            }
        }
    };
    let (connector, peer, local) = match next {
        Ok(next) => next,
        Err(code) => {
            record(s, "Accept", detail, code);
            // SAFETY: the switch's.
            unsafe { errno.write(code) };
            return INVALID_SOCKET;
        }
    };
    let (mut peer_bytes, mut local_bytes) = (bytes_of(peer), bytes_of(local));
    let buffer = |bytes: &mut Vec<u8>| WSABUF {
        len: u32::try_from(bytes.len()).unwrap(),
        buf: bytes.as_mut_ptr().cast(),
    };
    let (mut caller, mut callee) = (buffer(&mut peer_bytes), buffer(&mut local_bytes));
    let null = std::ptr::null_mut();
    // SAFETY: the switch's condition function, on its own thread and outside the lock.
    let verdict = unsafe {
        condition.unwrap()(
            &raw mut caller,
            null,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut callee,
            null,
            std::ptr::null_mut(),
            data,
        )
    };
    if verdict != abi::CF_ACCEPT {
        if let Some(socket) = STATE.lock().sockets.get_mut(&connector) {
            signal(socket, abi::FD_CONNECT_BIT, abi::WSAECONNREFUSED);
        }
        record(s, "Accept", detail, abi::WSAECONNREFUSED);
        // SAFETY: the switch's.
        unsafe { errno.write(abi::WSAECONNREFUSED) };
        return INVALID_SOCKET;
    }
    let made = Socket {
        local: Some(local),
        remote: Some(peer),
        peer: Some(connector),
        is_connected: true,
        ..Socket::default()
    };
    let number = admit(made, false);
    {
        let mut state = STATE.lock();
        if let Some(socket) = state.sockets.get_mut(&connector) {
            socket.peer = Some(number);
            socket.is_connected = true;
            signal(socket, abi::FD_CONNECT_BIT, 0);
        }
        if let Some(listener) = state.sockets.get_mut(&s).filter(|s| !s.requests.is_empty()) {
            signal(listener, abi::FD_ACCEPT_BIT, 0);
        }
    }
    record(s, "Accept", detail, 0);
    record(number, "Accepted", "", 0);
    // SAFETY: the switch's room is large enough for every address.
    unsafe {
        std::ptr::copy_nonoverlapping(peer_bytes.as_ptr(), addr.cast(), peer_bytes.len());
        addrlen.write(c_int::try_from(peer_bytes.len()).unwrap());
    }
    number
}

/// Whether something is registered that no operation uses: the switch should have ended that.
fn is_left(socket: &Socket) -> bool {
    let in_use = |one: &Registered| {
        let buffers = socket.receives.iter().flat_map(|posted| &posted.buffers);
        buffers
            .into_iter()
            .any(|(base, len)| *base < one.base + one.len && one.base < *base + *len)
    };
    !socket.exposed.is_empty() || socket.memory.iter().any(|one| !in_use(one))
}

unsafe extern "C" fn close_socket(s: SOCKET, errno: LPINT) -> c_int {
    let left = STATE.lock().sockets.get(&s).is_some_and(is_left);
    let detail = if left {
        "BAD memory is left registered"
    } else {
        ""
    };
    let result = call(s, "CloseSocket", detail, |state| {
        if !state.sockets.contains_key(&s) {
            return Err(abi::WSAENOTSOCK);
        }
        state.flush(s);
        let Some(socket) = state.sockets.remove(&s) else {
            return Err(abi::WSAENOTSOCK);
        };
        // Requests that nobody has answered are refused.
        for number in socket.requests {
            if let Some(connector) = state.sockets.get_mut(&number) {
                signal(connector, abi::FD_CONNECT_BIT, abi::WSAECONNREFUSED);
            }
        }
        if socket.handle != 0 {
            later(Upcall::Close(socket.handle));
        }
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn duplicate_socket(
    s: SOCKET,
    _process: DWORD,
    _info: LPWSAPROTOCOL_INFOW,
    errno: LPINT,
) -> c_int {
    let result = call(s, "DuplicateSocket", "", |_| Err(abi::WSAEOPNOTSUPP));
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn get_qos_by_name(
    s: SOCKET,
    _name: LPWSABUF,
    _qos: LPQOS,
    errno: LPINT,
) -> BOOL {
    record(s, "GetQOSByName", "", abi::WSAEOPNOTSUPP);
    // SAFETY: the switch's.
    unsafe { errno.write(abi::WSAEOPNOTSUPP) };
    abi::FALSE
}

unsafe extern "C" fn get_sock_opt(
    s: SOCKET,
    level: c_int,
    name: c_int,
    value: *mut c_char,
    len: LPINT,
    errno: LPINT,
) -> c_int {
    assert_eq!(level, abi::WSD_SOL_SOCKET);
    // SAFETY: the switch's.
    assert_eq!(unsafe { len.read() }, 4);
    let result = call(s, "GetSockOpt", format!("{name:#x}"), |state| {
        existing(state, s)?;
        let config = &state.config;
        let found = match name {
            abi::SO_MAX_MSG_SIZE => config.max_message,
            abi::SO_MAX_RDMA_SIZE => config.max_rdma,
            abi::SO_RDMA_THRESHOLD_SIZE => config.threshold,
            _ => None,
        };
        found.ok_or(abi::WSAENOPROTOOPT)
    });
    // SAFETY: the switch's, four bytes long.
    let result = result.map(|found| unsafe { value.cast::<u32>().write_unaligned(found) });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn set_sock_opt(
    s: SOCKET,
    _level: c_int,
    name: c_int,
    _value: *const c_char,
    _len: c_int,
    errno: LPINT,
) -> c_int {
    let result = call(s, "SetSockOpt", format!("{name:#x}"), |state| {
        existing(state, s)?;
        if name == abi::WSD_SO_DEBUG {
            Ok(())
        } else {
            Err(abi::WSAENOPROTOOPT)
        }
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn ioctl(
    s: SOCKET,
    code: DWORD,
    input: LPVOID,
    input_len: DWORD,
    output: LPVOID,
    output_len: DWORD,
    returned: LPDWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    assert!(overlapped.is_null() && routine.is_none());
    let result = match code {
        abi::SIO_ADDRESS_LIST_QUERY => {
            // SAFETY: the switch's room, as large as stated.
            unsafe { list_addresses(s, output, output_len as usize, returned) }
        }
        abi::SIO_GET_EXTENSION_FUNCTION_POINTER => {
            assert_eq!((input_len, output_len), (16, 8));
            // SAFETY: the switch's, sixteen bytes long.
            let guid = unsafe { input.cast::<GUID>().read_unaligned() };
            extension(s, guid).map(|function| {
                // SAFETY: the switch's, eight bytes long.
                unsafe { output.cast::<*const c_void>().write_unaligned(function) };
            })
        }
        _ => call(s, "Ioctl", "BAD code", |_| Err(abi::WSAEINVAL)),
    };
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

/// # Safety
/// `output` has room for `room` bytes.
unsafe fn list_addresses(
    s: SOCKET,
    output: LPVOID,
    room: usize,
    returned: LPDWORD,
) -> Result<(), i32> {
    let addresses = STATE.lock().config.addresses.clone();
    let bytes: Vec<Vec<u8>> = addresses
        .iter()
        .map(|ip: &IpAddr| bytes_of(SocketAddr::new(*ip, 0)))
        .collect();
    let head = 8 + 16 * bytes.len();
    let needed = head + bytes.iter().map(Vec::len).sum::<usize>();
    // SAFETY: the switch's.
    unsafe { returned.write(u32::try_from(needed).unwrap()) };
    let detail = if room < needed {
        "addresses, short"
    } else {
        "addresses"
    };
    call(s, "Ioctl", detail, |_| {
        if room < needed {
            Err(abi::WSAEFAULT)
        } else {
            Ok(())
        }
    })?;
    let mut list = Vec::new();
    list.extend(i32::try_from(bytes.len()).unwrap().to_ne_bytes());
    list.extend([0; 4]);
    let mut at = head;
    for address in &bytes {
        list.extend((output.addr() + at).to_ne_bytes());
        list.extend(i32::try_from(address.len()).unwrap().to_ne_bytes());
        list.extend([0; 4]);
        at += address.len();
    }
    list.extend(bytes.into_iter().flatten());
    // SAFETY: room enough.
    unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), output.cast(), list.len()) };
    Ok(())
}

fn extension(s: SOCKET, guid: GUID) -> Result<*const c_void, i32> {
    let all: [(&str, GUID, *const c_void); 8] = [
        ("RegisterMemory", abi::WSAID_REGISTERMEMORY, register as _),
        (
            "DeregisterMemory",
            abi::WSAID_DEREGISTERMEMORY,
            deregister as _,
        ),
        (
            "RegisterRdmaMemory",
            abi::WSAID_REGISTERRDMAMEMORY,
            register_rdma as _,
        ),
        (
            "DeregisterRdmaMemory",
            abi::WSAID_DEREGISTERRDMAMEMORY,
            deregister_rdma as _,
        ),
        ("RdmaWrite", abi::WSAID_RDMAWRITE, rdma_write as _),
        ("RdmaRead", abi::WSAID_RDMAREAD, rdma_read as _),
        (
            "MemoryRegistrationCacheCallback",
            abi::WSAID_MEMORYREGISTRATIONCACHECALLBACK,
            { std::ptr::null() },
        ),
        (
            "ArmCompletion",
            abi::WSAID_ARMCOMPLETION,
            arm_completion as _,
        ),
    ];
    let (name, _, function) = all.into_iter().find(|entry| entry.1 == guid).unwrap();
    call(s, "Ioctl", name, |state| {
        let config = &state.config;
        let refused = config.missing.contains(&name)
            || name == "RdmaRead" && !config.rdma_read
            || function.is_null();
        if name == "ArmCompletion" && !config.arm {
            Err(abi::WSAEINVAL)
        } else if refused {
            Err(abi::WSAEOPNOTSUPP)
        } else {
            Ok(function)
        }
    })
}

fn rights(flags: u32) -> &'static str {
    match flags {
        abi::MEM_READ => "read",
        abi::MEM_WRITE => "write",
        abi::MEM_READWRITE => "read and write",
        _ => "BAD rights",
    }
}

unsafe extern "C" fn register(
    s: SOCKET,
    base: LPVOID,
    len: DWORD,
    flags: DWORD,
    errno: LPINT,
) -> HANDLE {
    let number = fresh();
    let base = base.expose_provenance();
    let result = call(s, "RegisterMemory", rights(flags), |state| {
        let socket = existing(state, s)?;
        if !socket.is_connected {
            return Err(abi::WSAENOTCONN);
        }
        socket.memory.push(Registered {
            number,
            base,
            len: len as usize,
            flags,
        });
        Ok(())
    });
    // SAFETY: the switch's.
    match unsafe { give(errno, result) } {
        0 => std::ptr::without_provenance_mut(number),
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn deregister(s: SOCKET, handle: HANDLE, errno: LPINT) -> c_int {
    let result = call(s, "DeregisterMemory", "", |state| {
        let socket = existing(state, s)?;
        let place = socket
            .memory
            .iter()
            .position(|one| one.number == handle.addr());
        let place = place.ok_or(abi::WSAEINVAL)?;
        let one = &socket.memory[place];
        let touches =
            |(base, len): &(usize, usize)| *base < one.base + one.len && one.base < *base + *len;
        if socket
            .receives
            .iter()
            .any(|posted| posted.buffers.iter().any(touches))
        {
            return Err(abi::WSAEINVAL);
        }
        socket.memory.remove(place);
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn register_rdma(
    s: SOCKET,
    base: LPVOID,
    len: DWORD,
    flags: DWORD,
    descriptor: LPVOID,
    room: LPDWORD,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's.
    let given = unsafe { room.read() } as usize;
    let needed = STATE.lock().config.descriptor_len;
    let number = fresh();
    let base = base.expose_provenance();
    let detail = if given < needed {
        "probe"
    } else {
        rights(flags)
    };
    let result = call(s, "RegisterRdmaMemory", detail, |state| {
        let socket = existing(state, s)?;
        if given < needed {
            return Err(abi::WSAEFAULT);
        }
        if !socket.is_connected {
            return Err(abi::WSAENOTCONN);
        }
        socket.exposed.push(Registered {
            number,
            base,
            len: len as usize,
            flags,
        });
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { room.write(u32::try_from(needed).unwrap()) };
    if result.is_ok() {
        let mut bytes = vec![0xD5; needed];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        // SAFETY: room enough, as checked.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), descriptor.cast(), needed) };
    }
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn deregister_rdma(
    s: SOCKET,
    descriptor: LPVOID,
    len: DWORD,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's descriptor, as long as stated.
    let bytes = unsafe { std::slice::from_raw_parts(descriptor.cast::<u8>(), len as usize) };
    let number = usize::from_le_bytes(bytes[..8].try_into().unwrap());
    let result = call(s, "DeregisterRdmaMemory", "", |state| {
        let socket = existing(state, s)?;
        let place = socket.exposed.iter().position(|one| one.number == number);
        socket.exposed.remove(place.ok_or(abi::WSAEINVAL)?);
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

/// What there is to say about an operation's arguments, and how its end is to be told.
///
/// # Safety
/// `overlapped` is null or the switch's.
unsafe fn operation(
    bytes: usize,
    flags: DWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> (String, Overlapped) {
    if flags != 0 || overlapped.is_null() || routine.is_some() {
        return (
            "BAD flags, overlapped or routine".to_owned(),
            Overlapped {
                address: 0,
                is_polled: true,
            },
        );
    }
    // SAFETY: the switch's, and not in use yet.
    let event = unsafe { (*overlapped).hEvent }.addr();
    let told = match event {
        0 => "upcall",
        1 => "poll",
        _ => "BAD hEvent",
    };
    // SAFETY: as above.
    unsafe { (*overlapped).Internal = abi::WSS_OPERATION_IN_PROGRESS };
    let address = overlapped.expose_provenance();
    (
        format!("{bytes} bytes, {told}"),
        Overlapped {
            address,
            is_polled: event & 1 == 1,
        },
    )
}

fn pending(result: Result<(), i32>) -> Result<(), i32> {
    result.and(Err(abi::WSA_IO_PENDING))
}

unsafe extern "C" fn send(
    s: SOCKET,
    buffers: LPWSABUF,
    count: DWORD,
    _sent: LPDWORD,
    flags: DWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's entries.
    let pieces = unsafe { memory::pieces(buffers, count) };
    let total = pieces.iter().map(|(_, len)| len).sum();
    // SAFETY: the switch's.
    let (detail, overlapped) = unsafe { operation(total, flags, overlapped, routine) };
    let result = call(s, "Send", detail, |state| {
        pending(state.send(s, &pieces, overlapped))
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn recv(
    s: SOCKET,
    buffers: LPWSABUF,
    count: DWORD,
    _received: LPDWORD,
    flags: LPDWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's entries.
    let pieces = unsafe { memory::pieces(buffers, count) };
    let total = pieces.iter().map(|(_, len)| len).sum();
    // SAFETY: the switch's.
    let flags = unsafe { flags.read() };
    // SAFETY: the switch's.
    let (detail, overlapped) = unsafe { operation(total, flags, overlapped, routine) };
    let result = call(s, "Recv", detail, |state| {
        pending(state.receive(s, pieces, overlapped))
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn rdma_write(
    s: SOCKET,
    buffers: LPWSABUFEX,
    count: DWORD,
    descriptor: LPVOID,
    len: DWORD,
    offset: DWORD,
    _written: LPDWORD,
    flags: DWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    let remote = (descriptor, len, offset);
    // SAFETY: everything is the switch's.
    unsafe {
        rdma(
            "RdmaWrite",
            s,
            (buffers, count),
            remote,
            flags,
            (overlapped, routine),
            errno,
        )
    }
}

unsafe extern "C" fn rdma_read(
    s: SOCKET,
    buffers: LPWSABUFEX,
    count: DWORD,
    descriptor: LPVOID,
    len: DWORD,
    offset: DWORD,
    _read: LPDWORD,
    flags: DWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    let remote = (descriptor, len, offset);
    // SAFETY: everything is the switch's.
    unsafe {
        rdma(
            "RdmaRead",
            s,
            (buffers, count),
            remote,
            flags,
            (overlapped, routine),
            errno,
        )
    }
}

/// # Safety
/// As the interface says.
unsafe fn rdma(
    name: &'static str,
    s: SOCKET,
    (buffers, count): (LPWSABUFEX, DWORD),
    (descriptor, len, offset): (LPVOID, DWORD, DWORD),
    flags: DWORD,
    (overlapped, routine): (LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE),
    errno: LPINT,
) -> c_int {
    // SAFETY: the switch's entries.
    let local = unsafe { memory::pieces_with_handles(buffers, count) };
    // SAFETY: the switch's descriptor.
    let remote = unsafe { std::slice::from_raw_parts(descriptor.cast::<u8>(), len as usize) };
    let total = local.iter().map(|(_, len, _)| len).sum();
    // SAFETY: the switch's.
    let (detail, overlapped) = unsafe { operation(total, flags, overlapped, routine) };
    let detail = if local.len() > 4 {
        "BAD pieces".to_owned()
    } else {
        detail
    };
    let result = call(s, name, detail, |state| {
        let remote = (remote, offset as usize);
        pending(state.rdma(s, name == "RdmaRead", &local, remote, overlapped))
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

unsafe extern "C" fn get_overlapped_result(
    s: SOCKET,
    overlapped: LPWSAOVERLAPPED,
    transferred: LPDWORD,
    wait: BOOL,
    flags: LPDWORD,
    errno: LPINT,
) -> BOOL {
    let mut state = STATE.lock();
    let result = (|| {
        if let Some(code) = state.config.failing.get("GetOverlappedResult") {
            return Err(*code);
        }
        let socket = existing(&mut state, s)?;
        // SAFETY: the switch's operation; the word is aligned.
        let word =
            unsafe { std::sync::atomic::AtomicUsize::from_ptr(&raw mut (*overlapped).Internal) };
        if word.load(std::sync::atomic::Ordering::Acquire) == abi::WSS_OPERATION_IN_PROGRESS {
            return Err(abi::WSA_IO_INCOMPLETE);
        }
        // SAFETY: over, so the fields stay as they are.
        let over = unsafe { overlapped.read() };
        if over.hEvent.addr() & 1 == 1 {
            socket.uncollected = socket.uncollected.saturating_sub(1);
        }
        // SAFETY: the switch's.
        unsafe { flags.write(over.Offset) };
        match over.OffsetHigh.cast_signed() {
            0 => Ok(over.InternalHigh),
            code => Err(code),
        }
    })();
    let code = result.err().unwrap_or(0);
    if code != abi::WSA_IO_INCOMPLETE {
        let detail = if wait == abi::FALSE { "" } else { "BAD wait" }.to_owned();
        state.trace.push(super::Call {
            socket: s,
            name: "GetOverlappedResult",
            detail,
            code,
        });
    }
    drop(state);
    match result {
        Ok(bytes) => {
            // SAFETY: the switch's.
            unsafe { transferred.write(u32::try_from(bytes).unwrap()) };
            abi::TRUE
        }
        Err(code) => {
            // SAFETY: the switch's.
            unsafe { errno.write(code) };
            abi::FALSE
        }
    }
}

unsafe extern "C" fn arm_completion(
    s: SOCKET,
    descriptor: LPINT,
    something: LPBOOL,
    errno: LPINT,
) -> c_int {
    let mut state = STATE.lock();
    let result = (|| {
        let gone = {
            let socket = existing(&mut state, s)?;
            if !socket.is_connected {
                return Err(abi::WSAENOTCONN);
            }
            socket.peer
        };
        let gone = !gone.is_some_and(|peer| state.sockets.contains_key(&peer));
        let socket = existing(&mut state, s)?;
        let wake = socket.wake.get_or_insert_with(WakeUp::new);
        let mut count = [0; 8];
        let _emptied = wake.file.read(&mut count);
        wake.is_armed = true;
        let fd = wake.file.as_raw_fd();
        let is_pending = socket.uncollected > 0;
        if gone && !is_pending {
            // The end has come: readable at once.
            socket.wake.as_ref().unwrap().set();
        }
        Ok((fd, is_pending))
    })();
    drop(state);
    match result {
        Ok((fd, is_pending)) => {
            // SAFETY: the switch's.
            unsafe {
                descriptor.write(fd);
                something.write(BOOL::from(is_pending));
            }
            0
        }
        Err(code) => {
            // SAFETY: the switch's.
            unsafe { errno.write(code) };
            SOCKET_ERROR
        }
    }
}

macro_rules! forbidden {
    ($($name:ident($($argument:ty),*) -> $result:ty = $value:expr;)*) => {$(
        unsafe extern "C" fn $name($(_: $argument),*) -> $result {
            record(0, "FORBIDDEN", stringify!($name), 0);
            $value
        }
    )*};
}

forbidden! {
    address_to_string(*mut libc::sockaddr, DWORD, LPWSAPROTOCOL_INFOW, LPWSTR, LPDWORD, LPINT)
        -> c_int = SOCKET_ERROR;
    async_select(SOCKET, HWND, UINT, i32, LPINT) -> c_int = SOCKET_ERROR;
    cancel_blocking_call(LPINT) -> c_int = SOCKET_ERROR;
    get_peer_name(SOCKET, *mut libc::sockaddr, LPINT, LPINT) -> c_int = SOCKET_ERROR;
    get_sock_name(SOCKET, *mut libc::sockaddr, LPINT, LPINT) -> c_int = SOCKET_ERROR;
    join_leaf(SOCKET, *const libc::sockaddr, c_int, LPWSABUF, LPWSABUF, LPQOS, LPQOS, DWORD, LPINT)
        -> SOCKET = INVALID_SOCKET;
    recv_disconnect(SOCKET, LPWSABUF, LPINT) -> c_int = SOCKET_ERROR;
    recv_from(SOCKET, LPWSABUF, DWORD, LPDWORD, LPDWORD, *mut libc::sockaddr, LPINT,
        LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, LPINT)
        -> c_int = SOCKET_ERROR;
    select(c_int, *mut libc::fd_set, *mut libc::fd_set, *mut libc::fd_set, *const libc::timeval,
        LPINT) -> c_int = SOCKET_ERROR;
    send_disconnect(SOCKET, LPWSABUF, LPINT) -> c_int = SOCKET_ERROR;
    send_to(SOCKET, LPWSABUF, DWORD, LPDWORD, DWORD, *const libc::sockaddr, c_int,
        LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, LPINT)
        -> c_int = SOCKET_ERROR;
    shutdown(SOCKET, c_int, LPINT) -> c_int = SOCKET_ERROR;
    string_to_address(LPWSTR, c_int, LPWSAPROTOCOL_INFOW, *mut libc::sockaddr, LPINT, LPINT)
        -> c_int = SOCKET_ERROR;
}
