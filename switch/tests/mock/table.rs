//! The mock's functions: the 17 slots, the 13 that must never be called, and the extensions.

mod connections;
mod forbidden;
mod options;
mod registering;
mod transfer;

use std::ffi::{c_char, c_int, c_void};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};

use wsdirect::abi::{
    self, BOOL, DWORD, DWORD_PTR, GROUP, GUID, HANDLE, HWND, INVALID_SOCKET, LPBOOL,
    LPCONDITIONPROC, LPDWORD, LPINT, LPQOS, LPVOID, LPWSABUF, LPWSABUFEX, LPWSANETWORKEVENTS,
    LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSAPROTOCOL_INFOW, LPWSATHREADID,
    LPWSPDATA, LPWSPPROC_TABLE, LPWSPUPCALLTABLEEX, LPWSTR, SOCKET, SOCKET_ERROR, UINT, WORD,
    WSABUF, WSAEVENT, WSPPROC_TABLE,
};

use super::work::{Upcall, later};
use super::{Overlapped, Registered, STATE, Socket, State, Which, fresh, memory, record};

use connections::*;
pub(crate) use connections::{end_peer, silent_peer};
use forbidden::*;
use options::*;
use registering::*;
use transfer::*;

/// What an armed socket makes readable.
pub(crate) struct WakeUp {
    file: std::fs::File,
    is_armed: bool,
}

impl WakeUp {
    fn new() -> WakeUp {
        // SAFETY: takes no pointer; the new descriptor has one owner.
        let file = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            std::fs::File::from_raw_fd(fd)
        };
        WakeUp {
            file,
            is_armed: false,
        }
    }

    pub(crate) fn set(&self) {
        if self.is_armed {
            (&self.file).write_all(&1u64.to_ne_bytes()).unwrap();
        }
    }
}

/// Runs the body of one function unless it is to fail, and records how it went.
fn call<R>(
    socket: SOCKET,
    name: &'static str,
    detail: impl Into<String>,
    body: impl FnOnce(&mut State) -> Result<R, i32>,
) -> Result<R, i32> {
    let mut state = STATE.lock();
    // Before the body: that may be what closes it.
    let made_by = state.maker(socket);
    let result = match state.config.failing.get(name) {
        Some(code) => Err(*code),
        None => body(&mut state),
    };
    let code = result.as_ref().err().copied().unwrap_or(0);
    state.trace.push(super::Call {
        socket,
        made_by,
        name,
        detail: detail.into(),
        code,
    });
    result
}

/// # Safety
/// `errno` is null or can be written to.
unsafe fn give(errno: LPINT, result: Result<(), i32>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => {
            // SAFETY: the caller vouches for it.
            unsafe { errno.write(code) };
            SOCKET_ERROR
        }
    }
}

fn existing(state: &mut State, socket: SOCKET) -> Result<&mut Socket, i32> {
    state.sockets.get_mut(&socket).ok_or(abi::WSAENOTSOCK)
}

/// # Safety
/// `name` is as long as stated.
unsafe fn address(name: *const libc::sockaddr, len: c_int) -> SocketAddr {
    let len = usize::try_from(len).unwrap();
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), len) };
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    if len == 16 {
        let ip: [u8; 4] = bytes[4..8].try_into().unwrap();
        (Ipv4Addr::from(ip), port).into()
    } else {
        let ip: [u8; 16] = bytes[8..24].try_into().unwrap();
        (Ipv6Addr::from(ip), port).into()
    }
}

fn family(number: c_int) -> [u8; 2] {
    u16::try_from(number).unwrap().to_ne_bytes()
}

fn bytes_of(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(family(libc::AF_INET));
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.resize(16, 0);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(family(libc::AF_INET6));
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(v6.ip().octets());
            bytes.resize(28, 0);
        }
    }
    bytes
}

/// The mock's WSPStartupEx.
///
/// # Safety
/// As the interface says.
pub(crate) unsafe extern "C" fn startup(
    version: WORD,
    data: LPWSPDATA,
    protocol: LPWSAPROTOCOL_INFOW,
    upcalls: LPWSPUPCALLTABLEEX,
    table: LPWSPPROC_TABLE,
) -> c_int {
    // SAFETY: the caller vouches for everything.
    unsafe { start(Which::First, version, data, protocol, upcalls, table) }
}

