//! Why a command ended without having done its work: what happened, and what to do about it.

use std::fmt;
use std::io;

/// Shown to a person as one or two lines; the process then ends with its code.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Failure {
    what: String,
    advice: Option<String>,
    #[source]
    cause: Option<io::Error>,
    code: u8,
}

impl Failure {
    /// Every failure that is not a wrong command line (which is 2, by clap) and does not say
    /// otherwise.
    const EXIT_CODE: u8 = 1;

    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            advice: None,
            cause: None,
            code: Self::EXIT_CODE,
        }
    }

    /// `what` failed because of `cause`.
    pub(crate) fn caused(what: impl Into<String>, cause: io::Error) -> Failure {
        Failure {
            what: what.into(),
            advice: None,
            cause: Some(cause),
            code: Self::EXIT_CODE,
        }
    }

    /// Adds what the person can do.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Failure {
        self.advice = Some(advice.into());
        self
    }

    /// The command is to end with this code.
    pub(crate) fn exit_code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// What the command ends with.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The first line only, for telling it to the peer.
    pub(crate) fn headline(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {}", self.what, plain(cause)),
            None => self.what.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        match &self.advice {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

/// The system's words without the number that std appends to them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_why_and_what_to_do() {
        let failure = Failure::caused(
            "cannot open 'x'",
            io::Error::from_raw_os_error(libc::ENOENT),
        )
        .advise("check the name");
        assert_eq!(
            failure.to_string(),
            "cannot open 'x': No such file or directory\n  check the name"
        );
        assert_eq!(
            failure.headline(),
            "cannot open 'x': No such file or directory"
        );
    }
}
