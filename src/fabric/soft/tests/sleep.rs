//! Sleeping and waking: no wake-up is lost, whoever sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rig::{End, Rig, number, sleep_until_readable};
use crate::fabric::soft::{Options, Rdma};
use crate::fabric::{Access, ArmFor, Event, OpId, Outcome, Post, Posted};

/// Waits for the end of `op` as a sleeping application does.
fn sleep_for(end: &mut End, (op, posted): (OpId, Posted)) -> Outcome {
    if let Posted::Done(len) = posted {
        return Outcome::Done(len);
    }
    loop {
        if let Some(outcome) = end.outcome(op) {
            return outcome;
        }
        if end.endpoint.arm(ArmFor::Waiter) {
            assert!(sleep_until_readable(&*end.endpoint), "a wake-up was lost");
        }
    }
}

/// A thread that does what a progress thread does.
fn progress(rig: Rig, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            rig.host.fabric.poll(&mut events);
            events.clear();
            std::thread::yield_now();
        }
    })
}

#[test]
fn two_sleepers_wake_each_other_many_times() {
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    const ROUNDS: u32 = 20_000;
    let echo = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            let receive = b.receive(0, 100);
            // Now and then the receive is posted while the message is on its way.
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            assert_eq!(sleep_for(&mut b, receive), Outcome::Done(4));
            b.send(&round.to_le_bytes()).unwrap();
        }
    });
    for round in 0..ROUNDS {
        a.send(&round.to_le_bytes()).unwrap();
        let receive = a.receive(0, 100);
        assert_eq!(sleep_for(&mut a, receive), Outcome::Done(4));
        assert_eq!(a.inward.bytes[..4], round.to_le_bytes());
    }
    echo.join().unwrap();
}

#[test]
fn a_sender_that_sleeps_on_a_full_ring_is_woken_by_the_consumer() {
    let mut rig = Rig::new(Options {
        ring_size: 256 << 10,
        send_depth: 4,
        ..Options::default()
    });
    let (mut a, mut b) = rig.pair();
    const COUNT: usize = 3_000;
    let sink = std::thread::spawn(move || {
        for round in 0..COUNT {
            let receive = b.receive(0, 65_536);
            assert_eq!(sleep_for(&mut b, receive), Outcome::Done(40_000));
            if round % 100 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
    let mut last = None;
    for _ in 0..COUNT {
        let sent = a.send(&[3; 40_000]).unwrap();
        // Each send is waited for, asleep, so that the ring is full again and again.
        if let Some(before) = last.replace(sent) {
            assert_eq!(sleep_for(&mut a, before), Outcome::Done(40_000));
        }
    }
    assert_eq!(sleep_for(&mut a, last.unwrap()), Outcome::Done(40_000));
    sink.join().unwrap();
}

#[test]
fn a_sleeper_waits_for_pipelined_transfers_whose_target_sleeps_too() {
    let mut rig = Rig::new(Options {
        rdma: Rdma::Pipelined,
        ..Options::default()
    });
    let (mut a, mut b) = rig.pair();
    let stop = Arc::new(AtomicBool::new(false));
    let progress = progress(rig, Arc::clone(&stop));
    let memory = vec![5u8; 1 << 20];
    let mut descriptor = [0; 32];
    #[allow(unsafe_code)]
    // SAFETY: the memory outlives both endpoints.
    unsafe {
        let region = super::rig::Memory::region(&memory);
        b.endpoint
            .expose(region, Access::READ | Access::WRITE, &mut descriptor)
            .unwrap();
    }
    let sleeper = std::thread::spawn(move || {
        let receive = b.receive(0, 10);
        sleep_for(&mut b, receive)
    });
    for round in 0..300usize {
        let len = 1 + round * 7919 % (1 << 20);
        let op = OpId(number());
        let pieces = [a.inward.piece(0, len)];
        let write = [a.out.piece(0, len)];
        let post = if round % 2 == 0 {
            Post::Read {
                op,
                pieces: &pieces,
                remote: &descriptor,
                offset: 0,
            }
        } else {
            Post::Write {
                op,
                pieces: &write,
                remote: &descriptor,
                offset: 0,
            }
        };
        let posted = a.endpoint.post(post).unwrap();
        assert_eq!(sleep_for(&mut a, (op, posted)), Outcome::Done(len));
    }
    a.send(b"end").unwrap();
    assert_eq!(sleeper.join().unwrap(), Outcome::Done(3));
    stop.store(true, Ordering::Relaxed);
    progress.join().unwrap();
}

#[test]
fn the_progress_thread_is_told_of_everything_that_it_armed_for() {
    let mut rig = Rig::new(Options {
        ring_size: 256 << 10,
        ..Options::default()
    });
    let (mut a, mut b) = rig.pair();
    let token = a.token;
    let ready = move |rig: &mut Rig| {
        rig.host.next(
            "ready",
            |e| matches!(e, Event::Ready { endpoint } if *endpoint == token),
        );
        assert!(
            !rig.host.has(|e| matches!(e, Event::Ready { .. })),
            "told once"
        );
    };
    // A message.
    let receive = a.receive(0, 10);
    assert!(a.endpoint.arm(ArmFor::Progress));
    b.send(b"x").unwrap();
    ready(&mut rig);
    assert_eq!(a.end(receive), Outcome::Done(1));
    // Space for a send that waits, armed before the send was posted.
    assert!(a.endpoint.arm(ArmFor::Progress));
    let pending = loop {
        let (op, posted) = a.send(&[1; 60_000]).unwrap();
        if posted == Posted::Pending {
            break op;
        }
    };
    while b.take().len() == 60_000 {
        rig.host.poll();
        if rig
            .host
            .events
            .iter()
            .any(|e| matches!(e, Event::Ready { .. }))
        {
            break;
        }
    }
    ready(&mut rig);
    assert_eq!(a.end((pending, Posted::Pending)), Outcome::Done(60_000));
    // The end.
    a.poll();
    assert!(a.endpoint.arm(ArmFor::Progress));
    b.endpoint.disconnect();
    ready(&mut rig);
    assert!(!a.endpoint.arm(ArmFor::Progress));
}
