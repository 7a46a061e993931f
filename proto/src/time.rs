//! Points in time without a clock.
//!
//! Owns nothing but arithmetic: the driver says what time it is, the protocol never asks.

use core::time::Duration;

/// A point in time: the time since some fixed start that the driver chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub Duration);

impl Instant {
    /// The start itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// This point plus `duration`, or the last representable point.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long after `earlier` this point is; zero if it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let late = Instant(Duration::MAX);
        assert_eq!(late.saturating_add(Duration::from_secs(1)), late);
        assert_eq!(Instant::ZERO.saturating_since(late), Duration::ZERO);
        assert_eq!(late.saturating_since(Instant::ZERO), Duration::MAX);
    }
}
