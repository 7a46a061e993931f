//! Direct RDMA: the initiator's process copies, by `process_vm_readv` and `process_vm_writev`.
//!
//! The guarantee is one among cooperating processes: the kernel lets whoever passes the test at
//! connect reach the whole address space, so the checks against the peer's windows keep errors
//! away, not a hostile program. `rdma_pipelined` gives the stronger one.

use super::link::Link;
use super::rdma::{Counts, Fault, Moved, Rdma};
use super::region;
use super::window::touch;

/// Most bytes of one call to the kernel; between two calls the window may be closed.
const PIECE: usize = 256 << 10;
/// Most bytes in one visit, so that posting and polling return soon.
const VISIT: usize = 1 << 20;
/// How often in a row the kernel may lack memory for a copy before the other way is taken.
const SHORTAGES: u32 = 256;

#[cfg(test)]
thread_local! {
    /// What the kernel says to copies of this thread instead of making them.
    pub(super) static REFUSAL: std::cell::Cell<Option<i32>> = const { std::cell::Cell::new(None) };
}

impl Rdma {
    /// Copies for the transfers in order, up to a bounded number of bytes.
    pub(super) fn copy(
        &mut self,
        link: &Link,
        counts: &Counts,
        moved: &mut Moved,
    ) -> Result<(), Fault> {
        if self.transfers.is_empty() {
            return Ok(());
        }
        // The number of a process that is gone may soon name another one.
        if link.is_peer_gone() {
            return Err(Fault::PeerGone);
        }
        let mut left = VISIT;
        while left > 0 {
            let Some(first) = self.transfers.front_mut() else {
                break;
            };
            let len = (first.len - first.moved).min(PIECE).min(left);
            let copied = touch(
                link,
                &first.remote,
                first.wanted(),
                first.moved as u64,
                |address| {
                    if len == 0 {
                        return Ok(0);
                    }
                    #[cfg(test)]
                    if let Some(code) = REFUSAL.get() {
                        return Err(std::io::Error::from_raw_os_error(code));
                    }
                    region::transfer(
                        link.pid,
                        !first.read,
                        &first.spans,
                        first.moved,
                        len,
                        address,
                    )
                },
            )?;
            match copied {
                Ok(0) if len > 0 => return Err(Fault::Denied),
                Ok(copied) => {
                    self.shortages = 0;
                    first.moved += copied;
                    left = left.saturating_sub(copied.max(1));
                    if first.moved == first.len {
                        self.end_first(counts, moved);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ESRCH) => return Err(Fault::PeerGone),
                    Some(libc::EINTR) => left = left.saturating_sub(1 << 16),
                    Some(libc::ENOMEM) if self.shortages < SHORTAGES => {
                        self.shortages += 1;
                        left = left.saturating_sub(1 << 16);
                    }
                    Some(libc::EPERM | libc::ENOSYS | libc::ENOMEM) => {
                        // The kernel has changed its mind (the peer changed its user, say), or
                        // lacks memory for good.
                        tracing::info!(%error, "no direct RDMA from now on; going on pipelined");
                        first.asked = first.moved;
                        link.direct
                            .store(false, std::sync::atomic::Ordering::Relaxed);
                        return Ok(());
                    }
                    _ => return Err(Fault::Denied),
                },
            }
        }
        Ok(())
    }
}
