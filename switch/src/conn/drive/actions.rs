//! What the session wants done: messages sent, memory registered, RDMAs started, the socket closed.
//!
//! Invariants: a session's actions are carried out completely, in order, before anything else is told
//! to it; what waits in the outbox is offered behind them, and the end of what this side sends comes
//! behind the outbox.

use wsd_proto::{
    Access as SessionAccess, Action, GIVEN_BACK, Memory, Message, NoBuffers, Outgoing, RdmaFailed,
    RdmaId, ResetReason, SendError, SendFailure, SendId, SendMode,
};
use wsdirect::abi;

use super::{Direct, Ending, State, size};
use crate::conn::fifo::copy_into;
use crate::error::WsaError;
use crate::lent::Access;
use crate::memory::{self, Direction, Remote};
use crate::socket::SanSocket;

impl State {
    /// Carries out what the session wants, then offers it what waits in the outbox.
    #[inline]
    pub(in crate::conn) fn drain(
        &mut self,
        socket: &SanSocket,
        mut direct: Option<&mut Direct<'_>>,
    ) {
        loop {
            if self.keeps && self.session.failure().is_some() {
                // Before anything is given up.
                self.save();
            }
            while let Some(action) = self.session.poll_action() {
                self.perform(socket, action, direct.as_deref_mut());
            }
            // While it waits, more can be merged; but nothing comes after the end.
            let waits = self.outbox.is_handed() && self.ending.is_none();
            let handed = !self.outbox.is_empty() && !waits && self.hand_over();
            if !handed && !self.end_handed() {
                return;
            }
        }
    }

    /// Ends what this side sends, after everything it has accepted. Takes effect with the next
    /// [`State::drain`] that has handed the outbox over: the session counts what it was handed, so
    /// told earlier it would tell the peer of an end in the middle.
    pub(in crate::conn) fn end_sending(&mut self, ending: Ending) {
        self.settings.write_shut = true;
        self.suspends |= ending == Ending::Suspend;
        self.ending = self.ending.max(Some(ending));
    }

    /// `true` if the session was told of the end.
    fn end_handed(&mut self) -> bool {
        if self.ending.is_none() || self.outbox.unhanded() > 0 {
            return false;
        }
        let ending = self.ending.take();
        // Whatever else is to be told: a stream that goes on elsewhere has not ended.
        if std::mem::take(&mut self.suspends)
            && let Err(error) = self.session.suspend_send()
        {
            tracing::debug!(%error, "the stream does not go on elsewhere");
        }
        match ending {
            Some(Ending::Suspend) => {}
            Some(Ending::Shutdown) => self.session.shutdown_send(),
            Some(Ending::Close) => {
                let now = self.clock.refresh();
                self.session.close(now);
            }
            None => return false,
        }
        true
    }

    /// Whether the application may send; the session may not know yet that it has shut sending down.
    #[inline]
    pub(in crate::conn) fn check_sending(&self) -> Result<(), SendError> {
        if self.settings.write_shut {
            self.session.send_open()?;
            return Err(SendError::Shutdown);
        }
        Ok(())
    }

