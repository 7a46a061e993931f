//! Sharing with a device that is none: what goes out of order, is lost, starves or runs over.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::super::sys::Status;
use super::*;

/// How connections share unless a test says otherwise: `WSD_TEST_SHARING=ALONE,TOGETHER`.
pub(in crate::fabric::verbs) fn from_environment() -> Option<Sharing> {
    let text = std::env::var("WSD_TEST_SHARING").ok()?;
    let (alone, together) = text.split_once(',').expect("two numbers");
    Some(sharing(alone.parse().unwrap(), together.parse().unwrap()))
}

pub(in crate::fabric::verbs) fn sharing(alone: usize, together: usize) -> Sharing {
    Sharing {
        alone,
        together,
        most: usize::MAX,
    }
}

const DEPTH: usize = 100;

/// What a device would have.
#[derive(Debug)]
struct Fake {
    entries: usize,
    held: Mutex<Held>,
    event: OwnedFd,
    count: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Held {
    queue: VecDeque<(u32, u64)>,
    asked: bool,
    words: usize,
    asks: usize,
    /// Come when the device is asked, just before.
    before_ask: Vec<(u32, u64)>,
    is_broken: bool,
    /// Its descriptor is ready, and nothing can be read from it.
    is_gone: bool,
}

impl Fake {
    /// An operation of a queue pair ends.
    fn end(&self, queue: u32, number: u64) {
        let mut held = self.held.lock();
        held.queue.push_back((queue, number));
        assert!(held.queue.len() <= self.entries, "the queue has run over");
        if std::mem::take(&mut held.asked) {
            held.words += 1;
            os::signal(self.event.as_fd());
        }
    }
}

impl Source for Fake {
    fn take(&self, mut each: impl FnMut(u32, Finished)) -> usize {
        let mut held = self.held.lock();
        let count = held.queue.len().min(BATCH);
        for (queue, number) in held.queue.drain(..count) {
            each(
                queue,
                Finished {
                    number,
                    status: Status::Done,
                    bytes: 0,
                    code: 0,
                },
            );
        }
        count
    }

