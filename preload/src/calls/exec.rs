//! Other programs in this process's place.
//!
//! Owns: which connections the next program gets from the kernel, and that it has the library in its
//! environment. An exec ends all that is in memory, so what the SAN carries here goes back to the
//! kernel before; a connection that is only held here without use is left as it is, unless it has
//! one of the numbers by which programs expect connections. Invariant: no function of libc's that
//! allocates is called on the way.

use core::ffi::{c_char, c_int};
use std::os::fd::RawFd;

use wsd_switch::companion::{Path, Reason, rules};

use super::process::hand_over_those;
use crate::environment::{self, Environment, Pages, Strings};
use crate::raw::{fail, keeping_errno};
use crate::{export, real, table};

/// Whether a descriptor closes at an exec.
pub(super) fn closes(fd: RawFd) -> bool {
    // SAFETY: takes no pointer.
    let flags = keeping_errno(|| unsafe { real::fcntl(fd, libc::F_GETFD, 0) });
    flags < 0 || flags & libc::FD_CLOEXEC != 0
}

/// Prepares for another program in this one's place.
///
/// # Safety
/// As for execve's environment.
unsafe fn prepared(environment: Strings) -> Environment {
    if table::was_used() {
        // SAFETY: the caller's promise.
        let handed_on = unsafe { environment::handed_on(environment) };
        let named = 0..3_i32.saturating_add(handed_on);
        let all = rules::active().hands_on();
        // A connection that this process has from its parent is never on the SAN here.
        hand_over_those(Reason::Exec, |fd, held| {
            let goes = held.path() != Path::Tcp || (all || named.contains(&fd)) && !closes(fd);
            if !goes {
                held.forsake();
            }
            goes
        });
    }
    // SAFETY: the caller's promise.
    unsafe { environment::completed(environment) }
}

/// No other program has come.
fn stayed(answer: c_int) -> c_int {
    keeping_errno(|| {
        hand_over_those(Reason::Exec, |_, held| {
            held.reclaim();
            false
        })
    });
    answer
}

/// execve with all that ours does.
unsafe fn replace(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: the program's own arguments.
    let environment = unsafe { prepared(environment) };
    // SAFETY: as above.
    stayed(unsafe { real::execve(path, arguments, environment.strings()) })
}

/// execvpe with all that ours does.
unsafe fn replace_by_name(file: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: the program's own arguments.
    let environment = unsafe { prepared(environment) };
    // SAFETY: as above.
    stayed(unsafe { real::execvpe(file, arguments, environment.strings()) })
}

export! {
    /// With what connections and the library need.
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { replace(path, arguments, environment) }
    }

    /// As execve.
    fn execv(path: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { replace(path, arguments, environment::current()) }
    }

    /// As execve.
    fn execvp(file: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { replace_by_name(file, arguments, environment::current()) }
    }

    /// As execve.
    fn execvpe(file: *const c_char, arguments: Strings, environment: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { replace_by_name(file, arguments, environment) }
    }

    /// As execve.
    fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        let environment = unsafe { prepared(environment) };
        // SAFETY: as above.
        stayed(unsafe { real::fexecve(fd, arguments, environment.strings()) })
    }

    /// As execve.
    fn execveat(
        folder: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int,
    ) -> c_int {
        // SAFETY: the program's own arguments.
        let environment = unsafe { prepared(environment) };
        // SAFETY: as above.
        stayed(unsafe {
            real::execveat(folder, path, arguments, environment.strings(), flags)
        })
    }
}

/// How many arguments after the first travel in registers.
#[cfg(target_arch = "x86_64")]
const IN_REGISTERS: usize = 5;
#[cfg(target_arch = "aarch64")]
const IN_REGISTERS: usize = 7;

/// Defines a function of a variable number of arguments: it puts those that came in registers in
/// a row, and calls another with the first argument, the row, and the place of those on the stack.
macro_rules! variadic {
    ($($(#[$attribute:meta])* $name:ident => $gathered:ident;)*) => { $(
        $(#[$attribute])*
        ///
        /// # Safety
        /// As for libc's function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[cfg_attr(test, allow(dead_code))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "sub rsp, 56",
                ".cfi_adjust_cfa_offset 56",
                "mov [rsp], rsi",
                "mov [rsp + 8], rdx",
                "mov [rsp + 16], rcx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "mov rsi, rsp",
                "lea rdx, [rsp + 64]",
                "call {gathered}",
                "add rsp, 56",
                ".cfi_adjust_cfa_offset -56",
                "ret",
                ".cfi_endproc",
                gathered = sym $gathered,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, -80]!",
                ".cfi_def_cfa_offset 80",
                ".cfi_offset 29, -80",
                ".cfi_offset 30, -72",
                "stp x1, x2, [sp, 16]",
                "stp x3, x4, [sp, 32]",
                "stp x5, x6, [sp, 48]",
                "str x7, [sp, 64]",
                "add x1, sp, 16",
                "add x2, sp, 80",
                "bl {gathered}",
                "ldp x29, x30, [sp], 80",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore 29",
                ".cfi_restore 30",
                "ret",
                ".cfi_endproc",
                gathered = sym $gathered,
            );
        }
    )* };
}

variadic! {
    /// As execve.
    execl => execl_gathered;
    /// As execve.
    execlp => execlp_gathered;
    /// As execve.
    execle => execle_gathered;
}

/// The arguments of a function of a variable number of them.
#[derive(Clone, Copy)]
struct Arguments {
    registers: Strings,
    stack: Strings,
}

