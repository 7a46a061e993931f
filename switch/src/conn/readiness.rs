//! The descriptor an application polls: readable while a call is worth repeating.
//!
//! Owns a poll set of two members, the provider's descriptor, armed while nothing is there, and an
//! event that is set while something is. Invariant: at the end of every call and of every step of
//! the service thread, either the event is set or the provider is armed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Connection;
use super::drive::State;
use super::wait::Armed;
use crate::sys::{Event, PollSet};

pub(super) struct Readiness {
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
        match self.make_descriptor() {
            Ok(descriptor) => descriptor,
            Err(error) => {
                tracing::warn!(%error, "no descriptor to poll");
                self.sleeping_on().unwrap_or_else(|| self.always.as_fd())
            }
        }
    }

    fn make_descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(readiness) = self.readiness.get() {
            return Ok(readiness.set.as_fd());
        }
        let mut state = self.lock();
        if self.readiness.get().is_none() {
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
            drop(self.readiness.set(made));
        }
        self.leave(state);
        let readiness = self.readiness.get().ok_or(io::ErrorKind::Other)?;
        Ok(readiness.set.as_fd())
    }

    /// Makes the descriptor say what is true now.
    pub(super) fn show(&self, state: &mut State, readiness: &Readiness) {
        loop {
            let ready = state.closed
                || state.is_readable()
                || (state.write_wanted > 0 && state.has_room(state.write_wanted));
            readiness.raise(ready);
            if ready {
                return;
            }
            match self.arm(state) {
                Armed::Descriptor(_) => return,
                Armed::News | Armed::Closed => {}
            }
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
