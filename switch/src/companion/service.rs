//! The part of upgrades that is nobody's call: finding the peer, and what calls have left undone.
//!
//! Owns the beacons (who connected puts one up at its own address), the attempts to reach the
//! peers' beacons (who accepted), and the list of companions that need a look. All of it is done on
//! the switch's service thread, never on the application's. Invariant: the desk is locked by that
//! thread only; everybody else leaves a note among the arrivals.

use std::collections::hash_map::{Entry, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wsd_proto::CompanionInfo;
use wsdirect::abi;

use super::cache::NegativeCache;
use super::rules::{self, Verdict};
use super::state::Stage;
use super::waiting::{Chore, Next};
use super::{Companion, Reason, Role, fork, kernel, registry};
use crate::conn::{self, Chores, Connection};
use crate::options::{SendPolicy, StreamOptions};
use crate::route;
use crate::socket::SanSocket;
use crate::switch::Switch;
use crate::sys::{self, PollFd, PollSet};

/// Between the attempts to reach a beacon, which may be put up a little later.
const RETRIES: [Duration; 8] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(500),
];
/// How long a beacon stays up for a connection.
const BEACON_TIME: Duration = Duration::from_secs(60);
/// For the peer's provider to answer.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const NEGOTIATION_TIME: Duration = Duration::from_secs(10);
/// How long to wait for a connection that is still being made.
const UNCONNECTED_TIME: Duration = Duration::from_secs(60);
/// Looks at a companion that needs some begin and end with these pauses.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// How long a closed connection's marker may wait for room in the kernel.
const FAREWELL: Duration = Duration::from_secs(120);
/// After so long its own calls, and what arrives, do the rest.
const LOOKING: Duration = Duration::from_secs(2);

enum Arrival {
    Seek(Arc<Companion>),
    Need(Weak<Companion>),
    Serve(Arc<dyn Chore>),
    /// Closed by the application, but something is still to be said.
    Farewell(Arc<Companion>),
}

struct Beacon {
    at: SocketAddr,
    socket: SanSocket,
    guests: Vec<Guest>,
}

struct Guest {
    companion: Weak<Companion>,
    tuple: CompanionInfo,
    peer: SocketAddr,
    until: Instant,
}

struct Attempt {
    companion: Arc<Companion>,
    local: SocketAddr,
    peer: SocketAddr,
    socket: Option<SanSocket>,
    tries: usize,
    due: Instant,
}

struct Need {
    companion: Weak<Companion>,
    /// Kept until the end, when the application has let go of it.
    keep: Option<Arc<Companion>>,
    due: Option<Instant>,
    pause: Duration,
    since: Instant,
    /// A duplicate of the TCP socket, told of each arrival.
    watched: Option<OwnedFd>,
}

/// Not connected yet.
struct Unconnected {
    companion: Arc<Companion>,
    due: Instant,
    pause: Duration,
    until: Instant,
}

/// Something done for a waiter.
struct Served {
    chore: Arc<dyn Chore>,
    next: Next,
    /// In the set.
    watched: Option<RawFd>,
}

#[derive(Default)]
struct Desk {
    chores: Vec<Served>,
    beacons: Vec<Beacon>,
    attempts: Vec<Attempt>,
    needs: Vec<Need>,
    unconnected: Vec<Unconnected>,
    silent: NegativeCache,
}

struct Clerk {
    arrivals: Mutex<Vec<Arrival>>,
    desk: Mutex<Desk>,
    set: PollSet,
    /// All chores are to be done.
    kicked: AtomicBool,
}

/// Who waits for a session with this tuple, as the session's connector sees it.
static GUESTS: Mutex<Option<HashMap<CompanionInfo, Weak<Companion>>>> = Mutex::new(None);

static CLERK: OnceLock<Clerk> = OnceLock::new();

/// Whether the service thread has anything to do with companions in this process.
pub(super) fn is_running() -> bool {
    CLERK.get().is_some()
}

fn clerk() -> io::Result<&'static Clerk> {
    if let Some(clerk) = CLERK.get() {
        return Ok(clerk);
    }
    let made = Clerk {
        arrivals: Mutex::default(),
        desk: Mutex::default(),
        set: PollSet::new()?,
        kicked: AtomicBool::new(false),
    };
    let clerk = CLERK.get_or_init(|| made);
    conn::employ(clerk)?;
    Ok(clerk)
}

