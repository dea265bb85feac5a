//! The mail daemons: which message of which program is a login, a log-out, or half of a login.
//!
//! - **Promise**: a daemon is data: the built-in files and users' own are read by the same functions.
//!   A pattern sees the text of a message whose program name was matched exactly, from its first
//!   byte, in linear time.
//! - **Layers**: `file`, the TOML format and its faults, with `codes`; `daemon`, what is read from a
//!   file; `pattern`, one compiled pattern; `likeness`, what looks like a login; here, the table.
//! - **Not here**: what several lines mean together ([`super::correlation`]), and who may relay
//!   ([`super::grants`]).

mod built_in;
mod codes;
mod daemon;
mod file;
mod likeness;
mod literal;
mod pattern;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use built_in::BUILT_IN;
pub use codes::{FACILITIES, facility_code};
pub use daemon::{Cause, Example, ExpectedVerdict, Following, MailDaemon, Shape};
pub use file::{DaemonFile, DescriptionFault};
pub use literal::Literal;
pub use pattern::{Pattern, Refusal};

use super::message::Message;

/// How the daemons of the table understand a message.
#[derive(Debug)]
pub enum Match<'t, 'm> {
    /// No pattern of the program's daemons matches.
    NoPattern(&'t MailDaemon),
    /// A login or connect pattern matches, but the message is refused; or it is too long for one.
    Refused(&'t MailDaemon, Refusal),
    /// A pattern matches.
    Event(&'t MailDaemon, Event<'m>),
}

impl Match<'_, '_> {
    /// Returns whether it only ends something or takes trust away, so that it counts even if the
    /// message cannot be trusted.
    pub fn takes_trust_away(&self) -> bool {
        use Event::{Distrust, End, Logout};
        matches!(self, Self::Event(_, End { .. } | Logout { .. } | Distrust))
    }
}

/// What a message reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'m> {
    /// A successful login; without an address it is half of one, to be joined by PID.
    Login {
        /// The client, if the message names it.
        address: Option<IpAddr>,
        /// The user who has logged in.
        user: Option<String>,
        /// An id that the log-out of the same session also carries.
        session: Option<&'m str>,
    },
    /// The end of a session that had logged in.
    Logout {
        /// The client, if the message names it.
        address: Option<IpAddr>,
        /// The user who had logged in.
        user: Option<String>,
        /// The id that the login carried.
        session: Option<&'m str>,
    },
    /// A client has connected and has not logged in yet.
    Connect {
        /// The client, if the message names it.
        address: Option<IpAddr>,
    },
    /// A failure or an end: the connection of this PID is over.
    End {
        /// The id that the login carried, if this is a log-out with a refused name or address.
        session: Option<&'m str>,
    },
    /// From here on this PID may log foreign text.
    Distrust,
}

/// Which daemons are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All whose format has been verified.
    Verified,
    /// Exactly these.
    Named(Vec<String>),
}

/// The selected daemons, found by program name.
#[derive(Debug, Default)]
pub struct DaemonTable {
    daemons: Vec<MailDaemon>,
    /// The names of those that were not selected.
    others: Vec<Name>,
    /// By the length of the program name: most other names are told apart by it.
    by_length: Vec<Vec<(String, Vec<usize>)>>,
}

