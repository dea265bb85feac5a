//! A snapshot of the daemon, for `status`, metrics and health checks.
//!
//! - **Not here**: its form in the control protocol ([`crate::control::status`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cluster::Exchange;
use super::lookup::LookupService;
use super::receiver::Receiver;
use super::shared::Shared;
use super::state_file::StateFile;
use crate::control::protocol::rfc3339;
use crate::control::status::{
    ClusterHost, ClusterStatus, DaemonStatus, EventCounts, ListenerStatus, LookupStatus, MapStatus,
    RelayStatus, SharedAddress, StateFault, Status,
};
use crate::engine::Engine;
use crate::engine::maildaemons::{FACILITIES, Name};
use crate::engine::publication::Publication;
use crate::engine::stats::{DaemonStats, Stats};
use crate::engine::time::Time;
use crate::sys::log::Log;

/// An attempt to publish the map is slow after this time, and after twice the time of the last one.
const SLOW: Duration = Duration::from_secs(5);

/// A map that cannot be published for this time is unhealthy: six attempts have failed.
const MAX_FAILING: Duration = Duration::from_secs(60);

/// The parts of the daemon that have their own counters, and what does not change while it runs.
#[derive(Clone, Debug)]
pub struct StatusSource {
    /// The receivers.
    pub receivers: Arc<Vec<Receiver>>,
    /// The sockets on which Postfix sends requests.
    pub services: Arc<Vec<LookupService>>,
    /// The map's name in main.cf.
    pub map: Option<String>,
    /// The state file, if there is one.
    pub state: Option<Arc<StateFile>>,
    /// The exchange with other hosts, if there are any.
    pub cluster: Option<Arc<Exchange>>,
    /// The log, which counts dropped lines.
    pub log: Log,
    /// When the daemon was started.
    pub started: Time,
}

/// A snapshot of the daemon.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Time,
    /// When the daemon was started.
    pub started: Time,
    /// Authorised addresses.
    pub clients: usize,
    /// The maximum number of authorised addresses.
    pub max_clients: usize,
    /// Addresses shared by too many users, with the number of users.
    pub shared: Vec<(IpAddr, usize)>,
    /// Authorised addresses that are left out of the map because their keys would admit other hosts.
    pub kept_out: usize,
    /// How much may be relayed, and was.
    pub relay: RelayStatus,
    /// The mail daemons in use.
    pub daemons: Vec<Name>,
    /// The engine's counters.
    pub stats: Stats,
    /// The state of publication.
    pub publication: Publication,
    /// Why the last attempt to publish the map failed, if it did.
    pub map_error: Option<String>,
    /// The map's name in main.cf.
    pub table: Option<String>,
    /// The receiving sockets.
    pub listeners: Vec<ListenerStatus>,
    /// The sockets on which Postfix sends requests.
    pub lookups: Vec<LookupStatus>,
    /// A Unix socket whose file does not exist, if there is one.
    pub lost_socket: Option<String>,
    /// Why the state file cannot be written, if so.
    pub state_fault: Option<StateFault>,
    /// The other hosts.
    pub cluster: Option<ClusterStatus>,
    /// Log lines that were dropped.
    pub log_lines_lost: u64,
}

impl StatusSource {
    /// Takes a snapshot.
    pub fn snapshot(&self, shared: &Shared) -> Snapshot {
        let map_error = shared.map_error();
        let lost_socket = self.lost_socket();
        shared.with(|engine, now| Snapshot {
            now,
            started: self.started,
            clients: engine.clients_at(now),
            max_clients: engine.rules().max_clients,
            shared: engine.shared(now),
            kept_out: engine.unpublished(),
            relay: relay(engine),
            daemons: engine.rules().table.daemons().iter().map(|d| d.name.clone()).collect(),
            stats: engine.stats().clone(),
            publication: *engine.publication(),
            map_error,
            table: self.map.clone(),
            listeners: self.receivers.iter().map(listener).collect(),
            lookups: self.services.iter().map(lookup).collect(),
            lost_socket,
            state_fault: self.state.as_ref().and_then(|state| state.fault(now)),
            cluster: self.cluster.as_ref().map(|exchange| cluster_status(exchange, engine, now)),
            log_lines_lost: self.log.lost(),
        })
    }

