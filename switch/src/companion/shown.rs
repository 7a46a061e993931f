//! What those who look on see of a companion.
//!
//! Owns its slot in the observation memory and what was told last. Invariant: what is told is
//! computed and written under one lock, which is taken last, so the last word is the newest.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Companion, Path, Reason, Role};
use crate::conn::Connection;
use crate::observe::{self, About, Slot, Upgrade};

pub(super) struct Shown {
    slot: Option<Arc<Slot>>,
    told: Mutex<Told>,
}

struct Told {
    path: Path,
    reason: Reason,
    upgrade: Upgrade,
    /// Of the session that came last.
    provider: String,
}

impl Shown {
    /// Nothing but memory is needed for it, after the first one of the process.
    pub(super) fn new(role: Role, number: RawFd) -> Shown {
        let slot = Slot::new(&About {
            role: match role {
                Role::Connected => observe::Role::Connected,
                Role::Accepted => observe::Role::Accepted,
            },
            addresses: None,
            fd: Some(number),
            path: observe::Path::Kernel,
            provider: "",
            upgrade: Upgrade::Waiting,
            reason: "",
        });
        Shown {
            slot,
            told: Mutex::new(Told {
                path: Path::Tcp,
                reason: Reason::None,
                upgrade: Upgrade::Waiting,
                provider: String::new(),
            }),
        }
    }

    pub(super) fn addresses(&self, local: SocketAddr, peer: SocketAddr) {
        if let Some(slot) = &self.slot {
            slot.set_addresses(local, peer);
        }
    }

    /// The peer is sought.
    pub(super) fn offering(&self) {
        let mut told = self.told.lock();
        told.upgrade = Upgrade::Offering;
        if let Some(slot) = &self.slot {
            slot.set_upgrade(Upgrade::Offering);
        }
    }

    /// This session is going to carry it.
    pub(super) fn session(&self, connection: &Connection) {
        if let Some(slot) = &self.slot {
            connection.observe(Arc::clone(slot));
            connection
                .provider_name()
                .clone_into(&mut self.told.lock().provider);
        }
    }
}

/// What follows from where the directions are, and where they were.
fn next(was: Upgrade, path: Path, reason: Reason) -> Upgrade {
    match (path, was) {
        (Path::San, _) => Upgrade::Upgraded,
        (Path::Mixed, Upgrade::Upgraded | Upgrade::Downgrading) => Upgrade::Downgrading,
        (Path::Mixed, _) => Upgrade::Upgrading,
        (
            Path::Tcp,
            Upgrade::Upgrading | Upgrade::Upgraded | Upgrade::Downgrading | Upgrade::Downgraded,
        ) => Upgrade::Downgraded,
        (Path::Tcp, Upgrade::Offering) if reason == Reason::None => Upgrade::Offering,
        (Path::Tcp, _) if reason == Reason::None => Upgrade::Waiting,
        (Path::Tcp, _) => Upgrade::Refused,
    }
}

impl Companion {
    /// Tells what has changed.
    pub(super) fn display(&self) {
        let Some(slot) = &self.shown.slot else { return };
        self.show_bytes();
        let mut told = self.shown.told.lock();
        let (path, reason) = (self.path(), self.reason());
        let upgrade = next(told.upgrade, path, reason);
        if (told.path, told.reason, told.upgrade) == (path, reason, upgrade) {
            return;
        }
        let (by, provider) = match path {
            Path::Tcp => (observe::Path::Kernel, ""),
            Path::Mixed => (observe::Path::Both, &*told.provider),
            Path::San => (observe::Path::San, &*told.provider),
        };
        slot.set_path(by, provider);
        slot.set_reason(match reason {
            Reason::None => "",
            reason => reason.code(),
        });
        if told.upgrade != upgrade {
            slot.set_upgrade(upgrade);
        }
        (told.path, told.reason, told.upgrade) = (path, reason, upgrade);
    }

    /// Tells what the kernel has carried.
    #[inline]
    pub(super) fn show_bytes(&self) {
        if let Some(slot) = &self.shown.slot {
            slot.carried_by_kernel(self.tx.by_kernel(), self.rx.by_kernel());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_goes_over_and_back_is_told_of_in_these_words() {
        let mut was = Upgrade::Waiting;
        let mut go = |path, reason| {
            was = next(was, path, reason);
            was.code()
        };
        assert_eq!(go(Path::Tcp, Reason::None), "waiting");
        assert_eq!(go(Path::Tcp, Reason::PeerSilent), "refused");
        assert_eq!(go(Path::Mixed, Reason::None), "upgrading");
        assert_eq!(go(Path::San, Reason::None), "upgraded");
        assert_eq!(go(Path::Mixed, Reason::PeerAsked), "downgrading");
        assert_eq!(go(Path::Tcp, Reason::PeerAsked), "downgraded");
        assert_eq!(go(Path::Tcp, Reason::Sticky), "downgraded");
        assert_eq!(go(Path::Mixed, Reason::None), "upgrading");
        assert_eq!(
            next(Upgrade::Offering, Path::Tcp, Reason::None),
            Upgrade::Offering
        );
        assert_eq!(
            next(Upgrade::Offering, Path::Tcp, Reason::TupleMismatch),
            Upgrade::Refused
        );
    }
}
