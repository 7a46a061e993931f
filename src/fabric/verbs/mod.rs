//! RDMA devices: a fabric over libibverbs and librdmacm.
//!
//! | file | owns |
//! |---|---|
//! | `shim.c`, `shim.h` | every layout and inline function of the two libraries |
//! | `sys` | the shim as safe types |
//! | `device` | what the devices can do |
//! | `completions` | the completion queues, who shares one, and who is woken |
//! | `wake` | the descriptor by which a sleeper is woken |
//! | `core` | what the endpoints of a fabric share: the epoll set, the events, the timer |
//! | `connect`, `hello` | the steps of a connect, and the private data of both ends |
//! | `listener` | listening, requests and their answers |
//! | `endpoint` | one connection: state, arming, the end |
//! | `leaving` | a connection that is closed before everything is delivered, or its peer knows of it |
//! | `exit` | the end of the process waits for what is not delivered |
//! | `early` | the first message, for which no receive may be posted yet |
//! | `moving` | what an endpoint does with operations |
//! | `parts` | cutting a transfer into work requests |
//! | `queue` | the book of what was posted |
//! | `memory` | registrations and descriptors |
//! | `errors` | what failures mean |
//!
//! One connection has one protection domain and one queue pair. So a key of one connection means
//! nothing on another. Completion queues are shared, except by the first few connections: no socket
//! can starve another, or overrun the queue that they share (`completions`).
//!
//! Registrations for local use outlive their release in a cache (`regcache`); what the peer may
//! reach never does.
//!
//! A peer that has gone silently is noticed also while nothing is under way: every few seconds of
//! silence its device is asked to acknowledge a write of nothing.

#[cfg(feature = "verbs")]
mod completions;
#[cfg(feature = "verbs")]
mod connect;
#[cfg(feature = "verbs")]
mod core;
#[cfg(feature = "verbs")]
mod device;
#[cfg(feature = "verbs")]
#[allow(unsafe_code)]
mod early;
#[cfg(feature = "verbs")]
#[allow(unsafe_code)]
mod endpoint;
#[cfg(feature = "verbs")]
mod errors;
#[cfg(feature = "verbs")]
mod exit;
#[cfg(feature = "verbs")]
mod hello;
#[cfg(feature = "verbs")]
mod leaving;
#[cfg(feature = "verbs")]
#[cfg(test)]
mod links;
#[cfg(feature = "verbs")]
mod listener;
#[cfg(feature = "verbs")]
#[allow(unsafe_code)]
mod memory;
#[cfg(feature = "verbs")]
mod moving;
#[cfg(feature = "verbs")]
mod parts;
#[cfg(feature = "verbs")]
mod queue;
#[cfg(feature = "verbs")]
#[allow(unsafe_code)]
mod sys;
#[cfg(feature = "verbs")]
#[cfg(test)]
mod tests;
#[cfg(feature = "verbs")]
mod wake;

/// What to say to somebody who wants to use RDMA hardware and cannot.
#[cfg(feature = "verbs")]
pub(crate) fn absence(error: &std::io::Error) -> String {
    let found: Vec<String> = match ibverbs::devices() {
        Ok(list) => list
            .iter()
            .filter_map(|device| Some(device.name()?.to_string_lossy().into_owned()))
            .collect(),
        // What libibverbs answers when the kernel has no RDMA support at all.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Vec::new(),
        Err(error) => return format!("libibverbs failed: {error}"),
    };
    if found.is_empty() {
        "this host has no RDMA device; use WSD_FABRIC=soft or auto".to_owned()
    } else {
        format!(
            "the RDMA devices ({}) cannot be used: {error}; use WSD_FABRIC=soft or auto",
            found.join(", ")
        )
    }
}

/// What to say to somebody who wants to use RDMA hardware and cannot.
#[cfg(not(feature = "verbs"))]
pub(crate) fn absence(_error: &std::io::Error) -> String {
    "this build was made without the feature \"verbs\"; use WSD_FABRIC=soft or auto".to_owned()
}

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether `Post::Read` is served.
    #[cfg_attr(not(feature = "verbs"), allow(dead_code))]
    pub(crate) rdma_read: bool,
    /// How often a device repeats a message for which no receive is posted; seven: without end.
    #[cfg_attr(not(feature = "verbs"), allow(dead_code))]
    pub(crate) rnr_retry: u8,
    /// How long an attempt to connect may take, if not as long as usual; the same at both ends.
    #[cfg_attr(not(feature = "verbs"), allow(dead_code))]
    pub(crate) patience: Option<std::time::Duration>,
    /// How connections share completion queues.
    #[cfg(feature = "verbs")]
    pub(crate) sharing: Sharing,
}

impl Options {
    pub(crate) fn new(rdma_read: bool) -> Self {
        Self {
            rdma_read,
            rnr_retry: 7,
            patience: None,
            #[cfg(feature = "verbs")]
            sharing: Sharing::default(),
        }
    }
}

/// The fabric, where there are RDMA devices.
#[cfg(not(feature = "verbs"))]
pub(crate) fn open(
    _options: Options,
) -> std::io::Result<std::sync::Arc<dyn crate::fabric::Fabric>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(feature = "verbs")]
pub(crate) use completions::Sharing;
#[cfg(feature = "verbs")]
pub(crate) use fabric::open;

#[cfg(feature = "verbs")]
mod fabric {
    //! The fabric itself.

    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;

    use super::Options;
    use super::connect::Attempt;
    use super::core::Core;
    use super::endpoint::VerbsEndpoint;
    use super::listener;
    use crate::fabric::{
        Caps, ConnectError, Endpoint, Event, Fabric, ListenError, Listener, Region, Released, Token,
    };

    #[derive(Debug)]
    pub(super) struct VerbsFabric {
        pub(super) core: Arc<Core>,
    }

    /// The fabric, where there are RDMA devices.
    // req: LATER-01
    pub(crate) fn open(options: Options) -> io::Result<Arc<dyn Fabric>> {
        Ok(Arc::new(VerbsFabric {
            core: Core::new(options)?,
        }))
    }

    impl Fabric for VerbsFabric {
        fn name(&self) -> &'static str {
            "verbs"
        }

        fn caps(&self) -> Caps {
            self.core.settings.caps.clone()
        }

        fn addresses(&self) -> Vec<IpAddr> {
            self.core.addresses()
        }

        fn listen(
            &self,
            listener: Token,
            at: SocketAddr,
        ) -> Result<Box<dyn Listener>, ListenError> {
            listener::listen(&self.core, listener, at)
        }

        fn connect(
            &self,
            endpoint: Token,
            from: SocketAddr,
            to: SocketAddr,
        ) -> Result<Arc<dyn Endpoint>, ConnectError> {
            if !from.ip().is_unspecified() && !self.core.addresses().contains(&from.ip()) {
                return Err(ConnectError::AddressNotAvailable);
            }
            Ok(VerbsEndpoint::connecting(
                &self.core,
                endpoint,
                Attempt::new(from, to, self.core.settings.patience),
            )?)
        }

        fn poll(&self, events: &mut Vec<Event>) {
            self.core.poll(events);
        }

        fn readiness(&self) -> BorrowedFd<'_> {
            self.core.readiness()
        }

        fn keeps_registrations(&self) -> bool {
            self.core.cache.keeps()
        }

        fn memory_released(&self, region: Region) -> Released {
            self.core.cache.memory_released(region)
        }
    }
}
