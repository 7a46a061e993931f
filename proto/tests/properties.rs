//! Any operations in any order: what was sent is what is read, once and in order; each send
//! completes once; nothing stays exposed, registered or allocated; no limit is exceeded; no state is
//! without a way out. [`Pair`] asserts what must hold at every moment, this file what must hold at
//! the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

use wsd_proto::testing::{Pair, Side};
use wsd_proto::*;

#[derive(Clone, Debug)]
enum Operation {
    Send(Side, usize),
    Urgent(Side, usize),
    Cancel(Side, usize),
    Read(Side, usize),
    WaitFor(Side, usize),
    TakeUrgent(Side),
    Direct(Side, bool),
    Pull(Side, usize),
    FailMemory(Side, bool, bool, bool),
    HoldReposts(Side, bool),
    HoldSent(Side, bool),
    HoldMemory(Side, bool),
    Happen(u8, usize),
    ShutdownSend(Side),
    Suspend(Side),
    ShutdownReceive(Side),
    Close(Side),
    Abort(Side),
    Disconnect,
    FailRdma(Side),
    Advance(u64),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::A), Just(Side::B)]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1..40_usize, 3 => 200..1500_usize, 2 => 1000..12_000_usize, 1 => Just(0)]
}

/// What applications and drivers do as long as they want the connection.
fn ordinary() -> BoxedStrategy<Operation> {
    use Operation::*;
    prop_oneof![
        12 => (side(), length()).prop_map(|(s, n)| Send(s, n)),
        2 => (side(), 1..30_usize).prop_map(|(s, n)| Urgent(s, n)),
        1 => (side(), 0..6_usize).prop_map(|(s, n)| Cancel(s, n)),
        8 => (side(), 1..4000_usize).prop_map(|(s, n)| Read(s, n)),
        2 => (side(), 0..500_usize).prop_map(|(s, n)| WaitFor(s, n)),
        1 => side().prop_map(TakeUrgent),
        2 => (side(), any::<bool>()).prop_map(|(s, b)| Direct(s, b)),
        4 => (side(), 1..5000_usize).prop_map(|(s, n)| Pull(s, n)),
        2 => (side(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(s, a, b, c)| FailMemory(s, a, b, c)),
        1 => (side(), any::<bool>()).prop_map(|(s, b)| HoldReposts(s, b)),
        1 => (side(), any::<bool>()).prop_map(|(s, b)| HoldSent(s, b)),
        1 => (side(), any::<bool>()).prop_map(|(s, b)| HoldMemory(s, b)),
        25 => (any::<u8>(), 1..6_usize).prop_map(|(n, times)| Happen(n, times)),
        1 => (0..2000_u64).prop_map(Advance),
    ]
    .boxed()
}

fn ending() -> BoxedStrategy<Operation> {
    use Operation::*;
    prop_oneof![
        2 => side().prop_map(ShutdownSend),
        2 => side().prop_map(Suspend),
        2 => side().prop_map(ShutdownReceive),
        3 => side().prop_map(Close),
        1 => side().prop_map(Abort),
        1 => Just(Disconnect),
        1 => side().prop_map(FailRdma),
    ]
    .boxed()
}

prop_compose! {
    fn config()(
        receive_buffers in prop_oneof![3 => 5..16_u32, 1 => 16..60_u32],
        receive_buffer_size in 256..500_u32,
        send_buffers in 1..6_u32,
        (rdma_read, push) in any::<(bool, bool)>(),
        max_rdma in prop_oneof![Just(0_u64), 1..50_u64, 100..3000_u64],
        max_rdma_in_flight in 1..4_u32,
        descriptor_len in prop_oneof![1 => Just(0_usize), 4 => Just(24_usize), 1 => Just(64_usize)],
        max_descriptor in prop_oneof![1 => Just(10_usize), 5 => Just(64_usize)],
        threshold in prop_oneof![Just(0_u64), 1..1000_u64],
        initial_portion in 0..400_u32,
        inbox_limit in prop_oneof![3 => 0..2000_u64, 1 => 2000..20_000_u64],
        (temp_limit, temp_chunk) in (0..6000_u64, 1..3000_u64),
        fill_limit in 0..1000_u64,
        max_large in prop_oneof![1 => Just(0_u16), 5 => 1..5_u16],
        suspend in any::<bool>(),
        keep_alive in prop_oneof![Just(None), Just(Some(Duration::from_millis(700)))],
    ) -> Config {
        Config {
            receive_buffers, receive_buffer_size, send_buffers, rdma_read, push, max_rdma,
            max_rdma_in_flight, descriptor_len, max_descriptor, threshold, initial_portion,
            inbox_limit, temp_limit, temp_chunk, fill_limit, max_large, keep_alive, suspend,
            max_message: 450, max_sends: 6, ..Config::default()
        }
    }
}

/// A driver that holds buffers back looks dead to a peer that waits for a sign of life.
fn patient() -> impl Strategy<Value = Config> {
    config().prop_map(|config| Config {
        keep_alive: None,
        ..config
    })
}

fn apply(pair: &mut Pair, operation: &Operation) {
    let now = pair.now;
    match *operation {
        Operation::Send(side, len) => {
            let full = pair.host(side).session.send_capacity() == 0;
            let result = pair.host(side).send(len);
            assert!(result != Err(SendError::Full) || full);
        }
        Operation::Urgent(side, len) => {
            let bytes = vec![len as u8; len];
            let _refused = pair.host(side).send_urgent(&bytes);
        }
        Operation::Cancel(side, back) => {
            let host = pair.host(side);
            let id = host.sent.iter().rev().nth(back).map(|sent| sent.id);
            if let Some(id) = id {
                let over = host.result(id).is_some();
                let answer = host.cancel(id);
                assert_eq!(answer == Cancel::Unknown, over);
            }
        }
        Operation::Read(side, most) => {
            pair.host(side).read(most);
        }
        Operation::WaitFor(side, bytes) => pair.host(side).wait_for(bytes),
        Operation::TakeUrgent(side) => {
            pair.host(side).take_urgent();
        }
        Operation::Direct(side, direct) => pair.host(side).session.set_direct(direct),
        Operation::Pull(side, most) => {
            let _refused = pair.host(side).pull(most);
        }
        Operation::FailMemory(side, expose, register, allocate) => {
            let knobs = &mut pair.host(side).knobs;
            knobs.fail_expose = expose;
            knobs.fail_register = register;
            knobs.fail_allocate = allocate;
        }
        Operation::HoldReposts(side, hold) => {
            pair.host(side).knobs.hold_reposts = hold;
            if !hold {
                pair.host(side).repost_held();
            }
        }
        Operation::HoldSent(side, hold) => {
            pair.host(side).knobs.hold_sent = hold;
            if !hold {
                pair.host(side).report_held();
            }
        }
        Operation::Happen(n, times) => {
            for _ in 0..times {
                let choices = pair.choices();
                if choices > 0 {
                    pair.choose(usize::from(n) % choices);
                }
            }
        }
        Operation::HoldMemory(side, hold) => {
            pair.host(side).knobs.hold_memory = hold;
            if !hold {
                pair.answer_held(side);
            }
        }
        Operation::ShutdownSend(side) => pair.host(side).session.shutdown_send(),
        Operation::Suspend(side) => {
            let _refused = pair.host(side).session.suspend_send();
        }
        Operation::ShutdownReceive(side) => pair.host(side).session.shutdown_receive(),
        Operation::Close(side) => pair.host(side).session.close(now),
        Operation::Abort(side) => pair.host(side).session.abort(now, ResetReason::Aborted),
        Operation::Disconnect => {
            pair.a.session.handle_disconnected(now);
            pair.b.session.handle_disconnected(now);
        }
        Operation::FailRdma(side) => pair.host(side).knobs.fail_rdma = true,
        Operation::Advance(millis) => pair.advance(Duration::from_millis(millis)),
    }
    pair.drain();
    pair.check_order();
    check_positions(pair);
    assert!(
        pair.a.has_not_allocated() && pair.b.has_not_allocated(),
        "a queue has grown"
    );
}

/// Nobody believes the peer to have what it has not, or the other way round.
fn check_positions(pair: &Pair) {
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let (known, here) = (from.session.acknowledged(), to.session.received());
        assert!(known <= here, "{known} bytes confirmed, {here} received");
        assert!(here <= from.session.stats().bytes_sent);
        assert!(here >= to.session.consumed_offset());
    }
}

