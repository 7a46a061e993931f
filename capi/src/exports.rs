//! Every symbol of libwsd_switch.so: pointers in, calls of a socket, errno out.
//!
//! Each function is a shell: it looks at what it is given, calls safe code, and turns the result into
//! what C expects. A defect further in ends as EIO and does not unwind into the caller.

// What callers promise is what the kernel's functions of these names are promised.
#![allow(clippy::missing_safety_doc)]

use std::ffi::{c_char, c_int, c_short, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::time::Duration;

use libc::{iovec, msghdr, nfds_t, pollfd, sockaddr, socklen_t, ssize_t};
use smallvec::SmallVec;
use wsd_switch::{Reason, Transport, WsaError};

use crate::address;
use crate::polling;
use crate::socket::Socket;
use crate::sys::{self, errno};
use crate::table;
use crate::types::{WSD_PATH_NONE, WSD_PATH_SAN, WSD_PATH_TCP, wsd_stats_info, wsd_transport_info};

/// IOV_MAX.
const MOST_BUFFERS: usize = 1024;
/// As many bytes as the kernel moves in one call.
const MOST_BYTES: usize = 0x7FFF_F000;

// ---------------------------------------------------------------- out

/// Runs a call; its error goes to errno.
fn call<T>(inner: impl FnOnce() -> io::Result<T>) -> Option<T> {
    // What a panic leaves behind is either gone with the call, or behind locks that do not poison.
    let result = catch_unwind(AssertUnwindSafe(inner)).unwrap_or_else(|_| Err(errno(libc::EIO)));
    result
        .map_err(|error| sys::set_errno(sys::number_of(&error)))
        .ok()
}

fn int(inner: impl FnOnce() -> io::Result<c_int>) -> c_int {
    call(inner).unwrap_or(-1)
}

fn nothing(inner: impl FnOnce() -> io::Result<()>) -> c_int {
    int(|| inner().map(|()| 0))
}

fn count(inner: impl FnOnce() -> io::Result<usize>) -> ssize_t {
    call(|| ssize_t::try_from(inner()?).map_err(|_| errno(libc::EINVAL))).unwrap_or(-1)
}

fn socket(s: c_int) -> io::Result<Arc<Socket>> {
    table::find(s).ok_or_else(|| errno(libc::EBADF))
}

/// Gives a socket to the caller.
fn publish(socket: Socket) -> io::Result<c_int> {
    table::insert(Arc::new(socket)).ok_or_else(|| errno(libc::EMFILE))
}

// ---------------------------------------------------------------- in

/// # Safety
/// `at` is null, or readable for `len` bytes.
unsafe fn bytes<'a>(at: *const u8, len: usize) -> io::Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(errno(libc::EFAULT));
    }
    // SAFETY: not null and readable, by the caller's promise; not longer than any object can be.
    Ok(unsafe { slice::from_raw_parts(at, len.min(MOST_BYTES)) })
}

/// # Safety
/// `at` is null, or writable for `len` bytes that nobody else uses during the call.
unsafe fn room<'a>(at: *mut u8, len: usize) -> io::Result<&'a mut [u8]> {
    if len == 0 {
        return Ok(&mut []);
    }
    if at.is_null() {
        return Err(errno(libc::EFAULT));
    }
    // SAFETY: not null, writable and this call's alone, by the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(at, len.min(MOST_BYTES)) })
}

/// # Safety
/// `at` is null, or readable for `len` bytes.
unsafe fn address_in(at: *const sockaddr, len: socklen_t) -> io::Result<SmallVec<[u8; 32]>> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > address::ROOM {
        return Err(errno(libc::EINVAL));
    }
    // SAFETY: passed on.
    let bytes = unsafe { bytes(at.cast(), len) }?;
    Ok(SmallVec::from_slice(bytes))
}

/// Stores as much of an address as there is room for, and how long it is.
///
/// # Safety
/// `at` is null, or writable for `*len` bytes; `len` is null or to be read and written.
unsafe fn address_out(bytes: &[u8], at: *mut sockaddr, len: *mut socklen_t) -> io::Result<()> {
    if at.is_null() || len.is_null() {
        return Err(errno(libc::EFAULT));
    }
    // SAFETY: not null, and the caller's promise.
    let space = unsafe { len.read_unaligned() };
    let space = usize::try_from(space.cast_signed()).map_err(|_| errno(libc::EINVAL))?;
    // SAFETY: passed on.
    let room = unsafe { room(at.cast(), space) }?;
    for (to, from) in room.iter_mut().zip(bytes) {
        *to = *from;
    }
    let whole = socklen_t::try_from(bytes.len()).unwrap_or_default();
    // SAFETY: as above.
    unsafe { len.write_unaligned(whole) };
    Ok(())
}

