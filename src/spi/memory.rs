//! WSPRegisterMemory, WSPDeregisterMemory, WSPRegisterRdmaMemory, WSPDeregisterRdmaMemory,
//! WSPRdmaRead, WSPRdmaWrite, WSPMemoryRegistrationCacheCallback.

use core::ffi::c_int;

use super::args;
use super::codes::Code;
use super::entry::entry;
use super::overlapped::Overlapped;
use crate::abi::{
    DWORD, HANDLE, LPDWORD, LPINT, LPVOID, LPWSABUFEX, LPWSAOVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, MEM_READ, MEM_READWRITE, MEM_WRITE, PVOID,
    SIZE_T, SOCKET, SOCKET_ERROR, WSABUFEX,
};
use crate::engine::{
    self, Access, Kind, MemoryError, Region, RegistrationId, Released, Socket, Span,
};

/// Exactly one of the three values.
fn access(flags: DWORD) -> Result<Access, Code> {
    match flags {
        MEM_READ => Ok(Access::READ),
        MEM_WRITE => Ok(Access::WRITE),
        MEM_READWRITE => Ok(Access::READ | Access::WRITE),
        _ => Err(Code::INVALID),
    }
}

/// A region that could lie in the address space; whether it does, the fabric finds out.
fn region(buffer: PVOID, length: DWORD) -> Result<Region, Code> {
    // Exposed: the fabric makes pointers of the address.
    let base = buffer.expose_provenance();
    let len = length as usize;
    if base == 0 || len == 0 || base.checked_add(len).is_none() {
        return Err(Code::FAULT);
    }
    Ok(Region { base, len })
}

/// WSPRegisterMemory.
pub(super) unsafe extern "C" fn register(
    s: SOCKET,
    buffer: PVOID,
    length: DWORD,
    flags: DWORD,
    lp_errno: LPINT,
) -> HANDLE {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        let access = access(flags)?;
        let link = socket.link().map_err(|_| MemoryError::NotConnected)?;
        let region = region(buffer, length)?;
        let id = link.memory.register(
            link.endpoint(),
            region,
            access,
            &|endpoint, region, access| {
                // SAFETY: the switch keeps registered memory mapped until WSPDeregisterMemory
                // succeeded or the socket is closed, and the link deregisters in both cases.
                unsafe { endpoint.register(region, access) }
            },
        )?;
        let number = usize::try_from(id.0).map_err(|_| Code::DEFECT)?;
        Ok(std::ptr::without_provenance_mut(number))
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPRegisterMemory", lp_errno, std::ptr::null_mut(), body) }
}

fn registration(handle: HANDLE) -> RegistrationId {
    RegistrationId(handle.addr() as u64)
}

/// WSPDeregisterMemory.
pub(super) unsafe extern "C" fn deregister(s: SOCKET, handle: HANDLE, lp_errno: LPINT) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        let link = socket.link().map_err(|_| MemoryError::Unknown)?;
        link.deregister(registration(handle))?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPDeregisterMemory", lp_errno, SOCKET_ERROR, body) }
}

/// WSPRegisterRdmaMemory.
pub(super) unsafe extern "C" fn register_rdma(
    s: SOCKET,
    buffer: PVOID,
    length: DWORD,
    flags: DWORD,
    lp_descriptor: LPVOID,
    lp_descriptor_length: LPDWORD,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        let needed = socket.provider().caps().descriptor_len;
        let needed_length = u32::try_from(needed).map_err(|_| Code::DEFECT)?;
        // SAFETY: null, or the caller's.
        let room = unsafe { args::read(lp_descriptor_length) }?;
        // req: WSD-15, this is how the switch learns the length; nothing else is looked at.
        if room < needed_length {
            // SAFETY: was read before.
            unsafe { args::write(lp_descriptor_length, needed_length) }?;
            return Err(Code::FAULT);
        }
        if lp_descriptor.is_null() {
            return Err(Code::FAULT);
        }
        let access = access(flags)?;
        let link = socket.link().map_err(|_| MemoryError::NotConnected)?;
        let region = region(buffer, length)?;
        let descriptor = link.memory.expose(
            link.endpoint(),
            region,
            access,
            needed,
            &|endpoint, region, access, descriptor| {
                // SAFETY: the switch keeps exposed memory mapped until WSPDeregisterRdmaMemory
                // succeeded or the socket is closed, and the link conceals in both cases (as far as
                // a fabric can: docs/api-conventions.md, Ownership).
                unsafe { endpoint.expose(region, access, descriptor) }
            },
        )?;
        // SAFETY: the caller says that there is room for `room` bytes, which are enough.
        unsafe {
            std::ptr::copy_nonoverlapping(descriptor.as_ptr(), lp_descriptor.cast::<u8>(), needed);
        }
        // SAFETY: was read before.
        unsafe { args::write(lp_descriptor_length, needed_length) }?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPRegisterRdmaMemory", lp_errno, SOCKET_ERROR, body) }
}

