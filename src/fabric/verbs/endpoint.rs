//! One connection, from the attempt to the end.
//!
//! Owns the state and the order of things; what is done with operations is in `moving`.
//!
//! The state only moves forward: connecting, open, then perhaps dying (the end has come, and the
//! queue pair is being flushed), then ended for one reason. Once it has left "open" nothing is
//! accepted. What the device has already delivered comes out before the end is told, because a
//! flushed queue gives up its entries in order.
//!
//! Locks, in the order in which they may be taken together: `attempt`; `collector`, then `sending`
//! or `receiving` (both only by `abandon`, in this order), then `memory`. `draining` and `died` are
//! leaves. None is held while the endpoint dies, while the fabric is told anything, or while memory is
//! registered or a registration given back.
//!
//! A message that was reported done when it was posted may be on its way when this end disconnects. The
//! queue pair then drains: nothing more is taken, and it is moved to the error state when the device has
//! reported that everything is there, or that it cannot be. Nobody has to stay for that, unless there
//! are operations in progress, whose memory has to be left alone: then it has `DRAIN_PATIENCE`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::completions::Seat;
use super::connect::{Attempt, Step};
use super::core::{Core, Object};
use super::device::Settings;
use super::early::{Buffer, Early};
use super::leaving::Undelivered;
use super::memory::{DESCRIPTOR_LEN, Descriptor, Memory, Registration};
use super::moving::Collector;
use super::queue::{Kind, Queue};
use super::sys::{CmEvent, CmKind, Conn, Cq, DeviceId, Mr, Port, Queues};
use super::wake::Waker;
use crate::fabric::regcache::Domain;
use crate::fabric::soft::sys::Epoll;
use crate::fabric::{
    Access, ArmFor, Completion, ConnectError, DeregisterError, Ending, Endpoint, Event, Key, Post,
    PostError, Posted, QuickMutex, Region, RegisterError, Token,
};

/// How long a device may take to flush before the queue pair is destroyed instead.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing may move before the peer's device is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(3);
/// How long what was sent may take to be delivered after the end, while operations in progress have
/// to wait for that: the device repeats it twice in that time (`ACK_TIMEOUT`). Whoever closes waits, and
/// where a whole host is lost there is much to close. Tests say themselves how long
/// (`Options::patience`): on a slow machine nothing may depend on it.
const DRAIN_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 20_000 } else { 600 });
/// How long `disconnect` stays for it by itself, so that a process may end afterwards. It takes one
/// round trip, unless the peer is slow to receive. Once: `Drop` disconnects again.
const GOODBYE: Duration = Duration::from_millis(50);
/// How often a dying endpoint is looked at.
const FLUSH_STEP: Duration = Duration::from_millis(2);

/// For tests: how often a queue pair was destroyed because the device did not flush it.
#[cfg(test)]
pub(super) static UNFLUSHED: std::sync::atomic::AtomicUsize =
    std::sync::atomic::AtomicUsize::new(0);

/// For tests: how often `disconnect` stayed.
#[cfg(test)]
pub(super) static GOODBYES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// The values of `VerbsEndpoint::state`.
mod state {
    pub(super) const CONNECTING: u8 = 0;
    pub(super) const OPEN: u8 = 1;
    /// The peer has gone; the queues are being flushed.
    pub(super) const DYING_PEER: u8 = 2;
    /// Something broke; the queues are being flushed.
    pub(super) const DYING_BROKEN: u8 = 3;
    pub(super) const LOCAL: u8 = 4;
    pub(super) const PEER: u8 = 5;
    pub(super) const BROKEN: u8 = 6;
}

/// What the queues turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) queues: Queues,
    pub(super) port: Option<Port>,
}

/// The receives of a connection: those of the device, and what is kept for the first one.
#[derive(Debug)]
pub(super) struct Receives {
    pub(super) queue: Queue,
    pub(super) early: Early,
}

