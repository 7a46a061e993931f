//! Connecting: the SAN first, TCP where the SAN does not serve.
//!
//! Owns the order of the calls up to the connection, and the rule when TCP may still try: until a
//! SAN connection exists, and not after the three codes that say TCP would fail, too. Invariant: a
//! SAN socket that did not lead to a connection is closed before TCP is used, or the error told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wsdirect::abi;

use crate::error::WsaError;
use crate::provider::Provider;
use crate::reason::Reason;
use crate::route;
use crate::socket::{BoundError, SanSocket};
use crate::switch::Switch;
use crate::sys::{self, PollFd};
use crate::tcp::{self, TcpSocket};

/// How long the SAN may take to answer before TCP gets its turn.
const SAN_TIME: Duration = Duration::from_secs(5);

/// A connection that was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Connected over the SAN; the session is still to be negotiated.
    San {
        socket: SanSocket,
        /// Reserves the port for as long as the connection lasts.
        companion: TcpSocket,
    },
    Tcp {
        stream: std::net::TcpStream,
        reason: Reason,
    },
}

/// Why there is no SAN connection.
#[derive(Debug)]
enum Failure {
    /// TCP would fail, too: the application's error.
    Final(WsaError),
    /// TCP may try.
    Fallback(Reason),
}

/// What is asked for besides the address.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wishes {
    /// No SAN at all.
    pub(crate) tcp_only: bool,
    /// SO_DEBUG on the SAN socket.
    pub(crate) debug: bool,
    /// When to give up.
    pub(crate) deadline: Option<Instant>,
}

/// Connects to one address.
///
/// With a TCP socket of the caller's that one is the companion, and connects if the SAN does not.
pub(crate) fn open(
    switch: &Switch,
    to: SocketAddr,
    wishes: Wishes,
    own: Option<TcpSocket>,
) -> io::Result<Opened> {
    let (tcp_to, to) = match own {
        // What the kernel makes of no address depends on where the socket is bound.
        Some(_) => (to, as_it_is(to)),
        None => {
            let to = this_host(as_it_is(to));
            (to, to)
        }
    };
    let provider = if wishes.tcp_only {
        Err(Reason::Asked)
    } else {
        switch.provider_towards(to.ip())
    };
    let provider = match provider {
        Ok(provider) => provider,
        Err(reason) => return plain(own, tcp_to, wishes, reason),
    };
    let Ok(source) = sys::source_towards(to) else {
        return plain(own, tcp_to, wishes, Reason::NoSource);
    };
    let (companion, local) = match own {
        Some(own) => match tcp::reserve(&own, source) {
            Ok(local) => (own, local),
            Err(_) => return plain(Some(own), tcp_to, wishes, Reason::NoCompanion),
        },
        None => match tcp::companion(source) {
            Ok(made) => made,
            Err(_) => return plain(None, tcp_to, wishes, Reason::NoCompanion),
        },
    };
    match attempt(&provider, local, to, wishes) {
        Ok(socket) => Ok(Opened::San { socket, companion }),
        // req: WSD-18 refused on the SAN is refused
        Err(Failure::Final(code)) => Err(final_error(code)),
        // req: WSD-18 everything else goes on over TCP, from the same address
        Err(Failure::Fallback(reason)) => {
            tracing::debug!(provider = provider.name(), %to, %reason, "falling back to TCP");
            let stream = companion.connect(tcp_to, wishes.deadline)?;
            Ok(Opened::Tcp { stream, reason })
        }
    }
}

/// No address is this host, which the kernel takes it for.
fn this_host(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, to.port()).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, to.port()).into(),
        _ => to,
    }
}

/// An IPv4 address in IPv6 clothing is served as what it is; every other stays, scope and all.
fn as_it_is(to: SocketAddr) -> SocketAddr {
    match route::canonical(&to.ip()) {
        IpAddr::V4(v4) => SocketAddr::from((v4, to.port())),
        IpAddr::V6(_) => to,
    }
}

fn plain(
    own: Option<TcpSocket>,
    to: SocketAddr,
    wishes: Wishes,
    reason: Reason,
) -> io::Result<Opened> {
    let socket = match own {
        Some(own) => own,
        None => TcpSocket::new(&to)?,
    };
    let stream = socket.connect(to, wishes.deadline)?;
    Ok(Opened::Tcp { stream, reason })
}

