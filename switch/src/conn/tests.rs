//! Two connections over the linked provider in one process: the data path without the rest of the
//! switch.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use wsdirect::abi;

use super::Connection;
use super::companion::Zeal;
use super::drive::Watch;
use crate::options::{Mode, SendPolicy, StreamOptions};
use crate::provider::Provider;
use crate::socket::SanSocket;
use crate::sys::{self, PollFd};
use crate::table::EntryPoint;

mod ahead;
mod kept;

const PATIENCE: Duration = Duration::from_secs(60);

fn provider() -> Arc<Provider> {
    static PROVIDER: OnceLock<Arc<Provider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        let entry = EntryPoint::linked();
        Arc::new(Provider::start(entry).unwrap().0)
    });
    Arc::clone(provider)
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn wait_for(socket: &SanSocket, bit: i32) {
    let end = Instant::now() + PATIENCE;
    while socket.enum_events().unwrap().lNetworkEvents & bit == 0 {
        assert!(Instant::now() < end, "no event");
        thread::sleep(Duration::from_millis(1));
    }
}

fn sockets() -> (SanSocket, SanSocket) {
    let (at, from) = (free_address(), free_address());
    let mut listener = SanSocket::bound(&provider(), at).unwrap();
    listener.listen(4).unwrap();
    listener.event_select(abi::FD_ACCEPT).unwrap();
    let mut connecting = SanSocket::bound(&provider(), from).unwrap();
    connecting.event_select(abi::FD_CONNECT).unwrap();
    let at_once = connecting.connect(at).unwrap();
    wait_for(&listener, abi::FD_ACCEPT);
    let accepted = listener.accept(&mut |_| true).unwrap();
    if !at_once {
        wait_for(&connecting, abi::FD_CONNECT);
    }
    (connecting, accepted)
}

/// The connector and the acceptor.
fn pair_with(
    connector: &StreamOptions,
    acceptor: &StreamOptions,
) -> (Arc<Connection>, Arc<Connection>) {
    negotiated(sockets(), connector, acceptor)
}

fn negotiated(
    (connecting, accepted): (SanSocket, SanSocket),
    connector: &StreamOptions,
    acceptor: &StreamOptions,
) -> (Arc<Connection>, Arc<Connection>) {
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result| tell.send(result).unwrap());
    Connection::accept(accepted, acceptor, PATIENCE, done);
    let one = Connection::connect(connecting, connector, None).unwrap();
    (one, told.recv_timeout(PATIENCE).unwrap().unwrap())
}

pub(crate) fn pair() -> (Arc<Connection>, Arc<Connection>) {
    pair_with(&StreamOptions::new(), &StreamOptions::new())
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn write_all(to: &Connection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = to.write(bytes).unwrap();
        bytes = &bytes[count..];
    }
}

fn read_exact(from: &Connection, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let count = from.read(&mut bytes[done..]).unwrap();
        assert_ne!(count, 0, "the stream ended after {done} of {len} bytes");
        done += count;
    }
    bytes
}

#[test]
fn bytes_cross_in_both_directions() {
    let (one, two) = pair();
    write_all(&one, b"hello");
    assert_eq!(read_exact(&two, 5), b"hello");
    write_all(&two, b"world!");
    assert_eq!(read_exact(&one, 6), b"world!");
    assert_eq!(one.stats().bytes_sent, 5);
    assert_eq!(one.peer_addr(), two.local_addr());
}

fn large_data_crosses(options: &StreamOptions, len: usize) -> (super::Stats, super::Stats) {
    let (one, two) = pair_with(options, options);
    let sent = pattern(len, 7);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        write_all(&one, &copy);
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(one.read(&mut [0]).unwrap(), 0);
        one.stats()
    });
    assert!(read_exact(&two, len) == sent);
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
    let stats = two.stats();
    two.shutdown(Shutdown::Write).unwrap();
    (writer.join().unwrap(), stats)
}

