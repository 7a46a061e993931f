//! The one place where the command meets the sockets of `wsd-switch`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use wsd_switch::{
    Reason, SanListener, SanStream, SendPolicy, Stats, StreamOptions, Switch, Transport,
};

use crate::args::Mode;
use crate::failure::Failure;
use crate::output;

pub(crate) type Link = SanStream;
pub(crate) type Listener = SanListener;

/// A silent peer is asked for a sign of life after this time, and given up after as much again.
const IDLE: Duration = Duration::from_secs(60);

/// So many bytes in all need not have gone by RDMA.
const FEW: u64 = 64 << 10;

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

/// With `--mode read` or `--mode write` a connection must be over the SAN, whoever has made it.
pub(crate) fn require(link: &Link, mode: Mode) -> Result<(), Failure> {
    match link.transport() {
        Transport::Tcp { reason } if mode.is_san_only() => Err(Failure::new(format!(
            "the SAN does not carry this connection, as --mode {} demands: {reason}",
            mode.name()
        ))
        .advise("see wsdirect info, or allow TCP with --mode auto")),
        _ => Ok(()),
    }
}

/// Listens. With a mode that only the SAN has, an address that it does not serve is a failure: no
/// connection that may be taken could ever come.
pub(crate) fn listen(at: &str, mode: Mode, purpose: Use) -> Result<Listener, Failure> {
    let listener = SanListener::bind_with(at, &options(mode, purpose));
    let listener = listener.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens on this port; choose another one, or 0 for a free one"
            }
            io::ErrorKind::AddrNotAvailable => "this host has no such address; see: wsdirect info",
            io::ErrorKind::PermissionDenied => "ports below 1024 need privilege; choose another",
            _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                "no more files may be open: raise the limit (ulimit -n), or end something"
            }
            _ => "check the address",
        };
        Failure::caused(format!("cannot listen on {at}"), error).advise(advice)
    })?;
    match listener.tcp_only() {
        Some(reason) if mode.is_san_only() => Err(Failure::new(format!(
            "the SAN does not listen on {at}, as --mode {} demands: {reason}",
            mode.name()
        ))
        .advise("see wsdirect info, or allow TCP with --mode auto")),
        _ => Ok(listener),
    }
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
    /// Who moved large data, if any was moved by RDMA: "read" is the receiver, "write" the sender.
    pub(crate) mode: Option<&'static str>,
    /// Why it was not moved as `--mode` wanted.
    pub(crate) gave_way: Option<&'static str>,
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
pub(crate) fn path(link: &Link, wanted: Mode) -> Path {
    let nothing = Path {
        kind: "other",
        provider: None,
        mode: None,
        gave_way: None,
        reason: None,
    };
    match link.transport() {
        Transport::San { provider } => {
            let stats = link.stats();
            let mode = mover(&stats);
            Path {
                kind: "san",
                gave_way: gave_way(wanted, mode, &stats, || can_read(&provider)),
                provider: Some(provider),
                mode,
                ..nothing
            }
        }
        Transport::Tcp { reason } => Path {
            kind: "tcp",
            reason: Some(reason.to_string()),
            ..nothing
        },
        other => Path {
            provider: Some(other.to_string()),
            ..nothing
        },
    }
}

/// By what has been moved and not by what was announced: that may have been refused, and have come
/// in messages.
fn mover(stats: &Stats) -> Option<&'static str> {
    if stats.rdma_read_bytes + stats.peer_read_bytes > 0 {
        Some("read")
    } else if stats.rdma_write_bytes + stats.peer_write_bytes > 0 {
        Some("write")
    } else {
        None
    }
}

