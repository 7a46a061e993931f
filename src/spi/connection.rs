//! WSPSocket, WSPBind, WSPListen, WSPConnect, WSPAccept, WSPCloseSocket.

use core::ffi::c_int;
use std::net::SocketAddr;

use libc::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, sockaddr};

use super::args::{self, RawAddress};
use super::codes::Code;
use super::entry::entry;
use crate::abi::{
    CF_ACCEPT, CF_DEFER, CF_REJECT, DWORD, DWORD_PTR, FROM_PROTOCOL_INFO, GROUP, INVALID_SOCKET,
    LPCONDITIONPROC, LPINT, LPQOS, LPWSABUF, LPWSAPROTOCOL_INFOW, SOCKET, SOCKET_ERROR,
    WSA_FLAG_OVERLAPPED, WSABUF, WSAEAFNOSUPPORT, WSAEPROTONOSUPPORT, WSAEPROTOTYPE, WSD_SOMAXCONN,
};
use crate::engine::{self, Backlog, Family, Socket, Verdict};

/// WSPSocket.
pub(super) unsafe extern "C" fn socket(
    af: c_int,
    kind: c_int,
    protocol: c_int,
    lp_protocol_info: LPWSAPROTOCOL_INFOW,
    g: GROUP,
    flags: DWORD,
    lp_errno: LPINT,
) -> SOCKET {
    let body = || {
        let (provider, switch) = engine::running()?;
        let info = if lp_protocol_info.is_null() {
            None
        } else {
            // SAFETY: not null; the caller lends it for the call.
            Some(unsafe { args::read(lp_protocol_info) }?)
        };
        let or_info = |value, from_info: Option<c_int>| match (value, from_info) {
            (FROM_PROTOCOL_INFO, Some(from_info)) => from_info,
            _ => value,
        };
        // req: WSD-03
        let family = match or_info(af, info.map(|info| info.iAddressFamily)) {
            AF_INET => Family::V4,
            AF_INET6 => Family::V6,
            _ => return Err(Code(WSAEAFNOSUPPORT)),
        };
        if or_info(kind, info.map(|info| info.iSocketType)) != SOCK_STREAM {
            return Err(Code(WSAEPROTOTYPE));
        }
        if or_info(protocol, info.map(|info| info.iProtocol)) != IPPROTO_TCP {
            return Err(Code(WSAEPROTONOSUPPORT));
        }
        if g != 0 || flags != WSA_FLAG_OVERLAPPED {
            return Err(Code::INVALID);
        }
        super::duplicate::check_token(info.map_or(0, |info| info.dwProviderReserved))?;
        let catalog = info.map_or(0, |info| info.dwCatalogEntryId);
        let socket = Socket::open(provider, switch, family, catalog)?;
        Ok(args::socket(socket.handle()))
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPSocket", lp_errno, INVALID_SOCKET, body) }
}

/// WSPBind.
pub(super) unsafe extern "C" fn bind(
    s: SOCKET,
    name: *const sockaddr,
    namelen: c_int,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        // SAFETY: null, or the caller's address of that length.
        let address = unsafe { args::address(name, namelen) }?;
        socket.bind(address)?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPBind", lp_errno, SOCKET_ERROR, body) }
}

/// WSPListen.
pub(super) unsafe extern "C" fn listen(s: SOCKET, backlog: c_int, lp_errno: LPINT) -> c_int {
    let body = || {
        let backlog = match backlog {
            WSD_SOMAXCONN => Backlog::Choice,
            requests => Backlog::Of(usize::try_from(requests).unwrap_or(0)),
        };
        Socket::find(args::handle(s))?.listen(backlog)?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPListen", lp_errno, SOCKET_ERROR, body) }
}

/// WSPConnect.
pub(super) unsafe extern "C" fn connect(
    s: SOCKET,
    name: *const sockaddr,
    namelen: c_int,
    lp_caller_data: LPWSABUF,
    lp_callee_data: LPWSABUF,
    lp_sqos: LPQOS,
    lp_gqos: LPQOS,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        // SAFETY: null, or the caller's address of that length.
        let to = unsafe { args::address(name, namelen) }?;
        if !lp_caller_data.is_null() {
            // SAFETY: not null; the caller lends it for the call.
            let data = unsafe { args::read(lp_caller_data) }?;
            if data.len > 0 {
                return Err(Code(WSAEPROTONOSUPPORT));
            }
        }
        if !lp_sqos.is_null() || !lp_gqos.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        socket.connect(to)?;
        if !lp_callee_data.is_null() {
            // `len` stands first.
            // SAFETY: not null; the caller lends it for the call.
            unsafe { args::write(lp_callee_data.cast::<u32>(), 0) }?;
        }
        // req: WSD-08, the outcome comes as FD_CONNECT.
        Err(Code::WOULD_BLOCK)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPConnect", lp_errno, SOCKET_ERROR, body) }
}

/// Asks the switch's condition function.
///
/// # Safety
/// It is the function that the caller of WSPAccept gave.
unsafe fn decide(
    condition: LPCONDITIONPROC,
    callback_data: DWORD_PTR,
    peer: SocketAddr,
    local: SocketAddr,
) -> Verdict {
    let Some(condition) = condition else {
        return Verdict::Accept;
    };
    let mut caller = RawAddress::new(peer);
    let mut callee = RawAddress::new(local);
    let buffer = |address: &mut RawAddress| WSABUF {
        len: u32::try_from(address.len()).unwrap_or(0),
        buf: address.as_mut_ptr(),
    };
    let mut caller_id = buffer(&mut caller);
    let mut callee_id = buffer(&mut callee);
    let none: LPWSABUF = std::ptr::null_mut();
    let no_qos: LPQOS = std::ptr::null_mut();
    // SAFETY: the switch's function, called as the interface says; the addresses last for the call.
    let answer = unsafe {
        condition(
            &raw mut caller_id,
            none,
            no_qos,
            no_qos,
            &raw mut callee_id,
            none,
            std::ptr::null_mut(),
            callback_data,
        )
    };
    match answer {
        CF_ACCEPT => Verdict::Accept,
        CF_REJECT => Verdict::Reject,
        CF_DEFER => Verdict::Defer,
        _ => Verdict::Illegal,
    }
}

/// WSPAccept.
pub(super) unsafe extern "C" fn accept(
    s: SOCKET,
    addr: *mut sockaddr,
    addrlen: LPINT,
    condition: LPCONDITIONPROC,
    callback_data: DWORD_PTR,
    lp_errno: LPINT,
) -> SOCKET {
    let body = || {
        let listener = Socket::find(args::handle(s))?;
        let room = if addr.is_null() {
            None
        } else {
            // SAFETY: null, or the caller's.
            let length = unsafe { args::read(addrlen) }?;
            let length = usize::try_from(length).map_err(|_| Code::FAULT)?;
            // Before the request is taken: with too little room it keeps waiting.
            let needed = match listener.family() {
                Family::V4 => size_of::<libc::sockaddr_in>(),
                Family::V6 => size_of::<libc::sockaddr_in6>(),
            };
            if length < needed {
                return Err(Code::FAULT);
            }
            Some(length)
        };
        let (accepted, peer) = listener.accept(|peer, local| {
            // SAFETY: the function that the caller gave.
            unsafe { decide(condition, callback_data, peer, local) }
        })?;
        if room.is_some() {
            let peer = RawAddress::new(peer);
            // SAFETY: the room was checked.
            unsafe { peer.store(addr.cast()) };
            let length = c_int::try_from(peer.len()).unwrap_or(0);
            // SAFETY: was read before.
            unsafe { args::write(addrlen, length) }?;
        }
        Ok(args::socket(accepted.handle()))
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPAccept", lp_errno, INVALID_SOCKET, body) }
}

/// WSPCloseSocket.
pub(super) unsafe extern "C" fn close_socket(s: SOCKET, lp_errno: LPINT) -> c_int {
    let body = || {
        Socket::close_by_handle(args::handle(s))?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPCloseSocket", lp_errno, SOCKET_ERROR, body) }
}
