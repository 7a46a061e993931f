//! Small questions about descriptors, and memory, asked of the kernel directly.
//!
//! Owns the safe forms of the calls that the rest of the library needs for itself.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use std::os::fd::RawFd;

use crate::real;

/// Which file a descriptor leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// Which file this is; none if the number is not open. errno may change.
pub(crate) fn identity(fd: RawFd) -> Option<Identity> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer leads to room for the answer.
    let asked = unsafe { libc::fstat(fd, status.as_mut_ptr()) };
    if asked != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let status = unsafe { status.assume_init() };
    Some(Identity {
        device: status.st_dev,
        inode: status.st_ino,
    })
}

/// Zeroed memory of its own pages; none if there is none.
pub(crate) fn zeroed_pages(length: usize) -> Option<*mut c_void> {
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (at != libc::MAP_FAILED).then_some(at)
}

/// Gives memory of [`zeroed_pages`] back that nobody else has seen.
pub(crate) fn give_pages_back(at: *mut c_void, length: usize) {
    // SAFETY: the mapping was made by `zeroed_pages` with this length, and nobody uses it.
    unsafe { libc::munmap(at, length) };
}

/// Whether the number is open. errno may change.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: takes no pointer.
    unsafe { real::fcntl(fd, libc::F_GETFD, 0) >= 0 }
}

/// An option of the socket layer that is one number.
pub(crate) fn socket_option(fd: RawFd, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<c_int>()).ok()?;
    // SAFETY: the pointers are to live values, the length is the value's.
    let asked = unsafe {
        real::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (asked == 0).then_some(value)
}

/// Ends a connection so that the peer hears of a reset. errno may change.
pub(crate) fn disconnect(fd: RawFd) {
    let nowhere = libc::sockaddr {
        sa_family: 0,
        sa_data: [0; 14],
    };
    let Ok(length) = libc::socklen_t::try_from(size_of_val(&nowhere)) else {
        return;
    };
    // SAFETY: the address is live and as long as said; AF_UNSPEC, which is 0, dissolves.
    unsafe { real::connect(fd, &raw const nowhere, length) };
}

/// Whether the number is a TCP socket, asked of the kernel. errno may change.
pub(crate) fn is_tcp(fd: RawFd) -> bool {
    let domain = socket_option(fd, libc::SO_DOMAIN);
    (domain == Some(libc::AF_INET) || domain == Some(libc::AF_INET6))
        && socket_option(fd, libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP)
}

/// The lowest number that our own descriptors take: out of the way of the program's.
fn lowest_private() -> c_int {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live value.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let high = limit.rlim_cur.min(1 << 19) / 4 * 3;
    c_int::try_from(high).unwrap_or(768)
}

/// Moves a descriptor that our code has just made out of the way. The number it has from now on,
/// the same if there was no better one. errno is kept.
pub(crate) fn move_away(fd: RawFd) -> RawFd {
    let before = crate::raw::errno();
    let lowest = lowest_private();
    if fd >= lowest {
        return fd;
    }
    let to = usize::try_from(lowest).unwrap_or(0);
    // SAFETY: takes no pointer.
    let moved = unsafe { real::fcntl(fd, libc::F_DUPFD_CLOEXEC, to) };
    if moved >= 0 {
        // SAFETY: the number is of our code, which has not learnt it yet.
        unsafe { real::close(fd) };
    }
    crate::raw::set_errno(before);
    if moved >= 0 { moved } else { fd }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn only_tcp_sockets_are_tcp() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(is_tcp(tcp.as_raw_fd()));
        assert!(!is_tcp(udp.as_raw_fd()));
        assert!(!is_tcp(file.as_raw_fd()));
        assert!(!is_tcp(-1));
    }

    #[test]
    fn what_moves_away_is_the_same_file() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let which = identity(file.as_raw_fd());
        let moved = move_away(file.into_raw_fd());
        assert!(moved >= lowest_private());
        assert_eq!(identity(moved), which);
        assert_eq!(move_away(moved), moved);
        // SAFETY: the number is this test's.
        unsafe { real::close(moved) };
    }
}
