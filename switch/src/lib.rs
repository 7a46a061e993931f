//! Stream sockets over any Windows Sockets Direct provider table, with TCP beside it.
#![deny(unsafe_code)]
#![allow(dead_code)]

mod address;
mod connect;
mod error;
#[allow(unsafe_code)]
mod lent;
mod load;
mod provider;
mod reason;
mod reception;
mod route;
mod socket;
mod switch;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod table;
mod tcp;
#[allow(unsafe_code)]
mod upcalls;

pub use error::WsaError;
pub use provider::{Capabilities, Source};
pub use reason::{Reason, Transport};
pub use switch::{ProviderInfo, Switch, SwitchInfo};
pub use table::{EntryPoint, StartupEx};