/// Drivers behave from now on, applications read.
fn calm(pair: &mut Pair) {
    for side in [Side::A, Side::B] {
        let host = pair.host(side);
        let fail_rdma = host.knobs.fail_rdma;
        host.knobs = testing::Knobs {
            fail_rdma,
            ..Default::default()
        };
        host.report_held();
        host.repost_held();
        pair.answer_held(side);
        let host = pair.host(side);
        host.session.set_direct(false);
        host.wait_for(0);
    }
    pair.read_everything();
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(150);
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    /// req: WSD-19, WSD-20, WSD-21
    #[test]
    fn what_is_sent_is_read_once_and_in_order(
        a in patient(), b in patient(), early in any::<bool>(),
        operations in vec(ordinary(), 1..120),
    ) {
        let mut pair = if early { Pair::new(a, b) } else { Pair::established(a, b) };
        for operation in &operations {
            apply(&mut pair, operation);
        }
        calm(&mut pair);
        pair.check_complete();
        prop_assert_eq!(pair.a.session.failure(), None);
        prop_assert_eq!(pair.b.session.failure(), None);
        // And so is what is sent afterwards: no credit was lost.
        for side in [Side::A, Side::B] {
            pair.host(side).send(3000).unwrap();
        }
        pair.read_everything();
        pair.check_complete();
        for side in [Side::A, Side::B] {
            pair.host(side).session.shutdown_send();
        }
        pair.read_everything();
        prop_assert!(pair.a.session.is_finished() && pair.b.session.is_finished());
    }

    #[test]
    fn every_way_to_end_ends(
        a in config(), b in config(), early in any::<bool>(), lossy in any::<bool>(),
        before in vec(ordinary(), 0..60),
        end in vec(ending(), 1..4),
        after in vec(ordinary(), 0..30),
        last in side(),
    ) {
        let mut pair = if early { Pair::new(a, b) } else { Pair::established(a, b) };
        pair.lossy = lossy;
        for operation in before.iter().chain(&end).chain(&after) {
            apply(&mut pair, operation);
        }
        calm(&mut pair);
        // Whatever the applications have done, in the end they close.
        for side in [last, last.other()] {
            let now = pair.now;
            pair.host(side).session.close(now);
            pair.read_everything();
        }
        pair.advance(Duration::from_secs(30));
        for side in [Side::A, Side::B] {
            let host = pair.host(side);
            prop_assert_eq!(host.unfinished(), 0);
            prop_assert!(host.holds_nothing());
            prop_assert!(host.is_disconnected());
            prop_assert!(host.session.is_finished());
            prop_assert_eq!(host.session.poll_timeout(), None);
        }
        pair.check_order();
    }

    /// Without failures a close loses nothing that was accepted before it.
    #[test]
    fn a_graceful_close_loses_nothing(
        a in patient(), b in patient(),
        operations in vec(ordinary(), 1..60), side in side(),
    ) {
        let mut pair = Pair::established(a, b);
        pair.lossy = true;
        for operation in &operations {
            apply(&mut pair, operation);
        }
        let now = pair.now;
        pair.host(side).session.close(now);
        pair.drain();
        calm(&mut pair);
        let sent = pair.host(side).stream();
        prop_assert_eq!(&pair.host(side.other()).received, &sent);
        for side in [Side::A, Side::B] {
            prop_assert_eq!(pair.host(side).session.failure(), None);
            prop_assert_eq!(pair.host(side).unfinished(), 0);
            prop_assert!(pair.host(side).is_disconnected());
            prop_assert!(pair.host(side).holds_nothing());
        }
    }
    /// A receiver that has shut down needs no memory, and its peer's sends come to an end.
    #[test]
    fn who_wants_nothing_holds_nothing(
        a in patient(), b in patient(), side in side(),
        before in vec(ordinary(), 1..80), after in vec(ordinary(), 0..40),
    ) {
        let mut pair = Pair::established(a, b);
        before.iter().for_each(|operation| apply(&mut pair, operation));
        apply(&mut pair, &Operation::ShutdownReceive(side));
        after.iter().for_each(|operation| apply(&mut pair, operation));
        // Drivers that still refuse memory answer first.
        pair.answer_held(side);
        calm(&mut pair);
        prop_assert_eq!(pair.host(side).storage().2, 0);
        prop_assert_eq!(pair.host(side.other()).unfinished(), 0);
        prop_assert!(pair.a.holds_nothing() && pair.b.holds_nothing());
        prop_assert_eq!(pair.a.session.failure(), None);
        prop_assert_eq!(pair.b.session.failure(), None);
    }

    /// req: COMP-02 whoever suspends, whenever, during whatever traffic: each direction brings
    /// exactly what was accepted before its end, and both sides know how it ended.
    #[test]
    fn suspension_loses_nothing_and_adds_nothing(
        a in patient(), b in patient(),
        before in vec(ordinary(), 0..60), first in side(), how in any::<(bool, bool)>(),
        between in vec(ordinary(), 0..30), after in vec(ordinary(), 0..30),
    ) {
        let can = |config| Config { suspend: true, ..config };
        let mut pair = Pair::established(can(a), can(b));
        pair.lossy = true;
        let end = |side, suspend| {
            if suspend { Operation::Suspend(side) } else { Operation::ShutdownSend(side) }
        };
        before.iter().for_each(|operation| apply(&mut pair, operation));
        apply(&mut pair, &end(first, how.0));
        between.iter().for_each(|operation| apply(&mut pair, operation));
        apply(&mut pair, &end(first.other(), how.1));
        after.iter().for_each(|operation| apply(&mut pair, operation));
        calm(&mut pair);
        pair.check_complete();
        for (side, suspended) in [(first, how.0), (first.other(), how.1)] {
            let length = pair.host(side).stream().len() as u64;
            let kind = if suspended { End::Suspended } else { End::Shutdown };
            let host = pair.host(side);
            let refusal = if suspended { SendError::Suspended } else { SendError::Shutdown };
            prop_assert_eq!(host.session.failure(), None);
            prop_assert_eq!(host.send(1), Err(refusal));
            prop_assert!(host.session.is_finished());
            let peer = pair.host(side.other());
            prop_assert_eq!(peer.session.peer_end(), Some((kind, length)));
            prop_assert_eq!(peer.session.readable(), Readable::Eof);
            prop_assert_eq!(peer.session.received(), length);
        }
        // The connector has heard that the acceptor has everything.
        prop_assert_eq!(pair.a.session.acknowledged(), pair.a.stream().len() as u64);
    }

    /// req: COMP-03
    ///
    /// What was said to have arrived is what the application reads after a loss: from there on
    /// the rest is sent again another way.
    #[test]
    fn a_lost_connection_leaves_exactly_what_had_arrived(
        a in patient(), b in patient(),
        operations in vec(ordinary(), 1..80), suspend in any::<Option<bool>>(),
    ) {
        let can = |config| Config { suspend: true, ..config };
        let mut pair = Pair::established(can(a), can(b));
        for operation in &operations {
            apply(&mut pair, operation);
        }
        if let Some(both) = suspend {
            apply(&mut pair, &Operation::Suspend(Side::A));
            if both {
                apply(&mut pair, &Operation::Suspend(Side::B));
            }
        }
        // What is still under way is lost with the connection.
        pair.cut = true;
        apply(&mut pair, &Operation::Disconnect);
        let here = [Side::A, Side::B].map(|side| pair.host(side).session.received());
        for host in [&pair.a, &pair.b] {
            // Whoever sends it again knows how much can be unread at the most.
            let config = host.session.config();
            let most = config.inbox_limit + config.temp_limit + config.fill_limit;
            prop_assert!(host.session.received() - host.session.consumed_offset() <= most);
        }
        calm(&mut pair);
        check_positions(&pair);
        for (side, here) in [Side::A, Side::B].into_iter().zip(here) {
            let host = pair.host(side);
            prop_assert_eq!(host.session.received(), here);
            prop_assert_eq!(host.session.consumed_offset(), here);
            prop_assert_eq!(host.received.len() as u64, here);
        }
    }
}
