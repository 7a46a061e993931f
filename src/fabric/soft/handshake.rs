//! The rendezvous: from a name to a connected endpoint.
//!
//! Owns listeners, newcomers (peers that have not introduced themselves yet), requests and the
//! connecting side's attempts. The order is: the connector connects to the listener's Unix socket
//! and says hello; the listener's fabric checks who it is and reports a request; only `accept` or
//! `reject` sends the first byte back; with the acceptance travel the shared segment and the
//! acceptor's eventfd, and both sides are connected. Nothing here waits: each step is taken when
//! its descriptor is ready, and whoever stalls or talks garbage is dropped.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::core::{Core, Watched};
use super::endpoint::SoftEndpoint;
use super::link::Link;
use super::process::Process;
use super::shm::Segment;
use super::wire::{self, Introduction, Message};
use super::{Rdma, directory, region, sys};
use crate::fabric::{ConnectError, Endpoint, Event, ListenError, Listener, Request, Token};

/// Peers that may be about to introduce themselves at one fabric.
const MOST_NEWCOMERS: usize = 4096;
/// Peers that the kernel keeps until they are taken in.
const BACKLOG: i32 = 4096;
/// After how long a full listener is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// How long nobody is taken in after descriptors have run out.
const REST: Duration = Duration::from_millis(100);

// ---- the listening side ------------------------------------------------------------------

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    id: u64,
    token: Token,
    at: SocketAddr,
    socket: OwnedFd,
    closed: AtomicBool,
    /// Not watched until the next tick.
    resting: AtomicBool,
    warned: AtomicBool,
}

/// What the engine holds of it.
#[derive(Debug)]
struct SoftListener {
    core: Arc<Core>,
    listening: Arc<Listening>,
}

pub(super) fn listen(
    core: &Arc<Core>,
    token: Token,
    at: SocketAddr,
) -> Result<Box<dyn Listener>, ListenError> {
    if at.port() == 0 || !(at.ip().is_unspecified() || directory::is_local(at.ip())) {
        return Err(ListenError::AddressNotAvailable);
    }
    let socket = sys::listen_under(&directory::name(sys::user(), at), BACKLOG).map_err(
        |error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse,
            _ => ListenError::NoResources,
        },
    )?;
    let id = core.identifier();
    let listening = Arc::new(Listening {
        id,
        token,
        at,
        socket,
        closed: AtomicBool::new(false),
        resting: AtomicBool::new(false),
        warned: AtomicBool::new(false),
    });
    core.watch(
        id,
        listening.socket.as_fd(),
        Watched::Listening(Arc::clone(&listening)),
    )
    .map_err(|_| ListenError::NoResources)?;
    Ok(Box::new(SoftListener {
        core: Arc::clone(core),
        listening,
    }))
}

impl Listener for SoftListener {}

