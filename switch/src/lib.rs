//! Stream sockets over any Windows Sockets Direct provider table, with TCP beside it.
#![deny(unsafe_code)]
#![allow(dead_code)]

mod address;
mod conn;
mod connect;
mod error;
mod kernel;
#[allow(unsafe_code)]
mod lent;
mod load;
#[allow(unsafe_code)]
mod memory;
mod options;
mod provider;
mod reason;
mod reception;
mod route;
mod socket;
mod stream;
mod switch;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod table;
mod tcp;
#[allow(unsafe_code)]
mod upcalls;

pub use conn::Stats;
pub use error::WsaError;
pub use options::{ConnectOptions, Mode, SendPolicy, StreamOptions};
pub use provider::{Capabilities, Source};
pub use reason::{Reason, Transport};
pub use stream::SanStream;
pub use switch::{ProviderInfo, Switch, SwitchInfo};
pub use table::{EntryPoint, StartupEx};
