//! What a failed session has left to its driver: bytes that were accepted and that the peer, as far
//! as is known, does not have, by their sends. Bytes of messages are not among them.
//!
//! Invariant: in the order of the stream, and noted before any of these sends is completed.

use super::large::Phase;
use super::{Kind, SendSide};
use crate::session::action::SendId;

/// A part of a send that the peer may not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// The send, whose bytes are still where they were.
    pub send: SendId,
    /// Where in the send the part begins.
    pub from: u64,
    /// Its length; the part reaches to the end of the send.
    pub len: u64,
    /// Where in the stream it begins.
    pub position: u64,
    /// It is not part of the stream.
    pub urgent: bool,
}

impl SendSide {
    /// Where the next message would begin.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn left(&self) -> &[Left] {
        &self.left
    }

    pub(crate) fn has_sent_urgent(&self) -> bool {
        self.sent_urgent || self.left.iter().any(|left| left.urgent)
    }

    pub(super) fn note_left(&mut self) {
        if !self.left.is_empty() {
            return;
        }
        let active = self.transfers.iter().filter(|t| t.phase == Phase::Active);
        let transfers = active.map(|transfer| Left {
            send: transfer.send,
            from: 0,
            len: transfer.len,
            position: transfer.start,
            urgent: false,
        });
        let mut left: alloc::vec::Vec<Left> = transfers.collect();
        let mut position = self.offset;
        for entry in &self.queue {
            let urgent = entry.kind == Kind::Urgent;
            let len = entry.len - entry.sent;
            left.push(Left {
                send: entry.send,
                from: entry.sent,
                len,
                position,
                urgent,
            });
            position += if urgent { 0 } else { len };
        }
        left.sort_by_key(|left| left.position);
        self.left = left;
    }
}
