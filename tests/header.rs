//! The committed header is the generated one, offers every published name, and its numbers are the
//! published ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/wsdirect.h"));

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of `tests/names.txt`: a name, and its value where it is a number.
fn published() -> Vec<(String, Option<String>)> {
    let text = fs::read_to_string(root().join("tests/names.txt")).unwrap();
    let names: Vec<_> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .split_once(' ')
                .map_or((line, None), |(n, v)| (n, Some(v)));
            (name.to_owned(), value.map(str::to_owned))
        })
        .collect();
    assert!(names.len() > 250, "names.txt has lost its content");
    names
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect()
}

/// The header without its comments.
fn code() -> String {
    let mut code = String::new();
    let mut rest = GENERATED;
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    code.push_str(rest);
    code
}

/// `12`, `0x0C`, `~0x0C` and `(-1)`.
fn number(text: &str) -> Option<i64> {
    let text = text.trim_matches(['(', ')']);
    if let Some(inverted) = text.strip_prefix('~') {
        return number(inverted).map(|n| !n);
    }
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What the header defines a name as; follows one name to another.
fn defined(header: &str, name: &str) -> Option<i64> {
    let value = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .find_map(|line| line.split_once(' ').filter(|(n, _)| *n == name))?
        .1;
    match value.strip_prefix('~') {
        Some(other) if !other.starts_with(|c: char| c.is_ascii_digit() || c == '(') => {
            defined(header, other).map(|n| !n)
        }
        _ => number(value),
    }
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = root().join("include/wsdirect.h");
    if std::env::var_os("WSD_BLESS").is_some() {
        fs::write(&path, GENERATED).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == GENERATED,
        "include/wsdirect.h is not what src/abi says; WSD_BLESS=1 cargo test --test header rewrites it"
    );
}

#[test]
fn every_published_name_is_in_the_header() {
    let code = code();
    let present = words(&code);
    let missing: Vec<_> = published()
        .into_iter()
        .map(|(n, _)| n)
        .filter(|n| !present.contains(n.as_str()))
        .collect();
    assert!(missing.is_empty(), "cbindgen dropped {missing:?}");
}

#[test]
fn every_number_is_the_published_one() {
    let code = code();
    let mut checked = 0;
    for (name, value) in published() {
        let Some(value) = value else { continue };
        let wanted = number(&value).unwrap_or_else(|| panic!("{name}: {value} is no number"));
        assert_eq!(defined(&code, &name), Some(wanted), "{name}");
        checked += 1;
    }
    assert!(checked > 150, "only {checked} numbers were checked");
}

#[test]
fn every_public_name_of_the_sources_is_in_the_list() {
    let listed: BTreeSet<_> = published().into_iter().map(|(n, _)| n).collect();
    let mut found = 0;
    let mut unlisted = Vec::new();
    for file in ["base", "codes", "extensions", "info", "table", "upcalls"] {
        let path = root().join(Path::new("src/abi").join(file).with_extension("rs"));
        for line in fs::read_to_string(path).unwrap().lines() {
            for start in ["pub const ", "pub type ", "pub struct "] {
                let Some(rest) = line.strip_prefix(start) else {
                    continue;
                };
                let name = rest
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next();
                let name = name.unwrap_or_default();
                found += 1;
                if !listed.contains(name) {
                    unlisted.push(name.to_owned());
                }
            }
        }
    }
    assert!(found > 250, "only {found} names were found in src/abi");
    assert!(unlisted.is_empty(), "not in tests/names.txt: {unlisted:?}");
}

#[test]
fn the_header_says_how_memory_events_and_completions_work() {
    let text = GENERATED.replace("\n *", "");
    for phrase in [
        "eventfd plus one",
        "lowest bit of WSAOVERLAPPED.hEvent",
        "exactly once",
    ] {
        assert!(
            text.contains(phrase),
            "the header no longer says {phrase:?}"
        );
    }
    for part in ["Memory.", "Completion.", "Events.", "Threads.", "Results."] {
        assert!(text.contains(part), "the header has lost its part {part:?}");
    }
}

/// The layouts and numbers that a C compiler sees are asserted in that file.
#[test]
fn a_c_compiler_agrees_on_every_layout() {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cc::Build::new()
        .file(root().join("c-tests/abi/layout.c"))
        .include(root().join("include"))
        .std("c11")
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Wpedantic")
        .flag("-Werror")
        .target(&target)
        .host(&target)
        .opt_level(0)
        .out_dir(out)
        .cargo_metadata(false)
        .try_compile("layout")
        .expect("c-tests/abi/layout.c compiles");
}
