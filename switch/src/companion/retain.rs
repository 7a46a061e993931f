//! Going on over TCP when the SAN was lost.
//!
//! The session that carries a connection in both directions has failed, and the kernel's connection
//! is alive. Each end takes what has arrived over the SAN and says on TCP up to which byte that was:
//! a *Resume* of the session protocol. From there the other end sends again what it has kept
//! ([`crate::conn::Kept`]), and then goes on with the kernel.
//!
//! Only where nothing else is under way: both directions have gone over, both markers are behind
//! them, and nobody has ended, closed, left or suspended anything. Whoever is not at that point
//! resets both paths, and the end that is there learns of it instead of a Resume. So the bytes of a
//! Resume are never next on TCP for an end that takes what comes there for the application's.
//!
//! Owns how far that is. Invariants: between the markers and the peer's Resume nothing but a Resume
//! is received from TCP, here and nowhere else; nothing but the own Resume, and then what is sent
//! again, is sent before what the application sends next; no step waits.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wsd_proto::Resume;

use super::state::{BETWEEN, BROKEN, Core, KERNEL, SAN, Stage, TAKEN};
use super::{Companion, Reason, kernel, service};
use crate::conn::{Connection, Kept, Lingering};

/// For the peer, which has to find the loss, too.
const TIME: Duration = Duration::from_secs(30);
/// The cut, in front of the application's bytes on the SAN.
const CUT: u64 = 8;

/// A session that was lost, until the kernel has taken over and what had arrived was read.
pub(super) struct Lost {
    connection: Arc<Connection>,
    /// What it leaves was taken.
    taken: bool,
    /// What has come of the peer's Resume.
    ahead: Vec<u8>,
    /// Where this end's stream went over.
    cut: u64,
    kept: Kept,
    /// The peer's Resume has come.
    heard: bool,
    until: Instant,
    /// The end of the process waits for it.
    _lingering: Option<Lingering>,
}

