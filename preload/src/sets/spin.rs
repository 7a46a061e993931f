//! Waiting for connections without sleeping, for a moment.
//!
//! Owns the decision whether to try. Only right after something has come, at most for the switch's
//! time to spin, by fewer threads than there are processors, and less often the less it pays.
//! Connections are not armed meanwhile, so that their peers need not signal.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wsd_switch::companion::{Companion, Trials, spin_time};

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
    trials: Trials,
}

impl Spin {
    pub(crate) const fn new() -> Spin {
        Spin {
            active_at: AtomicU64::new(0),
            trials: Trials::new(),
        }
    }

    /// A connection has had something to tell.
    pub(crate) fn has_news(&self) {
        self.active_at.store(now(), Ordering::Relaxed);
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
    /// Waits a moment for those that are not armed, if something has come lately. For which of them
    /// something has come: it has been taken from the provider, and is to be looked at.
    pub(crate) fn watch(&self, unarmed: impl FnOnce() -> Vec<Arc<Companion>>) -> Option<usize> {
        let budget = u64::try_from(spin_time().as_nanos()).unwrap_or(u64::MAX);
        let begun = now();
        let active_at = self.active_at.load(Ordering::Relaxed);
        if budget == 0 || begun.saturating_sub(active_at) > FRESH || !self.trials.is_due() {
            return None;
        }
        let _inside = guard::enter();
        let unarmed = unarmed();
        if unarmed.is_empty() {
            return None;
        }
        let spinning = Counted::new(&SPINNING);
        if SPINNING.load(Ordering::Relaxed) > spinners() {
            return None;
        }
        let found = loop {
            let found = unarmed.iter().position(|companion| companion.glance());
            if found.is_some() {
                break found;
            }
            if now().saturating_sub(begun) >= budget {
                break None;
            }
            std::hint::spin_loop();
        };
        drop(spinning);
        if found.is_some() {
            self.trials.has_paid();
        } else {
            self.trials.has_not_paid();
        }
        found
    }
}

impl Set {
    /// As [`Spin::watch`]: whether something has come.
    pub(super) fn spin(&self) -> bool {
        let mut names = Vec::new();
        let found = self.spin.watch(|| {
            let state = self.lock();
            let (cookies, unarmed) = state
                .ready
                .iter()
                .take(SPUN)
                .filter_map(|cookie| {
                    let (index, generation) = cookie.parts();
                    let place = state.members.get(index as usize)?;
                    let member = place
                        .member
                        .as_ref()
                        .filter(|_| place.generation == generation)?;
                    Some((*cookie, member.companion.upgrade()?))
                })
                .unzip();
            names = cookies;
            unarmed
        });
        let Some(cookie) = found.and_then(|at| names.get(at)) else {
            return false;
        };
        if let Some((_, member)) = self.lock().named(*cookie) {
            // A glance would not find it once more.
            member.quiet = false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_news_lately_nothing_is_watched() {
        let spin = Spin::new();
        let found = spin.watch(|| unreachable!("nothing has ever come"));
        assert_eq!(found, None);
    }
}
