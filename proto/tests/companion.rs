//! Stories of sessions that carry the stream of another connection: the offer, and suspension.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::time::Duration;

use wsd_proto::testing::{Pair, Side, small};
use wsd_proto::*;

fn info() -> CompanionInfo {
    CompanionInfo {
        local: ([1; 16], 40_000),
        peer: ([2; 16], 80),
    }
}

fn offering() -> Config {
    Config {
        session_id: *b"nobody guesses--",
        companion: Some(info()),
        suspend: true,
        ..small()
    }
}

fn wanting() -> Config {
    Config {
        session_id: *b"not of interest-",
        companion_wanted: true,
        suspend: true,
        ..small()
    }
}

// ---- the offer

#[test]
fn the_acceptor_sees_the_connection_before_it_answers() {
    let mut pair = Pair::new(offering(), wanting());
    pair.drive();
    assert_eq!(pair.b.offered, [info()]);
    assert_eq!(pair.b.session.companion(), Some(info()));
    assert_eq!(pair.b.session.session_id(), *b"nobody guesses--");
    assert!(!pair.a.session.is_established() && !pair.b.session.is_established());
    let now = pair.now;
    pair.b.session.answer_companion(now, true);
    pair.drive();
    for host in [&pair.a, &pair.b] {
        assert!(host.session.is_established());
        assert_eq!(host.session.companion(), Some(info()));
        assert_eq!(host.session.session_id(), *b"nobody guesses--");
    }
    // A second answer changes nothing.
    pair.b.session.answer_companion(now, false);
    pair.a.send(3000).unwrap();
    pair.b.send(3000).unwrap();
    pair.read_everything();
    pair.check_complete();
}

/// req: COMP-01
#[test]
fn a_connection_that_is_not_there_is_refused_with_that_reason() {
    let mut pair = Pair::new(offering(), wanting());
    pair.b.knobs.answer_companion = Some(false);
    pair.drive();
    refused(&pair);
}

fn refused(pair: &Pair) {
    assert_eq!(
        pair.a.session.failure(),
        Some(Failure::Reset(ResetReason::NoSuchConnection))
    );
    assert_eq!(pair.b.session.failure(), Some(Failure::NoSuchConnection));
    for host in [&pair.a, &pair.b] {
        assert!(host.is_disconnected() && host.session.is_finished());
        assert!(!host.session.is_established());
    }
}

/// So that it can tell why the connection stays where it is.
#[test]
fn whose_offer_is_of_another_version_is_learnt_before_it_is_refused() {
    let later = Config {
        versions: (2, 2),
        ..offering()
    };
    let mut pair = Pair::new(later, wanting());
    pair.drive();
    assert_eq!(pair.b.offered, [info()]);
    let now = pair.now;
    pair.b.session.answer_companion(now, true);
    pair.drive();
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.session.failure(), Some(Failure::VersionMismatch));
        assert!(host.is_disconnected() && !host.session.is_established());
    }
}

#[test]
fn who_wants_no_companion_refuses_one_and_who_wants_one_refuses_an_offer_without() {
    let mut unasked = Pair::new(offering(), small());
    unasked.drive();
    assert_eq!(unasked.b.offered, []);
    refused(&unasked);
    let mut missing = Pair::new(small(), wanting());
    missing.drive();
    assert_eq!(missing.b.offered, []);
    refused(&missing);
}

#[test]
fn an_acceptor_that_cannot_decide_ends_in_time() {
    let mut pair = Pair::new(offering(), wanting());
    pair.drive();
    assert_eq!(pair.b.offered.len(), 1);
    pair.advance(Duration::from_secs(11));
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.session.failure(), Some(Failure::NegotiationTimedOut));
        assert!(host.is_disconnected());
    }
    let now = pair.now;
    pair.b.session.answer_companion(now, true);
    pair.drive();
    assert!(!pair.b.session.is_established());
}

#[test]
fn an_answer_about_another_connection_is_refused() {
    // The last byte of the peer's port; the bit itself; a bit where none belongs.
    for (at, change) in [(32 + 99, 1), (42, 8)] {
        let mut pair = Pair::new(offering(), wanting());
        pair.b.knobs.answer_companion = Some(true);
        pair.drain();
        pair.choose(0);
        let (_, message) = pair.under_way(Side::A).front_mut().unwrap();
        message[at] ^= change;
        pair.drive();
        assert!(!pair.a.session.is_established());
        let failure = pair.a.session.failure().unwrap();
        assert!(matches!(
            failure,
            Failure::Protocol(ProtocolError::Companion | ProtocolError::NonZero)
        ));
        assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
    }
}

