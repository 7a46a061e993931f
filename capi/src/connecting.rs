//! Connecting, in the call or in the background.
//!
//! A connect over the SAN is several calls that wait, so one of a nonblocking socket has a thread of
//! its own until it is over. Invariant: one attempt at a time; when its signal is set the stream is
//! there, or the error.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use wsd_switch::{SanStream, StreamOptions, Switch};

use crate::address;
use crate::socket::Socket;
use crate::sys::{self, Signal, errno, number_of};

/// Enough for the calls of a connect.
const STACK: usize = 512 << 10;

/// One connect.
#[derive(Debug)]
pub(crate) struct Attempt {
    is_over: AtomicBool,
    pub(crate) done: Signal,
}

impl Attempt {
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// After the outcome is there for whoever is woken.
    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.done.set();
    }
}

/// What an attempt takes along.
struct Way {
    kernel: OwnedFd,
    to: SocketAddr,
    options: StreamOptions,
}

impl Way {
    fn go(self) -> io::Result<SanStream> {
        Switch::global().connect_from(self.kernel, self.to, &self.options)
    }
}

impl Socket {
    pub(crate) fn connect(self: &Arc<Self>, to: SocketAddr) -> io::Result<()> {
        let is_v4 = self.domain == libc::AF_INET;
        if to.is_ipv4() != is_v4 {
            return Err(errno(libc::EAFNOSUPPORT));
        }
        let (way, attempt) = self.begin_connect(to)?;
        if !self.is_nonblocking.load(Ordering::Relaxed) {
            let result = self.finish_connect(way.go());
            attempt.end();
            return self.answer(result.map(|()| 1)).map(drop);
        }
        let (me, its) = (Arc::clone(self), Arc::clone(&attempt));
        let connect = move || {
            sys::block_signals();
            if let Err(error) = me.finish_connect(way.go()) {
                me.own.lock().error = number_of(&error);
            }
            its.end();
        };
        let thread = thread::Builder::new()
            .name("wsd-connect".to_owned())
            .stack_size(STACK);
        match thread.spawn(connect) {
            Ok(_) => Err(errno(libc::EINPROGRESS)),
            Err(_) => {
                attempt.end();
                Err(errno(libc::EAGAIN))
            }
        }
    }

    /// Begins an attempt, if there may be one.
    fn begin_connect(&self, to: SocketAddr) -> io::Result<(Way, Arc<Attempt>)> {
        let mut own = self.own.lock();
        if own.attempt.as_ref().is_some_and(|one| !one.is_over()) {
            return Err(errno(libc::EALREADY));
        }
        if own.error != 0 {
            return Err(errno(std::mem::take(&mut own.error)));
        }
        let kernel = own.kernel.as_ref().ok_or_else(|| errno(libc::EISCONN))?;
        let way = Way {
            kernel: kernel.try_clone()?,
            to: address::destination(to),
            options: own.asked.stream_options(),
        };
        let attempt = Arc::new(Attempt {
            is_over: AtomicBool::new(false),
            done: Signal::new()?,
        });
        own.attempt = Some(Arc::clone(&attempt));
        Ok((way, attempt))
    }

    fn finish_connect(&self, connected: io::Result<SanStream>) -> io::Result<()> {
        let stream = connected?;
        let mut own = self.own.lock();
        own.asked.apply(&stream);
        own.kernel = None;
        let stream = self.stream.get_or_init(|| stream);
        // Only now: whoever changes it after this sees the stream.
        stream.set_nonblocking(self.is_nonblocking.load(Ordering::SeqCst))
    }
}
