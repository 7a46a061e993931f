//! What was sent and may not have arrived, when the connection that carried it is lost.
//!
//! While a connection lives nothing is copied for this: the last messages are still in their send
//! buffers, which are used in turn, and the peer's credits prove that everything before them has
//! arrived; large data stays where it is until the peer says that it has it; what waits for credit
//! is in the outbox. When the session fails, and before anything of it is given up, all of that is
//! put together. Owns the copy. Invariant: a part of the stream is in it, or has arrived, or was
//! never accepted.

use wsd_proto::{Failure, Message, ResetReason, SendMode, parse};

use super::Connection;
use super::drive::{State, size};

/// Parts of the stream of a lost session, by their positions.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    parts: Vec<(u64, Vec<u8>)>,
    /// Where the stream ends, as far as it was accepted.
    end: u64,
}

impl Kept {
    fn add(&mut self, position: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.parts.push((position, bytes));
        }
    }

    /// These parts.
    #[cfg(test)]
    pub(crate) fn of(parts: &[(u64, &[u8])]) -> Kept {
        let mut kept = Kept::default();
        for (position, bytes) in parts {
            kept.add(*position, bytes.to_vec());
            kept.end = kept.end.max(position + bytes.len() as u64);
        }
        kept
    }

    /// The stream from this position to the end, if it is here and the end is where the caller, who
    /// has counted what was accepted, says it is.
    pub(crate) fn between(&self, from: u64, to: u64) -> Option<Vec<u8>> {
        if to != self.end {
            return None;
        }
        let mut at = from;
        let mut bytes = Vec::with_capacity(size(to.saturating_sub(from)));
        while at < to {
            let (skip, part) = self.parts.iter().find_map(|(position, part)| {
                let skip = size(at.checked_sub(*position)?);
                (skip < part.len()).then_some((skip, part))
            })?;
            let most = size(to - at).min(part.len() - skip);
            bytes.extend_from_slice(part.get(skip..skip + most)?);
            at += u64::try_from(most).ok()?;
        }
        Some(bytes)
    }
}

/// Whether a session that failed like this leaves a stream that can go on elsewhere: the SAN has
/// failed, nobody has ended anything.
fn is_loss(reason: Failure) -> bool {
    match reason {
        Failure::Disconnected | Failure::KeepAliveTimedOut | Failure::RdmaFailed => true,
        Failure::Reset(reason) => matches!(
            reason,
            ResetReason::RdmaFailed | ResetReason::KeepAlive | ResetReason::NoResources
        ),
        _ => false,
    }
}

impl State {
    /// Keeps what may have to be sent again.
    pub(super) fn keep(&mut self) {
        self.pool.keep_messages();
        self.keeps = true;
    }

    /// The session has failed: puts together what it leaves, once.
    pub(super) fn save(&mut self) {
        if !self.keeps || self.kept.is_some() {
            return;
        }
        let mut kept = Kept::default();
        let certain = self.session.acknowledged();
        let version = self.session.peer().map(|peer| peer.version);
        for bytes in self.pool.last_messages() {
            let Ok(received) = parse(bytes, version) else {
                continue;
            };
            let (Message::Data { offset, .. }
            | Message::Fill { offset, .. }
            | Message::LargeRead { offset, .. }
            | Message::LargeWrite { offset, .. }) = received.message
            else {
                continue;
            };
            let payload = bytes.get(received.payload).unwrap_or_default();
            let end = offset.saturating_add(u64::try_from(payload.len()).unwrap_or(u64::MAX));
            if end > certain {
                kept.add(offset, payload.to_vec());
            }
        }
        let mut end = self.session.sent_offset();
        for left in self.session.left().iter().filter(|left| !left.urgent) {
            let mut bytes = vec![0; size(left.len)];
            let found = self.outbox.copy(left.send, size(left.from), &mut bytes)
                || self.transfers.send(left.send).is_some_and(|lending| {
                    lending.space.copy_to(size(left.from), &mut bytes) == bytes.len()
                });
            // Otherwise it belongs to a call that is going to say that it was not sent.
            if found {
                end = end.max(left.position + left.len);
                kept.add(left.position, bytes);
            }
        }
        let rest = self.outbox.unhanded_bytes();
        kept.end = end.saturating_add(u64::try_from(rest.len()).unwrap_or(u64::MAX));
        kept.add(end, rest);
        self.kept = Some(kept);
    }
}

impl Connection {
    /// Whether both streams of the session, which has failed, can go on elsewhere with every byte:
    /// nobody has ended or left anything, and both ends have kept what may not have arrived.
    pub(crate) fn can_resume(&self) -> bool {
        let state = self.lock();
        let session = &state.session;
        let keeps = session.peer().is_some_and(|peer| {
            // Where the sender writes into the peer's memory it does not know what the peer has.
            peer.resumes
                && peer.send_mode != SendMode::Write
                && size(peer.receive_buffers.into()) <= state.pool.kept_messages()
        });
        // With an urgent byte positions are not common to both ends.
        let urgent =
            session.has_sent_urgent() || session.mark().is_some() || !state.urgent.is_empty();
        keeps
            && session.failure().is_some_and(is_loss)
            && state.kept.is_some()
            && !state.settings.write_shut
            && !state.settings.closing
            && session.peer_end().is_none()
            && !session.peer_leaves()
            && !urgent
    }

    /// The provider says that the connection is lost; for tests.
    pub(crate) fn lose(&self) {
        let mut state = self.lock();
        let now = state.now();
        state.session.handle_disconnected(now);
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
    }

    /// Ends a lost connection for good, and takes what it leaves. The provider touches nothing any
    /// more afterwards.
    pub(crate) fn take_kept(&self) -> Kept {
        let mut state = self.lock();
        state.drain(&self.socket, None);
        state.disconnect(&self.socket);
        state.drain(&self.socket, None);
        let kept = state.kept.take();
        state.activity = true;
        self.leave(state);
        kept.unwrap_or_default()
    }

    /// Takes everything that has arrived of a lost session, and says up to where it has been received
    /// then; `None` if that is not where the taking has ended.
    pub(crate) fn take_arrived(&self) -> Option<(Vec<u8>, u64)> {
        let mut bytes = Vec::new();
        let mut room = vec![0; 64 << 10];
        while let Ok(count) = self.read_as(&mut room, super::Manner::NOT) {
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(room.get(..count).unwrap_or_default());
        }
        let state = self.lock();
        let received = state.session.received();
        let whole = state.session.consumed_offset() == received;
        self.leave(state);
        whole.then_some((bytes, received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_put_together_from_parts_in_any_order_and_never_with_a_hole() {
        let bytes: Vec<u8> = (0..100).collect();
        let part = |from: usize, to: usize| (from as u64, &bytes[from..to]);
        let kept = Kept::of(&[part(60, 80), part(10, 30), part(20, 60), part(70, 100)]);
        for from in 10..=100_u8 {
            let rest = &bytes[usize::from(from)..];
            assert_eq!(kept.between(from.into(), 100).unwrap(), rest);
        }
        assert!(kept.between(9, 100).is_none());
        // Somebody has counted something else.
        assert!(kept.between(20, 99).is_none());
        assert!(kept.between(20, 101).is_none());
        let hole = Kept::of(&[part(10, 30), part(31, 100)]);
        assert!(hole.between(30, 100).is_none());
        assert_eq!(hole.between(31, 100).unwrap(), bytes[31..]);
        assert!(Kept::default().between(0, 0).unwrap().is_empty());
    }
}
