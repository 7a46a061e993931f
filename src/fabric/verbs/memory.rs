//! Registered memory of one connection, and the descriptors that name it to the peer.
//!
//! Owns the table of registrations, their generations, and which of them pending operations hold.
//! Invariant: a [`Sge`] is made only by [`Memory::resolve`], inside a registration and within its
//! rights; whoever keeps it holds the registration, and a held registration is not removed.
//!
//! Every registration of a connection is one of its own protection domain, so the device itself
//! refuses a key on any other connection; and an exposure ends by deregistering, so it refuses a
//! key that was concealed. Registrations for local use come from a cache and go back to it; what a
//! peer can reach never does, and so neither does the target of reads on iWARP.

use std::io;
use std::sync::Arc;

use smallvec::SmallVec;

use super::sys::{Conn, Mr, Rights, Sge};
use crate::fabric::regcache::{Domain, Lease};
use crate::fabric::{Access, DeregisterError, Key, Piece, PostError, Region, RegisterError};

/// Length of a descriptor of exposed memory.
pub(super) const DESCRIPTOR_LEN: usize = 32;
const VERSION: u16 = 0x5601;
/// Tells the keys of exposures from those of registrations.
const EXPOSED: u64 = 1 << 63;
const GENERATIONS: u32 = 0x3FFF_FFFF;

/// What one operation hands to the device.
pub(super) type Sges = SmallVec<[Sge; 4]>;
/// The registrations that an operation holds.
pub(super) type Held = SmallVec<[Key; 2]>;

/// What names exposed memory to the peer, little-endian:
///
/// ```text
/// 0  u16 version | u16 rights | u32 key | u32 generation | u32 zero | u64 length | u64 address
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) rights: Access,
    pub(super) key: u32,
    pub(super) generation: u32,
    pub(super) len: u64,
    pub(super) address: u64,
}

impl Descriptor {
    pub(super) fn to_bytes(self) -> [u8; DESCRIPTOR_LEN] {
        let mut bytes = [0; DESCRIPTOR_LEN];
        let fields = VERSION
            .to_le_bytes()
            .into_iter()
            .chain(u16::from(self.rights.bits()).to_le_bytes())
            .chain(self.key.to_le_bytes())
            .chain(self.generation.to_le_bytes())
            .chain([0; 4])
            .chain(self.len.to_le_bytes())
            .chain(self.address.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// `None` if these are not the bytes of a descriptor.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DESCRIPTOR_LEN {
            return None;
        }
        let half = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let double = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if half(0)? != VERSION || word(12)? != 0 {
            return None;
        }
        Some(Self {
            rights: Access::from_bits(u8::try_from(half(2)?).ok()?)?,
            key: word(4)?,
            generation: word(8)?,
            len: double(16)?,
            address: double(24)?,
        })
    }

    /// Where an access begins, if it stays inside and is permitted.
    // req: WSD-13
    pub(super) fn reach(&self, access: Access, offset: u64, len: usize) -> Option<u64> {
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        if !self.rights.contains(access) || end > self.len {
            return None;
        }
        self.address.checked_add(offset)
    }
}

/// Whether there is anything to register.
fn has_bytes(region: Region) -> Result<bool, RegisterError> {
    region
        .base
        .checked_add(region.len)
        .ok_or(RegisterError::BadRegion)?;
    // Of nothing, a device would register nothing, and nothing could be moved.
    Ok(region.len > 0)
}

fn refused(error: &io::Error) -> RegisterError {
    tracing::debug!(%error, "memory could not be registered");
    match error.raw_os_error() {
        Some(libc::EFAULT | libc::EINVAL | libc::EACCES) => RegisterError::BadRegion,
        Some(libc::ENOTCONN) => RegisterError::NotConnected,
        _ => RegisterError::NoResources,
    }
}

/// What the device knows of a registration.
#[derive(Debug)]
enum Handle {
    /// Nothing, because there are no bytes.
    Empty,
    /// May cover more than the region.
    Shared(Lease<Mr>),
    /// Ends with its owner.
    Own(Mr),
}

