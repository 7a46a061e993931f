//! A fabric that fails on demand, around any other.
//!
//! For tests of what stands above a fabric: completions that come late or not until released, a
//! post that finds the queue full, registrations that find no resources, a link that breaks. The
//! faults are chosen through a shared [`Faults`] handle or, in a build with the feature `testing`,
//! by the environment variable `WSD_FAULT`, so that another process can be made to fail:
//!
//! ```text
//! WSD_FAULT=register:3,post:10
//! register:N   N registrations succeed, the later ones find no resources
//! expose:N     the same for exposures
//! post:N       the N-th post finds the queue full, once
//! cut:N        the N-th post breaks the link of its endpoint
//! delay:MS     completions come MS milliseconds late
//! hold         completions do not come at all
//! kept:WHAT    registrations are said to be kept; of memory that is given back there are said to
//!              be none, idle or used ones
//! ```
//!
//! While a completion is held back, `arm` says that there is something to poll: a sleeper becomes
//! a poller.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::soft::sys::{self, Epoll};
use super::{
    Access, ArmFor, Caps, Completion, ConnectError, DeregisterError, Ending, Endpoint, Event,
    Fabric, Key, ListenError, Listener, Outcome, Post, PostError, Posted, Region, RegisterError,
    Released, Request, Token,
};

/// What fails. All clones are one; the counts are those of all endpoints together.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    endpoints: Mutex<Vec<Weak<FaultyEndpoint>>>,
    events: Mutex<VecDeque<(Token, Ending)>>,
    /// Readable while there are events.
    wake: OwnedFd,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Plan {
    registers_left: Option<u64>,
    exposures_left: Option<u64>,
    posts_to_full: Option<u64>,
    posts_to_cut: Option<u64>,
    delay: Duration,
    hold: bool,
    kept: Option<Released>,
}

/// `WSD_FAULT` names no such fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no such fault: {0:?}")]
pub(crate) struct UnknownFault(String);

impl Plan {
    fn parse(text: &str) -> Result<Self, UnknownFault> {
        let mut plan = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let unknown = || UnknownFault(item.to_owned());
            let (name, value) = item.split_once(':').unwrap_or((item, ""));
            let number = || value.parse::<u64>().map_err(|_| unknown());
            match name {
                "register" => plan.registers_left = Some(number()?),
                "expose" => plan.exposures_left = Some(number()?),
                "post" => plan.posts_to_full = Some(number()?),
                "cut" => plan.posts_to_cut = Some(number()?),
                "delay" => plan.delay = Duration::from_millis(number()?),
                "kept" => plan.kept = Some(what_was_kept(value).ok_or_else(unknown)?),
                "hold" if value.is_empty() => plan.hold = true,
                _ => return Err(unknown()),
            }
        }
        Ok(plan)
    }
}

fn what_was_kept(word: &str) -> Option<Released> {
    Some(match word {
        "none" => Released::NotKept,
        "idle" => Released::Ended,
        "used" => Released::InUse,
        _ => return None,
    })
}

