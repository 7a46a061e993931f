//! The order of the switch's calls, against what is known of the original switch.
//!
//! Compared are the calls that the documents and the observations name; asking for options is left
//! out, they do not say when that happens.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::thread;

use mock::{Call, Config, Mock};
use wsd_switch::{Reason, SanStream, Switch};

/// A trace as text, one call a line: name, what was asked, and the code if it failed.
fn lines(mock: &Mock) -> Vec<String> {
    let line = |call: Call| {
        let asked = if call.detail.is_empty() {
            String::new()
        } else {
            format!(" {}", call.detail)
        };
        let failed = if call.code == 0 {
            String::new()
        } else {
            format!(" = {}", call.code)
        };
        format!("{}{asked}{failed}", call.name)
    };
    mock.trace().into_iter().map(line).collect()
}

#[test]
fn init_asks_a_provider_in_the_known_order() {
    // req: WSD-17
    let mock = Mock::begin(Config {
        rdma_read: false,
        arm: false,
        ..Config::default()
    });
    let switch = Switch::with_providers([mock.entry()]);
    let expected = [
        "StartupEx 0x0202",
        "Socket overlapped",
        "Ioctl addresses, short = 10014",
        "Ioctl addresses",
        "Ioctl RegisterMemory",
        "Ioctl DeregisterMemory",
        "Ioctl RegisterRdmaMemory",
        "Ioctl DeregisterRdmaMemory",
        "Ioctl RdmaWrite",
        "Ioctl RdmaRead = 10045",
        "Ioctl MemoryRegistrationCacheCallback = 10045",
        "Ioctl ArmCompletion = 10022",
        "CloseSocket",
    ];
    assert_eq!(lines(&mock), expected);
    drop(switch);
    assert_eq!(lines(&mock).last().unwrap(), "Cleanup");
    mock.assert_nothing_left();
    mock.assert_rules();
}

#[test]
fn a_provider_that_lacks_what_every_provider_has_is_not_used_and_cleaned_up() {
    // req: WSD-22
    for missing in [
        "RegisterMemory",
        "DeregisterMemory",
        "RegisterRdmaMemory",
        "DeregisterRdmaMemory",
        "RdmaWrite",
    ] {
        let mock = Mock::begin(Config {
            missing: vec![missing],
            ..Config::default()
        });
        let info = Switch::with_providers([mock.entry()]).info();
        assert_eq!(info.reason, Some(Reason::NoProvider));
        let why = info.providers[0].state.as_ref().unwrap_err();
        assert!(why.contains(missing), "{why}");
        mock.assert_nothing_left();
    }
}

#[test]
fn a_provider_that_fails_to_start_is_told_with_its_reason() {
    for (config, text, cleanups) in [
        (
            Config::failing("StartupEx", 10_106),
            "WSAEPROVIDERFAILEDINIT",
            0,
        ),
        (Config::failing("Socket", 10_055), "WSAENOBUFS", 1),
        (Config::failing("Ioctl", 10_050), "WSAENETDOWN", 1),
        (
            Config {
                null_slot: true,
                ..Config::default()
            },
            "WSAEINVALIDPROCTABLE",
            1,
        ),
        (
            Config {
                no_handle: true,
                ..Config::default()
            },
            "WSAEINVALIDPROVIDER",
            1,
        ),
    ] {
        let mock = Mock::begin(config);
        let info = Switch::with_providers([mock.entry()]).info();
        let why = info.providers[0].state.as_ref().unwrap_err();
        assert!(why.contains(text), "{why}");
        // req: WSD-22 a start that succeeded is cleaned up, one that failed is not
        assert_eq!(mock.calls("Cleanup").len(), cleanups, "{text}");
        mock.assert_nothing_left();
    }
}

#[test]
fn every_start_has_its_cleanup() {
    // req: WSD-22
    let mock = Mock::begin(Config::default());
    let first = Switch::with_providers([mock.entry(), mock.entry()]);
    let second = Switch::with_providers([mock.entry()]);
    assert_eq!(mock.starts(), 3);
    let clone = first.clone();
    drop(first);
    assert_eq!(mock.starts(), 3);
    drop(clone);
    drop(second);
    mock.assert_nothing_left();
}

#[test]
fn info_tells_what_a_provider_can_do() {
    let mock = Mock::begin(Config {
        max_rdma: None,
        arm: false,
        ..Config::default()
    });
    let switch = Switch::with_providers([mock.entry()]);
    let info = switch.info();
    assert_eq!(info.reason, None);
    let provider = &info.providers[0];
    assert_eq!(provider.name, "mock");
    let can = provider.state.as_ref().unwrap();
    assert_eq!(can.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);
    assert!(can.rdma_read && !can.arm_completion);
    assert_eq!((can.max_message, can.max_rdma), (Some(64 * 1024), None));
    assert_eq!(can.rdma_threshold, Some(16 * 1024));
}

