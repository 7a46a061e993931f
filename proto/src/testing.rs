//! Two peers on a virtual clock, without any fabric.
//!
//! [`Pair`] is a wire, two drivers and two applications in one value. It executes the actions of both
//! sessions, moves real bytes, and asserts on the way what must hold at every moment: no message
//! without a posted receive, no RDMA to memory that is not exposed, every send completed once,
//! private storage within its limits, every byte in its order. It panics where the session would have
//! been wrong; it is for tests only.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test double panics where the machine under test is wrong"
)]

mod host;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

pub use host::{Host, Knobs, Sent};
use host::{MemoryKey, key};

use crate::session::*;
use crate::time::Instant;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The connector.
    A,
    /// The acceptor.
    B,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A configuration so small that every limit is met soon.
#[must_use]
pub fn small() -> Config {
    Config {
        receive_buffers: 12,
        receive_buffer_size: 256,
        send_buffers: 8,
        max_message: 256,
        max_rdma: 1000,
        descriptor_len: 24,
        threshold: 512,
        initial_portion: 100,
        inbox_limit: 1024,
        temp_limit: 4096,
        temp_chunk: 2048,
        fill_limit: 512,
        ..Config::default()
    }
}

/// An RDMA under way.
#[derive(Clone, Debug)]
struct Rdma {
    due: Instant,
    side: Side,
    id: RdmaId,
    read: bool,
    local: (MemoryKey, usize),
    len: usize,
    remote: (u64, usize),
}

/// Two sides and what is between them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The virtual clock.
    pub now: Instant,
    /// Time a message is under way.
    pub latency: Duration,
    /// Time an RDMA takes.
    pub rdma_latency: Duration,
    /// The connector.
    pub a: Host,
    /// The acceptor.
    pub b: Host,
    /// Nothing is delivered any more.
    pub cut: bool,
    /// What a side sent last is lost when it disconnects, as a provider may do.
    pub lossy: bool,
    to_a: VecDeque<(Instant, Vec<u8>)>,
    to_b: VecDeque<(Instant, Vec<u8>)>,
    rdma: Vec<Rdma>,
}

impl Pair {
    /// Both sides with this configuration; nothing has happened yet.
    #[must_use]
    pub fn new(a: Config, b: Config) -> Self {
        let now = Instant(Duration::from_secs(1));
        Self {
            now,
            latency: Duration::from_micros(10),
            rdma_latency: Duration::from_micros(15),
            a: Host::new(Role::Connector, a, now),
            b: Host::new(Role::Acceptor, b, now),
            cut: false,
            lossy: false,
            to_a: VecDeque::new(),
            to_b: VecDeque::new(),
            rdma: Vec::new(),
        }
    }

    /// Both sides with this configuration, and established.
    #[must_use]
    pub fn established(a: Config, b: Config) -> Self {
        let mut pair = Self::new(a, b);
        pair.drive();
        assert!(pair.a.session.is_established() && pair.b.session.is_established());
        assert_eq!((pair.a.established, pair.b.established), (1, 1));
        pair
    }

