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
//! A record of kind `TURN` has no payload; it fills the rest of the ring. With it a producer of
//! small messages goes back to the start early, so that a connection that only chats touches a few
//! pages of its ring and not all of it.
//!
//! Invariants: the word of a record is stored last, after its payload and after the word behind it
//! was zeroed; both positions are private, so the peer cannot move them; the consumer reads each
//! word once into a private copy and checks it before use.

use std::sync::atomic::{Ordering, fence};

use super::shm::{GRANULE, HEADER, Ring};

const MARK: u64 = 0xD15C;
/// The kind of a record that leads to the start of the ring.
const TURN: u8 = 0xFF;
/// How much of the ring is used by small messages as long as the consumer keeps up.
const WINDOW: u64 = 64 << 10;
/// A message that is small in this sense.
const SMALL: usize = 512;
/// The same in bytes where there are larger messages between them, as multiples of the largest one.
/// What is in front of the turn is all the room there is until the consumer has come past it: with
/// less, the large message behind a small one would wait for that each time.
const WINDOW_OF: u64 = 8;
/// After how many bytes the producer is told, at the latest.
const TELL: u64 = 32 << 10;

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
    /// From here on the next small record may begin at the start of the ring.
    turn: u64,
    /// The largest record since the last turn.
    largest: u64,
}

impl Producer {
    /// The position for the payload of a record of `len` bytes, if there is room for it.
    #[inline]
    pub(super) fn reserve(&mut self, ring: Ring<'_>, len: usize) -> Result<Option<u64>, Broken> {
        // One granule more: the word behind the record must be free to be zeroed.
        let need = record_size(len) + GRANULE;
        if len > SMALL {
            self.largest = self.largest.max(need);
        } else if self.head >= self.turn {
            self.consider_turn(ring, need)?;
        }
        if self.head - self.tail + need > ring.size() {
            self.believe_tail(ring)?;
            if self.head - self.tail + need > ring.size() {
                return Ok(None);
            }
        }
        Ok(Some(self.head + HEADER))
    }

    fn believe_tail(&mut self, ring: Ring<'_>) -> Result<(), Broken> {
        // SeqCst: also the look again after arming (see `link`).
        let tail = ring.tail().load(Ordering::SeqCst);
        if tail < self.tail || tail > self.head || !tail.is_multiple_of(GRANULE) {
            return Err(Broken);
        }
        self.tail = tail;
        Ok(())
    }

    /// Goes back to the start of the ring if enough is used and the consumer is near.
    #[cold]
    fn consider_turn(&mut self, ring: Ring<'_>, need: u64) -> Result<(), Broken> {
        let offset = self.head & (ring.size() - 1);
        let start = self.head - offset;
        let window = (WINDOW_OF * self.largest).min(ring.size() / 2).max(WINDOW);
        if offset < window {
            self.turn = start + window;
            return Ok(());
        }
        self.turn = start + ring.size() + WINDOW;
        self.believe_tail(ring)?;
        let rest = ring.size() - offset;
        if self.head + rest - self.tail + need <= ring.size() {
            let len = usize::try_from(rest - HEADER).map_err(|_| Broken)?;
            self.publish(ring, TURN, len, 0);
            self.turn = self.head + WINDOW;
            self.largest = 0;
        }
        Ok(())
    }

    /// After `reserve` and before the payload: makes the place behind a record of `len` bytes look
    /// empty. The consumer looks at the line of the record's word all the time; between two stores
    /// to that line nothing should have to be waited for, or it takes the line away in between.
    #[inline]
    pub(super) fn clear_behind(&self, ring: Ring<'_>, len: usize) {
        ring.word(self.head + record_size(len))
            .store(0, Ordering::Relaxed);
    }

    /// Shows the record whose payload was written behind the last `reserve`.
    #[inline]
    pub(super) fn publish(&mut self, ring: Ring<'_>, kind: u8, len: usize, second: u64) {
        self.clear_behind(ring, len);
        self.publish_cleared(ring, kind, len, second);
    }

    /// The same after `clear_behind` with the same length.
    #[inline]
    pub(super) fn publish_cleared(&mut self, ring: Ring<'_>, kind: u8, len: usize, second: u64) {
        let next = self.head + record_size(len);
        ring.second_word(self.head).store(second, Ordering::Relaxed);
        let word = (len as u64 & 0xFFFF_FFFF) | u64::from(kind) << 32 | MARK << 48;
        // Release for the payload. A store that also were the fence would wait for those before it,
        // and the consumer take the line away meanwhile.
        ring.word(self.head).store(word, Ordering::Release);
        // For the look at the peer's arming word that follows.
        fence(Ordering::SeqCst);
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
    /// The producer was told since `take_news`.
    news: bool,
}

impl Consumer {
    /// The next record, if there is one. Its payload may change until it is copied.
    #[inline]
    pub(super) fn peek(&mut self, ring: Ring<'_>) -> Result<Option<Record>, Broken> {
        let record = self.look(ring)?;
        match record {
            Some(record) if record.kind == TURN => {
                let end = self.position + record_size(record.len);
                if !end.is_multiple_of(ring.size()) {
                    return Err(Broken);
                }
                self.release(ring, record);
                // At the start there is no room for another turn: it would be too long.
                self.look(ring)
            }
            other => Ok(other),
        }
    }

    #[inline]
    fn look(&self, ring: Ring<'_>) -> Result<Option<Record>, Broken> {
        // SeqCst: also the look again after arming (see `link`).
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
    /// then.
    ///
    /// What this consumer keeps to itself is less than `TELL`, and the longest record and `TELL`
    /// together are less than the ring. So whoever waits for room has records in the ring, and is
    /// told when enough of them has been consumed; to them the ring is smaller by `TELL` at most.
    #[inline]
    pub(super) fn release(&mut self, ring: Ring<'_>, record: Record) {
        self.position += record_size(record.len);
        if self.position - self.told >= TELL {
            self.tell(ring);
        }
    }

    #[inline]
    fn tell(&mut self, ring: Ring<'_>) {
        if self.told != self.position {
            self.told = self.position;
            self.news = true;
            // Release for the reads of the payload; SeqCst for the look at the arming word that
            // follows.
            ring.tail().store(self.position, Ordering::SeqCst);
        }
    }

    /// Whether the producer was told something since the last call, and has to be woken if it
    /// waits for that.
    #[inline]
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
impl Producer {
    pub(super) fn head(&self) -> u64 {
        self.head
    }
}

#[cfg(test)]
impl Consumer {
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}
