//! When a connection uses TCP and when it fails, and that the SAN socket is closed in every case.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use mock::{Config, Mock, Which};
use wsd_switch::{
    ConnectOptions, Mode, Reason, SanListener, SanStream, Switch, Transport, WsaError,
};

const NOBODY_LISTENS: i32 = 10_054;
const REFUSED: i32 = 10_061;
const UNREACHABLE: i32 = 10_065;

/// Some of everything a provider may answer, the documented time-out first.
const OTHER_CODES: [i32; 14] = [
    10_060, 10_013, 10_014, 10_022, 10_024, 10_036, 10_047, 10_048, 10_049, 10_050, 10_051, 10_053,
    10_055, 11_003,
];

/// A TCP server that no switch stands behind.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    fn new() -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Server { listener, address }
    }

    /// Who has connected so far.
    fn visitors(&self) -> Vec<SocketAddr> {
        self.listener.set_nonblocking(true).unwrap();
        let accept = || self.listener.accept().ok();
        std::iter::from_fn(accept).map(|(_, peer)| peer).collect()
    }
}

fn reason(stream: &SanStream) -> Reason {
    let Transport::Tcp { reason } = stream.transport() else {
        unreachable!("connected over the SAN")
    };
    reason
}

/// One connect against a mock that does as configured.
fn connect(
    config: Config,
    options: &ConnectOptions,
    check: impl FnOnce(io::Result<SanStream>, &Server, &Mock),
) {
    let mock = Mock::begin(config);
    {
        let switch = Switch::with_providers([mock.entry()]);
        mock.clear_trace();
        let server = Server::new();
        let result = switch.connect_with(server.address, options);
        // req: WSD-18 closed in every case, before anything else is done
        assert_eq!(mock.open_sockets(), 0);
        check(result, &server, &mock);
    }
    mock.assert_nothing_left();
    mock.assert_rules();
}

#[test]
fn three_codes_are_the_applications_error_and_tcp_is_not_tried() {
    // req: WSD-18
    for (code, kind) in [
        (NOBODY_LISTENS, ErrorKind::ConnectionRefused),
        (REFUSED, ErrorKind::ConnectionRefused),
        (UNREACHABLE, ErrorKind::HostUnreachable),
    ] {
        let later = Config {
            connect_outcome: Some(code),
            ..Config::default()
        };
        for config in [later, Config::failing("Connect", code)] {
            connect(config, &ConnectOptions::new(), |result, server, _| {
                assert_eq!(result.unwrap_err().kind(), kind, "{code}");
                assert_eq!(server.visitors(), []);
            });
        }
    }
}

#[test]
fn every_other_code_goes_on_over_tcp_from_the_same_address() {
    // req: WSD-18
    for code in OTHER_CODES {
        let later = Config {
            connect_outcome: Some(code),
            ..Config::default()
        };
        for config in [later, Config::failing("Connect", code)] {
            connect(config, &ConnectOptions::new(), |result, server, mock| {
                let stream = result.unwrap();
                assert_eq!(reason(&stream), Reason::ConnectFailed(WsaError(code)));
                let local = stream.local_addr().unwrap();
                assert_eq!(mock.calls("Bind")[0].detail, local.to_string());
                assert_eq!(server.visitors(), [local]);
            });
        }
    }
}

#[test]
fn a_failure_on_the_way_to_the_connect_goes_on_over_tcp() {
    // req: WSD-18
    let code = WsaError(10_055);
    let cases = [
        ("Socket", Reason::SocketFailed(code)),
        ("Bind", Reason::BindFailed(code)),
        ("SetSockOpt", Reason::OptionFailed(code)),
        ("EventSelect", Reason::EventFailed(code)),
        ("EnumNetworkEvents", Reason::EventFailed(code)),
    ];
    for (name, expected) in cases {
        let mock = Mock::begin(Config::default());
        {
            let switch = Switch::with_providers([mock.entry()]);
            mock.reconfigure(|config| *config = Config::failing(name, code.0));
            let server = Server::new();
            let options = ConnectOptions::new().debug(true);
            let stream = switch.connect_with(server.address, &options).unwrap();
            assert_eq!(reason(&stream), expected);
            assert_eq!(mock.open_sockets(), 0);
            assert_eq!(server.visitors().len(), 1);
        }
        mock.assert_nothing_left();
    }
}

