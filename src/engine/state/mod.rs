//! What survives a restart, as text: the state file's lines and back.
//!
//! Format   the first line names format and version. Then one record a line, fields separated by
//!          tabs, a full stop as the last field, so that a torn line is never taken for a whole
//!          one; of several records for one address the last counts:
//!              grant ADDRESS SINCE LOGIN GIVEN HAND LOGINS DAEMON HOST NOTE [UNTIL USER]... .
//!              gone ADDRESS .
//!              block ADDRESS UNTIL .
//!              unblock ADDRESS .
//!          Moments are milliseconds since 1970. LOGIN is the end of what logins have given, HAND
//!          of what the operator gave at GIVEN; one or the other may be empty. An empty DAEMON is
//!          the operator.
//! Promise  what is decided counts at once, and the file follows: a journal has the records of those
//!          who have changed since the last one. A line that is not understood is counted and costs
//!          nothing else. Whatever the file says, a right never lasts longer than one given now
//!          would.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::grants::grant::{Grant, GrantedBy, MAX_USERS, ManualGrant, User};
use super::grants::origins::Origins;
use super::grants::{SLICE, Slice};
use super::message::address;
use super::time::Time;
use super::{Engine, MAX_MANUAL};

/// More changed addresses than this, and than `max-clients`, are not remembered while the disk does
/// not answer: the whole file is shorter than their records.
const MAX_CHANGED: usize = 1024;

/// How the first line of a state file of any version begins.
const FORMAT: &str = "pop-before-smtp state ";
/// The first line of a state file.
pub const HEADER: &str = "pop-before-smtp state 1";

/// What a state file gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rights that go on.
    pub grants: usize,
    /// Rights that ended while nobody looked.
    pub expired: usize,
    /// Rights that were not taken over: excluded or blocked now.
    pub refused: usize,
    /// Rights whose end lay further ahead than a login could set it, and was moved to there.
    pub shortened: usize,
    /// Lines that were not understood.
    pub damaged: usize,
    /// The first line is not that of a state file, so nothing was read.
    pub foreign: bool,
}

/// Records of what has changed, to be appended to the file.
#[derive(Debug)]
pub struct Journal {
    /// The records.
    pub text: String,
    /// Some are left out, there would be too many: the file is to be written as a whole.
    pub whole: bool,
    /// The number of the last change, all of which are recorded; if missing, there are more: another
    /// journal is to be taken at once.
    pub number: Option<u64>,
}

/// What the state file does not have yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many there have been since the start.
    number: u64,
    grants: HashSet<IpAddr>,
    blocks: HashSet<IpAddr>,
    /// Which there were is forgotten.
    whole: bool,
}

impl Changes {
    /// The right of an address has changed.
    fn grant(&mut self, address: IpAddr, max_clients: usize) {
        self.number += 1;
        self.grants.insert(address);
        if self.grants.len() > max_clients.max(MAX_CHANGED) {
            self.grants.clear();
            self.whole = true;
        }
    }

    /// The block of an address has changed.
    pub(super) fn block(&mut self, address: IpAddr) {
        self.number += 1;
        self.blocks.insert(address);
    }
}

/// A state file while it is read, line by line.
#[derive(Debug, Default)]
pub struct Restoration {
    /// When it was written to last, by the clock of that time.
    written: Time,
    begun: bool,
    foreign: bool,
    damaged: usize,
    origins: Origins,
    grants: BTreeMap<IpAddr, Box<Grant>>,
    blocks: BTreeMap<IpAddr, Time>,
}

