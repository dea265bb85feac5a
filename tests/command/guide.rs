//! The README and the guide are consistent: short pages, valid links, existing files, and symptoms
//! that quote the program's messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a file that cannot be read ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const TROUBLESHOOTING: &str = "deploy/guide/troubleshooting.md";

/// Most lines of the README; more belongs in the guide.
const README_LINES: usize = 200;
/// Most characters of a line of prose; longer ones are hard to read in a terminal or a diff.
const LINE_CHARACTERS: usize = 120;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Where the pages are.
const DIRECTORIES: [&str; 5] = [
    "deploy/guide",
    "deploy/suites",
    "deploy/suites/docker-mailserver",
    "deploy/suites/mailcow",
    "deploy/suites/mailu",
];

/// Returns the README, the pages of the guide and those of mail suites, by their paths below the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for directory in DIRECTORIES {
        let entries = fs::read_dir(format!("{ROOT}/{directory}")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().expect("UTF-8"));
        let found: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
        assert!(!found.is_empty(), "{directory}");
        pages.extend(found.into_iter().map(|name| format!("{directory}/{name}")));
    }
    pages
}

#[test]
fn named_files_exist() {
    let mut all = BTreeSet::new();
    for page in pages() {
        let text = read(&page);
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-*".contains(c)));
        let names = names.filter(|name| name.starts_with("deploy/") && !name.ends_with('*'));
        all.extend(names.map(|name| name.trim_end_matches(['.', '/']).to_owned()));
    }
    assert!(all.len() > 10);
    for name in all {
        assert!(fs::exists(format!("{ROOT}/{name}")).unwrap(), "{name}");
    }
}

#[test]
fn pages_are_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES, "the README has {lines} lines, at most {README_LINES} allowed");
    for page in pages() {
        for (number, line) in prose(&read(&page)) {
            let length = line.chars().count();
            let is_table = line.starts_with('|');
            assert!(is_table || length <= LINE_CHARACTERS, "{page}:{number}: {length} characters");
        }
    }
}

/// Returns the lines of a page outside code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// Returns the anchors that GitHub makes of a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        assert!(anchors.insert(anchor), "two headings have one anchor: {line}");
    }
    anchors
}

/// Every relative link in README and guide leads to a file, and to a heading in it.
#[test]
fn links_are_valid() {
    let mut count = 0;
    let others =
        ["CHANGELOG.md", "deploy/container/README.md", "deploy/relay/README.md"].map(str::to_owned);
    for page in pages().into_iter().chain(others) {
        let text = read(&page);
        let ends = text.match_indices("](").map(|(at, bracket)| at + bracket.len());
        for link in ends.map(|at| text[at..].split_once(')').expect("a link ends").0) {
            if link.starts_with("https://") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = Path::new(ROOT).join(&page).parent().expect("a directory").to_owned();
            let target: PathBuf =
                if path.is_empty() { Path::new(ROOT).join(&page) } else { directory.join(path) };
            assert!(target.exists(), "{page}: {link} does not exist");
            let anchors = || anchors(&fs::read_to_string(&target).expect("a page"));
            assert!(anchor.is_empty() || anchors().contains(anchor), "{page}: {link}: no heading");
        }
    }
    assert!(count > 50, "{count} links");
}

/// Returns the text of all sources, with string literals of several lines joined.
fn sources(directory: &Path) -> String {
    let continued = regex::Regex::new(r"\\\n\s*").expect("a pattern");
    let mut all = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &continued.replace_all(&fs::read_to_string(path).unwrap(), "");
        }
    }
    all
}

/// The guide's symptoms quote messages of the program.
#[test]
fn symptoms_quote_messages() {
    let text = read(TROUBLESHOOTING);
    let (_, part) = text.split_once("\n## What pop-before-smtp says\n").expect("the part is there");
    let part = part.split("\n## ").next().expect("a part");
    let headings = part.lines().filter_map(|line| line.strip_prefix("### "));
    let sources = sources(&Path::new(ROOT).join("src"));
    let mut count = 0;
    for heading in headings {
        let message = heading.trim_matches('`');
        assert!(message.len() + 2 == heading.len(), "no literal text: {heading}");
        assert!(sources.contains(message), "no message contains {message:?}");
        count += 1;
    }
    assert!(count > 10, "{count} symptoms");
}
