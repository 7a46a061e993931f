//! Where the library is that cargo built together with the tests.

use std::path::PathBuf;
use std::process::Command;

/// The shared library; built now if it is not there. `WSD_PRELOAD_LIBRARY` names another one to be
/// tested, for instance an optimised one.
pub(crate) fn path() -> PathBuf {
    if let Some(other) = std::env::var_os("WSD_PRELOAD_LIBRARY") {
        return other.into();
    }
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let beside = || {
        [deps, deps.parent().unwrap()]
            .into_iter()
            .map(|folder| folder.join("libwsd_preload.so"))
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
