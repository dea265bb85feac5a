//! The slow loop: take out what has ended, publish the map, sleep until the next moment that
//! matters.
//!
//! Promise  one publication at a time, in full. A failure leaves the old map and is retried after
//!          a growing pause; if somebody whose right has ended stands in it for a minute, it is
//!          emptied. A map that somebody else has removed or changed is published again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::engine::map::Edition;
use crate::farewells::Farewells;
use crate::postfix::postmap::MapTarget;
use crate::shared::Shared;

/// The loop looks around at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// For the last map, which is empty: then there is the one that was laid up.
const LAST_BUILD: Duration = Duration::from_secs(10);

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
    /// What is said of addresses that have left.
    pub farewells: Farewells,
}

impl Publisher {
    /// Publishes for the first time. Whether it went well; if not, the cause has been said.
    pub async fn first(&mut self) -> bool {
        let edition = self.turn().await;
        let published = match edition {
            Some(edition) => self.publish(&edition).await,
            None => true,
        };
        if published
            && let Outlet::Map(map) = &self.outlet
            && let Err(failure) = map.lay_up_reserve().await
        {
            warn!("no empty map is laid up for the case that none can be built: {failure}");
        }
        published
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
            self.look_after_map().await;
        }
    }

    /// Publishes a map without any entry: nobody will take an address out while the daemon is
    /// away. Whether it went well; if not, the cause has been said.
    pub async fn farewell(&mut self) -> bool {
        let edition = self.shared.with(|engine, _| engine.farewell());
        timeout(LAST_BUILD, self.publish(&edition)).await.unwrap_or_default() || self.empty().await
    }

    /// Puts an empty map into place, laid up before. Whether it went well.
    async fn empty(&mut self) -> bool {
        let Outlet::Map(map) = &mut self.outlet else { return true };
        match map.empty().await {
            Ok(()) => {
                self.shared.with(|engine, _| engine.emptied());
                warn!(
                    "the map lists nobody now: it could not be published with those who may relay"
                );
                true
            }
            Err(error) => {
                error!(
                    %error,
                    "the map lists clients whose time is up, and could not be emptied; take it out \
                     of main.cf until it can be built"
                );
                false
            }
        }
    }

    /// A map that is no longer what was published has to be published again.
    async fn look_after_map(&self) {
        let Outlet::Map(map) = &self.outlet else { return };
        // An edition that is due makes it right in any case.
        if self.shared.with(|engine, _| engine.level().due().is_some()) {
            return;
        }
        if let Some(path) = map.disturbed().await {
            warn!(
                path = %path.display(),
                "somebody else has removed or changed a file of the map; it is published again"
            );
            self.shared.with(|engine, _| engine.publish_again());
        }
    }

    async fn turn(&self) -> Option<Edition> {
        let (gone, stopped, number) = self
            .shared
            .with(|engine, now| (engine.tick(now), engine.stopped_daemons(now), engine.due(now)));
        self.farewells.say(&gone);
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
                let (pause, overstays) = self
                    .shared
                    .with(|engine, now| (engine.failed(now), engine.level().overstays()));
                error!(next_attempt_in = ?pause, "{failure}");
                if overstays {
                    self.empty().await;
                }
                false
            }
        }
    }
}