    /// One side.
    pub fn host(&mut self, side: Side) -> &mut Host {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn peer_of(&self, side: Side) -> &Host {
        match side {
            Side::A => &self.b,
            Side::B => &self.a,
        }
    }

    fn wire_to(&mut self, side: Side) -> &mut VecDeque<(Instant, Vec<u8>)> {
        match side {
            Side::A => &mut self.to_a,
            Side::B => &mut self.to_b,
        }
    }

    /// Puts foreign bytes on the wire.
    pub fn inject(&mut self, to: Side, bytes: Vec<u8>) {
        let due = self.now.saturating_add(self.latency);
        self.wire_to(to).push_back((due, bytes));
    }

    /// The messages under way to a side.
    pub fn under_way(&mut self, to: Side) -> &mut VecDeque<(Instant, Vec<u8>)> {
        self.wire_to(to)
    }

    // ---- the drivers

    /// Executes the actions of both sides.
    pub fn drain(&mut self) {
        self.drain_one(Side::A);
        self.drain_one(Side::B);
    }

    fn drain_one(&mut self, side: Side) {
        let mut bound = 100_000;
        loop {
            let session = &mut self.host(side).session;
            assert!(session.agrees(), "a short way leads elsewhere");
            let Some(action) = session.poll_action() else {
                return;
            };
            self.host(side).note(&action);
            self.execute(side, action);
            bound -= 1;
            assert!(bound > 0, "actions without end");
        }
    }

    fn execute(&mut self, side: Side, action: Action) {
        let asks = matches!(
            action,
            Action::Expose { .. } | Action::Register { .. } | Action::AllocateTemp { .. }
        );
        if asks && self.host(side).knobs.hold_memory {
            self.host(side).held_memory.push(action);
            return;
        }
        match action {
            Action::Message(outgoing) => self.post(side, &outgoing),
            Action::Expose {
                memory,
                access,
                offset,
                len,
            } => {
                self.host(side).expose(memory, access, offset, len);
            }
            Action::Conceal { memory } => self.host(side).conceal(memory),
            Action::Register {
                memory,
                offset,
                len,
                ..
            } => {
                let host = self.host(side);
                assert!((offset + len) as usize <= host.memories[&key(memory)].len());
                let result = if host.knobs.fail_register {
                    Err(NoBuffers)
                } else {
                    Ok(())
                };
                if result.is_ok() {
                    assert!(host.registered.insert(key(memory)), "registered twice");
                }
                host.session.handle_registered(memory, result);
            }
            Action::Deregister { memory } => {
                let busy = |rdma: &Rdma| rdma.side == side && rdma.local.0 == key(memory);
                assert!(!self.rdma.iter().any(busy), "deregistered while in use");
                assert!(
                    self.host(side).registered.remove(&key(memory)),
                    "was not registered"
                );
            }
            Action::AllocateTemp { temp, len } => {
                let host = self.host(side);
                if host.knobs.fail_allocate {
                    host.session.handle_allocated(temp, Err(NoBuffers));
                } else {
                    host.temp_bytes += len;
                    assert!(host.temp_bytes <= host.session.config().temp_limit);
                    host.memories
                        .insert(key(Memory::Temp(temp)), vec![0; len as usize]);
                    host.session.handle_allocated(temp, Ok(()));
                }
            }
            Action::FreeTemp { temp } => {
                let memory = key(Memory::Temp(temp));
                let busy = |rdma: &Rdma| rdma.side == side && rdma.local.0 == memory;
                assert!(!self.rdma.iter().any(busy), "freed while in use");
                let host = self.host(side);
                assert!(
                    !host
                        .exposed
                        .values()
                        .any(|(exposed, ..)| *exposed == memory)
                );
                let freed = host.memories.remove(&memory).expect("freed once");
                host.temp_bytes -= freed.len() as u64;
            }
            Action::RdmaRead {
                rdma,
                memory,
                offset,
                len,
                remote,
                remote_offset,
            } => {
                let local = (key(memory), offset as usize);
                self.start(side, rdma, true, local, len, &remote, remote_offset);
            }
            Action::RdmaWrite {
                rdma,
                memory,
                offset,
                len,
                remote,
                remote_offset,
            } => {
                let local = (key(memory), offset as usize);
                self.start(side, rdma, false, local, len, &remote, remote_offset);
            }
            Action::SendComplete { send, result } => self.host(side).completed(send, result),
            Action::PullComplete { pull, result } => {
                let host = self.host(side);
                let memory = key(Memory::Application(pull));
                assert!(!host.registered.contains(&memory));
                let bytes = host
                    .memories
                    .remove(&memory)
                    .expect("a pull completes once");
                if let Ok(n) = result {
                    host.received.extend_from_slice(&bytes[..n as usize]);
                }
                host.pulled.push((pull, result));
            }
            Action::CompanionOffered(info) => {
                let now = self.now;
                let host = self.host(side);
                host.offered.push(info);
                if let Some(accept) = host.knobs.answer_companion {
                    host.session.answer_companion(now, accept);
                }
            }
            Action::Established => self.host(side).established += 1,
            Action::Disconnect => self.disconnect(side),
        }
    }

    /// Answers the held questions for memory.
    pub fn answer_held(&mut self, side: Side) {
        let held = core::mem::take(&mut self.host(side).held_memory);
        let hold = core::mem::take(&mut self.host(side).knobs.hold_memory);
        for action in held {
            self.execute(side, action);
        }
        self.host(side).knobs.hold_memory = hold;
    }

    fn post(&mut self, side: Side, outgoing: &Outgoing) {
        let host = self.host(side);
        assert_eq!(host.disconnected, 0, "a message after the end");
        let mut bytes = vec![0xaa; outgoing.len()];
        let head = outgoing.encode(&mut bytes).expect("room for the head");
        assert_eq!(head, outgoing.head_len());
        if let Some(body) = outgoing.body() {
            let from = &host.memories[&key(Memory::Send(body.send))];
            let at = body.offset as usize;
            bytes[head..].copy_from_slice(&from[at..at + body.len as usize]);
        }
        assert!(
            bytes.len() <= host.session.config().max_message as usize,
            "too long to send"
        );
        if host.knobs.hold_sent {
            host.held_sent += 1;
        } else {
            host.session.handle_sent();
        }
        if host.established == 0 {
            assert!(bytes.len() <= MAX_NEGOTIATION);
        }
        let due = self.now.saturating_add(self.latency);
        if self.peer_of(side).disconnected > 0 || self.cut {
            return;
        }
        self.wire_to(side.other()).push_back((due, bytes));
        // req: WSD-19 never more messages under way than posted receives
        let under_way = self.wire_to(side.other()).len();
        let posted = self.peer_of(side).posted as usize;
        assert!(
            under_way <= posted,
            "{under_way} messages for {posted} receives"
        );
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of the action")]
    fn start(
        &mut self,
        side: Side,
        id: RdmaId,
        read: bool,
        local: (MemoryKey, usize),
        len: u64,
        remote: &Descriptor,
        remote_offset: u64,
    ) {
        let host = self.host(side);
        let config = host.session.config();
        assert!(len > 0 && len <= config.max_rdma, "an RDMA of {len} bytes");
        assert!(!read || config.rdma_read, "a read without the ability");
        assert!(local.1 + len as usize <= host.memories[&local.0].len());
        assert!(
            local.0.0 == 1 || host.registered.contains(&local.0),
            "not registered"
        );
        let number = u64::from_le_bytes(remote.as_bytes()[..8].try_into().unwrap());
        let due = self.now.saturating_add(self.rdma_latency);
        let remote = (number, remote_offset as usize);
        self.rdma.push(Rdma {
            due,
            side,
            id,
            read,
            local,
            len: len as usize,
            remote,
        });
    }

    /// The bytes move at the end; they must still be exposed then.
    fn finish(&mut self, at: usize) {
        let rdma = self.rdma.remove(at);
        let failed = self.host(rdma.side).knobs.fail_rdma
            || self.host(rdma.side).disconnected > 0
            || self.peer_of(rdma.side).disconnected > 0;
        if failed {
            self.host(rdma.side)
                .session
                .handle_rdma_done(rdma.id, Err(RdmaFailed));
            return;
        }
        let place = self.peer_of(rdma.side).exposed.get(&rdma.remote.0).copied();
        // A peer that has failed takes its memory back; the connection ends then.
        let Some((memory, access, offset, len)) = place else {
            let failing = self.peer_of(rdma.side).session.failure().is_some();
            assert!(failing, "RDMA to memory that is not exposed");
            self.host(rdma.side)
                .session
                .handle_rdma_done(rdma.id, Err(RdmaFailed));
            return;
        };
        assert_eq!(
            access,
            if rdma.read {
                Access::Read
            } else {
                Access::Write
            }
        );
        assert!(
            rdma.remote.1 + rdma.len <= len,
            "RDMA outside the exposed memory"
        );
        let remote = offset + rdma.remote.1..offset + rdma.remote.1 + rdma.len;
        let local = rdma.local.1..rdma.local.1 + rdma.len;
        if rdma.read {
            let bytes = self.peer_of(rdma.side).memories[&memory][remote].to_vec();
            let target = self
                .host(rdma.side)
                .memories
                .get_mut(&rdma.local.0)
                .unwrap();
            target[local].copy_from_slice(&bytes);
        } else {
            let bytes = self.host(rdma.side).memories[&rdma.local.0][local].to_vec();
            let target = self
                .host(rdma.side.other())
                .memories
                .get_mut(&memory)
                .unwrap();
            target[remote].copy_from_slice(&bytes);
        }
        self.host(rdma.side)
            .session
            .handle_rdma_done(rdma.id, Ok(()));
    }

    fn disconnect(&mut self, side: Side) {
        self.host(side).disconnected += 1;
        assert_eq!(self.host(side).disconnected, 1, "disconnected twice");
        self.wire_to(side).clear();
        if self.lossy {
            self.wire_to(side.other()).clear();
        }
        // The provider flushes what is pending.
        while let Some(at) = self.rdma.iter().position(|rdma| rdma.side == side) {
            self.finish(at);
        }
    }

    // ---- time

    /// How many things could happen next: a message to either side, or the end of an RDMA.
    #[must_use]
    pub fn choices(&self) -> usize {
        usize::from(!self.to_a.is_empty() && !self.cut)
            + usize::from(!self.to_b.is_empty() && !self.cut)
            + usize::from(self.gone(Side::A))
            + usize::from(self.gone(Side::B))
            + self.rdma.len()
    }

    /// The peer is gone and everything it sent is here, but the session does not know yet.
    fn gone(&self, side: Side) -> bool {
        let (host, wire) = match side {
            Side::A => (&self.a, &self.to_a),
            Side::B => (&self.b, &self.to_b),
        };
        let peer = self.peer_of(side);
        !self.cut && peer.disconnected > 0 && wire.is_empty() && !host.session.is_disconnected()
    }

    /// Lets the `n`-th of the choices happen and drains both sides.
    pub fn choose(&mut self, mut n: usize) {
        for side in [Side::A, Side::B] {
            if !self.wire_to(side).is_empty() && !self.cut {
                if n == 0 {
                    self.deliver(side);
                    return self.drain();
                }
                n -= 1;
            }
            if self.gone(side) {
                if n == 0 {
                    let now = self.now;
                    self.host(side).session.handle_disconnected(now);
                    return self.drain();
                }
                n -= 1;
            }
        }
        if n < self.rdma.len() {
            self.finish(n);
        }
        self.drain();
    }

    fn deliver(&mut self, side: Side) {
        let now = self.now;
        if let Some((_, bytes)) = self.wire_to(side).pop_front() {
            self.host(side).arrived(now, &bytes);
        }
    }

    /// Lets the earliest thing happen; false if there is none.
    fn step(&mut self) -> bool {
        self.drain();
        let first = |wire: &VecDeque<(Instant, Vec<u8>)>| wire.front().map(|(due, _)| *due);
        let mut events = Vec::new();
        if !self.cut {
            events.extend(first(&self.to_a).map(|due| (due, 0)));
            events.extend(first(&self.to_b).map(|due| (due, 1)));
        }
        let rdma = self
            .rdma
            .iter()
            .enumerate()
            .min_by_key(|(_, rdma)| rdma.due);
        events.extend(rdma.map(|(at, rdma)| (rdma.due, 2 + at)));
        let Some(&(due, which)) = events.iter().min() else {
            for side in [Side::A, Side::B] {
                if self.gone(side) {
                    let now = self.now;
                    self.host(side).session.handle_disconnected(now);
                    return true;
                }
            }
            return false;
        };
        self.now = self.now.max(due);
        match which {
            0 => self.deliver(Side::A),
            1 => self.deliver(Side::B),
            n => self.finish(n - 2),
        }
        true
    }

    /// Lets everything happen that happens without applications and time-outs.
    pub fn drive(&mut self) {
        assert!(self.drive_bounded(1_000_000), "no rest");
    }

    /// The same with a bound; false if it did not come to rest.
    pub fn drive_bounded(&mut self, steps: usize) -> bool {
        (0..steps).any(|_| !self.step())
    }

    /// Lets time pass: everything and every time-out until then happens.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now.saturating_add(time);
        for _ in 0..100_000 {
            self.drive();
            let timeouts = [self.a.session.poll_timeout(), self.b.session.poll_timeout()];
            let Some(next) = timeouts
                .into_iter()
                .flatten()
                .min()
                .filter(|due| *due <= until)
            else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            for side in [Side::A, Side::B] {
                let now = self.now;
                if self
                    .host(side)
                    .session
                    .poll_timeout()
                    .is_some_and(|due| due <= now)
                {
                    self.host(side).session.handle_timeout(now);
                }
            }
            self.drain();
        }
        panic!("time-outs without end");
    }

    /// Applications on both sides read everything until nothing moves any more.
    pub fn read_everything(&mut self) {
        loop {
            self.drive();
            let mut moved = false;
            for side in [Side::A, Side::B] {
                moved |= self.host(side).read(usize::MAX) > 0;
                moved |= self.host(side).take_urgent().is_some();
            }
            // What was read has to be told before it is known that nothing moves.
            self.drain();
            if !moved && self.choices() == 0 {
                return;
            }
        }
    }

    /// What was read is a prefix of what was sent, in both directions.
    pub fn check_order(&self) {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let stream = from.stream();
            assert!(
                to.received.len() <= stream.len(),
                "more bytes than were sent"
            );
            let differs = to
                .received
                .iter()
                .zip(&stream)
                .position(|(got, sent)| got != sent);
            assert_eq!(differs, None, "a wrong byte");
            let urgent = from.urgent_stream();
            assert!(urgent.starts_with(&to.urgent_received), "wrong urgent data");
        }
    }

