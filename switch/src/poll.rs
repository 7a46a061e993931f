//! Waiting for several streams, listeners and other descriptors at once, like poll(2).
//!
//! Owns nothing. A stream over TCP, a listener and a descriptor are the kernel's to watch; for those
//! over a SAN the thread takes its place among the sleepers of each (`conn/watch`). Invariant: when
//! the call returns it waits for nothing any more, and its thread's event is not set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use libc::c_short;

use crate::conn::{self, Connection, Watching};
use crate::listener::SanListener;
use crate::stream::SanStream;
use crate::sys::{self, PollFd};

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Pollable<'a> {
    /// A stream; tells of the events of a TCP socket.
    Stream(&'a SanStream),
    /// A listener; readable while there may be something to accept.
    Listener(&'a SanListener),
    /// A descriptor of the kernel's; a negative number is left out, as with poll(2).
    Descriptor(RawFd),
}

/// One line of a [`poll`].
#[derive(Clone, Copy, Debug)]
pub struct PollEntry<'a> {
    what: Pollable<'a>,
    wanted: c_short,
    found: c_short,
}

impl<'a> PollEntry<'a> {
    /// Waits for these events: `POLLIN` and so on, as libc has them.
    #[must_use]
    pub fn new(what: Pollable<'a>, events: c_short) -> PollEntry<'a> {
        PollEntry {
            what,
            wanted: events,
            found: 0,
        }
    }

    /// What the last [`poll`] found: of the events that were wanted, and `POLLERR`, `POLLHUP` and
    /// `POLLNVAL`, which are always told.
    #[must_use]
    pub fn events(&self) -> c_short {
        self.found
    }

    fn connection(&self) -> Option<&'a Connection> {
        match self.what {
            Pollable::Stream(stream) => stream.connection(),
            Pollable::Listener(_) | Pollable::Descriptor(_) => None,
        }
    }

    /// What the kernel is asked.
    fn kernels(&self) -> Option<PollFd<'a>> {
        let fd = match self.what {
            Pollable::Stream(stream) => stream.tcp_socket()?.as_raw_fd(),
            Pollable::Listener(listener) => listener.as_fd().as_raw_fd(),
            Pollable::Descriptor(fd) => fd,
        };
        Some(PollFd::numbered(fd, self.wanted))
    }

    fn keep(&mut self, found: c_short) -> bool {
        const ALWAYS: c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
        self.found = found & (self.wanted | ALWAYS);
        self.found != 0
    }
}

/// Waits until an event of one of the entries is there, or the time is over: without one for ever.
/// Returns how many entries have events.
///
/// # Errors
/// `Interrupted` by a signal, as poll(2); or what keeps the thread from waiting.
pub fn poll(entries: &mut [PollEntry<'_>], time: Option<Duration>) -> io::Result<usize> {
    let now = Some(Instant::now());
    let deadline = time.and_then(sys::deadline_after);
    // Mostly something is there, and most programs have no stream over a SAN among many others.
    let mut found = 0;
    for entry in &mut *entries {
        if let Some(connection) = entry.connection() {
            found += usize::from(entry.keep(connection.poll_bits()));
        }
    }
    if found > 0 || time.is_some_and(|time| time.is_zero()) {
        return Ok(found + ask_kernel(entries, &[], now)?.0);
    }
    if entries.iter().all(|entry| entry.connection().is_none()) {
        return Ok(ask_kernel(entries, &[], deadline)?.0);
    }
    let event = conn::own_event().ok_or(io::ErrorKind::Other)?;
    let watching: Vec<Option<Watching<'_>>> = entries
        .iter()
        .map(|entry| Some(entry.connection()?.watch(&event)))
        .collect();
    let waited = loop {
        event.reset();
        let mut also = vec![event.as_fd()];
        let mut found = 0;
        for (entry, watching) in entries.iter_mut().zip(&watching) {
            if let Some(watching) = watching {
                let (bits, descriptor) = watching.look(entry.wanted);
                found += usize::from(entry.keep(bits));
                also.extend(descriptor);
            }
        }
        if found > 0 {
            break ask_kernel(entries, &[], now).map(|(kernels, _)| found + kernels);
        }
        match ask_kernel(entries, &also, deadline) {
            Ok((0, true)) => {}
            Ok((kernels, _)) => break Ok(kernels),
            Err(error) => break Err(error),
        }
    };
    drop(watching);
    event.reset();
    waited
}

/// Has the kernel wait. Returns how many of its entries have events, and whether one of the other
/// descriptors is readable.
fn ask_kernel(
    entries: &mut [PollEntry<'_>],
    also: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<(usize, bool)> {
    let mut fds: Vec<PollFd<'_>> = also.iter().map(|fd| PollFd::readable(*fd)).collect();
    fds.extend(entries.iter().filter_map(PollEntry::kernels));
    if fds.is_empty() && deadline.is_some_and(|end| end <= Instant::now()) {
        return Ok((0, false));
    }
    sys::wait_once(&mut fds, deadline)?;
    let is_news = fds.iter().take(also.len()).any(PollFd::is_ready);
    let mut answers = fds.iter().skip(also.len());
    let mut found = 0;
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.connection().is_none())
    {
        let bits = answers.next().map_or(0, PollFd::found);
        found += usize::from(entry.keep(bits));
    }
    Ok((found, is_news))
}
