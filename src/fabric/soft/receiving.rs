//! The receiving half of an endpoint: posted receives, and the messages that fill them.
//!
//! Invariant: messages fill receives in order, one each; a message for which no receive is posted
//! stays in the ring.

use std::collections::VecDeque;

use super::link::{Link, reason};
use super::region::{Spans, Table, scatter};
use super::ring::{Broken, Consumer};
use super::sending::MESSAGE;
use super::shm::Lane;
use crate::fabric::{Access, Completion, Ending, OpId, Outcome, Piece, PostError, Posted};

#[derive(Debug)]
struct Waiting {
    op: OpId,
    spans: Spans,
    len: usize,
}

/// Guarded by the endpoint's `receiving` lock.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    pub(super) table: Table,
    ring: Consumer,
    queue: VecDeque<Waiting>,
    done: Vec<Completion>,
    /// The last look at the ring found nothing.
    waited: bool,
}

/// Why messages cannot be delivered any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failed;

impl From<Broken> for Failed {
    fn from(_: Broken) -> Self {
        Self
    }
}

/// What `deliver` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Delivered {
    /// The peer was told of free space.
    pub(super) told: bool,
    /// No complete message is left; known for certain only when draining.
    pub(super) empty: bool,
}

impl Receiving {
    /// Accepts a receive; it waits until `deliver`.
    pub(super) fn post(
        &mut self,
        op: OpId,
        pieces: &[Piece],
        depth: usize,
    ) -> Result<Posted, PostError> {
        let mut spans = Spans::new();
        let len = self.table.resolve(pieces, Access::WRITE, &mut spans)?;
        if self.queue.len() >= depth {
            return Err(PostError::Full);
        }
        self.table.hold(&spans);
        self.queue.push_back(Waiting { op, spans, len });
        Ok(Posted::Pending)
    }

    /// Whether a receive posted now would be the next to be filled and to be reported.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.done.is_empty()
    }

    /// Fills posted receives with the messages that are there; when `draining`, finds out too
    /// whether any is left.
    ///
    /// A look at the place of the next message costs the way to the other processor and back. One
    /// who has waited for this message most likely has to wait for the next one too, and gets this
    /// one first.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        link: &Link,
        draining: bool,
        into: &mut Vec<Completion>,
    ) -> Result<Delivered, Failed> {
        let ring = link.incoming(Lane::Messages);
        let mut delivered = Delivered::default();
        let ahead = draining || !self.waited;
        let mut first = true;
        // A message stays in the ring until there is a receive for it. req: WSD-09
        while draining || !self.queue.is_empty() {
            let Some(record) = self.ring.peek(ring)? else {
                delivered.empty = true;
                self.waited = first;
                break;
            };
            if record.kind != MESSAGE {
                return Err(Failed);
            }
            let Some(receive) = self.queue.pop_front() else {
                break;
            };
            self.table.let_go(&receive.spans);
            let fits = record.len <= receive.len;
            let outcome = if fits {
                Outcome::Done(record.len)
            } else {
                Outcome::Truncated
            };
            into.push(Completion {
                op: receive.op,
                outcome,
            });
            if !fits {
                return Err(Failed);
            }
            scatter(&receive.spans, 0, record.len, ring, record.payload);
            self.ring.release(ring, record);
            first = false;
            if !ahead {
                self.waited = false;
                break;
            }
        }
        delivered.told = self.ring.take_news();
        Ok(delivered)
    }

    /// Whether `deliver` would do something.
    pub(super) fn could_deliver(&mut self, link: &Link) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let next = self.ring.peek(link.incoming(Lane::Messages));
        if self.ring.take_news() {
            link.wake(reason::SPACE);
        }
        next != Ok(None)
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

    /// As `deliver`, for a `take_completions` to come.
    pub(super) fn deliver_later(
        &mut self,
        link: &Link,
        draining: bool,
    ) -> Result<Delivered, Failed> {
        let mut done = std::mem::take(&mut self.done);
        let delivered = self.deliver(link, draining, &mut done);
        self.done = done;
        delivered
    }

    pub(super) fn has_completions(&self) -> bool {
        !self.done.is_empty()
    }

    #[inline]
    pub(super) fn take_completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.done);
    }

    /// Reports an outcome by `take_completions` after all.
    pub(super) fn put_back(&mut self, completion: Completion) {
        self.done.push(completion);
    }

    /// The one completion there is, if it is of `op`.
    pub(super) fn take_only(&mut self, op: OpId) -> Option<Outcome> {
        match self.done.as_slice() {
            [only] if only.op == op => {
                let outcome = only.outcome;
                self.done.clear();
                Some(outcome)
            }
            _ => None,
        }
    }
}
