//! WSPTakeProgress and WSPMakeProgress, our additions.

use core::ffi::c_int;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::Duration;

use super::args;
use super::codes::Code;
use super::entry::entry;
use crate::abi::{LPDWORD, LPINT, SOCKET_ERROR, WSA_INFINITE};
use crate::engine;

/// WSPTakeProgress.
pub(super) unsafe extern "C" fn take(lp_descriptor: LPINT, lp_errno: LPINT) -> c_int {
    let body = || {
        let (provider, _) = engine::running()?;
        if lp_descriptor.is_null() {
            return Err(Code::FAULT);
        }
        let descriptor = provider.take_progress()?;
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_descriptor, descriptor.as_raw_fd()) }?;
        // The caller's from here on.
        let _ = descriptor.into_raw_fd();
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPTakeProgress", lp_errno, SOCKET_ERROR, body) }
}

/// Rounded up, so that a call at that time is not too early.
fn milliseconds(longest: Option<Duration>) -> u32 {
    longest.map_or(WSA_INFINITE, |time| {
        let up = time.as_nanos().div_ceil(1_000_000);
        u32::try_from(up).unwrap_or(u32::MAX).min(WSA_INFINITE - 1)
    })
}

/// WSPMakeProgress.
pub(super) unsafe extern "C" fn make(
    descriptor: c_int,
    lp_milliseconds: LPDWORD,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        if lp_milliseconds.is_null() {
            return Err(Code::FAULT);
        }
        let longest = engine::make_progress(descriptor)?;
        // SAFETY: not null; the caller's.
        unsafe { args::write(lp_milliseconds, milliseconds(longest)) }?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPMakeProgress", lp_errno, SOCKET_ERROR, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_the_next_call_is_rounded_up_and_never_taken_for_never() {
        assert_eq!(milliseconds(None), WSA_INFINITE);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_micros(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(2_001))), 3);
        let ages = Some(Duration::from_secs(1 << 40));
        assert_eq!(milliseconds(ages), WSA_INFINITE - 1);
    }
}
