//! The slow loop: take out what has ended, publish the map, sleep until the next moment that
//! matters.
//!
//! Promise  one publication at a time, in full. A failure leaves the old map and is retried after
//!          a growing pause.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::engine::Gone;
use crate::engine::map::Edition;
use crate::postfix::postmap::MapTarget;
use crate::shared::Shared;

/// The loop looks around at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// What to do about a mail daemon whose logins have stopped.
pub const STOPPED: &str = "has an upgrade changed the wording of its log? feed such a line to \
                           `pop-before-smtp test`";

/// Where editions go.
#[derive(Debug)]
pub enum Outlet {
    /// A map that Postfix reads.
    Map(MapTarget),
    /// Only said: the command that would be run.
    Said(Option<String>),
}

/// The publisher's tools.
#[derive(Debug)]
pub struct Publisher {
    /// The door to the engine.
    pub shared: Arc<Shared>,
    /// Where editions go.
    pub outlet: Outlet,
}

impl Publisher {
    /// Publishes for the first time. Whether it went well; if not, the cause has been said.
    pub async fn first(&mut self) -> bool {
        let edition = self.turn().await;
        match edition {
            Some(edition) => self.publish(&edition).await,
            None => true,
        }
    }

    /// Goes on until the task is dropped.
    pub async fn run(&mut self) {
        loop {
            if let Some(edition) = self.turn().await {
                self.publish(&edition).await;
            }
            let nap = self.shared.with(|engine, now| engine.wake_at().map(|at| at.since(now)));
            tokio::select! {
                () = tokio::time::sleep(nap.unwrap_or(HEARTBEAT).min(HEARTBEAT)) => {}
                () = self.shared.plans_changed() => {}
            }
        }
    }

    /// Publishes a map without any entry: nobody will take an address out while the daemon is
    /// away. Whether it went well; if not, the cause has been said.
    pub async fn farewell(&mut self) -> bool {
        let edition = self.shared.with(|engine, _| engine.farewell());
        self.publish(&edition).await
    }

    async fn turn(&self) -> Option<Edition> {
        let (gone, stopped, number) = self
            .shared
            .with(|engine, now| (engine.tick(now), engine.stopped_daemons(now), engine.due(now)));
        say(&gone);
        for daemon in stopped {
            warn!(%daemon, "no login for long, although it goes on to log; {STOPPED}");
        }
        let (number, shared) = (number?, Arc::clone(&self.shared));
        let listed = spawn_blocking(move || {
            let slices = shared.slices(|engine, now, behind| engine.listed(now, behind));
            slices.flatten().collect()
        });
        match listed.await {
            Ok(addresses) => Some(Edition { number, addresses }),
            Err(lost) => {
                error!("the map could not be put together: {lost}");
                None
            }
        }
    }

    async fn publish(&mut self, edition: &Edition) -> bool {
        let outcome = match &mut self.outlet {
            Outlet::Map(map) => map.publish(edition).await,
            Outlet::Said(None) => Ok(()),
            Outlet::Said(Some(command)) => {
                let addresses: Vec<String> =
                    edition.addresses.iter().map(|a| a.to_string()).collect();
                info!(command, map = ?addresses, "dry run: would publish");
                Ok(())
            }
        };
        match outcome {
            Ok(()) => {
                self.shared.with(|engine, now| engine.published(edition.number, now));
                true
            }
            Err(failure) => {
                let pause = self.shared.with(|engine, now| engine.failed(now));
                error!(next_attempt_in = ?pause, "{failure}");
                false
            }
        }
    }
}

fn say(gone: &[Gone]) {
    for Gone { grant, why } in gone {
        let (logins, users) = (grant.logins, grant.users.len());
        info!(address = %grant.address, logins, users, "{}", why.as_str());
    }
}
