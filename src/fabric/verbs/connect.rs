//! Making a connection: the steps of an attempt, and the answer to a request.
//!
//! Owns the order of the steps and their times. Nothing here waits: each step starts something, and
//! the event that tells of its end starts the next one. The attempt as a whole has a deadline,
//! because the connection manager itself may go on for minutes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::endpoint::VerbsEndpoint;
use super::errors;
use super::hello::{Hello, Word};
use super::sys::{CmEvent, CmKind};
use crate::fabric::ConnectError;
use crate::fabric::soft::{is_local, tcp_listens};

/// How long one look-up may take.
const LOOK_UP_MS: i32 = 3000;
/// How long a whole attempt may take, unless another time is chosen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The peer is to acknowledge within 4.096 µs times two to this power (268 ms); after seven times
/// without an answer the connection is over.
pub(super) const ACK_TIMEOUT: u8 = 16;
/// The code for 0.64 ms: how long the peer waits before it repeats a message for which no receive
/// was posted. Left alone it would be 655 ms.
const RNR_TIMER: u8 = 12;

/// An attempt to connect.
#[derive(Debug)]
pub(super) struct Attempt {
    to: SocketAddr,
    from: SocketAddr,
    pub(super) deadline: Instant,
}

/// How an attempt stands after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Wait,
    Connected,
    Failed(ConnectError),
}

fn after(done: io::Result<()>) -> Step {
    match done {
        Ok(()) => Step::Wait,
        Err(error) => {
            tracing::debug!(%error, "a step of a connect failed");
            Step::Failed(errors::of_attempt(&error))
        }
    }
}

impl Attempt {
    pub(super) fn new(from: SocketAddr, to: SocketAddr, patience: Duration) -> Self {
        Self {
            from,
            to,
            deadline: Instant::now() + patience,
        }
    }

    /// The first step.
    pub(super) fn begin(&self, endpoint: &VerbsEndpoint) -> Step {
        let conn = endpoint.conn();
        let mut begun = conn.resolve(self.from, self.to, LOOK_UP_MS, ACK_TIMEOUT);
        if let Err(error) = &begun
            && error.raw_os_error() == Some(libc::EADDRINUSE)
        {
            // A listener of this host has the port; the peer learns the port from the hello.
            let from = SocketAddr::new(self.from.ip(), 0);
            begun = conn.resolve(from, self.to, LOOK_UP_MS, ACK_TIMEOUT);
        }
        after(begun)
    }

    /// The next step.
    pub(super) fn advance(&self, endpoint: &VerbsEndpoint, event: &CmEvent) -> Step {
        match event.kind {
            CmKind::AddressResolved => after(endpoint.conn().route(LOOK_UP_MS)),
            CmKind::RouteResolved => self.ask(endpoint),
            CmKind::Established => {
                let own = endpoint.settings().caps.descriptor_len;
                let answer = Hello::parse(event.data());
                if answer.is_some_and(|hello| hello.accepts(own)) {
                    be_patient(endpoint);
                    Step::Connected
                } else {
                    // Somebody accepts anything; it does not speak with us.
                    Step::Failed(ConnectError::NotServed)
                }
            }
            CmKind::Rejected => {
                Step::Failed(errors::of_rejection(event.status, event.data(), || {
                    is_local(self.to.ip()) && !tcp_listens(self.to)
                }))
            }
            CmKind::Unreachable => Step::Failed(ConnectError::TimedOut),
            CmKind::AddressError | CmKind::RouteError => {
                Step::Failed(errors::of_status(event.status))
            }
            CmKind::ConnectError | CmKind::Removed | CmKind::Disconnected => {
                Step::Failed(ConnectError::NotServed)
            }
            CmKind::Request | CmKind::Changed | CmKind::Other => Step::Wait,
        }
    }

    fn ask(&self, endpoint: &VerbsEndpoint) -> Step {
        let settings = endpoint.settings();
        let hello = own_hello(endpoint, Word::Connect, self.from.port());
        after(endpoint.make_queues().and_then(|()| {
            let (reads_in, reads_out) = (settings.reads_in, settings.reads_out);
            endpoint
                .conn()
                .connect(&hello.to_bytes(), reads_in, reads_out, settings.rnr_retry)
        }))
    }
}

fn own_hello(endpoint: &VerbsEndpoint, word: Word, port: u16) -> Hello {
    let caps = &endpoint.settings().caps;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Hello {
        word,
        port,
        descriptor_len: number(caps.descriptor_len),
        max_message: number(caps.max_message),
    }
}

/// Accepts a request. The queues work when this returns.
pub(super) fn answer(endpoint: &VerbsEndpoint, reads_in: u8, reads_out: u8) -> io::Result<()> {
    let settings = endpoint.settings();
    endpoint.make_queues()?;
    let hello = own_hello(endpoint, Word::Accepted, 0);
    endpoint.conn().accept(
        &hello.to_bytes(),
        settings.reads_in.min(reads_in),
        settings.reads_out.min(reads_out),
        settings.rnr_retry,
        ACK_TIMEOUT,
    )?;
    be_patient(endpoint);
    Ok(())
}

/// Has the peer repeat soon what came before its receive. Where the transport has no such thing,
/// nothing is lost.
fn be_patient(endpoint: &VerbsEndpoint) {
    if let Err(error) = endpoint.conn().set_patience(RNR_TIMER) {
        tracing::debug!(%error, "the RNR timer cannot be set");
    }
}
