//! The loop that removes expired grants and logs removals.
//!
//! - **Promise**: it sleeps until the next grant expires. Each address that is no longer authorised
//!   is logged, except evicted ones: a flood of logins would log a line for each, so only their
//!   number is logged, at a limited rate.
//! - **Not here**: the map, which [`super::publisher`] updates.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::shared::Shared;
use crate::control::status::STOPPED;
use crate::engine::{RemovalReason, Removed};
use crate::sys::log_limit::LogLimiter;

/// Longest sleep.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let removals = RemovalLog::default();
    loop {
        let (removed, stopped) =
            shared.with(|engine, now| (engine.tick(now), engine.stopped_daemons(now)));
        removals.log(&removed);
        for daemon in stopped {
            warn!(%daemon, "no login for a long time, although it still logs; {STOPPED}");
        }
        let nap = shared.with(|engine, now| engine.sweep_at().map(|at| at.since(now)));
        tokio::select! {
            () = tokio::time::sleep(nap.unwrap_or(HEARTBEAT).min(HEARTBEAT)) => {}
            () = shared.sweep_moved() => {}
        }
    }
}

/// Logs removals, evictions at a limited rate.
#[derive(Debug, Default)]
struct RemovalLog {
    evictions: LogLimiter,
}

impl RemovalLog {
    /// Logs removals. Call it from time to time even without any: a number that was held back may
    /// be due.
    fn log(&self, removed: &[Removed]) {
        let mut evicted = 0;
        for Removed { grant, reason } in removed {
            let (address, logins, users) = (grant.address, grant.logins, grant.users.len());
            if *reason == RemovalReason::Evicted {
                evicted += 1;
                debug!(%address, logins, users, "{}", reason.as_str());
            } else {
                info!(%address, logins, users, "{}", reason.as_str());
            }
        }
        if let Some(evicted) = self.evictions.record(evicted) {
            warn!(evicted, "max-clients is reached: the addresses closest to expiry were evicted");
        }
    }
}
