//! No space, and no permission to write.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use nix::unistd::User;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::small_disk::SmallDisk;
use crate::support::stalling_disk::StallingDisk;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually};
use crate::{
    A, B, is_no_flood, log_in, many_log_in, survives_a_kill, wait_until_logged_after,
    wait_until_unmapped, with_state,
};

/// What a fault acts on.
struct Place {
    home: Home,
    maps: SmallDisk,
    states: SmallDisk,
    over: Option<SmallDisk>,
}

/// One fault.
struct Row {
    what: &'static str,
    map_type: &'static str,
    fault: fn(&mut Place, &Daemon),
    fix: fn(&mut Place),
    /// Number of other clients in the map before the fault: each generation has them.
    known: u32,
    /// Number of other clients that log in during the fault.
    others: u32,
    says: &'static str,
}

const STATE: &[Row] = &[
    Row {
        what: "no room to append to the state file",
        map_type: "hash",
        fault: |place, _| place.states.fill(0),
        fix: |place| place.states.clear(),
        // More than fits into the last page of the file.
        known: 0,
        others: 100,
        says: "No space left",
    },
    Row {
        what: "no room to rewrite the state file",
        map_type: "lmdb",
        // Notes make the file grow until it is rewritten.
        fault: |place, daemon| {
            let note = "x".repeat(3500);
            let length = || fs::metadata(place.home.at("states/state")).unwrap().len();
            // Twice its size at the start, and 64 KiB.
            while length() < (64 << 10) + 500 {
                let before = length();
                let words = ["allow", "198.51.100.99", "--note", &note];
                assert!(daemon.command(&words).status.success());
                // `revoke` waits for the file.
                assert!(
                    daemon.command(&["revoke", "198.51.100.98", "--block", "1s"]).status.success()
                );
                eventually("the note is saved", PATIENCE, || length() > before);
            }
            place.states.fill(0);
        },
        fix: |place| place.states.clear(),
        known: 0,
        others: 0,
        says: "state.tmp: No space left",
    },
    Row {
        what: "the state file's directory is read-only",
        map_type: "hash",
        fault: |place, _| {
            let over = SmallDisk::mount(place.home.at("states"));
            over.forbid_writing();
            place.over = Some(over);
        },
        fix: |place| place.over = None,
        known: 0,
        others: 0,
        says: "Read-only file system",
    },
];

const MAP: &[Row] = &[
    Row {
        what: "both disks are full",
        map_type: "hash",
        fault: |place, _| {
            place.states.fill(0);
            place.maps.fill(0);
        },
        fix: |place| {
            place.states.clear();
            place.maps.clear();
        },
        known: 0,
        others: 100,
        says: "No space left",
    },
    Row {
        what: "no room for the map's source",
        map_type: "hash",
        fault: |place, _| place.maps.fill(0),
        fix: |place| place.maps.clear(),
        known: 0,
        others: 0,
        says: "cannot write its source",
    },
    Row {
        what: "no room for a hash map",
        map_type: "hash",
        fault: |place, _| place.maps.fill(100),
        fix: |place| place.maps.clear(),
        known: 4000,
        others: 0,
        says: "postmap failed",
    },
    Row {
        what: "no room for a cdb map",
        map_type: "cdb",
        fault: |place, _| place.maps.fill(100),
        fix: |place| place.maps.clear(),
        known: 4000,
        others: 0,
        says: "postmap failed",
    },
    Row {
        what: "no room for an lmdb map, which postmap does not report",
        map_type: "lmdb",
        fault: |place, _| place.maps.fill(100),
        fix: |place| place.maps.clear(),
        known: 4000,
        others: 0,
        says: "is the disk full?",
    },
    Row {
        what: "the map's directory is read-only",
        map_type: "hash",
        fault: |place, _| place.over = Some(SmallDisk::read_only_view(place.home.at("maps"))),
        fix: |place| place.over = None,
        known: 0,
        others: 0,
        says: "Read-only file system",
    },
];

#[test]
fn unwritable_state_delays_nothing() {
    for row in STATE {
        test_row(row, true);
    }
}

#[test]
fn unwritable_map_loses_no_login() {
    for row in MAP {
        test_row(row, false);
    }
}

