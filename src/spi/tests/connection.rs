//! Sockets, binding, listening, connecting, accepting.

use core::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

use parking_lot::Mutex;

use super::harness::*;
use crate::abi::*;

#[test]
fn two_sockets_connect_and_pass_messages_both_ways() {
    let _session = Session::new();
    let (a, b) = pair();
    pass(&a, &b, b"from the connecting side");
    pass(&b, &a, b"from the accepting side");
    a.close().unwrap();
    b.close().unwrap();
    a.await_given_back();
    b.await_given_back();
}

#[test]
fn ipv6_sockets_connect_too() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // Without IPv6 there is nothing to show; ./test says so.
        return;
    }
    let _session = Session::new();
    let listener = Sock::bound_to(IpAddr::V6(Ipv6Addr::LOCALHOST));
    listener.listen(4).unwrap();
    listener.select(FD_ACCEPT).unwrap();
    let (a, b) = pair_through(&listener);
    pass(&a, &b, b"over six");
}

#[test]
fn a_wildcard_listener_takes_requests_and_says_where_they_went() {
    let _session = Session::new();
    let listener = Sock::new();
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), listener.at.port());
    listener.bind(everywhere).unwrap();
    listener.listen(4).unwrap();
    listener.select(FD_ACCEPT).unwrap();
    let a = Sock::bound();
    a.begin_connect(listener.at);
    listener.await_request();
    let seen = Seen::new(CF_ACCEPT);
    let b = listener.accept_if(Some(condition), seen.data()).unwrap();
    assert_eq!(seen.callee(), listener.at);
    assert_eq!(a.connect_outcome(), 0);
    pass(&a, &b, b"through the wildcard");
}

