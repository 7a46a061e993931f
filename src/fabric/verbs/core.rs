//! What all endpoints and listeners of one fabric share.
//!
//! Owns the epoll set, the table that finds the object of an event by its number, the events that
//! wait for `Fabric::poll`, the one timer, and the cache of registrations. Decides nothing about
//! connections.
//!
//! The two libraries know objects by number only, so an event for one that is gone finds nothing.
//!
//! Locks: `objects`, `timed`, `events` and `deadline` are leaves; none is held while an object is
//! told anything, and none together with another.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Options;
use super::completions::Pool;
use super::device::Settings;
use super::endpoint::VerbsEndpoint;
use super::exit;
use super::leaving::{Leaving, Undelivered};
use super::listener::Listening;
use super::sys::{Channel, CmEvent, CmKind, Conn, DeviceEvent, DeviceId, Devices, Mr};
use crate::fabric::Event;
use crate::fabric::regcache::{self, Cache};
use crate::fabric::soft::host_addresses;
use crate::fabric::soft::sys::{self as os, Epoll};

/// Identifiers in the epoll set; those of objects begin at `FIRST`, devices stand between.
const WAKE: u64 = 0;
const TIMER: u64 = 1;
const ROUTES: u64 = 2;
const CONNECTIONS: u64 = 3;
const DEVICES: u64 = 16;
const FIRST: u64 = 1 << 10;

/// Connection events that one call handles at most.
const BATCH: usize = 256;
/// How long the end of the fabric may wait for what is leaving.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer of the devices about the local addresses counts while those stay the same.
const ANSWER: Duration = Duration::from_secs(1);

/// Who an event may be for.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Endpoint {
        endpoint: Weak<VerbsEndpoint>,
        /// It was accepted, and the peer has yet to say that it knows.
        unconfirmed: bool,
    },
    Listening(Arc<Listening>),
    /// The rest of a connection that was closed before all was said.
    Leaving(Arc<Leaving>),
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) me: Weak<Self>,
    pub(super) channel: Arc<Channel>,
    pub(super) settings: Settings,
    /// Registrations for local use, each in the domain of its connection.
    pub(super) cache: Cache<Mr>,
    /// Where completions come out.
    pub(super) completions: Pool,
    devices: Devices,
    epoll: Epoll,
    wake: OwnedFd,
    timer: OwnedFd,
    routes: Option<OwnedFd>,
    objects: Mutex<HashMap<u64, Object>>,
    /// Endpoints that want to be told of the time, and when.
    timed: Mutex<HashMap<u64, Instant>>,
    events: Mutex<Events>,
    deadline: Mutex<Option<Instant>>,
    next: AtomicU64,
    served: Mutex<Option<Served>>,
}

/// What the devices said about the local addresses.
#[derive(Debug)]
struct Served {
    asked: Instant,
    host: Vec<IpAddr>,
    served: Vec<IpAddr>,
}

/// Events that wait for `Fabric::poll`.
#[derive(Default)]
struct Events(Vec<Event>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events", self.0.len())
    }
}

/// Whether a device can serve an address at all; those of one host are for the host itself.
fn may_be_served(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified(),
        // A link-local address means nothing without its interface.
        IpAddr::V6(v6) => {
            !v6.is_loopback() && !v6.is_unspecified() && v6.segments()[0] & 0xFFC0 != 0xFE80
        }
    }
}

