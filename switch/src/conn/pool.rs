//! The control buffers of a connection: half of them posted as receives, the other half to send.
//!
//! Owns the order of the posted receives and which send buffers are free. Knows nothing of what the
//! messages say. A message that is worth it may stay in its buffer until it was read: another one
//! is posted in its place. Invariant: a receive whose message was taken is posted again at once or
//! never.

use std::io;

use crate::error::WsaError;
use crate::lent::{Notice, Outcome, Posted};
use crate::memory::{Closed, ControlArea, ControlBuffer, ControlHalf, Half, Held};
use crate::socket::SanSocket;

/// Messages that may stay in their buffers at a time.
pub(super) const SPARES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    Posted,
    /// Filled already when it was posted.
    Filled(usize),
    /// Not posted: the connection has ended, or the provider takes no more at a time.
    Idle,
}

/// What the oldest receive brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    Nothing,
    /// A message of this length stands in the oldest receive.
    Message(usize),
    /// No message will come any more.
    Ended(WsaError),
}

pub(super) struct Pool {
    half: ControlHalf,
    held: Vec<Held>,
    notice: Notice,
    receives: Vec<(ControlBuffer, Receive)>,
    /// How many of them are in use, from the first: as many as the provider takes.
    in_use: usize,
    /// The oldest receive.
    head: usize,
    /// Buffers to be posted in the place of those that are kept, the one used last at the end.
    spares: Vec<ControlBuffer>,
    sends: Vec<ControlBuffer>,
    free: Vec<usize>,
    /// Buffers whose send has not completed, oldest first. Hardly ever more than a few.
    sending: Vec<usize>,
    /// Why the first send that failed did.
    failed: Option<WsaError>,
    /// If the last messages are to be had again: their buffers are used in turn.
    ring: Option<Ring>,
}

/// The order in which send buffers are used when what they say may have to be said again.
#[derive(Debug, Default)]
struct Ring {
    /// The buffer of the next message, which has the oldest one.
    next: usize,
    /// The length of each buffer's message.
    lengths: Vec<usize>,
    /// A message left its turn, or was lost.
    broken: bool,
}

impl Pool {
    /// Sets the buffers up; nothing is touched or registered yet.
    pub(super) fn new(socket: &SanSocket, size: usize, count: usize) -> io::Result<Pool> {
        let area = ControlArea::new(size, count, count + SPARES)?;
        let (half, sends, mut receives) = area.split(|| socket.op());
        let spares = receives.split_off(count.min(receives.len()));
        Ok(Pool {
            half,
            held: Vec::with_capacity(2),
            notice: socket.notice(),
            receives: receives
                .into_iter()
                .map(|buffer| (buffer, Receive::Idle))
                .collect(),
            in_use: 0,
            head: 0,
            spares,
            free: (0..sends.len()).rev().collect(),
            sending: Vec::with_capacity(sends.len()),
            sends,
            failed: None,
            ring: None,
        })
    }

    /// Registers both halves and posts the receives. Returns how many: fewer than there are
    /// buffers if the provider's queue is shorter.
    // req: SEED-01 SEED-02 WSD-19
    pub(super) fn start(&mut self, socket: &SanSocket) -> Result<usize, WsaError> {
        self.held.push(self.half.register(socket, Half::Receives)?);
        self.held.push(self.half.register(socket, Half::Sends)?);
        for (buffer, state) in &mut self.receives {
            match post(buffer, socket, self.notice) {
                Ok(posted) => *state = posted,
                Err(WsaError(wsdirect::abi::WSAEWOULDBLOCK)) => break,
                Err(error) => return Err(error),
            }
            self.in_use += 1;
        }
        Ok(self.in_use)
    }

    /// Looks whether the oldest receive has a message. This is what makes the provider progress.
    #[inline]
    pub(super) fn head(&mut self, socket: &SanSocket) -> Head {
        let Some((buffer, state)) = self.receives.get_mut(self.head) else {
            return Head::Nothing;
        };
        match *state {
            Receive::Posted => match buffer.result(socket) {
                Outcome::Pending => Head::Nothing,
                Outcome::Done(len) => {
                    *state = Receive::Filled(len);
                    Head::Message(len)
                }
                Outcome::Failed(error) => {
                    *state = Receive::Idle;
                    Head::Ended(error)
                }
            },
            Receive::Filled(len) => Head::Message(len),
            Receive::Idle => Head::Ended(
                self.failed
                    .unwrap_or(WsaError(wsdirect::abi::WSAECONNRESET)),
            ),
        }
    }

    /// The message in the oldest receive.
    #[inline]
    pub(super) fn message(&self, len: usize) -> &[u8] {
        let buffer = self
            .receives
            .get(self.head)
            .map_or(&[][..], |(buffer, _)| buffer.bytes());
        buffer.get(..len).unwrap_or_default()
    }

