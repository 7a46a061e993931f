//! What an endpoint does with operations: posting them, and collecting their ends.
//!
//! Owns the rules of posting. A message that the device takes with the request (inline) needs its memory
//! no more once it was posted, so it is reported done at once, and the device reports only some of them
//! (`queue`); one that stands behind an operation which has not ended is not, because that may fail.
//! Every other operation is signaled, because whoever waits for it waits for its own completion, and
//! posts come one at a time: nobody could tell which is the last before a pause. Of an operation in
//! several parts (`parts`) only the last one is signaled, and all of them are handed to the device at
//! once.
//!
//! What was reported done is still to be delivered: see `drain` in `endpoint`.
//!
//! Collecting is done by one thread at a time, under the lock of the collector, so that completions
//! stay in order whoever takes them.

use std::io;
use std::sync::atomic::Ordering;

use super::completions::Seat;
use super::early::{Claim, Early};
use super::endpoint::{Receives, VerbsEndpoint};
use super::errors;
use super::exit;
use super::memory::{Descriptor, Held, Sges};
use super::parts::{self, Most, READ_PART, WRITE_PART};
use super::queue::{Entry, Kind, Queue, Waiting};
use super::sys::{Aim, Finished, How, Refused, Status, Work};
use crate::fabric::{Access, Completion, Ending, OpId, Outcome, Piece, Post, PostError, Posted};

/// Completions that were taken from the device and not yet handed out.
#[derive(Debug, Default)]
pub(super) struct Collector {
    scratch: Vec<Finished>,
    done: Vec<Completion>,
}

impl VerbsEndpoint {
    pub(super) fn start(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let (Post::Send { pieces, .. }
        | Post::Receive { pieces, .. }
        | Post::Write { pieces, .. }
        | Post::Read { pieces, .. }) = post;
        let caps = &self.settings().caps;
        if pieces.len() > caps.max_pieces {
            return Err(PostError::TooManyPieces);
        }
        match post {
            Post::Send { op, pieces } => self.send(op, pieces),
            Post::Receive { op, pieces } => self.receive(op, pieces),
            Post::Write {
                op,
                pieces,
                remote,
                offset,
            } => self.transfer(op, Access::WRITE, pieces, remote, offset),
            Post::Read {
                op,
                pieces,
                remote,
                offset,
            } if caps.rdma_read => self.transfer(op, Access::READ, pieces, remote, offset),
            Post::Read { .. } => Err(PostError::Unsupported),
        }
    }

    fn resolve(
        &self,
        pieces: &[Piece],
        access: Access,
        sges: &mut Sges,
    ) -> Result<(usize, Held), PostError> {
        let mut memory = self.memory.lock();
        let total = memory.resolve(pieces, access, sges)?;
        Ok((total, memory.hold(pieces)))
    }

    fn let_go(&self, held: &Held) {
        self.memory.lock().let_go(held);
    }

    fn send(&self, op: OpId, pieces: &[Piece]) -> Result<Posted, PostError> {
        let made = self.check_open()?;
        let mut sges = Sges::new();
        let mut queue = self.sending.lock();
        if queue.room(Kind::Send) == 0 {
            // Who only sends such as are reported at once has no reason to poll.
            drop(queue);
            self.collect_only();
            queue = self.sending.lock();
        }
        if queue.closed || queue.room(Kind::Send) == 0 {
            drop(queue);
            return Err(self.why_not());
        }
        let (total, held) = self.resolve(pieces, Access::READ, &mut sges)?;
        if total > self.settings().caps.max_message {
            self.let_go(&held);
            return Err(PostError::TooLarge);
        }
        let mut how = How::empty();
        if total <= made.queues.inline_bytes {
            how |= How::INLINE;
        }
        // req: WSD-14
        if queue.needs_fence(Kind::Send) {
            how |= How::FENCE;
        }
        let number = queue.next();
        if how.contains(How::INLINE) && queue.may_report_early() && !exit::has_begun() {
            self.let_go(&held);
            let signaled = queue.reports_next();
            how.set(How::SIGNALED, signaled);
            queue.push_sent(total, signaled);
            return match self.conn().post(number, Work::Send, how, &sges) {
                Ok(()) => {
                    queue.posted(Kind::Send);
                    Ok(Posted::Done(total))
                }
                Err(error) => {
                    let entry = queue.take_back();
                    drop(queue);
                    Err(self.not_taken(entry, &error))
                }
            };
        }
        how |= How::SIGNALED;
        queue.push(op, Kind::Send, total, held);
        if let Some(waiting) = &mut queue.waiting {
            waiting.push(Waiting {
                number,
                how,
                pieces: sges,
            });
            queue.posted(Kind::Send);
            return Ok(Posted::Pending);
        }
        match self.conn().post(number, Work::Send, how, &sges) {
            Ok(()) => {
                queue.posted(Kind::Send);
                Ok(Posted::Pending)
            }
            Err(error) => {
                let entry = queue.take_back();
                drop(queue);
                Err(self.not_taken(entry, &error))
            }
        }
    }

