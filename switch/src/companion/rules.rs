//! Which connections may leave TCP: the rules of the user, and what they say of one connection.
//!
//! Owns: the language of rules, reading them from the environment once, and the decision. Does not
//! own: connections, or what is done with a decision. Invariant: the first rule that matches
//! decides; where no rule matches the SAN may be used; rules that cannot be read forbid the SAN
//! for the whole process, so that a mistyped exception never takes effect as its opposite.

mod parse;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Role;
use crate::route::canonical;

pub use parse::{RuleError, RuleErrorKind};

/// What the rules say of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It stays on TCP.
    Tcp,
    /// It may go over the SAN, once it has shown to be worth it.
    San,
    /// It may go over the SAN, at once.
    Eager,
}

impl Verdict {
    /// Whether the SAN may be used.
    #[must_use]
    pub fn wants_san(self) -> bool {
        self != Verdict::Tcp
    }
}

/// What the rules may say of a connection whose addresses are not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prospect {
    /// No address can change it.
    Certain(Verdict),
    /// The addresses decide.
    Open,
}

/// The program a rule is about: the running process's file and the name it was called by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    file: Option<PathBuf>,
    called: Option<PathBuf>,
}

impl Program {
    /// A program by its file and by the name it was called by.
    #[must_use]
    pub fn new(file: Option<PathBuf>, called: Option<PathBuf>) -> Program {
        Program { file, called }
    }

    /// This process.
    #[must_use]
    pub fn current() -> Program {
        Program {
            file: std::env::current_exe().ok(),
            called: std::env::args_os().next().map(PathBuf::from),
        }
    }

    fn names(&self) -> impl Iterator<Item = &Path> {
        [&self.file, &self.called]
            .into_iter()
            .filter_map(Option::as_deref)
    }
}

/// Which programs a rule is about. Without a slash it is compared with the last part of the
/// program's file and of the name it was called by; with one, with the whole of them. `*` stands
/// for any characters.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Name(String);

impl Name {
    fn matches(&self, program: &Program) -> bool {
        program.names().any(|path| {
            if self.0.contains('/') {
                like(self.0.as_bytes(), path.as_os_str().as_encoded_bytes())
            } else {
                path.file_name()
                    .is_some_and(|name| like(self.0.as_bytes(), name.as_encoded_bytes()))
            }
        })
    }
}

/// Whether `text` is as `pattern` says, in which `*` stands for any characters. Takes time in
/// proportion to the product of the lengths, whatever the pattern.
fn like(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to go on if what follows the last star does not fit: one character further.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            (Some((want, more)), Some((have, left))) if want == have => {
                (pattern, text) = (more, left);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after_star, [_, further @ ..])) = retry else {
            return false;
        };
        retry = Some((after_star, further));
        (pattern, text) = (after_star, further);
    }
}

/// Which end of the connection the rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Peer,
    Own,
}

/// The first `bits` of an address; an address in IPv6 clothing counts as the IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        match (self.address, canonical(&address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let kept = u32::MAX
                    .checked_shl(32_u32.saturating_sub(self.bits.into()))
                    .unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & kept == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let kept = u128::MAX
                    .checked_shl(128_u32.saturating_sub(self.bits.into()))
                    .unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & kept == 0
            }
            _ => false,
        }
    }
}

/// Server ports, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ports {
    first: u16,
    last: u16,
}

/// One `use` line.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    verdict: Verdict,
    program: Option<Name>,
    role: Option<Role>,
    address: Option<(End, Network)>,
    ports: Option<Ports>,
}

impl Rule {
    /// Whether it is about connections of this kind, whatever their addresses.
    fn concerns(&self, program: &Program, role: Role) -> bool {
        self.role.is_none_or(|wanted| wanted == role)
            && self.program.as_ref().is_none_or(|n| n.matches(program))
    }

    fn is_about_addresses(&self) -> bool {
        self.address.is_some() || self.ports.is_some()
    }

