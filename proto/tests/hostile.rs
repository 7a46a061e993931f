//! A peer that keeps no rule: whatever it sends, the session neither panics nor grows, and keeps
//! its limits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use wsd_proto::testing::{Pair, Side, small};
use wsd_proto::*;

/// A driver that does what it is told and counts what that costs.
struct Victim {
    session: Session,
    now: Instant,
    temp: BTreeMap<TempId, u64>,
    inbox: u64,
    fill: u64,
    /// Operations whose end is reported later.
    rdma: Vec<RdmaId>,
    sends: u64,
    completed: u64,
    /// What the victim has sent that wants an answer.
    asked: Vec<Message>,
    /// Messages it has permitted in all, and has got.
    permitted: u32,
    got: u32,
    capacities: [usize; 7],
}

impl Victim {
    fn new(role: Role, config: Config) -> Self {
        let session = Session::new(role, config, Instant::ZERO).unwrap();
        Self {
            capacities: session.capacities(),
            session,
            now: Instant::ZERO,
            temp: BTreeMap::new(),
            inbox: 0,
            fill: 0,
            rdma: vec![],
            sends: 0,
            completed: 0,
            asked: vec![],
            permitted: 1,
            got: 0,
        }
    }

    fn established(role: Role, config: Config) -> Self {
        // The answer, or the question, of a well-behaved peer.
        let mut pair = Pair::new(config.clone(), config.clone());
        let mut victim = Self::new(role, config);
        victim.drain();
        pair.drain();
        if role == Role::Connector {
            pair.choose(0);
            let (_, accepted) = pair.under_way(Side::A).pop_front().unwrap();
            victim.receive(&accepted);
        } else {
            let (_, negotiate) = pair.under_way(Side::B).pop_front().unwrap();
            victim.receive(&negotiate);
        }
        assert!(victim.session.is_established());
        victim
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            assert!(self.session.agrees(), "a short way leads elsewhere");
            let Some(action) = self.session.poll_action() else {
                return self.check();
            };
            match action {
                Action::Message(outgoing) => {
                    let mut buffer = [0; 256];
                    assert!(outgoing.encode(&mut buffer).is_some());
                    assert!(outgoing.len() <= 256);
                    self.permitted = outgoing.credit();
                    if let Message::LargeRead { .. }
                    | Message::LargeWrite { .. }
                    | Message::Location { .. }
                    | Message::Refused { .. } = outgoing.message()
                    {
                        self.asked.push(*outgoing.message());
                    }
                    self.session.handle_sent();
                }
                Action::Expose { memory, .. } => {
                    self.session.handle_exposed(memory, Ok(&[1; 24]));
                }
                Action::Register { memory, .. } => {
                    self.session.handle_registered(memory, Ok(()));
                }
                Action::AllocateTemp { temp, len } => {
                    assert!(self.temp.insert(temp, len).is_none());
                    self.session.handle_allocated(temp, Ok(()));
                }
                Action::FreeTemp { temp } => assert!(self.temp.remove(&temp).is_some()),
                Action::RdmaRead { rdma, len, .. } | Action::RdmaWrite { rdma, len, .. } => {
                    assert!(len > 0 && len <= 1000);
                    self.rdma.push(rdma);
                }
                Action::SendComplete { .. } => self.completed += 1,
                Action::Conceal { .. }
                | Action::Deregister { .. }
                | Action::PullComplete { .. }
                | Action::CompanionOffered(_)
                | Action::Established
                | Action::Disconnect => {}
            }
        }
        unreachable!("actions without end");
    }

    fn check(&self) {
        let config = self.session.config();
        assert!(self.inbox <= config.inbox_limit, "the inbox overflows");
        assert!(self.fill <= config.fill_limit, "the fill queue overflows");
        assert!(self.temp.values().sum::<u64>() <= config.temp_limit);
        assert_eq!(self.session.capacities(), self.capacities, "something grew");
    }

    /// The right answer to something the victim has asked for, as far as that can be known.
    fn answer(&mut self, nth: usize, part: u64) -> Option<Message> {
        if self.asked.is_empty() {
            return None;
        }
        let at = nth % self.asked.len();
        let asked = self.asked[at];
        let (answer, rest) = match asked {
            Message::LargeRead { transfer, .. } if !part.is_multiple_of(3) => {
                (Message::ReadDone { transfer }, None)
            }
            Message::LargeRead {
                transfer,
                offset,
                total,
                initial,
                ..
            }
            | Message::LargeWrite {
                transfer,
                offset,
                total,
                initial,
            } => {
                let from = offset + u64::from(initial);
                let len = (total - u64::from(initial)).min(part.max(1));
                let left = total - u64::from(initial) - len;
                let descriptor = Descriptor::new(&[7; 24]).unwrap();
                let answer = if part.is_multiple_of(2) {
                    Message::Refused {
                        transfer,
                        offset: from,
                        len,
                    }
                } else {
                    Message::Location {
                        transfer,
                        offset: from,
                        len,
                        descriptor,
                    }
                };
                let initial = initial + len as u32;
                let rest = Message::LargeWrite {
                    transfer,
                    offset,
                    total,
                    initial,
                };
                (answer, (left > 0).then_some(rest))
            }
            Message::Location {
                transfer,
                offset,
                len,
                ..
            } => (
                Message::WriteDone {
                    transfer,
                    offset,
                    len,
                },
                None,
            ),
            Message::Refused {
                transfer,
                offset,
                len,
            } => {
                let now = len.min(part.clamp(1, 224));
                let rest = Message::Refused {
                    transfer,
                    offset: offset + now,
                    len: len - now,
                };
                (
                    Message::Fill {
                        transfer,
                        offset,
                        len: now as u32,
                    },
                    (len > now).then_some(rest),
                )
            }
            _ => return None,
        };
        match rest {
            Some(rest) => self.asked[at] = rest,
            None => {
                self.asked.remove(at);
            }
        }
        Some(answer)
    }

    /// Sends what a peer may send, if it may send at all.
    fn hit(&mut self, message: &Message) {
        if self.got == self.permitted {
            return;
        }
        let mut bytes = vec![0; 256];
        let credit = 12 + self.session.stats().messages_sent as u32;
        let head = message.encode(VERSION, credit, &mut bytes).unwrap();
        bytes.truncate(head + message.payload_len() as usize);
        self.receive(&bytes);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.got += 1;
        if let Ok(incoming) = self.session.handle_message(self.now, bytes) {
            match incoming {
                Incoming::Data {
                    queue: Queue::Main,
                    range,
                    ..
                } => {
                    assert!(bytes.get(range.clone()).is_some());
                    self.inbox += range.len() as u64;
                }
                Incoming::Data {
                    queue: Queue::Fill,
                    range,
                    ..
                } => {
                    assert!(bytes.get(range.clone()).is_some());
                    self.fill += range.len() as u64;
                }
                Incoming::Urgent { range, .. } => {
                    assert!(bytes.get(range.clone()).is_some());
                    self.session.urgent_consumed(range.len() as u64);
                }
                Incoming::Returned { range } => {
                    assert!(bytes.get(range).is_some());
                }
                Incoming::Control | Incoming::Discarded => {}
            }
        }
        self.session.handle_reposted();
        self.drain();
    }

    fn read(&mut self) {
        match self.session.readable() {
            Readable::Bytes {
                queue: Queue::Main,
                len,
            } => {
                self.inbox -= len;
                self.session.consumed(len);
            }
            Readable::Bytes {
                queue: Queue::Fill,
                len,
            } => {
                self.fill -= len;
                self.session.consumed(len);
            }
            Readable::Temp { temp, offset, len } => {
                assert!(offset + len <= self.temp[&temp]);
                self.session.consumed(len);
            }
            _ => {}
        }
        self.drain();
    }
}

