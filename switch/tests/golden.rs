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

use mock::pair::{assert_in_order, both_ways, calls_on, length, squeezed, transfer};
use mock::{Call, Config, Mock};
use wsd_proto::Message;
use wsd_switch::{Reason, Switch};

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
        "Ioctl TakeProgress = 10022",
        "Ioctl MakeProgress = 10022",
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
        // It says how many receives are posted.
        let calls = calls_on(mock, pair.sockets.0);
        let posted = calls.iter().take_while(|call| *call != "Send");
        let posted = posted.filter(|call| *call == "Recv").count();
        let said = wsd_proto::parse(&mock.messages_of(pair.sockets.0)[0], None).unwrap();
        let Message::Negotiate(offer) = said.message else {
            unreachable!("{said:?}")
        };
        assert_eq!(offer.receive_buffers as usize, posted);
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
        let said = wsd_proto::parse(&mock.messages_of(pair.sockets.1)[0], None).unwrap();
        let Message::Accepted(offer) = said.message else {
            unreachable!("{said:?}")
        };
        let sent_after = calls.iter().position(|call| call == "Send").unwrap();
        let posted = calls[..sent_after].iter().filter(|call| *call == "Recv");
        // One of them took the connector's message and was posted again.
        assert_eq!(offer.receive_buffers as usize, posted.count() - 1);
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
        // The write went on in the background, and so does what follows it.
        mock.until("both have given their memory back", |state| {
            ["DeregisterMemory", "DeregisterRdmaMemory"]
                .iter()
                .all(|name| state.trace.iter().any(|call| call.name == *name))
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
