//! Lists of operations against an account of what may be handed out that knows no cleverness.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Acquire {
        domain: usize,
        base: usize,
        len: usize,
        access: u8,
    },
    Release(Index),
    Change {
        page: usize,
        pages: usize,
    },
    Tell {
        page: usize,
        pages: usize,
    },
    EndDomain(usize),
    /// As if the kernel had lost count.
    Overrun,
    Unsettled(bool),
    /// The device has room for so many more than it has.
    Room(usize),
}

const DOMAINS: usize = 3;
const BASE: usize = 0x10_0000;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..DOMAINS, 0_usize..8 * PAGE, 1_usize..4 * PAGE, 1_u8..4, any::<bool>()).prop_map(
            |(domain, base, len, access, is_round)| Op::Acquire {
                domain,
                // Often the same ones again.
                base: if is_round { base / PAGE * PAGE } else { base },
                len: if is_round { len.next_multiple_of(PAGE) } else { len },
                access,
            }
        ),
        8 => any::<Index>().prop_map(Op::Release),
        2 => (0_usize..12, 1_usize..4).prop_map(|(page, pages)| Op::Change { page, pages }),
        1 => (0_usize..12, 1_usize..4).prop_map(|(page, pages)| Op::Tell { page, pages }),
        1 => (0..DOMAINS).prop_map(Op::EndDomain),
        1 => Just(Op::Overrun),
        1 => any::<bool>().prop_map(Op::Unsettled),
        1 => (0_usize..3).prop_map(Op::Room),
    ]
}

/// What has happened to a registration of the device since it was made.
#[derive(Clone, Copy, Debug)]
struct Account {
    domain: u64,
    start: usize,
    end: usize,
    has_changed: bool,
}

struct World {
    rig: Rig,
    domains: Vec<super::super::Domain<Registered>>,
    leases: Vec<(Lease<Registered>, u64)>,
    /// By serial number.
    accounts: Vec<Account>,
}

impl World {
    fn change(&mut self, start: usize, end: usize) {
        for account in &mut self.accounts {
            account.has_changed |= account.start < end && start < account.end;
        }
    }

    fn acquire(&mut self, domain: usize, base: usize, len: usize, access: u8) {
        let access = Access::from_bits(access).unwrap();
        let domain = &self.domains[domain];
        let region = Region {
            base: BASE + base,
            len,
        };
        // Rights, cover and offset are checked in there.
        let Ok(lease) = take(&self.rig.device, domain, region, access) else {
            assert!(self.rig.device.room.load(Ordering::SeqCst) > 0);
            assert_eq!(self.rig.cache.stats().idle, 0, "tried again without them");
            return;
        };
        if lease.serial == self.accounts.len() {
            self.accounts.push(Account {
                domain: domain.number,
                start: region.base / PAGE * PAGE,
                end: (region.base + len).next_multiple_of(PAGE),
                has_changed: false,
            });
        } else {
            let account = self.accounts[lease.serial];
            assert!(!account.has_changed, "stale");
            assert_eq!(account.domain, domain.number, "foreign");
            assert!(self.rig.monitor.is_settled(), "a change is under way");
        }
        self.leases.push((lease, domain.number));
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Acquire {
                domain,
                base,
                len,
                access,
            } => self.acquire(domain, base, len, access),
            Op::Release(which) => {
                if !self.leases.is_empty() {
                    drop(self.leases.swap_remove(which.index(self.leases.len())));
                }
            }
            Op::Change { page, pages } => {
                let (start, end) = (BASE + page * PAGE, BASE + (page + pages) * PAGE);
                self.rig.monitor.changed(start, end);
                self.change(start, end);
            }
            Op::Tell { page, pages } => {
                let (base, len) = (BASE + page * PAGE, pages * PAGE);
                self.rig.cache.memory_released(Region { base, len });
                self.change(base, base + len);
            }
            Op::EndDomain(domain) => self.domains[domain] = self.rig.cache.domain(),
            Op::Overrun => {
                self.rig.monitor.overrun.store(true, Ordering::SeqCst);
                self.change(0, usize::MAX);
            }
            Op::Unsettled(is) => self.rig.monitor.unsettled.store(is, Ordering::SeqCst),
            Op::Room(more) => {
                let room = self.rig.device.live() + more;
                self.rig.device.room.store(room, Ordering::SeqCst);
            }
        }
    }

    fn check(&self, limits: Limits) {
        let stats = self.rig.cache.stats();
        assert!(
            stats.idle == 0 || (stats.bytes <= limits.bytes && stats.entries <= limits.entries),
            "{stats:?}"
        );
        // Everything that exists is leased or idle.
        let mut leased: Vec<_> = self.leases.iter().map(|(lease, _)| lease.serial).collect();
        leased.sort_unstable();
        leased.dedup();
        assert_eq!(self.rig.device.live(), leased.len() + stats.idle);
        assert_eq!(
            stats.hits + stats.misses > 0,
            !self.accounts.is_empty() || stats.misses > 0
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_stale_foreign_narrow_or_wide_is_handed_out_and_all_counts_balance(
        ops in prop::collection::vec(op(), 1..80),
        pages in 1_usize..12,
        entries in 1_usize..8,
    ) {
        let limits = Limits { bytes: pages * PAGE, entries };
        let rig = Rig::new(limits);
        rig.monitor.unwatchable.lock().push(BASE + 9 * PAGE);
        let domains = (0..DOMAINS).map(|_| rig.cache.domain()).collect();
        let mut world = World { rig, domains, leases: Vec::new(), accounts: Vec::new() };
        for op in &ops {
            world.run(op);
            world.check(limits);
        }
        world.leases.clear();
        world.domains.clear();
        world.check(limits);
        prop_assert_eq!(world.rig.device.live(), 0);
        prop_assert!(world.rig.monitor.watched.lock().is_empty());
        let stats = world.rig.cache.stats();
        prop_assert_eq!((stats.bytes, stats.entries, stats.idle), (0, 0, 0));
    }

    #[test]
    fn with_room_for_all_the_same_region_is_registered_once(
        regions in prop::collection::vec((0_usize..20, 1_usize..5), 1..30),
    ) {
        let rig = Rig::new(ROOMY);
        let domain = rig.cache.domain();
        for _ in 0..2 {
            for &(page, pages) in &regions {
                drop(rig.take(&domain, (BASE + page * PAGE, pages * PAGE), READ));
            }
        }
        let stats = rig.cache.stats();
        prop_assert_eq!(stats.hits + stats.misses, 2 * regions.len() as u64);
        prop_assert!(stats.hits >= regions.len() as u64, "{:?}", stats);
    }
}
