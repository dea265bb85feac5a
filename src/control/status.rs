//! The daemon's status, as `status --json` prints it.
//!
//! - **Promise**: it never contains text from received frames.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What to do about a mail daemon whose logins have stopped.
pub const STOPPED: &str = "has an upgrade changed its log messages? try a login line with \
                           `pop-before-smtp test`";

/// The daemon's status.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When the daemon was started, RFC 3339.
    pub started: String,
    /// When it read its configuration, RFC 3339; empty if the daemon is older and does not say it.
    #[serde(default)]
    pub configured: String,
    /// When this status was taken, RFC 3339.
    pub now: String,
    /// Authorised addresses.
    pub clients: usize,
    /// The maximum number of authorised addresses.
    pub max_clients: usize,
    /// Addresses that are not authorised because too many users share them.
    pub shared: Vec<SharedAddress>,
    /// The receiving sockets.
    pub listeners: Vec<ListenerStatus>,
    /// The sockets on which Postfix sends requests.
    pub lookups: Vec<LookupStatus>,
    /// Frames that were processed.
    pub frames: u64,
    /// The results of processing them.
    pub counts: EventCounts,
    /// What was relayed, and the limits.
    #[serde(default)]
    pub relay: RelayStatus,
    /// Complete logins.
    pub logins: u64,
    /// When the last login was seen, RFC 3339.
    pub last_login: Option<String>,
    /// The mail daemons, by name.
    pub daemons: BTreeMap<String, DaemonStatus>,
    /// The map.
    pub map: MapStatus,
    /// Why the state file cannot be written, if so.
    pub state_fault: Option<StateFault>,
    /// The other hosts that share their clients with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// What affects mail. A state file that cannot be written does not.
    #[serde(default)]
    pub fault: Option<String>,
    /// Log lines that were dropped because they were not read in time.
    pub log_lines_lost: u64,
}

/// The hosts that share their clients, as this one sees them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// The site.
    pub name: String,
    /// How the others call this host.
    pub host: String,
    /// Whether this host is connected to the store.
    pub connected: bool,
    /// The store in use.
    pub store: Option<String>,
    /// For how long the store has been away.
    pub away_seconds: Option<f64>,
    /// Why it is away, or refuses what this host tells.
    pub error: Option<String>,
    /// How long it takes until this host reads what it has told, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Changes that the others have not been told of.
    pub untold: u64,
    /// Whether another daemon uses this host's name.
    pub same_name: bool,
    /// Entries told.
    pub told: u64,
    /// Entries of others that have changed something here.
    pub heard: u64,
    /// Entries that are none, or not believed.
    pub refused: u64,
    /// The other hosts.
    pub hosts: Vec<ClusterHost>,
}

/// Another host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterHost {
    /// Its name.
    pub name: String,
    /// Its last sign of life, RFC 3339.
    pub last_seen: String,
    /// Whether that is longer ago than it should be.
    pub silent: bool,
}

/// Results of processing frames, and changes of grants. All counters only grow.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventCounts {
    /// Logins without an address, of processes that may have several open connections.
    pub ambiguous: u64,
    /// Logins from addresses that the operator has blocked.
    pub blocked: u64,
    /// Addresses evicted because `max-clients` was reached.
    pub evicted: u64,
    /// Logins from addresses that are never authorised.
    pub excluded: u64,
    /// Addresses whose grant has expired.
    pub expired: u64,
    /// Addresses that became authorised.
    pub granted: u64,
    /// Logins and connect lines dated longer ago than the grace when they arrived.
    pub late: u64,
    /// Frames that are not syslog messages.
    pub malformed: u64,
    /// Messages of hosts that `allow-host` does not name.
    pub other_hosts: u64,
    /// Messages of programs that belong to no mail daemon.
    pub other_programs: u64,
    /// Logins refused because the tables of processes were full.
    pub overloaded: u64,
    /// Messages that match a login pattern but are not trusted or too long.
    pub refused: u64,
    /// Logins that a rule refuses, or of users whom `users` does not name.
    pub refused_by_rule: u64,
    /// Addresses that lost their grant because too many users share them.
    pub shared: u64,
}

impl EventCounts {
    /// Returns how many logins the configuration or the operator has refused.
    pub fn refused_logins(&self) -> u64 {
        self.excluded + self.blocked + self.refused_by_rule + self.refused
    }

