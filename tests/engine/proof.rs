//! `check` against weakened copies of the built-in mail daemons: each protection against deceiving
//! messages is removed in turn, and a message must be found that deceives the pattern.
//!
//! - **Promise**: `check` prints the message and fails, and `test` takes that message for a login.
//!   What can be removed without harm is listed in `HARMLESS`, with the reason.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use pop_before_smtp::engine::maildaemons::BUILT_IN;
use tempfile::TempDir;

/// What can be removed from which file, how often, and why it is harmless.
const HARMLESS: &[(&str, Weakening, usize, &str)] = &[
    ("courier", End, 3, "two addresses are refused, and a split line is too long"),
    ("courier", User, 7, "the address ends the line, and a split line is too long"),
    ("courier", Condition, 3, "`once`: the last address is used"),
    ("cucipop", User, 1, "the end of the line determines the address"),
    ("cyrus", End, 1, "the address precedes the client's text"),
    ("cyrus", Condition, 1, "`never`: logins of a user named anonymous are refused anyway"),
    ("dbmail", User, 1, "the address ends the line"),
    ("dovecot", User, 1, "proxy: the name occurs twice, and two addresses are refused"),
    ("dovecot", Condition, 1, "`same`: no name has an angle bracket"),
    ("gnu-pop3d", End, 1, "no message continues after the address or the fixed text"),
    ("gnu-pop3d", User, 1, "half of a login has no address"),
    ("imapproxy", Condition, 1, "`max-length`: no name has more than 255 bytes"),
    ("kopano", End, 1, "the address precedes the name"),
    ("kopano", User, 1, "the address precedes the name"),
    ("nginx", End, 1, "the address precedes the name"),
    ("nginx", User, 1, "the address precedes the name"),
    ("perdition", User, 2, "the address precedes the name, and the status ends the line"),
    ("popa3d", End, 3, "no name has a blank, and nothing else is a client's text"),
    ("popa3d", User, 2, "no name has a blank, and nothing else is a client's text"),
    ("qpopper", User, 1, "the text of an error reply is refused, the address ends the line"),
    ("solid-pop3d", End, 2, "half of a login has no address; no message continues after one"),
    ("solid-pop3d", User, 3, "the address ends the line"),
    ("teapop", User, 1, "the address ends the line"),
    ("tpop3d", End, 1, "a name is one word, and fixed text follows the address"),
    ("tpop3d", User, 1, "a name is one word, and fixed text follows the address"),
    ("tpop3d", Condition, 1, "`same`: a name is one word, and fixed text follows the address"),
    ("vdpop3d", User, 1, "the address ends the line"),
    ("vdpop3d", Condition, 1, "`max-length`: no name has more than 255 bytes"),
    ("vm-pop3d", End, 2, "half of a login has no address; no message continues after one"),
    ("vm-pop3d", User, 2, "half of a login has no address"),
    ("vm-pop3d", Condition, 1, "`max-length`: no name has more than 255 bytes"),
    ("vpopmail", End, 1, "the address ends the line"),
    ("vpopmail", User, 2, "no name has a colon or a bracket, the address ends the line"),
];

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weakening {
    /// The anchor at the start of a pattern.
    Start,
    /// The anchor at its end.
    End,
    /// The bounds of the user's name.
    User,
    /// A condition in addition to the expression.
    Condition,
}

use Weakening::{Condition, End, Start, User};

/// Returns copies of a built-in file, each with one line weakened.
fn weakened(text: &str, weakening: Weakening) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut section = "";
    let mut copies = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.starts_with("[[") {
            section = line;
        }
        let is_checked = ["[[login]]", "[[connect]]"].contains(&section);
        let changed = match weakening {
            Condition => {
                let keys = ["once = ", "never = ", "same = ", "max-length = "];
                keys.iter().any(|key| line.starts_with(key)).then(String::new)
            }
            _ if is_checked && line.starts_with("pattern = ") => match weakening {
                Start => Some(line.replace("'''^", "'''")),
                End => Some(line.replace("$'''", "'''")),
                _ => without_user_bounds(line),
            },
            _ => None,
        };
        if let Some(changed) = changed.filter(|changed| changed != line) {
            let mut copy = lines.clone();
            copy[index] = &changed;
            copies.push(copy.join("\n"));
        }
    }
    copies
}

