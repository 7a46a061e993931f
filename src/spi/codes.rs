//! The only map from what went wrong to the codes of the interface.

use core::ffi::c_int;

use crate::abi;
use crate::engine::{
    AcceptError, BindError, ConnectError, ConnectFailure, End, Ending, ListenError, LookupError,
    MemoryError, ProgressError, SocketError, StartError, TransferError,
};

/// A code of the interface, other than 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Code(pub(super) c_int);

impl Code {
    pub(super) const FAULT: Self = Self(abi::WSAEFAULT);
    pub(super) const INVALID: Self = Self(abi::WSAEINVAL);
    pub(super) const NOT_SUPPORTED: Self = Self(abi::WSAEOPNOTSUPP);
    pub(super) const NOT_A_SOCKET: Self = Self(abi::WSAENOTSOCK);
    pub(super) const PENDING: Self = Self(abi::WSA_IO_PENDING);
    pub(super) const INCOMPLETE: Self = Self(abi::WSA_IO_INCOMPLETE);
    pub(super) const WOULD_BLOCK: Self = Self(abi::WSAEWOULDBLOCK);
    pub(super) const NO_OPTION: Self = Self(abi::WSAENOPROTOOPT);
    /// What a defect of ours looks like from outside.
    pub(super) const DEFECT: Self = Self(abi::WSAENETDOWN);

    /// Whether the code says how things stand rather than that something failed.
    pub(super) fn is_ordinary(self) -> bool {
        matches!(
            self.0,
            abi::WSA_IO_PENDING | abi::WSA_IO_INCOMPLETE | abi::WSAEWOULDBLOCK
        )
    }
}

impl From<StartError> for Code {
    fn from(error: StartError) -> Self {
        match error {
            StartError::FabricAbsent { .. } => Self(abi::WSASYSNOTREADY),
        }
    }
}

impl From<LookupError> for Code {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchSocket => Self::NOT_A_SOCKET,
            LookupError::NotStarted => Self(abi::WSANOTINITIALISED),
        }
    }
}

impl From<ProgressError> for Code {
    fn from(error: ProgressError) -> Self {
        match error {
            ProgressError::NotStarted => Self(abi::WSANOTINITIALISED),
            ProgressError::Taken => Self(abi::WSAEALREADY),
            ProgressError::NotTaken => Self::INVALID,
            ProgressError::Busy => Self(abi::WSAEINPROGRESS),
            ProgressError::NoResources => Self(abi::WSAENOBUFS),
        }
    }
}

/// A code that came from the switch; one that is none becomes "no resources".
fn of_switch(code: c_int) -> Code {
    if code == 0 {
        Code(abi::WSAENOBUFS)
    } else {
        Code(code)
    }
}

impl From<SocketError> for Code {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::NoSwitchSocket(code) => of_switch(code),
            SocketError::NoResources => Self(abi::WSAEMFILE),
        }
    }
}

impl From<BindError> for Code {
    fn from(error: BindError) -> Self {
        match error {
            BindError::AlreadyBound => Self::INVALID,
            BindError::ForeignAddress => Self(abi::WSAEADDRNOTAVAIL),
            BindError::WrongFamily => Self::FAULT,
            BindError::Closed => Self::NOT_A_SOCKET,
        }
    }
}

impl From<ListenError> for Code {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::NotBound => Self::INVALID,
            ListenError::Connected => Self(abi::WSAEISCONN),
            ListenError::AddressNotAvailable => Self(abi::WSAEADDRNOTAVAIL),
            ListenError::NoResources => Self(abi::WSAENOBUFS),
            ListenError::Closed => Self::NOT_A_SOCKET,
        }
    }
}

impl From<ConnectFailure> for Code {
    fn from(error: ConnectFailure) -> Self {
        // req: WSD-08, the first three forbid the way over TCP, so they are given only where TCP
        // would fail too.
        Self(match error {
            ConnectFailure::NobodyListens => abi::WSAECONNRESET,
            ConnectFailure::Refused => abi::WSAECONNREFUSED,
            ConnectFailure::Unreachable => abi::WSAEHOSTUNREACH,
            ConnectFailure::NotServed | ConnectFailure::TimedOut => abi::WSAETIMEDOUT,
            ConnectFailure::AddressNotAvailable => abi::WSAEADDRNOTAVAIL,
            ConnectFailure::NoResources => abi::WSAENOBUFS,
        })
    }
}

impl From<ConnectError> for Code {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NotBound | ConnectError::Listening => Self::INVALID,
            ConnectError::InProgress => Self(abi::WSAEALREADY),
            ConnectError::Connected => Self(abi::WSAEISCONN),
            ConnectError::WrongFamily => Self(abi::WSAEAFNOSUPPORT),
            ConnectError::NoDestination | ConnectError::Wildcard => Self(abi::WSAEADDRNOTAVAIL),
            ConnectError::Failed(failure) => failure.into(),
            ConnectError::NoResources => Self(abi::WSAENOBUFS),
            ConnectError::Closed => Self::NOT_A_SOCKET,
        }
    }
}

impl From<AcceptError> for Code {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::NotListening | AcceptError::IllegalVerdict => Self::INVALID,
            AcceptError::Empty => Self::WOULD_BLOCK,
            AcceptError::Gone => Self(abi::WSAECONNRESET),
            AcceptError::Rejected => Self(abi::WSAECONNREFUSED),
            AcceptError::Deferred => Self(abi::WSATRY_AGAIN),
            AcceptError::Closed => Self::NOT_A_SOCKET,
            AcceptError::NoSwitchSocket(code) => of_switch(code),
            AcceptError::NoResources => Self(abi::WSAENOBUFS),
        }
    }
}

fn of_ending(ending: Ending) -> c_int {
    match ending {
        Ending::Local => abi::WSA_OPERATION_ABORTED,
        Ending::Peer => abi::WSAECONNRESET,
        Ending::Broken => abi::WSAECONNABORTED,
    }
}

impl From<TransferError> for Code {
    fn from(error: TransferError) -> Self {
        Self(match error {
            TransferError::NotConnected => abi::WSAENOTCONN,
            TransferError::NotRegistered => abi::WSAEFAULT,
            TransferError::TooLarge => abi::WSAEMSGSIZE,
            TransferError::UnknownRegistration
            | TransferError::BadPieces
            | TransferError::BadDescriptor => abi::WSAEINVAL,
            TransferError::Unsupported => abi::WSAEOPNOTSUPP,
            TransferError::QueueFull => abi::WSAEWOULDBLOCK,
            // The socket was closed while the call was under way.
            TransferError::Ended(Ending::Local) => abi::WSAENOTSOCK,
            TransferError::Ended(ending) => of_ending(ending),
        })
    }
}

impl From<MemoryError> for Code {
    fn from(error: MemoryError) -> Self {
        Self(match error {
            MemoryError::NotConnected => abi::WSAENOTCONN,
            MemoryError::BadRegion => abi::WSAEFAULT,
            MemoryError::NoResources => abi::WSAENOBUFS,
            MemoryError::Unknown | MemoryError::InUse => abi::WSAEINVAL,
        })
    }
}

/// The error of a completed operation; 0 is success.
pub(super) fn of_end(end: End) -> c_int {
    match end {
        End::Done => 0,
        End::Truncated => abi::WSAEMSGSIZE,
        End::RemoteAccess => abi::WSAECONNABORTED,
        // req: WSD-11
        End::Flushed(ending) => of_ending(ending),
        End::Rejected(error) => Code::from(error).0,
    }
}
