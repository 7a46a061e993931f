//! What is the same for every connection of the process: read from the environment once.

use std::env;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

/// Longer than it takes to wake a peer that sleeps on another processor: only an end that still looks when
/// the answer comes finds out that looking pays.
const SPIN: Duration = Duration::from_micros(50);
/// As the provider has it: who spins longer than this does not sleep at all.
const LONGEST_SPIN_US: u64 = 10_000;
/// Control buffers of each half: with the window they make, one side can be a whole ring ahead.
const CONTROL_BUFFERS: usize = 16;
const MOST_CONTROL_BUFFERS: u64 = 4096;
/// Largest payload of a control message, however high the provider's threshold is. A write above it
/// takes several: while one is copied, the peer takes the one before.
const LARGEST_PAYLOAD: usize = 32 << 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Longest time to spin before sleeping.
    pub(super) spin: Duration,
    /// Control buffers posted as receives, and as many to send.
    pub(super) control_buffers: usize,
    /// Largest payload of a control message.
    pub(super) payload: usize,
}

impl Tuning {
    fn new(value: impl Fn(&str) -> Option<String>, processors: usize) -> Tuning {
        let spin =
            number(&value, "WSD_SPIN_US", 0..=LONGEST_SPIN_US).map_or(SPIN, Duration::from_micros);
        let least = u64::from(wsd_proto::MIN_RECEIVES);
        let buffers = number(&value, "WSD_CONTROL_BUFFERS", least..=MOST_CONTROL_BUFFERS)
            .and_then(|count| usize::try_from(count).ok());
        Tuning {
            // On one processor the peer cannot go on while this side spins.
            spin: if processors < 2 { Duration::ZERO } else { spin },
            control_buffers: buffers.unwrap_or(CONTROL_BUFFERS),
            payload: LARGEST_PAYLOAD,
        }
    }
}

/// A value that is no number in the range is reported, and left for the default.
fn number(
    value: impl Fn(&str) -> Option<String>,
    name: &str,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    let text = value(name)?;
    let number = text.trim().parse().ok();
    let number = number.filter(|number| range.contains(number));
    if number.is_none() {
        let (least, most) = range.into_inner();
        tracing::warn!(
            name,
            value = text,
            least,
            most,
            "not a number in range; the default is used"
        );
    }
    number
}

/// `WSD_SPIN_US` and `WSD_CONTROL_BUFFERS`, or what fits this machine.
pub(crate) fn tuning() -> &'static Tuning {
    static TUNING: OnceLock<Tuning> = OnceLock::new();
    TUNING.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Tuning::new(|name| env::var(name).ok(), processors)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str, processors: usize) -> Tuning {
        Tuning::new(
            |asked| (asked == name).then(|| value.to_owned()),
            processors,
        )
    }

    #[test]
    fn one_processor_never_spins() {
        assert_eq!(Tuning::new(|_| None, 1).spin, Duration::ZERO);
        assert_eq!(with("WSD_SPIN_US", "50", 1).spin, Duration::ZERO);
        assert_eq!(Tuning::new(|_| None, 2).spin, SPIN);
        let asked = with("WSD_SPIN_US", "50", 2).spin;
        assert_eq!(asked, Duration::from_micros(50));
    }

    #[test]
    fn what_is_not_a_time_to_spin_leaves_the_default() {
        for wrong in ["nonsense", "-1", "", "10001", "99999999999999999999"] {
            assert_eq!(with("WSD_SPIN_US", wrong, 2).spin, SPIN, "{wrong}");
        }
        let longest = with("WSD_SPIN_US", "10000", 2).spin;
        assert_eq!(longest, Duration::from_millis(10));
    }

    #[test]
    fn the_number_of_control_buffers_stays_within_what_works() {
        let asked = |value| with("WSD_CONTROL_BUFFERS", value, 2).control_buffers;
        assert_eq!(Tuning::new(|_| None, 2).control_buffers, CONTROL_BUFFERS);
        assert_eq!(asked("5"), 5);
        assert_eq!(asked("4096"), 4096);
        assert_eq!(asked("4"), CONTROL_BUFFERS);
        assert_eq!(asked("4097"), CONTROL_BUFFERS);
    }
}
