//! The dispatch table: the 30 functions of a provider and WSPStartupEx, which hands it out.
//!
//! Slot order is the published one (`GetSockOpt` stands before `GetQOSByName`). A SAN provider
//! serves 17 of the slots; ours fills the other 13 with functions that answer WSAEOPNOTSUPP.
//!
//! Common to all: functions of type int return 0, or SOCKET_ERROR and the code in *lpErrno. Every
//! function may be called from every thread at any time, also from within an upcall. A socket that
//! was closed, or never was one, is answered with WSAENOTSOCK; WSANOTINITIALISED without
//! WSPStartupEx.

use core::ffi::{c_char, c_int};

use libc::{fd_set, sockaddr, timeval};

use super::base::{
    BOOL, DWORD, DWORD_PTR, GROUP, HWND, LONG, LPDWORD, LPINT, LPVOID, LPWSABUF,
    LPWSANETWORKEVENTS, LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, LPWSTR,
    SOCKET, UINT, WORD, WSAEVENT,
};
use super::info::{LPQOS, LPWSAPROTOCOL_INFOW, LPWSPDATA};
use super::upcalls::LPWSPUPCALLTABLEEX;

/// Decides whether to accept a connection request; called within WSPAccept, on its thread.
/// lpCallerId holds the peer's socket address and lpCalleeId the local one; both last for the call
/// only. Everything else is null. Returns CF_ACCEPT or CF_REJECT.
///
/// Threads: the one that is in WSPAccept.
pub type LPCONDITIONPROC = Option<
    unsafe extern "C" fn(
        lpCallerId: LPWSABUF,
        lpCallerData: LPWSABUF,
        lpSQOS: LPQOS,
        lpGQOS: LPQOS,
        lpCalleeId: LPWSABUF,
        lpCalleeData: LPWSABUF,
        g: *mut GROUP,
        dwCallbackData: DWORD_PTR,
    ) -> c_int,
>;

/// WSPAccept: Accepts the oldest connection request of a listening socket. Never waits.
///
/// The condition function, if given, is called on the calling thread before the peer is told
/// anything. addr (may be null) receives the peer's address; *addrlen is the room before and the
/// length after the call. The switch's socket for the new one is made by WPUCreateSocketHandle
/// before the return. If more requests wait, the event is signalled again. Returns the new,
/// connected socket, or INVALID_SOCKET.
///
/// Errors: WSAEWOULDBLOCK (no request), WSAECONNREFUSED (CF_REJECT), WSATRY_AGAIN (CF_DEFER),
/// WSAECONNRESET (the peer gave up), WSAEFAULT (addrlen too small), WSAEINVAL (not listening, or an
/// illegal result of the condition function), WSAENOBUFS, WSAEMFILE, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPACCEPT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        addr: *mut sockaddr,
        addrlen: LPINT,
        lpfnCondition: LPCONDITIONPROC,
        dwCallbackData: DWORD_PTR,
        lpErrno: LPINT,
    ) -> SOCKET,
>;

