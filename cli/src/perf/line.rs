//! One connection of a measurement, whatever carries it: the same loops for every transport.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::link::Link;

/// A polling end that sees nothing for so long gives up.
const LONGEST_SPIN: Duration = Duration::from_secs(30);
/// How many empty polls go by between looks at the clock.
const POLLS_PER_LOOK: u32 = 1 << 16;

/// A stream socket.
pub(super) trait Stream: Read + Write + Send + 'static {
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;

    /// Chooses what is best for single messages, or for a stream of them.
    fn prefer_latency(&self, _latency: bool) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Link {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Link::set_nonblocking(self, on)
    }
}

impl Stream for TcpStream {
    fn prefer_latency(&self, latency: bool) -> io::Result<()> {
        self.set_nodelay(latency)
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        TcpStream::set_nonblocking(self, on)
    }
}

impl Stream for UnixStream {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        UnixStream::set_nonblocking(self, on)
    }
}

/// A stream and the way its end waits.
pub(super) struct Line<S> {
    stream: S,
    poll: bool,
    yields: bool,
}

impl<S: Stream> Line<S> {
    pub(super) fn new(stream: S) -> Line<S> {
        // With one CPU a spinning end would keep the other from running.
        let yields = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
        Line {
            stream,
            poll: false,
            yields,
        }
    }

    pub(super) fn prefer_latency(&self, latency: bool) -> io::Result<()> {
        self.stream.prefer_latency(latency)
    }

    pub(super) fn set_poll(&mut self, poll: bool) -> io::Result<()> {
        self.stream.set_nonblocking(poll)?;
        self.poll = poll;
        Ok(())
    }

    pub(super) fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut idle = Idle::default();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => self.wait(error, &mut idle)?,
            }
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, mut room: &mut [u8]) -> io::Result<()> {
        while !room.is_empty() {
            let n = self.receive_some(room)?;
            room = room.get_mut(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// At least one byte.
    pub(super) fn receive_some(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut idle = Idle::default();
        loop {
            match self.stream.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => return Ok(n),
                Err(error) => self.wait(error, &mut idle)?,
            }
        }
    }

    fn wait(&self, error: io::Error, idle: &mut Idle) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock if self.poll => idle.poll_again(self.yields),
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }
}

/// Empty polls in a row.
#[derive(Default)]
struct Idle {
    polls: u32,
    since: Option<Instant>,
}

impl Idle {
    fn poll_again(&mut self, yields: bool) -> io::Result<()> {
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_LOOK) {
            let since = *self.since.get_or_insert_with(Instant::now);
            if since.elapsed() > LONGEST_SPIN {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        // A poll is long enough by itself; a pause on top would only be found late by the message,
        // and costs an emulated processor more than the poll.
        if yields {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_waiting_move_the_same_bytes() {
        for poll in [false, true] {
            let (near, far) = UnixStream::pair().unwrap();
            let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
            let copy = sent.clone();
            let sender = std::thread::spawn(move || {
                let mut line = Line::new(near);
                line.set_poll(poll).unwrap();
                line.send(&copy).unwrap();
            });
            let mut line = Line::new(far);
            line.set_poll(poll).unwrap();
            let mut got = vec![0; sent.len()];
            line.receive(&mut got).unwrap();
            assert!(got == sent);
            sender.join().unwrap();
            let end = line.receive_some(&mut got).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
