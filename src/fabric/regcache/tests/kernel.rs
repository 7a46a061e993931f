//! The cache over the kernel's own account of this process's memory. Where the kernel gives none,
//! each test says that it is skipped, and why.
//!
//! Other tests change watched memory at the same time, so that a registration may be made anew
//! without need; what must not happen is the opposite.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, c_void};

use super::*;
use crate::fabric::regcache::watch::Kernel;
use crate::fabric::regcache::{Domain, Options};

/// A registration that remembers what was in the memory when it was made, as a device does that
/// has pinned the pages.
#[derive(Debug)]
struct Pinned {
    registered: Registered,
    tag: u64,
}

struct Watched {
    device: Arc<Device>,
    cache: Cache<Pinned>,
    domain: Domain<Pinned>,
}

impl Watched {
    /// None, and a word about it, if this kernel cannot.
    fn new(test: &str) -> Option<Self> {
        match Kernel::get() {
            Ok(kernel) => {
                let cache = Cache::with(ROOMY, Some(kernel), String::new());
                Some(Self {
                    device: Arc::default(),
                    domain: cache.domain(),
                    cache,
                })
            }
            Err(reason) => {
                eprintln!("{test} skipped: {reason}");
                None
            }
        }
    }

    fn take(&self, base: usize, len: usize) -> Lease<Pinned> {
        let region = Region { base, len };
        let register = || {
            Ok(Pinned {
                registered: self.device.register(region, WRITE)?,
                // SAFETY: the tests register mapped memory only.
                tag: unsafe { ptr::with_exposed_provenance::<u64>(base).read_volatile() },
            })
        };
        self.domain.acquire(region, WRITE, register).unwrap()
    }

    fn serial(&self, base: usize, len: usize) -> usize {
        self.take(base, len).registered.serial
    }

    /// Registers it in such a way that it is handed out again.
    fn keep(&self, base: usize, len: usize) -> usize {
        eventually("a hit", || {
            let first = self.serial(base, len);
            (self.serial(base, len) == first).then_some(first)
        })
    }
}

fn eventually<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = test() {
            return found;
        }
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const RIGHTS: c_int = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn map_with(at: usize, len: usize, flags: c_int, fd: c_int) -> usize {
    let at: *mut c_void = ptr::with_exposed_provenance_mut(at);
    // SAFETY: new memory, or in place of memory of the test's own.
    let at = unsafe { libc::mmap(at, len, RIGHTS, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    at.expose_provenance()
}

fn map(len: usize) -> usize {
    map_with(0, len, PRIVATE, -1)
}

fn unmap(at: usize, len: usize) {
    // SAFETY: memory of the test's own.
    let rc = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(at), len) };
    assert_eq!(rc, 0);
}

fn advise(at: usize, len: usize, advice: c_int) {
    // SAFETY: memory of the test's own.
    let rc = unsafe { libc::madvise(ptr::with_exposed_provenance_mut(at), len, advice) };
    assert_eq!(rc, 0, "{}", io::Error::last_os_error());
}

fn write(at: usize, value: u64) {
    // SAFETY: memory of the test's own.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(at).write_volatile(value) };
}

#[test]
fn memory_that_is_unmapped_and_mapped_again_is_registered_anew() {
    let Some(watched) = Watched::new("unmap") else {
        return;
    };
    let at = map(4 * PAGE);
    let before = watched.keep(at, 4 * PAGE);
    unmap(at, 4 * PAGE);
    let again = map_with(at, 4 * PAGE, PRIVATE | libc::MAP_FIXED_NOREPLACE, -1);
    assert_eq!(again, at);
    assert_ne!(watched.serial(at, 4 * PAGE), before);
    assert!(watched.cache.stats().invalidations > 0);
    unmap(at, 4 * PAGE);
}

