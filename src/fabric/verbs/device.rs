//! What the devices of this host can do, as one answer for all of them.
//!
//! Owns the limits of the fabric. Every value holds on every device that was there at the start.

use std::time::Duration;

use super::memory::DESCRIPTOR_LEN;
use super::sys::Limits;
use super::{Options, connect};
use crate::fabric::Caps;

/// The largest message, if the devices permit it: as on the embedded SAN.
const MAX_MESSAGE: usize = (64 << 10) + 256;
const MAX_RDMA: usize = 1 << 30;
const THRESHOLD: usize = 64 << 10;
const MAX_PIECES: usize = 16;
const SENDS: usize = 256;
const RECEIVES: usize = 512;
/// Entries of the send queue that transfers leave to messages.
const RESERVED: usize = 16;
/// Reads of the peer that the device answers at a time.
const READS_IN: u8 = 16;
/// Reads under way at a time. What they have asked for is sent again when a packet is lost, and with
/// the parts of long reads (`parts`) it is half a megabyte at most: enough to keep a fast link busy.
const READS_OUT: u8 = 4;
const INLINE: usize = 220;

/// What connections are made with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) caps: Caps,
    pub(super) inline_bytes: usize,
    pub(super) reserved: usize,
    /// Pieces of one read; a read of more is posted in parts.
    pub(super) read_pieces: usize,
    pub(super) reads_in: u8,
    pub(super) reads_out: u8,
    /// How often the peer repeats a message for which no receive is posted.
    pub(super) rnr_retry: u8,
    /// Whether the target of a read has to be open to the peer.
    pub(super) iwarp: bool,
    /// How long an attempt to connect may take.
    pub(super) patience: Duration,
}

impl Settings {
    pub(super) fn new(devices: &[Limits], options: Options) -> Self {
        let least = |value: fn(&Limits) -> usize, most: usize| {
            devices.iter().map(value).min().unwrap_or(most).min(most)
        };
        let least_reads = |value: fn(&Limits) -> u8, most: u8| {
            devices.iter().map(value).min().unwrap_or(most).min(most)
        };
        let (reads_in, reads_out) = (
            least_reads(|limits| limits.reads_in, READS_IN),
            least_reads(|limits| limits.reads_out, READS_OUT),
        );
        let queue = least(|limits| limits.max_queue, usize::MAX);
        // One completion queue for both. One send more is the connection's own, for the end, and one
        // receive, for the first message.
        let completions = least(|limits| limits.max_completions, usize::MAX);
        let send_depth = SENDS
            .min(queue.saturating_sub(1))
            .min(completions / 3)
            .max(2);
        let receive_depth = RECEIVES
            .min(queue.saturating_sub(1))
            .min(completions.saturating_sub(send_depth + 2))
            .max(2);
        let max_pieces = least(|limits| limits.max_pieces, MAX_PIECES).max(1);
        Self {
            caps: Caps {
                max_message: least(|limits| limits.max_message, MAX_MESSAGE),
                max_rdma: least(|limits| limits.max_message, MAX_RDMA),
                rdma_threshold: THRESHOLD,
                rdma_read: options.rdma_read && reads_in > 0 && reads_out > 0,
                max_pieces,
                send_depth,
                receive_depth,
                descriptor_len: DESCRIPTOR_LEN,
            },
            inline_bytes: INLINE,
            reserved: RESERVED,
            read_pieces: least(|limits| limits.max_read_pieces, max_pieces).max(1),
            reads_in,
            reads_out,
            rnr_retry: options.rnr_retry,
            iwarp: devices.iter().any(|limits| limits.iwarp),
            patience: options.patience.unwrap_or(connect::PATIENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Limits = Limits {
        max_message: 1 << 30,
        max_queue: 32_768,
        max_completions: 1 << 22,
        max_pieces: 30,
        max_read_pieces: 30,
        reads_in: 16,
        reads_out: 128,
        iwarp: false,
    };

    #[test]
    fn what_every_device_can_do_is_what_the_fabric_can_do() {
        let small = Limits {
            max_message: 32 << 10,
            max_queue: 64,
            max_completions: 90,
            max_pieces: 4,
            max_read_pieces: 1,
            reads_in: 4,
            reads_out: 0,
            ..LARGE
        };
        let settings = Settings::new(&[LARGE, small], Options::new(true));
        let caps = settings.caps;
        assert_eq!((caps.max_message, caps.max_rdma), (32 << 10, 32 << 10));
        assert_eq!((caps.max_pieces, settings.read_pieces), (4, 1));
        assert!(caps.send_depth + caps.receive_depth <= 88 && caps.receive_depth <= 64);
        assert!(!caps.rdma_read, "one device cannot start a read");
        assert_eq!(settings.reads_in, 4);
    }

    #[test]
    fn a_large_device_gets_the_usual_sizes() {
        let settings = Settings::new(&[LARGE], Options::new(true));
        assert_eq!(settings.caps.max_message, MAX_MESSAGE);
        assert_eq!(settings.caps.send_depth, SENDS);
        assert_eq!(settings.caps.receive_depth, RECEIVES);
        assert_eq!((settings.reads_in, settings.reads_out), (16, 4));
        assert!(settings.caps.rdma_read);
        let without = Settings::new(&[LARGE], Options::new(false));
        assert!(!without.caps.rdma_read);
    }
}
