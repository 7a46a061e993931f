//! One connection: what was posted on it, and how its results get out.
//!
//! Owns the operations in progress, the registrations and the results that wait to be reported.
//! Does not know how the connection came about. Invariants:
//!
//! * An operation that was started is reported exactly once, by storing its result (the switch
//!   polls) or by an upcall (it does not), never both.
//! * Upcalls of one connection are made one after the other, per kind in the order in which the
//!   operations were started, with no lock held, and never from within a call that starts an
//!   operation.
//!
//! Locks, in the order in which they may be taken: `polling`, then `outgoing` or `incoming` (never
//! both), then the tables of `memory`, then `reports`. The lock of `waiting` is taken with none of
//! them held; the endpoint may be armed under it.

mod notice;
mod results;
mod start;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::MemoryError;
use super::handles::Handle;
use super::memory::{Memory, RegistrationId};
use super::operation::{Kind, Queue};
use super::outlet::{Outlet, Report, System};
use super::progress::Progress;
use super::wait::{Spin, Waiting};
use crate::fabric::{Caps, Completion, Endpoint, QuickMutex};

/// Memory of the switch, not yet looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) address: usize,
    pub(crate) len: usize,
}

/// The largest RDMA of one call. Above the fabric's own limit a call is made of several posts.
pub(crate) const MAX_RDMA: usize = 1 << 30;
/// How long a waiting caller naps where it cannot be woken by the endpoint.
const NAP: Duration = Duration::from_millis(1);

/// How long an ended endpoint may take to give its operations back; then they end without it.
const FLUSH_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// How waiting for an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// The result is there.
    Done,
    /// No such operation is in progress, and no result has shown up.
    Unknown,
}

/// What a link needs from around it.
pub(crate) struct Surroundings {
    pub(crate) socket: Handle,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) system: Arc<dyn System>,
    pub(crate) caps: Caps,
    pub(crate) queue_depth: usize,
    pub(crate) spin: Duration,
}

#[derive(Default)]
struct Reports {
    waiting: VecDeque<Report>,
    /// The thread that makes the upcalls now.
    owner: Option<ThreadId>,
    /// The structures whose upcalls have not returned.
    running: Vec<usize>,
}

pub(crate) struct Link {
    endpoint: Arc<dyn Endpoint>,
    goes_on_alone: bool,
    around: Surroundings,
    pub(crate) memory: Memory,
    outgoing: QuickMutex<Direction>,
    incoming: QuickMutex<Direction>,
    /// Held by the one thread that polls the endpoint; keeps results in order.
    polling: QuickMutex<Vec<Completion>>,
    reports: Mutex<Reports>,
    /// Length of `reports.waiting`, to be looked at without the lock.
    unreported: AtomicUsize,
    /// Operations in progress whose owner wants an upcall.
    notified: AtomicUsize,
    /// The progress thread looks at the connection in a while.
    later: AtomicBool,
    /// Posts in the two backlogs, to be looked at without the locks.
    backlogged: AtomicUsize,
    /// Batches of results that polling has brought.
    batches: AtomicU64,
    waiting: Waiting,
    spin: Spin,
}

#[derive(Default)]
struct Direction {
    queue: Queue,
    near: Option<super::memory::Near>,
}

impl Link {
    pub(crate) fn new(endpoint: Arc<dyn Endpoint>, around: Surroundings) -> Self {
        Self {
            goes_on_alone: endpoint.goes_on_alone(),
            endpoint,
            spin: Spin::new(around.spin),
            around,
            memory: Memory::new(),
            outgoing: QuickMutex::default(),
            incoming: QuickMutex::default(),
            polling: QuickMutex::default(),
            reports: Mutex::default(),
            unreported: AtomicUsize::new(0),
            notified: AtomicUsize::new(0),
            later: AtomicBool::new(false),
            backlogged: AtomicUsize::new(0),
            batches: AtomicU64::new(0),
            waiting: Waiting::default(),
        }
    }

    pub(crate) fn endpoint(&self) -> &dyn Endpoint {
        &*self.endpoint
    }

    fn direction(&self, kind: Kind) -> &QuickMutex<Direction> {
        match kind {
            Kind::Receive => &self.incoming,
            Kind::Send | Kind::Write | Kind::Read => &self.outgoing,
        }
    }

    // ---- the end ----

    /// Takes one use of a registration back.
    pub(crate) fn deregister(&self, id: RegistrationId) -> Result<(), MemoryError> {
        self.memory.deregister(self.endpoint(), id, |key| {
            self.backlogged.load(Ordering::Acquire) > 0
                && (self.outgoing.lock().queue.defers(key)
                    || self.incoming.lock().queue.defers(key))
        })
    }

    /// Ends the connection: every operation in progress gets its result, and all registrations go
    /// before the first upcall tells of it.
    pub(crate) fn shut(&self) {
        self.endpoint.disconnect();
        let begun = Instant::now();
        let mut rounds = 0_u32;
        loop {
            // Another thread that polls is at it for a moment only.
            let mut scratch = self.polling.lock();
            self.poll_with(&mut scratch);
            drop(scratch);
            if self.is_idle() {
                break;
            }
            // A post of another thread is under way, or an access of the peer.
            rounds += 1;
            if rounds < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP);
            }
            if begun.elapsed() > FLUSH_PATIENCE {
                tracing::error!("the fabric keeps operations of a closed socket");
                self.abandon();
                break;
            }
        }
        // req: WSD-11, memory first, then the upcalls.
        self.memory.release_all(self.endpoint());
        self.waiting.announce();
        self.deliver(false, usize::MAX);
    }

    /// Ends everything in progress without the fabric. Should it speak up later, it is not heard:
    /// operations are named once.
    fn abandon(&self) {
        const KINDS: [Kind; 4] = [Kind::Send, Kind::Write, Kind::Read, Kind::Receive];
        for kind in KINDS {
            let mut direction = self.direction(kind).lock();
            let waiting = direction.queue.abandon(kind);
            self.backlogged.fetch_sub(waiting, Ordering::AcqRel);
            self.release_ended(&mut direction.queue, kind);
        }
    }

    fn is_idle(&self) -> bool {
        self.outgoing.lock().queue.len() == 0 && self.incoming.lock().queue.len() == 0
    }
}
