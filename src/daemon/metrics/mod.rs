//! The metrics for Prometheus, and the health check.
//!
//! - **Promise**: text format 0.0.4
//!   (<https://prometheus.io/docs/instrumenting/exposition_formats>): each name once with HELP and
//!   TYPE. Labels have few values: mail daemons, listeners, verdicts; never clients or users.
//! - **Layers**: [`http`] serves the pages; here they are written.

pub mod bind;
pub mod http;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::shared::Shared;
use super::status::{Snapshot, StatusSource};
use crate::control::status::{ClusterStatus, LookupStatus, RelayStatus};
use crate::engine::Engine;
use crate::engine::publication::Publication;
use crate::engine::stats::DaemonStats;
use crate::engine::time::Time;

/// The prefix of all names.
const PREFIX: &str = "pop_before_smtp_";

/// Returns all metrics.
pub fn text(source: &StatusSource, shared: &Shared) -> String {
    let most_users = most_users(shared);
    let snapshot = source.snapshot(shared);
    let mut page = MetricsPage::default();
    page.process(&snapshot);
    page.frames(&snapshot);
    page.daemons(&snapshot);
    page.clients(&snapshot, most_users);
    page.lookups(&snapshot.lookups);
    page.relay(&snapshot.relay);
    page.map(&snapshot.publication);
    page.state(&snapshot);
    page.cluster(snapshot.cluster.as_ref());
    page.0
}

/// Returns the highest number of users of one address, authorised or not.
fn most_users(shared: &Shared) -> usize {
    let slices = shared
        .slices(|engine: &Engine, now, from| engine.list(now, from, |grant| grant.user_count(now)));
    let shared_addresses = shared.with(|engine, now| engine.shared(now));
    slices
        .flatten()
        .chain(shared_addresses.into_iter().map(|(_, users)| users))
        .max()
        .unwrap_or_default()
}

/// The page while it is written.
#[derive(Default)]
struct MetricsPage(String);

