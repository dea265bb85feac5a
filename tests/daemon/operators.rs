//! Who may ask and who may change: two sockets, their groups, and clients that say nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use crate::support::daemon::program;
use crate::support::home::Home;
use crate::support::story::login_frame;

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
/// A group that every system has, for those who may read.
const READERS: &str = "daemon";

fn gid(name: &str) -> u32 {
    nix::unistd::Group::from_name(name).unwrap().expect("every system has it").gid.as_raw()
}

/// A command of a user in this group: exit status, and what it says.
fn ask(home: &Home, group: u32, words: &[&str]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(words).arg("--config").arg(home.at("config.toml"));
    let output = command.uid(4711).gid(group).output().expect("it can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn readers_read_and_change_nothing() {
    let home = Home::new();
    let shown = |name: &str| home.at(name).display().to_string();
    let text = format!(
        "control = '{}'\ncontrol-read = '{},group={READERS}'\n",
        shown("control.sock"),
        shown("read.sock")
    );
    fs::write(home.at("config.toml"), text).unwrap();
    let daemon = home.start(&[]);
    for (name, group) in [("control.sock", 0), ("read.sock", gid(READERS))] {
        let file = fs::metadata(home.at(name)).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o777), (group, 0o660), "{name}");
    }
    home.wire.send(login_frame(A).as_bytes());
    daemon.wait_until_authorised(A);

    let (reader, stranger) = (gid(READERS), 65_533);
    let read = shown("read.sock");
    let rows: &[(u32, &[&str], i32, &str)] = &[
        (reader, &["list"], 0, A),
        (reader, &["status"], 0, "clients     1"),
        (reader, &["query", A], 0, "is authorised (joe"),
        (reader, &["query", B], 1, "is not authorised"),
        (reader, &["list", "--control", &read], 0, A),
        // Not even tried there.
        (reader, &["allow", B], 69, "control.sock`: Permission denied"),
        (reader, &["revoke", A], 69, "member of the group of `control`"),
        (reader, &["allow", B, "--control", &read], 1, "this socket is for reading"),
        (reader, &["revoke", A, "--control", &read], 1, "this socket is for reading"),
        (stranger, &["list"], 69, "read.sock`: Permission denied"),
        (stranger, &["status"], 69, "`control-read`"),
        (stranger, &["list", "--control", &read], 69, "Permission denied"),
    ];
    for (group, words, code, says) in rows {
        let (status, text) = ask(&home, *group, words);
        assert_eq!(status, Some(*code), "{group} {words:?}: {text}");
        assert!(text.contains(says), "{group} {words:?}: {text}");
    }
    assert!(daemon.query(A) && !daemon.query(B));
    // Root needs no second socket.
    let mut command = program();
    command.args(["list", "--config"]).arg(home.at("config.toml"));
    assert!(command.output().unwrap().status.success());
    assert!(daemon.stop().success());
    assert!(home.sockets().is_empty(), "{:?}", home.sockets());
}

#[test]
fn the_silent_hold_up_nobody_for_long() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let connect = |_| UnixStream::connect(home.at("control.sock")).expect("it listens");
    let begin = Instant::now();
    let silent: Vec<UnixStream> = (0..600).map(connect).collect();
    assert!(!daemon.query(A));
    // At once, and what a busy machine adds; each turn of the silent ones would take two seconds.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(silent);
    let said = daemon.said();
    let once = "all 32 control connections are taken";
    assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    // Whoever asks and leaves without reading, or asks nonsense, takes nobody's place either.
    for _ in 0..100 {
        drop(connect(0));
    }
    assert!(!daemon.query(A));
    assert!(daemon.stop().success());
}
