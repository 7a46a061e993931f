//! Where things are: the names of listeners, the addresses of this host, and whether TCP would
//! find a listener where this fabric finds none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use super::sys;

/// The abstract name of the listener at `at`. The user is part of it: users do not meet.
pub(super) fn name(user: u32, at: SocketAddr) -> String {
    let place = if at.ip().is_unspecified() {
        "*".to_owned()
    } else {
        at.ip().to_string()
    };
    let family = if at.is_ipv4() { 4 } else { 6 };
    format!("wsdirect/1/{user}/{family}/{place}/{}", at.port())
}

/// The names under which a listener for `to` may be found, the most specific first.
pub(super) fn names_for(user: u32, to: SocketAddr) -> [String; 2] {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    [name(user, to), name(user, SocketAddr::new(any, to.port()))]
}

/// The addresses of this host's interfaces, without doubles.
pub(in crate::fabric) fn addresses() -> Vec<IpAddr> {
    let mut found = sys::interface_addresses().unwrap_or_default();
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the host itself has this address.
pub(in crate::fabric) fn is_local(ip: IpAddr) -> bool {
    match ip {
        // The kernel gives the whole net to this host, whatever the interface says.
        IpAddr::V4(v4) if v4.is_loopback() => true,
        _ => !ip.is_unspecified() && !ip.is_multicast() && addresses().contains(&ip),
    }
}

/// Whether a TCP connect to `to`, an address of this host, would find a listener; "yes" where
/// that cannot be told.
pub(in crate::fabric) fn tcp_listens(to: SocketAddr) -> bool {
    ask_kernel(to).or_else(|_| read_tables(to)).unwrap_or(true)
}

/// A socket in the listening state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TcpListener {
    at: SocketAddr,
    /// For IPv6: whether it takes no IPv4; `None` if the source does not say.
    only_v6: Option<bool>,
}

impl TcpListener {
    fn takes(&self, to: SocketAddr) -> bool {
        if self.at.port() != to.port() {
            return false;
        }
        let (at, ip) = (self.at.ip(), to.ip());
        match (at, ip) {
            (IpAddr::V6(v6), IpAddr::V4(v4)) => {
                v6.to_ipv4_mapped()
                    .is_some_and(|mapped| mapped == v4 || mapped.is_unspecified())
                    || (v6.is_unspecified() && self.only_v6 != Some(true))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            _ => at == ip || at.is_unspecified(),
        }
    }
}

// Numbers of <linux/sock_diag.h>, <linux/inet_diag.h> and <linux/netlink.h>.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;
const TCP_LISTEN: u8 = 10;
const NLM_F_REQUEST_DUMP: u16 = 0x001 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Asks the kernel for the TCP listeners by NETLINK_SOCK_DIAG.
fn ask_kernel(to: SocketAddr) -> io::Result<bool> {
    let socket = sys::netlink(libc::NETLINK_SOCK_DIAG, 0)?;
    let families: &[i32] = if to.is_ipv4() {
        &[libc::AF_INET, libc::AF_INET6]
    } else {
        &[libc::AF_INET6]
    };
    for &family in families {
        let family = u8::try_from(family).map_err(|_| io::ErrorKind::InvalidInput)?;
        sys::send_message(socket.as_fd(), &dump_request(family), &[])?;
        let mut buffer = vec![0; 32 << 10];
        'dump: loop {
            let received = sys::receive_message(socket.as_fd(), &mut buffer)?;
            if received.truncated || received.len == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut rest = buffer.get(..received.len).unwrap_or_default();
            while let Some((kind, body, behind)) = next_netlink_message(rest) {
                match kind {
                    NLMSG_DONE => break 'dump,
                    NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                    SOCK_DIAG_BY_FAMILY => {
                        let listener = parse_listener(body).ok_or(io::ErrorKind::InvalidData)?;
                        if listener.takes(to) {
                            return Ok(true);
                        }
                    }
                    _ => {}
                }
                rest = behind;
            }
        }
    }
    Ok(false)
}

/// nlmsghdr and inet_diag_req_v2 for all listeners of a family.
fn dump_request(family: u8) -> Vec<u8> {
    const LEN: u32 = 16 + 8 + 48;
    let protocol = u8::try_from(libc::IPPROTO_TCP).unwrap_or(6);
    let mut request = Vec::with_capacity(LEN as usize);
    request.extend(LEN.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, protocol, 0, 0]);
    request.extend((1u32 << TCP_LISTEN).to_ne_bytes());
    request.resize(LEN as usize, 0);
    request
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

fn next_netlink_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(16..len)?;
    let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, behind))
}

