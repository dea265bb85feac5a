//! The entries of the stream, as text: what a host tells the others.
//!
//! - **Format**: one line, fields separated by tabs:
//!
//!   ```text
//!   g ADDRESS HOST EPOCH SEQUENCE AGE LOGIN GIVEN MANUAL LOGINS DAEMON LOGGED NOTE [SPAN USER]...
//!   r ADDRESS EPOCH LIFTED BLOCKS
//!   h HOST INSTANCE TIME READ
//!   ```
//!
//!   `g`, a grant that HOST has made: SEQUENCE is when it was told, in milliseconds since 1970 on the
//!   stream's clock. Relative to it, AGE is since how many seconds the grant has lasted; LOGIN and
//!   MANUAL are how many milliseconds what logins and the operator have granted still lasts, and
//!   GIVEN how many ago the operator granted it; SPAN is how long the grant of USER lasts, if other
//!   than LOGIN. LOGGED is the host that logged the login.
//!
//!   `r`, a ruling: LIFTED are epochs, BLOCKS epochs and the times until which they last, each with
//!   a comma behind it. An epoch is `NUMBER:HOST`, or nothing.
//!
//!   `h`, a heartbeat: INSTANCE tells two processes of one HOST apart, TIME is by the stream's clock,
//!   READ the last entry that the host has read.
//! - **Promise**: anybody who may write the stream chooses the text: what is not an entry is an
//!   error, never a panic, and nothing is taken from it.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::ruling::{AddressRuling, Epoch, host_name};
use crate::engine::grants::grant::{Grant, GrantedBy, MAX_USERS, ManualGrant, User};
use crate::engine::grants::origins::Origins;
use crate::engine::message::address;
use crate::engine::state::write_field;
use crate::engine::time::Time;

/// Longest entry, in bytes: that of [`MAX_USERS`] long names.
pub const MAX_ENTRY: usize = 32 << 10;

/// Longest name of a mail daemon, in bytes.
const MAX_DAEMON: usize = 64;

/// The id of an entry: `MILLISECONDS-NUMBER` (Redis, "Streams").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// When it was added, by the store's clock; never less than that of the entry before.
    pub millis: u64,
    /// Its number within the millisecond.
    pub number: u64,
}

impl EntryId {
    /// Returns when it was added, by the store's clock.
    pub fn time(self) -> Time {
        Time::from_millis(self.millis)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, number) = text.split_once('-').ok_or(())?;
        let read = |text: &str| text.parse().map_err(drop);
        Ok(Self { millis: read(millis)?, number: read(number)? })
    }
}

/// What one host tells of an address. All times are on the stream's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldGrant {
    /// The host that has made the grant.
    pub host: SmolStr,
    /// The epoch in which it counts.
    pub epoch: Epoch,
    /// When it was told.
    pub sequence: Time,
    /// The grant.
    pub grant: Grant,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose.
    pub host: SmolStr,
    /// A number that tells processes apart.
    pub instance: u64,
    /// When, on the stream's clock.
    pub time: Time,
    /// The last entry that the host has read.
    pub read: EntryId,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEntry {
    /// A grant.
    Grant(Box<ToldGrant>),
    /// A ruling about an address; times are on the stream's clock.
    Ruling(IpAddr, AddressRuling),
    /// A heartbeat.
    Heartbeat(Heartbeat),
}

impl StreamEntry {
    /// Parses an entry; `None`: it is none.
    pub fn parse(text: &str, origins: &mut Origins) -> Option<Self> {
        if text.len() > MAX_ENTRY || has_controls(text) {
            return None;
        }
        let fields: SmallVec<[&str; 16]> = text.split('\t').collect();
        match fields[..] {
            ["g", ref fields @ ..] => {
                grant(fields, origins).map(|told| Self::Grant(Box::new(told)))
            }
            ["r", address, epoch, lifted, blocks] => {
                let ruling = ruling(epoch, lifted, blocks)?;
                let address = address::read(address).ok()?;
                (ruling.epoch.number > 0).then_some(Self::Ruling(address, ruling))
            }
            ["h", host, instance, time, read] => Some(Self::Heartbeat(Heartbeat {
                host: host_name(host)?,
                instance: instance.parse().ok()?,
                time: Time::from_millis(time.parse().ok()?),
                read: read.parse().ok()?,
            })),
            _ => None,
        }
    }
}