/// # Safety
/// `at` is readable for `many` iovecs.
unsafe fn buffers<'a>(at: *const iovec, many: usize) -> io::Result<&'a [iovec]> {
    if many > MOST_BUFFERS {
        return Err(errno(libc::EINVAL));
    }
    if many == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(errno(libc::EFAULT));
    }
    // SAFETY: not null and readable, by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(at, many) })
}

/// # Safety
/// What each of them names is readable.
unsafe fn slices<'a>(vectors: &[iovec]) -> io::Result<SmallVec<[IoSlice<'a>; 8]>> {
    vectors
        .iter()
        .map(|one| {
            // SAFETY: the caller's promise.
            let bytes = unsafe { bytes(one.iov_base.cast(), one.iov_len) }?;
            Ok(IoSlice::new(bytes))
        })
        .collect()
}

/// # Safety
/// What each of them names is writable, and nobody else's during the call.
unsafe fn rooms<'a>(vectors: &[iovec]) -> io::Result<SmallVec<[IoSliceMut<'a>; 8]>> {
    vectors
        .iter()
        .map(|one| {
            // SAFETY: the caller's promise.
            let room = unsafe { room(one.iov_base.cast(), one.iov_len) }?;
            Ok(IoSliceMut::new(room))
        })
        .collect()
}

/// # Safety
/// As for `buffers`, and for what they name.
unsafe fn send_from(s: c_int, at: *const iovec, many: usize, flags: c_int) -> io::Result<usize> {
    let socket = socket(s)?;
    // SAFETY: passed on.
    let vectors = unsafe { buffers(at, many) }?;
    // SAFETY: passed on.
    let slices = unsafe { slices(vectors) }?;
    socket.send(&slices, flags)
}

/// # Safety
/// As for `buffers`, and for what they name.
unsafe fn receive_into(s: c_int, at: *const iovec, many: usize, flags: c_int) -> io::Result<usize> {
    let socket = socket(s)?;
    // SAFETY: passed on.
    let vectors = unsafe { buffers(at, many) }?;
    // SAFETY: passed on.
    let mut rooms = unsafe { rooms(vectors) }?;
    socket.receive(&mut rooms, flags)
}

/// Stores the beginning of a structure, as large as the caller knows it, and zeroes behind ours.
///
/// # Safety
/// `T` has no padding; `at` is null, or writable for `size` bytes.
unsafe fn structure_out<T: Copy>(value: &T, at: *mut T, size: usize) -> io::Result<()> {
    if size == 0 || size > 1 << 16 {
        return Err(errno(libc::EINVAL));
    }
    // SAFETY: a whole value without padding.
    let bytes = unsafe { slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) };
    // SAFETY: passed on.
    let room = unsafe { room(at.cast(), size) }?;
    room.fill(0);
    for (to, from) in room.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(())
}

// ---------------------------------------------------------------- sockets

/// Makes a TCP socket that connects and listens over the SAN, too.
///
/// domain is AF_INET or AF_INET6. kind is SOCK_STREAM, also with SOCK_NONBLOCK and SOCK_CLOEXEC (which
/// is always on). protocol is 0 or IPPROTO_TCP.
///
/// Errors: those of socket; EMFILE above 262144 sockets; ENOTSUP in a child of fork.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    int(|| {
        static CHILDREN: Once = Once::new();
        CHILDREN.call_once(|| {
            // Without it a child would take its parent's sockets for its own: its own mistake.
            drop(sys::in_child(table::forget_all));
        });
        if table::is_forked() {
            return Err(errno(libc::ENOTSUP));
        }
        let also = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        if kind & !also != libc::SOCK_STREAM {
            return Err(errno(libc::ESOCKTNOSUPPORT));
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            return Err(errno(libc::EPROTONOSUPPORT));
        }
        publish(Socket::new(domain, kind & libc::SOCK_NONBLOCK != 0)?)
    })
}

