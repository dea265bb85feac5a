//! Faults of the daemon's environment: what is done, what the log says, and what holds afterwards.
//! README.md in this directory is the table of them.
//!
//! - **Promise**: a fault of the map delays only what reads the map, and a fault of the state file
//!   delays nothing. No fault loses a grant that is a second old, creates one, or prolongs one.
//! - **Layers**: `postmap` faults of postmap, seen by the real smtpd; `disk` no space and no
//!   permission; `files` other programs that change our files; `host` what the operating system
//!   denies; `time` clocks and pauses. This file has what they share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what must not be ends the test")]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod files;
mod host;
mod postmap;
mod time;

use support::daemon::Daemon;
use support::home::Home;
use support::story::login_frame;
use support::{PATIENCE, eventually, within};

/// Logs in before every fault.
const A: &str = "198.51.100.7";
/// Logs in during the fault.
const B: &str = "198.51.100.8";

/// Sends a login and waits until it is authorised.
fn log_in(home: &Home, daemon: &Daemon, address: &str) {
    home.wire.send(login_frame(address).as_bytes());
    daemon.wait_until_authorised(address);
}

/// Sends logins of `size` other clients.
fn many_log_in(home: &Home, size: u32) {
    for number in 1..=size {
        let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + number);
        home.wire.send(login_frame(address).as_bytes());
    }
}

/// Waits until this is in the log after its first `before` bytes.
fn wait_until_logged_after(daemon: &Daemon, before: usize, says: &str) {
    let logged = within(PATIENCE, || daemon.log()[before..].contains(says));
    assert!(logged, "{says:?} is not in the log: {}", &daemon.log()[before..]);
}

/// Waits until these addresses are saved, kills the daemon and restarts it; asserts that they are
/// authorised and in the map.
fn survives_a_kill(home: &Home, mut daemon: Daemon, options: &[&str], addresses: &[&str]) {
    for address in addresses {
        home.wait_until_saved(address, &daemon);
    }
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    let said = daemon.log();
    assert!(!said.contains("panicked"), "{said}");
    let daemon = home.start(options);
    for address in addresses {
        assert!(daemon.query(address), "{address} is lost: {said}\nthen: {}", daemon.log());
        assert_eq!(home.map_value(address).as_deref(), Some("OK"), "{address}: {said}");
    }
    assert!(daemon.stop().success());
}

/// Asserts that the log has at most this many lines after its first `before` bytes.
fn is_no_flood(what: &str, daemon: &Daemon, before: usize, most: usize) {
    let said = daemon.log();
    let lines = said[before..].lines().filter(|line| !line.contains(" authorised")).count();
    assert!(lines <= most, "{what}: {lines} lines: {}", &said[before..]);
}

/// Returns the options that go with `Home::with_directories`.
fn with_state(home: &Home) -> [String; 2] {
    ["--state".to_owned(), home.at("states/state").display().to_string()]
}

/// Waits until an address is no longer in the map.
fn wait_until_unmapped(home: &Home, address: &str, daemon: &Daemon) {
    let gone = || home.map_value(address).is_none() && home.map_value("_pbs_generation_").is_some();
    eventually(&format!("{address} leaves the map: {}", daemon.log()), PATIENCE, gone);
}

/// Each row of the table names a test and a log text that is in that test's file.
#[test]
fn table_matches_the_tests() {
    let source = |file: &str| match file {
        "disk" => include_str!("disk.rs"),
        "files" => include_str!("files.rs"),
        "host" => include_str!("host.rs"),
        "log" => include_str!("../daemon/log.rs"),
        "postmap" => include_str!("postmap.rs"),
        "time" => include_str!("time.rs"),
        other => panic!("no file {other}"),
    };
    let mut named = std::collections::BTreeSet::new();
    for row in include_str!("README.md").lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, says, _, test] = cells[..] else { panic!("four cells: {row}") };
        let test = test.trim_matches('`');
        let (file, name) = test.split_once("::").expect("a file and a test");
        let source = source(file);
        assert!(source.contains(&format!("\nfn {name}()")), "{row}");
        assert!(says == "nothing" || source.contains(says.trim_matches('`')), "{row}");
        named.insert(test);
    }
    for file in ["disk", "files", "host", "postmap", "time"] {
        let tests = source(file).split("#[test]\nfn ").skip(1);
        for name in tests.filter_map(|text| text.split('(').next()) {
            let test = format!("{file}::{name}");
            let is_fault = test != "postmap::quick_changes_are_seen_by_postfix";
            assert!(!is_fault || named.contains(&*test), "{test} is not in the table");
        }
    }
}