impl DaemonTable {
    /// Compiles the built-in files, overridden and extended by users' own, and selects daemons.
    ///
    /// # Errors
    /// Every fault of every file, and every selected name that no file has.
    pub fn load(own: &[DaemonFile], selection: &Selection) -> Result<Self, Vec<DescriptionFault>> {
        let (daemons, mut faults) = all(own);
        let chosen = |daemon: &MailDaemon| match selection {
            Selection::Verified => daemon.verified,
            Selection::Named(names) => names.iter().any(|name| **name == *daemon.name),
        };
        if let Selection::Named(names) = selection {
            for name in names.iter().filter(|n| !daemons.iter().any(|d| *d.name == ***n)) {
                faults.push(DescriptionFault::unknown_daemon("daemon", name));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (daemons, others): (Vec<_>, Vec<_>) = daemons.into_iter().partition(chosen);
        let others = others.into_iter().map(|daemon| daemon.name).collect();
        Ok(Self { others, ..Self::of(daemons) })
    }

    /// Creates a table of these daemons.
    pub fn of(daemons: Vec<MailDaemon>) -> Self {
        let mut by_program: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, daemon) in daemons.iter().enumerate() {
            for program in &daemon.programs {
                by_program.entry(program.clone()).or_default().push(index);
            }
        }
        let longest = by_program.keys().map(String::len).max().unwrap_or_default();
        let mut by_length = vec![Vec::new(); longest + 1];
        for (program, indexes) in by_program {
            by_length[program.len()].push((program, indexes));
        }
        Self { daemons, others: Vec::new(), by_length }
    }

    /// Accepts a mail daemon's logins only from these facilities.
    ///
    /// # Errors
    /// No mail daemon has this name, selected or not.
    pub fn set_facilities(
        &mut self,
        name: &str,
        facilities: &[u8],
    ) -> Result<(), DescriptionFault> {
        match self.daemons.iter_mut().find(|daemon| *daemon.name == *name) {
            Some(daemon) => daemon.narrowed = Some(facilities.to_vec()),
            None if self.others.iter().any(|other| **other == *name) => {}
            None => return Err(DescriptionFault::unknown_daemon("facility", name)),
        }
        Ok(())
    }

    /// Returns the daemons of the table, built-in ones first.
    pub fn daemons(&self) -> &[MailDaemon] {
        &self.daemons
    }

    /// Returns the daemons that log under a program name, if there is one.
    pub fn program(&self, name: &str) -> Option<Program<'_>> {
        let mut programs = self.by_length.get(name.len())?.iter();
        let (_, indexes) = programs.find(|(program, _)| program == name)?;
        Some(Program { daemons: &self.daemons, indexes })
    }
}

/// The daemons that log under one program name.
#[derive(Clone, Copy, Debug)]
pub struct Program<'t> {
    daemons: &'t [MailDaemon],
    indexes: &'t [usize],
}

impl<'t> Program<'t> {
    /// Returns what may follow this message, if it is a fragment of a split line; `None`: lines of this
    /// program are never split. `length` as in [`Self::read`].
    pub fn following(self, message: &Message<'_>, length: usize) -> Option<Following> {
        let following = self.daemons().filter_map(|daemon| daemon.following(message, length));
        following.reduce(Following::or)
    }

    /// Matches one message against the patterns. `length` is that of its body in bytes as received.
    pub fn read<'m>(self, message: &Message<'m>, length: usize) -> Match<'t, 'm> {
        let mut unmatched = None;
        for daemon in self.daemons() {
            match daemon.read(message, length) {
                Some(Ok(event)) => return Match::Event(daemon, event),
                // Another daemon may match it, if only to take trust away.
                Some(Err(Refusal::TooLong)) => {
                    unmatched = Some(Match::Refused(daemon, Refusal::TooLong));
                }
                Some(Err(refusal)) => return Match::Refused(daemon, refusal),
                None => _ = unmatched.get_or_insert(Match::NoPattern(daemon)),
            }
        }
        unmatched.expect("every program belongs to a daemon")
    }

    /// Returns the daemon of which a message looks like a login, if there is one.
    pub fn looks_like_login(self, message: &Message<'_>) -> Option<&'t MailDaemon> {
        self.daemons().find(|daemon| daemon.login_words.fit(message.text()))
    }

    fn daemons(self) -> impl Iterator<Item = &'t MailDaemon> {
        self.indexes.iter().map(|index| &self.daemons[*index])
    }
}

