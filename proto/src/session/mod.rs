//! One session: two halves, the credits between them, a beginning and an end.
//!
//! This file holds what drivers see and how the parts meet; each part holds its own rules:
//! [`send`] and [`receive`] the two streams, [`credit`] flow control, [`negotiate`] the beginning,
//! [`close`] the end, [`back`] what a side that leaves gives back, [`alive`] signs of life, [`message`] the wire format.
//!
//! Invariant: whatever a peer sends, the session either goes on by the rules or fails with a
//! reason; in every state there is a message, an answer of the driver or a time-out that leads on.

mod action;
mod alive;
mod back;
mod close;
mod config;
mod credit;
mod error;
mod message;
mod negotiate;
mod rdma;
mod receive;
mod send;

use alloc::collections::VecDeque;

pub use action::{
    Access, Action, Body, Cancel, End, Incoming, Memory, Outgoing, PullId, Queue, Readable, SendId,
    TempId,
};
pub use back::{GIVEN_BACK, GivenBack};
pub use config::{Config, MIN_BUFFER, Peer, Role, SendMode, Stats};
pub use credit::{Credit, MIN_RECEIVES};
pub use error::{
    ConfigError, Failure, NoBuffers, ProtocolError, PullError, PullFailure, RdmaFailed,
    ResetReason, SendError, SendFailure,
};
pub use message::{
    CompanionInfo, Descriptor, HEADER_LEN, MAGIC, MAX_DESCRIPTOR, MAX_NEGOTIATION, Message, Offer,
    Received, Resume, TransferId, VERSION, parse,
};
pub use rdma::RdmaId;
pub use send::Left;

use alive::Alive;
use back::Back;
use close::Closing;
use credit::{Class, Credits};
use message::HEADER;
use negotiate::Stage;
use receive::{Asked, ReceiveSide};
use send::{Content, Effects, SendSide};

use crate::time::Instant;

/// The session protocol of one side of one connection.
///
/// After each call that changes it, drain [`Session::poll_action`] until it returns `None`.
#[derive(Clone, Debug)]
pub struct Session {
    role: Role,
    config: Config,
    now: Instant,
    session_id: [u8; 16],
    /// What the driver decides about, and has decided upon.
    offered: Option<Offer>,
    stage: Stage,
    negotiation_deadline: Instant,
    connection: Connection,
    failure: Option<Failure>,
    peer: Option<Peer>,
    credits: Credits,
    send: SendSide,
    receive: ReceiveSide,
    alive: Alive,
    closing: Closing,
    back: Back,
    /// Send buffers that are free.
    send_free: u32,
    /// Actions that follow from what happened, in order.
    effects: Effects,
    stats: Stats,
}

/// What there still is to talk over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Connection {
    Up,
    /// Failed here; a last word may go out.
    Failing,
    /// Gone; `Disconnect` is due.
    Gone,
    /// `Disconnect` was polled.
    Down,
}

