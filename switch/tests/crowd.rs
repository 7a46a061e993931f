//! A thousand connections at once between two processes. In a binary of its own, because it counts
//! what belongs to the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use support::role::{Role, connect, say};
use support::usage::{open_descriptors, raise_limit, resident, shared_mappings, threads, until};
use support::{Numbers, here};
use wsd_switch::{SanListener, SanStream};

const CONNECTIONS: usize = 1_000;
/// For one end of each. The listener uses no more than half for what is not accepted yet.
const DESCRIPTORS: u64 = 12_000;
const THREADS: usize = 8;
/// Crowds one after the other: what one connection leaves behind would add up.
const CROWDS: usize = 2;
/// The switch keeps up to 32 MiB for the next large transfers; how much of that a crowd touches is
/// up to chance. The rest is the allocator's. A connection uses more than 64 KiB while it is open.
const KEPT: usize = 40 << 20;
/// Events that threads keep for their next connect or sleep, and those of the switch's own threads.
const EVENTS: usize = 2 * THREADS;

/// The two directions and rounds of a connection carry different bytes.
fn bytes(index: usize, len: usize, what: usize) -> Vec<u8> {
    Numbers::new((index * 8 + what) as u64).bytes(len)
}

/// A little for most, by RDMA for some.
fn len(index: usize) -> usize {
    match index % 10 {
        0 => 200_001,
        1 => 1,
        _ => 64 + index,
    }
}

fn expect(mut stream: &SanStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == wanted);
}

/// Says to both directions of each connection what the other end expects: one after the other with
/// an answer, and then all at once.
fn converse(streams: &[SanStream], is_first: bool) {
    let (said, heard) = if is_first { (0, 1) } else { (1, 0) };
    for (index, mut stream) in streams.iter().enumerate() {
        if is_first {
            stream.write_all(&bytes(index, len(index), said)).unwrap();
        }
        expect(stream, &bytes(index, len(index), heard));
        if !is_first {
            stream.write_all(&bytes(index, len(index), said)).unwrap();
        }
    }
    for (index, mut stream) in streams.iter().enumerate() {
        stream.write_all(&bytes(index, 300, said + 2)).unwrap();
    }
    for (index, stream) in streams.iter().enumerate() {
        expect(stream, &bytes(index, 300, heard + 2));
    }
}

/// Every other connection is closed by this end first, the rest by the other.
fn close(streams: Vec<SanStream>, is_first: bool) {
    for (index, stream) in streams.iter().enumerate() {
        if (index % 2 == 0) == is_first {
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    for mut stream in streams {
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// What this process has before the connections, and must have again after them.
struct Start {
    descriptors: usize,
    threads: usize,
    mappings: usize,
    resident: usize,
}

impl Start {
    fn look() -> Start {
        // What the first connection left to be closed in the background.
        thread::sleep(Duration::from_millis(500));
        Start {
            descriptors: open_descriptors(),
            threads: threads(),
            mappings: shared_mappings(),
            resident: resident(),
        }
    }

    fn all_are_open(&self) {
        assert!(open_descriptors() >= self.descriptors + CONNECTIONS);
        assert!(shared_mappings() >= self.mappings + CONNECTIONS);
    }

    fn is_reached_again(&self) {
        until("every descriptor is closed", || {
            open_descriptors() <= self.descriptors + EVENTS
        });
        // The switch starts its one service thread when it is first needed.
        until("no thread is left", || threads() <= self.threads + 1);
        until("no memory is shared", || shared_mappings() <= self.mappings);
        until("the memory is given back", || {
            resident() <= self.resident + KEPT
        });
    }
}

#[test]
fn a_thousand_connections_at_once_between_two_processes_leave_nothing() {
    raise_limit(DESCRIPTORS);
    let listener = SanListener::bind((here(), 0)).unwrap();
    let mut role = Role::start("role_crowd", listener.local_addr().unwrap(), &[]);
    let mut control = listener.accept().unwrap().0;
    let start = Start::look();
    for _ in 0..CROWDS {
        control.write_all(b"!").unwrap();
        serve_a_crowd(&listener, &mut role, &start);
        control.read_exact(&mut [0]).unwrap();
    }
    drop(control);
    role.finish();
}

fn serve_a_crowd(listener: &SanListener, role: &mut Role, start: &Start) {
    // As with TCP, nobody who connects waits for `accept`.
    role.wait_for("all are connected");
    let mut streams: Vec<Option<SanStream>> = (0..CONNECTIONS).map(|_| None).collect();
    for _ in 0..CONNECTIONS {
        let mut stream = listener.accept().unwrap().0;
        assert!(stream.transport().is_san(), "{}", stream.transport());
        let mut index = [0; 4];
        stream.read_exact(&mut index).unwrap();
        let index = usize::try_from(u32::from_le_bytes(index)).unwrap();
        assert!(streams[index].replace(stream).is_none());
    }
    let streams: Vec<SanStream> = streams.into_iter().flatten().collect();
    assert_eq!(streams.len(), CONNECTIONS);
    start.all_are_open();
    converse(&streams, true);
    start.all_are_open();
    close(streams, true);
    start.is_reached_again();
}

#[test]
#[ignore = "a role"]
fn role_crowd() {
    raise_limit(DESCRIPTORS);
    let mut control = connect();
    let start = Start::look();
    for _ in 0..CROWDS {
        control.read_exact(&mut [0]).unwrap();
        be_a_crowd(&start);
        control.write_all(b"!").unwrap();
    }
}

fn be_a_crowd(start: &Start) {
    let connect_some = |first: usize| {
        let connect_one = |index: usize| {
            let mut stream = connect();
            let number = u32::try_from(index).unwrap();
            stream.write_all(&number.to_le_bytes()).unwrap();
            (index, stream)
        };
        let indices = (first..CONNECTIONS).step_by(THREADS);
        indices.map(connect_one).collect::<Vec<_>>()
    };
    let mut streams: Vec<(usize, SanStream)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || connect_some(first)))
            .collect();
        let ended = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        ended.collect()
    });
    streams.sort_by_key(|(index, _)| *index);
    let streams: Vec<SanStream> = streams.into_iter().map(|(_, stream)| stream).collect();
    start.all_are_open();
    say("all are connected");
    converse(&streams, false);
    close(streams, false);
    start.is_reached_again();
}
