//! The mock provider's functions: registering memory.

use super::*;

pub(super) fn rights(flags: u32) -> &'static str {
    match flags {
        abi::MEM_READ => "read",
        abi::MEM_WRITE => "write",
        abi::MEM_READWRITE => "read and write",
        _ => "BAD rights",
    }
}

pub(super) unsafe extern "C" fn register(
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

pub(super) unsafe extern "C" fn deregister(s: SOCKET, handle: HANDLE, errno: LPINT) -> c_int {
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

pub(super) unsafe extern "C" fn register_rdma(
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

pub(super) unsafe extern "C" fn deregister_rdma(
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
