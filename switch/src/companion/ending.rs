//! The end of what the application sends, receives, or does with the connection at all.
//!
//! Invariants: an end comes on both paths, on TCP behind everything that may still have to go there;
//! nobody waits for it, so what the SAN has still to deliver is looked after in the background; a
//! connection that has only ever been the kernel's ends without a system call of ours.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::c_int;
use wsd_proto::End;

use super::state::{BETWEEN, BROKEN, Core, GUARDED, KERNEL, SAN, Stage};
use super::{Companion, kernel, service};
use crate::conn::Connection;

thread_local! {
    // Without a destructor: it is there as long as the thread is.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is the one that ends the process.
pub(super) fn ends_process() -> bool {
    ENDS.get()
}

impl Companion {
    /// Half closes: both paths.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown(&self, fd: RawFd, how: c_int) -> io::Result<()> {
        let mut core = self.core.lock();
        let ended = |connection: &Arc<Connection>| connection.peer_end() == Some(End::Shutdown);
        let known = (libc::SHUT_RD..=libc::SHUT_RDWR).contains(&how);
        if known && core.end_due && core.connection.as_ref().is_some_and(ended) {
            // As the kernel says of a connection that has ended in both directions.
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        let mut now = true;
        if matches!(how, libc::SHUT_WR | libc::SHUT_RDWR) {
            core.write_shut = true;
            match (self.tx.phase(), core.connection.clone()) {
                (SAN, Some(connection)) => {
                    drop(connection.shutdown(Shutdown::Write));
                    // On TCP the end comes behind the marker, and behind what the peer may still
                    // give back.
                    core.end_due = true;
                    now = false;
                }
                (BETWEEN, _) => {
                    core.end_due = true;
                    now = false;
                    self.write_marker(&mut core);
                }
                (_, Some(connection)) => connection.suspend(),
                (_, None) => {}
            }
        }
        if matches!(how, libc::SHUT_RD | libc::SHUT_RDWR) && self.rx.phase() == SAN {
            core.read_shut = true;
            if let Some(connection) = &core.connection {
                drop(connection.shutdown(Shutdown::Read));
            }
        }
        drop(core);
        let done = match (now, how) {
            (true, how) => kernel::shutdown(fd, how),
            (false, libc::SHUT_RDWR) => kernel::shutdown(fd, libc::SHUT_RD),
            (false, _) => Ok(()),
        };
        if let Some(connection) = self.connection() {
            self.show_now(&connection);
        }
        done
    }

    /// The last descriptor of this process for the connection is about to be closed by the caller.
    /// What the SAN has still to deliver is looked after in the background.
    pub fn close(&self, fd: RawFd) {
        self.forget_own_calls();
        self.tell_closed();
        if self.end_plainly() {
            return;
        }
        self.end_hand();
        let guarded = self.rx.phase() == GUARDED;
        let carried = |core: &Core| core.connection.is_some() || core.lost.is_some();
        let linger = if guarded || carried(&self.core.lock()) {
            kernel::linger(fd)
        } else {
            None
        };
        self.end(linger);
    }

    /// The process is about to end. What another thread is at is left alone.
    pub(super) fn part(&self) {
        let end = Instant::now() + Duration::from_millis(100);
        // Threads that go on with it have it locked often, but not for long.
        while self.core.is_locked() || self.connection().is_some_and(|it| it.is_locked()) {
            if Instant::now() >= end {
                return;
            }
            std::thread::yield_now();
        }
        // Nothing more is taken: who sends now waits for the end of the process; but who ends it, and
        // calls once more in a destructor of the program's, has to go on.
        ENDS.set(true);
        self.leaving.store(true, Ordering::SeqCst);
        self.end_hand();
        self.end(None);
    }

    /// The end of a connection that has only ever been the kernel's, as most short ones are. False if
    /// there is more to it.
    fn end_plainly(&self) -> bool {
        let mut core = self.core.lock();
        let plain = core.is_untouched()
            && self.rx.phase() == KERNEL
            && self.tx.phase() == KERNEL
            && !core.closed;
        if plain {
            core.closed = true;
            core.write_shut = true;
            core.stage = Stage::Never;
            drop(core);
            self.forsake();
        }
        plain
    }

    fn end(&self, linger: Option<c_int>) {
        let mut core = self.core.lock();
        if core.closed {
            return;
        }
        self.lose(&mut core);
        core.closed = true;
        core.write_shut = true;
        self.forsake();
        if linger != Some(0) && (self.part_later(&mut core) || self.part_lost(&mut core)) {
            drop(core);
            if let Some(me) = self.me.upgrade() {
                service::farewell(me);
            }
            return;
        }
        if core.lost.take().is_some() {
            core.marker_gone();
            // For calls of other threads.
            self.reset_told.store(true, Ordering::SeqCst);
            self.rx_to(BROKEN);
            self.tx.phase.store(BROKEN, Ordering::SeqCst);
        }
        core.stage = Stage::Never;
        let connection = core.connection.take();
        if let Some(connection) = &connection {
            // For calls of other threads.
            self.reset_told.store(true, Ordering::SeqCst);
            self.rx_to(BROKEN);
            self.tx.phase.store(BROKEN, Ordering::SeqCst);
            connection.attend(None);
            if linger == Some(0) {
                core.marker_gone();
            }
        }
        let owes = core.owes();
        if !owes {
            core.tcp = None;
        }
        core.shadow = None;
        drop(core);
        if owes && let Some(me) = self.me.upgrade() {
            service::farewell(me);
        }
        if let Some(connection) = connection {
            let time = linger.and_then(|seconds| u64::try_from(seconds).ok());
            connection.set_linger(time.map(Duration::from_secs));
            connection.close_in_background();
        }
    }
}
