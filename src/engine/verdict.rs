//! The outcome of a frame: its verdict, and the reason in a sentence that leads to the cause.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::grants::GrantOutcome;
use super::maildaemons::{Name, Refusal};
use super::message::syslog::Malformed;

/// The verdict on one frame, as `test` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A complete login from an address that may be authorised.
    Login,
    /// A session has ended.
    Logout,
    /// Half of a login that is logged in several lines.
    Partial,
    /// A login from an address that is never authorised.
    Excluded,
    /// Nothing that grants or ends anything.
    None,
}

impl Verdict {
    /// Returns the verdict as it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::Partial => "partial",
            Self::Excluded => "excluded",
            Self::None => "none",
        }
    }
}

/// Why the verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A login pattern matches.
    LoggedIn(GrantOutcome),
    /// A login pattern matches, and the connect line of the same process has the address.
    Joined(GrantOutcome),
    /// A log-out pattern matches.
    LoggedOut,
    /// A client has connected; its login may follow.
    Connected,
    /// A client has connected; this daemon's login line will name it again.
    ConnectedOnly,
    /// A login without an address, and no connection of this process is known.
    NoConnection,
    /// A login without an address, and several connections of this process may be open.
    SeveralConnections,
    /// A login without an address in a message without a PID.
    NoPid,
    /// A failed login, or the end of a connection.
    Ended,
    /// The address is in this exclusion list.
    Excluded(String),
    /// The rule with this label says that the login never authorises.
    RefusedByRule(Arc<str>),
    /// Only some users' logins authorise, and this user is not one of them.
    OtherUser,
    /// Only some users' logins authorise, and the mail daemon has not logged whose login it is.
    UnknownUser,
    /// The operator has blocked the address.
    Blocked,
    /// More users have logged in from the address than may share one.
    Shared,
    /// The frame is not a syslog message.
    Malformed(Malformed),
    /// The frame names a host that is not accepted, or none.
    OtherHost(Option<String>),
    /// No selected mail daemon has this program name.
    UnknownProgram(String),
    /// A test message of `doctor`.
    Probe,
    /// The program is known, but no pattern matches.
    NoPattern,
    /// As before, and the message looks like a login.
    UnknownLogin,
    /// A login pattern matches, but the message is refused.
    Refused(Refusal),
    /// The continuation of a line that the daemon's logger has split.
    Continuation,
    /// A fragment of such a line came a moment ago, and this may continue it.
    Unsettled,
    /// The message is older than the grace period: its age.
    Late(Duration),
    /// The process may have been made to log foreign text.
    Distrusted,
    /// From here on the process may log foreign text.
    Distrust,
    /// A repeated message, of which the original has counted.
    Repeated,
    /// A table that must be consulted is full.
    Overloaded,
}

impl Reason {
    /// Returns the list or rule by which a login never authorises, as a short name; `None` for other
    /// reasons.
    pub fn exclusion(&self) -> Option<&str> {
        match self {
            Self::Excluded(list) => Some(list),
            Self::RefusedByRule(label) => Some(label),
            Self::OtherUser | Self::UnknownUser => Some("users"),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::LoggedIn(_) => "a login pattern matches",
            Self::Joined(_) => "a login, with the address from the same process's connect line",
            Self::LoggedOut => "a session has ended",
            Self::Connected => "a client has connected; the login of the same process may follow",
            Self::ConnectedOnly => "a client has connected and has not logged in yet",
            Self::NoConnection => {
                "a login without an address, and no earlier connect line from the same sender, \
                 host, program and PID; check that connect lines are logged and forwarded too"
            }
            Self::SeveralConnections => {
                "a login without an address, and several connections of the same sender, host, \
                 program and PID may be open; give each container its own host name"
            }
            Self::NoPid => {
                "a login without an address, and no PID to find its connect line by; make the \
                 forwarder keep the PID"
            }
            Self::Ended => "a failed login or the end of a connection",
            Self::Excluded(list) => {
                return write!(f, "the address is never authorised: it belongs to `{list}`");
            }
            Self::RefusedByRule(label) => return write!(f, "{label}: never"),
            Self::OtherUser => "`users` does not name this user",
            Self::UnknownUser => "`users` is set, and the mail daemon does not log who logs in",
            Self::Blocked => "the operator has blocked this address temporarily",
            Self::Shared => {
                "more users than max-users-per-address have logged in from this address"
            }
            Self::Malformed(why) => return why.fmt(f),
            Self::OtherHost(Some(name)) => {
                return write!(f, "the host `{}` is not in allow-host", name.escape_debug());
            }
            Self::OtherHost(None) => "the frame names no host, and `-` is not in allow-host",
            Self::UnknownProgram(name) => {
                return write!(f, "no selected mail daemon has the program name `{name}`");
            }
            Self::Probe => "a test message from `pop-before-smtp doctor`",
            Self::NoPattern => {
                "the program is known, but no pattern matches the message, and it does not look like \
                 a login"
            }
            Self::UnknownLogin => {
                "it looks like a login, but no pattern matches: the program's version or its log \
                 format is not known; `pop-before-smtp daemons` shows what is"
            }
            Self::Refused(why) => return write!(f, "refused: {why}"),
            Self::Late(age) => {
                return write!(
                    f,
                    "refused: the message is dated {} ago, longer than the grace period: it was \
                     delivered late, or a clock or time zone is wrong (the sender's, or this \
                     host's when the daemon started)",
                    rough(*age)
                );
            }
            Self::Continuation => {
                "the continuation of an overlong line that the daemon's logger has split"
            }
            Self::Unsettled => {
                "refused: a moment ago came a line so long that the mail daemon splits it, and this \
                 may be its end, with a text that a client has chosen"
            }
            Self::Distrusted => {
                "refused: this process has connected to another server and may log that server's \
                 text as its own; it is trusted again after 24 hours"
            }
            Self::Distrust => {
                "the process connects to another server and may log that server's text as its \
                 own; it is not trusted for 24 hours"
            }
            Self::Repeated => "a repeated message; the original has already counted",
            Self::Overloaded => {
                "refused: too many processes or split lines to remember; check for a flood of log \
                 messages"
            }
        };
        f.write_str(text)
    }
}

