//! The book of the cache: which registrations there are, who uses them, which goes next.
//!
//! Owns the entries and decides; locks nothing, registers nothing and ends nothing. What is to end
//! is put into a [`Leavings`], for the caller to drop when no lock is held.
//!
//! Invariants: `usable` holds exactly the entries that may be handed out again; `idle` exactly those
//! of them that nobody uses; an entry that nobody uses and that may not be handed out again does
//! not exist. `bytes` is the sum of all entries' pages.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::map::{Intervals, Span};
use super::options::Limits;
use crate::fabric::Access;

/// What has happened, and how things stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Unused registrations given up for room, in the cache or on the device.
    pub(crate) evictions: u64,
    /// Registrations given up because their memory went away.
    pub(crate) invalidations: u64,
    /// Whole pages, of used and unused registrations of the cache.
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
    /// Of `entries`: those that nobody uses.
    pub(crate) idle: usize,
}

/// What has to be ended, outside of every lock.
#[derive(Debug)]
pub(super) struct Leavings<H> {
    pub(super) handles: Vec<Arc<H>>,
    pub(super) unwatch: Vec<Span>,
}

impl<H> Default for Leavings<H> {
    fn default() -> Self {
        Self {
            handles: Vec::new(),
            unwatch: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Entry<H> {
    domain: u64,
    access: Access,
    span: Span,
    pages: Span,
    /// None while it is being registered.
    handle: Option<Arc<H>>,
    uses: usize,
    /// Its place in `idle`, while it is there.
    idle_since: u64,
    /// Its memory has gone, or its domain, or it is not wanted any more.
    is_stale: bool,
    is_watched: bool,
}

/// Whether something was in the book for memory that is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    pub(super) idle: usize,
    pub(super) used: usize,
}

#[derive(Debug)]
pub(super) struct Book<H> {
    limits: Limits,
    entries: HashMap<u64, Entry<H>>,
    /// All entries, by their pages.
    all: Intervals,
    usable: HashMap<(u64, Access), Intervals>,
    idle: BTreeMap<u64, u64>,
    bytes: usize,
    /// For numbers of entries and of moments.
    next: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
    invalidations: u64,
}

impl<H> Book<H> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            all: Intervals::default(),
            usable: HashMap::new(),
            idle: BTreeMap::new(),
            bytes: 0,
            next: 0,
            hits: 0,
            misses: 0,
            evictions: 0,
            invalidations: 0,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            hits: self.hits,
            misses: self.misses,
            evictions: self.evictions,
            invalidations: self.invalidations,
            bytes: self.bytes,
            entries: self.entries.len(),
            idle: self.idle.len(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A use of a registration of the domain that covers the span with exactly these rights. One
    /// for reading and writing does not serve somebody who asked for reading.
    pub(super) fn find(
        &mut self,
        domain: u64,
        span: Span,
        access: Access,
    ) -> Option<(u64, Span, Arc<H>)> {
        let id = self.usable.get(&(domain, access))?.covering(span).next()?;
        let entry = self.entries.get_mut(&id)?;
        let handle = Arc::clone(entry.handle.as_ref()?);
        if entry.uses == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.uses += 1;
        self.hits += 1;
        Some((id, entry.span, handle))
    }

    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// Enters a registration that is about to be made, in use once. From now on it becomes stale
    /// when its memory goes.
    /// Room for it is made at once, not when it is already pinned.
    pub(super) fn begin(
        &mut self,
        domain: u64,
        span: Span,
        pages: Span,
        access: Access,
        leavings: &mut Leavings<H>,
    ) -> u64 {
        let id = self.number();
        let entry = Entry {
            domain,
            access,
            span,
            pages,
            handle: None,
            uses: 1,
            idle_since: 0,
            is_stale: false,
            is_watched: false,
        };
        self.entries.insert(id, entry);
        self.all.insert(pages, id);
        self.bytes += pages.len();
        self.keep_limits(leavings);
        id
    }

    /// It has been made. What is not watched is not handed out again, nor is what became stale
    /// meanwhile, nor what another thread has made just now as well.
    pub(super) fn made(
        &mut self,
        id: u64,
        handle: &Arc<H>,
        is_watched: bool,
        leavings: &mut Leavings<H>,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.handle = Some(Arc::clone(handle));
        entry.is_watched = is_watched;
        let usable = self.usable.entry((entry.domain, entry.access)).or_default();
        let is_double = usable.covering(entry.span).next().is_some();
        if !entry.is_stale && is_watched && !is_double {
            usable.insert(entry.span, id);
        } else {
            if usable.is_empty() {
                self.usable.remove(&(entry.domain, entry.access));
            }
            entry.is_stale = true;
            if std::mem::take(&mut entry.is_watched) {
                leavings.unwatch.push(entry.pages);
            }
        }
        self.keep_limits(leavings);
    }

    /// It could not be made.
    pub(super) fn failed(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            self.all.remove(entry.pages, id);
            self.bytes -= entry.pages.len();
        }
    }

    /// One use is over.
    pub(super) fn release(&mut self, id: u64, leavings: &mut Leavings<H>) {
        let now = self.number();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses > 0 {
            return;
        }
        if entry.is_stale {
            self.remove(id, leavings);
        } else {
            entry.idle_since = now;
            self.idle.insert(now, id);
            self.keep_limits(leavings);
        }
    }

    /// Takes out an entry that nobody uses.
    fn remove(&mut self, id: u64, leavings: &mut Leavings<H>) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.idle.remove(&entry.idle_since);
        self.all.remove(entry.pages, id);
        self.bytes -= entry.pages.len();
        if !entry.is_stale {
            self.withdraw(entry.domain, entry.access, entry.span, id);
        }
        if entry.is_watched {
            leavings.unwatch.push(entry.pages);
        }
        leavings.handles.extend(entry.handle);
    }

