//! The way out: what the engine asks of the switch above it and of the operating system.
//!
//! Owns the traits that `spi` implements, and the count of upcalls under way for one socket.
//! Invariant: once the switch's socket was given back, no upcall for it is begun; it is given back
//! exactly once, when the socket is closed and the last upcall has returned.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{Ending, TransferError};
use super::handles::Handle;

/// The switch's own number for a socket. Goes into upcalls only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SwitchSocket(pub(crate) usize);

/// An event object of the switch. Opaque.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventObject(pub(crate) usize);

/// Stands for the overlapped structure of one operation. The engine never looks behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    /// Where the structure is.
    pub(crate) address: usize,
    /// Whether the switch wants an upcall; otherwise it polls.
    pub(crate) notify: bool,
    /// Handed back with the result.
    pub(crate) flags: u32,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Done,
    /// The message was larger than the memory posted for it.
    Truncated,
    /// The remote memory could not be reached as asked.
    RemoteAccess,
    /// The connection ended first.
    Flushed(Ending),
    /// It had to wait before it began, and then could not begin.
    Rejected(TransferError),
}

/// One completed operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    pub(crate) ticket: Ticket,
    pub(crate) end: End,
    pub(crate) bytes: usize,
}

/// The switch, as the engine sees it. `open`, `close`, `report`, `set` and `reset` run the switch's
/// code, which may call back into the engine: they are called with no lock held. `begin` and
/// `publish` only store into the overlapped structure.
pub(crate) trait Switch: Send + Sync {
    /// A switch socket for a new socket of ours; the error is the switch's own code.
    fn open(&self, catalog: u32, socket: Handle) -> Result<SwitchSocket, i32>;
    /// The last upcall for the socket.
    fn close(&self, socket: SwitchSocket);
    /// Marks the operation as in progress. Comes before it is handed to the fabric.
    fn begin(&self, ticket: &Ticket, bytes: usize);
    /// Stores the result of an operation whose owner polls. The structure belongs to the switch
    /// again when this returns.
    fn publish(&self, report: &Report);
    /// Tells of the result of an operation whose owner wants an upcall.
    fn report(&self, socket: SwitchSocket, report: &Report);
    fn set(&self, event: EventObject);
    fn reset(&self, event: EventObject);
}

/// The few system calls that the engine needs and may not make itself.
pub(crate) trait System: Send + Sync {
    /// A descriptor that `signal` makes readable and `drain` unreadable.
    fn wake_descriptor(&self) -> io::Result<OwnedFd>;
    fn signal(&self, descriptor: BorrowedFd<'_>);
    fn drain(&self, descriptor: BorrowedFd<'_>);
    /// Sleeps until one of the descriptors is readable or the time is over. May return early.
    fn sleep(&self, descriptors: &[BorrowedFd<'_>], longest: Option<std::time::Duration>);
    /// A descriptor that is readable while one of these is; the caller's.
    fn any_of(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<OwnedFd>;
    /// Keeps the host's signal handlers off the calling thread.
    fn block_signals(&self);
}

/// A descriptor that wakes one sleeper.
pub(crate) struct Wake {
    system: Arc<dyn System>,
    descriptor: OwnedFd,
}

impl Wake {
    pub(crate) fn new(system: &Arc<dyn System>) -> io::Result<Self> {
        Ok(Self {
            system: Arc::clone(system),
            descriptor: system.wake_descriptor()?,
        })
    }

    pub(crate) fn signal(&self) {
        self.system.signal(self.descriptor());
    }

    pub(crate) fn drain(&self) {
        self.system.drain(self.descriptor());
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.descriptor.as_fd()
    }
}

/// One socket's way to the switch.
pub(crate) struct Outlet {
    pub(crate) switch: Arc<dyn Switch>,
    socket: OnceLock<SwitchSocket>,
    /// 1 while the socket is open, and 1 for each upcall under way. At 0 the switch's socket goes
    /// back; it never rises from 0.
    uses: AtomicUsize,
}

impl Outlet {
    pub(crate) fn new(switch: Arc<dyn Switch>) -> Self {
        Self {
            switch,
            socket: OnceLock::new(),
            uses: AtomicUsize::new(1),
        }
    }

    /// Obtains the switch's socket.
    pub(crate) fn open(&self, catalog: u32, handle: Handle) -> Result<(), i32> {
        let socket = self.switch.open(catalog, handle)?;
        // Called once per socket; a second value would have no owner.
        if self.socket.set(socket).is_err() {
            self.switch.close(socket);
        }
        Ok(())
    }

    /// Holds the switch's socket during an upcall. None when it was given back.
    pub(crate) fn enter(&self) -> Option<Use<'_>> {
        let mut uses = self.uses.load(Ordering::Relaxed);
        loop {
            if uses == 0 {
                return None;
            }
            // Acquire: pairs with the release of the thread that last left.
            match self.uses.compare_exchange_weak(
                uses,
                uses + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Use { outlet: self }),
                Err(now) => uses = now,
            }
        }
    }

    /// Says that the socket is closed. Called once.
    pub(crate) fn close(&self) {
        self.leave();
    }

    fn leave(&self) {
        // AcqRel: everything that was done under a use happens before the switch's socket goes
        // back.
        if self.uses.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(&socket) = self.socket.get()
        {
            // req: WSD-11, the last upcall for the socket.
            self.switch.close(socket);
        }
    }
}

/// The promise that the switch's socket is still there.
pub(crate) struct Use<'a> {
    outlet: &'a Outlet,
}

impl Use<'_> {
    pub(crate) fn report(&self, report: &Report) {
        if let Some(&socket) = self.outlet.socket.get() {
            self.outlet.switch.report(socket, report);
        }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.outlet.leave();
    }
}
