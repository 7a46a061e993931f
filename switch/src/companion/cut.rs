//! The sending direction goes over to the SAN, and its marker is written.
//!
//! Invariants: a direction goes over only while no call of the application sends; `cut` is with the
//! SAN before the first byte of the marker is with TCP, and the marker is there only behind the last
//! byte that this side has sent there; of a marker that was begun the rest is written, or both paths
//! are reset.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use super::marker::marker;
use super::state::{BETWEEN, CHANGING, Core, GUARDED, KERNEL, SAN, Stage};
use super::{Companion, kernel};
use crate::conn::Manner;

impl Companion {
    #[cold]
    pub(super) fn cut_now(&self) {
        let mut core = self.core.lock();
        self.cut(&mut core);
        drop(core);
        self.moved();
    }

    /// Cuts the sending direction over if it is due and possible now.
    pub(super) fn cut(&self, core: &mut Core) {
        let Some(connection) = core.connection.clone() else {
            return;
        };
        if self.tx.phase() != GUARDED || core.write_shut || core.back {
            return;
        }
        self.tx.phase.store(CHANGING, Ordering::SeqCst);
        let calls = self.tx.inflight.load(Ordering::SeqCst) + self.tx.busy.load(Ordering::SeqCst);
        if calls > 0 || self.poisoned.load(Ordering::SeqCst) {
            self.tx.phase.store(GUARDED, Ordering::SeqCst);
            return;
        }
        let cut = self.tx.total.load(Ordering::SeqCst).to_le_bytes();
        match connection.write_as(&[IoSlice::new(&cut)], Manner::NOT) {
            Ok(8) => {
                core.marker_out = marker(core.session).to_vec();
                core.tx_cut = Some(u64::from_le_bytes(cut));
                self.tx.phase.store(SAN, Ordering::SeqCst);
                self.write_marker(core);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.tx.phase.store(GUARDED, Ordering::SeqCst);
            }
            // The session has failed, or ends: then the direction stays where it is.
            Ok(_) | Err(_) => self.tx.phase.store(KERNEL, Ordering::SeqCst),
        }
    }

    /// Writes what the kernel takes of the marker; `true` if all of it is written.
    pub(super) fn write_marker(&self, core: &mut Core) -> bool {
        let Some(fd) = core.tcp.as_ref().map(AsRawFd::as_raw_fd) else {
            return core.marker_out.is_empty();
        };
        while !core.marker_out.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match kernel::send_from(fd, &core.marker_out, flags) {
                Ok(0) => return false,
                Ok(count) => drop(core.marker_out.drain(..count.min(core.marker_out.len()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    tracing::debug!(%error, "TCP takes no marker");
                    // The kernel has told of it, and tells once: nobody else would hear of it.
                    self.break_off(core);
                    return true;
                }
            }
        }
        if self.tx.phase() == BETWEEN && !core.awaits() {
            self.tx.phase.store(KERNEL, Ordering::SeqCst);
        }
        // As long as the SAN may have to give back what the peer's application has not read.
        let still = matches!(self.tx.phase(), SAN | BETWEEN)
            && core.stage == Stage::Up
            && core.connection.as_ref().is_some_and(|one| !one.is_closed());
        if core.end_due && !still {
            core.end_due = false;
            drop(kernel::shutdown(fd, libc::SHUT_WR));
        }
        true
    }
}
