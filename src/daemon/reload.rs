//! What is read again while the daemon runs: the configuration, and the host's own addresses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{info, warn};

use super::shared::Shared;
use crate::config::Config;
use crate::error::Failures;
use crate::rules;
use crate::rules::Exclusions;

/// How often the host's own addresses and gateways are read.
const HOST_INTERVAL: Duration = Duration::from_secs(60);

/// Replaces the rules by new ones, or leaves them unchanged on failure.
pub(super) async fn reload(
    shared: &Shared,
    current: &Mutex<Exclusions>,
    started_with: &Config,
    read: &impl Fn() -> Result<Config, Failures>,
) -> Result<(), Failures> {
    let config = read()?;
    let (rules, exclusions) = rules::build(&config).await?;
    let fixed = started_with.layer.restart_differences(&config.layer);
    if !fixed.is_empty() {
        warn!("only a restart changes these options: {}", fixed.join(", "));
    }
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    // First, or `watch_host` might apply the old exclusions again after the reload.
    *current.lock().unwrap_or_else(|p| p.into_inner()) = exclusions;
    shared.with(|engine, now| engine.reload(now, rules));
    Ok(())
}

/// Updates the exclusions when addresses or gateways of the host change.
pub(super) async fn watch_host(shared: Arc<Shared>, exclusions: Arc<Mutex<Exclusions>>) {
    loop {
        tokio::time::sleep(HOST_INTERVAL).await;
        let now = exclusions.lock().unwrap_or_else(|p| p.into_inner()).now();
        match now {
            Ok(exclude) => shared.with(|engine, now| {
                if engine.rules().exclude != exclude {
                    info!("the addresses or gateways of this host have changed");
                    engine.exclude(now, exclude);
                }
            }),
            Err(error) => {
                warn!(%error, "cannot read this host's addresses; the previous ones stay excluded")
            }
        }
    }
}