impl Handle {
    /// The part of the region, which the caller has checked.
    fn part(&self, offset: usize, len: usize) -> Result<Sge, PostError> {
        let part = match self {
            Handle::Empty => return Err(PostError::BadPiece),
            Handle::Shared(lease) => lease
                .offset()
                .checked_add(offset)
                .and_then(|offset| lease.part(offset, len)),
            Handle::Own(mr) => mr.part(offset, len),
        };
        part.ok_or(PostError::TooLarge)
    }

    /// What names it to the peer. None for what the peer is not to reach.
    fn remote_key(&self) -> u32 {
        match self {
            Handle::Own(mr) => mr.remote_key(),
            Handle::Empty | Handle::Shared(_) => 0,
        }
    }
}

/// One registration, not yet in the table.
#[derive(Debug)]
pub(super) struct Registration {
    handle: Handle,
    region: Region,
    access: Access,
    exposed: bool,
    /// Pending operations that hold it.
    holds: u32,
}

impl Registration {
    /// Memory for local use. On iWARP the target of a read is written to by the peer, and needs the
    /// right for it; so it is not kept.
    ///
    /// Not to be called, and what it returns not to be dropped, under the lock of the table.
    ///
    /// # Safety
    /// The caller passes on the promise of `Endpoint::register`.
    pub(super) unsafe fn local(
        conn: &Arc<Conn>,
        domain: &Domain<Mr>,
        region: Region,
        access: Access,
        iwarp: bool,
    ) -> Result<Self, RegisterError> {
        let writable = access.contains(Access::WRITE);
        let rights = Rights {
            local_write: writable,
            remote_read: false,
            remote_write: writable && iwarp,
        };
        if !has_bytes(region)? {
            return Ok(Self::new(Handle::Empty, region, access, false));
        }
        // SAFETY: the caller's promise is that of `register`; once it is released, nothing is posted
        // on it, until it is handed out for memory that is promised anew and has not changed since.
        let register = || unsafe { Mr::register(conn, region.base, region.len, rights) };
        let handle = if rights.remote_write {
            domain.make_own(register).map(Handle::Own)
        } else {
            domain.acquire(region, access, register).map(Handle::Shared)
        };
        let handle = handle.map_err(|error| refused(&error))?;
        Ok(Self::new(handle, region, access, false))
    }

    /// Memory that the peer may reach, with exactly the rights given.
    ///
    /// Not to be called under the lock of the table.
    ///
    /// # Safety
    /// The caller passes on the promise of `Endpoint::expose`.
    // req: WSD-13
    pub(super) unsafe fn exposed(
        conn: &Arc<Conn>,
        domain: &Domain<Mr>,
        region: Region,
        access: Access,
    ) -> Result<Self, RegisterError> {
        let rights = Rights {
            local_write: false,
            remote_read: access.contains(Access::READ),
            remote_write: access.contains(Access::WRITE),
        };
        if !has_bytes(region)? {
            return Ok(Self::new(Handle::Empty, region, access, true));
        }
        // SAFETY: the caller's promise is that of this function.
        let register = || unsafe { Mr::register(conn, region.base, region.len, rights) };
        let mr = domain.make_own(register).map_err(|error| refused(&error))?;
        Ok(Self::new(Handle::Own(mr), region, access, true))
    }

    fn new(handle: Handle, region: Region, access: Access, exposed: bool) -> Self {
        Self {
            handle,
            region,
            access,
            exposed,
            holds: 0,
        }
    }

    /// Takes back what the peer may reach. If that fails it may still reach it, and dropping tries again.
    pub(super) fn conceal(&mut self) -> io::Result<()> {
        match &mut self.handle {
            Handle::Own(mr) => mr.end(),
            Handle::Empty | Handle::Shared(_) => Ok(()),
        }
    }

