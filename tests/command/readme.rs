//! The tables, defaults and samples in the README, the guide and other files agree with the program.
//!
//! With UPDATE_DOCS=1 the two tables of the guide are rewritten instead of compared.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a file that cannot be read ends the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use clap::{ArgAction, CommandFactory as _};
use pop_before_smtp::cli::Cli;
use pop_before_smtp::config::file;
use pop_before_smtp::config::options::OPTIONS;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const CONFIGURATION: &str = "deploy/guide/configuration.md";
const MAIL_DAEMONS: &str = "deploy/guide/mail-daemons.md";
const POSTFIX: &str = "deploy/guide/postfix.md";

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Returns the text between two lines, without them.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let at = text.find(begin).unwrap_or_else(|| panic!("{begin:?} is missing"));
    let after = &text[at..];
    let start = after.find('\n').expect("a line ends") + 1;
    let stop = after.find(end).unwrap_or_else(|| panic!("{end:?} is missing"));
    &after[start..stop]
}

/// Checks that a part of a page is up to date, or writes it.
fn must_be(page: &str, name: &str, expected: &str) {
    let text = read(page);
    let (begin, end) = (format!("<!-- {name}:"), format!("<!-- end of {name} -->"));
    let found = between(&text, &begin, &end);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let offset = found.as_ptr() as usize - text.as_ptr() as usize;
        let (before, after) = (&text[..offset], &text[offset + found.len()..]);
        fs::write(format!("{ROOT}/{page}"), format!("{before}{expected}{after}")).unwrap();
    } else {
        assert!(found == expected, "{page}: {name} should be:\n{expected}");
    }
}

/// An option of `run`.
struct RunOption {
    name: String,
    value: String,
    repeatable: bool,
    default: String,
    needs_restart: bool,
    meaning: String,
}

/// Returns all options of `run` that the three layers share.
fn options() -> Vec<RunOption> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("there is `run`");
    let option = |argument: &clap::Arg| {
        let name = argument.get_long()?.to_owned();
        let help = argument.get_help().expect("every option is explained").to_string();
        let meaning = help.split(" [default: ").next().unwrap_or_default();
        let info = OPTIONS.iter().find(|info| info.name == name);
        Some(RunOption {
            needs_restart: info.is_some_and(|info| info.needs_restart),
            value: argument.get_value_names()?.join(" "),
            repeatable: matches!(argument.get_action(), ArgAction::Append),
            default: info.and_then(|info| info.default).unwrap_or("none").to_owned(),
            meaning: meaning.to_owned(),
            name,
        })
    };
    let options = run.get_arguments().filter_map(option);
    options.filter(|option| option.name != "config").collect()
}

#[test]
fn the_guide_has_every_option() {
    let mut table = String::from(
        "\n| command line | environment: `POP_BEFORE_SMTP_` and | file | default | changed by | meaning |\n\
         |---|---|---|---|---|---|\n",
    );
    let options = options();
    assert!(options.len() > 15);
    for RunOption { name, value, repeatable, default, needs_restart, meaning } in &options {
        let change = if *needs_restart { "restart" } else { "reload" };
        let value = if value == "BOOL" { String::new() } else { format!(" {value}") };
        let short = if name == "dry-run" { "-n, " } else { "" };
        let repeatable = if *repeatable { ", repeatable" } else { "" };
        let variable = name.to_uppercase().replace('-', "_");
        writeln!(
            table,
            "| `{short}--{name}{value}`{repeatable} | `{variable}` | `{name}` | {default} | {change} | {meaning} |"
        )
        .unwrap();
    }
    must_be(CONFIGURATION, "options", &(table + "\n"));
}

/// Returns the built-in descriptions, by name.
fn descriptions() -> BTreeMap<String, toml::Table> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(format!("{ROOT}/src/engine/maildaemons")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let table: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
            all.insert(table["name"].as_str().expect("a name").to_owned(), table);
        }
    }
    all
}

