//! A connection over the SAN: the session protocol driven over a provider's socket, as a byte
//! stream with the behaviour of a TCP socket.
//!
//! What each file owns: [`drive`] the session and what it wants done; [`pool`] the control buffers;
//! [`inbox`], [`fifo`], [`urgent`] what has arrived; [`outbox`] what waits to leave; [`transfer`] the memory
//! of large transfers; [`read`] and [`mod@write`] the two directions as the application sees them;
//! [`close`] the end; [`wait`] how a thread waits, [`trials`] whether without
//! sleeping, [`watch`] for several connections at once,
//! [`outside`] by ways of its own;
//! [`readiness`] the descriptors to poll;
//! [`keep`] what a lost connection leaves;
//! [`mod@companion`] a stream that comes from elsewhere and may go back there;
//! [`service`] what goes on while nobody is in a call; [`negotiate`] the beginning; [`stats`] what
//! is counted.
//!
//! Invariant: all state of a connection is behind its one lock; nothing sleeps while holding it.

mod close;
mod companion;
mod drive;
mod fetch;
mod fifo;
mod gather;
mod inbox;
mod keep;
mod negotiate;
mod outbox;
mod outside;
mod pool;
mod progress;
mod read;
mod readiness;
mod service;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod trials;
mod tune;
mod turn;
mod urgent;
mod wait;
mod watch;
mod write;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use wsd_proto::{Failure, Role, SendError, SendFailure, Session};

use drive::{Limits, State};
use outside::Outside;
use pool::Pool;
use readiness::Descriptors;
use stats::Counts;
use tune::tuning;
use wait::Upcall;

use crate::lent::Notice;
use crate::observe::Slot;
use crate::options::{SendPolicy, StreamOptions};
use crate::socket::SanSocket;
use crate::sys::Event;

pub(crate) use companion::{Enlisted, Given, News, Observer, Sleep, Zeal};
pub(crate) use keep::Kept;
pub(crate) use readiness::Direction;
pub(crate) use service::{
    Chores, Lingering, employ, flush_at_end, forget_lingering, kick, make_progress,
};
pub use stats::Stats;
pub use trials::Trials;
pub(crate) use wait::{Manner, Patience, own_event};
pub(crate) use watch::Watching;

/// Small sends that may wait for credit, in bytes: enough to merge what a peer that is busy for a
/// moment does not take, little enough to hold for each connection.
const OUTBOX: usize = 256 << 10;

/// A connection over the SAN.
pub(crate) struct Connection {
    me: Weak<Connection>,
    /// Guards all that changes. Held while the provider is called, never while a thread sleeps; no
    /// other lock of the switch is taken under it but those of the service thread's list, of unused
    /// memory and of the socket's list of registrations, which are taken last.
    state: Mutex<State>,
    socket: SanSocket,
    peer: SocketAddr,
    /// Threads that want the lock while another one spins.
    wanted: AtomicU32,
    trials: Trials,
    counts: Counts,
    /// Only for a provider that cannot be armed.
    upcall: Option<Arc<Upcall>>,
    descriptors: Descriptors,
    outside: Outside,
    /// The service thread looks after it, or has been asked to.
    adopted: AtomicBool,
    /// The service thread is to look at it although nothing seems due.
    hurry: AtomicBool,
    policy: SendPolicy,
    /// Stands in for `descriptors` where one cannot be made.
    always: &'static Event,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Takes a connected socket: posts its receives and says the first word if that is due.
    fn new(
        socket: SanSocket,
        options: &StreamOptions,
        role: Role,
        time: Duration,
    ) -> io::Result<Arc<Connection>> {
        Connection::with(socket, options, role, time, |_| ())
    }