#[test]
fn even_the_final_codes_fall_back_when_they_are_not_the_connects() {
    // req: WSD-18
    for code in [NOBODY_LISTENS, REFUSED, UNREACHABLE] {
        connect(
            Config::failing("Bind", code),
            &ConnectOptions::new(),
            |result, _, _| {
                assert_eq!(reason(&result.unwrap()), Reason::BindFailed(WsaError(code)));
            },
        );
    }
}

#[test]
fn a_san_that_does_not_answer_leaves_tcp_its_time() {
    let config = Config {
        connect_outcome: None,
        ..Config::default()
    };
    let options = ConnectOptions::new().connect_timeout(Some(Duration::from_secs(2)));
    connect(config, &options, |result, server, _| {
        assert_eq!(reason(&result.unwrap()), Reason::ConnectTimedOut);
        assert_eq!(server.visitors().len(), 1);
    });
}

#[test]
fn the_calls_of_a_connect_come_in_the_documented_order() {
    // req: WSD-17
    let config = Config {
        connect_outcome: Some(10_060),
        ..Config::default()
    };
    connect(
        config,
        &ConnectOptions::new().debug(true),
        |result, _, mock| {
            assert!(result.is_ok());
            let socket = mock.calls("Socket")[0].socket;
            let expected = [
                "Socket",
                "Bind",
                "SetSockOpt",
                "EventSelect",
                "Connect",
                "EnumNetworkEvents",
                "CloseSocket",
            ];
            assert_eq!(mock.calls_of(socket), expected);
            assert_eq!(mock.calls("Socket")[0].detail, "overlapped");
            assert_eq!(mock.calls("Connect")[0].code, 10_035);
        },
    );
}

#[test]
fn an_error_of_tcp_after_the_fallback_is_the_applications() {
    let mock = Mock::begin(Config {
        connect_outcome: Some(10_060),
        ..Config::default()
    });
    let switch = Switch::with_providers([mock.entry()]);
    let address = Server::new().address;
    let error = switch.connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(mock.calls("Connect").len(), 1);
}

#[test]
fn a_destination_that_no_provider_serves_is_not_asked_of_any() {
    let config = Config {
        addresses: vec![[192, 0, 2, 1].into()],
        ..Config::default()
    };
    connect(config, &ConnectOptions::new(), |result, _, mock| {
        assert_eq!(reason(&result.unwrap()), Reason::NoRoute);
        assert_eq!(mock.calls("Socket"), []);
    });
}

#[test]
fn tcp_that_was_asked_for_is_tcp() {
    connect(
        Config::default(),
        &ConnectOptions::new().mode(Mode::Tcp),
        |result, _, mock| {
            assert_eq!(reason(&result.unwrap()), Reason::Asked);
            assert_eq!(mock.calls("Socket"), []);
        },
    );
}

#[test]
fn without_a_provider_there_is_tcp() {
    let switch = Switch::with_providers([]);
    let server = Server::new();
    assert_eq!(
        reason(&switch.connect(server.address).unwrap()),
        Reason::NoProvider
    );
    let listener = switch.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_eq!(listener.tcp_only(), Some(&Reason::NoProvider));
}

#[test]
fn a_failed_connect_goes_to_tcp_and_not_to_the_next_provider() {
    // Both list the same addresses, so the first is taken.
    let mock = Mock::begin(Config {
        connect_outcome: Some(10_060),
        ..Config::default()
    });
    let switch = Switch::with_providers([mock.entry(), mock.other_entry()]);
    mock.clear_trace();
    let server = Server::new();
    let stream = switch.connect(server.address).unwrap();
    let why = Reason::ConnectFailed(WsaError(10_060));
    assert_eq!(reason(&stream), why);
    for name in ["Socket", "Connect"] {
        assert_eq!(makers(&mock, name), [Which::First], "{name}");
    }
}

