//! One connection in one set: how it is registered, and moving it between kernel and SAN.
//!
//! Invariant: at any time the kernel's set has at most one file for a registration, so no event
//! comes twice. A move forces what is ready to be told once more, so no edge is lost.

use core::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};
use wsd_switch::companion::Companion;

use super::{Own, Set, State, sys};
use crate::table;

/// Names a member of a set, as data of an event of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cookie(pub(super) u64);

impl Cookie {
    /// The program's set.
    pub(super) const SET: Cookie = Cookie(u64::MAX);
    /// The event that wakes sleepers.
    pub(super) const KICK: Cookie = Cookie(u64::MAX - 1);

    pub(super) fn new(index: u32, generation: u32) -> Cookie {
        Cookie(u64::from(generation) << 32 | u64::from(index))
    }

    pub(super) fn parts(self) -> (u32, u32) {
        let low = u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(0);
        let high = u32::try_from(self.0 >> 32).unwrap_or(0);
        (low, high)
    }
}

/// The bits of epoll that change how events are given, not which.
pub(super) const ONESHOT: u32 = libc::EPOLLONESHOT as u32;
pub(super) const EDGES: u32 = libc::EPOLLET as u32;
pub(super) const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
/// What is told whether it was asked for or not.
pub(super) const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const OUT: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32;

/// A connection in a set.
pub(super) struct Member {
    pub(super) companion: Weak<Companion>,
    /// Names the companion while it lives.
    pub(super) key: usize,
    /// One for each number under which the program has registered it.
    pub(super) registrations: Vec<Registration>,
    /// It is on the list of those to be looked at.
    pub(super) queued: bool,
    /// It is on the list of those that may have no registration any more.
    pub(super) idle: bool,
    /// The last look has found nothing, and nobody has taken news since.
    pub(super) quiet: bool,
    /// Looks in a row that have found nothing, since it was last armed.
    pub(super) dry: u8,
    /// The edges of the last look.
    pub(super) edges: Option<(u32, u32)>,
    /// What the provider gave to sleep on, in `Own::outer`.
    pub(super) watched: Option<RawFd>,
}

/// One registration of the program's.
pub(super) struct Registration {
    pub(super) fd: RawFd,
    pub(super) events: u32,
    pub(super) data: u64,
    pub(super) home: Home,
    /// The edges that were told; `None`: the next look tells what is there.
    pub(super) told: Option<(u32, u32)>,
    /// The number of the set's move that brought it where it is.
    pub(super) moved: u64,
    /// The look that told its last event.
    pub(super) turn: u64,
}

/// Where a registration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// In the kernel's set, with the TCP socket.
    Kernel,
    /// In the kernel's set, with the companion's shadow, or with a number of ours for it.
    Shadow { fd: RawFd, own: bool },
    /// With us.
    Direct,
}

/// Whether we can give such events as the kernel would.
pub(super) fn fits_direct(events: u32) -> bool {
    events & (ONESHOT | EXCLUSIVE) == 0
}

pub(super) fn key_of(companion: &Arc<Companion>) -> usize {
    Arc::as_ptr(companion).addr()
}

impl Registration {
    pub(super) fn new(fd: RawFd, events: u32, data: u64, home: Home) -> Registration {
        Registration {
            fd,
            events,
            data,
            home,
            told: None,
            moved: 0,
            turn: 0,
        }
    }

    /// What is to be told now, given what is true of the connection. Zero: nothing.
    pub(super) fn news(&mut self, bits: u32, edges: (u32, u32)) -> u32 {
        let wanted = bits & (self.events & 0x3fff_ffff | ALWAYS);
        if self.events & EDGES == 0 {
            return wanted;
        }
        let fresh = match self.told {
            None => wanted,
            Some(told) => {
                let inwards = if told.0 == edges.0 { 0 } else { wanted & !OUT };
                let outwards = if told.1 == edges.1 { 0 } else { wanted & OUT };
                // An edge of one kind tells everything that is true.
                if inwards | outwards == 0 { 0 } else { wanted }
            }
        };
        self.told = Some(edges);
        fresh
    }

    /// Whether it stays to be told until it is not true any more.
    pub(super) fn is_level(&self) -> bool {
        self.events & EDGES == 0
    }