    fn withdraw(&mut self, domain: u64, access: Access, span: Span, id: u64) {
        let key = (domain, access);
        if let Some(usable) = self.usable.get_mut(&key) {
            usable.remove(span, id);
            if usable.is_empty() {
                self.usable.remove(&key);
            }
        }
    }

    /// Never hands an entry out again; it ends now, or with its last use.
    fn retire(&mut self, id: u64, leavings: &mut Leavings<H>) -> Found {
        let mut found = Found::default();
        let Some(entry) = self.entries.get_mut(&id) else {
            return found;
        };
        if entry.uses == 0 {
            found.idle = 1;
            self.remove(id, leavings);
        } else if !entry.is_stale {
            found.used = 1;
            entry.is_stale = true;
            if std::mem::take(&mut entry.is_watched) {
                leavings.unwatch.push(entry.pages);
            }
            let (domain, access, span) = (entry.domain, entry.access, entry.span);
            self.withdraw(domain, access, span, id);
        }
        found
    }

    /// The memory of these pages has gone, or goes.
    pub(super) fn invalidate(&mut self, pages: Span, leavings: &mut Leavings<H>) -> Found {
        let touched: Vec<_> = self.all.overlapping(pages).collect();
        self.invalidate_these(touched, leavings)
    }

    pub(super) fn invalidate_all(&mut self, leavings: &mut Leavings<H>) {
        let all = self.entries.keys().copied().collect();
        self.invalidate_these(all, leavings);
    }

    fn invalidate_these(&mut self, ids: Vec<u64>, leavings: &mut Leavings<H>) -> Found {
        let mut total = Found::default();
        for id in ids {
            let found = self.retire(id, leavings);
            total.idle += found.idle;
            total.used += found.used;
        }
        self.invalidations += (total.idle + total.used) as u64;
        total
    }

    /// Nothing is registered in this domain any more.
    pub(super) fn end_domain(&mut self, domain: u64, leavings: &mut Leavings<H>) {
        let ids: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.domain == domain)
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            self.retire(id, leavings);
        }
    }

    fn keep_limits(&mut self, leavings: &mut Leavings<H>) {
        while self.bytes > self.limits.bytes || self.entries.len() > self.limits.entries {
            if !self.evict_one(leavings) {
                break;
            }
        }
    }

    /// Gives up everything that nobody uses. `false` if there was nothing.
    pub(super) fn evict_all(&mut self, leavings: &mut Leavings<H>) -> bool {
        let mut any = false;
        while self.evict_one(leavings) {
            any = true;
        }
        any
    }

    fn evict_one(&mut self, leavings: &mut Leavings<H>) -> bool {
        let Some((_, id)) = self.idle.pop_first() else {
            return false;
        };
        self.evictions += 1;
        self.remove(id, leavings);
        true
    }
}
