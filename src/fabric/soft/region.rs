//! The registered memory of this process, and every access to it.
//!
//! Owns the registration tables and the copies between registered memory and rings. A [`Span`] is
//! made only by [`Table::resolve`], which has checked it against a registration; whoever keeps a
//! span beyond the lock under which it was resolved holds its registration (see [`Table::hold`]),
//! and a held registration cannot be removed. So the promise made at `register` covers every span.

use std::io;

use smallvec::SmallVec;

use super::copy::{self, Copier};
use super::shm::Ring;
use super::sys;
use crate::fabric::{Access, DeregisterError, Key, Piece, PostError, Region};

/// Part of a registered region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    key: Key,
    base: usize,
    len: usize,
}

/// The pieces of one operation.
pub(super) type Spans = SmallVec<[Span; 2]>;

#[derive(Clone, Copy, Debug)]
struct Registration {
    region: Region,
    access: Access,
    /// Pending operations that hold it.
    holds: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    registration: Option<Registration>,
}

/// Registrations of one endpoint, as one of its lock domains sees them.
///
/// Every domain has its own copy, changed only while all of them are locked, so that each can be
/// read under its own lock alone.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

fn split(key: Key) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = key.0.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]),
    )
}

impl Table {
    /// Adds a registration. All copies give the same key, as they see the same changes.
    ///
    /// # Safety
    /// The caller passes on the promise of `Endpoint::register`.
    pub(super) unsafe fn add(&mut self, region: Region, access: Access) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            // Never zero, so that a key is never zero.
            slot.generation = (slot.generation + 1) & 0x7FFF_FFFF | 1 << 30;
            generation = slot.generation;
            slot.registration = Some(Registration {
                region,
                access,
                holds: 0,
            });
        }
        Key(u64::from(generation) << 32 | u64::from(index))
    }

    fn find(&mut self, key: Key) -> Option<&mut Registration> {
        let (index, generation) = split(key);
        let slot = self.slots.get_mut(index)?;
        if slot.generation == generation {
            slot.registration.as_mut()
        } else {
            None
        }
    }

    /// Whether the registration may be removed as far as this copy knows.
    pub(super) fn removable(&mut self, key: Key) -> Result<(), DeregisterError> {
        match self.find(key) {
            None => Err(DeregisterError::Unknown),
            Some(registration) if registration.holds > 0 => Err(DeregisterError::InUse),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        let (index, generation) = split(key);
        if let Some(slot) = self.slots.get_mut(index)
            && slot.generation == generation
            && slot.registration.take().is_some()
        {
            self.free.extend(u32::try_from(index));
        }
    }

    /// Checks pieces against their registrations and the use that is made of them, adds them to
    /// `spans` and says how long they are together.
    /// req: WSD-12, WSD-13
    #[inline]
    pub(super) fn resolve(
        &mut self,
        pieces: &[Piece],
        access: Access,
        spans: &mut Spans,
    ) -> Result<usize, PostError> {
        let mut total = 0usize;
        for piece in pieces {
            let registration = self.find(piece.key).ok_or(PostError::BadPiece)?;
            if !registration.access.contains(access) {
                return Err(PostError::Rights);
            }
            let end = piece
                .offset
                .checked_add(piece.len)
                .ok_or(PostError::BadPiece)?;
            if end > registration.region.len {
                return Err(PostError::BadPiece);
            }
            total = total.checked_add(piece.len).ok_or(PostError::TooLarge)?;
            spans.push(Span {
                key: piece.key,
                base: registration.region.base + piece.offset,
                len: piece.len,
            });
        }
        Ok(total)
    }

    /// Keeps the registrations of `spans` from being removed until `let_go`.
    pub(super) fn hold(&mut self, spans: &Spans) {
        for span in spans {
            if let Some(registration) = self.find(span.key) {
                registration.holds += 1;
            }
        }
    }

    pub(super) fn let_go(&mut self, spans: &Spans) {
        for span in spans {
            if let Some(registration) = self.find(span.key) {
                registration.holds = registration.holds.saturating_sub(1);
            }
        }
    }
}

