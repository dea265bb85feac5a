//! What other commands do in the daemon's place: examine what it would refuse, empty its map.

use super::start::map_target;
use super::state_file;
use crate::config::layer::Layer;
use crate::config::lookups::SocketRole;
use crate::config::{Config, Matching};
use crate::engine::publication::Generation;
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::MapValue;
use crate::rules;
use crate::rules::sender_logins;
use crate::sys::lock::Lock;

/// Examines what `run` would refuse at the start, without starting anything, if systemd passes
/// sockets for these roles. What should be known but keeps nothing from running is returned.
/// Sockets are not touched, and the state file is only looked at.
///
/// # Errors
/// Every fault.
pub async fn examine(layer: &Layer, passed: &[SocketRole]) -> Result<Vec<String>, Failures> {
    let config = Config::of(layer, passed);
    let matching = Matching::of(layer);
    let (learned, table) = match &config {
        Ok(config) => (rules::build(config).await.map(|(_, exclusions)| exclusions), Ok(None)),
        Err(_) => (
            rules::learn(&matching).await.map(|(_, _, exclusions)| exclusions),
            layer.sender_table.as_deref().map(sender_logins::read_file).transpose(),
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
    // A table that cannot be had is among the faults of what was learned.
    let proofs = rules::load(&matching).map_or(Ok(Vec::new()), |table| rules::prove(&table));
    match (config, learned, proofs, table, target, state) {
        (Ok(_), Ok(exclusions), Ok(mut remarks), Ok(_), Ok(target), Ok(())) => {
            remarks.extend(exclusions.remarks);
            let remark = target.and_then(|target| target.remark().map(str::to_owned));
            // The state file is often beside the map.
            if let Some(remark) = remark.filter(|remark| !remarks.contains(remark)) {
                remarks.push(remark);
            }
            Ok(remarks)
        }
        (config, learned, proofs, table, target, state) => {
            let mut faults = config.err().unwrap_or_default();
            faults.extend(learned.err().unwrap_or_default());
            faults.extend(proofs.err().unwrap_or_default());
            faults.extend([table.err(), target.err(), state.err()].into_iter().flatten());
            Err(faults)
        }
    }
}

/// Publishes an empty map in the place of a daemon that has ended, so that nobody may relay by what
/// it has left. The state file stays: the next start knows who may. The map, if there is one.
///
/// # Errors
/// A daemon runs, or the map cannot be published.
pub async fn wipe(layer: &Layer) -> Result<Option<String>, Failure> {
    let Some(map) = layer.map.as_ref().filter(|_| layer.dry_run != Some(true)) else {
        return Ok(None);
    };
    // The value stands in no entry. Faults in other options are no reason to leave the map.
    let mut target = map_target(map, MapValue::default(), &Matching::of(layer)).await?;
    let _lock = Lock::take(&map.path)?;
    let empty = Generation { number: 0, addresses: Vec::new() };
    if let Err(failure) = target.publish(&empty).await {
        // Where no map can be built, the daemon may have laid up an empty one.
        target.empty().await.map_err(|_| Failure::io(failure.to_string()))?;
    }
    Ok(Some(target.table()))
}
