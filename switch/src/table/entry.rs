//! Where a provider begins: its WSPStartupEx, linked in, given, or out of a shared library.

use std::ffi::{CStr, c_int};
use std::path::Path;

use wsdirect::abi::{self, WSAPROTOCOL_INFOW, WSPDATA, WSPPROC_TABLE, WSPUPCALLTABLEEX};

pub(super) type StartupEx = unsafe extern "C" fn(
    abi::WORD,
    *mut WSPDATA,
    *mut WSAPROTOCOL_INFOW,
    *mut WSPUPCALLTABLEEX,
    *mut WSPPROC_TABLE,
) -> c_int;

/// Where a provider begins: its WSPStartupEx.
#[derive(Clone, Copy, Debug)]
pub struct EntryPoint {
    pub(super) start: StartupEx,
}

impl EntryPoint {
    /// A provider by its WSPStartupEx.
    ///
    /// # Safety
    /// The function, and everything it hands out, keeps to the provider interface.
    #[must_use]
    pub unsafe fn new(start: StartupEx) -> EntryPoint {
        EntryPoint { start }
    }

    /// The provider that is linked into this library.
    #[cfg(any())]
    pub(crate) fn linked() -> EntryPoint {
        EntryPoint {
            start: wsdirect::WSPStartupEx,
        }
    }

    /// A provider in a shared library, which stays loaded until the process ends: a provider's
    /// threads and thread-local values may outlive its last use. The text says why it is none.
    pub(crate) fn load(path: &Path) -> Result<EntryPoint, String> {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
        let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
        // SAFETY: the user named this library as a provider, and thereby asked to run its code.
        let library =
            unsafe { Library::open(Some(path), flags) }.map_err(|error| error.to_string())?;
        const NAME: &CStr = c"WSPStartupEx";
        // SAFETY: a library that exports this name exports this function; the interface says so.
        let symbol: Symbol<StartupEx> = unsafe { library.get(NAME.to_bytes_with_nul()) }
            .map_err(|error| format!("exports no WSPStartupEx: {error}"))?;
        Ok(EntryPoint { start: *symbol })
    }
}
