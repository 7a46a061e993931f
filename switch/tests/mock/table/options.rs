//! The mock provider's functions: options, control codes and extension functions.

use super::*;

pub(super) unsafe extern "C" fn get_sock_opt(
    s: SOCKET,
    level: c_int,
    name: c_int,
    value: *mut c_char,
    len: LPINT,
    errno: LPINT,
) -> c_int {
    assert_eq!(level, abi::WSD_SOL_SOCKET);
    // SAFETY: the switch's.
    assert_eq!(unsafe { len.read() }, 4);
    let result = call(s, "GetSockOpt", format!("{name:#x}"), |state| {
        existing(state, s)?;
        let config = &state.config;
        let found = match name {
            abi::SO_MAX_MSG_SIZE => config.max_message,
            abi::SO_MAX_RDMA_SIZE => config.max_rdma,
            abi::SO_RDMA_THRESHOLD_SIZE => config.threshold,
            _ => None,
        };
        found.ok_or(abi::WSAENOPROTOOPT)
    });
    // SAFETY: the switch's, four bytes long.
    let result = result.map(|found| unsafe { value.cast::<u32>().write_unaligned(found) });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

pub(super) unsafe extern "C" fn set_sock_opt(
    s: SOCKET,
    _level: c_int,
    name: c_int,
    _value: *const c_char,
    _len: c_int,
    errno: LPINT,
) -> c_int {
    let result = call(s, "SetSockOpt", format!("{name:#x}"), |state| {
        existing(state, s)?;
        if name == abi::WSD_SO_DEBUG {
            Ok(())
        } else {
            Err(abi::WSAENOPROTOOPT)
        }
    });
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

pub(super) unsafe extern "C" fn ioctl(
    s: SOCKET,
    code: DWORD,
    input: LPVOID,
    input_len: DWORD,
    output: LPVOID,
    output_len: DWORD,
    returned: LPDWORD,
    overlapped: LPWSAOVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    _thread: LPWSATHREADID,
    errno: LPINT,
) -> c_int {
    assert!(overlapped.is_null() && routine.is_none());
    let result = match code {
        abi::SIO_ADDRESS_LIST_QUERY => {
            // SAFETY: the switch's room, as large as stated.
            unsafe { list_addresses(s, output, output_len as usize, returned) }
        }
        abi::SIO_GET_EXTENSION_FUNCTION_POINTER => {
            assert_eq!((input_len, output_len), (16, 8));
            // SAFETY: the switch's, sixteen bytes long.
            let guid = unsafe { input.cast::<GUID>().read_unaligned() };
            extension(s, guid).map(|function| {
                // SAFETY: the switch's, eight bytes long.
                unsafe { output.cast::<*const c_void>().write_unaligned(function) };
            })
        }
        _ => call(s, "Ioctl", "BAD code", |_| Err(abi::WSAEINVAL)),
    };
    // SAFETY: the switch's.
    unsafe { give(errno, result) }
}

/// # Safety
/// `output` has room for `room` bytes.
pub(super) unsafe fn list_addresses(
    s: SOCKET,
    output: LPVOID,
    room: usize,
    returned: LPDWORD,
) -> Result<(), i32> {
    let addresses = {
        let state = STATE.lock();
        match state.maker(s) {
            Which::First => state.config.addresses.clone(),
            Which::Other => state.config.other_addresses.clone(),
        }
    };
    let bytes: Vec<Vec<u8>> = addresses
        .iter()
        .map(|ip: &IpAddr| bytes_of(SocketAddr::new(*ip, 0)))
        .collect();
    let head = 8 + 16 * bytes.len();
    let needed = head + bytes.iter().map(Vec::len).sum::<usize>();
    // SAFETY: the switch's.
    unsafe { returned.write(u32::try_from(needed).unwrap()) };
    let detail = if room < needed {
        "addresses, short"
    } else {
        "addresses"
    };
    call(s, "Ioctl", detail, |_| {
        if room < needed {
            Err(abi::WSAEFAULT)
        } else {
            Ok(())
        }
    })?;
    let mut list = Vec::new();
    list.extend(i32::try_from(bytes.len()).unwrap().to_ne_bytes());
    list.extend([0; 4]);
    let mut at = head;
    for address in &bytes {
        list.extend((output.addr() + at).to_ne_bytes());
        list.extend(i32::try_from(address.len()).unwrap().to_ne_bytes());
        list.extend([0; 4]);
        at += address.len();
    }
    list.extend(bytes.into_iter().flatten());
    // SAFETY: room enough.
    unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), output.cast(), list.len()) };
    Ok(())
}

pub(super) fn extension(s: SOCKET, guid: GUID) -> Result<*const c_void, i32> {
    let all: [(&str, GUID, *const c_void); 10] = [
        ("RegisterMemory", abi::WSAID_REGISTERMEMORY, register as _),
        (
            "DeregisterMemory",
            abi::WSAID_DEREGISTERMEMORY,
            deregister as _,
        ),
        (
            "RegisterRdmaMemory",
            abi::WSAID_REGISTERRDMAMEMORY,
            register_rdma as _,
        ),
        (
            "DeregisterRdmaMemory",
            abi::WSAID_DEREGISTERRDMAMEMORY,
            deregister_rdma as _,
        ),
        ("RdmaWrite", abi::WSAID_RDMAWRITE, rdma_write as _),
        ("RdmaRead", abi::WSAID_RDMAREAD, rdma_read as _),
        (
            "MemoryRegistrationCacheCallback",
            abi::WSAID_MEMORYREGISTRATIONCACHECALLBACK,
            { std::ptr::null() },
        ),
        (
            "ArmCompletion",
            abi::WSAID_ARMCOMPLETION,
            arm_completion as _,
        ),
        ("TakeProgress", abi::WSAID_TAKEPROGRESS, std::ptr::null()),
        ("MakeProgress", abi::WSAID_MAKEPROGRESS, std::ptr::null()),
    ];
    let (name, _, function) = all.into_iter().find(|entry| entry.1 == guid).unwrap();
    call(s, "Ioctl", name, |state| {
        let config = &state.config;
        let refused = config.missing.contains(&name)
            || name == "RdmaRead" && !config.rdma_read
            || function.is_null();
        let unknown = match name {
            "ArmCompletion" => !config.arm,
            "TakeProgress" | "MakeProgress" => true,
            _ => false,
        };
        if unknown {
            Err(abi::WSAEINVAL)
        } else if refused {
            Err(abi::WSAEOPNOTSUPP)
        } else {
            Ok(function)
        }
    })
}
