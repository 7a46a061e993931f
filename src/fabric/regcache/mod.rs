//! Registrations of memory that outlive their release, for a fabric to which registering is dear.
//!
//! | file | owns |
//! |---|---|
//! | `options` | what can be chosen, and the limits |
//! | `book` | which registrations there are, who uses them, which goes next |
//! | `map` | spans of addresses and the search among them |
//! | `watch` | learning that memory goes away |
//! | `ring` | passing that on from the thread that learns of it |
//! | `mappings` | which memory can be watched at all |
//! | `sys` | system calls; the only `unsafe` |
//!
//! For *local* registrations only: what a peer may reach is registered anew and ends with its
//! release, and so is a local one whose device lets the peer reach it (the target of reads on
//! iWARP).
//!
//! What is promised to whom:
//!
//! * **Rights and scope**: a registration is handed out again only in the domain (the protection
//!   domain of one connection) that it was made in, for a span that it covers, with exactly the
//!   rights that are asked for. One with more rights is not handed out, so that what was registered
//!   for reading is never written to by mistake. Bounds are the business of whoever holds the
//!   lease: the registration may be longer than what was asked for.
//! * **Memory that goes away**: it is never handed out after a change of its memory that was over
//!   before the call. In use at that moment, it is ended at its last release; unused, at once.
//! * **What cannot be watched** (files, shared memory, hugetlbfs, memory with a userfaultfd of the
//!   host's own) is registered for its one lease and ends with it.
//! * **Room**: see `Limits`; entries in use are never given up. When the device or the kernel has no
//!   room, everything unused is given up and the registration tried once more; so also for what is
//!   not kept (`Domain::make_own`).
//!
//! Locks: `book` and those of `watch` are leaves, and none is held while something is registered or
//! ended. The thread that reads the kernel's messages takes none of them, so memory may be freed
//! under any.

mod book;
mod map;
mod mappings;
mod options;
mod ring;
#[allow(unsafe_code)]
mod sys;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use book::Stats;
pub(crate) use options::{Limits, Options, Watching};

use super::{Access, Region, Released};
use book::{Book, Leavings};
use map::Span;
use watch::{Kernel, Monitor, Sweep, Told};

/// A cache of registrations. `H` is one registration on the device; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Cache<H: Send + Sync + 'static> {
    shared: Arc<Shared<H>>,
}

#[derive(Debug)]
struct Shared<H> {
    limits: Limits,
    /// None: nothing is kept.
    monitor: Option<Arc<dyn Monitor>>,
    how: String,
    page: usize,
    book: Mutex<State<H>>,
    domains: AtomicU64,
}

#[derive(Debug)]
struct State<H> {
    book: Book<H>,
    /// Up to where the monitor's changes have been applied.
    position: usize,
    /// For the changes themselves.
    changes: Vec<Span>,
}

