//! The kernel's calls on the application's own descriptors.
//!
//! Owns the table of function pointers and makes each call that is needed a safe one. A library
//! that interposes these calls gives the real ones, so that ours do not come back to it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use libc::{
    c_int, c_short, c_ulong, c_void, iovec, msghdr, nfds_t, pollfd, sockaddr, socklen_t, ssize_t,
};

/// The real functions of the C library.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each field is the function of that name")]
pub struct Kernel {
    pub recvmsg: unsafe extern "C-unwind" fn(c_int, *mut msghdr, c_int) -> ssize_t,
    pub sendmsg: unsafe extern "C-unwind" fn(c_int, *const msghdr, c_int) -> ssize_t,
    pub poll: unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, c_int) -> c_int,
    pub fcntl: unsafe extern "C" fn(c_int, c_int, ...) -> c_int,
    pub ioctl: unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int,
    pub getsockopt: unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    pub setsockopt: unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    pub getsockname: unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub getpeername: unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub connect: unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int,
    pub shutdown: unsafe extern "C" fn(c_int, c_int) -> c_int,
    pub close: unsafe extern "C" fn(c_int) -> c_int,
}

/// Calls in which a thread may be cancelled, which unwinds it.
mod unwinding {
    use libc::{c_int, msghdr, nfds_t, pollfd, ssize_t};

    unsafe extern "C-unwind" {
        pub(super) fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
        pub(super) fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
        pub(super) fn poll(fds: *mut pollfd, count: nfds_t, time: c_int) -> c_int;
    }
}

static KERNEL: OnceLock<Kernel> = OnceLock::new();

/// The C library's functions as this library is linked to them.
const LINKED: Kernel = Kernel {
    recvmsg: unwinding::recvmsg,
    sendmsg: unwinding::sendmsg,
    poll: unwinding::poll,
    fcntl: libc::fcntl,
    ioctl: libc::ioctl,
    getsockopt: libc::getsockopt,
    setsockopt: libc::setsockopt,
    getsockname: libc::getsockname,
    getpeername: libc::getpeername,
    connect: libc::connect,
    shutdown: libc::shutdown,
    close: libc::close,
};

/// Has companions call these functions instead of those this library is linked to. To be called
/// before the first companion is made; a later call changes nothing.
///
/// # Safety
/// Each function does what the C library's function of that name does.
pub unsafe fn set_kernel(kernel: Kernel) {
    let _ = KERNEL.set(kernel);
}

fn kernel() -> &'static Kernel {
    KERNEL.get().unwrap_or(&LINKED)
}

fn check(result: ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn message(buffers: &[iovec]) -> msghdr {
    // SAFETY: a msghdr of zeros is one without anything.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = buffers.as_ptr().cast_mut();
    message.msg_iovlen = buffers.len();
    message
}

/// # Safety
/// The buffers may be written to.
pub(super) unsafe fn receive(fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
    let mut message = message(buffers);
    // SAFETY: the caller vouches for the buffers; everything else is of this frame.
    check(unsafe { (kernel().recvmsg)(fd, &raw mut message, flags) })
}

/// # Safety
/// The buffers may be read.
pub(super) unsafe fn send(fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
    let message = message(buffers);
    // SAFETY: the caller vouches for the buffers; everything else is of this frame.
    check(unsafe { (kernel().sendmsg)(fd, &raw const message, flags) })
}

/// Receives into one buffer.
pub(super) fn receive_into(fd: RawFd, buffer: &mut [u8], flags: c_int) -> io::Result<usize> {
    let buffers = [iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }];
    // SAFETY: the buffer is borrowed exclusively during the call.
    unsafe { receive(fd, &buffers, flags) }
}

/// Sends one buffer.
pub(super) fn send_from(fd: RawFd, buffer: &[u8], flags: c_int) -> io::Result<usize> {
    let buffers = [iovec {
        iov_base: buffer.as_ptr().cast_mut().cast(),
        iov_len: buffer.len(),
    }];
    // SAFETY: the buffer is borrowed during the call, which only reads it.
    unsafe { send(fd, &buffers, flags) }
}

/// As poll(2): the error is Interrupted if a signal came.
pub(super) fn poll(fds: &mut [pollfd], timeout: c_int) -> io::Result<usize> {
    let count = nfds_t::try_from(fds.len()).unwrap_or(nfds_t::MAX);
    // SAFETY: the slice is borrowed exclusively during the call.
    let ready = checked(unsafe { (kernel().poll)(fds.as_mut_ptr(), count, timeout) })?;
    Ok(usize::try_from(ready).unwrap_or(0))
}

/// What of `events` is true of one descriptor now.
pub(super) fn poll_now(fd: RawFd, events: c_short) -> c_short {
    let mut fds = [pollfd {
        fd,
        events,
        revents: 0,
    }];
    match poll(&mut fds, 0) {
        Ok(1) => fds.map(|fd| fd.revents)[0],
        _ => 0,
    }
}

/// A duplicate out of the way of the application's numbers.
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    let lowest = c_int::try_from(crate::sys::descriptor_limit() / 4 * 3).unwrap_or(768);
    // SAFETY: takes no pointer; a number that is not open is answered.
    let high = unsafe { (kernel().fcntl)(fd, libc::F_DUPFD_CLOEXEC, lowest.min(1 << 19)) };
    let made = match checked(high) {
        Ok(made) => made,
        // SAFETY: as above.
        Err(_) => checked(unsafe { (kernel().fcntl)(fd, libc::F_DUPFD_CLOEXEC, 0) })?,
    };
    // SAFETY: the kernel has just made this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

