//! The daemon while it runs, and the order of its life: bind, restore, publish, ready, serve, end.
//!
//! - **Promise**: frames are processed and lookups answered from the moment the state is restored
//!   (before, the kernel keeps them waiting). systemd is told "ready" when the first map is in place.
//!   At the end the state is on disk, the map is empty and the sockets are gone, within a bounded time.
//! - **Parts**: `start` makes them and `reload` learns again; [`receiver`], [`lookup`], [`control`] and
//!   [`metrics`] serve; [`publisher`], [`expiry`] and [`state_file`] follow; [`status`] is what is told
//!   of all. They meet only in [`shared`].
//! - **Not here**: `offline` is for the commands that need no running daemon.

pub mod connections;
pub mod control;
pub mod expiry;
pub mod hardening;
pub mod lookup;
pub mod metrics;
mod offline;
pub mod passed;
pub mod publisher;
pub mod receiver;
mod reload;
pub mod shared;
pub mod signals;
mod start;
pub mod state_file;
pub mod status;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::config::layer::Layer;
use crate::control::protocol::Rights;
use crate::error::{Failure, Failures};
use crate::rules;
use crate::rules::Exclusions;
use crate::sys::log::Log;
use crate::sys::systemd;
use lookup::LookupService;
use metrics::http::MetricsListener;
use passed::Passed;
use publisher::Publisher;
use receiver::Receiver;
use receiver::bind;
use receiver::bind::ReceiverSockets;
use shared::Shared;
use signals::{Requested, Signals};
use status::Describe;

pub use offline::{examine, wipe};

/// For the state to be saved, and for the map to be emptied: each takes a second. Service managers
/// wait for longer than both (systemd.service(5): 90 s).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// Frames still taken from each socket on the way out.
const LAST_FRAMES: usize = 10_000;

/// Runs the daemon until a signal ends it. `layers` reads the configuration, now and on SIGHUP.
///
/// # Errors
/// Everything that keeps it from starting; nothing has been started then.
pub async fn run(
    config: Config,
    passed: Passed,
    log: Log,
    layers: impl Fn() -> Result<Layer, Failures>,
) -> Result<(), Failures> {
    hardening::close_memory();
    let signals = Signals::new()?;
    let impatient = Signals::new()?;
    tokio::select! {
        outcome = live(config, passed, log, layers, signals) => outcome,
        // All that lived is gone by now, a postmap at work as well. Not by the way out of main:
        // the runtime would wait there for a disk that is stuck.
        () = impatient.second() => std::process::exit(1),
    }
}

async fn live(
    config: Config,
    mut passed: Passed,
    log: Log,
    layers: impl Fn() -> Result<Layer, Failures>,
    mut signals: Signals,
) -> Result<(), Failures> {
    let (rules, exclusions) = rules::build(&config).await?;
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    let outlet = start::outlet(&config, &exclusions.remarks).await?;
    start::make_default_directories(&config);
    // The files of the sockets go with these names, however this function ends.
    let control::bind::ControlSockets { listeners, files: _control_files } =
        control::bind::all(&config)?;
    let ReceiverSockets { receivers, files: _files } = bind::all(&config, &mut passed)?;
    let lookup::bind::LookupSockets { services, files: _lookup_files } =
        start::asked(&config, &mut passed)?;
    let metrics_listeners = metrics::bind::all(&config, &mut passed)?;
    let starting = async {
        let locks = start::lock_files(&config).await?;
        match start::daemon(&config, rules, outlet, receivers, services, log).await {
            Ok(daemon) => Ok((locks, daemon)),
            Err(failure) => {
                locks.release();
                Err(failure)
            }
        }
    };
    let (locks, mut daemon) = tokio::select! {
        started = starting => started?,
        () = signals.stop() => {
            info!("stopped before it was ready");
            return Ok(());
        }
    };
    let read = || Config::of(&layers()?, passed.roles());
    let outcome =
        daemon.serve(listeners, metrics_listeners, exclusions, signals, &config, read).await;
    let left = daemon.leave().await.map_err(Failures::from);
    if left.is_ok() {
        locks.release();
    }
    outcome.and(left)
}

/// The parts that live together.
struct Running {
    shared: Arc<Shared>,
    receivers: Arc<Vec<Receiver>>,
    services: Arc<Vec<LookupService>>,
    publisher: Publisher,
    describe: Describe,
    /// A task for each receiver; it ends with the cause if that fails.
    receiving: JoinSet<String>,
    /// All other tasks.
    helpers: JoinSet<()>,
}