/// `mapped` is whether clients that log in during the fault get into the map.
fn test_row(row: &Row, mapped: bool) {
    let what = row.what;
    let home = Home::with_directories(row.map_type);
    let (maps, states) = (SmallDisk::mount(home.at("maps")), SmallDisk::mount(home.at("states")));
    let mut place = Place { home, maps, states, over: None };
    let options = with_state(&place.home);
    // Without a line for each login all of them are in one generation: parts in several fill the disk
    // otherwise.
    let options = [&*options[0], &*options[1], "--log-level", "warn"];
    let daemon = place.home.start(&options);
    many_log_in(&place.home, row.known);
    log_in(&place.home, &daemon, A);
    place.home.wait_until_mapped(A, &daemon);
    place.home.wait_until_saved(A, &daemon);
    let before = daemon.log().len();
    (row.fault)(&mut place, &daemon);
    many_log_in(&place.home, row.others);
    place.home.wire.send(login_frame(B).as_bytes());
    wait_until_logged_after(&daemon, before, row.says);
    daemon.wait_until_authorised(B);
    if mapped {
        place.home.wait_until_mapped(B, &daemon);
    }
    // Time for more than one generation.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(daemon.query(A), "{what}");
    let status = daemon.command(&["status"]).stdout;
    let status = String::from_utf8_lossy(&status);
    assert_eq!(status.contains("NOT SAVED"), mapped || what.contains("both"), "{what}: {status}");
    assert_eq!(place.home.map_value(A).as_deref(), Some("OK"), "{what}: {}", daemon.log());
    assert_eq!(place.home.map_value(B).is_some(), mapped, "{what}: {}", daemon.log());
    is_no_flood(what, &daemon, before, 40);

    (row.fix)(&mut place);
    place.home.wait_until_mapped(B, &daemon);
    survives_a_kill(&place.home, daemon, &options, &[A, B]);
}

