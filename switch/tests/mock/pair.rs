//! Two streams connected over the mock, and what was called for them.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::thread;

use wsd_switch::{SanStream, Switch};

use super::{Call, Config, Mock};

/// What was called on a socket, one call a line: the name, and what was asked as far as a trace
/// names it. Asking for options is left out; so is the probe, which comes once for a provider.
pub(crate) fn calls_on(mock: &Mock, socket: usize) -> Vec<String> {
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
pub(crate) fn squeezed(mut calls: Vec<String>) -> Vec<String> {
    calls.dedup();
    calls
}

pub(crate) fn assert_in_order(calls: &[String], expected: &[&str]) {
    let mut rest = calls.iter();
    for name in expected {
        assert!(
            rest.any(|call| call == name),
            "no {name} in its place of {expected:?}: {calls:#?}"
        );
    }
}

/// The length of a message, as the mock recorded it.
pub(crate) fn length(call: &Call) -> usize {
    call.detail.split(' ').next().unwrap().parse().unwrap()
}

/// Two connected streams over the mock, with the numbers of their sockets.
pub(crate) struct Pair {
    pub(crate) connector: SanStream,
    pub(crate) acceptor: SanStream,
    /// The connector's and the acceptor's.
    pub(crate) sockets: (usize, usize),
}

pub(crate) fn pair(mock: &Mock, switch: &Switch) -> Pair {
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
pub(crate) fn both_ways(config: &Config, test: impl Fn(&Mock, Pair)) {
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

pub(crate) fn transfer(from: &mut SanStream, to: &mut SanStream, len: usize) {
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
