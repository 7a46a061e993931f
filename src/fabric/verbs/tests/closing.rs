//! What becomes of messages that were reported as sent, when their end goes.

use std::sync::atomic::Ordering;

use super::super::endpoint::GOODBYES;
use super::mishaps::resources;
use super::posted::known_pair;
use super::*;

/// Sends messages of which each is reported at once.
fn say(end: &mut End, count: u8) {
    for byte in 0..count {
        let (_, posted) = end.send(&[byte; 20]).unwrap();
        assert_eq!(posted, Posted::Done(20));
    }
}

/// Takes them, and then the end.
fn hear(rig: &mut Rig, end: &mut End, count: u8) {
    for byte in 0..count {
        let (op, posted) = end.receive(0, 100);
        let outcome = match posted {
            Posted::Done(len) => Outcome::Done(len),
            Posted::Pending => until("a message", || {
                rig.host.poll();
                end.outcome(op)
            }),
        };
        assert_eq!(outcome, Outcome::Done(20));
        assert_eq!(end.inward.bytes[..20], [byte; 20]);
    }
    assert_eq!(ending(rig, end), Ending::Peer);
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_was_reported_as_sent_arrives_although_its_end_has_gone_and_before_the_end_is_told() {
    // req: WSD-11
    let mut rig = rig();
    let before = resources();
    for (count, dropped) in [(1, false), (5, true), (100, true), (100, false)] {
        let (mut near, mut far) = rig.pair();
        say(&mut near, count);
        // Nobody has a receive for them yet.
        near.endpoint.disconnect();
        assert_eq!(near.endpoint.ending(), Some(Ending::Local));
        assert_eq!(near.send(b"x").err(), Some(PostError::Ended(Ending::Local)));
        assert_eq!(far.endpoint.ending(), None);
        let near = (!dropped).then_some(near);
        hear(&mut rig, &mut far, count);
        drop((near, far));
    }
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
}

#[test]
#[ignore = "needs an RDMA device"]
fn operations_in_progress_end_once_after_what_was_sent_is_there() {
    // req: WSD-11
    let mut rig = rig();
    for round in 0..20 {
        let (mut near, mut far) = rig.pair();
        let pending: Vec<_> = (0..5).map(|_| near.receive(0, 10)).collect();
        let receives: Vec<_> = (0..40).map(|n| far.receive(n * 100, 100)).collect();
        say(&mut near, 30);
        near.endpoint.disconnect();
        for waiting in pending {
            assert_eq!(
                near.end(waiting),
                Outcome::Flushed(Ending::Local),
                "{round}"
            );
        }
        for (place, receive) in receives.into_iter().enumerate() {
            let wanted = if place < 30 {
                Outcome::Done(20)
            } else {
                Outcome::Flushed(Ending::Peer)
            };
            let outcome = until("the end of a receive", || {
                rig.host.poll();
                far.outcome(receive.0)
            });
            assert_eq!(outcome, wanted);
        }
        near.poll();
        assert!(near.completions.is_empty(), "each ended once");
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn who_does_not_receive_is_not_waited_for_without_end() {
    // req: WSD-11
    let options = Options {
        patience: Some(Duration::from_millis(1500)),
        ..Options::new(true)
    };
    let mut rig = Rig::over(Host::over(open(options).unwrap()), &address());
    let (mut near, mut far) = rig.pair();
    // Somebody waits for the end of an operation.
    let pending = near.receive(0, 10);
    say(&mut near, 5);
    near.endpoint.disconnect();
    assert_eq!(near.end(pending), Outcome::Flushed(Ending::Local));
    assert_eq!(ending(&mut rig, &mut far), Ending::Peer);
    drop((near, far));
    let before = resources();
    let (mut near, mut far) = rig.pair();
    say(&mut near, 5);
    // Who has stayed for it once does not again.
    let stayed = GOODBYES.load(Ordering::Relaxed);
    near.endpoint.disconnect();
    drop(near);
    assert_eq!(GOODBYES.load(Ordering::Relaxed), stayed + 1);
    assert_eq!(ending(&mut rig, &mut far), Ending::Peer);
    drop(far);
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
}

#[test]
#[ignore = "needs an RDMA device"]
fn the_memory_of_an_end_that_goes_with_receives_in_progress_is_left_alone() {
    let mut rig = rig();
    let (mut near, mut far) = rig.pair();
    let _pending = near.receive(0, 10);
    say(&mut near, 5);
    drop(near);
    assert_eq!(ending(&mut rig, &mut far), Ending::Peer);
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_end_that_drains_stops_when_its_peer_goes_or_something_breaks() {
    // req: WSD-11
    let (mut rig, core) = rig_with_cache();
    for how in 0..3 {
        let (far, mut near, known) = known_pair(&mut rig, &core);
        let pending = near.receive(0, 10);
        say(&mut near, 5);
        near.endpoint.disconnect();
        match how {
            0 => drop(far),
            1 => known.die(Ending::Broken),
            _ => known.abandon(),
        }
        let outcome = until("the end of a receive", || {
            rig.host.poll();
            near.outcome(pending.0)
        });
        assert_eq!(outcome, Outcome::Flushed(Ending::Local));
        assert_eq!(near.endpoint.ending(), Some(Ending::Local));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn ends_that_go_at_the_same_moment_leave_nothing() {
    // req: WSD-11
    let mut rig = rig();
    let before = resources();
    for _ in 0..40 {
        let (mut near, mut far) = rig.pair();
        for end in [&mut near, &mut far] {
            say(end, 3);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| drop(near));
            scope.spawn(|| drop(far));
        });
    }
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
}
