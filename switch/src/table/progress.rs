//! A provider's progress, made by us: WSPTakeProgress and WSPMakeProgress.
//!
//! Owns the descriptor. What was taken over is ours until the provider says that it is over, also
//! after our own WSPCleanup if others have started the provider, too; so nothing here holds the
//! table. Providers are never unloaded, so the function can be called for as long.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use wsdirect::abi;

use super::{Table, status};
use crate::error::WsaError;

/// The progress of one provider.
pub(crate) struct Rounds {
    descriptor: OwnedFd,
    make: unsafe extern "C" fn(c_int, abi::LPDWORD, abi::LPINT) -> c_int,
    due: Option<Instant>,
    /// The last round was not made: the descriptor says nothing until the next one is.
    failed: bool,
}

impl Table {
    /// Whether the provider lets others make its progress.
    pub(crate) fn offers_progress(&self) -> bool {
        self.extensions.take_progress.is_some() && self.extensions.make_progress.is_some()
    }

    /// Takes the provider's progress over; the first round is due at once.
    pub(crate) fn take_progress(&self) -> Result<Rounds, WsaError> {
        let unsupported = WsaError(abi::WSAEOPNOTSUPP);
        let make = self.extensions.make_progress.ok_or(unsupported)?;
        let take = self.extensions.take_progress.ok_or(unsupported)?;
        let mut descriptor = -1;
        let place = &raw mut descriptor;
        // SAFETY: the extension's function; the result lives during the call.
        status(|errno| unsafe { take(place, errno) })?;
        if descriptor < 0 {
            return Err(WsaError(abi::WSAEINVALIDPROVIDER));
        }
        Ok(Rounds {
            // SAFETY: the provider has just made it and says that it is the caller's.
            descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
            make,
            due: Some(Instant::now()),
            failed: false,
        })
    }
}

impl Rounds {
    /// Readable while there is something to do; `None` if only time is to be waited for.
    pub(crate) fn sleeps_on(&self) -> Option<BorrowedFd<'_>> {
        (!self.failed).then(|| self.descriptor.as_fd())
    }

    /// Whether to make a round now, if the descriptor is readable or not.
    pub(crate) fn is_due(&self, readable: bool, now: Instant) -> bool {
        readable && !self.failed || self.due.is_some_and(|due| due <= now)
    }

    /// When the next round is to be made, whatever the descriptor says.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does what there is to do, without waiting; `false` if it is over.
    pub(crate) fn make(&mut self) -> bool {
        let mut next = 0;
        let place = &raw mut next;
        // SAFETY: the extension's function; the result lives during the call.
        let made =
            status(|errno| unsafe { (self.make)(self.descriptor.as_raw_fd(), place, errno) });
        let failed_before = std::mem::replace(&mut self.failed, made.is_err());
        let pause = match made {
            Ok(()) if next == abi::WSA_INFINITE => None,
            Ok(()) => Some(Duration::from_millis(next.into())),
            Err(WsaError(abi::WSANOTINITIALISED | abi::WSAEINVAL)) => return false,
            Err(error) => {
                if !failed_before {
                    tracing::warn!(%error, "a provider's progress could not be made");
                }
                Some(RETRY)
            }
        };
        self.due = pause.and_then(|pause| Instant::now().checked_add(pause));
        true
    }
}

/// After a failure.
const RETRY: Duration = Duration::from_millis(10);

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::RawFd;
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

    use super::*;
    use crate::sys::Event;

    /// A provider with the least there can be.
    pub(crate) fn rounds(
        descriptor: OwnedFd,
        make: unsafe extern "C" fn(c_int, abi::LPDWORD, abi::LPINT) -> c_int,
    ) -> Rounds {
        Rounds {
            descriptor,
            make,
            due: None,
            failed: false,
        }
    }

    /// Stores what a round has said.
    pub(crate) fn answer(
        result: Result<u32, WsaError>,
        milliseconds: abi::LPDWORD,
        errno: abi::LPINT,
    ) -> c_int {
        match result {
            Ok(next) => {
                // SAFETY: the caller's place, which lives during the call.
                unsafe { milliseconds.write(next) };
                0
            }
            Err(WsaError(code)) => {
                // SAFETY: as above.
                unsafe { errno.write(code) };
                abi::SOCKET_ERROR
            }
        }
    }

    #[test]
    fn a_round_that_another_thread_is_in_is_asked_for_later_however_readable_it_is() {
        static BUSY: AtomicI32 = AtomicI32::new(abi::WSAEINPROGRESS);
        static MADE: AtomicUsize = AtomicUsize::new(0);
        static ASKED_AS: AtomicI32 = AtomicI32::new(-1);
        unsafe extern "C" fn make(host: RawFd, next: abi::LPDWORD, errno: abi::LPINT) -> c_int {
            MADE.fetch_add(1, Ordering::Relaxed);
            ASKED_AS.store(host, Ordering::Relaxed);
            let result = match BUSY.load(Ordering::Relaxed) {
                0 => Ok(abi::WSA_INFINITE),
                code => Err(WsaError(code)),
            };
            answer(result, next, errno)
        }
        let event = Event::new().unwrap();
        event.set();
        let descriptor = event.as_fd().try_clone_to_owned().unwrap();
        let number = descriptor.as_raw_fd();
        let mut rounds = rounds(descriptor, make);
        let before = Instant::now();
        assert!(!rounds.is_due(false, before));
        assert!(rounds.is_due(true, before));
        assert!(rounds.make());
        assert_eq!(ASKED_AS.load(Ordering::Relaxed), number);
        assert!(!rounds.is_due(true, before));
        assert!(rounds.sleeps_on().is_none());
        let due = rounds.due().unwrap();
        assert!(due >= before + RETRY);
        assert!(rounds.is_due(false, due));
        BUSY.store(0, Ordering::Relaxed);
        assert!(rounds.make());
        assert_eq!(rounds.due(), None);
        assert!(rounds.is_due(true, due));
        assert!(rounds.sleeps_on().is_some());
        BUSY.store(abi::WSAEINVAL, Ordering::Relaxed);
        assert!(!rounds.make());
        assert_eq!(MADE.load(Ordering::Relaxed), 3);
    }
}
