//! What becomes of companions when the process forks.
//!
//! Before a fork every upgraded connection goes back to the kernel, so that both processes have a
//! plain TCP socket with not a byte missing; the locks of all companions are held over the fork, so
//! that the child finds none that nobody will release. Owns the counters by which the processes
//! that share a connection know whether they are alone with it: only then it is upgraded (again),
//! for which the remaining one has to know what the others have received and sent.
//! A child whose parent had its service thread running makes no upgrades of its own: the thread,
//! and the providers' threads, are the parent's. Invariant: the child never touches a provider's
//! object of the parent.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::lock_api::RawMutex as _;
use parking_lot::{Mutex, MutexGuard, RawMutex};

use super::state::{BROKEN, Stage};
use super::{Companion, Reason, kernel, registry, service};
use crate::conn;

/// For all peers together to follow back to the kernel.
const TIME: Duration = Duration::from_secs(3);
/// Counters made at a time, which is a page.
const COUNTERS: usize = 4096 / size_of::<Counts>();

/// This process was forked from one whose threads it has not.
static ORPHANED: AtomicBool = AtomicBool::new(false);

/// Processes that share a connection.
pub(super) struct Share {
    /// In memory that the processes share; never unmapped.
    counts: &'static Counts,
    /// Up to where this process's totals are among the common ones.
    told: [AtomicU64; 2],
    /// This process is one of them.
    counted: AtomicBool,
}

impl Share {
    /// Whether no other process has the connection.
    pub(super) fn is_alone(&self) -> bool {
        self.counts.processes.load(Ordering::SeqCst) <= 1
    }

    /// Adds what this process has received and sent to what all have.
    fn tell(&self, companion: &Companion) {
        let totals = [&companion.rx.total, &companion.tx.total];
        for ((total, told), all) in totals.into_iter().zip(&self.told).zip(&self.counts.totals) {
            let total = total.load(Ordering::SeqCst);
            let before = told.swap(total, Ordering::SeqCst);
            all.fetch_add(total.wrapping_sub(before), Ordering::SeqCst);
        }
    }

    /// The only process that is left counts on from where all have come to.
    fn learn(&self, companion: &Companion) {
        self.tell(companion);
        let totals = [&companion.rx.total, &companion.tx.total];
        for ((total, told), all) in totals.into_iter().zip(&self.told).zip(&self.counts.totals) {
            let others = all
                .load(Ordering::SeqCst)
                .wrapping_sub(told.load(Ordering::SeqCst));
            total.fetch_add(others, Ordering::SeqCst);
            told.fetch_add(others, Ordering::SeqCst);
        }
    }

