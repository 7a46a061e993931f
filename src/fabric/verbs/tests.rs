//! The fabric over a real device, or an emulated one: run with `--ignored` where there is one, for
//! instance by `scripts/rdma-vm`, which sets `WSD_VM_ADDRESS` and `WSD_VM_ADDRESS6`.

mod closing;
pub(super) mod mishaps;
mod posted;
mod racing;
mod registrations;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use super::completions;
use super::connect::{ACK_TIMEOUT, Attempt, PATIENCE};
use super::core::Core;
use super::endpoint::VerbsEndpoint;
use super::fabric::VerbsFabric;
use super::hello::{Hello, Word};
use super::sys::{Channel, CmEvent, CmKind, Conn, How, Work};
use super::{Options, open};
use crate::fabric::soft::tests::rig::{
    End, Host, Memory, Rig, number, sleep_until_readable, until,
};
use crate::fabric::{
    Access, ArmFor, ConnectError, DeregisterError, Ending, Endpoint, Event, Fabric, Key,
    ListenError, OpId, Outcome, Piece, Post, PostError, Posted, Region, Released, Request, Token,
};

pub(super) const NEEDS: &str = "an address that an RDMA device serves, in WSD_VM_ADDRESS";

pub(super) fn address() -> String {
    std::env::var("WSD_VM_ADDRESS").expect(NEEDS)
}

pub(super) fn fabric() -> Arc<dyn Fabric> {
    open(Options::new(true)).expect("an RDMA device")
}

pub(super) fn rig() -> Rig {
    Rig::over(Host::over(fabric()), &address())
}

#[allow(unsafe_code)]
pub(super) fn expose(end: &End, bytes: &[u8], access: Access) -> (Key, [u8; 32]) {
    let mut descriptor = [0; 32];
    // SAFETY: tests keep the memory until the endpoint is gone.
    let key = unsafe {
        end.endpoint
            .expose(Memory::region(bytes), access, &mut descriptor)
    };
    (key.unwrap(), descriptor)
}

pub(super) fn write(
    end: &End,
    len: usize,
    remote: &[u8],
    offset: u64,
) -> Result<(OpId, Posted), PostError> {
    let op = OpId(number());
    let pieces = [end.out.piece(0, len)];
    let posted = end.endpoint.post(Post::Write {
        op,
        pieces: &pieces,
        remote,
        offset,
    });
    posted.map(|posted| (op, posted))
}

pub(super) fn read(
    end: &End,
    len: usize,
    remote: &[u8],
    offset: u64,
) -> Result<(OpId, Posted), PostError> {
    let op = OpId(number());
    let pieces = [end.inward.piece(0, len)];
    let posted = end.endpoint.post(Post::Read {
        op,
        pieces: &pieces,
        remote,
        offset,
    });
    posted.map(|posted| (op, posted))
}

/// Waits for an ending of an end, while the fabric is polled.
pub(super) fn ending(rig: &mut Rig, end: &mut End) -> Ending {
    until("the end", || {
        rig.host.poll();
        end.poll();
        end.endpoint.ending()
    })
}

