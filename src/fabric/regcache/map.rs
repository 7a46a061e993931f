//! Spans of addresses, and where to look for them.
//!
//! Owns pure arithmetic and two containers. [`Intervals`]: spans with a number each, asked for what
//! covers or overlaps a span; they are kept by order of magnitude, so that one very long span does
//! not make the search among the short ones long. [`Coverage`]: how many spans lie over each
//! address, and which addresses a removal leaves bare.

use std::collections::BTreeMap;

use crate::fabric::Region;

/// The addresses from `start` to before `end`. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    /// `None` if there is nothing in it.
    pub(super) fn new(start: usize, end: usize) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// `None` if the region is empty or runs over the end of the address space.
    pub(super) fn of(region: Region) -> Option<Self> {
        Self::new(region.base, region.base.checked_add(region.len)?)
    }

    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    #[cfg(test)]
    pub(super) fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    #[cfg(test)]
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The whole pages that it touches. `page` is a power of two.
    pub(super) fn to_pages(self, page: usize) -> Self {
        let mask = page - 1;
        let end = self.end.saturating_add(mask) & !mask;
        Self {
            start: self.start & !mask,
            // In the last page of the address space there is no end to round up to.
            end: end.max(self.end),
        }
    }
}

/// Spans with numbers. The same span may be there under several numbers.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    /// By the binary logarithm of the length; then by start and number; the value is the end.
    classes: BTreeMap<u32, BTreeMap<(usize, u64), usize>>,
}

fn class(span: Span) -> u32 {
    span.len().ilog2()
}

/// No span of the class is as long as this.
fn reach(class: u32) -> usize {
    2_usize
        .checked_shl(class)
        .filter(|&r| r > 1)
        .unwrap_or(usize::MAX)
}

impl Intervals {
    pub(super) fn insert(&mut self, span: Span, id: u64) {
        let class = self.classes.entry(class(span)).or_default();
        class.insert((span.start, id), span.end);
    }

    pub(super) fn remove(&mut self, span: Span, id: u64) {
        let key = class(span);
        if let Some(class) = self.classes.get_mut(&key) {
            class.remove(&(span.start, id));
            if class.is_empty() {
                self.classes.remove(&key);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The numbers of the spans that hold all of `span`.
    pub(super) fn covering(&self, span: Span) -> impl Iterator<Item = u64> + '_ {
        self.classes
            .range(class(span)..)
            .flat_map(move |(&k, class)| {
                let first = span.end.saturating_sub(reach(k)).min(span.start);
                class
                    .range((first, 0)..=(span.start, u64::MAX))
                    .filter(move |&(_, &end)| end >= span.end)
                    .map(|(&(_, id), _)| id)
            })
    }

    /// The numbers of the spans that have an address in common with `span`.
    pub(super) fn overlapping(&self, span: Span) -> impl Iterator<Item = u64> + '_ {
        self.classes.iter().flat_map(move |(&k, class)| {
            let first = span.start.saturating_sub(reach(k));
            class
                .range((first, 0)..(span.end, 0))
                .filter(move |&(_, &end)| end > span.start)
                .map(|(&(_, id), _)| id)
        })
    }
}

/// How many spans lie over each address.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// From this address to the next key, so many; before the first key none.
    steps: BTreeMap<usize, usize>,
}

impl Coverage {
    fn height(&self, at: usize) -> usize {
        self.steps
            .range(..=at)
            .next_back()
            .map_or(0, |(_, &height)| height)
    }

    fn split(&mut self, span: Span) {
        for at in [span.start, span.end] {
            let height = self.height(at);
            self.steps.entry(at).or_insert(height);
        }
    }

    /// Takes out the steps in and around the span at which nothing changes.
    fn tidy(&mut self, span: Span) {
        let mut before = span.start.checked_sub(1).map_or(0, |at| self.height(at));
        let mut level = Vec::new();
        for (&at, &height) in self.steps.range(span.start..=span.end) {
            if height == before {
                level.push(at);
            }
            before = height;
        }
        for at in level {
            self.steps.remove(&at);
        }
    }

    pub(super) fn add(&mut self, span: Span) {
        self.split(span);
        for (_, height) in self.steps.range_mut(span.start..span.end) {
            *height += 1;
        }
        self.tidy(span);
    }

