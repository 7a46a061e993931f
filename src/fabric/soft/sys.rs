//! The system calls of this fabric as safe functions.
//!
//! Owns nothing and decides nothing: each function is one call (or one call with its loop over
//! EINTR) whose arguments cannot make it touch memory it should not. The one exception,
//! [`process_vm`], is `unsafe` and says what its caller promises.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::{c_int, c_void, iovec, msghdr, sa_family_t, socklen_t};

/// Most descriptors that one message of this fabric carries.
const MAX_FDS: usize = 4;

fn check(rc: c_int) -> io::Result<c_int> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

fn length(rc: isize) -> io::Result<usize> {
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}

/// Takes a descriptor that the kernel has just made.
fn own(rc: c_int) -> io::Result<OwnedFd> {
    let fd = check(rc)?;
    // SAFETY: every caller passes the result of a system call that makes a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn socklen<T>() -> socklen_t {
    socklen_t::try_from(size_of::<T>()).unwrap_or(socklen_t::MAX)
}

pub(super) fn random(into: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is a writable slice of the length given.
        let rc = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match length(rc) {
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(in crate::fabric) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The user this process acts as.
pub(super) fn user() -> u32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { libc::geteuid() }
}

// ---- memory files ------------------------------------------------------------------------

/// The largest file that this process may make.
fn largest_file() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a whole rlimit of this frame.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// A new memory file of `size` bytes whose size nobody can change any more.
pub(super) fn sealed_memory_file(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    // Beyond that limit ftruncate does not just fail: its signal ends the process.
    if size > largest_file() {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    // SAFETY: `name` is a C string; the flags are valid.
    let fd = own(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    })?;
    let size = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a descriptor of ours and a plain number.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })?;
    // SAFETY: a descriptor of ours and plain flags.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(fd)
}

const SEALS: c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// The size of a memory file that can never shrink; an error if that is not so.
pub(super) fn sealed_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: a live descriptor and a command without argument.
    let seals = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) })?;
    if seals & SEALS != SEALS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: `stat` is plain data; zero is a value of it.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: a live descriptor and a place for the result.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) })?;
    u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
}

// ---- eventfd, timerfd, epoll -------------------------------------------------------------

pub(in crate::fabric) fn event() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Makes an eventfd readable. A full counter is readable already, so failure needs no answer.
pub(in crate::fabric) fn signal(event: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is eight readable bytes.
    let _ = unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Clears an eventfd or timerfd.
pub(in crate::fabric) fn drain(event: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: `count` is eight writable bytes.
    let _ = unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// Whether a descriptor that a peer sent is a non-blocking eventfd; "yes" where it cannot be told.
pub(super) fn is_event(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: a live descriptor and a command without argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 || flags & libc::O_NONBLOCK == 0 {
        return false;
    }
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(name) => name.as_os_str() == "anon_inode:[eventfd]",
        Err(_) => true,
    }
}

pub(in crate::fabric) fn timer() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    own(unsafe {
        libc::timerfd_create(
            libc::CLOCK_MONOTONIC,
            libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
        )
    })
}

/// Lets the timer go off once, after `delay`.
pub(in crate::fabric) fn set_timer(timer: BorrowedFd<'_>, delay: Duration) -> io::Result<()> {
    let delay = delay.max(Duration::from_micros(1));
    let value = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(delay.subsec_nanos().cast_signed()),
        },
    };
    // SAFETY: a live descriptor and a valid value; no old value is asked for.
    check(unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const value, std::ptr::null_mut())
    })?;
    Ok(())
}

/// What an epoll set reported for the object registered under `id`.
#[derive(Clone, Copy, Debug)]
pub(in crate::fabric) struct Ready {
    pub(in crate::fabric) id: u64,
    pub(super) hung_up: bool,
}

#[derive(Debug)]
pub(in crate::fabric) struct Epoll(OwnedFd);

impl Epoll {
    pub(in crate::fabric) fn new() -> io::Result<Self> {
        // SAFETY: plain number.
        own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    pub(in crate::fabric) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }

    /// Watches `fd` for input and hang-up, level-triggered.
    pub(in crate::fabric) fn add(&self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let flags = (libc::EPOLLIN | libc::EPOLLRDHUP).cast_unsigned();
        self.control(libc::EPOLL_CTL_ADD, fd, flags, id)
    }