/// What was called on a socket, one call a line: the name, and what was asked as far as a trace
/// names it. Asking for options is left out; so is the probe, which comes once for a provider.
fn calls_on(mock: &Mock, socket: usize) -> Vec<String> {
    let trace = mock
        .trace()
        .into_iter()
        .filter(|call| call.socket == socket);
    let named = trace.filter(|call| call.name != "GetSockOpt" && call.detail != "probe");
    let line = |call: Call| match call.name {
        "RegisterMemory" | "RegisterRdmaMemory" | "EventSelect" => {
            format!("{} {}", call.name, call.detail)
        }
        name => name.to_owned(),
    };
    named.map(line).collect()
}

/// Several equal calls in a row as one.
fn squeezed(mut calls: Vec<String>) -> Vec<String> {
    calls.dedup();
    calls
}

fn assert_in_order(calls: &[String], expected: &[&str]) {
    let mut rest = calls.iter();
    for name in expected {
        assert!(
            rest.any(|call| call == name),
            "no {name} in its place of {expected:?}: {calls:#?}"
        );
    }
}

/// The length of a message, as the mock recorded it.
fn length(call: &Call) -> usize {
    call.detail.split(' ').next().unwrap().parse().unwrap()
}

/// Two connected streams over the mock, with the numbers of their sockets.
struct Pair {
    connector: SanStream,
    acceptor: SanStream,
    sockets: (usize, usize),
}

fn pair(mock: &Mock, switch: &Switch) -> Pair {
    let listener = switch.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connector = switch.connect(listener.local_addr().unwrap()).unwrap();
    let (acceptor, _) = listener.accept().unwrap();
    assert!(connector.transport().is_san() && acceptor.transport().is_san());
    let active = mock.calls("Connect")[0].socket;
    let passive = mock.calls("Accepted")[0].socket;
    Pair {
        connector,
        acceptor,
        sockets: (active, passive),
    }
}

/// Runs a test with completions polled for, and with completions told by upcall.
fn both_ways(config: &Config, test: impl Fn(&Mock, Pair)) {
    for arm in [true, false] {
        let mock = Mock::begin(Config {
            arm,
            ..config.clone()
        });
        {
            let switch = Switch::with_providers([mock.entry()]);
            let pair = pair(&mock, &switch);
            test(&mock, pair);
        }
        mock.assert_nothing_left();
        mock.assert_rules();
        let told = if arm { "poll" } else { "upcall" };
        let posts = ["Send", "Recv", "RdmaRead", "RdmaWrite"].map(|name| mock.calls(name));
        // req: WSD-17 always overlapped; how its end is to be told is said in the same way
        assert!(
            posts
                .iter()
                .flatten()
                .all(|call| call.detail.ends_with(told))
        );
    }
}

fn transfer(from: &mut SanStream, to: &mut SanStream, len: usize) {
    let data: Vec<u8> = (0..len)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    let mut received = vec![0; len];
    thread::scope(|scope| {
        let sending = scope.spawn(|| from.write_all(&data));
        to.read_exact(&mut received).unwrap();
        sending.join().unwrap().unwrap();
    });
    assert!(received == data, "the bytes that arrived are others");
}

#[test]
fn the_active_side_calls_in_the_known_order() {
    // req: WSD-17
    both_ways(&Config::default(), |mock, pair| {
        let calls = squeezed(calls_on(mock, pair.sockets.0));
        let expected = [
            "Socket",
            "Bind",
            "EventSelect FD_CONNECT",
            "Connect",
            "EnumNetworkEvents",
            "RegisterMemory write",
            "RegisterMemory read",
            "Recv",
            "Send",
        ];
        assert_eq!(calls[..expected.len()], expected);
        let sends = mock.calls("Send");
        let first = sends
            .iter()
            .find(|call| call.socket == pair.sockets.0)
            .unwrap();
        assert!(length(first) <= 256, "{first:?}");
    });
}

