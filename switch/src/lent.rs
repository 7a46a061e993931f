//! What the switch lends to a provider: spans of memory, and operations in progress.
//!
//! Owns the rules under which both may be shared with code that is not ours. Invariants: memory is
//! lent as [`Region`], whose maker vouches for it; a [`Slot`] stays where it is while its socket's
//! handle lives, is written by one side at a time, and `Slot::state` hands it over.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use wsdirect::abi::{self, DWORD, SOCKET, WSABUF, WSABUFEX, WSAOVERLAPPED};

use crate::error::WsaError;

/// Most pieces of one operation. Providers take few; the switch uses one or two.
pub(crate) const MAX_PIECES: usize = 8;
/// Longest descriptor of exposed memory that is kept, in bytes.
pub(crate) const MAX_DESCRIPTOR: usize = 64;

/// A span of memory lent to a provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is an address; whoever made it promised what holds for the memory behind it,
// on every thread.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// # Safety
    /// `base..base + len` stays mapped, and nothing accesses it in conflict with what is posted on
    /// it, until every registration made from it is deregistered and every operation posted with it
    /// has ended, or until the socket they were made on is closed.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Region {
        Region { base, len }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// A part of it; `None` if that lies outside.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Option<Region> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: at most one past the end of the memory the region stands for.
        let base = unsafe { self.base.add(offset) };
        Some(Region { base, len })
    }

    pub(crate) fn len32(&self) -> Result<u32, WsaError> {
        u32::try_from(self.len).map_err(|_| WsaError(abi::WSAEINVAL))
    }
}

/// What may be done with registered memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Source of sends and writes; or the peer may read it.
    Read,
    /// Target of receives and reads; or the peer may write it.
    Write,
}

impl Access {
    pub(crate) fn flags(self) -> DWORD {
        match self {
            Access::Read => abi::MEM_READ,
            Access::Write => abi::MEM_WRITE,
        }
    }
}

/// What WSPRegisterMemory returned. Valid on the socket it was made on only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryHandle(pub(crate) NonNull<c_void>);

// SAFETY: an opaque number to the switch; the provider's functions may be called from any thread.
unsafe impl Send for MemoryHandle {}
// SAFETY: as above.
unsafe impl Sync for MemoryHandle {}

/// The bytes that name exposed memory to the peer's provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor {
    pub(crate) bytes: [u8; MAX_DESCRIPTOR],
    pub(crate) len: usize,
}

impl Descriptor {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// One local piece of an RDMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) region: Region,
    pub(crate) memory: MemoryHandle,
}

/// How the switch wants to hear of a completion: the lowest bit of hEvent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// The switch polls; the provider makes no upcall.
    Poll,
    /// The provider makes an upcall.
    Upcall,
}

/// How an operation that was accepted stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Posted {
    /// It goes on; ask for its result.
    Pending,
    /// It is over, with this many bytes; nothing more will be heard of it.
    Done(usize),
}

/// What is known of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Pending,
    /// This many bytes were moved.
    Done(usize),
    Failed(WsaError),
}

/// The life of an operation.
mod state {
    /// May be posted.
    pub(super) const IDLE: u8 = 0;
    /// Posted; its result is polled for.
    pub(super) const POLLED: u8 = 1;
    /// Posted; an upcall will tell of its end.
    pub(super) const AWAITED: u8 = 2;
    /// The upcall has come; the result is to be collected.
    pub(super) const TOLD: u8 = 3;
    /// The provider will not say how it ended: never used again.
    pub(super) const LOST: u8 = 4;
}

/// What a call lends to the provider besides the data: the interface lets it keep these arrays for
/// as long as the operation lasts.
pub(crate) struct Arguments {
    pub(crate) buffers: [WSABUF; MAX_PIECES],
    pub(crate) pieces: [WSABUFEX; MAX_PIECES],
    pub(crate) remote: [u8; MAX_DESCRIPTOR],
    pub(crate) moved: DWORD,
    pub(crate) flags: DWORD,
}

