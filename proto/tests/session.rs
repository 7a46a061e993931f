//! Stories of two peers: each test is one thing an application may do, and what must follow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::time::Duration;

use wsd_proto::testing::{Pair, small};
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
fn the_connector_speaks_first_and_both_learn_of_each_other() {
    let mut pair = Pair::new(
        Config {
            session_id: [7; 16],
            threshold: 600,
            ..small()
        },
        Config {
            rdma_read: false,
            receive_buffers: 20,
            ..small()
        },
    );
    pair.b.session.handle_timeout(pair.now);
    assert_eq!(pair.b.session.poll_action(), None, "the acceptor waits");
    pair.drive();
    let a = *pair.a.session.peer().unwrap();
    let b = *pair.b.session.peer().unwrap();
    assert_eq!((a.receive_buffers, b.receive_buffers), (20, 12));
    assert_eq!(
        (a.threshold, b.threshold),
        (600, 600),
        "the larger threshold counts"
    );
    // req: SEED-17 what the receiver can do decides
    assert_eq!(
        (a.send_mode, b.send_mode),
        (SendMode::Write, SendMode::Read)
    );
    assert_eq!(pair.b.session.session_id(), [7; 16]);
}

#[test]
fn a_sender_told_to_push_writes_to_a_receiver_that_could_read() {
    let push = Config {
        push: true,
        ..small()
    };
    let mut pair = Pair::established(push, small());
    let (a, b) = (pair.a.session.peer(), pair.b.session.peer());
    assert_eq!(a.unwrap().send_mode, SendMode::Write);
    assert_eq!(b.unwrap().send_mode, SendMode::Read);
    let send = pair.a.send(5_000).unwrap();
    pair.read_everything();
    pair.check_complete();
    assert_eq!(pair.a.result(send), Some(Ok(())));
    assert!(pair.a.session.stats().rdma_writes > 0);
    assert_eq!(pair.b.session.stats().rdma_reads, 0);
}

/// req: SEED-04
#[test]
fn small_data_travels_in_messages_and_completes_when_copied() {
    let mut pair = pair();
    let first = pair.a.send(1).unwrap();
    let second = pair.a.send(512).unwrap();
    pair.drain();
    assert_eq!(pair.a.result(first), Some(Ok(())));
    assert_eq!(pair.a.result(second), Some(Ok(())));
    pair.read_everything();
    pair.check_complete();
    let stats = pair.a.session.stats();
    assert_eq!(
        (stats.large_sent, stats.data_sent),
        (0, 1 + 3),
        "224 bytes of data in 256"
    );
    assert_eq!(pair.b.session.stats().rdma_reads, 0);
}

#[test]
fn a_send_of_nothing_completes_at_once_and_sends_nothing() {
    let mut pair = pair();
    let before = pair.a.session.stats().messages_sent;
    let id = pair.a.send(0).unwrap();
    pair.drive();
    assert_eq!(pair.a.result(id), Some(Ok(())));
    assert_eq!(pair.a.session.stats().messages_sent, before);
}

/// req: WSD-20
#[test]
fn at_the_threshold_a_message_and_above_it_rdma_in_pieces() {
    let mut pair = pair();
    pair.a.send(512).unwrap();
    pair.read_everything();
    assert_eq!(pair.b.session.stats().rdma_reads, 0);
    pair.a.send(513).unwrap();
    pair.read_everything();
    assert_eq!(pair.b.session.stats().rdma_reads, 1);
    pair.a.send(100 + 2048).unwrap();
    pair.read_everything();
    // 2048 bytes behind the initial portion, at most 1000 in one RDMA
    assert_eq!(pair.b.session.stats().rdma_reads, 1 + 3);
    pair.check_complete();
}

/// req: SEED-05, SEED-06, SEED-07, SEED-08, SEED-09
#[test]
fn a_receiver_that_reads_goes_through_the_documented_steps() {
    let mut pair = pair();
    pair.a.log = Some(vec![]);
    pair.b.log = Some(vec![]);
    pair.a.send(1000).unwrap();
    pair.drive();
    assert_eq!(pair.b.read(usize::MAX), 1000);
    pair.drain();
    assert_eq!(
        pair.a.log.take().unwrap(),
        ["Expose", "LargeRead", "Conceal", "SendComplete"]
    );
    assert_eq!(
        pair.b.log.take().unwrap(),
        ["AllocateTemp", "RdmaRead", "ReadDone", "FreeTemp"]
    );
    let (sender, receiver) = (pair.a.session.stats(), pair.b.session.stats());
    assert_eq!(sender.peer_read_bytes, receiver.rdma_read_bytes);
    assert_eq!(
        (sender.peer_read_bytes, receiver.peer_write_bytes),
        (900, 0)
    );
    pair.check_complete();
}