impl<H: Send + Sync + 'static> Cache<H> {
    pub(crate) fn new(options: Options) -> Self {
        let limits = options.limits();
        let (monitor, how): (Option<Arc<dyn Monitor>>, String) = if limits.bytes == 0 {
            let why = match options.bytes {
                Some(_) => "off (WSD_REG_CACHE)",
                None => "off: no memory may be locked (ulimit -l)",
            };
            (None, why.to_owned())
        } else {
            match options.watching {
                Watching::Told => (
                    Some(Arc::new(Told)),
                    format!("{limits}, the caller tells of released memory (WSD_REG_WATCH)"),
                ),
                Watching::Kernel => match Kernel::get() {
                    Ok(kernel) => (
                        Some(kernel),
                        format!("{limits}, memory is watched by userfaultfd"),
                    ),
                    Err(reason) => (None, format!("off: {reason}")),
                },
            }
        };
        tracing::debug!(how, "registration cache");
        Self::with(limits, monitor, how)
    }

    fn with(limits: Limits, monitor: Option<Arc<dyn Monitor>>, how: String) -> Self {
        let shared = Arc::new(Shared {
            limits,
            how,
            page: sys::page_size(),
            book: Mutex::new(State {
                book: Book::new(limits),
                position: monitor.as_ref().map_or(0, |monitor| monitor.position()),
                changes: Vec::new(),
            }),
            monitor,
            domains: AtomicU64::new(0),
        });
        if let Some(monitor) = &shared.monitor {
            let weak = Arc::downgrade(&shared);
            monitor.attend(weak);
        }
        Self { shared }
    }

    /// A new domain: registrations of one are never handed out in another.
    pub(crate) fn domain(&self) -> Domain<H> {
        Domain {
            number: self.shared.domains.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether anything is kept beyond its release.
    pub(crate) fn keeps(&self) -> bool {
        self.shared.monitor.is_some()
    }

    /// For people: what is kept and how its memory is watched, or why nothing is.
    pub(crate) fn describe(&self) -> &str {
        &self.shared.how
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.sweep();
        self.shared.book.lock().book.stats()
    }

    /// Memory is given back to the system, or is about to be: what is registered of it, also in
    /// part, is not handed out again.
    pub(crate) fn memory_released(&self, region: Region) -> Released {
        let Some(pages) = Span::of(region).map(|span| span.to_pages(self.shared.page)) else {
            return Released::NotKept;
        };
        if !self.keeps() {
            return Released::NotKept;
        }
        let found = self
            .shared
            .up_to_date(|book, leavings| book.invalidate(pages, leavings));
        match (found.idle, found.used) {
            (_, 1..) => Released::InUse,
            (1.., _) => Released::Ended,
            _ => Released::NotKept,
        }
    }
}

impl<H> Shared<H> {
    /// Works on the book after what has changed was applied, and ends what is to end.
    fn up_to_date<T>(&self, work: impl FnOnce(&mut Book<H>, &mut Leavings<H>) -> T) -> T {
        let mut leavings = Leavings::default();
        let result = {
            let mut state = self.book.lock();
            state.apply(self.monitor.as_deref(), &mut leavings);
            work(&mut state.book, &mut leavings)
        };
        self.end(leavings);
        result
    }

    /// With no lock held.
    fn end(&self, leavings: Leavings<H>) {
        drop(leavings.handles);
        if let Some(monitor) = &self.monitor {
            for pages in leavings.unwatch {
                monitor.unwatch(pages);
            }
        }
    }
}

impl<H> State<H> {
    fn apply(&mut self, monitor: Option<&dyn Monitor>, leavings: &mut Leavings<H>) {
        let Some(monitor) = monitor else {
            return;
        };
        self.changes.clear();
        if monitor.changes(&mut self.position, &mut self.changes) {
            for &pages in &self.changes {
                self.book.invalidate(pages, leavings);
            }
        } else {
            self.book.invalidate_all(leavings);
        }
    }
}

impl<H: Send + Sync> Sweep for Shared<H> {
    fn sweep(&self) {
        self.up_to_date(|_, _| ());
    }
}

/// Where registrations belong: the protection domain of one connection. Dropping it ends what is
/// unused; what is still leased ends with its lease.
#[derive(Debug)]
pub(crate) struct Domain<H: Send + Sync + 'static> {
    shared: Arc<Shared<H>>,
    number: u64,
}

