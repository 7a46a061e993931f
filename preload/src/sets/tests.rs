//! Sets with connections that the SAN carries, at moments that a program meets by chance only.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epoll_event};
use wsd_switch::companion::{Chore as _, Companion, Role, spin_time};

use super::member::{EDGES, Home, key_of};
use super::wait::Look;
use super::{Set, get, sys};
use crate::clock::Time;
use crate::table::{self, Descriptor};

#[path = "../../../switch/tests/companion/ends.rs"]
#[allow(clippy::cast_possible_truncation)]
mod ends;

use ends::{End, until, upgraded};

/// A set of the program's with one end of a connection in it, which is the SAN's.
struct Scene {
    number: RawFd,
    set: Arc<Set>,
    peer: End,
    end: End,
}

fn scene(events: u32) -> Scene {
    crate::prepare();
    let (peer, end) = upgraded();
    let number = sys::new_set().unwrap();
    super::created(number);
    let set = get(number).unwrap();
    // The tests do what the service thread would.
    set.lock().cared = true;
    let known = Descriptor::new(Arc::clone(&end.companion), end.fd());
    assert!(table::insert(end.fd(), known).is_none());
    let mut event = epoll_event { events, u64: 7 };
    let held = table::get(end.fd()).unwrap();
    let answer = super::control(number, EPOLL_CTL_ADD, end.fd(), &raw mut event, &held);
    assert_eq!(answer, 0);
    Scene {
        number,
        set,
        peer,
        end,
    }
}

impl Scene {
    fn home(&self) -> Home {
        let mut state = self.set.lock();
        let index = state.index_of(key_of(&self.end.companion)).unwrap();
        state.member(index).unwrap().registrations[0].home
    }

    fn is_readable(&self) -> bool {
        self.end.companion.bits() & libc::POLLIN != 0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(table::take(self.end.fd()));
        super::closed(self.number);
        sys::close(self.number);
    }
}

const INPUT: u32 = libc::EPOLLIN as u32;

#[test]
fn the_service_thread_leaves_a_set_to_a_thread_that_has_just_come_and_gone() {
    let scene = scene(INPUT);
    // A thread of the program comes while the service thread is about to look after the set, has the
    // events given directly from now on, and goes without having taken any.
    until("a wait that is trusted", || {
        drop(scene.set.arrive());
        scene.home() == Home::Direct
    });
    scene.peer.send_all(b"news").unwrap();
    until("nothing has come", || scene.is_readable());
    let (done, is_done) = mpsc::channel();
    let set = Arc::clone(&scene.set);
    let service = std::thread::spawn(move || {
        set.queue_all();
        set.pass();
        set.lock().care.watching = true;
        set.pass();
        done.send(()).unwrap();
    });
    let over = is_done.recv_timeout(Duration::from_secs(30));
    assert!(over.is_ok(), "it looks again and again");
    service.join().unwrap();
    // What it has found is still there for the program.
    let arrived = scene.set.arrive();
    let mut room = [const { MaybeUninit::uninit() }; 4];
    assert_eq!(scene.set.look(&mut room, Look::Again).told, 1);
    drop(arrived);
}

#[test]
fn the_service_thread_sleeps_though_the_program_leaves_something_unread() {
    let scene = scene(INPUT);
    scene.peer.send_all(b"news").unwrap();
    until("nothing has come", || scene.is_readable());
    let step = || {
        let next = scene.set.step(false);
        let room = &mut [const { MaybeUninit::uninit() }; 4];
        let has_news = |fd| {
            !sys::wait(fd, room, Time::Millis(0), None)
                .unwrap()
                .is_empty()
        };
        let at_once = next.sleep_on.is_some_and(has_news);
        (
            scene.set.lock().care.watching,
            next.sleep_on.is_some(),
            at_once,
        )
    };
    until("it watches what the program is away from", || step().0);
    let (watches, _, at_once) = step();
    assert!(watches && !at_once, "it looks again and again");
    scene.end.receive(&mut [0; 8], 0).unwrap();
    until("it sleeps until there is news", || {
        step() == (true, true, false)
    });
}

#[test]
fn what_comes_while_a_thread_watches_is_found_by_its_next_look() {
    if spin_time().is_zero() {
        // On one processor nobody watches.
        return;
    }
    let scene = scene(INPUT);
    let _arrived = scene.set.arrive();
    let mut room = [const { MaybeUninit::uninit() }; 4];
    let mut look = || scene.set.look(&mut room, Look::Again).told;
    scene.peer.send_all(b"news").unwrap();
    until("nothing has come", || look() == 1);
    scene.end.receive(&mut [0; 8], 0).unwrap();
    until("something is still there", || look() == 0);
    scene.peer.send_all(b"more").unwrap();
    until("it does not watch, or sees nothing", || {
        scene.set.spin.has_news();
        scene.set.spin()
    });
    assert_eq!(look(), 1);
}

impl Set {
    fn queue_all(&self) {
        let mut state = self.lock();
        for index in 0..state.members.len() {
            let _put = state.put(u32::try_from(index).unwrap());
        }
    }
}

/// A connection that the kernel carries and that nobody has sought the SAN for, and its peer.
struct Plain {
    stream: TcpStream,
    peer: TcpStream,
    descriptor: Arc<Descriptor>,
}

