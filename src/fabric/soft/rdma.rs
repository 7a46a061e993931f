//! Reads and writes of the peer's memory, and the peer's of ours.
//!
//! Owns the transfers that this side has started, in order, and the exposures. How a transfer is
//! carried is in `rdma_direct` (this process copies by itself) and `rdma_pipelined` (the peer's
//! process copies, asked through the service rings, and this one copies for the peer); a target
//! serves both at any time, so each side chooses for itself.
//!
//! Invariants: transfers end in posting order; `ended` counts them, and a send waits until all
//! that were posted before it have ended (Write → Send and Read → Send); a transfer in the queue
//! holds its memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::link::Link;
use super::rdma_pipelined::Service;
use super::region::{Spans, Table};
use super::ring::Broken;
use super::window::{Denied, Descriptor, Wanted, Windows};
use crate::fabric::{Access, Completion, Ending, OpId, Outcome};

/// One read or write of the peer's memory.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) op: OpId,
    pub(super) read: bool,
    pub(super) spans: Spans,
    pub(super) len: usize,
    pub(super) remote: Descriptor,
    pub(super) offset: u64,
    /// Bytes that have been asked for.
    pub(super) asked: usize,
    /// Whether nothing more has to be asked for.
    pub(super) all_asked: bool,
    /// Bytes that have been moved.
    pub(super) moved: usize,
}

impl Transfer {
    /// The whole access, which is checked whole for each part of it.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            access: if self.read {
                Access::READ
            } else {
                Access::WRITE
            },
            offset: self.offset,
            len: self.len as u64,
        }
    }
}

/// Why transfers cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The peer's memory could not be reached as asked; the first transfer ends so.
    Denied,
    /// The peer was refused; it has been told.
    PeerDenied,
    PeerGone,
    Broken,
}

impl From<Broken> for Fault {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

impl From<Denied> for Fault {
    fn from(_: Denied) -> Self {
        Self::Denied
    }
}

/// How many transfers an endpoint has started and how many have ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) posted: AtomicU64,
    pub(super) ended: AtomicU64,
}

/// Guarded by the endpoint's `rdma` lock.
#[derive(Debug, Default)]
pub(super) struct Rdma {
    pub(super) table: Table,
    pub(super) windows: Windows,
    pub(super) transfers: VecDeque<Transfer>,
    pub(super) service: Service,
    /// Copies in a row that the kernel found no memory for.
    pub(super) shortages: u32,
    done: Vec<Completion>,
}

/// What a look at the transfers brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moved {
    /// What the peer has to be woken for.
    pub(super) wake: u32,
    /// A transfer has ended.
    pub(super) ended: bool,
}

impl Rdma {
    pub(super) fn begin(&mut self, counts: &Counts, transfer: Transfer) {
        self.table.hold(&transfer.spans);
        self.transfers.push_back(transfer);
        counts.posted.fetch_add(1, Ordering::SeqCst);
    }

    /// Moves transfers on as far as goes in one visit.
    pub(super) fn advance(
        &mut self,
        link: &Link,
        counts: &Counts,
        moved: &mut Moved,
    ) -> Result<(), Fault> {
        if link.is_direct() && self.service.asked_nothing() {
            self.copy(link, counts, moved)?;
        }
        if !link.is_direct() {
            self.ask(link, moved)?;
        }
        Ok(())
    }

    /// Ends the first transfer with the bytes that it has moved.
    pub(super) fn end_first(&mut self, counts: &Counts, moved: &mut Moved) {
        if let Some(first) = self.transfers.pop_front() {
            self.complete(counts, &first, Outcome::Done(first.moved));
            moved.ended = true;
        }
    }

    /// Ends the first transfer because it was denied.
    pub(super) fn deny_first(&mut self, counts: &Counts) {
        if let Some(first) = self.transfers.pop_front() {
            self.complete(counts, &first, Outcome::RemoteAccess);
        }
    }

    fn complete(&mut self, counts: &Counts, transfer: &Transfer, outcome: Outcome) {
        self.table.let_go(&transfer.spans);
        self.done.push(Completion {
            op: transfer.op,
            outcome,
        });
        counts.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends everything that waits, and all service for the peer.
    pub(super) fn flush(&mut self, counts: &Counts, ending: Ending) {
        for transfer in std::mem::take(&mut self.transfers) {
            self.complete(counts, &transfer, Outcome::Flushed(ending));
        }
        self.service.stop();
    }

    pub(super) fn has_work(&self) -> bool {
        !self.transfers.is_empty() || !self.done.is_empty()
    }

    /// Whether a look at the transfers would report or move something.
    pub(super) fn has_something(&mut self, link: &Link) -> bool {
        if !self.done.is_empty() {
            return true;
        }
        if link.is_direct() {
            !self.transfers.is_empty()
        } else {
            self.could_ask(link)
        }
    }

    pub(super) fn take_completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.done);
    }

    /// The bytes of the one completion there is, if it is the success of `op`.
    pub(super) fn take_success(&mut self, op: OpId) -> Option<usize> {
        match self.done.as_slice() {
            [
                Completion {
                    op: only,
                    outcome: Outcome::Done(len),
                },
            ] if *only == op => {
                let len = *len;
                self.done.clear();
                Some(len)
            }
            _ => None,
        }
    }
}
