//! A kernel TCP connection of a program that does not know the switch, and the SAN connection that
//! may come to carry its bytes.
//!
//! The application's descriptor is the kernel's socket for life. A [`Companion`] stands for one
//! such connection in this process; each of its two directions is carried by the kernel or by the
//! SAN, and changes from one to the other at an exact byte.
//!
//! What each file owns: this one what callers see and the counting of the bytes that the kernel
//! carries; [`kernel`] the calls on the application's descriptor; [`data`] receiving and sending;
//! [`registry`] the list of all companions; [`reason`] why the kernel carries a connection;
//! [`rules`] which connections may leave the kernel at all; [`state`] where each direction is;
//! [`joining`] how a session comes to carry it; [`cut`] the sending direction's going over;
//! [`guard`] the receiving direction while the [`marker`] may come; [`back`] the way back;
//! [`tend`] the service thread's part; [`service`] finding the peer; [`cache`] peers that do not
//! answer; [`shadow`] what poll sets see; [`shown`] what those see who look on; [`fork`] processes
//! that share a connection; [`hand`] what goes back to the peer when the SAN is left; [`retain`]
//! going on when it was lost;
//! [`waiting`] what those see who wait for many of them; [`parting`] the end while a marker may come;
//! [`doubt`] bytes that look like one; [`unread`] how much there is to be read.
//!
//! Invariants: every byte that crosses by either path is counted once; no lock is held while a
//! thread waits in the kernel; a connection that is never upgraded costs a few atomic operations
//! for each call and nothing else.

mod back;
mod cache;
mod cut;
#[allow(unsafe_code)]
mod data;
mod doubt;
#[allow(unsafe_code)]
mod fork;
mod guard;
mod hand;
mod joining;
#[allow(unsafe_code)]
mod kernel;
mod marker;
mod parting;
mod reason;
#[allow(unsafe_code)]
mod registry;
mod retain;
pub mod rules;
mod service;
mod shadow;
mod shown;
mod state;
mod tend;
#[cfg(test)]
mod tests;
mod unread;
mod waiting;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use libc::c_int;
use parking_lot::Mutex;
use wsd_proto::End;

use rules::{Prospect, Verdict};
use shadow::{Face, Shadow};
use shown::Shown;
use state::{BETWEEN, BROKEN, Core, Direction, GUARDED, KERNEL, SAN, Stage};

use crate::conn::{Connection, Manner, News};

pub use data::{Receiving, Sending};
pub use kernel::{Kernel, set_kernel};
pub use reason::{Path, Reason};
pub use registry::{Snapshot, Totals, all, totals};
pub use waiting::{
    Armed, Chore, Herald, Next, Sleeper, Watcher, kick, lower_own_wake_up, own_wake_up, serve,
    set_herald, spin_time,
};

/// Which end of the connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It called connect().
    Connected,
    /// It called accept().
    Accepted,
}

/// Bytes and turns after which an upgrade is worth while. Who accepted tries a little later, when
/// the other side's beacon is up.
const WORTH: [(u64, u32); 2] = [(16 << 10, 8), (32 << 10, 16)];
/// How much more it takes after each failure, as a power of two, at the most.
const LATER: u32 = 12;

/// See the module.
pub struct Companion {
    role: Role,
    rx: Direction,
    tx: Direction,
    /// Bytes of one direction after which an upgrade is sought.
    trigger: AtomicU64,
    /// The same for turns.
    trigger_turns: AtomicU32,
    /// Times that a send came after a receive.
    turns: AtomicU32,
    /// The last call has received.
    last_received: AtomicBool,
    /// Urgent data went over the kernel: the peer's count of the stream is not known.
    poisoned: AtomicBool,
    /// The application has heard of the reset; as with TCP, that is told once.
    reset_told: AtomicBool,
    /// The process ends.
    leaving: AtomicBool,
    failures: AtomicU32,
    reason: AtomicU8,
    has_shadow: AtomicBool,
    /// The application has asked for the error.
    error_taken: AtomicBool,
    /// A waiter looks after what is to be shown.
    attended: AtomicBool,
    /// Times that a send found no room on the SAN.
    stalls: AtomicU32,
    /// As of the last look: changes with each arrival, and each time that room comes back.
    arrived: AtomicU32,
    roomy: AtomicU32,
    /// Held for moments; see [`state`].
    core: Mutex<Core>,
    /// The processes that share it, once it was forked with.
    share: OnceLock<Option<fork::Share>>,
    me: Weak<Companion>,
    watcher: OnceLock<Arc<dyn Watcher>>,
    /// A waiter has looked and is to be told of what it does not see.
    observed: AtomicBool,
    /// The herald is to be asked before the SAN is sought.
    announced: AtomicBool,
    /// Where others see it.
    shown: Shown,
    slot: registry::Slot,
    /// The number the application knew the connection by when it was made.
    number: RawFd,
}

