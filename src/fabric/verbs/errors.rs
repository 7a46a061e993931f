//! What the failures of the two libraries mean for a connection.
//!
//! Owns the mapping by cause. The rule behind it: `NobodyListens`, `Refused` and `Unreachable` say
//! that TCP would fail too, so they are given only where that is known; whatever else goes wrong is
//! `NotServed` or `TimedOut`, after which TCP may be tried.

use std::io;

use super::hello::{Hello, Word};
use super::queue::Kind;
use super::sys::Status;
use crate::fabric::{ConnectError, Ending, ListenError, Outcome};

/// The reason of a rejection: no listener has the port.
const NO_SUCH_SERVICE: i32 = 8;

/// What a failed step of an attempt to connect means.
pub(super) fn of_attempt(error: &io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => ConnectError::AddressNotAvailable,
        // The routing table knows no way; it is the same one for TCP.
        Some(libc::ENETUNREACH) => ConnectError::Unreachable,
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::EHOSTDOWN) => ConnectError::TimedOut,
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOBUFS) => {
            ConnectError::NoResources
        }
        _ => ConnectError::NotServed,
    }
}

/// As `of_attempt`, for the status of an event: a negative errno.
pub(super) fn of_status(status: i32) -> ConnectError {
    of_attempt(&io::Error::from_raw_os_error(status.saturating_abs()))
}

/// What a rejection means. `tcp_refuses` says whether TCP is known to find no listener either.
// req: WSD-08
pub(super) fn of_rejection(
    reason: i32,
    data: &[u8],
    tcp_refuses: impl FnOnce() -> bool,
) -> ConnectError {
    match Hello::parse(data).map(|hello| hello.word) {
        Some(Word::Refused) => ConnectError::Refused,
        Some(_) => ConnectError::NotServed,
        None if reason == NO_SUCH_SERVICE && tcp_refuses() => ConnectError::NobodyListens,
        None => ConnectError::NotServed,
    }
}

pub(super) fn of_listen(error: &io::Error) -> ListenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::AddressInUse,
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => ListenError::AddressNotAvailable,
        _ => ListenError::NoResources,
    }
}

/// What a completion means: how the operation ended, and whether the connection does.
pub(super) fn of_completion(
    kind: Kind,
    status: Status,
    bytes: usize,
    ending: Option<Ending>,
) -> (Outcome, Option<Ending>) {
    let ended = |default| {
        let ending = ending.unwrap_or(default);
        (Outcome::Flushed(ending), Some(ending))
    };
    match (status, kind) {
        (Status::Done, _) => (Outcome::Done(bytes), None),
        // A device that flushes by itself does so after an access of the peer that was denied.
        (Status::Flushed, _) => ended(Ending::Broken),
        // Devices differ in the status of a receive that is too small: besides the one for it there
        // are the one that its sender gets, and (soft-RoCE) that of an operation which the queue
        // cannot carry out.
        (Status::TooLong | Status::RemoteRefused | Status::LocalQueue, Kind::Receive) => {
            (Outcome::Truncated, Some(Ending::Broken))
        }
        (Status::RemoteAccess | Status::RemoteRefused, Kind::Read | Kind::Write) => {
            (Outcome::RemoteAccess, Some(Ending::Broken))
        }
        // The message was longer than the receive: the peer has ended the connection.
        (Status::RemoteAccess | Status::RemoteRefused, Kind::Send) => ended(Ending::Peer),
        (
            Status::TooLong
            | Status::RemoteAccess
            | Status::NoAnswer
            | Status::Local
            | Status::LocalQueue,
            _,
        ) => ended(Ending::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(word: Word) -> [u8; 32] {
        Hello {
            word,
            port: 0,
            descriptor_len: 32,
            max_message: 1,
        }
        .to_bytes()
    }

    #[test]
    fn tcp_is_forbidden_only_when_it_would_fail_too() {
        // req: WSD-08
        let nobody = |tcp| of_rejection(8, &[], || tcp);
        assert_eq!(nobody(true), ConnectError::NobodyListens);
        assert_eq!(nobody(false), ConnectError::NotServed);
        assert_eq!(
            of_rejection(28, &answer(Word::Refused), || panic!("not asked")),
            ConnectError::Refused
        );
        assert_eq!(
            of_rejection(28, &answer(Word::Unable), || true),
            ConnectError::NotServed
        );
        // Somebody else's service, or one of another version.
        assert_eq!(of_rejection(28, b"hello", || true), ConnectError::NotServed);
        assert_eq!(
            of_rejection(28, &answer(Word::Foreign), || true),
            ConnectError::NotServed
        );
        assert_eq!(of_status(-libc::ENETUNREACH), ConnectError::Unreachable);
        assert_eq!(of_status(-libc::ENODEV), ConnectError::NotServed);
        assert_eq!(of_status(-libc::ETIMEDOUT), ConnectError::TimedOut);
        assert_eq!(of_status(0), ConnectError::NotServed);
    }

    #[test]
    fn completions_map_by_cause() {
        let of = |kind, status| of_completion(kind, status, 5, None);
        assert_eq!(of(Kind::Send, Status::Done), (Outcome::Done(5), None));
        assert_eq!(
            of(Kind::Read, Status::RemoteAccess),
            (Outcome::RemoteAccess, Some(Ending::Broken))
        );
        assert_eq!(
            of(Kind::Receive, Status::TooLong),
            (Outcome::Truncated, Some(Ending::Broken))
        );
        assert_eq!(
            of(Kind::Send, Status::NoAnswer),
            (Outcome::Flushed(Ending::Broken), Some(Ending::Broken))
        );
        assert_eq!(
            of_completion(Kind::Send, Status::Flushed, 5, Some(Ending::Local)),
            (Outcome::Flushed(Ending::Local), Some(Ending::Local))
        );
    }
}
