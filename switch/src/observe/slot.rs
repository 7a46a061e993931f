//! What one connection shows: its slot in the observation memory, as its owner writes it.
//!
//! Owns the slot until it is dropped. Does not decide when something is worth telling.
//! Invariants: the words of one group change together, between two changes of the group's count,
//! so that nobody reads a mixture; the second group has one writer at a time, by `&mut`.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use super::layout::{self, life, slot};
use super::memory;
use super::{Path, Role, Upgrade};

/// What is known of a connection when it begins.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Who connected.
    pub role: Role,
    /// This end and the other one, if known: who looks finds out by the descriptor.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The application's descriptor.
    pub fd: Option<RawFd>,
    /// What carries it.
    pub path: Path,
    /// The provider of the SAN, or nothing.
    pub provider: &'a str,
    /// How far the upgrade is.
    pub upgrade: Upgrade,
    /// Why it is not on the SAN: a code, or nothing.
    pub reason: &'a str,
}

/// A connection that can be seen from outside for as long as this lives.
pub struct Slot {
    words: &'static [AtomicU64],
    index: usize,
    id: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).finish()
    }
}

/// `WSD_OBSERVE=off`: nothing is shown.
fn is_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| std::env::var_os("WSD_OBSERVE").is_some_and(|value| value == "off"))
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn role_number(role: Role) -> u64 {
    match role {
        Role::Connected => 1,
        Role::Accepted => 2,
    }
}

impl Slot {
    /// Shows a connection. `None` if that cannot be: the connection is none the worse for it.
    #[must_use]
    pub fn new(about: &About<'_>) -> Option<Arc<Slot>> {
        if is_off() {
            return None;
        }
        let started = now();
        let fill = |place: &memory::Place| {
            changed(place.words, slot::COLD, |words| {
                words.fill_from(slot::LIFE);
                words.set(slot::LIFE, life::LIVE);
                words.set(slot::ID, place.id);
                words.set(slot::KINDS, role_number(about.role));
                words.set_byte(slot::KINDS, 1, about.path.number());
                words.set_byte(slot::KINDS, 2, about.upgrade.number());
                words.set_fd(about.fd);
                words.set(slot::STARTED, started);
                // What is not known is zeros, and these are there.
                if about.addresses.is_some() {
                    words.set_addresses(about.addresses);
                }
                for (place, text) in [
                    (slot::PROVIDER, about.provider),
                    (slot::REASON, about.reason),
                ] {
                    if !text.is_empty() {
                        words.set_all(place, layout::text_to_words(text));
                    }
                }
            });
        };
        let memory::Place { index, id, words } = memory::take(fill)?;
        Some(Arc::new(Slot { words, index, id }))
    }

