//! What an endpoint does with operations: takes them in, moves them on, reports them.
//!
//! Owns the order of locks, wake-ups and ends around the parts of an endpoint: a part works under
//! its lock and says what happened; only then, without the lock, is the peer woken or the endpoint
//! ended.

use std::sync::atomic::Ordering;

use super::endpoint::{SoftEndpoint, state};
use super::link::{Link, Sleeper, reason};
use super::rdma::{Fault, Moved, Transfer};
use super::receiving::{Delivered, Failed};
use super::region::Spans;
use super::ring::Broken;
use super::sending::Terms;
use super::shm;
use super::window::Descriptor;
use crate::fabric::{Access, Completion, Ending, OpId, Outcome, Piece, PostError, Posted};

impl SoftEndpoint {
    #[inline]
    pub(super) fn post_send(
        &self,
        link: &Link,
        op: OpId,
        pieces: &[Piece],
    ) -> Result<Posted, PostError> {
        let limits = self.core.limits();
        let terms = Terms {
            max_message: limits.max_message,
            depth: limits.send_depth,
            after: self.counts.posted.load(Ordering::SeqCst),
            ended: self.counts.ended.load(Ordering::SeqCst),
        };
        let posted = {
            let mut sending = self.sending.lock();
            if !self.is_open() {
                return Err(self.closed_by());
            }
            let posted = sending.post(link, op, pieces, terms);
            if posted == Ok(Ok(Posted::Pending)) {
                self.send_work.store(true, Ordering::Relaxed);
            }
            posted
        };
        match posted {
            Ok(Ok(Posted::Done(len))) => {
                link.wake(reason::MESSAGE);
                Ok(Posted::Done(len))
            }
            Ok(Ok(Posted::Pending)) => {
                self.wait_for_space(link, reason::SPACE);
                Ok(Posted::Pending)
            }
            Ok(Err(error)) => Err(error),
            Err(Broken) => {
                self.finish(Ending::Broken);
                Err(PostError::Ended(Ending::Broken))
            }
        }
    }

    /// An operation has to wait: sleepers of this side want to know of space from now on.
    #[cold]
    pub(super) fn wait_for_space(&self, link: &Link, reason: u32) {
        let mut asleep = false;
        for (flag, sleeper) in [
            (&self.waiter, Sleeper::Waiter),
            (&self.progress, Sleeper::Progress),
        ] {
            if flag.load(Ordering::SeqCst) {
                link.arm(sleeper, reason);
                asleep = true;
            }
        }
        // There may be space by now, of which nobody was told.
        if asleep && self.has_something(link) {
            self.wake_own(link);
        }
    }

    /// Moves waiting sends on.
    pub(super) fn pump(&self, link: &Link) {
        let moved = {
            let mut sending = self.sending.lock();
            let ended = self.counts.ended.load(Ordering::SeqCst);
            let moved = if self.is_open() {
                sending.pump(link, ended)
            } else {
                Ok(false)
            };
            self.send_work.store(sending.has_work(), Ordering::Relaxed);
            moved
        };
        match moved {
            Ok(true) => link.wake(reason::MESSAGE),
            Ok(false) => {}
            Err(Broken) => self.finish(Ending::Broken),
        }
    }

    /// Starts a read or write of the peer's memory.
    pub(super) fn post_transfer(
        &self,
        link: &Link,
        op: OpId,
        read: bool,
        pieces: &[Piece],
        remote: &[u8],
        offset: u64,
    ) -> Result<Posted, PostError> {
        let limits = self.core.limits();
        let remote = Descriptor::parse(remote).ok_or(PostError::BadDescriptor)?;
        let mut moved = Moved::default();
        let (success, outcome) = {
            let mut rdma = self.rdma.lock();
            if !self.is_open() {
                return Err(self.closed_by());
            }
            if rdma.transfers.len() >= limits.send_depth {
                return Err(PostError::Full);
            }
            let access = if read { Access::WRITE } else { Access::READ };
            let mut spans = Spans::new();
            let len = rdma.table.resolve(pieces, access, &mut spans)?;
            if len > limits.max_rdma {
                return Err(PostError::TooLarge);
            }
            rdma.begin(
                &self.counts,
                Transfer {
                    op,
                    read,
                    spans,
                    len,
                    remote,
                    offset,
                    asked: 0,
                    all_asked: false,
                    moved: 0,
                },
            );
            let outcome = rdma.advance(link, &self.counts, &mut moved);
            if outcome == Err(Fault::Denied) {
                rdma.deny_first(&self.counts);
            }
            let success = rdma.take_success(op);
            self.rdma_work.store(rdma.has_work(), Ordering::Relaxed);
            (success, outcome)
        };
        self.rdma_moved(link, outcome, moved);
        match success {
            Some(len) => Ok(Posted::Done(len)),
            None => {
                self.wait_for_space(link, reason::SERVICE_SPACE);
                Ok(Posted::Pending)
            }
        }
    }

