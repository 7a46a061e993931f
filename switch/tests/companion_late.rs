//! Ends that come late, or again: the upgrade comes all the same, and no byte is lost before.
//!
//! What is waited for here lasts seconds by itself; the tests wait side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ends::{End, bytes, check, kernel_pair, to_and_fro, until, upgrade};
use wsd_switch::companion::{Path, Reason, Role};

/// As long as nobody waits who asks a few times at once.
const LATE: Duration = Duration::from_secs(10);

/// The end that is offered the SAN stands still for a while, or is taken up by its program late.
#[test]
fn an_offer_that_is_answered_after_ten_seconds_is_taken() {
    let (one, two) = kernel_pair();
    let one = End::new(one, Role::Connected);
    let sent = bytes(1, 100_000);
    one.send_all(&sent).unwrap();
    thread::sleep(LATE);
    let two = End::new(two, Role::Accepted);
    let mut room = vec![0; sent.len()];
    two.receive_exactly(&mut room).unwrap();
    check(1, 0, &room);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 1, 20);
}

/// The end that asks has given up, and has been told to leave the peer alone for a while.
#[test]
fn an_offer_that_is_made_after_ten_seconds_is_found() {
    let (one, two) = kernel_pair();
    let two = End::new(two, Role::Accepted);
    let sent = bytes(2, 100_000);
    two.send_all(&sent).unwrap();
    until("nobody has offered it", || {
        two.companion.reason() == Reason::PeerSilent
    });
    thread::sleep(LATE);
    let one = End::new(one, Role::Connected);
    let mut room = vec![0; sent.len()];
    one.receive_exactly(&mut room).unwrap();
    check(2, 0, &room);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 2, 20);
}

/// A plain client's connection, then one of a client that has been started again with the switch: at
/// first it is left alone for the sake of the one before.
#[test]
fn a_peer_that_is_started_again_with_the_switch_is_asked_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let mut plain = TcpStream::connect(at).unwrap();
    let first = End::new(listener.accept().unwrap().0, Role::Accepted);
    let (sent, mut room) = (bytes(3, 100_000), vec![0; 100_000]);
    plain.write_all(&sent).unwrap();
    first.receive_exactly(&mut room).unwrap();
    check(3, 0, &room);
    first.send_all(&sent).unwrap();
    plain.read_exact(&mut room).unwrap();
    check(3, 0, &room);
    until("a plain client does not answer", || {
        first.companion.reason() == Reason::PeerSilent
    });
    drop(plain);

    let one = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
    let two = End::new(listener.accept().unwrap().0, Role::Accepted);
    until("it is left alone, like the client before it", || {
        to_and_fro(&one, &two, 4, 20);
        two.companion.reason() == Reason::NegativeCache
    });
    assert_eq!([one.companion.path(), two.companion.path()], [Path::Tcp; 2]);
    thread::sleep(LATE);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 5, 20);
}

/// The same the other way round: a client knows of a plain server that its beacon was not asked for.
#[test]
#[ignore = "a client waits for a minute until it gives up"]
fn a_server_that_is_started_again_with_the_switch_is_offered_it_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let first = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
    let mut plain = listener.accept().unwrap().0;
    let (sent, mut room) = (bytes(6, 100_000), vec![0; 100_000]);
    first.send_all(&sent).unwrap();
    plain.read_exact(&mut room).unwrap();
    check(6, 0, &room);
    let end = Instant::now() + Duration::from_secs(90);
    while first.companion.reason() != Reason::PeerSilent {
        assert!(Instant::now() < end, "a plain server does not answer");
        thread::sleep(Duration::from_millis(100));
    }
    drop(plain);

    let one = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
    let two = End::new(listener.accept().unwrap().0, Role::Accepted);
    until("it is left alone, like the server before it", || {
        to_and_fro(&one, &two, 7, 20);
        one.companion.reason() == Reason::NegativeCache
    });
    thread::sleep(LATE);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 8, 20);
}
