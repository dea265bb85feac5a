//! An access map: postmap builds it beside the map in use, it is verified, and then renamed into
//! place.
//!
//! - **Promise**: Postfix always reads a complete generation: source and compiled file are replaced
//!   by rename only, never rewritten in place, and never absent once they exist. After a failed
//!   publication the previous map stays in use. Changes that others make to the files are
//!   detectable.
//! - **Limits**: one publication at a time, by one process: the daemon holds a lock on the map.
//! - **Not here**: when a generation is due, and what to do after a failure.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Postfix;
use super::map_spec::{MapSpec, MapValue};
use crate::engine::publication::{GENERATION_KEY, Generation};
use crate::error::Failure;
use crate::sys::blocking::blocking;
use crate::sys::child;
use crate::sys::child::ChildError;
use crate::sys::files;
use crate::sys::files::{FileStamp, directory};
use crate::sys::trusted_file;

/// postmap needs a few hundredths of a second; after a minute the disk must be stuck.
const BUILD_LIMIT: Duration = Duration::from_secs(60);
/// Added for each 10,000 entries, which take a twentieth of that on a busy machine.
const BUILD_LIMIT_MORE: Duration = Duration::from_secs(1);
/// For one lookup in the finished map.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// smtpd opens maps as root, but `proxy:` and other users' `postmap -q` must read them too.
const MODE: u32 = 0o644;

/// A map that can be published.
#[derive(Debug)]
pub struct MapTarget {
    postfix: Postfix,
    kind: String,
    path: PathBuf,
    value: MapValue,
    remark: Option<String>,
    /// Held during each disk operation: an abandoned one ends before the next begins.
    turn: Arc<Mutex<()>>,
    /// The compiled file and the source as they were installed.
    installed: Vec<(PathBuf, FileStamp)>,
}

/// The steps of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writing the new source.
    Write,
    /// `postmap -r`.
    Build,
    /// Looking up the entry that identifies the generation.
    Check,
    /// Renaming the compiled file into place.
    Install,
    /// Renaming the source into place; the compiled file is the new one already.
    InstallSource,
}

/// A failed publication.
#[derive(Clone, Debug)]
pub struct NotPublished {
    /// The map as main.cf names it.
    pub map: String,
    /// The step that failed.
    pub step: Step,
    /// What went wrong.
    pub why: String,
}

impl fmt::Display for NotPublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, step, why } = self;
        let failed = match step {
            Step::Write => "cannot write its source",
            Step::Build => "postmap failed",
            Step::Check => "postmap built a wrong map",
            Step::Install => "cannot move it into place",
            Step::InstallSource => {
                return write!(
                    f,
                    "the map {map} was published, but its source file could not be replaced: {why}"
                );
            }
        };
        write!(
            f,
            "the map {map} was not published: {failed}: {why}; the previous map, if any, stays in use"
        )
    }
}

impl std::error::Error for NotPublished {}

impl MapTarget {
    /// Checks that a map can be published where the administrator wants it.
    ///
    /// # Errors
    /// Postfix lacks the map type, postmap cannot build it, or its directory is missing or not
    /// writable.
    pub async fn prepare(
        postfix: Postfix,
        spec: &MapSpec,
        value: MapValue,
    ) -> Result<Self, Failure> {
        let kind = postfix.map_type(&spec.kind).await?;
        let path = spec.path.clone();
        let mut target = Self {
            postfix,
            kind,
            path,
            value,
            remark: None,
            turn: Arc::default(),
            installed: Vec::new(),
        };
        let path = spec.path.clone();
        let place = target.with_disk(move || Ok(check_place(&path))).await;
        target.remark = place.map_err(|lost| Failure::bug(lost.to_string()))??;
        Ok(target)
    }

    /// Returns the map as main.cf names it, the argument of `check_client_access`.
    pub fn table(&self) -> String {
        table(&self.kind, &self.path)
    }

