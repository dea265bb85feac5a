//! The state file: read once, appended to, and rewritten when it has grown.
//!
//! - **Promise**: changes are on disk within a second, and only callers of [`Shared::saved`] wait for
//!   that. While the file cannot be written, this is reported, and everything else continues. No
//!   record is lost: the next attempt writes the whole file, also after another process has removed
//!   or changed it.
//! - **Limits**: one thread writes at a time. A line longer than `MAX_LINE` counts as damage. The
//!   file is rewritten above twice its live size, which takes a tenth of a second for 65,536
//!   addresses.
//! - **Not here**: the meaning of the lines ([`crate::engine::state`]).

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use memchr::memchr_iter;
use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, eaccess, geteuid};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::control::status::StateFault;
use crate::engine::state::{Restoration, Restored};
use crate::engine::time::Time;
use crate::error::Failure;
use crate::sys::blocking::blocking;
use crate::sys::files;
use crate::sys::files::FileStamp;
use crate::sys::log_limit::LogLimiter;
use crate::sys::trusted_file;
use crate::sys::trusted_file::ReadFailure;

/// Longest line, in bytes: four times the size of `MAX_USERS` names.
const MAX_LINE: usize = 64 << 10;
/// Files below this size, in bytes, are not rewritten.
const SMALL: usize = 64 << 10;
/// The mode of the file: it lists which user logged in from where.
const MODE: u32 = 0o600;
/// Largest file, in bytes: twice the size of ten million addresses with long user names. It is read
/// line by line.
const MAX_FILE: u64 = 16 << 30;

/// Changes within this time are written together; with the time that the disk takes, they are there
/// within a second.
const BATCH: Duration = Duration::from_millis(250);
/// The file is checked at least this often, even if nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// After a failure the pause before the next attempt doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A write that takes longer is reported as a failure; even a busy disk is faster.
const SLOW: Duration = Duration::from_secs(5);

/// The state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Locked by the thread that writes. `None` after a failure: the next attempt writes the whole
    /// file.
    open: Arc<tokio::sync::Mutex<Option<OpenFile>>>,
    attempts: Mutex<Attempts>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    live: usize,
    size: usize,
    /// Taken after the last write.
    file_stamp: FileStamp,
}

/// The attempts to write since the last success.
#[derive(Debug, Default)]
struct Attempts {
    /// When the first began.
    since: Option<Time>,
    /// The last error.
    error: Option<String>,
    limiter: LogLimiter,
}

