//! What a finished transfer tells: for people, or as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::frame::Sum;
use crate::args::Mode;
use crate::failure::Failure;
use crate::link::{self, Counters, Path};
use crate::output;
use crate::units::{Bytes, Rate};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    role: &'static str,
    name: String,
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    path: Path,
    /// What this end did; a read by the peer counts there.
    counters: Counters,
    checksum: Checksum,
}

#[derive(Debug, Serialize)]
struct Checksum {
    algorithm: &'static str,
    sender: String,
    receiver: String,
    equal: bool,
}

impl Report {
    pub(super) fn new(
        role: &'static str,
        name: String,
        elapsed: Duration,
        path: Path,
        counters: Counters,
        sender: Sum,
        receiver: Sum,
    ) -> Report {
        let seconds = elapsed.as_secs_f64();
        Report {
            role,
            name,
            bytes: receiver.total,
            seconds,
            bytes_per_second: if seconds > 0.0 {
                receiver.total as f64 / seconds
            } else {
                0.0
            },
            path,
            counters,
            checksum: Checksum {
                algorithm: "xxh3-128",
                sender: format!("{:032x}", sender.digest),
                receiver: format!("{:032x}", receiver.digest),
                equal: sender == receiver,
            },
        }
    }

    /// Prints it, and beside it, for people, what did not go as `--mode` wanted.
    pub(super) fn print(&self, mode: Mode, json: bool, elsewhere: bool) -> Result<(), Failure> {
        if let Some(why) = self.path.gave_way.filter(|_| !json) {
            link::note_gave_way(mode, why);
        }
        output::report(self, json, elsewhere)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.role == "send" {
            "sent"
        } else {
            "received"
        };
        writeln!(f, "{verb:<10}{} ({})", self.name, Bytes(self.bytes))?;
        writeln!(f, "path      {}", self.path)?;
        writeln!(
            f,
            "rate      {} in {:.3} s",
            Rate(self.bytes_per_second),
            self.seconds
        )?;
        writeln!(f, "this end  {}", self.counters)?;
        let Checksum {
            algorithm,
            sender,
            equal,
            ..
        } = &self.checksum;
        let verdict = if *equal {
            "same at both ends"
        } else {
            "DIFFERS"
        };
        write!(f, "checksum  {algorithm} {sender}, {verdict}")
    }
}
