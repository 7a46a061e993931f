//! Those who sleep for a connection by ways of their own: with a descriptor among others, in a poll
//! set, without a place among the waiters.
//!
//! Owns what they sleep on: a poll set of the provider's descriptor and an event of ours. The
//! provider's alone would not do, since any thread that arms resets it, between its signal and the
//! sleeper's look. Invariant: what happens after [`Connection::arm_for_news`] has given the
//! descriptor makes it readable, and it stays so until somebody prepares for sleep again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use super::Connection;
use super::drive::State;
use super::wait::Armed;
use crate::sys::{Event, PollSet};

/// What outsiders sleep on, made at the first use.
#[derive(Default)]
pub(super) struct Outside {
    made: OnceLock<Made>,
}

struct Made {
    set: PollSet,
    event: Event,
}

/// What is known of outsiders. Under the connection's lock.
#[derive(Clone, Copy, Default)]
pub(super) struct Outsiders {
    /// Somebody may be asleep.
    armed: bool,
    /// Something has happened since the last preparation for sleep.
    news: bool,
    /// The event is set.
    rung: bool,
}

#[cfg(test)]
impl Outsiders {
    pub(super) fn is_rung(&self) -> bool {
        self.rung
    }
}

impl Outside {
    fn get(&self, provider: BorrowedFd<'_>) -> io::Result<&Made> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let (set, event) = (PollSet::new()?, Event::new()?);
        set.add(event.as_fd())?;
        set.add(provider)?;
        Ok(self.made.get_or_init(|| Made { set, event }))
    }

    #[cfg(test)]
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.made.get().map(|made| made.set.as_fd())
    }

    /// Something has happened.
    #[inline]
    pub(super) fn tell(&self, outsiders: &mut Outsiders) {
        outsiders.news = true;
        if outsiders.armed
            && let Some(made) = self.made.get()
        {
            outsiders.armed = false;
            outsiders.rung = true;
            made.event.set();
        }
    }
}

impl Connection {
    /// As `settle`, by an outsider who is looking: what is new needs no ring, for it has seen it.
    pub(super) fn settle_from_outside(&self, state: &mut State) {
        if std::mem::take(&mut state.activity) {
            state.outsiders.armed = false;
            state.waiters.tell_others(None);
        }
    }

    /// Prepares for sleep: the descriptor that becomes readable at news, always the same one, or
    /// `None` if there may be news since the last preparation, or will be none any more.
    pub(crate) fn arm_for_news(&self) -> Option<RawFd> {
        let mut state = self.lock();
        let armed = self.arm_outside(&mut state);
        self.leave(state);
        armed
    }

    fn arm_outside(&self, state: &mut State) -> Option<RawFd> {
        // The event stays set until somebody is armed again: it may be another who sleeps.
        if std::mem::take(&mut state.outsiders.news) {
            return None;
        }
        match self.arm(state) {
            Armed::Descriptor(provider) => {
                let sleep_on = match self.outside.get(provider) {
                    Ok(made) => made.set.as_fd().as_raw_fd(),
                    Err(error) => {
                        tracing::debug!(%error, "the provider's descriptor has to do");
                        provider.as_raw_fd()
                    }
                };
                let outsiders = &mut state.outsiders;
                outsiders.armed = true;
                if std::mem::take(&mut outsiders.rung)
                    && let Some(made) = self.outside.made.get()
                {
                    made.event.reset();
                }
                Some(sleep_on)
            }
            Armed::News | Armed::Closed => None,
        }
    }
}