/// The parts of `spans` that make up `len` bytes from `offset` on.
pub(super) fn parts(
    spans: &[Span],
    offset: usize,
    len: usize,
) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut skip = offset;
    let mut left = len;
    spans.iter().filter_map(move |span| {
        let from = skip.min(span.len);
        skip -= from;
        let take = (span.len - from).min(left);
        left -= take;
        (take > 0).then(|| (span.base + from, take))
    })
}

/// Copies `len` bytes of `spans`, from `offset` on, into a ring.
#[inline]
pub(super) fn gather(
    spans: &[Span],
    offset: usize,
    len: usize,
    ring: Ring<'_>,
    mut position: u64,
    how: copy::How,
) {
    for (base, take) in parts(spans, offset, len) {
        // SAFETY: a span lies in a live registration, whose maker promised the memory.
        unsafe { ring.fill(position, base as *const u8, take, how) };
        position += take as u64;
    }
}

/// As `gather`, the way that `copier` finds the cheapest.
#[inline]
pub(super) fn gather_by(
    copier: &mut Copier,
    spans: &[Span],
    offset: usize,
    len: usize,
    ring: Ring<'_>,
    position: u64,
) {
    let how = copier.choose(len / spans.len().max(1));
    if len < copy::BULK {
        return gather(spans, offset, len, ring, position, how);
    }
    let begin = copy::cycles();
    gather(spans, offset, len, ring, position, how);
    copier.learn(how, len, copy::cycles().wrapping_sub(begin));
}

/// Copies `len` bytes of a ring into `spans`, from `offset` on.
#[inline]
pub(super) fn scatter(
    spans: &[Span],
    offset: usize,
    len: usize,
    ring: Ring<'_>,
    mut position: u64,
) {
    for (base, take) in parts(spans, offset, len) {
        // SAFETY: a span lies in a live registration, whose maker promised the memory.
        unsafe { ring.take(position, base as *mut u8, take) };
        position += take as u64;
    }
}

/// Memory that the peer may reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exposure(Region);

/// Part of an exposed region, for one copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    base: usize,
    len: usize,
}

impl Exposure {
    /// # Safety
    /// The caller passes on the promise of `Endpoint::expose`.
    pub(super) unsafe fn new(region: Region) -> Self {
        Self(region)
    }

    pub(super) fn region(&self) -> Region {
        self.0
    }

    /// `None` outside the region.
    pub(super) fn reach(&self, offset: usize, len: usize) -> Option<Reach> {
        let end = offset.checked_add(len)?;
        (end <= self.0.len).then_some(Reach {
            base: self.0.base + offset,
            len,
        })
    }
}

impl Reach {
    /// Copies the memory into a ring.
    pub(super) fn put_into(self, ring: Ring<'_>, position: u64, how: copy::How) {
        // SAFETY: a reach lies in a live exposure, whose maker promised the memory; exposures end
        // under the lock under which copies are made.
        unsafe { ring.fill(position, self.base as *const u8, self.len, how) };
    }

    /// Copies a ring into the memory.
    pub(super) fn take_from(self, ring: Ring<'_>, position: u64) {
        // SAFETY: as above.
        unsafe { ring.take(position, self.base as *mut u8, self.len) };
    }
}

/// Copies between `len` bytes of `spans`, from `offset` on, and `remote` in process `pid`.
pub(super) fn transfer(
    pid: i32,
    write: bool,
    spans: &[Span],
    offset: usize,
    len: usize,
    remote: usize,
) -> io::Result<usize> {
    let local: SmallVec<[libc::iovec; 8]> = parts(spans, offset, len)
        .map(|(base, len)| libc::iovec {
            iov_base: base as *mut libc::c_void,
            iov_len: len,
        })
        .collect();
    // SAFETY: spans lie in live registrations, whose maker promised the memory.
    unsafe { sys::process_vm(pid, write, &local, remote, len) }
}

/// Whether process `pid` lets this one read its memory and holds `proof` at `at`.
pub(super) fn holds_proof(pid: i32, at: u64, proof: [u8; 16]) -> bool {
    let mut read = [0u8; 16];
    let local = [libc::iovec {
        iov_base: read.as_mut_ptr().cast(),
        iov_len: read.len(),
    }];
    let Ok(at) = usize::try_from(at) else {
        return false;
    };
    // SAFETY: the local part is `read`.
    let copied = unsafe { sys::process_vm(pid, false, &local, at, read.len()) };
    matches!(copied, Ok(16)) && read == proof
}

