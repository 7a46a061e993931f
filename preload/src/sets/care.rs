//! Sets that nobody waits for by calls that we see: the service thread keeps their shadows true.
//!
//! A thread that waits through us looks after the set itself, and the service thread rests. When
//! the program has been away for a while it may be waiting where we do not see it: in a set of
//! sets, by a system call of its own. Then what was given directly gets shadows, and the service
//! thread sleeps on the set's news until somebody comes back. While the program leaves what the set
//! has, that would be no sleep: then it looks every [`TICK`].
//!
//! Invariant: while a set has connections that the SAN carries, a thread of the program is in a wait
//! of ours, or the service thread watches, or it is going to look within [`TICK`].

use core::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use wsd_switch::companion::{Chore, Companion, Next, kick, serve};

use super::member::Cookie;
use super::member::{Home, Member};
use super::wait::Look;
use super::{Set, State, sys, watch};
use crate::clock::Time;
use crate::log;

/// How long the program may be away before it is taken to wait elsewhere.
const TICK: Duration = Duration::from_millis(10);
/// So many times as often must it wait through us, after it has been away, before events are given
/// directly again: a power of two of the times that it was away, up to this one.
const DOUBT: u32 = 10;

/// What the service thread knows of a set.
#[derive(Default)]
pub(super) struct Care {
    /// It sleeps on the set's news.
    pub(super) watching: bool,
    /// The waits that had begun when it last looked.
    seen: u64,
    /// Times the program was away.
    away: u32,
    /// Waits since.
    calm: u32,
}

impl Care {
    fn trusts(&self) -> bool {
        self.calm >= 1 << self.away.min(DOUBT)
    }
}

/// A thread of the program is in a wait of ours.
pub(super) struct Arrived<'a>(&'a Set);

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        // The program has been here until now: that is the moment from which it is away.
        self.0.waits.fetch_add(1, Ordering::SeqCst);
        // SeqCst, with the swap: against the look at `inside` in `step`.
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        if self.0.resting.load(Ordering::SeqCst) && self.0.resting.swap(false, Ordering::SeqCst) {
            kick();
        }
    }
}

impl Set {
    /// A thread comes to wait.
    pub(super) fn arrive(&self) -> Arrived<'_> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if std::mem::replace(&mut state.care.watching, false) {
            // What it sleeps on is ours now: it has to be told when we are away again.
            self.resting.store(true, Ordering::SeqCst);
        }
        let care = &mut state.care;
        care.calm = care.calm.saturating_add(1);
        let able = !state.direct
            && !state.invisible
            && !state.inherited
            && state.own.is_some()
            && self.passing.load(Ordering::SeqCst) == 0
            && state.care.trusts();
        if able {
            state.direct = true;
            for index in 0..state.members.len() {
                if let Ok(index) = u32::try_from(index)
                    && state.member(index).is_some_and(|m| m.has_shadow())
                {
                    state.shadow_to_direct(self, index);
                    state.put(index);
                }
            }
        }
        drop(state);
        Arrived(self)
    }

    /// A connection of the set has left the kernel.
    pub(super) fn care_for(&self, mut state: MutexGuard<'_, State>) {
        let known = std::mem::replace(&mut state.cared, true);
        drop(state);
        if known {
            if self.resting.load(Ordering::SeqCst)
                && self.inside.load(Ordering::SeqCst) == 0
                && self.resting.swap(false, Ordering::SeqCst)
            {
                kick();
            }
            return;
        }
        self.resting.store(false, Ordering::SeqCst);
        let Some(me) = self.me.upgrade() else { return };
        if serve(me).is_err() {
            log::line("no service thread: poll sets are looked after by their own waiters only");
        }
    }

    /// A member has no registration left: it goes at the service thread's next look, if it has
    /// none then, either.
    pub(super) fn leave_idle(&self, state: &mut State, index: u32) {
        let cookie = state.cookie(index);
        let Some(member) = state.member(index) else {
            return;
        };
        if std::mem::replace(&mut member.idle, true) {
            return;
        }
        state.idle.extend(cookie);
        if self.resting.load(Ordering::SeqCst) && self.resting.swap(false, Ordering::SeqCst) {
            kick();
        }
    }

    /// Lets members go that have no registration.
    fn sweep(&self, state: &mut State) -> Vec<Member> {
        let mut gone = Vec::new();
        for cookie in std::mem::take(&mut state.idle) {
            let Some((index, member)) = state.named(cookie) else {
                continue;
            };
            member.idle = false;
            if !member.registrations.is_empty() {
                continue;
            }
            if let Some(member) = state.remove(self, index) {
                if let Some(own) = &state.own {
                    member.take_out(own);
                }
                gone.push(member);
            }
        }
        gone
    }

    /// From now on somebody may wait who is not seen.
    pub(super) fn make_visible(&self) {
        let mut state = self.lock();
        if state.invisible {
            return;
        }
        state.invisible = true;
        if self.moved.load(Ordering::Relaxed) > 0 {
            drop(state);
            self.all_to_shadows();
            self.care_for(self.lock());
        }
    }

    /// What was given directly gets shadows.
    pub(super) fn all_to_shadows(&self) {
        let mut state = self.lock();
        state.direct = false;
        let members = state.members.iter().filter_map(|place| {
            let member = place.member.as_ref()?;
            let direct = |r: &super::member::Registration| r.home == Home::Direct;
            member
                .registrations
                .iter()
                .any(direct)
                .then(|| member.companion.upgrade())?
        });
        let companions: Vec<Arc<Companion>> = members.collect();
        drop(state);
        for companion in companions {
            let Ok(shadow) = companion.shadow() else {
                log::line("no shadow for a connection whose set is waited for elsewhere");
                continue;
            };
            companion.refresh();
            let mut state = self.lock();
            if state.direct {
                return;
            }
            if let Some(index) = state.index_of(super::member::key_of(&companion)) {
                state.direct_to_shadow(self, index, shadow, |_| true);
                state.put(index);
            }
        }
    }

    /// Makes shadows true, and arms, until nothing is left to do or a thread of the program does it.
    /// `true` if the program's set has something, which stays until the program comes for it.
    pub(super) fn pass(&self) -> bool {
        loop {
            let kept = self.look(&mut [], Look::Serve).kept;
            let state = self.lock();
            let Some(outer) = state.own.as_ref().map(|own| own.outer) else {
                return false;
            };
            if !state.care.watching {
                return false;
            }
            // What was kept stays queued whatever is done here.
            let more = state.ready.len() > kept;
            drop(state);
            let mut room = [const { MaybeUninit::uninit() }; 64];
            let Ok(news) = sys::wait(outer, &mut room, Time::Millis(0), None) else {
                return false;
            };
            let only_set = news.iter().all(|event| Cookie(event.u64) == Cookie::SET);
            self.take_news(&mut self.lock(), news);
            if only_set && !more {
                return !news.is_empty();
            }
        }
    }
}

