//! Tests the path from the system's log socket to the daemon with messages of its own.
//!
//! - **Promise**: sends what syslog(3) would send, one message for each facility that an accepted
//!   mail daemon may use. They authorise no one.
//! - **Source**: syslog(3), RFC 3164 section 4.1.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::findings::Report;
use super::running::{filter_option, how_to_allow};
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::control::status::{ListenerStatus, Status};
use crate::engine::maildaemons::{FACILITIES, MailDaemon};
use crate::engine::message::probes::{PROGRAM, WORD};
use crate::error::Failure;

/// A forwarder needs a few milliseconds, and a second for its first message.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// For the other messages, once the first has arrived.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// For a second copy of a message, which arrives at about the same time.
const COPIES: Duration = Duration::from_millis(300);
/// Between two requests to the daemon.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for a full socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Codes of mail, daemon and local0 to local7: where mail daemons log.
const USUAL: [u8; 10] = [2, 3, 16, 17, 18, 19, 20, 21, 22, 23];
/// Severity `info`.
const INFO: usize = 6;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A test of log forwarding.
pub struct ForwarderTest<'a> {
    /// The system's log socket.
    pub log_socket: &'a Path,
    /// The daemon's control socket.
    pub control: &'a Path,
    /// The accepted mail daemons.
    pub daemons: &'a [MailDaemon],
}

/// One test message.
struct Probe {
    facility: u8,
    text: String,
    /// Copies that have arrived.
    arrived: usize,
}