    /// Returns the counters with their labels, in the order in which they are printed.
    pub fn labelled(&self) -> [(&'static str, u64); 14] {
        [
            ("not syslog", self.malformed),
            ("from other programs", self.other_programs),
            ("from other hosts (--allow-host)", self.other_hosts),
            ("logins from excluded addresses", self.excluded),
            ("logins from blocked addresses", self.blocked),
            ("logins refused by a rule or `users`", self.refused_by_rule),
            ("logins refused", self.refused),
            ("logins refused because tables were full", self.overloaded),
            ("late logins (dated longer ago than --grace)", self.late),
            ("ambiguous logins (several connections of the same process)", self.ambiguous),
            ("addresses authorised", self.granted),
            ("addresses expired", self.expired),
            ("addresses evicted (--max-clients)", self.evicted),
            ("addresses shared by too many users (--max-users-per-address)", self.shared),
        ]
    }
}

/// What was relayed, as far as Postfix asked by the policy protocol, and the limits. All counters
/// only grow.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayStatus {
    /// Messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Recipients refused by the limit of messages.
    pub beyond_messages: u64,
    /// Recipients refused by the limit of recipients.
    pub beyond_recipients: u64,
    /// Recipients refused because more clients or users relay than are counted.
    pub too_many_clients: u64,
    /// The general limit of messages within an hour, if there is one.
    pub messages_per_hour: Option<u32>,
    /// The general limit of recipients within an hour, if there is one.
    pub recipients_per_hour: Option<u32>,
    /// Whether addresses, networks or users have limits of their own.
    pub has_exceptions: bool,
}

impl RelayStatus {
    /// Returns how many recipients were refused because of limits.
    pub const fn limited(&self) -> u64 {
        self.beyond_messages + self.beyond_recipients + self.too_many_clients
    }
}

/// The kind of a receiving socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// A Unix datagram socket.
    Unix,
    /// A UDP socket.
    Udp,
}

/// One receiving socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens: `unix:PATH` or `udp:HOST:PORT`.
    pub name: String,
    /// Its kind.
    pub kind: ListenerKind,
    /// Frames passed to the engine.
    pub frames: u64,
    /// Frames of senders that `allow-from` or `allow-uid` does not name.
    pub rejected: u64,
    /// Frames that were larger than the limit.
    pub oversized: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    pub kernel_drops: u64,
    /// Temporary errors of the socket.
    pub errors: u64,
    /// The size of its receive buffer in bytes, as the kernel counts it (socket(7), `SO_RCVBUF`).
    pub receive_buffer: Option<usize>,
}

/// An address shared by too many users.
#[derive(Debug, Serialize, Deserialize)]
pub struct SharedAddress {
    /// The address.
    pub address: IpAddr,
    /// How many users have logged in from it, as far as they are counted.
    pub users: usize,
}

/// One socket on which Postfix sends requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookupStatus {
    /// Its protocol: `socketmap` or `policy`.
    pub protocol: String,
    /// Where it listens: `unix:PATH`, `inet:HOST:PORT`, or `systemd` if it has no name.
    pub address: String,
    /// Open connections.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests whose client may relay.
    pub admitted: u64,
    /// Requests that were rejected with a text because of their sender or a limit.
    pub rejected: u64,
    /// Connections that were closed because of malformed input or a timeout.
    pub broken: u64,
    /// Idle connections that were closed to make room for others.
    pub evicted: u64,
}

impl fmt::Display for LookupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

/// The status of one mail daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Complete logins.
    pub logins: u64,
    /// Messages of its programs that match no pattern.
    pub unmatched: u64,
    /// When its last login was seen, RFC 3339.
    pub last_login: Option<String>,
    /// The facilities from which its logins came.
    pub facilities: Vec<String>,
    /// Whether its logins have stopped although it still logs: its messages may have changed.
    pub stopped: bool,
}

/// The status of the map.
#[derive(Debug, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name in main.cf.
    pub table: Option<String>,
    /// The last generation that was published.
    pub published: u64,
    /// The generation that lists who is authorised now.
    pub wanted: u64,
    /// When the last generation was published, RFC 3339.
    pub last_publication: Option<String>,
    /// How long that took, in seconds.
    pub last_publication_seconds: Option<f64>,
    /// Generations that were published since the start.
    pub publications: u64,
    /// Attempts that failed since the start.
    pub publication_failures: u64,
    /// Whether it was emptied because it could not be published for a minute.
    pub emptied: bool,
    /// Whether it lists expired clients, which is normal until the next publication.
    pub has_stale_entries: bool,
    /// Whether it lists expired clients and could not be emptied.
    pub stuck: bool,
    /// How long publication has been tried, in seconds, if that takes longer than usual.
    pub trying_seconds: Option<f64>,
    /// Whether another generation is due.
    pub pending: bool,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// Why the last attempt failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
    /// Seconds until the next attempt, if the last one failed.
    #[serde(default)]
    pub next_attempt_seconds: Option<f64>,
    /// Authorised addresses that are left out of it because their keys would admit other hosts.
    pub kept_out: usize,
}

impl MapStatus {
    /// Returns what Postfix reads while no generation can be published.
    pub fn meanwhile(&self) -> &'static str {
        match (self.emptied, self.stuck, self.has_stale_entries) {
            (true, ..) => "map emptied",
            (_, true, _) => "expired clients still listed, COULD NOT BE EMPTIED",
            (_, _, true) => "expired clients still listed, will be emptied",
            _ => "previous map in use",
        }
    }
}

/// Why the state file cannot be written.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateFault {
    /// For how many seconds that has been tried.
    pub seconds: f64,
    /// The last error.
    pub error: String,
}
