//! One syslog message, and what stands around its sender's words that is not theirs.
//!
//! Promise  what some systems put before the words is taken off in exactly one form each, once.

pub mod address;
pub mod hosts;
pub mod probes;
pub mod syslog;

use super::time::Time;

/// One syslog message, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Facility code 0 to 23 (RFC 5424 section 6.2.1), if the frame carried a priority.
    pub facility: Option<u8>,
    /// Severity code 0 to 7 (RFC 5424 section 6.2.1), if the frame carried a priority.
    pub severity: Option<u8>,
    /// The host that is said to have logged the message.
    pub host: Option<&'a str>,
    /// The program name: RFC 3164's tag or RFC 5424's APP-NAME, without the PID.
    pub program: &'a str,
    /// The process id, as written.
    pub pid: Option<&'a str>,
    /// When the sender says to have written it, if it says so with year and time zone.
    pub stamp: Option<Time>,
    /// What follows the tag and one blank, or RFC 5424's MSG, to the end of the frame.
    pub body: &'a str,
}

impl<'a> Message<'a> {
    /// The message itself: the body without leading blanks, of which some forwarders add one, and
    /// without the `[ID 583609 mail.info] ` that Solaris puts before it (syslogd(1M), message ID).
    pub fn text(&self) -> &'a str {
        let text = self.body.trim_start_matches(' ');
        message_id(text).map_or(text, |(_, rest)| rest)
    }

    /// The severity that Solaris repeats before the message: its name. Like the message it is what
    /// the sender wrote, so it may speak against a message and never for it.
    pub fn repeated_severity(&self) -> Option<&'a str> {
        let (severity, _) = message_id(self.body.trim_start_matches(' '))?;
        Some(severity)
    }

    /// nginx's message, if a local syslog has taken the host name that nginx writes for the tag:
    /// then the program is called like the host, and the message begins with the tag.
    ///
    /// For messages of programs that are not known otherwise: of a program that is really called
    /// like its host, a stranger may have written the first words.
    pub fn of_nginx(&self) -> Option<Self> {
        if self.host != Some(self.program) || self.pid.is_some() {
            return None;
        }
        let body = self.text().strip_prefix("nginx: ")?;
        Some(Self { program: "nginx", body, ..*self })
    }
}

/// The severity in Solaris's message ID, and what stands after that.
fn message_id(text: &str) -> Option<(&str, &str)> {
    let (head, rest) = text.strip_prefix("[ID ")?.split_once("] ")?;
    let (id, priority) = head.split_once(' ')?;
    let (facility, severity) = priority.split_once('.')?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_facility = is_word(facility.trim_end_matches(|c: char| c.is_ascii_digit()));
    (is_number(id) && is_facility && is_word(severity)).then_some((severity, rest))
}

pub(super) fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}
