//! The private data of connection requests and their answers.
//!
//! Owns its 32 bytes and what in them is believed. All of it comes from somebody unknown: what is
//! not exactly ours is refused, and nothing else follows from it. The addresses of the two ends are
//! those that rdma_cm has established; only the port, under which the peer wants to be known, is
//! its own word.

use std::net::SocketAddr;

/// Fits the 56 bytes that a request over rdma_cm may carry.
pub(super) const LEN: usize = 32;
const MAGIC: [u8; 4] = *b"WSDv";
/// Both ends have to have the same.
const VERSION: u8 = 1;

/// What an end says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Wants to connect.
    Connect,
    Accepted,
    /// The listener, or who decides for it, does not want the connection.
    Refused,
    /// The request was not understood.
    Foreign,
    /// There is no room for the connection.
    Unable,
}

/// Private data, little-endian:
///
/// ```text
/// 0  4 magic | u8 version | u8 word | u16 port | u32 descriptor length | u32 largest message | 16 zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) word: Word,
    /// The sender's port, 0 if it has none.
    pub(super) port: u16,
    pub(super) descriptor_len: u32,
    /// For whoever looks at the packets: a device takes what a receive has room for.
    pub(super) max_message: u32,
}

impl Hello {
    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let word: u8 = match self.word {
            Word::Connect => 1,
            Word::Accepted => 2,
            Word::Refused => 3,
            Word::Foreign => 4,
            Word::Unable => 5,
        };
        let mut bytes = [0; LEN];
        let fields = MAGIC
            .into_iter()
            .chain([VERSION, word])
            .chain(self.port.to_le_bytes())
            .chain(self.descriptor_len.to_le_bytes())
            .chain(self.max_message.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// `None` for what is not ours, is too short, or is of another version. The transport pads, so
    /// more bytes may follow.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        let (magic, rest) = bytes.split_first_chunk()?;
        let (&[version, word], rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (descriptor_len, rest) = rest.split_first_chunk()?;
        let (max_message, zero) = rest.split_first_chunk()?;
        if *magic != MAGIC || version != VERSION || zero.iter().any(|&byte| byte != 0) {
            return None;
        }
        Some(Self {
            word: match word {
                1 => Word::Connect,
                2 => Word::Accepted,
                3 => Word::Refused,
                4 => Word::Foreign,
                5 => Word::Unable,
                _ => return None,
            },
            port: u16::from_le_bytes(*port),
            descriptor_len: u32::from_le_bytes(*descriptor_len),
            max_message: u32::from_le_bytes(*max_message),
        })
    }

    /// Whether it accepts a connection, and names exposed memory as this side does.
    pub(super) fn accepts(&self, descriptor_len: usize) -> bool {
        self.word == Word::Accepted && usize::try_from(self.descriptor_len) == Ok(descriptor_len)
    }

    /// The peer's address, under the port that it says it has.
    pub(super) fn address(&self, mut known: SocketAddr) -> SocketAddr {
        if self.port != 0 {
            known.set_port(self.port);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            word: Word::Connect,
            port: 4711,
            descriptor_len: 32,
            max_message: 65_792,
        }
    }

    #[test]
    fn a_hello_survives_its_bytes_and_padding() {
        let mut bytes = hello().to_bytes().to_vec();
        assert_eq!(Hello::parse(&bytes), Some(hello()));
        bytes.resize(56, 0);
        assert_eq!(Hello::parse(&bytes), Some(hello()));
    }

    #[test]
    fn what_is_truncated_garbage_or_of_another_version_is_none() {
        let good = hello().to_bytes();
        for len in 0..LEN {
            assert_eq!(Hello::parse(&good[..len]), None);
        }
        assert_eq!(Hello::parse(&[0; 56]), None);
        assert_eq!(Hello::parse(&[0xFF; 56]), None);
        for (at, value) in [(0, b'X'), (4, VERSION + 1), (5, 0), (5, 9), (31, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Hello::parse(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn only_an_answer_with_descriptors_like_ours_accepts() {
        let answer = Hello {
            word: Word::Accepted,
            ..hello()
        };
        assert!(answer.accepts(32));
        assert!(!answer.accepts(48));
        assert!(!hello().accepts(32));
    }

    #[test]
    fn the_port_is_the_peers_word_and_the_address_is_not() {
        let known = "10.0.0.1:99".parse().unwrap();
        assert_eq!(hello().address(known), "10.0.0.1:4711".parse().unwrap());
        let without = Hello { port: 0, ..hello() };
        assert_eq!(without.address(known), known);
    }
}
