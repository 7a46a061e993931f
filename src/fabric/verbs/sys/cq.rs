//! Completion queues of the devices.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;

use super::{Conn, Finished, Status, check, count, raw};
use crate::fabric::verbs::completions::Source;

/// How many completions one look takes at most.
pub(in crate::fabric::verbs) const BATCH: usize = 32;

/// A completion queue, and the descriptor that tells of completions.
#[derive(Debug)]
pub(in crate::fabric::verbs) struct Cq {
    raw: NonNull<raw::Cq>,
    fd: RawFd,
}

// SAFETY: the library locks its queues.
unsafe impl Send for Cq {}
// SAFETY: as above.
unsafe impl Sync for Cq {}

impl Cq {
    /// One with so many entries, for connections by the device of this one. `context` names it in the
    /// events of that device.
    pub(in crate::fabric::verbs) fn new(
        conn: &Conn,
        context: u64,
        entries: usize,
    ) -> io::Result<Self> {
        let entries = u32::try_from(entries).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut out = std::ptr::null_mut();
        let mut fd = -1;
        // SAFETY: a live connection and two places for results.
        check(unsafe {
            raw::wsd_cq_create(conn.at(), context, entries, &raw mut out, &raw mut fd)
        })?;
        let raw = NonNull::new(out).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { raw, fd })
    }

    pub(super) fn at(&self) -> *mut raw::Cq {
        self.raw.as_ptr()
    }
}

impl Source for Cq {
    fn take(&self, mut each: impl FnMut(u32, Finished)) -> usize {
        // Not cleared: most looks find nothing.
        let mut got = [const { MaybeUninit::<raw::Completion>::uninit() }; BATCH];
        let room = got.as_mut_ptr().cast();
        // SAFETY: a live completion queue and room for the number given.
        let rc = unsafe { raw::wsd_cq_poll(self.at(), room, count(BATCH)) };
        let found = usize::try_from(rc).unwrap_or(0);
        for one in got.iter().take(found) {
            // SAFETY: as many as were said to be found were written.
            let one = unsafe { one.assume_init_ref() };
            let finished = Finished {
                number: one.number,
                status: match one.status {
                    0 => Status::Done,
                    1 => Status::Flushed,
                    2 => Status::TooLong,
                    3 => Status::RemoteAccess,
                    4 => Status::RemoteRefused,
                    5 => Status::NoAnswer,
                    7 => Status::LocalQueue,
                    _ => Status::Local,
                },
                bytes: usize::try_from(one.bytes).unwrap_or(0),
                code: one.raw,
            };
            each(one.queue, finished);
        }
        found
    }

    fn told(&self) -> io::Result<bool> {
        // SAFETY: a live completion queue.
        Ok(check(unsafe { raw::wsd_cq_told(self.at()) })? == 1)
    }

    fn ask(&self) -> io::Result<()> {
        // SAFETY: a live completion queue.
        check(unsafe { raw::wsd_cq_arm(self.at()) })?;
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: it lives as long as the completion queue.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: made by `new` and dropped once; every queue pair that uses it has kept it.
        if let Err(error) = check(unsafe { raw::wsd_cq_destroy(self.at()) }) {
            tracing::error!(%error, "a completion queue stays with its device");
            #[cfg(test)]
            super::LEFT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
