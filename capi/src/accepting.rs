//! Listening and accepting.
//!
//! The listener itself never waits; an accept that has to does so for it and for the socket's end.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;
use wsd_switch::{PollEntry, Pollable, Switch};

use crate::socket::{Listening, Socket};
use crate::sys::{Signal, errno};

impl Socket {
    /// Listens; a second time changes nothing.
    pub(crate) fn listen(&self, backlog: c_int) -> io::Result<()> {
        let mut own = self.own.lock();
        if self.listener.get().is_some() {
            return Ok(());
        }
        if own.attempt.as_ref().is_some_and(|one| !one.is_over()) {
            return Err(errno(libc::EINVAL));
        }
        let kernel = own.kernel.as_ref().ok_or_else(|| errno(libc::EINVAL))?;
        let over = Signal::new()?;
        let options = own.asked.stream_options();
        let kernel = kernel.try_clone()?;
        let listener = Switch::global().listen_on(kernel, backlog, &options)?;
        listener.set_nonblocking(true)?;
        own.kernel = None;
        let listening = Listening {
            listener,
            over,
            is_over: AtomicBool::new(false),
        };
        drop(self.listener.set(listening));
        Ok(())
    }

    /// The next connection.
    pub(crate) fn accept(&self, is_nonblocking: bool) -> io::Result<(Socket, SocketAddr)> {
        let listening = self.listener.get().ok_or_else(|| errno(libc::EINVAL))?;
        loop {
            if self.is_closed() {
                return Err(errno(libc::EBADF));
            }
            if listening.is_over.load(Ordering::Acquire) {
                return Err(errno(libc::EINVAL));
            }
            match listening.listener.accept() {
                Ok((stream, peer)) => {
                    let asked = self.own.lock().asked.clone();
                    let socket = Socket::accepted(self.domain, is_nonblocking, stream, asked)?;
                    return Ok((socket, peer));
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if self.is_nonblocking.load(Ordering::Relaxed) => return Err(error),
                Err(_) => {}
            }
            let over = Pollable::Descriptor(listening.over.number());
            let mut entries = [
                PollEntry::new(Pollable::Listener(&listening.listener), libc::POLLIN),
                PollEntry::new(over, libc::POLLIN),
            ];
            let time = self.own.lock().asked.receive_time;
            match wsd_switch::poll(&mut entries, time) {
                Ok(0) => return Err(errno(libc::EAGAIN)),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }
}
