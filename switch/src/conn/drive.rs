//! Drives the session of one connection over its socket: what arrives goes in, what the session
//! wants done is done.
//!
//! Owns the session, the queues of what has arrived, and everything lent to the provider. Decides
//! nothing that the session decides. [`arrivals`] is what goes in, [`actions`] what is done; here is
//! what both work on, and who has to look after it. Invariant: all of it is behind the connection's
//! lock.

mod actions;
mod arrivals;

use std::time::Instant;

use wsd_proto::{Memory, PullFailure, PullId, RdmaId, SendError, SendFailure, SendId, Session};

use super::companion::Zeal;
use super::fifo::Fifo;
use super::gather::Gather;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::outside::Outsiders;
use super::pool::Pool;
use super::transfer::Transfers;
use super::turn::Turn;
use super::urgent::Urgent;
use super::wait::Waiters;
use crate::error::WsaError;
use crate::observe::{Meter, Queues};
use crate::socket::SanSocket;

/// A send whose bytes are still in the hands of the thread that drives.
pub(super) struct Direct<'a> {
    pub(super) id: SendId,
    pub(super) bytes: Gather<'a>,
    pub(super) result: Option<Result<(), SendFailure>>,
}

pub(super) struct State {
    pub(super) session: Session,
    pub(super) pool: Pool,
    pub(super) main: Inbox,
    pub(super) fill: Fifo,
    pub(super) urgent: Urgent,
    pub(super) outbox: Outbox,
    pub(super) transfers: Transfers,
    /// Urgent bytes on their way out.
    urgent_out: Vec<(SendId, u8)>,
    next_send: u64,
    /// Sends and pulls whose outcome somebody will ask for.
    awaited: Vec<SendId>,
    sent: Vec<(SendId, Result<(), SendFailure>)>,
    pulled: Vec<(PullId, Result<u64, PullFailure>)>,
    /// RDMA that could not be started or that failed; told to the session after what has arrived.
    failed: Vec<RdmaId>,
    /// A send failed: the connection is over once everything that has arrived was taken.
    broken: bool,
    /// The provider has refused memory because there is no connection any more.
    pub(super) gone: bool,
    /// The socket is closed.
    pub(super) closed: bool,
    pub(super) direct: bool,
    /// The last read had room for large data, which can be fetched at once: looks leave it to the
    /// next one.
    pub(super) reads_large: bool,
    clock: Clock,
    pub(super) waiters: Waiters,
    pub(super) watch: Watch,
    pub(super) outsiders: Outsiders,
    /// Something has changed since the waiters were last told.
    pub(super) activity: bool,
    /// Counts what has happened, for those who want to know whether anything has.
    pub(super) happened: u64,
    pub(super) settings: Settings,
    /// What is to be told to the session once it has been handed the whole outbox.
    ending: Option<Ending>,
    /// Among it, that the stream goes on elsewhere.
    suspends: bool,
    /// Closed with something left to send.
    pub(super) lingering: Option<super::service::Lingering>,
    /// A write found no room: this many bytes wait for it.
    pub(super) write_wanted: usize,
    /// Whose turn it is to write.
    pub(super) turn: Turn,
    pub(super) limits: Limits,
    /// Shows the connection to those who look on.
    pub(super) meter: Meter,
    /// Decides about the companion that is offered.
    pub(super) admit: Option<super::companion::Admit>,
    /// What goes back to the peer, and what has come back from it.
    pub(super) back: Vec<u8>,
    pub(super) given_back: Vec<u8>,
    /// What may not have arrived is kept for the case that the connection is lost, and was then.
    pub(super) keeps: bool,
    pub(super) kept: Option<super::keep::Kept>,
    /// Wants to know when something happens.
    pub(super) observer: Option<super::companion::Observing>,
}

/// What may wait here of what the application has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of small sends that wait for credit.
    pub(super) outbox: usize,
    /// Bytes of copied large sends.
    pub(super) copies: usize,
}

/// Whether the service thread sleeps on the provider's descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Watch {
    /// It does not: it looks by itself, or has nothing to look after.
    #[default]
    Off,
    /// It does, and the provider is armed.
    On,
    /// It does, but another thread has armed since, and may have taken the wake-up.
    Disturbed,
}

/// The end of what this side sends, in the order in which one takes the other's place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ending {
    /// The stream goes on elsewhere.
    Suspend,
    Shutdown,
    Close,
}

/// What the application has set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) nonblocking: bool,
    pub(super) read_timeout: Option<std::time::Duration>,
    pub(super) write_timeout: Option<std::time::Duration>,
    pub(super) linger: Option<std::time::Duration>,
    /// This side was closed: nobody will call any more.
    pub(super) closing: bool,
    /// Sending was shut down by the application.
    pub(super) write_shut: bool,
    /// The failure has been fetched by `take_error`.
    pub(super) error_taken: bool,
}

/// The session's time. Looked at for every message only if silence matters.
struct Clock {
    start: Instant,
    precise: bool,
    now: wsd_proto::Instant,
}

impl Clock {
    fn refresh(&mut self) -> wsd_proto::Instant {
        self.now = wsd_proto::Instant(self.start.elapsed());
        self.now
    }

    #[inline]
    fn coarse(&mut self) -> wsd_proto::Instant {
        if self.precise {
            self.refresh()
        } else {
            self.now
        }
    }
}

