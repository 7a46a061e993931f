//! The ring and the endpoints measured by themselves, for the benchmark of this crate.
//!
//! Both ends are threads of one process that spin; every figure is that of the best burst.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::copy::Copier;
use super::ring::{Consumer, Producer};
use super::shm::{Lane, Segment};
use super::{Options, Rdma, SoftFabric, region};
use crate::fabric::{
    Access, Completion, Endpoint, Event, Fabric, Key, OpId, Piece, Post, PostError, Posted, Region,
    Token,
};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// The ring alone: copy in, publish, peek, copy out.
    Ring,
    /// Two connected endpoints: post and poll.
    Endpoint,
}

/// One end that sends and receives messages of one size.
trait Wire {
    fn send(&mut self);
    /// Takes a message, if there is one.
    fn try_receive(&mut self) -> bool;

    fn receive(&mut self) {
        while !self.try_receive() {
            std::hint::spin_loop();
        }
    }

    fn receive_or(&mut self, give_up: &dyn Fn() -> bool) {
        while !self.try_receive() && !give_up() {
            std::hint::spin_loop();
        }
    }
}

struct RingEnd {
    segment: Segment,
    out: Producer,
    inward: Consumer,
    copier: Copier,
    spans: region::Spans,
    _memory: Box<[u8]>,
    len: usize,
}

impl RingEnd {
    fn new(segment: Segment, len: usize) -> Self {
        // No cache line is shared with what the other thread allocates.
        let memory = vec![1u8; len + 4096].into_boxed_slice();
        let spans = region::lasting(memory.get(2048..2048 + len).unwrap_or_default());
        Self {
            segment,
            out: Producer::default(),
            inward: Consumer::default(),
            copier: Copier::default(),
            spans,
            _memory: memory,
            len,
        }
    }
}

impl Wire for RingEnd {
    fn send(&mut self) {
        let ring = self.segment.ring(self.segment.side(), Lane::Messages);
        loop {
            if let Ok(Some(position)) = self.out.reserve(ring, self.len) {
                region::gather_by(&mut self.copier, &self.spans, 0, self.len, ring, position);
                self.out.publish(ring, 1, self.len, 0);
                return;
            }
            std::hint::spin_loop();
        }
    }

    #[inline]
    fn try_receive(&mut self) -> bool {
        let ring = self
            .segment
            .ring(self.segment.side().other(), Lane::Messages);
        let Ok(Some(record)) = self.inward.peek(ring) else {
            return false;
        };
        region::scatter(&self.spans, 0, self.len, ring, record.payload);
        self.inward.release(ring, record);
        true
    }
}

/// Receives that an end keeps posted.
const POSTED: u64 = 16;

struct PostingEnd {
    endpoint: Arc<dyn Endpoint>,
    key: Key,
    _memory: Box<[u8]>,
    completions: Vec<Completion>,
    arrived: u64,
    posted: u64,
    len: usize,
}

impl PostingEnd {
    fn new(endpoint: Arc<dyn Endpoint>, len: usize) -> Option<Self> {
        // No cache line is shared with what the other thread allocates.
        let memory = vec![1u8; len + 4096].into_boxed_slice();
        let region = Region {
            base: memory.as_ptr() as usize + 2048,
            len,
        };
        let key = region::register_lasting(&*endpoint, region, Access::READ | Access::WRITE)?;
        let mut end = Self {
            endpoint,
            key,
            _memory: memory,
            completions: Vec::new(),
            arrived: 0,
            posted: 0,
            len,
        };
        for _ in 0..POSTED {
            end.post_receive();
        }
        Some(end)
    }

    fn piece(&self) -> [Piece; 1] {
        [Piece {
            key: self.key,
            offset: 0,
            len: self.len,
        }]
    }

    fn post_receive(&mut self) {
        self.posted += 1;
        let pieces = self.piece();
        let post = Post::Receive {
            op: OpId(self.posted),
            pieces: &pieces,
        };
        if let Ok(Posted::Done(_)) = self.endpoint.post(post) {
            self.arrived += 1;
        }
    }

    fn poll(&mut self) {
        self.endpoint.poll(&mut self.completions);
        // Sends complete here too, when the ring was full.
        let receives = self
            .completions
            .drain(..)
            .filter(|c| c.op != OpId(0))
            .count();
        self.arrived += receives as u64;
    }
}

impl Wire for PostingEnd {
    fn send(&mut self) {
        let pieces = self.piece();
        while let Err(PostError::Full) = self.endpoint.post(Post::Send {
            op: OpId(0),
            pieces: &pieces,
        }) {
            self.poll();
        }
    }

    #[inline]
    fn try_receive(&mut self) -> bool {
        if self.arrived == 0 {
            self.poll();
            if self.arrived == 0 {
                return false;
            }
        }
        self.arrived -= 1;
        self.post_receive();
        true
    }
}

/// A fabric and both ends of a connection.
type Pair = (SoftFabric, Arc<dyn Endpoint>, Arc<dyn Endpoint>);

fn connected_pair(options: Options) -> Option<Pair> {
    let fabric = SoftFabric::new(options).ok()?;
    let mut listener = None;
    for port in 20_000..30_000 {
        let at = SocketAddr::new([127, 77, 66, 55].into(), port);
        if let Ok(listening) = fabric.listen(Token(1), at) {
            listener = Some((listening, at));
            break;
        }
    }
    let (_listening, at) = listener?;
    let connecting = fabric.connect(Token(2), at, at).ok()?;
    let mut events = Vec::new();
    let mut accepted = None;
    let limit = Instant::now() + Duration::from_secs(10);
    while Instant::now() < limit {
        fabric.poll(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Request { request, .. } => accepted = request.accept(Token(3)).ok(),
                Event::Connected { .. } => return Some((fabric, accepted?, connecting)),
                _ => {}
            }
        }
    }
    None
}

