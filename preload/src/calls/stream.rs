//! How a call on a connection goes.
//!
//! Owns the two ways that a call on a connection goes: by the kernel, with the program's own call,
//! exactly, between a beginning and an end that the companion is told; or by the companion, over the
//! SAN. Which one is asked anew for each call. Invariant: no byte passes a connection of the table
//! without its companion's knowledge.

use core::ffi::{c_int, c_void};
use std::io;
use std::slice;

use libc::{iovec, size_t, ssize_t};
use wsd_switch::companion::Reason;

use crate::log::Border;
use crate::raw::{errno, keeping_errno, set_errno};
use crate::table::Held;
use crate::{guard, table};

/// Buffers that a call of the kernel takes at most.
const MOST_BUFFERS: usize = 1024;

/// A buffer of the program as the list that our functions take.
pub(super) fn one(buffer: *const c_void, length: size_t) -> [iovec; 1] {
    [iovec {
        iov_base: buffer.cast_mut(),
        iov_len: length,
    }]
}

/// The program's list of buffers; none if the kernel would refuse it: let it say how.
///
/// # Safety
/// The list is as long as the program says.
pub(super) unsafe fn list<'a>(buffers: *const iovec, count: size_t) -> Option<&'a [iovec]> {
    if count == 0 {
        return Some(&[]);
    }
    if buffers.is_null() || count > MOST_BUFFERS {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { slice::from_raw_parts(buffers, count) })
}

/// The length of the list all together.
pub(super) fn total(buffers: &[iovec]) -> usize {
    buffers
        .iter()
        .fold(0, |sum, b| sum.saturating_add(b.iov_len))
}

/// The answer of a companion as libc gives it: errno stays as it was unless there is an error.
fn answer(before: c_int, outcome: io::Result<usize>) -> ssize_t {
    match outcome {
        Ok(count) => {
            set_errno(before);
            ssize_t::try_from(count).unwrap_or(ssize_t::MAX)
        }
        Err(e) => {
            set_errno(e.raw_os_error().unwrap_or(libc::EIO));
            -1
        }
    }
}

/// Whether the number leads elsewhere than the connection that the table has for it. Asked where a
/// connection ends or fails: that is what one looks like that was closed without our knowledge.
fn is_stale(held: &Held, fd: c_int) -> bool {
    keeping_errno(|| {
        if !held.descriptor().is_elsewhere(fd) {
            return false;
        }
        super::life::ended(table::take_if(fd, held.descriptor()), -1);
        true
    })
}

/// Receives on a connection. `kernel` is the program's own call.
///
/// # Safety
/// The buffers are the program's, for a call that writes to them.
pub(super) unsafe fn receive(
    held: &Held,
    fd: c_int,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl Fn() -> ssize_t,
) -> ssize_t {
    let _border = Border;
    if flags & libc::MSG_ERRQUEUE != 0 {
        // Not of the stream.
        return kernel();
    }
    // The kernel would wait for bytes that come over the SAN, should the peer change over meanwhile.
    let whole = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_DONTWAIT == 0;
    loop {
        let receiving = if whole { None } else { held.begin_receive(fd) };
        let Some(receiving) = receiving else {
            if held.descriptor().is_to_be_looked_at() && is_stale(held, fd) {
                return kernel();
            }
            guard::point();
            let before = errno();
            let inside = guard::enter_to_wait();
            let room = match flags & libc::MSG_TRUNC {
                0 => somewhere(buffers),
                _ => buffers,
            };
            let outcome = if total(buffers) == 0 {
                arrival(held, fd, flags).map(|_| 0)
            } else if total(room) == 0 {
                // What has come stays there; the end and what is wrong is told first.
                match arrival(held, fd, flags) {
                    Ok(1..) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
                    other => other,
                }
            } else {
                // SAFETY: the caller's promise.
                unsafe { held.receive(fd, room, flags) }
            };
            drop(inside);
            let over = !matches!(outcome, Ok(1..)) && total(buffers) != 0;
            if over && is_stale(held, fd) {
                return kernel();
            }
            return answer(before, outcome);
        };
        let got = kernel();
        let inside = guard::enter();
        let mut copy = Copied::new(buffers);
        // SAFETY: the kernel has answered for these buffers; they are the program's to be written.
        let finished = unsafe { receiving.finish(got, flags, copy.list()) };
        drop(inside);
        if let Some(count) = finished {
            return count;
        }
    }
}

