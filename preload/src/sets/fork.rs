//! Poll sets across fork().
//!
//! The kernel's sets are one for both processes afterwards; what we keep of them is each process's
//! own. Owns: that the locks are free in the child, and that the child leaves the parent's
//! registrations and descriptors of ours alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::lock_api::{RawMutex as _, RawRwLock as _};
use parking_lot::{Mutex, MutexGuard, RawMutex, RawRwLock};

use super::{SETS, Set, notes};
use crate::table::{self, Descriptor, Mark};

/// What is locked because a fork is under way.
#[derive(Default)]
struct Locked {
    /// Whose notes are.
    descriptors: Vec<Arc<Descriptor>>,
    sets: Vec<Arc<Set>>,
}

static LOCKED: Mutex<Locked> = Mutex::new(Locked {
    descriptors: Vec::new(),
    sets: Vec::new(),
});

/// The connections of the process.
fn connections() -> Vec<Arc<Descriptor>> {
    let mut all = Vec::new();
    if table::was_used() {
        table::each(|fd, mark| {
            if mark == Mark::Connection
                && let Some(held) = table::get(fd)
            {
                all.push(Arc::clone(held.descriptor()));
            }
        });
    }
    all.sort_by_key(|descriptor| Arc::as_ptr(descriptor).addr());
    all.dedup_by_key(|descriptor| Arc::as_ptr(descriptor).addr());
    all
}

/// Right before a fork: nobody else is in the middle of something.
#[allow(clippy::mem_forget, reason = "unlocked by force, in two processes")]
pub(crate) fn before_fork() {
    let mut locked = LOCKED.lock();
    let descriptors = connections();
    for descriptor in &descriptors {
        MutexGuard::leak(descriptor.notes().lock().lock());
    }
    MutexGuard::leak(notes::early_lock().lock());
    let sets = SETS.write();
    let mut all: Vec<Arc<Set>> = sets.iter().flat_map(|map| map.values().cloned()).collect();
    all.sort_by_key(|set| Arc::as_ptr(set).addr());
    all.dedup_by_key(|set| Arc::as_ptr(set).addr());
    for set in &all {
        MutexGuard::leak(set.lock());
    }
    std::mem::forget(sets);
    *locked = Locked {
        descriptors,
        sets: all,
    };
    MutexGuard::leak(locked);
}

fn unlock() -> Locked {
    // SAFETY: `before_fork` has locked it on this thread and leaked the guard.
    unsafe { LOCKED.force_unlock() };
    let locked = std::mem::take(&mut *LOCKED.lock());
    for set in &locked.sets {
        // SAFETY: as above.
        unsafe { set.state.force_unlock() };
    }
    // SAFETY: as above.
    unsafe { SETS.force_unlock_write() };
    // SAFETY: as above.
    unsafe { notes::early_lock().force_unlock() };
    for descriptor in &locked.descriptors {
        // SAFETY: as above.
        unsafe { descriptor.notes().lock().force_unlock() };
    }
    locked
}

/// Makes a lock free in the child. Those who waited for it in the parent are not here, and to unlock
/// it might hand it over to one of them.
pub(super) fn free<T>(mutex: &Mutex<T>) {
    // SAFETY: the raw lock is only written, see below.
    let raw = core::ptr::from_ref(unsafe { mutex.raw() }).cast_mut();
    // SAFETY: nothing but an atomic, and there is no other thread that could use it.
    unsafe { raw.write(RawMutex::INIT) };
}

fn free_all() -> Locked {
    free(&LOCKED);
    let locked = std::mem::take(&mut *LOCKED.lock());
    for descriptor in &locked.descriptors {
        free(descriptor.notes().lock());
    }
    for set in &locked.sets {
        free(&set.state);
    }
    // SAFETY: the raw lock is only written, see below.
    let raw = core::ptr::from_ref(unsafe { SETS.raw() }).cast_mut();
    // SAFETY: nothing but an atomic, and there is no other thread that could use it.
    unsafe { raw.write(RawRwLock::INIT) };
    free(notes::early_lock());
    locked
}

/// What must not be dropped before the companions' locks are free: a connection that another thread
/// has closed meanwhile has its last share here, and leaves the list of all then.
#[must_use = "to be dropped when the companions are told of the fork"]
pub(crate) struct Shares(#[expect(dead_code, reason = "only kept")] Vec<Arc<Descriptor>>);

/// In the parent, also if the fork has failed.
pub(crate) fn after_fork_in_parent() -> Shares {
    Shares(unlock().descriptors)
}

/// In the child.
pub(crate) fn after_fork_in_child() -> Shares {
    let Locked { descriptors, sets } = free_all();
    for set in sets {
        set.inside.store(0, Ordering::Relaxed);
        set.sleeping.store(0, Ordering::Relaxed);
        set.passing.store(0, Ordering::Relaxed);
        set.resting.store(true, Ordering::Relaxed);
        let mut state = set.lock();
        state.inherited = true;
        state.cared = false;
        state.care = super::care::Care::default();
        // The parent sleeps there; a new one is made when it is needed.
        let own = state.own.take();
        let mut to_look_at = Vec::new();
        for (index, place) in state.members.iter_mut().enumerate() {
            if let Some(member) = &mut place.member {
                member.watched = None;
                to_look_at.extend(u32::try_from(index));
            }
        }
        for index in to_look_at {
            state.put(index);
        }
        drop(state);
        drop(own);
    }
    Shares(descriptors)
}
