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

    /// Those of one number.
    fn take_of(&mut self, fd: RawFd) -> Vec<Note> {
        let all = self.first.iter().chain(&self.more);
        let own: Vec<Note> = all.filter(|note| note.fd == fd).copied().collect();
        self.forget(fd);
        own
    }

    fn forget(&mut self, fd: RawFd) {
        self.first = self.first.filter(|note| note.fd != fd);
        self.more.retain(|note| note.fd != fd);
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

/// The registrations of a socket that is connected from now on, or is a new one. Listeners have some, too,
/// and every connection that they accept asks here: so the others are only looked at.
pub(crate) fn take_early(fd: RawFd) -> Vec<Note> {
    // SeqCst: against the look at the connection in `control_early`.
    if EARLY_COUNT.load(Ordering::SeqCst) == 0 {
        return Vec::new();
    }
    let mut list = EARLY.lock();
    let own = list.take_of(fd);
    EARLY_COUNT.store(list.len(), Ordering::SeqCst);
    own
}

/// The socket is no more. A handler of a signal may close it, and have interrupted somebody in here: then
/// they stay until the number is another socket's. Nothing is allocated.
pub(crate) fn forget_early(fd: RawFd) {
    if EARLY_COUNT.load(Ordering::SeqCst) == 0 {
        return;
    }
    if let Some(mut list) = EARLY.try_lock() {
        list.forget(fd);
        EARLY_COUNT.store(list.len(), Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};

    use wsd_switch::companion::Role;

    use super::*;
    use crate::table::Descriptor;

    #[test]
    fn a_socket_is_not_registered_where_the_one_before_it_under_its_number_was() {
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let numbers = sockets.each_ref().map(AsRawFd::as_raw_fd);
        let [replaced, closed, other] = numbers;
        let stream = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        let set = super::super::sys::new_set().unwrap();
        for fd in numbers {
            table::set_stream(fd);
            let mut event = libc::epoll_event { events: 1, u64: 5 };
            let added = super::super::control_early(set, EPOLL_CTL_ADD, fd, &raw mut event);
            assert_eq!(added, 0);
        }
        // As dup2() does it, which closes what was there.
        let companion = Companion::new(stream.as_fd(), Role::Connected).unwrap();
        let connection = Descriptor::new(companion, stream.as_raw_fd());
        assert!(table::insert(replaced, connection).is_none());
        drop(table::take(replaced));
        // As a handler of a signal does it.
        let interrupted = EARLY.lock();
        drop(table::take(closed));
        drop(interrupted);
        for (fd, left) in [(replaced, 0), (closed, 0), (other, 1)] {
            if fd != other {
                table::set_stream(fd);
            }
            assert_eq!(take_early(fd).len(), left);
        }
        drop(numbers.map(table::take));
        super::super::sys::close(set);
    }
}
