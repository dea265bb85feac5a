//! Says which test messages have not arrived, and why.

use std::io;
use std::path::{Path, PathBuf};

use super::super::LOG_SOCKET;
use super::super::findings::Report;
use super::super::host::syslogd::{SyslogDaemon, hindrance};
use super::super::running::{filter_option, how_to_allow};
use super::rsyslog::{MAIN, Rsyslog, RuleLine};
use super::{ForwarderTest, Probe, facilities};
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::control::status::{ListenerKind, ListenerStatus, Status};
use crate::engine::message::probes::PROGRAM;

/// Where the rule for rsyslog is installed.
const RSYSLOG_DIR: &str = "/etc/rsyslog.d";
/// The configuration of syslog-ng on most systems.
const SYSLOG_NG: [&str; 2] = ["/etc/syslog-ng/syslog-ng.conf", "/etc/syslog-ng/conf.d"];

impl ForwarderTest<'_> {
    pub(super) fn report_unsent(&self, error: &io::Error, report: &mut Report) {
        let socket = self.log_socket.display();
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "it does not exist: no syslog daemon runs here",
            io::ErrorKind::ConnectionRefused => "nothing listens on it: the syslog daemon is down",
            io::ErrorKind::WouldBlock => "it is full: the syslog daemon hangs",
            _ => "it accepts no message",
        };
        let fix = match self.host.syslogd {
            SyslogDaemon::Stopped(service) if self.is_the_hosts() => {
                format!("systemctl enable --now {service}")
            }
            SyslogDaemon::SyslogNg(_) => "systemctl restart syslog-ng".into(),
            _ => {
                "systemctl restart rsyslog (or syslog-ng); if mail daemons log to another socket: \
                  pop-before-smtp doctor --log-socket PATH"
                    .to_owned()
            }
        };
        report.problem(
            format!("cannot log to {socket}: {error}"),
            format!("Mail daemons log to this socket, and {cause}. No login can count."),
            fix,
        );
    }

    /// Returns whether the messages go to this host's own syslog daemon, whose configuration can be
    /// read.
    pub(super) fn is_the_hosts(&self) -> bool {
        self.log_socket == Path::new(LOG_SOCKET)
    }

    pub(super) fn rsyslog(&self) -> Option<Rsyslog> {
        let is_there = matches!(self.host.syslogd, SyslogDaemon::Rsyslog(_)) && self.is_the_hosts();
        is_there.then(|| Rsyslog::read(Path::new(MAIN)))
    }

    /// Reports what the forwarder does not deliver, after other messages have arrived.
    pub(super) fn report_filtered(&self, probes: &[Probe], before: &Status, report: &mut Report) {
        let (logins, plain): (Vec<&Probe>, Vec<&Probe>) =
            probes.iter().partition(|probe| probe.login.is_some());
        let arrives = |facility: u8| plain.iter().any(|p| p.arrived > 0 && p.facility == facility);
        let rules = self.rsyslog();
        let place = rules.as_ref().and_then(|rules| {
            before.listeners.iter().find_map(|listener| rules.ours(socket_of(listener)))
        });
        let rules = rules.as_ref().zip(place);
        self.report_facilities(&plain, &logins, rules, report);
        for probe in logins.iter().filter(|p| p.arrived == 0 && arrives(p.facility)) {
            let Some(login) = &probe.login else { continue };
            let facility = probe.facility_name();
            let found = rules.and_then(|(all, place)| {
                Some((all.discards(place, &login.program, facility)?, all.file(place)?))
            });
            let (cause, fix) = match found {
                Some((line, ours)) => (discarded_by(line), before_file(ours, &line.file)),
                None => self.filter_of_syslog_ng(&login.program),
            };
            report.problem(
                format!(
                    "login lines of {} do not arrive (program `{}`, facility {facility})",
                    login.daemon, login.program
                ),
                format!(
                    "Messages of another program to the same facility do: {cause}. No login of {} \
                     can count.",
                    login.daemon
                ),
                fix,
            );
        }
        let mut arrived: Vec<String> = logins
            .iter()
            .filter(|probe| probe.arrived > 0)
            .filter_map(|probe| {
                let login = probe.login.as_ref()?;
                let facility = probe.facility_name();
                Some(format!("{} (program {}, facility {facility})", login.daemon, login.program))
            })
            .collect();
        arrived.dedup();
        if !arrived.is_empty() {
            report.ok(format!("login lines arrive: {}", arrived.join(", ")));
        }
    }

    fn report_facilities(
        &self,
        plain: &[&Probe],
        logins: &[&Probe],
        rules: Option<(&Rsyslog, usize)>,
        report: &mut Report,
    ) {
        let names = |arrived: bool| {
            let some = plain.iter().filter(|probe| (probe.arrived > 0) == arrived);
            some.map(|probe| probe.facility_name()).collect::<Vec<_>>()
        };
        let arrived =
            |facility: &u8| plain.iter().any(|p| p.arrived > 0 && p.facility == *facility);
        let affected = self.daemons.iter().filter(|daemon| !facilities(daemon).iter().any(arrived));
        let mut affected: Vec<&str> = affected.map(|daemon| &*daemon.name).collect();
        let lost = logins.iter().filter(|p| p.arrived == 0 && !arrived(&p.facility));
        affected.extend(lost.filter_map(|p| Some(&*p.login.as_ref()?.daemon)));
        affected.sort_unstable();
        affected.dedup();
        report.ok(format!("the forwarder delivers: {}", names(true).join(", ")));
        let missing = names(false);
        let Some(first) = missing.first() else { return };
        let discard = rules.and_then(|(all, place)| {
            Some((all.discards(place, PROGRAM, first)?, all.file(place)?))
        });
        let list = missing.join(", ");
        let selector = rules.and_then(|(all, place)| all.selector(place));
        let (cause, rule) = match (discard, selector) {
            (Some((line, ours)), _) => (discarded_by(line), before_file(ours, &line.file)),
            (None, Some(RuleLine { file, number, .. })) => (
                "the forwarder's rule filters them by facility".to_owned(),
                format!(
                    r"sed -i '{number}s/\./,{}./' {} && rsyslogd -N1 && systemctl restart rsyslog",
                    missing.join(","),
                    file.display()
                ),
            ),
            (None, None) => (
                "the forwarder's rule filters them by facility".to_owned(),
                format!(
                    "add to the forwarder's rule (/etc/rsyslog.d/00-pop-before-smtp.conf): {list}"
                ),
            ),
        };
        if !affected.is_empty() || missing.contains(&"mail") {
            let affected = if affected.is_empty() {
                "most mail daemons".to_owned()
            } else {
                affected.join(", ")
            };
            report.problem(
                format!("the forwarder does not deliver: {list}"),
                format!(
                    "Logins of {affected} are logged there and do not count. The syslog daemon gets the \
                     messages, but {cause}."
                ),
                rule,
            );
        } else {
            report.note(
                format!("the forwarder does not deliver: {list}"),
                "Logins of mail daemons that log there do not count. popa3d logs to daemon, teapop and \
                 solid-pop3d to local0, qpopper to mail or local0, Dovecot to its syslog_facility.",
                rule,
            );
        }
    }

    /// Returns the cause and the fix if rsyslog's rules do not show them.
    fn filter_of_syslog_ng(&self, program: &str) -> (String, String) {
        let is_syslog_ng = matches!(self.host.syslogd, SyslogDaemon::SyslogNg(_));
        match final_path().filter(|_| is_syslog_ng && self.is_the_hosts()) {
            Some((file, number, line)) => (
                format!("{}:{number} ends with these messages: `{line}`", file.display()),
                format!(
                    "sed -i '{number}s/final//' {} && syslog-ng --syntax-only && \
                     systemctl restart syslog-ng",
                    file.display()
                ),
            ),
            None => (
                "a rule of the syslog daemon takes them away by the name of the program".into(),
                format!(
                    "find the rule: grep -rn '{program}' /etc/rsyslog.conf /etc/rsyslog.d /etc/syslog-ng; \
                     it must come after that of pop-before-smtp"
                ),
            ),
        }
    }

    /// Reports why no message has arrived.
    pub(super) fn report_no_arrival(&self, before: &Status, report: &mut Report) {
        let socket = self.log_socket.display();
        let rejected = |status: &Status| status.listeners.iter().map(|l| l.rejected).sum::<u64>();
        let after = client::ask(self.control, None, &Request::Status);
        let Ok(Answer::Status(now)) = after else { return };
        if rejected(&now) > rejected(before) {
            let more =
                |(now, then): &(&ListenerStatus, &ListenerStatus)| now.rejected > then.rejected;
            let Some((listener, _)) = now.listeners.iter().zip(&before.listeners).find(more) else {
                return;
            };
            let kind = listener.kind;
            report.problem(
                format!("{} does not allow the forwarder", filter_option(kind)),
                "The daemon receives its frames and rejects them, so no login counts.",
                how_to_allow(kind),
            );
            return;
        }
        let others = |status: &Status| status.counts.other_hosts;
        if others(&now) > others(before) {
            report.problem(
                "allow-host does not allow the host name in the frames",
                "The daemon receives the frames and rejects them, so no login counts.",
                "config.toml: allow-host = [..., \"HOST NAME IN THE LOG\"], then reload the daemon; \
                 for frames without a host name use \"-\"",
            );
            return;
        }
        let (what, why, fix) = self.why_none_arrives(before);
        report.problem(
            format!("messages to {socket} do not reach the daemon{what}"),
            format!("{why} No login can count."),
            fix,
        );
    }

    fn why_none_arrives(&self, before: &Status) -> (String, String, String) {
        let names: Vec<&str> = before.listeners.iter().map(|l| &*l.name).collect();
        let names = names.join(", ");
        let unix = before.listeners.iter().find(|l| l.kind == ListenerKind::Unix);
        let install = self.host.install_rule(&self.host.syslogd, unix.is_none());
        let usual = format!(
            "The syslog daemon got a test message of each facility, but none was forwarded to {names}. \
             (A forwarder whose target was missing may pause before it tries again.)"
        );
        if !self.is_the_hosts() {
            return (String::new(), usual, install);
        }
        match &self.host.syslogd {
            SyslogDaemon::Stopped(service) => {
                return (
                    format!(": {service} does not run"),
                    "Only the journal gets them.".into(),
                    format!("systemctl enable --now {service}"),
                );
            }
            SyslogDaemon::None => {
                return (
                    ": there is no syslog daemon".into(),
                    "Neither rsyslog nor syslog-ng is installed, and the journal forwards nothing."
                        .into(),
                    self.host.forward_from_journald(),
                );
            }
            SyslogDaemon::Other(name) => {
                let file = self.host.shipped("busybox/syslog");
                let why = format!("{name} runs, and forwards nothing to {names}.");
                return (String::new(), why, format!("forward its log: see {file}"));
            }
            SyslogDaemon::Rsyslog(_) | SyslogDaemon::SyslogNg(_) => {}
        }
        let path = unix.map(socket_of);
        if let Some(found) = path.and_then(|path| hindrance(self.host, Path::new(path))) {
            return (format!(": {}", found.what), found.why, found.fix);
        }
        let rules = self.rsyslog();
        let ours = rules.as_ref().and_then(|rules| {
            before.listeners.iter().find_map(|listener| rules.ours(socket_of(listener)))
        });
        match rules.as_ref().zip(ours).and_then(|(rules, ours)| rules.file(ours)) {
            Some(file) => (
                String::new(),
                format!(
                    "{} forwards to the right socket, but rsyslogd has not read it, or a rule before it \
                     takes all messages.",
                    file.display()
                ),
                "rsyslogd -N1 && systemctl restart rsyslog".into(),
            ),
            None if rules.as_ref().is_some_and(|rules| !rules.includes(RSYSLOG_DIR)) => (
                format!(": {MAIN} does not include {RSYSLOG_DIR}"),
                format!("rsyslogd reads no file there, so {names} gets nothing."),
                format!(
                    "echo 'include(file=\"{RSYSLOG_DIR}/*.conf\" mode=\"optional\")' >> {MAIN} && \
                     {install}"
                ),
            ),
            None => (String::new(), usual, install),
        }
    }
}

