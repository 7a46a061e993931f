//! How a thread waits for several connections at once.
//!
//! Owns one place among the sleepers of each connection, all with the same event. The rules of
//! `wait` hold: the thread leads where nobody else does, and looks again after it has armed.
//! Invariant: the event is reset only before all connections are looked at, never in between, so
//! that what one of them tells is not lost with another's news.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use libc::c_short;
use wsd_proto::Readable;

use super::Connection;
use super::drive::State;
use super::wait::Armed;
use crate::sys::Event;

/// A thread's place among those that wait for a connection.
pub(crate) struct Watching<'a> {
    connection: &'a Connection,
    name: u64,
}

impl Connection {
    /// What is true now, in the bits of poll.
    pub(crate) fn poll_bits(&self) -> c_short {
        let mut state = self.lock();
        while state.poll(&self.socket, None) {}
        let bits = state.poll_bits();
        self.leave(state);
        bits
    }

    /// Begins to wait; the event tells that something may have happened.
    pub(crate) fn watch(&self, event: &Arc<Event>) -> Watching<'_> {
        let name = self.lock().waiters.add(event);
        Watching {
            connection: self,
            name,
        }
    }
}

impl<'a> Watching<'a> {
    /// What is true now, in the bits of poll. If nothing of `wanted` is, the descriptor that becomes
    /// readable when something happens; without one, another thread watches it and will tell.
    pub(crate) fn look(&self, wanted: c_short) -> (c_short, Option<BorrowedFd<'a>>) {
        let connection = self.connection;
        let mut state = connection.lock();
        state.waiters.heard(self.name);
        loop {
            while state.poll(&connection.socket, None) {}
            connection.settle(&mut state, Some(self.name));
            let bits = state.poll_bits();
            if bits & (wanted | libc::POLLERR | libc::POLLHUP) != 0 {
                return (bits, None);
            }
            if !state.waiters.lead(self.name) {
                return (bits, None);
            }
            match connection.arm(&mut state) {
                Armed::Descriptor(descriptor) => return (bits, Some(descriptor)),
                Armed::News => {}
                Armed::Closed => return (bits, None),
            }
        }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.waiters.remove_silently(self.name);
        self.connection.leave(state);
    }
}

impl State {
    /// Whether large data waits for the application's own buffer: it is there for a read that brings
    /// one.
    pub(super) fn is_announced(&self) -> bool {
        self.direct && matches!(self.session.readable(), Readable::Remote { .. })
    }

    /// As the kernel answers for a TCP socket.
    fn poll_bits(&self) -> c_short {
        let mut bits = 0;
        let readable = self.session.readable();
        let has_failed = self.session.failure().is_some() || self.closed;
        let has_ended = has_failed || matches!(readable, Readable::Eof);
        if self.is_readable() || self.is_announced() || has_ended {
            bits |= libc::POLLIN | libc::POLLRDNORM;
        }
        if has_failed || self.is_writable() {
            bits |= libc::POLLOUT | libc::POLLWRNORM;
        }
        if !self.urgent.is_empty() && !self.urgent.inline {
            bits |= libc::POLLPRI;
        }
        if has_ended {
            bits |= libc::POLLRDHUP;
        }
        if has_failed || (has_ended && self.check_sending().is_err()) {
            bits |= libc::POLLHUP;
        }
        if self.session.failure().is_some() && !self.settings.error_taken {
            bits |= libc::POLLERR;
        }
        bits
    }
}
