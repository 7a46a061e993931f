//! `wsdirect run`: starts a program that does not know the switch with the preload library.
//!
//! Owns: finding the library, checking the rules, and the environment of the program. Does not
//! own: anything while the program runs, for it takes this process's place: same number, same
//! descriptors, same signals, and its exit code is the command's.

mod elf;
mod inspect;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use wsd_switch::companion::rules::{RuleError, Rules};

use crate::args;
use crate::failure::Failure;
use crate::output;
use crate::sys;

const LIBRARY: &str = "libwsd_preload.so";
/// As env(1), nohup(1) and shells have it.
const FAILED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the program; returns only if that failed.
pub(crate) fn run(run: &args::Run) -> Failure {
    match prepare(run) {
        Ok((program, environment)) => start(program, &run.program, &environment),
        Err(failure) => failure.exit_code(FAILED),
    }
}

type Environment = Vec<(OsString, OsString)>;

fn prepare(run: &args::Run) -> Result<(&OsStr, Environment), Failure> {
    let Some(program) = run.program.first() else {
        return Err(Failure::new("no program is named"));
    };
    let mut environment: Environment = std::env::vars_os().collect();
    let mut set = |name: &str, value: OsString| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value));
    };
    if let Some(file) = &run.rules {
        // Whatever folder the program or its children go to.
        let whole = file.canonicalize().map_err(|error| {
            Failure::caused(format!("cannot read the rules '{}'", file.display()), error)
        })?;
        check(Rules::read(&whole))?;
        set("WSD_RULES", whole.into());
    } else {
        check(Rules::from_environment())?;
    }
    if run.eager {
        set("WSD_EAGER", "1".into());
    }
    let library = library()?;
    let path = std::env::var_os("PATH");
    let found = inspect::inspect(program, path.as_deref());
    let plain = found.as_ref().and_then(|found| found.plain.as_ref());
    if let (Some(found), Some(plain)) = (&found, plain) {
        let name = program.to_string_lossy();
        let by = if found.file.as_os_str() == program || found.file.ends_with(program) {
            String::new()
        } else {
            format!(" ({})", found.file.display())
        };
        output::note(&format!("{name}{by} is not accelerated: {plain}"));
    }
    // Another loader would only complain about our library, or fail.
    if !plain.is_some_and(inspect::Plain::stumbles) {
        let before = std::env::var_os("LD_PRELOAD");
        set("LD_PRELOAD", inspect::preload(&library, before.as_deref()));
    }
    Ok((program, environment))
}

/// A mistake in the rules is told here, where somebody reads it.
fn check(rules: Result<Rules, RuleError>) -> Result<(), Failure> {
    let told = |error: RuleError| {
        Failure::new(error.to_string())
            .advise("the language of rules is described in docs/preload.md")
    };
    rules.map(drop).map_err(told)
}

/// The preload library: where the environment says, else beside this command or in ../lib.
fn library() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("WSD_PRELOAD_LIBRARY").filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        let whole = named.canonicalize().map_err(|error| {
            Failure::caused(
                format!("the preload library '{}' cannot be used", named.display()),
                error,
            )
            .advise("WSD_PRELOAD_LIBRARY names it")
        })?;
        return usable(whole);
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure::caused("cannot tell where this command is", error))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = [
        folder.join(LIBRARY),
        folder.join("../lib").join(LIBRARY),
        folder.join("../lib/wsdirect").join(LIBRARY),
    ];
    match places.iter().find_map(|place| place.canonicalize().ok()) {
        Some(library) => usable(library),
        None => Err(Failure::new(format!(
            "{LIBRARY} is neither in {} nor in {}",
            folder.display(),
            folder.join("../lib").display()
        ))
        .advise("install it there, or name it in WSD_PRELOAD_LIBRARY")),
    }
}

/// A library that the loader would take.
fn usable(library: PathBuf) -> Result<PathBuf, Failure> {
    let name = library.display();
    let separates = |byte: &u8| matches!(byte, b':' | b' ');
    if library.as_os_str().as_bytes().iter().any(separates) {
        return Err(Failure::new(format!(
            "the preload library '{name}' cannot be named in LD_PRELOAD"
        ))
        .advise("its path may hold neither blanks nor colons"));
    }
    let cannot =
        |error| Failure::caused(format!("cannot read the preload library '{name}'"), error);
    let file = File::open(&library).map_err(cannot)?;
    let elf = elf::Elf::read(file).map_err(cannot)?;
    if !elf.is_some_and(|elf| elf.own_kind) {
        return Err(Failure::new(format!(
            "'{name}' is no shared library for this machine"
        )));
    }
    Ok(library)
}

fn start(program: &OsStr, arguments: &[OsString], environment: &Environment) -> Failure {
    let error = sys::become_program(program, arguments, environment);
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_RUN
    };
    Failure::caused(format!("cannot run '{}'", program.display()), error).exit_code(code)
}
