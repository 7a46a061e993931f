//! Operations in progress: what was started and has not been reported.
//!
//! Owns the order in which results are given: per kind, the order in which the operations were
//! started. Does not touch the fabric. Invariant: an operation that was begun and not withdrawn
//! leaves its line exactly once, with one result, after all its parts have ended.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::outlet::{End, Report, Ticket};
use crate::fabric::{Ending, Key, OpId, Piece, Post};

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Send,
    Write,
    Read,
    Receive,
}

const KIND_SHIFT: u32 = 62;

impl Kind {
    fn op(self, sequence: u64) -> OpId {
        let kind: u64 = match self {
            Kind::Send => 0,
            Kind::Write => 1,
            Kind::Read => 2,
            Kind::Receive => 3,
        };
        OpId(kind << KIND_SHIFT | sequence)
    }

    pub(crate) fn of(op: OpId) -> Self {
        match op.0 >> KIND_SHIFT {
            0 => Kind::Send,
            1 => Kind::Write,
            2 => Kind::Read,
            _ => Kind::Receive,
        }
    }
}

fn sequence_of(op: OpId) -> u64 {
    op.0 & ((1 << KIND_SHIFT) - 1)
}

/// The pieces of one post; as many as nearly every post has without allocating.
pub(crate) type Pieces = SmallVec<[Piece; 3]>;

/// A post that waits for room in the fabric, or for those that wait before it.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) op: OpId,
    pub(crate) pieces: Pieces,
    pub(crate) remote: Arc<[u8]>,
    pub(crate) offset: u64,
}

impl Deferred {
    pub(crate) fn as_post(&self) -> Post<'_> {
        post(self.op, self.pieces.as_slice(), &self.remote, self.offset)
    }
}

/// The post that an operation of its kind makes.
pub(crate) fn post<'a>(op: OpId, pieces: &'a [Piece], remote: &'a [u8], offset: u64) -> Post<'a> {
    match Kind::of(op) {
        Kind::Send => Post::Send { op, pieces },
        Kind::Receive => Post::Receive { op, pieces },
        Kind::Write => Post::Write {
            op,
            pieces,
            remote,
            offset,
        },
        Kind::Read => Post::Read {
            op,
            pieces,
            remote,
            offset,
        },
    }
}

#[derive(Debug)]
struct Operation {
    ticket: Ticket,
    /// What a send, write or read moves; a receive learns it.
    bytes: usize,
    /// Parts that have not ended.
    parts: usize,
    /// The first end that was not `Done`, if any.
    end: End,
    /// Withdrawn: leaves without a result.
    withdrawn: bool,
}

/// Operations of one kind, oldest first.
#[derive(Debug, Default)]
struct Line {
    /// Sequence number of the oldest.
    first: u64,
    operations: VecDeque<Operation>,
}

impl Line {
    fn find(&mut self, op: OpId) -> Option<&mut Operation> {
        let place = sequence_of(op).checked_sub(self.first)?;
        self.operations.get_mut(usize::try_from(place).ok()?)
    }

    /// Takes out the oldest operation if it has ended.
    fn pop_ended(&mut self) -> Option<Operation> {
        if self.operations.front()?.parts > 0 {
            return None;
        }
        self.first += 1;
        self.operations.pop_front()
    }
}

/// Everything in progress in one direction of a socket.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Sends, or receives.
    messages: Line,
    writes: Line,
    reads: Line,
    /// In posting order. While it is not empty every further post of the direction joins it.
    pub(crate) backlog: VecDeque<Deferred>,
}

