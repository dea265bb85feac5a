//! A map that changes quickly, and a faulty postmap: the real smtpd replies as before, and the next
//! attempt succeeds.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::{PATIENCE, eventually, within};
use crate::{A, B, log_in};

fn wait_for_reply(home: &Home, daemon: &Daemon, client: &str, code: u16) {
    let as_expected = within(PATIENCE, || home.postfix.relay(client) == code);
    assert!(as_expected, "{client} does not get {code}: {}\n{}", daemon.log(), home.postfix.log());
}

fn map_status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["map"].clone()
}

/// The daemon stops and starts within a second, so that each map replaces one of nearly the same
/// age. smtpd sees each of them, and never a missing one.
#[test]
fn quick_changes_are_seen_by_postfix() {
    for map_type in ["hash", "lmdb", "cdb"] {
        let home = Home::with_map(map_type);
        let mut daemon = home.start(&[]);
        home.postfix.start();
        assert_eq!(home.postfix.relay(A), 554);
        log_in(&home, &daemon, A);
        wait_for_reply(&home, &daemon, A, 250);
        for round in 0..5 {
            assert!(daemon.stop().success());
            assert_eq!(home.postfix.relay(A), 554, "{map_type}, stopped, round {round}");
            daemon = home.start(&[]);
            assert_eq!(home.postfix.relay(A), 250, "{map_type}, started, round {round}");
        }
        assert!(daemon.command(&["revoke", A]).status.success());
        wait_for_reply(&home, &daemon, A, 554);
        assert!(!home.postfix.log().contains(": 451 "), "{}", home.postfix.log());
    }
}

/// What postmap does while the file `broken` exists.
const FAULTS: &[(&str, &str, &str)] = &[
    ("fails", "echo 'postmap: fatal: no luck today' >&2; exit 1", "no luck today"),
    ("is killed at once", "kill -9 $$", "signal: 9"),
    (
        "is killed halfway",
        "for word; do :; done; head -c 5000 /dev/urandom > ${word#*:}.lmdb; kill -9 $$",
        "signal: 9",
    ),
    (
        "prints nonsense and does nothing",
        "echo nonsense; echo more >&2; exit 0",
        "was not published",
    ),
    (
        "floods its stderr",
        "yes complaint | head -c 20000000 >&2; exit 1",
        "status: 1: complaint ...",
    ),
    (
        "builds an old map",
        "case $1$3 in -r*|-c-r) for word; do :; done; \
         echo '_pbs_generation_ DUNNO 0' > ${word#*:}; esac; real \"$@\"; exit",
        "_pbs_generation_ is",
    ),
    (
        "builds an empty map",
        "case $1$3 in -r*|-c-r) for word; do :; done; : > ${word#*:}; esac; real \"$@\"; exit",
        "it lacks the entry _pbs_generation_",
    ),
];