/// As bind. Port 0 takes a free one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_bind(s: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    nothing(|| {
        let socket = socket(s)?;
        // SAFETY: the caller's promise, as for bind.
        let address = unsafe { address_in(addr, len) }?;
        socket.bind(&address)
    })
}

/// As listen, on both paths. The backlog is TCP's; over the SAN up to 4096 connections wait to be
/// accepted. A second call changes nothing.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_listen(s: c_int, backlog: c_int) -> c_int {
    nothing(|| socket(s)?.listen(backlog))
}

/// As accept, over whichever path the connection came. SO_RCVTIMEO limits the wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_accept(s: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: passed on.
    unsafe { wsd_accept4(s, addr, len, 0) }
}

/// As accept4: flags are SOCK_NONBLOCK and SOCK_CLOEXEC (which is always on).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_accept4(
    s: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    int(|| {
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return Err(errno(libc::EINVAL));
        }
        let listening = socket(s)?;
        let (made, peer) = listening.accept(flags & libc::SOCK_NONBLOCK != 0)?;
        if !addr.is_null() {
            let bytes = address::bytes(peer, listening.domain);
            // SAFETY: the caller's promise, as for accept.
            unsafe { address_out(&bytes, addr, len) }?;
        }
        publish(made)
    })
}

/// As connect: over the SAN where it serves, otherwise over TCP. A nonblocking socket gives
/// EINPROGRESS; its end is told by wsd_poll (POLLOUT) and SO_ERROR. SO_SNDTIMEO limits the wait;
/// then the error is ETIMEDOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_connect(s: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    nothing(|| {
        let socket = socket(s)?;
        // SAFETY: the caller's promise, as for connect.
        let address = unsafe { address_in(addr, len) }?;
        socket.connect(address::parse(&address)?)
    })
}

/// As shutdown. Of a listener: SHUT_RD ends accepting, and waiting accepts give EINVAL.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_shutdown(s: c_int, how: c_int) -> c_int {
    nothing(|| socket(s)?.shutdown(how))
}

/// As close: what was sent is still delivered, in the background, for up to two minutes, unless
/// SO_LINGER says otherwise.
/// Other threads' calls on the socket end.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_close(s: c_int) -> c_int {
    nothing(|| {
        let socket = table::remove(s).ok_or_else(|| errno(libc::EBADF))?;
        // Nobody finds it any more, so there are not going to be more of them.
        socket.close(Arc::strong_count(&socket) > 1);
        Ok(())
    })
}

/// Whether calls return EAGAIN where they would wait.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_set_nonblocking(s: c_int, on: c_int) -> c_int {
    nothing(|| socket(s)?.set_nonblocking(on != 0))
}

/// 1 if calls return EAGAIN where they would wait, otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_get_nonblocking(s: c_int) -> c_int {
    int(|| {
        let socket = socket(s)?;
        let is = socket.is_nonblocking.load(Ordering::Relaxed);
        Ok(c_int::from(is))
    })
}

// ---------------------------------------------------------------- data

/// As send. Flags: MSG_DONTWAIT, MSG_OOB, and without effect MSG_NOSIGNAL (always so), MSG_MORE,
/// MSG_EOR; others give EOPNOTSUPP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_send(
    s: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    count(|| {
        let socket = socket(s)?;
        // SAFETY: the caller's promise, as for send.
        let bytes = unsafe { bytes(buf.cast(), len) }?;
        socket.send(&[IoSlice::new(bytes)], flags)
    })
}

/// As recv. Flags: MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_WAITALL; others give EOPNOTSUPP. A large
/// buffer of a blocking socket is filled without a copy where the SAN can.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_recv(s: c_int, buf: *mut c_void, len: usize, flags: c_int) -> ssize_t {
    count(|| {
        let socket = socket(s)?;
        // SAFETY: the caller's promise, as for recv.
        let room = unsafe { room(buf.cast(), len) }?;
        socket.receive(&mut [IoSliceMut::new(room)], flags)
    })
}

/// As write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_write(s: c_int, buf: *const c_void, len: usize) -> ssize_t {
    // SAFETY: passed on.
    unsafe { wsd_send(s, buf, len, 0) }
}

/// As read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_read(s: c_int, buf: *mut c_void, len: usize) -> ssize_t {
    // SAFETY: passed on.
    unsafe { wsd_recv(s, buf, len, 0) }
}

