//! Connections that share completion queues, on a device.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::mishaps::resources;
use super::posted::{known_pair, readable};
use super::*;
use crate::fabric::verbs::Sharing;
use crate::fabric::verbs::completions::tests::sharing;
use crate::fabric::verbs::sys::{DeviceEvent, LEFT};

fn options(sharing: Sharing) -> Options {
    Options {
        sharing,
        ..Options::new(true)
    }
}

fn rig_sharing(sharing: Sharing) -> Rig {
    Rig::over(Host::over(open(options(sharing)).unwrap()), &address())
}

/// The accepted end and the connecting one, with little memory.
fn pair(rig: &mut Rig) -> (End, End) {
    let (there, here) = (Token(number()), Token(number()));
    let from = SocketAddr::new(rig.at.ip(), 0);
    let connecting = rig.host.fabric.connect(here, from, rig.at).unwrap();
    let accepted = rig.host.request(rig.listening).accept(there).unwrap();
    rig.host.connected(here).unwrap();
    rig.host.settled(&*accepted);
    (End::small(there, accepted), End::small(here, connecting))
}

/// Receives that a talker has under way, each with its place.
const WINDOW: usize = 8;

/// An end that answers every message. Messages count up.
struct Talker {
    end: End,
    receives: Vec<OpId>,
    heard: u64,
    said: u64,
}

impl Talker {
    fn new(end: End) -> Self {
        let mut talker = Self {
            end,
            receives: Vec::new(),
            heard: 0,
            said: 0,
        };
        for place in 0..WINDOW {
            talker.listen(place);
        }
        talker
    }

    fn listen(&mut self, place: usize) {
        let (op, posted) = self.end.receive(place * 8, 8);
        assert_eq!(posted, Posted::Pending);
        self.receives.push(op);
    }

    fn say(&mut self) {
        self.end.send(&self.said.to_le_bytes()).unwrap();
        self.said += 1;
    }

    /// Looks once, and answers what has come.
    fn turn(&mut self) {
        self.end.poll();
        for ended in std::mem::take(&mut self.end.completions) {
            assert_eq!(ended.outcome, Outcome::Done(8));
            if self.receives.first() == Some(&ended.op) {
                let place = usize::try_from(self.heard).unwrap() % WINDOW;
                let bytes = self.end.inward.bytes[place * 8..].first_chunk().unwrap();
                assert_eq!(
                    u64::from_le_bytes(*bytes),
                    self.heard,
                    "in order, each once"
                );
                self.heard += 1;
                self.receives.remove(0);
                self.listen(place);
                self.say();
            } else {
                assert!(!self.receives.contains(&ended.op), "in order");
            }
        }
    }
}

/// A pair with so many messages under way.
fn talkers(rig: &mut Rig, busy: usize) -> [Talker; 2] {
    let (a, b) = pair(rig);
    let (mut a, b) = (Talker::new(a), Talker::new(b));
    for _ in 0..busy {
        a.say();
    }
    [a, b]
}

/// Gives each a turn, again and again, until each has heard so much more.
fn talk(pairs: &mut [[Talker; 2]], more: u64) {
    let goals: Vec<_> = pairs
        .iter()
        .map(|[a, b]| a.heard.min(b.heard) + more)
        .collect();
    until("everybody to have heard enough", || {
        pairs.iter_mut().flatten().for_each(Talker::turn);
        let reached = |([a, b], goal): (&[Talker; 2], &u64)| a.heard.min(b.heard) >= *goal;
        pairs.iter().zip(&goals).all(reached).then_some(())
    });
}

