//! How a thread waits for its connection: look, spin for a short while, sleep.
//!
//! Owns the list of sleeping threads and the rule by which one of them, the leader, watches the
//! provider's descriptor while the others sleep until somebody tells them. Whoever drives the
//! connection tells all of them of what has changed, so nobody sleeps through a change.
//! Invariants: only the leader arms, under the lock, after everything that had arrived was taken;
//! a leader that leaves wakes another sleeper to take its place.

use std::hint;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::Connection;
use super::drive::{Settings, State, Watch};
use super::tune::tuning;
use crate::socket::{Arm, SanSocket};
use crate::sys::{self, Event, PollFd};
use crate::upcalls::Wake;

/// Whether an attempt may still hope to succeed without going to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The thread is going to try again at once.
    Fast,
    /// The thread is going to sleep, or to return.
    Settle,
}

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// As the application has set it for reading.
    Reading,
    /// As the application has set it for writing.
    Writing,
    /// This long, or for ever, whatever the application has set.
    For(Option<Duration>),
    /// Not at all, whatever the application has set.
    Never,
    /// As this one call wants it.
    Call(Manner),
}

/// How one call wants to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manner {
    /// Not at all.
    pub(crate) nonblocking: bool,
    /// This long, or for ever.
    pub(crate) time: Option<Duration>,
    /// A signal ends the wait.
    pub(crate) interruptible: bool,
    /// A write that ends with a part keeps its turn: the rest follows, or
    /// [`Connection::end_turn`].
    pub(crate) goes_on: bool,
}

impl Manner {
    /// Not at all.
    pub(crate) const NOT: Manner = Manner {
        nonblocking: true,
        time: None,
        interruptible: false,
        goes_on: false,
    };
}

impl Patience {
    /// What it means, with what the application has set.
    pub(super) fn manner(self, settings: &Settings) -> Manner {
        let (nonblocking, time) = match self {
            Patience::Reading => (settings.nonblocking, settings.read_timeout),
            Patience::Writing => (settings.nonblocking, settings.write_timeout),
            Patience::For(time) => (false, time),
            Patience::Never => (true, None),
            Patience::Call(manner) => return manner,
        };
        Manner {
            nonblocking,
            time,
            interruptible: false,
            goes_on: false,
        }
    }
}

/// The threads that sleep for a connection.
#[derive(Default)]
pub(super) struct Waiters {
    sleeping: Vec<Sleeper>,
    next: u64,
    /// The one that watches the provider's descriptor.
    leader: Option<u64>,
}

struct Sleeper {
    name: u64,
    event: Arc<Event>,
    told: bool,
}

impl Waiters {
    pub(super) fn add(&mut self, event: &Arc<Event>) -> u64 {
        // A thread waits once at a time: what it has here already it has left by a longjmp.
        let left = |sleeper: &Sleeper| Arc::ptr_eq(&sleeper.event, event);
        while let Some(left) = self
            .sleeping
            .iter()
            .find(|one| left(one))
            .map(|one| one.name)
        {
            self.remove(left);
        }
        self.next += 1;
        self.sleeping.push(Sleeper {
            name: self.next,
            event: Arc::clone(event),
            told: false,
        });
        self.next
    }

    pub(super) fn remove(&mut self, name: u64) {
        self.woken(name);
        self.remove_silently(name);
    }

    /// As `remove`; the event, which this sleeper shares with others, stays as it is.
    pub(super) fn remove_silently(&mut self, name: u64) {
        self.resign(name);
        self.sleeping.retain(|sleeper| sleeper.name != name);
        if self.leader.is_none()
            && let Some(next) = self.sleeping.first_mut()
        {
            next.tell();
        }
    }

    /// `true` if this sleeper is the leader now.
    pub(super) fn lead(&mut self, name: u64) -> bool {
        *self.leader.get_or_insert(name) == name
    }

    fn resign(&mut self, name: u64) {
        self.leader = self.leader.filter(|leader| *leader != name);
    }