#[derive(Clone, Debug)]
enum Blow {
    /// The next data, small or large, as the rules want it.
    Data(u32),
    Large(bool, u32, u64),
    Urgent(u32),
    /// An answer as the rules want it.
    Answer(usize, u64),
    End,
    /// The end here, or as the answer to one.
    Suspend(bool),
    /// It leaves, gives back so many bytes, or takes none.
    Leaves,
    Returns(u8, bool),
    TakesNone,
    /// A message whose numbers are near what the victim expects.
    Message {
        kind: u8,
        transfer: u32,
        offset: i64,
        aux: u64,
        len: u8,
        credit: i32,
        flags: u8,
    },
    Garbage(Vec<u8>),
    Read,
    Send(u64),
    EndRdma(bool),
    ShutdownReceive,
    ShutdownSend,
    SuspendSend,
    Leave,
    GiveBack(u64),
    Close,
    Disconnected,
    Timeout(u64),
}

fn blow() -> impl Strategy<Value = Blow> {
    let message = (
        1..19_u8,
        prop_oneof![5 => 0..4_u32, 1 => any::<u32>()],
        prop_oneof![6 => Just(0_i64), 2 => -300..300_i64, 1 => any::<i64>()],
        prop_oneof![4 => 0..4000_u64, 1 => any::<u64>()],
        0..224_u8,
        prop_oneof![6 => Just(1_i32), 1 => -3..40_i32, 1 => any::<i32>()],
        prop_oneof![6 => Just(0_u8), 2 => 0..8_u8],
    )
        .prop_map(
            |(kind, transfer, offset, aux, len, credit, flags)| Blow::Message {
                kind,
                transfer,
                offset,
                aux,
                len,
                credit,
                flags,
            },
        );
    prop_oneof![
        20 => (1..225_u32).prop_map(Blow::Data),
        8 => (any::<bool>(), 0..200_u32, 1..4000_u64).prop_map(|(r, i, n)| Blow::Large(r, i, n)),
        1 => (1..20_u32).prop_map(Blow::Urgent),
        20 => (0..6_usize, 0..2000_u64).prop_map(|(nth, part)| Blow::Answer(nth, part)),
        1 => Just(Blow::End),
        1 => any::<bool>().prop_map(Blow::Suspend),
        1 => Just(Blow::Leaves),
        2 => (0..100_u8, any::<bool>()).prop_map(|(n, last)| Blow::Returns(n, last)),
        1 => Just(Blow::TakesNone),
        2 => message,
        1 => vec(any::<u8>(), 0..100).prop_map(Blow::Garbage),
        6 => Just(Blow::Read),
        6 => prop_oneof![1..500_u64, 500..5000_u64].prop_map(Blow::Send),
        12 => prop_oneof![9 => Just(true), 1 => Just(false)].prop_map(Blow::EndRdma),
        1 => Just(Blow::ShutdownReceive),
        1 => Just(Blow::ShutdownSend),
        1 => Just(Blow::SuspendSend),
        1 => Just(Blow::Leave),
        1 => (0..1000_u64).prop_map(Blow::GiveBack),
        1 => Just(Blow::Close),
        1 => Just(Blow::Disconnected),
        1 => (0..20_000_u64).prop_map(Blow::Timeout),
    ]
}

