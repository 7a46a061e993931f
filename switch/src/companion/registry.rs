//! All companions of this process, and what they have counted together.
//!
//! Owns the list, for those who show or fork. Invariant: a companion is in it from its making to
//! its end; the list's lock is held for moments only and no other lock is taken under it.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::state::Direction;
use super::{Companion, Path, Reason, Role, fork};
use crate::conn::Stats;

/// What there is to tell about one companion.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The descriptor by which the application knew it when it was made.
    pub number: RawFd,
    /// Which end this is.
    pub role: Role,
    /// What carries it.
    pub path: Path,
    /// Why the kernel does, if it does.
    pub reason: Reason,
    /// Bytes received over the kernel.
    pub received_tcp: u64,
    /// Bytes received over the SAN.
    pub received_san: u64,
    /// Bytes sent over the kernel.
    pub sent_tcp: u64,
    /// Bytes sent over the SAN.
    pub sent_san: u64,
    /// Times it was upgraded.
    pub upgrades: u32,
    /// Times it went back to the kernel.
    pub downgrades: u32,
    /// What its session counts, while there is one.
    pub session: Option<Stats>,
    /// The name of its session; zeros if there is none.
    pub session_id: [u8; 16],
}

/// What all companions of the process have counted, those that are gone included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Totals {
    /// Bytes received over the SAN.
    pub received_san: u64,
    /// Bytes sent over the SAN.
    pub sent_san: u64,
    /// Bytes received over the kernel, while it was counted.
    pub received_tcp: u64,
    /// Bytes sent over the kernel, while it was counted.
    pub sent_tcp: u64,
    /// Upgrades.
    pub upgrades: u64,
    /// Downgrades.
    pub downgrades: u64,
    /// Companions that were made.
    pub made: u64,
}

#[derive(Default)]
struct Registry {
    slots: Vec<Weak<Companion>>,
    free: Vec<usize>,
}

/// A place in the list.
#[derive(Debug)]
pub(super) struct Slot(usize);

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    slots: Vec::new(),
    free: Vec::new(),
});

#[derive(Default)]
pub(super) struct Counters {
    pub(super) received_san: AtomicU64,
    pub(super) sent_san: AtomicU64,
    pub(super) received_tcp: AtomicU64,
    pub(super) sent_tcp: AtomicU64,
    pub(super) upgrades: AtomicU64,
    pub(super) downgrades: AtomicU64,
    pub(super) made: AtomicU64,
}

pub(super) static COUNTERS: Counters = Counters {
    received_san: AtomicU64::new(0),
    sent_san: AtomicU64::new(0),
    received_tcp: AtomicU64::new(0),
    sent_tcp: AtomicU64::new(0),
    upgrades: AtomicU64::new(0),
    downgrades: AtomicU64::new(0),
    made: AtomicU64::new(0),
};

pub(super) fn enter(make: impl FnOnce(&Weak<Companion>, Slot) -> Companion) -> Arc<Companion> {
    let _unforked = fork::while_nobody_forks();
    let mut registry = REGISTRY.lock();
    let place = registry.free.pop().unwrap_or_else(|| {
        registry.slots.push(Weak::new());
        registry.slots.len() - 1
    });
    let made = Arc::new_cyclic(|me| make(me, Slot(place)));
    if let Some(slot) = registry.slots.get_mut(place) {
        *slot = Arc::downgrade(&made);
    }
    let count = COUNTERS.made.load(Ordering::Relaxed);
    // Nobody else writes it, for the list is locked.
    COUNTERS.made.store(count + 1, Ordering::Relaxed);
    drop(registry);
    made
}

pub(super) fn leave(companion: &Companion) {
    let san = |direction: &Direction| direction.san.load(Ordering::Relaxed);
    let mut registry = REGISTRY.lock();
    for (counter, bytes) in [
        (&COUNTERS.received_tcp, companion.rx.by_kernel()),
        (&COUNTERS.received_san, san(&companion.rx)),
        (&COUNTERS.sent_tcp, companion.tx.by_kernel()),
        (&COUNTERS.sent_san, san(&companion.tx)),
    ] {
        // Nobody else writes them, for the list is locked.
        counter.store(counter.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
    if let Some(place) = registry.slots.get_mut(companion.slot.0) {
        *place = Weak::new();
        registry.free.push(companion.slot.0);
    }
}

/// All companions there are.
#[must_use]
pub fn all() -> Vec<Arc<Companion>> {
    let registry = REGISTRY.lock();
    let all = registry.slots.iter().filter_map(Weak::upgrade).collect();
    drop(registry);
    all
}

/// As [`all`], for who must not wait for another thread, or for itself.
pub(super) fn all_at_once() -> Vec<Arc<Companion>> {
    let Some(registry) = REGISTRY.try_lock_for(Duration::from_millis(100)) else {
        return Vec::new();
    };
    registry.slots.iter().filter_map(Weak::upgrade).collect()
}

/// What all have counted together.
#[must_use]
pub fn totals() -> Totals {
    let mut totals = Totals {
        received_san: COUNTERS.received_san.load(Ordering::Relaxed),
        sent_san: COUNTERS.sent_san.load(Ordering::Relaxed),
        received_tcp: COUNTERS.received_tcp.load(Ordering::Relaxed),
        sent_tcp: COUNTERS.sent_tcp.load(Ordering::Relaxed),
        upgrades: COUNTERS.upgrades.load(Ordering::Relaxed),
        downgrades: COUNTERS.downgrades.load(Ordering::Relaxed),
        made: COUNTERS.made.load(Ordering::Relaxed),
    };
    for companion in all() {
        let snapshot = companion.snapshot();
        totals.received_san += snapshot.received_san;
        totals.sent_san += snapshot.sent_san;
        totals.received_tcp += snapshot.received_tcp;
        totals.sent_tcp += snapshot.sent_tcp;
    }
    totals
}

/// Whether there are no companions in this process: `WSD_SWITCH=off`.
pub fn is_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| {
        std::env::var("WSD_SWITCH").is_ok_and(|value| value.eq_ignore_ascii_case("off"))
    })
}

/// The child is to find the list whole. To be followed by [`unlock_after_fork`],
/// in the child by [`free_after_fork`].
pub(super) fn lock_over_fork() {
    MutexGuard::leak(REGISTRY.lock());
}

/// See [`lock_over_fork`].
pub(super) fn unlock_after_fork() {
    // SAFETY: locked by `lock_over_fork` on this thread, and leaked.
    unsafe { REGISTRY.force_unlock() };
}

/// See [`lock_over_fork`].
pub(super) fn free_after_fork() {
    fork::free(&REGISTRY);
}
