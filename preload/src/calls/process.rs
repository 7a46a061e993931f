//! fork, and the end of a process; giving connections to the kernel for good.
//!
//! Owns: that companions hear of each fork exactly once, whoever makes it. libc forks behind our
//! back, too (daemon, forkpty): its handlers see to those. Does not own: what a fork means for a
//! connection, which is the companion's.

use core::ffi::c_int;
use std::os::fd::RawFd;

use libc::pid_t;
use wsd_switch::companion::{Companion, Reason};

use crate::log::Border;
use crate::raw::keeping_errno;
use crate::table::{Held, Mark};
use crate::{export, file, guard, log, real, sets, table};

/// Gives a connection to the kernel for good: others will use it, or use it past us. errno is kept.
pub(crate) fn hand_over(held: &Held, fd: RawFd, why: Reason) {
    let _border = Border;
    let _inside = guard::enter();
    keeping_errno(|| {
        if let Err(error) = held.downgrade_for_good(fd, why) {
            log::line(&format!(
                "hand-over pid={} fd={fd} reason={} error={error}",
                std::process::id(),
                why.code()
            ));
        }
        // The peer has closed and sends nothing again: another program would go on behind bytes that
        // only this process has.
        let elsewhere = why == Reason::Passed || why == Reason::Exec && !super::exec::closes(fd);
        if elsewhere && !held.on_kernel() {
            log::line(&format!(
                "reset pid={} fd={fd} reason={}",
                std::process::id(),
                why.code()
            ));
            file::disconnect(fd);
        }
    });
}

/// The same, if the number is a connection.
pub(crate) fn hand_over_number(fd: RawFd, why: Reason) {
    if let Some(held) = table::get(fd) {
        hand_over(&held, fd, why);
    }
}

/// Gives those connections to the kernel that `choose` wants.
pub(crate) fn hand_over_those(why: Reason, mut choose: impl FnMut(RawFd, &Held) -> bool) {
    if !table::was_used() {
        return;
    }
    table::each(|fd, mark| {
        if mark == Mark::Connection
            && let Some(held) = table::get(fd)
            && choose(fd, &held)
        {
            hand_over(&held, fd, why);
        }
    });
}

/// Has forks inside libc told to the companions. Called once, when the library is loaded.
pub(crate) fn watch_forks() {
    // SAFETY: the functions stay, for the library is never unloaded while its program runs.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
}

unsafe extern "C" fn before_fork() {
    if !guard::forking() {
        let _inside = guard::enter();
        Companion::before_fork();
        sets::before_fork();
    }
}

unsafe extern "C" fn in_parent() {
    if !guard::forking() {
        let _inside = guard::enter();
        let shares = sets::after_fork_in_parent();
        Companion::after_fork_in_parent();
        drop(shares);
    }
}

unsafe extern "C" fn in_child() {
    if !guard::forking() {
        guard::reset();
        let _inside = guard::enter();
        table::after_fork_in_child();
        let shares = sets::after_fork_in_child();
        Companion::after_fork_in_child();
        drop(shares);
    }
}

/// Forks by `fork`, and tells the companions around it.
pub(super) fn forked(fork: impl FnOnce() -> pid_t) -> pid_t {
    let _border = Border;
    keeping_errno(|| {
        let _inside = guard::enter();
        Companion::before_fork();
        sets::before_fork();
    });
    guard::set_forking(true);
    let pid = fork();
    keeping_errno(|| {
        if pid == 0 {
            guard::reset();
            let _inside = guard::enter();
            table::after_fork_in_child();
            let shares = sets::after_fork_in_child();
            Companion::after_fork_in_child();
            drop(shares);
        } else {
            guard::set_forking(false);
            let _inside = guard::enter();
            let shares = sets::after_fork_in_parent();
            Companion::after_fork_in_parent();
            drop(shares);
        }
    });
    pid
}

/// What is to be done before this process is no more without libc's handlers of its end.
fn leave() {
    let _border = Border;
    keeping_errno(|| {
        let _inside = guard::enter();
        if table::was_used() {
            Companion::leave();
        }
        super::life::last_words();
    });
}

export! {
    /// Tells the companions.
    fn fork() -> pid_t {
        // SAFETY: the program's own call.
        forked(|| unsafe { real::fork() })
    }

    /// A fork: a child that shared our memory would change what we know of the parent's numbers.
    fn vfork() -> pid_t {
        // SAFETY: a fork allows the child all that vfork does.
        forked(|| unsafe { real::fork() })
    }

    /// Tells the companions.
    #[allow(non_snake_case)]
    fn _Fork() -> pid_t {
        // SAFETY: the program's own call.
        forked(|| unsafe { real::_Fork() })
    }

    /// The process that goes on is the child, so the connections go on by the kernel.
    fn daemon(stay: c_int, keep: c_int) -> c_int {
        hand_over_those(Reason::Fork, |_, held| !held.on_kernel());
        // SAFETY: the program's own call.
        let answer = unsafe { real::daemon(stay, keep) };
        if answer == 0 && keep == 0 {
            // libc has put /dev/null there.
            for fd in 0..=2 {
                super::life::forget_stale(fd);
            }
        }
        answer
    }

    /// The program's; companions see to what they owe by a handler of libc's.
    fn exit(code: c_int) {
        // SAFETY: the program's own call.
        unsafe { real::exit(code) };
    }

    /// Without libc's handlers, what they do for us is done here.
    fn _exit(code: c_int) {
        leave();
        // SAFETY: the program's own call.
        unsafe { real::_exit(code) };
    }

    /// As _exit().
    #[allow(non_snake_case)]
    fn _Exit(code: c_int) {
        leave();
        // SAFETY: the program's own call.
        unsafe { real::_Exit(code) };
    }
}