    fn matches_addresses(&self, role: Role, own: SocketAddr, peer: SocketAddr) -> bool {
        let server = match role {
            Role::Connected => peer,
            Role::Accepted => own,
        };
        self.address.is_none_or(|(end, network)| match end {
            End::Peer => network.holds(peer.ip()),
            End::Own => network.holds(own.ip()),
        }) && self
            .ports
            .is_none_or(|ports| (ports.first..=ports.last).contains(&server.port()))
    }
}

/// A permission that is about a program as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Matter {
    /// The program may make io_uring rings; its connections are only seen by what goes through
    /// calls.
    IoUring,
    /// A program it starts goes on with connections whose descriptors stay open over exec.
    Inherit,
}

/// One `io_uring` or `inherit` line.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Permission {
    matter: Matter,
    granted: bool,
    program: Option<Name>,
}

/// The rules of a process, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    uses: Vec<Rule>,
    permissions: Vec<Permission>,
    /// Every use of the SAN is at once.
    eager: bool,
}

impl Rules {
    /// Reads rules, one a line. `#` begins a comment.
    ///
    /// # Errors
    ///
    /// The first line that is not understood, with its number.
    pub fn parse(text: &str) -> Result<Rules, RuleError> {
        parse::rules(text)
    }

    /// Reads a file of rules.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line in it is not understood.
    pub fn read(file: &Path) -> Result<Rules, RuleError> {
        let text = std::fs::read_to_string(file).map_err(|cause| {
            RuleError::new(None, RuleErrorKind::Unreadable(cause.kind())).of(file)
        });
        Rules::parse(&text?).map_err(|error| error.of(file))
    }

    /// What the environment says: the rules of `WSD_RULE` (separated by semicolons), then those
    /// of the file that `WSD_RULES` names; `WSD_EAGER=1` makes every use of the SAN one at once.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a rule is not understood.
    pub fn from_environment() -> Result<Rules, RuleError> {
        let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut rules = match said("WSD_RULE") {
            Some(text) => Rules::parse(&text.to_string_lossy().replace(';', "\n"))
                .map_err(|error| error.of(Path::new("WSD_RULE")))?,
            None => Rules::default(),
        };
        if let Some(file) = said("WSD_RULES") {
            rules.append(Rules::read(Path::new(&file))?);
        }
        rules.eager = said("WSD_EAGER").is_some_and(|value| value != "0");
        Ok(rules)
    }

    /// The one rule that everything stays on TCP.
    fn forbidding() -> Rules {
        let tcp = Rule {
            verdict: Verdict::Tcp,
            program: None,
            role: None,
            address: None,
            ports: None,
        };
        Rules {
            uses: vec![tcp],
            ..Rules::default()
        }
    }

    fn append(&mut self, more: Rules) {
        self.uses.extend(more.uses);
        self.permissions.extend(more.permissions);
    }

    /// What is known of a connection before its addresses are.
    #[must_use]
    pub fn prospect(&self, program: &Program, role: Role) -> Prospect {
        for rule in &self.uses {
            if !rule.concerns(program, role) {
                continue;
            }
            // Address rules that forbid what is forbidden anyway decide nothing.
            if rule.is_about_addresses() {
                let rest = self.uses.iter().filter(|rule| rule.concerns(program, role));
                return if rest.clone().all(|rule| rule.verdict == Verdict::Tcp)
                    && rest.clone().any(|rule| !rule.is_about_addresses())
                {
                    Prospect::Certain(Verdict::Tcp)
                } else {
                    Prospect::Open
                };
            }
            return Prospect::Certain(self.told(rule.verdict));
        }
        Prospect::Certain(self.told(Verdict::San))
    }

    /// What the rules say of a connection.
    #[must_use]
    pub fn decide(
        &self,
        program: &Program,
        role: Role,
        own: SocketAddr,
        peer: SocketAddr,
    ) -> Verdict {
        let rule = self
            .uses
            .iter()
            .find(|rule| rule.concerns(program, role) && rule.matches_addresses(role, own, peer));
        self.told(rule.map_or(Verdict::San, |rule| rule.verdict))
    }