#[derive(Debug)]
pub(super) struct VerbsEndpoint {
    core: Arc<Core>,
    token: Token,
    /// Its name in the table of objects, for the libraries and in the epoll set.
    number: u64,
    state: AtomicU8,
    /// Wakes at the end, when the outcome of the attempt is there, and for completions that somebody
    /// else has taken out of a shared queue.
    waker: Arc<Waker>,
    /// What `readiness` returns: the waker's descriptor, and the device's own if it is for this
    /// connection alone.
    readiness: Epoll,
    /// Whether the progress thread wants to be told.
    progress: AtomicBool,
    attempt: parking_lot::Mutex<Option<Attempt>>,
    pub(super) made: OnceLock<Made>,
    died: parking_lot::Mutex<Option<Instant>>,
    /// It was disconnected, and until then what was sent may be delivered.
    draining: parking_lot::Mutex<Option<Instant>>,
    /// Somebody has stayed for that.
    stayed: AtomicBool,
    since: Instant,
    /// It was accepted, and the peer is not known to be ready; then sends wait. Changed under the
    /// lock of `sending`.
    pub(super) unheard: AtomicBool,
    /// Grows with every batch of completions, of which each one is a sign of life.
    pub(super) moved: AtomicU32,
    moved_before: AtomicU32,
    pub(super) collector: QuickMutex<Collector>,
    pub(super) sending: QuickMutex<Queue>,
    pub(super) receiving: QuickMutex<Receives>,
    // Dropped in this order: what is registered, what is kept of it, and then the connection.
    pub(super) memory: QuickMutex<Memory>,
    domain: Domain<Mr>,
    conn: Arc<Conn>,
}

impl VerbsEndpoint {
    fn new(
        core: &Arc<Core>,
        token: Token,
        number: u64,
        conn: Conn,
        attempt: Option<Attempt>,
    ) -> io::Result<Arc<Self>> {
        let settings = &core.settings;
        let unconfirmed = attempt.is_none();
        let waker = Arc::new(Waker::new()?);
        let readiness = Epoll::new()?;
        readiness.add(waker.descriptor(), 0)?;
        let endpoint = Arc::new(Self {
            core: Arc::clone(core),
            token,
            number,
            state: AtomicU8::new(state::CONNECTING),
            waker,
            readiness,
            progress: AtomicBool::new(false),
            attempt: parking_lot::Mutex::new(attempt),
            made: OnceLock::new(),
            died: parking_lot::Mutex::new(None),
            draining: parking_lot::Mutex::new(None),
            stayed: AtomicBool::new(false),
            since: Instant::now(),
            unheard: AtomicBool::new(unconfirmed),
            moved: AtomicU32::new(0),
            moved_before: AtomicU32::new(0),
            collector: QuickMutex::default(),
            sending: QuickMutex::new(Queue::sends(settings.caps.send_depth, settings.reserved)),
            receiving: QuickMutex::new(Receives {
                queue: Queue::receives(settings.caps.receive_depth + 1),
                early: Early::default(),
            }),
            memory: QuickMutex::default(),
            domain: core.cache.domain(),
            conn: Arc::new(conn),
        });
        core.attach(number, endpoint.readiness.fd())?;
        if unconfirmed {
            endpoint.sending.lock().waiting = Some(Vec::new());
        }
        let object = Object::Endpoint {
            endpoint: Arc::downgrade(&endpoint),
            unconfirmed,
        };
        core.keep(number, object);
        Ok(endpoint)
    }

    /// An endpoint that begins to connect. Its outcome is an event, also if it is known at once.
    pub(super) fn connecting(
        core: &Arc<Core>,
        token: Token,
        attempt: Attempt,
    ) -> Result<Arc<Self>, ConnectError> {
        let number = core.number();
        let endpoint = Conn::new(&core.channel, number)
            .and_then(|conn| Self::new(core, token, number, conn, Some(attempt)))
            .map_err(|_| ConnectError::NoResources)?;
        endpoint.advance(Attempt::begin);
        Ok(endpoint)
    }

