//! poll(2) and its kin.
//!
//! Without a connection that the SAN carries the kernel does all of it, with the program's own
//! arguments; what it says is looked at once more if a connection is about to change.

use core::ffi::c_int;

use libc::{nfds_t, pollfd, sigset_t, size_t, timespec};

use crate::clock::{Clock, Time, is_valid};
use crate::log::Border;
use crate::many::{self, Kind};
use crate::raw::{errno, set_errno};
use crate::{export, guard, real};

/// More than these no process may have open.
const MOST: usize = 1 << 30;

/// Waits; `plain` is the program's own call.
fn wait(
    fds: *mut pollfd,
    count: nfds_t,
    time: Time<'_>,
    mask: Option<&sigset_t>,
    plain: impl FnOnce() -> c_int,
) -> c_int {
    let room = usize::try_from(count).unwrap_or(usize::MAX);
    if guard::our_thread() || fds.is_null() || room == 0 || room > MOST {
        return guard::waiting(plain);
    }
    let _border = Border;
    // SAFETY: the program says that there are so many.
    let fds = unsafe { core::slice::from_raw_parts_mut(fds, room) };
    let kind = Kind::of(fds);
    if kind == Kind::Plain {
        // Calls of our own code that waits for the program come here, too.
        return guard::waiting(plain);
    }
    let mut clock = Clock::new(time);
    if kind == Kind::Kernel {
        let answer = plain();
        if answer <= 0 {
            return answer;
        }
        let left = many::genuine(fds);
        if left > 0 || clock.is_zero() {
            return c_int::try_from(left).unwrap_or(answer);
        }
        // There were markers only: wait on.
    }
    let before = errno();
    match many::wait(fds, &mut clock, mask) {
        Ok(ready) => {
            set_errno(before);
            c_int::try_from(ready).unwrap_or(c_int::MAX)
        }
        Err(code) => {
            set_errno(code);
            -1
        }
    }
}

export! {
    /// Waits, wherever connections are carried.
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
        // SAFETY: the program's own call.
        wait(fds, count, Time::Millis(timeout), None, || unsafe {
            real::poll(fds, count, timeout)
        })
    }

    /// Waits, wherever connections are carried, with this mask.
    fn ppoll(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int {
        // SAFETY: null, or a time of the program's, live during the call.
        let span = unsafe { timeout.as_ref() };
        // SAFETY: null, or a set of signals of the program's, live during the call.
        let signals = unsafe { mask.as_ref() };
        // SAFETY: the program's own call.
        let plain = || unsafe { real::ppoll(fds, count, timeout, mask) };
        if !span.is_none_or(is_valid) {
            return plain();
        }
        wait(fds, count, Time::Span(span), signals, plain)
    }

    /// As `poll`, where the compiler knows how large the array is.
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
        // SAFETY: the program's own call; it ends the program if the array is too small.
        let plain = || unsafe { real::__poll_chk(fds, count, timeout, room) };
        if !fits(count, room) {
            return plain();
        }
        wait(fds, count, Time::Millis(timeout), None, plain)
    }

    /// As `ppoll`, where the compiler knows how large the array is.
    fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
        room: size_t,
    ) -> c_int {
        // SAFETY: null, or a time of the program's, live during the call.
        let span = unsafe { timeout.as_ref() };
        // SAFETY: null, or a set of signals of the program's, live during the call.
        let signals = unsafe { mask.as_ref() };
        // SAFETY: the program's own call; it ends the program if the array is too small.
        let plain = || unsafe { real::__ppoll_chk(fds, count, timeout, mask, room) };
        if !fits(count, room) || !span.is_none_or(is_valid) {
            return plain();
        }
        wait(fds, count, Time::Span(span), signals, plain)
    }
}

/// Whether so many entries are in so many bytes.
fn fits(count: nfds_t, room: size_t) -> bool {
    usize::try_from(count).is_ok_and(|count| count <= room / size_of::<pollfd>())
}
