//! Leaving the SAN with nothing left behind.
//!
//! Whoever takes a connection back to the kernel may do so because the kernel's socket goes to
//! somebody who knows nothing of us. What has arrived here and was not read is to come to them, so it
//! goes back to the peer over the session, and the peer sends it again as the first bytes that it
//! sends on TCP. Both ends do the same, whoever began: end the own stream on the SAN, take
//! what is under way, give back what nobody has read, wait for what the other gives back, send that on
//! TCP, go on.
//!
//! Owns how far that is. Invariants: while it takes from a direction no call of the application
//! receives; nothing but the rest of a marker is sent on TCP between the end of the own stream on
//! the SAN and the bytes that the peer gives back; bytes that are given back were not received, and
//! are counted when they come again. No step waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::state::{BETWEEN, BROKEN, Core, GUARDED, KERNEL, SAN, Stage, TAKEN};
use super::{Companion, Reason, kernel, service};
use crate::conn::{Connection, Given, Manner};

/// Between two looks of a thread that waits for the peer's part.
const PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
/// For a peer to do its part.
const TIME: Duration = Duration::from_secs(10);
/// For a close, whose caller cannot be told of a failure.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Who stays does not give back more than this: the peer must be able to send it although nobody
/// receives here.
const MOST_BACK: usize = 128 << 10;
/// Bytes taken at a time.
const PIECE: usize = 64 << 10;

/// One session's end.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// It is this end's application that leaves.
    pub(super) own: bool,
    /// What has been taken, and how much of it from the SAN.
    kept: Vec<u8>,
    kept_san: usize,
    /// Calls of the application are kept from receiving.
    taking: bool,
    /// The peer has been told what is given back.
    given: bool,
    /// It is all that was taken; otherwise that stays here.
    goes: bool,
    /// What the peer gives back has come, and is on its way.
    got: bool,
    /// It takes nothing back.
    gone: bool,
}

impl Core {
    /// Whether nothing may be sent on TCP yet, because something is to come before it.
    pub(super) fn awaits(&self) -> bool {
        self.hand.as_ref().is_some_and(|hand| !hand.got) || self.awaits_resume()
    }

    /// Whether the application's calls are to keep away from what the kernel has.
    pub(super) fn is_taking(&self) -> bool {
        self.hand.as_ref().is_some_and(|hand| hand.taking)
    }
}

impl Companion {
    /// Whether the session is being left; does what is to be done for that now.
    pub(super) fn hands(&self, core: &mut Core) -> bool {
        if core.stage != Stage::Up {
            return false;
        }
        let Some(connection) = core.connection.clone() else {
            return false;
        };
        if core.hand.is_none() {
            if !connection.peer_leaves() {
                return false;
            }
            self.set_reason(Reason::PeerAsked);
            core.hand = Some(Hand::default());
            service::need_weak(self.me.clone());
        }
        self.suspend(core);
        if let Err(error) = self.hand_step(core, &connection) {
            tracing::debug!(%error, "the SAN was lost while it was left");
            self.break_off(core);
        }
        true
    }

    /// This end's application leaves; `false` if the session does not know how to.
    pub(super) fn leave_san(&self, core: &mut Core) -> bool {
        let Some(connection) = core.connection.clone() else {
            return false;
        };
        if core.hand.is_none() {
            if !connection.leave_san() {
                return false;
            }
            core.hand = Some(Hand::default());
        }
        if let Some(hand) = &mut core.hand {
            hand.own = true;
        }
        self.hands(core)
    }

