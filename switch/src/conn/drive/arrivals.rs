//! What arrives: messages, the outcome of sends and RDMAs, the end, and time.
//!
//! Invariants: a look takes one message at the most; its receive is posted again before its bytes are
//! delivered; of the provider's failures the session hears behind what the peer has said before.

use wsd_proto::{Incoming, Queue, RdmaFailed};

use super::State;
use crate::conn::fetch::Target;
use crate::conn::inbox::WORTH_KEEPING;
use crate::conn::pool::Head;
use crate::socket::SanSocket;

impl State {
    /// Looks once for anything new; `true` if there was. Takes at most one message, whose first
    /// bytes go straight to the target where that is their place.
    #[inline]
    pub(in crate::conn) fn poll(
        &mut self,
        socket: &SanSocket,
        target: Option<&mut Target<'_>>,
    ) -> bool {
        if self.closed {
            return false;
        }
        let mut new = false;
        if self.wants_reaping() {
            for _ in 0..self.pool.reap(socket) {
                self.session.handle_sent();
                new = true;
            }
        }
        match self.pool.head(socket) {
            Head::Message(len) => {
                self.take_message(socket, len, target);
                new = true;
            }
            Head::Nothing if !self.broken => {}
            Head::Nothing => new |= self.lose(),
            Head::Ended(error) => {
                tracing::debug!(%error, "the connection ended");
                new |= self.lose();
            }
        }
        if self.transfers.is_flying() {
            new |= self.land(socket);
        }
        if !self.failed.is_empty() {
            self.tell_failed(socket);
            new = true;
        }
        if new {
            self.drain(socket, None);
            self.activity = true;
            self.happened += 1;
        }
        new
    }

    /// Whether the session needs to know of sends that are over: before it runs out of buffers, and
    /// at the end, when it waits for the last one.
    #[inline]
    fn wants_reaping(&self) -> bool {
        self.pool.is_sending()
            && (self.pool.is_worth_reaping() || self.session.send_open().is_err())
    }

    /// Frees the buffers of sends that are over. Providers mostly have them over at once, but say so
    /// only when asked.
    #[inline]
    pub(in crate::conn) fn reap(&mut self, socket: &SanSocket) {
        if !self.closed && self.wants_reaping() {
            self.reap_all(socket);
        }
    }

    /// Frees them whether or not anybody needs them.
    pub(in crate::conn) fn reap_all(&mut self, socket: &SanSocket) {
        let was_short = self.pool.is_exhausted();
        for _ in 0..self.pool.reap(socket) {
            self.session.handle_sent();
        }
        if was_short {
            self.drain(socket, None);
        }
    }

    #[inline]
    fn take_message(&mut self, socket: &SanSocket, len: usize, target: Option<&mut Target<'_>>) {
        let now = self.clock.coarse();
        let message = self.pool.message(len);
        let mut delivered = 0;
        let mut urgent = 0;
        let mut kept = None;
        self.meter.trace(false, message, || len);
        let taken = self.session.handle_message(now, message);
        self.meter.received(&self.session);
        match taken {
            Ok(Incoming::Data {
                queue,
                range,
                is_head,
            }) => {
                let bytes = message.get(range.clone()).unwrap_or_default();
                // req: SEED-04 small data comes inside the control message
                if is_head && let Some(target) = target {
                    delivered = target.put(bytes);
                }
                let rest = bytes.get(delivered..).unwrap_or_default();
                match queue {
                    _ if rest.is_empty() => {}
                    Queue::Fill => self.fill.push(rest),
                    Queue::Main if rest.len() < WORTH_KEEPING => self.main.push(rest),
                    // It is copied but once, by who reads it.
                    Queue::Main => kept = Some(range.start + delivered..range.end),
                }
            }
            Ok(Incoming::Urgent { range, mark }) => {
                urgent = self
                    .urgent
                    .arrived(mark, message.get(range).unwrap_or_default());
            }
            Ok(Incoming::Returned { range }) => {
                let bytes = message.get(range).unwrap_or_default();
                self.given_back.extend_from_slice(bytes);
            }
            Ok(Incoming::Control | Incoming::Discarded) => {}
            Err(error) => tracing::warn!(%error, "the peer broke the session protocol"),
        }
        if let Some(range) = kept {
            match self.pool.keep_received() {
                Some(buffer) => self.main.keep(buffer, range),
                None => self
                    .main
                    .push(self.pool.message(len).get(range).unwrap_or_default()),
            }
        }
        // req: SEED-03 WSD-19 consumed at once and posted again, before anything is delivered
        self.pool.repost(socket);
        self.session.handle_reposted();
        if delivered > 0 {
            self.session
                .consumed(u64::try_from(delivered).unwrap_or(u64::MAX));
        }
        if urgent > 0 {
            self.session.urgent_consumed(urgent);
        }
    }

    /// Tells the session of RDMAs that failed. The end of a connection makes them fail, too: what
    /// the peer has said before, and that it has ended, comes first, or a reset would be taken for
    /// a fault.
    fn tell_failed(&mut self, socket: &SanSocket) {
        match self.pool.head(socket) {
            // The next look takes it.
            Head::Message(_) => return,
            Head::Ended(_) => {
                self.lose();
            }
            Head::Nothing => {}
        }
        for rdma in std::mem::take(&mut self.failed) {
            self.session.handle_rdma_done(rdma, Err(RdmaFailed));
        }
    }

    /// The provider has lost the connection.
    fn lose(&mut self) -> bool {
        if self.session.is_disconnected() {
            return false;
        }
        let now = self.clock.refresh();
        self.session.handle_disconnected(now);
        true
    }

    /// The provider does not do what it must: whatever has arrived is still taken.
    pub(in crate::conn) fn give_up(&mut self, socket: &SanSocket) {
        self.broken = true;
        self.poll(socket, None);
    }

    fn land(&mut self, socket: &SanSocket) -> bool {
        let mut new = false;
        while let Some((rdma, result)) = self.transfers.landed(socket) {
            new = true;
            match result {
                Ok(()) => self.session.handle_rdma_done(rdma, Ok(())),
                Err(error) => {
                    tracing::debug!(%error, "an RDMA failed");
                    self.failed.push(rdma);
                }
            }
        }
        new
    }

    /// Lets the session see the time. `true` if it was waiting for it.
    pub(in crate::conn) fn tick(&mut self, socket: &SanSocket) -> bool {
        let now = self.clock.refresh();
        if self.session.poll_timeout().is_none_or(|due| due > now) {
            return false;
        }
        self.session.handle_timeout(now);
        self.drain(socket, None);
        self.activity = true;
        self.happened += 1;
        true
    }
}
