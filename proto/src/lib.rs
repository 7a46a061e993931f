//! The session protocol of the switch, without I/O.
//!
//! This crate decides; it does not act. It holds no socket, no clock, no thread and none of the
//! application's bytes. A driver tells it what happened and what the application wants, and then
//! asks what to do:
//!
//! * `handle_*`: what arrived (a message, the end of an operation, a time-out);
//! * verbs (`send`, `consumed`, `shutdown_send`, …): what the application wants;
//! * [`Session::poll_action`]: what to do now; [`Session::poll_timeout`]: when to come back.
//!
//! The single rule: one mutation, then drain `poll_action` until it returns `None`, executing the
//! actions in order. Memory is named by identifiers; the driver moves the bytes.
//!
//! The wire format and every rule are published in `docs/session-protocol.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;

pub use session::*;
pub use time::Instant;
