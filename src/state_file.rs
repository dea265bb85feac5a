//! The state file on disk: read once, appended to, and made anew when it has grown.
//!
//! Promise  what the engine decides is in the file at once, where it outlives this process, and only
//!          then it is told to anybody. A moment later it is on the disk, where it outlives the
//!          power, and only then a map may announce it. A record that could not be written is not
//!          lost: the next attempt writes the whole file. So does the next one after somebody else
//!          has removed or changed the file.
//! Limits   a line longer than `MAX_LINE` is damage. The file is made anew above twice its live
//!          size, which takes a tenth of a second for 65,536 addresses, and nobody new is told
//!          meanwhile.
//! Not here what the lines mean (`engine::state`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::disk::{self, Likeness};
use crate::engine::state::{Journal, Reading, Restored};
use crate::engine::time::Time;
use crate::error::Failure;
use crate::shared::Shared;

/// Bytes of a line: four times what the names of `MAX_USERS` take.
const MAX_LINE: u64 = 64 << 10;
/// Below this size a file is not worth making anew.
const SMALL: usize = 64 << 10;
/// The file names who reads his mail from where.
const MODE: u32 = 0o600;

/// What was written in this time goes to the disk together.
const BATCH: Duration = Duration::from_millis(50);
/// It is looked after at least this often, also if nothing is decided.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// After a failure: the pause before the next attempt doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// The state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: Arc<Mutex<Journals>>,
    /// Held by the one who waits for the disk: the kernel tells of a failure only once.
    syncing: Arc<Mutex<()>>,
    filled: Notify,
    broken: Notify,
}

#[derive(Debug, Default)]
struct Journals {
    /// Missing after a failure: the next attempt writes the whole file.
    open: Option<Open>,
    /// What was written since the disk took the file.
    unsynced: Vec<Journal>,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    live: usize,
    size: usize,
    /// After the last record.
    likeness: Likeness,
}

impl StateFile {
    /// Lets the engine take over what the file holds, and makes the file anew.
    ///
    /// # Errors
    /// The file is there and cannot be read, or a new one cannot be written.
    pub fn restore(path: &Path, shared: &Shared) -> Result<Self, Failure> {
        let shown = path.display();
        match read(path) {
            Ok(reading) => {
                let restored = shared.with(|engine, now| engine.restore(now, reading));
                say(path, &restored);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("cannot read the state file `{shown}`: {error}");
                return Err(Failure::io(what)
                    .hint("the daemon's user must own it; to start without it, move it away"));
            }
        }
        let open = match Open::anew(path, shared) {
            Ok(open) => Some(open),
            // That passes, and the old file stands: those in it go on, others have to wait. The disk
            // may not have all of it yet, and that takes no room.
            Err(error)
                if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&error.kind())
                    && (!path.exists() || disk::sync(path).is_ok()) =>
            {
                complain(path, &error);
                None
            }
            Err(error) => {
                let what = format!("cannot write the state file `{shown}`: {error}");
                return Err(Failure::io(what)
                    .hint("its directory must exist and belong to the daemon's user"));
            }
        };
        let broken = Notify::new();
        if open.is_none() {
            broken.notify_one();
        }
        let file = Arc::new(Mutex::new(Journals { open, unsynced: Vec::new() }));
        let (path, syncing) = (path.to_owned(), Arc::default());
        Ok(Self { path, file, syncing, filled: Notify::new(), broken })
    }

    /// Has all that the engine has decided until now on the disk. Whether it is; if not, the cause
    /// has been said.
    pub async fn save(&self, shared: &Arc<Shared>) -> bool {
        if !self.write(shared).await {
            return false;
        }
        // If the disk has failed, the whole file is written.
        self.sync(shared).await || self.write(shared).await && self.sync(shared).await
    }

    /// Writes down what the engine has decided until now. Whether the file has it; if not, the
    /// cause has been said.
    async fn write(&self, shared: &Arc<Shared>) -> bool {
        let mut file = Arc::clone(&self.file).lock_owned().await;
        let mut journal = shared.with(|engine, now| engine.journal(now));
        let text = std::mem::take(&mut journal.text);
        let (path, known) = (self.path.clone(), Arc::clone(shared));
        // Locked until the thread is done, even if nobody waits for it any more: two of them would
        // spoil each other's files.
        let written = blocking(move || {
            let appends = |open: &Open| !journal.whole && (text.is_empty() || !open.has_grown());
            let ours = file.open.take().filter(appends);
            let (open, on_disk) = match ours {
                Some(open) if open.is_at(&path) => (open.append(&text)?, false),
                Some(_) => {
                    warn!(
                        path = %path.display(),
                        "somebody else has removed or changed the state file; it is made anew"
                    );
                    (Open::anew(&path, &known)?, true)
                }
                None => (Open::anew(&path, &known)?, true),
            };
            file.open = Some(open);
            Ok((file, on_disk))
        });
        match written.await {
            Ok((mut file, on_disk)) => {
                shared.with(|engine, _| engine.written(&journal));
                file.unsynced.push(journal);
                if on_disk {
                    saved(std::mem::take(&mut file.unsynced), shared);
                }
                self.filled.notify_one();
                true
            }
            Err(error) => {
                shared.with(|engine, _| engine.unsaved(journal));
                complain(&self.path, &error);
                false
            }
        }
    }

    /// Waits until the disk has what was written. Whether it has; if not, the cause has been said.
    async fn sync(&self, shared: &Arc<Shared>) -> bool {
        let turn = Arc::clone(&self.syncing).lock_owned().await;
        let (open, journals) = {
            let Journals { open, unsynced } = &mut *self.file.lock().await;
            // Without a file there is nothing to wait for: the next one goes to the disk as a whole.
            let Some(open) = open else { return false };
            (Arc::clone(&open.file), std::mem::take(unsynced))
        };
        let file = Arc::clone(&self.file);
        // Meanwhile others write.
        let synced = blocking(move || {
            let _turn = turn;
            // Here, for nobody may wait for it any more: the next one writes the whole file.
            open.sync_data().inspect_err(|_| file.blocking_lock().open = None)
        });
        match synced.await {
            Ok(()) => {
                saved(journals, shared);
                true
            }
            Err(error) => {
                for journal in journals {
                    shared.with(|engine, _| engine.unsaved(journal));
                }
                complain(&self.path, &error);
                self.broken.notify_one();
                false
            }
        }
    }

    async fn write_always(&self, shared: &Arc<Shared>) {
        loop {
            tokio::select! {
                () = shared.journal_filled() => {}
                () = self.broken.notified() => {}
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            let mut pause = PAUSES.0;
            while !self.write(shared).await {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSES.1);
            }
            if pause > PAUSES.0 {
                info!(path = %self.path.display(), "state saved again");
            }
        }
    }

    async fn sync_always(&self, shared: &Arc<Shared>) {
        loop {
            self.filled.notified().await;
            self.sync(shared).await;
            tokio::time::sleep(BATCH).await;
        }
    }
}

