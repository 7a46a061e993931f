//! Registered memory of one connection.
//!
//! Owns which regions were registered, with which rights, how often, and under which number. The
//! fabric owns what a registration means, and knows which of them a transfer still uses. Invariant:
//! a number finds its registration on this connection only, and only while it is registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::error::MemoryError;
use crate::fabric::{Access, DeregisterError, Endpoint, Key, Piece, Region, RegisterError};

/// Makes the fabric's registration. `spi` provides it, because the promise that the memory stays
/// is the switch's.
pub(crate) type Register<'a> =
    &'a dyn Fn(&dyn Endpoint, Region, Access) -> Result<Key, RegisterError>;
/// The same for an exposure; fills the descriptor.
pub(crate) type Expose<'a> =
    &'a dyn Fn(&dyn Endpoint, Region, Access, &mut [u8]) -> Result<Key, RegisterError>;

/// A registration's number. Unique in the process, so that one of another socket finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RegistrationId(pub(crate) u64);

/// Serial numbers of registrations; the place in the table stands below them.
static SERIAL: AtomicU64 = AtomicU64::new(1);
const PLACE_BITS: u32 = 20;
/// Set in every number, so that no registration looks like a socket.
const MARK: u64 = 1 << 62;

#[derive(Clone, Copy, Debug)]
struct Registration {
    id: RegistrationId,
    region: Region,
    access: Access,
    key: Key,
    count: u64,
}

#[derive(Debug)]
struct Exposure {
    region: Region,
    access: Access,
    key: Key,
    descriptor: Arc<[u8]>,
    count: u64,
    /// The fabric was asked to end it: the descriptor is worth nothing any more.
    ending: bool,
}

#[derive(Debug, Default)]
struct Tables {
    places: Vec<Option<Registration>>,
    free: Vec<usize>,
    /// (base, place), sorted: where to look for an address.
    by_base: Vec<(usize, usize)>,
    /// Length of the longest region ever; bounds the look-up.
    longest: usize,
    exposures: Vec<Exposure>,
}

/// The region that was last found, kept by who searches. Valid while `epoch` is the memory's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Near {
    epoch: u64,
    base: usize,
    len: usize,
    key: Key,
    access: Access,
}

pub(crate) struct Memory {
    tables: RwLock<Tables>,
    /// Grows when a registration goes. Release; pairs with the acquire in `find`.
    epoch: AtomicU64,
}

fn contains(region: Region, address: usize, len: usize) -> bool {
    address >= region.base
        && address - region.base <= region.len
        && len <= region.len - (address - region.base)
}

impl From<RegisterError> for MemoryError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::BadRegion => Self::BadRegion,
            RegisterError::NoResources => Self::NoResources,
            RegisterError::NotConnected => Self::NotConnected,
        }
    }
}

impl From<DeregisterError> for MemoryError {
    fn from(error: DeregisterError) -> Self {
        match error {
            DeregisterError::Unknown => Self::Unknown,
            DeregisterError::InUse => Self::InUse,
        }
    }
}

impl Tables {
    fn place_of(&self, id: RegistrationId) -> Option<usize> {
        let place = usize::try_from(id.0 & ((1 << PLACE_BITS) - 1)).ok()?;
        let registration = self.places.get(place)?.as_ref()?;
        (registration.id == id).then_some(place)
    }

    fn get(&self, id: RegistrationId) -> Option<&Registration> {
        self.places.get(self.place_of(id)?)?.as_ref()
    }

    fn same(&mut self, region: Region, access: Access) -> Option<&mut Registration> {
        let from = self
            .by_base
            .partition_point(|&(base, _)| base < region.base);
        let place = self
            .by_base
            .get(from..)?
            .iter()
            .take_while(|&&(base, _)| base == region.base)
            .map(|&(_, place)| place)
            .find(|&place| {
                matches!(self.places.get(place), Some(Some(known))
                    if known.region == region && known.access == access)
            })?;
        self.places.get_mut(place)?.as_mut()
    }

