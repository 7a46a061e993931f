//! Whether the calling thread is in our own code.
//!
//! The library, the switch and the provider call libc as any code does, and those calls land in the
//! functions that we export. Most need no distinction, for what is not in the table goes straight to
//! libc. Two things do: descriptors that our code makes are put out of the program's way, and only
//! our code may close them. That is all this flag is asked for; calls on connections never look at
//! it, for a handler of a signal may run while it is set. A `longjmp` out of such a handler that we do
//! not see leaves it set, with the place on the stack that was jumped out of: above that place it does
//! not hold.
//!
//! In our code a thread cannot be cancelled, but in the waits of a call that is a point of
//! cancellation: what our code does on the way is none of the program's, and may not be left halfway.
//!
//! The flag lives in initial-exec thread-local storage without a destructor: reading it calls
//! nothing and allocates nothing, at any time in a thread's life.

use core::ffi::c_int;
use std::cell::Cell;
use std::sync::atomic::{Ordering, compiler_fence};

use wsd_switch::companion::Jump;

/// What we keep for each thread. All zero at first.
#[repr(C)]
struct ThreadState {
    /// Where the stack was when our code was entered; 0 outside, `usize::MAX` on our own threads.
    inside: Cell<usize>,
    /// Whether the thread looks up a symbol.
    resolving: Cell<usize>,
    /// Whether a fork is under way whose companions have been told.
    forking: Cell<usize>,
    /// Whether it could be cancelled before, as pthread_setcancelstate() has it.
    cancel: Cell<c_int>,
    /// Whether the call that entered is a point of cancellation.
    is_point: Cell<c_int>,
    /// What the thread holds, the first of it by name; see [`hold`].
    holds: Cell<usize>,
    /// There was more at a time than there are names.
    unnamed: Cell<usize>,
    held: [Cell<Hold>; NAMES],
}

impl ThreadState {
    /// Out of our code. A handler of a signal that enters on the way keeps what it finds in `cancel`, too.
    fn leave(&self) {
        let before = self.cancel.get();
        compiler_fence(Ordering::SeqCst);
        self.inside.set(0);
        set_cancel_state(before);
    }

    /// One that it holds less: this one, if it is known by name.
    fn forget(&self, own: Option<usize>) {
        let left = self.holds.get().saturating_sub(1);
        if let Some(own) = own.and_then(|at| self.held.get(at)) {
            own.set((0, NOWHERE));
        }
        if let Some(last) = self.held.get(left) {
            // Those that are known stand in front; what had no name has left a place, too.
            let free = self.held.iter().take(left).find(|place| place.get().0 == 0);
            if let Some(free) = free {
                free.set(last.get());
            }
            last.set((0, NOWHERE));
        }
        self.holds.set(left);
        if left == 0 {
            self.unnamed.set(0);
        }
    }
}

/// By what name, and where the stack was.
type Hold = (usize, usize);
/// Where no stack is, and no jump goes past: whether it is held is not certain.
const NOWHERE: usize = 0;

/// So many things that a thread holds are known by name.
const NAMES: usize = 10;

core::arch::global_asm!(
    ".pushsection .tbss.wsd_thread,\"awT\",@nobits",
    ".p2align 3",
    ".globl wsd_thread",
    ".hidden wsd_thread",
    ".type wsd_thread,@object",
    ".size wsd_thread,208",
    "wsd_thread:",
    ".zero 208",
    ".popsection",
);

/// This thread's state.
fn state() -> *const ThreadState {
    let at: *const ThreadState;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and a slot of the offset table that the loader has filled in.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + wsd_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) at,
            options(pure, readonly, nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads the thread pointer and a slot of the offset table that the loader has filled in.
    unsafe {
        core::arch::asm!(
            "mrs {0}, tpidr_el0",
            "adrp {1}, :gottprel:wsd_thread",
            "ldr {1}, [{1}, :gottprel_lo12:wsd_thread]",
            "add {0}, {0}, {1}",
            out(reg) at,
            out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    at
}

const _: () = assert!(size_of::<ThreadState>() == 208);

fn with<T>(work: impl FnOnce(&ThreadState) -> T) -> T {
    // SAFETY: the block is this thread's, zeroed bytes of this size are ours for the thread's life,
    // and no reference to it leaves this function.
    work(unsafe { &*state() })
}

/// Where the stack of the calling function is.
#[inline(always)]
fn stack() -> usize {
    let at: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {0}, rsp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {0}, sp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    at
}

/// While it lives, the thread is in our code.
pub(crate) struct Inside {
    /// Whether the thread was outside before.
    outermost: bool,
}

/// Enters our code.
#[inline(always)]
pub(crate) fn enter() -> Inside {
    enter_at(stack(), 0)
}

/// Enters our code by a call that is a point of cancellation: in [`waiting`] it may be cancelled.
#[inline(always)]
pub(crate) fn enter_to_wait() -> Inside {
    enter_at(stack(), 1)
}

fn enter_at(here: usize, is_point: c_int) -> Inside {
    with(|s| {
        let entered = s.inside.get();
        // A frame above the one that entered: that one was jumped out of.
        let outermost = entered == 0 || here > entered && entered != usize::MAX;
        if outermost {
            let before = set_cancel_state(CANCEL_DISABLE);
            if entered == 0 {
                s.cancel.set(before);
            }
            s.is_point.set(is_point);
            s.inside.set(here);
        }
        Inside { outermost }
    })
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.outermost {
            with(ThreadState::leave);
        }
    }
}

/// As libc has them.
const CANCEL_ENABLE: c_int = 0;
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// The point of cancellation as such, which unwinds.
mod unwinding {
    unsafe extern "C-unwind" {
        pub(super) fn pthread_testcancel();
    }
}

/// What it was before.
fn set_cancel_state(state: c_int) -> c_int {
    let mut before = CANCEL_ENABLE;
    // SAFETY: the place is live.
    unsafe { pthread_setcancelstate(state, &raw mut before) };
    before
}

/// Makes a wait of a call that is a point of cancellation: one with our code around it, or the
/// program's own.
#[inline]
pub(crate) fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    let open = with(|s| {
        let inside = s.inside.get();
        let entered = inside != 0 && inside != usize::MAX && s.is_point.get() != 0;
        entered && s.cancel.get() == CANCEL_ENABLE
    });
    if !open {
        return wait();
    }
    set_cancel_state(CANCEL_ENABLE);
    // A thread that is cancelled in it does not come back here.
    let outcome = wait();
    set_cancel_state(CANCEL_DISABLE);
    outcome
}

