//! One connection, from the attempt to the end.
//!
//! Owns the state and the order of things; its parts (`sending`, `rdma`, `receiving`) own the
//! operations.
//!
//! Locks, in the order in which they may be taken together: `attempt`, `sending`, `rdma`,
//! `receiving`. Registrations stand in a table of each of the last three; all are locked while they
//! change. No lock is held while a wake-up is sent or while [`SoftEndpoint::finish`] runs.
//!
//! The state only moves forward: open, then perhaps draining (the peer is gone, but messages of it
//! are left), then ended for one reason. Once it has left "open" no send is accepted, once it has
//! ended nothing is; then each part is flushed under its lock, so that every accepted operation
//! ends exactly once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::core::{Core, Watched};
use super::handshake::{Attempt, Step};
use super::link::{Link, Sleeper, reason};
use super::lock::Mutex;
use super::process::Process;
use super::rdma::{Counts, Rdma};
use super::receiving::Receiving;
use super::region::Exposure;
use super::sending::Sending;
use super::window::{DESCRIPTOR_LEN, fall_silent};
use super::{shm, sys};
use crate::fabric::{
    Access, ArmFor, Completion, ConnectError, DeregisterError, Ending, Endpoint, Event, Key, Post,
    PostError, Posted, Region, RegisterError, Token,
};

/// How long a transfer of the peer may still touch memory whose exposure ends.
const CONCEAL_PATIENCE: Duration = Duration::from_secs(1);
/// The same at the end of the connection.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// The values of `SoftEndpoint::state`.
pub(super) mod state {
    pub(in super::super) const OPEN: u8 = 0;
    /// The peer is gone; messages that it has sent are still delivered.
    pub(in super::super) const DRAINING: u8 = 1;
    pub(in super::super) const LOCAL: u8 = 2;
    pub(in super::super) const PEER: u8 = 3;
    pub(in super::super) const BROKEN: u8 = 4;
}

fn state_of(ending: Ending) -> u8 {
    match ending {
        Ending::Local => state::LOCAL,
        Ending::Peer => state::PEER,
        Ending::Broken => state::BROKEN,
    }
}

#[derive(Debug)]
pub(super) struct SoftEndpoint {
    pub(super) core: Arc<Core>,
    token: Token,
    /// Its name in the table of watched objects.
    id: u64,
    /// What `readiness` returns.
    event: OwnedFd,
    pub(super) link: OnceLock<Link>,
    pub(super) state: AtomicU8,
    /// Whether the sleepers of this side may be asleep.
    pub(super) waiter: AtomicBool,
    pub(super) progress: AtomicBool,
    /// The peer's notices that have been dealt with.
    pub(super) seen: AtomicU32,
    /// Whether `sending` has something for `poll`.
    pub(super) send_work: AtomicBool,
    /// The same for `rdma`.
    pub(super) rdma_work: AtomicBool,
    pub(super) counts: Counts,
    attempt: parking_lot::Mutex<Option<Attempt>>,
    pub(super) sending: Mutex<Sending>,
    pub(super) rdma: Mutex<Rdma>,
    pub(super) receiving: Mutex<Receiving>,
}

impl SoftEndpoint {
    fn new(core: &Arc<Core>, token: Token, event: OwnedFd, attempt: Option<Attempt>) -> Self {
        Self {
            core: Arc::clone(core),
            token,
            id: core.identifier(),
            event,
            link: OnceLock::new(),
            state: AtomicU8::new(state::OPEN),
            waiter: AtomicBool::new(false),
            progress: AtomicBool::new(false),
            seen: AtomicU32::new(0),
            send_work: AtomicBool::new(false),
            rdma_work: AtomicBool::new(false),
            counts: Counts::default(),
            attempt: parking_lot::Mutex::new(attempt),
            sending: Mutex::default(),
            rdma: Mutex::default(),
            receiving: Mutex::default(),
        }
    }

