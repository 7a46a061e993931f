//! Writes the C header to the build folder, names the shared library, and compiles the C side of the
//! fabric over RDMA devices.
//!
//! Never touches the sources: the committed `include/wsdirect.h` is compared with what this makes
//! by `tests/header.rs`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

/// What the header is made of, in the order of the header.
const SOURCES: &[&str] = &[
    "src/abi/base.rs",
    "src/abi/codes.rs",
    "src/abi/info.rs",
    "src/abi/upcalls.rs",
    "src/abi/table.rs",
    "src/abi/extensions.rs",
    "src/exports.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // The number changes only when a program built against an older header would break.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libwsdirect.so.0");

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(root.join("cbindgen.toml"))?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        builder = builder.with_src(root.join(source));
    }
    builder.generate()?.write_to_file(out.join("wsdirect.h"));
    shim();
    Ok(())
}

/// The C side of the fabric over RDMA devices.
#[cfg(feature = "verbs")]
fn shim() {
    const FOLDER: &str = "src/fabric/verbs";
    println!("cargo::rerun-if-changed={FOLDER}/shim.h");
    println!("cargo::rerun-if-changed={FOLDER}/shim.c");
    cc::Build::new()
        .file(format!("{FOLDER}/shim.c"))
        .std("c11")
        .define("_GNU_SOURCE", None)
        .warnings(true)
        .extra_warnings(true)
        // No library that this is linked into is to export its functions.
        .flag("-fvisibility=hidden")
        .compile("wsd_verbs_shim");
    println!("cargo::rustc-link-lib=rdmacm");
    println!("cargo::rustc-link-lib=ibverbs");
}

#[cfg(not(feature = "verbs"))]
fn shim() {}
