//! The progress thread: what happens without a caller.
//!
//! Owns one thread, which sleeps until the fabric has an event or a socket is enlisted, and gives
//! both to the sockets. Does not decide anything. Idle, it sleeps. It is started with the first
//! socket that needs it and joined when the provider stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::handles::Handle;
use super::outlet::{System, Wake};
use crate::fabric::{Event, Fabric};

/// How long a socket that asks to be looked at later waits for it.
const LATER: Duration = Duration::from_millis(2);

/// What the thread does for the sockets.
pub(crate) trait Work: Send + 'static {
    fn event(&self, event: Event);
    fn enlisted(&self, socket: Handle);
    /// The time of a socket that was to be looked at later has come.
    fn later(&self, socket: Handle);
}

pub(crate) struct Progress {
    fabric: Arc<dyn Fabric>,
    system: Arc<dyn System>,
    /// None until the thread is started.
    running: Mutex<Option<JoinHandle<()>>>,
    wake: Wake,
    /// Sockets that have something for the thread to do.
    enlisted: Mutex<Vec<Handle>>,
    /// Sockets that may have something for the thread to do in a while.
    later: Mutex<Vec<Handle>>,
    stopping: AtomicBool,
}

impl Progress {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, system: Arc<dyn System>) -> std::io::Result<Self> {
        Ok(Self {
            wake: Wake::new(&system)?,
            fabric,
            system,
            running: Mutex::new(None),
            enlisted: Mutex::new(Vec::new()),
            later: Mutex::new(Vec::new()),
            stopping: AtomicBool::new(false),
        })
    }

    /// Starts the thread if it does not run yet.
    pub(crate) fn start(self: &Arc<Self>, work: impl Work) -> std::io::Result<()> {
        let mut running = self.running.lock();
        if running.is_none() && !self.stopping.load(Ordering::Relaxed) {
            let progress = Arc::clone(self);
            *running = Some(
                std::thread::Builder::new()
                    .name("wsd-progress".to_owned())
                    .spawn(move || progress.run(&work))?,
            );
        }
        drop(running);
        Ok(())
    }

    /// Has the thread look at a socket.
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

    /// Has the thread look at a socket in a while. Costs a wake-up of the thread per while, not
    /// per call.
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
        let mut events = Vec::new();
        let mut sockets = Vec::new();
        // When to look at those that were to be looked at later.
        let mut due: Option<Instant> = None;
        while !self.stopping.load(Ordering::Acquire) {
            self.fabric.poll(&mut events);
            std::mem::swap(&mut sockets, &mut *self.enlisted.lock());
            if due.is_none() && !self.later.lock().is_empty() {
                due = Some(Instant::now() + LATER);
            }
            if events.is_empty() && sockets.is_empty() {
                let waking = [self.fabric.readiness(), self.wake.descriptor()];
                let longest = due.map(|due| due.saturating_duration_since(Instant::now()));
                self.system.sleep(&waking, longest);
                self.wake.drain();
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                due = None;
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
        }
    }

    /// Ends the thread and waits for it; called from the thread itself, it ends when the caller
    /// returns to it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.signal();
        let thread = self.running.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the progress thread has panicked");
        }
    }
}

/// Keeps the thread alive: one socket's trouble is not to stop the others.
fn guarded(work: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        tracing::error!("a panic in the progress thread");
    }
}
