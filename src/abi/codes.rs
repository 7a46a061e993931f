//! The numbers: results, error codes, events, options, control codes, flags.
//!
//! Values are Windows'. Names that the host's own headers define otherwise carry the prefix `WSD_`.
//! The types are spelled out because cbindgen drops a constant whose type is an alias; those that it
//! cannot express stand in `cbindgen.toml`.

use core::ffi::c_int;

use super::base::{BOOL, SOCKET, WSAEVENT};

/// True.
///
/// cbindgen:ignore
pub const TRUE: BOOL = 1;
/// False.
///
/// cbindgen:ignore
pub const FALSE: BOOL = 0;
/// No socket.
///
/// cbindgen:ignore
pub const INVALID_SOCKET: SOCKET = !0;
/// What functions return that failed.
///
/// cbindgen:ignore
pub const SOCKET_ERROR: c_int = -1;
/// No event.
///
/// cbindgen:ignore
pub const WSA_INVALID_EVENT: WSAEVENT = core::ptr::null_mut();
/// For a time: never.
pub const WSA_INFINITE: u32 = 0xFFFF_FFFF;
/// The version of the interface: 2.2.
pub const WSP_VERSION: u16 = 0x0202;
/// In WSAOVERLAPPED.Internal: not completed.
pub const WSS_OPERATION_IN_PROGRESS: usize = 0x0000_0103;

// Error codes.
/// Not a handle.
pub const WSA_INVALID_HANDLE: c_int = 6;
/// No memory.
pub const WSA_NOT_ENOUGH_MEMORY: c_int = 8;
/// A parameter is wrong.
pub const WSA_INVALID_PARAMETER: c_int = 87;
/// The socket was closed while the operation was in progress.
pub const WSA_OPERATION_ABORTED: c_int = 995;
/// The operation is still in progress.
pub const WSA_IO_INCOMPLETE: c_int = 996;
/// The operation was started; its completion follows.
pub const WSA_IO_PENDING: c_int = 997;
/// Interrupted. Not used on a SAN.
pub const WSAEINTR: c_int = 10_004;
/// Not a descriptor.
pub const WSAEBADF: c_int = 10_009;
/// Not permitted.
pub const WSAEACCES: c_int = 10_013;
/// A pointer is bad, or a buffer too small.
pub const WSAEFAULT: c_int = 10_014;
/// A parameter, or the state of the socket, does not fit.
pub const WSAEINVAL: c_int = 10_022;
/// No more descriptors.
pub const WSAEMFILE: c_int = 10_024;
/// Would have to wait, or goes on in the background.
pub const WSAEWOULDBLOCK: c_int = 10_035;
/// A blocking call is in progress. Not used on a SAN.
pub const WSAEINPROGRESS: c_int = 10_036;
/// A connect is already in progress.
pub const WSAEALREADY: c_int = 10_037;
/// Not a socket, or no longer one.
pub const WSAENOTSOCK: c_int = 10_038;
/// An address is missing.
pub const WSAEDESTADDRREQ: c_int = 10_039;
/// The message is too large.
pub const WSAEMSGSIZE: c_int = 10_040;
/// The protocol is of another type.
pub const WSAEPROTOTYPE: c_int = 10_041;
/// No such option.
pub const WSAENOPROTOOPT: c_int = 10_042;
/// The protocol is not served.
pub const WSAEPROTONOSUPPORT: c_int = 10_043;
/// The socket type is not served.
pub const WSAESOCKTNOSUPPORT: c_int = 10_044;
/// The operation is not served.
pub const WSAEOPNOTSUPP: c_int = 10_045;
/// The protocol family is not served.
pub const WSAEPFNOSUPPORT: c_int = 10_046;
/// The address family is not served.
pub const WSAEAFNOSUPPORT: c_int = 10_047;
/// The address is in use.
pub const WSAEADDRINUSE: c_int = 10_048;
/// The address is not one of this host's.
pub const WSAEADDRNOTAVAIL: c_int = 10_049;
/// The SAN subsystem has failed.
pub const WSAENETDOWN: c_int = 10_050;
/// The network cannot be reached.
pub const WSAENETUNREACH: c_int = 10_051;
/// The connection broke.
pub const WSAENETRESET: c_int = 10_052;
/// The connection was aborted on this side.
pub const WSAECONNABORTED: c_int = 10_053;
/// The peer ended the connection; of a connect: nobody listens there.
pub const WSAECONNRESET: c_int = 10_054;
/// No memory or other resources.
pub const WSAENOBUFS: c_int = 10_055;
/// The socket is connected.
pub const WSAEISCONN: c_int = 10_056;
/// The socket is not connected.
pub const WSAENOTCONN: c_int = 10_057;
/// The socket is shut down.
pub const WSAESHUTDOWN: c_int = 10_058;
/// No answer in time.
pub const WSAETIMEDOUT: c_int = 10_060;
/// The peer refused.
pub const WSAECONNREFUSED: c_int = 10_061;
/// The host is down.
pub const WSAEHOSTDOWN: c_int = 10_064;
/// There is no such host.
pub const WSAEHOSTUNREACH: c_int = 10_065;
/// Too many processes use the provider.
pub const WSAEPROCLIM: c_int = 10_067;
/// The SAN subsystem is not ready.
pub const WSASYSNOTREADY: c_int = 10_091;
/// The version is not served.
pub const WSAVERNOTSUPPORTED: c_int = 10_092;
/// WSPStartupEx is missing.
pub const WSANOTINITIALISED: c_int = 10_093;
/// The peer has shut the connection down.
pub const WSAEDISCON: c_int = 10_101;
/// Cancelled.
pub const WSAECANCELLED: c_int = 10_103;
/// The provider's table is not valid.
pub const WSAEINVALIDPROCTABLE: c_int = 10_104;
/// The provider's version is not valid.
pub const WSAEINVALIDPROVIDER: c_int = 10_105;
/// The provider could not be started.
pub const WSAEPROVIDERFAILEDINIT: c_int = 10_106;
/// A system call failed.
pub const WSASYSCALLFAILURE: c_int = 10_107;
/// Try again later.
pub const WSATRY_AGAIN: c_int = 11_002;
/// Cannot be mended.
pub const WSANO_RECOVERY: c_int = 11_003;

