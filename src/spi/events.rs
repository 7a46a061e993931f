//! WSPEventSelect and WSPEnumNetworkEvents.

use core::ffi::c_int;
use core::mem::offset_of;

use super::args;
use super::codes::Code;
use super::entry::entry;
use crate::abi::{
    FD_ACCEPT, FD_ACCEPT_BIT, FD_CONNECT, FD_CONNECT_BIT, LONG, LPINT, LPWSANETWORKEVENTS, SOCKET,
    SOCKET_ERROR, WSAEVENT, WSANETWORKEVENTS,
};
use crate::engine::{EventObject, Interest, Record, Socket};

fn event(event: WSAEVENT) -> Option<EventObject> {
    (!event.is_null()).then(|| EventObject(event.expose_provenance()))
}

/// WSPEventSelect.
pub(super) unsafe extern "C" fn event_select(
    s: SOCKET,
    event_object: WSAEVENT,
    network_events: LONG,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        if network_events & !(FD_ACCEPT | FD_CONNECT) != 0 {
            return Err(Code::INVALID);
        }
        let interest = Interest {
            accept: network_events & FD_ACCEPT != 0,
            connect: network_events & FD_CONNECT != 0,
        };
        // Nothing wanted cancels; the event does not count then.
        let event = event(event_object).filter(|_| network_events != 0);
        if network_events != 0 && event.is_none() {
            return Err(Code::INVALID);
        }
        socket.select_events(event, interest);
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPEventSelect", lp_errno, SOCKET_ERROR, body) }
}

/// Stores a record: the mask, and the error codes of the bits that are set.
///
/// # Safety
/// The pointer is not null and points to a structure of the caller.
unsafe fn store(record: &Record, to: LPWSANETWORKEVENTS) -> Result<(), Code> {
    let errors = to.wrapping_byte_add(offset_of!(WSANETWORKEVENTS, iErrorCode));
    let slot = |bit: c_int| {
        errors
            .cast::<c_int>()
            .wrapping_add(bit.unsigned_abs() as usize)
    };
    let mut mask = 0;
    if record.accept {
        mask |= FD_ACCEPT;
        // SAFETY: the slot lies in the caller's structure.
        unsafe { args::write(slot(FD_ACCEPT_BIT), 0) }?;
    }
    if let Some(outcome) = record.connect {
        mask |= FD_CONNECT;
        let error = outcome.err().map_or(0, |failure| Code::from(failure).0);
        // SAFETY: the slot lies in the caller's structure.
        unsafe { args::write(slot(FD_CONNECT_BIT), error) }?;
    }
    let events = to.wrapping_byte_add(offset_of!(WSANETWORKEVENTS, lNetworkEvents));
    // SAFETY: the caller's structure.
    unsafe { args::write(events.cast::<LONG>(), mask) }
}

/// WSPEnumNetworkEvents.
pub(super) unsafe extern "C" fn enum_network_events(
    s: SOCKET,
    event_object: WSAEVENT,
    lp_network_events: LPWSANETWORKEVENTS,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        if lp_network_events.is_null() {
            return Err(Code::INVALID);
        }
        let record = socket.take_events(event(event_object));
        // SAFETY: not null; the caller's structure.
        unsafe { store(&record, lp_network_events) }?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPEnumNetworkEvents", lp_errno, SOCKET_ERROR, body) }
}