    fn receive(&self, op: OpId, pieces: &[Piece]) -> Result<Posted, PostError> {
        let open = self.check_open();
        let mut sges = Sges::new();
        let mut receiving = self.receiving.lock();
        let Receives { queue, early } = &mut *receiving;
        // What has arrived is handed over also after the end.
        if !early.has_message() {
            open?;
            if queue.closed || queue.room(Kind::Receive) == 0 {
                drop(receiving);
                return Err(self.why_not());
            }
        }
        let (total, held) = self.resolve(pieces, Access::WRITE, &mut sges)?;
        match early.claim(&sges, total) {
            Claim::Device => {}
            Claim::Kept => {
                queue.adopt(op, total, held);
                return Ok(Posted::Pending);
            }
            Claim::Filled(len) => {
                drop(receiving);
                self.let_go(&held);
                return Ok(Posted::Done(len));
            }
            Claim::TooLong => {
                drop(receiving);
                self.let_go(&held);
                self.end_at_once(op, Outcome::Truncated);
                return Ok(Posted::Pending);
            }
        }
        let number = queue.next();
        queue.push(op, Kind::Receive, total, held);
        match self.conn().post_receive(number, &sges) {
            Ok(()) => Ok(Posted::Pending),
            Err(error) => {
                let entry = queue.take_back();
                drop(receiving);
                Err(self.not_taken(entry, &error))
            }
        }
    }

    fn transfer(
        &self,
        op: OpId,
        access: Access,
        pieces: &[Piece],
        remote: &[u8],
        offset: u64,
    ) -> Result<Posted, PostError> {
        let made = self.check_open()?;
        let settings = self.settings();
        let remote = Descriptor::parse(remote).ok_or(PostError::BadDescriptor)?;
        let reads = access == Access::READ;
        let (kind, local) = if reads {
            (Kind::Read, Access::WRITE)
        } else {
            (Kind::Write, Access::READ)
        };
        // Who has the peer's descriptor has it from the peer.
        self.peer_is_ready();
        let mut sges = Sges::new();
        let mut queue = self.sending.lock();
        if queue.closed || queue.room(kind) == 0 {
            drop(queue);
            return Err(self.why_not());
        }
        let (total, held) = self.resolve(pieces, local, &mut sges)?;
        if total > settings.caps.max_rdma {
            self.let_go(&held);
            return Err(PostError::TooLarge);
        }
        let Some(address) = remote.reach(access, offset, total) else {
            // The device would refuse it as well, with the same end; it is not asked.
            self.let_go(&held);
            drop(queue);
            self.end_at_once(op, Outcome::RemoteAccess);
            return Ok(Posted::Pending);
        };
        let (pieces, least) = if reads {
            (settings.read_pieces, READ_PART)
        } else {
            (made.queues.pieces, WRITE_PART)
        };
        let most = Most::of(pieces, total, least, queue.room(kind));
        let parts = parts::cut(&sges, address, most);
        if queue.room(kind) < parts.len() {
            self.let_go(&held);
            drop(queue);
            return Err(self.why_not());
        }
        let how = if !reads && total <= made.queues.inline_bytes {
            How::INLINE
        } else {
            How::empty()
        };
        let first = queue.next();
        // The last part carries the operation and what it holds.
        for _ in 1..parts.len() {
            queue.push_part(kind, total);
        }
        queue.push(op, kind, total, held);
        let aim = Aim {
            reads,
            key: remote.key,
        };
        let Err(Refused { taken, error }) = self.conn().post_parts(first, aim, how, &parts) else {
            queue.posted(kind);
            return Ok(Posted::Pending);
        };
        let carrier = queue.take_back();
        for _ in taken + 1..parts.len() {
            queue.take_back();
        }
        if taken == 0 {
            drop(queue);
            return Err(self.not_taken(carrier, &error));
        }
        // Parts of it are under way: it ends with them, and so does the connection.
        tracing::warn!(%error, taken, parts = parts.len(), "a transfer was taken in part only");
        queue.posted(kind);
        queue.bear(op, carrier.map(|entry| entry.held).unwrap_or_default());
        drop(queue);
        self.die(Ending::Broken);
        Ok(Posted::Pending)
    }

    /// Has the peer's device answer. What is already under way and will be reported asks as well.
    pub(super) fn probe(&self) {
        let mut queue = self.sending.lock();
        if !queue.closed && queue.waiting.is_none() && !queue.will_report() {
            let posted = self.post_nothing(&mut queue);
            drop(queue);
            self.note(posted);
        }
    }

