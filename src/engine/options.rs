//! Options of a socket, as typed values.

use std::sync::atomic::{AtomicBool, Ordering};

use super::link::MAX_RDMA;
use super::socket::Socket;

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Kept and handed back; nothing depends on it.
    debug: AtomicBool,
}

impl Options {
    /// A copy, for a socket that is accepted.
    pub(crate) fn inherited(&self) -> Self {
        Self {
            debug: AtomicBool::new(self.debug.load(Ordering::Relaxed)),
        }
    }
}

fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Socket {
    pub(crate) fn debug(&self) -> bool {
        self.options.debug.load(Ordering::Relaxed)
    }

    pub(crate) fn set_debug(&self, debug: bool) {
        self.options.debug.store(debug, Ordering::Relaxed);
    }

    /// The largest message.
    pub(crate) fn max_message(&self) -> u32 {
        clamp(self.provider().caps().max_message)
    }

    /// The largest read or write of one call.
    pub(crate) fn max_rdma(&self) -> u32 {
        clamp(MAX_RDMA)
    }

    /// What is larger than this is better moved by RDMA.
    pub(crate) fn rdma_threshold(&self) -> u32 {
        let provider = self.provider();
        provider
            .config()
            .rdma_threshold
            .unwrap_or_else(|| clamp(provider.caps().rdma_threshold))
    }
}