/// Why large data was not moved as it was wanted. What the other end wants is not told over the
/// wire, only what it will do; so the reasons are given as far as they are known.
fn gave_way(
    wanted: Mode,
    mode: Option<&str>,
    stats: &Stats,
    reads_here: impl FnOnce() -> bool,
) -> Option<&'static str> {
    match (wanted, mode) {
        (Mode::Read, Some("write")) if stats.rdma_write_bytes > 0 => {
            Some("the receiver has no RDMA read, or was started with --mode write")
        }
        (Mode::Read, Some("write")) if !reads_here() => Some("this end has no RDMA read"),
        (Mode::Read, Some("write")) => {
            Some("the sender was started with --mode write, or offers no memory to be read")
        }
        (Mode::Write, Some("read")) => Some("the receiver offers no memory to be written to"),
        (Mode::Read | Mode::Write, None) if stats.refused_sent + stats.refused_received > 0 => {
            Some("memory for RDMA could not be had, so that large data went in messages")
        }
        (Mode::Read | Mode::Write, None) if stats.bytes_sent.max(stats.bytes_received) > FEW => {
            Some("all of it came in pieces too small for RDMA, and went in messages")
        }
        _ => None,
    }
}

/// For people.
pub(crate) fn note_gave_way(wanted: Mode, why: &str) {
    output::note(&format!("--mode {} gave way: {why}", wanted.name()));
}

/// Whether a provider of this host has RDMA reads.
fn can_read(provider: &str) -> bool {
    let found = Switch::global().info().providers;
    let states = found.into_iter().filter(|one| one.name == provider);
    states
        .filter_map(|one| one.state.ok())
        .any(|limits| limits.rdma_read)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(change: impl FnOnce(&mut Stats)) -> Stats {
        let mut stats = Stats::default();
        change(&mut stats);
        stats
    }

    #[test]
    fn who_moved_large_data_is_known_by_what_was_moved_and_not_by_what_was_announced() {
        let announced = stats(|stats| {
            stats.large_sent = 3;
            stats.refused_received = 3;
        });
        assert_eq!(mover(&announced), None);
        let announced = stats(|stats| {
            stats.large_received = 3;
            stats.refused_sent = 3;
        });
        assert_eq!(mover(&announced), None);
        assert_eq!(mover(&stats(|one| one.peer_read_bytes = 1)), Some("read"));
        assert_eq!(mover(&stats(|one| one.rdma_read_bytes = 1)), Some("read"));
        assert_eq!(mover(&stats(|one| one.peer_write_bytes = 1)), Some("write"));
        assert_eq!(mover(&stats(|one| one.rdma_write_bytes = 1)), Some("write"));
    }

    #[test]
    fn a_mode_that_gave_way_is_told_with_its_reason_and_one_that_did_not_is_not() {
        let why = |wanted, stats: Stats, reads| gave_way(wanted, mover(&stats), &stats, || reads);
        let wrote = || stats(|one| one.rdma_write_bytes = 1);
        let written = || stats(|one| one.peer_write_bytes = 1);
        let read = || stats(|one| one.peer_read_bytes = 1);
        assert!(why(Mode::Read, wrote(), true).unwrap().contains("receiver"));
        assert!(why(Mode::Read, written(), true).unwrap().contains("sender"));
        assert!(
            why(Mode::Read, written(), false)
                .unwrap()
                .contains("this end")
        );
        assert!(why(Mode::Write, read(), true).unwrap().contains("receiver"));
        let refused = || stats(|one| one.refused_received = 1);
        for mode in [Mode::Read, Mode::Write] {
            assert!(why(mode, refused(), true).unwrap().contains("messages"));
            assert_eq!(why(mode, Stats::default(), true), None);
        }
        let small = || stats(|one| one.bytes_sent = FEW + 1);
        for mode in [Mode::Read, Mode::Write] {
            assert!(why(mode, small(), true).unwrap().contains("too small"));
            assert_eq!(why(mode, stats(|one| one.bytes_received = FEW), true), None);
        }
        for (mode, stats) in [
            (Mode::Auto, small()),
            (Mode::Read, read()),
            (Mode::Write, wrote()),
            (Mode::Write, written()),
            (Mode::Auto, read()),
            (Mode::Auto, written()),
            (Mode::Auto, refused()),
        ] {
            assert_eq!(why(mode, stats, true), None);
        }
    }
}
