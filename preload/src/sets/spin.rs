//! Waiting for connections without sleeping, for a moment.
//!
//! Owns the decision whether to try. Only right after something has come, at most for the switch's
//! time to spin, by fewer threads than there are processors, and less often the less it pays.
//! Connections are not armed meanwhile, so that their peers need not signal.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wsd_switch::companion::{Companion, spin_time};

use super::Set;
use super::wait::Counted;
use crate::clock::now;
use crate::guard;

/// So many connections at most are waited for without sleeping.
pub(crate) const SPUN: usize = 64;
/// Waiting without sleeping is tried only this long after something has come, in nanoseconds.
const FRESH: u64 = 100_000;
/// Threads that wait without sleeping.
static SPINNING: AtomicU32 = AtomicU32::new(0);

/// How waiting without sleeping has paid lately, for one set, or for one thread where there is none.
/// All of it hints.
#[derive(Debug)]
pub(crate) struct Spin {
    /// When a connection last had something to tell, in nanoseconds.
    active_at: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// Waits that are not to try it.
    rest: AtomicU32,
}

/// So many failures in a row cost nothing; more of them a rest of at most this power of two.
const FAILURES: u32 = 4;
const LONGEST_REST: u32 = 5;
/// The rest if another thread has had the processor for long: who sleeps is woken sooner.
const CROWDED: u32 = 1 << 12;
/// So long in nanoseconds.
const LONG: u64 = 60_000;
/// Looks before others are given way.
const ALONE: u32 = 8;

impl Spin {
    pub(crate) const fn new() -> Spin {
        Spin {
            active_at: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            rest: AtomicU32::new(0),
        }
    }

    /// A connection has had something to tell.
    pub(crate) fn has_news(&self) {
        self.active_at.store(now(), Ordering::Relaxed);
    }

    /// Whether to try it now.
    fn is_due(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    fn has_paid(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    fn has_not_paid(&self) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if let Some(more) = failures.checked_sub(FAILURES) {
            let rest = 1 << more.min(LONGEST_REST);
            self.rest.store(rest, Ordering::Relaxed);
        }
    }

    fn is_in_the_way(&self) {
        self.rest.store(CROWDED, Ordering::Relaxed);
    }
}

/// Threads of this process that may wait without sleeping at the same time.
fn spinners() -> u32 {
    static SPINNERS: OnceLock<u32> = OnceLock::new();
    *SPINNERS.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(processors.saturating_sub(1)).unwrap_or(u32::MAX)
    })
}

impl Spin {
    /// Waits a moment for those that are not armed, if something has come lately. Whether something
    /// has come. To be followed by a look at them.
    pub(crate) fn watch(&self, unarmed: impl FnOnce() -> Vec<Arc<Companion>>) -> bool {
        let budget = u64::try_from(spin_time().as_nanos()).unwrap_or(u64::MAX);
        let begun = now();
        let active_at = self.active_at.load(Ordering::Relaxed);
        if budget == 0 || begun.saturating_sub(active_at) > FRESH || !self.is_due() {
            return false;
        }
        let _inside = guard::enter();
        let unarmed = unarmed();
        if unarmed.is_empty() {
            return false;
        }
        let spinning = Counted::new(&SPINNING);
        if SPINNING.load(Ordering::Relaxed) > spinners() {
            return false;
        }
        let mut looks = 0;
        let mut last = begun;
        let mut crowded = false;
        let found = loop {
            if unarmed.iter().any(|companion| companion.glance()) {
                break true;
            }
            let time = now();
            crowded |= time.saturating_sub(last) > LONG;
            last = time;
            if time.saturating_sub(begun) >= budget {
                break false;
            }
            looks += 1;
            if looks < ALONE {
                std::hint::spin_loop();
            } else {
                // The peer may be waiting for this very processor.
                std::thread::yield_now();
            }
        };
        drop(spinning);
        if crowded {
            self.is_in_the_way();
        } else if found {
            self.has_paid();
        } else {
            self.has_not_paid();
        }
        found
    }
}

impl Set {
    /// As [`Spin::watch`].
    pub(super) fn spin(&self) -> bool {
        self.spin.watch(|| {
            let state = self.lock();
            let unarmed = state.ready.iter().take(SPUN).filter_map(|cookie| {
                let (index, generation) = cookie.parts();
                let place = state.members.get(index as usize)?;
                let member = place.member.as_ref()?;
                (place.generation == generation).then(|| member.companion.upgrade())?
            });
            unarmed.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_news_lately_nothing_is_watched() {
        let spin = Spin::new();
        assert!(!spin.watch(|| unreachable!("nothing has ever come")));
    }

    #[test]
    fn what_does_not_pay_is_tried_less_often() {
        let spin = Spin::new();
        for _ in 0..FAILURES {
            assert!(spin.is_due());
            spin.has_not_paid();
        }
        assert!(!spin.is_due());
        for _ in 0..20 {
            spin.has_not_paid();
        }
        let rest = (0..).take_while(|_| !spin.is_due()).count();
        assert_eq!(rest, 1 << LONGEST_REST);
        spin.has_paid();
        spin.has_not_paid();
        assert!(spin.is_due());
    }
}
