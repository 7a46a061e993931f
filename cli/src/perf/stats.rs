//! Medians and quartiles of rounds.

use serde::Serialize;

/// Of one figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Quartiles {
    pub(super) q1: f64,
    pub(super) median: f64,
    pub(super) q3: f64,
}

impl Quartiles {
    /// By linear interpolation between the two nearest; `None` without values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Quartiles> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let steps = sorted.len().checked_sub(1)?;
        // The quarter points lie at whole quarters of `steps`.
        let at = |quarters: usize| {
            let (below, part) = (steps * quarters / 4, (steps * quarters % 4) as f64 / 4.0);
            let low = sorted.get(below)?;
            let high = sorted.get(below + 1).unwrap_or(low);
            Some(low + (high - low) * part)
        };
        Some(Quartiles {
            q1: at(1)?,
            median: at(2)?,
            q3: at(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(Quartiles::of([]), None);
        let one = Quartiles::of([7.0]).unwrap();
        assert_eq!((one.q1, one.median, one.q3), (7.0, 7.0, 7.0));
        let five = Quartiles::of([5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((five.q1, five.median, five.q3), (2.0, 3.0, 4.0));
        let four = Quartiles::of([1.0, 2.0, 3.0, f64::INFINITY, 4.0]).unwrap();
        assert_eq!((four.q1, four.median, four.q3), (1.75, 2.5, 3.25));
    }
}
