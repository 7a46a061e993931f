/*
 * wsdirect: a Windows Sockets Direct SAN service provider for Linux.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Generated from src/abi and src/exports.rs; do not edit.
 *
 * Link with -lwsdirect (or load libwsdirect.so.0) and call WSPStartupEx: it fills the table through
 * which everything else is called. The extension functions are fetched by GUID:
 *
 *     LPFN_WSPREGISTERMEMORY reg = NULL;
 *     DWORD got = 0;
 *     GUID id = WSAID_REGISTERMEMORY;
 *     table.lpWSPIoctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id,
 *                      &reg, sizeof reg, &got, NULL, NULL, NULL, &error);
 *
 * Names and layouts are those of 64-bit Windows, whatever this host calls long: DWORD and LONG have
 * 32 bits, WCHAR has 16. What belongs to the host stays the host's: struct sockaddr and its family,
 * AF_INET6, SOCK_STREAM, IPPROTO_TCP. Names that the host's headers define with another value carry
 * the prefix WSD_ here: WSD_SOL_SOCKET, WSD_SO_DEBUG, WSD_SOMAXCONN, WSD_MSG_OOB. So this header and
 * <sys/socket.h>, <netinet/in.h>, <errno.h> can be included together, in any order.
 *
 * Results. Functions that return int return 0, or SOCKET_ERROR and a code in *lpErrno. SOCKET
 * functions return INVALID_SOCKET, BOOL functions FALSE, HANDLE functions null. WSPStartupEx
 * has no lpErrno and returns the code itself. lpErrno may be null. Error codes are WSAE and WSA_
 * numbers, not errno values. Out parameters are written on success only, except where said.
 *
 * Memory. What pointers name needs to last for the call only, with these exceptions. From
 * WSPSend, WSPRecv, WSPRdmaRead and WSPRdmaWrite until the operation has completed, the
 * WSAOVERLAPPED and the buffers that the pieces name; the array of pieces and the descriptor are
 * copied. From WSPRegisterMemory and WSPRegisterRdmaMemory until the deregistration has succeeded
 * or WSPCloseSocket has returned, the registered region (docs/api-conventions.md, Ownership, names
 * an exception). WSPStartupEx copies the upcall table; the functions in it stay callable until the
 * last WSPCleanup has returned.
 *
 * Completion. Every operation that was started (WSA_IO_PENDING) completes exactly once; one that
 * failed at the call never does. The lowest bit of WSAOVERLAPPED.hEvent, read when the operation is
 * started, chooses how it is told: 1, the caller polls WSPGetOverlappedResult and there is no upcall;
 * 0, exactly one call of WPUCompleteOverlappedRequest with the switch's socket.
 *
 * Events. A WSAEVENT is the number of an eventfd plus one, as a pointer; null is no event:
 *
 *     WSAEVENT event = (WSAEVENT)((uintptr_t)eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) + 1);
 *
 * Threads. Every function may be called from every thread at any time, also from within an upcall,
 * except where said. The provider holds no lock while it makes an upcall.
 */


#ifndef WSDIRECT_H
#define WSDIRECT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef TRUE
#define TRUE 1
#endif

#ifndef FALSE
#define FALSE 0
#endif

/**
 * No socket.
 */
#define INVALID_SOCKET (~(SOCKET)0)

/**
 * What functions return that failed.
 */
#define SOCKET_ERROR (-1)

/**
 * Of WSPSocket: take the value from lpProtocolInfo.
 */
#define FROM_PROTOCOL_INFO (-1)

/**
 * No event.
 */
#define WSA_INVALID_EVENT ((WSAEVENT)0)


/**
 * How many kinds of network events there are.
 */
#define FD_MAX_EVENTS 10

/**
 * For a time: never.
 */
#define WSA_INFINITE 4294967295

/**
 * The version of the interface: 2.2.
 */
#define WSP_VERSION 514

/**
 * In WSAOVERLAPPED.Internal: not completed.
 */
#define WSS_OPERATION_IN_PROGRESS 259

/**
 * Not a handle.
 */
#define WSA_INVALID_HANDLE 6

/**
 * No memory.
 */
#define WSA_NOT_ENOUGH_MEMORY 8

/**
 * A parameter is wrong.
 */
#define WSA_INVALID_PARAMETER 87

/**
 * The socket was closed while the operation was in progress.
 */
#define WSA_OPERATION_ABORTED 995

/**
 * The operation is still in progress.
 */
#define WSA_IO_INCOMPLETE 996

/**
 * The operation was started; its completion follows.
 */
#define WSA_IO_PENDING 997

/**
 * Interrupted. Not used on a SAN.
 */
#define WSAEINTR 10004

/**
 * Not a descriptor.
 */
#define WSAEBADF 10009

/**
 * Not permitted.
 */
#define WSAEACCES 10013

/**
 * A pointer is bad, or a buffer too small.
 */
#define WSAEFAULT 10014

/**
 * A parameter, or the state of the socket, does not fit.
 */
#define WSAEINVAL 10022

/**
 * No more descriptors.
 */
#define WSAEMFILE 10024

/**
 * Would have to wait, or goes on in the background.
 */
#define WSAEWOULDBLOCK 10035

/**
 * A blocking call is in progress. Not used on a SAN.
 */
#define WSAEINPROGRESS 10036

/**
 * A connect is already in progress.
 */
#define WSAEALREADY 10037

/**
 * Not a socket, or no longer one.
 */
#define WSAENOTSOCK 10038

/**
 * An address is missing.
 */
#define WSAEDESTADDRREQ 10039

/**
 * The message is too large.
 */
#define WSAEMSGSIZE 10040

/**
 * The protocol is of another type.
 */
#define WSAEPROTOTYPE 10041

/**
 * No such option.
 */
#define WSAENOPROTOOPT 10042

/**
 * The protocol is not served.
 */
#define WSAEPROTONOSUPPORT 10043

/**
 * The socket type is not served.
 */
#define WSAESOCKTNOSUPPORT 10044

/**
 * The operation is not served.
 */
#define WSAEOPNOTSUPP 10045

/**
 * The protocol family is not served.
 */
#define WSAEPFNOSUPPORT 10046

/**
 * The address family is not served.
 */
#define WSAEAFNOSUPPORT 10047

/**
 * The address is in use.
 */
#define WSAEADDRINUSE 10048

/**
 * The address is not one of this host's.
 */
#define WSAEADDRNOTAVAIL 10049

/**
 * The SAN subsystem has failed.
 */
#define WSAENETDOWN 10050

/**
 * The network cannot be reached.
 */
#define WSAENETUNREACH 10051

/**
 * The connection broke.
 */
#define WSAENETRESET 10052

/**
 * The connection was aborted on this side.
 */
#define WSAECONNABORTED 10053

/**
 * The peer ended the connection; of a connect: nobody listens there.
 */
#define WSAECONNRESET 10054

/**
 * No memory or other resources.
 */
#define WSAENOBUFS 10055

/**
 * The socket is connected.
 */
#define WSAEISCONN 10056

/**
 * The socket is not connected.
 */
#define WSAENOTCONN 10057

/**
 * The socket is shut down.
 */
#define WSAESHUTDOWN 10058

/**
 * No answer in time.
 */
#define WSAETIMEDOUT 10060

/**
 * The peer refused.
 */
#define WSAECONNREFUSED 10061

/**
 * The host is down.
 */
#define WSAEHOSTDOWN 10064

/**
 * There is no such host.
 */
#define WSAEHOSTUNREACH 10065

/**
 * Too many processes use the provider.
 */
#define WSAEPROCLIM 10067

/**
 * The SAN subsystem is not ready.
 */
#define WSASYSNOTREADY 10091

/**
 * The version is not served.
 */
#define WSAVERNOTSUPPORTED 10092

/**
 * WSPStartupEx is missing.
 */
#define WSANOTINITIALISED 10093

/**
 * The peer has shut the connection down.
 */
#define WSAEDISCON 10101

/**
 * Cancelled.
 */
#define WSAECANCELLED 10103

/**
 * The provider's table is not valid.
 */
#define WSAEINVALIDPROCTABLE 10104

/**
 * The provider's version is not valid.
 */
#define WSAEINVALIDPROVIDER 10105

/**
 * The provider could not be started.
 */
#define WSAEPROVIDERFAILEDINIT 10106

/**
 * A system call failed.
 */
#define WSASYSCALLFAILURE 10107

/**
 * Try again later.
 */
#define WSATRY_AGAIN 11002

/**
 * Cannot be mended.
 */
#define WSANO_RECOVERY 11003

/**
 * Data can be read. Not on a SAN.
 */
#define FD_READ 1

/**
 * Data can be written. Not on a SAN.
 */
#define FD_WRITE 2

/**
 * Urgent data. Not on a SAN.
 */
#define FD_OOB 4

/**
 * A connection request waits.
 */
