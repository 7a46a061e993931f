//! Winsock error codes as values: their names, and the errors of std they correspond to.

use std::fmt;
use std::io;

use wsdirect::abi;

/// A code of the provider interface. Zero never stands here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WsaError(pub i32);

impl WsaError {
    /// The published name, or `None` for a number that is not in the interface.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        row(self.0).map(|row| row.1)
    }

    fn errno(self) -> Option<i32> {
        row(self.0).map(|row| row.2).filter(|errno| *errno != 0)
    }
}

fn row(code: i32) -> Option<&'static (i32, &'static str, i32, &'static str)> {
    CODES.iter().find(|row| row.0 == code)
}

impl fmt::Display for WsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match row(self.0) {
            Some((code, name, _, text)) => write!(f, "{name} ({code}): {text}"),
            None => write!(f, "error {} of the provider", self.0),
        }
    }
}

impl fmt::Debug for WsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "WsaError({})", self.0),
        }
    }
}

impl std::error::Error for WsaError {}

/// The same error as an application would see it from TCP.
impl From<WsaError> for io::Error {
    fn from(error: WsaError) -> io::Error {
        match error.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error),
        }
    }
}

/// Code, name, errno (0: none fits), text.
const CODES: &[(i32, &str, i32, &str)] = &[
    (
        abi::WSA_INVALID_HANDLE,
        "WSA_INVALID_HANDLE",
        libc::EBADF,
        "not a handle",
    ),
    (
        abi::WSA_NOT_ENOUGH_MEMORY,
        "WSA_NOT_ENOUGH_MEMORY",
        libc::ENOMEM,
        "no memory",
    ),
    (
        abi::WSA_INVALID_PARAMETER,
        "WSA_INVALID_PARAMETER",
        libc::EINVAL,
        "a parameter is wrong",
    ),
    (
        abi::WSA_OPERATION_ABORTED,
        "WSA_OPERATION_ABORTED",
        libc::ECONNABORTED,
        "the socket was closed during the operation",
    ),
    (
        abi::WSA_IO_INCOMPLETE,
        "WSA_IO_INCOMPLETE",
        libc::EAGAIN,
        "still in progress",
    ),
    (
        abi::WSA_IO_PENDING,
        "WSA_IO_PENDING",
        libc::EINPROGRESS,
        "started",
    ),
    (abi::WSAEINTR, "WSAEINTR", libc::EINTR, "interrupted"),
    (abi::WSAEBADF, "WSAEBADF", libc::EBADF, "not a descriptor"),
    (abi::WSAEACCES, "WSAEACCES", libc::EACCES, "not permitted"),
    (
        abi::WSAEFAULT,
        "WSAEFAULT",
        libc::EFAULT,
        "a bad address, or too little room",
    ),
    (
        abi::WSAEINVAL,
        "WSAEINVAL",
        libc::EINVAL,
        "a parameter or the socket's state does not fit",
    ),
    (
        abi::WSAEMFILE,
        "WSAEMFILE",
        libc::EMFILE,
        "no more descriptors",
    ),
    (
        abi::WSAEWOULDBLOCK,
        "WSAEWOULDBLOCK",
        libc::EAGAIN,
        "would have to wait",
    ),
    (
        abi::WSAEINPROGRESS,
        "WSAEINPROGRESS",
        libc::EINPROGRESS,
        "a call is in progress",
    ),
    (
        abi::WSAEALREADY,
        "WSAEALREADY",
        libc::EALREADY,
        "already in progress",
    ),
    (
        abi::WSAENOTSOCK,
        "WSAENOTSOCK",
        libc::ENOTSOCK,
        "not a socket",
    ),
    (
        abi::WSAEDESTADDRREQ,
        "WSAEDESTADDRREQ",
        libc::EDESTADDRREQ,
        "an address is missing",
    ),
    (
        abi::WSAEMSGSIZE,
        "WSAEMSGSIZE",
        libc::EMSGSIZE,
        "the message is too large",
    ),
    (
        abi::WSAEPROTOTYPE,
        "WSAEPROTOTYPE",
        libc::EPROTOTYPE,
        "the protocol is of another type",
    ),
    (
        abi::WSAENOPROTOOPT,
        "WSAENOPROTOOPT",
        libc::ENOPROTOOPT,
        "no such option",
    ),
    (
        abi::WSAEPROTONOSUPPORT,
        "WSAEPROTONOSUPPORT",
        libc::EPROTONOSUPPORT,
        "the protocol is not served",
    ),
    (
        abi::WSAESOCKTNOSUPPORT,
        "WSAESOCKTNOSUPPORT",
        libc::ESOCKTNOSUPPORT,
        "the socket type is not served",
    ),
    (
        abi::WSAEOPNOTSUPP,
        "WSAEOPNOTSUPP",
        libc::EOPNOTSUPP,
        "not served",
    ),
    (
        abi::WSAEPFNOSUPPORT,
        "WSAEPFNOSUPPORT",
        libc::EPFNOSUPPORT,
        "the family is not served",
    ),
    (
        abi::WSAEAFNOSUPPORT,
        "WSAEAFNOSUPPORT",
        libc::EAFNOSUPPORT,
        "the family is not served",
    ),
    (
        abi::WSAEADDRINUSE,
        "WSAEADDRINUSE",
        libc::EADDRINUSE,
        "the address is in use",
    ),
    (
        abi::WSAEADDRNOTAVAIL,
        "WSAEADDRNOTAVAIL",
        libc::EADDRNOTAVAIL,
        "the address is not served here",
    ),
    (
        abi::WSAENETDOWN,
        "WSAENETDOWN",
        libc::ENETDOWN,
        "the SAN subsystem has failed",
    ),
    (
        abi::WSAENETUNREACH,
        "WSAENETUNREACH",
        libc::ENETUNREACH,
        "the network cannot be reached",
    ),
    (
        abi::WSAENETRESET,
        "WSAENETRESET",
        libc::ENETRESET,
        "the connection broke",
    ),
    (
        abi::WSAECONNABORTED,
        "WSAECONNABORTED",
        libc::ECONNABORTED,
        "the connection was aborted on this side",
    ),
    (
        abi::WSAECONNRESET,
        "WSAECONNRESET",
        libc::ECONNRESET,
        "the peer ended the connection, or nobody listens there",
    ),
    (
        abi::WSAENOBUFS,
        "WSAENOBUFS",
        libc::ENOBUFS,
        "no memory or other resources",
    ),
    (
        abi::WSAEISCONN,
        "WSAEISCONN",
        libc::EISCONN,
        "the socket is connected",
    ),
    (
        abi::WSAENOTCONN,
        "WSAENOTCONN",
        libc::ENOTCONN,
        "the socket is not connected",
    ),
    (
        abi::WSAESHUTDOWN,
        "WSAESHUTDOWN",
        libc::EPIPE,
        "the socket is shut down",
    ),
    (
        abi::WSAETIMEDOUT,
        "WSAETIMEDOUT",
        libc::ETIMEDOUT,
        "no answer, or not served over the SAN",
    ),
    (
        abi::WSAECONNREFUSED,
        "WSAECONNREFUSED",
        libc::ECONNREFUSED,
        "the peer refused",
    ),
    (
        abi::WSAEHOSTDOWN,
        "WSAEHOSTDOWN",
        libc::EHOSTDOWN,
        "the host is down",
    ),
    (
        abi::WSAEHOSTUNREACH,
        "WSAEHOSTUNREACH",
        libc::EHOSTUNREACH,
        "there is no such host",
    ),
    (
        abi::WSAEPROCLIM,
        "WSAEPROCLIM",
        libc::EAGAIN,
        "too many processes use the provider",
    ),
    (
        abi::WSASYSNOTREADY,
        "WSASYSNOTREADY",
        0,
        "the SAN subsystem is not ready",
    ),
    (
        abi::WSAVERNOTSUPPORTED,
        "WSAVERNOTSUPPORTED",
        0,
        "the version is not served",
    ),
    (
        abi::WSANOTINITIALISED,
        "WSANOTINITIALISED",
        0,
        "the provider is not started",
    ),
    (
        abi::WSAEDISCON,
        "WSAEDISCON",
        libc::EPIPE,
        "the peer has shut the connection down",
    ),
    (
        abi::WSAECANCELLED,
        "WSAECANCELLED",
        libc::ECANCELED,
        "cancelled",
    ),
    (
        abi::WSAEINVALIDPROCTABLE,
        "WSAEINVALIDPROCTABLE",
        0,
        "the provider's table is incomplete",
    ),
    (
        abi::WSAEINVALIDPROVIDER,
        "WSAEINVALIDPROVIDER",
        0,
        "the provider does not keep to the interface",
    ),
    (
        abi::WSAEPROVIDERFAILEDINIT,
        "WSAEPROVIDERFAILEDINIT",
        0,
        "the provider could not start",
    ),
    (
        abi::WSASYSCALLFAILURE,
        "WSASYSCALLFAILURE",
        libc::EIO,
        "a system call failed",
    ),
    (
        abi::WSATRY_AGAIN,
        "WSATRY_AGAIN",
        libc::EAGAIN,
        "try again later",
    ),
    (abi::WSANO_RECOVERY, "WSANO_RECOVERY", 0, "cannot be mended"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_by_its_name() {
        let text = WsaError(10_054).to_string();
        assert!(text.starts_with("WSAECONNRESET (10054)"), "{text}");
        assert_eq!(format!("{:?}", WsaError(995)), "WSA_OPERATION_ABORTED");
        assert_eq!(WsaError(4711).to_string(), "error 4711 of the provider");
    }

    #[test]
    fn a_code_becomes_the_error_that_tcp_would_give() {
        let kind = |code| io::Error::from(WsaError(code)).kind();
        assert_eq!(kind(abi::WSAECONNREFUSED), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(abi::WSAETIMEDOUT), io::ErrorKind::TimedOut);
        assert_eq!(kind(abi::WSAEHOSTUNREACH), io::ErrorKind::HostUnreachable);
        let no_buffers = io::Error::from(WsaError(abi::WSAENOBUFS));
        assert_eq!(no_buffers.raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(kind(4711), io::ErrorKind::Other);
    }

    #[test]
    fn no_code_stands_twice() {
        let mut codes: Vec<i32> = CODES.iter().map(|row| row.0).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
