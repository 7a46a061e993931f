//! The life of a socket: from socket() to close().
//!
//! Owns which sockets come into the table at all: TCP ones, when connect() or accept() makes a
//! connection of them. Invariant: what the program gets is the kernel's answer, unchanged, and
//! nothing here waits but the kernel's own call. With `WSD_SWITCH=off` nothing comes into the table.

use core::ffi::{c_int, c_uint};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{sockaddr, socklen_t};
use wsd_switch::companion::{Companion, Role, all, is_off};

use crate::log::Border;
use crate::raw::{errno, fail, keeping_errno, set_errno};
use crate::table::{Descriptor, Mark, Taken};
use crate::{export, file, guard, hidden, log, prepare, real, sets, table};

/// The number has just been given out by the kernel: what we know of it is of a file that is gone.
pub(super) fn forget_stale(fd: c_int) {
    if fd >= 0 && table::mark(fd) != Mark::None {
        keeping_errno(|| ended(table::take(fd), -1));
    }
}

/// Lets a connection go whose number was taken out. `fd` is the number if it is still open.
pub(super) fn ended(taken: Option<Taken>, fd: c_int) {
    let Some(taken) = taken else {
        return;
    };
    if !taken.last {
        return;
    }
    let _border = Border;
    let _inside = guard::enter();
    let companion = taken.descriptor.companion();
    // A number that leads elsewhere now must not be touched in the connection's name.
    let known = companion.on_kernel() || taken.descriptor.is_behind(fd);
    last_word(companion);
    companion.close(if known { fd } else { -1 });
}

/// The line of the log that sums a connection up.
fn last_word(companion: &Companion) {
    if log::is_on()
        && let Some(summary) = companion.last_summary()
    {
        log::line(&format!(
            "end pid={} program={} {summary}",
            std::process::id(),
            log::program(),
        ));
    }
}

/// The lines of the connections that the process leaves open at its end.
#[cfg_attr(test, allow(dead_code))]
pub(crate) fn last_words() {
    if !log::is_on() {
        return;
    }
    let _inside = guard::enter();
    for companion in all() {
        last_word(&companion);
    }
}

/// Enters a connection that the kernel has just made, or begun to make.
fn made(fd: c_int, role: Role) {
    prepare();
    if super::process::all_stay() {
        forget_stale(fd);
        table::set_other(fd);
        return;
    }
    let _border = Border;
    let _inside = guard::enter();
    // SAFETY: the number is open: the kernel has just accepted it, or connected it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let Some(companion) = Companion::new(borrowed, role) else {
        forget_stale(fd);
        return;
    };
    // What it was before, if an attempt before this one has failed.
    let mut notes = match table::get(fd).filter(|_| role == Role::Connected) {
        Some(held) => held
            .descriptor()
            .notes()
            .hand_on(held.descriptor().companion()),
        None => Vec::new(),
    };
    let descriptor = Descriptor::new(companion, fd);
    let old = table::insert(fd, Arc::clone(&descriptor));
    ended(old, -1);
    let early = sets::take_early(fd);
    if role == Role::Connected {
        notes.extend(early);
        if STREAMS_SHARED.load(Ordering::Relaxed) {
            notes.extend(share_with_all(fd, &descriptor));
        }
    }
    descriptor.notes().adopt(notes, descriptor.companion());
}

/// Whether a TCP socket without a connection has ever had two numbers.
static STREAMS_SHARED: AtomicBool = AtomicBool::new(false);

/// A TCP socket without a connection has got another number.
pub(super) fn streams_are_shared() {
    STREAMS_SHARED.store(true, Ordering::Relaxed);
}

/// Has the other numbers of a socket that is connected now stand for its connection. Where they are
/// registered.
fn share_with_all(fd: c_int, descriptor: &Arc<Descriptor>) -> Vec<sets::Note> {
    let mut notes = Vec::new();
    let own = file::identity(fd);
    table::each(|other, mark| {
        if mark == Mark::Stream && other != fd && own.is_some() && file::identity(other) == own {
            ended(table::insert(other, Arc::clone(descriptor)), -1);
            notes.extend(sets::take_early(other));
        }
    });
    notes
}

