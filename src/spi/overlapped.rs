//! The overlapped structure of an operation: who writes what, when.
//!
//! The structure belongs to the switch; the provider may touch it from the call that starts an
//! operation until it stores the result (or, for upcalls, until it makes the upcall), and a caller
//! of WSPGetOverlappedResult lends it for the call. Invariant: `Internal` is stored last.

use core::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::codes::{Code, of_end};
use crate::abi::{LPWSAOVERLAPPED, WSAOVERLAPPED, WSS_OPERATION_IN_PROGRESS};
use crate::engine::{Report, Ticket};

/// What `Internal` holds when the operation has ended.
const ENDED: usize = 0;

/// The result of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) error: c_int,
    pub(super) bytes: u32,
    pub(super) flags: u32,
}

/// An overlapped structure that the provider may touch now.
#[derive(Clone, Copy)]
pub(super) struct Overlapped(*mut WSAOVERLAPPED);

impl Overlapped {
    /// # Safety
    /// A pointer that is not null points to a structure that stays there until the operation has
    /// ended, or for the duration of the call.
    pub(super) unsafe fn new(pointer: LPWSAOVERLAPPED) -> Result<Self, Code> {
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(Code::INVALID);
        }
        Ok(Self(pointer))
    }

    /// # Safety
    /// The ticket is of an operation that has not ended.
    pub(super) unsafe fn of(ticket: &Ticket) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(ticket.address))
    }

    /// The ticket of an operation that is being started. Reads the low bit of `hEvent`, once.
    pub(super) fn ticket(self, flags: u32) -> Ticket {
        // SAFETY: the structure is there (`new`).
        let event = unsafe { (*self.0).hEvent };
        Ticket {
            address: self.0.expose_provenance(),
            // req: WSD-10, low bit 1, the switch polls; 0, it wants an upcall.
            notify: event.addr() & 1 == 0,
            flags,
        }
    }

    pub(super) fn address(self) -> usize {
        self.0.addr()
    }

    fn internal(&self) -> &AtomicUsize {
        // SAFETY: the structure is there (`new`, `of`).
        let internal = unsafe { &raw mut (*self.0).Internal };
        // SAFETY: there and aligned; accessed atomically by both sides while an operation is in
        // progress.
        unsafe { AtomicUsize::from_ptr(internal) }
    }

    /// Marks the operation as in progress.
    pub(super) fn begin(self, flags: u32, bytes: usize) {
        self.store(flags, 0, bytes);
        self.internal()
            .store(WSS_OPERATION_IN_PROGRESS, Ordering::Release);
    }

    fn store(self, flags: u32, error: u32, bytes: usize) {
        // SAFETY: the structure is there, and ours until `Internal` says otherwise.
        unsafe { (*self.0).Offset = flags };
        // SAFETY: as above.
        unsafe { (*self.0).OffsetHigh = error };
        // SAFETY: as above.
        unsafe { (*self.0).InternalHigh = bytes };
    }

    /// Stores the result but for `Internal`, which the switch stores in its upcall.
    pub(super) fn prepare(self, report: &Report) {
        let error = of_end(report.end).unsigned_abs();
        self.store(report.ticket.flags, error, report.bytes);
    }

    /// Stores the result. The structure is the switch's again when this returns.
    pub(super) fn publish(self, report: &Report) {
        self.prepare(report);
        // Release: whoever sees this also sees the result.
        self.internal().store(ENDED, Ordering::Release);
    }

    /// Stores the success of a call that has done everything at once.
    pub(super) fn succeed(self, bytes: u32) {
        self.store(0, 0, bytes as usize);
        self.internal().store(ENDED, Ordering::Release);
    }

    #[inline]
    pub(super) fn has_ended(self) -> bool {
        // Acquire: pairs with the release of whoever stored the result.
        self.internal().load(Ordering::Acquire) != WSS_OPERATION_IN_PROGRESS
    }

    /// The result, if there is one.
    #[inline]
    pub(super) fn outcome(self) -> Option<Outcome> {
        if !self.has_ended() {
            return None;
        }
        // SAFETY: lent for the call; nobody writes it after the end.
        let error = unsafe { (*self.0).OffsetHigh };
        // SAFETY: as above.
        let bytes = unsafe { (*self.0).InternalHigh };
        // SAFETY: as above.
        let flags = unsafe { (*self.0).Offset };
        Some(Outcome {
            error: c_int::try_from(error).unwrap_or(c_int::MAX),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            flags,
        })
    }
}
