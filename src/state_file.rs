//! The state file on disk: read once, appended to, and made anew when it has grown.
//!
//! Promise  what the engine has decided is on disk before a map announces it. A record that could
//!          not be written is not lost: the next attempt writes the whole file. So it does when
//!          somebody else has removed or changed the file.
//! Limits   a file larger than `MAX_FILE` is not read; it is made anew above twice its live size.
//! Not here what the lines mean (`engine::state`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::disk::{self, Likeness};
use crate::engine::Engine;
use crate::engine::time::Time;
use crate::error::Failure;
use crate::shared::Shared;

/// Ten million grants of a hundred bytes.
const MAX_FILE: u64 = 1 << 30;
/// Below this size a file is not worth making anew.
const SMALL: usize = 64 << 10;
/// The file names who reads his mail from where.
const MODE: u32 = 0o600;

/// The state file, or none.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Missing after a failure: the next attempt writes the whole file.
    open: Mutex<Option<Open>>,
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
    pub fn restore(path: &Path, engine: &mut Engine, now: Time) -> Result<Self, Failure> {
        let shown = path.display();
        let bytes = match disk::read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let what = format!("cannot read the state file `{shown}`: {error}");
                return Err(Failure::io(what)
                    .hint("the daemon's user must own it; to start without it, move it away"));
            }
        };
        let restored = engine.restore(now, &String::from_utf8_lossy(&bytes));
        if restored.foreign || restored.damaged > 0 {
            let kept = disk::with_suffix(path, ".damaged");
            let copied = disk::replace(&kept, &bytes, MODE).is_ok();
            warn!(
                path = %shown,
                damaged_lines = restored.damaged,
                foreign = restored.foreign,
                copy = copied.then(|| tracing::field::display(kept.display())),
                "the state file is not whole; what was understood goes on"
            );
        }
        if !bytes.is_empty() {
            info!(
                authorised = restored.grants,
                expired = restored.expired,
                refused = restored.refused,
                shortened = restored.shortened,
                "state restored"
            );
        }
        let open = Open::anew(path, &engine.state(now)).map_err(|error| {
            let what = format!("cannot write the state file `{shown}`: {error}");
            Failure::io(what).hint("its directory must exist and belong to the daemon's user")
        })?;
        Ok(Self { path: path.to_owned(), open: Mutex::new(Some(open)) })
    }

    /// Asks the engine something and writes down what it has decided until then. The answer comes
    /// when the disk has it, or when it is known that the disk does not take it.
    pub async fn with<R>(&self, shared: &Shared, ask: impl FnOnce(&mut Engine, Time) -> R) -> R {
        let mut open = self.open.lock().await;
        let whole = match &*open {
            Some(open) if !open.is_at(&self.path).await => {
                warn!(
                    path = %self.path.display(),
                    "somebody else has removed or changed the state file; it is made anew"
                );
                true
            }
            Some(open) => open.has_grown(),
            None => true,
        };
        let (text, answer) = shared.with(|engine, now| {
            let journal = engine.journal();
            let text = if whole { engine.state(now) } else { journal };
            (text, ask(engine, now))
        });
        let written = match open.take() {
            Some(old) if !whole => old.append(text).await,
            _ => {
                let path = self.path.clone();
                blocking(move || Open::anew(&path, &text)).await
            }
        };
        match written {
            Ok(new) => *open = Some(new),
            Err(error) => error!(
                path = %self.path.display(),
                %error,
                "state not saved; authorisations since then would be lost by a restart"
            ),
        }
        answer
    }
}

impl Open {
    fn anew(path: &Path, text: &str) -> io::Result<Self> {
        disk::replace(path, text.as_bytes(), MODE)?;
        let file = OpenOptions::new().append(true).open(path)?;
        let likeness = disk::likeness(path)?;
        Ok(Self { file: Arc::new(file), live: text.len(), size: text.len(), likeness })
    }

    fn has_grown(&self) -> bool {
        self.size > 2 * self.live + SMALL
    }

    /// Whether the file at this path still is ours, and nobody else has written to it.
    async fn is_at(&self, path: &Path) -> bool {
        let path = path.to_owned();
        blocking(move || disk::likeness(&path)).await.is_ok_and(|found| found == self.likeness)
    }

    async fn append(self, text: String) -> io::Result<Self> {
        if text.is_empty() {
            return Ok(self);
        }
        let file = Arc::clone(&self.file);
        let size = self.size + text.len();
        let likeness = blocking(move || {
            (&*file).write_all(text.as_bytes())?;
            file.sync_data()?;
            Ok(Likeness::of(&file.metadata()?))
        })
        .await?;
        Ok(Self { size, likeness, ..self })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
}
