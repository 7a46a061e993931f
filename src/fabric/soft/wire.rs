//! The messages of the rendezvous, as bytes.
//!
//! Owns their layout (little-endian, fixed length) and its checking: what `parse` returns is a
//! value; anything else is garbage. Descriptors travel beside the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

const MAGIC: [u8; 8] = *b"WSDSOFT\0";
/// Of the messages below, of the ring format and of the layout of the segment.
const VERSION: u16 = 1;

/// Length of every message.
pub(super) const LEN: usize = 128;

/// How a side lets itself be tested for direct RDMA: `proof` stands at `proof_at` in its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Introduction {
    pub(super) pid: u32,
    pub(super) proof_at: u64,
    pub(super) proof: [u8; 16],
    /// Whether the peer may reach this side's memory directly.
    pub(super) permits_direct: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// From the connector, with its eventfd.
    Hello {
        who: Introduction,
        from: SocketAddr,
        to: SocketAddr,
    },
    /// From the acceptor, with the segment and its eventfd.
    Accept {
        who: Introduction,
        ring_size: u64,
        acceptor_nonce: u64,
        connector_nonce: u64,
    },
    /// From the acceptor: the listener does not want the connection.
    Reject,
    /// From the acceptor: it is another version or cannot serve; try another way.
    Unable,
}

/// Garbage, or another version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unreadable;

struct Writer {
    bytes: [u8; LEN],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }

    fn address(&mut self, address: SocketAddr) {
        let (family, ip, scope) = match address {
            SocketAddr::V4(v4) => (4u8, v4.ip().to_ipv6_mapped().octets(), 0),
            SocketAddr::V6(v6) => (6u8, v6.ip().octets(), v6.scope_id()),
        };
        self.put(&[family, 0]);
        self.put(&address.port().to_le_bytes());
        self.put(&scope.to_le_bytes());
        self.put(&ip);
    }

    fn introduction(&mut self, who: &Introduction) {
        self.put(&u32::from(who.permits_direct).to_le_bytes());
        self.put(&who.pid.to_le_bytes());
        self.put(&who.proof_at.to_le_bytes());
        self.put(&who.proof);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.take().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Result<SocketAddr, Unreadable> {
        let [family, zero] = self.take()?;
        let port = u16::from_le_bytes(self.take()?);
        let scope = self.u32()?;
        let ip = Ipv6Addr::from(self.take::<16>()?);
        match (family, zero) {
            (4, 0) => {
                let ip: Ipv4Addr = ip.to_ipv4_mapped().ok_or(Unreadable)?;
                Ok(SocketAddr::new(IpAddr::V4(ip), port))
            }
            (6, 0) => Ok(SocketAddrV6::new(ip, port, 0, scope).into()),
            _ => Err(Unreadable),
        }
    }

    fn introduction(&mut self) -> Result<Introduction, Unreadable> {
        Ok(Introduction {
            permits_direct: match self.u32()? {
                0 => false,
                1 => true,
                _ => return Err(Unreadable),
            },
            pid: self.u32()?,
            proof_at: self.u64()?,
            proof: self.take()?,
        })
    }
}

impl Message {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello { .. } => 1,
            Self::Accept { .. } => 2,
            Self::Reject => 3,
            Self::Unable => 4,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut writer = Writer {
            bytes: [0; LEN],
            at: 0,
        };
        writer.put(&MAGIC);
        writer.put(&VERSION.to_le_bytes());
        writer.put(&self.kind().to_le_bytes());
        writer.put(&[0; 4]);
        match &self {
            Self::Hello { who, from, to } => {
                writer.introduction(who);
                writer.address(*from);
                writer.address(*to);
            }
            Self::Accept {
                who,
                ring_size,
                acceptor_nonce,
                connector_nonce,
            } => {
                writer.introduction(who);
                writer.put(&ring_size.to_le_bytes());
                writer.put(&acceptor_nonce.to_le_bytes());
                writer.put(&connector_nonce.to_le_bytes());
            }
            Self::Reject | Self::Unable => {}
        }
        writer.bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() != LEN {
            return Err(Unreadable);
        }
        let mut reader = Reader(bytes);
        if reader.take()? != MAGIC {
            return Err(Unreadable);
        }
        let version = u16::from_le_bytes(reader.take()?);
        let kind = u16::from_le_bytes(reader.take()?);
        let _reserved = reader.u32()?;
        // A message of another version says at least that.
        if version != VERSION {
            return if kind == Self::Unable.kind() {
                Ok(Self::Unable)
            } else {
                Err(Unreadable)
            };
        }
        match kind {
            1 => Ok(Self::Hello {
                who: reader.introduction()?,
                from: reader.address()?,
                to: reader.address()?,
            }),
            2 => Ok(Self::Accept {
                who: reader.introduction()?,
                ring_size: reader.u64()?,
                acceptor_nonce: reader.u64()?,
                connector_nonce: reader.u64()?,
            }),
            3 => Ok(Self::Reject),
            4 => Ok(Self::Unable),
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Introduction {
        Introduction {
            pid: 77,
            proof_at: 0x1234_5678_9ABC,
            proof: [9; 16],
            permits_direct: true,
        }
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        for message in [
            Message::Hello {
                who: who(),
                from: "127.0.0.1:9".parse().unwrap(),
                to: "127.0.0.7:65535".parse().unwrap(),
            },
            Message::Hello {
                who: who(),
                from: "[::1]:80".parse().unwrap(),
                to: "[fe80::1%3]:81".parse().unwrap(),
            },
            Message::Accept {
                who: who(),
                ring_size: 1 << 20,
                acceptor_nonce: u64::MAX,
                connector_nonce: 1,
            },
            Message::Reject,
            Message::Unable,
        ] {
            assert_eq!(Message::parse(&message.to_bytes()), Ok(message));
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_unreadable_or_a_message_but_never_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            start in proptest::bool::ANY,
        ) {
            let mut bytes = bytes;
            if start && bytes.len() == LEN {
                bytes[..10].copy_from_slice(&Message::Reject.to_bytes()[..10]);
            }
            let _ = Message::parse(&bytes);
        }
    }

    #[test]
    fn another_version_is_unreadable_unless_it_says_so_itself() {
        let mut bytes = Message::Reject.to_bytes();
        bytes[8] = 9;
        assert_eq!(Message::parse(&bytes), Err(Unreadable));
        let mut bytes = Message::Unable.to_bytes();
        bytes[8] = 9;
        assert_eq!(Message::parse(&bytes), Ok(Message::Unable));
    }
}
