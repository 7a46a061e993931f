//! No deadlock, by looking at every order in which things can happen.
//!
//! Two small sessions, a few sends, applications that read: from the beginning every message, every
//! end of an RDMA, every send, read and re-posting is tried in every possible order. A state in which
//! nothing can happen any more must be one in which everything is done. Fewest receives, least
//! room: a bigger configuration has more slack, not less.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test"
)]

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use wsd_proto::testing::{Pair, Side};
use wsd_proto::*;

/// The least that a session accepts.
fn least() -> Config {
    Config {
        receive_buffers: MIN_RECEIVES,
        receive_buffer_size: MIN_BUFFER,
        send_buffers: 1,
        max_message: MIN_BUFFER,
        max_rdma: 400,
        max_rdma_in_flight: 1,
        descriptor_len: 8,
        threshold: 300,
        initial_portion: 50,
        inbox_limit: 0,
        temp_limit: 0,
        temp_chunk: 400,
        fill_limit: 0,
        max_large: 2,
        max_sends: 4,
        ..Config::default()
    }
}

/// What the applications do, each in its order; everything else is chosen.
#[derive(Clone)]
struct World {
    pair: Pair,
    to_send: [Vec<usize>; 2],
    reads: [bool; 2],
}

impl World {
    fn new(mut a: Config, mut b: Config, to_send: [&[usize]; 2], reads: [bool; 2]) -> Self {
        a.session_id = [1; 16];
        b.session_id = [2; 16];
        let pair = Pair::established(a, b);
        Self {
            pair,
            to_send: to_send.map(<[usize]>::to_vec),
            reads,
        }
    }

    fn reposting(mut self, is_a_choice: bool) -> Self {
        self.pair.a.knobs.hold_reposts = is_a_choice;
        self.pair.b.knobs.hold_reposts = is_a_choice;
        self
    }

    fn choices(&self) -> usize {
        self.pair.choices() + 6
    }

    /// One thing happens; `None` if it cannot.
    fn choose(&self, n: usize) -> Option<Self> {
        let mut next = self.clone();
        let side = if n.is_multiple_of(2) {
            Side::A
        } else {
            Side::B
        };
        match n {
            0 | 1 => {
                let sends = &mut next.to_send[n];
                if sends.is_empty() {
                    return None;
                }
                let len = sends.remove(0);
                next.pair.host(side).send(len).expect("room in the queue");
                next.pair.drain();
            }
            2 | 3 => {
                if !self.reads[n - 2] || next.pair.host(side).read(usize::MAX) == 0 {
                    return None;
                }
                next.pair.drain();
            }
            4 | 5 => {
                if !next.pair.host(side).repost_held() {
                    return None;
                }
                next.pair.drain();
            }
            n => next.pair.choose(n - 6),
        }
        Some(next)
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.pair.fingerprint().hash(&mut hasher);
        self.to_send.hash(&mut hasher);
        hasher.finish()
    }

    /// Visits every state that can be reached; `done` judges those in which nothing can happen.
    fn explore(self, most: usize, done: impl Fn(&Pair)) {
        let mut seen = HashSet::from([self.fingerprint()]);
        let mut open = vec![self];
        let mut ends = 0;
        while let Some(state) = open.pop() {
            let mut stuck = true;
            for n in 0..state.choices() {
                let Some(next) = state.choose(n) else {
                    continue;
                };
                stuck = false;
                next.pair.check_order();
                if seen.insert(next.fingerprint()) {
                    assert!(seen.len() <= most, "more than {most} states");
                    open.push(next);
                }
            }
            if stuck {
                ends += 1;
                done(&state.pair);
            }
        }
        assert!(ends > 0, "a way without an end");
        assert!(
            seen.len() > 500,
            "only {} states: is anything a choice?",
            seen.len()
        );
        println!("{} states, {ends} ends", seen.len());
    }
}

fn modes() -> [(Config, Config); 3] {
    let writes = Config {
        rdma_read: false,
        ..least()
    };
    [
        (least(), least()),
        (least(), writes.clone()),
        (writes.clone(), writes),
    ]
}

