//! Files that decide who may relay: one trust rule for all of them.
//!
//! - **Promise**: a file is read only if no one but root and the daemon's user can have written it:
//!   a regular file of bounded size that belongs to one of them and is not writable by group or
//!   others (an access control list shows in the group bits, acl(5)). A symbolic link to it must
//!   belong to one of them too. The file that is checked is the one that is read, and opening never
//!   blocks. A failure reports everything that is wrong with the file, and the command that fixes
//!   it.
//! - **Limits**: in a chain of symbolic links only the first is checked, but the final file always
//!   is.
//! - **Not here**: files of Postfix, and what a file contains.

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

/// The uid that the kernel reports for unmapped users, such as those of another user namespace
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
    /// The file breaks the rule: why, and what to do about it.
    Untrusted(String, String),
}

impl ReadFailure {
    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(&self.cause, ReadFailureCause::System(error) if error.kind() == ErrorKind::NotFound)
    }

    /// Returns whether the file exists and breaks the rule.
    pub fn is_untrusted(&self) -> bool {
        matches!(self.cause, ReadFailureCause::Untrusted(..))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Converts to a failure that names the kind of file; `hint` is for I/O errors.
    pub fn failure(self, make: fn(String) -> Failure, kind: &str, hint: &str) -> Failure {
        let path = self.path.display();
        match self.cause {
            ReadFailureCause::System(error) => {
                make(format!("cannot read the {kind} `{path}`: {error}")).hint(hint)
            }
            ReadFailureCause::Untrusted(why, fix) => {
                make(format!("the {kind} `{path}` is not trusted: {why}")).hint(fix)
            }
        }
    }
}

/// Opens a trusted file of at most `limit` bytes.
///
/// # Errors
/// I/O errors, and a file that breaks the rule.
pub fn open(path: &Path, limit: u64) -> Result<File, ReadFailure> {
    let file = follow(path)?;
    check_file(path, &file, limit, None)?;
    Ok(file)
}

/// Reads a trusted file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and I/O errors while reading.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadFailure> {
    let mut bytes = Vec::new();
    let mut file = open(path, limit)?.take(limit.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(|error| system(path, error))?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > limit {
        return Err(too_large(path, limit));
    }
    Ok(bytes)
}

/// Opens a trusted file of at most `limit` bytes that only the daemon writes: never through a link.
/// It may also belong to `owner`.
///
/// # Errors
/// As [`open`].
pub fn open_own(path: &Path, limit: u64, owner: u32) -> Result<File, ReadFailure> {
    let file = files::open_at_once(path, OFlag::O_NOFOLLOW).map_err(|error| {
        if is_link(&error) {
            let fix = format!("remove it: `rm {}`", path.display());
            untrusted(path, "it is a symbolic link".into(), fix)
        } else {
            system(path, error)
        }
    })?;
    check_file(path, &file, limit, Some(owner))?;
    Ok(file)
}

/// Lists a directory, to which the same rule applies: anyone who can write to it can add a file.
///
/// # Errors
/// As [`open`].
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadFailure> {
    let file = follow(directory)?;
    let found = file.metadata().map_err(|error| system(directory, error))?;
    if !found.is_dir() {
        let fix = "configure a directory".to_owned();
        return Err(untrusted(directory, "it is not a directory".into(), fix));
    }
    check_permissions(directory, &found, None)?;
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

/// Returns a remark for each directory of these files in which others could replace them.
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

/// Returns the remark on a directory that any user can write to.
pub fn open_directory(directory: &Path) -> String {
    let directory = directory.display();
    format!("any local user can write to {directory}, and so could authorise any address")
}

/// Opens a path, through a symbolic link only if that is trusted.
fn follow(path: &Path) -> Result<File, ReadFailure> {
    match files::open_at_once(path, OFlag::O_NOFOLLOW) {
        // Another user's link is not followed: merely opening a device may have an effect.
        Err(error) if is_link(&error) => {
            let link = fs::symlink_metadata(path).map_err(|error| system(path, error))?;
            if let Some((why, fix)) = foreign(link.uid(), ROOT) {
                let why = format!("it is a symbolic link, and {why}");
                let fix = fix.unwrap_or_else(|| format!("`chown -h root {}`", path.display()));
                return Err(untrusted(path, why, fix));
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

fn check_file(path: &Path, file: &File, limit: u64, own: Option<u32>) -> Result<(), ReadFailure> {
    let found = file.metadata().map_err(|error| system(path, error))?;
    if !found.is_file() {
        let fix = "configure a regular file".to_owned();
        return Err(untrusted(path, "it is not a regular file".into(), fix));
    }
    if found.len() > limit {
        return Err(too_large(path, limit));
    }
    check_permissions(path, &found, own)
}

/// Checks owner and mode. `own` is the expected owner of a file that only the daemon writes.
fn check_permissions(path: &Path, found: &Metadata, own: Option<u32>) -> Result<(), ReadFailure> {
    let (shown, owner) = (path.display(), own.unwrap_or(ROOT));
    let (mut wrong, mut fixes) = (Vec::new(), Vec::new());
    if let Some((why, fix)) = foreign(found.uid(), owner) {
        wrong.push(why);
        let owner = if owner == ROOT { "root".to_owned() } else { owner.to_string() };
        fixes.push(fix.unwrap_or_else(|| format!("`chown {owner} {shown}`")));
    }
    let writers = match found.mode() & 0o022 {
        0 => None,
        0o020 => Some(("its group", "g")),
        0o002 => Some(("others", "o")),
        _ => Some(("its group and others", "go")),
    };
    if let Some((who, letters)) = writers {
        wrong.push(format!("{who} can write to it (mode {:o})", found.mode() & 0o7777));
        fixes.push(format!("`chmod {letters}-w {shown}`"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let fix = fixes.join(" and ");
    let fix = match own {
        None => format!("check its contents, then run {fix}"),
        Some(_) => {
            format!(
                "if nobody else has written to it, run {fix}; else start without it: `rm {shown}`"
            )
        }
    };
    Err(untrusted(path, wrong.join(", and "), fix))
}

/// Returns why an owner is not trusted, and what to do if `chown` alone would not help.
fn foreign(found: u32, owner: u32) -> Option<(String, Option<String>)> {
    if [ROOT, geteuid().as_raw(), owner].contains(&found) {
        None
    } else if found == NOBODY {
        let why =
            format!("it belongs to user {found}, which may be any user outside the container");
        let fix = "outside the container, `chown` it to the user that is root inside, or to the \
                   daemon's user";
        Some((why, Some(fix.to_owned())))
    } else {
        Some((format!("it belongs to user {found}"), None))
    }
}

fn too_large(path: &Path, limit: u64) -> ReadFailure {
    untrusted(path, format!("it is larger than {limit} bytes"), "configure a smaller file".into())
}

fn untrusted(path: &Path, why: String, fix: String) -> ReadFailure {
    ReadFailure { path: path.to_owned(), cause: ReadFailureCause::Untrusted(why, fix) }
}

fn system(path: &Path, error: io::Error) -> ReadFailure {
    ReadFailure { path: path.to_owned(), cause: ReadFailureCause::System(error) }
}

#[cfg(test)]
mod tests;
