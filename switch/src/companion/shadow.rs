//! A descriptor that shows in a real poll set what a TCP socket would show.
//!
//! Owns a pair of connected Unix stream sockets. The shown end is readable while the kept end has
//! sent a byte that nobody has taken, writable unless its send buffer has been filled, and so on.
//! Nobody but this file reads or writes either. Invariant: what is shown changes only when it has
//! to, because each change costs a system call or two.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::kernel;
use crate::conn::News;

/// Bytes that may lie in the shown end, one for each time that edge-triggered waiters are told.
const NUDGES: usize = 32;

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Shown {
    full: bool,
    urgent: bool,
    peer_shut: bool,
    both_shut: bool,
    failed: bool,
}

pub(super) struct Shadow {
    /// The end that is shown.
    front: UnixStream,
    /// Closed to show an error.
    back: Option<UnixStream>,
    shown: Shown,
    /// Bytes that lie in the shown end.
    nudges: usize,
    /// The edges that were shown, as `Companion::arrivals` counts them.
    edges: (u32, u32),
}

/// What is to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Face {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) urgent: bool,
    pub(super) peer_shut: bool,
    pub(super) both_shut: bool,
    pub(super) failed: bool,
}

impl Face {
    pub(super) fn of(news: &News, write_shut: bool) -> Face {
        Face {
            readable: news.readable && !news.suspended,
            writable: news.writable,
            urgent: news.urgent,
            peer_shut: news.peer_shut || news.failed,
            both_shut: (news.peer_shut && write_shut) || news.failed,
            failed: news.failed,
        }
    }

    /// What poll(2) would return of it.
    pub(super) fn bits(self) -> i16 {
        let bit = |on: bool, bit: libc::c_short| if on { bit } else { 0 };
        bit(self.readable, libc::POLLIN | libc::POLLRDNORM)
            | bit(self.writable, libc::POLLOUT | libc::POLLWRNORM)
            | bit(self.urgent, libc::POLLPRI)
            | bit(self.peer_shut, libc::POLLIN | libc::POLLRDHUP)
            | bit(self.both_shut, libc::POLLHUP)
            | bit(self.failed, libc::POLLERR)
    }
}

/// Moves a socket out of the way of the application's numbers.
fn high(socket: UnixStream) -> io::Result<UnixStream> {
    let made = kernel::duplicate(socket.as_raw_fd())?;
    kernel::close(OwnedFd::from(socket));
    Ok(UnixStream::from(made))
}

impl Shadow {
    pub(super) fn new() -> io::Result<Shadow> {
        let (front, back) = UnixStream::pair()?;
        let (front, back) = (high(front)?, high(back)?);
        front.set_nonblocking(true)?;
        back.set_nonblocking(true)?;
        kernel::small_send_buffer(front.as_raw_fd());
        Ok(Shadow {
            front,
            back: Some(back),
            shown: Shown::default(),
            nudges: 0,
            edges: (0, 0),
        })
    }

    pub(super) fn number(&self) -> RawFd {
        self.front.as_raw_fd()
    }

    /// As `show`, and what these counts say has happened since the last time is told to those who
    /// wait for edges.
    pub(super) fn show_edges(&mut self, face: Face, edges: (u32, u32), fresh: bool) {
        let before = std::mem::replace(&mut self.edges, edges);
        if before.1 != edges.1 && face.writable && !self.shown.full && !self.shown.failed {
            // Nobody has seen that it was full, but a sender did.
            self.show_full(true);
        }
        self.show(face, fresh || before.0 != edges.0);
    }

    /// Makes it show this. With `fresh`, something has happened since the last time that who waits
    /// for edges wants to know.
    fn show(&mut self, face: Face, fresh: bool) {
        let shown = self.shown;
        if !shown.failed {
            self.show_readable(face.readable, fresh);
            if face.writable == shown.full {
                self.show_full(!face.writable);
            }
            if face.urgent != shown.urgent {
                self.show_urgent(face.urgent);
            }
        }
        let Some(back) = &self.back else {
            if shown.failed && !face.failed {
                let (socket, error) = (libc::SOL_SOCKET, libc::SO_ERROR);
                let _taken = kernel::number(self.front.as_raw_fd(), socket, error);
            }
            return;
        };
        if face.failed && !shown.failed {
            self.shown.failed = true;
            // Something unread in the end that is closed makes it an error; and the end is one, too.
            drop((&self.front).write(&[0]));
            self.back = None;
            return;
        }
        if face.peer_shut && !shown.peer_shut {
            self.shown.peer_shut = true;
            drop(back.shutdown(std::net::Shutdown::Write));
        }
        if face.both_shut && !shown.both_shut {
            self.shown.both_shut = true;
            drop(back.shutdown(std::net::Shutdown::Both));
        }
    }

