//! The shared library exports what `src/exports.rs` lists and nothing else, under the name that
//! programs are linked against.
//!
//! req: WSD-01

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// All symbols of the library.
const EXPORTS: &[&str] = &[
    "WSAID_ARMCOMPLETION",
    "WSAID_DEREGISTERMEMORY",
    "WSAID_DEREGISTERRDMAMEMORY",
    "WSAID_MAKEPROGRESS",
    "WSAID_MEMORYREGISTRATIONCACHECALLBACK",
    "WSAID_RDMAREAD",
    "WSAID_RDMAWRITE",
    "WSAID_REGISTERMEMORY",
    "WSAID_REGISTERRDMAMEMORY",
    "WSAID_TAKEPROGRESS",
    "WSPStartupEx",
];

/// The library that cargo built together with this test; built now if it is not there.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let beside = || {
        [deps, deps.parent().unwrap()]
            .into_iter()
            .map(|folder| folder.join("libwsdirect.so"))
            .find(|path| path.exists())
    };
    if let Some(path) = beside() {
        return path;
    }
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--locked", "--lib"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(feature = "verbs") {
        build.arg("--no-default-features");
    }
    let target = deps.ancestors().nth(2).unwrap();
    build.arg("--target-dir").arg(target);
    assert!(
        build.status().unwrap().success(),
        "the shared library could not be built"
    );
    beside().expect("cargo put the shared library beside its tests")
}

fn output(tool: &str, arguments: &[&str]) -> String {
    let out = Command::new(tool)
        .args(arguments)
        .arg(library())
        .output()
        .unwrap_or_else(|e| panic!("{tool} (package binutils): {e}"));
    assert!(
        out.status.success(),
        "{tool}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_library_exports_exactly_its_one_entry_and_the_guids() {
    let listing = output("nm", &["-D", "--defined-only", "--format=posix"]);
    let found: BTreeSet<_> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let wanted: BTreeSet<_> = EXPORTS.iter().copied().collect();
    assert_eq!(found, wanted);
}

#[test]
fn the_library_has_the_name_that_programs_are_linked_against() {
    let dynamic = output("readelf", &["-d", "-W"]);
    assert!(
        dynamic.contains("Library soname: [libwsdirect.so.0]"),
        "{dynamic}"
    );
}

#[test]
fn the_guids_of_the_sources_are_the_published_ones() {
    let first = |guid: wsdirect::abi::GUID| guid.Data1;
    // The bytes in memory of the first, and of the one that is of another family.
    let bytes = |guid: wsdirect::abi::GUID| {
        let mut bytes = guid.Data1.to_le_bytes().to_vec();
        bytes.extend(guid.Data2.to_le_bytes());
        bytes.extend(guid.Data3.to_le_bytes());
        bytes.extend(guid.Data4);
        bytes
    };
    assert_eq!(
        bytes(wsdirect::WSAID_REGISTERMEMORY),
        [
            0xf5, 0x22, 0xb4, 0xc0, 0x8c, 0xf5, 0xd1, 0x11, 0xad, 0x6c, 0, 0xc0, 0x4f, 0xa3, 0x4a,
            0x2d
        ]
    );
    assert_eq!(
        bytes(wsdirect::WSAID_MEMORYREGISTRATIONCACHECALLBACK),
        [
            0xf8, 0x4a, 0xda, 0xe5, 0x24, 0xd8, 0xcd, 0x48, 0xa7, 0x99, 0x63, 0x37, 0xa9, 0x8e,
            0xd2, 0xaf
        ]
    );
    let family = [
        wsdirect::WSAID_REGISTERMEMORY,
        wsdirect::WSAID_DEREGISTERMEMORY,
        wsdirect::WSAID_REGISTERRDMAMEMORY,
        wsdirect::WSAID_DEREGISTERRDMAMEMORY,
        wsdirect::WSAID_RDMAWRITE,
        wsdirect::WSAID_RDMAREAD,
    ];
    for (guid, number) in family.into_iter().zip(0xC0B4_22F5u32..) {
        assert_eq!(first(guid), number);
        assert_eq!(bytes(guid)[4..], bytes(family[0])[4..]);
    }
}
