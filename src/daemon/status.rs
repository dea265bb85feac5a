//! How the daemon is: what `status` prints.
//!
//! Promise  numbers only: what a stranger wrote never stands in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::rfc3339;
use super::lookup::Service;
use super::receiver::Receiver;
use super::shared::Shared;
use super::state_file::{StateFault, StateFile};
use crate::engine::maildaemons::FACILITIES;
use crate::engine::time::Time;
use crate::sys::log::Log;

/// What to do about a mail daemon whose logins have stopped.
pub const STOPPED: &str = "has an upgrade changed the wording of its log? feed such a line to \
                           `pop-before-smtp test`";
/// An attempt to publish the map takes a moment, and twice as long as the last one at most.
const SLOW: Duration = Duration::from_secs(5);

/// What does not change while the daemon runs, and the receivers, which count for themselves.
#[derive(Clone, Debug)]
pub struct Describe {
    /// The receivers.
    pub receivers: Arc<Vec<Receiver>>,
    /// The sockets on which Postfix asks, which count for themselves too.
    pub services: Arc<Vec<Service>>,
    /// The map as main.cf names it.
    pub map: Option<String>,
    /// The state file, if there is one.
    pub state: Option<Arc<StateFile>>,
    /// The log, which counts what it loses.
    pub log: Log,
    /// When the daemon was started.
    pub started: Time,
}

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
    pub listeners: Vec<Listener>,
    /// The sockets on which Postfix asks.
    pub lookups: Vec<LookupStatus>,
    /// Frames that were heard.
    pub frames: u64,
    /// What became of them, by kind.
    pub counts: BTreeMap<String, u64>,
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

/// One receiving socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listener {
    /// What it listens on.
    pub name: String,
    /// Frames handed to the engine.
    pub frames: u64,
    /// Frames of senders that `allow-from` or `allow-uid` does not name.
    pub strangers: u64,
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
#[derive(Debug, Serialize, Deserialize)]
pub struct LookupStatus {
    /// Its protocol, and what it listens on.
    pub name: String,
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
    /// The number of the last edition that was published.
    pub published: u64,
    /// The number of the edition that says who is authorised now.
    pub wanted: u64,
    /// When the last edition was published, RFC 3339.
    pub last_publication: Option<String>,
    /// How long that took, in seconds.
    pub last_publication_seconds: Option<f64>,
    /// Editions that were published, ever.
    pub publications: u64,
    /// Attempts that failed, ever.
    pub publication_failures: u64,
    /// Whether it lists nobody, because it could not be published for long.
    pub emptied: bool,
    /// Whether somebody whose time is up stands in it: for a moment, if it can be published.
    pub lists_ended: bool,
    /// Whether it had to be emptied for that and could not be.
    pub stuck: bool,
    /// For how long it has been tried to publish an edition, in seconds, if that takes longer than
    /// usual.
    pub trying_seconds: Option<f64>,
    /// Whether another edition is due.
    pub pending: bool,
    /// Attempts that have failed since the last success.
    pub failures: u32,
    /// Authorised addresses that are kept out of it, because their keys would admit others.
    pub kept_out: usize,
}

impl MapStatus {
    /// What Postfix reads while no edition can be published.
    pub fn meanwhile(&self) -> &'static str {
        match (self.emptied, self.stuck, self.lists_ended) {
            (true, ..) => "it lists nobody",
            (_, true, _) => "it lists clients whose time is up, and COULD NOT BE EMPTIED",
            (_, _, true) => "it lists clients whose time is up, and will be emptied",
            _ => "the old one stays",
        }
    }
}

impl Describe {
    /// How the daemon is now.
    pub fn status(&self, shared: &Shared) -> Status {
        let listeners = self.receivers.iter().map(listener).collect();
        let lookups = self.services.iter().map(lookup).collect();
        shared.with(|engine, now| {
            let clients = engine.clients_at(now);
            let shared = engine.shared(now).into_iter();
            let shared = shared.map(|(address, users)| SharedAddress { address, users });
            let stats = engine.stats();
            let counts = [
                ("malformed", stats.malformed),
                ("other_hosts", stats.other_hosts),
                ("other_programs", stats.other_programs),
                ("excluded", stats.excluded),
                ("blocked", stats.blocked),
                ("refused", stats.refused),
                ("granted", stats.granted),
                ("expired", stats.expired),
                ("evicted", stats.evicted),
                ("shared", stats.shared),
                ("overloaded", stats.overloaded),
                ("late", stats.late),
                ("ambiguous", stats.ambiguous),
            ];
            let daemons = stats.daemons.iter().map(|(name, daemon)| {
                let last_login = daemon.last_login.map(rfc3339);
                let facilities = daemon.facilities.iter();
                let names = facilities.filter_map(|code| FACILITIES.get(usize::from(*code)));
                let status = DaemonStatus {
                    logins: daemon.logins,
                    unmatched: daemon.unmatched,
                    last_login,
                    facilities: names.map(|name| (*name).to_owned()).collect(),
                    stopped: daemon.has_stopped(now),
                };
                (name.to_string(), status)
            });
            let level = engine.level();
            let history = level.history();
            let trying = level.trying_since().map(|since| now.since(since));
            let trying =
                trying.filter(|time| level.failures() > 0 || *time >= SLOW.max(2 * history.took));
            Status {
                version: env!("CARGO_PKG_VERSION").into(),
                started: rfc3339(self.started),
                now: rfc3339(now),
                clients,
                max_clients: engine.rules().max_clients,
                shared: shared.collect(),
                listeners,
                lookups,
                frames: stats.frames,
                counts: counts.map(|(name, count)| (name.to_owned(), count)).into(),
                logins: stats.logins,
                last_login: stats.last_login.map(rfc3339),
                daemons: daemons.collect(),
                map: MapStatus {
                    table: self.map.clone(),
                    published: level.last(),
                    wanted: level.wanted(),
                    last_publication: history.last.map(rfc3339),
                    last_publication_seconds: history.last.map(|_| history.took.as_secs_f64()),
                    publications: history.published,
                    publication_failures: history.failed,
                    emptied: level.is_emptied(),
                    lists_ended: level.lists_ended(),
                    stuck: level.is_stuck(),
                    trying_seconds: trying.map(|time| time.as_secs_f64()),
                    pending: level.due().is_some(),
                    failures: level.failures(),
                    kept_out: engine.unpublished(),
                },
                state_fault: self.state_fault(now),
                log_lines_lost: self.log.lost(),
            }
        })
    }

    /// What keeps the state file from being written, if something does.
    pub fn state_fault(&self, now: Time) -> Option<StateFault> {
        self.state.as_ref()?.fault(now)
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn listener(receiver: &Receiver) -> Listener {
    let counters = &receiver.counters;
    Listener {
        name: receiver.name.clone(),
        frames: count(&counters.frames),
        strangers: count(&counters.strangers),
        oversized: count(&counters.oversized),
        kernel_drops: count(&counters.kernel_drops),
        errors: count(&counters.errors),
        receive_buffer: receiver.receive_buffer(),
    }
}

fn lookup(service: &Service) -> LookupStatus {
    let counters = &service.counters;
    LookupStatus {
        name: service.name.clone(),
        connections: count(&counters.open),
        requests: count(&counters.requests),
        admitted: count(&counters.admitted),
        rejected: count(&counters.rejected),
        broken: count(&counters.broken),
        evicted: count(&counters.evicted),
    }
}
