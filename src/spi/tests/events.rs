//! Events: selecting, enumerating, no lost wake-ups.

use super::harness::*;
use crate::abi::*;

#[test]
fn what_happened_before_the_selection_is_signalled_at_once() {
    let _session = Session::new();
    let listener = Sock::bound();
    listener.listen(4).unwrap();
    let client = Sock::bound();
    assert_eq!(client.connect(listener.at), WSAEWOULDBLOCK);
    let accepted = eventually("a request", || match listener.accept() {
        Err(WSAEWOULDBLOCK) => None,
        other => Some(other.unwrap()),
    });
    // Once the accepted side has an answer to its message, the other side is connected.
    eventually("the connection", || match client.connect(listener.at) {
        WSAEISCONN => Some(()),
        code => {
            assert_eq!(code, WSAEALREADY);
            None
        }
    });
    client.select(FD_CONNECT).unwrap();
    client.event.wait();
    assert_eq!(client.events().lNetworkEvents, FD_CONNECT);
    assert!(!client.event.is_set());
    assert_eq!(client.events().lNetworkEvents, 0);
    pass(&client, &accepted, b"connected");
}

#[test]
fn selecting_has_rules_and_replaces() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let none = std::ptr::null_mut();
    assert_eq!(listener.select(FD_READ), Err(WSAEINVAL));
    assert_eq!(listener.select(FD_ACCEPT | FD_CLOSE), Err(WSAEINVAL));
    assert_eq!(listener.select_with(none, FD_ACCEPT), Err(WSAEINVAL));
    listener.select(FD_ACCEPT | FD_CONNECT).unwrap();

    // Another event takes the place of the first.
    let second = Event::new();
    listener.select_with(second.handle(), FD_ACCEPT).unwrap();
    let client = Sock::bound();
    client.begin_connect(listener.at);
    second.wait();
    assert!(!listener.event.is_set());

    // What is recorded is not lost by selecting again.
    listener.select(FD_ACCEPT).unwrap();
    assert!(listener.event.is_set());
    assert_eq!(listener.events().lNetworkEvents, FD_ACCEPT);

    // Nothing selected: nothing is signalled, but recorded.
    listener.select_with(none, 0).unwrap();
    let other = Sock::bound();
    other.begin_connect(listener.at);
    let accepted: Vec<_> = (0..2)
        .map(|_| {
            eventually("a request", || match listener.accept() {
                Err(WSAEWOULDBLOCK) => None,
                answer => Some(answer.unwrap()),
            })
        })
        .collect();
    assert!(!listener.event.is_set());
    drop(accepted);
}

#[test]
fn enumerating_resets_the_event_it_is_given_and_needs_a_place() {
    let _session = Session::new();
    let socket = Sock::bound();
    let null = std::ptr::null_mut();
    let event = socket.event.handle();
    let without = call(SOCKET_ERROR, |e| {
        table!(lpWSPEnumNetworkEvents(socket.s, event, null, e))
    });
    assert_eq!(without, Err(WSAEINVAL));
    let mut events = WSANETWORKEVENTS::default();
    call(SOCKET_ERROR, |e| {
        table!(lpWSPEnumNetworkEvents(
            socket.s,
            null.cast(),
            &raw mut events,
            e
        ))
    })
    .unwrap();
    assert_eq!(events.lNetworkEvents, 0);
}

/// The waiting side resets the event while the other side's requests set it: whatever the order,
/// something recorded leaves the event set.
#[test]
fn no_wake_up_is_lost_between_recording_and_resetting() {
    let _session = Session::new();
    let listener = Sock::listening(WSD_SOMAXCONN);
    const REQUESTS: usize = 150;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..REQUESTS {
                let client = Sock::bound();
                assert_eq!(client.connect(listener.at), WSAEWOULDBLOCK);
                client.select(FD_CONNECT).unwrap();
                assert_eq!(client.connect_outcome(), 0);
            }
        });
        let mut accepted = 0;
        while accepted < REQUESTS {
            // Fails after a time if a wake-up is lost.
            listener.event.wait();
            if listener.events().lNetworkEvents & FD_ACCEPT != 0 {
                while listener.accept().is_ok() {
                    accepted += 1;
                }
            }
        }
    });
}