#define FD_ACCEPT 8

/**
 * A connect has ended; its error code is in slot FD_CONNECT_BIT.
 */
#define FD_CONNECT 16

/**
 * The connection has ended. Not on a SAN.
 */
#define FD_CLOSE 32

/**
 * Quality of service changed. Not on a SAN.
 */
#define FD_QOS 64

/**
 * Reserved.
 */
#define FD_GROUP_QOS 128

/**
 * Routing changed. Not on a SAN.
 */
#define FD_ROUTING_INTERFACE_CHANGE 256

/**
 * The local addresses changed. Not on a SAN.
 */
#define FD_ADDRESS_LIST_CHANGE 512

/**
 * Number of the bit FD_ACCEPT.
 */
#define FD_ACCEPT_BIT 3

/**
 * Number of the bit FD_CONNECT.
 */
#define FD_CONNECT_BIT 4

/**
 * Accept the connection.
 */
#define CF_ACCEPT 0

/**
 * Refuse it.
 */
#define CF_REJECT 1

/**
 * Decide later. Not used on a SAN.
 */
#define CF_DEFER 2

/**
 * It is read: source of sends and writes; the peer may read it.
 */
#define MEM_READ 1

/**
 * It is written: target of receives and reads; the peer may write it.
 */
#define MEM_WRITE 2

/**
 * Both.
 */
#define MEM_READWRITE 3

/**
 * Level of the options below: SOL_SOCKET of the interface.
 */
#define WSD_SOL_SOCKET 65535

/**
 * Largest single RDMA transfer; unsigned 32 bits, read only.
 */
#define SO_MAX_RDMA_SIZE 28685

/**
 * Transfers larger than this are better moved by RDMA; unsigned 32 bits, read only.
 */
#define SO_RDMA_THRESHOLD_SIZE 28686

/**
 * Largest message; unsigned 32 bits, read only.
 */
#define SO_MAX_MSG_SIZE 8195

/**
 * Socket group. Only with quality of service.
 */
#define SO_GROUP_ID 8193

/**
 * Priority in the group. Only with quality of service.
 */
#define SO_GROUP_PRIORITY 8194

/**
 * SO_DEBUG of the interface: BOOL, read and write.
 */
#define WSD_SO_DEBUG 1

/**
 * Listening.
 */
#define WSD_SO_ACCEPTCONN 2

/**
 * Local address may be reused.
 */
#define WSD_SO_REUSEADDR 4

/**
 * Send keep-alives.
 */
#define WSD_SO_KEEPALIVE 8

/**
 * Do not route.
 */
#define WSD_SO_DONTROUTE 16

/**
 * Broadcast.
 */
#define WSD_SO_BROADCAST 32

/**
 * Wait in close for unsent data.
 */
#define WSD_SO_LINGER 128

/**
 * Do not wait in close.
 */
#define SO_DONTLINGER ~WSD_SO_LINGER

/**
 * Urgent data in the stream.
 */
#define WSD_SO_OOBINLINE 256

/**
 * Local address may not be reused.
 */
#define SO_EXCLUSIVEADDRUSE ~WSD_SO_REUSEADDR

/**
 * Send buffer size.
 */
#define WSD_SO_SNDBUF 4097

/**
 * Receive buffer size.
 */
#define WSD_SO_RCVBUF 4098

/**
 * Send low-water mark.
 */
#define WSD_SO_SNDLOWAT 4099

/**
 * Receive low-water mark.
 */
#define WSD_SO_RCVLOWAT 4100

/**
 * Send time-out.
 */
#define WSD_SO_SNDTIMEO 4101

/**
 * Receive time-out.
 */
#define WSD_SO_RCVTIMEO 4102

/**
 * Last error.
 */
#define WSD_SO_ERROR 4103

/**
 * Socket type.
 */
#define WSD_SO_TYPE 4104

/**
 * The WSAPROTOCOL_INFOW of the socket.
 */
#define SO_PROTOCOL_INFOW 8197

/**
 * Tell the peer nothing before the condition function decided.
 */
#define SO_CONDITIONAL_ACCEPT 12290

/**
 * An accepted socket takes over the listener's properties.
 */
#define SO_UPDATE_ACCEPT_CONTEXT 28683

/**
 * Seconds since connected.
 */
#define SO_CONNECT_TIME 28684

/**
 * A connected socket takes over its properties.
 */
#define SO_UPDATE_CONNECT_CONTEXT 28688

/**
 * TCP_NODELAY, at level IPPROTO_TCP.
 */
#define WSD_TCP_NODELAY 1

/**
 * A backlog that the provider chooses: SOMAXCONN of the interface.
 */
#define WSD_SOMAXCONN 2147483647

/**
 * In: a GUID. Out: the extension function that it names.
 */
#define SIO_GET_EXTENSION_FUNCTION_POINTER 3355443206

/**
 * Out: a SOCKET_ADDRESS_LIST of the provider's local addresses.
 */
#define SIO_ADDRESS_LIST_QUERY 1207959574

/**
 * Quality of service.
 */
#define SIO_GET_QOS 3355443207

/**
 * Reserved.
 */
#define SIO_GET_GROUP_QOS 3355443208

/**
 * Quality of service.
 */
#define SIO_SET_QOS 2281701387

/**
 * Reserved.
 */
#define SIO_SET_GROUP_QOS 2281701388

/**
 * Never sent to a SAN provider.
 */
#define SIO_FLUSH 671088644

/**
 * Never sent to a SAN provider.
 */
#define SIO_TRANSLATE_HANDLE 3355443213

/**
 * Never sent to a SAN provider.
 */
#define SIO_ROUTING_INTERFACE_QUERY 3355443220

/**
 * Never sent to a SAN provider.
 */
#define SIO_ADDRESS_LIST_CHANGE 671088663

/**
 * Never sent to a SAN provider.
 */
#define SIO_ADDRESS_LIST_SORT 3355443225

/**
 * Of WSPSocket: always given.
 */
#define WSA_FLAG_OVERLAPPED 1

/**
 * Urgent data.
 */
#define WSD_MSG_OOB 1

/**
 * Look, do not take.
 */
#define WSD_MSG_PEEK 2

/**
 * Do not route.
 */
#define WSD_MSG_DONTROUTE 4

/**
 * Wait for everything.
 */
#define WSD_MSG_WAITALL 8

/**
 * Sent from an interrupt.
 */
#define MSG_INTERRUPT 16

/**
 * Deliver at once.
 */
#define MSG_PUSH_IMMEDIATE 32

/**
 * Part of a message.
 */
#define MSG_PARTIAL 32768

/**
 * Of WSPShutdown: no more receives.
 */
#define SD_RECEIVE 0

/**
 * Of WSPShutdown: no more sends.
 */
#define SD_SEND 1

/**
 * Of WSPShutdown: neither.
 */
#define SD_BOTH 2

/**
 * Datagrams.
 */
#define XP1_CONNECTIONLESS 1

/**
 * What is sent arrives.
 */
#define XP1_GUARANTEED_DELIVERY 2

/**
 * In the order in which it was sent.
 */
#define XP1_GUARANTEED_ORDER 4

/**
 * Keeps message boundaries.
 */
#define XP1_MESSAGE_ORIENTED 8

/**
 * Messages read as a stream.
 */
#define XP1_PSEUDO_STREAM 16

/**
 * Two-phase close.
 */
#define XP1_GRACEFUL_CLOSE 32

/**
 * Urgent data.
 */
#define XP1_EXPEDITED_DATA 64

/**
 * Data with a connect.
 */
#define XP1_CONNECT_DATA 128

/**
 * Data with a disconnect.
 */
#define XP1_DISCONNECT_DATA 256

/**
 * Broadcast.
 */
#define XP1_SUPPORT_BROADCAST 512

/**
 * Multipoint.
 */
#define XP1_SUPPORT_MULTIPOINT 1024

/**
 * Rooted control plane.
 */
#define XP1_MULTIPOINT_CONTROL_PLANE 2048

/**
 * Rooted data plane.
 */
#define XP1_MULTIPOINT_DATA_PLANE 4096

/**
 * Quality of service.
 */
#define XP1_QOS_SUPPORTED 8192

/**
 * Reserved.
 */
#define XP1_INTERRUPT 16384

/**
 * One way: sends.
 */
#define XP1_UNI_SEND 32768

/**
 * One way: receives.
 */
#define XP1_UNI_RECV 65536

/**
 * Sockets are handles of the operating system.
 */
#define XP1_IFS_HANDLES 131072

/**
 * MSG_PARTIAL is served.
 */
#define XP1_PARTIAL_MESSAGE 262144

/**
 * Undocumented.
 */
#define XP1_SAN_SUPPORT_SDP 524288

/**
 * One of several entries.
 */
#define PFL_MULTIPLE_PROTO_ENTRIES 1

