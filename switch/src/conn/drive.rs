//! Drives the session of one connection over its socket: what arrives goes in, what the session
//! wants done is done.
//!
//! Owns the session, the queues of what has arrived, and everything lent to the provider. Decides
//! nothing that the session decides. Invariants: all of it is behind the connection's lock; after
//! each change of the session its actions are carried out completely, in order; a message's
//! receive is posted again before its bytes are delivered.

use std::time::Instant;

use wsd_proto::{
    Access as SessionAccess, Action, GIVEN_BACK, Incoming, Memory, Message, NoBuffers, Outgoing,
    PullFailure, PullId, Queue, RdmaFailed, RdmaId, ResetReason, SendError, SendFailure, SendId,
    SendMode, Session,
};

use super::companion::Zeal;
use super::fetch::Target;
use super::fifo::{Fifo, copy_into};
use super::gather::Gather;
use super::inbox::{Inbox, WORTH_KEEPING};
use super::outbox::Outbox;
use super::outside::Outsiders;
use super::pool::{Head, Pool};
use super::transfer::Transfers;
use super::turn::Turn;
use super::urgent::Urgent;
use super::wait::Waiters;
use crate::error::WsaError;
use crate::lent::Access;
use crate::memory::{self, Direction, Remote};
use crate::observe::{Meter, Queues};
use crate::socket::SanSocket;

/// A send whose bytes are still in the hands of the thread that drives.
pub(super) struct Direct<'a> {
    pub(super) id: SendId,
    pub(super) bytes: Gather<'a>,
    pub(super) result: Option<Result<(), SendFailure>>,
}

pub(super) struct State {
    pub(super) session: Session,
    pub(super) pool: Pool,
    pub(super) main: Inbox,
    pub(super) fill: Fifo,
    pub(super) urgent: Urgent,
    pub(super) outbox: Outbox,
    pub(super) transfers: Transfers,
    /// Urgent bytes on their way out.
    urgent_out: Vec<(SendId, u8)>,
    next_send: u64,
    /// Sends and pulls whose outcome somebody will ask for.
    awaited: Vec<SendId>,
    sent: Vec<(SendId, Result<(), SendFailure>)>,
    pulled: Vec<(PullId, Result<u64, PullFailure>)>,
    /// RDMA that could not be started or that failed; told to the session after what has arrived.
    failed: Vec<RdmaId>,
    /// A send failed: the connection is over once everything that has arrived was taken.
    broken: bool,
    /// The socket is closed.
    pub(super) closed: bool,
    pub(super) direct: bool,
    /// The last read had room for large data, which can be fetched at once: looks leave it to the
    /// next one.
    pub(super) reads_large: bool,
    clock: Clock,
    pub(super) waiters: Waiters,
    pub(super) watch: Watch,
    pub(super) outsiders: Outsiders,
    /// Something has changed since the waiters were last told.
    pub(super) activity: bool,
    /// Counts what has happened, for those who want to know whether anything has.
    pub(super) happened: u64,
    pub(super) settings: Settings,
    /// What is to be told to the session once it has been handed the whole outbox.
    ending: Option<Ending>,
    /// Among it, that the stream goes on elsewhere.
    suspends: bool,
    /// Closed with something left to send.
    pub(super) lingering: Option<super::service::Lingering>,
    /// A write found no room: this many bytes wait for it.
    pub(super) write_wanted: usize,
    /// Whose turn it is to write.
    pub(super) turn: Turn,
    pub(super) limits: Limits,
    /// Shows the connection to those who look on.
    pub(super) meter: Meter,
    /// Decides about the companion that is offered.
    pub(super) admit: Option<super::companion::Admit>,
    /// What goes back to the peer, and what has come back from it.
    pub(super) back: Vec<u8>,
    pub(super) given_back: Vec<u8>,
    /// What may not have arrived is kept for the case that the connection is lost, and was then.
    pub(super) keeps: bool,
    pub(super) kept: Option<super::keep::Kept>,
    /// Wants to know when something happens.
    pub(super) observer: Option<super::companion::Observing>,
}

/// What may wait here of what the application has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of small sends that wait for credit.
    pub(super) outbox: usize,
    /// Bytes of copied large sends.
    pub(super) copies: usize,
}

/// Whether the service thread sleeps on the provider's descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Watch {
    /// It does not: it looks by itself, or has nothing to look after.
    #[default]
    Off,
    /// It does, and the provider is armed.
    On,
    /// It does, but another thread has armed since, and may have taken the wake-up.
    Disturbed,
}

/// The end of what this side sends, in the order in which one takes the other's place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ending {
    /// The stream goes on elsewhere.
    Suspend,
    Shutdown,
    Close,
}

/// What the application has set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) nonblocking: bool,
    pub(super) read_timeout: Option<std::time::Duration>,
    pub(super) write_timeout: Option<std::time::Duration>,
    pub(super) linger: Option<std::time::Duration>,
    /// This side was closed: nobody will call any more.
    pub(super) closing: bool,
    /// Sending was shut down by the application.
    pub(super) write_shut: bool,
    /// The failure has been fetched by `take_error`.
    pub(super) error_taken: bool,
}