/// Counts down to 1 and then says so, once.
fn is_due(count: &mut Option<u64>) -> bool {
    match count {
        Some(0 | 1) => {
            *count = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// Takes one from what is left; `false` if nothing is.
fn take_one(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
        None => true,
    }
}

impl Faults {
    /// No fault yet.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            plan: Mutex::default(),
            endpoints: Mutex::default(),
            events: Mutex::default(),
            wake: sys::event()?,
        })))
    }

    /// Replaces the plan by one as in `WSD_FAULT`.
    pub(crate) fn set(&self, text: &str) -> Result<(), UnknownFault> {
        let plan = Plan::parse(text)?;
        *self.0.plan.lock() = plan;
        Ok(())
    }

    /// Breaks the link of every endpoint.
    pub(crate) fn cut(&self) {
        let endpoints: Vec<_> = self
            .0
            .endpoints
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for endpoint in endpoints {
            endpoint.cut();
        }
    }

    /// The fabric around `inner` that fails as this handle says.
    pub(crate) fn around(&self, inner: Arc<dyn Fabric>) -> std::io::Result<Arc<dyn Fabric>> {
        let epoll = Epoll::new()?;
        epoll.add(inner.readiness(), 0)?;
        epoll.add(self.0.wake.as_fd(), 1)?;
        Ok(Arc::new(FaultyFabric {
            inner,
            faults: self.clone(),
            epoll,
        }))
    }

    fn endpoint(&self, inner: Arc<dyn Endpoint>, token: Token) -> Arc<dyn Endpoint> {
        let endpoint = Arc::new(FaultyEndpoint {
            inner,
            token,
            faults: self.clone(),
            held: Mutex::default(),
            is_cut: AtomicBool::new(false),
        });
        let mut endpoints = self.0.endpoints.lock();
        endpoints.retain(|endpoint| endpoint.strong_count() > 0);
        endpoints.push(Arc::downgrade(&endpoint));
        endpoint
    }
}

/// Wraps `fabric` if `WSD_FAULT` asks for it.
#[cfg(feature = "testing")]
pub(crate) fn from_environment(fabric: Arc<dyn Fabric>) -> std::io::Result<Arc<dyn Fabric>> {
    let Ok(text) = std::env::var("WSD_FAULT") else {
        return Ok(fabric);
    };
    let faults = Faults::new()?;
    faults.set(&text).map_err(std::io::Error::other)?;
    faults.around(fabric)
}

struct FaultyFabric {
    inner: Arc<dyn Fabric>,
    faults: Faults,
    epoll: Epoll,
}

impl Fabric for FaultyFabric {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.inner.addresses()
    }

    fn listen(&self, listener: Token, at: SocketAddr) -> Result<Box<dyn Listener>, ListenError> {
        self.inner.listen(listener, at)
    }

    fn connect(
        &self,
        endpoint: Token,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let inner = self.inner.connect(endpoint, from, to)?;
        Ok(self.faults.endpoint(inner, endpoint))
    }

    fn poll(&self, events: &mut Vec<Event>) {
        let first = events.len();
        self.inner.poll(events);
        sys::drain(self.faults.0.wake.as_fd());
        let cut = std::mem::take(&mut *self.faults.0.events.lock());
        events.extend(
            cut.into_iter()
                .map(|(endpoint, ending)| Event::Ended { endpoint, ending }),
        );
        for event in events.iter_mut().skip(first) {
            if let Event::Request { request, .. } = event {
                let empty: Box<dyn Request> = Box::new(Gone);
                let inner = std::mem::replace(request, empty);
                *request = Box::new(FaultyRequest {
                    inner,
                    faults: self.faults.clone(),
                });
            }
        }
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.fd()
    }

    fn keeps_registrations(&self) -> bool {
        self.faults.0.plan.lock().kept.is_some() || self.inner.keeps_registrations()
    }

    fn memory_released(&self, region: Region) -> Released {
        let kept = self.faults.0.plan.lock().kept;
        kept.unwrap_or_else(|| self.inner.memory_released(region))
    }
}

struct FaultyRequest {
    inner: Box<dyn Request>,
    faults: Faults,
}

impl Request for FaultyRequest {
    fn local(&self) -> SocketAddr {
        self.inner.local()
    }

    fn peer(&self) -> SocketAddr {
        self.inner.peer()
    }

    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }

    fn accept(self: Box<Self>, endpoint: Token) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let inner = self.inner.accept(endpoint)?;
        Ok(self.faults.endpoint(inner, endpoint))
    }

    fn reject(self: Box<Self>) {
        self.inner.reject();
    }

    fn turn_away(self: Box<Self>) {
        self.inner.turn_away();
    }
}

/// Stands where a request is being wrapped.
struct Gone;

