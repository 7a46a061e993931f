//! Memory of this process's own: mappings, and temporary memory kept for reuse.
//!
//! Owns the mappings and the list of unused blocks, which is the process's, so that a transfer
//! rarely has to touch fresh pages. Invariant: a block is in use or in the list, never both.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use parking_lot::Mutex;

const HUGE: usize = 2 << 20;

/// Anonymous memory of this process. Its pages appear when they are first touched.
pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: an owned span of memory; who may touch which part when is settled by its users below.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(len: usize, advice: libc::c_int) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping, placed by the kernel; no existing memory is touched.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the whole of our own mapping; advice changes no content. Refusal is no loss.
        unsafe { libc::madvise(base, len, advice) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// Memory in pages as large as the kernel gives: remote reads are twice as fast on them.
    fn huge(len: usize) -> io::Result<Mapping> {
        let wide = Mapping::new(len + HUGE, libc::MADV_NORMAL)?;
        let skip = wide.base.as_ptr().align_offset(HUGE);
        if skip > HUGE {
            return Ok(wide);
        }
        let wide = ManuallyDrop::new(wide);
        // SAFETY: `skip` is at most the surplus mapped above.
        let base = unsafe { wide.base.add(skip) };
        // SAFETY: as above: the end of what is kept lies inside the mapping.
        let end = unsafe { base.add(len) };
        // SAFETY: unmaps the unused front of our own mapping, in whole pages.
        unsafe { libc::munmap(wide.base.as_ptr().cast(), skip) };
        // SAFETY: unmaps the unused back of our own mapping, in whole pages.
        unsafe { libc::munmap(end.as_ptr().cast(), HUGE - skip) };
        // SAFETY: the whole of what was kept; advice changes no content.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, unmapped once; its users hold the `Arc` it is in.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Sizes in which temporary memory is kept for reuse.
const SMALLEST: usize = 64 << 10;
const CLASSES: usize = 6;
/// Most unused temporary memory a process keeps.
const KEPT: usize = 32 << 20;

/// Unused temporary memory, by size: the smallest class first.
struct Cache {
    free: [Vec<RawBlock>; CLASSES],
    bytes: usize,
}

/// Guards the lists of unused memory. Taken last, for a few instructions.
static CACHE: Mutex<Cache> = Mutex::new(Cache {
    free: [const { Vec::new() }; CLASSES],
    bytes: 0,
});

struct RawBlock {
    #[expect(dead_code, reason = "keeps the memory mapped")]
    slab: Arc<Mapping>,
    base: NonNull<u8>,
}

// SAFETY: owns its part of the slab.
unsafe impl Send for RawBlock {}

/// A block of temporary memory; goes back to the cache when nobody uses it any more.
pub(super) struct Block {
    raw: Option<RawBlock>,
    class: usize,
}

// SAFETY: the block itself is only an address; access to the memory is settled by `Space`.
unsafe impl Sync for Block {}

fn class_size(class: usize) -> usize {
    SMALLEST << class
}

impl Block {
    pub(super) fn new(len: usize) -> io::Result<Block> {
        let class = (0..CLASSES)
            .find(|class| class_size(*class) >= len)
            .unwrap_or(CLASSES);
        let raw = if class == CLASSES {
            let slab = Arc::new(Mapping::huge(len.next_multiple_of(HUGE))?);
            RawBlock {
                base: slab.base,
                slab,
            }
        } else if let Some(raw) = Cache::take(class) {
            raw
        } else {
            Cache::grow(class)?
        };
        Ok(Block {
            raw: Some(raw),
            class,
        })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.raw
            .as_ref()
            .map_or(NonNull::dangling(), |raw| raw.base)
    }
}

impl Cache {
    fn take(class: usize) -> Option<RawBlock> {
        let mut cache = CACHE.lock();
        let raw = cache.free.get_mut(class)?.pop()?;
        cache.bytes -= class_size(class);
        Some(raw)
    }

    /// A new slab: one block for the caller, the others to the cache.
    fn grow(class: usize) -> io::Result<RawBlock> {
        let size = class_size(class);
        let slab = Arc::new(Mapping::huge(HUGE.max(size))?);
        let first = RawBlock {
            base: slab.base,
            slab: Arc::clone(&slab),
        };
        for index in (1..slab.len / size).rev() {
            // SAFETY: inside the slab: `index` is below the number of blocks in it.
            let base = unsafe { slab.base.add(index * size) };
            Cache::give(
                class,
                RawBlock {
                    base,
                    slab: Arc::clone(&slab),
                },
            );
        }
        Ok(first)
    }

    fn give(class: usize, raw: RawBlock) {
        let mut cache = CACHE.lock();
        if cache.bytes + class_size(class) > KEPT {
            drop(cache);
            drop(raw);
            return;
        }
        if let Some(list) = cache.free.get_mut(class) {
            list.push(raw);
            cache.bytes += class_size(class);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            Cache::give(self.class, raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_memory_is_aligned_and_as_long_as_asked() {
        let mapping = Mapping::huge(3 * HUGE).unwrap();
        assert_eq!(mapping.base.as_ptr().align_offset(HUGE), 0);
        assert_eq!(mapping.len, 3 * HUGE);
    }
}
