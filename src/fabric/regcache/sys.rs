//! The system calls of the registration cache as safe functions.
//!
//! Owns nothing but a descriptor of the kernel's userfaultfd and the pages that it is tried out on.
//! Watched memory is registered for write-protection faults and then never write-protected: so the
//! kernel tells of mappings that go away, and page faults stay what they were. (Registered for
//! missing pages, the first touch of a page would wait for us.)

use std::ffi::c_void;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_ulong};

use super::map::Span;

// From linux/userfaultfd.h; the request numbers are those of the generic encoding.
const USER_MODE_ONLY: c_int = 1;
const API: u64 = 0xAA;
const FEATURES: u64 = FEATURE_WRITE_PROTECT | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP;
const FEATURE_WRITE_PROTECT: u64 = 1 << 0;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;
const MODE_WRITE_PROTECT: u64 = 1 << 1;
const REQUEST_API: c_ulong = 0xC018_AA3F;
const REQUEST_REGISTER: c_ulong = 0xC020_AA00;
const REQUEST_UNREGISTER: c_ulong = 0x8010_AA01;
const REQUEST_WRITE_PROTECT: c_ulong = 0xC018_AA06;
const MESSAGE_PAGE_FAULT: u8 = 0x12;
const MESSAGE_REMAP: u8 = 0x14;
const MESSAGE_REMOVE: u8 = 0x15;
const MESSAGE_UNMAP: u8 = 0x16;

#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeArgument {
    start: u64,
    len: u64,
}

#[repr(C)]
struct RegisterArgument {
    range: RangeArgument,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtectArgument {
    range: RangeArgument,
    mode: u64,
}

/// One message of the kernel: an event and three numbers that depend on it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Message {
    event: u8,
    _reserved: [u8; 7],
    numbers: [u64; 3],
}

const _: () = assert!(size_of::<Message>() == 32);

fn check(rc: c_int) -> io::Result<c_int> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

impl From<Span> for RangeArgument {
    fn from(span: Span) -> Self {
        Self {
            start: span.start as u64,
            len: span.len() as u64,
        }
    }
}

/// What the kernel had to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// The pages of these addresses are not, or will at once not be, what they were.
    Gone(Span),
    /// Somebody waits for a page that was write-protected. Never by us.
    Fault(usize),
    /// Nothing that concerns us.
    Other,
}

/// The kernel's account of what happens to watched memory.
#[derive(Debug)]
pub(super) struct Uffd(OwnedFd);