#[test]
#[ignore = "needs an RDMA device"]
fn many_connections_on_few_completion_queues_each_get_their_share() {
    const PAIRS: usize = 64;
    const GOAL: u64 = 40;
    let mut rig = rig_sharing(sharing(2, 16));
    let before = resources()["cq"];
    // The first of every eight does much more than the others.
    let mut pairs: Vec<_> = (0..PAIRS)
        .map(|index| talkers(&mut rig, if index % 8 == 0 { WINDOW } else { 1 }))
        .collect();
    assert_eq!(resources()["cq"] - before, 2 + (2 * PAIRS - 2).div_ceil(16));
    talk(&mut pairs, GOAL);
    let heard: Vec<_> = pairs.iter().map(|[a, _]| a.heard).collect();
    let alike = |busy: bool| {
        let some = heard.iter().enumerate().skip(1);
        let some = some.filter(move |(index, _)| (index % 8 == 0) == busy);
        some.map(|(_, &heard)| heard)
    };
    for busy in [false, true] {
        let (least, most) = (alike(busy).min().unwrap(), alike(busy).max().unwrap());
        assert!(least >= GOAL && most <= 4 * least, "{least} to {most}");
    }
    // By several threads, which meet at every queue.
    std::thread::scope(|scope| {
        let mut hands: [Vec<_>; 4] = Default::default();
        for (index, pair) in pairs.into_iter().enumerate() {
            hands[index % 4].push(pair);
        }
        for mut hand in hands {
            scope.spawn(move || talk(&mut hand, GOAL));
        }
    });
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_owner_who_never_polls_does_not_stop_the_others_and_loses_nothing() {
    const MESSAGES: u8 = 60;
    let mut rig = rig_sharing(sharing(0, 16));
    let (mut far, mut idle) = pair(&mut rig);
    let receives: Vec<_> = (0..MESSAGES)
        .map(|place| idle.receive(10 * usize::from(place), 10))
        .collect();
    let mut pairs: Vec<_> = (0..5).map(|_| talkers(&mut rig, 4)).collect();
    for byte in 0..MESSAGES {
        far.send(&[byte; 10]).unwrap();
    }
    talk(&mut pairs, 300);
    for (byte, receive) in (0..MESSAGES).zip(receives) {
        assert_eq!(idle.end(receive), Outcome::Done(10));
        let at = 10 * usize::from(byte);
        assert_eq!(idle.inward.bytes[at..at + 10], [byte; 10]);
    }
    talk(&mut pairs, 10);
}

#[test]
#[ignore = "needs an RDMA device"]
fn connections_come_and_go_beside_others_and_leave_nothing_at_their_queue() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let left = LEFT.load(Ordering::Relaxed);
    let mut rig = rig_sharing(sharing(0, 6));
    let nothing = resources();
    let mut pairs: Vec<_> = (0..2).map(|_| talkers(&mut rig, 4)).collect();
    talk(&mut pairs, 5);
    let (before, open) = (resources(), descriptors());
    assert_eq!(before["cq"], nothing["cq"] + 1);
    for round in 0..40_u8 {
        let (mut a, mut b) = pair(&mut rig);
        assert_eq!(resources()["cq"], before["cq"], "it finds its places");
        // What nobody takes out is left behind.
        for place in 0..20 {
            b.receive(10 * place, 10);
        }
        for _ in 0..10 {
            a.send(&[round; 10]).unwrap();
        }
        talk(&mut pairs, 3);
        if round % 2 == 0 {
            drop(a);
            talk(&mut pairs, 3);
            drop(b);
        } else {
            // Both at once, beside those who poll.
            std::thread::scope(|scope| {
                scope.spawn(|| drop(b));
                scope.spawn(|| drop(a));
                talk(&mut pairs, 3);
            });
        }
        until("it to be given back", || {
            rig.host.poll();
            rig.host.events.clear();
            // The memory of a first message goes after a while.
            let no_more = resources().iter().all(|(kind, now)| now <= &before[kind]);
            (no_more && descriptors() <= open).then_some(())
        });
    }
    drop(pairs);
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == nothing).then_some(())
    });
    assert_eq!(LEFT.load(Ordering::Relaxed), left);
}

