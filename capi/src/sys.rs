//! The system calls that std does not offer: TCP sockets in their first moments, their options by
//! number, eventfd, errno, the signal mask.
//!
//! Owns descriptors only. Every function is safe to call with any argument.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::address;

/// The error with this number.
pub(crate) fn errno(number: c_int) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The number of an error, also of one that only std knows.
pub(crate) fn number_of(error: &io::Error) -> c_int {
    if let Some(number) = error.raw_os_error() {
        return number;
    }
    match error.kind() {
        io::ErrorKind::WouldBlock => libc::EAGAIN,
        io::ErrorKind::Interrupted => libc::EINTR,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::NotConnected => libc::ENOTCONN,
        io::ErrorKind::BrokenPipe => libc::EPIPE,
        io::ErrorKind::ConnectionReset => libc::ECONNRESET,
        io::ErrorKind::ConnectionAborted => libc::ECONNABORTED,
        io::ErrorKind::ConnectionRefused => libc::ECONNREFUSED,
        io::ErrorKind::HostUnreachable => libc::EHOSTUNREACH,
        io::ErrorKind::AddrInUse => libc::EADDRINUSE,
        io::ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        _ => libc::EIO,
    }
}

/// What C is told of an error.
pub(crate) fn set_errno(number: c_int) {
    // SAFETY: takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own, for as long as the thread lives.
    unsafe { place.write(number) };
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just handed out this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn length<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or_default()
}

/// Keeps the application's signal handlers off the calling thread, one of ours.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is filled; a null third argument asks for nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

/// A TCP socket.
pub(crate) fn socket(domain: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointer.
    owned(unsafe { libc::socket(domain, kind, libc::IPPROTO_TCP) })
}

/// Binds to the address in these bytes, whatever they are: the kernel looks at them.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(address.len()).unwrap_or_default();
    // SAFETY: the bytes are live and as many as stated.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), len) })?;
    Ok(())
}

/// The bytes of the local address.
pub(crate) fn name(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut room = vec![0u8; address::ROOM];
    let mut len = libc::socklen_t::try_from(room.len()).unwrap_or_default();
    let place = room.as_mut_ptr().cast();
    // SAFETY: at most `len` bytes are written to `room`.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), place, &raw mut len) })?;
    room.truncate(usize::try_from(len).unwrap_or_default());
    Ok(room)
}

/// Sets an option from its bytes.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    let place = value.as_ptr().cast();
    // SAFETY: the value is live and as long as stated.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, place, len) })?;
    Ok(())
}

/// The bytes of an option, at most this many.
pub(crate) fn option(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    most: usize,
) -> io::Result<Vec<u8>> {
    let mut room = vec![0u8; most];
    let mut len = libc::socklen_t::try_from(most).unwrap_or_default();
    let place = room.as_mut_ptr().cast();
    // SAFETY: at most `len` bytes are written to `room`. The options whose value holds a pointer are
    // none of a socket's.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, place, &raw mut len) })?;
    room.truncate(usize::try_from(len).unwrap_or_default());
    Ok(room)
}

/// Something to poll for: readable from the first [`Signal::set`] on.
#[derive(Debug)]
pub(crate) struct Signal(OwnedFd);

impl Signal {
    pub(crate) fn new() -> io::Result<Signal> {
        // SAFETY: takes no pointer.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(Signal)
    }

    pub(crate) fn set(&self) {
        let one = 1u64;
        let len = usize::try_from(length(&one)).unwrap_or_default();
        // SAFETY: eight bytes are read from a live u64. Only a full counter can refuse, and that one
        // is readable.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), len) };
    }

    pub(crate) fn number(&self) -> c_int {
        self.0.as_raw_fd()
    }
}

/// Has a function called in every child of fork.
pub(crate) fn in_child(function: unsafe extern "C" fn()) -> io::Result<()> {
    // SAFETY: a function of this library, which is not unloaded: it is linked in or never closed.
    match unsafe { libc::pthread_atfork(None, None, Some(function)) } {
        0 => Ok(()),
        code => Err(errno(code)),
    }
}
