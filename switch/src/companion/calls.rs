//! The application's calls that are under way, as far as others wait for their end.
//!
//! Owns the counting of calls in the kernel and with the SAN, for each direction. A thread may leave
//! a call without coming back to us, by a longjmp out of a handler of a signal; so each thread
//! knows which of the counts are its own. Invariants: a thread counts once for a direction, and when
//! it calls again the count is this call's; when it has a connection go back to the kernel, its own
//! calls on it are not waited for: either they were left, or they go on only after that.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

/// A call that is counted, until it is dropped or another one of its thread has taken its place.
#[derive(Debug)]
pub(super) struct Call<'a> {
    count: &'a AtomicU32,
    /// Zero: the thread has no place to know it.
    name: u64,
    of_thread: PhantomData<*const ()>,
}

/// Calls of one thread that are known at a time.
const MOST: usize = 8;

struct Known {
    /// Which count, and which call; none where there is no name.
    places: [Cell<(usize, u64)>; MOST],
    named: Cell<u64>,
}

thread_local! {
    // Without a destructor: it is there as long as the thread is.
    static KNOWN: Known = const {
        Known {
            places: [const { Cell::new((0, 0)) }; MOST],
            named: Cell::new(0),
        }
    };
}

impl Known {
    fn place(&self, is: impl Fn(usize, u64) -> bool) -> Option<&Cell<(usize, u64)>> {
        self.places.iter().find(|place| {
            let (count, name) = place.get();
            is(count, name)
        })
    }
}

fn address(count: &AtomicU32) -> usize {
    std::ptr::from_ref(count).addr()
}

impl<'a> Call<'a> {
    /// Counts a call. SeqCst: who changes the phase looks at the count afterwards.
    #[inline]
    pub(super) fn begin(count: &'a AtomicU32) -> Call<'a> {
        let here = address(count);
        let name = KNOWN.with(|known| {
            let own = known.named.get() + 1;
            known.named.set(own);
            if let Some(left) = known.place(|at, name| name != 0 && at == here) {
                // Left, or waiting below a handler: the count is this one's from now on.
                left.set((here, own));
                return own;
            }
            let free = known.place(|_, name| name == 0);
            if let Some(free) = free {
                free.set((here, own));
            }
            count.fetch_add(1, Ordering::SeqCst);
            free.map_or(0, |_| own)
        });
        Call {
            count,
            name,
            of_thread: PhantomData,
        }
    }
}

impl Drop for Call<'_> {
    #[inline]
    fn drop(&mut self) {
        let here = address(self.count);
        let own = self.name == 0
            || KNOWN.with(|known| {
                let own = known.place(|at, name| name == self.name && at == here);
                own.inspect(|place| place.set((0, 0))).is_some()
            });
        if own {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The calling thread's own call is not counted any more.
pub(super) fn forget_own(count: &AtomicU32) {
    let here = address(count);
    let own = KNOWN.with(|known| {
        let own = known.place(|at, name| name != 0 && at == here);
        own.inspect(|place| place.set((0, 0))).is_some()
    });
    if own {
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(count: &AtomicU32) -> u32 {
        count.load(Ordering::SeqCst)
    }

    #[test]
    fn a_call_that_was_left_is_counted_until_its_thread_calls_again() {
        let count = AtomicU32::new(0);
        let _left = std::mem::ManuallyDrop::new(Call::begin(&count));
        assert_eq!(now(&count), 1);
        let again = Call::begin(&count);
        assert_eq!(now(&count), 1);
        drop(again);
        assert_eq!(now(&count), 0);
    }

    #[test]
    fn calls_of_several_threads_and_on_several_directions_count_each() {
        let counts = [const { AtomicU32::new(0) }; 2];
        let one = Call::begin(&counts[0]);
        let other = Call::begin(&counts[1]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let beside = Call::begin(&counts[0]);
                assert_eq!(now(&counts[0]), 2);
                drop(beside);
            });
        });
        assert_eq!((now(&counts[0]), now(&counts[1])), (1, 1));
        drop(one);
        assert_eq!((now(&counts[0]), now(&counts[1])), (0, 1));
        drop(other);
        assert_eq!(now(&counts[1]), 0);
    }

    #[test]
    fn one_that_goes_on_after_another_has_taken_its_place_ends_nothing() {
        let count = AtomicU32::new(0);
        let outer = Call::begin(&count);
        drop(Call::begin(&count));
        assert_eq!(now(&count), 0);
        drop(outer);
        assert_eq!(now(&count), 0);
        let outer = Call::begin(&count);
        forget_own(&count);
        assert_eq!(now(&count), 0);
        drop(outer);
        forget_own(&count);
        assert_eq!(now(&count), 0);
    }

    #[test]
    fn more_than_a_thread_can_know_are_counted_all_the_same() {
        let counts = [const { AtomicU32::new(0) }; MOST + 2];
        let calls: Vec<_> = counts.iter().map(Call::begin).collect();
        assert!(counts.iter().all(|count| now(count) == 1));
        drop(calls);
        assert!(counts.iter().all(|count| now(count) == 0));
    }
}