impl StateFile {
    /// Restores the engine's state from the file, and rewrites the file unless it is current.
    ///
    /// # Errors
    /// The file exists and cannot be read, or it cannot be written.
    pub fn restore(path: &Path, shared: &Shared) -> Result<Self, Failure> {
        let shown = path.display();
        let mut is_current = false;
        match trusted_file::open_own(path, MAX_FILE, geteuid().as_raw()) {
            Ok(file) => {
                let most = shared.with(|engine, _| engine.rules().max_clients);
                let reading = read(file, most).map_err(|error| {
                    Failure::io(format!("cannot read the state file `{shown}`: {error}"))
                        .hint("to start without it, rename it")
                })?;
                let restored = shared.with(|engine, now| engine.restore(now, reading));
                log_restored(path, &restored);
                is_current = restored.is_current;
            }
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => return Err(failure(refusal)),
        }
        let state =
            Self { path: path.to_owned(), open: Arc::default(), attempts: Mutex::default() };
        state.begin(shared);
        let opened = if is_current { OpenFile::open(path) } else { OpenFile::create(path, shared) };
        match opened {
            Ok(open) => {
                *state.attempts() = Attempts::default();
                Ok(Self { open: Arc::new(Some(open).into()), ..state })
            }
            // Temporary, and the old file is still there. Syncing it needs no space.
            Err(error)
                if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&error.kind())
                    && (!path.exists() || files::sync(path).is_ok()) =>
            {
                state.failed(&error.to_string());
                Ok(state)
            }
            Err(error) => {
                let what = format!("cannot write the state file `{shown}`: {error}");
                Err(Failure::io(what)
                    .hint("its directory must exist and belong to the daemon's user"))
            }
        }
    }

    /// Keeps the file up to date until the task is dropped.
    pub async fn keep(&self, shared: &Arc<Shared>) {
        let mut pause = BATCH;
        loop {
            // After a failure there is always something to write.
            if self.attempts().error.is_none() {
                tokio::select! {
                    () = shared.state_changed() => {}
                    () = sleep(HEARTBEAT) => {}
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = shared.save_wanted() => {}
            }
            pause = if self.write(shared).await { BATCH } else { (2 * pause).min(LONGEST_PAUSE) };
        }
    }

    /// Writes all changes so far to disk. Returns whether that succeeded; if not, the cause has been
    /// logged.
    pub async fn save(&self, shared: &Arc<Shared>) -> bool {
        // If a record cannot be appended, the whole file is written.
        self.write(shared).await || self.write(shared).await
    }

    /// Returns why the file cannot be written, if so.
    pub fn fault(&self, now: Time) -> Option<StateFault> {
        let Attempts { since, error, .. } = &*self.attempts();
        let (since, error) = (since.as_ref()?, error.clone()?);
        Some(StateFault { seconds: now.since(*since).as_secs_f64(), error })
    }

    async fn write(&self, shared: &Arc<Shared>) -> bool {
        // Held until the thread is done, even if nobody waits for it any more: two threads would
        // corrupt the file.
        let mut open = Arc::clone(&self.open).lock_owned().await;
        self.begin(shared);
        let (path, shared_by_thread) = (self.path.clone(), Arc::clone(shared));
        let mut writing = pin!(blocking(move || write(&mut open, &path, &shared_by_thread)));
        let written = match timeout(SLOW, &mut writing).await {
            Ok(written) => written,
            Err(_) => {
                self.failed("the disk does not answer");
                writing.await
            }
        };
        match written {
            Ok(last_change) => {
                let attempts = std::mem::take(&mut *self.attempts());
                if attempts.error.is_some() {
                    info!(path = %self.path.display(), "state saved again");
                }
                shared.mark_saved(last_change);
                true
            }
            Err(error) => {
                self.failed(&error.to_string());
                false
            }
        }
    }

    fn begin(&self, shared: &Shared) {
        let now = shared.with(|_, now| now);
        self.attempts().since.get_or_insert(now);
    }

    fn failed(&self, error: &str) {
        let mut attempts = self.attempts();
        if let Some(failures) = attempts.limiter.record(1) {
            error!(
                path = %self.path.display(),
                error,
                failures,
                "state not saved: logins still count, but a crash would lose the latest"
            );
        }
        attempts.error = Some(error.to_owned());
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the file up to date, and returns the last change that is on disk.
fn write(file: &mut Option<OpenFile>, path: &Path, shared: &Shared) -> io::Result<u64> {
    let (mut text, mut whole) = (String::new(), false);
    let last_change = loop {
        let journal = shared.with(|engine, _| engine.journal());
        text.push_str(&journal.text);
        whole |= journal.whole;
        if let Some(number) = journal.number {
            break number;
        }
        shared.yield_lock();
    };
    let appends = |open: &OpenFile| !whole && (text.is_empty() || !open.has_grown());
    let open = match file.take().filter(appends) {
        Some(open) if open.is_at(path) => open.append(&text)?,
        Some(_) => {
            warn!(
                path = %path.display(),
                "another process has removed or changed the state file; writing it again"
            );
            OpenFile::create(path, shared)?
        }
        None => OpenFile::create(path, shared)?,
    };
    *file = Some(open);
    Ok(last_change)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Checks whether a daemon would refuse the file at the start. The daemon's user is not known here,
/// but the file's directory belongs to that user or to root.
///
/// # Errors
/// The file exists and is not trusted. A file that cannot be read is not an error.
pub fn examine(path: &Path) -> Result<(), Failure> {
    let owner = fs::metadata(files::directory(path)).map_or(0, |found| found.uid());
    match trusted_file::open_own(path, MAX_FILE, owner) {
        Err(refusal) if refusal.is_untrusted() => Err(failure(refusal)),
        _ => Ok(()),
    }
}

fn failure(refusal: ReadFailure) -> Failure {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
    let hint = format!(
        "the daemon's user must own it: `chown {user} {}`; to start without it, rename it",
        refusal.path().display()
    );
    refusal.failure(Failure::io, "state file", &hint)
}

fn read(file: File, most: usize) -> io::Result<Restoration> {
    let mut restoration = Restoration::written(modified(&file.metadata()?), most);
    each_line(file, |line| {
        if !line.ends_with(b"\n") {
            restoration.cut_off();
        }
        // The check is much faster than the replacement, even if there is nothing to replace.
        let text = str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::from);
        restoration.line(text.trim_end_matches(['\n', '\r']));
    })?;
    Ok(restoration)
}

/// Calls `take` with each line and its line feed, and with the pieces of a longer one than `MAX_LINE`.
fn each_line(mut file: impl io::Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 2 * MAX_LINE];
    let mut filled = 0;
    loop {
        let read = file.read(&mut buffer[filled..])?;
        filled += read;
        let mut begin = 0;
        for feed in memchr_iter(b'\n', &buffer[..filled]) {
            buffer[begin..=feed].chunks(MAX_LINE).for_each(&mut take);
            begin = feed + 1;
        }
        if read == 0 {
            buffer[begin..filled].chunks(MAX_LINE).for_each(&mut take);
            return Ok(());
        }
        if filled - begin >= MAX_LINE {
            take(&buffer[begin..begin + MAX_LINE]);
            begin += MAX_LINE;
        }
        buffer.copy_within(begin..filled, 0);
        filled -= begin;
    }
}

/// Returns when a file was last written to.
fn modified(found: &fs::Metadata) -> Time {
    let seconds = u64::try_from(found.mtime()).unwrap_or_default();
    let nanoseconds = u64::try_from(found.mtime_nsec()).unwrap_or_default();
    Time::default() + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

fn log_restored(path: &Path, restored: &Restored) {
    if restored.other_version || restored.damaged > 0 {
        let kept = files::with_suffix(path, ".damaged");
        // A second name needs no space; the file itself is about to be replaced.
        let copied = files::remove(&kept).and_then(|()| fs::hard_link(path, &kept)).is_ok();
        let copy = copied.then(|| tracing::field::display(kept.display()));
        if restored.other_version {
            warn!(
                path = %path.display(),
                copy,
                "the state file has another version; nothing was restored"
            );
        } else {
            warn!(
                path = %path.display(),
                damaged_lines = restored.damaged,
                copy,
                "the state file is damaged; its readable records were restored"
            );
        }
    }
    if *restored != Restored::default() {
        info!(
            authorised = restored.grants,
            expired = restored.expired,
            refused = restored.refused,
            shortened = restored.shortened,
            "state restored"
        );
    }
}

impl OpenFile {
    fn create(path: &Path, shared: &Shared) -> io::Result<Self> {
        let mut size = 0;
        files::replace(path, MODE, |file| {
            for text in shared.slices(|engine, now, from| engine.state(now, from)) {
                size += text.len();
                file.write_all(text.as_bytes())?;
            }
            Ok(())
        })?;
        let file = append_to(path)?;
        let file_stamp = FileStamp::of(&file.metadata()?);
        Ok(Self { file, live: size, size, file_stamp })
    }

    /// Opens a file that needs no change.
    fn open(path: &Path) -> io::Result<Self> {
        // It will have to be replaced later.
        eaccess(files::directory(path), AccessFlags::W_OK | AccessFlags::X_OK)?;
        let file = append_to(path)?;
        // The next start takes this for the latest time that the clock has shown.
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        let found = file.metadata()?;
        let size = usize::try_from(found.len()).unwrap_or(usize::MAX);
        Ok(Self { file, live: size, size, file_stamp: FileStamp::of(&found) })
    }

    fn has_grown(&self) -> bool {
        self.size > 2 * self.live + SMALL
    }

    /// Returns whether the file at this path is still this one, unchanged by other processes.
    fn is_at(&self, path: &Path) -> bool {
        files::file_stamp(path).is_ok_and(|found| found == self.file_stamp)
    }

    fn append(mut self, text: &str) -> io::Result<Self> {
        if !text.is_empty() {
            self.file.write_all(text.as_bytes())?;
            // Before the disk is waited for: another process may change the file meanwhile.
            self.file_stamp = FileStamp::of(&self.file.metadata()?);
            self.file.sync_data()?;
        }
        Ok(Self { size: self.size + text.len(), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns at most so many bytes at once.
    struct Slow<'a>(&'a [u8], usize);

    impl io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(self.1).min(buffer.len());
            let (taken, rest) = self.0.split_at(length);
            buffer[..length].copy_from_slice(taken);
            self.0 = rest;
            Ok(length)
        }
    }

    #[test]
    fn lines_are_whole_wherever_reads_end() {
        let long = "x".repeat(MAX_LINE + 5);
        let many: String = (0..30_000).map(|number| format!("line {number}\n")).collect();
        let text = format!("one\n\n{many}{long}\ntwo\n{long}{long}{long}\nend");
        for size in [7, 4096, MAX_LINE - 1, usize::MAX] {
            let mut lines = Vec::new();
            each_line(Slow(text.as_bytes(), size), |line| lines.push(line.to_vec())).unwrap();
            assert_eq!(lines.concat(), text.as_bytes(), "{size}");
            assert!(lines.iter().all(|line| line.len() <= MAX_LINE), "{size}");
            let shown = |at: usize| String::from_utf8_lossy(&lines[at]).into_owned();
            assert_eq!([shown(0), shown(1), shown(30_001)], ["one\n", "\n", "line 29999\n"]);
            assert_eq!(lines[30_002].len(), MAX_LINE, "{size}");
            assert!(lines.contains(&b"two\n".to_vec()), "{size}");
            assert_eq!(lines.last().unwrap(), b"end", "{size}");
        }
    }
}
