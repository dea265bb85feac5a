//! What became of a frame: the verdict, and the reason in words that lead to the cause.

use std::fmt;
use std::net::IpAddr;
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
    /// The line takes part in a login told over several lines.
    Partial,
    /// A login from an address that is never authorised.
    Excluded,
    /// Nothing that matters here.
    None,
}

impl Verdict {
    /// The word for it.
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
    /// A login pattern fits.
    LoggedIn(GrantOutcome),
    /// A login pattern fits, and the connect line of the same process gave the address.
    Joined(GrantOutcome),
    /// A log-out pattern fits.
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
    /// The address is on a list of those that are never authorised.
    Excluded(String),
    /// The operator has blocked the address.
    Blocked,
    /// More users have logged in from the address than may share one.
    Shared,
    /// The frame is no syslog message.
    Malformed(Malformed),
    /// The frame names a host that is not believed, or none.
    OtherHost(Option<String>),
    /// No mail daemon that is believed has this program name.
    UnknownProgram(String),
    /// A test message of `doctor`.
    Probe,
    /// The program is known, and no pattern fits.
    NoPattern,
    /// A login pattern fits, and the message must not be believed.
    Refused(Refusal),
    /// The tail of a line that the daemon's logger has cut.
    Tail,
    /// Its own date is so long ago, longer than the grace.
    Late(Duration),
    /// The process may have been made to log a stranger's text.
    Distrusted,
    /// From here on the process may log a stranger's text.
    Distrust,
    /// A repeated message: its first copy has counted.
    Repeated,
    /// A table that must be consulted is full.
    Overloaded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::LoggedIn(_) => "a login pattern fits the whole message",
            Self::Joined(_) => "the login completes the connect line of the same process",
            Self::LoggedOut => "a session has ended",
            Self::Connected => "a client has connected; a login of the same process may follow",
            Self::ConnectedOnly => "a client has connected; nobody has logged in yet",
            Self::NoConnection => {
                "a login without an address, and no connect line of the same sender, host, \
                 program and PID came before it"
            }
            Self::SeveralConnections => {
                "a login without an address, and more than one connection of the same sender, \
                 host, program and PID may be open; give each container a host name of its own"
            }
            Self::NoPid => "a login without an address, and no PID to join it to a connect line",
            Self::Ended => "a failed login or the end of a connection",
            Self::Excluded(list) => {
                return write!(f, "the address is never authorised: it belongs to `{list}`");
            }
            Self::Blocked => "the operator has blocked this address for a while",
            Self::Shared => {
                "more different users than max-users-per-address have logged in from this address"
            }
            Self::Malformed(why) => return why.fmt(f),
            Self::OtherHost(Some(name)) => {
                return write!(f, "allow-host does not name the host `{}`", name.escape_debug());
            }
            Self::OtherHost(None) => {
                "the frame names no host, and allow-host does not have `-` for such"
            }
            Self::UnknownProgram(name) => {
                return write!(f, "no mail daemon that is believed has the program name `{name}`");
            }
            Self::Probe => "a test message of `pop-before-smtp doctor`",
            Self::NoPattern => "the program is known, but no pattern fits the message",
            Self::Refused(why) => return write!(f, "refused: {why}"),
            Self::Late(age) => {
                return write!(
                    f,
                    "refused: its own date is {} ago, longer than the grace: it was delivered \
                     late, or a clock or time zone is wrong (its sender's, or this host's clock when \
                     the daemon started)",
                    rough(*age)
                );
            }
            Self::Tail => "continuation of an overlong line that the daemon's logger has cut",
            Self::Distrusted => {
                "refused: this process has been talking to another server, whose words it logs \
                 as its own; it is believed again after a day"
            }
            Self::Distrust => {
                "the process talks to another server from here on and is not believed for a day"
            }
            Self::Repeated => "a repeated message; its first copy has counted",
            Self::Overloaded => "refused: too many streams or processes are under suspicion",
        };
        f.write_str(text)
    }
}

/// A span for people: in minutes, if it is a long one in days.
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
            Self::Priority => "the frame begins with a number that is no syslog priority",
            Self::NoProgram => "no program name can be told (no `program:` or `program[pid]:`)",
        })
    }
}

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The mail daemon, if one is concerned.
    pub daemon: Option<Name>,
    /// The client, if the message or its connect line names it.
    pub address: Option<IpAddr>,
    /// The user, if the message names one.
    pub user: Option<String>,
}

