//! Stories of two peers about the beginning and the end: half close, close, reset, loss, time.

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

fn without_read() -> Config {
    Config {
        rdma_read: false,
        ..small()
    }
}

fn pair() -> Pair {
    Pair::established(small(), small())
}

#[test]
fn a_half_close_ends_one_direction_after_its_last_byte() {
    let mut pair = pair();
    pair.a.send(10).unwrap();
    pair.a.send(3000).unwrap();
    pair.a.session.shutdown_send();
    assert_eq!(pair.a.send(1), Err(SendError::Shutdown));
    pair.drive();
    assert_ne!(pair.b.session.readable(), Readable::Eof);
    pair.read_everything();
    assert_eq!(pair.b.session.readable(), Readable::Eof);
    pair.b.send(2000).unwrap();
    pair.read_everything();
    pair.check_complete();
    assert!(!pair.a.is_disconnected() && !pair.b.is_disconnected());
}

#[test]
fn both_half_closes_are_a_graceful_end() {
    for first in [Side::A, Side::B] {
        for cross in [false, true] {
            let mut pair = pair();
            // Nobody disconnects while something of its own is needed at the other end.
            pair.lossy = true;
            pair.a.send(3000).unwrap();
            pair.b.send(3000).unwrap();
            pair.host(first).session.shutdown_send();
            if !cross {
                pair.drive();
            }
            pair.host(first.other()).session.shutdown_send();
            pair.read_everything();
            pair.check_complete();
            for host in [&pair.a, &pair.b] {
                assert_eq!(host.session.readable(), Readable::Eof);
                assert_eq!(host.session.failure(), None);
                assert!(host.is_disconnected());
                assert!(host.session.is_finished());
                assert_eq!(host.session.poll_timeout(), None);
            }
        }
    }
}

#[test]
fn close_delivers_everything_first() {
    for side in [Side::A, Side::B] {
        for config in [small(), without_read()] {
            let mut pair = Pair::established(config.clone(), config);
            for len in [10, 3000, 20, 700] {
                pair.host(side).send(len).unwrap();
            }
            let now = pair.now;
            pair.host(side).session.close(now);
            pair.read_everything();
            pair.check_order();
            let peer = pair.host(side.other());
            assert_eq!(peer.received.len(), 3730);
            assert_eq!(peer.session.readable(), Readable::Eof);
            assert_eq!(peer.send(1), Err(SendError::PeerClosed));
            assert_eq!(peer.session.failure(), None);
            assert!(
                pair.host(side).is_disconnected(),
                "gracefully and without a time-out"
            );
            assert_eq!(pair.host(side).session.failure(), None);
            assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
        }
    }
}

#[test]
fn data_to_a_peer_that_has_closed_fails_and_nothing_hangs() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(config.clone(), config);
        for _ in 0..20 {
            pair.a.send(700).unwrap();
        }
        pair.a.send(30).unwrap();
        pair.drive();
        pair.b.read(150);
        let now = pair.now;
        pair.b.session.close(now);
        pair.drive();
        assert_eq!(pair.a.unfinished(), 0);
        assert!(
            pair.a
                .sent
                .iter()
                .any(|sent| sent.result == Some(Err(SendFailure::PeerClosed)))
        );
        assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
        assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
        assert_eq!(pair.a.session.failure(), None);
        pair.check_order();
    }
}

#[test]
fn a_receiver_that_shuts_down_while_a_refused_transfer_is_filled_ends_it() {
    let mut pair = pair();
    pair.b.knobs.fail_allocate = true;
    pair.a.send(5000).unwrap();
    pair.drive();
    pair.b.read(300);
    pair.drain();
    pair.b.session.shutdown_receive();
    pair.drive();
    assert_eq!(pair.a.unfinished(), 0);
    assert_eq!(pair.b.session.readable(), Readable::Eof);
    pair.b.send(100).unwrap();
    pair.read_everything();
    assert_eq!(pair.a.received.len(), 100);
    assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
}

