//! The system calls the switch needs and std does not offer: eventfd, poll, interface addresses
//! with their masks, the notice of address changes, and TCP sockets that are bound before they
//! connect.
//!
//! Owns descriptors only. Every function is safe to call with any argument; the invariant is that
//! a descriptor is closed exactly once, by the `OwnedFd` that holds it.

use std::collections::BTreeMap;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::address::SockAddr;

/// Turns the -1 of a system call into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Calls in which a thread may be cancelled, which unwinds it.
mod unwinding {
    unsafe extern "C-unwind" {
        pub(super) fn ppoll(
            fds: *mut libc::pollfd,
            count: libc::nfds_t,
            time: *const libc::timespec,
            mask: *const libc::sigset_t,
        ) -> libc::c_int;
    }
}

/// How many descriptors this process may have open.
pub(crate) fn descriptor_limit() -> usize {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the pointer is to a whole rlimit of this frame, which the kernel fills in or leaves.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) };
    // SAFETY: two integers, zero or filled in.
    let limit = unsafe { limit.assume_init() };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just handed out this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An event object: a manual-reset flag that can be polled for. Over the table it is the
/// descriptor's number plus one, so that null stays "no event".
#[derive(Debug)]
pub(crate) struct Event {
    fd: Arc<OwnedFd>,
}

/// The live event objects by descriptor. A number that a provider hands back is looked up here,
/// so that a wrong one is answered and never written to.
static EVENTS: Mutex<BTreeMap<RawFd, Arc<OwnedFd>>> = Mutex::new(BTreeMap::new());

/// Events that were given back. They stay open for the next user: a provider that signals late
/// only wakes somebody who looks and finds nothing, and never writes to another's descriptor.
static SPARE: Mutex<Vec<Event>> = Mutex::new(Vec::new());

impl Event {
    /// An event that was given back, or a new one; not signalled.
    pub(crate) fn spare() -> io::Result<Event> {
        let spare = SPARE.lock().pop();
        match spare {
            Some(event) => {
                event.reset();
                Ok(event)
            }
            None => Event::new(),
        }
    }

    /// Keeps the event for the next user. Whoever knows its number may still signal it.
    pub(crate) fn give_back(self) {
        SPARE.lock().push(self);
    }