/**
 * The recommended one of several.
 */
#define PFL_RECOMMENDED_PROTO_ENTRY 2

/**
 * Not shown to applications. Every SAN provider has it.
 */
#define PFL_HIDDEN 4

/**
 * Matches protocol 0.
 */
#define PFL_MATCHES_PROTOCOL_ZERO 8

/**
 * A Network Direct provider.
 */
#define PFL_NETWORKDIRECT_PROVIDER 16

/**
 * ChainLen: a provider above another.
 */
#define LAYERED_PROTOCOL 0

/**
 * ChainLen: a provider by itself.
 */
#define BASE_PROTOCOL 1

/**
 * iNetworkByteOrder.
 */
#define BIGENDIAN 0

/**
 * iNetworkByteOrder.
 */
#define LITTLEENDIAN 1

/**
 * iSecurityScheme.
 */
#define SECURITY_PROTOCOL_NONE 0

/**
 * Most entries of a protocol chain.
 */
#define MAX_PROTOCOL_CHAIN 7

/**
 * Longest protocol name, without the 0 at its end.
 */
#define WSAPROTOCOL_LEN 255

/**
 * Longest description of a provider, without the 0 at its end.
 */
#define WSPDESCRIPTION_LEN 255

/**
 * Unsigned, 16 bits.
 */
typedef uint16_t WORD;

/**
 * One UTF-16 code unit. Not wchar_t, which has 32 bits here.
 */
typedef uint16_t WCHAR;

/**
 * What WSPStartupEx tells about the provider.
 */
typedef struct WSPDATA {
    /**
     * Version of the interface to use: low byte major, high byte minor. 2.2 is 0x0202.
     */
    WORD wVersion;
    /**
     * Highest version that the provider speaks.
     */
    WORD wHighVersion;
    /**
     * Description, ended by 0.
     */
    WCHAR szDescription[256];
} WSPDATA;

/**
 * Points to a WSPDATA.
 */
typedef struct WSPDATA *LPWSPDATA;

/**
 * Unsigned, 32 bits.
 */
typedef uint32_t DWORD;

/**
 * Names an extension function or a provider.
 */
typedef struct GUID {
    /**
     * First group; in the byte order of the host.
     */
    uint32_t Data1;
    /**
     * Second group.
     */
    uint16_t Data2;
    /**
     * Third group.
     */
    uint16_t Data3;
    /**
     * The last two groups, byte by byte.
     */
    uint8_t Data4[8];
} GUID;

/**
 * Which providers stand one above the other.
 */
typedef struct WSAPROTOCOLCHAIN {
    /**
     * LAYERED_PROTOCOL, BASE_PROTOCOL, or the number of entries above 1.
     */
    int ChainLen;
    /**
     * Catalog entries, topmost first.
     */
    DWORD ChainEntries[7];
} WSAPROTOCOLCHAIN;

/**
 * What a protocol of a provider is.
 */
typedef struct WSAPROTOCOL_INFOW {
    /**
     * XP1_ flags.
     */
    DWORD dwServiceFlags1;
    /**
     * Reserved: 0.
     */
    DWORD dwServiceFlags2;
    /**
     * Reserved: 0.
     */
    DWORD dwServiceFlags3;
    /**
     * Reserved: 0.
     */
    DWORD dwServiceFlags4;
    /**
     * PFL_ flags.
     */
    DWORD dwProviderFlags;
    /**
     * Names the provider.
     */
    struct GUID ProviderId;
    /**
     * Number in the catalog.
     */
    DWORD dwCatalogEntryId;
    /**
     * Which providers stand one above the other.
     */
    struct WSAPROTOCOLCHAIN ProtocolChain;
    /**
     * Version of the protocol.
     */
    int iVersion;
    /**
     * Address family.
     */
    int iAddressFamily;
    /**
     * Largest socket address.
     */
    int iMaxSockAddr;
    /**
     * Smallest socket address.
     */
    int iMinSockAddr;
    /**
     * Socket type.
     */
    int iSocketType;
    /**
     * Protocol.
     */
    int iProtocol;
    /**
     * How many more protocol numbers follow iProtocol.
     */
    int iProtocolMaxOffset;
    /**
     * BIGENDIAN or LITTLEENDIAN.
     */
    int iNetworkByteOrder;
    /**
     * SECURITY_PROTOCOL_NONE.
     */
    int iSecurityScheme;
    /**
     * Largest message.
     */
    DWORD dwMessageSize;
    /**
     * The token of WSPDuplicateSocket; 0 asks WSPSocket for a new socket.
     */
    DWORD dwProviderReserved;
    /**
     * Name, ended by 0.
     */
    WCHAR szProtocol[256];
} WSAPROTOCOL_INFOW;

/**
 * Points to a WSAPROTOCOL_INFOW.
 */
typedef struct WSAPROTOCOL_INFOW *LPWSAPROTOCOL_INFOW;

/**
 * 0 is false, everything else true.
 */
typedef int32_t BOOL;

/**
 * An opaque handle; null is none. WSPRegisterMemory returns one.
 */
typedef void *HANDLE;

/**
 * An event object. On this platform it is an eventfd: the handle holds the number of its
 * descriptor plus one, so that null stays "no event". The owner makes the eventfd (nonblocking,
 * initial value 0) and closes it; setting the event adds to it and resetting reads it empty.
 */
typedef HANDLE WSAEVENT;

/**
 * Where a function writes its error code. Always the last parameter. May be null, then the code
 * is lost. Written on failure only.
 */
typedef int *LPINT;

/**
 * Closes an event that WPUCreateEvent made. Returns TRUE, or FALSE.
 *
 * Errors: WSA_INVALID_HANDLE.
 * Threads: any.
 */
typedef BOOL (*LPWPUCLOSEEVENT)(WSAEVENT hEvent,
                                LPINT lpErrno);

/**
 * A socket of a provider, or the switch's own socket in the upcalls. The two are different numbers
 * for the same socket and are never mixed: the provider's goes into its functions, the switch's
 * into the upcalls. Opaque; INVALID_SOCKET is no socket.
 */
typedef uintptr_t SOCKET;

/**
 * Gives the switch's socket back: the last upcall for that socket. Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSAENOTSOCK.
 * Threads: any.
 */
typedef int (*LPWPUCLOSESOCKETHANDLE)(SOCKET s,
                                      LPINT lpErrno);

/**
 * Makes an event, not signalled, that stays signalled until it is reset. Returns null on failure.
 *
 * Errors: WSA_NOT_ENOUGH_MEMORY.
 * Threads: any.
 */
typedef WSAEVENT (*LPWPUCREATEEVENT)(LPINT lpErrno);

/**
 * Unsigned, as wide as a pointer.
 */
typedef uintptr_t DWORD_PTR;

/**
 * Makes the switch's socket for a new socket of the provider; dwContext is the provider's own
 * number and comes back from WPUQuerySocketHandleContext. Called within WSPSocket and WSPAccept.
 * Returns INVALID_SOCKET on failure.
 *
 * Errors: WSAENOBUFS.
 * Threads: the one that is in WSPSocket or WSPAccept.
 */
typedef SOCKET (*LPWPUCREATESOCKETHANDLE)(DWORD dwCatalogEntryId,
                                          DWORD_PTR dwContext,
                                          LPINT lpErrno);

/**
 * Whether a set of descriptors holds a socket. Not used on a SAN.
 *
 * Errors: none.
 * Threads: any.
 */
typedef int (*LPWPUFDISSET)(SOCKET s,
                            fd_set *fdset);

/**
 * Points to a GUID.
 */
typedef struct GUID *LPGUID;

/**
 * A string of UTF-16 code units that ends with 0.
 */
typedef WCHAR *LPWSTR;

/**
 * The path of a provider. Not used on a SAN.
 *
 * Errors: WSAEINVAL, WSAEFAULT.
 * Threads: any.
 */
typedef int (*LPWPUGETPROVIDERPATH)(LPGUID lpProviderId,
                                    LPWSTR lpszProviderDllPath,
                                    LPINT lpProviderDllPathLen,
                                    LPINT lpErrno);

/**
 * For providers whose sockets are handles of the operating system. Not used on a SAN.
 *
 * Errors: WSAEINVAL.
 * Threads: any.
 */
typedef SOCKET (*LPWPUMODIFYIFSHANDLE)(DWORD dwCatalogEntryId,
                                       SOCKET ProposedHandle,
                                       LPINT lpErrno);

/**
 * A window. Occurs only in functions that a SAN provider does not serve.
 */
typedef void *HWND;

/**
 * Unsigned, 32 bits.
 */
typedef uint32_t UINT;

/**
 * Unsigned, as wide as a pointer. Occurs in WPUPostMessage only.
 */
typedef uintptr_t WPARAM;

/**
 * Signed, as wide as a pointer. Occurs in WPUPostMessage only.
 */
typedef intptr_t LPARAM;