impl Outcome {
    pub(super) fn nothing(reason: Reason) -> Self {
        Self { verdict: Verdict::None, reason, daemon: None, address: None, user: None }
    }

    /// Whether a login was heard, and whether it brought a new address.
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

    /// What is said of the last of these frames. 192.0.2.66 is blocked, 198.51.100.0/24 excluded,
    /// one user may have an address, and only mx1 is believed.
    fn last_words(daemons: &[MailDaemon], frames: &[&str]) -> String {
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
            (&[&login("joe", "192.0.2.7")], "login: a login pattern fits the whole message"),
            (
                &[&connect],
                "partial: a client has connected; a login of the same process may follow",
            ),
            (&[&connect, &joe], "login: the login completes the connect line of the same process"),
            (
                &[&joe],
                "partial: a login without an address, and no connect line of the same sender, \
                 host, program and PID came before it",
            ),
            (
                &[&connect, &connect.replace("0.2.7", "0.2.8"), &joe],
                "partial: a login without an address, and more than one connection of the same \
                 sender, host, program and PID may be open; give each container a host name of its \
                 own",
            ),
            (
                &[&dated("1970-01-01T00:29:00Z")],
                "none: refused: its own date is 31 min ago, longer than the grace: it was \
                 delivered late, or a clock or time zone is wrong (its sender's, or this host's \
                 clock when the daemon started)",
            ),
            (
                &[&joe.replace("[7]", "")],
                "partial: a login without an address, and no PID to join it to a connect line",
            ),
            (
                &[&vm("Incoming connection opened")],
                "none: a client has connected; nobody has logged in yet",
            ),
            (&[&vm("Socket closed")], "none: a failed login or the end of a connection"),
            (&[&vm("Session ended for user: joe")], "logout: a session has ended"),
            (
                &[&login("joe", "198.51.100.7")],
                "excluded: the address is never authorised: it belongs to `home`",
            ),
            (
                &[&login("joe", "192.0.2.66")],
                "excluded: the operator has blocked this address for a while",
            ),
            (
                &[&login("joe", "192.0.2.7"), &login("jim", "192.0.2.7")],
                "excluded: more different users than max-users-per-address have logged in from \
                 this address",
            ),
            (&[&named("mx9")], "none: allow-host does not name the host `mx9`"),
            (
                &[&named("mx1").replace(" mx1 ", " ")],
                "none: the frame names no host, and allow-host does not have `-` for such",
            ),
            (
                &["Nov 22 07:31:23 mx1 sshd[7]: Accepted password for joe"],
                "none: no mail daemon that is believed has the program name `sshd`",
            ),
            (
                &["Nov 22 07:31:23 mx1 pop-before-smtp-doctor: probe 1 mail"],
                "none: a test message of `pop-before-smtp doctor`",
            ),
            (
                &["Nov 22 07:31:23 mx1 dovecot: master: Dovecot v2.3.21 starting up for imap"],
                "none: the program is known, but no pattern fits the message",
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
                "none: continuation of an overlong line that the daemon's logger has cut",
            ),
            (
                &[&away],
                "none: the process talks to another server from here on and is not believed for a \
                 day",
            ),
            (
                &[&away, &uw("Login user=joe host=[192.0.2.7] nmsgs=0/0")],
                "none: refused: this process has been talking to another server, whose words it \
                 logs as its own; it is believed again after a day",
            ),
            (
                &["Nov 22 07:31:23 mx1 dovecot: message repeated 2 times: [ imap-login: x]"],
                "none: a repeated message; its first copy has counted",
            ),
            (&[""], "none: the frame is empty"),
            (
                &["<999>Nov 22 07:31:23 mx1 dovecot: x"],
                "none: the frame begins with a number that is no syslog priority",
            ),
            (
                &["Nov 22 07:31:23 mx1 no words"],
                "none: no program name can be told (no `program:` or `program[pid]:`)",
            ),
        ];
        let table = DaemonTable::load(&[], &Selection::Verified).expect("sound files");
        for (frames, expected) in rows {
            assert_eq!(last_words(table.daemons(), frames), *expected, "{frames:#?}");
        }
    }
}