    /// The endpoint of an accepted request.
    pub(super) fn accepted(
        core: &Arc<Core>,
        token: Token,
        link: Link,
        event: OwnedFd,
    ) -> Result<Arc<Self>, ConnectError> {
        let endpoint = Arc::new(Self::new(core, token, event, None));
        let link = endpoint.link.get_or_init(|| link);
        link.arm(Sleeper::Service, reason::REQUEST);
        core.watch(
            endpoint.id,
            link.socket.as_fd(),
            Watched::Endpoint(Arc::downgrade(&endpoint)),
        )
        .map_err(|_| ConnectError::NoResources)?;
        Ok(endpoint)
    }

    /// An endpoint that begins to connect. Its outcome is an event, also if it is known at once.
    pub(super) fn connecting(
        core: &Arc<Core>,
        token: Token,
        attempt: Attempt,
    ) -> Result<Arc<Self>, ConnectError> {
        let event = sys::event().map_err(|_| ConnectError::NoResources)?;
        let endpoint = Arc::new(Self::new(core, token, event, Some(attempt)));
        core.keep(endpoint.id, Watched::Endpoint(Arc::downgrade(&endpoint)));
        endpoint.advance(|attempt, endpoint| attempt.begin(&endpoint.core, &endpoint.event));
        Ok(endpoint)
    }

    /// Takes one step of the attempt to connect, if there still is one.
    fn advance(&self, step: impl FnOnce(&mut Attempt, &Self) -> Step) {
        let mut slot = self.attempt.lock();
        let Some(attempt) = slot.as_mut() else { return };
        let watched = attempt.socket().is_some();
        let mut outcome = step(attempt, self);
        if !watched
            && let Some(socket) = attempt.socket()
            && self.core.attach(self.id, socket.as_fd()).is_err()
        {
            outcome = Step::Failed(ConnectError::NoResources);
        }
        let event = match outcome {
            Step::Wait(until) => return self.core.schedule(until),
            Step::Connected(link) => {
                drop(self.link.set(*link));
                Event::Connected {
                    endpoint: self.token,
                }
            }
            Step::Failed(error) => {
                attempt.abandon(&self.core, self.id);
                self.state.store(state::BROKEN, Ordering::SeqCst);
                Event::ConnectFailed {
                    endpoint: self.token,
                    error,
                }
            }
        };
        *slot = None;
        drop(slot);
        self.core.tell(event);
        match self.link.get() {
            Some(link) => {
                // The peer may have asked before this side was armed, and a sleeper that armed
                // before there was a link is not known to the peer.
                link.arm(Sleeper::Service, reason::REQUEST);
                self.progress_rdma(link);
                self.wake_own(link);
            }
            None => self.wake_unlinked(),
        }
    }

    /// The peer's process has ended, though somebody may still hold its end of the socket.
    pub(super) fn process_ended(&self, process: &Arc<Process>) {
        if let Some(link) = self.link.get()
            && link
                .process
                .as_ref()
                .is_some_and(|mine| Arc::ptr_eq(mine, process))
        {
            self.core.detach(link.socket.as_fd());
            self.peer_gone(link);
        }
    }

    /// The fabric's timer went off; says when it should again.
    pub(super) fn tick(&self, now: Instant) -> Option<Instant> {
        self.advance(|attempt, endpoint| attempt.tick(&endpoint.core, &endpoint.event, now));
        None
    }

