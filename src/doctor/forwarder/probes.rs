//! Test messages that look like logins of the accepted mail daemons.
//!
//! - **Promise**: each is made from an example of the mail daemon's own description, with a user that
//!   nobody has and a loopback address or none, and the engine itself has recognised it as a probe.

use std::collections::BTreeSet;

use crate::engine::correlation::streams::Source;
use crate::engine::maildaemons::{DaemonTable, ExpectedVerdict, MailDaemon, Name};
use crate::engine::message::syslog::Frame;
use crate::engine::time::Time;
use crate::engine::verdict::Reason;
use crate::engine::{Engine, Rules};

/// The address in a probe.
const LOOPBACK: &str = "127.0.0.1";
/// Facility `mail`.
pub const MAIL: u8 = 2;
/// Severity `info`.
pub const INFO: u8 = 6;
/// Program names of one mail daemon that are tried.
const MAX_PROGRAMS: usize = 4;

/// How a mail daemon of this host logs, where its configuration says it.
#[derive(Clone, Debug)]
pub struct LogsAs {
    /// The mail daemon's name.
    pub daemon: Name,
    /// Its program names.
    pub programs: Vec<String>,
    /// Its facility.
    pub facility: Option<u8>,
}

/// A login line of a mail daemon that authorises nobody.
#[derive(Clone, Debug)]
pub struct LoginProbe {
    /// The mail daemon's name.
    pub daemon: Name,
    /// The program name.
    pub program: String,
    /// The facility code.
    pub facility: u8,
    /// The severity code.
    pub severity: u8,
    /// The program name, with a process ID if this mail daemon logs one.
    pub tag: String,
    /// The message.
    pub text: String,
    /// The user, by which it is recognised.
    pub user: String,
}

/// Returns a probe for each program name under which a mail daemon usually logs, or under which it
/// logs on this host. `user` makes the names of the users.
pub fn of(
    daemon: &MailDaemon,
    here: Option<&LogsAs>,
    mut user: impl FnMut() -> String,
) -> Vec<LoginProbe> {
    let mut programs = BTreeSet::new();
    let mut probes = Vec::new();
    let logins = daemon.examples.iter().filter(|e| e.verdict == ExpectedVerdict::Login);
    for example in logins {
        let Some(line) = example.lines.last() else { continue };
        let frame = Frame::new(line.as_bytes());
        let Ok(message) = frame.message() else { continue };
        let names = match here {
            Some(here) => here.programs.clone(),
            None => vec![message.program.to_owned()],
        };
        for program in names {
            if programs.contains(&program) || probes.len() == MAX_PROGRAMS {
                continue;
            }
            let user = user();
            let mut text = message.text().to_owned();
            for (old, new) in [(&example.address, LOOPBACK), (&example.user, &*user)] {
                if let Some(old) = old {
                    text = text.replace(&**old, new);
                }
            }
            let accepted = daemon.narrowed.as_ref().unwrap_or(&daemon.facilities);
            let facility = here.and_then(|here| here.facility);
            let facility = facility.or_else(|| accepted.first().copied()).or(message.facility);
            let severity = daemon.severities.first().copied().or(message.severity);
            let tag = match message.pid {
                Some(_) => format!("{program}[{}]", std::process::id()),
                None => program.clone(),
            };
            let probe = LoginProbe {
                daemon: daemon.name.clone(),
                program: program.clone(),
                facility: facility.unwrap_or(MAIL),
                severity: severity.unwrap_or(INFO),
                tag,
                text,
                user,
            };
            if is_recognised(daemon, &probe) {
                programs.insert(program);
                probes.push(probe);
            }
        }
    }
    probes
}

/// Returns whether the engine takes it for a probe, and so authorises nobody.
fn is_recognised(daemon: &MailDaemon, probe: &LoginProbe) -> bool {
    let table = DaemonTable::of(vec![daemon.clone()]);
    let mut engine = Engine::new(Rules { table, ..Rules::default() });
    let LoginProbe { facility, severity, tag, text, user, .. } = probe;
    let priority = u16::from(*facility) * 8 + u16::from(*severity);
    let frame = format!("<{priority}>Jan  1 00:00:00 {tag}: {text}");
    let outcome = engine.process(Time::default(), Source::default(), frame.as_bytes());
    outcome.reason == Reason::Probe && engine.probes().count(user) == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::maildaemons;
    use crate::engine::message::probes::USER;

    #[test]
    fn every_verified_mail_daemon_has_a_probe() {
        let (daemons, _) = maildaemons::all(&[]);
        for daemon in daemons.iter().filter(|daemon| daemon.verified) {
            let mut number = 10;
            let probes = of(daemon, None, || {
                number += 1;
                format!("{USER}12345678-{number}")
            });
            assert!(!probes.is_empty() && probes.len() <= MAX_PROGRAMS, "{}", daemon.name);
            for probe in &probes {
                assert!(daemon.programs.contains(&probe.program), "{probe:?}");
                let has_address = probe.text.contains(LOOPBACK);
                assert!(has_address || daemon.joins(), "{probe:?}");
            }
        }
    }

    #[test]
    fn a_probe_logs_as_the_mail_daemon_does_here() {
        let (daemons, _) = maildaemons::all(&[]);
        let dovecot =
            daemons.iter().find(|daemon| &*daemon.name == "dovecot").expect("it is built in");
        let here = LogsAs {
            daemon: dovecot.name.clone(),
            programs: vec!["dovecot".into(), "mail".into()],
            facility: Some(21),
        };
        let probes = of(dovecot, Some(&here), || format!("{USER}1"));
        let [probe] = &probes[..] else { panic!("{probes:?}") };
        assert_eq!((&*probe.program, probe.facility, &*probe.tag), ("dovecot", 21, "dovecot"));
    }
}