    fn perform(&mut self, socket: &SanSocket, action: Action, direct: Option<&mut Direct<'_>>) {
        match action {
            Action::Message(message) => self.transmit(socket, &message, direct.as_deref()),
            Action::SendComplete { send, result } => match direct {
                Some(direct) if direct.id == send => direct.result = Some(result),
                _ => self.complete_send(socket, send, result),
            },
            Action::PullComplete { pull, result } => {
                let freed = self.transfers.free(socket, Memory::Application(pull));
                self.pulled.push((pull, result));
                self.insist(socket, freed);
            }
            // req: SEED-06 SEED-11
            Action::Expose {
                memory,
                access,
                offset,
                len,
            } => {
                let span = (size(offset), size(len));
                let exposed = self.transfers.expose(socket, memory, right(access), span);
                let answer =
                    exposed.map_err(|error| refuse(error, "expose memory", &mut self.gone));
                self.session.handle_exposed(memory, answer);
            }
            // req: SEED-09 SEED-15
            Action::Conceal { memory } => {
                let done = self.transfers.conceal(socket, memory);
                self.insist(socket, done);
            }
            Action::Register {
                memory,
                access,
                offset,
                len,
            } => {
                let span = (size(offset), size(len));
                let registered = self.transfers.register(socket, memory, right(access), span);
                let answer =
                    registered.map_err(|error| refuse(error, "register memory", &mut self.gone));
                self.session.handle_registered(memory, answer);
            }
            Action::Deregister { memory } => {
                let done = self.transfers.deregister(socket, memory);
                self.insist(socket, done);
            }
            Action::AllocateTemp { temp, len } => {
                let read = self.session.config().rdma_read;
                let got = self.transfers.allocate(socket, temp, size(len), read);
                let answer =
                    got.map_err(|error| refuse(error, "get temporary memory", &mut self.gone));
                self.session.handle_allocated(temp, answer);
            }
            Action::FreeTemp { temp } => {
                let done = self.transfers.free(socket, Memory::Temp(temp));
                self.insist(socket, done);
            }
            // req: SEED-07
            Action::RdmaRead {
                rdma,
                memory,
                offset,
                len,
                remote,
                remote_offset,
            } => {
                let there = (remote.as_bytes(), remote_offset, Direction::Read);
                self.start_rdma(socket, rdma, memory, (offset, len), there);
            }
            // req: SEED-12
            Action::RdmaWrite {
                rdma,
                memory,
                offset,
                len,
                remote,
                remote_offset,
            } => {
                let there = (remote.as_bytes(), remote_offset, Direction::Write);
                self.start_rdma(socket, rdma, memory, (offset, len), there);
            }
            // Only sessions that want one are offered one.
            Action::CompanionOffered(info) => {
                let session_id = self.session.session_id();
                let admit = self.admit.take();
                let admitted = admit.is_some_and(|admit| admit(&info, session_id));
                let now = self.now();
                self.session.answer_companion(now, admitted);
            }
            Action::Established => {
                self.activity = true;
                self.clock.precise |= self.session.peer().is_some_and(|p| p.keep_alive.is_some());
            }
            Action::Disconnect => self.disconnect(socket),
        }
    }

