//! WSPStartupEx and WSPCleanup.

use core::ffi::c_int;
use std::sync::Arc;

use super::PROC_TABLE;
use super::args;
use super::codes::Code;
use super::entry::entry;
use super::sys::Linux;
use super::upcall::Upcalls;
use crate::abi::{
    LPINT, LPWSAPROTOCOL_INFOW, LPWSPDATA, LPWSPPROC_TABLE, LPWSPUPCALLTABLEEX, SOCKET_ERROR, WORD,
    WSAVERNOTSUPPORTED, WSP_VERSION, WSPDATA,
};
use crate::engine::{self, System};

const DESCRIPTION: &str = concat!("wsdirect ", env!("CARGO_PKG_VERSION"));

/// The highest version that the provider speaks.
fn description() -> WSPDATA {
    let mut data = WSPDATA {
        wVersion: WSP_VERSION,
        wHighVersion: WSP_VERSION,
        ..WSPDATA::default()
    };
    // The last place keeps its 0.
    for (place, unit) in data
        .szDescription
        .iter_mut()
        .take(crate::abi::WSPDESCRIPTION_LEN)
        .zip(DESCRIPTION.encode_utf16())
    {
        *place = unit;
    }
    data
}

/// Major version first, so that versions compare as they are meant.
fn comparable(version: WORD) -> (u8, u8) {
    let [major, minor] = version.to_le_bytes();
    (major, minor)
}

/// The one function that the library exports. Returns 0 or a code.
///
/// # Safety
/// Pointers that are not null point to what their types say; the tables may be read and written.
pub(crate) unsafe fn startup(
    version: WORD,
    lp_data: LPWSPDATA,
    _lp_protocol_info: LPWSAPROTOCOL_INFOW,
    lp_upcalls: LPWSPUPCALLTABLEEX,
    lp_table: LPWSPPROC_TABLE,
) -> c_int {
    let mut code = 0;
    let body = || {
        // req: WSD-02
        if comparable(version) < comparable(WSP_VERSION) {
            return Err(Code(WSAVERNOTSUPPORTED));
        }
        if lp_data.is_null() || lp_table.is_null() {
            return Err(Code::FAULT);
        }
        // SAFETY: null, or a table that the caller lends for the call.
        let upcalls = unsafe { args::read(lp_upcalls) }?;
        let upcalls = Upcalls::new(&upcalls).ok_or(Code::FAULT)?;
        let system: Arc<dyn System> = Arc::new(Linux);
        engine::start(Arc::new(upcalls), &system).map_err(|error| {
            tracing::error!(%error, "the provider cannot be started");
            Code::from(error)
        })?;
        // SAFETY: not null; the caller lends it for the call.
        unsafe { args::write(lp_data, description()) }?;
        // SAFETY: as above.
        unsafe { args::write(lp_table, PROC_TABLE) }?;
        Ok(0)
    };
    // SAFETY: the code goes to a variable of ours.
    let result = unsafe { entry("WSPStartupEx", &raw mut code, SOCKET_ERROR, body) };
    if result == 0 { 0 } else { code }
}

/// WSPCleanup.
pub(super) unsafe extern "C" fn cleanup(lp_errno: LPINT) -> c_int {
    let body = || {
        engine::stop()?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPCleanup", lp_errno, SOCKET_ERROR, body) }
}
