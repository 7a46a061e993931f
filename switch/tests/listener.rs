//! The listener: both paths at once, the calls on the SAN's side, and peers that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use mock::{Config, Mock, Which};
use wsd_switch::{Reason, SanListener, Switch, Transport};

fn here() -> (Ipv4Addr, u16) {
    (Ipv4Addr::LOCALHOST, 0)
}

fn readable(fd: RawFd, time: Duration) -> bool {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live entry.
    let ready = unsafe { libc::poll(&raw mut entry, 1, time.as_millis().try_into().unwrap()) };
    ready == 1
}

/// A listener over the mock, and everything gone afterwards.
fn with_listener(config: Config, at: SocketAddr, test: impl FnOnce(&Mock, &Switch, SanListener)) {
    let mock = Mock::begin(config);
    {
        let switch = Switch::with_providers([mock.entry()]);
        mock.clear_trace();
        let listener = switch.bind(at).unwrap();
        test(&mock, &switch, listener);
    }
    mock.assert_nothing_left();
    mock.assert_rules();
}

#[test]
fn the_calls_of_a_listener_come_in_the_documented_order() {
    // req: WSD-17
    with_listener(Config::default(), here().into(), |mock, _, listener| {
        let socket = mock.calls("Socket")[0].socket;
        assert_eq!(
            mock.calls_of(socket),
            ["Socket", "Bind", "Listen", "EventSelect"]
        );
        let address = listener.local_addr().unwrap();
        assert_eq!(mock.calls("Bind")[0].detail, address.to_string());
        // Whoever finds TCP listening must find the SAN listening.
        assert_eq!(mock.calls("Listen")[0].detail, "TCP refuses");
        assert_eq!(mock.calls("EventSelect")[0].detail, "FD_ACCEPT");
        assert_eq!(listener.tcp_only(), None);
        drop(listener);
        assert_eq!(mock.calls_of(socket).last(), Some(&"CloseSocket"));
    });
}

#[test]
fn a_wildcard_listens_on_every_provider_with_the_wildcard() {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    with_listener(Config::default(), any, |mock, _, listener| {
        let address = listener.local_addr().unwrap();
        assert_eq!(mock.calls("Bind")[0].detail, address.to_string());
        assert!(address.ip().is_unspecified());
    });
    let mock = Mock::begin(Config {
        other_addresses: vec![[127, 0, 0, 2].into()],
        ..Config::default()
    });
    {
        let switch = Switch::with_providers([mock.entry(), mock.other_entry()]);
        mock.clear_trace();
        let listener = switch.bind(any).unwrap();
        let address = listener.local_addr().unwrap();
        for name in ["Bind", "Listen"] {
            let makers: Vec<_> = mock.calls(name).iter().map(|call| call.made_by).collect();
            assert_eq!(makers, [Which::First, Which::Other], "{name}");
        }
        for call in mock.calls("Bind") {
            assert_eq!(call.detail, address.to_string());
        }
        let told: Vec<_> = listener.providers().collect();
        assert_eq!(told, [("mock", None), ("other mock", None)]);
        // And both are heard: each address is that of one of them.
        for (last, name) in [(1, "mock"), (2, "other mock")] {
            let to = (Ipv4Addr::new(127, 0, 0, last), address.port());
            let stream = switch.connect(to).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
            for end in [stream, accepted] {
                let provider = name.to_owned();
                assert_eq!(end.transport(), Transport::San { provider });
            }
        }
    }
    mock.assert_nothing_left();
    mock.assert_rules();
}

#[test]
fn an_address_of_one_provider_is_listened_on_by_that_one_only() {
    let mock = Mock::begin(Config {
        addresses: vec![[192, 0, 2, 1].into()],
        ..Config::default()
    });
    {
        let switch = Switch::with_providers([mock.entry(), mock.other_entry()]);
        mock.clear_trace();
        let listener = switch.bind(here()).unwrap();
        let told: Vec<_> = listener.providers().collect();
        assert_eq!(told, [("other mock", None)]);
        let makers: Vec<_> = mock.calls("Socket").iter().map(|c| c.made_by).collect();
        assert_eq!(makers, [Which::Other]);
    }
    mock.assert_nothing_left();
    mock.assert_rules();
}

