//! What goes over the control sockets: one line of JSON asks, one line of JSON answers; a list takes
//! more.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::engine::time::Time;

/// What the clients of a socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Ask.
    Read,
    /// Ask and change who is authorised.
    Change,
}

/// What an operator can ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Who is authorised now.
    List,
    /// Is this address authorised?
    Query {
        /// The address.
        address: IpAddr,
    },
    /// Authorise by hand.
    Allow {
        /// The address.
        address: IpAddr,
        /// For how many seconds; the grace period if missing.
        seconds: Option<u64>,
        /// Why.
        note: Option<String>,
    },
    /// End an authorisation.
    Revoke {
        /// The address.
        address: IpAddr,
        /// For how many seconds new logins do not count.
        block: Option<u64>,
    },
    /// How the daemon is.
    Status,
    /// Has this test message of `doctor` arrived?
    Probe {
        /// Its text.
        text: String,
    },
}

impl Request {
    /// What it takes to ask this.
    pub const fn needs(&self) -> Rights {
        match self {
            Self::List | Self::Query { .. } | Self::Status | Self::Probe { .. } => Rights::Read,
            Self::Allow { .. } | Self::Revoke { .. } => Rights::Change,
        }
    }
}

/// What the daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To `List`: some of them, by address. More answers follow; the last one lists nobody.
    List(Vec<Entry>),
    /// To `Query`: the entry, if the address is authorised.
    Query(Option<Entry>),
    /// To `Allow`.
    Allowed {
        /// The right that the address has now.
        entry: Entry,
        /// Whether the map, if there is one, says so.
        published: bool,
    },
    /// To `Revoke`.
    Revoked {
        /// Whether the address was authorised.
        was_authorised: bool,
        /// Whether its end is on the disk; if not, a sudden end of the daemon would undo it.
        saved: bool,
        /// Whether the map, if there is one, does not have it any more.
        published: bool,
        /// Whether the map can neither be published nor emptied.
        stuck: bool,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Probe`: how often it has arrived.
    Probe(usize),
    /// The request is understood and not met.
    Refused(String),
    /// The request is not understood.
    Unknown(String),
}

/// One authorised address, as `list --json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The client, canonical.
    pub address: IpAddr,
    /// Who logged in last.
    pub user: Option<String>,
    /// All who have logged in and whose right lasts, the latest last.
    pub users: Vec<String>,
    /// The mail daemon; nothing if authorised by hand.
    pub daemon: Option<String>,
    /// The host that logged it.
    pub host: Option<String>,
    /// The first login of this unbroken time, RFC 3339.
    pub since: String,
    /// The end of the right, RFC 3339.
    pub expires: String,
    /// Whole seconds until then, rounded up.
    pub expires_in: u64,
    /// Logins since then.
    pub logins: u64,
    /// What the operator wrote about it.
    pub note: Option<String>,
}

/// A moment as RFC 3339 text in UTC, to the second.
pub fn rfc3339(time: Time) -> String {
    // A damaged state file may hold a moment that no calendar has; the engine caps deadlines.
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()));
    let printable = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(moment.unwrap_or(printable).min(printable)).to_string()
}