    fn told(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::San if self.eager => Verdict::Eager,
            other => other,
        }
    }

    fn grants(&self, matter: Matter, program: &Program) -> bool {
        let about = |permission: &&Permission| {
            permission.matter == matter
                && permission
                    .program
                    .as_ref()
                    .is_none_or(|name| name.matches(program))
        };
        self.permissions
            .iter()
            .find(about)
            .is_some_and(|permission| permission.granted)
    }

    /// Whether the program may make io_uring rings.
    #[must_use]
    pub fn grants_io_uring(&self, program: &Program) -> bool {
        self.grants(Matter::IoUring, program)
    }

    /// Whether programs that it starts go on with the connections they inherit, whatever their
    /// numbers.
    #[must_use]
    pub fn hands_on(&self, program: &Program) -> bool {
        self.grants(Matter::Inherit, program)
    }
}

/// The rules of this process and the program they are about.
#[derive(Debug)]
pub struct Active {
    rules: Rules,
    program: Program,
    error: Option<RuleError>,
    by_role: [Prospect; 2],
}

impl Active {
    fn new(rules: Result<Rules, RuleError>, program: Program) -> Active {
        let (rules, error) = match rules {
            Ok(rules) => (rules, None),
            Err(error) => (Rules::forbidding(), Some(error)),
        };
        let by_role = [Role::Connected, Role::Accepted].map(|role| rules.prospect(&program, role));
        Active {
            rules,
            program,
            error,
            by_role,
        }
    }

    /// What is known of a connection before its addresses are; costs nothing.
    #[must_use]
    pub fn prospect(&self, role: Role) -> Prospect {
        let [connected, accepted] = self.by_role;
        match role {
            Role::Connected => connected,
            Role::Accepted => accepted,
        }
    }

    /// What the rules say of a connection.
    #[must_use]
    pub fn decide(&self, role: Role, own: SocketAddr, peer: SocketAddr) -> Verdict {
        match self.prospect(role) {
            Prospect::Certain(verdict) => verdict,
            Prospect::Open => self.rules.decide(&self.program, role, own, peer),
        }
    }

    /// Whether this process may make io_uring rings.
    #[must_use]
    pub fn grants_io_uring(&self) -> bool {
        self.rules.grants_io_uring(&self.program)
    }

    /// Whether programs started by this one go on with the connections they inherit.
    #[must_use]
    pub fn hands_on(&self) -> bool {
        self.rules.hands_on(&self.program)
    }

    /// Why no rule of the environment applies: everything stays on TCP then.
    #[must_use]
    pub fn error(&self) -> Option<&RuleError> {
        self.error.as_ref()
    }
}