impl State {
    pub(super) fn new(session: Session, pool: Pool, limits: Limits) -> State {
        let precise = session.config().keep_alive.is_some();
        let now = wsd_proto::Instant::ZERO;
        State {
            session,
            pool,
            main: Inbox::default(),
            fill: Fifo::default(),
            urgent: Urgent::default(),
            outbox: Outbox::default(),
            transfers: Transfers::default(),
            urgent_out: Vec::new(),
            next_send: 0,
            awaited: Vec::new(),
            sent: Vec::new(),
            pulled: Vec::new(),
            failed: Vec::new(),
            broken: false,
            gone: false,
            closed: false,
            direct: false,
            reads_large: false,
            clock: Clock {
                start: Instant::now(),
                precise,
                now,
            },
            waiters: Waiters::default(),
            watch: Watch::default(),
            outsiders: Outsiders::default(),
            activity: false,
            happened: 0,
            settings: Settings::default(),
            ending: None,
            suspends: false,
            lingering: None,
            write_wanted: 0,
            turn: Turn::default(),
            limits,
            meter: Meter::default(),
            admit: None,
            back: Vec::new(),
            given_back: Vec::new(),
            keeps: false,
            kept: None,
            observer: None,
        }
    }

    /// Registers the control buffers and posts the receives; returns how many the provider took.
    pub(super) fn start(&mut self, socket: &SanSocket) -> Result<usize, WsaError> {
        self.pool.start(socket)
    }

    /// Tells those who look on what has been counted, as far as it can be told in no time.
    #[inline]
    pub(super) fn tell(&mut self) {
        self.meter.tell(&self.session);
    }

    /// Tells them everything, while this thread has nothing better to do.
    pub(super) fn tell_all(&mut self) {
        let (outbox, transfers) = (&self.outbox, &self.transfers);
        self.meter.tell_all(&self.session, || Queues {
            unsent: outbox.len() + transfers.send_bytes(),
        });
    }

    pub(super) fn now(&mut self) -> wsd_proto::Instant {
        self.clock.refresh()
    }

    /// The instant of std that the session's instant stands for.
    pub(super) fn instant(&self, time: wsd_proto::Instant) -> Instant {
        self.clock
            .start
            .checked_add(time.0)
            .unwrap_or(self.clock.start)
    }

    pub(super) fn send_id(&mut self) -> SendId {
        self.next_send += 1;
        SendId(self.next_send)
    }

    /// A send whose outcome will be asked for by [`State::outcome`].
    pub(super) fn await_send(&mut self, id: SendId) {
        self.awaited.push(id);
    }

    pub(super) fn outcome(&mut self, id: SendId) -> Option<Result<(), SendFailure>> {
        let place = self.sent.iter().position(|(known, _)| *known == id)?;
        Some(self.sent.swap_remove(place).1)
    }

    /// Nobody will ask any more.
    pub(super) fn forget_send(&mut self, id: SendId) {
        self.awaited.retain(|known| *known != id);
        self.sent.retain(|(known, _)| *known != id);
    }

    /// Gives the memory of a send back that was taken back.
    pub(super) fn free_send(&mut self, socket: &SanSocket, id: SendId) {
        let freed = self.transfers.free(socket, Memory::Send(id));
        self.insist(socket, freed);
    }

    pub(super) fn pull_outcome(&mut self, id: PullId) -> Option<Result<u64, PullFailure>> {
        let place = self.pulled.iter().position(|(known, _)| *known == id)?;
        Some(self.pulled.swap_remove(place).1)
    }

    pub(super) fn send_urgent_byte(&mut self, byte: u8) -> Result<(), SendError> {
        let id = self.send_id();
        self.session.send_urgent(id, 1)?;
        self.urgent_out.push((id, byte));
        Ok(())
    }

    pub(super) fn urgent_queued(&self) -> usize {
        self.urgent_out.len()
    }

    /// Whether large data shall wait for the application's own buffer.
    pub(super) fn set_direct(&mut self, socket: &SanSocket, direct: bool) {
        if self.direct != direct {
            self.direct = direct;
            self.session.set_direct(direct);
            self.drain(socket, None);
        }
    }

    // ---- who must look after it

    /// Whether something has to go on although no thread is in a call. A message that the provider
    /// has taken is its own business.
    pub(super) fn needs_service(&self) -> bool {
        if self.settings.closing {
            return !self.session.is_finished() || !self.closed;
        }
        let observes = |observing: &super::companion::Observing| observing.zeal != Zeal::Never;
        !self.closed && (self.observer.as_ref().is_some_and(observes) || self.has_work())
    }

    /// Whether something of the connection's own has to go on.
    pub(super) fn has_work(&self) -> bool {
        !self.outbox.is_empty()
            || self.transfers.is_flying()
            || self.transfers.has_sends()
            || self.transfers.is_exposed()
            || self.keeps_waiting()
            || (self.may_have_timer() && self.session.poll_timeout().is_some())
    }

    /// Whether the peer keeps large data for a read that is to come soon. Not for ever: until it is
    /// fetched its sends are not over.
    pub(super) fn keeps_waiting(&self) -> bool {
        self.reads_large && self.session.is_kept_back()
    }

    /// Has it fetched into temporary memory, as no read has come.
    pub(super) fn waits_no_longer(&mut self, socket: &SanSocket) {
        self.reads_large = false;
        self.set_direct(socket, false);
    }

    /// Whether the session may be waiting for time to pass: it does so at its beginning, at its
    /// end, and where silence matters.
    fn may_have_timer(&self) -> bool {
        self.clock.precise || !self.session.is_established() || self.session.send_open().is_err()
    }

    /// Everything accepted from the application is with the provider, or lost; of a closed stream,
    /// the word of its end, too: without that the peer takes it for broken off.
    pub(super) fn is_flushed(&self) -> bool {
        self.closed
            || (self.outbox.is_empty()
                && self.session.sends_pending() == 0
                && (!self.settings.closing || self.session.is_end_told())
                && !self.session.is_giving_back()
                && !self.pool.is_stuck())
    }
}

/// A length or offset within memory of this process.
pub(super) fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
