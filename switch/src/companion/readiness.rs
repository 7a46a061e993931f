//! What poll(2) would show of a connection, whichever path carries it, and who is shown it.
//!
//! Invariants: what a look has found is told only while the direction is on the path that was looked
//! at; of two looks the later one is shown; the peer's word about the path, which a look may find, is
//! followed before anything is shown.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shadow::{Face, Shadow};
use super::state::{BETWEEN, BROKEN, Core, GUARDED, KERNEL, SAN, TAKEN};
use super::{Companion, kernel};
use crate::conn::{Connection, News};

impl Companion {
    /// Whether the kernel's socket alone tells the truth about readiness.
    #[inline]
    #[must_use]
    pub fn on_kernel(&self) -> bool {
        matches!(self.rx.phase(), KERNEL | GUARDED) && matches!(self.tx.phase(), KERNEL | GUARDED)
    }

    /// A descriptor that shows what poll(2) would show of a TCP socket, as of the last
    /// [`Companion::refresh`]. Made at the first use, kept by the companion.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub fn shadow(&self) -> io::Result<RawFd> {
        let mut core = self.core.lock();
        if let Some(shadow) = &core.shadow {
            return Ok(shadow.number());
        }
        let made = Shadow::new()?;
        let number = made.number();
        core.shadow = Some(made);
        self.has_shadow.store(true, Ordering::SeqCst);
        self.attend(&mut core);
        drop(core);
        self.refresh();
        Ok(number)
    }

    /// Looks for news, without blocking, makes the shadow show them if there is one, and returns
    /// what poll(2) would.
    pub fn refresh(&self) -> i16 {
        self.look_now(true).0
    }

    /// As [`Companion::refresh`] or, without `shows`, [`Companion::bits`], together with what
    /// [`Companion::arrivals`] says as of this very look.
    pub fn look_now(&self, shows: bool) -> (i16, (u32, u32)) {
        self.observe();
        loop {
            if self.rx.phase() == GUARDED {
                self.clear_marker();
            }
            let looked_at = self.rx.phase();
            let news = match self.connection() {
                None => {
                    if !self.on_kernel() && self.resume(&mut self.core.lock()) {
                        self.moved();
                    }
                    None
                }
                Some(connection) if shows => Some(self.heed(&connection, connection.look())),
                // The caller tells others of its kind.
                Some(connection) => Some(self.heed(&connection, connection.look_from_outside())),
            };
            let answer = self.show(news.as_ref(), false, shows);
            // The news are of another path otherwise: what was to be read on the SAN may have been
            // the cut, which is not the application's.
            if self.rx.phase() == looked_at {
                return answer;
            }
        }
    }

    /// Looks for news and follows what the peer has said about the path.
    pub(super) fn look(&self) -> Option<News> {
        let connection = self.connection()?;
        Some(self.heed(&connection, connection.look()))
    }

    /// Follows what the peer has said about the path.
    pub(super) fn heed(&self, connection: &Arc<Connection>, news: News) -> News {
        if news.suspending || news.leaving {
            let mut core = self.core.lock();
            if !core.is_carried_by(connection) {
                // It has been followed already.
            } else if news.suspended && self.rx.phase() == SAN {
                self.come_back(&mut core);
            } else {
                self.follow(&mut core);
            }
            drop(core);
            self.moved();
        }
        news
    }

    /// What poll(2) would return now, and the edges; shows it if wanted, but for what another thread
    /// has shown something newer of.
    pub(super) fn show(&self, news: Option<&News>, fresh: bool, shows: bool) -> (i16, (u32, u32)) {
        let mut core = self.core.lock();
        // A lost SAN is no failure of the connection, nor is that of a session before this one.
        let is_well = |one: &Arc<Connection>| one.failed().is_none() && !one.is_closed();
        let goes_on =
            |core: &mut Core| self.lose(core) || core.connection.as_ref().is_none_or(is_well);
        let news = news.filter(|news| !(news.failed && goes_on(&mut core)));
        let (rx, tx) = (self.rx.phase(), self.tx.phase());
        let fd = core.tcp.as_ref().map_or(self.number, AsRawFd::as_raw_fd);
        let by_kernel = rx != SAN || tx != SAN;
        let kernel = if by_kernel {
            let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
            kernel::poll_now(fd, all)
        } else {
            0
        };
        let has = |bit: libc::c_short| kernel & bit != 0;
        let mut face = match news {
            Some(news) => Face::of(news, core.write_shut),
            None => Face::default(),
        };
        let mut arrived = news.map_or(0, |news| news.arrived);
        if rx != SAN || news.is_none() {
            // What the kernel has while the SAN is left is not there to be read yet.
            face.readable = (has(libc::POLLIN) && rx != TAKEN) || rx == BETWEEN || rx == BROKEN;
            face.peer_shut = has(libc::POLLRDHUP);
            face.urgent = has(libc::POLLPRI);
            face.both_shut = has(libc::POLLHUP);
            face.failed = has(libc::POLLERR) || rx == BROKEN;
            let total = self.rx.total.load(Ordering::Relaxed);
            let here = u64::try_from(kernel::unread(fd)).unwrap_or(0);
            arrived = arrived
                .wrapping_add(low_word(total + here))
                .wrapping_add(u32::from(face.peer_shut) << 30);
        }
        if tx != SAN || news.is_none() {
            face.writable = (has(libc::POLLOUT) && !core.awaits()) || tx == BROKEN;
        }
        // Relaxed: a call of the application's comes before.
        face.failed &= !self.error_taken.load(Ordering::Relaxed);
        let stalls = self.stalls.load(Ordering::Relaxed);
        let roomy = stalls.wrapping_sub(u32::from(!face.writable));
        // Another thread that has looked later may have been here before: what it showed is the truth.
        // A look that was not shown hides nothing.
        let number = news.map_or(core.shown, |news| news.number);
        let is_last = number >= core.shown;
        if is_last {
            self.roomy.store(roomy, Ordering::Relaxed);
            self.arrived.store(arrived, Ordering::Relaxed);
        }
        if shows
            && is_last
            && let Some(shadow) = &mut core.shadow
        {
            // Of a marker, too: who wakes up for it takes it.
            shadow.show_edges(face, (arrived, roomy), fresh);
            core.shown = number;
        }
        if rx == GUARDED && face.readable {
            face.readable = !self.is_marker_all(&mut core);
        }
        (face.bits(), (arrived, roomy))
    }

    /// After a call, which may have changed what is to be shown.
    #[inline]
    pub(super) fn show_now(&self, connection: &Connection) {
        // Relaxed: who sets them looks afterwards itself.
        if self.has_shadow.load(Ordering::Relaxed) && !self.attended.load(Ordering::Relaxed) {
            let news = connection.look();
            self.show(Some(&news), false, true);
        }
        self.tell_used();
    }

    /// Somebody who waits looks after the companion itself, or does no more.
    pub fn attended(&self, on: bool) {
        if self.attended.swap(on, Ordering::SeqCst) == on {
            return;
        }
        let mut core = self.core.lock();
        self.attend(&mut core);
        let is_up = core.connection.is_some();
        drop(core);
        if is_up && !on {
            self.refresh();
        }
    }

    /// sockatmark(3), if the kernel's answer would not be the truth.
    pub fn at_mark(&self) -> Option<bool> {
        match self.rx.phase() {
            SAN => {
                let at = self.connection()?.is_at_mark();
                self.tell_used();
                Some(at)
            }
            _ => None,
        }
    }
}

fn low_word(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}