#[test]
fn the_guide_has_every_mail_daemon() {
    let mut table =
        String::from("\n| name | mail daemon | versions | program names |\n|---|---|---|---|\n");
    let mut notes = String::from("| mail daemon | what to know |\n|---|---|\n");
    let descriptions = descriptions();
    assert!(descriptions.len() > 15);
    for (name, description) in &descriptions {
        let text = |key: &str| description.get(key).and_then(toml::Value::as_str);
        let verified = description["verified"].as_bool().expect("true or false");
        let mark = if verified { "" } else { " (unverified)" };
        let title = text("title").expect("a title");
        let versions = text("versions").expect("versions");
        let programs = description["programs"].as_array().expect("a list").iter();
        let programs: Vec<_> = programs.map(|name| name.as_str().expect("a name")).collect();
        let programs = programs.join(", ");
        writeln!(table, "| `{name}` | {title}{mark} | {versions} | {programs} |").unwrap();
        if let Some(note) = text("note") {
            let note = note.trim().replace('\n', " ").replace('|', "\\|");
            writeln!(notes, "| `{name}` | {note} |").unwrap();
        }
    }
    let told = "Unverified ones count only if you name them with `--daemon`. What to know:";
    must_be(MAIL_DAEMONS, "daemons", &format!("{table}\n{told}\n\n{notes}\n"));

    let readme = read("README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let known = descriptions.values().filter(|description| description["verified"] == true.into());
    let count = format!("the log of {} mail daemons", known.count());
    assert!(readme.contains(&count), "the README should say {count:?}");
    let guide = read(MAIL_DAEMONS);
    for impossible in ["- **GNU Mailutils 2.x and later**", "- **DBMail's pop3d**"] {
        assert!(guide.contains(impossible), "{impossible}");
    }
}

/// Runs `test` as the guide shows it, and returns its output.
fn answers(input: &str, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pop-before-smtp"));
    // Neither this host's configuration nor its addresses.
    command.args(["test", "--config", "/dev/null", "--exclude", "loopback"]).args(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the block of text below a mark.
fn sample<'a>(text: &'a str, mark: &str) -> &'a str {
    let block =
        text.split_once(&format!("{mark}\n```text\n")).expect("the mark stands above a block");
    block.1.split_once("```\n").expect("a block ends").0
}

#[test]
fn the_guide_shows_what_test_prints() {
    let guide = read(MAIL_DAEMONS);
    let shown = sample(&guide, "<!-- test -->");
    let input: String = shown
        .lines()
        .filter_map(|line| Some(format!("{}\n", line.strip_prefix("      | ")?)))
        .collect();
    assert_eq!(answers(&input, &[]), shown);
    let shown = sample(&guide, "<!-- test --json -->");
    assert_eq!(answers(&input, &["--json"]), shown);
}

#[test]
fn readme_and_guide_have_the_lines_of_main_cf() {
    let (readme, guide) = (read("README.md"), read(POSTFIX));
    for (name, is_in_readme) in [("map", true), ("policy", true), ("socketmap", false)] {
        let snippet = read(&format!("deploy/postfix/main.cf.{name}"));
        let lines: String =
            snippet.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
        let block = format!("\n{lines}```\n");
        assert!(guide.contains(&block), "{POSTFIX} lacks:\n{lines}");
        assert!(!is_in_readme || readme.contains(&block), "the README lacks:\n{lines}");
    }
    // One setting that the guide has in one line.
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let postscreen = read("deploy/postfix/main.cf.postscreen");
    let (_, setting) = postscreen.split_once("postscreen_access_list").expect("it is set");
    let setting = words(setting).join(" ");
    assert!(guide.contains(&format!("`postscreen_access_list {setting}`")), "{setting}");
}

/// The example file has every key with its default, and is valid with and without the `#` before
/// keys.
#[test]
fn the_example_file_has_every_key() {
    let text = read("deploy/example.toml");
    assert_eq!(file::read(&text).1, [], "the example as it is");
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b"-6".contains(&b))
    };
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) || rest == "[[rule]]" => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let all: String = text.lines().map(bare).collect();
    assert_eq!(file::read(&all).1, [], "the example with every key");
    let set: toml::Table = all.parse().expect("TOML");
    let options = options();
    let names: Vec<&str> = options.iter().map(|option| &*option.name).collect();
    for key in set.keys().filter(|key| *key != "rule") {
        assert!(names.contains(&&**key), "{key} is no option");
    }
    for RunOption { name, default, .. } in &options {
        let value = set.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Others have no default, or a description of it.
        let is_literal =
            !default.contains(' ') && !["none", "loopback", "off"].contains(&&**default);
        assert!(!is_literal || value == *default, "{name}: {value}, and the default is {default}");
    }
}

/// tests/README.md has a row for each binary, and its examples name existing tests.
#[test]
fn the_readme_of_the_tests_is_complete() {
    let text = read("tests/README.md");
    let mut binaries: Vec<String> = fs::read_dir(format!("{ROOT}/tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("main.rs").exists() || path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    binaries.sort_unstable();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `--test "));
    let mut named: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    named.sort_unstable();
    assert_eq!(named, binaries);
    let examples = text.lines().filter_map(|line| line.strip_prefix("cargo test --test "));
    let mut examples = examples.filter_map(|line| line.split_once(' ')).peekable();
    assert!(examples.peek().is_some());
    for (binary, example) in examples {
        let (file, test) = example.split_once("::").expect("a file and a test");
        let source = read(&format!("tests/{binary}/{file}.rs"));
        assert!(source.contains(&format!("\nfn {test}")), "{binary} {example}");
    }
}