    /// A new event, not signalled.
    pub(crate) fn new() -> io::Result<Event> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let fd = Arc::new(owned(fd)?);
        EVENTS.lock().insert(fd.as_raw_fd(), Arc::clone(&fd));
        Ok(Event { fd })
    }

    /// The number that crosses the table.
    pub(crate) fn number(&self) -> usize {
        usize::try_from(self.fd.as_raw_fd()).map_or(0, |fd| fd + 1)
    }

    pub(crate) fn set(&self) {
        signal(&self.fd);
    }

    pub(crate) fn reset(&self) {
        clear(&self.fd);
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        EVENTS.lock().remove(&self.fd.as_raw_fd());
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn signal(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: eight bytes are read from a live u64. Only a full counter can refuse, and a full
    // counter is signalled.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

fn clear(fd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: at most eight bytes are written to a live u64. An unsignalled event refuses.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

fn event(number: usize) -> Option<Arc<OwnedFd>> {
    let fd = RawFd::try_from(number.checked_sub(1)?).ok()?;
    EVENTS.lock().get(&fd).cloned()
}

/// Signals the event with this number; `false` if there is none.
pub(crate) fn set_event(number: usize) -> bool {
    event(number).is_some_and(|fd| {
        signal(&fd);
        true
    })
}

/// Resets the event with this number; `false` if there is none.
pub(crate) fn reset_event(number: usize) -> bool {
    event(number).is_some_and(|fd| {
        clear(&fd);
        true
    })
}

/// An event that lives until [`close_event`]: what a provider asks for by upcall.
pub(crate) fn create_event() -> io::Result<usize> {
    let event = Event::new()?;
    let number = event.number();
    // The registry's own reference keeps the descriptor; only `close_event` takes it out.
    let fd = Arc::clone(&event.fd);
    drop(event);
    EVENTS.lock().insert(fd.as_raw_fd(), fd);
    Ok(number)
}

/// Ends an event; `false` if there is none with this number.
pub(crate) fn close_event(number: usize) -> bool {
    let Some(fd) = number
        .checked_sub(1)
        .and_then(|fd| RawFd::try_from(fd).ok())
    else {
        return false;
    };
    EVENTS.lock().remove(&fd).is_some()
}

/// One descriptor to wait for.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PollFd<'a> {
    raw: libc::pollfd,
    life: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollFd<'a> {
    fn new(fd: BorrowedFd<'a>, events: libc::c_short) -> PollFd<'a> {
        let raw = libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        };
        PollFd {
            raw,
            life: std::marker::PhantomData,
        }
    }

    pub(crate) fn readable(fd: BorrowedFd<'a>) -> PollFd<'a> {
        PollFd::new(fd, libc::POLLIN)
    }

    pub(crate) fn writable(fd: BorrowedFd<'a>) -> PollFd<'a> {
        PollFd::new(fd, libc::POLLOUT)
    }

    /// Any number, also one that is no descriptor: the kernel says so.
    pub(crate) fn numbered(fd: RawFd, events: libc::c_short) -> PollFd<'a> {
        let raw = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        PollFd {
            raw,
            life: std::marker::PhantomData,
        }
    }

    /// What the last wait found.
    pub(crate) fn found(&self) -> libc::c_short {
        self.raw.revents
    }

    /// Whether the last [`wait`] found what was asked for, or an error to be fetched.
    pub(crate) fn is_ready(&self) -> bool {
        self.raw.revents != 0
    }
}

/// Waits until one of the descriptors is ready or the deadline has passed (then 0 are ready).
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        match wait_once(fds, deadline) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            waited => return waited,
        }
    }
}

/// As [`wait`]; a signal ends it.
pub(crate) fn wait_once(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    let time = deadline.map(|end| {
        let left = end.saturating_duration_since(Instant::now());
        libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos()),
        }
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: `PollFd` is transparent over pollfd; the slice and the time outlive the call; a
    // null signal mask changes nothing.
    let ready = unsafe { unwinding::ppoll(fds.as_mut_ptr().cast(), count, time, std::ptr::null()) };
    Ok(usize::try_from(check(ready)?).unwrap_or(0))
}

/// A set of descriptors that can itself be polled: readable while one of its members is.
#[derive(Debug)]
pub(crate) struct PollSet {
    fd: OwnedFd,
}

impl PollSet {
    pub(crate) fn new() -> io::Result<PollSet> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Ok(PollSet { fd: owned(fd)? })
    }

    /// Adds a descriptor. The kernel takes it out again when its last duplicate is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, Interest::Read)
    }

    /// As [`PollSet::add`], for something else than reading.
    pub(crate) fn add_for(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest)
    }

    /// Adds a descriptor that makes the set readable once for each arrival.
    pub(crate) fn add_for_edges(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET).cast_unsigned(),
            u64: 0,
        };
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, the event is read during the call only.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, member, &raw mut event) })?;
        Ok(())
    }

    /// As [`PollSet::add`], for a descriptor of somebody else; `false` if it is none.
    pub(crate) fn add_number(&self, fd: RawFd) -> bool {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: 0,
        };
        let set = self.fd.as_raw_fd();
        // SAFETY: the event is read during the call only; a number that is not open is answered.
        let added = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        added == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST)
    }

    /// Takes such a descriptor out, which may be closed by now.
    pub(crate) fn remove_number(&self, fd: RawFd) {
        let none = std::ptr::null_mut();
        // SAFETY: no event is needed for this; a number that is not open is answered.
        unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none) };
    }

    /// Consumes the edges that make the set readable.
    pub(crate) fn take_edges(&self) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: at most as many events are stored as there is room for; does not wait.
        unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), 64, 0) };
    }

    /// Takes a member out.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        let none = std::ptr::null_mut();
        // SAFETY: both descriptors are open; no event is needed for this.
        unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, member, none) };
    }

    fn control(&self, what: libc::c_int, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: 0,
        };
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, the event is read during the call only.
        check(unsafe { libc::epoll_ctl(set, what, member, &raw mut event) })?;
        Ok(())
    }
}

