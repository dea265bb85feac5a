//! One access map: built beside by postmap, read back, and only then renamed into place.
//!
//! Promise  the map that Postfix reads is always a whole generation: the source and the compiled file
//!          are replaced by rename only, never rewritten in place, and never absent once they are
//!          there. After a failed publication the old map serves. What others do to the files
//!          afterwards can be found out.
//! Limits   one publication at a time, by one process: the daemon holds a lock on the map.
//! Not here when a generation is due, and what to do after a failure.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::Postfix;
use super::map_spec::{MapSpec, MapValue};
use crate::engine::publication::{GENERATION_KEY, Generation};
use crate::error::Failure;
use crate::sys::child;
use crate::sys::child::ChildError;
use crate::sys::files;
use crate::sys::files::{FileStamp, directory};
use crate::sys::trusted_file;

/// postmap needs a few hundredths of a second; after a minute the disk is stuck.
const BUILD_LIMIT: Duration = Duration::from_secs(60);
/// More time for each 10 000 entries, which take a twentieth of that on a busy machine.
const BUILD_LIMIT_MORE: Duration = Duration::from_secs(1);
/// One lookup in the finished map.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// smtpd opens maps as root, but `proxy:` and `postmap -q` of other users need to read them too.
const MODE: u32 = 0o644;

/// A map that can be published.
#[derive(Debug)]
pub struct MapTarget {
    postfix: Postfix,
    kind: String,
    path: PathBuf,
    value: MapValue,
    remark: Option<String>,
    /// Held by each piece of work on the disk: one that was abandoned ends before the next begins.
    turn: Arc<Mutex<()>>,
    /// The compiled file and the source as they were put into place.
    placed: Vec<(PathBuf, FileStamp)>,
}

/// What was being done when a publication failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writing the new source.
    Write,
    /// `postmap -r`.
    Build,
    /// Looking for the entry that proves the generation.
    Check,
    /// Putting the compiled file into place.
    Install,
    /// Putting the source into place; the compiled file is the new one already.
    InstallSource,
}

/// Why a generation is not what Postfix reads now.
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
        let doing = match step {
            Step::Write => "its source could not be written",
            Step::Build => "postmap did not build it",
            Step::Check => "what postmap built is not this map",
            Step::Install => "it could not be put into place",
            Step::InstallSource => {
                return write!(f, "the map {map} is new, but its source could not follow: {why}");
            }
        };
        write!(
            f,
            "the map {map} was not published, {doing}: {why}; Postfix goes on with what it had"
        )
    }
}

impl std::error::Error for NotPublished {}

