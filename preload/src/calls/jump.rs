//! longjmp: a handler of a signal may end a call of ours by it, and the call does not come back.
//!
//! Owns finding out where a jump goes. The place on the stack is in the buffer that setjmp() has
//! filled, hidden by a key of the process; the key is what a buffer filled here has, where the place
//! is known. On a libc that does it in another way nothing is found out, and what was left is only
//! noticed later. A jump to a stack of the program's own making leaves nothing: threads of the
//! program's own change places so, and each may come back to its calls.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsd_switch::companion::Jump;

use crate::{export, guard, real, table};

/// The word of the buffer that is the place on the stack, and by how much it is rotated.
#[cfg(target_arch = "x86_64")]
const PLACE: (usize, u32) = (6, 17);
#[cfg(target_arch = "aarch64")]
const PLACE: (usize, u32) = (13, 0);

/// A buffer, larger than libc's.
type Buffer = [usize; 64];

// fn(buffer, setjmp) -> where the stack was at the call
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.wsd_filled,\"ax\",@progbits",
    ".globl wsd_filled",
    ".hidden wsd_filled",
    ".type wsd_filled,@function",
    "wsd_filled:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbx, 0",
    "mov rbx, rsp",
    "call rsi",
    "mov rax, rbx",
    "pop rbx",
    ".cfi_adjust_cfa_offset -8",
    "ret",
    ".cfi_endproc",
    ".size wsd_filled, . - wsd_filled",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.wsd_filled,\"ax\",@progbits",
    ".globl wsd_filled",
    ".hidden wsd_filled",
    ".type wsd_filled,@function",
    "wsd_filled:",
    "stp x29, x30, [sp, #-16]!",
    "blr x1",
    "mov x0, sp",
    "ldp x29, x30, [sp], #16",
    "ret",
    ".size wsd_filled, . - wsd_filled",
    ".popsection",
);

unsafe extern "C" {
    fn wsd_filled(buffer: *mut Buffer, setjmp: *mut c_void) -> usize;
}

/// What hides the places; none if this libc does not hide them so.
static KEY: AtomicUsize = AtomicUsize::new(0);

/// The key that a buffer filled just now shows.
#[inline(never)]
fn key_shown(setjmp: *mut c_void) -> usize {
    let mut buffer: Buffer = [0; 64];
    // SAFETY: it is setjmp() with a buffer that is large enough; nobody ever jumps there.
    let stack = unsafe { wsd_filled(&raw mut buffer, setjmp) };
    let (word, rotated) = PLACE;
    let hidden = buffer.get(word).copied().unwrap_or_default();
    hidden.rotate_right(rotated) ^ stack
}

/// Finds the key. Called once, when the library is loaded.
pub(crate) fn find_key() {
    #[inline(never)]
    fn deeper(setjmp: *mut c_void) -> usize {
        let room = [0_u8; 4096];
        core::hint::black_box(&room);
        key_shown(setjmp)
    }
    // SAFETY: the name ends with a NUL; RTLD_DEFAULT needs no handle.
    let setjmp = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_setjmp".as_ptr()) };
    if setjmp.is_null() {
        return;
    }
    let key = key_shown(setjmp);
    if deeper(setjmp) == key {
        KEY.store(key, Ordering::Relaxed);
    }
}

/// Where on the stack a jump to this buffer goes.
///
/// # Safety
/// setjmp() has filled it.
unsafe fn goal(buffer: *const c_void) -> Option<usize> {
    let key = KEY.load(Ordering::Relaxed);
    let (word, rotated) = PLACE;
    let hidden = buffer.cast::<usize>().wrapping_add(word);
    // SAFETY: the caller's promise.
    let hidden = unsafe { hidden.read() };
    (key != 0).then(|| hidden.rotate_right(rotated) ^ key)
}

/// Whether the thread is in a handler with a stack of its own, and a jump there leaves that stack.
fn out_of_a_handler(goal: usize) -> bool {
    let mut own = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: sets nothing, and fills the place.
    let told = unsafe { libc::sigaltstack(ptr::null(), own.as_mut_ptr()) };
    // SAFETY: all zeros are one, too.
    let own = unsafe { own.assume_init() };
    let room = own.ss_sp.addr()..=own.ss_sp.addr().saturating_add(own.ss_size);
    told == 0 && own.ss_flags & libc::SS_ONSTACK != 0 && !room.contains(&goal)
}

/// The jump from one place on the stack to another, if it leaves calls that will not go on.
fn leaving(from: usize, to: usize) -> Option<Jump> {
    let jump = Jump::new(from, to);
    (jump.goes_up() || out_of_a_handler(to)).then_some(jump)
}

/// Gives up what the thread has in the calls that it is about to leave.
#[inline(never)]
fn leave(buffer: *const c_void) {
    if !table::was_used() || buffer.is_null() || guard::our_thread() {
        return;
    }
    let here = 0_u8;
    // SAFETY: the program's buffer.
    if let Some(goal) = unsafe { goal(buffer) } {
        let Some(jump) = leaving(ptr::from_ref(&here).addr(), goal) else {
            return;
        };
        // SAFETY: the calls of a thread hold their companions, and give them up only below.
        unsafe { jump.tell() };
        table::jump(jump);
    }
}

export! {
    /// The program's.
    fn longjmp(buffer: *mut c_void, value: c_int) {
        leave(buffer);
        // SAFETY: the program's own call; there is nothing in this frame.
        unsafe { real::longjmp(buffer, value) };
    }

    /// The program's.
    fn _longjmp(buffer: *mut c_void, value: c_int) {
        leave(buffer);
        // SAFETY: the program's own call; there is nothing in this frame.
        unsafe { real::_longjmp(buffer, value) };
    }

    /// The program's.
    fn siglongjmp(buffer: *mut c_void, value: c_int) {
        leave(buffer);
        // SAFETY: the program's own call; there is nothing in this frame.
        unsafe { real::siglongjmp(buffer, value) };
    }

    /// The program's.
    #[allow(non_snake_case)]
    fn __longjmp_chk(buffer: *mut c_void, value: c_int) {
        leave(buffer);
        // SAFETY: the program's own call; there is nothing in this frame.
        unsafe { real::__longjmp_chk(buffer, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_to_another_stack_leaves_nothing_but_that_of_a_handler() {
        let (from, far) = (1 << 40, 1 << 30);
        assert!(leaving(from, from + 9000).is_some());
        for to in [from - 9000, from - far, from + far] {
            assert!(leaving(from, to).is_none());
        }
    }

    #[test]
    fn where_a_jump_goes_is_read_from_its_buffer() {
        find_key();
        // SAFETY: the name ends with a NUL; RTLD_DEFAULT needs no handle.
        let setjmp = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_setjmp".as_ptr()) };
        let mut buffer: Buffer = [0; 64];
        // SAFETY: setjmp() with a large buffer, to which nobody jumps.
        let stack = unsafe { wsd_filled(&raw mut buffer, setjmp) };
        // SAFETY: it was filled just now.
        let found = unsafe { goal(buffer.as_ptr().cast()) };
        assert_eq!(found, Some(stack));
    }
}