/// inet_diag_msg with its attributes.
fn parse_listener(body: &[u8]) -> Option<TcpListener> {
    let family = i32::from(*body.first()?);
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let ip: IpAddr = if family == libc::AF_INET {
        Ipv4Addr::from(*body.get(8..)?.first_chunk::<4>()?).into()
    } else {
        Ipv6Addr::from(*body.get(8..)?.first_chunk::<16>()?).into()
    };
    let mut only_v6 = None;
    let mut attributes = body.get(72..)?;
    while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        if kind == INET_DIAG_SKV6ONLY {
            only_v6 = attributes.get(4).map(|&value| value != 0);
        }
        let step = usize::from(len.max(4)).next_multiple_of(4);
        attributes = attributes.get(step..).unwrap_or_default();
    }
    Some(TcpListener {
        at: SocketAddr::new(ip, port),
        only_v6,
    })
}

/// Reads the TCP listeners from /proc.
fn read_tables(to: SocketAddr) -> io::Result<bool> {
    let files: &[&str] = if to.is_ipv4() {
        &["/proc/self/net/tcp", "/proc/self/net/tcp6"]
    } else {
        &["/proc/self/net/tcp6"]
    };
    for (index, file) in files.iter().enumerate() {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            // A host without IPv6 has no second table.
            Err(error) if index > 0 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if text
            .lines()
            .skip(1)
            .filter_map(parse_line)
            .any(|listener| listener.takes(to))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// "  0: 0100007F:1F90 00000000:0000 0A ...", the address as words in host order.
fn parse_line(line: &str) -> Option<TcpListener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    if u8::from_str_radix(state, 16).ok()? != TCP_LISTEN {
        return None;
    }
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, place) in octets.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(TcpListener {
        at: SocketAddr::new(ip, port),
        only_v6: None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as Std;

    use super::*;

    #[test]
    fn names_tell_users_families_addresses_and_ports_apart() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let names: std::collections::HashSet<_> = [
            name(1, at("127.0.0.1:80")),
            name(2, at("127.0.0.1:80")),
            name(1, at("127.0.0.1:81")),
            name(1, at("0.0.0.0:80")),
            name(1, at("[::]:80")),
            name(1, at("[::1]:80")),
        ]
        .into();
        assert_eq!(names.len(), 6);
        assert_eq!(names_for(1, at("[::1]:80"))[1], name(1, at("[::]:80")));
    }

    #[test]
    fn the_host_has_its_loopback_addresses_and_not_those_of_others() {
        let local = |text: &str| is_local(text.parse().unwrap());
        assert!(local("127.0.0.1"));
        assert!(local("127.200.3.4"));
        assert!(!local("192.0.2.1"));
        assert!(!local("0.0.0.0"));
        assert!(!local("224.0.0.1"));
        assert!(!local("2001:db8::1"));
    }

    #[test]
    fn both_sources_know_the_tcp_listeners_of_this_host() {
        let v4 = Std::bind("127.0.0.1:0").unwrap();
        let at = v4.local_addr().unwrap();
        let elsewhere = SocketAddr::new("127.0.0.9".parse().unwrap(), at.port());
        for source in [ask_kernel, read_tables] {
            assert!(source(at).unwrap());
            assert!(!source(elsewhere).unwrap());
        }
        drop(v4);
        assert!(!tcp_listens(at));
        let any = Std::bind("0.0.0.0:0").unwrap();
        let at = SocketAddr::new(
            "127.0.0.9".parse().unwrap(),
            any.local_addr().unwrap().port(),
        );
        for source in [ask_kernel, read_tables] {
            assert!(source(at).unwrap());
        }
    }

    #[test]
    fn a_dual_stack_listener_takes_ipv4_too() {
        let Ok(any) = Std::bind("[::]:0") else { return };
        let port = any.local_addr().unwrap().port();
        for source in [ask_kernel, read_tables] {
            for ip in ["127.0.0.1", "::1"] {
                assert!(source(SocketAddr::new(ip.parse().unwrap(), port)).unwrap());
            }
        }
    }

    #[test]
    fn a_listener_takes_what_tcp_says_it_takes() {
        let case = |at: &str, only_v6, to: &str| {
            TcpListener {
                at: at.parse().unwrap(),
                only_v6,
            }
            .takes(to.parse().unwrap())
        };
        assert!(case("[::ffff:10.0.0.1]:5", None, "10.0.0.1:5"));
        assert!(!case("[::ffff:10.0.0.1]:5", None, "10.0.0.2:5"));
        assert!(!case("[::]:5", Some(true), "10.0.0.2:5"));
        assert!(case("[::]:5", Some(false), "10.0.0.2:5"));
        assert!(!case("0.0.0.0:5", None, "[::1]:5"));
        assert!(!case("[::1]:5", None, "10.0.0.2:5"));
        assert!(!case("[::1]:5", None, "[::1]:6"));
    }
}
