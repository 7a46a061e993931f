//! The end of a connection whose peer may still write its marker.
//!
//! A marker that comes to a kernel socket that is closed, or that nobody has read, is an answer with
//! a reset, which takes from the peer what it has not received yet. So the socket of a closed
//! connection whose receiving direction is guarded is kept until that is over: the sending
//! direction ends at once, the marker is taken by the service thread, and then both paths are
//! closed. Invariant: what the application had not read makes the end a reset, as with TCP, but the
//! marker is not the application's.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::c_int;

use super::marker::{MARKER, marker};
use super::state::{BETWEEN, BROKEN, Core, GUARDED, SAN, Stage};
use super::{Companion, kernel};
use crate::conn::Lingering;

/// For the peer to write its marker, or to end the session.
const PATIENCE: Duration = Duration::from_secs(30);

/// A closed connection whose guard goes on.
pub(super) struct Parting {
    /// The end of the process waits for it.
    _lingering: Lingering,
    until: Instant,
}

/// What the kernel has next for a closed connection.
enum Ahead {
    /// Nothing, or what may be the marker.
    Wait,
    /// Nothing comes any more.
    End,
    /// Something of the application's.
    Unread,
}

impl Companion {
    /// The application closes: `true` if the peer's marker is to be waited for.
    pub(super) fn part_later(&self, core: &mut Core) -> bool {
        let due = self.rx.phase() == GUARDED && matches!(core.stage, Stage::Joining | Stage::Up);
        if !due || core.tcp.is_none() {
            return false;
        }
        core.parting = Some(Parting {
            _lingering: Lingering::new(),
            until: Instant::now() + PATIENCE,
        });
        if core.stage == Stage::Up {
            core.stage = Stage::Never;
        }
        core.shadow = None;
        self.end_sending(core);
        true
    }

    /// Nothing more is sent, by either path.
    fn end_sending(&self, core: &mut Core) {
        let shuts = match core.connection.clone() {
            Some(connection) if self.tx.phase() == SAN => {
                drop(connection.shutdown(std::net::Shutdown::Write));
                self.tx.phase.store(BROKEN, Ordering::SeqCst);
                self.reset_told.store(true, Ordering::SeqCst);
                // The end comes behind the marker.
                self.write_marker(core)
            }
            Some(_) => {
                self.suspend(core);
                // At the end of the process other threads may be sending; the kernel does the rest.
                !core.owes() && !self.leaving.load(Ordering::SeqCst)
            }
            None => !self.leaving.load(Ordering::SeqCst),
        };
        if shuts && let Some(tcp) = &core.tcp {
            drop(kernel::shutdown(tcp.as_raw_fd(), libc::SHUT_WR));
        }
        core.end_due = !shuts && core.owes();
    }

    /// There is a session by now.
    pub(super) fn part_joined(&self, core: &mut Core) {
        core.stage = Stage::Never;
        self.suspend(core);
    }

    /// Goes on with the end of a closed connection; `true` if there is still something to be done.
    pub(super) fn go_on_parting(&self, core: &mut Core) -> bool {
        let Some(parting) = &core.parting else {
            return false;
        };
        let late = Instant::now() >= parting.until;
        if core.owes() {
            self.write_marker(core);
        }
        if self.is_marker_due(core) && !late {
            return true;
        }
        if core.owes() && !late {
            return true;
        }
        if late {
            self.reset_at_end(core);
        }
        self.finish_parting(core);
        false
    }

    /// Takes the marker if it is there. Whether it may still come.
    fn is_marker_due(&self, core: &mut Core) -> bool {
        if self.rx.phase() != GUARDED {
            return false;
        }
        if core.stage == Stage::Joining {
            return true;
        }
        let calls = self.rx.inflight.load(Ordering::SeqCst) + self.rx.busy.load(Ordering::SeqCst);
        if calls > 0 {
            // Who receives takes it.
            return true;
        }
        self.learn_cut(core);
        self.resolve_doubt(core);
        let Some(fd) = core.tcp.as_ref().map(AsRawFd::as_raw_fd) else {
            return false;
        };
        if self.rx.phase() == BETWEEN {
            self.reset_at_end(core);
        }
        if self.rx.phase() != GUARDED {
            return false;
        }
        match self.left(core) {
            Some(0) => {
                if let Err(error) = self.take_marker(core, fd) {
                    tracing::debug!(%error, "no marker at the end");
                    return false;
                }
                self.rx.phase() == GUARDED
            }
            Some(_) => {
                self.reset_at_end(core);
                false
            }
            None => match ahead(fd, marker(core.session()).get(core.doubtful().len()..)) {
                Ahead::Wait => true,
                Ahead::End => false,
                Ahead::Unread => {
                    self.reset_at_end(core);
                    false
                }
            },
        }
    }

    /// What was not read makes the end a reset.
    fn reset_at_end(&self, core: &mut Core) {
        if let Some(connection) = core.connection.take() {
            connection.attend(None);
            connection.abort();
        }
        if let Some(tcp) = &core.tcp {
            kernel::linger_zero(tcp.as_raw_fd());
        }
        core.marker_gone();
    }

    fn finish_parting(&self, core: &mut Core) {
        // For calls of other threads.
        self.reset_told.store(true, Ordering::SeqCst);
        self.rx_to(BROKEN);
        self.tx.phase.store(BROKEN, Ordering::SeqCst);
        core.stage = Stage::Never;
        if let Some(connection) = core.connection.take() {
            connection.attend(None);
            connection.close_in_background();
        }
        core.tcp = None;
        core.parting = None;
    }
}

/// `marker` is what is still to come of it.
fn ahead(fd: c_int, marker: Option<&[u8]>) -> Ahead {
    let marker = marker.unwrap_or_default();
    let mut room = [0; MARKER];
    match kernel::receive_into(fd, &mut room, libc::MSG_DONTWAIT | libc::MSG_PEEK) {
        Ok(0) => Ahead::End,
        Ok(count) if room.get(..count) == marker.get(..count) => Ahead::Wait,
        Ok(_) => Ahead::Unread,
        Err(error) => match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ahead::Wait,
            _ => Ahead::End,
        },
    }
}
