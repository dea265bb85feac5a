//! The rig: a private Postfix, a private rsyslogd and the daemon, all real, each in a directory of
//! its own, so that any number of tests run in parallel.
//!
//! - **Promise**: processes that a test starts end with it, by their ids. If a program or privilege
//!   is missing, the test fails and reports what to install.
//! - **Limits**: every wait is bounded; network traffic stays on loopback.
//! - **Not here**: port 25, /etc/postfix, the system's log socket.

#![allow(dead_code, reason = "each test file uses its own part of the rig")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a rig that cannot be built ends the test")]

pub mod attack;
pub mod base64;
pub mod client;
pub mod container;
pub mod daemon;
pub mod engine_loop;
pub mod forwarder;
pub mod home;
pub mod maild;
pub mod network;
pub mod postfix;
pub mod process;
pub mod random;
pub mod redis;
pub mod relay;
pub mod site;
pub mod small_disk;
pub mod socketmap_client;
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

/// Pause between two checks of a polling wait: short for people, and cheap for the machine.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `happened` is true.
///
/// # Panics
/// After `limit`, naming `what` did not happen.
pub fn eventually(what: &str, limit: Duration, happened: impl FnMut() -> bool) {
    assert!(within(limit, happened), "{what}: not within {limit:?}");
}

/// Returns whether `happened` becomes true within `limit`.
pub fn within(limit: Duration, mut happened: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if happened() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Creates a directory that other users, such as `postfix`, may enter; it is removed when dropped.
pub fn directory() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("pbs-").permissions(std::fs::Permissions::from_mode(0o755));
    builder.tempdir().expect("a directory under $TMPDIR")
}

/// Copies a program or a script to where it is executed.
///
/// A separate process writes it: if this one had it open for writing, a child of another test might
/// inherit the descriptor, and it could not be executed (ETXTBSY in execve(2)).
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut install = Command::new("install");
    let done = install.args(["-m", "755"]).arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(done.expect("install can be started").success(), "{}", to.as_ref().display());
}

/// Panics with what to install unless this is root and `program` can be started.
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
