//! What is told about a connection: its path, why that is the kernel's, and its figures.
//!
//! Invariant: only looks, but for the reason, which is shown to those who look on at once.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use super::registry::Snapshot;
use super::state::{Direction, SAN};
use super::{Companion, Path, Reason, Role, kernel};

impl Companion {
    pub(super) fn set_reason(&self, reason: Reason) {
        if reason == Reason::NegativeCache && self.reason() == Reason::Version {
            // That says why it is not asked again.
            return;
        }
        self.reason.store(reason.number(), Ordering::Relaxed);
        self.display();
    }

    /// Why the kernel carries the connection.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::from_number(self.reason.load(Ordering::Relaxed))
    }

    /// What carries the connection.
    #[must_use]
    pub fn path(&self) -> Path {
        match (self.rx.phase(), self.tx.phase()) {
            (SAN, SAN) => Path::San,
            (SAN, _) | (_, SAN) => Path::Mixed,
            _ => Path::Tcp,
        }
    }

    /// What there is to tell about it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let bytes = |direction: &Direction| {
            let san = direction.san.load(Ordering::Relaxed);
            let total = direction.total.load(Ordering::Relaxed);
            (total.saturating_sub(san), san)
        };
        let (received_tcp, received_san) = bytes(&self.rx);
        let (sent_tcp, sent_san) = bytes(&self.tx);
        let core = self.core.lock();
        let connection = core.connection.clone();
        let (upgrades, downgrades) = (core.upgrades, core.downgrades);
        drop(core);
        Snapshot {
            number: self.number,
            role: self.role,
            path: self.path(),
            reason: self.reason(),
            received_tcp,
            sent_tcp,
            received_san,
            sent_san,
            upgrades,
            downgrades,
            session: connection.as_ref().map(|connection| connection.stats()),
            session_id: connection.map_or([0; 16], |connection| connection.session_id()),
        }
    }

    /// What there is to tell about it at its end, in one line, to the first who asks: when the
    /// application has closed it, it may still be here to deliver the rest.
    #[must_use]
    pub fn last_summary(&self) -> Option<String> {
        let is_first = !self.summed_up.swap(true, Ordering::Relaxed);
        is_first.then(|| self.summary())
    }

    fn summary(&self) -> String {
        let Snapshot {
            role,
            reason,
            received_tcp,
            sent_tcp,
            received_san,
            sent_san,
            upgrades,
            downgrades,
            ..
        } = self.snapshot();
        let role = match role {
            Role::Connected => "client",
            Role::Accepted => "server",
        };
        let core = self.core.lock();
        let fd = core.tcp.as_ref().map_or(self.number, AsRawFd::as_raw_fd);
        let name = |address: std::net::SocketAddr| address.to_string();
        let names = kernel::names(fd).map(|(local, peer)| (name(local), name(peer)));
        drop(core);
        let (local, peer) = names.unwrap_or_else(|_| ("-".to_owned(), "-".to_owned()));
        format!(
            "role={role} local={local} peer={peer} tcp_in={received_tcp} tcp_out={sent_tcp} \
             san_in={received_san} san_out={sent_san} upgrades={upgrades} \
             downgrades={downgrades} reason={}",
            reason.code()
        )
    }
}
