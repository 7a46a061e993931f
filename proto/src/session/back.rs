//! Bytes that one side could not give to its application any more, and gives back to the peer.
//!
//! A side leaves when its application goes on without it, by a connection that the session does not
//! know. What has arrived here and was not read belongs there, too, and only the peer can send it
//! there. So the one who leaves says so; both end their streams, take everything that is still under
//! way, and tell each other what of it was not read, whatever carried it before. What the peer does
//! with the bytes is its driver's affair: to send them again, elsewhere, before anything else.
//!
//! Owns how far that is. Invariant: once one side has said that it leaves, each tells exactly one
//! end of what it gives back, and the session does not finish before both are told and heard.

use core::ops::Range;

use super::action::{Body, Incoming, SendId};
use super::config::Peer;
use super::error::ProtocolError;
use super::message::Message;
use super::send::Content;
use super::{Connection, Session};

/// Names, in messages, the bytes that are given back. No send has this name.
pub const GIVEN_BACK: SendId = SendId(u64::MAX);

/// What the peer has said of the bytes that it gives back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GivenBack {
    /// All have come.
    All,
    /// It gives none back, and takes none: nobody is there any more who could send them again.
    Gone,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Back {
    /// This side leaves.
    own: bool,
    /// The peer does.
    peer: bool,
    leave_told: bool,
    /// How many bytes this side gives back.
    given: Option<u64>,
    told: u64,
    last_told: bool,
    heard: u64,
    ended: Option<GivenBack>,
}

impl Back {
    /// One of the two leaves.
    pub(super) fn is_active(&self) -> bool {
        self.own || self.peer
    }

    /// Nothing of it is left to be told or heard.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_active() || (self.last_told && self.ended.is_some())
    }

    /// The session is over for the peer: it hears nothing more.
    pub(super) fn give_up(&mut self) {
        if self.is_active() && !self.is_settled() {
            self.last_told = true;
            self.ended.get_or_insert(GivenBack::Gone);
        }
    }

    /// The next message that is due. `closed`: nobody here would send again what the peer gives back.
    fn poll(&mut self, peer: &Peer, closed: bool) -> Option<Content> {
        if self.own && !self.leave_told {
            self.leave_told = true;
            return Some((part(0, 0, true, false, false), None));
        }
        if self.last_told {
            return None;
        }
        let Some(given) = self.given else {
            if !closed {
                return None;
            }
            self.last_told = true;
            self.ended.get_or_insert(GivenBack::Gone);
            return Some((part(0, 0, false, true, true), None));
        };
        let (offset, left) = (self.told, given - self.told);
        let len = peer.payload.min(u32::try_from(left).unwrap_or(u32::MAX));
        self.told += u64::from(len);
        let last = self.told == given;
        self.last_told = last;
        let body = (len > 0).then_some(Body {
            send: GIVEN_BACK,
            offset,
            len,
        });
        Some((part(offset, len, false, last, false), body))
    }
}

fn part(offset: u64, len: u32, leave: bool, last: bool, gone: bool) -> Message {
    Message::Return {
        offset,
        len,
        leave,
        last,
        gone,
    }
}

impl Session {
    /// The application goes on without this session, with everything that it has not read: the peer
    /// is to end its stream, too, and to send again what this side gives back.
    ///
    /// To be followed by [`Session::suspend_send`], and by [`Session::give_back`] when the peer's
    /// stream was taken up to its end. `false` if that is not possible (any more).
    pub fn leave(&mut self) -> bool {
        let over = self.closing.is_finished() || self.failure.is_some();
        if over || self.connection != Connection::Up || !self.peer.is_some_and(|p| p.returns) {
            return false;
        }
        self.back.own = true;
        true
    }

    /// Whether the peer has said that it leaves. Then it waits for [`Session::give_back`], too.
    #[must_use]
    pub fn peer_leaves(&self) -> bool {
        self.back.peer
    }

    /// Gives so many bytes back, which stay where they are until the session is finished. Once, and
    /// only if a side leaves.
    pub fn give_back(&mut self, len: u64) {
        if self.back.is_active() && !self.back.last_told {
            self.back.given.get_or_insert(len);
        }
    }

    /// Whether everything is here that the peer gives back.
    #[must_use]
    pub fn given_back(&self) -> Option<GivenBack> {
        self.back.ended
    }

    /// Whether something of that is still to be told or heard.
    #[must_use]
    pub fn is_giving_back(&self) -> bool {
        self.failure.is_none() && !self.back.is_settled()
    }

    /// A part of what the peer gives back has arrived.
    pub(super) fn peer_returned(
        &mut self,
        message: &Message,
        payload: Range<usize>,
    ) -> Result<Incoming, ProtocolError> {
        let Message::Return {
            offset,
            len,
            leave,
            last,
            gone,
        } = *message
        else {
            return Err(ProtocolError::Unexpected);
        };
        if !self.peer.is_some_and(|peer| peer.returns) {
            return Err(ProtocolError::Unexpected);
        }
        // Said before it could know that everything is over.
        if self.closing.is_finished() {
            return Ok(Incoming::Discarded);
        }
        if leave {
            if set_again(&mut self.back.peer) {
                return Err(ProtocolError::Unexpected);
            }
        } else if !self.back.is_active() {
            return Err(ProtocolError::Unexpected);
        }
        // It may have heard of the end here before.
        if self.back.ended == Some(GivenBack::Gone) {
            return Ok(Incoming::Discarded);
        }
        if len == 0 && !last {
            return Ok(Incoming::Control);
        }
        if self.back.ended.is_some() {
            return Err(ProtocolError::Unexpected);
        }
        if offset != self.back.heard {
            return Err(ProtocolError::Offset);
        }
        let heard = offset.saturating_add(len.into());
        if heard > self.config.return_limit {
            return Err(ProtocolError::Range);
        }
        self.back.heard = heard;
        if gone {
            self.back.ended = Some(GivenBack::Gone);
            // What was not told yet is for nobody.
            self.back.last_told = true;
        } else if last {
            self.back.ended = Some(GivenBack::All);
        }
        Ok(match len {
            0 => Incoming::Control,
            _ if self.closing.is_wanted() => Incoming::Discarded,
            _ => Incoming::Returned { range: payload },
        })
    }

    pub(super) fn poll_return(&mut self) -> Option<Content> {
        if !self.back.is_active() || self.closing.is_finished() {
            return None;
        }
        let closed = self.closing.is_wanted();
        let peer = self.peer.as_ref()?;
        self.back.poll(peer, closed)
    }
}

/// Sets it; `true` if it was set before.
fn set_again(flag: &mut bool) -> bool {
    core::mem::replace(flag, true)
}
