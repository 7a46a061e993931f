//! Two connected endpoints, their memory, and waiting with a limit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fabric::soft::{Options, SoftFabric};
use crate::fabric::{
    Access, Completion, ConnectError, Endpoint, Event, Fabric, Key, Listener, OpId, Outcome, Piece,
    Post, PostError, Posted, Region, Request, Token,
};

pub(in crate::fabric) const PATIENCE: Duration = Duration::from_secs(30);

static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(in crate::fabric) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Asks until the answer is there.
pub(in crate::fabric) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    let mut tries = 0u32;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < limit, "waited too long for {what}");
        tries += 1;
        if tries > 100 {
            std::thread::sleep(Duration::from_micros(200));
        } else {
            std::thread::yield_now();
        }
    }
}

/// Sleeps on the endpoint's descriptor; `false` if that took too long.
#[allow(unsafe_code)]
pub(in crate::fabric) fn sleep_until_readable(endpoint: &dyn Endpoint) -> bool {
    let mut query = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&endpoint.readiness()),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(PATIENCE.as_millis()).unwrap();
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut query, 1, limit) == 1 }
}

/// Those of these addresses that this host has. Without IPv6 there is less to show; ./test says so.
pub(in crate::fabric) fn of_this_host<'a>(ips: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_there = |ip: &&str| {
        let ip: IpAddr = ip.parse().unwrap();
        ip.is_ipv4() || std::net::UdpSocket::bind((ip, 0)).is_ok()
    };
    ips.iter().copied().filter(is_there)
}

/// An address where nobody listens. Its port is none of those that the kernel gives to who asks for
/// any: it is not held, and another test could get it meanwhile.
pub(in crate::fabric) fn free_address(ip: &str) -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 12_000..30_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ip: IpAddr = ip.parse().unwrap();
    let (first, count) = (
        std::process::id().wrapping_mul(101),
        PORTS.end - PORTS.start,
    );
    for _ in PORTS {
        // Relaxed: only unique.
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + next % count).unwrap();
        let at = SocketAddr::new(ip, port);
        if std::net::TcpListener::bind(at).is_ok() {
            return at;
        }
    }
    panic!("no port of {ip} is free");
}

/// A fabric whose events are sorted.
pub(in crate::fabric) struct Host {
    pub(in crate::fabric) fabric: Arc<dyn Fabric>,
    pub(in crate::fabric) events: Vec<Event>,
    pub(in crate::fabric) options: Options,
}

impl Host {
    pub(in crate::fabric) fn new(options: Options) -> Self {
        Self {
            options: options.clone(),
            ..Self::over(Arc::new(SoftFabric::new(options).unwrap()))
        }
    }

    /// Over any fabric; `options` then mean nothing.
    pub(in crate::fabric) fn over(fabric: Arc<dyn Fabric>) -> Self {
        Self {
            fabric,
            events: Vec::new(),
            options: Options::default(),
        }
    }

    pub(in crate::fabric) fn poll(&mut self) {
        self.fabric.poll(&mut self.events);
    }

    pub(in crate::fabric) fn next(
        &mut self,
        what: &str,
        mut take: impl FnMut(&Event) -> bool,
    ) -> Event {
        until(what, || {
            self.poll();
            let at = self.events.iter().position(&mut take)?;
            Some(self.events.remove(at))
        })
    }

    pub(in crate::fabric) fn request(&mut self, at: Token) -> Box<dyn Request> {
        let event = self.next(
            "a request",
            |e| matches!(e, Event::Request { listener, .. } if *listener == at),
        );
        match event {
            Event::Request { request, .. } => request,
            _ => unreachable!(),
        }
    }

