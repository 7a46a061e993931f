//! `wsdirect recv`: waits for one sender, stores what it sends, and compares sums.

use std::io::{Read, Write};
use std::sync::mpsc::{self, SendError, Sender};
use std::time::{Duration, Instant};

use super::frame::{END_LEN, GREETING_LEN, Greeting, HEADER_LEN, Header, Sum, Verdict};
use super::report::Report;
use super::sink::{Sink, WriteBehind};
use super::{frame, gone, malformed, read_exactly, write_all};
use crate::args;
use crate::failure::Failure;
use crate::link::{self, Link};
use crate::output;
use crate::progress::Progress;

const PEER: &str = "the sender";
/// How long a connection may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// Connections that may be about to greet at a time; more wait to be accepted.
const MOST_GREETING: usize = 64;
/// How often to look for another connection while one is about to greet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TAKEN: &str = "another sender came first";
/// How long a receiver that has failed lets the sender notice before it hangs up.
const PARTING_TIME: Duration = Duration::from_secs(10);

/// Receives one file.
pub(crate) fn recv(args: &args::Recv) -> Result<(), Failure> {
    crate::sys::report_file_size_limit_as_error();
    // First of all the output: a mistake there shows before anybody connects.
    let sink = Sink::create(&args.output)?;
    let listener = link::listen(&args.at, args.mode, link::Use::Files)?;
    output::note(&format!("listening on {}", link::address_of(&listener)?));
    let Greeted { link, size, name } = first_sender(&listener)?;
    drop(listener);

    let mut progress = None;
    let stored =
        link::require(&link, args.mode).and_then(|()| store(&link, sink, size, &mut progress));
    match stored {
        Ok((start, theirs, own)) => {
            write_all(&link, &Verdict::Stored(own).encode(), PEER)?;
            let elapsed = start.elapsed();
            drop(progress);
            part(&link);
            let (path, counters) = (link::path(&link, args.mode), link::counters(&link));
            let report = Report::new("recv", name, elapsed, path, counters, theirs, own);
            let data_on_stdout = args.output.as_os_str() == "-";
            report.print(args.mode, args.json, data_on_stdout)
        }
        Err(failure) => {
            drop(progress);
            // A sender that has gone cannot be told, and the failure is reported here anyway.
            if write_all(&link, &Verdict::Failed(failure.headline()).encode(), PEER).is_ok() {
                part(&link);
            }
            Err(failure)
        }
    }
}

/// A connection that has greeted as a sender does.
struct Greeted {
    link: Link,
    size: Option<u64>,
    name: String,
}

/// Waits for the first connection that greets as a sender does; others are turned away. Each is
/// waited for in a thread of its own, so that one that says nothing holds nobody up.
fn first_sender(listener: &link::Listener) -> Result<Greeted, Failure> {
    let (tell, told) = mpsc::channel();
    let mut greeting = 0;
    loop {
        let link = match greeting {
            0 => Some(link::accept(listener)?),
            1..MOST_GREETING => link::try_accept(listener)?,
            _ => None,
        };
        let patience = match link {
            Some(link) => {
                let tell = tell.clone();
                std::thread::Builder::new()
                    .name("greeting".to_owned())
                    .spawn(move || meet(link, &tell))
                    .map_err(|error| Failure::caused("cannot start a thread", error))?;
                greeting += 1;
                Duration::ZERO
            }
            None => LOOK_AGAIN,
        };
        match told.recv_timeout(patience) {
            Ok(Ok(greeted)) => {
                for late in told.try_iter().filter_map(Result::ok) {
                    turn_away(&late.link, TAKEN);
                }
                return Ok(greeted);
            }
            Ok(Err(why)) => {
                greeting -= 1;
                output::note(&format!("turned away a connection: {why}"));
            }
            Err(_) => {}
        }
    }
}

