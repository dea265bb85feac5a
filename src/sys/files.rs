//! Whole files: replaced atomically, read within a limit.
//!
//! - **Promise**: after [`replace`] the new content is on the disk under its name, or the old file
//!   is untouched. Every error names the file it is about.
//! - **Not here**: threads. These calls wait for the disk and belong on a thread that may block.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Replaces a file by what `content` writes, with these permission bits whatever the umask.
///
/// # Errors
/// I/O errors. The old file then stays as it was, unless only syncing the directory failed.
pub fn replace(
    path: &Path,
    mode: u32,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let beside = with_suffix(path, ".tmp");
    remove(&beside)?;
    write_new(&beside, mode, content)
        .and_then(|()| rename(&beside, path))
        .inspect_err(|_| drop(fs::remove_file(&beside)))?;
    sync(directory(path))
}

/// Creates a file that must not exist yet, and syncs it.
///
/// # Errors
/// I/O errors; a partial file may remain.
pub fn write_new(
    path: &Path,
    mode: u32,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        content(&mut file)?;
        file.sync_all()
    };
    write().map_err(|e| about(path, &e))
}

/// Renames a file, replacing another. Durable only once the directory is synced.
///
/// # Errors
/// I/O errors.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|e| about(to, &e))
}

/// Syncs a file or directory that another process wrote.
///
/// # Errors
/// I/O errors.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| about(path, &e))
}

/// Removes a file; succeeds if there is none.
///
/// # Errors
/// I/O errors.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(about(path, &e)),
        _ => Ok(()),
    }
}

/// Opens a regular file of at most `limit` bytes.
///
/// # Errors
/// I/O errors, a larger file, and anything that is not a regular file.
pub fn open(path: &Path, limit: u64) -> io::Result<File> {
    let open = || {
        let file = open_at_once(path, OFlag::empty())?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(not_regular());
        }
        if metadata.len() > limit {
            let what = format!("larger than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        Ok(file)
    };
    open().map_err(|e| about(path, &e))
}

/// Opens a path for reading without blocking, not even on a pipe or a terminal. A terminal does not
/// become the daemon's controlling terminal.
///
/// # Errors
/// I/O errors, without the path.
pub fn open_at_once(path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        // A socket (open(2), ENXIO).
        Some(code) if code == Errno::ENXIO as i32 => not_regular(),
        _ => error,
    })
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and I/O errors while reading.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, limit)?.take(limit).read_to_end(&mut bytes).map_err(|e| about(path, &e))?;
    Ok(bytes)
}

/// The identity of a file: it changes when the file is replaced or written to, but not when it is
/// renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
}

impl FileStamp {
    /// Returns the stamp of a file with this metadata.
    pub fn of(found: &Metadata) -> Self {
        Self {
            inode: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// Returns the stamp of the file at a path. A symbolic link has its own.
///
/// # Errors
/// I/O errors.
pub fn file_stamp(path: &Path) -> io::Result<FileStamp> {
    fs::symlink_metadata(path).map(|found| FileStamp::of(&found)).map_err(|e| about(path, &e))
}

/// Returns the directory of a file.
pub fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Returns the path with `suffix` appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn replaces_a_whole_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        fs::write(dir.path().join("state.tmp"), "leftover of a crash").expect("a file");
        for text in ["first", "second"] {
            replace(&path, 0o600, |file| file.write_all(text.as_bytes())).expect("written");
            assert_eq!(read(&path, 6).expect("read"), text.as_bytes());
        }
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).expect("there").count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn failed_replacement_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("taken");
        fs::create_dir(&path).expect("a directory");
        let error = replace(&path, 0o600, |file| file.write_all(b"text"));
        let error = error.expect_err("a directory is in the way");
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn stamp_tells_files_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, moved) = (dir.path().join("file"), dir.path().join("moved"));
        fs::write(&path, "12345").expect("a file");
        let before = file_stamp(&path).expect("there");
        rename(&path, &moved).expect("renamed");
        assert_eq!(file_stamp(&moved).expect("there"), before);
        assert!(file_stamp(&path).is_err());
        fs::write(&path, "12345").expect("a file");
        assert_ne!(file_stamp(&path).expect("there"), before, "same text, another file");
        fs::write(&moved, "123456").expect("a file");
        assert_ne!(file_stamp(&moved).expect("there"), before, "another text, same file");
    }

    #[test]
    fn reading_has_a_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, "12345").expect("a file");
        assert_eq!(read(&path, 5).expect("fits"), b"12345");
        let rows = [
            (path.as_path(), 4, "larger than 4 bytes"),
            (dir.path(), 4, "not a regular file"),
            (Path::new("/dev/null"), 4, "not a regular file"),
            (Path::new("/nowhere/file"), 4, "/nowhere/file: No such file"),
        ];
        for (path, limit, expected) in rows {
            let error = read(path, limit).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