impl Listening {
    /// Whether a connection between these addresses may come in here.
    fn takes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let here = self.at.port() == to.port()
            && self.at.is_ipv4() == to.is_ipv4()
            && (self.at.ip() == to.ip() || self.at.ip().is_unspecified());
        here && from.is_ipv4() == to.is_ipv4()
            && directory::is_local(to.ip())
            && directory::is_local(from.ip())
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }

    /// There are no descriptors or no memory for who has come. They stay with the kernel, which
    /// would report them again at once and for ever: hence not watched for a moment.
    fn rest(&self, core: &Core, error: &io::Error) {
        if !self.resting.swap(true, Ordering::AcqRel) && !self.warned.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "connections cannot be taken in now");
        }
        core.detach(self.socket.as_fd());
        core.schedule(Instant::now() + REST);
    }

    /// When to look again, if at all.
    pub(super) fn tick(&self, core: &Core, now: Instant) -> Option<Instant> {
        if !self.resting.swap(false, Ordering::AcqRel) || !self.is_open() {
            return None;
        }
        if core.attach(self.id, self.socket.as_fd()).is_ok() {
            return None;
        }
        self.resting.store(true, Ordering::Release);
        Some(now + REST)
    }

    /// Takes in who has come.
    pub(super) fn ready(self: &Arc<Self>, core: &Core) {
        // A bounded number at a time; the rest is reported again.
        for _ in 0..64 {
            let socket = match sys::accept(self.socket.as_fd()) {
                Ok(socket) => socket,
                Err(error) => {
                    match error.kind() {
                        io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted => {}
                        _ => self.rest(core, &error),
                    }
                    return;
                }
            };
            let newcomers = core
                .select(|object| matches!(object, Watched::Newcomer(_)).then_some(()))
                .len();
            let same_user = sys::peer(socket.as_fd())
                .ok()
                .filter(|peer| peer.user == sys::user());
            let Some(peer) = same_user.filter(|_| newcomers < MOST_NEWCOMERS) else {
                say(&socket, Message::Unable);
                continue;
            };
            let deadline = Instant::now() + core.options.handshake_time;
            let newcomer = Arc::new(Newcomer {
                id: core.identifier(),
                socket,
                pid: peer.pid,
                listening: Arc::clone(self),
                deadline,
                answered: AtomicBool::new(false),
            });
            let watched = core.watch(
                newcomer.id,
                newcomer.socket.as_fd(),
                Watched::Newcomer(Arc::clone(&newcomer)),
            );
            if watched.is_err() {
                newcomer.dismiss(core, Message::Unable);
            } else if !self.is_open() {
                newcomer.dismiss(core, Message::Reject);
            } else {
                core.schedule(deadline);
            }
        }
    }
}

impl Drop for SoftListener {
    fn drop(&mut self) {
        let listening = &self.listening;
        listening.closed.store(true, Ordering::SeqCst);
        self.core.unwatch(listening.id, listening.socket.as_fd());
        // Whoever has not been reported is refused: in the events, half introduced, or in the
        // queue of the kernel.
        let reported = self.core.retract(|event| {
            matches!(event, Event::Request { listener, .. } if *listener == listening.token)
        });
        drop(reported);
        let newcomers = self.core.select(|object| match object {
            Watched::Newcomer(newcomer) if newcomer.listening.id == listening.id => {
                Some(Arc::clone(newcomer))
            }
            _ => None,
        });
        for newcomer in newcomers {
            newcomer.dismiss(&self.core, Message::Reject);
        }
        while let Ok(socket) = sys::accept(listening.socket.as_fd()) {
            say(&socket, Message::Reject);
        }
    }
}

/// Somebody who has connected and not said hello yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    id: u64,
    socket: OwnedFd,
    pid: i32,
    listening: Arc<Listening>,
    deadline: Instant,
    /// Set by whoever deals with it, once.
    answered: AtomicBool,
}

impl Newcomer {
    /// Whether the caller is the one to deal with it; it is then not watched any more.
    fn take(&self, core: &Core) -> bool {
        let first = !self.answered.swap(true, Ordering::SeqCst);
        if first {
            core.unwatch(self.id, self.socket.as_fd());
        }
        first
    }

    fn dismiss(&self, core: &Core, message: Message) {
        if self.take(core) {
            say(&self.socket, message);
            sys::shut_down(self.socket.as_fd());
        }
    }

    /// The end of its patience, or `None` if that is over.
    pub(super) fn tick(&self, core: &Core, now: Instant) -> Option<Instant> {
        if now < self.deadline {
            return Some(self.deadline);
        }
        self.dismiss(core, Message::Unable);
        None
    }