/// Clients without a grant leave the map, although the state file cannot be written.
#[test]
fn full_state_disk_prolongs_no_grant() {
    let home = Home::with_directories("hash");
    let states = SmallDisk::mount(home.at("states"));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1], "--grace", "10s"];
    let daemon = home.start(&options);
    assert!(daemon.command(&["allow", A, "--for", "1h"]).status.success());
    log_in(&home, &daemon, "198.51.100.9");
    home.wait_until_mapped("198.51.100.9", &daemon);
    home.wait_until_mapped(A, &daemon);
    states.fill(0);
    many_log_in(&home, 100);
    daemon.wait_until_logged("No space left");
    let begun = Instant::now();
    let revoked = daemon.command(&["revoke", A]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(revoked.status.success());
    let said = String::from_utf8_lossy(&revoked.stderr);
    assert!(said.contains("not saved to disk yet"), "{said}");
    assert!(!daemon.query(A), "the grant is removed anyway");
    assert!(daemon.command(&["allow", B]).status.success());
    assert!(daemon.query(B), "{}", daemon.log());
    for address in [A, "198.51.100.9"] {
        wait_until_unmapped(&home, address, &daemon);
    }
    states.clear();
    daemon.wait_until_logged("state saved again");
    assert!(daemon.stop().success());
    let daemon = home.start(&options);
    assert!(!daemon.query(A), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// A crash on a full disk loses no grant of the state file.
#[test]
fn start_on_a_full_disk_keeps_saved_grants() {
    let home = Home::with_directories("hash");
    let states = SmallDisk::mount(home.at("states"));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    // Otherwise the file need not be written at the start.
    let mut file = File::options().append(true).open(home.at("states/state")).expect("the file");
    file.write_all(b"torn").expect("appended");
    states.fill(0);
    let daemon = home.start(&options);
    daemon.wait_until_logged("state not saved");
    assert!(daemon.query(A), "{}", daemon.log());
    assert_eq!(home.map_value(A).as_deref(), Some("OK"));
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);
    states.clear();
    daemon.wait_until_logged("state saved again");
    survives_a_kill(&home, daemon, &options, &[A, B]);
}

/// Runs as an ordinary user, so that permission bits apply.
#[test]
fn unwritable_directories_are_retried() {
    let home = Home::with_directories("hash");
    let nobody = User::from_name("nobody").ok().flatten().expect("there is a user nobody");
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    for name in [".", "maps", "states"] {
        chown(home.at(name), Some(user), Some(group)).expect("owner changed");
    }
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let daemon = home.start_as((user, group), &options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let mode = |name: &str, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(home.at(name), mode).expect("the mode");
    };
    for name in ["maps", "states"] {
        mode(name, 0o555);
    }
    let before = daemon.log().len();
    home.wire.send(login_frame(B).as_bytes());
    wait_until_logged_after(&daemon, before, "Permission denied");
    // The state file is open, and still written.
    home.wait_until_saved(B, &daemon);
    assert_eq!(home.map_value(A).as_deref(), Some("OK"));
    assert_eq!(home.map_value(B), None);
    for name in ["maps", "states"] {
        mode(name, 0o755);
    }
    home.wait_until_mapped(B, &daemon);
    eventually("the daemon answers", PATIENCE, || daemon.command(&["status"]).status.success());
    assert!(daemon.stop().success());
}

/// While the disk stalls logins count, the map is updated, and queries and commands are answered. A
/// revoked grant is removed, and `revoke` warns that it is not on the disk yet.
#[test]
fn a_disk_that_stalls_delays_nobody() {
    let home = Home::with_directories("hash");
    let disk = StallingDisk::mount(home.at("states"));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    let before = daemon.log().len();
    disk.stall();
    many_log_in(&home, 2000);
    home.wire.send(login_frame(B).as_bytes());
    wait_until_logged_after(&daemon, before, &format!("authorised address={B}"));
    let status = || String::from_utf8(daemon.command(&["status"]).stdout).expect("text");
    assert_eq!(daemon.authorised().len(), 2002, "{}", daemon.log());
    home.wait_until_mapped(B, &daemon);
    eventually("it is reported", PATIENCE, || status().contains("the disk does not answer"));
    wait_until_logged_after(&daemon, before, "the disk does not answer");
    let revoked = daemon.command(&["revoke", "198.18.0.1"]);
    assert!(revoked.status.success());
    let said = String::from_utf8_lossy(&revoked.stderr);
    assert!(said.contains("not saved to disk yet"), "{said}");
    assert!(!daemon.query("198.18.0.1"), "the grant is removed anyway");
    wait_until_unmapped(&home, "198.18.0.1", &daemon);
    is_no_flood("a disk that stalls", &daemon, before, 10);

    disk.resume();
    wait_until_logged_after(&daemon, before, "state saved again");
    assert!(!status().contains("NOT SAVED"), "{}", status());
    // Returns as soon as the disk has it, and not before.
    let begun = Instant::now();
    let revoked = daemon.command(&["revoke", "198.18.0.3"]);
    assert!(revoked.stderr.is_empty() && begun.elapsed() < Duration::from_secs(5), "{revoked:?}");
    survives_a_kill(&home, daemon, &options, &[A, B, "198.18.0.2", "198.18.7.208"]);
    let daemon = home.start(&options);
    assert!(!daemon.query("198.18.0.1") && !daemon.query("198.18.0.3"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// Grants that are added and evicted while the disk stalls do not return.
#[test]
fn evicted_grants_do_not_return_after_a_stall() {
    let home = Home::with_directories("hash");
    let disk = StallingDisk::mount(home.at("states"));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1], "--max-clients", "10"];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    disk.stall();
    many_log_in(&home, 5000);
    log_in(&home, &daemon, B);
    assert!(!daemon.query(A), "evicted");
    disk.resume();
    home.wait_until_saved(B, &daemon);
    let lines = || fs::read_to_string(home.at("states/state")).unwrap().lines().count();
    eventually("the file is rewritten", PATIENCE, || lines() < 20);
    let all = daemon.authorised();
    assert_eq!(all.len(), 10);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    let daemon = home.start(&options);
    assert_eq!(daemon.authorised(), all);
    assert!(daemon.stop().success());
}

/// A disk that stalls forever does not keep the daemon from shutting down.
#[test]
fn shutdown_does_not_wait_for_a_stalled_disk() {
    let home = Home::with_directories("hash");
    let disk = StallingDisk::mount(home.at("states"));
    let options = with_state(&home);
    let mut daemon = home.start(&[&options[0], &options[1]]);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    disk.stall();
    log_in(&home, &daemon, B);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let reported = || daemon.log().contains("the state could not be saved");
    eventually("it gives up", Duration::from_secs(20) + PATIENCE, reported);
    assert_eq!(home.map_value(A), None, "the map is empty");
    assert!(home.map_value("_pbs_generation_").is_some(), "the empty map is valid");
    eventually("its sockets are gone", PATIENCE, || home.sockets().is_empty());
    // It may still write once the disk continues: no other daemon may before that.
    let mut second = home.spawn(&[&options[0], &options[1]]);
    assert_eq!(second.wait().code(), Some(74), "{}", second.log());
    second.wait_until_logged("in use by process");
    disk.resume();
    assert_eq!(daemon.wait().code(), Some(74), "{}", daemon.log());
    let daemon = home.start(&[&options[0], &options[1]]);
    assert!(daemon.query(A), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// Nor from stopping before it is ready.
#[test]
fn start_on_a_stalled_disk_can_be_stopped() {
    let home = Home::with_directories("hash");
    let disk = StallingDisk::mount(home.at("states"));
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    disk.stall();
    let mut daemon = home.spawn(&options);
    daemon.wait_until_blocked_by_disk();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait_until_logged("stopped before it was ready");
    disk.resume();
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    let daemon = home.start(&options);
    assert!(daemon.query(A), "{}", daemon.log());
    assert!(daemon.stop().success());
}
