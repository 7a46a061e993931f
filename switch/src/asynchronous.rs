//! Streams and listeners for tokio.
//!
//! Owns the registrations with tokio's reactor: one for each direction, with a descriptor that is
//! readable while a call in that direction is worth a try. Invariant: whoever is told to wait has
//! registered, and then looked once more: a descriptor that is readable by then may have become so
//! before, without another notice.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use ::tokio::task;

use crate::listener::SanListener;
use crate::options::StreamOptions;
use crate::stream::SanStream;
use crate::sys::{self, PollFd};

/// A descriptor registered with the reactor.
struct Gate {
    fd: AsyncFd<OwnedFd>,
}

impl Gate {
    /// Registers a duplicate, so that one stream can be registered several times.
    #[allow(
        deprecated,
        reason = "its successor is unsafe for the sake of other types; an OwnedFd stays open"
    )]
    fn new(descriptor: BorrowedFd<'_>) -> io::Result<Gate> {
        let fd = descriptor.try_clone_to_owned()?;
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Gate { fd })
    }

    fn is_open(&self) -> bool {
        let mut fds = [PollFd::readable(self.fd.as_fd())];
        sys::wait(&mut fds, Some(Instant::now())).is_ok_and(|ready| ready > 0)
    }

    /// Calls when the reactor says so, until the call does not want to wait.
    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut guard = match self.fd.poll_read_ready(context) {
                Poll::Ready(guard) => guard?,
                Poll::Pending => {
                    if self.is_open() {
                        context.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            };
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// A [`SanStream`] for tokio.
///
/// Reading and writing are cancel safe: a future that is dropped has moved nothing that it has not
/// reported. What was written is on its way, so flushing has nothing to do; shutting down ends the
/// sending direction, and the peer reads on to the end. Dropping closes as with [`SanStream`].
pub struct AsyncSanStream {
    reading: Gate,
    /// Made with the first write.
    writing: Option<Gate>,
    stream: SanStream,
}

impl AsyncSanStream {
    /// Takes a connected stream. Must be called within a runtime that has I/O enabled.
    ///
    /// # Errors
    /// If no descriptor to poll can be made or registered.
    pub fn new(stream: SanStream) -> io::Result<AsyncSanStream> {
        Ok(AsyncSanStream {
            reading: Gate::new(stream.read_descriptor()?)?,
            writing: None,
            stream,
        })
    }

    /// Connects as [`SanStream::connect`], on a thread of the runtime's for blocking work. If the
    /// future is dropped the attempt goes on there, and its connection is closed.
    ///
    /// # Errors
    /// As for [`SanStream::connect`].
    pub async fn connect<A>(to: A) -> io::Result<AsyncSanStream>
    where
        A: ToSocketAddrs + Send + 'static,
    {
        Self::connect_with(to, StreamOptions::new()).await
    }

    /// As [`AsyncSanStream::connect`], with options.
    ///
    /// # Errors
    /// As for [`SanStream::connect`].
    pub async fn connect_with<A>(to: A, options: StreamOptions) -> io::Result<AsyncSanStream>
    where
        A: ToSocketAddrs + Send + 'static,
    {
        let connecting = task::spawn_blocking(move || SanStream::connect_with(to, &options));
        AsyncSanStream::new(connecting.await.map_err(io::Error::other)??)
    }

    /// The stream, for everything but data.
    #[must_use]
    pub fn get_ref(&self) -> &SanStream {
        &self.stream
    }

    /// The stream, not registered any more.
    #[must_use]
    pub fn into_inner(self) -> SanStream {
        self.stream
    }

    fn poll_writing(
        &mut self,
        context: &mut Context<'_>,
        call: impl Fn(&SanStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let gate = match &mut self.writing {
            Some(gate) => gate,
            empty => empty.insert(Gate::new(self.stream.write_descriptor()?)?),
        };
        gate.poll(context, || call(&self.stream))
    }
}

impl fmt::Debug for AsyncSanStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncRead for AsyncSanStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let read = self.reading.poll(context, || self.stream.try_read(room));
        let count = ready!(read)?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AsyncSanStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.stream.shutdown(Shutdown::Write) {
            // What is gone needs no end.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

/// A [`SanListener`] for tokio.
pub struct AsyncSanListener {
    arriving: Gate,
    listener: SanListener,
}

impl AsyncSanListener {
    /// Takes a listener, and makes it nonblocking. Must be called within a runtime that has I/O
    /// enabled.
    ///
    /// # Errors
    /// If its descriptor cannot be registered.
    pub fn new(listener: SanListener) -> io::Result<AsyncSanListener> {
        listener.set_nonblocking(true)?;
        Ok(AsyncSanListener {
            arriving: Gate::new(listener.as_fd())?,
            listener,
        })
    }

    /// Listens as [`SanListener::bind`].
    ///
    /// # Errors
    /// As for [`SanListener::bind`].
    pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<AsyncSanListener> {
        AsyncSanListener::new(SanListener::bind(addresses)?)
    }

    /// Accepts the next connection. Cancel safe.
    ///
    /// # Errors
    /// As for [`SanListener::accept`].
    pub async fn accept(&self) -> io::Result<(AsyncSanStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`AsyncSanListener::accept`]; the last task that asks is the one that is woken.
    ///
    /// # Errors
    /// As for [`SanListener::accept`].
    pub fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(AsyncSanStream, SocketAddr)>> {
        let accepted = self.arriving.poll(context, || self.listener.accept());
        let (stream, peer) = ready!(accepted)?;
        Poll::Ready(Ok((AsyncSanStream::new(stream)?, peer)))
    }

    /// The listener.
    #[must_use]
    pub fn get_ref(&self) -> &SanListener {
        &self.listener
    }
}

impl fmt::Debug for AsyncSanListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listener.fmt(f)
    }
}