/// That of the other entry.
///
/// # Safety
/// As the interface says.
pub(crate) unsafe extern "C" fn other_startup(
    version: WORD,
    data: LPWSPDATA,
    protocol: LPWSAPROTOCOL_INFOW,
    upcalls: LPWSPUPCALLTABLEEX,
    table: LPWSPPROC_TABLE,
) -> c_int {
    // SAFETY: the caller vouches for everything.
    unsafe { start(Which::Other, version, data, protocol, upcalls, table) }
}

/// # Safety
/// As the interface says.
unsafe fn start(
    which: Which,
    version: WORD,
    data: LPWSPDATA,
    protocol: LPWSAPROTOCOL_INFOW,
    upcalls: LPWSPUPCALLTABLEEX,
    table: LPWSPPROC_TABLE,
) -> c_int {
    let started = call(0, "StartupEx", format!("{version:#06x}"), |state| {
        state.starts += 1;
        // SAFETY: the switch's table, live during the call.
        state.upcalls = Some(unsafe { *upcalls });
        Ok(state.config.null_slot)
    });
    let null_slot = match started {
        Ok(null_slot) => null_slot,
        Err(code) => return code,
    };
    // SAFETY: the switch's structure, live during the call.
    let protocol = unsafe { &*protocol };
    assert_eq!(
        protocol.iProtocol,
        libc::IPPROTO_TCP,
        "not the TCP provider's description"
    );
    // SAFETY: as above.
    let data = unsafe { &mut *data };
    data.wVersion = abi::WSP_VERSION;
    data.wHighVersion = abi::WSP_VERSION;
    let (name, socket): (_, unsafe extern "C" fn(_, _, _, _, _, _, _) -> _) = match which {
        Which::First => ("mock", socket),
        Which::Other => ("other mock", other_socket),
    };
    for (to, from) in data.szDescription.iter_mut().zip(name.encode_utf16()) {
        *to = from;
    }
    let slots = WSPPROC_TABLE {
        lpWSPAccept: Some(accept),
        lpWSPAddressToString: Some(address_to_string),
        lpWSPAsyncSelect: Some(async_select),
        lpWSPBind: Some(bind),
        lpWSPCancelBlockingCall: Some(cancel_blocking_call),
        lpWSPCleanup: Some(cleanup),
        lpWSPCloseSocket: Some(close_socket),
        lpWSPConnect: Some(connect),
        lpWSPDuplicateSocket: Some(duplicate_socket),
        lpWSPEnumNetworkEvents: Some(enum_network_events),
        lpWSPEventSelect: Some(event_select),
        lpWSPGetOverlappedResult: Some(get_overlapped_result),
        lpWSPGetPeerName: Some(get_peer_name),
        lpWSPGetSockName: Some(get_sock_name),
        lpWSPGetSockOpt: Some(get_sock_opt),
        lpWSPGetQOSByName: Some(get_qos_by_name),
        lpWSPIoctl: Some(ioctl),
        lpWSPJoinLeaf: Some(join_leaf),
        lpWSPListen: if null_slot { None } else { Some(listen) },
        lpWSPRecv: Some(recv),
        lpWSPRecvDisconnect: Some(recv_disconnect),
        lpWSPRecvFrom: Some(recv_from),
        lpWSPSelect: Some(select),
        lpWSPSend: Some(send),
        lpWSPSendDisconnect: Some(send_disconnect),
        lpWSPSendTo: Some(send_to),
        lpWSPSetSockOpt: Some(set_sock_opt),
        lpWSPShutdown: Some(shutdown),
        lpWSPSocket: Some(socket),
        lpWSPStringToAddress: Some(string_to_address),
    };
    // SAFETY: as above.
    unsafe { table.write(slots) };
    0
}

unsafe extern "C" fn cleanup(errno: LPINT) -> c_int {
    let result = call(0, "Cleanup", "", |state| {
        state.starts = state.starts.checked_sub(1).ok_or(abi::WSANOTINITIALISED)?;
        Ok(())
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}
