//! What two installations, or a start by hand, leave behind for the service.
//!
//! - **Promise**: a socket that systemd passes is not bound again: that is a fault of the
//!   configuration, because no restart can mend it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use crate::config::Config;
use crate::config::values::Listen;
use crate::error::Failure;

/// The user of the service.
const SERVICE_USER: &str = "pop-before-smtp";
/// The socket unit.
const SOCKET_UNIT: &str = "pop-before-smtp.socket";
/// The service unit.
const SERVICE_UNIT: &str = "pop-before-smtp.service";
/// Where the guide's manual installation puts the program.
const OWN_PROGRAM: &str = "usr/local/bin/pop-before-smtp";
/// Where administrators and where packages install units (systemd.unit(5)); the first wins.
const UNIT_DIRS: [&str; 4] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Returns a fault for each socket that the configuration names although systemd passes it.
pub fn sockets_named_twice(config: &Config, passed: &[PathBuf]) -> Vec<Failure> {
    let named = config.listen.iter().filter_map(|listen| match listen {
        Listen::Unix(socket) => Some(&socket.path),
        Listen::Udp(_) => None,
    });
    named.filter(|path| passed.contains(path)).map(|path| twice(config, path)).collect()
}

fn twice(config: &Config, path: &Path) -> Failure {
    let file = config.layer.file.as_deref().filter(|_| config.layer.in_file.contains("listen"));
    let place = file.map_or_else(String::new, |file| format!(" in `{}`", file.display()));
    let what = format!(
        "listen: systemd passes `{}`, the socket of {SOCKET_UNIT}; delete it from `listen`{place}",
        path.display()
    );
    let restart = format!("systemctl restart {SERVICE_UNIT}");
    let hint = match file.filter(|file| config.listen.len() == 1 && has_listen_line(file)) {
        Some(file) => format!("sed -i 's/^listen *=/#&/' {} && {restart}", file.display()),
        None => format!("then: {restart}"),
    };
    Failure::config(what).hint(hint)
}

/// Returns whether a file has `listen` and its value in one line.
fn has_listen_line(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("listen")).map(str::trim);
    lines.any(|rest| rest.starts_with('=') && rest.ends_with([']', '"', '\'']))
}

/// Returns the paths of the sockets that systemd has passed to this process.
pub fn passed_paths(count: usize) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = |inode: &str| {
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.find(|row| row.get(6) == Some(&inode)).and_then(|row| row.get(7).map(PathBuf::from))
    };
    // sd_listen_fds(3): the first is 3.
    let links = (3..3 + count).filter_map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok());
    let inodes = links.filter_map(|link| {
        let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(name.to_owned())
    });
    inodes.filter_map(|inode| path(&inode)).collect()
}

/// Returns the paths that systemd will pass to the service: those of the socket unit, if it is enabled
/// or the service requires it. `root` is the directory that holds the host's files.
pub fn paths_of_unit(root: &Path) -> Vec<PathBuf> {
    if !root.join("run/systemd/system").is_dir() {
        return Vec::new();
    }
    let read = |unit: &str| {
        let mut texts = UNIT_DIRS.iter().map(|dir| fs::read_to_string(root.join(dir).join(unit)));
        texts.find_map(Result::ok).unwrap_or_default()
    };
    let link = root.join(UNIT_DIRS[0]).join("sockets.target.wants").join(SOCKET_UNIT);
    let is_required = read(SERVICE_UNIT).lines().any(|line| {
        line.strip_prefix("Requires=").is_some_and(|units| units.contains(SOCKET_UNIT))
    });
    if !is_required && link.symlink_metadata().is_err() {
        return Vec::new();
    }
    let text = read(SOCKET_UNIT);
    let values = text.lines().filter_map(|line| line.trim().strip_prefix("ListenDatagram="));
    values.map(|value| PathBuf::from(value.trim())).filter(|path| path.is_absolute()).collect()
}