impl MapTarget {
    /// Makes sure that a map can be published to where the operator wants it.
    ///
    /// # Errors
    /// A map type that Postfix has not or postmap cannot build, and a directory that is missing
    /// or that we may not write in.
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
            placed: Vec::new(),
        };
        let path = spec.path.clone();
        let place = target.with_disk(move || Ok(check_place(&path))).await;
        target.remark = place.map_err(|lost| Failure::bug(lost.to_string()))??;
        Ok(target)
    }

    /// The map as main.cf names it: `check_client_access` takes this word.
    pub fn table(&self) -> String {
        table(&self.kind, &self.path)
    }

    /// What the operator should be told once.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Makes this generation what Postfix reads.
    ///
    /// When the future is dropped the child is killed and the old map serves.
    ///
    /// # Errors
    /// Says which step failed and why. Nothing is left behind, and the next attempt starts afresh.
    pub async fn publish(&mut self, generation: &Generation) -> Result<(), NotPublished> {
        match self.attempt(generation, &self.path).await {
            Ok(placed) => {
                self.placed = placed;
                Ok(())
            }
            Err((step, why)) => Err(self.failed(step, why).await),
        }
    }

    /// What is said of a publication that was given up.
    pub fn given_up(&self) -> NotPublished {
        let why = "it took too long, for clients whose time is up stand in the map".to_owned();
        NotPublished { map: self.table(), step: Step::Build, why }
    }

    async fn failed(&self, step: Step, why: String) -> NotPublished {
        let path = self.path.clone();
        // What cannot be removed now is met again, and told, at the next attempt.
        let _ = self.with_disk(move || clear(&path)).await;
        NotPublished { map: self.table(), step, why }
    }

    /// Lays up a map without any entry beside the map, for [`Self::empty`], unless one is there.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn prepare_fallback(&self) -> Result<(), NotPublished> {
        let reserve = self.reserve_path();
        if self.with_disk(move || ends(&reserve)).await.is_ok_and(|ends| ends.len() == 2) {
            return Ok(());
        }
        let nobody = Generation { number: 0, addresses: Vec::new() };
        match self.attempt(&nobody, &self.reserve_path()).await {
            Ok(_) => Ok(()),
            Err((step, why)) => Err(self.failed(step, why).await),
        }
    }

    /// Puts the reserve into place: for that it takes neither postmap nor room on the disk, not
    /// even for the name of a file. Another one has to be laid up then.
    ///
    /// # Errors
    /// There is no reserve, or it cannot be put there.
    pub async fn empty(&mut self) -> io::Result<()> {
        let (reserve, path) = (self.reserve_path(), self.path.clone());
        let placed = self.with_disk(move || {
            clear(&path)?;
            let mut ends = ends(&reserve)?;
            // The compiled file first, as always.
            ends.sort_unstable_by_key(String::is_empty);
            if ends.is_empty() && !path.exists() {
                // There has never been one, and nobody stands in it.
                return Ok(Vec::new());
            }
            if ends.len() != 2 {
                return Err(io::Error::other("no empty map was laid up"));
            }
            let mut placed = Vec::new();
            for end in ends {
                let place = files::with_suffix(&path, &end);
                placed.push(put(&files::with_suffix(&reserve, &end), place)?);
            }
            files::sync(directory(&path))?;
            Ok(placed)
        });
        self.placed = placed.await?;
        Ok(())
    }

    /// A file of the last publication that somebody else has removed, replaced or written to.
    pub async fn modified_externally(&self) -> Option<PathBuf> {
        let placed = self.placed.clone();
        let differs = |(path, as_placed): &(PathBuf, FileStamp)| {
            files::file_stamp(path).map_or(true, |found| found != *as_placed)
        };
        let found = self.with_disk(move || Ok(placed.into_iter().find(differs))).await;
        found.ok().flatten().map(|(path, _)| path)
    }

    /// Builds a generation and puts it there.
    async fn attempt(
        &self,
        generation: &Generation,
        place: &Path,
    ) -> Result<Vec<(PathBuf, FileStamp)>, (Step, String)> {
        let text = generation.text(self.value.as_str());
        let (new, path) = (self.new_path(), self.path.clone());
        self.with_disk(move || {
            clear(&path)?;
            files::write_new(&new, MODE, |file| file.write_all(text.as_bytes()))
        })
        .await
        .map_err(at(Step::Write))?;

        let built = table(&self.kind, &self.new_path());
        let mut postmap = self.postfix.postmap_command();
        child::run(postmap.args(["-r", &built]), build_limit(generation.addresses.len()))
            .await
            .map_err(at(Step::Build))?;

        let mut postmap = self.postfix.postmap_command();
        // Not the exit status above but this answer tells success: on a full disk postmap builds
        // an empty lmdb map and ends with status 0.
        let found = child::run(postmap.args(["-q", GENERATION_KEY, &built]), CHECK_LIMIT)
            .await
            .map_err(|trouble| match trouble {
                ChildError::Failed(_, said) if said.is_empty() => {
                    (Step::Check, format!("the entry {GENERATION_KEY} is not in it; a full disk?"))
                }
                trouble => (Step::Check, format!("looking up {GENERATION_KEY}: {trouble}")),
            })?;
        if found.trim_end() != generation.entry_value() {
            let found: String = found.trim_end().chars().take(40).collect();
            return Err((
                Step::Check,
                format!("it says {found:?} and not this generation's number"),
            ));
        }

        let (new, path) = (self.new_path(), place.to_owned());
        let compiled = self
            .with_disk(move || {
                let extension = compiled_extension(&new)?;
                let compiled = files::with_suffix(&new, &extension);
                files::sync(&compiled)?;
                put(&compiled, files::with_suffix(&path, &extension))
            })
            .await
            .map_err(at(Step::Install))?;

        let (new, path) = (self.new_path(), place.to_owned());
        let source = self
            .with_disk(move || {
                let source = put(&new, path)?;
                files::sync(directory(&source.0))?;
                Ok(source)
            })
            .await
            .map_err(at(Step::InstallSource))?;
        Ok(vec![compiled, source])
    }

    /// Waits for the disk on a thread that may wait.
    async fn with_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.turn);
        let work = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        spawn_blocking(work).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
    }

    /// A map without any entry, for the case that none can be built.
    fn reserve_path(&self) -> PathBuf {
        files::with_suffix(&self.path, ".empty")
    }

    /// A name of this process: a postmap that has outlived a killed daemon has another one.
    fn new_path(&self) -> PathBuf {
        files::with_suffix(&self.path, &format!(".new-{}", std::process::id()))
    }
}

fn at<E: fmt::Display>(step: Step) -> impl FnOnce(E) -> (Step, String) {
    move |error| (step, error.to_string())
}

