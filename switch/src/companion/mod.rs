//! A kernel TCP connection of a program that does not know the switch, and the SAN connection that
//! may come to carry its bytes.
//!
//! The application's descriptor is the kernel's socket for life. A [`Companion`] stands for one
//! such connection in this process; each of its two directions is carried by the kernel or by the
//! SAN, and changes from one to the other at an exact byte.
//!
//! What each file owns: this one what callers see and the counting of the bytes that the kernel
//! carries; [`kernel`] the calls on the application's descriptor; [`data`] receiving and sending;
//! [`registry`] the list of all companions; [`reason`] why the kernel carries a connection;
//! [`rules`] which connections may leave the kernel at all; [`waiting`] what those see who wait for
//! many of them.
//!
//! Invariants: every byte that crosses by either path is counted once; no lock is held while a
//! thread waits in the kernel; a connection that is never upgraded costs a few atomic operations
//! for each call and nothing else.

#[allow(unsafe_code)]
mod data;
#[allow(unsafe_code)]
mod kernel;
mod reason;
mod registry;
pub mod rules;
mod waiting;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use libc::c_int;

pub use data::{Receiving, Sending};
pub use kernel::{Kernel, set_kernel};
pub use reason::{Path, Reason};
pub use registry::{Snapshot, Totals, all, totals};
pub use waiting::{Chore, Next, Watcher, kick, serve};

/// Which end of the connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It called connect().
    Connected,
    /// It called accept().
    Accepted,
}

/// What the kernel has carried in one direction.
#[derive(Debug, Default)]
struct Direction {
    /// Calls that are in the kernel now.
    inflight: AtomicU32,
    /// Bytes since the companion was made, by any path.
    total: AtomicU64,
}

/// See the module.
pub struct Companion {
    role: Role,
    rx: Direction,
    tx: Direction,
    /// Times that a send came after a receive.
    turns: AtomicU32,
    reason: AtomicU8,
    me: Weak<Companion>,
    watcher: OnceLock<Arc<dyn Watcher>>,
    /// A waiter has looked and is to be told of what it does not see.
    observed: AtomicBool,
    slot: registry::Slot,
    /// The number the application knew the connection by when it was made.
    number: RawFd,
}

impl std::fmt::Debug for Companion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Companion")
            .field("role", &self.role)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Companion {
    /// A companion for a connection that has just been made by connect() or accept(), before any
    /// byte has crossed it. `None` if nothing can ever upgrade it. Makes no system call.
    #[must_use]
    pub fn new(fd: BorrowedFd<'_>, role: Role) -> Option<Arc<Companion>> {
        if registry::is_off() {
            return None;
        }
        Some(registry::enter(|me, slot| Companion {
            role,
            rx: Direction::default(),
            tx: Direction::default(),
            turns: AtomicU32::new(0),
            reason: AtomicU8::new(Reason::None.number()),
            me: me.clone(),
            watcher: OnceLock::new(),
            observed: AtomicBool::new(false),
            slot,
            number: fd.as_raw_fd(),
        }))
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// To be called before a receiving call of the kernel on `fd`; `None`: use
    /// [`Companion::receive`], which is also the only way to receive with MSG_WAITALL.
    #[inline]
    pub fn begin_receive(&self, fd: RawFd) -> Option<Receiving<'_>> {
        let _ = fd;
        self.rx.inflight.fetch_add(1, Ordering::SeqCst);
        Some(Receiving::new(self))
    }

    /// To be called before a sending call of the kernel; `None`: use [`Companion::send`].
    #[inline]
    pub fn begin_send(&self, fd: RawFd) -> Option<Sending<'_>> {
        let _ = fd;
        self.tx.inflight.fetch_add(1, Ordering::SeqCst);
        Some(Sending::new(self))
    }

    /// Half closes: both paths.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown(&self, fd: RawFd, how: c_int) -> io::Result<()> {
        kernel::shutdown(fd, how)
    }

    /// The last descriptor of this process for the connection is about to be closed by the caller.
    /// What the SAN has still to deliver is looked after in the background.
    pub fn close(&self, fd: RawFd) {
        self.tell_closed();
        let _ = fd;
    }

    /// Goes back to the kernel for good; returns when both directions are there. What has
    /// arrived and was not read stays readable through [`Companion::receive`].
    ///
    /// # Errors
    /// If the peer did not follow in time.
    pub fn downgrade(&self, fd: RawFd, why: Reason) -> io::Result<()> {
        let _ = fd;
        self.reason.store(why.number(), Ordering::Relaxed);
        Ok(())
    }

    // ---- readiness

    /// Whether the kernel's socket alone tells the truth about readiness.
    #[must_use]
    pub fn on_kernel(&self) -> bool {
        true
    }

    /// A descriptor that shows what poll(2) would show of a TCP socket, as of the last
    /// [`Companion::refresh`]. Made at the first use, kept by the companion.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub fn shadow(&self) -> io::Result<RawFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Looks for news, without blocking, makes the shadow show them if there is one, and returns
    /// what poll(2) would.
    pub fn refresh(&self) -> i16 {
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
        kernel::poll_now(self.number, all)
    }

    /// Prepares for sleep: the descriptor to sleep on, readable at news; or `None` if there are
    /// news already.
    pub fn arm(&self) -> Option<RawFd> {
        None
    }

    /// Somebody who waits looks after the companion itself, or does no more.
    pub fn attended(&self, on: bool) {
        let _ = on;
    }

    /// FIONREAD, if the kernel's answer would not be the truth.
    pub fn ioctl_fionread(&self) -> Option<usize> {
        None
    }

    /// sockatmark(3), if the kernel's answer would not be the truth.
    pub fn at_mark(&self) -> Option<bool> {
        None
    }

    /// Why the kernel carries the connection.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::from_number(self.reason.load(Ordering::Relaxed))
    }

    /// What carries the connection.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::Tcp
    }

    /// What there is to tell about it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            number: self.number,
            role: self.role,
            path: self.path(),
            reason: self.reason(),
            received_tcp: self.rx.total.load(Ordering::Relaxed),
            sent_tcp: self.tx.total.load(Ordering::Relaxed),
            received_san: 0,
            sent_san: 0,
            upgrades: 0,
            downgrades: 0,
            session: None,
            session_id: [0; 16],
        }
    }

    // ---- fork

    /// To be called right before fork().
    pub fn before_fork() {
        registry::before_fork();
    }

    /// To be called in the parent right after fork(), also if it failed.
    pub fn after_fork_in_parent() {
        registry::after_fork_in_parent();
    }

    /// To be called in the child right after fork().
    pub fn after_fork_in_child() {
        registry::after_fork_in_child();
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        registry::leave(&self.slot);
    }
}
