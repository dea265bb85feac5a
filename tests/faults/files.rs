//! Other programs change the files of the map and of the state: detected, reported and repaired.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually};
use crate::{
    A, B, is_no_flood, log_in, survives_a_kill, wait_until_logged_after, wait_until_unmapped,
    with_state,
};

/// An address that gets a grant only by a forged file.
const FORGED: &str = "203.0.113.66";

/// One fault, and what makes the daemon check its files. It does so at least once a minute anyway.
struct Row {
    what: &'static str,
    fault: fn(&Home),
    trigger: fn(&Home, &mut Daemon),
    /// Run after the daemon has reported the fault.
    fix: fn(&Home),
    says: &'static str,
}

fn reload(_: &Home, daemon: &mut Daemon) {
    daemon.signal(Signal::SIGHUP);
}

/// Changes the first deadline, which wakes the publisher.
fn renew(home: &Home, daemon: &mut Daemon) {
    log_in(home, daemon, A);
}

fn new_client(home: &Home, _: &mut Daemon) {
    home.wire.send(login_frame(B).as_bytes());
}

/// Removes a directory; retries if the daemon was just writing to it.
fn remove_directory(home: &Home, name: &str) {
    let removed = || fs::remove_dir_all(home.at(name)).is_ok();
    eventually("a directory is removed", PATIENCE, removed);
}

fn nothing(_: &Home) {}

const CHANGED: &str = "removed or changed a file of the map";

const ROWS: &[Row] = &[
    Row {
        what: "the map is deleted",
        fault: |home| fs::remove_file(home.at("maps/clients.db")).unwrap(),
        trigger: renew,
        fix: nothing,
        says: CHANGED,
    },
    Row {
        what: "the map is deleted, and SIGHUP follows",
        fault: |home| fs::remove_file(home.at("maps/clients.db")).unwrap(),
        trigger: reload,
        fix: nothing,
        says: "configuration reloaded",
    },
    Row {
        what: "the source is deleted",
        fault: |home| fs::remove_file(home.at("maps/clients")).unwrap(),
        trigger: renew,
        fix: nothing,
        says: CHANGED,
    },
    Row {
        what: "the map is truncated",
        fault: |home| fs::write(home.at("maps/clients.db"), "").unwrap(),
        trigger: renew,
        fix: nothing,
        says: CHANGED,
    },
    Row {
        what: "somebody edits the source and runs postmap",
        fault: |home| {
            fs::write(home.at("maps/clients"), format!("{FORGED} OK\n")).unwrap();
            let mut postmap = Command::new("postmap");
            let postmap = postmap.arg("-c").arg(home.postfix.config()).arg(home.table());
            let done = postmap.status().unwrap();
            assert!(done.success());
        },
        trigger: renew,
        fix: nothing,
        says: CHANGED,
    },
    Row {
        what: "the map's directory is removed and created again",
        fault: |home| remove_directory(home, "maps"),
        trigger: renew,
        fix: |home| fs::create_dir(home.at("maps")).unwrap(),
        says: "cannot write its source",
    },
    Row {
        what: "the state file is deleted",
        fault: |home| fs::remove_file(home.at("states/state")).unwrap(),
        trigger: new_client,
        fix: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "the state file is emptied",
        fault: |home| fs::write(home.at("states/state"), "").unwrap(),
        trigger: new_client,
        fix: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "somebody adds a grant to the state file",
        fault: |home| {
            let text = fs::read_to_string(home.at("states/state")).unwrap();
            fs::write(home.at("states/state"), text.replace(A, FORGED)).unwrap();
        },
        trigger: new_client,
        fix: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "the state file's directory is removed and created again",
        fault: |home| remove_directory(home, "states"),
        trigger: new_client,
        fix: |home| fs::create_dir(home.at("states")).unwrap(),
        says: "No such file",
    },
];

#[test]
fn external_changes_to_files_are_repaired() {
    for row in ROWS {
        test_row(row);
    }
}

fn test_row(row: &Row) {
    let what = row.what;
    let home = Home::with_directories("hash");
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    // The source is installed last.
    let source = || fs::read_to_string(home.at("maps/clients")).unwrap_or_default();
    eventually("the generation is complete", PATIENCE, || source().contains(A));
    let before = daemon.log().len();
    (row.fault)(&home);
    (row.trigger)(&home, &mut daemon);
    wait_until_logged_after(&daemon, before, row.says);
    (row.fix)(&home);
    home.wait_until_mapped(A, &daemon);
    wait_until_unmapped(&home, FORGED, &daemon);
    eventually(what, PATIENCE, || {
        let source = fs::read_to_string(home.at("maps/clients")).unwrap_or_default();
        source.contains(A) && !source.contains(FORGED)
    });
    log_in(&home, &daemon, B);
    home.wait_until_mapped(B, &daemon);
    for address in [A, B] {
        home.wait_until_saved(address, &daemon);
    }
    let state = fs::read_to_string(home.at("states/state")).unwrap();
    assert!(!state.contains(FORGED), "{what}: {state}");
    is_no_flood(what, &daemon, before, 20);
    survives_a_kill(&home, daemon, &options, &[A, B]);
}