#[test]
fn every_way_of_losing_pages_is_noticed() {
    type Loss = (&'static str, fn(usize));
    let losses: &[Loss] = &[
        ("unmapping one page in the middle", |at| {
            unmap(at + PAGE, PAGE);
            map_with(at + PAGE, PAGE, PRIVATE | libc::MAP_FIXED_NOREPLACE, -1);
        }),
        ("mapping over it", |at| {
            map_with(at, 4 * PAGE, PRIVATE | libc::MAP_FIXED, -1);
        }),
        ("discarding the last page", |at| {
            advise(at + 3 * PAGE, PAGE, libc::MADV_DONTNEED);
        }),
        ("freeing lazily", |at| advise(at, 4 * PAGE, libc::MADV_FREE)),
        ("moving away", |at| {
            let place = map(4 * PAGE);
            // SAFETY: from memory of the test's own to memory of the test's own.
            let moved = unsafe {
                libc::mremap(
                    ptr::with_exposed_provenance_mut(at),
                    4 * PAGE,
                    4 * PAGE,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    ptr::with_exposed_provenance_mut::<c_void>(place),
                )
            };
            assert_eq!(moved.addr(), place);
            map_with(at, 4 * PAGE, PRIVATE | libc::MAP_FIXED_NOREPLACE, -1);
            unmap(place, 4 * PAGE);
        }),
        ("shrinking", |at| {
            // SAFETY: memory of the test's own, in place.
            let rest = unsafe {
                libc::mremap(ptr::with_exposed_provenance_mut(at), 4 * PAGE, 2 * PAGE, 0)
            };
            assert_eq!(rest.addr(), at);
            map_with(
                at + 2 * PAGE,
                2 * PAGE,
                PRIVATE | libc::MAP_FIXED_NOREPLACE,
                -1,
            );
        }),
    ];
    let Some(watched) = Watched::new("losses") else {
        return;
    };
    for (what, lose) in losses {
        let at = map(4 * PAGE);
        let before = watched.keep(at, 4 * PAGE);
        lose(at);
        assert_ne!(watched.serial(at, 4 * PAGE), before, "{what}");
        // And what is there now is watched as well.
        let now = watched.keep(at, 4 * PAGE);
        advise(at, PAGE, libc::MADV_DONTNEED);
        assert_ne!(watched.serial(at, 4 * PAGE), now, "after {what}");
        unmap(at, 4 * PAGE);
    }
}

#[test]
fn pages_that_nobody_has_touched_are_touched_as_ever() {
    let Some(watched) = Watched::new("first touch") else {
        return;
    };
    let at = map(64 * PAGE);
    let region = Region {
        base: at,
        len: 64 * PAGE,
    };
    let lease = watched.domain.acquire(region, WRITE, || {
        Ok(Pinned {
            registered: watched.device.register(region, WRITE)?,
            tag: 0,
        })
    });
    for page in 0..64 {
        // SAFETY: memory of the test's own.
        let word = unsafe { ptr::with_exposed_provenance::<u64>(at + page * PAGE).read_volatile() };
        assert_eq!(word, 0);
        write(at + page * PAGE, 7);
    }
    drop(lease);
    unmap(at, 64 * PAGE);
}

#[test]
fn unused_registrations_of_lost_memory_end_without_anybody_asking() {
    let Some(watched) = Watched::new("sweeping") else {
        return;
    };
    let at = map(PAGE);
    watched.keep(at, PAGE);
    unmap(at, PAGE);
    eventually("the end of the registration", || {
        (watched.device.live() == 0).then_some(())
    });
}

#[test]
fn what_can_change_behind_our_back_is_not_kept() {
    let Some(watched) = Watched::new("other memory") else {
        return;
    };
    // SAFETY: a name and no flags.
    let fd = unsafe { libc::memfd_create(c"wsd-test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a descriptor of the test's own.
    assert_eq!(unsafe { libc::ftruncate(fd, 8192) }, 0);
    let fd = file.as_raw_fd();
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    for (what, at) in [
        ("a file, shared", map_with(0, PAGE, libc::MAP_SHARED, fd)),
        ("a file, private", map_with(0, PAGE, libc::MAP_PRIVATE, fd)),
        ("shared memory", map_with(0, PAGE, shared, -1)),
    ] {
        let live = watched.device.live();
        let lease = watched.take(at, PAGE);
        drop(lease);
        assert_eq!(watched.device.live(), live, "{what}");
        unmap(at, PAGE);
    }
    // Private memory beside a hole, and beside something else.
    let at = map(3 * PAGE);
    map_with(at + PAGE, PAGE, shared | libc::MAP_FIXED, -1);
    let lease = watched.take(at, 3 * PAGE);
    drop(lease);
    assert_eq!(watched.device.live(), 0);
    unmap(at, 3 * PAGE);
}

#[test]
fn a_forked_child_is_left_alone_and_the_parent_keeps_its_registration() {
    let Some(watched) = Watched::new("fork") else {
        return;
    };
    let at = map(2 * PAGE);
    write(at, 1);
    let before = watched.keep(at, 2 * PAGE);
    // SAFETY: the child makes two system calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the child's own copy; nobody else runs in the child.
        let rc = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(at), 2 * PAGE) };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(rc) };
    }
    assert!(child > 0);
    let status = eventually("the end of the child", || {
        let mut status = -1;
        // SAFETY: a child of the test's own, and a place for the result.
        let rc = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        (rc == child).then_some(status)
    });
    assert_eq!(status, 0);
    write(at, 2);
    eventually("a hit", || {
        (watched.serial(at, 2 * PAGE) == before).then_some(())
    });
    unmap(at, 2 * PAGE);
}

