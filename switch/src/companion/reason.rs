//! Why a connection of an unknowing program is carried by the kernel, as a code that scripts may
//! rely on and a sentence for people; and which path carries it.

use std::fmt;

/// What carries the two directions of a companion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Path {
    /// The kernel's TCP, both ways.
    Tcp,
    /// One way each, or on the way from one to the other.
    Mixed,
    /// The SAN, both ways.
    San,
}

impl Path {
    /// A short word that never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Path::Tcp => "tcp",
            Path::Mixed => "mixed",
            Path::San => "san",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a companion is not, or not any more, carried by the SAN.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// A short word that never changes.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Nothing is in the way: upgraded, or not worth it yet.
    None = "none", "nothing is in the way";
    /// `WSD_SWITCH=off`.
    SwitchOff = "switch-off", "the switch is off (WSD_SWITCH=off)";
    /// A rule says TCP.
    Rule = "rule", "a rule says TCP";
    /// No provider serves the address.
    NoProvider = "no-provider", "no SAN provider serves that address";
    /// The peer has put up no beacon: it does not know the switch.
    PeerSilent = "peer-silent", "the peer does not offer the SAN";
    /// An upgrade to that peer failed a short while ago.
    NegativeCache = "negative-cache", "that peer did not offer the SAN a short while ago";
    /// What answered at the peer's address does not hold this TCP connection.
    TupleMismatch = "tuple-mismatch", "the SAN peer does not hold this TCP connection";
    /// The peer's switch speaks another version.
    Version = "version", "the peer's switch is of another version";
    /// Memory was short.
    NoMemory = "no-memory", "there was no memory for the SAN";
    /// Descriptors were short.
    NoDescriptors = "no-descriptors", "there were no descriptors for the SAN";
    /// The process forked with this connection.
    Fork = "fork", "processes share the connection after a fork";
    /// The connection went to another program.
    Exec = "exec", "the connection was handed to another program";
    /// The descriptor was passed to another process.
    Passed = "passed", "the descriptor was passed to another process";
    /// Standard input and output routines use the descriptor.
    Stdio = "stdio", "standard I/O routines use the descriptor";
    /// A call came that only the kernel can serve.
    UnsupportedCall = "unsupported-call", "a call was made that only the kernel can serve";
    /// Urgent data went over the kernel, whose count of the stream the peer cannot know.
    Urgent = "urgent", "urgent data was sent over TCP";
    /// The SAN failed, TCP went on.
    SanError = "san-error", "the SAN failed";
    /// Went back to TCP too often.
    Sticky = "sticky", "the connection went back to TCP too often";
    /// Several threads received at once, so that no position in the stream is known.
    Concurrent = "concurrent", "several threads received at once";
    /// The peer wanted TCP.
    PeerAsked = "peer-asked", "the peer wanted to go on over TCP";
    /// The connection ended, or ends, before it was worth it.
    Closing = "closing", "the connection is being closed";
    /// The application, or its administrator, asked for TCP.
    Asked = "asked", "TCP was asked for";
}

impl Reason {
    pub(super) fn from_number(number: u8) -> Reason {
        Reason::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Reason::None)
    }

    pub(super) fn number(self) -> u8 {
        // The discriminant, which repr(u8) makes a u8.
        self as u8
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_code_and_number() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), *reason);
        }
    }
}
