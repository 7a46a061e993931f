//! Exposed memory: what the peer may reach, and the descriptors that name it.
//!
//! Owns the table of exposures and its public copy in the shared segment. The private table alone
//! decides what this side serves (pipelined RDMA); the public copy is what a peer that reaches this
//! process by itself (direct RDMA) checks before and after each copy. The invariant: a generation
//! is never used twice, and 0, the generation of a closed window, is in no descriptor.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::link::Link;
use super::region::{Exposure, Reach};
use super::shm::{WINDOWS, WindowSlot};
use crate::fabric::{Access, DeregisterError, Key};

/// Length of a descriptor of exposed memory.
pub(super) const DESCRIPTOR_LEN: usize = 32;
const VERSION: u16 = 1;
/// Tells the keys of exposures from those of registrations.
const KEY_MARK: u64 = 1 << 63;
const LAST_GENERATION: u32 = 0x7FFF_FFFF;

/// What names exposed memory to the peer, little-endian:
///
/// ```text
/// 0  u16 version | u16 rights | u32 slot | u32 generation | u32 zero | u64 length | u64 nonce
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) rights: Access,
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) len: u64,
    /// Says on which connection, and by which side, it was made.
    pub(super) nonce: u64,
}

impl Descriptor {
    pub(super) fn to_bytes(self) -> [u8; DESCRIPTOR_LEN] {
        let mut bytes = [0; DESCRIPTOR_LEN];
        let fields = VERSION
            .to_le_bytes()
            .into_iter()
            .chain(u16::from(self.rights.bits()).to_le_bytes())
            .chain(self.slot.to_le_bytes())
            .chain(self.generation.to_le_bytes())
            .chain([0; 4])
            .chain(self.len.to_le_bytes())
            .chain(self.nonce.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// `None` if these are not the bytes of a descriptor.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DESCRIPTOR_LEN {
            return None;
        }
        let half = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let double = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if half(0)? != VERSION || word(12)? != 0 {
            return None;
        }
        Some(Self {
            rights: Access::from_bits(u8::try_from(half(2)?).ok()?)?,
            slot: word(4)?,
            generation: word(8)?,
            len: double(16)?,
            nonce: double(24)?,
        })
    }
}

/// An access that the owner of the memory does not grant, or that cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Denied;

/// What an access asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) access: Access,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Wanted {
    /// Whether it stays within `len` bytes for which `rights` are given.
    /// req: WSD-13
    fn fits(&self, len: u64, rights: Access) -> bool {
        rights.contains(self.access)
            && self
                .offset
                .checked_add(self.len)
                .is_some_and(|end| end <= len)
    }
}

// ---- the owner's side --------------------------------------------------------------------

#[derive(Debug)]
struct Window {
    generation: u32,
    /// `None` once the peer may not begin anything any more.
    open: Option<(Exposure, Access)>,
    /// Not used by any exposure.
    vacant: bool,
}

/// The exposures of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Windows {
    slots: Vec<Window>,
    vacant: VecDeque<u32>,
}

fn key(slot: u32, generation: u32) -> Key {
    Key(KEY_MARK | u64::from(generation) << 32 | u64::from(slot))
}

