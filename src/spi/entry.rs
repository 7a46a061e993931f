//! What every function of the table has in common: no panic gets out, and the code gets to
//! `*lpErrno`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::codes::Code;
use crate::abi::LPINT;

/// Runs the body of a function of the table. On failure `failure` is returned and the code stored.
///
/// # Safety
/// `lp_errno` is null or points to an int that may be written; the caller of the table's function
/// promises that.
#[inline]
pub(super) unsafe fn entry<T>(
    name: &'static str,
    lp_errno: LPINT,
    failure: T,
    body: impl FnOnce() -> Result<T, Code>,
) -> T {
    // Unwind safe: whatever the body has locked is unlocked, and nothing of ours is looked at again
    // but through the locks.
    let code = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(code)) => code,
        Err(_) => defect(name),
    };
    if !code.is_ordinary() {
        tracing::trace!(name, code = code.0, "failed");
    }
    if !lp_errno.is_null() {
        // SAFETY: not null, so writable by the promise of the table's caller. Unaligned is not
        // promised against.
        unsafe { lp_errno.write_unaligned(code.0) };
    }
    failure
}

#[cold]
fn defect(name: &'static str) -> Code {
    tracing::error!(name, "a panic in the provider");
    Code::DEFECT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{SOCKET_ERROR, WSAEINVAL, WSAENETDOWN};

    fn call(lp_errno: LPINT, body: impl FnOnce() -> Result<i32, Code>) -> i32 {
        // SAFETY: the tests pass null or a pointer to an int of theirs.
        unsafe { entry("test", lp_errno, SOCKET_ERROR, body) }
    }

    #[test]
    fn success_leaves_the_code_alone() {
        let mut code = 17;
        assert_eq!(call(&raw mut code, || Ok(0)), 0);
        assert_eq!(code, 17);
    }

    #[test]
    fn failure_stores_the_code_and_returns_the_failure_value() {
        let mut code = 0;
        assert_eq!(call(&raw mut code, || Err(Code::INVALID)), SOCKET_ERROR);
        assert_eq!(code, WSAEINVAL);
        assert_eq!(
            call(std::ptr::null_mut(), || Err(Code::INVALID)),
            SOCKET_ERROR
        );
    }

    #[test]
    fn a_panic_becomes_a_code() {
        let mut code = 0;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = call(&raw mut code, || panic!("within a function of the table"));
        std::panic::set_hook(hook);
        assert_eq!(result, SOCKET_ERROR);
        assert_eq!(code, WSAENETDOWN);
    }
}
