//! The daemon's log: it never blocks the daemon, and it has the right format for its reader.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::program;
use crate::support::process::Process;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, directory, eventually};

const SENDERS: u16 = 4;
const FRAMES: u16 = 5000;

/// A daemon whose stderr belongs to the test.
fn run(dir: &TempDir, options: &[&str]) -> Command {
    let at = |name: &str| dir.path().join(name);
    fs::write(at("config.toml"), "").expect("a file");
    let mut command = program();
    command.args(["run", "--dry-run", "--exclude", "none"]).args(options);
    command.arg("--listen").arg(format!("unix:{}", at("log.sock").display()));
    command.arg("--config").arg(at("config.toml")).arg("--control").arg(at("control"));
    command.stdin(Stdio::null());
    command
}

/// Returns `status --json`, once the daemon answers.
fn status(dir: &Path) -> Option<Value> {
    let mut command = program();
    command.args(["status", "--json", "--control"]).arg(dir.join("control"));
    serde_json::from_slice(&command.output().expect("it can be started").stdout).ok()
}

fn send(dir: &Path, frames: impl Iterator<Item = String>) {
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    for frame in frames {
        let sent = socket.send_to(frame.as_bytes(), dir.join("log.sock"));
        sent.expect("the daemon does not wait for its log");
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let dir = directory();
    let mut command = run(&dir, &["--log-level", "debug"]);
    let mut daemon = Process::spawn(command.stderr(Stdio::piped()));
    let stderr = daemon.child().stderr.take().expect("it is piped");
    eventually("it answers", PATIENCE, || status(dir.path()).is_some());
    // Each client twice: renewals log longer lines, and in total they need more than the buffer.
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let dir = dir.path().to_owned();
            let client = move |n: u16| format!("10.{sender}.{}.{}", n / 250, n % 250 + 1);
            let frames = (0..2 * FRAMES).map(move |n| login_frame(client(n % FRAMES)));
            thread::spawn(move || send(&dir, frames))
        })
        .collect();
    for sender in senders {
        sender.join().expect("it could send");
    }
    let all = u64::from(SENDERS) * u64::from(FRAMES);
    eventually("all are processed", PATIENCE, || {
        status(dir.path()).is_some_and(|status| status["frames"] == 2 * all)
    });
    let status = status(dir.path()).expect("it answers");
    assert_eq!((&status["clients"], &status["logins"]), (&all.into(), &(2 * all).into()));
    let lost = status["log_lines_lost"].as_u64().expect("a number");
    assert!(lost > 1000, "{status}");

    let mut lines = BufReader::new(stderr).lines().map(|line| line.expect("text"));
    let told = lines.find(|line| line.contains("dropped log lines")).expect("it is told");
    let (_, told) = told.rsplit_once("lines=").expect("how many");
    assert_eq!(told.parse(), Ok(lost));
    daemon.signal(Signal::SIGTERM);
    assert!(lines.any(|line| line.contains("stopped")), "the last line is written");
    assert!(daemon.wait().success());
}

#[test]
fn a_full_pipe_does_not_hold_up_the_end() {
    let dir = directory();
    let mut command = run(&dir, &["--log-level", "debug"]);
    let mut daemon = Process::spawn(command.stderr(Stdio::piped()));
    let mut stderr = daemon.child().stderr.take().expect("it is piped");
    eventually("it answers", PATIENCE, || status(dir.path()).is_some());
    send(dir.path(), (0..1000).map(|n| format!("<22>mx1 {n}")));
    let begin = Instant::now();
    assert!(daemon.stop().success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("text");
    // Not "ready": the control socket answers before that is logged.
    assert!(said.contains("processed") && !said.contains("stopped"), "the pipe was not full");
}

/// Runs the daemon with its log in a file until it stops, and returns the log.
fn logged(dir: &TempDir, options: &[&str], in_journal: bool) -> String {
    let path = dir.path().join("said");
    let file = File::create(&path).expect("a file");
    let meta = file.metadata().expect("its inode");
    let mut command = run(dir, options);
    command
        .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino() + u64::from(!in_journal)));
    let mut daemon = Process::spawn(command.stderr(file));
    eventually("it answers", PATIENCE, || status(dir.path()).is_some());
    send(dir.path(), ["198.51.100.7"].map(login_frame).into_iter());
    fs::write(dir.path().join("config.toml"), "grace = 'soon'").expect("a file");
    daemon.signal(Signal::SIGHUP);
    let said = || fs::read_to_string(&path).expect("text");
    eventually("the reload fails", PATIENCE, || said().contains("not reloaded"));
    assert!(daemon.stop().success());
    said()
}

#[test]
fn each_reader_gets_its_format() {
    let dir = directory();
    let text = logged(&dir, &[], false);
    let line = text.lines().find(|line| line.contains("authorised")).expect("it is logged");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
    assert_eq!(
        rest.trim_start(),
        "INFO authorised address=198.51.100.7 user=\"joe\" daemon=\"dovecot\""
    );
    assert!(!text.contains('\x1b'), "colour in a file");

    let json = logged(&dir, &["--log-format=json"], true);
    let lines: Vec<Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    for line in &lines {
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
        let time = line["timestamp"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
    }
    let login = lines.iter().find(|line| line["message"] == "authorised").expect("it is logged");
    assert_eq!((&login["address"], &login["user"]), (&"198.51.100.7".into(), &"joe".into()));
    assert!(lines.iter().any(|line| line["level"] == "ERROR"), "{json}");

    for options in [&[][..], &["--log-format=journald"]] {
        let journal = logged(&dir, options, options.is_empty());
        for line in journal.lines() {
            let begin: String = line.chars().take(3).collect();
            assert!(["<3>", "<4>", "<6>", "<7>"].contains(&&*begin), "{line}");
        }
        let has_line = |begin: &str| journal.lines().any(|line| line.starts_with(begin));
        assert!(has_line("<6>authorised address=198.51.100.7"), "{journal}");
        assert!(has_line("<3>not reloaded"), "{journal}");
    }
}
