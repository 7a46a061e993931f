//! Names the shared library.
//!
//! Which names it exports is not said here: a linker takes one anonymous version script, and rustc
//! brings it, made from the functions marked `no_mangle`. Those that are not to be seen are hidden
//! in `src/hidden.rs`, and `tests/symbols.rs` compares the outcome with `exports.txt`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libwsd_preload.so");
}
