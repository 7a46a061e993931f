//! WSPDuplicateSocket and the tokens it makes. Sockets are not handed over yet: no token is made,
//! and none is taken.

use core::ffi::c_int;

use super::args;
use super::codes::Code;
use super::entry::entry;
use crate::abi::{DWORD, LPINT, LPWSAPROTOCOL_INFOW, SOCKET, SOCKET_ERROR};
use crate::engine::Socket;

/// A socket is new if its token is 0. Every other one is none of ours.
pub(super) fn check_token(token: DWORD) -> Result<(), Code> {
    match token {
        0 => Ok(()),
        _ => Err(Code::INVALID),
    }
}

/// WSPDuplicateSocket.
pub(super) unsafe extern "C" fn duplicate_socket(
    s: SOCKET,
    _process_id: DWORD,
    _lp_protocol_info: LPWSAPROTOCOL_INFOW,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        Socket::find(args::handle(s))?;
        Err(Code::NOT_SUPPORTED)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPDuplicateSocket", lp_errno, SOCKET_ERROR, body) }
}