#[test]
fn an_address_that_no_provider_serves_is_listened_on_over_tcp_only() {
    let config = Config {
        addresses: vec![[192, 0, 2, 1].into()],
        ..Config::default()
    };
    with_listener(config, here().into(), |mock, _, listener| {
        assert_eq!(listener.tcp_only(), Some(&Reason::NoRoute));
        assert_eq!(mock.calls("Socket"), []);
    });
}

#[test]
fn connections_come_over_both_paths() {
    for arm in [true, false] {
        let config = Config {
            arm,
            ..Config::default()
        };
        with_listener(config, here().into(), |mock, switch, listener| {
            let address = listener.local_addr().unwrap();
            // Nobody is accepting yet: as with TCP, that does not keep a connect waiting.
            let over_san = switch.connect(address).unwrap();
            assert!(over_san.transport().is_san());
            let over_tcp = TcpStream::connect(address).unwrap();
            let mut accepted: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
            accepted.sort_by_key(|(stream, _)| !stream.transport().is_san());
            assert_eq!(accepted[0].1, over_san.local_addr().unwrap());
            assert_eq!(accepted[0].0.local_addr().unwrap(), address);
            assert_eq!(accepted[1].1, over_tcp.local_addr().unwrap());
            let expected = Transport::Tcp {
                reason: Reason::PeerChoseTcp,
            };
            assert_eq!(accepted[1].0.transport(), expected);
            let accept = &mock.calls("Accept")[0];
            assert_eq!((accept.detail.as_str(), accept.code), ("condition", 0));
        });
    }
}

#[test]
fn a_nonblocking_listener_tells_by_its_descriptor() {
    with_listener(Config::default(), here().into(), |_, switch, listener| {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!readable(listener.as_raw_fd(), Duration::ZERO));
        let address = listener.local_addr().unwrap();
        let _over_san = switch.connect(address).unwrap();
        assert!(readable(listener.as_raw_fd(), Duration::from_secs(30)));
        assert!(listener.accept().unwrap().0.transport().is_san());
        assert!(!readable(listener.as_raw_fd(), Duration::ZERO));
        let _over_tcp = TcpStream::connect(address).unwrap();
        assert!(readable(listener.as_raw_fd(), Duration::from_secs(30)));
        assert!(!listener.accept().unwrap().0.transport().is_san());
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_blocked_accept_wakes_for_the_san() {
    with_listener(Config::default(), here().into(), |_, switch, listener| {
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().unwrap());
            let stream = switch.connect(address).unwrap();
            let (accepted, peer) = accepting.join().unwrap();
            assert!(accepted.transport().is_san());
            assert_eq!(peer, stream.local_addr().unwrap());
        });
    });
}

#[test]
fn peers_that_never_negotiate_hold_up_nobody() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let address = listener.local_addr().unwrap();
            let silent: Vec<_> = (0..20).map(|_| mock.silent_peer(address)).collect();
            let over_san = switch.connect(address).unwrap();
            assert!(over_san.transport().is_san());
            let local = over_san.local_addr().unwrap();
            assert!((0..silent.len() + 1).any(|_| listener.accept().unwrap().1 == local));
            let over_tcp = TcpStream::connect(address).unwrap();
            let local = over_tcp.local_addr().unwrap();
            assert!((0..silent.len() + 1).any(|_| listener.accept().unwrap().1 == local));
            for peer in silent {
                mock.end_peer(peer);
            }
        },
    );
}

#[test]
fn requests_that_cannot_be_accepted_do_not_end_the_listener() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let address = listener.local_addr().unwrap();
            for code in [10_054, 10_055, 10_013] {
                mock.reconfigure(|config| *config = Config::failing("Accept", code));
                assert_eq!(
                    switch.connect(address).unwrap_err().kind(),
                    ErrorKind::ConnectionRefused
                );
            }
            mock.reconfigure(|config| *config = Config::default());
            assert!(switch.connect(address).unwrap().transport().is_san());
            assert!(listener.accept().unwrap().0.transport().is_san());
        },
    );
}

#[test]
fn a_san_listener_that_fails_later_leaves_tcp() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let address = listener.local_addr().unwrap();
            mock.reconfigure(|config| *config = Config::failing("EnumNetworkEvents", 10_050));
            let silent = mock.silent_peer(address);
            mock.until("the SAN listener is closed", |state| {
                state.sockets.len() == 1
            });
            mock.reconfigure(|config| *config = Config::default());
            // The mock answers as a provider that cannot tell: the connect goes on over TCP.
            assert!(!switch.connect(address).unwrap().transport().is_san());
            assert!(!listener.accept().unwrap().0.transport().is_san());
            mock.end_peer(silent);
        },
    );
}

