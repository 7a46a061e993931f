//! The descriptors an application polls: readable while a call is worth repeating.
//!
//! Owns for each of them a poll set of two members, the provider's descriptor, armed while nothing
//! is there, and an event that is set while something is. Invariant: at the end of every call and
//! of every step of the service thread, for each descriptor that was made either its event is set
//! or the provider is armed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Connection;
use super::drive::State;
use super::wait::Armed;
use crate::sys::{Event, PollSet};

/// What a descriptor tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// A read, or a write that found no room.
    Either,
    Read,
    Write,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Either, Direction::Read, Direction::Write];
}

/// Those that were made, each at its first use.
#[derive(Default)]
pub(super) struct Descriptors {
    any: AtomicBool,
    either: OnceLock<Readiness>,
    read: OnceLock<Readiness>,
    write: OnceLock<Readiness>,
}

impl Descriptors {
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        // Relaxed: set under the connection's lock, under which this is asked.
        self.any.load(Ordering::Relaxed)
    }

    fn of(&self, direction: Direction) -> &OnceLock<Readiness> {
        match direction {
            Direction::Either => &self.either,
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }
}

struct Readiness {
    set: PollSet,
    event: Event,
    /// Whether the event is set. Changed under the connection's lock.
    raised: AtomicBool,
}

impl Readiness {
    fn raise(&self, on: bool) {
        // Relaxed: under the connection's lock.
        if self.raised.swap(on, Ordering::Relaxed) != on {
            if on {
                self.event.set()
            } else {
                self.event.reset()
            }
        }
    }
}

impl Connection {
    /// The descriptor to poll, made at the first use.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match self.descriptor_for(Direction::Either) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                tracing::warn!(%error, "no descriptor to poll");
                self.sleeping_on().unwrap_or_else(|| self.always.as_fd())
            }
        }
    }

    /// The descriptor for one direction, made at the first use.
    pub(crate) fn descriptor_for(&self, direction: Direction) -> io::Result<BorrowedFd<'_>> {
        let place = self.descriptors.of(direction);
        if let Some(readiness) = place.get() {
            return Ok(readiness.set.as_fd());
        }
        let mut state = self.lock();
        if place.get().is_none() {
            let (set, event) = (PollSet::new()?, Event::new()?);
            set.add(event.as_fd())?;
            // The provider tells its descriptor when it is armed.
            loop {
                match self.arm(&mut state) {
                    Armed::Descriptor(descriptor) => break set.add(descriptor)?,
                    Armed::News => {}
                    Armed::Closed => break,
                }
            }
            let made = Readiness {
                set,
                event,
                raised: AtomicBool::new(false),
            };
            drop(place.set(made));
            self.descriptors.any.store(true, Ordering::Relaxed);
        }
        self.leave(state);
        let readiness = place.get().ok_or(io::ErrorKind::Other)?;
        Ok(readiness.set.as_fd())
    }

    /// Makes the descriptors say what is true now.
    pub(super) fn show(&self, state: &mut State) {
        loop {
            let mut all_ready = true;
            for direction in Direction::ALL {
                if let Some(readiness) = self.descriptors.of(direction).get() {
                    let ready = state.is_worth_a_call(direction);
                    readiness.raise(ready);
                    all_ready &= ready;
                }
            }
            if all_ready {
                return;
            }
            match self.arm(state) {
                Armed::Descriptor(_) => return,
                Armed::News | Armed::Closed => {}
            }
        }
    }
}

impl State {
    fn is_worth_a_call(&self, direction: Direction) -> bool {
        self.closed
            || match direction {
                Direction::Either => {
                    self.is_readable()
                        || self.is_announced()
                        || (self.write_wanted > 0 && self.has_room(self.write_wanted))
                }
                Direction::Read => self.is_readable() || self.is_announced(),
                Direction::Write => self.is_writable(),
            }
    }
}

/// A descriptor that is always readable: who polls it calls again at once. One for the process,
/// made before the first connection, for the case that no other can be made.
pub(super) fn always() -> io::Result<&'static Event> {
    static ALWAYS: OnceLock<Event> = OnceLock::new();
    if let Some(event) = ALWAYS.get() {
        return Ok(event);
    }
    let event = Event::new()?;
    event.set();
    Ok(ALWAYS.get_or_init(|| event))
}
