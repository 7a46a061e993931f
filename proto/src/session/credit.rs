//! Receive-buffer credits of both directions.
//!
//! One credit is one receive buffer that the other side has posted. Both counters are cumulative
//! since the connection began and wrap around, so that any message can repeat them.
//!
//! Invariants: never more messages under way than buffers granted; never more granted than posted;
//! and with `outstanding` = granted − received,
//! `bytes waiting + (outstanding − RESERVE) × payload <= inbox limit`, because a sender keeps the last
//! [`RESERVE`] credits for messages that bring no data into the inbox. So no peer that obeys can
//! overflow the inbox, and control messages flow however full the inbox is.

use super::error::ProtocolError;

/// Credits that data leaves to the messages that complete transfers.
pub(super) const RESERVE: u32 = 3;
/// Credits that those leave to Credit and Reset.
const LAST: u32 = 1;
/// Fewest receive buffers a side may post.
///
/// With fewer, one explicit Credit, which is not returned on its own, could stop all data.
pub const MIN_RECEIVES: u32 = RESERVE + 2;
/// Fewest credits worth a message of their own: it uses one up, so returning one would never end.
const WORTH_A_MESSAGE: u32 = 2;

/// How far down a message may use the credits up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Brings data into the peer's inbox.
    Data,
    /// Completes something, or brings data the peer has asked for.
    Completion,
    /// Returns credits, or ends the connection.
    Last,
}

/// What the credits of both directions are, for those who look on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credit {
    /// Messages this side may send.
    pub to_send: u32,
    /// Messages the peer may send.
    pub granted: u32,
    /// The peer's cumulative credit as it was told last.
    pub limit: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Credits {
    /// Messages sent.
    sent: u32,
    /// Messages the peer permits to send.
    limit: u32,
    /// Receive buffers of the peer.
    peer_receives: u32,
    /// Messages received.
    received: u32,
    /// Receive buffers ever posted.
    posted: u32,
    /// What the peer was told last.
    granted: u32,
    /// Most messages the peer may ever have under way: posted buffers, and room for their data.
    window: u32,
}

impl Credits {
    /// `receives` buffers are posted; an empty inbox has room for the data of `room` messages.
    pub(super) fn new(receives: u32, room: u32) -> Self {
        Self {
            sent: 0,
            limit: 0,
            peer_receives: 0,
            received: 0,
            posted: receives,
            granted: 0,
            window: receives.min(RESERVE.saturating_add(room)),
        }
    }

    /// The connector may send its first message unasked.
    pub(super) fn permit_first(&mut self) {
        self.limit = 1;
    }

    /// The acceptor takes that message without having granted it.
    pub(super) fn expect_first(&mut self) {
        self.granted = 1;
    }

    pub(super) fn set_peer_receives(&mut self, receives: u32) {
        self.peer_receives = receives;
    }

    /// The number of the last message sent; the first is 1.
    pub(super) fn last_sent(&self) -> u32 {
        self.sent
    }

    /// The peer has received everything up to this message: it never permits more than it has
    /// received and has buffers for.
    pub(super) fn certain(&self) -> u32 {
        self.limit.wrapping_sub(self.peer_receives)
    }

    pub(super) fn show(&self) -> Credit {
        Credit {
            to_send: self.available(),
            granted: self.outstanding(),
            limit: self.limit,
        }
    }

    fn available(&self) -> u32 {
        self.limit.wrapping_sub(self.sent)
    }