    /// It has it after all.
    fn enter(&self) {
        if !self.counted.swap(true, Ordering::SeqCst) {
            self.counts.processes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// This process has it no more.
    fn leave(&self, companion: &Companion) {
        if self.counted.load(Ordering::SeqCst) {
            self.tell(companion);
        }
        if self.counted.swap(false, Ordering::SeqCst) {
            self.counts.processes.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// What processes that share a connection know together.
#[repr(C)]
struct Counts {
    processes: AtomicU32,
    /// Received and sent, since the first byte.
    totals: [AtomicU64; 2],
}

struct Page {
    counters: &'static [Counts],
    used: usize,
}

static PAGE: Mutex<Option<Page>> = Mutex::new(None);
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// A counter in shared memory; `None` if there is none to be had.
fn counter() -> Option<&'static Counts> {
    let mut page = PAGE.lock();
    if page
        .as_ref()
        .is_none_or(|page| page.used >= page.counters.len())
    {
        // What is never given back is bounded.
        if PAGES.fetch_add(1, Ordering::Relaxed) >= 64 {
            return None;
        }
        *page = Some(Page {
            counters: shared_page()?,
            used: 0,
        });
    }
    let page = page.as_mut()?;
    let counter = page.counters.get(page.used)?;
    page.used += 1;
    Some(counter)
}

fn shared_page() -> Option<&'static [Counts]> {
    let len = COUNTERS * size_of::<Counts>();
    let (rights, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: asks for new memory, no pointer is given.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: that many zeroed counters, aligned to a page, never unmapped; all access is atomic.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<Counts>(), COUNTERS) })
}

impl Companion {
    /// Another process is about to have it, too.
    fn share(&self) {
        let share = self.share.get_or_init(|| {
            counter().map(|counts| {
                counts.processes.store(1, Ordering::SeqCst);
                Share {
                    counts,
                    told: Default::default(),
                    counted: AtomicBool::new(true),
                }
            })
        });
        if let Some(share) = share {
            // What the child inherits is told already.
            share.tell(self);
            share.counts.processes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// This process becomes another program, which has the connection's descriptor at most by
    /// accident: others that have it count themselves without this one.
    pub fn forsake(&self) {
        if let Some(Some(share)) = self.share.get() {
            share.leave(self);
        }
    }

    /// Whether no other process has the connection. Then this one's totals are those of all.
    pub(super) fn is_alone(&self) -> bool {
        match self.share.get() {
            None => true,
            Some(Some(share)) => {
                let alone = share.is_alone();
                if alone {
                    share.learn(self);
                }
                alone
            }
            // It was forked with, and nobody counts.
            Some(None) => false,
        }
    }

    /// It does not become another program.
    pub fn reclaim(&self) {
        if let Some(Some(share)) = self.share.get()
            && !self.core.lock().closed
        {
            share.enter();
        }
    }
}

thread_local! {
    /// The companions whose locks this thread holds over its fork.
    static HELD: RefCell<Vec<Arc<Companion>>> = const { RefCell::new(Vec::new()) };
}

/// Whether this process can make no upgrades.
pub(super) fn is_orphaned() -> bool {
    ORPHANED.load(Ordering::Relaxed)
}

/// Held by the thread that forks, from before it looks which companions there are.
static FORKING: Mutex<()> = Mutex::new(());

/// Nobody begins to fork as long as what this gives is there: a companion is made before, or after.
pub(super) fn while_nobody_forks() -> MutexGuard<'static, ()> {
    FORKING.lock()
}

pub(super) fn before() {
    MutexGuard::leak(FORKING.lock());
    let companions = registry::all();
    go_back(&companions);
    for companion in &companions {
        let core = companion.core.lock();
        if !core.closed {
            companion.share();
        }
        // Released right after the fork, in both processes.
        MutexGuard::leak(core);
    }
    registry::lock_over_fork();
    drop(HELD.try_with(|place| place.replace(companions)));
}

/// Everything upgraded goes back to the kernel, all at once.
fn go_back(companions: &[Arc<Companion>]) {
    let end = Instant::now() + TIME;
    let mut under_way = Vec::new();
    for companion in companions {
        companion.forget_own_calls();
        let mut core = companion.core.lock();
        match core.stage {
            Stage::Up => {
                let lost = companion.lose(&mut core);
                core.held = true;
                core.forking = true;
                if !lost && !companion.leave_san(&mut core) {
                    companion.suspend(&mut core);
                }
                under_way.push(companion);
            }
            Stage::Seeking | Stage::Joining => {
                // A session that comes now is sent away.
                core.held = true;
                if core.stage == Stage::Seeking {
                    core.stage = Stage::Idle;
                    core.tcp = None;
                } else {
                    under_way.push(companion);
                }
            }
            Stage::Idle | Stage::Never => {
                core.held = true;
                if core.owes() {
                    under_way.push(companion);
                }
            }
        }
    }
    for companion in under_way {
        while companion.core.lock().stage == Stage::Joining && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let fd = {
            let core = companion.core.lock();
            let plain = core.stage == Stage::Up && core.hand.is_none() && core.lost.is_none();
            let fd = core.tcp.as_ref().map(AsRawFd::as_raw_fd);
            fd.filter(|_| plain)
        };
        let done = match fd {
            Some(fd) => companion.drain(fd, end),
            None => companion.wait_handed(end),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a connection stays with the process that forks");
        }
        let mut core = companion.core.lock();
        companion.retire(&mut core);
        if companion.is_stranded(&core) {
            // Both processes would have it.
            companion.break_off(&mut core);
            core.leftover.clear();
        }
        core.forking = false;
        drop(core);
        companion.set_reason(Reason::Fork);
        companion.moved();
    }
}

/// Makes a lock free in the child. Those who waited for it in the parent are not here, and to unlock
/// it might hand it over to one of them.
pub(super) fn free<T>(mutex: &Mutex<T>) {
    // SAFETY: the raw lock is only written, see below.
    let raw = std::ptr::from_ref(unsafe { mutex.raw() }).cast_mut();
    // SAFETY: nothing but an atomic, and there is no other thread that could use it.
    unsafe { raw.write(RawMutex::INIT) };
}

/// Releases in the child what is held; gives back whose they were.
fn release_in_child() -> Vec<Arc<Companion>> {
    free(&FORKING);
    registry::free_after_fork();
    let held = HELD.try_with(|place| place.take()).unwrap_or_default();
    for companion in &held {
        free(&companion.core);
    }
    held
}

/// The same in the parent.
fn release() -> Vec<Arc<Companion>> {
    registry::unlock_after_fork();
    let held = HELD.try_with(|place| place.take()).unwrap_or_default();
    for companion in &held {
        // SAFETY: locked by `before` on this thread, and leaked.
        unsafe { companion.core.force_unlock() };
    }
    // SAFETY: locked by `before` on this thread, and leaked.
    unsafe { FORKING.force_unlock() };
    held
}

pub(super) fn after_in_parent() {
    for companion in release() {
        let mut core = companion.core.lock();
        core.held = false;
        let sought = core.stage == Stage::Idle;
        drop(core);
        if sought && companion.is_untriggered() {
            companion.retrigger();
        }
    }
}

pub(super) fn after_in_child() {
    let orphaned = service::is_running();
    free(&PAGE);
    ORPHANED.store(orphaned, Ordering::SeqCst);
    conn::forget_lingering();
    for companion in release_in_child() {
        let mut core = companion.core.lock();
        core.held = false;
        core.tcp = None;
        core.shadow = None;
        if let Some(watched) = core.watched.take() {
            // SAFETY: open, as it is noted, and the thread that owns it is the parent's.
            kernel::close(unsafe { OwnedFd::from_raw_fd(watched) });
        }
        if let Some(connection) = core.connection.take() {
            // The parent's; its end here would end it there.
            let _ = std::mem::ManuallyDrop::new(connection);
            core.hand = None;
            companion.rx_to(BROKEN);
            companion.tx.phase.store(BROKEN, Ordering::SeqCst);
        }
        if let Some(lost) = core.lost.take() {
            let _ = std::mem::ManuallyDrop::new(lost);
            companion.rx_to(BROKEN);
            companion.tx.phase.store(BROKEN, Ordering::SeqCst);
        }
        if core.owes() {
            // The parent sends it, nobody knows when.
            core.marker_gone();
            companion.tx.phase.store(BROKEN, Ordering::SeqCst);
        }
        if orphaned {
            core.stage = Stage::Never;
            companion.set_reason(Reason::Fork);
        }
        drop(core);
        // Calls of other threads were under way in the parent only.
        companion.rx.inflight.store(0, Ordering::SeqCst);
        companion.rx.busy.store(0, Ordering::SeqCst);
        companion.tx.inflight.store(0, Ordering::SeqCst);
        companion.tx.busy.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::super::Role;
    use super::*;

    const ALONE: &str = "WSD_TEST_ALONE";

    /// In a process of its own: all connections of a process are taken back for a fork.
    #[test]
    fn threads_that_fork_and_threads_that_make_connections_do_not_get_in_each_others_way() {
        if std::env::var_os(ALONE).is_some() {
            return fork_while_connections_are_made();
        }
        let name = std::thread::current().name().map(str::to_owned);
        let mut run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name.unwrap()])
            .env(ALONE, "1")
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        let outcome = loop {
            match run.try_wait().unwrap() {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                outcome => break outcome,
            }
        };
        drop(run.kill());
        drop(run.wait());
        let outcome = outcome.expect("they wait for each other");
        assert!(outcome.success(), "{outcome}");
    }