    /// A write of nothing touches no memory and needs no key; that it was acknowledged is reported.
    fn post_nothing(&self, queue: &mut Queue) -> io::Result<()> {
        let work = Work::Write { remote: 0, key: 0 };
        let number = queue.next();
        queue.push_own(Kind::Write, 0);
        let posted = self.conn().post(number, work, How::SIGNALED, &[]);
        if posted.is_err() {
            queue.take_back();
        }
        posted
    }

    /// What became of a write of nothing. Called without any lock.
    fn note(&self, posted: io::Result<()>) {
        if let Err(error) = posted {
            self.not_taken(None, &error);
        }
    }

    /// Takes no further post, if messages that were reported as sent are not known to have been
    /// delivered, and has the device tell when they are. False: nothing has to be waited for.
    pub(super) fn take_no_more(&self) -> bool {
        self.collect_only();
        let mut queue = self.sending.lock();
        if queue.closed || !queue.owes_delivery() {
            return false;
        }
        // There is room for one more than the queue takes.
        let told = queue.will_report_all() || self.post_nothing(&mut queue).is_ok();
        queue.closed = true;
        told
    }

    /// Has the device tell when everything that was reported as sent is there, also if nothing follows.
    /// False: it is.
    pub(super) fn ask_for_delivery(&self) -> bool {
        let mut queue = self.sending.lock();
        if !queue.owes_delivery() {
            return false;
        }
        if !queue.closed && !queue.will_report_all() {
            // If the device has no room now, it is asked again.
            let posted = self.post_nothing(&mut queue);
            drop(queue);
            self.note(posted);
        }
        true
    }

    /// The peer of an accepted connection has its queue pair ready: what has waited for that goes to
    /// the device. Sent before, it would be lost, and repeated only when the device has waited for an
    /// acknowledgement; and a peer that is slow to take its answer would be given up.
    // req: WSD-09
    #[inline]
    pub(super) fn peer_is_ready(&self) {
        if self.unheard.load(Ordering::Relaxed) {
            self.post_waiting();
        }
    }

    #[cold]
    fn post_waiting(&self) {
        let mut queue = self.sending.lock();
        let waiting = queue.waiting.take().unwrap_or_default();
        // Under the lock: who sees this does not overtake.
        self.unheard.store(false, Ordering::Relaxed);
        for send in waiting {
            let posted = self
                .conn()
                .post(send.number, Work::Send, send.how, &send.pieces);
            if let Err(error) = posted {
                tracing::warn!(%error, "a send that has waited was not taken");
                drop(queue);
                // It is in the book and will not come back from the device.
                self.die(Ending::Broken);
                self.abandon();
                return;
            }
        }
    }

    /// The end has come before the peer was ready.
    pub(super) fn flush_waiting(&self) {
        if !self.unheard.load(Ordering::Relaxed) {
            return;
        }
        let mut collector = self.collector.lock();
        let mut queue = self.sending.lock();
        self.unheard.store(false, Ordering::Relaxed);
        if queue.waiting.take().is_some() {
            self.flush(&mut queue, &mut collector);
        }
    }

    /// Ends everything that stands in a queue and not at the device.
    fn flush(&self, queue: &mut Queue, collector: &mut Collector) {
        let ending = self.cause().unwrap_or(Ending::Broken);
        while let Some(entry) = queue.pop() {
            self.let_go(&entry.held);
            let outcome = queue.outcome(entry.more, Outcome::Flushed(ending));
            if let Some(op) = entry.op {
                collector.done.push(Completion { op, outcome });
            }
        }
    }

    /// Why a queue takes nothing.
    fn why_not(&self) -> PostError {
        self.cause().map_or(PostError::Full, PostError::Ended)
    }

