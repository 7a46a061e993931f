//! `SanStream`: a byte stream that behaves like std's `TcpStream`, over the SAN or over TCP.
//!
//! Owns one connection of either kind and, for the SAN, the companion that reserves its TCP port.
//! Decides nothing about either; every method does the same for both.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::conn::{Connection, Direction, Patience, Stats};
use crate::kernel::KernelStream;
use crate::observe::{self, Slot};
use crate::options::StreamOptions;
use crate::reason::{Reason, Transport};
use crate::sys::{self, Interest};

/// A connected stream, over the SAN where both ends can, otherwise over TCP.
///
/// It behaves like [`std::net::TcpStream`]; what differs is said at the method. Dropping the last
/// clone closes the stream in the background: what was written is still delivered, for up to two
/// minutes as long as the process lives, and for a moment at its regular end: the exit waits up to
/// five seconds for it. What a slower peer has not taken by then is lost, with a warning through
/// `tracing`, and the peer sees a reset. A process that ends by a signal or `_exit` does not wait
/// at all. Use [`SanStream::close`] to wait until everything has arrived, and to be told if it has
/// not.
pub struct SanStream {
    inner: Arc<Inner>,
}

struct Inner {
    path: Path,
    /// Reserves the TCP port of a SAN connection.
    _companion: Option<OwnedFd>,
}

enum Path {
    San(Arc<Connection>),
    Tcp(KernelStream, Reason),
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Path::San(connection) = &self.path {
            connection.close_in_background();
        }
    }
}

impl fmt::Debug for SanStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SanStream")
            .field("local", &self.local_addr().ok())
            .field("peer", &self.peer_addr().ok())
            .field("transport", &self.transport())
            .finish()
    }
}

impl SanStream {
    pub(crate) fn from_connection(
        connection: Arc<Connection>,
        companion: Option<OwnedFd>,
    ) -> SanStream {
        let slot = Slot::new(&observe::About {
            // Who connects brings the companion.
            role: match companion {
                Some(_) => observe::Role::Connected,
                None => observe::Role::Accepted,
            },
            addresses: Some((connection.local_addr(), connection.peer_addr())),
            fd: companion.as_ref().map(AsRawFd::as_raw_fd),
            path: observe::Path::San,
            provider: connection.provider_name(),
            upgrade: observe::Upgrade::Fixed,
            reason: "",
        });
        if let Some(slot) = slot {
            connection.observe(slot);
        }
        let path = Path::San(connection);
        SanStream {
            inner: Arc::new(Inner {
                path,
                _companion: companion,
            }),
        }
    }

    pub(crate) fn from_tcp(
        stream: TcpStream,
        reason: Reason,
        role: observe::Role,
        options: &StreamOptions,
    ) -> SanStream {
        if let Some(idle) = options.keep_alive
            && let Err(error) = sys::keep_alive(stream.as_fd(), idle)
        {
            // A connection without it is better than none.
            tracing::warn!(%error, "a TCP connection stays without keep-alive");
        }
        let addresses = stream.local_addr().ok().zip(stream.peer_addr().ok());
        let slot = Slot::new(&observe::About {
            role,
            addresses,
            fd: Some(stream.as_raw_fd()),
            path: observe::Path::Kernel,
            provider: "",
            upgrade: observe::Upgrade::Fixed,
            reason: reason.code(),
        });
        let path = Path::Tcp(KernelStream::new(stream, slot), reason);
        SanStream {
            inner: Arc::new(Inner {
                path,
                _companion: None,
            }),
        }
    }

    // ---- what it is

