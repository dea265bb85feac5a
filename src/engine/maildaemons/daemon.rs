//! A mail daemon: its patterns, what it writes, and what a message of its tells.
//!
//! Promise  a message that fits several patterns is what takes the most trust: distrust before
//!          login, login before connection, and what only ends something last.

use serde::Deserialize;

use super::codes::{SEVERITIES, code};
use super::pattern::{Extracted, Pattern, Refusal, VisibleText};
use super::{Event, Name};
use crate::engine::message::Message;

/// A mail daemon, ready to read messages.
#[derive(Clone, Debug)]
pub struct MailDaemon {
    /// Short name, as in `--daemon`.
    pub name: Name,
    /// Name for people.
    pub title: String,
    /// Versions whose format is known.
    pub versions: String,
    /// Whether the format was seen in a running daemon or in its source.
    pub verified: bool,
    /// What an administrator must know.
    pub note: Option<String>,
    /// Exact syslog program names.
    pub programs: Vec<String>,
    /// The facilities (RFC 5424 section 6.2.1) from which its logins and connections are believed,
    /// where a proof needs them; empty: any.
    pub facilities: Vec<u8>,
    /// The facilities to which the administrator has narrowed it, instead of those.
    pub narrowed: Option<Vec<u8>>,
    /// The severities (RFC 5424 section 6.2.1) of its genuine logins, where a proof needs them;
    /// empty: any.
    pub severities: Vec<u8>,
    /// The user's file, or nothing for a built-in one.
    pub origin: Option<String>,
    /// Bytes of the longest message that can be a login or a connection.
    pub max_length: usize,
    /// Which messages are pieces of a line that was cut; the first one that fits decides.
    pub(super) cuts: Vec<Cut>,
    /// A process serves one client and ends with him, so that its PID pairs login and log-out.
    pub pid_per_session: bool,
    /// Messages that others than the daemon have a hand in.
    pub shapes: Vec<Shape>,
    /// Lines that must give what is said of them.
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
    /// What the description alone says, without the administrator's narrowing.
    pub fn as_described(&self) -> Self {
        Self { narrowed: None, ..self.clone() }
    }

    /// Whether its logins are told over several lines, to be joined by PID.
    pub fn joins(&self) -> bool {
        self.login.iter().any(|pattern| !pattern.has_group("address"))
    }

    /// How many messages may be the tails of this one, in which the daemon's logger cut a line;
    /// `None`: it cuts none.
    pub(super) fn tails(&self, message: &Message<'_>, length: usize) -> Option<u8> {
        let seen = VisibleText::of(message, length);
        let cut = self.cuts.iter().find(|cut| cut.pattern.may_fit(seen));
        let tails = cut.filter(|cut| seen.length >= cut.length).map_or(0, |cut| cut.tails);
        (!self.cuts.is_empty()).then_some(tails)
    }

    /// Whether a PID of it can lose its credit.
    pub fn distrusts(&self) -> bool {
        !self.distrust.is_empty()
    }

    /// Whether the severity of a frame, where it has one, tells a login from a stranger's text.
    pub fn is_told_by_severity(&self) -> bool {
        !self.severities.is_empty()
    }

    /// The patterns of a login.
    pub fn logins(&self) -> &[Pattern] {
        &self.login
    }

    /// The patterns of a connection.
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
            ours.find_map(|pattern| pattern.take(seen))
        };
        let first = |patterns: &[Pattern]| if is_too_long { None } else { all(patterns) };
        let any = |patterns: &[Pattern]| {
            let mut ours = patterns.iter().filter(|pattern| pattern.is_for(message.program));
            ours.any(|pattern| pattern.may_fit(seen))
        };
        let login = |Extracted { address, user, session }| Event::Login { address, user, session };
        let logout =
            |Extracted { address, user, session }| Event::Logout { address, user, session };
        let connect = |Extracted { address, .. }| Event::Connect { address };
        if any(&self.distrust) {
            Some(Ok(Event::Distrust))
        } else if let Some(taken) = first(&self.login) {
            let told = self.check_facility(message).and_then(|()| self.check_severity(message));
            Some(told.and(taken.map(login)))
        } else if let Some(taken) = first(&self.connect) {
            // A connection is often logged at another severity than the login.
            Some(self.check_facility(message).and(taken.map(connect)))
        } else if let Some(taken) = all(&self.logout) {
            // Nobody is authorised by a log-out: an odd name or address is no reason to keep
            // the session.
            let session = || self.logout.iter().find_map(|pattern| pattern.session(message));
            Some(Ok(taken.map_or_else(|_| Event::End { session: session() }, logout)))
        } else if !seen.is_cut && any(&self.end) {
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

/// Whether a list of codes admits the code of a frame; a forwarder need not have told it.
fn admits(list: &[u8], code: Option<u8>) -> bool {
    list.is_empty() || code.is_none_or(|code| list.contains(&code))
}

/// The severity that Solaris repeats; one without a name is nobody's.
fn repeated(message: &Message<'_>) -> Option<u8> {
    let name = message.repeated_severity()?;
    Some(code(name, &SEVERITIES, "severity").unwrap_or(u8::MAX))
}

/// Which messages are pieces of a line that was cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// How they begin.
    pub pattern: Pattern,
    /// Bytes of the shortest one.
    pub length: usize,
    /// How many messages after it may be the rest of the line.
    pub tails: u8,
}

/// What an example must give.
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

/// Lines, and what the last of them must give.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it stands in the file, counted from 1.
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
    /// Whether it shows a login.
    pub fn is_login(&self) -> bool {
        self.verdict == ExpectedVerdict::Login
    }
}

/// Who has a hand in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Anybody, without a password: no login may be seen in it.
    Stranger,
    /// A client that has logged in, with a name of its choice: no address may be seen in it but
    /// the one that the daemon has written for the client.
    Client,
}

/// All messages of one kind that a daemon writes, or more than those.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where it stands in the file, counted from 1.
    pub file_line: usize,
    /// An expression for the whole message. Its group `client` is the address that the daemon
    /// writes for the client.
    pub pattern: String,
    /// Who has a hand in them.
    pub cause: Cause,
    /// The daemon's programs that write them; empty: all.
    pub programs: Vec<String>,
    /// Their severities, given where only these tell them from a login; else empty.
    pub severities: Vec<u8>,
}
