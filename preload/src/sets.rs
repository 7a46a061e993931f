//! The program's poll sets, as far as connections are in them.
//!
//! The program's epoll descriptor is the kernel's own set. Of each we remember which connections are
//! registered there. A connection that the kernel carries is registered with its TCP socket, by the
//! program's own call. When the SAN carries it, the kernel's set has a stand-in instead, the
//! companion's *shadow*, with the program's own events and data; or, as long as the program waits
//! for the set by calls that come to us, nothing at all, and we put its events among those that the
//! kernel gives (*direct*).
//!
//! * this file: the sets of the process by number, and the set as a whole;
//! * `member`: one connection in one set, where it is registered, and moving it;
//! * `notes`: connections for which the SAN was never sought, and sockets that are none yet: where
//!   they are is noted, and no more;
//! * `control`: epoll_ctl(); `wait`, `spin`: epoll_wait(); `watch`: what companions tell;
//! * `fork`: two processes with one set;
//! * `hash`: maps by numbers; `care`: the service thread's part, for sets whose waiters we do not see; `sys`: the kernel.
//!
//! Locks: a set's state, then nothing but the companion's list of sets (never held together with
//! another state). No companion is called under a set's lock: it may call back.

mod care;
mod control;
mod fork;
mod hash;
mod member;
mod notes;
mod spin;
pub(crate) mod sys;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};

pub(crate) use control::{control, control_early};
pub(crate) use fork::{after_fork_in_child, after_fork_in_parent, before_fork};
pub(crate) use notes::{Note, Notes, announced, forget_early, take_early};
pub(crate) use spin::{SPUN, Spin};
pub(crate) use wait::{Wait, wait};
pub(crate) use watch::tell_others;

use crate::{guard, log};
use hash::Map;
use member::{Cookie, Home, Member};

/// A poll set of the program.
pub(crate) struct Set {
    me: Weak<Set>,
    /// Names it in this process: no other set ever has it.
    name: usize,
    /// Connections that are registered.
    members: AtomicUsize,
    /// Registrations that the kernel's set does not have with the TCP socket.
    moved: AtomicUsize,
    /// Times that a registration has changed its place.
    moves: AtomicU64,
    /// Looks of those who wait.
    turns: AtomicU64,
    /// The last wait had no room for what the kernel's set may have.
    kernel_next: AtomicBool,
    /// Threads of the program that are in a wait of ours.
    inside: AtomicU32,
    /// Threads that sleep, or are about to, on `Own::outer`.
    sleeping: AtomicU32,
    /// Threads of the program that wait in the kernel for its own set.
    passing: AtomicU32,
    /// Waits of ours that have begun.
    waits: AtomicU64,
    /// Calls of epoll_ctl() that were answered here.
    checks: AtomicU32,
    /// The service thread does not look after the set until it is told to.
    resting: AtomicBool,
    /// Whether waiting without sleeping pays.
    spin: Spin,
    state: Mutex<State>,
}

/// What is known of a set.
struct State {
    /// The program's numbers for it.
    numbers: Vec<RawFd>,
    /// Nobody uses it any more.
    closed: bool,
    /// It came from the parent process, which may use it, too.
    inherited: bool,
    /// Somebody waits, or may wait, by ways that we do not see.
    invisible: bool,
    /// Events of connections come from us, not from shadows.
    direct: bool,
    /// The service thread knows the set.
    cared: bool,
    care: care::Care,
    own: Option<Own>,
    members: Vec<Place>,
    free: Vec<u32>,
    /// The member of each companion.
    by_key: Map<usize, u32>,
    /// The member that was last registered with this data.
    by_data: Map<u64, u32>,
    /// Members to be looked at.
    ready: VecDeque<Cookie>,
    /// Members that may have no registration any more.
    idle: Vec<Cookie>,
    /// Members of which nothing to sleep on tells everything, for a moment.
    transit: Vec<Cookie>,
}

/// Where a member is kept.
struct Place {
    generation: u32,
    member: Option<Member>,
}

