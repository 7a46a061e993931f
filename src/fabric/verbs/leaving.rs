//! What is left of a connection that was closed before all was said.
//!
//! Two things may be missing. A message that was reported as sent may be on its way still: the queue
//! pair then stays as it was until the device has reported that everything before `last` is there. And
//! the peer of an accepted connection may not know of it: the connection manager can tell a peer of the
//! end only when that has confirmed the answer to its request, and given up before, the connection would
//! end by taking the answer back, and what was accepted would fail at the peer.
//!
//! Owns the identifier and its queue pair without their endpoint, and for how long. Invariant: nothing
//! that the peer sends meanwhile goes to memory of the process's user; the peer is told of the end when
//! it has confirmed and everything is there, and no later than that the rest goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::early::Buffer;
use super::queue::Queue;
use super::sys::{Conn, Finished, Status};

/// How often the device is asked.
const STEP: Duration = Duration::from_millis(2);

/// Messages that may not have arrived.
#[derive(Debug)]
pub(super) struct Undelivered {
    /// The last entry of the send queue, which the device reports.
    pub(super) last: u64,
    pub(super) until: Instant,
    /// Where a first message of the peer may still come in.
    pub(super) _kept: Option<Buffer>,
}

#[derive(Debug)]
pub(super) struct Leaving {
    undelivered: Mutex<Option<Undelivered>>,
    unconfirmed: AtomicBool,
    until: Instant,
    conn: Arc<Conn>,
}

impl Leaving {
    /// No peer waits for an answer longer than `patience`.
    pub(super) fn new(
        conn: &Arc<Conn>,
        undelivered: Option<Undelivered>,
        unconfirmed: bool,
        patience: Duration,
    ) -> Self {
        let answered = unconfirmed.then(|| Instant::now() + patience);
        let delivered = undelivered.as_ref().map(|rest| rest.until);
        Self {
            undelivered: Mutex::new(undelivered),
            unconfirmed: AtomicBool::new(unconfirmed),
            until: answered.max(delivered).unwrap_or_else(Instant::now),
            conn: Arc::clone(conn),
        }
    }

    /// When it is to be looked at next; None when it may go.
    pub(super) fn advance(&self, now: Instant) -> Option<Instant> {
        let mut undelivered = self.undelivered.lock();
        if let Some(rest) = &*undelivered {
            if now < rest.until && !is_over(&self.conn, rest.last) {
                return Some(now + STEP);
            }
            self.hang_up();
            *undelivered = None;
        }
        drop(undelivered);
        let waits = self.unconfirmed.load(Ordering::SeqCst) && now < self.until;
        waits.then_some(self.until)
    }

    /// The peer has confirmed. True: that was all that was missing, and it was told of the end.
    pub(super) fn confirmed(&self) -> bool {
        self.unconfirmed.store(false, Ordering::SeqCst);
        if self.undelivered.lock().is_some() {
            return false;
        }
        self.hang_up();
        true
    }

    /// Flushes the queue pair, and tells the peer if it knows of the connection.
    pub(super) fn hang_up(&self) {
        let (_flushed, told) = self.conn.disconnect();
        if let Err(error) = told {
            tracing::trace!(%error, "the peer was not told");
        }
    }
}

/// Whether the device has reported `last`, or that it cannot deliver.
fn is_over(conn: &Conn, last: u64) -> bool {
    let mut found = Vec::new();
    conn.poll(&mut found);
    let of_sends = |one: &&Finished| !Queue::is_receive(one.number);
    found
        .iter()
        .filter(of_sends)
        .any(|one| one.number >= last || one.status != Status::Done)
}