/// While it lives, the thread, which is in our code, cannot be cancelled in a wait either. A jump out of
/// our code ends that, too.
pub(crate) struct Uncancelled {
    before: c_int,
}

pub(crate) fn uncancelled() -> Uncancelled {
    Uncancelled {
        before: set_cancel_state(CANCEL_DISABLE),
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        set_cancel_state(self.before);
    }
}

/// Ends the thread here if it is to be cancelled, and may be.
#[inline]
pub(crate) fn point() {
    // SAFETY: takes nothing; what unwinds from here are frames that may be unwound.
    unsafe { unwinding::pthread_testcancel() };
}

/// Whether the thread is in our code, or is ours.
pub(crate) fn inside() -> bool {
    let here = stack();
    with(|s| s.inside.get() != 0 && here <= s.inside.get())
}

/// Whether the thread is one that our code started.
pub(crate) fn our_thread() -> bool {
    with(|s| s.inside.get() == usize::MAX)
}

/// From now on the calling thread is ours: one of the switch or of the provider.
pub(crate) fn become_ours() {
    with(|s| s.inside.set(usize::MAX));
}

/// After a fork the only thread of the child is the program's, wherever it was.
pub(crate) fn reset() {
    with(|s| {
        s.inside.set(0);
        s.resolving.set(0);
        s.forking.set(0);
    });
}

/// Whether the thread forks by a function of ours.
pub(crate) fn forking() -> bool {
    with(|s| s.forking.get() != 0)
}

/// The thread begins or ends to fork by a function of ours.
pub(crate) fn set_forking(on: bool) {
    with(|s| s.forking.set(usize::from(on)));
}

/// By what a thread knows one thing of several that it holds with the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own(usize);

/// Takes hold of something with this name: after a fork the child asks for it by [`holds_of`].
#[inline]
pub(crate) fn hold(name: usize, take: impl FnOnce()) -> Own {
    hold_at(name, stack(), take)
}

#[inline]
fn hold_at(name: usize, here: usize, take: impl FnOnce()) -> Own {
    with(|s| {
        let at = s.holds.get();
        // First, so that a handler of a signal names its own behind it.
        s.holds.set(at + 1);
        let place = s.held.get(at);
        match place {
            Some(place) => place.set((name, NOWHERE)),
            None => s.unnamed.set(1),
        }
        take();
        if let Some(place) = place {
            place.set((name, here));
        }
        Own(place.map_or(NOWHERE, |_| here))
    })
}

/// Gives back what has this name, if a jump has not done so: calls that were jumped out of may be jumped
/// back into.
#[inline]
pub(crate) fn let_go(name: usize, own: Own, give_back: impl FnOnce()) {
    with(|s| {
        let mut known = s.held.iter().take(s.holds.get());
        let at = match own {
            Own(NOWHERE) => None,
            Own(here) => {
                let Some(at) = known.rposition(|place| place.get() == (name, here)) else {
                    return;
                };
                Some(at)
            }
        };
        if let Some(place) = at.and_then(|at| s.held.get(at)) {
            place.set((name, NOWHERE));
        }
        give_back();
        s.forget(at);
    });
}

/// How often the thread holds what has this name; `None` if it is not known.
pub(crate) fn holds_of(name: usize) -> Option<usize> {
    with(|s| {
        let held = s.held.iter().take(s.holds.get());
        (s.unnamed.get() == 0).then(|| held.filter(|place| place.get().0 == name).count())
    })
}

