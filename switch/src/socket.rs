//! A socket of a provider, owned: what the rest of the switch sees of the SAN.
//!
//! Owns the provider's socket and remembers what was registered on it. Invariants: WSPCloseSocket
//! is called exactly once; before it, everything that is still registered and not in use is
//! deregistered; after `close` has returned, the provider touches nothing that was lent to it.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use wsdirect::abi::{self, WSANETWORKEVENTS};

use crate::error::WsaError;
use crate::lent::{
    Access, Descriptor, Direction, MemoryHandle, Notice, Outcome, Piece, Posted, Region, Slot,
};
use crate::provider::Provider;
use crate::sys::Event;
use crate::table::RawSocket;
use crate::upcalls::Wake;

/// How long a provider may take to give a closed socket's handle back. The interface asks for it at
/// once; a provider that is late holds the caller up, one that never does is broken.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// Used where a provider has no opinion.
const DEFAULT_LIMITS: Limits = Limits {
    max_message: 64 << 10,
    max_rdma: 1 << 30,
    rdma_threshold: 16 << 10,
};

/// What a provider allows and prefers on a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Largest message: SO_MAX_MSG_SIZE.
    pub(crate) max_message: usize,
    /// Largest single RDMA: SO_MAX_RDMA_SIZE.
    pub(crate) max_rdma: usize,
    /// Up to here messages are better than RDMA: SO_RDMA_THRESHOLD_SIZE.
    pub(crate) rdma_threshold: usize,
}

/// Memory registered on a socket. Dropping it does not deregister; see [`SanSocket::deregister`].
#[derive(Debug)]
pub(crate) struct Registration {
    handle: MemoryHandle,
}

/// Memory the peer may reach. Dropping it does not end that; see [`SanSocket::deregister_rdma`].
#[derive(Debug)]
pub(crate) struct Exposure {
    descriptor: Descriptor,
}

impl Exposure {
    /// The bytes that name the memory to the peer's provider.
    pub(crate) fn descriptor(&self) -> &[u8] {
        self.descriptor.bytes()
    }
}

/// One operation; belongs to the socket that made it. May be dropped while pending: its memory
/// stays as long as the provider may write to it.
#[derive(Clone)]
pub(crate) struct Op {
    slot: Arc<Slot>,
}

impl Op {
    /// Whether it may not be posted now.
    pub(crate) fn is_pending(&self) -> bool {
        !self.slot.is_idle()
    }

    /// Whether it is over, collected or not.
    pub(crate) fn is_over(&self) -> bool {
        self.slot.is_over()
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Op({})",
            if self.is_pending() { "pending" } else { "idle" }
        )
    }
}

/// One local piece of an RDMA, and the registration that covers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPiece<'a> {
    pub(crate) region: Region,
    pub(crate) registration: &'a Registration,
}

/// What [`SanSocket::arm`] found.
#[derive(Debug)]
pub(crate) enum Arm<'a> {
    /// There is something to poll now; nothing is armed.
    Pending,
    /// The descriptor becomes readable at the next completion or at the end of the connection.
    Armed(BorrowedFd<'a>),
}

/// What a condition function is told: the peer's and the local address.
pub(crate) type CallAddresses = (Option<SocketAddr>, Option<SocketAddr>);

#[derive(Default)]
struct Registered {
    memory: Vec<MemoryHandle>,
    exposed: Vec<Descriptor>,
}

/// A provider's socket.
pub(crate) struct SanSocket {
    provider: Arc<Provider>,
    raw: RawSocket,
    local: SocketAddr,
    peer: OnceLock<SocketAddr>,
    limits: OnceLock<Limits>,
    /// What the provider signals. Kept open as long as the provider may use it.
    event: Option<Event>,
    /// Guards nothing but the lists; no lock is taken under it and no provider is called.
    registered: Mutex<Registered>,
    /// Set once, by whoever closes.
    closed: AtomicBool,
    /// Held while closing, so that a second closer returns only when the first is done.
    closing: Mutex<()>,
}

impl fmt::Debug for SanSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SanSocket")
            .field("provider", &self.provider.name())
            .field("local", &self.local)
            .field("peer", &self.peer.get())
            .finish_non_exhaustive()
    }
}