impl Restoration {
    /// One that was written to last at this moment.
    pub fn written(at: Time) -> Self {
        Self { written: at, ..Self::default() }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        if !self.begun {
            self.begun = true;
            if line == HEADER {
                return;
            }
            // Another version means other things by the same words. Else the line is damaged.
            self.foreign = line.starts_with(FORMAT);
        }
        if !self.foreign {
            match read(line, &mut self.origins) {
                Some(Record::Grant(grant)) => drop(self.grants.insert(grant.address, grant)),
                Some(Record::Gone(address)) => drop(self.grants.remove(&address)),
                Some(Record::Block(address, until)) => drop(self.blocks.insert(address, until)),
                Some(Record::Unblock(address)) => drop(self.blocks.remove(&address)),
                None => self.damaged += 1,
            }
        }
    }
}

impl<'a> FromIterator<&'a str> for Restoration {
    fn from_iter<T: IntoIterator<Item = &'a str>>(lines: T) -> Self {
        let mut reading = Self::default();
        lines.into_iter().for_each(|line| reading.line(line));
        reading
    }
}

impl Engine {
    /// The whole state as the text of a new file, slice by slice. What changes between two of them
    /// is in the next journal.
    pub fn state(&self, now: Time, after: Option<IpAddr>) -> Slice<String> {
        let mut text = String::new();
        if after.is_none() {
            text = format!("{HEADER}\n");
            for (address, until) in self.blocked.iter().filter(|(_, until)| now < **until) {
                write_block(&mut text, *address, *until);
            }
        }
        self.grants.slice(after, text, |text, grant| {
            if now < grant.until {
                write_grant(text, grant);
            }
        })
    }

    /// The records of what has changed since the last call, a slice of them. If they cannot be
    /// written, the whole file is to be: it has them too.
    pub fn journal(&mut self) -> Journal {
        let Changes { number, grants, blocks, whole } = &mut self.changes;
        let mut text = String::new();
        for address in grants.extract_if(|_| true).take(SLICE) {
            match self.grants.get(address) {
                Some(grant) => write_grant(&mut text, grant),
                None => text.push_str(&format!("gone\t{address}\t.\n")),
            }
        }
        for address in blocks.drain() {
            match self.blocked.get(&address) {
                Some(until) => write_block(&mut text, address, *until),
                None => text.push_str(&format!("unblock\t{address}\t.\n")),
            }
        }
        let number = grants.is_empty().then_some(*number);
        Journal { text, whole: std::mem::take(whole), number }
    }

    /// The state file is to have another record of an address.
    pub(super) fn changed(&mut self, address: IpAddr) {
        self.changes.grant(address, self.rules.max_clients);
    }

    /// The number of the last change that the state file is to have.
    pub fn last_change(&self) -> u64 {
        self.changes.number
    }

    /// Whether `journal` has something to say.
    pub fn has_changes(&self) -> bool {
        let Changes { grants, blocks, whole, .. } = &self.changes;
        *whole || !(grants.is_empty() && blocks.is_empty())
    }

    /// Takes over the rights that a state file holds. For an engine that has heard nothing yet.
    pub fn restore(&mut self, now: Time, reading: Restoration) -> Restored {
        let Restoration { written, foreign, damaged, origins, grants, blocks, .. } = reading;
        // The clock was set back since then: so much of what was left has passed at least.
        let back = written.since(now);
        let mut restored = Restored { foreign, damaged, ..Restored::default() };
        self.origins = origins;
        for (address, until) in blocks.into_iter().filter(|(_, until)| now < *until) {
            self.blocked.insert(address, until.min(now + MAX_MANUAL));
        }
        for grant in grants.into_values() {
            self.take_over(now, grant.set_back(back), &mut restored);
        }
        self.shrink(now);
        restored.grants = restored.grants.min(self.clients_at(now));
        restored
    }

