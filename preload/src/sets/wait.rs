//! epoll_wait() and its kin on sets with connections.
//!
//! A set without connections that the SAN carries is waited for by the program's own call, and
//! nothing else happens. Otherwise: look at the connections that have news, put their events in
//! front, add those that the kernel's set has ready, and only if there is none, sleep on a set of
//! our own. Before that the connections that have been active are watched for a moment (`spin`):
//! they are armed, which costs their peers a system call for each piece of news, only when a thread
//! is about to sleep, or after many looks in vain. The work of a call grows with the connections that have something to tell, not with
//! those that are registered.
//!
//! Invariant: who sleeps has seen, under the lock, that no connection is to be looked at, and each
//! connection that is not is armed: what happens to it wakes the sleeper.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{epoll_event, sigset_t};
use wsd_switch::companion::{Armed, Companion};

use super::member::{Cookie, Home, ONESHOT, Registration};
use super::sys;
use super::{Set, State, watch};
use crate::clock::{Blocked, Clock, Time};
use crate::raw::{errno, set_errno};
use crate::{guard, table};

/// What a wait is about.
#[derive(Clone, Copy)]
pub(crate) struct Wait<'a> {
    pub(crate) set: RawFd,
    pub(crate) events: *mut epoll_event,
    pub(crate) room: c_int,
    pub(crate) time: Time<'a>,
    pub(crate) mask: Option<&'a sigset_t>,
}

/// After so many looks that have found nothing a connection is armed, although nobody sleeps yet.
pub(super) const DRY: u8 = 16;
/// What a look does with connections that have nothing to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// They are to be looked at again before anybody sleeps, or are armed.
    Again,
    /// They are armed.
    Arm,
    /// As `Arm`; no events are taken, but shadows are made true.
    Serve,
}

/// Looks of one call at one connection that always has news, before it is the others' turn.
const LOOKS: usize = 3;
/// Events of our own set taken at once.
const NEWS: usize = 32;

/// Waits. `plain` is the program's own call.
#[inline]
pub(crate) fn wait(wait: Wait<'_>, plain: impl FnOnce() -> c_int) -> c_int {
    let room = usize::try_from(wait.room).unwrap_or(0);
    if room == 0 || wait.events.is_null() || !table::was_used() {
        return plain();
    }
    let Some(set) = super::get(wait.set) else {
        return plain();
    };
    // SAFETY: the program says that there is room for so many events.
    let out = unsafe {
        core::slice::from_raw_parts_mut(wait.events.cast::<MaybeUninit<epoll_event>>(), room)
    };
    let mut clock = Clock::new(wait.time);
    let asked = Asked::now(&set);
    if set.moved.load(Ordering::Acquire) == 0 {
        let passing = Counted::new(&set.passing);
        let count = plain();
        drop(passing);
        let Ok(filled) = usize::try_from(count) else {
            return count;
        };
        if filled == 0 || asked.is_true(&set) {
            return count;
        }
        let left = set.strip(out, 0, filled, asked);
        if left > 0 {
            return c_int::try_from(left).unwrap_or(count);
        }
        // All there was were markers: wait on.
    }
    set.wait(&wait, out, &mut clock)
}

/// When the kernel was asked: what it says may be about a path that was left since.
#[derive(Clone, Copy)]
struct Asked {
    moves: u64,
    guards: u64,
}

impl Asked {
    fn now(set: &Set) -> Asked {
        Asked {
            moves: set.moves.load(Ordering::SeqCst),
            guards: Companion::guards_ended(),
        }
    }

    /// Whether all that it says is the program's.
    fn is_true(self, set: &Set) -> bool {
        // In this order: see `guards_ended`.
        set.moved.load(Ordering::SeqCst) == 0
            && !Companion::any_guarded()
            && Companion::guards_ended() == self.guards
            && set.moves.load(Ordering::SeqCst) == self.moves
    }
}

/// One of a count as long as it lives.
pub(super) struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where a connection's events go.
struct Out<'a> {
    /// Names this turn of the loop.
    turn: u64,
    room: &'a mut [MaybeUninit<epoll_event>],
    filled: usize,
    /// Connections that have something to tell those who wait through us, when nobody does.
    kept: usize,
}

/// What a look has come to.
pub(super) struct Looked {
    /// Events that were stored.
    pub(super) told: usize,
    /// Connections whose events are for those who wait through us, if the look was made for others:
    /// they stay queued.
    pub(super) kept: usize,
}

