//! fork, clone, and the end of a process; giving connections to the kernel for good.
//!
//! Owns: that companions hear of each fork exactly once, whoever makes it. libc forks behind our
//! back, too (daemon, forkpty): its handlers see to those. Does not own: what a fork means for a
//! connection, which is the companion's.

use core::ffi::{c_int, c_void};
use core::mem::transmute;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::pid_t;
use wsd_switch::companion::{Companion, Reason};

use crate::log::Border;
use crate::raw::{fail, keeping_errno};
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

/// Whether connections may be used past us, by a ring or by a process that shares our memory.
static PAST_US: AtomicBool = AtomicBool::new(false);

/// Whether connections must stay with the kernel.
pub(super) fn all_stay() -> bool {
    PAST_US.load(Ordering::Relaxed)
}

/// Connections may be used past us: all of them are the kernel's alone from now on.
pub(super) fn let_all_stay(why: Reason) {
    PAST_US.store(true, Ordering::Relaxed);
    hand_over_those(why, |_, _| true);
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
        in_own_child();
    }
}

/// The child's part of a fork.
fn in_own_child() {
    guard::reset();
    let _inside = guard::enter();
    table::after_fork_in_child();
    let shares = sets::after_fork_in_child();
    Companion::after_fork_in_child();
    drop(shares);
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
            in_own_child();
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

/// What a clone makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Makes {
    /// A thread of this process: it is no matter of ours.
    Thread,
    /// A process with memory of its own, as by fork. With these flags: one by vfork gets its own, too.
    Process(u64),
    /// A process that has our memory or our descriptors, and whose calls change what we know of them.
    Sharer,
}

/// What a clone with these flags makes. The signal stands among them where there is room.
pub(super) fn made_by(flags: u64) -> Makes {
    let asks = |flag: c_int| flags & u64::from(flag.cast_unsigned()) != 0;
    let by_vfork = asks(libc::CLONE_VM) && asks(libc::CLONE_VFORK);
    let shares = asks(libc::CLONE_VM) && !by_vfork;
    let one_of_ours = libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_SETTLS;
    if asks(libc::CLONE_THREAD) {
        Makes::Thread
    } else if shares || asks(one_of_ours) {
        Makes::Sharer
    } else if by_vfork {
        let as_vfork = libc::CLONE_VM | libc::CLONE_VFORK;
        Makes::Process(flags & !u64::from(as_vfork.cast_unsigned()))
    } else {
        Makes::Process(flags)
    }
}

/// Whether a process with these flags is one that fork() makes. Then that makes it: in a child by
/// clone() libc's locks are as they were, and another thread may have had them; what we do there
/// allocates.
pub(super) fn is_fork(flags: u64) -> bool {
    flags == u64::from(libc::SIGCHLD.cast_unsigned())
}

/// Before a child that has memory of its own and no preparation: it finds all connections with the
/// kernel.
pub(super) fn hand_over_all() {
    hand_over_those(Reason::Fork, |_, _| true);
}

/// What a program's child by clone() does.
type Start = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

/// libc's clone() with all that it may be given.
type Clone = unsafe fn(
    *mut c_void,
    *mut c_void,
    c_int,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;

/// Makes a child by `clone`, and tells the companions around it if there are two processes with them.
///
/// # Safety
/// As for clone(); `clone` is that.
#[allow(clippy::too_many_arguments, reason = "clone() takes so many")]
unsafe fn cloned(
    clone: Clone,
    start: *mut c_void,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent: *mut c_void,
    tls: *mut c_void,
    child: *mut c_void,
) -> c_int {
    let made = made_by(u64::from(flags.cast_unsigned()));
    let Makes::Process(flags) = made else {
        if made == Makes::Sharer {
            let_all_stay(Reason::Fork);
        }
        // SAFETY: the caller's promise.
        return unsafe { clone(start, stack, flags, argument, parent, tls, child) };
    };
    if !is_fork(flags) {
        hand_over_all();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "they were as narrow before"
        )]
        let flags = flags as c_int;
        // SAFETY: the caller's promise.
        return unsafe { clone(start, stack, flags, argument, parent, tls, child) };
    }
    if start.is_null() || stack.is_null() {
        // What libc says to that, too.
        return fail(libc::EINVAL);
    }
    // SAFETY: the program's call, as far as it is a fork. The child has a stack: this one.
    let pid = forked(|| unsafe { real::fork() });
    if pid == 0 {
        // SAFETY: the program's function is one of this type.
        let start = unsafe { transmute::<*mut c_void, Start>(start) };
        // SAFETY: with its argument.
        let code = unsafe { start(argument) };
        leave();
        // SAFETY: as libc's clone() ends such a child.
        unsafe { real::_exit(code) };
    }
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

    /// Tells the companions.
    fn clone(
        start: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void,
        parent: *mut c_void, tls: *mut c_void, child: *mut c_void,
    ) -> c_int {
        // SAFETY: the program's own call. What it has not given is not looked at, for its flags do
        // not ask for it.
        unsafe { cloned(real::clone, start, stack, flags, argument, parent, tls, child) }
    }

    /// As clone().
    #[allow(non_snake_case)]
    fn __clone(
        start: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void,
        parent: *mut c_void, tls: *mut c_void, child: *mut c_void,
    ) -> c_int {
        // SAFETY: as above.
        unsafe { cloned(real::__clone, start, stack, flags, argument, parent, tls, child) }
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