/// Renames a file into its place; says what it is known by there.
fn put(new: &Path, place: PathBuf) -> io::Result<(PathBuf, FileStamp)> {
    let file_stamp = files::file_stamp(new)?;
    files::rename(new, &place)?;
    Ok((place, file_stamp))
}

fn table(kind: &str, path: &Path) -> String {
    format!("{kind}:{}", path.display())
}

fn build_limit(entries: usize) -> Duration {
    let tens_of_thousands = u32::try_from(entries / 10_000).unwrap_or(u32::MAX);
    BUILD_LIMIT.saturating_add(BUILD_LIMIT_MORE.saturating_mul(tens_of_thousands))
}

/// Makes sure that files can be made and replaced where the map shall be; returns a remark.
fn check_place(path: &Path) -> Result<Option<String>, Failure> {
    let directory = directory(path);
    if !directory.is_dir() {
        return Err(Failure::config(format!("{} is no directory", directory.display()))
            .hint("create it, owned by the user that runs this daemon, or change --map"));
    }
    if path.is_dir() {
        return Err(Failure::config(format!("{} is a directory", path.display()))
            .hint("name the file of the map itself in --map"));
    }
    if !is_ours(path) {
        let what = format!("{} is there and was not written by this program", path.display());
        return Err(Failure::config(what)
            .hint("name a file of its own in --map: what is in this one would be lost"));
    }
    // A name of our own: another process may be publishing there, as while `check` is run.
    let probe = files::with_suffix(path, &format!(".probe-{}", std::process::id()));
    let tried = files::remove(&probe).and_then(|()| files::write_new(&probe, MODE, |_| Ok(())));
    tried.and_then(|()| files::remove(&probe)).map_err(|error| {
        Failure::io(format!("no map can be written in {}: {error}", directory.display())).hint(
            "the directory must belong to the user that runs this daemon; \
             in a systemd unit StateDirectory= or ReadWritePaths= opens it",
        )
    })?;
    let open = fs::metadata(directory).is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0);
    Ok(open.then(|| trusted_file::open_directory(directory)))
}

/// Whether the source may be replaced: it is absent, says nothing, or holds our generation entry.
fn is_ours(path: &Path) -> bool {
    let file = match files::open(path, u64::MAX) {
        Ok(file) => file,
        // Neither regular nor a directory.
        Err(error) => return error.kind() != io::ErrorKind::InvalidInput,
    };
    let lines = io::BufReader::new(file).lines().map_while(Result::ok);
    let mut said = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    said.by_ref().next().is_none_or(|first| {
        first.starts_with(GENERATION_KEY) || said.any(|line| line.starts_with(GENERATION_KEY))
    })
}

/// Removes new sources and all that was built from them, also those of daemons that were killed.
fn clear(path: &Path) -> io::Result<()> {
    let new = files::with_suffix(path, ".new");
    for end in ends(&new)? {
        if end.is_empty() || end.starts_with(['.', '-']) {
            files::remove(&files::with_suffix(&new, &end))?;
        }
    }
    Ok(())
}

/// The extension of the one file that postmap built. It is looked for and not taken from a table,
/// because Postfix 3.11 may build `hash:` as lmdb or cdb (postfix-non-bdb(1)).
fn compiled_extension(new: &Path) -> io::Result<String> {
    let mut found = ends(new)?;
    found.retain(|end| end.starts_with('.'));
    match (found.pop(), found.is_empty()) {
        (Some(extension), true) => Ok(extension),
        (None, _) => Err(io::Error::other("postmap built no file")),
        (Some(_), false) => Err(io::Error::other("postmap built more than one file")),
    }
}

/// What follows this name in the names of the files that begin with it: nothing, `.db`, `.lmdb`.
fn ends(path: &Path) -> io::Result<Vec<String>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let beside = entry?.file_name();
        let end = beside.to_str().and_then(|beside| beside.strip_prefix(name.as_ref()));
        found.extend(end.map(str::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_our_own_files_are_cleared() {
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
        clear(&dir.path().join("clients")).expect("cleared");
        let left = |name: &&str| dir.path().join(name).exists();
        assert!(!ours.iter().any(left));
        assert!(others.iter().all(left));
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
            ("missing/clients", Some("missing is no directory")),
            ("clients.new/clients", Some("clients.new is no directory")),
            ("taken", Some("taken is a directory")),
            ("pipe", Some("pipe is there and was not written by this program")),
        ];
        for (name, expected) in rows {
            let outcome = check_place(&dir.path().join(name)).map_err(|e| e.to_string());
            match (outcome, expected) {
                (Ok(remark), None) => assert_eq!(remark, None),
                (Err(error), Some(part)) => assert!(error.contains(part), "{error}"),
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        }
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 3, "nothing new or missing");
    }
}