impl Out<'_> {
    fn is_full(&self) -> bool {
        self.filled >= self.room.len()
    }

    fn put(&mut self, events: u32, data: u64) -> bool {
        let Some(place) = self.room.get_mut(self.filled) else {
            return false;
        };
        place.write(epoll_event { events, u64: data });
        self.filled += 1;
        true
    }
}

impl Set {
    fn wait(
        self: &Arc<Set>,
        wait: &Wait<'_>,
        out: &mut [MaybeUninit<epoll_event>],
        clock: &mut Clock<'_>,
    ) -> c_int {
        guard::point();
        let before = errno();
        let _counted = self.arrive();
        let mut blocked: Option<Blocked> = None;
        let mut ask_kernel = self.glance();
        let mut how = Look::Again;
        loop {
            let asked = Asked::now(self);
            // Ours may have always something to tell: then it is the kernel's turn with half the room.
            let own_room = if self.kernel_next.swap(false, Ordering::Relaxed) {
                out.len() / 2
            } else {
                out.len()
            };
            let room = out.get_mut(..own_room).unwrap_or_default();
            let mut found = self.look(room, how).told;
            if found > 0 {
                self.spin.has_news();
            }
            if found == out.len() {
                self.kernel_next.store(true, Ordering::Relaxed);
            } else if std::mem::take(&mut ask_kernel) || own_room < out.len() {
                let rest = out.get_mut(found..).unwrap_or_default();
                // What was found is found once: with it the call returns.
                let _whole = (found > 0).then(guard::uncancelled);
                match sys::wait(wait.set, rest, Time::Millis(0), None) {
                    Ok(events) => {
                        let count = events.len();
                        found += if asked.is_true(self) {
                            count
                        } else {
                            self.strip(out, found, count, asked)
                        };
                    }
                    Err(code) if found == 0 => {
                        set_errno(code);
                        return -1;
                    }
                    Err(_) => {}
                }
            }
            if found > 0 || clock.is_zero() {
                set_errno(before);
                return c_int::try_from(found).unwrap_or(c_int::MAX);
            }
            if how == Look::Again {
                // Unless it was the kernel's turn: then ours come first.
                if own_room == out.len() && !self.spin() {
                    how = Look::Arm;
                }
                continue;
            }
            // From here on a signal ends the sleep, or comes after the call.
            let blocked = blocked.get_or_insert_with(Blocked::new);
            let mask = wait.mask.unwrap_or_else(|| blocked.before());
            match self.sleep(wait.set, clock, mask) {
                Slept::Again { kernel, slept } => {
                    ask_kernel = kernel;
                    if slept {
                        how = Look::Again;
                    }
                }
                Slept::Over => {
                    set_errno(before);
                    return 0;
                }
                Slept::Failed(code) => {
                    set_errno(code);
                    return -1;
                }
            }
        }
    }

    /// Queues those of which what the providers gave to sleep on tells: a caller that always finds
    /// something never sleeps. Whether the kernel's set may have something, too.
    fn glance(&self) -> bool {
        let state = self.lock();
        let Some(outer) = state.own.as_ref().map(|own| own.outer) else {
            return true;
        };
        drop(state);
        let mut room = [const { MaybeUninit::<epoll_event>::uninit() }; NEWS];
        match sys::wait(outer, &mut room, Time::Millis(0), None) {
            // The kernel gives those that did not fit first the next time.
            Ok(news) => self.take_news(&mut self.lock(), news) || news.len() == NEWS,
            Err(_) => true,
        }
    }

