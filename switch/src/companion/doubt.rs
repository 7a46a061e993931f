//! Bytes that were taken from the kernel and may be the beginning of the peer's marker.
//!
//! A receive from before the guard gets whatever comes. What it got last may be the first part of
//! the marker, or bytes of the application's that look like it. It must not wait until that is
//! known: the peer may have to get rid of more before it can tell. So these bytes are kept; they
//! are not counted, and not the application's, until the position of the cut or what follows them
//! says what they are. Invariant: bytes in doubt come, in the stream, right before what the kernel
//! has next.

use std::os::fd::AsRawFd;

use super::marker::{MARKER, find_marker, marker};
use super::state::{BETWEEN, Core, GUARDED, KERNEL, Stage};
use super::{Companion, kernel, service};

impl Companion {
    /// Decides about bytes in doubt, if that is possible now. Those of the application are there
    /// to be read then, and the guard goes on when they were.
    pub(super) fn resolve_doubt(&self, core: &mut Core) {
        let have = core.doubtful().len();
        // A whole one is no other bytes.
        if have == 0 || have == MARKER || self.rx.phase() != GUARDED {
            return;
        }
        let own = match self.left(core) {
            Some(left) => have.min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => match core.tcp.as_ref().map(AsRawFd::as_raw_fd) {
                Some(fd) => own_bytes(core.doubtful(), fd, &marker(core.session())),
                None => 0,
            },
        };
        if own > 0 {
            self.give_back(core, own);
            core.guard_goes_on = true;
            self.rx_to(BETWEEN);
        }
    }

    /// So many bytes that the kernel has next look like the beginning of the marker. They are taken:
    /// one byte that stays can keep the kernel's window shut, and then nothing follows it.
    pub(super) fn take_into_doubt(&self, core: &mut Core, fd: libc::c_int, count: usize) {
        let mut room = [0; MARKER];
        let room = room.get_mut(..count).unwrap_or_default();
        if let Ok(count) = kernel::receive_into(fd, room, libc::MSG_DONTWAIT) {
            core.put_doubtful(room.get(..count).unwrap_or_default());
        }
    }

    /// Whether the marker may come, though bytes that are not its may have to be read first.
    pub(super) fn is_guarded(&self, core: &Core) -> bool {
        match self.rx.phase() {
            GUARDED => true,
            BETWEEN => core.guard_goes_on,
            _ => false,
        }
    }

    /// No marker comes any more: what was in doubt is the application's.
    pub(super) fn end_guard(&self, core: &mut Core) {
        let have = core.doubtful().len();
        if have == MARKER {
            // There was one, and yet nothing goes over.
            return self.break_off(core);
        }
        if have > 0 {
            self.give_back(core, have);
        }
        core.guard_goes_on = false;
        // What was taken early comes first.
        self.rx_to(match core.leftover.is_empty() {
            true => KERNEL,
            false => BETWEEN,
        });
    }

    fn give_back(&self, core: &mut Core, count: usize) {
        let bytes: Vec<u8> = core.take_doubtful(count);
        self.rx.count(bytes.len());
        core.leftover.extend(bytes);
    }

    /// What was taken early has been read.
    pub(super) fn leave_between(&self, core: &mut Core) {
        if self.legacy_read(core) {
            return;
        }
        let goes_on = std::mem::take(&mut core.guard_goes_on);
        let session = core.connection.is_some() || core.stage == Stage::Joining;
        if goes_on && session {
            self.rx_to(GUARDED);
            service::need_weak(self.me.clone());
        } else {
            self.rx_to(KERNEL);
        }
    }
}

/// How many of the bytes in doubt cannot be the marker's, by what the kernel has behind them.
fn own_bytes(doubtful: &[u8], fd: libc::c_int, marker: &[u8; MARKER]) -> usize {
    let mut room = [0; MARKER];
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    match kernel::receive_into(fd, &mut room, flags) {
        // The end of the stream.
        Ok(0) => doubtful.len(),
        Ok(count) => {
            let next = room.get(..count).unwrap_or_default();
            own_part(doubtful, next, marker)
        }
        // Nothing follows yet.
        Err(_) => 0,
    }
}

fn own_part(doubtful: &[u8], next: &[u8], marker: &[u8; MARKER]) -> usize {
    let joined: Vec<u8> = doubtful.iter().chain(next).copied().collect();
    find_marker(&joined, marker).map_or(doubtful.len(), |at| at.min(doubtful.len()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::companion::Role;
    use crate::companion::state::SAN;

    #[test]
    fn what_follows_tells_whose_bytes_in_doubt_are() {
        let mut session = [9; 16];
        // The marker's first byte in its middle.
        session[3] = 0xF7;
        let marker = marker(session);
        for split in 1..MARKER {
            let (doubtful, next) = marker.split_at(split);
            assert_eq!(own_part(doubtful, next, &marker), 0, "{split}");
            assert_eq!(own_part(doubtful, &next[..1], &marker), 0, "{split}");
            assert_eq!(own_part(doubtful, &[0; 8], &marker), split, "{split}");
        }
        // It begins in the last of the bytes in doubt.
        let (doubtful, next) = (&marker[..12], &marker[1..]);
        assert_eq!(doubtful[11], 0xF7);
        assert_eq!(own_part(doubtful, next, &marker), 11);
    }

    #[test]
    fn doubt_that_is_resolved_before_the_session_is_known_to_be_there_does_not_end_the_guard() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let (ours, theirs) = crate::conn::tests::pair();
        let companion = Companion::new(tcp.as_fd(), Role::Connected).unwrap();
        let fd = tcp.as_raw_fd();
        {
            let mut core = companion.core.lock();
            core.stage = Stage::Seeking;
            core.tcp = Some(tcp.as_fd().try_clone_to_owned().unwrap());
        }
        assert!(companion.admit(ours.session_id()));
        let early = || companion.receive_early(fd, &mut [0; 100]).unwrap();
        peer.write_all(&[0xF7]).unwrap();
        while companion.core.lock().doubtful().is_empty() {
            assert_eq!(early(), None);
        }
        // The peer knows of the session first and goes over at once.
        peer.write_all(&marker(ours.session_id())).unwrap();
        while companion.rx.phase() == GUARDED {
            companion.resolve_doubt(&mut companion.core.lock());
        }
        companion.joined(Ok(ours));
        theirs.write(&1_u64.to_le_bytes()).unwrap();
        {
            // As a receive of the application's does.
            let mut core = companion.core.lock();
            assert_eq!(core.leftover.drain(..).collect::<Vec<_>>(), [0xF7]);
            companion.leave_between(&mut core);
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while companion.rx.phase() != SAN {
            assert!(companion.rx.phase() == GUARDED && std::time::Instant::now() < end);
            assert_eq!(early(), None);
        }
        companion.close(fd);
    }
}
