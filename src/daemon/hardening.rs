//! Keeps what the process knows (who logs in from where) inside the process.
//!
//! - **Promise**: no core file is written, and no other process of the same user can read the memory
//!   (prctl(2), `PR_SET_DUMPABLE`). Child processes write no core files either. Files that the daemon
//!   creates are writable only for their owner.
//! - **Limits**: root can still read everything.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use tracing::warn;

/// Removes group and other write permission from new files, in addition to the inherited umask.
pub fn narrow_umask() {
    let least = Mode::S_IWGRP | Mode::S_IWOTH;
    umask(umask(least) | least);
}

/// Disables core files, and debuggers of the same user. Failures are only logged.
pub fn disable_core_dumps() {
    let disabled = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| set_dumpable(false));
    if let Err(error) = disabled {
        warn!(%error, "cannot disable core files: a crash may write user names to disk");
    }
}
