//! The plain types: integers of the interface, handles, buffers, the overlapped structure.
//!
//! `DWORD` and Windows' `long` are 32 bits wide and `WCHAR` 16, on every host. Socket addresses are
//! the host's own (`struct sockaddr_in`, `struct sockaddr_in6`, the host's `AF_INET6`).

use core::ffi::{c_char, c_int, c_void};

/// A socket of a provider, or the switch's own socket in the upcalls. The two are different numbers
/// for the same socket and are never mixed: the provider's goes into its functions, the switch's
/// into the upcalls. Opaque; INVALID_SOCKET is no socket.
pub type SOCKET = usize;

/// An opaque handle; null is none. WSPRegisterMemory returns one.
pub type HANDLE = *mut c_void;

/// An event object. On this platform it is an eventfd: the handle holds the number of its
/// descriptor plus one, so that null stays "no event". The owner makes the eventfd (nonblocking,
/// initial value 0) and closes it; setting the event adds to it and resetting reads it empty.
pub type WSAEVENT = HANDLE;

/// A pointer to anything, in or out.
pub type PVOID = *mut c_void;

/// A pointer to anything, in or out.
pub type LPVOID = *mut c_void;

/// Unsigned, 32 bits.
pub type DWORD = u32;

/// Unsigned, 32 bits.
pub type ULONG = u32;

/// Signed, 32 bits: what the interface calls long.
pub type LONG = i32;

/// Unsigned, 32 bits.
pub type UINT = u32;

/// Unsigned, 16 bits.
pub type WORD = u16;

/// One UTF-16 code unit. Not wchar_t, which has 32 bits here.
pub type WCHAR = u16;

/// A string of UTF-16 code units that ends with 0.
pub type LPWSTR = *mut WCHAR;

/// 0 is false, everything else true.
pub type BOOL = i32;

/// Unsigned, as wide as a pointer.
pub type DWORD_PTR = usize;

/// Unsigned, as wide as a pointer.
pub type ULONG_PTR = usize;

/// Unsigned, as wide as a pointer: a length in memory.
pub type SIZE_T = usize;

/// Unsigned, as wide as a pointer. Occurs in WPUPostMessage only.
pub type WPARAM = usize;

/// Signed, as wide as a pointer. Occurs in WPUPostMessage only.
pub type LPARAM = isize;

/// A window. Occurs only in functions that a SAN provider does not serve.
pub type HWND = *mut c_void;

/// A socket group. Reserved: 0.
pub type GROUP = u32;

/// Where a function writes its error code. Always the last parameter. May be null, then the code
/// is lost. Written on failure only.
pub type LPINT = *mut c_int;

/// Points to a BOOL.
pub type LPBOOL = *mut BOOL;

/// Points to a DWORD.
pub type LPDWORD = *mut DWORD;

/// Points to an integer as wide as a pointer.
pub type PDWORD_PTR = *mut DWORD_PTR;

/// Names an extension function or a provider.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GUID {
    /// First group; in the byte order of the host.
    pub Data1: u32,
    /// Second group.
    pub Data2: u16,
    /// Third group.
    pub Data3: u16,
    /// The last two groups, byte by byte.
    pub Data4: [u8; 8],
}

/// Points to a GUID.
pub type LPGUID = *mut GUID;

/// A piece of memory. In WSPSend and WSPRecv it lies in a region that was registered with
/// WSPRegisterMemory on the same socket; the provider finds the region by the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSABUF {
    /// Length in bytes.
    pub len: u32,
    /// First byte.
    pub buf: *mut c_char,
}

/// Points to one WSABUF or to the first of several.
pub type LPWSABUF = *mut WSABUF;

/// A piece of registered memory, for WSPRdmaRead and WSPRdmaWrite.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSABUFEX {
    /// Length in bytes.
    pub len: u32,
    /// First byte.
    pub buf: *mut c_char,
    /// What WSPRegisterMemory returned for the region that holds the piece.
    pub handle: HANDLE,
}

/// Points to one WSABUFEX or to the first of several.
pub type LPWSABUFEX = *mut WSABUFEX;

/// One operation in progress.
///
/// The caller owns the memory and keeps it valid and in place until the operation has completed. It
/// sets hEvent before the call; everything else belongs to the provider until completion.
///
/// hEvent is not an event here. Its lowest bit says how the caller wants to hear of the completion:
/// 1: the caller polls WSPGetOverlappedResult and no upcall is made; 0: the provider calls
/// WPUCompleteOverlappedRequest exactly once. The bit is read when the operation is started. A
/// pointer kept in hEvent must therefore be even, or have the bit set on purpose.
///
/// With bit 1, Internal is stored last, with release ordering: a caller that loads it with acquire
/// ordering and finds something other than WSS_OPERATION_IN_PROGRESS may read the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSAOVERLAPPED {
    /// WSS_OPERATION_IN_PROGRESS while the operation is in progress.
    pub Internal: ULONG_PTR,
    /// How many bytes were moved.
    pub InternalHigh: ULONG_PTR,
    /// The flags of the completed operation.
    pub Offset: DWORD,
    /// The error code of the completed operation; 0 is success.
    pub OffsetHigh: DWORD,
    /// Lowest bit: 1 the caller polls, 0 the provider makes an upcall.
    pub hEvent: HANDLE,
}

/// Points to a WSAOVERLAPPED.
pub type LPWSAOVERLAPPED = *mut WSAOVERLAPPED;

/// A completion routine. On a SAN socket always null: completions are polled or reported through
/// WPUCompleteOverlappedRequest.
pub type LPWSAOVERLAPPED_COMPLETION_ROUTINE = Option<
    unsafe extern "C" fn(
        dwError: DWORD,
        cbTransferred: DWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        dwFlags: DWORD,
    ),
>;

/// What happened to a socket since it was last asked: WSPEnumNetworkEvents.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WSANETWORKEVENTS {
    /// FD_ACCEPT, FD_CONNECT.
    pub lNetworkEvents: LONG,
    /// Error codes by bit number: FD_ACCEPT_BIT, FD_CONNECT_BIT. Only those whose bit is set count.
    pub iErrorCode: [c_int; FD_MAX_EVENTS as usize],
}

/// How many kinds of network events there are.
pub const FD_MAX_EVENTS: c_int = 10;

/// Points to a WSANETWORKEVENTS.
pub type LPWSANETWORKEVENTS = *mut WSANETWORKEVENTS;

/// A thread, for asynchronous procedure calls; SAN sockets use none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WSATHREADID {
    /// The thread.
    pub ThreadHandle: HANDLE,
    /// Reserved.
    pub Reserved: DWORD_PTR,
}

/// Points to a WSATHREADID.
pub type LPWSATHREADID = *mut WSATHREADID;