    /// Adds `fd` without watching it; see `arm_once`.
    #[cfg(feature = "verbs")]
    pub(in crate::fabric) fn add_disarmed(&self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, 0, id)
    }

    /// Watches `fd`, which is in the set, for input until it has been reported once.
    #[cfg(feature = "verbs")]
    pub(in crate::fabric) fn arm_once(&self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let flags = (libc::EPOLLIN | libc::EPOLLONESHOT).cast_unsigned();
        self.control(libc::EPOLL_CTL_MOD, fd, flags, id)
    }

    fn control(&self, how: c_int, fd: BorrowedFd<'_>, events: u32, id: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: id };
        // SAFETY: two live descriptors and a valid event.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), how, fd.as_raw_fd(), &raw mut event) })?;
        Ok(())
    }

    /// Must precede the closing of `fd`: a forked child may keep the description open.
    pub(in crate::fabric) fn remove(&self, fd: BorrowedFd<'_>) {
        // SAFETY: two live descriptors; the event is not used by this command.
        let _ = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd.as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
    }

    /// What is ready now; does not wait.
    pub(in crate::fabric) fn ready(&self, into: &mut Vec<Ready>) {
        self.look(into, 0);
    }

    /// Waits until something is ready, or a signal comes.
    #[cfg(feature = "verbs")]
    pub(in crate::fabric) fn wait(&self, into: &mut Vec<Ready>) {
        self.look(into, -1);
    }

    fn look(&self, into: &mut Vec<Ready>, timeout: c_int) {
        const BATCH: usize = 256;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let room = c_int::try_from(BATCH).unwrap_or(1);
        // SAFETY: `events` has room for the number given.
        let rc =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, timeout) };
        let count = usize::try_from(rc).unwrap_or(0);
        into.extend(events.iter().take(count).map(|event| {
            let flags = { event.events }.cast_signed();
            Ready {
                id: event.u64,
                hung_up: flags & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0,
            }
        }));
    }
}

/// The calling thread takes no signals: they are for those of the program.
#[cfg(feature = "verbs")]
pub(in crate::fabric) fn block_signals() {
    let mut all = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is filled; a null third argument asks for nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

/// A descriptor of a process that becomes readable when the process ends.
pub(super) fn process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    own(c_int::try_from(rc).unwrap_or(-1))
}

// ---- Unix sockets ------------------------------------------------------------------------

/// The family as it stands in an address.
fn family(family: c_int) -> sa_family_t {
    sa_family_t::try_from(family).unwrap_or(0)
}

fn unix_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    own(unsafe {
        libc::socket(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    })
}

fn abstract_address(name: &str) -> io::Result<(libc::sockaddr_un, socklen_t)> {
    // SAFETY: `sockaddr_un` is plain data; zero is a value of it.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = family(libc::AF_UNIX);
    // The first byte of the path stays zero: the name is an abstract one.
    let room = address.sun_path.get_mut(1..).unwrap_or(&mut []);
    if name.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let length = mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Ok((
        address,
        socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?,
    ))
}

/// Listens under an abstract name. `AddrInUse` if somebody else has it.
pub(super) fn listen_under(name: &str, backlog: c_int) -> io::Result<OwnedFd> {
    let (address, len) = abstract_address(name)?;
    let socket = unix_socket()?;
    // SAFETY: a live descriptor and an address of the length given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    // SAFETY: a live descriptor and a plain number; the kernel caps it.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Connects to an abstract name at once: `ConnectionRefused` if nobody has it, `WouldBlock` if
/// the listener's queue is full.
pub(super) fn connect_to(name: &str) -> io::Result<OwnedFd> {
    let (address, len) = abstract_address(name)?;
    let socket = unix_socket()?;
    // SAFETY: a live descriptor and an address of the length given.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a live descriptor; the peer's address is not asked for.
    own(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })
}

/// Who is at the other end, by the kernel's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) pid: i32,
    pub(super) user: u32,
}

pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = socklen::<libc::ucred>();
    // SAFETY: a live descriptor and a place of the length given.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    })?;
    Ok(Peer {
        pid: credentials.pid,
        user: credentials.uid,
    })
}

/// Whether the other end is closed or its process gone.
pub(super) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut query = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one valid entry; does not wait.
    let rc = unsafe { libc::poll(&raw mut query, 1, 0) };
    rc > 0 && query.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Whether `fd` is readable now.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut query = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry; does not wait.
    let rc = unsafe { libc::poll(&raw mut query, 1, 0) };
    rc > 0 && query.revents & libc::POLLIN != 0
}

pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: a live descriptor and a plain number.
    let _ = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Room for the control message of up to `MAX_FDS` descriptors, aligned as it must be.
type ControlRoom = [u64; 8];

