//! The embedded SAN: a fabric of shared memory between processes of one host, and inside one.
//!
//! | file | owns |
//! |---|---|
//! | `options` | what can be chosen |
//! | `directory` | names, local addresses, the question whether TCP would find a listener |
//! | `wire`, `handshake` | the rendezvous over an abstract Unix socket |
//! | `core` | what the endpoints of a fabric share: the epoll set, the events, the timer |
//! | `endpoint` | one connection: state, arming, the end |
//! | `moving` | what an endpoint does with operations |
//! | `sending`, `receiving` | the two halves of messaging |
//! | `rdma`, `rdma_direct`, `rdma_pipelined` | reads and writes of remote memory, and their two ways |
//! | `window` | exposed memory and the descriptors that name it |
//! | `link` | the connected state and the wake-ups |
//! | `process` | the processes of peers, watched for their end |
//! | `lock` | the lock of the parts of an endpoint |
//! | `ring`, `shm`, `copy` | the rings, the shared segment, the copy kernels |
//! | `region` | registered memory and every access to it |
//! | `sys` | system calls |
//!
//! `unsafe` stands in `sys`, `shm`, `copy`, `region` and `lock`, and in `endpoint` where the promise of
//! `Endpoint::register` is passed on.
//!
//! The peer of a connection is another process of the same user, and it is not trusted: see `shm`
//! and `ring` for what it cannot do.

#[cfg(feature = "testing")]
#[allow(unreachable_pub, reason = "the root of the crate shows it")]
pub mod bench;
#[allow(unsafe_code)]
mod copy;
mod core;
mod directory;
mod endpoint;
mod handshake;
mod link;
#[allow(unsafe_code)]
mod lock;
mod moving;
mod options;
mod process;
mod rdma;
mod rdma_direct;
mod rdma_pipelined;
mod receiving;
#[allow(unsafe_code)]
mod region;
mod ring;
mod sending;
#[allow(unsafe_code)]
mod shm;
#[allow(unsafe_code)]
pub(super) mod sys;
#[cfg(test)]
pub(super) mod tests;
mod window;
mod wire;

pub(super) use directory::is_local;
#[cfg(feature = "verbs")]
pub(super) use directory::{addresses as host_addresses, tcp_listens};
pub(crate) use lock::{Guard as QuickGuard, Mutex as QuickMutex};
pub(crate) use options::{Options, Rdma};

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::core::Core;
use super::{Caps, ConnectError, Endpoint, Event, Fabric, ListenError, Listener, Token};

/// The embedded SAN of this process.
#[derive(Debug)]
pub(crate) struct SoftFabric {
    core: Arc<Core>,
}

impl SoftFabric {
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            core: Core::new(options)?,
        })
    }
}

impl Fabric for SoftFabric {
    fn name(&self) -> &'static str {
        "soft"
    }

    fn caps(&self) -> Caps {
        self.core.caps()
    }

    fn addresses(&self) -> Vec<IpAddr> {
        directory::addresses()
    }

    fn listen(&self, listener: Token, at: SocketAddr) -> Result<Box<dyn Listener>, ListenError> {
        handshake::listen(&self.core, listener, at)
    }

    fn connect(
        &self,
        endpoint: Token,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn Endpoint>, ConnectError> {
        handshake::connect(&self.core, endpoint, from, to)
    }

    fn poll(&self, events: &mut Vec<Event>) {
        self.core.poll(events);
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.core.readiness()
    }
}
