//! The receiving direction while the peer's marker may come on TCP: the guarded phase.
//!
//! Owns how the marker is waited for and taken, and the count of all companions that are guarded.
//! Invariants: what is received here ends at the cut, once that is known, and until then before
//! anything that may be the marker, which the application never gets; a call that was in the kernel
//! when the guard began is waited for, or cleans up behind itself.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::c_int;

use super::marker::{MARKER, find_marker, marker};
use super::state::{BROKEN, Core, GUARDED, KERNEL, SAN, TAKEN};
use super::{Companion, Reason, Role, kernel, service};
use crate::conn::Manner;

/// Whose bytes the kernel's socket holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clear {
    Application,
    /// The first part of the marker.
    Marker,
    /// The SAN carries the direction now.
    San,
}

/// What one look for bytes in the guarded phase has found.
pub(super) enum Guarded {
    Got(usize),
    /// The phase has changed.
    Changed,
    /// Nothing is there.
    Nothing,
    /// Something is there that cannot be told from the marker yet, or another call is at it.
    Later,
}

/// Companions whose rx is guarded.
static GUARDS: AtomicUsize = AtomicUsize::new(0);
/// Times that one stopped being so.
static GUARDS_ENDED: AtomicU64 = AtomicU64::new(0);

impl Companion {
    /// Changes how the receiving direction goes on.
    pub(super) fn rx_to(&self, phase: u8) {
        let before = self.rx.phase.swap(phase, Ordering::SeqCst);
        match (before == GUARDED, phase == GUARDED) {
            (false, true) => drop(GUARDS.fetch_add(1, Ordering::SeqCst)),
            (true, false) => {
                // In this order: who finds no guard any more finds that one has ended.
                GUARDS_ENDED.fetch_add(1, Ordering::SeqCst);
                GUARDS.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    /// Whether any companion's kernel socket may be readable by a marker only.
    pub(super) fn any_guards() -> bool {
        GUARDS.load(Ordering::SeqCst) > 0
    }

    pub(super) fn count_guards_ended() -> u64 {
        GUARDS_ENDED.load(Ordering::SeqCst)
    }

    pub(super) fn guard(&self, core: &mut Core, session: [u8; 16]) -> bool {
        core.session = session;
        core.back = false;
        core.tx_cut = None;
        core.cut = None;
        core.cut_bytes.1 = 0;
        core.marker_in.1 = 0;
        core.guard_goes_on = false;
        core.verified = false;
        core.marker_met = false;
        self.rx_to(GUARDED);
        // Two in the kernel at once: nobody knows whose bytes came first.
        let calls = self.rx.inflight.load(Ordering::SeqCst);
        if calls > 1 || self.rx.busy.load(Ordering::SeqCst) > 0 {
            self.rx_to(KERNEL);
            self.set_reason(Reason::Concurrent);
            return false;
        }
        true
    }

    /// Reads the cut, the first bytes on the SAN, if they are there.
    pub(super) fn learn_cut(&self, core: &mut Core) {
        let Some(connection) = core.connection.clone() else {
            return;
        };
        while core.cut.is_none() {
            let (bytes, have) = &mut core.cut_bytes;
            let Some(room) = bytes.get_mut(*have..) else {
                return;
            };
            match connection.read_as(room, Manner::NOT) {
                Ok(0) => {
                    // The stream ended before it began: this direction stays.
                    self.end_guard(core);
                    return;
                }
                Ok(count) => {
                    *have += count;
                    if *have == bytes.len() {
                        core.cut = Some(u64::from_le_bytes(*bytes));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // The peer may have cut already: what the kernel brings cannot be trusted.
                    self.break_off(core);
                    return;
                }
            }
        }
    }

    /// Bytes that the kernel carries before the marker, as far as is known.
    pub(super) fn left(&self, core: &Core) -> Option<u64> {
        let total = self.rx.total.load(Ordering::SeqCst);
        core.cut.map(|cut| cut.saturating_sub(total))
    }

    /// Takes the marker from the TCP stream, as much of it as is there; every application byte
    /// before it has been taken.
    pub(super) fn take_marker(&self, core: &mut Core, fd: RawFd) -> io::Result<Guarded> {
        loop {
            let (bytes, have) = &mut core.marker_in;
            let Some(room) = bytes.get_mut(*have..).filter(|room| !room.is_empty()) else {
                break;
            };
            match kernel::receive_into(fd, room, libc::MSG_DONTWAIT) {
                Ok(0) => return self.foreign(core),
                Ok(count) => *have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Guarded::Nothing);
                }
                Err(error) => return Err(error),
            }
        }
        self.check_marker(core)
    }

    fn check_marker(&self, core: &mut Core) -> io::Result<Guarded> {
        if core.marker_in.0 != marker(core.session) {
            return self.foreign(core);
        }
        self.rx_to(if core.is_taking() { TAKEN } else { SAN });
        self.believe(core);
        Ok(Guarded::Changed)
    }

    /// The beacon's side knows now that the SAN's peer is TCP's: it goes over, too.
    fn believe(&self, core: &mut Core) {
        if core.verified {
            return;
        }
        core.verified = true;
        let stays = core.write_shut || core.back;
        if self.role == Role::Connected && self.tx.phase() == KERNEL && !stays {
            self.tx.phase.store(GUARDED, Ordering::SeqCst);
            self.cut(core);
            if self.tx.phase() == GUARDED {
                service::need_weak(self.me.clone());
            }
        }
    }

    /// The TCP peer is not the SAN's, or does not keep to the rules.
    pub(super) fn foreign(&self, core: &mut Core) -> io::Result<Guarded> {
        tracing::warn!("a wrong marker: the connection is reset");
        self.break_off(core);
        Err(io::Error::from_raw_os_error(libc::ECONNRESET))
    }

    // ---- calls that receive

    /// Looks for bytes from the kernel while the marker may come. `receive` receives at most so
    /// many bytes with these additional flags and shows what it got.
    pub(super) fn receive_guarded(
        &self,
        fd: RawFd,
        peeks: bool,
        receive: &mut dyn FnMut(u64, c_int) -> io::Result<usize>,
        finds: &mut dyn FnMut(usize, &[u8; MARKER]) -> Option<usize>,
    ) -> io::Result<Guarded> {
        let mut core = self.core.lock();
        if self.rx.phase() != GUARDED {
            return Ok(Guarded::Changed);
        }
        // A call from before the guard knows best what it gets.
        if self.rx.inflight.load(Ordering::SeqCst) > 0 || core.is_taking() {
            return Ok(Guarded::Later);
        }
        self.learn_cut(&mut core);
        self.resolve_doubt(&mut core);
        if self.rx.phase() != GUARDED {
            self.retire(&mut core);
            return Ok(Guarded::Changed);
        }
        let peek = if peeks { libc::MSG_PEEK } else { 0 };
        match self.left(&core) {
            Some(0) => self.take_marker(&mut core, fd),
            Some(left) => {
                let got = receive(left, libc::MSG_DONTWAIT | peek);
                let got = nothing(got)?;
                if got == Some(0) {
                    // The end, and yet more was to come.
                    return self.foreign(&mut core);
                }
                if let Some(count) = got.filter(|_| !peeks) {
                    self.rx.count(count);
                }
                Ok(got.map_or(Guarded::Nothing, Guarded::Got))
            }
            // The rest of what is in doubt is not to be taken for something of its own.
            None if !core.doubtful().is_empty() => {
                self.meet_marker(&mut core);
                Ok(Guarded::Later)
            }
            None => {
                let got = nothing(receive(u64::MAX, libc::MSG_DONTWAIT | libc::MSG_PEEK))?;
                let Some(count) = got else {
                    return Ok(Guarded::Nothing);
                };
                self.learn_cut(&mut core);
                if self.rx.phase() != GUARDED || core.cut.is_some() {
                    return Ok(Guarded::Changed);
                }
                // What comes before a marker, or what may be one, is the application's.
                let count = match finds(count, &marker(core.session)) {
                    Some(0) => {
                        if count < MARKER {
                            self.take_into_doubt(&mut core, fd, count);
                        }
                        self.meet_marker(&mut core);
                        return Ok(Guarded::Later);
                    }
                    Some(own) => own,
                    None => count,
                };
                if peeks || count == 0 {
                    return Ok(Guarded::Got(count));
                }
                let most = u64::try_from(count).unwrap_or(u64::MAX);
                let count = receive(most, libc::MSG_DONTWAIT)?;
                self.rx.count(count);
                Ok(Guarded::Got(count))
            }
        }
    }

    /// As above, into memory of our own.
    pub(super) fn receive_early(&self, fd: RawFd, room: &mut [u8]) -> io::Result<Option<usize>> {
        let room = std::cell::RefCell::new(room);
        let mut receive = |most: u64, flags: c_int| {
            let mut room = room.borrow_mut();
            let len = room.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            kernel::receive_into(fd, room.get_mut(..len).unwrap_or_default(), flags)
        };
        let mut finds = |count: usize, marker: &[u8; MARKER]| {
            let room = room.borrow();
            find_marker(room.get(..count).unwrap_or_default(), marker)
        };
        match self.receive_guarded(fd, false, &mut receive, &mut finds)? {
            Guarded::Got(count) => Ok(Some(count)),
            Guarded::Changed | Guarded::Nothing | Guarded::Later => Ok(None),
        }
    }

    /// A call that began before the guard has received `count` bytes, of which the last ones may be
    /// the marker's. `tail(from)` are the bytes behind that many. How many are the application's.
    pub(super) fn finish_guarded(
        &self,
        count: usize,
        peeks: bool,
        tail: &mut dyn FnMut(usize) -> Vec<u8>,
    ) -> usize {
        let mut core = self.core.lock();
        if self.rx.phase() != GUARDED || count == 0 {
            let all = find_marker(&tail(0), &marker(core.session)).filter(|_| {
                // A session that failed has left its marker.
                self.rx.phase() == BROKEN
            });
            let own = all.unwrap_or(count);
            self.rx.count(if peeks { 0 } else { own });
            return own;
        }
        self.learn_cut(&mut core);
        let own = match self.left(&core) {
            Some(left) => count.min(usize::try_from(left).unwrap_or(usize::MAX)),
            // The kernel's path may have overtaken the SAN's, or the SAN was lost before it told.
            None if matches!(self.rx.phase(), GUARDED | BROKEN) => {
                find_marker(&tail(0), &marker(core.session)).unwrap_or(count)
            }
            None => count,
        };
        if peeks {
            return own;
        }
        self.rx.count(own);
        if own < count && self.rx.phase() != BROKEN {
            for byte in tail(own) {
                let (bytes, have) = &mut core.marker_in;
                match bytes.get_mut(*have) {
                    Some(place) => {
                        *place = byte;
                        *have += 1;
                    }
                    // Something behind the marker: it breaks the rules.
                    None => {
                        drop(self.foreign(&mut core));
                        return own;
                    }
                }
            }
            if core.marker_in.1 == MARKER && self.left(&core) == Some(0) {
                drop(self.check_marker(&mut core));
            }
        }
        own
    }

    // ---- who does not receive

    /// Looks for the marker when nobody receives. The service thread leaves it where it is: the
    /// socket stays readable, so that whoever sleeps in the kernel wakes up and finds the change.
    pub(super) fn fetch_marker(&self, core: &mut Core, takes: bool) {
        let calls = self.rx.inflight.load(Ordering::SeqCst) + self.rx.busy.load(Ordering::SeqCst);
        if self.rx.phase() != GUARDED || calls > 0 {
            return;
        }
        self.learn_cut(core);
        self.resolve_doubt(core);
        if self.rx.phase() != GUARDED {
            self.retire(core);
            return;
        }
        let Some(fd) = core.tcp.as_ref().map(AsRawFd::as_raw_fd) else {
            return;
        };
        if self.left(core) != Some(0) {
            return;
        }
        // One that was taken as a whole wakes nobody any more.
        if takes || core.marker_in.1 == MARKER {
            if let Err(error) = self.take_marker(core, fd) {
                tracing::debug!(%error, "no marker");
            }
        } else if !core.verified && core.marker_in.1 == 0 {
            let mut room = [0; MARKER];
            let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
            let seen = kernel::receive_into(fd, &mut room, flags);
            if matches!(seen, Ok(MARKER)) && room == marker(core.session) {
                self.believe(core);
            }
        }
    }

    /// Whether the kernel's socket is readable by a marker only, as far as is known.
    pub(super) fn is_marker_all(&self, core: &mut Core) -> bool {
        self.learn_cut(core);
        self.rx.phase() == GUARDED && (self.left(core) == Some(0) || self.is_marker_seen(core))
    }

    /// After the kernel has said that the socket is readable: whether the application would find
    /// something there.
    pub(super) fn clear_marker(&self) -> Clear {
        let mut core = self.core.lock();
        self.fetch_marker(&mut core, true);
        let clear = match self.rx.phase() {
            GUARDED if self.is_marker_all(&mut core) => {
                self.meet_marker(&mut core);
                Clear::Marker
            }
            GUARDED | KERNEL => Clear::Application,
            _ => Clear::San,
        };
        drop(core);
        self.moved();
        clear
    }

    /// The caller has been told of the marker and cannot take it yet: who waits for edges is not
    /// told of it again by the kernel, so the service thread has it told again when it can be taken.
    pub(super) fn meet_marker(&self, core: &mut Core) {
        if !std::mem::replace(&mut core.marker_met, true) {
            service::need_weak(self.me.clone());
        }
    }

    /// Whether the marker is the next that the kernel has, though the SAN has not told yet where it
    /// is to be.
    fn is_marker_seen(&self, core: &Core) -> bool {
        let Some(fd) = core.tcp.as_ref().map(AsRawFd::as_raw_fd) else {
            return false;
        };
        let mut room = [0; MARKER];
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        core.cut.is_none()
            && kernel::receive_into(fd, &mut room, flags).is_ok_and(|count| {
                // What is in doubt may be its beginning.
                let marker = marker(core.session);
                room.get(..count) == marker.get(core.doubtful().len()..)
            })
    }
}

fn nothing(got: io::Result<usize>) -> io::Result<Option<usize>> {
    match got {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
