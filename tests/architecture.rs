//! Imports go one way only, and `unsafe` stands only in the files named here.
//!
//! The rules are those of `docs/architecture.md`. Test code may import what it likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod source;

use std::collections::BTreeSet;
use std::fs;

use source::{Source, files, root, words_at};

/// The files that may hold `unsafe`; the same list stands in `docs/architecture.md`.
const UNSAFE: &[&str] = &[
    "src/exports.rs",
    "src/fabric/fault.rs",
    "src/fabric/mod.rs",
    "src/fabric/regcache/sys.rs",
    "src/fabric/soft/copy.rs",
    "src/fabric/soft/endpoint.rs",
    "src/fabric/soft/lock.rs",
    "src/fabric/soft/region.rs",
    "src/fabric/soft/shm.rs",
    "src/fabric/soft/sys.rs",
    "src/fabric/verbs/endpoint.rs",
    "src/fabric/verbs/early.rs",
    "src/fabric/verbs/memory.rs",
    "src/fabric/verbs/sys.rs",
    "src/fabric/verbs/sys/cq.rs",
    "src/fabric/verbs/sys/raw.rs",
    "switch/src/companion/calls.rs",
    "switch/src/companion/data.rs",
    "switch/src/companion/fork.rs",
    "switch/src/companion/kernel.rs",
    "switch/src/companion/registry.rs",
    "switch/src/lent.rs",
    "switch/src/memory.rs",
    "switch/src/memory/control.rs",
    "switch/src/memory/mapping.rs",
    "switch/src/observe/memory.rs",
    "switch/src/sys/addresses.rs",
    "switch/src/sys/event.rs",
    "switch/src/sys/mod.rs",
    "switch/src/sys/options.rs",
    "switch/src/sys/poll.rs",
    "switch/src/sys/tcp.rs",
    "switch/src/table/control.rs",
    "switch/src/table/entry.rs",
    "switch/src/table/mod.rs",
    "switch/src/table/progress.rs",
    "switch/src/table/transfer.rs",
    "switch/src/upcalls.rs",
    "src/spi/args.rs",
    "src/spi/connection.rs",
    "src/spi/duplicate.rs",
    "src/spi/entry.rs",
    "src/spi/events.rs",
    "src/spi/memory.rs",
    "src/spi/options.rs",
    "src/spi/overlapped.rs",
    "src/spi/progress.rs",
    "src/spi/startup.rs",
    "src/spi/sys.rs",
    "src/spi/transfer.rs",
    "src/spi/unsupported.rs",
    "src/spi/upcall.rs",
    "capi/src/exports.rs",
    "capi/src/sys.rs",
    "cli/src/sys.rs",
    "preload/src/calls/data.rs",
    "preload/src/calls/dup.rs",
    "preload/src/calls/epoll.rs",
    "preload/src/calls/exec.rs",
    "preload/src/calls/files.rs",
    "preload/src/calls/info.rs",
    "preload/src/calls/jump.rs",
    "preload/src/calls/life.rs",
    "preload/src/calls/message.rs",
    "preload/src/calls/mod.rs",
    "preload/src/calls/pass.rs",
    "preload/src/calls/poll.rs",
    "preload/src/calls/process.rs",
    "preload/src/calls/select.rs",
    "preload/src/calls/spawn.rs",
    "preload/src/calls/stdio.rs",
    "preload/src/calls/stream.rs",
    "preload/src/calls/syscall.rs",
    "preload/src/clock.rs",
    "preload/src/environment.rs",
    "preload/src/file.rs",
    "preload/src/guard.rs",
    "preload/src/hidden.rs",
    "preload/src/lib.rs",
    "preload/src/log.rs",
    "preload/src/many.rs",
    "preload/src/raw.rs",
    "preload/src/real.rs",
    "preload/src/sets/control.rs",
    "preload/src/sets/fork.rs",
    "preload/src/sets/sys.rs",
    "preload/src/sets/wait.rs",
    "preload/src/table.rs",
];

/// The one file of the engine that knows fabrics by name: it picks one.
const PICKS_A_FABRIC: &str = "src/engine/mod.rs";

/// Which modules of the provider each of its modules may import, besides itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("exports", &["abi", "spi"]),
    ("spi", &["abi", "engine"]),
    ("engine", &["fabric"]),
    ("fabric", &[]),
];

/// Our crates that each crate may import.
const CRATES: &[(&str, &[&str])] = &[
    ("src", &["wsd_proto"]),
    ("proto/src", &[]),
    ("switch/src", &["wsdirect", "wsd_proto"]),
    ("capi/src", &["wsd_switch"]),
    ("cli/src", &["wsd_switch"]),
    ("preload/src", &["wsd_switch"]),
];

const OURS: &[&str] = &[
    "wsdirect",
    "wsd_proto",
    "wsd_switch",
    "wsd_preload",
    "wsd_capi",
    "wsdirect_cli",
];

fn sources() -> Vec<Source> {
    let all = files(
        &[
            "src",
            "proto/src",
            "switch/src",
            "preload/src",
            "capi/src",
            "cli/src",
        ],
        &[".rs"],
    );
    assert!(all.len() > 10, "the sources were not found");
    all
}