    /// Sends one control message. req: SEED-05 SEED-08 SEED-14
    #[inline]
    pub(in crate::conn) fn transmit(
        &mut self,
        socket: &SanSocket,
        message: &Outgoing,
        direct: Option<&Direct<'_>>,
    ) {
        if self.keeps && self.pool.is_turn_taken() {
            for _ in 0..self.pool.reap(socket) {
                self.session.handle_sent();
            }
        }
        let State {
            pool,
            outbox,
            transfers,
            urgent_out,
            back,
            meter,
            ..
        } = self;
        let sent = if self.closed {
            Ok(true)
        } else {
            pool.send(socket, |buffer| {
                let head = message.encode(buffer)?;
                meter.trace(true, buffer.get(..head)?, || message.len());
                let Some(body) = message.body() else {
                    return Some(head);
                };
                let (offset, len) = (size(body.offset), size(body.len.into()));
                let room = buffer.get_mut(head..head.checked_add(len)?)?;
                let copied = match direct {
                    Some(direct) if direct.id == body.send => direct.bytes.copy(offset, room),
                    _ if body.send == GIVEN_BACK => {
                        let bytes = back.get(offset..).unwrap_or_default();
                        copy_into(room, bytes) == len
                    }
                    _ if outbox.copy(body.send, offset, room) => true,
                    _ => match transfers.send(body.send) {
                        Some(lending) => lending.space.copy_to(offset, room) == len,
                        None => urgent_out
                            .iter()
                            .find(|(known, _)| *known == body.send)
                            .is_some_and(|(_, byte)| copy_into(room, &[*byte]) == len),
                    },
                };
                copied.then_some(head + len)
            })
        };
        // An explicit credit is not returned on its own.
        let answered = !matches!(message.message(), Message::Credit);
        self.meter.sent(&self.session, answered);
        match sent {
            Ok(true) => self.session.handle_sent(),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "a message could not be sent");
                self.session.handle_sent();
                self.broken = true;
            }
        }
    }

    fn complete_send(&mut self, socket: &SanSocket, send: SendId, result: Result<(), SendFailure>) {
        self.activity = true;
        if self.outbox.complete(send) {
            // The write has returned long ago: only a failure tells of bytes that do not leave.
            self.insist(socket, result != Err(SendFailure::NoBuffers));
            return;
        }
        if let Some(place) = self.urgent_out.iter().position(|(known, _)| *known == send) {
            self.urgent_out.swap_remove(place);
            return;
        }
        let freed = self.transfers.free(socket, Memory::Send(send));
        self.insist(socket, freed);
        if let Some(place) = self.awaited.iter().position(|known| *known == send) {
            self.awaited.swap_remove(place);
            self.sent.push((send, result));
        }
    }

    fn start_rdma(
        &mut self,
        socket: &SanSocket,
        rdma: RdmaId,
        memory: Memory,
        (offset, len): (u64, u64),
        (descriptor, remote_offset, direction): (&[u8], u64, Direction),
    ) {
        let started = if self.closed {
            Err(WsaError(abi::WSAENOTSOCK))
        } else if let Ok(offset_there) = u32::try_from(remote_offset) {
            let remote = Remote {
                descriptor,
                offset: offset_there,
                direction,
            };
            let span = (size(offset), size(len));
            self.transfers
                .start(socket, rdma, memory, span, remote, socket.notice())
        } else {
            Err(WsaError(abi::WSAEINVAL))
        };
        match started {
            Ok(true) => self.session.handle_rdma_done(rdma, Ok(())),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "an RDMA could not be started");
                self.failed.push(rdma);
                self.activity = true;
            }
        }
    }

    /// A provider that keeps memory the session has given up: only closing makes it let go, and it
    /// must before the call returns in which the application lent that memory.
    pub(super) fn insist(&mut self, socket: &SanSocket, done: bool) {
        if !done && !self.closed {
            let now = self.clock.refresh();
            self.session.abort(now, ResetReason::NoResources);
            self.disconnect(socket);
        }
    }

    /// Offers the front of the outbox to the session; `true` if that has changed anything.
    fn hand_over(&mut self) -> bool {
        let Some(peer) = self.session.peer() else {
            return false;
        };
        let most = match peer.send_mode {
            SendMode::MessagesOnly => u64::from(u32::MAX),
            SendMode::Read | SendMode::Write => peer.threshold.max(1),
        };
        let len = self.outbox.unhanded().min(size(most));
        if len == 0 || self.session.send_capacity() == 0 {
            return false;
        }
        let id = self.send_id();
        match self
            .session
            .send(id, u64::try_from(len).unwrap_or(u64::MAX))
        {
            Ok(()) => {
                self.outbox.hand(id, len);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "what waited to be sent is lost");
                self.outbox.clear();
                // A peer that receives no more misses nothing. Any other must not take what it
                // has got for the whole; a failed session tells it so anyway.
                if !matches!(error, SendError::PeerClosed | SendError::Failed(_)) {
                    let now = self.clock.refresh();
                    self.session.abort(now, ResetReason::Aborted);
                }
                true
            }
        }
    }

    /// Hands the whole outbox to the session, so that what is sent next comes after it; `false` if
    /// the session does not take that much now.
    pub(in crate::conn) fn hand_over_all(&mut self, socket: &SanSocket) -> bool {
        while self.outbox.unhanded() > 0 {
            if !self.hand_over() {
                return self.outbox.unhanded() == 0;
            }
        }
        self.drain(socket, None);
        true
    }

    /// Closes the socket, which deregisters what is in no use first. Afterwards the provider touches
    /// nothing any more. req: WSD-22
    pub(in crate::conn) fn disconnect(&mut self, socket: &SanSocket) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.activity = true;
        let closed = memory::close(socket);
        for _ in 0..self.pool.forget(&closed) {
            self.session.handle_sent();
        }
        for rdma in self.transfers.forget(&closed) {
            self.session.handle_rdma_done(rdma, Err(RdmaFailed));
        }
        for rdma in std::mem::take(&mut self.failed) {
            self.session.handle_rdma_done(rdma, Err(RdmaFailed));
        }
    }
}

fn right(access: SessionAccess) -> Access {
    match access {
        SessionAccess::Read => Access::Read,
        SessionAccess::Write => Access::Write,
    }
}

/// req: SEED-10 WSD-21 whatever the provider's reason is, the session is told that memory is short
fn refuse(error: WsaError, what: &str, gone: &mut bool) -> NoBuffers {
    tracing::debug!(%error, "could not {what}");
    let ends = [abi::WSAENOTCONN, abi::WSAECONNRESET, abi::WSAECONNABORTED];
    *gone |= ends.contains(&error.0);
    NoBuffers
}
