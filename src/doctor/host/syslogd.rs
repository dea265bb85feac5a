//! The syslog daemon of this host, and what keeps it from the daemon's socket: its user, AppArmor,
//! SELinux.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::super::permissions::{Obstacle, Permission, UserAccount};
use super::Host;

/// The profiles that the kernel has loaded, with their modes.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Where an administrator extends the profile of rsyslogd.
const LOCAL_PROFILE: &str = "/etc/apparmor.d/local/usr.sbin.rsyslogd";
const PROFILE: &str = "/etc/apparmor.d/usr.sbin.rsyslogd";
/// Where packages extend it, if it includes this directory.
const PACKAGED_RULES: &str = "/etc/apparmor.d/rsyslog.d";
/// `1` if SELinux enforces its policy.
const SELINUX: &str = "/sys/fs/selinux/enforce";
/// The modules of each policy: `POLICY/active/modules/PRIORITY/NAME`.
const SELINUX_MODULES: &str = "/var/lib/selinux";

/// The syslog daemon that reads the system's log socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogDaemon {
    /// rsyslogd runs; its process ID.
    Rsyslog(u32),
    /// syslog-ng runs; its process ID.
    SyslogNg(u32),
    /// Another one runs; its name.
    Other(String),
    /// This service is installed and does not run.
    Stopped(&'static str),
    /// There is none.
    None,
}

impl SyslogDaemon {
    /// Finds it among the processes and programs of this host.
    pub fn find() -> Self {
        let mut found = Self::None;
        for (pid, name) in processes() {
            match &*name {
                "rsyslogd" => return Self::Rsyslog(pid),
                "syslog-ng" => found = Self::SyslogNg(pid),
                "syslogd" if found == Self::None => found = Self::Other(name),
                _ => {}
            }
        }
        if found != Self::None {
            return found;
        }
        let installed = |name: &str| {
            ["/usr/sbin", "/sbin", "/usr/local/sbin"]
                .iter()
                .any(|dir| Path::new(dir).join(name).exists())
        };
        match (installed("rsyslogd"), installed("syslog-ng")) {
            (true, _) => Self::Stopped("rsyslog"),
            (_, true) => Self::Stopped("syslog-ng"),
            _ => Self::None,
        }
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Self::Rsyslog(pid) | Self::SyslogNg(pid) => Some(*pid),
            _ => None,
        }
    }
}

/// Returns the processes that can be seen, with their names.
fn processes() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let named = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim_end().to_owned()))
    };
    pids.filter_map(named).collect()
}

/// A hindrance with its cure.
#[derive(Debug)]
pub struct Hindrance {
    /// What stands in the way.
    pub what: String,
    /// Why it does.
    pub why: String,
    /// The commands that remove it.
    pub fix: String,
}

