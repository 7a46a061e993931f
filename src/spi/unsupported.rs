//! The 13 slots that a SAN provider does not serve. The switch never calls them: it or the TCP/IP
//! provider does the work. They answer WSAEOPNOTSUPP, so that no slot of the table is null.

use core::ffi::c_int;

use libc::{fd_set, sockaddr, timeval};

use super::codes::Code;
use super::entry::entry;
use crate::abi::{
    DWORD, HWND, INVALID_SOCKET, LONG, LPDWORD, LPINT, LPQOS, LPWSABUF, LPWSAOVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSAPROTOCOL_INFOW, LPWSATHREADID, LPWSTR, SOCKET,
    SOCKET_ERROR, UINT,
};

/// # Safety
/// `lp_errno` is null or points to an int that may be written.
unsafe fn not_served<T>(name: &'static str, lp_errno: LPINT, failure: T) -> T {
    // SAFETY: the caller's promise is passed on.
    unsafe { entry(name, lp_errno, failure, || Err(Code::NOT_SUPPORTED)) }
}

/// WSPAddressToString: the TCP/IP provider does that.
pub(super) unsafe extern "C" fn address_to_string(
    _address: *mut sockaddr,
    _address_length: DWORD,
    _info: LPWSAPROTOCOL_INFOW,
    _string: LPWSTR,
    _string_length: LPDWORD,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPAddressToString", lp_errno, SOCKET_ERROR) }
}

/// WSPAsyncSelect: the switch does that.
pub(super) unsafe extern "C" fn async_select(
    _s: SOCKET,
    _window: HWND,
    _message: UINT,
    _events: LONG,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPAsyncSelect", lp_errno, SOCKET_ERROR) }
}

/// WSPCancelBlockingCall: no call of a SAN provider blocks.
pub(super) unsafe extern "C" fn cancel_blocking_call(lp_errno: LPINT) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPCancelBlockingCall", lp_errno, SOCKET_ERROR) }
}

/// WSPGetPeerName: the switch keeps both addresses.
pub(super) unsafe extern "C" fn get_peer_name(
    _s: SOCKET,
    _name: *mut sockaddr,
    _length: LPINT,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPGetPeerName", lp_errno, SOCKET_ERROR) }
}

/// WSPGetSockName: the switch keeps both addresses.
pub(super) unsafe extern "C" fn get_sock_name(
    _s: SOCKET,
    _name: *mut sockaddr,
    _length: LPINT,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPGetSockName", lp_errno, SOCKET_ERROR) }
}

/// WSPJoinLeaf: the TCP/IP provider does multipoint.
pub(super) unsafe extern "C" fn join_leaf(
    _s: SOCKET,
    _name: *const sockaddr,
    _length: c_int,
    _caller_data: LPWSABUF,
    _callee_data: LPWSABUF,
    _sqos: LPQOS,
    _gqos: LPQOS,
    _flags: DWORD,
    lp_errno: LPINT,
) -> SOCKET {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPJoinLeaf", lp_errno, INVALID_SOCKET) }
}

/// WSPRecvDisconnect: the session protocol does that.
pub(super) unsafe extern "C" fn recv_disconnect(
    _s: SOCKET,
    _data: LPWSABUF,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPRecvDisconnect", lp_errno, SOCKET_ERROR) }
}

/// WSPRecvFrom: there are no datagrams on a SAN.
pub(super) unsafe extern "C" fn recv_from(
    _s: SOCKET,
    _buffers: LPWSABUF,
    _count: DWORD,
    _received: LPDWORD,
    _flags: LPDWORD,
    _from: *mut sockaddr,
    _from_length: LPINT,
    _overlapped: LPWSAOVERLAPPED,
    _routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPRecvFrom", lp_errno, SOCKET_ERROR) }
}

/// WSPSelect: the switch does that.
pub(super) unsafe extern "C" fn select(
    _count: c_int,
    _read: *mut fd_set,
    _write: *mut fd_set,
    _except: *mut fd_set,
    _timeout: *const timeval,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPSelect", lp_errno, SOCKET_ERROR) }
}

/// WSPSendDisconnect: the session protocol does that.
pub(super) unsafe extern "C" fn send_disconnect(
    _s: SOCKET,
    _data: LPWSABUF,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPSendDisconnect", lp_errno, SOCKET_ERROR) }
}

/// WSPSendTo: there are no datagrams on a SAN.
pub(super) unsafe extern "C" fn send_to(
    _s: SOCKET,
    _buffers: LPWSABUF,
    _count: DWORD,
    _sent: LPDWORD,
    _flags: DWORD,
    _to: *const sockaddr,
    _to_length: c_int,
    _overlapped: LPWSAOVERLAPPED,
    _routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPSendTo", lp_errno, SOCKET_ERROR) }
}

/// WSPShutdown: the session protocol does that.
pub(super) unsafe extern "C" fn shutdown(_s: SOCKET, _how: c_int, lp_errno: LPINT) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPShutdown", lp_errno, SOCKET_ERROR) }
}

/// WSPStringToAddress: the TCP/IP provider does that.
pub(super) unsafe extern "C" fn string_to_address(
    _string: LPWSTR,
    _family: c_int,
    _info: LPWSAPROTOCOL_INFOW,
    _address: *mut sockaddr,
    _length: LPINT,
    lp_errno: LPINT,
) -> c_int {
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { not_served("WSPStringToAddress", lp_errno, SOCKET_ERROR) }
}