/// As writev.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_writev(s: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    count(|| {
        let many = usize::try_from(iovcnt).map_err(|_| errno(libc::EINVAL))?;
        // SAFETY: the caller's promise, as for writev.
        unsafe { send_from(s, iov, many, 0) }
    })
}

/// As readv.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_readv(s: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    count(|| {
        let many = usize::try_from(iovcnt).map_err(|_| errno(libc::EINVAL))?;
        // SAFETY: the caller's promise, as for readv.
        unsafe { receive_into(s, iov, many, 0) }
    })
}

/// As sendmsg, with the flags of wsd_send. The name is ignored; ancillary data gives EOPNOTSUPP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_sendmsg(s: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    count(|| {
        if msg.is_null() {
            return Err(errno(libc::EFAULT));
        }
        // SAFETY: not null, and the caller's promise.
        let msg = unsafe { msg.read_unaligned() };
        if msg.msg_controllen != 0 {
            return Err(errno(libc::EOPNOTSUPP));
        }
        // SAFETY: the caller's promise, as for sendmsg.
        unsafe { send_from(s, msg.msg_iov, msg.msg_iovlen, flags) }
    })
}

/// As recvmsg, with the flags of wsd_recv. There is never a name nor ancillary data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_recvmsg(s: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    count(|| {
        if msg.is_null() {
            return Err(errno(libc::EFAULT));
        }
        // SAFETY: not null, and the caller's promise.
        let mut header = unsafe { msg.read_unaligned() };
        // SAFETY: the caller's promise, as for recvmsg.
        let received = unsafe { receive_into(s, header.msg_iov, header.msg_iovlen, flags) }?;
        header.msg_namelen = 0;
        header.msg_controllen = 0;
        header.msg_flags = flags & libc::MSG_OOB;
        // SAFETY: as above.
        unsafe { msg.write_unaligned(header) };
        Ok(received)
    })
}

/// 1 if everything before the urgent byte has been received, otherwise 0; as sockatmark.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_sockatmark(s: c_int) -> c_int {
    int(|| socket(s)?.at_mark())
}

// ---------------------------------------------------------------- waiting

/// As poll, over wsd sockets and descriptors of the kernel's in any mixture. What is no open socket
/// or descriptor gets POLLNVAL. EINTR by a signal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int {
    int(|| {
        let many = usize::try_from(nfds).map_err(|_| errno(libc::EINVAL))?;
        if many > 1 << 24 {
            return Err(errno(libc::EINVAL));
        }
        if many > 0 && fds.is_null() {
            return Err(errno(libc::EFAULT));
        }
        let fds = if many == 0 {
            &mut []
        } else {
            // SAFETY: not null, and the caller's promise, as for poll.
            unsafe { slice::from_raw_parts_mut(fds, many) }
        };
        let time = u64::try_from(timeout).ok().map(Duration::from_millis);
        let found = polling::poll(fds, time)?;
        c_int::try_from(found).map_err(|_| errno(libc::EINVAL))
    })
}

/// A descriptor for other event loops: it is readable (POLLIN, also for writing) while a call is worth
/// a try that gave EAGAIN; now and then without a cause.
///
/// events is POLLIN for receiving or POLLOUT for sending on a connection; of a listener the descriptor
/// tells of connections, of a connect that is in progress of its end. It belongs to the socket until
/// that is closed, and is to be polled and nothing else. It is another one after connecting.
#[unsafe(no_mangle)]
pub extern "C" fn wsd_fd(s: c_int, events: c_short) -> c_int {
    int(|| socket(s)?.descriptor(events))
}

// ---------------------------------------------------------------- options and names

/// As setsockopt. Both paths: SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER, SO_OOBINLINE, TCP_NODELAY, SO_SNDBUF,
/// SO_RCVBUF, SO_KEEPALIVE, TCP_KEEPIDLE (the last four before connecting), and SOL_WSD. All others are
/// the kernel's; of a connection over the SAN they give ENOPROTOOPT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_setsockopt(
    s: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    nothing(|| {
        let socket = socket(s)?;
        let len = usize::try_from(len.cast_signed()).map_err(|_| errno(libc::EINVAL))?;
        // SAFETY: the caller's promise, as for setsockopt.
        let value = unsafe { bytes(value.cast(), len) }?;
        socket.set_option(level, name, value)
    })
}