fn note(arrival: Arrival) -> io::Result<()> {
    clerk()?.arrivals.lock().push(arrival);
    conn::kick();
    Ok(())
}

/// Has the peer sought for an upgrade. `fd` is the application's.
pub(super) fn seek(companion: &Companion, fd: RawFd) {
    let Some(me) = companion.me.upgrade() else {
        return;
    };
    {
        let mut core = companion.core.lock();
        if core.stage != Stage::Idle || core.closed || core.held {
            return;
        }
        if !companion.is_alone() || fork::is_orphaned() {
            drop(core);
            companion.set_reason(Reason::Fork);
            companion.retrigger();
            return;
        }
        match kernel::duplicate(fd) {
            Ok(own) => core.tcp = Some(own),
            Err(error) => {
                tracing::debug!(%error, "no descriptor for an upgrade");
                companion.set_reason(Reason::NoDescriptors);
                companion.retrigger();
                return;
            }
        }
        core.stage = Stage::Seeking;
    }
    companion.shown.offering();
    if note(Arrival::Seek(me)).is_err() {
        companion.give_up(Reason::NoDescriptors);
    }
}

pub(super) fn serve(chore: Arc<dyn Chore>) -> io::Result<()> {
    note(Arrival::Serve(chore))
}

pub(super) fn kick() {
    if let Ok(clerk) = clerk() {
        clerk.kicked.store(true, Ordering::SeqCst);
        conn::kick();
    }
}

/// See [`Companion::leave`].
pub(super) fn leave() {
    let companions = registry::all_at_once();
    let mut parted = false;
    for companion in companions {
        parted |= matches!(companion.stage(), Stage::Up | Stage::Joining);
        companion.part();
    }
    if parted {
        conn::flush_at_end();
    }
}

/// Has a companion looked after soon.
pub(super) fn need(companion: &Arc<Companion>) {
    need_weak(Arc::downgrade(companion));
}

/// Has a closed companion's last word said.
pub(super) fn farewell(companion: Arc<Companion>) {
    drop(note(Arrival::Farewell(companion)));
}

pub(super) fn need_weak(companion: Weak<Companion>) {
    drop(note(Arrival::Need(companion)));
}

fn plain(address: SocketAddr) -> SocketAddr {
    match (route::canonical(&address.ip()), address) {
        (IpAddr::V4(v4), _) => SocketAddr::from((v4, address.port())),
        (IpAddr::V6(_), address) => address,
    }
}

fn end(address: SocketAddr) -> ([u8; 16], u16) {
    let bytes = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    (bytes, address.port())
}

fn options() -> StreamOptions {
    // A lent buffer could not be taken back when a signal comes.
    StreamOptions::new().send_policy(SendPolicy::Background)
}

impl Companion {
    /// The upgrade has failed, for now.
    pub(super) fn give_up(&self, reason: Reason) {
        let mut core = self.core.lock();
        if matches!(core.stage, Stage::Seeking | Stage::Joining) {
            core.stage = Stage::Idle;
        }
        if core.stage != Stage::Up {
            core.tcp = None;
            self.set_reason(reason);
        }
        drop(core);
        self.retrigger();
    }

    /// The kernel carries it for good.
    fn never(&self, reason: Reason) {
        let mut core = self.core.lock();
        core.stage = Stage::Never;
        core.tcp = None;
        drop(core);
        self.set_reason(reason);
    }

    fn stage(&self) -> Stage {
        self.core.lock().stage
    }
}

impl Chores for Clerk {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }

    fn step(&self, now: Instant) -> Option<Instant> {
        self.set.take_edges();
        let arrivals = std::mem::take(&mut *self.arrivals.lock());
        let mut desk = self.desk.lock();
        for arrival in arrivals {
            match arrival {
                Arrival::Seek(companion) => self.sort(&mut desk, companion, now, None),
                Arrival::Serve(chore) => desk.chores.push(Served {
                    chore,
                    next: Next {
                        sleep_on: None,
                        due: Some(now),
                        done: false,
                    },
                    watched: None,
                }),
                Arrival::Need(companion) => self.list(&mut desk, companion, None, now),
                Arrival::Farewell(companion) => {
                    let weak = Arc::downgrade(&companion);
                    self.list(&mut desk, weak, Some(companion), now);
                }
            }
        }
        self.wait_for_connections(&mut desk, now);
        self.attend_beacons(&mut desk, now);
        self.attempt(&mut desk, now);
        self.look_after(&mut desk, now);
        let due_chore = self.do_chores(&mut desk.chores, now);
        let beacons = desk.beacons.iter().flat_map(|beacon| &beacon.guests);
        let due = [
            due_chore,
            beacons.map(|guest| guest.until).min(),
            desk.attempts.iter().map(|attempt| attempt.due).min(),
            desk.needs.iter().filter_map(|need| need.due).min(),
            desk.unconnected.iter().map(|waiting| waiting.due).min(),
        ];
        due.into_iter().flatten().min()
    }

    fn at_exit(&self) {
        for companion in registry::all_at_once() {
            companion.part();
        }
    }
}