// Network events.
/// Data can be read. Not on a SAN.
pub const FD_READ: i32 = 0x01;
/// Data can be written. Not on a SAN.
pub const FD_WRITE: i32 = 0x02;
/// Urgent data. Not on a SAN.
pub const FD_OOB: i32 = 0x04;
/// A connection request waits.
pub const FD_ACCEPT: i32 = 0x08;
/// A connect has ended; its error code is in slot FD_CONNECT_BIT.
pub const FD_CONNECT: i32 = 0x10;
/// The connection has ended. Not on a SAN.
pub const FD_CLOSE: i32 = 0x20;
/// Quality of service changed. Not on a SAN.
pub const FD_QOS: i32 = 0x40;
/// Reserved.
pub const FD_GROUP_QOS: i32 = 0x80;
/// Routing changed. Not on a SAN.
pub const FD_ROUTING_INTERFACE_CHANGE: i32 = 0x100;
/// The local addresses changed. Not on a SAN.
pub const FD_ADDRESS_LIST_CHANGE: i32 = 0x200;
/// Number of the bit FD_ACCEPT.
pub const FD_ACCEPT_BIT: c_int = 3;
/// Number of the bit FD_CONNECT.
pub const FD_CONNECT_BIT: c_int = 4;

// What a condition function returns.
/// Accept the connection.
pub const CF_ACCEPT: c_int = 0;
/// Refuse it.
pub const CF_REJECT: c_int = 1;
/// Decide later. Not used on a SAN.
pub const CF_DEFER: c_int = 2;

// Rights of registered memory.
/// It is read: source of sends and writes; the peer may read it.
pub const MEM_READ: u32 = 1;
/// It is written: target of receives and reads; the peer may write it.
pub const MEM_WRITE: u32 = 2;
/// Both.
pub const MEM_READWRITE: u32 = 3;

// Socket options: level and names.
/// Level of the options below: SOL_SOCKET of the interface.
pub const WSD_SOL_SOCKET: c_int = 0xFFFF;
/// Largest single RDMA transfer; unsigned 32 bits, read only.
pub const SO_MAX_RDMA_SIZE: c_int = 0x700D;
/// Transfers larger than this are better moved by RDMA; unsigned 32 bits, read only.
pub const SO_RDMA_THRESHOLD_SIZE: c_int = 0x700E;
/// Largest message; unsigned 32 bits, read only.
pub const SO_MAX_MSG_SIZE: c_int = 0x2003;
/// Socket group. Only with quality of service.
pub const SO_GROUP_ID: c_int = 0x2001;
/// Priority in the group. Only with quality of service.
pub const SO_GROUP_PRIORITY: c_int = 0x2002;
/// SO_DEBUG of the interface: BOOL, read and write.
pub const WSD_SO_DEBUG: c_int = 0x0001;

