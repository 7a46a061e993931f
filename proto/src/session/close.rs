//! The end: half closes, the graceful close, failures.
//!
//! A provider says only that a connection is gone. So both sides tell each other all they need to
//! know before one of them takes it down: each tells the length of its stream, and when nothing is
//! left to do for the acceptor, it says so as its last message (`finished`); the connector takes the
//! connection down when it has that message and nothing left to do itself. Whatever is lost in
//! between was not worth anything. A connection that goes otherwise has failed.

use super::action::{Action, End};
use super::config::Role;
use super::error::{Failure, ProtocolError, ResetReason, SendError};
use super::message::Message;
use super::{Connection, Session};
use crate::time::Instant;

/// What is told and known about the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing {
    /// The application has closed.
    wanted: bool,
    /// The peer is to be told that nothing is received any more.
    receive_due: bool,
    receive_told: bool,
    finished_told: bool,
    finished_heard: bool,
    pub(super) reset_due: Option<ResetReason>,
    reset_told: bool,
    timer: Timer,
}

/// The time for the peer's part of the end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Timer {
    #[default]
    Off,
    /// Runs from the next moment that the driver tells.
    Due,
    At(Instant),
    Expired,
}

impl Closing {
    /// The application has closed.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Something of the end may have to be told or done.
    pub(super) fn is_due(&self) -> bool {
        self.wanted || self.receive_due || self.timer != Timer::Off
    }

    /// The acceptor has said that nothing is left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.finished_told || self.finished_heard
    }
}

impl Session {
    /// No more sends; the peer reads everything that was accepted, and then the end.
    ///
    /// The stream ends once: after [`Session::suspend_send`] this changes nothing.
    pub fn shutdown_send(&mut self) {
        self.send.end(End::Shutdown);
    }