/// req: SEED-11, SEED-12, SEED-13, SEED-14, SEED-15
#[test]
fn a_receiver_that_cannot_read_is_written_to_in_the_documented_steps() {
    let mut pair = Pair::established(small(), without_read());
    pair.a.log = Some(vec![]);
    pair.b.log = Some(vec![]);
    pair.a.send(1000).unwrap();
    pair.drive();
    assert_eq!(pair.b.read(usize::MAX), 1000);
    pair.drain();
    let sender = [
        "Register",
        "LargeWrite",
        "RdmaWrite",
        "WriteDone",
        "Deregister",
        "SendComplete",
    ];
    assert_eq!(pair.a.log.take().unwrap(), sender);
    let receiver = ["AllocateTemp", "Expose", "Location", "Conceal", "FreeTemp"];
    assert_eq!(pair.b.log.take().unwrap(), receiver);
    let (sender, receiver) = (pair.a.session.stats(), pair.b.session.stats());
    assert_eq!(receiver.peer_write_bytes, sender.rdma_write_bytes);
    assert_eq!(
        (sender.peer_read_bytes, receiver.peer_write_bytes),
        (0, 900)
    );
    pair.check_complete();
}

#[test]
fn a_waiting_application_gets_large_data_without_a_copy() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.b.session.set_direct(true);
        pair.a.send(5000).unwrap();
        pair.drive();
        assert_eq!(pair.b.read(usize::MAX), 100, "the initial portion");
        assert!(matches!(
            pair.b.session.readable(),
            Readable::Remote { len: 4900, .. }
        ));
        pair.b.pull(3000).unwrap();
        assert_eq!(pair.b.pull(10), Err(PullError::NothingRemote));
        pair.drive();
        assert!(matches!(
            pair.b.session.readable(),
            Readable::Remote { len: 1900, .. }
        ));
        pair.b.pull(usize::from(u16::MAX)).unwrap();
        pair.drive();
        assert_eq!(
            pair.b.pulled.iter().map(|(_, n)| n.unwrap()).sum::<u64>(),
            4900
        );
        pair.check_complete();
        assert_eq!(pair.b.session.readable(), Readable::Nothing);
    }
}

/// req: SEED-16
#[test]
fn later_small_data_overtakes_on_the_wire_and_not_in_the_stream() {
    let mut pair = pair();
    pair.b.session.set_direct(true);
    pair.a.send(3000).unwrap();
    let small = pair.a.send(10).unwrap();
    pair.a.send(600).unwrap();
    let last = pair.a.send(10).unwrap();
    pair.drive();
    assert_eq!(
        pair.a.result(small),
        Some(Ok(())),
        "not held up by the large one"
    );
    assert_eq!(pair.a.result(last), Some(Ok(())));
    assert_eq!(pair.a.unfinished(), 2);
    pair.b.session.set_direct(false);
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn no_more_large_transfers_are_in_flight_than_agreed_upon() {
    let mut pair = Pair::established(
        small(),
        Config {
            max_large: 2,
            ..small()
        },
    );
    pair.b.session.set_direct(true);
    for _ in 0..5 {
        pair.a.send(600).unwrap();
    }
    pair.drive();
    assert_eq!(pair.a.session.stats().large_sent, 2);
    pair.b.session.set_direct(false);
    pair.read_everything();
    assert_eq!(pair.a.session.stats().large_sent, 5);
    pair.check_complete();
}

/// req: SEED-10, WSD-21
#[test]
fn without_memory_nothing_of_the_send_leaves_and_the_connection_lives() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.a.send(10).unwrap();
        pair.a.knobs.fail_expose = true;
        pair.a.knobs.fail_register = true;
        let failed = pair.a.send(1000).unwrap();
        pair.drain();
        pair.a.knobs.fail_expose = false;
        pair.a.knobs.fail_register = false;
        pair.a.send(20).unwrap();
        pair.a.send(900).unwrap();
        pair.read_everything();
        assert_eq!(pair.a.result(failed), Some(Err(SendFailure::NoBuffers)));
        assert_eq!(pair.b.received.len(), 930);
        pair.check_complete();
    }
}

