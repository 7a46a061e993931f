//! The words between the machine and its driver: what to do, and what is there.

use core::ops::Range;

use super::error::{Failure, PullFailure, SendFailure};
use super::message::{CompanionInfo, Descriptor, Message, TransferId};
use super::rdma::RdmaId;

/// The driver's name for one send; unique among the unfinished ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SendId(pub u64);

/// Names a piece of temporary memory; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TempId(pub u64);

/// Names the application's buffer of one pull; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PullId(pub u64);

/// The memory an action is about. Offsets count from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Memory {
    /// The bytes of a send.
    Send(SendId),
    /// Temporary memory.
    Temp(TempId),
    /// The application's buffer of a pull.
    Application(PullId),
}

/// What is done to the memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// It is the source (MEM_READ).
    Read,
    /// It is the target (MEM_WRITE).
    Write,
}

/// What to do. Execute in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this message. Encode the head into a send buffer, copy the body behind it at once, post
    /// it; report with `handle_sent` when the buffer is free again.
    Message(Outgoing),
    /// Let the peer access a part of the memory; answer with `handle_exposed`.
    Expose {
        /// The memory.
        memory: Memory,
        /// What the peer may do.
        access: Access,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// Take the peer's access away.
    Conceal {
        /// As in `Expose`.
        memory: Memory,
    },
    /// Register a part of the memory for own RDMA; answer with `handle_registered`.
    Register {
        /// The memory.
        memory: Memory,
        /// What the own RDMA does to it.
        access: Access,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// Undo that.
    Deregister {
        /// As in `Register`.
        memory: Memory,
    },
    /// Get temporary memory, usable as target of RDMA reads; answer with `handle_allocated`.
    AllocateTemp {
        /// Its name from now on.
        temp: TempId,
        /// Its length.
        len: u64,
    },
    /// Give it back.
    FreeTemp {
        /// Its name.
        temp: TempId,
    },
    /// Read from the peer's memory; answer with `handle_rdma_done`.
    RdmaRead {
        /// Names the operation.
        rdma: RdmaId,
        /// The target.
        memory: Memory,
        /// Where in the target.
        offset: u64,
        /// Bytes to move.
        len: u64,
        /// The source.
        remote: Descriptor,
        /// Where in the source.
        remote_offset: u64,
    },
    /// Write to the peer's memory; answer with `handle_rdma_done`.
    RdmaWrite {
        /// Names the operation.
        rdma: RdmaId,
        /// The source.
        memory: Memory,
        /// Where in the source.
        offset: u64,
        /// Bytes to move.
        len: u64,
        /// The target.
        remote: Descriptor,
        /// Where in the target.
        remote_offset: u64,
    },
    /// A send is over, its memory is its owner's again. Exactly one per accepted send.
    SendComplete {
        /// The send.
        send: SendId,
        /// How it ended.
        result: Result<(), SendFailure>,
    },
    /// A pull is over, its memory is its owner's again. Exactly one per accepted pull.
    PullComplete {
        /// The pull.
        pull: PullId,
        /// Bytes that are there and count as consumed.
        result: Result<u64, PullFailure>,
    },
    /// The peer offers to carry the stream of this connection; answer with `answer_companion`.
    CompanionOffered(CompanionInfo),
    /// The negotiation has succeeded.
    Established,
    /// Close the connection. What the provider flushes then is still to be reported.
    Disconnect,
}

/// A message to send: a head to encode and a body to copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    pub(super) message: Message,
    pub(super) version: u8,
    pub(super) credit: u32,
    pub(super) body: Option<Body>,
}

impl Outgoing {
    /// Writes everything but the body; `None` if the buffer is shorter than [`Outgoing::head_len`].
    #[must_use]
    pub fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        self.message.encode(self.version, self.credit, buffer)
    }

    /// Length of what `encode` writes.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.message.head_len()
    }

    /// The bytes to copy behind the head.
    #[must_use]
    pub const fn body(&self) -> Option<Body> {
        self.body
    }

    /// Length of the whole message.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.head_len()
            + self
                .body
                .map_or(0, |body| usize::try_from(body.len).unwrap_or(0))
    }

    /// What it says.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// The cumulative credit it grants.
    #[must_use]
    pub const fn credit(&self) -> u32 {
        self.credit
    }
}

/// Bytes of a send that belong into a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body {
    /// The send.
    pub send: SendId,
    /// Where in the send.
    pub offset: u64,
    /// How many.
    pub len: u32,
}

/// The two queues of small data that the driver keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Queue {
    /// Ordinary data.
    Main,
    /// The rest of a large transfer that could not be moved by RDMA. It belongs before data that
    /// may already wait in `Main`.
    Fill,
}

/// Where the application's bytes of a received message are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// There are none.
    Control,
    /// They go to the end of a queue.
    Data {
        /// Which one.
        queue: Queue,
        /// Where they are in the message.
        range: Range<usize>,
        /// Nothing unread is before them: they may go straight to a waiting application.
        is_head: bool,
    },
    /// They are urgent.
    Urgent {
        /// Where they are in the message.
        range: Range<usize>,
        /// Their position in the stream.
        mark: u64,
    },
    /// The peer gives them back; they come behind those that it gave back before.
    Returned {
        /// Where they are in the message.
        range: Range<usize>,
    },
    /// They are not wanted, this side has shut down receiving.
    Discarded,
}

/// Where the next bytes of the stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readable {
    /// At the front of a queue.
    Bytes {
        /// Which one.
        queue: Queue,
        /// How many.
        len: u64,
    },
    /// In temporary memory.
    Temp {
        /// Its name.
        temp: TempId,
        /// Where in it.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// With the peer: pull them, or wait until they are in temporary memory.
    Remote {
        /// The transfer.
        transfer: TransferId,
        /// How many.
        len: u64,
    },
    /// Not here yet.
    Nothing,
    /// There are none: the peer has sent everything, or this side does not receive any more.
    Eof,
    /// There are none: the connection failed.
    Failed(Failure),
}

/// How a direction of the stream has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Nothing more comes.
    Shutdown,
    /// Nothing more comes on this connection; the stream goes on elsewhere.
    Suspended,
}

/// What became of a send that was to be taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancel {
    /// It is gone, no completion follows. This many of its bytes had left.
    Removed {
        /// Bytes of it that went out.
        sent: u64,
    },
    /// It cannot be taken back; its completion follows.
    InFlight,
    /// There is no such send.
    Unknown,
}