/// Returns what keeps the syslog daemon from writing to a Unix socket. Ask only if nothing arrives: a
/// security module may allow it in a way that is not seen here.
pub fn hindrance(host: &Host, socket: &Path) -> Option<Hindrance> {
    by_user(host, socket)
        .or_else(|| by_apparmor(host, &read(PROFILES), &profile(), socket))
        .or_else(|| by_selinux(host, &read(SELINUX), Path::new(SELINUX_MODULES)))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A syslog daemon that has given up root, as on Ubuntu.
fn by_user(host: &Host, socket: &Path) -> Option<Hindrance> {
    let process = fs::metadata(format!("/proc/{}", host.syslogd.pid()?)).ok()?;
    let user = User::from_uid(Uid::from_raw(process.uid())).ok()??;
    let account = UserAccount::named(&user.name)?;
    let obstacle = account.obstacle(Path::new("/"), socket, Permission::Write)?;
    let Obstacle::Closed(closed, _) = obstacle else { return None };
    let (name, group) = (&user.name, group_name(process.gid())?);
    let shown = socket.display();
    let fix = if closed != socket {
        format!("chmod o+x {}", closed.display())
    } else if host.has_systemd {
        format!(
            "install -d /etc/systemd/system/pop-before-smtp.socket.d && \
             printf '[Socket]\\nSocketGroup={group}\\n' \
             > /etc/systemd/system/pop-before-smtp.socket.d/group.conf && systemctl daemon-reload && \
             systemctl stop pop-before-smtp && systemctl restart pop-before-smtp.socket && \
             systemctl start pop-before-smtp"
        )
    } else {
        format!(
            "listen = [\"unix:{shown},group={group}\"], and make the daemon's user a member of {group}"
        )
    };
    Some(Hindrance {
        what: format!("the syslog daemon runs as {name}, who may not write to {shown}"),
        why: format!("{} denies it, so no login can count.", closed.display()),
        fix,
    })
}

fn group_name(gid: u32) -> Option<String> {
    Some(nix::unistd::Group::from_gid(gid.into()).ok()??.name)
}

/// The text of the profile of rsyslogd and its extensions.
fn profile() -> String {
    let mut text = read(PROFILE);
    if text.contains("<rsyslog.d>") {
        let rules = entries(Path::new(PACKAGED_RULES));
        text.extend(rules.iter().map(|rules| fs::read_to_string(rules).unwrap_or_default()));
    }
    text + &read(LOCAL_PROFILE)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn by_apparmor(host: &Host, loaded: &str, profile: &str, socket: &Path) -> Option<Hindrance> {
    if !matches!(host.syslogd, SyslogDaemon::Rsyslog(_)) {
        return None;
    }
    let mut enforced = loaded.lines().filter_map(|line| line.strip_suffix(" (enforce)"));
    let enforced = enforced.find(|name| *name == "rsyslogd" || name.ends_with("/rsyslogd"))?;
    let named = |line: &str| {
        let line = line.trim();
        let is_socket = socket.to_str().is_some_and(|socket| line.contains(socket));
        !line.starts_with('#') && (is_socket || line.contains("pop-before-smtp"))
    };
    if profile.lines().any(named) {
        return None;
    }
    Some(Hindrance {
        what: format!(
            "AppArmor enforces the profile {enforced}, which does not name {}",
            socket.display()
        ),
        why: "rsyslogd may write only to the files and sockets of its profile, so no login can \
              count. (dmesg shows `apparmor=\"DENIED\"`.)"
            .into(),
        fix: format!(
            "install -d /etc/apparmor.d/local && cat {} >> {LOCAL_PROFILE} && \
             apparmor_parser -r {PROFILE} && systemctl restart rsyslog",
            host.shipped("apparmor/rsyslogd"),
        ),
    })
}

fn by_selinux(host: &Host, enforce: &str, modules: &Path) -> Option<Hindrance> {
    let has_module = |policy: &PathBuf| {
        let priorities = entries(&policy.join("active/modules"));
        priorities.iter().any(|priority| priority.join("pop-before-smtp").exists())
    };
    if enforce.trim() != "1" || entries(modules).iter().any(has_module) {
        return None;
    }
    let rule = host.install_rule(&host.syslogd, true);
    Some(Hindrance {
        what: "SELinux is enforcing, and the syslog daemon may not write to the Unix socket".into(),
        why: format!(
            "Its policy does not know this socket, so no login can count. UDP on loopback needs no \
             policy module. (`ausearch -m avc -ts recent` shows what is denied; the module for the Unix \
             socket is {}.)",
            host.shipped("selinux/pop-before-smtp.te")
        ),
        fix: format!("systemctl enable --now pop-before-smtp-udp.socket && {rule}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(syslogd: SyslogDaemon) -> Host {
        Host { is_root: true, is_container: false, has_systemd: true, syslogd, is_packaged: true }
    }

    #[test]
    fn selinux_hinders_without_the_module() {
        let host = host(SyslogDaemon::Rsyslog(7));
        let modules = tempfile::tempdir().expect("a directory");
        let hinders = |enforce: &str| by_selinux(&host, enforce, modules.path()).is_some();
        assert_eq!(["1\n", "0\n", ""].map(hinders), [true, false, false]);
        let module = modules.path().join("targeted/active/modules/200/pop-before-smtp");
        fs::create_dir_all(module).expect("a directory");
        assert!(!hinders("1\n"));
    }

    #[test]
    fn apparmor_hinders_where_its_profile_does_not_name_the_socket() {
        let rsyslog = host(SyslogDaemon::Rsyslog(7));
        let socket = Path::new("/run/pop-before-smtp/log.sock");
        let enforced = "/usr/bin/man (enforce)\nrsyslogd (enforce)\n";
        let ubuntu = "  /var/spool/rsyslog/ r,\n  # /run/pop-before-smtp/log.sock rw,\n";
        let found = by_apparmor(&rsyslog, enforced, ubuntu, socket).expect("it hinders");
        assert!(
            found.fix.contains("examples/apparmor/rsyslogd >> /etc/apparmor.d/local/"),
            "{found:?}"
        );
        let shipped = include_str!("../../../deploy/apparmor/rsyslogd");
        assert!(by_apparmor(&rsyslog, enforced, &format!("{ubuntu}{shipped}"), socket).is_none());
        let complains = enforced.replace("rsyslogd (enforce)", "rsyslogd (complain)");
        assert!(by_apparmor(&rsyslog, &complains, ubuntu, socket).is_none());
        let other = host(SyslogDaemon::SyslogNg(7));
        assert!(by_apparmor(&other, enforced, ubuntu, socket).is_none());
    }
}