    /// Which path carries the stream, and why.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.inner.path {
            Path::San(connection) => Transport::San {
                provider: connection.provider_name().to_owned(),
            },
            Path::Tcp(_, reason) => Transport::Tcp {
                reason: reason.clone(),
            },
        }
    }

    /// What has happened so far. All zero over TCP.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.inner.path {
            Path::San(connection) => connection.stats(),
            Path::Tcp(..) => Stats::default(),
        }
    }

    /// This end's address.
    ///
    /// # Errors
    /// As from [`TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.local_addr()),
            Path::Tcp(stream, _) => stream.tcp().local_addr(),
        }
    }

    /// The other end's address.
    ///
    /// # Errors
    /// As from [`TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.peer_addr()),
            Path::Tcp(stream, _) => stream.tcp().peer_addr(),
        }
    }

    /// Another handle to the same stream.
    ///
    /// # Errors
    /// None now; a result as in std.
    pub fn try_clone(&self) -> io::Result<SanStream> {
        Ok(SanStream {
            inner: Arc::clone(&self.inner),
        })
    }

    // ---- options

    /// Whether calls return at once with `WouldBlock` where they would wait.
    ///
    /// # Errors
    /// As from [`TcpStream::set_nonblocking`].
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => {
                connection.set_nonblocking(nonblocking);
                Ok(())
            }
            Path::Tcp(stream, _) => stream.tcp().set_nonblocking(nonblocking),
        }
    }

    /// Longest time a read waits; then it fails with `WouldBlock`.
    ///
    /// # Errors
    /// `InvalidInput` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => connection.set_read_timeout(time),
            Path::Tcp(stream, _) => stream.tcp().set_read_timeout(time),
        }
    }

    /// Longest time a write waits; then it fails with `WouldBlock`. With it, no write lends the
    /// application's memory.
    ///
    /// # Errors
    /// `InvalidInput` for a time of zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => connection.set_write_timeout(time),
            Path::Tcp(stream, _) => stream.tcp().set_write_timeout(time),
        }
    }

    /// What [`SanStream::set_read_timeout`] has set.
    ///
    /// # Errors
    /// As from [`TcpStream::read_timeout`].
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.read_timeout()),
            Path::Tcp(stream, _) => stream.tcp().read_timeout(),
        }
    }

    /// What [`SanStream::set_write_timeout`] has set.
    ///
    /// # Errors
    /// As from [`TcpStream::write_timeout`].
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.write_timeout()),
            Path::Tcp(stream, _) => stream.tcp().write_timeout(),
        }
    }

    /// Over the SAN nothing is ever delayed, so this changes nothing there.
    ///
    /// # Errors
    /// As from [`TcpStream::set_nodelay`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.inner.path {
            Path::San(_) => Ok(()),
            Path::Tcp(stream, _) => stream.tcp().set_nodelay(nodelay),
        }
    }

    /// Always true over the SAN.
    ///
    /// # Errors
    /// As from [`TcpStream::nodelay`].
    pub fn nodelay(&self) -> io::Result<bool> {
        match &self.inner.path {
            Path::San(_) => Ok(true),
            Path::Tcp(stream, _) => stream.tcp().nodelay(),
        }
    }

    /// What dropping does while data is still to be delivered: by default it goes on in the
    /// background; with a time, dropping waits for it that long; with a time of zero it resets at
    /// once. What has not been delivered when the time is over is lost over the SAN, by a reset;
    /// over TCP the kernel goes on in the background.
    ///
    /// # Errors
    /// As from setting SO_LINGER.
    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => {
                connection.set_linger(time);
                Ok(())
            }
            Path::Tcp(stream, _) => stream.set_linger(time),
        }
    }

    /// What [`SanStream::set_linger`] has set.
    ///
    /// # Errors
    /// As from asking for SO_LINGER.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.linger()),
            Path::Tcp(stream, _) => stream.linger(),
        }
    }

    /// Why the connection failed; told once.
    ///
    /// # Errors
    /// As from [`TcpStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.take_error()),
            Path::Tcp(stream, _) => stream.tcp().take_error(),
        }
    }

    // ---- data

    /// Reads without taking anything out of the stream.
    ///
    /// # Errors
    /// As from [`TcpStream::peek`].
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.peek(buffer),
            Path::Tcp(stream, _) => stream.reading(|tcp| tcp.peek(buffer)),
        }
    }

    /// Ends one direction or both. Another thread that waits in a read or a write is woken.
    ///
    /// # Errors
    /// `NotConnected` if the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => connection.shutdown(how),
            Path::Tcp(stream, _) => stream.tcp().shutdown(how),
        }
    }

    /// Closes the stream and waits until the peer has everything that was written, for as long as
    /// [`SanStream::set_linger`] says, or half a minute. Other clones are closed with it.
    ///
    /// # Errors
    /// Why what was written may not have arrived.
    pub fn close(self) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => connection.close(),
            Path::Tcp(stream, _) => stream.close(),
        }
    }

    /// Sends bytes of which the last one is urgent: TCP's out-of-band byte.
    ///
    /// # Errors
    /// As from [`Write::write`].
    pub fn send_urgent(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write_urgent(bytes),
            Path::Tcp(stream, _) => stream.sent(|stream| stream.send_urgent(bytes)),
        }
    }

    /// The urgent byte that has arrived, apart from the stream. A newer one replaces an older one
    /// that nobody has fetched.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or if urgent data is in line.
    pub fn receive_urgent(&self) -> io::Result<u8> {
        match &self.inner.path {
            Path::San(connection) => connection.read_urgent(),
            Path::Tcp(stream, _) => stream.receive_urgent(),
        }
    }

    /// Whether everything before the urgent byte has been read. A read never goes past that place
    /// without stopping there.
    ///
    /// # Errors
    /// As from SIOCATMARK.
    pub fn at_mark(&self) -> io::Result<bool> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.is_at_mark()),
            Path::Tcp(stream, _) => stream.at_mark(),
        }
    }

    /// Whether urgent bytes are part of the stream: SO_OOBINLINE.
    ///
    /// # Errors
    /// As from setting SO_OOBINLINE.
    pub fn set_oob_inline(&self, inline: bool) -> io::Result<()> {
        match &self.inner.path {
            Path::San(connection) => {
                connection.set_urgent_inline(inline);
                Ok(())
            }
            Path::Tcp(stream, _) => stream.set_oob_inline(inline),
        }
    }

    /// What [`SanStream::set_oob_inline`] has set.
    ///
    /// # Errors
    /// As from asking for SO_OOBINLINE.
    pub fn oob_inline(&self) -> io::Result<bool> {
        match &self.inner.path {
            Path::San(connection) => Ok(connection.is_urgent_inline()),
            Path::Tcp(stream, _) => stream.oob_inline(),
        }
    }

    // ---- calls that never wait

    /// As a read, but returns `WouldBlock` where that would wait, whatever
    /// [`SanStream::set_nonblocking`] says.
    ///
    /// # Errors
    /// As from [`Read::read`].
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.read_by(buffer, Patience::Never),
            Path::Tcp(stream, _) => stream
                .received(|_| stream.receive(&mut [IoSliceMut::new(buffer)], libc::MSG_DONTWAIT)),
        }
    }

    /// As [`SanStream::try_read`], into several buffers.
    ///
    /// # Errors
    /// As from [`Read::read_vectored`].
    pub fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.read_vectored_by(buffers, Patience::Never),
            Path::Tcp(stream, _) => {
                stream.received(|_| stream.receive(buffers, libc::MSG_DONTWAIT))
            }
        }
    }

    /// As [`SanStream::peek`], but never waits.
    ///
    /// # Errors
    /// As from [`SanStream::peek`].
    pub fn try_peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.peek_by(buffer, Patience::Never),
            Path::Tcp(stream, _) => {
                let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
                stream.receive(&mut [IoSliceMut::new(buffer)], flags)
            }
        }
    }

    /// As a write, but returns `WouldBlock` where that would wait, and what was accepted if it is a
    /// part, whatever [`SanStream::set_nonblocking`] says.
    ///
    /// # Errors
    /// As from [`Write::write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write_by(bytes, Patience::Never),
            Path::Tcp(stream, _) => {
                stream.sent(|stream| stream.send(&[IoSlice::new(bytes)], libc::MSG_DONTWAIT))
            }
        }
    }

    /// As [`SanStream::try_write`], from several buffers.
    ///
    /// # Errors
    /// As from [`Write::write_vectored`].
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write_vectored_by(slices, Patience::Never),
            Path::Tcp(stream, _) => stream.sent(|stream| stream.send(slices, libc::MSG_DONTWAIT)),
        }
    }

    /// As [`SanStream::send_urgent`], but never waits.
    ///
    /// # Errors
    /// As from [`SanStream::send_urgent`].
    pub fn try_send_urgent(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write_urgent_by(bytes, Patience::Never),
            Path::Tcp(stream, _) => stream.sent(|stream| {
                let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
                stream.send(&[IoSlice::new(bytes)], flags)
            }),
        }
    }

    // ---- waiting elsewhere

    /// A descriptor that is readable while a read is worth a try: something is there, or the end,
    /// or an error; now and then without a cause, until the next call. The stream's own, made at
    /// the first use; to be polled and nothing else.
    ///
    /// # Errors
    /// If no descriptor can be made.
    pub fn read_descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.inner.path {
            Path::San(connection) => connection.descriptor_for(Direction::Read),
            Path::Tcp(stream, _) => stream.descriptor_for(Interest::Read),
        }
    }

    /// A descriptor that is *readable* while a write is worth a try: there is room for as much as
    /// the last one found none for, or an error; now and then without a cause, until the next call.
    /// The stream's own, made at the first use; to be polled and nothing else.
    ///
    /// # Errors
    /// If no descriptor can be made.
    pub fn write_descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.inner.path {
            Path::San(connection) => connection.descriptor_for(Direction::Write),
            Path::Tcp(stream, _) => stream.descriptor_for(Interest::Write),
        }
    }

    /// The kernel's socket, where it carries the stream: for its options. Over a SAN there is none.
    #[must_use]
    pub fn tcp_socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.inner.path {
            Path::San(_) => None,
            Path::Tcp(stream, _) => Some(stream.tcp().as_fd()),
        }
    }

    /// The connection over a SAN, if it is one.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        match &self.inner.path {
            Path::San(connection) => Some(connection),
            Path::Tcp(..) => None,
        }
    }

    fn read_bytes(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.read(buffer),
            Path::Tcp(stream, _) => stream.received(|mut tcp| tcp.read(buffer)),
        }
    }

    fn write_bytes(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write(bytes),
            Path::Tcp(stream, _) => stream.sent(|stream| stream.tcp().write(bytes)),
        }
    }
}

