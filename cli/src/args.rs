//! The command line: what can be asked, not what is done about it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::sys;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; after a transfer: both ends have the same bytes
  1  failed; the message says why and what to do
  2  the command line is wrong
  Ended by a signal: as the shell reports it (130 for Ctrl-C).";

const EXIT_CODES_OF_RUN: &str = "\
Exit codes:
  That of the program, which takes the place of this command. Without having started it:
  125  the rules or the preload library cannot be used
  126  the program cannot be run
  127  there is no such program
  2    the command line is wrong";

#[derive(Debug, Parser)]
#[command(name = "wsdirect", version, about, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a file to a waiting `wsdirect recv`
    #[command(after_help = EXIT_CODES)]
    Send(Send),
    /// Receive one file from a `wsdirect send`
    #[command(after_help = EXIT_CODES)]
    Recv(Recv),
    /// Measure latency, bandwidth and message rate beside TCP and Unix sockets
    #[command(after_help = EXIT_CODES)]
    Perf(Perf),
    /// Show providers, addresses, limits and RDMA devices, and why something is absent
    #[command(after_help = EXIT_CODES)]
    Info(Info),
    /// Run a program that does not know the switch over it: its TCP connections take the SAN where
    /// both ends can
    #[command(after_help = EXIT_CODES_OF_RUN)]
    Run(Run),
    /// Show the live connections of your processes: path, bytes, credits, round trip, reason
    #[command(after_help = EXIT_CODES)]
    Ss(Ss),
    /// Show the control messages of one connection as they go by
    #[command(after_help = EXIT_CODES)]
    Trace(Trace),
}

/// How large data travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The SAN where it serves the address, in the mode its provider is best at; else TCP
    #[default]
    Auto,
    /// The SAN and never TCP; the receiver pulls (RDMA read), unless it cannot or the other end
    /// wants write: then the sender pushes, and the report says why
    Read,
    /// The SAN and never TCP; the sender pushes (RDMA write), whatever the other end wants
    Write,
    /// TCP only
    Tcp,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Read => "read",
            Mode::Write => "write",
            Mode::Tcp => "tcp",
        }
    }

    /// Whether a connection over TCP will not do.
    pub(crate) fn is_san_only(self) -> bool {
        matches!(self, Mode::Read | Mode::Write)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// File to send; `-` is standard input
    pub(crate) file: PathBuf,
    /// Where `wsdirect recv` listens
    #[arg(value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) to: String,
    /// Path and direction of large data
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Recv {
    /// Where to listen; port 0 takes a free one and prints it
    #[arg(value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) at: String,
    /// File to write; `-` is standard output. An existing file is replaced only when all is there
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Path and direction of large data
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What carries the bytes in a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// SanStream over a SAN provider
    San,
    /// TCP of the kernel, without the switch
    Tcp,
    /// Unix stream socket; same host only
    Unix,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::San => "san",
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
        }
    }
}

/// How both ends wait for data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Waiting {
    /// Nonblocking calls in a loop, both ends
    Poll,
    /// Blocking calls, both ends
    Block,
    /// One after the other
    #[default]
    Both,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Perf {
    /// Only serve: another process measures with --connect
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, conflicts_with = "connect")]
    pub(crate) listen: Option<String>,
    /// Measure against a process that serves with --listen
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) connect: Option<String>,
    /// Message sizes in bytes; K and M for KiB and MiB
    #[arg(long, value_delimiter = ',', value_parser = size, default_value = "8,64,4K,64K,1M")]
    pub(crate) sizes: Vec<usize>,
    /// Transports to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "san,tcp,unix"
    )]
    pub(crate) transports: Vec<Transport>,
    /// How both ends wait
    #[arg(long, value_enum, default_value_t)]
    pub(crate) wait: Waiting,
    /// Direction of large data on the SAN
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Rounds; in each, every transport has its turn
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Time for one measurement of one transport in one round
    #[arg(long, value_name = "MS", value_parser = milliseconds, default_value = "40")]
    pub(crate) slice: Duration,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// End when standard input ends (for a server started by another process)
    #[arg(long, hide = true, requires = "listen")]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Info {
    /// Print as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Rules that say which connections may take the SAN (see docs/preload.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Take the SAN at once, not only after some traffic
    #[arg(long)]
    pub(crate) eager: bool,
    /// The program and its arguments
    #[arg(
        value_name = "PROGRAM",
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ss {
    /// Only these processes
    #[arg(value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// Print as JSON: one object, or with --watch one to a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again each second, or every so many seconds, until interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = seconds,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1"
    )]
    pub(crate) watch: Option<Duration>,
}

