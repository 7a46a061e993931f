//! Who sleeps for a connection, and who is woken.
//!
//! Owns the choice of the one thread that may arm an endpoint and sleep on it: a waiting caller (the
//! leader; further ones, the followers, sleep on a condition variable), the progress thread, or the
//! switch itself once it has called for that. Invariant: whoever makes a result visible looks here
//! afterwards, and a waiter looks for its operation after it has entered itself here. Both go through
//! the lock under which the operation is taken out; so one of the two sees the other.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::outlet::{System, Wake};

thread_local! {
    /// What wakes this thread when it leads, and the process that made it: a child process has the
    /// descriptor, too, but must not take its parent's wake-ups.
    static MY_WAKE: RefCell<Option<(u32, Arc<Wake>)>> = const { RefCell::new(None) };
}

/// This thread's wake-up. None when no descriptor is left; the caller then sleeps in short naps.
pub(crate) fn my_wake(system: &Arc<dyn System>) -> Option<Arc<Wake>> {
    MY_WAKE
        .try_with(|mine| {
            let mut mine = mine.borrow_mut();
            let process = std::process::id();
            if mine.as_ref().is_none_or(|(maker, _)| *maker != process) {
                *mine = Wake::new(system).ok().map(|wake| (process, Arc::new(wake)));
            }
            mine.as_ref().map(|(_, wake)| Arc::clone(wake))
        })
        .ok()
        .flatten()
}

#[derive(Default)]
pub(crate) struct WaitState {
    /// The waiting caller that sleeps on the endpoint.
    pub(crate) leader: Option<Option<Arc<Wake>>>,
    /// The endpoint is armed for the progress thread.
    pub(crate) watched: bool,
    /// The switch has taken over waiting.
    pub(crate) taken_over: bool,
    /// How many batches of results the switch had been told of when it last armed.
    pub(crate) seen: u64,
}

#[derive(Default)]
pub(crate) struct Waiting {
    /// Callers that wait, leader and followers.
    waiters: AtomicUsize,
    /// Guards who arms the endpoint; every `arm` is done under it.
    state: Mutex<WaitState>,
    changed: Condvar,
}

/// A caller that waits; leaves when dropped.
pub(crate) struct Waiter<'a> {
    waiting: &'a Waiting,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting {
    pub(crate) fn enter(&self) -> Waiter<'_> {
        // Relaxed: ordered by the lock under which the waiter then looks for its operation.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Waiter { waiting: self }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock()
    }

    /// Wakes everybody who waits. Called after an operation was taken out.
    #[inline]
    pub(crate) fn announce(&self) {
        // Relaxed: a waiter that has seen the operation entered itself before that, and so before
        // the operation was taken out.
        if self.waiters.load(Ordering::Relaxed) > 0 {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let state = self.state.lock();
        if let Some(Some(wake)) = &state.leader {
            wake.signal();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Sleeps as a follower until something changed.
    pub(crate) fn follow(&self, mut state: MutexGuard<'_, WaitState>) {
        self.changed.wait(&mut state);
    }

    /// Gives leadership to whoever wants it.
    pub(crate) fn resign(&self) {
        self.state.lock().leader = None;
        self.changed.notify_all();
    }
}

/// How long to look busily before sleeping: more after it has helped, less after it has not.
#[derive(Debug)]
pub(crate) struct Spin {
    longest_ns: u32,
    now_ns: AtomicU32,
}

/// The shortest busy wait is this part of the longest.
const LEAST_PART: u32 = 16;

impl Spin {
    pub(crate) fn new(longest: Duration) -> Self {
        let longest_ns = u32::try_from(longest.as_nanos()).unwrap_or(u32::MAX);
        Self {
            longest_ns,
            now_ns: AtomicU32::new(longest_ns),
        }
    }

    /// Looks until `look` says yes or the time is over.
    pub(crate) fn until(&self, mut look: impl FnMut() -> bool) -> bool {
        if look() {
            return true;
        }
        if self.longest_ns == 0 {
            return false;
        }
        // Relaxed: a rough figure that several threads adjust.
        let budget = self.now_ns.load(Ordering::Relaxed);
        let begun = Instant::now();
        let longest = Duration::from_nanos(u64::from(budget));
        let found = loop {
            std::hint::spin_loop();
            if look() {
                break true;
            }
            if begun.elapsed() >= longest {
                break false;
            }
        };
        let next = if found {
            budget.saturating_mul(2).min(self.longest_ns)
        } else {
            (budget / 2).max(self.longest_ns / LEAST_PART)
        };
        self.now_ns.store(next, Ordering::Relaxed);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_shrinks_when_it_does_not_help_and_grows_when_it_does() {
        let spin = Spin::new(Duration::from_micros(160));
        for _ in 0..10 {
            assert!(!spin.until(|| false));
        }
        assert_eq!(spin.now_ns.load(Ordering::Relaxed), 10_000);
        for _ in 0..10 {
            let mut looks = 0;
            assert!(spin.until(|| {
                looks += 1;
                looks == 2
            }));
        }
        assert_eq!(spin.now_ns.load(Ordering::Relaxed), 160_000);
    }

    #[test]
    fn without_spinning_it_looks_once() {
        let spin = Spin::new(Duration::ZERO);
        let mut looks = 0;
        assert!(!spin.until(|| {
            looks += 1;
            false
        }));
        assert_eq!(looks, 1);
    }
}
