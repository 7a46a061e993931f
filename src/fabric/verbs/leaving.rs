//! What is left of an accepted connection that was closed before its peer knew of it.
//!
//! The connection manager can tell a peer of the end only when the peer has confirmed the answer to
//! its request. Given up before, the connection would end by taking the answer back, and what was
//! accepted would fail at the peer. So the identifier and its queue pair, which is in the error state,
//! stay for a while without their endpoint. Owns them, and for how long. Invariant: the peer is told
//! of the end when it has confirmed, and no later than that the rest goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sys::Conn;

#[derive(Debug)]
pub(super) struct Leaving {
    conn: Arc<Conn>,
    until: Instant,
}

impl Leaving {
    /// No peer waits for an answer longer than that.
    pub(super) fn new(conn: &Arc<Conn>, patience: Duration) -> Self {
        Self {
            conn: Arc::clone(conn),
            until: Instant::now() + patience,
        }
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The peer knows of the connection, or will not any more.
    pub(super) fn hang_up(&self) {
        let (_flushed, told) = self.conn.disconnect();
        if let Err(error) = told {
            tracing::trace!(%error, "the peer was not told");
        }
    }
}
