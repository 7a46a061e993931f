//! Everything that can go wrong, one type per question.

use core::fmt;

/// The driver could not register or allocate memory (WSAENOBUFS).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NoBuffers;

/// An RDMA operation did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RdmaFailed;

/// Why a session cannot be made from a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfigError {
    /// A version that there is not.
    NoSuchVersion,
    /// Fewer receive buffers than the credit rules need.
    TooFewReceives,
    /// More receive buffers than a side may state.
    TooManyReceives,
    /// Receive buffers or messages smaller than the largest message without application data.
    BufferTooSmall,
    /// No send buffer at all, or no room for a single send.
    NoSends,
    /// A descriptor longer than the protocol carries.
    DescriptorTooLong,
}

/// Why a send was not accepted. Nothing of it will leave, no completion follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendError {
    /// As many sends are queued as the configuration permits.
    Full,
    /// Longer than one send may be.
    TooLong,
    /// This side has shut down sending.
    Shutdown,
    /// This side has suspended sending.
    Suspended,
    /// The peer does not receive any more.
    PeerClosed,
    /// The peer does not take urgent data, or cannot be suspended.
    Unsupported,
    /// The connection has failed.
    Failed(Failure),
}

/// Why an accepted send did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendFailure {
    /// Its memory could not be registered; nothing of it has left, the connection lives.
    NoBuffers,
    /// The peer does not receive any more.
    PeerClosed,
    /// The connection has failed.
    Failed(Failure),
}

/// Why a pull was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PullError {
    /// The next bytes of the stream are not with the peer, or none are wanted.
    NothingRemote,
    /// Another fetch is being prepared.
    Busy,
}

/// Why an accepted pull did not succeed. No byte of it counts as consumed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PullFailure {
    /// The application's memory could not be registered; the data is still with the peer.
    NoBuffers,
    /// The connection has failed.
    Failed(Failure),
}

/// Why a session is over other than by a graceful close.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The connection was lost without a Shutdown.
    Disconnected,
    /// The peer sent a Reset.
    Reset(ResetReason),
    /// This side aborted.
    Aborted,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// There is no version that both sides speak.
    VersionMismatch,
    /// The negotiation did not end in time.
    NegotiationTimedOut,
    /// The peer gave no sign of life in time.
    KeepAliveTimedOut,
    /// An RDMA operation failed.
    RdmaFailed,
    /// The peer's offer speaks of a connection that is not here, or of none where one is needed.
    NoSuchConnection,
}

/// What a Reset says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResetReason {
    /// The application aborted.
    Aborted,
    /// The receiver of the Reset broke the protocol.
    ProtocolError,
    /// No common version.
    VersionMismatch,
    /// No sign of life.
    KeepAlive,
    /// No resources to go on.
    NoResources,
    /// An RDMA operation failed.
    RdmaFailed,
    /// There is no connection that the session could be the companion of.
    NoSuchConnection,
    /// A reason this version does not know.
    Other(u16),
}

impl ResetReason {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Aborted => 1,
            Self::ProtocolError => 2,
            Self::VersionMismatch => 3,
            Self::KeepAlive => 4,
            Self::NoResources => 5,
            Self::RdmaFailed => 6,
            Self::NoSuchConnection => 7,
            Self::Other(code) => code,
        }
    }

    /// The reason of a number.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Aborted,
            2 => Self::ProtocolError,
            3 => Self::VersionMismatch,
            4 => Self::KeepAlive,
            5 => Self::NoResources,
            6 => Self::RdmaFailed,
            7 => Self::NoSuchConnection,
            other => Self::Other(other),
        }
    }
}

