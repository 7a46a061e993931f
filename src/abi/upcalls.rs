//! The functions that a provider calls in the switch.
//!
//! Slot order is the published one. A SAN provider needs only the socket handle upcalls, the event
//! upcalls and WPUCompleteOverlappedRequest.

use core::ffi::c_int;

use libc::fd_set;

use super::base::{
    BOOL, DWORD, DWORD_PTR, HWND, LPARAM, LPGUID, LPINT, LPWSAOVERLAPPED, LPWSATHREADID, LPWSTR,
    PDWORD_PTR, SOCKET, UINT, WPARAM, WSAEVENT,
};

/// A procedure to run on a chosen thread. SAN sockets use none.
pub type LPWSAUSERAPC = Option<unsafe extern "C" fn(dwContext: DWORD_PTR)>;

/// A blocking hook of Winsock 1.1. SAN sockets use none.
pub type LPBLOCKINGCALLBACK = Option<unsafe extern "C" fn(dwContext: DWORD_PTR) -> BOOL>;

/// Closes an event that WPUCreateEvent made. Returns TRUE, or FALSE.
///
/// Errors: WSA_INVALID_HANDLE.
/// Threads: any.
pub type LPWPUCLOSEEVENT = Option<unsafe extern "C" fn(hEvent: WSAEVENT, lpErrno: LPINT) -> BOOL>;

/// Gives the switch's socket back: the last upcall for that socket. Returns 0, or SOCKET_ERROR.
///
/// Errors: WSAENOTSOCK.
/// Threads: any.
pub type LPWPUCLOSESOCKETHANDLE = Option<unsafe extern "C" fn(s: SOCKET, lpErrno: LPINT) -> c_int>;

/// Makes an event, not signalled, that stays signalled until it is reset. Returns null on failure.
///
/// Errors: WSA_NOT_ENOUGH_MEMORY.
/// Threads: any.
pub type LPWPUCREATEEVENT = Option<unsafe extern "C" fn(lpErrno: LPINT) -> WSAEVENT>;

/// Makes the switch's socket for a new socket of the provider; dwContext is the provider's own
/// number and comes back from WPUQuerySocketHandleContext. Called within WSPSocket and WSPAccept.
/// Returns INVALID_SOCKET on failure.
///
/// Errors: WSAENOBUFS.
/// Threads: the one that is in WSPSocket or WSPAccept.
pub type LPWPUCREATESOCKETHANDLE = Option<
    unsafe extern "C" fn(dwCatalogEntryId: DWORD, dwContext: DWORD_PTR, lpErrno: LPINT) -> SOCKET,
>;

/// Whether a set of descriptors holds a socket. Not used on a SAN.
///
/// Errors: none.
/// Threads: any.
pub type LPWPUFDISSET = Option<unsafe extern "C" fn(s: SOCKET, fdset: *mut fd_set) -> c_int>;

