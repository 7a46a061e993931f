//! Receiving and sending as the application calls it.
//!
//! The application's buffers are raw memory here, vouched for by the caller; everything behind this
//! file sees slices.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::{c_int, iovec};

use super::calls::Call;
use super::ending::ends_process;
use super::guard::Guarded;
use super::marker::{MARKER, find_marker};
use super::state::{BETWEEN, BROKEN, GUARDED, KERNEL, SAN, TAKEN};
use super::{Companion, kernel};
use crate::conn::{Connection, Manner};

/// From here on a blocking receive is worth being told the socket's mode at once.
const LARGE: usize = 32 << 10;
/// Most bytes that a call hands to the kernel at once: while one is in the kernel, which with a slow
/// receiver is until it has taken everything, the connection cannot go over to the SAN.
const PIECE: u64 = 512 << 10;
/// Between two looks of a guarded receiver that another call is in the way of.
const AGAIN: Duration = Duration::from_micros(200);
/// Between two looks of a sender whose process ends.
const LEAVING: Duration = Duration::from_millis(10);
/// A guarded receiver looks whether it has been overtaken.
const SLICE: Duration = Duration::from_secs(1);

/// A receiving call of the kernel that is under way.
#[derive(Debug)]
#[must_use = "finish must be called"]
pub struct Receiving<'a> {
    companion: &'a Companion,
    fd: RawFd,
    _counted: Call<'a>,
}

impl<'a> Receiving<'a> {
    #[inline]
    pub(super) fn new(companion: &'a Companion, fd: RawFd) -> Self {
        Receiving {
            companion,
            fd,
            _counted: Call::begin(&companion.rx.inflight),
        }
    }

    /// The call is over with this result; to be called after a failure, too. What the application
    /// is to get; `None` if nothing of it was the application's: then call again. errno is kept.
    ///
    /// # Safety
    /// The first `n` bytes of the buffers, together, were written by the kernel (unless the flags
    /// have MSG_TRUNC) and may be read and written.
    #[inline]
    pub unsafe fn finish(self, n: isize, flags: c_int, buffers: &mut [iovec]) -> Option<isize> {
        let Ok(count) = usize::try_from(n) else {
            return Some(n);
        };
        let companion = self.companion;
        if count == 0 {
            // Whoever has heard of a reset instead of this call breaks off before the lock is free.
            drop(companion.core.lock());
            if companion.rx.phase() == BROKEN {
                return None;
            }
        }
        if flags & libc::MSG_OOB != 0 || count == 0 {
            return Some(n);
        }
        let peeks = flags & libc::MSG_PEEK != 0;
        if companion.rx.phase() == KERNEL {
            if !peeks {
                companion.rx.count(count);
                companion.received(self.fd);
            }
            return Some(n);
        }
        let truncates = flags & libc::MSG_TRUNC != 0;
        let mut tail = |from: usize| {
            if truncates {
                return Vec::new();
            }
            // SAFETY: the caller vouches for the first `count` bytes.
            unsafe { gathered(buffers, from, count) }
        };
        let own = companion.finish_guarded(count, peeks, &mut tail);
        drop(self);
        companion.moved();
        match own {
            0 => None,
            own => isize::try_from(own).ok(),
        }
    }
}

/// A sending call of the kernel that is under way.
#[derive(Debug)]
#[must_use = "finish must be called"]
pub struct Sending<'a> {
    companion: &'a Companion,
    fd: RawFd,
    counted: Option<Call<'a>>,
}

impl<'a> Sending<'a> {
    #[inline]
    pub(super) fn new(companion: &'a Companion, fd: RawFd) -> Self {
        Sending {
            companion,
            fd,
            counted: Some(Call::begin(&companion.tx.inflight)),
        }
    }

    /// The call is over with this result; to be called after a failure, too. errno is kept only if
    /// it was none.
    #[inline]
    pub fn finish(self, n: isize) {
        if let Ok(count) = usize::try_from(n) {
            self.companion.tx.count(count);
            self.companion.sent(self.fd);
        }
    }
}

impl Drop for Sending<'_> {
    #[inline]
    fn drop(&mut self) {
        let companion = self.companion;
        drop(self.counted.take());
        if companion.tx.phase() == GUARDED {
            companion.cut_now();
        }
    }
}

