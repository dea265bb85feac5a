//! What the process knows, who logs in from where, stays in it.
//!
//! Promise  no core file is written, and no other process of the same user looks into the memory
//!          (prctl(2), `PR_SET_DUMPABLE`). Programs that are started inherit the first. What it
//!          makes on the disk is for nobody else to write.
//! Limits   root sees everything all the same.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use tracing::warn;

/// Takes the right to write from others, whatever the umask that was inherited gives them. A
/// narrower one stays.
pub fn narrow_umask() {
    let least = Mode::S_IWGRP | Mode::S_IWOTH;
    umask(umask(least) | least);
}

/// Switches core files off, and debuggers of the same user. What fails is said and no more.
pub fn close_memory() {
    let closed = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| set_dumpable(false));
    if let Err(error) = closed {
        warn!(%error, "a crash may leave a core file, with the names of users in it");
    }
}
