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

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::error::TransferError;
use super::handles::Handle;
use super::memory::{Memory, RegistrationId};
use super::operation::{Deferred, Kind, Pieces, Queue, post};
use super::outlet::{End, Outlet, Report, System, Ticket};
use super::progress::Progress;
use super::wait::{Spin, Waiting, my_wake};
use crate::fabric::{
    Access, ArmFor, Caps, Completion, Endpoint, OpId, Outcome, Piece, PostError, Posted,
};

/// Memory of the switch, not yet looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) address: usize,
    pub(crate) len: usize,
}

/// The largest RDMA of one call. Above the fabric's own limit a call is made of several posts.
pub(crate) const MAX_RDMA: usize = 1 << 30;
/// Pieces that one RDMA may always have, also over a fabric that takes fewer at a time.
const LEAST_PIECES: usize = 8;
/// How long a waiting caller naps where it cannot be woken by the endpoint.
const NAP: Duration = Duration::from_millis(1);

/// How often the progress thread looks at one connection before it looks at the others.
const ROUNDS: usize = 16;

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
    around: Surroundings,
    pub(crate) memory: Memory,
    outgoing: Mutex<Direction>,
    incoming: Mutex<Direction>,
    /// Held by the one thread that polls the endpoint; keeps results in order.
    polling: Mutex<Vec<Completion>>,
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

fn access_of(kind: Kind) -> Access {
    match kind {
        Kind::Send | Kind::Write => Access::READ,
        Kind::Read | Kind::Receive => Access::WRITE,
    }
}

/// What a refused post means for the caller. `Full` is not among them: it waits.
fn refusal(error: PostError) -> TransferError {
    match error {
        PostError::Full => TransferError::QueueFull,
        PostError::NotConnected => TransferError::NotConnected,
        PostError::Ended(ending) => TransferError::Ended(ending),
        PostError::BadPiece | PostError::Rights => TransferError::NotRegistered,
        PostError::TooLarge => TransferError::TooLarge,
        PostError::TooManyPieces => TransferError::BadPieces,
        PostError::BadDescriptor => TransferError::BadDescriptor,
        PostError::Unsupported => TransferError::Unsupported,
    }
}

/// What a refused post means for an operation that was already started.
fn late_refusal(error: PostError) -> End {
    match error {
        PostError::Ended(ending) => End::Flushed(ending),
        other => End::Rejected(refusal(other)),
    }
}

fn end_of(outcome: Outcome) -> (End, usize) {
    match outcome {
        Outcome::Done(bytes) => (End::Done, bytes),
        Outcome::Truncated => (End::Truncated, 0),
        Outcome::RemoteAccess => (End::RemoteAccess, 0),
        Outcome::Flushed(ending) => (End::Flushed(ending), 0),
    }
}