impl Core {
    /// Fails with `NotFound` where there is no device.
    pub(super) fn new(options: Options) -> io::Result<Arc<Self>> {
        let channel = Channel::open()?;
        let devices = Devices::open()?;
        let limits: Vec<_> = devices
            .iter()
            .filter_map(|device| device.limits().ok())
            .collect();
        if limits.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let epoll = Epoll::new()?;
        let wake = os::event()?;
        let timer = os::timer()?;
        epoll.add(wake.as_fd(), WAKE)?;
        epoll.add(timer.as_fd(), TIMER)?;
        epoll.add(channel.descriptor(), CONNECTIONS)?;
        for (device, id) in devices.iter().zip(DEVICES..FIRST) {
            epoll.add(device.descriptor()?, id)?;
        }
        // RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR. Where that is not permitted, changes of the
        // addresses are not reported; `addresses` is right nevertheless.
        let routes = os::netlink(libc::NETLINK_ROUTE, 0x10 | 0x100).ok();
        if let Some(routes) = &routes {
            epoll.add(routes.as_fd(), ROUTES)?;
        }
        let random = os::random_u64()?;
        let entries = limits.iter().map(|limits| limits.max_completions).min();
        let completions = Pool::new(options.sharing, entries.unwrap_or(0))?;
        let core = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            channel,
            settings: Settings::new(&limits, options),
            cache: Cache::new(regcache::Options::from_environment()),
            completions,
            devices,
            epoll,
            wake,
            timer,
            routes,
            objects: Mutex::default(),
            timed: Mutex::default(),
            events: Mutex::default(),
            deadline: Mutex::default(),
            // A second copy of this library in the process has the same devices, and hears of our
            // queues; its numbers are to be others.
            next: AtomicU64::new(FIRST + (random >> 1)),
            served: Mutex::default(),
        });
        exit::enter(&core);
        Ok(core)
    }

    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.fd()
    }

    /// The local addresses that an RDMA device serves.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let host = host_addresses();
        let mut known = self.served.lock();
        if let Some(known) = &*known
            && known.host == host
            && known.asked.elapsed() < ANSWER
        {
            return known.served.clone();
        }
        let served: Vec<_> = host
            .iter()
            .copied()
            .filter(|&ip| may_be_served(ip) && self.channel.serves(ip))
            .collect();
        *known = Some(Served {
            asked: Instant::now(),
            host,
            served: served.clone(),
        });
        served
    }

    // ---- objects ----

    /// A new number for an object.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn keep(&self, number: u64, object: Object) {
        self.objects.lock().insert(number, object);
    }

    pub(super) fn forget(&self, number: u64) {
        let gone = self.objects.lock().remove(&number);
        self.timed.lock().remove(&number);
        drop(gone);
    }

    /// Nothing more has to be heard of the peer of an accepted endpoint.
    pub(super) fn confirm(&self, number: u64) {
        if let Some(Object::Endpoint { unconfirmed, .. }) = self.objects.lock().get_mut(&number) {
            *unconfirmed = false;
        }
    }

    /// An endpoint goes, after it has hung up if nothing is undelivered.
    pub(super) fn part(&self, number: u64, conn: &Arc<Conn>, undelivered: Option<Undelivered>) {
        let leaves = {
            // In one step: what the connection manager says finds the one or the other.
            let mut objects = self.objects.lock();
            match objects.get_mut(&number) {
                Some(object @ Object::Endpoint { .. }) => {
                    let unconfirmed = matches!(
                        object,
                        Object::Endpoint {
                            unconfirmed: true,
                            ..
                        }
                    );
                    let leaves = unconfirmed || undelivered.is_some();
                    if leaves {
                        let patience = self.settings.patience;
                        let leaving = Leaving::new(conn, undelivered, unconfirmed, patience);
                        *object = Object::Leaving(Arc::new(leaving));
                    }
                    leaves
                }
                _ => false,
            }
        };
        if leaves {
            // Its turn says when the next one is.
            self.schedule(number, Instant::now());
        } else {
            self.forget(number);
        }
    }

    fn find(&self, number: u64) -> Option<Object> {
        self.objects.lock().get(&number).cloned()
    }

    fn endpoint(&self, number: u64) -> Option<Arc<VerbsEndpoint>> {
        match self.find(number)? {
            Object::Endpoint { endpoint, .. } => endpoint.upgrade(),
            _ => None,
        }
    }

    /// All endpoints, and whether the peer has yet to say that it knows.
    fn endpoints(&self) -> Vec<(Arc<VerbsEndpoint>, bool)> {
        let objects = self.objects.lock();
        let endpoints = objects.values().filter_map(|object| match object {
            Object::Endpoint {
                endpoint,
                unconfirmed,
            } => Some((endpoint.upgrade()?, *unconfirmed)),
            _ => None,
        });
        endpoints.collect()
    }

    // ---- descriptors ----

    /// Reports the readiness of an endpoint's descriptor once, after each `rearm`.
    pub(super) fn attach(&self, number: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.add_disarmed(fd, number)
    }

    pub(super) fn rearm(&self, number: u64, fd: BorrowedFd<'_>) {
        if let Err(error) = self.epoll.arm_once(fd, number) {
            tracing::error!(%error, "an endpoint cannot be watched");
        }
    }

    pub(super) fn detach(&self, fd: BorrowedFd<'_>) {
        self.epoll.remove(fd);
    }

    // ---- events and time ----

    /// Adds an event and wakes whoever waits for `readiness`.
    pub(super) fn tell(&self, event: Event) {
        self.events.lock().0.push(event);
        os::signal(self.wake.as_fd());
    }

    /// As `tell`, if `still` says so while no event can be taken out or added. Otherwise the event
    /// comes back.
    pub(super) fn tell_if(&self, still: impl FnOnce() -> bool, event: Event) -> Option<Event> {
        let mut events = self.events.lock();
        if !still() {
            return Some(event);
        }
        events.0.push(event);
        drop(events);
        os::signal(self.wake.as_fd());
        None
    }

    /// Takes back events that nobody has seen yet.
    pub(super) fn retract(&self, mut which: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = self.events.lock();
        let (back, stay) = std::mem::take(&mut events.0)
            .into_iter()
            .partition(|event| which(event));
        events.0 = stay;
        back
    }

    /// Tells an endpoint of the time, at `when` or before.
    pub(super) fn schedule(&self, number: u64, when: Instant) {
        {
            let mut timed = self.timed.lock();
            let at = timed.entry(number).or_insert(when);
            *at = when.min(*at);
        }
        self.set_timer(when);
    }

    /// Has the timer go off at `when` or before.
    fn set_timer(&self, when: Instant) {
        let mut deadline = self.deadline.lock();
        if deadline.is_none_or(|earlier| when < earlier) {
            *deadline = Some(when);
            let delay = when.saturating_duration_since(Instant::now());
            if let Err(error) = os::set_timer(self.timer.as_fd(), delay) {
                tracing::warn!(%error, "the timer of the fabric cannot be set");
            }
        }
    }

    pub(super) fn poll(&self, into: &mut Vec<Event>) {
        let mut ready = Vec::new();
        // What the batch has no room for is reported by the next call.
        self.epoll.ready(&mut ready);
        for ready in ready {
            match ready.id {
                WAKE => os::drain(self.wake.as_fd()),
                TIMER => self.tick(),
                ROUTES => self.drain_routes(),
                CONNECTIONS => self.drain_connections(),
                id if id < FIRST => self.drain_device(id - DEVICES),
                id => {
                    if let Some(endpoint) = self.endpoint(id) {
                        endpoint.ready();
                    }
                }
            }
        }
        into.append(&mut self.events.lock().0);
    }

    fn drain_connections(&self) {
        for _ in 0..BATCH {
            match self.channel.next() {
                Ok(Some(event)) => self.dispatch(event),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a connection event was lost");
                    return;
                }
            }
        }
    }

    fn dispatch(&self, event: CmEvent) {
        tracing::trace!(?event.kind, event.context, event.status, "connection event");
        if event.kind.settles() {
            self.confirm(event.context);
        }
        match self.find(event.context) {
            Some(Object::Listening(listening)) if event.kind == CmKind::Request => {
                listening.requested(self, event);
            }
            Some(Object::Endpoint { endpoint, .. }) => {
                if let Some(endpoint) = endpoint.upgrade() {
                    endpoint.connection_event(&event);
                }
            }
            Some(Object::Leaving(leaving)) if event.kind == CmKind::Established => {
                if leaving.confirmed() {
                    self.forget(event.context);
                }
            }
            Some(Object::Leaving(leaving)) if event.kind.settles() => {
                leaving.hang_up();
                self.forget(event.context);
            }
            // A request to a listener that is gone is refused by dropping it.
            Some(Object::Listening(_) | Object::Leaving(_)) | None => {}
        }
    }

    fn drain_device(&self, index: u64) {
        let device = usize::try_from(index)
            .ok()
            .and_then(|index| self.devices.get(index));
        let Some(device) = device else { return };
        for _ in 0..BATCH {
            match device.next() {
                Ok(Some(event)) => self.device_event(device.id(), event),
                Ok(None) => return,
                Err(error) => {
                    // The kernel has taken it away. Its descriptor would be ready for ever.
                    tracing::debug!(%error, "nothing more is heard of a device");
                    if let Ok(descriptor) = device.descriptor() {
                        self.epoll.remove(descriptor);
                    }
                    self.device_event(device.id(), DeviceEvent::Gone);
                    return;
                }
            }
        }
    }

    /// A device says something about itself.
    pub(super) fn device_event(&self, device: DeviceId, event: DeviceEvent) {
        match event {
            DeviceEvent::Other(code) => tracing::debug!(code, "device event"),
            DeviceEvent::QueueBroken(number) => {
                if let Some(endpoint) = self.endpoint(number) {
                    endpoint.lose_device();
                }
            }
            DeviceEvent::CompletionsBroken(number) => {
                let Some(set) = self.completions.find(number) else {
                    return;
                };
                tracing::warn!("a completion queue is broken");
                // Those of all who share it.
                let endpoints = set.connections();
                for endpoint in endpoints.into_iter().filter_map(|one| self.endpoint(one)) {
                    endpoint.lose_device();
                    // What is flushed does not come out of it.
                    endpoint.abandon();
                }
            }
            DeviceEvent::PortDown(port) => {
                tracing::warn!(port, "a port of an RDMA device is down");
                self.end_all_on(device, Some(port));
            }
            DeviceEvent::Gone => {
                tracing::warn!("an RDMA device has failed");
                self.end_all_on(device, None);
            }
            DeviceEvent::Changed => {
                *self.served.lock() = None;
                self.events.lock().0.push(Event::AddressesChanged);
            }
        }
    }

    /// Ends every connection over a port of a device, or over the whole device, which has gone.
    fn end_all_on(&self, device: DeviceId, port: Option<u8>) {
        *self.served.lock() = None;
        for (endpoint, _) in self.endpoints() {
            if endpoint.is_on(device, port) {
                endpoint.lose_device();
                if port.is_none() {
                    // It will not flush any more.
                    endpoint.abandon();
                }
            }
        }
        self.events.lock().0.push(Event::AddressesChanged);
    }

    fn tick(&self) {
        os::drain(self.timer.as_fd());
        *self.deadline.lock() = None;
        // A process that stood still finds its timer due and the peers' words beside it.
        self.drain_connections();
        let now = Instant::now();
        let mut due = Vec::new();
        let mut next = None::<Instant>;
        self.timed.lock().retain(|&number, &mut when| {
            if when <= now {
                due.push(number);
            } else {
                next = Some(next.map_or(when, |next| next.min(when)));
            }
            when > now
        });
        if let Some(next) = next {
            self.set_timer(next);
        }
        for number in due {
            let again = match self.find(number) {
                Some(Object::Endpoint { endpoint, .. }) => {
                    endpoint.upgrade().and_then(|endpoint| endpoint.tick(now))
                }
                Some(Object::Leaving(leaving)) => {
                    let again = leaving.advance(now);
                    if again.is_none() {
                        self.forget(number);
                    }
                    again
                }
                Some(Object::Listening(_)) | None => None,
            };
            if let Some(again) = again {
                self.schedule(number, again.max(now + Duration::from_millis(1)));
            }
        }
    }

    fn drain_routes(&self) {
        let Some(routes) = &self.routes else { return };
        let mut buffer = [0; 4096];
        // Truncated, lost or whole: in any case something changed.
        while os::receive_message(routes.as_fd(), &mut buffer).is_ok() {}
        *self.served.lock() = None;
        self.events.lock().0.push(Event::AddressesChanged);
    }
}

