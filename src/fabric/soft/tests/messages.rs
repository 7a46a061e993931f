//! Connections and messages inside one process.

use std::net::SocketAddr;

use super::rig::{Host, Rig, free_address, number, of_this_host, until};
use crate::fabric::soft::Options;
use crate::fabric::{
    ArmFor, ConnectError, Ending, Event, ListenError, OpId, Outcome, Piece, Post, PostError,
    Posted, Token,
};

#[test]
fn a_message_arrives_whole_over_both_families() {
    for ip in of_this_host(&["127.0.0.1", "127.3.2.1", "::1"]) {
        let mut rig = Rig::at(Options::default(), ip);
        let (mut a, mut b) = rig.pair();
        assert!(matches!(a.send(b"hello"), Ok((_, Posted::Done(5)))));
        assert_eq!(b.take(), b"hello");
        b.send(b"and back").unwrap();
        assert_eq!(a.take(), b"and back");
        b.send(b"").unwrap();
        assert_eq!(a.take(), b"");
    }
}

#[test]
fn a_listener_on_the_wildcard_address_is_found_and_an_exact_one_goes_before_it() {
    let mut host = Host::new(Options::default());
    let (any, exact) = (Token(number()), Token(number()));
    let (port, _any) = until("a free port", || {
        let at = free_address("0.0.0.0");
        Some((at.port(), host.fabric.listen(any, at).ok()?))
    });
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    let _exact = host.fabric.listen(exact, at("127.0.0.2")).unwrap();
    assert_eq!(
        host.fabric.listen(exact, at("127.0.0.2")).err(),
        Some(ListenError::AddressInUse)
    );
    let here = Token(number());
    let from = "0.0.0.0:0".parse().unwrap();
    let _one = host.fabric.connect(here, from, at("127.0.0.1")).unwrap();
    assert_eq!(host.request(any).local(), at("127.0.0.1"));
    let _two = host.fabric.connect(here, from, at("127.0.0.2")).unwrap();
    assert_eq!(host.request(exact).local(), at("127.0.0.2"));
}

#[test]
fn sends_beyond_the_ring_wait_in_order_and_beyond_the_depth_are_refused() {
    let options = Options {
        send_depth: 8,
        ring_size: 256 << 10,
        ..Options::default()
    };
    let mut rig = Rig::new(options);
    let (mut a, mut b) = rig.pair();
    let mut pending = Vec::new();
    let mut sent = 0u8;
    loop {
        match a.send_at(usize::from(sent) * 50_000, &vec![sent; 50_000]) {
            Ok((op, Posted::Pending)) => pending.push(op),
            Ok((_, Posted::Done(50_000))) => assert!(pending.is_empty()),
            Err(PostError::Full) => break,
            other => panic!("{other:?}"),
        }
        sent += 1;
    }
    assert_eq!(pending.len(), 8);
    let mut ended = Vec::new();
    for number in 0..sent {
        let message = b.take();
        assert_eq!(message.len(), 50_000);
        assert!(message.iter().all(|&byte| byte == number));
        a.poll();
        ended.extend(a.completions.drain(..).map(|completion| {
            assert_eq!(completion.outcome, Outcome::Done(50_000));
            completion.op
        }));
    }
    assert_eq!(ended, pending);
}

#[test]
fn receives_are_filled_in_posting_order_and_pieces_are_gathered_and_scattered() {
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    let first = b.receive(0, 100);
    let second = b.receive(100, 100);
    a.out.bytes[..10].copy_from_slice(b"0123456789");
    let pieces = [a.out.piece(5, 5), a.out.piece(0, 0), a.out.piece(0, 3)];
    assert_eq!(
        a.endpoint.post(Post::Send {
            op: OpId(1),
            pieces: &pieces
        }),
        Ok(Posted::Done(8))
    );
    a.send(b"two").unwrap();
    assert_eq!(b.end(second), Outcome::Done(3));
    assert_eq!(b.end(first), Outcome::Done(8));
    assert_eq!(&b.inward.bytes[..8], b"56789012");
    assert_eq!(&b.inward.bytes[100..103], b"two");
    let op = OpId(number());
    let pieces = [b.inward.piece(0, 2), b.inward.piece(1000, 10)];
    assert_eq!(
        b.endpoint.post(Post::Receive {
            op,
            pieces: &pieces
        }),
        Ok(Posted::Pending)
    );
    a.send(b"abcdef").unwrap();
    assert_eq!(b.end((op, Posted::Pending)), Outcome::Done(6));
    assert_eq!(&b.inward.bytes[..2], b"ab");
    assert_eq!(&b.inward.bytes[1000..1004], b"cdef");
}

