//! The system calls the switch needs and std does not offer: eventfd, poll, interface addresses
//! with their masks, the notice of address changes, TCP sockets that are bound before they connect,
//! and the signal mask.
//!
//! Owns descriptors only. Every function is safe to call with any argument; the invariant is that
//! a descriptor is closed exactly once, by the `OwnedFd` that holds it.

mod addresses;
mod event;
mod options;
mod poll;
mod tcp;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) use addresses::{AddressWatch, interface_addresses, source_towards};
pub(crate) use event::{Event, close_event, create_event, reset_event, set_event};
#[cfg(test)]
pub(crate) use options::keep_alive_values;
pub(crate) use options::{
    is_at_mark, keep_alive, linger, oob_inline, receive, receive_urgent, send, send_urgent,
    set_linger, set_oob_inline, unsent,
};
pub(crate) use poll::{Interest, PollFd, PollSet, wait, wait_once};
pub(crate) use tcp::TcpSocket;

/// Turns the -1 of a system call into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// How many descriptors this process may have open.
pub(crate) fn descriptor_limit() -> usize {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the pointer is to a whole rlimit of this frame, which the kernel fills in or leaves.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) };
    // SAFETY: two integers, zero or filled in.
    let limit = unsafe { limit.assume_init() };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just handed out this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this process runs with more rights than its user (set-user-ID and the like). Then the
/// environment must not name code to load.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Has a function called at the regular end of the process. Refusal is no loss.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function of this library, which is never unloaded while it is linked in.
    unsafe { libc::atexit(function) };
}

/// Keeps the application's signal handlers off the calling thread, one of ours.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is filled; a null third argument asks for nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

/// `Duration` to a deadline; a time too long to be expressed is none.
pub(crate) fn deadline_after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}
