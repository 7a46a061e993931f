//! Which providers there are: the linked one, those the user names, those the host has installed.
//!
//! Owns the search, not the providers. In order: the entries of `WSD_PROVIDERS` (libraries,
//! separated by colons; the word `linked` stands for the linked provider), then the linked one if
//! it was not named, then the files of the folder `providers.d`, by name. A process that runs with
//! more rights than its user takes nothing from the environment. What cannot be loaded is kept
//! with its reason, so that people can be told.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::provider::Source;
use crate::sys;
use crate::table::EntryPoint;

/// Where installed providers are described. `WSD_PROVIDERS_DIR` names another folder.
const FOLDER: &str = "/etc/wsdirect/providers.d";
/// What the names of files in the folder end with.
const EXTENSION: &str = "provider";

/// A provider that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unusable {
    pub(crate) source: Source,
    pub(crate) why: String,
}

/// Everything that was found, in order of preference.
pub(crate) fn entries() -> Vec<Result<EntryPoint, Unusable>> {
    let trusted = !sys::is_privileged();
    let variable = |name| env::var_os(name).filter(|_| trusted);
    let folder = variable("WSD_PROVIDERS_DIR").map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
    wanted(variable("WSD_PROVIDERS"), installed(&folder))
        .into_iter()
        .map(entry)
        .collect()
}

fn entry(wanted: Result<Source, Unusable>) -> Result<EntryPoint, Unusable> {
    match wanted? {
        Source::Library(path) => EntryPoint::load(&path).map_err(|why| Unusable {
            source: Source::Library(path),
            why,
        }),
        _ => Ok(EntryPoint::linked()),
    }
}

/// Puts what was named and what is installed in order; each library once.
fn wanted(
    named: Option<OsString>,
    installed: Vec<Result<Source, Unusable>>,
) -> Vec<Result<Source, Unusable>> {
    let named = named.unwrap_or_default();
    let words = named
        .as_bytes()
        .split(|byte| *byte == b':')
        .filter(|word| !word.is_empty());
    let named = words.map(|word| match word {
        b"linked" => Ok(Source::Linked),
        path => Ok(Source::Library(PathBuf::from(OsStr::from_bytes(path)))),
    });
    let mut order: Vec<Result<Source, Unusable>> = Vec::new();
    for found in named.chain([Ok(Source::Linked)]).chain(installed) {
        if !order.contains(&found) {
            order.push(found);
        }
    }
    order
}

/// The libraries described in a folder. A folder that does not exist describes none.
fn installed(folder: &Path) -> Vec<Result<Source, Unusable>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension() == Some(OsStr::new(EXTENSION)))
        .collect();
    files.sort();
    let describe = |file: PathBuf| {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string());
        match text.and_then(|text| library_in(&text)) {
            Ok(library) => Ok(Source::Library(library)),
            Err(why) => Err(Unusable {
                source: Source::Library(file),
                why,
            }),
        }
    };
    files.into_iter().map(describe).collect()
}

/// The library that a description names: lines of `key = value`, `#` begins a comment.
fn library_in(text: &str) -> Result<PathBuf, String> {
    let mut library = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
        {
            Some(("library", path)) if Path::new(path).is_absolute() => {
                library = Some(PathBuf::from(path));
            }
            Some(("library", _)) => {
                return Err(format!("line {}: the library needs a full path", index + 1));
            }
            _ => return Err(format!("line {}: not `library = /full/path`", index + 1)),
        }
    }
    library.ok_or_else(|| "names no library".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(path: &str) -> Result<Source, Unusable> {
        Ok(Source::Library(PathBuf::from(path)))
    }

    #[test]
    fn named_libraries_come_first_then_the_linked_provider_then_the_installed() {
        let named = Some(OsString::from("/b.so:/a.so:"));
        let installed = vec![library("/c.so"), library("/a.so")];
        let linked = Ok(Source::Linked);
        let order = [
            library("/b.so"),
            library("/a.so"),
            linked.clone(),
            library("/c.so"),
        ];
        assert_eq!(wanted(named, installed), order);
        assert_eq!(wanted(None, Vec::new()), [linked]);
    }

    #[test]
    fn the_word_linked_gives_the_linked_provider_its_place() {
        let named = Some(OsString::from("linked:/a.so"));
        assert_eq!(
            wanted(named, Vec::new()),
            [Ok(Source::Linked), library("/a.so")]
        );
    }

    #[test]
    fn a_description_names_one_library_by_its_full_path() {
        let good = "# ours\n library = /usr/lib/san.so  # here\n\n";
        assert_eq!(library_in(good), Ok(PathBuf::from("/usr/lib/san.so")));
        for bad in ["", "library = san.so", "librarian = /x.so", "just words"] {
            assert!(library_in(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_read_by_name_and_its_faults_are_kept() {
        let folder = env::temp_dir().join(format!("wsd-providers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("20-b.provider"), "library = /b.so").unwrap();
        fs::write(folder.join("10-a.provider"), "library = a.so").unwrap();
        fs::write(folder.join("readme.txt"), "library = /c.so").unwrap();
        let found = installed(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].as_ref().unwrap_err().why.contains("full path"));
        assert_eq!(found[1], library("/b.so"));
        assert!(installed(&folder).is_empty());
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_a_reason() {
        let path = env::temp_dir().join(format!("wsd-no-library-{}.so", std::process::id()));
        fs::write(&path, "this is text").unwrap();
        let refused = entry(Ok(Source::Library(path.clone()))).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(!refused.why.is_empty());
        let absent = entry(Ok(Source::Library(path))).unwrap_err();
        assert!(absent.why.contains("No such file"), "{}", absent.why);
    }
}