    fn hand_step(&self, core: &mut Core, connection: &Arc<Connection>) -> io::Result<()> {
        let given = core.hand.as_ref().is_none_or(|hand| hand.given);
        let taken = !given && self.take(core, connection)?;
        let Some(hand) = &mut core.hand else {
            return Ok(());
        };
        if taken {
            hand.given = true;
            hand.taking = false;
            let fd = core.tcp.as_ref().map(AsRawFd::as_raw_fd);
            let goes = !hand.gone && (hand.own || hand.kept.len() <= most_back(fd));
            if goes && !hand.kept.is_empty() {
                // It comes again, and is received then.
                let all = u64::try_from(hand.kept.len()).unwrap_or(0);
                let san = u64::try_from(hand.kept_san).unwrap_or(0);
                self.rx.total.fetch_sub(all, Ordering::SeqCst);
                self.rx.san.fetch_sub(san, Ordering::Relaxed);
            }
            let back = if goes { hand.kept.clone() } else { Vec::new() };
            hand.goes = goes;
            connection.give_back(back);
        }
        self.take_back(core, connection)?;
        self.let_receive(core);
        if !core.awaits() {
            self.write_marker(core);
        }
        self.retire(core);
        Ok(())
    }

    /// Lets the application receive again, what stays here first.
    fn let_receive(&self, core: &mut Core) {
        let Some(hand) = &mut core.hand else { return };
        let known = hand.given && (hand.got || !hand.goes || hand.kept.is_empty());
        if self.rx.phase() != TAKEN || !known {
            return;
        }
        if hand.goes || hand.kept.is_empty() {
            self.rx_to(KERNEL);
        } else {
            core.leftover.extend(std::mem::take(&mut hand.kept));
            self.rx_to(BETWEEN);
        }
    }

