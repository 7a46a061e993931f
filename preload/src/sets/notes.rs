//! The registrations of a connection for which the SAN was never sought.
//!
//! Most connections end before that, so their registrations are only noted with the connection, and
//! no set knows of them. When the SAN is about to be sought the notes become members of their sets,
//! once and for all. Invariant: before the SAN is sought, each registration is either a note or
//! somebody's call that has not returned; the lock is held over the kernel's call, and never waited
//! for by who seeks.
//!
//! A socket may be registered before it is connected: then it has no connection yet, and what is
//! noted waits under its number for the connection to be made.

use core::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL};
use parking_lot::Mutex;
use wsd_switch::companion::Companion;

use super::control::Call;
use super::member::{Home, Registration, key_of};
use super::{Set, watch};
use crate::raw::{errno, keeping_errno};
use crate::table;

/// Registrations of one connection.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The sets know of them: nothing is noted any more.
    settled: AtomicBool,
    list: Mutex<List>,
}

/// One registration of the program's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// The name of the set.
    set: usize,
    fd: RawFd,
    events: u32,
    data: u64,
}

/// From so many on it is looked whether their sets are still there.
const MANY: usize = 8;

/// Mostly there is one.
#[derive(Debug, Default)]
pub(super) struct List {
    first: Option<Note>,
    more: Vec<Note>,
}

impl List {
    fn find(&mut self, set: usize, fd: RawFd) -> Option<&mut Note> {
        let mut notes = self.first.iter_mut().chain(&mut self.more);
        notes.find(|note| note.set == set && note.fd == fd)
    }

    fn add(&mut self, note: Note) {
        if let Some(known) = self.find(note.set, note.fd) {
            // The kernel has forgotten the one before: its file was another.
            *known = note;
        } else if self.first.is_none() {
            self.first = Some(note);
        } else {
            // Who makes a set for each wait leaves the notes of those before.
            if self.more.len() >= MANY && self.more.len().is_power_of_two() {
                self.more.retain(|note| super::named(note.set).is_some());
            }
            self.more.push(note);
        }
    }

    fn take(&mut self) -> Vec<Note> {
        let List { first, more } = std::mem::take(self);
        first.into_iter().chain(more).collect()
    }

    /// What a call has changed that the kernel has answered with this.
    fn follow(&mut self, call: Call, fd: RawFd, name: usize, answer: c_int) {
        match (answer, call.operation) {
            (0, EPOLL_CTL_DEL) => self.remove(name, fd),
            (0, operation) => {
                let (events, data) = call.event();
                let note = Note {
                    set: name,
                    fd,
                    events,
                    data,
                };
                if operation == EPOLL_CTL_ADD {
                    self.add(note);
                } else if let Some(known) = self.find(name, fd) {
                    *known = note;
                }
            }
            _ if errno() == libc::ENOENT => self.remove(name, fd),
            _ => {}
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first.iter().chain(&self.more).count()
    }

    fn remove(&mut self, set: usize, fd: RawFd) {
        let other = |note: &Note| note.set != set || note.fd != fd;
        self.first = self.first.filter(other);
        self.more.retain(other);
    }
}

impl Notes {
    /// Those that were made before the connection was.
    pub(crate) fn adopt(&self, notes: Vec<Note>, companion: &Arc<Companion>) {
        if notes.is_empty() {
            return;
        }
        let mut list = self.list.lock();
        let entered = if self.settled.load(Ordering::Relaxed) {
            enter(notes, companion)
        } else {
            for note in notes {
                list.add(note);
            }
            Vec::new()
        };
        drop(list);
        for set in entered {
            watch::entered(companion, &set);
            set.settle(companion);
        }
    }

    /// The registrations of a connection that is over, for the one that takes its place.
    pub(crate) fn hand_on(&self, companion: &Arc<Companion>) -> Vec<Note> {
        let mut notes = self.list.lock().take();
        let key = key_of(companion);
        for set in watch::sets_of(companion) {
            let mut state = set.lock();
            let index = state.index_of(key);
            let Some(member) = index.and_then(|index| state.member(index)) else {
                continue;
            };
            let known = member.registrations.iter();
            notes.extend(known.filter(|r| r.home == Home::Kernel).map(|r| Note {
                set: set.name,
                fd: r.fd,
                events: r.events,
                data: r.data,
            }));
        }
        notes
    }

