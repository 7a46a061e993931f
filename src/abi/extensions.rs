//! The functions that are fetched one by one, by GUID, through WSPIoctl.
//!
//! Seven are the SAN extensions of the interface; WSPArmCompletion, WSPTakeProgress and
//! WSPMakeProgress are our own additions.

use core::ffi::c_int;

use super::base::{
    DWORD, GUID, HANDLE, LPBOOL, LPDWORD, LPINT, LPVOID, LPWSABUFEX, LPWSAOVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, LPWSATHREADID, PVOID, SIZE_T, SOCKET,
};

/// The GUID of the family that differs only in its first group.
const fn family(data1: u32) -> GUID {
    GUID {
        Data1: data1,
        Data2: 0xF58C,
        Data3: 0x11D1,
        Data4: [0xAD, 0x6C, 0x00, 0xC0, 0x4F, 0xA3, 0x4A, 0x2D],
    }
}

/// Names WSPRegisterMemory.
///
/// cbindgen:ignore
pub const WSAID_REGISTERMEMORY: GUID = family(0xC0B4_22F5);
/// Names WSPDeregisterMemory.
///
/// cbindgen:ignore
pub const WSAID_DEREGISTERMEMORY: GUID = family(0xC0B4_22F6);
/// Names WSPRegisterRdmaMemory.
///
/// cbindgen:ignore
pub const WSAID_REGISTERRDMAMEMORY: GUID = family(0xC0B4_22F7);
/// Names WSPDeregisterRdmaMemory.
///
/// cbindgen:ignore
pub const WSAID_DEREGISTERRDMAMEMORY: GUID = family(0xC0B4_22F8);
/// Names WSPRdmaWrite.
///
/// cbindgen:ignore
pub const WSAID_RDMAWRITE: GUID = family(0xC0B4_22F9);
/// Names WSPRdmaRead.
///
/// cbindgen:ignore
pub const WSAID_RDMAREAD: GUID = family(0xC0B4_22FA);
/// Names WSPMemoryRegistrationCacheCallback.
///
/// cbindgen:ignore
pub const WSAID_MEMORYREGISTRATIONCACHECALLBACK: GUID = GUID {
    Data1: 0xE5DA_4AF8,
    Data2: 0xD824,
    Data3: 0x48CD,
    Data4: [0xA7, 0x99, 0x63, 0x37, 0xA9, 0x8E, 0xD2, 0xAF],
};
/// Names WSPArmCompletion.
///
/// cbindgen:ignore
pub const WSAID_ARMCOMPLETION: GUID = GUID {
    Data1: 0x6B1F_9C52,
    Data2: 0x3D0E,
    Data3: 0x4C7A,
    Data4: [0x9E, 0x57, 0x2A, 0x64, 0xD1, 0xB0, 0x8F, 0x33],
};

/// Names WSPTakeProgress.
///
/// cbindgen:ignore
pub const WSAID_TAKEPROGRESS: GUID = GUID {
    Data1: 0x1D7C_40B9,
    Data2: 0x8E52,
    Data3: 0x4F36,
    Data4: [0xA1, 0xC8, 0x5B, 0x90, 0xE2, 0x7F, 0x63, 0xD4],
};
/// Names WSPMakeProgress.
///
/// cbindgen:ignore
pub const WSAID_MAKEPROGRESS: GUID = GUID {
    Data1: 0x93AE_5F17,
    Data2: 0x06D4,
    Data3: 0x4B8B,
    Data4: [0xB7, 0x2E, 0xC4, 0x1F, 0x8A, 0x3D, 0x59, 0x06],
};

/// Registers memory for local use on one connected socket: as source of WSPSend and WSPRdmaWrite
/// (MEM_READ), as target of WSPRecv and WSPRdmaRead (MEM_WRITE), or both (MEM_READWRITE).
///
/// The memory stays mapped until WSPDeregisterMemory has succeeded or the socket is closed. Returns
/// a handle that means something on this socket only, or null. Registering the same region again
/// may return the same handle; then as many deregistrations are due.
///
/// Errors: WSAENOBUFS, WSAEFAULT (region not wholly in the address space), WSAEINVAL (dwFlags),
/// WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any, at any time.
pub type LPFN_WSPREGISTERMEMORY = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffer: PVOID,
        dwBufferLength: DWORD,
        dwFlags: DWORD,
        lpErrno: LPINT,
    ) -> HANDLE,
