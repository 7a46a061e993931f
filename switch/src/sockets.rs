//! The ways to open a socket: connecting and listening, for names that stand for several addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::conn::Connection;
use crate::connect::{self, Opened, Wishes};
use crate::listener::SanListener;
use crate::observe::Role;
use crate::options::{Mode, StreamOptions};
use crate::stream::SanStream;
use crate::switch::Switch;
use crate::sys;
use crate::tcp::{Bound, TcpSocket};

impl Switch {
    /// Connects to the first of the addresses that answers: over the SAN where it serves, over TCP
    /// elsewhere.
    ///
    /// # Errors
    /// As for [`std::net::TcpStream::connect`].
    pub fn connect(&self, addresses: impl ToSocketAddrs) -> io::Result<SanStream> {
        self.connect_with(addresses, &StreamOptions::new())
    }

    /// As [`Switch::connect`], within a time.
    ///
    /// # Errors
    /// As for [`std::net::TcpStream::connect_timeout`].
    pub fn connect_timeout(&self, address: &SocketAddr, time: Duration) -> io::Result<SanStream> {
        if time.is_zero() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.connect_with(address, &StreamOptions::new().connect_timeout(Some(time)))
    }

    /// As [`Switch::connect`], with options. A time-out holds for each address.
    ///
    /// # Errors
    /// As for [`Switch::connect`].
    pub fn connect_with(
        &self,
        addresses: impl ToSocketAddrs,
        options: &StreamOptions,
    ) -> io::Result<SanStream> {
        first_that_works(addresses, |address| {
            self.connect_one(address, options, None)
        })
    }

    /// As [`Switch::connect_with`], from a TCP socket of the caller's: one that is not connected,
    /// bound or not. It reserves the address for a connection over a SAN, and carries one over TCP;
    /// its options are kept. After an error a duplicate of it can be used again.
    ///
    /// # Errors
    /// As for [`Switch::connect`].
    pub fn connect_from(
        &self,
        socket: OwnedFd,
        to: SocketAddr,
        options: &StreamOptions,
    ) -> io::Result<SanStream> {
        self.connect_one(to, options, Some(socket.into()))
    }

    fn connect_one(
        &self,
        to: SocketAddr,
        options: &StreamOptions,
        own: Option<TcpSocket>,
    ) -> io::Result<SanStream> {
        let deadline = options
            .connect_timeout_value()
            .and_then(sys::deadline_after);
        let tcp_only = options.transfer_mode() == Mode::Tcp;
        let wishes = Wishes {
            tcp_only,
            debug: options.debug,
            deadline,
        };
        match connect::open(self, to, wishes, own)? {
            Opened::San { socket, companion } => {
                // A SAN connection exists: from here on every error is the application's.
                let connection = Connection::connect(socket, options, deadline)?;
                Ok(SanStream::from_connection(
                    connection,
                    Some(companion.into()),
                ))
            }
            Opened::Tcp { stream, reason } => Ok(SanStream::from_tcp(
                stream,
                reason,
                Role::Connected,
                options,
            )),
        }
    }

    /// Listens on both paths; see [`SanListener::bind`].
    ///
    /// # Errors
    /// As for [`SanListener::bind`].
    pub fn bind(&self, addresses: impl ToSocketAddrs) -> io::Result<SanListener> {
        self.bind_with(addresses, &StreamOptions::new())
    }

    /// As [`Switch::bind`], with options for the connections that will be accepted.
    ///
    /// # Errors
    /// As for [`SanListener::bind`].
    pub fn bind_with(
        &self,
        addresses: impl ToSocketAddrs,
        options: &StreamOptions,
    ) -> io::Result<SanListener> {
        first_that_works(addresses, |address| {
            SanListener::open(self, Bound::new(address)?, options)
        })
    }

    /// Listens with a TCP socket of the caller's, one that is bound, beside the SAN. Its options are
    /// kept; the backlog is that of TCP alone.
    ///
    /// # Errors
    /// As for [`SanListener::bind`].
    pub fn listen_on(
        &self,
        socket: OwnedFd,
        backlog: i32,
        options: &StreamOptions,
    ) -> io::Result<SanListener> {
        SanListener::open(self, Bound::on(socket.into(), backlog)?, options)
    }
}

impl SanStream {
    /// Connects to the first of the addresses that answers: over the SAN where it serves, over TCP
    /// elsewhere. [`SanStream::transport`] tells which.
    ///
    /// # Errors
    /// As for [`std::net::TcpStream::connect`].
    pub fn connect(addresses: impl ToSocketAddrs) -> io::Result<SanStream> {
        Switch::global().connect(addresses)
    }

    /// As [`SanStream::connect`], within a time.
    ///
    /// # Errors
    /// As for [`std::net::TcpStream::connect_timeout`].
    pub fn connect_timeout(address: &SocketAddr, time: Duration) -> io::Result<SanStream> {
        Switch::global().connect_timeout(address, time)
    }

    /// As [`SanStream::connect`], with options. A time-out holds for each address.
    ///
    /// # Errors
    /// As for [`SanStream::connect`].
    pub fn connect_with(
        addresses: impl ToSocketAddrs,
        options: &StreamOptions,
    ) -> io::Result<SanStream> {
        Switch::global().connect_with(addresses, options)
    }
}

/// Tries the addresses in turn; the last error is the one told.
fn first_that_works<R>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match attempt(address) {
            Ok(result) => return Ok(result),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name stands for no address",
        )
    }))
}
