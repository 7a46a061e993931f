//! What an endpoint has of its connection, and how the two sides wake each other.
//!
//! Owns the shared segment, the Unix socket and the peer's eventfd. Each side keeps an arming word
//! in shared memory with one field per sleeper: a thread that waits on the endpoint's eventfd, the
//! progress thread that wants to know of completions, and the progress thread as the one that
//! serves pipelined RDMA. A field holds the things its sleeper wants to be woken for.
//!
//! The invariant against lost wake-ups, all of it sequentially consistent: the sleeper sets its
//! field, then looks for work; the other side makes work visible, then looks at the field. One of
//! them sees the other. Who clears a field owes the signal.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::process::Process;
use super::shm::{Lane, Ring, Segment};
use super::sys;

/// Things to be woken for.
pub(super) mod reason {
    /// A message was put into the ring.
    pub(in super::super) const MESSAGE: u32 = 1;
    /// Ring space was given back.
    pub(in super::super) const SPACE: u32 = 2;
    /// A request of pipelined RDMA.
    pub(in super::super) const REQUEST: u32 = 4;
    /// An answer of pipelined RDMA.
    pub(in super::super) const ANSWER: u32 = 8;
    /// The other side disconnected.
    pub(in super::super) const END: u32 = 16;
    /// Space of the service ring was given back.
    pub(in super::super) const SERVICE_SPACE: u32 = 32;
}

/// The sleepers that have a field in the arming word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sleeper {
    /// Woken through the eventfd.
    Waiter,
    /// Woken through the Unix socket, which the progress thread watches anyway.
    Progress,
    /// As `Progress`, for work that no thread of the application asked for.
    Service,
}

const FIELD: u32 = 0xFF;

impl Sleeper {
    const ALL: [Self; 3] = [Self::Waiter, Self::Progress, Self::Service];

    fn shift(self) -> u32 {
        match self {
            Self::Waiter => 0,
            Self::Progress => 8,
            Self::Service => 16,
        }
    }
}

/// The connected state of an endpoint.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) segment: Segment,
    /// Stays open: its end is how the death of the peer is noticed.
    pub(super) socket: OwnedFd,
    pub(super) peer_event: OwnedFd,
    /// The peer's process, as this process may name it.
    pub(super) pid: i32,
    /// The same, watched for its end.
    pub(super) process: Option<Arc<Process>>,
    /// Whether this side reaches the peer's memory by itself.
    pub(super) direct: AtomicBool,
    /// Names this side's exposures in descriptors.
    pub(super) own_nonce: u64,
    /// Names the peer's exposures in descriptors.
    pub(super) peer_nonce: u64,
}

impl Link {
    /// The ring into which this side writes.
    #[inline]
    pub(super) fn outgoing(&self, lane: Lane) -> Ring<'_> {
        self.segment.ring(self.segment.side(), lane)
    }

    /// The ring from which this side reads.
    #[inline]
    pub(super) fn incoming(&self, lane: Lane) -> Ring<'_> {
        self.segment.ring(self.segment.side().other(), lane)
    }

    /// Wakes the sleepers of the peer that armed for `reason`, after that became visible.
    #[inline]
    pub(super) fn wake(&self, reason: u32) {
        let any = reason | reason << 8 | reason << 16;
        let word = self.segment.peer().arming.word.load(Ordering::SeqCst);
        if word & any != 0 {
            self.wake_armed(word & any);
        }
    }

    #[cold]
    fn wake_armed(&self, wanted: u32) {
        let mut fields = 0;
        for sleeper in Sleeper::ALL {
            if wanted >> sleeper.shift() & FIELD != 0 {
                fields |= FIELD << sleeper.shift();
            }
        }
        let cleared = self
            .segment
            .peer()
            .arming
            .word
            .fetch_and(!fields, Ordering::SeqCst)
            & fields;
        if cleared & FIELD != 0 {
            sys::signal(self.peer_event.as_fd());
        }
        if cleared & !FIELD != 0 {
            self.nudge();
        }
    }

    /// Makes the peer's progress thread look at this connection.
    pub(super) fn nudge(&self) {
        // A full socket buffer holds enough nudges; a closed one has nobody to nudge.
        drop(sys::send_message(self.socket.as_fd(), &[1], &[]));
    }

    /// Whether the peer has gone, asked of the kernel.
    pub(super) fn is_peer_gone(&self) -> bool {
        sys::is_hung_up(self.socket.as_fd())
            || self
                .process
                .as_ref()
                .is_some_and(|process| process.has_ended())
    }

    #[inline]
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// Sets what `sleeper` of this side wants to be woken for.
    pub(super) fn arm(&self, sleeper: Sleeper, reasons: u32) {
        let word = &self.segment.own().arming.word;
        word.fetch_or((reasons & FIELD) << sleeper.shift(), Ordering::SeqCst);
    }

    pub(super) fn disarm(&self, sleeper: Sleeper) {
        let word = &self.segment.own().arming.word;
        word.fetch_and(!(FIELD << sleeper.shift()), Ordering::SeqCst);
    }
}