impl Core {
    /// Whether the peer's Resume is to come before anything else.
    pub(super) fn awaits_resume(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| !lost.heard)
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl Companion {
    /// If the session has failed: `true` if the connection goes on all the same.
    pub(super) fn lose(&self, core: &mut Core) -> bool {
        if core.lost.is_some() {
            return true;
        }
        let Some(connection) = core.connection.clone() else {
            return false;
        };
        if connection.failed().is_none() {
            return false;
        }
        if self.tx.phase() == SAN {
            // An application that only sends has left it where it is.
            self.fetch_marker(core, true);
        }
        let whole = self.rx.phase() == SAN && self.tx.phase() == SAN && !core.owes();
        let quiet = core.stage == Stage::Up
            && core.hand.is_none()
            && core.parting.is_none()
            && !(core.closed || core.held || core.write_shut || core.read_shut || core.back)
            && !self.poisoned.load(Ordering::SeqCst);
        let Some(cut) = core.tx_cut.filter(|_| whole && quiet) else {
            return false;
        };
        if !connection.can_resume() {
            return false;
        }
        tracing::debug!("the SAN was lost: TCP goes on");
        self.set_reason(Reason::SanError);
        connection.attend(None);
        core.connection = None;
        core.lost = Some(Lost {
            connection,
            taken: false,
            ahead: Vec::new(),
            cut,
            kept: Kept::default(),
            heard: false,
            until: Instant::now() + TIME,
            _lingering: None,
        });
        self.tx.phase.store(BETWEEN, Ordering::SeqCst);
        self.rx_to(TAKEN);
        service::need_weak(self.me.clone());
        self.resume(core);
        true
    }

    /// The session has failed, and this end does not go on: the peer, which may wait for a Resume, is
    /// told so, though the application may not ask for long.
    pub(super) fn tell_loss(&self, core: &Core) {
        let whole = self.rx.phase() == SAN && self.tx.phase() == SAN && !core.owes();
        let failed = |connection: &Arc<Connection>| connection.failed().is_some();
        if whole
            && core.connection.as_ref().is_some_and(failed)
            && let Some(tcp) = &core.tcp
        {
            // What has arrived over the SAN is still to be read.
            kernel::reset(tcp.as_raw_fd());
        }
    }

    /// Does what is to be done now, after a loss; `true` if there was one.
    pub(super) fn resume(&self, core: &mut Core) -> bool {
        if core.lost.is_none() {
            return false;
        }
        if let Err(error) = self.try_to_resume(core) {
            tracing::debug!(%error, "the SAN was lost, and TCP does not go on");
            self.break_off(core);
        }
        true
    }

    fn try_to_resume(&self, core: &mut Core) -> io::Result<()> {
        self.take_legacy(core)?;
        if core.owes() {
            self.write_marker(core);
        }
        self.take_resume(core)?;
        let owes = core.owes();
        let Some(lost) = &core.lost else {
            return Ok(());
        };
        if !lost.heard {
            return match Instant::now() > lost.until {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => Ok(()),
            };
        }
        if self.rx.phase() == TAKEN {
            self.rx_to(KERNEL);
        }
        // What had arrived and was not read cannot be given back any more.
        if !owes && core.leftover.is_empty() {
            core.lost = None;
            core.end_due |= core.closed;
            self.session_over(core);
            if core.closed {
                core.stage = Stage::Never;
            }
        }
        Ok(())
    }

    /// Takes what the session has received, and what it leaves to be sent again, as soon as no call
    /// of the application is at it, and says up to where that was.
    fn take_legacy(&self, core: &mut Core) -> io::Result<()> {
        let session_id = core.session();
        let Some(lost) = &mut core.lost else {
            return Ok(());
        };
        // Who becomes busy after this finds another phase.
        let calls = self.rx.busy.load(Ordering::SeqCst) + self.tx.busy.load(Ordering::SeqCst);
        if lost.taken || calls > 0 {
            return Ok(());
        }
        let (bytes, offset) = lost.connection.take_arrived().ok_or_else(invalid)?;
        lost.kept = lost.connection.take_kept();
        lost.taken = true;
        self.rx.count_san(bytes.len());
        core.leftover.extend(bytes);
        if !core.leftover.is_empty() {
            self.rx_to(BETWEEN);
        }
        let block = Resume { offset, session_id };
        core.marker_out.extend(block.encode());
        Ok(())
    }

    /// Takes the peer's Resume from the kernel, and not a byte more.
    fn take_resume(&self, core: &mut Core) -> io::Result<()> {
        let session = core.session();
        loop {
            let (Some(lost), Some(tcp)) = (&mut core.lost, &core.tcp) else {
                return Ok(());
            };
            if lost.heard || !lost.taken {
                return Ok(());
            }
            let mut room = [0; Resume::LEN];
            let place = room.get_mut(lost.ahead.len()..).unwrap_or_default();
            if place.is_empty() {
                let block = Resume::parse(&lost.ahead).map_err(|_| invalid())?;
                if block.session_id != session {
                    return Err(invalid());
                }
                return self.hear(core, block.offset);
            }
            match kernel::receive_into(tcp.as_raw_fd(), place, libc::MSG_DONTWAIT) {
                // The end, and yet more was to come.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let bytes = place.get(..count).unwrap_or_default();
                    lost.ahead.extend_from_slice(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    // req: COMP-04
    /// The peer has received so much of this end's stream on the SAN: the rest is sent again.
    fn hear(&self, core: &mut Core, received: u64) -> io::Result<()> {
        let Some(lost) = &mut core.lost else {
            return Ok(());
        };
        let total = self.tx.total.load(Ordering::SeqCst);
        let sent = total.checked_sub(lost.cut).ok_or_else(invalid)?;
        // The peer could not be here without the cut.
        if !(CUT..=sent + CUT).contains(&received) {
            return Err(invalid());
        }
        let kept = std::mem::take(&mut lost.kept);
        let again = kept.between(received, sent + CUT).ok_or_else(invalid)?;
        lost.heard = true;
        core.marker_out.extend(again);
        self.write_marker(core);
        Ok(())
    }

    /// What had arrived before a loss was read. `false` if there was none.
    pub(super) fn legacy_read(&self, core: &mut Core) -> bool {
        let Some(lost) = &core.lost else {
            return false;
        };
        self.rx_to(if lost.heard { KERNEL } else { TAKEN });
        self.resume(core);
        true
    }

    /// Whether unread bytes of a lost session keep the connection from going to somebody else: they
    /// are in this process only, and the peer cannot send them again.
    pub(super) fn is_stranded(&self, core: &Core) -> bool {
        (core.lost.is_some() || self.rx.phase() == BROKEN) && !core.leftover.is_empty()
    }

    /// The application has closed, or the process ends: what was sent is still sent again. `false`
    /// if there is nothing of that.
    pub(super) fn part_lost(&self, core: &mut Core) -> bool {
        let unread = !core.leftover.is_empty();
        let Some(lost) = &mut core.lost else {
            return false;
        };
        core.shadow = None;
        if unread || !lost.taken {
            // What was not read makes the end a reset.
            self.break_off(core);
            core.tcp = None;
            return true;
        }
        lost._lingering = Some(Lingering::new());
        core.end_due = true;
        true
    }

    /// Whether the service thread has to go on looking after a loss.
    pub(super) fn is_resuming(core: &Core) -> bool {
        core.lost.as_ref().is_some_and(|lost| !lost.heard) || (core.lost.is_some() && core.owes())
    }

    /// The SAN is lost right now, without a word; for tests. `false` if there is none.
    #[doc(hidden)]
    pub fn cut_san(&self) -> bool {
        let connection = self.connection();
        connection.is_some_and(|connection| {
            connection.lose();
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::companion::{Armed, Role};

    const SESSION: [u8; 16] = [0; 16];

    /// An end that has lost its session, has said so, and has 100 bytes of its own that the peer may
    /// not have: the stream is 40 bytes of the kernel's, the cut, 200 bytes over the SAN.
    fn lost() -> (TcpStream, TcpStream, Arc<Companion>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        let companion = Companion::new(tcp.as_fd(), Role::Connected).unwrap();
        let kept: Vec<u8> = (100..200).collect();
        companion.tx.count(40);
        companion.tx.count_san(200);
        companion.tx.phase.store(BETWEEN, Ordering::SeqCst);
        companion.rx_to(TAKEN);
        let mut core = companion.core.lock();
        core.stage = Stage::Up;
        core.tcp = Some(tcp.as_fd().try_clone_to_owned().unwrap());
        core.lost = Some(Lost {
            connection: crate::conn::tests::pair().0,
            taken: true,
            ahead: Vec::new(),
            cut: 40,
            kept: Kept::of(&[(CUT + 100, &kept)]),
            heard: false,
            until: Instant::now() + TIME,
            _lingering: None,
        });
        drop(core);
        (tcp, peer, companion)
    }

    fn resume(companion: &Companion) {
        companion.resume(&mut companion.core.lock());
    }

    fn says(offset: u64) -> [u8; Resume::LEN] {
        let session_id = SESSION;
        Resume { offset, session_id }.encode()
    }

    fn until_broken(companion: &Companion) {
        let end = Instant::now() + Duration::from_secs(30);
        while companion.rx.phase() != BROKEN {
            assert!(Instant::now() < end);
            resume(companion);
        }
        assert_eq!(companion.tx.phase(), BROKEN);
        assert_eq!(companion.reason(), Reason::SanError);
    }

    #[test]
    fn what_the_peer_lacks_is_sent_again_and_nothing_behind_its_resume_is_taken() {
        for (has, again) in [(100, 100), (150, 50), (200, 0)] {
            let (mut tcp, mut peer, companion) = lost();
            // In pieces, and with the stream right behind.
            for byte in says(CUT + has) {
                resume(&companion);
                assert_eq!(companion.rx.phase(), TAKEN);
                peer.write_all(&[byte]).unwrap();
            }
            peer.write_all(b"next").unwrap();
            let end = Instant::now() + Duration::from_secs(30);
            while companion.core.lock().lost.is_some() {
                assert!(Instant::now() < end);
                resume(&companion);
            }
            assert!(companion.on_kernel());
            assert_eq!(companion.rx.phase(), KERNEL);
            let mut next = [0; 4];
            tcp.read_exact(&mut next).unwrap();
            assert_eq!(&next, b"next");
            tcp.write_all(b"!").unwrap();
            let mut room = vec![0; again + 1];
            peer.read_exact(&mut room).unwrap();
            let first = u8::try_from(200 - again).unwrap();
            let expected: Vec<u8> = (first..200).collect();
            assert_eq!(room, [&expected[..], b"!"].concat());
        }
    }

    #[test]
    fn who_waits_for_many_is_not_left_asleep_before_the_peer_has_said_anything() {
        let (_tcp, peer, companion) = lost();
        let elsewhere = |armed| matches!(armed, Armed::Socket(_));
        for (rx, tx) in [(TAKEN, BETWEEN), (BETWEEN, BETWEEN), (BETWEEN, KERNEL)] {
            companion.rx_to(rx);
            companion.tx.phase.store(tx, Ordering::SeqCst);
            assert!(elsewhere(companion.enlist().map(|_| ()).unwrap_err()));
            assert!(elsewhere(companion.arm()));
        }
        companion.rx_to(TAKEN);
        drop(peer);
        until_broken(&companion);
        assert_eq!(companion.arm(), Armed::Nothing);
    }

    #[test]
    fn nothing_is_readable_before_it_can_be_read() {
        let (_tcp, mut peer, companion) = lost();
        {
            // A call of the application's is at the session.
            let mut core = companion.core.lock();
            core.lost.as_mut().unwrap().taken = false;
            companion.tx.busy.store(1, Ordering::SeqCst);
        }
        peer.write_all(&says(CUT + 200)).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while kernel::unread(companion.number) < Resume::LEN {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
        assert_eq!(companion.bits() & libc::POLLIN, 0);
        assert_eq!(companion.ioctl_fionread(), Some(0));
        assert_eq!(companion.rx.phase(), TAKEN);
        companion.tx.busy.store(0, Ordering::SeqCst);
    }

    #[test]
    fn what_had_arrived_is_read_before_what_the_kernel_has() {
        let (_tcp, mut peer, companion) = lost();
        companion.core.lock().leftover.extend([1, 2]);
        companion.rx_to(BETWEEN);
        peer.write_all(&says(CUT + 200)).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while companion.core.lock().awaits_resume() {
            assert!(Instant::now() < end);
            resume(&companion);
        }
        // Sending goes on, receiving does when that was read.
        assert_eq!(companion.tx.phase(), KERNEL);
        assert_eq!(companion.rx.phase(), BETWEEN);
        let mut core = companion.core.lock();
        assert!(companion.is_stranded(&core));
        core.leftover.clear();
        companion.leave_between(&mut core);
        assert!(core.lost.is_none() && core.stage == Stage::Idle);
        assert_eq!(companion.rx.phase(), KERNEL);
    }

    #[test]
    fn what_is_no_resume_of_this_session_breaks_it_off() {
        let mut other = says(CUT + 150);
        other[Resume::LEN - 1] ^= 1;
        let wrong = [
            // Another session's; the application's bytes; what was never sent; what is not kept.
            other,
            [b'x'; Resume::LEN],
            says(CUT + 201),
            says(CUT + 99),
            says(CUT - 1),
        ];
        for bytes in wrong {
            let (_tcp, mut peer, companion) = lost();
            peer.write_all(&bytes).unwrap();
            until_broken(&companion);
            // A reset: the peer does not take it for the end.
            assert!(peer.read(&mut [0]).is_err());
        }
    }

    #[test]
    fn an_end_or_nothing_at_all_instead_of_a_resume_breaks_it_off() {
        let (_tcp, mut peer, companion) = lost();
        peer.write_all(&says(CUT + 150)[..47]).unwrap();
        drop(peer);
        until_broken(&companion);
        let (_tcp, _peer, companion) = lost();
        if let Some(lost) = &mut companion.core.lock().lost {
            lost.until = Instant::now();
        }
        until_broken(&companion);
    }
}