/// What a peer that keeps the rules sends next.
fn returned(offset: u64, len: u32, (leave, last, gone): (bool, bool, bool)) -> Message {
    Message::Return {
        offset,
        len,
        leave,
        last,
        gone,
    }
}

fn proper(blow: &Blow, next: &mut u64, large: &mut u32, back: &mut u64) -> Option<Message> {
    let offset = *next;
    match *blow {
        Blow::Data(len) => {
            *next += u64::from(len);
            Some(Message::Data { offset, len })
        }
        Blow::Large(read, initial, rest) => {
            let total = u64::from(initial) + rest;
            *next += total;
            *large += 1;
            let transfer = TransferId(*large);
            let descriptor = Descriptor::new(&[9; 24]).unwrap();
            Some(if read {
                Message::LargeRead {
                    transfer,
                    offset,
                    total,
                    initial,
                    descriptor,
                }
            } else {
                Message::LargeWrite {
                    transfer,
                    offset,
                    total,
                    initial,
                }
            })
        }
        Blow::Urgent(len) => Some(Message::Urgent { mark: offset, len }),
        Blow::End => Some(Message::Shutdown {
            send: Some(offset),
            receive: false,
            finished: false,
        }),
        Blow::Suspend(true) => Some(Message::Suspended { end: offset }),
        Blow::Suspend(false) => Some(Message::Suspend { end: offset }),
        Blow::Leaves => Some(returned(0, 0, (true, false, false))),
        Blow::TakesNone => Some(returned(0, 0, (false, true, true))),
        Blow::Returns(0, _) => Some(returned(*back, 0, (false, true, false))),
        Blow::Returns(len, last) => {
            let at = *back;
            *back += u64::from(len);
            Some(returned(at, len.into(), (false, last, false)))
        }
        _ => None,
    }
}