    /// Takes back one `add` of the same span, and says over which parts of it nothing lies now.
    pub(super) fn remove(&mut self, span: Span) -> Vec<Span> {
        self.split(span);
        let mut bare: Vec<Span> = Vec::new();
        let mut from = None;
        for (&at, height) in self.steps.range_mut(span.start..span.end) {
            *height = height.saturating_sub(1);
            match (*height, from) {
                (0, None) => from = Some(at),
                (1.., Some(start)) => {
                    bare.extend(Span::new(start, at));
                    from = None;
                }
                _ => {}
            }
        }
        bare.extend(from.and_then(|start| Span::new(start, span.end)));
        self.tidy(span);
        bare
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Span> {
        (0_usize..200, 1_usize..80).prop_map(|(start, len)| Span {
            start,
            end: start + len,
        })
    }

    fn sorted(ids: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids
    }

    proptest! {
        #[test]
        fn intervals_find_what_a_search_through_all_finds(
            spans in prop::collection::vec(span(), 0..40),
            gone in prop::collection::vec(any::<bool>(), 40),
            asked in span(),
        ) {
            let mut intervals = Intervals::default();
            let mut all = Vec::new();
            for (id, &span) in (0..).zip(&spans) {
                intervals.insert(span, id);
                all.push((span, id));
            }
            for (&(span, id), _) in all.iter().zip(&gone).filter(|(_, gone)| **gone) {
                intervals.remove(span, id);
            }
            all.retain(|&(_, id)| !gone[usize::try_from(id).unwrap()]);
            let naive = |test: &dyn Fn(Span) -> bool| -> Vec<u64> {
                all.iter().filter(|(span, _)| test(*span)).map(|&(_, id)| id).collect()
            };
            prop_assert_eq!(sorted(intervals.covering(asked)), naive(&|s| s.covers(asked)));
            prop_assert_eq!(sorted(intervals.overlapping(asked)), naive(&|s| s.overlaps(asked)));
            prop_assert_eq!(intervals.is_empty(), all.is_empty());
        }

        #[test]
        fn coverage_counts_like_an_array(
            steps in prop::collection::vec((span(), any::<prop::sample::Index>()), 1..60),
        ) {
            let mut coverage = Coverage::default();
            let mut counts = vec![0_usize; 300];
            let mut live: Vec<Span> = Vec::new();
            for (span, choice) in steps {
                // Every second time one is taken back.
                if live.len() % 3 == 2 {
                    let old = live.swap_remove(choice.index(live.len()));
                    let bare = coverage.remove(old);
                    for count in &mut counts[old.start..old.end] {
                        *count -= 1;
                    }
                    for (at, count) in counts.iter().enumerate().take(old.end).skip(old.start) {
                        let is_bare = bare.iter().any(|s| s.start <= at && at < s.end);
                        prop_assert_eq!(is_bare, *count == 0, "at {}", at);
                    }
                } else {
                    coverage.add(span);
                    live.push(span);
                    for count in &mut counts[span.start..span.end] {
                        *count += 1;
                    }
                }
                for (at, &count) in counts.iter().enumerate() {
                    prop_assert_eq!(coverage.height(at), count, "at {}", at);
                }
            }
            for span in live {
                coverage.remove(span);
            }
            prop_assert!(coverage.steps.is_empty(), "{:?}", coverage);
        }
    }

    #[test]
    fn spans_at_the_end_of_the_address_space_do_no_harm() {
        let last = Span::new(usize::MAX - 5, usize::MAX).unwrap();
        let pages = last.to_pages(4096);
        assert!(pages.covers(last));
        let whole = Span::new(0, usize::MAX).unwrap();
        let mut intervals = Intervals::default();
        intervals.insert(last, 1);
        intervals.insert(whole, 2);
        assert_eq!(sorted(intervals.covering(last)), [1, 2]);
        assert_eq!(sorted(intervals.overlapping(whole)), [1, 2]);
        let region = |base, len| Region { base, len };
        assert_eq!(Span::of(region(usize::MAX, 1)), None);
        assert_eq!(Span::of(region(5, 0)), None);
    }

    #[test]
    fn pages_are_those_touched() {
        let pages = |start, end| Span::new(start, end).unwrap().to_pages(4096);
        assert_eq!(
            pages(1, 2),
            Span {
                start: 0,
                end: 4096
            }
        );
        assert_eq!(
            pages(4095, 4097),
            Span {
                start: 0,
                end: 8192
            }
        );
        assert_eq!(
            pages(4096, 8192),
            Span {
                start: 4096,
                end: 8192
            }
        );
    }
}