    /// Everything sent was completed, read, and released.
    pub fn check_complete(&self) {
        self.check_order();
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            assert_eq!(to.received.len(), from.stream().len(), "bytes are missing");
            assert_eq!(
                to.urgent_received.len(),
                from.urgent_stream().len(),
                "urgent data is missing"
            );
            assert_eq!(from.unfinished(), 0, "a send did not complete");
            assert!(from.holds_nothing(), "something is still held");
        }
    }

    /// A text that is equal for equal states (statistics left out).
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let side = |host: &Host| {
            format!(
                "{}|{}|{}|{:?}|{}|{}",
                host.session.fingerprint(),
                host.sent.len(),
                host.received.len(),
                host.exposed.keys(),
                host.posted,
                host.held_reposts
            )
        };
        let rdma = self
            .rdma
            .iter()
            .map(|rdma| (rdma.side, rdma.id))
            .collect::<Vec<_>>();
        let wire = |wire: &VecDeque<(Instant, Vec<u8>)>| {
            wire.iter()
                .map(|(_, bytes)| bytes.clone())
                .collect::<Vec<_>>()
        };
        let (to_a, to_b) = (wire(&self.to_a), wire(&self.to_b));
        format!(
            "{}#{}#{rdma:?}#{to_a:?}#{to_b:?}",
            side(&self.a),
            side(&self.b)
        )
    }
}