// req: WSD-03
#[test]
fn wrong_families_types_and_protocols_have_codes_of_their_own() {
    let _session = Session::new();
    let (inet, stream, tcp) = (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    assert_eq!(socket_of(99, stream, tcp), Err(WSAEAFNOSUPPORT));
    assert_eq!(socket_of(23, stream, tcp), Err(WSAEAFNOSUPPORT));
    assert_eq!(socket_of(inet, libc::SOCK_DGRAM, tcp), Err(WSAEPROTOTYPE));
    assert_eq!(
        socket_of(inet, stream, libc::IPPROTO_UDP),
        Err(WSAEPROTONOSUPPORT)
    );
    let make = |info: LPWSAPROTOCOL_INFOW, af, g, flags| {
        call(INVALID_SOCKET, |e| {
            table!(lpWSPSocket(af, stream, tcp, info, g, flags, e))
        })
    };
    let none = std::ptr::null_mut();
    assert_eq!(make(none, inet, 1, WSA_FLAG_OVERLAPPED), Err(WSAEINVAL));
    assert_eq!(make(none, inet, 0, 0), Err(WSAEINVAL));
    assert_eq!(
        make(none, FROM_PROTOCOL_INFO, 0, WSA_FLAG_OVERLAPPED),
        Err(WSAEAFNOSUPPORT)
    );
    let mut info = WSAPROTOCOL_INFOW {
        iAddressFamily: inet,
        dwCatalogEntryId: 4711,
        ..WSAPROTOCOL_INFOW::default()
    };
    let s = make(&raw mut info, FROM_PROTOCOL_INFO, 0, WSA_FLAG_OVERLAPPED).unwrap();
    close_socket(s).unwrap();
    // No token of a hand-over is ours.
    info.dwProviderReserved = 1;
    assert_eq!(
        make(&raw mut info, inet, 0, WSA_FLAG_OVERLAPPED),
        Err(WSAEINVAL)
    );
}

// req: WSD-03
#[test]
fn a_socket_makes_one_switch_socket_and_its_catalog_entry_is_handed_up() {
    let _session = Session::new();
    let plain = Sock::new();
    assert_eq!(plain.catalog(), 0);
    let (a, b) = pair();
    assert_ne!(a.switch_socket(), b.switch_socket());
}

#[test]
fn a_refused_switch_socket_leaves_nothing_behind() {
    let _session = Session::new();
    refuse_switch_socket(WSAEMFILE);
    let made = socket_of(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    assert_eq!(made, Err(WSAEMFILE));

    let listener = Sock::listening(4);
    let a = Sock::bound();
    a.begin_connect(listener.at);
    listener.await_request();
    refuse_switch_socket(WSAENOBUFS);
    assert_eq!(listener.accept().err(), Some(WSAENOBUFS));
    // req: WSD-08, nobody has refused it: TCP may be tried.
    assert_eq!(a.connect_outcome(), WSAETIMEDOUT);
}

// req: WSD-06
#[test]
fn binding_has_rules() {
    let _session = Session::new();
    let socket = Sock::new();
    let foreign = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
    assert_eq!(socket.listen(1), Err(WSAEINVAL));
    assert_eq!(socket.bind(foreign), Err(WSAEADDRNOTAVAIL));
    assert_eq!(socket.bind("[::1]:80".parse().unwrap()), Err(WSAEFAULT));
    let null = std::ptr::null();
    let bind_null = call(SOCKET_ERROR, |e| table!(lpWSPBind(socket.s, null, 16, e)));
    assert_eq!(bind_null, Err(WSAEFAULT));
    socket.bind(socket.at).unwrap();
    assert_eq!(socket.bind(socket.at), Err(WSAEINVAL));
}

// req: WSD-06
#[test]
fn a_full_backlog_refuses_at_once_and_without_an_event() {
    let _session = Session::new();
    let listener = Sock::listening(2);
    let clients: Vec<_> = (0..2).map(|_| Sock::bound()).collect();
    for client in &clients {
        client.begin_connect(listener.at);
    }
    eventually("both requests", || {
        (sets(&listener.event) == 2).then_some(())
    });
    let late = Sock::bound();
    late.begin_connect(listener.at);
    assert_eq!(late.connect_outcome(), WSAECONNREFUSED);
    assert_eq!(sets(&listener.event), 2);
    for client in &clients {
        listener.accept().unwrap();
        assert_eq!(client.connect_outcome(), 0);
    }
    assert_eq!(listener.accept().err(), Some(WSAEWOULDBLOCK));
}

#[test]
fn requests_whose_peers_have_given_up_do_not_fill_the_backlog() {
    let _session = Session::new();
    let listener = Sock::listening(2);
    for n in 1..=2 {
        let impatient = Sock::bound();
        impatient.begin_connect(listener.at);
        eventually("a request", || (sets(&listener.event) == n).then_some(()));
        impatient.close().unwrap();
    }
    let late = Sock::bound();
    late.begin_connect(listener.at);
    eventually("room for a request", || {
        (sets(&listener.event) == 3).then_some(())
    });
    assert_eq!(listener.accept().unwrap().at, late.at);
    assert_eq!(late.connect_outcome(), 0);
}

#[test]
fn a_smaller_backlog_refuses_the_newest_requests() {
    let _session = Session::new();
    let listener = Sock::listening(3);
    let clients: Vec<_> = (1..=3)
        .map(|n| {
            let client = Sock::bound();
            client.begin_connect(listener.at);
            eventually("a request", || (sets(&listener.event) == n).then_some(()));
            client
        })
        .collect();
    listener.listen(1).unwrap();
    assert_eq!(clients[2].connect_outcome(), WSAECONNREFUSED);
    assert_eq!(clients[1].connect_outcome(), WSAECONNREFUSED);
    assert_eq!(listener.accept().unwrap().at, clients[0].at);
    assert_eq!(clients[0].connect_outcome(), 0);
    assert_eq!(clients[0].listen(1), Err(WSAEISCONN));
}

/// What a condition function saw, and what it answers.
struct Seen {
    answer: c_int,
    caller: Mutex<Option<SocketAddr>>,
    callee: Mutex<Option<SocketAddr>>,
    thread: Mutex<Option<ThreadId>>,
    /// Done within the call.
    then: Box<dyn Fn() + Send + Sync>,
}

impl Seen {
    fn new(answer: c_int) -> Box<Self> {
        Self::then(answer, || {})
    }

    fn then(answer: c_int, then: impl Fn() + Send + Sync + 'static) -> Box<Self> {
        Box::new(Self {
            answer,
            caller: Mutex::default(),
            callee: Mutex::default(),
            thread: Mutex::default(),
            then: Box::new(then),
        })
    }

    fn data(&self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    fn callee(&self) -> SocketAddr {
        self.callee.lock().unwrap()
    }
}

unsafe extern "C" fn condition(
    caller_id: LPWSABUF,
    caller_data: LPWSABUF,
    sqos: LPQOS,
    gqos: LPQOS,
    callee_id: LPWSABUF,
    callee_data: LPWSABUF,
    g: *mut GROUP,
    data: usize,
) -> c_int {
    assert!(caller_data.is_null() && callee_data.is_null());
    assert!(sqos.is_null() && gqos.is_null() && g.is_null());
    let address = |buffer: LPWSABUF| {
        // SAFETY: the provider gives buffers with socket addresses.
        let buffer = unsafe { *buffer };
        let length = c_int::try_from(buffer.len).unwrap();
        // SAFETY: as above.
        unsafe { super::super::args::address(buffer.buf.cast(), length) }.unwrap()
    };
    // SAFETY: the data is a `Seen` that outlives the call.
    let seen = unsafe { &*std::ptr::with_exposed_provenance::<Seen>(data) };
    *seen.caller.lock() = Some(address(caller_id));
    *seen.callee.lock() = Some(address(callee_id));
    *seen.thread.lock() = Some(std::thread::current().id());
    (seen.then)();
    seen.answer
}

fn request(listener: &Sock) -> Sock {
    let client = Sock::bound();
    client.begin_connect(listener.at);
    listener.await_request();
    client
}

// req: WSD-07
#[test]
fn the_condition_runs_on_the_callers_thread_before_the_peer_learns_anything() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    assert_eq!(listener.accept().err(), Some(WSAEWOULDBLOCK));
    let client = Arc::new(request(&listener));
    let watched = Arc::clone(&client);
    let seen = Seen::then(CF_ACCEPT, move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(
            !watched.event.is_set(),
            "the peer knows before the decision"
        );
    });
    let accepted = listener.accept_if(Some(condition), seen.data()).unwrap();
    assert_eq!(*seen.thread.lock(), Some(std::thread::current().id()));
    assert_eq!(*seen.caller.lock(), Some(client.at));
    assert_eq!(seen.callee(), listener.at);
    assert_eq!(accepted.at, client.at);
    assert_eq!(client.connect_outcome(), 0);
}

// req: WSD-07
#[test]
fn a_rejection_is_a_refusal_at_both_ends() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    for (answer, code) in [(CF_REJECT, WSAECONNREFUSED), (77, WSAEINVAL)] {
        let client = request(&listener);
        let seen = Seen::new(answer);
        let accepted = listener.accept_if(Some(condition), seen.data());
        assert_eq!(accepted.err(), Some(code));
        assert_eq!(client.connect_outcome(), WSAECONNREFUSED);
    }
}

