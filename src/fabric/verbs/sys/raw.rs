//! The shim as C sees it: `shim.h`, which asserts the sizes of what both share. What is opaque here is
//! only ever pointed to.

use std::ffi::c_void;

#[repr(C)]
pub(super) struct Channel {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(super) struct Conn {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(super) struct Cq {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(super) struct Mr {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Address {
    pub(super) ip: [u8; 16],
    pub(super) scope: u32,
    pub(super) port: u16,
    pub(super) family: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) max_message: u64,
    pub(super) max_queue: u32,
    pub(super) max_completions: u32,
    pub(super) max_pieces: u32,
    pub(super) max_read_pieces: u32,
    pub(super) reads_in: u32,
    pub(super) reads_out: u32,
    pub(super) iwarp: u32,
    pub(super) padding: u32,
}

#[repr(C)]
pub(super) struct Queues {
    pub(super) sends: u32,
    pub(super) receives: u32,
    pub(super) pieces: u32,
    pub(super) inline_bytes: u32,
}

#[repr(C)]
pub(super) struct Event {
    pub(super) context: u64,
    pub(super) conn: *mut Conn,
    pub(super) kind: i32,
    pub(super) status: i32,
    pub(super) reads_in: u8,
    pub(super) reads_out: u8,
    pub(super) length: u8,
    pub(super) data: [u8; 69],
}
const _: () = assert!(size_of::<Event>() == 96 && size_of::<Address>() == 24);

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DeviceEvent {
    pub(super) context: u64,
    pub(super) kind: i32,
    pub(super) raw: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) remote: u64,
    pub(super) pieces: *const super::Sge,
    pub(super) count: i32,
    pub(super) flags: i32,
}
const _: () = assert!(size_of::<Part>() == 32);

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Completion {
    pub(super) number: u64,
    pub(super) status: u32,
    pub(super) bytes: u32,
    pub(super) raw: u32,
    pub(super) queue: u32,
}

unsafe extern "C" {
    pub(super) fn wsd_devices(list: *mut *mut *mut c_void) -> i32;
    pub(super) fn wsd_devices_free(list: *mut *mut c_void);
    pub(super) fn wsd_device_limits(context: *mut c_void, limits: *mut Limits) -> i32;
    pub(super) fn wsd_device_descriptor(context: *mut c_void) -> i32;
    pub(super) fn wsd_device_next(context: *mut c_void, event: *mut DeviceEvent) -> i32;
    pub(super) fn wsd_channel_open(out: *mut *mut Channel, descriptor: *mut i32) -> i32;
    pub(super) fn wsd_channel_close(channel: *mut Channel);
    pub(super) fn wsd_channel_next(channel: *mut Channel, event: *mut Event) -> i32;
    pub(super) fn wsd_address_served(channel: *mut Channel, address: *const Address) -> i32;
    pub(super) fn wsd_conn_create(channel: *mut Channel, context: u64, out: *mut *mut Conn) -> i32;
    pub(super) fn wsd_conn_destroy(conn: *mut Conn) -> i32;
    pub(super) fn wsd_conn_context(conn: *mut Conn, context: u64);
    pub(super) fn wsd_conn_listen(conn: *mut Conn, at: *const Address, backlog: i32) -> i32;
    pub(super) fn wsd_conn_resolve(
        conn: *mut Conn,
        from: *const Address,
        to: *const Address,
        timeout_ms: i32,
        ack_timeout: i32,
    ) -> i32;
    pub(super) fn wsd_conn_route(conn: *mut Conn, timeout_ms: i32) -> i32;
    pub(super) fn wsd_conn_device(conn: *mut Conn, port: *mut u8) -> *mut c_void;
    pub(super) fn wsd_conn_addresses(conn: *mut Conn, local: *mut Address, peer: *mut Address);
    pub(super) fn wsd_conn_queues(
        conn: *mut Conn,
        cq: *mut Cq,
        context: u64,
        queues: *mut Queues,
        number: *mut u32,
    ) -> i32;
    pub(super) fn wsd_conn_connect(
        conn: *mut Conn,
        data: *const c_void,
        length: u8,
        reads_in: u8,
        reads_out: u8,
        rnr_retry: u8,
    ) -> i32;
    pub(super) fn wsd_conn_accept(
        conn: *mut Conn,
        data: *const c_void,
        length: u8,
        reads_in: u8,
        reads_out: u8,
        rnr_retry: u8,
        ack_timeout: i32,
    ) -> i32;
    pub(super) fn wsd_conn_reject(conn: *mut Conn, data: *const c_void, length: u8) -> i32;
    pub(super) fn wsd_conn_patience(conn: *mut Conn, rnr_timer: u8) -> i32;
    pub(super) fn wsd_conn_fail(conn: *mut Conn) -> i32;
    pub(super) fn wsd_conn_disconnect(conn: *mut Conn) -> i32;
    pub(super) fn wsd_conn_kill(conn: *mut Conn);
    pub(super) fn wsd_conn_post(
        conn: *mut Conn,
        number: u64,
        kind: i32,
        flags: i32,
        pieces: *const super::Sge,
        count: i32,
        remote: u64,
        key: u32,
    ) -> i32;
    pub(super) fn wsd_conn_post_parts(
        conn: *mut Conn,
        kind: i32,
        key: u32,
        parts: *const Part,
        count: i32,
        taken: *mut i32,
    ) -> i32;
    pub(super) fn wsd_conn_post_receive(
        conn: *mut Conn,
        number: u64,
        pieces: *const super::Sge,
        count: i32,
    ) -> i32;
    pub(super) fn wsd_cq_create(
        conn: *mut Conn,
        context: u64,
        entries: u32,
        out: *mut *mut Cq,
        descriptor: *mut i32,
    ) -> i32;
    pub(super) fn wsd_cq_destroy(cq: *mut Cq) -> i32;
    pub(super) fn wsd_cq_poll(cq: *mut Cq, completions: *mut Completion, room: i32) -> i32;
    pub(super) fn wsd_cq_told(cq: *mut Cq) -> i32;
    pub(super) fn wsd_cq_arm(cq: *mut Cq) -> i32;
    pub(super) fn wsd_mr_register(
        conn: *mut Conn,
        address: u64,
        length: u64,
        access: i32,
        out: *mut *mut Mr,
        local: *mut u32,
        remote: *mut u32,
    ) -> i32;
    pub(super) fn wsd_mr_deregister(mr: *mut Mr) -> i32;
}