impl SanSocket {
    /// WSPSocket and, right after it, WSPBind. The error says which of them failed.
    pub(crate) fn bound(
        provider: &Arc<Provider>,
        local: SocketAddr,
    ) -> Result<SanSocket, BoundError> {
        let raw = provider
            .table()
            .socket(&local)
            .map_err(BoundError::Socket)?;
        let socket = SanSocket::own(provider, raw, local);
        // req: WSD-17 bind right after the socket is made
        let bound = provider.table().bind(&socket.raw, local);
        bound.map_err(BoundError::Bind)?;
        Ok(socket)
    }

    fn own(provider: &Arc<Provider>, raw: RawSocket, local: SocketAddr) -> SanSocket {
        SanSocket {
            provider: Arc::clone(provider),
            raw,
            local,
            peer: OnceLock::new(),
            limits: OnceLock::new(),
            event: None,
            registered: Mutex::default(),
            closed: AtomicBool::new(false),
            closing: Mutex::new(()),
        }
    }

    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The other end, once connected.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer.get().copied()
    }

    // ---- connecting and listening

    pub(crate) fn set_debug(&self, on: bool) -> Result<(), WsaError> {
        self.provider
            .table()
            .set_option(&self.raw, abi::WSD_SO_DEBUG, u32::from(on))
    }

    /// Has the provider signal an event; once in the life of a socket.
    pub(crate) fn event_select(&mut self, events: i32) -> Result<(), WsaError> {
        let event = Event::spare().map_err(|_| WsaError(abi::WSAENOBUFS))?;
        let event = self.event.insert(event);
        self.provider.table().event_select(&self.raw, event, events)
    }

    /// The event selected.
    pub(crate) fn event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    /// Lets go of the event when nothing more is expected of it, so that a connection does not
    /// cost a descriptor.
    pub(crate) fn release_event(&mut self) {
        if let Some(event) = self.event.take() {
            event.give_back();
        }
    }

    /// What happened since the last call; resets the event.
    pub(crate) fn enum_events(&self) -> Result<WSANETWORKEVENTS, WsaError> {
        let event = self.event().ok_or(WsaError(abi::WSAEINVAL))?;
        self.provider.table().enum_events(&self.raw, event)
    }

    /// WSPConnect: `true` if connected at once, `false` if FD_CONNECT will tell.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<bool, WsaError> {
        let _ = self.peer.set(to);
        self.provider.have_progress();
        match self.provider.table().connect(&self.raw, to) {
            Ok(()) => Ok(true),
            Err(WsaError(abi::WSAEWOULDBLOCK)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn listen(&self, backlog: i32) -> Result<(), WsaError> {
        self.provider.have_progress();
        self.provider.table().listen(&self.raw, backlog)
    }

    /// Accepts the oldest request if the condition allows.
    pub(crate) fn accept(
        &self,
        condition: &mut dyn FnMut(CallAddresses) -> bool,
    ) -> Result<SanSocket, WsaError> {
        let mut told = (None, None);
        let mut watch = |peer, local| {
            told = (peer, local);
            condition(told)
        };
        let (raw, peer) = self.provider.table().accept(&self.raw, &mut watch)?;
        let local = told.1.unwrap_or(self.local);
        let socket = SanSocket::own(&self.provider, raw, local);
        match peer.or(told.0) {
            Some(peer) => {
                let _ = socket.peer.set(peer);
                Ok(socket)
            }
            // A connection from nowhere: the drop closes it.
            None => Err(WsaError(abi::WSAEINVALIDPROVIDER)),
        }
    }

    // ---- what the provider can do

    /// How to post so that one can sleep until something completes: by polling and arming where
    /// the provider can be armed, by upcall elsewhere.
    pub(crate) fn notice(&self) -> Notice {
        if self.provider.arms() {
            Notice::Poll
        } else {
            Notice::Upcall
        }
    }

    pub(crate) fn has_rdma_read(&self) -> bool {
        self.provider.has_rdma_read()
    }

    /// Asked from the provider at the first call.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.get_or_init(|| {
            let ask = |name, otherwise: usize| match self.provider.table().option(&self.raw, name) {
                Ok(value) => usize::try_from(value).unwrap_or(otherwise),
                // An option is optional when the SAN has no such limit.
                Err(_) => otherwise,
            };
            Limits {
                max_message: ask(abi::SO_MAX_MSG_SIZE, DEFAULT_LIMITS.max_message),
                max_rdma: ask(abi::SO_MAX_RDMA_SIZE, DEFAULT_LIMITS.max_rdma),
                rdma_threshold: ask(abi::SO_RDMA_THRESHOLD_SIZE, DEFAULT_LIMITS.rdma_threshold),
            }
        })
    }

    /// As if the provider had answered so.
    #[cfg(test)]
    pub(crate) fn pretend_threshold(&mut self, rdma_threshold: usize) {
        let limits = Limits {
            rdma_threshold,
            ..self.limits()
        };
        self.limits = OnceLock::from(limits);
    }

    /// The length of the provider's descriptors.
    pub(crate) fn descriptor_len(&self) -> Result<usize, WsaError> {
        self.provider.descriptor_len(&self.raw)
    }

    /// Told of each completion that comes by upcall, and of the end of the socket.
    pub(crate) fn set_waker(&self, waker: Arc<dyn Wake>) {
        self.raw.handle().set_waker(waker);
    }

    // ---- memory

    pub(crate) fn register(
        &self,
        region: Region,
        access: Access,
    ) -> Result<Registration, WsaError> {
        self.open()?;
        let handle = self.provider.table().register(&self.raw, region, access)?;
        self.registered.lock().memory.push(handle);
        Ok(Registration { handle })
    }

    /// Ends a registration; hands it back if a transfer still uses it.
    pub(crate) fn deregister(
        &self,
        registration: Registration,
    ) -> Result<(), (Registration, WsaError)> {
        let mut registered = match self.take(registration, |registered, registration| {
            take_one(&mut registered.memory, &registration.handle)
        }) {
            Ok(registration) => registration,
            Err(closed) => return closed,
        };
        match self
            .provider
            .table()
            .deregister(&self.raw, registered.handle)
        {
            Ok(()) => Ok(()),
            Err(error) => {
                let handle = registered.handle;
                registered = Registration { handle };
                self.registered.lock().memory.push(handle);
                Err((registered, error))
            }
        }
    }

    /// Lets the peer reach memory by RDMA. The first time a provider is used, its descriptor's
    /// length is probed for.
    pub(crate) fn register_rdma(
        &self,
        region: Region,
        access: Access,
    ) -> Result<Exposure, WsaError> {
        self.open()?;
        let room = self.descriptor_len()?;
        let descriptor = self
            .provider
            .table()
            .expose(&self.raw, region, access, room)?;
        self.registered.lock().exposed.push(descriptor);
        Ok(Exposure { descriptor })
    }

    /// Ends an exposure; hands it back if an RDMA still uses it.
    pub(crate) fn deregister_rdma(&self, exposure: Exposure) -> Result<(), (Exposure, WsaError)> {
        let exposure = match self.take(exposure, |registered, exposure| {
            take_one(&mut registered.exposed, &exposure.descriptor)
        }) {
            Ok(exposure) => exposure,
            Err(closed) => return closed,
        };
        match self
            .provider
            .table()
            .conceal(&self.raw, &exposure.descriptor)
        {
            Ok(()) => Ok(()),
            Err(error) => {
                self.registered.lock().exposed.push(exposure.descriptor);
                Err((exposure, error))
            }
        }
    }

    /// Takes something off the lists, or answers for what is not on them: nothing is left to do if
    /// the socket is closed, anything else was made on another socket.
    fn take<T>(
        &self,
        thing: T,
        take: impl FnOnce(&mut Registered, &T) -> bool,
    ) -> Result<T, Result<(), (T, WsaError)>> {
        if take(&mut self.registered.lock(), &thing) {
            Ok(thing)
        } else if self.is_closed() {
            Err(Ok(()))
        } else {
            Err(Err((thing, WsaError(abi::WSAEINVAL))))
        }
    }

    // ---- operations

    /// An operation to post; made once and used again and again.
    pub(crate) fn op(&self) -> Op {
        Op {
            slot: self.raw.handle().slot(),
        }
    }

    pub(crate) fn send(
        &self,
        pieces: &[Region],
        op: &Op,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        self.open()?;
        self.provider
            .table()
            .send(&self.raw, pieces, &op.slot, notice)
    }

    pub(crate) fn recv(
        &self,
        pieces: &[Region],
        op: &Op,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        self.open()?;
        self.provider
            .table()
            .receive(&self.raw, pieces, &op.slot, notice)
    }

    pub(crate) fn rdma_write(
        &self,
        pieces: &[LocalPiece<'_>],
        remote: &[u8],
        offset: u32,
        op: &Op,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        self.rdma(Direction::Write, pieces, (remote, offset), op, notice)
    }

    pub(crate) fn rdma_read(
        &self,
        pieces: &[LocalPiece<'_>],
        remote: &[u8],
        offset: u32,
        op: &Op,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        self.rdma(Direction::Read, pieces, (remote, offset), op, notice)
    }

    fn rdma(
        &self,
        direction: Direction,
        pieces: &[LocalPiece<'_>],
        remote: (&[u8], u32),
        op: &Op,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        self.open()?;
        let pieces = pieces.iter().map(|piece| Piece {
            region: piece.region,
            memory: piece.registration.handle,
        });
        self.provider
            .table()
            .rdma(&self.raw, direction, pieces, remote, &op.slot, notice)
    }

    /// How an operation stands; polling for it also lets the provider make progress.
    pub(crate) fn result(&self, op: &Op) -> Outcome {
        if self.is_closed() {
            return Outcome::Failed(WsaError(abi::WSA_OPERATION_ABORTED));
        }
        self.provider.table().result(&self.raw, &op.slot)
    }

    /// Prepares to sleep. Only for a provider that can be armed.
    pub(crate) fn arm(&self) -> Result<Arm<'_>, WsaError> {
        self.open()?;
        if !self.provider.table().arm(&self.raw)? {
            return Ok(Arm::Pending);
        }
        match self.raw.wait_descriptor() {
            Some(descriptor) => Ok(Arm::Armed(descriptor)),
            None => Err(WsaError(abi::WSAEINVALIDPROVIDER)),
        }
    }

    /// What an armed socket makes readable; known after the first time it was armed.
    pub(crate) fn wait_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.raw.wait_descriptor()
    }

    // ---- the end

    fn is_closed(&self) -> bool {
        // Acquire: pairs with the closer's swap.
        self.closed.load(Ordering::Acquire)
    }

    fn open(&self) -> Result<(), WsaError> {
        if self.is_closed() {
            Err(WsaError(abi::WSAENOTSOCK))
        } else {
            Ok(())
        }
    }

    /// Closes the socket and waits until the provider has let go of it. Ends a connect or any
    /// operation in progress.
    pub(crate) fn close(&self) {
        let _closing: MutexGuard<'_, ()> = self.closing.lock();
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        // req: WSD-22 what no operation uses is deregistered before the socket is closed
        let registered = std::mem::take(&mut *self.registered.lock());
        let table = self.provider.table();
        for descriptor in &registered.exposed {
            // In use: then the provider has to release it itself.
            let _ = table.conceal(&self.raw, descriptor);
        }
        for handle in registered.memory {
            let _ = table.deregister(&self.raw, handle);
        }
        if let Err(error) = table.close(&self.raw) {
            tracing::warn!(provider = self.provider.name(), %error, "WSPCloseSocket failed");
            return;
        }
        if !self.raw.handle().wait_closed(Instant::now() + CLOSING_TIME) {
            tracing::error!(
                provider = self.provider.name(),
                "the provider keeps the handle of a closed socket"
            );
        }
    }
}

impl Drop for SanSocket {
    fn drop(&mut self) {
        self.close();
    }
}

fn take_one<T: PartialEq>(list: &mut Vec<T>, thing: &T) -> bool {
    match list.iter().position(|listed| listed == thing) {
        Some(place) => {
            list.swap_remove(place);
            true
        }
        None => false,
    }
}

/// Which call kept a socket from being made and bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BoundError {
    Socket(WsaError),
    Bind(WsaError),
}
