/*
 * Sizes, alignments and offsets of every structure, as on 64-bit Windows, seen by a C++17 compiler. The
 * second half checks the widths of the plain types and the names that the header writes by hand.
 *
 * req: WSD-01
 */
#include <wsdirect.h>

#include <cstddef>
#include <type_traits>

#define LAYOUT(type, size, align)                                                                  \
    static_assert(sizeof(type) == (size), "size of " #type);                                      \
    static_assert(alignof(type) == (align), "alignment of " #type)
#define AT(type, field, offset)                                                                    \
    static_assert(offsetof(type, field) == (offset), "offset of " #type "." #field)

LAYOUT(GUID, 16, 4);
AT(GUID, Data1, 0);
AT(GUID, Data2, 4);
AT(GUID, Data3, 6);
AT(GUID, Data4, 8);

LAYOUT(WSABUF, 16, 8);
AT(WSABUF, len, 0);
AT(WSABUF, buf, 8);

LAYOUT(WSABUFEX, 24, 8);
AT(WSABUFEX, len, 0);
AT(WSABUFEX, buf, 8);
AT(WSABUFEX, handle, 16);

LAYOUT(WSAOVERLAPPED, 32, 8);
AT(WSAOVERLAPPED, Internal, 0);
AT(WSAOVERLAPPED, InternalHigh, 8);
AT(WSAOVERLAPPED, Offset, 16);
AT(WSAOVERLAPPED, OffsetHigh, 20);
AT(WSAOVERLAPPED, hEvent, 24);

LAYOUT(WSANETWORKEVENTS, 44, 4);
AT(WSANETWORKEVENTS, lNetworkEvents, 0);
AT(WSANETWORKEVENTS, iErrorCode, 4);

LAYOUT(SOCKET_ADDRESS, 16, 8);
AT(SOCKET_ADDRESS, lpSockaddr, 0);
AT(SOCKET_ADDRESS, iSockaddrLength, 8);

LAYOUT(SOCKET_ADDRESS_LIST, 24, 8);
AT(SOCKET_ADDRESS_LIST, iAddressCount, 0);
AT(SOCKET_ADDRESS_LIST, Address, 8);

LAYOUT(WSAPROTOCOLCHAIN, 32, 4);
AT(WSAPROTOCOLCHAIN, ChainLen, 0);
AT(WSAPROTOCOLCHAIN, ChainEntries, 4);

LAYOUT(WSAPROTOCOL_INFOW, 628, 4);
AT(WSAPROTOCOL_INFOW, dwServiceFlags1, 0);
AT(WSAPROTOCOL_INFOW, dwServiceFlags2, 4);
AT(WSAPROTOCOL_INFOW, dwServiceFlags3, 8);
AT(WSAPROTOCOL_INFOW, dwServiceFlags4, 12);
AT(WSAPROTOCOL_INFOW, dwProviderFlags, 16);
AT(WSAPROTOCOL_INFOW, ProviderId, 20);
AT(WSAPROTOCOL_INFOW, dwCatalogEntryId, 36);
AT(WSAPROTOCOL_INFOW, ProtocolChain, 40);
AT(WSAPROTOCOL_INFOW, iVersion, 72);
AT(WSAPROTOCOL_INFOW, iAddressFamily, 76);
AT(WSAPROTOCOL_INFOW, iMaxSockAddr, 80);
AT(WSAPROTOCOL_INFOW, iMinSockAddr, 84);
AT(WSAPROTOCOL_INFOW, iSocketType, 88);
AT(WSAPROTOCOL_INFOW, iProtocol, 92);
AT(WSAPROTOCOL_INFOW, iProtocolMaxOffset, 96);
AT(WSAPROTOCOL_INFOW, iNetworkByteOrder, 100);
AT(WSAPROTOCOL_INFOW, iSecurityScheme, 104);
AT(WSAPROTOCOL_INFOW, dwMessageSize, 108);
AT(WSAPROTOCOL_INFOW, dwProviderReserved, 112);
AT(WSAPROTOCOL_INFOW, szProtocol, 116);

LAYOUT(WSPDATA, 516, 2);
AT(WSPDATA, wVersion, 0);
AT(WSPDATA, wHighVersion, 2);
AT(WSPDATA, szDescription, 4);

LAYOUT(WSATHREADID, 16, 8);
AT(WSATHREADID, ThreadHandle, 0);
AT(WSATHREADID, Reserved, 8);

LAYOUT(FLOWSPEC, 32, 4);
AT(FLOWSPEC, TokenRate, 0);
AT(FLOWSPEC, TokenBucketSize, 4);
AT(FLOWSPEC, PeakBandwidth, 8);
AT(FLOWSPEC, Latency, 12);
AT(FLOWSPEC, DelayVariation, 16);
AT(FLOWSPEC, ServiceType, 20);
AT(FLOWSPEC, MaxSduSize, 24);
AT(FLOWSPEC, MinimumPolicedSize, 28);

LAYOUT(QOS, 80, 8);
AT(QOS, SendingFlowspec, 0);
AT(QOS, ReceivingFlowspec, 32);
AT(QOS, ProviderSpecific, 64);

LAYOUT(WSPPROC_TABLE, 240, 8);
AT(WSPPROC_TABLE, lpWSPAccept, 0);
AT(WSPPROC_TABLE, lpWSPAddressToString, 8);
AT(WSPPROC_TABLE, lpWSPAsyncSelect, 16);
AT(WSPPROC_TABLE, lpWSPBind, 24);
AT(WSPPROC_TABLE, lpWSPCancelBlockingCall, 32);
AT(WSPPROC_TABLE, lpWSPCleanup, 40);
AT(WSPPROC_TABLE, lpWSPCloseSocket, 48);
AT(WSPPROC_TABLE, lpWSPConnect, 56);
AT(WSPPROC_TABLE, lpWSPDuplicateSocket, 64);
AT(WSPPROC_TABLE, lpWSPEnumNetworkEvents, 72);
AT(WSPPROC_TABLE, lpWSPEventSelect, 80);
AT(WSPPROC_TABLE, lpWSPGetOverlappedResult, 88);
AT(WSPPROC_TABLE, lpWSPGetPeerName, 96);
AT(WSPPROC_TABLE, lpWSPGetSockName, 104);
AT(WSPPROC_TABLE, lpWSPGetSockOpt, 112);
AT(WSPPROC_TABLE, lpWSPGetQOSByName, 120);
AT(WSPPROC_TABLE, lpWSPIoctl, 128);
AT(WSPPROC_TABLE, lpWSPJoinLeaf, 136);
AT(WSPPROC_TABLE, lpWSPListen, 144);
AT(WSPPROC_TABLE, lpWSPRecv, 152);
AT(WSPPROC_TABLE, lpWSPRecvDisconnect, 160);
AT(WSPPROC_TABLE, lpWSPRecvFrom, 168);
AT(WSPPROC_TABLE, lpWSPSelect, 176);
AT(WSPPROC_TABLE, lpWSPSend, 184);
AT(WSPPROC_TABLE, lpWSPSendDisconnect, 192);
AT(WSPPROC_TABLE, lpWSPSendTo, 200);
AT(WSPPROC_TABLE, lpWSPSetSockOpt, 208);
AT(WSPPROC_TABLE, lpWSPShutdown, 216);
AT(WSPPROC_TABLE, lpWSPSocket, 224);
AT(WSPPROC_TABLE, lpWSPStringToAddress, 232);

LAYOUT(WSPUPCALLTABLEEX, 128, 8);
AT(WSPUPCALLTABLEEX, lpWPUCloseEvent, 0);
AT(WSPUPCALLTABLEEX, lpWPUCloseSocketHandle, 8);
AT(WSPUPCALLTABLEEX, lpWPUCreateEvent, 16);
AT(WSPUPCALLTABLEEX, lpWPUCreateSocketHandle, 24);
AT(WSPUPCALLTABLEEX, lpWPUFDIsSet, 32);
AT(WSPUPCALLTABLEEX, lpWPUGetProviderPath, 40);
AT(WSPUPCALLTABLEEX, lpWPUModifyIFSHandle, 48);
AT(WSPUPCALLTABLEEX, lpWPUPostMessage, 56);
AT(WSPUPCALLTABLEEX, lpWPUQueryBlockingCallback, 64);
AT(WSPUPCALLTABLEEX, lpWPUQuerySocketHandleContext, 72);
AT(WSPUPCALLTABLEEX, lpWPUQueueApc, 80);
AT(WSPUPCALLTABLEEX, lpWPUResetEvent, 88);
AT(WSPUPCALLTABLEEX, lpWPUSetEvent, 96);
AT(WSPUPCALLTABLEEX, lpWPUOpenCurrentThread, 104);
AT(WSPUPCALLTABLEEX, lpWPUCloseThread, 112);
AT(WSPUPCALLTABLEEX, lpWPUCompleteOverlappedRequest, 120);

#define UNSIGNED(type, bytes)                                                                      \
    static_assert(sizeof(type) == (bytes) && std::is_unsigned<type>::value, #type)
#define SIGNED(type, bytes)                                                                        \
    static_assert(sizeof(type) == (bytes) && std::is_signed<type>::value, #type)

UNSIGNED(SOCKET, 8);
UNSIGNED(DWORD, 4);
UNSIGNED(ULONG, 4);
UNSIGNED(UINT, 4);
UNSIGNED(WORD, 2);
UNSIGNED(WCHAR, 2);
UNSIGNED(DWORD_PTR, 8);
UNSIGNED(ULONG_PTR, 8);
UNSIGNED(SIZE_T, 8);
UNSIGNED(WPARAM, 8);
UNSIGNED(GROUP, 4);
SIGNED(BOOL, 4);
SIGNED(LONG, 4);
SIGNED(LPARAM, 8);
static_assert(sizeof(HANDLE) == 8 && sizeof(WSAEVENT) == 8, "handles");

static_assert(INVALID_SOCKET == UINTPTR_MAX, "INVALID_SOCKET");
static_assert(SOCKET_ERROR == -1 && FROM_PROTOCOL_INFO == -1, "minus one");
static_assert(SO_DONTLINGER == ~0x80 && SO_EXCLUSIVEADDRUSE == ~0x04, "inverted options");
static_assert(SIO_GET_EXTENSION_FUNCTION_POINTER == 0xC8000006u, "a control code");
static_assert(SIO_ADDRESS_LIST_QUERY == 0x48000016u, "a control code");

int main()
{
    return WSA_INVALID_EVENT == nullptr ? 0 : 1;
}
