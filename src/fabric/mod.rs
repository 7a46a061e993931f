//! What carries the bytes: the two traits a fabric implements, and the data that crosses them.
//!
//! A fabric moves messages and does RDMA between two connected endpoints. It knows no WSA code,
//! no upcall and no C type. Everything is data in and data out; nothing here calls back. The
//! engine above drives it: it posts, it polls, it arms and sleeps.
//!
//! Rules that hold for every fabric:
//!
//! * An accepted [`Endpoint::post`] ends exactly once: at once ([`Posted::Done`]) or by exactly one
//!   [`Completion`] from [`Endpoint::poll`], also when the endpoint dies.
//! * Sends arrive in posting order, one message in one posted receive, receives are filled in
//!   posting order. A message for which no receive is posted waits; it is never dropped.
//! * Data of a write posted before a send is in the peer's memory before that send is delivered. A
//!   send posted after a read does not reach the peer before the read has taken its data.
//! * Nothing but the completed operations of a dead endpoint changes memory after it died.

pub(crate) mod both;
#[cfg(any(test, feature = "testing"))]
// What is driven by a handle is used by tests only.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod fault;
#[cfg(any(test, feature = "verbs"))]
pub(crate) mod regcache;
pub(crate) mod soft;
pub(crate) mod verbs;

// A lock for what every message takes and nearly nobody contends.
pub(crate) use soft::{QuickGuard, QuickMutex};

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The fabric as it is, or in a build for tests the fabric that fails as `WSD_FAULT` says.
pub(crate) fn with_faults(fabric: Arc<dyn Fabric>) -> std::io::Result<Arc<dyn Fabric>> {
    #[cfg(feature = "testing")]
    return fault::from_environment(fabric);
    #[cfg(not(feature = "testing"))]
    Ok(fabric)
}

/// Names an engine object (socket or listener) in events. Chosen by the engine, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Token(pub(crate) u64);

/// Names one posted operation; chosen by the engine, unique among the pending ones of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OpId(pub(crate) u64);

/// A registration of one endpoint. Carries a generation: a stale key is answered, not followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(pub(crate) u64);

bitflags::bitflags! {
    /// What may be done with registered memory. For `register`: what the fabric itself does to it
    /// (READ = source of sends and writes, WRITE = target of receives and reads). For `expose`:
    /// what the peer may do.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub(crate) struct Access: u8 {
        const READ = 1;
        const WRITE = 2;
    }
}

/// A span of this process's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    pub(crate) base: usize,
    pub(crate) len: usize,
}

/// Part of a registered region. `offset + len` is checked against the registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) key: Key,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// What a fabric can do; every value is true for every endpoint of the fabric.
#[derive(Clone, Debug)]
pub(crate) struct Caps {
    /// Largest message of one send, in bytes.
    pub(crate) max_message: usize,
    /// Largest single read or write; the engine splits above it.
    pub(crate) max_rdma: usize,
    /// Transfers above this many bytes are better moved by RDMA than by messages.
    pub(crate) rdma_threshold: usize,
    /// Whether `Post::Read` is served.
    pub(crate) rdma_read: bool,
    /// Most pieces in one post of any kind.
    pub(crate) max_pieces: usize,
    /// Sends, reads and writes that may be pending on one endpoint.
    pub(crate) send_depth: usize,
    /// Receives that may be pending on one endpoint.
    pub(crate) receive_depth: usize,
    /// Length of every descriptor made by `expose`.
    pub(crate) descriptor_len: usize,
}

/// One operation to start.
#[derive(Debug)]
pub(crate) enum Post<'a> {
    Send {
        op: OpId,
        pieces: &'a [Piece],
    },
    Receive {
        op: OpId,
        pieces: &'a [Piece],
    },
    /// Local pieces, gathered in order, to `offset` of the peer's region named by `remote`.
    Write {
        op: OpId,
        pieces: &'a [Piece],
        remote: &'a [u8],
        offset: u64,
    },
    /// `offset` of the peer's region named by `remote`, into the local pieces in order.
    Read {
        op: OpId,
        pieces: &'a [Piece],
        remote: &'a [u8],
        offset: u64,
    },
}

/// How an accepted post stands when `post` returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Posted {
    /// Exactly one `Completion` will follow.
    Pending,
    /// Already finished with this many bytes; no `Completion` follows.
    Done(usize),
}

