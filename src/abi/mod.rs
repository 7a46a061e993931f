//! What C sees: the types, constants and function types of the SAN provider interface.
//!
//! Owns the names, widths and layouts that cross the C boundary. They are the published ones,
//! letter for letter and byte for byte (64-bit Windows), so that the names here break Rust's habits
//! on purpose. Holds no logic and imports nothing of ours. `layout` pins every size and offset;
//! what it pins may never change. The header `wsdirect.h` is generated from these files, in this
//! order, so their doc comments are written for C readers.

mod base;
mod codes;
mod extensions;
mod info;
mod layout;
mod table;
mod upcalls;

pub use base::*;
pub use codes::*;
pub use extensions::*;
pub use info::*;
pub use table::*;
pub use upcalls::*;
