//! The beginning of a session: what this side offers, and the wait for the other side's word.
//!
//! Owns nothing that lasts. The connector waits in the caller's thread; the acceptor's part is done
//! by the service thread, so that a slow peer holds nobody up.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wsd_proto::{Config, HEADER_LEN, MAX_DESCRIPTOR, MIN_BUFFER, MIN_RECEIVES, Role};

use super::Connection;
use super::failure;
use super::tune::tuning;
use super::wait::Patience;
use crate::options::{Mode, StreamOptions};
use crate::socket::SanSocket;

/// For a peer that does not answer.
const NEGOTIATION_TIME: Duration = Duration::from_secs(10);

/// What an acceptor is told at the end.
pub(crate) type Done = Box<dyn FnOnce(io::Result<Arc<Connection>>) + Send>;

/// Sixteen bytes nobody guesses: the hash keys of std are random for each process and thread.
fn session_id() -> [u8; 16] {
    let half = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut id = [0; 16];
    let (front, back) = id.split_at_mut(8);
    front.copy_from_slice(&half());
    back.copy_from_slice(&half());
    id
}

/// Large transfers of one direction that may be under way: with them a sender of copies stays as
/// far ahead as its send buffer lets it.
const LARGE: u16 = 8;

/// What this side's provider and the options make of the session.
pub(super) fn config(
    socket: &SanSocket,
    options: &StreamOptions,
    time: Duration,
) -> io::Result<Config> {
    let limits = socket.limits();
    let longest = limits.max_message.max(MIN_BUFFER as usize);
    let payload = limits
        .rdma_threshold
        .clamp(MIN_BUFFER as usize, tuning().payload);
    // A write of the threshold's size is one message where the provider's messages are that long.
    let buffer = (payload + HEADER_LEN).min(longest);
    let payload = buffer - HEADER_LEN;
    let count = tuning().control_buffers;
    let short = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let long = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let descriptor_len = match socket.descriptor_len() {
        Ok(len) if len <= MAX_DESCRIPTOR => len,
        // Without descriptors nobody can reach this side's memory; its messages still flow.
        Ok(_) | Err(_) => 0,
    };
    Ok(Config {
        versions: versions(),
        receive_buffers: short(count),
        receive_buffer_size: short(buffer),
        send_buffers: short(count),
        max_message: short(buffer),
        // req: SEED-17 the peer chooses by what this side's provider can do
        rdma_read: socket.has_rdma_read() && options.mode != Mode::Write,
        push: options.mode == Mode::Write,
        max_rdma: long(limits.max_rdma),
        descriptor_len,
        threshold: long(limits.rdma_threshold),
        inbox_limit: long(count * payload),
        temp_limit: long(options.receive_buffer),
        keep_alive: options.keep_alive,
        negotiation_timeout: time,
        session_id: session_id(),
        max_large: LARGE,
        ..Config::default()
    })
}

/// What this side speaks.
#[cfg(not(feature = "testing"))]
fn versions() -> (u8, u8) {
    Config::default().versions
}

/// The same, or as the environment variable `WSD_VERSIONS` says, "2-3", so that another process can
/// be one of another time.
#[cfg(feature = "testing")]
fn versions() -> (u8, u8) {
    static SAID: std::sync::OnceLock<Option<(u8, u8)>> = std::sync::OnceLock::new();
    let said = SAID.get_or_init(|| {
        let said = std::env::var("WSD_VERSIONS").ok()?;
        let (lowest, highest) = said.split_once('-')?;
        Some((lowest.parse().ok()?, highest.parse().ok()?))
    });
    said.unwrap_or(Config::default().versions)
}

/// What becomes of the session if the provider took only so many of its receives; `None` if it
/// took all. With fewer than a session needs there is no connection, and ENOBUFS says so: for TCP
/// it is too late, the peer has a SAN connection already.
pub(super) fn with_queue(config: Config, posted: usize) -> io::Result<Option<Config>> {
    let posted = u32::try_from(posted).unwrap_or(u32::MAX);
    if posted >= config.receive_buffers {
        return Ok(None);
    }
    if posted < MIN_RECEIVES {
        tracing::warn!(
            posted,
            needed = MIN_RECEIVES,
            "the provider takes too few receives for a session"
        );
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    }
    tracing::debug!(posted, "the provider takes fewer receives than were wanted");
    Ok(Some(Config {
        receive_buffers: posted,
        // A short queue for receives is hardly a long one for sends.
        send_buffers: posted.min(config.send_buffers),
        ..config
    }))
}

impl Connection {
    /// Negotiates as the connecting side. On error the socket has been closed.
    pub(crate) fn connect(
        socket: SanSocket,
        options: &StreamOptions,
        deadline: Option<Instant>,
    ) -> io::Result<Arc<Connection>> {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let time = left.unwrap_or(NEGOTIATION_TIME).min(NEGOTIATION_TIME);
        let connection = Connection::new(socket, options, Role::Connector, time)?;
        let negotiated = connection.block(Patience::For(Some(time)), |state, socket, _| {
            while state.poll(socket, None) {}
            if state.session.is_established() {
                return Some(Ok(()));
            }
            let over = state.session.failure().map(failure);
            over.map(Err).or_else(|| {
                state
                    .closed
                    .then(|| Err(io::ErrorKind::NotConnected.into()))
            })
        });
        match negotiated {
            Ok(()) => Ok(connection),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Negotiates as the accepting side, without blocking the caller. `done` is called exactly
    /// once, by the service thread or, if it fails at once, before this returns.
    pub(crate) fn accept(
        socket: SanSocket,
        options: &StreamOptions,
        time_out: Duration,
        done: Done,
    ) {
        match Connection::new(socket, options, Role::Acceptor, time_out) {
            Ok(connection) => super::service::negotiate(connection, time_out, done),
            Err(error) => done(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_as_many_receives_as_the_provider_took_or_says_that_they_are_too_few() {
        let wanted = || Config {
            receive_buffers: 16,
            send_buffers: 16,
            ..Config::default()
        };
        assert!(with_queue(wanted(), 16).unwrap().is_none());
        let fewer = with_queue(wanted(), 6).unwrap().unwrap();
        assert_eq!((fewer.receive_buffers, fewer.send_buffers), (6, 6));
        for posted in 0..MIN_RECEIVES {
            let error = with_queue(wanted(), posted as usize).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        }
    }
}