    /// Returns a remark to log once.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Publishes a generation.
    ///
    /// Dropping the future kills the child, and the previous map stays in use.
    ///
    /// # Errors
    /// The step that failed, and why. No temporary files are left.
    pub async fn publish(&mut self, generation: &Arc<Generation>) -> Result<(), NotPublished> {
        match self.attempt(generation, &self.path).await {
            Ok(installed) => {
                self.installed = installed;
                Ok(())
            }
            Err((step, why)) => Err(self.failed(step, why).await),
        }
    }

    /// Returns the failure of a publication that was aborted because it took too long.
    pub fn given_up(&self) -> NotPublished {
        let why = "aborted, because the map still lists expired clients".to_owned();
        NotPublished { map: self.table(), step: Step::Build, why }
    }

    async fn failed(&self, step: Step, why: String) -> NotPublished {
        let path = self.path.clone();
        // What cannot be removed now fails the next attempt, which reports it.
        let _ = self.with_disk(move || remove_temporary(&path)).await;
        NotPublished { map: self.table(), step, why }
    }

    /// Builds the fallback map for [`Self::empty`] beside the map, unless it exists.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn prepare_fallback(&self) -> Result<(), NotPublished> {
        let fallback = self.fallback_path();
        let files = self.with_disk(move || suffixes(&fallback)).await;
        if files.is_ok_and(|files| files.len() == 2) {
            return Ok(());
        }
        let empty = Arc::new(Generation::new(0, Vec::new()));
        match self.attempt(&empty, &self.fallback_path()).await {
            Ok(_) => Ok(()),
            Err((step, why)) => Err(self.failed(step, why).await),
        }
    }

    /// Renames the fallback map into place. That needs neither postmap nor disk space, not even an
    /// inode. The next fallback map has to be prepared afterwards.
    ///
    /// # Errors
    /// There is no fallback map, or it cannot be renamed.
    pub async fn empty(&mut self) -> io::Result<()> {
        let (fallback, path) = (self.fallback_path(), self.path.clone());
        let installed = self.with_disk(move || {
            remove_temporary(&path)?;
            let mut suffixes = suffixes(&fallback)?;
            // The compiled file first, as always.
            suffixes.sort_unstable_by_key(String::is_empty);
            if suffixes.is_empty() && !path.exists() {
                // No map was ever published.
                return Ok(Vec::new());
            }
            if suffixes.len() != 2 {
                return Err(io::Error::other("there is no fallback map"));
            }
            let mut installed = Vec::new();
            for suffix in suffixes {
                let to = files::with_suffix(&path, &suffix);
                installed.push(install(&files::with_suffix(&fallback, &suffix), to)?);
            }
            files::sync(directory(&path))?;
            Ok(installed)
        });
        self.installed = installed.await?;
        Ok(())
    }

    /// Returns a file of the last publication that something else removed, replaced or changed.
    pub async fn modified_externally(&self) -> Option<PathBuf> {
        let installed = self.installed.clone();
        let differs = |(path, stamp): &(PathBuf, FileStamp)| {
            files::file_stamp(path).map_or(true, |found| found != *stamp)
        };
        let found = self.with_disk(move || Ok(installed.into_iter().find(differs))).await;
        found.ok().flatten().map(|(path, _)| path)
    }

    /// Builds a generation, verifies it and renames it to `to`.
    async fn attempt(
        &self,
        generation: &Arc<Generation>,
        to: &Path,
    ) -> Result<Vec<(PathBuf, FileStamp)>, (Step, String)> {
        let (new, path) = (self.new_path(), self.path.clone());
        let (whole, value) = (Arc::clone(generation), self.value.clone());
        self.with_disk(move || {
            remove_temporary(&path)?;
            files::write_new(&new, MODE, |file| {
                let mut pieces = whole.text(value.as_str());
                pieces.try_for_each(|piece| file.write_all(piece.as_bytes()))
            })
        })
        .await
        .map_err(at(Step::Write))?;

        let built = table(&self.kind, &self.new_path());
        let mut postmap = self.postfix.postmap_command();
        child::run(postmap.args(["-r", &built]), build_limit(generation.addresses.len()))
            .await
            .map_err(at(Step::Build))?;

        let mut postmap = self.postfix.postmap_command();
        // The exit status above does not prove success: on a full disk postmap builds an empty lmdb
        // map and exits with status 0.
        let found = child::run(postmap.args(["-q", GENERATION_KEY, &built]), CHECK_LIMIT)
            .await
            .map_err(|error| match error {
                ChildError::Failed(_, stderr) if stderr.is_empty() => {
                    (Step::Check, format!("it lacks the entry {GENERATION_KEY}; is the disk full?"))
                }
                error => (Step::Check, format!("cannot look up {GENERATION_KEY}: {error}")),
            })?;
        if found.trim_end() != generation.entry_value() {
            let found: String = found.trim_end().chars().take(40).collect();
            return Err((
                Step::Check,
                format!("{GENERATION_KEY} is {found:?}, expected {:?}", generation.entry_value()),
            ));
        }

        let (new, path) = (self.new_path(), to.to_owned());
        let compiled = self
            .with_disk(move || {
                let extension = compiled_extension(&new)?;
                let compiled = files::with_suffix(&new, &extension);
                files::sync(&compiled)?;
                install(&compiled, files::with_suffix(&path, &extension))
            })
            .await
            .map_err(at(Step::Install))?;

        let (new, path) = (self.new_path(), to.to_owned());
        let source = self
            .with_disk(move || {
                let source = install(&new, path)?;
                files::sync(directory(&source.0))?;
                Ok(source)
            })
            .await
            .map_err(at(Step::InstallSource))?;
        Ok(vec![compiled, source])
    }

    /// Runs a disk operation on a thread that may block.
    async fn with_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.turn);
        let work = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        blocking(work).await
    }

    /// Returns the path of the fallback map.
    fn fallback_path(&self) -> PathBuf {
        files::with_suffix(&self.path, ".empty")
    }

    /// Returns the path of the new source. It is unique to this process: the postmap of a killed daemon
    /// may still be running.
    fn new_path(&self) -> PathBuf {
        files::with_suffix(&self.path, &format!(".new-{}", std::process::id()))
    }
}

