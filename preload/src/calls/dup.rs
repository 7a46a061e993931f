//! Numbers: dup and its kin, fcntl, ioctl.
//!
//! Owns that all numbers of one open file description share its connection.

use core::ffi::{c_int, c_ulong};
use std::sync::Arc;

use super::life::{ended, forget_stale};
use super::stream::stay_with_the_kernel;
use crate::raw::{fail, keeping_errno};
use crate::table::Mark;
use crate::{export, file, guard, hidden, real, sets, table};

/// `made` is a new number for what `from` stands for, or an error.
fn duplicated(from: c_int, made: c_int) -> c_int {
    if made < 0 {
        return made;
    }
    if guard::inside() {
        return hidden::adopt(made);
    }
    if table::mark(from) == Mark::None && table::mark(made) == Mark::None {
        return made;
    }
    keeping_errno(|| share(from, made));
    made
}

/// Has `to` stand for what `from` stands for.
fn share(from: c_int, to: c_int) {
    if let Some(held) = table::get(from) {
        ended(table::insert(to, Arc::clone(held.descriptor())), -1);
        super::stdio::standard_number(to);
        return;
    }
    forget_stale(to);
    match table::mark(from) {
        Mark::Stream => {
            table::set_stream(to);
            super::life::streams_are_shared();
        }
        Mark::Other => table::set_other(to),
        Mark::Set => sets::duplicated(from, to),
        Mark::None | Mark::Private | Mark::Connection => {}
    }
}

/// dup2() and dup3(): `to` is closed by the same call.
fn duplicated_over(from: c_int, to: c_int, kernel: impl Fn() -> c_int) -> c_int {
    if from == to || guard::our_thread() {
        return kernel();
    }
    let replaced = table::mark(to);
    if replaced == Mark::Private {
        if !file::is_open(from) {
            return fail(libc::EBADF);
        }
        // The number is to be the program's: what is ours there takes another one, which its users
        // would not learn of. It cannot be had.
        return fail(libc::EBUSY);
    }
    if replaced == Mark::Connection && file::is_open(from) {
        keeping_errno(|| ended(table::take(to), to));
    }
    let made = kernel();
    if made >= 0 && (replaced != Mark::None || table::mark(from) != Mark::None) {
        keeping_errno(|| share(from, made));
    }
    made
}

/// fcntl() as both of its names.
fn controlled(fd: c_int, command: c_int, argument: usize, kernel: impl Fn() -> c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicated(fd, kernel()),
        libc::F_SETFL => {
            // Signals about readiness come from the kernel's socket only.
            let asks = argument & libc::O_ASYNC.unsigned_abs() as usize != 0;
            if asks && let Some(held) = table::get(fd) {
                stay_with_the_kernel(&held, fd);
            }
            kernel()
        }
        _ => kernel(),
    }
}

export! {
    /// The new number stands for the same connection.
    fn dup(fd: c_int) -> c_int {
        // SAFETY: takes no pointer.
        duplicated(fd, unsafe { real::dup(fd) })
    }

    /// As `dup`; what the second number stood for is closed.
    fn dup2(from: c_int, to: c_int) -> c_int {
        // SAFETY: takes no pointer.
        duplicated_over(from, to, || unsafe { real::dup2(from, to) })
    }

    /// As `dup2`.
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
        if from == to {
            return fail(libc::EINVAL);
        }
        // SAFETY: takes no pointer.
        duplicated_over(from, to, || unsafe { real::dup3(from, to, flags) })
    }

    /// The kernel's; new numbers are noted.
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
        // SAFETY: the program's own call; an argument that it does not give is not looked at.
        controlled(fd, command, argument, || unsafe { real::fcntl(fd, command, argument) })
    }

    /// As `fcntl`.
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
        // SAFETY: the program's own call; an argument that it does not give is not looked at.
        controlled(fd, command, argument, || unsafe { real::fcntl64(fd, command, argument) })
    }

    /// The kernel's, but for what it cannot know of a connection.
    fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
        // SAFETY: the program's own call; an argument that it does not give is not looked at.
        let kernel = || unsafe { real::ioctl(fd, request, argument) };
        let Some(held) = table::get(fd) else {
            return kernel();
        };
        let told = || match request {
            libc::FIONREAD => held
                .ioctl_fionread()
                .map(|count| c_int::try_from(count).unwrap_or(c_int::MAX)),
            SIOCATMARK => held.at_mark().map(c_int::from),
            _ => None,
        };
        let told = || {
            let _inside = guard::enter();
            keeping_errno(told)
        };
        let before = told();
        if request == libc::FIOASYNC {
            stay_with_the_kernel(&held, fd);
        }
        let answer = match before {
            Some(_) => 0,
            None => kernel(),
        };
        // The kernel may have counted what only came while it was asked, and is not the program's.
        let told = match before {
            None if answer == 0 => told(),
            before => before,
        };
        let Some(told) = told else {
            return answer;
        };
        let Some(place) = core::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut(argument))
        else {
            return fail(libc::EFAULT);
        };
        // SAFETY: the program's place for an int: both requests give one.
        unsafe { place.write_unaligned(told) };
        0
    }
}

/// libc has it under this number on every architecture that we run on.
const SIOCATMARK: c_ulong = 0x8905;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_answered_as_such() {
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { dup2(-1, 900) }, -1);
        assert_eq!(crate::raw::errno(), libc::EBADF);
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { dup3(5, 5, 0) }, -1);
        assert_eq!(crate::raw::errno(), libc::EINVAL);
    }
}
