//! Peers that do not keep the rules, written with the parts of the fabric itself.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{End, PATIENCE, Rig, number, until};
use crate::fabric::soft::shm::{Lane, Segment, Side};
use crate::fabric::soft::wire::{self, Introduction, Message};
use crate::fabric::soft::{Options, Rdma, directory, sys};
use crate::fabric::{ArmFor, Ending, Event, OpId, Outcome, Post, Posted, Token};

const MARK: u64 = 0xD15C << 48;

/// A connector that can do whatever it likes with what it was given.
struct Hostile {
    segment: Segment,
    _socket: OwnedFd,
    _event: OwnedFd,
}

fn introduction() -> Introduction {
    Introduction {
        pid: std::process::id(),
        proof_at: 0,
        proof: [0; 16],
        permits_direct: false,
    }
}

fn call(rig: &Rig) -> OwnedFd {
    sys::connect_to(&directory::name(sys::user(), rig.at)).unwrap()
}

fn hello(rig: &Rig) -> [u8; wire::LEN] {
    Message::Hello {
        who: introduction(),
        from: rig.at,
        to: rig.at,
    }
    .to_bytes()
}

impl Hostile {
    fn connect(rig: &mut Rig) -> (Self, End) {
        let socket = call(rig);
        let event = sys::event().unwrap();
        sys::send_message(socket.as_fd(), &hello(rig), &[event.as_fd()]).unwrap();
        let token = Token(number());
        let request = rig.host.request(rig.listening);
        let victim = End::new(token, request.accept(token).unwrap());
        let mut bytes = [0; wire::LEN];
        let mut accepted = sys::receive_message(socket.as_fd(), &mut bytes).unwrap();
        let Ok(Message::Accept { ring_size, .. }) = Message::parse(&bytes) else {
            panic!("no acceptance");
        };
        let file = accepted.descriptors.remove(0);
        let segment = Segment::join(file.as_fd(), usize::try_from(ring_size).unwrap()).unwrap();
        (
            Self {
                segment,
                _socket: socket,
                _event: event,
            },
            victim,
        )
    }

    /// Writes the two words of a record at a position of its ring.
    fn write(&self, lane: Lane, position: u64, word: u64, second: u64) {
        let ring = self.segment.ring(Side::Connector, lane);
        ring.second_word(position).store(second, Ordering::SeqCst);
        ring.word(position).store(word, Ordering::SeqCst);
        self.note();
    }

    /// Makes the victim look.
    fn note(&self) {
        self.segment
            .own()
            .notices
            .changes
            .fetch_add(1, Ordering::SeqCst);
    }
}

/// What is done to the victim; afterwards it must have ended as broken.
type Deed = fn(&Hostile, &mut End);

const DEEDS: &[(&str, Deed)] = &[
    ("a record without the mark", |h, _| {
        h.write(Lane::Messages, 0, 5, 0)
    }),
    ("a record of an unknown kind", |h, _| {
        h.write(Lane::Messages, 0, MARK | 99 << 32 | 5, 0)
    }),
    ("a record with bits that must be zero", |h, _| {
        h.write(Lane::Messages, 0, MARK | 1 << 40 | 1 << 32 | 5, 0);
    }),
    ("a record longer than the ring", |h, _| {
        h.write(Lane::Messages, 0, MARK | 1 << 32 | 0xFFFF_FFFF, 0);
    }),
    ("a record as long as the ring", |h, v| {
        v.receive(0, 1 << 21);
        let size = h.segment.ring_size() as u64;
        h.write(Lane::Messages, 0, MARK | 1 << 32 | size, 0);
    }),
    ("a turn that does not end with the ring", |h, _| {
        h.write(Lane::Messages, 0, MARK | 0xFF << 32 | 64, 0);
    }),
    ("a tail beyond what was sent", |h, v| {
        h.segment
            .own()
            .tails
            .messages
            .store(1 << 40, Ordering::SeqCst);
        fill(v);
    }),
    ("a tail that is not on a boundary", |h, v| {
        h.segment.own().tails.messages.store(63, Ordering::SeqCst);
        fill(v);
    }),
    ("a tail that goes back", |h, v| {
        fill(v);
        h.segment
            .own()
            .tails
            .messages
            .store(64 * 1000, Ordering::SeqCst);
        v.poll();
        h.segment.own().tails.messages.store(64, Ordering::SeqCst);
        fill(v);
        v.poll();
    }),
    ("a service record of an unknown kind", |h, _| {
        h.write(Lane::Service, 0, MARK | 77 << 32 | 64, 1);
    }),
    ("a request that is too short", |h, _| {
        h.write(Lane::Service, 0, MARK | 1 << 32 | 63, 1)
    }),
    ("a request that makes no sense", |h, _| {
        h.write(Lane::Service, 0, MARK | 1 << 32 | 64, 1)
    }),
    ("a request with a wrong number", |h, _| {
        h.write(Lane::Service, 0, MARK | 2 << 32 | 64, 2)
    }),
    ("an answer to nothing", |h, _| {
        h.write(Lane::Service, 0, MARK | 3 << 32, 1)
    }),
    ("a denial of nothing", |h, _| {
        h.write(Lane::Service, 0, MARK | 4 << 32, 1)
    }),
];

