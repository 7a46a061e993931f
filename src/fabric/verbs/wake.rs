//! How somebody who sleeps for an endpoint is woken by another thread of the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fabric::soft::sys as os;

/// A descriptor that is readable from the last `wake` until `clear`.
#[derive(Debug)]
pub(super) struct Waker {
    event: OwnedFd,
    /// Whether `event` may be readable.
    woken: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            event: os::event()?,
            woken: AtomicBool::new(false),
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn wake(&self) {
        os::signal(self.event.as_fd());
        // Afterwards: who arms in between leaves the event as it is, and the next one clears it.
        self.woken.store(true, Ordering::SeqCst);
    }

    pub(super) fn clear(&self) {
        if self.woken.swap(false, Ordering::SeqCst) {
            os::drain(self.event.as_fd());
        }
    }

    /// Whether somebody has woken, and nobody cleared it.
    #[cfg(test)]
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}
