//! epoll_ctl() on connections.
//!
//! Invariant: the answer is the kernel's for the same calls on plain TCP. Where the kernel's set
//! has the registration, the kernel is asked about the file it has; where we have it, the kernel is
//! asked something that it must answer with ENOENT if all else is in order.

use core::ffi::c_int;
use core::ptr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epoll_event};
use wsd_switch::companion::Companion;

use super::member::{EXCLUSIVE, Home, Member, Registration, fits_direct, key_of};
use super::{Set, State, watch};
use crate::raw::{errno, fail, set_errno};
use crate::table::Held;
use crate::{guard, real, table};

/// So far from our own frame, in bytes, an event is taken to be in a calling one.
const FRAMES: usize = 64 << 10;
/// The kernel is asked all the same at one of so many calls: a number may have been closed without
/// our knowledge.
const ASKED: u32 = 64;
const WAKEUP: u32 = libc::EPOLLWAKEUP as u32;

/// A call of epoll_ctl() with the program's own arguments.
#[derive(Clone, Copy)]
pub(super) struct Call {
    set: RawFd,
    pub(super) operation: c_int,
    event: *mut epoll_event,
}

impl Call {
    /// Asks the kernel, about this number.
    pub(super) fn ask(self, fd: RawFd) -> c_int {
        // SAFETY: the program's own arguments but for the number.
        unsafe { real::epoll_ctl(self.set, self.operation, fd, self.event) }
    }

    /// The name of the set; none if the call is nothing that would have to be noted.
    fn name_of_set(self, fd: RawFd) -> Option<usize> {
        let known = matches!(
            self.operation,
            EPOLL_CTL_ADD | EPOLL_CTL_MOD | EPOLL_CTL_DEL
        );
        if !known || self.set == fd {
            return None;
        }
        let name = table::name_of_set(self.set);
        if name.is_some() || self.operation != EPOLL_CTL_ADD {
            return name;
        }
        // Is it a set at all?
        let mut none = epoll_event { events: 0, u64: 0 };
        // SAFETY: the event is live. The set is not in itself, so this changes nothing.
        unsafe { real::epoll_ctl(self.set, EPOLL_CTL_MOD, fd, &raw mut none) };
        (errno() == libc::ENOENT).then(|| super::get_or_new(self.set).name)
    }

    /// Whether the kernel could not object: the set and the connection are known, and the event, if
    /// it matters, is one of the calling frames' and asks for nothing unusual.
    fn is_harmless(self) -> bool {
        if self.operation == EPOLL_CTL_DEL {
            return true;
        }
        let here = 0_u8;
        let above = self.event.addr().wrapping_sub(ptr::from_ref(&here).addr());
        if self.event.is_null() || above >= FRAMES {
            return false;
        }
        let (events, _) = self.event();
        events & (EXCLUSIVE | WAKEUP) == 0
    }

    /// As if about a registration that is not there: 0 if all else was in order.
    fn check(self, fd: RawFd) -> c_int {
        // A new event may have bits that a changed one may not.
        let operation = match self.operation {
            EPOLL_CTL_MOD => EPOLL_CTL_MOD,
            _ => EPOLL_CTL_DEL,
        };
        let before = errno();
        // SAFETY: the program's own arguments but for the operation.
        let answer = unsafe { real::epoll_ctl(self.set, operation, fd, self.event) };
        if answer != 0 && errno() == libc::ENOENT {
            if self.operation == EPOLL_CTL_ADD && self.event.is_null() {
                return fail(libc::EFAULT);
            }
            set_errno(before);
            return 0;
        }
        answer
    }

    /// What the program wants; only after the kernel has read it, or if it is in a calling frame.
    pub(super) fn event(self) -> (u32, u64) {
        // SAFETY: the kernel has just read it, or it is on this thread's stack, where callers are: so
        // it can be read.
        let event = unsafe { self.event.read_unaligned() };
        (event.events, event.u64)
    }
}