    /// The endpoint of a request, which `answer` accepts.
    pub(super) fn accepted(
        core: &Arc<Core>,
        token: Token,
        number: u64,
        conn: Conn,
        answer: impl FnOnce(&Self) -> io::Result<()>,
    ) -> Result<Arc<Self>, ConnectError> {
        let endpoint =
            Self::new(core, token, number, conn, None).map_err(|_| ConnectError::NoResources)?;
        if let Err(error) = answer(&endpoint) {
            tracing::debug!(%error, "a request could not be accepted");
            core.confirm(number);
            endpoint.state.store(state::BROKEN, Ordering::SeqCst);
            return Err(match error.raw_os_error() {
                Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                    ConnectError::NoResources
                }
                _ => ConnectError::NotServed,
            });
        }
        // The peer may have come and gone in between. It was connected, so this end is, too; what it
        // has said is there, and its end.
        let opened = endpoint.state.compare_exchange(
            state::CONNECTING,
            state::OPEN,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        match opened {
            Ok(_) => {
                core.schedule(number, Instant::now() + SILENCE);
                Ok(endpoint)
            }
            Err(_) if endpoint.cause() == Some(Ending::Peer) => Ok(endpoint),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    /// Its name in the events of the libraries.
    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.core.settings
    }

    /// Whether it goes by the device, and by that port if one is named.
    pub(super) fn is_on(&self, device: DeviceId, port: Option<u8>) -> bool {
        self.made
            .get()
            .and_then(|made| made.port)
            .is_some_and(|own| own.device == device && port.is_none_or(|port| port == own.number))
    }

    /// Makes the queue pair, and listens to its completions.
    pub(super) fn make_queues(&self) -> io::Result<()> {
        let settings = self.settings();
        let wanted = Queues {
            // One for what is posted when it drains.
            sends: settings.caps.send_depth + 1,
            receives: settings.caps.receive_depth + 1,
            pieces: settings.caps.max_pieces,
            inline_bytes: settings.inline_bytes,
        };
        let port = self.conn.port();
        let device = port.ok_or(io::ErrorKind::NotConnected)?.device;
        let depth = wanted.sends + wanted.receives;
        let number = self.core.number();
        let place = self
            .core
            .completions
            .place(device, depth, number, |entries| {
                Cq::new(&self.conn, number, entries)
            })?;
        let queues = self
            .conn
            .make_queues(self.number, wanted, place, &self.waker)?;
        if let Some(told) = self.conn.seat().and_then(Seat::descriptor) {
            self.readiness.add(told, 1)?;
        }
        self.made
            .set(Made { queues, port })
            .map_err(|_| io::ErrorKind::AlreadyExists)?;
        // The peer may send as soon as it knows of the connection.
        if let Err(error) = self.await_first(settings.caps.max_message) {
            tracing::debug!(%error, "no room for an early message; its sender repeats it");
        }
        Ok(())
    }

    /// Posts a receive of our own for the first message.
    // req: WSD-09
    fn await_first(&self, len: usize) -> io::Result<()> {
        let (early, sge) = Early::new(&self.conn, &self.domain, len)?;
        let mut receiving = self.receiving.lock();
        let number = receiving.queue.next();
        self.conn.post_receive(number, &[sge])?;
        receiving.queue.push_own(Kind::Receive, len);
        receiving.early = early;
        Ok(())
    }

    /// The memory of the first message, once that has been handed over.
    fn spent(&self) -> Option<Buffer> {
        self.receiving.lock().early.give_up()
    }

    /// Wakes whoever sleeps.
    fn wake(&self) {
        self.waker.wake();
    }

    // ---- the attempt ----

    /// Takes one step of the attempt to connect, if there still is one.
    fn advance(&self, step: impl FnOnce(&Attempt, &Self) -> Step) {
        let mut slot = self.attempt.lock();
        let Some(attempt) = slot.as_ref() else { return };
        let event = match step(attempt, self) {
            Step::Wait => {
                let deadline = attempt.deadline;
                drop(slot);
                self.core.schedule(self.number, deadline);
                return;
            }
            Step::Connected => {
                self.state.store(state::OPEN, Ordering::SeqCst);
                self.core.schedule(self.number, Instant::now() + SILENCE);
                Event::Connected {
                    endpoint: self.token,
                }
            }
            Step::Failed(error) => {
                self.state.store(state::BROKEN, Ordering::SeqCst);
                Event::ConnectFailed {
                    endpoint: self.token,
                    error,
                }
            }
        };
        let failed = matches!(event, Event::ConnectFailed { .. });
        *slot = None;
        drop(slot);
        if failed {
            // Where it was accepted after all, the peer is to know.
            self.hang_up();
        }
        self.core.tell(event);
        self.wake();
    }

    /// The connection manager says something about this connection.
    pub(super) fn connection_event(&self, event: &CmEvent) {
        if self.attempt.lock().is_some() {
            return self.advance(|attempt, endpoint| attempt.advance(endpoint, event));
        }
        match event.kind {
            CmKind::Disconnected => self.die(Ending::Peer),
            // What was accepted did not come about, or the device goes.
            CmKind::Rejected | CmKind::Unreachable | CmKind::ConnectError => {
                self.die(Ending::Peer);
            }
            CmKind::Removed => self.die(Ending::Broken),
            // It has ended meanwhile, and only now the peer can be told.
            CmKind::Established if self.is_draining() => {}
            CmKind::Established if self.cause().is_some() => self.hang_up(),
            CmKind::Established => self.peer_is_ready(),
            _ => {}
        }
    }

    /// The fabric's timer went off; says when it should again.
    pub(super) fn tick(&self, now: Instant) -> Option<Instant> {
        let deadline = self.attempt.lock().as_ref().map(|attempt| attempt.deadline);
        if let Some(deadline) = deadline {
            if deadline > now {
                return Some(deadline);
            }
            self.advance(|_, _| Step::Failed(ConnectError::TimedOut));
            return None;
        }
        if self.died.lock().is_none() {
            return self.look_for_life(now);
        }
        self.collect_only();
        (self.is_draining() || !self.is_flushed()).then(|| now + FLUSH_STEP)
    }

    /// Does not wait for a device any longer that should have flushed by now. To be called by whoever
    /// polls: the thread that would make a round of progress may be the one that waits for the end.
    pub(super) fn hurry_flush(&self) {
        let late = |died: Instant| died.elapsed() > FLUSH_PATIENCE;
        if self.died.lock().is_some_and(late) && !self.is_draining() && !self.is_flushed() {
            tracing::warn!("a device does not flush; its queue pair is destroyed");
            #[cfg(test)]
            UNFLUSHED.fetch_add(1, Ordering::Relaxed);
            self.abandon();
        }
    }

    // ---- memory ----

    /// Enters a registration into the table.
    fn enter(&self, registration: Registration) -> Result<(Key, Descriptor), RegisterError> {
        let added = self.memory.lock().add(registration);
        // What did not fit ends here, where nothing is locked.
        added.map_err(|_unentered| RegisterError::NoResources)
    }

    /// Ends a registration. The device refuses its key from here on; where it does not take it back,
    /// there is no queue pair any more through which the peer could use it.
    // req: WSD-13
    fn put_out_of_reach(&self, mut registration: Registration) {
        if let Err(error) = registration.conceal() {
            tracing::error!(%error, "a registration was not taken back: its connection ends");
            self.die(Ending::Broken);
            self.abandon();
        }
    }

    // ---- signs of life ----

    /// Asks the peer's device for an answer, if nothing has moved for a while. The answer is awaited
    /// like that to a message; without it the connection ends.
    fn look_for_life(&self, now: Instant) -> Option<Instant> {
        if self.state.load(Ordering::SeqCst) != state::OPEN {
            return None;
        }
        drop(self.spent());
        // Who posts and then does not ask has no other way to learn that it failed.
        self.collect_only();
        // Before an attempt would be given up: whoever waits for as long as one may take is told.
        let patience = self.settings().patience * 2 / 3;
        let unheard = self.unheard.load(Ordering::Relaxed);
        if unheard && self.since.elapsed() > patience {
            tracing::debug!("a peer that was accepted never came");
            self.die(Ending::Peer);
            return None;
        }
        let moved = self.moved.load(Ordering::Relaxed);
        if self.moved_before.swap(moved, Ordering::Relaxed) == moved {
            self.probe();
        }
        Some(now + SILENCE)
    }

    // ---- the end ----

    /// Why operations are flushed, or nothing can be posted; none while the connection is open.
    pub(super) fn cause(&self) -> Option<Ending> {
        match self.state.load(Ordering::SeqCst) {
            state::LOCAL => Some(Ending::Local),
            state::DYING_PEER | state::PEER => Some(Ending::Peer),
            state::DYING_BROKEN | state::BROKEN => Some(Ending::Broken),
            _ => None,
        }
    }

    /// Whether it may be posted to.
    pub(super) fn check_open(&self) -> Result<&Made, PostError> {
        if self.state.load(Ordering::SeqCst) == state::OPEN {
            return self.made.get().ok_or(PostError::NotConnected);
        }
        Err(self
            .cause()
            .map_or(PostError::NotConnected, PostError::Ended))
    }

    /// What it needs of the device has failed: an attempt to connect fails, a connection ends. Called
    /// without any lock.
    pub(super) fn lose_device(&self) {
        self.advance(|_, _| Step::Failed(ConnectError::NotServed));
        self.die(Ending::Broken);
    }

    /// Begins the end, if nothing has before. Called without any lock.
    pub(super) fn die(&self, ending: Ending) {
        let to = match ending {
            Ending::Local => state::LOCAL,
            Ending::Peer => state::DYING_PEER,
            Ending::Broken => state::DYING_BROKEN,
        };
        let moved = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                let goes = match now {
                    state::OPEN | state::CONNECTING => true,
                    // Closing goes before: the end is not told of any more.
                    state::DYING_PEER | state::DYING_BROKEN => ending == Ending::Local,
                    _ => false,
                };
                goes.then_some(to)
            });
        match moved {
            Ok(state::OPEN) => {}
            Ok(state::CONNECTING) if self.made.get().is_some() => {}
            Ok(_) => {
                self.wake();
                return;
            }
            Err(_) => {
                if ending != Ending::Local {
                    // Nothing is delivered any more.
                    self.end_drain();
                }
                return;
            }
        }
        *self.died.lock() = Some(Instant::now());
        if ending == Ending::Local && self.drain() {
            return;
        }
        // req: WSD-11, flushes everything, and tells the peer.
        self.hang_up();
        self.flush_waiting();
        self.collect_only();
        if !self.is_flushed() {
            self.core.schedule(self.number, Instant::now() + FLUSH_STEP);
        }
        self.wake();
    }

    /// Begins to wait for the delivery of what was reported as sent. False: there is nothing to wait for.
    // req: WSD-11
    fn drain(&self) -> bool {
        if !self.take_no_more() {
            return false;
        }
        let patience = if self.owes_outcomes() {
            DRAIN_PATIENCE.min(self.settings().patience)
        } else {
            self.settings().patience
        };
        *self.draining.lock() = Some(Instant::now() + patience);
        // It may be over already.
        self.collect_only();
        if self.is_draining() {
            self.core.schedule(self.number, Instant::now() + FLUSH_STEP);
        }
        self.wake();
        true
    }

    /// Whether the peer would miss something if the process ended now.
    pub(super) fn has_to_stay(&self, unconfirmed: bool) -> bool {
        self.collect_only();
        let open = self.check_open().is_ok();
        (open || self.is_draining()) && (self.ask_for_delivery() || (open && unconfirmed))
    }

    fn is_draining(&self) -> bool {
        self.draining.lock().is_some()
    }

    /// Ends the drain when everything is delivered, when that has failed, or when it takes too long.
    pub(super) fn drained(&self, failed: bool) {
        let Some(until) = *self.draining.lock() else {
            return;
        };
        if failed || Instant::now() >= until || !self.sending.lock().owes_delivery() {
            self.end_drain();
        }
    }

    /// What has not been delivered is not waited for any longer.
    pub(super) fn end_drain(&self) {
        if self.draining.lock().take().is_none() {
            return;
        }
        // The time to flush begins now.
        *self.died.lock() = Some(Instant::now());
        self.hang_up();
        self.collect_only();
        if !self.is_flushed() {
            self.core.schedule(self.number, Instant::now() + FLUSH_STEP);
        }
        self.wake();
    }

    /// Flushes the queue pair, and tells the peer if there is one.
    fn hang_up(&self) {
        let (flushed, told) = self.conn.disconnect();
        if let Err(error) = flushed {
            tracing::debug!(%error, "the queue pair cannot be flushed");
        }
        if let Err(error) = told {
            tracing::trace!(%error, "the peer was not told");
        }
    }

    /// Whether nothing more comes out. What nobody waits for is not waited for: of a send that was
    /// delivered and is not reported the device says nothing.
    fn is_flushed(&self) -> bool {
        !self.sending.lock().owes_outcomes() && self.receiving.lock().queue.is_empty()
    }

    /// Whether an operation is in progress.
    fn owes_outcomes(&self) -> bool {
        self.sending.lock().owes_outcomes() || self.receiving.lock().queue.owes_outcomes()
    }

    /// Nothing is pending any more. Told once.
    pub(super) fn finish_if_flushed(&self) {
        let (from, to, ending) = match self.state.load(Ordering::SeqCst) {
            state::DYING_PEER => (state::DYING_PEER, state::PEER, Ending::Peer),
            state::DYING_BROKEN => (state::DYING_BROKEN, state::BROKEN, Ending::Broken),
            _ => return,
        };
        if !self.is_flushed() {
            return;
        }
        if self
            .state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
        {
            self.core.tell(Event::Ended {
                endpoint: self.token,
                ending,
            });
            self.wake();
        }
    }

    /// The endpoint was armed for the progress thread, and its descriptor is readable.
    pub(super) fn ready(&self) {
        if self.progress.swap(false, Ordering::SeqCst) {
            self.core.tell(Event::Ready {
                endpoint: self.token,
            });
        }
    }
}

