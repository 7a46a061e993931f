//! Programs started beside this one: posix_spawn, system, popen.
//!
//! Owns: which connections the new program gets, and that it has the library in its environment.
//! libc makes these programs without calling any function that we stand in front of, so all is
//! settled before. This process goes on, so only what the new program is meant to use goes back to
//! the kernel.

use core::ffi::{c_char, c_int};
use std::os::fd::RawFd;

use libc::{FILE, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use wsd_switch::companion::Reason;
use wsd_switch::companion::rules;

use super::exec::closes;
use super::process::{hand_over_number, hand_over_those};
use crate::environment;
use crate::{export, real, table};

/// Numbers by which any program uses what it is given.
const STANDARD: std::ops::RangeInclusive<RawFd> = 0..=2;

/// Prepares for a program that inherits this one's descriptors and then does these actions.
///
/// # Safety
/// As for posix_spawn's file actions: null or initialised.
unsafe fn prepare(actions: *const posix_spawn_file_actions_t) {
    if !table::was_used() {
        return;
    }
    let all = rules::active().hands_on();
    hand_over_those(Reason::Exec, |fd, _| {
        (all || STANDARD.contains(&fd)) && !closes(fd)
    });
    // SAFETY: the caller's promise.
    unsafe { actions::each_copied(actions, |fd| hand_over_number(fd, Reason::Exec)) };
}

export! {
    /// With what connections and the library need.
    fn posix_spawn(
        pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, arguments: *const *mut c_char,
        environment: *const *mut c_char,
    ) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { prepare(actions) };
        // SAFETY: as above.
        let environment = unsafe { environment::completed(environment.cast()) };
        let environment = environment.strings_of_spawn();
        // SAFETY: as above.
        unsafe { real::posix_spawn(pid, path, actions, attributes, arguments, environment) }
    }

    /// As posix_spawn.
    fn posix_spawnp(
        pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, arguments: *const *mut c_char,
        environment: *const *mut c_char,
    ) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { prepare(actions) };
        // SAFETY: as above.
        let environment = unsafe { environment::completed(environment.cast()) };
        let environment = environment.strings_of_spawn();
        // SAFETY: as above.
        unsafe { real::posix_spawnp(pid, file, actions, attributes, arguments, environment) }
    }

    /// The shell gets the standard numbers.
    fn system(command: *const c_char) -> c_int {
        if !command.is_null() {
            // SAFETY: there are no actions.
            unsafe { prepare(core::ptr::null()) };
        }
        // SAFETY: the program's own call.
        unsafe { real::system(command) }
    }

    /// The shell gets the standard numbers.
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
        // SAFETY: there are no actions.
        unsafe { prepare(core::ptr::null()) };
        // SAFETY: the program's own call.
        unsafe { real::popen(command, mode) }
    }
}

/// What posix_spawn is to do with descriptors, as glibc keeps it. The layout is as old as the
/// functions; a test compares it with what they write.
mod actions {
    use core::ffi::c_int;
    use std::os::fd::RawFd;

    use libc::posix_spawn_file_actions_t;

    #[repr(C)]
    struct List {
        allocated: c_int,
        used: c_int,
        actions: *const Action,
    }

    /// The kinds differ in what stands behind the tag; the widest takes 24 bytes.
    #[repr(C)]
    struct Action {
        tag: c_int,
        padding: c_int,
        first: c_int,
        second: c_int,
        rest: [u64; 2],
    }

    const DUP2: c_int = 1;

    /// Calls `work` with each descriptor that is copied to a number of the new program.
    ///
    /// # Safety
    /// Null, or initialised by posix_spawn_file_actions_init.
    pub(super) unsafe fn each_copied(
        actions: *const posix_spawn_file_actions_t,
        mut work: impl FnMut(RawFd),
    ) {
        // SAFETY: the caller's promise.
        let Some(list) = (unsafe { actions.cast::<List>().as_ref() }) else {
            return;
        };
        let (Ok(used), false) = (usize::try_from(list.used), list.actions.is_null()) else {
            return;
        };
        // SAFETY: so many actions stand there.
        let all = unsafe { core::slice::from_raw_parts(list.actions, used) };
        for action in all {
            if action.tag == DUP2 {
                work(action.first);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use core::mem::MaybeUninit;

        #[test]
        #[allow(clippy::multiple_unsafe_ops_per_block)]
        fn what_libc_writes_is_what_is_read() {
            let mut actions = MaybeUninit::<posix_spawn_file_actions_t>::uninit();
            let at = actions.as_mut_ptr();
            let copied = || {
                let mut all = Vec::new();
                // SAFETY: initialised below before the first call.
                unsafe { each_copied(at, |fd| all.push(fd)) };
                all
            };
            // SAFETY: all of these write to the one structure, which is initialised first.
            unsafe {
                assert_eq!(libc::posix_spawn_file_actions_init(at), 0);
                assert_eq!(copied(), []);
                assert_eq!(libc::posix_spawn_file_actions_addclose(at, 5), 0);
                let path = c"/dev/null".as_ptr();
                assert_eq!(
                    libc::posix_spawn_file_actions_addopen(at, 1, path, 2, 0o600),
                    0
                );
                assert_eq!(libc::posix_spawn_file_actions_adddup2(at, 7, 0), 0);
                assert_eq!(libc::posix_spawn_file_actions_addclose(at, 8), 0);
                for number in 100..150 {
                    assert_eq!(
                        libc::posix_spawn_file_actions_adddup2(at, number, number),
                        0
                    );
                }
            }
            let wanted: Vec<RawFd> = [7].into_iter().chain(100..150).collect();
            assert_eq!(copied(), wanted);
            // SAFETY: initialised above.
            unsafe { libc::posix_spawn_file_actions_destroy(at) };
            // SAFETY: null is allowed.
            unsafe { each_copied(core::ptr::null(), |_| panic!("there is nothing")) };
        }
    }
}