fn at<E: fmt::Display>(step: Step) -> impl FnOnce(E) -> (Step, String) {
    move |error| (step, error.to_string())
}

/// Renames a file; returns its new path and its stamp.
fn install(from: &Path, to: PathBuf) -> io::Result<(PathBuf, FileStamp)> {
    let stamp = files::file_stamp(from)?;
    files::rename(from, &to)?;
    Ok((to, stamp))
}

fn table(kind: &str, path: &Path) -> String {
    format!("{kind}:{}", path.display())
}

fn build_limit(entries: usize) -> Duration {
    let tens_of_thousands = u32::try_from(entries / 10_000).unwrap_or(u32::MAX);
    BUILD_LIMIT.saturating_add(BUILD_LIMIT_MORE.saturating_mul(tens_of_thousands))
}

/// Checks that files can be created and replaced where the map shall be; returns a remark.
fn check_place(path: &Path) -> Result<Option<String>, Failure> {
    let directory = directory(path);
    if !directory.is_dir() {
        return Err(Failure::config(format!("`{}` is not a directory", directory.display()))
            .hint("create it, owned by the daemon's user, or change `map`"));
    }
    if path.is_dir() {
        return Err(Failure::config(format!("`{}` is a directory", path.display()))
            .hint("`map` must be the path of the map file itself"));
    }
    if !is_ours(path) {
        let what = format!("`{}` exists and was not written by pop-before-smtp", path.display());
        return Err(Failure::config(what)
            .hint("use another file for `map`: publishing would overwrite this one"));
    }
    // A name unique to this process: the daemon may be publishing while `check` runs.
    let probe = files::with_suffix(path, &format!(".probe-{}", std::process::id()));
    let tried = files::remove(&probe).and_then(|()| files::write_new(&probe, MODE, |_| Ok(())));
    tried.and_then(|()| files::remove(&probe)).map_err(|error| {
        Failure::io(format!("cannot write a map in `{}`: {error}", directory.display())).hint(
            "the directory must belong to the daemon's user; \
             in a systemd unit, allow it with StateDirectory= or ReadWritePaths=",
        )
    })?;
    let open = fs::metadata(directory).is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0);
    Ok(open.then(|| trusted_file::open_directory(directory)))
}