/// Writes down what the engine decides, at once, until the task is dropped. Without a file nothing
/// has to be in it.
pub async fn keep(state: Option<Arc<StateFile>>, shared: Arc<Shared>) {
    if let Some(state) = state {
        tokio::join!(state.write_always(&shared), state.sync_always(&shared));
        return;
    }
    loop {
        shared.journal_filled().await;
        let journal = shared.with(|engine, now| {
            let journal = engine.journal(now);
            engine.written(&journal);
            journal
        });
        saved(vec![journal], &shared);
    }
}

fn complain(path: &Path, error: &io::Error) {
    let path = path.display();
    error!(%path, %error, "state not saved: new clients are not authorised until it is");
}

fn saved(journals: Vec<Journal>, shared: &Shared) {
    shared.with(|engine, _| journals.iter().for_each(|journal| engine.saved(journal)));
}

fn read(path: &Path) -> io::Result<Reading> {
    let file = disk::open(path, u64::MAX)?;
    let found = file.metadata()?;
    if let Some(why) = others_hand(&found) {
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    let mut reading = Reading::written(moment(&found));
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

/// Why a state file may be somebody else's word about who may relay.
fn others_hand(file: &fs::Metadata) -> Option<String> {
    let (owner, me) = (file.uid(), geteuid().as_raw());
    if file.mode() & 0o022 != 0 {
        Some(format!("others may write to it (mode {:o})", file.mode() & 0o777))
    } else if owner != me && owner != 0 && me != 0 {
        Some(format!("it belongs to the user {owner}"))
    } else {
        None
    }
}

fn say(path: &Path, restored: &Restored) {
    if restored.foreign || restored.damaged > 0 {
        let kept = disk::with_suffix(path, ".damaged");
        // By another name, which takes no room: a new file is about to take the place of this one.
        let copied = disk::remove(&kept).and_then(|()| fs::hard_link(path, &kept)).is_ok();
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

impl Open {
    fn anew(path: &Path, shared: &Shared) -> io::Result<Self> {
        let mut size = 0;
        disk::replace(path, MODE, |file| {
            for text in shared.slices(|engine, now, behind| engine.state(now, behind)) {
                size += text.len();
                file.write_all(text.as_bytes())?;
            }
            Ok(())
        })?;
        let file = OpenOptions::new().append(true).open(path)?;
        let likeness = disk::likeness(path)?;
        Ok(Self { file: Arc::new(file), live: size, size, likeness })
    }

    fn has_grown(&self) -> bool {
        self.size > 2 * self.live + SMALL
    }

    /// Whether the file at this path still is ours, and nobody else has written to it.
    fn is_at(&self, path: &Path) -> bool {
        disk::likeness(path).is_ok_and(|found| found == self.likeness)
    }

    fn append(mut self, text: &str) -> io::Result<Self> {
        if !text.is_empty() {
            (&*self.file).write_all(text.as_bytes())?;
            self.likeness = Likeness::of(&self.file.metadata()?);
        }
        Ok(Self { size: self.size + text.len(), ..self })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
}
