//! Choices from the environment, read once at the first start.
//!
//! Owns the names of the variables and their defaults. A value that cannot be read is reported and
//! the default is used: a typing mistake must not take a host's network away.

use std::time::Duration;

/// Which fabric to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FabricChoice {
    Auto,
    Soft,
    Verbs,
}

/// How the embedded SAN moves RDMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RdmaChoice {
    Auto,
    Direct,
    Pipelined,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `WSD_FABRIC`.
    pub(crate) fabric: FabricChoice,
    /// `WSD_RDMA_READ`: 0 makes a provider without reads, as the interface allows.
    pub(crate) rdma_read: bool,
    /// `WSD_RDMA`.
    pub(crate) rdma: RdmaChoice,
    /// `WSD_SPIN_US`: longest busy wait before sleeping.
    pub(crate) spin: Duration,
    /// `WSD_RDMA_THRESHOLD`: replaces the fabric's own.
    pub(crate) rdma_threshold: Option<u32>,
    /// `WSD_RING_SIZE`: bytes of each ring of the embedded SAN.
    pub(crate) ring_size: Option<usize>,
    /// `WSD_QUEUE_DEPTH`: operations in progress per socket, sends and RDMA together, and receives.
    pub(crate) queue_depth: usize,
}

const SPIN: Duration = Duration::from_micros(20);
const LONGEST_SPIN_US: u64 = 10_000;
const QUEUE_DEPTH: usize = 4096;
/// The switch keeps 16 receives and as many sends in progress, and RDMA beside them.
const SHALLOWEST_QUEUE: usize = 64;
const DEEPEST_QUEUE: usize = 1 << 20;

impl Config {
    pub(crate) fn from_environment() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self::read(|name| std::env::var(name).ok(), cpus)
    }

    fn read(value: impl Fn(&str) -> Option<String>, cpus: usize) -> Self {
        let fabric = choice(
            &value,
            "WSD_FABRIC",
            &[
                ("auto", FabricChoice::Auto),
                ("soft", FabricChoice::Soft),
                ("verbs", FabricChoice::Verbs),
            ],
        );
        let rdma = choice(
            &value,
            "WSD_RDMA",
            &[
                ("auto", RdmaChoice::Auto),
                ("direct", RdmaChoice::Direct),
                ("pipelined", RdmaChoice::Pipelined),
            ],
        );
        let rdma_read = choice(&value, "WSD_RDMA_READ", &[("1", true), ("0", false)]);
        let spin =
            number(&value, "WSD_SPIN_US", 0, LONGEST_SPIN_US).map_or(SPIN, Duration::from_micros);
        // On one CPU the peer cannot make progress while we spin.
        let spin = if cpus > 1 { spin } else { Duration::ZERO };
        let rdma_threshold = number(&value, "WSD_RDMA_THRESHOLD", 0, u64::from(u32::MAX))
            .and_then(|bytes| u32::try_from(bytes).ok());
        let ring_size = number(&value, "WSD_RING_SIZE", 1 << 12, 1 << 30)
            .and_then(|bytes| usize::try_from(bytes).ok());
        let queue_depth = (SHALLOWEST_QUEUE as u64, DEEPEST_QUEUE as u64);
        let queue_depth = number(&value, "WSD_QUEUE_DEPTH", queue_depth.0, queue_depth.1)
            .and_then(|depth| usize::try_from(depth).ok())
            .unwrap_or(QUEUE_DEPTH);
        Self {
            fabric: fabric.unwrap_or(FabricChoice::Auto),
            rdma_read: rdma_read.unwrap_or(true),
            rdma: rdma.unwrap_or(RdmaChoice::Auto),
            spin,
            rdma_threshold,
            ring_size,
            queue_depth,
        }
    }
}

fn choice<T: Copy>(
    value: &impl Fn(&str) -> Option<String>,
    name: &str,
    known: &[(&str, T)],
) -> Option<T> {
    let text = value(name)?;
    let found = known
        .iter()
        .find(|(word, _)| text.eq_ignore_ascii_case(word))
        .map(|&(_, meaning)| meaning);
    if found.is_none() {
        tracing::warn!(name, value = text, "not a known value; the default is used");
    }
    found
}

fn number(
    value: &impl Fn(&str) -> Option<String>,
    name: &str,
    least: u64,
    most: u64,
) -> Option<u64> {
    let text = value(name)?;
    match text.trim().parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            tracing::warn!(
                name,
                value = text,
                least,
                most,
                "not a number in range; the default is used"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)], cpus: usize) -> Config {
        Config::read(
            |name| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            },
            cpus,
        )
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let config = with(&[], 2);
        assert_eq!(config.fabric, FabricChoice::Auto);
        assert_eq!(config.rdma, RdmaChoice::Auto);
        assert!(config.rdma_read);
        assert_eq!(config.spin, SPIN);
        assert_eq!(config.rdma_threshold, None);
        assert_eq!(config.ring_size, None);
        assert_eq!(config.queue_depth, QUEUE_DEPTH);
    }

    #[test]
    fn one_cpu_never_spins() {
        assert_eq!(with(&[], 1).spin, Duration::ZERO);
        let asked = |cpus| with(&[("WSD_SPIN_US", "7")], cpus).spin;
        assert_eq!(asked(1), Duration::ZERO);
        assert_eq!(asked(2), Duration::from_micros(7));
    }

    #[test]
    fn every_variable_is_read() {
        let config = with(
            &[
                ("WSD_FABRIC", "Soft"),
                ("WSD_RDMA", "pipelined"),
                ("WSD_RDMA_READ", "0"),
                ("WSD_SPIN_US", "0"),
                ("WSD_RDMA_THRESHOLD", "4096"),
                ("WSD_RING_SIZE", "65536"),
                ("WSD_QUEUE_DEPTH", "64"),
            ],
            2,
        );
        assert_eq!(config.fabric, FabricChoice::Soft);
        assert_eq!(config.rdma, RdmaChoice::Pipelined);
        assert!(!config.rdma_read);
        assert_eq!(config.spin, Duration::ZERO);
        assert_eq!(config.rdma_threshold, Some(4096));
        assert_eq!(config.ring_size, Some(65_536));
        assert_eq!(config.queue_depth, 64);
    }

    #[test]
    fn what_cannot_be_read_leaves_the_default() {
        let config = with(
            &[
                ("WSD_FABRIC", "token ring"),
                ("WSD_RDMA_READ", "maybe"),
                ("WSD_SPIN_US", "-3"),
                ("WSD_RDMA_THRESHOLD", "99999999999"),
                ("WSD_QUEUE_DEPTH", "63"),
            ],
            2,
        );
        assert_eq!(config.fabric, FabricChoice::Auto);
        assert!(config.rdma_read);
        assert_eq!(config.spin, SPIN);
        assert_eq!(config.rdma_threshold, None);
        assert_eq!(config.queue_depth, QUEUE_DEPTH);
    }
}