impl<H: Send + Sync + 'static> Domain<H> {
    /// A registration that covers the region with exactly these rights: a kept one, or what
    /// `register` makes of the region. `register` is called again if there was no room.
    ///
    /// Call it, and drop the lease, with no lock held that ending a registration of this or another
    /// domain takes.
    pub(crate) fn acquire(
        &self,
        region: Region,
        access: Access,
        mut register: impl FnMut() -> io::Result<H>,
    ) -> io::Result<Lease<H>> {
        let shared = &self.shared;
        let span = Span::of(region).ok_or(io::ErrorKind::InvalidInput)?;
        let pages = span.to_pages(shared.page);
        let monitor = shared
            .monitor
            .as_deref()
            .filter(|_| pages.len() <= shared.limits.bytes);
        let Some(monitor) = monitor else {
            // Nothing that could be kept.
            shared.book.lock().book.missed();
            return Ok(Lease {
                handle: Arc::new(self.make(&mut register)?),
                offset: 0,
                home: None,
            });
        };
        // Before the book is locked: what was over before this call is applied below.
        let may_find = monitor.is_settled();
        let found = shared.up_to_date(|book, leavings| {
            let found = may_find
                .then(|| book.find(self.number, span, access))
                .flatten();
            found.ok_or_else(|| {
                book.missed();
                book.begin(self.number, span, pages, access, leavings)
            })
        });
        let id = match found {
            Ok((id, whole, handle)) => {
                return Ok(Lease {
                    handle,
                    offset: span.start - whole.start,
                    home: Some((Arc::clone(shared), id)),
                });
            }
            Err(id) => id,
        };
        let mut unmade = Unmade {
            shared,
            id: Some(id),
            watched: None,
        };
        // First watched, then pinned: whatever goes away after it was pinned is told.
        unmade.watched = monitor.watch(pages).then_some(pages);
        let handle = Arc::new(self.make(&mut register)?);
        let is_watched = unmade.watched.take().is_some();
        unmade.id = None;
        drop(unmade);
        shared.up_to_date(|book, leavings| book.made(id, &handle, is_watched, leavings));
        Ok(Lease {
            handle,
            offset: 0,
            home: Some((Arc::clone(shared), id)),
        })
    }

    /// A registration that is not kept: it ends with its owner. What is kept gives way to it.
    ///
    /// Call it with no lock held that ending a registration of this or another domain takes.
    pub(crate) fn make_own(&self, register: impl FnMut() -> io::Result<H>) -> io::Result<H> {
        self.make(register)
    }

    /// Registers; if there is no room, once more without what nobody uses.
    fn make(&self, mut register: impl FnMut() -> io::Result<H>) -> io::Result<H> {
        match register() {
            Err(error) if is_exhaustion(&error) => {
                let any = self
                    .shared
                    .up_to_date(|book, leavings| book.evict_all(leavings));
                if any { register() } else { Err(error) }
            }
            made => made,
        }
    }
}

impl<H: Send + Sync + 'static> Drop for Domain<H> {
    fn drop(&mut self) {
        self.shared
            .up_to_date(|book, leavings| book.end_domain(self.number, leavings));
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
}

/// Takes an entry out of the book again unless it was made.
struct Unmade<'a, H> {
    shared: &'a Shared<H>,
    id: Option<u64>,
    watched: Option<Span>,
}

impl<H> Drop for Unmade<'_, H> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.book.lock().book.failed(id);
        }
        if let (Some(monitor), Some(pages)) = (&self.shared.monitor, self.watched) {
            monitor.unwatch(pages);
        }
    }
}

/// A use of a registration. Dropping it is the release.
pub(crate) struct Lease<H: Send + Sync + 'static> {
    handle: Arc<H>,
    offset: usize,
    /// None: the lease is all there is.
    home: Option<(Arc<Shared<H>>, u64)>,
}

impl<H: Send + Sync + 'static> Lease<H> {
    /// Where in the registration that which was asked for begins.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }
}

impl<H: Send + Sync + 'static> Deref for Lease<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.handle
    }
}

impl<H: Send + Sync + fmt::Debug> fmt::Debug for Lease<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("handle", &self.handle)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<H: Send + Sync + 'static> Drop for Lease<H> {
    fn drop(&mut self) {
        // The handle itself is dropped after this; if it is the last one, that ends it.
        if let Some((shared, id)) = &self.home {
            shared.up_to_date(|book, leavings| book.release(*id, leavings));
        }
    }
}
