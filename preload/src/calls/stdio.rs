//! Streams of libc's stdio on connections.
//!
//! libc reads, writes and closes what is behind a stream without calling any function that we stand
//! in front of. Owns: that a connection is the kernel's alone from the moment libc gets it, and that
//! what libc closes is forgotten here.

use core::ffi::{c_char, c_int, c_void};
use std::os::fd::RawFd;

use libc::FILE;
use wsd_switch::companion::Reason;

use super::life;
use super::process::hand_over_number;
use crate::raw::keeping_errno;
use crate::{export, real, table};

/// A connection has got a number on purpose. Standard streams are on 0, 1 and 2: what is put there
/// is read and written by libc, or by the next program.
pub(super) fn standard_number(fd: RawFd) {
    if (0..=2).contains(&fd) {
        hand_over_number(fd, Reason::Stdio);
    }
}

/// Puts what has been received already, and is not read yet, where the stream begins to read.
///
/// # Safety
/// The stream was opened on this connection just now, for reading only.
unsafe fn push_back(stream: *mut FILE, fd: RawFd) {
    let Some(held) = table::get(fd) else {
        return;
    };
    let mut unread = Vec::new();
    let mut room = [0_u8; 4096];
    // From here on the kernel's socket is the whole truth only when this is done.
    while !held.on_kernel() {
        let buffers = [libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: room.len(),
        }];
        // SAFETY: memory of this frame.
        match unsafe { held.receive(fd, &buffers, libc::MSG_DONTWAIT) } {
            Ok(count @ 1..) => unread.extend_from_slice(room.get(..count).unwrap_or_default()),
            _ => break,
        }
    }
    for byte in unread.iter().rev() {
        // SAFETY: the caller's promise; libc makes room for any number of bytes.
        unsafe { ungetc(c_int::from(*byte), stream) };
    }
}

unsafe extern "C" {
    fn ungetc(byte: c_int, stream: *mut FILE) -> c_int;
}

/// Whether a mode of fdopen is for reading only.
///
/// # Safety
/// A string that ends in NUL.
unsafe fn reads_only(mode: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let mode = unsafe { core::ffi::CStr::from_ptr(mode) }.to_bytes();
    mode.starts_with(b"r") && !mode.contains(&b'+')
}

/// The number behind a stream is about to be closed by libc, or to lead elsewhere.
///
/// # Safety
/// The stream is null or one of libc's that is not closed.
unsafe fn forget(stream: *mut FILE) {
    if stream.is_null() {
        return;
    }
    keeping_errno(|| {
        // SAFETY: the caller's promise; a stream without a descriptor answers -1.
        let fd = unsafe { libc::fileno(stream) };
        if fd >= 0 && table::mark(fd) != table::Mark::None {
            life::ended(table::take(fd), fd);
        }
    });
}

export! {
    /// Gives the connection to the kernel.
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
        hand_over_number(fd, Reason::Stdio);
        // SAFETY: the program's own call.
        let stream = unsafe { real::fdopen(fd, mode) };
        if table::mark(fd) == table::Mark::Connection
            && !stream.is_null()
            // SAFETY: libc has just taken it.
            && unsafe { reads_only(mode) }
        {
            // SAFETY: made by the call above.
            keeping_errno(|| unsafe { push_back(stream, fd) });
        }
        stream
    }

    /// Ends the connection as close() does.
    fn fclose(stream: *mut FILE) -> c_int {
        // SAFETY: the program's own stream.
        unsafe { forget(stream) };
        // SAFETY: the program's own call.
        unsafe { real::fclose(stream) }
    }

    /// Ends the connection as close() does.
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
        // SAFETY: the program's own stream.
        unsafe { forget(stream) };
        // SAFETY: the program's own call.
        unsafe { real::freopen(path, mode, stream) }
    }

    /// Ends the connection as close() does.
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
        // SAFETY: the program's own stream.
        unsafe { forget(stream) };
        // SAFETY: the program's own call.
        unsafe { real::freopen64(path, mode, stream) }
    }
}

/// Gives the connection to the kernel, and says where libc's function is.
macro_rules! printed {
    ($($hook:ident => $real:ident;)*) => { $(
        extern "C-unwind" fn $hook(fd: c_int) -> *mut c_void {
            hand_over_number(fd, Reason::Stdio);
            real::address::$real()
        }
    )* };
}

