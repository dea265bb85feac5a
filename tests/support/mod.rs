//! The rig: a private Postfix, a private rsyslogd and our daemon, all real, all in directories of
//! their own, so that any number of tests run side by side.
//!
//! - **Promise**: what a test starts ends with it, by its own process id. A program or a right that
//!   is missing fails the test with a sentence that says what to install.
//! - **Limits**: every wait is bounded; network traffic stays on loopback.
//! - **Not here**: port 25, /etc/postfix, the system's log socket.

#![allow(dead_code, reason = "each test file uses its own part of the rig")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a rig that cannot be built ends the test")]

pub mod around;
pub mod asker;
pub mod attack;
pub mod base64;
pub mod client;
pub mod container;
pub mod daemon;
pub mod forwarder;
pub mod home;
pub mod maild;
pub mod network;
pub mod postfix;
pub mod process;
pub mod random;
pub mod site;
pub mod small_disk;
pub mod stalling_disk;
pub mod story;
pub mod systemd;
pub mod wire;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Long enough for any program to start or end on a busy machine of one core.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks of a polling wait: unnoticed by people and cheap for the machine.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `happened` is true.
///
/// # Panics
/// After `limit`, naming `what` did not happen.
pub fn eventually(what: &str, limit: Duration, happened: impl FnMut() -> bool) {
    assert!(within(limit, happened), "{what}: not within {limit:?}");
}

/// Whether `happened` becomes true before `limit` is over.
pub fn within(limit: Duration, mut happened: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if happened() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// A directory that other users, such as `postfix`, may pass; it is removed when dropped.
pub fn directory() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("pbs-").permissions(std::fs::Permissions::from_mode(0o755));
    builder.tempdir().expect("a directory under $TMPDIR")
}

/// Copies a program or a script to where it is executed.
///
/// Another process writes it: a file that we had open for writing could not be executed while a
/// child of a neighbouring test still holds it (ETXTBSY in execve(2)).
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut install = Command::new("install");
    let done = install.args(["-m", "755"]).arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(done.expect("install can be started").success(), "{}", to.as_ref().display());
}

/// Fails with what to install unless this is root and `program` can be started.
fn need(program: &str, package: &str) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test runs a private {package} and must be root: run tests/all as root"
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    assert!(
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file()),
        "{program} is not in PATH: apt-get install {package} (tests/all does it)"
    );
}