    /// Returns a Unix socket whose file someone has removed: nobody can connect any more.
    fn lost_socket(&self) -> Option<String> {
        let receivers = self.receivers.iter().map(|receiver| &receiver.name);
        let services = self.services.iter().map(|service| &service.address);
        let is_lost = |name: &&String| {
            // The mode and the group may follow.
            let path = name.strip_prefix("unix:").and_then(|rest| rest.split(',').next());
            let found = path.map(std::fs::symlink_metadata);
            found.is_some_and(|found| {
                found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            })
        };
        receivers.chain(services).find(is_lost).cloned()
    }
}

impl Snapshot {
    /// Converts it to the form of the control protocol.
    pub fn status(self) -> Status {
        let shared = self.shared.iter();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started: rfc3339(self.started),
            configured: rfc3339(self.stats.reloaded.unwrap_or(self.started)),
            now: rfc3339(self.now),
            clients: self.clients,
            max_clients: self.max_clients,
            shared: shared.map(|&(address, users)| SharedAddress { address, users }).collect(),
            frames: self.stats.frames,
            counts: counts(&self.stats),
            relay: self.relay,
            logins: self.stats.logins,
            last_login: self.stats.last_login.map(rfc3339),
            daemons: self.daemon_statuses(),
            map: self.map_status(),
            fault: self.serves().err(),
            listeners: self.listeners,
            lookups: self.lookups,
            state_fault: self.state_fault,
            cluster: self.cluster,
            log_lines_lost: self.log_lines_lost,
        }
    }

    /// Checks what mail depends on: the map is published, and every socket can be reached.
    ///
    /// # Errors
    /// Returns a sentence that says what is wrong.
    fn serves(&self) -> Result<(), String> {
        published(&self.publication, self.now)?;
        match &self.lost_socket {
            Some(name) => Err(format!("the socket `{name}` was removed; restart the daemon")),
            None => Ok(()),
        }
    }

    /// Checks that the daemon can do its work: what mail depends on, and the state is saved.
    ///
    /// # Errors
    /// Returns a sentence that says what prevents it.
    pub fn health(&self) -> Result<(), String> {
        self.serves()?;
        if let Some(StateFault { seconds, error }) = &self.state_fault {
            return Err(format!(
                "the state file could not be written for {seconds:.0} s: {error}; logins still \
                 count, but a crash would lose the latest"
            ));
        }
        let away = self.cluster.as_ref().and_then(|cluster| {
            let seconds = cluster.away_seconds.filter(|time| *time >= MAX_FAILING.as_secs_f64())?;
            Some((seconds, cluster.error.as_deref().unwrap_or_default()))
        });
        match away {
            Some((seconds, error)) => Err(format!(
                "the cluster's store has been away for {seconds:.0} s: {error}; this host does not \
                 hear of logins elsewhere"
            )),
            None => Ok(()),
        }
    }

    fn daemon_statuses(&self) -> BTreeMap<String, DaemonStatus> {
        let status = |daemon: &DaemonStats| {
            let facilities = daemon.facilities.iter();
            let names = facilities.filter_map(|code| FACILITIES.get(usize::from(*code)));
            DaemonStatus {
                logins: daemon.logins,
                unmatched: daemon.unmatched,
                last_login: daemon.last_login.map(rfc3339),
                facilities: names.map(|name| (*name).to_owned()).collect(),
                stopped: daemon.has_stopped(self.now),
            }
        };
        self.stats.daemons.iter().map(|(name, daemon)| (name.to_string(), status(daemon))).collect()
    }

    fn map_status(&self) -> MapStatus {
        let publication = &self.publication;
        let history = publication.history();
        let trying = publication
            .trying_since()
            .map(|since| self.now.since(since))
            .filter(|time| publication.failures() > 0 || *time >= SLOW.max(2 * history.took));
        MapStatus {
            table: self.table.clone(),
            published: publication.published_generation(),
            wanted: publication.desired(),
            last_publication: history.last.map(rfc3339),
            last_publication_seconds: history.last.map(|_| history.took.as_secs_f64()),
            publications: history.published,
            publication_failures: history.failed,
            emptied: publication.is_emptied(),
            has_stale_entries: publication.has_stale_entries(),
            stuck: publication.is_stuck(),
            trying_seconds: trying.map(|time| time.as_secs_f64()),
            pending: publication.due().is_some(),
            failures: publication.failures(),
            error: self.map_error.clone(),
            next_attempt_seconds: publication
                .due()
                .filter(|_| publication.failures() > 0)
                .map(|(_, at)| at.since(self.now).as_secs_f64()),
            kept_out: self.kept_out,
        }
    }
}