    /// Looks at the connections that may have something to tell, and stores their events.
    pub(super) fn look(&self, room: &mut [MaybeUninit<epoll_event>], how: Look) -> Looked {
        let _inside = guard::enter();
        let serves = how == Look::Serve;
        let mut out = Out {
            turn: self.turns.fetch_add(1, Ordering::Relaxed) + 1,
            room,
            filled: 0,
            kept: 0,
        };
        let mut state = self.lock();
        let mut rounds = state.ready.len();
        while rounds > 0 && (serves || !out.is_full()) {
            rounds -= 1;
            let Some(cookie) = state.ready.pop_front() else {
                break;
            };
            let Some((_, member)) = state.named(cookie) else {
                continue;
            };
            member.queued = false;
            let Some(companion) = member.companion.upgrade() else {
                continue;
            };
            let has_shadow = member.has_shadow();
            let only_reads = member.only_reads();
            let quiet = !has_shadow && how == Look::Again && member.quiet && member.is_hot(false);
            drop(state);
            if quiet && self.sleeping.load(Ordering::SeqCst) == 0 && !companion.glance() {
                state = self.lock();
                if let Some((index, member)) = state.named(cookie) {
                    // Unless somebody has queued it meanwhile.
                    let quiet = !member.queued;
                    state.put(index);
                    if let Some(member) = state.member(index) {
                        member.quiet = quiet;
                    }
                }
                if self.sleeping.load(Ordering::Relaxed) > 0 {
                    self.kick(&state);
                }
                continue;
            }
            if only_reads && self.is_passed_over(&companion, cookie, how) {
                drop(companion);
                state = self.lock();
                continue;
            }
            let stays = self.look_at(&companion, cookie, has_shadow, how, &mut out);
            drop(companion);
            state = self.lock();
            if stays
                && let Some((index, _)) = state.named(cookie)
                && state.put(index)
                && self.sleeping.load(Ordering::Relaxed) > 0
            {
                // Others who wait are to see it, too.
                self.kick(&state);
            }
        }
        if !state.ready.is_empty() && out.is_full() && self.sleeping.load(Ordering::Relaxed) > 0 {
            // What is left was told to this thread only.
            self.kick(&state);
        }
        Looked {
            told: out.filled,
            kept: out.kept,
        }
    }

    /// With one that has nothing to read, when nothing else is asked for: it is armed, or to be
    /// looked at by the next call. False: it has to be looked at.
    fn is_passed_over(&self, companion: &Arc<Companion>, cookie: Cookie, how: Look) -> bool {
        let waits = how == Look::Again && self.sleeping.load(Ordering::SeqCst) == 0;
        if !(waits || how == Look::Arm) || !companion.has_nothing_to_read() {
            return false;
        }
        let mut state = self.lock();
        let Some((index, member)) = state.named(cookie) else {
            return true;
        };
        if waits && member.is_hot(false) {
            // Unless somebody has queued it meanwhile.
            let quiet = !member.queued;
            state.put(index);
            if let Some(member) = state.member(index) {
                member.quiet = quiet;
            }
            if self.sleeping.load(Ordering::Relaxed) > 0 {
                self.kick(&state);
            }
            return true;
        }
        drop(state);
        self.arm(companion, cookie)
    }

    /// Looks at one; true if it is to be looked at by the next call, too.
    fn look_at(
        &self,
        companion: &Arc<Companion>,
        cookie: Cookie,
        has_shadow: bool,
        how: Look,
        out: &mut Out<'_>,
    ) -> bool {
        for _ in 0..LOOKS {
            if companion.on_kernel() {
                return false;
            }
            let (bits, edges) = companion.look_now(has_shadow);
            let bits = u32::from(bits.cast_unsigned());
            let mut state = self.lock();
            let sleeping = self.sleeping.load(Ordering::SeqCst) > 0;
            let outer = state.own.as_ref().map(|own| own.outer);
            let Some((_, member)) = state.named(cookie) else {
                return false;
            };
            if member.registrations.is_empty() {
                // Nothing is to wake anybody for its sake until it is registered again.
                if let (Some(outer), Some(fd)) = (outer, member.watched.take()) {
                    let _gone = sys::control(outer, libc::EPOLL_CTL_DEL, fd, 0, 0);
                }
                return false;
            }
            let is_new = member.edges.replace(edges) != Some(edges);
            if bits != 0 {
                let mut level = false;
                let mut full = false;
                let mut gave = false;
                let mut keep = false;
                for registration in &mut member.registrations {
                    if registration.home != Home::Direct {
                        continue;
                    }
                    if how == Look::Serve {
                        // A thread of the program has taken over since, or there is no shadow.
                        keep = true;
                        continue;
                    }
                    // Another thread has taken from the queue meanwhile, and its turn is back; or an
                    // edge came while the last one was told. One call tells one event of each.
                    let told = registration.turn == out.turn;
                    if told && !registration.is_level() && registration.told == Some(edges) {
                        continue;
                    }
                    if out.is_full() || told {
                        full = true;
                        break;
                    }
                    let events = registration.news(bits, edges);
                    if events != 0 {
                        registration.turn = out.turn;
                        out.put(events, registration.data);
                        level |= registration.is_level();
                        gave = true;
                    }
                }
                let again = how == Look::Again && !has_shadow && !sleeping && member.is_hot(gave);
                drop(state);
                if is_new {
                    watch::tell_others(companion, Some(self));
                }
                if full {
                    return true;
                }
                if keep {
                    out.kept += 1;
                    self.arm(companion, cookie);
                    return true;
                }
                if level && self.sleeping.load(Ordering::SeqCst) == 0 {
                    // The next who waits looks again, before it arms.
                    return true;
                }
                if level {
                    self.arm(companion, cookie);
                    return true;
                }
                if again {
                    return true;
                }
            } else {
                let again = how == Look::Again && !has_shadow && !sleeping && member.is_hot(false);
                drop(state);
                if is_new {
                    watch::tell_others(companion, Some(self));
                }
                if again {
                    return true;
                }
            }
            if self.arm(companion, cookie) {
                return false;
            }
        }
        true
    }