#[test]
fn memory_that_is_refused_after_receiving_was_shut_down_still_ends_the_transfer() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(config.clone(), config.clone());
        pair.b.knobs.hold_memory = true;
        pair.a.send(3000).unwrap();
        pair.drive();
        pair.b.session.shutdown_receive();
        pair.drive();
        pair.b.knobs.fail_allocate = true;
        pair.answer_held(Side::B);
        pair.drive();
        assert_eq!(pair.a.unfinished(), 0, "the peer was not told");
        assert!(pair.a.holds_nothing() && pair.b.holds_nothing());

        // The same with a pull.
        let mut pair = Pair::established(config.clone(), config);
        pair.b.session.set_direct(true);
        pair.a.send(3000).unwrap();
        pair.drive();
        pair.b.read(100);
        pair.b.knobs.hold_memory = true;
        pair.b.pull(500).unwrap();
        pair.drive();
        pair.b.session.shutdown_receive();
        pair.drive();
        pair.b.knobs.fail_register = true;
        pair.b.knobs.fail_expose = true;
        pair.answer_held(Side::B);
        pair.drive();
        assert_eq!(pair.b.pulled.len(), 1);
        assert_eq!(pair.a.unfinished(), 0, "the peer was not told");
        assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
    }
}

#[test]
fn what_is_here_behind_a_refused_transfer_goes_when_receiving_was_shut_down() {
    let mut pair = pair();
    pair.rdma_latency = Duration::ZERO;
    pair.b.knobs.fail_allocate = true;
    pair.a.send(600).unwrap();
    pair.a.send(600).unwrap();
    pair.drive();
    // The first is refused and asked for in messages, the second is fetched.
    pair.b.read(100);
    pair.drain();
    assert_eq!(pair.b.session.stats().refused_sent, 1);
    pair.b.knobs.fail_allocate = false;
    // Memory may be had again.
    pair.b.session.set_direct(false);
    pair.drain();
    while pair.b.session.stats().rdma_reads == 0 {
        pair.drive_bounded(1);
    }
    pair.drive_bounded(1);
    assert_eq!(pair.b.session.unread(), 600, "the second is here");
    pair.b.session.shutdown_receive();
    pair.drive();
    assert_eq!(pair.a.unfinished(), 0);
    assert!(
        pair.b.holds_nothing(),
        "temporary memory that nobody reads is held"
    );
    assert!(pair.a.holds_nothing());
    pair.a.session.shutdown_send();
    pair.b.session.shutdown_send();
    pair.drive();
    assert!(pair.a.session.is_finished() && pair.b.session.is_finished());
}

#[test]
fn a_close_that_the_peer_ignores_ends_in_time() {
    let mut pair = pair();
    pair.a.send(10).unwrap();
    pair.drive();
    pair.cut = true;
    let now = pair.now;
    pair.a.session.close(now);
    pair.drain();
    assert!(!pair.a.is_disconnected());
    pair.advance(Duration::from_secs(4));
    assert!(!pair.a.is_disconnected());
    pair.advance(Duration::from_secs(2));
    assert!(pair.a.is_disconnected());
    assert!(pair.a.session.is_finished());
}

#[test]
fn a_lost_connection_is_a_reset_after_what_had_arrived() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.a.send(400).unwrap();
        pair.a.send(9000).unwrap();
        pair.a.send(400).unwrap();
        pair.drive();
        let now = pair.now;
        pair.a.session.handle_disconnected(now);
        pair.b.session.handle_disconnected(now);
        pair.drain();
        assert_eq!(pair.a.session.failure(), Some(Failure::Disconnected));
        assert_eq!(pair.a.unfinished(), 0);
        assert!(pair.a.holds_nothing());
        assert!(pair.b.read(usize::MAX) >= 500);
        pair.drain();
        let failed = Readable::Failed(Failure::Disconnected);
        assert_eq!(pair.b.session.readable(), failed);
        assert_eq!(
            pair.b.send(1),
            Err(SendError::Failed(Failure::Disconnected))
        );
        pair.check_order();
        assert!(pair.b.holds_nothing());
        assert!(pair.a.session.is_finished() && pair.b.session.is_finished());
    }
}

