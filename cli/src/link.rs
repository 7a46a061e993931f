//! The one place where the command meets the sockets of `wsd-switch`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use wsd_switch::{Reason, SanListener, SanStream, SendPolicy, StreamOptions, Transport};

use crate::args::Mode;
use crate::failure::Failure;

pub(crate) type Link = SanStream;
pub(crate) type Listener = SanListener;

/// A silent peer is asked for a sign of life after this time, and given up after as much again.
const IDLE: Duration = Duration::from_secs(60);

/// How a caller uses its connections.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// Large buffers that are not touched before their send has returned.
    Files,
    /// As any program would.
    Measuring,
}

fn options(mode: Mode, purpose: Use) -> StreamOptions {
    let mode = match mode {
        Mode::Auto => wsd_switch::Mode::Auto,
        Mode::Read => wsd_switch::Mode::Read,
        Mode::Write => wsd_switch::Mode::Write,
        Mode::Tcp => wsd_switch::Mode::Tcp,
    };
    let policy = match purpose {
        Use::Files => SendPolicy::ZeroCopy,
        Use::Measuring => SendPolicy::Auto,
    };
    let options = StreamOptions::new().mode(mode).send_policy(policy);
    match purpose {
        Use::Files => options.keep_alive(Some(IDLE)),
        Use::Measuring => options,
    }
}

/// Connects. With a mode that only the SAN has, a connection over TCP is a failure.
pub(crate) fn connect(to: &str, mode: Mode, purpose: Use) -> Result<Link, Failure> {
    let again = || {
        SanStream::connect_with(to, &options(mode, purpose))
            .map_err(|error| cannot_connect(to, error))
    };
    let mut link = again()?;
    // The other end may have begun to listen when the SAN had asked and TCP had not. Whoever listens
    // on TCP listens on the SAN already.
    if matches!(mode, Mode::Read | Mode::Write) && san_was_refused(&link) {
        drop(link);
        link = again()?;
    }
    require(&link, mode)?;
    Ok(link)
}

fn san_was_refused(link: &Link) -> bool {
    let Transport::Tcp { reason } = link.transport() else {
        return false;
    };
    matches!(reason, Reason::ConnectFailed(_))
}

fn cannot_connect(to: &str, error: io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            "nobody listens there; start the other end first (wsdirect recv, or perf --listen)"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no route leads there; check the address"
        }
        io::ErrorKind::TimedOut => "no answer; check the address and any firewall",
        _ => "check the address and that the other end listens",
    };
    Failure::caused(format!("cannot connect to {to}"), error).advise(advice)
}

/// With `--mode read` or `--mode write` a connection must be over the SAN.
fn require(link: &Link, mode: Mode) -> Result<(), Failure> {
    match (link.transport(), mode) {
        (Transport::Tcp { reason }, Mode::Read | Mode::Write) => Err(Failure::new(format!(
            "the SAN does not carry this connection: {reason}"
        ))
        .advise("see wsdirect info, or allow TCP with --mode auto")),
        _ => Ok(()),
    }
}

pub(crate) fn listen(at: &str, mode: Mode, purpose: Use) -> Result<Listener, Failure> {
    SanListener::bind_with(at, &options(mode, purpose)).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens on this port; choose another one, or 0 for a free one"
            }
            io::ErrorKind::AddrNotAvailable => "this host has no such address; see: wsdirect info",
            io::ErrorKind::PermissionDenied => "ports below 1024 need privilege; choose another",
            _ => "check the address",
        };
        Failure::caused(format!("cannot listen on {at}"), error).advise(advice)
    })
}

pub(crate) fn address_of(listener: &Listener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::caused("cannot tell the address", error))
}

pub(crate) fn peer_of(link: &Link) -> Result<SocketAddr, Failure> {
    link.peer_addr()
        .map_err(|error| Failure::caused("cannot tell the peer's address", error))
}

/// Waits for a connection.
pub(crate) fn accept(listener: &Listener) -> Result<Link, Failure> {
    let accepted = listener
        .set_nonblocking(false)
        .and_then(|()| listener.accept());
    accepted
        .map(|(link, _)| link)
        .map_err(|error| Failure::caused("cannot accept a connection", error))
}

/// The next connection, if one is there.
pub(crate) fn try_accept(listener: &Listener) -> Result<Option<Link>, Failure> {
    let accepted = listener
        .set_nonblocking(true)
        .and_then(|()| listener.accept());
    match accepted {
        Ok((link, _)) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(Failure::caused("cannot accept a connection", error)),
    }
}

/// Which way the bytes took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Path {
    /// "san" or "tcp".
    pub(crate) kind: &'static str,
    pub(crate) provider: Option<String>,
    /// Who moved large data, if there was any: "read" is the receiver, "write" the sender.
    pub(crate) mode: Option<&'static str>,
    /// Why TCP.
    pub(crate) reason: Option<String>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path {
                provider: Some(provider),
                mode,
                ..
            } => {
                write!(f, "{} through {provider}", self.kind)?;
                match *mode {
                    Some("read") => f.write_str(", the receiver reads large data"),
                    Some(_) => f.write_str(", the sender writes large data"),
                    None => Ok(()),
                }
            }
            Path {
                reason: Some(reason),
                ..
            } => write!(f, "{}, because: {reason}", self.kind),
            _ => f.write_str(self.kind),
        }
    }
}

/// As it stands now: whether large data is read or written shows when there has been some.
pub(crate) fn path(link: &Link) -> Path {
    match link.transport() {
        Transport::San { provider } => {
            let stats = link.stats();
            let read = stats.rdma_reads > 0 || stats.large_sent > 0 && stats.rdma_writes == 0;
            let large = stats.large_sent + stats.large_received > 0;
            let mode = large.then_some(if read { "read" } else { "write" });
            Path {
                kind: "san",
                provider: Some(provider),
                mode,
                reason: None,
            }
        }
        Transport::Tcp { reason } => Path {
            kind: "tcp",
            provider: None,
            mode: None,
            reason: Some(reason.to_string()),
        },
        other => Path {
            kind: "other",
            provider: Some(other.to_string()),
            mode: None,
            reason: None,
        },
    }
}

/// What this end of a connection has done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counters {
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) rdma_reads: u64,
    pub(crate) rdma_writes: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages sent, {} received, {} RDMA reads, {} RDMA writes",
            self.messages_sent, self.messages_received, self.rdma_reads, self.rdma_writes
        )
    }
}

pub(crate) fn counters(link: &Link) -> Counters {
    let stats = link.stats();
    Counters {
        messages_sent: stats.messages_sent,
        messages_received: stats.messages_received,
        rdma_reads: stats.rdma_reads,
        rdma_writes: stats.rdma_writes,
    }
}