    /// The Unix socket is readable or at its end.
    pub(super) fn socket_ready(&self, hung_up: bool) {
        let Some(link) = self.link.get() else {
            return self.advance(|attempt, endpoint| attempt.ready(&endpoint.core));
        };
        let mut gone = hung_up;
        let mut buffer = [0; 16];
        // A bounded number at a time: a peer that nudges without end is not served alone.
        for _ in 0..16 {
            match sys::receive_message(link.socket.as_fd(), &mut buffer) {
                Ok(nudge) if nudge.len > 0 => {}
                Ok(_) => {
                    gone = true;
                    break;
                }
                Err(error) => {
                    gone |= error.kind() != std::io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        link.arm(Sleeper::Service, reason::REQUEST);
        self.progress_rdma(link);
        if gone {
            // The end would be reported again and again.
            self.core.detach(link.socket.as_fd());
            self.peer_gone(link);
        }
        if self.progress.load(Ordering::SeqCst) {
            link.arm(Sleeper::Progress, self.reasons());
            if self.has_something(link) {
                self.wake_progress(link);
            }
        }
    }

    // ---- the end -------------------------------------------------------------------------

    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::SeqCst) == state::OPEN
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.state.load(Ordering::SeqCst) == state::DRAINING
    }

    /// Why nothing more can be posted to a half that has not `state`.
    pub(super) fn closed_by(&self) -> PostError {
        match self.state.load(Ordering::SeqCst) {
            state::LOCAL => PostError::Ended(Ending::Local),
            state::BROKEN => PostError::Ended(Ending::Broken),
            _ => PostError::Ended(Ending::Peer),
        }
    }

    /// The peer disconnected or died: nothing can be sent any more, what it has sent is delivered.
    pub(super) fn peer_gone(&self, link: &Link) {
        // What it has answered counts.
        self.progress_rdma(link);
        self.drain(link);
    }

    /// From open to draining.
    fn drain(&self, link: &Link) {
        if self
            .state
            .compare_exchange(
                state::OPEN,
                state::DRAINING,
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_err()
        {
            return;
        }
        self.flush_outgoing(link, Ending::Peer);
        self.deliver(link);
        self.wake_own(link);
    }

    /// A copy found the peer gone, before its socket told.
    pub(super) fn peer_lost(&self, link: &Link) {
        self.core.detach(link.socket.as_fd());
        self.drain(link);
    }

    /// Ends the endpoint, if nothing has ended it before. Called without any lock.
    pub(super) fn finish(&self, ending: Ending) {
        let to = state_of(ending);
        let moved = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                matches!(now, state::OPEN | state::DRAINING).then_some(to)
            });
        let Some(link) = self.link.get() else {
            return self.wake_unlinked();
        };
        if moved.is_err() {
            return;
        }
        // Everything pending ends, once. req: WSD-11
        // This also waits for a copy that is being made: once the peer hears of the end, this side
        // touches its memory no more.
        self.flush_outgoing(link, ending);
        self.receiving.lock().flush(ending);
        link.segment.own().notices.closed.store(1, Ordering::SeqCst);
        shm::note(&link.segment.own().notices);
        link.wake(reason::END);
        self.core.unwatch(self.id, link.socket.as_fd());
        sys::shut_down(link.socket.as_fd());
        self.wake_own(link);
        if ending != Ending::Local {
            self.core.tell(Event::Ended {
                endpoint: self.token,
                ending,
            });
        }
    }

    /// Ends all sends and transfers, and all exposures.
    fn flush_outgoing(&self, link: &Link, ending: Ending) {
        {
            let mut sending = self.sending.lock();
            sending.flush(ending);
            self.send_work.store(sending.has_work(), Ordering::Relaxed);
        }
        let closed = {
            let mut rdma = self.rdma.lock();
            rdma.flush(&self.counts, ending);
            self.rdma_work.store(rdma.has_work(), Ordering::Relaxed);
            rdma.windows.close_all(link)
        };
        for slot in closed {
            if !fall_silent(link, slot, END_PATIENCE) {
                tracing::warn!("the peer may still be copying while the connection ends");
                break;
            }
        }
    }

    // ---- waking --------------------------------------------------------------------------

    /// Wakes whoever sleeps on this side: there is something to poll.
    pub(super) fn wake_own(&self, link: &Link) {
        if self.waiter.swap(false, Ordering::SeqCst) {
            link.disarm(Sleeper::Waiter);
            sys::signal(self.event.as_fd());
        }
        self.wake_progress(link);
    }