#[test]
#[ignore = "needs an RDMA device"]
fn messages_arrive_whole_in_order_over_both_families() {
    // req: LATER-01
    let v6 = std::env::var("WSD_VM_ADDRESS6").expect(NEEDS);
    for ip in [address(), v6] {
        let mut rig = Rig::over(Host::over(fabric()), &ip);
        let (mut a, mut b) = rig.pair();
        for round in 0..20u8 {
            let message = vec![round; usize::from(round) * 3000];
            let receive = b.receive(0, 100_000);
            let sent = a.send(&message).unwrap();
            assert_eq!(b.end(receive), Outcome::Done(message.len()));
            assert_eq!(a.end(sent), Outcome::Done(message.len()));
            assert_eq!(b.inward.bytes[..message.len()], message);
        }
        let sent = b.send(b"and back").unwrap();
        assert_eq!(a.take(), b"and back");
        assert_eq!(b.end(sent), Outcome::Done(8));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_message_waits_for_its_receive() {
    // req: WSD-09
    // Also where nothing is ever repeated.
    for rnr_retry in [7, 0] {
        for late in [0, 1, 100, 2000] {
            let fabric = open(Options {
                rnr_retry,
                ..Options::new(true)
            });
            let mut rig = Rig::over(Host::over(fabric.unwrap()), &address());
            let (mut a, mut b) = rig.pair();
            // Either end may be the first to speak.
            let back = b.send(&[8; 100]).unwrap();
            let sent = a.send(&[7; 256]).unwrap();
            std::thread::sleep(Duration::from_millis(late));
            b.poll();
            assert_eq!(b.completions.iter().filter(|c| c.op != back.0).count(), 0);
            let first = b.receive(0, 256);
            let second = b.receive(1000, 256);
            assert_eq!(b.end(first), Outcome::Done(256));
            assert_eq!(a.end(sent), Outcome::Done(256));
            assert_eq!(b.outcome(second.0), None, "it came once");
            assert_eq!(b.inward.bytes[..256], [7; 256]);
            assert_eq!(a.take(), [8; 100]);
            assert_eq!(b.end(back), Outcome::Done(100));
            // From here on receives are there before their messages.
            let mut pending = second;
            for byte in 0..50 {
                let next = b.receive(1000 * (1 + usize::from(byte % 2)), 256);
                let sent = a.send(&[byte; 200]).unwrap();
                assert_eq!(b.end(pending), Outcome::Done(200));
                assert_eq!(a.end(sent), Outcome::Done(200));
                pending = next;
            }
        }
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn messages_that_come_early_find_the_receives_in_order_and_within_bounds() {
    // req: WSD-09
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let largest = rig.host.fabric.caps().max_message;
    let lens = [largest, 1, 30_000];
    let sent: Vec<_> = lens
        .iter()
        .zip(1_u8..)
        .map(|(&len, byte)| a.send(&vec![byte; len]).unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(20));
    let first = b.receive(0, largest);
    let second = b.receive(largest, 1);
    let third = b.receive(largest + 1, 30_000);
    for (receive, len) in [first, second, third].into_iter().zip(lens) {
        assert_eq!(b.end(receive), Outcome::Done(len));
    }
    assert!(b.inward.bytes[..largest].iter().all(|&byte| byte == 1));
    assert_eq!(b.inward.bytes[largest..largest + 2], [2, 3]);
    for (sent, len) in sent.into_iter().zip(lens) {
        assert_eq!(a.end(sent), Outcome::Done(len));
    }
    // As many receives as are promised, whether or not the first message has come.
    let (_c, mut d) = rig.pair();
    let depth = rig.host.fabric.caps().receive_depth;
    let receives: Vec<_> = (0..depth).map(|_| d.receive(0, 1)).collect();
    d.endpoint.disconnect();
    for receive in receives {
        assert_eq!(d.end(receive), Outcome::Flushed(Ending::Local));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn sends_fill_the_queue_and_go_on_in_order() {
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let mut sent = Vec::new();
    loop {
        let number = u8::try_from(sent.len() % 251).unwrap();
        match a.send_at(sent.len() * 8, &[number; 8]) {
            Ok(posted) => sent.push(posted),
            Err(PostError::Full) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent.len(), rig.host.fabric.caps().send_depth);
    for number in 0..sent.len() {
        assert_eq!(b.take(), [u8::try_from(number % 251).unwrap(); 8]);
    }
    for posted in sent {
        assert_eq!(a.end(posted), Outcome::Done(8));
    }
    // Nobody waits for any of them, and there is room again.
    let posted = until("room", || {
        a.poll();
        a.send(b"again").ok()
    });
    assert_eq!(b.take(), b"again");
    assert_eq!(a.end(posted), Outcome::Done(5));
    assert!(a.completions.is_empty(), "each is told of once");
}

#[test]
#[ignore = "needs an RDMA device"]
fn transfers_move_exactly_what_they_name_and_a_send_stays_behind_them() {
    // req: WSD-14
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    for len in [0, 1, 100, 4096, 70_000, 1 << 20] {
        let target = vec![0xEE_u8; len + 20];
        let (key, descriptor) = expose(&b, &target, Access::READ | Access::WRITE);
        for (place, byte) in a.out.bytes[..len].iter_mut().zip(0..) {
            *place = u8::try_from(byte % 253).unwrap();
        }
        let receive = b.receive(2 << 20, 4);
        let written = write(&a, len, &descriptor, 10).unwrap();
        let told = a.send_at(2 << 20, b"done").unwrap();
        assert_eq!(b.end(receive), Outcome::Done(4));
        assert!(target[10..10 + len] == a.out.bytes[..len]);
        assert!(target[..10] == [0xEE; 10] && target[10 + len..] == [0xEE; 10]);
        assert_eq!(a.end(written), Outcome::Done(len));
        assert_eq!(a.end(told), Outcome::Done(4));
        a.inward.bytes.fill(0);
        let receive = b.receive(2 << 20, 4);
        let fetched = read(&a, len, &descriptor, 10).unwrap();
        let told = a.send_at(2 << 20, b"done").unwrap();
        assert_eq!(b.end(receive), Outcome::Done(4));
        // The reader is done with the memory.
        b.endpoint.conceal(key).unwrap();
        assert_eq!(a.end(fetched), Outcome::Done(len));
        assert!(a.inward.bytes[..len] == target[10..10 + len]);
        assert_eq!(a.end(told), Outcome::Done(4));
    }
    assert_eq!(a.endpoint.ending(), None);
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_access_that_was_not_granted_moves_no_byte_and_ends_the_connection() {
    // req: WSD-13
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Wrong {
        TooFar,
        NoRight,
        Concealed,
        OtherConnection,
        Widened,
        MoreRights,
        OtherKey,
    }
    use Wrong::*;
    for wrong in [
        TooFar,
        NoRight,
        Concealed,
        OtherConnection,
        Widened,
        MoreRights,
        OtherKey,
    ] {
        for writes in [true, false] {
            let mut rig = rig();
            let (mut a, mut b) = rig.pair();
            let (mut c, _d) = rig.pair();
            let memory = vec![0xAB_u8; 8192];
            let granted = if writes { Access::WRITE } else { Access::READ };
            let other = granted.complement();
            let rights = if matches!(wrong, NoRight | MoreRights) {
                other
            } else {
                granted
            };
            let owner = if wrong == OtherConnection { &c } else { &b };
            let (key, mut descriptor) = expose(owner, &memory[..4096], rights);
            let mut offset = 0;
            match wrong {
                TooFar => offset = 3997,
                Concealed => b.endpoint.conceal(key).unwrap(),
                // The device refuses, whatever the descriptor claims.
                Widened => {
                    descriptor[16..24].copy_from_slice(&8192u64.to_le_bytes());
                    offset = 3997;
                }
                MoreRights => descriptor[2] = 3,
                OtherKey => descriptor[5] ^= 0x5A,
                NoRight | OtherConnection => {}
            }
            a.out.bytes[..100].fill(1);
            let waiting = a.receive(1 << 20, 10);
            let started = if writes {
                write(&a, 100, &descriptor, offset)
            } else {
                read(&a, 100, &descriptor, offset)
            };
            let case = format!("{wrong:?}, writes: {writes}");
            assert_eq!(a.end(started.unwrap()), Outcome::RemoteAccess, "{case}");
            assert_eq!(memory, [0xAB; 8192], "{case}");
            assert!(a.inward.bytes[..100].iter().all(|&byte| byte == 0));
            assert_eq!(a.end(waiting), Outcome::Flushed(Ending::Broken), "{case}");
            assert_eq!(ending(&mut rig, &mut a), Ending::Broken, "{case}");
            ending(&mut rig, &mut b);
            c.poll();
            assert_eq!(c.endpoint.ending(), None, "others live on: {case}");
        }
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_message_larger_than_the_receive_ends_the_connection() {
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    a.send(b"first").unwrap();
    assert_eq!(b.take(), b"first");
    let small = b.receive(0, 4);
    let next = b.receive(100, 100);
    // Too long to be reported before it is there.
    let sent = a.send(&[5; 300]).unwrap();
    assert_eq!(b.end(small), Outcome::Truncated);
    assert_eq!(b.end(next), Outcome::Flushed(Ending::Broken));
    assert_eq!(ending(&mut rig, &mut b), Ending::Broken);
    assert_eq!(a.end(sent), Outcome::Flushed(Ending::Peer));
    assert_eq!(ending(&mut rig, &mut a), Ending::Peer);
    // The first message, before and after its receive.
    for early in [false, true] {
        let (mut a, mut b) = rig.pair();
        let mut small = None;
        if !early {
            small = Some((b.receive(0, 4), b.receive(100, 100)));
        }
        a.send(b"12345").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        b.poll();
        let (small, next) = match small {
            Some((small, next)) => (small, Some(next)),
            None => (b.receive(0, 4), None),
        };
        assert_eq!(b.end(small), Outcome::Truncated);
        assert!(b.inward.bytes[..10].iter().all(|&byte| byte == 0));
        if let Some(next) = next {
            assert_eq!(b.end(next), Outcome::Flushed(Ending::Broken));
        }
        assert_eq!(ending(&mut rig, &mut b), Ending::Broken);
        assert_eq!(ending(&mut rig, &mut a), Ending::Peer);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_was_sent_before_a_disconnect_is_delivered_and_the_rest_is_flushed_once() {
    // req: WSD-11
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let receives: Vec<_> = (0..12).map(|place| b.receive(place * 100, 100)).collect();
    for byte in 0..8 {
        let sent = a.send(&[byte; 100]).unwrap();
        assert_eq!(a.end(sent), Outcome::Done(100));
    }
    let pending: Vec<_> = (0..5).map(|_| a.receive(0, 10)).collect();
    a.endpoint.disconnect();
    assert_eq!(a.endpoint.ending(), Some(Ending::Local));
    assert_eq!(a.send(b"x"), Err(PostError::Ended(Ending::Local)));
    for waiting in pending {
        assert_eq!(a.end(waiting), Outcome::Flushed(Ending::Local));
    }
    // The passive side never disconnects, and is told nevertheless.
    assert_eq!(ending(&mut rig, &mut b), Ending::Peer);
    b.poll();
    let outcomes: Vec<_> = b.completions.drain(..).collect();
    assert_eq!(outcomes.len(), receives.len());
    for (place, (done, (op, _))) in outcomes.iter().zip(receives).enumerate() {
        let wanted = if place < 8 {
            Outcome::Done(100)
        } else {
            Outcome::Flushed(Ending::Peer)
        };
        assert_eq!((done.op, done.outcome), (op, wanted));
    }
    assert_eq!(b.send(b"x"), Err(PostError::Ended(Ending::Peer)));
    let token = b.token;
    let told = |event: &Event| matches!(event, Event::Ended { endpoint, .. } if *endpoint == token);
    rig.host.next("the event of the end", told);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!rig.host.has(told), "told once");
}

#[test]
#[ignore = "needs an RDMA device"]
fn memory_in_use_stays_and_stale_keys_are_answered() {
    // req: WSD-12
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let waiting = b.receive(0, 10);
    let key = b.inward.key;
    assert_eq!(b.endpoint.deregister(key), Err(DeregisterError::InUse));
    a.send(b"x").unwrap();
    assert_eq!(b.end(waiting), Outcome::Done(1));
    assert_eq!(b.endpoint.deregister(key), Ok(()));
    assert_eq!(b.endpoint.deregister(key), Err(DeregisterError::Unknown));
    let pieces = [b.inward.piece(0, 1)];
    let post = Post::Receive {
        op: OpId(number()),
        pieces: &pieces,
    };
    assert_eq!(b.endpoint.post(post), Err(PostError::BadPiece));
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_sleeper_is_woken_by_a_message_and_by_the_end() {
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let receive = b.receive(0, 10);
    assert!(b.endpoint.arm(ArmFor::Waiter));
    a.send(b"x").unwrap();
    assert!(sleep_until_readable(&*b.endpoint));
    assert!(!b.endpoint.arm(ArmFor::Waiter), "there is something");
    assert_eq!(b.end(receive), Outcome::Done(1));
    // For the progress thread.
    let receive = b.receive(0, 10);
    assert!(b.endpoint.arm(ArmFor::Progress));
    a.send(b"y").unwrap();
    let token = b.token;
    rig.host.next(
        "readiness",
        |e| matches!(e, Event::Ready { endpoint } if *endpoint == token),
    );
    assert_eq!(b.end(receive), Outcome::Done(1));
    // Nothing is pending: the end wakes all the same.
    a.poll();
    assert!(b.endpoint.arm(ArmFor::Waiter));
    a.endpoint.disconnect();
    assert_eq!(ending(&mut rig, &mut b), Ending::Peer);
    assert!(sleep_until_readable(&*b.endpoint));
    assert!(!b.endpoint.arm(ArmFor::Waiter));
}

#[test]
#[ignore = "needs an RDMA device"]
fn requests_are_refused_counted_and_gone() {
    // req: WSD-07, WSD-08
    let mut rig = rig();
    let from = std::net::SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let _refused = rig.host.fabric.connect(here, from, rig.at).unwrap();
    drop(rig.host.request(rig.listening));
    assert_eq!(rig.host.connected(here), Err(ConnectError::Refused));
    // Its peer gives up before the answer.
    let here = Token(number());
    let given_up = rig.host.fabric.connect(here, from, rig.at).unwrap();
    let request = rig.host.request(rig.listening);
    drop(given_up);
    std::thread::sleep(Duration::from_millis(500));
    assert!(request.accept(Token(number())).is_err());
    // Nobody listens there, over TCP neither.
    let (at, listening) = (rig.at, rig.listening);
    assert_eq!(
        rig.host.fabric.listen(listening, at).err(),
        Some(ListenError::AddressInUse)
    );
    drop(rig.listener);
    let here = Token(number());
    let _nobody = rig.host.fabric.connect(here, from, at).unwrap();
    assert_eq!(rig.host.connected(here), Err(ConnectError::NobodyListens));
    let foreign = "203.0.113.9:9".parse().unwrap();
    assert_eq!(
        rig.host.fabric.listen(listening, foreign).err(),
        Some(ListenError::AddressNotAvailable)
    );
}

/// The next event of a plain connection.
fn event(rig: &mut Rig, channel: &Arc<Channel>) -> CmEvent {
    until("a connection event", || {
        rig.host.poll();
        channel.next().unwrap()
    })
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_request_with_foreign_private_data_is_refused_and_the_listener_lives_on() {
    let mut rig = rig();
    let mut wrong_version = Hello {
        word: Word::Connect,
        port: 1,
        descriptor_len: 32,
        max_message: 1,
    }
    .to_bytes();
    wrong_version[4] += 1;
    for data in [&[][..], &[0xFF; 56], &wrong_version, &[0; 32]] {
        let channel = Channel::open().unwrap();
        let conn = Conn::new(&channel, 1).unwrap();
        let from = std::net::SocketAddr::new(rig.at.ip(), 0);
        conn.resolve(from, rig.at, 3000, ACK_TIMEOUT).unwrap();
        assert_eq!(event(&mut rig, &channel).kind, CmKind::AddressResolved);
        conn.route(3000).unwrap();
        assert_eq!(event(&mut rig, &channel).kind, CmKind::RouteResolved);
        conn.connect(data, 1, 1, 7).unwrap();
        let answer = event(&mut rig, &channel);
        assert_eq!(answer.kind, CmKind::Rejected);
        let word = Hello::parse(answer.data()).map(|hello| hello.word);
        assert_eq!(word, Some(Word::Foreign));
    }
    let listening = rig.listening;
    assert!(
        !rig.host
            .has(|e| matches!(e, Event::Request { listener, .. } if *listener == listening))
    );
    let (mut a, mut b) = rig.pair();
    a.send(b"still here").unwrap();
    assert_eq!(b.take(), b"still here");
}

#[test]
#[ignore = "needs an RDMA device"]
fn connections_leave_nothing_behind() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut rig = rig();
    drop(rig.pair());
    let before = descriptors();
    for _ in 0..20 {
        let (a, mut b) = rig.pair();
        b.receive(0, 10);
        drop(a);
        drop(b);
        rig.host.poll();
    }
    until("the descriptors to go", || {
        rig.host.poll();
        (descriptors() <= before).then_some(())
    });
}

/// A rig, and what its endpoints share.
fn rig_with_cache() -> (Rig, Arc<Core>) {
    rig_with(Options::new(true))
}

/// As `rig_with_cache`, where each connection has a completion queue of its own.
fn rig_of_separate() -> (Rig, Arc<Core>) {
    rig_with(Options {
        sharing: completions::tests::sharing(usize::MAX, 1),
        ..Options::new(true)
    })
}

fn rig_with(options: Options) -> (Rig, Arc<Core>) {
    let core = Core::new(options).expect("an RDMA device");
    assert!(core.cache.keeps(), "{}", core.cache.describe());
    let fabric = Arc::new(VerbsFabric {
        core: Arc::clone(&core),
    });
    assert!(fabric.keeps_registrations());
    (Rig::over(Host::over(fabric), &address()), core)
}

#[test]
#[ignore = "needs an RDMA device"]
fn messages_go_while_transfers_fill_the_queue() {
    // req: WSD-14
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let target = vec![0_u8; 1 << 20];
    let (_key, descriptor) = expose(&b, &target, Access::READ | Access::WRITE);
    for writes in [true, false] {
        let mut transfers = Vec::new();
        loop {
            let started = if writes {
                write(&a, 1 << 20, &descriptor, 0)
            } else {
                read(&a, 1 << 20, &descriptor, 0)
            };
            match started {
                Ok(transfer) => transfers.push(transfer),
                Err(PostError::Full) => break,
                other => panic!("{other:?}"),
            }
            assert!(transfers.len() < 1000);
        }
        let receives: Vec<_> = (0..16).map(|at| b.receive(at * 10, 10)).collect();
        // None of the transfers was asked for: the places were kept.
        let sent: Vec<_> = (0..16).map(|_| a.send(b"credit").unwrap()).collect();
        for receive in receives {
            assert_eq!(b.end(receive), Outcome::Done(6));
        }
        for sent in sent {
            assert_eq!(a.end(sent), Outcome::Done(6));
        }
        for transfer in transfers {
            assert_eq!(a.end(transfer), Outcome::Done(1 << 20));
        }
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn many_reads_in_both_directions_do_not_stop_each_other_or_a_message() {
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    let memory = vec![9_u8; 200_000];
    let (_of_a, at_a) = expose(&a, &memory, Access::READ);
    let (_of_b, at_b) = expose(&b, &memory, Access::READ);
    let mut reads = Vec::new();
    for _ in 0..40 {
        reads.push((
            read(&a, 200_000, &at_b, 0).unwrap(),
            read(&b, 200_000, &at_a, 0).unwrap(),
        ));
    }
    let (to_a, to_b) = (a.receive(1 << 20, 10), b.receive(1 << 20, 10));
    let (from_a, from_b) = (a.send(b"a").unwrap(), b.send(b"b").unwrap());
    for (of_a, of_b) in reads {
        assert_eq!(a.end(of_a), Outcome::Done(200_000));
        assert_eq!(b.end(of_b), Outcome::Done(200_000));
    }
    for (end, ops) in [(&mut a, [to_a, from_a]), (&mut b, [to_b, from_b])] {
        for op in ops {
            assert_eq!(end.end(op), Outcome::Done(1));
        }
        assert_eq!(end.inward.bytes[..200_000], memory);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn nobody_sleeps_through_a_completion_that_comes_while_arming() {
    let mut rig = rig();
    let (a, mut b) = rig.pair();
    const MESSAGES: usize = 400;
    let taken = &std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut a = a;
            for round in 0..MESSAGES {
                // One by one: each finds a receive that is posted or about to be.
                until("the one before to be taken", || {
                    (taken.load(std::sync::atomic::Ordering::Relaxed) >= round).then_some(())
                });
                // Now sooner, now later than the other side arms.
                for _ in 0..(round * 37) % 600 {
                    std::hint::spin_loop();
                }
                let sent = a.send(b"x").unwrap();
                assert_eq!(a.end(sent), Outcome::Done(1));
            }
            a
        });
        for _ in 0..MESSAGES {
            let (op, posted) = b.receive(0, 10);
            let mut outcome = (posted == Posted::Done(1)).then_some(Outcome::Done(1));
            while outcome.is_none() {
                outcome = b.outcome(op);
                if outcome.is_none() && b.endpoint.arm(ArmFor::Waiter) {
                    assert!(sleep_until_readable(&*b.endpoint), "nothing wakes it");
                }
            }
            assert_eq!(outcome, Some(Outcome::Done(1)));
            taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        drop(sender.join().unwrap());
    });
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_connect_that_is_given_up_at_any_step_leaves_nothing_on_either_side() {
    // req: WSD-08
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut rig = rig();
    drop(rig.pair());
    let before = descriptors();
    let from = std::net::SocketAddr::new(rig.at.ip(), 0);
    for events in 0..12 {
        for answers in [false, true] {
            let here = Token(number());
            let connecting = rig.host.fabric.connect(here, from, rig.at).unwrap();
            let mut accepted = None;
            // Each round lets the attempt go on by what has come meanwhile.
            for _ in 0..events {
                std::thread::sleep(Duration::from_millis(2));
                rig.host.poll();
                let listening = rig.listening;
                let asked = rig.host.events.iter().position(
                    |e| matches!(e, Event::Request { listener, .. } if *listener == listening),
                );
                if answers
                    && let Some(at) = asked
                    && let Event::Request { request, .. } = rig.host.events.remove(at)
                {
                    accepted = request.accept(Token(number())).ok();
                }
            }
            drop(connecting);
            // The other side learns of it, whether it had accepted or has yet to.
            if let Some(accepted) = accepted {
                until("the accepted end to learn of it", || {
                    rig.host.poll();
                    accepted.poll(&mut Vec::new());
                    accepted.ending()
                });
            }
            rig.host.events.clear();
        }
    }
    until("the descriptors to go", || {
        rig.host.poll();
        rig.host.events.clear();
        (descriptors() <= before).then_some(())
    });
    let (mut a, mut b) = rig.pair();
    a.send(b"still here").unwrap();
    assert_eq!(b.take(), b"still here");
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_host_that_is_not_there_is_not_served_and_tcp_may_be_tried() {
    // req: WSD-08
    let mut rig = rig();
    let from = std::net::SocketAddr::new(rig.at.ip(), 0);
    let nobody = "10.99.0.77:9".parse().unwrap();
    let here = Token(number());
    let begun = std::time::Instant::now();
    let _endpoint = rig.host.fabric.connect(here, from, nobody).unwrap();
    let asked = begun.elapsed();
    let outcome = rig.host.connected(here);
    // Looking for the host takes three seconds, and the call did not wait for that.
    assert!(asked < begun.elapsed() / 2, "{asked:?}");
    assert!(
        matches!(
            outcome,
            Err(ConnectError::TimedOut | ConnectError::NotServed)
        ),
        "{outcome:?}"
    );
}
