//! What happened to a socket, kept until the switch asks, and the event that tells it to ask.
//!
//! Owns the record and the association with an event object. Invariant: when no call is under way,
//! the event is set if something wanted is recorded; so no wake-up is lost. The event may also be
//! set when nothing is recorded; whoever waits must look.
//!
//! The event is set and reset by upcalls, with no lock held. What keeps them in order is that
//! whoever resets looks at the record once more afterwards, and sets the event again if need be.

use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::error::ConnectFailure;
use super::outlet::{EventObject, Outlet};

/// How long a socket that gives up its event waits for a signal to it that is under way.
const SIGNAL_WAIT: Duration = Duration::from_secs(1);

/// Which events the switch wants to be signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Interest {
    pub(crate) accept: bool,
    pub(crate) connect: bool,
}

/// What happened since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    /// A request waits.
    pub(crate) accept: bool,
    /// The attempt to connect has ended.
    pub(crate) connect: Option<Result<(), ConnectFailure>>,
}

impl Record {
    fn wanted_by(&self, interest: Interest) -> bool {
        self.accept && interest.accept || self.connect.is_some() && interest.connect
    }
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    interest: Interest,
    event: Option<EventObject>,
    /// Threads that are in a set or reset upcall.
    signalling: Vec<ThreadId>,
    silenced: bool,
}

#[derive(Default)]
pub(crate) struct NetworkEvents {
    /// Guards all of it; never held across an upcall.
    state: Mutex<State>,
    /// A thread has left `signalling`.
    quiet: Condvar,
}

impl NetworkEvents {
    /// Notes an event and signals it if it is wanted.
    pub(crate) fn record(&self, outlet: &Outlet, note: impl FnOnce(&mut Record)) {
        note(&mut self.state.lock().record);
        self.signal_if_wanted(outlet);
    }

    /// Sets the event if something wanted is recorded.
    fn signal_if_wanted(&self, outlet: &Outlet) {
        let event = {
            let mut state = self.state.lock();
            let wanted = state.record.wanted_by(state.interest) && !state.silenced;
            let event = state.event.filter(|_| wanted);
            if event.is_some() {
                state.signalling.push(std::thread::current().id());
            }
            event
        };
        if let Some(event) = event {
            if let Some(_socket) = outlet.enter() {
                outlet.switch.set(event);
            }
            self.signalled();
        }
    }

    fn reset(&self, outlet: &Outlet, event: EventObject) {
        self.state
            .lock()
            .signalling
            .push(std::thread::current().id());
        if let Some(_socket) = outlet.enter() {
            outlet.switch.reset(event);
        }
        self.signalled();
    }

    fn signalled(&self) {
        let me = std::thread::current().id();
        let mut state = self.state.lock();
        if let Some(place) = state.signalling.iter().rposition(|&thread| thread == me) {
            state.signalling.swap_remove(place);
        }
        drop(state);
        self.quiet.notify_all();
    }

    /// Replaces the association. What is already recorded is signalled at once. When this returns,
    /// the event that was named before is no longer touched.
    pub(crate) fn select(&self, outlet: &Outlet, event: Option<EventObject>, interest: Interest) {
        {
            let mut state = self.state.lock();
            let replaced = state.event.is_some() && state.event != event;
            state.event = event;
            state.interest = interest;
            if replaced {
                self.await_quiet(state);
            }
        }
        self.signal_if_wanted(outlet);
    }

    /// Takes the record out and resets `event`.
    pub(crate) fn take(&self, outlet: &Outlet, event: Option<EventObject>) -> Record {
        let record = std::mem::take(&mut self.state.lock().record);
        if let Some(event) = event {
            self.reset(outlet, event);
            // What came since was perhaps signalled before the reset.
            self.signal_if_wanted(outlet);
        }
        record
    }

    /// Forgets a recorded request and resets the event. The caller records again what remains.
    pub(crate) fn clear_accept(&self, outlet: &Outlet) {
        let event = {
            let mut state = self.state.lock();
            state.record.accept = false;
            state.event
        };
        if let Some(event) = event {
            self.reset(outlet, event);
            self.signal_if_wanted(outlet);
        }
    }

    /// No event is touched any more when this returns.
    pub(crate) fn silence(&self) {
        let mut state = self.state.lock();
        state.silenced = true;
        state.event = None;
        self.await_quiet(state);
    }

    /// Waits for signals of other threads that are under way, so that the switch may close the
    /// event. The time is bounded: a switch that holds a lock of its own here, which its event
    /// upcall also wants, must not hang.
    fn await_quiet(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let me = std::thread::current().id();
        let until = Instant::now() + SIGNAL_WAIT;
        while state.signalling.iter().any(|&thread| thread != me) {
            if self.quiet.wait_until(&mut state, until).timed_out() {
                tracing::warn!("an event upcall does not return");
                return;
            }
        }
    }
}
