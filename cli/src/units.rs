//! Numbers as people read them.

use std::fmt;

/// "17 B", "1.5 MiB (1572864 B)".
#[derive(Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        match unit {
            "B" => write!(f, "{} B", self.0),
            _ => write!(f, "{value:.1} {unit}, {} B", self.0),
        }
    }
}

/// Bytes in few characters: "17", "1.5K", "230M".
#[derive(Clone, Copy)]
pub(crate) struct Short(pub(crate) u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "";
        for larger in ["K", "M", "G", "T", "P"] {
            // What would be rounded to 1024 belongs to the next unit, too.
            if value < 1023.5 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        match (unit, value) {
            ("", _) => write!(f, "{}", self.0),
            (_, small) if small < 9.95 => write!(f, "{value:.1}{unit}"),
            _ => write!(f, "{value:.0}{unit}"),
        }
    }
}

/// Bytes in a second, in decimal units: "3.12 GB/s".
#[derive(Clone, Copy)]
pub(crate) struct Rate(pub(crate) f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate(value) = *self;
        match value {
            v if v >= 1e9 => write!(f, "{:.2} GB/s", v / 1e9),
            v if v >= 1e6 => write!(f, "{:.1} MB/s", v / 1e6),
            v if v >= 1e3 => write!(f, "{:.1} kB/s", v / 1e3),
            v => write!(f, "{v:.0} B/s"),
        }
    }
}

/// A size as the command line takes it: 8, 4K, 1M.
#[derive(Clone, Copy)]
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
            n => format!("{n} B"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(Bytes(17).to_string(), "17 B");
        assert_eq!(Bytes(1_572_864).to_string(), "1.5 MiB, 1572864 B");
        let short = |n: u64| Short(n).to_string();
        assert_eq!([0, 17, 1023].map(short), ["0", "17", "1023"]);
        assert_eq!([1024, 1536, 10_239].map(short), ["1.0K", "1.5K", "10K"]);
        assert_eq!(
            [1 << 20, 1_048_570, 5 << 40].map(short),
            ["1.0M", "1.0M", "5.0T"]
        );
        assert_eq!(Rate(3.123e9).to_string(), "3.12 GB/s");
        assert_eq!(Rate(12.0).to_string(), "12 B/s");
        assert_eq!(format!("{:>8}", Size(65536)), "  64 KiB");
        assert_eq!(Size(1000).to_string(), "1000 B");
    }
}