/**
 * Window messages. Not used on a SAN.
 *
 * Errors: none.
 * Threads: any.
 */
typedef BOOL (*LPWPUPOSTMESSAGE)(HWND hWnd,
                                 UINT Msg,
                                 WPARAM wParam,
                                 LPARAM lParam);

/**
 * A blocking hook of Winsock 1.1. SAN sockets use none.
 */
typedef BOOL (*LPBLOCKINGCALLBACK)(DWORD_PTR dwContext);

/**
 * Points to an integer as wide as a pointer.
 */
typedef DWORD_PTR *PDWORD_PTR;

/**
 * Blocking hooks of Winsock 1.1. Not used on a SAN.
 *
 * Errors: WSAEFAULT.
 * Threads: any.
 */
typedef int (*LPWPUQUERYBLOCKINGCALLBACK)(DWORD dwCatalogEntryId,
                                          LPBLOCKINGCALLBACK *lplpfnCallback,
                                          PDWORD_PTR lpdwContext,
                                          LPINT lpErrno);

/**
 * Returns in *lpContext the number that WPUCreateSocketHandle was given for the switch's socket.
 *
 * Errors: WSAENOTSOCK.
 * Threads: any.
 */
typedef int (*LPWPUQUERYSOCKETHANDLECONTEXT)(SOCKET s,
                                             PDWORD_PTR lpContext,
                                             LPINT lpErrno);

/**
 * A thread, for asynchronous procedure calls; SAN sockets use none.
 */
typedef struct WSATHREADID {
    /**
     * The thread.
     */
    HANDLE ThreadHandle;
    /**
     * Reserved.
     */
    DWORD_PTR Reserved;
} WSATHREADID;

/**
 * Points to a WSATHREADID.
 */
typedef struct WSATHREADID *LPWSATHREADID;

/**
 * A procedure to run on a chosen thread. SAN sockets use none.
 */
typedef void (*LPWSAUSERAPC)(DWORD_PTR dwContext);

/**
 * Runs a procedure on a thread. Not used on a SAN.
 *
 * Errors: WSAEINVAL.
 * Threads: any.
 */
typedef int (*LPWPUQUEUEAPC)(LPWSATHREADID lpThreadId,
                             LPWSAUSERAPC lpfnUserApc,
                             DWORD_PTR dwContext,
                             LPINT lpErrno);

/**
 * Makes an event not signalled. Returns TRUE, or FALSE.
 *
 * Errors: WSA_INVALID_HANDLE.
 * Threads: any.
 */
typedef BOOL (*LPWPURESETEVENT)(WSAEVENT hEvent,
                                LPINT lpErrno);

/**
 * Signals an event. Returns TRUE, or FALSE.
 *
 * Errors: WSA_INVALID_HANDLE.
 * Threads: any.
 */
typedef BOOL (*LPWPUSETEVENT)(WSAEVENT hEvent,
                              LPINT lpErrno);

/**
 * Obtains an identification of the calling thread. Not used on a SAN.
 *
 * Errors: WSAEFAULT.
 * Threads: any.
 */
typedef int (*LPWPUOPENCURRENTTHREAD)(LPWSATHREADID lpThreadId,
                                      LPINT lpErrno);

/**
 * Gives a thread's identification back. Not used on a SAN.
 *
 * Errors: WSAEFAULT.
 * Threads: any.
 */
typedef int (*LPWPUCLOSETHREAD)(LPWSATHREADID lpThreadId,
                                LPINT lpErrno);

/**
 * Unsigned, as wide as a pointer.
 */
typedef uintptr_t ULONG_PTR;

/**
 * One operation in progress.
 *
 * The caller owns the memory and keeps it valid and in place until the operation has completed. It
 * sets hEvent before the call; everything else belongs to the provider until completion.
 *
 * hEvent is not an event here. Its lowest bit says how the caller wants to hear of the completion:
 * 1: the caller polls WSPGetOverlappedResult and no upcall is made; 0: the provider calls
 * WPUCompleteOverlappedRequest exactly once. The bit is read when the operation is started. A
 * pointer kept in hEvent must therefore be even, or have the bit set on purpose.
 *
 * With bit 1, Internal is stored last, with release ordering: a caller that loads it with acquire
 * ordering and finds something other than WSS_OPERATION_IN_PROGRESS may read the rest.
 */
typedef struct WSAOVERLAPPED {
    /**
     * WSS_OPERATION_IN_PROGRESS while the operation is in progress.
     */
    ULONG_PTR Internal;
    /**
     * How many bytes were moved.
     */
    ULONG_PTR InternalHigh;
    /**
     * The flags of the completed operation.
     */
    DWORD Offset;
    /**
     * The error code of the completed operation; 0 is success.
     */
    DWORD OffsetHigh;
    /**
     * Lowest bit: 1 the caller polls, 0 the provider makes an upcall.
     */
    HANDLE hEvent;
} WSAOVERLAPPED;

/**
 * Points to a WSAOVERLAPPED.
 */
typedef struct WSAOVERLAPPED *LPWSAOVERLAPPED;

/**
 * Reports one completed operation whose hEvent had the lowest bit 0. s is the switch's socket. The
 * switch stores the byte count in InternalHigh and then something other than
 * WSS_OPERATION_IN_PROGRESS in Internal; the provider has set Offset and OffsetHigh before. The
 * switch may call the provider from within. Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSAEINVAL (s is not a socket of the switch).
 * Threads: any; the provider holds no lock.
 */
typedef int (*LPWPUCOMPLETEOVERLAPPEDREQUEST)(SOCKET s,
                                              LPWSAOVERLAPPED lpOverlapped,
                                              DWORD dwError,
                                              DWORD cbTransferred,
                                              LPINT lpErrno);

/**
 * The switch's functions. The provider copies the table within WSPStartupEx.
 */
typedef struct WSPUPCALLTABLEEX {
    /**
     * Slot 0.
     */
    LPWPUCLOSEEVENT lpWPUCloseEvent;
    /**
     * Slot 1.
     */
    LPWPUCLOSESOCKETHANDLE lpWPUCloseSocketHandle;
    /**
     * Slot 2.
     */
    LPWPUCREATEEVENT lpWPUCreateEvent;
    /**
     * Slot 3.
     */
    LPWPUCREATESOCKETHANDLE lpWPUCreateSocketHandle;
    /**
     * Slot 4.
     */
    LPWPUFDISSET lpWPUFDIsSet;
    /**
     * Slot 5.
     */
    LPWPUGETPROVIDERPATH lpWPUGetProviderPath;
    /**
     * Slot 6.
     */
    LPWPUMODIFYIFSHANDLE lpWPUModifyIFSHandle;
    /**
     * Slot 7.
     */
    LPWPUPOSTMESSAGE lpWPUPostMessage;
    /**
     * Slot 8.
     */
    LPWPUQUERYBLOCKINGCALLBACK lpWPUQueryBlockingCallback;
    /**
     * Slot 9.
     */
    LPWPUQUERYSOCKETHANDLECONTEXT lpWPUQuerySocketHandleContext;
    /**
     * Slot 10.
     */
    LPWPUQUEUEAPC lpWPUQueueApc;
    /**
     * Slot 11.
     */
    LPWPURESETEVENT lpWPUResetEvent;
    /**
     * Slot 12.
     */
    LPWPUSETEVENT lpWPUSetEvent;
    /**
     * Slot 13.
     */
    LPWPUOPENCURRENTTHREAD lpWPUOpenCurrentThread;
    /**
     * Slot 14.
     */
    LPWPUCLOSETHREAD lpWPUCloseThread;
    /**
     * Slot 15.
     */
    LPWPUCOMPLETEOVERLAPPEDREQUEST lpWPUCompleteOverlappedRequest;
} WSPUPCALLTABLEEX;

/**
 * Points to a WSPUPCALLTABLEEX.
 */
typedef struct WSPUPCALLTABLEEX *LPWSPUPCALLTABLEEX;

/**
 * A piece of memory. In WSPSend and WSPRecv it lies in a region that was registered with
 * WSPRegisterMemory on the same socket; the provider finds the region by the address.
 */
typedef struct WSABUF {
    /**
     * Length in bytes.
     */
    uint32_t len;
    /**
     * First byte.
     */
    char *buf;
} WSABUF;

/**
 * Points to one WSABUF or to the first of several.
 */
typedef struct WSABUF *LPWSABUF;

/**
 * Unsigned, 32 bits.
 */
typedef uint32_t ULONG;

/**
 * How one direction of a connection is to flow. SAN providers without quality of service ignore
 * it.
 */
