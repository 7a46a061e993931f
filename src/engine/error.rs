//! What can go wrong, one enum per family of operations. No code of the interface: `spi::codes` maps
//! these to them.

use thiserror::Error;

pub(crate) use crate::fabric::{ConnectError as ConnectFailure, Ending};

/// The provider cannot be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("the fabric {name} is not available: {reason}")]
    FabricAbsent { name: &'static str, reason: String },
}

/// The socket is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum LookupError {
    #[error("no such socket")]
    NoSuchSocket,
    #[error("the provider is not started")]
    NotStarted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum SocketError {
    #[error("the switch gave no socket: code {0}")]
    NoSwitchSocket(i32),
    #[error("no more sockets")]
    NoResources,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum BindError {
    #[error("the socket is already bound")]
    AlreadyBound,
    #[error("the address is not one of this host's")]
    ForeignAddress,
    #[error("the address is of another family than the socket")]
    WrongFamily,
    #[error("the socket is closed")]
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum ListenError {
    #[error("the socket is not bound to an address and port")]
    NotBound,
    #[error("the socket is connected or connecting")]
    Connected,
    #[error("the address is not one of this host's")]
    AddressNotAvailable,
    #[error("no resources, or another listener has the address")]
    NoResources,
    #[error("the socket is closed")]
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the socket is not bound")]
    NotBound,
    #[error("the socket listens")]
    Listening,
    #[error("a connect is already in progress")]
    InProgress,
    #[error("the socket is connected")]
    Connected,
    #[error("the destination is of another family than the socket")]
    WrongFamily,
    #[error("the destination has no address or port")]
    NoDestination,
    #[error("the socket is bound to a wildcard address")]
    Wildcard,
    #[error("the fabric: {0}")]
    Failed(ConnectFailure),
    #[error("no resources")]
    NoResources,
    #[error("the socket is closed")]
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum AcceptError {
    #[error("the socket does not listen")]
    NotListening,
    #[error("no request waits")]
    Empty,
    #[error("the peer gave up")]
    Gone,
    #[error("the request was rejected")]
    Rejected,
    #[error("the decision was deferred")]
    Deferred,
    #[error("the decision is none that is known")]
    IllegalVerdict,
    #[error("the listener was closed")]
    Closed,
    #[error("the switch gave no socket: code {0}")]
    NoSwitchSocket(i32),
    #[error("no resources")]
    NoResources,
}

/// Why an operation was not started, or how one that had to wait failed before it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum TransferError {
    #[error("the socket is not connected")]
    NotConnected,
    #[error("the memory is not registered for this use")]
    NotRegistered,
    #[error("no such registration on this socket")]
    UnknownRegistration,
    #[error("larger than one operation may be")]
    TooLarge,
    #[error("too many pieces, or none")]
    BadPieces,
    #[error("the descriptor is malformed, or does not permit this")]
    BadDescriptor,
    #[error("the fabric does not do this")]
    Unsupported,
    #[error("too many operations are in progress")]
    QueueFull,
    #[error("the connection ended: {0:?}")]
    Ended(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum MemoryError {
    #[error("the socket is not connected")]
    NotConnected,
    #[error("the region is not wholly in the address space of this process")]
    BadRegion,
    #[error("no resources")]
    NoResources,
    #[error("no such registration on this socket")]
    Unknown,
    #[error("a transfer still uses the registration")]
    InUse,
}

/// Why progress was not taken over, or not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProgressError {
    #[error("the provider is not started")]
    NotStarted,
    #[error("somebody makes progress already")]
    Taken,
    #[error("progress was not taken over")]
    NotTaken,
    #[error("progress is being made")]
    Busy,
    #[error("no descriptor")]
    NoResources,
}