#[test]
fn a_deferred_request_stays_first() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let first = request(&listener);
    let second = Sock::bound();
    second.begin_connect(listener.at);
    listener.await_request();
    let seen = Seen::new(CF_DEFER);
    for _ in 0..3 {
        let accepted = listener.accept_if(Some(condition), seen.data());
        assert_eq!(accepted.err(), Some(WSATRY_AGAIN));
    }
    assert_eq!(listener.accept().unwrap().at, first.at);
    assert_eq!(listener.accept().unwrap().at, second.at);
}

// req: WSD-07
#[test]
fn each_waiting_request_is_signalled() {
    let _session = Session::new();
    let listener = Sock::listening(8);
    let clients: Vec<_> = (0..5).map(|_| Sock::bound()).collect();
    for client in &clients {
        client.begin_connect(listener.at);
    }
    eventually("all requests", || {
        (sets(&listener.event) == 5).then_some(())
    });
    // One record and one signal; accepting one brings the next.
    for _ in &clients {
        assert!(listener.event.is_set());
        assert_eq!(listener.events().lNetworkEvents, FD_ACCEPT);
        assert!(!listener.event.is_set());
        listener.accept().unwrap();
    }
    assert!(!listener.event.is_set());
    assert_eq!(listener.events().lNetworkEvents, 0);
}

