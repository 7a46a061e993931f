//! Whether it is worth while to wait without sleeping.
//!
//! Nobody can say beforehand. While a thread looks, its peer may have the other processor and answer
//! sooner than a sleeper could be woken; or it may wait for this very processor, and every look is
//! lost. So it is tried, and less often the less it has paid lately. How soon a sleeper was woken says
//! nothing: it may have been so soon because it slept.

use std::sync::atomic::{AtomicU32, Ordering};

/// How waiting without sleeping has paid lately. All of it hints.
#[derive(Debug, Default)]
pub struct Trials {
    /// Failures in a row.
    failures: AtomicU32,
    /// Waits that are not to try it.
    rest: AtomicU32,
}

/// So many failures in a row cost nothing; more of them a rest of at most this power of two.
const FAILURES: u32 = 4;
const LONGEST_REST: u32 = 7;

impl Trials {
    /// It has not been tried yet.
    pub const fn new() -> Trials {
        Trials {
            failures: AtomicU32::new(0),
            rest: AtomicU32::new(0),
        }
    }

    /// Whether to try it now; to be asked once for each wait.
    pub fn is_due(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    /// What was waited for has come.
    pub fn has_paid(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It has not come in time.
    pub fn has_not_paid(&self) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if let Some(more) = failures.checked_sub(FAILURES) {
            let rest = 1 << more.min(LONGEST_REST);
            self.rest.store(rest, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_is_tried_less_often_and_never_given_up() {
        let trials = Trials::new();
        for _ in 0..FAILURES {
            assert!(trials.is_due());
            trials.has_not_paid();
        }
        assert!(!trials.is_due());
        for _ in 0..100 {
            trials.has_not_paid();
        }
        let rest = (0..).take_while(|_| !trials.is_due()).count();
        assert_eq!(rest, 1 << LONGEST_REST);
        trials.has_paid();
        trials.has_not_paid();
        assert!(trials.is_due());
    }
}
