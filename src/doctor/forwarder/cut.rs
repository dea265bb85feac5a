//! Finds a forwarder that cuts messages, by a long one that is recognised only if it is whole.
//!
//! - **Why**: a stranger chooses the name in a failed login, and so the place at which the line is cut.
//!   What is left may be a whole login line. Lines longer than `max-length` of a description do not
//!   count, so it is safe to cut above that.
//! - **Limits**: the message is of a program of its own, since a login line of this length is too long
//!   for every mail daemon. A rule that cuts the messages of one program only is not found.

use std::time::Instant;

use super::super::findings::Report;
use super::super::host::syslogd::SyslogDaemon;
use super::{ForwarderTest, PAUSE, Probe, REPLY_TIMEOUT};
use crate::control::status::{ListenerKind, Status};
use crate::engine::message::probes::{LONG_TEXT, long};
use crate::error::Failure;

/// Bytes that a syslog daemon must accept: the long message with its header.
const MIN_LIMIT: usize = 1024;

impl ForwarderTest<'_> {
    /// Sends a long message where a short one has arrived, and reports whether it arrives.
    pub(super) fn test_cutting(&self, probes: &[Probe], before: &Status, report: &mut Report) {
        let arrived = || probes.iter().filter(|probe| probe.arrived > 0);
        let plain = || arrived().filter(|probe| probe.login.is_none());
        // A facility to which a mail daemon logs, if there is one.
        let is_used = |facility: u8| {
            arrived().any(|probe| probe.login.is_some() && probe.facility == facility)
        };
        let like = plain().find(|probe| is_used(probe.facility)).or_else(|| plain().next());
        let Some(like) = like else { return };
        match self.arrives_whole(like) {
            Ok(true) => report.ok(format!("messages of {LONG_TEXT} bytes arrive whole")),
            Ok(false) => report.problem(
                format!("the forwarder cuts messages: one of {LONG_TEXT} bytes does not arrive whole"),
                format!(
                    "A short one does (facility {}). A line that is cut can look like a login: whoever \
                     tries to log in with a long name chooses where it ends, and so can relay.",
                    like.facility_name()
                ),
                self.how_not_to_cut(before),
            ),
            Err(failure) => report.note(
                format!("cannot test whether the forwarder cuts messages: {failure}"),
                "A line that is cut can look like a login.",
                "run doctor again",
            ),
        }
    }

    /// Returns whether a long message arrives as a short one has. It takes as long as the first one,
    /// since nothing else is known of the forwarder.
    fn arrives_whole(&self, like: &Probe) -> Result<bool, Failure> {
        let key = format!("{} whole", like.key);
        let mut sent = [Probe {
            tag: like.tag.clone(),
            text: long(&key),
            key,
            login: None,
            arrived: 0,
            ..*like
        }];
        let socket = self.log_socket.display();
        self.send(&sent)
            .map_err(|error| Failure::io(format!("cannot log to {socket}: {error}")))?;
        let end = Instant::now() + REPLY_TIMEOUT;
        loop {
            self.count(&mut sent)?;
            if sent[0].arrived > 0 || Instant::now() >= end {
                return Ok(sent[0].arrived > 0);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn how_not_to_cut(&self, before: &Status) -> String {
        const RSYSLOG: &str = "rsyslogd -N1 && systemctl restart rsyslog";
        match &self.host.syslogd {
            SyslogDaemon::Rsyslog(_) if self.is_the_hosts() => {
                let rules = self.rsyslog();
                match rules.as_ref().and_then(|rules| rules.limit_below(MIN_LIMIT)) {
                    Some(line) => format!(
                        r"sed -Ei '{}s/(maxmessagesize[^0-9]*)[0-9]+[a-z]*/\18k/I' {} && {RSYSLOG}",
                        line.number,
                        line.file.display()
                    ),
                    // Then a template does it.
                    None => {
                        let mut listeners = before.listeners.iter();
                        let udp = !listeners.any(|listener| listener.kind == ListenerKind::Unix);
                        self.host.install_rule(&self.host.syslogd, udp)
                    }
                }
            }
            SyslogDaemon::SyslogNg(_) if self.is_the_hosts() => {
                "/etc/syslog-ng/syslog-ng.conf: options { log-msg-size(65536); }, and no template that \
                 shortens $MSG; then: syslog-ng --syntax-only && systemctl restart syslog-ng"
                    .into()
            }
            SyslogDaemon::Other(name) if self.is_the_hosts() => format!(
                "let rsyslog or syslog-ng take the place of {name}, as {} says: busybox cuts at 255 bytes \
                 unless it is built with a larger FEATURE_SYSLOGD_READ_BUFFER_SIZE",
                self.host.shipped("busybox/syslog")
            ),
            _ => "raise the limit of the syslog daemon to 8 KiB (rsyslog: $MaxMessageSize; syslog-ng: \
                  log-msg-size), forward messages without shortening them, and replace busybox syslogd \
                  by rsyslog or syslog-ng"
                .into(),
        }
    }
}