>;

/// Takes back one WSPRegisterMemory of the same socket.
///
/// Errors: WSAEINVAL (unknown handle, or a transfer still uses the region), WSAENOTSOCK,
/// WSAENETDOWN.
/// Threads: any, at any time.
pub type LPFN_WSPDEREGISTERMEMORY =
    Option<unsafe extern "C" fn(s: SOCKET, Handle: HANDLE, lpErrno: LPINT) -> c_int>;

/// Lets the peer of this connection, and nobody else, reach memory by WSPRdmaRead (MEM_READ), by
/// WSPRdmaWrite (MEM_WRITE) or by both (MEM_READWRITE).
///
/// Writes into lpRdmaBufferDescriptor the bytes that name the memory; the caller carries them to
/// the peer, whose provider understands them. *lpdwDescriptorLength is the room before and the
/// length after the call. The length is the same for every descriptor of a provider: a call with
/// too little room fails with WSAEFAULT, stores the needed length and registers nothing. The memory
/// stays mapped until WSPDeregisterRdmaMemory has succeeded or the socket is closed.
///
/// Returns 0, or SOCKET_ERROR.
///
/// Errors: WSAEFAULT (room, or region not wholly in the address space), WSAENOBUFS, WSAEINVAL
/// (dwFlags), WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
/// Threads: any, at any time.
pub type LPFN_WSPREGISTERRDMAMEMORY = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffer: PVOID,
        dwBufferLength: DWORD,
        dwFlags: DWORD,
        lpRdmaBufferDescriptor: LPVOID,
        lpdwDescriptorLength: LPDWORD,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Takes back one WSPRegisterRdmaMemory of the same socket. After the last one the peer can no
/// longer reach the memory.
///
/// Errors: WSAEINVAL (no such descriptor, or a transfer still uses the region), WSAENOTSOCK,
/// WSAENETDOWN.
/// Threads: any, at any time.
pub type LPFN_WSPDEREGISTERRDMAMEMORY = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpRdmaBufferDescriptor: LPVOID,
        dwDescriptorLength: DWORD,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Writes local pieces, gathered in order, to dwTargetBufferOffset of the peer's memory that the
/// descriptor names. Completion means that the local pieces may be reused. A WSPSend issued later
/// on the same socket is delivered to the peer after the written data.
///
/// The pieces lie in regions registered on the same socket. They stay untouched, and the overlapped
/// structure stays valid, until completion; the array and the descriptor need to last for the call
/// only.
///
/// Returns 0 (done), or SOCKET_ERROR with WSA_IO_PENDING (started) or an error (not started).
///
/// Errors: WSA_IO_PENDING, WSAEINVAL (pieces, descriptor), WSAEFAULT, WSAEMSGSIZE, WSAENOBUFS,
/// WSAEWOULDBLOCK (too many in progress), WSAENOTCONN, WSAECONNABORTED, WSAECONNRESET,
/// WSAENOTSOCK, WSAENETDOWN.
/// Threads: any, at any time.
pub type LPFN_WSPRDMAWRITE = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUFEX,
        dwBufferCount: DWORD,
        lpTargetBufferDescriptor: LPVOID,
        dwTargetDescriptorLength: DWORD,
        dwTargetBufferOffset: DWORD,
        lpdwNumberOfBytesWritten: LPDWORD,
        dwFlags: DWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Reads from dwTargetBufferOffset of the peer's memory that the descriptor names into local
/// pieces, filled in order. Completion means that the data is there. A WSPSend issued after it on
/// the same socket does not reach the peer before the data was taken. Optional: a provider without
/// it answers the query for its GUID with WSAEOPNOTSUPP. Otherwise as WSPRdmaWrite.
///
/// Errors: as WSPRdmaWrite.
/// Threads: any, at any time.
pub type LPFN_WSPRDMAREAD = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpBuffers: LPWSABUFEX,
        dwBufferCount: DWORD,
        lpTargetBufferDescriptor: LPVOID,
        dwTargetDescriptorLength: DWORD,
        dwTargetBufferOffset: DWORD,
        lpdwNumberOfBytesRead: LPDWORD,
        dwFlags: DWORD,
        lpOverlapped: LPWSAOVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        lpThreadId: LPWSATHREADID,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// Tells a provider that keeps registrations of memory in a cache that the process is about to give
