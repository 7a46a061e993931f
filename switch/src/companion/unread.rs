//! How much the application would find, without taking it.
//!
//! Invariant: a marker, or what may become one, is never counted: who was told of a byte finds it.

use std::os::fd::{AsRawFd, RawFd};

use super::marker::{find_marker, marker};
use super::state::{BETWEEN, BROKEN, Core, GUARDED, SAN, TAKEN};
use super::{Companion, kernel};

impl Companion {
    /// FIONREAD, if the kernel's answer would not be the truth.
    pub fn ioctl_fionread(&self) -> Option<usize> {
        loop {
            match self.rx.phase() {
                SAN => {
                    let connection = self.carrier(&self.rx)?;
                    connection.fetch_ahead();
                    connection.look();
                    self.tell_used();
                    return usize::try_from(connection.unread()).ok();
                }
                phase @ (BETWEEN | GUARDED) => {
                    let mut core = self.core.lock();
                    if let Some(count) = self.unread_before_marker(&mut core, phase) {
                        return Some(count);
                    }
                    drop(core);
                    // A cut, or bytes that were in doubt, have just been told of.
                    self.moved();
                }
                TAKEN => return Some(0),
                BROKEN => return Some(self.core.lock().leftover.len()),
                _ => return None,
            }
        }
    }

    /// What was taken early, and what the kernel has of the application's. `None`: the phase is
    /// another one.
    fn unread_before_marker(&self, core: &mut Core, phase: u8) -> Option<usize> {
        if phase == GUARDED {
            self.learn_cut(core);
            self.resolve_doubt(core);
        }
        if self.rx.phase() != phase {
            return None;
        }
        // Nothing of a Resume is the application's.
        let kernel = match core.awaits_resume() {
            true => 0,
            false => self.kernels_part(core),
        };
        Some(core.leftover.len() + kernel)
    }

    fn kernels_part(&self, core: &Core) -> usize {
        let fd = core.tcp.as_ref().map_or(self.number, AsRawFd::as_raw_fd);
        let unread = kernel::unread(fd);
        if !self.is_guarded(core) {
            return unread;
        }
        match self.left(core) {
            Some(left) => unread.min(usize::try_from(left).unwrap_or(usize::MAX)),
            // What follows belongs to it, or is not known yet.
            None if !core.doubtful().is_empty() => 0,
            None => before_marker(fd, unread, core.session()),
        }
    }
}

/// How many of so many bytes come before the marker, or its beginning.
fn before_marker(fd: RawFd, unread: usize, session: [u8; 16]) -> usize {
    let mut room = vec![0; unread];
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    let count = kernel::receive_into(fd, &mut room, flags).unwrap_or(0);
    let seen = room.get(..count).unwrap_or_default();
    find_marker(seen, &marker(session)).unwrap_or(count)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::Role;
    use super::super::marker::MARKER;
    use super::super::state::Stage;
    use super::*;

    /// A connection whose peer may have written its marker at any time, and that peer.
    fn guarded() -> (
        Arc<Companion>,
        TcpStream,
        TcpStream,
        Arc<crate::conn::Connection>,
    ) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        let companion = Companion::new(tcp.as_fd(), Role::Connected).unwrap();
        let (ours, theirs) = crate::conn::tests::pair();
        {
            let mut core = companion.core.lock();
            core.stage = Stage::Seeking;
            core.tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
        }
        assert!(companion.admit(ours.session_id()));
        companion.joined(Ok(ours));
        (companion, tcp, peer, theirs)
    }

    fn until_there(tcp: &TcpStream, bytes: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while kernel::unread(tcp.as_raw_fd()) < bytes {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
    }

    fn session(companion: &Companion) -> [u8; 16] {
        companion.core.lock().session()
    }

    #[test]
    fn a_marker_is_not_counted_whether_or_not_the_san_has_told_of_it() {
        for told in [false, true] {
            for part in 1..=MARKER {
                let (companion, tcp, mut peer, theirs) = guarded();
                if told {
                    theirs.write(&5_u64.to_le_bytes()).unwrap();
                }
                peer.write_all(b"bytes").unwrap();
                let marker = marker(session(&companion));
                peer.write_all(&marker[..part]).unwrap();
                until_there(&tcp, 5 + part);
                let early = |room: &mut [u8]| companion.receive_early(tcp.as_raw_fd(), room);
                assert_eq!(companion.ioctl_fionread(), Some(5), "{told} {part}");
                assert_eq!(early(&mut [0; 2]).unwrap(), Some(2));
                assert_eq!(companion.ioctl_fionread(), Some(3), "{told} {part}");
                assert_eq!(early(&mut [0; 3]).unwrap(), Some(3));
                assert_eq!(companion.ioctl_fionread(), Some(0), "{told} {part}");
                // A receive may take what is there of it.
                assert_eq!(early(&mut [0; 9]).unwrap(), None);
                assert_eq!(companion.ioctl_fionread(), Some(0), "{told} {part}");
                companion.close(tcp.as_raw_fd());
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_marker_is_counted() {
        let (companion, mut tcp, mut peer, _theirs) = guarded();
        let mut bytes = marker(session(&companion)).to_vec();
        bytes[MARKER - 1] ^= 1;
        peer.write_all(&bytes).unwrap();
        until_there(&tcp, MARKER);
        assert_eq!(companion.ioctl_fionread(), Some(MARKER));
        let mut room = [0; MARKER];
        tcp.read_exact(&mut room).unwrap();
        assert_eq!(room[..], bytes);
        companion.close(tcp.as_raw_fd());
    }
}