/// By which entry the sockets were made on which a function was called.
fn makers(mock: &Mock, name: &str) -> Vec<Which> {
    mock.calls(name).iter().map(|call| call.made_by).collect()
}

#[test]
fn the_second_provider_is_used_where_the_first_does_not_serve() {
    let (far, one, two) = ([192, 0, 2, 1], [127, 0, 0, 1], [127, 0, 0, 2]);
    // What either entry lists, where to, and whose that is.
    for (first, other, to, whose) in [
        (far, one, one, Which::Other),
        (one, two, two, Which::Other),
        (one, two, one, Which::First),
        (two, one, two, Which::First),
    ] {
        let case = format!("{first:?}, {other:?}, to {to:?}");
        let mock = Mock::begin(Config {
            addresses: vec![first.into()],
            other_addresses: vec![other.into()],
            connect_outcome: Some(REFUSED),
            ..Config::default()
        });
        {
            let switch = Switch::with_providers([mock.entry(), mock.other_entry()]);
            mock.clear_trace();
            let error = switch.connect((Ipv4Addr::from(to), 7)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{case}");
            for name in ["Socket", "Bind", "Connect", "CloseSocket"] {
                assert_eq!(makers(&mock, name), [whose], "{name}: {case}");
            }
        }
        mock.assert_nothing_left();
        mock.assert_rules();
    }
}

#[test]
fn a_listener_whose_san_fails_listens_over_tcp_and_says_why() {
    let code = WsaError(10_055);
    for (name, expected) in [
        ("Socket", Reason::SocketFailed(code)),
        ("Bind", Reason::BindFailed(code)),
        ("Listen", Reason::ListenFailed(code)),
        ("EventSelect", Reason::EventFailed(code)),
    ] {
        let mock = Mock::begin(Config::default());
        {
            let switch = Switch::with_providers([mock.entry()]);
            mock.reconfigure(|config| *config = Config::failing(name, code.0));
            let listener = switch.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            assert_eq!(listener.tcp_only(), Some(&expected));
            let told: Vec<_> = listener.providers().collect();
            assert_eq!(told, [("mock", Some(&expected))]);
            assert_eq!(mock.open_sockets(), 0);
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            assert_eq!(reason(&stream), expected);
        }
        mock.assert_nothing_left();
    }
}

/// Runs one of the tests below in a process of its own, with a variable set.
fn in_a_process_with(variable: &str, value: &str, test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--test-threads", "1"])
        .env(variable, value);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn the_switch_can_be_turned_off() {
    in_a_process_with("WSD_SWITCH", "off", "turned_off_there_is_only_tcp");
}

#[test]
#[ignore = "run by the_switch_can_be_turned_off"]
fn turned_off_there_is_only_tcp() {
    let server = Server::new();
    let stream = SanStream::connect(server.address).unwrap();
    assert_eq!(reason(&stream), Reason::SwitchOff);
    let listener = SanListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_eq!(listener.tcp_only(), Some(&Reason::SwitchOff));
    let info = Switch::global().info();
    assert_eq!(
        (info.reason, info.providers.len()),
        (Some(Reason::SwitchOff), 0)
    );
}

#[test]
fn a_library_that_is_missing_is_told_and_does_no_harm() {
    in_a_process_with(
        "WSD_PROVIDERS",
        "/nonexistent/san.so",
        "a_missing_library_is_in_the_info",
    );
}

#[test]
#[ignore = "run by a_library_that_is_missing_is_told_and_does_no_harm"]
fn a_missing_library_is_in_the_info() {
    let info = Switch::global().info();
    let absent = info
        .providers
        .iter()
        .find(|one| one.name == "/nonexistent/san.so")
        .unwrap();
    assert!(absent.state.as_ref().unwrap_err().contains("No such file"));
    let server = Server::new();
    assert!(SanStream::connect(server.address).is_ok());
}
