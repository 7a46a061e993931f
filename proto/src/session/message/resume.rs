//! What both sides tell each other on the TCP connection of a companion when its SAN connection was
//! lost: up to where the bytes of the lost session have arrived.
//!
//! It looks like a message of the session and never is one: inside a session it is a protocol error.

use super::{HEADER_LEN, Header, Reader, VERSION, Writer, kind, u32_len};
use crate::session::error::ProtocolError;

const ID_LEN: usize = 16;

/// Where the other side goes on with the stream of a lost session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Position of the next byte that the sender of this expects.
    pub offset: u64,
    /// The session that was lost.
    pub session_id: [u8; 16],
}

impl Resume {
    /// Its length.
    pub const LEN: usize = HEADER_LEN + ID_LEN;

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut to = Writer::new(&mut bytes);
        let header = Header {
            kind: kind::RESUME,
            version: VERSION,
            payload_len: u32_len(ID_LEN),
            offset: self.offset,
            ..Header::default()
        };
        header.write(&mut to);
        to.put(&self.session_id);
        bytes
    }

    /// From exactly [`Resume::LEN`] bytes.
    ///
    /// # Errors
    ///
    /// Whatever the bytes break.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let (head, behind) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ProtocolError::Length)?;
        let header = Header::read(head);
        if header.kind != kind::RESUME {
            return Err(ProtocolError::Type(header.kind));
        }
        if header.version != VERSION {
            return Err(ProtocolError::Version(header.version));
        }
        if behind.len() != ID_LEN || header.payload_len != u32_len(ID_LEN) {
            return Err(ProtocolError::Length);
        }
        if header.flags != 0 {
            return Err(ProtocolError::Flags);
        }
        if header.descriptor_len != 0 {
            return Err(ProtocolError::Descriptor);
        }
        if header.credit != 0 || header.transfer != 0 || header.aux != 0 {
            return Err(ProtocolError::NonZero);
        }
        Ok(Self {
            offset: header.offset,
            session_id: Reader(behind).take(),
        })
    }
}
