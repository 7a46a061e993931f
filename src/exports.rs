//! Every symbol that the shared library exports; there are no others (`tests/symbols.rs`).

#![allow(unsafe_code)] // `no_mangle` is what makes a symbol

use core::ffi::c_int;

use crate::abi::{
    self, GUID, LPWSAPROTOCOL_INFOW, LPWSPDATA, LPWSPPROC_TABLE, LPWSPUPCALLTABLEEX, WORD,
};
use crate::spi;

/// Starts the provider and hands out its table: the first call, and the only function that is
/// exported.
///
/// May be called several times; each successful call wants one WSPCleanup. lpWSPData and
/// lpProcTable are filled. lpProtocolInfo describes the TCP/IP provider and may be null. The 16
/// pointers of lpUpcallTable are copied. The environment is read at the first start (WSD_FABRIC,
/// WSD_RDMA, WSD_RDMA_READ, WSD_RDMA_THRESHOLD, WSD_RING_SIZE, WSD_QUEUE_DEPTH, WSD_REG_CACHE,
/// WSD_REG_WATCH, WSD_SPIN_US).
///
/// After a fork the child has no sockets: it may start the provider anew, and must not use
/// sockets of its parent.
///
/// Returns 0, or the code itself; there is no lpErrno.
///
/// Errors: WSAVERNOTSUPPORTED (below 2.2), WSAEFAULT (a null pointer, or an upcall is missing),
/// WSASYSNOTREADY (the fabric is not available), WSAENETDOWN.
/// Threads: any.
// The published names; the parameters become the header's.
#[allow(non_snake_case, clippy::missing_safety_doc)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSPStartupEx(
    wVersionRequested: WORD,
    lpWSPData: LPWSPDATA,
    lpProtocolInfo: LPWSAPROTOCOL_INFOW,
    lpUpcallTable: LPWSPUPCALLTABLEEX,
    lpProcTable: LPWSPPROC_TABLE,
) -> c_int {
    // SAFETY: the caller's promises about the pointers are passed on.
    unsafe {
        spi::startup(
            wVersionRequested,
            lpWSPData,
            lpProtocolInfo,
            lpUpcallTable,
            lpProcTable,
        )
    }
}

/// Names WSPRegisterMemory.
#[unsafe(no_mangle)]
pub static WSAID_REGISTERMEMORY: GUID = abi::WSAID_REGISTERMEMORY;
/// Names WSPDeregisterMemory.
#[unsafe(no_mangle)]
pub static WSAID_DEREGISTERMEMORY: GUID = abi::WSAID_DEREGISTERMEMORY;
/// Names WSPRegisterRdmaMemory.
#[unsafe(no_mangle)]
pub static WSAID_REGISTERRDMAMEMORY: GUID = abi::WSAID_REGISTERRDMAMEMORY;
/// Names WSPDeregisterRdmaMemory.
#[unsafe(no_mangle)]
pub static WSAID_DEREGISTERRDMAMEMORY: GUID = abi::WSAID_DEREGISTERRDMAMEMORY;
/// Names WSPRdmaWrite.
#[unsafe(no_mangle)]
pub static WSAID_RDMAWRITE: GUID = abi::WSAID_RDMAWRITE;
/// Names WSPRdmaRead.
#[unsafe(no_mangle)]
pub static WSAID_RDMAREAD: GUID = abi::WSAID_RDMAREAD;
/// Names WSPMemoryRegistrationCacheCallback.
#[unsafe(no_mangle)]
pub static WSAID_MEMORYREGISTRATIONCACHECALLBACK: GUID = abi::WSAID_MEMORYREGISTRATIONCACHECALLBACK;
/// Names WSPArmCompletion, an addition of this provider.
#[unsafe(no_mangle)]
pub static WSAID_ARMCOMPLETION: GUID = abi::WSAID_ARMCOMPLETION;
/// Names WSPTakeProgress, an addition of this provider.
#[unsafe(no_mangle)]
pub static WSAID_TAKEPROGRESS: GUID = abi::WSAID_TAKEPROGRESS;
/// Names WSPMakeProgress, an addition of this provider.
#[unsafe(no_mangle)]
pub static WSAID_MAKEPROGRESS: GUID = abi::WSAID_MAKEPROGRESS;
