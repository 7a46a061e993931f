//! The numbers that stand for sockets: place and generation in one int.
//!
//! Bit 30 is set and the sign is not, so that no number is also a descriptor: the kernel's tables end
//! far below. A closed number is not given out again before as many others as there are in
//! [`RESERVE`] were closed after it, and then with the next generation. Invariant: a lookup locks one
//! place only, so calls on different sockets do not meet here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::socket::Socket;

/// Set in every number.
const MARK: u32 = 1 << 30;
const PLACE_BITS: u32 = 18;
const GENERATIONS: u32 = 1 << (30 - PLACE_BITS);
/// How many sockets there may be at a time.
const PLACES: u32 = 1 << PLACE_BITS;
/// Places that are made at a time.
const CHUNK: u32 = 256;
/// Places that lie idle before one is used again.
const RESERVE: usize = 1024;

#[derive(Default)]
struct Place {
    generation: u32,
    socket: Option<Arc<Socket>>,
}

type Chunk = Box<[RwLock<Place>]>;

struct Free {
    /// In the order in which they became free.
    used: VecDeque<u32>,
    /// The first that was never used.
    next: u32,
}

static PLACES_MADE: [OnceLock<Chunk>; (PLACES / CHUNK) as usize] =
    [const { OnceLock::new() }; (PLACES / CHUNK) as usize];
static FREE: Mutex<Free> = Mutex::new(Free {
    used: VecDeque::new(),
    next: 0,
});
/// This process is a child of the one whose sockets these are.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Called in a child of fork, where nothing of this library works on.
pub(crate) extern "C" fn forget_all() {
    FORKED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_forked() -> bool {
    // Relaxed: set before the child has a second thread.
    FORKED.load(Ordering::Relaxed)
}

/// Whether a number is none of the kernel's.
pub(crate) fn is_ours(number: i32) -> bool {
    u32::try_from(number).is_ok_and(|number| number & MARK != 0)
}

fn place(index: u32) -> Option<&'static RwLock<Place>> {
    let chunk = PLACES_MADE.get(usize::try_from(index / CHUNK).ok()?)?;
    chunk.get()?.get(usize::try_from(index % CHUNK).ok()?)
}

fn split(number: i32) -> Option<(u32, u32)> {
    let bits = u32::try_from(number).ok()?;
    if bits & MARK == 0 {
        return None;
    }
    let bits = bits & !MARK;
    Some((bits % PLACES, bits / PLACES))
}

/// Gives a socket a number; `None` if there are too many.
pub(crate) fn insert(socket: Arc<Socket>) -> Option<i32> {
    let index = {
        let mut free = FREE.lock();
        if free.used.len() <= RESERVE && free.next < PLACES {
            let index = free.next;
            let chunk = PLACES_MADE.get(usize::try_from(index / CHUNK).ok()?)?;
            chunk.get_or_init(|| (0..CHUNK).map(|_| RwLock::default()).collect());
            free.next += 1;
            index
        } else {
            free.used.pop_front()?
        }
    };
    let mut place = place(index)?.write();
    place.socket = Some(socket);
    let bits = MARK | (place.generation * PLACES) | index;
    i32::try_from(bits).ok()
}

/// The socket with this number.
#[inline]
pub(crate) fn find(number: i32) -> Option<Arc<Socket>> {
    if is_forked() {
        return None;
    }
    let (index, generation) = split(number)?;
    let place = place(index)?.read();
    if place.generation == generation {
        place.socket.clone()
    } else {
        None
    }
}

/// Takes the number from its socket.
pub(crate) fn remove(number: i32) -> Option<Arc<Socket>> {
    if is_forked() {
        return None;
    }
    let (index, generation) = split(number)?;
    let mut place = place(index)?.write();
    if place.generation != generation {
        return None;
    }
    let socket = place.socket.take()?;
    place.generation = (generation + 1) % GENERATIONS;
    drop(place);
    FREE.lock().used.push_back(index);
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> Arc<Socket> {
        Arc::new(Socket::new(libc::AF_INET, false).unwrap())
    }

    #[test]
    fn a_number_that_was_given_back_stands_for_nothing_and_does_not_come_again_soon() {
        let first = insert(socket()).unwrap();
        assert!(is_ours(first) && !is_ours(first & 0x3FFF_FFFF) && !is_ours(-1));
        assert!(find(first).is_some());
        assert!(remove(first).is_some());
        assert!(find(first).is_none() && remove(first).is_none());
        for _ in 0..3 * RESERVE {
            let number = insert(socket()).unwrap();
            assert_ne!(number, first);
            remove(number).unwrap();
            assert!(find(first).is_none());
        }
    }

    #[test]
    fn numbers_that_nobody_gave_out_stand_for_nothing() {
        for number in [0, 3, -1, i32::MIN, i32::MAX, 1 << 30 | 200_000, 1 << 29] {
            assert!(find(number).is_none(), "{number}");
            assert!(remove(number).is_none(), "{number}");
        }
    }
}
