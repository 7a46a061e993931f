//! Registrations that outlive their release, on a device.

use super::*;

/// Pages of their own, at a place that can be mapped anew.
struct Pages(Region);

impl Pages {
    const LEN: usize = 64 << 10;

    #[allow(unsafe_code)]
    fn map(at: usize, byte: u8) -> Self {
        let fixed = if at == 0 {
            0
        } else {
            libc::MAP_FIXED_NOREPLACE
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let at = std::ptr::without_provenance_mut(at);
        // SAFETY: new memory, where nothing is mapped.
        let place = unsafe { libc::mmap(at, Self::LEN, rights, flags, -1, 0) };
        assert_ne!(place, libc::MAP_FAILED);
        let pages = Self(Region {
            base: place.expose_provenance(),
            len: Self::LEN,
        });
        pages.fill(byte);
        pages
    }

    #[allow(unsafe_code)]
    fn fill(&self, byte: u8) {
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.0.base);
        // SAFETY: mapped, and nothing is posted on it.
        unsafe { place.write_bytes(byte, self.0.len) };
    }

    #[allow(unsafe_code)]
    fn byte(&self, at: usize) -> u8 {
        assert!(at < self.0.len);
        let place = std::ptr::with_exposed_provenance::<u8>(self.0.base + at);
        // SAFETY: mapped, and nothing is posted on it.
        unsafe { place.read_volatile() }
    }

    /// The same addresses, with other memory.
    fn anew(self, byte: u8) -> Self {
        let base = self.0.base;
        drop(self);
        Self::map(base, byte)
    }
}

impl Drop for Pages {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let place = std::ptr::with_exposed_provenance_mut(self.0.base);
        // SAFETY: mapped by `map`, and no longer used.
        assert_eq!(unsafe { libc::munmap(place, self.0.len) }, 0);
    }
}

#[allow(unsafe_code)]
fn register(end: &End, region: Region, access: Access) -> Key {
    // SAFETY: tests keep the memory until it is deregistered.
    unsafe { end.endpoint.register(region, access) }.unwrap()
}

fn whole(key: Key) -> Piece {
    Piece {
        key,
        offset: 0,
        len: Pages::LEN,
    }
}

