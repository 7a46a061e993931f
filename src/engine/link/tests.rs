//! A connection over an endpoint that does what a test says: full queues, late and early ends,
//! refusals, parts of transfers.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Link, Span, Surroundings};
use crate::engine::error::{Ending, MemoryError, TransferError};
use crate::engine::handles::Handle;
use crate::engine::memory::{Memory, RegistrationId};
use crate::engine::operation::Kind;
use crate::engine::outlet::{
    End, EventObject, Outlet, Report, Switch, SwitchSocket, System, Ticket,
};
use crate::engine::progress::Progress;
use crate::fabric::{
    Access, ArmFor, Caps, Completion, ConnectError, DeregisterError, Endpoint, Event, Fabric, Key,
    ListenError, Listener, OpId, Outcome, Piece, Post, PostError, Posted, Region, RegisterError,
    Token,
};

/// One accepted post.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Accepted {
    op: OpId,
    pieces: Vec<Piece>,
    offset: u64,
}

#[derive(Default)]
struct EndpointState {
    /// Answers to the next posts; after them posts are accepted as pending.
    answers: VecDeque<Result<Posted, PostError>>,
    /// Pending posts that may be in progress at once.
    depth: Option<usize>,
    /// Every post that was made, accepted or not.
    posts: Vec<Accepted>,
    pending: Vec<Accepted>,
    completed: Vec<Completion>,
    ending: Option<Ending>,
    /// Pending posts are not given back at the end.
    hoards: bool,
    /// The peer is at exposed memory.
    peer_copies: bool,
}

struct ScriptedEndpoint {
    state: Mutex<EndpointState>,
    readiness: File,
}

impl ScriptedEndpoint {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            readiness: File::open("/dev/null").unwrap(),
        })
    }

    fn answer(&self, answers: impl IntoIterator<Item = Result<Posted, PostError>>) {
        self.state.lock().answers.extend(answers);
    }

    /// Completes the oldest pending post of a kind.
    fn complete(&self, kind: Kind, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        let place = state
            .pending
            .iter()
            .position(|post| Kind::of(post.op) == kind);
        let Some(place) = place else {
            return false;
        };
        let op = state.pending.remove(place).op;
        state.completed.push(Completion { op, outcome });
        true
    }

    fn end(&self, ending: Ending) {
        let mut state = self.state.lock();
        if state.ending.is_some() {
            return;
        }
        state.ending = Some(ending);
        if state.hoards {
            return;
        }
        for post in std::mem::take(&mut state.pending) {
            state.completed.push(Completion {
                op: post.op,
                outcome: Outcome::Flushed(ending),
            });
        }
    }
}

impl Endpoint for ScriptedEndpoint {
    #[allow(unsafe_code)] // the trait's
    unsafe fn register(&self, region: Region, _: Access) -> Result<Key, RegisterError> {
        Ok(Key(region.base as u64))
    }

    fn deregister(&self, _: Key) -> Result<(), DeregisterError> {
        Ok(())
    }

    #[allow(unsafe_code)] // the trait's
    unsafe fn expose(&self, _: Region, _: Access, _: &mut [u8]) -> Result<Key, RegisterError> {
        Err(RegisterError::NoResources)
    }

    fn conceal(&self, _: Key) -> Result<(), DeregisterError> {
        if self.state.lock().peer_copies {
            return Err(DeregisterError::InUse);
        }
        Ok(())
    }

    fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let accepted = match post {
            Post::Send { op, pieces } | Post::Receive { op, pieces } => Accepted {
                op,
                pieces: pieces.to_vec(),
                offset: 0,
            },
            Post::Write {
                op, pieces, offset, ..
            }
            | Post::Read {
                op, pieces, offset, ..
            } => Accepted {
                op,
                pieces: pieces.to_vec(),
                offset,
            },
        };
        let mut state = self.state.lock();
        if let Some(ending) = state.ending {
            return Err(PostError::Ended(ending));
        }
        if state
            .depth
            .is_some_and(|depth| state.pending.len() >= depth)
        {
            return Err(PostError::Full);
        }
        state.posts.push(accepted.clone());
        let answer = state.answers.pop_front().unwrap_or(Ok(Posted::Pending));
        if answer == Ok(Posted::Pending) {
            state.pending.push(accepted);
        }
        answer
    }

    fn poll(&self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.state.lock().completed);
    }

    fn arm(&self, _: ArmFor) -> bool {
        self.state.lock().completed.is_empty()
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }

    fn disconnect(&self) {
        self.end(Ending::Local);
    }

    fn ending(&self) -> Option<Ending> {
        self.state.lock().ending
    }

    fn rdma_path(&self) -> &'static str {
        "none"
    }
}

/// Keeps what the link tells.
#[derive(Default)]
struct Recorder {
    begun: Mutex<Vec<usize>>,
    published: Mutex<Vec<Report>>,
    reported: Mutex<Vec<Report>>,
    closed: Mutex<usize>,
}

impl Recorder {
    /// Address, end and bytes of everything that was published.
    fn published(&self) -> Vec<(usize, End, usize)> {
        let published = self.published.lock();
        published
            .iter()
            .map(|report| (report.ticket.address, report.end, report.bytes))
            .collect()
    }
}

impl Switch for Recorder {
    fn open(&self, _: u32, _: Handle) -> Result<SwitchSocket, i32> {
        Ok(SwitchSocket(1))
    }

    fn close(&self, _: SwitchSocket) {
        *self.closed.lock() += 1;
    }

    fn begin(&self, ticket: &Ticket, _: usize) {
        self.begun.lock().push(ticket.address);
    }

    fn publish(&self, report: &Report) {
        self.published.lock().push(*report);
    }

    fn report(&self, _: SwitchSocket, report: &Report) {
        self.reported.lock().push(*report);
    }

    fn set(&self, _: EventObject) {}

    fn reset(&self, _: EventObject) {}
}

/// A system whose sleepers nap.
struct Napping;

impl System for Napping {
    fn wake_descriptor(&self) -> io::Result<OwnedFd> {
        Ok(File::open("/dev/null")?.into())
    }

