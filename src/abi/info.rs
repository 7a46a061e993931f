//! Structures that describe: protocols, the provider, addresses, qualities of service.

use core::ffi::c_int;

use libc::sockaddr;

use super::base::{DWORD, GUID, ULONG, WCHAR, WORD, WSABUF};

/// Most entries of a protocol chain.
pub const MAX_PROTOCOL_CHAIN: usize = 7;
/// Longest protocol name, without the 0 at its end.
pub const WSAPROTOCOL_LEN: usize = 255;
/// Longest description of a provider, without the 0 at its end.
pub const WSPDESCRIPTION_LEN: usize = 255;

/// Which providers stand one above the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WSAPROTOCOLCHAIN {
    /// LAYERED_PROTOCOL, BASE_PROTOCOL, or the number of entries above 1.
    pub ChainLen: c_int,
    /// Catalog entries, topmost first.
    pub ChainEntries: [DWORD; 7],
}

/// What a protocol of a provider is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WSAPROTOCOL_INFOW {
    /// XP1_ flags.
    pub dwServiceFlags1: DWORD,
    /// Reserved: 0.
    pub dwServiceFlags2: DWORD,
    /// Reserved: 0.
    pub dwServiceFlags3: DWORD,
    /// Reserved: 0.
    pub dwServiceFlags4: DWORD,
    /// PFL_ flags.
    pub dwProviderFlags: DWORD,
    /// Names the provider.
    pub ProviderId: GUID,
    /// Number in the catalog.
    pub dwCatalogEntryId: DWORD,
    /// Which providers stand one above the other.
    pub ProtocolChain: WSAPROTOCOLCHAIN,
    /// Version of the protocol.
    pub iVersion: c_int,
    /// Address family.
    pub iAddressFamily: c_int,
    /// Largest socket address.
    pub iMaxSockAddr: c_int,
    /// Smallest socket address.
    pub iMinSockAddr: c_int,
    /// Socket type.
    pub iSocketType: c_int,
    /// Protocol.
    pub iProtocol: c_int,
    /// How many more protocol numbers follow iProtocol.
    pub iProtocolMaxOffset: c_int,
    /// BIGENDIAN or LITTLEENDIAN.
    pub iNetworkByteOrder: c_int,
    /// SECURITY_PROTOCOL_NONE.
    pub iSecurityScheme: c_int,
    /// Largest message.
    pub dwMessageSize: DWORD,
    /// The token of WSPDuplicateSocket; 0 asks WSPSocket for a new socket.
    pub dwProviderReserved: DWORD,
    /// Name, ended by 0.
    pub szProtocol: [WCHAR; 256],
}

impl Default for WSAPROTOCOL_INFOW {
    fn default() -> Self {
        Self {
            dwServiceFlags1: 0,
            dwServiceFlags2: 0,
            dwServiceFlags3: 0,
            dwServiceFlags4: 0,
            dwProviderFlags: 0,
            ProviderId: GUID::default(),
            dwCatalogEntryId: 0,
            ProtocolChain: WSAPROTOCOLCHAIN::default(),
            iVersion: 0,
            iAddressFamily: 0,
            iMaxSockAddr: 0,
            iMinSockAddr: 0,
            iSocketType: 0,
            iProtocol: 0,
            iProtocolMaxOffset: 0,
            iNetworkByteOrder: 0,
            iSecurityScheme: 0,
            dwMessageSize: 0,
            dwProviderReserved: 0,
            szProtocol: [0; 256],
        }
    }
}

/// Points to a WSAPROTOCOL_INFOW.
pub type LPWSAPROTOCOL_INFOW = *mut WSAPROTOCOL_INFOW;

/// What WSPStartupEx tells about the provider.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WSPDATA {
    /// Version of the interface to use: low byte major, high byte minor. 2.2 is 0x0202.
    pub wVersion: WORD,
    /// Highest version that the provider speaks.
    pub wHighVersion: WORD,
    /// Description, ended by 0.
    pub szDescription: [WCHAR; 256],
}

impl Default for WSPDATA {
    fn default() -> Self {
        Self {
            wVersion: 0,
            wHighVersion: 0,
            szDescription: [0; 256],
        }
    }
}

/// Points to a WSPDATA.
pub type LPWSPDATA = *mut WSPDATA;

/// An address of a SOCKET_ADDRESS_LIST.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SOCKET_ADDRESS {
    /// The host's struct sockaddr_in or struct sockaddr_in6; port 0. Lies in the same buffer as the
    /// list.
    pub lpSockaddr: *mut sockaddr,
    /// Its length.
    pub iSockaddrLength: c_int,
}

/// The answer to SIO_ADDRESS_LIST_QUERY.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SOCKET_ADDRESS_LIST {
    /// How many addresses follow.
    pub iAddressCount: c_int,
    /// As many as iAddressCount says; their socket addresses stand behind them in the buffer.
    pub Address: [SOCKET_ADDRESS; 1],
}

/// Points to a SOCKET_ADDRESS_LIST.
pub type LPSOCKET_ADDRESS_LIST = *mut SOCKET_ADDRESS_LIST;

/// How one direction of a connection is to flow. SAN providers without quality of service ignore
/// it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FLOWSPEC {
    /// Bytes per second.
    pub TokenRate: ULONG,
    /// Bytes.
    pub TokenBucketSize: ULONG,
    /// Bytes per second.
    pub PeakBandwidth: ULONG,
    /// Microseconds.
    pub Latency: ULONG,
    /// Microseconds.
    pub DelayVariation: ULONG,
    /// Kind of service.
    pub ServiceType: ULONG,
    /// Bytes.
    pub MaxSduSize: ULONG,
    /// Bytes.
    pub MinimumPolicedSize: ULONG,
}

/// Quality of service of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct QOS {
    /// What this side sends.
    pub SendingFlowspec: FLOWSPEC,
    /// What this side receives.
    pub ReceivingFlowspec: FLOWSPEC,
    /// Whatever else the provider knows.
    pub ProviderSpecific: WSABUF,
}

/// Points to a QOS.
pub type LPQOS = *mut QOS;
