//! What can be chosen about the embedded SAN. Owns the defaults and their bounds.

use std::time::Duration;

/// How reads and writes of remote memory are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Rdma {
    /// Direct where the kernel lets this process reach the peer's memory, else pipelined.
    #[default]
    Auto,
    /// Direct, or no connection at all.
    Direct,
    /// Pipelined, and the peer is asked to do the same.
    Pipelined,
}

/// The options of one [`SoftFabric`](super::SoftFabric).
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rdma: Rdma,
    /// Whether `Post::Read` is served.
    pub(crate) rdma_read: bool,
    /// Bytes of one ring; rounded up to a power of two within [`Options::RING_SIZES`].
    pub(crate) ring_size: usize,
    /// Transfers above this many bytes are better moved by RDMA than by messages.
    pub(crate) rdma_threshold: usize,
    pub(crate) max_message: usize,
    pub(crate) send_depth: usize,
    pub(crate) receive_depth: usize,
    /// How long a peer may take to introduce itself.
    pub(crate) handshake_time: Duration,
    /// How long a connect waits for the listener's answer.
    pub(crate) connect_time: Duration,
}

impl Options {
    pub(crate) const RING_SIZES: std::ops::RangeInclusive<usize> = (256 << 10)..=(64 << 20);

    /// The options with the values of `WSD_RDMA`, `WSD_RDMA_READ`, `WSD_RING_SIZE` and
    /// `WSD_RDMA_THRESHOLD` as `lookup` finds them; what cannot be understood is left alone.
    #[cfg(test)]
    pub(crate) fn with_environment(mut self, lookup: impl Fn(&str) -> Option<String>) -> Self {
        match lookup("WSD_RDMA").as_deref() {
            Some("auto") => self.rdma = Rdma::Auto,
            Some("direct") => self.rdma = Rdma::Direct,
            Some("pipelined") => self.rdma = Rdma::Pipelined,
            _ => {}
        }
        if lookup("WSD_RDMA_READ").as_deref() == Some("0") {
            self.rdma_read = false;
        }
        let number = |name| lookup(name)?.trim().parse::<usize>().ok();
        if let Some(size) = number("WSD_RING_SIZE") {
            self.ring_size = size;
        }
        if let Some(threshold) = number("WSD_RDMA_THRESHOLD") {
            self.rdma_threshold = threshold;
        }
        self
    }

    /// The ring size as it is used.
    pub(super) fn usable_ring_size(&self) -> usize {
        let (least, most) = (*Self::RING_SIZES.start(), *Self::RING_SIZES.end());
        let least = least.max(self.max_message.saturating_mul(2));
        self.ring_size
            .max(least)
            .checked_next_power_of_two()
            .unwrap_or(most)
            .min(most)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rdma: Rdma::Auto,
            rdma_read: true,
            ring_size: 1 << 20,
            rdma_threshold: 64 << 10,
            max_message: (64 << 10) + 256,
            send_depth: 256,
            receive_depth: 1024,
            handshake_time: Duration::from_secs(5),
            connect_time: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_what_it_names_and_nothing_else() {
        let options = Options::default().with_environment(|name| match name {
            "WSD_RDMA" => Some("pipelined".into()),
            "WSD_RING_SIZE" => Some("300000".into()),
            "WSD_RDMA_THRESHOLD" => Some("many".into()),
            _ => None,
        });
        assert_eq!(options.rdma, Rdma::Pipelined);
        assert_eq!(options.usable_ring_size(), 512 << 10);
        assert_eq!(options.rdma_threshold, Options::default().rdma_threshold);
        assert!(options.rdma_read);
    }

    #[test]
    fn a_ring_is_a_power_of_two_within_bounds() {
        for (asked, used) in [(0, 256 << 10), (1 << 20, 1 << 20), (usize::MAX, 64 << 20)] {
            let options = Options {
                ring_size: asked,
                ..Options::default()
            };
            assert_eq!(options.usable_ring_size(), used);
        }
    }
}
