//! Requests and answers on the control sockets: one line of JSON each; a list takes several lines,
//! and a watch has one for each event.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::engine::time::Time;

/// What the clients of a socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only query.
    Read,
    /// Query, and change who is authorised.
    Change,
}

/// A request of an operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// List the authorised addresses.
    List,
    /// Test whether an address is authorised.
    Query {
        /// The address.
        address: IpAddr,
    },
    /// Authorise an address manually.
    Allow {
        /// The address.
        address: IpAddr,
        /// For how many seconds; the grace if missing.
        seconds: Option<u64>,
        /// The operator's note.
        note: Option<String>,
    },
    /// End an authorisation.
    Revoke {
        /// The address.
        address: IpAddr,
        /// For how many seconds new logins do not count.
        block: Option<u64>,
    },
    /// List the addresses that an operator has blocked.
    Blocked,
    /// Return the daemon's status.
    Status,
    /// Tell events as they happen ([`super::events`]).
    Watch {
        /// Whether the authorised addresses are told first.
        initial: bool,
    },
    /// Test whether a test message of `doctor` has arrived.
    Probe {
        /// Its text.
        text: String,
    },
}

impl Request {
    /// Returns the access that it needs.
    pub const fn needs(&self) -> Access {
        match self {
            Self::List
            | Self::Query { .. }
            | Self::Blocked
            | Self::Status
            | Self::Watch { .. }
            | Self::Probe { .. } => Access::Read,
            Self::Allow { .. } | Self::Revoke { .. } => Access::Change,
        }
    }
}

/// What other hosts do not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Whether it could not even be told.
    pub untold: bool,
    /// The hosts that have not confirmed it.
    pub hosts: Vec<String>,
}

/// An answer of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To `List`: some entries, in no order. More answers follow; the last one is empty.
    List(Vec<Entry>),
    /// To `Query`: the entry of the address, which is authorised.
    Query(Entry),
    /// To `Query`: why the address is not authorised.
    No(WhyNot),
    /// To `Blocked`: the blocks, by address.
    Blocks(Vec<Block>),
    /// To `Allow`.
    Allowed {
        /// The entry of the address.
        entry: Entry,
        /// Whether the map, if there is one, contains it.
        published: bool,
        /// The other hosts that have not confirmed it; nothing if there are none.
        #[serde(default)]
        unconfirmed: Unconfirmed,
    },
    /// To `Revoke`.
    Revoked {
        /// Whether the address was authorised.
        was_authorised: bool,
        /// Whether the change is on disk; if not, a crash would undo it.
        saved: bool,
        /// Whether the map, if there is one, no longer contains the address.
        published: bool,
        /// Whether the map can neither be published nor emptied.
        stuck: bool,
        /// The other hosts that have not confirmed it; nothing if there are none.
        #[serde(default)]
        unconfirmed: Unconfirmed,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Probe`: how often it has arrived.
    Probe(usize),
    /// The request was refused, with the reason.
    Refused(String),
    /// The request was not understood.
    Unknown(String),
}

/// Why an address is not authorised. Times are RFC 3339.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhyNot {
    /// It is never authorised: which list of exclusions names it.
    Excluded(String),
    /// The operator has blocked it until then.
    Blocked(String),
    /// Too many users share it: how many.
    Shared(usize),
    /// This rule refuses all logins from it.
    Rule(String),
    /// Its last login was refused.
    Refused {
        /// When.
        at: String,
        /// Why.
        reason: String,
    },
    /// Its last grant has ended.
    Ended {
        /// When.
        at: String,
        /// Why.
        reason: String,
    },
    /// Nothing is known about it.
    Unknown,
}

/// One authorised address, as `list --json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The client, canonical.
    pub address: IpAddr,
    /// The user who logged in last.
    pub user: Option<String>,
    /// All users whose logins still count, the latest last.
    pub users: Vec<String>,
    /// The mail daemon; nothing if authorised manually.
    pub daemon: Option<String>,
    /// The host that logged the login.
    pub host: Option<String>,
    /// The host of the cluster that heard the login, or whose operator authorised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Since when it has been authorised without interruption, RFC 3339.
    pub since: String,
    /// When the grant expires, RFC 3339.
    pub expires: String,
    /// Whole seconds until then, rounded up.
    pub expires_in: u64,
    /// Logins since `since`.
    pub logins: u64,
    /// Messages relayed since `since`, as far as Postfix asked by the policy protocol since the start.
    #[serde(default)]
    pub messages: u64,
    /// Their recipients.
    #[serde(default)]
    pub recipients: u64,
    /// The operator's note.
    pub note: Option<String>,
    /// Whether the map can show the address to Postfix; nothing if there is no map.
    #[serde(default)]
    pub in_map: Option<bool>,
}

/// One blocked address, as `list --blocked --json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Block {
    /// The address, canonical.
    pub address: IpAddr,
    /// Until when its logins do not count, RFC 3339.
    pub until: String,
    /// Whole seconds until then, rounded up.
    pub ends_in: u64,
}

/// Formats a time as RFC 3339 text in UTC, to the second.
pub fn rfc3339(time: Time) -> String {
    // A damaged state file may contain a time that no calendar has; the engine caps deadlines.
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()));
    let printable = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(moment.unwrap_or(printable).min(printable)).to_string()
}