/// The fields of a message, right where a sensible one would have them.
fn forge(blow: &Blow, next: &mut u64, credit: &mut u32) -> Option<Vec<u8>> {
    let Blow::Message {
        kind,
        transfer,
        offset,
        aux,
        len,
        credit: more,
        flags,
    } = *blow
    else {
        return None;
    };
    let descriptor = if matches!(kind, 5 | 8) { 24 } else { 0 };
    let has_payload = matches!(kind, 3 | 4 | 5 | 7);
    let len = if has_payload {
        u32::from(len).min(224 - descriptor)
    } else {
        0
    };
    let has_offset = matches!(kind, 3 | 4 | 5 | 7 | 8 | 9 | 10 | 12..=15);
    let position = if has_offset {
        next.wrapping_add_signed(offset)
    } else {
        0
    };
    let position = if kind == 12 && flags & 1 == 0 {
        0
    } else {
        position
    };
    let has_transfer = matches!(kind, 3 | 5..=10);
    let has_aux = matches!(kind, 5 | 7..=10 | 17);
    *credit = credit.wrapping_add_signed(more);
    let version = u8::from(kind != 17);
    let mut bytes = vec![kind, version, flags, descriptor as u8];
    bytes.extend(len.to_le_bytes());
    bytes.extend(position.to_le_bytes());
    bytes.extend(credit.to_le_bytes());
    bytes.extend(if has_transfer { transfer } else { 0 }.to_le_bytes());
    bytes.extend(if has_aux { aux } else { 0 }.to_le_bytes());
    bytes.resize(bytes.len() + (descriptor + len) as usize, 0xd0);
    if offset == 0 {
        *next = match kind {
            3 if transfer == 0 => next.wrapping_add(len.into()),
            5 | 7 => next.wrapping_add(aux),
            _ => *next,
        };
    }
    Some(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
    ))]

    #[test]
    fn no_peer_makes_a_session_panic_or_grow(
        connector in any::<bool>(),
        rdma_read in any::<bool>(),
        suspend in any::<bool>(),
        blows in vec(blow(), 1..60),
    ) {
        let role = if connector { Role::Connector } else { Role::Acceptor };
        let config = Config { rdma_read, suspend, returns: suspend, ..small() };
        let mut victim = Victim::established(role, config);
        let (mut next, mut credit, mut large, mut back) = (0, 12, 0, 0);
        for blow in &blows {
            if victim.got < victim.permitted {
                if let Some(message) = proper(blow, &mut next, &mut large, &mut back) {
                    victim.hit(&message);
                }
                if let Blow::Answer(nth, part) = *blow
                    && let Some(message) = victim.answer(nth, part)
                {
                    victim.hit(&message);
                }
            }
            if let Some(bytes) = forge(blow, &mut next, &mut credit) {
                victim.receive(&bytes);
            }
            let now = victim.now;
            match blow {
                Blow::Data(_) | Blow::Large(..) | Blow::Urgent(_) | Blow::Answer(..) => {}
                Blow::End | Blow::Suspend(_) => {}
                Blow::Leaves | Blow::Returns(..) | Blow::TakesNone => {}
                Blow::Message { .. } => {}
                Blow::Garbage(bytes) => victim.receive(bytes),
                Blow::Read => victim.read(),
                Blow::Send(len) => {
                    if victim.session.send(SendId(victim.sends), *len).is_ok() {
                        victim.sends += 1;
                    }
                }
                Blow::EndRdma(succeeded) => {
                    if let Some(rdma) = victim.rdma.pop() {
                        let result = if *succeeded { Ok(()) } else { Err(RdmaFailed) };
                        victim.session.handle_rdma_done(rdma, result);
                    }
                }
                Blow::ShutdownReceive => {
                    victim.session.shutdown_receive();
                    (victim.inbox, victim.fill) = (0, 0);
                }
                Blow::ShutdownSend => victim.session.shutdown_send(),
                Blow::SuspendSend => {
                    let _refused = victim.session.suspend_send();
                }
                Blow::Leave => {
                    victim.session.leave();
                }
                Blow::GiveBack(len) => victim.session.give_back(*len),
                Blow::Close => {
                    victim.session.close(now);
                    (victim.inbox, victim.fill) = (0, 0);
                }
                Blow::Disconnected => victim.session.handle_disconnected(now),
                Blow::Timeout(millis) => {
                    let time = std::time::Duration::from_millis(*millis);
                    victim.now = now.saturating_add(time);
                    if victim.session.poll_timeout().is_some_and(|due| due <= victim.now) {
                        victim.session.handle_timeout(victim.now);
                    }
                }
            }
            victim.drain();
        }
        // However it went, it can be ended, and everything comes back.
        victim.session.abort(victim.now, ResetReason::Aborted);
        victim.drain();
        while let Some(rdma) = victim.rdma.pop() {
            victim.session.handle_rdma_done(rdma, Err(RdmaFailed));
            victim.drain();
        }
        prop_assert!(victim.session.is_finished());
        prop_assert!(victim.temp.is_empty());
        prop_assert_eq!(victim.sends, victim.completed);
    }

    #[test]
    fn no_first_message_makes_a_session_panic(
        connector in any::<bool>(), at in 0..160_usize, byte in any::<u8>(), cut in 0..200_usize,
        garbage in vec(any::<u8>(), 0..200), whole in any::<bool>(), companion in any::<bool>(),
    ) {
        let role = if connector { Role::Connector } else { Role::Acceptor };
        let companion = companion.then_some(CompanionInfo {
            local: ([1; 16], 40_000),
            peer: ([2; 16], 80),
        });
        let one = Config { companion, suspend: true, ..small() };
        let other = Config { companion_wanted: companion.is_some(), suspend: true, ..small() };
        let mine = if connector { one.clone() } else { other.clone() };
        let mut pair = Pair::new(one, other);
        pair.b.knobs.answer_companion = Some(true);
        pair.drain();
        let mut first = pair.under_way(Side::B).front().unwrap().1.clone();
        if connector {
            pair.choose(0);
            first = pair.under_way(Side::A).front().unwrap().1.clone();
        }
        first[at] = byte;
        if cut < first.len() && !whole {
            first.truncate(cut);
        }
        for bytes in [first, garbage] {
            let mut victim = Victim::new(role, mine.clone());
            victim.drain();
            victim.receive(&bytes);
            // What passes for an offer is decided about.
            victim.session.answer_companion(victim.now, true);
            victim.drain();
            let known = victim.session.is_established() || victim.session.failure().is_some();
            prop_assert!(known, "a first message without a consequence");
        }
    }
}