/// What an application is told where TCP would not have helped. Nobody listening is a refusal in
/// TCP's words.
fn final_error(code: WsaError) -> io::Error {
    match code.0 {
        abi::WSAECONNRESET => io::Error::from_raw_os_error(libc::ECONNREFUSED),
        _ => code.into(),
    }
}

/// The calls of a SAN connect, in the documented order. The socket of a failed one is closed when
/// this returns.
fn attempt(
    provider: &Arc<Provider>,
    local: SocketAddr,
    to: SocketAddr,
    wishes: Wishes,
) -> Result<SanSocket, Failure> {
    let mut socket = SanSocket::bound(provider, local).map_err(|error| {
        Failure::Fallback(match error {
            BoundError::Socket(code) => Reason::SocketFailed(code),
            BoundError::Bind(code) => Reason::BindFailed(code),
        })
    })?;
    if wishes.debug {
        let set = socket.set_debug(true);
        set.map_err(|code| Failure::Fallback(Reason::OptionFailed(code)))?;
    }
    // req: WSD-17 the event is selected before the connect
    let selected = socket.event_select(abi::FD_CONNECT);
    selected.map_err(|code| Failure::Fallback(Reason::EventFailed(code)))?;
    if !socket.connect(to).map_err(sort)? {
        wait_for_outcome(&socket, san_deadline(wishes.deadline))?;
    }
    socket.release_event();
    Ok(socket)
}

/// Waits for FD_CONNECT and takes its code.
fn wait_for_outcome(socket: &SanSocket, deadline: Option<Instant>) -> Result<(), Failure> {
    let failed = |code| Failure::Fallback(Reason::EventFailed(code));
    let event = socket.event().ok_or(failed(WsaError(abi::WSAEINVAL)))?;
    loop {
        match sys::wait(&mut [PollFd::readable(event.as_fd())], deadline) {
            Ok(0) => return Err(Failure::Fallback(Reason::ConnectTimedOut)),
            Ok(_) => {}
            Err(_) => return Err(failed(WsaError(abi::WSASYSCALLFAILURE))),
        }
        let events = socket.enum_events().map_err(failed)?;
        if events.lNetworkEvents & abi::FD_CONNECT == 0 {
            continue;
        }
        let slot = usize::try_from(abi::FD_CONNECT_BIT).unwrap_or_default();
        return match events.iErrorCode.get(slot).copied().unwrap_or_default() {
            0 => Ok(()),
            code => Err(sort(WsaError(code))),
        };
    }
}

/// The SAN gets its own time, and at most half of what the caller allows, so that TCP can try.
fn san_deadline(deadline: Option<Instant>) -> Option<Instant> {
    let left = deadline.map(|end| end.saturating_duration_since(Instant::now()) / 2);
    sys::deadline_after(left.unwrap_or(SAN_TIME).min(SAN_TIME))
}

/// Whether a failed connect may go on over TCP.
fn sort(code: WsaError) -> Failure {
    match code.0 {
        abi::WSAECONNRESET | abi::WSAECONNREFUSED | abi::WSAEHOSTUNREACH => Failure::Final(code),
        _ => Failure::Fallback(Reason::ConnectFailed(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_undressed_and_a_scope_is_kept() {
        let undressed = |text: &str| as_it_is(text.parse().unwrap()).to_string();
        assert_eq!(undressed("[::ffff:127.0.0.1]:80"), "127.0.0.1:80");
        assert_eq!(undressed("[fe80::1%7]:80"), "[fe80::1%7]:80");
        assert_eq!(undressed("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn only_three_codes_keep_tcp_from_trying() {
        for code in 10_000..11_100 {
            let is_final = matches!(sort(WsaError(code)), Failure::Final(_));
            assert_eq!(is_final, [10_054, 10_061, 10_065].contains(&code), "{code}");
        }
    }

    #[test]
    fn the_final_codes_are_errors_that_tcp_would_give() {
        let kind = |code| final_error(WsaError(code)).kind();
        assert_eq!(kind(abi::WSAECONNRESET), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(abi::WSAECONNREFUSED), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(abi::WSAEHOSTUNREACH), io::ErrorKind::HostUnreachable);
    }

    #[test]
    fn the_san_leaves_time_for_tcp() {
        let now = Instant::now();
        let end = san_deadline(Some(now + Duration::from_secs(2))).unwrap();
        assert!(end < now + Duration::from_secs(2));
        assert!(san_deadline(None).unwrap() <= Instant::now() + SAN_TIME);
    }
}
