//! The rules of the cache, one by one.

use super::*;
use crate::fabric::Released;
use crate::fabric::regcache::{Options, Watching};

#[test]
fn a_released_registration_serves_again_for_itself_and_its_parts() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let first = rig.take(&domain, (0x10010, 5000), READ).serial;
    assert_eq!(rig.take(&domain, (0x10010, 5000), READ).serial, first);
    let part = rig.take(&domain, (0x10020, 100), READ);
    assert_eq!((part.serial, part.offset()), (first, 0x10));
    assert_ne!(rig.take(&domain, (0x1000F, 10), READ).serial, first);
    assert_ne!(rig.take(&domain, (0x10010, 5001), READ).serial, first);
    let stats = rig.cache.stats();
    assert_eq!((stats.hits, stats.misses), (2, 3));
}

#[test]
fn more_rights_than_asked_for_are_not_handed_out() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    drop(rig.take(&domain, (0x10000, 100), READ | WRITE));
    drop(rig.take(&domain, (0x10000, 100), READ));
    drop(rig.take(&domain, (0x10000, 100), WRITE));
    assert_eq!(rig.device.made(), 3);
    drop(rig.take(&domain, (0x10000, 100), READ | WRITE));
    assert_eq!(rig.device.made(), 3);
}

#[test]
fn another_domain_gets_its_own_and_takes_it_along() {
    let rig = Rig::new(ROOMY);
    let (one, other) = (rig.cache.domain(), rig.cache.domain());
    drop(rig.take(&one, (0x10000, 100), READ));
    drop(rig.take(&other, (0x10000, 100), READ));
    assert_eq!(rig.device.live(), 2);
    let used = rig.take(&one, (0x10000, 100), READ);
    drop(one);
    assert_eq!(rig.device.live(), 2, "leased");
    drop(used);
    assert_eq!(rig.device.live(), 1);
    drop(other);
    assert_eq!(rig.device.live(), 0);
    assert!(rig.monitor.watched.lock().is_empty());
    assert_eq!(rig.cache.stats().bytes, 0);
}

#[test]
fn two_at_once_share_one_and_it_is_idle_after_both() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let (a, b) = (
        rig.take(&domain, (0x10000, 100), READ),
        rig.take(&domain, (0x10000, 100), READ),
    );
    assert_eq!(rig.device.live(), 1);
    drop(a);
    assert_eq!(rig.cache.stats().idle, 0);
    drop(b);
    assert_eq!(rig.cache.stats().idle, 1);
}

#[test]
fn the_longest_unused_goes_first_and_what_is_used_stays() {
    let rig = Rig::new(Limits {
        bytes: 3 * PAGE,
        entries: 1000,
    });
    let domain = rig.cache.domain();
    let used = rig.take(&domain, (0x10000, PAGE), READ);
    for base in [0x20000, 0x30000, 0x20000, 0x40000] {
        drop(rig.take(&domain, (base, PAGE), READ));
    }
    assert_eq!(rig.device.made(), 4);
    // 0x30000 had to go.
    drop(rig.take(&domain, (0x20000, PAGE), READ));
    drop(rig.take(&domain, (0x10000, PAGE), READ));
    assert_eq!(rig.device.made(), 4);
    drop(rig.take(&domain, (0x30000, PAGE), READ));
    assert_eq!(rig.device.made(), 5);
    drop(used);
    assert_eq!(rig.cache.stats().bytes, 3 * PAGE);
    assert_eq!(rig.cache.stats().evictions, 2);
}

#[test]
fn the_number_of_registrations_is_limited_too() {
    let rig = Rig::new(Limits {
        bytes: 1 << 30,
        entries: 2,
    });
    let domain = rig.cache.domain();
    for n in 1..10 {
        drop(rig.take(&domain, (n * 0x10000, 10), READ));
    }
    assert_eq!(rig.device.live(), 2);
}

