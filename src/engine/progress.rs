//! Progress: what happens without a caller.
//!
//! Owns what the fabric's events and the enlisted sockets wait in, and gives both to the sockets.
//! Does not decide anything. Somebody makes the rounds: a thread of its own, which sleeps until there
//! is something to do, is started with the first socket that needs it and joined when the provider
//! stops; or, if it was taken over before that, the host. Invariants: it is one of the two until the
//! provider stops; one round at a time; none is under way when `stop` has returned, unless the round
//! itself called it; every host is told that it is over, whoever has taken over since.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::ProgressError;
use super::handles::Handle;
use super::outlet::{System, Wake};
use crate::fabric::{Event, Fabric};

/// How long a socket that asks to be looked at later waits for it.
const LATER: Duration = Duration::from_millis(2);

/// What is done for the sockets.
pub(crate) trait Work: Send + 'static {
    fn event(&self, event: Event);
    fn enlisted(&self, socket: Handle);
    /// The time of a socket that was to be looked at later has come.
    fn later(&self, socket: Handle);
}

/// Who makes the rounds.
enum Maker {
    Nobody,
    Thread(JoinHandle<()>),
    /// The one that was given the descriptor of this number.
    Host(RawFd),
}

/// What one round leaves for the next one.
#[derive(Default)]
struct Round {
    events: Vec<Event>,
    sockets: Vec<Handle>,
    /// When to look at those that were to be looked at later.
    due: Option<Instant>,
}

impl Round {
    /// How long until the next round at the latest, if nothing happens.
    fn longest(&self) -> Option<Duration> {
        self.due
            .map(|due| due.saturating_duration_since(Instant::now()))
    }
}

/// A host that was not told yet that it is over.
struct Host {
    descriptor: RawFd,
    /// What `descriptor` is readable by at the end, also when the provider is no more.
    _wake: OwnedFd,
}

static HOSTS: Mutex<Vec<Host>> = Mutex::new(Vec::new());

/// The host with this descriptor knows that it is over, or has closed it without asking.
pub(crate) fn forget_host(descriptor: RawFd) {
    HOSTS.lock().retain(|host| host.descriptor != descriptor);
}

pub(crate) struct Progress {
    fabric: Arc<dyn Fabric>,
    system: Arc<dyn System>,
    maker: Mutex<Maker>,
    /// Locked during a round of the host's.
    round: Mutex<Round>,
    /// Who makes that round.
    rounding: Mutex<Option<ThreadId>>,
    wake: Wake,
    /// Sockets that have something for a round to do.
    enlisted: Mutex<Vec<Handle>>,
    /// Sockets that may have something for a round to do in a while.
    later: Mutex<Vec<Handle>>,
    stopping: AtomicBool,
}

