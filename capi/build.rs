//! Writes the C header to the build folder. Never touches the sources: the committed
//! `include/wsd_switch.h` is compared with what this makes by `tests/header.rs`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

/// What the header is made of, in the order of the header.
const SOURCES: &[&str] = &["src/types.rs", "src/exports.rs"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(root.join("cbindgen.toml"))?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        builder = builder.with_src(root.join(source));
    }
    builder.generate()?.write_to_file(out.join("wsd_switch.h"));
    Ok(())
}
