//! The interposed functions, by what they are about.

pub(crate) mod data;
pub(crate) mod dup;
pub(crate) mod epoll;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod info;
pub(crate) mod jump;
pub(crate) mod life;
pub(crate) mod message;
pub(crate) mod pass;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod select;
pub(crate) mod spawn;
pub(crate) mod stdio;
pub(crate) mod stream;
pub(crate) mod syscall;

use core::ffi::{c_int, c_void};
use core::mem::transmute;

use libc::{msghdr, nfds_t, pollfd, ssize_t};
use wsd_switch::companion::{Kernel, set_herald, set_kernel};

use crate::real::address;
use crate::{guard, hidden, real, sets, table};

/// Tells the switch which functions are the real ones, so that it does not come back to us.
#[allow(
    clippy::missing_transmute_annotations,
    reason = "the fields of the structure say which types they are"
)]
pub(crate) fn give_kernel() {
    /// A function's address as the pointer type that the place wants.
    macro_rules! function {
        ($name:ident) => {
            // SAFETY: the address is of the function of this name, whose type the place has.
            unsafe { transmute::<*mut c_void, _>(address::$name()) }
        };
    }
    let kernel = Kernel {
        recvmsg: received_for_us,
        sendmsg: sent_for_us,
        poll: waited_for_us,
        // SAFETY: a caller that gives all three arguments passes them as to a function that has them.
        fcntl: unsafe { transmute::<*mut c_void, _>(controlled_for_us as *mut c_void) },
        ioctl: function!(ioctl),
        getsockopt: function!(getsockopt),
        setsockopt: function!(setsockopt),
        getsockname: function!(getsockname),
        getpeername: function!(getpeername),
        connect: function!(connect),
        shutdown: function!(shutdown),
        close: closed_for_us,
    };
    // SAFETY: each is what `real` found, or goes to the kernel as libc's would.
    unsafe { set_kernel(kernel) };
    set_herald(sets::announced);
}

/// recvmsg() for the switch, in which the program may wait.
unsafe extern "C-unwind" fn received_for_us(
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let asked = || unsafe { real::recvmsg(fd, message, flags) };
    match flags & libc::MSG_DONTWAIT {
        // Nobody waits, and what has been moved must be told of.
        0 => guard::waiting(asked),
        _ => asked(),
    }
}

/// sendmsg() for the switch, in which the program may wait.
unsafe extern "C-unwind" fn sent_for_us(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let asked = || unsafe { real::sendmsg(fd, message, flags) };
    match flags & libc::MSG_DONTWAIT {
        // Nobody waits, and what has been moved must be told of.
        0 => guard::waiting(asked),
        _ => asked(),
    }
}

/// poll() for the switch, in which the program may wait.
unsafe extern "C-unwind" fn waited_for_us(fds: *mut pollfd, count: nfds_t, time: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let asked = || unsafe { real::poll(fds, count, time) };
    match time {
        0 => asked(),
        _ => guard::waiting(asked),
    }
}

/// fcntl() for the switch: numbers that it makes are out of the program's reach.
unsafe extern "C-unwind" fn controlled_for_us(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's arguments.
    let answer = unsafe { real::fcntl(fd, command, argument) };
    if command == libc::F_DUPFD || command == libc::F_DUPFD_CLOEXEC {
        return hidden::adopt(answer);
    }
    answer
}

/// close() for the switch, of its own numbers.
unsafe extern "C" fn closed_for_us(fd: c_int) -> c_int {
    if table::mark(fd) == table::Mark::Private {
        drop(table::take(fd));
    }
    // SAFETY: takes no pointer.
    unsafe { real::close(fd) }
}