impl Clerk {
    /// What is to become of a companion whose upgrade is wanted.
    fn sort(
        &self,
        desk: &mut Desk,
        companion: Arc<Companion>,
        now: Instant,
        waiting: Option<(Duration, Instant)>,
    ) {
        let names = {
            let core = companion.core.lock();
            if core.stage != Stage::Seeking {
                return;
            }
            let Some(fd) = core.tcp.as_ref().map(AsRawFd::as_raw_fd) else {
                return;
            };
            kernel::number(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT)
                .ok_or(Reason::Closing)
                .and_then(|least| match least {
                    ..=1 => Ok(kernel::names(fd)),
                    // The kernel would not wake a receiver for the marker.
                    _ => Err(Reason::UnsupportedCall),
                })
        };
        let (local, peer) = match names {
            Ok(Ok((local, peer))) => (plain(local), plain(peer)),
            Ok(Err(_)) => {
                let (pause, until) =
                    waiting.unwrap_or((Duration::from_millis(1), now + UNCONNECTED_TIME));
                if now >= until {
                    companion.give_up(Reason::Closing);
                    return;
                }
                desk.unconnected.push(Unconnected {
                    companion,
                    due: now + pause,
                    pause,
                    until,
                });
                return;
            }
            Err(reason) => return companion.never(reason),
        };
        companion.shown.addresses(local, peer);
        match rules::active().decide(companion.role, local, peer) {
            Verdict::Tcp => return companion.never(Reason::Rule),
            Verdict::San if !companion.is_worth_it() => return companion.not_yet(),
            Verdict::San | Verdict::Eager => {}
        }
        let server = match companion.role {
            Role::Connected => peer.port(),
            Role::Accepted => local.port(),
        };
        if desk.silent.forbids(peer.ip(), server, now) {
            return companion.give_up(Reason::NegativeCache);
        }
        match companion.role {
            Role::Connected => self.put_up(desk, companion, local, peer, now),
            Role::Accepted => desk.attempts.push(Attempt {
                companion,
                local,
                peer,
                socket: None,
                tries: 0,
                due: now,
            }),
        }
    }

    fn wait_for_connections(&self, desk: &mut Desk, now: Instant) {
        let mut due = Vec::new();
        desk.unconnected.retain(|waiting| {
            let over = waiting.due <= now;
            if over {
                let pause = (waiting.pause * 2).min(Duration::from_secs(1));
                due.push((Arc::clone(&waiting.companion), pause, waiting.until));
            }
            !over
        });
        for (companion, pause, until) in due {
            self.sort(desk, companion, now, Some((pause, until)));
        }
    }

    // ---- waiters' chores

    fn do_chores(&self, chores: &mut Vec<Served>, now: Instant) -> Option<Instant> {
        let kicked = self.kicked.swap(false, Ordering::SeqCst);
        chores.retain_mut(|served| {
            let readable = served
                .watched
                .is_some_and(|fd| kernel::poll_now(fd, libc::POLLIN) != 0);
            let due = served.next.due.is_some_and(|due| due <= now);
            if !(kicked || readable || due) {
                return true;
            }
            served.next = served.chore.step(readable);
            let wanted = served.next.sleep_on.filter(|_| !served.next.done);
            if served.watched != wanted {
                if let Some(before) = served.watched {
                    self.set.remove_number(before);
                }
                served.watched = wanted.filter(|fd| self.set.add_number(*fd));
            }
            !served.next.done
        });
        chores.iter().filter_map(|served| served.next.due).min()
    }

    // ---- what calls leave undone

