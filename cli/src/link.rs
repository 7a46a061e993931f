//! The one place where the command meets the sockets of `wsd-switch`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde::Serialize;

use crate::args::Mode;
use crate::failure::Failure;

pub(crate) type Link = TcpStream;
pub(crate) type Listener = TcpListener;

pub(crate) fn connect(to: &str, _mode: Mode) -> Result<Link, Failure> {
    TcpStream::connect(to).map_err(|error| cannot_connect(to, error))
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

pub(crate) fn listen(at: &str, _mode: Mode) -> Result<Listener, Failure> {
    TcpListener::bind(at).map_err(|error| {
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

pub(crate) fn accept(listener: &Listener) -> Result<Link, Failure> {
    match listener.accept() {
        Ok((link, _)) => Ok(link),
        Err(error) => Err(Failure::caused("cannot accept a connection", error)),
    }
}

/// Which way the bytes took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Path {
    pub(crate) kind: &'static str,
    pub(crate) provider: Option<String>,
    pub(crate) mode: Option<&'static str>,
    pub(crate) reason: Option<String>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

pub(crate) fn path(_link: &Link) -> Path {
    Path {
        kind: "tcp",
        provider: None,
        mode: None,
        reason: None,
    }
}

/// What this end of a connection has done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
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

pub(crate) fn counters(_link: &Link) -> Counters {
    Counters::default()
}