// Options that the switch keeps to itself.
/// Listening.
pub const WSD_SO_ACCEPTCONN: c_int = 0x0002;
/// Local address may be reused.
pub const WSD_SO_REUSEADDR: c_int = 0x0004;
/// Send keep-alives.
pub const WSD_SO_KEEPALIVE: c_int = 0x0008;
/// Do not route.
pub const WSD_SO_DONTROUTE: c_int = 0x0010;
/// Broadcast.
pub const WSD_SO_BROADCAST: c_int = 0x0020;
/// Wait in close for unsent data.
pub const WSD_SO_LINGER: c_int = 0x0080;
/// Do not wait in close.
pub const SO_DONTLINGER: c_int = !WSD_SO_LINGER;
/// Urgent data in the stream.
pub const WSD_SO_OOBINLINE: c_int = 0x0100;
/// Local address may not be reused.
pub const SO_EXCLUSIVEADDRUSE: c_int = !WSD_SO_REUSEADDR;
/// Send buffer size.
pub const WSD_SO_SNDBUF: c_int = 0x1001;
/// Receive buffer size.
pub const WSD_SO_RCVBUF: c_int = 0x1002;
/// Send low-water mark.
pub const WSD_SO_SNDLOWAT: c_int = 0x1003;
/// Receive low-water mark.
pub const WSD_SO_RCVLOWAT: c_int = 0x1004;
/// Send time-out.
pub const WSD_SO_SNDTIMEO: c_int = 0x1005;
/// Receive time-out.
pub const WSD_SO_RCVTIMEO: c_int = 0x1006;
/// Last error.
pub const WSD_SO_ERROR: c_int = 0x1007;
/// Socket type.
pub const WSD_SO_TYPE: c_int = 0x1008;
/// The WSAPROTOCOL_INFOW of the socket.
pub const SO_PROTOCOL_INFOW: c_int = 0x2005;
/// Tell the peer nothing before the condition function decided.
pub const SO_CONDITIONAL_ACCEPT: c_int = 0x3002;
/// An accepted socket takes over the listener's properties.
pub const SO_UPDATE_ACCEPT_CONTEXT: c_int = 0x700B;
/// Seconds since connected.
pub const SO_CONNECT_TIME: c_int = 0x700C;
/// A connected socket takes over its properties.
pub const SO_UPDATE_CONNECT_CONTEXT: c_int = 0x7010;
/// TCP_NODELAY, at level IPPROTO_TCP.
pub const WSD_TCP_NODELAY: c_int = 1;
/// A backlog that the provider chooses: SOMAXCONN of the interface.
pub const WSD_SOMAXCONN: c_int = 0x7FFF_FFFF;

// Control codes of WSPIoctl.
/// In: a GUID. Out: the extension function that it names.
pub const SIO_GET_EXTENSION_FUNCTION_POINTER: u32 = 0xC800_0006;
/// Out: a SOCKET_ADDRESS_LIST of the provider's local addresses.
pub const SIO_ADDRESS_LIST_QUERY: u32 = 0x4800_0016;
/// Quality of service.
pub const SIO_GET_QOS: u32 = 0xC800_0007;
/// Reserved.
pub const SIO_GET_GROUP_QOS: u32 = 0xC800_0008;
/// Quality of service.
pub const SIO_SET_QOS: u32 = 0x8800_000B;
/// Reserved.
pub const SIO_SET_GROUP_QOS: u32 = 0x8800_000C;
/// Never sent to a SAN provider.
pub const SIO_FLUSH: u32 = 0x2800_0004;
/// Never sent to a SAN provider.
pub const SIO_TRANSLATE_HANDLE: u32 = 0xC800_000D;
/// Never sent to a SAN provider.
pub const SIO_ROUTING_INTERFACE_QUERY: u32 = 0xC800_0014;
/// Never sent to a SAN provider.
pub const SIO_ADDRESS_LIST_CHANGE: u32 = 0x2800_0017;
/// Never sent to a SAN provider.
pub const SIO_ADDRESS_LIST_SORT: u32 = 0xC800_0019;

