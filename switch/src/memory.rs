//! The memory a connection lends to its provider: control buffers, temporary memory, and the
//! application's own buffers for the length of one call.
//!
//! Owns every mapping of the data path and the only places where a [`Region`] is made. Knows no
//! protocol. Invariants:
//!
//! * Whatever is registered, exposed or used by an operation holds on to its memory; memory that
//!   was never given back by the provider is leaked, not reused.
//! * An application's buffer is lent by a [`Lent`], which does not end before everything that was
//!   made from it has ended.

mod control;
mod mapping;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

pub(crate) use control::{ControlArea, ControlBuffer, ControlHalf, Half};
use mapping::{Block, Mapping};

use crate::error::WsaError;
use crate::lent::{Access, Notice, Outcome, Posted, Region};
use crate::socket::{Exposure, LocalPiece, Op, Registration, SanSocket};

/// What keeps memory from being reused.
#[derive(Clone)]
enum Keep {
    Mapping(#[expect(dead_code, reason = "keeps the memory mapped")] Arc<Mapping>),
    Block(#[expect(dead_code, reason = "keeps the memory taken")] Arc<Block>),
    Lent(Arc<Ticket>),
}

/// Memory that takes part in RDMA: temporary, or the application's own.
#[derive(Clone)]
pub(crate) struct Space {
    base: NonNull<u8>,
    len: usize,
    keep: Keep,
}

// SAFETY: an address with what keeps it valid; see the methods for who may touch the bytes when.
unsafe impl Send for Space {}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.keep {
            Keep::Mapping(_) => "control",
            Keep::Block(_) => "temporary",
            Keep::Lent(_) => "application",
        };
        write!(f, "{kind} memory of {} bytes", self.len)
    }
}

impl Space {
    /// Temporary memory of at least one byte, with undefined content.
    pub(crate) fn temporary(len: usize) -> io::Result<Space> {
        let block = Arc::new(Block::new(len.max(1))?);
        let base = block.base();
        Ok(Space {
            base,
            len,
            keep: Keep::Block(block),
        })
    }

    /// Temporary memory with a copy of these bytes, gathered in order.
    pub(crate) fn copy_of(pieces: &[&[u8]]) -> io::Result<Space> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        let space = Space::temporary(len)?;
        let mut at = 0;
        for piece in pieces {
            // SAFETY: `at` is at most the sum of the lengths, the size of the block.
            let target = unsafe { space.base.add(at) };
            // SAFETY: the block is new and nobody else knows it; the pieces fit in their sum.
            unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), target.as_ptr(), piece.len()) };
            at += piece.len();
        }
        Ok(space)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies from `offset` on; as much as is there and fits. The caller names only bytes that no
    /// transfer is about to change.
    pub(crate) fn copy_to(&self, offset: usize, target: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(target.len());
        if count == 0 {
            return 0;
        }
        // SAFETY: `offset` is below `len` since `count` is not 0.
        let source = unsafe { self.base.add(offset) };
        // SAFETY: inside memory that `keep` keeps, initialised when it was mapped or lent; the
        // target is the caller's own. The session names bytes only after their transfer has ended.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), target.as_mut_ptr(), count) };
        count
    }

    fn region(&self, offset: usize, len: usize) -> Result<Region, WsaError> {
        // SAFETY: whoever is given the region (`Held`, `Shown`, `Transfer`) holds `keep` until the
        // provider has let go of it; the bytes are read by `copy_to` alone, after their transfer.
        let whole = unsafe { Region::new(self.base, self.len) };
        whole
            .slice(offset, len)
            .ok_or(WsaError(wsdirect::abi::WSAEINVAL))
    }

    /// WSPRegisterMemory for a part of it.
    pub(crate) fn register(
        &self,
        socket: &SanSocket,
        access: Access,
        offset: usize,
        len: usize,
    ) -> Result<Held, WsaError> {
        let registration = socket.register(self.region(offset, len)?, access)?;
        Ok(Held::new(registration, self.keep.clone()))
    }

    /// WSPRegisterRdmaMemory for a part of it.
    pub(crate) fn expose(
        &self,
        socket: &SanSocket,
        access: Access,
        offset: usize,
        len: usize,
    ) -> Result<Shown, WsaError> {
        let exposure = socket.register_rdma(self.region(offset, len)?, access)?;
        Ok(Shown {
            inner: Some((exposure, ManuallyDrop::new(self.keep.clone()))),
        })
    }
}

