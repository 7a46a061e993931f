//! Waiting for many descriptors by number: what poll() and select() have in common.
//!
//! As long as the kernel carries all connections among them, the program's own call does it all.
//! Otherwise each connection that the SAN carries is looked at, and if nothing is ready, watched for a
//! moment, as in `sets`; then the kernel waits for what the provider gave to sleep on in its place.
//!
//! Invariant: a connection is armed, and found without news afterwards, before the thread sleeps.
//! Nothing is held while it sleeps: numbers are looked up anew after it.

use core::ffi::{c_int, c_short};
use core::ptr;
use std::sync::Arc;

use libc::{nfds_t, pollfd, sigset_t};
use wsd_switch::companion::{Armed, Companion, Sleeper, lower_own_wake_up, own_wake_up};

use crate::clock::{Blocked, Clock, Time};
use crate::raw::errno;
use crate::sets::{SPUN, Spin};
use crate::table::{self, Held};
use crate::{guard, real, sets};

/// What is told whether it was asked for or not.
const ALWAYS: c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
/// So many descriptors are waited for without memory of the heap.
const FEW: usize = 64;
const NOBODY: pollfd = pollfd {
    fd: -1,
    events: 0,
    revents: 0,
};

/// poll() as the kernel does it. The error is errno.
pub(crate) fn poll(
    fds: &mut [pollfd],
    time: Time<'_>,
    mask: Option<&sigset_t>,
) -> Result<usize, c_int> {
    let count = nfds_t::try_from(fds.len()).unwrap_or(nfds_t::MAX);
    let mask = mask.map_or(ptr::null(), ptr::from_ref);
    let span = match time {
        Time::Millis(span) if span < 0 => None,
        Time::Millis(span) => Some(libc::timespec {
            tv_sec: i64::from(span / 1000),
            tv_nsec: i64::from(span % 1000) * 1_000_000,
        }),
        Time::Span(span) => span.copied(),
    };
    let span = span.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the slice is borrowed exclusively during the call; the rest is live or null.
    let ready = unsafe { real::ppoll(fds.as_mut_ptr(), count, span, mask) };
    usize::try_from(ready).map_err(|_| errno())
}

/// What stands in a set of descriptors, as far as connections go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// No connection.
    Plain,
    /// Connections, all of them with the kernel.
    Kernel,
    /// At least one that the SAN carries.
    San,
}

impl Kind {
    /// With one more number.
    #[inline]
    pub(crate) fn and(self, fd: c_int) -> Kind {
        match table::get(fd) {
            None => self,
            Some(held) if held.on_kernel() => {
                if self == Kind::Plain {
                    Kind::Kernel
                } else {
                    self
                }
            }
            Some(_) => Kind::San,
        }
    }

    #[inline]
    pub(crate) fn of(fds: &[pollfd]) -> Kind {
        fds.iter()
            .fold(Kind::Plain, |kind, entry| kind.and(entry.fd))
    }
}

/// What the kernel said of numbers, reduced to what is the program's: some may be readable by a
/// marker only, or have left the kernel meanwhile. Says how many are left.
pub(crate) fn genuine(fds: &mut [pollfd]) -> usize {
    let mut left = 0;
    for entry in fds {
        if entry.revents != 0
            && entry.revents & libc::POLLNVAL == 0
            && let Some(held) = table::get(entry.fd)
        {
            let _inside = guard::enter();
            entry.revents = held.relook(entry.revents) & (entry.events | ALWAYS);
        }
        left += usize::from(entry.revents != 0);
    }
    left
}

fn on_san(fd: c_int) -> Option<Held> {
    table::get(fd).filter(|held| !held.on_kernel())
}

/// Waits as poll() does, wherever the connections are carried. The error is errno.
pub(crate) fn wait(
    fds: &mut [pollfd],
    clock: &mut Clock<'_>,
    mask: Option<&sigset_t>,
) -> Result<usize, c_int> {
    let mut few = [NOBODY; FEW];
    let mut many = Vec::new();
    // One more for what others tell this thread.
    let asked = match few.get_mut(..=fds.len()) {
        Some(few) => few,
        None => {
            many.resize(fds.len() + 1, NOBODY);
            many.as_mut_slice()
        }
    };
    let mut blocked: Option<Blocked> = None;
    let mut spins = true;
    loop {
        let mut found = look(fds, asked);
        if found > 0 {
            SPIN.with(Spin::has_news);
        }
        let ready = poll(asked, Time::Millis(0), None)?;
        if ready > 0 {
            for (entry, asked) in fds.iter_mut().zip(asked.iter()) {
                entry.revents |= asked.revents;
            }
            found = genuine_of_kernel(fds, asked);
        }
        if found > 0 || clock.is_zero() {
            return Ok(found);
        }
        if spins {
            // After this look, too, something may have come: it ends with another one, or with one
            // that is armed.
            let found = SPIN.with(|spin| spin.watch(|| companions(fds, asked)));
            spins = found.is_some();
            if spins {
                continue;
            }
        }
        // From here on a signal ends the sleep, or comes after the call.
        let blocked = blocked.get_or_insert_with(Blocked::new);
        let mask = mask.unwrap_or_else(|| blocked.before());
        let mut sleepers = Sleepers::default();
        let Some(naps) = arm(fds, asked, &mut sleepers) else {
            continue;
        };
        let (time, naps) = if naps {
            clock.nap()
        } else {
            (clock.left(), false)
        };
        let slept = poll(asked, time, Some(mask));
        drop(sleepers);
        if asked.last().is_some_and(|last| last.revents != 0) {
            // Also if it was told by a connection that a call before has left by a longjmp.
            let _inside = guard::enter();
            lower_own_wake_up();
        }
        spins = true;
        if slept? == 0 && !naps {
            return Ok(0);
        }
    }
}