/// Hears a connection's greeting, and tells of it or turns it away.
fn meet(link: Link, tell: &Sender<Result<Greeted, String>>) {
    match greet(&link) {
        Ok((size, name)) => {
            if let Err(SendError(Ok(late))) = tell.send(Ok(Greeted { link, size, name })) {
                turn_away(&late.link, TAKEN);
            }
        }
        Err(failure) => {
            let why = failure.headline();
            // Told first: whoever it was may not even take its refusal.
            tell.send(Err(why.clone())).ok();
            turn_away(&link, &why);
        }
    }
}

/// Whoever it is, it is not our sender, and need not hear why.
fn turn_away(link: &Link, why: &str) {
    write_all(link, &Verdict::Failed(why.to_owned()).encode(), PEER).ok();
}

fn greet(link: &Link) -> Result<(Option<u64>, String), Failure> {
    link.set_read_timeout(Some(GREETING_TIME))
        .map_err(|error| gone(PEER, error))?;
    let mut head = [0; GREETING_LEN];
    read_exactly(link, &mut head, PEER)?;
    let (size, name_len) = Greeting::decode(&head).map_err(|error| malformed(PEER, error))?;
    let mut name = vec![0; name_len];
    read_exactly(link, &mut name, PEER)?;
    link.set_read_timeout(None)
        .map_err(|error| gone(PEER, error))?;
    Ok((size, frame::shown(&name)))
}

/// Takes everything and gives it its final name. Returns when it began, and both sums.
fn store(
    link: &Link,
    sink: Sink,
    size: Option<u64>,
    progress: &mut Option<Progress>,
) -> Result<(Instant, Sum, Sum), Failure> {
    let start = Instant::now();
    if let Some(size) = size {
        sink.expect_room(size)?;
    }
    write_all(link, &Verdict::Go.encode(), PEER)?;
    let progress = progress.insert(Progress::new(size));
    let behind = sink.write_behind()?;
    let theirs = match take_all(link, &behind, progress) {
        Ok(Some(sum)) => sum,
        // The writing thread has failed; it says why below.
        Ok(None) => Sum::default(),
        Err(failure) => {
            drop(behind.finish());
            return Err(failure);
        }
    };
    let (sink, own) = behind.finish()?;
    if own != theirs {
        return Err(
            Failure::new("the bytes that arrived are not those that were sent")
                .advise("nothing was stored; send again"),
        );
    }
    sink.commit()?;
    Ok((start, theirs, own))
}

/// `None` when the output failed.
fn take_all(
    link: &Link,
    behind: &WriteBehind,
    progress: &Progress,
) -> Result<Option<Sum>, Failure> {
    loop {
        let mut header = [0; HEADER_LEN];
        read_exactly(link, &mut header, PEER)?;
        match Header::decode(header).map_err(|error| malformed(PEER, error))? {
            Header::Data(len) => {
                let Some(mut buffer) = behind.empty() else {
                    return Ok(None);
                };
                // `decode` allows no more than a buffer holds.
                let room = buffer.get_mut(..len).unwrap_or_default();
                read_exactly(link, room, PEER)?;
                behind.write(buffer, len);
                progress.advance(len);
            }
            Header::End => {
                let mut sum = [0; END_LEN];
                read_exactly(link, &mut sum, PEER)?;
                return Sum::decode(&sum)
                    .map(Some)
                    .map_err(|error| malformed(PEER, error));
            }
            Header::Abort(len) => {
                let mut text = vec![0; len];
                read_exactly(link, &mut text, PEER)?;
                let why = frame::shown(&text);
                return Err(Failure::new(format!("the sender gave up: {why}"))
                    .advise("nothing was stored; mend that at the other end, then start again"));
            }
        }
    }
}

/// Lets the last verdict reach the sender: says that nothing more comes, then reads and drops
/// what it still sends until it hangs up, for a bounded time.
fn part(mut link: &Link) {
    let end = Instant::now() + PARTING_TIME;
    if link.flush().is_err() || link.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let Ok(mut scrap) = crate::sys::Buffer::new(super::CHUNK) else {
        return;
    };
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|d| !d.is_zero())
    {
        if link.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match link.read(&mut scrap) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
