//! WSPSend, WSPRecv, WSPGetOverlappedResult, WSPArmCompletion.

use core::ffi::c_int;

use super::args;
use super::codes::Code;
use super::entry::entry;
use super::overlapped::{Outcome, Overlapped};
use crate::abi::{
    BOOL, DWORD, FALSE, LPBOOL, LPDWORD, LPINT, LPWSABUF, LPWSAOVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, SOCKET, SOCKET_ERROR, TRUE, WSABUF,
    WSD_MSG_OOB, WSD_MSG_PEEK,
};
use crate::engine::{Handle, Kind, Socket, Span, TABLE, Waited};

fn span(buffer: &WSABUF) -> Span {
    Span {
        // The fabric reads and writes the memory by its address.
        address: buffer.buf.expose_provenance(),
        len: buffer.len as usize,
    }
}

/// WSPSend.
pub(super) unsafe extern "C" fn send(
    s: SOCKET,
    buffers: LPWSABUF,
    buffer_count: DWORD,
    _lp_bytes_sent: LPDWORD,
    flags: DWORD,
    lp_overlapped: LPWSAOVERLAPPED,
    _completion_routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _lp_thread_id: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        Socket::with(args::handle(s), |socket| {
            // SAFETY: null, or the caller's array of that length.
            let buffers = unsafe { args::slice::<WSABUF>(buffers, buffer_count) }?;
            // SAFETY: null, or a structure that stays until the operation has ended.
            let overlapped = unsafe { Overlapped::new(lp_overlapped) }?;
            if flags != 0 {
                return Err(Code::INVALID);
            }
            let ticket = overlapped.ticket(flags);
            let spans = buffers.iter().map(span);
            socket.link()?.message(Kind::Send, ticket, spans)?;
            // Always this, also when it is done by now: the result is there to be polled, or the
            // upcall comes.
            Err(Code::PENDING)
        })?
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPSend", lp_errno, SOCKET_ERROR, body) }
}

/// WSPRecv.
pub(super) unsafe extern "C" fn recv(
    s: SOCKET,
    buffers: LPWSABUF,
    buffer_count: DWORD,
    _lp_bytes_received: LPDWORD,
    lp_flags: LPDWORD,
    lp_overlapped: LPWSAOVERLAPPED,
    _completion_routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _lp_thread_id: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        Socket::with(args::handle(s), |socket| {
            // SAFETY: null, or the caller's array of that length.
            let buffers = unsafe { args::slice::<WSABUF>(buffers, buffer_count) }?;
            // SAFETY: null, or the caller's.
            let flags = unsafe { args::read(lp_flags) }?;
            // SAFETY: null, or a structure that stays until the operation has ended.
            let overlapped = unsafe { Overlapped::new(lp_overlapped) }?;
            // A message is always taken, and there is no urgent data at this level.
            if flags & (WSD_MSG_OOB | WSD_MSG_PEEK) != 0 {
                return Err(Code::NOT_SUPPORTED);
            }
            let ticket = overlapped.ticket(flags);
            let spans = buffers.iter().map(span);
            socket.link()?.message(Kind::Receive, ticket, spans)?;
            Err(Code::PENDING)
        })?
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPRecv", lp_errno, SOCKET_ERROR, body) }
}

/// WSPGetOverlappedResult.
pub(super) unsafe extern "C" fn get_overlapped_result(
    s: SOCKET,
    lp_overlapped: LPWSAOVERLAPPED,
    lp_transferred: LPDWORD,
    wait: BOOL,
    lp_flags: LPDWORD,
    lp_errno: LPINT,
) -> BOOL {
    let body = || {
        let handle = args::handle(s);
        if !TABLE.contains(handle) {
            return Err(Code::NOT_A_SOCKET);
        }
        // SAFETY: null, or a structure that the caller lends for the call.
        let overlapped = unsafe { Overlapped::new(lp_overlapped) }?;
        if lp_transferred.is_null() || lp_flags.is_null() {
            return Err(Code::FAULT);
        }
        let outcome = match overlapped.outcome() {
            Some(outcome) => outcome,
            None => match poll(handle, overlapped, wait != FALSE)? {
                Some(outcome) => outcome,
                None => advance(&*Socket::find(handle)?, overlapped, wait != FALSE)?,
            },
        };
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_transferred, outcome.bytes) }?;
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_flags, outcome.flags) }?;
        match outcome.error {
            0 => Ok(TRUE),
            error => Err(Code(error)),
        }
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPGetOverlappedResult", lp_errno, FALSE, body) }
}

/// Polls once. None when there is more to do that may take long, or makes upcalls.
fn poll(handle: Handle, overlapped: Overlapped, wait: bool) -> Result<Option<Outcome>, Code> {
    Socket::with(handle, |socket| {
        // Without a connection nothing can be in progress.
        let link = socket.link().map_err(|_| Code::INVALID)?;
        link.poll();
        match overlapped.outcome() {
            // Upcalls of others do not wait for the next call.
            Some(outcome) if !link.has_reports() => Ok(Some(outcome)),
            None if !link.has_reports() && !wait => Err(Code::INCOMPLETE),
            _ => Ok(None),
        }
    })?
}

/// Makes the upcalls that wait, and waits for the result if asked to.
fn advance(socket: &Socket, overlapped: Overlapped, wait: bool) -> Result<Outcome, Code> {
    let link = socket.link()?;
    link.advance();
    if let Some(outcome) = overlapped.outcome() {
        return Ok(outcome);
    }
    if wait {
        let waited = link.wait(overlapped.address(), &|| overlapped.has_ended());
        if let Some(outcome) = overlapped.outcome() {
            return Ok(outcome);
        }
        if waited == Waited::Unknown && socket.is_closed() {
            return Err(Code::NOT_A_SOCKET);
        }
    }
    Err(Code::INCOMPLETE)
}

/// WSPArmCompletion, our addition.
pub(super) unsafe extern "C" fn arm_completion(
    s: SOCKET,
    lp_descriptor: LPINT,
    lp_pending: LPBOOL,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        if lp_descriptor.is_null() || lp_pending.is_null() {
            return Err(Code::FAULT);
        }
        let link = socket.link()?;
        let pending = link.arm();
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_descriptor, link.descriptor()) }?;
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_pending, BOOL::from(pending)) }?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPArmCompletion", lp_errno, SOCKET_ERROR, body) }
}
