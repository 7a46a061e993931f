//! Stream sockets over any Windows Sockets Direct provider table, with TCP beside it.
//!
//! [`SanStream`] and [`SanListener`] are used like std's `TcpStream` and `TcpListener`. Where both
//! ends have a SAN provider the bytes go over it, elsewhere over TCP, and
//! [`SanStream::transport`] says which and why. The layers, from the application down:
//!
//! * `sockets`, `stream`, `listener`, `poll`, `asynchronous`: what applications use; `options`, `reason`: what they
//!   say and hear.
//! * `connect`, `reception`: how connections come about; `tcp`, `kernel`: the path beside the SAN.
//! * [`companion`]: the upgrade of a kernel connection whose program does not know us.
//! * `conn`, `memory`: the session protocol (`wsd_proto`) driven over one connected socket.
//! * `switch`, `load`, `provider`, `route`: which providers there are, and which of them serves.
//! * `socket`, `table`, `lent`, `upcalls`: one provider's socket; the calls and upcalls made safe.
//! * [`observe`]: what the connections of a process show to those who look on.
//! * `sys`, `address`, `error`: the host's calls, addresses and codes as values.
#![deny(unsafe_code)]

mod address;
#[cfg(feature = "tokio")]
mod asynchronous;
pub mod companion;
mod conn;
mod connect;
mod error;
mod kernel;
#[allow(unsafe_code)]
mod lent;
mod listener;
mod load;
#[allow(unsafe_code)]
mod memory;
pub mod observe;
mod options;
mod poll;
mod provider;
mod reason;
mod reception;
mod route;
mod socket;
mod sockets;
mod stream;
mod switch;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod table;
mod tcp;
#[allow(unsafe_code)]
mod upcalls;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncSanListener, AsyncSanStream};
pub use conn::Stats;
pub use error::WsaError;
pub use listener::{Incoming, SanListener};
pub use options::{ConnectOptions, Mode, SendPolicy, StreamOptions};
pub use poll::{PollEntry, Pollable, poll};
pub use provider::{Capabilities, Source};
pub use reason::{Reason, Transport};
pub use stream::SanStream;
pub use switch::{ProviderInfo, Switch, SwitchInfo};
pub use table::{EntryPoint, StartupEx};

/// The program of the README is tested.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
