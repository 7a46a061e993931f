//! A kernel TCP connection of a program that does not know the switch, and the SAN connection that
//! may come to carry its bytes.
//!
//! The application's descriptor is the kernel's socket for life. A [`Companion`] stands for one
//! such connection in this process; each of its two directions is carried by the kernel or by the
//! SAN, and changes from one to the other at an exact byte.
//!
//! What each file owns: this one what a companion is, and that each call on the kernel announces
//! itself; [`kernel`] the calls on the application's descriptor; [`data`] receiving and sending;
//! [`ending`] half closes and the end; [`readiness`] what is there to be read or written;
//! [`report`] what is told about a connection; [`registry`] the list of all companions; [`reason`]
//! why the kernel carries a connection; [`rules`] which connections may leave the kernel at all;
//! [`worth`] when they are to; [`state`] where each direction is; [`joining`] how a session comes to
//! carry it; [`cut`] the sending direction's going over; [`guard`] the receiving direction while the
//! [`marker`] may come; [`back`] the way back; [`tend`] the service thread's part; [`service`]
//! finding the peer; [`cache`] peers that do not answer; [`shadow`] what poll sets see; [`shown`]
//! what those see who look on; [`fork`] processes that share a connection; [`hand`] what goes back
//! to the peer when the SAN is left; [`retain`] going on when it was lost; [`waiting`] what those see
//! who wait for many of them; [`parting`] the end while a marker may come; [`doubt`] bytes that look
//! like one; [`unread`] how much there is to be read.
//!
//! Invariants: every byte that crosses by either path is counted once; no lock is held while a
//! thread waits in the kernel; a connection that is never upgraded costs a few atomic operations
//! for each call and nothing else.

mod back;
mod cache;
#[allow(unsafe_code)]
mod calls;
mod cut;
#[allow(unsafe_code)]
mod data;
mod doubt;
mod ending;
#[allow(unsafe_code)]
mod fork;
mod guard;
mod hand;
mod joining;
#[allow(unsafe_code)]
mod kernel;
mod marker;
mod parting;
mod readiness;
mod reason;
#[allow(unsafe_code)]
mod registry;
mod report;
mod retain;
pub mod rules;
mod service;
mod shadow;
mod shown;
mod state;
mod tend;
#[cfg(test)]
mod tests;
mod unread;
mod waiting;
mod worth;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use rules::{Prospect, Verdict};
use shown::Shown;
use state::{Core, Direction, GUARDED, KERNEL, SAN};

use crate::conn::Connection;

pub use crate::conn::Trials;
pub use calls::Jump;
pub use data::{Receiving, Sending};
pub use kernel::{Kernel, set_kernel};
pub use reason::{Path, Reason};
pub use registry::{Snapshot, Totals, all, is_off, totals};
pub use waiting::{
    Armed, Chore, Herald, Next, Sleeper, Watcher, kick, lower_own_wake_up, own_wake_up, serve,
    set_herald, spin_time,
};

/// Which end of the connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It called connect().
    Connected,
    /// It called accept().
    Accepted,
}

