//! How the daemon is, put together for `status`, monitoring and `doctor`.
//!
//! Not here what it looks like on the wire (`control::status`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lookup::LookupService;
use super::receiver::Receiver;
use super::shared::Shared;
use super::state_file::StateFile;
use crate::control::protocol::rfc3339;
use crate::control::status::{
    DaemonStatus, ListenerStatus, LookupStatus, MapStatus, SharedAddress, StateFault, Status,
};
use crate::engine::maildaemons::FACILITIES;
use crate::engine::time::Time;
use crate::sys::log::Log;

/// An attempt to publish the map takes a moment, and twice as long as the last one at most.
const SLOW: Duration = Duration::from_secs(5);

/// What does not change while the daemon runs, and the receivers, which count for themselves.
#[derive(Clone, Debug)]
pub struct Describe {
    /// The receivers.
    pub receivers: Arc<Vec<Receiver>>,
    /// The sockets on which Postfix asks, which count for themselves too.
    pub services: Arc<Vec<LookupService>>,
    /// The map as main.cf names it.
    pub map: Option<String>,
    /// The state file, if there is one.
    pub state: Option<Arc<StateFile>>,
    /// The log, which counts what it loses.
    pub log: Log,
    /// When the daemon was started.
    pub started: Time,
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
            let publication = engine.publication();
            let history = publication.history();
            let trying = publication.trying_since().map(|since| now.since(since));
            let trying = trying
                .filter(|time| publication.failures() > 0 || *time >= SLOW.max(2 * history.took));
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

fn listener(receiver: &Receiver) -> ListenerStatus {
    let counters = &receiver.counters;
    ListenerStatus {
        name: receiver.name.clone(),
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
        name: service.name.clone(),
        connections: count(&counters.open),
        requests: count(&counters.requests),
        admitted: count(&counters.admitted),
        rejected: count(&counters.rejected),
        broken: count(&counters.broken),
        evicted: count(&counters.evicted),
    }
}
