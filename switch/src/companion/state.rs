//! Where each direction of a companion's stream goes on, and how it changes its path at an exact
//! byte.
//!
//! Owns the phases of both directions, the cut-over with its marker, and the way back. Invariants:
//! all but the two phases is behind the companion's lock, which nobody holds while waiting; the
//! marker is on the TCP stream only behind the last byte this side has sent there, and `cut` is
//! with the SAN before it; a receiver in the guarded phase never hands the marker to the
//! application.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use libc::c_int;

use super::hand::Hand;
use super::parting::Parting;
use super::registry::COUNTERS;
use super::retain::Lost;
use super::shadow::Shadow;
use super::{Companion, Reason, Role, kernel, service};
use crate::conn::{Connection, Manner, Observer, Zeal};

/// The kernel carries it.
pub(super) const KERNEL: u8 = 0;
/// Receiving: the kernel carries it, and the marker may come.
/// Sending: the kernel carries it, and the cut is due as soon as no send is in the kernel.
pub(super) const GUARDED: u8 = 1;
/// The SAN carries it.
pub(super) const SAN: u8 = 2;
/// Receiving: what was taken from the SAN early is to be read before the kernel's.
/// Sending: the rest of a marker is to be written before the kernel carries it.
pub(super) const BETWEEN: u8 = 3;
/// Lost on both paths.
pub(super) const BROKEN: u8 = 4;
/// Sending: being changed, look again under the lock.
pub(super) const CHANGING: u8 = 5;
/// Receiving: the SAN's stream is being taken away from the application.
pub(super) const TAKEN: u8 = 6;

pub(super) const MARKER: usize = 24;
const MARKER_START: u8 = 0xF7;
const MAGIC: [u8; 8] = [MARKER_START, b'W', b'S', b'D', b'c', b'u', b't', 0x01];

/// Bytes that are looked at together for the marker.
const CHUNK: usize = 64;

/// How long to wait for TCP's word after the SAN was lost.
const VERDICT: Duration = Duration::from_millis(500);
/// Times that a connection may go back before it stays.
const STICKY: u32 = 3;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) phase: AtomicU8,
    /// Calls of the application that are in the kernel now.
    pub(super) inflight: AtomicU32,
    /// Calls of the application that are with the SAN now.
    pub(super) busy: AtomicU32,
    /// Bytes since the companion was made, by any path.
    pub(super) total: AtomicU64,
    /// Those of them that the SAN carried.
    pub(super) san: AtomicU64,
}

impl Direction {
    pub(super) fn phase(&self) -> u8 {
        self.phase.load(Ordering::SeqCst)
    }

    pub(super) fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.total.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Bytes that the kernel carried.
    pub(super) fn by_kernel(&self) -> u64 {
        let san = self.san.load(Ordering::Relaxed);
        self.total.load(Ordering::Relaxed).saturating_sub(san)
    }

