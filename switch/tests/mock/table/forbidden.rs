//! The mock provider's functions that a switch does not call.

use super::*;

macro_rules! forbidden {
    ($($name:ident($($argument:ty),*) -> $result:ty = $value:expr;)*) => {$(
        pub(super) unsafe extern "C" fn $name($(_: $argument),*) -> $result {
            record(0, "FORBIDDEN", stringify!($name), 0);
            $value
        }
    )*};
}

forbidden! {
    address_to_string(*mut libc::sockaddr, DWORD, LPWSAPROTOCOL_INFOW, LPWSTR, LPDWORD, LPINT)
        -> c_int = SOCKET_ERROR;
    async_select(SOCKET, HWND, UINT, i32, LPINT) -> c_int = SOCKET_ERROR;
    cancel_blocking_call(LPINT) -> c_int = SOCKET_ERROR;
    get_peer_name(SOCKET, *mut libc::sockaddr, LPINT, LPINT) -> c_int = SOCKET_ERROR;
    get_sock_name(SOCKET, *mut libc::sockaddr, LPINT, LPINT) -> c_int = SOCKET_ERROR;
    join_leaf(SOCKET, *const libc::sockaddr, c_int, LPWSABUF, LPWSABUF, LPQOS, LPQOS, DWORD, LPINT)
        -> SOCKET = INVALID_SOCKET;
    recv_disconnect(SOCKET, LPWSABUF, LPINT) -> c_int = SOCKET_ERROR;
    recv_from(SOCKET, LPWSABUF, DWORD, LPDWORD, LPDWORD, *mut libc::sockaddr, LPINT,
        LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, LPINT)
        -> c_int = SOCKET_ERROR;
    select(c_int, *mut libc::fd_set, *mut libc::fd_set, *mut libc::fd_set, *const libc::timeval,
        LPINT) -> c_int = SOCKET_ERROR;
    send_disconnect(SOCKET, LPWSABUF, LPINT) -> c_int = SOCKET_ERROR;
    send_to(SOCKET, LPWSABUF, DWORD, LPDWORD, DWORD, *const libc::sockaddr, c_int,
        LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, LPINT)
        -> c_int = SOCKET_ERROR;
    shutdown(SOCKET, c_int, LPINT) -> c_int = SOCKET_ERROR;
    string_to_address(LPWSTR, c_int, LPWSAPROTOCOL_INFOW, *mut libc::sockaddr, LPINT, LPINT)
        -> c_int = SOCKET_ERROR;
}
