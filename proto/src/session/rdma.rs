//! Names for RDMA operations in flight, and the small fixed-size containers of the data path.
//!
//! A name carries a generation: a late or repeated report of an operation is not followed.

use alloc::vec::Vec;

/// Names one RDMA operation in flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RdmaId {
    generation: u32,
    index: u16,
    write: bool,
}

impl RdmaId {
    /// As a number, for use as the context of an operation.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.write) << 16 | u64::from(self.index)
    }

    /// From such a number.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let low = bits.to_le_bytes();
        let [a, b, c, _, d, e, f, g] = low;
        Self {
            generation: u32::from_le_bytes([d, e, f, g]),
            index: u16::from_le_bytes([a, b]),
            write: c & 1 != 0,
        }
    }

    pub(super) fn is_write(self) -> bool {
        self.write
    }
}

/// The operations of one direction in flight, each with its owner.
#[derive(Clone, Debug)]
pub(super) struct Operations<T> {
    slots: Vec<Slot<T>>,
    in_flight: usize,
    write: bool,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: u32,
    owner: Option<T>,
}

impl<T> Operations<T> {
    pub(super) fn new(most: u32, write: bool) -> Self {
        let slots = (0..most)
            .map(|_| Slot {
                generation: 0,
                owner: None,
            })
            .collect();
        Self {
            slots,
            in_flight: 0,
            write,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.slots.len()
    }

    pub(super) fn begin(&mut self, owner: T) -> Option<RdmaId> {
        let index = self.slots.iter().position(|slot| slot.owner.is_none())?;
        let slot = self.slots.get_mut(index)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.owner = Some(owner);
        self.in_flight += 1;
        Some(RdmaId {
            generation: slot.generation,
            index: u16::try_from(index).ok()?,
            write: self.write,
        })
    }

    pub(super) fn end(&mut self, id: RdmaId) -> Option<T> {
        let slot = self.slots.get_mut(usize::from(id.index))?;
        if slot.generation != id.generation {
            return None;
        }
        let owner = slot.owner.take()?;
        self.in_flight -= 1;
        Some(owner)
    }
}

/// A queue of at most `N` items, stored in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Few<T, const N: usize> {
    items: [Option<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> Few<T, N> {
    pub(super) const fn new() -> Self {
        Self {
            items: [None; N],
            len: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(self.len) {
            Some(place) => {
                *place = Some(item);
                self.len += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.items.first().and_then(Option::as_ref)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.items.first_mut().and_then(Option::take)?;
        self.items.rotate_left(1);
        self.len -= 1;
        Some(first)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_foreign_name_ends_nothing() {
        let mut operations = Operations::new(2, true);
        let first = operations.begin('a').unwrap();
        assert_eq!(operations.end(first), Some('a'));
        assert_eq!(operations.end(first), None);
        let second = operations.begin('b').unwrap();
        assert_ne!(first, second);
        assert_eq!(operations.end(first), None);
        assert_eq!(operations.end(RdmaId { index: 9, ..second }), None);
        assert!(operations.begin('c').is_some());
        assert!(operations.is_full());
        assert!(operations.begin('d').is_none());
        assert_eq!(operations.end(second), Some('b'));
    }

    #[test]
    fn a_name_survives_the_way_through_a_number() {
        let id = RdmaId {
            generation: 0xfedc_ba98,
            index: 0x7654,
            write: true,
        };
        assert_eq!(RdmaId::from_bits(id.to_bits()), id);
        let id = RdmaId { write: false, ..id };
        assert_eq!(RdmaId::from_bits(id.to_bits()), id);
    }

    #[test]
    fn few_keeps_the_order_and_its_limit() {
        let mut few = Few::<u8, 2>::new();
        assert!(few.push(1) && few.push(2) && !few.push(3));
        assert_eq!((few.pop(), few.front().copied()), (Some(1), Some(2)));
        assert!(few.push(3));
        assert_eq!((few.pop(), few.pop(), few.pop()), (Some(2), Some(3), None));
        assert!(few.is_empty());
    }
}