impl Core {
    /// The process ends: stays until then for messages that were reported as sent, for peers that
    /// have yet to learn that they were accepted, and for what is leaving.
    // req: WSD-11
    pub(super) fn deliver(&self, until: Instant) {
        loop {
            self.drain_connections();
            // Every one of them is asked.
            let owing = self
                .endpoints()
                .iter()
                .filter(|(endpoint, unconfirmed)| endpoint.has_to_stay(*unconfirmed))
                .count();
            if owing == 0 || Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.see_off(until);
    }

    /// Gives the peers of what is leaving the time to hear what there is to say.
    fn see_off(&self, until: Instant) {
        loop {
            let leaving: Vec<_> = self
                .objects
                .lock()
                .iter()
                .filter_map(|(&number, object)| match object {
                    Object::Leaving(leaving) => Some((number, Arc::clone(leaving))),
                    _ => None,
                })
                .collect();
            if leaving.is_empty() || Instant::now() >= until {
                return;
            }
            for (number, leaving) in leaving {
                if leaving.advance(Instant::now()).is_none() {
                    self.forget(number);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
            self.drain_connections();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.see_off(Instant::now() + LAST_PATIENCE);
        let (cache, stats) = (self.cache.describe(), self.cache.stats());
        tracing::debug!(cache, ?stats, "registrations at the end");
    }
}
