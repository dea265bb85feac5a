//! The commands as scripts use them: exit status, stdout and JSON.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, program};
use crate::support::home::Home;
use crate::support::story::login_frame;

const A: &str = "198.51.100.7";

/// Returns exit status, stdout and stderr.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn ask(daemon: &Daemon, arguments: &str) -> (Option<i32>, String, String) {
    outcome(daemon.command(&arguments.split(' ').collect::<Vec<_>>()))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn operators_query_and_change() {
    let home = Home::new();
    let daemon = home.start(&["--grace", "20m"]);
    let (code, out, said) = ask(&daemon, "list");
    assert_eq!((code, out.as_str(), said.as_str()), (Some(0), "nobody is authorised\n", ""));
    assert_eq!(ask(&daemon, "list --json").1, "[]\n");

    home.wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    let list = daemon.list();
    let expected = "address daemon expires expires_in host logins note since user";
    assert!(keys(&list[0]).is_superset(&expected.split(' ').collect()), "{list}");
    let known = json!({"address": A, "user": "joe", "daemon": "dovecot", "host": "mx1", "logins": 1, "note": null});
    for (key, value) in known.as_object().expect("an object") {
        assert_eq!(list[0][key], *value, "{key}: {list}");
    }
    assert!((1190..=1200).contains(&list[0]["expires_in"].as_u64().expect("a number")), "{list}");
    let time = |key: &str| {
        let text = list[0][key].as_str().expect("a text");
        humantime::parse_rfc3339(text).unwrap_or_else(|why| panic!("{key} {text}: {why}"))
    };
    let span = time("expires").duration_since(time("since")).expect("it expires later");
    assert!((1199..=1201).contains(&span.as_secs()), "{list}");

    // In this order: each row has the arguments, the exit status, and a text on stdout or stderr.
    for (arguments, code, expected) in [
        ("query 198.51.100.7", 0, "198.51.100.7 is authorised (joe, dovecot) until "),
        ("query ::ffff:198.51.100.7", 0, "198.51.100.7 is authorised"),
        ("query 198.51.100.70", 1, "198.51.100.70 is not authorised"),
        ("query 198.51.100", 2, "invalid"),
        ("query", 2, "ADDRESS"),
        (
            "allow 198.51.100.8 --for 2h --note guest",
            0,
            "198.51.100.8 is authorised (manual) until ",
        ),
        ("allow 198.51.100.9", 0, "20m"),
        ("allow 198.51.100.9 --for never", 2, "`never`"),
        ("allow 198.51.100.9 --for 0s", 2, "`0s` is shorter than one second"),
        (
            "allow 127.0.0.1",
            1,
            "pop-before-smtp: 127.0.0.1 is never authorised: it belongs to `loopback`",
        ),
        ("allow ::", 1, "unspecified"),
        ("allow 224.0.0.1", 1, "multicast"),
        ("allow 0.0.0.1", 1, "0.0.0.1 cannot be authorised: the address is in a reserved range"),
        ("allow ::ffff:240.0.0.1", 1, "reserved range"),
        ("revoke 240.0.0.1 --block 1h", 1, "240.0.0.1 cannot be authorised"),
        ("revoke 198.51.100.9", 0, "198.51.100.9 is no longer authorised"),
        ("query 198.51.100.9", 1, "not authorised"),
        ("revoke 198.51.100.9", 0, "198.51.100.9 was not authorised"),
        ("revoke 198.51.100.7 --block 1h", 0, "new logins do not count for 1h"),
        ("query 198.51.100.7", 1, "198.51.100.7 is not authorised: blocked until "),
        ("list", 0, "198.51.100.8  -      manual  -"),
        ("list", 0, "guest"),
        ("status", 0, "clients     1 of at most 65536\n"),
        ("status", 0, "map         lmdb:"),
        ("nonsense", 2, "nonsense"),
    ] {
        let (status, out, said) = ask(&daemon, arguments);
        assert_eq!(status, Some(code), "{arguments}: {out}{said}");
        let is_refused = code >= 2 || (code == 1 && !arguments.starts_with("query"));
        let (used, empty) = if is_refused { (&said, &out) } else { (&out, &said) };
        assert!(used.contains(expected) && empty.is_empty(), "{arguments}: {out}\n{said}");
    }

    daemon.wait_until_logged("revoked=true block=\"1h\"");
    home.wire.send(login_frame(A).as_bytes());
    home.wire.send(login_frame("127.0.0.1").as_bytes());
    home.wire.send(b"<22>Nov 22 07:31:23 mx1 dovecot: nothing of interest");
    home.wire.send(b"<22>Nov 22 07:31:23 mx1 sshd[7]: nothing of interest");
    home.wire.send(b"");
    home.wire.send(login_frame("198.51.100.10").as_bytes());
    daemon.wait_until_authorised("198.51.100.10");
    let status: Value = serde_json::from_str(&ask(&daemon, "status --json").1).expect("JSON");
    let expected = "clients counts daemons frames last_login listeners logins map started version";
    assert!(keys(&status).is_superset(&expected.split(' ').collect()), "{status}");
    for (pointer, value) in [
        ("/frames", 7),
        ("/logins", 2),
        ("/clients", 2),
        ("/counts/blocked", 1),
        ("/counts/excluded", 1),
        ("/counts/malformed", 1),
        ("/counts/other_programs", 1),
        ("/counts/granted", 4),
        ("/daemons/dovecot/logins", 2),
        ("/daemons/dovecot/unmatched", 1),
        ("/listeners/0/frames", 7),
        ("/map/failures", 0),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value.into()), "{pointer}: {status}");
    }
    assert_eq!(status["map"]["table"], home.table(), "{status}");
    assert!(daemon.stop().success());
}

