//! The kernel's calls that poll sets need, in safe forms.
//!
//! Every function here goes past our own ones. errno is the caller's to keep.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use std::os::fd::RawFd;

use libc::{epoll_event, sigset_t};

use crate::clock::Time;
use crate::hidden;
use crate::raw::errno;
use crate::real;

/// epoll_ctl() with an event of ours; the error is errno.
pub(super) fn control(
    set: RawFd,
    operation: c_int,
    fd: RawFd,
    events: u32,
    data: u64,
) -> Result<(), c_int> {
    let mut event = epoll_event { events, u64: data };
    // SAFETY: the event is live.
    let done = unsafe { real::epoll_ctl(set, operation, fd, &raw mut event) };
    if done == 0 { Ok(()) } else { Err(errno()) }
}

/// What is ready in a set, now or when it becomes so. The error is errno.
pub(super) fn wait<'a>(
    set: RawFd,
    room: &'a mut [MaybeUninit<epoll_event>],
    time: Time<'_>,
    mask: Option<&sigset_t>,
) -> Result<&'a [epoll_event], c_int> {
    let most = c_int::try_from(room.len()).unwrap_or(c_int::MAX);
    let to = room.as_mut_ptr().cast::<epoll_event>();
    let mask = mask.map_or(ptr::null(), ptr::from_ref);
    let count = match time {
        // SAFETY: the room is as long as said, the mask is live or null.
        Time::Millis(span) => unsafe { real::epoll_pwait(set, to, most, span, mask) },
        Time::Span(span) => {
            let span = span.map_or(ptr::null(), ptr::from_ref);
            // SAFETY: as above; the span is live or null.
            unsafe { real::epoll_pwait2(set, to, most, span, mask) }
        }
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(errno());
    };
    // SAFETY: the kernel has written so many events to the room.
    Ok(unsafe { core::slice::from_raw_parts(to, count.min(room.len())) })
}

/// A new poll set of our own.
pub(super) fn new_set() -> Option<RawFd> {
    // SAFETY: takes no pointer.
    let made = unsafe { real::epoll_create1(libc::EPOLL_CLOEXEC) };
    (made >= 0).then(|| hidden::adopt(made))
}

/// A new event counter of our own.
pub(super) fn new_event() -> Option<RawFd> {
    // SAFETY: takes no pointer.
    let made = unsafe { real::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    (made >= 0).then(|| hidden::adopt(made))
}

/// Another number of our own for the same file.
pub(super) fn duplicate(fd: RawFd) -> Option<RawFd> {
    // SAFETY: takes no pointer.
    let made = unsafe { real::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    (made >= 0).then(|| hidden::adopt(made))
}

/// Closes a number of our own.
pub(super) fn close(fd: RawFd) {
    drop(crate::table::take(fd));
    // SAFETY: takes no pointer; the number is one of ours.
    unsafe { real::close(fd) };
}

pub(super) fn raise(event: RawFd) {
    let one = 1_u64;
    // SAFETY: eight live bytes.
    unsafe { real::write(event, (&raw const one).cast(), 8) };
}

pub(super) fn lower(event: RawFd) {
    let mut count = 0_u64;
    // SAFETY: room for eight bytes.
    unsafe { real::read(event, (&raw mut count).cast(), 8) };
}

/// The file of this name.
pub(super) fn read_file(name: &str, into: &mut Vec<u8>) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else {
        return false;
    };
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { real::open64(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) };
    if fd < 0 {
        return false;
    }
    let mut part = [0_u8; 4096];
    let whole = loop {
        // SAFETY: the room is as long as said.
        let got = unsafe { real::read(fd, part.as_mut_ptr().cast(), part.len()) };
        match usize::try_from(got) {
            Ok(0) => break true,
            Ok(got) => into.extend_from_slice(part.get(..got).unwrap_or_default()),
            Err(_) => break false,
        }
    };
    // SAFETY: takes no pointer; the number is the one just opened.
    unsafe { real::close(fd) };
    whole
}