#[test]
#[ignore = "needs an RDMA device"]
fn where_there_is_no_place_left_a_connection_is_refused_and_the_others_go_on() {
    // req: WSD-08
    let few = Sharing {
        most: 1,
        ..sharing(0, 2)
    };
    for connects in [true, false] {
        let (server, client) = if connects {
            (sharing(8, 16), few)
        } else {
            (few, sharing(8, 16))
        };
        let mut rig = rig_sharing(server);
        let mut client = Host::over(open(options(client)).unwrap());
        let connect = |rig: &mut Rig, client: &mut Host| {
            let (there, here) = (Token(number()), Token(number()));
            let from = SocketAddr::new(rig.at.ip(), 0);
            let near = client.fabric.connect(here, from, rig.at).unwrap();
            let mut said = None;
            let mut far = Err(ConnectError::TimedOut);
            until("the outcome", || {
                rig.host.poll();
                client.poll();
                let of = |e: &Event| matches!(e, Event::Request { .. });
                if let Some(at) = rig.host.events.iter().position(of)
                    && let Event::Request { request, .. } = rig.host.events.remove(at)
                {
                    far = request.accept(there);
                }
                let of =
                    |e: &Event| matches!(e, Event::Connected { .. } | Event::ConnectFailed { .. });
                let at = client.events.iter().position(of)?;
                said = Some(client.events.remove(at));
                Some(())
            });
            match said {
                Some(Event::ConnectFailed { error, .. }) => Err((error, far.err())),
                _ => {
                    let far = far.unwrap();
                    until("word from the peer", || {
                        rig.host.poll();
                        client.poll();
                        far.has_heard_of_peer().then_some(())
                    });
                    Ok([End::small(there, far), End::small(here, near)])
                }
            }
        };
        let mut pairs: Vec<_> = (0..2)
            .map(|_| connect(&mut rig, &mut client).unwrap())
            .collect();
        let refused = connect(&mut rig, &mut client).err().unwrap();
        if connects {
            assert_eq!(refused.0, ConnectError::NoResources);
        } else {
            // Who accepts is told why; its peer may go over TCP.
            let told = Some(ConnectError::NoResources);
            assert_eq!(refused, (ConnectError::NotServed, told));
        }
        for [far, near] in &mut pairs {
            far.send(b"still here").unwrap();
            assert_eq!(near.take_small(), b"still here");
        }
        // A place that is given back is there for the next one.
        drop(pairs.pop());
        let [mut far, mut near] = until("a place", || {
            rig.host.poll();
            client.poll();
            connect(&mut rig, &mut client).ok()
        });
        far.send(b"again").unwrap();
        assert_eq!(near.take_small(), b"again");
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn of_those_who_share_only_the_one_is_woken_for_whom_something_has_come() {
    let mut rig = rig_sharing(sharing(0, 8));
    let (mut a, mut b) = pair(&mut rig);
    let (mut c, mut d) = pair(&mut rig);
    for round in 0..20 {
        let (at_b, at_d) = (b.receive(0, 10), d.receive(0, 10));
        if round == 0 {
            // That of the first message may be found in between.
            rig.host.poll();
        }
        let whom = if round % 2 == 0 {
            ArmFor::Waiter
        } else {
            ArmFor::Progress
        };
        assert!(b.endpoint.arm(whom) && d.endpoint.arm(whom));
        a.send(b"x").unwrap();
        // In even rounds nobody polls the fabric.
        let mut wait = |end: &End, other: &End| {
            if whom == ArmFor::Waiter {
                assert!(sleep_until_readable(&*end.endpoint));
                return;
            }
            let of = |token| move |e: &Event| matches!(e, Event::Ready { endpoint } if *endpoint == token);
            rig.host.next("readiness", of(end.token));
            assert!(!rig.host.has(of(other.token)));
        };
        wait(&b, &d);
        assert_eq!(b.end(at_b), Outcome::Done(1));
        assert!(whom != ArmFor::Waiter || !readable(&*d.endpoint));
        c.send(b"y").unwrap();
        // Also if somebody else takes it out.
        if round % 4 == 0 {
            until("what is not its own", || {
                a.poll();
                readable(&*d.endpoint).then_some(())
            });
        }
        wait(&d, &b);
        assert_eq!(d.end(at_d), Outcome::Done(1));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_completion_queue_that_fails_ends_those_who_share_it_and_no_others() {
    // req: WSD-11
    let (mut rig, core) = rig_with(options(sharing(0, 4)));
    let (mut far, mut near, known) = known_pair(&mut rig, &core);
    let (mut third, mut fourth) = rig.pair();
    let (mut other, mut peer) = rig.pair();
    let waiting: Vec<_> = (0..5).map(|_| near.receive(0, 10)).collect();
    let seat = known.conn().seat().unwrap().number();
    let device = known.conn().port().unwrap().device;
    core.device_event(device, DeviceEvent::CompletionsBroken(1 << 40));
    assert_eq!(near.endpoint.ending(), None);
    core.device_event(device, DeviceEvent::CompletionsBroken(seat));
    for end in [&mut far, &mut near, &mut third, &mut fourth] {
        assert_eq!(ending(&mut rig, end), Ending::Broken);
        assert_eq!(end.send(b"x"), Err(PostError::Ended(Ending::Broken)));
    }
    for receive in waiting {
        assert_eq!(near.end(receive), Outcome::Flushed(Ending::Broken));
    }
    other.send(b"alive").unwrap();
    assert_eq!(peer.take(), b"alive");
}