/// The help does not list the values of switches, and every command accepts `--config`.
#[test]
fn help_and_configuration_files() {
    let help = |command: &str| {
        outcome(program().args([command, "--help"]).output().expect("it can be started")).1
    };
    assert!(!help("run").contains("possible values: true"), "{}", help("run"));
    for command in ["run", "test", "check", "daemons", "list", "query", "allow", "revoke", "status"]
    {
        assert!(help(command).contains("--config <FILE>"), "{command}: {}", help(command));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("daemons-dir = '{}'\n", dir.path().display())).expect("a file");
    let own = outcome(program().args(["daemons", "teapop"]).output().expect("it runs")).1;
    std::fs::write(dir.path().join("own.toml"), own.replace("\"teapop\"", "\"own\""))
        .expect("a file");
    let shown = program().args(["daemons", "own", "--config"]).arg(&config).output();
    let (code, out, said) = outcome(shown.expect("it runs"));
    assert!(code == Some(0) && out.contains("name = \"own\""), "{out}{said}");
}

#[test]
fn without_a_daemon_commands_fail_with_a_hint() {
    let home = Home::new();
    let control = home.at("control.sock");
    for arguments in
        ["list", "list --json", "query 192.0.2.7", "allow 192.0.2.7", "revoke 192.0.2.7", "status"]
    {
        let mut command = program();
        command.args(arguments.split(' ')).arg("--control").arg(&control);
        let (status, out, said) = outcome(command.output().expect("it can be started"));
        assert_eq!((status, out.as_str()), (Some(69), ""), "{arguments}: {said}");
        assert!(said.contains("cannot reach the daemon") && said.contains("hint: "), "{said}");
    }
}

const DOVECOT: &str = "Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<joe>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=7, session=<a>";
const CONNECT: &str = "Nov 22 07:31:23 mx1 vm-pop3d[7]: Connect from 192.0.2.8";
const LOGIN: &str = "<22>Nov 22 07:31:23 mx1 vm-pop3d[7]: User 'joe' logged in";

