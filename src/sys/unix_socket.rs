//! Unix sockets as files: made safely, given to the right people, removed at the end.
//!
//! Promise  an old file is replaced only if it is a socket and nobody answers on it; until it is
//!          given to its users nobody else may write to it; only our own file is removed, and always,
//!          whether the daemon has served or has not even started.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode as FileMode, SFlag, fstat, umask};
use nix::unistd::{Gid, Group, fchownat, geteuid};
use tracing::warn;

use crate::error::Failure;

/// Longest path of a socket: `sun_path` of unix(7) with its final NUL.
const MAX_PATH: usize = 107;

/// Permission bits of a socket unless the administrator says otherwise: owner and group.
const DEFAULT_MODE: Mode = Mode(0o660);

/// The permission bits of a socket, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("`{text}` is no file mode; write it in octal, such as 0660")),
        }
    }
}

/// Where a Unix socket is, and who may open it: `/PATH[,mode=OCTAL][,group=NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: Mode,
    /// Its group, if not that of the process.
    pub group: Option<String>,
}

impl UnixSocket {
    /// A socket that its owner and their group may open.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: DEFAULT_MODE, group: None }
    }
}

impl FromStr for UnixSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let path = words.next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(format!("`{text}`: the path of a socket must be absolute"));
        }
        let mut socket = Self::at(path);
        for word in words {
            match word.split_once('=') {
                Some(("mode", mode)) => socket.mode = mode.parse()?,
                Some(("group", name)) if !name.is_empty() => socket.group = Some(name.to_owned()),
                _ => {
                    return Err(format!(
                        "`{text}`: after the path, `{word}` is neither mode=OCTAL nor group=NAME"
                    ));
                }
            }
        }
        Ok(socket)
    }
}

/// The file of a socket that was made here; it goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Sets mode and group, of the socket that was made here and of nothing else: whoever owns its
    /// directory may have put another file or a link into its place.
    ///
    /// # Errors
    /// There is no such group, it cannot be given the file, or another file stands in its place.
    pub fn give_to(&self, socket: &UnixSocket) -> Result<(), Failure> {
        let UnixSocket { mode, group, .. } = socket;
        let path = self.path.display();
        let file = self.open().map_err(|error| {
            Failure::io(format!("cannot set the mode of `{path}`: {error}"))
                .hint("its directory must belong to root or to the user that runs this daemon")
        })?;
        if let Some(name) = group {
            let group = Some(Gid::from_raw(group_id(name)?));
            fchownat(&file, "", None, group, AtFlags::AT_EMPTY_PATH).map_err(|error| {
                Failure::io(format!("cannot give `{path}` to the group `{name}`: {error}"))
                    .hint("run as root, or as a user who is in that group")
            })?;
        }
        // chmod(2) takes no descriptor that is open for its path alone (open(2), O_PATH).
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(opened, fs::Permissions::from_mode(mode.0))
            .map_err(|error| Failure::io(format!("cannot set the mode of `{path}`: {error}")))
    }

    /// The file itself, if it still is the socket that was made here.
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(&self.path, flags, FileMode::empty())?;
        let found = fstat(&file)?;
        let is_socket = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
        let is_ours =
            (found.st_dev, found.st_ino) == self.identity && found.st_uid == geteuid().as_raw();
        match is_socket && is_ours {
            true => Ok(file),
            false => Err(io::Error::other("somebody has put another file into its place")),
        }
    }
}

/// A group by its name, or by its number: a container need not have /etc/group.
fn group_id(name: &str) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let hint = format!("`groupadd --system {name}` makes one, or write its number");
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(Failure::config(format!("there is no group `{name}`")).hint(hint)),
        Err(error) => {
            Err(Failure::config(format!("cannot look up the group `{name}`: {error}")).hint(hint))
        }
    }
}