/// Returns a fault if a unit installed by hand hides that of a package.
pub fn hidden_unit(root: &Path) -> Option<Failure> {
    let of_package = UNIT_DIRS[2..].iter().map(|dir| root.join(dir).join(SERVICE_UNIT));
    let of_package = of_package.into_iter().find(|path| path.is_file())?;
    // A link is how `systemctl enable` names an alias, and how it masks a unit.
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        is_file && name.to_str().is_some_and(|name| name.starts_with("pop-before-smtp"))
    };
    let entries = fs::read_dir(root.join(UNIT_DIRS[0])).ok()?.flatten();
    let mut own: Vec<PathBuf> = entries.filter(is_ours).map(|entry| entry.path()).collect();
    let hides = own.iter().find(|path| path.ends_with(SERVICE_UNIT))?.clone();
    own.extend(Some(root.join(OWN_PROGRAM)).filter(|path| path.is_file()));
    own.sort();
    let own: Vec<_> = own.iter().map(|path| path.display().to_string()).collect();
    let what = format!(
        "`{}`, installed by hand, hides the package's `{}`: upgrades of the package have no effect",
        hides.display(),
        of_package.display()
    );
    Some(Failure::config(what).hint(format!(
        "rm {} && systemctl daemon-reload && systemctl reenable {SOCKET_UNIT} {SERVICE_UNIT} && systemctl \
         restart {SOCKET_UNIT} {SERVICE_UNIT}",
        own.join(" ")
    )))
}

/// Returns a warning if root runs the daemon by hand where it has a user of its own.
pub fn run_as_root(config: &Config) -> Option<String> {
    let has_user = || matches!(User::from_name(SERVICE_USER), Ok(Some(_)));
    if config.dry_run || !geteuid().is_root() || !has_user() {
        return None;
    }
    let state = config.state.as_deref().map(Path::to_path_buf);
    let map = config.map.as_ref().map(|map| map.path.clone());
    let left: Vec<String> =
        state.into_iter().chain(map).map(|path| format!("`{}*`", path.display())).collect();
    let left = if left.is_empty() { "its sockets".to_owned() } else { left.join(", ") };
    Some(format!(
        "this daemon runs as root, although there is the user {SERVICE_USER}: {left} will belong to \
         root, and the service cannot use them. Afterwards `chown {SERVICE_USER}: ` them, or run \
         `systemctl start pop-before-smtp` instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layer::Layer;
    use crate::config::lookups::SocketRole;

    #[test]
    fn a_socket_of_systemd_is_not_named_again() {
        let layer =
            Layer::from_toml("listen = ['unix:/run/a.sock', 'udp:127.0.0.1:514']\ndry-run = true")
                .expect("a layer");
        let config = Config::from_layer(&layer, &[SocketRole::Frames]).expect("sound");
        assert_eq!(sockets_named_twice(&config, &["/run/b.sock".into()]).len(), 0);
        let faults = sockets_named_twice(&config, &["/run/a.sock".into()]);
        let said = faults.iter().map(Failure::to_string).collect::<String>();
        assert!(faults.len() == 1 && said.contains("/run/a.sock"), "{said}");
        assert!(said.contains("delete it from `listen`"), "{said}");
    }

    #[test]
    fn installed_units_are_found() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        let unit = "[Socket]\nListenDatagram=/run/a.sock\nSocketMode=0660\n";
        write("usr/lib/systemd/system/pop-before-smtp.socket", unit);
        write("usr/lib/systemd/system/pop-before-smtp.service", "");
        assert_eq!(paths_of_unit(root.path()), Vec::<PathBuf>::new(), "systemd does not run");
        fs::create_dir_all(root.path().join("run/systemd/system")).expect("a directory");
        assert_eq!(paths_of_unit(root.path()), Vec::<PathBuf>::new(), "nothing wants the socket");
        write("etc/systemd/system/sockets.target.wants/pop-before-smtp.socket", "");
        assert_eq!(paths_of_unit(root.path()), [PathBuf::from("/run/a.sock")]);
        assert!(hidden_unit(root.path()).is_none());
        fs::remove_dir_all(root.path().join("etc/systemd")).expect("removed");
        write("etc/systemd/system/pop-before-smtp.service", "Requires=pop-before-smtp.socket\n");
        write("etc/systemd/system/pop-before-smtp.socket", &unit.replace("/run/a", "/run/b"));
        assert_eq!(paths_of_unit(root.path()), [PathBuf::from("/run/b.sock")]);
        write("usr/local/bin/pop-before-smtp", "");
        let fault = hidden_unit(root.path()).expect("a fault");
        let hint =
            fault.hint_text().expect("a hint").replace(&root.path().display().to_string(), "");
        assert!(hint.starts_with(
            "rm /etc/systemd/system/pop-before-smtp.service /etc/systemd/system/pop-before-smtp.socket \
             /usr/local/bin/pop-before-smtp && systemctl daemon-reload"
        ), "{hint}");
    }
}
