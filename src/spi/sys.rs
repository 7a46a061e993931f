//! The system calls of the boundary and of the engine.

use core::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::engine::{EventObject, System};

/// Linux, as the engine sees it.
pub(super) struct Linux;

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Adds 1 to an eventfd; a full one is as readable as can be.
fn signal(descriptor: RawFd) {
    let one = 1_u64;
    // SAFETY: 8 bytes of ours are read.
    let written = unsafe { libc::write(descriptor, (&raw const one).cast::<c_void>(), 8) };
    if written < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
        tracing::error!(descriptor, error = %io::Error::last_os_error(), "cannot signal");
    }
}

fn drain(descriptor: RawFd) {
    let mut count = 0_u64;
    // SAFETY: 8 bytes of ours are written. That there was nothing to read is no failure.
    unsafe { libc::read(descriptor, (&raw mut count).cast::<c_void>(), 8) };
}

/// The descriptor behind an event: one less than the handle.
fn descriptor_of(event: EventObject) -> Option<RawFd> {
    RawFd::try_from(event.0.checked_sub(1)?).ok()
}

/// Sets an event for a switch that has no upcall for that.
pub(super) fn set_event(event: EventObject) {
    if let Some(descriptor) = descriptor_of(event) {
        signal(descriptor);
    }
}

/// Resets an event for a switch that has no upcall for that.
pub(super) fn reset_event(event: EventObject) {
    if let Some(descriptor) = descriptor_of(event) {
        drain(descriptor);
    }
}

impl System for Linux {
    fn wake_descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: takes and returns plain values.
        let made = checked(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: just made, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }

    fn signal(&self, descriptor: BorrowedFd<'_>) {
        signal(descriptor.as_raw_fd());
    }

    fn drain(&self, descriptor: BorrowedFd<'_>) {
        drain(descriptor.as_raw_fd());
    }

    fn sleep(&self, descriptors: &[BorrowedFd<'_>], longest: Option<Duration>) {
        let mut waiting: Vec<libc::pollfd> = descriptors
            .iter()
            .map(|descriptor| libc::pollfd {
                fd: descriptor.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let longest = longest.map(|longest| libc::timespec {
            tv_sec: libc::time_t::try_from(longest.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        });
        let limit = longest
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array has the length that is given, the time is null or ours, and a null
        // mask means the thread's own.
        let result = unsafe {
            libc::ppoll(
                waiting.as_mut_ptr(),
                waiting.len() as libc::nfds_t,
                limit,
                std::ptr::null(),
            )
        };
        if result < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            tracing::error!(error = %io::Error::last_os_error(), "cannot sleep");
            // Without this a broken descriptor would burn a CPU.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn any_of(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        // SAFETY: takes and returns plain values.
        let made = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just made, and nobody else's.
        let set = unsafe { OwnedFd::from_raw_fd(made) };
        for descriptor in descriptors {
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN.cast_unsigned(),
                u64: 0,
            };
            let (set, member) = (set.as_raw_fd(), descriptor.as_raw_fd());
            // SAFETY: both descriptors are open, the event is read during the call only.
            let added =
                unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, member, &raw mut event) };
            checked(added)?;
        }
        Ok(set)
    }

    fn block_signals(&self) {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: fills the set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: the set is filled; a null third argument asks for nothing.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
    }
}
