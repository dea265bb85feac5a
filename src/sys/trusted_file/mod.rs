//! Files that decide who may relay: one rule for all of them.
//!
//! Promise  a file is read only if nobody but root and the daemon's user can have written it: a
//!          regular file of bounded size that belongs to one of them and is not writable for group
//!          or others (an access control list shows in the group's bits, acl(5)). If its name is a
//!          symbolic link, that belongs to one of them too. What is opened is what is examined,
//!          and opening never waits. All that is wrong with a file is said at once, with the
//!          command that mends it.
//! Limits   of links that lead to links only the first is examined, but the file at their end
//!          always is.
//! Not here files of Postfix, and what a file says.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::files;
use crate::error::Failure;

/// What the kernel calls every user that it cannot name, such as one of another user namespace
/// (user_namespaces(7), `overflowuid`).
pub const NOBODY: u32 = 65_534;
const ROOT: u32 = 0;

/// Why a file was not read.
#[derive(Debug)]
pub struct ReadFailure {
    path: PathBuf,
    cause: ReadFailureCause,
}

#[derive(Debug)]
enum ReadFailureCause {
    System(io::Error),
    /// It breaks the rule; what to do about it.
    Untrusted(String, String),
}

impl ReadFailure {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(&self.cause, ReadFailureCause::System(error) if error.kind() == ErrorKind::NotFound)
    }

    /// Whether there is one that breaks the rule.
    pub fn is_untrusted(&self) -> bool {
        matches!(self.cause, ReadFailureCause::Untrusted(..))
    }

    /// As the failure of a kind of file; `hint` is for what the operating system refuses.
    pub fn failure(self, make: fn(String) -> Failure, kind: &str, hint: &str) -> Failure {
        let path = self.path.display();
        match self.cause {
            ReadFailureCause::System(error) => {
                make(format!("cannot read the {kind} `{path}`: {error}")).hint(hint)
            }
            ReadFailureCause::Untrusted(why, mend) => {
                make(format!("the {kind} `{path}` is not trusted: {why}")).hint(mend)
            }
        }
    }
}

/// Opens a file of at most `limit` bytes that an administrator has written.
///
/// # Errors
/// As the operating system says, and what breaks the rule.
pub fn open(path: &Path, limit: u64) -> Result<File, ReadFailure> {
    let file = follow(path)?;
    examine_file(path, &file, limit, None)?;
    Ok(file)
}

/// Reads a file of at most `limit` bytes that an administrator has written.
///
/// # Errors
/// As [`open`], and what the operating system says while it is read.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadFailure> {
    let mut bytes = Vec::new();
    let mut file = open(path, limit)?.take(limit.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(|error| system(path, error))?;
    // It has grown meanwhile.
    if bytes.len() as u64 > limit {
        return Err(too_large(path, limit));
    }
    Ok(bytes)
}

/// Opens a file of at most `limit` bytes that only the daemon writes: no link leads to it. It may
/// belong to `owner` besides.
///
/// # Errors
/// As [`open`].
pub fn open_own(path: &Path, limit: u64, owner: u32) -> Result<File, ReadFailure> {
    let file = files::open_at_once(path, OFlag::O_NOFOLLOW).map_err(|error| {
        if is_link(&error) {
            let mend = format!("remove it: `rm {}`", path.display());
            untrusted(path, "it is a symbolic link".into(), mend)
        } else {
            system(path, error)
        }
    })?;
    examine_file(path, &file, limit, Some(owner))?;
    Ok(file)
}

/// The files of a directory that keeps to the same rule: whoever may write to it can add a file.
///
/// # Errors
/// As [`open`].
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadFailure> {
    let file = follow(directory)?;
    let found = file.metadata().map_err(|error| system(directory, error))?;
    if !found.is_dir() {
        let mend = "name a directory".to_owned();
        return Err(untrusted(directory, "it is no directory".into(), mend));
    }
    examine_rights(directory, &found, None)?;
    let failed = |error: Errno| system(directory, error.into());
    let mut entries = Dir::from_fd(OwnedFd::from(file)).map_err(failed)?;
    let mut paths = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(failed)?;
        let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
        paths.push(directory.join::<&std::ffi::OsStr>(name));
    }
    Ok(paths)
}

