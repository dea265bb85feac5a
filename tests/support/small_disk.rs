//! A disk that can be filled, or made read-only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of one MiB over a directory; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts an empty one.
    pub fn mount(path: impl AsRef<Path>) -> Self {
        Self::mount_with(path, "size=1m")
    }

    /// Mounts one with options of tmpfs(5).
    pub fn mount_with(path: impl AsRef<Path>, options: &str) -> Self {
        let options = format!("mode=755,{options}");
        mount(&["-t", "tmpfs", "-o", &options, "none"], path.as_ref());
        Self(path.as_ref().to_owned())
    }

    /// Leaves about `kib` KiB free.
    pub fn fill(&self, kib: u64) {
        let filler = self.0.join("filler");
        fs::write(&filler, vec![1; 2 * 1024 * 1024]).expect_err("the disk is full");
        let file = File::options().write(true).open(filler).expect("open");
        let used = file.metadata().expect("there").len();
        file.set_len(used - kib * 1024).expect("shorter");
    }

    /// Makes room again.
    pub fn clear(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }

    /// Makes a directory read-only.
    pub fn read_only_view(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        mount(&["--bind", &path.display().to_string()], path);
        let view = Self(path.to_owned());
        view.forbid_writing();
        view
    }

    /// Makes it read-only. Fails while files are open for writing.
    pub fn forbid_writing(&self) {
        mount(&["-o", "remount,bind,ro"], &self.0);
    }
}

fn mount(options: &[&str], path: &Path) {
    let done = Command::new("mount").args(options).arg(path).status().expect("mount");
    assert!(done.success(), "this test must be root, to mount a small disk");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the daemon may have a file open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
