//! Small data that was accepted from the application and waits for credit.
//!
//! Owns the bytes between "the write has returned" and "it is in a message". The front is handed
//! to the session as one send at a time, so what is added meanwhile is merged into fewer messages.
//! Invariant: bytes leave in the order they came.

use std::collections::VecDeque;

use wsd_proto::SendId;

use super::fifo::Fifo;

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Fifo,
    /// Sends the session has, oldest first, with their lengths.
    handed: VecDeque<(SendId, usize)>,
    handed_bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.push(bytes);
    }

    /// Bytes that the session has not been told of.
    pub(super) fn unhanded(&self) -> usize {
        self.bytes.len() - self.handed_bytes
    }

    pub(super) fn is_handed(&self) -> bool {
        !self.handed.is_empty()
    }

    pub(super) fn hand(&mut self, id: SendId, len: usize) {
        self.handed.push_back((id, len));
        self.handed_bytes += len;
    }

    /// Those.
    pub(super) fn unhanded_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.unhanded()];
        self.bytes.copy(self.handed_bytes, &mut bytes);
        bytes
    }

    /// Copies bytes of a send; `false` if it is none of these.
    pub(super) fn copy(&self, id: SendId, offset: usize, target: &mut [u8]) -> bool {
        let mut before = 0;
        for (known, len) in &self.handed {
            if *known == id {
                return self.bytes.copy(before + offset, target) == target.len();
            }
            before += len;
        }
        false
    }

    /// A send is over; `false` if it is none of these.
    pub(super) fn complete(&mut self, id: SendId) -> bool {
        let Some(place) = self.handed.iter().position(|(known, _)| *known == id) else {
            return false;
        };
        // Small sends end in order. Should one not, what stands before it ends with it, so that
        // the bytes and the list never differ.
        let ended = self.handed.drain(..=place).map(|(_, len)| len).sum();
        self.handed_bytes -= ended;
        self.bytes.consume(ended);
        true
    }

    /// The connection is gone, and so are they.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.handed.clear();
        self.handed_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_handed_over_in_order_and_freed_when_their_send_is_over() {
        let mut outbox = Outbox::default();
        outbox.push(b"abcdef");
        outbox.hand(SendId(1), 4);
        outbox.push(b"gh");
        assert_eq!((outbox.len(), outbox.unhanded()), (8, 4));
        outbox.hand(SendId(2), 4);
        let mut out = [0; 2];
        assert!(outbox.copy(SendId(1), 1, &mut out));
        assert_eq!(&out, b"bc");
        assert!(outbox.copy(SendId(2), 2, &mut out));
        assert_eq!(&out, b"gh");
        assert!(!outbox.copy(SendId(3), 0, &mut out));
        assert!(outbox.complete(SendId(1)));
        assert!(!outbox.complete(SendId(1)));
        assert!(outbox.copy(SendId(2), 0, &mut out));
        assert_eq!(&out, b"ef");
        assert!(outbox.complete(SendId(2)));
        assert!(outbox.is_empty() && !outbox.is_handed());
    }
}