printed! {
    dprintf_hook => dprintf;
    dprintf_chk_hook => __dprintf_chk;
    vdprintf_hook => vdprintf;
    vdprintf_chk_hook => __vdprintf_chk;
}

/// Defines a function that takes any arguments after a descriptor: it calls a hook with the
/// descriptor, puts all registers back, and goes on to the function whose address the hook gave.
macro_rules! passing {
    ($($name:ident => $hook:ident;)*) => { $(
        /// Gives the connection to the kernel.
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
                "sub rsp, 184",
                ".cfi_adjust_cfa_offset 184",
                "mov [rsp], rdi",
                "mov [rsp + 8], rsi",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], rcx",
                "mov [rsp + 32], r8",
                "mov [rsp + 40], r9",
                "mov [rsp + 48], rax",
                "movups [rsp + 56], xmm0",
                "movups [rsp + 72], xmm1",
                "movups [rsp + 88], xmm2",
                "movups [rsp + 104], xmm3",
                "movups [rsp + 120], xmm4",
                "movups [rsp + 136], xmm5",
                "movups [rsp + 152], xmm6",
                "movups [rsp + 168], xmm7",
                "call {hook}",
                "mov r11, rax",
                "mov rdi, [rsp]",
                "mov rsi, [rsp + 8]",
                "mov rdx, [rsp + 16]",
                "mov rcx, [rsp + 24]",
                "mov r8, [rsp + 32]",
                "mov r9, [rsp + 40]",
                "mov rax, [rsp + 48]",
                "movups xmm0, [rsp + 56]",
                "movups xmm1, [rsp + 72]",
                "movups xmm2, [rsp + 88]",
                "movups xmm3, [rsp + 104]",
                "movups xmm4, [rsp + 120]",
                "movups xmm5, [rsp + 136]",
                "movups xmm6, [rsp + 152]",
                "movups xmm7, [rsp + 168]",
                "add rsp, 184",
                ".cfi_adjust_cfa_offset -184",
                "jmp r11",
                ".cfi_endproc",
                hook = sym $hook,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, -208]!",
                ".cfi_def_cfa_offset 208",
                ".cfi_offset 29, -208",
                ".cfi_offset 30, -200",
                "stp x0, x1, [sp, 16]",
                "stp x2, x3, [sp, 32]",
                "stp x4, x5, [sp, 48]",
                "stp x6, x7, [sp, 64]",
                "stp q0, q1, [sp, 80]",
                "stp q2, q3, [sp, 112]",
                "stp q4, q5, [sp, 144]",
                "stp q6, q7, [sp, 176]",
                "bl {hook}",
                "mov x16, x0",
                "ldp x0, x1, [sp, 16]",
                "ldp x2, x3, [sp, 32]",
                "ldp x4, x5, [sp, 48]",
                "ldp x6, x7, [sp, 64]",
                "ldp q0, q1, [sp, 80]",
                "ldp q2, q3, [sp, 112]",
                "ldp q4, q5, [sp, 144]",
                "ldp q6, q7, [sp, 176]",
                "ldp x29, x30, [sp], 208",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore 29",
                ".cfi_restore 30",
                "br x16",
                ".cfi_endproc",
                hook = sym $hook,
            );
        }
    )* };
}

passing! {
    dprintf => dprintf_hook;
    __dprintf_chk => dprintf_chk_hook;
    vdprintf => vdprintf_hook;
    __vdprintf_chk => vdprintf_chk_hook;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    #[test]
    fn arguments_of_all_kinds_pass_through_unchanged() {
        type Dprintf = unsafe extern "C" fn(c_int, *const c_char, ...) -> c_int;
        // SAFETY: the function takes what libc's of its name takes.
        let print: Dprintf = unsafe { core::mem::transmute(dprintf as unsafe extern "C" fn()) };
        let (mut from, to) = std::io::pipe().unwrap();
        // SAFETY: the arguments are what the format says.
        let written = unsafe {
            print(
                to.as_raw_fd(),
                c"%d %s %ld %d %d %d %.1f %.2f %.0f %d".as_ptr(),
                1_i32,
                c"two".as_ptr(),
                3_i64,
                4_i32,
                5_i32,
                6_i32,
                7.5_f64,
                8.25_f64,
                9.0_f64,
                10_i32,
            )
        };
        drop(to);
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1 two 3 4 5 6 7.5 8.25 9 10");
        assert_eq!(usize::try_from(written), Ok(text.len()));
    }
}
