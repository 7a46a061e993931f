//! Descriptors passed to other processes.

use libc::msghdr;

/// To be called before a message is sent on any socket: connections whose descriptors are in it go
/// back to the kernel first.
///
/// # Safety
/// The message is the program's, about to be sent; it may be null.
pub(super) unsafe fn before_sending(message: *const msghdr) {
    let _ = message;
}