/// A process, and a descriptor of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    pub(crate) fd: Option<i32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    /// The process, and the descriptor if it has several connections
    #[arg(value_name = "PID[:FD]", value_parser = target)]
    #[arg(required_unless_present_any = ["local", "peer"])]
    pub(crate) target: Option<Target>,
    /// The connection's number, as `wsdirect ss` shows it
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<u64>,
    /// The address and port at this end of the connection
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) local: Option<SocketAddr>,
    /// The address and port at its other end
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) peer: Option<SocketAddr>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Print each message as a JSON object on a line
    #[arg(long)]
    pub(crate) json: bool,
}

fn target(text: &str) -> Result<Target, String> {
    let (pid, fd) = match text.split_once(':') {
        Some((pid, fd)) => (pid, Some(fd)),
        None => (text, None),
    };
    let pid = pid.parse().ok().filter(|pid| *pid > 0);
    let fd = fd.map(|fd| fd.parse().ok().filter(|fd| *fd >= 0));
    match (pid, fd) {
        (Some(pid), None) => Ok(Target { pid, fd: None }),
        (Some(pid), Some(Some(fd))) => Ok(Target { pid, fd: Some(fd) }),
        _ => Err("give a process, or a process and a descriptor, as in 1234 or 1234:5".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.1..=3600.0).contains(&n) => Ok(Duration::from_secs_f64(n)),
        _ => Err("give seconds from 0.1 to 3600".to_owned()),
    }
}

fn address(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("give an address and a port, as in 127.0.0.1:7000 or [::1]:7000".to_owned());
    };
    if host.is_empty() {
        return Err("the address before ':' is missing; 0.0.0.0 means all of this host".to_owned());
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("put an IPv6 address in brackets, as in [::1]:7000".to_owned());
    }
    if port.parse::<u16>().is_err() {
        return Err(format!("'{port}' is not a port (0 to 65535)"));
    }
    match host.trim_end_matches(']').split_once('%') {
        Some((ip, scope)) => numbered(scope).map(|scope| format!("{ip}%{scope}]:{port}")),
        None => Ok(text.to_owned()),
    }
}

/// The scope of a link-local address as std reads it: by the interface's number.
fn numbered(scope: &str) -> Result<u32, String> {
    scope
        .parse()
        .ok()
        .or_else(|| sys::interface_number(scope))
        .ok_or_else(|| format!("this host has no network interface '{scope}'; see: wsdirect info"))
}

/// Most that one message of `perf` may hold.
const LARGEST_MESSAGE: usize = 1 << 30;

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.trim().to_ascii_uppercase() {
        t if t.ends_with('K') => (t.trim_end_matches('K').to_owned(), 1 << 10),
        t if t.ends_with('M') => (t.trim_end_matches('M').to_owned(), 1 << 20),
        t => (t, 1),
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(unit));
    match bytes {
        Some(n @ 1..=LARGEST_MESSAGE) => Ok(n),
        _ => Err("give bytes from 1 to 1024M, as in 8, 4K or 1M".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(n @ 1..=10_000) => Ok(Duration::from_millis(n)),
        _ => Err("give milliseconds from 1 to 10000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "[::1]:7000", "localhost:65535"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in ["127.0.0.1", ":7000", "::1:7000", "h:65536", "h:x", "h:"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_may_be_a_name_or_a_number() {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let numbered = format!("[fe80::1%{}]:7000", index.trim());
        assert_eq!(address("[fe80::1%lo]:7000").as_deref(), Ok(&*numbered));
        assert_eq!(address(&numbered).as_deref(), Ok(&*numbered));
        assert!(numbered.parse::<SocketAddr>().is_ok());
        for bad in ["[fe80::1%nowhere]:7000", "[fe80::1%]:7000"] {
            assert!(address(bad).unwrap_err().contains("no network interface"));
        }
    }

    #[test]
    fn a_target_is_a_process_and_perhaps_a_descriptor() {
        assert_eq!(target("12"), Ok(Target { pid: 12, fd: None }));
        assert_eq!(
            target("12:0"),
            Ok(Target {
                pid: 12,
                fd: Some(0)
            })
        );
        for bad in ["", "0", "x", "-1", "12:", "12:-1", "12:x", ":5", "1:2:3"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_may_be_parts_of_one() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "x", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_take_units_and_refuse_nonsense() {
        assert_eq!(size("8"), Ok(8));
        assert_eq!(size("4k"), Ok(4096));
        assert_eq!(size("1M"), Ok(1 << 20));
        for bad in ["", "0", "K", "-1", "2G", "1025M", "99999999999999999999M"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