impl Chore for Set {
    fn step(&self, _readable: bool) -> Next {
        let mut state = self.lock();
        if !state.idle.is_empty() {
            let gone = self.sweep(&mut state);
            drop(state);
            for member in gone {
                watch::left(&member, self);
            }
            state = self.lock();
        }
        if state.closed {
            state.cared = false;
            return Next {
                sleep_on: None,
                due: None,
                done: true,
            };
        }
        let rest = Next {
            sleep_on: None,
            due: None,
            done: false,
        };
        let later = Next {
            sleep_on: None,
            due: Some(Instant::now() + TICK),
            done: false,
        };
        let Some(outer) = state.own.as_ref().map(|own| own.outer) else {
            self.resting.store(true, Ordering::SeqCst);
            return rest;
        };
        if self.moved.load(Ordering::Acquire) == 0 {
            state.care.watching = false;
            self.resting.store(true, Ordering::SeqCst);
            return rest;
        }
        let waits = self.waits.load(Ordering::Relaxed);
        let quiet = waits == std::mem::replace(&mut state.care.seen, waits);
        let inside = self.inside.load(Ordering::SeqCst) > 0;
        if !state.invisible && !state.care.watching {
            if inside && quiet {
                self.resting.store(true, Ordering::SeqCst);
                if self.inside.load(Ordering::SeqCst) > 0 {
                    return rest;
                }
                self.resting.store(false, Ordering::SeqCst);
                return later;
            }
            if inside || !quiet {
                return later;
            }
            if state.direct {
                state.care.away = state.care.away.saturating_add(1);
                state.care.calm = 0;
            }
        }
        state.care.watching = true;
        let direct = state.direct;
        drop(state);
        if direct {
            self.all_to_shadows();
        }
        let left = self.pass();
        if !self.lock().care.watching {
            // Who has come kicks when it leaves.
            return rest;
        }
        if left {
            // The news would wake at once, until the program has come for what is there.
            return Next {
                due: Some(Instant::now() + TICK),
                ..later
            };
        }
        Next {
            sleep_on: Some(outer),
            due: None,
            done: false,
        }
    }
}
