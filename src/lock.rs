//! One daemon for one file: a lock beside it, held as long as this value lives.
//!
//! Promise  the kernel drops the lock when the process ends, however it ends; nothing is left that
//!          a human must remove. Who holds it is written into the lock file, which goes with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::disk;
use crate::error::Failure;

/// Each round but the last lost its file to another process that was just leaving.
const ROUNDS: usize = 8;

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: Flock<File>,
}

impl Lock {
    /// Locks a file by another file beside it, whose name ends in `.lock`.
    ///
    /// # Errors
    /// Another process holds the lock, or the lock file cannot be made.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let beside = disk::with_suffix(path, ".lock");
        let shown = path.display();
        let failure = |error: io::Error| {
            Failure::io(format!("cannot lock `{shown}`: {error}"))
                .hint("its directory must exist and belong to the user that runs this daemon")
        };
        for _ in 0..ROUNDS {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&beside).map_err(failure)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) if is_at(&lock, &beside) => {
                    // Only for people; the lock is what counts.
                    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
                    return Ok(Self { path: beside, _held: lock });
                }
                Ok(_) => {}
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                    let what = format!("`{shown}` is in use by the process {}", holder.trim());
                    return Err(Failure::io(what)
                        .hint("two daemons cannot share it; stop that one, or name another file"));
                }
                Err((_, error)) => return Err(failure(error.into())),
            }
        }
        Err(failure(io::Error::other("its lock file comes and goes")))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever has opened it already finds that it is no longer at its path.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let (open, named) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let first = Lock::take(&path).expect("a lock");
        let refused = Lock::take(&path).expect_err("held").to_string();
        let holder = format!("in use by the process {}", std::process::id());
        assert!(refused.contains(&holder), "{refused}");
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
        Lock::take(&path).expect("free again");
    }
}
