//! What a connection over the SAN tells of itself, and when.
//!
//! Owns the measuring of the round trip and what the sessions before this one have counted. It is
//! part of the connection's state, behind its lock. Without a slot it does next to nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wsd_proto::{HEADER_LEN, Session};

use super::Slot;
use super::layout::{RECORDED, slot};

/// Messages between two measurements of the round trip, at most: two looks at the clock are
/// nothing beside so many messages.
const BETWEEN: u64 = 64;

/// What does not come from the session.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    /// Bytes accepted from the application that wait.
    pub(crate) unsent: usize,
}

/// Tells of one connection.
#[derive(Default)]
pub(crate) struct Meter {
    slot: Option<Arc<Slot>>,
    /// What sessions before this one have counted, by word.
    before: [u64; COUNTED.len()],
    round_trip: RoundTrip,
    /// Messages of both directions when something was told last.
    told: u64,
    /// The same mixed with what was unread, when everything was.
    told_all: u64,
}

/// Words of a slot that only ever grow, over all sessions of a connection.
const COUNTED: [usize; 11] = [
    slot::BYTES_SENT,
    slot::BYTES_RECEIVED,
    slot::MESSAGES_SENT,
    slot::MESSAGES_RECEIVED,
    slot::RDMA_READ_BYTES,
    slot::RDMA_WRITE_BYTES,
    slot::RDMA_READS,
    slot::RDMA_WRITES,
    slot::STALLS,
    slot::LARGE_SENT,
    slot::LARGE_RECEIVED,
];

impl Meter {
    /// From now on the connection is shown.
    pub(crate) fn attach(&mut self, slot: Arc<Slot>, session: &Session) {
        self.before = COUNTED.map(|word| slot.counter(word));
        slot.set_session(session.session_id());
        self.slot = Some(slot);
        (self.told, self.told_all) = (u64::MAX, u64::MAX);
    }

    /// At the end of a call: writes what changes with each message, if there was one. Six stores:
    /// small messages are a matter of tens of nanoseconds.
    #[inline]
    pub(crate) fn tell(&mut self, session: &Session) {
        let Some(slot) = &self.slot else { return };
        let stats = session.stats();
        let messages = stats.messages_sent.wrapping_add(stats.messages_received);
        if messages == self.told {
            return;
        }
        self.told = messages;
        let [sent, received, messages_sent, messages_received, ..] = self.before;
        slot.count(|to| {
            to.set(slot::BYTES_SENT, sent.wrapping_add(stats.bytes_sent));
            to.set(
                slot::BYTES_RECEIVED,
                received.wrapping_add(stats.bytes_received),
            );
            to.set(
                slot::MESSAGES_SENT,
                messages_sent.wrapping_add(stats.messages_sent),
            );
            to.set(
                slot::MESSAGES_RECEIVED,
                messages_received.wrapping_add(stats.messages_received),
            );
        });
    }

    /// Before a wait, when time does not matter: writes everything, if there was a message.
    #[inline]
    pub(crate) fn tell_all(&mut self, session: &Session, queues: impl FnOnce() -> Queues) {
        let stats = session.stats();
        let messages = stats.messages_sent.wrapping_add(stats.messages_received);
        // What is read from here on changes without a message.
        let state = messages.rotate_left(32) ^ session.unread();
        if self.slot.is_some() && state != self.told_all {
            (self.told, self.told_all) = (messages, state);
            self.write(session, queues());
        }
    }

    fn write(&self, session: &Session, queues: Queues) {
        let Some(slot) = &self.slot else { return };
        let stats = session.stats();
        let counted = [
            stats.bytes_sent,
            stats.bytes_received,
            stats.messages_sent,
            stats.messages_received,
            stats.rdma_read_bytes,
            stats.rdma_write_bytes,
            stats.rdma_reads,
            stats.rdma_writes,
            stats.stalls,
            stats.large_sent,
            stats.large_received,
        ];
        let credit = session.credit();
        let round_trip = &self.round_trip;
        slot.count(|to| {
            for ((word, now), before) in COUNTED.iter().zip(counted).zip(self.before) {
                to.set(*word, before.wrapping_add(now));
            }
            let credits = u64::from(credit.to_send) | u64::from(credit.granted) << 32;
            to.set(slot::CREDITS, credits);
            to.set(slot::UNSENT, queues.unsent as u64);
            to.set(slot::UNREAD, session.unread());
            to.set(slot::RTT, nanos(round_trip.smoothed));
            to.set(slot::RTT_LEAST, nanos(round_trip.least));
            to.set(slot::RTT_SAMPLES, round_trip.samples);
        });
    }