#[test]
fn what_is_larger_than_the_cache_ends_with_its_lease() {
    let rig = Rig::new(Limits {
        bytes: 2 * PAGE,
        entries: 10,
    });
    let domain = rig.cache.domain();
    drop(rig.take(&domain, (0x10000, PAGE), READ));
    // Three pages are touched.
    drop(rig.take(&domain, (0x20001, 2 * PAGE), READ));
    assert_eq!(rig.device.live(), 1);
    assert_eq!(rig.cache.stats().evictions, 0);
}

#[test]
fn without_room_everything_unused_goes_and_it_is_tried_once_more() {
    let rig = Rig::new(ROOMY);
    let (one, other) = (rig.cache.domain(), rig.cache.domain());
    let used = rig.take(&one, (0x10000, 10), READ);
    drop(rig.take(&one, (0x20000, 10), READ));
    drop(rig.take(&one, (0x30000, 10), READ));
    rig.device.room.store(3, Ordering::SeqCst);
    let more = rig.take(&other, (0x40000, 10), READ);
    assert_eq!(rig.device.live(), 2);
    rig.device.room.store(2, Ordering::SeqCst);
    let region = Region {
        base: 0x50000,
        len: 10,
    };
    let error = take(&rig.device, &other, region, READ).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    drop((used, more));
    let stats = rig.cache.stats();
    assert_eq!((stats.entries, stats.bytes), (2, 2 * PAGE));
    assert_eq!(rig.monitor.watched.lock().len(), 2);
}

#[test]
fn what_is_kept_gives_way_to_what_is_never_kept() {
    let rig = Rig::new(ROOMY);
    let (one, other) = (rig.cache.domain(), rig.cache.domain());
    let used = rig.take(&one, (0x10000, 10), READ);
    drop(rig.take(&one, (0x20000, 10), READ));
    drop(rig.take(&other, (0x30000, 10), READ));
    rig.device.room.store(3, Ordering::SeqCst);
    let region = Region {
        base: 0x40000,
        len: 10,
    };
    let own =
        |domain: &super::super::Domain<_>| domain.make_own(|| rig.device.register(region, WRITE));
    let first = own(&other).unwrap();
    assert_eq!(rig.device.live(), 2, "the one in use, and this");
    rig.device.room.store(2, Ordering::SeqCst);
    let error = own(&other).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    drop((used, first));
    assert_eq!(rig.cache.stats().entries, 1);
    assert_eq!(rig.device.live(), 1, "its own ended with its owner");
}

#[test]
fn any_other_error_is_the_callers() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    drop(rig.take(&domain, (0x10000, 10), READ));
    let mut calls = 0;
    let region = |base, len| Region { base, len };
    let result = domain.acquire(region(0x20000, 10), READ, || {
        calls += 1;
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    });
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    assert_eq!((calls, rig.device.live()), (1, 1));
    for none in [region(0x1000, 0), region(usize::MAX, 2)] {
        let result = take(&rig.device, &domain, none, READ);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_registration_that_panics_leaves_nothing_behind() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let region = Region {
        base: 0x10000,
        len: 1,
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lease = domain.acquire(region, READ, || std::panic::resume_unwind(Box::new(0)));
        drop(lease);
    }));
    assert!(result.is_err());
    assert_eq!(rig.cache.stats().entries, 0);
    assert!(rig.monitor.watched.lock().is_empty());
}

#[test]
fn memory_that_changed_in_part_is_registered_anew() {
    for (start, end) in [(0x11000, 0x12000), (0xF000, 0x11000), (0x12000, 0x20000)] {
        let rig = Rig::new(ROOMY);
        let domain = rig.cache.domain();
        let before = rig.take(&domain, (0x10800, 0x2000), READ).serial;
        rig.monitor.changed(start, end);
        assert_ne!(rig.take(&domain, (0x10800, 0x2000), READ).serial, before);
        assert_eq!(rig.device.live(), 1);
        assert_eq!(rig.cache.stats().invalidations, 1);
    }
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let before = rig.take(&domain, (0x10800, 0x2000), READ).serial;
    rig.monitor.changed(0xF000, 0x10000);
    rig.monitor.changed(0x13000, 0x14000);
    assert_eq!(rig.take(&domain, (0x10800, 0x2000), READ).serial, before);
}

