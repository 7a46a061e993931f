//! `wsdirect run`: the program it starts is what it would be without, but for the library.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{Running, expect_code, text, wsdirect};

/// Stands for the preload library: says on its descriptor 2 that it was loaded.
const LIBRARY: &str = r#"
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) { write(2, "loaded\n", 7); }
"#;

fn compile(folder: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let (code, made) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let cc = Command::new("cc")
        .args(["-o"])
        .arg(&made)
        .arg(&code)
        .args(options)
        .output()
        .unwrap();
    assert!(cc.status.success(), "{}", text(&cc.stderr));
    made
}

struct Place {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let library = compile(folder.path(), "l.so", LIBRARY, &["-shared", "-fPIC"]);
        Place { folder, library }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wsdirect(["run"].iter().chain(arguments));
        command.env("WSD_PRELOAD_LIBRARY", &self.library);
        for variable in ["LD_PRELOAD", "WSD_RULES", "WSD_RULE", "WSD_EAGER"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Running::start(self.command(arguments)).finish()
    }
}

#[test]
fn the_library_is_loaded_and_the_programs_output_and_exit_code_are_its_own() {
    let place = Place::new();
    let out = place.run(&["--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(expect_code(&out, 42), "loaded\nerr\n");
    assert_eq!(text(&out.stdout), "out\n");
    let out = place.run(&["printf", "%s|", "--rules", "-x", "--", "a b"]);
    assert_eq!(text(&out.stdout), "--rules|-x|--|a b|");
}

#[test]
fn the_program_takes_the_commands_place() {
    let place = Place::new();
    let mut running = Running::start(place.command(&["sh", "-c", "echo $$ >&2; exec sleep 60"]));
    running.after("loaded");
    let pid = loop {
        let line = running.after("");
        if let Ok(pid) = line.parse::<u32>() {
            break pid;
        }
    };
    assert_eq!(pid, running.child.id());
    assert!(running.is_running());
    running.signal("TERM");
    let out = running.finish();
    assert_eq!(out.status.signal(), Some(15));
}

#[test]
fn standard_descriptors_and_ignored_signals_are_handed_on_as_they_were() {
    let place = Place::new();
    // By the shell itself: while it starts another program, its signals are blocked.
    let state = "set -- /proc/self/fd/*; echo $#; while read -r name value; do \
        case $name in SigIgn:|SigBlk:|SigCgt:) echo $name $value ;; esac; done </proc/self/status";
    for shell in ["true", "trap '' PIPE HUP", "exec 0<&-", "exec 2>&-"] {
        let plain = format!("{shell}; exec sh -c \"$1\"");
        let ours = format!("{shell}; exec \"$2\" run sh -c \"$1\"");
        let outputs = [plain, ours].map(|script| {
            let mut command = Command::new("sh");
            command
                .args(["-c", &script, "sh", state, env!("CARGO_BIN_EXE_wsdirect")])
                .env("WSD_PRELOAD_LIBRARY", &place.library)
                .stdin(Stdio::null());
            text(&command.output().unwrap().stdout)
        });
        assert_eq!(outputs[0], outputs[1], "{shell}");
    }
}

#[test]
fn the_environment_has_what_the_library_needs_and_all_the_rest() {
    let place = Place::new();
    let rules = place.path().join("rules");
    fs::write(&rules, "use tcp port 22 # ssh\n").unwrap();
    let out = Running::start({
        let mut command = place.command(&["--eager", "--rules", "rules", "--", "env"]);
        command
            .current_dir(place.path())
            .env("OTHER", "kept = so")
            .env("LD_PRELOAD", "libdl.so.2 libm.so.6");
        command
    })
    .finish();
    let environment = text(&out.stdout);
    let has = |line: String| assert!(environment.lines().any(|l| l == line), "{environment}");
    has("OTHER=kept = so".to_owned());
    has("WSD_EAGER=1".to_owned());
    has(format!(
        "WSD_RULES={}",
        rules.canonicalize().unwrap().display()
    ));
    let library = place.library.canonicalize().unwrap();
    has(format!(
        "LD_PRELOAD={}:libdl.so.2 libm.so.6",
        library.display()
    ));
}

#[test]
fn a_mistake_in_the_rules_is_told_before_anything_starts() {
    let place = Place::new();
    let rules = place.path().join("rules");
    fs::write(&rules, "use san\nuse tpc\n").unwrap();
    let out = place.run(&["--rules", rules.to_str().unwrap(), "--", "echo", "started"]);
    let told = expect_code(&out, 125);
    assert!(told.contains("line 2") && told.contains("tpc"), "{told}");
    assert!(out.stdout.is_empty());
    let out = place.run(&["--rules", "/nonexistent/rules", "--", "echo"]);
    assert!(expect_code(&out, 125).contains("/nonexistent/rules"));
    let mut command = place.command(&["--", "echo"]);
    command.env("WSD_RULE", "use san; use");
    assert!(expect_code(&Running::start(command).finish(), 125).contains("WSD_RULE, line 2"));
}

#[test]
fn a_program_that_cannot_be_started_is_reported_as_shells_do() {
    let place = Place::new();
    let out = place.run(&["--", "no-such-program-at-all"]);
    assert!(expect_code(&out, 127).contains("no-such-program-at-all"));
    let file = place.path().join("file");
    fs::write(&file, "not executable").unwrap();
    let out = place.run(&["--", file.to_str().unwrap()]);
    assert!(expect_code(&out, 126).contains("Permission denied"));
    assert_eq!(place.run(&[]).status.code(), Some(2));
}

#[test]
fn without_a_usable_library_nothing_is_started() {
    let place = Place::new();
    let with = |library: &Path| {
        let mut command = place.command(&["--", "echo", "started"]);
        command.env("WSD_PRELOAD_LIBRARY", library);
        let out = Running::start(command).finish();
        assert!(out.stdout.is_empty());
        expect_code(&out, 125)
    };
    let told = with(Path::new("/nonexistent/l.so"));
    assert!(
        told.contains("/nonexistent/l.so") && told.contains("WSD_PRELOAD_LIBRARY"),
        "{told}"
    );
    assert!(with(&place.script("l.txt", "text")).contains("no shared library"));
    let spaced = place.path().join("a b.so");
    fs::copy(&place.library, &spaced).unwrap();
    assert!(with(&spaced).contains("neither blanks nor colons"));
    // Beside the command and in ../lib, where it is looked for without the variable.
    let (bin, lib) = (place.path().join("bin"), place.path().join("lib"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&lib).unwrap();
    let own = bin.join("wsdirect");
    fs::copy(env!("CARGO_BIN_EXE_wsdirect"), &own).unwrap();
    let start = || {
        let mut command = Command::new(&own);
        command
            .args(["run", "--", "true"])
            .env_remove("WSD_PRELOAD_LIBRARY");
        command.output().unwrap()
    };
    let told = expect_code(&start(), 125);
    assert!(told.contains("libwsd_preload.so is neither in"), "{told}");
    fs::copy(&place.library, lib.join("libwsd_preload.so")).unwrap();
    assert_eq!(expect_code(&start(), 0), "loaded\n");
}

#[test]
fn a_static_program_runs_and_is_said_not_to_be_accelerated() {
    let place = Place::new();
    let source = "#include <stdio.h>\nint main(void) { puts(\"here\"); return 3; }";
    let program = compile(place.path(), "static", source, &["-static"]);
    let name = program.to_str().unwrap();
    let out = place.run(&["--", name]);
    let told = expect_code(&out, 3);
    assert!(
        told.contains("not accelerated: it is statically linked"),
        "{told}"
    );
    assert!(!told.contains("loaded"), "{told}");
    assert_eq!(text(&out.stdout), "here\n");
    // The same by way of a script.
    let script = place.script("script", &format!("#!{name} -x\n"));
    let told = expect_code(&place.run(&["--", script.to_str().unwrap()]), 3);
    assert!(
        told.contains("statically linked") && told.contains(name),
        "{told}"
    );
}

#[test]
fn a_program_with_gos_build_id_is_said_not_to_be_accelerated() {
    let place = Place::new();
    let source = r#"
        __asm__(".section .note.go.buildid, \"a\", @note\n"
                ".long 4, 8, 4\n.ascii \"Go\\0\\0\"\n.ascii \"build-id\"\n.text");
        int main(void) { return 4; }"#;
    let program = compile(place.path(), "go", source, &[]);
    let told = expect_code(&place.run(&["--", program.to_str().unwrap()]), 4);
    assert!(
        told.contains("not accelerated: it is a Go program"),
        "{told}"
    );
}

#[test]
fn a_setuid_program_of_another_user_is_said_not_to_be_accelerated() {
    let place = Place::new();
    let program = compile(place.path(), "set", "int main(void) { return 5; }", &[]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let name = program.to_str().unwrap();
    // One's own setuid program gives nothing, and is accelerated.
    let told = expect_code(&place.run(&["--", name]), 5);
    assert_eq!(told, "loaded\n");
    // Only a user who may act as another can try the rest.
    let other = 65534;
    let mut command = place.command(&["--", name]);
    command.uid(other).gid(other);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Ok(child) = command.spawn() {
        let out = child.wait_with_output().unwrap();
        // Where the command itself may not be executed by others there is nothing to see.
        if out.status.code() == Some(5) {
            let told = text(&out.stderr);
            assert!(told.contains("not accelerated: it is setuid"), "{told}");
            assert!(!told.contains("loaded\n"), "{told}");
        }
    }
}
