//! One syslog message: its fields, and its text without what forwarders add.
//!
//! - **Promise**: what some systems put before the text is removed in exactly one form each, once.

pub mod address;
mod head;
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
    /// The host that logged the message, according to the header.
    pub host: Option<&'a str>,
    /// The program name: RFC 3164's tag or RFC 5424's APP-NAME, without the PID.
    pub program: &'a str,
    /// The process id, as written.
    pub pid: Option<&'a str>,
    /// The sender's time stamp, if it has a year and a time zone.
    pub stamp: Option<Time>,
    /// What follows the tag and one blank, or RFC 5424's MSG, to the end of the frame.
    pub body: &'a str,
}

impl<'a> Message<'a> {
    /// Returns the message itself: the body without leading blanks, of which some forwarders add one,
    /// and without the `[ID 583609 mail.info] ` that Solaris puts before it (syslogd(1M), message ID).
    pub fn text(&self) -> &'a str {
        let text = self.body.trim_start_matches(' ');
        message_id(text).map_or(text, |(_, rest)| rest)
    }

    /// Returns the name of the severity that Solaris repeats before the message. It may come from the
    /// author of the message, so it may refuse a message and never confirm it.
    pub fn repeated_severity(&self) -> Option<&'a str> {
        let (severity, _) = message_id(self.body.trim_start_matches(' '))?;
        Some(severity)
    }

    /// Returns nginx's message, if a local syslog server has taken the host name that nginx writes
    /// for the tag: then the program has the name of the host, and the message begins with the tag.
    ///
    /// Only for programs that are not known otherwise: if a known program really has the name of its
    /// host, the beginning of its message may be foreign text.
    pub fn of_nginx(&self) -> Option<Self> {
        if self.host != Some(self.program) || self.pid.is_some() {
            return None;
        }
        let body = self.text().strip_prefix("nginx: ")?;
        Some(Self { program: "nginx", body, ..*self })
    }
}

/// Returns the severity in Solaris's message ID, and the text after it.
fn message_id(text: &str) -> Option<(&str, &str)> {
    let (head, rest) = text.strip_prefix("[ID ")?.split_once("] ")?;
    let (id, priority) = head.split_once(' ')?;
    let (facility, severity) = priority.split_once('.')?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_facility = is_word(facility.trim_end_matches(|c: char| c.is_ascii_digit()));
    (is_number(id) && is_facility && is_word(severity)).then_some((severity, rest))
}

/// Splits a text at its first blank; `None`: it has none.
fn split_at_blank(text: &str) -> Option<(&str, &str)> {
    let at = memchr::memchr(b' ', text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

pub(super) fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}