typedef struct FLOWSPEC {
    /**
     * Bytes per second.
     */
    ULONG TokenRate;
    /**
     * Bytes.
     */
    ULONG TokenBucketSize;
    /**
     * Bytes per second.
     */
    ULONG PeakBandwidth;
    /**
     * Microseconds.
     */
    ULONG Latency;
    /**
     * Microseconds.
     */
    ULONG DelayVariation;
    /**
     * Kind of service.
     */
    ULONG ServiceType;
    /**
     * Bytes.
     */
    ULONG MaxSduSize;
    /**
     * Bytes.
     */
    ULONG MinimumPolicedSize;
} FLOWSPEC;

/**
 * Quality of service of a connection.
 */
typedef struct QOS {
    /**
     * What this side sends.
     */
    struct FLOWSPEC SendingFlowspec;
    /**
     * What this side receives.
     */
    struct FLOWSPEC ReceivingFlowspec;
    /**
     * Whatever else the provider knows.
     */
    struct WSABUF ProviderSpecific;
} QOS;

/**
 * Points to a QOS.
 */
typedef struct QOS *LPQOS;

/**
 * A socket group. Reserved: 0.
 */
typedef uint32_t GROUP;

/**
 * Decides whether to accept a connection request; called within WSPAccept, on its thread.
 * lpCallerId holds the peer's socket address and lpCalleeId the local one; both last for the call
 * only. Everything else is null. Returns CF_ACCEPT or CF_REJECT.
 *
 * Threads: the one that is in WSPAccept.
 */
typedef int (*LPCONDITIONPROC)(LPWSABUF lpCallerId,
                               LPWSABUF lpCallerData,
                               LPQOS lpSQOS,
                               LPQOS lpGQOS,
                               LPWSABUF lpCalleeId,
                               LPWSABUF lpCalleeData,
                               GROUP *g,
                               DWORD_PTR dwCallbackData);

/**
 * WSPAccept: Accepts the oldest connection request of a listening socket. Never waits.
 *
 * The condition function, if given, is called on the calling thread before the peer is told
 * anything. addr (may be null) receives the peer's address; *addrlen is the room before and the
 * length after the call. The switch's socket for the new one is made by WPUCreateSocketHandle
 * before the return. If more requests wait, the event is signalled again. Returns the new,
 * connected socket, or INVALID_SOCKET.
 *
 * Errors: WSAEWOULDBLOCK (no request), WSAECONNREFUSED (CF_REJECT), WSATRY_AGAIN (CF_DEFER),
 * WSAECONNRESET (the peer gave up), WSAEFAULT (addrlen too small), WSAEINVAL (not listening, or an
 * illegal result of the condition function), WSAENOBUFS, WSAEMFILE, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef SOCKET (*LPWSPACCEPT)(SOCKET s,
                              struct sockaddr *addr,
                              LPINT addrlen,
                              LPCONDITIONPROC lpfnCondition,
                              DWORD_PTR dwCallbackData,
                              LPINT lpErrno);

/**
 * Points to a DWORD.
 */
typedef DWORD *LPDWORD;

/**
 * WSPAddressToString: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPADDRESSTOSTRING)(struct sockaddr *lpsaAddress,
                                    DWORD dwAddressLength,
                                    LPWSAPROTOCOL_INFOW lpProtocolInfo,
                                    LPWSTR lpszAddressString,
                                    LPDWORD lpdwAddressStringLength,
                                    LPINT lpErrno);

/**
 * Signed, 32 bits: what the interface calls long.
 */
typedef int32_t LONG;

/**
 * WSPAsyncSelect: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPASYNCSELECT)(SOCKET s,
                                HWND hWnd,
                                UINT wMsg,
                                LONG lEvent,
                                LPINT lpErrno);

/**
 * WSPBind: Gives a socket its local address and port: the same as those of the TCP socket that it
 * accompanies. A wildcard address is for listening.
 *
 * Errors: WSAEADDRNOTAVAIL, WSAEFAULT (name or namelen), WSAEINVAL (already bound), WSAENOBUFS,
 * WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPBIND)(SOCKET s,
                         const struct sockaddr *name,
                         int namelen,
                         LPINT lpErrno);

/**
 * WSPCancelBlockingCall: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPCANCELBLOCKINGCALL)(LPINT lpErrno);

/**
 * WSPCleanup: Takes back one WSPStartupEx. The last one closes every socket that is still open and
 * ends the threads of the provider.
 *
 * Errors: WSANOTINITIALISED, WSAENETDOWN.
 * Threads: any but one that is in an upcall.
 */
typedef int (*LPWSPCLEANUP)(LPINT lpErrno);

/**
 * WSPCloseSocket: Closes a socket at once. Every operation in progress completes with
 * WSA_OPERATION_ABORTED (the peer's with WSAECONNRESET), an attempt to connect ends, registrations
 * are released, and the last upcall for the socket is WPUCloseSocketHandle. Memory of a pending
 * operation may be reused when its completion was seen.
 *
 * Errors: WSAENOTSOCK, WSAENETDOWN.
 * Threads: any, also within an upcall.
 */
typedef int (*LPWSPCLOSESOCKET)(SOCKET s,
                                LPINT lpErrno);

/**
 * WSPConnect: Begins to connect a bound socket; the outcome is recorded as FD_CONNECT.
 * lpCallerData, lpCalleeData, lpSQOS and lpGQOS are null.
 *
 * Errors: WSAEWOULDBLOCK (goes on in the background: the normal case). These three say that TCP
 * would fail too: WSAECONNRESET (nobody listens), WSAECONNREFUSED, WSAEHOSTUNREACH. Others permit
 * to try TCP: WSAETIMEDOUT, WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT, WSAEALREADY, WSAEISCONN, WSAEINVAL,
 * WSAEFAULT, WSAEOPNOTSUPP, WSAEPROTONOSUPPORT, WSAENOBUFS, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPCONNECT)(SOCKET s,
                            const struct sockaddr *name,
                            int namelen,
                            LPWSABUF lpCallerData,
                            LPWSABUF lpCalleeData,
                            LPQOS lpSQOS,
                            LPQOS lpGQOS,
                            LPINT lpErrno);

/**
 * WSPDuplicateSocket: Hands a socket over to another process: stores a token in
 * dwProviderReserved, which WSPSocket takes there.
 *
 * Errors: WSAEOPNOTSUPP (this provider does not hand over yet), WSAEINVAL, WSAENOTCONN, WSAEMFILE,
 * WSAENOBUFS, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPDUPLICATESOCKET)(SOCKET s,
                                    DWORD dwProcessId,
                                    LPWSAPROTOCOL_INFOW lpProtocolInfo,
                                    LPINT lpErrno);

/**
 * What happened to a socket since it was last asked: WSPEnumNetworkEvents.
 */
typedef struct WSANETWORKEVENTS {
    /**
     * FD_ACCEPT, FD_CONNECT.
     */
    LONG lNetworkEvents;
    /**
     * Error codes by bit number: FD_ACCEPT_BIT, FD_CONNECT_BIT. Only those whose bit is set count.
     */
    int iErrorCode[FD_MAX_EVENTS];
} WSANETWORKEVENTS;

/**
 * Points to a WSANETWORKEVENTS.
 */
typedef struct WSANETWORKEVENTS *LPWSANETWORKEVENTS;

/**
 * WSPEnumNetworkEvents: Takes out what happened since the last call and resets the event (null:
 * none). Only the error codes whose bit is set are written.
 *
 * Errors: WSAEINVAL (null lpNetworkEvents), WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPENUMNETWORKEVENTS)(SOCKET s,
                                      WSAEVENT hEventObject,
                                      LPWSANETWORKEVENTS lpNetworkEvents,
                                      LPINT lpErrno);

/**
 * WSPEventSelect: Names the event to signal when one of the events in the mask (FD_ACCEPT,
 * FD_CONNECT) happens; replaces what was named before. Mask 0 names none. An event that is already
 * recorded is signalled at once.
 *
 * Errors: WSAEINVAL (other bits, or no event), WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPEVENTSELECT)(SOCKET s,
                                WSAEVENT hEventObject,
                                LONG lNetworkEvents,
                                LPINT lpErrno);

/**
 * WSPGetOverlappedResult: Asks how an operation stands, and makes progress. TRUE: done;
 * *lpcbTransfer and *lpdwFlags are set. FALSE: in progress (WSA_IO_INCOMPLETE), or failed with the
 * code of the operation. fWait waits for the completion. Operations complete whichever way hEvent
 * chose, and can be asked for either way.
 *
 * Errors: WSA_IO_INCOMPLETE, the operation's own, WSAEINVAL, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef BOOL (*LPWSPGETOVERLAPPEDRESULT)(SOCKET s,
                                         LPWSAOVERLAPPED lpOverlapped,
                                         LPDWORD lpcbTransfer,
                                         BOOL fWait,
                                         LPDWORD lpdwFlags,
                                         LPINT lpErrno);

/**
 * WSPGetPeerName: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPGETPEERNAME)(SOCKET s,
                                struct sockaddr *name,
                                LPINT namelen,
                                LPINT lpErrno);

/**
 * WSPGetSockName: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPGETSOCKNAME)(SOCKET s,
                                struct sockaddr *name,
                                LPINT namelen,
                                LPINT lpErrno);

/**
 * WSPGetSockOpt: Reads an option: level WSD_SOL_SOCKET; SO_MAX_MSG_SIZE, SO_MAX_RDMA_SIZE,
 * SO_RDMA_THRESHOLD_SIZE (unsigned 32 bits), WSD_SO_DEBUG (BOOL). *optlen is the room before and
 * the length after the call; it is set to the needed length also when the room is too small.
 *
 * Errors: WSAEFAULT (pointers, room), WSAEINVAL (level), WSAENOPROTOOPT, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPGETSOCKOPT)(SOCKET s,
                               int level,
                               int optname,
                               char *optval,
                               LPINT optlen,
                               LPINT lpErrno);

/**
 * WSPGetQOSByName: Quality of service by name. This provider has none and returns FALSE.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef BOOL (*LPWSPGETQOSBYNAME)(SOCKET s,
                                  LPWSABUF lpQOSName,
                                  LPQOS lpQOS,
                                  LPINT lpErrno);

/**
 * A pointer to anything, in or out.
 */
