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
use crate::engine::publication::Generation;
use crate::postfix::access_map::MapTarget;

/// The loop looks around at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// While one is built it looks whether somebody stands in the old one for too long.
const LOOK: Duration = Duration::from_secs(1);

/// For the last map, which is empty: then there is the one that was laid up.
const LAST_BUILD: Duration = Duration::from_secs(10);

/// Where generations go.
#[derive(Debug)]
pub enum MapOutput {
    /// A map that Postfix reads.
    Postmap(MapTarget),
    /// Only said: the command that would be run.
    DryRun(Option<String>),
}

/// The publisher's tools.
#[derive(Debug)]
pub struct Publisher {
    /// The door to the engine.
    pub shared: Arc<Shared>,
    /// Where generations go.
    pub outlet: MapOutput,
}

impl Publisher {
    /// Publishes for the first time. Whether it went well; if not, the cause has been said.
    pub async fn first(&mut self) -> bool {
        let published = match self.due().await {
            Some(generation) => self.publish(&generation).await,
            None => true,
        };
        if published {
            self.prepare_fallback().await;
        }
        published
    }

    async fn prepare_fallback(&self) {
        if let MapOutput::Postmap(map) = &self.outlet
            && let Err(failure) = map.prepare_fallback().await
        {
            warn!("no empty map is laid up for the case that none can be built: {failure}");
        }
    }

    /// Goes on until the task is dropped.
    pub async fn run(&mut self) {
        loop {
            if let Some(generation) = self.due().await
                && self.publish(&generation).await
            {
                // The one before may be in use.
                self.prepare_fallback().await;
            }
            if self
                .shared
                .with(|engine, now| engine.publication().empty_at().is_some_and(|at| at <= now))
            {
                self.empty_stale_map().await;
            }
            let nap = self.shared.with(|engine, now| engine.publish_at().map(|at| at.since(now)));
            tokio::select! {
                () = tokio::time::sleep(nap.unwrap_or(HEARTBEAT).min(HEARTBEAT)) => {}
                () = self.shared.publication_moved() => {}
            }
            self.check_map_files().await;
        }
    }

    /// Publishes a map without any entry: nobody will take an address out while the daemon is
    /// away. Whether it went well; if not, the cause has been said.
    pub async fn publish_empty(&mut self) -> bool {
        let generation = self.shared.with(|engine, _| engine.last_generation());
        if timeout(LAST_BUILD, self.publish(&generation)).await.unwrap_or_default() {
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
    async fn empty_stale_map(&mut self) {
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
        let MapOutput::Postmap(map) = &mut self.outlet else { return Ok(()) };
        if self.shared.with(|engine, _| engine.publication().is_emptied()) {
            return Ok(());
        }
        map.empty().await?;
        self.shared.with(|engine, _| engine.emptied());
        Ok(())
    }

    /// A map that is no longer what was published has to be published again.
    async fn check_map_files(&self) {
        let MapOutput::Postmap(map) = &self.outlet else { return };
        // A generation that is due makes it right in any case.
        if self.shared.with(|engine, _| engine.publication().due().is_some()) {
            return;
        }
        if let Some(path) = map.modified_externally().await {
            warn!(
                path = %path.display(),
                "somebody else has removed or changed a file of the map; it is published again"
            );
            self.shared.with(|engine, _| engine.publish_again());
        }
    }

    /// The generation that is due, if one is.
    async fn due(&self) -> Option<Generation> {
        let number = self.shared.with(|engine, now| engine.due(now))?;
        let shared = Arc::clone(&self.shared);
        let listed = spawn_blocking(move || {
            let slices = shared.slices(|engine, now, after| engine.listed(now, after));
            slices.flatten().collect()
        });
        match listed.await {
            Ok(addresses) => Some(Generation { number, addresses }),
            Err(lost) => {
                error!("the map could not be put together: {lost}");
                None
            }
        }
    }

    async fn publish(&mut self, generation: &Generation) -> bool {
        let outcome = match &mut self.outlet {
            MapOutput::Postmap(map) => {
                let given_up = map.given_up();
                tokio::select! {
                    outcome = map.publish(generation) => outcome,
                    () = stale_too_long(&self.shared) => Err(given_up),
                }
            }
            MapOutput::DryRun(None) => Ok(()),
            MapOutput::DryRun(Some(command)) => {
                let addresses: Vec<String> =
                    generation.addresses.iter().map(|a| a.to_string()).collect();
                info!(command, map = ?addresses, "dry run: would publish");
                Ok(())
            }
        };
        match outcome {
            Ok(()) => {
                let failures = self.shared.with(|engine, now| {
                    let failures = engine.publication().failures();
                    engine.published(generation.number, now);
                    failures
                });
                if failures > 0 {
                    info!(
                        failures,
                        clients = generation.addresses.len(),
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
async fn stale_too_long(shared: &Shared) {
    loop {
        let left =
            shared.with(|engine, now| engine.publication().empty_at().map(|at| at.since(now)));
        match left {
            Some(Duration::ZERO) => return,
            left => tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)).await,
        }
    }
}
