//! `watch`, and `list` and `status` that repaint themselves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::Ipv4Addr;
use std::process::{ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::program;
use crate::support::home::Home;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually, within};

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
/// More logins than the daemon keeps events, and than fit into the buffers on the way.
const FLOOD: u32 = 100_000;

/// `watch`, started with these arguments.
struct Watch {
    process: Process,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = program();
        command.arg("watch").args(arguments).arg("--control").arg(home.at("control.sock"));
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let lines = BufReader::new(process.child().stdout.take().unwrap());
        Self { process, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Returns event, address and reason of the next line.
    fn short(&mut self) -> String {
        let line = self.next();
        ["event", "address", "reason"]
            .iter()
            .filter_map(|key| line[key].as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Waits until it ends; returns exit status and stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait();
        let mut said = String::new();
        self.process.child().stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

#[test]
fn events_are_printed_as_they_happen() {
    let home = Home::new();
    let daemon = home.start(&["--exclude", "203.0.113.0/24"]);
    home.wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);
    let mut watch = Watch::start(&home, &["--initial"]);
    let first = watch.next();
    assert_eq!(
        (&first["event"], &first["address"], &first["user"], &first["daemon"], &first["reason"]),
        (&"granted".into(), &A.into(), &"joe".into(), &"dovecot".into(), &Value::Null)
    );
    let listed = &daemon.list()[0];
    assert_eq!((&first["time"], &first["expires"]), (&listed["since"], &listed["expires"]));
    assert_eq!(watch.short(), "ready");
    let mut other = Watch::start(&home, &["--initial"]);
    assert_eq!(other.short(), format!("granted {A}"));
    assert_eq!(other.short(), "ready");
    home.wire.send(login_frame(A).as_bytes());
    home.wire.send(login_frame("203.0.113.9").as_bytes());
    let mut expect = |expected: &[String]| {
        for watch in [&mut watch, &mut other] {
            let told: Vec<String> = expected.iter().map(|_| watch.short()).collect();
            assert_eq!(told, expected);
        }
    };
    // Frames and commands arrive in different ways, so in any order.
    expect(&[format!("renewed {A}"), "excluded 203.0.113.9 exclude".to_owned()]);
    daemon.command(&["allow", B, "--for", "1h"]);
    daemon.command(&["revoke", B, "--block", "1h"]);
    home.wire.send(login_frame(B).as_bytes());
    expect(&[
        format!("granted {B}"),
        format!("ended {B} revoked"),
        format!("excluded {B} blocked"),
    ]);
    // Nobody reads any more: silence, as in other commands.
    let Watch { mut process, lines } = other;
    drop(lines);
    home.wire.send(login_frame(A).as_bytes());
    assert!(process.wait().success());
    assert_eq!(watch.short(), format!("renewed {A}"));
    assert!(daemon.stop().success());
    let (code, said) = watch.end();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("closed the connection"), "{said}");
}

#[test]
fn a_stopped_reader_is_cut_off_and_the_receiver_loses_nothing() {
    let home = Home::new();
    let daemon = home.start(&["--max-clients", "200000"]);
    let mut stopped = Watch::start(&home, &["--initial"]);
    assert_eq!(stopped.short(), "ready");
    let mut reading = Watch::start(&home, &["--initial"]);
    assert_eq!(reading.short(), "ready");
    stopped.process.halt();
    let reader = std::thread::spawn(move || {
        let granted = |number| {
            let told = reading.next();
            assert_eq!(told["address"], Ipv4Addr::from(0x0B00_0000 + number).to_string());
        };
        (0..FLOOD).for_each(granted);
        reading
    });
    for number in 0..FLOOD {
        home.wire.send(login_frame(Ipv4Addr::from(0x0B00_0000 + number)).as_bytes());
    }
    // The other one has missed nothing.
    let reading = reader.join().expect("each event was told");
    let status: Value =
        serde_json::from_slice(&daemon.command(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["frames"], FLOOD);
    assert_eq!(status["listeners"][0]["kernel_drops"], 0);
    assert_eq!(status["clients"], FLOOD);
    daemon.wait_until_logged("a control client was too slow");
    stopped.process.signal(Signal::SIGCONT);
    let mut told = 0;
    let missed = loop {
        let line = stopped.next();
        match line["event"].as_str() {
            Some("granted") => told += 1,
            Some("cut_off") => break line["missed"].as_u64().unwrap(),
            _ => panic!("{line}"),
        }
    };
    assert!(missed > 65_536 && told + missed <= u64::from(FLOOD), "{told} told, {missed} missed");
    let (code, said) = stopped.end();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(&format!("{missed} are missing")), "{said}");
    drop(reading);
    assert!(daemon.stop().success());
}

/// Runs a command on a terminal of 80 columns and 10 rows.
struct Terminal {
    script: Process,
    home: Home,
}

impl Terminal {
    fn start(home: Home, command: &str) -> Self {
        let shell = format!(
            "stty cols 80 rows 10; echo $$ > '{0}/pid'; exec '{1}' {command} --control '{0}/control.sock'",
            home.at("").display(),
            env!("CARGO_BIN_EXE_pop-before-smtp"),
        );
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-f", "-c", &shell]).arg(home.at("typescript"));
        script.env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        let script = Process::spawn(script.stdout(Stdio::null()));
        Self { script, home }
    }

    fn shown(&self) -> String {
        let bytes = fs::read(self.home.at("typescript")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends it as Ctrl-C does; returns whether it succeeded.
    fn interrupt(&mut self) -> bool {
        let id = fs::read_to_string(self.home.at("pid")).unwrap();
        let id = nix::unistd::Pid::from_raw(id.trim().parse().unwrap());
        nix::sys::signal::kill(id, Signal::SIGINT).unwrap();
        self.script.wait().success()
    }
}

#[test]
fn list_repaints_itself_on_a_terminal() {
    let home = Home::new();
    let daemon = home.start(&[]);
    home.wire.send(login_frame(A).replace("<joe>", "<日本語@example.org>").as_bytes());
    daemon.wait_until_authorised(A);
    let mut terminal = Terminal::start(home, "list --watch");
    let shows = |terminal: &Terminal, text: &str| {
        let shown = within(PATIENCE, || terminal.shown().contains(text));
        assert!(shown, "{text:?}: {:?}", terminal.shown());
    };
    shows(&terminal, "1 authorised");
    shows(&terminal, A);
    terminal.home.wire.send(login_frame(B).as_bytes());
    shows(&terminal, "2 authorised");
    shows(&terminal, "\x1b[32m+\x1b[0m");
    daemon.command(&["revoke", A]);
    shows(&terminal, "\x1b[1;31m-\x1b[0m");
    let daemon_ended = daemon.stop();
    shows(&terminal, "trying again");
    assert!(terminal.interrupt(), "{}", terminal.shown());
    let shown = terminal.shown();
    assert!(daemon_ended.success());
    assert!(shown.contains("\x1b[?25l") && shown.contains("\x1b[?25h"), "{shown:?}");
    assert!(shown.contains("日本語"), "{shown:?}");
}

#[test]
fn status_repaints_itself_on_a_terminal_only() {
    let home = Home::new();
    let daemon = home.start(&[]);
    for command in ["list", "status"] {
        let output = daemon.command(&[command, "--watch"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("--watch needs a terminal"), "{said}");
    }
    let mut terminal = Terminal::start(home, "status --watch");
    let paintings = || terminal.shown().matches("\x1b[H\x1b[1mpop-before").count();
    eventually("it paints twice", PATIENCE, || paintings() > 1);
    // Ten rows at a time, and none is scrolled away.
    let painted = terminal.shown();
    let longest = painted.split("\x1b[H").map(|page| page.matches('\n').count()).max();
    assert!(longest <= Some(11), "{painted:?}");
    assert!(terminal.interrupt());
    assert!(daemon.stop().success());
}
