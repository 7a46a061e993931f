//! Cutting a transfer into work requests.
//!
//! Owns how much one of them moves. Two things limit it: the pieces that a device takes at a time,
//! and an amount. What a read has asked for and not got when a packet is lost is sent again; so a long
//! one is asked for in parts, of which the device has a few under way (`Settings::reads_out`) and
//! begins the next by itself. A long write is acknowledged seldom, and if that many packets in a row
//! never arrive, on a link that loses some, the device gives the connection up: in parts, each is
//! acknowledged. Posted together they ring the device's bell once, and only the last of them reports.
//!
//! Invariant: the parts are the transfer, in order, each byte once.

use smallvec::SmallVec;

use super::memory::Sges;
use super::sys::Sge;

/// Bytes that one part of a read asks for at least, if there is more than one.
pub(super) const READ_PART: usize = 128 << 10;
/// The same of a write: eight packets of the longest kind. Seven attempts at them fail one time in
/// half a million where 2 % of the packets are lost.
pub(super) const WRITE_PART: usize = 32 << 10;
/// Parts that a transfer is made of at most on account of its length.
const MOST_PARTS: usize = 32;
/// Parts end at whole pages: a packet then has no reason to be short.
const PAGE: usize = 4096;

/// One work request of a transfer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) remote: u64,
    pub(super) pieces: Sges,
}

/// Nearly always there is one.
pub(super) type Parts = SmallVec<[Part; 1]>;

/// What one part may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) pieces: usize,
    pub(super) bytes: usize,
}

impl Most {
    /// For a transfer of so many bytes, into a queue that has room for so many parts now. It takes no
    /// more than an eighth of that, so that it is never the length of some that keeps others out.
    pub(super) fn of(pieces: usize, total: usize, least: usize, room: usize) -> Self {
        let parts = MOST_PARTS.min(room / 8).max(1);
        let bytes = total.div_ceil(parts).next_multiple_of(PAGE).max(least);
        Self { pieces, bytes }
    }
}

/// The parts of a transfer between these pieces and what begins at `remote`. A transfer without
/// pieces is one part, too.
pub(super) fn cut(pieces: &[Sge], remote: u64, most: Most) -> Parts {
    let mut parts = Parts::new();
    let mut part = Part {
        remote,
        pieces: Sges::new(),
    };
    let mut len = 0_usize;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            if part.pieces.len() >= most.pieces.max(1) || len >= most.bytes.max(1) {
                let next = Part {
                    remote: part.remote.saturating_add(len as u64),
                    pieces: Sges::new(),
                };
                parts.push(std::mem::replace(&mut part, next));
                len = 0;
            }
            let (front, behind) = rest.split_at(most.bytes.max(1) - len);
            len += front.len() as usize;
            part.pieces.push(front);
            match behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lens: &[u32]) -> Vec<Sge> {
        let mut address = 1000;
        lens.iter()
            .map(|&len| {
                let piece = Sge::pretend(address, len);
                // With a gap.
                address += u64::from(len) + 64;
                piece
            })
            .collect()
    }

    /// Each byte of memory with the place it belongs to.
    fn bytes(parts: &[Part]) -> Vec<(u64, u64)> {
        parts
            .iter()
            .flat_map(|part| {
                let here = part
                    .pieces
                    .iter()
                    .flat_map(|piece| piece.address()..piece.address() + u64::from(piece.len()));
                (part.remote..).zip(here)
            })
            .collect()
    }

    #[test]
    fn whatever_the_limits_the_parts_are_the_transfer_in_order() {
        for lens in [&[][..], &[1], &[10, 1, 7], &[3; 9], &[100, 5, 100]] {
            let pieces = pieces(lens);
            let whole = bytes(&[Part {
                remote: 50,
                pieces: pieces.iter().copied().collect(),
            }]);
            for most in [1, 2, 3, 16] {
                for most_bytes in [1, 2, 5, 10, 99, usize::MAX] {
                    let most = Most {
                        pieces: most,
                        bytes: most_bytes,
                    };
                    let parts = cut(&pieces, 50, most);
                    assert_eq!(bytes(&parts), whole, "{lens:?} {most:?}");
                    for part in &parts {
                        let len: u32 = part.pieces.iter().map(Sge::len).sum();
                        assert!(part.pieces.len() <= most.pieces, "{lens:?} {most:?}");
                        assert!(len as usize <= most.bytes, "{lens:?} {most:?}");
                        assert!(len > 0 || lens.is_empty(), "{lens:?} {most:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_transfer_is_several_a_short_one_is_one_and_a_huge_one_not_too_many() {
        let count = |total: usize, least, room| {
            let most = Most::of(16, total, least, room);
            let len = u32::try_from(total).unwrap();
            let parts = cut(&pieces(&[len]), 0, most);
            for part in &parts[1..] {
                assert_eq!(part.remote % 4096, 0);
            }
            parts.len()
        };
        for least in [READ_PART, WRITE_PART] {
            assert_eq!(count(1, least, 256), 1);
            assert_eq!(count(least, least, 256), 1);
            assert_eq!(count(least + 1, least, 256), 2);
            assert_eq!(count(1 << 30, least, 256), MOST_PARTS);
            // A queue that is short, or nearly full.
            assert_eq!(count(1 << 20, least, 16), 2);
            assert_eq!(count(1 << 20, least, 8), 1);
            assert_eq!(count(1 << 20, least, 1), 1);
        }
        assert_eq!(count(1 << 20, READ_PART, 256), 8);
        assert_eq!(count(1 << 20, WRITE_PART, 256), 32);
    }

    #[test]
    fn long_transfers_keep_no_other_one_out() {
        // As many as there may be with this many parts free, none of which ends.
        let mut room: usize = 250;
        let mut posted = 0;
        while room > 0 {
            let most = Most::of(16, 1 << 20, WRITE_PART, room);
            room -= cut(&pieces(&[1 << 20]), 0, most).len();
            posted += 1;
        }
        assert!(posted > 30, "{posted}");
    }
}