    /// The device did not take what had been entered. If that was not for want of room, it would not
    /// take it later either, and the connection ends. Called without any lock.
    fn not_taken(&self, entry: Option<Entry>, error: &io::Error) -> PostError {
        if let Some(entry) = entry {
            self.let_go(&entry.held);
        }
        let for_now = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN));
        if self.cause().is_none() && !for_now {
            tracing::warn!(%error, "a post was not taken");
            // What has come out before may say why.
            self.collect_only();
            self.die(Ending::Broken);
        }
        self.why_not()
    }

    /// Ends an operation that the device does not get, and the connection.
    fn end_at_once(&self, op: OpId, outcome: Outcome) {
        {
            let mut collector = self.collector.lock();
            self.gather(&mut collector);
            collector.done.push(Completion { op, outcome });
        }
        self.die(Ending::Broken);
    }

    // ---- collecting ----

    /// Takes what has ended out of the device, and hands out all there is.
    pub(super) fn collect(&self, completions: &mut Vec<Completion>) {
        if self.made.get().is_none() {
            return;
        }
        let mut collector = self.collector.lock();
        let cause = self.gather(&mut collector);
        completions.append(&mut collector.done);
        drop(collector);
        self.collected(cause);
    }

    /// Takes what has ended out of the device.
    pub(super) fn collect_only(&self) {
        if self.made.get().is_none() {
            return;
        }
        let cause = self.gather(&mut self.collector.lock());
        self.collected(cause);
    }

    /// Whether there is something to hand out, or the end.
    pub(super) fn has_something(&self) -> bool {
        self.collect_only();
        !self.collector.lock().done.is_empty() || self.cause_is_final()
    }

    fn cause_is_final(&self) -> bool {
        use crate::fabric::Endpoint;
        self.ending().is_some()
    }

    fn collected(&self, cause: Option<Ending>) {
        // As long as nothing is sent, only what the peer has sent comes out.
        if cause.is_none() && self.moved.load(Ordering::Relaxed) != 0 {
            self.peer_is_ready();
        }
        if let Some(ending) = cause {
            self.die(ending);
        }
        if self.cause().is_some() {
            self.drained(cause.is_some());
            self.finish_if_flushed();
            self.hurry_flush();
        }
    }

    /// The first reason why the connection has to end, if one came out.
    fn gather(&self, collector: &mut Collector) -> Option<Ending> {
        let mut cause = None;
        // Those of others that come in between do not keep anybody here.
        for _ in 0..self.conn().seat().map_or(0, Seat::batches) {
            collector.scratch.clear();
            let more = self.conn().poll(&mut collector.scratch);
            if !collector.scratch.is_empty() {
                self.moved.fetch_add(1, Ordering::Relaxed);
            }
            for finished in &collector.scratch {
                let known = self.cause().or(cause);
                let ending = self.end(*finished, known, &mut collector.done);
                cause = cause.or(ending);
            }
            if !more {
                break;
            }
        }
        cause
    }

    fn end(
        &self,
        finished: Finished,
        known: Option<Ending>,
        done: &mut Vec<Completion>,
    ) -> Option<Ending> {
        if Queue::is_receive(finished.number) {
            let Receives { queue, early } = &mut *self.receiving.lock();
            self.end_in(queue, Some(early), finished, known, done)
        } else {
            self.end_in(&mut self.sending.lock(), None, finished, known, done)
        }
    }

    fn end_in(
        &self,
        queue: &mut Queue,
        mut early: Option<&mut Early>,
        finished: Finished,
        known: Option<Ending>,
        done: &mut Vec<Completion>,
    ) -> Option<Ending> {
        let mut cause = None;
        while let Some(entry) = queue.pop_until(finished.number) {
            let this = entry.number == finished.number;
            // What stands before a completion and was not signaled has succeeded.
            let (status, bytes) = match (this, entry.kind) {
                (true, Kind::Receive) => (finished.status, finished.bytes),
                (true, _) => (finished.status, entry.bytes),
                (false, _) => (Status::Done, entry.bytes),
            };
            let status = match early.take_if(|_| Queue::is_first_receive(entry.number)) {
                Some(early) => first(early, status, bytes, entry.bytes),
                None => status,
            };
            let (outcome, ending) = errors::of_completion(entry.kind, status, bytes, known);
            let outcome = match outcome {
                Outcome::Done(_) if entry.cut => Outcome::Flushed(known.unwrap_or(Ending::Broken)),
                outcome => outcome,
            };
            if ending.is_some() && known.is_none() {
                tracing::debug!(?status, code = finished.code, kind = ?entry.kind, "failed");
            }
            let outcome = queue.outcome(entry.more, outcome);
            cause = cause.or(ending);
            self.let_go(&entry.held);
            if let Some(op) = entry.op {
                done.push(Completion { op, outcome });
            }
        }
        cause
    }

    /// Ends what the device will not end: destroys the queue pair, and flushes everything.
    pub(super) fn abandon(&self) {
        if self.made.get().is_none() {
            return;
        }
        self.end_drain();
        let mut collector = self.collector.lock();
        self.gather(&mut collector);
        let mut sending = self.sending.lock();
        let mut receiving = self.receiving.lock();
        sending.closed = true;
        receiving.queue.closed = true;
        receiving.early.end();
        sending.waiting = None;
        self.conn().kill();
        for queue in [&mut *sending, &mut receiving.queue] {
            self.flush(queue, &mut collector);
        }
        drop((receiving, sending, collector));
        self.finish_if_flushed();
    }
}

/// The receive of the first message has ended.
fn first(early: &mut Early, status: Status, len: usize, room: usize) -> Status {
    if status != Status::Done {
        early.end();
    } else if !early.arrived(len, room) {
        return Status::TooLong;
    }
    status
}