/// Sends until the ring is full.
fn fill(victim: &mut End) {
    for _ in 0..100 {
        let _ = victim.send(&[1; 60_000]);
    }
}

#[test]
fn every_broken_rule_ends_the_connection_as_broken() {
    for (what, deed) in DEEDS {
        let mut rig = Rig::new(Options {
            rdma: Rdma::Pipelined,
            ..Options::default()
        });
        let (hostile, mut victim) = Hostile::connect(&mut rig);
        let waiting = victim.receive(0, 100);
        deed(&hostile, &mut victim);
        until(what, || {
            victim.poll();
            victim.endpoint.ending()
        });
        assert_eq!(victim.endpoint.ending(), Some(Ending::Broken), "{what}");
        assert_eq!(
            victim.end(waiting),
            Outcome::Flushed(Ending::Broken),
            "{what}"
        );
        let ended = |e: &Event| {
            matches!(
                e,
                Event::Ended {
                    ending: Ending::Broken,
                    ..
                }
            )
        };
        assert!(rig.host.has(ended), "{what}");
    }
}

#[test]
fn an_answer_of_the_wrong_length_ends_the_connection() {
    let mut rig = Rig::new(Options {
        rdma: Rdma::Pipelined,
        ..Options::default()
    });
    let (hostile, mut victim) = Hostile::connect(&mut rig);
    let mut descriptor = [0; 32];
    descriptor[0] = 1;
    let op = OpId(number());
    let pieces = [victim.inward.piece(0, 100)];
    let read = Post::Read {
        op,
        pieces: &pieces,
        remote: &descriptor,
        offset: 0,
    };
    assert_eq!(victim.endpoint.post(read), Ok(Posted::Pending));
    hostile.write(Lane::Service, 0, MARK | 3 << 32 | 101, 1);
    assert_eq!(
        victim.end((op, Posted::Pending)),
        Outcome::Flushed(Ending::Broken)
    );
    assert_eq!(victim.inward.bytes[..200], [0; 200]);
}

