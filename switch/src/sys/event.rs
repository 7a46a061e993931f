//! Events that can be polled for, by the numbers under which they cross the table.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::owned;

/// An event object: a manual-reset flag that can be polled for. Over the table it is the
/// descriptor's number plus one, so that null stays "no event".
#[derive(Debug)]
pub(crate) struct Event {
    fd: Arc<OwnedFd>,
}

/// The live event objects by descriptor. A number that a provider hands back is looked up here,
/// so that a wrong one is answered and never written to.
static EVENTS: Mutex<BTreeMap<RawFd, Arc<OwnedFd>>> = Mutex::new(BTreeMap::new());

/// Events that were given back. They stay open for the next user: a provider that signals late
/// only wakes somebody who looks and finds nothing.
static SPARE: Spare = Spare::new();

#[derive(Debug)]
struct Spare(Mutex<Vec<Event>>);

impl Spare {
    /// So many stay open; of many connections at once the descriptors are not kept.
    const MOST: usize = 8;

    const fn new() -> Spare {
        Spare(Mutex::new(Vec::new()))
    }

    fn take(&self) -> io::Result<Event> {
        let spare = self.0.lock().pop();
        match spare {
            Some(event) => {
                event.reset();
                Ok(event)
            }
            None => Event::new(),
        }
    }

    fn give_back(&self, event: Event) {
        let mut spare = self.0.lock();
        if spare.len() < Spare::MOST {
            spare.push(event);
        }
    }
}

impl Event {
    /// An event that was given back, or a new one; not signalled.
    pub(crate) fn spare() -> io::Result<Event> {
        SPARE.take()
    }

    /// Keeps the event for the next user, unless there are enough. Whoever knows its number may still
    /// signal it, and finds none then.
    pub(crate) fn give_back(self) {
        SPARE.give_back(self);
    }

    /// A new event, not signalled.
    pub(crate) fn new() -> io::Result<Event> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let fd = Arc::new(owned(fd)?);
        EVENTS.lock().insert(fd.as_raw_fd(), Arc::clone(&fd));
        Ok(Event { fd })
    }

    /// The number that crosses the table.
    pub(crate) fn number(&self) -> usize {
        usize::try_from(self.fd.as_raw_fd()).map_or(0, |fd| fd + 1)
    }

    pub(crate) fn set(&self) {
        signal(&self.fd);
    }

    pub(crate) fn reset(&self) {
        clear(&self.fd);
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        EVENTS.lock().remove(&self.fd.as_raw_fd());
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn signal(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: eight bytes are read from a live u64. Only a full counter can refuse, and a full
    // counter is signalled.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

fn clear(fd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: at most eight bytes are written to a live u64. An unsignalled event refuses.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

fn event(number: usize) -> Option<Arc<OwnedFd>> {
    let fd = RawFd::try_from(number.checked_sub(1)?).ok()?;
    EVENTS.lock().get(&fd).cloned()
}

/// Signals the event with this number; `false` if there is none.
pub(crate) fn set_event(number: usize) -> bool {
    event(number).is_some_and(|fd| {
        signal(&fd);
        true
    })
}

/// Resets the event with this number; `false` if there is none.
pub(crate) fn reset_event(number: usize) -> bool {
    event(number).is_some_and(|fd| {
        clear(&fd);
        true
    })
}

/// An event that lives until [`close_event`]: what a provider asks for by upcall.
pub(crate) fn create_event() -> io::Result<usize> {
    let event = Event::new()?;
    let number = event.number();
    // The registry's own reference keeps the descriptor; only `close_event` takes it out.
    let fd = Arc::clone(&event.fd);
    drop(event);
    EVENTS.lock().insert(fd.as_raw_fd(), fd);
    Ok(number)
}

/// Ends an event; `false` if there is none with this number.
pub(crate) fn close_event(number: usize) -> bool {
    let Some(fd) = number
        .checked_sub(1)
        .and_then(|fd| RawFd::try_from(fd).ok())
    else {
        return false;
    };
    EVENTS.lock().remove(&fd).is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::{PollFd, deadline_after, wait};

    #[test]
    fn an_event_is_polled_for_set_and_reset() {
        let event = Event::new().unwrap();
        let soon = || deadline_after(Duration::ZERO);
        assert_eq!(
            wait(&mut [PollFd::readable(event.as_fd())], soon()).unwrap(),
            0
        );
        assert!(set_event(event.number()));
        event.set();
        let mut fds = [PollFd::readable(event.as_fd())];
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(fds[0].is_ready());
        assert!(reset_event(event.number()));
        assert_eq!(
            wait(&mut [PollFd::readable(event.as_fd())], soon()).unwrap(),
            0
        );
        let number = event.number();
        drop(event);
        assert!(!set_event(number));
    }

    #[test]
    fn an_event_that_was_given_back_stays_open_and_is_used_again_unsignalled() {
        let spare = Spare::new();
        let event = spare.take().unwrap();
        let number = event.number();
        event.set();
        spare.give_back(event);
        assert!(set_event(number));
        let again: Vec<Event> = (0..8).map(|_| spare.take().unwrap()).collect();
        assert_eq!(again.first().map(Event::number), Some(number));
        let now = deadline_after(Duration::ZERO);
        for event in &again {
            let mut fds = [PollFd::readable(event.as_fd())];
            assert_eq!(wait(&mut fds, now).unwrap(), 0);
        }
    }

    #[test]
    fn of_many_events_that_were_given_back_a_few_stay_open() {
        let spare = Spare::new();
        for event in [(); 4 * Spare::MOST].map(|()| Event::new().unwrap()) {
            spare.give_back(event);
        }
        assert_eq!(spare.0.lock().len(), Spare::MOST);
    }

    #[test]
    fn an_event_made_for_a_provider_lives_until_it_is_closed() {
        let number = create_event().unwrap();
        assert!(set_event(number));
        assert!(close_event(number));
        assert!(!close_event(number));
        assert!(!reset_event(number));
        assert!(!set_event(0));
        assert!(!set_event(usize::MAX));
    }
}
