//! WSPGetSockOpt, WSPSetSockOpt, WSPIoctl, WSPGetQOSByName.

use core::ffi::{c_char, c_int, c_void};
use std::net::SocketAddr;

use libc::IPPROTO_TCP;

use super::args::{self, RawAddress};
use super::codes::Code;
use super::entry::entry;
use super::overlapped::Overlapped;
use super::{memory, progress, transfer};
use crate::abi::{
    BOOL, DWORD, FALSE, GUID, LPDWORD, LPINT, LPQOS, LPVOID, LPWSABUF, LPWSAOVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, SIO_ADDRESS_LIST_QUERY,
    SIO_GET_EXTENSION_FUNCTION_POINTER, SIO_GET_GROUP_QOS, SIO_GET_QOS, SIO_SET_GROUP_QOS,
    SIO_SET_QOS, SO_MAX_MSG_SIZE, SO_MAX_RDMA_SIZE, SO_RDMA_THRESHOLD_SIZE, SOCKET, SOCKET_ADDRESS,
    SOCKET_ADDRESS_LIST, SOCKET_ERROR, WSAID_ARMCOMPLETION, WSAID_DEREGISTERMEMORY,
    WSAID_DEREGISTERRDMAMEMORY, WSAID_MAKEPROGRESS, WSAID_MEMORYREGISTRATIONCACHECALLBACK,
    WSAID_RDMAREAD, WSAID_RDMAWRITE, WSAID_REGISTERMEMORY, WSAID_REGISTERRDMAMEMORY,
    WSAID_TAKEPROGRESS, WSD_SO_DEBUG, WSD_SOL_SOCKET,
};
use crate::engine::{self, Socket};

/// Every option of ours is 4 bytes long.
const OPTION_LEN: c_int = 4;

fn check_level(level: c_int) -> Result<(), Code> {
    match level {
        WSD_SOL_SOCKET => Ok(()),
        // TCP_NODELAY and its like are the switch's business.
        IPPROTO_TCP => Err(Code::NO_OPTION),
        _ => Err(Code::INVALID),
    }
}

/// WSPGetSockOpt.
pub(super) unsafe extern "C" fn get_sock_opt(
    s: SOCKET,
    level: c_int,
    optname: c_int,
    optval: *mut c_char,
    optlen: LPINT,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        check_level(level)?;
        let value = match optname {
            SO_MAX_MSG_SIZE => socket.max_message(),
            SO_MAX_RDMA_SIZE => socket.max_rdma(),
            SO_RDMA_THRESHOLD_SIZE => socket.rdma_threshold(),
            WSD_SO_DEBUG => u32::from(socket.debug()),
            _ => return Err(Code::NO_OPTION),
        };
        // SAFETY: null, or the caller's.
        let room = unsafe { args::read(optlen) }?;
        if room < OPTION_LEN {
            // SAFETY: was read before.
            unsafe { args::write(optlen, OPTION_LEN) }?;
            return Err(Code::FAULT);
        }
        // SAFETY: null, or room for as many bytes as the caller said.
        unsafe { args::write(optval.cast::<u32>(), value) }?;
        // SAFETY: was read before.
        unsafe { args::write(optlen, OPTION_LEN) }?;
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPGetSockOpt", lp_errno, SOCKET_ERROR, body) }
}

/// WSPSetSockOpt.
pub(super) unsafe extern "C" fn set_sock_opt(
    s: SOCKET,
    level: c_int,
    optname: c_int,
    optval: *const c_char,
    optlen: c_int,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let socket = Socket::find(args::handle(s))?;
        check_level(level)?;
        if optname != WSD_SO_DEBUG {
            return Err(Code::NO_OPTION);
        }
        if optlen < OPTION_LEN {
            return Err(Code::FAULT);
        }
        // SAFETY: null, or as many bytes as the caller said.
        let value = unsafe { args::read(optval.cast::<BOOL>()) }?;
        socket.set_debug(value != FALSE);
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPSetSockOpt", lp_errno, SOCKET_ERROR, body) }
}

/// The extension function that a GUID names.
fn extension(id: GUID) -> Result<*mut c_void, Code> {
    let rdma_read = || engine::running().map(|(provider, _)| provider.caps().rdma_read);
    let keeps_registrations =
        || engine::running().map(|(provider, _)| provider.keeps_registrations());
    Ok(match id {
        WSAID_REGISTERMEMORY => memory::register as *mut c_void,
        WSAID_DEREGISTERMEMORY => memory::deregister as *mut c_void,
        WSAID_REGISTERRDMAMEMORY => memory::register_rdma as *mut c_void,
        WSAID_DEREGISTERRDMAMEMORY => memory::deregister_rdma as *mut c_void,
        WSAID_RDMAWRITE => memory::rdma_write as *mut c_void,
        // req: WSD-04, the two that are optional.
        WSAID_RDMAREAD if rdma_read()? => memory::rdma_read as *mut c_void,
        WSAID_RDMAREAD => return Err(Code::NOT_SUPPORTED),
        // Where nothing is kept registered that the switch has deregistered, there is none.
        WSAID_MEMORYREGISTRATIONCACHECALLBACK if keeps_registrations()? => {
            memory::registration_cache_callback as *mut c_void
        }
        WSAID_MEMORYREGISTRATIONCACHECALLBACK => return Err(Code::NOT_SUPPORTED),
        WSAID_ARMCOMPLETION => transfer::arm_completion as *mut c_void,
        WSAID_TAKEPROGRESS => progress::take as *mut c_void,
        WSAID_MAKEPROGRESS => progress::make as *mut c_void,
        _ => return Err(Code::INVALID),
    })
}