    fn descriptor(&self, generation: u32) -> Descriptor {
        Descriptor {
            rights: self.access,
            key: self.handle.remote_key(),
            generation,
            len: self.region.len as u64,
            address: self.region.base as u64,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    registration: Option<Registration>,
}

/// The registrations of one connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

fn split(key: Key) -> (usize, u32, bool) {
    let [a, b, c, d, e, f, g, h] = key.0.to_le_bytes();
    (
        usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX),
        u32::from_le_bytes([e, f, g, h]) & !(1 << 31),
        key.0 & EXPOSED != 0,
    )
}

impl Memory {
    /// Enters a registration, or gives it back if there is no room. The descriptor means something
    /// for an exposed one.
    pub(super) fn add(
        &mut self,
        registration: Registration,
    ) -> Result<(Key, Descriptor), Registration> {
        let index = self.free.pop().or_else(|| {
            let index = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot::default());
            Some(index)
        });
        let place = index.and_then(|index| {
            let slot = self.slots.get_mut(usize::try_from(index).ok()?)?;
            Some((index, slot))
        });
        let Some((index, slot)) = place else {
            return Err(registration);
        };
        // Never zero, so that a key is never zero.
        slot.generation = slot.generation % GENERATIONS + 1;
        let mark = if registration.exposed { EXPOSED } else { 0 };
        let descriptor = registration.descriptor(slot.generation);
        slot.registration = Some(registration);
        let key = Key(mark | u64::from(slot.generation) << 32 | u64::from(index));
        Ok((key, descriptor))
    }

    fn find(&mut self, key: Key) -> Option<&mut Registration> {
        let (index, generation, exposed) = split(key);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        slot.registration
            .as_mut()
            .filter(|known| known.exposed == exposed)
    }

    /// Takes a registration (or an exposure) out. Dropping what is returned ends it.
    pub(super) fn remove(
        &mut self,
        key: Key,
        exposed: bool,
    ) -> Result<Registration, DeregisterError> {
        let known = self.find(key).ok_or(DeregisterError::Unknown)?;
        if known.exposed != exposed {
            return Err(DeregisterError::Unknown);
        }
        // req: WSD-12, what a transfer still uses stays.
        if known.holds > 0 {
            return Err(DeregisterError::InUse);
        }
        let (index, ..) = split(key);
        let taken = self
            .slots
            .get_mut(index)
            .and_then(|slot| slot.registration.take())
            .ok_or(DeregisterError::Unknown)?;
        self.free.extend(u32::try_from(index));
        Ok(taken)
    }

    /// Checks pieces against their registrations and the use that is made of them, and says how
    /// long they are together. Nothing is held yet.
    // req: WSD-12
    pub(super) fn resolve(
        &mut self,
        pieces: &[Piece],
        access: Access,
        into: &mut Sges,
    ) -> Result<usize, PostError> {
        let mut total = 0_usize;
        for piece in pieces {
            let known = self.find(piece.key).ok_or(PostError::BadPiece)?;
            if known.exposed {
                return Err(PostError::BadPiece);
            }
            if !known.access.contains(access) {
                return Err(PostError::Rights);
            }
            let end = piece.offset.checked_add(piece.len);
            if end.is_none_or(|end| end > known.region.len) {
                return Err(PostError::BadPiece);
            }
            total = total.checked_add(piece.len).ok_or(PostError::TooLarge)?;
            if piece.len == 0 {
                continue;
            }
            into.push(known.handle.part(piece.offset, piece.len)?);
        }
        Ok(total)
    }

    /// Keeps the registrations of the pieces from being removed until `let_go`.
    pub(super) fn hold(&mut self, pieces: &[Piece]) -> Held {
        let mut held = Held::new();
        for piece in pieces.iter().filter(|piece| piece.len > 0) {
            if let Some(known) = self.find(piece.key) {
                known.holds += 1;
                held.push(piece.key);
            }
        }
        held
    }

