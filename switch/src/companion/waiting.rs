//! What those who wait for several connections at once need of one: its readiness, news of it, and
//! a place to keep what they know about it.
//!
//! Invariant: a [`Watcher`] is told with no lock of the companion held, so it may call back.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::guard::Clear;
use super::state::{BROKEN, GUARDED, KERNEL, SAN};
use super::{Companion, service};
use crate::conn::{Enlisted, Sleep, own_event};

/// Who waits for a companion together with other descriptors. One for each companion.
pub trait Watcher: Any + Send + Sync {
    /// [`Companion::on_kernel`] has changed.
    fn moved(&self, companion: &Arc<Companion>);
    /// A call has taken news from the provider, or has changed readiness on the SAN, since the last
    /// [`Companion::refresh`], [`Companion::bits`] or [`Companion::arm`]. Told once for each of those.
    fn used(&self, companion: &Arc<Companion>);
    /// What the kernel's socket is readable by can be taken now, and could not when the kernel last
    /// told of it: who waits for edges is to be told again.
    fn due(&self, companion: &Arc<Companion>);
    /// The last descriptor of this process is about to be closed.
    fn closed(&self, companion: &Arc<Companion>);
    /// For the watcher's maker.
    fn as_any(&self) -> &dyn Any;
}

/// Told by a call of the application's, with its descriptor and no lock held, that the SAN is about
/// to be sought for a companion. False: not now, the next call asks again.
pub type Herald = fn(&Companion, RawFd) -> bool;

static HERALD: OnceLock<Herald> = OnceLock::new();

/// Sets the process's herald; the first one stays. It is asked for those companions that
/// [`Companion::announce`] was called for.
pub fn set_herald(herald: Herald) {
    // A second one would be the same.
    let _first = HERALD.set(herald);
}

pub(super) fn herald(companion: &Companion, fd: RawFd) -> bool {
    HERALD.get().is_none_or(|herald| herald(companion, fd))
}

/// Something that the switch's own thread looks after for a waiter.
pub trait Chore: Send + Sync {
    /// Does what can be done now without waiting, on that thread, with no lock held.
    fn step(&self, readable: bool) -> Next;
}

/// When a chore is to be done again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next {
    /// When this descriptor is readable.
    pub sleep_on: Option<RawFd>,
    /// At this time.
    pub due: Option<Instant>,
    /// Never.
    pub done: bool,
}

/// Hands a chore to the switch's own thread, which is started if need be.
///
/// # Errors
/// If there is no thread.
pub fn serve(chore: Arc<dyn Chore>) -> io::Result<()> {
    service::serve(chore)
}

/// Has all chores done soon.
pub fn kick() {
    service::kick();
}

/// What a thread that wants to sleep is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Armed {
    /// This becomes readable at news.
    On(RawFd),
    /// This kernel socket becomes readable at news; it may be readable already.
    Socket(RawFd),
    /// There are news already.
    News,
    /// The thread's own wake-up tells; only for a [`Sleeper`].
    Told,
    /// Nothing comes any more without a call of the application's.
    Nothing,
}

impl From<Sleep> for Armed {
    fn from(sleep: Sleep) -> Armed {
        match sleep {
            Sleep::On(fd) => Armed::On(fd),
            Sleep::News => Armed::News,
            Sleep::Told => Armed::Told,
            Sleep::Never => Armed::Nothing,
        }
    }
}

/// The calling thread as one of those who sleep for a companion, for the length of one call.
pub struct Sleeper(Enlisted);

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

impl Sleeper {
    /// As [`Companion::arm`].
    #[must_use]
    pub fn arm(&self) -> Armed {
        self.0.arm().into()
    }
}

/// How long a thread may look for news without sleeping.
#[must_use]
pub fn spin_time() -> Duration {
    crate::conn::spin_time()
}

/// The descriptor of the calling thread's wake-up, for [`Armed::Told`].
#[must_use]
pub fn own_wake_up() -> Option<RawFd> {
    own_event().map(|event| event.as_fd().as_raw_fd())
}

/// Makes the thread's wake-up ready for the next news. To be called before all companions that may
/// tell by it are looked at.
pub fn lower_own_wake_up() {
    if let Some(event) = own_event() {
        event.reset();
    }
}

impl Companion {
    /// Prepares for sleep. What other threads, or the service thread, take of the news is told to
    /// the watcher.
    pub fn arm(&self) -> Armed {
        self.observe();
        if let Some(other) = self.arm_elsewhere() {
            return other;
        }
        let Some(connection) = self.connection() else {
            return Armed::News;
        };
        match connection.arm_for_news() {
            Some(fd) => Armed::On(fd),
            None if connection.is_closed() => Armed::Nothing,
            None => Armed::News,
        }
    }

    /// How to sleep if it is not for the SAN alone.
    fn arm_elsewhere(&self) -> Option<Armed> {
        if self.on_kernel() {
            return Some(Armed::News);
        }
        match self.rx.phase() {
            SAN => None,
            BROKEN => Some(Armed::Nothing),
            // On the way, or lost by the SAN: the kernel's arrivals are the news.
            _ => {
                let core = self.core.lock();
                let fd = core.tcp.as_ref().map_or(self.number, AsRawFd::as_raw_fd);
                Some(Armed::Socket(fd))
            }
        }
    }