/// The thread is about to jump: it is in our code no more if it leaves that, and `give_back` is told
/// what it held there, as far as there are names.
pub(crate) fn jump(jump: Jump, mut give_back: impl FnMut(usize)) {
    with(|s| {
        for at in (0..s.holds.get().min(NAMES)).rev() {
            let (name, then) = s.held.get(at).map_or((0, NOWHERE), Cell::get);
            if jump.leaves(then) {
                give_back(name);
                s.forget(Some(at));
            }
        }
        let entered = s.inside.get();
        if entered != 0 && entered != usize::MAX && jump.leaves(entered) {
            s.leave();
        }
    });
}

/// Runs `work` unless the thread is in such work already.
pub(crate) fn resolving<T>(work: impl FnOnce() -> T) -> Option<T> {
    if with(|s| s.resolving.replace(1)) != 0 {
        return None;
    }
    let outcome = work();
    with(|s| s.resolving.set(0));
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_of_the_thread_and_nests() {
        assert!(!inside());
        let outer = enter();
        let inner = enter();
        drop(inner);
        assert!(inside());
        std::thread::spawn(|| {
            assert!(!inside());
            become_ours();
            drop(enter());
            assert!(our_thread());
        })
        .join()
        .unwrap();
        assert!(!our_thread());
        drop(outer);
        assert!(!inside());
    }

    #[test]
    fn what_was_jumped_out_of_is_not_entered_any_more() {
        #[inline(never)]
        fn deeper() -> usize {
            let room = [0_u8; 4096];
            std::hint::black_box(&room);
            let _left = std::mem::ManuallyDrop::new(enter());
            assert!(inside());
            room.len()
        }
        assert_eq!(deeper(), 4096);
        assert!(!inside());
        drop(enter());
        assert!(!inside());
    }

    #[test]
    fn what_a_thread_holds_is_known_by_name_until_it_is_too_much() {
        let name = |n: usize| 1000 + n;
        let take = |n| (name(n), hold(name(n), || ()));
        let give = |(name, own)| let_go(name, own, || ());
        let own = [take(1), take(2), take(1)];
        assert_eq!(holds_of(name(1)), Some(2));
        give(own[1]);
        assert_eq!((holds_of(name(1)), holds_of(name(2))), (Some(2), Some(0)));
        std::thread::spawn(move || assert_eq!(holds_of(name(1)), Some(0)))
            .join()
            .unwrap();
        let many: Vec<_> = (0..NAMES).map(take).collect();
        assert_eq!(holds_of(name(1)), None);
        many.into_iter().for_each(give);
        assert_eq!(holds_of(name(1)), None, "which ones are left is not known");
        give(own[0]);
        give(own[2]);
        assert_eq!(holds_of(name(1)), Some(0));
    }

    #[test]
    fn each_of_too_many_is_given_back_once_in_any_order() {
        for turn in 0..NAMES + 3 {
            let (given, name) = (Cell::new(0), |n: usize| 3000 + n % 4);
            let take = |n| (name(n), hold_at(name(n), (1 << 40) - n, || ()));
            let mut all: Vec<_> = (0..NAMES + 3).map(take).collect();
            all.rotate_left(turn);
            for (name, own) in all {
                let_go(name, own, || given.set(given.get() + 1));
            }
            assert_eq!(given.get(), NAMES + 3);
            assert!((0..4).all(|n| holds_of(name(n)) == Some(0)));
        }
    }

    #[test]
    fn what_a_jump_gave_back_is_not_given_back_by_a_call_that_comes_back() {
        let (top, name, given) = (1 << 40, 4000, Cell::new(0));
        let give = || given.set(given.get() + 1);
        let outer = hold_at(name, top, || ());
        let left = hold_at(name, top - 3000, || ());
        jump(Jump::new(top - 9000, top - 1000), |_| give());
        assert_eq!((given.get(), holds_of(name)), (1, Some(1)));
        let_go(name, left, give);
        assert_eq!((given.get(), holds_of(name)), (1, Some(1)));
        let_go(name, outer, give);
        assert_eq!((given.get(), holds_of(name)), (2, Some(0)));
    }

    #[test]
    fn a_jump_ends_what_lies_below_its_goal() {
        let (top, name) = (1 << 40, |n: usize| 2000 + n);
        std::thread::spawn(move || {
            hold_at(name(1), top, || ());
            hold_at(name(2), top - 2000, || ());
            hold_at(name(1), top - 3000, || ());
            let mut given = Vec::new();
            jump(Jump::new(top - 9000, top - 1000), |name| given.push(name));
            assert_eq!(given, [name(1), name(2)]);
            assert_eq!((holds_of(name(1)), holds_of(name(2))), (Some(1), Some(0)));

            let here = stack();
            set_cancel_state(CANCEL_ENABLE);
            let _left = std::mem::ManuallyDrop::new(enter_at(here, 0));
            jump(Jump::new(here - 100, here), |_| ());
            assert!(inside(), "the jump ends below");
            jump(Jump::new(here - 100, here + 100), |_| ());
            assert!(!inside());
            assert_eq!(set_cancel_state(CANCEL_ENABLE), CANCEL_ENABLE);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn looking_up_does_not_nest() {
        let nested = resolving(|| resolving(|| ()).is_some());
        assert_eq!(nested, Some(false));
        assert_eq!(resolving(|| 5), Some(5));
    }
}