/// The session's time. Looked at for every message only if silence matters.
struct Clock {
    start: Instant,
    precise: bool,
    now: wsd_proto::Instant,
}

impl Clock {
    fn refresh(&mut self) -> wsd_proto::Instant {
        self.now = wsd_proto::Instant(self.start.elapsed());
        self.now
    }

    #[inline]
    fn coarse(&mut self) -> wsd_proto::Instant {
        if self.precise {
            self.refresh()
        } else {
            self.now
        }
    }
}

impl State {
    pub(super) fn new(session: Session, pool: Pool, limits: Limits) -> State {
        let precise = session.config().keep_alive.is_some();
        let now = wsd_proto::Instant::ZERO;
        State {
            session,
            pool,
            main: Inbox::default(),
            fill: Fifo::default(),
            urgent: Urgent::default(),
            outbox: Outbox::default(),
            transfers: Transfers::default(),
            urgent_out: Vec::new(),
            next_send: 0,
            awaited: Vec::new(),
            sent: Vec::new(),
            pulled: Vec::new(),
            failed: Vec::new(),
            broken: false,
            closed: false,
            direct: false,
            reads_large: false,
            clock: Clock {
                start: Instant::now(),
                precise,
                now,
            },
            waiters: Waiters::default(),
            watch: Watch::default(),
            outsiders: Outsiders::default(),
            activity: false,
            happened: 0,
            settings: Settings::default(),
            ending: None,
            suspends: false,
            lingering: None,
            write_wanted: 0,
            turn: Turn::default(),
            limits,
            meter: Meter::default(),
            admit: None,
            back: Vec::new(),
            given_back: Vec::new(),
            keeps: false,
            kept: None,
            observer: None,
        }
    }

    /// Registers the control buffers and posts the receives; returns how many the provider took.
    pub(super) fn start(&mut self, socket: &SanSocket) -> Result<usize, WsaError> {
        self.pool.start(socket)
    }

    /// Tells those who look on what has been counted, as far as it can be told in no time.
    #[inline]
    pub(super) fn tell(&mut self) {
        self.meter.tell(&self.session);
    }

    /// Tells them everything, while this thread has nothing better to do.
    pub(super) fn tell_all(&mut self) {
        let (outbox, transfers) = (&self.outbox, &self.transfers);
        self.meter.tell_all(&self.session, || Queues {
            unsent: outbox.len() + transfers.send_bytes(),
        });
    }

    pub(super) fn now(&mut self) -> wsd_proto::Instant {
        self.clock.refresh()
    }

    /// The instant of std that the session's instant stands for.
    pub(super) fn instant(&self, time: wsd_proto::Instant) -> Instant {
        self.clock
            .start
            .checked_add(time.0)
            .unwrap_or(self.clock.start)
    }

    pub(super) fn send_id(&mut self) -> SendId {
        self.next_send += 1;
        SendId(self.next_send)
    }

    /// A send whose outcome will be asked for by [`State::outcome`].
    pub(super) fn await_send(&mut self, id: SendId) {
        self.awaited.push(id);
    }

    pub(super) fn outcome(&mut self, id: SendId) -> Option<Result<(), SendFailure>> {
        let place = self.sent.iter().position(|(known, _)| *known == id)?;
        Some(self.sent.swap_remove(place).1)
    }

    /// Nobody will ask any more.
    pub(super) fn forget_send(&mut self, id: SendId) {
        self.awaited.retain(|known| *known != id);
        self.sent.retain(|(known, _)| *known != id);
    }

    /// Gives the memory of a send back that was taken back.
    pub(super) fn free_send(&mut self, socket: &SanSocket, id: SendId) {
        let freed = self.transfers.free(socket, Memory::Send(id));
        self.insist(socket, freed);
    }

    pub(super) fn pull_outcome(&mut self, id: PullId) -> Option<Result<u64, PullFailure>> {
        let place = self.pulled.iter().position(|(known, _)| *known == id)?;
        Some(self.pulled.swap_remove(place).1)
    }

    pub(super) fn send_urgent_byte(&mut self, byte: u8) -> Result<(), SendError> {
        let id = self.send_id();
        self.session.send_urgent(id, 1)?;
        self.urgent_out.push((id, byte));
        Ok(())
    }

    pub(super) fn urgent_queued(&self) -> usize {
        self.urgent_out.len()
    }

    /// Whether large data shall wait for the application's own buffer.
    pub(super) fn set_direct(&mut self, socket: &SanSocket, direct: bool) {
        if self.direct != direct {
            self.direct = direct;
            self.session.set_direct(direct);
            self.drain(socket, None);
        }
    }

    // ---------------------------------------------------------------- what arrives