impl MetricsPage {
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{PREFIX}{name}{labels} {value}");
        }
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, u64)>,
    ) {
        self.family(name, "counter", help, samples.into_iter().map(|(l, n)| (l, n as f64)));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help, [(String::new(), value)]);
    }

    fn process(&mut self, snapshot: &Snapshot) {
        let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
        let help = "The version of the running program; always 1.";
        self.family("build_info", "gauge", help, [(version, 1.0)]);
        let help = "When the daemon was started, in seconds since 1970.";
        self.gauge("start_time_seconds", help, seconds(snapshot.started));
        let help = "Log lines that were dropped because they were not read in time.";
        let lost = snapshot.log_lines_lost;
        self.counter("log_lines_lost_total", help, [(String::new(), lost)]);
    }

    fn frames(&mut self, snapshot: &Snapshot) {
        let listeners = &snapshot.listeners;
        let frames = listeners.iter().map(|l| (labels(&[("listener", &l.name)]), l.frames));
        self.counter("frames_total", "Frames that were processed.", frames);
        let dropped = listeners.iter().flat_map(|l| {
            let reasons =
                [("kernel", l.kernel_drops), ("oversized", l.oversized), ("sender", l.rejected)];
            reasons.map(|(reason, n)| (labels(&[("listener", &l.name), ("reason", reason)]), n))
        });
        let help = "Frames that were not processed: dropped by the kernel because the receive buffer \
                    was full, oversized, or of a sender that allow-from or allow-uid does not name.";
        self.counter("frames_dropped_total", help, dropped);
        let stats = &snapshot.stats;
        let ignored = [
            ("malformed", stats.malformed),
            ("other_program", stats.other_programs),
            ("other_host", stats.other_hosts),
            ("excluded", stats.excluded),
            ("blocked", stats.blocked),
            ("rule", stats.refused_by_rule),
            ("refused", stats.refused),
            ("overloaded", stats.overloaded),
            ("late", stats.late),
            ("ambiguous", stats.ambiguous),
        ];
        let ignored = ignored.map(|(reason, n)| (labels(&[("reason", reason)]), n));
        let help = "Frames that were processed and authorised nobody: not a syslog message, of \
                    another program or host, a login from an excluded or blocked address, or of a \
                    user whom a rule or `users` refuses, or a login that is refused, late, ambiguous, \
                    or without room in the tables.";
        self.counter("frames_ignored_total", help, ignored);
    }

    fn daemons(&mut self, snapshot: &Snapshot) {
        // Also those that have not logged anything yet.
        let silent = DaemonStats::default();
        let in_force = snapshot.daemons.iter().map(|name| (name, &silent));
        let daemons: BTreeMap<_, _> = in_force.chain(&snapshot.stats.daemons).collect();
        let each = |value: fn(&DaemonStats, Time) -> f64| {
            daemons.iter().map(move |(name, daemon)| {
                (labels(&[("daemon", name)]), value(daemon, snapshot.now))
            })
        };
        let help = "Complete logins, without those that may not authorise.";
        self.family("logins_total", "counter", help, each(|d, _| d.logins as f64));
        let help = "Messages of the mail daemon's programs that match no pattern.";
        self.family("unmatched_total", "counter", help, each(|d, _| d.unmatched as f64));
        let help =
            "When the last login was seen, in seconds since 1970; 0 if none since the start.";
        let last = each(|d, _| d.last_login.map_or(0.0, seconds));
        self.family("last_login_timestamp_seconds", "gauge", help, last);
        let help = "1 if the mail daemon still logs but its logins have stopped: an upgrade may have \
                    changed its messages.";
        let stopped = each(|d, now| f64::from(u8::from(d.has_stopped(now))));
        self.family("logins_stopped", "gauge", help, stopped);
    }

    fn clients(&mut self, snapshot: &Snapshot, most_users: usize) {
        self.gauge("clients", "Addresses that are authorised.", snapshot.clients as f64);
        let help = "Maximum number of authorised addresses.";
        self.gauge("max_clients", help, snapshot.max_clients as f64);
        let help = "Authorised addresses that are left out of the map because their keys would \
                    admit other hosts.";
        self.gauge("unpublished_clients", help, snapshot.kept_out as f64);
        let help = "Addresses that are not authorised because too many users share them.";
        self.gauge("shared_addresses", help, snapshot.shared.len() as f64);
        let help = "Highest number of users of one address whose logins still count; 64 means 64 or \
                    more.";
        self.gauge("most_users_of_an_address", help, most_users as f64);
        let stats = &snapshot.stats;
        let events = [
            ("granted", stats.granted),
            ("expired", stats.expired),
            ("evicted", stats.evicted),
            ("shared", stats.shared),
        ];
        let help = "Addresses that became authorised (granted), and that ceased to be: their grant \
                    expired, was evicted, or too many users shared the address.";
        let events = events.map(|(event, n)| (labels(&[("event", event)]), n));
        self.counter("grant_events_total", help, events);
    }

    fn lookups(&mut self, lookups: &[LookupStatus]) {
        let socket =
            |l: &LookupStatus| labels(&[("service", &l.protocol), ("listener", &l.address)]);
        let answers = lookups.iter().flat_map(|l| {
            let unknown = l.requests.saturating_sub(l.admitted + l.rejected);
            let answers =
                [("admitted", l.admitted), ("rejected", l.rejected), ("unknown", unknown)];
            answers.map(|(answer, n)| {
                let pairs =
                    [("service", &*l.protocol), ("listener", &*l.address), ("answer", answer)];
                (labels(&pairs), n)
            })
        });
        self.counter("lookups_total", "Requests of Postfix, by answer.", answers);
        let open = lookups.iter().map(|l| (socket(l), l.connections as f64));
        self.family("lookup_connections", "gauge", "Open connections of Postfix.", open);
        let help = "Connections of Postfix that were closed for malformed input or a timeout.";
        let broken = lookups.iter().map(|l| (socket(l), l.broken));
        self.counter("lookup_connections_broken_total", help, broken);
        let help = "Idle connections of Postfix that were closed to make room for others.";
        let evicted = lookups.iter().map(|l| (socket(l), l.evicted));
        self.counter("lookup_connections_evicted_total", help, evicted);
    }

    fn relay(&mut self, relay: &RelayStatus) {
        let help = "Messages that were relayed, as far as Postfix asked by the policy protocol.";
        self.counter("relayed_messages_total", help, [(String::new(), relay.messages)]);
        let help = "Recipients of these messages.";
        self.counter("relayed_recipients_total", help, [(String::new(), relay.recipients)]);
        let limited = [
            ("messages", relay.beyond_messages),
            ("recipients", relay.beyond_recipients),
            ("clients", relay.too_many_clients),
        ];
        let limited = limited.map(|(limit, n)| (labels(&[("limit", limit)]), n));
        let help = "Recipients that were refused because of limits: of messages or recipients, or \
                    because more clients relay than are counted.";
        self.counter("limited_recipients_total", help, limited);
    }

    fn map(&mut self, publication: &Publication) {
        let history = publication.history();
        let help = "Generations of the map that were published.";
        self.counter("publications_total", help, [(String::new(), history.published)]);
        let help = "Attempts to publish the map that failed.";
        self.counter("publication_failures_total", help, [(String::new(), history.failed)]);
        let help = "When the map was last published, in seconds since 1970; 0 if never.";
        let last = history.last.map_or(0.0, seconds);
        self.gauge("last_publication_timestamp_seconds", help, last);
        let help = "How long the last publication took.";
        self.gauge("publication_duration_seconds", help, history.took.as_secs_f64());
        let help = "The generation of the map that is published.";
        self.gauge("map_generation_published", help, publication.published_generation() as f64);
        let help = "The generation of the map that lists who is authorised now.";
        self.gauge("map_generation_desired", help, publication.desired() as f64);
        let flag = |is_so: bool| f64::from(u8::from(is_so));
        let help = "1 while the map is emptied because it could not be published for a minute.";
        self.gauge("map_emptied", help, flag(publication.is_emptied()));
        let help = "1 while the map lists expired clients and cannot be emptied.";
        self.gauge("map_stuck", help, flag(publication.is_stuck()));
    }

    fn state(&mut self, snapshot: &Snapshot) {
        let help =
            "1 while the state file cannot be written: a crash would lose the latest logins.";
        self.gauge("state_unsaved", help, f64::from(u8::from(snapshot.state_fault.is_some())));
    }

    /// Without a cluster there are no samples.
    fn cluster(&mut self, cluster: Option<&ClusterStatus>) {
        let mut each = |name: &str, help: &str, value: fn(&ClusterStatus) -> f64| {
            let sample = cluster.map(|cluster| (String::new(), value(cluster)));
            self.family(&format!("cluster_{name}"), "gauge", help, sample);
        };
        let help = "1 while this host is connected to the cluster's store.";
        each("connected", help, |cluster| f64::from(u8::from(cluster.connected)));
        let help = "For how long the cluster's store has been away; 0 while it is there.";
        each("store_away_seconds", help, |cluster| cluster.away_seconds.unwrap_or_default());
        let help = "How long it takes until this host reads what it has told the others.";
        let lag = |cluster: &ClusterStatus| cluster.lag_ms.unwrap_or_default() as f64 / 1000.0;
        each("lag_seconds", help, lag);
        let help = "Changes that the other hosts have not been told of.";
        each("untold_changes", help, |cluster| cluster.untold as f64);
        let help = "Other hosts of the cluster that were heard of within a day.";
        each("hosts", help, |cluster| cluster.hosts.len() as f64);
        let help = "Other hosts of the cluster that have been silent for more than five seconds.";
        each("hosts_silent", help, |cluster| {
            cluster.hosts.iter().filter(|host| host.silent).count() as f64
        });
        let help = "1 while another daemon of the cluster uses this host's name.";
        each("same_name", help, |cluster| f64::from(u8::from(cluster.same_name)));
        let entries = cluster.into_iter().flat_map(|it| {
            [("told", it.told), ("heard", it.heard), ("refused", it.refused)]
                .map(|(result, n)| (labels(&[("result", result)]), n))
        });
        let help = "Entries of the cluster's stream: told by this host, those of others that have \
                    changed something here (heard), and those that are none or not believed \
                    (refused).";
        self.counter("cluster_entries_total", help, entries);
    }
}

/// Formats the labels of one sample.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, v)| format!("{name}=\"{}\"", escaped(v))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn seconds(time: Time) -> f64 {
    time.as_millis() as f64 / 1000.0
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = MetricsPage::default();
        page.counter("x_total", "An x.", [(labels(&[("a", "b\"c\\d\ne"), ("f", "")]), 7)]);
        let expected = "# HELP pop_before_smtp_x_total An x.\n# TYPE pop_before_smtp_x_total counter\n\
                        pop_before_smtp_x_total{a=\"b\\\"c\\\\d\\ne\",f=\"\"} 7\n";
        assert_eq!(page.0, expected);
    }
}
