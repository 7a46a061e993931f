//! What has arrived in messages and waits to be read.
//!
//! A long message waits in the buffer it came in, which belongs to the queue meanwhile: the pool has
//! posted another one in its place. Everything else is copied. Knows no limit, as the session grants
//! credit for no more than may wait here. Invariant: bytes come out in the order they came, and the
//! buffers go back as they are read.

use std::collections::VecDeque;

use super::fifo::{Fifo, copy_into};
use crate::memory::ControlBuffer;

/// From this length on a buffer is worth being kept.
pub(super) const WORTH_KEEPING: usize = 4 << 10;

enum Part {
    Copied(Fifo),
    /// These bytes of a message.
    Kept(ControlBuffer, std::ops::Range<usize>),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Copied(bytes) => bytes.len(),
            Part::Kept(_, range) => range.len(),
        }
    }

    fn copy(&self, target: &mut [u8]) -> usize {
        match self {
            Part::Copied(bytes) => bytes.copy(0, target),
            Part::Kept(buffer, range) => {
                let bytes = buffer.bytes().get(range.clone());
                copy_into(target, bytes.unwrap_or_default())
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Inbox {
    parts: VecDeque<Part>,
    /// Keeps its memory for the next bytes that are copied.
    empty: Fifo,
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.parts.back(), Some(Part::Copied(_))) {
            let empty = std::mem::take(&mut self.empty);
            self.parts.push_back(Part::Copied(empty));
        }
        if let Some(Part::Copied(last)) = self.parts.back_mut() {
            last.push(bytes);
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let kept = |part: &&Part| matches!(part, Part::Kept(..));
        self.parts.iter().filter(kept).count()
    }

    /// These bytes of a buffer, which comes back when they were read.
    pub(super) fn keep(&mut self, buffer: ControlBuffer, range: std::ops::Range<usize>) {
        self.parts.push_back(Part::Kept(buffer, range));
    }

    /// Copies the front without taking anything out; returns how much.
    pub(super) fn copy(&self, target: &mut [u8]) -> usize {
        let mut done = 0;
        for part in &self.parts {
            let room = target.get_mut(done..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            done += part.copy(room);
        }
        done
    }

    /// Takes bytes out of the front. Buffers that are read are given to `back`.
    pub(super) fn consume(&mut self, count: usize, mut back: impl FnMut(ControlBuffer)) {
        let mut left = count;
        while let Some(first) = self.parts.front_mut() {
            let now = left.min(first.len());
            left -= now;
            match first {
                Part::Copied(bytes) => bytes.consume(now),
                Part::Kept(_, range) => range.start += now,
            }
            if first.len() > 0 {
                break;
            }
            match self.parts.pop_front() {
                Some(Part::Copied(empty)) => self.empty = empty,
                Some(Part::Kept(buffer, _)) => back(buffer),
                None => {}
            }
        }
    }

    pub(super) fn clear(&mut self, back: impl FnMut(ControlBuffer)) {
        self.consume(usize::MAX, back);
        self.empty.clear();
    }
}