/// WSPAddressToString: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPADDRESSTOSTRING = Option<
    unsafe extern "C" fn(
        lpsaAddress: *mut sockaddr,
        dwAddressLength: DWORD,
        lpProtocolInfo: LPWSAPROTOCOL_INFOW,
        lpszAddressString: LPWSTR,
        lpdwAddressStringLength: LPDWORD,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPAsyncSelect: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPASYNCSELECT = Option<
    unsafe extern "C" fn(s: SOCKET, hWnd: HWND, wMsg: UINT, lEvent: LONG, lpErrno: LPINT) -> c_int,
>;

/// WSPBind: Gives a socket its local address and port: the same as those of the TCP socket that it
/// accompanies. A wildcard address is for listening.
///
/// Errors: WSAEADDRNOTAVAIL, WSAEFAULT (name or namelen), WSAEINVAL (already bound), WSAENOBUFS,
/// WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPBIND = Option<
    unsafe extern "C" fn(s: SOCKET, name: *const sockaddr, namelen: c_int, lpErrno: LPINT) -> c_int,
>;

/// WSPCancelBlockingCall: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPCANCELBLOCKINGCALL = Option<unsafe extern "C" fn(lpErrno: LPINT) -> c_int>;

/// WSPCleanup: Takes back one WSPStartupEx. The last one closes every socket that is still open and
/// ends the threads of the provider.
///
/// Errors: WSANOTINITIALISED, WSAENETDOWN.
/// Threads: any but one that is in an upcall.
pub type LPWSPCLEANUP = Option<unsafe extern "C" fn(lpErrno: LPINT) -> c_int>;

/// WSPCloseSocket: Closes a socket at once. Every operation in progress completes with
/// WSA_OPERATION_ABORTED (the peer's with WSAECONNRESET), an attempt to connect ends, registrations
/// are released, and the last upcall for the socket is WPUCloseSocketHandle. Memory of a pending
/// operation may be reused when its completion was seen.
///
/// Errors: WSAENOTSOCK, WSAENETDOWN.
/// Threads: any, also within an upcall.
pub type LPWSPCLOSESOCKET = Option<unsafe extern "C" fn(s: SOCKET, lpErrno: LPINT) -> c_int>;

/// WSPConnect: Begins to connect a bound socket; the outcome is recorded as FD_CONNECT.
/// lpCallerData, lpCalleeData, lpSQOS and lpGQOS are null.
///
/// Errors: WSAEWOULDBLOCK (goes on in the background: the normal case). These three say that TCP
/// would fail too: WSAECONNRESET (nobody listens), WSAECONNREFUSED, WSAEHOSTUNREACH. Others permit
/// to try TCP: WSAETIMEDOUT, WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT, WSAEALREADY, WSAEISCONN, WSAEINVAL,
/// WSAEFAULT, WSAEOPNOTSUPP, WSAEPROTONOSUPPORT, WSAENOBUFS, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPCONNECT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        name: *const sockaddr,
        namelen: c_int,
        lpCallerData: LPWSABUF,
        lpCalleeData: LPWSABUF,
        lpSQOS: LPQOS,
        lpGQOS: LPQOS,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPDuplicateSocket: Hands a socket over to another process: stores a token in
/// dwProviderReserved, which WSPSocket takes there.
///
/// Errors: WSAEOPNOTSUPP (this provider does not hand over yet), WSAEINVAL, WSAENOTCONN, WSAEMFILE,
/// WSAENOBUFS, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPDUPLICATESOCKET = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        dwProcessId: DWORD,
        lpProtocolInfo: LPWSAPROTOCOL_INFOW,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPEnumNetworkEvents: Takes out what happened since the last call and resets the event (null:
/// none). Only the error codes whose bit is set are written.
///
/// Errors: WSAEINVAL (null lpNetworkEvents), WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPENUMNETWORKEVENTS = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        hEventObject: WSAEVENT,
        lpNetworkEvents: LPWSANETWORKEVENTS,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPEventSelect: Names the event to signal when one of the events in the mask (FD_ACCEPT,
/// FD_CONNECT) happens; replaces what was named before. Mask 0 names none. An event that is already
/// recorded is signalled at once.
///
/// Errors: WSAEINVAL (other bits, or no event), WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPEVENTSELECT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        hEventObject: WSAEVENT,
        lNetworkEvents: LONG,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPGetOverlappedResult: Asks how an operation stands, and makes progress. TRUE: done;
/// *lpcbTransfer and *lpdwFlags are set. FALSE: in progress (WSA_IO_INCOMPLETE), or failed with the
/// code of the operation. fWait waits for the completion. Operations complete whichever way hEvent
/// chose, and can be asked for either way.
///
/// Errors: WSA_IO_INCOMPLETE, the operation's own, WSAEINVAL, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPGETOVERLAPPEDRESULT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpOverlapped: LPWSAOVERLAPPED,
        lpcbTransfer: LPDWORD,
        fWait: BOOL,
        lpdwFlags: LPDWORD,
        lpErrno: LPINT,
    ) -> BOOL,
>;

/// WSPGetPeerName: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPGETPEERNAME = Option<
    unsafe extern "C" fn(s: SOCKET, name: *mut sockaddr, namelen: LPINT, lpErrno: LPINT) -> c_int,
>;

/// WSPGetSockName: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPGETSOCKNAME = Option<
    unsafe extern "C" fn(s: SOCKET, name: *mut sockaddr, namelen: LPINT, lpErrno: LPINT) -> c_int,
>;

/// WSPGetSockOpt: Reads an option: level WSD_SOL_SOCKET; SO_MAX_MSG_SIZE, SO_MAX_RDMA_SIZE,
/// SO_RDMA_THRESHOLD_SIZE (unsigned 32 bits), WSD_SO_DEBUG (BOOL). *optlen is the room before and
/// the length after the call; it is set to the needed length also when the room is too small.
///
/// Errors: WSAEFAULT (pointers, room), WSAEINVAL (level), WSAENOPROTOOPT, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPGETSOCKOPT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        level: c_int,
        optname: c_int,
        optval: *mut c_char,
        optlen: LPINT,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPGetQOSByName: Quality of service by name. This provider has none and returns FALSE.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPGETQOSBYNAME = Option<
    unsafe extern "C" fn(s: SOCKET, lpQOSName: LPWSABUF, lpQOS: LPQOS, lpErrno: LPINT) -> BOOL,
>;

/// WSPIoctl: Control codes. SIO_GET_EXTENSION_FUNCTION_POINTER: in a GUID, out the function that it
/// names; s may be INVALID_SOCKET. SIO_ADDRESS_LIST_QUERY: out a SOCKET_ADDRESS_LIST and behind it,
/// in the same buffer, its addresses; with too little room *lpcbBytesReturned is the needed size.
///
/// Errors: WSAEFAULT (pointers, room), WSAEINVAL (code, unknown GUID), WSAEOPNOTSUPP (an optional
/// function that is absent), WSAENOPROTOOPT (quality of service), WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPIOCTL = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        dwIoControlCode: DWORD,
        lpvInBuffer: LPVOID,
        cbInBuffer: DWORD,
        lpvOutBuffer: LPVOID,
        cbOutBuffer: DWORD,
        lpcbBytesReturned: LPDWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPJoinLeaf: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPJOINLEAF = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        name: *const sockaddr,
        namelen: c_int,
        lpCallerData: LPWSABUF,
        lpCalleeData: LPWSABUF,
        lpSQOS: LPQOS,
        lpGQOS: LPQOS,
        dwFlags: DWORD,
        lpErrno: LPINT,
    ) -> SOCKET,
>;

/// WSPListen: Lets a bound socket take connection requests; each is recorded as FD_ACCEPT. When
/// backlog requests wait, further ones are refused: the peer sees WSAECONNREFUSED. WSD_SOMAXCONN
/// lets the provider choose. Called again, it changes the backlog.
///
/// Errors: WSAEINVAL (not bound), WSAEISCONN, WSAENOBUFS, WSAEMFILE, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPLISTEN =
    Option<unsafe extern "C" fn(s: SOCKET, backlog: c_int, lpErrno: LPINT) -> c_int>;

/// WSPRecv: Posts memory for one message. Receives are filled in posting order, one message each.
/// The memory lies in regions that were registered with MEM_WRITE or MEM_READWRITE on this socket;
/// it and the overlapped structure belong to the provider until completion. A message larger than
/// the memory completes with WSAEMSGSIZE and ends the connection.
///
/// Errors: WSA_IO_PENDING (posted: the normal case), WSAEFAULT (no such registration), WSAEINVAL
/// (pieces, overlapped structure), WSAENOTCONN, WSAEWOULDBLOCK (too many posted), WSAECONNRESET,
/// WSAECONNABORTED, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPRECV = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUF,
        dwBufferCount: DWORD,
        lpNumberOfBytesRecvd: LPDWORD,
        lpFlags: LPDWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPRecvDisconnect: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPRECVDISCONNECT = Option<
    unsafe extern "C" fn(s: SOCKET, lpInboundDisconnectData: LPWSABUF, lpErrno: LPINT) -> c_int,
>;

/// WSPRecvFrom: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPRECVFROM = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUF,
        dwBufferCount: DWORD,
        lpNumberOfBytesRecvd: LPDWORD,
        lpFlags: LPDWORD,
        lpFrom: *mut sockaddr,
        lpFromlen: LPINT,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPSelect: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPSELECT = Option<
    unsafe extern "C" fn(
        nfds: c_int,
        readfds: *mut fd_set,
        writefds: *mut fd_set,
        exceptfds: *mut fd_set,
        timeout: *const timeval,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPSend: Sends one message, gathered from pieces in registered memory of this socket. dwFlags is
/// 0. Messages arrive in the order of the calls. Memory and overlapped structure belong to the
/// provider until completion, which says that the memory may be reused, not that the peer has the
/// message. The array needs to last for the call only.
///
/// Errors: WSA_IO_PENDING (started), WSAEMSGSIZE (larger than SO_MAX_MSG_SIZE), WSAEFAULT (no such
/// registration), WSAEINVAL (flags, pieces, overlapped structure), WSAENOTCONN, WSAEWOULDBLOCK (too
/// many in progress), WSAECONNRESET, WSAECONNABORTED, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPSEND = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUF,
        dwBufferCount: DWORD,
        lpNumberOfBytesSent: LPDWORD,
        dwFlags: DWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPSendDisconnect: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPSENDDISCONNECT = Option<
    unsafe extern "C" fn(s: SOCKET, lpOutboundDisconnectData: LPWSABUF, lpErrno: LPINT) -> c_int,
>;

/// WSPSendTo: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPSENDTO = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUF,
        dwBufferCount: DWORD,
        lpNumberOfBytesSent: LPDWORD,
        dwFlags: DWORD,
        lpTo: *const sockaddr,
        iTolen: c_int,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPSetSockOpt: Sets an option: WSD_SO_DEBUG (BOOL) at level WSD_SOL_SOCKET.
///
/// Errors: WSAEFAULT, WSAEINVAL (level, value), WSAENOPROTOOPT, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any.
pub type LPWSPSETSOCKOPT = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        level: c_int,
        optname: c_int,
        optval: *const c_char,
        optlen: c_int,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// WSPShutdown: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPSHUTDOWN =
    Option<unsafe extern "C" fn(s: SOCKET, how: c_int, lpErrno: LPINT) -> c_int>;

/// WSPSocket: Makes a socket: AF_INET or AF_INET6, SOCK_STREAM, IPPROTO_TCP, g 0, dwFlags
/// WSA_FLAG_OVERLAPPED; FROM_PROTOCOL_INFO takes a value from lpProtocolInfo. Calls
/// WPUCreateSocketHandle once before it returns. Returns INVALID_SOCKET on failure.
///
/// Errors: WSAEAFNOSUPPORT, WSAEPROTOTYPE, WSAEPROTONOSUPPORT, WSAESOCKTNOSUPPORT, WSAEINVAL (g,
/// dwFlags, token), WSAEMFILE, WSAENOBUFS, WSAENETDOWN, WSANOTINITIALISED.
/// Threads: any.
pub type LPWSPSOCKET = Option<
    unsafe extern "C" fn(
        af: c_int,
        type_: c_int,
        protocol: c_int,
        lpProtocolInfo: LPWSAPROTOCOL_INFOW,
        g: GROUP,
        dwFlags: DWORD,
        lpErrno: LPINT,
    ) -> SOCKET,
>;

/// WSPStringToAddress: Not served on a SAN.
///
/// Errors: WSAEOPNOTSUPP.
/// Threads: any.
pub type LPWSPSTRINGTOADDRESS = Option<
    unsafe extern "C" fn(
        AddressString: LPWSTR,
        AddressFamily: c_int,
        lpProtocolInfo: LPWSAPROTOCOL_INFOW,
        lpAddress: *mut sockaddr,
        lpAddressLength: LPINT,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// The functions of a provider.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSPPROC_TABLE {
    /// Slot 0.
    pub lpWSPAccept: LPWSPACCEPT,
    /// Slot 1; not served on a SAN.
    pub lpWSPAddressToString: LPWSPADDRESSTOSTRING,
    /// Slot 2; not served on a SAN.
    pub lpWSPAsyncSelect: LPWSPASYNCSELECT,
    /// Slot 3.
    pub lpWSPBind: LPWSPBIND,
    /// Slot 4; not served on a SAN.
    pub lpWSPCancelBlockingCall: LPWSPCANCELBLOCKINGCALL,
    /// Slot 5.
    pub lpWSPCleanup: LPWSPCLEANUP,
    /// Slot 6.
    pub lpWSPCloseSocket: LPWSPCLOSESOCKET,
    /// Slot 7.
    pub lpWSPConnect: LPWSPCONNECT,
    /// Slot 8.
    pub lpWSPDuplicateSocket: LPWSPDUPLICATESOCKET,
    /// Slot 9.
    pub lpWSPEnumNetworkEvents: LPWSPENUMNETWORKEVENTS,
    /// Slot 10.
    pub lpWSPEventSelect: LPWSPEVENTSELECT,
    /// Slot 11.
    pub lpWSPGetOverlappedResult: LPWSPGETOVERLAPPEDRESULT,
    /// Slot 12; not served on a SAN.
    pub lpWSPGetPeerName: LPWSPGETPEERNAME,
    /// Slot 13; not served on a SAN.
    pub lpWSPGetSockName: LPWSPGETSOCKNAME,
    /// Slot 14.
    pub lpWSPGetSockOpt: LPWSPGETSOCKOPT,
    /// Slot 15.
    pub lpWSPGetQOSByName: LPWSPGETQOSBYNAME,
    /// Slot 16.
    pub lpWSPIoctl: LPWSPIOCTL,
    /// Slot 17; not served on a SAN.
    pub lpWSPJoinLeaf: LPWSPJOINLEAF,
    /// Slot 18.
    pub lpWSPListen: LPWSPLISTEN,
    /// Slot 19.
    pub lpWSPRecv: LPWSPRECV,
    /// Slot 20; not served on a SAN.
    pub lpWSPRecvDisconnect: LPWSPRECVDISCONNECT,
    /// Slot 21; not served on a SAN.
    pub lpWSPRecvFrom: LPWSPRECVFROM,
    /// Slot 22; not served on a SAN.
    pub lpWSPSelect: LPWSPSELECT,
    /// Slot 23.
    pub lpWSPSend: LPWSPSEND,
    /// Slot 24; not served on a SAN.
    pub lpWSPSendDisconnect: LPWSPSENDDISCONNECT,
    /// Slot 25; not served on a SAN.
    pub lpWSPSendTo: LPWSPSENDTO,
    /// Slot 26.
    pub lpWSPSetSockOpt: LPWSPSETSOCKOPT,
    /// Slot 27; not served on a SAN.
    pub lpWSPShutdown: LPWSPSHUTDOWN,
    /// Slot 28.
    pub lpWSPSocket: LPWSPSOCKET,
    /// Slot 29; not served on a SAN.
    pub lpWSPStringToAddress: LPWSPSTRINGTOADDRESS,
}

/// Points to a WSPPROC_TABLE.
pub type LPWSPPROC_TABLE = *mut WSPPROC_TABLE;

/// The type of WSPStartupEx, for callers that look it up by name.
pub type LPWSPSTARTUPEX = Option<
    unsafe extern "C" fn(
        wVersionRequested: WORD,
        lpWSPData: LPWSPDATA,
        lpProtocolInfo: LPWSAPROTOCOL_INFOW,
        lpUpcallTable: LPWSPUPCALLTABLEEX,
        lpProcTable: LPWSPPROC_TABLE,
    ) -> c_int,
>;
