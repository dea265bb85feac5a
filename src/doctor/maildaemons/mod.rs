//! The mail daemons of this host: which are likely to run, and what their own configuration says
//! about their log.
//!
//! - **Limits**: only configurations that a program prints or that are simple files, of Dovecot,
//!   Courier and Cyrus.

mod courier;
mod cyrus;
mod dovecot;
mod elements;
mod file;

use std::collections::BTreeSet;
use std::path::Path;

use super::findings::Report;
use super::forwarder::LogsAs;
use super::host::Host;
use crate::config::Matching;
use crate::control::status::Status;
use crate::engine::maildaemons::{DaemonTable, MailDaemon, Name, Selection};

/// Programs whose presence makes a mail daemon likely, by its name.
const PROGRAMS: [(&str, &[&str]); 12] = [
    ("courier", &["/usr/sbin/courierlogger", "/usr/lib/courier/courier-authlib"]),
    (
        "cyrus",
        &["/usr/lib/cyrus/bin/master", "/usr/sbin/cyrmaster", "/usr/libexec/cyrus-imapd/master"],
    ),
    ("dbmail", &["/usr/sbin/dbmail-imapd"]),
    ("dovecot", &["/usr/sbin/dovecot", "/usr/local/sbin/dovecot"]),
    ("imapproxy", &["/usr/sbin/imapproxyd"]),
    ("perdition", &["/usr/sbin/perdition"]),
    ("popa3d", &["/usr/sbin/popa3d"]),
    ("qpopper", &["/usr/sbin/in.qpopper", "/usr/sbin/qpopper"]),
    ("solid-pop3d", &["/usr/sbin/solid-pop3d"]),
    ("teapop", &["/usr/sbin/teapop"]),
    ("tpop3d", &["/usr/sbin/tpop3d"]),
    ("uw-imap", &["/usr/sbin/ipop3d", "/usr/sbin/imapd"]),
];

/// What was found out.
#[derive(Debug, Default)]
pub struct MailDaemons {
    /// Those that are likely to run here.
    pub likely: BTreeSet<Name>,
    /// How they log, where their configuration says it.
    pub logs_as: Vec<LogsAs>,
}

/// Examines the mail daemons. `is_the_hosts`: they log to this host's own log socket.
pub async fn examine(
    host: &Host,
    table: &DaemonTable,
    matching: &Matching,
    status: &Status,
    is_the_hosts: bool,
    report: &mut Report,
) -> MailDaemons {
    let mut found = MailDaemons::default();
    let dir = matching.daemons_dir.path();
    let named = |daemon: &MailDaemon| match &matching.daemons {
        Selection::Named(names) => names.iter().any(|name| **name == *daemon.name),
        Selection::Verified => false,
    };
    let is_here = |daemon: &MailDaemon| {
        let programs = PROGRAMS.iter().find(|(name, _)| **name == *daemon.name);
        programs.is_some_and(|(_, paths)| paths.iter().any(|path| Path::new(path).exists()))
    };
    let logs = |daemon: &MailDaemon| {
        status.daemons.get(&*daemon.name).is_some_and(|seen| seen.logins + seen.unmatched > 0)
    };
    for daemon in table.daemons() {
        let is_here = is_the_hosts && is_here(daemon);
        if named(daemon) || is_here || logs(daemon) {
            found.likely.insert(daemon.name.clone());
        }
        if &*daemon.name == "dovecot" && daemon.origin.is_none() && !(is_here && host.is_root) {
            // The names of its services take its place only in other forms than that of syslog(3).
            let programs = vec!["dovecot".to_owned()];
            found.logs_as.push(LogsAs { daemon: daemon.name.clone(), programs, facility: None });
        }
        // What only root can read is not guessed.
        if !is_here || !host.is_root {
            continue;
        }
        let is_silent = status.logins == 0;
        let logs_as = match &*daemon.name {
            "dovecot" => dovecot::examine(daemon, dir, host, is_silent, report).await,
            "cyrus" => cyrus::examine(daemon, dir, report),
            "courier" => {
                courier::examine(report);
                None
            }
            _ => None,
        };
        found.logs_as.extend(logs_as);
    }
    if is_the_hosts && matches!(matching.daemons, Selection::Named(_)) {
        let is_named = |name: &str| table.daemons().iter().any(|daemon| *daemon.name == *name);
        let others = PROGRAMS.iter().filter(|(name, paths)| {
            !is_named(name) && paths.iter().any(|path| Path::new(path).exists())
        });
        not_named(
            &others.map(|(name, _)| *name).collect::<Vec<_>>(),
            table.daemons().iter().any(is_here),
            report,
        );
    }
    found
}

/// Reports mail daemons that are installed here and that `daemon` leaves out.
fn not_named(names: &[&str], has_others: bool, report: &mut Report) {
    let Some(first) = names.first() else { return };
    let what = format!("`daemon` does not name {}, which is installed here", names.join(", "));
    let fix =
        format!("config.toml: daemon = [..., \"{first}\"], then: systemctl reload pop-before-smtp");
    if has_others {
        report.note(what, "Its logins do not count.", format!("leave it, or {fix}"));
    } else {
        report.problem(what, "Its logins do not count, and what `daemon` names is not here.", fix);
    }
}

/// Returns the command that makes these program names count, by a copy of a built-in description in a
/// directory.
fn more_programs(daemon: &MailDaemon, dir: &Path, names: &[String]) -> String {
    let mut all = daemon.programs.clone();
    all.extend(names.iter().cloned());
    let list: Vec<String> = all.iter().map(|name| format!("\"{name}\"")).collect();
    let (name, list) = (&daemon.name, list.join(", "));
    let printed = format!(
        "pop-before-smtp daemons {name} | sed -e '/^programs = \\[$/,/^\\]$/d' -e '/^programs = /d' \
         -e 's|^verified = .*|&\\nprograms = [{list}]|'"
    );
    replace_description(daemon, dir, &printed)
}

/// Returns the command that puts what another command prints in the place of a description, and has it
/// checked.
fn replace_description(daemon: &MailDaemon, dir: &Path, printed: &str) -> String {
    let (name, dir) = (&daemon.name, dir.display());
    format!(
        "install -d {dir} && cd {dir} && {printed} > {name}.new && mv {name}.new {name}.toml && \
         pop-before-smtp check && systemctl restart pop-before-smtp"
    )
}
