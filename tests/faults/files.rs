//! What others do to the files of the map and of the state: it is found out, told and mended.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::home::Home;
use crate::support::story::login_frame;
use crate::support::{PATIENCE, eventually};
use crate::{
    A, B, is_no_flood, log_in, survives_a_kill, wait_until_said_after, wait_until_unmapped,
    with_state,
};

/// Whoever has no right and gets one by a foreign file.
const FORGED: &str = "203.0.113.66";

/// One fault: what is done, and what makes the daemon look. It does so at least once a minute.
struct Row {
    what: &'static str,
    fault: fn(&Home),
    look: fn(&Home, &mut Daemon),
    /// Done after the daemon has told of it.
    mend: fn(&Home),
    says: &'static str,
}

fn reload(_: &Home, daemon: &mut Daemon) {
    daemon.signal(Signal::SIGHUP);
}

/// The first deadline changes, so the publisher has to think.
fn renew(home: &Home, daemon: &mut Daemon) {
    log_in(home, daemon, A);
}

fn newcomer(home: &Home, _: &mut Daemon) {
    home.wire.send(login_frame(B).as_bytes());
}

/// Again, where the daemon has written to it at that moment.
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
        look: renew,
        mend: nothing,
        says: CHANGED,
    },
    Row {
        what: "the map is deleted, and somebody says so",
        fault: |home| fs::remove_file(home.at("maps/clients.db")).unwrap(),
        look: reload,
        mend: nothing,
        says: "configuration reloaded",
    },
    Row {
        what: "the source is deleted",
        fault: |home| fs::remove_file(home.at("maps/clients")).unwrap(),
        look: renew,
        mend: nothing,
        says: CHANGED,
    },
    Row {
        what: "the map is cut off",
        fault: |home| fs::write(home.at("maps/clients.db"), "").unwrap(),
        look: renew,
        mend: nothing,
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
        look: renew,
        mend: nothing,
        says: CHANGED,
    },
    Row {
        what: "the directory of the map comes and goes",
        fault: |home| remove_directory(home, "maps"),
        look: renew,
        mend: |home| fs::create_dir(home.at("maps")).unwrap(),
        says: "its source could not be written",
    },
    Row {
        what: "the state file is deleted",
        fault: |home| fs::remove_file(home.at("states/state")).unwrap(),
        look: newcomer,
        mend: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "the state file is emptied",
        fault: |home| fs::write(home.at("states/state"), "").unwrap(),
        look: newcomer,
        mend: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "somebody writes a right into the state file",
        fault: |home| {
            let text = fs::read_to_string(home.at("states/state")).unwrap();
            fs::write(home.at("states/state"), text.replace(A, FORGED)).unwrap();
        },
        look: newcomer,
        mend: nothing,
        says: "removed or changed the state file",
    },
    Row {
        what: "the directory of the state comes and goes",
        fault: |home| remove_directory(home, "states"),
        look: newcomer,
        mend: |home| fs::create_dir(home.at("states")).unwrap(),
        says: "No such file",
    },
];

#[test]
fn what_others_do_to_the_files_is_mended() {
    for row in ROWS {
        go_through(row);
    }
}

fn go_through(row: &Row) {
    let what = row.what;
    let home = Home::with_directories("hash");
    let options = with_state(&home);
    let options = [&*options[0], &*options[1]];
    let mut daemon = home.start(&options);
    log_in(&home, &daemon, A);
    home.wait_until_mapped(A, &daemon);
    home.wait_until_saved(A, &daemon);
    // The source is the last file to be put into place.
    let source = || fs::read_to_string(home.at("maps/clients")).unwrap_or_default();
    eventually("the generation is whole", PATIENCE, || source().contains(A));
    let before = daemon.said().len();
    (row.fault)(&home);
    (row.look)(&home, &mut daemon);
    wait_until_said_after(&daemon, before, row.says);
    (row.mend)(&home);
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