/// Returns what a forwarder's configuration names: the path of a socket, or its port.
fn socket_of(listener: &ListenerStatus) -> &str {
    match listener.kind {
        ListenerKind::Unix => listener.name.trim_start_matches("unix:"),
        ListenerKind::Udp => listener.name.rsplit(':').next().unwrap_or_default(),
    }
}

fn discarded_by(line: &RuleLine) -> String {
    format!("{}:{} discards them first: `{}`", line.file.display(), line.number, line.text)
}

/// Returns the command that has rsyslogd read our file before another one.
fn before_file(ours: &Path, other: &Path) -> String {
    let restart = "rsyslogd -N1 && systemctl restart rsyslog";
    let names = ["00-pop-before-smtp.conf", "00-0-pop-before-smtp.conf", "0-pop-before-smtp.conf"];
    let sorted = ["000-pop-before-smtp.conf", "!pop-before-smtp.conf"];
    let (dir, name) = (ours.parent(), other.file_name().and_then(|name| name.to_str()));
    let earlier = names.iter().chain(&sorted).find(|new| name.is_some_and(|name| **new < name));
    match (dir, earlier) {
        (Some(dir), Some(new)) if other.parent() == Some(dir) => {
            format!("mv {} '{}' && {restart}", ours.display(), dir.join(new).display())
        }
        _ => format!(
            "move this rule below the line that includes {}, then: {restart}",
            ours.parent().unwrap_or(ours).display()
        ),
    }
}

