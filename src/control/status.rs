//! How the daemon is, as `status --json` prints it.
//!
//! Promise  numbers only: what a stranger wrote never stands in it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What to do about a mail daemon whose logins have stopped.
pub const STOPPED: &str = "has an upgrade changed the wording of its log? feed such a line to \
                           `pop-before-smtp test`";

/// How the daemon is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When the daemon was started, RFC 3339.
    pub started: String,
    /// The moment of all this, RFC 3339.
    pub now: String,
    /// Addresses that are authorised.
    pub clients: usize,
    /// Most of them that are held.
    pub max_clients: usize,
    /// Addresses that are not authorised because too many users share them.
    pub shared: Vec<SharedAddress>,
    /// The receiving sockets.
    pub listeners: Vec<ListenerStatus>,
    /// The sockets on which Postfix asks.
    pub lookups: Vec<LookupStatus>,
    /// Frames that were processed.
    pub frames: u64,
    /// What became of them.
    pub counts: Counts,
    /// Complete logins.
    pub logins: u64,
    /// When the last login was heard, RFC 3339.
    pub last_login: Option<String>,
    /// What each mail daemon has contributed.
    pub daemons: BTreeMap<String, DaemonStatus>,
    /// The map.
    pub map: MapStatus,
    /// What keeps the state file from being written, if something does.
    pub state_fault: Option<StateFault>,
    /// Lines of the log that were dropped because nobody read them in time.
    pub log_lines_lost: u64,
}

/// What became of frames, and of the addresses that they authorised. All counters only grow.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
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
    /// Logins that were delivered when their own date was older than the grace.
    pub late: u64,
    /// Frames that are not syslog messages.
    pub malformed: u64,
    /// Messages of hosts that `allow-host` does not name.
    pub other_hosts: u64,
    /// Messages of programs that belong to no mail daemon.
    pub other_programs: u64,
    /// Logins refused because the tables that keep processes apart were full.
    pub overloaded: u64,
    /// Messages that match a login pattern and are not trusted, or are too long for one.
    pub refused: u64,
    /// Addresses that lost their grant because too many users share them.
    pub shared: u64,
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
    /// Frames larger than any frame should be.
    pub oversized: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    pub kernel_drops: u64,
    /// Errors of the socket that did not end it.
    pub errors: u64,
    /// Bytes that its receive buffer takes, as the kernel counts them (socket(7), `SO_RCVBUF`).
    pub receive_buffer: Option<usize>,
}

/// An address that too many users share.
#[derive(Debug, Serialize, Deserialize)]
pub struct SharedAddress {
    /// The address.
    pub address: IpAddr,
    /// How many users have logged in from it, as far as they are counted.
    pub users: usize,
}

/// One socket on which Postfix asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookupStatus {
    /// Its protocol: `socketmap` or `policy`.
    pub protocol: String,
    /// Where it listens: `unix:PATH`, `inet:HOST:PORT`, or `systemd` if it has no name.
    pub address: String,
    /// Connections that are open.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Those of them whose client may relay.
    pub admitted: u64,
    /// Those of them that were refused with a text, because of their sender.
    pub rejected: u64,
    /// Connections that were closed because of what came over them, or because nothing did.
    pub broken: u64,
    /// Connections that were idle and made room for others.
    pub evicted: u64,
}

impl fmt::Display for LookupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

/// What one mail daemon has contributed.
#[derive(Debug, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Complete logins.
    pub logins: u64,
    /// Messages of its programs that no pattern fits.
    pub unmatched: u64,
    /// When its last login was heard, RFC 3339.
    pub last_login: Option<String>,
    /// The facilities from which its logins came.
    pub facilities: Vec<String>,
    /// Its logins have stopped although it goes on to log: its wording may have changed.
    pub stopped: bool,
}

/// The map.
#[derive(Debug, Serialize, Deserialize)]
pub struct MapStatus {
    /// As main.cf names it.
    pub table: Option<String>,
    /// The number of the last generation that was published.
    pub published: u64,
    /// The number of the generation that says who is authorised now.
    pub wanted: u64,
    /// When the last generation was published, RFC 3339.
    pub last_publication: Option<String>,
    /// How long that took, in seconds.
    pub last_publication_seconds: Option<f64>,
    /// Generations that were published, ever.
    pub publications: u64,
    /// Attempts that failed, ever.
    pub publication_failures: u64,
    /// Whether it lists nobody, because it could not be published for long.
    pub emptied: bool,
    /// Whether somebody whose time is up stands in it: for a moment, if it can be published.
    pub has_stale_entries: bool,
    /// Whether it had to be emptied for that and could not be.
    pub stuck: bool,
    /// For how long it has been tried to publish a generation, in seconds, if that takes longer than
    /// usual.
    pub trying_seconds: Option<f64>,
    /// Whether another generation is due.
    pub pending: bool,
    /// Attempts that have failed since the last success.
    pub failures: u32,
    /// Authorised addresses that are kept out of it, because their keys would admit others.
    pub kept_out: usize,
}

impl MapStatus {
    /// What Postfix reads while no generation can be published.
    pub fn meanwhile(&self) -> &'static str {
        match (self.emptied, self.stuck, self.has_stale_entries) {
            (true, ..) => "it lists nobody",
            (_, true, _) => "it lists clients whose time is up, and COULD NOT BE EMPTIED",
            (_, _, true) => "it lists clients whose time is up, and will be emptied",
            _ => "the old one stays",
        }
    }
}

/// What keeps the state file from being written.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateFault {
    /// For how many seconds that has been tried.
    pub seconds: f64,
    /// Why it fails.
    pub error: String,
}
