//! The mock provider's functions: sockets, and how they are connected and closed.

use super::*;

/// Has the switch make a handle, outside the lock, and keeps the socket.
pub(super) fn admit(mut made: Socket, without_handle: bool) -> SOCKET {
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

pub(super) unsafe extern "C" fn socket(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    info: LPWSAPROTOCOL_INFOW,
    group: GROUP,
    flags: DWORD,
    errno: LPINT,
) -> SOCKET {
    let which = Which::First;
    // SAFETY: the caller vouches for everything.
    unsafe { make(which, family, kind, protocol, info, group, flags, errno) }
}

pub(super) unsafe extern "C" fn other_socket(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    info: LPWSAPROTOCOL_INFOW,
    group: GROUP,
    flags: DWORD,
    errno: LPINT,
) -> SOCKET {
    let which = Which::Other;
    // SAFETY: the caller vouches for everything.
    unsafe { make(which, family, kind, protocol, info, group, flags, errno) }
}

/// # Safety
/// `errno` can be written to.
#[allow(
    clippy::too_many_arguments,
    reason = "those of WSPSocket, and whose it is"
)]
unsafe fn make(
    made_by: Which,
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
            let made = Socket {
                made_by,
                ..Socket::default()
            };
            let number = admit(made, without);
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

pub(super) unsafe extern "C" fn bind(
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

pub(super) unsafe extern "C" fn listen(s: SOCKET, backlog: c_int, errno: LPINT) -> c_int {
    // TCP is asked without the lock: who accepts takes it.
    let local = STATE.lock().sockets.get(&s).and_then(|socket| socket.local);
    let before_tcp = local.is_some_and(|local| std::net::TcpStream::connect(local).is_err());
    let detail = if before_tcp {
        "TCP refuses"
    } else {
        "TCP accepts"
    };
    assert!(backlog > 0);
    let result = call(s, "Listen", detail, |state| {
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

pub(super) fn signal(socket: &mut Socket, bit: c_int, code: i32) {
    socket.record.lNetworkEvents |= 1 << bit;
    socket.record.iErrorCode[usize::try_from(bit).unwrap()] = code;
    if socket.mask & 1 << bit != 0 {
        later(Upcall::Signal(socket.event));
    }
}

pub(super) unsafe extern "C" fn event_select(
    s: SOCKET,
    event: WSAEVENT,
    events: i32,
    errno: LPINT,
) -> c_int {
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

pub(super) unsafe extern "C" fn enum_network_events(
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

/// Puts a connect into the queue of the same entry's socket that listens there; `false` if none
/// does.
pub(super) fn request(state: &mut State, from: SOCKET, to: SocketAddr) -> bool {
    let made_by = state.maker(from);
    let serves = |socket: &Socket| {
        socket.is_listening
            && socket.made_by == made_by
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

pub(super) unsafe extern "C" fn connect(
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

pub(super) unsafe extern "C" fn accept(
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
        made_by: STATE.lock().maker(s),
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
pub(super) fn is_left(socket: &Socket) -> bool {
    let in_use = |one: &Registered| {
        let buffers = socket.receives.iter().flat_map(|posted| &posted.buffers);
        buffers
            .into_iter()
            .any(|(base, len)| *base < one.base + one.len && one.base < *base + *len)
    };
    !socket.exposed.is_empty() || socket.memory.iter().any(|one| !in_use(one))
}

pub(super) unsafe extern "C" fn close_socket(s: SOCKET, errno: LPINT) -> c_int {
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

pub(super) unsafe extern "C" fn duplicate_socket(
    s: SOCKET,
    _process: DWORD,
    _info: LPWSAPROTOCOL_INFOW,
    errno: LPINT,
) -> c_int {
    let result = call(s, "DuplicateSocket", "", |_| Err(abi::WSAEOPNOTSUPP));
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

pub(super) unsafe extern "C" fn get_qos_by_name(
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