    fn with(
        socket: SanSocket,
        options: &StreamOptions,
        role: Role,
        time: Duration,
        adjust: impl FnOnce(&mut wsd_proto::Config),
    ) -> io::Result<Arc<Connection>> {
        let peer = socket.peer_addr().ok_or(io::ErrorKind::NotConnected)?;
        let mut config = negotiate::config(&socket, options, time)?;
        adjust(&mut config);
        let size = usize::try_from(config.receive_buffer_size).unwrap_or(usize::MAX);
        let pool = Pool::new(&socket, size, tuning().control_buffers)?;
        let session = begin(role, config.clone())?;
        let upcall = match socket.notice() {
            Notice::Poll => None,
            Notice::Upcall => {
                let upcall = Upcall::new()?;
                socket.set_waker(Arc::clone(&upcall) as _);
                Some(upcall)
            }
        };
        let limits = Limits {
            outbox: OUTBOX.min(options.send_buffer),
            copies: options.send_buffer,
        };
        let always = readiness::always()?;
        let connection = Arc::new_cyclic(|me| Connection {
            me: me.clone(),
            state: Mutex::new(State::new(session, pool, limits)),
            socket,
            peer,
            wanted: AtomicU32::new(0),
            trials: Trials::new(),
            counts: Counts::default(),
            upcall,
            descriptors: Descriptors::default(),
            outside: Outside::default(),
            adopted: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            policy: options.policy,
            always,
        });
        let mut state = connection.lock();
        // req: WSD-19 the receives are posted before the session says how many there are
        let posted = state.start(&connection.socket)?;
        if let Some(fewer) = negotiate::with_queue(config, posted)? {
            state.session = begin(role, fewer)?;
        }
        state.drain(&connection.socket, None);
        drop(state);
        Ok(connection)
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn provider_name(&self) -> &str {
        self.socket.provider().name()
    }

    /// From now on others see it in this slot.
    pub(crate) fn observe(&self, slot: Arc<Slot>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.meter.attach(slot, &state.session);
        self.leave(guard);
    }

    // ---- what the application sets

    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.lock().settings.nonblocking = on;
    }

    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.lock().settings.read_timeout
    }

    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.lock().settings.read_timeout = checked(time)?;
        Ok(())
    }

    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.lock().settings.write_timeout
    }

    pub(crate) fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.lock().settings.write_timeout = checked(time)?;
        Ok(())
    }

    pub(crate) fn linger(&self) -> Option<Duration> {
        self.lock().settings.linger
    }

    pub(crate) fn set_linger(&self, time: Option<Duration>) {
        self.lock().settings.linger = time;
    }

    /// Why the connection failed; told once.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        let mut state = self.lock();
        while state.poll(&self.socket, None) {}
        let error = state
            .session
            .failure()
            .filter(|_| !state.settings.error_taken);
        state.settings.error_taken |= error.is_some();
        self.leave(state);
        error.map(failure)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let socket = &self.socket;
        self.state.get_mut().disconnect(socket);
    }
}

/// How long a thread may spin before it sleeps.
pub(crate) fn spin_time() -> Duration {
    tuning().spin
}

/// Reads what the environment says about connections, if nobody has yet.
pub(crate) fn read_environment() {
    tuning();
}

fn begin(role: Role, config: wsd_proto::Config) -> io::Result<Session> {
    Session::new(role, config, wsd_proto::Instant::ZERO)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// std's sockets refuse a time-out of zero, too.
fn checked(time: Option<Duration>) -> io::Result<Option<Duration>> {
    match time {
        Some(Duration::ZERO) => Err(io::ErrorKind::InvalidInput.into()),
        time => Ok(time),
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// A failed session, as TCP would tell of it where TCP knows the like.
pub(crate) fn failure(failure: Failure) -> io::Error {
    match failure {
        Failure::Disconnected | Failure::Reset(_) | Failure::NoSuchConnection => {
            errno(libc::ECONNRESET)
        }
        Failure::Aborted => errno(libc::ECONNABORTED),
        Failure::NegotiationTimedOut | Failure::KeepAliveTimedOut => errno(libc::ETIMEDOUT),
        Failure::Protocol(_) | Failure::RdmaFailed => {
            io::Error::new(io::ErrorKind::ConnectionAborted, failure)
        }
        Failure::VersionMismatch => io::Error::new(io::ErrorKind::Unsupported, failure),
    }
}

fn refused(error: SendError) -> io::Error {
    match error {
        // req: WSAESHUTDOWN and WSAECONNRESET as TCP has them
        SendError::Shutdown | SendError::Suspended => errno(libc::EPIPE),
        SendError::PeerClosed => errno(libc::ECONNRESET),
        SendError::Failed(reason) => failure(reason),
        SendError::Unsupported => errno(libc::EOPNOTSUPP),
        SendError::Full | SendError::TooLong => wait::would_block(),
    }
}

fn unsent(error: SendFailure) -> io::Error {
    match error {
        // req: SEED-10 WSD-21 WSAENOBUFS; the connection lives
        SendFailure::NoBuffers => errno(libc::ENOBUFS),
        SendFailure::PeerClosed => errno(libc::ECONNRESET),
        SendFailure::Failed(reason) => failure(reason),
    }
}
