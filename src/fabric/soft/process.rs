//! The processes of peers, watched for their end.
//!
//! The Unix socket of a connection tells of the peer's end only when nobody holds the peer's side
//! any more; a child that the peer forked does. So each peer process is watched by its pidfd too,
//! once for all connections to it. Where the kernel has no pidfd, the socket alone has to do.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use super::core::{Core, Watched};
use super::sys;

/// A process at the other end of connections.
#[derive(Debug)]
pub(super) struct Process {
    core: Weak<Core>,
    id: u64,
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// The watched process of a peer; none for this process itself, or if it cannot be watched.
    pub(super) fn of_peer(core: &Arc<Core>, pid: i32) -> Option<Arc<Self>> {
        if pid <= 0 || u32::try_from(pid) == Ok(std::process::id()) {
            return None;
        }
        // Nothing is dropped while the table is locked.
        let known = core.select(|object| match object {
            Watched::Process(process) => process.upgrade(),
            _ => None,
        });
        // One that has ended may have left its number to another.
        let same = known
            .iter()
            .find(|process| process.pid == pid && !process.has_ended());
        if let Some(process) = same {
            return Some(Arc::clone(process));
        }
        let fd = sys::process(pid).ok()?;
        let id = core.identifier();
        let process = Arc::new(Self {
            core: Arc::downgrade(core),
            id,
            pid,
            fd,
        });
        core.watch(
            id,
            process.fd.as_fd(),
            Watched::Process(Arc::downgrade(&process)),
        )
        .ok()?;
        Some(process)
    }

    /// Whether there is no such process any more; "no" where that cannot be told.
    pub(super) fn is_certainly_gone(pid: i32) -> bool {
        match sys::process(pid) {
            Ok(fd) => sys::is_readable(fd.as_fd()),
            Err(error) => pid > 0 && error.raw_os_error() == Some(libc::ESRCH),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        sys::is_readable(self.fd.as_fd())
    }

    /// The process has ended.
    pub(super) fn ready(self: &Arc<Self>, core: &Core) {
        core.unwatch(self.id, self.fd.as_fd());
        let endpoints = core.select(|object| match object {
            Watched::Endpoint(endpoint) => endpoint.upgrade(),
            _ => None,
        });
        for endpoint in endpoints {
            endpoint.process_ended(self);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.unwatch(self.id, self.fd.as_fd());
        }
    }
}
