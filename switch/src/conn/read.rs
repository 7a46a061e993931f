//! Reading: the stream as it arrives, into the application's buffer.
//!
//! Small data is copied from the message or the queue it waits in. Large data goes straight into a
//! buffer that is large enough and whose owner waits for it, or need not wait because the provider
//! copies by itself; otherwise it is fetched ahead into temporary memory. Invariant: an
//! application's buffer is lent only while its owner is in the call.

use std::io;
use std::io::IoSliceMut;
use std::time::Duration;

use wsd_proto::{PullError, PullFailure, PullId, Readable, ResetReason};

use super::drive::{State, size};
use super::fetch::{Fetched, Target};
use super::wait::{Patience, Phase};
use super::{Connection, errno, failure};
use crate::memory::Lent;
use crate::socket::SanSocket;

/// From this size on an application's buffer is worth being registered.
const WORTH_LENDING: usize = 32 << 10;

/// For an RDMA that is under way when its reader's time is over.
const GRACE: Duration = Duration::from_secs(5);

/// What a look at the stream yields.
enum Step {
    /// This many bytes.
    Read(usize),
    /// After this many bytes large data follows, for what is left of the buffer.
    Large(usize),
}

impl Connection {
    /// Reads what is there, at least one byte unless the stream has ended.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_by(buffer, Patience::Reading)
    }

    /// As [`Connection::read`], as patient as the caller says.
    #[inline]
    pub(crate) fn read_by(&self, buffer: &mut [u8], patience: Patience) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut may_lend = buffer.len() >= WORTH_LENDING;
        loop {
            let step = self.read_step(buffer, may_lend, patience)?;
            let done = match step {
                Step::Read(count) => return Ok(count),
                Step::Large(done) => done,
            };
            let rest = buffer.get_mut(done..).unwrap_or_default();
            match self.pull(rest) {
                Ok(Some(count)) => return Ok(done + count),
                Ok(None) if done > 0 => return Ok(done),
                Ok(None) => may_lend = false,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    #[inline]
    fn read_step(&self, buffer: &mut [u8], may_lend: bool, patience: Patience) -> io::Result<Step> {
        let mut target = Target::new(buffer);
        self.block(patience, |state, socket, _| {
            // A buffer is not lent by a call that may have to return before the data is there.
            let manner = patience.manner(&state.settings);
            let waits = !manner.nonblocking && manner.time.is_none();
            let at_once = state.transfers.is_at_once();
            let lend = may_lend && (waits || at_once);
            // Who looks in between leaves it to the next read then.
            state.reads_large = lend && at_once;
            state.set_direct(socket, lend);
            let fetched = state.fetch(socket, &mut target);
            let count = target.filled();
            match fetched {
                Fetched::Remote(_) if target.rest().len() >= WORTH_LENDING => {
                    Some(Ok(Step::Large(count)))
                }
                // The end of a buffer is too short to be lent: temporary memory, then.
                Fetched::Remote(_) if count == 0 => {
                    state.set_direct(socket, false);
                    None
                }
                _ if count > 0 => Some(Ok(Step::Read(count))),
                Fetched::Eof => Some(Ok(Step::Read(0))),
                Fetched::Failed(reason) => Some(Err(failure(reason))),
                Fetched::Remote(_) | Fetched::Nothing | Fetched::Enough => None,
            }
        })
    }

    /// Fetches large data straight into the buffer. `None` if that cannot be done: then the data
    /// comes by temporary memory. req: SEED-07
    fn pull(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let most = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let lent = Lent::target(buffer);
        let mut started: Option<PullId> = None;
        let mut over = false;
        let result = self.block(Patience::Reading, |state, socket, _| {
            let id = match started {
                Some(id) => id,
                None => match begin_pull(state, socket, &lent, most) {
                    Some(id) => *started.insert(id),
                    None => return Some(Ok(None)),
                },
            };
            loop {
                let outcome = state.pull_outcome(id);
                over = outcome.is_some();
                match outcome {
                    Some(Ok(count)) => {
                        state.forget_urgent();
                        return Some(Ok(Some(size(count))));
                    }
                    Some(Err(PullFailure::NoBuffers)) => return Some(Ok(None)),
                    Some(Err(PullFailure::Failed(reason))) => return Some(Err(failure(reason))),
                    None if state.poll(socket, None) => {}
                    None => break,
                }
            }
            None
        });
        // The time is over, or waiting failed: either way the buffer is still lent.
        match (&result, started) {
            (Err(_), Some(id)) if !over => self.end_pull(id),
            _ => result,
        }
    }

    /// The wait is over and the provider still writes into the application's buffer: it gets a
    /// moment, then the connection ends, because nothing else stops an RDMA.
    fn end_pull(&self, id: PullId) -> io::Result<Option<usize>> {
        let outcome = |state: &mut State, socket: &SanSocket, _: Phase| {
            while state.poll(socket, None) {}
            let outcome = state.pull_outcome(id)?;
            Some(
                outcome
                    .map(|count| Some(size(count)))
                    .map_err(|reason| match reason {
                        PullFailure::NoBuffers => errno(libc::ENOBUFS),
                        PullFailure::Failed(reason) => failure(reason),
                    }),
            )
        };
        match self.block(Patience::For(Some(GRACE)), outcome) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        let mut state = self.lock();
        let now = state.now();
        state.session.abort(now, ResetReason::Aborted);
        state.drain(&self.socket, None);
        state.disconnect(&self.socket);
        state.drain(&self.socket, None);
        let failed = state
            .session
            .failure()
            .map_or_else(|| errno(libc::ETIMEDOUT), failure);
        let _ = state.pull_outcome(id);
        self.leave(state);
        Err(failed)
    }

    /// Fills the buffers one after the other with what is there.
    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_vectored_by(buffers, Patience::Reading)
    }

    pub(crate) fn read_vectored_by(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        patience: Patience,
    ) -> io::Result<usize> {
        let mut done = 0;
        for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
            if done > 0 && !self.goes_on(false) {
                break;
            }
            let count = match self.read_by(buffer, patience) {
                Ok(count) => count,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done += count;
            if count < buffer.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Whether a read that has a part already gets more without waiting, or, if that will do, large
    /// data of which it was told. As with TCP, none goes beyond the mark.
    pub(crate) fn goes_on(&self, told: bool) -> bool {
        let mut state = self.lock();
        while !state.is_readable() && state.poll(&self.socket, None) {}
        let has = state.is_readable() && state.session.unread() > 0;
        let told = told && matches!(state.session.readable(), Readable::Remote { .. });
        let goes_on = (has || told) && !state.is_at_mark();
        self.leave(state);
        goes_on
    }

    /// Reads without taking anything out of the stream.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peek_by(buffer, Patience::Reading)
    }

    pub(crate) fn peek_by(&self, buffer: &mut [u8], patience: Patience) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.block(patience, |state, socket, _| {
            let mut target = Target::new(buffer);
            let fetched = state.peek(socket, &mut target);
            match fetched {
                Fetched::Eof => Some(Ok(0)),
                Fetched::Failed(reason) => Some(Err(failure(reason))),
                _ if target.filled() > 0 => Some(Ok(target.filled())),
                _ => None,
            }
        })
    }

    // ---- urgent data

    /// The urgent byte, apart from the stream. As with TCP the error is InvalidInput if there is
    /// none to fetch, and WouldBlock does not happen.
    pub(crate) fn read_urgent(&self) -> io::Result<u8> {
        let mut state = self.lock();
        while state.urgent.is_empty() && state.poll(&self.socket, None) {}
        let byte = state.urgent.take();
        if byte.is_some() {
            state.session.urgent_consumed(1);
            state.drain(&self.socket, None);
        }
        self.leave(state);
        byte.ok_or_else(|| errno(libc::EINVAL))
    }

    /// Whether everything before the urgent byte has been read, as far as it has arrived by now.
    pub(crate) fn is_at_mark(&self) -> bool {
        let mut state = self.lock();
        while state.poll(&self.socket, None) {}
        let at = state.is_at_mark();
        self.leave(state);
        at
    }

    pub(crate) fn set_urgent_inline(&self, on: bool) {
        self.lock().urgent.inline = on;
    }

    pub(crate) fn is_urgent_inline(&self) -> bool {
        self.lock().urgent.inline
    }
}

fn begin_pull(state: &mut State, socket: &SanSocket, lent: &Lent<'_>, most: u64) -> Option<PullId> {
    match state.session.pull(most) {
        Ok(id) => {
            state.transfers.add_pull(id, lent.space());
            state.drain(socket, None);
            Some(id)
        }
        Err(PullError::NothingRemote | PullError::Busy) => None,
    }
}
