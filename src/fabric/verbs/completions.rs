//! Completion queues, and which connections share one.
//!
//! The first few connections over a device have a completion queue each: whoever polls takes what is
//! theirs, and the device wakes whoever sleeps, with nobody in between. The queue's descriptor stands
//! in the endpoint's own. From then on connections share: who polls takes a batch, under the lock of
//! the queue, and sorts it by queue pair into the boxes of its owners. A box and the queue together
//! hold no more than its connection has posted, so who does not poll fills neither; and what is taken
//! and sorted under one lock stays in order, whoever takes it.
//!
//! Of those that share, nobody sleeps on the descriptor of the queue: each completion would wake all of
//! them. One thread for all queues of a fabric, the lookout, does, and only sorts. Whoever sorts
//! something into the box of one that is armed wakes that one. So nobody depends on another who
//! sleeps, polls or does not, nor on the progress thread, which may be in an upcall.
//!
//! Invariants:
//!
//! * Every connection has its places in the queue before it has a queue pair, and gives them back when
//!   nothing of the queue pair is in the queue any more. So no queue is ever overrun, which would end
//!   all its connections; where there is no place, a connection does not come about.
//! * Who is armed, and has an empty box, is told: either the device is asked, or its word is there and
//!   the lookout has yet to take it. It takes it first, then sorts, then asks again, then sorts again.
//! * Every event is acknowledged when it is taken out, and a queue goes with its last connection.
//!
//! Locks: `thread` is taken under `sets`; `sorting` of a queue is a leaf, and nobody is woken under it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::sys::{BATCH, Cq, DeviceId, Finished};
use super::wake::Waker;
use crate::fabric::QuickMutex;
use crate::fabric::soft::sys::{self as os, Epoll};

#[cfg(test)]
pub(super) mod tests;

/// Connections of a device that have a completion queue of their own. What sharing saves, a descriptor
/// and a call of the device for each socket that is polled, does not count among so few; what it
/// costs, a thread between the device and who sleeps, would.
const ALONE: usize = 8;
/// Connections that share one. Looking for the owner of a completion stays a look at a few numbers,
/// what fails with a queue stays a small part, and a thousand sockets come out at sixty places.
/// Its memory is that of their depths: a megabyte.
const TOGETHER: usize = 16;

/// How connections share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// So many connections of a device have a completion queue of their own.
    pub(crate) alone: usize,
    /// So many of the others share one.
    pub(crate) together: usize,
    /// As if the devices had so many completion queues.
    #[cfg(test)]
    pub(crate) most: usize,
}

impl Default for Sharing {
    fn default() -> Self {
        #[cfg(test)]
        if let Some(sharing) = tests::from_environment() {
            return sharing;
        }
        Self {
            alone: ALONE,
            together: TOGETHER,
            #[cfg(test)]
            most: usize::MAX,
        }
    }
}