#[test]
fn faulty_postmap_changes_no_reply() {
    let home = Home::new();
    let broken = home.at("broken");
    let break_with = |fault| {
        home.play_postmap(&format!("if [ -e $home/broken ]; then {fault}; fi\nreal \"$@\""));
    };
    break_with("exit 1");
    let daemon = home.start(&[]);
    home.postfix.start();
    log_in(&home, &daemon, A);
    wait_for_reply(&home, &daemon, A, 250);
    for (row, (what, fault, says)) in FAULTS.iter().enumerate() {
        let client = format!("203.0.113.{row}");
        break_with(fault);
        fs::write(&broken, "").unwrap();
        let before = daemon.log().len();
        log_in(&home, &daemon, &client);
        let logged = within(PATIENCE, || daemon.log()[before..].contains(says));
        assert!(logged, "{what}: {}", &daemon.log()[before..]);
        assert_eq!(home.postfix.relay(A), 250, "{what}: the old map stays in use");
        assert_eq!(home.postfix.relay(&client), 554, "{what}: the new one is not used");
        let status = map_status(&daemon);
        assert!(status["failures"].as_u64() >= Some(1), "{what}: {status}");
        assert_eq!(status["pending"], true, "{what}: {status}");
        let text = daemon.command(&["status"]).stdout;
        assert!(String::from_utf8_lossy(&text).contains("OUT OF DATE"), "{what}");

        fs::remove_file(&broken).unwrap();
        wait_for_reply(&home, &daemon, &client, 250);
        eventually(what, PATIENCE, || map_status(&daemon)["failures"] == 0);
        assert_eq!(home.postfix.relay(A), 250, "{what}: repaired");
    }
    fs::remove_file(home.at("bin/postmap")).unwrap();
    log_in(&home, &daemon, "203.0.113.100");
    daemon.wait_until_logged("could not be started");
    assert_eq!(home.postfix.relay(A), 250, "postmap is missing");
    break_with("exit 1");
    wait_for_reply(&home, &daemon, "203.0.113.100", 250);
    // The source is replaced a moment after the compiled map.
    eventually("no temporary file is left", PATIENCE, || {
        let files = fs::read_dir(home.at(".")).unwrap();
        !files.map(|e| e.unwrap().file_name()).any(|name| name.to_string_lossy().contains(".new"))
    });
    assert!(!home.postfix.log().contains("error"), "{}", home.postfix.log());
    assert!(daemon.stop().success());
}

/// A slow postmap delays nothing but the map, and no login that arrives meanwhile is lost.
#[test]
fn slow_postmap_delays_only_the_map() {
    let home = Home::new();
    home.play_postmap("[ ! -e $home/slow ] || sleep 3\nreal \"$@\"");
    let daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    fs::write(home.at("slow"), "").unwrap();
    let begun = Instant::now();
    for client in 1..=20 {
        log_in(&home, &daemon, &format!("203.0.113.{client}"));
    }
    // Twenty generations would take a minute.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(daemon.command(&["revoke", A]).status.success());
    home.wait_until_mapped("203.0.113.20", &daemon);
    crate::wait_until_unmapped(&home, A, &daemon);
    assert!(!daemon.log().contains("was not published"), "{}", daemon.log());
    fs::remove_file(home.at("slow")).unwrap();
    assert!(daemon.stop().success());
}

/// A hanging postmap delays the map and nothing else.
#[test]
fn hanging_postmap_delays_only_the_map() {
    let home = Home::new();
    home.make_postmap_blockable();
    let mut daemon = home.start(&[]);
    home.postfix.start();
    log_in(&home, &daemon, A);
    wait_for_reply(&home, &daemon, A, 250);
    home.hang_postmap();
    log_in(&home, &daemon, "203.0.113.1");
    home.wait_until_hanging();
    // Logins, commands and signals are processed meanwhile, and saved.
    log_in(&home, &daemon, "203.0.113.2");
    assert!(daemon.command(&["revoke", A]).status.success());
    let state = || fs::read_to_string(home.at("state")).unwrap();
    eventually("the state is written", PATIENCE, || state().contains(&format!("gone\t{A}\t.")));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_logged("configuration reloaded");
    assert_eq!(home.postfix.relay(A), 250, "the old map stays in use");
    assert_eq!(home.postfix.relay("203.0.113.2"), 554);
    home.release_postmap();
    wait_for_reply(&home, &daemon, "203.0.113.2", 250);
    wait_for_reply(&home, &daemon, A, 554);
    assert!(daemon.stop().success());
}