impl Session {
    /// A session of a connection that has just been made.
    ///
    /// The driver posts `config.receive_buffers` receives before it drains the first action.
    ///
    /// # Errors
    ///
    /// What cannot work in `config`.
    pub fn new(role: Role, config: Config, now: Instant) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let receive = ReceiveSide::new(&config);
        let mut credits = Credits::new(config.receive_buffers, receive.room());
        match role {
            Role::Connector => credits.permit_first(),
            Role::Acceptor => credits.expect_first(),
        }
        let effects = 4 * (config.max_sends + usize::from(config.max_large)) + 64;
        Ok(Self {
            role,
            now,
            session_id: config.session_id,
            offered: None,
            stage: Stage::Greeting,
            negotiation_deadline: now.saturating_add(config.negotiation_timeout),
            connection: Connection::Up,
            failure: None,
            peer: None,
            credits,
            send: SendSide::new(&config),
            receive,
            alive: Alive::new(),
            closing: Closing::default(),
            back: Back::default(),
            send_free: config.send_buffers,
            effects: VecDeque::with_capacity(effects),
            stats: Stats::default(),
            config,
        })
    }

    // ---- what arrives

    /// req: SEED-03 consumed at once; nothing waits for the buffer
    ///
    /// A message arrived. Copy what the answer names, post the receive again, and say so with
    /// [`Session::handle_reposted`].
    ///
    /// # Errors
    ///
    /// The rule that the peer broke. The session has failed; drain the actions as always.
    pub fn handle_message(
        &mut self,
        now: Instant,
        message: &[u8],
    ) -> Result<Incoming, ProtocolError> {
        self.now = now;
        if self.connection != Connection::Up {
            return Ok(Incoming::Discarded);
        }
        self.stats.messages_received += 1;
        let result = self.receive_message(message);
        if let Err(error) = result {
            self.fail(Failure::Protocol(error), Some(ResetReason::ProtocolError));
        }
        result
    }

    fn receive_message(&mut self, bytes: &[u8]) -> Result<Incoming, ProtocolError> {
        let version = self
            .peer
            .as_ref()
            .filter(|_| self.stage == Stage::Done)
            .map(|p| p.version);
        let received = parse(bytes, version)?;
        self.credits.message_received()?;
        if version.is_none() {
            self.negotiate(&received)?;
            return Ok(Incoming::Control);
        }
        self.credits.limit_received(received.credit)?;
        self.send.confirm(self.credits.certain());
        let query = received.message == Message::KeepAlive { query: true };
        self.alive.heard(self.now, query);
        let Received {
            message, payload, ..
        } = received;
        let (effects, stats) = (&mut self.effects, &mut self.stats);
        match message {
            Message::Data { offset, .. } => return self.receive.data(offset, payload, stats),
            Message::Fill {
                transfer, offset, ..
            } => {
                return self.receive.fill(transfer, offset, payload, effects, stats);
            }
            Message::Urgent { mark, .. } => return self.receive.urgent(mark, payload, stats),
            Message::LargeRead { .. } | Message::LargeWrite { .. } => {
                return self.receive.large(&message, payload, stats);
            }
            Message::ReadDone { transfer } => self.send.read_done(transfer, effects, stats)?,
            Message::Location {
                transfer,
                offset,
                len,
                descriptor,
            } => {
                self.send.location(transfer, offset, len, descriptor)?;
            }
            Message::WriteDone {
                transfer,
                offset,
                len,
            } => {
                self.receive
                    .write_done(transfer, offset, len, effects, stats)?;
            }
            Message::Refused {
                transfer,
                offset,
                len,
            } => {
                stats.refused_received += 1;
                self.send.refused(transfer, offset, len, effects, stats)?;
            }
            Message::Credit => stats.credits_received += 1,
            Message::KeepAlive { .. } => {}
            Message::Shutdown {
                send,
                receive,
                finished,
            } => {
                self.peer_shutdown(send, receive, finished)?;
            }
            Message::Suspend { end } => self.peer_suspended(end, false)?,
            Message::Suspended { end } => self.peer_suspended(end, true)?,
            Message::Return { .. } => return self.peer_returned(&message, payload),
            Message::Reset { reason } => self.fail(Failure::Reset(reason), None),
            Message::Negotiate(_) | Message::Accepted(_) => return Err(ProtocolError::Unexpected),
        }
        Ok(Incoming::Control)
    }

    /// The buffer of one handled message is posted again.
    pub fn handle_reposted(&mut self) {
        self.credits.reposted();
    }

    /// One polled message has left its send buffer.
    pub fn handle_sent(&mut self) {
        self.send_free = self.config.send_buffers.min(self.send_free + 1);
    }

    /// The answer to [`Action::Expose`].
    pub fn handle_exposed(&mut self, memory: Memory, result: Result<&[u8], NoBuffers>) {
        let longest = match &self.peer {
            Some(peer) => self.config.descriptor_len.min(peer.max_descriptor),
            None => self.config.descriptor_len,
        };
        let usable = |bytes: &[u8]| Descriptor::new(bytes).filter(|_| bytes.len() <= longest);
        let result = result.and_then(|bytes| {
            usable(bytes).map(Some).ok_or_else(|| {
                // A descriptor that does not fit helps nobody.
                self.effects.push_back(Action::Conceal { memory });
                NoBuffers
            })
        });
        self.prepared(memory, Asked::Exposed, result);
    }

    /// The answer to [`Action::Register`].
    pub fn handle_registered(&mut self, memory: Memory, result: Result<(), NoBuffers>) {
        self.prepared(memory, Asked::Registered, result.map(|()| None));
    }

    /// The answer to [`Action::AllocateTemp`].
    pub fn handle_allocated(&mut self, temp: TempId, result: Result<(), NoBuffers>) {
        self.prepared(Memory::Temp(temp), Asked::Allocated, result.map(|()| None));
    }

    fn prepared(
        &mut self,
        memory: Memory,
        asked: Asked,
        result: Result<Option<Descriptor>, NoBuffers>,
    ) {
        match memory {
            Memory::Send(send) => self.send.prepared(send, result, &mut self.effects),
            _ => self
                .receive
                .prepared(memory, asked, result, &mut self.effects),
        }
    }

    /// The answer to [`Action::RdmaRead`] and [`Action::RdmaWrite`].
    pub fn handle_rdma_done(&mut self, rdma: RdmaId, result: Result<(), RdmaFailed>) {
        let known = if rdma.is_write() {
            self.send.write_done(rdma, &mut self.effects)
        } else {
            self.receive
                .read_done(rdma, result.is_ok(), &mut self.effects)
        };
        if known.is_ok() && result.is_err() {
            self.fail(Failure::RdmaFailed, Some(ResetReason::RdmaFailed));
        }
    }

    /// The time that [`Session::poll_timeout`] named has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.stage != Stage::Done && now >= self.negotiation_deadline {
            self.fail(Failure::NegotiationTimedOut, None);
        }
        if self.alive.timed_out(now) {
            self.fail(Failure::KeepAliveTimedOut, Some(ResetReason::KeepAlive));
        }
        self.close_timed_out();
    }

    // ---- what the application wants

    /// Queues `len` bytes, which stay where they are until [`Action::SendComplete`].
    ///
    /// # Errors
    ///
    /// Why not. Then no completion follows.
    pub fn send(&mut self, send: SendId, len: u64) -> Result<(), SendError> {
        self.send_open()?;
        if len > u32::MAX.into() {
            return Err(SendError::TooLong);
        }
        if len == 0 {
            self.effects.push_back(Action::SendComplete {
                send,
                result: Ok(()),
            });
            return Ok(());
        }
        self.send.push(send, len, false, self.peer.as_ref())
    }

    /// The message of a small send that can leave at once and whole, past the queue: then the send
    /// is over, and neither [`Action::SendComplete`] nor the message follows as an action. `None`
    /// if it cannot; then nothing has changed.
    ///
    /// For the time between two drains: what may be due otherwise comes first.
    #[must_use]
    pub fn send_at_once(&mut self, send: SendId, len: u64) -> Option<Outgoing> {
        let (free, permitted) = (self.send_free > 0, self.credits.may_send(Class::Data));
        if !free || !permitted || !self.is_plain() {
            return None;
        }
        let peer = self.peer.as_ref()?;
        let (message, body) = self.send.at_once(send, len, peer, &mut self.stats)?;
        Some(self.outgoing(message, body))
    }

    /// Queues urgent bytes, at most [`Session::max_urgent`], in order with the other sends.
    ///
    /// # Errors
    ///
    /// Why not. Then no completion follows.
    pub fn send_urgent(&mut self, send: SendId, len: u32) -> Result<(), SendError> {
        self.send_open()?;
        if self.peer.is_some_and(|peer| !peer.urgent) {
            return Err(SendError::Unsupported);
        }
        if len == 0 || len > self.max_urgent() {
            return Err(SendError::TooLong);
        }
        self.send.push(send, len.into(), true, self.peer.as_ref())
    }

    /// Takes back what of a send has not left yet.
    pub fn cancel(&mut self, send: SendId) -> Cancel {
        self.send.cancel(send, &mut self.effects)
    }

    /// The application took `n` bytes of what [`Session::readable`] names, at most all of them.
    pub fn consumed(&mut self, n: u64) {
        self.receive.consume(n, &mut self.effects);
    }

    /// The application took, or the driver dropped, `n` urgent bytes.
    pub fn urgent_consumed(&mut self, n: u64) {
        self.receive.consume_urgent(n);
    }

    /// While true, large data is not fetched ahead into temporary memory, because the driver is
    /// going to pull it into the buffer of an application that waits.
    pub fn set_direct(&mut self, direct: bool) {
        self.receive.set_direct(direct);
    }

    /// Whether large data stays with the peer because of that.
    #[must_use]
    pub fn is_kept_back(&self) -> bool {
        self.receive.is_kept_back()
    }

    /// Fetches up to `len` bytes of [`Readable::Remote`] straight into the application's buffer,
    /// which stays where it is until [`Action::PullComplete`].
    ///
    /// # Errors
    ///
    /// Why not. Then no completion follows.
    pub fn pull(&mut self, len: u64) -> Result<PullId, PullError> {
        if self.connection != Connection::Up {
            return Err(PullError::NothingRemote);
        }
        self.receive.pull(len, &mut self.effects)
    }

    // ---- what to do now

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.effects.pop_front() {
            return Some(action);
        }
        if self.is_plain() {
            return self.poll_credit().map(Action::Message);
        }
        self.poll_rest()
    }

    /// As [`Session::poll_action`], with the whole of what may be due.
    fn poll_rest(&mut self) -> Option<Action> {
        self.go_on();
        if let Some(action) = self.effects.pop_front() {
            return Some(action);
        }
        self.poll_rdma()
            .or_else(|| self.poll_message().map(Action::Message))
            .or_else(|| self.poll_disconnect())
    }

    /// Nothing is under way but small messages that came and went: no action can be due but a
    /// Credit, and a small send may go past the queue. So a stream of small messages costs little.
    fn is_plain(&self) -> bool {
        self.connection == Connection::Up
            && self.stage == Stage::Done
            && self.effects.is_empty()
            && self.send.is_plain()
            && self.receive.is_plain()
            && !self.alive.is_due()
            && !self.back.is_active()
            && !self.closing.is_due()
    }

    /// The Credit that is due where nothing else is.
    fn poll_credit(&mut self) -> Option<Outgoing> {
        let due = self.send_free > 0
            && self.credits.may_send(Class::Last)
            && self.credits.must_return(self.receive.room());
        if !due {
            return None;
        }
        self.stats.credits_sent += 1;
        Some(self.outgoing(Message::Credit, None))
    }

    /// Does what has become possible without anything having arrived.
    fn go_on(&mut self) {
        if let (Connection::Up, Stage::Done, Some(peer)) = (self.connection, self.stage, &self.peer)
        {
            self.send.prepare(&self.config, peer, &mut self.effects);
            self.receive.fetch(&mut self.effects);
        }
        self.watch_close();
    }

    fn poll_rdma(&mut self) -> Option<Action> {
        let peer = self.peer.as_ref()?;
        if self.connection != Connection::Up {
            return None;
        }
        let stats = &mut self.stats;
        self.receive
            .poll_read(peer, stats)
            .or_else(|| self.send.poll_write(peer, stats))
    }

    fn poll_message(&mut self) -> Option<Outgoing> {
        if self.send_free == 0 {
            return None;
        }
        let (message, body) = match (self.connection, self.stage) {
            (Connection::Up, Stage::Done) => self.poll_content()?,
            _ if !self.credits.may_send(Class::Last) => return None,
            (Connection::Up, _) => (self.poll_negotiation()?, None),
            (Connection::Failing, _) => (self.poll_reset()?, None),
            (Connection::Gone | Connection::Down, _) => return None,
        };
        Some(self.outgoing(message, body))
    }

    /// A message that has its send buffer and its credit.
    fn outgoing(&mut self, message: Message, body: Option<Body>) -> Outgoing {
        self.send_free -= 1;
        self.stats.messages_sent += 1;
        self.alive.spoke();
        // req: SEED-02 the peer learns how many of its messages have a buffer
        let credit = self.credits.message_sent(self.receive.room());
        self.send.made(self.credits.last_sent());
        let version = self.peer.as_ref().map_or(0, |peer| peer.version);
        Outgoing {
            message,
            version,
            credit,
            body,
        }
    }

    /// The next message of an established session, by urgency: what completes something first,
    /// because memory is held for it; credit last, because every message carries it.
    fn poll_content(&mut self) -> Option<Content> {
        if self.credits.may_send(Class::Completion)
            && let Some(content) = self.poll_completion()
        {
            return Some(content);
        }
        let permitted = self.credits.may_send(Class::Data);
        if self.send.wants_data(permitted, &mut self.stats) {
            let peer = self.peer.as_ref()?;
            return self
                .send
                .poll_data(peer, &mut self.effects, &mut self.stats);
        }
        // req: WSD-19 explicit only if nothing else carries it
        let last = self.credits.may_send(Class::Last);
        if last && self.credits.must_return(self.receive.room()) {
            self.stats.credits_sent += 1;
            return Some((Message::Credit, None));
        }
        None
    }

    fn poll_completion(&mut self) -> Option<Content> {
        if let Some(message) = self.receive.poll_completion(&mut self.stats) {
            return Some((message, None));
        }
        let peer = self.peer.as_ref()?;
        let (effects, stats) = (&mut self.effects, &mut self.stats);
        if let Some(content) = self.send.poll_completion(peer, effects, stats) {
            return Some(content);
        }
        if let Some(content) = self.poll_return() {
            return Some(content);
        }
        if let Some(message) = self.poll_shutdown() {
            return Some((message, None));
        }
        let query = self.alive.poll()?;
        self.stats.keep_alives_sent += 1;
        Some((Message::KeepAlive { query }, None))
    }

    /// When to call [`Session::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.connection == Connection::Down {
            return None;
        }
        let negotiation = (self.stage != Stage::Done && self.connection == Connection::Up)
            .then_some(self.negotiation_deadline);
        [negotiation, self.alive.deadline(), self.close_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- getters

    /// Where the next bytes of the stream are.
    #[must_use]
    pub fn readable(&self) -> Readable {
        match (self.receive.readable(), self.failure) {
            (Readable::Nothing | Readable::Remote { .. }, Some(failure)) => {
                Readable::Failed(failure)
            }
            (readable, _) => readable,
        }
    }

    /// The application has read exactly up to the urgent mark.
    #[must_use]
    pub fn at_mark(&self) -> bool {
        self.receive.mark() == Some(self.receive.consumed_offset())
    }

    /// The position of the latest urgent data that has not been read past.
    #[must_use]
    pub fn mark(&self) -> Option<u64> {
        self.receive.mark()
    }

    /// The position of the next byte to read.
    #[must_use]
    pub fn consumed_offset(&self) -> u64 {
        self.receive.consumed_offset()
    }

    /// The peer has received every byte before this position, whatever becomes of the connection.
    ///
    /// It never goes back, and may lag behind by as many messages as the peer has buffers.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.send.acknowledged()
    }

    /// Every byte before this position has arrived: when the connection has failed, the application
    /// still reads exactly up to here.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.receive.received()
    }

    /// What a failure has left undone of what was accepted, in the order of the stream, without what
    /// messages have taken. Their bytes are the driver's until it has polled their completions.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        self.send.left()
    }

    /// Where the message after the last one would have begun.
    #[must_use]
    pub fn sent_offset(&self) -> u64 {
        self.send.offset()
    }

    /// Whether urgent bytes were sent, or were to be sent when the session failed.
    #[must_use]
    pub fn has_sent_urgent(&self) -> bool {
        self.send.has_sent_urgent()
    }

    /// The negotiation has succeeded.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.stage == Stage::Done
    }

    /// What the peer said, and what follows from it.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The name of the session: the connector's once the acceptor knows it.
    #[must_use]
    pub fn session_id(&self) -> [u8; 16] {
        self.session_id
    }

    /// Why the session is over, unless gracefully or not at all.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// [`Action::Disconnect`] was polled, or the peer is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.connection, Connection::Gone | Connection::Down)
    }

    /// Disconnected, and nothing is left to be reported or released but unread data.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.connection == Connection::Down
            && self.effects.is_empty()
            && self.send.is_empty()
            && self.receive.is_settled()
    }

    /// Sends that are accepted and not completed.
    #[must_use]
    pub fn sends_pending(&self) -> usize {
        self.send.pending()
    }

    /// How many more sends are accepted now.
    #[must_use]
    pub fn send_capacity(&self) -> usize {
        self.send.capacity()
    }

    /// Bytes of the stream that wait here for the application.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.receive.unread()
    }

    /// Most bytes of one urgent send.
    #[must_use]
    pub fn max_urgent(&self) -> u32 {
        self.peer
            .as_ref()
            .map_or(MIN_BUFFER - HEADER, |peer| peer.payload)
    }

    /// How many messages each side may send now.
    #[must_use]
    pub fn credit(&self) -> Credit {
        self.credits.show()
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The configuration as it is used, with its limits raised where they had to be.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

#[cfg(any(test, feature = "testing"))]
impl Session {
    /// Whether the short ways of [`Session::poll_action`] and [`Session::send_at_once`] lead to what
    /// the long ones lead to.
    #[must_use]
    pub fn agrees(&self) -> bool {
        // One length at a time: this is asked after every action.
        let len = match self.stats.messages_sent % 4 {
            0 => 1,
            1 => 512,
            2 => 513,
            _ => u64::MAX,
        };
        !self.is_plain() || (self.polls_alike() && self.sends_alike(len))
    }

    fn polls_alike(&self) -> bool {
        let (mut short, mut long) = (self.clone(), self.clone());
        let found = alloc::format!("{:?}", short.poll_action());
        found == alloc::format!("{:?}", long.poll_rest())
            && short.fingerprint() == long.fingerprint()
    }

    fn sends_alike(&self, len: u64) -> bool {
        let payload = self.peer.as_ref().map_or(1, |peer| peer.payload);
        let (len, send) = (len.min(u64::from(payload) + 1), SendId(u64::MAX - 1));
        let (mut short, mut long) = (self.clone(), self.clone());
        let Some(message) = short.send_at_once(send, len) else {
            return true;
        };
        let expected = [
            Action::Message(message),
            Action::SendComplete {
                send,
                result: Ok(()),
            },
        ];
        let sent = long.send(send, len).is_ok() && short.stats != self.stats;
        let made = expected
            .iter()
            .all(|action| long.poll_action().as_ref() == Some(action));
        sent && made && short.stats == long.stats && short.fingerprint() == long.fingerprint()
    }

    /// A text that is equal for equal states: everything but time and statistics.
    #[must_use]
    pub fn fingerprint(&self) -> alloc::string::String {
        let mut same = self.clone();
        same.stats = Stats::default();
        same.now = Instant::ZERO;
        same.negotiation_deadline = Instant::ZERO;
        same.alive.stop();
        same.send.forget_stall();
        alloc::format!("{same:?}")
    }

    /// The peer's cumulative credit as it was told last.
    #[must_use]
    pub fn granted_to_send(&self) -> u32 {
        self.credits.limit()
    }

    /// How much every queue can take without asking the allocator.
    #[must_use]
    pub fn capacities(&self) -> [usize; 7] {
        let [queue, transfers, points] = self.send.capacities();
        let [segments, incoming, chunks] = self.receive.capacities();
        [
            self.effects.capacity(),
            queue,
            transfers,
            points,
            segments,
            incoming,
            chunks,
        ]
    }
}