    fn take_over(&mut self, now: Time, mut grant: Grant, restored: &mut Restored) {
        let address = grant.address;
        if grant.until <= now {
            restored.expired += 1;
            return;
        }
        if self.rules.exclude.reason(address).is_some() || self.blocked.contains_key(&address) {
            restored.refused += 1;
            return;
        }
        // What was given for an hour never lasts for longer than that from now on.
        let last = now + self.rules.grace;
        grant.by_login = grant.by_login.map(|until| until.min(last));
        if let Some(hand) = &mut grant.manual {
            let longest = MAX_MANUAL.min(hand.until.since(hand.given));
            hand.until = hand.until.min(now + longest);
            hand.given = hand.given.min(now);
        }
        grant.users.retain(|user| now < user.until && self.rules.remember_users);
        grant.users.iter_mut().for_each(|user| user.until = user.until.min(last));
        let before = grant.until;
        grant.settle(self.rules.max_users);
        restored.shortened += usize::from(grant.until < before);
        grant.since = grant.since.min(now);
        restored.grants += usize::from(!grant.shared);
        self.grants.put(grant);
    }
}

fn write_grant(text: &mut String, grant: &Grant) {
    let (daemon, host) = match &grant.by {
        GrantedBy::Login(origin) => (&*origin.daemon, origin.host.as_deref()),
        GrantedBy::Operator => ("", None),
    };
    let field = |text: Option<&str>| text.unwrap_or_default().replace(char::is_control, "?");
    let hand = grant.manual.as_deref();
    let millis = |at: Option<Time>| at.map_or_else(String::new, |at| at.as_millis().to_string());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "grant\t{}\t{}\t{}\t{}\t{}\t{}\t{daemon}\t{}\t{}",
        grant.address,
        grant.since.as_millis(),
        millis(grant.by_login),
        millis(hand.map(|hand| hand.given)),
        millis(hand.map(|hand| hand.until)),
        grant.logins,
        field(host),
        field(hand.and_then(|hand| hand.note.as_deref())),
    );
    for user in &grant.users {
        let _ = write!(text, "\t{}\t{}", user.until.as_millis(), field(Some(&user.name)));
    }
    text.push_str("\t.\n");
}

fn write_block(text: &mut String, address: IpAddr, until: Time) {
    let _ = writeln!(text, "block\t{address}\t{}\t.", until.as_millis());
}

enum Record {
    Grant(Box<Grant>),
    Gone(IpAddr),
    Block(IpAddr, Time),
    Unblock(IpAddr),
}

fn read(line: &str, origins: &mut Origins) -> Option<Record> {
    let fields: SmallVec<[&str; 16]> = line.split('\t').collect();
    let time = |text: &str| text.parse().ok().map(Time::from_millis);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match fields[..] {
        [
            "grant",
            address,
            since,
            login,
            given,
            hand,
            logins,
            daemon,
            host,
            note,
            ref users @ ..,
            ".",
        ] => {
            let by = match daemon {
                "" => GrantedBy::Operator,
                name => GrantedBy::Login(
                    origins.share(name, Some(host).filter(|host| !host.is_empty())),
                ),
            };
            let by_login = if login.is_empty() { None } else { Some(time(login)?) };
            let manual = match (given, hand) {
                ("", "") => None,
                _ => {
                    let (given, until) = (time(given)?, time(hand)?);
                    Some(Box::new(ManualGrant { given, until, note: some(note) }))
                }
            };
            let user = |pair: &[&str]| match *pair {
                [until, name] => Some(User { name: name.into(), until: time(until)? }),
                _ => None,
            };
            let users: Option<SmallVec<[User; 1]>> = users.chunks(2).map(user).collect();
            Some(Record::Grant(Box::new(Grant {
                address: address::read(address).ok()?,
                by,
                since: time(since)?,
                until: by_login.max(manual.as_ref().map(|hand| hand.until))?,
                logins: logins.parse().ok()?,
                by_login,
                manual,
                shared: false,
                users: users.filter(|users| users.len() <= MAX_USERS)?,
            })))
        }
        ["gone", address, "."] => Some(Record::Gone(address::read(address).ok()?)),
        ["block", address, until, "."] => {
            Some(Record::Block(address::read(address).ok()?, time(until)?))
        }
        ["unblock", address, "."] => Some(Record::Unblock(address::read(address).ok()?)),
        _ => None,
    }
}