impl Read for &SanStream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_bytes(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.read_vectored(buffers),
            Path::Tcp(stream, _) => stream.received(|mut tcp| tcp.read_vectored(buffers)),
        }
    }
}

impl Write for &SanStream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.inner.path {
            Path::San(connection) => connection.write_vectored(slices),
            // Unlike writev never a signal.
            Path::Tcp(stream, _) => stream.sent(|stream| stream.send(slices, 0)),
        }
    }

    /// Nothing is held back, so there is nothing to do.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for SanStream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_bytes(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }
}

impl Write for SanStream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor to poll for reading, whatever is waited for: it is readable when the call that
/// gave `WouldBlock` is worth repeating, and while there is something to read. It is the stream's
/// own, made at the first use, and only to be polled.
///
/// Should it not be possible to make one, the provider's descriptor is given, or that of the TCP
/// socket: both are readable when data arrives.
impl AsFd for SanStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.inner.path {
            Path::San(connection) => connection.descriptor(),
            Path::Tcp(stream, _) => stream.descriptor(),
        }
    }
}

/// That of [`AsFd`]: to be polled and nothing else. The kernel's socket is
/// [`SanStream::tcp_socket`], where there is one.
impl AsRawFd for SanStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::Switch;

    /// SO_KEEPALIVE, and its idle time, interval and number of questions.
    fn keep_alive(stream: &SanStream) -> [i32; 4] {
        let Path::Tcp(stream, _) = &stream.inner.path else {
            unreachable!("there is no provider")
        };
        sys::keep_alive_values(stream.tcp().as_fd()).unwrap()
    }

    fn pair(options: &StreamOptions) -> [SanStream; 2] {
        let switch = Switch::with_providers([]);
        let listener = switch.bind_with("127.0.0.1:0", options).unwrap();
        let to = listener.local_addr().unwrap();
        let connector = switch.connect_with(to, options).unwrap();
        [connector, listener.accept().unwrap().0]
    }

    #[test]
    fn over_tcp_both_ends_ask_an_idle_peer_for_a_sign_of_life_if_that_is_wanted() {
        for (asked, expected) in [(60_000, [1, 60, 20, 3]), (1, [1, 1, 1, 3])] {
            let idle = Some(Duration::from_millis(asked));
            for end in pair(&StreamOptions::new().keep_alive(idle)) {
                assert_eq!(keep_alive(&end), expected);
            }
        }
        for end in pair(&StreamOptions::new()) {
            assert_eq!(keep_alive(&end)[0], 0);
        }
    }
}
