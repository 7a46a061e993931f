//! The SAN side of a listener: takes connection requests, has their sessions negotiated, and keeps
//! those that are ready until somebody accepts them.
//!
//! Owns the provider sockets that listen and the one thread that waits for them. Knows nothing of
//! sessions: negotiating is a function it is given, which reports back later. So a peer that stalls
//! in its negotiation holds up nobody. Invariant: when it is dropped, everything it took has been
//! handed over, closed or will be closed by its negotiation's end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wsdirect::abi;

use crate::socket::SanSocket;
use crate::sys::{self, Event, PollFd};

/// Connections that are negotiated or ready and that nobody has accepted yet, at the most: the
/// backlog, as long as the kernel makes that of a TCP listener by default. Beyond it requests stay
/// with the provider unanswered, and a connector that gets no answer goes over to TCP.
const LONGEST_BACKLOG: usize = 4096;
/// Descriptors that one connection holds, roughly.
const DESCRIPTORS: usize = 5;
/// How long a negotiation may take. When half of the backlog is being negotiated the next ones get
/// less, so that peers that stall on purpose make room before an honest one has to take TCP.
const NEGOTIATION_TIME: Duration = Duration::from_secs(10);
const SHORT_NEGOTIATION_TIME: Duration = Duration::from_secs(3);
/// How long to leave a provider alone that has no resources to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// How a negotiation reports its end; to be called exactly once, from any thread.
pub(crate) type Done<T> = Box<dyn FnOnce(io::Result<T>) + Send>;

/// Starts the negotiation of an accepted socket within a time, and returns at once.
pub(crate) type Negotiate<T> = dyn Fn(SanSocket, Duration, Done<T>) + Send;

/// See the module.
pub(crate) struct Reception<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<T> {
    /// Both events are set and reset under this lock only, so that each says what the queue says.
    queue: Mutex<Queue<T>>,
    /// Signalled while a connection is ready.
    ready: Event,
    /// Wakes the thread.
    news: Event,
}

struct Queue<T> {
    ready: VecDeque<T>,
    negotiating: usize,
    /// How many may be in `ready` and `negotiating` together.
    backlog: usize,
    /// The thread waits for room.
    is_starved: bool,
    is_closed: bool,
}

impl<T> Queue<T> {
    fn has_room(&self) -> bool {
        self.negotiating + self.ready.len() < self.backlog
    }

    /// The time for one more negotiation.
    fn time(&self) -> Duration {
        if self.negotiating <= self.backlog / 2 {
            NEGOTIATION_TIME
        } else {
            SHORT_NEGOTIATION_TIME
        }
    }
}

/// The backlog of a process that may open so many descriptors: half of them stay for everything
/// else, because unlike TCP's the connections in it are already open here.
fn backlog(descriptors: usize) -> usize {
    (descriptors / 2 / DESCRIPTORS).clamp(1, LONGEST_BACKLOG)
}

impl<T: Send + 'static> Reception<T> {
    /// Starts to take requests from sockets that listen and have FD_ACCEPT selected.
    pub(crate) fn open(
        listening: Vec<SanSocket>,
        negotiate: Box<Negotiate<T>>,
    ) -> io::Result<Reception<T>> {
        let queue = Queue {
            ready: VecDeque::new(),
            negotiating: 0,
            backlog: backlog(sys::descriptor_limit()),
            is_starved: false,
            is_closed: false,
        };
        let (ready, news) = (Event::new()?, Event::new()?);
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            ready,
            news,
        });
        let theirs = Arc::clone(&shared);
        let desks = listening.into_iter().map(|socket| Desk {
            socket,
            is_waited_for: false,
        });
        let desks: Vec<Desk> = desks.collect();
        let thread = thread::Builder::new()
            .name("wsd-accept".to_owned())
            .spawn(move || {
                sys::block_signals();
                serve(&theirs, desks, &*negotiate);
            })?;
        Ok(Reception {
            shared,
            thread: Some(thread),
        })
    }

    /// The connection that has been ready for longest.
    pub(crate) fn take(&self) -> Option<T> {
        let mut queue = self.shared.queue.lock();
        let taken = queue.ready.pop_front();
        if queue.ready.is_empty() {
            self.shared.ready.reset();
        }
        self.shared.tell_of_room(&mut queue);
        taken
    }
}

/// Readable while a connection is ready.
impl<T: Send + 'static> AsFd for Reception<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl<T: Send + 'static> Drop for Reception<T> {
    fn drop(&mut self) {
        let unclaimed = {
            let mut queue = self.shared.queue.lock();
            queue.is_closed = true;
            self.shared.news.set();
            std::mem::take(&mut queue.ready)
        };
        drop(unclaimed);
        if let Some(thread) = self.thread.take() {
            // The thread closes the listening sockets before it ends.
            drop(thread.join());
        }
    }
}