/// What a member of a [`PollSet`] is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Write,
    ReadWrite,
}

impl PollSet {
    /// Changes what a member is watched for.
    pub(crate) fn change(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest)
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The addresses of this host's interfaces with the lengths of their network prefixes.
pub(crate) fn interface_addresses() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut head = std::ptr::null_mut();
    // SAFETY: a list is stored in `head`, or an error returned.
    check(unsafe { libc::getifaddrs(&raw mut head) })?;
    let mut found = Vec::new();
    let mut next = head;
    while !next.is_null() {
        // SAFETY: a non-null link of the list that getifaddrs made and nobody has freed.
        let entry = unsafe { &*next };
        // SAFETY: address and mask are null or a sockaddr of the size their family says.
        let address = unsafe { ip_of(entry.ifa_addr) };
        // SAFETY: as above.
        let mask = unsafe { ip_of(entry.ifa_netmask) };
        if let (Some(address), Some(mask)) = (address, mask) {
            found.push((address, prefix_of(mask)));
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list is ours and freed once.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    let family = unsafe { (*address).sa_family };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says what stands here; no alignment is assumed.
            let v4: libc::sockaddr_in =
                unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes())))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what stands here; no alignment is assumed.
            let v6: libc::sockaddr_in6 =
                unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// Tells, when asked, whether an address of this host came or went since it was last asked.
#[derive(Debug)]
pub(crate) struct AddressWatch {
    fd: OwnedFd,
}

impl AddressWatch {
    pub(crate) fn new() -> io::Result<AddressWatch> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        let fd = owned(fd)?;
        // SAFETY: all zeroes is a valid address; the padding must be zero.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or_default();
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_LINK;
        address.nl_groups = groups.cast_unsigned();
        let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: the address is live and as long as stated.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(AddressWatch { fd })
    }

    /// Whether something changed since the last call. Never blocks.
    pub(crate) fn has_changed(&self) -> bool {
        let mut changed = false;
        let mut room = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            let (fd, len) = (self.fd.as_raw_fd(), room.len());
            // SAFETY: at most `len` bytes are written to `room`; they are never read.
            let got = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
            if got > 0 {
                changed = true;
                continue;
            }
            // A lost notice (the queue was full) is a notice.
            if got < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) {
                changed = true;
                continue;
            }
            return changed;
        }
    }
}

/// The local address, without a port, that the kernel would use towards `to`. Sends nothing.
pub(crate) fn source_towards(to: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let probe = UdpSocket::bind(any)?;
    probe.connect(to)?;
    let mut source = probe.local_addr()?;
    source.set_port(0);
    Ok(source)
}

/// A TCP socket that has an address and no connection yet: the companion of a SAN socket. It
/// reserves the port, and carries the connection itself if the SAN does not.
#[derive(Debug)]
pub(crate) struct TcpSocket {
    fd: OwnedFd,
}