/// What is explored, and what must be true in every state in which nothing can happen any more.
/// With `reposting`, when receives are posted again is a choice of its own.
mod scenario {
    use super::*;

    const MOST: usize = 3_000_000;

    pub(super) fn small_data(reposting: bool) {
        let sends: [&[usize]; 2] = [&[224, 1, 300, 224], &[300, 224, 1]];
        World::new(least(), least(), sends, [true, true])
            .reposting(reposting)
            .explore(MOST, Pair::check_complete);
    }

    pub(super) fn large_data(reposting: bool) {
        for (a, b) in modes() {
            World::new(a, b, [&[600, 10], &[700]], [true, true])
                .reposting(reposting)
                .explore(MOST, Pair::check_complete);
        }
    }

    pub(super) fn refused_transfers(reposting: bool) {
        // With reads or writes: a receiver that has no memory asks for messages at once.
        let (a, b) = (
            least(),
            Config {
                rdma_read: false,
                ..least()
            },
        );
        let mut world = World::new(a, b, [&[600, 224], &[700]], [true, true]);
        world.pair.a.knobs.fail_allocate = true;
        world.pair.b.knobs.fail_allocate = true;
        world
            .reposting(reposting)
            .explore(MOST, Pair::check_complete);
    }

    /// The inbox of B is full and stays so; what goes from B to A must not care.
    pub(super) fn one_does_not_read(reposting: bool) {
        for (a, b) in modes() {
            World::new(a, b, [&[224, 224, 224], &[600, 224]], [true, false])
                .reposting(reposting)
                .explore(MOST, |pair| {
                    assert_eq!(pair.a.received.len(), 824);
                    assert_eq!(pair.b.unfinished(), 0);
                    assert!(pair.b.holds_nothing());
                });
        }
    }

    pub(super) fn both_end(reposting: bool, how: [End; 2]) {
        let suspends = |config| Config {
            suspend: true,
            ..config
        };
        for (a, b) in modes() {
            let (a, b) = (suspends(a), suspends(b));
            let mut world = World::new(a, b, [&[], &[]], [true, true]);
            world.pair.lossy = true;
            world.pair.a.send(500).unwrap();
            world.pair.b.send(500).unwrap();
            for (side, how) in [Side::A, Side::B].into_iter().zip(how) {
                let session = &mut world.pair.host(side).session;
                match how {
                    End::Shutdown => session.shutdown_send(),
                    End::Suspended => session.suspend_send().unwrap(),
                }
            }
            world.pair.drain();
            world.reposting(reposting).explore(MOST, |pair| {
                pair.check_complete();
                assert_eq!(pair.a.session.acknowledged(), 500);
                for host in [&pair.a, &pair.b] {
                    assert_eq!(host.session.failure(), None);
                    assert!(host.session.is_finished());
                }
            });
        }
    }
}

#[test]
fn small_data_both_ways_never_stops() {
    scenario::small_data(false);
}

#[test]
fn large_data_both_ways_never_stops() {
    scenario::large_data(false);
}

#[test]
fn refused_transfers_never_stop() {
    scenario::refused_transfers(false);
}

#[test]
fn an_application_that_never_reads_stops_only_what_is_sent_to_it() {
    scenario::one_does_not_read(false);
}

#[test]
fn the_end_of_both_streams_is_always_reached() {
    scenario::both_end(false, [End::Shutdown; 2]);
}

#[test]
fn so_is_the_end_of_streams_that_are_suspended() {
    scenario::both_end(false, [End::Suspended; 2]);
    scenario::both_end(false, [End::Suspended, End::Shutdown]);
    scenario::both_end(false, [End::Shutdown, End::Suspended]);
}

/// Millions of states: `cargo test --release -p wsd-proto --test deadlock -- --ignored`.
#[test]
#[ignore = "takes minutes; ./test says so"]
fn nothing_stops_whenever_receives_are_posted_again() {
    scenario::small_data(true);
    scenario::one_does_not_read(true);
    scenario::both_end(true, [End::Shutdown; 2]);
    scenario::both_end(true, [End::Suspended; 2]);
    scenario::large_data(true);
    scenario::refused_transfers(true);
}