impl<T: Send + 'static> Shared<T> {
    fn tell_of_room(&self, queue: &mut Queue<T>) {
        if queue.is_starved && queue.has_room() {
            queue.is_starved = false;
            self.news.set();
        }
    }

    /// Counts one negotiation more and says how long it may take; `None` if there is no room.
    fn begin(&self) -> Option<Duration> {
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return None;
        }
        if !queue.has_room() {
            queue.is_starved = true;
            return None;
        }
        let time = queue.time();
        queue.negotiating += 1;
        Some(time)
    }

    /// A negotiation that did not begin after all.
    fn unbegin(&self) {
        let mut queue = self.queue.lock();
        queue.negotiating = queue.negotiating.saturating_sub(1);
    }

    fn finish(&self, result: io::Result<T>) {
        let mut queue = self.queue.lock();
        queue.negotiating = queue.negotiating.saturating_sub(1);
        let refused = match result {
            Ok(connection) if !queue.is_closed => {
                queue.ready.push_back(connection);
                self.ready.set();
                None
            }
            Ok(late) => Some(late),
            Err(error) => {
                tracing::debug!(%error, "a session was not negotiated");
                None
            }
        };
        self.tell_of_room(&mut queue);
        drop(queue);
        // Closed outside the lock.
        drop(refused);
    }

    /// Takes note of the news; `true` if it is the end.
    fn is_closed(&self) -> bool {
        let queue = self.queue.lock();
        self.news.reset();
        queue.is_closed
    }
}

/// A listening socket and whether requests may wait at it.
struct Desk {
    socket: SanSocket,
    is_waited_for: bool,
}

/// How it went with taking the requests of a desk.
enum Taken {
    All,
    /// There is no room for more; somebody will say when there is.
    NoRoom,
    /// The provider cannot accept now.
    Later,
}

/// The thread: waits for requests and takes them as long as there is room.
fn serve<T: Send + 'static>(
    shared: &Arc<Shared<T>>,
    mut desks: Vec<Desk>,
    negotiate: &Negotiate<T>,
) {
    let mut pause: Option<Instant> = None;
    loop {
        let mut fds = vec![PollFd::readable(shared.news.as_fd())];
        let events = desks.iter().filter_map(|desk| desk.socket.event());
        fds.extend(events.map(|event| PollFd::readable(event.as_fd())));
        let waited = sys::wait(&mut fds, pause.take());
        if let Err(error) = &waited {
            // The provider goes on listening, so nobody would answer whom it takes: for want of
            // being told, this thread looks at every socket from time to time.
            tracing::warn!(%error, "waiting for connection requests failed");
            thread::sleep(PAUSE);
        }
        let is_ready = |fd: &PollFd<'_>| waited.is_err() || fd.is_ready();
        let signalled: Vec<bool> = fds.iter().skip(1).map(is_ready).collect();
        if shared.is_closed() {
            return;
        }
        let mut signalled = signalled.into_iter();
        desks.retain_mut(|desk| {
            if !signalled.next().unwrap_or_default() {
                return true;
            }
            match desk.socket.enum_events() {
                Ok(events) => {
                    desk.is_waited_for |= events.lNetworkEvents & abi::FD_ACCEPT != 0;
                    true
                }
                Err(error) => {
                    let provider = desk.socket.provider().name();
                    tracing::warn!(provider, %error, "the SAN listener failed; TCP goes on");
                    false
                }
            }
        });
        for desk in desks.iter_mut().filter(|desk| desk.is_waited_for) {
            match desk.take_requests(shared, negotiate) {
                Taken::All => desk.is_waited_for = false,
                Taken::NoRoom => {}
                Taken::Later => pause = sys::deadline_after(PAUSE),
            }
        }
    }
}

impl Desk {
    fn take_requests<T: Send + 'static>(
        &self,
        shared: &Arc<Shared<T>>,
        negotiate: &Negotiate<T>,
    ) -> Taken {
        loop {
            let Some(time) = shared.begin() else {
                return Taken::NoRoom;
            };
            // Runs within the provider's call, on this thread.
            let mut condition = |(peer, _local): (Option<_>, _)| peer.is_some();
            match self.socket.accept(&mut condition) {
                Ok(socket) => {
                    let shared = Arc::clone(shared);
                    negotiate(socket, time, Box::new(move |result| shared.finish(result)));
                    continue;
                }
                Err(error) => {
                    shared.unbegin();
                    match error.0 {
                        abi::WSAEWOULDBLOCK => return Taken::All,
                        // This request is gone; there may be others.
                        abi::WSAECONNREFUSED
                        | abi::WSAECONNRESET
                        | abi::WSAECONNABORTED
                        | abi::WSAEACCES
                        | abi::WSAEINVALIDPROVIDER => {}
                        _ => {
                            tracing::warn!(%error, "a request could not be accepted");
                            return Taken::Later;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_that_of_tcp_but_leaves_half_of_the_descriptors() {
        assert_eq!(backlog(usize::MAX), LONGEST_BACKLOG);
        assert_eq!(backlog(1 << 20), LONGEST_BACKLOG);
        for descriptors in [1_024, 20_000] {
            let taken = backlog(descriptors) * DESCRIPTORS;
            assert!(taken <= descriptors / 2 && taken > descriptors / 3);
        }
        assert_eq!(backlog(0), 1);
    }
}