/// epoll_ctl() with a connection.
pub(crate) fn control(
    set: RawFd,
    operation: c_int,
    fd: RawFd,
    event: *mut epoll_event,
    held: &Held,
) -> c_int {
    let _inside = guard::enter();
    let call = Call {
        set,
        operation,
        event,
    };
    let Some(name) = call.name_of_set(fd) else {
        return call.ask(fd);
    };
    let descriptor = held.descriptor();
    if let Some(answer) = descriptor.notes().control(call, fd, name) {
        return answer;
    }
    match super::get(set) {
        Some(set) => set.control(call, fd, descriptor.companion()),
        None => call.ask(fd),
    }
}

/// epoll_ctl() with a TCP socket that is not connected.
pub(crate) fn control_early(
    set: RawFd,
    operation: c_int,
    fd: RawFd,
    event: *mut epoll_event,
) -> c_int {
    let _inside = guard::enter();
    let call = Call {
        set,
        operation,
        event,
    };
    match call.name_of_set(fd) {
        Some(name) => super::notes::control_early(call, fd, name),
        None => call.ask(fd),
    }
}

impl Set {
    fn control(self: &Arc<Set>, call: Call, fd: RawFd, companion: &Arc<Companion>) -> c_int {
        let key = key_of(companion);
        let mut state = self.lock();
        let place = state.index_of(key).and_then(|index| {
            let member = state.member(index)?;
            let at = member.registrations.iter().position(|r| r.fd == fd)?;
            Some((index, at))
        });
        if let Some((index, at)) = place {
            return self.change(state, call, (index, at), companion);
        }
        if companion.on_kernel() {
            let answer = call.ask(fd);
            if answer == 0 && call.operation == EPOLL_CTL_ADD {
                let (events, data) = call.event();
                let entry = Registration::new(fd, events, data, Home::Kernel);
                let first = state.enter(self, companion, entry);
                drop(state);
                if first {
                    watch::entered(companion, self);
                }
                if !companion.on_kernel() {
                    self.settle(companion);
                }
            }
            return answer;
        }
        if call.operation != EPOLL_CTL_ADD {
            return call.ask(fd);
        }
        drop(state);
        self.add_on_san(call, fd, companion)
    }

    /// As [`Call::check`], mostly without asking the kernel.
    fn check(&self, call: Call, fd: RawFd) -> c_int {
        // Relaxed: any of the calls will do.
        let count = self.checks.fetch_add(1, Ordering::Relaxed);
        if call.is_harmless() && !count.is_multiple_of(ASKED) {
            return 0;
        }
        call.check(fd)
    }

    /// A new registration of a connection that the SAN carries.
    fn add_on_san(self: &Arc<Set>, call: Call, fd: RawFd, companion: &Arc<Companion>) -> c_int {
        let answer = self.check(call, fd);
        if answer != 0 {
            return answer;
        }
        let (events, data) = call.event();
        let mut state = self.lock();
        let direct = state.direct && fits_direct(events) && state.has_own();
        let entry = Registration::new(fd, events, data, Home::Direct);
        if direct {
            let first = state.enter(self, companion, entry);
            self.moved.fetch_add(1, Ordering::Relaxed);
            if let Some(index) = state.index_of(key_of(companion)) {
                self.queue(&mut state, index);
            }
            self.care_for(state);
            if first {
                watch::entered(companion, self);
            }
        } else {
            drop(state);
            let Ok(shadow) = companion.shadow() else {
                return fail(libc::ENOMEM);
            };
            companion.refresh();
            let mut state = self.lock();
            if !state.has_own() {
                return fail(libc::ENOMEM);
            }
            let free = match state.index_of(key_of(companion)) {
                Some(index) => state.member(index).and_then(|m| m.free_shadow(shadow)),
                None => Some(Home::Shadow {
                    fd: shadow,
                    own: false,
                }),
            };
            let Some(home @ Home::Shadow { fd: number, own }) = free else {
                return fail(libc::ENOMEM);
            };
            let answer = call.ask(number);
            if answer != 0 {
                let code = errno();
                if own {
                    super::sys::close(number);
                }
                return fail(code);
            }
            let entry = Registration::new(fd, events, data, home);
            let first = state.enter(self, companion, entry);
            self.moved.fetch_add(1, Ordering::Relaxed);
            if let Some(index) = state.index_of(key_of(companion)) {
                self.queue(&mut state, index);
            }
            self.care_for(state);
            if first {
                watch::entered(companion, self);
            }
        }
        if companion.on_kernel() {
            self.settle(companion);
        }
        0
    }

