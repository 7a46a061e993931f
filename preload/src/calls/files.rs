//! Between a file and a connection: sendfile() and splice().
//!
//! Owns the meaning of the offsets. Where the kernel carries the connection its own call is made;
//! over the SAN a file is read in pieces and sent. Pipes are the kernel's matter alone.

use core::ffi::{c_int, c_uint};

use libc::{off64_t, size_t, ssize_t};

use super::stream::{one, stay_with_the_kernel, transmit};
use crate::raw::{errno, set_errno};
use crate::table::Held;
use crate::{export, guard, real, table};

/// What is read of a file at a time.
const PIECE: usize = 64 * 1024;
/// What the kernel sends with one call at most.
const MOST: usize = 0x7fff_f000;

/// sendfile() on a connection.
///
/// # Safety
/// `at` is null or the program's place for an offset.
unsafe fn send_file(
    held: &Held,
    to: c_int,
    from: c_int,
    at: *mut off64_t,
    count: size_t,
    kernel: impl Fn() -> ssize_t,
) -> ssize_t {
    // No point of cancellation, as the kernel's sendfile() has it; sending is one otherwise.
    let _inside = guard::enter();
    // Nothing to send for the SAN, the whole for the kernel, whichever it is.
    // SAFETY: no buffer is given.
    let sent = unsafe { transmit(held, to, &[], 0, &kernel) };
    if sent != 0 || count == 0 {
        return sent;
    }
    let before = errno();
    // SAFETY: the caller's promise.
    let start = match unsafe { at.as_ref() } {
        Some(offset) => *offset,
        // SAFETY: takes no pointer.
        None => unsafe { libc::lseek64(from, 0, libc::SEEK_CUR) },
    };
    if start < 0 {
        // No file that has positions: the kernel knows what to say.
        stay_with_the_kernel(held, to);
        return kernel();
    }
    // Never zeroed: what is sent of it was read before.
    let mut piece = Vec::<u8>::with_capacity(PIECE.min(count));
    let room = PIECE.min(count);
    let mut done = 0;
    let most = count.min(MOST);
    let mut error = None;
    while done < most {
        let want = room.min(most - done);
        let place = start.saturating_add(off64_t::try_from(done).unwrap_or(off64_t::MAX));
        // SAFETY: the piece has that much room.
        let got = unsafe { libc::pread64(from, piece.as_mut_ptr().cast(), want, place) };
        let Ok(got) = usize::try_from(got) else {
            error = Some(errno());
            break;
        };
        if got == 0 {
            break;
        }
        // SAFETY: the piece holds that much.
        let sent = unsafe { send_piece(held, to, piece.as_ptr(), got) };
        match usize::try_from(sent) {
            Ok(sent) => {
                done += sent;
                if sent < got {
                    break;
                }
            }
            Err(_) => {
                error = Some(errno());
                break;
            }
        }
    }
    if done == 0
        && let Some(code) = error
    {
        set_errno(code);
        return -1;
    }
    let end = start.saturating_add(off64_t::try_from(done).unwrap_or(off64_t::MAX));
    if at.is_null() {
        // SAFETY: takes no pointer.
        unsafe { libc::lseek64(from, end, libc::SEEK_SET) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { *at = end };
    }
    set_errno(before);
    ssize_t::try_from(done).unwrap_or(ssize_t::MAX)
}

/// # Safety
/// The piece may be read.
unsafe fn send_piece(held: &Held, to: c_int, piece: *const u8, length: usize) -> ssize_t {
    let buffers = one(piece.cast(), length);
    // SAFETY: the caller's promise.
    let kernel = || unsafe { real::send(to, piece.cast(), length, 0) };
    // SAFETY: the caller's promise.
    unsafe { transmit(held, to, &buffers, 0, kernel) }
}

export! {
    /// The kernel's, or in pieces over the SAN.
    fn sendfile(to: c_int, from: c_int, at: *mut off64_t, count: size_t) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::sendfile(to, from, at, count) };
        let Some(held) = table::get(to) else {
            return kernel();
        };
        // SAFETY: the program's offset.
        unsafe { send_file(&held, to, from, at, count, kernel) }
    }

    /// As `sendfile`.
    fn sendfile64(to: c_int, from: c_int, at: *mut off64_t, count: size_t) -> ssize_t {
        // SAFETY: the program's own call.
        let kernel = || unsafe { real::sendfile64(to, from, at, count) };
        let Some(held) = table::get(to) else {
            return kernel();
        };
        // SAFETY: the program's offset.
        unsafe { send_file(&held, to, from, at, count, kernel) }
    }

    /// The kernel's, to which the connection goes back for good.
    fn splice(
        from: c_int, from_at: *mut off64_t, to: c_int, to_at: *mut off64_t,
        length: size_t, flags: c_uint,
    ) -> ssize_t {
        for fd in [from, to] {
            if let Some(held) = table::get(fd) {
                stay_with_the_kernel(&held, fd);
            }
        }
        // SAFETY: the program's own call.
        unsafe { real::splice(from, from_at, to, to_at, length, flags) }
    }
}
