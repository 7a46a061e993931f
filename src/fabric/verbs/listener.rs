//! Listening, and requests that wait for an answer.
//!
//! Owns the identifier that listens and those of requests. Invariant: a request is answered exactly
//! once; one that is dropped is refused. Limits of the backlog are the engine's: it refuses at once
//! what is too much.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::connect;
use super::core::{Core, Object};
use super::endpoint::VerbsEndpoint;
use super::errors;
use super::hello::{Hello, Word};
use super::sys::{CmEvent, Conn};
use crate::fabric::{ConnectError, Endpoint, Event, ListenError, Listener, Token};

/// Requests that may wait in the kernel until the progress thread takes them.
const KERNEL_BACKLOG: usize = 1024;

/// What a listener's events find.
#[derive(Debug)]
pub(super) struct Listening {
    token: Token,
    open: AtomicBool,
}

/// Listens until it is dropped.
pub(super) struct VerbsListener {
    core: Arc<Core>,
    number: u64,
    listening: Arc<Listening>,
    /// None once it has stopped.
    conn: Option<Conn>,
}

impl fmt::Debug for VerbsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.listening)
    }
}

pub(super) fn listen(
    core: &Arc<Core>,
    token: Token,
    at: SocketAddr,
) -> Result<Box<dyn Listener>, ListenError> {
    if !at.ip().is_unspecified() && !core.addresses().contains(&at.ip()) {
        return Err(ListenError::AddressNotAvailable);
    }
    let number = core.number();
    let listening = Arc::new(Listening {
        token,
        open: AtomicBool::new(true),
    });
    let conn = Conn::new(&core.channel, number).map_err(|error| errors::of_listen(&error))?;
    // Before it listens: a request may come at once.
    core.keep(number, Object::Listening(Arc::clone(&listening)));
    let listener = VerbsListener {
        core: Arc::clone(core),
        number,
        listening,
        conn: Some(conn),
    };
    let listens = listener
        .conn
        .as_ref()
        .map(|conn| conn.listen(at, KERNEL_BACKLOG));
    if let Some(Err(error)) = listens {
        tracing::debug!(%at, %error, "cannot listen");
        return Err(errors::of_listen(&error));
    }
    Ok(Box::new(listener))
}

impl Listener for VerbsListener {}

impl Drop for VerbsListener {
    fn drop(&mut self) {
        self.listening.open.store(false, Ordering::SeqCst);
        self.core.forget(self.number);
        // The kernel refuses what it still holds.
        drop(self.conn.take());
        let token = self.listening.token;
        let refused = self.core.retract(
            |event| matches!(event, Event::Request { listener, .. } if *listener == token),
        );
        drop(refused);
    }
}

impl Listening {
    /// Somebody asks to connect.
    pub(super) fn requested(&self, core: &Core, event: CmEvent) {
        let hello = Hello::parse(event.data());
        let (reads_in, reads_out) = (event.reads_in, event.reads_out);
        let Some(conn) = event.conn else { return };
        let hello = match hello {
            Some(hello)
                if hello.word == Word::Connect
                    && hello.descriptor_len as usize == core.settings.caps.descriptor_len =>
            {
                hello
            }
            _ => {
                refuse(&conn, Word::Foreign);
                return;
            }
        };
        let Some(strong) = core.me.upgrade() else {
            return;
        };
        let number = core.number();
        conn.set_context(number);
        let (local, peer) = conn.addresses();
        let request = VerbsRequest {
            core: strong,
            number,
            conn: Some(conn),
            local,
            peer: hello.address(peer),
            reads_in,
            reads_out,
            since: Instant::now(),
        };
        let back = core.tell_if(
            || self.open.load(Ordering::SeqCst),
            Event::Request {
                listener: self.token,
                request: Box::new(request),
            },
        );
        drop(back);
    }
}

/// Answers no. A peer that is gone does not hear it.
fn refuse(conn: &Conn, word: Word) {
    let answer = Hello {
        word,
        port: 0,
        descriptor_len: 0,
        max_message: 0,
    };
    if let Err(error) = conn.reject(&answer.to_bytes()) {
        tracing::debug!(%error, "a request could not be refused");
    }
}

struct VerbsRequest {
    core: Arc<Core>,
    number: u64,
    /// None once it is answered.
    conn: Option<Conn>,
    local: SocketAddr,
    peer: SocketAddr,
    reads_in: u8,
    reads_out: u8,
    /// The peer has waited at least from then on.
    since: Instant,
}

impl crate::fabric::Request for VerbsRequest {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The kernel keeps to itself what happens to a request before it is accepted: a peer that has
    /// given up earlier is noticed when `accept` fails. After this time every peer has.
    fn is_gone(&self) -> bool {
        self.since.elapsed() > self.core.settings.patience
    }

    fn accept(mut self: Box<Self>, endpoint: Token) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let conn = self.conn.take().ok_or(ConnectError::NotServed)?;
        let accepted =
            VerbsEndpoint::accepted(&self.core, endpoint, self.number, conn, |endpoint| {
                connect::answer(endpoint, self.reads_in, self.reads_out)
            })?;
        Ok(accepted)
    }

    fn reject(self: Box<Self>) {
        drop(self);
    }

    fn turn_away(mut self: Box<Self>) {
        if let Some(conn) = self.conn.take() {
            refuse(&conn, Word::Unable);
        }
    }
}

impl Drop for VerbsRequest {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // req: WSD-07, the peer learns that it was refused.
            refuse(&conn, Word::Refused);
        }
    }
}
