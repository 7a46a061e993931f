//! A listening socket: requests that wait, the backlog, accepting and rejecting.
//!
//! Owns the queue of requests. Invariants: a request is answered exactly once (a dropped one is
//! refused); no more than `backlog` wait; a peer is told nothing before the switch has decided.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::error::{AcceptError, ListenError};
use super::socket::{Socket, Stage, TABLE};
use crate::fabric::{self, Request, Token};

/// The backlog of a switch that leaves the choice to us: what the kernel grants a TCP listener.
const BACKLOG_OF_CHOICE: usize = 4096;

/// How many requests may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backlog {
    /// As many as the provider likes.
    Choice,
    Of(usize),
}

impl Backlog {
    fn limit(self) -> usize {
        match self {
            Backlog::Choice => BACKLOG_OF_CHOICE,
            Backlog::Of(requests) => requests.clamp(1, BACKLOG_OF_CHOICE),
        }
    }
}

/// What the switch decides about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Accept,
    Reject,
    Defer,
    Illegal,
}

pub(crate) struct Listening {
    /// Declared first: no new requests come while the waiting ones are refused.
    _listener: Box<dyn fabric::Listener>,
    waiting: VecDeque<Box<dyn Request>>,
    limit: usize,
}

impl Socket {
    /// Begins to listen, or changes the backlog.
    pub(crate) fn listen(self: &Arc<Self>, backlog: Backlog) -> Result<(), ListenError> {
        let limit = backlog.limit();
        let mut stage = self.stage.lock();
        let surplus = match &mut *stage {
            Stage::Created => return Err(ListenError::NotBound),
            Stage::Connecting { .. } | Stage::Connected => return Err(ListenError::Connected),
            Stage::Closed => return Err(ListenError::Closed),
            Stage::Listening(listening) => {
                listening.limit = limit;
                let keep = limit.min(listening.waiting.len());
                listening.waiting.split_off(keep)
            }
            &mut Stage::Bound(at) => {
                if at.port() == 0 {
                    return Err(ListenError::NotBound);
                }
                let provider = self.provider();
                provider.start_progress().map_err(|error| {
                    tracing::error!(%error, "cannot start the progress thread");
                    ListenError::NoResources
                })?;
                let listener = provider
                    .fabric()
                    .listen(Token(self.handle().raw()), at)
                    .map_err(|error| match error {
                        fabric::ListenError::AddressNotAvailable => {
                            ListenError::AddressNotAvailable
                        }
                        fabric::ListenError::AddressInUse | fabric::ListenError::NoResources => {
                            tracing::warn!(%at, %error, "cannot listen");
                            ListenError::NoResources
                        }
                    })?;
                *stage = Stage::Listening(Listening {
                    _listener: listener,
                    waiting: VecDeque::new(),
                    limit,
                });
                VecDeque::new()
            }
        };
        drop(stage);
        // Newest first.
        for request in surplus.into_iter().rev() {
            request.reject();
        }
        Ok(())
    }

    /// Somebody asks to connect.
    pub(crate) fn requested(&self, request: Box<dyn Request>) {
        let mut gone = VecDeque::new();
        let refused = {
            let mut stage = self.stage.lock();
            if let Stage::Listening(listening) = &mut *stage
                && listening.waiting.len() >= listening.limit
            {
                // Peers that have given up take no room.
                let waiting = std::mem::take(&mut listening.waiting);
                (gone, listening.waiting) = waiting.into_iter().partition(|r| r.is_gone());
            }
            match &mut *stage {
                // req: WSD-06, a full backlog refuses at once, and no event tells of it.
                Stage::Listening(listening) if listening.waiting.len() < listening.limit => {
                    listening.waiting.push_back(request);
                    None
                }
                _ => Some(request),
            }
        };
        // Outside the lock, as they say a last word.
        drop(gone);
        match refused {
            Some(request) => request.reject(),
            None => self
                .events
                .record(&self.outlet, |record| record.accept = true),
        }
    }

