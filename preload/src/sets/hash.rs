//! Maps by numbers that nobody chooses to do harm: addresses, descriptors, the program's own data.
//!
//! Looking up is done several times for each call of the program, so it must cost next to nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by one number.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Number>>;

/// Of one number, or of several in their order.
#[derive(Default)]
pub(super) struct Number(u64);

/// 2^64 divided by the golden ratio: multiplied with it, neighbours come to lie far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Number {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let spread = (self.0 ^ number).wrapping_mul(SPREAD);
        // The map takes its place from the low bits, which know of the low ones only.
        self.0 = spread ^ (spread >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(u64::from(number.cast_unsigned()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_multiples_are_told_apart() {
        let mut map = Map::default();
        for number in 0..10_000_u64 {
            map.insert(number << 6, number);
        }
        assert!((0..10_000).all(|number| map.get(&(number << 6)) == Some(&number)));
        let low = |number: u64| {
            let mut hasher = Number::default();
            hasher.write_u64(number);
            hasher.finish() & 0xff
        };
        let places: std::collections::HashSet<_> = (0..256).map(|n| low(n << 12)).collect();
        assert!(places.len() > 128, "{} of 256", places.len());
    }
}
