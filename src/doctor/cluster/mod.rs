//! Examines the exchange with other hosts: as the running daemon sees it, and the stores themselves.

#[cfg(feature = "cluster")]
mod stores;

use super::findings::Report;
use crate::config::cluster::ClusterOptions;
use crate::config::layer::Layer;
use crate::control::status::{ClusterStatus, Status};
use crate::error::Failures;

/// Milliseconds after which what was told should long have been read.
const SLOW: u64 = 2000;

/// Reports what is wrong with the exchange, if the configuration has one.
pub async fn examine(layer: &Layer, status: Option<&Status>, report: &mut Report) {
    // Faults are reported with the configuration.
    let Some(config) = ClusterOptions::from_layer(layer, &mut Failures::new()) else { return };
    match status.map(|status| &status.cluster) {
        Some(Some(cluster)) => running(cluster, report),
        Some(None) => report.problem(
            "the configuration has a cluster, but the running daemon does not",
            "It was started with another configuration, or it is in dry-run mode.",
            "restart the daemon",
        ),
        None => {}
    }
    #[cfg(feature = "cluster")]
    stores::examine(&config, report).await;
    // That this program lacks it is reported with the configuration.
    #[cfg(not(feature = "cluster"))]
    let _ = config;
}

fn running(cluster: &ClusterStatus, report: &mut Report) {
    let hosts = cluster.hosts.len();
    let error = cluster.error.as_deref().unwrap_or_default();
    match (cluster.away_seconds, error) {
        (Some(seconds), error) => report.problem(
            format!("the cluster's store has been away for {seconds:.0} s: {error}"),
            "This host goes on by itself: clients that it knows may relay, but it does not hear of \
             logins and revocations elsewhere, and the others do not hear of its own.",
            "start the store, or correct what is found about it; the daemon tries again every second",
        ),
        (None, "") => report.ok(format!(
            "this host is {} in the cluster {}, connected to {}; other hosts: {hosts}",
            cluster.host,
            cluster.name,
            cluster.store.as_deref().unwrap_or_default()
        )),
        (None, error) => report.problem(
            format!("the cluster's store refuses what this host tells: {error}"),
            "The other hosts do not hear of its logins and revocations.",
            "see what is found about the store; deploy/cluster has a configuration that suffices",
        ),
    }
    if cluster.same_name {
        report.problem(
            format!("another host of the cluster is called {} too", cluster.host),
            "Each takes the other's logins for its own, and clients may be missing.",
            "set cluster-host to another name on one of the two, and restart its daemon",
        );
    }
    if cluster.away_seconds.is_none() {
        others(cluster, report);
    }
    if cluster.refused > 0 {
        report.note(
            format!("{} entries of the cluster's stream are none, or not believed", cluster.refused),
            "They have no effect. Another version of this program has written them, or something else.",
            "let all hosts run the same version, and nothing else write the stream (ACL)",
        );
    }
}

/// What the daemon can know only while it is connected.
fn others(cluster: &ClusterStatus, report: &mut Report) {
    let silent: Vec<_> = cluster.hosts.iter().filter(|host| host.silent).collect();
    if !silent.is_empty() {
        let names: Vec<_> = silent
            .iter()
            .map(|host| format!("{} (last heard of at {})", host.name, host.last_seen))
            .collect();
        report.note(
            format!("these hosts of the cluster are silent: {}", names.join(", ")),
            "They are down or do not reach the store, and do not hear of logins and revocations here.",
            "run `pop-before-smtp doctor` there; a host that was removed is forgotten after a day",
        );
    }
    if cluster.hosts.is_empty() {
        report.note(
            format!("no other host of the cluster {} has been heard of", cluster.name),
            "The others are down, use another store, or have another cluster-name.",
            "start the daemon there with the same cluster and cluster-name",
        );
    }
    if cluster.untold > 0 && cluster.error.is_none() {
        report.note(
            format!("the other hosts have not been told of {} changes", cluster.untold),
            "They are told as fast as the store takes them.",
            "run doctor again: if the number does not fall, the store is too slow",
        );
    }
    if let Some(lag) = cluster.lag_ms.filter(|lag| *lag > SLOW) {
        report.note(
            format!("the cluster is {lag} ms behind"),
            "So long it takes until other hosts know of a login or a revocation.",
            "see whether the store or this host is overloaded",
        );
    }
}
