//! Large data that readers look for before they read it: it is left with the peer for a read that
//! brings its buffer, as long as one may be expected soon.

use super::*;

const LEN: usize = 200_000;

/// A writer, and a reader that never waits in a read and whose last one took large data.
fn large_reader() -> (Arc<Connection>, Arc<Connection>, Vec<u8>) {
    let (one, two) = pair();
    two.set_nonblocking(true);
    let writer = Arc::clone(&one);
    let first = thread::spawn(move || write_all(&writer, &pattern(2 * LEN, 1)));
    assert!(read_as_told(&two, 2 * LEN, LEN) == pattern(2 * LEN, 1));
    first.join().unwrap();
    assert!(
        two.lock().transfers.is_at_once(),
        "the provider does not copy by itself"
    );
    let sent = pattern(LEN, 2);
    (one, two, sent)
}

/// Reads when the descriptor says so, with `room` bytes of room.
fn read_as_told(from: &Connection, len: usize, room: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut room = vec![0; room];
    while got.len() < len {
        match from.read(&mut room) {
            Ok(0) => panic!("the stream ended after {} of {len} bytes", got.len()),
            Ok(count) => got.extend_from_slice(&room[..count]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                assert!(poll(from, PATIENCE), "{} of {len}", got.len());
            }
        }
    }
    got
}

#[test]
fn a_read_after_a_look_gets_large_data_from_the_peer_itself() {
    let (one, two, sent) = large_reader();
    let mut left_with_the_peer = false;
    let end = Instant::now() + PATIENCE;
    // The reader is too late for most of them where processors are scarce.
    while !left_with_the_peer {
        assert!(Instant::now() < end);
        let (one, sent) = (Arc::clone(&one), sent.clone());
        let writer = thread::spawn(move || write_all(&one, &sent));
        assert!(poll(&two, PATIENCE));
        assert!(two.look().readable);
        left_with_the_peer = two.lock().keeps_waiting();
        assert!(read_as_told(&two, LEN, LEN) == pattern(LEN, 2));
        writer.join().unwrap();
    }
}

#[test]
fn large_data_that_nobody_comes_to_read_is_fetched_so_that_its_sender_may_go() {
    let (one, two, sent) = large_reader();
    let expected = sent.clone();
    let writer = Arc::clone(&one);
    let writer = thread::spawn(move || write_all(&writer, &sent));
    assert!(poll(&two, PATIENCE));
    assert!(two.look().readable);
    writer.join().unwrap();
    one.shutdown(Shutdown::Write).unwrap();
    let end = Instant::now() + PATIENCE;
    while one.lock().transfers.has_sends() {
        assert!(Instant::now() < end, "it stays with the peer for ever");
        thread::sleep(Duration::from_millis(1));
    }
    two.set_nonblocking(false);
    assert!(read_exact(&two, LEN) == expected);
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
}

#[test]
fn who_has_little_room_gets_large_data_that_was_left_for_a_large_read() {
    let (one, two, sent) = large_reader();
    let expected = sent.clone();
    let writer = thread::spawn(move || write_all(&one, &sent));
    assert!(poll(&two, PATIENCE));
    assert!(two.look().readable);
    assert!(read_as_told(&two, LEN, 1000) == expected);
    writer.join().unwrap();
}

#[test]
fn who_asks_how_much_there_is_to_read_is_told_of_large_data_that_was_left_for_a_large_read() {
    let (one, two, sent) = large_reader();
    let expected = sent.clone();
    let writer = thread::spawn(move || write_all(&one, &sent));
    let end = Instant::now() + PATIENCE;
    while two.unread() < LEN as u64 {
        assert!(Instant::now() < end, "only {}", two.unread());
        assert!(poll(&two, PATIENCE));
        two.look();
        two.fetch_ahead();
    }
    assert!(read_as_told(&two, LEN, LEN) == expected);
    writer.join().unwrap();
}
