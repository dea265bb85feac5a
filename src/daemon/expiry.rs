//! The loop that takes out what has ended, and says so.
//!
//! Promise  it waits for nothing but the next moment at which a right ends. Each address that is no
//!          longer authorised has its line, but for those that had to make room: a flood of logins
//!          would have a line for each, so their number is said, limiter.
//! Not here the map, which follows by itself.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::shared::Shared;
use crate::control::status::STOPPED;
use crate::engine::{RemovalReason, Removed};
use crate::sys::log_limit::LogLimiter;

/// It looks around at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Goes on until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let removals = RemovalLog::default();
    loop {
        let (removed, stopped) =
            shared.with(|engine, now| (engine.tick(now), engine.stopped_daemons(now)));
        removals.log(&removed);
        for daemon in stopped {
            warn!(%daemon, "no login for long, although it goes on to log; {STOPPED}");
        }
        let nap = shared.with(|engine, now| engine.sweep_at().map(|at| at.since(now)));
        tokio::select! {
            () = tokio::time::sleep(nap.unwrap_or(HEARTBEAT).min(HEARTBEAT)) => {}
            () = shared.sweep_moved() => {}
        }
    }
}

/// What has been said lately.
#[derive(Debug, Default)]
struct RemovalLog {
    evictions: LogLimiter,
}

impl RemovalLog {
    /// Says who has left. To be called now and then even if nobody has: what was held back may be
    /// due.
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
            warn!(
                evicted,
                "max-clients is reached: the addresses that would have ended first made room"
            );
        }
    }
}
