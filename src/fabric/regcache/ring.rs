//! Spans passed from the one thread that learns of changes to everybody who wants to know.
//!
//! Owns a ring of fixed size that is written by one thread and read by any number, each with a
//! position of its own. Invariant: the writer takes no lock, allocates nothing and never waits; a
//! reader who was overtaken is told so, and never gets a span that was not written.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::map::Span;

const PLACES: usize = 1024;

#[derive(Debug, Default)]
struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
}

/// All accesses are sequentially consistent: this is nobody's fast path.
#[derive(Debug)]
pub(super) struct Ring {
    places: Box<[Place]>,
    /// Spans written so far; the next goes to this place, modulo the number of places.
    head: AtomicUsize,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| Place::default()).collect(),
            head: AtomicUsize::new(0),
        }
    }

    /// By the one writer only.
    pub(super) fn publish(&self, span: Span) {
        let head = self.head.load(Ordering::SeqCst);
        if let Some(place) = self.places.get(head % PLACES) {
            place.start.store(span.start, Ordering::SeqCst);
            place.end.store(span.end, Ordering::SeqCst);
        }
        self.head.store(head.wrapping_add(1), Ordering::SeqCst);
    }

    /// Where somebody who only wants to know of later spans begins.
    pub(super) fn position(&self) -> usize {
        self.head.load(Ordering::SeqCst)
    }

    /// Appends what was written since `position` and moves it on. `false`: some were overwritten
    /// before they could be read, and what was appended means nothing.
    pub(super) fn take(&self, position: &mut usize, found: &mut Vec<Span>) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        let from = std::mem::replace(position, head);
        if head.wrapping_sub(from) >= PLACES {
            return false;
        }
        let mut at = from;
        while at != head {
            if let Some(place) = self.places.get(at % PLACES) {
                let start = place.start.load(Ordering::SeqCst);
                let end = place.end.load(Ordering::SeqCst);
                found.extend(Span::new(start, end));
            }
            at = at.wrapping_add(1);
        }
        // The writer works on the place of the head of this moment; it must not be one of ours.
        self.head.load(Ordering::SeqCst).wrapping_sub(from) < PLACES
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn span(n: usize) -> Span {
        Span {
            start: n + 1,
            end: 2 * n + 3,
        }
    }

    #[test]
    fn every_reader_gets_every_span_once() {
        let ring = Ring::new();
        ring.publish(span(0));
        let mut late = ring.position();
        let mut early = 0;
        ring.publish(span(1));
        let mut found = Vec::new();
        assert!(ring.take(&mut early, &mut found));
        assert_eq!(found, [span(0), span(1)]);
        found.clear();
        assert!(ring.take(&mut early, &mut found));
        assert!(found.is_empty());
        assert!(ring.take(&mut late, &mut found));
        assert_eq!(found, [span(1)]);
    }

    #[test]
    fn a_reader_who_was_overtaken_is_told_and_goes_on_from_there() {
        let ring = Ring::new();
        let mut position = 0;
        for n in 0..PLACES {
            ring.publish(span(n));
        }
        let mut found = Vec::new();
        assert!(!ring.take(&mut position, &mut found));
        found.clear();
        for n in 0..PLACES - 1 {
            ring.publish(span(n));
        }
        assert!(ring.take(&mut position, &mut found));
        assert_eq!(found.len(), PLACES - 1);
        assert_eq!(found[7], span(7));
    }

    #[test]
    fn no_reader_gets_half_a_span_while_one_is_written() {
        let ring = Ring::new();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200_000 {
                    ring.publish(span(n));
                }
                stop.store(true, Ordering::SeqCst);
            });
            let mut position = 0;
            let mut found = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                found.clear();
                if ring.take(&mut position, &mut found) {
                    let starts: Vec<_> = found.iter().map(|s| s.start).collect();
                    assert!(starts.windows(2).all(|w| w[0] + 1 == w[1]), "in order");
                    assert!(found.iter().all(|s| s.end == 2 * (s.start - 1) + 3));
                }
            }
        });
    }
}
