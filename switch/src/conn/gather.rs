//! The application's bytes of one send, in one piece or several.

use std::io::IoSlice;

use super::fifo::copy_into;

#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    first: &'a [u8],
    more: &'a [IoSlice<'a>],
    /// Bytes at the beginning that do not count any more.
    skip: usize,
}

impl<'a> Gather<'a> {
    #[inline]
    pub(super) fn one(bytes: &'a [u8]) -> Self {
        Gather {
            first: bytes,
            more: &[],
            skip: 0,
        }
    }

    pub(super) fn many(slices: &'a [IoSlice<'a>]) -> Self {
        Gather {
            first: &[],
            more: slices,
            skip: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        let all = self.first.len() + self.more.iter().map(|slice| slice.len()).sum::<usize>();
        all.saturating_sub(self.skip)
    }

    /// The same without the first `count` bytes.
    #[inline]
    pub(super) fn without(self, count: usize) -> Self {
        Gather {
            skip: self.skip + count,
            ..self
        }
    }

    /// The parts from `offset` on, at most `len` bytes of them.
    fn parts(self, offset: usize, len: usize) -> impl Iterator<Item = &'a [u8]> {
        let (mut skip, mut left) = (self.skip.saturating_add(offset), len);
        let all = std::iter::once(self.first).chain(self.more.iter().map(|slice| &**slice));
        all.filter_map(move |part| {
            let from = skip.min(part.len());
            skip -= from;
            let part = part.get(from..)?;
            let part = part.get(..left.min(part.len()))?;
            left -= part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// The first part.
    pub(super) fn front(self) -> &'a [u8] {
        self.parts(0, usize::MAX).next().unwrap_or_default()
    }

    /// Copies from `offset` on; `false` if there is too little.
    #[inline]
    pub(super) fn copy(&self, offset: usize, target: &mut [u8]) -> bool {
        if self.more.is_empty() {
            let there = self
                .first
                .get(self.skip.saturating_add(offset)..)
                .unwrap_or_default();
            return copy_into(target, there) == target.len();
        }
        let mut done = 0;
        for part in self.parts(offset, target.len()) {
            done += copy_into(target.get_mut(done..).unwrap_or_default(), part);
        }
        done == target.len()
    }

    /// `len` bytes from `offset` on, as slices.
    pub(super) fn slices(&self, offset: usize, len: usize) -> Vec<&'a [u8]> {
        self.parts(offset, len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_copied_as_if_they_were_one() {
        let slices = [
            IoSlice::new(b"ab"),
            IoSlice::new(b""),
            IoSlice::new(b"cdef"),
        ];
        let gather = Gather::many(&slices);
        assert_eq!(gather.len(), 6);
        let mut out = [0; 3];
        assert!(gather.copy(1, &mut out));
        assert_eq!(&out, b"bcd");
        assert!(!gather.copy(4, &mut out));
        assert_eq!(gather.slices(1, 2), [&b"b"[..], b"c"]);
        let rest = gather.without(3);
        assert_eq!((rest.len(), rest.front()), (3, &b"def"[..]));
        assert!(rest.copy(0, &mut out));
        assert_eq!(&out, b"def");
        let one = Gather::one(b"xyz");
        assert!(one.copy(0, &mut out));
        assert_eq!(&out, b"xyz");
        assert!(!one.copy(1, &mut out));
    }
}
