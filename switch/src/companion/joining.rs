//! How a session comes to carry a companion: it is offered, negotiated and begins, or not.
//!
//! Invariants: a session begins only where nothing is in the way of it, looked at again when it is
//! there; one that does not begin leaves the kernel's stream as it was, and is suspended so that the
//! peer goes on there, too.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::cache;
use super::registry::COUNTERS;
use super::state::{Core, GUARDED, KERNEL, Stage};
use super::{Companion, Reason, Role, kernel, service};
use crate::conn::{Connection, Observer};
use crate::route;

impl Companion {
    /// A session is offered: whether it may have this stream. From here on the marker may come.
    pub(super) fn admit(&self, session: [u8; 16]) -> bool {
        let mut core = self.core.lock();
        let fits = core.stage == Stage::Seeking && !core.closed && self.is_open(&core);
        let admitted = fits && self.guard(&mut core, session);
        if admitted {
            core.stage = Stage::Joining;
        }
        admitted
    }

    /// Whether nothing is in the way of an upgrade.
    fn is_open(&self, core: &Core) -> bool {
        !core.write_shut
            && !core.held
            && self.is_alone()
            && core.leftover.is_empty()
            && !self.poisoned.load(Ordering::SeqCst)
            && self.rx.phase() == KERNEL
            && self.tx.phase() == KERNEL
    }

    /// The negotiation has come to its end.
    pub(super) fn joined(self: &Arc<Self>, result: io::Result<Arc<Connection>>) {
        match result {
            Ok(connection) => self.begin(connection),
            Err(error) => {
                tracing::debug!(%error, "no session for a companion");
                let mut core = self.core.lock();
                if core.stage == Stage::Joining {
                    core.stage = Stage::Idle;
                }
                // Nobody has written a marker: the peer does so only after an answer.
                if self.is_guarded(&core) {
                    self.end_guard(&mut core);
                }
                let peer = self.peer(&core);
                core.tcp = None;
                core.parting = None;
                drop(core);
                let reason = match error.kind() {
                    io::ErrorKind::Unsupported => {
                        // Nor will its next connection be understood.
                        if let Some((address, port)) = peer {
                            cache::is_strange(address, port, Instant::now());
                        }
                        Reason::Version
                    }
                    io::ErrorKind::OutOfMemory => Reason::NoMemory,
                    _ if error.raw_os_error() == Some(libc::ENOBUFS) => Reason::NoMemory,
                    _ => Reason::TupleMismatch,
                };
                self.give_up(reason);
            }
        }
    }

    /// The peer's address and the server's port.
    fn peer(&self, core: &Core) -> Option<(IpAddr, u16)> {
        let fd = core.tcp.as_ref()?.as_raw_fd();
        let (local, peer) = kernel::names(fd).ok()?;
        let server = match self.role {
            Role::Connected => peer.port(),
            Role::Accepted => local.port(),
        };
        Some((route::canonical(&peer.ip()), server))
    }

    fn begin(self: &Arc<Self>, connection: Arc<Connection>) {
        let mut core = self.core.lock();
        let session = connection.session_id();
        // The beacon's side has been guarded since the offer.
        let guarded = self.is_guarded(&core) && core.session == session;
        let parts = core.parting.is_some();
        let wanted = core.stage == Stage::Joining && (!core.closed || parts);
        let ready = wanted && (guarded || (self.is_open(&core) && self.guard(&mut core, session)));
        if !ready {
            if guarded {
                self.end_guard(&mut core);
            }
            if core.stage == Stage::Joining {
                core.stage = Stage::Idle;
            }
            core.tcp = None;
            core.parting = None;
            // Calls that have met by chance may not meet the next time.
            let again = self.reason() == Reason::Concurrent && self.is_untriggered();
            drop(core);
            if again {
                self.retrigger();
            }
            connection.suspend();
            connection.close_in_background();
            return;
        }
        if cache::any_strangers()
            && let Some((address, port)) = self.peer(&core)
        {
            cache::is_understood(address, port);
        }
        core.stage = Stage::Up;
        core.upgrades += 1;
        COUNTERS.upgrades.fetch_add(1, Ordering::Relaxed);
        self.set_reason(Reason::None);
        self.failures.store(0, Ordering::Relaxed);
        let inline = core
            .tcp
            .as_ref()
            .and_then(|tcp| kernel::number(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE));
        connection.set_urgent_inline(inline.is_some_and(|inline| inline != 0));
        core.connection = Some(Arc::clone(&connection));
        let me: Weak<dyn Observer> = self.me.clone();
        let zeal = self.zeal(&core);
        core.told_zeal = Some(zeal);
        if parts {
            self.part_joined(&mut core);
        } else if self.role == Role::Accepted {
            self.tx.phase.store(GUARDED, Ordering::SeqCst);
            self.cut(&mut core);
        }
        drop(core);
        self.shown.session(&connection);
        connection.attend(Some((me, zeal)));
        self.moved();
        service::need(self);
    }
}