/// The addresses of [`Arguments`].
pub(crate) struct Places {
    pub(crate) buffers: *mut WSABUF,
    pub(crate) pieces: *mut WSABUFEX,
    pub(crate) remote: *mut u8,
    pub(crate) moved: *mut DWORD,
    pub(crate) flags: *mut DWORD,
}

/// One operation of one socket. Stays where it is while the socket's handle lives.
#[repr(C, align(64))]
pub(crate) struct Slot {
    overlapped: UnsafeCell<WSAOVERLAPPED>,
    state: AtomicU8,
    /// A final answer that came before its upcall: 0 is none, see `Slot::keep_early`.
    early: AtomicU64,
    owner: SOCKET,
    arguments: UnsafeCell<Arguments>,
}

// SAFETY: the cells are written by whoever took the slot from IDLE to a posted state, before the
// call to the provider; from then on by the provider; `state` hands them over.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    pub(crate) fn new(owner: SOCKET) -> Slot {
        Slot {
            overlapped: UnsafeCell::new(WSAOVERLAPPED::default()),
            state: AtomicU8::new(state::IDLE),
            early: AtomicU64::new(0),
            owner,
            arguments: UnsafeCell::new(Arguments {
                buffers: [WSABUF::default(); MAX_PIECES],
                pieces: [WSABUFEX::default(); MAX_PIECES],
                remote: [0; MAX_DESCRIPTOR],
                moved: 0,
                flags: 0,
            }),
        }
    }

    /// The handle of the socket it belongs to.
    pub(crate) fn owner(&self) -> SOCKET {
        self.owner
    }

    /// Writes down what the call lends. Only between `begin` and the call.
    ///
    /// # Safety
    /// This thread has taken the slot by `begin` and has not made the call yet.
    pub(crate) unsafe fn fill<R>(&self, write: impl FnOnce(&mut Arguments) -> R) -> R {
        // SAFETY: the caller is the only one that uses the arguments now.
        write(unsafe { &mut *self.arguments.get() })
    }

    /// Where the lent arrays are, for the call.
    pub(crate) fn places(&self) -> Places {
        let arguments = self.arguments.get();
        Places {
            buffers: arguments
                .wrapping_byte_add(offset_of!(Arguments, buffers))
                .cast(),
            pieces: arguments
                .wrapping_byte_add(offset_of!(Arguments, pieces))
                .cast(),
            remote: arguments
                .wrapping_byte_add(offset_of!(Arguments, remote))
                .cast(),
            moved: arguments
                .wrapping_byte_add(offset_of!(Arguments, moved))
                .cast(),
            flags: arguments
                .wrapping_byte_add(offset_of!(Arguments, flags))
                .cast(),
        }
    }

    /// The byte count of a call that finished at once.
    ///
    /// # Safety
    /// This thread has taken the slot by `begin` and has not ended it.
    pub(crate) unsafe fn moved(&self) -> usize {
        // SAFETY: nobody else uses the arguments of an operation that is over and not collected.
        let moved = unsafe { (*self.arguments.get()).moved };
        usize::try_from(moved).unwrap_or(usize::MAX)
    }

    pub(crate) fn overlapped(&self) -> *mut WSAOVERLAPPED {
        self.overlapped.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        // Acquire: pairs with the release that made it idle, so that its memory may be reused.
        self.state.load(Ordering::Acquire) == state::IDLE
    }

    /// Whether the operation is over, collected or not, by what the provider has stored. Cheaper
    /// than asking it, which would let it make progress besides.
    pub(crate) fn is_over(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            // Acquire: pairs with the provider's store of "over".
            state::POLLED => {
                self.internal().load(Ordering::Acquire) != abi::WSS_OPERATION_IN_PROGRESS
            }
            state::AWAITED => false,
            _ => true,
        }
    }

    /// The word that tells of completion; the provider may change it at any time.
    fn internal(&self) -> &AtomicUsize {
        let overlapped = self.overlapped.get();
        let word = overlapped
            .wrapping_byte_add(offset_of!(WSAOVERLAPPED, Internal))
            .cast();
        // SAFETY: an aligned word of memory that lives as long as `self`; both sides treat it as
        // an atomic.
        unsafe { AtomicUsize::from_ptr(word) }
    }

    /// Takes the slot for a new operation.
    pub(crate) fn begin(&self, notice: Notice) -> Result<(), WsaError> {
        let (next, bit) = match notice {
            Notice::Poll => (state::POLLED, 1),
            Notice::Upcall => (state::AWAITED, 0),
        };
        self.state
            .compare_exchange(state::IDLE, next, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| WsaError(abi::WSAEALREADY))?;
        self.early.store(0, Ordering::Relaxed);
        // SAFETY: taken by this thread just now.
        unsafe {
            self.fill(|arguments| {
                arguments.moved = 0;
                arguments.flags = 0;
            });
        }
        let overlapped = WSAOVERLAPPED {
            Internal: abi::WSS_OPERATION_IN_PROGRESS,
            hEvent: ptr::without_provenance_mut(bit),
            ..WSAOVERLAPPED::default()
        };
        // SAFETY: idle until just now and taken by this thread, so nobody else looks at it.
        unsafe { self.overlapped.get().write(overlapped) };
        Ok(())
    }

    /// What the completion upcall does: the length, then the word that says "over".
    /// `false` if no upcall is due.
    pub(crate) fn complete(&self, transferred: DWORD) -> bool {
        if self.state.load(Ordering::Acquire) != state::AWAITED {
            return false;
        }
        let bytes = usize::try_from(transferred).unwrap_or(usize::MAX);
        // SAFETY: the provider has ended its use of the structure and the switch does not look at
        // it before the state says so.
        unsafe { (*self.overlapped.get()).InternalHigh = bytes };
        // Release: who sees "over" sees the length and what the provider stored before.
        self.internal().store(0, Ordering::Release);
        let told = (state::AWAITED, state::TOLD);
        self.state
            .compare_exchange(told.0, told.1, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Keeps a final answer until the upcall that belongs to it has come.
    fn keep_early(&self, outcome: Outcome) {
        let (tag, value) = match outcome {
            Outcome::Pending => return,
            Outcome::Done(bytes) => (1u64 << 62, bytes as u64),
            Outcome::Failed(code) => (1u64 << 63, u64::from(code.0.cast_unsigned())),
        };
        self.early
            .store(tag | (value & u64::from(u32::MAX)), Ordering::Release);
    }

    fn early(&self) -> Option<Outcome> {
        let kept = self.early.load(Ordering::Acquire);
        let value = u32::try_from(kept & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        match kept >> 62 {
            1 => Some(Outcome::Done(usize::try_from(value).unwrap_or(usize::MAX))),
            2 => Some(Outcome::Failed(WsaError(value.cast_signed()))),
            _ => None,
        }
    }

    /// How the operation stands; `ask` is WSPGetOverlappedResult. Makes the slot idle again when
    /// the operation is over.
    pub(crate) fn collect(&self, ask: impl Fn() -> Outcome) -> Outcome {
        let mut at = self.state.load(Ordering::Acquire);
        let outcome = match at {
            state::POLLED => ask(),
            state::AWAITED | state::TOLD => {
                // Asked also before the upcall, which may come from within. But until it has come
                // the slot may not be used again.
                let answer = self.early().unwrap_or_else(&ask);
                at = self.state.load(Ordering::Acquire);
                if at != state::TOLD {
                    self.keep_early(answer);
                    return Outcome::Pending;
                }
                match answer {
                    Outcome::Pending => ask(),
                    answer => answer,
                }
            }
            state::LOST => return Outcome::Failed(WsaError(abi::WSA_OPERATION_ABORTED)),
            _ => return Outcome::Failed(WsaError(abi::WSA_INVALID_PARAMETER)),
        };
        if outcome == Outcome::Pending {
            return outcome;
        }
        // Acquire: what the provider stored before it said "over".
        let over = self.internal().load(Ordering::Acquire) != abi::WSS_OPERATION_IN_PROGRESS;
        let next = match outcome {
            // The call itself failed, so how the operation ended is unknown: it may still run.
            Outcome::Failed(_) if !over => state::LOST,
            _ => state::IDLE,
        };
        match self
            .state
            .compare_exchange(at, next, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => outcome,
            // Another thread collected it.
            Err(_) => Outcome::Failed(WsaError(abi::WSA_INVALID_PARAMETER)),
        }
    }

    /// Gives the slot back after a call that left nothing going on.
    pub(crate) fn end(&self) {
        // Release: pairs with `is_idle` and `begin`.
        self.state.store(state::IDLE, Ordering::Release);
    }
}

/// Which way an RDMA moves the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// From local pieces to the peer's memory.
    Write,
    /// From the peer's memory to local pieces.
    Read,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: Outcome = Outcome::Done(3);

    fn finish(slot: &Slot) {
        slot.internal().store(0, Ordering::Release);
    }

    #[test]
    fn a_region_gives_parts_of_itself_only() {
        let mut memory = [0u8; 8];
        // SAFETY: lives to the end of the test and is not posted.
        let region = unsafe { Region::new(NonNull::from(&mut memory).cast(), 8) };
        assert_eq!(region.slice(2, 6).unwrap().len, 6);
        assert_eq!(region.slice(8, 0).unwrap().len, 0);
        assert!(region.slice(3, 6).is_none());
        assert!(region.slice(usize::MAX, 2).is_none());
    }

    #[test]
    fn a_posted_slot_is_not_posted_again_before_its_result_was_collected() {
        let slot = Slot::new(1);
        slot.begin(Notice::Poll).unwrap();
        assert_eq!(slot.begin(Notice::Poll), Err(WsaError(abi::WSAEALREADY)));
        assert_eq!(slot.collect(|| Outcome::Pending), Outcome::Pending);
        finish(&slot);
        assert_eq!(slot.collect(|| OVER), OVER);
        let idle = Outcome::Failed(WsaError(abi::WSA_INVALID_PARAMETER));
        assert_eq!(slot.collect(|| OVER), idle);
        slot.begin(Notice::Upcall).unwrap();
    }

    #[test]
    fn the_notice_is_the_lowest_bit_of_the_event() {
        for (notice, bit) in [(Notice::Poll, 1), (Notice::Upcall, 0)] {
            let slot = Slot::new(1);
            slot.begin(notice).unwrap();
            // SAFETY: nobody else has the slot.
            let overlapped = unsafe { *slot.overlapped() };
            assert_eq!(overlapped.hEvent.addr(), bit);
            assert_eq!(overlapped.Internal, abi::WSS_OPERATION_IN_PROGRESS);
        }
    }

    #[test]
    fn an_answer_that_comes_before_its_upcall_is_kept_until_then() {
        for answer in [
            OVER,
            Outcome::Failed(WsaError(abi::WSAECONNRESET)),
            Outcome::Done(0),
        ] {
            let slot = Slot::new(1);
            slot.begin(Notice::Upcall).unwrap();
            assert_eq!(slot.collect(|| answer), Outcome::Pending);
            assert!(!slot.is_idle());
            assert!(slot.complete(3));
            assert!(!slot.complete(3));
            assert_eq!(slot.collect(|| panic!("asked twice")), answer);
            assert!(slot.is_idle());
        }
    }

    #[test]
    fn an_upcall_from_within_the_question_counts() {
        let slot = Slot::new(1);
        slot.begin(Notice::Upcall).unwrap();
        let ask = || {
            slot.complete(3);
            OVER
        };
        assert_eq!(slot.collect(ask), OVER);
    }

    #[test]
    fn an_operation_that_may_still_run_is_never_used_again() {
        let slot = Slot::new(1);
        slot.begin(Notice::Poll).unwrap();
        let failed = Outcome::Failed(WsaError(abi::WSAENETDOWN));
        assert_eq!(slot.collect(|| failed), failed);
        assert!(!slot.is_idle());
        assert_eq!(slot.begin(Notice::Poll), Err(WsaError(abi::WSAEALREADY)));
        let lost = Outcome::Failed(WsaError(abi::WSA_OPERATION_ABORTED));
        assert_eq!(slot.collect(|| OVER), lost);
    }
}
