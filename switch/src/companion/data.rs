//! Receiving and sending as the application calls it.
//!
//! The application's buffers are raw memory here, vouched for by the caller; everything behind this
//! file sees slices.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use libc::{c_int, iovec};

use super::{Companion, kernel};

/// A receiving call of the kernel that is under way.
#[derive(Debug)]
#[must_use = "finish must be called"]
pub struct Receiving<'a> {
    companion: &'a Companion,
}

impl<'a> Receiving<'a> {
    pub(super) fn new(companion: &'a Companion) -> Self {
        Receiving { companion }
    }

    /// The call is over with this result; to be called after a failure, too. What the application
    /// is to get; `None` if nothing of it was the application's: then call again. errno is kept.
    ///
    /// # Safety
    /// The first `n` bytes of the buffers, together, were written by the kernel (unless the flags
    /// have MSG_TRUNC) and may be read and written.
    #[inline]
    pub unsafe fn finish(self, n: isize, flags: c_int, buffers: &mut [iovec]) -> Option<isize> {
        let _ = buffers;
        if let Ok(count) = u64::try_from(n)
            && flags & libc::MSG_PEEK == 0
        {
            self.companion.rx.total.fetch_add(count, Ordering::Relaxed);
        }
        Some(n)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.companion.rx.inflight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A sending call of the kernel that is under way.
#[derive(Debug)]
#[must_use = "finish must be called"]
pub struct Sending<'a> {
    companion: &'a Companion,
}

impl<'a> Sending<'a> {
    pub(super) fn new(companion: &'a Companion) -> Self {
        Sending { companion }
    }

    /// The call is over with this result; to be called after a failure, too.
    #[inline]
    pub fn finish(self, n: isize) {
        if let Ok(count) = u64::try_from(n) {
            self.companion.tx.total.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.companion.tx.inflight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Companion {
    /// Receives as recvmsg(2) does with these flags, from wherever the stream goes on; blocks as
    /// the socket and the flags say.
    ///
    /// # Errors
    /// As recvmsg(2).
    ///
    /// # Safety
    /// The buffers may be written to.
    pub unsafe fn receive(&self, fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
        // SAFETY: the caller vouches for the buffers.
        let got = unsafe { kernel::receive(fd, buffers, flags) }?;
        if flags & libc::MSG_PEEK == 0 {
            let count = u64::try_from(got).unwrap_or(0);
            self.rx.total.fetch_add(count, Ordering::Relaxed);
        }
        Ok(got)
    }

    /// Sends as sendmsg(2) does with these flags, but never raises SIGPIPE: that is the caller's.
    ///
    /// # Errors
    /// As sendmsg(2).
    ///
    /// # Safety
    /// The buffers may be read.
    pub unsafe fn send(&self, fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
        // SAFETY: the caller vouches for the buffers.
        let sent = unsafe { kernel::send(fd, buffers, flags | libc::MSG_NOSIGNAL) }?;
        let count = u64::try_from(sent).unwrap_or(0);
        self.tx.total.fetch_add(count, Ordering::Relaxed);
        Ok(sent)
    }
}