impl Running {
    async fn serve(
        &mut self,
        listeners: Vec<(UnixListener, Rights)>,
        metrics_listeners: Vec<MetricsListener>,
        exclusions: Exclusions,
        mut signals: Signals,
        config: &Config,
        read: impl Fn() -> Result<Config, Failures>,
    ) -> Result<(), Failures> {
        let Self { receiving, helpers, publisher, .. } = self;
        for index in 0..self.receivers.len() {
            let (receivers, shared) = (Arc::clone(&self.receivers), Arc::clone(&self.shared));
            receiving.spawn(async move {
                let receiver = &receivers[index];
                let Err(error) = receiver.run(&shared).await;
                format!("{}: {error}", receiver.name)
            });
        }
        helpers.spawn(expiry::run(Arc::clone(&self.shared)));
        helpers.spawn(lookup::serve(Arc::clone(&self.services), Arc::clone(&self.shared)));
        if let Some(state) = self.describe.state.clone() {
            let shared = Arc::clone(&self.shared);
            helpers.spawn(async move { state.keep(&shared).await });
        }
        let monitored: Vec<String> =
            metrics_listeners.iter().map(|listener| listener.name.clone()).collect();
        let answering = metrics::http::serve(
            metrics_listeners,
            self.describe.clone(),
            Arc::clone(&self.shared),
        );
        helpers.spawn(answering);
        let published = tokio::select! {
            published = publisher.first() => published,
            () = signals.stop() => return Ok(()),
        };
        if !published {
            return Err(Failure::io("the first map could not be published; the log says why")
                .hint("`pop-before-smtp check` and a manual `postmap` show more")
                .into());
        }
        for (listener, rights) in listeners {
            let shared = Arc::clone(&self.shared);
            helpers.spawn(control::serve(listener, rights, shared, self.describe.clone()));
        }
        helpers.spawn(watchdog());
        let exclusions = Arc::new(Mutex::new(exclusions));
        helpers.spawn(reload::watch_host(Arc::clone(&self.shared), Arc::clone(&exclusions)));
        for receiver in self.receivers.iter() {
            info!(receiver = receiver.name, "listening");
        }
        for service in self.services.iter() {
            info!(%service, "answering Postfix");
        }
        for listener in monitored {
            info!(listener, "answering monitoring");
        }
        systemd::ready("serving");
        info!(version = env!("CARGO_PKG_VERSION"), map = self.describe.map, "ready");
        let shared = Arc::clone(&self.shared);
        let attend = async {
            loop {
                tokio::select! {
                    Some(ended) = receiving.join_next() => {
                        let cause = ended.unwrap_or_else(|lost| lost.to_string());
                        return Err(Failure::io(format!("a receiver has failed: {cause}")).into());
                    }
                    event = signals.next() => match event {
                        Requested::Stop => return Ok(()),
                        Requested::Reload => {
                            systemd::reloading();
                            match reload::reload(&shared, &exclusions, config, &read).await {
                                Ok(()) => info!("configuration reloaded"),
                                Err(failures) => {
                                    for failure in failures {
                                        error!("not reloaded, the old configuration stays: {failure}");
                                    }
                                }
                            }
                            // In any case: whoever sends the signal may have found the map damaged.
                            shared.with(|engine, _| engine.publish_again());
                            systemd::ready("serving");
                        }
                    },
                }
            }
        };
        // Side by side: a reload waits for Postfix, and the map must not wait for the reload.
        tokio::select! {
            outcome = attend => outcome,
            () = publisher.run() => Ok(()),
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        systemd::stopping();
        // What they did from here on would be forgotten.
        self.receiving.shutdown().await;
        self.helpers.shutdown().await;
        for receiver in self.receivers.iter() {
            receiver.drain(LAST_FRAMES, &self.shared);
        }
        // What could not be saved has been said, unless the disk keeps silent.
        let is_saved = match &self.describe.state {
            Some(state) => {
                timeout(SHUTDOWN_TIMEOUT, state.save(&self.shared)).await.unwrap_or_default()
            }
            None => true,
        };
        let is_emptied =
            timeout(SHUTDOWN_TIMEOUT, self.publisher.publish_empty()).await.unwrap_or_default();
        if !is_emptied {
            return Err(Failure::io(
                "the empty map could not be published; the log says why, unless the disk does not \
                 answer at all. The clients of the old one may relay for as long as it stays",
            )
            .hint("take the map out of main.cf, or empty its source and run postmap"));
        }
        if !is_saved {
            return Err(Failure::io(
                "the last state could not be saved; the log says why, unless the disk does not answer \
                 at all. The next start knows what was saved before",
            )
            .hint("the map is empty: nobody may relay by it"));
        }
        info!("stopped");
        Ok(())
    }
}

async fn watchdog() {
    let Some(interval) = systemd::watchdog_interval() else {
        return std::future::pending().await;
    };
    loop {
        systemd::alive();
        tokio::time::sleep(interval).await;
    }
}
