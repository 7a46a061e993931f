//! How the cache learns that memory goes away.
//!
//! Owns the watch over the memory of this process: one userfaultfd and two threads, made when first
//! asked for and kept for the life of the process. A thread that unmaps, moves or discards watched
//! memory waits in the kernel until the message of it has been *read*. So everything here is built
//! around the thread that reads, `wsd-memory`:
//!
//! * It takes no lock, allocates and frees nothing, and runs no signal handler of the host. So
//!   nobody who waits for it, holding whatever lock of ours or of the allocator, waits for ever.
//! * It passes the addresses on through a [`Ring`]. Those who look something up apply what is in
//!   there first, under locks of their own.
//! * It wakes `wsd-unpin`, an ordinary thread, which has the caches give up what has gone even if
//!   nobody looks anything up.
//! * It never ends: memory may stay watched of which we do not know (a mapping that was watched and
//!   then grew), and with nobody reading, unmapping that would hang. For the same reason the
//!   library stays loaded.
//!
//! Between the moment at which addresses become free and the moment at which the message has been
//! passed on, another thread may get the same addresses. [`Monitor::is_settled`] tells: the kernel
//! counts the changes whose message has not been read, and `reading` covers the time from there to
//! the ring.
//!
//! What the host may notice: unmapping memory that was sent from costs a wake-up of the reader; such
//! memory is a mapping of its own, so one `mremap` over it and its neighbours fails with EFAULT as
//! over any two mappings (allocators copy then); and a userfaultfd of the host's own cannot be
//! registered for it. After a fork the child's memory is not watched and its inherited caches are
//! not used.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::map::{Coverage, Span};
use super::mappings;
use super::ring::Ring;
use super::sys::{self, News, Pages, Uffd};

/// Somebody who keeps registrations and gives up those whose memory has gone.
pub(super) trait Sweep: Send + Sync {
    fn sweep(&self);
}

/// Tells of memory that goes away.
pub(super) trait Monitor: Send + Sync + fmt::Debug {
    /// From now on, changes of these pages are told; `false` if they cannot be.
    fn watch(&self, pages: Span) -> bool;
    /// Takes back one successful `watch` of the same pages.
    fn unwatch(&self, pages: Span);
    /// Whether every change that was over before the call can be had from `changes` now.
    fn is_settled(&self) -> bool;
    /// Where somebody who begins now begins with `changes`.
    fn position(&self) -> usize;
    /// Appends what has changed since. `false`: too much, take everything as changed.
    fn changes(&self, position: &mut usize, into: &mut Vec<Span>) -> bool;
    /// Has somebody swept when something has changed.
    fn attend(&self, who: Weak<dyn Sweep>);
}

/// The caller has promised to tell of memory before it goes; there is nothing to watch.
#[derive(Debug)]
pub(super) struct Told;

impl Monitor for Told {
    fn watch(&self, _: Span) -> bool {
        true
    }

    fn unwatch(&self, _: Span) {}

    fn is_settled(&self) -> bool {
        true
    }

    fn position(&self) -> usize {
        0
    }

    fn changes(&self, _: &mut usize, _: &mut Vec<Span>) -> bool {
        true
    }

    fn attend(&self, _: Weak<dyn Sweep>) {}
}

/// The kernel tells.
pub(super) struct Kernel {
    uffd: Uffd,
    ring: Ring,
    /// Between taking a message from the kernel and having it in the ring.
    reading: AtomicBool,
    /// How often each page is watched. Held across the requests that turn watching on and off, so
    /// that the two agree.
    watched: Mutex<Coverage>,
    sweeps: Mutex<Vec<Weak<dyn Sweep>>>,
    page: usize,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

/// The watch of the process that made it, or why there is none.
type Made = (u32, Result<Arc<Kernel>, String>);
static MADE: Mutex<Option<Made>> = Mutex::new(None);

/// Looks once more this often while a change is under way; then the answer is "not settled", which
/// costs a registration.
const LOOKS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(10);

impl Kernel {
    /// The watch of this process.
    pub(super) fn get() -> Result<Arc<Self>, String> {
        let process = std::process::id();
        let mut made = MADE.lock();
        match &*made {
            Some((owner, kernel)) if *owner == process => kernel.clone(),
            // None yet, or it stayed behind in the parent of a fork.
            _ => {
                let kernel = Self::start();
                if let Err(reason) = &kernel {
                    tracing::debug!(reason, "registrations cannot be kept");
                }
                *made = Some((process, kernel.clone()));
                kernel
            }
        }
    }

    fn start() -> Result<Arc<Self>, String> {
        let uffd = Uffd::open().map_err(|error| refusal(&error))?;
        try_out(&uffd)?;
        let kernel = Arc::new(Self {
            uffd,
            ring: Ring::new(),
            reading: AtomicBool::new(false),
            watched: Mutex::default(),
            sweeps: Mutex::default(),
            page: sys::page_size(),
        });
        sys::stay_loaded();
        let start = || {
            let sweeping = Arc::clone(&kernel);
            let sweeper = Builder::new()
                .name("wsd-unpin".to_owned())
                .spawn(move || sweeping.sweep_for_ever())?;
            let sweeper = sweeper.thread().clone();
            let reading = Arc::clone(&kernel);
            Builder::new()
                .name("wsd-memory".to_owned())
                .spawn(move || reading.read_for_ever(&sweeper))
        };
        // Nothing is watched before both threads run.
        match sys::without_signals(start) {
            Ok(_) => Ok(kernel),
            Err(error) => Err(format!("no thread can be had to watch memory: {error}")),
        }
    }

