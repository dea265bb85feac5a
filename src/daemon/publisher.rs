//! The slow loop: publish the map, sleep until the next moment that matters to it.
//!
//! Promise  one publication at a time, in full. A failure leaves the old map and is retried after
//!          a growing pause. If somebody whose right has ended stands in it for a minute, because
//!          postmap fails or does not end, it is emptied. A map that somebody else has removed or
//!          changed is published again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::engine::publication::Edition;
use crate::postfix::access_map::MapTarget;

/// The loop looks around at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// While one is built it looks whether somebody stands in the old one for too long.
const LOOK: Duration = Duration::from_secs(1);

/// For the last map, which is empty: then there is the one that was laid up.
const LAST_BUILD: Duration = Duration::from_secs(10);

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
        let published = match self.due().await {
            Some(edition) => self.publish(&edition).await,
            None => true,
        };
        if published {
            self.lay_up_reserve().await;
        }
        published
    }

    async fn lay_up_reserve(&self) {
        if let Outlet::Map(map) = &self.outlet
            && let Err(failure) = map.lay_up_reserve().await
        {
            warn!("no empty map is laid up for the case that none can be built: {failure}");
        }
    }

    /// Goes on until the task is dropped.
    pub async fn run(&mut self) {
        loop {
            if let Some(edition) = self.due().await
                && self.publish(&edition).await
            {
                // The one before may be in use.
                self.lay_up_reserve().await;
            }
            if self.shared.with(|engine, now| engine.level().empty_at().is_some_and(|at| at <= now))
            {
                self.lock_out().await;
            }
            let nap = self.shared.with(|engine, now| engine.publish_at().map(|at| at.since(now)));
            tokio::select! {
                () = tokio::time::sleep(nap.unwrap_or(HEARTBEAT).min(HEARTBEAT)) => {}
                () = self.shared.publication_moved() => {}
            }
            self.look_after_map().await;
        }
    }

    /// Publishes a map without any entry: nobody will take an address out while the daemon is
    /// away. Whether it went well; if not, the cause has been said.
    pub async fn farewell(&mut self) -> bool {
        let edition = self.shared.with(|engine, _| engine.farewell());
        if timeout(LAST_BUILD, self.publish(&edition)).await.unwrap_or_default() {
            return true;
        }
        let emptied = self.empty().await;
        match &emptied {
            Ok(()) => {
                warn!("the map lists nobody now: the empty one laid up beside it took its place")
            }
            Err(error) => {
                error!(%error, "the empty map laid up beside it could not take its place")
            }
        }
        emptied.is_ok()
    }

    /// Empties a map that cannot be published and lists somebody whose time is up.
    async fn lock_out(&mut self) {
        match self.empty().await {
            Ok(()) => error!(
                "the map lists nobody now: clients whose time is up stood in it, and it could not \
                 be published without them. Nobody can relay by it until it is"
            ),
            Err(error) => {
                self.shared.with(|engine, now| engine.not_emptied(now));
                error!(
                    %error,
                    "the map lists clients whose time is up, and could not be emptied; take it out \
                     of main.cf until it can be built"
                );
            }
        }
    }

    /// Puts an empty map into place, laid up before.
    async fn empty(&mut self) -> io::Result<()> {
        let Outlet::Map(map) = &mut self.outlet else { return Ok(()) };
        if self.shared.with(|engine, _| engine.level().is_emptied()) {
            return Ok(());
        }
        map.empty().await?;
        self.shared.with(|engine, _| engine.emptied());
        Ok(())
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

    /// The edition that is due, if one is.
    async fn due(&self) -> Option<Edition> {
        let number = self.shared.with(|engine, now| engine.due(now))?;
        let shared = Arc::clone(&self.shared);
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
            Outlet::Map(map) => {
                let given_up = map.given_up();
                tokio::select! {
                    outcome = map.publish(edition) => outcome,
                    () = overstayed(&self.shared) => Err(given_up),
                }
            }
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
                let failures = self.shared.with(|engine, now| {
                    let failures = engine.level().failures();
                    engine.published(edition.number, now);
                    failures
                });
                if failures > 0 {
                    info!(
                        failures,
                        clients = edition.addresses.len(),
                        "the map is published again"
                    );
                }
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

/// Waits until somebody whose right has ended has stood in the map for too long.
async fn overstayed(shared: &Shared) {
    loop {
        let left = shared.with(|engine, now| engine.level().empty_at().map(|at| at.since(now)));
        match left {
            Some(Duration::ZERO) => return,
            left => tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)).await,
        }
    }
}