/// Returns whether a text has control characters other than tabs: it ends up in the state file and on
/// terminals.
fn has_controls(text: &str) -> bool {
    let is_control = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    text.bytes().any(is_control)
        || !text.is_ascii() && text.chars().any(|char| char.is_control() && char != '\t')
}

impl ToldGrant {
    /// Writes the text of the entry.
    pub fn write(&self) -> String {
        let Self { host, epoch, sequence, grant } = self;
        let after = |time: Time| time.since(*sequence).as_millis();
        let manual = grant.manual.as_deref();
        let (daemon, logged) = match &grant.by {
            GrantedBy::Login(origin) => (&*origin.daemon, origin.host.as_deref()),
            GrantedBy::Operator => ("", None),
        };
        let age = sequence.since(grant.since).as_secs();
        let mut text = format!("g\t{}\t{host}\t{epoch}\t", grant.address);
        // Writing to a String cannot fail.
        let _ = write!(text, "{}\t{age}\t", sequence.as_millis());
        let mut number = |number: Option<u128>| {
            let _ = number.map(|number| write!(text, "{number}"));
            text.push('\t');
        };
        number(grant.by_login.map(after));
        number(manual.map(|manual| sequence.since(manual.given).as_millis()));
        number(manual.map(|manual| after(manual.until)));
        let _ = write!(text, "{}\t{daemon}", grant.logins);
        write_field(&mut text, logged);
        write_field(&mut text, manual.and_then(|manual| manual.note.as_deref()));
        for user in &grant.users {
            text.push('\t');
            if Some(user.until) != grant.by_login {
                let _ = write!(text, "{}", after(user.until));
            }
            write_field(&mut text, Some(&user.name));
        }
        text
    }
}

/// Writes the text of the entry of a ruling.
pub fn write_ruling(address: IpAddr, ruling: &AddressRuling) -> String {
    let AddressRuling { epoch, blocks, lifted } = ruling;
    let lifted: String = lifted.iter().map(|epoch| format!("{epoch},")).collect();
    let block = |(epoch, until): (&Epoch, &Time)| format!("{epoch}:{},", until.as_millis());
    let blocks: String = blocks.iter().map(block).collect();
    format!("r\t{address}\t{epoch}\t{lifted}\t{blocks}")
}

/// Parses the fields of a ruling.
pub fn ruling(epoch: &str, lifted: &str, blocks: &str) -> Option<AddressRuling> {
    let list = |text: &str| text.split_terminator(',').map(str::to_owned).collect::<Vec<_>>();
    let block = |text: String| {
        let (epoch, until) = text.rsplit_once(':')?;
        Some((epoch.parse().ok()?, Time::from_millis(until.parse().ok()?)))
    };
    Some(AddressRuling {
        epoch: epoch.parse().ok()?,
        blocks: list(blocks).into_iter().map(block).collect::<Option<_>>()?,
        lifted: list(lifted).into_iter().map(|text| text.parse().ok()).collect::<Option<_>>()?,
    })
}

/// Writes the text of a heartbeat.
impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, instance, time, read } = self;
        write!(f, "h\t{host}\t{instance}\t{}\t{read}", time.as_millis())
    }
}

