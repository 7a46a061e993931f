//! TCP beside the SAN: the companion sockets, which reserve the addresses that SAN sockets use and
//! carry the connection where the SAN does not.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::route;

pub(crate) use crate::sys::TcpSocket;

/// As many waiting connections as the kernel allows.
const BACKLOG: i32 = i32::MAX;

/// A socket with a port of its own on a local address, for a connect.
pub(crate) fn companion(source: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new(&source)?;
    socket.bind(source)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// Gives a socket that somebody else has made the local address for a connect, if it has none.
/// Returns the whole address, that of an IPv4 peer as one of IPv4.
pub(crate) fn reserve(socket: &TcpSocket, source: SocketAddr) -> io::Result<SocketAddr> {
    let mut local = socket.local_addr()?;
    if local.port() == 0 {
        let ip = match (local, source.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (_, ip) => ip,
        };
        let mut at = source;
        at.set_ip(ip);
        socket.bind(at)?;
        local = socket.local_addr()?;
    }
    if local.ip().is_unspecified() {
        let mut whole = source;
        whole.set_port(local.port());
        return Ok(whole);
    }
    local.set_ip(route::canonical(&local.ip()));
    Ok(local)
}

/// A socket that is going to listen, which has its port but does not listen yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: TcpSocket,
    backlog: i32,
    /// Where a SAN has to listen for the same port: at the address itself, and for an IPv6 wildcard
    /// that also takes IPv4 connections at the IPv4 wildcard, too.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Bound {
    /// A new one at an address.
    pub(crate) fn new(at: SocketAddr) -> io::Result<Bound> {
        let socket = TcpSocket::new(&at)?;
        socket.reuse_address()?;
        socket.bind(at)?;
        Bound::on(socket, BACKLOG)
    }

    /// Somebody's socket. One without a port gets one, as listen(2) does it.
    pub(crate) fn on(socket: TcpSocket, backlog: i32) -> io::Result<Bound> {
        let mut local = socket.local_addr()?;
        if local.port() == 0 {
            socket.bind(local)?;
            local = socket.local_addr()?;
        }
        // A SAN knows an IPv4 address as itself only.
        let own = SocketAddr::new(route::canonical(&local.ip()), local.port());
        let mut addresses = vec![if own.is_ipv4() { own } else { local }];
        if local.is_ipv6() && local.ip().is_unspecified() && !socket.is_v6_only()? {
            addresses.push(SocketAddr::from(([0, 0, 0, 0], local.port())));
        }
        Ok(Bound {
            socket,
            backlog,
            addresses,
        })
    }

    /// Begins to listen.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        let listener = self.socket.listen(self.backlog)?;
        // Accepting waits on several descriptors, so none of them may block by itself.
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_companion_has_a_port_that_nobody_else_gets() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (_kept, local) = companion(any).unwrap();
        assert_ne!(local.port(), 0);
        assert!(companion(local).is_err());
    }

    #[test]
    fn a_listener_names_the_addresses_for_the_san_before_it_listens() {
        let bound = Bound::new(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addresses = bound.addresses.clone();
        assert!(std::net::TcpStream::connect(addresses[0]).is_err());
        let listener = bound.listen().unwrap();
        assert_eq!(addresses, [listener.local_addr().unwrap()]);
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothing_is_an_ipv4_address_for_the_san() {
        // A host without IPv6 has nothing to show here.
        let Ok(bound) = Bound::new("[::ffff:127.0.0.1]:0".parse().unwrap()) else {
            return;
        };
        let [own] = bound.addresses[..] else {
            panic!("{bound:?}");
        };
        assert_eq!(own.ip(), IpAddr::from([127, 0, 0, 1]));
        assert_ne!(own.port(), 0);
    }

    #[test]
    fn a_socket_without_a_port_gets_one() {
        let socket = TcpSocket::new(&SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
        let bound = Bound::on(socket, 1).unwrap();
        let [local] = bound.addresses[..] else {
            panic!("{bound:?}");
        };
        assert_ne!(local.port(), 0);
        assert_eq!(bound.listen().unwrap().local_addr().unwrap(), local);
    }

    #[test]
    fn an_ipv6_wildcard_takes_ipv4_where_the_host_says_so() {
        let any = SocketAddr::from(([0u16; 8], 0));
        // A host without IPv6 has nothing to show here.
        let Ok(bound) = Bound::new(any) else {
            return;
        };
        let addresses = bound.addresses.clone();
        let listener = bound.listen().unwrap();
        let local = listener.local_addr().unwrap();
        assert_eq!(addresses[0], local);
        let over_v4 = std::net::TcpStream::connect(("127.0.0.1", local.port()));
        assert_eq!(over_v4.is_ok(), addresses.len() == 2);
    }
}