#[test]
fn a_receiver_without_memory_gets_the_rest_in_messages() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.b.knobs.fail_allocate = true;
        pair.a.send(3000).unwrap();
        pair.a.send(30).unwrap();
        pair.a.send(2000).unwrap();
        pair.drive();
        // The initial portion is still unread: other memory may come back first.
        assert_eq!(pair.b.session.stats().refused_sent, 0);
        pair.read_everything();
        pair.check_complete();
        let stats = pair.b.session.stats();
        assert!(stats.refused_sent > 2, "in parts that fit the queue");
        assert_eq!(stats.fill_bytes_received, 3000 - 100 + 2000 - 100);
        assert_eq!(
            pair.a.session.stats().fill_bytes_sent,
            stats.fill_bytes_received
        );
        assert_ne!(pair.a.session.stats().large_sent, 0);
        assert_eq!(
            no_rdma(&pair),
            [0; 4],
            "it was announced, and went in messages"
        );
    }
}

/// What each side says that the other has moved, and what it has moved itself, from `a` to `b`.
fn no_rdma(pair: &Pair) -> [u64; 4] {
    let (sender, receiver) = (pair.a.session.stats(), pair.b.session.stats());
    [
        sender.peer_read_bytes,
        receiver.peer_write_bytes,
        receiver.rdma_read_bytes,
        sender.rdma_write_bytes,
    ]
}

#[test]
fn a_receiver_that_cannot_expose_gets_the_rest_in_messages() {
    let mut pair = Pair::established(small(), without_read());
    pair.b.knobs.fail_expose = true;
    pair.a.send(3000).unwrap();
    pair.read_everything();
    pair.check_complete();
    assert_eq!(pair.b.session.stats().fill_bytes_received, 2900);
    assert_eq!(no_rdma(&pair), [0; 4]);
}

#[test]
fn refused_in_the_middle_goes_on_where_it_stopped() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.a.send(9000).unwrap();
        pair.drive();
        pair.b.knobs.fail_allocate = true;
        pair.read_everything();
        pair.check_complete();
        let stats = pair.b.session.stats();
        assert!(stats.fill_bytes_received > 0);
        assert!(stats.fill_bytes_received < 8900);
        let by_rdma = 8900 - stats.fill_bytes_received;
        let sender = pair.a.session.stats();
        assert_eq!(sender.peer_read_bytes, stats.rdma_read_bytes);
        assert_eq!(stats.peer_write_bytes, sender.rdma_write_bytes);
        assert_eq!(sender.peer_read_bytes + stats.peer_write_bytes, by_rdma);
    }
}

#[test]
fn a_pull_that_cannot_be_registered_leaves_the_data_with_the_peer() {
    for config in [small(), without_read()] {
        let mut pair = Pair::established(small(), config);
        pair.b.session.set_direct(true);
        pair.a.send(3000).unwrap();
        pair.drive();
        pair.b.read(100);
        pair.b.knobs.fail_register = true;
        pair.b.knobs.fail_expose = true;
        pair.b.pull(2900).unwrap();
        pair.drive();
        assert_eq!(pair.b.pulled.last().unwrap().1, Err(PullFailure::NoBuffers));
        pair.b.knobs.fail_expose = false;
        pair.b.session.set_direct(false);
        pair.read_everything();
        pair.check_complete();
        assert_eq!(pair.b.session.stats().refused_sent, 0);
    }
}

