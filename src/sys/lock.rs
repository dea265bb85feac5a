//! Locks a file for one process, by a lock file beside it.
//!
//! - **Promise**: the kernel releases the lock when the process ends, however it ends; nothing is
//!   left to remove manually. The lock file holds the process id of its holder, and is removed with
//!   the lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::files;
use crate::error::Failure;

/// Attempts; a lock file may disappear with a process that is just ending.
const ROUNDS: usize = 8;
/// Anyone who may open the file may lock it.
const MODE: u32 = 0o600;

/// Time to remove the lock file, which normally takes none.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    held: Option<Flock<File>>,
}

impl Lock {
    /// Locks a file by another file beside it, whose name ends in `.lock`.
    ///
    /// # Errors
    /// Another process holds the lock, or the lock file cannot be created.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let beside = files::with_suffix(path, ".lock");
        let shown = path.display();
        let failure = |error: io::Error| {
            Failure::io(format!("cannot lock `{shown}`: {error}"))
                .hint("its directory must exist and belong to the daemon's user")
        };
        for _ in 0..ROUNDS {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(MODE);
            // Another user's symbolic link could point to any file.
            let options = options.custom_flags(OFlag::O_NOFOLLOW.bits());
            let file = options.open(&beside).map_err(failure)?;
            let found = file.metadata().map_err(failure)?;
            if found.mode() & 0o077 != 0 || !found.is_file() || found.nlink() > 1 {
                // Another user may have it open, and lock it.
                fs::remove_file(&beside).map_err(failure)?;
                continue;
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) if is_at(&lock, &beside) => {
                    // For people only: the lock itself is what counts.
                    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
                    return Ok(Self { path: beside, held: Some(lock) });
                }
                Ok(_) => {}
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                    let what = format!("`{shown}` is in use by process {}", holder.trim());
                    return Err(Failure::io(what)
                        .hint("stop that process, or configure another file: two daemons cannot share one"));
                }
                Err((_, error)) => return Err(failure(error.into())),
            }
        }
        Err(failure(io::Error::other("its lock file keeps being removed")))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let (path, held) = (std::mem::take(&mut self.path), self.held.take());
        let (done, ended) = mpsc::channel();
        // On a thread of its own: a stuck disk must not keep the process from ending.
        let removing = thread::Builder::new().spawn(move || {
            // Still locked: a process that has it open already notices that the path is gone.
            let _ = fs::remove_file(path);
            drop(held);
            let _ = done.send(());
        });
        if removing.is_ok() {
            let _ = ended.recv_timeout(REMOVE_TIMEOUT);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let (open, named) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let first = Lock::take(&path).expect("a lock");
        let refused = Lock::take(&path).expect_err("held").to_string();
        let holder = format!("in use by process {}", std::process::id());
        assert!(refused.contains(&holder), "{refused}");
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
        Lock::take(&path).expect("free again");
    }

    #[test]
    fn lock_files_of_others_are_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let beside = dir.path().join("state.lock");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        fs::write(&beside, "").expect("a file");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).expect("set");
        let foreign = File::open(&beside).expect("opened");
        let foreign = Flock::lock(foreign, FlockArg::LockExclusiveNonblock).expect("locked");
        let ours = Lock::take(&path).expect("another user's lock file is replaced");
        assert_eq!(mode(&beside), 0o600);
        drop((ours, foreign));
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, &beside).expect("a link");
        assert!(Lock::take(&path).is_err());
        assert_eq!(fs::read(&victim).expect("it is there"), b"precious");
    }
}