#[test]
fn a_message_waits_in_the_ring_until_a_receive_is_posted() {
    // req: WSD-09
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    a.send(&[7; 256]).unwrap();
    b.poll();
    assert!(b.completions.is_empty());
    assert_eq!(b.receive(0, 256).1, Posted::Done(256));
    assert_eq!(b.inward.bytes[..256], [7; 256]);
}

#[test]
fn a_message_larger_than_the_receive_ends_the_connection() {
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    let small = b.receive(0, 4);
    let next = b.receive(100, 100);
    a.send(b"12345").unwrap();
    assert_eq!(b.end(small), Outcome::Truncated);
    assert_eq!(b.end(next), Outcome::Flushed(Ending::Broken));
    assert_eq!(b.inward.bytes[..200], [0; 200]);
    assert_eq!(b.endpoint.ending(), Some(Ending::Broken));
    let waiting = a.receive(0, 10);
    assert_eq!(a.end(waiting), Outcome::Flushed(Ending::Peer));
}

#[test]
fn what_was_sent_before_a_disconnect_is_delivered_before_the_end() {
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    for number in 0..10 {
        a.send(&[number; 1000]).unwrap();
    }
    let pending = a.receive(0, 10);
    a.endpoint.disconnect();
    assert_eq!(a.end(pending), Outcome::Flushed(Ending::Local));
    assert_eq!(a.send(b"x"), Err(PostError::Ended(Ending::Local)));
    drop(a);
    for number in 0..10 {
        assert_eq!(b.endpoint.ending(), None);
        assert_eq!(b.take(), [number; 1000]);
    }
    let token = b.token;
    let end = rig
        .host
        .next("the end", |e| matches!(e, Event::Ended { .. }));
    assert!(matches!(end, Event::Ended { endpoint, ending: Ending::Peer } if endpoint == token));
    assert_eq!(b.endpoint.ending(), Some(Ending::Peer));
    assert_eq!(b.send(b"x"), Err(PostError::Ended(Ending::Peer)));
    for _ in 0..3 {
        assert!(!rig.host.has(|e| matches!(e, Event::Ended { .. })));
    }
}

#[test]
fn pending_operations_are_flushed_once_on_both_sides() {
    // req: WSD-11
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    let a_ops: Vec<_> = (0..5).map(|_| a.receive(0, 10).0).collect();
    let b_ops: Vec<_> = (0..5).map(|_| b.receive(0, 10).0).collect();
    a.endpoint.disconnect();
    rig.host
        .next("the end", |e| matches!(e, Event::Ended { .. }));
    for (end, ops, ending) in [
        (&mut a, a_ops, Ending::Local),
        (&mut b, b_ops, Ending::Peer),
    ] {
        end.poll();
        end.poll();
        let flushed: Vec<_> = end.completions.iter().map(|c| (c.op, c.outcome)).collect();
        let wanted: Vec<_> = ops
            .iter()
            .map(|&op| (op, Outcome::Flushed(ending)))
            .collect();
        assert_eq!(flushed, wanted);
    }
}

#[test]
fn nothing_is_told_before_accept_and_a_dropped_request_refuses() {
    // req: WSD-07, WSD-08
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let endpoint = rig.host.fabric.connect(here, from, rig.at).unwrap();
    let request = rig.host.request(rig.listening);
    for _ in 0..10 {
        assert!(!rig.host.has(|_| true));
    }
    assert_eq!(
        endpoint.post(Post::Send {
            op: OpId(1),
            pieces: &[]
        }),
        Err(PostError::NotConnected)
    );
    drop(request);
    assert_eq!(rig.host.connected(here), Err(ConnectError::Refused));
    assert!(endpoint.ending().is_some());
}

