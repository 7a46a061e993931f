//! The calls that receive and send messages: recvmsg() and its kin.
//!
//! Owns the fields of a message beside its buffers: TCP gives no address and, unless the program
//! asks for it, no control data. Invariant: what the kernel does not carry is given back with the
//! fields that the kernel would give.

use core::ffi::{c_int, c_uint};
use std::time::{Duration, Instant};

use libc::{cmsghdr, mmsghdr, msghdr, ssize_t, timespec};

use super::stream::{list, receive, stay_with_the_kernel, transmit};
use crate::raw::{errno, set_errno};
use crate::table::Held;
use crate::{export, guard, hidden, real, table};

/// Messages that one call takes at most.
const MOST_MESSAGES: usize = 1024;

/// recvmsg() on a connection.
///
/// # Safety
/// The message is the program's, for a call that fills it.
unsafe fn receive_message(held: &Held, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's own call.
    let kernel = || unsafe { real::recvmsg(fd, message, flags) };
    // SAFETY: the caller's promise; a null pointer is the kernel's to refuse.
    let Some(fields) = (unsafe { message.as_mut() }) else {
        return kernel();
    };
    // SAFETY: the caller's promise.
    let Some(buffers) = (unsafe { list(fields.msg_iov, fields.msg_iovlen as _) }) else {
        return kernel();
    };
    let by_kernel = std::cell::Cell::new(false);
    // SAFETY: the program's buffers.
    let got = unsafe {
        receive(held, fd, buffers, flags, || {
            by_kernel.set(true);
            kernel()
        })
    };
    if got >= 0 && !by_kernel.get() {
        fields.msg_namelen = 0;
        fields.msg_controllen = 0;
        fields.msg_flags = flags & libc::MSG_OOB;
    }
    got
}

/// recvmmsg() on a connection: its messages one after the other.
///
/// # Safety
/// The messages are the program's, for a call that fills them.
unsafe fn receive_messages(
    held: &Held,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let most = usize::try_from(count).unwrap_or(0).min(MOST_MESSAGES);
    // SAFETY: the program's place for a time, if it gives one.
    let until = unsafe { timeout.as_ref() }.and_then(|t| {
        let seconds = u64::try_from(t.tv_sec).ok()?;
        let nanos = u32::try_from(t.tv_nsec).ok()?;
        Instant::now().checked_add(Duration::new(seconds, nanos))
    });
    let before = errno();
    let mut now = flags & !libc::MSG_WAITFORONE;
    let mut done = 0;
    while done < most {
        // SAFETY: the program says that so many messages stand there.
        let message = unsafe { messages.add(done) };
        // SAFETY: a message begins with its header.
        let got = unsafe { receive_message(held, fd, message.cast(), now) };
        let Ok(length) = c_uint::try_from(got) else {
            break;
        };
        // SAFETY: as above.
        unsafe { (*message).msg_len = length };
        done += 1;
        if flags & libc::MSG_WAITFORONE != 0 {
            now |= libc::MSG_DONTWAIT;
        }
        if length == 0 || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    counted(before, done, most)
}

/// sendmsg() on a connection.
///
/// # Safety
/// The message is the program's.
unsafe fn send_message(held: &Held, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's own call.
    let kernel = || unsafe { real::sendmsg(fd, message, flags) };
    // SAFETY: the caller's promise; a null pointer is the kernel's to refuse.
    let Some(fields) = (unsafe { message.as_ref() }) else {
        return kernel();
    };
    // SAFETY: the caller's promise.
    let Some(buffers) = (unsafe { list(fields.msg_iov, fields.msg_iovlen as _) }) else {
        return kernel();
    };
    if fields.msg_controllen != 0 && !fields.msg_control.is_null() && !held.on_kernel() {
        // What it asks of the kernel, only the kernel can do.
        stay_with_the_kernel(held, fd);
    }
    // SAFETY: the program's buffers.
    unsafe { transmit(held, fd, buffers, flags, kernel) }
}

/// sendmmsg() on a connection: its messages one after the other.
///
/// # Safety
/// The messages are the program's.
unsafe fn send_messages(
    held: &Held,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let most = usize::try_from(count).unwrap_or(0).min(MOST_MESSAGES);
    let before = errno();
    let mut done = 0;
    while done < most {
        // SAFETY: the program says that so many messages stand there.
        let message = unsafe { messages.add(done) };
        // SAFETY: a message begins with its header.
        let sent = unsafe { send_message(held, fd, message.cast(), flags) };
        let Ok(length) = c_uint::try_from(sent) else {
            break;
        };
        // SAFETY: as above.
        unsafe { (*message).msg_len = length };
        done += 1;
        // SAFETY: as above.
        let wanted = unsafe { asked_for(message) };
        if usize::try_from(length).unwrap_or(0) < wanted {
            break;
        }
    }
    counted(before, done, most)
}

/// How many bytes a message has.
///
/// # Safety
/// The message is the program's and was sent just now.
unsafe fn asked_for(message: *const mmsghdr) -> usize {
    // SAFETY: the caller's promise.
    let fields = unsafe { &(*message).msg_hdr };
    // SAFETY: the caller's promise.
    let buffers = unsafe { list(fields.msg_iov, fields.msg_iovlen as _) };
    buffers.map_or(0, super::stream::total)
}

/// The answer of a call with several messages: what was done counts more than an error after it.
fn counted(before: c_int, done: usize, most: usize) -> c_int {
    if done == 0 && most != 0 {
        return -1;
    }
    set_errno(before);
    c_int::try_from(done).unwrap_or(c_int::MAX)
}

/// Puts the descriptors that came with a message for our own code out of the program's way.
///
/// # Safety
/// The kernel has filled the message.
unsafe fn adopt_passed(message: *mut msghdr) {
    // SAFETY: the caller's promise.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !control.is_null() {
        // SAFETY: the header is inside the control data that the kernel has filled.
        let (level, kind, length) = unsafe {
            let header: &cmsghdr = &*control;
            (
                header.cmsg_level,
                header.cmsg_type,
                header.cmsg_len as usize,
            )
        };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: arithmetic only.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data follow the header.
            let mut place = unsafe { libc::CMSG_DATA(control) }.cast::<c_int>();
            for _ in 0..length.saturating_sub(head) / size_of::<c_int>() {
                // SAFETY: the length says that a number stands here, at any alignment.
                let fd = unsafe { place.read_unaligned() };
                // SAFETY: as above.
                unsafe { place.write_unaligned(hidden::adopt(fd)) };
                // SAFETY: the next one, or one behind the last.
                place = unsafe { place.add(1) };
            }
        }
        // SAFETY: as for the first header.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
}

