//! Every crate that goes into the build has a licence on the list of `deny.toml` and comes from
//! crates.io or from this repository.
//!
//! The licence half of `cargo deny check`, without its installation; advisories need its database.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The strings of one array in `deny.toml`: `allow = [ "…", … ]`.
fn strings(text: &str, key: &str) -> Vec<String> {
    let start = text
        .find(&format!("\n{key} = ["))
        .unwrap_or_else(|| panic!("no {key}"));
    let array = text[start..]
        .split_once('[')
        .unwrap()
        .1
        .split_once("\n]")
        .unwrap()
        .0;
    let quoted = |line: &str| Some(line.split_once('"')?.1.split_once('"')?.0.to_owned());
    array
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(quoted)
        .collect()
}

/// What `[[licenses.exceptions]]`-like lines allow to one crate: `{ crate = "…", allow = ["…"] }`.
fn exceptions(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \""))
        .filter_map(|rest| {
            let (name, rest) = rest.split_once('"')?;
            let licence = rest.split_once("[\"")?.1.split_once('"')?.0;
            Some((name.to_owned(), licence.to_owned()))
        })
        .collect()
}

/// Whether an SPDX expression can be met: any side of OR, both of AND.
fn acceptable(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = alternatives(&words, &mut at, allowed);
    met && at == words.len()
}

fn alternatives(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let met = alternatives(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed(&name)
}

/// What cargo knows of every package of the lock file that this build needs.
fn packages() -> Vec<Value> {
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host
        .lines()
        .find_map(|l| l.strip_prefix("host: "))
        .unwrap()
        .to_owned();
    let metadata = |offline: bool| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root());
        cargo.args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            &host,
        ]);
        if offline {
            cargo.arg("--offline");
        }
        if !cfg!(feature = "verbs") {
            cargo.arg("--no-default-features");
        }
        cargo.output().unwrap()
    };
    let mut out = metadata(true);
    if !out.status.success() {
        out = metadata(false);
    }
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    all["packages"].as_array().unwrap().clone()
}

#[test]
fn every_crate_has_a_licence_on_the_list_and_a_known_source() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = strings(&deny, "allow");
    let exceptions = exceptions(&deny);
    assert!(list.len() > 3, "deny.toml lists no licences");

    let packages = packages();
    assert!(
        packages.len() > 10,
        "cargo metadata shows only {} packages",
        packages.len()
    );
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("");
        let allowed = |one: &str| {
            list.iter().any(|l| l == one) || exceptions.iter().any(|(c, l)| c == name && l == one)
        };
        if !acceptable(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence:?}"));
        }
        match package["source"].as_str() {
            None | Some("registry+https://github.com/rust-lang/crates.io-index") => {}
            Some(other) => wrong.push(format!("{name}: comes from {other}")),
        }
    }
    assert!(wrong.is_empty(), "not permitted by deny.toml: {wrong:#?}");
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = |l: &str| l == "MIT" || l == "Apache-2.0 WITH LLVM-exception";
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND MIT",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(acceptable(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "(MIT",
        "MIT MIT",
    ] {
        assert!(!acceptable(bad, &allowed), "{bad}");
    }
}
