//! The language of rules: one line each, words separated by blanks, `#` begins a comment.
//!
//! Owns: what a line may say, and what is wrong with one that is not understood.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::Role;
use super::{End, Matter, Name, Network, Permission, Ports, Rule, Rules, Verdict};
use crate::route::canonical;

/// What is wrong with rules, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    file: Option<PathBuf>,
    line: Option<usize>,
    kind: RuleErrorKind,
}

/// What is wrong with rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleErrorKind {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// A line begins with an unknown word.
    #[error("'{0}' is no rule; a rule begins with 'use san', 'use tcp', 'io_uring' or 'inherit'")]
    UnknownRule(String),
    /// `use` of something else than `san` or `tcp`.
    #[error("'use {0}' is not known; it is 'use san' or 'use tcp'")]
    UnknownPath(String),
    /// A word that is no condition.
    #[error("'{0}' is not known here; conditions are {1}")]
    UnknownWord(String, &'static str),
    /// A word after which something is missing.
    #[error("something is missing after '{0}'")]
    Incomplete(String),
    /// A condition that stands twice.
    #[error("'{0}' stands twice")]
    Twice(String),
    /// `eager` together with TCP.
    #[error("'eager' is about the SAN and means nothing with 'use tcp'")]
    EagerTcp,
    /// Neither `client` nor `server` nor `any`.
    #[error("'{0}' is no role; it is client, server or any")]
    BadRole(String),
    /// Neither `allow` nor `deny`.
    #[error("'{0}' is not known here; it is allow or deny")]
    BadPermission(String),
    /// Not an address.
    #[error("'{0}' is no address; give one as 10.0.0.1, 10.0.0.0/8 or fd00::/16 (no names)")]
    BadAddress(String),
    /// The number behind an address's slash is none of its family.
    #[error("'/{0}' does not fit the address; its prefix has 0 to {1} bits")]
    BadPrefix(String, u8),
    /// Not a port or a range of ports.
    #[error("'{0}' is no port; give one as 80 or a range as 6000-6999")]
    BadPorts(String),
}

impl RuleError {
    pub(super) fn new(line: Option<usize>, kind: RuleErrorKind) -> RuleError {
        RuleError {
            file: None,
            line,
            kind,
        }
    }

    /// The same, with where the rules came from.
    pub(super) fn of(mut self, file: &Path) -> RuleError {
        self.file = Some(file.to_owned());
        self
    }

    /// The number of the line, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &RuleErrorKind {
        &self.kind
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "rules {}", file.display())?,
            None => f.write_str("rules")?,
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl std::error::Error for RuleError {}

const CONDITIONS: &str = "eager, program NAME, role ROLE, to ADDRESS, at ADDRESS, port PORT";
const PROGRAM_ONLY: &str = "program NAME";

pub(super) fn rules(text: &str) -> Result<Rules, RuleError> {
    let mut rules = Rules::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(rule, _)| rule);
        one(line, &mut rules).map_err(|kind| RuleError::new(Some(index + 1), kind))?;
    }
    Ok(rules)
}

/// Adds what a line says.
fn one(line: &str, rules: &mut Rules) -> Result<(), RuleErrorKind> {
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else {
        return Ok(());
    };
    match first {
        "use" => rules.uses.push(rule(words)?),
        "io_uring" => rules
            .permissions
            .push(permission(Matter::IoUring, first, words)?),
        "inherit" => rules
            .permissions
            .push(permission(Matter::Inherit, first, words)?),
        other => return Err(RuleErrorKind::UnknownRule(other.to_owned())),
    }
    Ok(())
}

fn rule<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Rule, RuleErrorKind> {
    let verdict = match after("use", words.next())? {
        "san" => Verdict::San,
        "tcp" => Verdict::Tcp,
        other => return Err(RuleErrorKind::UnknownPath(other.to_owned())),
    };
    let mut rule = Rule {
        verdict,
        program: None,
        role: None,
        address: None,
        ports: None,
    };
    let mut role_given = false;
    while let Some(word) = words.next() {
        let twice = || RuleErrorKind::Twice(word.to_owned());
        match word {
            "eager" => match rule.verdict {
                Verdict::San => rule.verdict = Verdict::Eager,
                Verdict::Eager => return Err(twice()),
                Verdict::Tcp => return Err(RuleErrorKind::EagerTcp),
            },
            "program" => set(
                &mut rule.program,
                Name(after(word, words.next())?.to_owned()),
                word,
            )?,
            "role" => {
                if std::mem::replace(&mut role_given, true) {
                    return Err(twice());
                }
                rule.role = role(after(word, words.next())?)?;
            }
            "to" | "at" => {
                let end = if word == "to" { End::Peer } else { End::Own };
                set(
                    &mut rule.address,
                    (end, network(after(word, words.next())?)?),
                    word,
                )?;
            }
            "port" => set(&mut rule.ports, ports(after(word, words.next())?)?, word)?,
            other => return Err(RuleErrorKind::UnknownWord(other.to_owned(), CONDITIONS)),
        }
    }
    Ok(rule)
}