export! {
    /// As `recv`, into several buffers.
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        let Some(held) = table::get(fd) else {
            // SAFETY: the program's own call.
            let got = unsafe { real::recvmsg(fd, message, flags) };
            if got >= 0 && guard::inside() {
                // SAFETY: the kernel has filled the message.
                unsafe { adopt_passed(message) };
            } else if got >= 0 {
                // SAFETY: the kernel has filled the message.
                unsafe { super::pass::after_receiving(message) };
            }
            return got;
        };
        // SAFETY: the program's message.
        unsafe { receive_message(&held, fd, message, flags) }
    }

    /// As `recvmsg`, several times.
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec,
    ) -> c_int {
        let Some(held) = table::get(fd) else {
            // SAFETY: the program's own call.
            return unsafe { real::recvmmsg(fd, messages, count, flags, timeout) };
        };
        // SAFETY: the program's messages.
        unsafe { receive_messages(&held, fd, messages, count, flags, timeout) }
    }

    /// As `send`, from several buffers.
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        // SAFETY: the program's message.
        unsafe { super::pass::before_sending(message) };
        let Some(held) = table::get(fd) else {
            // SAFETY: the program's own call.
            return unsafe { real::sendmsg(fd, message, flags) };
        };
        // SAFETY: the program's message.
        unsafe { send_message(&held, fd, message, flags) }
    }

    /// As `sendmsg`, several times.
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        for at in 0..usize::try_from(count).unwrap_or(0).min(MOST_MESSAGES) {
            // SAFETY: the program says that so many messages stand there.
            let message = unsafe { messages.add(at) };
            // SAFETY: a message begins with its header.
            unsafe { super::pass::before_sending(message.cast()) };
        }
        let Some(held) = table::get(fd) else {
            // SAFETY: the program's own call.
            return unsafe { real::sendmmsg(fd, messages, count, flags) };
        };
        // SAFETY: the program's messages.
        unsafe { send_messages(&held, fd, messages, count, flags) }
    }
}