/// Both ends of what is measured.
type Wires = [Box<dyn Wire + Send>; 2];

fn wires(layer: Layer, len: usize, ring_size: usize) -> Option<Wires> {
    match layer {
        Layer::Ring => {
            let (ours, file) = Segment::create(ring_size).ok()?;
            let theirs = Segment::join(file.as_fd(), ring_size).ok()?;
            Some([
                Box::new(RingEnd::new(ours, len)),
                Box::new(RingEnd::new(theirs, len)),
            ])
        }
        Layer::Endpoint => {
            let (_fabric, a, b) = connected_pair(Options {
                ring_size,
                ..Options::default()
            })?;
            Some([
                Box::new(PostingEnd::new(a, len)?),
                Box::new(PostingEnd::new(b, len)?),
            ])
        }
    }
}

/// How long one figure is measured.
const MEASURE: Duration = Duration::from_millis(200);

/// The shortest time that `rounds` messages of `len` bytes took there and back, over many bursts:
/// on a busy machine most bursts measure the scheduler. `None` if it cannot be measured.
#[must_use]
pub fn ping_pong(layer: Layer, len: usize, rounds: u32, ring_size: usize) -> Option<Duration> {
    let [mut here, mut there] = wires(layer, len, ring_size)?;
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let echo = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            for _ in 0..rounds {
                there.receive();
                there.send();
            }
        }
    });
    let mut best = None;
    let limit = Instant::now() + MEASURE;
    loop {
        let last = Instant::now() > limit;
        let begin = Instant::now();
        for round in 0..rounds {
            here.send();
            if last && round == rounds - 1 {
                done.store(true, Ordering::Relaxed);
            }
            here.receive();
        }
        let took = begin.elapsed();
        best = Some(best.map_or(took, |best: Duration| best.min(took)));
        if last {
            break;
        }
    }
    // The echo may have begun another burst before it saw the end.
    while !echo.is_finished() {
        here.send();
        here.receive_or(&|| echo.is_finished());
    }
    echo.join().ok()?;
    best
}

/// The shortest time that `rounds` messages of `len` bytes took from one end to the other by one
/// thread alone: the work without the way between two processors. `None` if it cannot be measured.
#[must_use]
pub fn alone(layer: Layer, len: usize, rounds: u32, ring_size: usize) -> Option<Duration> {
    let [mut here, mut there] = wires(layer, len, ring_size)?;
    let limit = Instant::now() + MEASURE;
    let mut best: Option<Duration> = None;
    while Instant::now() < limit {
        let begin = Instant::now();
        for _ in 0..rounds {
            here.send();
            there.receive();
        }
        let took = begin.elapsed();
        best = Some(best.map_or(took, |best| best.min(took)));
    }
    best
}

/// The shortest time in which `count` messages of `len` bytes of a longer stream arrived.
#[must_use]
pub fn stream(layer: Layer, len: usize, count: u32, ring_size: usize) -> Option<Duration> {
    let [mut here, mut there] = wires(layer, len, ring_size)?;
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let source = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            there.send();
        }
    });
    let mut best = None;
    let limit = Instant::now() + MEASURE;
    while Instant::now() < limit {
        let begin = Instant::now();
        for _ in 0..count {
            here.receive();
        }
        let took = begin.elapsed();
        best = Some(best.map_or(took, |best: Duration| best.min(took)));
    }
    done.store(true, Ordering::Relaxed);
    while !source.is_finished() {
        here.receive_or(&|| source.is_finished());
    }
    source.join().ok()?;
    best
}

/// The shortest time for a read of `len` bytes of the peer's memory, copied by this side itself or
/// by the peer's. `None` if it cannot be measured.
#[must_use]
pub fn read(direct: bool, len: usize) -> Option<Duration> {
    // Longer than the endpoints.
    let (ours, theirs) = (vec![1u8; len], vec![2u8; len]);
    let [local, remote] = [&ours, &theirs].map(|memory| Region {
        base: memory.as_ptr() as usize,
        len,
    });
    let rdma = if direct {
        Rdma::Direct
    } else {
        Rdma::Pipelined
    };
    let (fabric, here, there) = connected_pair(Options {
        rdma,
        ..Options::default()
    })?;
    let key = region::register_lasting(&*here, local, Access::WRITE)?;
    let mut descriptor = [0; 32];
    region::expose_lasting(&*there, remote, Access::READ, &mut descriptor)?;
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let target = std::thread::spawn(move || {
        let (mut completions, mut events) = (Vec::new(), Vec::new());
        while !told.load(Ordering::Relaxed) {
            if !direct {
                there.poll(&mut completions);
            }
            fabric.poll(&mut events);
            std::thread::yield_now();
        }
    });
    let pieces = [Piece {
        key,
        offset: 0,
        len,
    }];
    let mut completions = Vec::new();
    let mut best: Option<Duration> = None;
    let limit = Instant::now() + MEASURE;
    while Instant::now() < limit {
        let begin = Instant::now();
        let post = Post::Read {
            op: OpId(1),
            pieces: &pieces,
            remote: &descriptor,
            offset: 0,
        };
        if here.post(post).ok()? == Posted::Pending {
            while completions.is_empty() {
                here.poll(&mut completions);
            }
            completions.clear();
        }
        let took = begin.elapsed();
        best = Some(best.map_or(took, |best| best.min(took)));
    }
    done.store(true, Ordering::Relaxed);
    target.join().ok()?;
    best
}
