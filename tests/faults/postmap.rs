//! What happens to Postfix when the map changes quickly, and when postmap does what it should not:
//! the real smtpd answers as before, and the next attempt makes it right.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::{PATIENCE, eventually, within};
use crate::{A, B, log_in};

fn eventually_relays(home: &Home, daemon: &Daemon, client: &str, code: u16) {
    let right = within(PATIENCE, || home.postfix.relay(client) == code);
    assert!(right, "{client} does not get {code}: {}\n{}", daemon.said(), home.postfix.log());
}

fn map_status(daemon: &Daemon) -> Value {
    let output = daemon.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["map"].clone()
}

/// A stop and a start follow each other within a second, so that each map replaces one of nearly
/// the same age. smtpd sees every one of them, and never none.
#[test]
fn quick_changes_are_seen_by_postfix() {
    for map_type in ["hash", "lmdb", "cdb"] {
        let home = Home::with_map(map_type);
        let mut daemon = home.start(&[]);
        home.postfix.start();
        assert_eq!(home.postfix.relay(A), 554);
        log_in(&home, &daemon, A);
        eventually_relays(&home, &daemon, A, 250);
        for round in 0..5 {
            assert!(daemon.stop().success());
            assert_eq!(home.postfix.relay(A), 554, "{map_type}, stopped, round {round}");
            daemon = home.start(&[]);
            assert_eq!(home.postfix.relay(A), 250, "{map_type}, started, round {round}");
        }
        assert!(daemon.command(&["revoke", A]).status.success());
        eventually_relays(&home, &daemon, A, 554);
        assert!(!home.postfix.log().contains(": 451 "), "{}", home.postfix.log());
    }
}

/// While the file `broken` is there, postmap does this.
const FAULTS: &[(&str, &str, &str)] = &[
    ("fails", "echo 'postmap: fatal: no luck today' >&2; exit 1", "no luck today"),
    ("is killed at once", "kill -9 $$", "signal: 9"),
    (
        "is killed half-way",
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
        "builds the map of yesterday",
        "case $1$3 in -r*|-c-r) for word; do :; done; \
         echo '_pbs_generation_ DUNNO 0' > ${word#*:}; esac; real \"$@\"; exit",
        "not this generation's number",
    ),
    (
        "builds an empty map",
        "case $1$3 in -r*|-c-r) for word; do :; done; : > ${word#*:}; esac; real \"$@\"; exit",
        "_pbs_generation_ is not in it",
    ),
];

#[test]
fn whatever_postmap_does_postfix_answers_as_before() {
    let home = Home::new();
    let broken = home.at("broken");
    let play = |fault| {
        home.play_postmap(&format!("if [ -e $home/broken ]; then {fault}; fi\nreal \"$@\""));
    };
    play("exit 1");
    let daemon = home.start(&[]);
    home.postfix.start();
    log_in(&home, &daemon, A);
    eventually_relays(&home, &daemon, A, 250);
    for (row, (what, fault, says)) in FAULTS.iter().enumerate() {
        let client = format!("203.0.113.{row}");
        play(fault);
        fs::write(&broken, "").unwrap();
        let before = daemon.said().len();
        log_in(&home, &daemon, &client);
        let said = within(PATIENCE, || daemon.said()[before..].contains(says));
        assert!(said, "{what}: {}", &daemon.said()[before..]);
        assert_eq!(home.postfix.relay(A), 250, "{what}: the old map serves");
        assert_eq!(home.postfix.relay(&client), 554, "{what}: the new one does not");
        let status = map_status(&daemon);
        assert!(status["failures"].as_u64() >= Some(1), "{what}: {status}");
        assert_eq!(status["pending"], true, "{what}: {status}");
        let text = daemon.command(&["status"]).stdout;
        assert!(String::from_utf8_lossy(&text).contains("OUT OF DATE"), "{what}");

        fs::remove_file(&broken).unwrap();
        eventually_relays(&home, &daemon, &client, 250);
        eventually(what, PATIENCE, || map_status(&daemon)["failures"] == 0);
        assert_eq!(home.postfix.relay(A), 250, "{what}: repaired");
    }
    fs::remove_file(home.at("bin/postmap")).unwrap();
    log_in(&home, &daemon, "203.0.113.100");
    daemon.wait_until_said("could not be started");
    assert_eq!(home.postfix.relay(A), 250, "postmap has gone");
    play("exit 1");
    eventually_relays(&home, &daemon, "203.0.113.100", 250);
    // The source follows the compiled map by a moment.
    eventually("nothing is left of the building", PATIENCE, || {
        let files = fs::read_dir(home.at(".")).unwrap();
        !files.map(|e| e.unwrap().file_name()).any(|name| name.to_string_lossy().contains(".new"))
    });
    assert!(!home.postfix.log().contains("error"), "{}", home.postfix.log());
    assert!(daemon.stop().success());
}

/// A postmap that takes its time holds up nobody else, and loses nothing that came meanwhile.
#[test]
fn a_slow_postmap_is_waited_for() {
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
    assert!(!daemon.said().contains("was not published"), "{}", daemon.said());
    fs::remove_file(home.at("slow")).unwrap();
    assert!(daemon.stop().success());
}

