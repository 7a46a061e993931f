//! One provider, started and asked what it can do.
//!
//! Owns its table and the sequence of calls that begins its life. Invariant: a provider that
//! exists has all functions a SAN provider must have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wsdirect::abi;

use crate::conn;
use crate::error::WsaError;
use crate::table::{EntryPoint, RawSocket, Table};

/// Where a provider comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Linked into this program.
    Linked,
    /// A shared library.
    Library(PathBuf),
    /// An entry point this program gave.
    Given,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Linked => f.write_str("linked provider"),
            Source::Library(path) => write!(f, "{}", path.display()),
            Source::Given => f.write_str("given provider"),
        }
    }
}

/// A provider that works.
pub(crate) struct Provider {
    name: String,
    source: Source,
    table: Table,
    /// 0 until probed for.
    descriptor_len: AtomicUsize,
    /// Its progress was asked for, if it lets others make it.
    progress: Once,
}

/// How long a provider may take to give the handle of the socket for queries back.
const QUERY_CLOSING_TIME: Duration = Duration::from_secs(10);

impl Provider {
    /// Starts a provider: WSPStartupEx, a socket, the address list, the extension functions, and
    /// the end of the socket. Returns the addresses it serves, too. The text says why it failed;
    /// it has been cleaned up then.
    pub(crate) fn start(entry: EntryPoint) -> Result<(Provider, Vec<IpAddr>), String> {
        let source = entry.source().clone();
        let mut table =
            Table::start(entry).map_err(|error| format!("WSPStartupEx failed: {error}"))?;
        let socket = query_socket(&table)?;
        let asked = match table.addresses(&socket) {
            Ok(addresses) => match table.fetch_extensions(&socket) {
                Ok(()) => Ok(addresses),
                Err((name, error)) => Err(format!("has no {name}: {error}")),
            },
            Err(error) => Err(format!("lists no addresses: {error}")),
        };
        end_query(&table, &socket);
        let addresses = asked?;
        let name = name_of(table.description(), &source);
        let descriptor_len = AtomicUsize::new(0);
        Ok((
            Provider {
                name,
                source,
                table,
                descriptor_len,
                progress: Once::new(),
            },
            plain(&addresses),
        ))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn has_rdma_read(&self) -> bool {
        self.table.has_rdma_read()
    }

    /// Whether a socket can be armed, so that its completions need no upcall.
    pub(crate) fn arms(&self) -> bool {
        self.table.has_arm()
    }

    /// To be called before anything for which the provider would start a thread: from then on the
    /// service thread makes its progress. Where it cannot, or the provider does not let it, the
    /// provider does as it likes.
    pub(crate) fn have_progress(&self) {
        if self.table.offers_progress() {
            self.progress.call_once(|| {
                let taken = conn::make_progress(|| self.table.take_progress());
                if let Err(error) = taken {
                    tracing::debug!(provider = self.name, %error, "it makes its own progress");
                }
            });
        }
    }

    /// The addresses it serves now.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        self.query(|socket| self.table.addresses(socket))
            .map(|found| plain(&found))
    }

    /// An option's value on a new socket; `None` if the provider has no such option.
    pub(crate) fn option(&self, name: i32) -> Option<u32> {
        self.query(|socket| self.table.option(socket, name)).ok()
    }

    /// The length of the descriptors of exposed memory, probed for once.
    pub(crate) fn descriptor_len(&self, socket: &RawSocket) -> Result<usize, WsaError> {
        // Relaxed: the number is all there is; two who probe at once find the same.
        let known = self.descriptor_len.load(Ordering::Relaxed);
        if known != 0 {
            return Ok(known);
        }
        let len = self.table.probe_descriptor(socket)?;
        self.descriptor_len.store(len, Ordering::Relaxed);
        Ok(len)
    }

    fn query<R>(&self, ask: impl FnOnce(&RawSocket) -> Result<R, WsaError>) -> Result<R, String> {
        let socket = query_socket(&self.table)?;
        let answer = ask(&socket);
        end_query(&self.table, &socket);
        answer.map_err(|error| error.to_string())
    }
}

fn query_socket(table: &Table) -> Result<RawSocket, String> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    table
        .socket(&any)
        .map_err(|error| format!("gives no socket: {error}"))
}

fn end_query(table: &Table, socket: &RawSocket) {
    if table.close(socket).is_ok() {
        socket
            .handle()
            .wait_closed(Instant::now() + QUERY_CLOSING_TIME);
    }
}

fn plain(addresses: &[SocketAddr]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(SocketAddr::ip)
        .filter(|ip| !ip.is_unspecified())
        .collect()
}

/// What the provider calls itself, or else the name of its library.
fn name_of(description: &str, source: &Source) -> String {
    let description = description.trim();
    if !description.is_empty() {
        return description.to_owned();
    }
    match source {
        Source::Library(path) => path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        other => other.to_string(),
    }
}

/// What a provider says of itself, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The addresses it serves.
    pub addresses: Vec<IpAddr>,
    /// Whether it has WSPRdmaRead.
    pub rdma_read: bool,
    /// Whether it has WSPArmCompletion, our addition.
    pub arm_completion: bool,
    /// Whether memory stays registered with it after its release, until it goes away.
    pub keeps_registrations: bool,
    /// Largest message, where there is a limit.
    pub max_message: Option<u32>,
    /// Largest single RDMA, where there is a limit.
    pub max_rdma: Option<u32>,
    /// Up to here it prefers messages to RDMA.
    pub rdma_threshold: Option<u32>,
}

impl Provider {
    pub(crate) fn capabilities(&self) -> Result<Capabilities, String> {
        Ok(Capabilities {
            addresses: self.addresses()?,
            rdma_read: self.has_rdma_read(),
            arm_completion: self.arms(),
            keeps_registrations: self.table.keeps_registrations(),
            max_message: self.option(abi::SO_MAX_MSG_SIZE),
            max_rdma: self.option(abi::SO_MAX_RDMA_SIZE),
            rdma_threshold: self.option(abi::SO_RDMA_THRESHOLD_SIZE),
        })
    }
}
