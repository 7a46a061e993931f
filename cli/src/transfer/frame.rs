//! The small protocol that `send` and `recv` speak on top of a byte stream.
//!
//! Owns: the layout of every frame. Does not own: reading, writing or waiting. All integers are
//! little-endian.
//!
//! ```text
//! sender → receiver   greeting   "WSDFILE\0"  version u16  flags u16  name length u16  0 u16  size u64  name
//! receiver → sender   verdict    (go, or why not)
//! sender → receiver   data       1 u32  length u32  bytes           repeated
//!                     end        2 u32  24 u32  total u64  xxh3-128 of all bytes
//!                     abort      3 u32  length u32  why, as text
//! receiver → sender   verdict    status u16  text length u16  0 u32  total u64  xxh3-128  text
//! ```
//!
//! The receiver may send its last verdict early, when it cannot go on; it then reads and drops
//! what still comes until the sender stops.

use super::CHUNK;

const MAGIC: [u8; 8] = *b"WSDFILE\0";
const VERSION: u16 = 1;
const SIZE_KNOWN: u16 = 1;

pub(super) const GREETING_LEN: usize = 24;
pub(super) const HEADER_LEN: usize = 8;
pub(super) const END_LEN: usize = 24;
pub(super) const VERDICT_LEN: usize = 32;
/// Names and messages longer than this are cut by the side that writes them.
pub(super) const LONGEST_TEXT: usize = 1024;

/// What the peer sent cannot be a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it does not speak the protocol of wsdirect send")]
    Magic,
    #[error("it speaks version {0} of the protocol, this is version {VERSION}")]
    Version(u16),
    #[error("it sent a malformed frame")]
    Frame,
}

/// What is about to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) size: Option<u64>,
    pub(super) name: String,
}

impl Greeting {
    pub(super) fn encode(&self) -> Vec<u8> {
        let name = cut(&self.name);
        let mut out = Vec::with_capacity(GREETING_LEN + name.len());
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(if self.size.is_some() { SIZE_KNOWN } else { 0 }.to_le_bytes());
        out.extend(text_len(name).to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.size.unwrap_or(0).to_le_bytes());
        out.extend(name.as_bytes());
        out
    }

    /// The fixed part: the size and the length of the name that follows.
    pub(super) fn decode(bytes: &[u8; GREETING_LEN]) -> Result<(Option<u64>, usize), Malformed> {
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest)? != MAGIC {
            return Err(Malformed::Magic);
        }
        match u16::from_le_bytes(take(&mut rest)?) {
            VERSION => {}
            other => return Err(Malformed::Version(other)),
        }
        let flags = u16::from_le_bytes(take(&mut rest)?);
        let name_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let zero = u16::from_le_bytes(take(&mut rest)?);
        let size = u64::from_le_bytes(take(&mut rest)?);
        if flags & !SIZE_KNOWN != 0 || zero != 0 || name_len > LONGEST_TEXT {
            return Err(Malformed::Frame);
        }
        Ok(((flags & SIZE_KNOWN != 0).then_some(size), name_len))
    }
}

/// What follows in the sender's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Data(usize),
    End,
    Abort(usize),
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let (kind, len) = match self {
            Header::Data(len) => (1_u64, len),
            Header::End => (2, END_LEN),
            Header::Abort(len) => (3, len),
        };
        // Lengths are at most CHUNK, far below 32 bits.
        (kind | (len as u64) << 32).to_le_bytes()
    }

    pub(super) fn decode(bytes: [u8; HEADER_LEN]) -> Result<Header, Malformed> {
        let word = u64::from_le_bytes(bytes);
        let len = usize::try_from(word >> 32).map_err(|_| Malformed::Frame)?;
        match (word & 0xFFFF_FFFF, len) {
            (1, 1..=CHUNK) => Ok(Header::Data(len)),
            (2, END_LEN) => Ok(Header::End),
            (3, 0..=LONGEST_TEXT) => Ok(Header::Abort(len)),
            _ => Err(Malformed::Frame),
        }
    }
}

/// How many bytes there were, and their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) total: u64,
    pub(super) digest: u128,
}

impl Sum {
    pub(super) fn encode(self) -> [u8; END_LEN] {
        let mut out = [0; END_LEN];
        let (total, digest) = out.split_at_mut(8);
        total.copy_from_slice(&self.total.to_le_bytes());
        digest.copy_from_slice(&self.digest.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; END_LEN]) -> Result<Sum, Malformed> {
        let mut rest = bytes.as_slice();
        Ok(Sum {
            total: u64::from_le_bytes(take(&mut rest)?),
            digest: u128::from_le_bytes(take(&mut rest)?),
        })
    }
}

/// What the receiver says: before the data, and at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ready for data.
    Go,
    /// Everything is under its final name; this is what arrived.
    Stored(Sum),
    /// It could not, or cannot any more.
    Failed(String),
}

