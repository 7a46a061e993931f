//! The memory a connection lends to its provider: control buffers, temporary memory, and the
//! application's own buffers for the length of one call.
//!
//! Owns every mapping of the data path and the only places where a [`Region`] is made. Knows no
//! protocol. Invariants:
//!
//! * A control buffer shows its bytes only while its own operation is not pending.
//! * Whatever is registered, exposed or used by an operation holds on to its memory; memory that
//!   was never given back by the provider is leaked, not reused.
//! * An application's buffer is lent by a [`Lent`], which does not end before everything that was
//!   made from it has ended.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::WsaError;
use crate::lent::{Access, Notice, Outcome, Posted, Region};
use crate::socket::{Exposure, LocalPiece, Op, Registration, SanSocket};

const HUGE: usize = 2 << 20;

/// Anonymous memory of this process. Its pages appear when they are first touched.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an owned span of memory; who may touch which part when is settled by its users below.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize, advice: libc::c_int) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping, placed by the kernel; no existing memory is touched.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the whole of our own mapping; advice changes no content. Refusal is no loss.
        unsafe { libc::madvise(base, len, advice) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// Memory in pages as large as the kernel gives: remote reads are twice as fast on them.
    fn huge(len: usize) -> io::Result<Mapping> {
        let wide = Mapping::new(len + HUGE, libc::MADV_NORMAL)?;
        let skip = wide.base.as_ptr().align_offset(HUGE);
        if skip > HUGE {
            return Ok(wide);
        }
        let wide = ManuallyDrop::new(wide);
        // SAFETY: `skip` is at most the surplus mapped above.
        let base = unsafe { wide.base.add(skip) };
        // SAFETY: as above: the end of what is kept lies inside the mapping.
        let end = unsafe { base.add(len) };
        // SAFETY: unmaps the unused front of our own mapping, in whole pages.
        unsafe { libc::munmap(wide.base.as_ptr().cast(), skip) };
        // SAFETY: unmaps the unused back of our own mapping, in whole pages.
        unsafe { libc::munmap(end.as_ptr().cast(), HUGE - skip) };
        // SAFETY: the whole of what was kept; advice changes no content.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, unmapped once; its users hold the `Arc` it is in.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

// ---------------------------------------------------------------- control buffers

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

    /// What stands in the buffer; nothing while an operation is pending.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.op.is_pending() {
            return &[];
        }
        // SAFETY: this buffer's own part of a mapping that `keep` keeps; zeroed when it was mapped;
        // no operation is pending, so the provider does not touch it.
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

// ---------------------------------------------------------------- temporary memory

/// Sizes in which temporary memory is kept for reuse.
const SMALLEST: usize = 64 << 10;
const CLASSES: usize = 6;
/// Most unused temporary memory a process keeps.
const KEPT: usize = 32 << 20;

/// Unused temporary memory, by size: the smallest class first.
struct Cache {
    free: [Vec<RawBlock>; CLASSES],
    bytes: usize,
}

/// Guards the lists of unused memory. Taken last, for a few instructions.
static CACHE: Mutex<Cache> = Mutex::new(Cache {
    free: [const { Vec::new() }; CLASSES],
    bytes: 0,
});

struct RawBlock {
    #[expect(dead_code, reason = "keeps the memory mapped")]
    slab: Arc<Mapping>,
    base: NonNull<u8>,
}

// SAFETY: owns its part of the slab.
unsafe impl Send for RawBlock {}

/// A block of temporary memory; goes back to the cache when nobody uses it any more.
struct Block {
    raw: Option<RawBlock>,
    class: usize,
}

// SAFETY: the block itself is only an address; access to the memory is settled by `Space`.
unsafe impl Sync for Block {}

fn class_size(class: usize) -> usize {
    SMALLEST << class
}

impl Block {
    fn new(len: usize) -> io::Result<Block> {
        let class = (0..CLASSES)
            .find(|class| class_size(*class) >= len)
            .unwrap_or(CLASSES);
        let raw = if class == CLASSES {
            let slab = Arc::new(Mapping::huge(len.next_multiple_of(HUGE))?);
            RawBlock {
                base: slab.base,
                slab,
            }
        } else if let Some(raw) = Cache::take(class) {
            raw
        } else {
            Cache::grow(class)?
        };
        Ok(Block {
            raw: Some(raw),
            class,
        })
    }
}

impl Cache {
    fn take(class: usize) -> Option<RawBlock> {
        let mut cache = CACHE.lock();
        let raw = cache.free.get_mut(class)?.pop()?;
        cache.bytes -= class_size(class);
        Some(raw)
    }

    /// A new slab: one block for the caller, the others to the cache.
    fn grow(class: usize) -> io::Result<RawBlock> {
        let size = class_size(class);
        let slab = Arc::new(Mapping::huge(HUGE.max(size))?);
        let first = RawBlock {
            base: slab.base,
            slab: Arc::clone(&slab),
        };
        for index in (1..slab.len / size).rev() {
            // SAFETY: inside the slab: `index` is below the number of blocks in it.
            let base = unsafe { slab.base.add(index * size) };
            Cache::give(
                class,
                RawBlock {
                    base,
                    slab: Arc::clone(&slab),
                },
            );
        }
        Ok(first)
    }

    fn give(class: usize, raw: RawBlock) {
        let mut cache = CACHE.lock();
        if cache.bytes + class_size(class) > KEPT {
            drop(cache);
            drop(raw);
            return;
        }
        if let Some(list) = cache.free.get_mut(class) {
            list.push(raw);
            cache.bytes += class_size(class);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            Cache::give(self.class, raw);
        }
    }
}

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
        let base = block
            .raw
            .as_ref()
            .map_or(NonNull::dangling(), |raw| raw.base);
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
        for len in [0, 1, SMALLEST, SMALLEST + 1, HUGE, HUGE + 1, 5 << 20] {
            let space = Space::temporary(len).unwrap();
            assert_eq!(space.len(), len);
            let mut last = [1; 1];
            assert_eq!(space.copy_to(len.saturating_sub(1), &mut last), len.min(1));
        }
    }

    #[test]
    fn huge_memory_is_aligned_and_as_long_as_asked() {
        let mapping = Mapping::huge(3 * HUGE).unwrap();
        assert_eq!(mapping.base.as_ptr().align_offset(HUGE), 0);
        assert_eq!(mapping.len, 3 * HUGE);
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
