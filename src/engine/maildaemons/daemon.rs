//! A mail daemon: its patterns, and what a message of it means.
//!
//! - **Promise**: a message that matches several patterns has the meaning that trusts least: distrust
//!   before login, login before connection, and what only ends something last.

use std::time::Duration;

use serde::Deserialize;

use super::codes::{SEVERITIES, code};
use super::likeness::LoginWords;
use super::pattern::{Extracted, Pattern, Refusal, VisibleText};
use super::{Event, Name};
use crate::engine::message::Message;

/// A mail daemon, ready to read messages.
#[derive(Clone, Debug)]
pub struct MailDaemon {
    /// Short name, as in `--daemon`.
    pub name: Name,
    /// The name shown to users.
    pub title: String,
    /// The versions whose format is known.
    pub versions: String,
    /// Whether the format was seen in a running daemon or in its source.
    pub verified: bool,
    /// What an administrator must know.
    pub note: Option<String>,
    /// The exact syslog program names.
    pub programs: Vec<String>,
    /// The facilities (RFC 5424 section 6.2.1) from which its logins and connections are accepted,
    /// where a proof needs them; empty: any.
    pub facilities: Vec<u8>,
    /// The facilities chosen by the administrator, instead of those.
    pub narrowed: Option<Vec<u8>>,
    /// The severities (RFC 5424 section 6.2.1) of its genuine logins, where a proof needs them;
    /// empty: any.
    pub severities: Vec<u8>,
    /// The user's file; `None` for a built-in description.
    pub origin: Option<String>,
    /// Bytes of the longest message that can be a login or a connection.
    pub max_length: usize,
    /// Which messages are fragments of a split line; the first that matches decides.
    pub(super) cuts: Vec<Cut>,
    /// Whether a process serves one client and ends with it, so that its PID pairs login and
    /// log-out.
    pub pid_per_session: bool,
    /// Messages that contain text of others than the daemon.
    pub shapes: Vec<Shape>,
    /// What looks like a login of it.
    pub(super) login_words: LoginWords,
    /// Lines with their expected verdicts.
    pub examples: Vec<Example>,
    /// The text of the description.
    pub text: String,
    pub(super) login: Vec<Pattern>,
    pub(super) connect: Vec<Pattern>,
    pub(super) end: Vec<Pattern>,
    pub(super) logout: Vec<Pattern>,
    pub(super) distrust: Vec<Pattern>,
}

impl MailDaemon {
    /// Returns the daemon as described, without the administrator's choice of facilities.
    pub fn as_described(&self) -> Self {
        Self { narrowed: None, ..self.clone() }
    }

    /// Returns whether its logins are logged in several lines, to be joined by PID.
    pub fn joins(&self) -> bool {
        self.login.iter().any(|pattern| !pattern.gives_address())
    }

    /// Returns what may follow this message, if it is a fragment of a line that the daemon's logger has
    /// split; `None`: it splits no lines.
    pub(super) fn following(&self, message: &Message<'_>, length: usize) -> Option<Following> {
        let shortest = self.cuts.iter().map(|cut| cut.length).min()?;
        let seen = VisibleText::of(message, length);
        // Nearly all are shorter.
        if seen.length < shortest {
            return Some(Following::default());
        }
        let cut = self.cuts.iter().find(|cut| cut.pattern.may_match(seen));
        let following = cut.filter(|cut| seen.length >= cut.length).map(|cut| cut.following);
        Some(following.unwrap_or_default())
    }

    /// Returns whether its processes can become distrusted.
    pub fn distrusts(&self) -> bool {
        !self.distrust.is_empty()
    }

    /// Returns whether the severity of a frame, where it has one, tells a login from foreign text.
    pub fn is_told_by_severity(&self) -> bool {
        !self.severities.is_empty()
    }

    /// Returns the patterns of a login.
    pub fn logins(&self) -> &[Pattern] {
        &self.login
    }

    /// Returns the patterns of a connection.
    pub fn connects(&self) -> &[Pattern] {
        &self.connect
    }

