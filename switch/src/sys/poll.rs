//! Waiting for descriptors: one after the other, or as a set.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::time::Instant;

use super::check;
use super::owned;

/// Calls in which a thread may be cancelled, which unwinds it.
mod unwinding {
    unsafe extern "C-unwind" {
        pub(super) fn ppoll(
            fds: *mut libc::pollfd,
            count: libc::nfds_t,
            time: *const libc::timespec,
            mask: *const libc::sigset_t,
        ) -> libc::c_int;
    }
}

/// One descriptor to wait for.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PollFd<'a> {
    raw: libc::pollfd,
    life: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollFd<'a> {
    fn new(fd: BorrowedFd<'a>, events: libc::c_short) -> PollFd<'a> {
        let raw = libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        };
        PollFd {
            raw,
            life: std::marker::PhantomData,
        }
    }

    pub(crate) fn readable(fd: BorrowedFd<'a>) -> PollFd<'a> {
        PollFd::new(fd, libc::POLLIN)
    }

    pub(crate) fn writable(fd: BorrowedFd<'a>) -> PollFd<'a> {
        PollFd::new(fd, libc::POLLOUT)
    }

    /// Any number, also one that is no descriptor: the kernel says so.
    pub(crate) fn numbered(fd: RawFd, events: libc::c_short) -> PollFd<'a> {
        let raw = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        PollFd {
            raw,
            life: std::marker::PhantomData,
        }
    }

    /// What the last wait found.
    pub(crate) fn found(&self) -> libc::c_short {
        self.raw.revents
    }

    /// Whether the last [`wait`] found what was asked for, or an error to be fetched.
    pub(crate) fn is_ready(&self) -> bool {
        self.raw.revents != 0
    }
}

/// Waits until one of the descriptors is ready or the deadline has passed (then 0 are ready).
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        match wait_once(fds, deadline) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            waited => return waited,
        }
    }
}

/// As [`wait`]; a signal ends it.
pub(crate) fn wait_once(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    let time = deadline.map(|end| {
        let left = end.saturating_duration_since(Instant::now());
        libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos()),
        }
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: `PollFd` is transparent over pollfd; the slice and the time outlive the call; a
    // null signal mask changes nothing.
    let ready = unsafe { unwinding::ppoll(fds.as_mut_ptr().cast(), count, time, std::ptr::null()) };
    Ok(usize::try_from(check(ready)?).unwrap_or(0))
}

/// A set of descriptors that can itself be polled: readable while one of its members is.
#[derive(Debug)]
pub(crate) struct PollSet {
    fd: OwnedFd,
}

impl PollSet {
    pub(crate) fn new() -> io::Result<PollSet> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Ok(PollSet { fd: owned(fd)? })
    }

    /// Adds a descriptor. The kernel takes it out again when its last duplicate is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, Interest::Read)
    }

    /// As [`PollSet::add`], for something else than reading.
    pub(crate) fn add_for(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest)
    }

    /// Adds a descriptor that makes the set readable once for each arrival.
    pub(crate) fn add_for_edges(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET).cast_unsigned(),
            u64: 0,
        };
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, the event is read during the call only.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, member, &raw mut event) })?;
        Ok(())
    }

    /// As [`PollSet::add`], for a descriptor of somebody else; `false` if it is none.
    pub(crate) fn add_number(&self, fd: RawFd) -> bool {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: 0,
        };
        let set = self.fd.as_raw_fd();
        // SAFETY: the event is read during the call only; a number that is not open is answered.
        let added = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        added == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST)
    }

    /// Takes such a descriptor out, which may be closed by now.
    pub(crate) fn remove_number(&self, fd: RawFd) {
        let none = std::ptr::null_mut();
        // SAFETY: no event is needed for this; a number that is not open is answered.
        unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none) };
    }

    /// Consumes the edges that make the set readable.
    pub(crate) fn take_edges(&self) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: at most as many events are stored as there is room for; does not wait.
        unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), 64, 0) };
    }

    /// Takes a member out.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        let none = std::ptr::null_mut();
        // SAFETY: both descriptors are open; no event is needed for this.
        unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, member, none) };
    }

    fn control(&self, what: libc::c_int, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: 0,
        };
        let (set, member) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, the event is read during the call only.
        check(unsafe { libc::epoll_ctl(set, what, member, &raw mut event) })?;
        Ok(())
    }
}

/// What a member of a [`PollSet`] is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Write,
    ReadWrite,
}

impl PollSet {
    /// Changes what a member is watched for.
    pub(crate) fn change(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest)
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::{Event, deadline_after};

    #[test]
    fn a_poll_set_is_readable_while_a_member_is() {
        let set = PollSet::new().unwrap();
        let event = Event::new().unwrap();
        set.add(event.as_fd()).unwrap();
        event.set();
        assert_eq!(wait(&mut [PollFd::readable(set.as_fd())], None).unwrap(), 1);
        event.reset();
        let now = deadline_after(Duration::ZERO);
        assert_eq!(wait(&mut [PollFd::readable(set.as_fd())], now).unwrap(), 0);
    }
}