/// Returns all daemons, verified or not: the built-in ones, then users' own, where a user's file
/// replaces a built-in one of the same name; and all faults of all files.
pub fn all(own: &[DaemonFile]) -> (Vec<MailDaemon>, Vec<DescriptionFault>) {
    let mut daemons: Vec<MailDaemon> = Vec::new();
    let mut faults = Vec::new();
    for file in BUILT_IN.iter().map(DaemonFile::from).chain(own.iter().cloned()) {
        match file.compile() {
            Ok(daemon) => {
                let place = daemons.iter().position(|d| d.name == daemon.name);
                match place.map(|index| (index, daemons[index].origin.clone())) {
                    Some((index, None)) => daemons[index] = daemon,
                    Some((_, Some(other))) => {
                        faults.push(DescriptionFault::duplicate(&daemon, &other))
                    }
                    None => daemons.push(daemon),
                }
            }
            Err(found) => faults.extend(found),
        }
    }
    (daemons, faults)
}

/// The short name of a daemon, shared by everything that mentions it.
pub type Name = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::syslog::Frame;

    fn own(origin: &str, name: &str) -> DaemonFile {
        let text = format!(
            "name = \"{name}\"\ntitle = \"Own\"\nprograms = [\"ownd\"]\nfacilities = [\"mail\"]\n\
             [[login]]\npattern = '^in (?<address>[0-9.]+)$'\n\
             [[example]]\nline = \"ownd: in 192.0.2.7\"\nverdict = \"login\"\n"
        );
        DaemonFile { origin: Some(origin.into()), text }
    }

    #[test]
    fn a_user_s_file_replaces_a_built_in_one_but_not_another_one() {
        let (built_in, _) = all(&[]);
        let (daemons, faults) = all(&[own("a.toml", "dovecot")]);
        assert_eq!((daemons.len(), faults), (built_in.len(), vec![]));
        let dovecot: Vec<_> = daemons.iter().filter(|d| &*d.name == "dovecot").collect();
        assert_eq!(dovecot.len(), 1);
        assert_eq!((&*dovecot[0].title, dovecot[0].origin.as_deref()), ("Own", Some("a.toml")));

        let (daemons, faults) = all(&[own("a.toml", "own"), own("b.toml", "own")]);
        assert_eq!(daemons.len(), built_in.len() + 1);
        let faults: Vec<String> = faults.iter().map(DescriptionFault::to_string).collect();
        assert_eq!(faults, ["b.toml: the mail daemon `own` is already described in `a.toml`"]);
    }

    #[test]
    fn set_facilities_changes_one_daemon() {
        let named = |name: &str| Selection::Named(vec![name.into()]);
        let table =
            |name| DaemonTable::load(&[own("a.toml", "own")], &named(name)).expect("sound files");
        let is_accepted = |table: &DaemonTable, priority: &str| {
            let line = format!("<{priority}>ownd: in 192.0.2.7");
            let frame = Frame::new(line.as_bytes());
            let message = frame.message().expect("a message");
            match table.program("ownd").expect("it is known").read(&message, line.len()) {
                Match::Event(_, Event::Login { .. }) => true,
                Match::Refused(_, Refusal::Facility) => false,
                other => panic!("{other:?}"),
            }
        };
        let mut own = table("own");
        assert_eq!(["22", "134"].map(|priority| is_accepted(&own, priority)), [true, false]);
        assert_eq!(own.set_facilities("dovecot", &[16]), Ok(()), "not selected, but known");
        assert_eq!(["22", "134"].map(|priority| is_accepted(&own, priority)), [true, false]);
        assert_eq!(own.set_facilities("own", &[16]), Ok(()));
        assert_eq!(["22", "134"].map(|priority| is_accepted(&own, priority)), [false, true]);
        let fault = own.set_facilities("dovcot", &[16]).expect_err("a fault").to_string();
        let expected =
            "facility: there is no mail daemon `dovcot`; `pop-before-smtp daemons` lists them";
        assert_eq!(fault, expected);
        let fault = DaemonTable::load(&[], &named("dovcot")).expect_err("a fault");
        assert_eq!(fault[0].to_string(), expected.replace("facility", "daemon"));
    }
}