    pub(in crate::fabric) fn connected(&mut self, token: Token) -> Result<(), ConnectError> {
        let event = self.next("the outcome of a connect", |e| {
            matches!(e, Event::Connected { endpoint } | Event::ConnectFailed { endpoint, .. }
                if *endpoint == token)
        });
        match event {
            Event::ConnectFailed { error, .. } => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until an accepted end has heard of its peer.
    pub(in crate::fabric) fn settled(&mut self, accepted: &dyn Endpoint) {
        until("word from the peer", || {
            self.poll();
            accepted.has_heard_of_peer().then_some(())
        });
    }

    pub(in crate::fabric) fn has(&mut self, mut which: impl FnMut(&Event) -> bool) -> bool {
        self.poll();
        self.events.iter().any(&mut which)
    }
}

/// An endpoint with one registered buffer for each direction.
pub(in crate::fabric) struct End {
    pub(in crate::fabric) token: Token,
    pub(in crate::fabric) endpoint: Arc<dyn Endpoint>,
    pub(in crate::fabric) out: Memory,
    pub(in crate::fabric) inward: Memory,
    pub(in crate::fabric) completions: Vec<Completion>,
}

/// Memory that lives as long as the test says.
pub(in crate::fabric) struct Memory {
    pub(in crate::fabric) bytes: Box<[u8]>,
    pub(in crate::fabric) key: Key,
}

impl Memory {
    pub(in crate::fabric) fn region(bytes: &[u8]) -> Region {
        Region {
            base: bytes.as_ptr() as usize,
            len: bytes.len(),
        }
    }

    #[allow(unsafe_code)]
    pub(in crate::fabric) fn new(endpoint: &dyn Endpoint, len: usize, access: Access) -> Self {
        let bytes = vec![0u8; len].into_boxed_slice();
        // SAFETY: tests keep the memory until the endpoint is gone.
        let key = unsafe { endpoint.register(Self::region(&bytes), access) }.unwrap();
        Self { bytes, key }
    }

    pub(in crate::fabric) fn piece(&self, offset: usize, len: usize) -> Piece {
        Piece {
            key: self.key,
            offset,
            len,
        }
    }
}

pub(in crate::fabric) const ROOM: usize = 4 << 20;

impl End {
    /// One with little memory.
    pub(in crate::fabric) fn small(token: Token, endpoint: Arc<dyn Endpoint>) -> Self {
        let out = Memory::new(&*endpoint, 1000, Access::READ);
        let inward = Memory::new(&*endpoint, 1000, Access::WRITE);
        Self {
            token,
            endpoint,
            out,
            inward,
            completions: Vec::new(),
        }
    }

    /// Receives one message of at most a thousand bytes.
    pub(in crate::fabric) fn take_small(&mut self) -> Vec<u8> {
        let receive = self.receive(0, 1000);
        match self.end(receive) {
            Outcome::Done(len) => self.inward.bytes[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::fabric) fn new(token: Token, endpoint: Arc<dyn Endpoint>) -> Self {
        let out = Memory::new(&*endpoint, ROOM, Access::READ);
        let inward = Memory::new(&*endpoint, ROOM, Access::WRITE);
        Self {
            token,
            endpoint,
            out,
            inward,
            completions: Vec::new(),
        }
    }

    /// Sends `bytes` from the start of the outgoing memory.
    pub(in crate::fabric) fn send(&mut self, bytes: &[u8]) -> Result<(OpId, Posted), PostError> {
        self.send_at(0, bytes)
    }

    pub(in crate::fabric) fn send_at(
        &mut self,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(OpId, Posted), PostError> {
        self.out.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        let op = OpId(number());
        let pieces = [self.out.piece(offset, bytes.len())];
        Ok((
            op,
            self.endpoint.post(Post::Send {
                op,
                pieces: &pieces,
            })?,
        ))
    }

    pub(in crate::fabric) fn receive(&mut self, offset: usize, len: usize) -> (OpId, Posted) {
        let op = OpId(number());
        let pieces = [self.inward.piece(offset, len)];
        (
            op,
            self.endpoint
                .post(Post::Receive {
                    op,
                    pieces: &pieces,
                })
                .unwrap(),
        )
    }

    pub(in crate::fabric) fn poll(&mut self) {
        self.endpoint.poll(&mut self.completions);
    }

    /// The outcome of a pending operation, if it has ended.
    pub(in crate::fabric) fn outcome(&mut self, op: OpId) -> Option<Outcome> {
        self.poll();
        let at = self.completions.iter().position(|c| c.op == op)?;
        Some(self.completions.remove(at).outcome)
    }

    /// The outcome of a posted operation.
    pub(in crate::fabric) fn end(&mut self, (op, posted): (OpId, Posted)) -> Outcome {
        match posted {
            Posted::Done(len) => Outcome::Done(len),
            Posted::Pending => until("a completion", || self.outcome(op)),
        }
    }

    /// Receives one message.
    pub(in crate::fabric) fn take(&mut self) -> Vec<u8> {
        let receive = self.receive(0, ROOM);
        match self.end(receive) {
            Outcome::Done(len) => self.inward.bytes[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

/// A fabric that serves both ends of connections inside this process.
pub(in crate::fabric) struct Rig {
    pub(in crate::fabric) host: Host,
    pub(in crate::fabric) at: SocketAddr,
    pub(in crate::fabric) listener: Box<dyn Listener>,
    pub(in crate::fabric) listening: Token,
}

impl Rig {
    pub(in crate::fabric) fn new(options: Options) -> Self {
        Self::at(options, "127.0.0.1")
    }

    pub(in crate::fabric) fn at(options: Options, ip: &str) -> Self {
        Self::over(Host::new(options), ip)
    }

    pub(in crate::fabric) fn over(host: Host, ip: &str) -> Self {
        let listening = Token(number());
        // Somebody else may have been given the same port.
        let (at, listener) = until("a free address", || {
            let at = free_address(ip);
            Some((at, host.fabric.listen(listening, at).ok()?))
        });
        Self {
            host,
            at,
            listener,
            listening,
        }
    }

    /// The accepting and the connecting end of a new connection.
    pub(in crate::fabric) fn pair(&mut self) -> (End, End) {
        let (there, here) = (Token(number()), Token(number()));
        let from = SocketAddr::new(self.at.ip(), 40000);
        let connecting = self.host.fabric.connect(here, from, self.at).unwrap();
        let request = self.host.request(self.listening);
        assert_eq!((request.local(), request.peer()), (self.at, from));
        assert!(!request.is_gone());
        let accepted = request.accept(there).unwrap();
        self.host.connected(here).unwrap();
        self.host.settled(&*accepted);
        (End::new(there, accepted), End::new(here, connecting))
    }
}
