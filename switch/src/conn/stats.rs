//! What a connection counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Connection;

/// Counted by the threads that wait, outside the lock.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) spins: AtomicU64,
    pub(super) sleeps: AtomicU64,
}

/// What has happened on a connection. All zero over TCP, where the kernel counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Control messages sent.
    pub messages_sent: u64,
    /// Control messages received.
    pub messages_received: u64,
    /// Bytes of the stream sent, by any path.
    pub bytes_sent: u64,
    /// Bytes of the stream received or announced, by any path.
    pub bytes_received: u64,
    /// Bytes this side has fetched by RDMA reads.
    pub rdma_read_bytes: u64,
    /// Bytes this side has delivered by RDMA writes.
    pub rdma_write_bytes: u64,
    /// Bytes the peer has fetched from this side by RDMA reads. Known when it says so.
    pub peer_read_bytes: u64,
    /// Bytes the peer has delivered to this side by RDMA writes. Known when it says so.
    pub peer_write_bytes: u64,
    /// RDMA reads this side has made.
    pub rdma_reads: u64,
    /// RDMA writes this side has made.
    pub rdma_writes: u64,
    /// Large transfers begun by this side.
    pub large_sent: u64,
    /// Large transfers begun by the peer.
    pub large_received: u64,
    /// Messages sent for nothing but credit.
    pub credit_messages_sent: u64,
    /// Messages received for nothing but credit.
    pub credit_messages_received: u64,
    /// Times that data began to wait for credit.
    pub stalls: u64,
    /// Parts of large transfers that memory was short for, here.
    pub refused_sent: u64,
    /// Parts of large transfers that memory was short for, at the peer.
    pub refused_received: u64,
    /// Registrations and exposures of memory for large transfers.
    pub registrations: u64,
    /// Times that a call had to wait and spun first.
    pub spins: u64,
    /// Times that a call slept.
    pub sleeps: u64,
    /// Bytes that wait here for the application.
    pub unread: u64,
    /// Bytes accepted from the application that wait here.
    pub unsent: u64,
}

impl Connection {
    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        let session = state.session.stats();
        let unsent = state.outbox.len() + state.transfers.send_bytes();
        Stats {
            messages_sent: session.messages_sent,
            messages_received: session.messages_received,
            bytes_sent: session.bytes_sent,
            bytes_received: session.bytes_received,
            rdma_read_bytes: session.rdma_read_bytes,
            rdma_write_bytes: session.rdma_write_bytes,
            peer_read_bytes: session.peer_read_bytes,
            peer_write_bytes: session.peer_write_bytes,
            rdma_reads: session.rdma_reads,
            rdma_writes: session.rdma_writes,
            large_sent: session.large_sent,
            large_received: session.large_received,
            credit_messages_sent: session.credits_sent,
            credit_messages_received: session.credits_received,
            stalls: session.stalls,
            refused_sent: session.refused_sent,
            refused_received: session.refused_received,
            registrations: state.transfers.registrations,
            spins: self.counts.spins.load(Ordering::Relaxed),
            sleeps: self.counts.sleeps.load(Ordering::Relaxed),
            unread: state.session.unread(),
            unsent: u64::try_from(unsent).unwrap_or(u64::MAX),
        }
    }
}
