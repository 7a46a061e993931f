//! The session protocol of the switch, without I/O.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
