//! systemd's units of the daemon, and the owners of its files.
//!
//! - **Not here**: services of other supervisors, which name neither their user nor their sockets.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use super::super::findings::Report;
use crate::config::DEFAULT_CONTROL;
use crate::config::DEFAULT_STATE;
use crate::config::layer::Layer;
use crate::daemon::installation;

const SERVICE: &str = "pop-before-smtp.service";
/// The services without which a login does not count, or its mail is not accepted. A mail daemon may be
/// started by its socket.
const AT_BOOT: [&str; 4] = [SERVICE, "rsyslog.service", "syslog-ng.service", "postfix.service"];
/// What a directory of the daemon has in its name: others are shared with other programs.
const OURS: &str = "pop-before-smtp";

/// Returns the user of the service, if systemd has loaded one with a user of its own.
fn service_user() -> Option<User> {
    let service = properties(SERVICE)?;
    let user = service.get("User").filter(|name| !name.is_empty() && *name != "root")?;
    User::from_name(user).ok().flatten()
}

/// Returns the command that starts the daemon here.
pub fn start() -> String {
    let is_file = |path: &str| Path::new(path).is_file();
    if is_loaded() {
        return "systemctl start pop-before-smtp".into();
    }
    if is_file("/etc/init.d/pop-before-smtp") {
        return "rc-service pop-before-smtp start".into();
    }
    if is_file("/etc/rc.d/rc.pop-before-smtp") {
        return "/etc/rc.d/rc.pop-before-smtp start".into();
    }
    match User::from_name(OURS) {
        Ok(Some(_)) => format!(
            "setpriv --reuid {OURS} --regid {OURS} --init-groups pop-before-smtp run  # starts it in the \
             foreground: it is no service yet"
        ),
        _ => "install the package, or start the daemon by hand: there is neither a service nor a user \
              pop-before-smtp yet"
            .into(),
    }
}

/// Returns the command that makes the daemon read its configuration again.
pub fn reload() -> &'static str {
    if is_loaded() { "systemctl reload pop-before-smtp" } else { "send the daemon a SIGHUP" }
}

/// Returns whether systemd knows the service.
pub fn is_loaded() -> bool {
    properties(SERVICE).is_some()
}

/// Reports services that run now, and will not after the next boot.
fn boot(report: &mut Report) {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=Id,LoadState,ActiveState,UnitFileState"]).args(AT_BOOT);
    let Ok(output) = command.output() else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let runs_once = |unit: &&str| {
        let has = |line: &str| unit.lines().any(|found| found == line);
        has("LoadState=loaded") && has("ActiveState=active") && has("UnitFileState=disabled")
    };
    for unit in text.split("\n\n").filter(runs_once) {
        let Some(name) = unit.lines().find_map(|line| line.strip_prefix("Id=")) else { continue };
        report.note(
            format!("{name} runs, but is not enabled"),
            "After the next boot it does not start, and no login counts or no mail is accepted.",
            format!("systemctl enable {name}"),
        );
    }
}

/// Returns the properties of a unit that systemd has loaded.
fn properties(unit: &str) -> Option<BTreeMap<String, String>> {
    let names = "--property=LoadState,User";
    let output = Command::new("systemctl").args(["show", names, unit]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs: BTreeMap<_, _> = pairs.map(|(name, value)| (name.into(), value.into())).collect();
    (pairs.get("LoadState").map(String::as_str) == Some("loaded")).then_some(pairs)
}

/// Reports what keeps the service from starting, or from working with its files.
pub fn examine(layer: &Layer, report: &mut Report) {
    if let Some(fault) = installation::hidden_unit(Path::new("/")) {
        let why = "systemd prefers the unit in /etc/systemd/system (systemd.unit(5)).";
        report.problem(fault.what(), why, fault.hint_text().unwrap_or_default());
    }
    boot(report);
    let Some(user) = service_user() else { return };
    let state = layer.state.clone().unwrap_or_else(|| DEFAULT_STATE.into());
    let map = layer.map.as_ref().map(|map| map.path.clone());
    let files = [Some(state), map, Some(DEFAULT_CONTROL.into())].into_iter().flatten();
    let mut strangers: Vec<PathBuf> = files.flat_map(|file| of_others(&file, &user)).collect();
    strangers.sort();
    strangers.dedup();
    if strangers.is_empty() {
        return report.ok(format!("its files belong to {}", user.name));
    }
    let owner = |path: &PathBuf| fs::metadata(path).ok().map(|meta| Uid::from_raw(meta.uid()));
    let owner =
        strangers.first().and_then(owner).and_then(|uid| User::from_uid(uid).ok().flatten());
    let owner = owner.map_or_else(|| "another user".into(), |user| user.name);
    let names: Vec<String> = strangers.iter().map(|path| path.display().to_string()).collect();
    let (names, user) = (names.join(" "), &user.name);
    report.problem(
        format!("files of the daemon belong to {owner}: {names}"),
        format!(
            "The service runs as {user}, and can neither read nor replace them. `pop-before-smtp run`, \
             once run as root, leaves exactly that."
        ),
        format!("chown {user}: {names} && systemctl restart pop-before-smtp"),
    );
}

/// Returns the directory of a file, the file, and those named after it, as far as they are the
/// daemon's and belong to another user. Sockets may belong to systemd.
fn of_others(file: &Path, user: &User) -> Vec<PathBuf> {
    let Some(dir) = file.parent() else { return Vec::new() };
    if !dir.file_name().is_some_and(|name| name.to_string_lossy().contains(OURS)) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_part = |path: &PathBuf| {
        path.file_name().is_some_and(|part| part.to_string_lossy().contains(&*name))
    };
    let entries = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_part);
    let is_other = |path: &PathBuf| {
        let meta = fs::symlink_metadata(path).ok();
        meta.is_some_and(|meta| !meta.file_type().is_socket() && meta.uid() != user.uid.as_raw())
    };
    std::iter::once(dir.to_owned()).chain(entries).filter(is_other).collect()
}
