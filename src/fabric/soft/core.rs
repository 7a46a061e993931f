//! What all endpoints and listeners of one fabric share.
//!
//! Owns the epoll set, the table of what is watched in it, the events that wait for
//! `Fabric::poll`, and the one timer. It decides nothing about connections: it tells each watched
//! object that its descriptor is ready or that its time is over.
//!
//! Locks: `watched`, `events` and `deadline` are leaves; none is held while an object is told
//! anything, and none together with another.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::endpoint::SoftEndpoint;
use super::handshake::{Listening, Newcomer};
use super::process::Process;
use super::window::DESCRIPTOR_LEN;
use super::wire::Introduction;
use super::{Options, Rdma, sys};
use crate::fabric::{Caps, Event};

const MAX_PIECES: usize = 64;
/// Largest read or write; longer ones are moved in steps anyway.
const MAX_RDMA: usize = 1 << 30;

/// Identifiers in the epoll set; those of watched objects begin at `FIRST`.
const WAKE: u64 = 0;
const TIMER: u64 = 1;
const ROUTES: u64 = 2;
const FIRST: u64 = 16;

/// Something whose descriptor is in the epoll set.
#[derive(Clone, Debug)]
pub(super) enum Watched {
    Listening(Arc<Listening>),
    Newcomer(Arc<Newcomer>),
    Process(Weak<Process>),
    Endpoint(Weak<SoftEndpoint>),
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) me: Weak<Self>,
    pub(super) options: Options,
    caps: Caps,
    epoll: Epoll,
    wake: OwnedFd,
    timer: OwnedFd,
    routes: Option<OwnedFd>,
    /// Peers read it in this process's memory to learn whether they can.
    proof: Box<[u8; 16]>,
    watched: Mutex<HashMap<u64, Watched>>,
    events: Mutex<Events>,
    deadline: Mutex<Option<Instant>>,
    next: AtomicU64,
}

use sys::Epoll;

/// Events that wait for `Fabric::poll`.
#[derive(Default)]
struct Events(Vec<Event>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events", self.0.len())
    }
}

