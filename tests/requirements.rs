//! Every requirement is realised by a line of code and proven by a test, or put off with a reason.
//!
//! `docs/requirements.md` holds one table row for each: id, sentence, source, and `done` or
//! `later: reason`. Code and tests cite an id in a comment, after the word `req` and a colon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source::{files, root};

/// How many requirements each family has; their numbers are 01 and up, without gaps.
const FAMILIES: &[(&str, usize)] = &[("WSD", 22), ("SEED", 17), ("COMP", 3), ("LATER", 6)];

/// What a requirement may come from; the document says what each is.
const SOURCES: &[&str] = &["interface", "session protocol", "architecture"];

#[derive(Debug)]
enum Status {
    Done,
    Later(String),
}

fn is_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(family, number)| {
        family.len() > 1
            && family.chars().all(|c| c.is_ascii_uppercase())
            && number.len() == 2
            && number.chars().all(|c| c.is_ascii_digit())
    })
}

fn parse_row(line: &str) -> Option<(String, Result<Status, String>)> {
    let cells: Vec<_> = line
        .trim()
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .collect();
    let id = cells.first()?.trim();
    if !is_id(id) {
        return None;
    }
    let status = match cells.as_slice() {
        [_, sentence, source, status]
            if !sentence.trim().is_empty() && SOURCES.contains(&source.trim()) =>
        {
            match status.trim() {
                "done" => Ok(Status::Done),
                other => match other.strip_prefix("later:").map(str::trim) {
                    Some(reason) if reason.len() > 10 => Ok(Status::Later(reason.to_owned())),
                    Some(_) => Err(format!("{id}: later, but why?")),
                    None => Err(format!(
                        "{id}: the status {other:?} is neither done nor later"
                    )),
                },
            }
        }
        _ => Err(format!(
            "{id}: the row is not: id, sentence, source (one of {SOURCES:?}), status"
        )),
    };
    Some((id.to_owned(), status))
}

fn requirements() -> BTreeMap<String, Status> {
    let text = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let mut rows = BTreeMap::new();
    for (id, status) in text.lines().filter_map(parse_row) {
        let status = status.unwrap_or_else(|problem| panic!("docs/requirements.md: {problem}"));
        assert!(
            rows.insert(id.clone(), status).is_none(),
            "docs/requirements.md: {id} twice"
        );
    }
    rows
}

/// The ids that a line cites.
fn cited(line: &str) -> Vec<&str> {
    let Some((_, rest)) = line.split_once("req:") else {
        return Vec::new();
    };
    rest.split([',', ' ', '*', '/'])
        .filter(|w| !w.is_empty())
        .take_while(|w| is_id(w))
        .collect()
}

/// Id → places that cite it.
type Citations = BTreeMap<String, BTreeSet<String>>;

/// Citations by product code, and by tests.
fn citations() -> (Citations, Citations) {
    let (mut code, mut tests) = (Citations::new(), Citations::new());
    let all = files(
        &[
            "src", "proto", "switch", "preload", "capi", "cli", "tests", "benches", "c-tests",
            "examples",
        ],
        &[".rs", ".c", ".h", ".cpp", ".toml"],
    );
    for source in &all {
        for (n, line) in source.text.lines().enumerate() {
            let into = if source.test[n] {
                &mut tests
            } else {
                &mut code
            };
            for id in cited(line) {
                into.entry(id.to_owned())
                    .or_default()
                    .insert(format!("{}:{}", source.path, n + 1));
            }
        }
    }
    (code, tests)
}

#[test]
fn every_requirement_of_the_specification_has_a_row() {
    let rows = requirements();
    for (family, count) in FAMILIES {
        for number in 1..=*count {
            let id = format!("{family}-{number:02}");
            assert!(
                rows.contains_key(&id),
                "docs/requirements.md has no row for {id}"
            );
        }
    }
}

#[test]
fn every_done_requirement_is_cited_by_code_and_by_a_test() {
    let (code, tests) = citations();
    let mut gaps = Vec::new();
    for (id, status) in requirements() {
        if let Status::Done = status {
            if !code.contains_key(&id) {
                gaps.push(format!("{id}: no line of code cites it"));
            }
            if !tests.contains_key(&id) {
                gaps.push(format!("{id}: no test cites it"));
            }
        }
    }
    assert!(gaps.is_empty(), "{gaps:#?}");
}

#[test]
fn every_cited_id_exists() {
    let rows = requirements();
    let (code, tests) = citations();
    assert!(code.len() + tests.len() > 0, "no citation was found at all");
    let unknown: Vec<_> = code
        .iter()
        .chain(&tests)
        .filter(|(id, _)| !rows.contains_key(*id))
        .collect();
    assert!(
        unknown.is_empty(),
        "cited, but not in docs/requirements.md: {unknown:#?}"
    );
}

#[test]
fn a_requirement_put_off_says_why() {
    for (id, status) in requirements() {
        if let Status::Later(reason) = status {
            assert!(reason.contains(' '), "{id}: {reason:?} is no reason");
        }
    }
    assert!(matches!(
        parse_row("| ZZ-01 | a | interface | later: |"),
        Some((_, Err(_)))
    ));
    assert!(matches!(
        parse_row("| ZZ-01 | a | interface | perhaps |"),
        Some((_, Err(_)))
    ));
    assert!(matches!(
        parse_row("| ZZ-01 | a | interface | done |"),
        Some((_, Ok(Status::Done)))
    ));
    assert!(matches!(
        parse_row("| ZZ-01 | a | hearsay | done |"),
        Some((_, Err(_)))
    ));
    assert!(parse_row("| id | sentence | source | status |").is_none());
}

#[test]
fn citations_are_found_where_they_stand() {
    let mark = "req";
    assert_eq!(
        cited(&format!("// {mark}: ZZ-01, ZZ-02 because of this")),
        ["ZZ-01", "ZZ-02"]
    );
    assert_eq!(cited(&format!(" * {mark}: ZZ-03 */")), ["ZZ-03"]);
    assert!(cited("// request: ZZ-04").is_empty());
}
