//! `wsdirect send`: reads, moves, and compares sums with the receiver.

use std::io::{self, Read, Write};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::frame::{Greeting, Header, Sum, Verdict};
use super::report::Report;
use super::source::{Piece, ReadAhead, Source};
use super::{ANSWER_TIME, gone, is_parting, read_verdict, write_all};
use crate::args::{self, Mode};
use crate::failure::Failure;
use crate::link::{self, Link};
use crate::progress::Progress;

const PEER: &str = "the receiver";
/// How often an idle sender looks whether the receiver is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Sends one file or standard input.
pub(crate) fn send(args: &args::Send) -> Result<(), Failure> {
    let source = Source::open(&args.file)?;
    let link = link::connect(&args.to, args.mode, link::Use::Files)?;
    let name = source.name.clone();
    let progress = Progress::new(source.size);

    let timed = |time| {
        link.set_read_timeout(time)
            .map_err(|error| gone(PEER, error))
    };
    timed(Some(ANSWER_TIME))?;
    let start = Instant::now();
    let greeting = Greeting {
        size: source.size,
        name: name.clone(),
    };
    match greet(&link, &greeting)? {
        Verdict::Go => {}
        Verdict::Failed(why) => return Err(refused(&why, args.mode)),
        Verdict::Stored(_) => return Err(out_of_turn()),
    }

    // From here on the receiver answers when it has stored everything, which takes what it takes;
    // its death shows at once all the same.
    timed(None)?;
    let moved = move_all(&link, source.read_ahead()?, &progress);
    let (own, verdict) = match moved {
        Ok(sum) => (sum, read_verdict(&link, PEER)?),
        Err(Stop::Told(verdict)) => (Sum::default(), verdict),
        Err(Stop::Failed(failure)) => return Err(failure),
    };
    let elapsed = start.elapsed();
    drop(progress);
    let theirs = match verdict {
        Verdict::Stored(sum) => sum,
        Verdict::Failed(why) => return Err(refused(&why, args.mode)),
        Verdict::Go => return Err(out_of_turn()),
    };
    let (path, counters) = (link::path(&link, args.mode), link::counters(&link));
    let report = Report::new("send", name, elapsed, path, counters, own, theirs);
    report.print(args.mode, args.json, false)?;
    if own != theirs {
        return Err(Failure::new("the receiver got other bytes than were sent")
            .advise("send again; if it happens again, check the memory and disks of both ends"));
    }
    Ok(())
}

/// Greets, and waits to be told to go.
fn greet(mut link: &Link, greeting: &Greeting) -> Result<Verdict, Failure> {
    // One that turns us away may have hung up already, and its reason is here all the same.
    match link.write_all(&greeting.encode()) {
        Err(error) if !is_parting(&error) => return Err(gone(PEER, error)),
        _ => {}
    }
    let mut first = [0; 1];
    match link.read_exact(&mut first) {
        Err(error) if is_parting(&error) => Err(Failure::new(
            "the receiver took another sender or has ended",
        )
        .advise("each wsdirect recv takes one sender; start it again, then send again")),
        Err(error) => Err(gone(PEER, error)),
        Ok(()) => super::read_rest_of_verdict(link, first, PEER),
    }
}

/// Why the sender stopped before the end.
enum Stop {
    Failed(Failure),
    /// The receiver gave its verdict early.
    Told(Verdict),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

fn move_all(link: &Link, ahead: ReadAhead, progress: &Progress) -> Result<Sum, Stop> {
    loop {
        let piece = match ahead.pieces.recv_timeout(LOOK_AGAIN) {
            Ok(piece) => piece,
            Err(RecvTimeoutError::Timeout) => {
                look_for_verdict(link)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new("the reading thread failed").into());
            }
        };
        look_for_verdict(link)?;
        match piece {
            Piece::Data(buffer, len) => {
                let bytes = buffer.get(..len).unwrap_or_default();
                write(link, &Header::Data(len).encode())?;
                write(link, bytes)?;
                progress.advance(len);
                ahead.recycle(buffer);
            }
            Piece::End(sum) => {
                write(link, &Header::End.encode())?;
                write(link, &sum.encode())?;
                return Ok(sum);
            }
            Piece::Failed(failure) => {
                let why = failure.headline();
                let text = super::frame::cut(&why);
                // The failure to read is what is reported, whether the receiver hears of it or not.
                if write(link, &Header::Abort(text.len()).encode()).is_ok() {
                    write(link, text.as_bytes()).ok();
                }
                return Err(failure.into());
            }
        }
    }
}

/// Writes; if the receiver has gone, looks whether it said why.
fn write(link: &Link, bytes: &[u8]) -> Result<(), Stop> {
    write_all(link, bytes, PEER).map_err(|failure| {
        let said = link.set_read_timeout(Some(Duration::from_secs(2))).is_ok();
        match read_verdict(link, PEER) {
            Ok(verdict) if said => Stop::Told(verdict),
            _ => Stop::Failed(failure),
        }
    })
}

/// Whether the receiver has given up early, without waiting for it.
fn look_for_verdict(mut link: &Link) -> Result<(), Stop> {
    let cannot = |error| Stop::Failed(gone(PEER, error));
    link.set_nonblocking(true).map_err(cannot)?;
    let mut first = [0; 1];
    let looked = link.read(&mut first);
    link.set_nonblocking(false).map_err(cannot)?;
    match looked {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(cannot(error)),
        Ok(0) => Err(cannot(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => {
            link.set_read_timeout(Some(ANSWER_TIME)).map_err(cannot)?;
            Err(Stop::Told(super::read_rest_of_verdict(link, first, PEER)?))
        }
    }
}

fn refused(why: &str, mode: Mode) -> Failure {
    let advice = match mode {
        Mode::Tcp => {
            "if it demands the SAN, leave out --mode tcp here; else mend that at the other end; then \
             start both again"
        }
        _ => {
            "mend that at the other end, where each wsdirect recv takes one sender; then start both again"
        }
    };
    Failure::new(format!("the receiver could not take it: {why}")).advise(advice)
}

fn out_of_turn() -> Failure {
    Failure::new("the receiver answered out of turn")
        .advise("use wsdirect send and wsdirect recv of the same version")
}