impl Link {
    pub(crate) fn new(endpoint: Arc<dyn Endpoint>, around: Surroundings) -> Self {
        Self {
            endpoint,
            spin: Spin::new(around.spin),
            around,
            memory: Memory::new(),
            outgoing: Mutex::default(),
            incoming: Mutex::default(),
            polling: Mutex::default(),
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

    fn direction(&self, kind: Kind) -> &Mutex<Direction> {
        match kind {
            Kind::Receive => &self.incoming,
            Kind::Send | Kind::Write | Kind::Read => &self.outgoing,
        }
    }

    // ---- starting operations ----

    /// Starts a send or posts a receive. Ok: exactly one result follows.
    pub(crate) fn message(
        &self,
        kind: Kind,
        ticket: Ticket,
        spans: impl ExactSizeIterator<Item = Span>,
    ) -> Result<(), TransferError> {
        if spans.len() == 0 || spans.len() > self.around.caps.max_pieces {
            return Err(TransferError::BadPieces);
        }
        let access = access_of(kind);
        let mut pieces = Pieces::new();
        let mut total = 0_usize;
        let mut direction = self.direction(kind).lock();
        for span in spans.filter(|span| span.len > 0) {
            let piece = self
                .memory
                .find(&mut direction.near, span.address, span.len, access)
                .ok_or(TransferError::NotRegistered)?;
            pieces.push(piece);
            total = total.saturating_add(span.len);
        }
        if kind == Kind::Send && total > self.around.caps.max_message {
            return Err(TransferError::TooLarge);
        }
        self.start(direction, kind, ticket, total, pieces, &[], 0)
    }

    /// Starts a write to, or a read from, the peer's memory. Ok: exactly one result follows.
    pub(crate) fn rdma(
        &self,
        kind: Kind,
        ticket: Ticket,
        spans: impl ExactSizeIterator<Item = (RegistrationId, Span)>,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let caps = &self.around.caps;
        if spans.len() == 0 || spans.len() > caps.max_pieces.max(LEAST_PIECES) {
            return Err(TransferError::BadPieces);
        }
        if remote.len() != caps.descriptor_len {
            return Err(TransferError::BadDescriptor);
        }
        let mut pieces = Pieces::new();
        let mut total = 0_usize;
        for (id, span) in spans.filter(|(_, span)| span.len > 0) {
            let piece = self
                .memory
                .find_in(id, span.address, span.len, access_of(kind))
                .map_err(|unknown| match unknown {
                    true => TransferError::UnknownRegistration,
                    false => TransferError::NotRegistered,
                })?;
            total = total.saturating_add(span.len);
            pieces.push(piece);
        }
        if total > MAX_RDMA {
            return Err(TransferError::TooLarge);
        }
        let direction = self.outgoing.lock();
        if total <= caps.max_rdma && pieces.len() <= caps.max_pieces {
            return self.start(direction, kind, ticket, total, pieces, remote, offset);
        }
        self.start_in_parts(direction, kind, ticket, total, &pieces, remote, offset)
    }

    /// Enters the operation and hands it to the fabric.
    #[allow(clippy::too_many_arguments)] // the fields of one post, and the lock it comes with
    fn start(
        &self,
        mut direction: MutexGuard<'_, Direction>,
        kind: Kind,
        ticket: Ticket,
        total: usize,
        pieces: Pieces,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let queue = &mut direction.queue;
        if queue.len() >= self.around.queue_depth {
            return Err(TransferError::QueueFull);
        }
        // The result may be there before the post returns: everything is in place before it.
        self.around.outlet.switch.begin(&ticket, total);
        let op = queue.begin(kind, ticket, total, 1);
        if ticket.notify {
            self.notified.fetch_add(1, Ordering::AcqRel);
        }
        let waits = !queue.backlog.is_empty();
        if waits {
            self.defer(&mut direction, op, pieces, remote, offset);
            self.pump(direction);
        } else {
            drop(direction);
            match self
                .endpoint
                .post(post(op, pieces.as_slice(), remote, offset))
            {
                Ok(Posted::Pending) if kind == Kind::Receive || ticket.notify => {}
                Ok(Posted::Pending) => self.watch_later(),
                Ok(Posted::Done(bytes)) => {
                    let mut direction = self.direction(kind).lock();
                    direction.queue.end_part(op, End::Done, bytes);
                    self.release(direction, kind);
                }
                Err(PostError::Full) => {
                    // Room may have come meanwhile without anybody to notice: tried again under the
                    // lock, after which whoever brings room finds the post here.
                    let mut direction = self.direction(kind).lock();
                    self.defer(&mut direction, op, pieces, remote, offset);
                    self.pump(direction);
                    self.watch_later();
                }
                Err(error) => {
                    let mut direction = self.direction(kind).lock();
                    direction.queue.withdraw(op);
                    if ticket.notify {
                        self.notified.fetch_sub(1, Ordering::AcqRel);
                    }
                    self.release(direction, kind);
                    self.around.outlet.switch.publish(&Report {
                        ticket,
                        end: late_refusal(error),
                        bytes: 0,
                    });
                    return Err(refusal(error));
                }
            }
        }
        if ticket.notify {
            self.watch_from_call();
        }
        Ok(())
    }

    /// Starts an operation that the fabric cannot take in one post.
    ///
    /// The part that reaches furthest goes first: if the transfer does not fit the remote memory,
    /// that is known before any byte moved.
    #[allow(clippy::too_many_arguments)] // as `start`
    fn start_in_parts(
        &self,
        mut direction: MutexGuard<'_, Direction>,
        kind: Kind,
        ticket: Ticket,
        total: usize,
        pieces: &Pieces,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let caps = &self.around.caps;
        if direction.queue.len() >= self.around.queue_depth {
            return Err(TransferError::QueueFull);
        }
        let parts = split(pieces.as_slice(), caps.max_rdma, caps.max_pieces);
        self.around.outlet.switch.begin(&ticket, total);
        let op = direction.queue.begin(kind, ticket, total, parts.len());
        if ticket.notify {
            self.notified.fetch_add(1, Ordering::AcqRel);
        }
        let remote: Arc<[u8]> = remote.into();
        self.backlogged.fetch_add(parts.len(), Ordering::AcqRel);
        for (part, at) in parts.into_iter().rev() {
            direction.queue.backlog.push_back(Deferred {
                op,
                pieces: part,
                remote: Arc::clone(&remote),
                offset: offset.saturating_add(at),
            });
        }
        self.pump(direction);
        if ticket.notify {
            self.watch_from_call();
        } else {
            self.watch_later();
        }
        Ok(())
    }

    fn defer(
        &self,
        direction: &mut Direction,
        op: OpId,
        pieces: Pieces,
        remote: &[u8],
        offset: u64,
    ) {
        self.backlogged.fetch_add(1, Ordering::AcqRel);
        direction.queue.backlog.push_back(Deferred {
            op,
            pieces,
            remote: remote.into(),
            offset,
        });
    }

    /// Hands waiting posts to the fabric, in order, as far as it takes them. Posts under the lock,
    /// so that nothing overtakes.
    fn pump(&self, mut direction: MutexGuard<'_, Direction>) {
        let queue = &mut direction.queue;
        let mut kinds = [false; 4];
        while let Some(next) = queue.backlog.front() {
            let op = next.op;
            let ended = if queue.has_failed(op) {
                Some((End::Done, 0))
            } else {
                let Some(next) = queue.backlog.front() else {
                    break;
                };
                match self.endpoint.post(next.as_post()) {
                    Ok(Posted::Pending) => None,
                    Ok(Posted::Done(bytes)) => Some((End::Done, bytes)),
                    Err(PostError::Full) => break,
                    Err(error) => Some((late_refusal(error), 0)),
                }
            };
            queue.backlog.pop_front();
            self.backlogged.fetch_sub(1, Ordering::AcqRel);
            if let Some((end, bytes)) = ended {
                queue.end_part(op, end, bytes);
                if let Some(touched) = kinds.get_mut(Kind::of(op) as usize) {
                    *touched = true;
                }
            }
        }
        let mut released = false;
        for kind in [Kind::Send, Kind::Write, Kind::Read, Kind::Receive] {
            if kinds.get(kind as usize).is_some_and(|touched| *touched) {
                released |= self.release_ended(&mut direction.queue, kind);
            }
        }
        drop(direction);
        if released {
            self.released_in_call();
        }
    }

    // ---- results ----

    /// Gives out the results whose turn has come. Those for polling owners are stored at once, the
    /// others queue for their upcalls. Returns whether there was one.
    fn release_ended(&self, queue: &mut Queue, kind: Kind) -> bool {
        let mut any = false;
        while let Some(ended) = queue.next_ended(kind) {
            any = true;
            match ended {
                Some(report) if report.ticket.notify => {
                    self.notified.fetch_sub(1, Ordering::AcqRel);
                    let mut reports = self.reports.lock();
                    reports.waiting.push_back(report);
                    self.unreported.fetch_add(1, Ordering::Release);
                }
                // req: WSD-10: no upcall for an operation whose owner polls.
                Some(report) => self.around.outlet.switch.publish(&report),
                None => {}
            }
        }
        any
    }

    fn release(&self, mut direction: MutexGuard<'_, Direction>, kind: Kind) {
        let released = self.release_ended(&mut direction.queue, kind);
        drop(direction);
        if released {
            self.released_in_call();
        }
    }

    /// After results became visible within a call that starts operations: upcalls are the progress
    /// thread's business then.
    fn released_in_call(&self) {
        self.waiting.announce();
        if self.unreported.load(Ordering::Acquire) > 0 {
            self.around.progress.enlist(self.around.socket);
        }
    }

    /// Takes what the endpoint has completed. Does nothing while another thread does.
    #[inline]
    pub(crate) fn poll(&self) {
        if let Some(mut scratch) = self.polling.try_lock() {
            self.poll_with(&mut scratch);
        }
    }

    fn poll_with(&self, scratch: &mut Vec<Completion>) {
        self.endpoint.poll(scratch);
        let any = !scratch.is_empty();
        for completion in scratch.drain(..) {
            let (end, bytes) = end_of(completion.outcome);
            let kind = Kind::of(completion.op);
            let mut direction = self.direction(kind).lock();
            direction.queue.end_part(completion.op, end, bytes);
            self.release_ended(&mut direction.queue, kind);
        }
        if self.backlogged.load(Ordering::Acquire) > 0 {
            self.pump(self.outgoing.lock());
            self.pump(self.incoming.lock());
        }
        if any {
            self.batches.fetch_add(1, Ordering::AcqRel);
            self.waiting.announce();
        }
    }

    /// Makes the upcalls that wait, unless another thread is at it, which then makes these too.
    /// `nested`: also when this thread is already in an upcall of this connection.
    fn deliver(&self, nested: bool) {
        if self.unreported.load(Ordering::Acquire) == 0 {
            return;
        }
        let me = std::thread::current().id();
        // Holds the switch's socket: it is given back after the last of these upcalls.
        let Some(upcall) = self.around.outlet.enter() else {
            return;
        };
        let mut reports = self.reports.lock();
        let outermost = reports.owner.is_none();
        if reports.owner.is_some_and(|owner| !nested || owner != me) {
            return;
        }
        reports.owner = Some(me);
        while let Some(report) = reports.waiting.pop_front() {
            self.unreported.fetch_sub(1, Ordering::AcqRel);
            reports.running.push(report.ticket.address);
            drop(reports);
            // req: WSD-10: exactly one upcall, with no lock held.
            upcall.report(&report);
            self.waiting.announce();
            reports = self.reports.lock();
            if let Some(place) = reports
                .running
                .iter()
                .rposition(|&address| address == report.ticket.address)
            {
                reports.running.remove(place);
            }
        }
        if outermost {
            reports.owner = None;
        }
    }

    /// Polls and makes upcalls. For calls that may make them.
    pub(crate) fn advance(&self) {
        self.poll();
        self.deliver(false);
    }

    /// As `advance`, for the progress thread and events: sees to it that the next completion is
    /// noticed too.
    pub(crate) fn advance_and_watch(&self) {
        for _ in 0..ROUNDS {
            self.advance();
            if self.watch() {
                return;
            }
        }
        // A busy connection lets the others have their turn.
        self.around.progress.enlist(self.around.socket);
    }

    // ---- noticing ----

    /// Has the progress thread watch the endpoint if somebody must. False: there is something to
    /// poll now.
    fn watch(&self) -> bool {
        if self.notified.load(Ordering::Acquire) > 0 {
            return self.arm_for_progress();
        }
        if self.has_outgoing() {
            self.watch_later();
        }
        true
    }

    fn arm_for_progress(&self) -> bool {
        let mut state = self.waiting.lock();
        if !state.taken_over && !state.watched && state.leader.is_none() {
            state.watched = self.endpoint.arm(ArmFor::Progress);
            return state.watched;
        }
        true
    }

    /// What was started goes on also if its owner polls and then does not. But while it does, being
    /// woken for it as well would cost more than it brings: hence not at once.
    fn watch_later(&self) {
        if !self.later.swap(true, Ordering::AcqRel) {
            self.around.progress.enlist_later(self.around.socket);
        }
    }

    /// Operations have been in progress for a while.
    pub(crate) fn overdue(&self) {
        self.later.store(false, Ordering::Release);
        for _ in 0..ROUNDS {
            self.advance();
            if !self.has_outgoing() && self.notified.load(Ordering::Acquire) == 0 {
                return;
            }
            if self.arm_for_progress() {
                return;
            }
        }
        self.watch_later();
    }

    fn has_outgoing(&self) -> bool {
        self.outgoing.lock().queue.len() > 0
    }

    /// `watch` from a call that may not make upcalls.
    fn watch_from_call(&self) {
        if !self.watch() {
            self.around.progress.enlist(self.around.socket);
        }
    }

    /// The endpoint was armed for the progress thread and has something to poll.
    pub(crate) fn ready(&self) {
        self.waiting.lock().watched = false;
        self.advance_and_watch();
    }

    /// The switch takes over waiting. True: there is something to poll. False: the descriptor
    /// becomes readable at the next completion or at the end.
    pub(crate) fn arm(&self) -> bool {
        let mut state = self.waiting.lock();
        state.taken_over = true;
        // Results that another thread has polled meanwhile are something to poll, too.
        let batches = self.batches.load(Ordering::Acquire);
        if state.seen != batches
            || self.unreported.load(Ordering::Acquire) > 0
            || self.endpoint.ending().is_some()
        {
            state.seen = batches;
            return true;
        }
        !self.endpoint.arm(ArmFor::Waiter)
    }

    /// The descriptor of `arm`. Constant.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.endpoint.readiness().as_raw_fd()
    }

    /// Waits until `done` says that the result of the operation is there.
    pub(crate) fn wait(&self, address: usize, done: &dyn Fn() -> bool) -> Waited {
        let look = || {
            self.poll();
            self.deliver(true);
            done()
        };
        if self.spin.until(look) {
            return Waited::Done;
        }
        let waiter = self.waiting.enter();
        let waited = loop {
            self.poll();
            self.deliver(true);
            if done() {
                break Waited::Done;
            }
            if !self.knows(address) {
                break self.await_switch(done);
            }
            self.sleep(address, done);
        };
        drop(waiter);
        // The progress thread takes over what still wants an upcall.
        self.watch_from_call();
        waited
    }

    /// One sleep of a waiting caller: as the leader on the endpoint, or behind the leader.
    fn sleep(&self, address: usize, done: &dyn Fn() -> bool) {
        let mut state = self.waiting.lock();
        if done() || !self.knows(address) {
            return;
        }
        if state.leader.is_some() {
            self.waiting.follow(state);
            return;
        }
        let wake = my_wake(&self.around.system);
        let wakeable = wake.is_some();
        state.leader = Some(wake.clone());
        // When the switch sleeps on the descriptor itself, arming would take its wake-up away.
        let taken_over = state.taken_over;
        let armed = taken_over || self.endpoint.arm(ArmFor::Waiter);
        // Armed for us, the endpoint is no longer armed for the progress thread.
        state.watched = false;
        drop(state);
        if armed && !done() && self.knows(address) {
            let longest = (taken_over || !wakeable).then_some(NAP);
            let mut descriptors: Vec<BorrowedFd<'_>> = Vec::with_capacity(2);
            if !taken_over {
                descriptors.push(self.endpoint.readiness());
            }
            if let Some(wake) = &wake {
                descriptors.push(wake.descriptor());
            }
            self.around.system.sleep(&descriptors, longest);
        }
        if let Some(wake) = &wake {
            wake.drain();
        }
        self.waiting.resign();
    }

    /// The operation has left the engine. If its upcall was made, the switch stores the result,
    /// perhaps slightly after returning.
    fn await_switch(&self, done: &dyn Fn() -> bool) -> Waited {
        for round in 0..100 {
            if done() {
                return Waited::Done;
            }
            if round < 10 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP);
            }
        }
        Waited::Unknown
    }

    /// Whether the operation is in progress, or its upcall has not returned.
    fn knows(&self, address: usize) -> bool {
        self.outgoing.lock().queue.knows(address) || self.incoming.lock().queue.knows(address) || {
            let reports = self.reports.lock();
            reports
                .waiting
                .iter()
                .any(|report| report.ticket.address == address)
                || reports.running.contains(&address)
        }
    }

    // ---- the end ----

    /// Takes one use of a registration back.
    pub(crate) fn deregister(&self, id: RegistrationId) -> Result<(), super::error::MemoryError> {
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
            if rounds == 10_000 {
                tracing::error!("operations of a closed socket do not end");
            }
        }
        // req: WSD-11: memory first, then the upcalls.
        self.memory.release_all(self.endpoint());
        self.waiting.announce();
        self.deliver(false);
    }

    fn is_idle(&self) -> bool {
        self.outgoing.lock().queue.len() == 0 && self.incoming.lock().queue.len() == 0
    }
}