impl Core {
    pub(super) fn new(options: Options) -> io::Result<Arc<Self>> {
        let epoll = Epoll::new()?;
        let wake = sys::event()?;
        let timer = sys::timer()?;
        epoll.add(wake.as_fd(), WAKE)?;
        epoll.add(timer.as_fd(), TIMER)?;
        // RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR. Where that is not permitted, changes of the
        // addresses are not reported; `addresses` is right nevertheless.
        let routes = sys::netlink(libc::NETLINK_ROUTE, 0x10 | 0x100).ok();
        if let Some(routes) = &routes {
            epoll.add(routes.as_fd(), ROUTES)?;
        }
        let mut proof = Box::new([0; 16]);
        sys::random(proof.as_mut_slice())?;
        let caps = Caps {
            max_message: options.max_message,
            max_rdma: MAX_RDMA,
            rdma_threshold: options.rdma_threshold,
            rdma_read: options.rdma_read,
            max_pieces: MAX_PIECES,
            send_depth: options.send_depth,
            receive_depth: options.receive_depth,
            descriptor_len: DESCRIPTOR_LEN,
        };
        Ok(Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            options,
            caps,
            epoll,
            wake,
            timer,
            routes,
            proof,
            watched: Mutex::default(),
            events: Mutex::default(),
            deadline: Mutex::default(),
            next: AtomicU64::new(FIRST),
        }))
    }

    pub(super) fn caps(&self) -> Caps {
        self.caps.clone()
    }

    /// The limits without a copy.
    pub(super) fn limits(&self) -> &Caps {
        &self.caps
    }

    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.fd()
    }

    /// How this process introduces itself to a peer.
    pub(super) fn introduction(&self) -> Introduction {
        Introduction {
            pid: std::process::id(),
            proof_at: self.proof.as_ptr() as u64,
            proof: *self.proof,
            permits_direct: self.options.rdma != Rdma::Pipelined,
        }
    }

    /// A new identifier for `watch`.
    pub(super) fn identifier(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn watch(&self, id: u64, fd: BorrowedFd<'_>, object: Watched) -> io::Result<()> {
        self.keep(id, object);
        let added = self.attach(id, fd);
        if added.is_err() {
            drop(self.forget(id));
        }
        added
    }

    /// Tells the object of the timer, without a descriptor.
    pub(super) fn keep(&self, id: u64, object: Watched) {
        self.watched.lock().insert(id, object);
    }

    /// Watches a descriptor for an object that is kept already.
    pub(super) fn attach(&self, id: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.add(fd, id)
    }

    /// Stops to watch the descriptor; the object stays kept.
    pub(super) fn detach(&self, fd: BorrowedFd<'_>) {
        self.epoll.remove(fd);
    }

    /// Must precede the closing of `fd`.
    pub(super) fn unwatch(&self, id: u64, fd: BorrowedFd<'_>) {
        self.epoll.remove(fd);
        drop(self.forget(id));
    }

    pub(super) fn forget(&self, id: u64) -> Option<Watched> {
        self.watched.lock().remove(&id)
    }

    /// The watched objects that `choose` wants.
    pub(super) fn select<T>(&self, choose: impl FnMut(&Watched) -> Option<T>) -> Vec<T> {
        self.watched.lock().values().filter_map(choose).collect()
    }

    /// Adds an event and wakes whoever waits for `readiness`.
    pub(super) fn tell(&self, event: Event) {
        self.events.lock().0.push(event);
        sys::signal(self.wake.as_fd());
    }

    /// As `tell`, if `still` says so while no event can be taken out or added.
    pub(super) fn tell_if(&self, still: impl FnOnce() -> bool, event: Event) {
        let mut events = self.events.lock();
        if still() {
            events.0.push(event);
            drop(events);
            sys::signal(self.wake.as_fd());
        } else {
            drop(events);
            drop(event);
        }
    }

    /// Takes back events that nobody has seen yet.
    pub(super) fn retract(&self, mut which: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = self.events.lock();
        let (back, stay) = std::mem::take(&mut events.0)
            .into_iter()
            .partition(|e| which(e));
        events.0 = stay;
        back
    }

    /// Makes sure that the timer goes off at `when` or before.
    pub(super) fn schedule(&self, when: Instant) {
        let mut deadline = self.deadline.lock();
        if deadline.is_none_or(|earlier| when < earlier) {
            *deadline = Some(when);
            let delay = when.saturating_duration_since(Instant::now());
            if let Err(error) = sys::set_timer(self.timer.as_fd(), delay) {
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
                WAKE => sys::drain(self.wake.as_fd()),
                TIMER => self.tick(),
                ROUTES => self.drain_routes(),
                id => {
                    let object = self.watched.lock().get(&id).cloned();
                    match object {
                        Some(Watched::Listening(listening)) => listening.ready(self),
                        Some(Watched::Newcomer(newcomer)) => newcomer.ready(self),
                        Some(Watched::Process(process)) => {
                            if let Some(process) = process.upgrade() {
                                process.ready(self);
                            }
                        }
                        Some(Watched::Endpoint(endpoint)) => {
                            if let Some(endpoint) = endpoint.upgrade() {
                                endpoint.socket_ready(ready.hung_up);
                            }
                        }
                        None => {}
                    }
                }
            }
        }
        into.append(&mut self.events.lock().0);
    }

    fn tick(&self) {
        sys::drain(self.timer.as_fd());
        *self.deadline.lock() = None;
        let now = Instant::now();
        let objects = self.select(|object| match object {
            Watched::Process(_) => None,
            other => Some(other.clone()),
        });
        for object in objects {
            let again = match object {
                Watched::Process(_) => None,
                Watched::Listening(listening) => listening.tick(self, now),
                Watched::Newcomer(newcomer) => newcomer.tick(self, now),
                Watched::Endpoint(endpoint) => {
                    endpoint.upgrade().and_then(|endpoint| endpoint.tick(now))
                }
            };
            if let Some(again) = again {
                self.schedule(again.max(now + Duration::from_millis(1)));
            }
        }
    }

    fn drain_routes(&self) {
        let Some(routes) = &self.routes else { return };
        let mut buffer = [0; 4096];
        // Truncated, lost or whole: in any case something changed.
        while sys::receive_message(routes.as_fd(), &mut buffer).is_ok() {}
        self.events.lock().0.push(Event::AddressesChanged);
    }
}
