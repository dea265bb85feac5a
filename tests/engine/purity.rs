//! The engine is pure: its sources name no clock, disk, socket, thread, log or environment, and
//! nothing of this crate outside of it.

use std::fs;
use std::path::{Path, PathBuf};

/// Names of the world outside.
const OUTSIDE: &[&str] = &[
    "tokio",
    "tracing",
    "std::fs",
    "std::io",
    "std::net::Udp",
    "std::net::Tcp",
    "std::os",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant",
    "println!",
    "eprintln!",
    "chrono::Local",
    "Utc::now",
    "nix::",
    "socket2",
    "humantime",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Returns the line without its comment, which may name anything.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Returns the names in a line that are outside the engine. `depth` is the number of `super::` that
/// lead out of it.
fn leaks(line: &str, depth: usize) -> Vec<String> {
    let names = OUTSIDE.iter().filter(|name| line.contains(**name)).map(|name| (*name).to_owned());
    let paths = line.match_indices("crate::").map(|(at, _)| &line[at..]);
    let inside = ["crate::engine::", "crate::engine)"];
    let paths =
        paths.filter(|path| !inside.iter().any(|it| path.starts_with(it))).map(str::to_owned);
    let up = "super::".repeat(depth);
    names.chain(paths).chain(line.contains(&up).then_some(up.clone())).collect()
}

#[test]
fn the_engine_names_nothing_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    let sources = sources(&root);
    assert!(sources.len() > 15, "the engine has been moved: {sources:?}");
    for path in sources {
        let inside = path.strip_prefix(&root).expect("a file of the engine");
        // mod.rs is its directory's module; any other file is one deeper.
        let is_mod = inside.file_name().is_some_and(|name| name == "mod.rs");
        let depth = inside.components().count() + usize::from(!is_mod);
        let text = fs::read_to_string(&path).expect("a source");
        for (number, line) in (1..).zip(text.lines()) {
            // A test module at the end of a file is one deeper than the file.
            if line == "mod tests {" {
                break;
            }
            let leaks = leaks(code(line), depth);
            assert_eq!(leaks, [""; 0], "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn leaks_are_found() {
    for (line, depth, found) in [
        ("use crate::engine::time::Time;", 1, 0),
        ("use super::time::Time;", 2, 0),
        ("use std::net::IpAddr;", 1, 0),
        ("use crate::shared::Shared;", 1, 1),
        ("let now = std::time::Instant::now();", 1, 1),
        ("use super::shared::Shared;", 1, 1),
        ("use super::super::shared::Shared;", 2, 1),
        ("tracing::info!(\"processed\");", 1, 1),
    ] {
        assert_eq!(leaks(line, depth).len(), found, "{line}");
    }
}
