//! The codec of the control messages: bytes to types and back, nothing else.
//!
//! Parse, don't validate: [`parse`] is the only way from foreign bytes to a [`Message`], and a
//! [`Message`] satisfies every rule that can be checked without knowing the state of the session.
//! All integers are little-endian. No input makes it panic or read beyond the message.

mod bytes;
mod offer;
mod resume;

use core::ops::Range;

pub use offer::{CompanionInfo, MAGIC, Offer};
pub use resume::Resume;

use bytes::{Reader, Writer, u32_len};
use offer::OFFER_LEN;

use super::error::{ProtocolError, ResetReason};

/// Length of the header that begins every message.
pub const HEADER_LEN: usize = 32;
/// The same, as lengths of buffers are counted.
pub(super) const HEADER: u32 = 32;
/// Longest message of the negotiation.
///
/// A provider without flow control keeps the first message in a private buffer of this size.
pub const MAX_NEGOTIATION: usize = 256;
/// Longest RDMA descriptor the protocol carries.
pub const MAX_DESCRIPTOR: usize = 64;
/// The one version of the protocol there is.
pub const VERSION: u8 = 1;

/// The version byte of messages that are read before, or without, an agreed version.
const NO_VERSION: u8 = 0;

const SHUT_SEND: u8 = 1;
const SHUT_RECEIVE: u8 = 2;
const SHUT_FINISHED: u8 = 4;
const KEEP_ALIVE_QUERY: u8 = 1;
const RETURN_LEAVE: u8 = 1;
const RETURN_LAST: u8 = 2;
const RETURN_GONE: u8 = 4;

/// An RDMA descriptor: opaque bytes made by one provider for the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Descriptor {
    len: u8,
    bytes: [u8; MAX_DESCRIPTOR],
}

impl Descriptor {
    /// Takes 1 to [`MAX_DESCRIPTOR`] bytes.
    #[must_use]
    pub fn new(from: &[u8]) -> Option<Self> {
        let len = u8::try_from(from.len()).ok().filter(|&len| len > 0)?;
        let mut bytes = [0; MAX_DESCRIPTOR];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { len, bytes })
    }

    /// The bytes as the provider made them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Descriptor(")?;
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// Names one large transfer of one direction. The first is 1; 0 never names a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TransferId(pub u32);

/// Every message of the protocol. Offsets are positions in the byte stream of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// The connector's first message.
    Negotiate(Offer),
    /// The acceptor's answer.
    Accepted(Offer),
    /// Application bytes.
    Data {
        /// Position of the first byte.
        offset: u64,
        /// Bytes behind the header.
        len: u32,
    },
    /// Application bytes of a large transfer that was refused.
    Fill {
        /// The transfer.
        transfer: TransferId,
        /// Position of the first byte.
        offset: u64,
        /// Bytes behind the header.
        len: u32,
    },
    /// Urgent bytes, outside the stream.
    Urgent {
        /// Position in the stream at which they were sent.
        mark: u64,
        /// Bytes behind the header.
        len: u32,
    },
    /// A large transfer which the receiver reads.
    LargeRead {
        /// The transfer.
        transfer: TransferId,
        /// Position of its first byte.
        offset: u64,
        /// All its bytes, the initial portion included.
        total: u64,
        /// Bytes of the initial portion, behind the descriptor.
        initial: u32,
        /// Names the memory of everything behind the initial portion.
        descriptor: Descriptor,
    },
    /// The receiver needs nothing more of the transfer.
    ReadDone {
        /// The transfer.
        transfer: TransferId,
    },
    /// A large transfer which the sender writes where the receiver tells.
    LargeWrite {
        /// The transfer.
        transfer: TransferId,
        /// Position of its first byte.
        offset: u64,
        /// All its bytes, the initial portion included.
        total: u64,
        /// Bytes of the initial portion, behind the header.
        initial: u32,
    },
    /// Memory for a part of a transfer.
    Location {
        /// The transfer.
        transfer: TransferId,
        /// Position of the part's first byte.
        offset: u64,
        /// Bytes of the part.
        len: u64,
        /// Names the memory.
        descriptor: Descriptor,
    },
    /// The part is written.
    WriteDone {
        /// The transfer.
        transfer: TransferId,
        /// As in the location.
        offset: u64,
        /// As in the location.
        len: u64,
    },
    /// RDMA is impossible for the rest of the transfer: send this part of it as messages.
    Refused {
        /// The transfer.
        transfer: TransferId,
        /// Position of the part's first byte.
        offset: u64,
        /// Bytes of the part.
        len: u64,
    },
    /// Nothing but the credit of the header.
    Credit,
    /// The end of one or both directions.
    Shutdown {
        /// Nothing is sent any more; the length of the stream.
        send: Option<u64>,
        /// Nothing is received any more.
        receive: bool,
        /// Nothing at all is left to do: the connection may be taken down.
        finished: bool,
    },
    /// Nothing is sent on this connection any more, but the stream goes on elsewhere.
    Suspend {
        /// How much of the stream has been sent here.
        end: u64,
    },
    /// The same from the side that was asked to by the other's Suspend.
    Suspended {
        /// As in Suspend.
        end: u64,
    },
    /// A side leaves, or gives back what it has received and nobody there has read.
    Return {
        /// Position of the first byte among all that are given back.
        offset: u64,
        /// Bytes behind the header.
        len: u32,
        /// The sender leaves; nothing else is said.
        leave: bool,
        /// Nothing more is given back.
        last: bool,
        /// Nothing is, and nothing is taken back either.
        gone: bool,
    },
    /// A sign of life.
    KeepAlive {
        /// An answer is wanted.
        query: bool,
    },
    /// The end, at once.
    Reset {
        /// Why.
        reason: ResetReason,
    },
}