/// Returns whether the source may be replaced: it is absent or empty, or has our generation entry.
fn is_ours(path: &Path) -> bool {
    let file = match files::open(path, u64::MAX) {
        Ok(file) => file,
        // It exists, and is not a regular file.
        Err(error) => return error.kind() != io::ErrorKind::InvalidInput,
    };
    let lines = io::BufReader::new(file).lines().map_while(Result::ok);
    let mut entries = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    entries.by_ref().next().is_none_or(|first| {
        first.starts_with(GENERATION_KEY) || entries.any(|line| line.starts_with(GENERATION_KEY))
    })
}

/// Removes new sources and what was built from them, also those of killed daemons.
fn remove_temporary(path: &Path) -> io::Result<()> {
    let new = files::with_suffix(path, ".new");
    for suffix in suffixes(&new)? {
        if suffix.is_empty() || suffix.starts_with(['.', '-']) {
            files::remove(&files::with_suffix(&new, &suffix))?;
        }
    }
    Ok(())
}

/// Finds the extension of the file that postmap built. It does not follow from the map type: Postfix
/// 3.11 may build `hash:` as lmdb or cdb (postfix-non-bdb(1)).
fn compiled_extension(new: &Path) -> io::Result<String> {
    let mut found = suffixes(new)?;
    found.retain(|suffix| suffix.starts_with('.'));
    match (found.pop(), found.is_empty()) {
        (Some(extension), true) => Ok(extension),
        (None, _) => Err(io::Error::other("postmap built no file")),
        (Some(_), false) => Err(io::Error::other("postmap built more than one file")),
    }
}

/// Returns what follows this file name in all names that begin with it: nothing, `.db`, `.lmdb`.
fn suffixes(path: &Path) -> io::Result<Vec<String>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let file = entry?.file_name();
        let suffix = file.to_str().and_then(|file| file.strip_prefix(name.as_ref()));
        found.extend(suffix.map(str::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_temporary_files_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let ours = ["clients.new-7", "clients.new-7.db", "clients.new-80", "clients.new.cdb.tmp"];
        let others = ["clients", "clients.db", "clients.newer", "clients.news.db", "x.clients.new"];
        for name in ours.iter().chain(&others) {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let new = dir.path().join("clients.new-7");
        assert_eq!(compiled_extension(&new).expect("one file"), ".db");
        fs::write(dir.path().join("clients.new-7.lmdb"), "").expect("a file");
        assert!(compiled_extension(&new).is_err(), "two files were built");
        remove_temporary(&dir.path().join("clients")).expect("removed");
        let exists = |name: &&str| dir.path().join(name).exists();
        assert!(!ours.iter().any(exists));
        assert!(others.iter().all(exists));
        assert!(compiled_extension(&new).is_err(), "no file was built");
    }

    #[test]
    fn large_maps_get_more_time() {
        for (entries, seconds) in [(0, 60), (9_999, 60), (10_000, 61), (1_000_000, 160)] {
            assert_eq!(build_limit(entries).as_secs(), seconds, "{entries}");
        }
        assert!(build_limit(usize::MAX) > BUILD_LIMIT);
    }

    #[test]
    fn places() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("taken")).expect("a directory");
        fs::write(dir.path().join("clients.new"), "being published").expect("a file");
        mkfifo(&dir.path().join("pipe"), Mode::S_IRUSR).expect("a pipe");
        let rows = [
            ("clients", None),
            ("missing/clients", Some("missing` is not a directory")),
            ("clients.new/clients", Some("clients.new` is not a directory")),
            ("taken", Some("taken` is a directory")),
            ("pipe", Some("pipe` exists and was not written by pop-before-smtp")),
        ];
        for (name, expected) in rows {
            let outcome = check_place(&dir.path().join(name)).map_err(|e| e.to_string());
            match (outcome, expected) {
                (Ok(remark), None) => assert_eq!(remark, None),
                (Err(error), Some(part)) => assert!(error.contains(part), "{error}"),
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        }
        assert_eq!(
            fs::read_dir(dir.path()).expect("there").count(),
            3,
            "no file was added or removed"
        );
    }
}