pub(super) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: takes no pointer.
    let flags = unsafe { (kernel().fcntl)(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// An option of the size of `T`, which is plain numbers.
fn option<T: Copy>(fd: RawFd, level: c_int, name: c_int, mut value: T) -> Option<T> {
    let mut len = socklen_t::try_from(size_of::<T>()).ok()?;
    // SAFETY: the pointer is to a live value as long as said; all of its bit patterns are valid
    // for the plain numbers this private function is used with.
    let got =
        unsafe { (kernel().getsockopt)(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    (got == 0).then_some(value)
}

/// SO_RCVTIMEO or SO_SNDTIMEO.
pub(super) fn time_out(fd: RawFd, name: c_int) -> Option<std::time::Duration> {
    let none = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let set = option(fd, libc::SOL_SOCKET, name, none)?;
    let seconds = u64::try_from(set.tv_sec).ok()?;
    let micros = u64::try_from(set.tv_usec).ok()?;
    let time = std::time::Duration::from_secs(seconds) + std::time::Duration::from_micros(micros);
    (!time.is_zero()).then_some(time)
}

/// An option that is one number.
pub(super) fn number(fd: RawFd, level: c_int, name: c_int) -> Option<c_int> {
    option(fd, level, name, 0)
}

/// SO_LINGER, if it is on.
pub(super) fn linger(fd: RawFd) -> Option<c_int> {
    let none = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let set = option(fd, libc::SOL_SOCKET, libc::SO_LINGER, none)?;
    (set.l_onoff != 0).then_some(set.l_linger)
}

/// Makes the close of the connection a reset.
pub(super) fn linger_zero(fd: RawFd) {
    let value = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = socklen_t::try_from(size_of::<libc::linger>()).unwrap_or(0);
    // SAFETY: the pointer is to a live value as long as said.
    unsafe {
        (kernel().setsockopt)(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const value).cast(),
            len,
        )
    };
}

/// Makes a Unix socket's send buffer as small as the kernel lets it be.
pub(super) fn small_send_buffer(fd: RawFd) {
    let value: c_int = 1;
    let len = socklen_t::try_from(size_of::<c_int>()).unwrap_or(0);
    // SAFETY: the pointer is to a live value as long as said.
    unsafe {
        (kernel().setsockopt)(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const value).cast(),
            len,
        )
    };
}

/// Ends the connection with a reset, whoever else has it open. With SHUT_RDWR the peer would take it
/// for an end in peace.
pub(super) fn reset(fd: RawFd) {
    if poll_now(fd, 0) & libc::POLLHUP != 0 {
        // It has ended already, and goes on saying how.
        return;
    }
    let nobody = sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or(0),
        sa_data: [0; 14],
    };
    let len = socklen_t::try_from(size_of_val(&nobody)).unwrap_or(0);
    // SAFETY: an address of this frame, as long as it is said to be.
    let done = checked(unsafe { (kernel().connect)(fd, &raw const nobody, len) });
    if let Err(error) = done {
        tracing::debug!(%error, "no reset");
        linger_zero(fd);
    }
    // Calls that have begun before find what they find after a reset of the peer's: the error once,
    // then an end; not a socket that was never connected.
    drop(shutdown(fd, libc::SHUT_RDWR));
}

pub(super) fn shutdown(fd: RawFd, how: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    checked(unsafe { (kernel().shutdown)(fd, how) })?;
    Ok(())
}

/// Closes a duplicate with the real function.
pub(super) fn close(fd: OwnedFd) {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was owned and is given up here.
    unsafe { (kernel().close)(fd.into_raw_fd()) };
}

type Name = unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;

fn name(fd: RawFd, ask: Name) -> io::Result<std::net::SocketAddr> {
    // SAFETY: zeros are a valid address storage, of no family.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    // SAFETY: the pointers are to live values, the length is the storage's.
    checked(unsafe { ask(fd, (&raw mut storage).cast(), &raw mut len) })?;
    let other = || io::Error::from(io::ErrorKind::InvalidInput);
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what stands here, and the storage is large enough.
            let v4 = unsafe { (&raw const storage).cast::<libc::sockaddr_in>().read() };
            let ip = std::net::Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Ok((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what stands here, and the storage is large enough.
            let v6 = unsafe { (&raw const storage).cast::<libc::sockaddr_in6>().read() };
            let ip = std::net::Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Ok(std::net::SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => Err(other()),
    }
}

/// The local and the peer's address of a connection.
pub(super) fn names(fd: RawFd) -> io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
    Ok((
        name(fd, kernel().getsockname)?,
        name(fd, kernel().getpeername)?,
    ))
}

/// Bytes that wait to be received.
pub(super) fn unread(fd: RawFd) -> usize {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD stores one int.
    let asked = unsafe { (kernel().ioctl)(fd, libc::FIONREAD as c_ulong, &raw mut count) };
    if asked == 0 {
        usize::try_from(count).unwrap_or(0)
    } else {
        0
    }
}

/// Whether some handler is installed that does not ask for calls to be restarted: then a call that
/// a signal interrupts says so.
pub(super) fn interrupts() -> bool {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: zeros are a valid sigaction, to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only asks; the pointer is to a live value.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        let handled = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
        if asked == 0 && handled && action.sa_flags & libc::SA_RESTART == 0 {
            return true;
        }
    }
    false
}
