//! A stream that comes from a TCP connection and may go back there: what its keeper needs of the
//! connection that carries it meanwhile.
//!
//! Owns nothing. Differs from other connections in this: each call says how it wants to wait, the
//! stream may end because it goes on elsewhere, and news are asked for without taking anything.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use wsd_proto::{CompanionInfo, End, GivenBack, ResetReason, Role};

use super::drive::{Ending, State};
use super::negotiate::Done;
use super::wait::{Armed, Manner, Patience, own_event};
use super::{Connection, failure};
use crate::options::StreamOptions;
use crate::socket::SanSocket;

/// Decides whether an offered companion is held here; told of the session's name.
pub(crate) type Admit = Box<dyn FnOnce(&CompanionInfo, [u8; 16]) -> bool + Send>;

/// Who keeps the stream and wants to know when something happens to it.
pub(crate) trait Observer: Send + Sync {
    /// Called by the service thread, with no lock held.
    fn news(&self);
}

/// How soon an observer wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Zeal {
    /// While calls look after the connection anyway, some time later will do.
    Low,
    /// At once.
    High,
    /// Not at all: others look after the connection, but for what its own work needs.
    Never,
}

/// An observer and its zeal.
pub(super) struct Observing {
    pub(super) observer: Weak<dyn Observer>,
    pub(super) zeal: Zeal,
}

/// What a waiter for news is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sleep {
    /// This becomes readable at news.
    On(RawFd),
    /// There may be news already.
    News,
    /// There will be none any more.
    Never,
    /// Another thread watches, and tells by this thread's event.
    Told,
}

/// The calling thread's place among the sleepers of a connection.
pub(crate) struct Enlisted {
    connection: Arc<Connection>,
    name: u64,
}

impl Enlisted {
    /// Prepares for sleep.
    pub(crate) fn arm(&self) -> Sleep {
        let mut state = self.connection.lock();
        state.waiters.heard(self.name);
        if !state.waiters.lead(self.name) {
            return Sleep::Told;
        }
        let armed = self.connection.arm_as(&mut state);
        self.connection.settle(&mut state, Some(self.name));
        armed
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.waiters.remove(self.name);
        self.connection.leave(state);
    }
}

/// Messages taken by one look.
const LOOKS: usize = 64;

/// What a look has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct News {
    /// A read would not wait. At the end of the stream, too.
    pub(crate) readable: bool,
    /// A write would not wait.
    pub(crate) writable: bool,
    /// There is an urgent byte apart from the stream.
    pub(crate) urgent: bool,
    /// The peer sends nothing more.
    pub(crate) peer_shut: bool,
    /// The stream has been read up to where it goes on elsewhere.
    pub(crate) suspended: bool,
    /// The peer has said that its stream goes on elsewhere.
    pub(crate) suspending: bool,
    /// The peer's application leaves.
    pub(crate) leaving: bool,
    /// The session has failed.
    pub(crate) failed: bool,
    /// Changes with everything that arrives.
    pub(crate) arrived: u32,
    /// Of two looks the later one has the higher number.
    pub(crate) number: u64,
}

/// What the peer has said of what it gives back.
#[derive(Debug)]
pub(crate) enum Given {
    /// Not all yet.
    Nothing,
    /// This.
    Back(Vec<u8>),
    /// It does not take part.
    Gone,
}

