//! What survives a restart, as text: writes and reads the lines of the state file.
//!
//! - **Format**: the first line names format and version. Then one record a line, fields separated
//!   by tabs, with a full stop as the last field, so that a torn line is never taken for a whole one.
//!   Of several records for one address the last counts:
//!
//!   ```text
//!   grant ADDRESS SINCE LOGIN MANUAL_SINCE MANUAL_UNTIL LOGINS DAEMON HOST NOTE [UNTIL USER]... .
//!   gone ADDRESS .
//!   heard ... .
//!   ruling ... .
//!   block ADDRESS UNTIL .
//!   unblock ADDRESS .
//!   ```
//!
//!   Times are milliseconds since 1970. LOGIN is the deadline from logins, MANUAL_UNTIL that of the
//!   operator's grant, made at MANUAL_SINCE; one or the other may be empty. An empty DAEMON is the
//!   operator. In a cluster, `heard` and `ruling` take the place of `grant` and `block`
//!   ([`super::cluster::stored`]).
//! - **Promise**: decisions count at once, and the file follows: a journal has the records of what
//!   has changed since the last one. A line that cannot be parsed is counted and costs nothing else.
//!   Whatever the file says, a grant never lasts longer than a new one would.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;

use super::cluster::stored::SharedAddresses;
use super::grants::grant::{Grant, GrantedBy, MAX_USERS, ManualGrant, User};
use super::grants::loading::LoadingGrants;
use super::grants::origins::Origins;
use super::grants::stored::StoredGrant;
use super::grants::{Cursor, SLICE, Slice};
use super::message::address;
use super::time::Time;
use super::{Engine, MAX_MANUAL};

/// More changed addresses than this, and than `max-clients`, are not remembered while the file
/// cannot be written: the whole file is shorter than their records.
const MAX_CHANGED: usize = 1024;

/// The beginning of the first line of a state file of any version.
const FORMAT: &str = "pop-before-smtp state ";
/// The first line of a state file.
pub const HEADER: &str = "pop-before-smtp state 1";

/// What was restored from a state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Grants in force.
    pub grants: usize,
    /// Grants that expired in the meantime.
    pub expired: usize,
    /// Grants not restored: now excluded, blocked, or refused by the rules.
    pub refused: usize,
    /// Grants shortened to the longest time that a new one could last.
    pub shortened: usize,
    /// Lines that could not be parsed.
    pub damaged: usize,
    /// The file has another version, so nothing was read.
    pub other_version: bool,
    /// The next start would restore the same from this file, and most of its records are in force.
    pub is_current: bool,
}

/// Records of what has changed, to be appended to the file.
#[derive(Debug)]
pub struct Journal {
    /// The records.
    pub text: String,
    /// Whether records are missing because there were too many: the whole file must be written.
    pub whole: bool,
    /// The number of the last change, if all are recorded; `None`: call again at once for more.
    pub number: Option<u64>,
}

/// What the state file does not have yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The number of changes since the start.
    number: u64,
    grants: HashSet<IpAddr>,
    blocks: HashSet<IpAddr>,
    /// Changed addresses were forgotten because there were too many.
    whole: bool,
    /// There are changes that wait for [`Engine::write_deferred`].
    deferred: bool,
}

impl Changes {
    /// Records a change of the grant of an address.
    fn grant(&mut self, address: IpAddr, max_clients: usize) {
        self.number += 1;
        self.grants.insert(address);
        if self.grants.len() > max_clients.max(MAX_CHANGED) {
            self.grants.clear();
            self.whole = true;
        }
    }

    /// Records a change of the block of an address.
    pub(super) fn block(&mut self, address: IpAddr) {
        self.number += 1;
        self.blocks.insert(address);
    }
}

/// A state file that is read line by line.
#[derive(Debug, Default)]
pub struct Restoration {
    /// When it was last written, by the clock of that time.
    written: Time,
    begun: bool,
    /// The last line has no end.
    cut_off: bool,
    other_version: bool,
    damaged: usize,
    origins: Origins,
    /// The lines with a record.
    records: usize,
    grants: LoadingGrants,
    shared: SharedAddresses,
    blocks: BTreeMap<IpAddr, Time>,
}