/// Why a post was not accepted. Nothing was started and no completion follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("the queue is full")]
    Full,
    #[error("the endpoint is not connected")]
    NotConnected,
    #[error("the connection ended: {0:?}")]
    Ended(Ending),
    #[error("a local piece lies outside its registration or the registration is unknown")]
    BadPiece,
    #[error("the registration does not permit this use")]
    Rights,
    #[error("the message is larger than the fabric carries")]
    TooLarge,
    #[error("too many pieces")]
    TooManyPieces,
    #[error("the remote descriptor is malformed, or does not permit this access")]
    BadDescriptor,
    #[error("the fabric does not read")]
    Unsupported,
}

/// How one pending operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Moved this many bytes.
    Done(usize),
    /// The message was larger than the posted receive; the message is lost and the connection ends.
    Truncated,
    /// The remote memory could not be reached as asked (bounds, rights, revoked, foreign). No byte
    /// of the remote memory changed. The connection ends.
    RemoteAccess,
    /// Flushed because the endpoint ended.
    Flushed(Ending),
}

/// Why an endpoint ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Ending {
    /// This side called `disconnect`.
    Local,
    /// The peer disconnected or its process died.
    Peer,
    /// The peer broke the rules of the fabric, or an access failed.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Completion {
    pub(crate) op: OpId,
    pub(crate) outcome: Outcome,
}

/// What happened at connection level. Drained by `Fabric::poll`.
pub(crate) enum Event {
    /// Somebody asks to connect to a listener. Dropping the request refuses it.
    Request {
        listener: Token,
        request: Box<dyn Request>,
    },
    /// A connect has succeeded; its endpoint may now be posted to.
    Connected { endpoint: Token },
    /// A connect has failed; its endpoint is dead.
    ConnectFailed {
        endpoint: Token,
        error: ConnectError,
    },
    /// An endpoint armed with `ArmFor::Progress` has something to poll. It is disarmed now.
    Ready { endpoint: Token },
    /// An endpoint ended; poll it for its flushed operations. Sent exactly once per connected
    /// endpoint that ended otherwise than by its own `disconnect`.
    Ended { endpoint: Token, ending: Ending },
    /// The local addresses changed.
    AddressesChanged,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nothing listens there, over TCP neither.
    #[error("nothing listens at the destination")]
    NobodyListens,
    /// The listener refused (full backlog, rejected request).
    #[error("the listener refused")]
    Refused,
    /// The destination does not exist, for TCP neither.
    #[error("the destination cannot be reached")]
    #[allow(dead_code)] // what is served by the embedded SAN is always there
    Unreachable,
    /// This fabric cannot serve the destination, or cannot tell; TCP may well succeed.
    #[error("the destination is not served by this fabric")]
    NotServed,
    #[error("no answer in time")]
    TimedOut,
    #[error("the local address is not one of this host's")]
    AddressNotAvailable,
    #[error("no resources")]
    NoResources,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("the address is not one of this host's")]
    AddressNotAvailable,
    #[error("another listener has the address")]
    AddressInUse,
    #[error("no resources")]
    NoResources,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the region is not wholly in the address space of this process")]
    BadRegion,
    #[error("no resources")]
    NoResources,
    #[error("the endpoint is not connected")]
    NotConnected,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DeregisterError {
    #[error("no such registration")]
    Unknown,
    #[error("a transfer still uses the registration")]
    InUse,
}

/// What became of the registrations of memory that goes back to the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
// Constructed by fabrics that keep registrations, of which a build may have none.
#[allow(dead_code)]
pub(crate) enum Released {
    /// Nothing of it is registered by the fabric.
    NotKept,
    /// All of them have ended.
    Ended,
    /// None will be used for anything new, but some are in use and end with their last use.
    InUse,
}

/// Who sleeps after arming.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArmFor {
    /// A thread that waits on `Endpoint::readiness`.
    Waiter,
    /// The progress thread: readiness is reported as `Event::Ready`.
    Progress,
}