impl Request for Gone {
    fn local(&self) -> SocketAddr {
        SocketAddr::new([0, 0, 0, 0].into(), 0)
    }

    fn peer(&self) -> SocketAddr {
        self.local()
    }

    fn is_gone(&self) -> bool {
        true
    }

    fn accept(self: Box<Self>, _: Token) -> Result<Arc<dyn Endpoint>, ConnectError> {
        Err(ConnectError::TimedOut)
    }

    fn reject(self: Box<Self>) {}

    fn turn_away(self: Box<Self>) {}
}

struct FaultyEndpoint {
    inner: Arc<dyn Endpoint>,
    token: Token,
    faults: Faults,
    /// Completions held back, in order, with the time from which they may be reported; none: when
    /// holding ends.
    held: Mutex<VecDeque<(Option<Instant>, Completion)>>,
    is_cut: AtomicBool,
}

impl fmt::Debug for FaultyEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyEndpoint({:?})", self.token)
    }
}

impl FaultyEndpoint {
    fn cut(&self) {
        if self.is_cut.swap(true, Ordering::SeqCst) || self.inner.ending().is_some() {
            return;
        }
        self.inner.disconnect();
        self.faults
            .0
            .events
            .lock()
            .push_back((self.token, Ending::Broken));
        sys::signal(self.faults.0.wake.as_fd());
    }

    /// When a completion of now may be reported; `None` if at once.
    fn delay(&self) -> Option<Option<Instant>> {
        let plan = self.faults.0.plan.lock();
        if plan.hold {
            Some(None)
        } else if plan.delay.is_zero() {
            None
        } else {
            Some(Some(Instant::now() + plan.delay))
        }
    }

    /// The end as it looks from above: who cuts is not this side.
    fn seen(&self, ending: Ending) -> Ending {
        if ending == Ending::Local && self.is_cut.load(Ordering::SeqCst) {
            Ending::Broken
        } else {
            ending
        }
    }
}

impl Endpoint for FaultyEndpoint {
    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn register(&self, region: Region, access: Access) -> Result<Key, RegisterError> {
        if !take_one(&mut self.faults.0.plan.lock().registers_left) {
            return Err(RegisterError::NoResources);
        }
        // SAFETY: the caller's promise is that of this function.
        unsafe { self.inner.register(region, access) }
    }

    fn deregister(&self, key: Key) -> Result<(), DeregisterError> {
        self.inner.deregister(key)
    }

    #[allow(unsafe_code, reason = "the promise of the trait is passed on")]
    unsafe fn expose(
        &self,
        region: Region,
        access: Access,
        descriptor: &mut [u8],
    ) -> Result<Key, RegisterError> {
        if !take_one(&mut self.faults.0.plan.lock().exposures_left) {
            return Err(RegisterError::NoResources);
        }
        // SAFETY: the caller's promise is that of this function.
        unsafe { self.inner.expose(region, access, descriptor) }
    }

    fn conceal(&self, key: Key) -> Result<(), DeregisterError> {
        self.inner.conceal(key)
    }

    fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let (full, cut) = {
            let mut plan = self.faults.0.plan.lock();
            (
                is_due(&mut plan.posts_to_full),
                is_due(&mut plan.posts_to_cut),
            )
        };
        if cut {
            self.cut();
        }
        if full {
            return Err(PostError::Full);
        }
        let (Post::Send { op, .. }
        | Post::Receive { op, .. }
        | Post::Write { op, .. }
        | Post::Read { op, .. }) = post;
        let delay = self.delay();
        // Whatever is held back, later completions must not overtake it.
        let mut held = self.held.lock();
        let posted = self.inner.post(post).map_err(|error| match error {
            PostError::Ended(ending) => PostError::Ended(self.seen(ending)),
            other => other,
        })?;
        match (posted, delay) {
            (Posted::Done(len), Some(due)) => {
                let outcome = Outcome::Done(len);
                held.push_back((due, Completion { op, outcome }));
                Ok(Posted::Pending)
            }
            _ => Ok(posted),
        }
    }

    fn poll(&self, completions: &mut Vec<Completion>) {
        let mut fresh = Vec::new();
        let delay = self.delay();
        let holding = self.faults.0.plan.lock().hold;
        let mut held = self.held.lock();
        self.inner.poll(&mut fresh);
        let now = Instant::now();
        held.extend(fresh.into_iter().map(|completion| {
            let outcome = match completion.outcome {
                Outcome::Flushed(ending) => Outcome::Flushed(self.seen(ending)),
                other => other,
            };
            (
                delay.unwrap_or(Some(now)),
                Completion {
                    outcome,
                    ..completion
                },
            )
        }));
        let may_go = |due: &Option<Instant>| due.map_or(!holding, |due| due <= now);
        while held.front().is_some_and(|(due, _)| may_go(due)) {
            completions.extend(held.pop_front().map(|(_, completion)| completion));
        }
    }

    fn arm(&self, whom: ArmFor) -> bool {
        self.held.lock().is_empty() && self.inner.arm(whom)
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.inner.readiness()
    }

    fn disconnect(&self) {
        self.inner.disconnect();
    }

    fn ending(&self) -> Option<Ending> {
        self.inner.ending().map(|ending| self.seen(ending))
    }

    fn goes_on_alone(&self) -> bool {
        self.inner.goes_on_alone()
    }

    fn rdma_path(&self) -> &'static str {
        self.inner.rdma_path()
    }
}

#[cfg(test)]
mod tests {
    use super::super::soft::{Options, SoftFabric};
    use super::*;
    use crate::fabric::{OpId, Piece};

    struct Both {
        fabric: Arc<dyn Fabric>,
        faults: Faults,
        ends: [Arc<dyn Endpoint>; 2],
    }

