//! The application's calls that are under way, as far as others wait for their end.
//!
//! Owns the counting of calls in the kernel and with the SAN, for each direction. A thread may leave
//! a call without coming back to us, by a longjmp out of a handler of a signal; so each thread
//! knows which of the counts are its own, and where its stack was. Invariants: every call that may
//! still go on is counted, also one that waits below a handler which calls, too; a call that was left
//! is counted until the [`Jump`] is told, or else until its thread calls again from no deeper; when a
//! thread has a connection go back to the kernel, its own calls on it are not waited for: either they
//! were left, or they go on only after that.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A call that is counted, until it is dropped or was left.
#[derive(Debug)]
pub(super) struct Call<'a> {
    count: &'a AtomicU32,
    /// Zero: the thread has no place to know it.
    name: u64,
    of_thread: PhantomData<*const ()>,
}

/// Calls of one thread that are known at a time.
const MOST: usize = 8;
/// What the kernel puts on the stack for a handler is more than this; two calls from the same place of
/// the program differ by less.
const FRAME: usize = 1024;
/// Farther away is another stack: that of a handler.
const STACK: usize = 8 << 20;

/// Which count, which call, and where the stack was; no call where there is no name.
type Place = Cell<(*const AtomicU32, u64, usize)>;
const FREE: (*const AtomicU32, u64, usize) = (ptr::null(), 0, 0);

struct Known {
    places: [Place; MOST],
    named: Cell<u64>,
}

thread_local! {
    // Without a destructor: it is there as long as the thread is.
    static KNOWN: Known = const {
        Known {
            places: [const { Cell::new(FREE) }; MOST],
            named: Cell::new(0),
        }
    };
}

impl Known {
    fn all(
        &self,
        is: impl Fn(*const AtomicU32, u64, usize) -> bool,
    ) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| {
            let (count, name, stack) = place.get();
            is(count, name, stack)
        })
    }

    fn call(&self, here: *const AtomicU32, name: u64) -> Option<&Place> {
        self.all(|at, known, _| at == here && known == name).next()
    }
}

/// Whether a thread whose stack is at `now` has left what it began at `then`. Stacks grow downwards: a
/// handler's is below that of what it interrupts, or somewhere else.
fn is_left(then: usize, now: usize) -> bool {
    (then.saturating_sub(FRAME)..then.saturating_add(STACK)).contains(&now)
}

/// A longjmp of the calling thread, about to happen: the ends of its way on the stack, of which
/// either may be on that of a handler.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    from: usize,
    to: usize,
}

impl Jump {
    /// From one place on the stack to another.
    pub fn new(from: usize, to: usize) -> Jump {
        Jump { from, to }
    }

    /// Whether its goal is above it on the same stack: the calls between cannot go on.
    pub fn goes_up(self) -> bool {
        let Jump { from, to } = self;
        from < to && to - from <= STACK
    }

    /// Whether it leaves what the thread began with its stack at `then`.
    pub fn leaves(self, then: usize) -> bool {
        let Jump { from, to } = self;
        let by_the_handler = then >= from && then - from < STACK;
        let before = then < to && to - then <= STACK;
        if self.goes_up() {
            by_the_handler && before
        } else {
            by_the_handler || before
        }
    }