/// See the module.
pub struct Companion {
    role: Role,
    rx: Direction,
    tx: Direction,
    /// Bytes of one direction after which an upgrade is sought.
    trigger: AtomicU64,
    /// The same for turns.
    trigger_turns: AtomicU32,
    /// Times that a send came after a receive.
    turns: AtomicU32,
    /// The last call has received.
    last_received: AtomicBool,
    /// Urgent data went over the kernel: the peer's count of the stream is not known.
    poisoned: AtomicBool,
    /// The application has heard of the reset; as with TCP, that is told once.
    reset_told: AtomicBool,
    /// The process ends.
    leaving: AtomicBool,
    failures: AtomicU32,
    reason: AtomicU8,
    has_shadow: AtomicBool,
    /// The application has asked for the error.
    error_taken: AtomicBool,
    /// A waiter looks after what is to be shown.
    attended: AtomicBool,
    /// Times that a send found no room on the SAN.
    stalls: AtomicU32,
    /// As of the last look: changes with each arrival, and each time that room comes back.
    arrived: AtomicU32,
    roomy: AtomicU32,
    /// Held for moments; see [`state`].
    core: Mutex<Core>,
    /// The processes that share it, once it was forked with.
    share: OnceLock<Option<fork::Share>>,
    me: Weak<Companion>,
    watcher: OnceLock<Arc<dyn Watcher>>,
    /// A waiter has looked and is to be told of what it does not see.
    observed: AtomicBool,
    /// Its end was told in the log.
    summed_up: AtomicBool,
    /// The herald is to be asked before the SAN is sought.
    announced: AtomicBool,
    /// Where others see it.
    shown: Shown,
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
    /// byte has crossed it. `None` if nothing can ever upgrade it. Makes no system call, unless a
    /// rule wants the upgrade at once.
    #[must_use]
    pub fn new(fd: BorrowedFd<'_>, role: Role) -> Option<Arc<Companion>> {
        if is_off() || fork::is_orphaned() {
            return None;
        }
        let prospect = rules::active().prospect(role);
        let (bytes, turns) = match prospect {
            Prospect::Certain(Verdict::Tcp) => return None,
            // The service thread asks for the addresses.
            Prospect::Open => (1, 1),
            Prospect::Certain(Verdict::San) => worth::worth(role),
            // A process that accepts may only hand the connection on to a child: its first use
            // tells whose it is.
            Prospect::Certain(Verdict::Eager) if role == Role::Accepted => (1, 1),
            Prospect::Certain(Verdict::Eager) => (u64::MAX, u32::MAX),
        };
        let number = fd.as_raw_fd();
        let made = registry::enter(|me, slot| Companion {
            role,
            rx: Direction::default(),
            tx: Direction::default(),
            trigger: AtomicU64::new(bytes),
            trigger_turns: AtomicU32::new(turns),
            turns: AtomicU32::new(0),
            last_received: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            reset_told: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            reason: AtomicU8::new(Reason::None.number()),
            has_shadow: AtomicBool::new(false),
            error_taken: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            stalls: AtomicU32::new(0),
            arrived: AtomicU32::new(0),
            roomy: AtomicU32::new(0),
            core: Mutex::default(),
            share: OnceLock::new(),
            me: me.clone(),
            watcher: OnceLock::new(),
            observed: AtomicBool::new(false),
            summed_up: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            shown: Shown::new(role, number),
            slot,
            number,
        });
        if prospect == Prospect::Certain(Verdict::Eager) && role == Role::Connected {
            service::seek(&made, number);
        }
        Some(made)
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
        let receiving = Receiving::new(self, fd);
        (self.rx.phase() == KERNEL).then_some(receiving)
    }

    /// To be called before a sending call of the kernel; `None`: use [`Companion::send`].
    #[inline]
    pub fn begin_send(&self, fd: RawFd) -> Option<Sending<'_>> {
        if self.tx.phase() == GUARDED {
            self.cut_now();
        }
        let sending = Sending::new(self, fd);
        matches!(self.tx.phase(), KERNEL | GUARDED).then_some(sending)
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.core.lock().connection.clone()
    }

    /// What carries this direction if the SAN does. One without the other could be of different
    /// sessions: a thread may stand still in between for as long as a way back and an upgrade take.
    fn carrier(&self, direction: &Direction) -> Option<Arc<Connection>> {
        let core = self.core.lock();
        let connection = core.connection.as_ref();
        connection
            .filter(|_| direction.phase() == SAN)
            .map(Arc::clone)
    }

    /// The calling thread is about to wait for the end of all calls: its own do not end before that.
    fn forget_own_calls(&self) {
        for direction in [&self.rx, &self.tx] {
            calls::forget_own(&direction.inflight);
            calls::forget_own(&direction.busy);
        }
    }

    /// Urgent data goes over the kernel.
    fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    /// What the end of the process does to companions, for those who end it without the C
    /// library's handlers: has everything delivered that was sent, within a time. May be called
    /// again, and from a signal handler.
    pub fn leave() {
        service::leave();
    }

    // ---- fork

    /// To be called right before fork().
    pub fn before_fork() {
        fork::before();
    }

    /// To be called in the parent right after fork(), also if it failed.
    pub fn after_fork_in_parent() {
        fork::after_in_parent();
    }

    /// To be called in the child right after fork().
    pub fn after_fork_in_child() {
        fork::after_in_child();
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if self.rx.phase() == GUARDED {
            self.rx_to(KERNEL);
        }
        self.forsake();
        registry::leave(self);
    }
}
