//! The registrations of a connection for which the SAN was never sought.
//!
//! Most connections end before that, so their registrations are only noted with the connection, and
//! no set knows of them. When the SAN is about to be sought the notes become members of their sets,
//! once and for all. Invariant: before the SAN is sought, each registration is either a note or
//! somebody's call that has not returned; the lock is held over the kernel's call, and never waited
//! for by who seeks.

use core::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL};
use parking_lot::Mutex;
use wsd_switch::companion::Companion;

use super::control::Call;
use super::member::{Home, Registration};
use super::watch;
use crate::raw::errno;
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
struct Note {
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

    #[cfg(test)]
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
        match (answer, call.operation) {
            (0, EPOLL_CTL_DEL) => list.remove(name, fd),
            (0, operation) => {
                let (events, data) = call.event();
                let note = Note {
                    set: name,
                    fd,
                    events,
                    data,
                };
                if operation == EPOLL_CTL_ADD {
                    list.add(note);
                } else if let Some(known) = list.find(name, fd) {
                    *known = note;
                }
            }
            _ if errno() == libc::ENOENT => list.remove(name, fd),
            _ => {}
        }
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
        let List { first, more } = std::mem::take(&mut *list);
        let mut entered = Vec::new();
        for note in first.into_iter().chain(more) {
            // Of a set that nobody has open any more the kernel has let go.
            let Some(set) = super::named(note.set) else {
                continue;
            };
            let entry = Registration::new(note.fd, note.events, note.data, Home::Kernel);
            if set.lock().enter(&set, companion, entry) {
                entered.push(set);
            }
        }
        self.settled.store(true, Ordering::Release);
        // What follows takes the companion's lock, which a fork holds before it takes this one.
        drop(list);
        for set in entered {
            watch::entered(companion, &set);
        }
        true
    }
}

/// The SAN is about to be sought for a connection.
pub(crate) fn announced(companion: &Companion, fd: RawFd) -> bool {
    let Some(held) = table::get(fd) else {
        return false;
    };
    let descriptor = held.descriptor();
    core::ptr::eq(Arc::as_ptr(descriptor.companion()), companion) && descriptor.wake(fd)
}
