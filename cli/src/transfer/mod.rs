//! Sending and receiving one file: `wsdirect send` and `wsdirect recv`.
//!
//! Reading, moving and writing overlap: a thread reads ahead and sums up at the sender, a thread
//! writes behind and sums up at the receiver, and both ends compare the sums (xxh3-128: it finds
//! damage, it is not a signature).

mod frame;
mod recv;
mod report;
mod send;
mod sink;
mod source;

use std::io::{self, Read, Write};
use std::time::Duration;

pub(crate) use recv::recv;
pub(crate) use send::send;
pub(crate) use sink::abandon;

use crate::failure::Failure;
use crate::link::Link;
use frame::{Malformed, VERDICT_LEN, Verdict};

/// What is read, moved and written at a time; aligned and on huge pages.
const CHUNK: usize = 4 << 20;
/// Buffers of an end: one is filled while one is moved, and one smooths the difference.
const BUFFERS: usize = 3;
/// How long an end waits for an answer that takes no work.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Reads exactly `buffer`; `peer` is for the message.
fn read_exactly(mut link: &Link, buffer: &mut [u8], peer: &str) -> Result<(), Failure> {
    link.read_exact(buffer).map_err(|error| gone(peer, error))
}

fn write_all(mut link: &Link, bytes: &[u8], peer: &str) -> Result<(), Failure> {
    link.write_all(bytes).map_err(|error| gone(peer, error))
}

/// The peer has hung up, in whichever way.
fn is_parting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// The connection failed while both ends were needed.
fn gone(peer: &str, error: io::Error) -> Failure {
    match error.kind() {
        _ if is_parting(&error) => {
            Failure::new(format!("{peer} has gone in the middle of the transfer"))
                .advise("it ended or was killed; start both ends again")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Failure::new(format!("{peer} does not answer"))
                .advise("it may be stopped or not a wsdirect; check the other end")
        }
        _ => Failure::caused(format!("the connection to {peer} failed"), error),
    }
}

fn malformed(peer: &str, error: Malformed) -> Failure {
    Failure::new(format!("{peer} is not understood: {error}"))
        .advise("use wsdirect send and wsdirect recv of the same version")
}

fn read_verdict(link: &Link, peer: &str) -> Result<Verdict, Failure> {
    let mut first = [0; 1];
    read_exactly(link, &mut first, peer)?;
    read_rest_of_verdict(link, first, peer)
}

/// The verdict whose first byte is already here.
fn read_rest_of_verdict(link: &Link, first: [u8; 1], peer: &str) -> Result<Verdict, Failure> {
    let mut head = [0; VERDICT_LEN];
    let (start, rest) = head.split_at_mut(first.len());
    start.copy_from_slice(&first);
    read_exactly(link, rest, peer)?;
    let (verdict, text_len) = Verdict::decode(&head).map_err(|error| malformed(peer, error))?;
    match verdict {
        Verdict::Failed(_) => {
            let mut text = vec![0; text_len];
            read_exactly(link, &mut text, peer)?;
            Ok(Verdict::Failed(frame::shown(&text)))
        }
        verdict => Ok(verdict),
    }
}