/// Numbers the looks.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Connection {
    /// Offers, as the connecting side, to carry the stream of a companion. `done` is called as
    /// for [`Connection::accept`].
    pub(crate) fn offer(
        socket: SanSocket,
        options: &StreamOptions,
        companion: CompanionInfo,
        time: Duration,
        done: Done,
    ) {
        let made = Connection::with(socket, options, Role::Connector, time, |config| {
            config.suspend = true;
            config.returns = true;
            config.resumes = true;
            config.companion = Some(companion);
        });
        match made {
            Ok(connection) => {
                connection.lock().keep();
                super::service::negotiate(connection, time, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Takes, as the accepting side, the stream of the companion that `admit` knows.
    pub(crate) fn answer(
        socket: SanSocket,
        options: &StreamOptions,
        admit: Admit,
        time: Duration,
        done: Done,
    ) {
        let made = Connection::with(socket, options, Role::Acceptor, time, |config| {
            config.suspend = true;
            config.returns = true;
            config.resumes = true;
            config.companion_wanted = true;
        });
        match made {
            Ok(connection) => {
                let mut state = connection.lock();
                state.keep();
                state.admit = Some(admit);
                drop(state);
                super::service::negotiate(connection, time, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    pub(crate) fn session_id(&self) -> [u8; 16] {
        self.lock().session.session_id()
    }

    pub(crate) fn read_as(&self, buffer: &mut [u8], manner: Manner) -> io::Result<usize> {
        self.read_by(buffer, Patience::Call(manner))
    }

    pub(crate) fn peek_as(&self, buffer: &mut [u8], manner: Manner) -> io::Result<usize> {
        self.peek_by(buffer, Patience::Call(manner))
    }

    pub(crate) fn write_as(&self, slices: &[IoSlice<'_>], manner: Manner) -> io::Result<usize> {
        self.write_vectored_by(slices, Patience::Call(manner))
    }

    pub(crate) fn write_urgent_as(&self, bytes: &[u8], manner: Manner) -> io::Result<usize> {
        self.write_urgent_by(bytes, Patience::Call(manner))
    }

    /// How the peer has ended its stream.
    pub(crate) fn peer_end(&self) -> Option<End> {
        self.lock().session.peer_end().map(|(end, _)| end)
    }

    /// Why the session has failed.
    pub(crate) fn failed(&self) -> Option<io::Error> {
        self.lock().session.failure().map(failure)
    }

    /// Whether the stream, with all that arrived, was read up to where it goes on elsewhere.
    pub(crate) fn is_suspended(&self) -> bool {
        is_suspended(&self.lock())
    }

    /// Has the service thread tell of what happens, or, with `None`, no more.
    pub(crate) fn attend(&self, observing: Option<(Weak<dyn Observer>, Zeal)>) {
        let mut state = self.lock();
        state.observer = observing.map(|(observer, zeal)| Observing { observer, zeal });
        // The service thread may be waiting with less zeal.
        let look = state.observer.is_some() && self.adopted.load(Ordering::Relaxed);
        self.leave(state);
        if look {
            super::service::look_again(self);
        }
    }

    /// Sends nothing more here; the stream goes on elsewhere.
    pub(crate) fn suspend(&self) {
        let mut state = self.lock();
        state.end_sending(Ending::Suspend);
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
    }

    /// The application leaves with everything that it has not read: the peer, too, ends its stream.
    /// `false` if that cannot be said.
    pub(crate) fn leave_san(&self) -> bool {
        let mut state = self.lock();
        let leaves = state.session.leave();
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
        leaves
    }

    /// Whether the peer's application does.
    pub(crate) fn peer_leaves(&self) -> bool {
        self.lock().session.peer_leaves()
    }

    /// Gives the peer back what it has sent and nobody here has read.
    pub(crate) fn give_back(&self, bytes: Vec<u8>) {
        let mut state = self.lock();
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        state.back = bytes;
        state.session.give_back(len);
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
    }

    /// What the peer gives back; told once.
    pub(crate) fn given_back(&self) -> Given {
        let mut state = self.lock();
        match state.session.given_back() {
            Some(GivenBack::All) => Given::Back(std::mem::take(&mut state.given_back)),
            Some(GivenBack::Gone) => Given::Gone,
            None if state.closed => Given::Gone,
            None => Given::Nothing,
        }
    }

    /// Ends at once, with a word to the peer.
    pub(crate) fn abort(&self) {
        let mut state = self.lock();
        let now = state.now();
        state.session.abort(now, ResetReason::Aborted);
        state.discard();
        state.settings.closing = true;
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
    }

    /// Takes what has arrived, as far as it can without waiting, and says what there is.
    pub(crate) fn look(&self) -> News {
        self.look_as(false)
    }

    /// Large data is to be here before the next read, as far as there is room for it.
    pub(crate) fn fetch_ahead(&self) {
        let mut state = self.lock();
        state.waits_no_longer(&self.socket);
        self.leave(state);
    }

    /// As `look`, by one of those outside, who tells the others of its kind: they are not rung.
    pub(crate) fn look_from_outside(&self) -> News {
        self.look_as(true)
    }

    /// Whether something has arrived just now, which is told with the next look.
    pub(crate) fn glance(&self) -> bool {
        let Some(mut state) = self.state.try_lock() else {
            return false;
        };
        state.poll(&self.socket, None)
    }

    /// Whether, looked at now, there is nothing to read, no end and no failure. `false` if another
    /// thread is at it.
    pub(crate) fn has_nothing_to_read(&self) -> bool {
        let Some(mut state) = self.state.try_lock() else {
            return false;
        };
        !state.poll(&self.socket, None)
            && !state.closed
            && state.session.peer_end().is_none()
            && state.session.failure().is_none()
            && state.urgent.is_empty()
            && !state.is_readable()
            && !state.is_announced()
    }

    fn look_as(&self, outsider: bool) -> News {
        let mut state = self.lock();
        // What a reader of large data would fetch into temporary memory now, it copies once more.
        if !state.reads_large {
            state.set_direct(&self.socket, false);
        }
        for _ in 0..LOOKS {
            if !state.poll(&self.socket, None) {
                break;
            }
        }
        state.tick(&self.socket);
        let end = state.session.peer_end().map(|(end, _)| end);
        let wanted = state.write_wanted.max(1);
        // A peer that has said that it sends nothing more may be gone in peace.
        let failed = state.session.failure().is_some() || (state.closed && end.is_none());
        let arrived = state.session.received() ^ (state.session.mark().unwrap_or(0) << 20);
        let ends = u32::from(end.is_some()) << 30 | u32::from(failed) << 31;
        let low = u32::try_from(arrived & u64::from(u32::MAX)).unwrap_or(0);
        let news = News {
            arrived: low ^ ends,
            // Relaxed: under the connection's lock.
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            readable: state.is_readable() || state.is_announced(),
            writable: failed || state.closed || state.has_room(wanted),
            urgent: !state.urgent.is_empty() && !state.urgent.inline,
            peer_shut: end == Some(End::Shutdown),
            suspended: is_suspended(&state),
            suspending: end == Some(End::Suspended),
            leaving: state.session.peer_leaves(),
            failed,
        };
        if outsider {
            self.settle_from_outside(&mut state);
        }
        self.leave(state);
        news
    }

    /// Whether nothing comes from the provider any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn arm_as(&self, state: &mut State) -> Sleep {
        match self.arm(state) {
            Armed::Descriptor(descriptor) => Sleep::On(descriptor.as_raw_fd()),
            Armed::News => Sleep::News,
            Armed::Closed => Sleep::Never,
        }
    }

    /// Enters the calling thread among those who sleep.
    pub(crate) fn enlist(self: &Arc<Self>) -> Option<Enlisted> {
        let event = own_event()?;
        let name = self.lock().waiters.add(&event);
        Some(Enlisted {
            connection: Arc::clone(self),
            name,
        })
    }

    /// Whether some thread is at it.
    pub(crate) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// Bytes of the stream that wait here for the application.
    pub(crate) fn unread(&self) -> u64 {
        self.lock().session.unread()
    }
}

fn is_suspended(state: &State) -> bool {
    let end = state.session.peer_end();
    matches!(end, Some((End::Suspended, at)) if state.session.consumed_offset() >= at)
}