/// req: WSD-19
#[test]
fn an_application_that_does_not_read_stops_the_sender_and_nothing_else() {
    let mut pair = pair();
    for _ in 0..20 {
        pair.a.send(200).unwrap();
    }
    pair.drive();
    let (inbox, ..) = pair.b.storage();
    assert!(inbox <= 1024, "within the limit");
    assert!(inbox >= 600, "but not much too early");
    assert!(pair.a.unfinished() > 10);
    assert_eq!(pair.a.session.stats().stalls, 1);
    // The other direction, large and small, is not impressed.
    pair.b.send(3000).unwrap();
    pair.b.send(300).unwrap();
    pair.drive();
    pair.a.read(usize::MAX);
    pair.drive();
    pair.a.read(usize::MAX);
    pair.drive();
    assert_eq!((pair.b.unfinished(), pair.a.received.len()), (0, 3300));
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn both_sides_blocked_in_large_sends_come_through() {
    for (a, b) in [
        (small(), small()),
        (small(), without_read()),
        (without_read(), small()),
        (without_read(), without_read()),
    ] {
        let mut pair = Pair::established(a, b);
        // Neither application reads before its send is over: 4 KiB of temporary memory suffice.
        let a = pair.a.send(4000).unwrap();
        let b = pair.b.send(4000).unwrap();
        pair.drive();
        assert_eq!(pair.a.result(a), Some(Ok(())));
        assert_eq!(pair.b.result(b), Some(Ok(())));
        pair.read_everything();
        pair.check_complete();
    }
}

#[test]
fn sends_longer_than_all_memory_come_through_when_both_read() {
    for (a, b) in [(small(), small()), (small(), without_read())] {
        let mut pair = Pair::established(a, b);
        pair.a.send(100_000).unwrap();
        pair.b.send(70_000).unwrap();
        pair.a.send(50_000).unwrap();
        pair.read_everything();
        pair.check_complete();
    }
}

#[test]
fn without_any_rdma_everything_goes_in_messages() {
    let none = Config {
        rdma_read: false,
        descriptor_len: 0,
        ..small()
    };
    let mut pair = Pair::established(none.clone(), none);
    pair.a.send(20_000).unwrap();
    pair.b.send(2000).unwrap();
    pair.read_everything();
    pair.check_complete();
    assert_eq!(pair.a.session.stats().large_sent, 0);
}

#[test]
fn a_sender_without_descriptors_writes_even_to_a_receiver_that_could_read() {
    let mut pair = Pair::established(
        Config {
            descriptor_len: 0,
            ..small()
        },
        small(),
    );
    assert_eq!(pair.a.session.peer().unwrap().send_mode, SendMode::Write);
    assert_eq!(pair.b.session.peer().unwrap().send_mode, SendMode::Read);
    pair.a.send(3000).unwrap();
    pair.b.send(3000).unwrap();
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn what_arrives_at_the_head_goes_straight_to_a_waiting_application() {
    let mut pair = pair();
    pair.b.wait_for(300);
    pair.a.send(500).unwrap();
    pair.drive();
    assert_eq!(pair.b.received.len(), 300);
    assert_eq!(pair.b.storage().0, 200);
    pair.read_everything();
    pair.check_complete();
}

/// req: SEED-02, SEED-03
#[test]
fn credits_are_owed_only_for_receives_that_are_posted_again() {
    let mut pair = pair();
    pair.b.knobs.hold_reposts = true;
    for _ in 0..30 {
        pair.a.send(1).unwrap();
    }
    pair.drive();
    pair.b.read(usize::MAX);
    pair.drive();
    let before = pair.b.session.stats().messages_received;
    assert!(before <= 12 - 3 + 1, "the reserve is kept");
    pair.b.repost_held();
    pair.b.knobs.hold_reposts = false;
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn messages_wait_for_send_buffers() {
    let mut pair = Pair::established(
        Config {
            send_buffers: 2,
            ..small()
        },
        small(),
    );
    pair.a.knobs.hold_sent = true;
    for _ in 0..5 {
        pair.a.send(1).unwrap();
    }
    pair.drive();
    assert_eq!(pair.b.session.stats().data_received, 2);
    pair.a.report_held();
    pair.a.knobs.hold_sent = false;
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn an_idle_connection_is_silent() {
    let mut pair = pair();
    for _ in 0..40 {
        pair.a.send(100).unwrap();
        pair.read_everything();
        pair.b.send(100).unwrap();
        pair.read_everything();
    }
    let stats = pair.a.session.stats();
    // Each message of one side returns the credit of the other's.
    assert_eq!((stats.credits_sent, stats.credits_received), (0, 0));
    pair.advance(Duration::from_secs(3600));
    assert_eq!(pair.a.session.stats(), stats);
}

#[test]
fn one_way_traffic_returns_credits_in_batches() {
    let mut pair = pair();
    for _ in 0..120 {
        pair.a.send(10).unwrap();
        pair.read_everything();
    }
    let credits = pair.b.session.stats().credits_sent;
    // The inbox has room for four messages, so seven may be under way: half of them at once.
    assert!(
        (1..=120 / 3).contains(&credits),
        "{credits} for 120 messages"
    );
    assert!(pair.a.session.stats().credits_sent <= credits / 2);
}

#[test]
fn the_queue_of_sends_is_bounded() {
    let mut pair = Pair::established(
        Config {
            max_sends: 3,
            ..small()
        },
        small(),
    );
    for _ in 0..3 {
        pair.a.send(10).unwrap();
    }
    assert_eq!(pair.a.session.send_capacity(), 0);
    assert_eq!(pair.a.send(10), Err(SendError::Full));
    pair.drain();
    pair.a.send(10).unwrap();
    assert_eq!(
        pair.a.session.send(SendId(99), 1 << 32),
        Err(SendError::TooLong)
    );
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn sends_before_the_negotiation_wait_for_it() {
    let mut pair = Pair::new(small(), without_read());
    pair.a.send(10).unwrap();
    pair.a.send(3000).unwrap();
    pair.b.send(20).unwrap();
    pair.b.send(3000).unwrap();
    pair.read_everything();
    pair.check_complete();
}

#[test]
fn a_send_can_be_taken_back_as_long_as_it_has_not_left() {
    let mut pair = pair();
    for _ in 0..10 {
        pair.a.send(200).unwrap();
    }
    let half = pair.a.send(400).unwrap();
    let large = pair.a.send(2000).unwrap();
    let small = pair.a.send(7).unwrap();
    pair.drive();
    assert_eq!(pair.a.cancel(large), Cancel::Removed { sent: 0 });
    assert_eq!(pair.a.cancel(large), Cancel::Unknown);
    assert_eq!(pair.a.cancel(half), Cancel::Removed { sent: 0 });
    pair.drain();
    pair.read_everything();
    assert_eq!(pair.a.result(small), Some(Ok(())));
    assert_eq!(pair.a.cancel(small), Cancel::Unknown);
    pair.b.session.set_direct(true);
    let active = pair.a.send(2000).unwrap();
    pair.drive();
    assert_eq!(pair.a.cancel(active), Cancel::InFlight);
    pair.b.session.set_direct(false);
    pair.read_everything();
    pair.check_complete();
}

// ---- urgent data

#[test]
fn urgent_data_has_its_mark_and_the_reader_stops_there() {
    let mut pair = pair();
    pair.a.send(100).unwrap();
    pair.a.send_urgent(b"!").unwrap();
    pair.a.send(50).unwrap();
    pair.drive();
    assert_eq!(pair.b.session.mark(), Some(100));
    assert!(!pair.b.session.at_mark());
    assert_eq!(pair.b.read(usize::MAX), 100);
    assert!(pair.b.session.at_mark());
    assert_eq!(pair.b.take_urgent(), Some((100, b"!".to_vec())));
    assert_eq!(pair.b.read(usize::MAX), 50);
    assert!(!pair.b.session.at_mark());
    pair.drive();
    pair.check_complete();
}

#[test]
fn urgent_data_passes_large_transfers_in_flight() {
    let mut pair = pair();
    pair.b.session.set_direct(true);
    pair.a.send(3000).unwrap();
    pair.a.send_urgent(b"now").unwrap();
    pair.drive();
    assert_eq!(pair.b.urgent.front(), Some(&(3000, b"now".to_vec())));
    pair.b.session.set_direct(false);
    pair.read_everything();
    assert!(pair.b.session.at_mark());
    pair.check_complete();
}

#[test]
fn urgent_data_that_nobody_takes_stops_the_sender() {
    let mut pair = pair();
    for _ in 0..40 {
        pair.a.send_urgent(&[1; 100]).unwrap();
    }
    pair.drive();
    assert!(pair.b.storage().3 <= 1024);
    assert!(pair.a.unfinished() > 20);
    while pair.b.take_urgent().is_some() {
        pair.drive();
    }
    assert_eq!(pair.a.unfinished(), 0);
    assert_eq!(pair.a.send_urgent(&[0; 225]), Err(SendError::TooLong));
    assert_eq!(pair.a.send_urgent(&[]), Err(SendError::TooLong));
}