fn test(options: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = program();
    command.arg("test").args(options).args(["--exclude", "loopback", "--config", "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    outcome(child.wait_with_output().expect("it ends"))
}

/// Returns the verdicts of `test --json`, with address and user.
fn verdicts(out: &str) -> Vec<(String, Value, Value)> {
    let line = |(n, line): (u64, &str)| {
        let value: Value = serde_json::from_str(line).expect("each line is JSON");
        let expected = ["n", "verdict", "daemon", "address", "user", "reason"];
        assert_eq!(keys(&value), expected.into_iter().collect(), "{line}");
        assert_eq!(value["n"], n, "{line}");
        assert!(value["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
        let verdict = value["verdict"].as_str().expect("a text").to_owned();
        (verdict, value["address"].clone(), value["user"].clone())
    };
    (1..).zip(out.lines()).map(line).collect()
}

#[test]
fn test_prints_verdicts() {
    let logout = "Nov 22 07:31:23 mx1 vm-pop3d[7]: Session ended for user: 'joe' from 192.0.2.8, nmsgs=1, ndel=0";
    let rfc5424 = "<22>1 2026-11-22T07:31:23Z mx1 dovecot - - - imap-login: Login: user=<ann>, method=PLAIN, rip=::ffff:192.0.2.9, lip=192.0.2.1, mpid=7, session=<a>";
    let local = DOVECOT.replace("rip=192.0.2.7", "rip=127.0.0.1");
    let lines =
        [DOVECOT, CONNECT, LOGIN, logout, rfc5424, &local, "nonsense", ""].join("\n") + "\n";
    let (status, out, said) = test(&["--json"], lines.as_bytes());
    assert_eq!((status, said.as_str()), (Some(0), ""), "{out}");
    let row = |verdict: &str, address: Value, user: Value| (verdict.to_owned(), address, user);
    let expected = vec![
        row("login", json!("192.0.2.7"), json!("joe")),
        row("partial", json!("192.0.2.8"), Value::Null),
        row("login", json!("192.0.2.8"), json!("joe")),
        row("logout", json!("192.0.2.8"), json!("joe")),
        row("login", json!("192.0.2.9"), json!("ann")),
        row("excluded", json!("127.0.0.1"), json!("joe")),
        row("none", Value::Null, Value::Null),
        row("none", Value::Null, Value::Null),
    ];
    assert_eq!(verdicts(&out), expected);

    let (status, out, _) = test(&[], lines.as_bytes());
    assert_eq!(status, Some(0), "{out}");
    for (n, (verdict, address, user)) in (1..).zip(&expected) {
        let fields = [Some(verdict.as_str()), address.as_str(), user.as_str()];
        let begin = fields.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let found = out.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.join(" ").starts_with(&format!("{n} {begin}"))
        });
        assert!(found, "{n} {begin}: {out}");
    }
}

#[test]
fn test_reads_frames_with_newlines_and_files() {
    let forged = format!("Nov 22 07:31:23 mx1 ftpd[7]: user x\n{DOVECOT}");
    let frames =
        [forged.as_bytes(), b"\0", DOVECOT.as_bytes(), b"\0\0\xff\xfe\0", DOVECOT.as_bytes()];
    for option in ["-0", "--null"] {
        let (status, out, _) = test(&[option, "--json"], &frames.concat());
        let found: Vec<String> = verdicts(&out).into_iter().map(|row| row.0).collect();
        assert_eq!((status, found.join(" ").as_str()), (Some(0), "none login none none login"));
    }
    let (status, out, _) = test(&["--json"], b"nothing\n");
    assert_eq!((status, verdicts(&out).len()), (Some(1), 1), "no login found");
    assert_eq!(test(&["--json"], b""), (Some(1), String::new(), String::new()));
    let (status, out, _) = test(&["--json", "--daemon", "courier"], DOVECOT.as_bytes());
    assert_eq!((status, verdicts(&out)[0].0.as_str()), (Some(1), "none"), "{out}");

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), DOVECOT).expect("written");
    let path = file.path().display().to_string();
    let (status, out, _) = test(&["--json", &path], b"");
    assert_eq!((status, verdicts(&out).len()), (Some(0), 1));
    let (status, out, said) = test(&["/nowhere"], b"");
    assert_eq!((status, out.as_str()), (Some(74), ""), "{said}");
    assert!(said.contains("/nowhere") && said.contains("No such file"), "{said}");
}

/// A dry run decides and logs everything, and writes neither map nor state.
#[test]
fn a_dry_run_only_logs() {
    let home = Home::new();
    let daemon = home.start(&["--dry-run"]);
    home.wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    daemon.wait_until_logged(&format!("map=[\"{A}\"]"));
    daemon.wait_until_logged(&format!("postmap -r lmdb:{}", home.at("clients").display()));
    assert!(daemon.stop().success());
    assert!(!home.at("state").exists() && !home.at("clients").exists());
}

