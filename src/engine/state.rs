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
//! Promise  a line that is not understood is counted and costs nothing else. Whatever the file
//!          says, a right never lasts longer than one given now would.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::grants::{By, Grant, Hand, MAX_USERS, User};
use super::time::Time;
use super::{Engine, MAX_BY_HAND, address};

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

impl Engine {
    /// The whole state as the text of a new file.
    pub fn state(&self, now: Time) -> String {
        let mut text = format!("{HEADER}\n");
        for grant in self.grants.iter().filter(|grant| now < grant.until) {
            write_grant(&mut text, grant);
        }
        for (address, until) in self.blocked.iter().filter(|(_, until)| now < **until) {
            write_block(&mut text, *address, *until);
        }
        text
    }

    /// The records of what has changed since the last call, to be appended to the file.
    pub fn journal(&mut self) -> String {
        let mut text = String::new();
        for address in self.dirty.drain() {
            match self.grants.get(address) {
                Some(grant) => write_grant(&mut text, grant),
                None => text.push_str(&format!("gone\t{address}\t.\n")),
            }
        }
        for address in self.dirty_blocks.drain() {
            match self.blocked.get(&address) {
                Some(until) => write_block(&mut text, address, *until),
                None => text.push_str(&format!("unblock\t{address}\t.\n")),
            }
        }
        text
    }

    /// Whether `journal` has something to say.
    pub fn has_journal(&self) -> bool {
        !(self.dirty.is_empty() && self.dirty_blocks.is_empty())
    }

    /// Takes over the rights that a state file holds. For an engine that has heard nothing yet.
    pub fn restore(&mut self, now: Time, text: &str) -> Restored {
        let mut restored = Restored::default();
        let mut lines = text.lines();
        match lines.next() {
            None => return restored,
            Some(HEADER) => {}
            Some(_) => return Restored { foreign: true, ..restored },
        }
        let mut grants: HashMap<IpAddr, Grant> = HashMap::new();
        for line in lines {
            match read(line) {
                Some(Record::Grant(grant)) => drop(grants.insert(grant.address, grant)),
                Some(Record::Gone(address)) => drop(grants.remove(&address)),
                Some(Record::Block(address, until)) => {
                    self.blocked.insert(address, until.min(now + MAX_BY_HAND));
                }
                Some(Record::Unblock(address)) => drop(self.blocked.remove(&address)),
                None => restored.damaged += 1,
            }
        }
        self.blocked.retain(|_, until| now < *until);
        for grant in grants.into_values() {
            self.take_over(now, grant, &mut restored);
        }
        self.shrink();
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
        grant.by_hand = grant.by_hand.map(|Hand { given, until }| Hand {
            given: given.min(now),
            until: until.min(now + MAX_BY_HAND.min(until.since(given))),
        });
        grant.users.retain(|user| now < user.until && self.rules.remember_users);
        grant.users.iter_mut().for_each(|user| user.until = user.until.min(last));
        let before = grant.until;
        grant.settle(self.rules.max_users);
        restored.shortened += usize::from(grant.until < before);
        grant.since = grant.since.min(now);
        restored.grants += usize::from(!grant.shared);
        self.grants.put(grant);
        self.membership_changed(address);
    }
}

fn write_grant(text: &mut String, grant: &Grant) {
    let (daemon, host) = match &grant.by {
        By::Login { daemon, host } => (&**daemon, host.as_deref()),
        By::Hand => ("", None),
    };
    let field = |text: Option<&str>| text.unwrap_or_default().replace(char::is_control, "?");
    let millis = |at: Option<Time>| at.map_or_else(String::new, |at| at.as_millis().to_string());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "grant\t{}\t{}\t{}\t{}\t{}\t{}\t{daemon}\t{}\t{}",
        grant.address,
        grant.since.as_millis(),
        millis(grant.by_login),
        millis(grant.by_hand.map(|hand| hand.given)),
        millis(grant.by_hand.map(|hand| hand.until)),
        grant.logins,
        field(host),
        field(grant.note.as_deref()),
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
    Grant(Grant),
    Gone(IpAddr),
    Block(IpAddr, Time),
    Unblock(IpAddr),
}

fn read(line: &str) -> Option<Record> {
    let fields: Vec<&str> = line.split('\t').collect();
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
                "" => By::Hand,
                name => By::Login { daemon: name.into(), host: some(host) },
            };
            let by_login = if login.is_empty() { None } else { Some(time(login)?) };
            let by_hand = match (given, hand) {
                ("", "") => None,
                _ => Some(Hand { given: time(given)?, until: time(hand)? }),
            };
            let user = |pair: &[&str]| match *pair {
                [until, name] => Some(User { name: name.to_owned(), until: time(until)? }),
                _ => None,
            };
            let users: Option<Vec<User>> = users.chunks(2).map(user).collect();
            Some(Record::Grant(Grant {
                address: address::read(address).ok()?,
                by,
                since: time(since)?,
                until: by_login.max(by_hand.map(|hand| hand.until))?,
                logins: logins.parse().ok()?,
                note: some(note),
                by_login,
                by_hand,
                shared: false,
                users: users.filter(|users| users.len() <= MAX_USERS)?,
            }))
        }
        ["gone", address, "."] => Some(Record::Gone(address::read(address).ok()?)),
        ["block", address, until, "."] => {
            Some(Record::Block(address::read(address).ok()?, time(until)?))
        }
        ["unblock", address, "."] => Some(Record::Unblock(address::read(address).ok()?)),
        _ => None,
    }
}
