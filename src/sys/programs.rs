//! Where the programs of other packages are.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Where to find a program that is not in PATH: a daemon's PATH may lack sbin.
pub const FALLBACK_PATH: &str = "/usr/sbin:/usr/bin:/usr/local/sbin";

/// Finds a program in PATH or [`FALLBACK_PATH`].
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(name, &path).or_else(|| find_in(name, OsStr::new(FALLBACK_PATH)))
}

/// Finds a program in a colon-separated list of directories; skips relative ones.
fn find_in(name: &str, directories: &OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(directories)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn finds_programs() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for (directory, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(directory).expect("a directory");
            let program = directory.join("postmap");
            fs::write(&program, "").expect("a file");
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("mode");
        }
        let path = env::join_paths([Path::new("."), &first, &second]).expect("a path");
        assert_eq!(find_in("postmap", &path), Some(second.join("postmap")));
        assert_eq!(find_in("postconf", &path), None);
        assert_eq!(find_in("postmap", OsStr::new("")), None);
    }
}
