//! Waiting for many things at once, calls that never wait, and sockets that the caller has made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libc::{POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP};
use support::{PATIENCE, here, pair};
use wsd_switch::{Mode, PollEntry, Pollable, SanListener, SanStream, StreamOptions, Switch, poll};

const MODES: [Mode; 3] = [Mode::Read, Mode::Write, Mode::Tcp];
const NOW: Option<Duration> = Some(Duration::ZERO);

fn events(stream: &SanStream, wanted: i16, time: Option<Duration>) -> i16 {
    let mut entries = [PollEntry::new(Pollable::Stream(stream), wanted)];
    let count = poll(&mut entries, time).unwrap();
    assert_eq!(count, usize::from(entries[0].events() != 0));
    entries[0].events()
}

#[test]
fn a_stream_tells_what_tcp_tells_from_its_beginning_to_its_end() {
    for mode in MODES {
        let (one, mut two) = pair(mode);
        assert_eq!(events(&one, POLLIN | POLLOUT, NOW), POLLOUT);
        assert_eq!(events(&one, POLLIN, NOW), 0);
        two.write_all(b"x").unwrap();
        assert_eq!(events(&one, POLLIN, Some(PATIENCE)), POLLIN);
        assert_eq!(events(&one, 0, NOW), 0);
        (&one).read_exact(&mut [0]).unwrap();
        assert_eq!(events(&one, POLLIN, NOW), 0);
        two.shutdown(Shutdown::Write).unwrap();
        let ended = POLLIN | POLLRDHUP;
        // Over TCP both bits come together; over a SAN, too.
        assert_eq!(events(&one, ended, Some(PATIENCE)), ended);
        assert_eq!(events(&one, POLLOUT, NOW), POLLOUT);
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(events(&one, 0, Some(PATIENCE)), POLLHUP);
    }
}

