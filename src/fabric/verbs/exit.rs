//! The end of the process.
//!
//! A message that was reported done when it was posted may not have reached the peer yet, and the
//! kernel destroys the queue pairs of a process that ends, with what is in them. So the regular end of
//! the process waits for such messages, and for what is leaving (`leaving`), no longer than `FAREWELL`.
//!
//! Owns the list of the cores that are told. Invariants: nothing here waits without a limit, because a
//! process may end in any state; and a forked child touches nothing of its parent's.
//!
//! The work is done by a thread of its own: the one that ends the process has lost its thread-local
//! values, and may hold any lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::Core;
use super::sys;

/// How long the end of the process may be kept up. Tests are patient: on a slow machine nothing may
/// depend on it.
const FAREWELL: Duration = Duration::from_secs(if cfg!(test) { 20 } else { 2 });
/// How long the lock of the list is waited for; it is held for moments, except by a thread that was
/// lost in a fork.
const LOCK: Duration = Duration::from_millis(200);
/// How often the thread is looked at.
const STEP: Duration = Duration::from_micros(100);

/// The cores, each with the process that made it.
static CORES: Mutex<Vec<(u32, Weak<Core>)>> = Mutex::new(Vec::new());
static REGISTERED: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Has the end of the process wait for what this core has to deliver.
pub(super) fn enter(core: &Arc<Core>) {
    let process = std::process::id();
    let Some(mut cores) = CORES.try_lock_for(LOCK) else {
        return;
    };
    cores.retain(|(owner, core)| *owner == process && core.strong_count() > 0);
    cores.push((process, Arc::downgrade(core)));
    drop(cores);
    // A child inherits it.
    if !REGISTERED.swap(true, Ordering::SeqCst) {
        sys::at_exit(at_exit);
    }
}

/// Whether nobody waits any more for what is reported before it is delivered.
pub(super) fn has_begun() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

// req: WSD-11
extern "C" fn at_exit() {
    let process = std::process::id();
    let cores: Vec<_> = match CORES.try_lock_for(LOCK) {
        Some(cores) => cores
            .iter()
            .filter(|(owner, core)| *owner == process && core.strong_count() > 0)
            .map(|(_, core)| Weak::clone(core))
            .collect(),
        None => return,
    };
    if cores.is_empty() {
        return;
    }
    BEGUN.store(true, Ordering::SeqCst);
    let until = Instant::now() + FAREWELL;
    let farewell = thread::Builder::new().spawn(move || {
        for core in cores.iter().filter_map(Weak::upgrade) {
            core.deliver(until);
        }
    });
    let Ok(farewell) = farewell else { return };
    // It may wait for a lock that this thread holds.
    while !farewell.is_finished() && Instant::now() < until {
        thread::sleep(STEP);
    }
}
