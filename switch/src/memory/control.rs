//! The control buffers of a connection and their memory.
//!
//! Owns who may touch a control buffer when. Invariant: a buffer shows its bytes only while its own
//! operation is not pending.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use super::mapping::Mapping;
use super::{Closed, Held, Keep};
use crate::error::WsaError;
use crate::lent::{Access, Notice, Outcome, Posted, Region};
use crate::socket::{Op, SanSocket};

/// The control buffers of one connection: one mapping, a half to send and a half to receive.
pub(crate) struct ControlArea {
    mapping: Arc<Mapping>,
    size: usize,
    sends: usize,
    receives: usize,
}

/// Which half of the control buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Half {
    Sends,
    Receives,
}

impl ControlArea {
    /// `size` bytes for each buffer. Nothing is touched.
    pub(crate) fn new(size: usize, sends: usize, receives: usize) -> io::Result<ControlArea> {
        let size = size.next_multiple_of(64);
        let len = (sends + receives)
            .checked_mul(size)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let len = len.next_multiple_of(4096);
        let mapping = Arc::new(Mapping::new(len, libc::MADV_NOHUGEPAGE)?);
        Ok(ControlArea {
            mapping,
            size,
            sends,
            receives,
        })
    }

    fn part(&self, half: Half) -> (usize, usize) {
        match half {
            Half::Sends => (0, self.sends),
            Half::Receives => (self.sends, self.receives),
        }
    }

    /// The buffers of one half; `op` makes an operation for each.
    ///
    /// Called once for each half: a second set would share its memory with the first.
    pub(crate) fn split(
        self,
        mut op: impl FnMut() -> Op,
    ) -> (ControlHalf, Vec<ControlBuffer>, Vec<ControlBuffer>) {
        let mut buffers = |half| {
            let (first, count) = self.part(half);
            let place = |index: usize| {
                // SAFETY: `new` made the mapping large enough for all of both halves.
                unsafe { self.mapping.base.add(index * self.size) }
            };
            (first..first + count)
                .map(|index| ControlBuffer {
                    keep: Some(Arc::clone(&self.mapping)),
                    base: place(index),
                    len: self.size,
                    op: op(),
                })
                .collect::<Vec<_>>()
        };
        let (sends, receives) = (buffers(Half::Sends), buffers(Half::Receives));
        (ControlHalf { area: self }, sends, receives)
    }
}

/// What is left of a [`ControlArea`] once its buffers have been given out: the halves as a whole,
/// to be registered.
pub(crate) struct ControlHalf {
    area: ControlArea,
}

impl ControlHalf {
    /// Registers one half with the provider. req: SEED-01
    pub(crate) fn register(&self, socket: &SanSocket, half: Half) -> Result<Held, WsaError> {
        let (first, count) = self.area.part(half);
        // SAFETY: inside the mapping, as in `split`.
        let base = unsafe { self.area.mapping.base.add(first * self.area.size) };
        // SAFETY: `Held` keeps the mapping; the bytes are touched through `ControlBuffer` only,
        // which shows them while nothing is posted on them.
        let region = unsafe { Region::new(base, count * self.area.size) };
        let access = match half {
            Half::Sends => Access::Read,
            Half::Receives => Access::Write,
        };
        let registration = socket.register(region, access)?;
        Ok(Held::new(
            registration,
            Keep::Mapping(Arc::clone(&self.area.mapping)),
        ))
    }
}

/// One control buffer with the one operation that is ever posted on it.
pub(crate) struct ControlBuffer {
    keep: Option<Arc<Mapping>>,
    base: NonNull<u8>,
    len: usize,
    op: Op,
}

// SAFETY: owns its part of the mapping; the operation hands that part to the provider and back.
unsafe impl Send for ControlBuffer {}

impl ControlBuffer {
    pub(crate) fn is_pending(&self) -> bool {
        self.op.is_pending()
    }

    /// Whether what was posted is over, collected or not.
    pub(crate) fn is_over(&self) -> bool {
        self.op.is_over()
    }

    /// What stands in the buffer; nothing while an operation is pending.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.op.is_pending() {
            return &[];
        }
        // SAFETY: this buffer's own part of a mapping that `keep` keeps; zeroed when it was mapped;
        // no operation is pending, so the provider does not touch it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// What stands in a buffer of the half that sends, also while its send is pending.
    pub(crate) fn sent(&self) -> &[u8] {
        // SAFETY: this buffer's own part of a mapping that `keep` keeps; zeroed when it was mapped;
        // a send only reads, and filling it borrows it exclusively.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// As [`ControlBuffer::bytes`], to be filled.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        if self.op.is_pending() {
            return &mut [];
        }
        // SAFETY: as in `bytes`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    fn region(&self, len: usize) -> Region {
        // SAFETY: inside the mapping, which is kept while the operation is pending (see `drop`);
        // `bytes` and `bytes_mut` show nothing meanwhile.
        unsafe { Region::new(self.base, len.min(self.len)) }
    }

    /// Posts the whole buffer to receive one message.
    pub(crate) fn receive(
        &mut self,
        socket: &SanSocket,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        socket.recv(&[self.region(self.len)], &self.op, notice)
    }

    /// Sends the first `len` bytes as one message.
    pub(crate) fn send(
        &mut self,
        socket: &SanSocket,
        len: usize,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        socket.send(&[self.region(len)], &self.op, notice)
    }

    pub(crate) fn result(&self, socket: &SanSocket) -> Outcome {
        socket.result(&self.op)
    }

    /// Lets go of the memory once the socket has been closed, whatever was posted.
    pub(crate) fn forget(mut self, _closed: &Closed) {
        drop(self.keep.take());
    }
}

impl Drop for ControlBuffer {
    fn drop(&mut self) {
        if self.op.is_pending()
            && let Some(keep) = self.keep.take()
        {
            // The provider may still use it: leaked.
            let _ = ManuallyDrop::new(keep);
        }
    }
}