typedef void *LPVOID;

/**
 * A completion routine. On a SAN socket always null: completions are polled or reported through
 * WPUCompleteOverlappedRequest.
 */
typedef void (*LPWSAOVERLAPPED_COMPLETION_ROUTINE)(DWORD dwError,
                                                   DWORD cbTransferred,
                                                   LPWSAOVERLAPPED lpOverlapped,
                                                   DWORD dwFlags);

/**
 * WSPIoctl: Control codes. SIO_GET_EXTENSION_FUNCTION_POINTER: in a GUID, out the function that it
 * names; s may be INVALID_SOCKET. SIO_ADDRESS_LIST_QUERY: out a SOCKET_ADDRESS_LIST and behind it,
 * in the same buffer, its addresses; with too little room *lpcbBytesReturned is the needed size.
 *
 * Errors: WSAEFAULT (pointers, room), WSAEINVAL (code, unknown GUID), WSAEOPNOTSUPP (an optional
 * function that is absent), WSAENOPROTOOPT (quality of service), WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPIOCTL)(SOCKET s,
                          DWORD dwIoControlCode,
                          LPVOID lpvInBuffer,
                          DWORD cbInBuffer,
                          LPVOID lpvOutBuffer,
                          DWORD cbOutBuffer,
                          LPDWORD lpcbBytesReturned,
                          LPWSAOVERLAPPED lpOverlapped,
                          LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                          LPWSATHREADID lpThreadId,
                          LPINT lpErrno);

/**
 * WSPJoinLeaf: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef SOCKET (*LPWSPJOINLEAF)(SOCKET s,
                                const struct sockaddr *name,
                                int namelen,
                                LPWSABUF lpCallerData,
                                LPWSABUF lpCalleeData,
                                LPQOS lpSQOS,
                                LPQOS lpGQOS,
                                DWORD dwFlags,
                                LPINT lpErrno);

/**
 * WSPListen: Lets a bound socket take connection requests; each is recorded as FD_ACCEPT. When
 * backlog requests wait, further ones are refused: the peer sees WSAECONNREFUSED. WSD_SOMAXCONN
 * lets the provider choose. Called again, it changes the backlog.
 *
 * Errors: WSAEINVAL (not bound), WSAEISCONN, WSAENOBUFS, WSAEMFILE, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPLISTEN)(SOCKET s,
                           int backlog,
                           LPINT lpErrno);

/**
 * WSPRecv: Posts memory for one message. Receives are filled in posting order, one message each.
 * The memory lies in regions that were registered with MEM_WRITE or MEM_READWRITE on this socket;
 * it and the overlapped structure belong to the provider until completion. A message larger than
 * the memory completes with WSAEMSGSIZE and ends the connection.
 *
 * Errors: WSA_IO_PENDING (posted: the normal case), WSAEFAULT (no such registration), WSAEINVAL
 * (pieces, overlapped structure), WSAENOTCONN, WSAEWOULDBLOCK (too many posted), WSAECONNRESET,
 * WSAECONNABORTED, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPRECV)(SOCKET s,
                         LPWSABUF lpBuffers,
                         DWORD dwBufferCount,
                         LPDWORD lpNumberOfBytesRecvd,
                         LPDWORD lpFlags,
                         LPWSAOVERLAPPED lpOverlapped,
                         LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                         LPWSATHREADID lpThreadId,
                         LPINT lpErrno);

/**
 * WSPRecvDisconnect: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPRECVDISCONNECT)(SOCKET s,
                                   LPWSABUF lpInboundDisconnectData,
                                   LPINT lpErrno);

/**
 * WSPRecvFrom: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPRECVFROM)(SOCKET s,
                             LPWSABUF lpBuffers,
                             DWORD dwBufferCount,
                             LPDWORD lpNumberOfBytesRecvd,
                             LPDWORD lpFlags,
                             struct sockaddr *lpFrom,
                             LPINT lpFromlen,
                             LPWSAOVERLAPPED lpOverlapped,
                             LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                             LPWSATHREADID lpThreadId,
                             LPINT lpErrno);

/**
 * WSPSelect: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPSELECT)(int nfds,
                           fd_set *readfds,
                           fd_set *writefds,
                           fd_set *exceptfds,
                           const struct timeval *timeout,
                           LPINT lpErrno);

/**
 * WSPSend: Sends one message, gathered from pieces in registered memory of this socket. dwFlags is
 * 0. Messages arrive in the order of the calls. Memory and overlapped structure belong to the
 * provider until completion, which says that the memory may be reused, not that the peer has the
 * message. The array needs to last for the call only.
 *
 * Errors: WSA_IO_PENDING (started), WSAEMSGSIZE (larger than SO_MAX_MSG_SIZE), WSAEFAULT (no such
 * registration), WSAEINVAL (flags, pieces, overlapped structure), WSAENOTCONN, WSAEWOULDBLOCK (too
 * many in progress), WSAECONNRESET, WSAECONNABORTED, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPSEND)(SOCKET s,
                         LPWSABUF lpBuffers,
                         DWORD dwBufferCount,
                         LPDWORD lpNumberOfBytesSent,
                         DWORD dwFlags,
                         LPWSAOVERLAPPED lpOverlapped,
                         LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                         LPWSATHREADID lpThreadId,
                         LPINT lpErrno);

/**
 * WSPSendDisconnect: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPSENDDISCONNECT)(SOCKET s,
                                   LPWSABUF lpOutboundDisconnectData,
                                   LPINT lpErrno);

/**
 * WSPSendTo: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPSENDTO)(SOCKET s,
                           LPWSABUF lpBuffers,
                           DWORD dwBufferCount,
                           LPDWORD lpNumberOfBytesSent,
                           DWORD dwFlags,
                           const struct sockaddr *lpTo,
                           int iTolen,
                           LPWSAOVERLAPPED lpOverlapped,
                           LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                           LPWSATHREADID lpThreadId,
                           LPINT lpErrno);

/**
 * WSPSetSockOpt: Sets an option: WSD_SO_DEBUG (BOOL) at level WSD_SOL_SOCKET.
 *
 * Errors: WSAEFAULT, WSAEINVAL (level, value), WSAENOPROTOOPT, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any.
 */
typedef int (*LPWSPSETSOCKOPT)(SOCKET s,
                               int level,
                               int optname,
                               const char *optval,
                               int optlen,
                               LPINT lpErrno);

/**
 * WSPShutdown: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPSHUTDOWN)(SOCKET s,
                             int how,
                             LPINT lpErrno);

/**
 * WSPSocket: Makes a socket: AF_INET or AF_INET6, SOCK_STREAM, IPPROTO_TCP, g 0, dwFlags
 * WSA_FLAG_OVERLAPPED; FROM_PROTOCOL_INFO takes a value from lpProtocolInfo. Calls
 * WPUCreateSocketHandle once before it returns. Returns INVALID_SOCKET on failure.
 *
 * Errors: WSAEAFNOSUPPORT, WSAEPROTOTYPE, WSAEPROTONOSUPPORT, WSAESOCKTNOSUPPORT, WSAEINVAL (g,
 * dwFlags, token), WSAEMFILE, WSAENOBUFS, WSAENETDOWN, WSANOTINITIALISED.
 * Threads: any.
 */
typedef SOCKET (*LPWSPSOCKET)(int af,
                              int type_,
                              int protocol,
                              LPWSAPROTOCOL_INFOW lpProtocolInfo,
                              GROUP g,
                              DWORD dwFlags,
                              LPINT lpErrno);

/**
 * WSPStringToAddress: Not served on a SAN.
 *
 * Errors: WSAEOPNOTSUPP.
 * Threads: any.
 */
