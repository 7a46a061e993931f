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
        })
    }
}

impl Rounds {
    /// Readable while there is something to do.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
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
        let pause = match made {
            Ok(()) if next == abi::WSA_INFINITE => None,
            Ok(()) => Some(Duration::from_millis(next.into())),
            Err(WsaError(abi::WSANOTINITIALISED | abi::WSAEINVAL)) => return false,
            Err(error) => {
                tracing::warn!(%error, "a provider's progress could not be made");
                Some(RETRY)
            }
        };
        self.due = pause.and_then(|pause| Instant::now().checked_add(pause));
        true
    }
}

/// After a failure.
const RETRY: Duration = Duration::from_millis(10);