impl ForwarderTest<'_> {
    /// Sends the messages and reports which arrive. `before` is the daemon's status before that.
    pub fn run(&self, before: &Status, report: &mut Report) {
        let number = RandomState::new().hash_one(std::process::id());
        let name = |facility: u8| FACILITIES[usize::from(facility)];
        let facilities: BTreeSet<u8> = self.daemons.iter().flat_map(facilities).collect();
        let mut probes: Vec<Probe> = facilities
            .into_iter()
            .map(|facility| Probe {
                facility,
                text: format!("{WORD}{number:x} {}", name(facility)),
                arrived: 0,
            })
            .collect();
        if let Err(error) = self.send(&probes) {
            self.report_unsent(&error, report);
            return;
        }
        if let Err(failure) = self.wait(&mut probes) {
            report.note(
                format!("cannot test log forwarding: {failure}"),
                "The daemon does not report which test messages arrive.",
                "restart the daemon if it is of another version",
            );
            return;
        }
        if probes.iter().any(|probe| probe.arrived > 0) {
            self.report_filtered(&probes, report);
            report_duplicates(&probes, report);
        } else {
            self.report_no_arrival(before, report);
        }
    }

    fn send(&self, probes: &[Probe]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(self.log_socket)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        for Probe { facility, text, .. } in probes {
            let priority = usize::from(*facility) * 8 + INFO;
            let (stamp, pid) = (stamp(SystemTime::now()), std::process::id());
            socket.send(format!("<{priority}>{stamp} {PROGRAM}[{pid}]: {text}").as_bytes())?;
        }
        Ok(())
    }

    fn report_unsent(&self, error: &io::Error, report: &mut Report) {
        let socket = self.log_socket.display();
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "it does not exist: no syslog daemon runs here",
            io::ErrorKind::ConnectionRefused => "nothing listens on it: the syslog daemon is down",
            io::ErrorKind::WouldBlock => "it is full: the syslog daemon hangs",
            _ => "it accepts no message",
        };
        report.problem(
            format!("cannot log to {socket}: {error}"),
            format!("Mail daemons log to this socket, and {cause}. No login can count."),
            "systemctl restart rsyslog (or syslog-ng); if mail daemons log to another socket: \
             pop-before-smtp doctor --log-socket PATH",
        );
    }

    fn wait(&self, probes: &mut [Probe]) -> Result<(), Failure> {
        let mut end = Instant::now() + REPLY_TIMEOUT;
        let mut any = false;
        loop {
            self.count(probes)?;
            if !any && probes.iter().any(|probe| probe.arrived > 0) {
                any = true;
                end = end.min(Instant::now() + STRAGGLERS);
            }
            if probes.iter().all(|probe| probe.arrived > 0) || Instant::now() >= end {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        if any {
            std::thread::sleep(COPIES);
            self.count(probes)?;
        }
        Ok(())
    }

    fn count(&self, probes: &mut [Probe]) -> Result<(), Failure> {
        for probe in probes {
            let request = Request::Probe { text: probe.text.clone() };
            if let Answer::Probe(count) = client::ask(self.control, None, &request)? {
                probe.arrived = count;
            }
        }
        Ok(())
    }

    /// Reports facilities that the forwarder does not deliver, after others have arrived.
    fn report_filtered(&self, probes: &[Probe], report: &mut Report) {
        let names = |arrived: bool| {
            let some = probes.iter().filter(|probe| (probe.arrived > 0) == arrived);
            some.map(|probe| FACILITIES[usize::from(probe.facility)]).collect::<Vec<_>>().join(", ")
        };
        let arrived =
            |facility: &u8| probes.iter().any(|p| p.arrived > 0 && p.facility == *facility);
        let affected = self.daemons.iter().filter(|daemon| !facilities(daemon).iter().any(arrived));
        let affected: Vec<&str> = affected.map(|daemon| &*daemon.name).collect();
        report.ok(format!("the forwarder delivers: {}", names(true)));
        let missing = names(false);
        let mail = probes
            .iter()
            .any(|probe| probe.arrived == 0 && FACILITIES[usize::from(probe.facility)] == "mail");
        let rule = format!(
            "add to the forwarder's rule (/etc/rsyslog.d/00-pop-before-smtp.conf): {missing}"
        );
        if !affected.is_empty() || mail {
            let affected = if affected.is_empty() {
                "most mail daemons".to_owned()
            } else {
                affected.join(", ")
            };
            report.problem(
                format!("the forwarder does not deliver: {missing}"),
                format!(
                    "Logins of {affected} are logged there and do not count. The syslog daemon gets the \
                     messages, but the forwarder's rule filters them by facility."
                ),
                rule,
            );
        } else if !missing.is_empty() {
            report.note(
                format!("the forwarder does not deliver: {missing}"),
                "Logins of mail daemons that log there do not count. popa3d logs to daemon, teapop and \
                 solid-pop3d to local0, qpopper to mail or local0, Dovecot to its syslog_facility.",
                rule,
            );
        }
    }

    /// Reports why no message has arrived.
    fn report_no_arrival(&self, before: &Status, report: &mut Report) {
        let socket = self.log_socket.display();
        let rejected = |status: &Status| status.listeners.iter().map(|l| l.rejected).sum::<u64>();
        let after = client::ask(self.control, None, &Request::Status);
        let listeners: Vec<&str> = before.listeners.iter().map(|l| &*l.name).collect();
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
        report.problem(
            format!("messages to {socket} do not reach the daemon"),
            format!(
                "The syslog daemon got a test message of each facility, but none was forwarded to {}. \
                 No login can count. (A forwarder whose target was missing may pause before it tries \
                 again.)",
                listeners.join(", ")
            ),
            "install -m 644 deploy/rsyslog/pop-before-smtp.conf \
             /etc/rsyslog.d/00-pop-before-smtp.conf && rsyslogd -N1 && systemctl restart rsyslog",
        );
    }
}

/// Reports messages that have arrived more than once.
fn report_duplicates(probes: &[Probe], report: &mut Report) {
    let duplicates = probes.iter().filter(|probe| probe.arrived > 1);
    let names: Vec<&str> =
        duplicates.map(|probe| FACILITIES[usize::from(probe.facility)]).collect();
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

/// Returns the facilities to which a mail daemon may log and from which its logins are accepted.
fn facilities(daemon: &MailDaemon) -> BTreeSet<u8> {
    match (&daemon.narrowed, daemon.facilities.as_slice()) {
        (Some(named), _) => named.iter().copied().collect(),
        (None, []) => USUAL.into(),
        (None, described) => described.iter().copied().collect(),
    }
}

/// Formats `Mmm dd hh:mm:ss`, in UTC: receivers replace it by their own time.
fn stamp(now: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(now.max(UNIX_EPOCH)).to_string();
    let month = text.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let day = text.get(8..10).and_then(|day| day.parse::<u8>().ok()).unwrap_or(1);
    let time = text.get(11..19).unwrap_or("00:00:00");
    format!("{} {day:>2} {time}", MONTHS[(month - 1) % 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        for (seconds, expected) in [
            (0, "Jan  1 00:00:00"),
            (1_795_332_683, "Nov 22 07:31:23"),
            (1_798_761_599, "Dec 31 23:59:59"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