/// Sends one message with descriptors; never waits.
pub(super) fn send_message(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control: ControlRoom = [0; 8];
    let mut part = iovec {
        iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(),
        iov_len: bytes.len(),
    };
    // SAFETY: `msghdr` is plain data; zero is a value of it.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let payload = u32::try_from(size_of::<RawFd>() * descriptors.len())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: pure arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as usize;
        // SAFETY: `message` has a control buffer with room for a header.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: pure arithmetic.
        let header_len = unsafe { libc::CMSG_LEN(payload) } as usize;
        let rights = libc::cmsghdr {
            cmsg_len: header_len,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: CMSG_FIRSTHDR is not null, as the buffer holds a header, and is aligned.
        unsafe { header.write(rights) };
        // SAFETY: the data follow the header within the buffer.
        let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
        for (index, descriptor) in descriptors.iter().enumerate() {
            // SAFETY: MAX_FDS descriptors fit in the control buffer.
            let place = unsafe { data.add(index) };
            // SAFETY: as above; the place need not be aligned for this write.
            unsafe { place.write_unaligned(descriptor.as_raw_fd()) };
        }
    }
    loop {
        // SAFETY: every pointer in `message` is to a live local of the length given.
        let rc = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const message,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match length(rc) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One message received; `len` is 0 at the end of the stream.
#[derive(Debug)]
pub(in crate::fabric) struct Received {
    pub(super) len: usize,
    pub(super) descriptors: Vec<OwnedFd>,
    /// Part of the message did not fit.
    pub(super) truncated: bool,
}

/// Receives one message with its descriptors; never waits.
pub(in crate::fabric) fn receive_message(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
) -> io::Result<Received> {
    let mut control: ControlRoom = [0; 8];
    let mut part = iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // SAFETY: `msghdr` is plain data; zero is a value of it.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<ControlRoom>();
    let len = loop {
        // SAFETY: every pointer in `message` is to a live local of the length given.
        let rc = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut message,
                libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
            )
        };
        match length(rc) {
            Ok(len) => break len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled `message` and its control buffer.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a non-null header lies wholly in the control buffer.
        let found = unsafe { header.read_unaligned() };
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = found.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the data follow the header within the buffer.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors.
                let place = unsafe { data.add(index) };
                // SAFETY: as above.
                let fd = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just made this descriptor for us.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: `header` is a header of `message`.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received {
        len,
        descriptors,
        truncated,
    })
}

// ---- netlink and addresses ---------------------------------------------------------------

/// A netlink socket; `groups` are multicast groups to join.
pub(in crate::fabric) fn netlink(protocol: c_int, groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let socket = own(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            protocol,
        )
    })?;
    // SAFETY: `sockaddr_nl` is plain data; zero is a value of it.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = family(libc::AF_NETLINK);
    address.nl_groups = groups;
    // SAFETY: a live descriptor and an address of the length given.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            socklen::<libc::sockaddr_nl>(),
        )
    })?;
    Ok(socket)
}

/// Every address of every interface of this host.
pub(super) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: a place for the list.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: a non-null entry of the list is valid until freeifaddrs.
        let entry = unsafe { &*next };
        if !entry.ifa_addr.is_null() {
            // SAFETY: every address begins with its family.
            let family = c_int::from(unsafe { (*entry.ifa_addr).sa_family });
            if family == libc::AF_INET {
                // SAFETY: an AF_INET address is a `sockaddr_in`.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                found.push(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into());
            } else if family == libc::AF_INET6 {
                // SAFETY: an AF_INET6 address is a `sockaddr_in6`.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                found.push(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
            }
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and is not used any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

// ---- memory of this and of other processes -----------------------------------------------

/// Whether every page of the range is mapped in this process.
pub(super) fn is_mapped(base: usize, len: usize) -> bool {
    let page = page_size();
    let start = base & !(page - 1);
    let Some(end) = base.checked_add(len) else {
        return false;
    };
    // MS_ASYNC does nothing but walk the mappings: ENOMEM where there is a hole.
    // SAFETY: takes a range, touches no memory in it.
    let rc = unsafe { libc::msync(start as *mut c_void, end - start, libc::MS_ASYNC) };
    rc == 0
}

pub(super) fn page_size() -> usize {
    // SAFETY: takes a plain number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Copies between `local` and `len` bytes at `remote` in process `pid`, and says how many.
///
/// # Safety
/// The caller promises that the local parts are memory that it may read (or, unless `write`,
/// overwrite). The remote range needs no promise: the kernel checks it.
pub(super) unsafe fn process_vm(
    pid: i32,
    write: bool,
    local: &[iovec],
    remote: usize,
    len: usize,
) -> io::Result<usize> {
    let there = iovec {
        iov_base: remote as *mut c_void,
        iov_len: len,
    };
    let count = libc::c_ulong::try_from(local.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let call = if write {
        libc::process_vm_writev
    } else {
        libc::process_vm_readv
    };
    // SAFETY: the lists are valid for the counts given; the caller promised the local parts.
    length(unsafe { call(pid, local.as_ptr(), count, &raw const there, 1, 0) })
}
