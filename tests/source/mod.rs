//! Reads the sources of the repository for the tests that check them: files, lines without comments
//! and strings, and which lines are test code. Knows as much of Rust's syntax as that takes.

#![allow(dead_code)] // each test uses its part

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One file; the path is relative to the root, with slashes.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with the content of comments and strings blanked out, line for line.
    pub(crate) code: String,
    /// For each line, whether it is test code.
    pub(crate) test: Vec<bool>,
}

impl Source {
    /// The lines that are not test code, with their numbers; comments and strings blanked out.
    pub(crate) fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .filter(|(n, _)| !self.test[*n])
            .map(|(n, line)| (n + 1, line))
    }
}

/// Every file under the folders whose name ends with one of the endings, in order of path. Folders
/// that do not exist are empty.
pub(crate) fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .filter(|path| endings.iter().any(|e| path.to_string_lossy().ends_with(e)))
        .map(|path| read(&path))
        .collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let name = path
        .strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .replace('\\', "/");
    let code = blank(&text);
    let test = test_lines(&name, &code);
    Source {
        path: name,
        text,
        code,
        test,
    }
}

/// Replaces what stands in comments, strings and character literals by blanks; keeps line ends.
pub(crate) fn blank(text: &str) -> String {
    let from: Vec<char> = text.chars().collect();
    let mut to = String::with_capacity(text.len());
    let at = |i: usize| from.get(i).copied().unwrap_or('\0');
    let skip = |to: &mut String, i: &mut usize, end: usize| {
        while *i < end.min(from.len()) {
            to.push(if from[*i] == '\n' { '\n' } else { ' ' });
            *i += 1;
        }
    };
    let mut i = 0;
    while i < from.len() {
        let c = from[i];
        let word_before = i > 0 && (from[i - 1].is_alphanumeric() || from[i - 1] == '_');
        if c == '/' && at(i + 1) == '/' {
            let end = (i..from.len())
                .find(|&k| from[k] == '\n')
                .unwrap_or(from.len());
            skip(&mut to, &mut i, end);
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            let mut end = i;
            while end < from.len() {
                if at(end) == '/' && at(end + 1) == '*' {
                    depth += 1;
                    end += 2;
                } else if at(end) == '*' && at(end + 1) == '/' {
                    depth -= 1;
                    end += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    end += 1;
                }
            }
            skip(&mut to, &mut i, end);
        } else if let Some(end) = raw_string(&from, i).filter(|_| !word_before) {
            skip(&mut to, &mut i, end);
        } else if c == '"' {
            let mut end = i + 1;
            while end < from.len() && from[end] != '"' {
                end += if from[end] == '\\' { 2 } else { 1 };
            }
            skip(&mut to, &mut i, end + 1);
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            let mut end = i + if at(i + 1) == '\\' { 3 } else { 2 };
            while end < from.len() && from[end] != '\'' {
                end += 1;
            }
            skip(&mut to, &mut i, end + 1);
        } else {
            to.push(c);
            i += 1;
        }
    }
    to
}

/// The end of the raw string that begins here: `r"…"`, `r#"…"#`, also after `b` and `c`.
fn raw_string(text: &[char], start: usize) -> Option<usize> {
    let mut i = start;
    if matches!(text.get(i), Some('b' | 'c')) {
        i += 1;
    }
    if text.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = text[i..].iter().take_while(|c| **c == '#').count();
    i += hashes;
    if text.get(i) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let rest = &text[i + 1..];
    let length = rest
        .windows(close.len())
        .position(|w| w == close)
        .unwrap_or(rest.len());
    Some((i + 1 + length + close.len()).min(text.len()))
}

/// Marks the items under `#[cfg(test)]`; a file that is test code by its place is so as a whole.
fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let mut test = vec![false; code.lines().count()];
    let parts: Vec<&str> = path.split('/').collect();
    let is_test_place = parts.iter().any(|p| {
        matches!(*p, "tests" | "benches" | "tests.rs" | "c-tests") || p.ends_with("_tests.rs")
    });
    if is_test_place {
        test.fill(true);
        return test;
    }
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let mut depth = 0i32;
        let mut end = code.len();
        for (offset, c) in code[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        end = start + offset;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = start + offset;
                    break;
                }
                _ => {}
            }
        }
        let line = |at: usize| code[..at].matches('\n').count();
        for marked in &mut test[line(start)..=line(end.min(code.len() - 1))] {
            *marked = true;
        }
        from = end;
    }
    test
}

/// Whether the text at `at` stands alone as a word.
fn is_word(text: &str, at: usize, length: usize) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !text[..at].ends_with(part) && !text[at + length..].starts_with(part)
}

/// Where a word begins in a text, each time.
pub(crate) fn words_at(text: &str, word: &str) -> Vec<usize> {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| is_word(text, at, word.len()))
        .collect()
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lifetimes_are_not() {
    let text =
        "a /* unsafe /* x */ */ b \"unsafe \\\" c\" r#\"unsafe \"\"#\n'\\'' 'u' <'a> // unsafe\nd";
    let code = blank(text);
    assert!(!code.contains("unsafe"), "{code:?}");
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "<'a>", "d"]
    );
    assert_eq!(code.len(), text.len());
}

#[test]
fn lines_under_cfg_test_are_test_code() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
    assert_eq!(
        test_lines("src/x.rs", code),
        [false, true, true, true, true, false, true, true, false]
    );
    assert!(test_lines("switch/tests/x.rs", code).iter().all(|t| *t));
}