/// Type numbers on the wire.
mod kind {
    pub(super) const NEGOTIATE: u8 = 1;
    pub(super) const ACCEPTED: u8 = 2;
    pub(super) const DATA: u8 = 3;
    pub(super) const URGENT: u8 = 4;
    pub(super) const LARGE_READ: u8 = 5;
    pub(super) const READ_DONE: u8 = 6;
    pub(super) const LARGE_WRITE: u8 = 7;
    pub(super) const LOCATION: u8 = 8;
    pub(super) const WRITE_DONE: u8 = 9;
    pub(super) const REFUSED: u8 = 10;
    pub(super) const CREDIT: u8 = 11;
    pub(super) const SHUTDOWN: u8 = 12;
    pub(super) const SUSPEND: u8 = 13;
    pub(super) const SUSPENDED: u8 = 14;
    pub(super) const RESUME: u8 = 15;
    pub(super) const KEEP_ALIVE: u8 = 16;
    pub(super) const RESET: u8 = 17;
    pub(super) const RETURN: u8 = 18;
}

/// A message as it was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// What it says.
    pub message: Message,
    /// The sender's cumulative credit.
    pub credit: u32,
    /// Where the application's bytes are in it.
    pub payload: Range<usize>,
}

/// The fields of the header, in their order.
#[derive(Clone, Copy, Default)]
struct Header {
    kind: u8,
    version: u8,
    flags: u8,
    descriptor_len: u8,
    payload_len: u32,
    offset: u64,
    credit: u32,
    transfer: u32,
    aux: u64,
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut fields = Reader(bytes);
        Self {
            kind: fields.u8(),
            version: fields.u8(),
            flags: fields.u8(),
            descriptor_len: fields.u8(),
            payload_len: fields.u32(),
            offset: fields.u64(),
            credit: fields.u32(),
            transfer: fields.u32(),
            aux: fields.u64(),
        }
    }

    fn write(&self, to: &mut Writer<'_>) {
        to.put(&[self.kind, self.version, self.flags, self.descriptor_len]);
        to.put(&self.payload_len.to_le_bytes());
        to.put(&self.offset.to_le_bytes());
        to.put(&self.credit.to_le_bytes());
        to.put(&self.transfer.to_le_bytes());
        to.put(&self.aux.to_le_bytes());
    }
}

impl Message {
    /// Bytes of the application behind the encoded head.
    #[must_use]
    pub const fn payload_len(&self) -> u32 {
        match *self {
            Self::Data { len, .. }
            | Self::Fill { len, .. }
            | Self::Urgent { len, .. }
            | Self::Return { len, .. } => len,
            Self::LargeRead { initial, .. } | Self::LargeWrite { initial, .. } => initial,
            _ => 0,
        }
    }

    /// Length of what [`Message::encode`] writes.
    #[must_use]
    pub fn head_len(&self) -> usize {
        match self {
            Self::Negotiate(_) | Self::Accepted(_) => HEADER_LEN + OFFER_LEN,
            Self::LargeRead { descriptor, .. } | Self::Location { descriptor, .. } => {
                HEADER_LEN + descriptor.as_bytes().len()
            }
            _ => HEADER_LEN,
        }
    }

