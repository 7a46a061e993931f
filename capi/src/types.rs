//! What the header defines besides functions: numbers and structures. Both only ever grow at their
//! end; callers say how large theirs are.

use core::ffi::{c_char, c_int};

/// No connection yet.
pub const WSD_PATH_NONE: c_int = 0;
/// A SAN carries the connection; of a listener: connections may come over one.
pub const WSD_PATH_SAN: c_int = 1;
/// TCP carries the connection.
pub const WSD_PATH_TCP: c_int = 2;

/// The level of the options that only this library has. All are ints and are set before connecting
/// or listening; afterwards they give EISCONN.
pub const SOL_WSD: c_int = 0x5753_4400;
/// Of SOL_WSD: how large data travels, one of WSD_MODE_*.
pub const WSD_SO_MODE: c_int = 1;
/// Of SOL_WSD: how a blocking send of large data is done, one of WSD_SEND_*.
pub const WSD_SO_SEND_POLICY: c_int = 2;

/// The receiver pulls where its provider can, otherwise the sender pushes. The default.
pub const WSD_MODE_AUTO: c_int = 0;
/// As WSD_MODE_AUTO; says that pulling is wanted.
pub const WSD_MODE_READ: c_int = 1;
/// The sender pushes.
pub const WSD_MODE_WRITE: c_int = 2;
/// No SAN at all.
pub const WSD_MODE_TCP: c_int = 3;

/// What fits in the send buffer is copied, of more than that the rest is sent from the caller's
/// memory. The default.
pub const WSD_SEND_AUTO: c_int = 0;
/// Always from the caller's memory: a send returns when the peer has the data.
pub const WSD_SEND_ZERO_COPY: c_int = 1;
/// Always copied.
pub const WSD_SEND_BACKGROUND: c_int = 2;

/// Which path a socket uses, and why. All strings are terminated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)] // a structure of the header
pub struct wsd_transport_info {
    /// WSD_PATH_*.
    pub path: c_int,
    /// The code of the SAN's provider that led to TCP, as in wsdirect.h, or 0.
    pub provider_error: c_int,
    /// The provider that carries the connection, or nothing.
    pub provider: [c_char; 64],
    /// Why TCP: a short word that never changes, such as switch-off; or nothing.
    pub reason: [c_char; 32],
    /// Path and reason for people.
    pub text: [c_char; 160],
}

/// What has happened on a connection. All zero over TCP, where the kernel counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(non_camel_case_types)] // a structure of the header
pub struct wsd_stats_info {
    /// Bytes of the stream sent.
    pub bytes_sent: u64,
    /// Bytes of the stream received or announced.
    pub bytes_received: u64,
    /// Control messages sent.
    pub messages_sent: u64,
    /// Control messages received.
    pub messages_received: u64,
    /// Bytes this side has fetched by RDMA reads.
    pub rdma_read_bytes: u64,
    /// Bytes this side has delivered by RDMA writes.
    pub rdma_write_bytes: u64,
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
    /// Times that a call had to wait and spun first.
    pub spins: u64,
    /// Times that a call slept.
    pub sleeps: u64,
    /// Bytes that wait here for a receive.
    pub unread: u64,
    /// Bytes that were accepted and wait here to be sent.
    pub unsent: u64,
}
