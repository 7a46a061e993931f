//! A provider's table, made safe: the 17 functions a SAN provider serves, its extension functions,
//! and the memory and operations that are lent to it.
//!
//! Owns the copy of the table and the balance of WSPStartupEx and WSPCleanup. Knows no policy: what
//! to call when is decided elsewhere. Invariants:
//!
//! * A slot is called only if it is not null, and the 13 slots that a SAN provider does not serve
//!   are not even kept.
//! * Memory is lent as [`crate::lent::Region`], whose maker vouches for it; operations are
//!   [`crate::lent::Slot`]s, which stay
//!   in place until their socket's handle has been given back. So everything else here is safe.

mod control;
mod entry;
mod progress;
mod transfer;

use std::ffi::c_int;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use wsdirect::abi::{
    self, DWORD_PTR, GROUP, LPINT, LPQOS, LPWSABUF, SOCKET, WSANETWORKEVENTS, WSAPROTOCOL_INFOW,
    WSPDATA, WSPPROC_TABLE,
};

use crate::address::{self, SockAddr};
use crate::error::WsaError;
use crate::sys::Event;
use crate::upcalls::{self, Handle};

pub use entry::{EntryPoint, StartupEx};
pub(crate) use progress::Rounds;
#[cfg(test)]
pub(crate) use progress::tests as rounds_of_tests;

/// The extension functions, as far as the provider has them.
#[derive(Clone, Copy, Default)]
struct Extensions {
    register: abi::LPFN_WSPREGISTERMEMORY,
    deregister: abi::LPFN_WSPDEREGISTERMEMORY,
    register_rdma: abi::LPFN_WSPREGISTERRDMAMEMORY,
    deregister_rdma: abi::LPFN_WSPDEREGISTERRDMAMEMORY,
    rdma_write: abi::LPFN_WSPRDMAWRITE,
    rdma_read: abi::LPFN_WSPRDMAREAD,
    keeps_registrations: bool,
    arm: abi::LPFN_WSPARMCOMPLETION,
    take_progress: abi::LPFN_WSPTAKEPROGRESS,
    make_progress: abi::LPFN_WSPMAKEPROGRESS,
}

/// A started provider. Dropping it is its WSPCleanup.
pub(crate) struct Table {
    slots: WSPPROC_TABLE,
    extensions: Extensions,
    description: String,
}

/// A provider's socket with the switch's handle for it. Plain data: closing is the owner's duty.
pub(crate) struct RawSocket {
    socket: SOCKET,
    handle: Arc<Handle>,
    /// What the provider said to wait for; -1 as long as it has not.
    descriptor: AtomicI32,
}

impl RawSocket {
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// What to wait for after arming. The same for the whole life of the socket, and known after
    /// the first time that arming succeeded.
    pub(crate) fn wait_descriptor(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.descriptor.load(Ordering::Acquire);
        // SAFETY: the provider keeps the descriptor open until the socket is closed.
        (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }
}

/// The slot's function, or the error for a null one.
fn filled<F>(slot: Option<F>) -> Result<F, WsaError> {
    slot.ok_or(WsaError(abi::WSAEINVALIDPROCTABLE))
}

/// The code a provider reported; a failure without one is its own kind.
fn code(number: c_int) -> WsaError {
    WsaError(if number == 0 {
        abi::WSAEINVALIDPROVIDER
    } else {
        number
    })
}

/// A call that returns 0 on success.
fn status(call: impl FnOnce(LPINT) -> c_int) -> Result<(), WsaError> {
    let mut errno = 0;
    if call(&raw mut errno) == 0 {
        Ok(())
    } else {
        Err(code(errno))
    }
}

impl Table {
    /// Starts a provider and takes its table, without the slots that no SAN provider serves.
    pub(crate) fn start(entry: EntryPoint) -> Result<Table, WsaError> {
        let mut data = WSPDATA::default();
        let mut slots = WSPPROC_TABLE::default();
        let mut upcalls = upcalls::TABLE;
        let mut tcp = tcp_protocol();
        let outputs = (&raw mut data, &raw mut slots);
        let inputs = (&raw mut tcp, &raw mut upcalls);
        // SAFETY: the entry point keeps to the interface; all four structures are live and of the
        // size the interface names, and are not used after the call unless copied.
        let result =
            unsafe { (entry.start)(abi::WSP_VERSION, outputs.0, inputs.0, inputs.1, outputs.1) };
        if result != 0 {
            return Err(WsaError(result));
        }
        // req: WSD-17 what is not kept cannot be called
        let slots = WSPPROC_TABLE {
            lpWSPAddressToString: None,
            lpWSPAsyncSelect: None,
            lpWSPCancelBlockingCall: None,
            lpWSPGetPeerName: None,
            lpWSPGetSockName: None,
            lpWSPJoinLeaf: None,
            lpWSPRecvDisconnect: None,
            lpWSPRecvFrom: None,
            lpWSPSelect: None,
            lpWSPSendDisconnect: None,
            lpWSPSendTo: None,
            lpWSPShutdown: None,
            lpWSPStringToAddress: None,
            ..slots
        };
        let text: Vec<u16> = data
            .szDescription
            .iter()
            .copied()
            .take_while(|c| *c != 0)
            .collect();
        let description = String::from_utf16_lossy(&text);
        let table = Table {
            slots,
            extensions: Extensions::default(),
            description,
        };
        // From here on dropping the table cleans up, also when it is refused.
        table.check_slots()?;
        Ok(table)
    }