/// Returns the first log path of syslog-ng that ends the processing of its messages.
fn final_path() -> Option<(PathBuf, usize, String)> {
    let mut files: Vec<PathBuf> = vec![SYSLOG_NG[0].into()];
    let more = std::fs::read_dir(SYSLOG_NG[1]).into_iter().flatten();
    files.extend(more.filter_map(|entry| Some(entry.ok()?.path())));
    files.sort();
    files.into_iter().find_map(|file| {
        let text = std::fs::read_to_string(&file).ok()?;
        let mut lines = text.lines().enumerate();
        let (index, line) = lines.find(|(_, line)| {
            let code = line.split('#').next().unwrap_or_default();
            code.contains("flags(") && code.contains("final")
        })?;
        Some((file.clone(), index + 1, line.trim().to_owned()))
    })
}

/// Reports messages that have arrived more than once.
pub(super) fn duplicates(probes: &[Probe], report: &mut Report) {
    let duplicates = probes.iter().filter(|probe| probe.arrived > 1 && probe.login.is_none());
    let names: Vec<&str> = duplicates.map(Probe::facility_name).collect();
    if names.is_empty() {
        return;
    }
    report.problem(
        format!("messages arrive more than once: {}", names.join(", ")),
        "There are two paths to the daemon, such as two forwarder files, or a forwarder and the \
         journal. Every message is counted twice, and an unauthenticated client could turn a doubled \
         line of Courier into a login.",
        "find them: grep -ls pop-before-smtp /etc/rsyslog.d/* /etc/syslog-ng/conf.d/*; systemctl \
         is-enabled pop-before-smtp-journal.socket; and keep one (older installations have \
         /etc/rsyslog.d/40-pop-before-smtp.conf)",
    );
}
