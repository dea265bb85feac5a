//! The loop that publishes the map.
//!
//! - **Promise**: one publication at a time, of the whole map. A failure leaves the previous map and
//!   is retried after a growing pause. If the map lists expired clients for a minute, because postmap
//!   fails or hangs, it is emptied. A map that another process has removed or changed is published
//!   again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::engine::publication::Generation;
use crate::postfix::access_map::MapTarget;

/// Longest sleep.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// While a map is built, the previous one is checked for stale entries this often.
const STALE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for building the empty map at shutdown; after it the fallback map is used.
const LAST_BUILD_TIMEOUT: Duration = Duration::from_secs(10);

/// Where generations are published.
#[derive(Debug)]
pub enum MapOutput {
    /// A map that Postfix reads.
    Postmap(MapTarget),
    /// Only the log: the command that would be run, if there is a map.
    DryRun(Option<String>),
}

/// Publishes generations of the map.
#[derive(Debug)]
pub struct Publisher {
    /// The engine.
    pub shared: Arc<Shared>,
    /// Where generations are published.
    pub output: MapOutput,
}

impl Publisher {
    /// Publishes for the first time. Returns whether it succeeded; if not, the cause has been logged.
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
        if let MapOutput::Postmap(map) = &self.output
            && let Err(failure) = map.prepare_fallback().await
        {
            warn!("cannot prepare the fallback map: {failure}");
        }
    }

    /// Runs until the task is dropped.
    pub async fn run(&mut self) {
        loop {
            if let Some(generation) = self.due().await
                && self.publish(&generation).await
            {
                // The previous one may be in use.
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

    /// Publishes an empty map, because nothing removes expired addresses while the daemon is not
    /// running. Returns whether it succeeded; if not, the cause has been logged.
    pub async fn publish_empty(&mut self) -> bool {
        let generation = Arc::new(self.shared.with(|engine, _| engine.last_generation()));
        if timeout(LAST_BUILD_TIMEOUT, self.publish(&generation)).await.unwrap_or_default() {
            return true;
        }
        let emptied = self.empty().await;
        match &emptied {
            Ok(()) => warn!("map emptied with the fallback map: an empty one could not be built"),
            Err(error) => error!(%error, "cannot replace the map with the fallback map"),
        }
        emptied.is_ok()
    }

    /// Empties a map that lists expired clients and cannot be published.
    async fn empty_stale_map(&mut self) {
        match self.empty().await {
            Ok(()) => error!(
                "map emptied: it still listed expired clients and could not be published; nobody \
                 can relay through it until it is rebuilt"
            ),
            Err(error) => {
                self.shared.with(|engine, now| engine.not_emptied(now));
                error!(
                    %error,
                    "the map lists expired clients and could not be emptied; remove it from main.cf \
                     until it can be built"
                );
            }
        }
    }

    /// Replaces the map with the fallback map.
    async fn empty(&mut self) -> io::Result<()> {
        let MapOutput::Postmap(map) = &mut self.output else { return Ok(()) };
        if self.shared.with(|engine, _| engine.publication().is_emptied()) {
            return Ok(());
        }
        map.empty().await?;
        self.shared.with(|engine, _| engine.emptied());
        Ok(())
    }

    /// Schedules a publication if another process has removed or changed the map.
    async fn check_map_files(&self) {
        let MapOutput::Postmap(map) = &self.output else { return };
        // A generation that is due replaces the files anyway.
        if self.shared.with(|engine, _| engine.publication().due().is_some()) {
            return;
        }
        if let Some(path) = map.modified_externally().await {
            warn!(
                path = %path.display(),
                "another process has removed or changed a file of the map; publishing it again"
            );
            self.shared.with(|engine, _| engine.publish_again());
        }
    }

    /// Returns the generation that is due, if any.
    async fn due(&self) -> Option<Arc<Generation>> {
        let number = self.shared.with(|engine, now| engine.due(now))?;
        let shared = Arc::clone(&self.shared);
        let listed = spawn_blocking(move || {
            let slices = shared.slices(|engine, now, from| engine.listed(now, from));
            Arc::new(Generation::new(number, slices.flatten().collect()))
        });
        match listed.await {
            Ok(generation) => Some(generation),
            Err(lost) => {
                error!("cannot collect the addresses for the map: {lost}");
                None
            }
        }
    }

    async fn publish(&mut self, generation: &Arc<Generation>) -> bool {
        let outcome = match &mut self.output {
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
                self.shared.set_map_error(None);
                let failures = self.shared.with(|engine, now| {
                    let failures = engine.publication().failures();
                    engine.published(generation.number, now);
                    failures
                });
                if failures > 0 {
                    info!(
                        failures,
                        clients = generation.addresses.len(),
                        "map published after failures"
                    );
                }
                true
            }
            Err(failure) => {
                self.shared.set_map_error(Some(failure.to_string()));
                let pause = self.shared.with(|engine, now| engine.failed(now));
                error!(next_attempt_in = ?pause, "{failure}");
                false
            }
        }
    }
}

/// Waits until the map has listed expired clients for too long.
async fn stale_too_long(shared: &Shared) {
    loop {
        let left =
            shared.with(|engine, now| engine.publication().empty_at().map(|at| at.since(now)));
        match left {
            Some(Duration::ZERO) => return,
            left => {
                let pause = left.unwrap_or(STALE_CHECK_INTERVAL).min(STALE_CHECK_INTERVAL);
                tokio::time::sleep(pause).await;
            }
        }
    }
}
