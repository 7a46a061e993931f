//! What goes to the device, and how.

use super::*;

/// A pair of which the connecting end is known as what it is.
pub(super) fn known_pair(rig: &mut Rig, core: &Arc<Core>) -> (End, End, Arc<VerbsEndpoint>) {
    let (there, here) = (Token(number()), Token(number()));
    let from = std::net::SocketAddr::new(rig.at.ip(), 0);
    let connecting =
        VerbsEndpoint::connecting(core, here, Attempt::new(from, rig.at, PATIENCE)).unwrap();
    let request = rig.host.request(rig.listening);
    let accepted = End::new(there, request.accept(there).unwrap());
    rig.host.connected(here).unwrap();
    rig.host.settled(&*accepted.endpoint);
    let end = End::new(here, Arc::clone(&connecting) as Arc<dyn Endpoint>);
    (accepted, end, connecting)
}

#[test]
#[ignore = "needs an RDMA device"]
fn the_first_send_that_is_taken_after_a_read_is_fenced_on_the_device() {
    // req: WSD-14
    let (mut rig, core) = rig_with_cache();
    let (mut owner, mut reader, known) = known_pair(&mut rig, &core);
    let memory = vec![3_u8; 5000];
    let (_key, descriptor) = expose(&owner, &memory, Access::READ);
    let receives: Vec<_> = (0..2).map(|at| owner.receive(10 * at, 10)).collect();
    known.conn().watched.posted.lock().clear();
    let fetched = read(&reader, 5000, &descriptor, 0).unwrap();
    // A send that is refused does not use the fence up.
    let op = OpId(number());
    let pieces = [reader.out.piece(0, rig.host.fabric.caps().max_message + 1)];
    let post = Post::Send {
        op,
        pieces: &pieces,
    };
    assert_eq!(reader.endpoint.post(post), Err(PostError::TooLarge));
    let first = reader.send(b"one").unwrap();
    let second = reader.send_at(100, b"two").unwrap();
    for (op, outcome) in [(fetched, 5000), (first, 3), (second, 3)] {
        assert_eq!(reader.end(op), Outcome::Done(outcome));
    }
    for receive in receives {
        assert_eq!(owner.end(receive), Outcome::Done(3));
    }
    let fenced: Vec<_> = known
        .conn()
        .watched
        .posted
        .lock()
        .iter()
        .map(|(work, how)| (*work == Work::Send, how.contains(How::FENCE)))
        .collect();
    assert_eq!(fenced, [(false, false), (true, true), (true, false)]);
}

