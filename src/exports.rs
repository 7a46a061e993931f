//! Every symbol that the shared library exports; there are no others (`tests/symbols.rs`).

#![allow(unsafe_code)] // `no_mangle` is what makes a symbol

use crate::abi::{self, GUID};

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
