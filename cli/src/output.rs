//! Where text goes: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints a result. `elsewhere`: standard output carries data, so it goes to standard error.
pub(crate) fn report<R: Display + Serialize>(
    report: &R,
    json: bool,
    elsewhere: bool,
) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(report)
            .map_err(|error| Failure::caused("cannot print the report", error.into()))?
    } else {
        report.to_string()
    };
    let written = if elsewhere {
        writeln!(io::stderr().lock(), "{text}")
    } else {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush())
    };
    written.map_err(|error| {
        Failure::caused("the work is done, but its report cannot be printed", error)
    })
}

/// Says something in passing on standard error.
pub(crate) fn note(text: &str) {
    // If standard error is closed there is nobody to tell.
    writeln!(io::stderr().lock(), "wsdirect: {text}").ok();
}