impl Restoration {
    /// Creates one for a file that was last written at this moment, and prepares for so many addresses.
    pub fn written(at: Time, addresses: usize) -> Self {
        let mut restoration = Self { written: at, ..Self::default() };
        restoration.grants.reserve(addresses);
        restoration
    }

    /// Records that the last line has no line feed: nothing may be appended to this file.
    pub fn cut_off(&mut self) {
        self.cut_off = true;
    }

    /// Reads the next line, without its line feed.
    pub fn line(&mut self, line: &str) {
        if !self.begun {
            self.begun = true;
            if line == HEADER {
                return;
            }
            // The records of another version may mean something else. Otherwise the line is damaged.
            self.other_version = line.starts_with(FORMAT);
        }
        if !self.other_version {
            self.records += 1;
            self.damaged += usize::from(self.record(line).is_none());
        }
    }

    /// Reads a record; `None`: it is damaged.
    fn record(&mut self, line: &str) -> Option<()> {
        let fields: SmallVec<[&str; 16]> = fields(line).collect();
        match fields[..] {
            ["grant", ref fields @ .., "."] => self.grants.put(grant(fields, &mut self.origins)?),
            ["gone", address, "."] => {
                let address = address::read(address).ok()?;
                self.grants.remove(address);
                self.shared.remove(address);
            }
            ["heard", ref fields @ .., "."] => self.shared.heard(fields, &mut self.origins)?,
            ["ruling", address, epoch, lifted, blocks, keep, "."] => {
                self.shared.ruling([address, epoch, lifted, blocks, keep])?;
            }
            ["block", address, until, "."] => {
                self.blocks.insert(address::read(address).ok()?, time(until)?);
            }
            ["unblock", address, "."] => {
                self.blocks.remove(&address::read(address).ok()?);
            }
            _ => return None,
        }
        Some(())
    }
}

impl<'a> FromIterator<&'a str> for Restoration {
    fn from_iter<T: IntoIterator<Item = &'a str>>(lines: T) -> Self {
        let mut restoration = Self::default();
        lines.into_iter().for_each(|line| restoration.line(line));
        restoration
    }
}

impl Engine {
    /// Returns the next slice of the whole state, as the text of a new file. What changes between
    /// two slices is in the next journal.
    pub fn state(&self, now: Time, from: Cursor) -> Slice<String> {
        let mut text = String::new();
        let cluster = self.cluster.as_deref();
        if from == Cursor::default() {
            text = format!("{HEADER}\n");
            match cluster {
                Some(cluster) => cluster.write_ruled(&mut text),
                None => self.blocks(now).for_each(|it| write_block(&mut text, it.0, it.1)),
            }
        }
        self.grants.slice(from, SLICE, text, |text, grant| match cluster {
            Some(cluster) => cluster.write_usual(text, grant.address()),
            None if now < grant.until() => write_grant(text, &grant.grant()),
            None => {}
        })
    }

