//! The provider: a SAN service provider behind the dispatch table of Windows Sockets Direct.
//!
//! The layers, from the C boundary down; each imports only what stands below it (docs/architecture.md):
//!
//! * `exports`: every symbol of the shared library.
//! * [`abi`]: what C sees; types and constants, no logic.
//! * `spi`: the table's functions: pointers in, engine calls, error codes out.
//! * `engine`: sockets, listeners, operations, registrations, progress; Rust names only.
//! * `fabric`: what carries the bytes: `soft` (shared memory on one host), later verbs.
#![deny(unsafe_code)]

// The published names break Rust's habits on purpose.
#[allow(non_camel_case_types, non_snake_case, clippy::upper_case_acronyms)]
pub mod abi;
mod engine;
mod exports;
mod fabric;
mod spi;

pub use exports::{
    WSAID_ARMCOMPLETION, WSAID_DEREGISTERMEMORY, WSAID_DEREGISTERRDMAMEMORY, WSAID_MAKEPROGRESS,
    WSAID_MEMORYREGISTRATIONCACHECALLBACK, WSAID_RDMAREAD, WSAID_RDMAWRITE, WSAID_REGISTERMEMORY,
    WSAID_REGISTERRDMAMEMORY, WSAID_TAKEPROGRESS, WSPStartupEx,
};

/// Single layers, measured by themselves. Not part of the interface.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod bench_ring {
    pub use crate::fabric::soft::bench::{Layer, alone, ping_pong, read, stream};
}