#[test]
fn garbage_in_the_shared_memory_harms_nobody() {
    // A simple generator: the run can be repeated.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut rig = Rig::new(Options {
        ring_size: 256 << 10,
        ..Options::default()
    });
    let (mut innocent, mut friend) = rig.pair();
    for round in 0..60 {
        let (hostile, mut victim) = Hostile::connect(&mut rig);
        let memory = [0u8; 4096];
        let mut descriptor = [0; 32];
        #[allow(unsafe_code)]
        // SAFETY: the memory outlives the endpoint.
        unsafe {
            let region = super::rig::Memory::region(&memory);
            let _ = victim
                .endpoint
                .expose(region, crate::fabric::Access::READ, &mut descriptor);
        }
        for _ in 0..2000 {
            let position = random() % (256 << 10) / if round % 2 == 0 { 1 } else { 1024 };
            let lane = if random() % 2 == 0 {
                Lane::Messages
            } else {
                Lane::Service
            };
            // Half of the time something that looks like a record.
            let word = match random() % 4 {
                0 => random(),
                1 => MARK | ((random() % 6) << 32) | (random() % 300),
                2 => MARK | ((random() % 6) << 32) | (random() % (256 << 10)),
                _ => 0,
            };
            hostile.write(lane, position, word, random() % 4);
            let control = hostile.segment.own();
            match random() % 12 {
                0 => control
                    .tails
                    .messages
                    .store(random() % (1 << 20), Ordering::SeqCst),
                1 => control.tails.service.store(random(), Ordering::SeqCst),
                2 => hostile
                    .segment
                    .peer()
                    .arming
                    .word
                    .store(0, Ordering::SeqCst),
                3 => control.arming.word.store(u32::MAX, Ordering::SeqCst),
                4 => {
                    let slot = usize::try_from(random() % 4).unwrap();
                    let window = hostile.segment.window(Side::Acceptor, slot).unwrap();
                    window.base.store(random(), Ordering::SeqCst);
                    window.len.store(u64::MAX, Ordering::SeqCst);
                }
                _ => {}
            }
            let _ = victim.send(&[2; 100]);
            if random() % 16 == 0 {
                let op = OpId(number());
                let pieces = [victim.inward.piece(0, 5000)];
                let _ = victim.endpoint.post(Post::Receive {
                    op,
                    pieces: &pieces,
                });
                descriptor[4] = u8::try_from(random() % 4).unwrap();
                let read = Post::Read {
                    op,
                    pieces: &pieces,
                    remote: &descriptor,
                    offset: 0,
                };
                let _ = victim.endpoint.post(read);
            }
            victim.poll();
            let _ = victim.endpoint.arm(ArmFor::Waiter);
            rig.host.poll();
            if victim.endpoint.ending().is_some() {
                break;
            }
        }
        rig.host.events.clear();
        assert_eq!(memory, [0; 4096]);
        innocent.send(b"still here").unwrap();
        assert_eq!(friend.take(), b"still here");
    }
}

#[test]
fn a_peer_that_cannot_be_woken_by_its_own_fault_still_wakes_when_the_other_ends() {
    // The hostile side clears the arming word without a signal: its death must wake nevertheless.
    let mut rig = Rig::new(Options::default());
    let (hostile, mut victim) = Hostile::connect(&mut rig);
    let receive = victim.receive(0, 10);
    assert!(victim.endpoint.arm(ArmFor::Waiter));
    hostile
        .segment
        .peer()
        .arming
        .word
        .store(0, Ordering::SeqCst);
    drop(hostile);
    rig.host
        .next("the end", |e| matches!(e, Event::Ended { .. }));
    assert!(super::rig::sleep_until_readable(&*victim.endpoint));
    assert_eq!(victim.end(receive), Outcome::Flushed(Ending::Peer));
}

