//! How bytes are moved into a ring.

/// The way one copy is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Through the caches.
    Cached,
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
    }
}