thread_local! {
    /// How waiting without sleeping has paid this thread.
    static SPIN: Spin = const { Spin::new() };
}

/// Those of connections that the SAN carries, as far as they are to be watched.
fn companions(fds: &[pollfd], asked: &[pollfd]) -> Vec<Arc<Companion>> {
    let on_san = fds
        .iter()
        .zip(asked)
        .filter(|(entry, asked)| asked.fd < 0 && entry.fd >= 0)
        .filter_map(|(entry, _)| on_san(entry.fd));
    let companions = on_san.map(|held| Arc::clone(held.descriptor().companion()));
    companions.take(SPUN).collect()
}

/// This thread's places among the sleepers of connections, while it sleeps.
#[derive(Default)]
struct Sleepers {
    places: Vec<Sleeper>,
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        if !self.places.is_empty() {
            let _inside = guard::enter();
            self.places.clear();
        }
    }
}

/// What is true of a connection; those who wait for it in sets are told of what is new.
fn bits(held: &Held) -> c_short {
    let before = held.arrivals();
    let bits = held.bits();
    if held.arrivals() != before {
        sets::tell_others(held, None);
    }
    bits
}

/// What connections of the SAN have to tell; the others are left for the kernel. Says how many have
/// something.
fn look(fds: &mut [pollfd], asked: &mut [pollfd]) -> usize {
    let _inside = guard::enter();
    let mut found = 0;
    if let Some(last) = asked.last_mut() {
        *last = NOBODY;
    }
    for (entry, asked) in fds.iter_mut().zip(asked) {
        *asked = *entry;
        asked.revents = 0;
        entry.revents = 0;
        if let Some(held) = on_san(entry.fd) {
            entry.revents = bits(&held) & (entry.events | ALWAYS);
            asked.fd = -1;
        }
        found += usize::from(entry.revents != 0);
    }
    found
}

/// As [`genuine`] for what the kernel was asked about only.
fn genuine_of_kernel(fds: &mut [pollfd], asked: &[pollfd]) -> usize {
    let mut found = 0;
    for (entry, asked) in fds.iter_mut().zip(asked) {
        if asked.fd >= 0 {
            found += genuine(core::slice::from_mut(entry));
        } else {
            found += usize::from(entry.revents != 0);
        }
    }
    found
}

/// Puts what to sleep on in the places of connections. `None` if one of them has news; otherwise
/// whether there is one of which nothing tells everything.
fn arm(fds: &[pollfd], asked: &mut [pollfd], sleepers: &mut Sleepers) -> Option<bool> {
    let _inside = guard::enter();
    let mut naps = false;
    let mut told = false;
    for (entry, asked) in fds.iter().zip(asked.iter_mut()) {
        if asked.fd >= 0 || entry.fd < 0 {
            continue;
        }
        let held = on_san(entry.fd)?;
        let armed = match held.enlist() {
            Ok(sleeper) => {
                // News between the look and now.
                let armed = sleeper.arm();
                sleepers.places.push(sleeper);
                if bits(&held) & (entry.events | ALWAYS) != 0 {
                    return None;
                }
                armed
            }
            Err(armed) => armed,
        };
        naps |= held.is_in_transit();
        asked.events = libc::POLLIN;
        match armed {
            Armed::On(fd) => asked.fd = fd,
            // It may be readable all the time.
            Armed::Socket(_) => naps = true,
            Armed::Told => told = true,
            Armed::News => return None,
            Armed::Nothing => {}
        }
    }
    if let Some(last) = asked.last_mut() {
        *last = NOBODY;
        if !sleepers.places.is_empty() || told {
            last.fd = own_wake_up().unwrap_or(-1);
            last.events = libc::POLLIN;
        }
    }
    Some(naps)
}
