//! The functions that ours stand in front of.
//!
//! `real::read` and so on are libc's, or those of the next preloaded library. Each is looked up once:
//! by the library's constructor, or by the first call, which may come earlier. The invariant: a call
//! works at any time and in any thread. Looking up may allocate, and an allocator may call `read`; a
//! call that comes while its own thread looks up goes to the kernel without libc. Two threads may
//! look up at once: they find the same.

#![allow(non_snake_case, reason = "the names are libc's")]

use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    FILE, epoll_event, fd_set, iovec, mmsghdr, mode_t, msghdr, nfds_t, off_t, off64_t, pid_t,
    pollfd, posix_spawn_file_actions_t, posix_spawnattr_t, pthread_attr_t, pthread_t, sigset_t,
    size_t, sockaddr, socklen_t, ssize_t, timespec, timeval,
};

use crate::guard;
use crate::hidden::Last;
use crate::raw::{direct, set_errno};

/// Looks up the function after ours; none if there is none, or if this thread is at it already.
fn look_up(name: &CStr) -> Option<*mut c_void> {
    let found = guard::resolving(|| {
        let before = crate::raw::errno();
        // SAFETY: the name ends with a NUL; RTLD_NEXT needs no handle.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        set_errno(before);
        found
    })?;
    (!found.is_null()).then_some(found)
}

/// What a function does for which there is neither libc's nor a system call.
trait Missing {
    fn missing() -> Self;
}
impl Missing for c_int {
    fn missing() -> Self {
        -1
    }
}
impl Missing for ssize_t {
    fn missing() -> Self {
        -1
    }
}
impl<T> Missing for *mut T {
    fn missing() -> Self {
        ptr::null_mut()
    }
}
impl Missing for () {
    fn missing() -> Self {}
}

fn missing<T: Missing>() -> T {
    set_errno(libc::ENOSYS);
    T::missing()
}

/// An answer of the kernel as the type that libc's function gives.
#[allow(clippy::cast_possible_truncation)]
trait Answer: Sized {
    fn answer(kernel: isize) -> Self;
}
impl Answer for c_int {
    #[allow(clippy::cast_possible_truncation)]
    fn answer(kernel: isize) -> Self {
        kernel as c_int
    }
}
impl Answer for ssize_t {
    fn answer(kernel: isize) -> Self {
        kernel
    }
}