#[test]
fn closing_a_listener_closes_what_nobody_accepted() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let address = listener.local_addr().unwrap();
            let stream = switch.connect(address).unwrap();
            mock.until("the connection is accepted", |state| {
                state.sockets.len() == 3
            });
            drop(listener);
            drop(stream);
            mock.until("everything is closed", |state| state.sockets.is_empty());
            assert_eq!(
                switch.connect(address).unwrap_err().kind(),
                ErrorKind::ConnectionRefused
            );
        },
    );
}

#[test]
fn many_connect_at_once() {
    with_listener(Config::default(), here().into(), |_, switch, listener| {
        let address = listener.local_addr().unwrap();
        const COUNT: usize = 64;
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut peers: Vec<_> = (0..COUNT).map(|_| listener.accept().unwrap().1).collect();
                peers.sort();
                peers
            });
            let connect = || {
                let streams: Vec<_> = (0..COUNT / 4)
                    .map(|_| switch.connect(address).unwrap())
                    .collect();
                assert!(streams.iter().all(|stream| stream.transport().is_san()));
                streams
            };
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
            let streams: Vec<_> = clients
                .into_iter()
                .flat_map(|client| client.join().unwrap())
                .collect();
            let mut locals: Vec<_> = streams
                .iter()
                .map(|stream| stream.local_addr().unwrap())
                .collect();
            locals.sort();
            assert_eq!(server.join().unwrap(), locals);
        });
    });
}

#[test]
fn clones_are_one_listener_that_ends_with_the_last_of_them() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let clone = listener.try_clone().unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(clone.local_addr().unwrap(), address);
            clone.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
            clone.set_nonblocking(false).unwrap();
            drop(listener);
            let socket = mock.calls("Socket")[0].socket;
            assert!(!mock.calls_of(socket).contains(&"CloseSocket"));
            // Both paths are still open, and threads may share them.
            let over_san = switch.connect(address).unwrap();
            let over_tcp = TcpStream::connect(address).unwrap();
            let mut peers: Vec<SocketAddr> = thread::scope(|scope| {
                let accept = |listener: SanListener| listener.accept().unwrap().1;
                let other = clone.try_clone().unwrap();
                let other = scope.spawn(move || accept(other));
                vec![clone.accept().unwrap().1, other.join().unwrap()]
            });
            let mut expected = [over_san.local_addr(), over_tcp.local_addr()].map(Result::unwrap);
            peers.sort();
            expected.sort();
            assert_eq!(peers, expected);
            drop(clone);
            assert_eq!(mock.calls_of(socket).last(), Some(&"CloseSocket"));
            let gone = TcpStream::connect(address).unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
        },
    );
}

#[test]
fn nothing_is_wrong_with_a_listener_at_first_nor_when_its_san_fails() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            assert!(listener.take_error().unwrap().is_none());
            mock.reconfigure(|config| *config = Config::failing("Accept", 10_055));
            let stream = switch.connect(listener.local_addr().unwrap());
            assert!(stream.is_err() || !stream.unwrap().transport().is_san());
            assert!(listener.take_error().unwrap().is_none());
            mock.reconfigure(|config| *config = Config::default());
        },
    );
}

/// Whether there are threads of this name, and each of them has blocked what can be blocked.
fn take_no_signals(name: &str) -> bool {
    let blockable: u64 = (1..=31)
        .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
        .map(|signal| 1 << (signal - 1))
        .sum();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_it: Vec<bool> = tasks
        .filter_map(|task| {
            // Threads of other tests end meanwhile.
            let path = task.ok()?.path();
            let comm = fs::read_to_string(path.join("comm")).ok()?;
            let status = fs::read_to_string(path.join("status")).ok()?;
            let blocked = status
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:"))?;
            let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
            (comm.trim() == name).then_some(blocked & blockable == blockable)
        })
        .collect();
    !of_it.is_empty() && of_it.into_iter().all(|blocks| blocks)
}

#[test]
fn the_threads_of_the_switch_take_no_signals() {
    with_listener(
        Config::default(),
        here().into(),
        |mock, switch, listener| {
            let connected = switch.connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(accepted.transport().is_san());
            for name in ["wsd-accept", "wsd-service"] {
                // They do it first, but after they have come to be.
                mock.until(name, |_| take_no_signals(name));
            }
            drop((connected, accepted));
        },
    );
}