    fn read_for_ever(&self, sweeper: &Thread) {
        loop {
            if self.uffd.wait(None).is_err() {
                // No memory in the kernel; it will not last.
                std::thread::sleep(Duration::from_millis(1));
            }
            while self.read_one() {}
            sweeper.unpark();
        }
    }

    fn read_one(&self) -> bool {
        self.reading.store(true, Ordering::SeqCst);
        let news = self.uffd.read();
        match news {
            Ok(Some(News::Gone(span))) => self.ring.publish(span),
            Ok(Some(News::Fault(address))) => {
                let page = Span::new(address, address.saturating_add(1));
                if let Some(page) = page.map(|page| page.to_pages(self.page)) {
                    // Nobody protects pages here. Should it happen, whoever waits must go on.
                    let _permitted = self.uffd.permit(page);
                }
            }
            _ => {}
        }
        self.reading.store(false, Ordering::SeqCst);
        matches!(news, Ok(Some(_)))
    }

    fn sweep_for_ever(&self) {
        loop {
            std::thread::park();
            let sweeps: Vec<_> = {
                let mut sweeps = self.sweeps.lock();
                sweeps.retain(|who| who.strong_count() > 0);
                sweeps.iter().filter_map(Weak::upgrade).collect()
            };
            for who in sweeps {
                who.sweep();
            }
        }
    }
}

impl Monitor for Kernel {
    fn watch(&self, pages: Span) -> bool {
        {
            let mut watched = self.watched.lock();
            // Also what is counted as watched: it may have been mapped anew meanwhile.
            if self.uffd.watch(pages).is_err() {
                return false;
            }
            watched.add(pages);
        }
        // Looked at now and not before: from now on a change is told.
        let is_anonymous = all_mappings().is_ok_and(|maps| mappings::is_anonymous(maps, pages));
        if !is_anonymous {
            self.unwatch(pages);
        }
        is_anonymous
    }

    fn unwatch(&self, pages: Span) {
        let mut watched = self.watched.lock();
        for bare in watched.remove(pages) {
            // It fails where there is other memory now; that is not watched.
            let _was_watched = self.uffd.unwatch(bare);
        }
    }

    fn is_settled(&self) -> bool {
        (0..LOOKS).any(|look| {
            if look > 0 {
                std::thread::yield_now();
            }
            // In this order: a message that is not counted any more was read after `reading` was
            // set.
            matches!(self.uffd.is_changing(), Ok(false)) && !self.reading.load(Ordering::SeqCst)
        })
    }

    fn position(&self) -> usize {
        self.ring.position()
    }

    fn changes(&self, position: &mut usize, into: &mut Vec<Span>) -> bool {
        self.ring.take(position, into)
    }

    fn attend(&self, who: Weak<dyn Sweep>) {
        self.sweeps.lock().push(who);
    }
}

/// Those of the thread, because those of the process are gone when its first thread is.
fn all_mappings() -> io::Result<BufReader<File>> {
    File::open("/proc/thread-self/maps").map(BufReader::new)
}

fn refusal(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "it is not permitted here (a container's system call filter?)",
        Some(libc::ENOSYS) => "this kernel has none",
        Some(libc::EINVAL) => "this kernel's cannot do what is needed",
        _ => "it failed",
    };
    format!("userfaultfd: {why}: {error}")
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("userfaultfd: {what}: {error}")
}

/// Believes nothing that has not been seen: pages are watched, taken away by another thread, and
/// looked after.
fn try_out(uffd: &Uffd) -> Result<(), String> {
    let pages = Pages::new(2 * sys::page_size()).map_err(failed("no memory to try it"))?;
    let span = pages.span();
    uffd.watch(span)
        .map_err(failed("memory cannot be watched"))?;
    let maps = all_mappings().map_err(failed("the mappings cannot be read"))?;
    if !mappings::is_anonymous(maps, span) {
        return Err("userfaultfd: the mappings of this process make no sense".to_owned());
    }
    let is_changing = || {
        uffd.is_changing()
            .map_err(failed("it does not tell of changes under way"))
    };
    if is_changing()? {
        return Err("userfaultfd: it tells of changes where there are none".to_owned());
    }
    let taker = || Builder::new().spawn(move || drop(pages));
    let taker = sys::without_signals(taker).map_err(failed("no thread can be had"))?;
    // Should no message come: closing the descriptor lets the other thread go on.
    if !uffd.wait(Some(PATIENCE)).map_err(failed("waiting"))? {
        return Err("userfaultfd: no message when memory went away".to_owned());
    }
    if !is_changing()? {
        return Err("userfaultfd: a change under way does not show".to_owned());
    }
    match uffd.read().map_err(failed("reading"))? {
        Some(News::Gone(gone)) if gone == span => {}
        other => return Err(format!("userfaultfd: {other:?} for memory that went away")),
    }
    if taker.join().is_err() || is_changing()? {
        return Err("userfaultfd: a change does not end".to_owned());
    }
    Ok(())
}