    pub(super) fn count_san(&self, bytes: usize) {
        self.count(bytes);
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.san.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How far an upgrade is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// The service thread looks for the peer.
    Seeking,
    /// A session is being negotiated for it.
    Joining,
    /// There is a session.
    Up,
    /// The kernel for good.
    Never,
}

/// What is behind the lock.
#[derive(Default)]
pub(super) struct Core {
    pub(super) stage: Stage,
    /// Our own descriptor for the TCP socket, while the service thread needs one.
    pub(super) tcp: Option<OwnedFd>,
    pub(super) connection: Option<Arc<Connection>>,
    /// The application has closed; nobody calls any more.
    pub(super) closed: bool,
    /// Sending was shut down by the application.
    pub(super) write_shut: bool,
    /// A call takes it back to the kernel.
    pub(super) held: bool,
    /// The session is being left.
    pub(super) hand: Option<Hand>,
    /// The session was lost, and what it leaves is not dealt with yet.
    pub(super) lost: Option<Lost>,
    /// Where this side's stream went over.
    pub(super) tx_cut: Option<u64>,
    /// Receiving was shut down by the application.
    pub(super) read_shut: bool,
    /// The end of what the application sends is still to be told on TCP.
    pub(super) end_due: bool,
    /// Because of a fork, which is nobody's fault.
    pub(super) forking: bool,
    /// Times it went back otherwise.
    strikes: u32,
    /// This side sends nothing, or nothing more, over this session.
    pub(super) back: bool,
    session: [u8; 16],
    cut: Option<u64>,
    cut_bytes: ([u8; 8], usize),
    /// What was taken of the marker; while `cut` is not reached, bytes that look like it.
    marker_in: ([u8; MARKER], usize),
    /// The receiving direction is `BETWEEN`, and guarded again after it.
    pub(super) guard_goes_on: bool,
    /// The marker was seen.
    verified: bool,
    /// Somebody has been woken for the marker before `cut` was known, and may not be woken for it
    /// again.
    marker_met: bool,
    /// What is still to be written of our marker.
    pub(super) marker_out: Vec<u8>,
    pub(super) leftover: VecDeque<u8>,
    pub(super) downgrades: u32,
    pub(super) upgrades: u32,
    pub(super) shadow: Option<Shadow>,
    /// Closed, and the peer's marker may still come.
    pub(super) parting: Option<Parting>,
    /// The number of the look that was shown last.
    pub(super) shown: u64,
    /// What the watchers were told last.
    pub(super) told_san: bool,
    /// How zealous the service thread has been told to be.
    pub(super) told_zeal: Option<Zeal>,
}

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

pub(super) fn marker(session: [u8; 16]) -> [u8; MARKER] {
    let mut marker = [0; MARKER];
    let (magic, name) = marker.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    name.copy_from_slice(&session);
    marker
}

/// Where the marker, or its beginning at the end, is in these bytes.
pub(super) fn find_marker(bytes: &[u8], marker: &[u8; MARKER]) -> Option<usize> {
    let mut at = 0;
    for chunk in bytes.chunks(CHUNK) {
        // Fast where the first byte is not even there, which is nearly everywhere.
        if chunk.contains(&MARKER_START) {
            let found = (at..at + chunk.len()).find(|from| {
                let rest = bytes.get(*from..).unwrap_or_default();
                let len = rest.len().min(MARKER);
                rest.get(..len) == marker.get(..len)
            });
            if found.is_some() {
                return found;
            }
        }
        at += chunk.len();
    }
    None
}

impl Core {
    /// Whether this is the session's connection now.
    pub(super) fn is_carried_by(&self, connection: &Arc<Connection>) -> bool {
        let own = self.connection.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, connection))
    }

    /// Whether nothing has been done for an upgrade, or nothing is left of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.stage == Stage::Idle
            && self.tcp.is_none()
            && self.connection.is_none()
            && self.lost.is_none()
            && self.hand.is_none()
            && self.parting.is_none()
            && self.shadow.is_none()
            && !self.owes()
    }

    /// Whether the rest of the marker waits for room in the kernel.
    pub(super) fn owes(&self) -> bool {
        !self.marker_out.is_empty()
    }

    pub(super) fn session(&self) -> [u8; 16] {
        self.session
    }

    /// What was taken from the kernel as the beginning of the marker, or as what looks like it.
    pub(super) fn doubtful(&self) -> &[u8] {
        let (bytes, have) = &self.marker_in;
        bytes.get(..*have).unwrap_or_default()
    }

    pub(super) fn put_doubtful(&mut self, bytes: &[u8]) {
        let (place, have) = &mut self.marker_in;
        for (to, byte) in place.iter_mut().skip(*have).zip(bytes) {
            *to = *byte;
        }
        *have = MARKER.min(*have + bytes.len());
    }

    /// Takes the first bytes of those.
    pub(super) fn take_doubtful(&mut self, count: usize) -> Vec<u8> {
        let (bytes, have) = &mut self.marker_in;
        let count = count.min(*have);
        let taken = bytes.get(..count).unwrap_or_default().to_vec();
        bytes.copy_within(count..*have, 0);
        *have -= count;
        taken
    }

    /// Nobody is to get the rest of the marker.
    pub(super) fn marker_gone(&mut self) {
        self.marker_out.clear();
    }
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
    fn meet_marker(&self, core: &mut Core) {
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

    // ---- the session

    /// A session is offered: whether it may have this stream. From here on the marker may come.
    pub(super) fn admit(&self, session: [u8; 16]) -> bool {
        let mut core = self.core.lock();
        let fits = core.stage == Stage::Seeking && !core.closed && self.is_open(&core);
        let admitted = fits && self.guard(&mut core, session);
        if admitted {
            core.stage = Stage::Joining;
        }
        admitted
    }

    /// Whether nothing is in the way of an upgrade.
    fn is_open(&self, core: &Core) -> bool {
        !core.write_shut
            && !core.held
            && self.is_alone()
            && core.leftover.is_empty()
            && !self.poisoned.load(Ordering::SeqCst)
            && self.rx.phase() == KERNEL
            && self.tx.phase() == KERNEL
    }

    fn guard(&self, core: &mut Core, session: [u8; 16]) -> bool {
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

    /// The negotiation has come to its end.
    pub(super) fn joined(self: &Arc<Self>, result: io::Result<Arc<Connection>>) {
        match result {
            Ok(connection) => self.begin(connection),
            Err(error) => {
                tracing::debug!(%error, "no session for a companion");
                let mut core = self.core.lock();
                if core.stage == Stage::Joining {
                    core.stage = Stage::Idle;
                }
                // Nobody has written a marker: the peer does so only after an answer.
                if self.is_guarded(&core) {
                    self.end_guard(&mut core);
                }
                core.tcp = None;
                core.parting = None;
                drop(core);
                let reason = match error.kind() {
                    io::ErrorKind::Unsupported => Reason::Version,
                    io::ErrorKind::OutOfMemory => Reason::NoMemory,
                    _ if error.raw_os_error() == Some(libc::ENOBUFS) => Reason::NoMemory,
                    _ => Reason::TupleMismatch,
                };
                self.give_up(reason);
            }
        }
    }

    fn begin(self: &Arc<Self>, connection: Arc<Connection>) {
        let mut core = self.core.lock();
        let session = connection.session_id();
        // The beacon's side has been guarded since the offer.
        let guarded = self.is_guarded(&core) && core.session == session;
        let parts = core.parting.is_some();
        let wanted = core.stage == Stage::Joining && (!core.closed || parts);
        let ready = wanted && (guarded || (self.is_open(&core) && self.guard(&mut core, session)));
        if !ready {
            if guarded {
                self.end_guard(&mut core);
            }
            if core.stage == Stage::Joining {
                core.stage = Stage::Idle;
            }
            core.tcp = None;
            core.parting = None;
            // Calls that have met by chance may not meet the next time.
            let again = self.reason() == Reason::Concurrent && self.is_untriggered();
            drop(core);
            if again {
                self.retrigger();
            }
            connection.suspend();
            connection.close_in_background();
            return;
        }
        core.stage = Stage::Up;
        core.upgrades += 1;
        COUNTERS.upgrades.fetch_add(1, Ordering::Relaxed);
        self.set_reason(Reason::None);
        self.failures.store(0, Ordering::Relaxed);
        let inline = core
            .tcp
            .as_ref()
            .and_then(|tcp| kernel::number(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE));
        connection.set_urgent_inline(inline.is_some_and(|inline| inline != 0));
        core.connection = Some(Arc::clone(&connection));
        let me: Weak<dyn Observer> = self.me.clone();
        let zeal = self.zeal(&core);
        core.told_zeal = Some(zeal);
        if parts {
            self.part_joined(&mut core);
        } else if self.role == Role::Accepted {
            self.tx.phase.store(GUARDED, Ordering::SeqCst);
            self.cut(&mut core);
        }
        drop(core);
        self.shown.session(&connection);
        connection.attend(Some((me, zeal)));
        self.moved();
        service::need(self);
    }

    // ---- sending

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

    // ---- receiving

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
    fn foreign(&self, core: &mut Core) -> io::Result<Guarded> {
        tracing::warn!("a wrong marker: the connection is reset");
        self.break_off(core);
        Err(io::Error::from_raw_os_error(libc::ECONNRESET))
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

    // ---- the way back

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

    // ---- the service thread's part

    /// Does what the application's calls have not done; `true` if something is still to be done.
    pub(super) fn tend(&self) -> bool {
        let mut core = self.core.lock();
        if core.parting.is_some() {
            return self.go_on_parting(&mut core);
        }
        if core.lost.is_some() || (!core.closed && self.lose(&mut core)) {
            self.resume(&mut core);
            let pending = Companion::is_resuming(&core);
            drop(core);
            self.moved();
            self.show(None, true, true);
            self.tell_used();
            return pending;
        }
        self.tell_loss(&core);
        if core.stage != Stage::Up && core.marker_out.is_empty() {
            drop(core);
            // The caller may just have taken the last step back.
            self.moved();
            return false;
        }
        self.hands(&mut core);
        if !core.marker_out.is_empty() && !core.awaits() {
            self.write_marker(&mut core);
        }
        self.cut(&mut core);
        self.fetch_marker(&mut core, false);
        if core.end_due && core.connection.as_ref().is_none_or(|one| one.is_closed()) {
            self.write_marker(&mut core);
        }
        // Who has met it finds it now, or finds that there is none.
        let due = core.marker_met && (self.rx.phase() != GUARDED || core.cut.is_some());
        core.marker_met &= !due;
        let pending = !core.marker_out.is_empty()
            || core.hand.is_some()
            || self.rx.phase() == GUARDED
            || self.tx.phase() == GUARDED;
        if core.stage != Stage::Up && core.marker_out.is_empty() {
            core.tcp = None;
        }
        let mixed = core.shadow.is_some() && self.rx.phase() == GUARDED;
        drop(core);
        self.moved();
        if due {
            self.tell_due();
        }
        if mixed {
            // The kernel's arrivals are to be shown, too.
            let news = self.look();
            self.show(news.as_ref(), false, true);
        }
        pending
    }

    /// How soon the service thread has to tell.
    pub(super) fn zeal(&self, core: &Core) -> Zeal {
        let attended = self.attended.load(Ordering::SeqCst);
        let whole = self.rx.phase() == SAN && self.tx.phase() == SAN;
        match attended {
            // Who attends sees everything that the session has to tell.
            true if whole && core.marker_out.is_empty() => Zeal::Never,
            false if core.shadow.is_some() => Zeal::High,
            _ => Zeal::Low,
        }
    }

    /// Has the service thread be as zealous as is right now.
    pub(super) fn attend(&self, core: &mut Core) {
        let zeal = self.zeal(core);
        let Some(connection) = &core.connection else {
            return;
        };
        if core.told_zeal.replace(zeal) != Some(zeal) {
            let me: Weak<dyn Observer> = self.me.clone();
            connection.attend(Some((me, zeal)));
        }
    }

    /// Tells the watchers if readiness has moved between the kernel and the shadow.
    pub(super) fn moved(&self) {
        self.display();
        let mut core = self.core.lock();
        let san = !self.on_kernel();
        if core.stage == Stage::Up {
            self.attend(&mut core);
        }
        if core.told_san == san {
            return;
        }
        core.told_san = san;
        drop(core);
        if san {
            let news = self.look();
            self.show(news.as_ref(), false, true);
        }
        self.tell_moved();
    }

    pub(super) fn set_reason(&self, reason: Reason) {
        self.reason.store(reason.number(), Ordering::Relaxed);
        self.display();
    }
}

fn nothing(got: io::Result<usize>) -> io::Result<Option<usize>> {
    match got {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Observer for Companion {
    fn news(&self) {
        let connection = {
            let core = self.core.lock();
            core.connection.clone()
        };
        let Some(connection) = connection else { return };
        let news = connection.look();
        if news.suspending || news.leaving {
            let mut core = self.core.lock();
            if core.is_carried_by(&connection) {
                self.follow(&mut core);
            }
            drop(core);
        }
        self.tend();
        if !self.attended.load(Ordering::Relaxed) {
            self.show(Some(&news), true, true);
        }
        self.tell_used();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companion::data::finished;
    use crate::conn::News;

    #[test]
    fn a_marker_is_found_whole_and_its_beginning_at_the_end() {
        let marker = marker([7; 16]);
        let mut bytes = vec![1, 2, 3];
        assert_eq!(find_marker(&bytes, &marker), None);
        bytes.extend(marker);
        assert_eq!(find_marker(&bytes, &marker), Some(3));
        bytes.extend([9; 30]);
        assert_eq!(find_marker(&bytes, &marker), Some(3));
        for len in 1..MARKER {
            let mut cut = vec![5; 40];
            cut.extend(&marker[..len]);
            assert_eq!(find_marker(&cut, &marker), Some(40), "{len}");
            cut.push(0);
            assert_eq!(find_marker(&cut, &marker), None, "{len}");
        }
    }

    fn kernel_pair() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// With a session that carries everything.
    fn up(tcp: &std::net::TcpStream) -> Arc<Companion> {
        let companion = Companion::new(std::os::fd::AsFd::as_fd(tcp), Role::Accepted).unwrap();
        let mut core = companion.core.lock();
        core.stage = Stage::Up;
        core.tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
        core.connection = Some(crate::conn::tests::pair().0);
        drop(core);
        companion.rx_to(SAN);
        companion.tx.phase.store(SAN, Ordering::SeqCst);
        companion
    }

    #[test]
    fn a_session_is_not_taken_for_the_next_one() {
        let (tcp, _peer) = kernel_pair();
        let companion = up(&tcp);
        let first = companion.connection().unwrap();
        let carries = |direction: &Direction, one: &Arc<Connection>| {
            let carrier = companion.carrier(direction);
            carrier.is_some_and(|carrier| Arc::ptr_eq(&carrier, one))
        };
        assert!(carries(&companion.rx, &first) && carries(&companion.tx, &first));
        // There is a session, and it does not carry this direction yet.
        companion.rx_to(GUARDED);
        assert!(companion.carrier(&companion.rx).is_none());
        companion.rx_to(SAN);
        let second = crate::conn::tests::pair().0;
        companion.core.lock().connection = Some(Arc::clone(&second));
        let over = News {
            suspending: true,
            suspended: true,
            ..News::default()
        };
        let phases = || (companion.rx.phase(), companion.tx.phase());
        companion.heed(&first, over);
        assert_eq!(phases(), (SAN, SAN));
        assert!(carries(&companion.rx, &second));
        companion.heed(&second, over);
        assert_ne!(companion.rx.phase(), SAN);
        assert_ne!(companion.tx.phase(), SAN);
    }

    #[test]
    fn a_reset_that_only_the_rest_of_a_marker_has_met_is_told_by_the_next_calls() {
        let (tcp, peer) = kernel_pair();
        let companion = up(&tcp);
        {
            let mut core = companion.core.lock();
            core.marker_out = marker([5; 16]).to_vec();
            companion.tx.phase.store(BETWEEN, Ordering::SeqCst);
            kernel::linger_zero(peer.as_raw_fd());
            drop(peer);
            companion.write_marker(&mut core);
            assert!(!core.owes());
        }
        // The kernel itself says that all is well: it has told already.
        let phases = (companion.rx.phase(), companion.tx.phase());
        assert_eq!(phases, (BROKEN, BROKEN));
        assert!(!companion.reset_told.load(Ordering::SeqCst));
        assert_eq!(companion.reason(), Reason::SanError);
    }

    #[test]
    fn an_end_found_by_a_call_while_it_was_broken_off_is_not_the_end() {
        let (tcp, _peer) = kernel_pair();
        let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Accepted).unwrap();
        let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
        companion.core.lock().tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
        companion.break_off(&mut companion.core.lock());
        assert_eq!(finished(call, 0), None);
        // The next call tells.
        assert!(!companion.reset_told.load(Ordering::SeqCst));
    }

    #[test]
    fn an_end_is_none_while_somebody_has_just_heard_of_a_reset() {
        let (tcp, _peer) = kernel_pair();
        let companion = up(&tcp);
        companion.rx_to(KERNEL);
        let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
        let mut core = companion.core.lock();
        std::thread::scope(|scope| {
            let call = scope.spawn(move || finished(call, 0));
            // Long enough for the call to be over if nothing held it up.
            std::thread::sleep(Duration::from_millis(20));
            companion.break_off(&mut core);
            drop(core);
            assert_eq!(call.join().unwrap(), None);
        });
    }

    /// Who takes it back is told, but not the application.
    #[test]
    fn a_way_back_that_fails_does_not_make_the_reset_an_end() {
        let (tcp, _peer) = kernel_pair();
        let companion = up(&tcp);
        let (ours, theirs) = crate::conn::tests::pair();
        theirs.abort();
        let end = Instant::now() + Duration::from_secs(30);
        while ours.failed().is_none() {
            assert!(Instant::now() < end);
            ours.look();
        }
        companion.core.lock().connection = Some(ours);
        let back = companion.downgrade(tcp.as_raw_fd(), Reason::Asked);
        assert_eq!(back.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(companion.rx.phase(), BROKEN);
        assert!(!companion.reset_told.load(Ordering::SeqCst));
    }

    #[test]
    fn a_wrong_marker_is_told_by_the_next_call_if_it_was_found_by_none() {
        let (tcp, _peer) = kernel_pair();
        let companion = up(&tcp);
        drop(companion.foreign(&mut companion.core.lock()));
        assert!(!companion.reset_told.load(Ordering::SeqCst));
    }

    #[test]
    fn calls_that_met_by_chance_do_not_end_all_upgrades() {
        let (tcp, _peer) = kernel_pair();
        let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Accepted).unwrap();
        companion.core.lock().stage = Stage::Joining;
        // As when an upgrade is sought.
        companion.trigger.store(u64::MAX, Ordering::Relaxed);
        let calls = [(); 2].map(|()| companion.begin_receive(tcp.as_raw_fd()).unwrap());
        companion.joined(Ok(crate::conn::tests::pair().0));
        drop(calls);
        assert_eq!(companion.reason(), Reason::Concurrent);
        assert!(companion.on_kernel() && !companion.is_untriggered());
    }

    #[test]
    fn a_marker_is_nobodys_though_the_san_is_lost_before_it_has_told_of_it() {
        for own in [0, 7] {
            for peeks in [false, true] {
                let (tcp, _peer) = kernel_pair();
                let companion =
                    Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Connected).unwrap();
                let (ours, theirs) = crate::conn::tests::pair();
                {
                    let mut core = companion.core.lock();
                    core.stage = Stage::Seeking;
                    core.tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
                }
                // A call of the application is in the kernel all the time.
                let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
                let session = ours.session_id();
                assert!(companion.admit(session));
                companion.joined(Ok(Arc::clone(&ours)));
                theirs.abort();
                let end = Instant::now() + Duration::from_secs(30);
                while ours.failed().is_none() && companion.rx.phase() == GUARDED {
                    assert!(Instant::now() < end);
                    ours.look();
                }
                let mut bytes = vec![1; own];
                bytes.extend(marker(session));
                let mut tail = |from: usize| bytes[from..].to_vec();
                let count = own + MARKER;
                assert_eq!(companion.finish_guarded(count, peeks, &mut tail), own);
                assert_eq!(companion.rx.phase(), BROKEN);
                drop(call);
            }
        }
    }

    #[test]
    fn breaking_off_is_a_reset_for_the_peer_though_the_application_keeps_its_descriptor() {
        let (tcp, mut peer) = kernel_pair();
        let companion = up(&tcp);
        companion.break_off(&mut companion.core.lock());
        let error = io::Read::read(&mut peer, &mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        after_a_reset(&tcp, Some(libc::ECONNRESET));
    }

    /// What calls that had begun before get from the kernel.
    fn after_a_reset(mut tcp: &std::net::TcpStream, first: Option<c_int>) {
        if first.is_some() {
            let error = io::Read::read(&mut tcp, &mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), first);
        }
        assert_eq!(io::Read::read(&mut tcp, &mut [0]).unwrap(), 0);
        let error = io::Write::write(&mut tcp, &[0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn breaking_off_after_the_peers_reset_leaves_what_the_kernel_says_of_that() {
        for told in [false, true] {
            let (tcp, peer) = kernel_pair();
            let companion = up(&tcp);
            kernel::linger_zero(peer.as_raw_fd());
            drop(peer);
            if told {
                assert!(io::Read::read(&mut &tcp, &mut [0]).is_err());
            }
            companion.break_off(&mut companion.core.lock());
            after_a_reset(&tcp, (!told).then_some(libc::ECONNRESET));
        }
    }

    #[test]
    fn a_peer_of_another_version_leaves_the_connection_with_the_kernel_and_says_why() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for role in [Role::Connected, Role::Accepted] {
            let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), role).unwrap();
            {
                // As after an offer that was answered, or one that was made.
                let mut core = companion.core.lock();
                if role == Role::Connected {
                    assert!(companion.guard(&mut core, [5; 16]));
                }
                core.stage = Stage::Joining;
            }
            let error = crate::conn::failure(wsd_proto::Failure::VersionMismatch);
            companion.joined(Err(error));
            assert_eq!(companion.reason(), Reason::Version);
            assert!(companion.on_kernel());
            assert_eq!(companion.rx.phase(), KERNEL);
            assert_eq!(companion.core.lock().stage, Stage::Idle);
        }
    }

    #[test]
    fn a_marker_makes_nothing_readable_however_it_was_asked_for() {
        use std::io::Write;

        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Connected).unwrap();
        {
            let mut core = companion.core.lock();
            core.tcp = Some(tcp.try_clone().unwrap().into());
            assert!(companion.guard(&mut core, [5; 16]));
            core.stage = Stage::Joining;
        }
        peer.write_all(&marker([5; 16])).unwrap();
        let mut come = [libc::pollfd {
            fd: tcp.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        kernel::poll(&mut come, 30_000).unwrap();
        assert_eq!(come[0].revents, libc::POLLIN);
        // All that select(2) understands by readable.
        let inwards = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND;
        let revents = inwards | libc::POLLOUT;
        assert_eq!(companion.relook(revents), libc::POLLOUT);
        assert_eq!(companion.rx.phase(), GUARDED);
        companion.close(tcp.as_raw_fd());
    }
}
