//! The counters as Prometheus reads them, and whether all is well.
//!
//! Promise  text format 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats>): each
//!          name once with HELP and TYPE. Labels are few and of few values: mail daemons,
//!          listeners, verdicts; never a client, never a user.
//! Layers   `http` is the door; here what is said after it.

pub mod bind;
pub mod http;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::shared::Shared;
use super::status::Describe;
use crate::control::status::{StateFault, Status};
use crate::engine::Engine;
use crate::engine::maildaemons::Name;
use crate::engine::publication::Publication;
use crate::engine::stats::{DaemonStats, Stats};
use crate::engine::time::Time;

/// What all names begin with.
const PREFIX: &str = "pop_before_smtp_";
/// A map that cannot be published for so long needs a person: six attempts have failed.
const MAX_FAILING: Duration = Duration::from_secs(60);

/// The labels of one sample.
type Labels<'l> = &'l [(&'l str, &'l str)];

/// All metrics.
pub fn text(describe: &Describe, shared: &Shared) -> String {
    let status = describe.status(shared);
    let (stats, publication) =
        shared.with(|engine, _| (engine.stats().clone(), *engine.publication()));
    let mut page = MetricsPage::default();
    page.process(describe, &status);
    page.frames(&status, &stats);
    page.daemons(&daemons(shared), shared.with(|_, now| now));
    page.clients(&status, &stats, most_users(shared));
    page.lookups(&status);
    page.map(&publication);
    page.state(&status);
    page.0
}

/// What keeps the daemon from doing its work, if something does.
///
/// # Errors
/// A sentence that says it.
pub fn health(describe: &Describe, shared: &Shared) -> Result<(), String> {
    let now = shared.with(|engine, now| published(engine.publication(), now).map(|()| now))?;
    match describe.state_fault(now) {
        Some(StateFault { seconds, error }) => Err(format!(
            "the state could not be saved for {seconds:.0} s: {error}; logins count all the same, but \
             a crash would forget the latest"
        )),
        None => Ok(()),
    }
}

fn published(publication: &Publication, now: Time) -> Result<(), String> {
    let trying = publication.trying_since().map(|since| now.since(since));
    let limit = MAX_FAILING.max(2 * publication.history().took);
    match trying {
        _ if publication.is_stuck() => Err(
            "the map lists clients whose time is up, and could not be emptied; the log says why"
                .into(),
        ),
        Some(time) if time >= limit => Err(format!(
            "the map could not be published for {} s; {}, the log says why",
            time.as_secs(),
            if publication.is_emptied() { "it lists nobody now" } else { "the old one stays" }
        )),
        _ if publication.published_generation() == 0 => Err("no map has been published yet".into()),
        _ => Ok(()),
    }
}

/// Those that are believed and those that have been heard.
fn daemons(shared: &Shared) -> BTreeMap<Name, DaemonStats> {
    shared.with(|engine, _| {
        let believed = engine.rules().table.daemons().iter();
        let believed = believed.map(|daemon| (daemon.name.clone(), DaemonStats::default()));
        let heard = engine.stats().daemons.iter();
        believed.chain(heard.map(|(name, stats)| (name.clone(), stats.clone()))).collect()
    })
}

/// The most users of one address, authorised or not.
fn most_users(shared: &Shared) -> usize {
    let slices = shared.slices(|engine: &Engine, now, after| {
        engine.list(now, after, |grant| grant.user_count(now))
    });
    let shared_addresses = shared.with(|engine, now| engine.shared(now));
    slices
        .flatten()
        .chain(shared_addresses.into_iter().map(|(_, users)| users))
        .max()
        .unwrap_or_default()
}

/// The text while it is written.
#[derive(Default)]
struct MetricsPage(String);