/// A span of memory that its owner keeps longer than the span.
#[cfg(feature = "testing")]
pub(super) fn lasting(memory: &[u8]) -> Spans {
    let (base, len) = (memory.as_ptr() as usize, memory.len());
    smallvec::smallvec![Span {
        key: Key(0),
        base,
        len
    }]
}

/// Registers memory that its owner keeps as long as the endpoint.
#[cfg(feature = "testing")]
pub(super) fn register_lasting(
    endpoint: &dyn crate::fabric::Endpoint,
    region: Region,
    access: Access,
) -> Option<Key> {
    // SAFETY: the benchmark keeps both together.
    unsafe { endpoint.register(region, access) }.ok()
}

/// Exposes memory that its owner keeps as long as the endpoint.
#[cfg(feature = "testing")]
pub(super) fn expose_lasting(
    endpoint: &dyn crate::fabric::Endpoint,
    region: Region,
    access: Access,
    descriptor: &mut [u8],
) -> Option<Key> {
    // SAFETY: the benchmark keeps both together.
    unsafe { endpoint.expose(region, access, descriptor) }.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_with(len: usize, access: Access) -> (Table, Key) {
        let mut table = Table::default();
        // SAFETY: nothing is copied in these tests.
        let key = unsafe { table.add(Region { base: 0x1000, len }, access) };
        (table, key)
    }

    #[test]
    fn pieces_are_checked_against_bounds_and_rights() {
        let (mut table, key) = table_with(100, Access::READ);
        let mut resolve = |offset, len, access| {
            table.resolve(&[Piece { key, offset, len }], access, &mut Spans::new())
        };
        assert_eq!(resolve(0, 100, Access::READ), Ok(100));
        assert_eq!(resolve(100, 0, Access::READ), Ok(0));
        assert_eq!(resolve(1, 100, Access::READ), Err(PostError::BadPiece));
        assert_eq!(
            resolve(usize::MAX, 2, Access::READ),
            Err(PostError::BadPiece)
        );
        assert_eq!(resolve(0, 1, Access::WRITE), Err(PostError::Rights));
    }

    #[test]
    fn a_removed_registration_is_unknown_also_when_its_slot_is_used_again() {
        let (mut table, old) = table_with(100, Access::READ);
        table.remove(old);
        assert_eq!(table.removable(old), Err(DeregisterError::Unknown));
        // SAFETY: nothing is copied.
        let new = unsafe {
            table.add(
                Region {
                    base: 0x1000,
                    len: 10,
                },
                Access::READ,
            )
        };
        assert_ne!(old, new);
        assert_eq!(table.removable(old), Err(DeregisterError::Unknown));
        assert_eq!(table.removable(new), Ok(()));
    }

    #[test]
    fn a_held_registration_is_in_use_until_it_is_let_go() {
        // req: WSD-12
        let (mut table, key) = table_with(100, Access::READ);
        let mut spans = Spans::new();
        table
            .resolve(
                &[Piece {
                    key,
                    offset: 0,
                    len: 1,
                }],
                Access::READ,
                &mut spans,
            )
            .unwrap();
        table.hold(&spans);
        assert_eq!(table.removable(key), Err(DeregisterError::InUse));
        table.let_go(&spans);
        assert_eq!(table.removable(key), Ok(()));
    }

    #[test]
    fn parts_cut_across_pieces() {
        let (mut table, key) = table_with(100, Access::READ);
        let pieces =
            [(0, 10), (50, 0), (20, 5), (90, 10)].map(|(offset, len)| Piece { key, offset, len });
        let mut spans = Spans::new();
        assert_eq!(table.resolve(&pieces, Access::READ, &mut spans), Ok(25));
        let cut: Vec<_> = parts(&spans, 8, 10).collect();
        assert_eq!(cut, [(0x1008, 2), (0x1014, 5), (0x105A, 3)]);
        assert_eq!(parts(&spans, 0, 25).map(|part| part.1).sum::<usize>(), 25);
        assert_eq!(parts(&spans, 25, 5).count(), 0);
    }
}
