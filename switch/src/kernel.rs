//! A TCP connection of the kernel, with what `SanStream` needs and std does not offer.
//!
//! Owns the socket and the descriptor an application polls instead of it: a poll set that is
//! readable when the last call that would have blocked is worth repeating. So one loop serves
//! streams of both kinds.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libc::c_int;
use parking_lot::Mutex;

use crate::observe::Slot;
use crate::sys::{self, Interest, PollSet};

/// How long a close that waits does so if the application has not said.
const CLOSE_TIME: Duration = Duration::from_secs(30);

pub(crate) struct KernelStream {
    tcp: TcpStream,
    set: OnceLock<PollSet>,
    read_set: OnceLock<PollSet>,
    write_set: OnceLock<PollSet>,
    /// Lowest bit: a write would have blocked, and none has gone since. The rest: how often.
    write_wanted: AtomicU32,
    /// Held while the set is made or changed: it is changed to what is wanted by then.
    changing: Mutex<()>,
    /// Where others see it.
    slot: Option<Arc<Slot>>,
}

impl KernelStream {
    pub(crate) fn new(tcp: TcpStream, slot: Option<Arc<Slot>>) -> KernelStream {
        KernelStream {
            tcp,
            slot,
            set: OnceLock::new(),
            read_set: OnceLock::new(),
            write_set: OnceLock::new(),
            write_wanted: AtomicU32::new(0),
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The descriptor to poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        if let Some(set) = self.set.get() {
            return set.as_fd();
        }
        let _changing = self.changing.lock();
        match self.make_set() {
            Ok(set) => self.set.get_or_init(|| set).as_fd(),
            Err(error) => {
                tracing::warn!(%error, "no descriptor to poll; the socket's own instead");
                self.tcp.as_fd()
            }
        }
    }

    /// The descriptor that is readable while a call in one direction is worth repeating.
    pub(crate) fn descriptor_for(&self, interest: Interest) -> io::Result<BorrowedFd<'_>> {
        let place = match interest {
            Interest::Read => &self.read_set,
            Interest::Write => &self.write_set,
            Interest::ReadWrite => return Ok(self.descriptor()),
        };
        if let Some(set) = place.get() {
            return Ok(set.as_fd());
        }
        let set = PollSet::new()?;
        set.add_for(self.tcp.as_fd(), interest)?;
        Ok(place.get_or_init(|| set).as_fd())
    }

    fn make_set(&self) -> io::Result<PollSet> {
        let set = PollSet::new()?;
        set.add_for(self.tcp.as_fd(), self.interest())?;
        Ok(set)
    }

    fn interest(&self) -> Interest {
        // Relaxed: who has changed it since takes the lock afterwards.
        if self.write_wanted.load(Ordering::Relaxed) & 1 != 0 {
            Interest::ReadWrite
        } else {
            Interest::Read
        }
    }

    /// A read. What can be read is always watched for.
    pub(crate) fn reading<T>(
        &self,
        call: impl FnOnce(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        call(&self.tcp)
    }

    /// A read of bytes that then are gone.
    pub(crate) fn received(
        &self,
        call: impl FnOnce(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = self.reading(call);
        if let (Some(slot), Ok(bytes)) = (&self.slot, &result) {
            slot.received_by_kernel(*bytes);
        }
        result
    }

    /// A write of bytes that counts them.
    pub(crate) fn sent(
        &self,
        call: impl FnOnce(&KernelStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = self.writing(call);
        if let (Some(slot), Ok(bytes)) = (&self.slot, &result) {
            slot.sent_by_kernel(*bytes);
        }
        result
    }

    /// A write: room for more is watched for from a write that found none to the next one that
    /// does.
    pub(crate) fn writing<T>(
        &self,
        call: impl FnOnce(&KernelStream) -> io::Result<T>,
    ) -> io::Result<T> {
        let before = self.write_wanted.load(Ordering::Relaxed);
        let result = call(self);
        let has_changed = match &result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let count = |now: u32| Some(now.wrapping_add(2) | 1);
                let relaxed = Ordering::Relaxed;
                let last = self.write_wanted.fetch_update(relaxed, relaxed, count);
                last.is_ok_and(|last| last & 1 == 0)
            }
            // Another thread's write that has found no room meanwhile still wants some.
            _ => {
                let relaxed = Ordering::Relaxed;
                let none = before & !1;
                before != none
                    && self
                        .write_wanted
                        .compare_exchange(before, none, relaxed, relaxed)
                        .is_ok()
            }
        };
        if has_changed {
            let _changing = self.changing.lock();
            if let Some(set) = self.set.get() {
                set.change(self.tcp.as_fd(), self.interest())?;
            }
        }
        result
    }

    /// Sends, with flags of the kernel's.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>], flags: c_int) -> io::Result<usize> {
        sys::send(self.tcp.as_fd(), slices, flags)
    }