impl Drop for SocketFile {
    /// Removes the file, if it still is the one that was made here.
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// Makes a datagram socket at a path.
///
/// # Errors
/// The path is taken, or the socket cannot be made there.
pub fn bind_datagram(path: &Path) -> Result<(UnixDatagram, SocketFile), Failure> {
    bind(path, |path| UnixDatagram::unbound()?.connect(path), |path| UnixDatagram::bind(path))
}

/// Makes a listening stream socket at a path.
///
/// # Errors
/// The path is taken, or the socket cannot be made there.
pub fn bind_stream(path: &Path) -> Result<(UnixListener, SocketFile), Failure> {
    bind(path, |path| UnixStream::connect(path).map(drop), |path| UnixListener::bind(path))
}

fn bind<S>(
    path: &Path,
    answers: impl Fn(&Path) -> io::Result<()>,
    make: impl Fn(&Path) -> io::Result<S>,
) -> Result<(S, SocketFile), Failure> {
    let shown = path.display();
    if path.as_os_str().len() > MAX_PATH {
        let what = format!("the socket path `{shown}` is longer than {MAX_PATH} bytes");
        return Err(Failure::config(what).hint("choose a shorter one"));
    }
    make_room(path, answers)?;
    // Nobody may write before mode and group are set.
    let before = umask(FileMode::from_bits_truncate(0o177));
    let made = make(path);
    umask(before);
    let identity = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
    made.and_then(|socket| Ok((socket, identity(path)?)))
        .map(|(socket, identity)| (socket, SocketFile { path: path.to_owned(), identity }))
        .map_err(|error| {
            let failure = Failure::io(format!("cannot make the socket `{shown}`: {error}"));
            match path.parent().filter(|parent| !parent.is_dir()) {
                Some(parent) => failure.hint(format!(
                    "the directory `{}` does not exist; make it, owned by the daemon's user",
                    parent.display()
                )),
                None => failure.hint("the daemon's user must own its directory"),
            }
        })
}

fn make_room(path: &Path, answers: impl Fn(&Path) -> io::Result<()>) -> Result<(), Failure> {
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(_) => return Ok(()), // absent, or unreachable: then making it fails with the reason
    };
    if !found.file_type().is_socket() {
        let what = format!("`{shown}` is there and is no socket");
        return Err(Failure::io(what).hint("remove it, or name another path for the socket"));
    }
    match answers(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| {
                Failure::io(format!("cannot remove the old socket `{shown}`: {error}"))
            }),
        Err(error) => {
            Err(Failure::io(format!("cannot tell who uses the socket `{shown}`: {error}")))
        }
        Ok(()) => Err(Failure::io(format!("another process answers on the socket `{shown}`"))
            .hint("stop it first; `ss -xlp` shows which it is")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn who_may_open_a_socket_stands_behind_its_path() {
        let read = |text: &str| text.parse::<UnixSocket>();
        assert_eq!(read("/run/a.sock"), Ok(UnixSocket::at("/run/a.sock")));
        let socket = read("/run/a.sock,mode=0666,group=postfix").expect("a socket");
        assert_eq!((socket.mode, socket.group.as_deref()), (Mode(0o666), Some("postfix")));
        let path = PathBuf::from("/run/a.sock");
        assert_eq!(read("/run/a.sock,group=104").expect("a socket").path, path);
        for wrong in ["", "a.sock", "/a,mode=888", "/a,mode", "/a,group=", "/a,owner=root", "/a,b"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mode_and_group_are_those_of_the_socket_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, victim) = (dir.path().join("socket"), dir.path().join("victim"));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o7777;
        let (_socket, file) = bind_datagram(&path).expect("a socket");
        let with = |words: &str| format!("{},{words}", path.display()).parse().expect("a socket");
        file.give_to(&with("mode=0620")).expect("its own");
        assert_eq!(mode(&path), 0o620);

        fs::write(&victim, "").expect("a file");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).expect("set");
        let in_its_place: [&dyn Fn() -> io::Result<()>; 3] =
            [&|| symlink(&victim, &path), &|| fs::hard_link(&victim, &path), &|| {
                UnixDatagram::bind(&path).map(drop)
            }];
        for (number, put) in in_its_place.iter().enumerate() {
            fs::remove_file(&path).expect("removed");
            // The number of the socket's file must not come back.
            fs::write(dir.path().join(number.to_string()), "").expect("a file");
            put().expect("in its place");
            let before = mode(&path);
            let refused = file.give_to(&with("mode=0666,group=0")).expect_err("another one");
            let refused = refused.to_string();
            assert!(refused.contains("another file into its place"), "{refused}");
            assert_eq!((mode(&victim), mode(&path)), (0o600, before));
        }
    }
}