    fn check_slots(&self) -> Result<(), WsaError> {
        let slots = &self.slots;
        let all = slots.lpWSPAccept.is_some()
            && slots.lpWSPBind.is_some()
            && slots.lpWSPCleanup.is_some()
            && slots.lpWSPCloseSocket.is_some()
            && slots.lpWSPConnect.is_some()
            && slots.lpWSPDuplicateSocket.is_some()
            && slots.lpWSPEnumNetworkEvents.is_some()
            && slots.lpWSPEventSelect.is_some()
            && slots.lpWSPGetOverlappedResult.is_some()
            && slots.lpWSPGetSockOpt.is_some()
            && slots.lpWSPGetQOSByName.is_some()
            && slots.lpWSPIoctl.is_some()
            && slots.lpWSPListen.is_some()
            && slots.lpWSPRecv.is_some()
            && slots.lpWSPSend.is_some()
            && slots.lpWSPSetSockOpt.is_some()
            && slots.lpWSPSocket.is_some();
        if all {
            Ok(())
        } else {
            Err(WsaError(abi::WSAEINVALIDPROCTABLE))
        }
    }

    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    /// Whether it keeps memory registered that was deregistered.
    pub(crate) fn keeps_registrations(&self) -> bool {
        self.extensions.keeps_registrations
    }

    pub(crate) fn has_rdma_read(&self) -> bool {
        self.extensions.rdma_read.is_some()
    }

    pub(crate) fn has_arm(&self) -> bool {
        self.extensions.arm.is_some()
    }

    // ---- sockets

    /// WSPSocket, always overlapped.
    pub(crate) fn socket(&self, like: &SocketAddr) -> Result<RawSocket, WsaError> {
        let call = filled(self.slots.lpWSPSocket)?;
        let family = if like.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let mut errno = 0;
        let (socket, handle) = upcalls::created_during(|| {
            // SAFETY: the table's function; no protocol information asks for a new socket.
            // req: WSD-17 always overlapped
            unsafe {
                call(
                    family,
                    libc::SOCK_STREAM,
                    libc::IPPROTO_TCP,
                    ptr::null_mut(),
                    0,
                    abi::WSA_FLAG_OVERLAPPED,
                    &raw mut errno,
                )
            }
        });
        self.adopt(socket, handle, errno)
    }

    /// Makes one of a provider's socket and the handle it asked for.
    fn adopt(
        &self,
        socket: SOCKET,
        handle: Option<Arc<Handle>>,
        errno: c_int,
    ) -> Result<RawSocket, WsaError> {
        if socket == abi::INVALID_SOCKET {
            return Err(code(errno));
        }
        match handle {
            Some(handle) => Ok(RawSocket {
                socket,
                handle,
                descriptor: AtomicI32::new(-1),
            }),
            None => {
                // Without a handle no completion could ever be reported for it.
                let _ = self.close_number(socket);
                Err(WsaError(abi::WSAEINVALIDPROVIDER))
            }
        }
    }

