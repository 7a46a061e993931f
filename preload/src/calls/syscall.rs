//! System calls made by number, past libc's functions.
//!
//! Owns: which of them concern descriptors that we look after; those go the way of libc's functions
//! of the same name. All others reach libc's `syscall` as if we were not there: with the same
//! arguments, the same stack, and nothing of ours to return to, so that also a clone or a return
//! from a signal is exact. And rings: what io_uring does is seen by nobody, so none is made unless a
//! rule grants it.

use core::ffi::{c_int, c_long, c_uint, c_void};
use core::ptr::with_exposed_provenance as read_at;
use core::ptr::with_exposed_provenance_mut as write_at;

use wsd_switch::companion::{Reason, is_off, rules};

use super::process::{self, Makes};
use super::{data, dup, epoll, exec, files, info, life, message, poll, select};
use crate::raw::fail;
use crate::table::{self, Mark};
use crate::{export, guard, real};

/// The system calls that may concern us, and what decides it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Concern {
    /// Never.
    None,
    /// If the first argument is a connection.
    Connection,
    /// If the first or the third argument is a connection.
    Either,
    /// If we know something of the first argument.
    Number,
    /// Always: it gives out numbers, or makes connections or processes.
    Always,
    /// If there was ever a connection.
    Waiting,
}