impl std::fmt::Debug for Companion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Companion")
            .field("role", &self.role)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Companion {
    /// A companion for a connection that has just been made by connect() or accept(), before any
    /// byte has crossed it. `None` if nothing can ever upgrade it. Makes no system call, unless a
    /// rule wants the upgrade at once.
    #[must_use]
    pub fn new(fd: BorrowedFd<'_>, role: Role) -> Option<Arc<Companion>> {
        if registry::is_off() || fork::is_orphaned() {
            return None;
        }
        let prospect = rules::active().prospect(role);
        let (bytes, turns) = match prospect {
            Prospect::Certain(Verdict::Tcp) => return None,
            // The service thread asks for the addresses.
            Prospect::Open => (1, 1),
            Prospect::Certain(Verdict::San) => worth(role),
            // A process that accepts may only hand the connection on to a child: its first use
            // tells whose it is.
            Prospect::Certain(Verdict::Eager) if role == Role::Accepted => (1, 1),
            Prospect::Certain(Verdict::Eager) => (u64::MAX, u32::MAX),
        };
        let number = fd.as_raw_fd();
        let made = registry::enter(|me, slot| Companion {
            role,
            rx: Direction::default(),
            tx: Direction::default(),
            trigger: AtomicU64::new(bytes),
            trigger_turns: AtomicU32::new(turns),
            turns: AtomicU32::new(0),
            last_received: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            reset_told: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            reason: AtomicU8::new(Reason::None.number()),
            has_shadow: AtomicBool::new(false),
            error_taken: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            stalls: AtomicU32::new(0),
            arrived: AtomicU32::new(0),
            roomy: AtomicU32::new(0),
            core: Mutex::default(),
            share: OnceLock::new(),
            me: me.clone(),
            watcher: OnceLock::new(),
            observed: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            shown: Shown::new(role, number),
            slot,
            number,
        });
        if prospect == Prospect::Certain(Verdict::Eager) && role == Role::Connected {
            service::seek(&made, number);
        }
        Some(made)
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// To be called before a receiving call of the kernel on `fd`; `None`: use
    /// [`Companion::receive`], which is also the only way to receive with MSG_WAITALL.
    #[inline]
    pub fn begin_receive(&self, fd: RawFd) -> Option<Receiving<'_>> {
        // SeqCst: against the store of the phase and the look at this count by who changes it.
        self.rx.inflight.fetch_add(1, Ordering::SeqCst);
        let receiving = Receiving::new(self, fd);
        (self.rx.phase() == KERNEL).then_some(receiving)
    }

    /// To be called before a sending call of the kernel; `None`: use [`Companion::send`].
    #[inline]
    pub fn begin_send(&self, fd: RawFd) -> Option<Sending<'_>> {
        if self.tx.phase() == GUARDED {
            self.cut_now();
        }
        // SeqCst: as above.
        self.tx.inflight.fetch_add(1, Ordering::SeqCst);
        let sending = Sending::new(self, fd);
        matches!(self.tx.phase(), KERNEL | GUARDED).then_some(sending)
    }

    /// After bytes were received over the kernel.
    #[inline]
    fn received(&self, fd: RawFd) {
        self.show_bytes();
        // Relaxed, here and below: hints.
        self.last_received.store(true, Ordering::Relaxed);
        if self.rx.total.load(Ordering::Relaxed) >= self.trigger.load(Ordering::Relaxed) {
            self.triggered(fd);
        }
    }

    /// After bytes were sent over the kernel.
    #[inline]
    fn sent(&self, fd: RawFd) {
        self.show_bytes();
        if self.last_received.load(Ordering::Relaxed) {
            self.last_received.store(false, Ordering::Relaxed);
            let turns = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
            if turns >= self.trigger_turns.load(Ordering::Relaxed) {
                return self.triggered(fd);
            }
        }
        if self.tx.total.load(Ordering::Relaxed) >= self.trigger.load(Ordering::Relaxed) {
            self.triggered(fd);
        }
    }

    /// After bytes were sent over the SAN.
    fn san_sent(&self) {
        self.last_received.store(false, Ordering::Relaxed);
    }

    #[cold]
    fn triggered(&self, fd: RawFd) {
        self.trigger.store(u64::MAX, Ordering::Relaxed);
        self.trigger_turns.store(u32::MAX, Ordering::Relaxed);
        if self.poisoned.load(Ordering::Relaxed) {
            self.set_reason(Reason::Urgent);
            return;
        }
        if self.announced.load(Ordering::Relaxed) && !waiting::herald(self, fd) {
            // The next call asks again.
            self.trigger.store(1, Ordering::Relaxed);
            self.trigger_turns.store(1, Ordering::Relaxed);
            return;
        }
        service::seek(self, fd);
    }

    /// Whether enough has crossed by now.
    fn is_worth_it(&self) -> bool {
        let (bytes, turns) = worth(self.role);
        let total = |direction: &Direction| direction.total.load(Ordering::Relaxed);
        total(&self.rx).max(total(&self.tx)) >= bytes || self.turns.load(Ordering::Relaxed) >= turns
    }

    /// Sought too early.
    fn not_yet(&self) {
        let mut core = self.core.lock();
        core.stage = Stage::Idle;
        core.tcp = None;
        drop(core);
        let (bytes, turns) = worth(self.role);
        self.trigger.store(bytes, Ordering::Relaxed);
        self.trigger_turns.store(turns, Ordering::Relaxed);
    }

    /// Whether nothing would seek again.
    fn is_untriggered(&self) -> bool {
        self.trigger.load(Ordering::Relaxed) == u64::MAX
    }

    /// Seeks again after as much more as the failures so far make it wait.
    fn retrigger(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(LATER);
        let (bytes, turns) = worth(self.role);
        let total = |direction: &Direction| direction.total.load(Ordering::Relaxed);
        let now = total(&self.rx).max(total(&self.tx));
        self.trigger
            .store(now + (bytes << failures), Ordering::Relaxed);
        let now = self.turns.load(Ordering::Relaxed);
        let later = now.saturating_add(turns << failures);
        self.trigger_turns.store(later, Ordering::Relaxed);
    }

    #[cold]
    fn cut_now(&self) {
        let mut core = self.core.lock();
        self.cut(&mut core);
        drop(core);
        self.moved();
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.core.lock().connection.clone()
    }

    /// What carries this direction if the SAN does. One without the other could be of different
    /// sessions: a thread may stand still in between for as long as a way back and an upgrade take.
    fn carrier(&self, direction: &Direction) -> Option<Arc<Connection>> {
        let core = self.core.lock();
        let connection = core.connection.as_ref();
        connection
            .filter(|_| direction.phase() == SAN)
            .map(Arc::clone)
    }

    /// Urgent data goes over the kernel.
    fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

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
    fn part(&self) {
        let end = Instant::now() + Duration::from_millis(100);
        // Threads that go on with it have it locked often, but not for long.
        while self.core.is_locked() || self.connection().is_some_and(|it| it.is_locked()) {
            if Instant::now() >= end {
                return;
            }
            std::thread::yield_now();
        }
        // Nothing more is taken: who sends now waits for the end of the process.
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

    /// Takes what the SAN, and the kernel before the marker, still have to yield.
    fn drain(&self, fd: RawFd, end: Instant) -> io::Result<()> {
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

    // ---- readiness

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
    fn look(&self) -> Option<News> {
        let connection = self.connection()?;
        Some(self.heed(&connection, connection.look()))
    }

    /// Follows what the peer has said about the path.
    fn heed(&self, connection: &Arc<Connection>, news: News) -> News {
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
    fn show(&self, news: Option<&News>, fresh: bool, shows: bool) -> (i16, (u32, u32)) {
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
            face.readable = has(libc::POLLIN) || rx == BETWEEN || rx == BROKEN;
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
    fn show_now(&self, connection: &Connection) {
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

    /// Why the kernel carries the connection.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::from_number(self.reason.load(Ordering::Relaxed))
    }

    fn set_reason(&self, reason: Reason) {
        self.reason.store(reason.number(), Ordering::Relaxed);
        self.display();
    }

    /// What carries the connection.
    #[must_use]
    pub fn path(&self) -> Path {
        match (self.rx.phase(), self.tx.phase()) {
            (SAN, SAN) => Path::San,
            (SAN, _) | (_, SAN) => Path::Mixed,
            _ => Path::Tcp,
        }
    }

    /// What there is to tell about it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let bytes = |direction: &Direction| {
            let san = direction.san.load(Ordering::Relaxed);
            let total = direction.total.load(Ordering::Relaxed);
            (total.saturating_sub(san), san)
        };
        let (received_tcp, received_san) = bytes(&self.rx);
        let (sent_tcp, sent_san) = bytes(&self.tx);
        let core = self.core.lock();
        let connection = core.connection.clone();
        let (upgrades, downgrades) = (core.upgrades, core.downgrades);
        drop(core);
        Snapshot {
            number: self.number,
            role: self.role,
            path: self.path(),
            reason: self.reason(),
            received_tcp,
            sent_tcp,
            received_san,
            sent_san,
            upgrades,
            downgrades,
            session: connection.as_ref().map(|connection| connection.stats()),
            session_id: connection.map_or([0; 16], |connection| connection.session_id()),
        }
    }

    /// What there is to tell about it at its end, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Snapshot {
            role,
            reason,
            received_tcp,
            sent_tcp,
            received_san,
            sent_san,
            upgrades,
            downgrades,
            ..
        } = self.snapshot();
        let role = match role {
            Role::Connected => "client",
            Role::Accepted => "server",
        };
        let core = self.core.lock();
        let fd = core.tcp.as_ref().map_or(self.number, AsRawFd::as_raw_fd);
        let name = |address: std::net::SocketAddr| address.to_string();
        let names = kernel::names(fd).map(|(local, peer)| (name(local), name(peer)));
        drop(core);
        let (local, peer) = names.unwrap_or_else(|_| ("-".to_owned(), "-".to_owned()));
        format!(
            "role={role} local={local} peer={peer} tcp_in={received_tcp} tcp_out={sent_tcp} \
             san_in={received_san} san_out={sent_san} upgrades={upgrades} \
             downgrades={downgrades} reason={}",
            reason.code()
        )
    }

    /// What the end of the process does to companions, for those who end it without the C
    /// library's handlers: has everything delivered that was sent, within a time. May be called
    /// again, and from a signal handler.
    pub fn leave() {
        service::leave();
    }

    // ---- fork

    /// To be called right before fork().
    pub fn before_fork() {
        fork::before();
    }

    /// To be called in the parent right after fork(), also if it failed.
    pub fn after_fork_in_parent() {
        fork::after_in_parent();
    }

    /// To be called in the child right after fork().
    pub fn after_fork_in_child() {
        fork::after_in_child();
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if self.rx.phase() == GUARDED {
            self.rx_to(KERNEL);
        }
        self.forsake();
        registry::leave(self);
    }
}

fn worth(role: Role) -> (u64, u32) {
    let [connected, accepted] = WORTH;
    match role {
        Role::Connected => connected,
        Role::Accepted => accepted,
    }
}

fn low_word(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}