/// The memory that a control code reads and writes.
struct Control {
    input: LPVOID,
    input_len: DWORD,
    output: LPVOID,
    output_len: DWORD,
    lp_returned: LPDWORD,
}

impl Control {
    /// Stores how many bytes were, or would have been, written.
    ///
    /// # Safety
    /// As the table's function.
    unsafe fn returned(&self, bytes: usize) -> Result<u32, Code> {
        let bytes = u32::try_from(bytes).map_err(|_| Code::DEFECT)?;
        // SAFETY: null, or the caller's.
        unsafe { args::write(self.lp_returned, bytes) }?;
        Ok(bytes)
    }

    /// # Safety
    /// As the table's function.
    unsafe fn extension(&self) -> Result<u32, Code> {
        if (self.input_len as usize) < size_of::<GUID>() {
            return Err(Code::FAULT);
        }
        // SAFETY: null, or long enough by the caller's word.
        let id = unsafe { args::read(self.input.cast::<GUID>().cast_const()) }?;
        let function = extension(id)?;
        let len = size_of::<*mut c_void>();
        if (self.output_len as usize) < len {
            // SAFETY: as for this function.
            unsafe { self.returned(len) }?;
            return Err(Code::FAULT);
        }
        // The length first: a caller that gave no room for it gets the error and no function.
        // SAFETY: as for this function.
        let done = unsafe { self.returned(len) }?;
        // SAFETY: null, or long enough by the caller's word.
        unsafe { args::write(self.output.cast::<*mut c_void>(), function) }?;
        Ok(done)
    }

    /// # Safety
    /// As the table's function.
    unsafe fn addresses(&self, socket: &Socket) -> Result<u32, Code> {
        // Asked anew each time: addresses come and go.
        let addresses: Vec<RawAddress> = socket
            .provider()
            .addresses()
            .into_iter()
            .map(|ip| RawAddress::new(SocketAddr::new(ip, 0)))
            .collect();
        // The count and the array, then the addresses, each at a multiple of 8.
        let array = std::mem::offset_of!(SOCKET_ADDRESS_LIST, Address);
        let mut at = array + addresses.len() * size_of::<SOCKET_ADDRESS>();
        let mut places = Vec::with_capacity(addresses.len());
        for address in &addresses {
            places.push(at);
            at += address.len().next_multiple_of(8);
        }
        // SAFETY: as for this function.
        let needed = unsafe { self.returned(at) }?;
        // req: WSD-05, the switch asks for the size first.
        if self.output_len < needed || self.output.is_null() {
            return Err(Code::FAULT);
        }
        let base = self.output.cast::<u8>();
        let count = c_int::try_from(addresses.len()).map_err(|_| Code::DEFECT)?;
        // SAFETY: the room was checked.
        unsafe { args::write(base.cast::<c_int>(), count) }?;
        for (index, (address, place)) in addresses.iter().zip(places).enumerate() {
            let to = base.wrapping_add(place);
            // SAFETY: the room was checked, and `place` leaves enough of it.
            unsafe { address.store(to) };
            let entry = SOCKET_ADDRESS {
                lpSockaddr: to.cast(),
                iSockaddrLength: c_int::try_from(address.len()).map_err(|_| Code::DEFECT)?,
            };
            let slot = base.wrapping_add(array + index * size_of::<SOCKET_ADDRESS>());
            // SAFETY: the array has room for every entry.
            unsafe { args::write(slot.cast::<SOCKET_ADDRESS>(), entry) }?;
        }
        Ok(needed)
    }
}

/// WSPIoctl.
pub(super) unsafe extern "C" fn ioctl(
    s: SOCKET,
    code: DWORD,
    lp_input: LPVOID,
    input_len: DWORD,
    lp_output: LPVOID,
    output_len: DWORD,
    lp_returned: LPDWORD,
    lp_overlapped: LPWSAOVERLAPPED,
    _completion_routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _lp_thread_id: LPWSATHREADID,
    lp_errno: LPINT,
) -> c_int {
    let body = || {
        let control = Control {
            input: lp_input,
            input_len,
            output: lp_output,
            output_len,
            lp_returned,
        };
        let done = match code {
            // The socket does not count: it may be none.
            // SAFETY: the caller's promises are passed on.
            SIO_GET_EXTENSION_FUNCTION_POINTER => unsafe { control.extension() },
            SIO_ADDRESS_LIST_QUERY => {
                let socket = Socket::find(args::handle(s))?;
                // SAFETY: the caller's promises are passed on.
                unsafe { control.addresses(&socket) }
            }
            _ => {
                Socket::find(args::handle(s))?;
                match code {
                    SIO_GET_QOS | SIO_GET_GROUP_QOS | SIO_SET_QOS | SIO_SET_GROUP_QOS => {
                        Err(Code::NO_OPTION)
                    }
                    _ => Err(Code::INVALID),
                }
            }
        }?;
        if !lp_overlapped.is_null() {
            // SAFETY: not null; the caller's structure, with nothing in progress.
            unsafe { Overlapped::new(lp_overlapped) }?.succeed(done);
        }
        Ok(0)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPIoctl", lp_errno, SOCKET_ERROR, body) }
}

/// WSPGetQOSByName: there is no quality of service here.
pub(super) unsafe extern "C" fn get_qos_by_name(
    s: SOCKET,
    _lp_name: LPWSABUF,
    _lp_qos: LPQOS,
    lp_errno: LPINT,
) -> BOOL {
    let body = || {
        Socket::find(args::handle(s))?;
        Err(Code::NOT_SUPPORTED)
    };
    // SAFETY: `lp_errno` is the caller's, under the contract of the table.
    unsafe { entry("WSPGetQOSByName", lp_errno, FALSE, body) }
}