    /// The leader has been silent for long; it may have left without a word. If not, two watch for a
    /// while, which does no harm.
    fn take_over(&mut self, name: u64) {
        self.leader = Some(name);
    }

    fn is_told(&self, name: u64) -> bool {
        self.sleeping
            .iter()
            .any(|sleeper| sleeper.name == name && sleeper.told)
    }

    /// The sleeper is going to look; the event, which it shares with others, stays as it is.
    pub(super) fn heard(&mut self, name: u64) {
        self.resign(name);
        if let Some(sleeper) = self
            .sleeping
            .iter_mut()
            .find(|sleeper| sleeper.name == name)
        {
            sleeper.told = false;
        }
    }

    fn woken(&mut self, name: u64) {
        if let Some(sleeper) = self
            .sleeping
            .iter_mut()
            .find(|sleeper| sleeper.name == name)
            && sleeper.told
        {
            sleeper.told = false;
            sleeper.event.reset();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sleeping.is_empty()
    }

    pub(super) fn tell_others(&mut self, me: Option<u64>) {
        for sleeper in &mut self.sleeping {
            if me != Some(sleeper.name) {
                sleeper.tell();
            }
        }
    }
}

impl Sleeper {
    fn tell(&mut self) {
        if !self.told {
            self.told = true;
            self.event.set();
        }
    }
}

/// What a provider without WSPArmCompletion wakes: it tells of completions by upcall.
pub(super) struct Upcall {
    event: Event,
    /// Somebody sleeps, or is about to.
    armed: AtomicBool,
}

impl Upcall {
    pub(super) fn new() -> io::Result<Arc<Upcall>> {
        Ok(Arc::new(Upcall {
            event: Event::new()?,
            armed: AtomicBool::new(false),
        }))
    }
}

impl Wake for Upcall {
    fn wake(&self) {
        // SeqCst: against the store and the look at the operations in `Connection::arm`.
        if self.armed.swap(false, Ordering::SeqCst) {
            self.event.set();
        }
    }
}

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

thread_local! {
    /// What this thread sleeps on besides the provider's descriptor.
    static WAKE_UP: Option<Arc<Event>> = Event::new().ok().map(Arc::new);
}

/// This thread's event, for [`Waiters::add`]. One wait at a time may use it, and leaves it unset.
pub(crate) fn own_event() -> Option<Arc<Event>> {
    WAKE_UP.try_with(Clone::clone).ok().flatten()
}

/// A thread among those that sleep for a connection. It leaves them here where it is unwound, for it
/// was cancelled in its sleep.
struct Asleep<'a>(&'a Connection, Option<u64>);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        // A panic comes with the lock held; the thread's next sleep removes what stays.
        if let Some(me) = self.1.take().filter(|_| !std::thread::panicking()) {
            let mut state = self.0.lock();
            state.waiters.remove(me);
            self.0.leave(state);
        }
    }
}

/// How long the others trust in a leader that says nothing.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two looks of a thread that has no descriptor to wait for.
const BLIND: Duration = Duration::from_millis(5);

/// What a thread that wants to sleep is told.
pub(super) enum Armed<'a> {
    /// This becomes readable when something happens.
    Descriptor(BorrowedFd<'a>),
    /// Something may have happened already.
    News,
    /// Nothing comes from a closed socket any more.
    Closed,
}

impl Connection {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        if let Some(state) = self.state.try_lock() {
            return state;
        }
        // Tells a spinning thread to leave the lock alone for a moment. Relaxed: a hint.
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock();
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Tries until it succeeds, as long as patience lasts. Then the error is that of a call that
    /// would block.
    #[inline]
    pub(super) fn block<T>(
        &self,
        patience: Patience,
        mut attempt: impl FnMut(&mut State, &SanSocket, Phase) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let manner = patience.manner(&state.settings);
        if manner.nonblocking {
            let result = attempt(&mut state, &self.socket, Phase::Settle);
            if result.is_none() {
                state.tell_all();
            }
            self.leave(state);
            return result.unwrap_or_else(|| Err(would_block()));
        }
        if let Some(result) = attempt(&mut state, &self.socket, Phase::Fast) {
            self.leave(state);
            return result;
        }
        self.settle(&mut state, None);
        state.tell_all();
        drop(state);
        match self.spin(&mut attempt) {
            Ok(result) => result,
            Err(state) => self.sleep(state, manner, attempt),
        }
    }