impl Endpoint for VerbsEndpoint {
    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn register(&self, region: Region, access: Access) -> Result<Key, RegisterError> {
        if self.made.get().is_none() {
            return Err(RegisterError::NotConnected);
        }
        // Pinning takes time: not under the lock.
        // SAFETY: the caller's promise is that of this function.
        let registration = unsafe {
            Registration::local(
                &self.conn,
                &self.domain,
                region,
                access,
                self.settings().iwarp,
            )
        }?;
        let (key, _) = self.enter(registration)?;
        Ok(key)
    }

    fn deregister(&self, key: Key) -> Result<(), DeregisterError> {
        let taken = self.memory.lock().remove(key, false)?;
        self.put_out_of_reach(taken);
        Ok(())
    }

    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn expose(
        &self,
        region: Region,
        access: Access,
        descriptor: &mut [u8],
    ) -> Result<Key, RegisterError> {
        let place = descriptor
            .get_mut(..DESCRIPTOR_LEN)
            .ok_or(RegisterError::BadRegion)?;
        if self.check_open().is_err() {
            return Err(RegisterError::NotConnected);
        }
        // SAFETY: the caller's promise is that of this function.
        let registration =
            unsafe { Registration::exposed(&self.conn, &self.domain, region, access) }?;
        let (key, made) = self.enter(registration)?;
        place.copy_from_slice(&made.to_bytes());
        Ok(key)
    }