/// The rules of this process, read from the environment at the first call.
pub fn active() -> &'static Active {
    static ACTIVE: OnceLock<Active> = OnceLock::new();
    ACTIVE.get_or_init(|| Active::new(Rules::from_environment(), Program::current()))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Tcp => "tcp",
            Verdict::San => "san",
            Verdict::Eager => "san eager",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(file: &str, called: &str) -> Program {
        Program::new(Some(file.into()), Some(called.into()))
    }

    fn redis() -> Program {
        program("/usr/bin/redis-check-rdb", "/usr/bin/redis-server")
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn rules(text: &str) -> Rules {
        Rules::parse(text).unwrap()
    }

    /// A client's connection from 10.0.0.9:40000.
    fn client(rules: &Rules, to: &str) -> Verdict {
        rules.decide(&redis(), Role::Connected, at("10.0.0.9:40000"), at(to))
    }

    /// A server's connection to a client at 10.0.0.9:40000.
    fn server(rules: &Rules, own: &str) -> Verdict {
        rules.decide(&redis(), Role::Accepted, at(own), at("10.0.0.9:40000"))
    }

    #[test]
    fn without_rules_the_san_is_used() {
        assert_eq!(client(&rules(""), "10.0.0.1:80"), Verdict::San);
        assert_eq!(
            client(&rules("# none\n\n  \n"), "10.0.0.1:80"),
            Verdict::San
        );
        let prospect = Rules::default().prospect(&redis(), Role::Accepted);
        assert_eq!(prospect, Prospect::Certain(Verdict::San));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(
            "use tcp port 22\nuse san eager port 20-30\nuse tcp to 10.0.0.0/24\nuse san to 10.0.0.1",
        );
        assert_eq!(client(&rules, "10.0.0.1:22"), Verdict::Tcp);
        assert_eq!(client(&rules, "10.0.0.1:23"), Verdict::Eager);
        assert_eq!(client(&rules, "10.0.0.1:31"), Verdict::Tcp);
        assert_eq!(client(&rules, "10.0.1.1:31"), Verdict::San);
    }

    #[test]
    fn a_port_is_the_servers() {
        let rules = rules("use tcp port 6379");
        assert_eq!(client(&rules, "10.0.0.1:6379"), Verdict::Tcp);
        assert_eq!(client(&rules, "10.0.0.1:6380"), Verdict::San);
        assert_eq!(server(&rules, "10.0.0.1:6379"), Verdict::Tcp);
        let rules = self::rules("use tcp port 40000");
        assert_eq!(client(&rules, "10.0.0.1:80"), Verdict::San);
        assert_eq!(server(&rules, "10.0.0.1:80"), Verdict::San);
    }

    #[test]
    fn to_is_the_peer_and_at_the_own_address() {
        let to = rules("use tcp to 10.0.0.9/32");
        assert_eq!(client(&to, "10.0.0.1:80"), Verdict::San);
        assert_eq!(server(&to, "10.0.0.1:80"), Verdict::Tcp);
        let at = rules("use tcp at 10.0.0.9/32");
        assert_eq!(client(&at, "10.0.0.1:80"), Verdict::Tcp);
        assert_eq!(server(&at, "10.0.0.1:80"), Verdict::San);
    }

    #[test]
    fn a_role_is_the_clients_or_the_servers() {
        let rules = rules("use tcp role server\nuse san eager role client");
        assert_eq!(client(&rules, "10.0.0.1:80"), Verdict::Eager);
        assert_eq!(server(&rules, "10.0.0.1:80"), Verdict::Tcp);
        let any = self::rules("use tcp role any");
        assert_eq!(client(&any, "10.0.0.1:80"), Verdict::Tcp);
        assert_eq!(server(&any, "10.0.0.1:80"), Verdict::Tcp);
    }

    #[test]
    fn prefixes_of_both_families_hold_what_they_say() {
        let holds = |network: &str, address: &str| {
            let rules = rules(&format!("use tcp to {network}"));
            let peer = SocketAddr::new(address.parse().unwrap(), 80);
            rules.decide(&redis(), Role::Connected, at("[::]:1"), peer) == Verdict::Tcp
        };
        for (network, inside, outside) in [
            ("192.168.0.0/16", "192.168.255.255", "192.169.0.0"),
            ("192.168.1.77/24", "192.168.1.1", "192.168.2.77"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0/0", "8.8.8.8", "fd00::1"),
            ("::/0", "fd00::1", "8.8.8.8"),
            ("fd00:1::/32", "fd00:1:ffff::", "fd00:2::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.9.9.9", "::ffff:11.0.0.0"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
        ] {
            assert!(holds(network, inside), "{network} {inside}");
            assert!(!holds(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn a_program_is_known_by_its_file_and_by_what_it_was_called() {
        let matches = |pattern: &str| {
            let rules = rules(&format!("use tcp program {pattern}"));
            client(&rules, "10.0.0.1:80") == Verdict::Tcp
        };
        for good in [
            "redis-server",
            "redis-check-rdb",
            "redis-*",
            "*server",
            "r*s*-*r",
            "*",
            "/usr/bin/redis-server",
            "/usr/*/redis*",
        ] {
            assert!(matches(good), "{good}");
        }
        for bad in [
            "redis",
            "server",
            "redis-server2",
            "bin/redis-server",
            "*x*",
            "/redis*",
        ] {
            assert!(!matches(bad), "{bad}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_take_for_ever() {
        let name = "a".repeat(4000);
        assert!(!like(
            format!("{}b", "a*".repeat(1000)).as_bytes(),
            name.as_bytes()
        ));
        assert!(like("*".repeat(4000).as_bytes(), name.as_bytes()));
    }

    #[test]
    fn eager_turns_every_use_of_the_san_into_one_at_once() {
        let mut rules = rules("use tcp port 22\nuse san");
        rules.eager = true;
        assert_eq!(client(&rules, "10.0.0.1:22"), Verdict::Tcp);
        assert_eq!(client(&rules, "10.0.0.1:23"), Verdict::Eager);
        let none = Rules {
            eager: true,
            ..Rules::default()
        };
        let prospect = none.prospect(&redis(), Role::Connected);
        assert_eq!(prospect, Prospect::Certain(Verdict::Eager));
    }

    #[test]
    fn what_addresses_cannot_change_is_certain() {
        let prospect = |text: &str| rules(text).prospect(&redis(), Role::Connected);
        let never = Prospect::Certain(Verdict::Tcp);
        assert_eq!(prospect("use tcp"), never);
        assert_eq!(prospect("use tcp\nuse san port 80"), never);
        assert_eq!(prospect("use tcp port 80\nuse tcp"), never);
        assert_eq!(prospect("use tcp port 80"), Prospect::Open);
        assert_eq!(prospect("use san port 80\nuse tcp"), Prospect::Open);
        assert_eq!(
            prospect("use tcp role server\nuse tcp program nginx port 80"),
            Prospect::Certain(Verdict::San)
        );
        // Whatever is certain is what the whole rules say.
        for text in ["use tcp port 80\nuse tcp", "use tcp", "use tcp role server"] {
            let Prospect::Certain(verdict) = prospect(text) else {
                panic!("{text}");
            };
            assert_eq!(client(&rules(text), "10.0.0.1:80"), verdict, "{text}");
        }
    }

    #[test]
    fn permissions_are_off_until_granted_and_the_first_decides() {
        let none = Rules::default();
        assert!(!none.grants_io_uring(&redis()) && !none.hands_on(&redis()));
        let some = rules("io_uring deny program nginx\nio_uring allow\ninherit allow program x");
        assert!(some.grants_io_uring(&redis()));
        assert!(!some.grants_io_uring(&program("/usr/sbin/nginx", "nginx")));
        assert!(!some.hands_on(&redis()));
        assert!(some.hands_on(&program("/bin/x", "x")));
    }

    #[test]
    fn rules_that_cannot_be_read_forbid_the_san_and_are_told() {
        let active = Active::new(Rules::parse("use sam"), redis());
        assert_eq!(
            active.prospect(Role::Connected),
            Prospect::Certain(Verdict::Tcp)
        );
        let verdict = active.decide(Role::Accepted, at("10.0.0.1:80"), at("10.0.0.9:1"));
        assert_eq!(verdict, Verdict::Tcp);
        assert!(active.error().is_some_and(|error| error.line() == Some(1)));
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_named_in_the_error() {
        let missing = Rules::read(Path::new("/nonexistent/rules")).unwrap_err();
        assert!(
            missing.to_string().contains("/nonexistent/rules"),
            "{missing}"
        );
        let file = std::env::temp_dir().join(format!("wsd-rules-{}", std::process::id()));
        std::fs::write(&file, "use san\n\nuse tcp prot 22\n").unwrap();
        let wrong = Rules::read(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(wrong.line(), Some(3));
        let text = wrong.to_string();
        assert!(text.contains("line 3") && text.contains("prot"), "{text}");
        assert!(text.contains(&file.display().to_string()), "{text}");
    }
}
