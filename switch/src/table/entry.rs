//! Where a provider begins: its WSPStartupEx, linked in, given, or out of a shared library.

use std::ffi::c_int;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use wsdirect::abi::{self, WSAPROTOCOL_INFOW, WSPDATA, WSPPROC_TABLE, WSPUPCALLTABLEEX};

use crate::provider::Source;

/// The type of WSPStartupEx.
pub type StartupEx = unsafe extern "C" fn(
    abi::WORD,
    *mut WSPDATA,
    *mut WSAPROTOCOL_INFOW,
    *mut WSPUPCALLTABLEEX,
    *mut WSPPROC_TABLE,
) -> c_int;

/// Where a provider begins: its WSPStartupEx.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    pub(super) start: StartupEx,
    source: Source,
}

impl EntryPoint {
    /// A provider by its WSPStartupEx.
    ///
    /// # Safety
    /// The function, and everything it hands out, keeps to the provider interface.
    #[must_use]
    pub unsafe fn new(start: StartupEx) -> EntryPoint {
        EntryPoint {
            start,
            source: Source::Given,
        }
    }

    /// The provider that is linked into this library.
    #[must_use]
    pub fn linked() -> EntryPoint {
        EntryPoint {
            start: wsdirect::WSPStartupEx,
            source: Source::Linked,
        }
    }

    /// A provider in a shared library, which stays loaded until the process ends: a provider's
    /// threads and thread-local values may outlive its last use. The text says why it is none.
    ///
    /// # Errors
    /// The library cannot be loaded, or is no provider.
    ///
    /// # Safety
    /// The library may be loaded into this process, and keeps to the provider interface.
    pub unsafe fn library(path: &Path) -> Result<EntryPoint, String> {
        let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
        // SAFETY: the caller vouches for the library.
        let library =
            unsafe { Library::open(Some(path), flags) }.map_err(|error| error.to_string())?;
        // SAFETY: a library that exports this name exports this function; the interface says so.
        let symbol: Result<Symbol<StartupEx>, _> = unsafe { library.get(NAME) };
        let symbol = symbol.map_err(|error| format!("is no provider: {error}"))?;
        Ok(EntryPoint {
            start: *symbol,
            source: Source::Library(path.to_owned()),
        })
    }

    /// As [`EntryPoint::library`], for a library that the user named as a provider.
    pub(crate) fn load(path: &Path) -> Result<EntryPoint, String> {
        // SAFETY: who sets the environment or installs a description asks to run the library's
        // code in this process, as with LD_PRELOAD; privileged processes do not look there.
        unsafe { EntryPoint::library(path) }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }
}

const NAME: &[u8] = b"WSPStartupEx\0";