impl TcpSocket {
    pub(crate) fn new(family: &SocketAddr) -> io::Result<TcpSocket> {
        let domain = match family {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        Ok(TcpSocket { fd: owned(fd)? })
    }

    /// Lets a listener take a port whose former connections still wait for their end.
    pub(crate) fn reuse_address(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
        let (fd, value) = (self.fd.as_raw_fd(), (&raw const on).cast());
        // SAFETY: the value is live and as long as stated.
        check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, value, len) })?;
        Ok(())
    }

    pub(crate) fn bind(&self, at: SocketAddr) -> io::Result<()> {
        let at = SockAddr::from(at);
        let len = libc::socklen_t::try_from(at.len()).unwrap_or_default();
        // SAFETY: the address is live and as long as stated.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), at.as_ptr().cast(), len) })?;
        Ok(())
    }

    /// Whether an IPv6 socket takes no IPv4 connections.
    pub(crate) fn is_v6_only(&self) -> io::Result<bool> {
        let mut only: libc::c_int = 0;
        let mut len = libc::socklen_t::try_from(size_of_val(&only)).unwrap_or_default();
        let (fd, place) = (self.fd.as_raw_fd(), (&raw mut only).cast());
        let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        // SAFETY: at most `len` bytes are written to `only`.
        check(unsafe { libc::getsockopt(fd, level, name, place, &raw mut len) })?;
        Ok(only != 0)
    }

    pub(crate) fn listen(self, backlog: i32) -> io::Result<TcpListener> {
        // SAFETY: takes no pointer.
        check(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) })?;
        Ok(TcpListener::from(self.fd))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut storage = SockAddr::room();
        let mut len = libc::socklen_t::try_from(storage.capacity()).unwrap_or_default();
        let place = storage.as_mut_ptr().cast();
        // SAFETY: at most `len` bytes are written to `storage`.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), place, &raw mut len) })?;
        storage
            .to_socket_addr()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Connects within the time, or fails as std's `TcpStream` does. Then the kernel forgets the
    /// attempt, so that whoever has another descriptor of the socket can make the next one.
    pub(crate) fn connect(
        self,
        to: SocketAddr,
        deadline: Option<Instant>,
    ) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.fd);
        match establish(&stream, to, deadline) {
            Ok(()) => Ok(stream),
            Err(error) => {
                // A connection that is there is not this function's.
                if error.raw_os_error() != Some(libc::EISCONN) {
                    forget_attempt(&stream);
                }
                Err(error)
            }
        }
    }
}

fn forget_attempt(stream: &TcpStream) {
    let nowhere = SockAddr::room();
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or_default();
    // SAFETY: all zeroes is an address without a family (AF_UNSPEC), longer than stated.
    unsafe { libc::connect(stream.as_raw_fd(), nowhere.as_ptr().cast(), len) };
}

fn establish(stream: &TcpStream, to: SocketAddr, deadline: Option<Instant>) -> io::Result<()> {
    if deadline.is_some_and(|end| end <= Instant::now()) {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    let to = SockAddr::from(to);
    let len = libc::socklen_t::try_from(to.len()).unwrap_or_default();
    stream.set_nonblocking(true)?;
    // SAFETY: the address is live and as long as stated.
    let begun = check(unsafe { libc::connect(stream.as_raw_fd(), to.as_ptr().cast(), len) });
    match begun {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let mut fds = [PollFd::writable(stream.as_fd())];
            if wait(&mut fds, deadline)? == 0 {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error),
    }
    stream.set_nonblocking(false)
}

/// A TCP socket that somebody else has made.
impl From<OwnedFd> for TcpSocket {
    fn from(fd: OwnedFd) -> TcpSocket {
        TcpSocket { fd }
    }
}

impl From<TcpSocket> for OwnedFd {
    fn from(socket: TcpSocket) -> OwnedFd {
        socket.fd
    }
}

/// Whether this process runs with more rights than its user (set-user-ID and the like). Then the
/// environment must not name code to load.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn moved(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// What `sendmsg` and `recvmsg` take: buffers, and nothing else.
fn message(buffers: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all zeroes says: no address, no buffers, nothing besides.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = buffers.cast_mut();
    // More than the kernel takes is refused by it.
    message.msg_iovlen = count as _;
    message
}

/// Sends without a signal where nobody listens any more.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    slices: &[io::IoSlice<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let slices = slices
        .get(..slices.len().min(MOST_SLICES))
        .unwrap_or(slices);
    // An `IoSlice` is an iovec.
    let message = message(slices.as_ptr().cast(), slices.len());
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the slices are live, and only read.
    moved(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [io::IoSliceMut<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let count = buffers.len().min(MOST_SLICES);
    // An `IoSliceMut` is an iovec.
    let mut message = message(buffers.as_mut_ptr().cast(), count);
    // SAFETY: the buffers are live and this call's alone.
    moved(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })
}

/// IOV_MAX.
const MOST_SLICES: usize = 1024;

/// Sends bytes of which the last one is urgent.
pub(crate) fn send_urgent(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_OOB | libc::MSG_NOSIGNAL;
    // SAFETY: reads at most the slice.
    moved(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Fetches the urgent byte of a TCP socket.
pub(crate) fn receive_urgent(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let mut byte = 0u8;
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
    // SAFETY: writes at most the one byte.
    match moved(unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) })? {
        0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Ok(byte),
    }
}

/// SIOCATMARK, which the libc crate does not name; the same on all architectures but a few old ones.
const AT_MARK: libc::Ioctl = 0x8905;

/// Whether a TCP socket has been read up to the urgent byte.
pub(crate) fn is_at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut at: libc::c_int = 0;
    // SAFETY: stores one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), AT_MARK, &raw mut at) })?;
    Ok(at != 0)
}