    /// Makes the calling thread one of those who sleep for it, or says how else to sleep.
    ///
    /// # Errors
    /// How else to sleep.
    pub fn enlist(&self) -> Result<Sleeper, Armed> {
        if let Some(other) = self.arm_elsewhere() {
            return Err(other);
        }
        let connection = self.connection().ok_or(Armed::News)?;
        connection.enlist().map(Sleeper).ok_or(Armed::News)
    }

    /// Whether one direction is with the kernel and the other with the SAN, so that nothing to
    /// sleep on tells of everything.
    #[must_use]
    pub fn is_in_transit(&self) -> bool {
        let (rx, tx) = (self.rx.phase(), self.tx.phase());
        (rx == SAN) != (tx == SAN)
    }

    /// From now on the herald is asked before the SAN is sought. False: that has been done already.
    pub fn announce(&self) -> bool {
        self.announced.store(true, Ordering::Relaxed);
        self.on_kernel() && !self.is_untriggered()
    }

    /// The companion's watcher, made now if it has none.
    pub fn watch(&self, make: impl FnOnce(&Companion) -> Arc<dyn Watcher>) -> &Arc<dyn Watcher> {
        self.watcher.get_or_init(|| make(self))
    }

    /// The companion's watcher.
    pub fn watcher(&self) -> Option<&Arc<dyn Watcher>> {
        self.watcher.get()
    }

    /// The other handle of the same companion; `None` while it is being taken down.
    #[must_use]
    pub fn handle(&self) -> Option<Arc<Companion>> {
        self.me.upgrade()
    }

    /// After something that a waiter might have to know. To be called with no lock held.
    #[inline]
    pub(super) fn tell_used(&self) {
        // SeqCst: against the store in `observe`, which comes before the waiter's last look.
        if self.observed.load(Ordering::Relaxed) && self.observed.swap(false, Ordering::SeqCst) {
            self.tell(|watcher, me| watcher.used(me));
        }
    }

    /// To be called when `on_kernel` has changed, with no lock held.
    pub(super) fn tell_moved(&self) {
        self.tell(|watcher, me| watcher.moved(me));
    }

    pub(super) fn tell_due(&self) {
        self.tell(|watcher, me| watcher.due(me));
    }

    pub(super) fn tell_closed(&self) {
        self.tell(|watcher, me| watcher.closed(me));
    }

    fn tell(&self, what: impl FnOnce(&dyn Watcher, &Arc<Companion>)) {
        if let Some(watcher) = self.watcher.get()
            && let Some(me) = self.me.upgrade()
        {
            what(watcher.as_ref(), &me);
        }
    }

    /// A waiter is about to look, or to sleep.
    pub(super) fn observe(&self) {
        self.observed.store(true, Ordering::SeqCst);
    }

    /// What the kernel said of the TCP socket (as poll(2) bits), or of the shadow, reduced to what is
    /// true and the application's now: a marker that is next is taken, and of what the SAN carries
    /// the SAN tells. Never blocks.
    #[inline]
    #[must_use]
    pub fn relook(&self, revents: i16) -> i16 {
        if self.rx.phase() == KERNEL && matches!(self.tx.phase(), KERNEL | GUARDED) {
            return revents;
        }
        self.relook_moving(revents)
    }

    #[cold]
    fn relook_moving(&self, revents: i16) -> i16 {
        let own = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND;
        if !self.on_kernel() {
            return self.refresh();
        }
        match self.clear_marker() {
            // The end tells itself.
            Clear::Marker if revents & libc::POLLRDHUP == 0 => revents & !own,
            Clear::Marker | Clear::Application if self.on_kernel() => revents,
            _ => self.refresh(),
        }
    }

    /// The application has taken the connection's error: it is not shown any more.
    pub fn error_taken(&self) {
        if !self.on_kernel() && self.bits() & libc::POLLERR != 0 {
            self.error_taken.store(true, Ordering::Relaxed);
            self.refresh();
        }
    }

    /// Whether there is a connection whose kernel socket may be readable by a marker only.
    #[inline]
    #[must_use]
    pub fn any_guarded() -> bool {
        Companion::any_guards()
    }

    /// Changes whenever a kernel socket may have stopped being readable because a marker was taken,
    /// before [`Companion::any_guarded`] does.
    #[inline]
    #[must_use]
    pub fn guards_ended() -> u64 {
        Companion::count_guards_ended()
    }

    /// As [`Companion::refresh`], but the shadow is left as it is, and others who wait for this
    /// companion together with other descriptors are not told: that is the caller's if
    /// [`Companion::arrivals`] has changed.
    pub fn bits(&self) -> i16 {
        self.look_now(false).0
    }

    /// Whether something has come just now. Takes no time to speak of; what it was, and what other
    /// threads have taken, is told by [`Companion::bits`].
    #[must_use]
    pub fn glance(&self) -> bool {
        self.connection()
            .is_some_and(|connection| connection.glance())
    }

    /// Whether a waiter who wants to read, and nothing else, has nothing to be told. Takes little
    /// time; `false` says nothing.
    #[must_use]
    pub fn has_nothing_to_read(&self) -> bool {
        self.rx.phase() == SAN
            && self.tx.phase() == SAN
            && self
                .connection()
                .is_some_and(|connection| connection.has_nothing_to_read())
    }

    /// Edges as of the last look: of readability (something arrived) and of writability (room came
    /// back after there had been none). Each changes with each edge.
    #[must_use]
    pub fn arrivals(&self) -> (u32, u32) {
        // Relaxed: told by the same thread's last look.
        let arrived = self.arrived.load(Ordering::Relaxed);
        (arrived, self.roomy.load(Ordering::Relaxed))
    }
}