    /// Receives, with flags of the kernel's.
    pub(crate) fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        flags: c_int,
    ) -> io::Result<usize> {
        sys::receive(self.tcp.as_fd(), buffers, flags)
    }

    pub(crate) fn send_urgent(&self, bytes: &[u8]) -> io::Result<usize> {
        sys::send_urgent(self.tcp.as_fd(), bytes)
    }

    pub(crate) fn receive_urgent(&self) -> io::Result<u8> {
        sys::receive_urgent(self.tcp.as_fd())
    }

    pub(crate) fn at_mark(&self) -> io::Result<bool> {
        sys::is_at_mark(self.tcp.as_fd())
    }

    pub(crate) fn set_oob_inline(&self, on: bool) -> io::Result<()> {
        sys::set_oob_inline(self.tcp.as_fd(), on)
    }

    pub(crate) fn oob_inline(&self) -> io::Result<bool> {
        sys::oob_inline(self.tcp.as_fd())
    }

    pub(crate) fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        sys::set_linger(self.tcp.as_fd(), time)
    }

    pub(crate) fn linger(&self) -> io::Result<Option<Duration>> {
        sys::linger(self.tcp.as_fd())
    }

    /// Ends sending and waits until the kernel has an acknowledgement for everything.
    pub(crate) fn close(&self) -> io::Result<()> {
        match self.tcp.shutdown(Shutdown::Both) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
            result => result?,
        }
        let linger = self.linger()?;
        let waited = self.wait_until_sent(linger.unwrap_or(CLOSE_TIME));
        // Else the last close(2) of the socket would wait as long once more.
        if linger.is_some_and(|time| !time.is_zero()) {
            self.set_linger(None)?;
        }
        waited
    }

    fn wait_until_sent(&self, time: Duration) -> io::Result<()> {
        let deadline = sys::deadline_after(time);
        while sys::unsent(self.tcp.as_fd())? > 0 {
            if deadline.is_some_and(|end| end <= std::time::Instant::now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Some(error) = self.tcp.take_error()? {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sys::PollFd;

    fn pair() -> (KernelStream, KernelStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let two = listener.accept().unwrap().0;
        (KernelStream::new(one, None), KernelStream::new(two, None))
    }

    fn is_ready(stream: &KernelStream, time: Duration) -> bool {
        let mut fds = [PollFd::readable(stream.descriptor())];
        sys::wait(&mut fds, sys::deadline_after(time)).unwrap() > 0
    }

    #[test]
    fn the_descriptor_tells_of_data_and_of_room() {
        let (one, two) = pair();
        one.tcp().set_nonblocking(true).unwrap();
        let mut byte = [0];
        assert!(one.reading(|mut tcp| tcp.read(&mut byte)).is_err());
        assert!(!is_ready(&one, Duration::ZERO));
        two.tcp().write_all(b"x").unwrap();
        assert!(is_ready(&one, Duration::from_secs(30)));
        assert_eq!(one.reading(|mut tcp| tcp.read(&mut byte)).unwrap(), 1);
        assert!(!is_ready(&one, Duration::ZERO));
        let full = vec![0; 1 << 20];
        while one.writing(|stream| stream.tcp().write(&full)).is_ok() {}
        assert!(!is_ready(&one, Duration::ZERO));
        let reader = std::thread::spawn(move || {
            let mut room = vec![0; 1 << 20];
            while two.tcp().read(&mut room).unwrap() > 0 {}
        });
        assert!(is_ready(&one, Duration::from_secs(30)));
        assert!(one.writing(|stream| stream.tcp().write(b"y")).is_ok());
        one.close().unwrap();
        reader.join().unwrap();
    }

    /// What the kernel watches the socket for in the set.
    fn watched(stream: &KernelStream) -> u32 {
        let set = stream.set.get().unwrap().as_fd().as_raw_fd();
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{set}")).unwrap();
        let (_, events) = about.split_once("events:").unwrap();
        let word = events.split_whitespace().next().unwrap();
        u32::from_str_radix(word, 16).unwrap()
    }

    const ROOM: u32 = libc::EPOLLOUT as u32;

    /// A write that finds no room.
    fn find_no_room(stream: &KernelStream) {
        let none = io::ErrorKind::WouldBlock;
        stream.writing(|_| Err::<(), _>(none.into())).unwrap_err();
    }

    #[test]
    fn a_write_that_began_before_another_found_no_room_leaves_that_ones_wish() {
        let (one, _two) = pair();
        find_no_room(&one);
        one.descriptor();
        assert_eq!(watched(&one) & ROOM, ROOM);
        let done = one.writing(|one| {
            // Another thread's, meanwhile.
            find_no_room(one);
            Ok(1)
        });
        assert_eq!(done.unwrap(), 1);
        assert_eq!(watched(&one) & ROOM, ROOM);
        one.writing(|_| Ok(1)).unwrap();
        assert_eq!(watched(&one) & ROOM, 0);
    }

    #[test]
    fn the_set_is_made_by_one_thread_while_another_finds_no_room() {
        let (shared, _two) = pair();
        for _ in 0..300 {
            let one = KernelStream::new(shared.tcp().try_clone().unwrap(), None);
            let together = std::sync::Barrier::new(3);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        together.wait();
                        find_no_room(&one);
                    });
                }
                together.wait();
                one.descriptor();
            });
            assert_eq!(watched(&one) & ROOM, ROOM);
        }
    }

    #[test]
    fn a_close_that_has_lingered_leaves_nothing_to_linger_for() {
        let (one, _two) = pair();
        one.tcp().set_nonblocking(true).unwrap();
        let full = vec![0; 1 << 20];
        while one.writing(|stream| stream.tcp().write(&full)).is_ok() {}
        one.set_linger(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(
            one.close().unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "the peer reads nothing"
        );
        assert_eq!(one.linger().unwrap(), None);
    }

    #[test]
    fn urgent_data_travels_apart_or_in_line() {
        let (one, two) = pair();
        assert!(two.receive_urgent().is_err());
        assert_eq!(one.send_urgent(b"abc").unwrap(), 3);
        let mut out = [0; 8];
        let mut seen = 0;
        while seen < 2 {
            seen += two.reading(|mut tcp| tcp.read(&mut out[seen..])).unwrap();
        }
        assert_eq!(&out[..2], b"ab");
        assert!(two.at_mark().unwrap());
        assert_eq!(two.receive_urgent().unwrap(), b'c');
        assert!(!two.oob_inline().unwrap());
        two.set_oob_inline(true).unwrap();
        assert!(two.oob_inline().unwrap());
        two.set_linger(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(two.linger().unwrap(), Some(Duration::from_secs(3)));
        two.set_linger(None).unwrap();
        assert_eq!(two.linger().unwrap(), None);
    }
}
