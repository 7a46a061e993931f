//! Whether a program can be accelerated at all: what will run when it is started, and whether the
//! preload library will be loaded into it and see its calls.
//!
//! Owns: the path from a name to the file that the kernel loads. Does not own: starting anything.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::elf::Elf;
use crate::sys;

/// Why a program runs as it would without us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Plain {
    Static,
    Go,
    OtherMachine,
    OtherLoader(String),
    SetId,
    Capabilities,
}

impl Plain {
    /// Whether a loader that is not ours would stumble over our library.
    pub(super) fn stumbles(&self) -> bool {
        matches!(self, Plain::OtherMachine | Plain::OtherLoader(_))
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plain::Static => f.write_str("it is statically linked"),
            Plain::Go => f.write_str("it is a Go program, which calls the kernel by itself"),
            Plain::OtherMachine => f.write_str("it is for another processor or word size"),
            Plain::OtherLoader(name) if name.starts_with("ld-musl") => {
                write!(f, "its C library is musl ({name})")
            }
            Plain::OtherLoader(name) => write!(f, "another C library loads it ({name})"),
            Plain::SetId => f.write_str("it is setuid or setgid, and ignores LD_PRELOAD"),
            Plain::Capabilities => f.write_str("its file has capabilities, and ignores LD_PRELOAD"),
        }
    }
}

/// What starting a program comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The file that the kernel loads in the end: for a script its interpreter.
    pub(super) file: PathBuf,
    /// Why it is not accelerated.
    pub(super) plain: Option<Plain>,
}

/// As many interpreters of interpreters as the kernel follows.
const SCRIPTS: u32 = 5;
const LONGEST_LINE: u64 = 256;

/// Looks at a program as `execvp` would find it. `None`: nothing of it can be known beforehand,
/// starting it will tell what is wrong.
pub(super) fn inspect(program: &OsStr, path: Option<&OsStr>) -> Option<Found> {
    let mut file = search(program, path)?;
    let mut scripts = 0;
    loop {
        let opened = File::open(&file).ok()?;
        if let Some(elf) = Elf::read(&opened).ok()? {
            let plain = judge(&elf, &file, &opened);
            return Some(Found { file, plain });
        }
        scripts += 1;
        if scripts > SCRIPTS {
            return None;
        }
        file = match first_line(&opened).ok()? {
            // What has no `#!` either is run by the shell.
            None => PathBuf::from("/bin/sh"),
            Some(line) => interpreter(&line, path)?,
        };
    }
}

/// The file that a name stands for.
fn search(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    // Without PATH the C library looks where the system's programs are.
    let path = path.unwrap_or(OsStr::new("/bin:/usr/bin"));
    std::env::split_paths(path)
        .map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new(".").join(name),
            false => folder.join(name),
        })
        .find(|file| {
            file.metadata()
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        })
}

/// What stands behind `#!` in the first line.
fn first_line(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut file = file;
    io::Seek::rewind(&mut file)?;
    let mut start = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next();
    Ok(line
        .and_then(|line| line.strip_prefix(b"#!"))
        .map(<[u8]>::to_vec))
}

/// The program of a `#!` line. `env` only looks for another program, so that one counts.
fn interpreter(line: &[u8], path: Option<&OsStr>) -> Option<PathBuf> {
    let mut words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    let first = Path::new(OsStr::from_bytes(words.next()?));
    if first.file_name() != Some(OsStr::new("env")) {
        return Some(first.to_owned());
    }
    // The kernel hands over all the rest as one word; with -S env takes it apart. Either way the
    // first word that is neither an option nor an assignment is the program.
    let name = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    search(OsStr::from_bytes(name), path)
}

fn judge(elf: &Elf, path: &Path, file: &File) -> Option<Plain> {
    let own = own();
    if !elf.own_kind || own.as_ref().is_some_and(|own| own.machine != elf.machine) {
        return Some(Plain::OtherMachine);
    }
    if elf.go {
        return Some(Plain::Go);
    }
    let Some(loader) = &elf.loader else {
        return Some(Plain::Static);
    };
    let loader = file_name(loader);
    if let Some(ours) = own.and_then(|own| own.loader)
        && loader != file_name(&ours)
    {
        return Some(Plain::OtherLoader(loader));
    }
    privilege(path, file)
}

fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What this command itself is: what it can load, the library is made for.
fn own() -> Option<Elf> {
    Elf::read(File::open("/proc/self/exe").ok()?).ok().flatten()
}

