//! Signs of life: when to ask for one, when to give up.
//!
//! Any message is a sign of life. The machine asks once per idle interval, and a second interval
//! without an answer is the end.

use core::time::Duration;

use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Alive {
    interval: Option<Duration>,
    heard: Instant,
    asked: bool,
    query_due: bool,
    answer_due: bool,
}

impl Alive {
    pub(super) const fn new() -> Self {
        Self {
            interval: None,
            heard: Instant::ZERO,
            asked: false,
            query_due: false,
            answer_due: false,
        }
    }

    pub(super) fn start(&mut self, interval: Option<Duration>, now: Instant) {
        self.interval = interval;
        self.heard = now;
    }

    pub(super) fn stop(&mut self) {
        *self = Self::new();
    }

    /// Any message arrived; `query` if it wants an answer.
    pub(super) fn heard(&mut self, now: Instant, query: bool) {
        self.heard = now;
        self.asked = false;
        self.query_due = false;
        self.answer_due |= query;
    }

    /// Any message went out, which answers the peer's question too.
    pub(super) fn spoke(&mut self) {
        self.answer_due = false;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let interval = self.interval?;
        let silent = if self.asked {
            interval.saturating_mul(2)
        } else {
            interval
        };
        Some(self.heard.saturating_add(silent))
    }

    /// Whether the peer is to be given up.
    pub(super) fn timed_out(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        if self.asked {
            return true;
        }
        self.asked = true;
        self.query_due = true;
        false
    }

    /// Whether a sign of life is due.
    pub(super) fn is_due(&self) -> bool {
        self.query_due || self.answer_due
    }

    /// The sign of life that is due: whether it asks for an answer.
    pub(super) fn poll(&mut self) -> Option<bool> {
        if !self.is_due() {
            return None;
        }
        let query = core::mem::take(&mut self.query_due);
        self.answer_due = false;
        Some(query)
    }
}
