//! The state file on disk: read once, appended to, and written anew when it has grown.
//!
//! Promise  what the engine decides is on the disk within a second, and nobody waits for that but
//!          who asks for it (`Shared::saved`). While the file cannot be written, that is said, and
//!          changes nothing else. No record is lost by that: the next attempt writes the whole
//!          file. So does the next one after somebody else has removed or changed the file.
//! Limits   one thread writes at a time. A line longer than `MAX_LINE` is damage. The file is
//!          written anew above twice its live size, which takes a tenth of a second for 65,536
//!          addresses.
//! Not here what the lines mean (`engine::state`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
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

/// Bytes of a line: four times what the names of `MAX_USERS` take.
const MAX_LINE: u64 = 64 << 10;
/// Below this size a file is not worth making anew.
const SMALL: usize = 64 << 10;
/// The file names who reads his mail from where.
const MODE: u32 = 0o600;
/// Twice what ten million addresses take, with long names of users. It is read line by line.
const MAX_FILE: u64 = 16 << 30;

/// What changes in this time is written together: with what the disk takes for it, it is there
/// within a second.
const BATCH: Duration = Duration::from_millis(250);
/// The file is looked after at least this often, also if nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// After a failure the pause before the next attempt doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A disk that is busy takes a batch within this time.
const SLOW: Duration = Duration::from_secs(5);

/// The state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Locked by the thread that writes. Missing after a failure: the next attempt writes the whole
    /// file.
    open: Arc<tokio::sync::Mutex<Option<OpenFile>>>,
    attempts: Mutex<Attempts>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    live: usize,
    size: usize,
    /// After the last record.
    file_stamp: FileStamp,
}

/// The attempts to write since the last success.
#[derive(Debug, Default)]
struct Attempts {
    /// When the first began.
    since: Option<Time>,
    /// Why the last that failed did.
    error: Option<String>,
    said: LogLimiter,
}

