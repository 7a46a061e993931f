//! What the peer has for certain, so that nobody need keep it to send it again another way.
//!
//! A cumulative credit proves that its sender has received all messages but as many as it has
//! buffers; the end of a transfer that is read, or filled, proves the transfer and everything in
//! front of it. The proof lags behind, it never runs ahead.
//!
//! Invariant: `offset` never goes back, and every byte before it has arrived.

use alloc::collections::VecDeque;

use super::SendSide;
use super::large::{Phase, Transfer};
use crate::session::config::SendMode;

/// Messages are remembered in so many groups at the most.
const POINTS: u32 = 32;

#[derive(Clone, Debug)]
pub(super) struct Confirmed {
    offset: u64,
    /// If the peer has all messages up to this one, it has the stream up to that position, but for
    /// transfers whose end it says itself.
    points: VecDeque<(u32, u64)>,
    /// The first message of the last group.
    group: u32,
    /// Messages in one group.
    step: u32,
    /// What a peer has that has received the end.
    at_end: Option<u64>,
}

impl Confirmed {
    pub(super) fn new() -> Self {
        Self {
            offset: 0,
            points: VecDeque::with_capacity(POINTS as usize + 1),
            group: 0,
            step: 1,
            at_end: None,
        }
    }
}

/// The end of this transfer is told by messages of this side.
fn tells_itself(transfer: &Transfer) -> bool {
    transfer.mode == SendMode::Write && transfer.fill.is_none()
}

impl SendSide {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn points_capacity(&self) -> usize {
        self.confirmed.points.capacity()
    }

    /// The peer never owes an answer for more messages than this.
    pub(crate) fn confirms_within(&mut self, receives: u32) {
        self.confirmed.step = receives / POINTS + 1;
    }

    /// The first byte that only an unfinished transfer of this kind brings.
    fn missing(&self, which: impl Fn(&Transfer) -> bool) -> u64 {
        self.transfers
            .iter()
            .find(|transfer| transfer.phase == Phase::Active && which(transfer))
            .map_or(self.offset, |transfer| {
                transfer.start + u64::from(transfer.initial)
            })
    }

    /// Message `number` was made.
    pub(crate) fn made(&mut self, number: u32) {
        let position = self.missing(tells_itself);
        let confirmed = &mut self.confirmed;
        let before = confirmed.points.back().map(|&(_, position)| position);
        if position <= before.unwrap_or(confirmed.offset) {
            return;
        }
        let full = confirmed.points.len() >= POINTS as usize;
        let same = number.wrapping_sub(confirmed.group) < confirmed.step;
        match confirmed.points.back_mut() {
            Some(last) if same || full => {
                *last = (number, position);
            }
            _ => {
                confirmed.points.push_back((number, position));
                confirmed.group = number;
            }
        }
    }

    /// The peer has received everything up to this message, which may be before the first.
    pub(crate) fn confirm(&mut self, number: u32) {
        while let Some(&(last, position)) = self.confirmed.points.front() {
            // Numbers wrap around; those that count are close to each other.
            if number.wrapping_sub(last) > u32::MAX / 2 {
                return;
            }
            self.confirmed.points.pop_front();
            self.raise(position);
        }
    }

    pub(super) fn raise(&mut self, position: u64) {
        self.confirmed.offset = self.confirmed.offset.max(position);
    }

    /// The peer has ended a transfer. Where transfers are written, others may still be open or
    /// their ends under way.
    pub(super) fn confirm_transfer(&mut self, transfer: &Transfer) {
        if transfer.mode == SendMode::Read {
            self.raise(transfer.start + transfer.len);
        }
    }

    pub(super) fn end_made(&mut self) {
        self.confirmed.at_end = Some(self.missing(tells_itself));
    }

    /// The peer has received the end.
    pub(crate) fn confirm_end(&mut self) {
        if let Some(position) = self.confirmed.at_end {
            self.raise(position);
        }
    }

    /// The peer has everything.
    pub(crate) fn confirm_all(&mut self) {
        self.raise(self.offset);
    }

    /// Nothing more will be learnt.
    pub(super) fn settle_confirmed(&mut self) {
        self.confirmed.offset = self.acknowledged();
        self.confirmed.points.clear();
    }

    /// req: COMP-03
    ///
    /// The peer has received every byte before this position.
    pub(crate) fn acknowledged(&self) -> u64 {
        let missing = self.missing(|transfer| !tells_itself(transfer));
        self.confirmed.offset.min(missing)
    }
}
