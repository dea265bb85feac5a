//! `users` and rules, as `check` and `test` explain them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::daemon::program;
use crate::support::directory;

const CONFIG: &str = "listen = ['udp:127.0.0.1:5514']
policy = 'inet:127.0.0.1:5515'
exclude = ['loopback']
users = ['@example.org', 'guest']
[[rule]]
user = 'scanner@example.org'
from = ['192.0.2.0/24', '2001:db8::/32']
grace = '8h'
messages-per-hour = 20
[[rule]]
from = '192.0.2.0/24'
never = true
";

fn configured(text: &str) -> TempDir {
    let dir = directory();
    fs::write(dir.path().join("config.toml"), text).unwrap();
    dir
}

/// Runs a command with a configuration, and returns exit status, stdout and stderr.
fn run(text: &str, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let dir = configured(text);
    let mut command = program();
    command.args(arguments).arg("--config").arg(dir.path().join("config.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn logins() -> String {
    let login = |user: &str, address: &str| {
        format!(
            "Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<{user}>, method=PLAIN, \
             rip={address}, lip=192.0.2.1, mpid=7, session=<a>\n"
        )
    };
    [
        login("Scanner@example.org", "192.0.2.7"),
        login("scanner@example.org", "198.51.100.7"),
        login("guest", "192.0.2.7"),
        login("joe@example.com", "198.51.100.7"),
        login("guest", "127.0.0.1"),
    ]
    .concat()
}

#[test]
fn check_prints_the_rules_in_plain_words() {
    let (code, out, said) = run(CONFIG, &["check"], "");
    let expected = "users: only logins of anybody at example.org or guest authorise\n\
                    rule 1 (config.toml line 5): a login of scanner@example.org from 192.0.2.0/24 or \
                    2001:db8::/32 authorises for 8h, and at most 20 messages an hour\n\
                    rule 2 (config.toml line 10): a login from 192.0.2.0/24 never authorises\n\
                    otherwise: a login authorises for 30m\n\
                    no errors found\n";
    assert_eq!((code, out.as_str(), said.as_str()), (Some(0), expected, ""));
    let json: Value = serde_json::from_str(&run(CONFIG, &["check", "--json"], "").1).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(
        json["logins"][2],
        "rule 2 (config.toml line 10): a login from 192.0.2.0/24 never authorises"
    );
}

#[test]
fn check_warns_about_rules_that_never_decide() {
    let more = "[[rule]]\nuser = 'x@example.com'\n[[rule]]\nfrom = '192.0.2.8'\ngrace = '1h'\n\
                [[rule]]\ngrace = '1h'\n[[rule]]\nuser = 'guest'\nnever = true\n";
    let (code, out, said) = run(&format!("{CONFIG}{more}"), &["check"], "");
    assert_eq!(code, Some(0), "{out}{said}");
    let warnings: Vec<_> = said.lines().collect();
    assert_eq!(
        warnings,
        [
            "pop-before-smtp: warning: rule 3 (config.toml line 13) never decides: `users` names \
             none of its users, so that their logins do not authorise",
            "pop-before-smtp: warning: rule 4 (config.toml line 15) never decides: rule 2 \
             (config.toml line 10) matches all its logins first",
            "pop-before-smtp: warning: rule 6 (config.toml line 20) never decides: rule 5 \
             (config.toml line 18) matches all its logins first",
        ]
    );
}

#[test]
fn check_reports_faults_of_rules_with_all_others() {
    let wrong = "max-clients = 0\nusers = []\nremember-users = false\nlisten = ['udp:127.0.0.1:5514']\n\
                 dry-run = true\n[[rule]]\ngrace = 8\n[[rule]]\nuser = 'joe'\n";
    let (code, out, said) = run(wrong, &["check"], "");
    assert_eq!((code, out.as_str()), (Some(78), ""), "{said}");
    for part in [
        "config.toml`: line 7: rule 1: grace: expected one text in quotes",
        "hint: write grace = \"8h\"",
        "max-clients: 0 is not between",
        "users: the list is empty, so that no login would authorise",
        "users: without remember-users",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let json: Value = serde_json::from_str(&run(wrong, &["check", "--json"], "").1).unwrap();
    assert_eq!(json["faults"].as_array().map(Vec::len), Some(4), "{json}");
}

#[test]
fn test_names_the_rule_that_has_decided() {
    let (code, out, _) = run(CONFIG, &["test", "--json"], &logins());
    assert_eq!(code, Some(0), "{out}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = "rule 1 (config.toml line 5)";
    let two = "rule 2 (config.toml line 10)";
    let expected = [
        json!(["login", format!("a login pattern matches; {one}: 8h"), one]),
        json!(["login", "a login pattern matches", null]),
        json!(["excluded", format!("{two}: never"), two]),
        json!(["excluded", "`users` does not name this user", null]),
        json!(["excluded", "the address is never authorised: it belongs to `loopback`", null]),
    ];
    let found = lines.iter().map(|line| json!([line["verdict"], line["reason"], line["rule"]]));
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let (_, out, _) = run(CONFIG, &["test"], &logins());
    assert!(
        out.contains(&format!("3 excluded 192.0.2.7 guest (dovecot): {two}: never\n")),
        "{out}"
    );
    assert_eq!(run(CONFIG, &["test"], logins().lines().nth(2).unwrap()).0, Some(1), "no login");
}

/// A login that is late by the shorter grace of its rule.
#[test]
fn test_notes_what_would_be_late_by_the_rule() {
    let short = CONFIG.replace("8h", "1s");
    let now = humantime::format_rfc3339_seconds(
        std::time::SystemTime::now() - std::time::Duration::from_secs(600),
    );
    let line = format!(
        "<22>1 {now} mx1 dovecot - - - imap-login: Login: user=<scanner@example.org>, method=PLAIN, \
         rip=192.0.2.7, lip=192.0.2.1, mpid=7, session=<a>\n"
    );
    let (_, out, _) = run(&short, &["test"], &line);
    assert!(out.contains("rule 1 (config.toml line 5): 1s; if it arrived now: refused: "), "{out}");
    let (_, out, _) = run(CONFIG, &["test"], &line);
    assert!(out.contains("rule 1 (config.toml line 5): 8h\n"), "{out}");
}
