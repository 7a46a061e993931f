//! What the command asks of Linux beyond std; the only `unsafe` of this crate.
//!
//! Owns: page-aligned buffers with advice for huge pages, signals, room on disk, interface numbers,
//! CPU time, pipes, becoming another program. Does not own: any decision. Invariant: every function
//! here is safe to call with any argument.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// Makes a pipe hold so much, where it may.
pub(crate) fn widen_pipe(pipe: BorrowedFd<'_>, bytes: i32) {
    // SAFETY: the descriptor is open; F_SETPIPE_SZ takes a number.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

/// Whether a read has something to say within this time, in whole milliseconds.
pub(crate) fn is_readable_within(input: BorrowedFd<'_>, time: Duration) -> bool {
    let mut one = libc::pollfd {
        fd: input.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let time = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one whole pollfd of this frame. An error, as by a signal, is a "no".
    unsafe { libc::poll(&mut one, 1, time) > 0 }
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

/// What the process was started with, before std's start changed it: std ignores SIGPIPE and
/// opens /dev/null for standard descriptors that are closed.
mod before_main {
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    static IGNORED_SIGPIPE: AtomicBool = AtomicBool::new(false);
    static CLOSED: AtomicU8 = AtomicU8::new(0);

    extern "C" fn note() {
        IGNORED_SIGPIPE.store(super::is_ignored(libc::SIGPIPE), Ordering::Relaxed);
        for fd in 0..3 {
            // SAFETY: only asks; a number that is not open is answered.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
            }
        }
    }

    // SAFETY: the loader calls what stands in this section once, before main, with arguments that
    // a function of the C convention may leave unread. It needs nothing of std's start.
    #[allow(
        clippy::unnecessary_safety_comment,
        reason = "the attribute is the unsafe part"
    )]
    #[used]
    #[unsafe(link_section = ".init_array")]
    static NOTE: extern "C" fn() = note;

    pub(super) fn ignored_sigpipe() -> bool {
        IGNORED_SIGPIPE.load(Ordering::Relaxed)
    }

    pub(super) fn closed() -> impl Iterator<Item = libc::c_int> {
        let closed = CLOSED.load(Ordering::Relaxed);
        (0..3).filter(move |fd| closed & (1 << fd) != 0)
    }
}

/// Becomes another program, as if it had been started in place of this one; returns only if that
/// failed. The name is looked for in this process's PATH.
pub(crate) fn become_program(
    program: &OsStr,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let variable = |(name, value): &(OsString, OsString)| {
        let mut both = name.clone();
        both.push("=");
        both.push(value);
        text(&both)
    };
    let program = text(program);
    let arguments: io::Result<Vec<CString>> = arguments.iter().map(|one| text(one)).collect();
    let environment: io::Result<Vec<CString>> = environment.iter().map(variable).collect();
    let (program, arguments, environment) = match (program, arguments, environment) {
        (Ok(program), Ok(arguments), Ok(environment)) => (program, arguments, environment),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return error,
    };
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    if !before_main::ignored_sigpipe() {
        // SAFETY: the default action has no handler that could break a promise.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    for fd in before_main::closed() {
        // SAFETY: takes no pointer; /dev/null, which std opened here, closes at the exec.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: live strings that end in zero, in arrays that end in null.
    unsafe { libc::execvpe(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// The user and group whose rights this process uses.
pub(crate) fn ids() -> (u32, u32) {
    // SAFETY: takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let group = unsafe { libc::getegid() };
    (user, group)
}

/// Whether starting this file can give no rights: the process has given that up, or the file
/// system does not grant it.
pub(crate) fn gains_no_privileges(file: &File) -> bool {
    // SAFETY: only asks; the arguments that are not used are to be zero.
    if unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1 {
        return true;
    }
    // SAFETY: statvfs is plain numbers for which zero is a value.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the pointer is to a whole statvfs of this frame.
    let asked = unsafe { libc::fstatvfs(file.as_raw_fd(), &mut about) };
    asked == 0 && about.f_flag & libc::ST_NOSUID != 0
}

/// Whether a file gives capabilities to who starts it.
pub(crate) fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings are live and end in zero; with no room only the size is told.
    let size = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    size > 0
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