impl MetricsPage {
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[(Labels<'_>, f64)]) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
        for (labels, value) in samples {
            let pair = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
            let labels: Vec<String> = labels.iter().map(pair).collect();
            let labels =
                if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{PREFIX}{name}{labels} {value}");
        }
    }

    fn counter(&mut self, name: &str, help: &str, samples: &[(Labels<'_>, u64)]) {
        let samples: Vec<_> = samples.iter().map(|(labels, n)| (*labels, *n as f64)).collect();
        self.family(name, "counter", help, &samples);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help, &[(&[], value)]);
    }

    fn process(&mut self, describe: &Describe, status: &Status) {
        let version = [("version", status.version.as_str())];
        let help = "The program that runs; always 1.";
        self.family("build_info", "gauge", help, &[(&version, 1.0)]);
        let help = "When the daemon was started, in seconds since 1970.";
        self.gauge("start_time_seconds", help, seconds(describe.started));
        let help = "Lines of the log that were dropped because nobody read them in time.";
        self.counter("log_lines_lost_total", help, &[(&[], status.log_lines_lost)]);
    }

    fn frames(&mut self, status: &Status, stats: &Stats) {
        let named: Vec<_> =
            status.listeners.iter().map(|l| ([("listener", &*l.name)], l)).collect();
        let frames: Vec<_> = named.iter().map(|(name, l)| (&name[..], l.frames)).collect();
        self.counter("frames_total", "Frames that were heard.", &frames);
        let dropped: Vec<_> = status
            .listeners
            .iter()
            .flat_map(|l| {
                let reasons = [
                    ("kernel", l.kernel_drops),
                    ("oversized", l.oversized),
                    ("sender", l.rejected),
                ];
                reasons.map(|(reason, n)| ([("listener", &*l.name), ("reason", reason)], n))
            })
            .collect();
        let dropped: Vec<_> = dropped.iter().map(|(labels, n)| (&labels[..], *n)).collect();
        let help = "Frames that were not heard: lost in the kernel because the daemon was too slow, \
                    larger than any frame, or of a sender that allow-from does not name.";
        self.counter("frames_dropped_total", help, &dropped);
        let help = "Frames that were heard and did not count: no syslog message, of another \
                    program, a login from an excluded or blocked address, a login that is not \
                    believed, late, of nobody knows which connection, or one for which there was no \
                    room.";
        self.counter(
            "frames_ignored_total",
            help,
            &[
                (&[("reason", "malformed")], stats.malformed),
                (&[("reason", "other_program")], stats.other_programs),
                (&[("reason", "other_host")], stats.other_hosts),
                (&[("reason", "excluded")], stats.excluded),
                (&[("reason", "blocked")], stats.blocked),
                (&[("reason", "refused")], stats.refused),
                (&[("reason", "overloaded")], stats.overloaded),
                (&[("reason", "late")], stats.late),
                (&[("reason", "ambiguous")], stats.ambiguous),
            ],
        );
    }

    fn daemons(&mut self, daemons: &BTreeMap<Name, DaemonStats>, now: Time) {
        let named: Vec<_> = daemons.iter().map(|(name, d)| ([("daemon", &**name)], d)).collect();
        let each = |value: &dyn Fn(&DaemonStats) -> f64| -> Vec<(Labels<'_>, f64)> {
            named.iter().map(|(name, daemon)| (&name[..], value(daemon))).collect()
        };
        let help = "Complete logins, excluded ones not counted.";
        self.family("logins_total", "counter", help, &each(&|d| d.logins as f64));
        let help = "Messages of the mail daemon's programs that no pattern fits.";
        self.family("unmatched_total", "counter", help, &each(&|d| d.unmatched as f64));
        let help =
            "When the last login was heard, in seconds since 1970; 0 if none since the start.";
        let last = each(&|d| d.last_login.map_or(0.0, seconds));
        self.family("last_login_timestamp_seconds", "gauge", help, &last);
        let help = "1 if the mail daemon goes on to log and its logins have stopped: an upgrade may \
                    have changed its wording.";
        let stopped = each(&|d| f64::from(u8::from(d.has_stopped(now))));
        self.family("logins_stopped", "gauge", help, &stopped);
    }

    fn clients(&mut self, status: &Status, stats: &Stats, most_users: usize) {
        self.gauge("clients", "Addresses that are authorised.", status.clients as f64);
        self.gauge("max_clients", "Most addresses that are held.", status.max_clients as f64);
        let help = "Authorised addresses that are kept out of the map because their keys would \
                    admit others.";
        self.gauge("unpublished_clients", help, status.map.kept_out as f64);
        let help = "Addresses that are not authorised because too many users share them.";
        self.gauge("shared_addresses", help, status.shared.len() as f64);
        let help = "Most users of one address whose logins still count; 64 stands for more.";
        self.gauge("most_users_of_an_address", help, most_users as f64);
        self.counter(
            "grant_events_total",
            "Addresses that came to be authorised, and those that ceased to be: their time was up, \
             they made room for others, or too many users shared them.",
            &[
                (&[("event", "granted")], stats.granted),
                (&[("event", "expired")], stats.expired),
                (&[("event", "evicted")], stats.evicted),
                (&[("event", "shared")], stats.shared),
            ],
        );
    }

    fn lookups(&mut self, status: &Status) {
        let split = |name: &'_ str| {
            let (service, listener) = name.split_once(' ').unwrap_or((name, ""));
            (service.to_owned(), listener.to_owned())
        };
        let named: Vec<_> = status.lookups.iter().map(|l| (split(&l.name), l)).collect();
        let answers: Vec<_> = named
            .iter()
            .flat_map(|((service, listener), l)| {
                let unknown = l.requests.saturating_sub(l.admitted + l.rejected);
                let answers =
                    [("admitted", l.admitted), ("rejected", l.rejected), ("unknown", unknown)];
                let labels = [("service", &**service), ("listener", &**listener)];
                answers.map(|(answer, n)| ([labels[0], labels[1], ("answer", answer)], n))
            })
            .collect();
        let answers: Vec<_> = answers.iter().map(|(labels, n)| (&labels[..], *n)).collect();
        self.counter("lookups_total", "Requests of Postfix, by what it was told.", &answers);
        let labels: Vec<_> = named
            .iter()
            .map(|((s, l), lookup)| ([("service", &**s), ("listener", &**l)], *lookup))
            .collect();
        let open: Vec<_> = labels.iter().map(|(l, it)| (&l[..], it.connections as f64)).collect();
        self.family("lookup_connections", "gauge", "Connections of Postfix that are open.", &open);
        let broken: Vec<_> = labels.iter().map(|(l, it)| (&l[..], it.broken)).collect();
        let help = "Connections of Postfix that were closed because of what came over them, or \
                    because nothing did.";
        self.counter("lookup_connections_broken_total", help, &broken);
        let evicted: Vec<_> = labels.iter().map(|(l, it)| (&l[..], it.evicted)).collect();
        let help = "Connections of Postfix that were idle and made room for others.";
        self.counter("lookup_connections_evicted_total", help, &evicted);
    }

    fn map(&mut self, publication: &Publication) {
        let history = publication.history();
        let help = "Generations of the map that were published.";
        self.counter("publications_total", help, &[(&[], history.published)]);
        let help = "Attempts to publish the map that failed.";
        self.counter("publication_failures_total", help, &[(&[], history.failed)]);
        let help = "When the map was last published, in seconds since 1970; 0 if never.";
        let last = history.last.map_or(0.0, seconds);
        self.gauge("last_publication_timestamp_seconds", help, last);
        let help = "How long the last publication took.";
        self.gauge("publication_duration_seconds", help, history.took.as_secs_f64());
        let help = "The generation of the map that is published.";
        self.gauge("map_generation_published", help, publication.published_generation() as f64);
        let help = "The generation of the map that says who is authorised now.";
        self.gauge("map_generation_desired", help, publication.desired() as f64);
        let flag = |is_so: bool| f64::from(u8::from(is_so));
        let help = "1 while the map lists nobody, because it could not be published for long.";
        self.gauge("map_emptied", help, flag(publication.is_emptied()));
        let help = "1 while the map lists clients whose time is up and cannot be emptied.";
        self.gauge("map_stuck", help, flag(publication.is_stuck()));
    }

    fn state(&mut self, status: &Status) {
        let help =
            "1 while the state file cannot be written: a crash would forget the latest logins.";
        self.gauge("state_unsaved", help, f64::from(u8::from(status.state_fault.is_some())));
    }
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

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn health_is_a_map_that_can_be_published() {
        let mut publication = Publication::unknown();
        assert!(published(&publication, at(0)).is_err_and(|why| why.contains("yet")));
        publication.published(1, at(1), Duration::ZERO);
        assert_eq!(published(&publication, at(9)), Ok(()));
        publication.failed(at(10));
        publication.failed(at(50));
        assert_eq!(published(&publication, at(69)), Ok(()), "it may heal by itself");
        assert!(published(&publication, at(70)).is_err_and(|why| why.contains("60 s")));
        publication.published(1, at(71), Duration::ZERO);
        assert_eq!(published(&publication, at(1000)), Ok(()));
    }

    #[test]
    fn odd_values_are_escaped() {
        let mut page = MetricsPage::default();
        page.counter("x_total", "An x.", &[(&[("a", "b\"c\\d\ne"), ("f", "")], 7)]);
        let expected = "# HELP pop_before_smtp_x_total An x.\n# TYPE pop_before_smtp_x_total counter\n\
                        pop_before_smtp_x_total{a=\"b\\\"c\\\\d\\ne\",f=\"\"} 7\n";
        assert_eq!(page.0, expected);
    }
}
