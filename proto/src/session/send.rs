//! The outgoing half: the queue of sends, and large transfers until the peer has them.
//!
//! Owns the order of the stream: a send gets its position when its (first) message is made, so one
//! that fails before that leaves no hole. Memory of a large send is exposed or registered before
//! its message is made, and given back before its completion is reported.
//!
//! Invariant: each accepted send is either in `queue`, or in `transfers`, or completed exactly once.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::action::{Access, Action, Body, Cancel, Memory, SendId};
use super::config::{Config, Peer, SendMode, Stats};
use super::error::{Failure, NoBuffers, ProtocolError, SendError, SendFailure};
use super::message::{Descriptor, Message, TransferId};
use super::rdma::{Few, Operations, RdmaId};

/// Locations the receiver may have told for one transfer and not yet got written.
pub(super) const MAX_LOCATIONS: usize = 4;

pub(super) type Effects = VecDeque<Action>;
/// A message with the bytes that belong into it.
pub(super) type Content = (Message, Option<Body>);

#[derive(Clone, Debug)]
pub(super) struct SendSide {
    queue: VecDeque<Entry>,
    max_sends: usize,
    /// In the order of the queue, which is the order of their identifiers.
    transfers: Vec<Transfer>,
    /// Large sends in the queue that have no transfer yet.
    unprepared: usize,
    writes: Operations<Owner>,
    last_id: u32,
    offset: u64,
    end: End,
    peer_closed: bool,
    stalled: bool,
}

/// How far the end of the outgoing stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Open,
    Wanted,
    Told,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    send: SendId,
    len: u64,
    sent: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Not yet known whether it is large: nothing is agreed upon.
    Undecided,
    Small,
    Large,
    Urgent,
}

#[derive(Clone, Debug)]
struct Transfer {
    send: SendId,
    /// 0 until the first message is made.
    id: TransferId,
    /// Position in the stream.
    start: u64,
    len: u64,
    initial: u32,
    mode: SendMode,
    phase: Phase,
    /// Exposed or registered.
    held: bool,
    descriptor: Option<Descriptor>,
    /// Up to here the receiver has told locations.
    located: u64,
    locations: Few<Location, MAX_LOCATIONS>,
    next_location: u32,
    /// Writes in flight.
    writing: u32,
    /// The part to be sent in messages: (next, end).
    fill: Option<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Waits for its memory.
    Preparing,
    /// Waits for its turn.
    Prepared,
    /// The peer knows it.
    Active,
    /// Waits for the driver's answers, then completes like this.
    Dying(SendFailure),
}

#[derive(Clone, Copy, Debug)]
struct Location {
    number: u32,
    /// Position within the transfer.
    offset: u64,
    len: u64,
    descriptor: Descriptor,
    issued: u64,
    writing: u32,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    send: SendId,
    location: u32,
}

