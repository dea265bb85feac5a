//! Man pages and completions agree with the program: they are generated from its command line and
//! from the commented configuration.
//!
//! With UPDATE_DOCS=1 the files in deploy/ are written instead of compared.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a file that cannot be read ends the test")]

use std::fs;
use std::process::Command;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;
use pop_before_smtp::cli::Cli;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NAME: &str = "pop-before-smtp";

/// Checks that a file of deploy/ is up to date, or writes it.
fn must_be(file: &str, expected: &str) {
    let path = format!("{ROOT}/deploy/{file}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, expected).unwrap();
    } else {
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "deploy/{file} is out of date: run with UPDATE_DOCS=1");
    }
}

/// Checks a man page: a title, and the hand-written text with a comment replaced by `content`.
fn manual(page: &str, section: u8, place: &str, content: &str) {
    let text = fs::read_to_string(format!("{ROOT}/deploy/man/{page}.{section}.in")).unwrap();
    let place = format!(".\\\" {place}\n");
    assert_eq!(text.matches(&place).count(), 1, "{page}");
    let title = page.to_uppercase().replace('-', "\\-");
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(".TH \"{title}\" \"{section}\" \"\" \"{NAME} {version}\"\n");
    must_be(&format!("man/{page}.{section}"), &(head + &text.replace(&place, content)));
}

fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| {
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        format!("{guard}{line}\n")
    };
    text.lines().map(line).collect()
}

#[test]
fn the_manual_has_every_command() {
    let mut cli = Cli::command();
    cli.build();
    let mut text = String::new();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut options = Vec::new();
        // The options of `run` once.
        let run = cli.find_subcommand("run").unwrap();
        let is_of_run =
            |arg: &clap::Arg| run.get_arguments().any(|one| one.get_id() == arg.get_id());
        let shared = command.get_arguments().filter(|arg| is_of_run(arg)).count();
        let is_shared = command.get_name() != "run" && shared == run.get_arguments().count();
        let shown = command.clone().mut_args(|arg| {
            let is_hidden = arg.is_hide_set() || is_shared && is_of_run(&arg);
            arg.hide(is_hidden)
        });
        Man::new(shown).render_options_section(&mut options).unwrap();
        let options = String::from_utf8(options).unwrap();
        let about = command.get_about().unwrap_or_else(|| panic!("{command:?}")).to_string();
        let name = roff(command.get_name());
        text += &format!(".SS {name}{}", roff(&format!("{about}.")));
        if is_shared {
            text += "It accepts the options of\n.B run\ntoo.\n";
        }
        // A page of its own would define these once: its heading and the apostrophe.
        let of_a_page =
            |line: &str| [".SH", ".ie", ".el"].iter().any(|word| line.starts_with(word));
        let options = options.replace("\\*(Aq", "'");
        let options = options.lines().filter(|line| !of_a_page(line));
        options.for_each(|line| text += &format!("{line}\n"));
    }
    manual(NAME, 8, "commands", &text);
}

#[test]
fn the_manual_has_every_key() {
    let example = fs::read_to_string(format!("{ROOT}/deploy/example.toml")).unwrap();
    let (_, keys) = example.split_once("\n# --- ").expect("a heading");
    let mut text = String::new();
    for line in format!("# --- {keys}").lines() {
        let is_key = |line: &str| {
            let end = line
                .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
                .unwrap_or(0);
            line == "[[rule]]" || end > 0 && line[end..].starts_with(" = ")
        };
        match line.strip_prefix('#').unwrap_or(line) {
            "" => {}
            heading if heading.starts_with(" --- ") => {
                text += &format!(".SS {}", roff(heading.trim_matches([' ', '-'])));
            }
            key if is_key(key) => text += &format!(".RS\n.nf\n{}.fi\n.RE\n", roff(key)),
            prose => {
                if text.ends_with(".RE\n") {
                    text += ".PP\n";
                }
                text += &roff(prose.trim());
            }
        }
    }
    manual("pop-before-smtp.toml", 5, "keys", &text);
}

#[test]
fn shells_complete_every_command() {
    for (shell, file) in [
        (Shell::Bash, "pop-before-smtp.bash"),
        (Shell::Zsh, "_pop-before-smtp"),
        (Shell::Fish, "pop-before-smtp.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
        // For a name with hyphens clap_complete 4.6 writes labels that it does not look for.
        let script = String::from_utf8(script).unwrap();
        let script = script.replace("pop__subcmd__before__subcmd__smtp", "pop__before__smtp");
        must_be(&format!("completions/{file}"), &script);
    }
}

/// Returns what bash offers as completion of the last word.
fn completed(words: &[&str]) -> String {
    let script = format!(
        "source deploy/completions/{NAME}.bash; COMP_WORDS=({NAME} {}); COMP_CWORD={}; \
         _pop__before__smtp {NAME} '{}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len(),
        words.last().expect("the word to complete")
    );
    let output = Command::new("bash").args(["-c", &script]).current_dir(ROOT).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_options() {
    assert!(completed(&["che"]).lines().any(|word| word == "check"));
    assert!(completed(&["run", "--log-"]).lines().any(|word| word == "--log-level"));
    assert!(completed(&["allow", "192.0.2.1", "--no"]).lines().any(|word| word == "--note"));
}