/// What a completion queue of a device does.
pub(super) trait Source: Send + Sync {
    /// Takes out the oldest completions, each with the number of its queue pair; at most `BATCH`. How
    /// many there were.
    fn take(&self, each: impl FnMut(u32, Finished)) -> usize;
    /// Takes a word of the device out of the descriptor, and acknowledges it; whether there was one.
    /// Fails when none comes any more, because the device has gone, and the descriptor stays ready.
    fn told(&self) -> io::Result<bool>;
    /// Has the device say when the next completion is there, once.
    fn ask(&self) -> io::Result<()>;
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// One completion queue.
#[derive(Debug)]
pub(super) struct Completions<Q: Source = Cq> {
    /// Its name in the events of devices, and to the lookout.
    number: u64,
    device: DeviceId,
    /// How many connections it has room for.
    places: usize,
    taken: AtomicUsize,
    /// So many batches take out whatever is there.
    batches: usize,
    next: AtomicU64,
    sorting: QuickMutex<Sorting>,
    /// None if it is not shared.
    lookout: Option<Arc<Lookout<Q>>>,
    source: Q,
}

/// What its lock guards, together with taking from the device.
#[derive(Debug, Default)]
struct Sorting {
    /// The device is to tell of the next completion, and its word was not taken yet.
    asked: bool,
    members: Vec<Member>,
    /// Where the last owner was found.
    last: usize,
}

/// One of the connections that share.
#[derive(Debug)]
struct Member {
    id: u64,
    /// The number of its queue pair; None once the device has given that to another one.
    queue: Option<u32>,
    /// The endpoint's name.
    connection: u64,
    inbox: VecDeque<Finished>,
    /// Somebody sleeps for it, or is about to.
    armed: bool,
    waker: Arc<Waker>,
}

/// Whom to wake when nothing is locked.
type Wakes = SmallVec<[Arc<Waker>; 2]>;

impl Sorting {
    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Gives a completion to its owner. That of a queue pair which is gone has none.
    fn sort(&mut self, queue: u32, finished: Finished, wakes: &mut Wakes) {
        let is_its = |member: &Member| member.queue == Some(queue);
        if !self.members.get(self.last).is_some_and(is_its) {
            let Some(at) = self.members.iter().position(is_its) else {
                return;
            };
            self.last = at;
        }
        if let Some(member) = self.members.get_mut(self.last) {
            member.inbox.push_back(finished);
            if std::mem::take(&mut member.armed) {
                wakes.push(Arc::clone(&member.waker));
            }
        }
    }
}

fn wake_all(wakes: &Wakes) {
    for waker in wakes {
        waker.wake();
    }
}

impl<Q: Source> Completions<Q> {
    fn is_shared(&self) -> bool {
        self.lookout.is_some()
    }

    /// Takes a batch from the device and sorts it, then hands out what is in the box of `own`. True:
    /// there may be more at the device.
    fn sort(&self, own: Option<(u64, &mut Vec<Finished>)>) -> bool {
        let mut wakes = Wakes::new();
        let mut sorting = self.sorting.lock();
        let count = self
            .source
            .take(|queue, finished| sorting.sort(queue, finished, &mut wakes));
        if let Some((id, into)) = own
            && let Some(member) = sorting.member(id)
        {
            into.extend(member.inbox.drain(..));
        }
        drop(sorting);
        wake_all(&wakes);
        count == BATCH
    }

    /// Sorts all that was there at the beginning.
    fn sort_all(&self) {
        for _ in 0..self.batches {
            if !self.sort(None) {
                return;
            }
        }
    }

    /// The device has something to say, perhaps.
    fn attend(&self) {
        {
            let mut sorting = self.sorting.lock();
            loop {
                match self.source.told() {
                    Ok(true) => sorting.asked = false,
                    Ok(false) => break,
                    Err(error) => {
                        // It would keep the lookout awake for as long as there is the queue.
                        tracing::warn!(%error, "nothing more is heard of a completion queue");
                        self.unwatch();
                        break;
                    }
                }
            }
        }
        self.sort_all();
        {
            let mut sorting = self.sorting.lock();
            if sorting.asked || !sorting.members.iter().any(|member| member.armed) {
                return;
            }
            self.ask(&mut sorting);
        }
        // What came before it was asked.
        self.sort_all();
    }

    fn ask(&self, sorting: &mut Sorting) {
        match self.source.ask() {
            Ok(()) => sorting.asked = true,
            Err(error) => tracing::warn!(%error, "a completion queue cannot be armed"),
        }
    }

    /// Whether the device was asked.
    fn arm(&self, id: u64) -> bool {
        let mut sorting = self.sorting.lock();
        if self.is_shared() {
            if let Some(member) = sorting.member(id) {
                member.armed = true;
            }
        } else if sorting.asked {
            sorting.asked = !matches!(self.source.told(), Ok(true));
        }
        let ask = !sorting.asked;
        if ask {
            self.ask(&mut sorting);
        }
        ask
    }

    fn disarm(&self, id: u64) {
        if let Some(member) = self.sorting.lock().member(id) {
            member.armed = false;
        }
    }