#[test]
fn unread_data_of_a_lost_connection_goes_with_close() {
    let mut pair = pair();
    pair.a.send(3000).unwrap();
    pair.drive();
    let now = pair.now;
    pair.b.session.handle_disconnected(now);
    pair.drain();
    assert!(!pair.b.holds_nothing());
    pair.b.session.close(now);
    pair.drain();
    assert!(pair.b.holds_nothing());
}

#[test]
fn abort_tells_the_peer_and_releases_everything() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        for _ in 0..6 {
            pair.a.send(3000).unwrap();
            pair.b.send(3000).unwrap();
        }
        pair.drive_bounded(9);
        let now = pair.now;
        pair.a.session.abort(now, ResetReason::Aborted);
        pair.drive();
        assert_eq!(pair.a.session.failure(), Some(Failure::Aborted));
        assert_eq!((pair.a.unfinished(), pair.b.unfinished()), (0, 0));
        assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
        assert!(pair.a.holds_nothing());
        let failure = pair.b.session.failure().unwrap();
        assert!(matches!(
            failure,
            Failure::Reset(ResetReason::Aborted) | Failure::RdmaFailed
        ));
        pair.b.read(usize::MAX);
        pair.drain();
        assert!(pair.b.holds_nothing());
        assert!(pair.a.session.is_finished() && pair.b.session.is_finished());
        pair.check_order();
    }
}

#[test]
fn an_rdma_that_fails_ends_the_connection() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.a.knobs.fail_rdma = true;
        pair.b.knobs.fail_rdma = true;
        pair.a.send(3000).unwrap();
        pair.drive();
        pair.b.read(usize::MAX);
        pair.drive();
        assert_eq!(pair.a.unfinished(), 0);
        assert!(pair.a.session.failure().is_some() && pair.b.session.failure().is_some());
        assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
    }
}

// ---- time

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let keep_alive = Some(Duration::from_secs(30));
    let mut pair = Pair::established(
        Config {
            keep_alive,
            ..small()
        },
        small(),
    );
    pair.advance(Duration::from_secs(100));
    assert_eq!(pair.a.session.failure(), None);
    assert!(pair.a.session.stats().keep_alives_sent >= 1);
    pair.cut = true;
    pair.advance(Duration::from_secs(100));
    assert_eq!(pair.a.session.failure(), Some(Failure::KeepAliveTimedOut));
    assert_eq!(pair.b.session.failure(), Some(Failure::KeepAliveTimedOut));
    assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
}

#[test]
fn keep_alives_do_not_use_the_credits_up() {
    let config = Config {
        keep_alive: Some(Duration::from_secs(1)),
        receive_buffers: 5,
        ..small()
    };
    let mut pair = Pair::established(config.clone(), config);
    pair.advance(Duration::from_secs(1000));
    assert_eq!(
        (pair.a.session.failure(), pair.b.session.failure()),
        (None, None)
    );
    pair.a.send(3000).unwrap();
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn nobody_makes_a_peer_ask_for_signs_of_life_without_a_pause() {
    let least = Some(Duration::from_millis(100));
    let hasty = Config {
        keep_alive: Some(Duration::from_millis(1)),
        ..small()
    };
    let mut pair = Pair::established(hasty, small());
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.session.peer().unwrap().keep_alive, least);
    }
    pair.advance(Duration::from_secs(10));
    assert!(pair.a.session.stats().keep_alives_sent <= 100);
    assert_eq!(pair.a.session.failure(), None);

    // A peer that says so itself.
    let mut pair = Pair::new(small(), small());
    pair.drain();
    let (_, message) = pair.under_way(Side::B).front_mut().unwrap();
    message[32 + 40] = 1;
    pair.drive();
    assert!(pair.b.session.is_established());
    assert_eq!(pair.b.session.peer().unwrap().keep_alive, least);
}