    /// A message goes out. `answered`: the peer returns a credit for it.
    #[inline]
    pub(crate) fn sent(&mut self, session: &Session, answered: bool) {
        let number = session.stats().messages_sent;
        if number >= self.round_trip.next && answered && self.round_trip.since.is_none() {
            self.round_trip.begin(number);
        }
    }

    /// A message came in, and the session has taken it.
    #[inline]
    pub(crate) fn received(&mut self, session: &Session) {
        if self.round_trip.window.is_none() {
            self.round_trip.agree(session);
        }
        if self.round_trip.since.is_some() {
            self.round_trip.look(session);
        }
    }

    /// Shows the head of a message to whoever wants to see it. `len`: of all of it.
    #[inline]
    pub(crate) fn trace(&self, sent: bool, message: &[u8], len: impl FnOnce() -> usize) {
        if let Some(slot) = &self.slot
            && slot.is_traced()
        {
            slot.trace(sent, head(message), len());
        }
    }
}

/// The part of a message that is no application's data.
fn head(message: &[u8]) -> &[u8] {
    /// Types whose body is the protocol's own: the negotiation.
    const NEGOTIATION: std::ops::RangeInclusive<u8> = 1..=2;
    let len = match message {
        [kind, ..] if NEGOTIATION.contains(kind) => RECORDED,
        [_, _, _, descriptor, ..] => HEADER_LEN + usize::from(*descriptor),
        _ => RECORDED,
    };
    message.get(..len).unwrap_or(message)
}

/// The low and the high half.
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the peer takes to say that it has taken a message: measured for one message at a time,
/// from its leaving to the first message from the peer whose credit covers it.
#[derive(Default)]
struct RoundTrip {
    /// Messages this side may send ahead, as the peer granted at first. A cumulative credit less
    /// this is no more than what the peer has taken.
    window: Option<u32>,
    /// The message that is measured, and when it left.
    message: u64,
    since: Option<Instant>,
    /// The first message that may be measured next.
    next: u64,
    between: u64,
    smoothed: Duration,
    least: Duration,
    samples: u64,
}

impl RoundTrip {
    #[cold]
    fn begin(&mut self, message: u64) {
        self.message = message;
        self.since = Some(Instant::now());
    }

    #[cold]
    fn agree(&mut self, session: &Session) {
        // The peer has taken what was sent before its first word: the connector's first message,
        // or nothing.
        let sent = u32::try_from(session.stats().messages_sent).unwrap_or(0);
        self.window = Some(session.credit().limit.wrapping_sub(sent));
    }

    fn look(&mut self, session: &Session) {
        let taken = session
            .credit()
            .limit
            .wrapping_sub(self.window.unwrap_or(0));
        let sent = session.stats().messages_sent;
        // The credit is 32 bits wide and wraps around; so few messages are never under way.
        let [low, ..] = halves(sent);
        let under_way = low.wrapping_sub(taken);
        if u64::from(under_way) > sent.wrapping_sub(self.message) {
            return;
        }
        self.end();
    }

    #[cold]
    fn end(&mut self) {
        let Some(since) = self.since.take() else {
            return;
        };
        let time = since.elapsed();
        if self.samples == 0 {
            self.smoothed = time;
            self.least = time;
        } else {
            self.smoothed = self.smoothed - self.smoothed / 8 + time / 8;
            self.least = self.least.min(time);
        }
        self.samples += 1;
        self.between = (self.between * 2).clamp(1, BETWEEN);
        self.next = self.message + self.between;
    }
}