#[test]
fn dropping_a_listener_refuses_whoever_was_not_reported() {
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let (unseen, seen) = (Token(number()), Token(number()));
    let _seen = rig.host.fabric.connect(seen, from, rig.at).unwrap();
    let request = rig.host.request(rig.listening);
    let _unseen = rig.host.fabric.connect(unseen, from, rig.at).unwrap();
    drop(rig.listener);
    assert_eq!(rig.host.connected(unseen), Err(ConnectError::Refused));
    let accepted = request.accept(Token(number())).unwrap();
    rig.host.connected(seen).unwrap();
    assert_eq!(accepted.ending(), None);
    // The address is free again.
    rig.listener = rig.host.fabric.listen(rig.listening, rig.at).unwrap();
}

#[test]
fn connecting_where_nobody_listens_says_whether_tcp_would() {
    // req: WSD-08, WSD-18
    let mut host = Host::new(Options::default());
    let from: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (to, error) in [
        (tcp.local_addr().unwrap(), ConnectError::NotServed),
        (free_address("127.88.77.66"), ConnectError::NobodyListens),
        ("192.0.2.1:80".parse().unwrap(), ConnectError::NotServed),
    ] {
        let here = Token(number());
        let _endpoint = host.fabric.connect(here, from, to).unwrap();
        assert_eq!(host.connected(here), Err(error), "{to}");
    }
    let foreign = host.fabric.connect(
        Token(number()),
        "192.0.2.1:0".parse().unwrap(),
        "127.0.0.1:1".parse().unwrap(),
    );
    assert_eq!(foreign.err(), Some(ConnectError::AddressNotAvailable));
}

#[test]
fn a_request_that_finds_no_room_may_go_over_tcp() {
    // req: WSD-08
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let _turned_away = rig.host.fabric.connect(here, from, rig.at).unwrap();
    rig.host.request(rig.listening).turn_away();
    assert_eq!(rig.host.connected(here), Err(ConnectError::NotServed));
}

#[test]
fn an_abandoned_connect_is_seen_by_the_request() {
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let one = rig
        .host
        .fabric
        .connect(Token(number()), from, rig.at)
        .unwrap();
    let request = rig.host.request(rig.listening);
    drop(one);
    assert!(request.is_gone());
    assert!(request.accept(Token(number())).is_err());
    let two = rig
        .host
        .fabric
        .connect(Token(number()), from, rig.at)
        .unwrap();
    let request = rig.host.request(rig.listening);
    two.disconnect();
    assert!(request.is_gone());
    assert_eq!(two.ending(), Some(Ending::Local));
}

#[test]
fn a_listener_that_does_not_answer_is_given_up() {
    let options = Options {
        connect_time: std::time::Duration::from_millis(30),
        ..Options::default()
    };
    let mut rig = Rig::new(options);
    let from = SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let _endpoint = rig.host.fabric.connect(here, from, rig.at).unwrap();
    let _request = rig.host.request(rig.listening);
    assert_eq!(rig.host.connected(here), Err(ConnectError::TimedOut));
}

#[test]
fn pieces_outside_their_registration_start_nothing() {
    let mut rig = Rig::new(Options::default());
    let (a, b) = rig.pair();
    let post = |pieces: &[Piece]| {
        a.endpoint.post(Post::Send {
            op: OpId(1),
            pieces,
        })
    };
    assert_eq!(
        post(&[a.out.piece(0, super::rig::ROOM + 1)]),
        Err(PostError::BadPiece)
    );
    assert_eq!(post(&[a.inward.piece(0, 1)]), Err(PostError::Rights));
    assert_eq!(post(&[b.inward.piece(0, 1)]), Err(PostError::Rights));
    assert_eq!(post(&[a.out.piece(0, 1 << 20)]), Err(PostError::TooLarge));
    assert_eq!(
        post(&[a.out.piece(0, 1); 65]),
        Err(PostError::TooManyPieces)
    );
}

