//! What a session is told at its beginning, what it learns of its peer, and what it counts.

use core::time::Duration;

use super::credit::MIN_RECEIVES;
use super::error::ConfigError;
use super::message::{CompanionInfo, HEADER, MAX_DESCRIPTOR, VERSION};

/// Smallest receive buffer, and smallest longest message: every message without application data
/// fits.
pub const MIN_BUFFER: u32 = 256;
/// Shortest idle time after which anybody is asked for a sign of life.
pub(super) const MIN_KEEP_ALIVE: Duration = Duration::from_millis(100);
/// Most receive buffers a side may post.
const MAX_RECEIVES: u32 = 65_535;
/// Versions that a session may be told to speak. Those to come differ in their number only, which is
/// enough to see two sides agree, or not.
const HIGHEST: u8 = if cfg!(any(test, feature = "testing")) {
    99
} else {
    VERSION
};

/// Which side of the connection a session is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Connected; speaks first.
    Connector,
    /// Accepted the connection.
    Acceptor,
}

/// How this side's large sends go. Decided by what the receiver's provider can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendMode {
    /// The receiver reads.
    Read,
    /// The sender writes where the receiver tells.
    Write,
    /// Neither is possible: everything goes in messages.
    MessagesOnly,
}

/// What a session may use, and how it shall behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// The lowest and the highest version of the protocol that this side speaks: all there are,
    /// except in tests.
    pub versions: (u8, u8),
    /// Receives that are posted before the first action is drained.
    pub receive_buffers: u32,
    /// Size of each of them, header included.
    pub receive_buffer_size: u32,
    /// Messages that may be polled and not yet reported by `handle_sent`.
    pub send_buffers: u32,
    /// Largest message this side can send.
    pub max_message: u32,
    /// The own provider has WSPRdmaRead.
    pub rdma_read: bool,
    /// Send large data by WSPRdmaWrite even to a peer whose provider can read.
    pub push: bool,
    /// Largest single RDMA of the own provider; 0 means that it has none.
    pub max_rdma: u64,
    /// RDMA operations in flight at once, for each direction of the stream.
    pub max_rdma_in_flight: u32,
    /// Length of the descriptors the own provider makes; 0 means that it cannot expose memory.
    pub descriptor_len: usize,
    /// Longest descriptor accepted from the peer.
    pub max_descriptor: usize,
    /// Above this many bytes RDMA pays for this side. The larger value of the two sides counts.
    pub threshold: u64,
    /// Most bytes of a large send that are copied into its first message.
    pub initial_portion: u32,
    /// Most bytes of small and urgent data that ever wait to be read.
    pub inbox_limit: u64,
    /// Most bytes of temporary memory ever in use.
    pub temp_limit: u64,
    /// Largest single temporary memory.
    pub temp_chunk: u64,
    /// Most bytes of refused transfers that ever wait to be read.
    pub fill_limit: u64,
    /// Large transfers in flight at once, for each direction.
    pub max_large: u16,
    /// Sends that may be queued.
    pub max_sends: usize,
    /// Idle time after which the peer is asked for a sign of life; at least 100 ms are taken.
    pub keep_alive: Option<Duration>,
    /// Time for the negotiation.
    pub negotiation_timeout: Duration,
    /// Time for the peer's part of a close once nothing is left to do here.
    pub close_timeout: Duration,
    /// Names the session; the connector's counts.
    pub session_id: [u8; 16],
    /// The driver handles [`Suspend`](super::Message::Suspend): a direction that ends like that goes
    /// on elsewhere.
    pub suspend: bool,
    /// The driver handles that the peer leaves ([`Session::leave`](super::Session::leave)).
    pub returns: bool,
    /// The driver keeps what is not certain to have arrived, and goes on elsewhere with a
    /// [`Resume`](super::Resume) when the connection is lost.
    pub resumes: bool,
    /// Most bytes that the peer may give back.
    pub return_limit: u64,
    /// Connector: the connection whose stream this session is to carry.
    pub companion: Option<CompanionInfo>,
    /// Acceptor: only an offer with a companion will do, and the driver decides about it
    /// ([`Action::CompanionOffered`](super::Action::CompanionOffered)). Otherwise only one without.
    pub companion_wanted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            versions: (1, VERSION),
            receive_buffers: 64,
            receive_buffer_size: 8 * 1024 + 32,
            send_buffers: 32,
            max_message: 64 * 1024,
            rdma_read: true,
            push: false,
            max_rdma: 1 << 30,
            max_rdma_in_flight: 2,
            descriptor_len: 32,
            max_descriptor: MAX_DESCRIPTOR,
            threshold: 64 * 1024,
            initial_portion: 8 * 1024,
            inbox_limit: 512 * 1024,
            temp_limit: 1024 * 1024,
            temp_chunk: 256 * 1024,
            fill_limit: 64 * 1024,
            max_large: 4,
            max_sends: 64,
            keep_alive: None,
            negotiation_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            session_id: [0; 16],
            suspend: false,
            returns: false,
            resumes: false,
            return_limit: 64 * 1024 * 1024,
            companion: None,
            companion_wanted: false,
        }
    }
}