// ---- suspension by the rules of somebody else

/// What the victim says to these messages, after it has itself suspended or not.
fn after(suspend: bool, own: bool, messages: &[Message]) -> Option<Failure> {
    let mut victim = Victim::established(Role::Acceptor, Config { suspend, ..small() });
    if own {
        victim.session.suspend_send().unwrap();
        victim.drain();
    }
    for message in messages {
        victim.hit(message);
    }
    victim.session.failure()
}

#[test]
fn who_suspends_against_the_rules_is_found_out() {
    let data = Message::Data { offset: 0, len: 10 };
    let more = Message::Data { offset: 10, len: 1 };
    let suspend = |end| Message::Suspend { end };
    let suspended = |end| Message::Suspended { end };
    let shutdown = |end| Message::Shutdown {
        send: Some(end),
        receive: false,
        finished: false,
    };
    let protocol = |error| Some(Failure::Protocol(error));
    use ProtocolError::{AfterShutdown, Offset, Unexpected};
    let cases: &[(bool, bool, &[Message], Option<Failure>)] = &[
        (true, false, &[data, suspend(10)], None),
        (true, true, &[data, suspend(10)], None),
        (true, true, &[data, suspended(10)], None),
        // Twice, in every way.
        (
            true,
            false,
            &[suspend(0), suspend(0)],
            protocol(AfterShutdown),
        ),
        (
            true,
            true,
            &[suspend(0), suspended(0)],
            protocol(AfterShutdown),
        ),
        (
            true,
            true,
            &[suspended(0), suspended(0)],
            protocol(AfterShutdown),
        ),
        (
            true,
            false,
            &[suspend(0), shutdown(0)],
            protocol(AfterShutdown),
        ),
        (
            true,
            false,
            &[shutdown(0), suspend(0)],
            protocol(AfterShutdown),
        ),
        // Another length than that of the stream.
        (true, false, &[data, suspend(9)], protocol(Offset)),
        (true, false, &[data, suspend(11)], protocol(Offset)),
        (true, true, &[data, suspended(0)], protocol(Offset)),
        (true, false, &[suspend(u64::MAX)], protocol(Offset)),
        // An answer to nothing.
        (true, false, &[suspended(0)], protocol(Unexpected)),
        (true, false, &[data, suspended(10)], protocol(Unexpected)),
        // Data behind the end.
        (
            true,
            false,
            &[data, suspend(10), more],
            protocol(AfterShutdown),
        ),
        // Without the capability.
        (false, false, &[suspend(0)], protocol(Unexpected)),
        (false, false, &[suspended(0)], protocol(Unexpected)),
    ];
    for (suspend, own, messages, failure) in cases {
        assert_eq!(
            after(*suspend, *own, messages),
            *failure,
            "{suspend} {own} {messages:?}"
        );
    }
}

#[test]
fn a_resume_inside_a_session_ends_it() {
    let mut victim = Victim::established(Role::Acceptor, small());
    let resume = Resume {
        offset: 0,
        session_id: victim.session.session_id(),
    };
    victim.receive(&resume.encode());
    let failure = Failure::Protocol(ProtocolError::Unexpected);
    assert_eq!(victim.session.failure(), Some(failure));
}