/// Formats a span in minutes, or in days from two days on.
fn rough(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    if minutes < 2 * 24 * 60 {
        format!("{minutes} min")
    } else {
        format!("{} days", minutes / 1440)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the frame is empty",
            Self::Priority => "the frame begins with an invalid syslog priority (not 0 to 191)",
            Self::NoProgram => "no program name found (expected `program:` or `program[pid]:`)",
        })
    }
}

/// The outcome of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why the verdict is what it is.
    pub reason: Reason,
    /// The mail daemon that logged the message, if known.
    pub daemon: Option<Name>,
    /// The client, if the message or its connect line names it.
    pub address: Option<IpAddr>,
    /// The user, if the message names one.
    pub user: Option<String>,
    /// The label of the rule that has decided, if one has.
    pub rule: Option<Arc<str>>,
    /// Whether it is a login, or looks like one, that authorises nobody although its address may be
    /// authorised: something is wrong, and nobody else will notice.
    pub is_lost_login: bool,
}

impl Outcome {
    pub(super) fn nothing(reason: Reason) -> Self {
        Self {
            verdict: Verdict::None,
            reason,
            daemon: None,
            address: None,
            user: None,
            rule: None,
            is_lost_login: false,
        }
    }

    /// Returns what a login did to the set; `None` if the frame was not a login that counts.
    pub fn granted(&self) -> Option<GrantOutcome> {
        match self.reason {
            Reason::LoggedIn(granted) | Reason::Joined(granted) => Some(granted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::correlation::streams::Source;
    use crate::engine::grants::exclude::{Exclude, NetworkList};
    use crate::engine::maildaemons::{DaemonTable, MailDaemon, Selection};
    use crate::engine::message::hosts::Hosts;
    use crate::engine::time::Time;
    use crate::engine::{Engine, Rules};

    /// Returns verdict and reason of the last of these frames. 192.0.2.66 is blocked,
    /// 198.51.100.0/24 excluded, an address may have one user, and only mx1 is accepted.
    fn last_outcome(daemons: &[MailDaemon], frames: &[&str]) -> String {
        let home = "198.51.100.0/24".parse().expect("a network");
        let mut engine = Engine::new(Rules {
            table: DaemonTable::of(daemons.to_vec()),
            exclude: Exclude(vec![NetworkList::new("home", [home])]),
            hosts: Hosts::Named(vec!["mx1".into()]),
            max_users: Some(1),
            ..Rules::default()
        });
        let now = Time::from_millis(3_600_000);
        let blocked = "192.0.2.66".parse().expect("an address");
        engine.revoke(now, blocked, Some(Duration::from_secs(60)));
        let outcome = frames.iter().map(|f| engine.process(now, Source::default(), f.as_bytes()));
        let Outcome { verdict, reason, .. } = outcome.last().expect("a frame");
        format!("{}: {reason}", verdict.as_str())
    }

    #[test]
    fn reasons_lead_to_the_cause() {
        let login = |user: &str, address: &str| {
            format!(
                "Nov 22 07:31:23 mx1 dovecot: imap-login: Login: user=<{user}>, method=PLAIN, \
                 rip={address}, lip=192.0.2.1, mpid=7, session=<a>"
            )
        };
        let vm = |text: &str| format!("Nov 22 07:31:23 mx1 vm-pop3d[7]: {text}");
        let uw = |text: &str| format!("Nov 22 07:31:23 mx1 ipop3d[7]: {text}");
        let courier = |text: &str| format!("Nov 22 07:31:23 mx1 pop3d: {text}");
        let (connect, joe) = (vm("Connect from 192.0.2.7"), vm("User 'joe' logged in"));
        let away = uw("IMAP login to host=evil.example user=joe host=[192.0.2.9]");
        let named = |name: &str| login("joe", "192.0.2.7").replace("mx1", name);
        let dated = |date: &str| login("joe", "192.0.2.7").replace("Nov 22 07:31:23", date);
        let rows: &[(&[&str], &str)] = &[
            (&[&login("joe", "192.0.2.7")], "login: a login pattern matches"),
            (
                &[&connect],
                "partial: a client has connected; the login of the same process may follow",
            ),
            (
                &[&connect, &joe],
                "login: a login, with the address from the same process's connect line",
            ),
            (
                &[&joe],
                "partial: a login without an address, and no earlier connect line from the same \
                 sender, host, program and PID; check that connect lines are logged and forwarded \
                 too",
            ),
            (
                &[&connect, &connect.replace("0.2.7", "0.2.8"), &joe],
                "partial: a login without an address, and several connections of the same sender, \
                 host, program and PID may be open; give each container its own host name",
            ),
            (
                &[&dated("1970-01-01T00:29:00Z")],
                "none: refused: the message is dated 31 min ago, longer than the grace period: it \
                 was delivered late, or a clock or time zone is wrong (the sender's, or this \
                 host's when the daemon started)",
            ),
            (
                &[&joe.replace("[7]", "")],
                "partial: a login without an address, and no PID to find its connect line by; make \
                 the forwarder keep the PID",
            ),
            (
                &[&vm("Incoming connection opened")],
                "none: a client has connected and has not logged in yet",
            ),
            (&[&vm("Socket closed")], "none: a failed login or the end of a connection"),
            (&[&vm("Session ended for user: joe")], "logout: a session has ended"),
            (
                &[&login("joe", "198.51.100.7")],
                "excluded: the address is never authorised: it belongs to `home`",
            ),
            (
                &[&login("joe", "192.0.2.66")],
                "excluded: the operator has blocked this address temporarily",
            ),
            (
                &[&login("joe", "192.0.2.7"), &login("jim", "192.0.2.7")],
                "excluded: more users than max-users-per-address have logged in from this address",
            ),
            (&[&named("mx9")], "none: the host `mx9` is not in allow-host"),
            (
                &[&named("mx1").replace(" mx1 ", " ")],
                "none: the frame names no host, and `-` is not in allow-host",
            ),
            (
                &["Nov 22 07:31:23 mx1 sshd[7]: Accepted password for joe"],
                "none: no selected mail daemon has the program name `sshd`",
            ),
            (
                &["Nov 22 07:31:23 mx1 pop-before-smtp-doctor: probe 1 mail"],
                "none: a test message from `pop-before-smtp doctor`",
            ),
            (
                &["Nov 22 07:31:23 mx1 dovecot: master: Dovecot v2.3.21 starting up for imap"],
                "none: the program is known, but no pattern matches the message, and it does not look \
                 like a login",
            ),
            (
                &[&login("joe", "192.0.2.7").replace("method", "mechanism")],
                "none: it looks like a login, but no pattern matches: the program's version or its \
                 log format is not known; `pop-before-smtp daemons` shows what is",
            ),
            (
                &[&login("joe", "0.0.0.0")],
                "none: refused: the address is unspecified (the daemon did not know it)",
            ),
            (
                &[
                    &courier(&format!("LOGIN FAILED, user={}", "x".repeat(490))),
                    &courier("LOGIN, user=joe, ip=[::ffff:192.0.2.7], port=[4711]"),
                ],
                "none: the continuation of an overlong line that the daemon's logger has split",
            ),
            (
                &[&away],
                "none: the process connects to another server and may log that server's text as \
                 its own; it is not trusted for 24 hours",
            ),
            (
                &[&away, &uw("Login user=joe host=[192.0.2.7] nmsgs=0/0")],
                "none: refused: this process has connected to another server and may log that \
                 server's text as its own; it is trusted again after 24 hours",
            ),
            (
                &["Nov 22 07:31:23 mx1 dovecot: message repeated 2 times: [ imap-login: x]"],
                "none: a repeated message; the original has already counted",
            ),
            (&[""], "none: the frame is empty"),
            (
                &["<999>Nov 22 07:31:23 mx1 dovecot: x"],
                "none: the frame begins with an invalid syslog priority (not 0 to 191)",
            ),
            (
                &["Nov 22 07:31:23 mx1 no words"],
                "none: no program name found (expected `program:` or `program[pid]:`)",
            ),
        ];
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        for (frames, expected) in rows {
            assert_eq!(last_outcome(table.daemons(), frames), *expected, "{frames:#?}");
        }
    }
}