typedef int (*LPWSPSTRINGTOADDRESS)(LPWSTR AddressString,
                                    int AddressFamily,
                                    LPWSAPROTOCOL_INFOW lpProtocolInfo,
                                    struct sockaddr *lpAddress,
                                    LPINT lpAddressLength,
                                    LPINT lpErrno);

/**
 * The functions of a provider.
 */
typedef struct WSPPROC_TABLE {
    /**
     * Slot 0.
     */
    LPWSPACCEPT lpWSPAccept;
    /**
     * Slot 1; not served on a SAN.
     */
    LPWSPADDRESSTOSTRING lpWSPAddressToString;
    /**
     * Slot 2; not served on a SAN.
     */
    LPWSPASYNCSELECT lpWSPAsyncSelect;
    /**
     * Slot 3.
     */
    LPWSPBIND lpWSPBind;
    /**
     * Slot 4; not served on a SAN.
     */
    LPWSPCANCELBLOCKINGCALL lpWSPCancelBlockingCall;
    /**
     * Slot 5.
     */
    LPWSPCLEANUP lpWSPCleanup;
    /**
     * Slot 6.
     */
    LPWSPCLOSESOCKET lpWSPCloseSocket;
    /**
     * Slot 7.
     */
    LPWSPCONNECT lpWSPConnect;
    /**
     * Slot 8.
     */
    LPWSPDUPLICATESOCKET lpWSPDuplicateSocket;
    /**
     * Slot 9.
     */
    LPWSPENUMNETWORKEVENTS lpWSPEnumNetworkEvents;
    /**
     * Slot 10.
     */
    LPWSPEVENTSELECT lpWSPEventSelect;
    /**
     * Slot 11.
     */
    LPWSPGETOVERLAPPEDRESULT lpWSPGetOverlappedResult;
    /**
     * Slot 12; not served on a SAN.
     */
    LPWSPGETPEERNAME lpWSPGetPeerName;
    /**
     * Slot 13; not served on a SAN.
     */
    LPWSPGETSOCKNAME lpWSPGetSockName;
    /**
     * Slot 14.
     */
    LPWSPGETSOCKOPT lpWSPGetSockOpt;
    /**
     * Slot 15.
     */
    LPWSPGETQOSBYNAME lpWSPGetQOSByName;
    /**
     * Slot 16.
     */
    LPWSPIOCTL lpWSPIoctl;
    /**
     * Slot 17; not served on a SAN.
     */
    LPWSPJOINLEAF lpWSPJoinLeaf;
    /**
     * Slot 18.
     */
    LPWSPLISTEN lpWSPListen;
    /**
     * Slot 19.
     */
    LPWSPRECV lpWSPRecv;
    /**
     * Slot 20; not served on a SAN.
     */
    LPWSPRECVDISCONNECT lpWSPRecvDisconnect;
    /**
     * Slot 21; not served on a SAN.
     */
    LPWSPRECVFROM lpWSPRecvFrom;
    /**
     * Slot 22; not served on a SAN.
     */
    LPWSPSELECT lpWSPSelect;
    /**
     * Slot 23.
     */
    LPWSPSEND lpWSPSend;
    /**
     * Slot 24; not served on a SAN.
     */
    LPWSPSENDDISCONNECT lpWSPSendDisconnect;
    /**
     * Slot 25; not served on a SAN.
     */
    LPWSPSENDTO lpWSPSendTo;
    /**
     * Slot 26.
     */
    LPWSPSETSOCKOPT lpWSPSetSockOpt;
    /**
     * Slot 27; not served on a SAN.
     */
    LPWSPSHUTDOWN lpWSPShutdown;
    /**
     * Slot 28.
     */
    LPWSPSOCKET lpWSPSocket;
    /**
     * Slot 29; not served on a SAN.
     */
    LPWSPSTRINGTOADDRESS lpWSPStringToAddress;
} WSPPROC_TABLE;

/**
 * Points to a WSPPROC_TABLE.
 */
typedef struct WSPPROC_TABLE *LPWSPPROC_TABLE;

/**
 * A pointer to anything, in or out.
 */
typedef void *PVOID;

/**
 * An address of a SOCKET_ADDRESS_LIST.
 */
typedef struct SOCKET_ADDRESS {
    /**
     * The host's struct sockaddr_in or struct sockaddr_in6; port 0. Lies in the same buffer as the
     * list.
     */
    struct sockaddr *lpSockaddr;
    /**
     * Its length.
     */
    int iSockaddrLength;
} SOCKET_ADDRESS;

/**
 * The answer to SIO_ADDRESS_LIST_QUERY.
 */
typedef struct SOCKET_ADDRESS_LIST {
    /**
     * How many addresses follow.
     */
    int iAddressCount;
    /**
     * As many as iAddressCount says; their socket addresses stand behind them in the buffer.
     */
    struct SOCKET_ADDRESS Address[1];
} SOCKET_ADDRESS_LIST;

/**
 * Points to a SOCKET_ADDRESS_LIST.
 */
typedef struct SOCKET_ADDRESS_LIST *LPSOCKET_ADDRESS_LIST;

/**
 * The type of WSPStartupEx, for callers that look it up by name.
 */
typedef int (*LPWSPSTARTUPEX)(WORD wVersionRequested,
                              LPWSPDATA lpWSPData,
                              LPWSAPROTOCOL_INFOW lpProtocolInfo,
                              LPWSPUPCALLTABLEEX lpUpcallTable,
                              LPWSPPROC_TABLE lpProcTable);

/**
 * Registers memory for local use on one connected socket: as source of WSPSend and WSPRdmaWrite
 * (MEM_READ), as target of WSPRecv and WSPRdmaRead (MEM_WRITE), or both (MEM_READWRITE).
 *
 * The memory stays mapped until WSPDeregisterMemory has succeeded or the socket is closed. Returns
 * a handle that means something on this socket only, or null. Registering the same region again
 * may return the same handle; then as many deregistrations are due.
 *
 * Errors: WSAENOBUFS, WSAEFAULT (region not wholly in the address space), WSAEINVAL (dwFlags),
 * WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any, at any time.
 */
typedef HANDLE (*LPFN_WSPREGISTERMEMORY)(SOCKET s,
                                         PVOID lpBuffer,
                                         DWORD dwBufferLength,
                                         DWORD dwFlags,
                                         LPINT lpErrno);

/**
 * Takes back one WSPRegisterMemory of the same socket.
 *
 * Errors: WSAEINVAL (unknown handle, or a transfer still uses the region), WSAENOTSOCK,
 * WSAENETDOWN.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPDEREGISTERMEMORY)(SOCKET s,
                                        HANDLE Handle,
                                        LPINT lpErrno);

/**
 * Lets the peer of this connection, and nobody else, reach memory by WSPRdmaRead (MEM_READ), by
 * WSPRdmaWrite (MEM_WRITE) or by both (MEM_READWRITE).
 *
 * Writes into lpRdmaBufferDescriptor the bytes that name the memory; the caller carries them to
 * the peer, whose provider understands them. *lpdwDescriptorLength is the room before and the
 * length after the call. The length is the same for every descriptor of a provider: a call with
 * too little room fails with WSAEFAULT, stores the needed length and registers nothing. The memory
 * stays mapped until WSPDeregisterRdmaMemory has succeeded or the socket is closed.
 *
 * Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSAEFAULT (room, or region not wholly in the address space), WSAENOBUFS, WSAEINVAL
 * (dwFlags), WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPREGISTERRDMAMEMORY)(SOCKET s,
                                          PVOID lpBuffer,
                                          DWORD dwBufferLength,
                                          DWORD dwFlags,
                                          LPVOID lpRdmaBufferDescriptor,
                                          LPDWORD lpdwDescriptorLength,
                                          LPINT lpErrno);

/**
 * Takes back one WSPRegisterRdmaMemory of the same socket. After the last one the peer can no
 * longer reach the memory.
 *
 * Errors: WSAEINVAL (no such descriptor, or a transfer still uses the region), WSAENOTSOCK,
 * WSAENETDOWN.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPDEREGISTERRDMAMEMORY)(SOCKET s,
                                            LPVOID lpRdmaBufferDescriptor,
                                            DWORD dwDescriptorLength,
                                            LPINT lpErrno);

/**
 * A piece of registered memory, for WSPRdmaRead and WSPRdmaWrite.
 */
typedef struct WSABUFEX {
    /**
     * Length in bytes.
     */
    uint32_t len;
    /**
     * First byte.
     */
    char *buf;
    /**
     * What WSPRegisterMemory returned for the region that holds the piece.
     */
    HANDLE handle;
} WSABUFEX;

/**
 * Points to one WSABUFEX or to the first of several.
 */
typedef struct WSABUFEX *LPWSABUFEX;

