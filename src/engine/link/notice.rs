//! Noticing: who looks at the connection when nobody calls, and how a caller waits.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::Ordering;

use super::{Link, NAP, Waited};
use crate::engine::wait::my_wake;
use crate::fabric::ArmFor;

/// How often the progress thread looks at one connection before it looks at the others.
pub(super) const ROUNDS: usize = 16;

impl Link {
    /// Has the progress thread watch the endpoint if somebody must. False: there is something to
    /// poll now.
    pub(super) fn watch(&self) -> bool {
        if self.notified.load(Ordering::Acquire) > 0 {
            return self.arm_for_progress();
        }
        if self.needs_driving() {
            self.watch_later();
        }
        true
    }

    fn arm_for_progress(&self) -> bool {
        let mut state = self.waiting.lock();
        if !state.taken_over && !state.watched && state.leader.is_none() {
            state.watched = self.endpoint.arm(ArmFor::Progress);
            return state.watched;
        }
        true
    }

    /// What was started goes on also if its owner polls and then does not. But while it does, being
    /// woken for it as well would cost more than it brings: hence not at once, and not at all if it
    /// goes on without anybody.
    pub(super) fn watch_later(&self) {
        if self.goes_on_alone && self.backlogged.load(Ordering::Acquire) == 0 {
            return;
        }
        if !self.later.swap(true, Ordering::AcqRel) {
            self.around.progress.enlist_later(self.around.socket);
        }
    }

    /// Operations have been in progress for a while.
    pub(crate) fn overdue(&self) {
        self.later.store(false, Ordering::Release);
        for _ in 0..ROUNDS {
            self.advance();
            if !self.needs_driving() && self.notified.load(Ordering::Acquire) == 0 {
                return;
            }
            if self.arm_for_progress() {
                return;
            }
        }
        self.watch_later();
    }

    /// Whether something stands still unless somebody polls.
    fn needs_driving(&self) -> bool {
        if self.goes_on_alone {
            return self.backlogged.load(Ordering::Acquire) > 0;
        }
        self.outgoing.lock().queue.len() > 0
    }

    /// `watch` from a call that may not make upcalls.
    pub(super) fn watch_from_call(&self) {
        if !self.watch() {
            self.around.progress.enlist(self.around.socket);
        }
    }

    /// The endpoint was armed for the progress thread and has something to poll.
    pub(crate) fn ready(&self) {
        self.waiting.lock().watched = false;
        self.advance_and_watch();
    }

    /// The switch takes over waiting. True: there is something to poll. False: the descriptor
    /// becomes readable at the next completion or at the end.
    pub(crate) fn arm(&self) -> bool {
        let mut state = self.waiting.lock();
        state.taken_over = true;
        // Results that another thread has polled meanwhile are something to poll, too.
        let batches = self.batches.load(Ordering::Acquire);
        if state.seen != batches
            || self.unreported.load(Ordering::Acquire) > 0
            || self.endpoint.ending().is_some()
        {
            state.seen = batches;
            return true;
        }
        if !self.endpoint.arm(ArmFor::Waiter) {
            return true;
        }
        // Who polls just now may have taken a completion out of the endpoint before that was armed,
        // and not yet made its result visible; nothing would wake the switch for it.
        let undisturbed = self.polling.try_lock().is_some();
        !undisturbed || self.batches.load(Ordering::Acquire) != batches
    }

    /// The descriptor of `arm`. Constant.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.endpoint.readiness().as_raw_fd()
    }

    /// Waits until `done` says that the result of the operation is there.
    pub(crate) fn wait(&self, address: usize, done: &dyn Fn() -> bool) -> Waited {
        let look = || {
            self.poll();
            self.deliver(true, usize::MAX);
            done()
        };
        if self.spin.until(look) {
            return Waited::Done;
        }
        let waiter = self.waiting.enter();
        let waited = loop {
            self.poll();
            self.deliver(true, usize::MAX);
            if done() {
                break Waited::Done;
            }
            if !self.knows(address) {
                break self.await_switch(done);
            }
            self.sleep(address, done);
        };
        drop(waiter);
        // The progress thread takes over what still wants an upcall.
        self.watch_from_call();
        waited
    }

    /// One sleep of a waiting caller: as the leader on the endpoint, or behind the leader.
    fn sleep(&self, address: usize, done: &dyn Fn() -> bool) {
        let mut state = self.waiting.lock();
        if done() || !self.knows(address) {
            return;
        }
        if state.leader.is_some() {
            self.waiting.follow(state);
            return;
        }
        let wake = my_wake(&self.around.system);
        let wakeable = wake.is_some();
        state.leader = Some(wake.clone());
        // When the switch sleeps on the descriptor itself, arming would take its wake-up away.
        let taken_over = state.taken_over;
        let armed = taken_over || self.endpoint.arm(ArmFor::Waiter);
        // Armed for us, the endpoint is no longer armed for the progress thread.
        state.watched = false;
        drop(state);
        if armed && !done() && self.knows(address) {
            let longest = (taken_over || !wakeable).then_some(NAP);
            let mut descriptors: Vec<BorrowedFd<'_>> = Vec::with_capacity(2);
            if !taken_over {
                descriptors.push(self.endpoint.readiness());
            }
            if let Some(wake) = &wake {
                descriptors.push(wake.descriptor());
            }
            self.around.system.sleep(&descriptors, longest);
        }
        if let Some(wake) = &wake {
            wake.drain();
        }
        self.waiting.resign();
    }

    /// The operation has left the engine. If its upcall was made, the switch stores the result,
    /// perhaps slightly after returning.
    fn await_switch(&self, done: &dyn Fn() -> bool) -> Waited {
        for round in 0..100 {
            if done() {
                return Waited::Done;
            }
            if round < 10 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP);
            }
        }
        Waited::Unknown
    }

    /// Whether the operation is in progress, or its upcall has not returned.
    fn knows(&self, address: usize) -> bool {
        self.outgoing.lock().queue.knows(address) || self.incoming.lock().queue.knows(address) || {
            let reports = self.reports.lock();
            reports
                .waiting
                .iter()
                .any(|report| report.ticket.address == address)
                || reports.running.contains(&address)
        }
    }
}
