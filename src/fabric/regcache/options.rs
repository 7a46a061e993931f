//! What can be chosen about the cache, and how much it may hold.
//!
//! Owns the names of the variables and the default limits.

use std::fmt;

use super::sys;

/// How the cache learns that memory goes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Watching {
    /// From the kernel, if it can tell; otherwise nothing is kept.
    #[default]
    Kernel,
    /// From the caller, who promises to tell of all memory before it goes back to the system.
    Told,
}

/// `WSD_REG_CACHE` (bytes, or `off`) and `WSD_REG_WATCH` (`auto` or `told`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// 0 keeps nothing; none is the default of this host.
    pub(crate) bytes: Option<usize>,
    pub(crate) watching: Watching,
}

impl Options {
    pub(crate) fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// A value that cannot be read is reported and the default used.
    fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let bytes = value("WSD_REG_CACHE").and_then(|text| match text.trim() {
            off if off.eq_ignore_ascii_case("off") => Some(0),
            number => number
                .parse()
                .map_err(|_| not_known("WSD_REG_CACHE", number))
                .ok(),
        });
        let watching = value("WSD_REG_WATCH").and_then(|text| match text.trim() {
            auto if auto.eq_ignore_ascii_case("auto") => Some(Watching::Kernel),
            told if told.eq_ignore_ascii_case("told") => Some(Watching::Told),
            other => {
                not_known("WSD_REG_WATCH", other);
                None
            }
        });
        Self {
            bytes,
            watching: watching.unwrap_or_default(),
        }
    }

    pub(super) fn limits(self) -> Limits {
        Limits {
            bytes: self.bytes.unwrap_or_else(|| {
                default_bytes(sys::locked_memory_limit().filter(|_| !may_lock_all()))
            }),
            entries: ENTRIES,
        }
    }
}

fn not_known(name: &str, value: &str) {
    tracing::warn!(name, value, "not a known value; the default is used");
}

/// Whether the limit on locked memory does not apply to this process.
fn may_lock_all() -> bool {
    std::fs::read_to_string("/proc/thread-self/status").is_ok_and(|text| has_ipc_lock(&text))
}

/// Whether a text like `/proc/self/status` shows the capability to lock memory.
fn has_ipc_lock(status: &str) -> bool {
    const IPC_LOCK: u32 = 14;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .is_some_and(|set| set >> IPC_LOCK & 1 == 1)
}

const BYTES: usize = 1 << 30;
/// Each entry costs the device a key and may split a mapping of the process into three, of which
/// Linux permits 65530.
const ENTRIES: usize = 4096;

/// Half of what the process may lock is left for what is registered without the cache.
fn default_bytes(locked_memory_limit: Option<u64>) -> usize {
    let half = locked_memory_limit.and_then(|limit| usize::try_from(limit / 2).ok());
    half.map_or(BYTES, |half| half.min(BYTES))
}

/// How much is registered before released registrations are given up, the longest unused first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Whole pages, of used and unused registrations together.
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "up to {} bytes in {} registrations",
            self.bytes, self.entries
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cache: Option<&str>, watch: Option<&str>) -> Options {
        Options::read(|name| match name {
            "WSD_REG_CACHE" => cache.map(str::to_owned),
            "WSD_REG_WATCH" => watch.map(str::to_owned),
            other => panic!("{other} is not ours"),
        })
    }

    #[test]
    fn the_variables_are_read_and_mistakes_leave_the_defaults() {
        let default = Options::default();
        assert_eq!(with(None, None), default);
        assert_eq!(with(Some("OFF"), None).bytes, Some(0));
        assert_eq!(with(Some(" 65536 "), None).bytes, Some(65_536));
        assert_eq!(with(None, Some("Told")).watching, Watching::Told);
        assert_eq!(with(None, Some("auto")), default);
        assert_eq!(with(Some("-1"), Some("always")), default);
    }

    #[test]
    fn the_default_leaves_half_of_the_lockable_memory_to_others() {
        assert_eq!(default_bytes(None), BYTES);
        assert_eq!(default_bytes(Some(8 << 20)), 4 << 20);
        assert_eq!(default_bytes(Some(u64::MAX / 2)), BYTES);
        assert_eq!(default_bytes(Some(0)), 0);
    }

    #[test]
    fn who_may_lock_all_memory_has_no_limit() {
        assert!(has_ipc_lock("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(has_ipc_lock("CapEff:\t0000000000004000"));
        assert!(!has_ipc_lock(
            "CapPrm:\t0000000000004000\nCapEff:\t0000000000002000"
        ));
        assert!(!has_ipc_lock(""));
    }

    #[test]
    fn a_chosen_size_is_the_limit() {
        let chosen = with(Some("4096"), None).limits();
        assert_eq!((chosen.bytes, chosen.entries), (4096, ENTRIES));
        assert!(Options::default().limits().bytes <= BYTES);
        assert_eq!(Options::from_environment().limits().entries, ENTRIES);
        assert!(chosen.to_string().contains("4096 bytes"));
    }
}