    fn signal(&self, _: BorrowedFd<'_>) {}

    fn drain(&self, _: BorrowedFd<'_>) {}

    fn sleep(&self, _: &[BorrowedFd<'_>], _: Option<Duration>) {
        std::thread::sleep(Duration::from_micros(100));
    }

    fn any_of(&self, _: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        self.wake_descriptor()
    }

    fn block_signals(&self) {}
}

struct NoFabric(File);

impl Fabric for NoFabric {
    fn name(&self) -> &'static str {
        "none"
    }

    fn caps(&self) -> Caps {
        caps()
    }

    fn addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn listen(&self, _: Token, _: SocketAddr) -> Result<Box<dyn Listener>, ListenError> {
        Err(ListenError::NoResources)
    }

    fn connect(
        &self,
        _: Token,
        _: SocketAddr,
        _: SocketAddr,
    ) -> Result<Arc<dyn Endpoint>, ConnectError> {
        Err(ConnectError::NoResources)
    }

    fn poll(&self, _: &mut Vec<Event>) {}

    fn readiness(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn caps() -> Caps {
    Caps {
        max_message: 1000,
        max_rdma: 100,
        rdma_threshold: 10,
        rdma_read: true,
        max_pieces: 3,
        send_depth: 4,
        receive_depth: 4,
        descriptor_len: 4,
    }
}

struct Bench {
    link: Link,
    endpoint: Arc<ScriptedEndpoint>,
    switch: Arc<Recorder>,
    outlet: Arc<Outlet>,
    memory: RegistrationId,
}

/// Where the registered memory of the tests is said to be. Nobody looks.
const BASE: usize = 1 << 20;
const DESCRIPTOR: [u8; 4] = [1, 2, 3, 4];

impl Bench {
    fn new() -> Self {
        Self::with(caps())
    }

    fn with(caps: Caps) -> Self {
        let endpoint = ScriptedEndpoint::new();
        let switch = Arc::new(Recorder::default());
        let outlet = Arc::new(Outlet::new(Arc::clone(&switch) as Arc<dyn Switch>));
        outlet.open(0, Handle::from_raw(1)).unwrap();
        let system: Arc<dyn System> = Arc::new(Napping);
        let fabric = Arc::new(NoFabric(File::open("/dev/null").unwrap()));
        let progress = Arc::new(Progress::new(fabric, Arc::clone(&system)).unwrap());
        let link = Link::new(
            Arc::clone(&endpoint) as Arc<dyn Endpoint>,
            Surroundings {
                socket: Handle::from_raw(1),
                outlet: Arc::clone(&outlet),
                progress,
                system,
                caps,
                queue_depth: 64,
                spin: Duration::ZERO,
            },
        );
        let region = Region {
            base: BASE,
            len: 1 << 20,
        };
        let register = |_: &dyn Endpoint, _: Region, _: Access| Ok(Key(7));
        let access = Access::READ | Access::WRITE;
        let memory = link
            .memory
            .register(&*endpoint, region, access, &register)
            .unwrap();
        Self {
            link,
            endpoint,
            switch,
            outlet,
            memory,
        }
    }

    fn message(&self, kind: Kind, address: usize, notify: bool) -> Result<(), TransferError> {
        let span = Span {
            address: BASE,
            len: 10,
        };
        self.link
            .message(kind, ticket(address, notify), [span].into_iter())
    }

    fn rdma(
        &self,
        kind: Kind,
        address: usize,
        notify: bool,
        lengths: &[usize],
        offset: u64,
    ) -> Result<(), TransferError> {
        let spans: Vec<_> = lengths
            .iter()
            .map(|&len| (self.memory, Span { address: BASE, len }))
            .collect();
        let ticket = ticket(address, notify);
        self.link
            .rdma(kind, ticket, spans.into_iter(), &DESCRIPTOR, offset)
    }

    /// Offset and length of every post.
    fn parts(&self) -> Vec<(u64, usize)> {
        let state = self.endpoint.state.lock();
        state
            .posts
            .iter()
            .map(|post| (post.offset, post.pieces.iter().map(|piece| piece.len).sum()))
            .collect()
    }
}

fn ticket(address: usize, notify: bool) -> Ticket {
    Ticket {
        address,
        notify,
        flags: 0,
    }
}

#[test]
fn a_large_transfer_is_split_with_the_furthest_part_first_and_ends_once() {
    let bench = Bench::new();
    bench
        .rdma(Kind::Write, 1, false, &[150, 60, 40], 1000)
        .unwrap();
    assert_eq!(bench.parts(), [(1200, 50), (1100, 100), (1000, 100)]);
    for _ in 0..3 {
        assert!(bench.switch.published().is_empty());
        assert!(bench.endpoint.complete(Kind::Write, Outcome::Done(0)));
        bench.link.advance();
    }
    assert_eq!(bench.switch.published(), [(1, End::Done, 250)]);
}

#[test]
fn more_pieces_than_a_post_takes_are_split_too() {
    let bench = Bench::new();
    bench.rdma(Kind::Read, 1, false, &[1; 8], 0).unwrap();
    assert_eq!(bench.parts(), [(6, 2), (3, 3), (0, 3)]);
    let refused = bench.rdma(Kind::Read, 2, false, &[1; 9], 0);
    assert_eq!(refused, Err(TransferError::BadPieces));
}

// req: WSD-04
#[test]
fn without_reads_a_read_is_not_started() {
    let bench = Bench::with(Caps {
        rdma_read: false,
        ..caps()
    });
    let refused = bench.rdma(Kind::Read, 1, false, &[1], 0);
    assert_eq!(refused, Err(TransferError::Unsupported));
    bench.rdma(Kind::Write, 2, false, &[1], 0).unwrap();
    assert_eq!(bench.parts(), [(0, 1)]);
}

// req: WSD-13
#[test]
fn a_transfer_whose_furthest_part_does_not_fit_moves_nothing() {
    let bench = Bench::new();
    bench.endpoint.answer([Err(PostError::BadDescriptor)]);
    bench.rdma(Kind::Write, 1, false, &[250], 0).unwrap();
    assert_eq!(bench.parts(), [(200, 50)], "no other part was posted");
    let end = End::Rejected(TransferError::BadDescriptor);
    assert_eq!(bench.switch.published(), [(1, end, 0)]);
}

#[test]
fn a_part_that_fails_later_fails_the_whole_once() {
    let bench = Bench::new();
    bench.endpoint.state.lock().depth = Some(1);
    bench.rdma(Kind::Read, 1, true, &[250], 0).unwrap();
    assert!(bench.endpoint.complete(Kind::Read, Outcome::RemoteAccess));
    bench.link.advance();
    assert_eq!(bench.parts().len(), 1, "the rest is not tried");
    let reported = bench.switch.reported.lock();
    assert_eq!(reported.len(), 1);
    assert_eq!((reported[0].end, reported[0].bytes), (End::RemoteAccess, 0));
}

#[test]
fn what_finds_no_room_waits_and_nothing_overtakes_it() {
    let bench = Bench::new();
    bench.endpoint.state.lock().depth = Some(2);
    for address in 0..10 {
        bench
            .message(Kind::Send, address, address % 2 == 0)
            .unwrap();
    }
    assert_eq!(bench.endpoint.state.lock().posts.len(), 2);
    // Room without a result that anybody polls: the next call notices.
    bench.endpoint.state.lock().depth = Some(3);
    bench.message(Kind::Send, 10, false).unwrap();
    assert_eq!(bench.endpoint.state.lock().posts.len(), 3);
    for _ in 0..11 {
        assert!(bench.endpoint.complete(Kind::Send, Outcome::Done(10)));
        bench.link.advance();
    }
    let ops: Vec<_> = bench
        .endpoint
        .state
        .lock()
        .posts
        .iter()
        .map(|post| post.op)
        .collect();
    assert!(ops.is_sorted_by_key(|op| op.0));
    let addresses = |reports: &[Report]| -> Vec<_> {
        reports.iter().map(|report| report.ticket.address).collect()
    };
    assert_eq!(
        addresses(&bench.switch.published.lock()),
        [1, 3, 5, 7, 9, 10]
    );
    assert_eq!(addresses(&bench.switch.reported.lock()), [0, 2, 4, 6, 8]);
}

#[test]
fn a_send_behind_a_split_write_does_not_overtake_its_parts() {
    let bench = Bench::new();
    bench.endpoint.state.lock().depth = Some(1);
    bench.rdma(Kind::Write, 1, false, &[250], 0).unwrap();
    bench.message(Kind::Send, 2, false).unwrap();
    for _ in 0..3 {
        assert!(bench.endpoint.complete(Kind::Write, Outcome::Done(0)));
        bench.link.advance();
    }
    let kinds: Vec<_> = {
        let state = bench.endpoint.state.lock();
        state.posts.iter().map(|post| Kind::of(post.op)).collect()
    };
    assert_eq!(kinds, [Kind::Write, Kind::Write, Kind::Write, Kind::Send]);
}

#[test]
fn a_result_that_is_there_at_once_does_not_overtake_earlier_ones() {
    let bench = Bench::new();
    let done = Ok(Posted::Done(10));
    bench.endpoint.answer([Ok(Posted::Pending), done, done]);
    for address in 1..=3 {
        bench.message(Kind::Send, address, address == 2).unwrap();
    }
    assert!(bench.switch.published().is_empty());
    assert!(bench.endpoint.complete(Kind::Send, Outcome::Done(10)));
    bench.link.advance();
    let published: Vec<_> = bench
        .switch
        .published()
        .iter()
        .map(|(at, ..)| *at)
        .collect();
    assert_eq!(published, [1, 3]);
    assert_eq!(bench.switch.reported.lock().len(), 1);
}

#[test]
fn upcalls_are_never_made_by_the_call_that_starts_an_operation() {
    let bench = Bench::new();
    bench.endpoint.answer([Ok(Posted::Done(10))]);
    bench.message(Kind::Send, 1, true).unwrap();
    assert!(bench.switch.reported.lock().is_empty());
    bench.link.advance();
    assert_eq!(bench.switch.reported.lock().len(), 1);
}

#[test]
fn the_switch_does_not_sleep_while_another_thread_takes_completions_in() {
    let bench = Bench::new();
    assert!(!bench.link.arm(), "there is nothing");
    let taking = bench.link.polling.lock();
    assert!(bench.link.arm(), "there may be something");
    drop(taking);
    assert!(!bench.link.arm());
}

#[test]
fn a_message_that_is_refused_leaves_no_trace() {
    let bench = Bench::new();
    bench
        .endpoint
        .answer([Err(PostError::TooLarge), Err(PostError::Rights)]);
    let refused = bench.message(Kind::Send, 1, true);
    assert_eq!(refused, Err(TransferError::TooLarge));
    let refused = bench.message(Kind::Receive, 2, false);
    assert_eq!(refused, Err(TransferError::NotRegistered));
    assert!(bench.switch.begun.lock().is_empty());
    assert!(bench.switch.published().is_empty());
    bench.message(Kind::Send, 3, false).unwrap();
    assert!(bench.endpoint.complete(Kind::Send, Outcome::Done(10)));
    bench.link.advance();
    assert_eq!(bench.switch.published(), [(3, End::Done, 10)]);
}

#[test]
fn what_waits_is_flushed_with_the_rest() {
    let bench = Bench::new();
    bench.endpoint.state.lock().depth = Some(2);
    for address in 0..6 {
        bench.message(Kind::Send, address, false).unwrap();
    }
    bench.endpoint.end(Ending::Peer);
    bench.link.advance();
    let flushed = End::Flushed(Ending::Peer);
    let expected: Vec<_> = (0..6).map(|address| (address, flushed, 0)).collect();
    assert_eq!(bench.switch.published(), expected);
    let late = bench.message(Kind::Send, 9, false);
    assert_eq!(late, Err(TransferError::Ended(Ending::Peer)));
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const KINDS: [Kind; 4] = [Kind::Send, Kind::Write, Kind::Read, Kind::Receive];

/// Whatever the fabric answers, and whenever: each started operation has one result, by the way
/// that was asked for, in the order of its kind.
#[test]
fn every_started_operation_has_one_result_whatever_happens() {
    for seed in 1..=300 {
        let mut dice = Dice(seed);
        let bench = Bench::new();
        bench.endpoint.state.lock().depth = Some(1 + usize::try_from(dice.roll(6)).unwrap());
        let mut started: Vec<(Kind, usize, bool)> = Vec::new();
        for address in 0..80 {
            let kind = KINDS[usize::try_from(dice.roll(4)).unwrap()];
            let notify = dice.roll(2) == 0;
            if dice.roll(3) == 0 {
                let answer = match dice.roll(5) {
                    0 => Err(PostError::Rights),
                    1 => Err(PostError::Full),
                    2 => Ok(Posted::Pending),
                    _ => Ok(Posted::Done(10)),
                };
                bench.endpoint.answer([answer]);
            }
            let result = match kind {
                Kind::Send | Kind::Receive => bench.message(kind, address, notify),
                Kind::Write | Kind::Read => {
                    let length = usize::try_from(1 + dice.roll(260)).unwrap();
                    bench.rdma(kind, address, notify, &[length, 3], 0)
                }
            };
            if result.is_ok() {
                started.push((kind, address, notify));
            }
            for _ in 0..dice.roll(3) {
                let kind = KINDS[usize::try_from(dice.roll(4)).unwrap()];
                bench.endpoint.complete(kind, Outcome::Done(10));
            }
            if dice.roll(3) == 0 {
                bench.link.advance();
            }
            if dice.roll(120) == 0 {
                bench.endpoint.end(Ending::Broken);
            }
        }
        bench.link.shut();
        bench.outlet.close();
        assert_eq!(*bench.switch.closed.lock(), 1);
        for notify in [false, true] {
            let reports = if notify {
                bench.switch.reported.lock().clone()
            } else {
                let mut published = bench.switch.published.lock().clone();
                // A refused transfer is marked as ended, but it was not started.
                published.retain(|report| {
                    started
                        .iter()
                        .any(|(_, address, _)| *address == report.ticket.address)
                });
                published
            };
            for kind in KINDS {
                let expected: Vec<_> = started
                    .iter()
                    .filter(|(of, _, told)| *of == kind && *told == notify)
                    .map(|(_, address, _)| *address)
                    .collect();
                let got: Vec<_> = reports
                    .iter()
                    .map(|report| report.ticket.address)
                    .filter(|address| {
                        started
                            .iter()
                            .any(|(of, started, _)| started == address && *of == kind)
                    })
                    .collect();
                assert_eq!(got, expected, "seed {seed}, {kind:?}");
            }
        }
    }
}

// req: WSD-11
#[test]
fn operations_that_a_fabric_never_gives_back_end_with_the_socket_all_the_same() {
    let bench = Bench::with(Caps {
        send_depth: 1,
        ..caps()
    });
    bench.message(Kind::Receive, 1, false).unwrap();
    bench.message(Kind::Send, 2, false).unwrap();
    bench.rdma(Kind::Write, 3, false, &[150, 60], 0).unwrap();
    // One that has not reached the fabric, and one whose owner wants an upcall.
    bench.endpoint.answer([Err(PostError::Full); 3]);
    bench.message(Kind::Send, 4, false).unwrap();
    bench.message(Kind::Receive, 5, true).unwrap();
    bench.endpoint.state.lock().hoards = true;
    bench.link.shut();
    let flushed = End::Flushed(Ending::Local);
    let mut ended = bench.switch.published();
    ended.extend(
        bench
            .switch
            .reported
            .lock()
            .iter()
            .map(|report| (report.ticket.address, report.end, report.bytes)),
    );
    ended.sort_by_key(|(address, ..)| *address);
    assert_eq!(ended, [1, 2, 3, 4, 5].map(|address| (address, flushed, 0)));
    // What the fabric says after all changes nothing.
    for kind in [Kind::Send, Kind::Receive, Kind::Write] {
        assert!(bench.endpoint.complete(kind, Outcome::Done(10)));
    }
    bench.link.advance();
    assert_eq!(bench.switch.published().len(), 4);
    assert_eq!(bench.switch.reported.lock().len(), 1);
}

#[test]
fn memory_that_was_being_concealed_is_exposed_anew() {
    let endpoint = ScriptedEndpoint::new();
    let memory = Memory::new();
    let region = Region {
        base: 4096,
        len: 100,
    };
    let made = std::cell::Cell::new(0);
    let expose = || {
        memory.expose(
            &*endpoint,
            region,
            Access::READ,
            1,
            &|_, _, _, descriptor| {
                made.set(made.get() + 1);
                descriptor.fill(made.get());
                Ok(Key(made.get().into()))
            },
        )
    };
    let first = expose().unwrap();
    endpoint.state.lock().peer_copies = true;
    assert_eq!(memory.conceal(&*endpoint, &first), Err(MemoryError::InUse));
    // The first is worth nothing from now on, though it is not gone.
    let second = expose().unwrap();
    assert_ne!(first, second);
    endpoint.state.lock().peer_copies = false;
    assert_eq!(memory.conceal(&*endpoint, &first), Ok(()));
    assert_eq!(
        memory.conceal(&*endpoint, &first),
        Err(MemoryError::Unknown)
    );
    assert_eq!(expose().unwrap(), second);
    assert_eq!(memory.conceal(&*endpoint, &second), Ok(()));
    assert_eq!(memory.conceal(&*endpoint, &second), Ok(()));
}