/// req: SEED-05 SEED-06 SEED-07 SEED-08 SEED-09 SEED-13
#[test]
fn large_data_is_read_by_the_receiver() {
    for policy in [
        SendPolicy::Auto,
        SendPolicy::ZeroCopy,
        SendPolicy::Background,
    ] {
        let options = StreamOptions::new().send_policy(policy);
        let (sender, receiver) = large_data_crosses(&options, 9_000_001);
        assert!(
            receiver.rdma_reads > 0 && receiver.rdma_read_bytes > 8_000_000,
            "{receiver:?}"
        );
        assert_eq!((sender.rdma_writes, receiver.rdma_writes), (0, 0));
    }
}

/// req: SEED-11 SEED-12 SEED-14 SEED-15 SEED-17
#[test]
fn large_data_is_written_by_the_sender() {
    for policy in [
        SendPolicy::Auto,
        SendPolicy::ZeroCopy,
        SendPolicy::Background,
    ] {
        let options = StreamOptions::new().send_policy(policy).mode(Mode::Write);
        let (sender, receiver) = large_data_crosses(&options, 9_000_001);
        assert!(
            sender.rdma_writes > 0 && sender.rdma_write_bytes > 8_000_000,
            "{sender:?}"
        );
        assert_eq!((sender.rdma_reads, receiver.rdma_reads), (0, 0));
    }
}

/// req: WSD-20
#[test]
fn the_threshold_divides_messages_from_rdma() {
    let (one, two) = pair();
    let threshold = {
        let state = one.lock();
        usize::try_from(state.session.peer().unwrap().threshold).unwrap()
    };
    for (len, large) in [(threshold - 1, 0), (threshold, 0), (threshold + 1, 1)] {
        let before = one.stats().large_sent;
        let sent = pattern(len, 3);
        write_all(&one, &sent);
        assert!(read_exact(&two, len) == sent);
        assert_eq!(one.stats().large_sent - before, large, "{len} bytes");
    }
}

#[test]
fn single_bytes_are_merged_while_the_peer_is_busy() {
    let (one, two) = pair();
    let sent = pattern(20_000, 5);
    for byte in &sent {
        write_all(&one, std::slice::from_ref(byte));
    }
    assert!(read_exact(&two, sent.len()) == sent);
    let messages = two.stats().messages_received;
    assert!(messages < 1000, "{messages} messages");
}

#[test]
fn a_thread_may_write_a_lot_before_it_reads_the_other_end() {
    let (one, two) = pair();
    let sent = pattern(3_000_000, 9);
    write_all(&one, &sent);
    write_all(&two, &sent);
    assert!(read_exact(&two, sent.len()) == sent);
    assert!(read_exact(&one, sent.len()) == sent);
}

