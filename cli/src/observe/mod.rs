//! Looking at other processes: `wsdirect ss` and `wsdirect trace`.
//!
//! Owns the choice of connections and what is shown of them. What there is to see comes from
//! `wsd_switch::observe`.

mod ss;
mod table;
mod trace;

use std::io::{self, Write};

pub(crate) use ss::ss;
pub(crate) use trace::trace;

use crate::failure::Failure;

/// Prints at once; `false` if nobody reads any more.
fn print(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::caused("cannot print", error)),
    }
}

/// Time of day in UTC with microseconds: "13:05:09.123456".
fn time_of_day(time: std::time::SystemTime) -> String {
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = since.as_secs() % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_time_of_day_has_microseconds() {
        let time = UNIX_EPOCH + Duration::from_micros(86_400_000_000 + 3_661_000_042);
        assert_eq!(time_of_day(time), "01:01:01.000042");
    }
}