/// The path of a provider. Not used on a SAN.
///
/// Errors: WSAEINVAL, WSAEFAULT.
/// Threads: any.
pub type LPWPUGETPROVIDERPATH = Option<
    unsafe extern "C" fn(
        lpProviderId: LPGUID,
        lpszProviderDllPath: LPWSTR,
        lpProviderDllPathLen: LPINT,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// For providers whose sockets are handles of the operating system. Not used on a SAN.
///
/// Errors: WSAEINVAL.
/// Threads: any.
pub type LPWPUMODIFYIFSHANDLE = Option<
    unsafe extern "C" fn(dwCatalogEntryId: DWORD, ProposedHandle: SOCKET, lpErrno: LPINT) -> SOCKET,
>;

/// Window messages. Not used on a SAN.
///
/// Errors: none.
/// Threads: any.
pub type LPWPUPOSTMESSAGE =
    Option<unsafe extern "C" fn(hWnd: HWND, Msg: UINT, wParam: WPARAM, lParam: LPARAM) -> BOOL>;

/// Blocking hooks of Winsock 1.1. Not used on a SAN.
///
/// Errors: WSAEFAULT.
/// Threads: any.
pub type LPWPUQUERYBLOCKINGCALLBACK = Option<
    unsafe extern "C" fn(
        dwCatalogEntryId: DWORD,
        lplpfnCallback: *mut LPBLOCKINGCALLBACK,
        lpdwContext: PDWORD_PTR,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Returns in *lpContext the number that WPUCreateSocketHandle was given for the switch's socket.
///
/// Errors: WSAENOTSOCK.
/// Threads: any.
pub type LPWPUQUERYSOCKETHANDLECONTEXT =
    Option<unsafe extern "C" fn(s: SOCKET, lpContext: PDWORD_PTR, lpErrno: LPINT) -> c_int>;

/// Runs a procedure on a thread. Not used on a SAN.
///
/// Errors: WSAEINVAL.
/// Threads: any.
pub type LPWPUQUEUEAPC = Option<
    unsafe extern "C" fn(
        lpThreadId: LPWSATHREADID,
        lpfnUserApc: LPWSAUSERAPC,
        dwContext: DWORD_PTR,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Makes an event not signalled. Returns TRUE, or FALSE.
///
/// Errors: WSA_INVALID_HANDLE.
/// Threads: any.
pub type LPWPURESETEVENT = Option<unsafe extern "C" fn(hEvent: WSAEVENT, lpErrno: LPINT) -> BOOL>;

/// Signals an event. Returns TRUE, or FALSE.
///
/// Errors: WSA_INVALID_HANDLE.
/// Threads: any.
pub type LPWPUSETEVENT = Option<unsafe extern "C" fn(hEvent: WSAEVENT, lpErrno: LPINT) -> BOOL>;

/// Obtains an identification of the calling thread. Not used on a SAN.
///
/// Errors: WSAEFAULT.
/// Threads: any.
pub type LPWPUOPENCURRENTTHREAD =
    Option<unsafe extern "C" fn(lpThreadId: LPWSATHREADID, lpErrno: LPINT) -> c_int>;

/// Gives a thread's identification back. Not used on a SAN.
///
/// Errors: WSAEFAULT.
/// Threads: any.
pub type LPWPUCLOSETHREAD =
    Option<unsafe extern "C" fn(lpThreadId: LPWSATHREADID, lpErrno: LPINT) -> c_int>;

/// Reports one completed operation whose hEvent had the lowest bit 0. s is the switch's socket. The
/// switch stores the byte count in InternalHigh and then something other than
/// WSS_OPERATION_IN_PROGRESS in Internal; the provider has set Offset and OffsetHigh before. The
/// switch may call the provider from within. Returns 0, or SOCKET_ERROR.
///
/// Errors: WSAEINVAL (s is not a socket of the switch).
/// Threads: any; the provider holds no lock.
pub type LPWPUCOMPLETEOVERLAPPEDREQUEST = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpOverlapped: LPWSAOVERLAPPED,
        dwError: DWORD,
        cbTransferred: DWORD,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// The switch's functions. The provider copies the table within WSPStartupEx.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSPUPCALLTABLEEX {
    /// Slot 0.
    pub lpWPUCloseEvent: LPWPUCLOSEEVENT,
    /// Slot 1.
    pub lpWPUCloseSocketHandle: LPWPUCLOSESOCKETHANDLE,
    /// Slot 2.
    pub lpWPUCreateEvent: LPWPUCREATEEVENT,
    /// Slot 3.
    pub lpWPUCreateSocketHandle: LPWPUCREATESOCKETHANDLE,
    /// Slot 4.
    pub lpWPUFDIsSet: LPWPUFDISSET,
    /// Slot 5.
    pub lpWPUGetProviderPath: LPWPUGETPROVIDERPATH,
    /// Slot 6.
    pub lpWPUModifyIFSHandle: LPWPUMODIFYIFSHANDLE,
    /// Slot 7.
    pub lpWPUPostMessage: LPWPUPOSTMESSAGE,
    /// Slot 8.
    pub lpWPUQueryBlockingCallback: LPWPUQUERYBLOCKINGCALLBACK,
    /// Slot 9.
    pub lpWPUQuerySocketHandleContext: LPWPUQUERYSOCKETHANDLECONTEXT,
    /// Slot 10.
    pub lpWPUQueueApc: LPWPUQUEUEAPC,
    /// Slot 11.
    pub lpWPUResetEvent: LPWPURESETEVENT,
    /// Slot 12.
    pub lpWPUSetEvent: LPWPUSETEVENT,
    /// Slot 13.
    pub lpWPUOpenCurrentThread: LPWPUOPENCURRENTTHREAD,
    /// Slot 14.
    pub lpWPUCloseThread: LPWPUCLOSETHREAD,
    /// Slot 15.
    pub lpWPUCompleteOverlappedRequest: LPWPUCOMPLETEOVERLAPPEDREQUEST,
}

/// Points to a WSPUPCALLTABLEEX.
pub type LPWSPUPCALLTABLEEX = *mut WSPUPCALLTABLEEX;