/// Descriptors of our own for one set; made when the first connection in it leaves the kernel.
struct Own {
    /// The program's set under a number that nobody else closes.
    set: RawFd,
    /// Our own set: has the program's one in it, and what the providers gave to sleep on.
    outer: RawFd,
    /// In `outer`: wakes those who sleep there.
    kick: RawFd,
}

impl Own {
    fn new(set: RawFd) -> Option<Own> {
        let set = sys::duplicate(set)?;
        let outer = sys::new_set();
        let kick = sys::new_event();
        if let (Some(outer), Some(kick)) = (outer, kick) {
            let own = Own { set, outer, kick };
            let input = libc::EPOLLIN as u32;
            let whole = sys::control(outer, libc::EPOLL_CTL_ADD, set, input, Cookie::SET.0)
                .and_then(|()| {
                    sys::control(outer, libc::EPOLL_CTL_ADD, kick, input, Cookie::KICK.0)
                });
            return whole.is_ok().then_some(own);
        }
        for fd in [Some(set), outer, kick].into_iter().flatten() {
            sys::close(fd);
        }
        None
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        sys::close(self.outer);
        sys::close(self.kick);
        sys::close(self.set);
    }
}

impl Set {
    fn new() -> Arc<Set> {
        // 0 is nobody's.
        static NAMES: AtomicUsize = AtomicUsize::new(1);
        Arc::new_cyclic(|me| Set {
            me: me.clone(),
            name: NAMES.fetch_add(1, Ordering::Relaxed),
            members: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
            moves: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            kernel_next: AtomicBool::new(false),
            inside: AtomicU32::new(0),
            sleeping: AtomicU32::new(0),
            passing: AtomicU32::new(0),
            waits: AtomicU64::new(0),
            checks: AtomicU32::new(0),
            resting: AtomicBool::new(true),
            spin: Spin::new(),
            state: Mutex::new(State {
                numbers: Vec::new(),
                closed: false,
                inherited: false,
                invisible: false,
                direct: false,
                cared: false,
                care: care::Care::default(),
                own: None,
                members: Vec::new(),
                free: Vec::new(),
                by_key: Map::default(),
                by_data: Map::default(),
                ready: VecDeque::new(),
                idle: Vec::new(),
                transit: Vec::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Wakes those who sleep, if anybody does. Under the lock, after something was put on `ready`.
    fn kick(&self, state: &State) {
        if let Some(own) = &state.own
            && (self.sleeping.load(Ordering::Relaxed) > 0 || state.care.watching)
        {
            sys::raise(own.kick);
        }
    }

    /// Has a member looked at by the next who waits.
    fn queue(&self, state: &mut State, index: u32) {
        if state.put(index) {
            self.kick(state);
        }
    }
}

impl State {
    /// Puts a member on `ready`; false if it was there.
    fn put(&mut self, index: u32) -> bool {
        let Some(place) = self.members.get_mut(index as usize) else {
            return false;
        };
        let Some(member) = &mut place.member else {
            return false;
        };
        member.quiet = false;
        if member.queued {
            return false;
        }
        member.queued = true;
        self.ready.push_back(Cookie::new(index, place.generation));
        true
    }

    fn member(&mut self, index: u32) -> Option<&mut Member> {
        self.members.get_mut(index as usize)?.member.as_mut()
    }

    /// The member that a cookie names, unless it has gone.
    fn named(&mut self, cookie: Cookie) -> Option<(u32, &mut Member)> {
        let (index, generation) = cookie.parts();
        let place = self.members.get_mut(index as usize)?;
        if place.generation != generation {
            return None;
        }
        place.member.as_mut().map(|member| (index, member))
    }

    fn cookie(&self, index: u32) -> Option<Cookie> {
        let place = self.members.get(index as usize)?;
        Some(Cookie::new(index, place.generation))
    }

    /// The member of this companion.
    fn index_of(&self, key: usize) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    fn insert(&mut self, set: &Set, member: Member) -> Option<u32> {
        let key = member.key;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.members.len()).ok()?;
                self.members.push(Place {
                    generation: 0,
                    member: None,
                });
                index
            }
        };
        self.members.get_mut(index as usize)?.member = Some(member);
        self.by_key.insert(key, index);
        set.members.fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    fn remove(&mut self, set: &Set, index: u32) -> Option<Member> {
        let place = self.members.get_mut(index as usize)?;
        let member = place.member.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        self.by_key.remove(&member.key);
        for registration in &member.registrations {
            self.forget_data(registration.data, index);
            if registration.home != Home::Kernel {
                set.moved.fetch_sub(1, Ordering::Relaxed);
            }
        }
        set.members.fetch_sub(1, Ordering::Relaxed);
        Some(member)
    }

    fn forget_data(&mut self, data: u64, index: u32) {
        if self.by_data.get(&data) == Some(&index) {
            self.by_data.remove(&data);
        }
    }
}

/// The sets of the process, by the program's numbers.
static SETS: RwLock<Option<Map<RawFd, Arc<Set>>>> = RwLock::new(None);
/// How many numbers there are: nobody takes the lock in a process without sets.
static NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// The set of this number.
#[inline]
pub(crate) fn get(fd: RawFd) -> Option<Arc<Set>> {
    if NUMBERS.load(Ordering::Relaxed) == 0 {
        return None;
    }
    SETS.read().as_ref()?.get(&fd).cloned()
}

/// The set of this name, if any number still stands for it.
fn named(name: usize) -> Option<Arc<Set>> {
    let sets = SETS.read();
    let found = sets.as_ref()?.values().find(|set| set.name == name);
    found.cloned()
}

/// The set of this number, made if nothing is known of it.
fn get_or_new(fd: RawFd) -> Arc<Set> {
    get(fd).unwrap_or_else(|| {
        let set = Set::new();
        name(fd, &set);
        set
    })
}

/// Enters a number for a set.
fn name(fd: RawFd, set: &Arc<Set>) {
    // What the number was before goes with this.
    crate::table::set_poll_set(fd, set.name);
    set.lock().numbers.push(fd);
    let mut sets = SETS.write();
    let sets = sets.get_or_insert_with(Map::default);
    sets.insert(fd, Arc::clone(set));
    NUMBERS.store(sets.len(), Ordering::Relaxed);
}

/// A number does not stand for this set any more.
fn left(fd: RawFd, set: &Arc<Set>) {
    let mut state = set.lock();
    state.numbers.retain(|number| *number != fd);
    if !state.numbers.is_empty() {
        return;
    }
    state.closed = true;
    let own = state.own.take();
    let members = std::mem::take(&mut state.members);
    state.by_key.clear();
    state.by_data.clear();
    state.ready.clear();
    state.idle.clear();
    state.free.clear();
    set.moved.store(0, Ordering::Relaxed);
    set.members.store(0, Ordering::Relaxed);
    drop(state);
    drop(own);
    for member in members.into_iter().filter_map(|place| place.member) {
        watch::left(&member, set);
        member.close_shadows();
    }
}

/// The program has a new set under this number.
pub(crate) fn created(fd: RawFd) {
    if fd >= 0 {
        let _inside = guard::enter();
        name(fd, &Set::new());
    }
}

/// A number that is a set, or was one, is about to be closed or to be given to something else.
pub(crate) fn closed(fd: RawFd) {
    if NUMBERS.load(Ordering::Relaxed) == 0 {
        return;
    }
    let _inside = guard::enter();
    let mut sets = SETS.write();
    let Some(map) = sets.as_mut() else { return };
    let old = map.remove(&fd);
    NUMBERS.store(map.len(), Ordering::Relaxed);
    drop(sets);
    if let Some(old) = old {
        left(fd, &old);
    }
}

/// A number has been duplicated: the new one stands for the same set.
pub(crate) fn duplicated(from: RawFd, to: RawFd) {
    if let Some(set) = get(from) {
        let _inside = guard::enter();
        name(to, &set);
    }
}

/// Somebody waits for this set by a call that does not come to `wait`.
pub(crate) fn show_to_all(fd: RawFd) {
    if let Some(set) = get(fd) {
        set.make_visible();
    }
}