    fn insert(
        &mut self,
        region: Region,
        access: Access,
        key: Key,
    ) -> Result<RegistrationId, MemoryError> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < 1 << PLACE_BITS => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => return Err(MemoryError::NoResources),
        };
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let id = RegistrationId(MARK | serial << PLACE_BITS | place as u64);
        if let Some(free) = self.places.get_mut(place) {
            *free = Some(Registration {
                id,
                region,
                access,
                key,
                count: 1,
            });
        }
        let at = self
            .by_base
            .partition_point(|&(base, _)| base <= region.base);
        self.by_base.insert(at, (region.base, place));
        self.longest = self.longest.max(region.len);
        Ok(id)
    }

    fn remove(&mut self, place: usize) {
        if let Some(entry) = self.places.get_mut(place)
            && entry.take().is_some()
        {
            self.free.push(place);
        }
        self.by_base.retain(|&(_, known)| known != place);
        if self.by_base.is_empty() {
            self.longest = 0;
        }
    }

    fn find(&self, address: usize, len: usize, access: Access) -> Option<&Registration> {
        let end = self.by_base.partition_point(|&(base, _)| base <= address);
        self.by_base
            .get(..end)?
            .iter()
            .rev()
            .take_while(|&&(base, _)| address - base <= self.longest)
            .filter_map(|&(_, place)| self.places.get(place)?.as_ref())
            .find(|known| known.access.contains(access) && contains(known.region, address, len))
    }
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            tables: RwLock::new(Tables::default()),
            epoch: AtomicU64::new(0),
        }
    }

    /// Registers a region, or counts one more use of the same region with the same rights.
    pub(crate) fn register(
        &self,
        endpoint: &dyn Endpoint,
        region: Region,
        access: Access,
        register: Register<'_>,
    ) -> Result<RegistrationId, MemoryError> {
        let known = |tables: &mut Tables| {
            tables.same(region, access).map(|known| {
                known.count += 1;
                known.id
            })
        };
        // req: WSD-12, the same region again is counted.
        let again = known(&mut self.tables.write());
        if let Some(id) = again {
            return Ok(id);
        }
        // Pinning takes time: not under the lock that look-ups take.
        let key = register(endpoint, region, access)?;
        let outcome = {
            let mut tables = self.tables.write();
            match known(&mut tables) {
                Some(id) => Err(Ok(id)),
                None => tables.insert(region, access, key).map_err(Err),
            }
        };
        outcome.or_else(|other| {
            // Another thread was faster, or there is no place: ours is not needed.
            if let Err(error) = endpoint.deregister(key) {
                tracing::error!(%error, "cannot take back a registration");
            }
            other
        })
    }

    /// Takes one use back. `deferred` tells whether a waiting post names the registration.
    pub(crate) fn deregister(
        &self,
        endpoint: &dyn Endpoint,
        id: RegistrationId,
        deferred: impl Fn(Key) -> bool,
    ) -> Result<(), MemoryError> {
        let key = self.tables.read().get(id).map(|known| known.key);
        let in_use = deferred(key.ok_or(MemoryError::Unknown)?);
        let mut tables = self.tables.write();
        let place = tables.place_of(id).ok_or(MemoryError::Unknown)?;
        let Some(Some(known)) = tables.places.get_mut(place) else {
            return Err(MemoryError::Unknown);
        };
        if known.count > 1 {
            known.count -= 1;
            return Ok(());
        }
        // req: WSD-12, what a transfer still uses stays.
        if in_use {
            return Err(MemoryError::InUse);
        }
        endpoint.deregister(known.key)?;
        tables.remove(place);
        self.epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Exposes a region to the peer, or counts one more use, and returns the descriptor.
    pub(crate) fn expose(
        &self,
        endpoint: &dyn Endpoint,
        region: Region,
        access: Access,
        descriptor_len: usize,
        expose: Expose<'_>,
    ) -> Result<Arc<[u8]>, MemoryError> {
        let known = |tables: &mut Tables| {
            tables
                .exposures
                .iter_mut()
                .find(|known| known.region == region && known.access == access && !known.ending)
                .map(|known| {
                    known.count += 1;
                    Arc::clone(&known.descriptor)
                })
        };
        let again = known(&mut self.tables.write());
        if let Some(descriptor) = again {
            return Ok(descriptor);
        }
        let mut bytes = vec![0; descriptor_len];
        let key = expose(endpoint, region, access, &mut bytes)?;
        let descriptor: Arc<[u8]> = bytes.into();
        let faster = {
            let mut tables = self.tables.write();
            let faster = known(&mut tables);
            if faster.is_none() {
                tables.exposures.push(Exposure {
                    region,
                    access,
                    key,
                    descriptor: Arc::clone(&descriptor),
                    count: 1,
                    ending: false,
                });
            }
            faster
        };
        if faster.is_some()
            && let Err(error) = endpoint.conceal(key)
        {
            tracing::error!(%error, "cannot take back an exposure");
        }
        Ok(faster.unwrap_or(descriptor))
    }

    /// Takes one use of an exposure back; after the last one the peer cannot reach the memory.
    pub(crate) fn conceal(
        &self,
        endpoint: &dyn Endpoint,
        descriptor: &[u8],
    ) -> Result<(), MemoryError> {
        let key = {
            let mut tables = self.tables.write();
            let known = tables
                .exposures
                .iter_mut()
                .find(|known| *known.descriptor == *descriptor)
                .ok_or(MemoryError::Unknown)?;
            if known.count > 1 {
                known.count -= 1;
                return Ok(());
            }
            known.ending = true;
            known.key
        };
        // Waits for a copy of the peer: not under the lock that look-ups take.
        endpoint.conceal(key)?;
        self.tables
            .write()
            .exposures
            .retain(|known| known.key != key);
        Ok(())
    }

    /// The piece for memory at an address, if a registration with the rights holds all of it.
    #[inline]
    pub(crate) fn find(
        &self,
        near: &mut Option<Near>,
        address: usize,
        len: usize,
        access: Access,
    ) -> Option<Piece> {
        // Read before the tables: a registration that goes meanwhile makes the answer stale, not
        // wrong, because the fabric checks the key again.
        let epoch = self.epoch.load(Ordering::Acquire);
        if let Some(known) = near
            && known.epoch == epoch
            && known.access.contains(access)
            && contains(
                Region {
                    base: known.base,
                    len: known.len,
                },
                address,
                len,
            )
        {
            return Some(Piece {
                key: known.key,
                offset: address - known.base,
                len,
            });
        }
        let found = *self.tables.read().find(address, len, access)?;
        *near = Some(Near {
            epoch,
            base: found.region.base,
            len: found.region.len,
            key: found.key,
            access: found.access,
        });
        Some(Piece {
            key: found.key,
            offset: address - found.region.base,
            len,
        })
    }

    /// The piece for memory of a named registration. Err(true): there is no such registration;
    /// Err(false): it does not hold the memory or does not permit this.
    pub(crate) fn find_in(
        &self,
        id: RegistrationId,
        address: usize,
        len: usize,
        access: Access,
    ) -> Result<Piece, bool> {
        let found = *self.tables.read().get(id).ok_or(true)?;
        if found.access.contains(access) && contains(found.region, address, len) {
            Ok(Piece {
                key: found.key,
                offset: address - found.region.base,
                len,
            })
        } else {
            Err(false)
        }
    }

    /// Releases whatever the switch left registered. Nothing is in progress any more.
    pub(crate) fn release_all(&self, endpoint: &dyn Endpoint) {
        let tables = std::mem::take(&mut *self.tables.write());
        self.epoch.fetch_add(1, Ordering::Release);
        for exposure in tables.exposures {
            release(|| endpoint.conceal(exposure.key));
        }
        for registration in tables.places.into_iter().flatten() {
            release(|| endpoint.deregister(registration.key));
        }
    }
}

/// Waits for an access of the peer that is just under way; it is short.
fn release(take_back: impl Fn() -> Result<(), DeregisterError>) {
    for _ in 0..2_000 {
        match take_back() {
            Err(DeregisterError::InUse) => {
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
            Ok(()) | Err(DeregisterError::Unknown) => return,
        }
    }
    tracing::error!("a registration stays in use after the end of its connection");
}