    /// The connection's number in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.words.get(index)
    }

    /// Changes words of the first group.
    fn change(&self, change: impl FnOnce(&Words)) {
        memory::change(|| changed(self.words, slot::COLD, change));
    }

    /// Its addresses have become known.
    pub fn set_addresses(&self, local: SocketAddr, peer: SocketAddr) {
        self.change(|words| words.set_addresses(Some((local, peer))));
    }

    /// The connection is carried by something else now.
    pub fn set_path(&self, path: Path, provider: &str) {
        self.change(|words| {
            words.set_byte(slot::KINDS, 1, path.number());
            words.set_all(slot::PROVIDER, layout::text_to_words(provider));
        });
    }

    /// The upgrade has come this far. Arriving on the SAN, and back with the kernel, is counted.
    pub fn set_upgrade(&self, upgrade: Upgrade) {
        self.change(|words| {
            words.set_byte(slot::KINDS, 2, upgrade.number());
            match upgrade {
                Upgrade::Upgraded => words.add(slot::UPGRADES),
                Upgrade::Downgraded => words.add(slot::DOWNGRADES),
                _ => {}
            }
        });
    }

    /// Why the connection is not on the SAN: a code of [`crate::Reason`] or of the companion, or
    /// nothing. At most 32 bytes are kept.
    pub fn set_reason(&self, code: &str) {
        self.change(|words| words.set_all(slot::REASON, layout::text_to_words(code)));
    }

    /// The application's descriptor.
    pub fn set_fd(&self, fd: Option<RawFd>) {
        self.change(|words| words.set_fd(fd));
    }

    /// The session that carries the connection: both ends show the same.
    pub(crate) fn set_session(&self, id: [u8; 16]) {
        self.change(|words| {
            words.set_byte(slot::KINDS, 3, 1);
            words.set_all(slot::SESSION, layout::id_to_words(id));
        });
    }

    /// This many bytes went out by the kernel.
    pub fn sent_by_kernel(&self, bytes: usize) {
        self.add(slot::KERNEL_SENT, bytes);
    }

    /// This many bytes came in by the kernel.
    pub fn received_by_kernel(&self, bytes: usize) {
        self.add(slot::KERNEL_RECEIVED, bytes);
    }

    /// All bytes that have gone each way by the kernel, for an owner that counts them itself.
    pub fn carried_by_kernel(&self, sent: u64, received: u64) {
        for (index, bytes) in [(slot::KERNEL_SENT, sent), (slot::KERNEL_RECEIVED, received)] {
            if let Some(word) = self.word(index) {
                word.store(bytes, Ordering::Relaxed);
            }
        }
    }

    fn add(&self, index: usize, bytes: usize) {
        if let Some(word) = self.word(index) {
            word.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// What the counters of the second group are now.
    pub(super) fn counter(&self, index: usize) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Writes the counters of the second group. One thread at a time: the caller sees to that.
    #[inline]
    pub(super) fn count(&self, count: impl FnOnce(&Words)) {
        changed(self.words, slot::HOT, count);
    }

    /// Whether somebody wants to see messages.
    #[inline]
    pub(super) fn is_traced(&self) -> bool {
        self.counter(slot::TRACED_UNTIL) != 0
    }

    /// Puts a message into the ring, if somebody still wants it. `head`: its header and what
    /// belongs to it; `len`: of the whole.
    #[cold]
    pub(super) fn trace(&self, sent: bool, head: &[u8], len: usize) {
        /// Nobody asks for longer: a wrong word does not make work for ever.
        const LONGEST: u64 = 10_000_000_000;
        let (now, until) = (now(), self.counter(slot::TRACED_UNTIL));
        if until < now || until - now > LONGEST {
            if let Some(word) = self.word(slot::TRACED_UNTIL) {
                // A request that comes right now is repeated.
                word.store(0, Ordering::Relaxed);
            }
            return;
        }
        if let Some(all) = memory::all() {
            super::ring::append(all, now, self.id, sent, head, len);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        memory::give_back(self.index, || {
            changed(self.words, slot::COLD, |words| {
                words.set(slot::LIFE, life::ENDED);
            });
        });
    }
}

/// Words that are being changed.
pub(super) struct Words(&'static [AtomicU64]);

/// Changes words so that readers notice: the count is odd meanwhile.
#[inline]
fn changed(words: &'static [AtomicU64], count: usize, change: impl FnOnce(&Words)) {
    let Some(counter) = words.get(count) else {
        return;
    };
    let turn = counter.load(Ordering::Relaxed) | 1;
    counter.store(turn, Ordering::Relaxed);
    // No word is seen changed by who has seen the count before.
    fence(Ordering::Release);
    change(&Words(words));
    counter.store(turn.wrapping_add(1), Ordering::Release);
}

impl Words {
    #[inline]
    pub(super) fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn set_all<const N: usize>(&self, index: usize, values: [u64; N]) {
        for (offset, value) in values.into_iter().enumerate() {
            self.set(index + offset, value);
        }
    }

    fn add(&self, index: usize) {
        if let Some(word) = self.0.get(index) {
            word.store(
                word.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
    }

    fn set_byte(&self, index: usize, byte: u32, value: u8) {
        if let Some(word) = self.0.get(index) {
            let others = word.load(Ordering::Relaxed) & !(0xff << (8 * byte));
            word.store(others | u64::from(value) << (8 * byte), Ordering::Relaxed);
        }
    }

    fn set_addresses(&self, addresses: Option<(SocketAddr, SocketAddr)>) {
        let words = |address: &SocketAddr| layout::address_to_words(address);
        let (local, peer) = match &addresses {
            Some((local, peer)) => (words(local), words(peer)),
            None => ([0; 3], [0; 3]),
        };
        self.set_all(slot::LOCAL, local);
        self.set_all(slot::PEER, peer);
    }

    fn set_fd(&self, fd: Option<RawFd>) {
        let number = fd.and_then(|fd| u64::try_from(fd).ok());
        self.set(slot::FD, number.map_or(0, |number| number + 1));
    }

    /// Forgets everything from a word on, but the counts of changes: they only ever grow.
    fn fill_from(&self, index: usize) {
        let hot = self.0.get(slot::HOT).map(|word| {
            let turn = word.load(Ordering::Relaxed) | 1;
            word.store(turn, Ordering::Relaxed);
            fence(Ordering::Release);
            turn
        });
        for range in [index..slot::HOT, slot::HOT + 1..layout::SLOT_WORDS] {
            for word in self.0.get(range).unwrap_or_default() {
                word.store(0, Ordering::Relaxed);
            }
        }
        if let (Some(word), Some(turn)) = (self.0.get(slot::HOT), hot) {
            word.store(turn.wrapping_add(1), Ordering::Release);
        }
    }
}