    pub(super) fn let_go(&mut self, held: &Held) {
        for &key in held {
            if let Some(known) = self.find(key) {
                known.holds = known.holds.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> Descriptor {
        Descriptor {
            rights: Access::READ,
            key: 0xA1B2_C3D4,
            generation: 7,
            len: 100,
            address: 0x7F00_1234_5678,
        }
    }

    #[test]
    fn a_descriptor_survives_its_bytes_and_nothing_else_is_one() {
        let bytes = descriptor().to_bytes();
        assert_eq!(Descriptor::parse(&bytes), Some(descriptor()));
        assert_eq!(Descriptor::parse(&bytes[..31]), None);
        assert_eq!(Descriptor::parse(&[0; 32]), None);
        assert_eq!(Descriptor::parse(&[0xFF; 32]), None);
        let mut wrong_rights = bytes;
        wrong_rights[2] = 4;
        assert_eq!(Descriptor::parse(&wrong_rights), None);
    }

    #[test]
    fn an_access_stays_inside_and_within_its_rights() {
        // req: WSD-13
        let at = |access, offset, len| descriptor().reach(access, offset, len);
        assert_eq!(at(Access::READ, 0, 100), Some(0x7F00_1234_5678));
        assert_eq!(at(Access::READ, 100, 0), Some(0x7F00_1234_5678 + 100));
        assert_eq!(at(Access::READ, 1, 100), None);
        assert_eq!(at(Access::READ, u64::MAX, 2), None);
        assert_eq!(at(Access::WRITE, 0, 1), None);
    }

    fn entry(exposed: bool) -> Registration {
        Registration::new(
            Handle::Empty,
            Region { base: 0, len: 10 },
            Access::READ,
            exposed,
        )
    }

    #[test]
    fn a_key_is_good_for_one_registration_only() {
        let mut memory = Memory::default();
        let (first, _) = memory.add(entry(false)).unwrap();
        assert_eq!(
            memory.remove(first, true).err(),
            Some(DeregisterError::Unknown)
        );
        drop(memory.remove(first, false).unwrap());
        let (second, _) = memory.add(entry(false)).unwrap();
        assert_ne!(first, second);
        assert_eq!(
            memory.remove(first, false).err(),
            Some(DeregisterError::Unknown)
        );
        let (exposed, _) = memory.add(entry(true)).unwrap();
        assert_eq!(
            memory.remove(exposed, false).err(),
            Some(DeregisterError::Unknown)
        );
        drop(memory.remove(exposed, true).unwrap());
    }

    #[test]
    fn what_is_held_stays() {
        // req: WSD-12
        let mut memory = Memory::default();
        let (key, _) = memory.add(entry(false)).unwrap();
        let piece = |offset, len| Piece { key, offset, len };
        let held = memory.hold(&[piece(0, 1), piece(1, 1), piece(0, 0)]);
        assert_eq!(held.len(), 2);
        assert_eq!(
            memory.remove(key, false).err(),
            Some(DeregisterError::InUse)
        );
        memory.let_go(&held);
        drop(memory.remove(key, false).unwrap());
    }

    #[test]
    fn pieces_outside_their_registration_are_refused() {
        // req: WSD-12
        let mut memory = Memory::default();
        let (key, _) = memory.add(entry(false)).unwrap();
        let mut ask = |offset, len, access| {
            memory.resolve(&[Piece { key, offset, len }], access, &mut Sges::new())
        };
        assert_eq!(ask(10, 0, Access::READ), Ok(0));
        assert_eq!(ask(10, 1, Access::READ), Err(PostError::BadPiece));
        assert_eq!(ask(usize::MAX, 2, Access::READ), Err(PostError::BadPiece));
        assert_eq!(ask(0, 0, Access::WRITE), Err(PostError::Rights));
        let foreign = Piece {
            key: Key(3),
            offset: 0,
            len: 0,
        };
        assert_eq!(
            memory.resolve(&[foreign], Access::READ, &mut Sges::new()),
            Err(PostError::BadPiece)
        );
    }
}