    /// Takes the buffer with the message out of the oldest receive and puts another one there.
    /// `None` if there is none.
    pub(super) fn keep_received(&mut self) -> Option<ControlBuffer> {
        let (buffer, _) = self.receives.get_mut(self.head)?;
        Some(std::mem::replace(buffer, self.spares.pop()?))
    }

    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.spares.len()
    }

    /// What stands in this buffer was read.
    pub(super) fn give_back(&mut self, buffer: ControlBuffer) {
        self.spares.push(buffer);
    }

    /// Posts the oldest receive again, as the newest. req: SEED-03 WSD-19
    #[inline]
    pub(super) fn repost(&mut self, socket: &SanSocket) {
        let count = self.in_use;
        if let Some((buffer, state)) = self.receives.get_mut(self.head) {
            *state = match post(buffer, socket, self.notice) {
                Ok(state) => state,
                Err(error) => {
                    self.failed.get_or_insert(error);
                    Receive::Idle
                }
            };
        }
        self.head = if self.head + 1 == count {
            0
        } else {
            self.head + 1
        };
    }

    /// From now on the last messages, as many as there are send buffers, can be had again.
    pub(super) fn keep_messages(&mut self) {
        self.ring = Some(Ring {
            lengths: vec![0; self.sends.len()],
            ..Ring::default()
        });
    }

    /// How many of the last messages can be had again.
    pub(super) fn kept_messages(&self) -> usize {
        match &self.ring {
            Some(ring) if !ring.broken => ring.lengths.len(),
            _ => 0,
        }
    }

    /// The last messages, oldest first; fewer if there were not so many.
    pub(super) fn last_messages(&self) -> impl Iterator<Item = &[u8]> {
        let ring = self.ring.as_ref().filter(|ring| !ring.broken);
        let order = ring.map(|ring| (ring.next..self.sends.len()).chain(0..ring.next));
        order.into_iter().flatten().filter_map(|index| {
            let len = self.ring.as_ref()?.lengths.get(index).copied()?;
            let message = self.sends.get(index)?.sent().get(..len)?;
            (len > 0).then_some(message)
        })
    }

    /// Whether the next message has to wait until a send has been collected.
    pub(super) fn is_turn_taken(&self) -> bool {
        let ring = self.ring.as_ref();
        ring.is_some_and(|ring| self.sending.first() == Some(&ring.next))
    }

    /// A free buffer; where messages are kept, the one with the oldest.
    fn take_free(&mut self) -> Option<usize> {
        let Some(ring) = self.ring.as_mut().filter(|ring| !ring.broken) else {
            return self.free.pop();
        };
        match self.free.iter().position(|index| *index == ring.next) {
            Some(place) => Some(self.free.swap_remove(place)),
            None => {
                // A provider that does not complete sends in order.
                ring.broken = true;
                self.free.pop()
            }
        }
    }

    /// This buffer has a message now.
    fn keep(&mut self, index: usize, len: usize) {
        if let Some(ring) = &mut self.ring {
            if let Some(place) = ring.lengths.get_mut(index) {
                *place = len;
            }
            ring.next = if index + 1 == self.sends.len() {
                0
            } else {
                index + 1
            };
        }
    }

    /// Sends one message that `fill` writes. `true` if its buffer is free again already.
    #[inline]
    pub(super) fn send(
        &mut self,
        socket: &SanSocket,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<bool, WsaError> {
        let no_buffer = WsaError(wsdirect::abi::WSAENOBUFS);
        let index = self.take_free().ok_or(no_buffer)?;
        let buffer = self.sends.get_mut(index).ok_or(no_buffer)?;
        let mut written = 0;
        let posted = match fill(buffer.bytes_mut()) {
            Some(len) => {
                written = len;
                buffer.send(socket, len, self.notice)
            }
            None => Err(WsaError(wsdirect::abi::WSAEMSGSIZE)),
        };
        if self.ring.is_some() {
            self.keep(index, written);
        }
        match posted {
            Ok(Posted::Done(_)) => {
                self.free.push(index);
                Ok(true)
            }
            Ok(Posted::Pending) => {
                self.sending.push(index);
                Ok(false)
            }
            Err(error) => {
                self.free.push(index);
                self.failed.get_or_insert(error);
                Err(error)
            }
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether enough sends wait to be collected to make it worth the while.
    pub(super) fn is_worth_reaping(&self) -> bool {
        self.sending.len() > self.sends.len() / 2
    }

    /// Whether a send waits for the provider. Sends are over in order.
    pub(super) fn is_stuck(&self) -> bool {
        let newest = self.sending.last().and_then(|index| self.sends.get(*index));
        newest.is_some_and(|buffer| !buffer.is_over())
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.free.is_empty()
    }

    /// Frees the buffers whose sends have completed; returns how many.
    // req: SEED-13 the result is obtained, never assumed
    pub(super) fn reap(&mut self, socket: &SanSocket) -> usize {
        let mut done = 0;
        for index in &self.sending {
            let Some(buffer) = self.sends.get(*index) else {
                break;
            };
            match buffer.result(socket) {
                Outcome::Pending => break,
                Outcome::Done(_) => {}
                Outcome::Failed(error) => {
                    self.failed.get_or_insert(error);
                }
            }
            if buffer.is_pending() {
                break;
            }
            self.free.push(*index);
            done += 1;
        }
        self.sending.drain(..done);
        done
    }

    /// After the socket has been closed: lets go of the memory; returns how many sends it ended.
    pub(super) fn forget(&mut self, closed: &Closed) -> usize {
        let sending = self.sending.len();
        for held in self.held.drain(..) {
            held.forget(closed);
        }
        let receives = self.receives.drain(..).map(|(buffer, _)| buffer);
        let spares = self.spares.drain(..);
        for buffer in receives.chain(spares).chain(self.sends.drain(..)) {
            buffer.forget(closed);
        }
        self.free.clear();
        self.sending.clear();
        sending
    }
}

#[inline]
fn post(
    buffer: &mut ControlBuffer,
    socket: &SanSocket,
    notice: Notice,
) -> Result<Receive, WsaError> {
    Ok(match buffer.receive(socket, notice)? {
        Posted::Pending => Receive::Posted,
        Posted::Done(len) => Receive::Filled(len),
    })
}
