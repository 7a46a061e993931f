//! The serving half of `perf`: answers on every transport, one thread for each connection.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use super::command::{COMMAND_LEN, Command, Directory, READY, Tally};
use super::line::{Line, Stream};
use crate::args;
use crate::failure::Failure;
use crate::link;
use crate::output;
use crate::sys::{Buffer, Usage};

/// The first words of the only line the server prints; the address follows.
pub(super) const LISTENING: &str = "listening on ";
/// Messages may be smaller than what one call takes in; a message may not be larger than this.
const LARGEST_MESSAGE: usize = 1 << 30;
/// What one call of the receiving end can take in, at least, when bandwidth is measured.
const DRAIN_BUFFER: usize = 256 << 10;

/// Serves until the process is ended.
pub(super) fn serve(at: &str, args: &args::Perf) -> Result<(), Failure> {
    let cannot = |error| Failure::caused("cannot serve", error);
    let san = link::listen(at, args.mode, link::Use::Measuring)?;
    let address = link::address_of(&san)?;
    let tcp = TcpListener::bind((address.ip(), 0)).map_err(cannot)?;
    let unix = format!("wsdirect-perf-{}-{}", std::process::id(), address.port());
    let directory = Directory {
        tcp: tcp.local_addr().map_err(cannot)?.port(),
        unix,
    };
    let name = UnixAddr::from_abstract_name(&directory.unix).map_err(cannot)?;
    let unix = UnixListener::bind_addr(&name).map_err(cannot)?;
    let directory = serde_json::to_vec(&directory).map_err(|error| cannot(error.into()))?;

    let plain = directory.clone();
    spawn("tcp", move || {
        tcp.incoming()
            .flatten()
            .for_each(|stream| serve_one(stream, &plain))
    })?;
    let plain = directory.clone();
    spawn("unix", move || {
        unix.incoming()
            .flatten()
            .for_each(|stream| serve_one(stream, &plain))
    })?;
    if args.until_stdin_ends {
        spawn("stdin", || {
            // Whether it ends or breaks, whoever started this process is gone.
            io::copy(&mut io::stdin(), &mut io::sink()).ok();
            std::process::exit(0);
        })?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{LISTENING}{address}")
        .and_then(|()| out.flush())
        .map_err(cannot)?;
    drop(out);
    loop {
        let link = link::accept(&san)?;
        // Its client is not to measure TCP in the place of the SAN.
        match link::require(&link, args.mode) {
            Ok(()) => serve_one(link, &directory),
            Err(why) => output::note(&format!("turned away a connection: {}", why.headline())),
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    match std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::caused("cannot start a thread", error)),
    }
}

fn serve_one<S: Stream>(stream: S, directory: &[u8]) {
    let directory = directory.to_vec();
    // A client that leaves, or talks nonsense, ends only its own connection. If no thread can be
    // had the connection is closed, which the client reports.
    spawn("connection", move || {
        drop(follow_commands(Line::new(stream), &directory))
    })
    .ok();
}

fn follow_commands<S: Stream>(mut line: Line<S>, directory: &[u8]) -> io::Result<()> {
    let mut buffer = Buffer::new(0)?;
    loop {
        let mut command = [0; COMMAND_LEN];
        line.receive(&mut command)?;
        let command = Command::decode(&command).ok_or(io::ErrorKind::InvalidData)?;
        let (size, poll) = match command {
            Command::Directory => {
                let len = u32::try_from(directory.len()).map_err(io::Error::other)?;
                line.send(&len.to_le_bytes())?;
                line.send(directory)?;
                continue;
            }
            Command::Echo { size, poll } | Command::Drain { size, poll } => (size as usize, poll),
        };
        if size > LARGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if buffer.len() < size.max(DRAIN_BUFFER) {
            buffer = Buffer::new(size.max(DRAIN_BUFFER))?;
        }
        line.send(&READY)?;
        line.prefer_latency(matches!(command, Command::Echo { .. }))?;
        line.set_poll(poll)?;
        match command {
            Command::Echo { .. } => echo(&mut line, buffer.get_mut(..size).unwrap_or_default())?,
            _ => drain(&mut line, &mut buffer, size)?,
        }
        line.set_poll(false)?;
    }
}

fn echo<S: Stream>(line: &mut Line<S>, message: &mut [u8]) -> io::Result<()> {
    loop {
        line.receive(message)?;
        line.send(message)?;
        if message.first() == Some(&1) {
            return Ok(());
        }
    }
}

fn drain<S: Stream>(line: &mut Line<S>, buffer: &mut [u8], size: usize) -> io::Result<()> {
    let (process, thread) = (Usage::of_process(), Usage::of_thread());
    let mut bytes = 0_u64;
    loop {
        let n = line.receive_some(buffer)?;
        bytes += n as u64;
        let last = n.checked_sub(1).and_then(|at| buffer.get(at));
        if last == Some(&1) && bytes.is_multiple_of(size as u64) {
            break;
        }
    }
    let cpu = Usage::of_process().cpu.saturating_sub(process.cpu);
    let tally = Tally {
        bytes,
        cpu_ns: u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
        preempted: Usage::of_thread().preempted - thread.preempted,
    };
    line.send(&tally.encode())
}