/**
 * Writes local pieces, gathered in order, to dwTargetBufferOffset of the peer's memory that the
 * descriptor names. Completion means that the local pieces may be reused. A WSPSend issued later
 * on the same socket is delivered to the peer after the written data.
 *
 * The pieces lie in regions registered on the same socket. They stay untouched, and the overlapped
 * structure stays valid, until completion; the array and the descriptor need to last for the call
 * only.
 *
 * Returns 0 (done), or SOCKET_ERROR with WSA_IO_PENDING (started) or an error (not started).
 *
 * Errors: WSA_IO_PENDING, WSAEINVAL (pieces, descriptor), WSAEFAULT, WSAEMSGSIZE, WSAENOBUFS,
 * WSAEWOULDBLOCK (too many in progress), WSAENOTCONN, WSAECONNABORTED, WSAECONNRESET,
 * WSAENOTSOCK, WSAENETDOWN.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPRDMAWRITE)(SOCKET s,
                                 LPWSABUFEX lpBuffers,
                                 DWORD dwBufferCount,
                                 LPVOID lpTargetBufferDescriptor,
                                 DWORD dwTargetDescriptorLength,
                                 DWORD dwTargetBufferOffset,
                                 LPDWORD lpdwNumberOfBytesWritten,
                                 DWORD dwFlags,
                                 LPWSAOVERLAPPED lpOverlapped,
                                 LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                                 LPWSATHREADID lpThreadId,
                                 LPINT lpErrno);

/**
 * Reads from dwTargetBufferOffset of the peer's memory that the descriptor names into local
 * pieces, filled in order. Completion means that the data is there. A WSPSend issued after it on
 * the same socket does not reach the peer before the data was taken. Optional: a provider without
 * it answers the query for its GUID with WSAEOPNOTSUPP. Otherwise as WSPRdmaWrite.
 *
 * Errors: as WSPRdmaWrite.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPRDMAREAD)(SOCKET s,
                                LPWSABUFEX lpBuffers,
                                DWORD dwBufferCount,
                                LPVOID lpTargetBufferDescriptor,
                                DWORD dwTargetDescriptorLength,
                                DWORD dwTargetBufferOffset,
                                LPDWORD lpdwNumberOfBytesRead,
                                DWORD dwFlags,
                                LPWSAOVERLAPPED lpOverlapped,
                                LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
                                LPWSATHREADID lpThreadId,
                                LPINT lpErrno);

/**
 * Unsigned, as wide as a pointer: a length in memory.
 */
typedef uintptr_t SIZE_T;

/**
 * Tells a provider that keeps registrations of memory in a cache that the process is about to give
 * the range back to the operating system. Optional: a provider without a cache answers the query
 * for its GUID with WSAEOPNOTSUPP.
 *
 * Errors: WSAEFAULT (cached, and could not be released), WSAEINVAL (not cached).
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK)(LPVOID lpvAddress,
                                                       SIZE_T Size,
                                                       LPINT lpErrno);

/**
 * Points to a BOOL.
 */
typedef BOOL *LPBOOL;

/**
 * An addition of this provider, not part of the published interface: lets a caller that polls
 * (lowest bit of hEvent 1) sleep until there is something to poll.
 *
 * If a completion of the socket can be collected now, *lpfPending is TRUE and nothing is armed.
 * Else *lpfPending is FALSE, and the descriptor stored in *lpDescriptor becomes readable (POLLIN)
 * at the next completion or at the end of the connection. The descriptor is the same for the whole
 * life of the socket and belongs to the provider: wait for it, but do not read or close it. It
 * stays readable until the next WSPArmCompletion. From its first success on the provider itself no
 * longer watches this socket: the caller has taken over waiting, also for the operations that ask
 * for an upcall. Other providers answer the query for its GUID with WSAEINVAL; then start
 * operations with the lowest bit of hEvent 0 and wait for the upcalls.
 *
 * Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSAEFAULT (null lpDescriptor or lpfPending), WSAENOTCONN, WSAENOTSOCK, WSAENETDOWN.
 * Threads: one at a time for one socket.
 */
typedef int (*LPFN_WSPARMCOMPLETION)(SOCKET s,
                                     LPINT lpDescriptor,
                                     LPBOOL lpfPending,
                                     LPINT lpErrno);

/**
 * An addition of this provider, not part of the published interface: the caller makes the
 * provider's progress from now on, by WSPMakeProgress, and the provider starts no thread for it.
 *
 * *lpDescriptor becomes a descriptor that is readable (POLLIN) while WSPMakeProgress has something
 * to do, and when it is over, until WSPMakeProgress has said so, whoever has taken over since. It
 * belongs to the caller, who closes it then, and not before. The promise is given for all sockets of the process, also those of others that have
 * started the provider; it ends with the last WSPCleanup, and cannot be taken back before. Other providers
 * answer the query for its GUID with WSAEINVAL; they make progress themselves.
 *
 * Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSAEALREADY (somebody else has taken it over, or the provider's thread runs: it does from
 * the first WSPListen or WSPConnect on), WSAEFAULT, WSAENOBUFS, WSANOTINITIALISED.
 * Threads: any, at any time.
 */
typedef int (*LPFN_WSPTAKEPROGRESS)(LPINT lpDescriptor,
                                    LPINT lpErrno);

/**
 * An addition of this provider: does what there is to do, without waiting: connects, connections
 * that ask to be accepted, ends of connections, completions of sockets that nobody has armed.
 *
 * Descriptor is the number that WSPTakeProgress has given; it says who asks. To be called when it is
 * readable, and after *lpdwMilliseconds at the
 * latest; 0: at once, WSA_INFINITE: only when it is readable. Makes upcalls, which may call
 * everything else. The thread must not wait for what only a further call brings about.
 *
 * Returns 0, or SOCKET_ERROR.
 *
 * Errors: WSANOTINITIALISED, WSAEINVAL (not what WSPTakeProgress has given since the provider was
 * started: it is over), WSAEINPROGRESS (a call is under way, on another thread or further up on this
 * one: to be called again a little later), WSAEFAULT.
 * Threads: one at a time.
 */
typedef int (*LPFN_WSPMAKEPROGRESS)(int Descriptor,
                                    LPDWORD lpdwMilliseconds,
                                    LPINT lpErrno);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Names WSPRegisterMemory.
 */
extern const struct GUID WSAID_REGISTERMEMORY;

/**
 * Names WSPDeregisterMemory.
 */
extern const struct GUID WSAID_DEREGISTERMEMORY;

/**
 * Names WSPRegisterRdmaMemory.
 */
extern const struct GUID WSAID_REGISTERRDMAMEMORY;

/**
 * Names WSPDeregisterRdmaMemory.
 */
extern const struct GUID WSAID_DEREGISTERRDMAMEMORY;

/**
 * Names WSPRdmaWrite.
 */
extern const struct GUID WSAID_RDMAWRITE;

/**
 * Names WSPRdmaRead.
 */
extern const struct GUID WSAID_RDMAREAD;

/**
 * Names WSPMemoryRegistrationCacheCallback.
 */
extern const struct GUID WSAID_MEMORYREGISTRATIONCACHECALLBACK;

/**
 * Names WSPArmCompletion, an addition of this provider.
 */
extern const struct GUID WSAID_ARMCOMPLETION;

/**
 * Names WSPTakeProgress, an addition of this provider.
 */
extern const struct GUID WSAID_TAKEPROGRESS;

/**
 * Names WSPMakeProgress, an addition of this provider.
 */
extern const struct GUID WSAID_MAKEPROGRESS;

/**
 * Starts the provider and hands out its table: the first call, and the only function that is
 * exported.
 *
 * May be called several times; each successful call wants one WSPCleanup. lpWSPData and
 * lpProcTable are filled. lpProtocolInfo describes the TCP/IP provider and may be null. The 16
 * pointers of lpUpcallTable are copied. The environment is read at the first start (WSD_FABRIC,
 * WSD_RDMA, WSD_RDMA_READ, WSD_RDMA_THRESHOLD, WSD_RING_SIZE, WSD_QUEUE_DEPTH, WSD_REG_CACHE,
 * WSD_REG_WATCH, WSD_SPIN_US).
 *
 * After a fork the child has no sockets: it may start the provider anew, and must not use
 * sockets of its parent.
 *
 * Returns 0, or the code itself; there is no lpErrno.
 *
 * Errors: WSAVERNOTSUPPORTED (below 2.2), WSAEFAULT (a null pointer, or an upcall is missing),
 * WSASYSNOTREADY (the fabric is not available), WSAENETDOWN.
 * Threads: any.
 */
int WSPStartupEx(WORD wVersionRequested,
                 LPWSPDATA lpWSPData,
                 LPWSAPROTOCOL_INFOW lpProtocolInfo,
                 LPWSPUPCALLTABLEEX lpUpcallTable,
                 LPWSPPROC_TABLE lpProcTable);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WSDIRECT_H */