impl Arguments {
    /// # Safety
    /// There are at least `index + 1` arguments.
    unsafe fn at(self, index: usize) -> *const c_char {
        match index.checked_sub(IN_REGISTERS) {
            // SAFETY: the row has the arguments in registers.
            None => unsafe { self.registers.wrapping_add(index).read() },
            // SAFETY: the caller's promise.
            Some(index) => unsafe { self.stack.wrapping_add(index).read() },
        }
    }

    /// How many stand before the null.
    ///
    /// # Safety
    /// A null ends them.
    unsafe fn count(self) -> usize {
        let mut count = 0;
        // SAFETY: no null so far, so one more is there.
        while !unsafe { self.at(count) }.is_null() {
            count += 1;
        }
        count
    }

    /// All in one row, ended by null.
    ///
    /// # Safety
    /// A null ends them.
    unsafe fn row(self) -> Option<Pages> {
        // SAFETY: the caller's promise.
        let count = unsafe { self.count() };
        let mut pages = Pages::new((count + 1) * size_of::<*const c_char>())?;
        for (index, place) in pages.pointers().iter_mut().take(count).enumerate() {
            // SAFETY: so many were counted.
            *place = unsafe { self.at(index) };
        }
        Some(pages)
    }
}

unsafe extern "C-unwind" fn execl_gathered(
    path: *const c_char,
    registers: Strings,
    stack: Strings,
) -> c_int {
    // SAFETY: the program ends its arguments by null.
    let Some(mut row) = (unsafe { Arguments { registers, stack }.row() }) else {
        return fail(libc::ENOMEM);
    };
    // SAFETY: the program's own arguments.
    unsafe { replace(path, row.pointers().as_ptr(), environment::current()) }
}

unsafe extern "C-unwind" fn execlp_gathered(
    file: *const c_char,
    registers: Strings,
    stack: Strings,
) -> c_int {
    // SAFETY: the program ends its arguments by null.
    let Some(mut row) = (unsafe { Arguments { registers, stack }.row() }) else {
        return fail(libc::ENOMEM);
    };
    // SAFETY: the program's own arguments.
    unsafe { replace_by_name(file, row.pointers().as_ptr(), environment::current()) }
}

unsafe extern "C-unwind" fn execle_gathered(
    path: *const c_char,
    registers: Strings,
    stack: Strings,
) -> c_int {
    let arguments = Arguments { registers, stack };
    // SAFETY: the program ends its arguments by null.
    let Some(mut row) = (unsafe { arguments.row() }) else {
        return fail(libc::ENOMEM);
    };
    // SAFETY: as above.
    let count = unsafe { arguments.count() };
    // SAFETY: behind the null stands the environment.
    let environment = unsafe { arguments.at(count + 1) }.cast();
    // SAFETY: the program's own arguments.
    unsafe { replace(path, row.pointers().as_ptr(), environment) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{CStr, CString};

    type Execl = unsafe extern "C" fn(*const c_char, *const c_char, ...) -> c_int;

    /// What a fork of this process writes when it becomes another program.
    fn output(become_program: impl FnOnce()) -> String {
        let (mut from, to) = std::io::pipe().unwrap();
        // SAFETY: the child only moves a descriptor and becomes another program, or ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            use std::os::fd::AsRawFd;
            // SAFETY: both are this child's.
            unsafe { libc::dup2(to.as_raw_fd(), 1) };
            become_program();
            // SAFETY: the exec has failed.
            unsafe { libc::_exit(99) };
        }
        drop(to);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut from, &mut text).unwrap();
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        text
    }

    #[test]
    fn arguments_in_registers_and_on_the_stack_arrive_in_order() {
        let names: Vec<CString> = (0..12)
            .map(|number| CString::new(format!("a{number}")).unwrap())
            .collect();
        let a: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let null = core::ptr::null::<c_char>();
        let f = c"%s ".as_ptr();
        // SAFETY: the function takes what libc's of its name takes.
        let call: Execl = unsafe { core::mem::transmute(execl as unsafe extern "C" fn()) };
        // SAFETY: strings, ended by null.
        let long = output(|| unsafe {
            call(
                c"/usr/bin/printf".as_ptr(),
                f,
                f,
                a[0],
                a[1],
                a[2],
                a[3],
                a[4],
                a[5],
                a[6],
                a[7],
                a[8],
                a[9],
                a[10],
                a[11],
                null,
            );
        });
        assert_eq!(long, "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 ");
        // SAFETY: as above.
        let by_name: Execl = unsafe { core::mem::transmute(execlp as unsafe extern "C" fn()) };
        // SAFETY: as above.
        let short = output(|| unsafe {
            by_name(c"printf".as_ptr(), f, f, a[0], null);
        });
        assert_eq!(short, "a0 ");
    }

    #[test]
    fn the_environment_stands_behind_the_null_wherever_that_is() {
        // SAFETY: the function takes what libc's of its name takes.
        let call: Execl = unsafe { core::mem::transmute(execle as unsafe extern "C" fn()) };
        let variables = [c"ONE=1".as_ptr(), core::ptr::null()];
        let null = core::ptr::null::<c_char>();
        let env: &CStr = c"/usr/bin/env";
        // SAFETY: strings, ended by null, and an environment.
        let near = output(|| unsafe {
            call(env.as_ptr(), env.as_ptr(), null, variables.as_ptr());
        });
        assert_eq!(near, "ONE=1\n");
        let set = c"A=b".as_ptr();
        // SAFETY: as above.
        let far = output(|| unsafe {
            call(
                env.as_ptr(),
                env.as_ptr(),
                set,
                set,
                set,
                set,
                set,
                set,
                null,
                variables.as_ptr(),
            );
        });
        assert_eq!(far, "ONE=1\nA=b\n");
    }
}