/// A fabric: where endpoints come from.
pub(crate) trait Fabric: Send + Sync {
    /// "soft" or "verbs".
    fn name(&self) -> &'static str;
    fn caps(&self) -> Caps;
    /// The local addresses this fabric serves, asked anew each time.
    fn addresses(&self) -> Vec<IpAddr>;
    /// Starts to take requests for `at` (a wildcard address takes all of the family; `[::]` is for
    /// IPv6 only). Requests come as `Event::Request`. Dropping the listener stops it and refuses
    /// what was not yet reported.
    fn listen(&self, listener: Token, at: SocketAddr) -> Result<Box<dyn Listener>, ListenError>;
    /// Starts to connect and returns at once; the outcome comes as an event. Dropping the last
    /// reference, or `disconnect`, abandons the attempt.
    fn connect(
        &self,
        endpoint: Token,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn Endpoint>, ConnectError>;
    /// Moves out what happened since the last call. Called by one thread at a time; never blocks.
    fn poll(&self, events: &mut Vec<Event>);
    /// Readable when `poll` would yield something.
    fn readiness(&self) -> BorrowedFd<'_>;
    /// Whether registrations are kept beyond `deregister`, so that `memory_released` has a meaning.
    fn keeps_registrations(&self) -> bool {
        false
    }
    /// The process is about to give memory back to the system. No registration of it, also of a
    /// part, is used for anything that is registered from now on.
    fn memory_released(&self, _region: Region) -> Released {
        Released::NotKept
    }
}

/// Holds a listening address; dropping it stops listening.
pub(crate) trait Listener: Send + Sync + fmt::Debug {}

/// A connection request that nobody has answered yet. The peer is told nothing before `accept` or
/// `reject`; dropping it rejects.
pub(crate) trait Request: Send {
    fn local(&self) -> SocketAddr;
    fn peer(&self) -> SocketAddr;
    /// Whether the peer has given up meanwhile.
    fn is_gone(&self) -> bool;
    /// The endpoint is connected when this returns.
    fn accept(self: Box<Self>, endpoint: Token) -> Result<Arc<dyn Endpoint>, ConnectError>;
    /// Somebody does not want the connection: the peer learns `ConnectError::Refused`.
    fn reject(self: Box<Self>);
    /// There is no room for it on this fabric: the peer learns `ConnectError::NotServed`, and may
    /// try TCP.
    fn turn_away(self: Box<Self>);
}

/// One connection. All methods may be called from any thread at any time.
pub(crate) trait Endpoint: Send + Sync {
    /// Registers memory for local use on this endpoint.
    ///
    /// # Safety
    /// The caller promises that the region stays mapped until `deregister` has succeeded or the
    /// endpoint is dropped, and that it is not used in conflict with the operations posted on it.
    #[allow(unsafe_code)] // a promise of the caller
    unsafe fn register(&self, region: Region, access: Access) -> Result<Key, RegisterError>;
    fn deregister(&self, key: Key) -> Result<(), DeregisterError>;
    /// Lets the peer of this connection reach memory by RDMA and writes the descriptor that names
    /// it (`Caps::descriptor_len` bytes) into `descriptor`.
    ///
    /// # Safety
    /// As for `register`, until `conceal` has succeeded or the endpoint is dropped.
    #[allow(unsafe_code)] // a promise of the caller
    unsafe fn expose(
        &self,
        region: Region,
        access: Access,
        descriptor: &mut [u8],
    ) -> Result<Key, RegisterError>;
    /// Ends the exposure: when this returns `Ok` the peer can no longer reach the memory.
    fn conceal(&self, key: Key) -> Result<(), DeregisterError>;
    /// Starts one operation. Memory named by the pieces stays in use until it has ended.
    fn post(&self, post: Post<'_>) -> Result<Posted, PostError>;
    /// Makes progress and appends what completed, in order per kind. Cheap when nothing happened.
    fn poll(&self, completions: &mut Vec<Completion>);
    /// Asks for a wake-up: `true` if there is nothing to poll now and `readiness` (or
    /// `Event::Ready`) will tell of the next completion or of the end; `false` if there is
    /// something to poll now (then nothing is armed). Clears an earlier wake-up of `readiness`.
    /// Only the one thread that is going to sleep may arm.
    fn arm(&self, whom: ArmFor) -> bool;
    /// Readable from the wake-up that `arm` asked for until the next `arm`. Polling does not
    /// clear it, so that a sleeper cannot lose its wake-up to another thread that polls.
    fn readiness(&self) -> BorrowedFd<'_>;
    /// Ends the connection at once. Pending operations are flushed with `Ending::Local` by `poll`;
    /// messages whose send has completed are still delivered to the peer before it sees the end.
    fn disconnect(&self);
    fn ending(&self) -> Option<Ending>;
    /// Whether everything that was posted goes on without anybody polling, as with a device.
    fn goes_on_alone(&self) -> bool {
        false
    }
    /// For people: which path carries RDMA, for instance "direct" or "pipelined".
    fn rdma_path(&self) -> &'static str;
    /// Whether the peer of an accepted connection is known to have it. Messages may wait for that,
    /// as long as nobody polls the fabric.
    #[cfg(test)]
    fn has_heard_of_peer(&self) -> bool {
        true
    }
}
