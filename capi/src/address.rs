//! Socket addresses as C has them: the bytes of `sockaddr_in` and `sockaddr_in6`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::sys::errno;

/// Room for any address.
pub(crate) const ROOM: usize = 128;

/// The address in these bytes. As the kernel: too few are EINVAL, other families EAFNOSUPPORT.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<SocketAddr> {
    let short = || errno(libc::EINVAL);
    let (family, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
    let family = libc::c_int::from(u16::from_ne_bytes(*family));
    if family != libc::AF_INET && family != libc::AF_INET6 {
        return Err(errno(libc::EAFNOSUPPORT));
    }
    let (port, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let port = u16::from_be_bytes(*port);
    let (first, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    if family == libc::AF_INET {
        return Ok(SocketAddr::from((Ipv4Addr::from(*first), port)));
    }
    let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
    let scope = rest.first_chunk::<4>().ok_or_else(short)?;
    let (flow, scope) = (u32::from_be_bytes(*first), u32::from_ne_bytes(*scope));
    Ok(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into())
}

/// The bytes of an address as a socket of this domain has it: IPv4 in IPv6 clothing if it must.
pub(crate) fn bytes(address: SocketAddr, domain: i32) -> Vec<u8> {
    let mut address = address;
    if domain == libc::AF_INET6
        && let IpAddr::V4(v4) = address.ip()
    {
        address.set_ip(IpAddr::V6(v4.to_ipv6_mapped()));
    }
    let family = |number: libc::c_int| u16::try_from(number).unwrap_or_default().to_ne_bytes();
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [
            &family(libc::AF_INET)[..],
            &port,
            &v4.ip().octets(),
            &[0; 8],
        ]
        .concat(),
        SocketAddr::V6(v6) => [
            &family(libc::AF_INET6)[..],
            &port,
            &v6.flowinfo().to_be_bytes(),
            &v6.ip().octets(),
            &v6.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}

/// Where a connect to this address goes: "any" is this host.
pub(crate) fn destination(mut to: SocketAddr) -> SocketAddr {
    if to.ip().is_unspecified() {
        to.set_ip(match to {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_and_clothed_where_the_socket_is_ipv6() {
        for text in ["127.0.0.1:80", "[::1]:443", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let domain = if address.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            assert_eq!(parse(&bytes(address, domain)).unwrap(), address);
        }
        let v4 = "127.0.0.1:80".parse().unwrap();
        let clothed = parse(&bytes(v4, libc::AF_INET6)).unwrap();
        assert_eq!(clothed, "[::ffff:127.0.0.1]:80".parse().unwrap());
    }

    #[test]
    fn what_is_no_address_is_told_as_the_kernel_tells_it() {
        let code = |bytes: &[u8]| parse(bytes).unwrap_err().raw_os_error();
        let v4 = bytes("127.0.0.1:80".parse().unwrap(), libc::AF_INET);
        assert_eq!(code(&[]), Some(libc::EINVAL));
        assert_eq!(code(&v4[..7]), Some(libc::EINVAL));
        assert_eq!(code(&[1, 0, 0, 0, 0, 0, 0, 0]), Some(libc::EAFNOSUPPORT));
        assert_eq!(
            destination("0.0.0.0:9".parse().unwrap()),
            "127.0.0.1:9".parse().unwrap()
        );
    }
}