/// Allows any text, as short as possible, as the user's name.
fn without_user_bounds(pattern: &str) -> Option<String> {
    let (before, user) = pattern.split_once("(?<user>")?;
    let (_, after) = user.split_once(')')?;
    Some(format!("{before}(?<user>.+?){after}"))
}

fn run(dir: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pop-before-smtp"))
        .args(arguments)
        .args(["--exclude", "none", "--daemons-dir"])
        .arg(dir.path())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program itself");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a reader");
    child.wait_with_output().expect("an end")
}

/// Returns whether `check` finds the weakness. `test` must accept the message that it finds.
fn is_found(dir: &TempDir, text: &str) -> bool {
    fs::write(dir.path().join("own.toml"), text).expect("a file");
    let checked = run(dir, &["check", "--dry-run"], "");
    let said = String::from_utf8(checked.stderr).expect("text");
    if said.contains("not anchored at the start") {
        return checked.status.code() == Some(78);
    }
    let Some((_, forged)) = said.split_once(": forged: ") else { return false };
    assert_eq!(checked.status.code(), Some(78), "{said}");
    let lines = forged.lines().skip(1).map_while(|line| line.strip_prefix("  | "));
    let input: String = lines.map(|line| format!("{line}\n")).collect();
    let tested = run(dir, &["test", "--daemon", name(text)], &input);
    let output = String::from_utf8_lossy(&tested.stdout);
    assert_eq!(tested.status.code(), Some(0), "no login in\n{input}\n{output}");
    true
}

fn name(text: &str) -> &str {
    let line = text.lines().find_map(|line| line.strip_prefix("name = ")).expect("a name");
    line.trim_matches('"')
}

#[test]
fn every_weakness_is_found() {
    let dir = tempfile::tempdir().expect("a directory under $TMPDIR");
    let (mut found, mut missed) = (0, Vec::new());
    for (name, text) in BUILT_IN {
        for weakening in [Start, End, User, Condition] {
            let copies = weakened(text, weakening);
            let harmless = copies.iter().filter(|copy| !is_found(&dir, copy)).count();
            found += copies.len() - harmless;
            if harmless > 0 {
                missed.push((*name, weakening, harmless));
            }
        }
    }
    let stated: Vec<_> =
        HARMLESS.iter().map(|&(name, what, times, _)| (name, what, times)).collect();
    assert_eq!(missed, stated, "what is harmless");
    assert!(found > 80, "only {found} weaknesses");
}

#[test]
fn severities_need_a_distrust_pattern() {
    let dir = tempfile::tempdir().expect("a directory under $TMPDIR");
    let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == "uw-imap").expect("a file of UW");
    let weakened = text.replacen("severities = [\"info\"]\n", "", 1);
    assert_ne!(weakened, *text);
    assert!(is_found(&dir, &weakened), "genuine logins have any severity");
    let (before, after) = text.split_once("[[distrust]]").expect("distrust");
    let (_, after) = after.split_once("[[logout]]").expect("a log-out");
    fs::write(dir.path().join("own.toml"), format!("{before}[[logout]]{after}")).expect("a file");
    let checked = run(&dir, &["check", "--dry-run"], "");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("needs a [[distrust]] pattern"), "{said}");
}

#[test]
fn copies_of_built_in_files_pass() {
    let dir = tempfile::tempdir().expect("a directory under $TMPDIR");
    for (name, text) in BUILT_IN {
        fs::write(dir.path().join(format!("{name}.toml")), text).expect("a file");
    }
    let checked = run(&dir, &["check", "--dry-run"], "");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("courier.toml` replaces the built-in `courier`"), "{said}");
}

#[test]
fn a_file_without_shapes_is_reported() {
    let dir = tempfile::tempdir().expect("a directory under $TMPDIR");
    let text = "name = \"own\"\ntitle = \"Own\"\nprograms = [\"owned\"]\n\
                [[login]]\npattern = '^in (?<address>[0-9.]+)'\n\
                [[example]]\nline = \"owned: in 192.0.2.7\"\nverdict = \"login\"\n";
    fs::write(dir.path().join("own.toml"), text).expect("a file");
    let checked = run(&dir, &["check", "--dry-run"], "");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("own.toml` has no [[shape]]"), "{said}");
}
