//! How bytes are moved into a ring.
//!
//! Owns the copy kernels and the choice between them. Ordinary stores leave the data in the
//! producer's caches, from which the consumer's processor has to fetch them; non-temporal stores
//! send them on to memory. Which is faster depends on how far apart the two processors are, and
//! that changes while a connection lives. So each producer tries: it times its bulk copies with the
//! cycle counter, keeps a smoothed cost of both ways, takes the cheaper one and once in a while the
//! other.

/// Below this many bytes the data go through the caches and nothing is measured.
pub(super) const BULK: usize = 4 << 10;
/// One bulk copy in this many is made the other way.
const EXPLORE: u32 = 64;

/// The way one copy is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Through the caches.
    Cached,
    /// By non-temporal stores, where the processor has them; with its own fence.
    Streaming,
}

/// The choice of one producer.
#[derive(Debug, Default)]
pub(super) struct Copier {
    /// Smoothed cycles per KiB, times 16; zero while unknown.
    cached: u64,
    streaming: u64,
    count: u32,
}

impl Copier {
    /// Decides about a copy of `len` bytes.
    #[inline]
    pub(super) fn choose(&mut self, len: usize) -> How {
        if len < BULK || !kernels::can_stream() {
            return How::Cached;
        }
        self.count = self.count.wrapping_add(1);
        let streaming_is_better = self.streaming <= self.cached;
        let explore = self.count.is_multiple_of(EXPLORE);
        if self.streaming == 0 || (streaming_is_better != explore && self.cached != 0) {
            How::Streaming
        } else {
            How::Cached
        }
    }

    /// Learns what a copy has cost.
    #[inline]
    pub(super) fn learn(&mut self, how: How, len: usize, cycles: u64) {
        let cost = (cycles << 14) / (len as u64).max(1);
        let known = match how {
            How::Cached => &mut self.cached,
            How::Streaming => &mut self.streaming,
        };
        // A copy that was interrupted says nothing about copies.
        let cost = if *known == 0 {
            cost
        } else {
            cost.min(*known * 8)
        };
        *known = if *known == 0 {
            cost
        } else {
            (*known * 7 + cost) / 8
        }
        .max(1);
    }
}

/// The cycle counter, or 0 where there is none; only differences mean something.
#[inline]
pub(super) fn cycles() -> u64 {
    kernels::cycles()
}

/// Copies `len` bytes.
///
/// # Safety
/// The caller promises that `from` is readable and `to` writable for `len` bytes and that they do
/// not overlap.
#[inline]
pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize, how: How) {
    match how {
        // SAFETY: the caller's promise.
        How::Cached => unsafe { std::ptr::copy_nonoverlapping(from, to, len) },
        // SAFETY: the caller's promise.
        How::Streaming => unsafe { kernels::stream(to, from, len) },
    }
}