    pub(super) fn ready(&self, core: &Core) {
        let mut bytes = [0; wire::LEN];
        let received = match sys::receive_message(self.socket.as_fd(), &mut bytes) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.dismiss(core, Message::Unable),
        };
        let message = bytes.get(..received.len).map(Message::parse);
        let mut descriptors = received.descriptors.into_iter();
        let (Some(Ok(Message::Hello { who, from, to })), Some(event), None, false) = (
            message,
            descriptors.next(),
            descriptors.next(),
            received.truncated,
        ) else {
            tracing::debug!("a newcomer did not introduce itself");
            return self.dismiss(core, Message::Unable);
        };
        let listening = &self.listening;
        if !sys::is_event(event.as_fd()) || !listening.takes(from, to) {
            return self.dismiss(core, Message::Unable);
        }
        if !self.take(core) {
            return;
        }
        let Ok(socket) = self.socket.try_clone() else {
            return say(&self.socket, Message::Unable);
        };
        let request = Box::new(SoftRequest {
            core: Weak::clone(&core.me),
            open: Some((socket, event)),
            pid: self.pid,
            who,
            from,
            to,
        });
        core.tell_if(
            || listening.is_open(),
            Event::Request {
                listener: listening.token,
                request,
            },
        );
    }
}

/// A peer that wants to connect.
#[derive(Debug)]
struct SoftRequest {
    core: Weak<Core>,
    /// The connection and the peer's eventfd, until it is answered.
    open: Option<(OwnedFd, OwnedFd)>,
    pid: i32,
    who: Introduction,
    from: SocketAddr,
    to: SocketAddr,
}

impl Request for SoftRequest {
    fn local(&self) -> SocketAddr {
        self.to
    }

    fn peer(&self) -> SocketAddr {
        self.from
    }

    fn is_gone(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|(socket, _)| sys::is_hung_up(socket.as_fd()))
    }

    fn accept(mut self: Box<Self>, token: Token) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let core = self.core.upgrade().ok_or(ConnectError::NotServed)?;
        let (socket, peer_event) = self.open.take().ok_or(ConnectError::NotServed)?;
        let unable = |error: io::Error| {
            tracing::warn!(%error, "a request could not be accepted");
            say(&socket, Message::Unable);
            ConnectError::NoResources
        };
        let (segment, file) = Segment::create(core.options.usable_ring_size()).map_err(unable)?;
        let event = sys::event().map_err(unable)?;
        let acceptor_nonce = sys::random_u64().map_err(unable)?;
        let connector_nonce = sys::random_u64().map_err(unable)?;
        let Some(direct) = may_go_direct(&core, &self.who, self.pid) else {
            say(&socket, Message::Unable);
            return Err(ConnectError::NotServed);
        };
        let message = Message::Accept {
            who: core.introduction(),
            ring_size: segment.ring_size() as u64,
            acceptor_nonce,
            connector_nonce,
        };
        let sent = sys::send_message(
            socket.as_fd(),
            &message.to_bytes(),
            &[file.as_fd(), event.as_fd()],
        );
        if sent.is_err() {
            // The peer has given up meanwhile.
            return Err(ConnectError::TimedOut);
        }
        let link = Link {
            segment,
            socket,
            peer_event,
            pid: direct.unwrap_or(self.pid),
            process: Process::of_peer(&core, self.pid),
            direct: AtomicBool::new(direct.is_some()),
            own_nonce: acceptor_nonce,
            peer_nonce: connector_nonce,
        };
        Ok(SoftEndpoint::accepted(&core, token, link, event)?)
    }

    fn reject(self: Box<Self>) {}

    fn turn_away(mut self: Box<Self>) {
        if let Some((socket, _)) = self.open.take() {
            say(&socket, Message::Unable);
        }
    }
}

impl Drop for SoftRequest {
    fn drop(&mut self) {
        if let Some((socket, _)) = &self.open {
            say(socket, Message::Reject);
        }
    }
}

/// Sends the last message of a rendezvous. The peer may be gone; then it needs none.
fn say(socket: &OwnedFd, message: Message) {
    drop(sys::send_message(socket.as_fd(), &message.to_bytes(), &[]));
}