#[test]
fn what_is_in_use_when_its_memory_goes_ends_with_its_last_release() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let old = rig.take(&domain, (0x10000, 100), READ);
    let same = rig.take(&domain, (0x10000, 100), READ);
    rig.monitor.changed(0x10000, 0x11000);
    let new = rig.take(&domain, (0x10000, 100), READ);
    assert_ne!(old.serial, new.serial);
    drop(old);
    assert_eq!(rig.device.live(), 2);
    drop(same);
    assert_eq!(rig.device.live(), 1);
    drop(new);
    assert_eq!(rig.cache.stats().idle, 1);
    assert_eq!(rig.monitor.watched.lock().len(), 1);
}

#[test]
fn memory_that_goes_while_it_is_registered_is_not_kept() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let region = Region {
        base: 0x10000,
        len: 100,
    };
    let lease = domain
        .acquire(region, READ, || {
            rig.monitor.changed(0x10000, 0x11000);
            // Somebody else looks, so that the change has been applied when it is entered.
            assert_eq!(rig.cache.stats().entries, 1);
            rig.device.register(region, READ)
        })
        .unwrap();
    // Nor shared while it is leased.
    let other = rig.take(&domain, (0x10000, 100), READ);
    assert_ne!(other.serial, lease.serial);
    drop(lease);
    assert_eq!(rig.device.live(), 1);
    assert_eq!(rig.monitor.watched.lock().len(), 1);
}

#[test]
fn while_a_change_is_under_way_nothing_is_handed_out_again() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let before = rig.take(&domain, (0x10000, 100), READ).serial;
    rig.monitor.unsettled.store(true, Ordering::SeqCst);
    assert_ne!(rig.take(&domain, (0x10000, 100), READ).serial, before);
    rig.monitor.unsettled.store(false, Ordering::SeqCst);
    assert_eq!(rig.take(&domain, (0x10000, 100), READ).serial, before);
    assert_eq!(rig.device.live(), 1, "the second one was not needed");
}

#[test]
fn more_changes_than_can_be_told_change_everything() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    drop(rig.take(&domain, (0x10000, 100), READ));
    let used = rig.take(&domain, (0x20000, 100), READ);
    rig.monitor.overrun.store(true, Ordering::SeqCst);
    assert_eq!(rig.cache.stats().invalidations, 2);
    assert_eq!(rig.device.live(), 1);
    drop(used);
    assert_eq!(rig.device.live(), 0);
}

#[test]
fn what_cannot_be_watched_is_not_shared_and_ends_with_its_lease() {
    let rig = Rig::new(ROOMY);
    rig.monitor.unwatchable.lock().push(0x11000);
    let domain = rig.cache.domain();
    let one = rig.take(&domain, (0x10000, 0x2000), READ);
    let other = rig.take(&domain, (0x10000, 0x2000), READ);
    assert_eq!(rig.device.live(), 2);
    drop((one, other));
    assert_eq!(rig.device.live(), 0);
}

#[test]
fn the_caller_may_tell_of_memory_that_goes() {
    let rig = Rig::new(ROOMY);
    let domain = rig.cache.domain();
    let told = |base, len| rig.cache.memory_released(Region { base, len });
    assert_eq!(told(0x10000, 0x1000), Released::NotKept);
    let lease = rig.take(&domain, (0x10800, 100), READ);
    assert_eq!(told(0x10FFF, 1), Released::InUse, "the system takes pages");
    assert_eq!(
        told(0x10FFF, 1),
        Released::NotKept,
        "it is not kept any more"
    );
    drop(lease);
    assert_eq!(rig.device.live(), 0);
    drop(rig.take(&domain, (0x10800, 100), READ));
    assert_eq!(told(0x11000, 0x1000), Released::NotKept);
    assert_eq!(told(0x10000, 0), Released::NotKept);
    assert_eq!(told(0, usize::MAX), Released::Ended);
    assert_eq!(rig.device.live(), 0);
}