fn counts(stats: &Stats) -> EventCounts {
    EventCounts {
        ambiguous: stats.ambiguous,
        blocked: stats.blocked,
        evicted: stats.evicted,
        excluded: stats.excluded,
        expired: stats.expired,
        granted: stats.granted,
        late: stats.late,
        malformed: stats.malformed,
        other_hosts: stats.other_hosts,
        other_programs: stats.other_programs,
        overloaded: stats.overloaded,
        refused: stats.refused,
        refused_by_rule: stats.refused_by_rule,
        shared: stats.shared,
    }
}

fn relay(engine: &Engine) -> RelayStatus {
    let Stats { relayed, limited, .. } = engine.stats();
    let limits = &engine.rules().limits;
    RelayStatus {
        messages: relayed.messages,
        recipients: relayed.recipients,
        beyond_messages: limited.messages,
        beyond_recipients: limited.recipients,
        too_many_clients: limited.too_many_clients,
        messages_per_hour: limits.general.messages,
        recipients_per_hour: limits.general.recipients,
        has_exceptions: !limits.table.is_empty(),
    }
}

fn cluster_status(exchange: &Exchange, engine: &Engine, now: Time) -> ClusterStatus {
    let Some(cluster) = engine.cluster() else { return ClusterStatus::default() };
    let link = exchange.link();
    let (seconds, error) = match link.away {
        Some((since, error)) => (Some(now.since(since).as_secs_f64()), Some(error)),
        None => (None, link.untellable),
    };
    let lag = cluster.lag().filter(|_| seconds.is_none());
    let hosts = cluster.members().iter().map(|(name, member)| ClusterHost {
        name: name.to_string(),
        last_seen: rfc3339(member.seen),
        silent: cluster.members().is_silent(now, name),
    });
    let stats = cluster.stats();
    ClusterStatus {
        name: exchange.config.name.clone(),
        host: cluster.host().to_owned(),
        connected: seconds.is_none(),
        store: link.store,
        away_seconds: seconds,
        error,
        lag_ms: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        untold: cluster.untold() as u64,
        same_name: cluster.has_twin(now),
        told: stats.told,
        heard: stats.heard,
        refused: stats.refused,
        hosts: hosts.collect(),
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn listener(receiver: &Receiver) -> ListenerStatus {
    let counters = &receiver.counters;
    ListenerStatus {
        name: receiver.name.clone(),
        kind: receiver.kind(),
        frames: count(&counters.frames),
        rejected: count(&counters.rejected),
        oversized: count(&counters.oversized),
        kernel_drops: count(&counters.kernel_drops),
        errors: count(&counters.errors),
        receive_buffer: receiver.receive_buffer(),
    }
}

fn lookup(service: &LookupService) -> LookupStatus {
    let counters = &service.counters;
    LookupStatus {
        protocol: service.protocol.name().to_owned(),
        address: service.address.clone(),
        connections: count(&counters.open),
        requests: count(&counters.requests),
        admitted: count(&counters.admitted),
        rejected: count(&counters.rejected),
        broken: count(&counters.broken),
        evicted: count(&counters.evicted),
    }
}

fn published(publication: &Publication, now: Time) -> Result<(), String> {
    let trying = publication.trying_since().map(|since| now.since(since));
    let limit = MAX_FAILING.max(2 * publication.history().took);
    match trying {
        _ if publication.is_stuck() => {
            Err("the map lists expired clients and could not be emptied; the log says why".into())
        }
        Some(time) if time >= limit => Err(format!(
            "the map could not be published for {} s ({}); the log says why",
            time.as_secs(),
            if publication.is_emptied() { "map emptied" } else { "previous map in use" }
        )),
        _ if publication.published_generation() == 0 => Err("no map has been published yet".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn unhealthy_without_a_map_and_after_a_minute_of_failures() {
        let mut publication = Publication::unknown();
        assert!(published(&publication, at(0)).is_err_and(|why| why.contains("yet")));
        publication.published(1, at(1), Duration::ZERO);
        assert_eq!(published(&publication, at(9)), Ok(()));
        publication.failed(at(10));
        publication.failed(at(50));
        assert_eq!(published(&publication, at(69)), Ok(()), "it may recover");
        assert!(published(&publication, at(70)).is_err_and(|why| why.contains("60 s")));
        publication.published(1, at(71), Duration::ZERO);
        assert_eq!(published(&publication, at(1000)), Ok(()));
    }
}
