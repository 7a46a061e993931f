//! The memory that two connected endpoints share.
//!
//! Owns the layout of the segment and every access to it. The peer may write any byte of it at
//! any moment, so nothing here hands out a reference to plain data: control words are atomics,
//! payload goes through raw copies, and every offset is masked or checked before it is used. The
//! invariant: whatever the peer writes, no function here leaves the mapping.
//!
//! ```text
//! file      control (64 KiB) | windows of A | windows of B | ring 0 | ring 1 | ring 2 | ring 3
//! mapping   control          | windows of A | windows of B | ring 0 | ring 0 | ring 1 | ring 1 ...
//! ```
//!
//! Each ring is mapped twice in a row, so that a record is contiguous wherever it begins.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{copy, sys};

/// Everything in a ring begins at a multiple of this.
pub(super) const GRANULE: u64 = 64;
/// Bytes before the payload of a record.
pub(super) const HEADER: u64 = 16;

/// Control blocks and window tables are aligned to this, a multiple of every page size.
const ALIGN: usize = 64 << 10;
/// Exposed regions per side.
pub(super) const WINDOWS: usize = 4096;
const WINDOWS_LEN: usize = WINDOWS * size_of::<WindowSlot>();
const RINGS_AT: usize = ALIGN + 2 * WINDOWS_LEN;
const RINGS: usize = 4;

/// Which end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Acceptor,
    Connector,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Acceptor => Self::Connector,
            Self::Connector => Self::Acceptor,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Acceptor => 0,
            Self::Connector => 1,
        }
    }
}

/// What a ring carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    Messages,
    /// Requests and answers of pipelined RDMA.
    Service,
}

/// What one side tells the other; each group of words has its own pair of cache lines, so that a
/// word that is written often is not in the way of one that is read often.
#[repr(C)]
pub(super) struct Control {
    pub(super) notices: Notices,
    pub(super) tails: Tails,
    pub(super) arming: Arming,
}

/// Written seldom, read at every poll of the other side.
#[repr(C, align(128))]
pub(super) struct Notices {
    /// Changes whenever there is something besides messages: service records, the end.
    pub(super) changes: AtomicU32,
    /// Not zero once this side has disconnected.
    pub(super) closed: AtomicU32,
}

/// How far this side has consumed the other's rings.
#[repr(C, align(128))]
pub(super) struct Tails {
    pub(super) messages: AtomicU64,
    pub(super) service: AtomicU64,
}

/// What this side wants to be woken for (see `wake`).
#[repr(C, align(128))]
pub(super) struct Arming {
    pub(super) word: AtomicU32,
}

/// One exposed region, for direct RDMA by the other side. Written by its owner, except `inflight`.
#[repr(C, align(64))]
pub(super) struct WindowSlot {
    /// 0 while closed.
    pub(super) generation: AtomicU32,
    pub(super) rights: AtomicU32,
    pub(super) base: AtomicU64,
    pub(super) len: AtomicU64,
    /// Transfers of the other side that may be touching the region now.
    pub(super) inflight: AtomicU32,
}

// Two builds of this library may share a segment.
const _: () = {
    assert!(size_of::<Control>() == 384);
    assert!(size_of::<WindowSlot>() == 64);
    assert!(2 * size_of::<Control>() <= ALIGN);
    assert!(WINDOWS_LEN.is_multiple_of(ALIGN));
};

/// The shared mapping of one connection.
#[derive(Debug)]
pub(super) struct Segment {
    base: NonNull<u8>,
    mapped: usize,
    ring_size: usize,
    side: Side,
}

// SAFETY: the mapping belongs to the value and is not tied to a thread.
unsafe impl Send for Segment {}
// SAFETY: every access through `&Segment` is atomic or a raw copy, whose order the rings keep.
unsafe impl Sync for Segment {}

impl Segment {
    fn file_len(ring_size: usize) -> u64 {
        (RINGS_AT + RINGS * ring_size) as u64
    }

    /// A new segment, mapped, and the file that lets the peer map it.
    pub(super) fn create(ring_size: usize) -> io::Result<(Self, OwnedFd)> {
        let file = sys::sealed_memory_file(c"wsdirect", Self::file_len(ring_size))?;
        let segment = Self::map(std::os::fd::AsFd::as_fd(&file), ring_size, Side::Acceptor)?;
        Ok((segment, file))
    }

    /// Maps a segment that the acceptor made, if it is what it should be.
    pub(super) fn join(file: BorrowedFd<'_>, ring_size: usize) -> io::Result<Self> {
        let fits = ring_size.is_power_of_two() && super::Options::RING_SIZES.contains(&ring_size);
        if !fits || sys::sealed_size(file).ok() != Some(Self::file_len(ring_size)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file, ring_size, Side::Connector)
    }