// Flags of sockets and messages.
/// Of WSPSocket: always given.
pub const WSA_FLAG_OVERLAPPED: u32 = 0x01;
/// Urgent data.
pub const WSD_MSG_OOB: u32 = 0x1;
/// Look, do not take.
pub const WSD_MSG_PEEK: u32 = 0x2;
/// Do not route.
pub const WSD_MSG_DONTROUTE: u32 = 0x4;
/// Wait for everything.
pub const WSD_MSG_WAITALL: u32 = 0x8;
/// Sent from an interrupt.
pub const MSG_INTERRUPT: u32 = 0x10;
/// Deliver at once.
pub const MSG_PUSH_IMMEDIATE: u32 = 0x20;
/// Part of a message.
pub const MSG_PARTIAL: u32 = 0x8000;
/// Of WSPShutdown: no more receives.
pub const SD_RECEIVE: c_int = 0;
/// Of WSPShutdown: no more sends.
pub const SD_SEND: c_int = 1;
/// Of WSPShutdown: neither.
pub const SD_BOTH: c_int = 2;
/// Of WSPSocket: take the value from lpProtocolInfo.
///
/// cbindgen:ignore
pub const FROM_PROTOCOL_INFO: c_int = -1;

// What a protocol can do: WSAPROTOCOL_INFOW.dwServiceFlags1.
/// Datagrams.
pub const XP1_CONNECTIONLESS: u32 = 0x1;
/// What is sent arrives.
pub const XP1_GUARANTEED_DELIVERY: u32 = 0x2;
/// In the order in which it was sent.
pub const XP1_GUARANTEED_ORDER: u32 = 0x4;
/// Keeps message boundaries.
pub const XP1_MESSAGE_ORIENTED: u32 = 0x8;
/// Messages read as a stream.
pub const XP1_PSEUDO_STREAM: u32 = 0x10;
/// Two-phase close.
pub const XP1_GRACEFUL_CLOSE: u32 = 0x20;
/// Urgent data.
pub const XP1_EXPEDITED_DATA: u32 = 0x40;
/// Data with a connect.
pub const XP1_CONNECT_DATA: u32 = 0x80;
/// Data with a disconnect.
pub const XP1_DISCONNECT_DATA: u32 = 0x100;
/// Broadcast.
pub const XP1_SUPPORT_BROADCAST: u32 = 0x200;
/// Multipoint.
pub const XP1_SUPPORT_MULTIPOINT: u32 = 0x400;
/// Rooted control plane.
pub const XP1_MULTIPOINT_CONTROL_PLANE: u32 = 0x800;
/// Rooted data plane.
pub const XP1_MULTIPOINT_DATA_PLANE: u32 = 0x1000;
/// Quality of service.
pub const XP1_QOS_SUPPORTED: u32 = 0x2000;
/// Reserved.
pub const XP1_INTERRUPT: u32 = 0x4000;
/// One way: sends.
pub const XP1_UNI_SEND: u32 = 0x8000;
/// One way: receives.
pub const XP1_UNI_RECV: u32 = 0x1_0000;
/// Sockets are handles of the operating system.
pub const XP1_IFS_HANDLES: u32 = 0x2_0000;
/// MSG_PARTIAL is served.
pub const XP1_PARTIAL_MESSAGE: u32 = 0x4_0000;
/// Undocumented.
pub const XP1_SAN_SUPPORT_SDP: u32 = 0x8_0000;

// What a provider is: WSAPROTOCOL_INFOW.dwProviderFlags.
/// One of several entries.
pub const PFL_MULTIPLE_PROTO_ENTRIES: u32 = 0x1;
/// The recommended one of several.
pub const PFL_RECOMMENDED_PROTO_ENTRY: u32 = 0x2;
/// Not shown to applications. Every SAN provider has it.
pub const PFL_HIDDEN: u32 = 0x4;
/// Matches protocol 0.
pub const PFL_MATCHES_PROTOCOL_ZERO: u32 = 0x8;
/// A Network Direct provider.
pub const PFL_NETWORKDIRECT_PROVIDER: u32 = 0x10;

// Other values in WSAPROTOCOL_INFOW.
/// ChainLen: a provider above another.
pub const LAYERED_PROTOCOL: c_int = 0;
/// ChainLen: a provider by itself.
pub const BASE_PROTOCOL: c_int = 1;
/// iNetworkByteOrder.
pub const BIGENDIAN: c_int = 0;
/// iNetworkByteOrder.
pub const LITTLEENDIAN: c_int = 1;
/// iSecurityScheme.
pub const SECURITY_PROTOCOL_NONE: c_int = 0;