macro_rules! real {
    ($(
        fn $name:ident($($argument:ident: $type:ty),* $(; $variadic:tt)?) -> $answer:ty
            = $instead:expr;
    )*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` as it would be without us.")]
            ///
            /// # Safety
            /// As for libc's function of this name.
            #[inline]
            pub(crate) unsafe fn $name($($argument: $type),*) -> $answer {
                let function = places::$name.load(Ordering::Relaxed);
                // SAFETY: the place holds a function of this type at any time.
                let function = unsafe {
                    transmute::<
                        *mut c_void,
                        unsafe extern "C-unwind" fn($($type),* $(, $variadic)?) -> $answer,
                    >(function)
                };
                // SAFETY: the caller's promise.
                unsafe { function($($argument),*) }
            }
        )*

        /// Where the addresses are kept; at first, of functions that look up.
        #[allow(non_upper_case_globals)]
        mod places {
            use super::*;
            $(
                pub(super) static $name: AtomicPtr<c_void> =
                    AtomicPtr::new(firsts::$name as *mut c_void);
            )*
        }

        /// What is called until libc's function is known.
        mod firsts {
            use super::*;
            $(
                pub(super) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $answer {
                    if find_one(name_of!($name), &places::$name) {
                        // SAFETY: the caller's promise.
                        return unsafe { super::$name($($argument),*) };
                    }
                    $instead
                }
            )*
        }

        /// Looks up all functions that are not known yet.
        pub(crate) fn find_all() {
            $( find_one(name_of!($name), &places::$name); )*
        }

        /// The address of libc's own function, for callers that keep pointers.
        #[allow(dead_code)]
        pub(crate) mod address {
            use super::*;
            $(
                pub(crate) fn $name() -> *mut c_void {
                    let known = places::$name.load(Ordering::Relaxed);
                    if known != firsts::$name as *mut c_void {
                        return known;
                    }
                    find_one(name_of!($name), &places::$name);
                    places::$name.load(Ordering::Relaxed)
                }
            )*
        }
    };
}

macro_rules! name_of {
    ($name:ident) => {
        // SAFETY: the string ends with the one NUL in it.
        unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) }
    };
}

fn find_one(name: &CStr, place: &AtomicPtr<c_void>) -> bool {
    let Some(found) = look_up(name) else {
        return false;
    };
    place.store(found, Ordering::Relaxed);
    true
}

/// The last argument of a system call that takes a set of signals: its size in the kernel.
const SIGNALS: usize = 8;

real! {
    // Life of a socket.
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_socket, domain, kind, protocol));
    fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = Answer::answer(direct!(libc::SYS_bind, fd, address, length));
    fn listen(fd: c_int, backlog: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_listen, fd, backlog));
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int
        = Answer::answer(direct!(libc::SYS_accept, fd, address, length));
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_accept4, fd, address, length, flags));
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int
        = Answer::answer(direct!(libc::SYS_connect, fd, address, length));
    fn shutdown(fd: c_int, how: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_shutdown, fd, how));
    fn close(fd: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_close, fd));
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_close_range, first, last, flags));
    fn closefrom(first: c_int) -> ()
        = { direct!(libc::SYS_close_range, first, c_uint::MAX, 0); };

    // Numbers.
    fn dup(fd: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_dup, fd));
    fn dup2(from: c_int, to: c_int) -> c_int
        = if from == to {
            if direct!(libc::SYS_fcntl, from, libc::F_GETFD) < 0 { -1 } else { to }
        } else {
            Answer::answer(direct!(libc::SYS_dup3, from, to, 0))
        };
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_dup3, from, to, flags));
    fn fcntl(fd: c_int, command: c_int, argument: usize; ...) -> c_int
        = Answer::answer(direct!(libc::SYS_fcntl, fd, command, argument));
    fn fcntl64(fd: c_int, command: c_int, argument: usize; ...) -> c_int
        = Answer::answer(direct!(libc::SYS_fcntl, fd, command, argument));
    fn ioctl(fd: c_int, request: c_ulong, argument: usize; ...) -> c_int
        = Answer::answer(direct!(libc::SYS_ioctl, fd, request, argument));

    // Data.
    fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t
        = direct!(libc::SYS_read, fd, buffer, length);
    fn readv(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t
        = direct!(libc::SYS_readv, fd, buffers, count);
    fn preadv2(fd: c_int, buffers: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t
        = direct!(libc::SYS_preadv2, fd, buffers, count, at, 0, flags);
    fn preadv64v2(fd: c_int, buffers: *const iovec, count: c_int, at: off64_t, flags: c_int)
        -> ssize_t
        = direct!(libc::SYS_preadv2, fd, buffers, count, at, 0, flags);
    fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t
        = direct!(libc::SYS_recvfrom, fd, buffer, length, flags, 0, 0);
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t
    ) -> ssize_t
        = direct!(libc::SYS_recvfrom, fd, buffer, length, flags, address, address_length);
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t
        = direct!(libc::SYS_recvmsg, fd, message, flags);
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_recvmmsg, fd, messages, count, flags, timeout));
    fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t
        = direct!(libc::SYS_write, fd, buffer, length);
    fn writev(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t
        = direct!(libc::SYS_writev, fd, buffers, count);
    fn pwritev2(fd: c_int, buffers: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t
        = direct!(libc::SYS_pwritev2, fd, buffers, count, at, 0, flags);
    fn pwritev64v2(fd: c_int, buffers: *const iovec, count: c_int, at: off64_t, flags: c_int)
        -> ssize_t
        = direct!(libc::SYS_pwritev2, fd, buffers, count, at, 0, flags);
    fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t
        = direct!(libc::SYS_sendto, fd, buffer, length, flags, 0, 0);
    fn sendto(
        fd: c_int, buffer: *const c_void, length: size_t, flags: c_int,
        address: *const sockaddr, address_length: socklen_t
    ) -> ssize_t
        = direct!(libc::SYS_sendto, fd, buffer, length, flags, address, address_length);
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t
        = direct!(libc::SYS_sendmsg, fd, message, flags);
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_sendmmsg, fd, messages, count, flags));
    fn __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t
        = { let _ = room; direct!(libc::SYS_read, fd, buffer, length) };
    fn __recv_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int)
        -> ssize_t
        = { let _ = room; direct!(libc::SYS_recvfrom, fd, buffer, length, flags, 0, 0) };
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t
    ) -> ssize_t
        = {
            let _ = room;
            direct!(libc::SYS_recvfrom, fd, buffer, length, flags, address, address_length)
        };
    fn sendfile(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t
        = direct!(libc::SYS_sendfile, to, from, at, count);
    fn sendfile64(to: c_int, from: c_int, at: *mut off64_t, count: size_t) -> ssize_t
        = direct!(libc::SYS_sendfile, to, from, at, count);
    fn splice(
        from: c_int, from_at: *mut off64_t, to: c_int, to_at: *mut off64_t,
        length: size_t, flags: c_uint
    ) -> ssize_t
        = direct!(libc::SYS_splice, from, from_at, to, to_at, length, flags);

    // Waiting.
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int
        = {
            let span = timespec {
                tv_sec: i64::from(timeout / 1000),
                tv_nsec: i64::from(timeout % 1000) * 1_000_000,
            };
            let span = if timeout < 0 { ptr::null() } else { &raw const span };
            Answer::answer(direct!(libc::SYS_ppoll, fds, count, span, 0, SIGNALS))
        };
    fn ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t)
        -> c_int
        = missing();
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int
        = { let _ = room; missing() };
    fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
        room: size_t
    ) -> c_int
        = missing();
    fn select(
        count: c_int, readable: *mut fd_set, writable: *mut fd_set, urgent: *mut fd_set,
        timeout: *mut timeval
    ) -> c_int
        = missing();
    fn pselect(
        count: c_int, readable: *mut fd_set, writable: *mut fd_set, urgent: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t
    ) -> c_int
        = missing();
    fn epoll_create(size: c_int) -> c_int
        = { let _ = size; Answer::answer(direct!(libc::SYS_epoll_create1, 0)) };
    fn epoll_create1(flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_epoll_create1, flags));
    fn epoll_ctl(set: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int
        = Answer::answer(direct!(libc::SYS_epoll_ctl, set, operation, fd, event));
    fn epoll_wait(set: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_epoll_pwait, set, events, room, timeout, 0, SIGNALS));
    fn epoll_pwait(
        set: c_int, events: *mut epoll_event, room: c_int, timeout: c_int, mask: *const sigset_t
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_epoll_pwait, set, events, room, timeout, mask, SIGNALS));
    fn epoll_pwait2(
        set: c_int, events: *mut epoll_event, room: c_int, timeout: *const timespec,
        mask: *const sigset_t
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_epoll_pwait2, set, events, room, timeout, mask, SIGNALS));

    // What the socket says of itself.
    fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_getsockopt, fd, level, name, value, length));
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_setsockopt, fd, level, name, value, length));
    fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int
        = Answer::answer(direct!(libc::SYS_getsockname, fd, address, length));
    fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int
        = Answer::answer(direct!(libc::SYS_getpeername, fd, address, length));
    fn sockatmark(fd: c_int) -> c_int
        = { let _ = fd; missing() };

    // Processes. Without libc's function its locks and handlers would be passed by: none instead.
    fn fork() -> pid_t = missing();
    fn vfork() -> pid_t = missing();
    fn _Fork() -> pid_t = missing();
    fn clone(
        start: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void,
        parent: *mut c_void, tls: *mut c_void, child: *mut c_void; ...
    ) -> c_int
        = { let _ = (start, stack, flags, argument, parent, tls, child); missing() };
    fn __clone(
        start: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void,
        parent: *mut c_void, tls: *mut c_void, child: *mut c_void; ...
    ) -> c_int
        = { let _ = (start, stack, flags, argument, parent, tls, child); missing() };
    fn posix_spawn(
        pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int
        = { let _ = (pid, path, actions, attributes, arguments, environment); libc::ENOSYS };
    fn posix_spawnp(
        pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int
        = { let _ = (pid, file, actions, attributes, arguments, environment); libc::ENOSYS };
    fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char)
        -> c_int
        = Answer::answer(direct!(libc::SYS_execve, path, arguments, environment));
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int = missing();
    fn execvp(file: *const c_char, arguments: *const *const c_char) -> c_int = missing();
    fn execvpe(file: *const c_char, arguments: *const *const c_char, environment: *const *const c_char)
        -> c_int
        = missing();
    fn fexecve(fd: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int
        = missing();
    fn execveat(
        folder: c_int, path: *const c_char, arguments: *const *const c_char,
        environment: *const *const c_char, flags: c_int
    ) -> c_int
        = Answer::answer(direct!(libc::SYS_execveat, folder, path, arguments, environment, flags));
    fn system(command: *const c_char) -> c_int = missing();
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE = missing();
    fn daemon(stay: c_int, keep: c_int) -> c_int = missing();
    fn exit(code: c_int) -> () = { direct!(libc::SYS_exit_group, code); };
    fn _exit(code: c_int) -> () = { direct!(libc::SYS_exit_group, code); };
    fn _Exit(code: c_int) -> () = { direct!(libc::SYS_exit_group, code); };

    // Jumps.
    fn longjmp(buffer: *mut c_void, value: c_int) -> ()
        = { let _ = (buffer, value); std::process::abort() };
    fn _longjmp(buffer: *mut c_void, value: c_int) -> ()
        = { let _ = (buffer, value); std::process::abort() };
    fn siglongjmp(buffer: *mut c_void, value: c_int) -> ()
        = { let _ = (buffer, value); std::process::abort() };
    fn __longjmp_chk(buffer: *mut c_void, value: c_int) -> ()
        = { let _ = (buffer, value); std::process::abort() };

    // Streams.
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE = missing();
    fn fclose(stream: *mut FILE) -> c_int = missing();
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE
        = missing();
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE
        = missing();

    fn dprintf(fd: c_int, format: *const c_char; ...) -> c_int
        = { let _ = (fd, format); missing() };
    fn __dprintf_chk(fd: c_int, flag: c_int, format: *const c_char; ...) -> c_int
        = { let _ = (fd, flag, format); missing() };
    fn vdprintf(fd: c_int, format: *const c_char, rest: *mut c_void) -> c_int
        = { let _ = (fd, format, rest); missing() };
    fn __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, rest: *mut c_void) -> c_int
        = { let _ = (fd, flag, format, rest); missing() };

    // Rings of liburing, which makes its system calls itself. Its answers are errors below zero.
    fn io_uring_setup(entries: c_uint, parameters: *mut c_void) -> c_int
        = { let _ = (entries, parameters); -libc::ENOSYS };
    fn io_uring_queue_init(entries: c_uint, ring: *mut c_void, flags: c_uint) -> c_int
        = { let _ = (entries, ring, flags); -libc::ENOSYS };
    fn io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, parameters: *mut c_void)
        -> c_int
        = { let _ = (entries, ring, parameters); -libc::ENOSYS };
    fn io_uring_queue_init_mem(
        entries: c_uint, ring: *mut c_void, parameters: *mut c_void, memory: *mut c_void,
        length: size_t
    ) -> c_int
        = { let _ = (entries, ring, parameters, memory, length); -libc::ENOSYS };

    fn syscall(
        number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize; ...
    ) -> ssize_t
        = direct!(number, a, b, c, d, e, f);

    // What only our own code calls through us, see `hidden`.
    fn getenv(name: *const c_char) -> *mut c_char
        = { let _ = name; ptr::null_mut() };
    fn __cxa_thread_atexit_impl(last: Last, object: *mut c_void, library: *mut c_void) -> c_int
        = { let _ = (last, object, library); missing() };
    fn eventfd(value: c_uint, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_eventfd2, value, flags));
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int
        = Answer::answer(direct!(libc::SYS_memfd_create, name, flags));
    fn timerfd_create(clock: c_int, flags: c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_timerfd_create, clock, flags));
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int
        = Answer::answer(direct!(libc::SYS_socketpair, domain, kind, protocol, pair));
    fn open64(path: *const c_char, flags: c_int, mode: mode_t; ...) -> c_int
        = Answer::answer(direct!(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode));
    fn pthread_create(
        thread: *mut pthread_t, attributes: *const pthread_attr_t,
        start: *mut c_void, argument: *mut c_void
    ) -> c_int
        = { let _ = (thread, attributes, start, argument); libc::EAGAIN };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libcs_functions_are_found() {
        find_all();
        assert_ne!(address::read(), firsts::read as *mut c_void);
        assert_ne!(address::epoll_wait(), firsts::epoll_wait as *mut c_void);
        assert_ne!(
            address::pthread_create(),
            firsts::pthread_create as *mut c_void
        );
    }

    #[test]
    fn a_call_during_the_search_goes_to_the_kernel() {
        // SAFETY: closes no descriptor.
        let answer = guard::resolving(|| unsafe { firsts::close(-1) });
        assert_eq!(answer, Some(-1));
        assert_eq!(crate::raw::errno(), libc::EBADF);
    }
}