#[test]
fn too_little_room_for_the_address_leaves_the_request_waiting() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let client = request(&listener);
    let mut room = [0_u8; 64];
    let name: *mut libc::sockaddr = room.as_mut_ptr().cast();
    for short in [-1, 0, 15] {
        let mut length: c_int = short;
        let accepted = call(INVALID_SOCKET, |e| {
            table!(lpWSPAccept(listener.s, name, &raw mut length, None, 0, e))
        });
        assert_eq!(accepted, Err(WSAEFAULT));
    }
    let accepted = call(INVALID_SOCKET, |e| {
        table!(lpWSPAccept(
            listener.s,
            name,
            std::ptr::null_mut(),
            None,
            0,
            e
        ))
    });
    assert_eq!(accepted, Err(WSAEFAULT));
    assert_eq!(room, [0; 64]);
    // Without an address to store there is no room to check.
    let none = std::ptr::null_mut();
    let accepted = call(INVALID_SOCKET, |e| {
        table!(lpWSPAccept(
            listener.s,
            none,
            std::ptr::null_mut(),
            None,
            0,
            e
        ))
    });
    close_socket(accepted.unwrap()).unwrap();
    assert_eq!(client.connect_outcome(), 0);
}

#[test]
fn the_condition_may_close_the_listener_and_ask_for_options() {
    let _session = Session::new();
    let listener = Arc::new(Sock::listening(4));
    let client = request(&listener);
    let other = Sock::bound();
    other.begin_connect(listener.at);
    let within = Arc::clone(&listener);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let seen = Seen::then(CF_ACCEPT, move || {
        let mut value = 0_u32;
        let mut length: c_int = 4;
        let place = (&raw mut value).cast();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPGetSockOpt(
                within.s,
                WSD_SOL_SOCKET,
                SO_MAX_MSG_SIZE,
                place,
                &raw mut length,
                e
            ))
        })
        .unwrap();
        assert!(value >= 256);
        within.close().unwrap();
        count.fetch_add(1, Ordering::SeqCst);
    });
    let accepted = listener.accept_if(Some(condition), seen.data());
    assert_eq!(accepted.err(), Some(WSAENOTSOCK));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(client.connect_outcome(), WSAECONNREFUSED);
    assert_ne!(other.connect_outcome(), 0);
    assert_eq!(listener.accept().err(), Some(WSAENOTSOCK));
    listener.await_given_back();
}

#[test]
fn a_request_whose_peer_gave_up_is_not_accepted() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let gone = request(&listener);
    gone.close().unwrap();
    let code = eventually("the end of the request", || match listener.accept() {
        // Accepted before the end was noticed: the connection is ended, then.
        Ok(accepted) => {
            accepted.close().unwrap();
            Some(WSAECONNRESET)
        }
        Err(code) => Some(code),
    });
    assert_eq!(code, WSAECONNRESET);
    let client = request(&listener);
    listener.accept().unwrap();
    assert_eq!(client.connect_outcome(), 0);
}

// req: WSD-08
#[test]
fn a_connect_goes_on_in_the_background_and_a_second_one_fails() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let client = Sock::bound();
    client.begin_connect(listener.at);
    assert_eq!(client.connect(listener.at), WSAEALREADY);
    listener.await_request();
    listener.accept().unwrap();
    client.event.wait();
    let events = client.events();
    assert_eq!(events.lNetworkEvents, FD_CONNECT);
    let mut slots = [77; 10];
    slots[4] = 0;
    assert_eq!(
        events.iErrorCode, slots,
        "only the slot of the event is written"
    );
    assert_eq!(client.connect(listener.at), WSAEISCONN);
    assert_eq!(listener.connect(client.at), WSAEINVAL);
}