    /// Whether the kernel has told it once and waits to be asked again. The number is the one that
    /// the kernel has it under.
    fn is_spent(&self, own: &Own, number: RawFd) -> bool {
        if self.events & ONESHOT == 0 {
            return false;
        }
        let mut text = Vec::new();
        if !sys::read_file(&format!("/proc/self/fdinfo/{}", own.set), &mut text) {
            return false;
        }
        let text = String::from_utf8_lossy(&text);
        text.lines().any(|line| spent_line(line, number))
    }

    /// It is about to change its place.
    fn leaves(&mut self, set: &Set) {
        // SeqCst: before it does; see `Asked`.
        self.moved = set.moves.fetch_add(1, Ordering::SeqCst) + 1;
    }

    /// Takes it out of the kernel's set.
    fn take_out(&self, own: &Own, key: usize) {
        match self.home {
            // Under a number that leads elsewhere now, another registration of the program's may be.
            Home::Kernel if leads_to(self.fd, key) => {
                let _gone = sys::control(own.set, EPOLL_CTL_DEL, self.fd, 0, 0);
            }
            Home::Shadow { fd, own: ours } => {
                let _gone = sys::control(own.set, EPOLL_CTL_DEL, fd, 0, 0);
                if ours {
                    sys::close(fd);
                }
            }
            Home::Kernel | Home::Direct => {}
        }
    }

    /// The number the kernel's set has it under.
    fn number(&self) -> RawFd {
        match self.home {
            Home::Shadow { fd, .. } => fd,
            Home::Kernel | Home::Direct => self.fd,
        }
    }

    /// Puts it into the kernel's set.
    fn put_in(&mut self, own: &Own, to: Home, spent: bool) -> Result<(), c_int> {
        let events = if spent {
            // Nothing but an error tells before the program asks again.
            ONESHOT | EDGES
        } else {
            self.events
        };
        self.home = to;
        let done = sys::control(own.set, EPOLL_CTL_ADD, self.number(), events, self.data);
        // Its readiness may be told twice: once of before, once of now.
        self.told = None;
        done
    }
}

/// Whether a line of fdinfo says that this number is registered and disabled.
fn spent_line(line: &str, number: RawFd) -> bool {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("tfd:") || words.next().and_then(|n| n.parse().ok()) != Some(number) {
        return false;
    }
    if words.next() != Some("events:") {
        return false;
    }
    let events = words.next().and_then(|w| u32::from_str_radix(w, 16).ok());
    // Bits above these say how, not what; EPOLLMSG is the highest of those that say what.
    events.is_some_and(|events| events & 0x0fff_ffff == 0)
}

fn leads_to(fd: RawFd, key: usize) -> bool {
    table::get(fd).is_some_and(|held| key_of(held.descriptor().companion()) == key)
}

impl Member {
    pub(super) fn new(companion: &Arc<Companion>) -> Member {
        Member {
            companion: Arc::downgrade(companion),
            key: key_of(companion),
            registrations: Vec::new(),
            queued: false,
            idle: false,
            quiet: false,
            dry: 0,
            edges: None,
            watched: None,
        }
    }

    pub(super) fn has_shadow(&self) -> bool {
        let shadowed = |r: &Registration| matches!(r.home, Home::Shadow { .. });
        self.registrations.iter().any(shadowed)
    }

    /// Whether only what comes in is to be told, and by us.
    pub(super) fn only_reads(&self) -> bool {
        let reads = |r: &Registration| r.home == Home::Direct && r.events & OUT == 0;
        !self.registrations.is_empty() && self.registrations.iter().all(reads)
    }

    /// After a look that has told something or not: whether another one soon may find something.
    pub(super) fn is_hot(&mut self, told: bool) -> bool {
        self.quiet = !told;
        self.dry = if told { 0 } else { self.dry.saturating_add(1) };
        self.dry <= super::wait::DRY
    }

    /// Closes numbers of our own for the shadow.
    pub(super) fn close_shadows(&self) {
        for registration in &self.registrations {
            if let Home::Shadow { fd, own: true } = registration.home {
                sys::close(fd);
            }
        }
    }

    /// Takes everything out of the kernel's sets, ours and the program's.
    pub(super) fn take_out(&self, own: &Own) {
        for registration in &self.registrations {
            if registration.home != Home::Kernel {
                registration.take_out(own, self.key);
            }
        }
        if let Some(fd) = self.watched {
            let _gone = sys::control(own.outer, EPOLL_CTL_DEL, fd, 0, 0);
        }
    }

