//! The sending half of an endpoint: the ring of messages and the sends that wait for room in it.
//!
//! Invariant: sends enter the ring in posting order; a send that does not find room, or that must
//! not overtake a read or write posted before it, waits in the queue and holds its memory.

use std::collections::VecDeque;

use super::copy::Copier;
use super::link::Link;
use super::region::{Spans, Table, gather_by};
use super::ring::{Broken, Producer};
use super::shm::Lane;
use crate::fabric::{Access, Completion, Ending, OpId, Outcome, Piece, PostError, Posted};

/// The kind of a record in the ring of messages.
pub(super) const MESSAGE: u8 = 1;

#[derive(Debug)]
struct Waiting {
    op: OpId,
    spans: Spans,
    len: usize,
    /// The number of reads and writes that must have ended before. req: WSD-14
    after: u64,
}

/// Guarded by the endpoint's `sending` lock.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pub(super) table: Table,
    ring: Producer,
    copier: Copier,
    queue: VecDeque<Waiting>,
    done: Vec<Completion>,
}

/// What the caller knows about a send besides its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) max_message: usize,
    pub(super) depth: usize,
    /// Reads and writes posted before, and those of them that have ended.
    pub(super) after: u64,
    pub(super) ended: u64,
}

impl Sending {
    /// Starts a send. `Ok(Err(_))`: not accepted; `Err(_)`: the peer broke the rules.
    #[inline]
    pub(super) fn post(
        &mut self,
        link: &Link,
        op: OpId,
        pieces: &[Piece],
        terms: Terms,
    ) -> Result<Result<Posted, PostError>, Broken> {
        let mut spans = Spans::new();
        let len = match self.table.resolve(pieces, Access::READ, &mut spans) {
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        if len > terms.max_message {
            return Ok(Err(PostError::TooLarge));
        }
        if self.queue.is_empty() && terms.after <= terms.ended && self.put(link, &spans, len)? {
            return Ok(Ok(Posted::Done(len)));
        }
        if self.queue.len() >= terms.depth {
            return Ok(Err(PostError::Full));
        }
        self.table.hold(&spans);
        self.queue.push_back(Waiting {
            op,
            spans,
            len,
            after: terms.after,
        });
        Ok(Ok(Posted::Pending))
    }

    /// Copies a message into the ring, if there is room for it.
    #[inline]
    fn put(&mut self, link: &Link, spans: &Spans, len: usize) -> Result<bool, Broken> {
        let ring = link.outgoing(Lane::Messages);
        let Some(position) = self.ring.reserve(ring, len)? else {
            return Ok(false);
        };
        self.ring.clear_behind(ring, len);
        gather_by(&mut self.copier, spans, 0, len, ring, position);
        self.ring.publish_cleared(ring, MESSAGE, len, 0);
        Ok(true)
    }

    /// Moves waiting sends into the ring; says whether any was moved.
    pub(super) fn pump(&mut self, link: &Link, ended: u64) -> Result<bool, Broken> {
        let mut moved = false;
        while let Some(first) = self.queue.pop_front() {
            if first.after > ended || !self.put(link, &first.spans, first.len)? {
                self.queue.push_front(first);
                break;
            }
            moved = true;
            self.table.let_go(&first.spans);
            self.done.push(Completion {
                op: first.op,
                outcome: Outcome::Done(first.len),
            });
        }
        Ok(moved)
    }

    /// Whether `pump` would move something.
    pub(super) fn could_send(&mut self, link: &Link, ended: u64) -> bool {
        match self.queue.front() {
            Some(first) if first.after <= ended => {
                self.ring.reserve(link.outgoing(Lane::Messages), first.len) != Ok(None)
            }
            _ => false,
        }
    }

    /// Ends everything that waits.
    pub(super) fn flush(&mut self, ending: Ending) {
        for waiting in std::mem::take(&mut self.queue) {
            self.table.let_go(&waiting.spans);
            self.done.push(Completion {
                op: waiting.op,
                outcome: Outcome::Flushed(ending),
            });
        }
    }

    /// Whether there is anything here that `poll` has to look at.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.done.is_empty()
    }

    pub(super) fn has_completions(&self) -> bool {
        !self.done.is_empty()
    }

    pub(super) fn take_completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.done);
    }
}
