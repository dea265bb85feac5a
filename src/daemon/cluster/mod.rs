//! Shares grants with other hosts through a stream in Redis or Valkey.
//!
//! - **Promise**: nothing waits for the store: not a frame, not a lookup, not the map. While it is
//!   away, this host goes on by itself, says so, and catches up afterwards.
//! - **Layers**: `store` speaks to the store, `session` is what is done while it is there; what
//!   entries mean is the engine's ([`crate::engine::cluster`]). `probe` is for `doctor`. All need the
//!   feature `cluster`.

#[cfg(feature = "cluster")]
pub mod probe;
#[cfg(feature = "cluster")]
mod session;
#[cfg(feature = "cluster")]
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shared::Shared;
use crate::config::cluster::ClusterOptions;
use crate::engine::time::Time;
use crate::error::Failure;

/// How it stands with the store.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Since when there is no connection, and why.
    pub away: Option<(Time, String)>,
    /// The store in use.
    pub store: Option<String>,
    /// Why nothing can be told, although there is a connection.
    pub untellable: Option<String>,
}

/// The exchange with other hosts.
#[derive(Debug)]
pub struct Exchange {
    /// The options.
    pub config: ClusterOptions,
    link: Mutex<Link>,
}

impl Exchange {
    /// Creates one that is not connected yet.
    pub fn new(config: ClusterOptions, now: Time) -> Self {
        let away = Some((now, "not connected yet".to_owned()));
        Self { config, link: Mutex::new(Link { away, ..Link::default() }) }
    }

    /// Returns how it stands with the store.
    pub fn link(&self) -> Link {
        self.lock().clone()
    }

    /// Records a connection; returns whether there was none before.
    #[cfg(feature = "cluster")]
    fn connected(&self, store: &str) -> bool {
        let link = Link { store: Some(store.to_owned()), ..Link::default() };
        std::mem::replace(&mut *self.lock(), link).away.is_some()
    }

    /// Records that there is no connection, and why.
    #[cfg(feature = "cluster")]
    fn lost(&self, now: Time, error: &str) {
        let mut link = self.lock();
        let since = link.away.take().map_or(now, |(since, _)| since);
        *link = Link { away: Some((since, error.to_owned())), ..Link::default() };
    }

    /// Records that the store refuses what is told; returns whether that is news.
    #[cfg(feature = "cluster")]
    fn refused(&self, error: &str) -> bool {
        let old = self.lock().untellable.replace(error.to_owned());
        old.as_deref() != Some(error)
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the files that the options name.
///
/// # Errors
/// One of them cannot be read, or is not what it should be.
#[cfg(feature = "cluster")]
pub fn examine(config: &ClusterOptions) -> Result<(), Failure> {
    store::Client::new(config).map(drop)
}

/// Without the feature, the options are refused.
///
/// # Errors
/// Never.
#[cfg(not(feature = "cluster"))]
pub fn examine(_config: &ClusterOptions) -> Result<(), Failure> {
    Ok(())
}

/// Exchanges entries until the task is dropped.
///
/// # Errors
/// The files that the options name cannot be read.
#[cfg(feature = "cluster")]
pub async fn run(exchange: Arc<Exchange>, shared: Arc<Shared>) -> Result<(), Failure> {
    let client = store::Client::new(&exchange.config)?;
    session::keep(&exchange, &client, &shared).await
}

/// Without the feature there is no cluster.
#[cfg(not(feature = "cluster"))]
pub async fn run(_exchange: Arc<Exchange>, _shared: Arc<Shared>) -> Result<(), Failure> {
    std::future::pending().await
}

/// Waits until all other hosts have read what was decided about an address, but not longer than
/// `limit`. Returns whether the stream has it, and the hosts that have not read it.
pub async fn confirmed(
    shared: &Shared,
    address: std::net::IpAddr,
    limit: Duration,
) -> (bool, Vec<String>) {
    let wait = async {
        loop {
            let moved = shared.cluster_heard();
            let left = shared.with(|engine, _| engine.unconfirmed(address));
            if left.is_told && left.hosts.is_empty() {
                return;
            }
            moved.await;
        }
    };
    let _ = tokio::time::timeout(limit, wait).await;
    let left = shared.with(|engine, _| engine.unconfirmed(address));
    (left.is_told, left.hosts.iter().map(ToString::to_string).collect())
}
