//! Functions of libc that only our own code finds here.
//!
//! The switch and the provider are part of this library, so their calls bind to the functions below;
//! the program's do not, for the names are hidden. Owns four promises: descriptors that our code
//! makes sit out of the way of the program's, which relies on getting the lowest free number, and
//! may select only below 1024; what our code has left for the end of a thread of the program's may
//! close them; our threads take none of the program's signals; and our settings are those that the
//! program was started with, also when it has given up its environment.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::mem::MaybeUninit;

use libc::{mode_t, pthread_attr_t, pthread_t, sigset_t};

use crate::{environment, export, file, guard, real, table};

// Of a symbol's visibilities the strictest wins, so a mention as hidden is enough; and what the
// provider exports when it is a library of its own stays inside, too.
#[cfg(not(test))]
core::arch::global_asm!(
    ".pushsection .data.rel.ro.wsd_hidden,\"aw\"",
    ".p2align 3",
    ".irp name, eventfd, memfd_create, timerfd_create, socketpair, open64, pthread_create, getenv",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".irp name, __cxa_thread_atexit_impl",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".popsection",
);

#[cfg(not(test))]
core::arch::global_asm!(
    ".pushsection .data.rel.ro.wsd_provider,\"aw\"",
    ".p2align 3",
    ".irp name, WSPStartupEx, WSAID_ARMCOMPLETION, WSAID_DEREGISTERMEMORY",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".irp name, WSAID_DEREGISTERRDMAMEMORY, WSAID_MEMORYREGISTRATIONCACHECALLBACK, WSAID_RDMAREAD",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".irp name, WSAID_RDMAWRITE, WSAID_REGISTERMEMORY, WSAID_REGISTERRDMAMEMORY",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".irp name, WSAID_MAKEPROGRESS, WSAID_TAKEPROGRESS",
    ".hidden \\name",
    ".quad \\name",
    ".endr",
    ".popsection",
);

/// Puts a descriptor of ours out of the way, and into the table as ours.
pub(crate) fn adopt(fd: c_int) -> c_int {
    if fd < 0 {
        return fd;
    }
    let fd = file::move_away(fd);
    table::set_private(fd);
    fd
}

export! {
    /// Only for our own code.
    fn eventfd(value: c_uint, flags: c_int) -> c_int {
        // SAFETY: takes no pointer.
        adopt(unsafe { real::eventfd(value, flags) })
    }

    /// Only for our own code.
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int {
        // SAFETY: the caller's arguments.
        adopt(unsafe { real::memfd_create(name, flags) })
    }

    /// Only for our own code.
    fn timerfd_create(clock: c_int, flags: c_int) -> c_int {
        // SAFETY: takes no pointer.
        adopt(unsafe { real::timerfd_create(clock, flags) })
    }

    /// Only for our own code.
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int {
        // SAFETY: the caller's arguments.
        let made = unsafe { real::socketpair(domain, kind, protocol, pair) };
        if made == 0 {
            // SAFETY: two numbers stand there, for the call succeeded.
            let both = unsafe { &mut *pair.cast::<[c_int; 2]>() };
            for fd in both {
                *fd = adopt(*fd);
            }
        }
        made
    }

    /// Only for our own code.
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's arguments; who gives no mode gives a register with anything in it,
        // which is not looked at.
        adopt(unsafe { real::open64(path, flags, mode) })
    }

    /// Only for our own code.
    fn pthread_create(
        thread: *mut pthread_t, attributes: *const pthread_attr_t,
        start: *mut c_void, argument: *mut c_void,
    ) -> c_int {
        let work = Box::into_raw(Box::new(Work { start, argument }));
        let before = all_signals_blocked();
        // SAFETY: the caller's arguments; `run` takes the box.
        let made = unsafe {
            real::pthread_create(thread, attributes, run as *mut c_void, work.cast())
        };
        signals_back(&before);
        if made != 0 {
            // SAFETY: no thread was made, so the box is still ours.
            drop(unsafe { Box::from_raw(work) });
        }
        made
    }

    /// Only for our own code. Ours are remembered: nginx, for one, starts its workers without.
    fn getenv(name: *const c_char) -> *mut c_char {
        // SAFETY: the caller's argument.
        let found = unsafe { real::getenv(name) };
        if !found.is_null() {
            return found;
        }
        // SAFETY: the caller's argument, a string.
        environment::setting(unsafe { CStr::from_ptr(name) })
    }

    /// Only for our own code: what it does at the end of a thread, it does as our code.
    fn __cxa_thread_atexit_impl(last: Last, object: *mut c_void, library: *mut c_void) -> c_int {
        let work = Box::into_raw(Box::new(LastWork { last, object }));
        // SAFETY: `at_the_end` takes the box, once; `library` keeps it loaded until then.
        let noted = unsafe {
            real::__cxa_thread_atexit_impl(at_the_end, work.cast(), library)
        };
        if noted != 0 {
            // SAFETY: nothing was noted, so the box is still ours.
            drop(unsafe { Box::from_raw(work) });
        }
        noted
    }
}

/// A function that is called at the end of a thread.
pub(crate) type Last = unsafe extern "C-unwind" fn(*mut c_void);

/// What is to be done at the end of a thread.
struct LastWork {
    last: Last,
    object: *mut c_void,
}

unsafe extern "C-unwind" fn at_the_end(work: *mut c_void) {
    // SAFETY: `__cxa_thread_atexit_impl` above made the box and gave it to this call alone.
    let work = unsafe { Box::from_raw(work.cast::<LastWork>()) };
    let _inside = guard::enter();
    // SAFETY: what the caller wanted to be called, with its argument.
    unsafe { (work.last)(work.object) };
}

/// What a thread of ours is to do.
struct Work {
    start: *mut c_void,
    argument: *mut c_void,
}

extern "C-unwind" fn run(work: *mut c_void) -> *mut c_void {
    guard::become_ours();
    // SAFETY: `pthread_create` above made the box and gave it to this thread alone.
    let work = unsafe { Box::from_raw(work.cast::<Work>()) };
    let (start, argument) = (work.start, work.argument);
    drop(work);
    // SAFETY: the caller of `pthread_create` gave a function of this type.
    let start = unsafe {
        core::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void>(
            start,
        )
    };
    // SAFETY: the argument is the one that was given for this function.
    unsafe { start(argument) }
}

/// Blocks the calling thread's signals; a new thread inherits that. Those that were blocked before.
fn all_signals_blocked() -> sigset_t {
    let mut all = MaybeUninit::<sigset_t>::uninit();
    let mut before = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: fills the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: both sets are live; the first was filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: the call has filled it, and all zeros are a set, too.
    unsafe { before.assume_init() }
}

fn signals_back(before: &sigset_t) {
    // SAFETY: the set is live.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, core::ptr::null_mut()) };
}