    fn list(
        &self,
        desk: &mut Desk,
        companion: Weak<Companion>,
        keep: Option<Arc<Companion>>,
        now: Instant,
    ) {
        let known = desk
            .needs
            .iter_mut()
            .find(|need| need.companion.ptr_eq(&companion));
        if let Some(need) = known {
            need.due = Some(now);
            need.pause = FIRST_LOOK;
            need.since = now;
            need.keep = keep.or(need.keep.take());
            return;
        }
        let watched = companion.upgrade().and_then(|companion| {
            let mut core = companion.core.lock();
            let tcp = core.tcp.as_ref()?;
            let own = kernel::duplicate(tcp.as_raw_fd()).ok()?;
            self.set.add_for_edges(own.as_fd()).ok()?;
            core.watched = Some(own.as_raw_fd());
            Some(own)
        });
        desk.needs.push(Need {
            companion,
            keep,
            due: Some(now),
            pause: FIRST_LOOK,
            since: now,
            watched,
        });
    }

    fn look_after(&self, desk: &mut Desk, now: Instant) {
        desk.needs.retain_mut(|need| {
            let companion = need.companion.upgrade();
            let again = companion.as_ref().is_some_and(|companion| companion.tend());
            if need.due.is_some_and(|due| due <= now) {
                need.pause = (need.pause * 2).min(LAST_LOOK);
                need.due = Some(now + need.pause);
            }
            let handed = companion
                .as_ref()
                .is_some_and(|companion| companion.is_leaving());
            if now > need.since + LOOKING && !(again && need.keep.is_some()) && !handed {
                // From now on only arrivals matter.
                need.due = None;
            }
            let stays = again && (need.keep.is_none() || now < need.since + FAREWELL);
            if !stays && let Some(watched) = need.watched.take() {
                // Under its lock: whoever forks has the number, or the descriptor is closed.
                let mut core = companion.as_ref().map(|companion| companion.core.lock());
                self.set.remove(watched.as_fd());
                kernel::close(watched);
                if let Some(core) = &mut core {
                    core.watched = None;
                }
            }
            stays
        });
    }

    // ---- who connected: beacons

    fn put_up(
        &self,
        desk: &mut Desk,
        companion: Arc<Companion>,
        local: SocketAddr,
        peer: SocketAddr,
        now: Instant,
    ) {
        // As the other side, which will be the session's connector, sees it.
        let tuple = CompanionInfo {
            local: end(peer),
            peer: end(local),
        };
        let known = desk.beacons.iter().position(|beacon| beacon.at == local);
        let place = match known {
            Some(place) => place,
            None => match self.beacon(desk, local, peer) {
                Ok(beacon) => {
                    desk.beacons.push(beacon);
                    desk.beacons.len() - 1
                }
                Err(reason) => return companion.give_up(reason),
            },
        };
        let guest = Guest {
            companion: Arc::downgrade(&companion),
            tuple,
            peer,
            until: now + BEACON_TIME,
        };
        GUESTS
            .lock()
            .get_or_insert_default()
            .insert(tuple, Arc::downgrade(&companion));
        if let Some(beacon) = desk.beacons.get_mut(place) {
            beacon.guests.push(guest);
        }
    }

    fn beacon(&self, desk: &Desk, at: SocketAddr, peer: SocketAddr) -> Result<Beacon, Reason> {
        if desk.beacons.len() >= sys::descriptor_limit() / 8 {
            return Err(Reason::NoDescriptors);
        }
        let provider = Switch::global()
            .provider_towards(peer.ip())
            .map_err(|reason| no_provider(&reason))?;
        let mut socket = SanSocket::bound(&provider, at).map_err(|error| {
            tracing::debug!(?error, %at, "no beacon");
            Reason::NoProvider
        })?;
        let selected = socket.event_select(abi::FD_ACCEPT);
        selected.map_err(|_| Reason::NoDescriptors)?;
        socket.listen(16).map_err(|error| {
            tracing::debug!(%error, %at, "no beacon");
            Reason::NoProvider
        })?;
        if let Some(event) = socket.event() {
            let added = self.set.add(event.as_fd());
            added.map_err(|_| Reason::NoDescriptors)?;
        }
        Ok(Beacon {
            at,
            socket,
            guests: Vec::new(),
        })
    }