    /// A number under which this registration can be made with the shadow, if it is there now.
    fn shadow_home(&self, at: usize, from: Home, shadow: RawFd) -> Option<Home> {
        let registration = self.registrations.get(at)?;
        (registration.home == from).then(|| self.free_shadow(shadow))?
    }

    /// A number for the shadow that no registration has yet.
    pub(super) fn free_shadow(&self, shadow: RawFd) -> Option<Home> {
        let taken = self
            .registrations
            .iter()
            .any(|r| matches!(r.home, Home::Shadow { fd, .. } if fd == shadow));
        if !taken {
            return Some(Home::Shadow {
                fd: shadow,
                own: false,
            });
        }
        let fd = sys::duplicate(shadow)?;
        Some(Home::Shadow { fd, own: true })
    }
}

impl Set {
    /// Registers this companion's connection as it is carried now. `shadow` was made before if it
    /// may be needed.
    pub(super) fn settle(&self, companion: &Arc<Companion>) {
        let key = key_of(companion);
        let mut shadow = None;
        let mut failed = false;
        let mut number;
        loop {
            let mut state = self.lock();
            let Some(index) = state.index_of(key) else {
                return;
            };
            let fd = state
                .member(index)
                .and_then(|m| m.registrations.first().map(|r| r.fd));
            number = fd.unwrap_or(-1);
            if companion.on_kernel() {
                state.move_to_kernel(self, index);
                return;
            }
            if !state.has_own() {
                failed = true;
            }
            let wants_shadow = state
                .member(index)
                .is_some_and(|m| m.registrations.iter().any(|r| r.home == Home::Kernel))
                && state.wants_shadow(index);
            if failed || !wants_shadow || shadow.is_some() {
                if !failed {
                    state.move_to_san(self, index, shadow);
                    self.queue(&mut state, index);
                    self.care_for(state);
                }
                break;
            }
            drop(state);
            match companion.shadow() {
                Ok(fd) => {
                    companion.refresh();
                    shadow = Some(fd);
                }
                Err(_) => failed = true,
            }
        }
        if failed {
            // Without descriptors there is no way to show readiness: back to where there is one.
            super::watch::give_up(companion, number);
        }
    }
}

impl State {
    /// Whether there are descriptors of our own, made now if need be.
    pub(super) fn has_own(&mut self) -> bool {
        if self.own.is_none() {
            self.own = self.numbers.iter().find_map(|number| Own::new(*number));
        }
        self.own.is_some()
    }

    pub(super) fn wants_shadow(&mut self, index: u32) -> bool {
        let direct = self.direct;
        self.member(index).is_some_and(|m| {
            m.registrations
                .iter()
                .any(|r| !(direct && fits_direct(r.events)))
        })
    }

    /// Has the kernel tell those who wait for edges of the TCP socket what it is ready for. Who was
    /// told once asks again itself.
    pub(super) fn tell_edges_again(&mut self, key: usize) {
        let set = self.own.as_ref().map(|own| own.set);
        let Some(set) = set.or(self.numbers.first().copied()) else {
            return;
        };
        let Some(index) = self.index_of(key) else {
            return;
        };
        let Some(member) = self.member(index) else {
            return;
        };
        for registration in &member.registrations {
            let edges = registration.events & (EDGES | ONESHOT) == EDGES;
            if edges && registration.home == Home::Kernel && leads_to(registration.fd, key) {
                let (events, data) = (registration.events, registration.data);
                let _told = sys::control(set, EPOLL_CTL_MOD, registration.fd, events, data);
            }
        }
    }