/// The rule that a message of the peer broke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProtocolError {
    /// Shorter than a header, or its length and its fields differ.
    Length,
    /// Not a message of this protocol.
    Magic,
    /// A type nobody has defined.
    Type(u8),
    /// A version that was not agreed upon.
    Version(u8),
    /// A flag that is not defined for the type, or none where one is needed.
    Flags,
    /// A field or byte that must be zero is not.
    NonZero,
    /// A descriptor where none belongs, or none where one belongs, or one that is too long.
    Descriptor,
    /// A part of a transfer that does not lie where it must.
    Range,
    /// A transfer that does not exist or is in another state.
    Transfer,
    /// More large transfers at once than agreed upon.
    TooManyTransfers,
    /// A type that may not come now.
    Unexpected,
    /// A position in the stream other than the next one.
    Offset,
    /// A message without credit for it, or more data than its credit permits.
    Credit,
    /// More credit than receive buffers.
    CreditGrant,
    /// Data after the end of the stream.
    AfterShutdown,
    /// Nonsense in the negotiation.
    Negotiation,
    /// The answer belongs to another session.
    SessionId,
    /// The answer belongs to another connection.
    Companion,
}

macro_rules! say {
    ($type:ty { $($pattern:pat => $text:expr),+ $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $($pattern => f.write_str($text)),+ }
            }
        }
        impl core::error::Error for $type {}
    };
}

say!(NoBuffers { Self => "memory could not be registered or allocated" });
say!(RdmaFailed { Self => "an RDMA operation failed" });
say!(ConfigError {
    Self::NoSuchVersion => "there is no such version",
    Self::TooFewReceives => "too few receive buffers",
    Self::TooManyReceives => "too many receive buffers",
    Self::BufferTooSmall => "receive buffers or messages are too small",
    Self::NoSends => "no send buffer, or no room for a send",
    Self::DescriptorTooLong => "descriptors are too long",
});
say!(PullError {
    Self::NothingRemote => "the next bytes are not with the peer",
    Self::Busy => "another fetch is being prepared",
});
say!(ResetReason {
    Self::Aborted => "aborted by the application",
    Self::ProtocolError => "protocol error",
    Self::VersionMismatch => "no common version",
    Self::KeepAlive => "no sign of life",
    Self::NoResources => "no resources",
    Self::RdmaFailed => "an RDMA operation failed",
    Self::NoSuchConnection => "no such connection",
    Self::Other(_) => "unknown reason",
});
say!(ProtocolError {
    Self::Length => "the length of a message does not fit its fields",
    Self::Magic => "not a message of this protocol",
    Self::Type(_) => "unknown message type",
    Self::Version(_) => "a version that was not agreed upon",
    Self::Flags => "invalid flags",
    Self::NonZero => "a field that must be zero is not",
    Self::Descriptor => "invalid descriptor",
    Self::Range => "invalid part of a transfer",
    Self::Transfer => "unknown transfer, or one in another state",
    Self::TooManyTransfers => "too many large transfers at once",
    Self::Unexpected => "a message that may not come now",
    Self::Offset => "not the next position of the stream",
    Self::Credit => "a message without credit",
    Self::CreditGrant => "more credit than receive buffers",
    Self::AfterShutdown => "data after the end of the stream",
    Self::Negotiation => "impossible values in the negotiation",
    Self::SessionId => "the answer belongs to another session",
    Self::Companion => "the answer belongs to another connection",
});

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the connection was lost"),
            Self::Reset(reason) => write!(f, "the peer reset the connection: {reason}"),
            Self::Aborted => f.write_str("the connection was aborted"),
            Self::Protocol(error) => write!(f, "the peer broke the session protocol: {error}"),
            Self::VersionMismatch => f.write_str("no common version of the session protocol"),
            Self::NegotiationTimedOut => f.write_str("the negotiation timed out"),
            Self::KeepAliveTimedOut => f.write_str("the peer gave no sign of life"),
            Self::RdmaFailed => f.write_str("an RDMA operation failed"),
            Self::NoSuchConnection => f.write_str("the offer is not for a connection of this side"),
        }
    }
}

impl core::error::Error for Failure {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too many sends are queued"),
            Self::TooLong => f.write_str("the send is too long"),
            Self::Shutdown => f.write_str("sending was shut down"),
            Self::Suspended => f.write_str("sending was suspended"),
            Self::PeerClosed => f.write_str("the peer does not receive any more"),
            Self::Unsupported => f.write_str("the peer does not support this"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBuffers => NoBuffers.fmt(f),
            Self::PeerClosed => SendError::PeerClosed.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for SendFailure {}

impl fmt::Display for PullFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBuffers => NoBuffers.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for PullFailure {}
