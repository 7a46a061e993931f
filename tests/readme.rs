//! What the README shows is what is tested: its C program is a case of the C tests, letter for
//! letter. (Its Rust program is a documentation test of `wsd-switch`.)

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn the_c_program_of_the_readme_is_the_tested_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let program = fs::read_to_string(root.join("c-tests/examples/addresses.c")).unwrap();
    assert!(
        readme.contains(&format!("```c\n{program}```\n")),
        "README.md and c-tests/examples/addresses.c differ"
    );
}
