//! `wsd_poll`: sockets of ours and descriptors of the kernel's in one array.
//!
//! Owns references to the sockets for the time of the call, so that one that is closed meanwhile is
//! not taken away under it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::{c_short, pollfd};
use wsd_switch::{PollEntry, Pollable};

use crate::connecting::Attempt;
use crate::socket::Socket;
use crate::table;

/// What a line of the array stands for.
enum Line {
    Kernels(i32),
    Ours(Arc<Socket>),
    /// A socket whose connect is under way: its end is waited for.
    Connecting(Arc<Attempt>),
    /// Nothing to wait for: this is how it is.
    Known(c_short),
}

impl Line {
    fn new(number: i32) -> Line {
        if !table::is_ours(number) {
            return Line::Kernels(number);
        }
        let Some(socket) = table::find(number) else {
            return Line::Known(libc::POLLNVAL);
        };
        if let Some(listening) = socket.listener.get()
            && listening.is_over.load(Ordering::Acquire)
        {
            return Line::Known(libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP);
        }
        if socket.stream.get().is_some() || socket.listener.get().is_some() {
            return Line::Ours(socket);
        }
        let (attempt, has_failed) = {
            let own = socket.own.lock();
            (own.attempt.clone(), own.error != 0)
        };
        match attempt {
            Some(attempt) if !attempt.is_over() => Line::Connecting(attempt),
            // It may have come about between the two looks.
            Some(_) if socket.stream.get().is_some() => Line::Ours(socket),
            _ if has_failed => Line::Known(
                libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP | libc::POLLERR | libc::POLLHUP,
            ),
            // As the kernel says of a socket that is not connected.
            _ => Line::Known(libc::POLLOUT | libc::POLLHUP),
        }
    }

    fn entry(&self, wanted: c_short) -> PollEntry<'_> {
        let (what, wanted) = match self {
            Line::Kernels(number) => (Pollable::Descriptor(*number), wanted),
            Line::Ours(socket) => match (socket.stream.get(), socket.listener.get()) {
                (Some(stream), _) => (Pollable::Stream(stream), wanted),
                (None, Some(listening)) => (Pollable::Listener(&listening.listener), wanted),
                (None, None) => (Pollable::Descriptor(-1), 0),
            },
            Line::Connecting(attempt) => {
                (Pollable::Descriptor(attempt.done.number()), libc::POLLIN)
            }
            Line::Known(_) => (Pollable::Descriptor(-1), 0),
        };
        PollEntry::new(what, wanted)
    }
}

/// As poll(2).
pub(crate) fn poll(fds: &mut [pollfd], time: Option<Duration>) -> io::Result<usize> {
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    loop {
        let lines: Vec<Line> = fds.iter().map(|fd| Line::new(fd.fd)).collect();
        let mut known = 0;
        for (fd, line) in fds.iter_mut().zip(&lines) {
            let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
            fd.revents = match line {
                Line::Known(bits) => bits & (fd.events | always),
                Line::Kernels(_) | Line::Ours(_) | Line::Connecting(_) => 0,
            };
            known += usize::from(fd.revents != 0);
        }
        let left = match deadline {
            _ if known > 0 => Some(Duration::ZERO),
            Some(end) => Some(end.saturating_duration_since(Instant::now())),
            None => None,
        };
        let mut entries: Vec<PollEntry<'_>> = fds
            .iter()
            .zip(&lines)
            .map(|(fd, line)| line.entry(fd.events))
            .collect();
        let ready = wsd_switch::poll(&mut entries, left)?;
        let mut found = known;
        let mut is_connected = false;
        for ((fd, line), entry) in fds.iter_mut().zip(&lines).zip(&entries) {
            match line {
                Line::Known(_) => {}
                Line::Connecting(_) => is_connected |= entry.events() != 0,
                Line::Kernels(_) | Line::Ours(_) => {
                    fd.revents = entry.events();
                    found += usize::from(fd.revents != 0);
                }
            }
        }
        // Whether a connect that has ended is what was waited for, the next look tells.
        if found > 0 || ready == 0 || !is_connected {
            return Ok(found);
        }
    }
}