/// The bytes `from..to` of the buffers, copied.
///
/// # Safety
/// They may be read.
unsafe fn gathered(buffers: &[iovec], from: usize, to: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(to.saturating_sub(from));
    let mut at = 0;
    for buffer in buffers {
        let (first, last) = (from.max(at), to.min(at + buffer.iov_len));
        if first < last {
            // SAFETY: inside this buffer, which the caller vouches for.
            let start = unsafe { buffer.iov_base.cast::<u8>().add(first - at) };
            // SAFETY: as above.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, last - first) });
        }
        at += buffer.iov_len;
    }
    bytes
}

/// What of the buffers lies behind `skip` bytes, at most `most`.
fn rest(buffers: &[iovec], mut skip: usize, most: u64) -> Vec<iovec> {
    let mut left = usize::try_from(most).unwrap_or(usize::MAX);
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let from = skip.min(buffer.iov_len);
        skip -= from;
        let len = (buffer.iov_len - from).min(left);
        left -= len;
        if len > 0 {
            rest.push(iovec {
                iov_base: buffer.iov_base.wrapping_byte_add(from),
                iov_len: len,
            });
        }
    }
    rest
}

/// As [`rest`], all of it; mostly that is all there is.
fn behind(buffers: &[iovec], skip: usize) -> Cow<'_, [iovec]> {
    if skip == 0 {
        Cow::Borrowed(buffers)
    } else {
        Cow::Owned(rest(buffers, skip, u64::MAX))
    }
}

fn length(buffers: &[iovec]) -> usize {
    buffers
        .iter()
        .fold(0, |sum: usize, one| sum.saturating_add(one.iov_len))
}

fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What a part of a send has come to.
struct Sent {
    count: usize,
    by_kernel: bool,
}

/// How long a call may still wait.
struct Patience {
    fd: RawFd,
    flags: c_int,
    option: c_int,
    asked: Option<Asked>,
    /// A part is there already: any signal ends the wait for the rest.
    has_part: bool,
    /// A wait has ended with a part only.
    is_over: bool,
    /// Where this call, in its middle, keeps other senders out.
    turn: Option<Arc<Connection>>,
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(connection) = self.turn.take() {
            connection.end_turn();
        }
    }
}

#[derive(Clone, Copy)]
struct Asked {
    nonblocking: bool,
    deadline: Option<Instant>,
}

impl Patience {
    fn new(fd: RawFd, flags: c_int, option: c_int) -> Patience {
        Patience {
            fd,
            flags,
            option,
            asked: None,
            has_part: false,
            is_over: false,
            turn: None,
        }
    }

    /// Asked from the kernel's socket, once, when somebody is about to wait.
    fn ask(&mut self) -> Asked {
        let (fd, flags, option) = (self.fd, self.flags, self.option);
        *self.asked.get_or_insert_with(|| {
            let nonblocking = flags & libc::MSG_DONTWAIT != 0 || kernel::is_nonblocking(fd);
            let time = if nonblocking {
                None
            } else {
                kernel::time_out(fd, option)
            };
            Asked {
                nonblocking,
                deadline: time.and_then(|time| Instant::now().checked_add(time)),
            }
        })
    }

    /// How to wait with the SAN; an error if there is no time left.
    fn manner(&mut self) -> io::Result<Manner> {
        let asked = self.ask();
        let now = Instant::now();
        if asked.nonblocking || asked.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(would_block());
        }
        Ok(Manner {
            nonblocking: false,
            time: asked.deadline.map(|deadline| deadline - now),
            interruptible: true,
            goes_on: false,
        })
    }

    /// Whether a call that a signal has interrupted says so.
    fn says_so(&mut self) -> bool {
        self.has_part || self.ask().deadline.is_some() || kernel::interrupts()
    }

    /// Waits in the kernel, for a moment or for this descriptor.
    fn wait(&mut self, events: libc::c_short, most: Duration) -> io::Result<()> {
        let manner = self.manner()?;
        let time = manner.time.unwrap_or(most).min(most);
        let millis = c_int::try_from(time.as_millis())
            .unwrap_or(c_int::MAX)
            .max(1);
        let mut fds = [libc::pollfd {
            fd: self.fd,
            events,
            revents: 0,
        }];
        match kernel::poll(&mut fds, millis) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !self.says_so() => Ok(()),
            waited => waited.map(drop),
        }
    }
}

