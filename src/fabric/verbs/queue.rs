//! The book of one queue of a connection: what was posted and has not ended.
//!
//! Owns the numbers under which work is posted, the room that is left, the fence, and which entries
//! the device is to report. Touches no device. Invariant: entries leave in the order in which they were
//! posted, each once; an entry that carries an operation brings that operation exactly one outcome, and
//! one whose operation was reported when it was posted (`Owes::Delivery`) brings none.
//!
//! Entries that are not reported leave with the next one that is. So of `run` entries at least one is
//! reported, and the places of the others come back with it.

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

/// What is still to come of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owes {
    /// The outcome of its operation, or a part of it.
    Outcome,
    /// Its operation was reported done: the message has only to reach the peer.
    Delivery,
    /// It is one of our own.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) owes: Owes,
    /// The device reports it.
    pub(super) signaled: bool,
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

/// The entries of a full queue that are reported at least.
const RUNS: usize = 8;

/// Distinguishes the numbers of receives from those of sends.
const RECEIVES: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    next: u64,
    depth: usize,
    /// Entries that only sends may take, so that those can always go.
    reserved: usize,
    /// Entries that owe an outcome.
    owing: usize,
    /// Entries that owe their delivery.
    undelivered: usize,
    /// The youngest entries, as many as are not reported.
    silent: usize,
    /// Of so many entries at least one is reported.
    run: usize,
    /// A read was posted and no send after it: the next send waits for the reads before it.
    fence: bool,
    /// How a part of the operation failed whose further parts come next.
    failed: Option<Outcome>,
    /// While the peer is not known to be ready: what is to be posted when it is. All other entries
    /// come later.
    pub(super) waiting: Option<Vec<Waiting>>,
    /// The queue pair is gone, or is to go when what is undelivered has been acknowledged; nothing may
    /// be posted.
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn sends(depth: usize, reserved: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(depth.min(64)),
            next: 0,
            owing: 0,
            undelivered: 0,
            silent: 0,
            run: (depth / RUNS).max(1),
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

    /// Whether an operation has yet to get its outcome from here.
    pub(super) fn owes_outcomes(&self) -> bool {
        self.owing > 0
    }

    /// Whether a message that was reported as sent may not have reached the peer. What is not reported
    /// counts until something after it is.
    pub(super) fn owes_delivery(&self) -> bool {
        self.undelivered > 0
    }

    /// Whether the device will report something, after which nothing here is older.
    pub(super) fn will_report_all(&self) -> bool {
        self.silent == 0
    }

    /// Whether the device will report anything.
    pub(super) fn will_report(&self) -> bool {
        self.silent < self.entries.len()
    }

    /// Whether a message may be reported as sent as soon as it is posted, if nothing of it is needed
    /// afterwards. Not behind an operation that may yet fail.
    pub(super) fn may_report_early(&self) -> bool {
        self.owing == 0 && self.waiting.is_none()
    }

    /// Whether the next entry is to be reported by the device, although nobody waits for it.
    pub(super) fn reports_next(&self) -> bool {
        self.silent + 1 >= self.run
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

    /// The number of the youngest entry, if there is one.
    pub(super) fn last(&self) -> u64 {
        self.next.saturating_sub(1)
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
    pub(super) fn push(&mut self, op: OpId, kind: Kind, bytes: usize, held: Held) {
        self.enter(Entry {
            number: self.next,
            owes: Owes::Outcome,
            signaled: true,
            op: Some(op),
            more: false,
            cut: false,
            kind,
            bytes,
            held,
        });
    }

    /// As `push`, for a message that is reported as sent when it has been posted, and of which nothing
    /// is held.
    pub(super) fn push_sent(&mut self, bytes: usize, signaled: bool) {
        self.enter_own(Owes::Delivery, signaled, Kind::Send, bytes);
    }

    /// As `push`, for something of our own.
    pub(super) fn push_own(&mut self, kind: Kind, bytes: usize) {
        self.enter_own(Owes::Nothing, true, kind, bytes);
    }

    fn enter_own(&mut self, owes: Owes, signaled: bool, kind: Kind, bytes: usize) {
        self.enter(Entry {
            number: self.next,
            owes,
            signaled,
            op: None,
            more: false,
            cut: false,
            kind,
            bytes,
            held: Held::new(),
        });
    }

    /// As `push`, for a part that is not the last.
    pub(super) fn push_part(&mut self, kind: Kind, bytes: usize) {
        self.enter(Entry {
            number: self.next,
            owes: Owes::Outcome,
            signaled: false,
            op: None,
            more: true,
            cut: false,
            kind,
            bytes,
            held: Held::new(),
        });
    }

    fn enter(&mut self, entry: Entry) {
        match entry.owes {
            Owes::Outcome => self.owing += 1,
            Owes::Delivery => self.undelivered += 1,
            Owes::Nothing => {}
        }
        self.silent = if entry.signaled { 0 } else { self.silent + 1 };
        self.entries.push_back(entry);
        self.next += 1;
    }

    /// An entry has been taken out.
    fn left(&mut self, entry: &Entry) {
        match entry.owes {
            Owes::Outcome => self.owing = self.owing.saturating_sub(1),
            Owes::Delivery => self.undelivered = self.undelivered.saturating_sub(1),
            Owes::Nothing => {}
        }
        self.silent = self.silent.min(self.entries.len());
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
        let entry = self.entries.pop_back()?;
        self.next -= 1;
        self.left(&entry);
        self.silent = self
            .entries
            .iter()
            .rev()
            .take_while(|entry| !entry.signaled)
            .count();
        Some(entry)
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
            if entry.owes == Owes::Nothing {
                entry.owes = Owes::Outcome;
                self.owing += 1;
            }
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
        self.pop()
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
        let entry = self.entries.pop_front()?;
        self.left(&entry);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, kind: Kind) -> u64 {
        let number = queue.next();
        queue.push(OpId(number), kind, 1, Held::new());
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
        queue.push(OpId(9), Kind::Send, 1, Held::new());
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
        queue.push(OpId(7), Kind::Read, 5, Held::new());
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
        queue.push_own(Kind::Send, 0);
        let number = queue.next();
        queue.push_own(Kind::Send, 0);
        assert!(queue.take_back().is_some());
        assert_eq!(queue.next(), number);
    }

    /// Enters a message that is reported at once; whether the device reports it.
    fn push_sent(queue: &mut Queue) -> bool {
        let signaled = queue.reports_next();
        queue.push_sent(1, signaled);
        queue.posted(Kind::Send);
        signaled
    }

    #[test]
    fn of_messages_that_nobody_waits_for_some_are_reported_and_bring_the_others_back() {
        // Also the shortest queues.
        for depth in [1, 2, 7, 8, 64, 256] {
            let mut queue = Queue::sends(depth, 16);
            let mut reported = Vec::new();
            while queue.room(Kind::Send) > 0 {
                let number = queue.next();
                if push_sent(&mut queue) {
                    reported.push(number);
                }
            }
            assert!(!reported.is_empty(), "{depth}");
            assert!(!queue.owes_outcomes() && queue.owes_delivery());
            // With the last of them, nearly everything has come back.
            let last = *reported.last().unwrap();
            while let Some(entry) = queue.pop_until(last) {
                assert_eq!((entry.op, entry.owes), (None, Owes::Delivery));
            }
            assert!(
                queue.room(Kind::Send) > depth - depth.div_ceil(RUNS),
                "{depth}"
            );
        }
    }

    #[test]
    fn nothing_is_reported_early_behind_what_may_fail() {
        let mut queue = Queue::sends(64, 0);
        assert!(queue.may_report_early());
        push_sent(&mut queue);
        assert!(queue.may_report_early());
        let pending = push(&mut queue, Kind::Write);
        assert!(!queue.may_report_early());
        push_sent(&mut queue);
        while queue.pop_until(pending).is_some() {}
        assert!(queue.may_report_early());
        queue.waiting = Some(Vec::new());
        assert!(!queue.may_report_early());
    }

    #[test]
    fn what_is_delivered_is_known_when_something_after_it_was_reported() {
        let mut queue = Queue::sends(64, 0);
        assert!(queue.will_report_all() && !queue.will_report());
        push_sent(&mut queue);
        assert!(!queue.will_report_all() && !queue.will_report());
        let word = queue.next();
        queue.push_own(Kind::Write, 0);
        assert!(queue.will_report_all() && queue.will_report() && queue.owes_delivery());
        // It is not taken by the device after all.
        queue.take_back();
        assert!(!queue.will_report_all() && !queue.will_report());
        queue.push_own(Kind::Write, 0);
        push_sent(&mut queue);
        assert!(!queue.will_report_all() && queue.will_report());
        while queue.pop_until(word).is_some() {}
        assert!(queue.owes_delivery() && !queue.will_report());
        push(&mut queue, Kind::Send);
        assert!(queue.owes_outcomes());
        while queue.pop().is_some() {}
        assert!(!queue.owes_delivery() && !queue.owes_outcomes() && queue.will_report_all());
    }

    #[test]
    fn a_receive_of_our_own_owes_an_outcome_once_it_is_somebodys() {
        let mut queue = Queue::receives(4);
        queue.push_own(Kind::Receive, 10);
        assert!(!queue.owes_outcomes());
        queue.adopt(OpId(1), 10, Held::new());
        assert!(queue.owes_outcomes());
        assert_eq!(queue.pop().unwrap().op, Some(OpId(1)));
        assert!(!queue.owes_outcomes());
    }
}
