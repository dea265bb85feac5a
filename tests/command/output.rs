//! The output of `list` and `status` on a terminal and in a pipe.

use std::process::Command;

use crate::support::daemon::{Daemon, program};
use crate::support::home::Home;
use crate::support::story::login_frame;

const LONG: &str = "somebody.with.a.long.name@a.subdomain.of.a.long.domain.example.org";

fn text(daemon: &Daemon, arguments: &[&str]) -> String {
    String::from_utf8(daemon.command(arguments).stdout).expect("text")
}

/// Returns what a command prints on a terminal with this many columns, made by script(1).
fn on_terminal(home: &Home, subcommand: &str, columns: u16, colour: bool) -> String {
    let program = program().get_program().to_string_lossy().into_owned();
    let control = home.at("control.sock");
    let shell = format!(
        "stty rows 40 cols {columns} < /dev/tty; {program} {subcommand} --control {}",
        control.display()
    );
    let mut command = Command::new("script");
    command.args(["-q", "-c", &shell, "/dev/null"]).env("TERM", "xterm");
    if !colour {
        command.env("NO_COLOR", "1");
    }
    let output = command.output().expect("script is in PATH: apt-get install bsdutils");
    String::from_utf8(output.stdout).expect("text").replace('\r', "")
}

#[test]
fn list_is_a_table() {
    let home = Home::new();
    let daemon = home.start(&[]);
    home.wire.send(login_frame("198.51.100.7").replace("<joe>", &format!("<{LONG}>")).as_bytes());
    daemon.wait_until_authorised("198.51.100.7");
    let note = "a \x1b[31mguest\u{202e}\nof ours";
    let allowed = text(&daemon, &["allow", "2001:db8::7", "--for", "2h", "--note", note]);
    assert!(allowed.starts_with("2001:db8::7 is authorised (manual) until "), "{allowed}");

    let list = text(&daemon, &["list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines.iter().all(|line| line.trim_end() == *line), "{list:?}");
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        fields(lines[0]).join(" "),
        "ADDRESS USERS DAEMON HOST SINCE LEFT LOGINS MESSAGES RCPTS NOTE"
    );
    assert!(lines[1].starts_with(&format!("198.51.100.7  {LONG}  dovecot  mx1  ")), "{list}");
    assert!(lines[1].contains("s ago  29m ") || lines[1].contains("s ago  30m 0s"), "{list}");
    assert!(
        lines[2].ends_with("  not in the map; a \\u{1b}[31mguest\\u{202e}\\nof ours"),
        "{list}"
    );
    assert!(list.chars().all(|c| !c.is_control() || c == '\n'), "{list:?}");

    let shown = on_terminal(&home, "list", 100, false);
    assert!(!shown.contains('\x1b'), "NO_COLOR: {shown:?}");
    assert!(!shown.contains(LONG) && shown.contains("somebody.wi"), "{shown}");
    let narrow = shown.lines().take(2).all(|line| line.chars().count() <= 100);
    assert!(narrow && shown.contains('…'), "{shown}");
    assert!(on_terminal(&home, "list", 200, true).contains("\x1b[1mADDRESS\x1b[0m"));
    assert!(daemon.stop().success());
}

#[test]
fn status_is_a_summary_and_tables() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let before = text(&daemon, &["status"]);
    assert!(before.contains("logins      0, none since the start\n"), "{before}");
    home.wire.send(login_frame("198.51.100.7").as_bytes());
    home.wire.send(b"<22>Nov 22 07:31:23 mx1 dovecot: nothing of interest");
    home.wait_until_mapped("198.51.100.7", &daemon);
    crate::support::eventually("it is up to date", crate::support::PATIENCE, || {
        text(&daemon, &["status"]).contains("up to date")
    });
    let status = text(&daemon, &["status"]);
    let lines: Vec<&str> = status.lines().collect();
    let has_line = |begin: &str| lines.iter().any(|line| line.starts_with(begin));
    for begin in [
        concat!("pop-before-smtp ", env!("CARGO_PKG_VERSION"), ", up "),
        "clients     1 of at most 65536",
        "logins      1, the last ",
        &format!("map         {}: up to date", home.table()),
        "            generation 2 published ",
        "frames      2",
        "            addresses authorised: 1",
        "LISTENER ",
        &format!("{} ", home.wire),
        "MAIL DAEMON  LOGINS ",
        "dovecot           1 ",
    ] {
        assert!(has_line(begin), "{begin:?}: {status}");
    }
    assert!(!status.contains('\x1b') && !has_line("log "), "{status:?}");
    let json: serde_json::Value =
        serde_json::from_str(&text(&daemon, &["status", "--json"])).expect("JSON");
    assert_eq!(json["map"]["publications"], 2, "{json}");
    assert_eq!(json["map"]["publication_failures"], 0, "{json}");
    for time in ["/started", "/now", "/last_login", "/map/last_publication"] {
        let text = json.pointer(time).and_then(|time| time.as_str()).expect(time);
        assert!(humantime::parse_rfc3339(text).is_ok(), "{time}: {text}");
    }
    assert!(json["map"]["last_publication_seconds"].as_f64().is_some_and(|s| s < 30.0), "{json}");
    assert!(on_terminal(&home, "status", 100, true).contains("\x1b[32mup to date\x1b[0m"));
    assert!(daemon.stop().success());
}
