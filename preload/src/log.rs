//! The log: lines in the file that `WSD_LOG` names, and nothing anywhere else.
//!
//! Each line is one write to a file opened for appending, so that processes may share it.

use core::ffi::c_void;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use crate::raw::keeping_errno;
use crate::real;

fn path() -> Option<&'static CString> {
    static PATH: OnceLock<Option<CString>> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var_os("WSD_LOG").filter(|p| !p.is_empty())?;
        CString::new(path.into_vec()).ok()
    })
    .as_ref()
}

/// Whether there is a log.
pub(crate) fn is_on() -> bool {
    path().is_some()
}

/// The name that the program was started by, without its folder.
pub(crate) fn program() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let path = std::env::current_exe().unwrap_or_default();
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().replace(char::is_whitespace, "_")
    })
}

/// Appends a line. Without a log, or without room, nothing happens. errno is kept.
pub(crate) fn line(text: &str) {
    let Some(path) = path() else {
        return;
    };
    keeping_errno(|| {
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: the path ends with a NUL.
        let fd = unsafe { real::open64(path.as_ptr(), flags, 0o644) };
        if fd < 0 {
            return;
        }
        let line = format!("{text}\n");
        // SAFETY: the string is live and as long as said.
        unsafe { real::write(fd, line.as_ptr().cast::<c_void>(), line.len()) };
        // SAFETY: the descriptor was opened above and is known to nobody else.
        unsafe { real::close(fd) };
    });
}

/// Stands at the border to the program: a panic must not cross it, for the program would be unwound,
/// and what it waits for cannot be known any more. Unwinding that is none, of a thread that is
/// cancelled, passes.
pub(crate) struct Border;

impl Drop for Border {
    fn drop(&mut self) {
        if std::thread::panicking() {
            line(&format!("panic pid={}", std::process::id()));
            std::process::abort();
        }
    }
}
