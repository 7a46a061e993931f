//! Taking bytes out of the stream: from the queues, from temporary memory, and straight from
//! messages into a reader's buffer.
//!
//! Owns nothing; part of the driver. Invariant: the session is told of every byte that was taken.

use wsd_proto::{Queue, Readable};

use super::drive::{State, size};
use super::fifo::copy_into;
use crate::memory::Space;
use crate::socket::SanSocket;

/// Where a reader wants bytes.
pub(super) struct Target<'a> {
    room: &'a mut [u8],
    filled: usize,
}

impl<'a> Target<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Target { room, filled: 0 }
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.room.len()
    }

    pub(super) fn rest(&mut self) -> &mut [u8] {
        self.room.get_mut(self.filled..).unwrap_or_default()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let count = copy_into(self.rest(), bytes);
        self.filled += count;
        count
    }
}

/// Why [`State::fetch`] stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fetched {
    /// The target is full.
    Enough,
    /// Nothing more is here.
    Nothing,
    /// This many bytes are with the peer, for the application's own buffer.
    Remote(u64),
    Eof,
    Failed(wsd_proto::Failure),
}

fn copy_space(space: &Space, offset: u64, len: u64, target: &mut Target<'_>) -> usize {
    let rest = target.rest();
    let most = rest.len().min(size(len));
    let count = space.copy_to(size(offset), rest.get_mut(..most).unwrap_or_default());
    target.filled += count;
    count
}

impl State {
    /// Copies what is there into the target, and takes from the provider what fits. Says why it
    /// stopped.
    #[inline]
    pub(super) fn fetch(&mut self, socket: &SanSocket, target: &mut Target<'_>) -> Fetched {
        let mut changed = false;
        let stopped = loop {
            // As with TCP, a read stops at the mark, and the next one goes on from there.
            if target.is_full() {
                break Fetched::Enough;
            }
            if target.filled > 0 && self.is_at_mark() {
                // Unless the urgent byte gives way to a newer one that is here already.
                if self.poll(socket, None) {
                    continue;
                }
                break Fetched::Enough;
            }
            if !self.urgent.is_empty()
                && let Some(byte) = self.urgent.at(self.session.consumed_offset())
            {
                target.put(&[byte]);
                self.urgent.passed();
                self.session.urgent_consumed(1);
                changed = true;
                continue;
            }
            let count = match self.session.readable() {
                Readable::Bytes { queue, len } => {
                    let most = self.urgent.room_before(self.session.consumed_offset());
                    let count = self.copy_queue(queue, len.min(most), target);
                    match queue {
                        Queue::Main => self.main.consume(count, |read| self.pool.give_back(read)),
                        Queue::Fill => self.fill.consume(count),
                    }
                    count
                }
                Readable::Temp { temp, offset, len } => match self.transfers.temp(temp) {
                    Some(space) => copy_space(space, offset, len, target),
                    None => 0,
                },
                Readable::Remote { len, .. } if self.direct => break Fetched::Remote(len),
                Readable::Remote { .. } | Readable::Nothing => {
                    if self.poll(socket, Some(target)) {
                        continue;
                    }
                    break Fetched::Nothing;
                }
                Readable::Eof => break Fetched::Eof,
                Readable::Failed(failure) => break Fetched::Failed(failure),
            };
            if count == 0 {
                break Fetched::Nothing;
            }
            self.session
                .consumed(u64::try_from(count).unwrap_or(u64::MAX));
            changed = true;
        };
        self.forget_urgent();
        if changed {
            self.drain(socket, None);
        }
        stopped
    }

    /// Gives up an urgent byte apart from the stream that was read past.
    #[inline]
    pub(super) fn forget_urgent(&mut self) {
        if self.urgent.is_empty() {
            return;
        }
        let count = self.urgent.give_up_before(self.session.consumed_offset());
        if count > 0 {
            self.session.urgent_consumed(count);
        }
    }

    /// Whether the next byte is the urgent one, or would be if that were not apart from the stream.
    pub(super) fn is_at_mark(&self) -> bool {
        self.session.at_mark()
            && (!self.urgent.inline || self.urgent.is_last_at(self.session.consumed_offset()))
    }

    /// As [`State::fetch`], but leaves everything where it is.
    pub(super) fn peek(&mut self, socket: &SanSocket, target: &mut Target<'_>) -> Fetched {
        self.set_direct(socket, false);
        loop {
            if let Some(byte) = self.urgent.at(self.session.consumed_offset()) {
                target.put(&[byte]);
                return Fetched::Enough;
            }
            match self.session.readable() {
                Readable::Bytes { queue, len } => {
                    let most = self.urgent.room_before(self.session.consumed_offset());
                    self.copy_queue(queue, len.min(most), target)
                }
                Readable::Temp { temp, offset, len } => match self.transfers.temp(temp) {
                    Some(space) => copy_space(space, offset, len, target),
                    None => 0,
                },
                Readable::Remote { .. } | Readable::Nothing => {
                    if self.poll(socket, None) {
                        continue;
                    }
                    return Fetched::Nothing;
                }
                Readable::Eof => return Fetched::Eof,
                Readable::Failed(failure) => return Fetched::Failed(failure),
            };
            return Fetched::Enough;
        }
    }

    fn copy_queue(&self, queue: Queue, len: u64, target: &mut Target<'_>) -> usize {
        let rest = target.rest();
        let most = rest.len().min(size(len));
        let room = rest.get_mut(..most).unwrap_or_default();
        let count = match queue {
            Queue::Main => self.main.copy(room),
            Queue::Fill => self.fill.copy(0, room),
        };
        target.filled += count;
        count
    }

    /// Nothing of what has arrived is wanted any more.
    pub(super) fn discard(&mut self) {
        self.main.clear(|read| self.pool.give_back(read));
        self.fill.clear();
    }

    /// Whether a read would find something to say.
    pub(super) fn is_readable(&self) -> bool {
        match self.session.readable() {
            Readable::Bytes { .. }
            | Readable::Temp { .. }
            | Readable::Eof
            | Readable::Failed(_) => true,
            Readable::Remote { .. } | Readable::Nothing => {
                self.urgent.at(self.session.consumed_offset()).is_some()
            }
        }
    }
}
