//! Socket addresses as they cross the table: the bytes of the host's `sockaddr_in` and
//! `sockaddr_in6`. Pure; the only invariant is that `len` is the length the family calls for.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const V4_LEN: usize = 16;
const V6_LEN: usize = 28;

/// A socket address in memory, aligned for every family.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct SockAddr {
    bytes: [u8; 128],
    len: usize,
}

impl SockAddr {
    /// Room for any address, to be filled through `as_mut_ptr`.
    pub(crate) fn room() -> SockAddr {
        let bytes = [0; 128];
        SockAddr {
            bytes,
            len: bytes.len(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    pub(crate) fn to_socket_addr(self) -> Option<SocketAddr> {
        parse(&self.bytes)
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> SockAddr {
        let mut room = SockAddr::room();
        let (fields, len): (&[&[u8]], usize) = match address {
            SocketAddr::V4(v4) => (
                &[
                    &family(libc::AF_INET),
                    &v4.port().to_be_bytes(),
                    &v4.ip().octets(),
                ],
                V4_LEN,
            ),
            SocketAddr::V6(v6) => (
                &[
                    &family(libc::AF_INET6),
                    &v6.port().to_be_bytes(),
                    &v6.flowinfo().to_be_bytes(),
                    &v6.ip().octets(),
                    &v6.scope_id().to_ne_bytes(),
                ],
                V6_LEN,
            ),
        };
        let source = fields.iter().copied().flatten();
        for (to, from) in room.bytes.iter_mut().zip(source) {
            *to = *from;
        }
        room.len = len;
        room
    }
}

fn family(number: libc::c_int) -> [u8; 2] {
    u16::try_from(number).unwrap_or_default().to_ne_bytes()
}

/// The address that begins at `bytes`; `None` if the family is another or the bytes too few.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match libc::c_int::from(u16::from_ne_bytes(*number)) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(SocketAddrV4::new(ip, port).into())
        }
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            let flow = u32::from_be_bytes(*flow);
            Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in [
            "127.0.0.1:80",
            "0.0.0.0:65535",
            "[::1]:443",
            "[fe80::1%3]:9",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = SockAddr::from(address);
            assert_eq!(raw.to_socket_addr(), Some(address));
            assert_eq!(raw.len(), if address.is_ipv4() { V4_LEN } else { V6_LEN });
        }
    }

    #[test]
    fn the_layout_is_the_hosts() {
        let raw = SockAddr::from(SocketAddr::from(([10, 1, 2, 3], 0x1234)));
        assert_eq!(&raw.bytes[2..8], &[0x12, 0x34, 10, 1, 2, 3]);
    }

    #[test]
    fn short_and_foreign_bytes_are_no_address() {
        let raw = SockAddr::from(SocketAddr::from(([10, 1, 2, 3], 1)));
        assert_eq!(parse(&raw.bytes[..7]), None);
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0xFF; 64]), None);
    }
}