    /// Wakes a sleeper of an endpoint that will not be connected.
    fn wake_unlinked(&self) {
        if self.waiter.swap(false, Ordering::SeqCst) {
            sys::signal(self.event.as_fd());
        }
    }

    fn wake_progress(&self, link: &Link) {
        if self.progress.swap(false, Ordering::SeqCst) {
            link.disarm(Sleeper::Progress);
            self.core.tell(Event::Ready {
                endpoint: self.token,
            });
        }
    }

    /// What a sleeper of this side has to be woken for.
    fn reasons(&self) -> u32 {
        let mut reasons = reason::MESSAGE | reason::ANSWER | reason::END;
        if self.sending.lock().has_work() {
            reasons |= reason::SPACE;
        }
        if self.rdma.lock().has_work() {
            reasons |= reason::SERVICE_SPACE;
        }
        reasons
    }

    /// Whether `poll` would yield something or move something on.
    pub(super) fn has_something(&self, link: &Link) -> bool {
        if !matches!(
            self.state.load(Ordering::SeqCst),
            state::OPEN | state::DRAINING
        ) {
            return true;
        }
        let changes = link.segment.peer().notices.changes.load(Ordering::SeqCst);
        if changes != self.seen.load(Ordering::Relaxed) {
            return true;
        }
        {
            let mut sending = self.sending.lock();
            let ended = self.counts.ended.load(Ordering::SeqCst);
            if sending.has_completions() || sending.could_send(link, ended) {
                return true;
            }
        }
        if self.rdma.lock().has_something(link) {
            return true;
        }
        let mut receiving = self.receiving.lock();
        receiving.has_completions() || receiving.could_deliver(link)
    }
}

fn is_own_memory(region: Region) -> bool {
    region.base.checked_add(region.len).is_some() && sys::is_mapped(region.base, region.len.max(1))
}

impl Endpoint for SoftEndpoint {
    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn register(&self, region: Region, access: Access) -> Result<Key, RegisterError> {
        if !is_own_memory(region) {
            return Err(RegisterError::BadRegion);
        }
        let mut sending = self.sending.lock();
        let mut rdma = self.rdma.lock();
        let mut receiving = self.receiving.lock();
        let mut key = Key(0);
        for table in [&mut sending.table, &mut rdma.table, &mut receiving.table] {
            // SAFETY: the caller's promise is that of this function.
            key = unsafe { table.add(region, access) };
        }
        Ok(key)
    }

    fn deregister(&self, key: Key) -> Result<(), DeregisterError> {
        let mut sending = self.sending.lock();
        let mut rdma = self.rdma.lock();
        let mut receiving = self.receiving.lock();
        let mut tables = [&mut sending.table, &mut rdma.table, &mut receiving.table];
        for table in &mut tables {
            table.removable(key)?;
        }
        for table in tables {
            table.remove(key);
        }
        Ok(())
    }

    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn expose(
        &self,
        region: Region,
        access: Access,
        descriptor: &mut [u8],
    ) -> Result<Key, RegisterError> {
        let link = self.link.get().ok_or(RegisterError::NotConnected)?;
        let place = descriptor
            .get_mut(..DESCRIPTOR_LEN)
            .ok_or(RegisterError::BadRegion)?;
        if !is_own_memory(region) {
            return Err(RegisterError::BadRegion);
        }
        let mut rdma = self.rdma.lock();
        if !self.is_open() {
            return Err(RegisterError::NotConnected);
        }
        // SAFETY: the caller's promise is that of this function.
        let exposure = unsafe { Exposure::new(region) };
        let (key, made) = rdma
            .windows
            .open(link, exposure, access)
            .ok_or(RegisterError::NoResources)?;
        place.copy_from_slice(&made.to_bytes());
        Ok(key)
    }