    /// No more sends here: the peer reads everything that was accepted, and goes on elsewhere.
    ///
    /// When the peer says so first, this side is expected to follow. When both directions have ended,
    /// one way or the other, the session ends gracefully.
    ///
    /// # Errors
    ///
    /// [`SendError::Unsupported`] if a side cannot be suspended or that is not known yet, otherwise
    /// why a send would be refused. Once suspended, it may be said again.
    pub fn suspend_send(&mut self) -> Result<(), SendError> {
        match self.send_open() {
            Ok(()) if self.peer.is_some_and(|peer| peer.suspend) => {
                self.send.end(End::Suspended);
                Ok(())
            }
            Ok(()) => Err(SendError::Unsupported),
            Err(SendError::Suspended) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How the peer has ended its stream, and at which position; known as soon as it is told, which
    /// is before everything up to there was read.
    #[must_use]
    pub fn peer_end(&self) -> Option<(End, u64)> {
        self.receive.end()
    }

    /// Whether the peer has been told where the stream ends, or nothing can tell it any more.
    #[must_use]
    pub fn is_end_told(&self) -> bool {
        self.send.told_end().is_some() || self.connection != Connection::Up
    }

    /// No more receiving: what is unread and what still comes is discarded, the peer's sends fail.
    /// The driver empties its queues.
    pub fn shutdown_receive(&mut self) {
        if self.receive.is_discarding() {
            return;
        }
        self.receive.discard(&mut self.effects);
        // A peer that has sent its last byte need not know.
        if self.failure.is_none() && self.receive.end().is_none() {
            self.closing.receive_due = true;
        }
    }

    /// Both, and then disconnects in the background. Keep driving until [`Action::Disconnect`].
    pub fn close(&mut self, now: Instant) {
        self.now = now;
        self.closing.wanted = true;
        self.shutdown_send();
        self.shutdown_receive();
        if self.peer.is_none() && self.connection == Connection::Up {
            // Nobody to part from.
            self.fail(Failure::Aborted, None);
        }
    }

    /// Ends at once: tells the peer why if that is possible, releases everything, disconnects.
    pub fn abort(&mut self, now: Instant, reason: ResetReason) {
        self.now = now;
        self.fail(Failure::Aborted, Some(reason));
        self.receive.discard(&mut self.effects);
    }

    /// The provider says that the connection is gone.
    pub fn handle_disconnected(&mut self, now: Instant) {
        self.now = now;
        if self.connection == Connection::Down {
            return;
        }
        let known = match self.role {
            Role::Connector => self.closing.finished_heard,
            Role::Acceptor => self.closing.finished_told,
        };
        if !known || !self.both_over() {
            self.fail(Failure::Disconnected, None);
        }
        self.connection = Connection::Gone;
        self.closing.reset_due = None;
        self.alive.stop();
    }

    pub(super) fn fail(&mut self, failure: Failure, tell: Option<ResetReason>) {
        if self.failure.is_some() || self.connection != Connection::Up {
            return;
        }
        self.failure = Some(failure);
        self.connection = Connection::Failing;
        self.closing.reset_due = tell;
        self.alive.stop();
        self.send.fail(failure, &mut self.effects);
        self.receive.fail(failure, &mut self.effects);
    }

    /// A Shutdown arrived.
    pub(super) fn peer_shutdown(
        &mut self,
        send: Option<u64>,
        receive: bool,
        finished: bool,
    ) -> Result<(), ProtocolError> {
        if let Some(end) = send {
            self.receive.ended(End::Shutdown, end)?;
        }
        // Only the acceptor says so, and only when both streams have ended.
        let ended = self.send.told_end().is_some() && self.receive.end().is_some();
        if finished && !(self.role == Role::Connector && ended) {
            return Err(ProtocolError::Unexpected);
        }
        if finished {
            self.closing.finished_heard = true;
            self.back.give_up();
            self.send.confirm_all();
        }
        if receive {
            self.send.peer_closed(&mut self.effects);
        }
        Ok(())
    }

    /// A Suspend, or as its answer a Suspended, arrived.
    pub(super) fn peer_suspended(&mut self, end: u64, answer: bool) -> Result<(), ProtocolError> {
        // Nobody does it who has not offered it, or answers what was not said.
        let offered = self.config.suspend && self.peer.is_some_and(|peer| peer.suspend);
        let said = self.send.told_end() == Some(End::Suspended);
        if !offered || (answer && !said) {
            return Err(ProtocolError::Unexpected);
        }
        self.receive.ended(End::Suspended, end)?;
        if answer {
            self.send.confirm_end();
        }
        Ok(())
    }

    /// Both streams have ended, and both sides' transfers are over.
    fn both_over(&self) -> bool {
        self.send.is_over() && self.receive.is_over() && self.back.is_settled()
    }

    /// The Shutdown that is due now.
    pub(super) fn poll_shutdown(&mut self) -> Option<Message> {
        let mut send = None;
        if let Some((how, end)) = self.send.end_due() {
            self.send.end_told(how);
            match (how, self.receive.end()) {
                (End::Shutdown, _) => send = Some(end),
                (End::Suspended, Some((End::Suspended, _))) => {
                    // req: COMP-02 behind everything that was sent
                    return Some(Message::Suspended { end });
                }
                (End::Suspended, _) => return Some(Message::Suspend { end }),
            }
        }
        let receive = self.closing.receive_due;
        if send.is_some() || receive {
            self.closing.receive_due = false;
            self.closing.receive_told |= receive;
            return Some(Message::Shutdown {
                send,
                receive,
                finished: false,
            });
        }
        let finished = self.role == Role::Acceptor && !self.closing.finished_told;
        if finished && self.both_over() {
            self.closing.finished_told = true;
            return Some(Message::Shutdown {
                send: None,
                receive: false,
                finished: true,
            });
        }
        None
    }

    /// Starts the timer when only the peer can go on with the close.
    pub(super) fn watch_close(&mut self) {
        if self.closing.timer != Timer::Off {
            return;
        }
        let alone = match self.connection {
            Connection::Up => {
                // What the peer gives back may take as long as what it still has to take.
                self.send.is_over()
                    && (self.closing.wanted || self.receive.is_over())
                    && (self.closing.wanted || self.back.is_settled())
            }
            Connection::Failing => true,
            Connection::Gone | Connection::Down => false,
        };
        if alone {
            self.closing.timer = Timer::Due;
        }
    }

    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match self.closing.timer {
            Timer::Off | Timer::Expired => None,
            Timer::Due => Some(self.now),
            Timer::At(deadline) => Some(deadline),
        }
    }

    pub(super) fn close_timed_out(&mut self) {
        match self.closing.timer {
            Timer::Due => {
                let deadline = self.now.saturating_add(self.config.close_timeout);
                self.closing.timer = Timer::At(deadline);
            }
            Timer::At(deadline) if self.now >= deadline => self.closing.timer = Timer::Expired,
            _ => {}
        }
    }

    /// The last action, once it is due.
    pub(super) fn poll_disconnect(&mut self) -> Option<Action> {
        let sent = self.send_free == self.config.send_buffers;
        let expired = self.closing.timer == Timer::Expired;
        let due = match self.connection {
            Connection::Down => false,
            Connection::Gone => true,
            Connection::Failing => sent || expired || !self.closing.reset_told,
            Connection::Up => {
                expired
                    || (self.role == Role::Connector
                        && sent
                        && self.closing.finished_heard
                        && self.both_over())
            }
        };
        if !due {
            return None;
        }
        if self.connection == Connection::Up && !self.both_over() {
            // The peer did not do its part in time; nobody here waits for it.
            self.send.fail(Failure::Disconnected, &mut self.effects);
            self.receive.fail(Failure::Disconnected, &mut self.effects);
        }
        self.connection = Connection::Down;
        self.alive.stop();
        // What was released just now comes first.
        self.effects.push_back(Action::Disconnect);
        self.effects.pop_front()
    }

    /// The Reset that is due now.
    pub(super) fn poll_reset(&mut self) -> Option<Message> {
        let reason = self.closing.reset_due.take()?;
        self.closing.reset_told = true;
        Some(Message::Reset { reason })
    }

    /// Whether a send would be refused for another reason than a full queue.
    ///
    /// # Errors
    ///
    /// That reason.
    pub fn send_open(&self) -> Result<(), SendError> {
        match self.failure {
            Some(failure) => Err(SendError::Failed(failure)),
            None => self.send.open(),
        }
    }
}
