//! Stream sockets over any Windows Sockets Direct provider table, with TCP beside it.
#![deny(unsafe_code)]
#![allow(dead_code)]

mod address;
mod error;
#[allow(unsafe_code)]
mod lent;
mod provider;
mod reason;
mod route;
mod socket;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod table;
#[allow(unsafe_code)]
mod upcalls;

pub use error::WsaError;
pub use provider::{Capabilities, Source};
pub use reason::{Reason, Transport};
pub use table::EntryPoint;
