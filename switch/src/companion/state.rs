//! Where each direction of a companion's stream is, and what is known of the way of both.
//!
//! Owns the phases of both directions and everything that is behind the companion's lock; the files
//! beside this one change it. Invariants: all but the two phases, and what is counted, is behind the
//! lock, which nobody holds while waiting; who changes a phase holds it, too.

use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::hand::Hand;
use super::marker::MARKER;
use super::parting::Parting;
use super::retain::Lost;
use super::shadow::Shadow;
use crate::conn::{Connection, Zeal};

/// The kernel carries it.
pub(super) const KERNEL: u8 = 0;
/// Receiving: the kernel carries it, and the marker may come.
/// Sending: the kernel carries it, and the cut is due as soon as no send is in the kernel.
pub(super) const GUARDED: u8 = 1;
/// The SAN carries it.
pub(super) const SAN: u8 = 2;
/// Receiving: what was taken from the SAN early is to be read before the kernel's.
/// Sending: the rest of a marker is to be written before the kernel carries it.
pub(super) const BETWEEN: u8 = 3;
/// Lost on both paths.
pub(super) const BROKEN: u8 = 4;
/// Sending: being changed, look again under the lock.
pub(super) const CHANGING: u8 = 5;
/// Receiving: the SAN's stream is being taken away from the application.
pub(super) const TAKEN: u8 = 6;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) phase: AtomicU8,
    /// Calls of the application that are in the kernel now.
    pub(super) inflight: AtomicU32,
    /// Calls of the application that are with the SAN now. While there is one, no other session
    /// carries the direction than the one that it has found.
    pub(super) busy: AtomicU32,
    /// Bytes since the companion was made, by any path.
    pub(super) total: AtomicU64,
    /// Those of them that the SAN carried.
    pub(super) san: AtomicU64,
}

impl Direction {
    pub(super) fn phase(&self) -> u8 {
        self.phase.load(Ordering::SeqCst)
    }

    pub(super) fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.total.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Bytes that the kernel carried.
    pub(super) fn by_kernel(&self) -> u64 {
        let san = self.san.load(Ordering::Relaxed);
        self.total.load(Ordering::Relaxed).saturating_sub(san)
    }

    pub(super) fn count_san(&self, bytes: usize) {
        self.count(bytes);
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.san.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How far an upgrade is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// The service thread looks for the peer.
    Seeking,
    /// A session is being negotiated for it.
    Joining,
    /// There is a session.
    Up,
    /// The kernel for good.
    Never,
}

/// What is behind the lock.
#[derive(Default)]
pub(super) struct Core {
    pub(super) stage: Stage,
    /// Our own descriptor for the TCP socket, while the service thread needs one.
    pub(super) tcp: Option<OwnedFd>,
    /// The number of another one, by which the service thread is told of each arrival and which it
    /// closes. Known here as long as it is open, so that a forked child can close its own.
    pub(super) watched: Option<RawFd>,
    pub(super) connection: Option<Arc<Connection>>,
    /// The application has closed; nobody calls any more.
    pub(super) closed: bool,
    /// Sending was shut down by the application.
    pub(super) write_shut: bool,
    /// A call takes it back to the kernel.
    pub(super) held: bool,
    /// The session is being left.
    pub(super) hand: Option<Hand>,
    /// The session was lost, and what it leaves is not dealt with yet.
    pub(super) lost: Option<Lost>,
    /// Where this side's stream went over.
    pub(super) tx_cut: Option<u64>,
    /// Receiving was shut down by the application.
    pub(super) read_shut: bool,
    /// The end of what the application sends is still to be told on TCP.
    pub(super) end_due: bool,
    /// Because of a fork, which is nobody's fault.
    pub(super) forking: bool,
    /// Times it went back otherwise.
    pub(super) strikes: u32,
    /// This side sends nothing, or nothing more, over this session.
    pub(super) back: bool,
    pub(super) session: [u8; 16],
    pub(super) cut: Option<u64>,
    pub(super) cut_bytes: ([u8; 8], usize),
    /// What was taken of the marker; while `cut` is not reached, bytes that look like it.
    pub(super) marker_in: ([u8; MARKER], usize),
    /// The receiving direction is `BETWEEN`, and guarded again after it.
    pub(super) guard_goes_on: bool,
    /// The marker was seen.
    pub(super) verified: bool,
    /// Somebody has been woken for the marker before `cut` was known, and may not be woken for it
    /// again.
    pub(super) marker_met: bool,
    /// What is still to be written of our marker.
    pub(super) marker_out: Vec<u8>,
    pub(super) leftover: VecDeque<u8>,
    pub(super) downgrades: u32,
    pub(super) upgrades: u32,
    pub(super) shadow: Option<Shadow>,
    /// Closed, and the peer's marker may still come.
    pub(super) parting: Option<Parting>,
    /// The number of the look that was shown last.
    pub(super) shown: u64,
    /// What the watchers were told last.
    pub(super) told_san: bool,
    /// How zealous the service thread has been told to be.
    pub(super) told_zeal: Option<Zeal>,
}

impl Core {
    /// Whether this is the session's connection now.
    pub(super) fn is_carried_by(&self, connection: &Arc<Connection>) -> bool {
        let own = self.connection.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, connection))
    }

    /// Whether nothing has been done for an upgrade, or nothing is left of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.stage == Stage::Idle
            && self.tcp.is_none()
            && self.connection.is_none()
            && self.lost.is_none()
            && self.hand.is_none()
            && self.parting.is_none()
            && self.shadow.is_none()
            && !self.owes()
    }

    /// Whether the rest of the marker waits for room in the kernel.
    pub(super) fn owes(&self) -> bool {
        !self.marker_out.is_empty()
    }

    pub(super) fn session(&self) -> [u8; 16] {
        self.session
    }

    /// What was taken from the kernel as the beginning of the marker, or as what looks like it.
    pub(super) fn doubtful(&self) -> &[u8] {
        let (bytes, have) = &self.marker_in;
        bytes.get(..*have).unwrap_or_default()
    }

    pub(super) fn put_doubtful(&mut self, bytes: &[u8]) {
        let (place, have) = &mut self.marker_in;
        for (to, byte) in place.iter_mut().skip(*have).zip(bytes) {
            *to = *byte;
        }
        *have = MARKER.min(*have + bytes.len());
    }

    /// Takes the first bytes of those.
    pub(super) fn take_doubtful(&mut self, count: usize) -> Vec<u8> {
        let (bytes, have) = &mut self.marker_in;
        let count = count.min(*have);
        let taken = bytes.get(..count).unwrap_or_default().to_vec();
        bytes.copy_within(count..*have, 0);
        *have -= count;
        taken
    }

    /// Nobody is to get the rest of the marker.
    pub(super) fn marker_gone(&mut self) {
        self.marker_out.clear();
    }
}