    fn told(&self) -> io::Result<bool> {
        let mut held = self.held.lock();
        if held.words == 0 {
            if held.is_gone {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            return Ok(false);
        }
        held.words -= 1;
        if held.words == 0 {
            os::drain(self.event.as_fd());
        }
        Ok(true)
    }

    fn ask(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        if held.is_broken {
            return Err(io::ErrorKind::Other.into());
        }
        let early = std::mem::take(&mut held.before_ask);
        held.queue.extend(early);
        held.asked = true;
        held.asks += 1;
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The queues of a device that permits `most`, and how many there are.
struct Bench {
    pool: Pool<Fake>,
    count: Arc<AtomicUsize>,
    next: AtomicU64,
}

/// A connection with queue pair and seat.
struct Party {
    queue: u32,
    seat: Seat<Fake>,
    waker: Arc<Waker>,
    got: Vec<u64>,
}

impl Bench {
    fn new(sharing: Sharing) -> Self {
        Self {
            pool: Pool::new(sharing, 1 << 20).unwrap(),
            count: Arc::default(),
            next: AtomicU64::new(1),
        }
    }

    fn place(&self) -> io::Result<Place<Fake>> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.pool
            .place(DeviceId::pretend(1), DEPTH, number, |entries| {
                self.count.fetch_add(1, Ordering::SeqCst);
                Ok(Fake {
                    entries,
                    held: Mutex::default(),
                    event: os::event()?,
                    count: Arc::clone(&self.count),
                })
            })
    }

    fn party(&self, queue: u32) -> Party {
        let waker = Arc::new(Waker::new().unwrap());
        let seat = self
            .place()
            .unwrap()
            .take(queue, 1000 + u64::from(queue), &waker);
        Party {
            queue,
            seat,
            waker,
            got: Vec::new(),
        }
    }

    fn queues(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Party {
    fn source(&self) -> &Fake {
        self.seat.place.source()
    }

    fn ends(&self, number: u64) {
        self.source().end(self.queue, number);
    }

    fn poll(&mut self) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..self.seat.batches() {
            if !self.seat.poll(&mut found) {
                break;
            }
        }
        found.into_iter().map(|one| one.number).collect()
    }

    fn is_readable(&self, patience: Duration) -> bool {
        let mut fds: Vec<_> = [Some(self.waker.descriptor()), self.seat.descriptor()]
            .into_iter()
            .flatten()
            .map(|fd| libc::pollfd {
                fd: fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let count = libc::nfds_t::try_from(fds.len()).unwrap();
        let limit = i32::try_from(patience.as_millis()).unwrap();
        // SAFETY: as many entries as are said.
        #[allow(unsafe_code)]
        let found = unsafe { libc::poll(fds.as_mut_ptr(), count, limit) };
        found > 0
    }

    /// Until its waker has been used, and will not become readable any more on that account.
    fn sleep(&self) {
        assert!(self.is_readable(PATIENCE));
        while !self.waker.is_woken() {
            std::thread::yield_now();
        }
    }

    /// As an endpoint does it.
    fn arm(&mut self) -> bool {
        self.waker.clear();
        self.seat.arm();
        let found = self.poll();
        let nothing = found.is_empty();
        self.got.extend(found);
        if !nothing {
            self.seat.disarm();
        }
        nothing
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn each_gets_its_own_in_order_whoever_takes_it() {
    for together in [1, 3] {
        let bench = Bench::new(sharing(0, together));
        let mut parties: Vec<_> = (0..3).map(|queue| bench.party(queue)).collect();
        assert_eq!(bench.queues(), 3 / together);
        for number in 0..100 {
            for party in &parties {
                party.ends(number);
            }
        }
        // The first one moves everything, the second half of what it gets later.
        for turn in [1, 0, 2] {
            assert_eq!(parties[turn].poll(), (0..100).collect::<Vec<_>>());
            assert!(parties[turn].poll().is_empty());
        }
    }
}

#[test]
fn who_does_not_poll_stops_nobody_and_loses_nothing() {
    let bench = Bench::new(sharing(0, 4));
    let mut parties: Vec<_> = (0..4).map(|queue| bench.party(queue)).collect();
    // As much as it may have posted.
    for number in 0..DEPTH as u64 {
        parties[3].ends(number);
    }
    for round in 0..10 * DEPTH as u64 {
        for party in &mut parties[..3] {
            party.ends(round);
            assert_eq!(party.poll(), [round]);
        }
    }
    assert_eq!(parties[3].poll(), (0..DEPTH as u64).collect::<Vec<_>>());
}

#[test]
fn a_sleeper_is_woken_when_another_or_nobody_polls_and_only_for_its_own() {
    let bench = Bench::new(sharing(0, 3));
    let mut parties: Vec<_> = (0..3).map(|queue| bench.party(queue)).collect();
    for lookout in [true, false] {
        for party in &mut parties {
            assert!(party.arm());
        }
        parties[0].ends(1);
        if !lookout {
            assert!(parties[2].poll().is_empty());
        }
        parties[0].sleep();
        assert!(!parties[1].is_readable(Duration::ZERO));
        assert_eq!(parties[0].poll(), [1]);
        // It stays so until the next one arms.
        assert!(parties[0].waker.is_woken());
        // Those who still sleep are woken as well.
        parties[1].ends(2);
        parties[1].sleep();
        assert!(!parties[2].is_readable(Duration::ZERO));
        assert!(!parties[1].arm());
        assert_eq!(std::mem::take(&mut parties[1].got), [2]);
    }
}

#[test]
fn a_sleeper_is_woken_for_what_another_thread_has_polled_on_its_behalf() {
    let bench = Bench::new(sharing(0, 2));
    let mut party = bench.party(7);
    assert!(party.arm());
    party.ends(1);
    assert_eq!(party.poll(), [1]);
    assert!(party.is_readable(PATIENCE));
}

#[test]
fn what_comes_just_before_the_device_is_asked_is_found() {
    // The device says nothing of what is there when it is asked.
    let bench = Bench::new(sharing(0, 2));
    let mut parties = [bench.party(1), bench.party(2)];
    parties[0].source().held.lock().before_ask.push((1, 5));
    assert!(!parties[0].arm());
    assert_eq!(parties[0].got, [5]);
    // The lookout asks anew, because somebody still sleeps.
    assert!(parties[0].arm());
    assert!(parties[1].arm());
    parties[0].source().held.lock().before_ask.push((1, 6));
    parties[1].ends(7);
    assert!(parties[1].is_readable(PATIENCE));
    assert!(parties[0].is_readable(PATIENCE));
    assert_eq!(parties[0].poll(), [6]);
}

#[test]
fn a_queue_of_a_device_that_has_gone_does_not_keep_the_lookout_awake() {
    let bench = Bench::new(sharing(0, 2));
    let parties = [bench.party(1), bench.party(2)];
    let mut other = bench.party(3);
    let source = parties[0].source();
    source.held.lock().is_gone = true;
    os::signal(source.event.as_fd());
    let limit = Instant::now() + PATIENCE;
    loop {
        let mut ready = Vec::new();
        bench.pool.lookout.epoll.ready(&mut ready);
        if ready.is_empty() {
            break;
        }
        assert!(Instant::now() < limit, "it never sleeps");
        std::thread::yield_now();
    }
    // It looks at the others.
    assert!(other.arm());
    other.ends(1);
    other.sleep();
    assert_eq!(other.poll(), [1]);
    drop(parties);
}

#[test]
fn who_has_a_queue_alone_sleeps_on_its_descriptor_and_needs_nobody() {
    let bench = Bench::new(sharing(2, 4));
    let mut alone = bench.party(1);
    assert!(alone.seat.descriptor().is_some());
    assert!(alone.arm() && alone.arm());
    assert_eq!(alone.source().held.lock().asks, 1);
    alone.ends(1);
    assert!(alone.is_readable(PATIENCE) && !alone.waker.is_woken());
    assert!(bench.pool.thread.lock().is_none());
    assert_eq!(alone.poll(), [1]);
    assert!(alone.is_readable(Duration::ZERO), "until the next one arms");
    assert!(alone.arm() && !alone.is_readable(Duration::ZERO));
}

#[test]
fn the_first_have_a_queue_each_and_the_others_share_as_many_as_they_need() {
    let bench = Bench::new(sharing(2, 3));
    let mut parties: Vec<_> = (0..8).map(|queue| bench.party(queue)).collect();
    assert_eq!(bench.queues(), 2 + 2);
    let entries: Vec<_> = parties.iter().map(|party| party.source().entries).collect();
    let shared = 3 * DEPTH;
    assert_eq!(
        entries,
        [DEPTH, DEPTH, shared, shared, shared, shared, shared, shared]
    );
    // One place each: both are full.
    parties.push(bench.party(8));
    assert_eq!(bench.queues(), 5);
    // Places that were given back are taken again.
    drop((parties.remove(3), parties.pop()));
    assert_eq!(bench.queues(), 4);
    parties.push(bench.party(9));
    assert_eq!(bench.queues(), 4);
    drop(parties.remove(0));
    parties.push(bench.party(10));
    assert!(parties.last().unwrap().seat.descriptor().is_some());
    parties.clear();
    assert_eq!(bench.queues(), 0);
}

#[test]
fn connections_over_two_devices_share_nothing() {
    let bench = Bench::new(sharing(0, 4));
    let _party = bench.party(1);
    let other = bench
        .pool
        .place(DeviceId::pretend(2), DEPTH, 99, |_| {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        })
        .unwrap_err();
    assert_eq!(other.raw_os_error(), Some(libc::ENOMEM));
}

#[test]
fn where_the_device_has_no_more_queues_the_places_that_are_left_are_used_and_then_nobody_comes() {
    let most = Sharing {
        most: 3,
        ..sharing(2, 2)
    };
    let bench = Bench::new(most);
    let mut parties: Vec<_> = (0..4).map(|queue| bench.party(queue)).collect();
    let full = bench.place().unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOMEM));
    // Nothing came of it, and the others go on.
    for party in &mut parties {
        party.ends(1);
        assert_eq!(party.poll(), [1]);
    }
    assert_eq!(bench.queues(), 3);
    drop(parties.pop());
    parties.push(bench.party(5));
    assert!(bench.place().is_err());
    // An own queue that cannot be had is no reason to refuse.
    drop(parties.pop());
    drop(parties.remove(0));
    let bench = Bench::new(Sharing {
        most: 1,
        ..sharing(0, 2)
    });
    let _first = bench.party(1);
    let bench = Bench {
        pool: Pool {
            sharing: Sharing {
                alone: 5,
                ..bench.pool.sharing
            },
            most_entries: bench.pool.most_entries,
            lookout: Arc::clone(&bench.pool.lookout),
            thread: Mutex::default(),
        },
        ..bench
    };
    assert!(bench.party(2).seat.descriptor().is_none());
}

#[test]
fn a_device_with_small_queues_has_few_in_each() {
    let small = |entries| Bench {
        pool: Pool::new(sharing(0, 16), entries).unwrap(),
        count: Arc::default(),
        next: AtomicU64::new(1),
    };
    for (entries, together) in [(5 * DEPTH + 1, 5), (DEPTH, 1), (DEPTH - 1, 1)] {
        let bench = small(entries);
        let parties: Vec<_> = (0..together).map(|queue| bench.party(queue)).collect();
        assert_eq!(bench.queues(), 1);
        assert!(parties[0].source().entries <= entries.max(DEPTH));
        let _next = bench.party(99);
        assert_eq!(bench.queues(), 2);
    }
}

#[test]
fn what_a_queue_pair_has_left_behind_reaches_nobody() {
    let bench = Bench::new(sharing(0, 4));
    let mut other = bench.party(1);
    for is_gone in [true, false] {
        let old = bench.party(7);
        for number in 0..DEPTH as u64 {
            old.ends(number);
            other.ends(number);
        }
        let mut old = Some(old);
        if is_gone {
            drop(old.take());
        }
        // The device gives the number again.
        let mut new = bench.party(7);
        new.ends(1000);
        assert_eq!(new.poll(), [1000]);
        assert_eq!(other.poll(), (0..DEPTH as u64).collect::<Vec<_>>());
        drop(old);
        new.ends(1001);
        assert_eq!(new.poll(), [1001]);
    }
}

#[test]
fn a_queue_that_fails_names_those_whose_it_is() {
    let bench = Bench::new(sharing(1, 2));
    let parties: Vec<_> = (0..4).map(|queue| bench.party(queue)).collect();
    let of = |party: &Party| {
        let set = bench.pool.find(party.seat.number());
        set.unwrap().connections()
    };
    assert_eq!(of(&parties[0]), [1000]);
    assert_eq!(of(&parties[1]), [1001, 1002]);
    assert_eq!(of(&parties[3]), [1003]);
    assert!(bench.pool.find(1 << 40).is_none());
    // One that cannot be asked any more holds up nobody.
    parties[1].source().held.lock().is_broken = true;
    assert!(parties[1].seat.arm());
    parties[1].ends(5);
    let mut neighbour = parties.into_iter().nth(2).unwrap();
    assert!(neighbour.poll().is_empty());
}

/// What the threads of the next test have to get at least, each.
const SHARE: u64 = 3000;

#[test]
fn many_that_sleep_poll_come_and_go_at_once_each_get_everything_in_order() {
    let bench = Bench::new(sharing(1, 4));
    let served = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        for index in 0..9_u32 {
            let (bench, served) = (&bench, &served);
            scope.spawn(move || {
                let mut count = 0;
                for life in 0..6 {
                    // The numbers of queue pairs come again soon.
                    let mut party = bench.party(index);
                    let mut next = 0;
                    let mut posted = 0;
                    while next < SHARE / 6 {
                        // Up to what it may have under way.
                        while posted < next + 1 + u64::from(index) * 10 {
                            party.ends(posted);
                            posted += 1;
                        }
                        let found = if index % 3 == 0 {
                            party.poll()
                        } else if party.arm() {
                            let since = Instant::now();
                            assert!(
                                party.is_readable(PATIENCE),
                                "{index}: {:?}",
                                since.elapsed()
                            );
                            party.poll()
                        } else {
                            std::mem::take(&mut party.got)
                        };
                        for number in found {
                            assert_eq!(number, next, "{index}");
                            next += 1;
                            count += 1;
                        }
                    }
                    // Every second time something is left.
                    if life % 2 == 0 {
                        party.ends(u64::MAX);
                    }
                }
                served.lock().insert(index, count);
            });
        }
    });
    let served = served.into_inner();
    assert_eq!(served.len(), 9);
    assert!(served.values().all(|&count| count >= SHARE), "{served:?}");
    // The lookout may be the last that had one.
    let since = Instant::now();
    while bench.queues() > 0 {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}