/// WSPDeregisterRdmaMemory.
pub(super) unsafe extern "C" fn deregister_rdma(
    s: SOCKET,
    lp_descriptor: LPVOID,
    descriptor_length: DWORD,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        // SAFETY: null, or the caller's bytes.
        let descriptor = unsafe { args::slice::<u8>(lp_descriptor.cast(), descriptor_length) }?;
        let link = socket.link().map_err(|_| MemoryError::Unknown)?;
        link.memory.conceal(link.endpoint(), descriptor)?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPDeregisterRdmaMemory", lp_errno, SOCKET_ERROR, body) }
}

/// The arguments that reads and writes have in common.
struct Transfer {
    s: SOCKET,
    buffers: LPWSABUFEX,
    buffer_count: DWORD,
    lp_descriptor: LPVOID,
    descriptor_length: DWORD,
    offset: DWORD,
    flags: DWORD,
    lp_overlapped: LPWSAOVERLAPPED,
}

/// # Safety
/// As the table's functions: pointers that are not null point to what their types say; the
/// structure stays until the operation has ended.
unsafe fn transfer(kind: Kind, call: &Transfer) -> Result<c_int, Code> {
    // A reference is counted: moving the data may take long.
    let socket = Socket::find(args::handle(call.s))?;
    // SAFETY: null, or the caller's array of that length.
    let buffers = unsafe { args::slice::<WSABUFEX>(call.buffers, call.buffer_count) }?;
    let descriptor = call.lp_descriptor.cast::<u8>();
    // SAFETY: null, or the caller's bytes.
    let descriptor = unsafe { args::slice(descriptor.cast_const(), call.descriptor_length) }?;
    // SAFETY: null, or a structure that stays until the operation has ended.
    let overlapped = unsafe { Overlapped::new(call.lp_overlapped) }?;
    if call.flags != 0 {
        return Err(Code::INVALID);
    }
    let spans = buffers.iter().map(|buffer| {
        let span = Span {
            address: buffer.buf.expose_provenance(),
            len: buffer.len as usize,
        };
        (registration(buffer.handle), span)
    });
    let ticket = overlapped.ticket(call.flags);
    socket
        .link()?
        .rdma(kind, ticket, spans, descriptor, u64::from(call.offset))?;
    Err(Code::PENDING)
}

/// WSPRdmaWrite.
pub(super) unsafe extern "C" fn rdma_write(
    s: SOCKET,
    buffers: LPWSABUFEX,
    buffer_count: DWORD,
    lp_descriptor: LPVOID,
    descriptor_length: DWORD,
    offset: DWORD,
    _lp_bytes_written: LPDWORD,
    flags: DWORD,
    lp_overlapped: LPWSAOVERLAPPED,
    _completion_routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _lp_thread_id: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    let call = Transfer {
        s,
        buffers,
        buffer_count,
        lp_descriptor,
        descriptor_length,
        offset,
        flags,
        lp_overlapped,
    };
    // SAFETY: the caller's promises are passed on.
    let body = || unsafe { transfer(Kind::Write, &call) };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPRdmaWrite", lp_errno, SOCKET_ERROR, body) }
}

/// WSPRdmaRead.
pub(super) unsafe extern "C" fn rdma_read(
    s: SOCKET,
    buffers: LPWSABUFEX,
    buffer_count: DWORD,
    lp_descriptor: LPVOID,
    descriptor_length: DWORD,
    offset: DWORD,
    _lp_bytes_read: LPDWORD,
    flags: DWORD,
    lp_overlapped: LPWSAOVERLAPPED,
    _completion_routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _lp_thread_id: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    let call = Transfer {
        s,
        buffers,
        buffer_count,
        lp_descriptor,
        descriptor_length,
        offset,
        flags,
        lp_overlapped,
    };
    // SAFETY: the caller's promises are passed on.
    let body = || unsafe { transfer(Kind::Read, &call) };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPRdmaRead", lp_errno, SOCKET_ERROR, body) }
}

/// WSPMemoryRegistrationCacheCallback.
// req: LATER-04
pub(super) unsafe extern "C" fn registration_cache_callback(
    address: LPVOID,
    size: SIZE_T,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let (provider, _) = engine::running()?;
        if !provider.keeps_registrations() {
            return Err(Code::NOT_SUPPORTED);
        }
        let (base, len) = (address.addr(), size);
        // A range that is none, or of which nothing is kept: no error to the caller's harm, but the
        // published answer. What is in use stays pinned until its last use has ended, and that has
        // a code of its own.
        match provider.memory_released(Region { base, len }) {
            Released::NotKept => Err(Code::INVALID),
            Released::InUse => Err(Code::FAULT),
            Released::Ended => Ok(0),
        }
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe {
        entry(
            "WSPMemoryRegistrationCacheCallback",
            lp_errno,
            SOCKET_ERROR,
            body,
        )
    }
}