/// The first addresses are nobody's: a null pointer, or a member behind one.
const NOBODYS: usize = 4096;

/// The buffers in front of one that is where there is certainly no memory. Others that are wrong are
/// not found out: asking the kernel would cost a system call.
fn somewhere(buffers: &[iovec]) -> &[iovec] {
    let is_nowhere = |b: &iovec| b.iov_len > 0 && b.iov_base.addr() < NOBODYS;
    let end = buffers.iter().position(is_nowhere);
    buffers
        .get(..end.unwrap_or(buffers.len()))
        .unwrap_or_default()
}

/// Receiving no byte waits for one all the same; whether there is one.
fn arrival(held: &Held, fd: c_int, flags: c_int) -> io::Result<usize> {
    let mut byte = 0_u8;
    let place = one((&raw mut byte).cast(), 1);
    // SAFETY: the byte is of this frame.
    unsafe { held.receive(fd, &place, flags & !libc::MSG_TRUNC | libc::MSG_PEEK) }
}

/// The list of buffers for who may change the list.
enum Copied {
    Few([iovec; 8], usize),
    Many(Vec<iovec>),
}

impl Copied {
    fn new(buffers: &[iovec]) -> Copied {
        let mut few = [iovec {
            iov_base: core::ptr::null_mut(),
            iov_len: 0,
        }; 8];
        if let Some(places) = few.get_mut(..buffers.len()) {
            places.copy_from_slice(buffers);
            return Copied::Few(few, buffers.len());
        }
        Copied::Many(buffers.to_vec())
    }

    fn list(&mut self) -> &mut [iovec] {
        match self {
            Copied::Few(few, count) => few.get_mut(..*count).unwrap_or_default(),
            Copied::Many(many) => many,
        }
    }
}

/// From now on the connection is the kernel's alone.
pub(super) fn stay_with_the_kernel(held: &Held, fd: c_int) {
    let _inside = guard::enter();
    keeping_errno(|| drop(held.downgrade(fd, Reason::UnsupportedCall)));
}

/// Sends on a connection. `kernel` is the program's own call.
///
/// # Safety
/// The buffers are the program's, for a call that reads them.
pub(super) unsafe fn transmit(
    held: &Held,
    fd: c_int,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl Fn() -> ssize_t,
) -> ssize_t {
    let _border = Border;
    if flags & libc::MSG_OOB != 0 && held.on_kernel() {
        // The peer's count of what it receives would not have the urgent byte.
        stay_with_the_kernel(held, fd);
    }
    let inside = guard::enter();
    let before = errno();
    let whole = !held.sends_in_pieces(total(buffers));
    if whole && let Some(sending) = held.begin_send(fd) {
        drop(inside);
        set_errno(before);
        let sent = kernel();
        keeping_errno(|| {
            let _inside = guard::enter();
            sending.finish(sent);
        });
        return sent;
    }
    drop(inside);
    if held.descriptor().is_to_be_looked_at() && is_stale(held, fd) {
        return kernel();
    }
    guard::point();
    let inside = guard::enter_to_wait();
    let outcome = if somewhere(buffers).len() < buffers.len() {
        // SAFETY: there is no buffer.
        let able = unsafe { held.send(fd, &[], flags) };
        able.and_then(|_| Err(io::Error::from_raw_os_error(libc::EFAULT)))
    } else {
        // SAFETY: the caller's promise.
        unsafe { held.send(fd, buffers, flags) }
    };
    drop(inside);
    if outcome.is_err() && is_stale(held, fd) {
        return kernel();
    }
    let broken = matches!(&outcome, Err(e) if e.raw_os_error() == Some(libc::EPIPE));
    if broken && flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: what the kernel does to a thread that sends on a connection that is gone.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    answer(before, outcome)
}