    fn spin<T>(
        &self,
        attempt: &mut impl FnMut(&mut State, &SanSocket, Phase) -> Option<io::Result<T>>,
    ) -> Result<io::Result<T>, MutexGuard<'_, State>> {
        let budget = tuning().spin;
        if budget.is_zero() || !self.trials.is_due() {
            return Err(self.lock());
        }
        self.counts.spins.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                hint::spin_loop();
                if self.wanted.load(Ordering::Relaxed) > 0 {
                    std::thread::yield_now();
                }
                let mut state = self.lock();
                if let Some(result) = attempt(&mut state, &self.socket, Phase::Fast) {
                    self.leave(state);
                    self.trials.has_paid();
                    return Ok(result);
                }
                self.settle(&mut state, None);
            }
            if start.elapsed() >= budget {
                self.trials.has_not_paid();
                return Err(self.lock());
            }
        }
    }

    #[cold]
    fn sleep<'a, T>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        manner: Manner,
        mut attempt: impl FnMut(&mut State, &SanSocket, Phase) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let deadline = manner.time.and_then(sys::deadline_after);
        let event = own_event();
        let me = event.as_ref().map(|event| state.waiters.add(event));
        let mut asleep = Asleep(self, me);
        let result = loop {
            if let Some(result) = attempt(&mut state, &self.socket, Phase::Settle) {
                break result;
            }
            self.settle(&mut state, me);
            if deadline.is_some_and(|end| end <= Instant::now()) {
                break Err(would_block());
            }
            let leads = me.is_none_or(|me| state.waiters.lead(me));
            let provider = match leads.then(|| self.arm(&mut state)) {
                Some(Armed::News) => continue,
                Some(Armed::Descriptor(descriptor)) => Some(descriptor),
                Some(Armed::Closed) | None => None,
            };
            let heard = provider.is_some() || !leads;
            state.tell_all();
            drop(state);
            self.counts.sleeps.fetch_add(1, Ordering::Relaxed);
            let own = event.as_ref().map(|event| event.as_fd());
            let trusted = sys::deadline_after(SILENCE).filter(|_| !leads);
            let until = match own {
                Some(_) if heard => earlier(deadline, trusted),
                // Nothing wakes this thread for certain: it has to look.
                _ => sys::deadline_after(BLIND),
            };
            let mut fds: Vec<_> = provider
                .into_iter()
                .chain(own)
                .map(PollFd::readable)
                .collect();
            let waited = if manner.interruptible {
                sys::wait_once(&mut fds, until)
            } else {
                sys::wait(&mut fds, until)
            };
            let rung = fds.last().is_some_and(PollFd::is_ready);
            drop(fds);
            state = self.lock();
            if let (Some(me), Some(event)) = (me, &event)
                && rung
                && !state.waiters.is_told(me)
            {
                // By a connection that a call before has left by a longjmp.
                event.reset();
            }
            if let Some(me) = me {
                let silent = trusted.is_some_and(|until| until <= Instant::now());
                if silent && !state.waiters.is_told(me) {
                    state.waiters.take_over(me);
                } else {
                    state.waiters.resign(me);
                }
                state.waiters.woken(me);
            }
            if let Err(error) = waited {
                break Err(error);
            }
        };
        if let Some(me) = asleep.1.take() {
            state.waiters.remove(me);
        }
        self.leave(state);
        result
    }

    /// Prepares for sleep.
    pub(super) fn arm(&self, state: &mut State) -> Armed<'_> {
        if state.closed {
            return Armed::Closed;
        }
        if state.watch == Watch::On {
            state.watch = Watch::Disturbed;
        }
        let Some(upcall) = &self.upcall else {
            return match self.socket.arm() {
                Ok(Arm::Armed(descriptor)) => Armed::Descriptor(descriptor),
                Ok(Arm::Pending) => {
                    if !state.poll(&self.socket, None) {
                        // It may be the end of a send that nobody needs to know of yet. It is
                        // collected, or the provider would never be armed.
                        state.reap_all(&self.socket);
                    }
                    Armed::News
                }
                Err(error) => {
                    tracing::debug!(%error, "the provider could not be armed");
                    state.give_up(&self.socket);
                    Armed::News
                }
            };
        };
        upcall.event.reset();
        // SeqCst: against the swap in `wake`; the look at the operations comes after it.
        upcall.armed.store(true, Ordering::SeqCst);
        if state.poll(&self.socket, None) {
            Armed::News
        } else {
            Armed::Descriptor(upcall.event.as_fd())
        }
    }

    /// What becomes readable after [`Connection::arm`] has said so.
    pub(super) fn sleeping_on(&self) -> Option<BorrowedFd<'_>> {
        match &self.upcall {
            Some(upcall) => Some(upcall.event.as_fd()),
            None => self.socket.wait_descriptor(),
        }
    }

    /// After the state may have changed: tells everybody whom it may concern, but the caller.
    #[inline]
    pub(super) fn settle(&self, state: &mut State, me: Option<u64>) {
        if state.activity {
            state.activity = false;
            if !state.waiters.is_empty() {
                state.waiters.tell_others(me);
            }
            self.outside.tell(&mut state.outsiders);
        }
        if self.descriptors.is_any() {
            self.show(state);
        }
    }

    /// A wake-up that was taken here between its signal and the service thread's look is lost to
    /// that thread: who has armed leaves the provider armed, if anything is to go on without it.
    /// True if there were news instead.
    #[inline]
    fn restore_watch(&self, state: &mut State) -> bool {
        if state.watch != Watch::Disturbed || !state.waiters.is_empty() || !state.needs_service() {
            return false;
        }
        match self.arm(state) {
            Armed::Descriptor(_) | Armed::Closed => {
                state.watch = Watch::On;
                false
            }
            Armed::News => {
                while state.poll(&self.socket, None) {}
                true
            }
        }
    }

    /// The end of a call.
    #[inline]
    pub(super) fn leave(&self, mut state: MutexGuard<'_, State>) {
        state.reap(&self.socket);
        self.settle(&mut state, None);
        // After the descriptors were shown, which may have armed, too.
        while self.restore_watch(&mut state) {
            self.settle(&mut state, None);
        }
        let wanted = state.needs_service() && !self.adopted.load(Ordering::Relaxed);
        state.tell();
        drop(state);
        if wanted {
            self.ask_for_service();
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pub(super) fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_left_a_wait_without_a_word_leads_no_more_when_it_waits_again() {
        let event = Arc::new(Event::new().unwrap());
        let mut waiters = Waiters::default();
        let left = waiters.add(&event);
        assert!(waiters.lead(left));
        let again = waiters.add(&event);
        assert!(waiters.lead(again), "nobody watches");
        waiters.remove(again);
        assert!(waiters.is_empty());
    }

    #[test]
    fn another_takes_over_from_a_silent_leader_who_may_come_back() {
        let events = [(); 2].map(|()| Arc::new(Event::new().unwrap()));
        let mut waiters = Waiters::default();
        let [first, second] = events.each_ref().map(|event| waiters.add(event));
        assert!(waiters.lead(first) && !waiters.lead(second));
        waiters.take_over(second);
        assert!(waiters.lead(second));
        waiters.resign(first);
        assert!(waiters.lead(second) && !waiters.lead(first));
        waiters.remove(second);
        assert!(waiters.lead(first));
    }
}