impl Windows {
    /// Opens a window; `None` if there are too many.
    pub(super) fn open(
        &mut self,
        link: &Link,
        exposure: Exposure,
        rights: Access,
    ) -> Option<(Key, Descriptor)> {
        let index = match self.vacant.pop_front() {
            Some(index) => index,
            None if self.slots.len() < WINDOWS => {
                self.slots.push(Window {
                    generation: 0,
                    open: None,
                    vacant: true,
                });
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let window = self.slots.get_mut(index as usize)?;
        let public = link.segment.window(link.segment.side(), index as usize)?;
        window.generation += 1;
        window.open = Some((exposure, rights));
        window.vacant = false;
        let region = exposure.region();
        public.base.store(region.base as u64, Ordering::Relaxed);
        public.len.store(region.len as u64, Ordering::Relaxed);
        public
            .rights
            .store(u32::from(rights.bits()), Ordering::Relaxed);
        // `inflight` is the peer's to count, also that of a late look at the window before.
        // Last: who sees the generation sees the rest.
        public.generation.store(window.generation, Ordering::SeqCst);
        let descriptor = Descriptor {
            rights,
            slot: index,
            generation: window.generation,
            len: region.len as u64,
            nonce: link.own_nonce,
        };
        Some((key(index, window.generation), descriptor))
    }

    fn find(&mut self, wanted: Key) -> Option<(u32, &mut Window)> {
        let index = u32::try_from(wanted.0 & 0xFFFF_FFFF).ok()?;
        let window = self.slots.get_mut(index as usize)?;
        (!window.vacant && key(index, window.generation) == wanted).then_some((index, window))
    }

    /// Closes a window: from now on the peer can begin nothing. Says which slot must fall silent
    /// before it may be vacated.
    pub(super) fn close(&mut self, link: &Link, key: Key) -> Result<u32, DeregisterError> {
        let (index, window) = self.find(key).ok_or(DeregisterError::Unknown)?;
        window.open = None;
        if let Some(public) = link.segment.window(link.segment.side(), index as usize) {
            public.generation.store(0, Ordering::SeqCst);
        }
        Ok(index)
    }

    /// Ends a closed exposure; its key is unknown from now on.
    pub(super) fn vacate(&mut self, key: Key) {
        if let Some((index, window)) = self.find(key) {
            window.vacant = true;
            if window.generation < LAST_GENERATION {
                self.vacant.push_back(index);
            }
        }
    }

    /// Closes every window, and says which slots must fall silent.
    pub(super) fn close_all(&mut self, link: &Link) -> Vec<u32> {
        let mut closed = Vec::new();
        for (index, window) in (0u32..).zip(&mut self.slots) {
            if window.open.take().is_some() {
                closed.push(index);
                if let Some(public) = link.segment.window(link.segment.side(), index as usize) {
                    public.generation.store(0, Ordering::SeqCst);
                }
            }
        }
        closed
    }

    /// The memory that a request of the peer may touch: the `len` bytes from `part` on of the whole
    /// access, which is checked whole.
    pub(super) fn reach(
        &self,
        link: &Link,
        descriptor: &Descriptor,
        wanted: Wanted,
        part: u64,
        len: usize,
    ) -> Result<Reach, Denied> {
        let window = self.slots.get(descriptor.slot as usize).ok_or(Denied)?;
        let (exposure, rights) = window.open.as_ref().ok_or(Denied)?;
        let same = descriptor.nonce == link.own_nonce
            && descriptor.generation == window.generation
            && wanted.fits(exposure.region().len as u64, *rights);
        if !same {
            return Err(Denied);
        }
        let offset = wanted.offset.checked_add(part).ok_or(Denied)?;
        exposure
            .reach(usize::try_from(offset).map_err(|_| Denied)?, len)
            .ok_or(Denied)
    }
}

/// Waits, for a bounded time, until no transfer of a live peer touches the closed window `slot`.
pub(super) fn fall_silent(link: &Link, slot: u32, patience: Duration) -> bool {
    let Some(window) = link.segment.window(link.segment.side(), slot as usize) else {
        return true;
    };
    // SeqCst, against the peer's order: count itself in, then look at the generation.
    let silent = || window.inflight.load(Ordering::SeqCst) == 0;
    for _ in 0..200 {
        if silent() {
            return true;
        }
        std::hint::spin_loop();
    }
    let limit = Instant::now() + patience;
    let mut rounds = 0u32;
    while !silent() {
        // The kernel has ended all copies of a process that is gone.
        if link.is_peer_gone() {
            return true;
        }
        if Instant::now() >= limit {
            return false;
        }
        rounds += 1;
        if rounds < 16 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    true
}

// ---- the initiator's side ----------------------------------------------------------------

/// Says, while it lives, that this side may be touching a window of the peer.
struct Touching<'a>(&'a WindowSlot);

impl<'a> Touching<'a> {
    fn new(window: &'a WindowSlot) -> Self {
        window.inflight.fetch_add(1, Ordering::SeqCst);
        Self(window)
    }
}

impl Drop for Touching<'_> {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Makes one direct copy of a window of the peer: `copy` gets the address in the peer. The window
/// is checked before, and that it was still open is checked after.
pub(super) fn touch<T>(
    link: &Link,
    descriptor: &Descriptor,
    wanted: Wanted,
    at: u64,
    copy: impl FnOnce(usize) -> T,
) -> Result<T, Denied> {
    let side = link.segment.side().other();
    let window = link
        .segment
        .window(side, descriptor.slot as usize)
        .ok_or(Denied)?;
    if descriptor.nonce != link.peer_nonce || descriptor.generation == 0 {
        return Err(Denied);
    }
    let touching = Touching::new(window);
    let is_open = || window.generation.load(Ordering::SeqCst) == descriptor.generation;
    if !is_open() {
        return Err(Denied);
    }
    let rights = u8::try_from(window.rights.load(Ordering::Relaxed)).map_err(|_| Denied)?;
    let rights = Access::from_bits(rights).ok_or(Denied)?;
    let base = window.base.load(Ordering::Relaxed);
    if !wanted.fits(window.len.load(Ordering::Relaxed), rights) {
        return Err(Denied);
    }
    let address = base
        .checked_add(wanted.offset)
        .and_then(|start| start.checked_add(at))
        .and_then(|address| usize::try_from(address).ok())
        .ok_or(Denied)?;
    let copied = copy(address);
    let still = is_open();
    drop(touching);
    if still { Ok(copied) } else { Err(Denied) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicBool;

    use super::super::shm::Segment;
    use super::*;

    #[test]
    fn a_descriptor_has_the_published_bytes() {
        let descriptor = Descriptor {
            rights: Access::WRITE,
            slot: 0x0102_0304,
            generation: 5,
            len: 0x1_0000_0000,
            nonce: u64::MAX,
        };
        let bytes = descriptor.to_bytes();
        assert_eq!(bytes[..12], [1, 0, 2, 0, 4, 3, 2, 1, 5, 0, 0, 0]);
        assert_eq!(bytes[12..24], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[24..], [0xFF; 8]);
        assert_eq!(Descriptor::parse(&bytes), Some(descriptor));
    }

    #[test]
    fn other_bytes_are_no_descriptor() {
        let good = Descriptor {
            rights: Access::READ,
            slot: 0,
            generation: 1,
            len: 1,
            nonce: 1,
        }
        .to_bytes();
        assert!(Descriptor::parse(&good[..31]).is_none());
        for (at, value) in [(0, 2), (2, 8), (3, 1), (12, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert!(Descriptor::parse(&bad).is_none(), "byte {at}");
        }
    }

    #[test]
    fn an_access_fits_only_within_bounds_and_rights() {
        let fits = |access, offset, len| {
            Wanted {
                access,
                offset,
                len,
            }
            .fits(100, Access::READ)
        };
        assert!(fits(Access::READ, 0, 100));
        assert!(fits(Access::READ, 100, 0));
        assert!(!fits(Access::READ, 1, 100));
        assert!(!fits(Access::READ, u64::MAX, 2));
        assert!(!fits(Access::WRITE, 0, 1));
    }

    #[test]
    fn a_copy_during_which_the_window_was_closed_does_not_count() {
        let (owner, file) = Segment::create(1 << 18).unwrap();
        let [socket, peer_event] = std::os::unix::net::UnixStream::pair()
            .map(|(one, other)| [one.into(), other.into()])
            .unwrap();
        let link = Link {
            segment: Segment::join(file.as_fd(), 1 << 18).unwrap(),
            socket,
            peer_event,
            pid: 0,
            process: None,
            direct: AtomicBool::new(true),
            own_nonce: 1,
            peer_nonce: 2,
        };
        let window = owner.window(owner.side(), 0).unwrap();
        window.base.store(4096, Ordering::Relaxed);
        window.len.store(100, Ordering::Relaxed);
        let rights = u32::from(Access::READ.bits());
        window.rights.store(rights, Ordering::Relaxed);
        window.generation.store(7, Ordering::SeqCst);
        let descriptor = Descriptor {
            rights: Access::READ,
            slot: 0,
            generation: 7,
            len: 100,
            nonce: 2,
        };
        let wanted = Wanted {
            access: Access::READ,
            offset: 10,
            len: 50,
        };
        let counted = || window.inflight.load(Ordering::SeqCst);
        let copied = touch(&link, &descriptor, wanted, 5, |at| (at, counted()));
        assert_eq!(copied.unwrap(), (4111, 1));
        let copied = touch(&link, &descriptor, wanted, 5, |_| {
            window.generation.store(0, Ordering::SeqCst);
        });
        assert!(copied.is_err());
        assert_eq!(counted(), 0);
        // And one that was closed before is not begun.
        let copied = touch(&link, &descriptor, wanted, 5, |_| panic!("a copy"));
        assert!(copied.is_err());
    }
}