#[test]
fn close_while_the_acceptor_decides_just_ends() {
    for side in [Side::A, Side::B] {
        let mut pair = Pair::new(offering(), wanting());
        pair.drive();
        let now = pair.now;
        pair.host(side).session.close(now);
        pair.drive();
        assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
    }
}

// ---- suspension

fn suspendable(rdma_read: bool) -> Pair {
    let config = Config {
        suspend: true,
        rdma_read,
        ..small()
    };
    Pair::established(config.clone(), config)
}

#[test]
fn a_suspended_direction_ends_after_its_last_byte_and_says_how() {
    for rdma_read in [true, false] {
        let mut pair = suspendable(rdma_read);
        pair.a.send(10).unwrap();
        pair.a.send(3000).unwrap();
        pair.a.session.suspend_send().unwrap();
        assert_eq!(pair.a.session.suspend_send(), Ok(()), "said again");
        assert_eq!(pair.a.send(1), Err(SendError::Suspended));
        pair.drive();
        // It is known before it is reached.
        assert_eq!(pair.b.session.peer_end(), Some((End::Suspended, 3010)));
        assert_ne!(pair.b.session.readable(), Readable::Eof);
        pair.read_everything();
        assert_eq!(pair.b.session.readable(), Readable::Eof);
        assert_eq!(pair.b.session.consumed_offset(), 3010);
        assert_eq!(pair.a.session.peer_end(), None);
        assert!(!pair.a.is_disconnected() && !pair.b.is_disconnected());
        // The other side follows when it has said what it had to say.
        pair.b.send(2000).unwrap();
        pair.b.session.suspend_send().unwrap();
        pair.read_everything();
        assert_eq!(pair.a.session.peer_end(), Some((End::Suspended, 2000)));
        finished(&pair);
    }
}

fn finished(pair: &Pair) {
    pair.check_complete();
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.session.readable(), Readable::Eof);
        assert_eq!(host.session.failure(), None);
        assert!(host.is_disconnected() && host.session.is_finished());
        assert_eq!(host.session.poll_timeout(), None);
    }
}

#[test]
fn every_mixture_of_ends_is_graceful() {
    type Wish = fn(&mut Session);
    let shut: Wish = |session| session.shutdown_send();
    let suspend: Wish = |session| session.suspend_send().unwrap();
    for (one, other) in [(shut, suspend), (suspend, shut), (suspend, suspend)] {
        for cross in [false, true] {
            for first in [Side::A, Side::B] {
                let mut pair = suspendable(true);
                pair.lossy = true;
                pair.a.send(3000).unwrap();
                pair.b.send(3000).unwrap();
                one(&mut pair.host(first).session);
                if !cross {
                    pair.drive();
                }
                other(&mut pair.host(first.other()).session);
                pair.read_everything();
                finished(&pair);
            }
        }
    }
}

#[test]
fn suspend_is_answered_by_suspended_and_crosses_another_suspend() {
    let said = |pair: &Pair, side: Side| {
        let host = if side == Side::A { &pair.a } else { &pair.b };
        host.log.clone().unwrap()
    };
    for cross in [false, true] {
        let mut pair = suspendable(true);
        pair.a.log = Some(vec![]);
        pair.b.log = Some(vec![]);
        pair.a.session.suspend_send().unwrap();
        if !cross {
            pair.drive();
        }
        pair.b.session.suspend_send().unwrap();
        pair.drive();
        assert!(said(&pair, Side::A).contains(&"Suspend".to_owned()));
        let answer = if cross { "Suspend" } else { "Suspended" };
        assert!(said(&pair, Side::B).contains(&answer.to_owned()));
        finished(&pair);
    }
}

#[test]
fn a_stream_ends_once_as_was_said_first() {
    let mut pair = suspendable(true);
    pair.a.send(10).unwrap();
    pair.a.session.suspend_send().unwrap();
    pair.a.session.shutdown_send();
    pair.drive();
    pair.a.session.shutdown_send();
    assert_eq!(pair.b.session.peer_end(), Some((End::Suspended, 10)));
    pair.b.session.shutdown_send();
    assert_eq!(pair.b.session.suspend_send(), Err(SendError::Shutdown));
    pair.read_everything();
    assert_eq!(pair.b.session.suspend_send(), Err(SendError::Shutdown));
    assert_eq!(pair.a.session.peer_end(), Some((End::Shutdown, 0)));
    finished(&pair);
}