    /// A call of epoll_ctl(), if the connection's registrations are notes; `name` is the set's.
    pub(super) fn control(&self, call: Call, fd: RawFd, name: usize) -> Option<c_int> {
        if self.settled.load(Ordering::Acquire) {
            return None;
        }
        let mut list = self.list.lock();
        // Relaxed: it changes under the lock.
        if self.settled.load(Ordering::Relaxed) {
            return None;
        }
        let answer = call.ask(fd);
        list.follow(call, fd, name, answer);
        Some(answer)
    }

    /// For a fork, which is to find nobody in the middle of something.
    pub(super) fn lock(&self) -> &Mutex<List> {
        &self.list
    }

    /// Has the sets know of them. False: a call is under way.
    pub(crate) fn settle(&self, companion: &Arc<Companion>) -> bool {
        if self.settled.load(Ordering::Acquire) {
            return true;
        }
        let Some(mut list) = self.list.try_lock() else {
            return false;
        };
        let entered = enter(list.take(), companion);
        self.settled.store(true, Ordering::Release);
        // What follows takes the companion's lock, which a fork holds before it takes this one.
        drop(list);
        for set in entered {
            watch::entered(companion, &set);
        }
        true
    }
}

/// Has the sets know of these. Those that did not know the connection.
fn enter(notes: Vec<Note>, companion: &Arc<Companion>) -> Vec<Arc<Set>> {
    let mut entered = Vec::new();
    for note in notes {
        // Of a set that nobody has open any more the kernel has let go.
        let Some(set) = super::named(note.set) else {
            continue;
        };
        let entry = Registration::new(note.fd, note.events, note.data, Home::Kernel);
        if set.lock().enter(&set, companion, entry) {
            entered.push(set);
        }
    }
    entered
}

/// Registrations of sockets that are not connected.
static EARLY: Mutex<List> = Mutex::new(List {
    first: None,
    more: Vec::new(),
});
/// Whether there may be any.
static EARLY_COUNT: AtomicUsize = AtomicUsize::new(0);

/// For a fork.
pub(super) fn early_lock() -> &'static Mutex<List> {
    &EARLY
}

/// A call of epoll_ctl() for a socket that is not connected; `name` is the set's.
pub(super) fn control_early(call: Call, fd: RawFd, name: usize) -> c_int {
    let mut list = EARLY.lock();
    let answer = call.ask(fd);
    list.follow(call, fd, name, answer);
    EARLY_COUNT.store(list.len(), Ordering::SeqCst);
    drop(list);
    // It was connected meanwhile, and whoever did that may have looked too early.
    if let Some(held) = table::get(fd) {
        let descriptor = held.descriptor();
        keeping_errno(|| {
            descriptor
                .notes()
                .adopt(take_early(fd), descriptor.companion());
        });
    }
    answer
}

/// The registrations of a socket that is connected from now on, or is no more.
pub(crate) fn take_early(fd: RawFd) -> Vec<Note> {
    // SeqCst: against the look at the connection in `control_early`.
    if EARLY_COUNT.load(Ordering::SeqCst) == 0 {
        return Vec::new();
    }
    let mut list = EARLY.lock();
    let (own, others): (Vec<_>, Vec<_>) = list.take().into_iter().partition(|note| note.fd == fd);
    for note in others {
        list.add(note);
    }
    EARLY_COUNT.store(list.len(), Ordering::SeqCst);
    own
}

/// The SAN is about to be sought for a connection.
pub(crate) fn announced(companion: &Companion, fd: RawFd) -> bool {
    let Some(held) = table::get(fd) else {
        return false;
    };
    let descriptor = held.descriptor();
    core::ptr::eq(Arc::as_ptr(descriptor.companion()), companion) && descriptor.wake(fd)
}