fn concern(number: c_long) -> Concern {
    match number {
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_readv
        | libc::SYS_writev
        | libc::SYS_recvfrom
        | libc::SYS_sendto
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_shutdown
        | libc::SYS_ioctl
        | libc::SYS_getsockopt
        | libc::SYS_setsockopt => Concern::Connection,
        libc::SYS_splice | libc::SYS_sendfile => Concern::Either,
        libc::SYS_close | libc::SYS_dup | libc::SYS_fcntl => Concern::Number,
        libc::SYS_socket
        | libc::SYS_connect
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_dup3
        | libc::SYS_close_range
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_execve
        | libc::SYS_execveat
        | libc::SYS_exit_group
        | libc::SYS_clone
        | libc::SYS_clone3
        | libc::SYS_io_uring_setup
        | libc::SYS_epoll_create1 => Concern::Always,
        libc::SYS_ppoll
        | libc::SYS_pselect6
        | libc::SYS_epoll_ctl
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2 => Concern::Waiting,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 | libc::SYS_fork | libc::SYS_vfork | libc::SYS_epoll_create => {
            Concern::Always
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => Concern::Waiting,
        _ => Concern::None,
    }
}

/// Where a system call goes on: [`routed`], or libc's `syscall`.
extern "C-unwind" fn destination(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
) -> *mut c_void {
    if matches!(number, libc::SYS_pidfd_open | libc::SYS_userfaultfd) {
        // libc has no function for these. The program's own pass on as they are.
        return if guard::inside() {
            adopted as *mut c_void
        } else {
            real::address::syscall()
        };
    }
    let connection = |argument| table::mark(descriptor(argument)) == Mark::Connection;
    let ours = match concern(number) {
        Concern::None => false,
        Concern::Connection => connection(a),
        Concern::Either => connection(a) || connection(b) || connection(c),
        Concern::Number => table::mark(descriptor(a)) != Mark::None,
        Concern::Waiting => table::was_used(),
        Concern::Always => match number {
            libc::SYS_clone => comes_to_us(made_by_number(a, b)),
            libc::SYS_clone3 => comes_to_us(made_by_row(a, b)),
            _ => true,
        },
    } && !guard::our_thread();
    let _ = d;
    if ours {
        routed as *mut c_void
    } else {
        real::address::syscall()
    }
}

/// A system call of our own code that makes a descriptor.
unsafe extern "C-unwind" fn adopted(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // SAFETY: our code's own arguments.
    let made = unsafe { real::syscall(number, a, b, c, d, e, f) };
    c_int::try_from(made).map_or(made, |fd| crate::hidden::adopt(fd) as isize)
}

/// Whether a clone is to go by [`routed`]: one that is a fork. Others cannot return through a function
/// of ours, or are not prepared as by fork: they find all connections with the kernel instead.
fn comes_to_us(made: Makes) -> bool {
    match made {
        Makes::Process(flags) if process::is_fork(flags) => return true,
        _ if guard::our_thread() => {}
        Makes::Process(_) => process::hand_over_all(),
        Makes::Sharer => process::let_all_stay(Reason::Fork),
        Makes::Thread => {}
    }
    false
}

/// What SYS_clone makes.
fn made_by_number(flags: usize, stack: usize) -> Makes {
    match process::made_by(flags as u64) {
        Makes::Process(_) if stack != 0 => Makes::Sharer,
        made => made,
    }
}

/// The least that clone3 takes, and the most of which we know what it is.
const LENGTHS: std::ops::RangeInclusive<usize> = 64..=88;

/// clone3 takes a row of numbers: its flags first, its signal as the fifth, its stack as the sixth.
type Row = [u64; 11];

/// The row of a clone3; none if it is too short, and the kernel says so, or longer than we know.
fn row_of(row: usize, size: usize) -> Option<Row> {
    let numbers: *const u8 = read_at(row);
    if numbers.is_null() || !LENGTHS.contains(&size) {
        return None;
    }
    let mut own = Row::default();
    // SAFETY: the program says that so many bytes stand there, and the kernel will read them; there
    // is room for them.
    unsafe { numbers.copy_to_nonoverlapping(own.as_mut_ptr().cast(), size) };
    Some(own)
}

/// What SYS_clone3 makes.
fn made_by_row(row: usize, size: usize) -> Makes {
    match row_of(row, size) {
        Some(row) => match process::made_by(row[0] | row[4]) {
            // With a stack, or with a number that is asked for.
            Makes::Process(_) if row[5] != 0 || row[8] != 0 => Makes::Sharer,
            made => made,
        },
        None if row == 0 || size < *LENGTHS.start() => Makes::Thread,
        None => Makes::Sharer,
    }
}

/// The descriptor in an argument: the kernel takes the lower half of the register.
#[allow(clippy::cast_possible_truncation)]
fn descriptor(argument: usize) -> c_int {
    argument as c_int
}

/// A number that is narrower than its register.
#[allow(clippy::cast_possible_truncation)]
fn narrow(argument: usize) -> c_uint {
    argument as c_uint
}

/// A number with a sign.
#[allow(clippy::cast_possible_wrap)]
fn signed(argument: usize) -> isize {
    argument as isize
}

/// The system call by libc's function of its name, as we have it.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one of them is made, and the promise is the same for all"
)]
unsafe extern "C-unwind" fn routed(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let int = |answer: c_int| answer as isize;
    let fd = descriptor(a);
    // SAFETY: the program's own arguments, of the system call whose function it is.
    unsafe {
        match number {
            libc::SYS_read => data::read(fd, write_at(b), c),
            libc::SYS_write => data::write(fd, read_at(b), c),
            libc::SYS_readv => data::readv(fd, read_at(b), descriptor(c)),
            libc::SYS_writev => data::writev(fd, read_at(b), descriptor(c)),
            libc::SYS_recvfrom => {
                data::recvfrom(fd, write_at(b), c, descriptor(d), write_at(e), write_at(f))
            }
            libc::SYS_sendto => {
                data::sendto(fd, read_at(b), c, descriptor(d), read_at(e), narrow(f))
            }
            libc::SYS_recvmsg => message::recvmsg(fd, write_at(b), descriptor(c)),
            libc::SYS_sendmsg => message::sendmsg(fd, read_at(b), descriptor(c)),
            libc::SYS_recvmmsg => int(message::recvmmsg(
                fd,
                write_at(b),
                narrow(c),
                descriptor(d),
                write_at(e),
            )),
            libc::SYS_sendmmsg => int(message::sendmmsg(fd, write_at(b), narrow(c), descriptor(d))),
            // The offset travels in two registers; 64-bit kernels look at the first only.
            libc::SYS_preadv2 => data::preadv2(
                fd,
                read_at(b),
                descriptor(c),
                signed(d) as i64,
                descriptor(f),
            ),
            libc::SYS_pwritev2 => data::pwritev2(
                fd,
                read_at(b),
                descriptor(c),
                signed(d) as i64,
                descriptor(f),
            ),
            libc::SYS_shutdown => int(life::shutdown(fd, descriptor(b))),
            libc::SYS_ioctl => int(dup::ioctl(fd, b as _, c)),
            libc::SYS_getsockopt => int(info::getsockopt(
                fd,
                descriptor(b),
                descriptor(c),
                write_at(d),
                write_at(e),
            )),
            libc::SYS_setsockopt => int(info::setsockopt(
                fd,
                descriptor(b),
                descriptor(c),
                read_at(d),
                narrow(e),
            )),
            libc::SYS_splice => {
                files::splice(fd, write_at(b), descriptor(c), write_at(d), e, narrow(f))
            }
            libc::SYS_sendfile => files::sendfile64(fd, descriptor(b), write_at(c), d),
            libc::SYS_close => int(life::close(fd)),
            libc::SYS_close_range => int(life::close_range(narrow(a), narrow(b), descriptor(c))),
            libc::SYS_dup => int(dup::dup(fd)),
            libc::SYS_dup3 => int(dup::dup3(fd, descriptor(b), descriptor(c))),
            libc::SYS_fcntl => int(dup::fcntl(fd, descriptor(b), c)),
            libc::SYS_socket => int(life::socket(fd, descriptor(b), descriptor(c))),
            libc::SYS_connect => int(life::connect(fd, read_at(b), narrow(c))),
            libc::SYS_accept => int(life::accept(fd, write_at(b), write_at(c))),
            libc::SYS_accept4 => int(life::accept4(fd, write_at(b), write_at(c), descriptor(d))),
            libc::SYS_execve => int(exec::execve(read_at(a), read_at(b), read_at(c))),
            libc::SYS_execveat => int(exec::execveat(
                fd,
                read_at(b),
                read_at(c),
                read_at(d),
                descriptor(e),
            )),
            libc::SYS_exit_group => {
                process::_exit(fd);
                0
            }
            libc::SYS_clone | libc::SYS_clone3 => int(process::forked(|| real::fork())),
            libc::SYS_io_uring_setup => int(ring(
                || fail(libc::ENOSYS),
                || c_int::try_from(real::syscall(number, a, b, c, d, e, f)).unwrap_or(-1),
            )),
            libc::SYS_epoll_create1 => int(epoll::epoll_create1(fd)),
            libc::SYS_ppoll => int(poll::ppoll(write_at(a), b as _, read_at(c), read_at(d))),
            libc::SYS_pselect6 => {
                // The mask stands behind one more pointer, with its length.
                let mask = read_at::<*const libc::sigset_t>(f);
                let mask = if mask.is_null() {
                    core::ptr::null()
                } else {
                    *mask
                };
                int(select::pselect(
                    fd,
                    write_at(b),
                    write_at(c),
                    write_at(d),
                    read_at(e),
                    mask,
                ))
            }
            libc::SYS_epoll_ctl => int(epoll::epoll_ctl(
                fd,
                descriptor(b),
                descriptor(c),
                write_at(d),
            )),
            libc::SYS_epoll_pwait => int(epoll::epoll_pwait(
                fd,
                write_at(b),
                descriptor(c),
                descriptor(d),
                read_at(e),
            )),
            libc::SYS_epoll_pwait2 => int(epoll::epoll_pwait2(
                fd,
                write_at(b),
                descriptor(c),
                read_at(d),
                read_at(e),
            )),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => int(dup::dup2(fd, descriptor(b))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork | libc::SYS_vfork => int(process::fork()),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_create => int(epoll::epoll_create(fd)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => int(poll::poll(write_at(a), b as _, descriptor(c))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => int(select::select(
                fd,
                write_at(b),
                write_at(c),
                write_at(d),
                write_at(e),
            )),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => int(epoll::epoll_wait(
                fd,
                write_at(b),
                descriptor(c),
                descriptor(d),
            )),
            _ => real::syscall(number, a, b, c, d, e, f),
        }
    }
}

/// Makes a ring if a rule grants it, or if there is nothing that it could go past; `denied` is the
/// answer otherwise. What goes through a ring is the kernel's alone, so all connections are from then on.
fn ring(denied: impl FnOnce() -> c_int, make: impl FnOnce() -> c_int) -> c_int {
    if is_off() {
        return make();
    }
    if !rules::active().grants_io_uring() {
        return denied();
    }
    process::let_all_stay(Reason::UnsupportedCall);
    make()
}

/// As liburing says that the kernel has none.
fn none() -> c_int {
    -libc::ENOSYS
}

export! {
    /// liburing's. A ring only if a rule grants it.
    fn io_uring_setup(entries: c_uint, parameters: *mut c_void) -> c_int {
        // SAFETY: the program's own call.
        ring(none, || unsafe { real::io_uring_setup(entries, parameters) })
    }

    /// As `io_uring_setup`.
    fn io_uring_queue_init(entries: c_uint, made: *mut c_void, flags: c_uint) -> c_int {
        // SAFETY: the program's own call.
        ring(none, || unsafe { real::io_uring_queue_init(entries, made, flags) })
    }

    /// As `io_uring_setup`.
    fn io_uring_queue_init_params(
        entries: c_uint, made: *mut c_void, parameters: *mut c_void,
    ) -> c_int {
        // SAFETY: the program's own call.
        ring(none, || unsafe { real::io_uring_queue_init_params(entries, made, parameters) })
    }

    /// As `io_uring_setup`.
    fn io_uring_queue_init_mem(
        entries: c_uint, made: *mut c_void, parameters: *mut c_void, memory: *mut c_void,
        length: libc::size_t,
    ) -> c_int {
        ring(none, || {
            // SAFETY: the program's own call.
            unsafe { real::io_uring_queue_init_mem(entries, made, parameters, memory, length) }
        })
    }
}

/// libc's `syscall`, for what concerns us by our functions, for all else untouched.
///
/// # Safety
/// As for libc's function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn syscall() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        "sub rsp, 56",
        ".cfi_adjust_cfa_offset 56",
        "mov [rsp], rdi",
        "mov [rsp + 8], rsi",
        "mov [rsp + 16], rdx",
        "mov [rsp + 24], rcx",
        "mov [rsp + 32], r8",
        "mov [rsp + 40], r9",
        "call {destination}",
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "mov rdx, [rsp + 16]",
        "mov rcx, [rsp + 24]",
        "mov r8, [rsp + 32]",
        "mov r9, [rsp + 40]",
        "add rsp, 56",
        ".cfi_adjust_cfa_offset -56",
        "jmp rax",
        ".cfi_endproc",
        destination = sym destination,
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, -80]!",
        ".cfi_def_cfa_offset 80",
        ".cfi_offset 29, -80",
        ".cfi_offset 30, -72",
        "stp x0, x1, [sp, 16]",
        "stp x2, x3, [sp, 32]",
        "stp x4, x5, [sp, 48]",
        "str x6, [sp, 64]",
        "bl {destination}",
        "mov x16, x0",
        "ldp x0, x1, [sp, 16]",
        "ldp x2, x3, [sp, 32]",
        "ldp x4, x5, [sp, 48]",
        "ldr x6, [sp, 64]",
        "ldp x29, x30, [sp], 80",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore 29",
        ".cfi_restore 30",
        "br x16",
        ".cfi_endproc",
        destination = sym destination,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

    fn call() -> Syscall {
        // SAFETY: the function takes what libc's of its name takes.
        unsafe { core::mem::transmute(syscall as unsafe extern "C" fn()) }
    }

    #[test]
    fn what_does_not_concern_us_is_libcs_with_all_six_arguments() {
        // SAFETY: takes nothing.
        let pid = unsafe { call()(libc::SYS_getpid) };
        assert_eq!(pid, i64::from(std::process::id()));
        let null = core::ptr::null_mut::<c_void>();
        let (length, shared) = (4096_usize, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping touches nothing.
        let at = unsafe {
            call()(
                libc::SYS_mmap,
                null,
                length,
                libc::PROT_READ,
                shared,
                -1_i64,
                0_i64,
            )
        };
        assert!(at > 0);
        // SAFETY: the mapping was made above.
        assert_eq!(unsafe { call()(libc::SYS_munmap, at, length) }, 0);
        // SAFETY: a sixth argument that is out of range is answered.
        let wrong = unsafe {
            call()(
                libc::SYS_mmap,
                null,
                length,
                libc::PROT_READ,
                shared,
                -1_i64,
                1_i64,
            )
        };
        assert_eq!((wrong, crate::raw::errno()), (-1, libc::EINVAL));
    }

    #[test]
    fn rings_are_answered_as_by_a_kernel_without_them() {
        // SAFETY: the null is answered before it is followed.
        let made = unsafe { call()(libc::SYS_io_uring_setup, 8, core::ptr::null::<u8>()) };
        assert_eq!((made, crate::raw::errno()), (-1, libc::ENOSYS));
        assert!(!process::all_stay());
    }

    #[test]
    fn a_child_that_returns_through_us_is_one_by_fork() {
        let bits = |flags: c_int| usize::try_from(flags).unwrap();
        let (chld, vm) = (bits(libc::SIGCHLD), bits(libc::CLONE_VM));
        let vfork = vm | bits(libc::CLONE_VFORK);
        let fork = Makes::Process(chld as u64);
        assert!(comes_to_us(fork));
        // Its parent waits for it, and it has memory of its own anyway.
        let waited = made_by_number(chld | bits(libc::CLONE_VFORK), 0);
        assert_ne!(waited, fork);
        assert!(!comes_to_us(waited));
        let space = bits(libc::CLONE_NEWUTS);
        assert!(!comes_to_us(made_by_number(chld | space, 0)));
        assert_eq!(made_by_number(chld, 0), fork);
        assert_eq!(made_by_number(chld | vfork, 0), fork);
        assert_eq!(made_by_number(chld, 0x1000), Makes::Sharer);
        assert_eq!(made_by_number(chld | vm, 0), Makes::Sharer);
        let files = bits(libc::CLONE_FILES);
        assert_eq!(made_by_number(chld | vfork | files, 0), Makes::Sharer);
        let thread = vm | bits(libc::CLONE_THREAD);
        assert_eq!(made_by_number(thread, 0x1000), Makes::Thread);

        let mut row = [0_u64; 12];
        (row[0], row[4]) = (vfork as u64, chld as u64);
        let at = row.as_ptr().expose_provenance();
        assert_eq!(made_by_row(at, 88), fork);
        assert_eq!(made_by_row(at, 96), Makes::Sharer);
        // The kernel refuses these.
        assert_eq!(made_by_row(at, 8), Makes::Thread);
        assert_eq!(made_by_row(0, 88), Makes::Thread);
        let stack = [vfork as u64, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        let at = stack.as_ptr().expose_provenance();
        assert_eq!(made_by_row(at, 88), Makes::Sharer);
    }
}
