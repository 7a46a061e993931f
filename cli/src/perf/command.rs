//! What client and server of `perf` say to each other before and after a measurement.
//!
//! All integers are little-endian. Client: a command. Server: one byte "ready", or for
//! `Directory` a length and JSON. After a measurement of bandwidth: the server's [`Tally`].

use serde::{Deserialize, Serialize};

const MAGIC: u32 = 0x5046_5357;

pub(super) const COMMAND_LEN: usize = 12;
pub(super) const TALLY_LEN: usize = 24;
pub(super) const READY: [u8; 1] = [1];

/// What the server shall do next on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Tell where the other transports are.
    Directory,
    /// Send every message of `size` back, until one begins with 1.
    Echo { size: u32, poll: bool },
    /// Take messages of `size` until one ends in 1; then answer with a tally.
    Drain { size: u32, poll: bool },
}

impl Command {
    pub(super) fn encode(self) -> [u8; COMMAND_LEN] {
        let (what, size, poll) = match self {
            Command::Directory => (1_u16, 0, false),
            Command::Echo { size, poll } => (2, size, poll),
            Command::Drain { size, poll } => (3, size, poll),
        };
        let mut out = [0; COMMAND_LEN];
        let fields = MAGIC.to_le_bytes().into_iter().chain(what.to_le_bytes());
        let fields = fields.chain([u8::from(poll), 0]).chain(size.to_le_bytes());
        out.iter_mut()
            .zip(fields)
            .for_each(|(byte, field)| *byte = field);
        out
    }

    /// `None`: not a command of this protocol.
    pub(super) fn decode(bytes: &[u8; COMMAND_LEN]) -> Option<Command> {
        let [m0, m1, m2, m3, w0, w1, poll, 0, s0, s1, s2, s3] = *bytes else {
            return None;
        };
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let poll = match poll {
            0 => false,
            1 => true,
            _ => return None,
        };
        if u32::from_le_bytes([m0, m1, m2, m3]) != MAGIC {
            return None;
        }
        match (u16::from_le_bytes([w0, w1]), size) {
            (1, 0) => Some(Command::Directory),
            (2, 1..) => Some(Command::Echo { size, poll }),
            (3, 1..) => Some(Command::Drain { size, poll }),
            _ => None,
        }
    }
}

/// Where the server's other transports are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Directory {
    /// Port of plain TCP, on the address of the first connection.
    pub(super) tcp: u16,
    /// Abstract name of the Unix socket.
    pub(super) unix: String,
}

/// What the server used for one measurement of bandwidth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    /// CPU time of the process.
    pub(super) cpu_ns: u64,
    /// How often the serving thread was pre-empted.
    pub(super) preempted: u64,
}

impl Tally {
    pub(super) fn encode(self) -> [u8; TALLY_LEN] {
        let mut out = [0; TALLY_LEN];
        let fields = [self.bytes, self.cpu_ns, self.preempted];
        for (place, field) in out.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8; TALLY_LEN]) -> Tally {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Tally {
            bytes: next(),
            cpu_ns: next(),
            preempted: next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_tallies_survive_the_round_trip_and_garbage_does_not() {
        for command in [
            Command::Directory,
            Command::Echo {
                size: 1,
                poll: true,
            },
            Command::Drain {
                size: u32::MAX,
                poll: false,
            },
        ] {
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
        let tally = Tally {
            bytes: 1,
            cpu_ns: u64::MAX,
            preempted: 3,
        };
        assert_eq!(Tally::decode(&tally.encode()), tally);
        let good = Command::Echo {
            size: 8,
            poll: false,
        }
        .encode();
        for (at, value) in [(0, 0), (4, 9), (6, 2), (7, 1), (8, 0)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Command::decode(&bad), None, "byte {at}");
        }
    }
}