    /// A call on a registration that we know.
    fn change(
        self: &Arc<Set>,
        mut state: parking_lot::MutexGuard<'_, State>,
        call: Call,
        (index, at): (u32, usize),
        companion: &Arc<Companion>,
    ) -> c_int {
        let Some(registration) = state
            .member(index)
            .and_then(|member| member.registrations.get(at))
        else {
            return call.ask(-1);
        };
        let (home, fd) = (registration.home, registration.fd);
        let answer = match home {
            Home::Kernel => call.ask(fd),
            Home::Shadow { fd: number, .. } => call.ask(number),
            Home::Direct => match self.check(call, fd) {
                0 if call.operation == EPOLL_CTL_ADD => fail(libc::EEXIST),
                answer => answer,
            },
        };
        if answer != 0 {
            if errno() == libc::ENOENT && home != Home::Direct {
                // It was removed behind our back.
                let gone = self.drop_registration(&mut state, index, at);
                drop(state);
                self.tell_left(gone);
                set_errno(libc::ENOENT);
            }
            return answer;
        }
        if call.operation == EPOLL_CTL_DEL {
            let gone = self.drop_registration(&mut state, index, at);
            drop(state);
            self.tell_left(gone);
            return 0;
        }
        let (events, data) = call.event();
        state.set_data(index, at, data);
        let Some(registration) = state
            .member(index)
            .and_then(|member| member.registrations.get_mut(at))
        else {
            return 0;
        };
        registration.events = events;
        registration.told = None;
        if home == Home::Kernel {
            return 0;
        }
        self.queue(&mut state, index);
        if home == Home::Direct && !fits_direct(events) {
            drop(state);
            self.out_of_direct(companion);
        }
        0
    }

    /// One of its registrations is not for us to give any more.
    fn out_of_direct(&self, companion: &Arc<Companion>) {
        let Ok(shadow) = companion.shadow() else {
            return;
        };
        companion.refresh();
        let mut state = self.lock();
        if let Some(index) = state.index_of(key_of(companion)) {
            state.direct_to_shadow(self, index, shadow, |events| !fits_direct(events));
            self.queue(&mut state, index);
        }
    }

    /// Forgets a registration; the member, if that was its last.
    fn drop_registration(&self, state: &mut State, index: u32, at: usize) -> Option<Member> {
        let member = state.member(index)?;
        let registration = member.registrations.swap_remove(at);
        let last = member.registrations.is_empty();
        if let Home::Shadow { fd, own: true } = registration.home {
            super::sys::close(fd);
        }
        if registration.home != Home::Kernel {
            self.moved.fetch_sub(1, Ordering::Relaxed);
        }
        state.forget_data(registration.data, index);
        if !last {
            return None;
        }
        if registration.home == Home::Direct && state.direct && state.cared && !state.inherited {
            // Many programs take a connection out only to put it in with other events.
            self.leave_idle(state, index);
            return None;
        }
        let member = state.remove(self, index)?;
        if let Some(own) = &state.own {
            member.take_out(own);
        }
        Some(member)
    }

    fn tell_left(&self, gone: Option<Member>) {
        if let Some(member) = gone {
            watch::left(&member, self);
        }
    }
}

impl State {
    /// Enters a registration; true if the companion was not in the set before.
    pub(super) fn enter(
        &mut self,
        set: &Set,
        companion: &Arc<Companion>,
        entry: Registration,
    ) -> bool {
        let known = self.index_of(key_of(companion));
        let index = match known {
            Some(index) => Some(index),
            None => self.insert(set, Member::new(companion)),
        };
        let Some(index) = index else { return false };
        self.by_data.insert(entry.data, index);
        if let Some(member) = self.member(index) {
            member.registrations.push(entry);
        }
        known.is_none()
    }

    fn set_data(&mut self, index: u32, at: usize, data: u64) {
        let Some(registration) = self
            .member(index)
            .and_then(|member| member.registrations.get_mut(at))
        else {
            return;
        };
        let before = std::mem::replace(&mut registration.data, data);
        if before != data {
            self.forget_data(before, index);
            self.by_data.insert(data, index);
        }
    }
}
