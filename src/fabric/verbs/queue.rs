//! The book of one queue of a connection: what was posted and has not ended.
//!
//! Owns the numbers under which work is posted, the room that is left, and the fence. Touches no
//! device. Invariant: entries leave in the order in which they were posted, each once; an entry that
//! carries an operation brings that operation exactly one outcome.

use std::collections::VecDeque;

use super::memory::{Held, Sges};
use super::sys::How;
use crate::fabric::{OpId, Outcome};

/// What an entry of the send queue does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Send,
    Write,
    Read,
    Receive,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// None for all but the last part of an operation that was posted in several.
    pub(super) op: Option<OpId>,
    /// The next entry is a part of the same operation.
    pub(super) more: bool,
    /// Further parts of the operation were not taken: it has failed, however this one ends.
    pub(super) cut: bool,
    pub(super) kind: Kind,
    /// What a send, write or read moves, all its parts together.
    pub(super) bytes: usize,
    pub(super) held: Held,
}

/// A send that has been entered and not posted.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) how: How,
    pub(super) pieces: Sges,
}

/// For the counter-proof: what happens when nothing is fenced.
#[cfg(test)]
pub(super) static WITHOUT_FENCE: std::sync::atomic::AtomicBool =
    std::sync::atomic::AtomicBool::new(false);