    fn map(file: BorrowedFd<'_>, ring_size: usize, side: Side) -> io::Result<Self> {
        let mapped = RINGS_AT + 2 * RINGS * ring_size;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(reserved.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on dropping the segment releases the reservation.
        let segment = Self {
            base,
            mapped,
            ring_size,
            side,
        };
        segment.place(file, 0, 0, RINGS_AT)?;
        for ring in 0..RINGS {
            let from = RINGS_AT + ring * ring_size;
            let to = RINGS_AT + 2 * ring * ring_size;
            segment.place(file, from, to, ring_size)?;
            segment.place(file, from, to + ring_size, ring_size)?;
        }
        // A forked child must not take part in the connection.
        // SAFETY: the range is the mapping just made.
        let rc = unsafe { libc::madvise(reserved, mapped, libc::MADV_DONTFORK) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(segment)
    }

    /// Maps `len` bytes of the file at `from` over the reservation at `to`.
    fn place(&self, file: BorrowedFd<'_>, from: usize, to: usize, len: usize) -> io::Result<()> {
        let offset = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        debug_assert!(to + len <= self.mapped);
        // SAFETY: `to` lies in the reservation.
        let address = unsafe { self.base.add(to) };
        // SAFETY: replaces part of the reservation, which nobody uses yet.
        let placed = unsafe {
            libc::mmap(
                address.as_ptr().cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset,
            )
        };
        if placed == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn ring_size(&self) -> usize {
        self.ring_size
    }

    /// What `side` tells the other.
    pub(super) fn control(&self, side: Side) -> &Control {
        // SAFETY: two control blocks lie at the start of the mapping, page aligned.
        let block = unsafe { self.base.cast::<Control>().add(side.index()) };
        // SAFETY: a block is all atomics, for which any bytes are valid; it lives as long as `self`.
        unsafe { block.as_ref() }
    }

    pub(super) fn own(&self) -> &Control {
        self.control(self.side)
    }

    pub(super) fn peer(&self) -> &Control {
        self.control(self.side.other())
    }

    /// A window of `side`; `None` beyond the table.
    pub(super) fn window(&self, side: Side, slot: usize) -> Option<&WindowSlot> {
        if slot >= WINDOWS {
            return None;
        }
        // SAFETY: both tables lie behind the control blocks, aligned.
        let table = unsafe { self.base.add(ALIGN + side.index() * WINDOWS_LEN) };
        // SAFETY: `slot` is inside the table.
        let window = unsafe { table.cast::<WindowSlot>().add(slot) };
        // SAFETY: all atomics, for which any bytes are valid; it lives as long as `self`.
        Some(unsafe { window.as_ref() })
    }

    /// The ring into which `side` writes.
    pub(super) fn ring(&self, side: Side, lane: Lane) -> Ring<'_> {
        let tails = &self.control(side.other()).tails;
        let (index, tail) = match lane {
            Lane::Messages => (side.index(), &tails.messages),
            Lane::Service => (2 + side.index(), &tails.service),
        };
        // SAFETY: four rings, each mapped twice, lie behind the windows.
        let base = unsafe { self.base.add(RINGS_AT + 2 * index * self.ring_size) };
        Ring {
            base,
            size: self.ring_size as u64,
            tail,
            segment: PhantomData,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every borrow of it has ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

/// One ring: `size` bytes (a power of two) that repeat behind themselves.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    base: NonNull<u8>,
    size: u64,
    tail: &'a AtomicU64,
    segment: PhantomData<&'a Segment>,
}

impl<'a> Ring<'a> {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How far the consumer says it is.
    pub(super) fn tail(&self) -> &'a AtomicU64 {
        self.tail
    }

    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the mask is below the ring's size"
    )]
    fn at(&self, position: u64) -> NonNull<u8> {
        let offset = (position & (self.size - 1)) as usize;
        // SAFETY: the masked position lies in the first of the two mappings.
        unsafe { self.base.add(offset) }
    }

    /// The first word of the record that begins at `position`.
    #[inline]
    pub(super) fn word(&self, position: u64) -> &'a AtomicU64 {
        let word = self.at(position & !(GRANULE - 1)).cast::<AtomicU64>();
        // SAFETY: granule-aligned, inside the mapping; any bytes are a valid atomic.
        unsafe { word.as_ref() }
    }

