//! The way back to the kernel, and the end of both paths where there is none.
//!
//! Invariants: a direction goes back only behind the last byte that the SAN carries of it; the
//! session ends when both have; a stream of which bytes may be missing is broken off on both paths,
//! and the application hears of that as of a reset, once.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::registry::COUNTERS;
use super::state::{BETWEEN, BROKEN, CHANGING, Core, GUARDED, KERNEL, SAN, Stage};
use super::{Companion, Reason, kernel};
use crate::conn::{Connection, Manner};

/// How long to wait for TCP's word after the SAN was lost.
const VERDICT: Duration = Duration::from_millis(500);
/// Times that a connection may go back before it stays.
const STICKY: u32 = 3;

impl Companion {
    /// Takes the sending direction back to the kernel.
    pub(super) fn suspend(&self, core: &mut Core) {
        let Some(connection) = core.connection.clone() else {
            return;
        };
        core.back = true;
        let was = self.tx.phase();
        match was {
            SAN | GUARDED => {}
            // Not cut over yet, and now it will not be.
            KERNEL => return connection.suspend(),
            _ => return,
        }
        self.tx.phase.store(CHANGING, Ordering::SeqCst);
        connection.suspend();
        let next = if was == SAN { BETWEEN } else { KERNEL };
        self.tx.phase.store(next, Ordering::SeqCst);
        self.write_marker(core);
    }

    /// The SAN has yielded the last byte of a direction that goes on with the kernel.
    pub(super) fn come_back(&self, core: &mut Core) {
        if self.rx.phase() == SAN {
            self.rx_to(KERNEL);
        }
        self.follow(core);
    }

    /// A call has found that this session's stream has yielded its last byte. Another session may
    /// carry the direction by now.
    pub(super) fn yielded(&self, connection: &Arc<Connection>) {
        let mut core = self.core.lock();
        let same = |one: &Arc<Connection>| Arc::ptr_eq(one, connection);
        if connection.is_suspended() && core.connection.as_ref().is_some_and(same) {
            self.come_back(&mut core);
        }
    }

    /// The peer has gone back: so does this side; and when both have, the session ends.
    pub(super) fn follow(&self, core: &mut Core) {
        if self.hands(core) {
            return;
        }
        if matches!(self.tx.phase(), SAN | GUARDED) {
            self.set_reason(Reason::PeerAsked);
            self.suspend(core);
        } else if let Some(connection) = &core.connection
            && self.tx.phase() == KERNEL
        {
            connection.suspend();
        }
        self.retire(core);
    }

    /// Takes what the SAN, and the kernel before the marker, still have to yield.
    pub(super) fn drain(&self, fd: RawFd, end: Instant) -> io::Result<()> {
        let mut room = vec![0; 64 << 10];
        let mut kept = Vec::new();
        let result = loop {
            let now = Instant::now();
            if now >= end {
                break Err(io::ErrorKind::TimedOut.into());
            }
            match self.rx.phase() {
                BETWEEN if self.core.lock().guard_goes_on => {
                    let mut core = self.core.lock();
                    kept.extend(core.leftover.drain(..));
                    self.leave_between(&mut core);
                }
                KERNEL | BETWEEN => break Ok(()),
                BROKEN => break Err(io::ErrorKind::ConnectionReset.into()),
                SAN => {
                    let Some(connection) = self.connection() else {
                        continue;
                    };
                    let manner = Manner {
                        nonblocking: false,
                        time: Some(end - now),
                        interruptible: false,
                        goes_on: false,
                    };
                    match connection.read_as(&mut room, manner) {
                        Ok(0) => {
                            let mut core = self.core.lock();
                            if connection.is_suspended() {
                                self.come_back(&mut core);
                            } else {
                                // The peer's end, which the kernel tells of, too.
                                self.rx_to(KERNEL);
                            }
                        }
                        Ok(count) => {
                            self.rx.count_san(count);
                            kept.extend_from_slice(room.get(..count).unwrap_or_default());
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        // That is not told to the application here.
                        Err(_) => self.break_off(&mut self.core.lock()),
                    }
                }
                _ => match self.receive_early(fd, &mut room) {
                    Ok(Some(count)) => {
                        kept.extend_from_slice(room.get(..count).unwrap_or_default());
                        if count == 0 {
                            break Ok(());
                        }
                    }
                    Ok(None) => std::thread::sleep(Duration::from_micros(200)),
                    Err(error) => break Err(error),
                },
            }
        };
        if !kept.is_empty() {
            let mut core = self.core.lock();
            core.leftover.extend(kept);
            if self.rx.phase() == KERNEL {
                self.rx_to(BETWEEN);
            }
        }
        result
    }

    /// Ends the session when neither direction needs it any more.
    pub(super) fn retire(&self, core: &mut Core) {
        let back = |phase| matches!(phase, KERNEL | BETWEEN);
        if core.guard_goes_on
            || core.stage != Stage::Up
            || !back(self.rx.phase())
            || !back(self.tx.phase())
        {
            return;
        }
        if !Companion::is_handed(core) {
            return;
        }
        let Some(connection) = core.connection.take() else {
            return;
        };
        // Before the first cut both are with the kernel, too.
        let ended = connection.peer_end().is_some() || connection.failed().is_some();
        if !ended {
            core.connection = Some(connection);
            return;
        }
        connection.attend(None);
        connection.suspend();
        connection.close_in_background();
        self.session_over(core);
    }

    /// Both directions are with the kernel again.
    pub(super) fn session_over(&self, core: &mut Core) {
        core.hand = None;
        core.stage = Stage::Idle;
        if self.write_marker(core) {
            core.tcp = None;
        }
        core.downgrades += 1;
        COUNTERS.downgrades.fetch_add(1, Ordering::Relaxed);
        core.strikes += u32::from(!core.forking);
        if core.strikes >= STICKY {
            core.stage = Stage::Never;
            self.set_reason(Reason::Sticky);
        }
        self.retrigger();
    }

    /// The session has failed: what that means for the application; `None` if the stream goes on.
    pub(super) fn lost(&self, fd: RawFd) -> Option<io::Error> {
        let reset = io::Error::from_raw_os_error(libc::ECONNRESET);
        let end = Instant::now() + VERDICT;
        loop {
            // A call that receives may be about to take the marker.
            if self.lose(&mut self.core.lock()) {
                return None;
            }
            // The peer's kernel closes its sockets one after the other.
            if kernel::poll_now(fd, libc::POLLRDHUP) != 0 || Instant::now() >= end {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut core = self.core.lock();
        self.break_off(&mut core);
        self.reset_told.store(true, Ordering::SeqCst);
        Some(reset)
    }

    /// Resets both paths.
    pub(super) fn break_off(&self, core: &mut Core) {
        if let Some(connection) = core.connection.take() {
            connection.attend(None);
            connection.abort();
        }
        if let Some(tcp) = &core.tcp {
            kernel::reset(tcp.as_raw_fd());
        }
        self.set_reason(Reason::SanError);
        core.hand = None;
        core.lost = None;
        core.marker_out.clear();
        core.stage = Stage::Never;
        self.rx_to(BROKEN);
        self.tx.phase.store(BROKEN, Ordering::SeqCst);
    }
}
