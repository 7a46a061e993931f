//! Urgent bytes that have arrived, by TCP's rules: one byte at a time is urgent.
//!
//! Owns the bytes and the choice between "apart" and "in line". Knows no stream: the mark says where
//! a byte belongs.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Urgent {
    /// Marks in rising order, each with its byte.
    waiting: VecDeque<(u64, u8)>,
    /// Whether the bytes are part of the stream.
    pub(super) inline: bool,
}

impl Urgent {
    /// Takes what a message brought; returns how many bytes were given up for it. As with TCP,
    /// a byte that nobody has fetched gives way to a newer one.
    pub(super) fn arrived(&mut self, mark: u64, bytes: &[u8]) -> u64 {
        self.waiting.extend(bytes.iter().map(|byte| (mark, *byte)));
        if self.inline {
            return 0;
        }
        let surplus = self.waiting.len().saturating_sub(1);
        self.waiting.drain(..surplus);
        u64::try_from(surplus).unwrap_or(u64::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The urgent byte, apart from the stream.
    pub(super) fn take(&mut self) -> Option<u8> {
        if self.inline {
            None
        } else {
            self.waiting.pop_front().map(|(_, byte)| byte)
        }
    }

    /// The byte that stands in the stream at this position.
    pub(super) fn at(&self, position: u64) -> Option<u8> {
        match self.waiting.front() {
            Some((mark, byte)) if self.inline && *mark == position => Some(*byte),
            _ => None,
        }
    }

    /// It was read.
    pub(super) fn passed(&mut self) {
        self.waiting.pop_front();
    }

    /// Whether only this position's last byte is left: there the mark is for bytes in line.
    pub(super) fn is_last_at(&self, position: u64) -> bool {
        self.waiting.len() == 1 && self.at(position).is_some()
    }

    /// Bytes of the stream from this position on that come before the next byte in line.
    pub(super) fn room_before(&self, position: u64) -> u64 {
        match self.waiting.front() {
            Some((mark, _)) if self.inline && *mark > position => *mark - position,
            _ => u64::MAX,
        }
    }

    /// The stream was read up to this position: as with TCP, nobody gets a byte apart from the
    /// stream after that. Returns how many were given up.
    pub(super) fn give_up_before(&mut self, position: u64) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|(mark, _)| *mark >= position);
        u64::try_from(before - self.waiting.len()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_byte_replaces_an_older_one_apart_from_the_stream() {
        let mut urgent = Urgent::default();
        assert_eq!(urgent.arrived(4, b"a"), 0);
        assert_eq!(urgent.arrived(9, b"bc"), 2);
        assert_eq!(urgent.at(9), None);
        assert_eq!(urgent.take(), Some(b'c'));
        assert_eq!(urgent.take(), None);
    }

    #[test]
    fn bytes_in_line_stay_where_they_belong() {
        let mut urgent = Urgent {
            inline: true,
            ..Urgent::default()
        };
        assert_eq!(urgent.arrived(4, b"a"), 0);
        assert_eq!(urgent.arrived(9, b"b"), 0);
        assert_eq!(
            (urgent.at(3), urgent.at(4), urgent.at(9)),
            (None, Some(b'a'), None)
        );
        assert_eq!(urgent.take(), None);
        assert_eq!((urgent.room_before(1), urgent.is_last_at(4)), (3, false));
        urgent.passed();
        assert_eq!(urgent.at(9), Some(b'b'));
        assert_eq!(
            (urgent.room_before(4), urgent.room_before(9)),
            (5, u64::MAX)
        );
        assert!(urgent.is_last_at(9));
    }

    #[test]
    fn a_byte_the_stream_was_read_past_is_given_up() {
        let mut urgent = Urgent::default();
        assert_eq!(urgent.arrived(4, b"a"), 0);
        assert_eq!((urgent.give_up_before(4), urgent.give_up_before(5)), (0, 1));
        assert_eq!(urgent.take(), None);
    }
}