/// the range back to the operating system. Optional: a provider without a cache answers the query
/// for its GUID with WSAEOPNOTSUPP.
///
/// Errors: WSAEFAULT (cached, and could not be released), WSAEINVAL (not cached).
/// Threads: any, at any time.
pub type LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK =
    Option<unsafe extern "C" fn(lpvAddress: LPVOID, Size: SIZE_T, lpErrno: LPINT) -> c_int>;

/// An addition of this provider, not part of the published interface: lets a caller that polls
/// (lowest bit of hEvent 1) sleep until there is something to poll.
///
/// If a completion of the socket can be collected now, *lpfPending is TRUE and nothing is armed.
/// Else *lpfPending is FALSE, and the descriptor stored in *lpDescriptor becomes readable (POLLIN)
/// at the next completion or at the end of the connection. The descriptor is the same for the whole
/// life of the socket and belongs to the provider: wait for it, but do not read or close it. It
/// stays readable until the next WSPArmCompletion. From its first success on the provider itself no
/// longer watches this socket: the caller has taken over waiting, also for the operations that ask
/// for an upcall. Other providers answer the query for its GUID with WSAEINVAL; then start
/// operations with the lowest bit of hEvent 0 and wait for the upcalls.
///
/// Returns 0, or SOCKET_ERROR.
///
/// Errors: WSAEFAULT (null lpDescriptor or lpfPending), WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
/// Threads: one at a time for one socket.
pub type LPFN_WSPARMCOMPLETION = Option<
    unsafe extern "C" fn(
        s: SOCKET,
        lpDescriptor: LPINT,
        lpfPending: LPBOOL,
        lpErrno: LPINT,
    ) -> c_int,
>;

/// An addition of this provider, not part of the published interface: the caller makes the
/// provider's progress from now on, by WSPMakeProgress, and the provider starts no thread for it.
///
/// *lpDescriptor becomes a descriptor that is readable (POLLIN) while WSPMakeProgress has something
/// to do, and when it is over, until WSPMakeProgress has said so, whoever has taken over since. It
/// belongs to the caller, who closes it then, and not before. The promise is given for all sockets of the process, also those of others that have
/// started the provider; it ends with the last WSPCleanup, and cannot be taken back before. Other providers
/// answer the query for its GUID with WSAEINVAL; they make progress themselves.
///
/// Returns 0, or SOCKET_ERROR.
///
/// Errors: WSAEALREADY (somebody else has taken it over, or the provider's thread runs: it does from
/// the first WSPListen or WSPConnect on), WSAEFAULT, WSAENOBUFS, WSANOTINITIALISED.
/// Threads: any, at any time.
pub type LPFN_WSPTAKEPROGRESS =
    Option<unsafe extern "C" fn(lpDescriptor: LPINT, lpErrno: LPINT) -> c_int>;

/// An addition of this provider: does what there is to do, without waiting: connects, connections
/// that ask to be accepted, ends of connections, completions of sockets that nobody has armed.
///
/// Descriptor is the number that WSPTakeProgress has given; it says who asks. To be called when it is
/// readable, and after *lpdwMilliseconds at the
/// latest; 0: at once, WSA_INFINITE: only when it is readable. Makes upcalls, which may call
/// everything else. The thread must not wait for what only a further call brings about.
///
/// Returns 0, or SOCKET_ERROR.
///
/// Errors: WSANOTINITIALISED, WSAEINVAL (not what WSPTakeProgress has given since the provider was
/// started: it is over), WSAEINPROGRESS (a call is under way, on another thread or further up on this
/// one: to be called again a little later), WSAEFAULT.
/// Threads: one at a time.
pub type LPFN_WSPMAKEPROGRESS = Option<
    unsafe extern "C" fn(Descriptor: c_int, lpdwMilliseconds: LPDWORD, lpErrno: LPINT) -> c_int,
>;