impl Config {
    /// Refuses what cannot work and raises limits below which nothing would move.
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        let (lowest, highest) = self.versions;
        if !(1..=highest).contains(&lowest) || highest > HIGHEST {
            return Err(ConfigError::NoSuchVersion);
        }
        if self.receive_buffers < MIN_RECEIVES {
            return Err(ConfigError::TooFewReceives);
        }
        if self.receive_buffers > MAX_RECEIVES {
            return Err(ConfigError::TooManyReceives);
        }
        if self.receive_buffer_size < MIN_BUFFER || self.max_message < MIN_BUFFER {
            return Err(ConfigError::BufferTooSmall);
        }
        if self.send_buffers == 0 || self.max_sends == 0 {
            return Err(ConfigError::NoSends);
        }
        if self.descriptor_len > MAX_DESCRIPTOR || self.max_descriptor > MAX_DESCRIPTOR {
            return Err(ConfigError::DescriptorTooLong);
        }
        let payload = u64::from(self.receive_payload());
        self.inbox_limit = self.inbox_limit.max(2 * payload);
        self.fill_limit = self.fill_limit.max(payload);
        self.temp_chunk = self.temp_chunk.clamp(1, u32::MAX.into());
        self.temp_limit = self.temp_limit.max(self.temp_chunk);
        self.keep_alive = self.keep_alive.map(|idle| idle.max(MIN_KEEP_ALIVE));
        self.max_rdma_in_flight = self.max_rdma_in_flight.clamp(1, 256);
        Ok(self)
    }

    /// Most application bytes that one received message can bring.
    pub(super) const fn receive_payload(&self) -> u32 {
        self.receive_buffer_size.saturating_sub(HEADER)
    }
}

/// What the peer said in the negotiation, and what follows from both sides' words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The version agreed upon.
    pub version: u8,
    /// The peer's provider has WSPRdmaRead.
    pub rdma_read: bool,
    /// The peer takes urgent data.
    pub urgent: bool,
    /// Both sides can be suspended.
    pub suspend: bool,
    /// Both sides can leave.
    pub returns: bool,
    /// Both sides go on elsewhere when the connection is lost.
    pub resumes: bool,
    /// Receive buffers the peer posted.
    pub receive_buffers: u32,
    /// Size of each.
    pub receive_buffer_size: u32,
    /// Longest descriptor the peer accepts.
    pub max_descriptor: usize,
    /// Length of the descriptors the peer makes.
    pub descriptor_len: usize,
    /// Largest single RDMA, the smaller one of both sides.
    pub max_rdma: u64,
    /// Above this many bytes RDMA is used, the larger one of both sides.
    pub threshold: u64,
    /// Large transfers this side may have in flight, the smaller one of both sides.
    pub max_large: u16,
    /// Idle time before a keep-alive, the shorter one of both sides.
    pub keep_alive: Option<Duration>,
    /// How large sends of this side go.
    pub send_mode: SendMode,
    /// Application bytes in one message to the peer.
    pub payload: u32,
}

/// What has happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Messages of any type.
    pub messages_sent: u64,
    /// Messages of any type.
    pub messages_received: u64,
    /// Messages with small data.
    pub data_sent: u64,
    /// Messages with small data.
    pub data_received: u64,
    /// Bytes of the stream given to messages or large transfers.
    pub bytes_sent: u64,
    /// Bytes of the stream announced by the peer.
    pub bytes_received: u64,
    /// Messages with urgent data.
    pub urgent_sent: u64,
    /// Messages with urgent data.
    pub urgent_received: u64,
    /// Large transfers begun.
    pub large_sent: u64,
    /// Large transfers begun.
    pub large_received: u64,
    /// RDMA reads asked for.
    pub rdma_reads: u64,
    /// Bytes of those reads.
    pub rdma_read_bytes: u64,
    /// RDMA writes asked for.
    pub rdma_writes: u64,
    /// Bytes of those writes.
    pub rdma_write_bytes: u64,
    /// Bytes of this side's large transfers that the peer has fetched by RDMA reads.
    pub peer_read_bytes: u64,
    /// Bytes of the peer's large transfers that the peer has delivered by RDMA writes.
    pub peer_write_bytes: u64,
    /// Messages sent for their credit alone.
    pub credits_sent: u64,
    /// Messages received for their credit alone.
    pub credits_received: u64,
    /// Parts of transfers that could not be moved by RDMA.
    pub refused_sent: u64,
    /// Parts of transfers that the peer could not move by RDMA.
    pub refused_received: u64,
    /// Bytes sent in messages because RDMA was refused.
    pub fill_bytes_sent: u64,
    /// Bytes received in messages because RDMA was refused.
    pub fill_bytes_received: u64,
    /// Keep-alive messages.
    pub keep_alives_sent: u64,
    /// Times that data began to wait for credit.
    pub stalls: u64,
}