impl Companion {
    /// Receives as recvmsg(2) does with these flags, from wherever the stream goes on; blocks as
    /// the socket and the flags say.
    ///
    /// # Errors
    /// As recvmsg(2).
    ///
    /// # Safety
    /// The buffers may be written to.
    pub unsafe fn receive(&self, fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
        if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_PEEK == 0 && self.rx.phase() != KERNEL
        {
            // Received to be thrown away: the buffers may be nowhere.
            let mut scratch = vec![0; length(buffers).min(64 << 10)];
            let own = [iovec {
                iov_base: scratch.as_mut_ptr().cast(),
                iov_len: scratch.len(),
            }];
            // SAFETY: memory of this frame.
            return unsafe { self.receive(fd, &own, flags & !libc::MSG_TRUNC) };
        }
        let len = length(buffers);
        let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
        let flags = flags & !libc::MSG_WAITALL;
        let mut patience = Patience::new(fd, flags, libc::SO_RCVTIMEO);
        let mut done = 0;
        loop {
            let left = behind(buffers, done);
            patience.has_part = done > 0;
            // SAFETY: parts of the buffers that the caller vouches for.
            match unsafe { self.receive_some(&mut patience, &left) } {
                Ok(0) => return Ok(done),
                Ok(count) => done += count,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            // As with the kernel, no call goes beyond the urgent mark that has got a part before it.
            if !all || done >= len || patience.ask().nonblocking || self.at_mark() == Some(true) {
                return Ok(done);
            }
        }
    }

    /// # Safety
    /// The buffers may be written to.
    unsafe fn receive_some(&self, patience: &mut Patience, buffers: &[iovec]) -> io::Result<usize> {
        let (fd, flags) = (patience.fd, patience.flags);
        let peeks = flags & libc::MSG_PEEK != 0;
        loop {
            match self.rx.phase() {
                KERNEL => {
                    let Some(receiving) = self.begin_receive(fd) else {
                        continue;
                    };
                    // SAFETY: the caller vouches for the buffers.
                    let got = unsafe { kernel::receive(fd, buffers, flags) }?;
                    let n = isize::try_from(got).unwrap_or(isize::MAX);
                    let mut own = buffers.to_vec();
                    // SAFETY: the kernel has just written them.
                    if let Some(count) = unsafe { receiving.finish(n, flags, &mut own) } {
                        return Ok(usize::try_from(count).unwrap_or(0));
                    }
                }
                GUARDED if flags & libc::MSG_OOB != 0 => {
                    // SAFETY: the caller vouches for the buffers.
                    return unsafe { kernel::receive(fd, buffers, flags) };
                }
                GUARDED => {
                    let mut receive = |most: u64, more: c_int| {
                        let own = rest(buffers, 0, most);
                        // SAFETY: parts of the buffers that the caller vouches for.
                        unsafe { kernel::receive(fd, &own, (flags & !libc::MSG_PEEK) | more) }
                    };
                    let mut finds = |count: usize, marker: &[u8; MARKER]| {
                        // SAFETY: the kernel has just written that many bytes.
                        let bytes = unsafe { gathered(buffers, 0, count) };
                        find_marker(&bytes, marker)
                    };
                    // Keeps the service thread from taking the marker that is to wake this one.
                    let _busy = Call::begin(&self.rx.busy);
                    let found = self.receive_guarded(fd, peeks, &mut receive, &mut finds);
                    if found.is_err() && self.rx.phase() == BROKEN {
                        self.reset_told.store(true, Ordering::SeqCst);
                    }
                    match found? {
                        Guarded::Got(count) => return Ok(count),
                        Guarded::Changed => self.moved(),
                        Guarded::Nothing => patience.wait(libc::POLLIN, SLICE)?,
                        Guarded::Later => {
                            patience.manner()?;
                            std::thread::sleep(AGAIN);
                        }
                    }
                }
                BETWEEN => {
                    // SAFETY: the caller vouches for the buffers.
                    if let Some(count) = unsafe { self.receive_left(buffers, peeks) } {
                        return Ok(count);
                    }
                }
                SAN => {
                    let busy = Call::begin(&self.rx.busy);
                    let Some(connection) = self.carrier(&self.rx) else {
                        continue;
                    };
                    // SAFETY: the caller vouches for the buffers.
                    let got = unsafe { self.receive_san(&connection, patience, buffers) };
                    match got {
                        Ok(Some(count)) => return Ok(count),
                        Ok(None) => {
                            drop(busy);
                            self.yielded(&connection);
                            self.moved();
                        }
                        Err(error) => return Err(error),
                    }
                }
                TAKEN => {
                    self.resume(&mut self.core.lock());
                    self.moved();
                    if self.rx.phase() == TAKEN {
                        patience.manner()?;
                        std::thread::sleep(AGAIN);
                    }
                }
                // What had arrived before the end.
                BROKEN if !self.core.lock().leftover.is_empty() => {
                    // SAFETY: the caller vouches for the buffers.
                    if let Some(count) = unsafe { self.receive_left(buffers, peeks) } {
                        return Ok(count);
                    }
                }
                BROKEN if self.reset_told.swap(true, Ordering::SeqCst) => return Ok(0),
                BROKEN => return Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
                _ => drop(self.core.lock()),
            }
        }
    }

    /// What was taken from the SAN early. `None` if nothing is left of it.
    ///
    /// # Safety
    /// The buffers may be written to.
    unsafe fn receive_left(&self, buffers: &[iovec], peeks: bool) -> Option<usize> {
        let mut core = self.core.lock();
        let count = length(buffers).min(core.leftover.len());
        let bytes: Vec<u8> = core.leftover.range(..count).copied().collect();
        if !peeks {
            core.leftover.drain(..count);
        }
        if core.leftover.is_empty() && self.rx.phase() == BETWEEN && !peeks {
            self.leave_between(&mut core);
        }
        drop(core);
        // SAFETY: the caller vouches for the buffers.
        unsafe { scatter(buffers, &bytes) };
        self.moved();
        (count > 0).then_some(count)
    }

    /// Receives from the SAN. `None` if the stream goes on with the kernel.
    ///
    /// # Safety
    /// The buffers may be written to.
    unsafe fn receive_san(
        &self,
        connection: &Arc<Connection>,
        patience: &mut Patience,
        buffers: &[iovec],
    ) -> io::Result<Option<usize>> {
        let flags = patience.flags;
        if flags & libc::MSG_OOB != 0 {
            let inline = kernel::number(patience.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE);
            let inline = inline.is_some_and(|inline| inline != 0);
            connection.set_urgent_inline(inline);
            if inline {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let byte = connection.read_urgent()?;
            // SAFETY: the caller vouches for the buffers.
            unsafe { scatter(buffers, &[byte]) };
            self.show_now(connection);
            return Ok(Some(1));
        }
        let peeks = flags & libc::MSG_PEEK != 0;
        let len = length(buffers);
        if len == 0 {
            return Ok(Some(0));
        }
        let mut manner = Manner::NOT;
        // Large data goes straight into a buffer whose owner waits.
        if len >= LARGE && !patience.ask().nonblocking {
            manner = patience.manner()?;
        }
        loop {
            let got = if peeks {
                let mut room = vec![0; len.min(64 << 10)];
                connection.peek_as(&mut room, manner).inspect(|count| {
                    // SAFETY: the caller vouches for the buffers.
                    unsafe { scatter(buffers, room.get(..*count).unwrap_or_default()) };
                })
            } else {
                // SAFETY: the caller vouches for the buffers.
                unsafe { read_san(connection, buffers, manner) }
            };
            match got {
                Ok(0) if connection.is_suspended() => return Ok(None),
                Ok(count) => {
                    if !peeks {
                        self.rx.count_san(count);
                        self.last_received.store(true, Ordering::Relaxed);
                    }
                    self.show_now(connection);
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if manner.nonblocking {
                        self.show_now(connection);
                    }
                    manner = patience.manner()?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if patience.says_so() {
                        return Err(error);
                    }
                    manner = patience.manner()?;
                }
                Err(error) => {
                    // Taken back by another thread meanwhile.
                    if self.rx.phase() != SAN {
                        return Ok(None);
                    }
                    if connection.failed().is_some() {
                        return self.lost(patience.fd).map_or(Ok(None), Err);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Whether so much is better sent by [`Companion::send`], also while the kernel carries it: in
    /// pieces, between which the path may change.
    #[must_use]
    pub fn sends_in_pieces(&self, length: usize) -> bool {
        u64::try_from(length).unwrap_or(u64::MAX) > PIECE
    }

    /// Sends as sendmsg(2) does with these flags, but never raises SIGPIPE: that is the caller's.
    ///
    /// # Errors
    /// As sendmsg(2).
    ///
    /// # Safety
    /// The buffers may be read.
    pub unsafe fn send(&self, fd: RawFd, buffers: &[iovec], flags: c_int) -> io::Result<usize> {
        let len = length(buffers);
        let mut patience = Patience::new(fd, flags, libc::SO_SNDTIMEO);
        // The kernel counts what it sends without a copy by calls.
        let most = match flags & libc::MSG_ZEROCOPY {
            0 => PIECE,
            _ => u64::MAX,
        };
        let mut done = 0;
        loop {
            let by_kernel = matches!(self.tx.phase(), KERNEL | GUARDED);
            let left = if by_kernel {
                Cow::Owned(rest(buffers, done, most))
            } else {
                behind(buffers, done)
            };
            patience.has_part = done > 0;
            // SAFETY: parts of the buffers that the caller vouches for.
            let sent = unsafe { self.send_some(&mut patience, &left) };
            let Sent { count, by_kernel } = match sent {
                Ok(Some(sent)) => sent,
                // The path has changed.
                Ok(None) => continue,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            done += count;
            let ended = if by_kernel {
                // The kernel has waited as long as it may.
                count < length(&left)
            } else {
                // If the path has changed meanwhile, the rest goes there.
                let over = patience.is_over && self.tx.phase() == SAN;
                over || count < length(&left) && patience.ask().nonblocking
            };
            if done >= len || ended {
                return Ok(done);
            }
        }
    }

    /// Sends on the present path; `None` if it is to be looked for again.
    ///
    /// # Safety
    /// The buffers may be read.
    unsafe fn send_some(
        &self,
        patience: &mut Patience,
        buffers: &[iovec],
    ) -> io::Result<Option<Sent>> {
        let (fd, flags) = (patience.fd, patience.flags);
        match self.tx.phase() {
            KERNEL | GUARDED => {
                if flags & libc::MSG_OOB != 0 {
                    self.poison();
                }
                let Some(sending) = self.begin_send(fd) else {
                    return Ok(None);
                };
                // SAFETY: the caller vouches for the buffers.
                let sent = unsafe { kernel::send(fd, buffers, flags | libc::MSG_NOSIGNAL) }?;
                sending.finish(isize::try_from(sent).unwrap_or(isize::MAX));
                Ok(Some(Sent {
                    count: sent,
                    by_kernel: true,
                }))
            }
            SAN => {
                let busy = Call::begin(&self.tx.busy);
                let Some(connection) = self.carrier(&self.tx) else {
                    return Ok(None);
                };
                // SAFETY: the caller vouches for the buffers.
                let sent = unsafe { self.send_san(&connection, patience, buffers) };
                drop(busy);
                Ok(sent?.map(|count| Sent {
                    count,
                    by_kernel: false,
                }))
            }
            BETWEEN => {
                let (written, awaits) = {
                    let mut core = self.core.lock();
                    self.hands(&mut core);
                    self.resume(&mut core);
                    (self.write_marker(&mut core), core.awaits())
                };
                self.moved();
                if awaits {
                    patience.manner()?;
                    std::thread::sleep(AGAIN);
                } else if !written {
                    patience.wait(libc::POLLOUT, SLICE)?;
                }
                Ok(None)
            }
            BROKEN if self.leaving.load(Ordering::SeqCst) => {
                if ends_process() {
                    // Not EPIPE, which would end it by a signal.
                    return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
                }
                std::thread::sleep(LEAVING);
                Ok(None)
            }
            BROKEN => Err(io::Error::from_raw_os_error(
                if self.reset_told.swap(true, Ordering::SeqCst) {
                    libc::EPIPE
                } else {
                    libc::ECONNRESET
                },
            )),
            _ => {
                drop(self.core.lock());
                Ok(None)
            }
        }
    }

    /// # Safety
    /// The buffers may be read.
    unsafe fn send_san(
        &self,
        connection: &Arc<Connection>,
        patience: &mut Patience,
        buffers: &[iovec],
    ) -> io::Result<Option<usize>> {
        // SAFETY: the caller vouches for the buffers.
        let slices = unsafe { slices(buffers) };
        let goes_on = |manner| Manner {
            goes_on: true,
            ..manner
        };
        let mut manner = goes_on(Manner::NOT);
        loop {
            let sent = if patience.flags & libc::MSG_OOB != 0 {
                let bytes: Vec<u8> = slices.iter().flat_map(|one| one.iter().copied()).collect();
                connection.write_urgent_as(&bytes, manner)
            } else {
                connection.write_as(&slices, manner)
            };
            let short = is_would_block(&sent) || patience.is_short(&sent, buffers);
            if short {
                patience.turn.get_or_insert_with(|| Arc::clone(connection));
            }
            if manner.nonblocking && short {
                self.stalls.fetch_add(1, Ordering::Relaxed);
                self.show_now(connection);
            }
            match sent {
                Ok(count) => {
                    patience.is_over = !manner.nonblocking && count < length(buffers);
                    let urgent = patience.flags & libc::MSG_OOB != 0 && count == length(buffers);
                    if urgent {
                        // Whether the peer counts that byte is its own affair, so from now on no
                        // position is common to both ends.
                        self.poison();
                    }
                    self.tx.count_san(count);
                    self.san_sent();
                    if !manner.nonblocking {
                        // While it waited it took what arrived.
                        self.show_now(connection);
                    }
                    self.tell_used();
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    manner = goes_on(patience.manner()?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if patience.says_so() {
                        return Err(error);
                    }
                    manner = goes_on(patience.manner()?);
                }
                Err(error) => {
                    // The change is made under the lock.
                    let core = self.core.lock();
                    let shut = core.write_shut;
                    drop(core);
                    if self.tx.phase() != SAN {
                        return Ok(None);
                    }
                    // As with TCP where the peer's end has been seen.
                    if shut || connection.peer_end() == Some(wsd_proto::End::Shutdown) {
                        return Err(io::Error::from_raw_os_error(libc::EPIPE));
                    }
                    if connection.failed().is_some() {
                        return self.lost(patience.fd).map_or(Ok(None), Err);
                    }
                    // A peer that receives nothing more has closed.
                    if error.raw_os_error() == Some(libc::ECONNRESET) {
                        return Err(io::Error::from_raw_os_error(libc::EPIPE));
                    }
                    return Err(error);
                }
            }
        }
    }
}

impl Patience {
    fn is_short(&self, sent: &io::Result<usize>, buffers: &[iovec]) -> bool {
        matches!(sent, Ok(count) if *count < length(buffers))
    }
}

/// # Safety
/// The buffers may be read as long as the slices live.
unsafe fn slices<'a>(buffers: &[iovec]) -> Vec<IoSlice<'a>> {
    let slice = |one: &iovec| {
        // SAFETY: the caller vouches for the buffers.
        IoSlice::new(unsafe { std::slice::from_raw_parts(one.iov_base.cast(), one.iov_len) })
    };
    buffers
        .iter()
        .filter(|one| one.iov_len > 0)
        .map(slice)
        .collect()
}

/// # Safety
/// The buffers may be written to.
unsafe fn scatter(buffers: &[iovec], bytes: &[u8]) {
    let mut bytes = bytes;
    for one in buffers {
        let (now, later) = bytes.split_at(one.iov_len.min(bytes.len()));
        if now.is_empty() {
            continue;
        }
        // SAFETY: the caller vouches for the buffer, which nothing else refers to.
        let place = unsafe { std::slice::from_raw_parts_mut(one.iov_base.cast(), now.len()) };
        place.copy_from_slice(now);
        bytes = later;
    }
}

/// Fills the buffers in their order with what is there; waits, if at all, for the first byte only.
///
/// # Safety
/// The buffers may be written to.
unsafe fn read_san(
    connection: &Connection,
    buffers: &[iovec],
    manner: Manner,
) -> io::Result<usize> {
    let mut done = 0;
    for one in buffers.iter().filter(|one| one.iov_len > 0) {
        // SAFETY: the caller vouches for the buffer, which nothing else refers to.
        let room = unsafe { std::slice::from_raw_parts_mut(one.iov_base.cast(), one.iov_len) };
        if done > 0 && !connection.goes_on(true) {
            break;
        }
        let how = if done > 0 { Manner::NOT } else { manner };
        match connection.read_as(room, how) {
            Ok(count) => {
                done += count;
                if count < one.iov_len {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The end of a call that the kernel has answered with this, for the tests of others.
#[cfg(test)]
pub(super) fn finished(call: Receiving<'_>, n: isize) -> Option<isize> {
    assert!(n <= 0);
    // SAFETY: no bytes were written.
    unsafe { call.finish(n, 0, &mut []) }
}
