//! `wsdirect perf`: every figure that was asked for is there, in one call and apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Child;

use serde_json::Value;
use support::{Running, expect_code, wsdirect};

const QUICK: [&str; 6] = ["--rounds", "2", "--slice", "2", "--sizes", "8,64K"];

fn expect_all_rows(result: &Value, transports: &[&str]) {
    for wait in ["poll", "block"] {
        for size in [8, 65_536] {
            for transport in transports {
                let row = result["rows"].as_array().unwrap().iter().find(|row| {
                    row["wait"] == wait && row["size"] == size && row["transport"] == *transport
                });
                let row = row.unwrap_or_else(|| panic!("no row {wait} {size} {transport}"));
                let number = |value: &Value| value.as_f64().unwrap();
                let latency = &row["latency_ns"];
                assert!(number(&latency["samples"]) >= 2.0);
                assert!(number(&latency["p50"]) > 0.0);
                assert!(number(&latency["p50"]) <= number(&latency["p99"]));
                assert!(number(&latency["p99"]) <= number(&latency["p999"]));
                for figure in ["bytes_per_second", "messages_per_second"] {
                    assert!(number(&row[figure]["q1"]) > 0.0, "{figure}");
                    assert!(number(&row[figure]["q1"]) <= number(&row[figure]["median"]));
                    assert!(number(&row[figure]["median"]) <= number(&row[figure]["q3"]));
                }
            }
        }
    }
    assert_eq!(
        result["rows"].as_array().unwrap().len(),
        4 * transports.len()
    );
}

#[test]
fn one_call_measures_all_transports_and_their_ratios() {
    let mut perf = wsdirect(["perf", "--json"]);
    perf.args(QUICK);
    let output = Running::start(perf).finish();
    expect_code(&output, 0);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    expect_all_rows(&result, &["san", "tcp", "unix"]);
    assert_eq!(result["path"]["kind"], "san");
    assert_eq!(result["absent"], Value::Array(Vec::new()));
    let ratios = result["ratios"].as_array().unwrap();
    assert_eq!(ratios.len(), 2 * 2 * 2, "waits, sizes, opponents");
    for ratio in ratios {
        assert!(ratio["latency"]["median"].as_f64().unwrap() > 0.0);
        assert!(ratio["bandwidth"]["median"].as_f64().unwrap() > 0.0);
    }
}

/// A started server, and where it listens.
fn serving(more: &[&str]) -> (Child, String) {
    let mut server = wsdirect(["perf", "--listen", &support::anywhere()]);
    let mut server = server.args(more).spawn().unwrap();
    let mut line = String::new();
    let stdout = server.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    (server, address.to_owned())
}

#[test]
fn a_server_apart_serves_one_client_after_the_other() {
    let (mut server, address) = serving(&[]);
    for _ in 0..2 {
        let mut perf = wsdirect([
            "perf",
            "--connect",
            &address,
            "--json",
            "--transports",
            "tcp,unix",
        ]);
        perf.args(QUICK);
        let output = Running::start(perf).finish();
        expect_code(&output, 0);
        expect_all_rows(
            &serde_json::from_slice(&output.stdout).unwrap(),
            &["tcp", "unix"],
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_server_that_demands_the_san_turns_tcp_away_and_goes_on() {
    let (mut server, address) = serving(&["--mode", "read"]);
    let client = |mode: &str| {
        let mut perf = wsdirect(["perf", "--connect", &address, "--mode", mode, "--json"]);
        perf.args(QUICK);
        Running::start(perf).finish()
    };
    let stderr = expect_code(&client("tcp"), 1);
    assert!(stderr.contains("does not answer"), "{stderr}");
    expect_code(&client("auto"), 0);
    server.kill().unwrap();
    let said = server.wait_with_output().unwrap();
    let said = support::text(&said.stderr);
    assert!(said.contains("turned away a connection: the SAN"), "{said}");
}

#[test]
fn who_moved_large_data_is_told_and_why_not_as_it_was_wanted() {
    const LARGE: [&str; 6] = ["--rounds", "1", "--slice", "2", "--sizes", "1M"];
    let perf = |args: &[&str], environment: &[(&str, &str)]| {
        let mut perf = wsdirect(["perf", "--transports", "san"]);
        perf.args(LARGE).args(args);
        perf.envs(environment.iter().copied());
        let output = Running::start(perf).finish();
        let said = expect_code(&output, 0);
        (output.stdout, said)
    };
    for mode in ["read", "write"] {
        let (result, _) = perf(&["--json", "--mode", mode], &[]);
        let result: Value = serde_json::from_slice(&result).unwrap();
        assert_eq!(result["path"]["mode"], mode, "{}", result["path"]);
        assert_eq!(result["path"]["gave_way"], Value::Null);
    }
    let unable = [("WSD_RDMA_READ", "0")];
    let (result, _) = perf(&["--json", "--mode", "read"], &unable);
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(result["path"]["mode"], "write", "{}", result["path"]);
    assert!(result["path"]["gave_way"].is_string(), "{}", result["path"]);
    let (table, said) = perf(&["--mode", "read"], &unable);
    assert!(said.contains("--mode read gave way: "), "{said}");
    let table = support::text(&table);
    assert!(table.contains("the sender writes large data"), "{table}");
}

#[test]
fn without_the_san_the_rest_is_measured_and_the_reason_told() {
    let mut perf = wsdirect(["perf", "--json", "--mode", "tcp"]);
    perf.args(QUICK);
    let output = Running::start(perf).finish();
    expect_code(&output, 0);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    expect_all_rows(&result, &["tcp", "unix"]);
    assert_eq!(result["absent"][0]["transport"], "san");
    assert!(!result["absent"][0]["reason"].as_str().unwrap().is_empty());
}

#[test]
fn without_anything_to_measure_the_reason_is_an_error() {
    let mut perf = wsdirect(["perf", "--mode", "tcp", "--transports", "san"]);
    perf.args(QUICK);
    let stderr = expect_code(&Running::start(perf).finish(), 1);
    assert!(stderr.contains("nothing to measure: san: "), "{stderr}");
}

#[test]
fn the_table_for_people_has_every_size_and_says_what_latency_means() {
    let mut perf = wsdirect(["perf", "--wait", "block", "--rounds", "1", "--slice", "1"]);
    perf.args(["--sizes", "8,64,4K,64K,1M"]);
    let output = Running::start(perf).finish();
    expect_code(&output, 0);
    let table = support::text(&output.stdout);
    for part in [
        "8 B",
        "64 B",
        "4 KiB",
        "64 KiB",
        "1 MiB",
        "half of a round trip",
        "p99.9",
        "unix",
    ] {
        assert!(table.contains(part), "no {part:?} in: {table}");
    }
}

#[test]
fn measuring_against_nobody_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let perf = wsdirect(["perf", "--connect", &free.to_string()]);
    let stderr = expect_code(&Running::start(perf).finish(), 1);
    assert!(stderr.contains("nobody listens there"), "{stderr}");
}
