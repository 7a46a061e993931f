//! Pins the size, alignment and field offsets of every structure: the values of 64-bit Windows.
//!
//! Nothing here may ever change; a build that would change the ABI fails in this file.

use core::mem::{align_of, offset_of, size_of};

use super::base::{GUID, WSABUF, WSABUFEX, WSANETWORKEVENTS, WSAOVERLAPPED, WSATHREADID};
use super::info::{
    FLOWSPEC, QOS, SOCKET_ADDRESS, SOCKET_ADDRESS_LIST, WSAPROTOCOL_INFOW, WSAPROTOCOLCHAIN,
    WSPDATA,
};
use super::table::WSPPROC_TABLE;
use super::upcalls::WSPUPCALLTABLEEX;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the layouts of the interface are those of a 64-bit host");

macro_rules! layout {
    ($type:ty: size $size:literal, align $align:literal { $($field:ident @ $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            $(assert!(offset_of!($type, $field) == $offset);)*
        };
    };
}

// req: WSD-01

layout!(GUID: size 16, align 4 {
    Data1 @ 0,
    Data2 @ 4,
    Data3 @ 6,
    Data4 @ 8,
});
layout!(WSABUF: size 16, align 8 {
    len @ 0,
    buf @ 8,
});
layout!(WSABUFEX: size 24, align 8 {
    len @ 0,
    buf @ 8,
    handle @ 16,
});
layout!(WSAOVERLAPPED: size 32, align 8 {
    Internal @ 0,
    InternalHigh @ 8,
    Offset @ 16,
    OffsetHigh @ 20,
    hEvent @ 24,
});
layout!(WSANETWORKEVENTS: size 44, align 4 {
    lNetworkEvents @ 0,
    iErrorCode @ 4,
});
layout!(SOCKET_ADDRESS: size 16, align 8 {
    lpSockaddr @ 0,
    iSockaddrLength @ 8,
});
layout!(SOCKET_ADDRESS_LIST: size 24, align 8 {
    iAddressCount @ 0,
    Address @ 8,
});
layout!(WSAPROTOCOLCHAIN: size 32, align 4 {
    ChainLen @ 0,
    ChainEntries @ 4,
});
layout!(WSAPROTOCOL_INFOW: size 628, align 4 {
    dwServiceFlags1 @ 0,
    dwServiceFlags2 @ 4,
    dwServiceFlags3 @ 8,
    dwServiceFlags4 @ 12,
    dwProviderFlags @ 16,
    ProviderId @ 20,
    dwCatalogEntryId @ 36,
    ProtocolChain @ 40,
    iVersion @ 72,
    iAddressFamily @ 76,
    iMaxSockAddr @ 80,
    iMinSockAddr @ 84,
    iSocketType @ 88,
    iProtocol @ 92,
    iProtocolMaxOffset @ 96,
    iNetworkByteOrder @ 100,
    iSecurityScheme @ 104,
    dwMessageSize @ 108,
    dwProviderReserved @ 112,
    szProtocol @ 116,
});
layout!(WSPDATA: size 516, align 2 {
    wVersion @ 0,
    wHighVersion @ 2,
    szDescription @ 4,
});
layout!(WSATHREADID: size 16, align 8 {
    ThreadHandle @ 0,
    Reserved @ 8,
});
layout!(FLOWSPEC: size 32, align 4 {
    TokenRate @ 0,
    TokenBucketSize @ 4,
    PeakBandwidth @ 8,
    Latency @ 12,
    DelayVariation @ 16,
    ServiceType @ 20,
    MaxSduSize @ 24,
    MinimumPolicedSize @ 28,
});
layout!(QOS: size 80, align 8 {
    SendingFlowspec @ 0,
    ReceivingFlowspec @ 32,
    ProviderSpecific @ 64,
});
layout!(WSPPROC_TABLE: size 240, align 8 {
    lpWSPAccept @ 0,
    lpWSPAddressToString @ 8,
    lpWSPAsyncSelect @ 16,
    lpWSPBind @ 24,
    lpWSPCancelBlockingCall @ 32,
    lpWSPCleanup @ 40,
    lpWSPCloseSocket @ 48,
    lpWSPConnect @ 56,
    lpWSPDuplicateSocket @ 64,
    lpWSPEnumNetworkEvents @ 72,
    lpWSPEventSelect @ 80,
    lpWSPGetOverlappedResult @ 88,
    lpWSPGetPeerName @ 96,
    lpWSPGetSockName @ 104,
    lpWSPGetSockOpt @ 112,
    lpWSPGetQOSByName @ 120,
    lpWSPIoctl @ 128,
    lpWSPJoinLeaf @ 136,
    lpWSPListen @ 144,
    lpWSPRecv @ 152,
    lpWSPRecvDisconnect @ 160,
    lpWSPRecvFrom @ 168,
    lpWSPSelect @ 176,
    lpWSPSend @ 184,
    lpWSPSendDisconnect @ 192,
    lpWSPSendTo @ 200,
    lpWSPSetSockOpt @ 208,
    lpWSPShutdown @ 216,
    lpWSPSocket @ 224,
    lpWSPStringToAddress @ 232,
});
layout!(WSPUPCALLTABLEEX: size 128, align 8 {
    lpWPUCloseEvent @ 0,
    lpWPUCloseSocketHandle @ 8,
    lpWPUCreateEvent @ 16,
    lpWPUCreateSocketHandle @ 24,
    lpWPUFDIsSet @ 32,
    lpWPUGetProviderPath @ 40,
    lpWPUModifyIFSHandle @ 48,
    lpWPUPostMessage @ 56,
    lpWPUQueryBlockingCallback @ 64,
    lpWPUQuerySocketHandleContext @ 72,
    lpWPUQueueApc @ 80,
    lpWPUResetEvent @ 88,
    lpWPUSetEvent @ 96,
    lpWPUOpenCurrentThread @ 104,
    lpWPUCloseThread @ 112,
    lpWPUCompleteOverlappedRequest @ 120,
});
