//! What kind of host this is, and which of its files and services can stand in the way.
//!
//! - **Layers**: [`Host`] is what other examinations need to know; `service` examines systemd's units
//!   and the owners of the daemon's files; `syslogd` is the syslog daemon that runs, and what keeps it
//!   from the daemon's socket.

pub mod service;
pub mod syslogd;

use std::path::Path;

use crate::config::layer::DEFAULT_FILE;
use syslogd::SyslogDaemon;

/// Names of PID 1 in a container with one application: the daemon itself, or an init of an engine.
const CONTAINER_INITS: [&str; 6] =
    ["pop-before-smtp", "docker-init", "tini", "dumb-init", "catatonit", "pause"];
/// Where a package has the files of `deploy`.
const PACKAGED: &str = "/usr/share/doc/pop-before-smtp/examples";

/// The facts about this host that decide what can be examined and what is advised.
#[derive(Debug)]
pub struct Host {
    /// Whether this program may read all files.
    pub is_root: bool,
    /// Whether this is a container with one application: the mail daemons, Postfix and the syslog
    /// daemon run elsewhere.
    pub is_container: bool,
    /// Whether systemd manages the services.
    pub has_systemd: bool,
    /// The syslog daemon.
    pub syslogd: SyslogDaemon,
    is_packaged: bool,
}

impl Host {
    /// Examines the host.
    pub fn look() -> Self {
        let exists = |path: &str| Path::new(path).exists();
        let init = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            is_container: CONTAINER_INITS.contains(&init.trim_end()),
            has_systemd: exists("/run/systemd/system"),
            syslogd: SyslogDaemon::find(),
            is_packaged: exists(PACKAGED),
        }
    }

    /// Returns the command that installs the example configuration.
    pub fn install_configuration(&self) -> String {
        let example = self.shipped("example.toml");
        format!("install -D -m 644 {example} {DEFAULT_FILE}")
    }

    /// Returns the path of a file of `deploy`: a package's, or that of the sources.
    pub fn shipped(&self, file: &str) -> String {
        if self.is_packaged { format!("{PACKAGED}/{file}") } else { format!("deploy/{file}") }
    }

    /// Returns the command that installs the rule for rsyslog or syslog-ng and restarts it. `udp`: the
    /// daemon listens for UDP.
    pub fn install_rule(&self, syslogd: &SyslogDaemon, udp: bool) -> String {
        let kind = if udp { "pop-before-smtp-udp.conf" } else { "pop-before-smtp.conf" };
        match syslogd {
            SyslogDaemon::SyslogNg(_) => format!(
                "install -m 644 {} /etc/syslog-ng/conf.d/pop-before-smtp.conf && \
                 syslog-ng --syntax-only && systemctl restart syslog-ng",
                self.shipped(&format!("syslog-ng/{kind}"))
            ),
            _ => format!(
                "install -m 644 {} /etc/rsyslog.d/00-pop-before-smtp.conf && rsyslogd -N1 && \
                 systemctl restart rsyslog",
                self.shipped(&format!("rsyslog/{kind}"))
            ),
        }
    }

    /// Returns the commands that let journald forward the log, for a host without another syslog
    /// daemon.
    pub fn forward_from_journald(&self) -> String {
        let unit = if self.is_packaged {
            String::new()
        } else {
            let unit = self.shipped("journald/pop-before-smtp-journal.socket");
            format!("install -m 644 {unit} /etc/systemd/system/ && systemctl daemon-reload && ")
        };
        let first = if service::is_loaded() {
            ""
        } else {
            "make the daemon a service of systemd first, as deploy/guide/install.md says; then: "
        };
        format!(
            "{first}install -D -m 644 {} /etc/systemd/journald.conf.d/pop-before-smtp.conf && \
             {unit}systemctl enable pop-before-smtp-journal.socket && \
             systemctl restart systemd-journald pop-before-smtp",
            self.shipped("journald/journald.conf")
        )
    }
}