    /// The second word of the record that begins at `position`.
    #[inline]
    pub(super) fn second_word(&self, position: u64) -> &'a AtomicU64 {
        let word = self.at((position & !(GRANULE - 1)) + 8).cast::<AtomicU64>();
        // SAFETY: eight bytes into a granule, inside the mapping; any bytes are a valid atomic.
        unsafe { word.as_ref() }
    }

    /// Copies `len` bytes into the ring at `position`; `false`, and nothing copied, if they are
    /// more than the ring holds.
    ///
    /// # Safety
    /// The caller promises that `from` is readable for `len` bytes.
    #[inline]
    pub(super) unsafe fn fill(
        &self,
        position: u64,
        from: *const u8,
        len: usize,
        how: copy::How,
    ) -> bool {
        if len as u64 > self.size {
            return false;
        }
        // SAFETY: from any masked position, `size` bytes lie in the double mapping; private and
        // shared memory do not overlap; the caller promised the source.
        unsafe { copy::copy(self.at(position).as_ptr(), from, len, how) };
        true
    }

    /// Copies `len` bytes out of the ring at `position`; `false`, and nothing copied, if they are
    /// more than the ring holds.
    ///
    /// # Safety
    /// The caller promises that `to` is writable for `len` bytes.
    #[inline]
    pub(super) unsafe fn take(&self, position: u64, to: *mut u8, len: usize) -> bool {
        if len as u64 > self.size {
            return false;
        }
        // SAFETY: as in `fill`, with the roles exchanged.
        unsafe { std::ptr::copy_nonoverlapping(self.at(position).as_ptr(), to, len) };
        true
    }

    /// `fill` from a slice.
    pub(super) fn fill_from(&self, position: u64, from: &[u8]) -> bool {
        // SAFETY: a slice is readable for its length.
        unsafe { self.fill(position, from.as_ptr(), from.len(), copy::How::Cached) }
    }

    /// `take` into a slice.
    pub(super) fn take_into(&self, position: u64, to: &mut [u8]) -> bool {
        // SAFETY: a slice is writable for its length.
        unsafe { self.take(position, to.as_mut_ptr(), to.len()) }
    }
}

/// Adds `amount` to a notice word: the other side sees that something changed.
pub(super) fn note(notices: &Notices) {
    // Pairs with the load at the start of every poll: what was published before is seen after.
    notices.changes.fetch_add(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn both_mappings_see_the_same_ring_and_its_end_continues_at_its_start() {
        let (ours, file) = Segment::create(1 << 18).unwrap();
        let theirs = Segment::join(file.as_fd(), 1 << 18).unwrap();
        let out = ours.ring(Side::Acceptor, Lane::Messages);
        let inward = theirs.ring(Side::Acceptor, Lane::Messages);
        let text = b"across the end of the ring";
        assert!(out.fill_from(out.size() - 7, text));
        let mut read = [0; 26];
        assert!(inward.take_into(inward.size() - 7, &mut read));
        assert_eq!(&read, text);
        let mut rest = [0; 19];
        assert!(inward.take_into(0, &mut rest));
        assert_eq!(&rest, &text[7..]);
    }

    #[test]
    fn the_rings_of_a_segment_do_not_overlap() {
        let (segment, _file) = Segment::create(1 << 18).unwrap();
        let rings = [Side::Acceptor, Side::Connector]
            .map(|side| [Lane::Messages, Lane::Service].map(|lane| segment.ring(side, lane)));
        for (number, ring) in rings.iter().flatten().enumerate() {
            let fill = vec![u8::try_from(number).unwrap() + 1; 1 << 18];
            assert!(ring.fill_from(0, &fill));
        }
        for (number, ring) in rings.iter().flatten().enumerate() {
            let mut back = vec![0; 1 << 18];
            assert!(ring.take_into(0, &mut back));
            assert!(back.iter().all(|&byte| usize::from(byte) == number + 1));
        }
        assert_eq!(segment.own().notices.closed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_than_a_ring_is_not_copied() {
        let (segment, _file) = Segment::create(1 << 18).unwrap();
        let ring = segment.ring(Side::Acceptor, Lane::Service);
        assert!(!ring.fill_from(0, &vec![0; (1 << 18) + 1]));
        assert!(!ring.take_into(64, &mut vec![0; (1 << 18) + 1]));
    }

    #[test]
    fn a_file_that_could_shrink_or_has_another_size_is_refused() {
        let (_segment, file) = Segment::create(1 << 18).unwrap();
        assert!(Segment::join(file.as_fd(), 1 << 19).is_err());
        assert!(Segment::join(file.as_fd(), 100_000).is_err());
        let plain = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Segment::join(plain.as_fd(), 1 << 18).is_err());
    }

    #[test]
    fn windows_end_with_their_table() {
        let (segment, _file) = Segment::create(1 << 18).unwrap();
        assert!(segment.window(Side::Acceptor, WINDOWS - 1).is_some());
        assert!(segment.window(Side::Connector, WINDOWS).is_none());
    }
}