#[test]
fn a_negotiation_without_an_answer_ends_in_time() {
    let mut pair = Pair::new(small(), small());
    pair.cut = true;
    pair.advance(Duration::from_secs(9));
    assert_eq!(pair.a.session.failure(), None);
    pair.advance(Duration::from_secs(2));
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.session.failure(), Some(Failure::NegotiationTimedOut));
        assert!(host.is_disconnected());
    }
}

#[test]
fn versions_that_do_not_meet_end_with_that_reason_on_both_sides() {
    let mut pair = Pair::new(small(), small());
    pair.drain();
    // The version range of the offer: bytes 8 and 9 of the body.
    let (_, message) = pair.under_way(Side::B).front_mut().unwrap();
    message[40] = 2;
    message[41] = 9;
    pair.drive();
    assert_eq!(pair.a.session.failure(), Some(Failure::VersionMismatch));
    assert_eq!(pair.b.session.failure(), Some(Failure::VersionMismatch));
    assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
}

#[test]
fn the_highest_version_that_both_speak_is_taken() {
    for (one, other, common) in [
        ((1, 1), (1, 1), Some(1)),
        ((1, 3), (1, 1), Some(1)),
        ((1, 1), (1, 3), Some(1)),
        ((1, 3), (2, 4), Some(3)),
        ((2, 4), (1, 3), Some(3)),
        ((1, 9), (4, 5), Some(5)),
        ((4, 5), (1, 9), Some(5)),
        ((1, 1), (2, 9), None),
        ((2, 9), (1, 1), None),
    ] {
        let speaks = |versions| Config {
            versions,
            ..small()
        };
        let mut pair = Pair::new(speaks(one), speaks(other));
        pair.drive();
        for host in [&pair.a, &pair.b] {
            let agreed = host.session.peer().map(|peer| peer.version);
            assert_eq!(agreed, common, "{one:?} {other:?}");
            let failure = common.is_none().then_some(Failure::VersionMismatch);
            assert_eq!(host.session.failure(), failure);
        }
        if common.is_some() {
            // Whatever comes now is of that version.
            pair.a.send(10).unwrap();
            pair.drive();
            assert_eq!(pair.b.session.stats().bytes_received, 10);
            assert!(pair.a.session.failure().is_none() && pair.b.session.failure().is_none());
        }
    }
}

#[test]
fn a_range_of_versions_without_one_is_refused() {
    for versions in [(0, 1), (2, 1)] {
        let config = Config {
            versions,
            ..small()
        };
        let made = Session::new(Role::Connector, config, Instant::ZERO);
        assert_eq!(made.unwrap_err(), ConfigError::NoSuchVersion);
    }
}

#[test]
fn a_later_version_may_say_more_if_it_still_speaks_ours() {
    let mut pair = Pair::new(small(), small());
    pair.drain();
    let (_, message) = pair.under_way(Side::B).front_mut().unwrap();
    message[41] = 2;
    message[32 + 70] = 0xff;
    pair.drive();
    assert!(pair.a.session.is_established() && pair.b.session.is_established());
}

#[test]
fn an_answer_for_another_session_is_refused() {
    let mut pair = Pair::new(small(), small());
    pair.drain();
    pair.choose(0);
    let (_, message) = pair.under_way(Side::A).front_mut().unwrap();
    message[32 + 48] ^= 1;
    pair.drive();
    let failure = Failure::Protocol(ProtocolError::SessionId);
    assert_eq!(pair.a.session.failure(), Some(failure));
}

#[test]
fn close_before_the_negotiation_is_over_just_ends() {
    let mut pair = Pair::new(small(), small());
    pair.drain();
    let now = pair.now;
    pair.a.session.close(now);
    pair.drive();
    assert!(pair.a.is_disconnected() && pair.b.is_disconnected());
    assert_eq!(pair.b.session.failure(), Some(Failure::Disconnected));
}