    /// Has the sleepers woken by news of this companion. False if there are news.
    fn arm(&self, companion: &Arc<Companion>, cookie: Cookie) -> bool {
        let (fd, how) = match companion.arm() {
            // Readable until it is armed again, or all the time: told once.
            Armed::On(fd) | Armed::Socket(fd) => (fd, libc::EPOLLIN | libc::EPOLLET),
            Armed::News => return companion.on_kernel(),
            Armed::Told | Armed::Nothing => return true,
        };
        let mut state = self.lock();
        if companion.is_in_transit() && !state.transit.contains(&cookie) {
            state.transit.push(cookie);
        }
        let Some(outer) = state.own.as_ref().map(|own| own.outer) else {
            return true;
        };
        let Some((_, member)) = state.named(cookie) else {
            return true;
        };
        if member.watched == Some(fd) {
            return true;
        }
        let before = member.watched.replace(fd);
        if let Some(before) = before {
            let _gone = sys::control(outer, libc::EPOLL_CTL_DEL, before, 0, 0);
        }
        let input = how as u32;
        if sys::control(outer, libc::EPOLL_CTL_ADD, fd, input, cookie.0) == Err(libc::EEXIST) {
            let _named = sys::control(outer, libc::EPOLL_CTL_MOD, fd, input, cookie.0);
        }
        true
    }

    fn sleep(&self, set: RawFd, clock: &mut Clock<'_>, mask: &sigset_t) -> Slept {
        let state = self.lock();
        if !state.ready.is_empty() {
            return Slept::Again {
                kernel: true,
                slept: false,
            };
        }
        // Without one of ours nothing is ours to tell any more.
        let outer = state.own.as_ref().map_or(set, |own| own.outer);
        let sleeping = Counted::new(&self.sleeping);
        let naps = !state.transit.is_empty();
        drop(state);
        let (time, naps) = if naps {
            clock.nap()
        } else {
            (clock.left(), false)
        };
        let mut room = [const { MaybeUninit::<epoll_event>::uninit() }; NEWS];
        let news = if outer == set {
            // Nothing is taken: the next turn of the loop does.
            let mut fds = [libc::pollfd {
                fd: set,
                events: libc::POLLIN,
                revents: 0,
            }];
            let slept = crate::many::poll(&mut fds, time, Some(mask));
            drop(sleeping);
            return match slept {
                Ok(0) => Slept::Over,
                Ok(_) => Slept::Again {
                    kernel: true,
                    slept: true,
                },
                Err(code) => Slept::Failed(code),
            };
        } else {
            sys::wait(outer, &mut room, time, Some(mask))
        };
        drop(sleeping);
        match news {
            Err(code) => Slept::Failed(code),
            Ok([]) if naps => {
                let mut state = self.lock();
                for cookie in std::mem::take(&mut state.transit) {
                    if let Some((index, _)) = state.named(cookie) {
                        state.put(index);
                    }
                }
                Slept::Again {
                    kernel: false,
                    slept: true,
                }
            }
            Ok([]) => Slept::Over,
            Ok(news) => Slept::Again {
                kernel: self.take_news(&mut self.lock(), news),
                slept: true,
            },
        }
    }