fn plain() -> Plain {
    crate::prepare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = listener.accept().unwrap().0;
    let companion = Companion::new(stream.as_fd(), Role::Connected).unwrap();
    let descriptor = Descriptor::new(companion, stream.as_raw_fd());
    drop(table::insert(stream.as_raw_fd(), Arc::clone(&descriptor)));
    Plain {
        stream,
        peer,
        descriptor,
    }
}

impl Plain {
    fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    fn control(&self, set: RawFd, operation: c_int, events: u32, data: u64) -> c_int {
        let mut event = epoll_event { events, u64: data };
        let held = table::get(self.fd()).unwrap();
        super::control(set, operation, self.fd(), &raw mut event, &held)
    }

    /// Its registrations in a set, as the set knows them.
    fn known(&self, set: &Set) -> Vec<(u32, u64)> {
        let mut state = set.lock();
        let Some(index) = state.index_of(key_of(self.descriptor.companion())) else {
            return Vec::new();
        };
        let member = state.member(index).unwrap();
        let told = |r: &super::member::Registration| (r.events, r.data);
        member.registrations.iter().map(told).collect()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(table::take(self.fd()));
    }
}

fn new_set() -> (RawFd, Arc<Set>) {
    let number = sys::new_set().unwrap();
    super::created(number);
    (number, get(number).unwrap())
}

fn close_set(number: RawFd) {
    super::closed(number);
    sys::close(number);
}

/// The data of what the kernel's set has ready.
fn ready(set: RawFd) -> Vec<u64> {
    let mut room = [const { MaybeUninit::uninit() }; 8];
    let events = sys::wait(set, &mut room, Time::Millis(0), None).unwrap();
    events.iter().map(|event| event.u64).collect()
}

#[test]
fn sets_learn_of_a_connection_when_the_san_is_sought_and_only_of_what_is_registered_then() {
    let plain = plain();
    let (one, one_set) = new_set();
    let (other, other_set) = new_set();
    let (third, third_set) = new_set();
    for (set, data) in [(one, 1), (other, 2), (third, 3)] {
        assert_eq!(plain.control(set, EPOLL_CTL_ADD, INPUT, data), 0);
    }
    assert_eq!(plain.control(one, EPOLL_CTL_ADD, INPUT, 9), -1, "twice");
    assert_eq!(plain.control(one, EPOLL_CTL_MOD, INPUT | EDGES, 4), 0);
    assert_eq!(plain.control(other, EPOLL_CTL_DEL, 0, 0), 0);
    (&plain.peer).write_all(b"x").unwrap();
    until("the kernel's own events", || ready(one) == [4]);
    assert_eq!((ready(other), ready(third)), (vec![], vec![3]));
    let sets = [&one_set, &other_set, &third_set];
    assert!(sets.iter().all(|set| plain.known(set).is_empty()));

    assert!(super::announced(plain.descriptor.companion(), plain.fd()));
    let known = sets.map(|set| plain.known(set));
    assert_eq!(known, [vec![(INPUT | EDGES, 4)], vec![], vec![(INPUT, 3)]]);
    // From now on they are told at once.
    assert_eq!(plain.control(third, EPOLL_CTL_DEL, 0, 0), 0);
    assert_eq!(plain.control(other, EPOLL_CTL_ADD, INPUT, 5), 0);
    let known = sets.map(|set| plain.known(set));
    assert_eq!(known, [vec![(INPUT | EDGES, 4)], vec![(INPUT, 5)], vec![]]);
    for set in [one, other, third] {
        close_set(set);
    }
}

#[test]
fn a_set_that_has_lost_its_first_number_learns_of_its_connections_all_the_same() {
    let plain = plain();
    let (first, set) = new_set();
    let (gone, gone_set) = new_set();
    assert_eq!(plain.control(first, EPOLL_CTL_ADD, INPUT, 1), 0);
    assert_eq!(plain.control(gone, EPOLL_CTL_ADD, INPUT, 2), 0);
    let second = sys::duplicate(first).unwrap();
    super::duplicated(first, second);
    close_set(first);
    close_set(gone);
    assert!(super::announced(plain.descriptor.companion(), plain.fd()));
    assert_eq!(plain.known(&set), [(INPUT, 1)]);
    assert!(plain.known(&gone_set).is_empty());
    close_set(second);
}

#[test]
fn the_san_is_not_sought_in_another_connections_name() {
    let (plain, other) = (plain(), plain());
    assert!(!super::announced(plain.descriptor.companion(), other.fd()));
    assert!(!super::announced(plain.descriptor.companion(), -1));
    assert!(!plain.descriptor.is_behind(plain.fd()), "nothing was done");
    assert!(super::announced(plain.descriptor.companion(), plain.fd()));
    assert!(plain.descriptor.is_behind(plain.fd()));
}

#[test]
fn sets_that_are_closed_leave_few_notes() {
    let plain = plain();
    let (kept, set) = new_set();
    assert_eq!(plain.control(kept, EPOLL_CTL_ADD, INPUT, 7), 0);
    for round in 0..1000 {
        let (once, _) = new_set();
        assert_eq!(plain.control(once, EPOLL_CTL_ADD, INPUT, round), 0);
        close_set(once);
    }
    let notes = plain.descriptor.notes().lock().lock().len();
    assert!(notes <= 10, "{notes}");
    assert!(super::announced(plain.descriptor.companion(), plain.fd()));
    assert_eq!(plain.known(&set), [(INPUT, 7)]);
    close_set(kept);
}
