//! What another user may access: whether they can reach a file, and what they may do with it.
//!
//! - **Limits**: mode bits only, as path_resolution(7) and inode(7) define them; no access control
//!   lists and no security modules.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, getgrouplist};

/// The access needed; a bit of a file mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read the file.
    Read = 4,
    /// Write to the file, or connect to the socket.
    Write = 2,
    /// Search the directory.
    Pass = 1,
}

/// A user with all their groups.
#[derive(Clone, Debug)]
pub struct UserAccount {
    /// The user name.
    pub name: String,
    uid: u32,
    groups: Vec<u32>,
}

/// What denies a user access.
#[derive(Debug)]
pub enum Obstacle {
    /// This file or directory lacks the permission.
    Closed(PathBuf, Permission),
    /// This file or directory does not exist, or we cannot see it.
    Unseen(PathBuf, io::Error),
}

impl UserAccount {
    /// Looks up a user by name.
    pub fn named(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok()??;
        let own = [user.gid];
        let groups = CString::new(name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
        let groups = groups.unwrap_or_else(|| own.to_vec()).into_iter().map(Gid::as_raw).collect();
        Some(Self { name: name.to_owned(), uid: user.uid.as_raw(), groups })
    }

    fn may(&self, need: Permission, meta: &fs::Metadata) -> bool {
        let shift = match meta.uid() {
            owner if owner == self.uid => 6,
            _ if self.groups.contains(&meta.gid()) => 3,
            _ => 0,
        };
        self.uid == 0 || meta.mode() >> shift & need as u32 != 0
    }

    /// Returns what denies this access to a file, starting at a directory above it. Symbolic links are
    /// resolved first.
    pub fn obstacle(&self, from: &Path, path: &Path, need: Permission) -> Option<Obstacle> {
        let (from, path) = match (real(from), real(path)) {
            (Ok(from), Ok(path)) => (from, path),
            (Err(error), _) | (_, Err(error)) => {
                return Some(Obstacle::Unseen(path.to_owned(), error));
            }
        };
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&from));
        let mut steps: Vec<_> = above.map(|above| (above, Permission::Pass)).collect();
        steps.reverse();
        steps.push((&path, need));
        steps.into_iter().find_map(|(step, need)| match fs::metadata(step) {
            Ok(meta) if self.may(need, &meta) => None,
            Ok(_) => Some(Obstacle::Closed(step.to_owned(), need)),
            Err(error) => Some(Obstacle::Unseen(step.to_owned(), error)),
        })
    }
}

/// Resolves symbolic links; the file itself may be missing.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path).or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn obstacles() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("in/file");
        fs::create_dir(dir.path().join("in")).expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::write(&file, "").expect("a file");
        let meta = fs::metadata(&file).expect("a file");
        let user =
            |uid: u32, group: u32| UserAccount { name: "x".into(), uid, groups: vec![group] };
        let (owner, group) = (meta.uid(), meta.gid());
        let other = (owner + 70_001, group + 70_001);
        let rows = [
            (0o755, 0o644, other, Permission::Read, None),
            (0o755, 0o644, other, Permission::Write, Some("file")),
            (0o750, 0o644, other, Permission::Read, Some("in")),
            (0o750, 0o640, (other.0, group), Permission::Read, None),
            (0o750, 0o604, (other.0, group), Permission::Read, Some("file")),
            (0o710, 0o660, (other.0, group), Permission::Write, None),
        ];
        for (outer, inner, (uid, group), need, expected) in rows {
            for (path, mode) in [(file.parent().expect("above"), outer), (&file, inner)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
            }
            let found = user(uid, group).obstacle(dir.path(), &file, need);
            let found = found.map(|obstacle| match obstacle {
                Obstacle::Closed(path, _) | Obstacle::Unseen(path, _) => path,
            });
            let name = found.as_ref().and_then(|path| path.file_name()).and_then(|n| n.to_str());
            assert_eq!(name, expected, "{outer:o} {inner:o} {need:?}");
        }
        assert!(user(0, 0).obstacle(dir.path(), &file, Permission::Write).is_none(), "root");
        let missing =
            user(0, 0).obstacle(dir.path(), &dir.path().join("missing"), Permission::Read);
        assert!(matches!(missing, Some(Obstacle::Unseen(..))), "{missing:?}");
    }
}