/// Whether starting the file gives rights that the caller lacks: the loader then ignores
/// LD_PRELOAD.
fn privilege(path: &Path, file: &File) -> Option<Plain> {
    if sys::gains_no_privileges(file) {
        return None;
    }
    let about = file.metadata().ok()?;
    let (user, group) = sys::ids();
    let mode = about.permissions().mode();
    if mode & 0o4000 != 0 && about.uid() != user {
        return Some(Plain::SetId);
    }
    // Without the group's right to execute, the bit meant mandatory locking.
    if mode & 0o2010 == 0o2010 && about.gid() != group {
        return Some(Plain::SetId);
    }
    (user != 0 && sys::has_capabilities(path)).then_some(Plain::Capabilities)
}

/// `LD_PRELOAD` with the library in front of what was there; unchanged where it is there already.
pub(super) fn preload(library: &Path, before: Option<&OsStr>) -> OsString {
    let before = before.unwrap_or_default().as_bytes();
    let library = library.as_os_str().as_bytes();
    let separates = |byte: &u8| matches!(byte, b':' | b' ');
    if before.split(separates).any(|one| one == library) {
        return OsString::from_vec(before.to_vec());
    }
    let mut all = library.to_vec();
    if before.split(separates).any(|one| !one.is_empty()) {
        all.push(b':');
        all.extend(before);
    }
    OsString::from_vec(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::elf::tests::{note, program};
    use super::*;
    use std::fs;

    fn machine() -> u16 {
        own().unwrap().machine
    }

    fn executable(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn plain(path: &Path) -> Option<Plain> {
        inspect(path.as_os_str(), None).unwrap().plain
    }

    #[test]
    fn programs_that_never_load_us_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, machine, segments: &[(u32, &[u8])]| {
            plain(&executable(
                folder.path(),
                name,
                &program(machine, segments),
            ))
        };
        let loader = own().unwrap().loader.unwrap();
        let go = note(b"Go\0\0", 4, b"id");
        assert_eq!(make("own", machine(), &[(3, loader.as_bytes())]), None);
        assert_eq!(make("static", machine(), &[(1, b"")]), Some(Plain::Static));
        assert_eq!(make("go", machine(), &[(4, &go)]), Some(Plain::Go));
        let cgo = make("cgo", machine(), &[(3, loader.as_bytes()), (4, &go)]);
        assert_eq!(cgo, Some(Plain::Go));
        let other = make("arm", machine() + 1, &[(3, loader.as_bytes())]);
        assert_eq!(other, Some(Plain::OtherMachine));
        let musl = make("musl", machine(), &[(3, b"/lib/ld-musl-x86_64.so.1\0")]).unwrap();
        assert!(
            musl.stumbles() && musl.to_string().contains("musl"),
            "{musl}"
        );
    }

    #[test]
    fn a_script_is_what_its_interpreter_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let elf = executable(at, "static", &program(machine(), &[]));
        let line = |text: String| format!("#!{text}\nexit 1\n").into_bytes();
        let one = executable(at, "one", &line(format!(" {} -x", elf.display())));
        let two = executable(at, "two", &line(format!("{}", one.display())));
        for script in [&one, &two] {
            let found = inspect(script.as_os_str(), None).unwrap();
            assert_eq!(found.file, elf);
            assert_eq!(found.plain, Some(Plain::Static));
        }
        let by_env = executable(at, "env", &line("/usr/bin/env -S A=1 static x".to_owned()));
        let found = inspect(by_env.as_os_str(), Some(at.as_os_str())).unwrap();
        assert_eq!(found.file, elf);
        let shell = executable(at, "shell", b"exit 0\n");
        let found = inspect(shell.as_os_str(), None).unwrap();
        assert_eq!((found.file, found.plain), (PathBuf::from("/bin/sh"), None));
        let round = at.join("round");
        executable(at, "round", &line(round.display().to_string()));
        assert_eq!(inspect(round.as_os_str(), None), None);
    }

    #[test]
    fn a_name_is_looked_for_as_the_c_library_does() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        for (folder, mode) in [(&one, 0o644), (&two, 0o755)] {
            fs::create_dir(folder).unwrap();
            let file = executable(folder, "tool", b"");
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([&one, &two]).unwrap();
        let find = |name: &str| search(OsStr::new(name), Some(&path));
        assert_eq!(find("tool"), Some(two.join("tool")));
        assert_eq!(find("none"), None);
        assert_eq!(find("./tool"), Some(PathBuf::from("./tool")));
        assert!(search(OsStr::new("sh"), None).is_some());
    }

    #[test]
    fn ld_preload_keeps_what_was_there() {
        let library = Path::new("/lib/ours.so");
        let made = |before: &str| {
            preload(library, Some(OsStr::new(before)))
                .into_string()
                .unwrap()
        };
        assert_eq!(preload(library, None), "/lib/ours.so");
        assert_eq!(made(""), "/lib/ours.so");
        assert_eq!(made("a.so b.so"), "/lib/ours.so:a.so b.so");
        assert_eq!(made("a.so:/lib/ours.so"), "a.so:/lib/ours.so");
    }
}
