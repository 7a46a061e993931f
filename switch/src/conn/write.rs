//! Writing: small data into messages at once, large data lent to the peer or copied.
//!
//! A small write that finds no credit waits in the outbox. A large one is copied into temporary
//! memory and goes on in the background as long as the send buffer has room; what would have to
//! wait anyway is lent from the application's own buffer. Invariants: bytes are accepted in the order
//! of the calls; a call that fails for lack of memory has sent nothing of what it refused.

use std::io;
use std::io::IoSlice;
use std::time::Duration;

use wsd_proto::{Cancel, Failure, Outgoing, ResetReason, SendError, SendId, SendMode};

use super::drive::{Direct, State, size};
use super::gather::Gather;
use super::wait::{Patience, Phase};
use super::{Connection, errno, failure, refused, unsent};
use crate::memory::{Lent, Space};
use crate::options::SendPolicy;
use crate::socket::SanSocket;

/// Most bytes of one copied transfer: small enough that the peer fetches the first while the next
/// is copied.
const COPY: usize = 512 << 10;
/// Most bytes of one lent transfer.
const LOAN: usize = 1 << 30;
/// For a lent buffer that the peer is at when sending is shut down.
const GRACE: Duration = Duration::from_secs(2);
/// A write up to this length that finds no credit waits in the outbox at once, also if its caller
/// could wait: merged with those behind it, it costs a fraction of a message, and a peer that is
/// busy for a moment does not hold up a sender of small pieces for each one of them.
const MERGED: usize = 8 << 10;
/// Each time the outbox has grown by this much, a look is due whether credit has come. Sooner would
/// be dearer for small pieces: with credit at once they leave one by one.
const LOOK: usize = 32 << 10;
/// Urgent bytes that may wait for credit.
const URGENT: usize = 16;

impl State {
    /// From here on data is large.
    fn threshold(&self) -> usize {
        match self.session.peer() {
            Some(peer) if peer.send_mode != SendMode::MessagesOnly => size(peer.threshold),
            _ => usize::MAX,
        }
    }