#[test]
fn the_passive_side_calls_in_the_known_order() {
    // req: WSD-17
    both_ways(&Config::default(), |mock, pair| {
        let listening = mock.calls("Listen")[0].socket;
        let expected = [
            "Socket",
            "Bind",
            "Listen",
            "EventSelect FD_ACCEPT",
            "EnumNetworkEvents",
            "Accept",
        ];
        assert_eq!(
            squeezed(calls_on(mock, listening))[..expected.len()],
            expected
        );
        let calls = calls_on(mock, pair.sockets.1);
        let expected = [
            "Accepted",
            "RegisterMemory write",
            "RegisterMemory read",
            "Recv",
        ];
        assert_eq!(squeezed(calls.clone())[..expected.len()], expected);
        // The connector speaks first; the answer comes after all receives are posted.
        assert_in_order(&calls, &["Recv", "GetOverlappedResult", "Send"]);
        let sends = mock.calls("Send");
        let speakers: Vec<usize> = sends.iter().take(2).map(|call| call.socket).collect();
        assert_eq!(speakers, [pair.sockets.0, pair.sockets.1]);
        assert!(length(&sends[1]) <= 256, "{:?}", sends[1]);
    });
}

#[test]
fn large_data_is_pulled_where_the_receiver_can_read() {
    // req: SEED-06 SEED-07 SEED-08 SEED-09 SEED-17
    both_ways(&Config::default(), |mock, mut pair| {
        mock.clear_trace();
        transfer(&mut pair.connector, &mut pair.acceptor, 1 << 20);
        let (sender, receiver) = pair.sockets;
        mock.until("the memory is given back", |state| {
            state
                .trace
                .iter()
                .any(|call| call.name == "DeregisterRdmaMemory")
        });
        let calls = calls_on(mock, sender);
        assert_in_order(
            &calls,
            &["RegisterRdmaMemory read", "Send", "DeregisterRdmaMemory"],
        );
        let calls = calls_on(mock, receiver);
        assert_in_order(&calls, &["RegisterMemory write", "RdmaRead", "Send"]);
        let trace = mock.trace();
        let place = |name, socket| {
            trace
                .iter()
                .position(|call| call.name == name && call.socket == socket)
                .unwrap()
        };
        assert!(place("Send", sender) < place("RdmaRead", receiver));
        assert!(place("RdmaRead", receiver) < place("DeregisterRdmaMemory", sender));
        assert!(mock.calls("RdmaWrite").is_empty());
    });
}

#[test]
fn large_data_is_pushed_where_the_receiver_cannot_read() {
    // req: SEED-11 SEED-12 SEED-13 SEED-14 SEED-15 SEED-17
    let config = Config {
        rdma_read: false,
        ..Config::default()
    };
    both_ways(&config, |mock, mut pair| {
        mock.clear_trace();
        transfer(&mut pair.connector, &mut pair.acceptor, 1 << 20);
        let (sender, receiver) = pair.sockets;
        mock.until("the memory is given back", |state| {
            state
                .trace
                .iter()
                .any(|call| call.name == "DeregisterRdmaMemory")
        });
        let calls = calls_on(mock, receiver);
        assert_in_order(
            &calls,
            &["RegisterRdmaMemory write", "Send", "DeregisterRdmaMemory"],
        );
        let calls = calls_on(mock, sender);
        assert_in_order(
            &calls,
            &["Send", "RdmaWrite", "GetOverlappedResult", "Send"],
        );
        assert_in_order(
            &calls,
            &["RegisterMemory read", "RdmaWrite", "DeregisterMemory"],
        );
        assert!(mock.calls("RdmaRead").is_empty());
    });
}

#[test]
fn the_length_of_descriptors_is_probed_for_once() {
    // req: WSD-15
    both_ways(&Config::default(), |mock, mut pair| {
        transfer(&mut pair.connector, &mut pair.acceptor, 1 << 20);
        transfer(&mut pair.acceptor, &mut pair.connector, 1 << 20);
        let exposed = mock.calls("RegisterRdmaMemory");
        assert_eq!(
            (exposed[0].detail.as_str(), exposed[0].code),
            ("probe", 10_014)
        );
        assert!(exposed.len() > 2);
        assert!(
            exposed[1..].iter().all(|call| call.code == 0),
            "{exposed:?}"
        );
    });
}

#[test]
fn everything_is_deregistered_before_the_socket_is_closed_and_nothing_follows() {
    // req: WSD-22
    both_ways(&Config::default(), |mock, mut pair| {
        transfer(&mut pair.connector, &mut pair.acceptor, 1 << 20);
        let sockets = pair.sockets;
        drop(pair);
        mock.until("both are closed", |state| state.sockets.is_empty());
        for socket in [sockets.0, sockets.1] {
            let calls = calls_on(mock, socket);
            assert_in_order(&calls, &["DeregisterMemory", "CloseSocket"]);
            assert_eq!(calls.last().unwrap(), "CloseSocket");
        }
        // The mock looks at what is left when a socket is closed; see `Mock::assert_rules`.
        assert!(mock.calls("CloseSocket").iter().all(|call| call.code == 0));
    });
}
