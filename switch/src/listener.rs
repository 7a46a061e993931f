//! A listener on both paths at once: like std's `TcpListener`, with the SAN beside it.
//!
//! Owns the TCP listener and the reception of the SAN. TCP has the port first and listens last and
//! always: whoever finds it listening finds the SAN listening, too. A SAN that cannot listen is
//! left out and the reason kept. Invariant: whatever the SAN does, connections over TCP are accepted.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wsdirect::abi;

use crate::conn::Connection;
use crate::observe::Role;
use crate::options::{Mode, StreamOptions};
use crate::provider::Provider;
use crate::reason::Reason;
use crate::reception::{Negotiate, Reception};
use crate::socket::{BoundError, SanSocket};
use crate::stream::SanStream;
use crate::switch::Switch;
use crate::sys::{self, PollFd, PollSet};
use crate::tcp::Bound;

/// Accepts connections over the SAN and over TCP at one address.
///
/// ```no_run
/// use std::io::{Read, Write};
/// use wsd_switch::SanListener;
///
/// let listener = SanListener::bind("0.0.0.0:7471")?;
/// for stream in listener.incoming() {
///     let mut stream = stream?;
///     println!("{} came over {}", stream.peer_addr()?, stream.transport());
///     stream.write_all(b"hello")?;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Besides std's calls there are [`SanListener::bind_with`], [`SanListener::providers`],
/// [`SanListener::tcp_only`] and [`SanListener::tcp_socket`]. Of std's, `ttl` and `set_ttl` are
/// missing, as they mean something on TCP only: `tcp_socket` has the descriptor for them. It is not
/// made from or into a descriptor or a `std::net::TcpListener`: there is more to it than one.
pub struct SanListener {
    inner: Arc<Inner>,
}

/// What all clones share.
struct Inner {
    tcp: TcpListener,
    local: SocketAddr,
    reception: Option<Reception<Arc<Connection>>>,
    /// Readable while there may be something to accept.
    set: PollSet,
    is_nonblocking: AtomicBool,
    /// Which path is asked first, in turns.
    is_tcps_turn: AtomicBool,
    /// For each provider that came into question: its name, and why it does not listen.
    providers: Vec<(String, Option<Reason>)>,
    /// What connections over TCP are told.
    reason: Reason,
    options: StreamOptions,
}

impl SanListener {
    /// Listens on the first of the addresses that can be had. Port 0 takes a free port, the same
    /// one on both paths.
    ///
    /// As with TCP a connect need not wait for [`SanListener::accept`]: up to 4096 connections
    /// wait to be accepted, or as many as take half of the descriptors that the process may open
    /// when the listener is made. Whoever comes then is taken over TCP, after some seconds.
    ///
    /// # Errors
    /// As for [`TcpListener::bind`]. A SAN that cannot listen is no error.
    pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<SanListener> {
        Switch::global().bind(addresses)
    }

    /// As [`SanListener::bind`], with options for the connections that will be accepted.
    ///
    /// # Errors
    /// As for [`SanListener::bind`].
    pub fn bind_with(
        addresses: impl ToSocketAddrs,
        options: &StreamOptions,
    ) -> io::Result<SanListener> {
        Switch::global().bind_with(addresses, options)
    }

    pub(crate) fn open(
        switch: &Switch,
        tcp: Bound,
        options: &StreamOptions,
    ) -> io::Result<SanListener> {
        let mut providers = Vec::new();
        let mut listening = Vec::new();
        let mut reason = None;
        for address in &tcp.addresses {
            let candidates = if options.transfer_mode() == Mode::Tcp {
                Err(Reason::Asked)
            } else {
                switch.providers_at(address.ip())
            };
            match candidates {
                Ok(candidates) => {
                    for provider in candidates {
                        match listen(&provider, *address) {
                            Ok(socket) => {
                                providers.push((provider.name().to_owned(), None));
                                listening.push(socket);
                            }
                            Err(why) => {
                                providers.push((provider.name().to_owned(), Some(why.clone())));
                                reason.get_or_insert(why);
                            }
                        }
                    }
                }
                Err(why) => {
                    reason.get_or_insert(why);
                }
            }
        }
        let tcp = tcp.listen()?;
        let set = PollSet::new()?;
        set.add(tcp.as_fd())?;
        let reception = if listening.is_empty() {
            None
        } else {
            reason = None;
            let reception = Reception::open(listening, negotiation(options))?;
            set.add(reception.as_fd())?;
            Some(reception)
        };
        let inner = Inner {
            local: tcp.local_addr()?,
            tcp,
            reception,
            set,
            is_nonblocking: AtomicBool::new(false),
            is_tcps_turn: AtomicBool::new(false),
            providers,
            reason: reason.unwrap_or(Reason::PeerChoseTcp),
            options: options.clone(),
        };
        Ok(SanListener {
            inner: Arc::new(inner),
        })
    }

    /// Another handle to the same listener: each connection is accepted by one of them, and what
    /// is set at one holds for all. It listens until the last one is dropped.
    ///
    /// # Errors
    /// None now; a result as in std.
    pub fn try_clone(&self) -> io::Result<SanListener> {
        Ok(SanListener {
            inner: Arc::clone(&self.inner),
        })
    }

