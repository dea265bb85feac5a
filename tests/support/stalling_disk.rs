//! A disk that stops answering, as with a broken controller or a network file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small ext4 file system over a directory; unmounted when dropped.
pub struct StallingDisk(PathBuf);

impl StallingDisk {
    /// Creates an empty one and mounts it.
    pub fn mount(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let image = path.with_extension("disk");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        must("mkfs.ext4", &["-q", &image.display().to_string()]);
        must("mount", &["-o", "loop", &image.display().to_string(), &path.display().to_string()]);
        // The mount keeps it.
        fs::remove_file(image).expect("removed");
        Self(path)
    }

    /// From now on every writer is blocked, and no signal ends that.
    pub fn stall(&self) {
        must("fsfreeze", &["-f", &self.0.display().to_string()]);
    }

    /// Lets writers continue.
    pub fn resume(&self) {
        must("fsfreeze", &["-u", &self.0.display().to_string()]);
    }
}

fn must(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let done = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.success(), "{program} {arguments:?}: this test needs root and a loop device");
}

impl Drop for StallingDisk {
    fn drop(&mut self) {
        // Blocked processes could not be killed otherwise. An error means that it does not stall.
        let quiet = std::process::Stdio::null;
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).stderr(quiet()).status();
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