impl StateFile {
    /// Lets the engine take over what the file holds, and makes the file anew.
    ///
    /// # Errors
    /// The file is there and cannot be read, or a new one cannot be written.
    pub fn restore(path: &Path, shared: &Shared) -> Result<Self, Failure> {
        let shown = path.display();
        match trusted_file::open_own(path, MAX_FILE, geteuid().as_raw()) {
            Ok(file) => {
                let reading = read(file).map_err(|error| {
                    Failure::io(format!("cannot read the state file `{shown}`: {error}"))
                        .hint("to start without it, move it away")
                })?;
                let restored = shared.with(|engine, now| engine.restore(now, reading));
                say(path, &restored);
            }
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => return Err(failure(refusal)),
        }
        let state =
            Self { path: path.to_owned(), open: Arc::default(), attempts: Mutex::default() };
        state.begin(shared);
        match OpenFile::anew(path, shared) {
            Ok(open) => {
                *state.attempts() = Attempts::default();
                Ok(Self { open: Arc::new(Some(open).into()), ..state })
            }
            // That passes, and the old file stands. The disk may not have all of it yet, and that
            // takes no room.
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
            // After a failure there is something to write in any case.
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

    /// Has all that the engine has decided until now on the disk. Whether it is; if not, the cause
    /// has been said.
    pub async fn save(&self, shared: &Arc<Shared>) -> bool {
        // If a record cannot be appended, the whole file is written.
        self.write(shared).await || self.write(shared).await
    }

    /// What keeps the file from being written, if something does.
    pub fn fault(&self, now: Time) -> Option<StateFault> {
        let Attempts { since, error, .. } = &*self.attempts();
        let (since, error) = (since.as_ref()?, error.clone()?);
        Some(StateFault { seconds: now.since(*since).as_secs_f64(), error })
    }

    async fn write(&self, shared: &Arc<Shared>) -> bool {
        // Until the thread is done, even if nobody waits for it any more: two of them would spoil each
        // other's files.
        let mut open = Arc::clone(&self.open).lock_owned().await;
        self.begin(shared);
        let (path, known) = (self.path.clone(), Arc::clone(shared));
        let mut writing = pin!(blocking(move || write(&mut open, &path, &known)));
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
        if let Some(failures) = attempts.said.record(1) {
            error!(
                path = %self.path.display(),
                error,
                failures,
                "state not saved: logins count all the same, but a crash would forget the latest"
            );
        }
        attempts.error = Some(error.to_owned());
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the file up to date, and says which change is the last that the disk has.
fn write(file: &mut Option<OpenFile>, path: &Path, shared: &Shared) -> io::Result<u64> {
    let (mut text, mut whole) = (String::new(), false);
    let last_change = loop {
        let journal = shared.with(|engine, _| engine.journal());
        text.push_str(&journal.text);
        whole |= journal.whole;
        if let Some(number) = journal.number {
            break number;
        }
        shared.let_others_in();
    };
    let appends = |open: &OpenFile| !whole && (text.is_empty() || !open.has_grown());
    let open = match file.take().filter(appends) {
        Some(open) if open.is_at(path) => open.append(&text)?,
        Some(_) => {
            warn!(
                path = %path.display(),
                "somebody else has removed or changed the state file; it is made anew"
            );
            OpenFile::anew(path, shared)?
        }
        None => OpenFile::anew(path, shared)?,
    };
    *file = Some(open);
    Ok(last_change)
}

/// Says whether a daemon would refuse the file at its start. As whom it runs is not known here, but
/// the file's directory belongs to that user, or to root.
///
/// # Errors
/// The file is there and breaks the rule; that it cannot be read is no fault.
pub fn examine(path: &Path) -> Result<(), Failure> {
    let owner = fs::metadata(files::directory(path)).map_or(0, |found| found.uid());
    match trusted_file::open_own(path, MAX_FILE, owner) {
        Err(refusal) if refusal.is_untrusted() => Err(failure(refusal)),
        _ => Ok(()),
    }
}

fn failure(refusal: ReadFailure) -> Failure {
    let hint = "the daemon's user must own it; to start without it, move it away";
    refusal.failure(Failure::io, "state file", hint)
}

fn read(file: File) -> io::Result<Restoration> {
    let found = file.metadata()?;
    let mut reading = Restoration::written(moment(&found));
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    while file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        reading.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(reading)
}

/// When it was written to last.
fn moment(found: &fs::Metadata) -> Time {
    let seconds = u64::try_from(found.mtime()).unwrap_or_default();
    let nanoseconds = u64::try_from(found.mtime_nsec()).unwrap_or_default();
    Time::default() + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

fn say(path: &Path, restored: &Restored) {
    if restored.foreign || restored.damaged > 0 {
        let kept = files::with_suffix(path, ".damaged");
        // By another name, which takes no room: a new file is about to take the place of this one.
        let copied = files::remove(&kept).and_then(|()| fs::hard_link(path, &kept)).is_ok();
        warn!(
            path = %path.display(),
            damaged_lines = restored.damaged,
            foreign = restored.foreign,
            copy = copied.then(|| tracing::field::display(kept.display())),
            "the state file is not whole; what was understood goes on"
        );
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
    fn anew(path: &Path, shared: &Shared) -> io::Result<Self> {
        let mut size = 0;
        files::replace(path, MODE, |file| {
            for text in shared.slices(|engine, now, after| engine.state(now, after)) {
                size += text.len();
                file.write_all(text.as_bytes())?;
            }
            Ok(())
        })?;
        let flags = OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new().append(true).custom_flags(flags).open(path)?;
        let file_stamp = FileStamp::of(&file.metadata()?);
        Ok(Self { file, live: size, size, file_stamp })
    }

    fn has_grown(&self) -> bool {
        self.size > 2 * self.live + SMALL
    }

    /// Whether the file at this path still is ours, and nobody else has written to it.
    fn is_at(&self, path: &Path) -> bool {
        files::file_stamp(path).is_ok_and(|found| found == self.file_stamp)
    }

    fn append(mut self, text: &str) -> io::Result<Self> {
        if !text.is_empty() {
            self.file.write_all(text.as_bytes())?;
            self.file.sync_data()?;
            self.file_stamp = FileStamp::of(&self.file.metadata()?);
        }
        Ok(Self { size: self.size + text.len(), ..self })
    }
}