    /// Takes the oldest request whose peer still waits.
    fn next_request(&self) -> Result<Box<dyn Request>, AcceptError> {
        let mut gone = Vec::new();
        let mut stage = self.stage.lock();
        let Stage::Listening(listening) = &mut *stage else {
            return Err(AcceptError::NotListening);
        };
        let next = loop {
            match listening.waiting.pop_front() {
                Some(request) if request.is_gone() => gone.push(request),
                other => break other,
            }
        };
        drop(stage);
        next.ok_or(if gone.is_empty() {
            AcceptError::Empty
        } else {
            AcceptError::Gone
        })
    }

    /// Puts a deferred request back to where it was.
    fn put_back(&self, request: Box<dyn Request>) {
        let mut stage = self.stage.lock();
        if let Stage::Listening(listening) = &mut *stage {
            listening.waiting.push_front(request);
            return;
        }
        drop(stage);
        request.reject();
    }

    /// Resets the event of the listener; sets it again when more requests wait.
    fn signal_remaining(&self) {
        self.events.clear_accept(&self.outlet);
        let more = match &*self.stage.lock() {
            Stage::Listening(listening) => !listening.waiting.is_empty(),
            _ => false,
        };
        // req: WSD-07, each waiting request is signalled.
        if more {
            self.events
                .record(&self.outlet, |record| record.accept = true);
        }
    }

    /// Answers the oldest request as `decide` says, which is called on this thread, with no lock
    /// held, before the peer is told anything: first the peer's address, then the local one.
    pub(crate) fn accept(
        &self,
        decide: impl FnOnce(SocketAddr, SocketAddr) -> Verdict,
    ) -> Result<(Arc<Socket>, SocketAddr), AcceptError> {
        let request = match self.next_request() {
            Ok(request) => request,
            Err(AcceptError::Gone) => {
                self.signal_remaining();
                return Err(AcceptError::Gone);
            }
            Err(error) => return Err(error),
        };
        let peer = request.peer();
        let verdict = decide(peer, request.local());
        // What the decision did to the listener counts.
        let outcome = match verdict {
            _ if self.is_closed() => {
                request.reject();
                return Err(AcceptError::Closed);
            }
            Verdict::Defer => {
                self.put_back(request);
                return Err(AcceptError::Deferred);
            }
            Verdict::Accept => self.admit(request),
            Verdict::Reject => {
                // req: WSD-07, both ends learn that it was refused.
                request.reject();
                Err(AcceptError::Rejected)
            }
            Verdict::Illegal => {
                request.reject();
                Err(AcceptError::IllegalVerdict)
            }
        };
        self.signal_remaining();
        outcome.map(|accepted| (accepted, peer))
    }

    /// Makes the socket for an accepted request, then tells the peer. Nobody has refused it, so a peer
    /// for which something is lacking here may still come over TCP.
    // req: WSD-08
    fn admit(&self, request: Box<dyn Request>) -> Result<Arc<Socket>, AcceptError> {
        let local = request.local();
        let Some(accepted) =
            TABLE.insert_with(|handle| Arc::new(self.child(handle, Stage::Bound(local))))
        else {
            request.turn_away();
            return Err(AcceptError::NoResources);
        };
        if let Err(code) = accepted.outlet.open(self.catalog(), accepted.handle()) {
            accepted.discard();
            request.turn_away();
            return Err(AcceptError::NoSwitchSocket(code));
        }
        match request.accept(Token(accepted.handle().raw())) {
            Ok(endpoint) => {
                accepted.connected_by(endpoint);
                Ok(accepted)
            }
            Err(error) => {
                tracing::debug!(%error, "a request could not be accepted");
                accepted.discard();
                Err(match error {
                    fabric::ConnectError::NoResources => AcceptError::NoResources,
                    _ => AcceptError::Gone,
                })
            }
        }
    }
}
