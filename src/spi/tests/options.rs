//! Options and control codes.

use core::ffi::{c_int, c_void};

use super::harness::*;
use crate::abi::*;

fn option(s: SOCKET, level: c_int, name: c_int, room: c_int) -> Result<u32, (c_int, c_int)> {
    let mut value = 0xAAAA_AAAA_u32;
    let mut length = room;
    let place = (&raw mut value).cast();
    let result = call(SOCKET_ERROR, |e| {
        table!(lpWSPGetSockOpt(s, level, name, place, &raw mut length, e))
    });
    match result {
        Ok(_) => {
            assert_eq!(length, 4);
            Ok(value)
        }
        Err(code) => {
            assert_eq!(value, 0xAAAA_AAAA);
            Err((code, length))
        }
    }
}

#[test]
fn options_have_values_and_the_others_codes() {
    let _session = Session::new();
    let socket = Sock::new();
    let s = socket.s;
    let get = |level, name| option(s, level, name, 4);
    assert!(get(WSD_SOL_SOCKET, SO_MAX_MSG_SIZE).unwrap() >= 4096);
    assert!(get(WSD_SOL_SOCKET, SO_MAX_RDMA_SIZE).unwrap() >= 1 << 20);
    get(WSD_SOL_SOCKET, SO_RDMA_THRESHOLD_SIZE).unwrap();
    assert_eq!(get(WSD_SOL_SOCKET, WSD_SO_DEBUG), Ok(0));
    for (level, name, code) in [
        (WSD_SOL_SOCKET, SO_GROUP_ID, WSAENOPROTOOPT),
        (WSD_SOL_SOCKET, WSD_SO_ERROR, WSAENOPROTOOPT),
        (libc::IPPROTO_TCP, WSD_TCP_NODELAY, WSAENOPROTOOPT),
        (4711, SO_MAX_MSG_SIZE, WSAEINVAL),
    ] {
        assert_eq!(get(level, name).unwrap_err().0, code);
    }
    let short = option(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, 3);
    assert_eq!(short, Err((WSAEFAULT, 4)));
    // More room than needed is no mistake.
    assert!(option(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, 64).is_ok());
}

#[test]
fn the_debug_option_is_kept_and_inherited() {
    let _session = Session::new();
    let set = |s, level, name, value: BOOL, length| {
        let place = (&raw const value).cast();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPSetSockOpt(s, level, name, place, length, e))
        })
    };
    let listener = Sock::listening(4);
    let s = listener.s;
    assert_eq!(set(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, 1, 3), Err(WSAEFAULT));
    assert_eq!(
        set(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, 1, 4),
        Err(WSAENOPROTOOPT)
    );
    assert_eq!(set(s, 4711, WSD_SO_DEBUG, 1, 4), Err(WSAEINVAL));
    assert_eq!(
        set(s, libc::IPPROTO_TCP, WSD_TCP_NODELAY, 1, 4),
        Err(WSAENOPROTOOPT)
    );
    assert_eq!(set(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, 5, 4), Ok(0));
    let (a, b) = pair_through(&listener);
    assert_eq!(option(b.s, WSD_SOL_SOCKET, WSD_SO_DEBUG, 4), Ok(1));
    assert_eq!(option(a.s, WSD_SOL_SOCKET, WSD_SO_DEBUG, 4), Ok(0));
}

struct Control {
    input: LPVOID,
    input_len: u32,
    output: LPVOID,
    output_len: u32,
}

fn ioctl(s: SOCKET, code: u32, control: &Control) -> Result<u32, (c_int, u32)> {
    let mut returned = 0;
    let result = call(SOCKET_ERROR, |e| {
        table!(lpWSPIoctl(
            s,
            code,
            control.input,
            control.input_len,
            control.output,
            control.output_len,
            &raw mut returned,
            std::ptr::null_mut(),
            None,
            std::ptr::null_mut(),
            e
        ))
    });
    result.map(|_| returned).map_err(|code| (code, returned))
}

fn extension(s: SOCKET, mut id: GUID) -> Result<*mut c_void, c_int> {
    let mut function: *mut c_void = std::ptr::null_mut();
    let control = Control {
        input: (&raw mut id).cast(),
        input_len: 16,
        output: (&raw mut function).cast(),
        output_len: 8,
    };
    let returned =
        ioctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &control).map_err(|(code, _)| code)?;
    assert_eq!(returned, 8);
    Ok(function)
}

#[test]
fn no_room_for_the_length_is_an_error_that_leaves_the_output_alone() {
    let _session = Session::new();
    let mut id = WSAID_RDMAWRITE;
    let untouched: *mut c_void = std::ptr::without_provenance_mut(1);
    let mut function = untouched;
    let result = call(SOCKET_ERROR, |e| {
        table!(lpWSPIoctl(
            INVALID_SOCKET,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw mut id).cast(),
            16,
            (&raw mut function).cast(),
            8,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            None,
            std::ptr::null_mut(),
            e
        ))
    });
    assert_eq!(result, Err(WSAEFAULT));
    assert_eq!(function, untouched);
}