/// Threads map memory, write something unmistakable into it, register and release it, and unmap it:
/// the addresses go from one to the other at once. Whoever is handed a registration of what was
/// there before finds the wrong word in it.
#[test]
fn no_thread_gets_a_registration_of_what_another_thread_had_at_the_address() {
    let Some(watched) = Watched::new("race") else {
        return;
    };
    // Emulated machines are slow.
    let divisor = std::env::var("WSD_TEST_DIVISOR").map_or(1, |text| text.parse().unwrap());
    let serial = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (watched, serial) = (&watched, &serial);
            scope.spawn(move || {
                for _ in 0..1500 / divisor {
                    let tag = serial.fetch_add(1, Ordering::SeqCst);
                    let len = (1 + usize::try_from(tag).unwrap() % 3) * PAGE;
                    let at = map(len);
                    write(at, tag);
                    for _ in 0..2 {
                        assert_eq!(watched.take(at, len).tag, tag, "thread {thread}");
                    }
                    unmap(at, len);
                }
            });
        }
    });
    eventually("the end of all registrations", || {
        (watched.device.live() == 0).then_some(())
    });
    assert!(watched.cache.stats().invalidations > 0);
}

/// The same through the allocator, whose locks are held while it gives memory back, and which the
/// cache needs itself.
#[test]
fn memory_of_the_allocator_comes_and_goes_under_its_locks() {
    let Some(watched) = Watched::new("allocator") else {
        return;
    };
    let serial = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (watched, serial) = (&watched, &serial);
            scope.spawn(move || {
                let mut kept = Vec::new();
                for n in 0..600_usize {
                    let tag = serial.fetch_add(1, Ordering::SeqCst);
                    // Small ones out of the heap, large ones out of mappings of their own.
                    let words = [40, 2_000, 20_000, 60_000][n % 4];
                    let mut buffer = vec![0_u64; words];
                    buffer[0] = tag;
                    let at = buffer.as_ptr().expose_provenance();
                    let lease = watched.take(at, words * 8);
                    // In memory that was never given back to the system the registration of the
                    // former buffer is right, and knows the former word.
                    let offset = lease.offset();
                    assert!(
                        offset + words * 8 <= lease.registered.region.len,
                        "{thread}"
                    );
                    drop(lease);
                    buffer.resize(words * 2, 1);
                    kept.push(buffer);
                    if kept.len() > 5 {
                        kept.swap_remove(n % 5);
                    }
                }
            });
        }
    });
}

/// Where it fails the tests here that need the kernel's watch pass without having shown anything.
#[test]
#[ignore = "run by ./test, which says what could not be tested here"]
fn this_kernel_lets_memory_be_watched() {
    if let Err(reason) = Kernel::get() {
        panic!("{reason}");
    }
}

#[test]
fn what_this_machine_can_do_is_said() {
    let cache = Cache::<Registered>::new(Options {
        bytes: Some(1 << 20),
        ..Options::default()
    });
    match Kernel::get() {
        Ok(_) => {
            assert!(cache.keeps());
            assert!(cache.describe().contains("userfaultfd"));
        }
        Err(reason) => {
            assert!(!cache.keeps());
            assert_eq!(cache.describe(), format!("off: {reason}"));
        }
    }
}