/// A remark for each directory of these files in which others could put something in their place.
pub fn remarks<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    let place = |file: &'a Path| match files::directory(file) {
        here if here.as_os_str().is_empty() => Path::new("."),
        directory => directory,
    };
    let directories: BTreeSet<_> = files.into_iter().map(place).collect();
    let is_open = |directory: &&Path| {
        // With the sticky bit only the owner of a file can remove or rename it.
        fs::metadata(directory).is_ok_and(|found| found.mode() & 0o1002 == 0o002)
    };
    directories.into_iter().filter(is_open).map(open_directory).collect()
}

/// What is said of a directory in which any user may write.
pub fn open_directory(directory: &Path) -> String {
    let directory = directory.display();
    format!("any user of this host may write in {directory}, and could let any address relay")
}

/// Opens what is at a path, through a link only if that is trusted.
fn follow(path: &Path) -> Result<File, ReadFailure> {
    match files::open_at_once(path, OFlag::O_NOFOLLOW) {
        // A link of a stranger is not followed: to open a device may be to use it.
        Err(error) if is_link(&error) => {
            let link = fs::symlink_metadata(path).map_err(|error| system(path, error))?;
            if let Some((why, whose)) = foreign(link.uid(), ROOT) {
                let why = format!("it is a symbolic link, and {why}");
                let mend = whose.unwrap_or_else(|| format!("`chown -h root {}`", path.display()));
                return Err(untrusted(path, why, mend));
            }
            files::open_at_once(path, OFlag::empty())
        }
        opened => opened,
    }
    .map_err(|error| system(path, error))
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

fn examine_file(path: &Path, file: &File, limit: u64, own: Option<u32>) -> Result<(), ReadFailure> {
    let found = file.metadata().map_err(|error| system(path, error))?;
    if !found.is_file() {
        let mend = "name a regular file".to_owned();
        return Err(untrusted(path, "it is not a regular file".into(), mend));
    }
    if found.len() > limit {
        return Err(too_large(path, limit));
    }
    examine_rights(path, &found, own)
}

/// Whose it is and who may write to it. `own` is the user who should have it, if it is not for
/// administrators to write.
fn examine_rights(path: &Path, found: &Metadata, own: Option<u32>) -> Result<(), ReadFailure> {
    let (shown, owner) = (path.display(), own.unwrap_or(ROOT));
    let (mut wrong, mut mend) = (Vec::new(), Vec::new());
    if let Some((why, whose)) = foreign(found.uid(), owner) {
        wrong.push(why);
        let owner = if owner == ROOT { "root".to_owned() } else { owner.to_string() };
        mend.push(whose.unwrap_or_else(|| format!("`chown {owner} {shown}`")));
    }
    let writers = match found.mode() & 0o022 {
        0 => None,
        0o020 => Some(("its group", "g")),
        0o002 => Some(("others", "o")),
        _ => Some(("its group and others", "go")),
    };
    if let Some((who, letters)) = writers {
        wrong.push(format!("{who} may write to it (mode {:o})", found.mode() & 0o7777));
        mend.push(format!("`chmod {letters}-w {shown}`"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let mend = mend.join(" and ");
    let mend = match own {
        None => format!("look through what it says, then {mend}"),
        Some(_) => {
            format!("if nobody else has written to it, {mend}; else start without it: `rm {shown}`")
        }
    };
    Err(untrusted(path, wrong.join(", and "), mend))
}

/// Why an owner is not trusted, and what to do where `chown` alone would not help.
fn foreign(found: u32, owner: u32) -> Option<(String, Option<String>)> {
    if [ROOT, geteuid().as_raw(), owner].contains(&found) {
        None
    } else if found == NOBODY {
        let why = format!("it belongs to the user {found}, who may be anybody outside a container");
        let mend = "outside the container, give it to the user who is root inside, or to the \
                    daemon's";
        Some((why, Some(mend.to_owned())))
    } else {
        Some((format!("it belongs to the user {found}"), None))
    }
}

fn too_large(path: &Path, limit: u64) -> ReadFailure {
    untrusted(path, format!("it is larger than {limit} bytes"), "name another file".into())
}

fn untrusted(path: &Path, why: String, mend: String) -> ReadFailure {
    ReadFailure { path: path.to_owned(), cause: ReadFailureCause::Untrusted(why, mend) }
}

fn system(path: &Path, error: io::Error) -> ReadFailure {
    ReadFailure { path: path.to_owned(), cause: ReadFailureCause::System(error) }
}

#[cfg(test)]
mod tests;