/// A postmap that hangs holds up the map and nothing else.
#[test]
fn a_postmap_that_hangs_holds_up_nothing_else() {
    let home = Home::new();
    home.put_gate_before_postmap();
    let mut daemon = home.start(&[]);
    home.postfix.start();
    log_in(&home, &daemon, A);
    eventually_relays(&home, &daemon, A, 250);
    home.hang_postmap();
    log_in(&home, &daemon, "203.0.113.1");
    home.wait_until_hanging();
    // Logins, operators and signals are heard all the while, and are written down.
    log_in(&home, &daemon, "203.0.113.2");
    assert!(daemon.command(&["revoke", A]).status.success());
    let state = || fs::read_to_string(home.at("state")).unwrap();
    eventually("the state is written", PATIENCE, || state().contains(&format!("gone\t{A}\t.")));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_said("configuration reloaded");
    assert_eq!(home.postfix.relay(A), 250, "the old map serves");
    assert_eq!(home.postfix.relay("203.0.113.2"), 554);
    home.release_postmap();
    eventually_relays(&home, &daemon, "203.0.113.2", 250);
    eventually_relays(&home, &daemon, A, 554);
    assert!(daemon.stop().success());
}

/// Who may relay at the end, and nobody to take him out: an empty map is laid up for that.
#[test]
fn an_end_without_postmap_empties_the_map_or_is_told() {
    for laid_up in [true, false] {
        let home = Home::new();
        home.play_postmap("[ ! -e $home/broken ] || exit 1\nreal \"$@\"");
        let mut daemon = home.start(&[]);
        log_in(&home, &daemon, A);
        home.wait_until_mapped(A, &daemon);
        fs::write(home.at("broken"), "").unwrap();
        if !laid_up {
            fs::remove_file(home.at("clients.empty.lmdb")).unwrap();
        }
        daemon.signal(Signal::SIGTERM);
        let status = daemon.wait().code();
        if laid_up {
            assert_eq!(status, Some(0), "{}", daemon.said());
            assert_eq!(home.map_says(A), None);
            assert!(home.map_says("_pbs_generation_").is_some(), "an empty map is a map");
        } else {
            assert_eq!(status, Some(74), "{}", daemon.said());
            assert_eq!(home.map_says(A).as_deref(), Some("OK"));
            daemon.wait_until_said("can relay until it is removed");
            daemon.wait_until_said("hint: ");
        }
        assert!(home.sockets().is_empty());
        assert!(fs::read_to_string(home.at("state")).unwrap().contains(A));
    }
}

/// Nobody waits for a postmap that hangs at the end.
#[test]
fn an_end_with_a_postmap_that_hangs_empties_the_map() {
    let home = Home::new();
    home.put_gate_before_postmap();
    let mut daemon = home.start(&[]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.hang_postmap();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_until_said("map emptied");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.said());
    assert_eq!(home.map_says(A), None);
    assert!(home.map_says("_pbs_generation_").is_some(), "an empty map is a map");
}

/// A fault never prolongs a right: a map that nobody can build is emptied after a minute, also
/// while a postmap hangs.
#[test]
fn nobody_stands_for_long_in_a_map_that_cannot_be_built() {
    let fails = Home::new();
    fails.play_postmap("[ ! -e $home/broken ] || exit 1\nreal \"$@\"");
    let hangs = Home::new();
    hangs.put_gate_before_postmap();
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
        eventually("his time is up", PATIENCE, || !daemon.query(A));
    }
    let late = Instant::now();
    for (home, daemon) in [(&fails, &failing), (&hangs, &hanging)] {
        let told = || status(daemon).contains("expired clients still listed, will be emptied");
        eventually("it is told", PATIENCE, told);
        let revoked = daemon.command(&["revoke", A]);
        let said = String::from_utf8_lossy(&revoked.stderr);
        assert!(revoked.status.success() && said.contains("another minute"), "{said}");
        assert_eq!(home.map_says(A).as_deref(), Some("OK"), "{}", daemon.said());
    }
    for (home, daemon) in [(&fails, &failing), (&hangs, &hanging)] {
        let emptied = || home.map_says(A).is_none();
        eventually("the map is emptied", Duration::from_secs(60) + PATIENCE, emptied);
        daemon.wait_until_said("map emptied");
        assert!(late.elapsed() > Duration::from_secs(50), "a minute is borne");
        assert!(home.map_says("_pbs_generation_").is_some(), "an empty map is a map");
        assert!(status(daemon).contains("OUT OF DATE (map emptied)"), "{}", status(daemon));
    }
    failing.signal(Signal::SIGTERM);
    assert_eq!(failing.wait().code(), Some(0));

    // Whoever has mended it need not wait for the next attempt.
    hangs.release_postmap();
    log_in(&hangs, &hanging, B);
    let mut hanging = hanging;
    hanging.signal(Signal::SIGHUP);
    hanging.wait_until_said("map published after failures");
    hangs.wait_until_mapped(B, &hanging);
    let laid_up = || hangs.at("clients.empty.lmdb").exists();
    eventually("another empty map is laid up", PATIENCE, laid_up);
    assert!(hanging.stop().success());
}
