//! The first message of a connection, which may arrive before anybody has posted a receive.
//!
//! Owns a receive of the connection's own, posted before the peer can send, and its buffer. What
//! comes in there is the first message; it belongs to the first receive of the engine, which is
//! therefore not handed to the device but kept beside it. Invariant: the device sees the receives from
//! the second one on, in order, so each message finds the receive that it would have found.
//!
//! Everything here is under the lock of the receive queue.

use std::sync::Arc;

use super::memory::Sges;
use super::sys::{Conn, Mr, Rights, Sge};
use crate::fabric::regcache::Domain;

#[derive(Debug, Default)]
enum State {
    /// Nothing is kept: the device has the receives as they come.
    #[default]
    Over,
    /// Neither the message nor a receive for it is there.
    Waiting,
    /// The engine's first receive waits for the message.
    Claimed(Sges),
    /// The message, so long, waits for the engine's first receive.
    Arrived(usize),
}

#[derive(Debug)]
pub(super) struct Buffer {
    // Dropped first: the registration ends before its memory goes.
    _mr: Mr,
    bytes: Box<[u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Early {
    state: State,
    buffer: Option<Buffer>,
}

/// What becomes of the engine's receive.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is one for the device.
    Device,
    /// It waits here for the message.
    Kept,
    /// The message was here, so long, and fits.
    Filled(usize),
    /// The message was here, and is longer than the receive.
    TooLong,
}

impl Early {
    /// Makes the buffer; the receive on it is posted by the caller.
    pub(super) fn new(
        conn: &Arc<Conn>,
        domain: &Domain<Mr>,
        len: usize,
    ) -> std::io::Result<(Self, Sge)> {
        let mut bytes = vec![0; len].into_boxed_slice();
        let rights = Rights {
            local_write: true,
            ..Rights::default()
        };
        let base = bytes.as_mut_ptr().expose_provenance();
        // SAFETY: the buffer is given up after the registration, and looked at only when the device
        // has said that it is through with it.
        let mr = domain.make_own(|| unsafe { Mr::register(conn, base, len, rights) })?;
        let sge = mr.part(0, len).ok_or(std::io::ErrorKind::InvalidInput)?;
        let early = Self {
            state: State::Waiting,
            buffer: Some(Buffer { _mr: mr, bytes }),
        };
        Ok((early, sge))
    }

    /// Whether the first message waits to be fetched.
    pub(super) fn has_message(&self) -> bool {
        matches!(self.state, State::Arrived(_))
    }

    /// A receive of the engine.
    // req: WSD-09
    #[inline]
    pub(super) fn claim(&mut self, pieces: &Sges, room: usize) -> Claim {
        match self.state {
            State::Over => Claim::Device,
            _ => self.claim_first(pieces, room),
        }
    }

    #[cold]
    fn claim_first(&mut self, pieces: &Sges, room: usize) -> Claim {
        match std::mem::take(&mut self.state) {
            State::Over => Claim::Device,
            State::Waiting => {
                self.state = State::Claimed(pieces.clone());
                Claim::Kept
            }
            // Only the first is kept.
            claimed @ State::Claimed(_) => {
                self.state = claimed;
                Claim::Device
            }
            State::Arrived(len) if len > room => Claim::TooLong,
            State::Arrived(len) => {
                self.fill(pieces, len);
                Claim::Filled(len)
            }
        }
    }

    /// The message has arrived. False: it is longer than the receive that waits for it.
    pub(super) fn arrived(&mut self, len: usize, room: usize) -> bool {
        match std::mem::take(&mut self.state) {
            State::Claimed(_) if len > room => return false,
            State::Claimed(pieces) => self.fill(&pieces, len),
            State::Waiting => self.state = State::Arrived(len),
            State::Over | State::Arrived(_) => {}
        }
        true
    }

    /// No message comes any more.
    pub(super) fn end(&mut self) {
        if !self.has_message() {
            self.state = State::Over;
        }
    }

    /// The buffer, if it has had its use; to be dropped outside the lock.
    pub(super) fn give_up(&mut self) -> Option<Buffer> {
        self.buffer.take_if(|_| matches!(self.state, State::Over))
    }

    /// The buffer, for as long as a message may come into it without an endpoint.
    pub(super) fn keep(&mut self) -> Option<Buffer> {
        self.buffer.take()
    }

    fn fill(&self, pieces: &Sges, len: usize) {
        let Some(buffer) = &self.buffer else { return };
        let mut rest = buffer.bytes.get(..len).unwrap_or_default();
        for piece in pieces {
            let (part, behind) = rest.split_at(rest.len().min(piece.len() as usize));
            piece.fill(part);
            rest = behind;
        }
    }
}
