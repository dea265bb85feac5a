//! The names under which Cyrus logs: `PREFIX/SERVICE`, from imapd.conf(5) and cyrus.conf(5).

use std::fs;
use std::path::Path;

use super::super::findings::Report;
use super::super::forwarder::LogsAs;
use super::file::settings;
use super::more_programs;
use crate::engine::maildaemons::{MailDaemon, facility_code};

const IMAPD_CONF: &str = "/etc/imapd.conf";
const CYRUS_CONF: &str = "/etc/cyrus.conf";

/// Reports services whose name no description has, and returns how Cyrus logs.
pub fn examine(daemon: &MailDaemon, dir: &Path, report: &mut Report) -> Option<LogsAs> {
    let services = services(&fs::read_to_string(CYRUS_CONF).ok()?);
    let value = |name: &str| settings(Path::new(IMAPD_CONF), name, ':').pop().map(|s| s.value);
    let prefix = value("syslog_prefix").unwrap_or_else(|| "cyrus".into());
    let facility = value("syslog_facility").map(|name| name.to_ascii_lowercase());
    let programs: Vec<String> =
        services.iter().map(|service| format!("{prefix}/{service}")).collect();
    let unknown: Vec<String> =
        programs.iter().filter(|name| !daemon.programs.contains(name)).cloned().collect();
    if !unknown.is_empty() {
        report.problem(
            format!("Cyrus logs under names that are not known: {}", unknown.join(", ")),
            format!(
                "They are made of syslog_prefix in {IMAPD_CONF} and the services in {CYRUS_CONF}. \
                 Logins under these names do not count."
            ),
            more_programs(daemon, dir, &unknown),
        );
    }
    let programs: Vec<String> = programs.into_iter().filter(|p| !unknown.contains(p)).collect();
    if programs.is_empty() {
        return None;
    }
    let facility = facility.and_then(|name| facility_code(&name).ok());
    Some(LogsAs { daemon: daemon.name.clone(), programs, facility })
}

/// Returns the names of the services that run imapd or pop3d.
fn services(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let is_mail = |line: &str| {
        let command = line.split_once("cmd=\"").map(|(_, rest)| rest.trim_start());
        let program = command.and_then(|command| command.split([' ', '"']).next());
        let program = program.and_then(|path| path.rsplit('/').next());
        matches!(program, Some("imapd" | "pop3d"))
    };
    let lines = lines.filter(|line| is_mail(line));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_mail_clients() {
        let text = "SERVICES {\n\
                    imap\t\tcmd=\"imapd -U 30\" listen=\"imap\" prefork=0\n\
                    # imaps cmd=\"imapd -s\" listen=\"imaps\"\n\
                    mailbox-pop cmd=\"/usr/lib/cyrus/bin/pop3d\" listen=\"pop3\"\n\
                    lmtpunix cmd=\"lmtpd\" listen=\"/run/lmtp\"\n}\n";
        assert_eq!(services(text), ["imap", "mailbox-pop"]);
    }
}