impl SendSide {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            queue: VecDeque::with_capacity(config.max_sends),
            max_sends: config.max_sends,
            transfers: Vec::with_capacity(config.max_large.into()),
            unprepared: 0,
            writes: Operations::new(config.max_rdma_in_flight, true),
            last_id: 0,
            offset: 0,
            end: End::Open,
            peer_closed: false,
            stalled: false,
        }
    }

    // ---- what the application wants

    /// Whether a send would be refused whatever the room in the queue.
    pub(super) fn open(&self) -> Result<(), SendError> {
        if self.peer_closed {
            Err(SendError::PeerClosed)
        } else if self.end != End::Open {
            Err(SendError::Shutdown)
        } else {
            Ok(())
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.max_sends.saturating_sub(self.queue.len())
    }

    pub(super) fn pending(&self) -> usize {
        let active =
            |transfer: &&Transfer| matches!(transfer.phase, Phase::Active | Phase::Dying(_));
        self.queue.len() + self.transfers.iter().filter(active).count()
    }

    pub(super) fn push(
        &mut self,
        send: SendId,
        len: u64,
        urgent: bool,
        peer: Option<&Peer>,
    ) -> Result<(), SendError> {
        self.open()?;
        if self.capacity() == 0 {
            return Err(SendError::Full);
        }
        let kind = match (urgent, peer) {
            (true, _) => Kind::Urgent,
            (false, Some(peer)) => Kind::of(len, peer),
            (false, None) => Kind::Undecided,
        };
        self.unprepared += usize::from(kind == Kind::Large);
        self.queue.push_back(Entry {
            send,
            len,
            sent: 0,
            kind,
        });
        Ok(())
    }

    /// The threshold is known now.
    pub(super) fn decide(&mut self, peer: &Peer) {
        for entry in &mut self.queue {
            match entry.kind {
                Kind::Undecided => entry.kind = Kind::of(entry.len, peer),
                // Better late than never.
                Kind::Urgent if !peer.urgent => entry.kind = Kind::Small,
                _ => {}
            }
            self.unprepared += usize::from(entry.kind == Kind::Large);
        }
    }

    pub(super) fn cancel(&mut self, send: SendId, effects: &mut Effects) -> Cancel {
        let transfer = self
            .transfers
            .iter()
            .position(|transfer| transfer.send == send);
        let phase = transfer
            .and_then(|at| self.transfers.get(at))
            .map(|transfer| transfer.phase);
        if matches!(
            phase,
            Some(Phase::Preparing | Phase::Active | Phase::Dying(_))
        ) {
            return Cancel::InFlight;
        }
        let Some(at) = self.queue.iter().position(|entry| entry.send == send) else {
            return Cancel::Unknown;
        };
        let Some(entry) = self.queue.remove(at) else {
            return Cancel::Unknown;
        };
        match transfer {
            Some(at) => self.transfers.remove(at).release(effects),
            None => self.unprepared -= usize::from(entry.kind == Kind::Large),
        }
        Cancel::Removed { sent: entry.sent }
    }

    pub(super) fn shutdown(&mut self) {
        if self.end == End::Open {
            self.end = End::Wanted;
        }
    }

    /// Everything that was accepted is with the peer, and so is the end.
    pub(super) fn is_over(&self) -> bool {
        self.end == End::Told && self.transfers.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.transfers.is_empty()
    }

    // ---- memory

    /// Asks for the memory of large sends ahead of their turn, as many as may be in flight.
    pub(super) fn prepare(&mut self, config: &Config, peer: &Peer, effects: &mut Effects) {
        while self.unprepared > 0 && self.transfers.len() < usize::from(peer.max_large) {
            let transfers = &self.transfers;
            let entry = self.queue.iter().find(|entry| {
                entry.kind == Kind::Large && !transfers.iter().any(|t| t.send == entry.send)
            });
            let Some(&Entry { send, len, .. }) = entry else {
                return;
            };
            self.unprepared -= 1;
            let head = match peer.send_mode {
                SendMode::Read => config.descriptor_len,
                SendMode::Write | SendMode::MessagesOnly => 0,
            };
            let room = peer
                .payload
                .saturating_sub(u32::try_from(head).unwrap_or(u32::MAX));
            let half = u32::try_from(len / 2).unwrap_or(u32::MAX);
            // req: SEED-05 the initial portion travels in the control message
            let initial = config.initial_portion.min(room).min(half);
            let (memory, offset) = (Memory::Send(send), u64::from(initial));
            effects.push_back(match peer.send_mode {
                // req: SEED-06 the memory is exposed before its message is made
                SendMode::Read => Action::Expose {
                    memory,
                    access: Access::Read,
                    offset,
                    len: len - offset,
                },
                SendMode::Write | SendMode::MessagesOnly => Action::Register {
                    memory,
                    access: Access::Read,
                    offset,
                    len: len - offset,
                },
            });
            self.transfers.push(Transfer {
                send,
                id: TransferId(0),
                start: 0,
                len,
                initial,
                mode: peer.send_mode,
                phase: Phase::Preparing,
                held: false,
                descriptor: None,
                located: initial.into(),
                locations: Few::new(),
                next_location: 0,
                writing: 0,
                fill: None,
            });
        }
    }

    /// The driver's answer to `Expose` (with a descriptor) or `Register` (without).
    pub(super) fn prepared(
        &mut self,
        send: SendId,
        result: Result<Option<Descriptor>, NoBuffers>,
        effects: &mut Effects,
    ) {
        let asked = |transfer: &Transfer| {
            transfer.send == send
                && !transfer.held
                && matches!(transfer.phase, Phase::Preparing | Phase::Dying(_))
        };
        let Some(at) = self.transfers.iter().position(asked) else {
            return;
        };
        let Some(transfer) = self.transfers.get_mut(at) else {
            return;
        };
        transfer.held = result.is_ok();
        match (transfer.phase, result) {
            (Phase::Dying(failure), _) => self.finish(at, Err(failure), effects),
            (_, Ok(descriptor)) => {
                transfer.descriptor = descriptor;
                transfer.phase = Phase::Prepared;
            }
            // req: SEED-10, WSD-21 nothing of the send has left, and nothing of it will
            (_, Err(NoBuffers)) => {
                self.queue.retain(|entry| entry.send != send);
                self.finish(at, Err(SendFailure::NoBuffers), effects);
            }
        }
    }

    /// Gives the memory back, then reports the end.
    fn finish(&mut self, at: usize, result: Result<(), SendFailure>, effects: &mut Effects) {
        let transfer = self.transfers.remove(at);
        // req: SEED-09 released first, completed then
        transfer.release(effects);
        effects.push_back(Action::SendComplete {
            send: transfer.send,
            result,
        });
    }

    // ---- what arrives

    fn active(&mut self, id: TransferId) -> Result<(usize, &mut Transfer), ProtocolError> {
        self.transfers
            .iter_mut()
            .enumerate()
            .find(|(_, transfer)| transfer.id == id && transfer.phase == Phase::Active)
            .ok_or(ProtocolError::Transfer)
    }

    pub(super) fn read_done(
        &mut self,
        id: TransferId,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let (at, transfer) = self.active(id)?;
        let owes = transfer.fill.is_some_and(|(next, end)| next < end);
        if owes || !transfer.locations.is_empty() {
            return Err(ProtocolError::Transfer);
        }
        self.finish(at, Ok(()), effects);
        Ok(())
    }

    pub(super) fn location(
        &mut self,
        id: TransferId,
        offset: u64,
        len: u64,
        descriptor: Descriptor,
    ) -> Result<(), ProtocolError> {
        let (_, transfer) = self.active(id)?;
        if transfer.mode != SendMode::Write || transfer.fill.is_some() {
            return Err(ProtocolError::Transfer);
        }
        let part = transfer.part(offset, len, transfer.located)?;
        let location = Location {
            number: transfer.next_location,
            offset: part,
            len,
            descriptor,
            issued: 0,
            writing: 0,
        };
        if !transfer.locations.push(location) {
            return Err(ProtocolError::TooManyTransfers);
        }
        transfer.next_location = transfer.next_location.wrapping_add(1);
        transfer.located = part + len;
        Ok(())
    }

    pub(super) fn refused(
        &mut self,
        id: TransferId,
        offset: u64,
        len: u64,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let (_, transfer) = self.active(id)?;
        let next = match (transfer.fill, transfer.mode) {
            (Some((_, end)), _) => end,
            (None, SendMode::Write) => transfer.located,
            // How far the receiver has read it alone knows.
            (None, _) => offset
                .checked_sub(transfer.start)
                .ok_or(ProtocolError::Range)?,
        };
        if next < transfer.initial.into() || !transfer.locations.is_empty() {
            return Err(ProtocolError::Transfer);
        }
        let part = transfer.part(offset, len, next)?;
        match &mut transfer.fill {
            Some((_, end)) => *end += len,
            None => transfer.fill = Some((part, part + len)),
        }
        // No RDMA will touch it any more.
        transfer.release(effects);
        transfer.held = false;
        Ok(())
    }

    /// The end of one write; `Err` if there is no such write.
    pub(super) fn write_done(&mut self, rdma: RdmaId, effects: &mut Effects) -> Result<(), ()> {
        let owner = self.writes.end(rdma).ok_or(())?;
        let at = self
            .transfers
            .iter()
            .position(|t| t.send == owner.send)
            .ok_or(())?;
        let transfer = self.transfers.get_mut(at).ok_or(())?;
        transfer.writing -= 1;
        for location in transfer.locations.iter_mut() {
            if location.number == owner.location {
                location.writing -= 1;
            }
        }
        if let (Phase::Dying(failure), 0) = (transfer.phase, transfer.writing) {
            self.finish(at, Err(failure), effects);
        }
        Ok(())
    }

    /// The peer does not receive any more: what has not left yet fails.
    pub(super) fn peer_closed(&mut self, effects: &mut Effects) {
        self.peer_closed = true;
        self.shutdown();
        self.drop_queue(SendFailure::PeerClosed, effects);
    }

    /// The connection is gone: everything fails.
    pub(super) fn fail(&mut self, failure: Failure, effects: &mut Effects) {
        self.drop_queue(SendFailure::Failed(failure), effects);
        self.kill(SendFailure::Failed(failure), |_| true, effects);
    }

    fn drop_queue(&mut self, failure: SendFailure, effects: &mut Effects) {
        while let Some(entry) = self.queue.pop_front() {
            if !self
                .transfers
                .iter()
                .any(|transfer| transfer.send == entry.send)
            {
                effects.push_back(Action::SendComplete {
                    send: entry.send,
                    result: Err(failure),
                });
            }
        }
        self.unprepared = 0;
        let waits = |phase| matches!(phase, Phase::Preparing | Phase::Prepared);
        self.kill(failure, waits, effects);
    }

    fn kill(&mut self, failure: SendFailure, which: impl Fn(Phase) -> bool, effects: &mut Effects) {
        let mut at = 0;
        while let Some(transfer) = self.transfers.get_mut(at) {
            if !which(transfer.phase) || matches!(transfer.phase, Phase::Dying(_)) {
                at += 1;
            } else if transfer.phase == Phase::Preparing || transfer.writing > 0 {
                transfer.phase = Phase::Dying(failure);
                at += 1;
            } else {
                self.finish(at, Err(failure), effects);
            }
        }
    }

    // ---- what to do now

    pub(super) fn poll_write(&mut self, peer: &Peer, stats: &mut Stats) -> Option<Action> {
        if self.transfers.is_empty() || self.writes.is_full() {
            return None;
        }
        for transfer in self
            .transfers
            .iter_mut()
            .filter(|t| t.phase == Phase::Active)
        {
            let unwritten = |location: &&mut Location| location.issued < location.len;
            let Some(location) = transfer.locations.iter_mut().find(unwritten) else {
                continue;
            };
            let owner = Owner {
                send: transfer.send,
                location: location.number,
            };
            let rdma = self.writes.begin(owner)?;
            // req: WSD-20 never more than the largest RDMA at once
            let len = (location.len - location.issued).min(peer.max_rdma);
            let action = Action::RdmaWrite {
                rdma,
                memory: Memory::Send(transfer.send),
                offset: location.offset + location.issued,
                len,
                remote: location.descriptor,
                remote_offset: location.issued,
            };
            location.issued += len;
            location.writing += 1;
            transfer.writing += 1;
            stats.rdma_writes += 1;
            stats.rdma_write_bytes += len;
            return Some(action);
        }
        None
    }

    /// The next message that completes a part of a transfer, or fills one.
    pub(super) fn poll_completion(
        &mut self,
        peer: &Peer,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Option<Content> {
        let mut at = 0;
        while let Some(transfer) = self.transfers.get_mut(at) {
            let done = transfer
                .locations
                .front()
                .is_some_and(|location| location.issued == location.len && location.writing == 0);
            if transfer.phase == Phase::Active && done {
                let location = transfer.locations.pop()?;
                let message = Message::WriteDone {
                    transfer: transfer.id,
                    offset: transfer.start + location.offset,
                    len: location.len,
                };
                if transfer.located == transfer.len && transfer.locations.is_empty() {
                    self.finish(at, Ok(()), effects);
                }
                return Some((message, None));
            }
            if let (Phase::Active, Some((next, end))) = (transfer.phase, &mut transfer.fill)
                && next < end
            {
                let len = peer
                    .payload
                    .min(u32::try_from(*end - *next).unwrap_or(u32::MAX));
                let body = Body {
                    send: transfer.send,
                    offset: *next,
                    len,
                };
                let offset = transfer.start + *next;
                *next += u64::from(len);
                stats.fill_bytes_sent += u64::from(len);
                return Some((
                    Message::Fill {
                        transfer: transfer.id,
                        offset,
                        len,
                    },
                    Some(body),
                ));
            }
            at += 1;
        }
        None
    }

    /// Whether there is data to send. Counts the times that `permitted` was missing.
    pub(super) fn wants_data(&mut self, permitted: bool, stats: &mut Stats) -> bool {
        let Some(entry) = self.queue.front() else {
            return false;
        };
        let ready = match entry.kind {
            Kind::Small | Kind::Urgent => true,
            Kind::Undecided => false,
            Kind::Large => self
                .transfers
                .iter()
                .any(|t| t.send == entry.send && t.phase == Phase::Prepared),
        };
        if ready && !permitted && !self.stalled {
            stats.stalls += 1;
        }
        self.stalled = ready && !permitted;
        ready && permitted
    }

    /// The next message with data of the queue. Only after `wants_data`.
    pub(super) fn poll_data(
        &mut self,
        peer: &Peer,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Option<Content> {
        let entry = self.queue.front_mut()?;
        let (send, len) = (entry.send, entry.len);
        let content = match entry.kind {
            Kind::Undecided => return None,
            Kind::Large => {
                let content = self.begin(send, stats)?;
                self.queue.pop_front();
                return Some(content);
            }
            Kind::Urgent => {
                let len = u32::try_from(len).ok()?;
                entry.sent = entry.len;
                stats.urgent_sent += 1;
                let body = Body {
                    send,
                    offset: 0,
                    len,
                };
                (
                    Message::Urgent {
                        mark: self.offset,
                        len,
                    },
                    Some(body),
                )
            }
            Kind::Small => {
                // req: SEED-04 small data travels inside control messages, split if need be
                let n = peer
                    .payload
                    .min(u32::try_from(len - entry.sent).unwrap_or(u32::MAX));
                let body = Body {
                    send,
                    offset: entry.sent,
                    len: n,
                };
                let offset = self.offset;
                entry.sent += u64::from(n);
                self.offset += u64::from(n);
                stats.data_sent += 1;
                stats.bytes_sent += u64::from(n);
                (Message::Data { offset, len: n }, Some(body))
            }
        };
        if entry.sent == entry.len {
            self.queue.pop_front();
            effects.push_back(Action::SendComplete {
                send,
                result: Ok(()),
            });
        }
        Some(content)
    }

    /// The first message of a large transfer.
    fn begin(&mut self, send: SendId, stats: &mut Stats) -> Option<Content> {
        let prepared = |t: &&mut Transfer| t.send == send && t.phase == Phase::Prepared;
        let transfer = self.transfers.iter_mut().find(prepared)?;
        self.last_id = next_id(self.last_id);
        transfer.id = TransferId(self.last_id);
        transfer.start = self.offset;
        transfer.phase = Phase::Active;
        self.offset += transfer.len;
        stats.large_sent += 1;
        stats.bytes_sent += transfer.len;
        let (id, offset, total) = (transfer.id, transfer.start, transfer.len);
        let initial = transfer.initial;
        let body = (initial > 0).then_some(Body {
            send,
            offset: 0,
            len: initial,
        });
        let message = match transfer.descriptor {
            Some(descriptor) => Message::LargeRead {
                transfer: id,
                offset,
                total,
                initial,
                descriptor,
            },
            None => Message::LargeWrite {
                transfer: id,
                offset,
                total,
                initial,
            },
        };
        Some((message, body))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn forget_stall(&mut self) {
        self.stalled = false;
    }

    /// The length of the stream, if the end is wanted and everything before it has left.
    pub(super) fn end_due(&self) -> Option<u64> {
        (self.end == End::Wanted && self.queue.is_empty()).then_some(self.offset)
    }

    pub(super) fn end_told(&mut self) {
        self.end = End::Told;
    }
}

/// Identifiers count up and never are 0.
pub(super) const fn next_id(last: u32) -> u32 {
    match last.wrapping_add(1) {
        0 => 1,
        id => id,
    }
}

impl Kind {
    /// req: WSD-20 at the threshold a message, above it RDMA
    fn of(len: u64, peer: &Peer) -> Self {
        if len > peer.threshold && peer.send_mode != SendMode::MessagesOnly {
            Self::Large
        } else {
            Self::Small
        }
    }
}

impl Transfer {
    fn release(&self, effects: &mut Effects) {
        let memory = Memory::Send(self.send);
        match self.mode {
            _ if !self.held => {}
            SendMode::Read => effects.push_back(Action::Conceal { memory }),
            SendMode::Write | SendMode::MessagesOnly => {
                effects.push_back(Action::Deregister { memory });
            }
        }
    }

    /// Where in the transfer a part lies that must begin at `next`.
    fn part(&self, offset: u64, len: u64, next: u64) -> Result<u64, ProtocolError> {
        let part = offset.checked_sub(self.start).ok_or(ProtocolError::Range)?;
        let inside = part.checked_add(len).is_some_and(|end| end <= self.len);
        if part == next && inside {
            Ok(part)
        } else {
            Err(ProtocolError::Range)
        }
    }
}
