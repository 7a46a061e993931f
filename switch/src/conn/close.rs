//! The end of a connection: half closes, closing with or without waiting, resets.
//!
//! A closed stream is looked after by the service thread until what it has accepted is with the
//! peer, but not for more than two minutes. As with TCP, data that nobody has read makes a close a reset.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use wsd_proto::ResetReason;

use super::drive::{Ending, State};
use super::service::Lingering;
use super::wait::Patience;
use super::{Connection, errno, failure};

/// How long a close that waits does so if the application has not said.
const CLOSE_TIME: Duration = Duration::from_secs(30);

impl Connection {
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut state = self.lock();
        if state.closed {
            self.leave(state);
            return Err(errno(libc::ENOTCONN));
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            shut_sending(&mut state);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            state.session.shutdown_receive();
            state.discard();
        }
        state.drain(&self.socket, None);
        state.activity = true;
        self.leave(state);
        Ok(())
    }

    /// Closes without waiting, unless the application wants to linger.
    pub(crate) fn close_in_background(&self) {
        let linger = self.begin_close();
        if let Some(time) = linger.filter(|time| !time.is_zero()) {
            drop(self.wait_closed(time));
        }
    }

    /// Closes and waits until the peer has everything.
    pub(crate) fn close(&self) -> io::Result<()> {
        let linger = self.begin_close();
        self.wait_closed(linger.unwrap_or(CLOSE_TIME))
    }

    fn begin_close(&self) -> Option<Duration> {
        let mut state = self.lock();
        let linger = state.settings.linger;
        if state.settings.closing {
            self.leave(state);
            return linger;
        }
        while state.session.unread() == 0 && state.poll(&self.socket, None) {}
        state.settings.closing = true;
        let now = state.now();
        if linger == Some(Duration::ZERO) || state.session.unread() > 0 {
            state.session.abort(now, ResetReason::Aborted);
            state.discard();
        } else {
            // The peer is told at once that nobody reads any more; of the end, when all that it is
            // to get is with the session.
            if state.outbox.unhanded() > 0 {
                state.session.shutdown_receive();
                state.discard();
            }
            state.end_sending(Ending::Close);
        }
        state.drain(&self.socket, None);
        if state.session.is_finished() {
            state.disconnect(&self.socket);
        } else if !state.is_flushed() {
            state.lingering = Some(Lingering::new());
        }
        state.activity = true;
        self.leave(state);
        linger
    }

    fn wait_closed(&self, time: Duration) -> io::Result<()> {
        let waited = self.block(Patience::For(Some(time)), |state, socket, _| {
            while state.poll(socket, None) {}
            state.tick(socket);
            if state.session.is_finished() {
                state.disconnect(socket);
                state.lingering = None;
                return Some(
                    state
                        .session
                        .failure()
                        .map_or(Ok(()), |reason| Err(failure(reason))),
                );
            }
            None
        });
        match waited {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut state = self.lock();
                let now = state.now();
                state.session.abort(now, ResetReason::Aborted);
                state.drain(&self.socket, None);
                state.disconnect(&self.socket);
                state.drain(&self.socket, None);
                state.lingering = None;
                self.leave(state);
                Err(io::ErrorKind::TimedOut.into())
            }
            waited => waited,
        }
    }
}

fn shut_sending(state: &mut State) {
    if !state.settings.write_shut {
        state.end_sending(Ending::Shutdown);
    }
}