/// Over a device and a peer: c-tests/memory/released_memory.c. ThreadSanitizer says nothing here; see
/// CONTRIBUTING.md.
#[test]
fn threads_that_use_one_region_get_no_registration_of_before_it_was_told_of() {
    const USERS: usize = 8;
    const ROUNDS: usize = 2000;
    let rig = &Rig::new(ROOMY);
    let domain = &rig.cache.domain();
    // Registrations that were made before this one have ended, or end with their last use.
    let oldest = &AtomicUsize::new(0);
    let users = &AtomicUsize::new(USERS);
    std::thread::scope(|scope| {
        for _ in 0..USERS {
            scope.spawn(move || {
                let mut round = 0;
                // Until it was told of in between, however late that thread comes to run.
                while round < ROUNDS || oldest.load(Ordering::SeqCst) < 2 {
                    round += 1;
                    let least = oldest.load(Ordering::SeqCst);
                    let first = rig.take(domain, (0x10000, 0x2000), READ);
                    let part = rig.take(domain, (0x10800, 0x100), READ);
                    assert!(first.serial >= least && part.serial >= least, "{round}");
                }
                users.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while users.load(Ordering::SeqCst) > 0 {
            let made = rig.device.made();
            rig.cache.memory_released(Region {
                base: 0x10000,
                len: 0x1000,
            });
            oldest.store(made, Ordering::SeqCst);
            std::thread::yield_now();
        }
    });
    assert!(rig.device.made() > 1, "it was told of in between");
    rig.cache.memory_released(Region {
        base: 0x10000,
        len: 0x2000,
    });
    assert_eq!(rig.device.live(), 0);
}

#[test]
fn a_caller_who_promises_to_tell_switches_keeping_on() {
    let cache = Cache::<Registered>::new(Options {
        bytes: Some(1 << 20),
        watching: Watching::Told,
    });
    assert!(cache.keeps());
    assert!(cache.describe().contains("the caller tells"));
    let (device, domain) = (Arc::default(), cache.domain());
    let region = Region {
        base: 0x10000,
        len: 10,
    };
    drop(take(&device, &domain, region, READ).unwrap());
    drop(take(&device, &domain, region, READ).unwrap());
    assert_eq!(device.made(), 1);
    assert_eq!(cache.memory_released(region), Released::Ended);
    assert_eq!(device.live(), 0);
}

#[test]
fn a_cache_that_is_off_keeps_nothing_and_says_why() {
    let cache = Cache::<Registered>::new(Options {
        bytes: Some(0),
        watching: Watching::Kernel,
    });
    assert!(!cache.keeps());
    assert!(cache.describe().contains("WSD_REG_CACHE"));
    let (device, domain) = (Arc::default(), cache.domain());
    let region = Region {
        base: 0x10000,
        len: 10,
    };
    let one = take(&device, &domain, region, READ).unwrap();
    drop(take(&device, &domain, region, READ).unwrap());
    assert_eq!(cache.memory_released(region), Released::NotKept);
    assert_eq!(device.live(), 1);
    drop(one);
    assert_eq!((device.live(), device.made()), (0, 2));
    assert_eq!(cache.stats().misses, 2);
}

#[test]
fn ending_a_registration_may_use_the_cache() {
    /// Like a registration whose end frees memory that is itself registered.
    #[derive(Debug)]
    struct Nested(Weak<Cache<Self>>);
    impl Drop for Nested {
        fn drop(&mut self) {
            if let Some(cache) = self.0.upgrade() {
                let region = Region {
                    base: 0x20000,
                    len: 10,
                };
                cache.memory_released(region);
            }
        }
    }
    let monitor = Arc::new(Fake::default());
    let cache = Arc::new(Cache::with(ROOMY, Some(monitor), String::new()));
    let domain = cache.domain();
    for base in [0x10000, 0x20000] {
        let region = Region { base, len: 10 };
        let weak = Arc::downgrade(&cache);
        drop(
            domain
                .acquire(region, READ, || Ok(Nested(weak.clone())))
                .unwrap(),
        );
    }
    let first = Region {
        base: 0x10000,
        len: 10,
    };
    assert_eq!(cache.memory_released(first), Released::Ended);
    assert_eq!(cache.stats().entries, 0);
}
