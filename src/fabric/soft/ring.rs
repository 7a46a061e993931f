//! A byte ring with one producer and one consumer.
//!
//! Owns the record format and the two positions; not the memory (`shm`) and not the meaning of
//! records. A record begins at a multiple of 64 bytes:
//!
//! ```text
//! 0   u64   length (32 bits) | kind (8) | zero (8) | MARK (16); zero: nothing here yet
//! 8   u64   meaning up to the kind
//! 16  ...   payload
//! ```
//!
//! Invariants: the word of a record is stored last, after its payload and after the word behind it
//! was zeroed; both positions are private, so the peer cannot move them; the consumer reads each
//! word once into a private copy and checks it before use.

use std::sync::atomic::Ordering;

use super::shm::{GRANULE, HEADER, Ring};

const MARK: u64 = 0xD15C;

/// The peer wrote something that no correct peer writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer broke the rules of the shared ring")]
pub(super) struct Broken;

/// Bytes that a record with `len` bytes of payload takes.
pub(super) const fn record_size(len: usize) -> u64 {
    (len as u64 + HEADER).next_multiple_of(GRANULE)
}

/// The writing end.
#[derive(Debug, Default)]
pub(super) struct Producer {
    head: u64,
    /// The last tail that was seen and believed.
    tail: u64,
}

impl Producer {
    /// The position for the payload of a record of `len` bytes, if there is room for it.
    #[inline]
    pub(super) fn reserve(&mut self, ring: Ring<'_>, len: usize) -> Result<Option<u64>, Broken> {
        // One granule more: the word behind the record must be free to be zeroed.
        let need = record_size(len) + GRANULE;
        if self.head - self.tail + need > ring.size() {
            self.believe_tail(ring)?;
            if self.head - self.tail + need > ring.size() {
                return Ok(None);
            }
        }
        Ok(Some(self.head + HEADER))
    }

    fn believe_tail(&mut self, ring: Ring<'_>) -> Result<(), Broken> {
        // SeqCst: also the look again after arming (see `wake`).
        let tail = ring.tail().load(Ordering::SeqCst);
        if tail < self.tail || tail > self.head || !tail.is_multiple_of(GRANULE) {
            return Err(Broken);
        }
        self.tail = tail;
        Ok(())
    }

    /// Shows the record whose payload was written behind the last `reserve`.
    #[inline]
    pub(super) fn publish(&mut self, ring: Ring<'_>, kind: u8, len: usize, second: u64) {
        let next = self.head + record_size(len);
        ring.word(next).store(0, Ordering::Relaxed);
        ring.second_word(self.head).store(second, Ordering::Relaxed);
        let word = (len as u64 & 0xFFFF_FFFF) | u64::from(kind) << 32 | MARK << 48;
        // Release for the payload; SeqCst for the look at the peer's arming word that follows.
        ring.word(self.head).store(word, Ordering::SeqCst);
        self.head = next;
    }
}

/// A record as the consumer sees it, in private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) len: usize,
    pub(super) second: u64,
    /// Where the payload is.
    pub(super) payload: u64,
}

/// The reading end.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    position: u64,
    /// The position that the producer was told.
    told: u64,
}

impl Consumer {
    /// The next record, if there is one. Its payload may change until it is copied.
    #[inline]
    pub(super) fn peek(&self, ring: Ring<'_>) -> Result<Option<Record>, Broken> {
        // SeqCst: also the look again after arming (see `wake`).
        let word = ring.word(self.position).load(Ordering::SeqCst);
        if word == 0 {
            return Ok(None);
        }
        let len = word & 0xFFFF_FFFF;
        if word >> 48 != MARK || word >> 40 & 0xFF != 0 || len + HEADER + GRANULE > ring.size() {
            return Err(Broken);
        }
        Ok(Some(Record {
            kind: (word >> 32 & 0xFF) as u8,
            len: usize::try_from(len).map_err(|_| Broken)?,
            second: ring.second_word(self.position).load(Ordering::Relaxed),
            payload: self.position + HEADER,
        }))
    }

    /// Gives the space of the record that `peek` returned back, and tells the producer now and
    /// then; `true` if it was told.
    #[inline]
    pub(super) fn release(&mut self, ring: Ring<'_>, record: Record) -> bool {
        self.position += record_size(record.len);
        if self.position - self.told >= ring.size() / 8 {
            self.tell(ring)
        } else {
            false
        }
    }

    /// Tells the producer, after a look at the ring, unless that would be in vain.
    ///
    /// A producer that waits for room finds a ring in which more is used than this consumer keeps
    /// to itself (less than an eighth), as no record is longer than a ring without an eighth. So
    /// there is something left to consume; and either it is still there, then this tells, or so
    /// much has been consumed that `release` has told.
    #[inline]
    pub(super) fn tell_if_needed(&mut self, ring: Ring<'_>, is_empty: bool) -> bool {
        if is_empty { false } else { self.tell(ring) }
    }

    /// Tells the producer how far this end is; `true` if that was news.
    #[inline]
    pub(super) fn tell(&mut self, ring: Ring<'_>) -> bool {
        if self.told == self.position {
            return false;
        }
        self.told = self.position;
        // Release for the reads of the payload; SeqCst for the look at the arming word that follows.
        ring.tail().store(self.position, Ordering::SeqCst);
        true
    }
}