#[test]
fn who_cannot_be_suspended_is_not() {
    let can = Config {
        suspend: true,
        ..small()
    };
    for (a, b) in [(can.clone(), small()), (small(), can.clone())] {
        let mut pair = Pair::established(a, b);
        for side in [Side::A, Side::B] {
            let session = &mut pair.host(side).session;
            assert!(session.peer().is_some_and(|peer| !peer.suspend));
            assert_eq!(session.suspend_send(), Err(SendError::Unsupported));
        }
        pair.a.send(10).unwrap();
        pair.read_everything();
        pair.check_complete();
    }
    let mut early = Pair::new(can.clone(), can);
    let refusal = early.a.session.suspend_send();
    assert_eq!(refusal, Err(SendError::Unsupported), "not known yet");
}

#[test]
fn a_suspended_session_can_still_be_closed_or_lost() {
    let mut pair = suspendable(true);
    pair.a.send(3000).unwrap();
    pair.b.send(3000).unwrap();
    pair.a.session.suspend_send().unwrap();
    let now = pair.now;
    pair.a.session.close(now);
    pair.read_everything();
    assert_eq!(pair.b.received.len(), 3000);
    assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
    assert_eq!(pair.a.session.failure(), None);

    let mut pair = suspendable(true);
    pair.a.session.suspend_send().unwrap();
    pair.drive();
    let now = pair.now;
    for side in [Side::A, Side::B] {
        pair.host(side).session.handle_disconnected(now);
    }
    pair.drive();
    assert_eq!(pair.a.session.failure(), Some(Failure::Disconnected));
    assert_eq!(
        pair.a.session.suspend_send(),
        Err(SendError::Failed(Failure::Disconnected))
    );
}

// ---- what has arrived

#[test]
fn what_the_peer_has_is_known_up_to_as_many_messages_as_it_has_buffers() {
    let mut pair = suspendable(true);
    let buffers = u64::from(pair.b.session.config().receive_buffers);
    let mut sent = 0;
    for _ in 0..200 {
        pair.a.send(50).unwrap();
        sent += 50;
        // Nothing has arrived yet.
        pair.drain();
        assert!(pair.a.session.acknowledged() <= pair.b.session.received());
        pair.read_everything();
        assert_eq!(pair.b.session.received(), sent);
        assert!(pair.a.session.acknowledged() + buffers * 50 >= sent);
    }
    assert!(pair.a.session.acknowledged() > 9000);
    assert_eq!(pair.b.session.acknowledged(), 0);
}

#[test]
fn the_end_of_a_transfer_that_is_read_confirms_it_at_once() {
    let mut pair = suspendable(true);
    pair.a.send(10).unwrap();
    pair.a.send(3000).unwrap();
    pair.b.session.set_direct(true);
    pair.drive();
    // The initial portion is here, the rest is not.
    assert_eq!(pair.b.session.received(), 110);
    assert!(pair.a.session.acknowledged() <= 110);
    pair.b.session.set_direct(false);
    pair.read_everything();
    assert_eq!(pair.b.session.received(), 3010);
    assert_eq!(pair.a.session.acknowledged(), 3010);
}

#[test]
fn a_transfer_that_is_written_is_confirmed_when_the_peer_knows_that_it_is() {
    let mut pair = suspendable(false);
    pair.a.send(3000).unwrap();
    pair.drain();
    // Everything is written, and the message that says so is lost.
    while pair.a.unfinished() > 0 {
        assert!(pair.choices() > 0);
        pair.choose(0);
    }
    pair.cut = true;
    let now = pair.now;
    for side in [Side::A, Side::B] {
        pair.host(side).session.handle_disconnected(now);
    }
    pair.drive();
    pair.b.read(usize::MAX);
    assert!(pair.b.session.received() < 3000);
    assert_eq!(pair.b.session.consumed_offset(), pair.b.session.received());
    assert!(pair.a.session.acknowledged() <= pair.b.session.received());
    // With as many messages behind it as the peer has buffers it is certain.
    let mut pair = suspendable(false);
    pair.a.send(3000).unwrap();
    for _ in 0..30 {
        pair.a.send(1).unwrap();
        pair.read_everything();
    }
    assert!(pair.a.session.acknowledged() >= 3000);
}

