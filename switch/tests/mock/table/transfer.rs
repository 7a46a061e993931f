//! The mock provider's functions: messages, RDMA, and how their results are fetched.

use super::*;

/// What there is to say about an operation's arguments, and how its end is to be told.
///
/// # Safety
/// `overlapped` is null or the switch's.
pub(super) unsafe fn operation(
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

pub(super) fn pending(result: Result<(), i32>) -> Result<(), i32> {
    result.and(Err(abi::WSA_IO_PENDING))
}

pub(super) unsafe extern "C" fn send(
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

pub(super) unsafe extern "C" fn recv(
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

pub(super) unsafe extern "C" fn rdma_write(
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

pub(super) unsafe extern "C" fn rdma_read(
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
pub(super) unsafe fn rdma(
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

pub(super) unsafe extern "C" fn get_overlapped_result(
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
        let made_by = state.maker(s);
        state.trace.push(crate::mock::Call {
            socket: s,
            made_by,
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

pub(super) unsafe extern "C" fn arm_completion(
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