    fn enter(&self, queue: u32, connection: u64, waker: &Arc<Waker>) -> u64 {
        let is_its = |member: &Member| member.queue == Some(queue);
        if self.sorting.lock().members.iter().any(is_its) {
            // That one was destroyed. Nothing of the new one is there yet.
            self.sort_all();
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut sorting = self.sorting.lock();
        for old in sorting.members.iter_mut().filter(|old| is_its(old)) {
            old.queue = None;
        }
        sorting.members.push(Member {
            id,
            queue: Some(queue),
            connection,
            inbox: VecDeque::new(),
            armed: false,
            waker: Arc::clone(waker),
        });
        id
    }

    fn leave(&self, id: u64) {
        if self.is_shared() {
            // What the queue pair has left behind is in nobody's way afterwards.
            self.sort_all();
        }
        self.sorting.lock().members.retain(|member| member.id != id);
    }

    /// The lookout does not look at its descriptor any more.
    fn unwatch(&self) {
        if let Some(lookout) = &self.lookout {
            lookout.epoll.remove(self.source.descriptor());
        }
    }

    /// The endpoints whose completions come out here.
    pub(super) fn connections(&self) -> Vec<u64> {
        let sorting = self.sorting.lock();
        sorting.members.iter().map(|one| one.connection).collect()
    }
}

impl<Q: Source> Drop for Completions<Q> {
    fn drop(&mut self) {
        // Before the descriptor is closed.
        self.unwatch();
    }
}

/// Room for the completions of one connection.
#[derive(Debug)]
pub(super) struct Place<Q: Source = Cq> {
    set: Arc<Completions<Q>>,
}

impl<Q: Source> Place<Q> {
    /// Where its queue pair is to report.
    pub(super) fn source(&self) -> &Q {
        &self.set.source
    }

    /// The connection has this queue pair, on which nothing was posted yet.
    pub(super) fn take(self, queue: u32, connection: u64, waker: &Arc<Waker>) -> Seat<Q> {
        let id = self.set.enter(queue, connection, waker);
        Seat { id, place: self }
    }
}

impl<Q: Source> Drop for Place<Q> {
    fn drop(&mut self) {
        self.set.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where the completions of a connection come out. Dropped when its queue pair has been destroyed.
#[derive(Debug)]
pub(super) struct Seat<Q: Source = Cq> {
    id: u64,
    // Given back after `drop`.
    place: Place<Q>,
}

impl<Q: Source> Seat<Q> {
    /// Its name in the events of the device.
    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.place.set.number
    }

    /// So many calls of `poll` take whatever was there at the first one.
    pub(super) fn batches(&self) -> usize {
        self.place.set.batches
    }

    /// Takes what has finished, in order; true if there may be more.
    #[inline]
    pub(super) fn poll(&self, into: &mut Vec<Finished>) -> bool {
        let set = &*self.place.set;
        if set.is_shared() {
            return set.sort(Some((self.id, into)));
        }
        set.source.take(|_, finished| into.push(finished)) == BATCH
    }

    /// The descriptor on which whoever has armed sleeps, besides the waker's.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let set = &*self.place.set;
        (!set.is_shared()).then(|| set.source.descriptor())
    }

    /// Sees to it that the next completion wakes whoever sleeps, by `descriptor` or by the waker, and
    /// that `descriptor` is not readable on account of an earlier one. Whether the device was asked.
    ///
    /// The device tells once for each time that it was asked. So what was asked for and has not come
    /// is still to come, and is not asked for again: either costs a call of the kernel.
    pub(super) fn arm(&self) -> bool {
        self.place.set.arm(self.id)
    }

    /// Nobody sleeps after all.
    pub(super) fn disarm(&self) {
        if self.place.set.is_shared() {
            self.place.set.disarm(self.id);
        }
    }
}

impl<Q: Source> Drop for Seat<Q> {
    fn drop(&mut self) {
        self.place.set.leave(self.id);
    }
}

/// What the thread has that looks out for those who share.
#[derive(Debug)]
struct Lookout<Q: Source> {
    /// The descriptors of the shared queues.
    epoll: Epoll,
    stop: OwnedFd,
    stopped: AtomicBool,
    /// All queues, also those that are not shared.
    sets: Mutex<Vec<Weak<Completions<Q>>>>,
}

/// Identifies `stop` in the epoll set, where queues have their numbers.
const STOP: u64 = 0;

impl<Q: Source> Lookout<Q> {
    fn find(&self, number: u64) -> Option<Arc<Completions<Q>>> {
        let sets = self.sets.lock();
        let mut all = sets.iter().filter_map(Weak::upgrade);
        all.find(|set| set.number == number)
    }

