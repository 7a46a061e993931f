//! The calls that receive and send, but for those with messages and files.
//!
//! Owns the meaning of their arguments; what is done is in [`super::stream`]. Invariant: a call on a
//! descriptor that is no connection goes to libc as it came.

use core::ffi::{c_int, c_void};

use libc::{iovec, off_t, off64_t, size_t, sockaddr, socklen_t, ssize_t};

use super::stream::{list, one, receive, total, transmit};
use crate::{export, real, table};

/// The flags of preadv2() and pwritev2() as those of recv() and send().
fn message_flags(flags: c_int) -> c_int {
    if flags & libc::RWF_NOWAIT != 0 {
        libc::MSG_DONTWAIT
    } else {
        0
    }
}

/// # Safety
/// The list and the buffers are the program's, for a call that writes to them.
unsafe fn receive_list(
    fd: c_int,
    buffers: *const iovec,
    count: c_int,
    flags: c_int,
    kernel: impl Fn() -> ssize_t,
) -> ssize_t {
    let Some(held) = table::get(fd) else {
        return kernel();
    };
    // SAFETY: the caller's promise.
    let buffers = unsafe { list(buffers, size_t::try_from(count).unwrap_or(size_t::MAX)) };
    match buffers {
        // Without a byte of room the kernel does not ask the socket.
        Some(buffers) if total(buffers) == 0 => kernel(),
        // SAFETY: the caller's promise.
        Some(buffers) => unsafe { receive(&held, fd, buffers, flags, kernel) },
        None => kernel(),
    }
}

/// # Safety
/// The list and the buffers are the program's, for a call that reads them.
unsafe fn send_list(
    fd: c_int,
    buffers: *const iovec,
    count: c_int,
    flags: c_int,
    kernel: impl Fn() -> ssize_t,
) -> ssize_t {
    let Some(held) = table::get(fd) else {
        return kernel();
    };
    // SAFETY: the caller's promise.
    let buffers = unsafe { list(buffers, size_t::try_from(count).unwrap_or(size_t::MAX)) };
    match buffers {
        // Without a byte to send the kernel does not ask the socket.
        Some(buffers) if total(buffers) == 0 => kernel(),
        // SAFETY: the caller's promise.
        Some(buffers) => unsafe { transmit(&held, fd, buffers, flags, kernel) },
        None => kernel(),
    }
}

export! {
    /// By the kernel or by the companion.
    fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::read(fd, buffer, length) };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        if length == 0 {
            // The kernel does not ask the socket.
            return kernel();
        }
        // SAFETY: the program's buffer.
        unsafe { receive(&held, fd, &one(buffer, length), 0, kernel) }
    }

    /// As `read`.
    fn __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t {
        if length > room || table::mark(fd) != table::Mark::Connection {
            // SAFETY: the program's own call; libc ends the program if the buffer is too short.
            return unsafe { real::__read_chk(fd, buffer, length, room) };
        }
        // SAFETY: the program's own call.
        unsafe { read(fd, buffer, length) }
    }

    /// As `read`, into several buffers.
    fn readv(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::readv(fd, buffers, count) };
        // SAFETY: the program's list and buffers.
        unsafe { receive_list(fd, buffers, count, 0, kernel) }
    }

    /// As `readv`; a position other than -1 is none of a socket.
    fn preadv2(fd: c_int, buffers: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::preadv2(fd, buffers, count, at, flags) };
        if at != -1 {
            return kernel();
        }
        // SAFETY: the program's list and buffers.
        unsafe { receive_list(fd, buffers, count, message_flags(flags), kernel) }
    }

    /// As `preadv2`.
    fn preadv64v2(
        fd: c_int, buffers: *const iovec, count: c_int, at: off64_t, flags: c_int,
    ) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::preadv64v2(fd, buffers, count, at, flags) };
        if at != -1 {
            return kernel();
        }
        // SAFETY: the program's list and buffers.
        unsafe { receive_list(fd, buffers, count, message_flags(flags), kernel) }
    }

    /// As `read`, with flags.
    fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::recv(fd, buffer, length, flags) };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        // SAFETY: the program's buffer.
        unsafe { receive(&held, fd, &one(buffer, length), flags, kernel) }
    }

    /// As `recv`.
    fn __recv_chk(
        fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int,
    ) -> ssize_t {
        if length > room || table::mark(fd) != table::Mark::Connection {
            // SAFETY: the program's own call; libc ends the program if the buffer is too short.
            return unsafe { real::__recv_chk(fd, buffer, length, room, flags) };
        }
        // SAFETY: the program's own call.
        unsafe { recv(fd, buffer, length, flags) }
    }

    /// As `recv`; TCP says no address here.
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t,
    ) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe {
            real::recvfrom(fd, buffer, length, flags, address, address_length)
        };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        // SAFETY: the program's buffer.
        let got = unsafe { receive(&held, fd, &one(buffer, length), flags, kernel) };
        if got >= 0 && !address.is_null() && !address_length.is_null() {
            // SAFETY: the program's place for the length; the kernel writes there, too.
            unsafe { *address_length = 0 };
        }
        got
    }

    /// As `recvfrom`.
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t,
    ) -> ssize_t {
        if length > room || table::mark(fd) != table::Mark::Connection {
            // SAFETY: the program's own call; libc ends the program if the buffer is too short.
            return unsafe {
                real::__recvfrom_chk(fd, buffer, length, room, flags, address, address_length)
            };
        }
        // SAFETY: the program's own call.
        unsafe { recvfrom(fd, buffer, length, flags, address, address_length) }
    }

    /// By the kernel or by the companion.
    fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::write(fd, buffer, length) };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        // SAFETY: the program's buffer.
        unsafe { transmit(&held, fd, &one(buffer, length), 0, kernel) }
    }

    /// As `write`, from several buffers.
    fn writev(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::writev(fd, buffers, count) };
        // SAFETY: the program's list and buffers.
        unsafe { send_list(fd, buffers, count, 0, kernel) }
    }

    /// As `writev`; a position other than -1 is none of a socket.
    fn pwritev2(fd: c_int, buffers: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::pwritev2(fd, buffers, count, at, flags) };
        if at != -1 {
            return kernel();
        }
        // SAFETY: the program's list and buffers.
        unsafe { send_list(fd, buffers, count, message_flags(flags), kernel) }
    }

    /// As `pwritev2`.
    fn pwritev64v2(
        fd: c_int, buffers: *const iovec, count: c_int, at: off64_t, flags: c_int,
    ) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::pwritev64v2(fd, buffers, count, at, flags) };
        if at != -1 {
            return kernel();
        }
        // SAFETY: the program's list and buffers.
        unsafe { send_list(fd, buffers, count, message_flags(flags), kernel) }
    }

    /// As `write`, with flags.
    fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::send(fd, buffer, length, flags) };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        // SAFETY: the program's buffer.
        unsafe { transmit(&held, fd, &one(buffer, length), flags, kernel) }
    }

    /// As `send`; the address says nothing to a connection.
    fn sendto(
        fd: c_int, buffer: *const c_void, length: size_t, flags: c_int,
        address: *const sockaddr, address_length: socklen_t,
    ) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe {
            real::sendto(fd, buffer, length, flags, address, address_length)
        };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        // SAFETY: the program's buffer.
        unsafe { transmit(&held, fd, &one(buffer, length), flags, kernel) }
    }
}
