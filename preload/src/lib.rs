//! Unmodified programs over the switch: a library to be preloaded into them.
//!
//! It stands in front of libc's calls on sockets. A call on anything but a TCP connection goes on to
//! libc after a look at the table; a call on a connection asks its companion (`wsd_switch::companion`)
//! who carries it now. The program's descriptor is the kernel's socket for life; what the SAN cannot
//! do exactly is done by going back to the kernel. req: LATER-06
//!
//! * `real`, `raw`: what is behind us: libc's functions, the kernel without libc.
//! * `table`: descriptor numbers and the connections they stand for; `file`: questions about numbers.
//! * `guard`, `hidden`: our own code's calls of libc, told apart from the program's.
//! * `environment`: what programs that are started need of it.
//! * `calls`: the interposed functions, by what they are about; `sets`: what waiting needs besides.
//! * `many`: waiting for many descriptors by number; `clock`: how long yet.
//! * `log`: the log, and the border that no panic crosses.
//!
//! Rules: a program that never meets a peer of ours sees no difference; no lock is held while a
//! thread waits; errno changes only where libc's function would change it; nothing that waits is
//! caught, for a thread may be cancelled in it: cancelling unwinds through our frames, and what they
//! hold is given back by their destructors.

mod calls;
mod clock;
mod environment;
mod file;
mod guard;
mod hidden;
mod log;
mod many;
mod raw;
mod real;
mod sets;
mod table;

/// Defines functions that programs call in place of libc's.
///
/// They are not exported where the library's own tests are built: the test program goes on with
/// libc's.
macro_rules! export {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $answer:ty)? $body:block
    )*) => { $(
        $(#[$attribute])*
        ///
        /// # Safety
        /// As for libc's function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[cfg_attr(test, allow(dead_code))]
        pub(crate) unsafe extern "C-unwind" fn $name($($argument: $type),*) $(-> $answer)? $body
    )* };
}
pub(crate) use export;

/// Makes the library ready; done by the loader, or by the first connection if that is earlier.
pub(crate) fn prepare() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        real::find_all();
        environment::remember();
        calls::jump::find_key();
        calls::process::watch_forks();
        calls::give_kernel();
    });
}

#[cfg(not(test))]
mod loaded {
    extern "C" fn begin() {
        super::prepare();
    }

    extern "C" fn end() {
        super::calls::life::last_words();
    }

    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGIN: extern "C" fn() = begin;

    #[used]
    #[unsafe(link_section = ".fini_array")]
    static END: extern "C" fn() = end;
}
