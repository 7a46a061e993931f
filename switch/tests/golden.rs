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

use mock::{Config, Mock};
use wsd_switch::{Reason, Switch};

/// A trace as text, one call a line: name, what was asked, and the code if it failed.
fn lines(mock: &Mock) -> Vec<String> {
    let line = |call: mock::Call| {
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