#[cfg(target_arch = "x86_64")]
mod kernels {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128, _mm256_loadu_si256,
        _mm256_stream_si256, _rdtsc,
    };

    pub(super) fn can_stream() -> bool {
        true
    }

    #[inline]
    pub(super) fn cycles() -> u64 {
        // SAFETY: every x86-64 processor has the counter.
        unsafe { _rdtsc() }
    }

    /// # Safety
    /// As for `copy`.
    pub(super) unsafe fn stream(to: *mut u8, from: *const u8, len: usize) {
        // Up to the first cache line boundary, and behind the last one, the data go through the
        // caches.
        let head = to.align_offset(64).min(len);
        // SAFETY: `head` is not more than `len`.
        unsafe { std::ptr::copy_nonoverlapping(from, to, head) };
        let lines = (len - head) / 64;
        // SAFETY: stays within `len` bytes.
        let to = unsafe { to.add(head) };
        // SAFETY: as above.
        let from = unsafe { from.add(head) };
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2; `to` is aligned; `lines` lines are in both.
            unsafe { lines_avx2(to, from, lines) };
        } else {
            // SAFETY: as above; SSE2 is part of x86-64.
            unsafe { lines_sse2(to, from, lines) };
        }
        let done = lines * 64;
        // SAFETY: stays within `len` bytes.
        let to = unsafe { to.add(done) };
        // SAFETY: as above.
        let from = unsafe { from.add(done) };
        // SAFETY: the rest of the `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len - head - done) };
        // Non-temporal stores are weakly ordered: they must be visible before the record is.
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_sfence() };
    }

    /// # Safety
    /// The caller promises AVX2, an aligned `to`, and `lines` lines on both sides.
    #[target_feature(enable = "avx2")]
    unsafe fn lines_avx2(to: *mut u8, from: *const u8, lines: usize) {
        for half in 0..lines * 2 {
            // SAFETY: within the lines that the caller promised.
            let to = unsafe { to.add(half * 32) };
            // SAFETY: as above.
            let from = unsafe { from.add(half * 32) };
            // SAFETY: half a line is readable.
            let data = unsafe { _mm256_loadu_si256(from.cast::<__m256i>()) };
            // SAFETY: half a line is writable, and aligned.
            unsafe { _mm256_stream_si256(to.cast::<__m256i>(), data) };
        }
    }

    /// # Safety
    /// As for `lines_avx2`, with SSE2, which is part of x86-64.
    unsafe fn lines_sse2(to: *mut u8, from: *const u8, lines: usize) {
        for quarter in 0..lines * 4 {
            // SAFETY: within the lines that the caller promised.
            let to = unsafe { to.add(quarter * 16) };
            // SAFETY: as above.
            let from = unsafe { from.add(quarter * 16) };
            // SAFETY: a quarter of a line is readable.
            let data = unsafe { _mm_loadu_si128(from.cast::<__m128i>()) };
            // SAFETY: a quarter of a line is writable, and aligned.
            unsafe { _mm_stream_si128(to.cast::<__m128i>(), data) };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod kernels {
    pub(super) fn can_stream() -> bool {
        false
    }

    pub(super) fn cycles() -> u64 {
        0
    }

    /// # Safety
    /// As for `copy`.
    pub(super) unsafe fn stream(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_copy_every_length_and_alignment() {
        let source: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        for how in [How::Cached, How::Streaming] {
            for (to, from, len) in [
                (0, 0, 0),
                (1, 0, 1),
                (63, 2, 63),
                (16, 5, 4096),
                (17, 0, 8191),
                (64, 64, 64),
                (0, 33, 130),
            ] {
                let mut target = vec![0xEE; 10_000];
                let place = target[to..to + len].as_mut_ptr();
                // SAFETY: two slices of the same length.
                unsafe { copy(place, source[from..from + len].as_ptr(), len, how) };
                assert_eq!(target[to..to + len], source[from..from + len]);
                assert!(
                    target[..to]
                        .iter()
                        .chain(&target[to + len..])
                        .all(|&b| b == 0xEE)
                );
            }
        }
    }

    #[test]
    fn the_cheaper_way_is_taken_and_the_other_one_tried_again() {
        let mut copier = Copier::default();
        let mut run = |cached: u64, streaming: u64| {
            let mut taken = [0; 2];
            for _ in 0..1000 {
                let how = copier.choose(64 << 10);
                taken[usize::from(how == How::Streaming)] += 1;
                copier.learn(
                    how,
                    64 << 10,
                    if how == How::Cached {
                        cached
                    } else {
                        streaming
                    },
                );
            }
            taken
        };
        if !kernels::can_stream() {
            return;
        }
        let near = run(10_000, 50_000);
        assert!(near[0] > 900 && near[1] > 5, "{near:?}");
        let far = run(200_000, 50_000);
        assert!(far[1] > 800 && far[0] > 5, "{far:?}");
        assert_eq!(copier.choose(100), How::Cached);
    }
}
