//! The channel from the system's log socket to the daemon: tried with messages of our own.
//!
//! Promise  the messages are what syslog(3) would send, one for each facility that a believed mail
//!          daemon may use. They authorise nobody.
//! Source   syslog(3), RFC 3164 section 4.1.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::findings::Report;
use super::running::{filter_option, name_the_senders};
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::control::status::{ListenerStatus, Status};
use crate::engine::maildaemons::{FACILITIES, MailDaemon};
use crate::engine::message::probes::{PROGRAM, WORD};
use crate::error::Failure;

/// A forwarder needs a few milliseconds; one that is asked for the first time, a second.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// After the first message has arrived the others are not far.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// A second channel of the same message takes as long as the first, but for a moment.
const COPIES: Duration = Duration::from_millis(300);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a full socket may make us wait.
const SENDING: Duration = Duration::from_secs(2);
/// The codes of mail, daemon and local0 to local7: where mail daemons log.
const USUAL: [u8; 10] = [2, 3, 16, 17, 18, 19, 20, 21, 22, 23];
/// Severity `info`.
const INFO: usize = 6;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What is tried.
pub struct ForwarderTest<'a> {
    /// The system's log socket.
    pub log_socket: &'a Path,
    /// The daemon's control socket.
    pub control: &'a Path,
    /// The mail daemons that are believed.
    pub daemons: &'a [MailDaemon],
}

/// One message on its channel.
struct Probe {
    facility: u8,
    text: String,
    /// How often.
    arrived: usize,
}

impl ForwarderTest<'_> {
    /// Sends the messages and tells which have arrived. `before` is how the daemon was.
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
            self.not_sent(&error, report);
            return;
        }
        if let Err(failure) = self.wait(&mut probes) {
            report.note(
                format!("the way of the log could not be tried: {failure}"),
                "The daemon does not say what it hears.",
                "restart the daemon, if it is of another version",
            );
            return;
        }
        if probes.iter().any(|probe| probe.arrived > 0) {
            self.tell_deaf(&probes, report);
            tell_doubled(&probes, report);
        } else {
            self.tell_none(before, report);
        }
    }

    fn send(&self, probes: &[Probe]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(self.log_socket)?;
        socket.set_write_timeout(Some(SENDING))?;
        for Probe { facility, text, .. } in probes {
            let priority = usize::from(*facility) * 8 + INFO;
            let (stamp, pid) = (stamp(SystemTime::now()), std::process::id());
            socket.send(format!("<{priority}>{stamp} {PROGRAM}[{pid}]: {text}").as_bytes())?;
        }
        Ok(())
    }

    fn not_sent(&self, error: &io::Error, report: &mut Report) {
        let socket = self.log_socket.display();
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "there is no such socket: no syslog daemon runs here",
            io::ErrorKind::ConnectionRefused => "nobody listens there: the syslog daemon is down",
            io::ErrorKind::WouldBlock => "it is full: the syslog daemon hangs",
            _ => "it takes no message",
        };
        report.problem(
            format!("{socket}: {error}"),
            format!("Mail daemons log to this socket, and {cause}. So no login can be heard."),
            "systemctl restart rsyslog (or syslog-ng); if the mail daemons log elsewhere, name \
             their socket: doctor --log-socket PATH",
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

    /// Some have arrived: whom the forwarder leaves out.
    fn tell_deaf(&self, probes: &[Probe], report: &mut Report) {
        let names = |arrived: bool| {
            let some = probes.iter().filter(|probe| (probe.arrived > 0) == arrived);
            some.map(|probe| FACILITIES[usize::from(probe.facility)]).collect::<Vec<_>>().join(", ")
        };
        let arrived =
            |facility: &u8| probes.iter().any(|p| p.arrived > 0 && p.facility == *facility);
        let deaf = self.daemons.iter().filter(|daemon| !facilities(daemon).iter().any(arrived));
        let deaf: Vec<&str> = deaf.map(|daemon| &*daemon.name).collect();
        let heard = names(true);
        report.ok(format!("the forwarder hands over: {heard}"));
        let lost = names(false);
        let mail = probes
            .iter()
            .any(|probe| probe.arrived == 0 && FACILITIES[usize::from(probe.facility)] == "mail");
        let rule =
            format!("in the forwarder's rule (/etc/rsyslog.d/00-pop-before-smtp.conf) add: {lost}");
        if !deaf.is_empty() || mail {
            let deaf =
                if deaf.is_empty() { "most mail daemons".to_owned() } else { deaf.join(", ") };
            report.problem(
                format!("the forwarder leaves out: {lost}"),
                format!(
                    "There {deaf} log, and their logins are not heard. The log takes the messages, \
                     but the forwarder's rule filters them by facility."
                ),
                rule,
            );
        } else if !lost.is_empty() {
            report.note(
                format!("the forwarder leaves out: {lost}"),
                "Mail daemons that log there are not heard: popa3d logs to daemon, teapop and \
                 solid-pop3d to local0, qpopper to either mail or local0, Dovecot to where its \
                 syslog_facility says.",
                rule,
            );
        }
    }

    /// None has arrived.
    fn tell_none(&self, before: &Status, report: &mut Report) {
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
                format!("the forwarder is none of the senders that {} names", filter_option(kind)),
                "The daemon gets the frames and rejects them, so no login counts.",
                name_the_senders(kind),
            );
            return;
        }
        let others = |status: &Status| status.counts.other_hosts;
        if others(&now) > others(before) {
            report.problem(
                "the frames name a host that allow-host does not",
                "The daemon gets the frames and rejects them, so no login counts.",
                "config.toml: allow-host = [..., \"NAME OF THIS HOST IN ITS LOG\"], and reload the \
                 daemon; frames without a host name are \"-\"",
            );
            return;
        }
        report.problem(
            format!("what is written to {socket} does not arrive at the daemon"),
            format!(
                "The log took a test message of each facility, and the forwarder handed over none \
                 to {}. So no login can be heard. (A forwarder whose target was missing for a while \
                 may pause before it tries again.)",
                listeners.join(", ")
            ),
            "install -m 644 deploy/rsyslog/pop-before-smtp.conf \
             /etc/rsyslog.d/00-pop-before-smtp.conf && rsyslogd -N1 && systemctl restart rsyslog",
        );
    }
}

/// Some have arrived more than once.
fn tell_doubled(probes: &[Probe], report: &mut Report) {
    let doubled = probes.iter().filter(|probe| probe.arrived > 1);
    let names: Vec<&str> = doubled.map(|probe| FACILITIES[usize::from(probe.facility)]).collect();
    if names.is_empty() {
        return;
    }
    report.problem(
        format!("each message arrives more than once: {}", names.join(", ")),
        "Two channels lead to the daemon, such as two files of one forwarder, or a forwarder beside the \
         journal. All is counted twice, and of a doubled line of Courier a stranger can make a login.",
        "find them: grep -ls pop-before-smtp /etc/rsyslog.d/* /etc/syslog-ng/conf.d/*; systemctl \
         is-enabled pop-before-smtp-journal.socket; and leave one (older installations have \
         /etc/rsyslog.d/40-pop-before-smtp.conf)",
    );
}

/// The facilities from which a mail daemon's logins are believed and to which it may log.
fn facilities(daemon: &MailDaemon) -> BTreeSet<u8> {
    match (&daemon.narrowed, daemon.facilities.as_slice()) {
        (Some(named), _) => named.iter().copied().collect(),
        (None, []) => USUAL.into(),
        (None, described) => described.iter().copied().collect(),
    }
}

/// `Mmm dd hh:mm:ss`, in UTC: receivers put their own time in its place.
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