    /// Serves the peer and moves the transfers on.
    pub(super) fn progress_rdma(&self, link: &Link) {
        let mut armed = false;
        loop {
            let mut moved = Moved::default();
            let (outcome, waits) = {
                let mut rdma = self.rdma.lock();
                if !self.is_open() {
                    return;
                }
                let mut outcome = rdma.serve(link, &self.counts, &mut moved);
                if outcome.is_ok() {
                    outcome = rdma.advance(link, &self.counts, &mut moved);
                }
                if outcome == Err(Fault::Denied) {
                    rdma.deny_first(&self.counts);
                }
                self.rdma_work.store(rdma.has_work(), Ordering::Relaxed);
                (outcome, rdma.service.has_answers())
            };
            self.rdma_moved(link, outcome, moved);
            if !waits || armed {
                return;
            }
            // Answers wait for room: the progress thread goes on when there is some, and there
            // may be some already.
            link.arm(Sleeper::Service, reason::SERVICE_SPACE);
            armed = true;
        }
    }

    /// Lets the peer and the sends behind the transfers know what happened.
    pub(super) fn rdma_moved(&self, link: &Link, outcome: Result<(), Fault>, moved: Moved) {
        if moved.wake & (reason::REQUEST | reason::ANSWER) != 0 {
            shm::note(&link.segment.own().notices);
        }
        if moved.wake != 0 {
            link.wake(moved.wake);
        }
        match outcome {
            Ok(()) => {}
            Err(Fault::Denied | Fault::PeerDenied | Fault::Broken) => self.finish(Ending::Broken),
            Err(Fault::PeerGone) => self.peer_lost(link),
        }
        if moved.ended && self.send_work.load(Ordering::Relaxed) {
            self.pump(link);
        }
    }

    pub(super) fn post_receive(
        &self,
        link: &Link,
        op: OpId,
        pieces: &[Piece],
    ) -> Result<Posted, PostError> {
        let mut receiving = self.receiving.lock();
        if !matches!(
            self.state.load(Ordering::SeqCst),
            state::OPEN | state::DRAINING
        ) {
            return Err(self.closed_by());
        }
        let idle = receiving.is_idle();
        let posted = receiving.post(op, pieces, self.core.limits().receive_depth)?;
        if !idle {
            return Ok(posted);
        }
        let delivered = receiving.deliver_later(link, self.is_draining());
        let only = receiving.take_only(op);
        drop(receiving);
        self.delivered(link, delivered);
        Ok(match only {
            Some(Outcome::Done(len)) => Posted::Done(len),
            Some(outcome) => {
                // It ended in a way that `Posted` cannot say.
                self.receiving.lock().put_back(Completion { op, outcome });
                self.wake_own(link);
                Posted::Pending
            }
            None => posted,
        })
    }

    /// Fills receives with what is there.
    pub(super) fn deliver(&self, link: &Link) {
        let delivered = self
            .receiving
            .lock()
            .deliver_later(link, self.is_draining());
        self.delivered(link, delivered);
    }

    #[inline]
    pub(super) fn delivered(&self, link: &Link, delivered: Result<Delivered, Failed>) {
        match delivered {
            Ok(delivered) => {
                if delivered.told {
                    link.wake(reason::SPACE);
                }
                if delivered.empty && self.is_draining() {
                    self.finish(Ending::Peer);
                }
            }
            Err(Failed) => self.finish(Ending::Broken),
        }
    }

    /// Deals with the peer's notices.
    #[cold]
    pub(super) fn notice(&self, link: &Link, changes: u32) {
        self.seen.store(changes, Ordering::Relaxed);
        self.progress_rdma(link);
        if link.segment.peer().notices.closed.load(Ordering::SeqCst) != 0 {
            self.peer_gone(link);
        }
    }

    /// What is left to report of an endpoint that has ended.
    #[cold]
    pub(super) fn take_rest(&self, completions: &mut Vec<Completion>) {
        self.sending.lock().take_completions(completions);
        self.rdma.lock().take_completions(completions);
        self.receiving.lock().take_completions(completions);
    }
}