    pub(super) fn read<'m>(
        &self,
        message: &Message<'m>,
        length: usize,
    ) -> Option<Result<Event<'m>, Refusal>> {
        let seen = VisibleText::of(message, length);
        let is_too_long = seen.length > self.max_length;
        let all = |patterns: &[Pattern]| {
            let mut ours = patterns.iter().filter(|pattern| pattern.is_for(message.program));
            ours.find_map(|pattern| pattern.extract_visible(seen))
        };
        let first = |patterns: &[Pattern]| if is_too_long { None } else { all(patterns) };
        let any = |patterns: &[Pattern]| {
            let mut ours = patterns.iter().filter(|pattern| pattern.is_for(message.program));
            ours.any(|pattern| pattern.may_match(seen))
        };
        let login = |Extracted { address, user, session }| Event::Login { address, user, session };
        let logout =
            |Extracted { address, user, session }| Event::Logout { address, user, session };
        let connect = |Extracted { address, .. }| Event::Connect { address };
        if any(&self.distrust) {
            Some(Ok(Event::Distrust))
        } else if let Some(found) = first(&self.login) {
            let checked = self.check_facility(message).and_then(|()| self.check_severity(message));
            Some(checked.and(found.map(login)))
        } else if let Some(found) = first(&self.connect) {
            // A connection is often logged at another severity than the login.
            Some(self.check_facility(message).and(found.map(connect)))
        } else if let Some(found) = all(&self.logout) {
            // A log-out authorises nobody, so a refused name or address is no reason to keep the
            // session.
            let session = || self.logout.iter().find_map(|pattern| pattern.session(message));
            Some(Ok(found.map_or_else(|_| Event::End { session: session() }, logout)))
        } else if !seen.is_truncated && any(&self.end) {
            Some(Ok(Event::End { session: None }))
        } else {
            is_too_long.then_some(Err(Refusal::TooLong))
        }
    }

    fn check_facility(&self, message: &Message<'_>) -> Result<(), Refusal> {
        let facilities = self.narrowed.as_deref().unwrap_or(&self.facilities);
        admits(facilities, message.facility).then_some(()).ok_or(Refusal::Facility)
    }

    fn check_severity(&self, message: &Message<'_>) -> Result<(), Refusal> {
        let severity = message.severity.or_else(|| repeated(message));
        admits(&self.severities, severity).then_some(()).ok_or(Refusal::Severity)
    }
}

/// Returns whether a list of codes admits the code of a frame, which may have none.
fn admits(list: &[u8], code: Option<u8>) -> bool {
    list.is_empty() || code.is_none_or(|code| list.contains(&code))
}

/// Returns the severity that Solaris repeats; an unknown name becomes a code that no list admits.
fn repeated(message: &Message<'_>) -> Option<u8> {
    let name = message.repeated_severity()?;
    Some(code(name, &SEVERITIES, "severity").unwrap_or(u8::MAX))
}

/// Which messages are fragments of a split line.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Matches the beginning of a fragment.
    pub pattern: Pattern,
    /// Bytes of the shortest fragment.
    pub length: usize,
    /// What may follow it.
    pub following: Following,
}

/// What may follow a fragment of a split line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// How many messages of the same process may continue the line, however much later they arrive.
    pub messages: u8,
    /// For how long any message of the stream may continue it, because other ones come between.
    pub time: Duration,
}

impl Following {
    /// Returns whether nothing follows: the message is no fragment.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Returns all that may follow by one description or the other.
    pub(super) fn or(self, other: Self) -> Self {
        Self { messages: self.messages.max(other.messages), time: self.time.max(other.time) }
    }
}

/// The expected verdict of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedVerdict {
    /// A login.
    Login,
    /// A log-out.
    Logout,
    /// Half of a login.
    Partial,
    /// Nothing.
    None,
}

/// Lines, and the expected outcome of the last one.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its line in the file, counted from 1.
    pub file_line: usize,
    /// Log lines or frames, in order of arrival.
    pub lines: Vec<String>,
    /// The verdict on the last line.
    pub verdict: ExpectedVerdict,
    /// The address of the last line, canonical.
    pub address: Option<String>,
    /// The user of the last line.
    pub user: Option<String>,
}

impl Example {
    /// Returns whether it is an example of a login.
    pub fn is_login(&self) -> bool {
        self.verdict == ExpectedVerdict::Login
    }
}

/// Whose text a message contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// An unauthenticated client's: no login may be found in it.
    Stranger,
    /// An authenticated client's, with a name of its choice: no address may be found in it except
    /// the one that the daemon has written for the client.
    Client,
}

/// A superset of the messages of one kind that a daemon writes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its line in the file, counted from 1.
    pub file_line: usize,
    /// A regular expression for the whole message. Its group `client` is the address that the daemon
    /// writes for the client.
    pub pattern: String,
    /// Whose text they contain.
    pub cause: Cause,
    /// The daemon's programs that write them; empty: all.
    pub programs: Vec<String>,
    /// Their severities, if only these tell them from a login; otherwise empty.
    pub severities: Vec<u8>,
}