/// Whether a socket is a TCP socket that may get connections; asks the kernel once for a number.
fn is_stream(fd: c_int) -> bool {
    match table::mark(fd) {
        Mark::Stream => true,
        Mark::None => {
            let stream = keeping_errno(|| file::is_tcp(fd));
            if stream {
                table::set_stream(fd);
            } else {
                table::set_other(fd);
            }
            stream
        }
        Mark::Other | Mark::Private | Mark::Set | Mark::Connection => false,
    }
}

/// Whether socket() makes a TCP socket of these.
fn asks_for_tcp(domain: c_int, kind: c_int, protocol: c_int) -> bool {
    (domain == libc::AF_INET || domain == libc::AF_INET6)
        && kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_STREAM
        && (protocol == 0 || protocol == libc::IPPROTO_TCP)
}

export! {
    /// Notes which descriptors are TCP sockets.
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        // SAFETY: takes no pointer.
        let fd = unsafe { real::socket(domain, kind, protocol) };
        if fd < 0 {
            return fd;
        }
        if guard::inside() {
            return hidden::adopt(fd);
        }
        if is_off() {
            return fd;
        }
        forget_stale(fd);
        if asks_for_tcp(domain, kind, protocol) {
            table::set_stream(fd);
        }
        fd
    }

    /// The kernel's; an address is all that a companion needs to know, and it asks for it.
    fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
        // SAFETY: the program's own call.
        unsafe { real::bind(fd, address, length) }
    }

    /// The kernel's: listeners publish nothing.
    fn listen(fd: c_int, backlog: c_int) -> c_int {
        // SAFETY: the program's own call.
        unsafe { real::listen(fd, backlog) }
    }

    /// Gives the connection its companion.
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        // SAFETY: the program's own call.
        accepted(fd, unsafe { real::accept(fd, address, length) })
    }

    /// Gives the connection its companion.
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int {
        // SAFETY: the program's own call.
        accepted(fd, unsafe { real::accept4(fd, address, length, flags) })
    }

    /// Gives the connection its companion, also while it is being made.
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
        // SAFETY: the program's own call.
        let answer = unsafe { real::connect(fd, address, length) };
        connected(fd, answer, || family(address, length));
        answer
    }

    /// Both paths.
    fn shutdown(fd: c_int, how: c_int) -> c_int {
        let Some(held) = table::get(fd) else {
            // SAFETY: takes no pointer.
            return unsafe { real::shutdown(fd, how) };
        };
        let _border = Border;
        let _inside = guard::enter();
        let before = errno();
        match held.shutdown(fd, how) {
            Ok(()) => {
                set_errno(before);
                0
            }
            Err(e) => fail(e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Ends the connection when its last number goes. Our own descriptors are not open for the
    /// program.
    fn close(fd: c_int) -> c_int {
        match table::mark(fd) {
            Mark::None => {}
            Mark::Private if !guard::inside() => return fail(libc::EBADF),
            _ => keeping_errno(|| ended(table::take(fd), fd)),
        }
        // SAFETY: takes no pointer.
        unsafe { real::close(fd) }
    }

    /// As close() for each.
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
        #[allow(clippy::cast_possible_wrap)]
        const CLOEXEC: c_int = libc::CLOSE_RANGE_CLOEXEC as c_int;
        if flags & CLOEXEC != 0 || first > last {
            // SAFETY: takes no pointer.
            return unsafe { real::close_range(first, last, flags) };
        }
        let mut from = first;
        for own in numbers_to_close(first, last) {
            if own > from {
                // SAFETY: takes no pointer.
                let answer = unsafe { real::close_range(from, own - 1, flags) };
                if answer != 0 {
                    return answer;
                }
            }
            from = own + 1;
        }
        if from > last {
            return 0;
        }
        // SAFETY: takes no pointer.
        unsafe { real::close_range(from, last, flags) }
    }

    /// As close() for each.
    fn closefrom(first: c_int) {
        let from = c_uint::try_from(first).unwrap_or(0);
        let own = numbers_to_close(from, c_uint::MAX);
        let Some(&highest) = own.last() else {
            // SAFETY: takes no pointer.
            return unsafe { real::closefrom(first) };
        };
        let mut from = from;
        for own in own {
            if own > from {
                // SAFETY: takes no pointer.
                unsafe { real::close_range(from, own - 1, 0) };
            }
            from = own + 1;
        }
        // SAFETY: takes no pointer.
        unsafe { real::closefrom(c_int::try_from(highest + 1).unwrap_or(c_int::MAX)) };
    }
}

/// Ends the connections whose numbers are about to be closed, and says which numbers are not to be
/// closed, for they are ours; in ascending order.
fn numbers_to_close(first: c_uint, last: c_uint) -> Vec<c_uint> {
    let mut own = Vec::new();
    keeping_errno(|| {
        table::each(|fd, mark| {
            let Ok(number) = c_uint::try_from(fd) else {
                return;
            };
            if !(first..=last).contains(&number) {
                return;
            }
            if mark == Mark::Private {
                own.push(number);
            } else {
                ended(table::take(fd), fd);
            }
        });
    });
    own
}

fn accepted(listener: c_int, fd: c_int) -> c_int {
    if fd < 0 {
        return fd;
    }
    if guard::inside() {
        return hidden::adopt(fd);
    }
    if is_off() {
        return fd;
    }
    if is_stream(listener) {
        keeping_errno(|| made(fd, Role::Accepted));
    } else {
        forget_stale(fd);
    }
    fd
}

/// The family of an address, if there is one.
fn family(address: *const sockaddr, length: socklen_t) -> c_int {
    let room = usize::try_from(length).unwrap_or(0);
    if address.is_null() || room < size_of::<libc::sa_family_t>() {
        return libc::AF_UNSPEC;
    }
    // SAFETY: the kernel has read the address just before, as long as the program said it is.
    c_int::from(unsafe { (*address).sa_family })
}

/// What became of a connect() that the kernel has answered.
fn connected(fd: c_int, answer: c_int, family: impl Fn() -> c_int) {
    let mark = table::mark(fd);
    if matches!(mark, Mark::Other | Mark::Private) || is_off() || guard::our_thread() {
        return;
    }
    // A call that a signal interrupts goes on, as one of a non-blocking socket does.
    let under_way = answer != 0 && matches!(errno(), libc::EINPROGRESS | libc::EINTR);
    if answer != 0 && !under_way {
        return;
    }
    match (mark, family()) {
        // An association that is dissolved leaves a fresh socket.
        (Mark::Connection, libc::AF_UNSPEC) => {
            keeping_errno(|| ended(table::take(fd), -1));
            table::set_stream(fd);
        }
        // It was under way, and the program asks again.
        (Mark::Connection, _) if answer == 0 => {}
        (_, libc::AF_INET | libc::AF_INET6) if mark == Mark::Connection || is_stream(fd) => {
            keeping_errno(|| made(fd, Role::Connected));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tcp_is_asked_for_as_tcp() {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        assert!(asks_for_tcp(libc::AF_INET, libc::SOCK_STREAM | flags, 0));
        assert!(asks_for_tcp(
            libc::AF_INET6,
            libc::SOCK_STREAM,
            libc::IPPROTO_TCP
        ));
        assert!(!asks_for_tcp(libc::AF_INET, libc::SOCK_DGRAM, 0));
        assert!(!asks_for_tcp(libc::AF_UNIX, libc::SOCK_STREAM, 0));
        assert!(!asks_for_tcp(
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_SCTP
        ));
        assert!(!asks_for_tcp(
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_MPTCP
        ));
    }

    #[test]
    fn the_family_is_read_only_from_an_address() {
        assert_eq!(family(core::ptr::null(), 16), libc::AF_UNSPEC);
        let address = sockaddr {
            sa_family: 10,
            sa_data: [0; 14],
        };
        assert_eq!(family(&raw const address, 1), libc::AF_UNSPEC);
        assert_eq!(family(&raw const address, 16), libc::AF_INET6);
    }
}