/// The offset from where the first began, and whether it reports, of each request since the last
/// look; and how often the device was called for them.
fn posted(known: &VerbsEndpoint) -> (Vec<(u64, bool)>, usize) {
    let watched = &known.conn().watched;
    let list: Vec<_> = watched.posted.lock().drain(..).collect();
    let bells = watched.bells.swap(0, std::sync::atomic::Ordering::Relaxed);
    let places = list.iter().map(|(work, how)| match work {
        Work::Read { remote, .. } | Work::Write { remote, .. } => {
            (*remote, how.contains(How::SIGNALED))
        }
        Work::Send => panic!("a send"),
    });
    let first = places.clone().next().map_or(0, |(remote, _)| remote);
    (places.map(|(at, how)| (at - first, how)).collect(), bells)
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_long_read_goes_to_the_device_in_parts_at_once_and_reports_once() {
    // req: WSD-14
    let (mut rig, core) = rig_with_cache();
    let (owner, mut reader, known) = known_pair(&mut rig, &core);
    let memory: Vec<_> = (0..1_u32 << 20)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect();
    let (_key, descriptor) = expose(&owner, &memory, Access::READ | Access::WRITE);
    posted(&known);
    let fetched = read(&reader, 1 << 20, &descriptor, 0).unwrap();
    let parts: Vec<_> = (0..8).map(|n| (n * (128 << 10), n == 7)).collect();
    assert_eq!(posted(&known), (parts, 1));
    assert_eq!(reader.end(fetched), Outcome::Done(1 << 20));
    assert!(reader.inward.bytes[..1 << 20] == memory);
    // A short one is one; a long write is in parts, too.
    let short = read(&reader, 128 << 10, &descriptor, 0).unwrap();
    assert_eq!(posted(&known), (vec![(0, true)], 1));
    assert_eq!(reader.end(short), Outcome::Done(128 << 10));
    let long = write(&reader, 1 << 20, &descriptor, 0).unwrap();
    let (parts, bells) = posted(&known);
    assert!(parts.len() > 8 && bells == 1, "{parts:?}, {bells}");
    let (last, others) = parts.split_last().unwrap();
    assert!(last.1 && others.iter().all(|(_, reported)| !reported));
    assert_eq!(reader.end(long), Outcome::Done(1 << 20));
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_long_read_that_is_refused_in_the_middle_fails_for_that_reason() {
    // req: WSD-13
    let mut rig = rig();
    let (mut reader, owner) = rig.pair();
    let memory = vec![0xAB_u8; 1 << 20];
    let (_key, mut descriptor) = expose(&owner, &memory[..512 << 10], Access::READ);
    // The device knows better how much there is.
    descriptor[16..24].copy_from_slice(&(1_u64 << 20).to_le_bytes());
    let waiting = reader.receive(2 << 20, 10);
    let fetched = read(&reader, 1 << 20, &descriptor, 0).unwrap();
    assert_eq!(reader.end(fetched), Outcome::RemoteAccess);
    assert_eq!(reader.end(waiting), Outcome::Flushed(Ending::Broken));
    assert_eq!(ending(&mut rig, &mut reader), Ending::Broken);
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_read_of_which_the_device_takes_nothing_waits_and_one_taken_in_part_ends_once() {
    let (mut rig, core) = rig_with_cache();
    let (mut owner, mut reader, known) = known_pair(&mut rig, &core);
    let memory = vec![7_u8; 1 << 20];
    let (_key, descriptor) = expose(&owner, &memory, Access::READ);
    let room = |parts| *known.conn().watched.room.lock() = parts;
    room(Some(0));
    let refused = read(&reader, 1 << 20, &descriptor, 0);
    assert_eq!(refused.err(), Some(PostError::Full));
    room(None);
    // Nothing of it is left: neither a place in the queue nor a hold on the memory.
    let fetched = read(&reader, 1 << 20, &descriptor, 0).unwrap();
    assert_eq!(reader.end(fetched), Outcome::Done(1 << 20));
    room(Some(3));
    let cut = read(&reader, 1 << 20, &descriptor, 0).unwrap();
    room(None);
    // Also if all parts that were taken got through before the end. (Then nothing reports them, and
    // the patience with the device has to run out.)
    let outcome = until("the end of what was cut", || {
        rig.host.poll();
        reader.outcome(cut.0)
    });
    assert_eq!(outcome, Outcome::Flushed(Ending::Broken));
    assert_eq!(ending(&mut rig, &mut reader), Ending::Broken);
    assert_eq!(reader.outcome(cut.0), None, "told once");
    assert_eq!(reader.endpoint.deregister(reader.inward.key), Ok(()));
    assert_eq!(ending(&mut rig, &mut owner), Ending::Peer);
}

#[test]
#[ignore = "needs an RDMA device"]
fn the_device_is_asked_for_one_word_at_a_time_and_none_is_left_behind() {
    let (mut rig, core) = rig_of_separate();
    let (mut far, mut near, known) = known_pair(&mut rig, &core);
    let asks = || {
        let watched = &known.conn().watched;
        watched.asks.swap(0, std::sync::atomic::Ordering::Relaxed)
    };
    // A wake-up that is still to come is not asked for again.
    let receive = near.receive(0, 10);
    asks();
    for _ in 0..3 {
        assert!(near.endpoint.arm(ArmFor::Waiter));
    }
    assert_eq!(asks(), 1);
    assert!(!readable(&*near.endpoint));
    far.send(b"x").unwrap();
    assert!(sleep_until_readable(&*near.endpoint));
    assert_eq!(near.end(receive), Outcome::Done(1));
    assert!(readable(&*near.endpoint), "until the next one arms");
    // Its word was taken: there must be another.
    let receive = near.receive(0, 10);
    assert!(near.endpoint.arm(ArmFor::Waiter));
    assert_eq!(asks(), 1);
    assert!(!readable(&*near.endpoint));
    far.send(b"y").unwrap();
    assert!(sleep_until_readable(&*near.endpoint));
    assert_eq!(near.end(receive), Outcome::Done(1));
    // The end wakes, too, and is cleared like anything else.
    far.endpoint.disconnect();
    assert_eq!(ending(&mut rig, &mut near), Ending::Peer);
    assert!(readable(&*near.endpoint));
    assert!(!near.endpoint.arm(ArmFor::Waiter));
}

/// Whether a sleeper would be woken at once.
pub(super) fn readable(endpoint: &dyn Endpoint) -> bool {
    use std::os::fd::AsRawFd;
    let mut fd = libc::pollfd {
        fd: endpoint.readiness().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure, as is said; the descriptor is the endpoint's.
    #[allow(unsafe_code)]
    let found = unsafe { libc::poll(&raw mut fd, 1, 0) };
    found == 1
}

/// Whether each send since the last look was reported by the device, and was inline.
fn sends(known: &VerbsEndpoint) -> Vec<(bool, bool)> {
    let watched = &known.conn().watched;
    let list: Vec<_> = watched.posted.lock().drain(..).collect();
    list.iter()
        .filter(|(work, _)| *work == Work::Send)
        .map(|(_, how)| (how.contains(How::SIGNALED), how.contains(How::INLINE)))
        .collect()
}

#[test]
#[ignore = "needs an RDMA device"]
fn small_messages_are_sent_at_once_and_the_device_reports_few_of_them() {
    // req: WSD-10
    let (mut rig, core) = rig_with_cache();
    let (mut far, mut near, known) = known_pair(&mut rig, &core);
    sends(&known);
    // More than a queue takes.
    let count = rig.host.fabric.caps().send_depth * 3;
    for n in 0..count {
        let message = n.to_le_bytes();
        let receive = far.receive(0, 100);
        let (_, posted) = until("room", || {
            near.poll();
            near.send(&message).ok()
        });
        assert_eq!(posted, Posted::Done(8));
        assert_eq!(far.end(receive), Outcome::Done(8));
        assert_eq!(far.inward.bytes[..8], message);
    }
    near.poll();
    assert!(near.completions.is_empty(), "each is told of once");
    let sent = sends(&known);
    assert_eq!(sent.len(), count);
    assert!(sent.iter().all(|&(_, inline)| inline));
    let reported = sent.iter().filter(|(signaled, _)| *signaled).count();
    assert!(reported >= 3 && reported <= count / 16, "{reported}");
}

#[test]
#[ignore = "needs an RDMA device"]
fn what_is_long_or_stands_behind_something_in_progress_is_reported_when_it_has_ended() {
    // req: WSD-10
    let (mut rig, core) = rig_with_cache();
    let (mut far, mut near, known) = known_pair(&mut rig, &core);
    let target = vec![0_u8; 70_000];
    let (_key, descriptor) = expose(&far, &target, Access::WRITE);
    let receives: Vec<_> = (0..4).map(|n| far.receive(n * 9000, 9000)).collect();
    sends(&known);
    let first = near.send(b"one").unwrap();
    let long = near.send_at(100, &[7; 8000]).unwrap();
    let behind = near.send_at(10_000, b"two").unwrap();
    assert_eq!(first.1, Posted::Done(3));
    assert_eq!((long.1, behind.1), (Posted::Pending, Posted::Pending));
    for (posted, len) in [(long, 8000), (behind, 3)] {
        assert_eq!(near.end(posted), Outcome::Done(len));
    }
    let written = write(&near, 70_000, &descriptor, 0).unwrap();
    let told = near.send_at(80_000, b"end").unwrap();
    assert_eq!(told.1, Posted::Pending);
    assert_eq!(near.end(written), Outcome::Done(70_000));
    assert_eq!(near.end(told), Outcome::Done(3));
    assert_eq!(
        sends(&known),
        [(false, true), (true, false), (true, true), (true, true)]
    );
    for (receive, len) in receives.into_iter().zip([3, 8000, 3, 3]) {
        assert_eq!(far.end(receive), Outcome::Done(len));
    }
    assert!(near.completions.is_empty(), "each is told of once");
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_small_message_that_the_device_does_not_take_was_not_sent() {
    let (mut rig, core) = rig_with_cache();
    let (mut far, mut near, known) = known_pair(&mut rig, &core);
    *known.conn().watched.room.lock() = Some(0);
    assert_eq!(near.send(b"no").err(), Some(PostError::Full));
    *known.conn().watched.room.lock() = None;
    let receive = far.receive(0, 100);
    let posted = near.send(b"yes").unwrap();
    assert_eq!(near.end(posted), Outcome::Done(3));
    assert_eq!(far.end(receive), Outcome::Done(3));
    // Nothing of it is left: neither a place in the queue nor a hold on the memory.
    near.endpoint.disconnect();
    assert_eq!(near.endpoint.deregister(near.out.key), Ok(()));
    assert_eq!(ending(&mut rig, &mut far), Ending::Peer);
}