#[test]
fn arming_finds_what_is_there_and_signals_what_comes() {
    let mut rig = Rig::new(Options::default());
    let (mut a, mut b) = rig.pair();
    let readable = |end: &super::rig::End| {
        let mut query = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&end.endpoint.readiness()),
            events: libc::POLLIN,
            revents: 0,
        };
        #[allow(unsafe_code)]
        // SAFETY: one valid entry.
        let rc = unsafe { libc::poll(&raw mut query, 1, 0) };
        rc == 1
    };
    let receive = b.receive(0, 10);
    assert!(b.endpoint.arm(ArmFor::Waiter));
    assert!(!readable(&b));
    a.send(b"x").unwrap();
    assert!(readable(&b));
    assert!(!b.endpoint.arm(ArmFor::Waiter));
    assert!(!readable(&b));
    assert_eq!(b.end(receive), Outcome::Done(1));
    b.receive(0, 10);
    assert!(b.endpoint.arm(ArmFor::Progress));
    a.send(b"y").unwrap();
    let token = b.token;
    rig.host.next(
        "ready",
        |e| matches!(e, Event::Ready { endpoint } if *endpoint == token),
    );
    assert!(!b.endpoint.arm(ArmFor::Progress));
    b.poll();
    b.completions.clear();
    assert!(b.endpoint.arm(ArmFor::Waiter));
    a.endpoint.disconnect();
    assert!(readable(&b));
    assert!(!b.endpoint.arm(ArmFor::Waiter));
}

#[test]
fn a_sleeper_of_an_endpoint_that_cannot_connect_is_woken() {
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let endpoint = rig.host.fabric.connect(here, from, rig.at).unwrap();
    assert!(endpoint.arm(ArmFor::Waiter));
    drop(rig.host.request(rig.listening));
    assert_eq!(rig.host.connected(here), Err(ConnectError::Refused));
    assert!(super::rig::sleep_until_readable(&*endpoint));
    assert!(!endpoint.arm(ArmFor::Waiter));
}

#[test]
fn a_sleeper_that_armed_before_the_connection_was_up_is_woken_when_it_is() {
    let mut rig = Rig::new(Options::default());
    let from = SocketAddr::new(rig.at.ip(), 0);
    let here = Token(number());
    let endpoint = rig.host.fabric.connect(here, from, rig.at).unwrap();
    assert!(endpoint.arm(ArmFor::Waiter));
    let _accepted = rig
        .host
        .request(rig.listening)
        .accept(Token(number()))
        .unwrap();
    rig.host.connected(here).unwrap();
    assert!(super::rig::sleep_until_readable(&*endpoint));
}

#[test]
fn a_hundred_connections_at_once_keep_their_messages_apart() {
    let mut rig = Rig::new(Options {
        ring_size: 256 << 10,
        ..Options::default()
    });
    let from = SocketAddr::new(rig.at.ip(), 0);
    let tokens: Vec<_> = (0..100).map(|_| Token(number())).collect();
    let asking: Vec<_> = tokens
        .iter()
        .map(|&token| rig.host.fabric.connect(token, from, rig.at).unwrap())
        .collect();
    let mut accepted: Vec<_> = (0..100)
        .map(|_| {
            let token = Token(number());
            let request = rig.host.request(rig.listening);
            super::rig::End::small(token, request.accept(token).unwrap())
        })
        .collect();
    let mut connected: Vec<_> = tokens
        .iter()
        .zip(asking)
        .map(|(&token, endpoint)| {
            rig.host.connected(token).unwrap();
            super::rig::End::small(token, endpoint)
        })
        .collect();
    for (index, end) in connected.iter_mut().enumerate() {
        end.send(&index.to_le_bytes()).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for end in &mut accepted {
        let message = end.take_small();
        assert!(seen.insert(usize::from_le_bytes(message.as_slice().try_into().unwrap())));
        end.send(&message).unwrap();
    }
    for (index, end) in connected.iter_mut().enumerate() {
        assert_eq!(end.take_small(), index.to_le_bytes());
    }
}
