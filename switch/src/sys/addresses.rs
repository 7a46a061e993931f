//! The addresses of this host, their masks, and the notice that they have changed.

use std::io;
use std::mem;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use super::check;
use super::owned;

/// The addresses of this host's interfaces with the lengths of their network prefixes.
pub(crate) fn interface_addresses() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut head = std::ptr::null_mut();
    // SAFETY: a list is stored in `head`, or an error returned.
    check(unsafe { libc::getifaddrs(&raw mut head) })?;
    let mut found = Vec::new();
    let mut next = head;
    while !next.is_null() {
        // SAFETY: a non-null link of the list that getifaddrs made and nobody has freed.
        let entry = unsafe { &*next };
        // SAFETY: address and mask are null or a sockaddr of the size their family says.
        let address = unsafe { ip_of(entry.ifa_addr) };
        // SAFETY: as above.
        let mask = unsafe { ip_of(entry.ifa_netmask) };
        if let (Some(address), Some(mask)) = (address, mask) {
            found.push((address, prefix_of(mask)));
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list is ours and freed once.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    let family = unsafe { (*address).sa_family };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says what stands here; no alignment is assumed.
            let v4: libc::sockaddr_in =
                unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes())))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what stands here; no alignment is assumed.
            let v6: libc::sockaddr_in6 =
                unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// Tells, when asked, whether an address of this host came or went since it was last asked.
#[derive(Debug)]
pub(crate) struct AddressWatch {
    fd: OwnedFd,
}

impl AddressWatch {
    pub(crate) fn new() -> io::Result<AddressWatch> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        let fd = owned(fd)?;
        // SAFETY: all zeroes is a valid address; the padding must be zero.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or_default();
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_LINK;
        address.nl_groups = groups.cast_unsigned();
        let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: the address is live and as long as stated.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(AddressWatch { fd })
    }

    /// Whether something changed since the last call. Never blocks.
    pub(crate) fn has_changed(&self) -> bool {
        let mut changed = false;
        let mut room = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            let (fd, len) = (self.fd.as_raw_fd(), room.len());
            // SAFETY: at most `len` bytes are written to `room`; they are never read.
            let got = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
            if got > 0 {
                changed = true;
                continue;
            }
            // A lost notice (the queue was full) is a notice.
            if got < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) {
                changed = true;
                continue;
            }
            return changed;
        }
    }
}

/// The local address, without a port, that the kernel would use towards `to`. Sends nothing.
pub(crate) fn source_towards(to: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let probe = UdpSocket::bind(any)?;
    probe.connect(to)?;
    let mut source = probe.local_addr()?;
    source.set_port(0);
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_prefix() {
        let found = interface_addresses().unwrap();
        assert!(
            found.contains(&(IpAddr::V4(Ipv4Addr::LOCALHOST), 8)),
            "{found:?}"
        );
    }
}
