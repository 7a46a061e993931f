//! What companions tell those who have them in sets.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use wsd_switch::companion::{Companion, Reason, Watcher};

use super::member::{Member, key_of};
use super::{Set, log};

/// The sets that a connection is in. Hangs on its companion.
#[derive(Default)]
struct Watch {
    sets: Mutex<Vec<Arc<Set>>>,
}

impl Watcher for Watch {
    fn moved(&self, companion: &Arc<Companion>) {
        let sets = self.sets.lock().clone();
        for set in sets {
            set.settle(companion);
        }
    }

    fn used(&self, companion: &Arc<Companion>) {
        let key = key_of(companion);
        let mut unseen = false;
        for set in self.sets.lock().iter() {
            let mut state = set.lock();
            if let Some(index) = state.index_of(key) {
                unseen |= state.care.watching;
                set.queue(&mut state, index);
            }
        }
        if unseen {
            // The next look of the program may be one that we do not see.
            companion.refresh();
        }
    }

    fn due(&self, companion: &Arc<Companion>) {
        let sets = self.sets.lock().clone();
        for set in sets {
            set.lock().tell_edges_again(key_of(companion));
        }
    }

    fn closed(&self, companion: &Arc<Companion>) {
        let key = key_of(companion);
        let sets = std::mem::take(&mut *self.sets.lock());
        for set in sets {
            let mut state = set.lock();
            let Some(index) = state.index_of(key) else {
                continue;
            };
            let Some(member) = state.remove(&set, index) else {
                continue;
            };
            // A set that another process has, too, keeps what that one has in it.
            if let Some(own) = &state.own
                && !state.inherited
            {
                member.take_out(own);
            } else {
                member.close_shadows();
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn watch_of(companion: &Companion) -> Option<&Watch> {
    let watcher = companion.watch(|_| Arc::new(Watch::default()));
    watcher.as_any().downcast_ref()
}

/// The sets that it is in.
pub(super) fn sets_of(companion: &Companion) -> Vec<Arc<Set>> {
    let watch = companion
        .watcher()
        .and_then(|watcher| watcher.as_any().downcast_ref::<Watch>());
    watch.map_or_else(Vec::new, |watch| watch.sets.lock().clone())
}

/// Somebody has taken news: those who wait in other sets are to look, too.
pub(crate) fn tell_others(companion: &Companion, me: Option<&Set>) {
    let Some(watch) = companion
        .watcher()
        .and_then(|watcher| watcher.as_any().downcast_ref::<Watch>())
    else {
        return;
    };
    let key = std::ptr::from_ref(companion).addr();
    for set in watch.sets.lock().iter() {
        if me.is_some_and(|me| std::ptr::eq(Arc::as_ptr(set), me)) {
            continue;
        }
        let mut state = set.lock();
        if let Some(index) = state.index_of(key) {
            set.queue(&mut state, index);
        }
    }
}

/// The companion has got a member in this set.
pub(super) fn entered(companion: &Companion, set: &Arc<Set>) {
    if let Some(watch) = watch_of(companion) {
        let mut sets = watch.sets.lock();
        if !sets.iter().any(|known| Arc::ptr_eq(known, set)) {
            sets.push(Arc::clone(set));
            if sets.len() == 1 {
                drop(sets);
                companion.attended(true);
            }
        }
    }
}

/// The member has gone from this set.
pub(super) fn left(member: &Member, set: &Set) {
    let Some(companion) = member.companion.upgrade() else {
        return;
    };
    if let Some(watch) = watch_of(&companion) {
        let mut sets = watch.sets.lock();
        sets.retain(|known| !std::ptr::eq(Arc::as_ptr(known), set));
        if sets.is_empty() {
            drop(sets);
            companion.attended(false);
        }
    }
}

/// Readiness on the SAN cannot be shown.
pub(super) fn give_up(companion: &Arc<Companion>, fd: RawFd) {
    log::line("no descriptors for a poll set: a connection goes back to the kernel");
    let _asked = companion.downgrade(fd, Reason::NoDescriptors);
}
