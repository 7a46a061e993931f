//! `wsdirect info`: providers, limits, devices, and why something is absent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod support;

use serde_json::Value;
use support::{Running, expect_code, text, wsdirect};

fn info(environment: &[(&str, &str)]) -> Value {
    let mut command = wsdirect(["info", "--json"]);
    command.envs(environment.iter().copied());
    let output = Running::start(command).finish();
    expect_code(&output, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_linked_provider_is_shown_with_addresses_and_limits() {
    let info = info(&[]);
    let provider = &info["providers"][0];
    assert_eq!(provider["state"], "usable", "{info}");
    let addresses = provider["addresses"].as_array().unwrap();
    assert!(
        addresses.contains(&Value::from(support::address())),
        "{info}"
    );
    assert_eq!(provider["rdma_read"], true);
    assert_eq!(provider["arm_completion"], true);
    assert!(provider["keeps_registrations"].is_boolean(), "{info}");
    for limit in ["max_message", "rdma_threshold"] {
        assert!(provider[limit].as_u64().unwrap() > 0, "{limit}: {info}");
    }
    assert_eq!(info["all_tcp_because"], Value::Null);
}

#[test]
fn what_is_absent_says_why() {
    let none = info(&[("WSD_SWITCH", "off")]);
    assert!(
        none["all_tcp_because"]
            .as_str()
            .unwrap()
            .contains("WSD_SWITCH=off"),
        "{none}"
    );
    assert_eq!(none["environment"], serde_json::json!(["WSD_SWITCH=off"]));

    let missing = info(&[("WSD_PROVIDERS", "/nonexistent/provider.so")]);
    let providers = missing["providers"].as_array().unwrap();
    let absent = providers.iter().find(|p| p["state"] == "unusable").unwrap();
    assert_eq!(absent["source"], "/nonexistent/provider.so");
    assert!(!absent["reason"].as_str().unwrap().is_empty());

    let writes = info(&[("WSD_RDMA_READ", "0")]);
    assert_eq!(writes["providers"][0]["rdma_read"], false, "{writes}");
}

#[test]
fn devices_are_listed_or_their_absence_explained() {
    let info = info(&[]);
    let devices = &info["rdma_devices"];
    let found = devices["found"]
        .as_array()
        .is_some_and(|found| !found.is_empty());
    let absent = devices["absent"]
        .as_str()
        .is_some_and(|reason| !reason.is_empty());
    assert!(found != absent, "{devices}");
}

#[test]
fn the_text_for_people_names_provider_limits_and_devices() {
    let output = Running::start(wsdirect(["info"])).finish();
    expect_code(&output, 0);
    let shown = text(&output.stdout);
    for part in [
        "provider",
        "addresses",
        &support::address(),
        "largest message",
        "RDMA devices",
    ] {
        assert!(shown.contains(part), "no {part:?} in: {shown}");
    }
}

#[test]
fn a_value_that_is_not_understood_is_reported_and_not_shown_as_in_force() {
    let mut command = wsdirect(["info", "--json"]);
    command.envs([
        ("WSD_SPIN_US", "banana"),
        ("WSD_QUEUE_DEPTH", "1"),
        ("WSD_CONTROL_BUFFERS", "1"),
        ("WSD_SWITCH", "of"),
        ("WSD_RDMA_READ", "0"),
    ]);
    let output = Running::start(command).finish();
    let stderr = expect_code(&output, 0);
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = info["environment"].as_array().unwrap();
    for wrong in ["SPIN_US", "QUEUE_DEPTH", "CONTROL_BUFFERS", "SWITCH"] {
        let name = format!("WSD_{wrong}");
        assert_eq!(stderr.matches(&name).count(), 1, "{name}: {stderr}");
        let line = shown
            .iter()
            .find(|line| line.as_str().unwrap().starts_with(&name));
        let line = line.unwrap().as_str().unwrap();
        assert!(
            line.ends_with("(not understood; the default is used)"),
            "{line}"
        );
    }
    assert!(shown.contains(&Value::from("WSD_RDMA_READ=0")), "{info}");
    assert!(!stderr.contains("WSD_RDMA_READ"), "{stderr}");
}