/// Distinguishes the numbers of receives from those of sends.
const RECEIVES: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    next: u64,
    depth: usize,
    /// Entries that only sends may take, so that those can always go.
    reserved: usize,
    /// A read was posted and no send after it: the next send waits for the reads before it.
    fence: bool,
    /// How a part of the operation failed whose further parts come next.
    failed: Option<Outcome>,
    /// While the peer is not known to be ready: what is to be posted when it is. All other entries
    /// come later.
    pub(super) waiting: Option<Vec<Waiting>>,
    /// The queue pair is gone; nothing may be posted.
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn sends(depth: usize, reserved: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(depth.min(64)),
            next: 0,
            depth,
            reserved: reserved.min(depth / 2),
            fence: false,
            failed: None,
            waiting: None,
            closed: false,
        }
    }

    pub(super) fn receives(depth: usize) -> Self {
        Self {
            next: RECEIVES,
            ..Self::sends(depth, 0)
        }
    }

    pub(super) fn is_receive(number: u64) -> bool {
        number & RECEIVES != 0
    }

    /// Whether this is the first receive of all.
    pub(super) fn is_first_receive(number: u64) -> bool {
        number == RECEIVES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many more entries of the kind may be posted.
    pub(super) fn room(&self, kind: Kind) -> usize {
        let depth = match kind {
            Kind::Send | Kind::Receive => self.depth,
            Kind::Write | Kind::Read => self.depth - self.reserved,
        };
        depth.saturating_sub(self.entries.len())
    }

    /// The number for the next post. Used once `push` has entered it.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether a post of this kind has to wait for the reads before it.
    // req: WSD-14
    pub(super) fn needs_fence(&self, kind: Kind) -> bool {
        #[cfg(test)]
        if WITHOUT_FENCE.load(std::sync::atomic::Ordering::Relaxed) {
            return false;
        }
        self.fence && kind == Kind::Send
    }

    /// Enters what is about to be posted under `next`.
    pub(super) fn push(&mut self, op: Option<OpId>, kind: Kind, bytes: usize, held: Held) {
        self.enter(Entry {
            number: self.next,
            op,
            more: false,
            cut: false,
            kind,
            bytes,
            held,
        });
    }

    /// As `push`, for a part that is not the last.
    pub(super) fn push_part(&mut self, kind: Kind, bytes: usize) {
        self.enter(Entry {
            number: self.next,
            op: None,
            more: true,
            cut: false,
            kind,
            bytes,
            held: Held::new(),
        });
    }

    fn enter(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        self.next += 1;
    }

    /// The post of the last entry has succeeded. The fence is given up only here: a send that fails
    /// leaves it to the next one.
    pub(super) fn posted(&mut self, kind: Kind) {
        match kind {
            Kind::Read => self.fence = true,
            Kind::Send => self.fence = false,
            Kind::Write | Kind::Receive => {}
        }
    }

    /// The post of the last entry has failed: nothing was started.
    pub(super) fn take_back(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_back();
        if entry.is_some() {
            self.next -= 1;
        }
        entry
    }

    /// The last entry, which has been posted, is to bring the end of the operation, of which the rest
    /// was not.
    pub(super) fn bear(&mut self, op: OpId, held: Held) {
        if let Some(entry) = self.entries.back_mut() {
            entry.op = Some(op);
            entry.more = false;
            entry.cut = true;
            entry.held = held;
        }
    }

    /// The oldest entry, which has been posted, is to bring the end of the operation.
    pub(super) fn adopt(&mut self, op: OpId, bytes: usize, held: Held) {
        if let Some(entry) = self.entries.front_mut() {
            entry.op = Some(op);
            entry.bytes = bytes;
            entry.held = held;
        }
    }

    /// Takes out the oldest entry, if it is `number` or stands before it.
    pub(super) fn pop_until(&mut self, number: u64) -> Option<Entry> {
        if self.entries.front()?.number > number {
            return None;
        }
        self.entries.pop_front()
    }

    /// How an operation has ended with this entry, which ended so by itself: as the first of its
    /// parts that failed.
    pub(super) fn outcome(&mut self, more: bool, outcome: Outcome) -> Outcome {
        let outcome = self.failed.take().unwrap_or(outcome);
        if more && !matches!(outcome, Outcome::Done(_)) {
            self.failed = Some(outcome);
        }
        outcome
    }

    /// Takes out the oldest entry.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, kind: Kind) -> u64 {
        let number = queue.next();
        queue.push(Some(OpId(number)), kind, 1, Held::new());
        queue.posted(kind);
        number
    }

    #[test]
    fn the_fence_stays_until_a_send_was_posted() {
        // req: WSD-14
        let mut queue = Queue::sends(8, 0);
        assert!(!queue.needs_fence(Kind::Send));
        push(&mut queue, Kind::Read);
        assert!(queue.needs_fence(Kind::Send));
        assert!(!queue.needs_fence(Kind::Write));
        push(&mut queue, Kind::Write);
        assert!(queue.needs_fence(Kind::Send));
        // A send that fails does not use it up.
        queue.push(Some(OpId(9)), Kind::Send, 1, Held::new());
        assert_eq!(queue.take_back().unwrap().op, Some(OpId(9)));
        assert!(queue.needs_fence(Kind::Send));
        push(&mut queue, Kind::Send);
        assert!(!queue.needs_fence(Kind::Send));
    }

    #[test]
    fn entries_leave_in_order_and_once() {
        let mut queue = Queue::sends(8, 0);
        let numbers: Vec<_> = (0..4).map(|_| push(&mut queue, Kind::Send)).collect();
        let until = |queue: &mut Queue, number| {
            std::iter::from_fn(|| Some(queue.pop_until(number)?.number)).collect::<Vec<_>>()
        };
        assert_eq!(until(&mut queue, numbers[2]), numbers[..3]);
        assert!(until(&mut queue, numbers[2]).is_empty());
        assert_eq!(until(&mut queue, numbers[3]), numbers[3..]);
        assert!(queue.is_empty());
    }

    #[test]
    fn transfers_leave_room_for_sends() {
        let mut queue = Queue::sends(4, 2);
        push(&mut queue, Kind::Write);
        assert_eq!(queue.room(Kind::Read), 1);
        push(&mut queue, Kind::Read);
        assert_eq!((queue.room(Kind::Write), queue.room(Kind::Send)), (0, 2));
    }

    #[test]
    fn an_operation_ends_as_the_first_of_its_parts_that_failed() {
        use crate::fabric::Ending;
        let flushed = Outcome::Flushed(Ending::Broken);
        let mut queue = Queue::sends(8, 0);
        // All went well, in three parts; then the second of three fails; the next one is another.
        for (ends, whole) in [
            ([Outcome::Done(9); 3], Outcome::Done(9)),
            (
                [Outcome::Done(9), Outcome::RemoteAccess, flushed],
                Outcome::RemoteAccess,
            ),
            ([flushed; 3], flushed),
        ] {
            let parts = ends.iter().zip([true, true, false]);
            let last = parts.map(|(end, more)| queue.outcome(more, *end)).last();
            assert_eq!(last, Some(whole));
        }
    }

    #[test]
    fn what_was_taken_of_an_operation_in_parts_brings_its_end() {
        let mut queue = Queue::sends(8, 0);
        queue.push_part(Kind::Read, 5);
        queue.push_part(Kind::Read, 5);
        queue.push(Some(OpId(7)), Kind::Read, 5, Held::new());
        assert_eq!(queue.take_back().unwrap().op, Some(OpId(7)));
        queue.take_back();
        queue.bear(OpId(7), Held::new());
        let only = queue.pop().unwrap();
        assert_eq!((only.op, only.more, only.cut), (Some(OpId(7)), false, true));
        assert!(queue.is_empty());
    }

    #[test]
    fn numbers_tell_the_two_queues_apart() {
        assert!(!Queue::is_receive(Queue::sends(1, 0).next()));
        assert!(Queue::is_receive(Queue::receives(1).next()));
    }

    #[test]
    fn a_number_that_was_taken_back_is_used_again() {
        let mut queue = Queue::sends(4, 0);
        queue.push(None, Kind::Send, 0, Held::new());
        let number = queue.next();
        queue.push(None, Kind::Send, 0, Held::new());
        assert!(queue.take_back().is_some());
        assert_eq!(queue.next(), number);
    }
}