/// The product code of a file in one string, for paths that span lines.
fn product(source: &Source) -> String {
    let mut code = String::new();
    for (_, line) in source.product_code() {
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The first segments of what follows `prefix::`, with groups taken apart:
/// `crate::{a::b, c}` gives a and c.
fn first_segments(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for at in words_at(code, prefix) {
        let Some(rest) = code[at + prefix.len()..].trim_start().strip_prefix("::") else {
            continue;
        };
        let rest = rest.trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(segment(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(segment(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        found.insert(segment(item.trim()));
    }
    found.remove("");
    found
}

fn segment(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*')
        .collect()
}

/// The module of the provider that a file belongs to; none for `lib.rs`.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

/// How many `super` lead from a file's own module to the crate.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let parts = inside.split('/').count();
    if inside.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    }
}

/// What a file imports from the modules of its own crate.
fn imported_modules(source: &Source) -> BTreeSet<String> {
    let code = product(source);
    let mut found = first_segments(&code, "crate");
    let climb = vec!["super"; depth(&source.path)].join("::");
    found.extend(first_segments(&code, &climb));
    found
}

#[test]
fn modules_of_the_provider_import_only_what_stands_below_them() {
    let modules: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(from) = module(&source.path) else {
            continue;
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{}: the module {from} has no rule", source.path));
            continue;
        };
        for to in imported_modules(&source) {
            if to != from && !allowed.contains(&to.as_str()) {
                let what = if modules.contains(to.as_str()) {
                    "imports"
                } else {
                    "names"
                };
                wrong.push(format!("{} {what} crate::{to}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_import_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let (_, allowed) = CRATES
            .iter()
            .find(|(folder, _)| source.path.starts_with(folder))
            .expect("a rule");
        let code = product(&source);
        for other in OURS {
            if !words_at(&code, other).is_empty() && !allowed.contains(other) {
                wrong.push(format!("{} names {other}", source.path));
            }
        }
        // The switch sees of the provider what any other caller sees.
        for item in first_segments(&code, "wsdirect") {
            if item != "abi" && item != "WSPStartupEx" {
                wrong.push(format!("{} imports wsdirect::{item}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_protocol_crate_depends_on_nothing() {
    let manifest = fs::read_to_string(root().join("proto/Cargo.toml")).unwrap();
    let dependencies = manifest
        .split("\n[")
        .find_map(|part| part.strip_prefix("dependencies]"))
        .unwrap_or_default();
    let named: Vec<_> = dependencies
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .collect();
    assert!(
        named.is_empty(),
        "wsd-proto is to depend on nothing: {named:?}"
    );
    let lib = fs::read_to_string(root().join("proto/src/lib.rs")).unwrap();
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(
            lib.contains(attribute),
            "proto/src/lib.rs has lost {attribute}"
        );
    }
}

#[test]
fn fabrics_are_known_by_name_in_one_file_of_the_engine() {
    for source in sources()
        .iter()
        .filter(|s| s.path.starts_with("src/engine/"))
    {
        let code = product(source);
        for fabric in ["soft", "verbs"] {
            let named = !words_at(&code, &format!("fabric::{fabric}")).is_empty();
            assert!(
                !named || source.path == PICKS_A_FABRIC,
                "{} knows the fabric {fabric} by name",
                source.path
            );
        }
    }
}

#[test]
fn engine_and_fabric_know_no_name_of_the_interface() {
    for source in sources() {
        if !["src/engine/", "src/fabric/"]
            .iter()
            .any(|f| source.path.starts_with(f))
        {
            continue;
        }
        for (number, line) in source.product_code() {
            for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
                let of_the_interface = ["WSA", "WSP", "WPU", "LPWS", "SOCKET"].iter().any(|p| {
                    word.strip_prefix(p)
                        .is_some_and(|r| !r.starts_with(char::is_lowercase))
                });
                assert!(!of_the_interface, "{}:{number}: {word}", source.path);
            }
        }
    }
}

/// The lines of a file that hold the word `unsafe`. A function pointer type is not an unsafe act.
fn unsafe_lines(source: &Source) -> Vec<usize> {
    source
        .product_code()
        .filter(|(_, line)| {
            words_at(line, "unsafe").iter().any(|&at| {
                let rest = line[at + "unsafe".len()..]
                    .split_whitespace()
                    .collect::<String>();
                // Strings are blanked out: `unsafe extern "C" fn(` is left as this.
                !rest.starts_with("externfn(")
            })
        })
        .map(|(number, _)| number)
        .collect()
}

#[test]
fn unsafe_stands_only_in_the_named_files() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = unsafe_lines(&source);
        if !lines.is_empty() && !UNSAFE.contains(&source.path.as_str()) {
            wrong.push(format!("{}: lines {lines:?}", source.path));
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe outside the list in tests/architecture.rs: {wrong:#?}"
    );
}

#[test]
fn every_named_file_still_needs_to_be_named() {
    let needed: BTreeSet<_> = sources()
        .into_iter()
        .filter(|source| !unsafe_lines(source).is_empty())
        .map(|source| source.path)
        .collect();
    let idle: Vec<_> = UNSAFE
        .iter()
        .filter(|path| !needed.contains(**path))
        .collect();
    assert!(
        idle.is_empty(),
        "these hold no unsafe any more; take them off the list: {idle:?}"
    );
}

#[test]
fn the_documentation_names_the_same_files() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap_or_default();
    let missing: Vec<_> = UNSAFE
        .iter()
        .filter(|path| !text.contains(&format!("`{path}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/architecture.md does not name {missing:?}"
    );
}

#[test]
fn groups_and_nested_paths_are_taken_apart() {
    let code =
        "use crate::{abi::{self, SOCKET}, engine::Engine};\ncrate :: fabric::Caps; mycrate::x;";
    let wanted: BTreeSet<_> = ["abi", "engine", "fabric"].map(String::from).into();
    assert_eq!(first_segments(code, "crate"), wanted);
    assert_eq!(
        (
            depth("src/exports.rs"),
            depth("src/spi/mod.rs"),
            depth("src/spi/args.rs")
        ),
        (1, 1, 2)
    );
}