impl Queue {
    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Send | Kind::Receive => &mut self.messages,
            Kind::Write => &mut self.writes,
            Kind::Read => &mut self.reads,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.operations.len() + self.writes.operations.len() + self.reads.operations.len()
    }

    /// The name that the next operation of the kind will have.
    pub(crate) fn next(&mut self, kind: Kind) -> OpId {
        let line = self.line(kind);
        kind.op(line.first + line.operations.len() as u64)
    }

    /// Whether no operation of the kind is in progress.
    pub(crate) fn is_empty(&mut self, kind: Kind) -> bool {
        self.line(kind).operations.is_empty()
    }

    /// Enters an operation of so many parts.
    pub(crate) fn begin(&mut self, kind: Kind, ticket: Ticket, bytes: usize, parts: usize) -> OpId {
        let line = self.line(kind);
        let sequence = line.first + line.operations.len() as u64;
        line.operations.push_back(Operation {
            ticket,
            bytes,
            parts,
            end: End::Done,
            withdrawn: false,
        });
        kind.op(sequence)
    }

    /// Notes that one part has ended. `moved` counts for receives only.
    pub(crate) fn end_part(&mut self, op: OpId, end: End, moved: usize) {
        let kind = Kind::of(op);
        let Some(operation) = self.line(kind).find(op) else {
            tracing::error!(?op, "a completion for no operation");
            return;
        };
        if operation.parts == 0 {
            tracing::error!(?op, "a second completion for one operation");
            return;
        }
        operation.parts -= 1;
        if operation.end == End::Done {
            operation.end = end;
        }
        if kind == Kind::Receive {
            operation.bytes = moved;
        }
    }

    /// Takes an operation of one part back, of which nothing was started.
    pub(crate) fn withdraw(&mut self, op: OpId) {
        if let Some(operation) = self.line(Kind::of(op)).find(op) {
            operation.parts = 0;
            operation.withdrawn = true;
        }
    }

    /// Whether a part of the operation has already failed.
    pub(crate) fn has_failed(&mut self, op: OpId) -> bool {
        self.line(Kind::of(op))
            .find(op)
            .is_none_or(|operation| operation.end != End::Done)
    }

    /// Takes out one operation of the kind whose turn has come: Some(None) is a withdrawn one.
    pub(crate) fn next_ended(&mut self, kind: Kind) -> Option<Option<Report>> {
        let operation = self.line(kind).pop_ended()?;
        if operation.withdrawn {
            return Some(None);
        }
        Some(Some(Report {
            ticket: operation.ticket,
            end: operation.end,
            bytes: match operation.end {
                End::Done => operation.bytes,
                _ => 0,
            },
        }))
    }

    /// Ends everything of the kind that is in progress. Returns how many posts no longer wait.
    pub(crate) fn abandon(&mut self, kind: Kind) -> usize {
        for operation in &mut self.line(kind).operations {
            if operation.parts > 0 && operation.end == End::Done {
                operation.end = End::Flushed(Ending::Local);
            }
            operation.parts = 0;
        }
        let waiting = self.backlog.len();
        self.backlog
            .retain(|deferred| Kind::of(deferred.op) != kind);
        waiting - self.backlog.len()
    }

    /// Whether an operation of this overlapped structure is in progress.
    pub(crate) fn knows(&self, address: usize) -> bool {
        [&self.messages, &self.writes, &self.reads]
            .into_iter()
            .flat_map(|line| &line.operations)
            .any(|operation| operation.ticket.address == address && !operation.withdrawn)
    }

    /// Whether a post that waits names the registration.
    pub(crate) fn defers(&self, key: Key) -> bool {
        self.backlog
            .iter()
            .flat_map(|deferred| deferred.pieces.as_slice())
            .any(|piece| piece.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(address: usize) -> Ticket {
        Ticket {
            address,
            notify: false,
            flags: 0,
        }
    }

    fn addresses(queue: &mut Queue, kind: Kind) -> Vec<usize> {
        std::iter::from_fn(|| queue.next_ended(kind))
            .flatten()
            .map(|report| report.ticket.address)
            .collect()
    }

    #[test]
    fn results_come_in_the_order_of_starting_whatever_the_order_of_ending() {
        let mut queue = Queue::default();
        let ops: Vec<_> = (0..4)
            .map(|n| queue.begin(Kind::Send, ticket(n), 1, 1))
            .collect();
        queue.end_part(ops[2], End::Done, 0);
        assert!(addresses(&mut queue, Kind::Send).is_empty());
        queue.end_part(ops[0], End::Done, 0);
        assert_eq!(addresses(&mut queue, Kind::Send), [0]);
        queue.end_part(ops[1], End::Done, 0);
        assert_eq!(addresses(&mut queue, Kind::Send), [1, 2]);
        queue.end_part(ops[3], End::Done, 0);
        assert_eq!(addresses(&mut queue, Kind::Send), [3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        let mut queue = Queue::default();
        queue.begin(Kind::Write, ticket(1), 1, 1);
        let read = queue.begin(Kind::Read, ticket(2), 1, 1);
        queue.end_part(read, End::Done, 0);
        assert_eq!(addresses(&mut queue, Kind::Read), [2]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn an_operation_ends_with_its_last_part_and_its_first_failure() {
        let mut queue = Queue::default();
        let op = queue.begin(Kind::Write, ticket(1), 90, 3);
        queue.end_part(op, End::Done, 30);
        queue.end_part(op, End::RemoteAccess, 0);
        assert!(queue.has_failed(op));
        assert!(queue.next_ended(Kind::Write).is_none());
        queue.end_part(op, End::Flushed(Ending::Broken), 0);
        let report = queue.next_ended(Kind::Write).unwrap().unwrap();
        assert_eq!((report.end, report.bytes), (End::RemoteAccess, 0));
    }

    #[test]
    fn a_withdrawn_operation_leaves_without_a_result() {
        let mut queue = Queue::default();
        let first = queue.begin(Kind::Receive, ticket(1), 0, 1);
        let second = queue.begin(Kind::Receive, ticket(2), 0, 1);
        queue.withdraw(second);
        assert!(!queue.knows(2) && queue.knows(1));
        queue.end_part(first, End::Done, 7);
        let reports: Vec<_> = std::iter::from_fn(|| queue.next_ended(Kind::Receive)).collect();
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].unwrap().bytes, 7);
        assert!(reports[1].is_none());
    }

    #[test]
    fn a_second_completion_changes_nothing() {
        let mut queue = Queue::default();
        let op = queue.begin(Kind::Send, ticket(1), 5, 1);
        queue.end_part(op, End::Done, 0);
        queue.end_part(op, End::RemoteAccess, 0);
        let report = queue.next_ended(Kind::Send).unwrap().unwrap();
        assert_eq!((report.end, report.bytes), (End::Done, 5));
        queue.end_part(op, End::Done, 0);
        assert!(queue.next_ended(Kind::Send).is_none());
    }
}