// ---------------------------------------------------------------- what a provider holds

/// Proof that a socket has been closed, so that its provider touches nothing any more.
pub(crate) struct Closed(());

/// WSPCloseSocket.
pub(crate) fn close(socket: &SanSocket) -> Closed {
    socket.close();
    Closed(())
}

/// Memory registered for local use.
pub(crate) struct Held {
    inner: Option<(Registration, ManuallyDrop<Keep>)>,
}

impl Held {
    fn new(registration: Registration, keep: Keep) -> Held {
        Held {
            inner: Some((registration, ManuallyDrop::new(keep))),
        }
    }

    fn registration(&self) -> Option<&Registration> {
        self.inner.as_ref().map(|(registration, _)| registration)
    }

    /// WSPDeregisterMemory. On refusal it stays registered.
    pub(crate) fn release(mut self, socket: &SanSocket) -> Result<(), (Held, WsaError)> {
        let Some((registration, keep)) = self.inner.take() else {
            return Ok(());
        };
        match socket.deregister(registration) {
            Ok(()) => {
                drop(ManuallyDrop::into_inner(keep));
                Ok(())
            }
            Err((registration, error)) => Err((
                Held {
                    inner: Some((registration, keep)),
                },
                error,
            )),
        }
    }

    /// Lets go of it once the socket has been closed.
    pub(crate) fn forget(mut self, _closed: &Closed) {
        if let Some((_, keep)) = self.inner.take() {
            drop(ManuallyDrop::into_inner(keep));
        }
    }
}

/// Memory that the peer may reach.
pub(crate) struct Shown {
    inner: Option<(Exposure, ManuallyDrop<Keep>)>,
}

impl Shown {
    pub(crate) fn descriptor(&self) -> &[u8] {
        self.inner
            .as_ref()
            .map_or(&[], |(exposure, _)| exposure.descriptor())
    }

    /// WSPDeregisterRdmaMemory. On refusal it stays exposed.
    pub(crate) fn release(mut self, socket: &SanSocket) -> Result<(), (Shown, WsaError)> {
        let Some((exposure, keep)) = self.inner.take() else {
            return Ok(());
        };
        match socket.deregister_rdma(exposure) {
            Ok(()) => {
                drop(ManuallyDrop::into_inner(keep));
                Ok(())
            }
            Err((exposure, error)) => Err((
                Shown {
                    inner: Some((exposure, keep)),
                },
                error,
            )),
        }
    }

    /// Lets go of it once the socket has been closed.
    pub(crate) fn forget(mut self, _closed: &Closed) {
        if let Some((_, keep)) = self.inner.take() {
            drop(ManuallyDrop::into_inner(keep));
        }
    }
}

/// One RDMA operation with the memory it works on.
pub(crate) struct Transfer {
    op: Op,
    keep: Option<ManuallyDrop<Keep>>,
}

