//! A queue of bytes that owns memory only while it holds something worth it.
//!
//! Knows no limit: the session grants credit for no more than may wait here, and the outbox asks
//! before it adds.

use std::collections::VecDeque;

/// Memory up to here is kept when the queue runs empty.
const KEPT: usize = 64 << 10;

/// Copies as much as there is and fits.
pub(super) fn copy_into(target: &mut [u8], source: &[u8]) -> usize {
    let count = source.len().min(target.len());
    if let (Some(to), Some(from)) = (target.get_mut(..count), source.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

#[derive(Debug, Default)]
pub(super) struct Fifo {
    bytes: VecDeque<u8>,
}

impl Fifo {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Copies from `offset` on without taking anything out; returns how much.
    pub(super) fn copy(&self, offset: usize, target: &mut [u8]) -> usize {
        let (front, back) = self.bytes.as_slices();
        let done = copy_into(target, front.get(offset..).unwrap_or_default());
        let behind = offset.saturating_sub(front.len());
        let room = target.get_mut(done..).unwrap_or_default();
        done + copy_into(room, back.get(behind..).unwrap_or_default())
    }

    /// Takes bytes out of the front.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = VecDeque::new();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_wherever_the_ring_wraps() {
        let mut fifo = Fifo::default();
        let (mut next_in, mut next_out) = (0u8, 0u8);
        for round in 0..1000 {
            let add: Vec<u8> = (0..round % 13)
                .map(|_| {
                    next_in = next_in.wrapping_add(1);
                    next_in
                })
                .collect();
            fifo.push(&add);
            let mut out = [0; 7];
            let skip = fifo.len() / 3;
            let seen = fifo.copy(skip, &mut out);
            assert_eq!(seen, (fifo.len() - skip).min(7));
            for (index, byte) in out[..seen].iter().enumerate() {
                let place = u8::try_from((skip + index + 1) % 256).unwrap();
                assert_eq!(*byte, next_out.wrapping_add(place));
            }
            let count = fifo.copy(0, &mut out);
            fifo.consume(count);
            next_out = next_out.wrapping_add(u8::try_from(count).unwrap());
        }
    }

    #[test]
    fn an_empty_queue_keeps_no_large_memory() {
        let mut fifo = Fifo::default();
        fifo.push(&vec![1; 4 * KEPT]);
        fifo.consume(usize::MAX);
        assert!(fifo.is_empty());
        assert_eq!(fifo.bytes.capacity(), 0);
        assert_eq!(fifo.copy(5, &mut [0; 4]), 0);
    }
}