    fn both() -> Both {
        let faults = Faults::new().unwrap();
        let fabric = faults
            .around(Arc::new(SoftFabric::new(Options::default()).unwrap()))
            .unwrap();
        let (at, _listener) = (20_000..60_000)
            .find_map(|port| {
                let at = SocketAddr::new([127, 44, 44, 44].into(), port);
                Some((at, fabric.listen(Token(1), at).ok()?))
            })
            .unwrap();
        let connecting = fabric.connect(Token(2), at, at).unwrap();
        let mut events = Vec::new();
        let mut accepted = None;
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < limit);
            fabric.poll(&mut events);
            for event in events.drain(..) {
                match event {
                    Event::Request { request, .. } => accepted = request.accept(Token(3)).ok(),
                    Event::Connected { .. } => {
                        let ends = [connecting, accepted.unwrap()];
                        return Both {
                            fabric,
                            faults,
                            ends,
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    #[allow(unsafe_code)]
    fn register(endpoint: &dyn Endpoint, memory: &[u8]) -> Result<Key, RegisterError> {
        let region = Region {
            base: memory.as_ptr() as usize,
            len: memory.len(),
        };
        // SAFETY: the tests keep the memory until the endpoint is gone.
        unsafe { endpoint.register(region, Access::READ | Access::WRITE) }
    }

    #[test]
    fn a_plan_is_read_as_it_is_documented() {
        let plan =
            Plan::parse("register:3, post:10,delay:5,hold,cut:7,expose:0,kept:used").unwrap();
        let wanted = Plan {
            registers_left: Some(3),
            exposures_left: Some(0),
            posts_to_full: Some(10),
            posts_to_cut: Some(7),
            delay: Duration::from_millis(5),
            hold: true,
            kept: Some(Released::InUse),
        };
        assert_eq!(plan, wanted);
        assert_eq!(Plan::parse(""), Ok(Plan::default()));
        for bad in ["register", "post:x", "hold:1", "explode:1", "kept:all"] {
            assert!(Plan::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn registrations_and_exposures_run_out_and_posts_find_the_queue_full_once() {
        let both = both();
        both.faults.set("register:1,expose:0,post:2").unwrap();
        let memory = vec![0; 100];
        let key = register(&*both.ends[0], &memory).unwrap();
        assert_eq!(
            register(&*both.ends[1], &memory),
            Err(RegisterError::NoResources)
        );
        let region = Region {
            base: memory.as_ptr() as usize,
            len: 1,
        };
        #[allow(unsafe_code)]
        // SAFETY: it does not succeed.
        let exposed = unsafe { both.ends[0].expose(region, Access::READ, &mut [0; 32]) };
        assert_eq!(exposed, Err(RegisterError::NoResources));
        let pieces = [Piece {
            key,
            offset: 0,
            len: 10,
        }];
        let send = || {
            both.ends[0].post(Post::Send {
                op: OpId(1),
                pieces: &pieces,
            })
        };
        assert_eq!(send(), Ok(Posted::Done(10)));
        assert_eq!(send(), Err(PostError::Full));
        assert_eq!(send(), Ok(Posted::Done(10)));
    }

    #[test]
    fn completions_are_held_in_order_and_come_late() {
        let both = both();
        both.faults.set("hold").unwrap();
        let memory = vec![0; 100];
        let key = register(&*both.ends[0], &memory).unwrap();
        let pieces = [Piece {
            key,
            offset: 0,
            len: 10,
        }];
        for number in 1..4 {
            let send = Post::Send {
                op: OpId(number),
                pieces: &pieces,
            };
            assert_eq!(both.ends[0].post(send), Ok(Posted::Pending));
        }
        let mut completions = Vec::new();
        both.ends[0].poll(&mut completions);
        assert!(completions.is_empty());
        assert!(!both.ends[0].arm(ArmFor::Waiter));
        both.faults.set("delay:1").unwrap();
        let limit = Instant::now() + Duration::from_secs(30);
        while completions.len() < 3 {
            assert!(Instant::now() < limit);
            both.ends[0].poll(&mut completions);
        }
        assert_eq!(
            completions.iter().map(|c| c.op.0).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(both.ends[0].arm(ArmFor::Waiter));
    }

    #[test]
    fn a_cut_link_looks_broken_here_and_gone_there() {
        let both = both();
        let memory = vec![0; 100];
        let key = register(&*both.ends[0], &memory).unwrap();
        let pieces = [Piece {
            key,
            offset: 0,
            len: 10,
        }];
        let receive = Post::Receive {
            op: OpId(5),
            pieces: &pieces,
        };
        assert_eq!(both.ends[0].post(receive), Ok(Posted::Pending));
        both.faults.set("cut:1").unwrap();
        let send = Post::Send {
            op: OpId(6),
            pieces: &pieces,
        };
        assert_eq!(
            both.ends[0].post(send),
            Err(PostError::Ended(Ending::Broken))
        );
        assert_eq!(both.ends[0].ending(), Some(Ending::Broken));
        let mut completions = Vec::new();
        both.ends[0].poll(&mut completions);
        let flushed = Completion {
            op: OpId(5),
            outcome: Outcome::Flushed(Ending::Broken),
        };
        assert_eq!(completions, [flushed]);
        let mut ended = Vec::new();
        let limit = Instant::now() + Duration::from_secs(30);
        while ended.len() < 2 {
            assert!(Instant::now() < limit);
            let mut events = Vec::new();
            both.fabric.poll(&mut events);
            ended.extend(events.into_iter().filter_map(|event| match event {
                Event::Ended { endpoint, ending } => Some((endpoint.0, ending)),
                _ => None,
            }));
        }
        ended.sort_by_key(|end| end.0);
        assert_eq!(ended, [(2, Ending::Broken), (3, Ending::Peer)]);
        both.faults.cut();
        assert_eq!(both.ends[1].ending(), Some(Ending::Peer));
    }
}