impl Uffd {
    /// One that tells of memory that is unmapped, moved or released.
    pub(super) fn open() -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let uffd = match Self::make(flags | USER_MODE_ONLY) {
            // Before Linux 5.11 there is no such flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::make(flags),
            made => made,
        }?;
        let mut argument = ApiArgument {
            api: API,
            features: FEATURES,
            ioctls: 0,
        };
        uffd.request(REQUEST_API, &mut argument)?;
        Ok(uffd)
    }

    fn make(flags: c_int) -> io::Result<Self> {
        // SAFETY: takes a plain number.
        let rc = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = check(c_int::try_from(rc).unwrap_or(-1))?;
        // SAFETY: a descriptor that the kernel has just made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// `T` is what the kernel reads and writes for the request.
    fn request<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: a descriptor of ours, and an argument of the type that the request takes. None of
        // the requests made here changes what is in memory.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, ptr::from_mut(argument)) })?;
        Ok(())
    }

    /// Watches whole pages. Memory that is watched already stays so.
    pub(super) fn watch(&self, pages: Span) -> io::Result<()> {
        let mut argument = RegisterArgument {
            range: pages.into(),
            mode: MODE_WRITE_PROTECT,
            ioctls: 0,
        };
        self.request(REQUEST_REGISTER, &mut argument)
    }

    pub(super) fn unwatch(&self, pages: Span) -> io::Result<()> {
        self.request(REQUEST_UNREGISTER, &mut RangeArgument::from(pages))
    }

    /// Whether some watched memory is going away at this moment and the message of it has not been
    /// read: between the two the addresses may already be somebody else's.
    pub(super) fn is_changing(&self) -> io::Result<bool> {
        // The kernel looks for changes first, and only then at the range, which is no range.
        let mut argument = WriteProtectArgument {
            range: RangeArgument { start: 0, len: 0 },
            mode: 0,
        };
        match self.request(REQUEST_WRITE_PROTECT, &mut argument) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Lets a write to a page go on.
    pub(super) fn permit(&self, page: Span) -> io::Result<()> {
        let mut argument = WriteProtectArgument {
            range: page.into(),
            mode: 0,
        };
        self.request(REQUEST_WRITE_PROTECT, &mut argument)
    }

    /// Waits until there is a message; no longer than `patience`, or for ever.
    pub(super) fn wait(&self, patience: Option<Duration>) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience =
            patience.map_or(-1, |p| c_int::try_from(p.as_millis()).unwrap_or(c_int::MAX));
        // SAFETY: one valid structure.
        match check(unsafe { libc::poll(&raw mut poll, 1, patience) }) {
            Ok(_) => Ok(poll.revents & libc::POLLIN != 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next message, if there is one. Whoever caused it goes on when this returns.
    pub(super) fn read(&self) -> io::Result<Option<News>> {
        let mut message = Message::default();
        let (at, len) = ((&raw mut message).cast::<c_void>(), size_of::<Message>());
        // SAFETY: a place of that length, for which any bytes are valid.
        let rc = unsafe { libc::read(self.0.as_raw_fd(), at, len) };
        match usize::try_from(rc) {
            Ok(read) if read == len => Ok(Some(message.meaning())),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl Message {
    fn meaning(&self) -> News {
        let [a, b, c] = self
            .numbers
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let gone = |start, end| Span::new(start, end).map_or(News::Other, News::Gone);
        match self.event {
            MESSAGE_UNMAP | MESSAGE_REMOVE => gone(a, b),
            // From a to b, so many bytes.
            MESSAGE_REMAP => gone(a, a.saturating_add(c)),
            MESSAGE_PAGE_FAULT => News::Fault(b),
            _ => News::Other,
        }
    }
}

/// Pages of memory that nobody uses.
#[derive(Debug)]
pub(super) struct Pages(Span);

impl Pages {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at a place of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, rights, kind, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = at.expose_provenance();
        Span::new(start, start.saturating_add(len))
            .map(Self)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    pub(super) fn span(&self) -> Span {
        self.0
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody was given a pointer to it.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.0.start), self.0.len()) };
    }
}

/// A power of two.
pub(super) fn page_size() -> usize {
    // SAFETY: takes a plain number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(4096)
}

/// How many bytes this process may lock; none if there is no limit.
pub(super) fn locked_memory_limit() -> Option<u64> {
    // SAFETY: numbers, for which zero is valid.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: a place for the result.
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (rc == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Runs `make` with all signals blocked: a thread that it starts never runs a handler of the host.
pub(super) fn without_signals<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: a set of bits, for which zero is valid.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: a valid set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: valid sets.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    let made = make();
    if rc == 0 {
        // SAFETY: the set that was stored above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    }
    made
}

/// Keeps the library that this code stands in from being unloaded, because a thread of ours stays.
pub(super) fn stay_loaded() {
    // SAFETY: pointers and numbers, for which zero is valid.
    let mut found: libc::Dl_info = unsafe { mem::zeroed() };
    let code = stay_loaded as *const c_void;
    // SAFETY: any address may be asked for; the place for the result is valid.
    if unsafe { libc::dladdr(code, &raw mut found) } == 0 || found.dli_fname.is_null() {
        return;
    }
    let how = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: a name of the loader's. Nothing is loaded: it is there, or (a static program) has no
    // such name and need not be kept. The handle is not wanted.
    unsafe { libc::dlopen(found.dli_fname, how) };
}