    fn fork_while_connections_are_made() {
        const FORKS: u32 = 200;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let others = [(); 50].map(|()| Companion::new(tcp.as_fd(), Role::Connected).unwrap());
        let made = Mutex::new(None);
        let over = AtomicBool::new(false);
        let make = || {
            while !over.load(Ordering::Relaxed) {
                let companion = Companion::new(tcp.as_fd(), Role::Connected).unwrap();
                // Let go of after the lock: the end of a companion waits for a fork.
                let _older = made.lock().replace(companion);
            }
        };
        let fork = || {
            let (mut seen, mut missed) = (0, 0);
            while seen < FORKS {
                before();
                if let Some(companion) = made.try_lock().as_deref().and_then(Option::as_ref) {
                    let held = companion.core.try_lock().is_none();
                    missed += u32::from(!held || companion.share.get().is_none());
                    seen += 1;
                }
                after_in_parent();
                // The makers, who sleep, go on.
                std::thread::sleep(Duration::from_micros(200));
            }
            missed
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(make);
            }
            let forkers = [(); 2].map(|()| scope.spawn(fork));
            let missed = forkers.map(|forker| forker.join().unwrap());
            over.store(true, Ordering::Relaxed);
            assert_eq!(missed, [0, 0]);
        });
        drop(others);
    }
}
