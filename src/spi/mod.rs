//! The functions of the table: pointers in, engine calls, codes out.
//!
//! Owns every `extern "C"` body and every conversion of what crosses the boundary. Decides nothing
//! about sockets. Invariant: whatever the arguments, a function returns; a panic, a null pointer, a
//! stale socket or a wrong length is a code (docs/api-conventions.md says what a caller must
//! promise nevertheless).

#![allow(unsafe_code)] // the boundary: every pointer that C gives is followed here
// The parameters of the interface.
#![allow(clippy::too_many_arguments)]

mod args;
mod codes;
mod connection;
mod duplicate;
mod entry;
mod events;
mod memory;
mod options;
mod overlapped;
mod progress;
mod startup;
mod sys;
mod transfer;
mod unsupported;
mod upcall;

#[cfg(test)]
mod tests;

pub(crate) use startup::startup;

use crate::abi::WSPPROC_TABLE;

/// What WSPStartupEx hands out. No slot is null.
// req: WSD-01
pub(crate) static PROC_TABLE: WSPPROC_TABLE = WSPPROC_TABLE {
    lpWSPAccept: Some(connection::accept),
    lpWSPAddressToString: Some(unsupported::address_to_string),
    lpWSPAsyncSelect: Some(unsupported::async_select),
    lpWSPBind: Some(connection::bind),
    lpWSPCancelBlockingCall: Some(unsupported::cancel_blocking_call),
    lpWSPCleanup: Some(startup::cleanup),
    lpWSPCloseSocket: Some(connection::close_socket),
    lpWSPConnect: Some(connection::connect),
    lpWSPDuplicateSocket: Some(duplicate::duplicate_socket),
    lpWSPEnumNetworkEvents: Some(events::enum_network_events),
    lpWSPEventSelect: Some(events::event_select),
    lpWSPGetOverlappedResult: Some(transfer::get_overlapped_result),
    lpWSPGetPeerName: Some(unsupported::get_peer_name),
    lpWSPGetSockName: Some(unsupported::get_sock_name),
    lpWSPGetSockOpt: Some(options::get_sock_opt),
    lpWSPGetQOSByName: Some(options::get_qos_by_name),
    lpWSPIoctl: Some(options::ioctl),
    lpWSPJoinLeaf: Some(unsupported::join_leaf),
    lpWSPListen: Some(connection::listen),
    lpWSPRecv: Some(transfer::recv),
    lpWSPRecvDisconnect: Some(unsupported::recv_disconnect),
    lpWSPRecvFrom: Some(unsupported::recv_from),
    lpWSPSelect: Some(unsupported::select),
    lpWSPSend: Some(transfer::send),
    lpWSPSendDisconnect: Some(unsupported::send_disconnect),
    lpWSPSendTo: Some(unsupported::send_to),
    lpWSPSetSockOpt: Some(options::set_sock_opt),
    lpWSPShutdown: Some(unsupported::shutdown),
    lpWSPSocket: Some(connection::socket),
    lpWSPStringToAddress: Some(unsupported::string_to_address),
};