/// Bytes of a TCP socket that the peer has not acknowledged.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: stores one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Has TCP ask an idle peer for a sign of life. As with a session over the SAN, a second interval
/// without an answer is the end. What was sent and not acknowledged is the kernel's to give up.
pub(crate) fn keep_alive(fd: BorrowedFd<'_>, idle: Duration) -> io::Result<()> {
    /// Questions in the second interval.
    const QUESTIONS: libc::c_int = 3;
    /// The longest time Linux takes here, in seconds.
    const LONGEST: u64 = 32_767;
    let seconds = idle
        .as_secs()
        .saturating_add(u64::from(idle.subsec_nanos() > 0));
    let seconds = libc::c_int::try_from(seconds.clamp(1, LONGEST)).unwrap_or(1);
    for (level, name, value) in [
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds),
        (
            libc::IPPROTO_TCP,
            libc::TCP_KEEPINTVL,
            (seconds / QUESTIONS).max(1),
        ),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, QUESTIONS),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ] {
        set_option(fd, (level, name), &value)?;
    }
    Ok(())
}

/// What `keep_alive` has set: whether it is on, the idle time, the interval and how many questions.
#[cfg(test)]
pub(crate) fn keep_alive_values(fd: BorrowedFd<'_>) -> io::Result<[libc::c_int; 4]> {
    let mut values = [0; 4];
    let [on, idle, interval, questions] = &mut values;
    option(fd, (libc::SOL_SOCKET, libc::SO_KEEPALIVE), on)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), idle)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), interval)?;
    option(fd, (libc::IPPROTO_TCP, libc::TCP_KEEPCNT), questions)?;
    Ok(values)
}

/// Level and name of an option.
type OptionName = (libc::c_int, libc::c_int);

fn set_option<T>(fd: BorrowedFd<'_>, (level, name): OptionName, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let place = std::ptr::from_ref(value).cast();
    // SAFETY: the value is live and as long as stated.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, place, len) })?;
    Ok(())
}

fn option<T>(fd: BorrowedFd<'_>, (level, name): OptionName, value: &mut T) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let place = std::ptr::from_mut(value).cast();
    // SAFETY: at most as much is stored as the value is long; the callers pass plain integers.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, place, &raw mut len) })?;
    Ok(())
}

/// SO_OOBINLINE.
pub(crate) fn set_oob_inline(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_option(
        fd,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE),
        &libc::c_int::from(on),
    )
}

/// SO_OOBINLINE.
pub(crate) fn oob_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut on: libc::c_int = 0;
    option(fd, (libc::SOL_SOCKET, libc::SO_OOBINLINE), &mut on)?;
    Ok(on != 0)
}