// req: WSD-04
#[test]
fn extension_functions_are_handed_out_for_any_socket() {
    let _session = Session::new();
    let socket = Sock::new();
    for s in [socket.s, INVALID_SOCKET, 0, 12345] {
        for id in [
            WSAID_REGISTERMEMORY,
            WSAID_DEREGISTERMEMORY,
            WSAID_REGISTERRDMAMEMORY,
            WSAID_DEREGISTERRDMAMEMORY,
            WSAID_RDMAWRITE,
            WSAID_RDMAREAD,
            WSAID_ARMCOMPLETION,
            WSAID_TAKEPROGRESS,
            WSAID_MAKEPROGRESS,
        ] {
            assert!(!extension(s, id).unwrap().is_null());
        }
        let cache = extension(s, WSAID_MEMORYREGISTRATIONCACHECALLBACK);
        // Only where registrations are kept: on a host with RDMA devices.
        let keeps = crate::engine::running().unwrap().0.keeps_registrations();
        match cache {
            Ok(function) => assert!(keeps && !function.is_null()),
            Err(code) => assert_eq!((keeps, code), (false, WSAEOPNOTSUPP)),
        }
        assert_eq!(extension(s, GUID::default()), Err(WSAEINVAL));
    }
}

#[test]
fn control_codes_check_their_memory() {
    let _session = Session::new();
    let socket = Sock::new();
    let mut id = WSAID_RDMAWRITE;
    let mut function = 0_usize;
    let (input, output) = ((&raw mut id).cast(), (&raw mut function).cast());
    let good = || Control {
        input,
        input_len: 16,
        output,
        output_len: 8,
    };
    let code = SIO_GET_EXTENSION_FUNCTION_POINTER;
    let none: LPVOID = std::ptr::null_mut();
    let short = |control: Control| ioctl(socket.s, code, &control).unwrap_err();
    assert_eq!(
        short(Control {
            input_len: 15,
            ..good()
        })
        .0,
        WSAEFAULT
    );
    assert_eq!(
        short(Control {
            input: none,
            ..good()
        })
        .0,
        WSAEFAULT
    );
    assert_eq!(
        short(Control {
            output: none,
            ..good()
        })
        .0,
        WSAEFAULT
    );
    assert_eq!(
        short(Control {
            output_len: 7,
            ..good()
        }),
        (WSAEFAULT, 8)
    );
    assert_eq!(ioctl(socket.s, 0x1234, &good()).unwrap_err().0, WSAEINVAL);
    assert_eq!(
        ioctl(socket.s, SIO_GET_QOS, &good()).unwrap_err().0,
        WSAENOPROTOOPT
    );
    assert_eq!(
        ioctl(INVALID_SOCKET, 0x1234, &good()).unwrap_err().0,
        WSAENOTSOCK
    );
}

// req: WSD-05
#[test]
fn the_address_list_is_probed_for_its_size_and_then_fits() {
    let _session = Session::new();
    let socket = Sock::new();
    let code = SIO_ADDRESS_LIST_QUERY;
    let query = |output: LPVOID, output_len| {
        let control = Control {
            input: std::ptr::null_mut(),
            input_len: 0,
            output,
            output_len,
        };
        ioctl(socket.s, code, &control)
    };
    let (error, needed) = query(std::ptr::null_mut(), 0).unwrap_err();
    assert_eq!(error, WSAEFAULT);
    let mut room = vec![0_u64; (needed as usize).div_ceil(8) + 4];
    let base = room.as_mut_ptr();
    assert_eq!(query(base.cast(), needed - 1), Err((WSAEFAULT, needed)));
    assert!(room.iter().all(|word| *word == 0));
    let base = room.as_mut_ptr();
    assert_eq!(query(base.cast(), needed), Ok(needed));
    let list: *const SOCKET_ADDRESS_LIST = base.cast();
    // SAFETY: the call has filled it.
    let count = unsafe { (*list).iAddressCount };
    let count = usize::try_from(count).unwrap();
    assert!(count > 0);
    // SAFETY: as above.
    let first = unsafe { &raw const (*list).Address }.cast::<SOCKET_ADDRESS>();
    // SAFETY: the array has as many entries as it says.
    let entries = unsafe { std::slice::from_raw_parts(first, count) };
    let inside = base.addr()..base.addr() + needed as usize;
    let mut addresses = Vec::new();
    for entry in entries {
        let at = entry.lpSockaddr.addr();
        let length = usize::try_from(entry.iSockaddrLength).unwrap();
        assert!(inside.contains(&at) && at + length <= inside.end);
        // SAFETY: lies in the buffer, and was filled.
        let address =
            unsafe { super::super::args::address(entry.lpSockaddr, entry.iSockaddrLength) };
        let address = address.unwrap();
        assert_eq!(address.port(), 0);
        addresses.push(address.ip());
    }
    assert!(addresses.iter().any(|ip| ip.is_loopback() && ip.is_ipv4()));
    assert!(
        addresses.is_sorted_by_key(std::net::IpAddr::is_ipv6),
        "IPv4 first"
    );
    let query = query(base.cast(), needed + 32);
    assert!(query.is_ok());
}

#[test]
fn what_is_not_served_says_so() {
    let _session = Session::new();
    let (a, _b) = pair();
    let (none, info) = (std::ptr::null_mut(), std::ptr::null_mut());
    let qos = call(FALSE, |e| {
        table!(lpWSPGetQOSByName(a.s, none, std::ptr::null_mut(), e))
    });
    assert_eq!(qos, Err(WSAEOPNOTSUPP));
    let duplicate = call(SOCKET_ERROR, |e| {
        table!(lpWSPDuplicateSocket(a.s, 1, info, e))
    });
    assert_eq!(duplicate, Err(WSAEOPNOTSUPP));
    let shutdown = call(SOCKET_ERROR, |e| table!(lpWSPShutdown(a.s, SD_BOTH, e)));
    assert_eq!(shutdown, Err(WSAEOPNOTSUPP));
    let cancel = call(SOCKET_ERROR, |e| table!(lpWSPCancelBlockingCall(e)));
    assert_eq!(cancel, Err(WSAEOPNOTSUPP));
    // The connection does not mind.
    pass(&a, &_b, b"as before");
}
