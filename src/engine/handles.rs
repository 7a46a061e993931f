//! Numbers for things: a table that gives each thing a number and finds it again.
//!
//! Owns the numbers that leave the engine as socket descriptors. Does not know what they stand
//! for. Invariant: a number is given out once in the life of the process, so that a stale number
//! finds nothing, whatever has taken its place. Slots stay where they are once made; a lookup
//! takes the lock of one slot only and never waits for another thing's owner.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

/// Bits of a number that name the slot; the generation stands above them.
const SLOT_BITS: u32 = 24;
/// Bits of the generation. The top bit of a number stays 0: no number is "all ones".
const GENERATION_BITS: u32 = 63 - SLOT_BITS;
/// Slots of the first chunk; each further chunk is twice as large as the one before.
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = 18;
/// Slots are not reused before this many are free, so that recent numbers stay far apart.
const REST: usize = 16;

/// A number that stands for one thing, never for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Handle(u64);

impl Handle {
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    fn slot(self) -> usize {
        // Fits: masked to 24 bits.
        usize::try_from(self.0 & ((1 << SLOT_BITS) - 1)).unwrap_or(usize::MAX)
    }
}

struct Slot<T> {
    /// The number that the slot answers to now, 0 for none. Written under the write lock of
    /// `thing`, with release ordering: pairs with the acquire in `contains`.
    current: AtomicU64,
    thing: RwLock<Option<Arc<T>>>,
    generation: AtomicU64,
}

struct Free {
    slots: VecDeque<usize>,
    made: usize,
}

/// Things by number. Usable as a static.
pub(crate) struct Table<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    /// Guards which slots are free; held for no longer than a push or a pop.
    free: Mutex<Free>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(Free {
                slots: VecDeque::new(),
                made: 0,
            }),
        }
    }

    /// Chunk and place in it.
    fn locate(slot: usize) -> (usize, usize) {
        let shifted = slot + FIRST_CHUNK;
        let chunk = (shifted.ilog2() - FIRST_CHUNK.ilog2()) as usize;
        (chunk, shifted - (FIRST_CHUNK << chunk))
    }

    #[inline]
    fn slot(&self, slot: usize) -> Option<&Slot<T>> {
        let (chunk, place) = Self::locate(slot);
        self.chunks.get(chunk)?.get()?.get(place)
    }

    fn slot_or_make(&self, slot: usize) -> Option<&Slot<T>> {
        let (chunk, place) = Self::locate(slot);
        let made = self.chunks.get(chunk)?.get_or_init(|| {
            (0..FIRST_CHUNK << chunk)
                .map(|_| Slot {
                    current: AtomicU64::new(0),
                    thing: RwLock::new(None),
                    generation: AtomicU64::new(0),
                })
                .collect()
        });
        made.get(place)
    }

    /// Puts in what `make` makes of its number. None when no slot is left.
    pub(crate) fn insert_with(&self, make: impl FnOnce(Handle) -> Arc<T>) -> Option<Arc<T>> {
        let index = {
            let mut free = self.free.lock();
            if free.slots.len() > REST || free.made >= 1 << SLOT_BITS {
                free.slots.pop_front()?
            } else {
                free.made += 1;
                free.made - 1
            }
        };
        let slot = self.slot_or_make(index)?;
        let mut place = slot.thing.write();
        let generation = slot.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = Handle(generation << SLOT_BITS | index as u64);
        let thing = make(handle);
        *place = Some(Arc::clone(&thing));
        slot.current.store(handle.0, Ordering::Release);
        drop(place);
        Some(thing)
    }

    /// Whether the number stands for something now. Takes no lock.
    #[inline]
    pub(crate) fn contains(&self, handle: Handle) -> bool {
        handle.0 >> SLOT_BITS != 0
            && self
                .slot(handle.slot())
                .is_some_and(|slot| slot.current.load(Ordering::Acquire) == handle.0)
    }

    /// Uses the thing in place. It cannot be taken out meanwhile: `run` must be short, and must not
    /// come back to the table.
    #[inline]
    pub(crate) fn with<R>(&self, handle: Handle, run: impl FnOnce(&Arc<T>) -> R) -> Option<R> {
        if handle.0 >> SLOT_BITS == 0 {
            return None;
        }
        let slot = self.slot(handle.slot())?;
        let thing = slot.thing.read();
        if slot.current.load(Ordering::Relaxed) != handle.0 {
            return None;
        }
        thing.as_ref().map(run)
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<Arc<T>> {
        self.with(handle, Arc::clone)
    }

    /// Takes the thing out. Of several callers exactly one gets it.
    pub(crate) fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        if handle.0 >> SLOT_BITS == 0 {
            return None;
        }
        let slot = self.slot(handle.slot())?;
        let mut place = slot.thing.write();
        if slot.current.load(Ordering::Relaxed) != handle.0 {
            return None;
        }
        slot.current.store(0, Ordering::Release);
        let thing = place.take();
        drop(place);
        // A slot whose generations are used up is retired.
        if slot.generation.load(Ordering::Relaxed) < (1 << GENERATION_BITS) - 1 {
            self.free.lock().slots.push_back(handle.slot());
        }
        thing
    }

    /// Everything that has a number now.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let made = self.free.lock().made;
        (0..made)
            .filter_map(|slot| self.slot(slot)?.thing.read().clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_thing_and_nothing_after_removal() {
        let table = Table::<u32>::new();
        let mut numbers = Vec::new();
        for value in 0..500 {
            let mut number = None;
            let thing = table.insert_with(|handle| {
                number = Some(handle);
                Arc::new(value)
            });
            assert_eq!(*thing.unwrap(), value);
            numbers.push(number.unwrap());
        }
        for (value, &number) in (0..).zip(&numbers) {
            assert!(table.contains(number));
            assert_eq!(*table.get(number).unwrap(), value);
        }
        assert_eq!(table.all().len(), 500);
        for &number in &numbers {
            assert!(table.remove(number).is_some());
            assert!(table.remove(number).is_none());
            assert!(!table.contains(number));
            assert!(table.get(number).is_none());
        }
        assert!(table.all().is_empty());
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let table = Table::<()>::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2_000 {
            let mut number = Handle(0);
            table
                .insert_with(|handle| {
                    number = handle;
                    Arc::new(())
                })
                .unwrap();
            assert!(seen.insert(number));
            assert!(table.remove(number).is_some());
        }
    }

    #[test]
    fn foreign_numbers_find_nothing() {
        let table = Table::<()>::new();
        table.insert_with(|_| Arc::new(())).unwrap();
        for raw in [
            0,
            1,
            3,
            255,
            1 << SLOT_BITS | 63,
            2 << SLOT_BITS,
            u64::MAX,
            u64::MAX - 1,
        ] {
            assert!(!table.contains(Handle(raw)), "{raw:#x}");
            assert!(table.get(Handle(raw)).is_none(), "{raw:#x}");
            assert!(table.remove(Handle(raw)).is_none(), "{raw:#x}");
        }
    }

    #[test]
    fn of_many_removers_one_gets_the_thing() {
        let table = Table::<()>::new();
        for _ in 0..50 {
            let mut number = Handle(0);
            table
                .insert_with(|handle| {
                    number = handle;
                    Arc::new(())
                })
                .unwrap();
            let winners: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| usize::from(table.remove(number).is_some())))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            });
            assert_eq!(winners, 1);
        }
    }
}
