//! The control sockets: who may query and who may change, long lists, and silent clients.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, program, program_as};
use crate::support::home::Home;
use crate::support::story::login_frame;

const A: &str = "198.51.100.7";
const B: &str = "198.51.100.8";
/// The default of `max-clients`.
const CLIENTS: u32 = 65_536;
/// A group that every system has, for the read-only socket.
const READERS: &str = "daemon";

fn gid(name: &str) -> u32 {
    nix::unistd::Group::from_name(name).unwrap().expect("every system has it").gid.as_raw()
}

/// Runs a command as a user in this group, and returns exit status and output.
fn ask(home: &Home, group: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = program_as((4711, group), &home.at(""));
    command.args(arguments).arg("--config").arg(home.at("config.toml"));
    let output = command.output().expect("it can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn readers_query_and_change_nothing() {
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

    let (reader, other) = (gid(READERS), 65_533);
    let read = shown("read.sock");
    let rows: &[(u32, &[&str], i32, &str)] = &[
        (reader, &["list"], 0, A),
        (reader, &["status"], 0, "clients     1"),
        (reader, &["query", A], 0, "is authorised (joe"),
        (reader, &["query", B], 1, "is not authorised"),
        (reader, &["list", "--control", &read], 0, A),
        // The read-only socket is not tried for changes.
        (reader, &["allow", B], 69, "control.sock`: Permission denied"),
        (reader, &["revoke", A], 69, "member of the group of `control`"),
        (reader, &["allow", B, "--control", &read], 1, "this socket is read-only"),
        (reader, &["revoke", A, "--control", &read], 1, "this socket is read-only"),
        (other, &["list"], 69, "read.sock`: Permission denied"),
        (other, &["status"], 69, "`control-read`"),
        (other, &["list", "--control", &read], 69, "Permission denied"),
    ];
    for (group, arguments, code, expected) in rows {
        let (status, text) = ask(&home, *group, arguments);
        assert_eq!(status, Some(*code), "{group} {arguments:?}: {text}");
        assert!(text.contains(expected), "{group} {arguments:?}: {text}");
    }
    assert!(daemon.query(A) && !daemon.query(B));
    // Root needs no second socket.
    let mut command = program();
    command.args(["list", "--config"]).arg(home.at("config.toml"));
    assert!(command.output().unwrap().status.success());
    assert!(daemon.stop().success());
    assert!(home.sockets().is_empty(), "{:?}", home.sockets());
}

/// Returns a figure of the daemon's memory, in KiB (proc(5), /proc/pid/status).
fn memory(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("KiB")
}

#[test]
fn a_long_list_takes_no_memory() {
    let home = Home::new();
    let daemon = home.start(&[]);
    for number in 0..CLIENTS {
        let address = Ipv4Addr::from(0x0B00_0000 + number);
        let frame = login_frame(address).replace("<joe>", &format!("<user{number}@lake.example>"));
        home.wire.send(frame.as_bytes());
    }
    let last = Ipv4Addr::from(0x0B00_0000 + CLIENTS - 1).to_string();
    daemon.wait_until_authorised(&last);
    home.wait_until_mapped(&last, &daemon);
    let before = memory(&daemon, "VmRSS:");
    // Reset the peak (proc(5), clear_refs).
    fs::write(format!("/proc/{}/clear_refs", daemon.id()), "5").unwrap();
    let listed = daemon.list();
    let listed = listed.as_array().expect("an array");
    assert_eq!(listed.len(), CLIENTS as usize);
    assert_eq!(listed[CLIENTS as usize - 1]["address"], *last);
    let peak = memory(&daemon, "VmHWM:");
    println!("{before} KiB before the list, at most {peak} KiB during it");
    assert!(peak < before + 8 * 1024, "{before} KiB before, {peak} KiB during the list");
    assert!(daemon.stop().success());
}

#[test]
fn silent_clients_block_nobody() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let connect = |_| UnixStream::connect(home.at("control.sock")).expect("it listens");
    let begin = Instant::now();
    let silent: Vec<UnixStream> = (0..600).map(connect).collect();
    assert!(!daemon.query(A));
    // Usually a moment; it would be 36 s if each silent client had two seconds.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let said = daemon.log();
    assert_eq!(said.matches("all 32 control connections are in use").count(), 1, "{said}");
    // The last of them have two seconds, if no other client connects.
    daemon.wait_until_logged("was too slow");
    drop(silent);
    // Clients that disconnect at once block nobody either.
    for _ in 0..100 {
        drop(connect(0));
    }
    assert!(!daemon.query(A));
    assert!(daemon.stop().success());
}
