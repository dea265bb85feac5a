//! Tests the path from the system's log socket to the daemon with messages of its own.
//!
//! - **Promise**: sends what syslog(3) would send: a message for each facility that an accepted mail
//!   daemon may use, a login line of each mail daemon that is likely to run here, under its name and to
//!   its facility, and a long message, which shows whether the forwarder cuts. They authorise no one.
//! - **Layers**: `probes` makes the login lines; `report` says what has not arrived, and why; `rsyslog`
//!   finds the rules that take messages away; `cut` sends the long message.
//! - **Source**: syslog(3), RFC 3164 section 4.1.

mod cut;
mod probes;
mod report;
mod rsyslog;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::findings::Report;
use super::host::Host;
use crate::control::client;
use crate::control::protocol::{Answer, Request};
use crate::control::status::Status;
use crate::engine::maildaemons::{FACILITIES, MailDaemon, Name};
use crate::engine::message::probes::{PROGRAM, USER, WORD};
use crate::error::Failure;
pub use probes::LogsAs;
use probes::{INFO, LoginProbe};

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
/// Most login lines that are sent: the daemon remembers a limited number of probes.
const MAX_LOGINS: usize = 24;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A test of log forwarding.
pub struct ForwarderTest<'a> {
    /// The host.
    pub host: &'a Host,
    /// The system's log socket.
    pub log_socket: &'a Path,
    /// The daemon's control socket.
    pub control: &'a Path,
    /// The accepted mail daemons.
    pub daemons: &'a [MailDaemon],
    /// Those that are likely to run here.
    pub likely: &'a BTreeSet<Name>,
    /// How some of them log, according to their own configuration.
    pub logs_as: &'a [LogsAs],
}

/// One test message.
struct Probe {
    facility: u8,
    severity: u8,
    tag: String,
    text: String,
    /// By what the daemon remembers it.
    key: String,
    /// The mail daemon, if it is a login line.
    login: Option<LoginProbe>,
    /// Copies that have arrived.
    arrived: usize,
}

impl Probe {
    fn facility_name(&self) -> &'static str {
        FACILITIES[usize::from(self.facility)]
    }
}

impl ForwarderTest<'_> {
    /// Sends the messages and reports which arrive. `before` is the daemon's status before that.
    pub fn run(&self, before: &Status, report: &mut Report) {
        let mut probes = self.probes();
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
        // An older daemon does not know login lines and long messages as probes, and takes none for a
        // login either.
        let is_older = before.version != env!("CARGO_PKG_VERSION");
        if is_older {
            probes.retain(|probe| probe.login.is_none());
        }
        if probes.iter().any(|probe| probe.arrived > 0) {
            self.report_filtered(&probes, before, report);
            report::duplicates(&probes, report);
            if !is_older {
                self.test_cutting(&probes, before, report);
            }
        } else {
            self.report_no_arrival(before, report);
        }
    }

    fn probes(&self) -> Vec<Probe> {
        let number = RandomState::new().hash_one(std::process::id()) as u32;
        let mut facilities: BTreeSet<u8> = self.daemons.iter().flat_map(facilities).collect();
        let mut count = 0;
        let mut user = || {
            count += 1;
            format!("{USER}{number:08x}-{count}")
        };
        let likely = self.daemons.iter().filter(|daemon| self.likely.contains(&daemon.name));
        let logins = likely.flat_map(|daemon| {
            let here = self.logs_as.iter().find(|here| here.daemon == daemon.name);
            probes::of(daemon, here, &mut user)
        });
        let logins: Vec<LoginProbe> = logins.take(MAX_LOGINS).collect();
        facilities.extend(logins.iter().map(|probe| probe.facility));
        let plain = facilities.into_iter().map(|facility| {
            let text = format!("{WORD}{number:x} {}", FACILITIES[usize::from(facility)]);
            Probe {
                facility,
                severity: INFO,
                tag: format!("{PROGRAM}[{}]", std::process::id()),
                key: text.clone(),
                text,
                login: None,
                arrived: 0,
            }
        });
        let mut all: Vec<Probe> = plain.collect();
        all.extend(logins.into_iter().map(|login| Probe {
            facility: login.facility,
            severity: login.severity,
            tag: login.tag.clone(),
            text: login.text.clone(),
            key: login.user.clone(),
            login: Some(login),
            arrived: 0,
        }));
        all
    }

    fn send(&self, probes: &[Probe]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(self.log_socket)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        for Probe { facility, severity, tag, text, .. } in probes {
            let priority = u16::from(*facility) * 8 + u16::from(*severity);
            let stamp = stamp(SystemTime::now());
            socket.send(format!("<{priority}>{stamp} {tag}: {text}").as_bytes())?;
        }
        Ok(())
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
            let request = Request::Probe { text: probe.key.clone() };
            if let Answer::Probe(count) = client::ask(self.control, None, &request)? {
                probe.arrived = count;
            }
        }
        Ok(())
    }
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
