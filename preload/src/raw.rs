//! System calls without libc, and errno.
//!
//! Owns what must work before libc's functions are known and while they are being looked up. The
//! invariant: nothing here calls a function that this library exports.

use libc::{c_int, c_long};

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: always answers.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: libc gives every thread a valid place for its errno.
    unsafe { *place }
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(code: c_int) {
    // SAFETY: always answers.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: libc gives every thread a valid place for its errno.
    unsafe { *place = code };
}

/// Runs `work` and puts errno back to what it was.
pub(crate) fn keeping_errno<T>(work: impl FnOnce() -> T) -> T {
    let before = errno();
    let outcome = work();
    set_errno(before);
    outcome
}

/// Sets errno and gives -1: the answer of most calls that fail.
pub(crate) fn fail<T: From<i8>>(code: c_int) -> T {
    set_errno(code);
    T::from(-1)
}

/// An argument of a system call as the register that it travels in.
pub(crate) trait Register {
    fn register(self) -> usize;
}

impl<T> Register for *const T {
    fn register(self) -> usize {
        self.addr()
    }
}
impl<T> Register for *mut T {
    fn register(self) -> usize {
        self.addr()
    }
}
macro_rules! registers {
    ($($integer:ty)*) => { $(
        impl Register for $integer {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn register(self) -> usize {
                self as usize
            }
        }
    )* };
}
registers!(i32 u32 i64 u64 usize isize);

/// Makes a system call and turns its answer into libc's: -1 and errno, or the value.
///
/// # Safety
/// As for the system call.
pub(crate) unsafe fn call_kernel(number: c_long, arguments: [usize; 6]) -> isize {
    // SAFETY: the caller's promise.
    let answer = unsafe { direct_plain(number, arguments) };
    if (-4095..0).contains(&answer) {
        set_errno(c_int::try_from(-answer).unwrap_or(libc::EIO));
        return -1;
    }
    answer
}

#[cfg(target_arch = "x86_64")]
#[allow(
    clippy::cast_possible_truncation,
    reason = "both are 64 bits wide here"
)]
unsafe fn direct_plain(number: c_long, a: [usize; 6]) -> isize {
    let [a0, a1, a2, a3, a4, a5] = a;
    let answer: isize;
    // SAFETY: the registers are those of the kernel's convention; the effects are the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a0,
            in("rsi") a1,
            in("rdx") a2,
            in("r10") a3,
            in("r8") a4,
            in("r9") a5,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn direct_plain(number: c_long, a: [usize; 6]) -> isize {
    let [a0, a1, a2, a3, a4, a5] = a;
    let answer: isize;
    // SAFETY: the registers are those of the kernel's convention; the effects are the caller's promise.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a0 as isize => answer,
            in("x1") a1,
            in("x2") a2,
            in("x3") a3,
            in("x4") a4,
            in("x5") a5,
            options(nostack),
        );
    }
    answer
}

/// The system call as an expression: `direct!(libc::SYS_read, fd, buffer, length)`.
macro_rules! direct {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let mut registers = [0_usize; 6];
        let mut places = registers.iter_mut();
        $(
            if let Some(place) = places.next() {
                *place = $crate::raw::Register::register($argument);
            }
        )*
        let _ = places;
        // SAFETY: the arguments are those of the libc call that this one stands in for.
        unsafe { $crate::raw::call_kernel($number, registers) }
    }};
}
pub(crate) use direct;