    /// Sends a small piece: what credit permits at once, the rest by the outbox if the caller is
    /// not going to try again soon. Returns how much was accepted.
    #[inline]
    fn send_small(
        &mut self,
        socket: &SanSocket,
        bytes: Gather<'_>,
        phase: Phase,
    ) -> Result<usize, SendError> {
        let len = bytes.len();
        let mut done = 0;
        if self.outbox.is_empty() {
            let id = self.send_id();
            let length = u64::try_from(len).unwrap_or(u64::MAX);
            if let Some(message) = self.session.send_at_once(id, length) {
                self.transmit_direct(socket, id, bytes, &message);
                return Ok(len);
            }
            match self.session.send(id, length) {
                Ok(()) => done = self.send_now(socket, id, bytes)?,
                Err(SendError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        // A small piece goes whole: in two parts, another thread's could come between them.
        let whole = len <= MERGED.min(self.limits.outbox);
        if done < len && (done > 0 || !whole && phase == Phase::Settle || self.merges(len)) {
            let waiting = self.outbox.len();
            let room = self
                .limits
                .outbox
                .saturating_sub(self.outbox.len())
                .min(len - done);
            for part in bytes.slices(done, room) {
                self.outbox.push(part);
            }
            done += room;
            self.drain(socket, None);
            // Who only writes has to learn of credit, too.
            if waiting / LOOK != (waiting + room) / LOOK {
                self.poll(socket, None);
            }
        }
        Ok(done)
    }

    /// Sends the one message of a small send, which is over with that.
    #[inline]
    fn transmit_direct(
        &mut self,
        socket: &SanSocket,
        id: SendId,
        bytes: Gather<'_>,
        message: &Outgoing,
    ) {
        let direct = Direct {
            id,
            bytes,
            result: None,
        };
        self.transmit(socket, message, Some(&direct));
    }

    /// Whether a small piece that finds no credit joins the outbox rather than to wait for it.
    fn merges(&self, len: usize) -> bool {
        len <= MERGED && self.outbox.len() + len <= self.limits.outbox
    }

    /// Carries out a send while its bytes are at hand; takes back what does not go.
    #[inline]
    fn send_now(
        &mut self,
        socket: &SanSocket,
        id: SendId,
        bytes: Gather<'_>,
    ) -> Result<usize, SendError> {
        let mut direct = Direct {
            id,
            bytes,
            result: None,
        };
        self.drain(socket, Some(&mut direct));
        match direct.result {
            Some(Ok(())) => return Ok(bytes.len()),
            Some(Err(_)) => {
                let reason = self.session.failure();
                return Err(reason.map_or(SendError::PeerClosed, SendError::Failed));
            }
            None => {}
        }
        match self.session.cancel(id) {
            Cancel::Removed { sent } => {
                self.drain(socket, None);
                Ok(size(sent))
            }
            Cancel::InFlight | Cancel::Unknown => Err(SendError::PeerClosed),
        }
    }

    /// Sends a copy of the first bytes of a large write in the background. Returns how much was
    /// accepted; 0 if there is no room now. req: SEED-16
    fn send_copy(&mut self, socket: &SanSocket, bytes: Gather<'_>) -> io::Result<usize> {
        let len = bytes.len().min(COPY);
        if !self.has_room(len) || !self.hand_over_all(socket) {
            return Ok(0);
        }
        let id = self.send_id();
        // req: SEED-10 memory first: a send that is refused has sent nothing
        let space = Space::copy_of(&bytes.slices(0, len)).map_err(|_| errno(libc::ENOBUFS))?;
        if !self.begin_large(socket, id, space).map_err(refused)? {
            return Ok(0);
        }
        if let Some(result) = self.outcome(id) {
            return result.map(|()| len).map_err(unsent);
        }
        let prepared = self
            .transfers
            .send(id)
            .is_some_and(|lending| lending.is_prepared());
        if !prepared && let Cancel::Removed { .. } = self.session.cancel(id) {
            // Not begun: whether memory suffices would only turn out after the write has returned.
            self.drop_send(socket, id);
            return Ok(0);
        }
        self.forget_send(id);
        Ok(len)
    }

    /// Gives a large send to the session; `false` if it is full.
    fn begin_large(
        &mut self,
        socket: &SanSocket,
        id: SendId,
        space: Space,
    ) -> Result<bool, SendError> {
        let len = u64::try_from(space.len()).unwrap_or(u64::MAX);
        match self.session.send(id, len) {
            Ok(()) => {}
            Err(SendError::Full) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.transfers.add_send(id, space);
        self.await_send(id);
        self.drain(socket, None);
        Ok(true)
    }

    /// After a send was taken back.
    fn drop_send(&mut self, socket: &SanSocket, id: SendId) {
        self.drain(socket, None);
        self.forget_send(id);
        self.free_send(socket, id);
    }

    /// Whether a write of this length would be accepted at least in part.
    pub(super) fn has_room(&self, len: usize) -> bool {
        if len <= self.threshold() {
            let least = len.clamp(1, MERGED).min(self.limits.outbox);
            return self.outbox.len() + least <= self.limits.outbox;
        }
        let large = self
            .session
            .peer()
            .map_or(0, |peer| usize::from(peer.max_large));
        let waiting = self.transfers.send_bytes();
        // What waits in the outbox goes first.
        let before = usize::from(self.outbox.unhanded() > 0);
        self.session.send_capacity() > before
            && self.transfers.send_count() < large
            && (waiting == 0 || waiting + len.min(COPY) <= self.limits.copies)
    }

    /// Whether a write would have something to say: room, for as much as the last one found none
    /// for, or an error.
    pub(super) fn is_writable(&self) -> bool {
        self.has_room(self.write_wanted.max(1)) || self.check_sending().is_err()
    }

    /// How much of a large write of this length is to be lent.
    fn to_lend(&self, len: usize, policy: SendPolicy, patience: Patience) -> usize {
        // A lent buffer cannot be taken back when the time is over.
        let manner = patience.manner(&self.settings);
        if manner.nonblocking || manner.time.is_some() {
            return 0;
        }
        let lend = match policy {
            SendPolicy::ZeroCopy => len,
            SendPolicy::Background => 0,
            SendPolicy::Auto => len.saturating_sub(self.limits.copies),
        };
        if lend > self.threshold() {
            lend.min(LOAN)
        } else {
            0
        }
    }
}

/// One call that writes.
#[derive(Default)]
struct Call {
    /// Bytes that were accepted.
    done: usize,
    keeps_turn: bool,
}

/// Why a write stopped for the moment.
enum Next {
    /// Nothing more is to be done, or can be without waiting.
    Done,
    /// This many of the next bytes are to be lent.
    Lend(usize),
}

impl Connection {
    /// Writes; everything, unless the stream is nonblocking or fails in the middle.
    #[inline]
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_gathered(Gather::one(bytes), Patience::Writing)
    }

    /// As [`Connection::write`], as patient as the caller says.
    pub(crate) fn write_by(&self, bytes: &[u8], patience: Patience) -> io::Result<usize> {
        self.write_gathered(Gather::one(bytes), patience)
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_gathered(Gather::many(slices), Patience::Writing)
    }

    pub(crate) fn write_vectored_by(
        &self,
        slices: &[IoSlice<'_>],
        patience: Patience,
    ) -> io::Result<usize> {
        self.write_gathered(Gather::many(slices), patience)
    }

    #[inline]
    fn write_gathered(&self, bytes: Gather<'_>, patience: Patience) -> io::Result<usize> {
        let mut call = Call::default();
        let result = loop {
            let written = match self.write_until_lending(bytes, &mut call, patience) {
                Ok(Next::Done) => break Ok(call.done),
                Ok(Next::Lend(count)) => {
                    let front = bytes.without(call.done).front();
                    self.write_lent(front.get(..count).unwrap_or(front))
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(count) => call.done += count,
                // What was accepted counts; the error comes again with the next call.
                Err(_) if call.done > 0 => break Ok(call.done),
                Err(error) => break Err(self.cause(error)),
            }
        };
        let goes_on = matches!(patience, Patience::Call(manner) if manner.goes_on);
        if call.keeps_turn && !goes_on {
            self.end_turn();
        }
        result
    }

    /// The calling thread does not go on with a write that has ended with a part.
    pub(crate) fn end_turn(&self) {
        let mut state = self.lock();
        if state.turn.end() {
            state.activity = true;
        }
        self.leave(state);
    }

    /// A provider that has lost the connection does not register memory either: then the loss is
    /// the reason and not the memory.
    fn cause(&self, error: io::Error) -> io::Error {
        if error.raw_os_error() != Some(libc::ENOBUFS) {
            return error;
        }
        let mut state = self.lock();
        while state.poll(&self.socket, None) {}
        // Its end may not have been told of yet.
        let gone = state.gone.then_some(Failure::Disconnected);
        let lost = state.session.failure().or(gone);
        self.leave(state);
        lost.map_or(error, failure)
    }

    #[inline]
    fn write_until_lending(
        &self,
        bytes: Gather<'_>,
        call: &mut Call,
        patience: Patience,
    ) -> io::Result<Next> {
        let len = bytes.len();
        let Call { done, keeps_turn } = call;
        self.block(patience, |state, socket, phase| {
            loop {
                if let Err(error) = state.check_sending() {
                    return Some(Err(refused(error)));
                }
                if !state.turn.is_free() {
                    if state.poll(socket, None) {
                        continue;
                    }
                    break;
                }
                let rest = len - *done;
                let count = if rest <= state.threshold() {
                    if rest == 0 && len > 0 {
                        state.write_wanted = 0;
                        *keeps_turn = false;
                        state.activity |= state.turn.end();
                        return Some(Ok(Next::Done));
                    }
                    let sent = state.send_small(socket, bytes.without(*done), phase);
                    match sent.map_err(refused) {
                        Ok(_) if len == 0 => return Some(Ok(Next::Done)),
                        Ok(count) => count,
                        Err(error) => return Some(Err(error)),
                    }
                } else {
                    let front = bytes.without(*done).front().len();
                    let lend = state.to_lend(rest, self.policy, patience).min(front);
                    if lend > state.threshold() {
                        *keeps_turn = true;
                        state.turn.keep();
                        return Some(Ok(Next::Lend(lend)));
                    }
                    match state.send_copy(socket, bytes.without(*done)) {
                        Ok(count) => count,
                        Err(error) => return Some(Err(error)),
                    }
                };
                *done += count;
                if count == 0 && !state.poll(socket, None) {
                    break;
                }
            }
            if *done > 0 {
                *keeps_turn = true;
                state.turn.keep();
            }
            if phase == Phase::Settle {
                // Nobody here is going to read meanwhile; what the peer sends must not wait for it.
                state.set_direct(socket, false);
                if patience.manner(&state.settings).nonblocking && *done > 0 {
                    return Some(Ok(Next::Done));
                }
                state.write_wanted = len - *done;
            }
            None
        })
    }

    /// Sends from the application's own memory; returns when the peer has the bytes.
    // req: SEED-06 SEED-09
    fn write_lent(&self, bytes: &[u8]) -> io::Result<usize> {
        let lent = Lent::source(bytes);
        let mut started = None;
        let mut over = false;
        let result = self.block(Patience::For(None), |state, socket, phase| {
            loop {
                if let Some(id) = started
                    && let Some(result) = state.outcome(id)
                {
                    over = true;
                    return Some(result.map(|()| true).map_err(unsent));
                }
                let open = state.check_sending().is_ok();
                if started.is_none() && open && state.hand_over_all(socket) {
                    let id = state.send_id();
                    match state.begin_large(socket, id, lent.space()) {
                        Ok(true) => {
                            started = Some(id);
                            continue;
                        }
                        Ok(false) => {}
                        Err(error) => return Some(Err(refused(error))),
                    }
                }
                if !state.poll(socket, None) {
                    break;
                }
            }
            if phase == Phase::Settle {
                state.set_direct(socket, false);
            }
            let shut = state.settings.write_shut || state.settings.closing;
            shut.then_some(Ok(false))
        });
        // A send whose outcome is known has let go of the buffer.
        match (result, started.filter(|_| !over)) {
            (Ok(true), _) => Ok(bytes.len()),
            (Ok(false), Some(id)) => self.end_lent(id, bytes.len()),
            (Ok(false), None) => Err(errno(libc::EPIPE)),
            (Err(error), Some(id)) => self.end_lent(id, bytes.len()).map_err(|_| error),
            (Err(error), None) => Err(error),
        }
    }

    /// Another thread has shut the stream down while the peer was told of a lent buffer. What it
    /// has been told cannot be taken back: it gets a moment, then the connection ends.
    fn end_lent(&self, id: SendId, len: usize) -> io::Result<usize> {
        let mut state = self.lock();
        let taken_back = match state.session.cancel(id) {
            Cancel::Removed { .. } => {
                state.drop_send(&self.socket, id);
                true
            }
            Cancel::InFlight => false,
            Cancel::Unknown => state.outcome(id).is_none() && state.transfers.send(id).is_none(),
        };
        self.leave(state);
        if taken_back {
            return Err(errno(libc::EPIPE));
        }
        let ended = self.block(Patience::For(Some(GRACE)), |state, socket, _| {
            while state.poll(socket, None) {}
            state.outcome(id).map(|result| result.map_err(unsent))
        });
        match ended {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            ended => return ended.map(|()| len),
        }
        let mut state = self.lock();
        let now = state.now();
        state.session.abort(now, ResetReason::Aborted);
        state.drain(&self.socket, None);
        state.disconnect(&self.socket);
        state.drain(&self.socket, None);
        state.forget_send(id);
        self.leave(state);
        Err(errno(libc::EPIPE))
    }

    // ---- urgent data

    /// Sends bytes of which the last one is urgent, as TCP does.
    pub(crate) fn write_urgent(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_urgent_by(bytes, Patience::Writing)
    }

    pub(crate) fn write_urgent_by(&self, bytes: &[u8], patience: Patience) -> io::Result<usize> {
        let Some((last, before)) = bytes.split_last() else {
            return Ok(0);
        };
        let mut done = 0;
        while let Some(rest) = before.get(done..)
            && !rest.is_empty()
        {
            match self.write_by(rest, patience) {
                Ok(count) => done += count,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        let sent = self.block(patience, |state, socket, phase| {
            loop {
                if let Err(error) = state.check_sending() {
                    return Some(Err(refused(error)));
                }
                if state.urgent_queued() < URGENT && state.hand_over_all(socket) {
                    match state.send_urgent_byte(*last) {
                        Ok(()) => {
                            state.drain(socket, None);
                            return Some(Ok(()));
                        }
                        Err(SendError::Full) => {}
                        Err(error) => return Some(Err(refused(error))),
                    }
                }
                if !state.poll(socket, None) {
                    break;
                }
            }
            if phase == Phase::Settle {
                state.write_wanted = 1;
            }
            None
        });
        match sent {
            Ok(()) => Ok(bytes.len()),
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }
}