// req: WSD-08
#[test]
fn nobody_listening_and_a_tcp_only_listener_have_codes_of_their_own() {
    let _session = Session::new();
    let free = {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        taken.local_addr().unwrap()
    };
    let client = Sock::bound();
    client.begin_connect(free);
    assert_eq!(client.connect_outcome(), WSAECONNRESET);
    // The attempt has ended; another one may follow.
    let tcp_only = Sock::bound();
    client.begin_connect(tcp_only.at);
    assert_eq!(client.connect_outcome(), WSAETIMEDOUT);
    let listener = Sock::listening(4);
    client.begin_connect(listener.at);
    listener.await_request();
    let accepted = listener.accept().unwrap();
    assert_eq!(client.connect_outcome(), 0);
    pass(&client, &accepted, b"at last");
}

#[test]
fn connecting_has_rules() {
    let _session = Session::new();
    let listener = Sock::listening(4);
    let to = |text: &str| text.parse::<SocketAddr>().unwrap();
    let unbound = Sock::new();
    assert_eq!(unbound.connect(listener.at), WSAEINVAL);
    let client = Sock::bound();
    assert_eq!(client.connect(to("0.0.0.0:80")), WSAEADDRNOTAVAIL);
    assert_eq!(client.connect(to("127.0.0.1:0")), WSAEADDRNOTAVAIL);
    assert_eq!(client.connect(to("[::1]:80")), WSAEAFNOSUPPORT);
    let wildcard = Sock::new();
    wildcard
        .bind(SocketAddr::new(
            Ipv4Addr::UNSPECIFIED.into(),
            wildcard.at.port(),
        ))
        .unwrap();
    assert_eq!(wildcard.connect(listener.at), WSAEADDRNOTAVAIL);

    let mut raw = super::super::args::RawAddress::new(listener.at);
    let name: *mut libc::sockaddr = raw.as_mut_ptr().cast();
    let mut data = WSABUF {
        len: 3,
        buf: name.cast(),
    };
    let mut qos = QOS::default();
    let (no_data, no_qos): (LPWSABUF, LPQOS) = (std::ptr::null_mut(), std::ptr::null_mut());
    let connect = |data: LPWSABUF, qos: LPQOS| {
        call(SOCKET_ERROR, |e| {
            table!(lpWSPConnect(
                client.s, name, 16, data, no_data, qos, no_qos, e
            ))
        })
    };
    assert_eq!(connect(&raw mut data, no_qos), Err(WSAEPROTONOSUPPORT));
    assert_eq!(connect(no_data, &raw mut qos), Err(WSAEOPNOTSUPP));
    assert_eq!(connect(no_data, no_qos), Err(WSAEWOULDBLOCK));
}

#[test]
fn a_connect_that_is_under_way_can_be_closed() {
    let _session = Session::new();
    let listener = Sock::listening(16);
    for _ in 0..8 {
        let client = Sock::bound();
        client.begin_connect(listener.at);
        client.close().unwrap();
        client.await_given_back();
        assert_eq!(client.close(), Err(WSAENOTSOCK));
    }
    listener.close().unwrap();
}

#[test]
fn closing_a_listener_gives_every_client_an_answer() {
    let _session = Session::new();
    let listener = Sock::listening(64);
    let clients: Vec<_> = (0..16).map(|_| Sock::bound()).collect();
    for client in &clients {
        client.begin_connect(listener.at);
    }
    listener.close().unwrap();
    for client in &clients {
        let outcome = client.connect_outcome();
        assert!(
            [WSAECONNREFUSED, WSAETIMEDOUT, WSAECONNRESET].contains(&outcome),
            "{outcome}"
        );
    }
}

#[test]
fn many_clients_connect_while_one_thread_accepts() {
    let _session = Session::new();
    let listener = Sock::listening(WSD_SOMAXCONN);
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let mut accepted = Vec::new();
            while accepted.len() < 60 {
                listener.await_request();
                // One signal may stand for several requests, or the next one brings a signal.
                accepted.push(listener.accept().unwrap());
            }
            accepted
        });
        let connecting: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let client = Sock::bound();
                        client.begin_connect(listener.at);
                        assert_eq!(client.connect_outcome(), 0);
                    }
                })
            })
            .collect();
        for thread in connecting {
            thread.join().unwrap();
        }
        assert_eq!(accepting.join().unwrap().len(), 60);
    });
    assert_eq!(listener.accept().err(), Some(WSAEWOULDBLOCK));
}
