//! One daemon for one file: a lock beside it, held as long as this value lives.
//!
//! Promise  the kernel drops the lock when the process ends, however it ends; nothing is left that
//!          a human must remove. Who holds it is written into the lock file, which goes with it.

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

/// Each round but the last lost its file to another process that was just leaving.
const ROUNDS: usize = 8;
/// Whoever may open the file may lock it.
const MODE: u32 = 0o600;

/// For the lock file to be removed, which takes no time.
const TO_REMOVE: Duration = Duration::from_secs(1);

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
    /// Another process holds the lock, or the lock file cannot be made.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let beside = files::with_suffix(path, ".lock");
        let shown = path.display();
        let failure = |error: io::Error| {
            Failure::io(format!("cannot lock `{shown}`: {error}"))
                .hint("its directory must exist and belong to the user that runs this daemon")
        };
        for _ in 0..ROUNDS {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(MODE);
            // A link that another user has put there would lead to a file that is none of ours.
            let options = options.custom_flags(OFlag::O_NOFOLLOW.bits());
            let file = options.open(&beside).map_err(failure)?;
            let found = file.metadata().map_err(failure)?;
            if found.mode() & 0o077 != 0 || !found.is_file() || found.nlink() > 1 {
                // Somebody else may hold it open, and lock it.
                fs::remove_file(&beside).map_err(failure)?;
                continue;
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) if is_at(&lock, &beside) => {
                    // Only for people; the lock is what counts.
                    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
                    return Ok(Self { path: beside, held: Some(lock) });
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
        let (path, held) = (std::mem::take(&mut self.path), self.held.take());
        let (done, ended) = mpsc::channel();
        // On a thread of its own: a disk that is stuck must not keep the process from ending.
        let removing = thread::Builder::new().spawn(move || {
            // Still locked: whoever has opened it already finds that it is no longer at its path.
            let _ = fs::remove_file(path);
            drop(held);
            let _ = done.send(());
        });
        if removing.is_ok() {
            let _ = ended.recv_timeout(TO_REMOVE);
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

    #[test]
    fn nobody_else_may_hold_it_or_lead_it_astray() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let beside = dir.path().join("state.lock");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        fs::write(&beside, "").expect("a file");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).expect("set");
        let strangers = File::open(&beside).expect("opened");
        let strangers = Flock::lock(strangers, FlockArg::LockExclusiveNonblock).expect("locked");
        let ours = Lock::take(&path).expect("a stranger's lock is none");
        assert_eq!(mode(&beside), 0o600);
        drop((ours, strangers));
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, &beside).expect("a link");
        assert!(Lock::take(&path).is_err());
        assert_eq!(fs::read(&victim).expect("it is there"), b"precious");
    }
}
