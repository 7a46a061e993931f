//! What goes wrong, and what has to be given back: devices, ports and queues that fail, peers that
//! go away, memory that runs out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::posted::known_pair;
use super::{
    address, ending, event, expose, fabric, read, rig, rig_of_separate, rig_with_cache, write,
};
use crate::fabric::soft::tests::rig::{End, Host, Memory, Rig, free_address, number, until};
use crate::fabric::verbs::connect::{self, ACK_TIMEOUT, Attempt, PATIENCE};
use crate::fabric::verbs::endpoint::UNFLUSHED;
use crate::fabric::verbs::endpoint::VerbsEndpoint;
use crate::fabric::verbs::hello::{Hello, Word};
use crate::fabric::verbs::sys::{Channel, CmKind, Conn, DeviceEvent, Devices, How, LEFT, Work};
use crate::fabric::verbs::{Options, open};
use crate::fabric::{
    Access, ConnectError, Ending, Endpoint, Event, Fabric, OpId, Outcome, Post, PostError, Posted,
    RegisterError, Token,
};

fn from(rig: &Rig) -> SocketAddr {
    SocketAddr::new(rig.at.ip(), 0)
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_exposure_finds_the_room_of_registrations_that_nobody_uses() {
    // In a process that may lock little; see scripts/verbs-tests.d/guest.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max locked memory"));
    assert!(!line.unwrap().contains("unlimited"), "{line:?}");
    const PART: usize = 1 << 20;
    let (mut rig, core) = rig_with_cache();
    let (there, here) = (Token(number()), Token(number()));
    let connecting = rig.host.fabric.connect(here, from(&rig), rig.at).unwrap();
    let accepted = rig.host.request(rig.listening).accept(there).unwrap();
    rig.host.connected(here).unwrap();
    rig.host.settled(&*accepted);
    let mut b = End::small(there, accepted);
    let mut a = End::small(here, connecting);
    let mut idle = Vec::new();
    for kept in 0..7_u8 {
        let memory = Memory::new(&*a.endpoint, PART, Access::READ);
        a.endpoint.deregister(memory.key).unwrap();
        assert_eq!(core.cache.stats().idle, usize::from(kept) + 1);
        // If it went back to the system, it would not be kept.
        idle.push(memory);
    }
    let mut exposed = Vec::new();
    let refused = loop {
        let memory = vec![5_u8; PART];
        let mut descriptor = [0; 32];
        // SAFETY: kept until it is concealed, or never exposed.
        #[allow(unsafe_code)]
        let key = unsafe {
            let region = Memory::region(&memory);
            b.endpoint.expose(region, Access::WRITE, &mut descriptor)
        };
        match key {
            Ok(key) => exposed.push((key, descriptor, memory)),
            Err(error) => break error,
        }
        assert!(exposed.len() < 1000, "no limit");
    };
    assert_eq!(refused, RegisterError::NoResources);
    assert_eq!(core.cache.stats().idle, 0, "some room was left");
    // It works, and makes room again.
    let (key, descriptor, memory) = exposed.pop().unwrap();
    a.out.bytes[..1000].fill(9);
    let written = write(&a, 1000, &descriptor, 0).unwrap();
    assert_eq!(a.end(written), Outcome::Done(1000));
    assert_eq!(memory[..1001], [&[9; 1000][..], &[5]].concat());
    b.endpoint.conceal(key).unwrap();
    let (key, _) = expose(&b, &memory, Access::READ);
    b.endpoint.conceal(key).unwrap();
    for (key, _, _memory) in exposed {
        b.endpoint.conceal(key).unwrap();
    }
    a.send(b"still here").unwrap();
    assert_eq!(b.take_small(), b"still here");
}

/// What the kernel knows at the devices that this thread has made.
pub(in crate::fabric::verbs) fn resources() -> BTreeMap<&'static str, usize> {
    // PROCESS/task/THREAD; what the kernel notes is the thread.
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let own = format!(" pid {} ", own.file_name().unwrap().display());
    ["pd", "cq", "qp", "mr", "cm_id"]
        .into_iter()
        .map(|kind| {
            let shown = Command::new("rdma")
                .args(["resource", "show", kind])
                .output()
                .unwrap();
            assert!(shown.status.success(), "{shown:?}");
            let shown = String::from_utf8(shown.stdout).unwrap();
            (
                kind,
                shown.lines().filter(|line| line.contains(&own)).count(),
            )
        })
        .collect()
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_connections_had_of_a_device_is_given_back() {
    let left = LEFT.load(Ordering::Relaxed);
    let mut rig = rig();
    let before = resources();
    for round in 0..3 {
        let (mut a, mut b) = rig.pair();
        let memory = vec![0_u8; 10_000];
        let (key, _) = expose(&b, &memory, Access::WRITE);
        let during = resources();
        for (kind, count) in &during {
            assert!(
                count > &before[kind],
                "{kind} is not to be seen: {during:?}"
            );
        }
        if round == 0 {
            b.endpoint.conceal(key).unwrap();
        }
        b.receive(0, 10);
        a.send(b"x").unwrap();
        drop(a);
        ending(&mut rig, &mut b);
        drop(b);
    }
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
    assert_eq!(LEFT.load(Ordering::Relaxed), left);
}

#[test]
#[ignore = "needs an RDMA device"]
fn the_side_that_is_left_flushes_by_itself() {
    // req: WSD-11
    let mut rig = rig();
    let before = UNFLUSHED.load(Ordering::Relaxed);
    for connecting in [true, false] {
        let (a, b) = rig.pair();
        let (leaves, mut stays) = if connecting { (b, a) } else { (a, b) };
        let waiting: Vec<_> = (0..20).map(|_| stays.receive(0, 10)).collect();
        leaves.endpoint.disconnect();
        // Nothing is posted any more: only the device can end these.
        assert_eq!(ending(&mut rig, &mut stays), Ending::Peer);
        for receive in waiting {
            assert_eq!(stays.end(receive), Outcome::Flushed(Ending::Peer));
        }
    }
    let unflushed = UNFLUSHED.load(Ordering::Relaxed) - before;
    assert_eq!(unflushed, 0, "the queue pair had to be destroyed");
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_message_without_a_receive_comes_soon_after_there_is_one() {
    // req: WSD-09
    let mut rig = rig();
    let (mut a, mut b) = rig.pair();
    // The first one has a receive of its own.
    a.send(b"first").unwrap();
    assert_eq!(b.take(), b"first");
    b.send(b"first").unwrap();
    assert_eq!(a.take(), b"first");
    for back in [false, true] {
        let (from, to) = if back {
            (&mut b, &mut a)
        } else {
            (&mut a, &mut b)
        };
        // The time that devices take by themselves is 655 ms, so that none of the attempts would do.
        let mut attempts = (0..20).map(|_| {
            let sent = from.send(b"late").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            assert_eq!(to.take(), b"late");
            let took = begun.elapsed();
            assert_eq!(from.end(sent), Outcome::Done(4));
            took
        });
        assert!(attempts.any(|took| took < Duration::from_millis(300)));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_send_that_the_device_does_not_take_leaves_the_fence_to_the_next() {
    // req: WSD-14
    let (mut rig, core) = rig_with_cache();
    let (mut owner, mut reader, known) = known_pair(&mut rig, &core);
    let memory = vec![3_u8; 5000];
    let (_key, descriptor) = expose(&owner, &memory, Access::READ);
    let watched = &known.conn().watched;
    let told = owner.receive(0, 10);
    let fetched = read(&reader, 5000, &descriptor, 0).unwrap();
    *watched.room.lock() = Some(0);
    assert_eq!(reader.send(b"lost"), Err(PostError::Full));
    *watched.room.lock() = None;
    watched.posted.lock().clear();
    let sent = reader.send(b"kept").unwrap();
    let posted = watched.posted.lock().clone();
    assert!(
        matches!(posted[..], [(Work::Send, how)] if how.contains(How::FENCE)),
        "{posted:?}"
    );
    assert_eq!(reader.end(fetched), Outcome::Done(5000));
    assert_eq!(reader.end(sent), Outcome::Done(4));
    assert_eq!(owner.end(told), Outcome::Done(4));
    assert_eq!(owner.inward.bytes[..4], *b"kept");
}

#[test]
#[ignore = "needs an RDMA device"]
fn memory_that_the_device_does_not_give_back_is_out_of_reach_nevertheless() {
    // req: WSD-13
    let (mut rig, core) = rig_with_cache();
    let memory = vec![3_u8; 5000];
    let (mut far, near, known) = known_pair(&mut rig, &core);
    let (key, descriptor) = expose(&near, &memory, Access::WRITE);
    let written = write(&far, 100, &descriptor, 0).unwrap();
    assert_eq!(far.end(written), Outcome::Done(100));
    known.conn().watched.keeps.store(true, Ordering::Relaxed);
    near.endpoint.conceal(key).unwrap();
    assert_eq!(near.endpoint.ending(), Some(Ending::Broken));
    // Nothing of the connection is left that the peer could write through.
    if let Ok(written) = write(&far, 100, &descriptor, 0) {
        assert!(!matches!(far.end(written), Outcome::Done(_)));
    }
    ending(&mut rig, &mut far);
    drop((near, far));
}

/// A descriptor like that of a device which the kernel has taken away: always ready, and it cannot be
/// read. A terminal whose other end has gone is so, too.
#[allow(unsafe_code)]
fn taken_away() -> OwnedFd {
    let terminal = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
        .unwrap();
    let (fd, flags) = (terminal.as_raw_fd(), libc::O_RDWR | libc::O_NOCTTY);
    // SAFETY: a terminal that is open.
    assert_eq!(unsafe { libc::unlockpt(fd) }, 0);
    // SAFETY: as above, and plain flags.
    let peer = unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, flags) };
    assert!(peer >= 0);
    // SAFETY: it was opened just now.
    drop(unsafe { OwnedFd::from_raw_fd(peer) });
    terminal.into()
}

#[test]
#[ignore = "needs an RDMA device"]
#[allow(unsafe_code)]
fn a_device_that_was_taken_away_is_not_looked_at_for_ever() {
    let devices = Devices::open().unwrap();
    let descriptor = devices.get(0).unwrap().descriptor().unwrap();
    let real = descriptor.try_clone_to_owned().unwrap();
    let put = |what: &OwnedFd| {
        // SAFETY: two open descriptors; nobody else uses the device meanwhile.
        let put = unsafe { libc::dup2(what.as_raw_fd(), descriptor.as_raw_fd()) };
        assert_eq!(put, descriptor.as_raw_fd());
    };
    put(&taken_away());
    let (mut rig, core) = rig_with_cache();
    let mut events = Vec::new();
    until("rest", || {
        core.poll(&mut events);
        (!is_readable(core.readiness())).then_some(())
    });
    let changed = |e: &Event| matches!(e, Event::AddressesChanged);
    assert!(events.iter().any(changed), "it says nothing");
    // What comes of connections is still heard.
    put(&real);
    drop(known_pair(&mut rig, &core));
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut query = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    #[allow(unsafe_code)]
    let ready = unsafe { libc::poll(&raw mut query, 1, 0) };
    ready > 0
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_post_that_the_device_will_never_take_ends_the_connection() {
    // req: WSD-11
    let (mut rig, core) = rig_with_cache();
    let memory = vec![3_u8; 5000];
    for what in ["message", "long message", "receive", "read", "probe"] {
        let (mut far, mut near, known) = known_pair(&mut rig, &core);
        let (_key, descriptor) = expose(&far, &memory, Access::READ);
        let pending = near.receive(0, 10);
        let op = OpId(number());
        let pieces = [near.inward.piece(0, 10)];
        let mut post = || match what {
            "message" => near.send(b"x").map(drop),
            "long message" => near.send(&[5; 3000]).map(drop),
            "receive" => near
                .endpoint
                .post(Post::Receive {
                    op,
                    pieces: &pieces,
                })
                .map(drop),
            "read" => read(&near, 100, &descriptor, 0).map(drop),
            _ => {
                known.probe();
                Ok(())
            }
        };
        let refuses = &known.conn().watched.refuses;
        // For now only: nothing has happened.
        *refuses.lock() = Some(libc::EAGAIN);
        let refused = post();
        assert_eq!(known.ending(), None, "{what}");
        assert_eq!(refused.is_err(), what != "probe");
        if let Err(error) = refused {
            assert_eq!(error, PostError::Full, "{what}");
        }
        *refuses.lock() = Some(libc::EINVAL);
        if let Err(error) = post() {
            assert_eq!(error, PostError::Ended(Ending::Broken), "{what}");
        }
        *refuses.lock() = None;
        assert_eq!(
            near.end(pending),
            Outcome::Flushed(Ending::Broken),
            "{what}"
        );
        assert_eq!(near.endpoint.ending(), Some(Ending::Broken), "{what}");
        let token = near.token;
        let told = |e: &Event| matches!(e, Event::Ended { endpoint, .. } if *endpoint == token);
        rig.host.next("the event of the end", told);
        assert_eq!(ending(&mut rig, &mut far), Ending::Peer, "{what}");
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_a_descriptor_does_not_grant_never_reaches_the_device() {
    // req: WSD-13
    let (mut rig, core) = rig_with_cache();
    let memory = vec![0xAB_u8; 4096];
    for (rights, writes, offset) in [
        (Access::WRITE, true, 3997),
        (Access::READ, false, 3997),
        (Access::READ, true, 0),
        (Access::WRITE, false, 0),
    ] {
        let (owner, mut near, known) = known_pair(&mut rig, &core);
        let (_key, descriptor) = expose(&owner, &memory, rights);
        known.conn().watched.posted.lock().clear();
        let started = if writes {
            write(&near, 100, &descriptor, offset)
        } else {
            read(&near, 100, &descriptor, offset)
        };
        assert_eq!(near.end(started.unwrap()), Outcome::RemoteAccess);
        let posted = known.conn().watched.posted.lock().clone();
        assert!(posted.is_empty(), "{posted:?}");
        assert_eq!(ending(&mut rig, &mut near), Ending::Broken);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_failure_ends_the_connections_that_it_concerns_and_no_others() {
    // req: WSD-11
    let (mut rig, core) = rig_of_separate();
    let patience = UNFLUSHED.load(Ordering::Relaxed);
    let (mut peer, mut other, port) = {
        let (peer, other, known) = known_pair(&mut rig, &core);
        (peer, other, known.conn().port().unwrap())
    };
    type Makes = fn(&VerbsEndpoint, u8) -> DeviceEvent;
    let failures: [(&str, Makes); 4] = [
        ("queue pair", |of, _| DeviceEvent::QueueBroken(of.number())),
        ("completion queue", |of, _| {
            DeviceEvent::CompletionsBroken(of.conn().seat().unwrap().number())
        }),
        ("port", |_, port| DeviceEvent::PortDown(port)),
        ("device", |_, _| DeviceEvent::Gone),
    ];
    for (what, failure) in failures {
        let (mut far, mut near, known) = known_pair(&mut rig, &core);
        // Those of another port, and of nobody.
        core.device_event(port.device, DeviceEvent::PortDown(port.number + 1));
        core.device_event(port.device, DeviceEvent::QueueBroken(1 << 40));
        assert_eq!(near.endpoint.ending(), None);
        let waiting: Vec<_> = (0..5).map(|_| near.receive(0, 10)).collect();
        core.device_event(port.device, failure(&known, port.number));
        assert_eq!(near.send(b"x"), Err(PostError::Ended(Ending::Broken)));
        assert_eq!(ending(&mut rig, &mut near), Ending::Broken, "{what}");
        for receive in waiting {
            assert_eq!(
                near.end(receive),
                Outcome::Flushed(Ending::Broken),
                "{what}"
            );
        }
        let token = near.token;
        let told = |e: &Event| matches!(e, Event::Ended { endpoint, .. } if *endpoint == token);
        rig.host.next("the event of the end", told);
        // The peer learns of it, as far as it has not failed as well.
        ending(&mut rig, &mut far);
        if matches!(what, "queue pair" | "completion queue") {
            other.send(b"alive").unwrap();
            assert_eq!(peer.take(), b"alive", "{what}");
        } else {
            assert_eq!(ending(&mut rig, &mut other), Ending::Broken, "{what}");
            (peer, other, _) = known_pair(&mut rig, &core);
        }
    }
    assert_eq!(UNFLUSHED.load(Ordering::Relaxed), patience);
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_attempt_whose_device_fails_fails_at_once_and_has_no_end_besides() {
    // req: WSD-08
    let (mut rig, core) = rig_of_separate();
    for what in ["queue pair", "port", "device"] {
        let here = Token(number());
        let attempt = Attempt::new(from(&rig), rig.at, PATIENCE);
        let connecting = VerbsEndpoint::connecting(&core, here, attempt).unwrap();
        let request = rig.host.request(rig.listening);
        let port = connecting.conn().port().unwrap();
        let failure = match what {
            "queue pair" => DeviceEvent::QueueBroken(connecting.number()),
            "port" => DeviceEvent::PortDown(port.number),
            _ => DeviceEvent::Gone,
        };
        core.device_event(port.device, failure);
        let failed = rig.host.has(|e| {
            matches!(e, Event::ConnectFailed { endpoint, error: ConnectError::NotServed }
                if *endpoint == here)
        });
        assert!(failed, "{what}");
        connecting.poll(&mut Vec::new());
        rig.host.poll();
        let ended = |e: &Event| matches!(e, Event::Ended { endpoint, .. } if *endpoint == here);
        assert!(!rig.host.has(ended), "{what}");
        drop((request, connecting));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn who_polls_gives_up_a_device_that_does_not_flush_by_itself() {
    // req: WSD-11
    let (mut rig, core) = rig_of_separate();
    for local in [true, false] {
        let (_far, mut near, known) = known_pair(&mut rig, &core);
        let waiting: Vec<_> = (0..5).map(|_| near.receive(0, 10)).collect();
        known.conn().watched.stuck.store(true, Ordering::Relaxed);
        let before = UNFLUSHED.load(Ordering::Relaxed);
        let ending = if local {
            near.endpoint.disconnect();
            Ending::Local
        } else {
            known.die(Ending::Broken);
            Ending::Broken
        };
        // Nobody makes a round of progress.
        for receive in waiting {
            assert_eq!(near.end(receive), Outcome::Flushed(ending));
        }
        assert_eq!(near.endpoint.ending(), Some(ending));
        assert_eq!(UNFLUSHED.load(Ordering::Relaxed), before + 1);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn two_fabrics_of_a_process_name_their_connections_differently() {
    let number = || {
        let (mut rig, core) = rig_with_cache();
        known_pair(&mut rig, &core).2.number()
    };
    assert!(number().abs_diff(number()) > 1 << 20);
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_request_that_finds_no_room_may_go_over_tcp() {
    // req: WSD-08
    let mut rig = rig();
    let here = Token(number());
    let _turned_away = rig.host.fabric.connect(here, from(&rig), rig.at).unwrap();
    rig.host.request(rig.listening).turn_away();
    assert_eq!(rig.host.connected(here), Err(ConnectError::NotServed));
}

/// Begins to connect to the listener of `rig` with this private data; the channel of the attempt.
fn ask_with(rig: &mut Rig, data: &[u8]) -> (Arc<Channel>, Conn) {
    let channel = Channel::open().unwrap();
    let conn = Conn::new(&channel, 1).unwrap();
    conn.resolve(from(rig), rig.at, 3000, ACK_TIMEOUT).unwrap();
    assert_eq!(event(rig, &channel).kind, CmKind::AddressResolved);
    conn.route(3000).unwrap();
    assert_eq!(event(rig, &channel).kind, CmKind::RouteResolved);
    conn.connect(data, 1, 1, 7).unwrap();
    (channel, conn)
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_peer_has_the_address_that_it_connects_from_whatever_it_says() {
    // req: WSD-07
    let mut rig = rig();
    let hello = Hello {
        word: Word::Connect,
        port: 4711,
        descriptor_len: 32,
        max_message: 1,
    };
    // There is no place for an address: where one could stand, anything is foreign.
    for address in [[192, 0, 2, 1], [0, 0, 0, 1]] {
        let mut forged = hello.to_bytes().to_vec();
        forged[28..32].copy_from_slice(&address);
        let (channel, _conn) = ask_with(&mut rig, &forged);
        let answer = event(&mut rig, &channel);
        assert_eq!(answer.kind, CmKind::Rejected);
        let word = Hello::parse(answer.data()).map(|hello| hello.word);
        assert_eq!(word, Some(Word::Foreign));
    }
    // Behind it nothing is looked at. The port alone is the peer's word.
    let mut forged = hello.to_bytes().to_vec();
    forged.extend([192, 0, 2, 1].repeat(6));
    let (channel, _conn) = ask_with(&mut rig, &forged);
    let request = rig.host.request(rig.listening);
    assert_eq!(request.peer(), SocketAddr::new(rig.at.ip(), 4711));
    request.reject();
    let answer = event(&mut rig, &channel);
    let word = Hello::parse(answer.data()).map(|hello| hello.word);
    assert_eq!((answer.kind, word), (CmKind::Rejected, Some(Word::Refused)));
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_request_is_gone_when_its_peer_has_given_up() {
    // req: WSD-06
    let options = Options {
        patience: Some(Duration::from_millis(1500)),
        ..Options::new(true)
    };
    let mut rig = Rig::over(Host::over(open(options).unwrap()), &address());
    let here = Token(number());
    let _waits = rig.host.fabric.connect(here, from(&rig), rig.at).unwrap();
    let request = rig.host.request(rig.listening);
    assert_eq!(rig.host.connected(here), Err(ConnectError::TimedOut));
    until("the request to be gone", || request.is_gone().then_some(()));
    drop(request);
    drop(rig.pair());
}

/// Has `client` ask, and `rig` accept. The client has not heard of it when this returns.
fn accepted_unheard(
    client: &dyn Fabric,
    rig: &mut Rig,
) -> (Token, Arc<dyn Endpoint>, Arc<dyn Endpoint>) {
    let here = Token(number());
    let connecting = client.connect(here, from(rig), rig.at).unwrap();
    let mut events = Vec::new();
    until("the request", || {
        client.poll(&mut events);
        rig.host
            .has(|e| matches!(e, Event::Request { .. }))
            .then_some(())
    });
    let request = rig.host.request(rig.listening);
    let accepted = request.accept(Token(number())).unwrap();
    (here, connecting, accepted)
}

#[test]
#[ignore = "needs an RDMA device"]
fn whoever_was_accepted_connects_also_if_that_end_and_its_fabric_go_at_once() {
    // req: WSD-08
    for round in 0..5 {
        let mut rig = rig();
        let mut client = Host::over(fabric());
        let (here, connecting, accepted) = accepted_unheard(&*client.fabric, &mut rig);
        drop(accepted);
        // The last of it waits for the peer.
        let last = std::thread::spawn(move || drop(rig));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(client.connected(here), Ok(()), "{round}");
        until("the end", || {
            client.poll();
            connecting.poll(&mut Vec::new());
            (connecting.ending() == Some(Ending::Peer)).then_some(())
        });
        last.join().unwrap();
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_an_acceptor_says_waits_for_a_peer_that_is_slow_to_take_its_answer() {
    // req: WSD-09
    let mut rig = rig();
    let mut client = Host::over(fabric());
    let (here, connecting, accepted) = accepted_unheard(&*client.fabric, &mut rig);
    let mut near = End::new(Token(number()), accepted);
    let sent: Vec<_> = (0..20_u8)
        .map(|byte| {
            let at = usize::from(byte) * 300;
            (byte, near.send_at(at, &vec![byte; 1 + at / 20]).unwrap())
        })
        .collect();
    // Longer than a device asks for an acknowledgement.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        rig.host.poll();
        near.poll();
        assert_eq!(near.endpoint.ending(), None);
        assert!(near.completions.is_empty());
    }
    assert_eq!(client.connected(here), Ok(()));
    let mut far = End::new(here, connecting);
    for (byte, _) in &sent {
        // Until it has heard of its peer, the acceptor needs somebody who polls the fabric.
        let (op, posted) = far.receive(0, 1000);
        let end = match posted {
            Posted::Done(len) => Outcome::Done(len),
            Posted::Pending => until("a message", || {
                rig.host.poll();
                far.outcome(op)
            }),
        };
        let len = 1 + usize::from(*byte) * 300 / 20;
        assert_eq!(end, Outcome::Done(len));
        assert_eq!(far.inward.bytes[..len], vec![*byte; len]);
    }
    for (byte, sent) in sent {
        let len = 1 + usize::from(byte) * 300 / 20;
        assert_eq!(near.end(sent), Outcome::Done(len));
    }
    assert_eq!(near.endpoint.ending(), None);
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_waits_for_a_peer_ends_once_with_the_end() {
    // req: WSD-11
    let silent = fabric();
    for by_peer in [false, true] {
        let mut rig = rig();
        let (_, connecting, accepted) = accepted_unheard(&*silent, &mut rig);
        let mut near = End::small(Token(number()), accepted);
        let receive = near.receive(0, 10);
        let sent: Vec<_> = (0..5).map(|_| near.send(b"x").unwrap()).collect();
        let reason = if by_peer {
            drop(connecting);
            assert_eq!(ending(&mut rig, &mut near), Ending::Peer);
            Ending::Peer
        } else {
            near.endpoint.disconnect();
            Ending::Local
        };
        for sent in sent {
            assert_eq!(near.end(sent), Outcome::Flushed(reason));
        }
        assert_eq!(near.end(receive), Outcome::Flushed(reason));
        assert_eq!(near.send(b"x"), Err(PostError::Ended(reason)));
        near.poll();
        assert!(near.completions.is_empty(), "told once");
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_peer_that_never_takes_its_answer_is_given_up() {
    let options = Options {
        patience: Some(Duration::from_millis(1500)),
        ..Options::new(true)
    };
    let mut rig = Rig::over(Host::over(open(options).unwrap()), &address());
    let silent = fabric();
    let (_, _connecting, accepted) = accepted_unheard(&*silent, &mut rig);
    let mut near = End::small(Token(number()), accepted);
    let sent = near.send(b"x").unwrap();
    assert_eq!(ending(&mut rig, &mut near), Ending::Peer);
    assert_eq!(near.end(sent), Outcome::Flushed(Ending::Peer));
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_peer_that_has_gone_while_it_was_accepted_was_there_and_what_it_said_is() {
    // req: WSD-09
    let (mut rig, core) = rig_with_cache();
    // A listener whose events come by hand.
    let channel = Channel::open().unwrap();
    let listener = Conn::new(&channel, 1).unwrap();
    let at = free_address(&address());
    listener.listen(at, 8).unwrap();
    let here = Token(number());
    let connecting = rig.host.fabric.connect(here, from(&rig), at).unwrap();
    let request = event(&mut rig, &channel);
    assert_eq!(request.kind, CmKind::Request);
    let (reads_in, reads_out) = (request.reads_in, request.reads_out);
    let (there, name) = (Token(number()), core.number());
    let conn = request.conn.unwrap();
    conn.set_context(name);
    let accepted = VerbsEndpoint::accepted(&core, there, name, conn, |endpoint| {
        connect::answer(endpoint, reads_in, reads_out)?;
        rig.host.connected(here).unwrap();
        let mut client = End::small(here, connecting);
        let sent = client.send(b"hello").unwrap();
        assert_eq!(client.end(sent), Outcome::Done(5));
        drop(client);
        for kind in [CmKind::Established, CmKind::Disconnected] {
            let event = event(&mut rig, &channel);
            assert_eq!(event.kind, kind);
            endpoint.connection_event(&event);
        }
        Ok(())
    });
    let mut end = End::small(there, accepted.unwrap());
    assert_eq!(end.take_small(), b"hello");
    assert_eq!(ending(&mut rig, &mut end), Ending::Peer);
    drop(end);
    core.forget(name);
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_accepted_end_that_goes_is_not_kept_for_a_peer_that_never_confirms() {
    let options = Options {
        patience: Some(Duration::from_millis(1500)),
        ..Options::new(true)
    };
    let mut rig = Rig::over(Host::over(open(options).unwrap()), &address());
    let before = resources();
    // Its fabric stands still: nobody takes the answer.
    let silent = fabric();
    let (_, connecting, accepted) = accepted_unheard(&*silent, &mut rig);
    let with_it = resources()["qp"];
    drop(accepted);
    assert_eq!(resources()["qp"], with_it, "it is kept");
    until("it to go", || {
        rig.host.poll();
        (resources()["qp"] < with_it).then_some(())
    });
    // Nor for a peer that is gone.
    let (_, again, accepted) = accepted_unheard(&*silent, &mut rig);
    drop((again, accepted, connecting));
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
    let begun = Instant::now();
    let (_, _again, accepted) = accepted_unheard(&*silent, &mut rig);
    drop((accepted, rig));
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "it waits no longer"
    );
}

#[test]
#[ignore = "needs an RDMA device"]
fn an_accepted_end_that_goes_at_any_step_leaves_nothing_on_either_side() {
    // req: WSD-08
    let mut rig = Rig::over(Host::over(fabric()), &address());
    let before = resources();
    // How often the connecting end was not connected yet, and how often it was.
    let mut steps = [0, 0];
    for polls in [0, 1, 2, 5, 20, 100] {
        let here = Token(number());
        let connecting = rig.host.fabric.connect(here, from(&rig), rig.at).unwrap();
        let accepted = rig.host.request(rig.listening).accept(Token(number()));
        let accepted = accepted.unwrap();
        for _ in 0..polls {
            rig.host.poll();
            std::thread::sleep(Duration::from_micros(500));
        }
        let connected = |e: &Event| matches!(e, Event::Connected { endpoint } if *endpoint == here);
        steps[usize::from(rig.host.has(connected) && polls > 0)] += 1;
        drop(accepted);
        // It was accepted, so it connects, and the end comes afterwards.
        assert_eq!(rig.host.connected(here), Ok(()));
        let mut end = End::new(here, connecting);
        assert_eq!(ending(&mut rig, &mut end), Ending::Peer);
    }
    assert!(steps.iter().all(|&count| count > 0), "{steps:?}");
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == before).then_some(())
    });
}