#[test]
fn newcomers_that_stall_or_talk_garbage_are_dropped_and_others_served_meanwhile() {
    let options = Options {
        handshake_time: Duration::from_millis(100),
        ..Options::default()
    };
    let mut rig = Rig::new(options);
    let silent = call(&rig);
    let garbage = call(&rig);
    sys::send_message(garbage.as_fd(), &[7; 300], &[]).unwrap();
    let without_event = call(&rig);
    sys::send_message(without_event.as_fd(), &hello(&rig), &[]).unwrap();
    let with_a_file = call(&rig);
    let file = std::fs::File::open("/dev/null").unwrap();
    sys::send_message(with_a_file.as_fd(), &hello(&rig), &[file.as_fd()]).unwrap();
    let for_another = call(&rig);
    let event = sys::event().unwrap();
    let elsewhere = std::net::SocketAddr::new([127, 1, 2, 3].into(), rig.at.port());
    let wrong = Message::Hello {
        who: introduction(),
        from: rig.at,
        to: elsewhere,
    }
    .to_bytes();
    sys::send_message(for_another.as_fd(), &wrong, &[event.as_fd()]).unwrap();
    let foreign = call(&rig);
    let abroad = "192.0.2.1:5".parse().unwrap();
    let wrong = Message::Hello {
        who: introduction(),
        from: abroad,
        to: rig.at,
    }
    .to_bytes();
    sys::send_message(foreign.as_fd(), &wrong, &[event.as_fd()]).unwrap();
    let (mut a, mut b) = rig.pair();
    a.send(b"served").unwrap();
    assert_eq!(b.take(), b"served");
    for socket in [
        silent,
        garbage,
        without_event,
        with_a_file,
        for_another,
        foreign,
    ] {
        let mut bytes = [0; wire::LEN];
        let answer = until("an answer", || {
            rig.host.poll();
            sys::receive_message(socket.as_fd(), &mut bytes).ok()
        });
        assert_eq!(Message::parse(&bytes[..answer.len]), Ok(Message::Unable));
        assert!(answer.descriptors.is_empty());
        until("the end", || {
            rig.host.poll();
            sys::is_hung_up(socket.as_fd()).then_some(())
        });
    }
    assert!(!rig.host.has(|e| matches!(e, Event::Request { .. })));
    assert!(PATIENCE > Duration::from_secs(1));
}

#[test]
fn a_listener_that_answers_garbage_does_not_hurt_the_connector() {
    let mut rig = Rig::new(Options::default());
    let at = std::net::SocketAddr::new([127, 9, 9, 9].into(), rig.at.port());
    let fake = sys::listen_under(&directory::name(sys::user(), at), 16).unwrap();
    let plain = std::fs::File::open("/proc/self/exe").unwrap();
    let event = sys::event().unwrap();
    let accept = |ring_size| {
        Message::Accept {
            who: introduction(),
            ring_size,
            acceptor_nonce: 1,
            connector_nonce: 2,
        }
        .to_bytes()
    };
    let (_segment, good) = Segment::create(1 << 20).unwrap();
    let cases: [(&[u8], &[&dyn AsFd]); 5] = [
        (&[1, 2, 3], &[]),
        (&accept(1 << 20), &[]),
        (&accept(1 << 20), &[&plain, &event]),
        (&accept(1 << 21), &[&good, &event]),
        (&accept(1 << 20), &[&good, &plain]),
    ];
    for (bytes, descriptors) in cases {
        let token = Token(number());
        let from = std::net::SocketAddr::new(at.ip(), 0);
        let _endpoint = rig.host.fabric.connect(token, from, at).unwrap();
        let caller = until("the caller", || sys::accept(fake.as_fd()).ok());
        let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        sys::send_message(caller.as_fd(), bytes, &descriptors).unwrap();
        assert_eq!(
            rig.host.connected(token),
            Err(crate::fabric::ConnectError::NotServed)
        );
    }
}

#[test]
fn a_listener_whose_queue_is_full_is_tried_again_until_there_is_room() {
    let mut rig = Rig::new(Options::default());
    let at = std::net::SocketAddr::new([127, 9, 9, 8].into(), rig.at.port());
    let name = directory::name(sys::user(), at);
    let fake = sys::listen_under(&name, 0).unwrap();
    let mut others = Vec::new();
    while let Ok(socket) = sys::connect_to(&name) {
        others.push(socket);
    }
    let token = Token(number());
    let from = std::net::SocketAddr::new(at.ip(), 0);
    let _endpoint = rig.host.fabric.connect(token, from, at).unwrap();
    for _ in 0..20 {
        assert!(!rig.host.has(|_| true));
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in &others {
        drop(until("the others", || sys::accept(fake.as_fd()).ok()));
    }
    let caller = until("the caller", || {
        rig.host.poll();
        sys::accept(fake.as_fd()).ok()
    });
    let mut bytes = [0; wire::LEN];
    until("its hello", || {
        sys::receive_message(caller.as_fd(), &mut bytes).ok()
    });
    assert!(matches!(Message::parse(&bytes), Ok(Message::Hello { to, .. }) if to == at));
}
