//! The body of the two messages of the negotiation.

use core::time::Duration;

use super::{HEADER_LEN, MAX_NEGOTIATION, Reader, VERSION, Writer};
use crate::session::error::ProtocolError;

/// Begins the body of both negotiation messages.
pub const MAGIC: [u8; 8] = *b"WSDSESS\x01";
/// Length of the body of both negotiation messages.
pub(super) const OFFER_LEN: usize = 128;
/// Bytes at its end that no field uses yet.
const OFFER_SPARE: usize = 28;
const CAN_READ: u16 = 1;
const CAN_URGENT: u16 = 2;
const CAN_SUSPEND: u16 = 4;
const COMPANION: u16 = 8;
const CAN_RETURN: u16 = 16;
const CAN_RESUME: u16 = 32;
const CAN_ALL: u16 = CAN_READ | CAN_URGENT | CAN_SUSPEND | COMPANION | CAN_RETURN | CAN_RESUME;
/// The addresses of the companion, in front of the spare bytes.
const COMPANION_LEN: usize = 36;

/// The TCP connection that a session takes over the stream of, as the connector sees it.
///
/// Addresses are those of IP version 6, or mapped into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CompanionInfo {
    /// Address and port of the connector's end.
    pub local: ([u8; 16], u16),
    /// Address and port of the acceptor's end.
    pub peer: ([u8; 16], u16),
}

impl CompanionInfo {
    fn write(&self, to: &mut Writer<'_>) {
        for (address, port) in [&self.local, &self.peer] {
            to.put(address);
            to.put(&port.to_le_bytes());
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let info = Self {
            local: (fields.take(), fields.u16()),
            peer: (fields.take(), fields.u16()),
        };
        // Such an end of a connection there is not.
        if info.local.1 == 0 || info.peer.1 == 0 {
            return Err(ProtocolError::Negotiation);
        }
        Ok(info)
    }
}

/// What a side says about itself when the connection begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Lowest and highest version; in Accepted both are the chosen one.
    pub versions: (u8, u8),
    /// The provider has WSPRdmaRead.
    pub rdma_read: bool,
    /// Urgent messages are understood.
    pub urgent: bool,
    /// Suspend and Suspended are understood.
    pub suspend: bool,
    /// Return is understood.
    pub returns: bool,
    /// If this session is lost, this side goes on elsewhere with a Resume.
    pub resumes: bool,
    /// Posted receive buffers.
    pub receive_buffers: u32,
    /// Size of each, header included.
    pub receive_buffer_size: u32,
    /// Longest descriptor accepted.
    pub max_descriptor: u16,
    /// Length of the descriptors this side makes; 0 if it cannot expose memory.
    pub descriptor_len: u16,
    /// Largest single RDMA.
    pub max_rdma: u64,
    /// Above this many bytes RDMA pays.
    pub threshold: u64,
    /// Idle milliseconds before a keep-alive; 0 = none wanted.
    pub keep_alive_ms: u32,
    /// Large transfers accepted at once.
    pub max_large: u16,
    /// Chosen by the connector.
    pub session_id: [u8; 16],
    /// The connection whose stream it is, if it is not one of its own. Said by the connector,
    /// repeated by the acceptor.
    pub companion: Option<CompanionInfo>,
}

impl Offer {
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        (self.keep_alive_ms > 0).then(|| Duration::from_millis(self.keep_alive_ms.into()))
    }
}

impl Offer {
    pub(super) fn write(&self, to: &mut Writer<'_>) {
        let capabilities = if self.rdma_read { CAN_READ } else { 0 }
            | if self.urgent { CAN_URGENT } else { 0 }
            | if self.suspend { CAN_SUSPEND } else { 0 }
            | if self.returns { CAN_RETURN } else { 0 }
            | if self.resumes { CAN_RESUME } else { 0 }
            | if self.companion.is_some() {
                COMPANION
            } else {
                0
            };
        to.put(&MAGIC);
        to.put(&[self.versions.0, self.versions.1]);
        to.put(&capabilities.to_le_bytes());
        to.put(&self.receive_buffers.to_le_bytes());
        to.put(&self.receive_buffer_size.to_le_bytes());
        to.put(&self.max_descriptor.to_le_bytes());
        to.put(&self.descriptor_len.to_le_bytes());
        to.put(&self.max_rdma.to_le_bytes());
        to.put(&self.threshold.to_le_bytes());
        to.put(&self.keep_alive_ms.to_le_bytes());
        to.put(&self.max_large.to_le_bytes());
        to.put(&[0; 2]);
        to.put(&self.session_id);
        match &self.companion {
            Some(companion) => companion.write(to),
            None => to.put(&[0; COMPANION_LEN]),
        }
        to.put(&[0; OFFER_SPARE]);
    }

    /// `chosen`: the offer is an answer, its version is settled. An offer that also speaks of
    /// later versions may use bits and bytes that mean nothing here; an answer may not.
    pub(super) fn read(body: &[u8], chosen: bool) -> Result<Self, ProtocolError> {
        // A later version may append to its first message, up to the limit of the negotiation.
        let long_enough = if chosen {
            body.len() == OFFER_LEN
        } else {
            body.len() >= OFFER_LEN
        };
        if !long_enough || body.len() > MAX_NEGOTIATION - HEADER_LEN {
            return Err(ProtocolError::Length);
        }
        let mut fields = Reader(body);
        if fields.take() != MAGIC {
            return Err(ProtocolError::Magic);
        }
        let versions = (fields.u8(), fields.u8());
        let capabilities = fields.u16();
        let offer = Self {
            versions,
            rdma_read: capabilities & CAN_READ != 0,
            urgent: capabilities & CAN_URGENT != 0,
            suspend: capabilities & CAN_SUSPEND != 0,
            returns: capabilities & CAN_RETURN != 0,
            resumes: capabilities & CAN_RESUME != 0,
            receive_buffers: fields.u32(),
            receive_buffer_size: fields.u32(),
            max_descriptor: fields.u16(),
            descriptor_len: fields.u16(),
            max_rdma: fields.u64(),
            threshold: fields.u64(),
            keep_alive_ms: fields.u32(),
            max_large: fields.u16(),
            session_id: {
                if fields.u16() != 0 && versions.1 <= VERSION {
                    return Err(ProtocolError::NonZero);
                }
                fields.take()
            },
            companion: match capabilities & COMPANION {
                0 => None,
                _ => Some(CompanionInfo::read(&mut fields)?),
            },
        };
        if versions.0 == 0 || versions.0 > versions.1 || (chosen && versions.0 != versions.1) {
            return Err(ProtocolError::Version(versions.0));
        }
        let strict = chosen || versions.1 <= VERSION;
        if strict && (capabilities & !CAN_ALL != 0 || fields.0.iter().any(|&byte| byte != 0)) {
            return Err(ProtocolError::NonZero);
        }
        if strict && body.len() != OFFER_LEN {
            return Err(ProtocolError::Length);
        }
        Ok(offer)
    }
}
