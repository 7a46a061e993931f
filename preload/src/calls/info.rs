//! What a socket says of itself: options, names, marks.
//!
//! The kernel's socket answers. Owns the options that mean that only the kernel may carry the bytes.

use core::ffi::{c_int, c_void};

use libc::{sockaddr, socklen_t};

use super::stream::stay_with_the_kernel;
use crate::raw::keeping_errno;
use crate::table::Mark;
use crate::{export, guard, real, table};

/// Options of the TCP level that libc does not name for each C library.
const TCP_REPAIR: c_int = 19;
const TCP_ZEROCOPY_RECEIVE: c_int = 35;
const TCP_INQ: c_int = 36;

/// Whether an option that is set asks for what only the kernel does: to look at the bytes, to keep
/// them back, or to tell more with them.
fn is_for_the_kernel(level: c_int, name: c_int, value: Option<c_int>) -> bool {
    let on = value != Some(0);
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => value.is_none_or(|v| v > 1),
        (
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY
            | libc::SO_TIMESTAMP
            | libc::SO_TIMESTAMPNS
            | libc::SO_TIMESTAMPING
            | libc::SO_PEEK_OFF,
        )
        | (libc::IPPROTO_TCP, TCP_INQ) => on,
        (libc::IPPROTO_TCP, libc::TCP_ULP | TCP_REPAIR | TCP_ZEROCOPY_RECEIVE) => true,
        _ => false,
    }
}

/// The number that an option is set to, if it is one.
///
/// # Safety
/// The value is the program's, as long as it says.
unsafe fn number(value: *const c_void, length: socklen_t) -> Option<c_int> {
    let enough = usize::try_from(length).is_ok_and(|l| l >= size_of::<c_int>());
    // SAFETY: the caller's promise.
    (enough && !value.is_null()).then(|| unsafe { value.cast::<c_int>().read_unaligned() })
}

/// Leaves a socket to the kernel for good.
fn leave_to_the_kernel(fd: c_int) {
    match table::mark(fd) {
        Mark::Stream => table::set_other(fd),
        Mark::Connection => {
            if let Some(held) = table::get(fd) {
                stay_with_the_kernel(&held, fd);
            }
        }
        Mark::None | Mark::Other | Mark::Private | Mark::Set => {}
    }
}

export! {
    /// The kernel's.
    fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t,
    ) -> c_int {
        if level == libc::IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE {
            leave_to_the_kernel(fd);
        }
        // SAFETY: the program's own call.
        let answer = unsafe { real::getsockopt(fd, level, name, value, length) };
        if level == libc::SOL_SOCKET
            && name == libc::SO_ERROR
            && answer == 0
            && let Some(held) = table::get(fd)
        {
            let _inside = guard::enter();
            keeping_errno(|| held.error_taken());
        }
        answer
    }

    /// The kernel's.
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t,
    ) -> c_int {
        if matches!(level, libc::SOL_SOCKET | libc::IPPROTO_TCP)
            && matches!(table::mark(fd), Mark::Stream | Mark::Connection)
        {
            // SAFETY: the program's value.
            let number = unsafe { number(value, length) };
            if is_for_the_kernel(level, name, number) {
                leave_to_the_kernel(fd);
            }
        }
        // SAFETY: the program's own call.
        unsafe { real::setsockopt(fd, level, name, value, length) }
    }

    /// The kernel's.
    fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        // SAFETY: the program's own call.
        unsafe { real::getsockname(fd, address, length) }
    }

    /// The kernel's.
    fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        // SAFETY: the program's own call.
        unsafe { real::getpeername(fd, address, length) }
    }

    /// The kernel's, or the companion's where the urgent byte does not come through the kernel.
    fn sockatmark(fd: c_int) -> c_int {
        if let Some(held) = table::get(fd) {
            let _inside = guard::enter();
            if let Some(told) = keeping_errno(|| held.at_mark()) {
                return c_int::from(told);
            }
        }
        // SAFETY: takes no pointer.
        unsafe { real::sockatmark(fd) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_touch_the_bytes_are_for_the_kernel() {
        let socket = libc::SOL_SOCKET;
        assert!(is_for_the_kernel(socket, libc::SO_RCVLOWAT, Some(100)));
        assert!(!is_for_the_kernel(socket, libc::SO_RCVLOWAT, Some(1)));
        assert!(is_for_the_kernel(libc::IPPROTO_TCP, libc::TCP_ULP, None));
        assert!(!is_for_the_kernel(socket, libc::SO_TIMESTAMP, Some(0)));
        assert!(!is_for_the_kernel(
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            Some(1)
        ));
    }
}
