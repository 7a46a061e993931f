//! Stream sockets over a SAN for C and C++: the functions of `include/wsd_switch.h`, which behave
//! like those of `sys/socket.h`.
//!
//! * `exports`: the symbols. Pointers in, calls of a socket, errno out; nothing unwinds into C.
//! * `table`: the numbers that stand for sockets.
//! * `socket`, `connecting`, `accepting`, `transfer`, `options`, `polling`: one socket from its making
//!   to its end, over `wsd_switch`.
//! * `types`: what the header defines besides functions. `address`, `sys`: the host's.
#![deny(unsafe_code)]

mod accepting;
mod address;
mod connecting;
#[allow(unsafe_code)]
mod exports;
mod options;
mod polling;
mod socket;
#[allow(unsafe_code)]
mod sys;
mod table;
mod transfer;
mod types;

pub use exports::*;
pub use types::*;
