//! The outgoing half: the queue of sends, and large transfers until the peer has them.
//!
//! Owns the order of the stream: a send gets its position when its (first) message is made, so one
//! that fails before that leaves no hole. Large sends are the affair of [`large`].
//!
//! Invariant: each accepted send is either in `queue`, or in `transfers`, or completed exactly once.

mod confirmed;
mod large;
mod left;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use confirmed::Confirmed;
use large::{Owner, Phase, Transfer};
pub use left::Left;

use super::action::{Action, Body, Cancel, End, SendId};
use super::config::{Config, Peer, SendMode, Stats};
use super::error::{Failure, SendError, SendFailure};
use super::message::Message;
use super::rdma::Operations;

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
    end: Ending,
    peer_closed: bool,
    stalled: bool,
    confirmed: Confirmed,
    sent_urgent: bool,
    /// What a failure has taken out of the queue, or out of the peer's reach.
    left: Vec<Left>,
}

/// How far the end of the outgoing stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Open,
    Wanted(End),
    Told(End),
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
            end: Ending::Open,
            peer_closed: false,
            stalled: false,
            confirmed: Confirmed::new(),
            sent_urgent: false,
            left: Vec::new(),
        }
    }

    // ---- what the application wants

    /// Whether a send would be refused whatever the room in the queue.
    pub(super) fn open(&self) -> Result<(), SendError> {
        if self.peer_closed {
            return Err(SendError::PeerClosed);
        }
        match self.end {
            Ending::Open => Ok(()),
            Ending::Wanted(End::Shutdown) | Ending::Told(End::Shutdown) => Err(SendError::Shutdown),
            Ending::Wanted(End::Suspended) | Ending::Told(End::Suspended) => {
                Err(SendError::Suspended)
            }
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

    /// The stream ends behind what was accepted so far. It ends once: the first wish counts.
    pub(super) fn end(&mut self, how: End) {
        if self.end == Ending::Open {
            self.end = Ending::Wanted(how);
        }
    }

    pub(super) fn told_end(&self) -> Option<End> {
        match self.end {
            Ending::Told(how) => Some(how),
            Ending::Open | Ending::Wanted(_) => None,
        }
    }

    /// Everything that was accepted is with the peer, and so is the end.
    pub(super) fn is_over(&self) -> bool {
        self.told_end().is_some() && self.transfers.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.transfers.is_empty()
    }

    /// Nothing waits, nothing is under way, and the stream goes on.
    pub(super) fn is_plain(&self) -> bool {
        self.is_empty() && self.end == Ending::Open
    }

    // ---- what arrives

    /// The peer does not receive any more: what has not left yet fails.
    pub(super) fn peer_closed(&mut self, effects: &mut Effects) {
        self.peer_closed = true;
        self.end(End::Shutdown);
        self.drop_queue(SendFailure::PeerClosed, effects);
    }

    /// The connection is gone: everything fails.
    pub(super) fn fail(&mut self, failure: Failure, effects: &mut Effects) {
        self.settle_confirmed();
        self.note_left();
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

    /// The one message of a small send that need not be queued. Only if [`SendSide::is_plain`] and
    /// data may be sent.
    pub(super) fn at_once(
        &mut self,
        send: SendId,
        len: u64,
        peer: &Peer,
        stats: &mut Stats,
    ) -> Option<Content> {
        let len = u32::try_from(len)
            .ok()
            .filter(|len| (1..=peer.payload).contains(len))?;
        if self.peer_closed || Kind::of(len.into(), peer) == Kind::Large {
            return None;
        }
        self.stalled = false;
        Some((
            self.data(len, stats),
            Some(Body {
                send,
                offset: 0,
                len,
            }),
        ))
    }

    /// The message with the next bytes of the stream.
    fn data(&mut self, len: u32, stats: &mut Stats) -> Message {
        let offset = self.offset;
        self.offset += u64::from(len);
        stats.data_sent += 1;
        stats.bytes_sent += u64::from(len);
        // req: SEED-04 small data travels inside control messages, split if need be
        Message::Data { offset, len }
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
        let (content, is_over) = match entry.kind {
            Kind::Undecided => return None,
            Kind::Large => {
                // req: SEED-16 what follows goes on while this is in flight
                let content = self.begin(send, stats)?;
                self.queue.pop_front();
                return Some(content);
            }
            Kind::Urgent => {
                let len = u32::try_from(len).ok()?;
                self.sent_urgent = true;
                stats.urgent_sent += 1;
                let body = Body {
                    send,
                    offset: 0,
                    len,
                };
                let mark = self.offset;
                ((Message::Urgent { mark, len }, Some(body)), true)
            }
            Kind::Small => {
                let n = peer
                    .payload
                    .min(u32::try_from(len - entry.sent).unwrap_or(u32::MAX));
                let body = Body {
                    send,
                    offset: entry.sent,
                    len: n,
                };
                entry.sent += u64::from(n);
                let is_over = entry.sent == entry.len;
                ((self.data(n, stats), Some(body)), is_over)
            }
        };
        if is_over {
            self.queue.pop_front();
            effects.push_back(Action::SendComplete {
                send,
                result: Ok(()),
            });
        }
        Some(content)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn capacities(&self) -> [usize; 3] {
        [
            self.queue.capacity(),
            self.transfers.capacity(),
            self.points_capacity(),
        ]
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn forget_stall(&mut self) {
        self.stalled = false;
    }

    /// The end, and the length of the stream, if it is wanted and everything before it has left.
    pub(super) fn end_due(&self) -> Option<(End, u64)> {
        match self.end {
            Ending::Wanted(how) if self.queue.is_empty() => Some((how, self.offset)),
            _ => None,
        }
    }

    pub(super) fn end_told(&mut self, how: End) {
        self.end = Ending::Told(how);
        self.end_made();
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