    /// Writes everything but the application's bytes; `None` if the buffer is too short.
    #[must_use]
    pub fn encode(&self, version: u8, credit: u32, buffer: &mut [u8]) -> Option<usize> {
        let mut header = Header {
            version,
            credit,
            payload_len: self.payload_len(),
            ..Header::default()
        };
        let mut to = Writer::new(buffer);
        let mut behind: &[u8] = &[];
        match self {
            Self::Negotiate(offer) | Self::Accepted(offer) => {
                header.kind = match self {
                    Self::Negotiate(_) => kind::NEGOTIATE,
                    _ => kind::ACCEPTED,
                };
                header.version = NO_VERSION;
                header.payload_len = u32_len(OFFER_LEN);
                header.write(&mut to);
                offer.write(&mut to);
                return to.finish();
            }
            Self::Data { offset, .. } => {
                header.kind = kind::DATA;
                header.offset = *offset;
            }
            Self::Fill {
                transfer, offset, ..
            } => {
                header.kind = kind::DATA;
                header.transfer = transfer.0;
                header.offset = *offset;
            }
            Self::Urgent { mark, .. } => {
                header.kind = kind::URGENT;
                header.offset = *mark;
            }
            Self::LargeRead {
                transfer,
                offset,
                total,
                descriptor,
                ..
            } => {
                header.kind = kind::LARGE_READ;
                header.transfer = transfer.0;
                header.offset = *offset;
                header.aux = *total;
                header.descriptor_len = descriptor.len;
                behind = descriptor.as_bytes();
            }
            Self::ReadDone { transfer } => {
                header.kind = kind::READ_DONE;
                header.transfer = transfer.0;
            }
            Self::LargeWrite {
                transfer,
                offset,
                total,
                ..
            } => {
                header.kind = kind::LARGE_WRITE;
                header.transfer = transfer.0;
                header.offset = *offset;
                header.aux = *total;
            }
            Self::Location {
                transfer,
                offset,
                len,
                descriptor,
            } => {
                header.kind = kind::LOCATION;
                header.transfer = transfer.0;
                header.offset = *offset;
                header.aux = *len;
                header.descriptor_len = descriptor.len;
                behind = descriptor.as_bytes();
            }
            Self::WriteDone {
                transfer,
                offset,
                len,
            } => {
                header.kind = kind::WRITE_DONE;
                header.transfer = transfer.0;
                header.offset = *offset;
                header.aux = *len;
            }
            Self::Refused {
                transfer,
                offset,
                len,
            } => {
                header.kind = kind::REFUSED;
                header.transfer = transfer.0;
                header.offset = *offset;
                header.aux = *len;
            }
            Self::Credit => header.kind = kind::CREDIT,
            Self::Shutdown {
                send,
                receive,
                finished,
            } => {
                header.kind = kind::SHUTDOWN;
                header.offset = send.unwrap_or(0);
                header.flags = if send.is_some() { SHUT_SEND } else { 0 }
                    | if *receive { SHUT_RECEIVE } else { 0 }
                    | if *finished { SHUT_FINISHED } else { 0 };
            }
            Self::Suspend { end } => {
                header.kind = kind::SUSPEND;
                header.offset = *end;
            }
            Self::Suspended { end } => {
                header.kind = kind::SUSPENDED;
                header.offset = *end;
            }
            Self::Return {
                offset,
                leave,
                last,
                gone,
                ..
            } => {
                header.kind = kind::RETURN;
                header.offset = *offset;
                header.flags = if *leave { RETURN_LEAVE } else { 0 }
                    | if *last { RETURN_LAST } else { 0 }
                    | if *gone { RETURN_GONE } else { 0 };
            }
            Self::KeepAlive { query } => {
                header.kind = kind::KEEP_ALIVE;
                header.flags = if *query { KEEP_ALIVE_QUERY } else { 0 };
            }
            Self::Reset { reason } => {
                header.kind = kind::RESET;
                header.version = NO_VERSION;
                header.aux = reason.code().into();
            }
        }
        header.write(&mut to);
        to.put(behind);
        to.finish()
    }
}

