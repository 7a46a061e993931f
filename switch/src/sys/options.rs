//! What a connected TCP socket carries and how it is set, as far as std does not offer it.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::check;

fn moved(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// What `sendmsg` and `recvmsg` take: buffers, and nothing else.
fn message(buffers: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all zeroes says: no address, no buffers, nothing besides.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = buffers.cast_mut();
    // More than the kernel takes is refused by it.
    message.msg_iovlen = count as _;
    message
}

/// Sends without a signal where nobody listens any more.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    slices: &[io::IoSlice<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let slices = slices
        .get(..slices.len().min(MOST_SLICES))
        .unwrap_or(slices);
    // An `IoSlice` is an iovec.
    let message = message(slices.as_ptr().cast(), slices.len());
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the slices are live, and only read.
    moved(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [io::IoSliceMut<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let count = buffers.len().min(MOST_SLICES);
    // An `IoSliceMut` is an iovec.
    let mut message = message(buffers.as_mut_ptr().cast(), count);
    // SAFETY: the buffers are live and this call's alone.
    moved(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })
}

/// IOV_MAX.
const MOST_SLICES: usize = 1024;

/// Sends bytes of which the last one is urgent.
pub(crate) fn send_urgent(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_OOB | libc::MSG_NOSIGNAL;
    // SAFETY: reads at most the slice.
    moved(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Fetches the urgent byte of a TCP socket.
pub(crate) fn receive_urgent(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let mut byte = 0u8;
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
    // SAFETY: writes at most the one byte.
    match moved(unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) })? {
        0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Ok(byte),
    }
}

/// SIOCATMARK, which the libc crate does not name; the same on all architectures but a few old ones.
const AT_MARK: libc::Ioctl = 0x8905;

/// Whether a TCP socket has been read up to the urgent byte.
pub(crate) fn is_at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut at: libc::c_int = 0;
    // SAFETY: stores one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), AT_MARK, &raw mut at) })?;
    Ok(at != 0)
}

/// Bytes of a TCP socket that the peer has not acknowledged.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: stores one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Has TCP ask an idle peer for a sign of life. As with a session over the SAN, a second interval
/// without an answer is the end. What was sent and not acknowledged is the kernel's to give up.
pub(crate) fn keep_alive(fd: BorrowedFd<'_>, idle: Duration) -> io::Result<()> {
    /// Questions in the second interval.
    const QUESTIONS: libc::c_int = 3;
    /// The longest time Linux takes here, in seconds.
    const LONGEST: u64 = 32_767;
    let seconds = idle
        .as_secs()
        .saturating_add(u64::from(idle.subsec_nanos() > 0));
    let seconds = libc::c_int::try_from(seconds.clamp(1, LONGEST)).unwrap_or(1);
    for (level, name, value) in [
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds),
        (
            libc::IPPROTO_TCP,
            libc::TCP_KEEPINTVL,
            (seconds / QUESTIONS).max(1),
        ),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, QUESTIONS),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ] {
        set_option(fd, (level, name), &value)?;
    }
    Ok(())
}

/// What `keep_alive` has set: whether it is on, the idle time, the interval and how many questions.
#[cfg(test)]
pub(crate) fn keep_alive_values(fd: BorrowedFd<'_>) -> io::Result<[libc::c_int; 4]> {
    let mut values = [0; 4];
    let [on, idle, interval, questions] = &mut values;
    option(fd, (libc::SOL_SOCKET, libc::SO_KEEPALIVE), on)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), idle)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), interval)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPCNT), questions)?;
    Ok(values)
}

/// Level and name of an option.
type OptionName = (libc::c_int, libc::c_int);

fn set_option<T>(fd: BorrowedFd<'_>, (level, name): OptionName, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let place = std::ptr::from_ref(value).cast();
    // SAFETY: the value is live and as long as stated.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, place, len) })?;
    Ok(())
}

fn option<T>(fd: BorrowedFd<'_>, (level, name): OptionName, value: &mut T) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let place = std::ptr::from_mut(value).cast();
    // SAFETY: at most as much is stored as the value is long; the callers pass plain integers.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, place, &raw mut len) })?;
    Ok(())
}

/// SO_OOBINLINE.
pub(crate) fn set_oob_inline(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_option(
        fd,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE),
        &libc::c_int::from(on),
    )
}

/// SO_OOBINLINE.
pub(crate) fn oob_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut on: libc::c_int = 0;
    option(fd, (libc::SOL_SOCKET, libc::SO_OOBINLINE), &mut on)?;
    Ok(on != 0)
}

/// SO_LINGER, in whole seconds rounded up.
pub(crate) fn set_linger(fd: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<()> {
    let seconds = time.map_or(0, |time| {
        time.as_secs() + u64::from(time.subsec_nanos() > 0)
    });
    let value = libc::linger {
        l_onoff: libc::c_int::from(time.is_some()),
        l_linger: libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX),
    };
    set_option(fd, (libc::SOL_SOCKET, libc::SO_LINGER), &value)
}

/// SO_LINGER.
pub(crate) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let mut value = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    option(fd, (libc::SOL_SOCKET, libc::SO_LINGER), &mut value)?;
    let seconds = u64::try_from(value.l_linger).unwrap_or(0);
    Ok((value.l_onoff != 0).then(|| Duration::from_secs(seconds)))
}