    fn close_number(&self, socket: SOCKET) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPCloseSocket)?;
        // SAFETY: the table's function; numbers that are no socket are answered with an error.
        status(|errno| unsafe { call(socket, errno) })
    }

    pub(crate) fn close(&self, socket: &RawSocket) -> Result<(), WsaError> {
        self.close_number(socket.socket)
    }

    pub(crate) fn bind(&self, socket: &RawSocket, at: SocketAddr) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPBind)?;
        let at = SockAddr::from(at);
        // SAFETY: the table's function; the address lives during the call and is as long as stated.
        status(|errno| unsafe { call(socket.socket, at.as_ptr().cast(), length(at.len()), errno) })
    }

    pub(crate) fn listen(&self, socket: &RawSocket, backlog: i32) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPListen)?;
        // SAFETY: the table's function, without pointers.
        status(|errno| unsafe { call(socket.socket, backlog, errno) })
    }

    pub(crate) fn event_select(
        &self,
        socket: &RawSocket,
        event: &Event,
        events: i32,
    ) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPEventSelect)?;
        let event = ptr::without_provenance_mut(event.number());
        // SAFETY: the table's function; the event is a number.
        status(|errno| unsafe { call(socket.socket, event, events, errno) })
    }

    /// The events since the last call, with their codes by bit number.
    pub(crate) fn enum_events(
        &self,
        socket: &RawSocket,
        event: &Event,
    ) -> Result<WSANETWORKEVENTS, WsaError> {
        let call = filled(self.slots.lpWSPEnumNetworkEvents)?;
        let event = ptr::without_provenance_mut(event.number());
        let mut events = WSANETWORKEVENTS::default();
        let place = &raw mut events;
        // SAFETY: the table's function; the structure lives during the call.
        status(|errno| unsafe { call(socket.socket, event, place, errno) })?;
        Ok(events)
    }

    pub(crate) fn connect(&self, socket: &RawSocket, to: SocketAddr) -> Result<(), WsaError> {
        let call = filled(self.slots.lpWSPConnect)?;
        let to = SockAddr::from(to);
        let (name, len) = (to.as_ptr().cast(), length(to.len()));
        let (data, qos) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the table's function; the address lives during the call and is as long as stated.
        status(|errno| unsafe { call(socket.socket, name, len, data, data, qos, qos, errno) })
    }

    /// WSPAccept. The condition sees the peer's and the local address and says whether to accept.
    pub(crate) fn accept(
        &self,
        socket: &RawSocket,
        condition: &mut dyn FnMut(Option<SocketAddr>, Option<SocketAddr>) -> bool,
    ) -> Result<(RawSocket, Option<SocketAddr>), WsaError> {
        let call = filled(self.slots.lpWSPAccept)?;
        let mut peer = SockAddr::room();
        let mut len = length(peer.capacity());
        let mut condition = Condition { decide: condition };
        let data = (&raw mut condition).expose_provenance();
        let (name, mut errno) = (peer.as_mut_ptr(), 0);
        let (accepted, handle) = upcalls::created_during(|| {
            // SAFETY: the table's function; address and condition live during the call, and the
            // condition function is called within it only.
            unsafe {
                call(
                    socket.socket,
                    name.cast(),
                    &raw mut len,
                    Some(decide),
                    data,
                    &raw mut errno,
                )
            }
        });
        let accepted = self.adopt(accepted, handle, errno)?;
        Ok((accepted, peer.to_socket_addr()))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(call) = self.slots.lpWSPCleanup {
            let mut errno = 0;
            // SAFETY: the table's function, once for the one WSPStartupEx.
            // req: WSD-22 cleanup balanced
            let result = unsafe { call(&raw mut errno) };
            if result != 0 {
                tracing::warn!(error = %code(errno), "WSPCleanup failed");
            }
        }
    }
}

struct Condition<'a> {
    decide: &'a mut dyn FnMut(Option<SocketAddr>, Option<SocketAddr>) -> bool,
}

/// The condition function of WSPAccept.
unsafe extern "C" fn decide(
    caller: LPWSABUF,
    _: LPWSABUF,
    _: LPQOS,
    _: LPQOS,
    callee: LPWSABUF,
    _: LPWSABUF,
    _: *mut GROUP,
    data: DWORD_PTR,
) -> c_int {
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        let condition = ptr::with_exposed_provenance_mut::<Condition<'_>>(data);
        // SAFETY: `data` is what `accept` passed; it waits in the call that led here.
        let condition = unsafe { &mut *condition };
        // SAFETY: the provider's buffers are null or valid during this call.
        let peer = unsafe { buffer_address(caller) };
        // SAFETY: as above.
        let local = unsafe { buffer_address(callee) };
        (condition.decide)(peer, local)
    }));
    if matches!(verdict, Ok(true)) {
        abi::CF_ACCEPT
    } else {
        abi::CF_REJECT
    }
}

/// # Safety
/// `buffer` is null or valid, with as many readable bytes as it says.
unsafe fn buffer_address(buffer: LPWSABUF) -> Option<SocketAddr> {
    let buffer = NonNull::new(buffer)?;
    // SAFETY: not null, and valid as the caller promised.
    let buffer = unsafe { buffer.read() };
    let bytes = NonNull::new(buffer.buf)?.cast::<u8>();
    let len = usize::try_from(buffer.len).ok()?.min(128);
    // SAFETY: as many bytes as the buffer says, at most.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) };
    address::parse(bytes)
}

fn length(len: usize) -> c_int {
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

fn length32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// What a provider is told of the transport beside it: the host's TCP.
fn tcp_protocol() -> WSAPROTOCOL_INFOW {
    let mut info = WSAPROTOCOL_INFOW {
        dwServiceFlags1: abi::XP1_GUARANTEED_DELIVERY
            | abi::XP1_GUARANTEED_ORDER
            | abi::XP1_GRACEFUL_CLOSE
            | abi::XP1_EXPEDITED_DATA,
        dwCatalogEntryId: 1,
        iVersion: 2,
        iAddressFamily: libc::AF_INET,
        iMaxSockAddr: 28,
        iMinSockAddr: 16,
        iSocketType: libc::SOCK_STREAM,
        iProtocol: libc::IPPROTO_TCP,
        iNetworkByteOrder: abi::BIGENDIAN,
        iSecurityScheme: abi::SECURITY_PROTOCOL_NONE,
        ..WSAPROTOCOL_INFOW::default()
    };
    info.ProtocolChain.ChainLen = abi::BASE_PROTOCOL;
    for (to, from) in info.szProtocol.iter_mut().zip("TCP/IP".encode_utf16()) {
        *to = from;
    }
    info
}
