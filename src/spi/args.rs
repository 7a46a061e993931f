//! Pointers of the interface, turned into values: the only conversions there are.
//!
//! Everything is checked that can be checked without asking the system: null, alignment, lengths.
//! Whether a pointer that is neither null nor misaligned points to memory is the caller's promise
//! (docs/api-conventions.md).

use core::ffi::{c_char, c_int};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{AF_INET, AF_INET6, sockaddr, sockaddr_in, sockaddr_in6};

use super::codes::Code;
use crate::abi::SOCKET;
use crate::engine::Handle;

/// The engine's name for a socket of the interface. Any value will do; most find nothing.
pub(super) fn handle(s: SOCKET) -> Handle {
    Handle::from_raw(s as u64)
}

/// The socket of the interface for a name of the engine.
pub(super) fn socket(handle: Handle) -> SOCKET {
    usize::try_from(handle.raw()).unwrap_or(crate::abi::INVALID_SOCKET)
}

/// Reads what a pointer points to.
///
/// # Safety
/// A pointer that is not null points to an initialised T.
pub(super) unsafe fn read<T: Copy>(from: *const T) -> Result<T, Code> {
    if from.is_null() {
        return Err(Code::FAULT);
    }
    // SAFETY: not null; the caller promises the rest.
    Ok(unsafe { from.read_unaligned() })
}

/// Stores a result.
///
/// # Safety
/// A pointer that is not null may be written.
pub(super) unsafe fn write<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(Code::FAULT);
    }
    // SAFETY: not null; the caller promises the rest.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// No array of the interface is longer than this; a larger count is not followed.
const LONGEST_ARRAY: u32 = 1 << 16;

/// An array of the caller.
///
/// # Safety
/// A pointer that is not null points to as many initialised T as `count` says, which nobody writes
/// during the call.
pub(super) unsafe fn slice<'a, T>(first: *const T, count: u32) -> Result<&'a [T], Code> {
    if count > LONGEST_ARRAY {
        return Err(Code::INVALID);
    }
    let count = count as usize;
    let end = first.addr().checked_add(count * size_of::<T>());
    if first.is_null() || !first.is_aligned() || end.is_none() {
        return Err(Code::FAULT);
    }
    // SAFETY: not null, aligned, no wrap-around; the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A socket address of the caller. The length must be at least that of the family.
///
/// # Safety
/// A pointer that is not null points to `length` bytes.
pub(super) unsafe fn address(name: *const sockaddr, length: c_int) -> Result<SocketAddr, Code> {
    let length = usize::try_from(length).map_err(|_| Code::FAULT)?;
    if name.is_null() || length < size_of::<libc::sa_family_t>() {
        return Err(Code::FAULT);
    }
    // SAFETY: the family stands first and lies within the length.
    let family = unsafe { name.cast::<libc::sa_family_t>().read_unaligned() };
    match c_int::from(family) {
        AF_INET if length >= size_of::<sockaddr_in>() => {
            // SAFETY: the length says that a whole sockaddr_in is there.
            let v4 = unsafe { name.cast::<sockaddr_in>().read_unaligned() };
            Ok(SocketAddr::V4(SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)),
                u16::from_be(v4.sin_port),
            )))
        }
        AF_INET6 if length >= size_of::<sockaddr_in6>() => {
            // SAFETY: the length says that a whole sockaddr_in6 is there.
            let v6 = unsafe { name.cast::<sockaddr_in6>().read_unaligned() };
            Ok(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(v6.sin6_addr.s6_addr),
                u16::from_be(v6.sin6_port),
                v6.sin6_flowinfo,
                v6.sin6_scope_id,
            )))
        }
        _ => Err(Code::FAULT),
    }
}

// The families are small numbers.
#[allow(clippy::cast_possible_truncation)]
const FAMILY_V4: libc::sa_family_t = AF_INET as libc::sa_family_t;
#[allow(clippy::cast_possible_truncation)]
const FAMILY_V6: libc::sa_family_t = AF_INET6 as libc::sa_family_t;

/// A socket address in the host's form.
#[derive(Clone, Copy)]
pub(super) enum RawAddress {
    V4(sockaddr_in),
    V6(sockaddr_in6),
}

impl RawAddress {
    pub(super) fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(sockaddr_in {
                sin_family: FAMILY_V4,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(sockaddr_in6 {
                sin6_family: FAMILY_V6,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::V4(_) => size_of::<sockaddr_in>(),
            Self::V6(_) => size_of::<sockaddr_in6>(),
        }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut c_char {
        match self {
            Self::V4(v4) => (&raw mut *v4).cast(),
            Self::V6(v6) => (&raw mut *v6).cast(),
        }
    }

    /// Copies the bytes out.
    ///
    /// # Safety
    /// There is room for `len` bytes.
    pub(super) unsafe fn store(&self, to: *mut u8) {
        match self {
            // SAFETY: the caller promises the room.
            Self::V4(v4) => unsafe { to.cast::<sockaddr_in>().write_unaligned(*v4) },
            // SAFETY: the caller promises the room.
            Self::V6(v6) => unsafe { to.cast::<sockaddr_in6>().write_unaligned(*v6) },
        }
    }
}

#[cfg(test)]
#[allow(clippy::multiple_unsafe_ops_per_block)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_out_and_in() {
        for text in [
            "127.0.0.1:80",
            "10.1.2.3:65535",
            "[::1]:1",
            "[fe80::1%3]:443",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddress::new(address);
            let length = c_int::try_from(raw.len()).unwrap();
            // SAFETY: the pointer and the length are those of `raw`.
            let back = unsafe { super::address(raw.as_mut_ptr().cast(), length) };
            assert_eq!(back, Ok(address));
            // SAFETY: as before, with less.
            let short = unsafe { super::address(raw.as_mut_ptr().cast(), length - 1) };
            assert_eq!(short, Err(Code::FAULT));
        }
    }

    #[test]
    fn bad_pointers_and_lengths_are_faults() {
        let value = [1_u64, 2];
        let first = value.as_ptr();
        // SAFETY: the pointers are null, or the check comes before the access.
        unsafe {
            assert_eq!(read::<u32>(std::ptr::null()), Err(Code::FAULT));
            assert_eq!(write(std::ptr::null_mut(), 1_u32), Err(Code::FAULT));
            assert_eq!(slice::<u64>(std::ptr::null(), 1), Err(Code::FAULT));
            assert_eq!(slice(first.byte_add(1), 1), Err(Code::FAULT));
            assert_eq!(slice(first, u32::MAX), Err(Code::INVALID));
            assert_eq!(slice(first, 2), Ok(&value[..]));
            assert_eq!(address(std::ptr::null(), 16), Err(Code::FAULT));
            assert_eq!(address(first.cast(), -1), Err(Code::FAULT));
            assert_eq!(address(first.cast(), 16), Err(Code::FAULT));
        }
    }
}