    pub(super) fn may_send(&self, class: Class) -> bool {
        self.available()
            > match class {
                Class::Data => RESERVE,
                Class::Completion => LAST,
                Class::Last => 0,
            }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// A message arrived; the peer must have had a credit for it.
    pub(super) fn message_received(&mut self) -> Result<(), ProtocolError> {
        if self.outstanding() == 0 {
            return Err(ProtocolError::Credit);
        }
        self.received = self.received.wrapping_add(1);
        Ok(())
    }

    /// A message told the peer's cumulative credit.
    pub(super) fn limit_received(&mut self, limit: u32) -> Result<(), ProtocolError> {
        let more = limit.wrapping_sub(self.limit);
        // Compared as distances: the counters wrap around.
        if more > self.peer_receives || limit.wrapping_sub(self.sent) > self.peer_receives {
            return Err(ProtocolError::CreditGrant);
        }
        self.limit = limit;
        Ok(())
    }

    /// The buffer of a received message is posted again.
    pub(super) fn reposted(&mut self) {
        if self.posted.wrapping_sub(self.received) < u32::MAX / 2 {
            self.posted = self.posted.wrapping_add(1);
        }
    }

    /// Messages the peer may still send.
    pub(super) fn outstanding(&self) -> u32 {
        self.granted.wrapping_sub(self.received)
    }

    /// What may be granted when the inbox has room for the data of `room` more messages.
    fn grantable(&self, room: u32) -> u32 {
        let posted = self.posted.wrapping_sub(self.received);
        let target = posted.min(self.window).min(RESERVE.saturating_add(room));
        // What was granted stays granted.
        self.received.wrapping_add(target.max(self.outstanding()))
    }

    fn owed(&self, room: u32) -> u32 {
        self.grantable(room).wrapping_sub(self.granted)
    }

    /// Whether the owed credits deserve a message of their own.
    ///
    /// Each such message returns at least two credits and uses up one, so two sides that answer
    /// each other's come to rest. At rest the peer has two credits or more, and more than
    /// [`RESERVE`] if the inbox is empty.
    pub(super) fn must_return(&self, room: u32) -> bool {
        let owed = self.owed(room);
        let left = self.outstanding();
        owed >= WORTH_A_MESSAGE
            && (owed >= self.window / 2
                || (left <= RESERVE && owed >= self.window / 4)
                || left <= LAST)
    }

    /// A message goes out; returns the cumulative credit to put into it.
    pub(super) fn message_sent(&mut self, room: u32) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.granted = self.grantable(room);
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides with `receives` buffers each, and room for the data of `room` messages.
    fn two(receives: u32, room: u32) -> (Credits, Credits) {
        let (mut a, mut b) = (Credits::new(receives, room), Credits::new(receives, room));
        a.permit_first();
        b.expect_first();
        a.set_peer_receives(receives);
        b.set_peer_receives(receives);
        pass(&mut a, &mut b, room);
        pass(&mut b, &mut a, room);
        (a, b)
    }

    fn pass(from: &mut Credits, to: &mut Credits, room: u32) {
        let limit = from.message_sent(room);
        to.message_received().unwrap();
        to.limit_received(limit).unwrap();
        to.reposted();
    }

    #[test]
    fn each_class_leaves_what_the_next_one_needs() {
        let (mut a, mut b) = two(10, 100);
        let mut sent = [0; 3];
        for (count, class) in sent
            .iter_mut()
            .zip([Class::Data, Class::Completion, Class::Last])
        {
            while a.may_send(class) {
                pass(&mut a, &mut b, 100);
                *count += 1;
            }
        }
        assert_eq!(sent, [10 - 3, 2, 1]);
    }

    #[test]
    fn a_full_inbox_gives_the_reserve_back_and_no_more() {
        let (mut a, mut b) = two(64, 61);
        while a.may_send(Class::Data) {
            pass(&mut a, &mut b, 61);
        }
        assert!(
            !b.must_return(0),
            "there is no room, and the reserve is untouched"
        );
        pass(&mut a, &mut b, 61);
        assert!(!b.must_return(0), "one credit is not worth a message");
        pass(&mut a, &mut b, 61);
        assert!(
            b.must_return(0),
            "the peer must be able to complete something"
        );
        pass(&mut b, &mut a, 0);
        assert!(a.may_send(Class::Completion) && !a.may_send(Class::Data));
        assert!(!b.must_return(4), "a quarter is owed at once, or nothing");
        assert!(b.must_return(16));
    }

    #[test]
    fn nothing_is_granted_that_is_not_posted() {
        let (mut a, mut b) = two(8, 100);
        for _ in 0..5 {
            let limit = a.message_sent(100);
            b.message_received().unwrap();
            b.limit_received(limit).unwrap();
        }
        assert!(!b.must_return(100));
        for _ in 0..5 {
            b.reposted();
        }
        assert!(b.must_return(100));
    }

    #[test]
    fn counters_wrap_around() {
        let (mut a, mut b) = two(8, 100);
        for credits in [&mut a, &mut b] {
            for counter in [
                &mut credits.sent,
                &mut credits.limit,
                &mut credits.received,
                &mut credits.posted,
                &mut credits.granted,
            ] {
                *counter = counter.wrapping_sub(5);
            }
        }
        for _ in 0..20 {
            assert!(a.may_send(Class::Data));
            pass(&mut a, &mut b, 100);
            pass(&mut b, &mut a, 100);
        }
        assert_eq!(b.outstanding(), 8);
    }

    #[test]
    fn a_peer_that_takes_or_gives_too_much_is_found_out() {
        let (mut a, mut b) = two(8, 100);
        for _ in 0..b.outstanding() {
            b.message_received().unwrap();
        }
        assert_eq!(b.message_received(), Err(ProtocolError::Credit));
        let limit = a.limit;
        assert_eq!(a.limit_received(limit + 9), Err(ProtocolError::CreditGrant));
        assert_eq!(a.limit_received(limit - 1), Err(ProtocolError::CreditGrant));
    }
}
