//! Unix sockets as files: created safely, with mode and group, removed at the end.
//!
//! - **Promise**: an old file is replaced only if it is a socket on which nobody answers. Only the
//!   daemon's user can connect until mode and group are set. The socket file is removed on drop,
//!   also after a failed start, and never a file that someone else put in its place.

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

/// Longest path in bytes: `sun_path` of unix(7) without its final NUL.
const MAX_PATH: usize = 107;

/// Default permission bits: owner and group may connect.
const DEFAULT_MODE: Mode = Mode(0o660);

/// The permission bits of a socket, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("`{text}` is not a file mode; write it in octal, such as 0660")),
        }
    }
}

/// Path of a Unix socket, and who may connect: `/PATH[,mode=OCTAL][,group=NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: Mode,
    /// Its group, by default that of the process.
    pub group: Option<String>,
}

impl UnixSocket {
    /// Creates a socket with the default mode and group.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: DEFAULT_MODE, group: None }
    }
}

impl FromStr for UnixSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path = parts.next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(format!("`{text}`: the path of a socket must be absolute"));
        }
        let mut socket = Self::at(path);
        for part in parts {
            match part.split_once('=') {
                Some(("mode", mode)) => socket.mode = mode.parse()?,
                Some(("group", name)) if !name.is_empty() => socket.group = Some(name.to_owned()),
                _ => {
                    return Err(format!(
                        "`{text}`: after the path, `{part}` is neither mode=OCTAL nor group=NAME"
                    ));
                }
            }
        }
        Ok(socket)
    }
}

/// The file of a socket created here, removed on drop.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Sets mode and group of the socket created here, and of nothing else: the owner of its directory
    /// may have put another file or a link in its place.
    ///
    /// # Errors
    /// There is no such group, the group cannot be set, or the file was replaced.
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
                Failure::io(format!("cannot set the group of `{path}` to `{name}`: {error}"))
                    .hint("run as root, or as a user who is in that group")
            })?;
        }
        // chmod(2) takes no descriptor that is open for its path alone (open(2), O_PATH).
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(opened, fs::Permissions::from_mode(mode.0))
            .map_err(|error| Failure::io(format!("cannot set the mode of `{path}`: {error}")))
    }

    /// Opens the file, if it still is the socket created here.
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(&self.path, flags, FileMode::empty())?;
        let found = fstat(&file)?;
        let is_socket = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
        let is_ours =
            (found.st_dev, found.st_ino) == self.identity && found.st_uid == geteuid().as_raw();
        match is_socket && is_ours {
            true => Ok(file),
            false => Err(io::Error::other("another process has replaced the file")),
        }
    }
}

/// Looks up a group by name or number: a container may have no /etc/group.
fn group_id(name: &str) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let hint = format!("create it with `groupadd --system {name}`, or specify a group by number");
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(Failure::config(format!("there is no group `{name}`")).hint(hint)),
        Err(error) => {
            Err(Failure::config(format!("cannot look up the group `{name}`: {error}")).hint(hint))
        }
    }
}

impl Drop for SocketFile {
    /// Removes the file, if it still is the one created here.
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// Creates a datagram socket at a path.
///
/// # Errors
/// The path is taken, or the socket cannot be created.
pub fn bind_datagram(path: &Path) -> Result<(UnixDatagram, SocketFile), Failure> {
    bind(path, |path| UnixDatagram::unbound()?.connect(path), |path| UnixDatagram::bind(path))
}

/// Creates a listening stream socket at a path.
///
/// # Errors
/// The path is taken, or the socket cannot be created.
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
        return Err(Failure::config(what).hint("configure a shorter path"));
    }
    remove_stale(path, answers)?;
    // Nobody else may connect before mode and group are set.
    let before = umask(FileMode::from_bits_truncate(0o177));
    let made = make(path);
    umask(before);
    let identity = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
    made.and_then(|socket| Ok((socket, identity(path)?)))
        .map(|(socket, identity)| (socket, SocketFile { path: path.to_owned(), identity }))
        .map_err(|error| {
            let failure = Failure::io(format!("cannot create the socket `{shown}`: {error}"));
            match path.parent().filter(|parent| !parent.is_dir()) {
                Some(parent) => failure.hint(format!(
                    "the directory `{}` does not exist; create it, owned by the daemon's user",
                    parent.display()
                )),
                None => failure.hint("the daemon's user must be able to write to its directory"),
            }
        })
}

fn remove_stale(path: &Path, answers: impl Fn(&Path) -> io::Result<()>) -> Result<(), Failure> {
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(_) => return Ok(()), // absent, or unreachable: creating it fails with the reason
    };
    if !found.file_type().is_socket() {
        let what = format!("`{shown}` exists and is not a socket");
        return Err(Failure::io(what).hint("remove it, or configure another path for the socket"));
    }
    match answers(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| {
                Failure::io(format!("cannot remove the old socket `{shown}`: {error}"))
            }),
        Err(error) => Err(Failure::io(format!(
            "cannot find out whether the socket `{shown}` is in use: {error}"
        ))),
        Ok(()) => Err(Failure::io(format!("another process answers on the socket `{shown}`"))
            .hint("stop that process first; `ss -xlp` shows which it is")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn path_with_mode_and_group() {
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
    fn sets_mode_and_group_of_the_socket_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, victim) = (dir.path().join("socket"), dir.path().join("victim"));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o7777;
        let (_socket, file) = bind_datagram(&path).expect("a socket");
        let with =
            |options: &str| format!("{},{options}", path.display()).parse().expect("a socket");
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
            // Keeps the inode number of the socket file from being reused.
            fs::write(dir.path().join(number.to_string()), "").expect("a file");
            put().expect("in its place");
            let before = mode(&path);
            let refused = file.give_to(&with("mode=0666,group=0")).expect_err("replaced");
            let refused = refused.to_string();
            assert!(refused.contains("has replaced the file"), "{refused}");
            assert_eq!((mode(&victim), mode(&path)), (0o600, before));
        }
    }
}