impl Verdict {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (status, text, sum) = match self {
            Verdict::Go => (0_u16, "", Sum::default()),
            Verdict::Stored(sum) => (1, "", *sum),
            Verdict::Failed(text) => (2, cut(text), Sum::default()),
        };
        let mut out = Vec::with_capacity(VERDICT_LEN + text.len());
        out.extend(status.to_le_bytes());
        out.extend(text_len(text).to_le_bytes());
        out.extend([0; 4]);
        out.extend(sum.encode());
        out.extend(text.as_bytes());
        out
    }

    /// The fixed part; `Failed` is followed by as many bytes of text as the second value says.
    pub(super) fn decode(bytes: &[u8; VERDICT_LEN]) -> Result<(Verdict, usize), Malformed> {
        let mut rest = bytes.as_slice();
        let status = u16::from_le_bytes(take(&mut rest)?);
        let text_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let zero = u32::from_le_bytes(take(&mut rest)?);
        let sum = Sum::decode(&take(&mut rest)?)?;
        match (status, text_len, zero) {
            (0, 0, 0) => Ok((Verdict::Go, 0)),
            (1, 0, 0) => Ok((Verdict::Stored(sum), 0)),
            (2, 0..=LONGEST_TEXT, 0) => Ok((Verdict::Failed(String::new()), text_len)),
            _ => Err(Malformed::Frame),
        }
    }
}

/// Text of the peer, made safe to show on a terminal.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

/// At most `LONGEST_TEXT` bytes of it, cut between characters.
pub(super) fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(LONGEST_TEXT))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn text_len(cut: &str) -> u16 {
    u16::try_from(cut.len()).unwrap_or(u16::MAX)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(Malformed::Frame)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_round_trip() {
        for size in [None, Some(0), Some(u64::MAX)] {
            let greeting = Greeting {
                size,
                name: "ä file".to_owned(),
            };
            let bytes = greeting.encode();
            let (head, name) = bytes.split_first_chunk::<GREETING_LEN>().unwrap();
            assert_eq!(Greeting::decode(head), Ok((size, name.len())));
            assert_eq!(shown(name), greeting.name);
        }
        for header in [
            Header::Data(1),
            Header::Data(CHUNK),
            Header::End,
            Header::Abort(0),
        ] {
            assert_eq!(Header::decode(header.encode()), Ok(header));
        }
        let sum = Sum {
            total: 77,
            digest: u128::MAX - 5,
        };
        for verdict in [Verdict::Go, Verdict::Stored(sum)] {
            let bytes = verdict.encode();
            assert_eq!(
                Verdict::decode(bytes.first_chunk().unwrap()),
                Ok((verdict, 0))
            );
        }
        let bytes = Verdict::Failed("no room".to_owned()).encode();
        let (head, text) = bytes.split_first_chunk().unwrap();
        assert_eq!(
            Verdict::decode(head),
            Ok((Verdict::Failed(String::new()), text.len()))
        );
        assert_eq!(text, b"no room");
    }

    #[test]
    fn the_greeting_has_the_published_layout() {
        let bytes = Greeting {
            size: Some(0x0102),
            name: "ab".to_owned(),
        }
        .encode();
        assert_eq!(
            bytes,
            b"WSDFILE\0\x01\0\x01\0\x02\0\0\0\x02\x01\0\0\0\0\0\0ab"
        );
    }

    #[test]
    fn malformed_frames_are_refused() {
        let good: [u8; GREETING_LEN] = *Greeting {
            size: None,
            name: String::new(),
        }
        .encode()
        .first_chunk()
        .unwrap();
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Greeting::decode(&bytes)
        };
        assert_eq!(with(0, b'w'), Err(Malformed::Magic));
        assert_eq!(with(8, 9), Err(Malformed::Version(9)));
        assert_eq!(with(10, 2), Err(Malformed::Frame));
        assert_eq!(with(13, 0xFF), Err(Malformed::Frame));
        assert_eq!(with(14, 1), Err(Malformed::Frame));
        for (kind, len) in [
            (0_u64, 0_u64),
            (1, 0),
            (1, CHUNK as u64 + 1),
            (2, 23),
            (3, 1025),
            (4, 1),
        ] {
            assert_eq!(
                Header::decode((kind | len << 32).to_le_bytes()),
                Err(Malformed::Frame)
            );
        }
        let mut verdict: [u8; VERDICT_LEN] = *Verdict::Go.encode().first_chunk().unwrap();
        verdict[0] = 3;
        assert_eq!(Verdict::decode(&verdict), Err(Malformed::Frame));
    }

    #[test]
    fn long_text_is_cut_between_characters_and_made_printable() {
        let long = "ä".repeat(LONGEST_TEXT);
        assert_eq!(cut(&long).len(), LONGEST_TEXT);
        assert_eq!(cut(&format!("x{long}")).len(), LONGEST_TEXT - 1);
        assert_eq!(shown(b"a\x1b[2Jb\xFF"), "a\u{FFFD}[2Jb\u{FFFD}");
    }
}