    fn conceal(&self, key: Key) -> Result<(), DeregisterError> {
        let taken = self.memory.lock().remove(key, true)?;
        self.put_out_of_reach(taken);
        Ok(())
    }

    fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        self.start(post)
    }

    fn poll(&self, completions: &mut Vec<Completion>) {
        self.collect(completions);
    }

    fn arm(&self, whom: ArmFor) -> bool {
        self.waker.clear();
        if whom == ArmFor::Progress {
            self.progress.store(true, Ordering::SeqCst);
        }
        if self.made.get().is_some() {
            // Armed first, looked at afterwards: what comes in between wakes or is seen.
            self.conn.arm();
            if self.has_something() {
                self.conn.disarm();
                self.progress.store(false, Ordering::SeqCst);
                return false;
            }
        } else if self.ending().is_some() {
            self.progress.store(false, Ordering::SeqCst);
            return false;
        }
        if whom == ArmFor::Progress {
            self.core.rearm(self.number, self.readiness.fd());
        }
        true
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.fd()
    }

    fn disconnect(&self) {
        *self.attempt.lock() = None;
        self.die(Ending::Local);
        if !self.is_draining() || self.stayed.swap(true, Ordering::SeqCst) {
            return;
        }
        #[cfg(test)]
        GOODBYES.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let mut looks = 0_u32;
        while self.is_draining() && begun.elapsed() < GOODBYE {
            self.collect_only();
            looks += 1;
            if looks < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(FLUSH_STEP / 10);
            }
        }
    }

    fn ending(&self) -> Option<Ending> {
        match self.state.load(Ordering::SeqCst) {
            state::LOCAL => Some(Ending::Local),
            state::PEER => Some(Ending::Peer),
            state::BROKEN => Some(Ending::Broken),
            _ => None,
        }
    }

    fn goes_on_alone(&self) -> bool {
        true
    }

    fn rdma_path(&self) -> &'static str {
        "verbs"
    }

    #[cfg(test)]
    fn has_heard_of_peer(&self) -> bool {
        !self.unheard.load(Ordering::SeqCst)
    }
}

impl Drop for VerbsEndpoint {
    fn drop(&mut self) {
        self.disconnect();
        self.core.detach(self.readiness.fd());
        if self.owes_outcomes() {
            // Memory of somebody who does not wait for it to be left alone.
            self.end_drain();
        }
        let undelivered = self.draining.lock().take().map(|until| Undelivered {
            last: self.sending.lock().last(),
            until,
            _kept: self.receiving.lock().early.keep(),
        });
        self.core.part(self.number, &self.conn, undelivered);
    }
}