#[test]
fn both_sides_may_write_large_data_at_once() {
    let options = StreamOptions::new().send_policy(SendPolicy::ZeroCopy);
    for mode in [Mode::Auto, Mode::Write] {
        let options = options.clone().mode(mode);
        let (one, two) = pair_with(&options, &options);
        let run = |end: Arc<Connection>, mine: u64, theirs: u64| {
            thread::spawn(move || {
                let mine = pattern(2_000_000, mine);
                let theirs = pattern(2_000_000, theirs);
                for _ in 0..3 {
                    write_all(&end, &mine);
                    assert!(read_exact(&end, theirs.len()) == theirs);
                }
            })
        };
        let threads = [run(one, 1, 2), run(two, 2, 1)];
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_reader_and_a_writer_share_a_connection() {
    let (one, two) = pair();
    let mut threads = Vec::new();
    for (end, mine, theirs) in [(&one, 1, 2), (&two, 2, 1)] {
        let (writer, reader) = (Arc::clone(end), Arc::clone(end));
        threads.push(thread::spawn(move || {
            let bytes = pattern(5_000_000, mine);
            let mut rest = &bytes[..];
            let mut size = 1;
            while !rest.is_empty() {
                let count = size.min(rest.len());
                write_all(&writer, &rest[..count]);
                rest = &rest[count..];
                size = size * 5 / 3 % 200_000 + 1;
            }
        }));
        threads.push(thread::spawn(move || {
            let expected = pattern(5_000_000, theirs);
            let mut done = 0;
            let mut size = 3;
            while done < expected.len() {
                let mut room = vec![0; size];
                let count = reader.read(&mut room).unwrap();
                assert!(count > 0);
                assert!(room[..count] == expected[done..done + count], "at {done}");
                done += count;
                size = size * 7 / 4 % 300_000 + 1;
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn vectored_calls_and_peek_see_one_stream() {
    let (one, two) = pair();
    let slices = [
        IoSlice::new(b"ab"),
        IoSlice::new(b""),
        IoSlice::new(b"cdef"),
    ];
    assert_eq!(one.write_vectored(&slices).unwrap(), 6);
    let mut seen = [0; 4];
    assert_eq!(two.peek(&mut seen).unwrap(), 4);
    assert_eq!(&seen, b"abcd");
    let (mut front, mut back) = ([0; 1], [0; 9]);
    let mut buffers = [IoSliceMut::new(&mut front), IoSliceMut::new(&mut back)];
    assert_eq!(two.read_vectored(&mut buffers).unwrap(), 6);
    assert_eq!((&front, &back[..5]), (b"a", &b"bcdef"[..]));
    let large = pattern(400_000, 1);
    let halves = large.split_at(150_000);
    let slices = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
    let count = one.write_vectored(&slices).unwrap();
    assert!(read_exact(&two, count) == large[..count]);
}

#[test]
fn time_outs_end_a_wait() {
    let (one, two) = pair();
    assert!(one.set_read_timeout(Some(Duration::ZERO)).is_err());
    one.set_read_timeout(Some(Duration::from_millis(30)))
        .unwrap();
    let error = one.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    one.set_write_timeout(Some(Duration::from_millis(30)))
        .unwrap();
    let bytes = pattern(1 << 20, 1);
    let mut accepted = Vec::new();
    let error = loop {
        match one.write(&bytes) {
            Ok(count) => accepted.extend_from_slice(&bytes[..count]),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(read_exact(&two, accepted.len()) == accepted);
}

fn poll(connection: &Connection, time: Duration) -> bool {
    let mut fds = [PollFd::readable(connection.descriptor())];
    sys::wait(&mut fds, sys::deadline_after(time)).unwrap() > 0
}

#[test]
fn a_nonblocking_stream_is_driven_by_its_descriptor() {
    for (mode, len) in [
        (Mode::Auto, 30_000_000),
        (Mode::Write, 30_000_000),
        (Mode::Auto, 100),
    ] {
        let options = StreamOptions::new().mode(mode);
        let (one, two) = pair_with(&options, &options);
        one.set_nonblocking(true);
        two.set_nonblocking(true);
        assert!(!poll(&two, Duration::ZERO));
        let sent = pattern(len, 4);
        let expected = sent.clone();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut room = vec![0; 100_000];
            loop {
                match two.read(&mut room) {
                    Ok(0) => return assert!(got == expected),
                    Ok(count) => got.extend_from_slice(&room[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        assert!(poll(&two, PATIENCE), "{} of {len}", got.len());
                    }
                }
            }
        });
        let mut rest = &sent[..];
        while !rest.is_empty() {
            match one.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    assert!(poll(&one, PATIENCE), "{} to go", rest.len());
                }
            }
        }
        one.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap();
    }
}

#[test]
fn the_descriptor_is_readable_while_something_is_unread() {
    let (one, two) = pair();
    assert!(!poll(&two, Duration::ZERO));
    write_all(&one, b"abc");
    assert!(poll(&two, PATIENCE));
    assert_eq!(read_exact(&two, 1), b"a");
    assert!(poll(&two, Duration::ZERO));
    assert_eq!(read_exact(&two, 2), b"bc");
    assert!(!poll(&two, Duration::ZERO));
    one.close_in_background();
    assert!(poll(&two, PATIENCE));
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
}

#[test]
fn urgent_bytes_go_apart_or_in_line() {
    let (one, two) = pair();
    assert!(two.read_urgent().is_err());
    write_all(&one, b"12");
    assert_eq!(one.write_urgent(b"3!").unwrap(), 2);
    write_all(&one, b"45");
    let mut room = [0; 16];
    let mut seen = two.read(&mut room).unwrap();
    while seen < 3 || !two.is_at_mark() {
        let count = two.read(&mut room[seen..]).unwrap();
        seen += count;
    }
    assert_eq!(&room[..seen], b"123");
    assert_eq!(two.read_urgent().unwrap(), b'!');
    assert_eq!(read_exact(&two, 2), b"45");
    assert!(!two.is_at_mark());
    two.set_urgent_inline(true);
    assert_eq!(one.write_urgent(b"6?").unwrap(), 2);
    write_all(&one, b"7");
    assert_eq!(read_exact(&two, 3), b"6?7");
}

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    let (one, two) = pair();
    write_all(&one, b"last words");
    one.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        one.write(b"x").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
    assert_eq!(read_exact(&two, 10), b"last words");
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
    write_all(&two, &pattern(500_000, 2));
    assert!(read_exact(&one, 500_000) == pattern(500_000, 2));
    two.shutdown(Shutdown::Read).unwrap();
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_shutdown_from_another_thread_ends_a_wait() {
    let (one, _two) = pair();
    let waiting = Arc::clone(&one);
    let reader = thread::spawn(move || waiting.read(&mut [0]));
    thread::sleep(Duration::from_millis(50));
    one.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 0);
    let waiting = Arc::clone(&one);
    let writer = thread::spawn(move || {
        let bytes = pattern(64 << 20, 1);
        waiting.write(&bytes)
    });
    thread::sleep(Duration::from_millis(50));
    one.shutdown(Shutdown::Write).unwrap();
    if let Ok(count) = writer.join().unwrap() {
        assert!(count < 64 << 20);
    }
}

#[test]
fn what_was_written_arrives_after_the_stream_was_dropped() {
    for (mode, len) in [
        (Mode::Auto, 3_500_000),
        (Mode::Write, 3_500_000),
        (Mode::Auto, 10),
    ] {
        let options = StreamOptions::new()
            .mode(mode)
            .send_policy(SendPolicy::Background);
        let (one, two) = pair_with(&options, &options);
        let sent = pattern(len, 8);
        write_all(&one, &sent);
        one.close_in_background();
        drop(one);
        thread::sleep(Duration::from_millis(20));
        assert!(read_exact(&two, len) == sent);
        assert_eq!(two.read(&mut [0]).unwrap(), 0);
        two.close_in_background();
    }
}

/// A pair whose first end has accepted, in small writes, more than its session takes at a time.
fn pair_with_a_full_outbox() -> (Arc<Connection>, Arc<Connection>, Vec<u8>) {
    let (mut connecting, mut accepted) = sockets();
    connecting.pretend_threshold(1000);
    accepted.pretend_threshold(1000);
    let options = StreamOptions::new();
    let (one, two) = negotiated((connecting, accepted), &options, &options);
    let sent = pattern(200_000, 6);
    for piece in sent.chunks(900) {
        assert_eq!(one.write(piece).unwrap(), piece.len());
    }
    {
        let state = one.lock();
        let most = 1000 * state.session.config().max_sends;
        assert!(state.outbox.unhanded() > most, "the test is void");
    }
    (one, two, sent)
}

#[test]
fn a_thread_that_takes_a_wake_up_leaves_the_service_thread_another() {
    let (one, _two, _sent) = pair_with_a_full_outbox();
    // The outbox waits for credit, and only the service thread waits with it.
    let end = Instant::now() + PATIENCE;
    let mut state = loop {
        let state = one.lock();
        if state.watch == Watch::On {
            break state;
        }
        drop(state);
        assert!(Instant::now() < end, "not looked after");
        thread::sleep(Duration::from_millis(1));
    };
    // What a thread does that is about to sleep, and then finds that it need not.
    let _ = one.arm(&mut state);
    assert_eq!(state.watch, Watch::Disturbed);
    one.leave(state);
    assert_ne!(one.lock().watch, Watch::Disturbed);
}

#[test]
fn who_sleeps_in_a_poll_set_hears_what_another_thread_takes() {
    let (one, two) = pair();
    let descriptor = loop {
        if let Some(descriptor) = two.arm_for_news() {
            break descriptor;
        }
    };
    let is_readable = || {
        let fd = PollFd::readable(two.outside.descriptor().unwrap());
        sys::wait(&mut [fd], Some(Instant::now())).unwrap() > 0
    };
    assert!(!is_readable());
    assert_eq!(one.write(b"news").unwrap(), 4);
    // Another thread takes it, and prepares for sleep itself.
    let end = Instant::now() + PATIENCE;
    while !two.look().readable {
        assert!(Instant::now() < end, "nothing arrives");
    }
    let mut state = two.lock();
    while !matches!(two.arm(&mut state), super::wait::Armed::Descriptor(_)) {
        while state.poll(&two.socket, None) {}
    }
    two.leave(state);
    assert!(is_readable(), "the wake-up is lost");
    // One who looks and does not go to sleep leaves the news to the others.
    assert_eq!(two.arm_for_news(), None);
    assert!(is_readable(), "one has taken it from all");
    assert_eq!(two.arm_for_news(), Some(descriptor));
    assert!(!is_readable());
}

#[test]
fn who_looks_from_outside_does_not_ring_for_itself() {
    let (one, two) = pair();
    let armed = || loop {
        if two.arm_for_news().is_some() {
            break;
        }
    };
    let rung = || two.lock().outsiders.is_rung();
    armed();
    assert_eq!(one.write(b"news").unwrap(), 4);
    let end = Instant::now() + PATIENCE;
    while !two.look_from_outside().readable {
        assert!(Instant::now() < end, "nothing arrives");
    }
    assert!(!rung());
    // What others take is another matter.
    armed();
    assert_eq!(one.write(b"more").unwrap(), 4);
    let mut bytes = [0; 8];
    let mut got = 0;
    while got < bytes.len() {
        got += two.read(&mut bytes[got..]).unwrap();
    }
    assert!(rung());
}

#[test]
fn what_others_attend_is_left_alone_by_the_service_thread() {
    struct Nobody;
    impl super::Observer for Nobody {
        fn news(&self) {}
    }
    let (one, two) = pair();
    let observer: Arc<dyn super::Observer> = Arc::new(Nobody);
    two.attend(Some((Arc::downgrade(&observer), Zeal::Low)));
    assert!(two.adopted.load(Ordering::SeqCst));
    two.attend(Some((Arc::downgrade(&observer), Zeal::Never)));
    let end = Instant::now() + PATIENCE;
    while two.adopted.load(Ordering::SeqCst) {
        assert!(Instant::now() < end, "still looked after");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(one.write(b"news").unwrap(), 4);
    assert_eq!(read_exact(&two, 4), b"news");
    assert!(!two.adopted.load(Ordering::SeqCst));
    two.attend(Some((Arc::downgrade(&observer), Zeal::Low)));
    assert!(two.adopted.load(Ordering::SeqCst));
}

#[test]
fn a_shutdown_comes_after_everything_that_was_written() {
    let (one, two, sent) = pair_with_a_full_outbox();
    one.shutdown(Shutdown::Write).unwrap();
    let piece = pattern(100_000, 1);
    for refused in [
        one.write(b"x"),
        one.write(b""),
        one.write(&piece),
        one.write_urgent(b"x"),
    ] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
    one.shutdown(Shutdown::Write).unwrap();
    assert!(read_exact(&two, sent.len()) == sent);
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
    write_all(&two, b"answer");
    assert_eq!(read_exact(&one, 6), b"answer");
}

#[test]
fn a_close_comes_after_everything_that_was_written() {
    for shut_before in [false, true] {
        let (one, two, sent) = pair_with_a_full_outbox();
        if shut_before {
            one.shutdown(Shutdown::Write).unwrap();
        }
        one.close_in_background();
        drop(one);
        thread::sleep(Duration::from_millis(20));
        assert!(read_exact(&two, sent.len()) == sent);
        assert_eq!(two.read(&mut [0]).unwrap(), 0);
    }
    let (one, two, sent) = pair_with_a_full_outbox();
    let closer = thread::spawn(move || one.close());
    assert!(read_exact(&two, sent.len()) == sent);
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
    two.close().unwrap();
    closer.join().unwrap().unwrap();
}

#[test]
fn a_close_without_lingering_resets_what_still_waits() {
    let (one, two, sent) = pair_with_a_full_outbox();
    one.set_linger(Some(Duration::ZERO));
    one.close_in_background();
    let mut room = vec![0; sent.len()];
    let mut done = 0;
    let error = loop {
        match two.read(&mut room[done..]) {
            Ok(0) => panic!("an end after {done} bytes"),
            Ok(count) => done += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(sent.starts_with(&room[..done]));
}

#[test]
fn a_read_that_times_out_on_large_data_leaves_the_connection_alive() {
    for mode in [Mode::Write, Mode::Auto] {
        let options = StreamOptions::new()
            .mode(mode)
            .send_policy(SendPolicy::Background);
        let (one, two) = pair_with(&options, &options);
        let sent = pattern(1 << 20, 2);
        let mut room = vec![0; sent.len()];
        let mut done = 0;
        write_all(&one, &sent);
        two.set_read_timeout(Some(Duration::from_millis(30)))
            .unwrap();
        {
            // Nobody drives the peer meanwhile.
            let stalled = one.lock();
            while done < room.len() {
                match two.read(&mut room[done..]) {
                    Ok(count) => {
                        assert_ne!(count, 0);
                        done += count;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            drop(stalled);
        }
        // Only where the peer writes is it needed for the bytes to come.
        assert!(mode == Mode::Auto || done < sent.len());
        two.set_read_timeout(None).unwrap();
        room.truncate(done);
        room.extend(read_exact(&two, sent.len() - done));
        assert!(room == sent);
        write_all(&two, b"alive");
        assert_eq!(read_exact(&one, 5), b"alive");
    }
}

#[test]
fn closing_waits_for_the_peer() {
    let (one, two) = pair();
    let sent = pattern(1_000_000, 8);
    write_all(&one, &sent);
    let reader = thread::spawn(move || {
        let got = read_exact(&two, 1_000_000);
        assert_eq!(two.read(&mut [0]).unwrap(), 0);
        two.close().unwrap();
        got
    });
    one.close().unwrap();
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn unread_data_or_no_lingering_makes_a_close_a_reset() {
    let (one, two) = pair();
    write_all(&one, b"unread");
    while two.stats().unread == 0 {
        two.peek(&mut [0]).unwrap();
    }
    two.close_in_background();
    let error = one.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (one, two) = pair();
    two.set_linger(Some(Duration::ZERO));
    two.close_in_background();
    let error = one.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(one.take_error().is_some());
    assert!(one.take_error().is_none());
    assert!(one.write(b"x").is_err());
}

#[test]
fn a_peer_that_vanishes_ends_every_wait() {
    let (one, two) = pair();
    let waiting = Arc::clone(&one);
    let reader = thread::spawn(move || waiting.read(&mut [0]));
    let writing = Arc::clone(&one);
    let writer = thread::spawn(move || {
        let bytes = pattern(64 << 20, 1);
        let mut done = 0;
        while done < bytes.len() {
            match writing.write(&bytes[done..]) {
                Ok(count) => done += count,
                Err(error) => return error.kind(),
            }
        }
        panic!("nobody read it");
    });
    thread::sleep(Duration::from_millis(50));
    two.socket.close();
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(writer.join().unwrap(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_to_a_silent_peer_times_out() {
    let (connecting, accepted) = sockets();
    let soon = Instant::now() + Duration::from_millis(100);
    let error = Connection::connect(connecting, &StreamOptions::new(), Some(soon)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(accepted);
    let (silent, accepted) = sockets();
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result| tell.send(result).unwrap());
    Connection::accept(
        accepted,
        &StreamOptions::new(),
        Duration::from_millis(100),
        done,
    );
    let error = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(silent);
}

/// Figures for people: `cargo test --release -p wsd-switch --lib figures -- --ignored --nocapture`.
/// Measured in short slices, of which the best and the middle one are told: a busy machine spoils
/// many of them. `LEN` picks one length, `ONE_THREAD` leaves the other thread out.
#[test]
#[ignore = "measures, decides nothing"]
#[allow(clippy::cast_precision_loss)]
fn figures() {
    let only = std::env::var("LEN")
        .ok()
        .and_then(|len| len.parse::<usize>().ok());
    let one_thread = std::env::var_os("ONE_THREAD").is_some();
    for mode in [Mode::Auto, Mode::Write] {
        let options = StreamOptions::new().mode(mode);
        for len in [8, 64, 4096, 65536, 1 << 20] {
            if only.is_some_and(|only| only != len) {
                continue;
            }
            let slice = (2_000_000 / len.max(1000)).max(4);
            let say = |what: &str, mut slices: Vec<Duration>, per: usize| {
                slices.sort_unstable();
                let one = |slice: Duration| slice.as_secs_f64() * 1e6 / per as f64;
                let (best, middle) = (one(slices[0]), one(slices[slices.len() / 2]));
                let rate = |micros: f64| len as f64 / micros / 1e3;
                println!(
                    "{mode:?} {len:>8} {what:<12} best {best:9.3} us {:6.2} GB/s, middle {middle:9.3} us {:6.2} GB/s",
                    rate(best),
                    rate(middle),
                );
            };
            let (one, two) = pair_with(&options, &options);
            let mut room = vec![0; len];
            let bytes = vec![1; len];
            let mut slices = Vec::new();
            for _ in 0..200 {
                let start = Instant::now();
                for _ in 0..slice {
                    write_all(&one, &bytes);
                    read_into(&two, &mut room);
                }
                slices.push(start.elapsed());
            }
            say("one thread", slices, slice);
            if one_thread {
                continue;
            }
            let echo = thread::spawn(move || {
                let mut room = vec![0; len];
                for _ in 0..200 * slice {
                    read_into(&two, &mut room);
                    write_all(&two, &room);
                }
            });
            let mut slices = Vec::new();
            for _ in 0..200 {
                let start = Instant::now();
                for _ in 0..slice {
                    write_all(&one, &bytes);
                    read_into(&one, &mut room);
                }
                slices.push(start.elapsed());
            }
            echo.join().unwrap();
            say("half trip", slices, 2 * slice);
            let (one, two) = pair_with(&options, &options);
            let slice = 4 * slice;
            let reader = thread::spawn(move || {
                let mut room = vec![0; len.max(65536)];
                let mut slices = Vec::new();
                for _ in 0..200 {
                    let (start, mut done) = (Instant::now(), 0);
                    while done < slice * len {
                        let most = room.len().min(slice * len - done);
                        done += two.read(&mut room[..most]).unwrap();
                    }
                    slices.push(start.elapsed());
                }
                (slices, two.stats())
            });
            for _ in 0..200 * slice {
                write_all(&one, &bytes);
            }
            let (slices, stats) = reader.join().unwrap();
            say("stream", slices, slice);
            println!("    sender {:?}\n    receiver {:?}", one.stats(), stats);
        }
    }
}

fn read_into(from: &Connection, room: &mut [u8]) {
    let mut done = 0;
    while done < room.len() {
        done += from.read(&mut room[done..]).unwrap();
    }
}