#[test]
fn an_answered_suspend_confirms_everything_before_it() {
    for (first, rdma_read) in [(Side::A, true), (Side::B, true), (Side::B, false)] {
        let mut pair = suspendable(rdma_read);
        for side in [Side::A, Side::B] {
            for len in [10, 3000, 400] {
                pair.host(side).send(len).unwrap();
            }
        }
        pair.read_everything();
        pair.host(first).session.suspend_send().unwrap();
        pair.drive();
        pair.host(first.other()).session.suspend_send().unwrap();
        pair.drive();
        assert_eq!(pair.host(first).session.acknowledged(), 3410);
        // The acceptor tells the connector at the end.
        assert_eq!(pair.a.session.acknowledged(), 3410);
        finished(&pair);
    }
}

// ---- leaving

fn leaving(rdma_read: bool) -> Pair {
    let config = Config {
        suspend: true,
        returns: true,
        rdma_read,
        ..small()
    };
    Pair::established(config.clone(), config)
}

/// The one who leaves, or both, give back what they have not read, and get what the other does;
/// then the session finishes.
#[test]
fn what_a_side_that_leaves_has_not_read_goes_back() {
    for (rdma_read, both) in [(true, false), (false, false), (true, true), (false, true)] {
        for first in [Side::A, Side::B] {
            let mut pair = leaving(rdma_read);
            pair.lossy = true;
            pair.a.send(3000).unwrap();
            pair.b.send(5000).unwrap();
            let sides = if both {
                vec![first, first.other()]
            } else {
                vec![first]
            };
            for side in sides {
                assert!(pair.host(side).session.leave());
                pair.host(side).session.suspend_send().unwrap();
            }
            pair.drive();
            for side in [Side::A, Side::B] {
                let session = &mut pair.host(side).session;
                assert_eq!(session.peer_leaves(), both || side != first);
                let _already = session.suspend_send();
            }
            pair.read_everything();
            for side in [Side::A, Side::B] {
                assert_eq!(pair.host(side).session.given_back(), None);
                assert!(!pair.host(side).is_disconnected());
                // All but the first hundred bytes were not read by the application.
                let unread = pair.host(side).received[100..].to_vec();
                pair.host(side).give_back(&unread);
            }
            pair.drive();
            for side in [Side::A, Side::B] {
                let stream = pair.host(side).stream();
                assert_eq!(pair.host(side).given_back, stream[100..]);
                assert_eq!(pair.host(side).session.given_back(), Some(GivenBack::All));
            }
            finished(&pair);
        }
    }
}

#[test]
fn a_stream_that_was_shut_down_is_given_back_as_well() {
    let mut pair = leaving(true);
    pair.a.send(3000).unwrap();
    pair.a.session.shutdown_send();
    pair.b.session.shutdown_send();
    assert!(pair.b.session.leave());
    pair.read_everything();
    assert!(pair.a.session.peer_leaves());
    let unread = pair.b.received.clone();
    pair.b.give_back(&unread);
    pair.a.give_back(&[]);
    pair.drive();
    assert_eq!(pair.a.given_back, pair.a.stream());
    finished(&pair);
}

/// A peer whose application has closed sends nothing again, and says so.
#[test]
fn nothing_goes_back_to_a_side_that_has_closed() {
    for side in [Side::A, Side::B] {
        let mut pair = leaving(true);
        pair.host(side.other()).send(300).unwrap();
        let now = pair.now;
        pair.host(side.other()).session.close(now);
        assert!(pair.host(side).session.leave());
        pair.host(side).session.suspend_send().unwrap();
        pair.read_everything();
        let unread = pair.host(side).received.clone();
        assert_eq!(unread.len(), 300);
        pair.host(side).give_back(&unread);
        pair.drive();
        let host = pair.host(side);
        assert_eq!(host.session.given_back(), Some(GivenBack::Gone));
        assert_eq!(host.session.failure(), None);
        assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
    }
}

/// Who leaves when the other side has just said that all is over gets nothing more.
#[test]
fn leaving_at_the_end_changes_nothing() {
    let mut pair = leaving(true);
    pair.a.session.shutdown_send();
    pair.b.session.shutdown_send();
    // The acceptor's last word is under way.
    pair.drain();
    while !pair.b.session.is_disconnected() && pair.under_way(Side::A).len() < 2 {
        if !pair.drive_bounded(1) {
            continue;
        }
        break;
    }
    let left = pair.a.session.leave();
    pair.a.session.give_back(0);
    pair.drive();
    if left {
        assert!(pair.a.session.given_back().is_some());
    }
    finished(&pair);
    assert!(!pair.a.session.leave() && !pair.b.session.leave());
}

#[test]
fn a_peer_that_was_not_offered_to_leave_does_not() {
    let mut pair = suspendable(true);
    assert!(!pair.a.session.leave());
    assert!(pair.a.session.failure().is_none());
}