fn wipe(home: &Home, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program();
    command.arg("wipe").args(home.options(more)).args(["--config", "/dev/null"]);
    outcome(command.output().expect("it can be started"))
}

#[test]
fn wipe_empties_the_map_that_a_crash_has_left() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    home.wire.send(login_frame(A).as_bytes());
    home.wait_until_mapped(A, &daemon);
    let (status, out, said) = wipe(&home, &[]);
    assert_eq!((status, out.as_str()), (Some(74), ""), "{said}");
    assert!(said.contains(&format!("in use by process {}", daemon.id())), "{said}");
    assert_eq!(home.map_value(A).as_deref(), Some("OK"));

    home.wait_until_saved(A, &daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert_eq!(home.map_value(A).as_deref(), Some("OK"), "the crash has left it");
    // Also with a configuration that the daemon would refuse.
    let (status, out, said) = wipe(&home, &["--grace", "8days"]);
    assert_eq!((status, said.as_str()), (Some(0), ""), "{out}");
    assert_eq!(out, format!("the map {} is empty now\n", home.table()));
    assert_eq!(home.map_value(A), None);
    assert!(home.map_value("_pbs_generation_").is_some(), "an empty map is a map");
    assert!(!home.at("clients.lock").exists());

    let daemon = home.start(&[]);
    assert_eq!(home.map_value(A).as_deref(), Some("OK"), "the state file stays");
    assert!(daemon.stop().success());
    assert_eq!(wipe(&home, &[]).0, Some(0), "after a clean shutdown");
    assert_eq!(home.map_value(A), None);

    home.play_postmap("exit 1");
    let failing = || {
        let mut failing = program();
        failing.arg("wipe").args(home.options(&[])).args(["--config", "/dev/null"]);
        let path = std::env::var_os("PATH").expect("a PATH");
        let paths = [home.at("bin")].into_iter().chain(std::env::split_paths(&path));
        failing.env("PATH", std::env::join_paths(paths).expect("paths"));
        outcome(failing.output().expect("it can be started"))
    };
    let (status, _, said) = failing();
    assert_eq!(status, Some(0), "the daemon has prepared a fallback map: {said}");
    assert_eq!(home.map_value(A), None);
    // There is no second fallback map.
    let (status, out, said) = failing();
    assert_eq!((status, out.as_str()), (Some(74), ""), "{said}");
    assert!(said.contains("was not published"), "{said}");

    for options in [&["--policy", "inet:127.0.0.1:9"][..], &["--map", "lmdb:/x", "--dry-run"]] {
        let mut command = program();
        command.arg("wipe").args(options).args(["--config", "/dev/null"]);
        let (status, out, said) = outcome(command.output().expect("it can be started"));
        assert_eq!((status, said.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains("no map to wipe"), "{out}");
    }
}

/// Each command's help ends with examples, and the command accepts their arguments.
#[test]
fn examples_of_the_help_are_accepted() {
    let help =
        |arguments: &[&str]| outcome(program().args(arguments).arg("--help").output().unwrap());
    let mut examples = 0;
    for command in [
        "run", "test", "check", "daemons", "list", "query", "allow", "revoke", "status", "watch",
        "doctor",
    ] {
        let (code, text, _) = help(&[command]);
        assert_eq!(code, Some(0), "{command}");
        let (_, shown) =
            text.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command}: {text}"));
        for line in shown.lines() {
            let (_, arguments) = line.split_once("pop-before-smtp ").expect("a call");
            let arguments = arguments.split(['|', '>']).next().expect("a call");
            // No argument of an example has a blank except a note.
            let arguments = arguments.split(" --note").next().expect("a call");
            let arguments: Vec<&str> = arguments.split_whitespace().collect();
            assert_eq!(arguments[0], command, "{line}");
            let (code, _, said) = help(&arguments);
            assert_eq!(code, Some(0), "{line}: {said}");
            examples += 1;
        }
    }
    assert!(examples > 15, "{examples}");
}