/// At shutdown a client is still in the map, and postmap fails: that is what the fallback map is
/// for.
#[test]
fn shutdown_without_postmap_empties_the_map_or_fails() {
    for has_fallback in [true, false] {
        let home = Home::new();
        home.play_postmap("[ ! -e $home/broken ] || exit 1\nreal \"$@\"");
        let mut daemon = home.start(&[]);
        log_in(&home, &daemon, A);
        home.wait_until_mapped(A, &daemon);
        fs::write(home.at("broken"), "").unwrap();
        if !has_fallback {
            fs::remove_file(home.at("clients.empty.lmdb")).unwrap();
        }
        daemon.signal(Signal::SIGTERM);
        let status = daemon.wait().code();
        if has_fallback {
            assert_eq!(status, Some(0), "{}", daemon.log());
            assert_eq!(home.map_value(A), None);
            assert!(home.map_value("_pbs_generation_").is_some(), "the empty map is valid");
        } else {
            assert_eq!(status, Some(74), "{}", daemon.log());
            assert_eq!(home.map_value(A).as_deref(), Some("OK"));
            daemon.wait_until_logged("can relay until it is removed");
            daemon.wait_until_logged("hint: ");
        }
        assert!(home.sockets().is_empty());
        assert!(fs::read_to_string(home.at("state")).unwrap().contains(A));
    }
}

/// Shutdown does not wait for a hanging postmap.
#[test]
fn shutdown_with_a_hanging_postmap_empties_the_map() {
    let home = Home::new();
    home.make_postmap_blockable();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.hang_postmap();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_until_logged("map emptied");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert_eq!(home.map_value(A), None);
    assert!(home.map_value("_pbs_generation_").is_some(), "the empty map is valid");
}

/// A fault never prolongs a grant: a map that cannot be built is emptied after a minute, also while
/// postmap hangs.
#[test]
fn unbuildable_map_is_emptied() {
    let fails = Home::new();
    fails.play_postmap("[ ! -e $home/broken ] || exit 1\nreal \"$@\"");
    let hangs = Home::new();
    hangs.make_postmap_blockable();
    let [mut failing, hanging] = [&fails, &hangs].map(|home| {
        let daemon = home.start(&["--grace", "6s"]);
        log_in(home, &daemon, A);
        home.wait_until_mapped(A, &daemon);
        daemon
    });
    fs::write(fails.at("broken"), "").unwrap();
    hangs.hang_postmap();
    let status =
        |daemon: &Daemon| String::from_utf8_lossy(&daemon.command(&["status"]).stdout).into_owned();
    for daemon in [&failing, &hanging] {
        eventually("the grant expires", PATIENCE, || !daemon.query(A));
    }
    let late = Instant::now();
    for (home, daemon) in [(&fails, &failing), (&hangs, &hanging)] {
        let reported = || status(daemon).contains("expired clients still listed, will be emptied");
        eventually("it is reported", PATIENCE, reported);
        let revoked = daemon.command(&["revoke", A]);
        let said = String::from_utf8_lossy(&revoked.stderr);
        assert!(revoked.status.success() && said.contains("another minute"), "{said}");
        assert_eq!(home.map_value(A).as_deref(), Some("OK"), "{}", daemon.log());
    }
    for (home, daemon) in [(&fails, &failing), (&hangs, &hanging)] {
        let emptied = || home.map_value(A).is_none();
        eventually("the map is emptied", Duration::from_secs(60) + PATIENCE, emptied);
        daemon.wait_until_logged("map emptied");
        assert!(late.elapsed() > Duration::from_secs(50), "not before a minute");
        assert!(home.map_value("_pbs_generation_").is_some(), "the empty map is valid");
        assert!(status(daemon).contains("OUT OF DATE (map emptied)"), "{}", status(daemon));
        let why = daemon.affects_mail().expect("nobody can relay");
        assert!(why.contains("could not be published for") && why.contains("map emptied"), "{why}");
    }
    failing.signal(Signal::SIGTERM);
    assert_eq!(failing.wait().code(), Some(0));

    // After a repair SIGHUP retries at once.
    hangs.release_postmap();
    log_in(&hangs, &hanging, B);
    let mut hanging = hanging;
    hanging.signal(Signal::SIGHUP);
    hanging.wait_until_logged("map published after failures");
    hangs.wait_until_mapped(B, &hanging);
    assert_eq!(hanging.affects_mail(), None);
    let prepared = || hangs.at("clients.empty.lmdb").exists();
    eventually("another fallback map is prepared", PATIENCE, prepared);
    assert!(hanging.stop().success());
}