    fn attend_beacons(&self, desk: &mut Desk, now: Instant) {
        let Desk {
            beacons, silent, ..
        } = desk;
        if !beacons.is_empty() {
            let signalled = signalled(beacons);
            for (beacon, _) in beacons.iter().zip(signalled).filter(|(_, on)| *on) {
                if let Some(why) = beacon.answer() {
                    beacon.send_away(why);
                }
            }
        }
        for beacon in beacons.iter_mut() {
            beacon.guests.retain(|guest| {
                let companion = guest.companion.upgrade();
                let stage = companion.as_ref().map(|companion| companion.stage());
                let stays = match stage {
                    Some(Stage::Seeking) => guest.until > now,
                    Some(Stage::Joining) => true,
                    _ => false,
                };
                if !stays {
                    if let Some(guests) = &mut *GUESTS.lock()
                        && let Entry::Occupied(known) = guests.entry(guest.tuple)
                        // Not the companion of a later connection between the same ports.
                        && known.get().ptr_eq(&guest.companion)
                    {
                        known.remove();
                    }
                    if stage == Some(Stage::Seeking)
                        && let Some(companion) = companion
                    {
                        silent.failed(guest.peer.ip(), guest.peer.port(), now);
                        companion.give_up(Reason::PeerSilent);
                    }
                }
                stays
            });
        }
        beacons.retain_mut(|beacon| {
            if beacon.guests.is_empty() {
                self.unwatch(&mut beacon.socket);
            }
            !beacon.guests.is_empty()
        });
    }

    // ---- who accepted: attempts

    fn attempt(&self, desk: &mut Desk, now: Instant) {
        let Desk {
            attempts, silent, ..
        } = desk;
        attempts.retain_mut(|attempt| {
            if attempt.companion.stage() == Stage::Seeking {
                return attempt.step(self, silent, now);
            }
            self.forget(attempt.socket.take());
            false
        });
    }

    /// Lets go of a socket whose event was watched.
    fn forget(&self, socket: Option<SanSocket>) {
        if let Some(mut socket) = socket {
            self.unwatch(&mut socket);
        }
    }

    fn unwatch(&self, socket: &mut SanSocket) {
        if let Some(event) = socket.event() {
            self.set.remove(event.as_fd());
        }
        socket.release_event();
    }
}

impl Attempt {
    /// `false` if it is over.
    fn step(&mut self, clerk: &Clerk, silent: &mut NegativeCache, now: Instant) -> bool {
        let outcome = match &self.socket {
            None if self.due > now => return true,
            None => match self.open(clerk) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    self.due = now + CONNECT_TIME;
                    return true;
                }
                Err(outcome) => Err(outcome),
            },
            Some(socket) => match connected(socket) {
                None if self.due > now => return true,
                None => Err(None),
                Some(outcome) => outcome.map_err(|code| {
                    tracing::debug!(code, "no beacon answers");
                    (code == abi::WSAENOBUFS).then_some(Reason::NoMemory)
                }),
            },
        };
        match (outcome, self.socket.take()) {
            (Ok(()), Some(mut socket)) => {
                clerk.unwatch(&mut socket);
                silent.succeeded(self.peer.ip(), self.local.port());
                self.offer(socket);
                false
            }
            (Err(Some(reason)), socket) => {
                clerk.forget(socket);
                self.companion.give_up(reason);
                false
            }
            (_, socket) => {
                clerk.forget(socket);
                let Some(pause) = RETRIES.get(self.tries) else {
                    silent.failed(self.peer.ip(), self.local.port(), now);
                    self.companion.give_up(Reason::PeerSilent);
                    return false;
                };
                self.tries += 1;
                self.due = now + *pause;
                true
            }
        }
    }

    /// Begins to connect; `true` if connected at once. Without a reason another attempt may help.
    fn open(&mut self, clerk: &Clerk) -> Result<bool, Option<Reason>> {
        let provider = Switch::global()
            .provider_towards(self.peer.ip())
            .map_err(|reason| no_provider(&reason))?;
        let mut here = self.local;
        here.set_port(0);
        let mut socket = SanSocket::bound(&provider, here).map_err(|error| {
            tracing::debug!(?error, "no SAN socket for an upgrade");
            Reason::NoProvider
        })?;
        let selected = socket.event_select(abi::FD_CONNECT);
        selected.map_err(|_| Reason::NoDescriptors)?;
        let begun = socket.connect(self.peer);
        if matches!(begun, Ok(false))
            && let Some(event) = socket.event()
        {
            let added = clerk.set.add(event.as_fd());
            added.map_err(|_| Reason::NoDescriptors)?;
        }
        self.socket = Some(socket);
        begun.map_err(|error| {
            tracing::debug!(%error, "no beacon answers");
            (error.0 == abi::WSAENOBUFS).then_some(Reason::NoMemory)
        })
    }

    fn offer(&self, socket: SanSocket) {
        let companion = Arc::clone(&self.companion);
        {
            let mut core = companion.core.lock();
            if core.stage != Stage::Seeking {
                return;
            }
            core.stage = Stage::Joining;
        }
        let tuple = CompanionInfo {
            local: end(self.local),
            peer: end(self.peer),
        };
        let done = move |result| {
            companion.joined(result);
            conn::kick();
        };
        Connection::offer(socket, &options(), tuple, NEGOTIATION_TIME, Box::new(done));
    }
}

