//! The thread that looks after connections while no application thread is in a call: data that
//! waits for credit, copies that the peer has not fetched, closing, keep-alive, and the
//! negotiation of accepted connections. It also makes the progress of providers that let it.
//!
//! Owns a reference to each such connection for as long as there is something to look after. One
//! thread for the process, started with the first of them. Invariant: it waits for nothing that
//! only a provider's progress brings about. It never spins: it sleeps on the
//! connections' descriptors. While application threads are busy with a connection it stays out of
//! their way and looks again a little later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wsd_proto::ResetReason;

use super::companion::Zeal;
use super::drive::{State, Watch};
use super::negotiate::Done;
use super::progress::Progress;
use super::wait::Armed;
use super::{Connection, failure};
use crate::error::WsaError;
use crate::sys::{self, Event, PollFd};
use crate::table::Rounds;

/// Between two looks at a connection that application threads drive, at first; as long as they go on
/// doing so, the pause doubles up to the second.
const BUSY: Duration = Duration::from_millis(1);
const BUSIEST: Duration = Duration::from_millis(8);
/// Before the first look: most work is done by the thread's next call.
const FIRST: Duration = Duration::from_micros(200);
/// Between two looks at a connection some thread sleeps for: it looks after everything but time.
const WATCHED: Duration = Duration::from_millis(50);
/// Between two looks at a connection that is driven by calls, for who wants to know of it.
const OBSERVED: Duration = Duration::from_millis(20);
/// Messages taken from one connection before it is the next one's turn.
const TURN: usize = 64;
/// How long data of a closed stream waits for a peer that does not read.
const LINGER: Duration = Duration::from_secs(120);

struct Service {
    arrivals: Mutex<Vec<Work>>,
    /// Providers whose progress was taken over and has not begun.
    taken: Mutex<Vec<Rounds>>,
    kick: Event,
}

/// Closed streams with data that is not yet with the peer.
static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// The process that started the thread. A child of it has none.
static STARTED: Mutex<Option<u32>> = Mutex::new(None);

fn service() -> io::Result<&'static Service> {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    let service = match SERVICE.get() {
        Some(service) => service,
        None => {
            let made = Service {
                arrivals: Mutex::default(),
                taken: Mutex::default(),
                kick: Event::new()?,
            };
            SERVICE.get_or_init(|| made)
        }
    };
    let mut started = STARTED.lock();
    if started.is_none() {
        sys::at_exit(at_exit);
        thread::Builder::new()
            .name("wsd-service".to_owned())
            .spawn(|| {
                sys::block_signals();
                run(service);
            })?;
        *started = Some(std::process::id());
    }
    Ok(service)
}

/// What the thread does besides, for somebody else.
pub(crate) trait Chores: Send + Sync {
    /// Readable when a step is due. Constant.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Does what can be done now without waiting; says when to come again, whatever happens.
    fn step(&self, now: Instant) -> Option<Instant>;
    /// The process is about to end.
    fn at_exit(&self);
}

static CHORES: OnceLock<&'static dyn Chores> = OnceLock::new();

/// Has the thread, which is started if need be, do these chores, too. The first ones stay.
pub(crate) fn employ(chores: &'static dyn Chores) -> io::Result<()> {
    CHORES.get_or_init(|| chores);
    service()?.kick.set();
    Ok(())
}

/// Has the thread, which is started if need be, make the progress of a provider. `take` is called
/// when the thread is there.
pub(crate) fn make_progress(take: impl FnOnce() -> Result<Rounds, WsaError>) -> io::Result<()> {
    let service = service()?;
    if *STARTED.lock() != Some(std::process::id()) {
        return Err(io::Error::other("the service thread is the parent's"));
    }
    let rounds = take()?;
    service.taken.lock().push(rounds);
    service.kick.set();
    Ok(())
}

/// Has a connection looked at soon that is being looked after.
pub(super) fn look_again(connection: &Connection) {
    connection.hurry.store(true, Ordering::Release);
    kick();
}

/// Has the chores done soon.
pub(crate) fn kick() {
    if let Ok(service) = service() {
        service.kick.set();
    }
}

struct Work {
    connection: Arc<Connection>,
    /// When to look, whatever the descriptor says.
    due: Option<Instant>,
    armed: bool,
    /// The pause before the next look, if it is still driven by others.
    pause: Duration,
    /// Where the stream was read up to at the last look, if large data waited there for a read.
    kept: Option<u64>,
    /// The connection's count of happenings after the last look.
    seen: u64,
    /// The same after the last word to the observer.
    told: u64,
    negotiation: Option<(Instant, Done)>,
    /// When to give up closing.
    end: Option<Instant>,
}

/// One of `LINGERING`.
pub(crate) struct Lingering(());