    /// Looks once for anything new; `true` if there was. Takes at most one message, whose first
    /// bytes go straight to the target where that is their place.
    #[inline]
    pub(super) fn poll(&mut self, socket: &SanSocket, target: Option<&mut Target<'_>>) -> bool {
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
    pub(super) fn reap(&mut self, socket: &SanSocket) {
        if !self.closed && self.wants_reaping() {
            self.reap_all(socket);
        }
    }

    /// Frees them whether or not anybody needs them.
    pub(super) fn reap_all(&mut self, socket: &SanSocket) {
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
    pub(super) fn give_up(&mut self, socket: &SanSocket) {
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
    pub(super) fn tick(&mut self, socket: &SanSocket) -> bool {
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

    // ---------------------------------------------------------------- what is to be done

    /// Carries out what the session wants, then offers it what waits in the outbox.
    #[inline]
    pub(super) fn drain(&mut self, socket: &SanSocket, mut direct: Option<&mut Direct<'_>>) {
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
    pub(super) fn end_sending(&mut self, ending: Ending) {
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
    pub(super) fn check_sending(&self) -> Result<(), SendError> {
        if self.settings.write_shut {
            self.session.send_open()?;
            return Err(SendError::Shutdown);
        }
        Ok(())
    }

    fn perform(&mut self, socket: &SanSocket, action: Action, direct: Option<&mut Direct<'_>>) {
        match action {
            Action::Message(message) => self.transmit(socket, &message, direct),
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
                let answer = exposed.map_err(|error| refuse(error, "expose memory"));
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
                let answer = registered.map_err(|error| refuse(error, "register memory"));
                self.session.handle_registered(memory, answer);
            }
            Action::Deregister { memory } => {
                let done = self.transfers.deregister(socket, memory);
                self.insist(socket, done);
            }
            Action::AllocateTemp { temp, len } => {
                let read = self.session.config().rdma_read;
                let got = self.transfers.allocate(socket, temp, size(len), read);
                let answer = got.map_err(|error| refuse(error, "get temporary memory"));
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
    fn transmit(
        &mut self,
        socket: &SanSocket,
        message: &Outgoing,
        direct: Option<&mut Direct<'_>>,
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
                let copied = match &direct {
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
            Err(WsaError(wsdirect::abi::WSAENOTSOCK))
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
            Err(WsaError(wsdirect::abi::WSAEINVAL))
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
    fn insist(&mut self, socket: &SanSocket, done: bool) {
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
    pub(super) fn hand_over_all(&mut self, socket: &SanSocket) -> bool {
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
    pub(super) fn disconnect(&mut self, socket: &SanSocket) {
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

    // ---------------------------------------------------------------- who must look after it

    /// Whether something has to go on although no thread is in a call. A message that the provider
    /// has taken is its own business.
    pub(super) fn needs_service(&self) -> bool {
        if self.settings.closing {
            return !self.session.is_finished() || !self.closed;
        }
        let observes = |observing: &super::companion::Observing| observing.zeal != Zeal::Never;
        !self.closed && (self.observer.as_ref().is_some_and(observes) || self.has_work())
    }

    /// Whether something of the connection's own has to go on.
    pub(super) fn has_work(&self) -> bool {
        !self.outbox.is_empty()
            || self.transfers.is_flying()
            || self.transfers.has_sends()
            || self.transfers.is_exposed()
            || self.keeps_waiting()
            || (self.may_have_timer() && self.session.poll_timeout().is_some())
    }

    /// Whether the peer keeps large data for a read that is to come soon. Not for ever: until it is
    /// fetched its sends are not over.
    pub(super) fn keeps_waiting(&self) -> bool {
        self.reads_large && self.session.is_kept_back()
    }

    /// Has it fetched into temporary memory, as no read has come.
    pub(super) fn waits_no_longer(&mut self, socket: &SanSocket) {
        self.reads_large = false;
        self.set_direct(socket, false);
    }

    /// Whether the session may be waiting for time to pass: it does so at its beginning, at its
    /// end, and where silence matters.
    fn may_have_timer(&self) -> bool {
        self.clock.precise || !self.session.is_established() || self.session.send_open().is_err()
    }

    /// Everything accepted from the application is with the provider, or lost; of a closed stream,
    /// the word of its end, too: without that the peer takes it for broken off.
    pub(super) fn is_flushed(&self) -> bool {
        self.closed
            || (self.outbox.is_empty()
                && self.session.sends_pending() == 0
                && (!self.settings.closing || self.session.is_end_told())
                && !self.session.is_giving_back()
                && !self.pool.is_stuck())
    }
}

fn right(access: SessionAccess) -> Access {
    match access {
        SessionAccess::Read => Access::Read,
        SessionAccess::Write => Access::Write,
    }
}

/// req: SEED-10 WSD-21 whatever the provider's reason is, the session is told that memory is short
fn refuse(error: WsaError, what: &str) -> NoBuffers {
    tracing::debug!(%error, "could not {what}");
    NoBuffers
}

/// A length or offset within memory of this process.
pub(super) fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