    /// Queues whom events of our own set are about. Whether the kernel's set has something, too.
    pub(super) fn take_news(&self, state: &mut State, news: &[epoll_event]) -> bool {
        let mut kernel = false;
        for event in news {
            match Cookie(event.u64) {
                Cookie::SET => kernel = true,
                Cookie::KICK => {
                    if let Some(own) = &state.own {
                        sys::lower(own.kick);
                    }
                    // It may say that the set itself has changed.
                    kernel = true;
                }
                cookie => {
                    if let Some((index, _)) = state.named(cookie) {
                        state.put(index);
                    }
                }
            }
        }
        kernel
    }

    /// Drops, of so many events of the kernel behind those that came from us, the ones that are not
    /// true now: of a path that was left since the kernel was asked, of a marker, of a shadow that
    /// shows what others have just taken. Says how many are left, in front of the others.
    fn strip(
        &self,
        events: &mut [MaybeUninit<epoll_event>],
        ours: usize,
        filled: usize,
        asked: Asked,
    ) -> usize {
        let _inside = guard::enter();
        let (ours, events) = events.split_at_mut(ours.min(events.len()));
        let is_told = |data: u64| {
            // SAFETY: these were written.
            let mut told = ours.iter().map(|event| unsafe { event.assume_init() });
            told.any(|event| event.u64 == data)
        };
        let mut left = 0;
        for at in 0..filled.min(events.len()) {
            // SAFETY: the first `filled` were written.
            let Some(event) = events.get(at).map(|event| unsafe { event.assume_init() }) else {
                break;
            };
            let events_left = self.genuine(event.events, event.u64, asked, is_told);
            if events_left == 0 {
                continue;
            }
            if let Some(place) = events.get_mut(left) {
                place.write(epoll_event {
                    events: events_left,
                    u64: event.u64,
                });
                left += 1;
            }
        }
        left
    }

    /// What of an event of the kernel's set is the program's.
    fn genuine(
        &self,
        events: u32,
        data: u64,
        asked: Asked,
        is_told: impl FnOnce(u64) -> bool,
    ) -> u32 {
        let mut state = self.lock();
        let known = state.by_data.get(&data).copied().and_then(|index| {
            let cookie = state.cookie(index)?;
            let member = state.member(index)?;
            let companion = member.companion.upgrade()?;
            let named = |r: &&Registration| r.data == data;
            let here = |r: &&Registration| named(r) && r.home != Home::Direct;
            let registration = member
                .registrations
                .iter()
                .find(here)
                .or_else(|| member.registrations.iter().find(named))?;
            let stale = registration.moved > asked.moves;
            Some((cookie, companion, registration.home, stale))
        });
        drop(state);
        let Some((cookie, companion, home, stale)) = known else {
            return events;
        };
        if home == Home::Direct {
            // It is queued since it moved. Otherwise the event is another descriptor's, which the
            // program has registered with the same data.
            return if stale { 0 } else { events };
        }
        let low = events & 0x7fff;
        let revents = i16::try_from(low).unwrap_or(0);
        // One event for each registration, though it has just changed its place.
        let twice = stale && is_told(data);
        let real = if twice { 0 } else { companion.relook(revents) };
        let genuine = if home != Home::Kernel || companion.on_kernel() {
            u32::from(real.cast_unsigned()) & low
        } else {
            // The SAN's events come from where it is registered now.
            0
        };
        if genuine == 0 {
            let mut state = self.lock();
            state.ask_again(cookie, data);
        }
        genuine
    }
}

enum Slept {
    /// There may be something; in the kernel's set, too.
    Again { kernel: bool, slept: bool },
    /// The time is over.
    Over,
    /// With this errno.
    Failed(c_int),
}

impl State {
    /// An event was dropped: what is told once has not been told.
    fn ask_again(&mut self, cookie: Cookie, data: u64) {
        let State { own, members, .. } = self;
        let (index, _) = cookie.parts();
        let set = own
            .as_ref()
            .map(|own| own.set)
            .or(self.numbers.first().copied());
        let member = members.get(index as usize).and_then(|p| p.member.as_ref());
        let (Some(set), Some(member)) = (set, member) else {
            return;
        };
        for registration in &member.registrations {
            if registration.data == data && registration.events & ONESHOT != 0 {
                let number = match registration.home {
                    Home::Kernel => registration.fd,
                    Home::Shadow { fd, .. } => fd,
                    Home::Direct => continue,
                };
                let again = registration.events;
                let _asked = sys::control(set, libc::EPOLL_CTL_MOD, number, again, data);
            }
        }
    }
}
