//! Peers that did not offer the SAN a short while ago, or not in a version that is spoken here.
//!
//! Owns the lists, by address and server port. Invariant: each further failure doubles the time
//! until the peer is asked again, up to a limit; a success ends it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The first time.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// Peers remembered.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct NegativeCache {
    silent: HashMap<(IpAddr, u16), Entry>,
}

#[derive(Debug)]
struct Entry {
    until: Instant,
    time: Duration,
}

impl NegativeCache {
    /// Whether this peer is not to be asked now, for its silence or for its version.
    pub(super) fn forbids(&self, peer: IpAddr, port: u16, now: Instant) -> bool {
        let strangers = STRANGERS.lock();
        let strange = strangers.as_ref();
        self.holds(peer, port, now) || strange.is_some_and(|them| them.holds(peer, port, now))
    }

    fn holds(&self, peer: IpAddr, port: u16, now: Instant) -> bool {
        let entry = self.silent.get(&(peer, port));
        entry.is_some_and(|entry| entry.until > now)
    }

    pub(super) fn failed(&mut self, peer: IpAddr, port: u16, now: Instant) {
        if self.silent.len() >= MOST {
            self.silent.retain(|_, entry| entry.until > now);
        }
        if self.silent.len() >= MOST {
            self.silent.clear();
        }
        let entry = self.silent.entry((peer, port)).or_insert(Entry {
            until: now,
            time: SHORTEST / 2,
        });
        // Several connections that fail at once are one failure.
        if entry.until <= now {
            entry.time = (entry.time * 2).min(LONGEST);
            entry.until = now + entry.time;
        }
    }

    pub(super) fn succeeded(&mut self, peer: IpAddr, port: u16) {
        self.silent.remove(&(peer, port));
    }
}

/// Peers that have answered, but share no version of the session protocol with this side. Learnt
/// where negotiations end, which is not the place where the other list is kept.
static STRANGERS: Mutex<Option<NegativeCache>> = Mutex::new(None);

/// A negotiation with this peer has found no common version.
pub(super) fn is_strange(peer: IpAddr, port: u16, now: Instant) {
    let mut strangers = STRANGERS.lock();
    strangers.get_or_insert_default().failed(peer, port, now);
}

pub(super) fn any_strangers() -> bool {
    let strangers = STRANGERS.lock();
    let any = |them: &NegativeCache| !them.silent.is_empty();
    strangers.as_ref().is_some_and(any)
}

/// A session with this peer has begun.
pub(super) fn is_understood(peer: IpAddr, port: u16) {
    if let Some(strangers) = &mut *STRANGERS.lock() {
        strangers.succeeded(peer, port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_less_and_less_often_until_it_answers() {
        let mut cache = NegativeCache::default();
        let peer: IpAddr = [127, 0, 0, 1].into();
        let mut now = Instant::now();
        let mut expected = SHORTEST;
        for _ in 0..10 {
            assert!(!cache.forbids(peer, 80, now));
            cache.failed(peer, 80, now);
            cache.failed(peer, 80, now);
            assert!(!cache.forbids(peer, 81, now));
            assert!(cache.forbids(peer, 80, now + expected - Duration::from_millis(1)));
            now += expected;
            assert!(!cache.forbids(peer, 80, now));
            expected = (expected * 2).min(LONGEST);
        }
        cache.failed(peer, 80, now);
        cache.succeeded(peer, 80);
        assert!(!cache.forbids(peer, 80, now));
    }

    #[test]
    fn a_peer_of_another_version_is_not_asked_again_although_it_answers() {
        let mut cache = NegativeCache::default();
        let peer: IpAddr = [127, 0, 0, 2].into();
        let now = Instant::now();
        is_strange(peer, 80, now);
        // It has a beacon.
        cache.succeeded(peer, 80);
        assert!(any_strangers() && cache.forbids(peer, 80, now));
        assert!(!cache.forbids(peer, 80, now + SHORTEST));
        is_understood(peer, 80);
        assert!(!cache.forbids(peer, 80, now));
    }
}
