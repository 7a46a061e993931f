//! What is the same for every connection of the process: read from the environment once.

use std::env;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

/// Spinning pays while a wake-up costs more than this.
const SPIN: Duration = Duration::from_micros(20);
/// Control buffers of each half: with the window they make, one side can be a whole ring ahead.
const CONTROL_BUFFERS: usize = 16;
/// Largest payload of a control message, however high the provider's threshold is. A write above it
/// takes several: while one is copied, the peer takes the one before.
const LARGEST_PAYLOAD: usize = 32 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// Longest time to spin before sleeping.
    pub(super) spin: Duration,
    /// Control buffers posted as receives, and as many to send.
    pub(super) control_buffers: usize,
    /// Largest payload of a control message.
    pub(super) payload: usize,
}

impl Tuning {
    fn new(spin: Option<&str>, buffers: Option<&str>, processors: usize) -> Tuning {
        let most = if processors < 2 { Duration::ZERO } else { SPIN };
        let spin = number(spin).map_or(most, |micros| {
            if processors < 2 {
                Duration::ZERO
            } else {
                Duration::from_micros(micros)
            }
        });
        let least = u64::from(wsd_proto::MIN_RECEIVES);
        let buffers = number(buffers).map_or(CONTROL_BUFFERS, |count| {
            usize::try_from(count.clamp(least, 4096)).unwrap_or(CONTROL_BUFFERS)
        });
        Tuning {
            spin,
            control_buffers: buffers,
            payload: LARGEST_PAYLOAD,
        }
    }
}

fn number(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.trim().parse().ok())
}

/// `WSD_SPIN_US` and `WSD_CONTROL_BUFFERS`, or what fits this machine.
pub(super) fn tuning() -> &'static Tuning {
    static TUNING: OnceLock<Tuning> = OnceLock::new();
    TUNING.get_or_init(|| {
        let text = |name| env::var(name).ok();
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let (spin, buffers) = (text("WSD_SPIN_US"), text("WSD_CONTROL_BUFFERS"));
        Tuning::new(spin.as_deref(), buffers.as_deref(), processors)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_processor_never_spins() {
        assert_eq!(Tuning::new(None, None, 1).spin, Duration::ZERO);
        assert_eq!(Tuning::new(Some("50"), None, 1).spin, Duration::ZERO);
        assert_eq!(Tuning::new(None, None, 2).spin, SPIN);
        assert_eq!(
            Tuning::new(Some("50"), None, 2).spin,
            Duration::from_micros(50)
        );
        assert_eq!(Tuning::new(Some("nonsense"), None, 2).spin, SPIN);
    }

    #[test]
    fn the_number_of_control_buffers_stays_within_what_works() {
        assert_eq!(Tuning::new(None, None, 2).control_buffers, CONTROL_BUFFERS);
        assert_eq!(Tuning::new(None, Some("1"), 2).control_buffers, 5);
        assert_eq!(Tuning::new(None, Some("64"), 2).control_buffers, 64);
        assert_eq!(Tuning::new(None, Some("99999999"), 2).control_buffers, 4096);
    }
}