    fn conceal(&self, key: Key) -> Result<(), DeregisterError> {
        let link = self.link.get().ok_or(DeregisterError::Unknown)?;
        // From here on nothing new begins; pipelined copies are made under this lock.
        let slot = self.rdma.lock().windows.close(link, key)?;
        if !fall_silent(link, slot, CONCEAL_PATIENCE) {
            return Err(DeregisterError::InUse);
        }
        self.rdma.lock().windows.vacate(key);
        Ok(())
    }

    #[inline]
    fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let link = self.link.get().ok_or(PostError::NotConnected)?;
        let (Post::Send { pieces, .. }
        | Post::Receive { pieces, .. }
        | Post::Write { pieces, .. }
        | Post::Read { pieces, .. }) = post;
        if pieces.len() > self.core.limits().max_pieces {
            return Err(PostError::TooManyPieces);
        }
        match post {
            Post::Send { op, pieces } => self.post_send(link, op, pieces),
            Post::Receive { op, pieces } => self.post_receive(link, op, pieces),
            Post::Write {
                op,
                pieces,
                remote,
                offset,
            } => self.post_transfer(link, op, false, pieces, remote, offset),
            Post::Read {
                op,
                pieces,
                remote,
                offset,
            } if self.core.limits().rdma_read => {
                self.post_transfer(link, op, true, pieces, remote, offset)
            }
            Post::Read { .. } => Err(PostError::Unsupported),
        }
    }

    #[inline]
    fn poll(&self, completions: &mut Vec<Completion>) {
        let Some(link) = self.link.get() else { return };
        let changes = link.segment.peer().notices.changes.load(Ordering::SeqCst);
        if changes != self.seen.load(Ordering::Relaxed) {
            self.notice(link, changes);
        }
        if self.rdma_work.load(Ordering::Relaxed) {
            self.progress_rdma(link);
            let mut rdma = self.rdma.lock();
            rdma.take_completions(completions);
            self.rdma_work.store(rdma.has_work(), Ordering::Relaxed);
        }
        if self.send_work.load(Ordering::Relaxed) {
            self.pump(link);
            let mut sending = self.sending.lock();
            sending.take_completions(completions);
            self.send_work.store(sending.has_work(), Ordering::Relaxed);
        }
        let state = self.state.load(Ordering::SeqCst);
        if matches!(state, state::OPEN | state::DRAINING) {
            let delivered = {
                let mut receiving = self.receiving.lock();
                receiving.take_completions(completions);
                receiving.deliver(link, state == state::DRAINING, completions)
            };
            self.delivered(link, delivered);
        } else {
            self.take_rest(completions);
        }
    }

    fn arm(&self, whom: ArmFor) -> bool {
        let (flag, sleeper) = match whom {
            ArmFor::Waiter => {
                sys::drain(self.event.as_fd());
                (&self.waiter, Sleeper::Waiter)
            }
            ArmFor::Progress => (&self.progress, Sleeper::Progress),
        };
        flag.store(true, Ordering::SeqCst);
        let Some(link) = self.link.get() else {
            return self.ending().is_none();
        };
        link.arm(sleeper, self.reasons());
        if !self.has_something(link) {
            return true;
        }
        flag.store(false, Ordering::SeqCst);
        link.disarm(sleeper);
        false
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn disconnect(&self) {
        let attempt = self.attempt.lock().take();
        if let Some(mut attempt) = attempt {
            attempt.abandon(&self.core, self.id);
        }
        self.finish(Ending::Local);
    }

    fn ending(&self) -> Option<Ending> {
        match self.state.load(Ordering::SeqCst) {
            state::LOCAL => Some(Ending::Local),
            state::PEER => Some(Ending::Peer),
            state::BROKEN => Some(Ending::Broken),
            _ => None,
        }
    }

    fn rdma_path(&self) -> &'static str {
        match self.link.get() {
            Some(link) if link.is_direct() => "direct",
            Some(_) => "pipelined",
            None => "none",
        }
    }
}

impl Drop for SoftEndpoint {
    fn drop(&mut self) {
        self.disconnect();
        drop(self.core.forget(self.id));
    }
}
