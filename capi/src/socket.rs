//! One socket, from its making to its end.
//!
//! Owns the kernel's socket at first; when it listens or is connected, the listener or the stream
//! that came of it. Which of them never changes again, so calls borrow them without a lock.
//! Invariant: `own` has the kernel's socket exactly as long as there is neither.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use libc::c_int;
use parking_lot::Mutex;
use wsd_switch::{SanListener, SanStream};

use crate::address;
use crate::connecting::Attempt;
use crate::options::Asked;
use crate::sys::{self, Signal, errno};

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) domain: c_int,
    pub(crate) is_nonblocking: AtomicBool,
    /// The number was given back.
    is_closed: AtomicBool,
    /// Guards what changes before there is a stream or listener. Never held while waiting.
    pub(crate) own: Mutex<Own>,
    pub(crate) stream: OnceLock<SanStream>,
    pub(crate) listener: OnceLock<Listening>,
}

/// What a socket has in its first moments.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) kernel: Option<OwnedFd>,
    pub(crate) asked: Asked,
    /// The last connect, which may still be under way.
    pub(crate) attempt: Option<Arc<Attempt>>,
    /// What the last connect in the background came to, until it is fetched.
    pub(crate) error: c_int,
}

#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: SanListener,
    /// Set when nothing is accepted any more.
    pub(crate) over: Signal,
    pub(crate) is_over: AtomicBool,
}

impl Socket {
    pub(crate) fn new(domain: c_int, is_nonblocking: bool) -> io::Result<Socket> {
        if domain != libc::AF_INET && domain != libc::AF_INET6 {
            return Err(errno(libc::EAFNOSUPPORT));
        }
        let own = Own {
            kernel: Some(sys::socket(domain)?),
            asked: Asked::default(),
            attempt: None,
            error: 0,
        };
        Ok(Socket {
            domain,
            is_nonblocking: AtomicBool::new(is_nonblocking),
            is_closed: AtomicBool::new(false),
            own: Mutex::new(own),
            stream: OnceLock::new(),
            listener: OnceLock::new(),
        })
    }

    /// The socket of a connection that was accepted.
    pub(crate) fn accepted(
        domain: c_int,
        is_nonblocking: bool,
        stream: SanStream,
        asked: Asked,
    ) -> io::Result<Socket> {
        asked.apply(&stream);
        stream.set_nonblocking(is_nonblocking)?;
        let own = Own {
            kernel: None,
            asked,
            attempt: None,
            error: 0,
        };
        Ok(Socket {
            domain,
            is_nonblocking: AtomicBool::new(is_nonblocking),
            is_closed: AtomicBool::new(false),
            own: Mutex::new(own),
            stream: OnceLock::from(stream),
            listener: OnceLock::new(),
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The connection, or why there is none.
    pub(crate) fn stream(&self) -> io::Result<&SanStream> {
        self.stream.get().ok_or_else(|| {
            let own = self.own.lock();
            let is_connecting = own.attempt.as_ref().is_some_and(|one| !one.is_over());
            let waits = !self.is_nonblocking.load(Ordering::Relaxed);
            errno(if is_connecting && !waits {
                libc::EAGAIN
            } else {
                libc::ENOTCONN
            })
        })
    }

    /// After a call that may have waited: a socket that was closed meanwhile is not there any more.
    pub(crate) fn answer(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Ok(count) if count > 0 => Ok(count),
            _ if self.is_closed() => Err(errno(libc::EBADF)),
            result => result,
        }
    }

    pub(crate) fn bind(&self, address: &[u8]) -> io::Result<()> {
        let own = self.own.lock();
        let kernel = own.kernel.as_ref().ok_or_else(|| errno(libc::EINVAL))?;
        sys::bind(kernel.as_fd(), address)
    }

    /// The local address as bytes for C.
    pub(crate) fn local_name(&self) -> io::Result<Vec<u8>> {
        let address = |address: SocketAddr| address::bytes(address, self.domain);
        if let Some(stream) = self.stream.get() {
            return stream.local_addr().map(address);
        }
        if let Some(listening) = self.listener.get() {
            return listening.listener.local_addr().map(address);
        }
        let own = self.own.lock();
        let kernel = own.kernel.as_ref().ok_or_else(|| errno(libc::EINVAL))?;
        sys::name(kernel.as_fd())
    }

    /// The peer's address as bytes for C.
    pub(crate) fn peer_name(&self) -> io::Result<Vec<u8>> {
        let not_connected = || errno(libc::ENOTCONN);
        let stream = self.stream.get().ok_or_else(not_connected)?;
        let peer = stream.peer_addr()?;
        Ok(address::bytes(peer, self.domain))
    }

    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.is_nonblocking.store(on, Ordering::SeqCst);
        // One that is being made takes the value when it is there; see `connecting`.
        match self.stream.get() {
            Some(stream) => stream.set_nonblocking(on),
            None => Ok(()),
        }
    }

    pub(crate) fn shutdown(&self, how: c_int) -> io::Result<()> {
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(errno(libc::EINVAL)),
        };
        if let Some(listening) = self.listener.get() {
            if how != Shutdown::Write {
                listening.end();
            }
            return Ok(());
        }
        self.stream
            .get()
            .ok_or_else(|| errno(libc::ENOTCONN))?
            .shutdown(how)
    }

    /// The number was given back. `others` says whether other threads are in calls with it: what
    /// they wait for ends. The connection is closed with the last of them.
    pub(crate) fn close(&self, others: bool) {
        self.is_closed.store(true, Ordering::Release);
        if let Some(listening) = self.listener.get() {
            listening.end();
        }
        if others && let Some(stream) = self.stream.get() {
            // A connection that is gone has woken them already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// The descriptor to poll for these events; see `wsd_fd`.
    pub(crate) fn descriptor(&self, events: i16) -> io::Result<c_int> {
        if let Some(stream) = self.stream.get() {
            let descriptor = match events {
                libc::POLLIN => stream.read_descriptor()?,
                libc::POLLOUT => stream.write_descriptor()?,
                _ => return Err(errno(libc::EINVAL)),
            };
            return Ok(descriptor.as_raw_fd());
        }
        if let Some(listening) = self.listener.get() {
            return Ok(listening.listener.as_raw_fd());
        }
        let own = self.own.lock();
        let attempt = own.attempt.as_ref().ok_or_else(|| errno(libc::ENOTCONN))?;
        Ok(attempt.done.number())
    }

    pub(crate) fn at_mark(&self) -> io::Result<c_int> {
        Ok(c_int::from(self.stream()?.at_mark()?))
    }
}

impl Listening {
    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.over.set();
    }
}
