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
    // A short one, and a write of any length, are one each.
    let short = read(&reader, 128 << 10, &descriptor, 0).unwrap();
    let long = write(&reader, 1 << 20, &descriptor, 0).unwrap();
    assert_eq!(posted(&known), (vec![(0, true); 2], 2));
    assert_eq!(reader.end(short), Outcome::Done(128 << 10));
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
    let (mut rig, core) = rig_with_cache();
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
fn readable(endpoint: &dyn Endpoint) -> bool {
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