/// As getsockopt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_getsockopt(
    s: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    nothing(|| {
        let socket = socket(s)?;
        if len.is_null() {
            return Err(errno(libc::EFAULT));
        }
        // SAFETY: not null, and the caller's promise, as for getsockopt.
        let most = unsafe { len.read_unaligned() };
        let most = usize::try_from(most.cast_signed()).map_err(|_| errno(libc::EINVAL))?;
        // SAFETY: as above.
        let room = unsafe { room(value.cast(), most) }?;
        let got = socket.option(level, name, most)?;
        for (to, from) in room.iter_mut().zip(&got) {
            *to = *from;
        }
        let got = socklen_t::try_from(got.len()).unwrap_or_default();
        // SAFETY: as above.
        unsafe { len.write_unaligned(got) };
        Ok(())
    })
}

/// As getsockname.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_getsockname(
    s: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    nothing(|| {
        let name = socket(s)?.local_name()?;
        // SAFETY: the caller's promise, as for getsockname.
        unsafe { address_out(&name, addr, len) }
    })
}

/// As getpeername.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_getpeername(
    s: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    nothing(|| {
        let name = socket(s)?.peer_name()?;
        // SAFETY: the caller's promise, as for getpeername.
        unsafe { address_out(&name, addr, len) }
    })
}

// ---------------------------------------------------------------- what it is

/// Which path a socket uses, and why. size is sizeof(struct wsd_transport_info).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_transport(
    s: c_int,
    info: *mut wsd_transport_info,
    size: usize,
) -> c_int {
    nothing(|| {
        let told = transport(&*socket(s)?);
        // SAFETY: two ints and three arrays of bytes, which leave no gaps; the caller's promise.
        unsafe { structure_out(&told, info, size) }
    })
}

fn transport(socket: &Socket) -> wsd_transport_info {
    let mut told = wsd_transport_info {
        path: WSD_PATH_NONE,
        provider_error: 0,
        provider: [0; 64],
        reason: [0; 32],
        text: [0; 160],
    };
    let because = |told: &mut wsd_transport_info, reason: &Reason| {
        told.path = WSD_PATH_TCP;
        told.provider_error = reason.provider_error().map_or(0, |WsaError(code)| code);
        text(&mut told.reason, reason.code());
    };
    if let Some(stream) = socket.stream.get() {
        let transport = stream.transport();
        text(&mut told.text, &transport.to_string());
        match &transport {
            Transport::San { provider } => {
                told.path = WSD_PATH_SAN;
                text(&mut told.provider, provider);
            }
            Transport::Tcp { reason } => because(&mut told, reason),
            _ => {}
        }
    } else if let Some(listening) = socket.listener.get() {
        match listening.listener.tcp_only() {
            Some(reason) => {
                because(&mut told, reason);
                text(&mut told.text, &format!("TCP only ({reason})"));
            }
            None => {
                told.path = WSD_PATH_SAN;
                text(&mut told.text, "SAN and TCP");
            }
        }
    } else {
        text(&mut told.text, "not connected");
    }
    told
}

/// Stores a text, cut where there is no room, and always terminated.
fn text(room: &mut [c_char], text: &str) {
    let most = room.len().saturating_sub(1);
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (to, from) in room.iter_mut().zip(text.bytes().take(end)) {
        *to = c_char::from_ne_bytes([from]);
    }
}

/// What has happened on a connection. size is sizeof(struct wsd_stats_info).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsd_stats(s: c_int, info: *mut wsd_stats_info, size: usize) -> c_int {
    nothing(|| {
        let socket = socket(s)?;
        let stats = socket.stream()?.stats();
        let told = wsd_stats_info {
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            messages_sent: stats.messages_sent,
            messages_received: stats.messages_received,
            rdma_read_bytes: stats.rdma_read_bytes,
            rdma_write_bytes: stats.rdma_write_bytes,
            rdma_reads: stats.rdma_reads,
            rdma_writes: stats.rdma_writes,
            large_sent: stats.large_sent,
            large_received: stats.large_received,
            credit_messages_sent: stats.credit_messages_sent,
            credit_messages_received: stats.credit_messages_received,
            stalls: stats.stalls,
            spins: stats.spins,
            sleeps: stats.sleeps,
            unread: stats.unread,
            unsent: stats.unsent,
        };
        // SAFETY: integers of one size, which leave no gaps; the caller's promise.
        unsafe { structure_out(&told, info, size) }
    })
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn wsd_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