    /// From the TCP socket to the shadow or to us.
    fn move_to_san(&mut self, set: &Set, index: u32, shadow: Option<RawFd>) {
        let direct = self.direct;
        let State { own, members, .. } = self;
        let Some(own) = own else { return };
        let place = members.get_mut(index as usize);
        let Some(member) = place.and_then(|place| place.member.as_mut()) else {
            return;
        };
        for at in 0..member.registrations.len() {
            let key = member.key;
            let home = shadow.and_then(|shadow| member.shadow_home(at, Home::Kernel, shadow));
            let Some(registration) = member.registrations.get_mut(at) else {
                continue;
            };
            if registration.home != Home::Kernel {
                continue;
            }
            let spent = registration.is_spent(own, registration.fd);
            registration.leaves(set);
            registration.take_out(own, key);
            registration.told = None;
            if direct && fits_direct(registration.events) {
                registration.home = Home::Direct;
            } else if let Some(home) = home {
                let _placed = registration.put_in(own, home, spent);
            }
            set.moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Back to the TCP socket.
    fn move_to_kernel(&mut self, set: &Set, index: u32) {
        let State { own, members, .. } = self;
        let place = members.get_mut(index as usize);
        let Some(member) = place.and_then(|place| place.member.as_mut()) else {
            return;
        };
        let Some(own) = own else { return };
        if let Some(fd) = member.watched.take() {
            let _gone = sys::control(own.outer, EPOLL_CTL_DEL, fd, 0, 0);
        }
        for registration in &mut member.registrations {
            if registration.home == Home::Kernel {
                continue;
            }
            let spent = registration.is_spent(own, registration.number());
            registration.leaves(set);
            registration.take_out(own, member.key);
            if leads_to(registration.fd, member.key) {
                let _placed = registration.put_in(own, Home::Kernel, spent);
            } else {
                registration.home = Home::Kernel;
            }
            set.moved.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// From us to shadows, for waiters whom we do not see. The companions whose shadows are missing
    /// are left where they are and given back.
    pub(super) fn direct_to_shadow(
        &mut self,
        set: &Set,
        index: u32,
        shadow: RawFd,
        which: impl Fn(u32) -> bool,
    ) {
        let State { own, members, .. } = self;
        let Some(own) = own else { return };
        let place = members.get_mut(index as usize);
        let Some(member) = place.and_then(|place| place.member.as_mut()) else {
            return;
        };
        for at in 0..member.registrations.len() {
            let Some(home) = member.shadow_home(at, Home::Direct, shadow) else {
                continue;
            };
            if let Some(registration) = member.registrations.get_mut(at)
                && which(registration.events)
            {
                registration.leaves(set);
                let _placed = registration.put_in(own, home, false);
            }
        }
    }

    /// From shadows to us, as far as we can do it.
    pub(super) fn shadow_to_direct(&mut self, set: &Set, index: u32) {
        let State { own, members, .. } = self;
        let Some(own) = own else { return };
        let place = members.get_mut(index as usize);
        let Some(member) = place.and_then(|place| place.member.as_mut()) else {
            return;
        };
        for registration in &mut member.registrations {
            if matches!(registration.home, Home::Shadow { .. }) && fits_direct(registration.events)
            {
                registration.leaves(set);
                registration.take_out(own, member.key);
                registration.home = Home::Direct;
                registration.told = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disabled_registration_is_recognised_by_its_line() {
        let enabled = "tfd:        7 events: 40000019 data:                7  pos:0 ino:1b sdev:9";
        let spent = "tfd:        7 events: 40000000 data:                7  pos:0 ino:1b sdev:9";
        assert!(!spent_line(enabled, 7));
        assert!(spent_line(spent, 7));
        assert!(!spent_line(spent, 8));
        assert!(!spent_line("pos:\t0", 7));
    }

    #[test]
    fn levels_are_told_again_and_edges_once() {
        let input = libc::EPOLLIN as u32;
        let output = libc::EPOLLOUT as u32;
        let mut level = Registration::new(5, input, 0, Home::Direct);
        assert_eq!(level.news(input | output, (1, 0)), input);
        assert_eq!(level.news(input, (1, 0)), input);
        assert_eq!(level.news(output, (1, 0)), 0);
        let mut edge = Registration::new(5, input | output | EDGES, 0, Home::Direct);
        assert_eq!(edge.news(output, (0, 0)), output);
        assert_eq!(edge.news(output, (0, 0)), 0);
        assert_eq!(edge.news(input | output, (1, 0)), input | output);
        assert_eq!(edge.news(input | output, (1, 0)), 0);
        assert_eq!(edge.news(input | output, (1, 1)), input | output);
        assert_eq!(edge.news(ALWAYS, (2, 1)), ALWAYS);
    }

    #[test]
    fn cookies_name_place_and_generation() {
        assert_eq!(Cookie::new(7, 9).parts(), (7, 9));
        assert_ne!(Cookie::new(u32::MAX, 0), Cookie::SET);
    }
}
