//! Results: from the fabric's completions to what the switch is told.
//!
//! Invariant: an operation leaves its queue under the lock of its direction, and in that moment its
//! result is either stored or queued for its upcall.

use std::sync::atomic::Ordering;

use super::notice::ROUNDS;
use super::{Direction, Link};
use crate::engine::operation::{Kind, Queue};
use crate::engine::outlet::End;
use crate::fabric::{Completion, Outcome, QuickGuard};

/// How many upcalls a caller makes at most before it goes its way.
const UPCALLS: usize = 64;

fn end_of(outcome: Outcome) -> (End, usize) {
    match outcome {
        Outcome::Done(bytes) => (End::Done, bytes),
        Outcome::Truncated => (End::Truncated, 0),
        Outcome::RemoteAccess => (End::RemoteAccess, 0),
        Outcome::Flushed(ending) => (End::Flushed(ending), 0),
    }
}

impl Link {
    /// Gives out the results whose turn has come. Those for polling owners are stored at once, the
    /// others queue for their upcalls. Returns whether there was one.
    pub(super) fn release_ended(&self, queue: &mut Queue, kind: Kind) -> bool {
        let mut any = false;
        while let Some(ended) = queue.next_ended(kind) {
            any = true;
            match ended {
                Some(report) if report.ticket.notify => {
                    self.notified.fetch_sub(1, Ordering::AcqRel);
                    let mut reports = self.reports.lock();
                    reports.waiting.push_back(report);
                    self.unreported.fetch_add(1, Ordering::Release);
                }
                // req: WSD-10, no upcall for an operation whose owner polls.
                Some(report) => self.around.outlet.switch.publish(&report),
                None => {}
            }
        }
        any
    }

    pub(super) fn release(&self, mut direction: QuickGuard<'_, Direction>, kind: Kind) {
        let released = self.release_ended(&mut direction.queue, kind);
        drop(direction);
        if released {
            self.released_in_call();
        }
    }

    /// After results became visible within a call that starts operations: upcalls are the progress
    /// thread's business then.
    pub(super) fn released_in_call(&self) {
        self.waiting.announce();
        if self.unreported.load(Ordering::Acquire) > 0 {
            self.around.progress.enlist(self.around.socket);
        }
    }

    /// Takes what the endpoint has completed. Does nothing while another thread does.
    #[inline]
    pub(crate) fn poll(&self) {
        if let Some(mut scratch) = self.polling.try_lock() {
            self.poll_with(&mut scratch);
        }
    }

    pub(super) fn poll_with(&self, scratch: &mut Vec<Completion>) {
        self.endpoint.poll(scratch);
        let any = !scratch.is_empty();
        for completion in scratch.drain(..) {
            let (end, bytes) = end_of(completion.outcome);
            let kind = Kind::of(completion.op);
            let mut direction = self.direction(kind).lock();
            direction.queue.end_part(completion.op, end, bytes);
            self.release_ended(&mut direction.queue, kind);
        }
        if self.backlogged.load(Ordering::Acquire) > 0 {
            self.pump(self.outgoing.lock());
            self.pump(self.incoming.lock());
        }
        if any {
            // Not an addition: the one who polls is alone.
            let batches = self.batches.load(Ordering::Relaxed);
            self.batches.store(batches + 1, Ordering::Release);
            self.waiting.announce();
        }
    }

    /// Makes the upcalls that wait, unless another thread is at it, which then makes these too.
    /// `nested`: also when this thread is already in an upcall of this connection. Returns whether
    /// there are more than `most`, which the caller sees to.
    pub(super) fn deliver(&self, nested: bool, most: usize) -> bool {
        if !self.has_reports() {
            return false;
        }
        let me = std::thread::current().id();
        // Holds the switch's socket: it is given back after the last of these upcalls.
        let Some(upcall) = self.around.outlet.enter() else {
            return false;
        };
        let mut reports = self.reports.lock();
        let outermost = reports.owner.is_none();
        if reports.owner.is_some_and(|owner| !nested || owner != me) {
            return false;
        }
        reports.owner = Some(me);
        for _ in 0..most {
            let Some(report) = reports.waiting.pop_front() else {
                break;
            };
            self.unreported.fetch_sub(1, Ordering::AcqRel);
            reports.running.push(report.ticket.address);
            drop(reports);
            // req: WSD-10, exactly one upcall, with no lock held.
            upcall.report(&report);
            reports = self.reports.lock();
            if let Some(place) = reports
                .running
                .iter()
                .rposition(|&address| address == report.ticket.address)
            {
                reports.running.remove(place);
            }
            drop(reports);
            self.waiting.announce();
            reports = self.reports.lock();
        }
        if outermost {
            reports.owner = None;
        }
        !reports.waiting.is_empty()
    }

    /// Polls and makes upcalls. For calls that may make them.
    pub(crate) fn advance(&self) {
        self.poll();
        if self.deliver(false, UPCALLS) {
            // A caller that wants to know of one operation is not kept for all of them.
            self.around.progress.enlist(self.around.socket);
        }
    }

    /// Whether upcalls wait to be made.
    #[inline]
    pub(crate) fn has_reports(&self) -> bool {
        self.unreported.load(Ordering::Acquire) > 0
    }

    /// As `advance`, for the progress thread and events: sees to it that the next completion is
    /// noticed too.
    pub(crate) fn advance_and_watch(&self) {
        for _ in 0..ROUNDS {
            self.advance();
            if self.watch() {
                return;
            }
        }
        // A busy connection lets the others have their turn.
        self.around.progress.enlist(self.around.socket);
    }
}