    /// The calls that it leaves are not counted any more.
    ///
    /// # Safety
    /// The companions of the thread's calls are still there.
    pub unsafe fn tell(self) {
        KNOWN.with(|known| {
            for left in known.all(|_, name, then| name != 0 && self.leaves(then)) {
                let (count, ..) = left.replace(FREE);
                // SAFETY: the caller's promise.
                unsafe { &*count }.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
}

impl<'a> Call<'a> {
    /// Counts a call. SeqCst: who changes the phase looks at the count afterwards.
    #[inline]
    pub(super) fn begin(count: &'a AtomicU32) -> Call<'a> {
        let mark = 0_u8;
        Call::begin_at(count, ptr::from_ref(&mark).addr())
    }

    /// As `begin`, with the stack there.
    #[inline]
    fn begin_at(count: &'a AtomicU32, stack: usize) -> Call<'a> {
        let here = ptr::from_ref(count);
        let name = KNOWN.with(|known| {
            let own = known.named.get() + 1;
            known.named.set(own);
            for left in known.all(|at, name, then| name != 0 && at == here && is_left(then, stack))
            {
                left.set(FREE);
                count.fetch_sub(1, Ordering::SeqCst);
            }
            // First: what is left from here on is counted too often, never too little.
            count.fetch_add(1, Ordering::SeqCst);
            let free = known.all(|_, name, _| name == 0).next();
            if let Some(free) = free {
                free.set((here, own, stack));
            }
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
        let here = ptr::from_ref(self.count);
        let own = self.name == 0
            || KNOWN.with(|known| {
                let own = known.call(here, self.name);
                own.inspect(|place| place.set(FREE)).is_some()
            });
        if own {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The calling thread's own calls are not counted any more.
pub(super) fn forget_own(count: &AtomicU32) {
    let here = ptr::from_ref(count);
    KNOWN.with(|known| {
        for own in known.all(|at, name, _| name != 0 && at == here) {
            own.set(FREE);
            count.fetch_sub(1, Ordering::SeqCst);
        }
    });
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
    fn a_call_that_waits_below_a_handler_which_calls_too_stays_counted() {
        let count = AtomicU32::new(0);
        let stack = 1 << 40;
        let outer = Call::begin_at(&count, stack);
        for handler in [stack - 4096, stack - STACK, stack + 2 * STACK] {
            let inner = Call::begin_at(&count, handler);
            assert_eq!(now(&count), 2);
            drop(inner);
            assert_eq!(now(&count), 1);
        }
        drop(outer);
        assert_eq!(now(&count), 0);
    }

    #[test]
    fn what_a_thread_has_left_ends_with_its_next_call_from_there() {
        let count = AtomicU32::new(0);
        let stack = 1 << 40;
        for left in [stack, stack - 4096] {
            let _left = std::mem::ManuallyDrop::new(Call::begin_at(&count, left));
        }
        assert_eq!(now(&count), 2);
        let again = Call::begin_at(&count, stack - 100);
        assert_eq!(now(&count), 1);
        drop(again);
        assert_eq!(now(&count), 0);
    }

    #[test]
    fn a_jump_leaves_what_lies_between_its_ends_and_nothing_above() {
        let stack = 1 << 40;
        let handler = stack + 2 * STACK;
        let jump = Jump::new(stack - 9000, stack);
        assert!(jump.leaves(stack - 1) && jump.leaves(stack - 9000));
        assert!(!jump.leaves(stack) && !jump.leaves(stack - 9001));
        assert!(jump.goes_up());
        for handler in [stack + 2 * STACK, stack - 2 * STACK] {
            let out = Jump::new(handler, stack);
            assert!(out.leaves(handler + 100) && out.leaves(stack - 100));
            assert!(!out.leaves(stack) && !out.leaves(stack + 100));
            assert!(!out.goes_up());
        }
        let inside = Jump::new(handler, handler + 500);
        assert!(inside.leaves(handler + 100));
        assert!(!inside.leaves(stack - 100) && !inside.leaves(handler + 500));
    }

    #[test]
    fn what_a_jump_leaves_is_not_counted_from_then_on() {
        let count = AtomicU32::new(0);
        let stack = 1 << 40;
        let outer = Call::begin_at(&count, stack);
        let _left = std::mem::ManuallyDrop::new(Call::begin_at(&count, stack - 4096));
        assert_eq!(now(&count), 2);
        // SAFETY: the count is there.
        unsafe { Jump::new(stack - 9000, stack - 2000).tell() };
        assert_eq!(now(&count), 1);
        let deeper = Call::begin_at(&count, stack - 8192);
        assert_eq!(now(&count), 2);
        drop((deeper, outer));
        assert_eq!(now(&count), 0);
    }

    #[test]
    fn one_that_goes_on_after_it_was_forgotten_ends_nothing() {
        let count = AtomicU32::new(0);
        let outer = Call::begin_at(&count, 1 << 40);
        let inner = Call::begin_at(&count, (1 << 40) - 4096);
        forget_own(&count);
        assert_eq!(now(&count), 0);
        drop((inner, outer));
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