    /// Returns the next slice of the records of what has changed since the last call. If they cannot
    /// be written, the whole file must be; it contains them too.
    pub fn journal(&mut self) -> Journal {
        let cluster = self.cluster.as_deref();
        let Changes { number, grants, blocks, whole, .. } = &mut self.changes;
        let mut text = String::new();
        for address in grants.extract_if(|_| true).take(SLICE as usize) {
            match self.grants.get(address).filter(|_| cluster.is_none()) {
                Some(grant) => write_grant(&mut text, &grant),
                None => text.push_str(&format!("gone\t{address}\t.\n")),
            }
            cluster.into_iter().for_each(|cluster| cluster.write(&mut text, address));
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

    /// Records that the state file needs a new record of an address.
    pub(super) fn changed(&mut self, address: IpAddr) {
        self.changes.grant(address, self.rules.max_clients);
    }

    /// Records a change that the state file need not have before [`Self::write_deferred`].
    pub(super) fn defer(&mut self) {
        self.changes.deferred = true;
    }

    /// Has the whole state file written if changes were deferred.
    pub(super) fn write_deferred(&mut self) {
        if std::mem::take(&mut self.changes.deferred) {
            self.changes.number += 1;
            self.changes.whole = true;
        }
    }

    /// Returns the number of the last change.
    pub fn last_change(&self) -> u64 {
        self.changes.number
    }

    /// Returns whether [`Self::journal`] has records.
    pub fn has_changes(&self) -> bool {
        let Changes { grants, blocks, whole, .. } = &self.changes;
        *whole || !(grants.is_empty() && blocks.is_empty())
    }

    /// Restores the grants and blocks of a state file. For an engine that has processed nothing yet.
    pub fn restore(&mut self, now: Time, file: Restoration) -> Restored {
        let Restoration { written, begun, cut_off, other_version, damaged, .. } = file;
        let Restoration { origins, records, blocks, shared, .. } = file;
        // Not zero if the clock was set back since then: at least so much time has passed.
        let back = written.since(now);
        let mut restored = Restored { other_version, damaged, ..Restored::default() };
        let mut is_same = begun && !cut_off && !other_version && back.is_zero();
        self.origins = origins;
        for (address, until) in blocks.into_iter().filter(|(_, until)| now < *until) {
            self.blocked.insert(address, until.min(now + MAX_MANUAL));
            is_same &= until <= now + MAX_MANUAL;
        }
        let stays = |grant: &StoredGrant| back.is_zero() && self.stays(now, grant);
        let keep =
            |grant: Grant| self.restored(now, grant.set_back(back), Duration::ZERO, &mut restored);
        let (grants, changed) = file.grants.into_grants(stays, keep);
        self.grants = grants;
        self.grants.reserve(self.rules.max_clients);
        // A file of a cluster, or for one, is written again.
        is_same &= self.cluster.is_none() && shared.is_empty();
        self.restore_shared(now, back, shared, &mut restored);
        let before = self.grants.len();
        self.shrink(now);
        is_same &= changed + restored.refused + damaged == 0 && before == self.grants.len();
        let lines = self.grants.len() + self.blocked.len();
        restored.is_current = is_same && records <= 2 * lines;
        restored.grants = self.clients_at(now);
        restored
    }

    /// Returns whether [`Self::restored`] would return a grant as it is, for nearly all of them.
    fn stays(&self, now: Time, grant: &StoredGrant) -> bool {
        let is_in_time =
            now < grant.until() && grant.until() <= now + self.rules.grace && grant.since() <= now;
        let has_its_user =
            grant.only_user().is_some_and(|user| user.is_none() || self.rules.remember_users);
        let address = grant.address();
        is_in_time
            && has_its_user
            && self.rules.logins.is_empty()
            && self.rules.exclude.reason(address).is_none()
            && !self.blocked.contains_key(&address)
    }

    /// Returns what is restored of a grant, and counts what it loses.
    pub(super) fn restored(
        &self,
        now: Time,
        grant: Grant,
        ceiling: Duration,
        restored: &mut Restored,
    ) -> Option<Grant> {
        let before = grant.until;
        if before <= now {
            restored.expired += 1;
            return None;
        }
        let is_blocked = self.blocked.contains_key(&grant.address);
        let accepted = Some(grant).filter(|_| !is_blocked);
        let accepted = accepted.and_then(|grant| self.accepted(now, grant, ceiling));
        restored.refused += usize::from(accepted.is_none());
        let is_shortened = accepted.as_ref().is_some_and(|grant| grant.until < before);
        restored.shortened += usize::from(is_shortened);
        accepted
    }

    /// Returns what the rules accept of a grant that was made before, or by others. It lasts no
    /// longer than a new one would, or than `ceiling` if that is longer.
    pub(super) fn accepted(&self, now: Time, mut grant: Grant, ceiling: Duration) -> Option<Grant> {
        if grant.until <= now || self.rules.exclude.reason(grant.address).is_some() {
            return None;
        }
        grant.since = grant.since.min(now);
        grant.users.retain(|user| now < user.until && self.rules.remember_users);
        // No grant lasts longer from now on than its original time.
        let latest = |grace: Duration| Some(now + grace.max(ceiling));
        self.rules.logins.apply(&mut grant, self.rules.grace, latest);
        if let Some(manual) = &mut grant.manual {
            let longest = MAX_MANUAL.min(manual.until.since(manual.given));
            manual.until = manual.until.min(now + longest);
            manual.given = manual.given.min(now);
        }
        grant.settle(self.rules.max_users);
        Some(grant).filter(|grant| now < grant.until)
    }
}

fn write_grant(text: &mut String, grant: &Grant) {
    text.push_str("grant\t");
    write_grant_fields(text, grant);
}

/// Writes what follows `grant`.
pub(super) fn write_grant_fields(text: &mut String, grant: &Grant) {
    let (daemon, host) = match &grant.by {
        GrantedBy::Login(origin) => (&*origin.daemon, origin.host.as_deref()),
        GrantedBy::Operator => ("", None),
    };
    let manual = grant.manual.as_deref();
    // Writing to a String cannot fail.
    let _ = write!(text, "{}\t{}\t", grant.address, grant.since.as_millis());
    write_time(text, grant.by_login);
    write_time(text, manual.map(|manual| manual.given));
    write_time(text, manual.map(|manual| manual.until));
    let _ = write!(text, "{}\t{daemon}", grant.logins);
    write_field(text, host);
    write_field(text, manual.and_then(|manual| manual.note.as_deref()));
    for user in &grant.users {
        let _ = write!(text, "\t{}", user.until.as_millis());
        write_field(text, Some(&user.name));
    }
    text.push_str("\t.\n");
}

fn write_time(text: &mut String, at: Option<Time>) {
    if let Some(at) = at {
        let _ = write!(text, "{}", at.as_millis());
    }
    text.push('\t');
}

/// Writes a field that others have chosen.
pub(super) fn write_field(text: &mut String, field: Option<&str>) {
    text.push('\t');
    let field = field.unwrap_or_default();
    if field.contains(char::is_control) {
        text.push_str(&field.replace(char::is_control, "?"));
    } else {
        text.push_str(field);
    }
}

fn write_block(text: &mut String, address: IpAddr, until: Time) {
    let _ = writeln!(text, "block\t{address}\t{}\t.", until.as_millis());
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b'\t', line.as_bytes()).chain([line.len()]);
    let mut start = 0;
    ends.map(move |end| &line[std::mem::replace(&mut start, end + 1)..end])
}

pub(super) fn time(text: &str) -> Option<Time> {
    text.parse().ok().map(Time::from_millis)
}

/// Reads what follows `grant`.
pub(super) fn grant(fields: &[&str], origins: &mut Origins) -> Option<Grant> {
    let [address, since, login, given, until, logins, daemon, host, note, ref users @ ..] = *fields
    else {
        return None;
    };
    let host = Some(host).filter(|host| !host.is_empty());
    let by = match daemon {
        "" => GrantedBy::Operator,
        name => GrantedBy::Login(origins.share(name, host)),
    };
    let by_login = if login.is_empty() { None } else { Some(time(login)?) };
    let manual = match (given, until) {
        ("", "") => None,
        _ => {
            let note = (!note.is_empty()).then(|| note.to_owned());
            Some(Box::new(ManualGrant { given: time(given)?, until: time(until)?, note }))
        }
    };
    let user = |pair: &[&str]| match *pair {
        [until, name] => Some(User { name: name.into(), until: time(until)?, refused: false }),
        _ => None,
    };
    let users: Option<SmallVec<[User; 1]>> = users.chunks(2).map(user).collect();
    Some(Grant {
        address: address::read(address).ok()?,
        by,
        since: time(since)?,
        until: by_login.max(manual.as_ref().map(|manual| manual.until))?,
        logins: u32::try_from(logins.parse::<u64>().ok()?).unwrap_or(u32::MAX),
        by_login,
        manual,
        shared: false,
        users: users.filter(|users| users.len() <= MAX_USERS)?,
    })
}
