//! TCP sockets that are bound before they connect.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::PollFd;
use super::check;
use super::owned;
use super::wait;
use crate::address::SockAddr;

/// A TCP socket that has an address and no connection yet: the companion of a SAN socket. It
/// reserves the port, and carries the connection itself if the SAN does not.
#[derive(Debug)]
pub(crate) struct TcpSocket {
    fd: OwnedFd,
}

impl TcpSocket {
    pub(crate) fn new(family: &SocketAddr) -> io::Result<TcpSocket> {
        let domain = match family {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        Ok(TcpSocket { fd: owned(fd)? })
    }

    /// Lets a listener take a port whose former connections still wait for their end.
    pub(crate) fn reuse_address(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
        let (fd, value) = (self.fd.as_raw_fd(), (&raw const on).cast());
        // SAFETY: the value is live and as long as stated.
        check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, value, len) })?;
        Ok(())
    }

    pub(crate) fn bind(&self, at: SocketAddr) -> io::Result<()> {
        let at = SockAddr::from(at);
        let len = libc::socklen_t::try_from(at.len()).unwrap_or_default();
        // SAFETY: the address is live and as long as stated.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), at.as_ptr().cast(), len) })?;
        Ok(())
    }

    /// Whether an IPv6 socket takes no IPv4 connections.
    pub(crate) fn is_v6_only(&self) -> io::Result<bool> {
        let mut only: libc::c_int = 0;
        let mut len = libc::socklen_t::try_from(size_of_val(&only)).unwrap_or_default();
        let (fd, place) = (self.fd.as_raw_fd(), (&raw mut only).cast());
        let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        // SAFETY: at most `len` bytes are written to `only`.
        check(unsafe { libc::getsockopt(fd, level, name, place, &raw mut len) })?;
        Ok(only != 0)
    }

    pub(crate) fn listen(self, backlog: i32) -> io::Result<TcpListener> {
        // SAFETY: takes no pointer.
        check(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) })?;
        Ok(TcpListener::from(self.fd))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut storage = SockAddr::room();
        let mut len = libc::socklen_t::try_from(storage.capacity()).unwrap_or_default();
        let place = storage.as_mut_ptr().cast();
        // SAFETY: at most `len` bytes are written to `storage`.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), place, &raw mut len) })?;
        storage
            .to_socket_addr()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Connects within the time, or fails as std's `TcpStream` does. Then the kernel forgets the
    /// attempt, so that whoever has another descriptor of the socket can make the next one.
    pub(crate) fn connect(
        self,
        to: SocketAddr,
        deadline: Option<Instant>,
    ) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.fd);
        match establish(&stream, to, deadline) {
            Ok(()) => Ok(stream),
            Err(error) => {
                // A connection that is there is not this function's.
                if error.raw_os_error() != Some(libc::EISCONN) {
                    forget_attempt(&stream);
                }
                Err(error)
            }
        }
    }
}

fn forget_attempt(stream: &TcpStream) {
    let nowhere = SockAddr::room();
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or_default();
    // SAFETY: all zeroes is an address without a family (AF_UNSPEC), longer than stated.
    unsafe { libc::connect(stream.as_raw_fd(), nowhere.as_ptr().cast(), len) };
}

fn establish(stream: &TcpStream, to: SocketAddr, deadline: Option<Instant>) -> io::Result<()> {
    if deadline.is_some_and(|end| end <= Instant::now()) {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    let to = SockAddr::from(to);
    let len = libc::socklen_t::try_from(to.len()).unwrap_or_default();
    stream.set_nonblocking(true)?;
    // SAFETY: the address is live and as long as stated.
    let begun = check(unsafe { libc::connect(stream.as_raw_fd(), to.as_ptr().cast(), len) });
    match begun {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let mut fds = [PollFd::writable(stream.as_fd())];
            if wait(&mut fds, deadline)? == 0 {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error),
    }
    stream.set_nonblocking(false)
}

/// A TCP socket that somebody else has made.
impl From<OwnedFd> for TcpSocket {
    fn from(fd: OwnedFd) -> TcpSocket {
        TcpSocket { fd }
    }
}

impl From<TcpSocket> for OwnedFd {
    fn from(socket: TcpSocket) -> OwnedFd {
        socket.fd
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::{deadline_after, source_towards};

    #[test]
    fn a_bound_companion_connects_from_its_reserved_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(source_towards(to).unwrap(), SocketAddr::new(to.ip(), 0));
        let socket = TcpSocket::new(&to).unwrap();
        socket.bind((to.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        assert_ne!(local.port(), 0);
        let stream = socket
            .connect(to, deadline_after(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
        assert_eq!(listener.accept().unwrap().1, local);
    }

    #[test]
    fn a_refused_connect_says_so() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = TcpSocket::new(&closed).unwrap();
        let error = socket.connect(closed, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
