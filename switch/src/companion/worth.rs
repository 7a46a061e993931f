//! When the SAN is sought for a connection: after how many bytes or turns it is worth while.
//!
//! Invariants: a call that crosses the mark seeks, once, and the mark is out of reach until that has
//! come to its end; what is counted for it is a hint, so nothing here waits for anybody.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use super::state::{Direction, Stage};
use super::{Companion, Reason, Role, service, waiting};

/// Bytes and turns after which an upgrade is worth while. Who accepted tries a little later, when
/// the other side's beacon is up.
const WORTH: [(u64, u32); 2] = [(16 << 10, 8), (32 << 10, 16)];
/// How much more it takes after each failure, as a power of two, at the most.
const LATER: u32 = 12;

impl Companion {
    /// After bytes were received over the kernel.
    #[inline]
    pub(super) fn received(&self, fd: RawFd) {
        self.show_bytes();
        // Relaxed, here and below: hints.
        self.last_received.store(true, Ordering::Relaxed);
        if self.rx.total.load(Ordering::Relaxed) >= self.trigger.load(Ordering::Relaxed) {
            self.triggered(fd);
        }
    }

    /// After bytes were sent over the kernel.
    #[inline]
    pub(super) fn sent(&self, fd: RawFd) {
        self.show_bytes();
        if self.last_received.load(Ordering::Relaxed) {
            self.last_received.store(false, Ordering::Relaxed);
            let turns = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
            if turns >= self.trigger_turns.load(Ordering::Relaxed) {
                return self.triggered(fd);
            }
        }
        if self.tx.total.load(Ordering::Relaxed) >= self.trigger.load(Ordering::Relaxed) {
            self.triggered(fd);
        }
    }

    /// After bytes were sent over the SAN.
    pub(super) fn san_sent(&self) {
        self.last_received.store(false, Ordering::Relaxed);
    }

    #[cold]
    fn triggered(&self, fd: RawFd) {
        self.trigger.store(u64::MAX, Ordering::Relaxed);
        self.trigger_turns.store(u32::MAX, Ordering::Relaxed);
        if self.poisoned.load(Ordering::Relaxed) {
            self.set_reason(Reason::Urgent);
            return;
        }
        if self.announced.load(Ordering::Relaxed) && !waiting::herald(self, fd) {
            // The next call asks again.
            self.trigger.store(1, Ordering::Relaxed);
            self.trigger_turns.store(1, Ordering::Relaxed);
            return;
        }
        service::seek(self, fd);
    }

    /// Whether enough has crossed by now.
    pub(super) fn is_worth_it(&self) -> bool {
        let (bytes, turns) = worth(self.role);
        let total = |direction: &Direction| direction.total.load(Ordering::Relaxed);
        total(&self.rx).max(total(&self.tx)) >= bytes || self.turns.load(Ordering::Relaxed) >= turns
    }

    /// Sought too early.
    pub(super) fn not_yet(&self) {
        let mut core = self.core.lock();
        core.stage = Stage::Idle;
        core.tcp = None;
        drop(core);
        let (bytes, turns) = worth(self.role);
        self.trigger.store(bytes, Ordering::Relaxed);
        self.trigger_turns.store(turns, Ordering::Relaxed);
    }

    /// Whether nothing would seek again.
    pub(super) fn is_untriggered(&self) -> bool {
        self.trigger.load(Ordering::Relaxed) == u64::MAX
    }

    /// Seeks again after as much more as the failures so far make it wait.
    pub(super) fn retrigger(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(LATER);
        let (bytes, turns) = worth(self.role);
        let total = |direction: &Direction| direction.total.load(Ordering::Relaxed);
        let now = total(&self.rx).max(total(&self.tx));
        self.trigger
            .store(now + (bytes << failures), Ordering::Relaxed);
        let now = self.turns.load(Ordering::Relaxed);
        let later = now.saturating_add(turns << failures);
        self.trigger_turns.store(later, Ordering::Relaxed);
    }
}

pub(super) fn worth(role: Role) -> (u64, u32) {
    let [connected, accepted] = WORTH;
    match role {
        Role::Connected => connected,
        Role::Accepted => accepted,
    }
}