/// Which way an RDMA goes, and where the peer's end of it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote<'a> {
    pub(crate) descriptor: &'a [u8],
    pub(crate) offset: u32,
    pub(crate) direction: Direction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Transfer {
    pub(crate) fn new(op: Op) -> Transfer {
        Transfer { op, keep: None }
    }

    /// Starts a read into, or a write from, `space[offset..offset + len]`.
    pub(crate) fn start(
        &mut self,
        socket: &SanSocket,
        space: &Space,
        held: &Held,
        span: (usize, usize),
        remote: Remote<'_>,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        let invalid = WsaError(wsdirect::abi::WSAEINVAL);
        let registration = held.registration().ok_or(invalid)?;
        let piece = [LocalPiece {
            region: space.region(span.0, span.1)?,
            registration,
        }];
        let Remote {
            descriptor,
            offset,
            direction,
        } = remote;
        let posted = match direction {
            Direction::Read => socket.rdma_read(&piece, descriptor, offset, &self.op, notice)?,
            Direction::Write => socket.rdma_write(&piece, descriptor, offset, &self.op, notice)?,
        };
        if posted == Posted::Pending {
            self.keep = Some(ManuallyDrop::new(space.keep.clone()));
        }
        Ok(posted)
    }

    pub(crate) fn result(&mut self, socket: &SanSocket) -> Outcome {
        let outcome = socket.result(&self.op);
        self.let_go();
        outcome
    }

    /// Lets go of the memory once the socket has been closed.
    pub(crate) fn forget(mut self, _closed: &Closed) {
        if let Some(keep) = self.keep.take() {
            drop(ManuallyDrop::into_inner(keep));
        }
    }

    fn let_go(&mut self) {
        if !self.op.is_pending()
            && let Some(keep) = self.keep.take()
        {
            drop(ManuallyDrop::into_inner(keep));
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.let_go();
    }
}

// ---------------------------------------------------------------- the application's buffers

struct Ticket;

/// An application's buffer, lent for the length of one call.
///
/// Kept in a local variable and dropped before the call returns. Should something made from it
/// still be in use then, the process ends: the only other choice would be to let the provider or
/// the peer go on with memory that is no longer ours.
pub(crate) struct Lent<'a> {
    space: Space,
    life: PhantomData<&'a mut [u8]>,
}

impl<'a> Lent<'a> {
    fn new(base: NonNull<u8>, len: usize) -> Lent<'a> {
        let space = Space {
            base,
            len,
            keep: Keep::Lent(Arc::new(Ticket)),
        };
        Lent {
            space,
            life: PhantomData,
        }
    }

    /// A buffer to send from: it is registered for reading only.
    pub(crate) fn source(bytes: &'a [u8]) -> Lent<'a> {
        Lent::new(NonNull::from(bytes).cast(), bytes.len())
    }

    /// A buffer to receive into.
    pub(crate) fn target(bytes: &'a mut [u8]) -> Lent<'a> {
        let len = bytes.len();
        Lent::new(NonNull::from(bytes).cast(), len)
    }

    pub(crate) fn space(&self) -> Space {
        self.space.clone()
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Keep::Lent(ticket) = &self.space.keep else {
            return;
        };
        if Arc::strong_count(ticket) > 1 {
            tracing::error!("a provider did not let go of an application's buffer");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_memory_is_reused_and_keeps_what_was_copied() {
        let first = Space::copy_of(&[b"abc", b"", b"defg"]).unwrap();
        let mut out = [0; 16];
        assert_eq!(first.copy_to(2, &mut out), 5);
        assert_eq!(&out[..5], b"cdefg");
        assert_eq!(first.copy_to(7, &mut out), 0);
        assert_eq!(first.copy_to(usize::MAX, &mut out), 0);
        let base = first.base;
        let clone = first.clone();
        drop(first);
        let second = Space::temporary(7).unwrap();
        assert_ne!(second.base, base, "still in use by its clone");
        drop(clone);
    }

    #[test]
    fn every_size_of_temporary_memory_can_be_had() {
        for len in [
            0,
            1,
            64 << 10,
            (64 << 10) + 1,
            2 << 20,
            (2 << 20) + 1,
            5 << 20,
        ] {
            let space = Space::temporary(len).unwrap();
            assert_eq!(space.len(), len);
            let mut last = [1; 1];
            assert_eq!(space.copy_to(len.saturating_sub(1), &mut last), len.min(1));
        }
    }

    #[test]
    fn a_lent_buffer_ends_when_nothing_was_made_from_it() {
        let mut bytes = [1, 2, 3];
        let lent = Lent::target(&mut bytes);
        let space = lent.space();
        let mut out = [0; 2];
        assert_eq!(space.copy_to(1, &mut out), 2);
        drop(space);
        drop(lent);
        assert_eq!(out, [2, 3]);
    }
}