/// Reads one message. `version` is the agreed one, or `None` during the negotiation.
///
/// # Errors
///
/// Whatever the message breaks, see [`ProtocolError`].
pub fn parse(bytes: &[u8], version: Option<u8>) -> Result<Received, ProtocolError> {
    let (head, behind) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(ProtocolError::Length)?;
    let header = Header::read(head);
    let wanted = match header.kind {
        kind::NEGOTIATE | kind::ACCEPTED | kind::RESET => NO_VERSION,
        kind::DATA..=kind::KEEP_ALIVE | kind::RETURN => version.ok_or(ProtocolError::Unexpected)?,
        _ => return Err(ProtocolError::Type(header.kind)),
    };
    if header.version != wanted {
        return Err(ProtocolError::Version(header.version));
    }
    let descriptor_len = usize::from(header.descriptor_len);
    let payload_len = usize::try_from(header.payload_len).map_err(|_| ProtocolError::Length)?;
    if behind.len().checked_sub(descriptor_len) != Some(payload_len) {
        return Err(ProtocolError::Length);
    }
    let payload_at = HEADER_LEN + descriptor_len;
    let payload = payload_at..payload_at + payload_len;
    let descriptor = behind.get(..descriptor_len).and_then(Descriptor::new);
    let message = header.message(behind, descriptor)?;
    let payload = match message {
        Message::Negotiate(_) | Message::Accepted(_) => bytes.len()..bytes.len(),
        _ => payload,
    };
    Ok(Received {
        message,
        credit: header.credit,
        payload,
    })
}

/// Which of the optional fields a type uses; the others must be zero.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Uses {
    flags: u8,
    descriptor: bool,
    payload: bool,
    offset: bool,
    transfer: bool,
    aux: bool,
}

impl Header {
    /// What the type permits to be non-zero. Whether zero is permitted is checked per type.
    const fn uses(&self) -> Uses {
        let none = Uses {
            flags: 0,
            descriptor: false,
            payload: false,
            offset: false,
            transfer: false,
            aux: false,
        };
        match self.kind {
            kind::NEGOTIATE | kind::ACCEPTED => Uses {
                payload: true,
                ..none
            },
            kind::DATA => Uses {
                payload: true,
                offset: true,
                transfer: true,
                ..none
            },
            kind::URGENT => Uses {
                payload: true,
                offset: true,
                ..none
            },
            kind::LARGE_READ => Uses {
                descriptor: true,
                payload: true,
                offset: true,
                transfer: true,
                aux: true,
                ..none
            },
            kind::READ_DONE => Uses {
                transfer: true,
                ..none
            },
            kind::LARGE_WRITE => Uses {
                payload: true,
                offset: true,
                transfer: true,
                aux: true,
                ..none
            },
            kind::LOCATION => Uses {
                descriptor: true,
                offset: true,
                transfer: true,
                aux: true,
                ..none
            },
            kind::WRITE_DONE | kind::REFUSED => Uses {
                offset: true,
                transfer: true,
                aux: true,
                ..none
            },
            kind::SHUTDOWN => Uses {
                flags: SHUT_SEND | SHUT_RECEIVE | SHUT_FINISHED,
                offset: true,
                ..none
            },
            kind::SUSPEND | kind::SUSPENDED => Uses {
                offset: true,
                ..none
            },
            kind::RETURN => Uses {
                flags: RETURN_LEAVE | RETURN_LAST | RETURN_GONE,
                payload: true,
                offset: true,
                ..none
            },
            kind::KEEP_ALIVE => Uses {
                flags: KEEP_ALIVE_QUERY,
                ..none
            },
            kind::RESET => Uses { aux: true, ..none },
            _ => none,
        }
    }