#[test]
fn a_wait_ends_with_whatever_happens_first_among_streams_listeners_and_descriptors() {
    let pairs: Vec<_> = MODES.into_iter().map(pair).collect();
    let listener = SanListener::bind((here(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let what = || {
        let mut entries: Vec<_> = pairs
            .iter()
            .map(|(one, _)| PollEntry::new(Pollable::Stream(one), POLLIN))
            .collect();
        entries.push(PollEntry::new(Pollable::Listener(&listener), POLLIN));
        let fd = reader.as_raw_fd();
        entries.push(PollEntry::new(Pollable::Descriptor(fd), POLLIN));
        entries.push(PollEntry::new(Pollable::Descriptor(-1), POLLIN));
        assert_eq!(poll(&mut entries, Some(PATIENCE)).unwrap(), 1);
        entries
            .iter()
            .position(|entry| entry.events() == POLLIN)
            .unwrap()
    };
    let soon = |act: &mut (dyn FnMut() + Send), expected| {
        thread::scope(|scope| {
            let waiting = scope.spawn(what);
            // Long enough for the wait to have begun, mostly; either way it has to end.
            thread::sleep(Duration::from_millis(20));
            act();
            assert_eq!(waiting.join().unwrap(), expected);
        });
    };
    for (at, (_, two)) in pairs.iter().enumerate() {
        soon(&mut || (&*two).write_all(b"!").unwrap(), at);
        let one = &pairs[at].0;
        (&*one).read_exact(&mut [0]).unwrap();
    }
    let mut kept = None;
    soon(&mut || kept = Some(SanStream::connect(at).unwrap()), 3);
    drop(listener.accept().unwrap());
    soon(&mut || writer.write_all(b"!").unwrap(), 4);
}

#[test]
fn a_full_stream_is_not_writable_until_the_peer_reads() {
    for mode in MODES {
        let (one, mut two) = pair(mode);
        let block = vec![7; 256 << 10];
        let mut sent = 0;
        loop {
            match one.try_write_vectored(&[IoSlice::new(&block)]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if events(&one, POLLOUT, Some(Duration::from_millis(100))) == 0 {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        let (go, begun) = mpsc::channel();
        let reader = thread::spawn(move || {
            begun.recv().unwrap();
            let mut room = vec![0; sent];
            two.read_exact(&mut room).unwrap();
            assert!(room.iter().all(|byte| *byte == 7));
            two
        });
        thread::scope(|scope| {
            let waiting = scope.spawn(|| events(&one, POLLOUT, Some(PATIENCE)));
            go.send(()).unwrap();
            assert_eq!(waiting.join().unwrap(), POLLOUT);
        });
        drop(reader.join().unwrap());
    }
}

#[test]
fn two_threads_wait_for_the_two_directions_of_one_stream() {
    for mode in MODES {
        let (one, two) = pair(mode);
        let block = vec![7; 64 << 10];
        while one.try_write_vectored(&[IoSlice::new(&block)]).is_ok() {}
        thread::scope(|scope| {
            let reading = scope.spawn(|| events(&one, POLLIN, Some(PATIENCE)));
            let blocked = scope.spawn(|| (&one).write(&block));
            (&two).write_all(b"x").unwrap();
            assert_eq!(reading.join().unwrap(), POLLIN);
            let mut room = vec![0; 1 << 20];
            while !blocked.is_finished() {
                // Whatever is there; the writer's turn comes when enough was taken.
                match two.try_read_vectored(&mut [IoSliceMut::new(&mut room)]) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            assert!(blocked.join().unwrap().is_ok());
        });
    }
}

#[test]
fn calls_that_never_wait_do_not_though_the_stream_does() {
    for mode in MODES {
        let (one, mut two) = pair(mode);
        let mut room = [0; 4];
        let empty = one.try_peek(&mut room).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::WouldBlock);
        let empty = one.try_read_vectored(&mut [IoSliceMut::new(&mut room)]);
        assert_eq!(empty.unwrap_err().kind(), ErrorKind::WouldBlock);
        two.write_all(b"ab").unwrap();
        assert_eq!(events(&one, POLLIN, Some(PATIENCE)), POLLIN);
        assert_eq!(one.try_peek(&mut room).unwrap(), 2);
        let (a, b) = room.split_at_mut(1);
        let mut rooms = [IoSliceMut::new(a), IoSliceMut::new(b)];
        assert_eq!(one.try_read_vectored(&mut rooms).unwrap(), 2);
        assert_eq!(&room[..2], b"ab");
        assert_eq!(one.try_send_urgent(b"u").unwrap(), 1);
    }
}

#[test]
fn the_descriptor_of_each_direction_is_readable_while_that_one_is_worth_a_call() {
    fn is_ready(fd: BorrowedFd<'_>, time: Duration) -> bool {
        let fd = Pollable::Descriptor(fd.as_raw_fd());
        poll(&mut [PollEntry::new(fd, POLLIN)], Some(time)).unwrap() == 1
    }
    let short = Duration::from_millis(50);
    for mode in MODES {
        let (one, mut two) = pair(mode);
        let read = one.read_descriptor().unwrap();
        let write = one.write_descriptor().unwrap();
        assert!(!is_ready(read, Duration::ZERO));
        assert!(is_ready(write, Duration::ZERO));
        let block = vec![7; 64 << 10];
        let mut sent = 0;
        let mut fill = || loop {
            match one.try_write_vectored(&[IoSlice::new(&block)]) {
                Ok(count) => sent += count,
                Err(_) if is_ready(write, short) => {}
                Err(_) => break,
            }
        };
        fill();
        // What can be read says nothing of the other direction, and hides nothing of it.
        two.write_all(b"x").unwrap();
        assert!(is_ready(read, PATIENCE));
        // News wakes both, and may have brought room for more.
        fill();
        assert!(is_ready(read, PATIENCE));
        assert!(!is_ready(write, short));
        let reader = thread::spawn(move || {
            two.read_exact(&mut vec![0; sent]).unwrap();
            two
        });
        assert!(is_ready(write, PATIENCE));
        assert!(one.try_write_vectored(&[IoSlice::new(b"y")]).unwrap() == 1);
        drop(reader.join().unwrap());
    }
}

#[test]
fn sockets_that_the_caller_has_made_listen_and_connect_over_the_san() {
    let switch = Switch::global();
    let options = StreamOptions::new();
    let made: OwnedFd = TcpListener::bind((here(), 0)).unwrap().into();
    let listener = switch.listen_on(made, 16, &options).unwrap();
    let at = listener.local_addr().unwrap();
    let socket = socket();
    let connecting =
        thread::spawn(move || Switch::global().connect_from(socket, at, &StreamOptions::new()));
    let (accepted, peer) = listener.accept().unwrap();
    let mut stream = connecting.join().unwrap().unwrap();
    assert!(stream.transport().is_san() && accepted.transport().is_san());
    assert_eq!(stream.local_addr().unwrap(), peer);
    stream.write_all(b"hello").unwrap();
    let mut room = [0; 5];
    (&accepted).read_exact(&mut room).unwrap();
    assert_eq!(&room, b"hello");
    assert!(stream.tcp_socket().is_none());
    let tcp = switch.connect_with(at, &StreamOptions::new().mode(Mode::Tcp));
    assert!(tcp.unwrap().tcp_socket().is_some());
}

#[test]
fn a_socket_whose_connect_was_refused_can_be_used_again() {
    let switch = Switch::global();
    for mode in [Mode::Auto, Mode::Tcp] {
        let options = StreamOptions::new().mode(mode);
        let closed = TcpListener::bind((here(), 0)).unwrap();
        let refused = closed.local_addr().unwrap();
        drop(closed);
        let socket = socket();
        for _ in 0..2 {
            let again = socket.try_clone().unwrap();
            let error = switch.connect_from(again, refused, &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        let listener = SanListener::bind((here(), 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let connecting = thread::spawn(move || switch.connect_from(socket, at, &options));
        let (accepted, peer) = listener.accept().unwrap();
        let stream = connecting.join().unwrap().unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer);
        assert_eq!(accepted.transport().is_san(), mode == Mode::Auto);
    }
}

#[test]
fn a_number_that_is_no_descriptor_is_told_as_such() {
    let (one, _two) = pair(Mode::Read);
    let mut entries = [
        PollEntry::new(Pollable::Stream(&one), POLLIN),
        PollEntry::new(Pollable::Descriptor(1 << 20), POLLIN),
    ];
    assert_eq!(poll(&mut entries, Some(PATIENCE)).unwrap(), 1);
    assert_eq!(entries[1].events(), POLLNVAL);
}

/// A TCP socket that is neither bound nor connected.
fn socket() -> OwnedFd {
    let family = if here().is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: the kernel has just handed it out.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
