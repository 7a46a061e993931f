//! Which path carries a connection, and why not the SAN: every cause of a fallback to TCP, with a
//! code that scripts may rely on and a sentence for people.

use std::fmt;

use crate::error::WsaError;

/// What carries a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// A SAN, through this provider.
    San {
        /// The provider's name.
        provider: String,
    },
    /// The kernel's TCP.
    Tcp {
        /// Why not the SAN.
        reason: Reason,
    },
}

impl Transport {
    /// Whether the SAN carries the connection.
    #[must_use]
    pub fn is_san(&self) -> bool {
        matches!(self, Transport::San { .. })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::San { provider } => write!(f, "SAN ({provider})"),
            Transport::Tcp { reason } => write!(f, "TCP ({reason})"),
        }
    }
}

/// Why a connection, or a listener, uses TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// `WSD_SWITCH=off`.
    SwitchOff,
    /// The caller asked for TCP.
    Asked,
    /// No provider could be started.
    NoProvider,
    /// No provider serves the network of the destination, or of the local address.
    NoRoute,
    /// The kernel named no local address towards the destination.
    NoSource,
    /// The companion's address could not be reserved.
    NoCompanion,
    /// WSPSocket failed.
    SocketFailed(WsaError),
    /// WSPBind failed.
    BindFailed(WsaError),
    /// WSPSetSockOpt failed.
    OptionFailed(WsaError),
    /// WSPEventSelect failed, or there was no event to select.
    EventFailed(WsaError),
    /// WSPConnect failed at once, or FD_CONNECT told of a failure, with a code that lets TCP try.
    ConnectFailed(WsaError),
    /// The SAN did not answer in time.
    ConnectTimedOut,
    /// WSPListen failed.
    ListenFailed(WsaError),
    /// The peer connected over TCP.
    PeerChoseTcp,
}

impl Reason {
    /// A short word that never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Reason::SwitchOff => "switch-off",
            Reason::Asked => "asked",
            Reason::NoProvider => "no-provider",
            Reason::NoRoute => "no-route",
            Reason::NoSource => "no-source",
            Reason::NoCompanion => "no-companion",
            Reason::SocketFailed(_) => "socket-failed",
            Reason::BindFailed(_) => "bind-failed",
            Reason::OptionFailed(_) => "option-failed",
            Reason::EventFailed(_) => "event-failed",
            Reason::ConnectFailed(_) => "connect-failed",
            Reason::ConnectTimedOut => "connect-timed-out",
            Reason::ListenFailed(_) => "listen-failed",
            Reason::PeerChoseTcp => "peer-chose-tcp",
        }
    }

    /// The provider's code, where one led to the fallback.
    #[must_use]
    pub fn provider_error(&self) -> Option<WsaError> {
        match self {
            Reason::SocketFailed(code)
            | Reason::BindFailed(code)
            | Reason::OptionFailed(code)
            | Reason::EventFailed(code)
            | Reason::ConnectFailed(code)
            | Reason::ListenFailed(code) => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::SwitchOff => f.write_str("the switch is off (WSD_SWITCH=off)"),
            Reason::Asked => f.write_str("TCP was asked for"),
            Reason::NoProvider => f.write_str("no SAN provider is usable (see `wsdirect info`)"),
            Reason::NoRoute => f.write_str("no SAN provider serves that address"),
            Reason::NoSource => f.write_str("there is no local address towards the destination"),
            Reason::NoCompanion => f.write_str("no local port could be reserved for the SAN"),
            Reason::SocketFailed(code) => write!(f, "the provider gave no socket: {code}"),
            Reason::BindFailed(code) => write!(f, "the provider did not bind: {code}"),
            Reason::OptionFailed(code) => write!(f, "the provider refused an option: {code}"),
            Reason::EventFailed(code) => write!(f, "the provider takes no event: {code}"),
            Reason::ConnectFailed(code) => write!(f, "the SAN connect failed: {code}"),
            Reason::ConnectTimedOut => f.write_str("the SAN connect was not answered in time"),
            Reason::ListenFailed(code) => write!(f, "the provider does not listen: {code}"),
            Reason::PeerChoseTcp => f.write_str("the peer connected over TCP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_code_and_says_the_providers() {
        let code = WsaError(10_049);
        let all = [
            Reason::SwitchOff,
            Reason::Asked,
            Reason::NoProvider,
            Reason::NoRoute,
            Reason::NoSource,
            Reason::NoCompanion,
            Reason::SocketFailed(code),
            Reason::BindFailed(code),
            Reason::OptionFailed(code),
            Reason::EventFailed(code),
            Reason::ConnectFailed(code),
            Reason::ConnectTimedOut,
            Reason::ListenFailed(code),
            Reason::PeerChoseTcp,
        ];
        let mut codes: Vec<&str> = all.iter().map(Reason::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
        for reason in all {
            let told = reason.provider_error().is_some();
            assert_eq!(reason.to_string().contains("WSAEADDRNOTAVAIL"), told);
        }
    }
}