fn permission<'a>(
    matter: Matter,
    name: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Permission, RuleErrorKind> {
    let granted = match after(name, words.next())? {
        "allow" => true,
        "deny" => false,
        other => return Err(RuleErrorKind::BadPermission(other.to_owned())),
    };
    let mut program = None;
    while let Some(word) = words.next() {
        match word {
            "program" => set(
                &mut program,
                Name(after(word, words.next())?.to_owned()),
                word,
            )?,
            other => return Err(RuleErrorKind::UnknownWord(other.to_owned(), PROGRAM_ONLY)),
        }
    }
    Ok(Permission {
        matter,
        granted,
        program,
    })
}

fn after<'a>(word: &str, next: Option<&'a str>) -> Result<&'a str, RuleErrorKind> {
    next.ok_or_else(|| RuleErrorKind::Incomplete(word.to_owned()))
}

fn set<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), RuleErrorKind> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(RuleErrorKind::Twice(word.to_owned())),
    }
}

fn role(text: &str) -> Result<Option<Role>, RuleErrorKind> {
    match text {
        "client" => Ok(Some(Role::Connected)),
        "server" => Ok(Some(Role::Accepted)),
        "any" => Ok(None),
        other => Err(RuleErrorKind::BadRole(other.to_owned())),
    }
}

fn network(text: &str) -> Result<Network, RuleErrorKind> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let bad = |_| RuleErrorKind::BadAddress(text.to_owned());
    let address: IpAddr = address.parse().map_err(bad)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(digits) => number::<u8>(digits)
            .filter(|bits| *bits <= width)
            .ok_or_else(|| RuleErrorKind::BadPrefix(digits.to_owned(), width))?,
    };
    // ::ffff:10.0.0.0/104 is 10.0.0.0/8; a shorter prefix also holds what is no IPv4 address.
    let plain = canonical(&address);
    match bits.checked_sub(96) {
        Some(bits) if address.is_ipv6() && plain.is_ipv4() => Ok(Network {
            address: plain,
            bits,
        }),
        _ => Ok(Network { address, bits }),
    }
}

fn ports(text: &str) -> Result<Ports, RuleErrorKind> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Ports { first, last }),
        _ => Err(RuleErrorKind::BadPorts(text.to_owned())),
    }
}

/// Digits only: no sign, no blanks.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> RuleErrorKind {
        let error = rules(text).unwrap_err();
        assert_eq!(error.line(), Some(text.lines().count()), "{error}");
        error.kind().clone()
    }

    #[test]
    fn every_mistake_has_its_own_words() {
        use RuleErrorKind as K;
        let text = str::to_owned;
        for (line, wanted) in [
            ("san", K::UnknownRule(text("san"))),
            ("Use san", K::UnknownRule(text("Use"))),
            ("use", K::Incomplete(text("use"))),
            ("use sam", K::UnknownPath(text("sam"))),
            ("use san prot 1", K::UnknownWord(text("prot"), CONDITIONS)),
            ("use san port", K::Incomplete(text("port"))),
            ("use san port 1 port 2", K::Twice(text("port"))),
            ("use san to ::1 at ::1", K::Twice(text("at"))),
            ("use san role any role any", K::Twice(text("role"))),
            ("use san eager eager", K::Twice(text("eager"))),
            ("use tcp eager", K::EagerTcp),
            ("use san role peer", K::BadRole(text("peer"))),
            (
                "use san to host.example",
                K::BadAddress(text("host.example")),
            ),
            ("use san to 10.0.0.0/33", K::BadPrefix(text("33"), 32)),
            ("use san to ::/129", K::BadPrefix(text("129"), 128)),
            ("use san to 10.0.0.0/+8", K::BadPrefix(text("+8"), 32)),
            ("use san to 10.0.0.0/", K::BadPrefix(String::new(), 32)),
            ("use san port 65536", K::BadPorts(text("65536"))),
            ("use san port 9-8", K::BadPorts(text("9-8"))),
            ("use san port -8", K::BadPorts(text("-8"))),
            ("io_uring", K::Incomplete(text("io_uring"))),
            ("io_uring yes", K::BadPermission(text("yes"))),
            (
                "inherit allow port 1",
                K::UnknownWord(text("port"), PROGRAM_ONLY),
            ),
        ] {
            assert_eq!(kind(&format!("use san\n# x\n{line}")), wanted, "{line}");
        }
    }

    #[test]
    fn words_may_stand_in_any_order_with_any_blanks_and_a_comment() {
        let one = rules("use san eager program x role server to 10.0.0.0/8 port 1-2").unwrap();
        let other =
            rules("\t use  san\tport 1-2 to 10.0.0.0/8 role server program x eager# all").unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn what_is_written_is_what_is_kept() {
        let read = rules("use tcp at fd00::/16 port 80").unwrap();
        let [rule] = read.uses.as_slice() else {
            panic!("one rule")
        };
        assert_eq!(rule.verdict, Verdict::Tcp);
        assert_eq!(
            rule.ports,
            Some(Ports {
                first: 80,
                last: 80
            })
        );
        let address = "fd00::".parse().unwrap();
        assert_eq!(
            rule.address,
            Some((End::Own, Network { address, bits: 16 }))
        );
        assert_eq!((rule.role, &rule.program), (None, &None));
    }

    #[test]
    fn an_error_names_the_line_and_the_word() {
        let error = rules("use san\nuse tcp prt 22").unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("'prt'"),
            "{error}"
        );
    }
}