    /// What has gone wrong at the kernel's socket; told once. A SAN that fails has no place here:
    /// its connections come over TCP then.
    ///
    /// # Errors
    /// As from [`TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.tcp.take_error()
    }

    /// Accepts the next connection, over whichever path it came.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`]; [`io::ErrorKind::WouldBlock`] in nonblocking mode.
    pub fn accept(&self) -> io::Result<(SanStream, SocketAddr)> {
        loop {
            // In turns, so that a flood on one path does not starve the other.
            let tcp_first = self.inner.is_tcps_turn.fetch_xor(true, Ordering::Relaxed);
            for is_tcp in [tcp_first, !tcp_first] {
                let accepted = if is_tcp {
                    self.accept_tcp()
                } else {
                    Ok(self.accept_san())
                };
                if let Some(accepted) = accepted? {
                    return Ok(accepted);
                }
            }
            if self.inner.is_nonblocking.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            sys::wait(&mut [PollFd::readable(self.inner.set.as_fd())], None)?;
        }
    }

    fn accept_tcp(&self) -> io::Result<Option<(SanStream, SocketAddr)>> {
        loop {
            return match self.inner.tcp.accept() {
                Ok((stream, peer)) => Ok(Some((
                    SanStream::from_tcp(
                        stream,
                        self.inner.reason.clone(),
                        Role::Accepted,
                        &self.inner.options,
                    ),
                    peer,
                ))),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                },
            };
        }
    }

    fn accept_san(&self) -> Option<(SanStream, SocketAddr)> {
        let connection = self.inner.reception.as_ref()?.take()?;
        let stream = SanStream::from_connection(connection, None);
        let peer = stream.peer_addr().ok()?;
        Some((stream, peer))
    }

    /// The kernel's socket that listens for connections over TCP: for its options.
    pub fn tcp_socket(&self) -> BorrowedFd<'_> {
        self.inner.tcp.as_fd()
    }

    /// The connections as they come, for ever.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address listened on.
    ///
    /// # Errors
    /// None; the signature is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.local)
    }

    /// Whether [`SanListener::accept`] waits.
    ///
    /// # Errors
    /// None; the signature is std's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner
            .is_nonblocking
            .store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// The providers that came into question for the address, each with the reason why it does not
    /// listen, if it does not.
    pub fn providers(&self) -> impl Iterator<Item = (&str, Option<&Reason>)> {
        self.inner
            .providers
            .iter()
            .map(|(name, reason)| (name.as_str(), reason.as_ref()))
    }

    /// Why nothing can come over a SAN; `None` if it can.
    pub fn tcp_only(&self) -> Option<&Reason> {
        if self.inner.reception.is_some() {
            None
        } else {
            Some(&self.inner.reason)
        }
    }
}

impl std::fmt::Debug for SanListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SanListener")
            .field("local", &self.inner.local)
            .field("providers", &self.inner.providers)
            .finish_non_exhaustive()
    }
}

/// Readable while a connection may be accepted; for poll and the like. Do not read from it.
impl AsFd for SanListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.set.as_fd()
    }
}

impl AsRawFd for SanListener {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.set.as_fd().as_raw_fd()
    }
}

/// The connections of a listener as they come.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a SanListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<SanStream>;

    fn next(&mut self) -> Option<io::Result<SanStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

/// The calls with which a provider begins to listen beside TCP.
fn listen(provider: &Arc<Provider>, at: SocketAddr) -> Result<SanSocket, Reason> {
    let mut socket = SanSocket::bound(provider, at).map_err(|error| match error {
        BoundError::Socket(code) => Reason::SocketFailed(code),
        BoundError::Bind(code) => Reason::BindFailed(code),
    })?;
    socket
        .listen(abi::WSD_SOMAXCONN)
        .map_err(Reason::ListenFailed)?;
    socket
        .event_select(abi::FD_ACCEPT)
        .map_err(Reason::EventFailed)?;
    Ok(socket)
}

fn negotiation(options: &StreamOptions) -> Box<Negotiate<Arc<Connection>>> {
    let options = options.clone();
    Box::new(move |socket, time, done| Connection::accept(socket, &options, time, done))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    /// A socket of the kernel's with an error that nobody has asked for: its peer has reset it.
    fn reset() -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let two = listener.accept().unwrap().0;
        sys::set_linger(two.as_fd(), Some(Duration::ZERO)).unwrap();
        drop(two);
        let mut fds = [PollFd::readable(one.as_fd())];
        let deadline = sys::deadline_after(Duration::from_secs(30));
        assert_eq!(sys::wait(&mut fds, deadline).unwrap(), 1);
        one.into()
    }

    #[test]
    fn what_has_gone_wrong_at_the_kernels_socket_is_told_once() {
        let switch = Switch::with_providers([]);
        let listener = switch.bind("127.0.0.1:0").unwrap();
        assert!(listener.take_error().unwrap().is_none());
        let inner = Arc::into_inner(listener.inner).unwrap();
        let listener = SanListener {
            inner: Arc::new(Inner {
                tcp: TcpListener::from(reset()),
                ..inner
            }),
        };
        let error = listener.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(listener.take_error().unwrap().is_none());
    }
}