impl Lingering {
    pub(crate) fn new() -> Lingering {
        LINGERING.fetch_add(1, Ordering::Relaxed);
        Lingering(())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        LINGERING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Work {
    fn new(connection: Arc<Connection>, due: Instant) -> Work {
        Work {
            connection,
            due: Some(due),
            armed: false,
            pause: BUSY,
            kept: None,
            seen: 0,
            told: 0,
            negotiation: None,
            end: None,
        }
    }
}

fn submit(service: &Service, work: Work) {
    service.arrivals.lock().push(work);
    service.kick.set();
}

/// Hands a connection over until its session is established.
pub(super) fn negotiate(connection: Arc<Connection>, time: Duration, done: Done) {
    let service = match service() {
        Ok(service) => service,
        Err(error) => return done(Err(error)),
    };
    let now = Instant::now();
    connection.adopted.store(true, Ordering::Relaxed);
    let mut work = Work::new(connection, now);
    work.negotiation = Some((now + time, done));
    submit(service, work);
}

/// Waits until what closed streams have left behind is with their peers, but not longer than this.
/// Returns how many have not got rid of it.
fn flush(time: Duration) -> usize {
    let end = Instant::now() + time;
    loop {
        let lingering = LINGERING.load(Ordering::Relaxed);
        if lingering == 0 || Instant::now() >= end {
            return lingering;
        }
        thread::sleep(BUSY);
    }
}

/// How long the end of the process waits for closed streams.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// What closed streams have left behind is another process's to deliver.
pub(crate) fn forget_lingering() {
    LINGERING.store(0, Ordering::Relaxed);
}

/// Waits, as the end of the process does, for what closed streams have left behind.
pub(crate) fn flush_at_end() {
    flush(EXIT_TIME);
}

extern "C" fn at_exit() {
    if let Some(chores) = CHORES.get() {
        chores.at_exit();
    }
    let streams = flush(EXIT_TIME);
    if streams == 0 {
        return;
    }
    // By a thread of its own: the exiting one has lost its thread-local values, and a subscriber
    // may panic without them.
    let warning = thread::Builder::new().spawn(move || {
        sys::block_signals();
        tracing::warn!(
            streams,
            "the process ends before closed streams have delivered what was written"
        );
    });
    if let Ok(warning) = warning {
        drop(warning.join());
    }
}

impl Connection {
    /// Has the service thread look after this connection while nobody is in a call.
    pub(super) fn ask_for_service(&self) {
        let Some(me) = self.me.upgrade() else { return };
        if self.adopted.swap(true, Ordering::AcqRel) {
            return;
        }
        match service() {
            Ok(service) => submit(service, Work::new(me, Instant::now() + FIRST)),
            Err(error) => {
                // Then what waits is done by the application's next call.
                tracing::warn!(%error, "no service thread");
                self.adopted.store(false, Ordering::Release);
            }
        }
    }
}

fn run(service: &'static Service) {
    let mut works: Vec<Work> = Vec::new();
    let mut ready: Vec<bool> = Vec::new();
    let mut progress = Progress::new();
    loop {
        service.kick.reset();
        progress.add(&mut service.taken.lock());
        progress.make_due();
        works.append(&mut service.arrivals.lock());
        ready.resize(works.len(), false);
        let now = Instant::now();
        let mut signalled = ready.drain(..);
        works.retain_mut(|work| {
            let signalled = signalled.next().unwrap_or(false);
            let due = work.due.is_some_and(|due| due <= now);
            let hurry = work.connection.hurry.load(Ordering::Relaxed)
                && work.connection.hurry.swap(false, Ordering::AcqRel);
            if !(signalled || due || hurry) {
                return true;
            }
            // The one before may have ended, and its close have taken its time.
            progress.between();
            work.step(now)
        });
        drop(signalled);
        progress.between();
        let chores = CHORES.get().copied();
        let chore = chores.and_then(|chores| chores.step(Instant::now()));
        progress.between();
        let dues = works.iter().filter_map(|work| work.due);
        let next = dues.chain(progress.due()).chain(chore).min();
        let watched = |work: &Work| work.armed;
        let descriptors = works
            .iter()
            .filter(|work| watched(work))
            .filter_map(|work| work.connection.sleeping_on().map(PollFd::readable));
        let kick = PollFd::readable(service.kick.as_fd());
        let chores = chores.map(|chores| PollFd::readable(chores.descriptor()));
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(3 + works.len());
        fds.push(kick);
        fds.extend(progress.descriptors().map(PollFd::readable));
        fds.extend(descriptors);
        fds.extend(chores);
        let waited = sys::wait(&mut fds, next);
        let failed = waited.is_err();
        if let Err(error) = waited {
            tracing::error!(%error, "the service thread cannot wait");
            thread::sleep(BUSY);
        }
        let mut found = fds.iter().skip(1).map(PollFd::is_ready);
        // Nobody else makes it.
        progress.found(|| found.next().unwrap_or(false) || failed);
        ready.extend(works.iter().map(|work| {
            watched(work)
                && work.connection.sleeping_on().is_some()
                && found.next().unwrap_or(false)
        }));
    }
}

impl Work {
    /// Looks after the connection; `false` if there is nothing left to do.
    fn step(&mut self, now: Instant) -> bool {
        let connection = Arc::clone(&self.connection);
        self.armed = false;
        let Some(mut state) = connection.state.try_lock() else {
            // Somebody drives it; who polls without a pause holds the lock most of the time.
            self.due = Some(now + self.pause);
            self.pause = (2 * self.pause).min(BUSIEST);
            return true;
        };
        state.watch = Watch::Off;
        let busy = state.happened != self.seen && !state.settings.closing;
        let mut turns = 0;
        while turns < TURN && state.poll(&connection.socket, None) {
            turns += 1;
        }
        state.tick(&connection.socket);
        if self.negotiation.is_some() {
            match self.negotiated(&mut state, now) {
                None => {}
                Some(result) => {
                    connection.adopted.store(false, Ordering::Release);
                    let result = result.map(|()| Arc::clone(&connection));
                    connection.leave(state);
                    if let Some((_, done)) = self.negotiation.take() {
                        done(result);
                    }
                    return false;
                }
            }
        }
        if state.settings.closing {
            self.close(&mut state, now);
        }
        let kept = state.session.consumed_offset();
        let kept = state.keeps_waiting().then_some(kept);
        if kept.is_some() && kept == self.kept {
            state.waits_no_longer(&connection.socket);
        }
        self.kept = kept;
        connection.settle(&mut state, None);
        state.tell_all();
        if self.negotiation.is_none() && !state.needs_service() {
            connection.adopted.store(false, Ordering::Release);
            let observing = state.observer.as_ref();
            let observer = observing.and_then(|observing| observing.observer.upgrade());
            drop(state);
            if let Some(observer) = observer {
                observer.news();
            }
            return false;
        }
        let zeal = state.observer.as_ref().map(|observing| observing.zeal);
        let timer = state.session.poll_timeout().map(|time| state.instant(time));
        let limit = self.negotiation.as_ref().map(|(end, _)| *end).or(self.end);
        let next = timer.into_iter().chain(limit).min();
        let soon = |time| next.map_or(now + time, |next| next.min(now + time));
        self.due = if !state.waiters.is_empty() {
            Some(soon(WATCHED))
        } else if turns == TURN {
            Some(soon(BUSY))
        } else if busy && zeal != Some(Zeal::High) {
            // Nobody but an observer in no hurry: calls look after everything.
            let idle = zeal.is_some() && !state.has_work();
            let pause = self.pause;
            self.pause = (2 * pause).min(BUSIEST);
            Some(soon(if idle { OBSERVED } else { pause }))
        } else {
            self.pause = BUSY;
            match connection.arm(&mut state) {
                Armed::Descriptor(_) => {
                    self.armed = true;
                    state.watch = Watch::On;
                    match state.keeps_waiting() {
                        true => Some(soon(BUSIEST)),
                        false => next,
                    }
                }
                Armed::News => Some(now),
                Armed::Closed => Some(soon(BUSY)),
            }
        };
        let happened = state.happened != self.told;
        self.seen = state.happened;
        self.told = state.happened;
        connection.settle(&mut state, None);
        state.tell_all();
        let observing = state.observer.as_ref().filter(|_| happened);
        let observer = observing.and_then(|observing| observing.observer.upgrade());
        drop(state);
        if let Some(observer) = observer {
            observer.news();
        }
        true
    }

    fn negotiated(&self, state: &mut State, now: Instant) -> Option<io::Result<()>> {
        if state.session.is_established() {
            return Some(Ok(()));
        }
        if let Some(reason) = state.session.failure() {
            return Some(Err(failure(reason)));
        }
        if state.closed {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let late = self
            .negotiation
            .as_ref()
            .is_some_and(|(end, _)| *end <= now);
        late.then(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn close(&mut self, state: &mut State, now: Instant) {
        let connection = &self.connection;
        let end = *self.end.get_or_insert(now + LINGER);
        if state.is_flushed() {
            state.lingering = None;
        }
        if end <= now && !state.session.is_disconnected() {
            let time = state.now();
            state.session.abort(time, ResetReason::Aborted);
            state.drain(&connection.socket, None);
        }
        if state.session.is_finished() {
            state.disconnect(&connection.socket);
            state.lingering = None;
        }
    }
}