impl Progress {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, system: Arc<dyn System>) -> std::io::Result<Self> {
        Ok(Self {
            wake: Wake::new(&system)?,
            fabric,
            system,
            maker: Mutex::new(Maker::Nobody),
            round: Mutex::default(),
            rounding: Mutex::new(None),
            enlisted: Mutex::new(Vec::new()),
            later: Mutex::new(Vec::new()),
            stopping: AtomicBool::new(false),
        })
    }

    /// Starts the thread if nobody makes progress yet.
    pub(crate) fn start(self: &Arc<Self>, work: impl Work) -> std::io::Result<()> {
        let mut maker = self.maker.lock();
        if matches!(*maker, Maker::Nobody) && !self.stopping.load(Ordering::Relaxed) {
            let progress = Arc::clone(self);
            *maker = Maker::Thread(
                std::thread::Builder::new()
                    .name("wsd-progress".to_owned())
                    .spawn(move || progress.run(&work))?,
            );
        }
        drop(maker);
        Ok(())
    }

    /// Has the host make progress. Returns what is readable while a round has something to do.
    pub(crate) fn take(&self) -> Result<OwnedFd, ProgressError> {
        let mut maker = self.maker.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ProgressError::NotStarted);
        }
        if !matches!(*maker, Maker::Nobody) {
            return Err(ProgressError::Taken);
        }
        let refused = |error| {
            tracing::debug!(%error, "no descriptor for progress");
            ProgressError::NoResources
        };
        let wake = self.wake.descriptor();
        let kept = wake.try_clone_to_owned().map_err(refused)?;
        let waking = [self.fabric.readiness(), wake];
        let descriptor = self.system.any_of(&waking).map_err(refused)?;
        let number = descriptor.as_raw_fd();
        forget_host(number);
        HOSTS.lock().push(Host {
            descriptor: number,
            _wake: kept,
        });
        *maker = Maker::Host(number);
        drop(maker);
        Ok(descriptor)
    }

    fn is_taken_by(&self, host: RawFd) -> bool {
        matches!(*self.maker.lock(), Maker::Host(descriptor) if descriptor == host)
    }

    /// One round of the host's. Returns when to make the next one at the latest.
    pub(crate) fn make(
        &self,
        host: RawFd,
        work: &impl Work,
    ) -> Result<Option<Duration>, ProgressError> {
        if !self.is_taken_by(host) {
            return Err(ProgressError::NotTaken);
        }
        let round = self.round.try_lock();
        // Again: `stop` ends it first, and then holds the lock for a moment.
        if !self.is_taken_by(host) {
            return Err(ProgressError::NotTaken);
        }
        let mut round = round.ok_or(ProgressError::Busy)?;
        *self.rounding.lock() = Some(std::thread::current().id());
        // Before the round looks: who enlists afterwards signals again.
        self.wake.drain();
        let found = self.go_round(&mut round, work);
        *self.rounding.lock() = None;
        Ok(if found {
            Some(Duration::ZERO)
        } else {
            round.longest()
        })
    }

    /// Has a round look at a socket.
    pub(crate) fn enlist(&self, socket: Handle) {
        let first = {
            let mut enlisted = self.enlisted.lock();
            enlisted.push(socket);
            enlisted.len() == 1
        };
        if first {
            self.wake.signal();
        }
    }

    /// Has a round look at a socket in a while. Costs a wake-up per while, not per call.
    pub(crate) fn enlist_later(&self, socket: Handle) {
        let first = {
            let mut later = self.later.lock();
            later.push(socket);
            later.len() == 1
        };
        if first {
            self.wake.signal();
        }
    }

    fn run(&self, work: &impl Work) {
        self.system.block_signals();
        let mut round = Round::default();
        while !self.stopping.load(Ordering::Acquire) {
            if !self.go_round(&mut round, work) {
                let waking = [self.fabric.readiness(), self.wake.descriptor()];
                self.system.sleep(&waking, round.longest());
                self.wake.drain();
            }
        }
    }

    /// Does what there is to do, without waiting. False: it found nothing, and until there is
    /// something again one may sleep.
    fn go_round(&self, round: &mut Round, work: &impl Work) -> bool {
        let Round {
            events,
            sockets,
            due,
        } = round;
        self.fabric.poll(events);
        std::mem::swap(sockets, &mut *self.enlisted.lock());
        if due.is_none() && !self.later.lock().is_empty() {
            *due = Some(Instant::now() + LATER);
        }
        let found = !events.is_empty() || !sockets.is_empty();
        if due.is_some_and(|due| due <= Instant::now()) {
            *due = None;
            let ready = std::mem::take(&mut *self.later.lock());
            for socket in ready {
                guarded(|| work.later(socket));
            }
        }
        for event in events.drain(..) {
            guarded(|| work.event(event));
        }
        for socket in sockets.drain(..) {
            guarded(|| work.enlisted(socket));
        }
        found
    }

    /// Ends the thread, or what the host does, and waits for it; called from a round itself, it ends
    /// when the caller returns to it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let maker = std::mem::replace(&mut *self.maker.lock(), Maker::Nobody);
        self.wake.signal();
        let me = std::thread::current().id();
        match maker {
            Maker::Nobody => {}
            Maker::Thread(thread) => {
                if thread.thread().id() != me && thread.join().is_err() {
                    tracing::error!("the progress thread has panicked");
                }
            }
            Maker::Host(_) => {
                let rounding = *self.rounding.lock();
                if rounding != Some(me) {
                    // A round under way ends first.
                    drop(self.round.lock());
                }
                // A round may have drained it.
                self.wake.signal();
            }
        }
    }
}

/// Keeps progress alive: one socket's trouble is not to stop the others.
fn guarded(work: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        tracing::error!("a panic while making progress");
    }
}
