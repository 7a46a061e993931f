//! The progress of the providers that let the switch make it, as the service thread does.
//!
//! Owns their rounds, and says when the next one is to be made and what to sleep on until then.
//! Knows nothing of connections. Invariant: whoever does several pieces of work between two sleeps
//! calls `between` after each, so that rounds wait for one of them at most.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::table::Rounds;

/// For how long rounds wait while other work is done, unless a single piece of it takes longer.
const LONGEST: Duration = Duration::from_millis(5);

pub(super) struct Progress {
    providers: Vec<Provider>,
    /// When the providers were last asked.
    asked: Instant,
}

struct Provider {
    rounds: Rounds,
    readable: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            providers: Vec::new(),
            asked: Instant::now(),
        }
    }

    /// Makes these rounds, too. An older taking of the same provider is over, and is told so.
    pub(super) fn add(&mut self, taken: &mut Vec<Rounds>) {
        let providers = taken.drain(..).map(|rounds| Provider {
            rounds,
            readable: Cell::new(false),
        });
        self.providers.extend(providers);
    }

    /// Makes the rounds that were waited for.
    pub(super) fn make_due(&mut self) {
        let now = Instant::now();
        self.asked = now;
        self.make(|provider| provider.rounds.is_due(provider.readable.get(), now));
    }

    /// After a piece of other work: if rounds have waited for long, they are made before the next
    /// one, and not only those that are known to have something to do.
    pub(super) fn between(&mut self) {
        if self.providers.is_empty() || self.asked.elapsed() < LONGEST {
            return;
        }
        let now = Instant::now();
        self.make(|provider| provider.rounds.is_due(true, now));
        // After the rounds: the work is not to stand still if they take that long themselves.
        self.asked = Instant::now();
    }

    fn make(&mut self, is_due: impl Fn(&Provider) -> bool) {
        self.providers.retain_mut(|provider| {
            let due = is_due(provider);
            provider.readable.set(false);
            !due || provider.rounds.make()
        });
    }

    /// When the next round is to be made, whatever the descriptors say.
    pub(super) fn due(&self) -> Option<Instant> {
        let dues = self.providers.iter();
        dues.filter_map(|provider| provider.rounds.due()).min()
    }

    /// What to sleep on.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let providers = self.providers.iter();
        providers.filter_map(|provider| provider.rounds.sleeps_on())
    }

    /// Takes note of which of `descriptors` were readable after the sleep, one after the other.
    pub(super) fn found(&self, mut is_readable: impl FnMut() -> bool) {
        for provider in &self.providers {
            let readable = provider.rounds.sleeps_on().is_some() && is_readable();
            provider.readable.set(readable);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::os::fd::{AsFd, RawFd};
    use std::sync::Mutex;

    use wsdirect::abi::{self, LPDWORD, LPINT};

    use super::*;
    use crate::error::WsaError;
    use crate::sys::Event;
    use crate::table::rounds_of_tests;
    use crate::table::rounds_of_tests::answer;

    /// Who was asked, and what the next ones answer.
    static ASKED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    extern "C" fn idle(host: RawFd, next: LPDWORD, errno: LPINT) -> c_int {
        ASKED.lock().unwrap().push(host);
        answer(Ok(abi::WSA_INFINITE), next, errno)
    }

    extern "C" fn over(host: RawFd, next: LPDWORD, errno: LPINT) -> c_int {
        ASKED.lock().unwrap().push(host);
        answer(Err(WsaError(abi::WSAEINVAL)), next, errno)
    }

    extern "C" fn busy(host: RawFd, next: LPDWORD, errno: LPINT) -> c_int {
        ASKED.lock().unwrap().push(host);
        answer(Err(WsaError(abi::WSAEINPROGRESS)), next, errno)
    }

    type Make = unsafe extern "C" fn(c_int, LPDWORD, LPINT) -> c_int;

    /// Progress of such providers, which have nothing to do, and their descriptors.
    fn of(makes: &[Make]) -> (Progress, Vec<RawFd>) {
        let mut progress = Progress::new();
        let mut taken = makes.iter().map(|&make| {
            let event = Event::new().unwrap();
            rounds_of_tests::rounds(event.as_fd().try_clone_to_owned().unwrap(), make)
        });
        progress.add(&mut taken.by_ref().collect());
        let numbers = descriptors(&progress);
        (progress, numbers)
    }

    fn descriptors(progress: &Progress) -> Vec<RawFd> {
        use std::os::fd::AsRawFd;
        progress.descriptors().map(|fd| fd.as_raw_fd()).collect()
    }

    fn asked() -> Vec<RawFd> {
        std::mem::take(&mut *ASKED.lock().unwrap())
    }

    #[test]
    fn rounds_are_made_between_two_pieces_of_work_only_if_they_have_waited() {
        let _alone = ONE_AT_A_TIME.lock();
        let (mut progress, numbers) = of(&[idle, idle]);
        progress.make_due();
        assert_eq!(asked(), []);
        // Not long ago, however slow this test is.
        progress.asked = Instant::now() + Duration::from_secs(3600);
        progress.between();
        assert_eq!(asked(), []);
        progress.asked = Instant::now().checked_sub(LONGEST).unwrap();
        let before = Instant::now();
        progress.between();
        assert_eq!(asked(), numbers);
        assert!(progress.asked >= before);
    }

    #[test]
    fn one_that_is_over_is_left_and_one_that_is_busy_is_not_slept_on() {
        let _alone = ONE_AT_A_TIME.lock();
        let (mut progress, numbers) = of(&[idle, busy, over, idle]);
        let mut readable = [false, true, true, true].into_iter();
        progress.found(|| readable.next().unwrap());
        progress.make_due();
        assert_eq!(asked(), numbers[1..]);
        assert_eq!(descriptors(&progress), [numbers[0], numbers[3]]);
        assert!(progress.due().is_some(), "the busy one, later");
        // What was found belongs to those that were slept on.
        let mut readable = [false, true].into_iter();
        progress.found(|| readable.next().unwrap());
        progress
            .providers
            .retain(|provider| provider.rounds.due().is_none());
        progress.make_due();
        assert_eq!(asked(), numbers[3..]);
    }
}