/// How the attempt to connect has ended, if it has.
fn connected(socket: &SanSocket) -> Option<Result<(), i32>> {
    let slot = usize::try_from(abi::FD_CONNECT_BIT).unwrap_or_default();
    match socket.enum_events() {
        Ok(events) if events.lNetworkEvents & abi::FD_CONNECT == 0 => None,
        Ok(events) => match events.iErrorCode.get(slot).copied().unwrap_or_default() {
            0 => Some(Ok(())),
            code => Some(Err(code)),
        },
        Err(error) => Some(Err(error.0)),
    }
}

impl Beacon {
    /// Takes who has come. What there is too little of to do so.
    fn answer(&self) -> Option<Reason> {
        if let Err(error) = self.socket.enum_events() {
            tracing::debug!(%error, "a beacon has failed");
        }
        loop {
            match self.socket.accept(&mut |(peer, _)| peer.is_some()) {
                Ok(socket) => answer(socket),
                Err(error) => match error.0 {
                    // This request is gone; there may be others.
                    abi::WSAECONNREFUSED
                    | abi::WSAECONNRESET
                    | abi::WSAECONNABORTED
                    | abi::WSAEACCES
                    | abi::WSAEINVALIDPROVIDER => {}
                    abi::WSAENOBUFS => return Some(Reason::NoMemory),
                    abi::WSAEMFILE => return Some(Reason::NoDescriptors),
                    _ => return None,
                },
            }
        }
    }

    /// Its guests cannot be served now. They ask again after more traffic.
    fn send_away(&self, why: Reason) {
        for companion in self
            .guests
            .iter()
            .filter_map(|guest| guest.companion.upgrade())
        {
            if companion.stage() == Stage::Seeking {
                companion.give_up(why);
            }
        }
    }
}

/// Negotiates with somebody who has come to a beacon.
fn answer(socket: SanSocket) {
    let found: Arc<Mutex<Option<Arc<Companion>>>> = Arc::default();
    let place = Arc::clone(&found);
    let admit = move |tuple: &CompanionInfo, session: [u8; 16]| {
        let companion = {
            let guests = GUESTS.lock();
            let known = guests.as_ref().and_then(|guests| guests.get(tuple));
            known.and_then(Weak::upgrade)
        };
        let admitted = companion.filter(|companion| companion.admit(session));
        let is_admitted = admitted.is_some();
        *place.lock() = admitted;
        is_admitted
    };
    let done = move |result: io::Result<Arc<Connection>>| {
        let companion = found.lock().take();
        match companion {
            Some(companion) => companion.joined(result),
            None => drop(result),
        }
        conn::kick();
    };
    Connection::answer(
        socket,
        &options(),
        Box::new(admit),
        NEGOTIATION_TIME,
        Box::new(done),
    );
}

/// The beacons whose event is signalled.
fn signalled(beacons: &[Beacon]) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = beacons
        .iter()
        .filter_map(|beacon| beacon.socket.event())
        .map(|event| PollFd::readable(event.as_fd()))
        .collect();
    match sys::wait(&mut fds, Some(Instant::now())) {
        Ok(0) => Vec::new(),
        Ok(_) => fds.iter().map(PollFd::is_ready).collect(),
        // Then each is asked.
        Err(_) => vec![true; fds.len()],
    }
}

fn no_provider(reason: &crate::reason::Reason) -> Reason {
    match reason {
        crate::reason::Reason::SwitchOff => Reason::SwitchOff,
        _ => Reason::NoProvider,
    }
}