/// Cuts pieces into posts of at most `most_bytes` and `most_pieces`, with the offset of each.
fn split(pieces: &[Piece], most_bytes: usize, most_pieces: usize) -> Vec<(Pieces, u64)> {
    let most_bytes = most_bytes.max(1);
    let most_pieces = most_pieces.max(1);
    let mut parts = Vec::new();
    let mut part = Pieces::new();
    let mut bytes = 0;
    let mut begun = 0_u64;
    for piece in pieces {
        let mut rest = *piece;
        while rest.len > 0 {
            if bytes == most_bytes || part.len() == most_pieces {
                parts.push((std::mem::replace(&mut part, Pieces::new()), begun));
                begun += bytes as u64;
                bytes = 0;
            }
            let len = rest.len.min(most_bytes - bytes);
            part.push(Piece { len, ..rest });
            bytes += len;
            rest.offset += len;
            rest.len -= len;
        }
    }
    if part.len() > 0 {
        parts.push((part, begun));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Key;

    fn piece(key: u64, offset: usize, len: usize) -> Piece {
        Piece {
            key: Key(key),
            offset,
            len,
        }
    }

    #[test]
    fn parts_cover_every_byte_once_within_the_limits() {
        let pieces = [
            piece(1, 5, 10),
            piece(2, 0, 1),
            piece(3, 100, 33),
            piece(4, 7, 20),
        ];
        for most_bytes in [1, 3, 7, 10, 32, 64, 1000] {
            for most_pieces in [1, 2, 3, 4, 9] {
                let parts = split(&pieces, most_bytes, most_pieces);
                let mut expected = 0;
                let mut bytes = Vec::new();
                for (part, offset) in &parts {
                    assert_eq!(*offset, expected);
                    assert!(part.len() <= most_pieces);
                    let len: usize = part.as_slice().iter().map(|piece| piece.len).sum();
                    assert!(len > 0 && len <= most_bytes);
                    expected += len as u64;
                    for piece in part.as_slice() {
                        bytes.extend((0..piece.len).map(|n| (piece.key, piece.offset + n)));
                    }
                }
                let all: Vec<_> = pieces
                    .iter()
                    .flat_map(|piece| (0..piece.len).map(|n| (piece.key, piece.offset + n)))
                    .collect();
                assert_eq!(bytes, all);
            }
        }
    }
}