/// SO_LINGER, in whole seconds rounded up.
pub(crate) fn set_linger(fd: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<()> {
    let seconds = time.map_or(0, |time| {
        time.as_secs() + u64::from(time.subsec_nanos() > 0)
    });
    let value = libc::linger {
        l_onoff: libc::c_int::from(time.is_some()),
        l_linger: libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX),
    };
    set_option(fd, (libc::SOL_SOCKET, libc::SO_LINGER), &value)
}

/// SO_LINGER.
pub(crate) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let mut value = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    option(fd, (libc::SOL_SOCKET, libc::SO_LINGER), &mut value)?;
    let seconds = u64::try_from(value.l_linger).unwrap_or(0);
    Ok((value.l_onoff != 0).then(|| Duration::from_secs(seconds)))
}

/// Has a function called at the regular end of the process. Refusal is no loss.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function of this library, which is never unloaded while it is linked in.
    unsafe { libc::atexit(function) };
}

/// `Duration` to a deadline; a time too long to be expressed is none.
pub(crate) fn deadline_after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_polled_for_set_and_reset() {
        let event = Event::new().unwrap();
        let soon = || deadline_after(Duration::ZERO);
        assert_eq!(
            wait(&mut [PollFd::readable(event.as_fd())], soon()).unwrap(),
            0
        );
        assert!(set_event(event.number()));
        event.set();
        let mut fds = [PollFd::readable(event.as_fd())];
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(fds[0].is_ready());
        assert!(reset_event(event.number()));
        assert_eq!(
            wait(&mut [PollFd::readable(event.as_fd())], soon()).unwrap(),
            0
        );
        let number = event.number();
        drop(event);
        assert!(!set_event(number));
    }

    #[test]
    fn an_event_that_was_given_back_stays_open_and_is_used_again_unsignalled() {
        let event = Event::spare().unwrap();
        let number = event.number();
        event.set();
        event.give_back();
        assert!(set_event(number));
        let again: Vec<Event> = (0..8).map(|_| Event::spare().unwrap()).collect();
        let now = deadline_after(Duration::ZERO);
        for event in &again {
            let mut fds = [PollFd::readable(event.as_fd())];
            assert_eq!(wait(&mut fds, now).unwrap(), 0);
        }
    }

    #[test]
    fn an_event_made_for_a_provider_lives_until_it_is_closed() {
        let number = create_event().unwrap();
        assert!(set_event(number));
        assert!(close_event(number));
        assert!(!close_event(number));
        assert!(!reset_event(number));
        assert!(!set_event(0));
        assert!(!set_event(usize::MAX));
    }

    #[test]
    fn the_loopback_interface_has_its_prefix() {
        let found = interface_addresses().unwrap();
        assert!(
            found.contains(&(IpAddr::V4(Ipv4Addr::LOCALHOST), 8)),
            "{found:?}"
        );
    }

    #[test]
    fn a_bound_companion_connects_from_its_reserved_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(source_towards(to).unwrap(), SocketAddr::new(to.ip(), 0));
        let socket = TcpSocket::new(&to).unwrap();
        socket.bind((to.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        assert_ne!(local.port(), 0);
        let stream = socket
            .connect(to, deadline_after(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
        assert_eq!(listener.accept().unwrap().1, local);
    }

    #[test]
    fn a_refused_connect_says_so() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = TcpSocket::new(&closed).unwrap();
        let error = socket.connect(closed, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_poll_set_is_readable_while_a_member_is() {
        let set = PollSet::new().unwrap();
        let event = Event::new().unwrap();
        set.add(event.as_fd()).unwrap();
        event.set();
        assert_eq!(wait(&mut [PollFd::readable(set.as_fd())], None).unwrap(), 1);
        event.reset();
        let now = deadline_after(Duration::ZERO);
        assert_eq!(wait(&mut [PollFd::readable(set.as_fd())], now).unwrap(), 0);
    }
}