    fn show_readable(&mut self, readable: bool, fresh: bool) {
        let Some(back) = &self.back else { return };
        if self.shown.peer_shut {
            return;
        }
        if readable && (self.nudges == 0 || (fresh && self.nudges < NUDGES)) {
            if { back }.write(&[0]).is_ok() {
                self.nudges += 1;
            }
        } else if !readable && self.nudges > 0 {
            let mut room = [0; NUDGES];
            drop((&self.front).read(&mut room));
            self.nudges = 0;
        }
    }

    fn show_full(&mut self, full: bool) {
        let Some(back) = &self.back else { return };
        self.shown.full = full;
        let mut room = [0; 4096];
        if full {
            while (&self.front).write(&room).is_ok_and(|count| count > 0) {}
        } else {
            while { back }.read(&mut room).is_ok_and(|count| count > 0) {}
        }
    }

    fn show_urgent(&mut self, urgent: bool) {
        let Some(back) = &self.back else { return };
        if urgent {
            let sent = kernel::send_from(back.as_raw_fd(), &[1], libc::MSG_OOB);
            self.shown.urgent = sent.is_ok();
        } else {
            let mut room = [0];
            drop(kernel::receive_into(
                self.front.as_raw_fd(),
                &mut room,
                libc::MSG_OOB,
            ));
            self.shown.urgent = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(shadow: &Shadow) -> i16 {
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
        kernel::poll_now(shadow.number(), all)
    }

    fn face(readable: bool, writable: bool) -> Face {
        Face {
            readable,
            writable,
            ..Face::default()
        }
    }

    #[test]
    fn a_shadow_shows_what_it_is_told() {
        let mut shadow = Shadow::new().unwrap();
        for _ in 0..3 {
            for (readable, writable) in [(false, true), (true, true), (true, false), (false, false)]
            {
                let told = face(readable, writable);
                shadow.show(told, true);
                let plain = libc::POLLIN | libc::POLLOUT;
                assert_eq!(bits(&shadow), told.bits() & plain, "{told:?}");
            }
        }
    }

    #[test]
    fn the_end_of_the_stream_a_hang_up_and_an_error_are_shown() {
        let mut shadow = Shadow::new().unwrap();
        let mut told = face(false, true);
        told.peer_shut = true;
        shadow.show(told, true);
        let end = libc::POLLIN | libc::POLLRDHUP;
        assert_eq!(bits(&shadow) & (end | libc::POLLHUP), end);
        told.both_shut = true;
        shadow.show(told, true);
        assert_ne!(bits(&shadow) & libc::POLLHUP, 0);
        let mut shadow = Shadow::new().unwrap();
        told.failed = true;
        shadow.show(told, true);
        assert_ne!(bits(&shadow) & libc::POLLERR, 0);
    }

    #[test]
    fn urgent_data_is_shown_where_the_kernel_can() {
        let mut shadow = Shadow::new().unwrap();
        let mut told = face(false, true);
        told.urgent = true;
        shadow.show(told, true);
        if shadow.shown.urgent {
            assert_ne!(bits(&shadow) & libc::POLLPRI, 0);
            told.urgent = false;
            shadow.show(told, true);
            assert_eq!(bits(&shadow) & libc::POLLPRI, 0);
        }
    }

    #[test]
    fn a_waiter_for_edges_is_told_of_each_piece_of_news() {
        let mut shadow = Shadow::new().unwrap();
        for _ in 0..3 * NUDGES {
            shadow.show(face(true, true), true);
        }
        assert_eq!(shadow.nudges, NUDGES);
        shadow.show(face(false, true), false);
        assert_eq!(bits(&shadow) & libc::POLLIN, 0);
    }
}
