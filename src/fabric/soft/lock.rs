//! The lock of the parts of an endpoint.
//!
//! It is taken twice or thrice for every message and nearly never contended, so it is the cheapest
//! there is: one atomic exchange to take it, a plain store to give it back. Whoever finds it taken
//! spins a little, then lets others run, then sleeps in short steps: the holder may be copying a
//! megabyte, or may have lost its processor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::lock_api;

pub(crate) type Mutex<T> = lock_api::Mutex<Raw, T>;
pub(crate) type Guard<'a, T> = lock_api::MutexGuard<'a, Raw, T>;

#[derive(Debug)]
pub(crate) struct Raw(AtomicBool);

impl Raw {
    #[cold]
    fn wait(&self) {
        for round in 0u32.. {
            match round {
                0..64 => std::hint::spin_loop(),
                64..80 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
            // Looking before trying keeps the line shared meanwhile.
            if !self.0.load(Ordering::Relaxed) && lock_api::RawMutex::try_lock(self) {
                return;
            }
        }
    }
}

// SAFETY: only one `try_lock` succeeds between two `unlock`s, and the acquire of one pairs with
// the release of the other.
unsafe impl lock_api::RawMutex for Raw {
    // A lock initializer, not a shared atomic.
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));

    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_the_lock_guards_is_changed_by_one_thread_at_a_time() {
        let count = Arc::new(Mutex::new(0u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    for round in 0..20_000 {
                        let mut count = count.lock();
                        let seen = *count;
                        if round % 1000 == 0 {
                            std::thread::yield_now();
                        }
                        *count = seen + 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*count.lock(), 80_000);
    }
}
