//! Calls into the switch. Implements what the engine asks of it.
//!
//! Owns a copy of the upcall table. No lock is held when any of these is called.

use core::ffi::c_int;

use super::args;
use super::codes::of_end;
use super::overlapped::Overlapped;
use super::sys;
use crate::abi::{
    HANDLE, INVALID_SOCKET, LPINT, LPWPUCLOSESOCKETHANDLE, LPWPUCOMPLETEOVERLAPPEDREQUEST,
    LPWPUCREATESOCKETHANDLE, LPWPURESETEVENT, LPWPUSETEVENT, SOCKET_ERROR, WSPUPCALLTABLEEX,
};
use crate::engine::{EventObject, Handle, Report, Switch, SwitchSocket, Ticket};

/// The upcalls that a SAN provider makes.
#[derive(Clone, Copy)]
pub(super) struct Upcalls {
    create: LPWPUCREATESOCKETHANDLE,
    close: LPWPUCLOSESOCKETHANDLE,
    complete: LPWPUCOMPLETEOVERLAPPEDREQUEST,
    /// Optional: without them the provider signals the eventfd itself.
    set: LPWPUSETEVENT,
    reset: LPWPURESETEVENT,
}

impl Upcalls {
    /// None when one is missing that nothing can do without.
    pub(super) fn new(table: &WSPUPCALLTABLEEX) -> Option<Self> {
        let complete = table.lpWPUCompleteOverlappedRequest;
        table.lpWPUCreateSocketHandle?;
        table.lpWPUCloseSocketHandle?;
        complete?;
        Some(Self {
            create: table.lpWPUCreateSocketHandle,
            close: table.lpWPUCloseSocketHandle,
            complete,
            set: table.lpWPUSetEvent,
            reset: table.lpWPUResetEvent,
        })
    }
}

fn event_handle(event: EventObject) -> HANDLE {
    std::ptr::with_exposed_provenance_mut(event.0)
}

impl Switch for Upcalls {
    fn open(&self, catalog: u32, socket: Handle) -> Result<SwitchSocket, i32> {
        let mut code: c_int = 0;
        let lp_errno: LPINT = &raw mut code;
        let Some(create) = self.create else {
            return Err(0);
        };
        // SAFETY: a function of the switch's table, called as the interface says.
        let made = unsafe { create(catalog, args::socket(socket), lp_errno) };
        if made == INVALID_SOCKET {
            return Err(code);
        }
        Ok(SwitchSocket(made))
    }

    fn close(&self, socket: SwitchSocket) {
        let mut code: c_int = 0;
        if let Some(close) = self.close {
            // SAFETY: a function of the switch's table; the socket is one that it gave us.
            let result = unsafe { close(socket.0, &raw mut code) };
            if result == SOCKET_ERROR {
                tracing::warn!(code, "the switch does not take its socket back");
            }
        }
    }

    fn begin(&self, ticket: &Ticket, bytes: usize) {
        // SAFETY: the call that starts the operation is still under way.
        unsafe { Overlapped::of(ticket) }.begin(ticket.flags, bytes);
    }

    fn publish(&self, report: &Report) {
        // SAFETY: the operation has not ended for the switch before this stores it.
        unsafe { Overlapped::of(&report.ticket) }.publish(report);
    }

    fn report(&self, socket: SwitchSocket, report: &Report) {
        // SAFETY: the operation has not ended for the switch before its upcall.
        let overlapped = unsafe { Overlapped::of(&report.ticket) };
        overlapped.prepare(report);
        let mut code: c_int = 0;
        let Some(complete) = self.complete else {
            return;
        };
        let error = of_end(report.end).unsigned_abs();
        let bytes = u32::try_from(report.bytes).unwrap_or(u32::MAX);
        let structure = std::ptr::with_exposed_provenance_mut(overlapped.address());
        // SAFETY: a function of the switch's table; the socket is one that it gave us and has not
        // got back, the structure is that of an operation that it asked to be told of.
        let result = unsafe { complete(socket.0, structure, error, bytes, &raw mut code) };
        if result == SOCKET_ERROR {
            tracing::warn!(code, "the switch does not take a completion");
        }
    }

    fn set(&self, event: EventObject) {
        let mut code: c_int = 0;
        match self.set {
            // SAFETY: a function of the switch's table, with an event that the switch named.
            Some(set) => unsafe {
                set(event_handle(event), &raw mut code);
            },
            None => sys::set_event(event),
        }
    }

    fn reset(&self, event: EventObject) {
        let mut code: c_int = 0;
        match self.reset {
            // SAFETY: a function of the switch's table, with an event that the switch named.
            Some(reset) => unsafe {
                reset(event_handle(event), &raw mut code);
            },
            None => sys::reset_event(event),
        }
    }
}
