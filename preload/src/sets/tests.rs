//! Sets with connections that the SAN carries, at moments that a program meets by chance only.

use core::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, epoll_event};
use wsd_switch::companion::Chore as _;

use super::member::{Home, key_of};
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

impl Set {
    fn queue_all(&self) {
        let mut state = self.lock();
        for index in 0..state.members.len() {
            let _put = state.put(u32::try_from(index).unwrap());
        }
    }
}
