//! What the command asks of Linux beyond std; the only `unsafe` of this crate.
//!
//! Owns: page-aligned buffers with advice for huge pages, signals, room on disk, interface numbers, CPU time. Does not own: any decision. Invariant: every function here is safe to call with any
//! argument.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::time::Duration;

const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory of its own mapping, aligned to 2 MiB, which the kernel is asked to back with
/// huge pages: single-copy transfers between processes pin and walk pages, and 512 times fewer
/// pages make them about twice as fast.
#[derive(Debug)]
pub(crate) struct Buffer {
    mapping: NonNull<u8>,
    mapped: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Buffer` owns its mapping alone; nothing in it belongs to one thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// At least one byte is mapped, also for `len` 0.
    pub(crate) fn new(len: usize) -> io::Result<Buffer> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let rounded = len
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE)
            .ok_or_else(too_large)?;
        let mapped = rounded.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(base.cast::<u8>()).ok_or_else(too_large)?;
        let skip = mapping.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        // SAFETY: skip <= HUGE_PAGE and the mapping is `rounded + HUGE_PAGE` long.
        let start = unsafe { mapping.add(skip) };
        // Advice only: a kernel without huge pages says no, and ordinary pages do.
        // SAFETY: `start .. start + rounded` lies inside the mapping made above.
        unsafe { libc::madvise(start.as_ptr().cast(), rounded, libc::MADV_HUGEPAGE) };
        Ok(Buffer {
            mapping,
            mapped,
            start,
            len,
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start .. start + len` is mapped, zero-initialised, and ours until drop.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference outlives self.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

/// The signals that ask this process to end.
#[derive(Clone, Copy)]
pub(crate) struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks SIGINT, SIGTERM and SIGHUP, as far as they are not ignored, in the calling thread and in every thread it starts
    /// later. Call it before the first thread.
    pub(crate) fn block() -> io::Result<EndSignals> {
        let set = Self::set();
        // SAFETY: `set` is initialised; the old mask is not asked for.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if code == 0 {
            Ok(EndSignals(set))
        } else {
            Err(io::Error::from_raw_os_error(code))
        }
    }

    fn set() -> libc::sigset_t {
        // SAFETY: sigset_t is plain data for which all zero bits are a value.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is ours.
        unsafe { libc::sigemptyset(&mut set) };
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // What whoever started us has ignored stays so (nohup, a script's background job): a
            // signal that is waited for would come all the same.
            if is_ignored(signal) {
                continue;
            }
            // SAFETY: `set` is initialised and the number is a signal.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        set
    }

    /// Waits until one of them arrives and returns its number.
    pub(crate) fn wait(&self) -> i32 {
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to initialised data of this frame.
            if unsafe { libc::sigwait(&self.0, &mut signal) } == 0 {
                return signal;
            }
        }
    }

    /// Ends the process as the signal would have done, so that a shell sees the usual status.
    pub(crate) fn end_by(&self, signal: i32) -> ! {
        // SAFETY: the default action has no handler that could break a promise.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: the set is initialised; only this thread takes the signal again.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, std::ptr::null_mut()) };
        // SAFETY: raising a signal in this thread needs nothing.
        unsafe { libc::raise(signal) };
        std::process::exit(128 + signal)
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data for which all zero bits are a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed; the pointer is to a whole sigaction of this frame.
    let code = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Makes writing beyond the file size limit an error (EFBIG) instead of a signal that kills.
pub(crate) fn report_file_size_limit_as_error() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether a file of `len` bytes has room where `file` is: the error that writing it would end
/// with, as far as that can be known before.
pub(crate) fn has_room(file: &File, len: u64) -> io::Result<()> {
    if len > file_size_limit()? {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    // SAFETY: statvfs is plain numbers for which zero is a value.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the pointer is to a whole statvfs of this frame.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), &mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Some file systems do not know their size, and say 0.
    if about.f_blocks > 0 && len > about.f_bfree.saturating_mul(about.f_frsize) {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    Ok(())
}

/// The largest file this process may write.
fn file_size_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a whole rlimit of this frame.
    if unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // "No limit" is the largest number.
    Ok(limit.rlim_cur)
}

/// The number of a network interface of this name.
pub(crate) fn interface_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a live string that ends in zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        number => Some(number),
    }
}

/// What a process or thread has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// How often it was taken off its CPU against its will.
    pub(crate) preempted: u64,
}

impl Usage {
    /// Of the whole process.
    pub(crate) fn of_process() -> Usage {
        Self::of(libc::RUSAGE_SELF)
    }

    /// Of the calling thread.
    pub(crate) fn of_thread() -> Usage {
        Self::of(libc::RUSAGE_THREAD)
    }

    fn of(whom: libc::c_int) -> Usage {
        // SAFETY: rusage is plain numbers for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a whole rusage of this frame.
        if unsafe { libc::getrusage(whom, &mut usage) } != 0 {
            return Usage::default();
        }
        let time = |t: libc::timeval| {
            Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
        };
        Usage {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            preempted: u64::try_from(usage.ru_nivcsw).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_as_long_as_asked() {
        for len in [0, 1, 4096, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let mut buffer = Buffer::new(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(HUGE_PAGE), 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
        assert!(Buffer::new(usize::MAX).is_err());
    }

    #[test]
    fn room_is_known_before_it_is_needed() {
        let file = tempfile::tempfile().unwrap();
        assert!(has_room(&file, 0).is_ok());
        assert!(has_room(&file, 4096).is_ok());
        let error = has_room(&file, u64::MAX - 1).unwrap_err();
        assert!(matches!(
            error.raw_os_error(),
            Some(libc::ENOSPC | libc::EFBIG)
        ));
    }

    #[test]
    fn usage_grows_with_work() {
        let before = Usage::of_thread();
        let mut sum = 0_u64;
        while Usage::of_thread().cpu < before.cpu + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Usage::of_process().cpu >= Duration::from_millis(5));
    }
}