fn grant(fields: &[&str], origins: &mut Origins) -> Option<ToldGrant> {
    let [
        address,
        host,
        epoch,
        sequence,
        age,
        login,
        given,
        manual,
        logins,
        daemon,
        logged,
        note,
        users @ ..,
    ] = fields
    else {
        return None;
    };
    let sequence = Time::from_millis(sequence.parse().ok()?);
    let after = |text: &str| Some(sequence + Duration::from_millis(text.parse().ok()?));
    let before = |text: &str| Some(sequence - Duration::from_millis(text.parse().ok()?));
    let by = match *daemon {
        "" => GrantedBy::Operator,
        name if name.len() > MAX_DAEMON => return None,
        name => {
            GrantedBy::Login(origins.share(name, Some(*logged).filter(|host| !host.is_empty())))
        }
    };
    let by_login = if login.is_empty() { None } else { Some(after(login)?) };
    let manual = match (*given, *manual) {
        ("", "") => None,
        (given, until) => {
            let note = (!note.is_empty()).then(|| (*note).to_owned());
            Some(Box::new(ManualGrant { given: before(given)?, until: after(until)?, note }))
        }
    };
    let user = |pair: &[&str]| match *pair {
        [span, name] => {
            let until = if span.is_empty() { by_login? } else { after(span)? };
            Some(User { name: name.into(), until, refused: false })
        }
        _ => None,
    };
    let users: SmallVec<[User; 1]> = users.chunks(2).map(user).collect::<Option<_>>()?;
    if users.len() > MAX_USERS {
        return None;
    }
    Some(ToldGrant {
        host: host_name(host)?,
        epoch: epoch.parse().ok()?,
        sequence,
        grant: Grant {
            address: address::read(address).ok()?,
            by,
            since: sequence - Duration::from_secs(age.parse().ok()?),
            until: by_login.max(manual.as_ref().map(|manual| manual.until))?,
            logins: u32::try_from(logins.parse::<u64>().ok()?).unwrap_or(u32::MAX),
            by_login,
            manual,
            shared: false,
            users,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an entry and writes it again.
    fn again(text: &str) -> Option<String> {
        Some(match StreamEntry::parse(text, &mut Origins::default())? {
            StreamEntry::Grant(told) => told.write(),
            StreamEntry::Ruling(address, ruling) => write_ruling(address, &ruling),
            StreamEntry::Heartbeat(heartbeat) => heartbeat.to_string(),
        })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = [
            "g\t192.0.2.7\tmx1\t\t1700000000000\t5\t1800000\t\t\t3\tdovecot\tmx1\t\t\tjoe@example.org",
            "g\t2001:db8::7\tmx1\t2:mx2\t1700000000000\t0\t1800000\t\t\t3\tdovecot\t\t\t60000\tann\t\tjoe",
            "g\t192.0.2.7\tmx1\t1:mx1\t1700000000000\t0\t\t1000\t3600000\t0\t\t\ta note",
            "g\t192.0.2.7\tmx1\t\t1700000000000\t0\t0\t\t\t1\tcyrus\t\t",
            "r\t192.0.2.7\t3:mx1\t1:mx2,2:mx1,\t3:mx1:1700000000000,",
            "r\t192.0.2.7\t1:mx1\t\t",
            "h\tmx1\t42\t1700000000000\t1700000000000-3",
        ];
        for row in rows {
            assert_eq!(again(row).as_deref(), Some(row));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let long = format!("h\tmx1\t42\t1700000000000\t1-1{}", "0".repeat(MAX_ENTRY));
        let users = "\t\tjoe".repeat(MAX_USERS + 1);
        let many = format!("g\t192.0.2.7\tmx1\t\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t{users}");
        let rows = [
            "",
            "g",
            "x\t192.0.2.7",
            "g\t192.0.2.7\tmx1\t\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t\tjoe",
            "g\t192.0.2.300\tmx1\t\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t",
            "g\t240.0.0.1\tmx1\t\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t",
            "g\t192.0.2.7\tmx 1\t\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t",
            "g\t192.0.2.7\tmx1\t0:mx1\t17\t5\t1800000\t\t\t3\tdovecot\tmx1\t",
            "g\t192.0.2.7\tmx1\t\t17\t5\t-1\t\t\t3\tdovecot\tmx1\t",
            "g\t192.0.2.7\tmx1\t\t17\t5\t\t\t\t3\tdovecot\tmx1\t",
            "g\t192.0.2.7\tmx1\t\t17\t5\t1\t\t5\t3\tdovecot\tmx1\t",
            "r\t192.0.2.7\t1\t\t",
            "r\t192.0.2.7\t\t\t",
            "r\t0.0.0.0\t1:mx1\t\t",
            "r\t0.0.0.1\t1:mx1\t\t",
            "r\t192.0.2.7\t1:mx1\t\t1:mx1:x,",
            "h\t\t42\t17\t1-1",
            "h\tmx1\t42\t17\t1",
            "g\t192.0.2.7\tmx1\t\t17\t5\t1800000\t\t\t3\tdovecot\nblock\tmx1\t",
            &long,
            &many,
        ];
        for row in rows {
            assert_eq!(again(row), None, "{row}");
        }
        let huge =
            "g\t192.0.2.7\tmx1\t\t18446744073709551615\t5\t18446744073709551615\t\t\t3\tx\t\t";
        assert!(again(huge).is_some(), "times do not overflow");
    }
}