/// The process whose memory this side may reach by itself, `Some(None)` if it may not, and `None`
/// if it must and cannot.
fn may_go_direct(core: &Core, peer: &Introduction, pid: i32) -> Option<Option<i32>> {
    let wanted = core.options.rdma != Rdma::Pipelined && peer.permits_direct;
    let holds = wanted && pid > 0 && region::holds_proof(pid, peer.proof_at, peer.proof);
    let found = holds.then_some(pid);
    if found.is_none() && core.options.rdma == Rdma::Direct {
        None
    } else {
        Some(found)
    }
}

// ---- the connecting side -----------------------------------------------------------------

/// A connect that has not succeeded yet.
#[derive(Debug)]
pub(super) struct Attempt {
    from: SocketAddr,
    to: SocketAddr,
    deadline: Instant,
    /// `None` while the listener's queue is full.
    socket: Option<OwnedFd>,
}

/// How an attempt stands.
pub(super) enum Step {
    /// Look again when the socket is ready, or at this time.
    Wait(Instant),
    Connected(Box<Link>),
    Failed(ConnectError),
}

pub(super) fn connect(
    core: &Arc<Core>,
    token: Token,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<Arc<dyn Endpoint>, ConnectError> {
    if from.is_ipv4() != to.is_ipv4() {
        return Err(ConnectError::AddressNotAvailable);
    }
    let from = if from.ip().is_unspecified() {
        // What the host itself would choose for one of its own addresses.
        SocketAddr::new(to.ip(), from.port())
    } else if directory::is_local(from.ip()) {
        from
    } else {
        return Err(ConnectError::AddressNotAvailable);
    };
    let deadline = Instant::now() + core.options.connect_time;
    let attempt = Attempt {
        from,
        to,
        deadline,
        socket: None,
    };
    Ok(SoftEndpoint::connecting(core, token, attempt)?)
}

/// What became of a look for a listener.
enum Found {
    Socket(OwnedFd),
    Full,
    Nobody,
}

impl Attempt {
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Gives the attempt up: the listener sees the end of the connection.
    pub(super) fn abandon(&mut self, core: &Core, id: u64) {
        if let Some(socket) = self.socket.take() {
            core.unwatch(id, socket.as_fd());
            sys::shut_down(socket.as_fd());
        } else {
            drop(core.forget(id));
        }
    }

    /// Looks for the listener and says hello to it.
    pub(super) fn begin(&mut self, core: &Core, event: &OwnedFd) -> Step {
        if !directory::is_local(self.to.ip()) {
            return Step::Failed(ConnectError::NotServed);
        }
        for name in directory::names_for(sys::user(), self.to) {
            match find(&name) {
                Found::Socket(socket) => {
                    let hello = Message::Hello {
                        who: core.introduction(),
                        from: self.from,
                        to: self.to,
                    };
                    let sent =
                        sys::send_message(socket.as_fd(), &hello.to_bytes(), &[event.as_fd()]);
                    if sent.is_err() {
                        continue;
                    }
                    self.socket = Some(socket);
                    return Step::Wait(self.deadline);
                }
                Found::Full => return Step::Wait(Instant::now() + RETRY),
                Found::Nobody => {}
            }
        }
        Step::Failed(self.nobody())
    }

    /// Which way of finding nobody this is: only if TCP finds nobody either is that final.
    fn nobody(&self) -> ConnectError {
        if directory::tcp_listens(self.to) {
            ConnectError::NotServed
        } else {
            ConnectError::NobodyListens
        }
    }

    pub(super) fn tick(&mut self, core: &Core, event: &OwnedFd, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::Failed(ConnectError::TimedOut);
        }
        if self.socket.is_none() {
            self.begin(core, event)
        } else {
            Step::Wait(self.deadline)
        }
    }

    /// Takes the listener's answer.
    pub(super) fn ready(&mut self, core: &Arc<Core>) -> Step {
        let Some(socket) = &self.socket else {
            return Step::Wait(self.deadline);
        };
        let mut bytes = [0; wire::LEN];
        let mut received = sys::receive_message(socket.as_fd(), &mut bytes);
        if matches!(&received, Err(error) if error.kind() == io::ErrorKind::ConnectionReset) {
            // The listener closed with something unread; what it said stands behind that.
            received = sys::receive_message(socket.as_fd(), &mut bytes);
        }
        let received = match received {
            Ok(received) if received.len > 0 => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Step::Wait(self.deadline);
            }
            // The listener went without an answer.
            Ok(_) | Err(_) => return Step::Failed(self.nobody()),
        };
        match bytes.get(..received.len).map(Message::parse) {
            Some(Ok(Message::Accept {
                who,
                ring_size,
                acceptor_nonce,
                connector_nonce,
            })) if !received.truncated => {
                let mut descriptors = received.descriptors.into_iter();
                let (Some(file), Some(peer_event), None) =
                    (descriptors.next(), descriptors.next(), descriptors.next())
                else {
                    return Step::Failed(ConnectError::NotServed);
                };
                match self.join(core, &who, ring_size, &file, &peer_event) {
                    Ok((segment, peer)) => match self.socket.take() {
                        Some(socket) => Step::Connected(Box::new(Link {
                            segment,
                            socket,
                            peer_event,
                            pid: peer.pid,
                            process: Process::of_peer(core, peer.known),
                            direct: AtomicBool::new(peer.direct),
                            own_nonce: connector_nonce,
                            peer_nonce: acceptor_nonce,
                        })),
                        None => Step::Failed(ConnectError::NotServed),
                    },
                    Err(error) => Step::Failed(error),
                }
            }
            Some(Ok(Message::Reject)) => Step::Failed(ConnectError::Refused),
            _ => Step::Failed(ConnectError::NotServed),
        }
    }

    fn join(
        &self,
        core: &Core,
        who: &Introduction,
        ring_size: u64,
        file: &OwnedFd,
        peer_event: &OwnedFd,
    ) -> Result<(Segment, PeerProcess), ConnectError> {
        let size = usize::try_from(ring_size).map_err(|_| ConnectError::NotServed)?;
        if core.options.max_message.saturating_mul(2) > size || !sys::is_event(peer_event.as_fd()) {
            return Err(ConnectError::NotServed);
        }
        let segment = Segment::join(file.as_fd(), size).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ConnectError::NotServed,
            _ => ConnectError::NoResources,
        })?;
        // The kernel names the process that began to listen. After a fork another one accepts, whose
        // word alone does not do: it could name this process, whose memory this process may reach.
        let kernel = self
            .socket
            .as_ref()
            .and_then(|socket| sys::peer(socket.as_fd()).ok());
        let said = i32::try_from(who.pid).unwrap_or(0);
        let kernel = kernel.map_or(0, |peer| peer.pid);
        let direct = may_go_direct(core, who, kernel).ok_or(ConnectError::NotServed)?;
        let process = PeerProcess {
            pid: direct.unwrap_or(said),
            direct: direct.is_some(),
            known: direct.unwrap_or(if kernel == said { said } else { 0 }),
        };
        Ok((segment, process))
    }
}

/// The process behind a listener.
struct PeerProcess {
    pid: i32,
    direct: bool,
    /// Its number as far as it is certain, or 0.
    known: i32,
}

fn find(name: &str) -> Found {
    match sys::connect_to(name) {
        // A name of another user's making is as good as none, and so is one that a child holds
        // since its parent, who listened, is gone.
        Ok(socket) => match sys::peer(socket.as_fd()) {
            Ok(peer) if peer.user == sys::user() && !Process::is_certainly_gone(peer.pid) => {
                Found::Socket(socket)
            }
            _ => Found::Nobody,
        },
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Found::Full,
        Err(_) => Found::Nobody,
    }
}
