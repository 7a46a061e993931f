//! Two connected endpoints, their memory, and waiting with a limit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fabric::soft::{Options, SoftFabric};
use crate::fabric::{
    Access, Completion, ConnectError, Endpoint, Event, Fabric, Key, Listener, OpId, Outcome, Piece,
    Post, PostError, Posted, Region, Request, Token,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(super) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Asks until the answer is there.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
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
pub(super) fn sleep_until_readable(endpoint: &dyn Endpoint) -> bool {
    let mut query = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&endpoint.readiness()),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(PATIENCE.as_millis()).unwrap();
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut query, 1, limit) == 1 }
}

/// An address where nobody has listened for a while.
pub(super) fn free_address(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    let holder = std::net::TcpListener::bind(SocketAddr::new(ip, 0)).unwrap();
    holder.local_addr().unwrap()
}

/// A fabric whose events are sorted.
pub(super) struct Host {
    pub(super) fabric: SoftFabric,
    pub(super) events: Vec<Event>,
    pub(super) options: Options,
}

impl Host {
    pub(super) fn new(options: Options) -> Self {
        Self {
            fabric: SoftFabric::new(options.clone()).unwrap(),
            events: Vec::new(),
            options,
        }
    }

    pub(super) fn poll(&mut self) {
        self.fabric.poll(&mut self.events);
    }

    pub(super) fn next(&mut self, what: &str, mut take: impl FnMut(&Event) -> bool) -> Event {
        until(what, || {
            self.poll();
            let at = self.events.iter().position(&mut take)?;
            Some(self.events.remove(at))
        })
    }

    pub(super) fn request(&mut self, at: Token) -> Box<dyn Request> {
        let event = self.next(
            "a request",
            |e| matches!(e, Event::Request { listener, .. } if *listener == at),
        );
        match event {
            Event::Request { request, .. } => request,
            _ => unreachable!(),
        }
    }

    pub(super) fn connected(&mut self, token: Token) -> Result<(), ConnectError> {
        let event = self.next("the outcome of a connect", |e| {
            matches!(e, Event::Connected { endpoint } | Event::ConnectFailed { endpoint, .. }
                if *endpoint == token)
        });
        match event {
            Event::ConnectFailed { error, .. } => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn has(&mut self, mut which: impl FnMut(&Event) -> bool) -> bool {
        self.poll();
        self.events.iter().any(&mut which)
    }
}

/// An endpoint with one registered buffer for each direction.
pub(super) struct End {
    pub(super) token: Token,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) out: Memory,
    pub(super) inward: Memory,
    pub(super) completions: Vec<Completion>,
}

/// Memory that lives as long as the test says.
pub(super) struct Memory {
    pub(super) bytes: Box<[u8]>,
    pub(super) key: Key,
}

impl Memory {
    pub(super) fn region(bytes: &[u8]) -> Region {
        Region {
            base: bytes.as_ptr() as usize,
            len: bytes.len(),
        }
    }

    #[allow(unsafe_code)]
    pub(super) fn new(endpoint: &dyn Endpoint, len: usize, access: Access) -> Self {
        let bytes = vec![0u8; len].into_boxed_slice();
        // SAFETY: tests keep the memory until the endpoint is gone.
        let key = unsafe { endpoint.register(Self::region(&bytes), access) }.unwrap();
        Self { bytes, key }
    }

    pub(super) fn piece(&self, offset: usize, len: usize) -> Piece {
        Piece {
            key: self.key,
            offset,
            len,
        }
    }
}

pub(super) const ROOM: usize = 4 << 20;

impl End {
    /// One with little memory.
    pub(super) fn small(token: Token, endpoint: Arc<dyn Endpoint>) -> Self {
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
    pub(super) fn take_small(&mut self) -> Vec<u8> {
        let receive = self.receive(0, 1000);
        match self.end(receive) {
            Outcome::Done(len) => self.inward.bytes[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn new(token: Token, endpoint: Arc<dyn Endpoint>) -> Self {
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
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(OpId, Posted), PostError> {
        self.send_at(0, bytes)
    }

    pub(super) fn send_at(
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

    pub(super) fn receive(&mut self, offset: usize, len: usize) -> (OpId, Posted) {
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

    pub(super) fn poll(&mut self) {
        self.endpoint.poll(&mut self.completions);
    }

    /// The outcome of a pending operation, if it has ended.
    pub(super) fn outcome(&mut self, op: OpId) -> Option<Outcome> {
        self.poll();
        let at = self.completions.iter().position(|c| c.op == op)?;
        Some(self.completions.remove(at).outcome)
    }

    /// The outcome of a posted operation.
    pub(super) fn end(&mut self, (op, posted): (OpId, Posted)) -> Outcome {
        match posted {
            Posted::Done(len) => Outcome::Done(len),
            Posted::Pending => until("a completion", || self.outcome(op)),
        }
    }

    /// Receives one message.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let receive = self.receive(0, ROOM);
        match self.end(receive) {
            Outcome::Done(len) => self.inward.bytes[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

/// A fabric that serves both ends of connections inside this process.
pub(super) struct Rig {
    pub(super) host: Host,
    pub(super) at: SocketAddr,
    pub(super) listener: Box<dyn Listener>,
    pub(super) listening: Token,
}

impl Rig {
    pub(super) fn new(options: Options) -> Self {
        Self::at(options, "127.0.0.1")
    }

    pub(super) fn at(options: Options, ip: &str) -> Self {
        let host = Host::new(options);
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
    pub(super) fn pair(&mut self) -> (End, End) {
        let (there, here) = (Token(number()), Token(number()));
        let from = SocketAddr::new(self.at.ip(), 40000);
        let connecting = self.host.fabric.connect(here, from, self.at).unwrap();
        let request = self.host.request(self.listening);
        assert_eq!((request.local(), request.peer()), (self.at, from));
        assert!(!request.is_gone());
        let accepted = request.accept(there).unwrap();
        self.host.connected(here).unwrap();
        (End::new(there, accepted), End::new(here, connecting))
    }
}
