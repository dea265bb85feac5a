//! Clocks that jump, hosts that reboot, processes that are stopped.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::PATIENCE;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::home::Home;
use crate::support::story::login_frame;
use crate::{A, B, log_in, wait_until_logged_after, wait_until_unmapped};

/// Where tests/all unpacks libfaketime.
const FAKETIME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/faketime");

/// Starts a daemon whose wall clock is shifted as the file `clock` says, such as `-1d`; other
/// clocks are real.
fn start_with_clock(home: &Home, options: &[&str]) -> Daemon {
    let library = fs::read_dir(Path::new(FAKETIME).join("usr/lib"))
        .expect("tests/all unpacks libfaketime")
        .map(|entry| entry.expect("an entry").path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("the library");
    let clock = home.at("clock");
    home.start_prepared(options, move |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    })
}

fn expires_in(daemon: &Daemon) -> u64 {
    daemon.list()[0]["expires_in"].as_u64().expect("a number")
}

/// The wall clock is read at start only: a jump neither ends a grant nor prolongs it.
#[test]
fn clock_jump_changes_no_grant() {
    for jump in ["+1d", "-1d"] {
        let home = Home::new();
        fs::write(home.at("clock"), "+0").unwrap();
        let mut daemon = start_with_clock(&home, &["--grace", "10s"]);
        log_in(&home, &daemon, A);
        let end = Instant::now() + Duration::from_secs(10);
        home.wait_until_mapped(A, &daemon);
        fs::write(home.at("clock"), jump).unwrap();
        // The log's timestamps show that the clock has jumped.
        daemon.signal(Signal::SIGHUP);
        daemon.wait_until_logged("configuration reloaded");
        let stamps = |said: String| {
            let days = said.lines().map(|line| line[..10].to_owned());
            days.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!(stamps(daemon.log()) > 1, "{jump}: it has not jumped: {}", daemon.log());
        assert!(daemon.query(A), "{jump}: the grant has expired: {}", daemon.log());
        assert!(expires_in(&daemon) <= 10, "{jump}: {:?}", daemon.list());
        wait_until_unmapped(&home, A, &daemon);
        let late = Instant::now().saturating_duration_since(end);
        assert!(late < PATIENCE, "{jump}: {late:?} after its end");
        assert!(!daemon.query(A), "{jump}");
        log_in(&home, &daemon, B);
        assert!((1..=10).contains(&expires_in(&daemon)), "{jump}: {:?}", daemon.list());
        assert!(daemon.stop().success());
    }
}

/// The clock has jumped at the next start: forwards, grants have expired; backwards, they last for
/// one grace period at most.
#[test]
fn clock_jump_while_down_prolongs_no_grant_beyond_the_grace_period() {
    for (jump, lasts) in [("+1d", false), ("-1d", true)] {
        let home = Home::new();
        fs::write(home.at("clock"), "+0").unwrap();
        let mut daemon = start_with_clock(&home, &["--grace", "60s"]);
        assert!(daemon.command(&["allow", B, "--for", "3s"]).status.success());
        eventually("the grant expires", PATIENCE, || !daemon.query(B));
        log_in(&home, &daemon, A);
        home.wait_until_mapped(A, &daemon);
        home.wait_until_saved(A, &daemon);
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        fs::write(home.at("clock"), jump).unwrap();
        let daemon = start_with_clock(&home, &["--grace", "60s"]);
        assert_eq!(daemon.query(A), lasts, "{jump}: {}", daemon.log());
        assert_eq!(home.map_value(A).is_some(), lasts, "{jump}: {}", daemon.log());
        assert!(!daemon.query(B), "{jump}: it had expired: {}", daemon.log());
        assert!(!lasts || expires_in(&daemon) <= 60, "{jump}: {:?}", daemon.list());
        assert!(daemon.stop().success());
    }
}

/// After a reboot the monotonic clock starts from another value.
#[test]
fn reboot_changes_no_grant() {
    let home = Home::new();
    let start = |boot_time: &str| {
        home.start_prepared(&["--grace", "60s"], |command| {
            let mut inner = Command::new("unshare");
            inner.args(["--time", "--boottime", boot_time]);
            inner.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => inner.env(name, value),
                    None => inner.env_remove(name),
                };
            }
            inner.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            *command = inner;
        })
    };
    let mut daemon = start("8000000");
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let before = expires_in(&daemon);
    home.wait_until_saved(A, &daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    // Later, and earlier.
    for boot_time in ["9000000", "0"] {
        let mut daemon = start(boot_time);
        assert!(daemon.query(A), "{boot_time}: {}", daemon.log());
        assert!((before - 20..=before).contains(&expires_in(&daemon)), "{:?}", daemon.list());
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
    }
}

/// A stopped process later processes what arrived meanwhile, and knows that time has passed.
#[test]
fn time_passes_while_halted() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    assert!(daemon.command(&["allow", A, "--for", "4s"]).status.success());
    home.wait_until_mapped(A, &daemon);
    daemon.halt();
    home.wire.send(login_frame(B).as_bytes());
    std::thread::sleep(Duration::from_millis(4500));
    let before = daemon.log().len();
    daemon.signal(Signal::SIGCONT);
    assert!(!daemon.query(A), "it has expired: {}", daemon.log());
    daemon.wait_until_authorised(B);
    wait_until_logged_after(&daemon, before, &format!("authorised address={B}"));
    wait_until_unmapped(&home, A, &daemon);
    home.wait_until_mapped(B, &daemon);
    assert!(daemon.stop().success());
}