    /// Sends what the peer has given back, if all of it is here.
    fn take_back(&self, core: &mut Core, connection: &Connection) -> io::Result<()> {
        let Some(hand) = &mut core.hand else {
            return Ok(());
        };
        if hand.got {
            return Ok(());
        }
        match connection.given_back() {
            Given::Nothing => {}
            Given::Back(bytes) => {
                hand.got = true;
                if !bytes.is_empty() {
                    // Only what has gone over the SAN can come back.
                    if self.tx.phase() != BETWEEN {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    core.marker_out.extend(bytes);
                }
            }
            // Nobody sends it again.
            Given::Gone => {
                if let Some(error) = connection.failed() {
                    return Err(error);
                }
                hand.got = true;
                hand.gone = true;
                if hand.given && std::mem::take(&mut hand.goes) {
                    let all = u64::try_from(hand.kept.len()).unwrap_or(0);
                    let san = u64::try_from(hand.kept_san).unwrap_or(0);
                    self.rx.total.fetch_add(all, Ordering::SeqCst);
                    self.rx.san.fetch_add(san, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Takes what the kernel has before the marker, the marker, and the SAN's stream up to its end,
    /// as far as it is there. `true` if that was all.
    fn take(&self, core: &mut Core, connection: &Connection) -> io::Result<bool> {
        let mut room = Vec::new();
        loop {
            match self.rx.phase() {
                // What looked like the marker was not.
                BETWEEN if core.guard_goes_on => {
                    // If the peer has not gone over, it takes nothing back: what was taken early
                    // stays here then, and is read before what the kernel has.
                    self.learn_cut(core);
                    if self.left(core).is_none() && core.guard_goes_on {
                        return Ok(false);
                    }
                    if !core.guard_goes_on {
                        continue;
                    }
                    let Core { hand, leftover, .. } = &mut *core;
                    let Some(hand) = hand else {
                        return Ok(false);
                    };
                    hand.taking = true;
                    hand.kept.extend(leftover.drain(..));
                    self.leave_between(core);
                }
                KERNEL | BETWEEN => return Ok(true),
                BROKEN => return Err(io::ErrorKind::ConnectionReset.into()),
                GUARDED => {
                    self.learn_cut(core);
                    self.resolve_doubt(core);
                    if self.rx.phase() != GUARDED {
                        continue;
                    }
                    // Once they are kept away, those who are busy only wait.
                    let busy = match core.is_taking() {
                        true => 0,
                        false => self.rx.busy.load(Ordering::SeqCst),
                    };
                    let calls = self.rx.inflight.load(Ordering::SeqCst) + busy;
                    let fd = core.tcp.as_ref().map(AsRawFd::as_raw_fd);
                    // A call that waits for the marker goes on by itself.
                    let (Some(left), Some(fd), 0) = (self.left(core), fd, calls) else {
                        return Ok(false);
                    };
                    if let Some(hand) = &mut core.hand {
                        hand.taking = true;
                    }
                    if !self.take_guarded(core, fd, left, &mut room)? {
                        return Ok(false);
                    }
                }
                SAN => {
                    self.rx_to(TAKEN);
                    // A call that receives looks at the phase again after it has made itself known.
                    if self.rx.busy.load(Ordering::SeqCst) > 0 {
                        self.rx_to(SAN);
                        return Ok(false);
                    }
                }
                TAKEN => {
                    room.resize(PIECE, 0);
                    match connection.read_as(&mut room, Manner::NOT) {
                        // Where it goes on is said when it is known whether something stays here.
                        Ok(0) => return Ok(true),
                        Ok(count) => {
                            self.rx.count_san(count);
                            if let Some(hand) = &mut core.hand {
                                hand.kept_san += count;
                                hand.kept
                                    .extend_from_slice(room.get(..count).unwrap_or_default());
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(false);
                        }
                        Err(error) => return Err(error),
                    }
                }
                // Being changed: not while the lock is held.
                _ => return Ok(false),
            }
        }
    }

    /// `false` if nothing more is there now.
    fn take_guarded(
        &self,
        core: &mut Core,
        fd: RawFd,
        left: u64,
        room: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if left == 0 {
            self.take_marker(core, fd)?;
            return Ok(self.rx.phase() != GUARDED);
        }
        room.resize(PIECE, 0);
        let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let place = room.get_mut(..most).unwrap_or_default();
        match kernel::receive_into(fd, place, libc::MSG_DONTWAIT) {
            // The end, and yet more was to come.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.rx.count(count);
                if let Some(hand) = &mut core.hand {
                    hand.kept
                        .extend_from_slice(room.get(..count).unwrap_or_default());
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Goes back to the kernel; returns when both directions are there and the kernel's socket is the
    /// whole truth: what arrived over the SAN and was not read comes again over TCP.
    ///
    /// Where nobody can send it again, for the peer has closed, it stays readable through
    /// [`Companion::receive`], and [`Companion::on_kernel`] is false until it was read.
    ///
    /// # Errors
    /// If the peer did not do its part in time. The connection is reset then.
    pub fn downgrade(&self, fd: RawFd, why: Reason) -> io::Result<()> {
        let for_good = matches!(
            why,
            Reason::Exec | Reason::Passed | Reason::Stdio | Reason::Fork | Reason::Rule
        );
        self.yield_to_kernel(fd, why, for_good)
    }

    /// As [`Companion::downgrade`], and the SAN is never sought again.
    ///
    /// # Errors
    /// As there.
    pub fn downgrade_for_good(&self, fd: RawFd, why: Reason) -> io::Result<()> {
        self.yield_to_kernel(fd, why, true)
    }

    fn yield_to_kernel(&self, fd: RawFd, why: Reason, for_good: bool) -> io::Result<()> {
        let end = Instant::now() + TIME;
        self.forget_own_calls();
        let mut result = self.go_back(for_good, end);
        let mut core = self.core.lock();
        core.held = false;
        // Who goes on using the socket past us would miss what only this process has.
        let past_us = !matches!(why, Reason::Asked | Reason::NoDescriptors);
        if past_us && self.is_stranded(&core) {
            result = Err(io::ErrorKind::ConnectionReset.into());
        }
        if result.is_err() {
            self.break_off(&mut core);
            core.leftover.clear();
            // Who has the socket from now on gets an error, too, unless a call of ours has taken the
            // kernel's own already.
            kernel::reset(fd);
        }
        self.retire(&mut core);
        let idle = !matches!(core.stage, Stage::Up | Stage::Never);
        if for_good {
            core.stage = Stage::Never;
        }
        drop(core);
        self.set_reason(why);
        if idle && !for_good && self.is_untriggered() {
            self.retrigger();
        }
        self.moved();
        result
    }

    fn go_back(&self, for_good: bool, end: Instant) -> io::Result<()> {
        let connection = loop {
            let mut core = self.core.lock();
            match core.stage {
                Stage::Up => {
                    // No other session before this one has yielded everything.
                    let lost = self.lose(&mut core);
                    core.held = true;
                    if lost {
                        break None;
                    }
                    let connection = core.connection.clone();
                    if !self.leave_san(&mut core) {
                        self.suspend(&mut core);
                        let fd = core.tcp.as_ref().map(AsRawFd::as_raw_fd);
                        drop(core);
                        return fd.map_or(Ok(()), |fd| self.drain(fd, end));
                    }
                    break connection;
                }
                // The answer to an offer is under way; it takes moments.
                Stage::Joining if Instant::now() < end => {
                    drop(core);
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ if core.owes() => break None,
                _ => {
                    if core.stage != Stage::Never {
                        core.stage = Stage::Idle;
                    }
                    core.tcp = None;
                    return Ok(());
                }
            }
        };
        self.moved();
        self.wait_handed(end)?;
        let Some(connection) = connection.filter(|_| for_good) else {
            return Ok(());
        };
        // This process may be another program in a moment: what it has given back must be there.
        while !connection.is_closed() {
            connection.look();
            if Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(PAUSE);
        }
        connection.failed().map_or(Ok(()), Err)
    }

    /// Whether a session may end, as far as it is left like this.
    pub(super) fn is_handed(core: &Core) -> bool {
        core.hand.as_ref().is_none_or(|hand| hand.given && hand.got)
    }

    /// Waits until the session is left and what goes before anything else is with the kernel.
    pub(super) fn wait_handed(&self, until: Instant) -> io::Result<()> {
        let mut pause = PAUSE;
        loop {
            let mut core = self.core.lock();
            if let Some(connection) = core.connection.clone()
                && core.hand.is_some()
            {
                drop(core);
                // Takes what has come.
                connection.look();
                core = self.core.lock();
                self.hands(&mut core);
            }
            self.resume(&mut core);
            if !core.marker_out.is_empty() && !core.awaits() {
                self.write_marker(&mut core);
            }
            let broken = self.rx.phase() == BROKEN;
            let done = core.hand.is_none() && !core.awaits() && core.marker_out.is_empty();
            drop(core);
            self.moved();
            if broken {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if done {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the service thread has to go on looking: what is missing may be a call's end.
    pub(super) fn is_leaving(&self) -> bool {
        let core = self.core.lock();
        core.hand.is_some() || Companion::is_resuming(&core)
    }

    /// Before a close: the peer is not to wait for what this end gives back, or to lose what it does.
    pub(super) fn end_hand(&self) {
        if self.core.lock().hand.is_none() {
            return;
        }
        if let Err(error) = self.wait_handed(Instant::now() + CLOSE_TIME) {
            tracing::debug!(%error, "closed while the SAN was left");
            let mut core = self.core.lock();
            if core.hand.is_some() {
                self.break_off(&mut core);
            }
        }
    }
}

/// As much as fits into the receive buffer of the kernel's socket in any case, which is empty when
/// it is sent.
fn most_back(fd: Option<RawFd>) -> usize {
    let room = fd.and_then(|fd| kernel::number(fd, libc::SOL_SOCKET, libc::SO_RCVBUF));
    let room = room.and_then(|room| usize::try_from(room).ok());
    MOST_BACK.min(room.unwrap_or(0) / 4)
}
