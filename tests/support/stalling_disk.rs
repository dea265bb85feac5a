//! A disk that stops answering, as a broken controller or a network file system does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small ext4 file system over a directory; it goes when this is dropped.
pub struct StallingDisk(PathBuf);

impl StallingDisk {
    /// Makes an empty one and mounts it.
    pub fn mount(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let image = path.with_extension("disk");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        must("mkfs.ext4", &["-q", &image.display().to_string()]);
        must("mount", &["-o", "loop", &image.display().to_string(), &path.display().to_string()]);
        // Mounted, it needs no name any more.
        fs::remove_file(image).expect("removed");
        Self(path)
    }

    /// Whoever writes there waits from now on, and no signal ends that.
    pub fn stall(&self) {
        must("fsfreeze", &["-f", &self.0.display().to_string()]);
    }

    /// It answers again.
    pub fn go_on(&self) {
        must("fsfreeze", &["-u", &self.0.display().to_string()]);
    }
}

fn must(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status();
    let done = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.success(), "{program} {words:?}: this test needs root and a loop device");
}

impl Drop for StallingDisk {
    fn drop(&mut self) {
        // Who waits for it could not be ended otherwise. An error: it does not stall.
        let quiet = std::process::Stdio::null;
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).stderr(quiet()).status();
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