/// Sends a piece, which `to` receives.
fn carry(from: &mut End, piece: Piece, to: &mut End) -> Vec<u8> {
    let op = OpId(number());
    let pieces = [piece];
    let post = Post::Send {
        op,
        pieces: &pieces,
    };
    let posted = from.endpoint.post(post).unwrap();
    let got = to.take();
    assert_eq!(from.end((op, posted)), Outcome::Done(piece.len));
    got
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_registration_outlives_its_release_on_its_connection_with_its_rights() {
    let (mut rig, core) = rig_with_cache();
    let (mut a, mut b) = rig.pair();
    let pages = Pages::map(0, 1);
    let part = Region {
        base: pages.0.base + 5000,
        len: 300,
    };
    let before = core.cache.stats();
    let counts = || {
        let now = core.cache.stats();
        (now.hits - before.hits, now.misses - before.misses)
    };
    let key = register(&a, pages.0, Access::READ);
    assert_eq!(carry(&mut a, whole(key), &mut b), [1; Pages::LEN]);
    a.endpoint.deregister(key).unwrap();
    assert_eq!(counts(), (0, 1));
    pages.fill(2);
    let key = register(&a, pages.0, Access::READ);
    assert_eq!(counts(), (1, 1), "the one that was released");
    assert_eq!(carry(&mut a, whole(key), &mut b), [2; Pages::LEN]);
    // A part of it, which begins elsewhere.
    let inside = register(&a, part, Access::READ);
    assert_eq!(counts(), (2, 1));
    let piece = |offset, len| Piece {
        key: inside,
        offset,
        len,
    };
    for (at, byte) in (0..300).zip(0..) {
        let byte: u32 = byte;
        write_byte(&pages, 5000 + at, u8::try_from(byte % 251).unwrap());
    }
    let got = carry(&mut a, piece(100, 200), &mut b);
    assert!(
        got.iter()
            .zip(100_u32..)
            .all(|(&byte, at)| u32::from(byte) == at % 251)
    );
    // The bounds are those of the part, not of what is registered.
    let op = OpId(number());
    let outside = a.endpoint.post(Post::Send {
        op,
        pieces: &[piece(100, 201)],
    });
    assert_eq!(outside, Err(PostError::BadPiece));
    a.endpoint.deregister(key).unwrap();
    a.endpoint.deregister(inside).unwrap();
    // Other rights, another connection, and what the peer may reach.
    let writable = register(&a, pages.0, Access::WRITE);
    assert_eq!(counts(), (2, 2));
    a.endpoint.deregister(writable).unwrap();
    let elsewhere = register(&b, pages.0, Access::READ);
    assert_eq!(counts(), (2, 3));
    b.endpoint.deregister(elsewhere).unwrap();
    let mut descriptor = [0; 32];
    for _ in 0..2 {
        // SAFETY: concealed before the pages go.
        #[allow(unsafe_code)]
        let exposed = unsafe { a.endpoint.expose(pages.0, Access::READ, &mut descriptor) };
        a.endpoint.conceal(exposed.unwrap()).unwrap();
    }
    assert_eq!(counts(), (2, 3), "exposures are made and ended each time");
    // A connection takes along what is kept for it.
    let with_both = core.cache.stats().entries;
    drop(a);
    assert!(core.cache.stats().entries < with_both);
    drop(b);
    assert_eq!(core.cache.stats().entries, 0);
}

#[allow(unsafe_code)]
fn write_byte(pages: &Pages, at: usize, byte: u8) {
    assert!(at < pages.0.len);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(pages.0.base + at);
    // SAFETY: mapped, and nothing is posted on it.
    unsafe { place.write_volatile(byte) };
}

#[test]
#[ignore = "needs an RDMA device"]
fn memory_mapped_anew_is_registered_anew() {
    // req: WSD-12
    let (mut rig, core) = rig_with_cache();
    let (mut a, mut b) = rig.pair();
    let mut pages = Pages::map(0, 0);
    for round in 1..20 {
        pages = pages.anew(round);
        let before = core.cache.stats();
        let key = register(&a, pages.0, Access::READ);
        let now = core.cache.stats();
        assert_eq!((now.hits, now.misses), (before.hits, before.misses + 1));
        assert_eq!(carry(&mut a, whole(key), &mut b), [round; Pages::LEN]);
        a.endpoint.deregister(key).unwrap();
        // The other way: what is received is in the new pages.
        pages = pages.anew(0xEE);
        let key = register(&b, pages.0, Access::WRITE);
        let op = OpId(number());
        let posted = b.endpoint.post(Post::Receive {
            op,
            pieces: &[whole(key)],
        });
        let sent = a.send(&[round; 1000]).unwrap();
        assert_eq!(b.end((op, posted.unwrap())), Outcome::Done(1000));
        assert_eq!(a.end(sent), Outcome::Done(1000));
        assert_eq!((pages.byte(0), pages.byte(999)), (round, round));
        assert_eq!(pages.byte(1000), 0xEE);
        b.endpoint.deregister(key).unwrap();
    }
    assert!(core.cache.stats().invalidations > 0);
}

#[test]
#[ignore = "needs an RDMA device"]
fn who_tells_of_released_memory_hears_what_becomes_of_its_registrations() {
    let (mut rig, core) = rig_with_cache();
    let (mut a, mut b) = rig.pair();
    let pages = Pages::map(0, 7);
    let told = |rig: &Rig| rig.host.fabric.memory_released(pages.0);
    assert_eq!(told(&rig), Released::NotKept);
    let key = register(&a, pages.0, Access::READ);
    a.endpoint.deregister(key).unwrap();
    assert_eq!(told(&rig), Released::Ended);
    assert_eq!(told(&rig), Released::NotKept);
    let key = register(&a, pages.0, Access::READ);
    assert_eq!(told(&rig), Released::InUse);
    let misses = core.cache.stats().misses;
    let other = register(&a, pages.0, Access::READ);
    assert_eq!(core.cache.stats().misses, misses + 1);
    // Both work on until they are released.
    for key in [key, other] {
        assert_eq!(carry(&mut a, whole(key), &mut b), [7; Pages::LEN]);
        a.endpoint.deregister(key).unwrap();
    }
}