    fn run(&self) {
        os::block_signals();
        let mut ready = Vec::new();
        while !self.stopped.load(Ordering::Acquire) {
            self.epoll.wait(&mut ready);
            // Each in its turn.
            for ready in ready.drain(..) {
                if let Some(set) = self.find(ready.id) {
                    set.attend();
                }
            }
        }
    }
}

/// The completion queues of a fabric.
#[derive(Debug)]
pub(super) struct Pool<Q: Source + 'static = Cq> {
    sharing: Sharing,
    /// What the devices permit for one queue.
    most_entries: usize,
    lookout: Arc<Lookout<Q>>,
    /// None before anything is shared.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<Q: Source + 'static> Pool<Q> {
    pub(super) fn new(sharing: Sharing, most_entries: usize) -> io::Result<Self> {
        let (epoll, stop) = (Epoll::new()?, os::event()?);
        epoll.add(stop.as_fd(), STOP)?;
        Ok(Self {
            sharing,
            most_entries,
            lookout: Arc::new(Lookout {
                epoll,
                stop,
                stopped: AtomicBool::new(false),
                sets: Mutex::default(),
            }),
            thread: Mutex::default(),
        })
    }

    pub(super) fn find(&self, number: u64) -> Option<Arc<Completions<Q>>> {
        self.lookout.find(number)
    }

    /// Room for the completions of a connection by `device` that has up to `depth` at a time. `make`
    /// makes a queue with so many entries; `number` would be its name.
    pub(super) fn place(
        &self,
        device: DeviceId,
        depth: usize,
        number: u64,
        make: impl Fn(usize) -> io::Result<Q>,
    ) -> io::Result<Place<Q>> {
        let mut sets = self.lookout.sets.lock();
        sets.retain(|set| set.strong_count() > 0);
        let own: Vec<_> = sets
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|set| set.device == device)
            .collect();
        let add = |sets: &mut Vec<_>, places: usize, lookout| {
            #[cfg(test)]
            if sets.len() >= self.sharing.most {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            let set = Arc::new(Completions {
                number,
                device,
                places,
                taken: AtomicUsize::new(1),
                batches: places * depth / BATCH + 1,
                next: AtomicU64::new(0),
                sorting: QuickMutex::default(),
                lookout,
                source: make(places * depth).map_err(no_room)?,
            });
            if set.is_shared() {
                self.lookout.epoll.add(set.source.descriptor(), number)?;
            }
            sets.push(Arc::downgrade(&set));
            Ok(Place { set })
        };
        let alone = own.iter().filter(|set| !set.is_shared()).count();
        if alone < self.sharing.alone
            && let Ok(place) = add(&mut *sets, 1, None)
        {
            return Ok(place);
        }
        for set in own.into_iter().filter(|set| set.is_shared()) {
            let more = |taken: usize| (taken < set.places).then_some(taken + 1);
            if set
                .taken
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
                .is_ok()
            {
                return Ok(Place { set });
            }
        }
        let together = self.sharing.together.min(self.most_entries / depth.max(1));
        if together < 2 {
            return add(&mut *sets, 1, None);
        }
        self.look_out()?;
        add(&mut *sets, together, Some(Arc::clone(&self.lookout)))
    }

    /// Starts the thread if it does not run yet.
    fn look_out(&self) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let lookout = Arc::clone(&self.lookout);
            let named = std::thread::Builder::new().name("wsd-completions".to_owned());
            *thread = Some(named.spawn(move || lookout.run())?);
        }
        drop(thread);
        Ok(())
    }
}

/// Why there is no further completion queue: some devices say that they have no more as if it had been
/// asked for wrongly.
fn no_room(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::ENOMEM),
        _ => error,
    }
}

impl<Q: Source + 'static> Drop for Pool<Q> {
    fn drop(&mut self) {
        self.lookout.stopped.store(true, Ordering::Release);
        os::signal(self.lookout.stop.as_fd());
        if let Some(thread) = self.thread.get_mut().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks out for completions has panicked");
        }
    }
}
