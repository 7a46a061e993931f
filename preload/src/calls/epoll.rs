//! epoll(7): what has to do with connections goes to `sets`, everything else to the kernel.

use core::ffi::c_int;

use libc::{epoll_event, sigset_t, timespec};
use wsd_switch::companion::is_off;

use crate::clock::Time;
use crate::log::Border;
use crate::sets::{self, Wait};
use crate::table::Mark;
use crate::{export, guard, hidden, real, table};

/// A new set: ours, if our code asked for it, or the program's.
fn created(fd: c_int) -> c_int {
    if guard::inside() {
        return hidden::adopt(fd);
    }
    if fd >= 0 && !is_off() {
        let _border = Border;
        sets::created(fd);
    }
    fd
}

export! {
    /// Notes the set.
    fn epoll_create(size: c_int) -> c_int {
        // SAFETY: takes no pointer.
        created(unsafe { real::epoll_create(size) })
    }

    /// Notes the set.
    fn epoll_create1(flags: c_int) -> c_int {
        // SAFETY: takes no pointer.
        created(unsafe { real::epoll_create1(flags) })
    }

    /// Notes connections; of those that the SAN carries, the set gets what stands for them.
    fn epoll_ctl(set: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        match table::mark(fd) {
            Mark::Connection if !guard::our_thread() => {
                if let Some(held) = table::get(fd) {
                    let _border = Border;
                    return sets::control(set, operation, fd, event, &held);
                }
            }
            // It may become a connection in the set.
            Mark::Stream if !guard::our_thread() => {
                let _border = Border;
                return sets::control_early(set, operation, fd, event);
            }
            // A set in a set: who waits for the outer one, waits for the inner one unseen.
            Mark::Set if operation == libc::EPOLL_CTL_ADD => sets::show_to_all(fd),
            _ => {}
        }
        // SAFETY: the program's own call.
        unsafe { real::epoll_ctl(set, operation, fd, event) }
    }

    /// Waits for both kinds.
    fn epoll_wait(set: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int {
        if guard::our_thread() || table::mark(set) != Mark::Set {
            // SAFETY: the program's own call.
            return unsafe { real::epoll_wait(set, events, room, timeout) };
        }
        let _border = Border;
        let wait = Wait { set, events, room, time: Time::Millis(timeout), mask: None };
        // SAFETY: the program's own call.
        sets::wait(wait, || unsafe { real::epoll_wait(set, events, room, timeout) })
    }

    /// Waits for both kinds, with this mask.
    fn epoll_pwait(
        set: c_int, events: *mut epoll_event, room: c_int, timeout: c_int, mask: *const sigset_t,
    ) -> c_int {
        if table::mark(set) != Mark::Set {
            // SAFETY: the program's own call.
            return unsafe { real::epoll_pwait(set, events, room, timeout, mask) };
        }
        let _border = Border;
        // SAFETY: null, or a set of signals of the program's, live during the call.
        let signals = unsafe { mask.as_ref() };
        let wait = Wait { set, events, room, time: Time::Millis(timeout), mask: signals };
        // SAFETY: the program's own call.
        sets::wait(wait, || unsafe { real::epoll_pwait(set, events, room, timeout, mask) })
    }

    /// Waits for both kinds, with this mask.
    fn epoll_pwait2(
        set: c_int, events: *mut epoll_event, room: c_int, timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int {
        // SAFETY: null, or a time of the program's, live during the call.
        let span = unsafe { timeout.as_ref() };
        let valid = span.is_none_or(crate::clock::is_valid);
        if table::mark(set) != Mark::Set || !valid {
            // SAFETY: the program's own call.
            return unsafe { real::epoll_pwait2(set, events, room, timeout, mask) };
        }
        let _border = Border;
        // SAFETY: null, or a set of signals of the program's, live during the call.
        let signals = unsafe { mask.as_ref() };
        let wait = Wait { set, events, room, time: Time::Span(span), mask: signals };
        // SAFETY: the program's own call.
        sets::wait(wait, || unsafe { real::epoll_pwait2(set, events, room, timeout, mask) })
    }
}
