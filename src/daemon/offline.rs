//! What other commands do without a running daemon: check what it would refuse, empty its map.

use std::path::Path;
use std::sync::Arc;

use super::cluster;
use super::installation;
use super::start::map_target;
use super::state_file;
use crate::config::layer::Layer;
use crate::config::lookups::SocketRole;
use crate::config::{Config, Matching};
use crate::engine::publication::Generation;
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::MapValue;
use crate::rules;
use crate::rules::{limits, sender_logins};
use crate::sys::lock::Lock;

/// Checks what `run` would refuse at the start if systemd passed sockets with these roles. Returns
/// warnings that do not prevent the start. Neither sockets nor the state file are changed.
///
/// # Errors
/// Everything that is wrong.
pub async fn examine(layer: &Layer, passed: &[SocketRole]) -> Result<Vec<String>, Failures> {
    let config = Config::from_layer(layer, passed).and_then(|config| {
        let of_unit = installation::paths_of_unit(Path::new("/"));
        let faults = installation::sockets_named_twice(&config, &of_unit);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    });
    let matching = Matching::from_layer(layer);
    let (exclusions, tables) = match &config {
        Ok(config) => (rules::build(config).await.map(|(_, exclusions)| exclusions), Vec::new()),
        Err(_) => (
            rules::determine(&matching).await.map(|(_, _, exclusions)| exclusions),
            faults_of_tables(layer),
        ),
    };
    // The value has been checked with the rest of the configuration.
    let target = match layer.map.as_ref().filter(|_| layer.dry_run != Some(true)) {
        Some(map) => map_target(map, MapValue::default(), &matching).await.map(Some),
        None => Ok(None),
    };
    let state = match &config {
        Ok(config) => config.state.as_deref().map_or(Ok(()), state_file::examine),
        Err(_) => layer.state.as_deref().map_or(Ok(()), state_file::examine),
    };
    let cluster = match &config {
        Ok(config) => config.cluster.as_ref().map_or(Ok(()), cluster::examine),
        Err(_) => Ok(()),
    };
    // A table that cannot be loaded is among the faults in `exclusions`.
    let proofs = rules::load(&matching).map_or(Ok(Vec::new()), |table| rules::prove(&table));
    match (config, exclusions, proofs, target, state, cluster) {
        (Ok(_), Ok(exclusions), Ok(mut remarks), Ok(target), Ok(()), Ok(())) => {
            remarks.extend(exclusions.remarks);
            let remark = target.and_then(|target| target.remark().map(str::to_owned));
            // The state file is often next to the map.
            if let Some(remark) = remark.filter(|remark| !remarks.contains(remark)) {
                remarks.push(remark);
            }
            Ok(remarks)
        }
        (config, exclusions, proofs, target, state, cluster) => {
            let mut faults = config.err().unwrap_or_default();
            faults.extend(exclusions.err().unwrap_or_default());
            faults.extend(proofs.err().unwrap_or_default());
            faults.extend(tables);
            faults.extend([target.err(), state.err(), cluster.err()].into_iter().flatten());
            Err(faults)
        }
    }
}

/// Returns what is wrong with the tables that a configuration names, if the rest of it is wrong too.
fn faults_of_tables(layer: &Layer) -> Vec<Failure> {
    let senders = layer.sender_table.as_deref().and_then(|it| sender_logins::read_file(it).err());
    let limits = layer.limits.as_deref().and_then(|it| limits::read_file(it).err());
    senders.into_iter().chain(limits).collect()
}

/// Publishes an empty map after a daemon has crashed, so that nobody can relay through the one it
/// left. The state file stays: the next start restores the grants. Returns the map's name, if the
/// configuration has a map.
///
/// # Errors
/// A daemon is running, or the map cannot be published.
pub async fn wipe(layer: &Layer) -> Result<Option<String>, Failure> {
    let Some(map) = layer.map.as_ref().filter(|_| layer.dry_run != Some(true)) else {
        return Ok(None);
    };
    // An empty map has no values. Errors in other options must not prevent the wipe.
    let mut target = map_target(map, MapValue::default(), &Matching::from_layer(layer)).await?;
    let _lock = Lock::take(&map.path)?;
    let empty = Arc::new(Generation::new(0, Vec::new()));
    if let Err(failure) = target.publish(&empty).await {
        // If no map can be built, the daemon may have prepared a fallback map.
        target.empty().await.map_err(|_| Failure::io(failure.to_string()))?;
    }
    Ok(Some(target.table()))
}
