//! The cache as a fabric uses it: over a device that counts, once with a monitor that says what the
//! test tells it to, once with the kernel's.

mod kernel;
mod oracle;
mod rules;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::map::Span;
use super::watch::{Monitor, Sweep};
use super::{Access, Cache, Lease, Limits, Region};

pub(super) const PAGE: usize = 4096;

/// A device on which registrations are counted, and which may have no room.
#[derive(Debug, Default)]
pub(super) struct Device {
    live: AtomicUsize,
    made: AtomicUsize,
    /// Registrations that there is room for; 0 is no limit.
    room: AtomicUsize,
}

/// One registration of the device.
#[derive(Debug)]
pub(super) struct Registered {
    device: Arc<Device>,
    pub(super) serial: usize,
    pub(super) region: Region,
    pub(super) access: Access,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.device.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Device {
    pub(super) fn register(
        self: &Arc<Self>,
        region: Region,
        access: Access,
    ) -> io::Result<Registered> {
        let room = self.room.load(Ordering::SeqCst);
        if room > 0 && self.live() >= room {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.live.fetch_add(1, Ordering::SeqCst);
        Ok(Registered {
            device: Arc::clone(self),
            serial: self.made.fetch_add(1, Ordering::SeqCst),
            region,
            access,
        })
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

/// A monitor that tells what it is told.
#[derive(Debug, Default)]
struct Fake {
    changes: Mutex<Vec<Span>>,
    watched: Mutex<Vec<Span>>,
    /// Starts of pages that cannot be watched.
    unwatchable: Mutex<Vec<usize>>,
    unsettled: AtomicBool,
    overrun: AtomicBool,
}

impl Fake {
    fn changed(&self, start: usize, end: usize) {
        self.changes.lock().extend(Span::new(start, end));
    }
}

impl Monitor for Fake {
    fn watch(&self, pages: Span) -> bool {
        assert!(pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE));
        let can = !self
            .unwatchable
            .lock()
            .iter()
            .any(|&page| page >= pages.start && page < pages.end);
        if can {
            self.watched.lock().push(pages);
        }
        can
    }

    fn unwatch(&self, pages: Span) {
        let mut watched = self.watched.lock();
        let at = watched.iter().position(|&known| known == pages);
        watched.swap_remove(at.expect("watched before"));
    }

    fn is_settled(&self) -> bool {
        !self.unsettled.load(Ordering::SeqCst)
    }

    fn position(&self) -> usize {
        self.changes.lock().len()
    }

    fn changes(&self, position: &mut usize, into: &mut Vec<Span>) -> bool {
        let changes = self.changes.lock();
        into.extend(&changes[*position..]);
        *position = changes.len();
        !self.overrun.swap(false, Ordering::SeqCst)
    }

    fn attend(&self, _: Weak<dyn Sweep>) {}
}

/// A cache over a device of its own.
struct Rig {
    device: Arc<Device>,
    monitor: Arc<Fake>,
    cache: Cache<Registered>,
}

const ROOMY: Limits = Limits {
    bytes: 1 << 30,
    entries: 1000,
};
const READ: Access = Access::READ;
const WRITE: Access = Access::WRITE;

impl Rig {
    fn new(limits: Limits) -> Self {
        let monitor = Arc::new(Fake::default());
        Self {
            device: Arc::default(),
            cache: Cache::with(limits, Some(Arc::<Fake>::clone(&monitor)), String::new()),
            monitor,
        }
    }

    fn take(
        &self,
        domain: &super::Domain<Registered>,
        (base, len): (usize, usize),
        access: Access,
    ) -> Lease<Registered> {
        take(&self.device, domain, Region { base, len }, access).unwrap()
    }
}

/// Acquires, and checks what everybody may rely on.
fn take(
    device: &Arc<Device>,
    domain: &super::Domain<Registered>,
    region: Region,
    access: Access,
) -> io::Result<Lease<Registered>> {
    let lease = domain.acquire(region, access, || device.register(region, access))?;
    assert_eq!(lease.access, access, "neither narrower nor wider");
    assert_eq!(lease.region.base + lease.offset(), region.base);
    assert!(lease.offset() + region.len <= lease.region.len);
    Ok(lease)
}
