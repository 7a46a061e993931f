//! Descriptors passed to other processes.
//!
//! Owns: that a connection which leaves in a message (SCM_RIGHTS) is the kernel's alone before it
//! does. Who receives it has an ordinary TCP socket.

use core::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use libc::{cmsghdr, msghdr};
use wsd_switch::companion::Reason;

use super::process::hand_over_number;
use crate::table;

/// Prepares the descriptors that a message carries for their way.
///
/// # Safety
/// As for sendmsg's message.
pub(super) unsafe fn before_sending(message: *const msghdr) {
    // SAFETY: the caller's promise.
    unsafe { each_of(message, |fd| hand_over_number(fd, Reason::Passed)) };
}

/// The numbers that a message has brought lead to files that we know nothing of.
///
/// # Safety
/// As for a message that recvmsg has filled in.
pub(super) unsafe fn after_receiving(message: *const msghdr) {
    // SAFETY: the caller's promise.
    unsafe { each_of(message, super::life::forget_stale) };
}

/// Calls `work` with each descriptor in a message.
///
/// # Safety
/// Null, or a message whose control data can be read.
unsafe fn each_of(message: *const msghdr, work: impl FnMut(RawFd)) {
    if message.is_null() || !table::was_used() {
        return;
    }
    // SAFETY: the caller's promise.
    let message = unsafe { &*message };
    let (control, length) = (message.msg_control.cast::<u8>(), message.msg_controllen);
    if control.is_null() || length == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    each_passed(
        unsafe { core::slice::from_raw_parts(control, length) },
        work,
    );
}

/// Calls `work` with each descriptor in a message's control data.
fn each_passed(mut control: &[u8], mut work: impl FnMut(RawFd)) {
    const HEADER: usize = size_of::<cmsghdr>();
    const WORD: usize = size_of::<usize>();
    while let (Some(length), Some(level), Some(kind)) = (
        field(control, core::mem::offset_of!(cmsghdr, cmsg_len)).map(usize::from_ne_bytes),
        field(control, core::mem::offset_of!(cmsghdr, cmsg_level)).map(c_int::from_ne_bytes),
        field(control, core::mem::offset_of!(cmsghdr, cmsg_type)).map(c_int::from_ne_bytes),
    ) {
        // What makes no sense here makes none to the kernel.
        let Some(data) = control.get(HEADER..length) else {
            return;
        };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            for fd in data.as_chunks().0 {
                work(RawFd::from_ne_bytes(*fd));
            }
        }
        let Some(next) = control.get(length.next_multiple_of(WORD)..) else {
            return;
        };
        control = next;
    }
}

fn field<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

const _: () = assert!(size_of::<c_int>() == 4 && size_of::<*const c_void>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    /// Control data made by libc's own macros.
    fn control(messages: &[(c_int, c_int, &[c_int])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (level, kind, fds) in messages {
            let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
            let room = u32::try_from(bytes.len()).unwrap();
            // SAFETY: arithmetic only.
            let space = unsafe { libc::CMSG_SPACE(room) };
            // SAFETY: arithmetic only.
            let length = unsafe { libc::CMSG_LEN(room) };
            let at = all.len();
            all.resize(at + space as usize, 0xEE);
            all[at..at + 8].copy_from_slice(&(length as usize).to_ne_bytes());
            all[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
            all[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
            all[at + 16..at + 16 + bytes.len()].copy_from_slice(&bytes);
        }
        all
    }

    fn passed(control: &[u8]) -> Vec<RawFd> {
        let mut all = Vec::new();
        each_passed(control, |fd| all.push(fd));
        all
    }

    #[test]
    fn all_descriptors_of_a_message_are_found_and_nothing_else() {
        let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let data = control(&[
            (rights.0, rights.1, &[3]),
            (rights.0, libc::SCM_CREDENTIALS, &[7, 7, 7]),
            (libc::IPPROTO_IP, rights.1, &[8]),
            (rights.0, rights.1, &[4, 5, 6]),
        ]);
        assert_eq!(passed(&data), [3, 4, 5, 6]);
        assert_eq!(passed(&[]), []);
    }

    #[test]
    fn lengths_that_make_no_sense_end_the_search() {
        let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let good = control(&[(rights.0, rights.1, &[3])]);
        for length in [0, 1, 15, good.len() + 1, usize::MAX, usize::MAX - 6] {
            let mut bad = good.clone();
            bad[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(passed(&bad), [], "{length}");
        }
        for length in 0..16 {
            assert_eq!(passed(&good[..length]), []);
        }
    }
}