    fn message(
        &self,
        behind: &[u8],
        descriptor: Option<Descriptor>,
    ) -> Result<Message, ProtocolError> {
        // It belongs on the connection that is left when this one is lost.
        if self.kind == kind::RESUME {
            return Err(ProtocolError::Unexpected);
        }
        let uses = self.uses();
        if self.flags & !uses.flags != 0 {
            return Err(ProtocolError::Flags);
        }
        let named = self.descriptor_len != 0;
        if uses.descriptor != named || named != descriptor.is_some() {
            return Err(ProtocolError::Descriptor);
        }
        if (!uses.payload && self.payload_len != 0)
            || (!uses.offset && self.offset != 0)
            || (!uses.transfer && self.transfer != 0)
            || (!uses.aux && self.aux != 0)
        {
            return Err(ProtocolError::NonZero);
        }
        let (offset, len) = (self.offset, self.payload_len);
        let transfer = TransferId(self.transfer);
        match self.kind {
            kind::NEGOTIATE => Offer::read(behind, false).map(Message::Negotiate),
            kind::ACCEPTED => Offer::read(behind, true).map(Message::Accepted),
            kind::DATA if len == 0 => Err(ProtocolError::Length),
            kind::DATA if self.transfer == 0 => Ok(Message::Data { offset, len }),
            kind::DATA => Ok(Message::Fill {
                transfer,
                offset,
                len,
            }),
            kind::URGENT if len == 0 => Err(ProtocolError::Length),
            kind::URGENT => Ok(Message::Urgent { mark: offset, len }),
            kind::CREDIT => Ok(Message::Credit),
            kind::SHUTDOWN => self.shutdown(),
            kind::SUSPEND => Ok(Message::Suspend { end: offset }),
            kind::SUSPENDED => Ok(Message::Suspended { end: offset }),
            kind::RETURN => self.returned(),
            kind::KEEP_ALIVE => Ok(Message::KeepAlive {
                query: self.flags & KEEP_ALIVE_QUERY != 0,
            }),
            kind::RESET => u16::try_from(self.aux)
                .map(|code| Message::Reset {
                    reason: ResetReason::from_code(code),
                })
                .map_err(|_| ProtocolError::NonZero),
            _ if self.transfer == 0 => Err(ProtocolError::Transfer),
            kind::READ_DONE => Ok(Message::ReadDone { transfer }),
            _ => self.part(transfer, descriptor),
        }
    }

    /// Leaving stands alone; bytes, the last ones or others; or that there are and will be none.
    fn returned(&self) -> Result<Message, ProtocolError> {
        let (offset, len) = (self.offset, self.payload_len);
        let nothing = offset == 0 && len == 0;
        let fits = match self.flags {
            RETURN_LEAVE => nothing,
            RETURN_LAST => true,
            0 => len > 0,
            flags => flags == RETURN_LAST | RETURN_GONE && nothing,
        };
        if !fits {
            return Err(ProtocolError::Flags);
        }
        if offset.checked_add(len.into()).is_none() {
            return Err(ProtocolError::Range);
        }
        Ok(Message::Return {
            offset,
            len,
            leave: self.flags & RETURN_LEAVE != 0,
            last: self.flags & RETURN_LAST != 0,
            gone: self.flags & RETURN_GONE != 0,
        })
    }

    fn shutdown(&self) -> Result<Message, ProtocolError> {
        let send = self.flags & SHUT_SEND != 0;
        if self.flags == 0 {
            return Err(ProtocolError::Flags);
        }
        if !send && self.offset != 0 {
            return Err(ProtocolError::NonZero);
        }
        Ok(Message::Shutdown {
            send: send.then_some(self.offset),
            receive: self.flags & SHUT_RECEIVE != 0,
            finished: self.flags & SHUT_FINISHED != 0,
        })
    }

    /// The types that speak of a part of a transfer: `aux` bytes from `offset`.
    fn part(
        &self,
        transfer: TransferId,
        descriptor: Option<Descriptor>,
    ) -> Result<Message, ProtocolError> {
        let (offset, initial, total) = (self.offset, self.payload_len, self.aux);
        // Offsets and lengths of RDMA are 32 bits wide in the interface of the providers.
        if total == 0 || total > u32::MAX.into() || offset.checked_add(total).is_none() {
            return Err(ProtocolError::Range);
        }
        if u64::from(initial) >= total {
            return Err(ProtocolError::Range);
        }
        match (self.kind, descriptor) {
            (kind::LARGE_READ, Some(descriptor)) => Ok(Message::LargeRead {
                transfer,
                offset,
                total,
                initial,
                descriptor,
            }),
            (kind::LARGE_WRITE, _) => Ok(Message::LargeWrite {
                transfer,
                offset,
                total,
                initial,
            }),
            (kind::LOCATION, Some(descriptor)) => Ok(Message::Location {
                transfer,
                offset,
                len: total,
                descriptor,
            }),
            (kind::WRITE_DONE, _) => Ok(Message::WriteDone {
                transfer,
                offset,
                len: total,
            }),
            (kind::REFUSED, _) => Ok(Message::Refused {
                transfer,
                offset,
                len: total,
            }),
            _ => Err(ProtocolError::Type(self.kind)),
        }
    }
}
