//! The running daemon, in this order: bind, restore, publish, ready, serve, shut down.
//!
//! - **Promise**: frames are processed and lookups answered as soon as the state is restored (before,
//!   the kernel queues them). systemd is notified when the first map is in place. After a shutdown the
//!   state is on disk, the map is empty and the sockets are removed, within a bounded time.
//! - **Parts**: `start` builds them and `reload` updates the rules; [`receiver`], [`lookup`],
//!   [`control`] and [`metrics`] serve; [`publisher`], [`expiry`] and [`state_file`] follow the
//!   engine; [`status`] takes snapshots. They share only [`shared`].
//! - **Not here**: `offline` is for commands that need no running daemon.

pub mod cluster;
pub mod connections;
pub mod control;
pub mod expiry;
pub mod hardening;
pub mod installation;
pub mod lookup;
pub mod lost_logins;
pub mod metrics;
mod offline;
pub mod passed_sockets;
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
use crate::control::protocol::Access;
use crate::error::{Failure, Failures};
use crate::rules;
use crate::rules::Exclusions;
use crate::sys::log::Log;
use crate::sys::systemd;
use lookup::LookupService;
use metrics::http::MetricsListener;
use passed_sockets::Passed;
use publisher::Publisher;
use receiver::Receiver;
use receiver::bind;
use receiver::bind::ReceiverSockets;
use shared::Shared;
use signals::{Requested, Signals};
use status::StatusSource;

pub use offline::{examine, wipe};

/// Time limit for saving the state, and for emptying the map: each usually takes a second. Service
/// managers wait longer than both together (systemd.service(5): 90 s).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// Most frames processed from each socket during shutdown.
const LAST_FRAMES: usize = 10_000;

/// Runs the daemon until a signal stops it. `layers` reads the configuration again on SIGHUP.
///
/// # Errors
/// Everything that prevents the start, before anything is running, and failures at shutdown.
pub async fn run(
    config: Config,
    passed: Passed,
    log: Log,
    layers: impl Fn() -> Layer,
) -> Result<(), Failures> {
    hardening::disable_core_dumps();
    let signals = Signals::new()?;
    let second_signal = Signals::new()?;
    tokio::select! {
        outcome = run_until_stopped(config, passed, log, layers, signals) => outcome,
        // The other future is dropped by now, with any running postmap. Exit here, because on
        // return from main the runtime would wait for a disk that is stuck.
        () = second_signal.second_stop() => std::process::exit(1),
    }
}

async fn run_until_stopped(
    config: Config,
    mut passed: Passed,
    log: Log,
    layers: impl Fn() -> Layer,
    mut signals: Signals,
) -> Result<(), Failures> {
    let (rules, exclusions) = rules::build(&config).await?;
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    let output = start::map_output(&config, &exclusions.remarks).await?;
    start::make_default_directories(&config);
    // Dropping `files` removes the socket files, however this function returns.
    let control::bind::ControlSockets { listeners, files: _control_files } =
        control::bind::all(&config)?;
    let ReceiverSockets { receivers, files: _files } = bind::all(&config, &mut passed)?;
    let lookup::bind::LookupSockets { services, files: _lookup_files } =
        start::lookup_sockets(&config, &mut passed)?;
    let metrics_listeners = metrics::bind::all(&config, &mut passed)?;
    let starting = async {
        let locks = start::lock_files(&config).await?;
        match start::daemon(&config, rules, output, receivers, services, log).await {
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
    let read = || Config::from_layer(&layers(), passed.roles());
    let outcome =
        daemon.serve(listeners, metrics_listeners, exclusions, signals, &config, read).await;
    let shutdown = daemon.shut_down().await.map_err(Failures::from);
    if shutdown.is_ok() {
        locks.release();
    }
    outcome.and(shutdown)
}

/// The parts of the running daemon.
struct Running {
    shared: Arc<Shared>,
    receivers: Arc<Vec<Receiver>>,
    services: Arc<Vec<LookupService>>,
    publisher: Publisher,
    source: StatusSource,
    /// One task for each receiver; it returns the cause if the receiver fails.
    receiving: JoinSet<String>,
    /// All other tasks.
    helpers: JoinSet<()>,
}

impl Running {
    async fn serve(
        &mut self,
        listeners: Vec<(UnixListener, Access)>,
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
        if let Some(state) = self.source.state.clone() {
            let shared = Arc::clone(&self.shared);
            helpers.spawn(async move { state.keep(&shared).await });
        }
        if let Some(exchange) = self.source.cluster.clone() {
            let shared = Arc::clone(&self.shared);
            receiving.spawn(async move {
                let failure = cluster::run(exchange, shared).await;
                format!("the cluster: {}", failure.expect_err("it ends only by a failure"))
            });
        }
        let metrics_names: Vec<String> =
            metrics_listeners.iter().map(|listener| listener.name.clone()).collect();
        let serve_metrics =
            metrics::http::serve(metrics_listeners, self.source.clone(), Arc::clone(&self.shared));
        helpers.spawn(serve_metrics);
        let published = tokio::select! {
            published = publisher.first() => published,
            () = signals.stop() => return Ok(()),
        };
        if !published {
            return Err(Failure::io("the first map could not be published; the log says why")
                .hint("`pop-before-smtp check` and a manual `postmap` show more")
                .into());
        }
        for (listener, access) in listeners {
            let shared = Arc::clone(&self.shared);
            helpers.spawn(control::serve(listener, access, shared, self.source.clone()));
        }
        helpers.spawn(watchdog());
        let shared = Arc::clone(&self.shared);
        helpers.spawn(async move { shared.lost_logins().sum_up().await });
        let exclusions = Arc::new(Mutex::new(exclusions));
        helpers.spawn(reload::watch_host(Arc::clone(&self.shared), Arc::clone(&exclusions)));
        for receiver in self.receivers.iter() {
            info!(receiver = receiver.name, "listening");
        }
        for service in self.services.iter() {
            info!(%service, "answering Postfix");
        }
        for listener in metrics_names {
            info!(listener, "serving metrics");
        }
        systemd::ready("serving");
        info!(version = env!("CARGO_PKG_VERSION"), map = self.source.map, "ready");
        let shared = Arc::clone(&self.shared);
        let wait_for_signals = async {
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
                                        error!(
                                            "not reloaded, the old configuration stays in use: \
                                             {failure}"
                                        );
                                    }
                                }
                            }
                            // In any case: a damaged map may be the reason for the signal.
                            shared.with(|engine, _| engine.publish_again());
                            systemd::ready("serving");
                        }
                    },
                }
            }
        };
        // Concurrently: a reload waits for Postfix, and the map must not wait for the reload.
        tokio::select! {
            outcome = wait_for_signals => outcome,
            () = publisher.run() => Ok(()),
        }
    }

    async fn shut_down(&mut self) -> Result<(), Failure> {
        systemd::stopping();
        // Stop the tasks first: later changes would not be saved.
        self.receiving.shutdown().await;
        self.helpers.shutdown().await;
        for receiver in self.receivers.iter() {
            receiver.drain(LAST_FRAMES, &self.shared);
        }
        // A failure has been logged, unless the disk does not answer.
        let is_saved = match &self.source.state {
            Some(state) => {
                timeout(SHUTDOWN_TIMEOUT, state.save(&self.shared)).await.unwrap_or_default()
            }
            None => true,
        };
        let is_emptied =
            timeout(SHUTDOWN_TIMEOUT, self.publisher.publish_empty()).await.unwrap_or_default();
        if !is_emptied {
            return Err(Failure::io(
                "the empty map could not be published: see the log, unless the disk does not answer \
                 at all. The clients in the previous map can relay until it is removed",
            )
            .hint("remove the map from main.cf, or empty its source file and run postmap"));
        }
        if !is_saved {
            return Err(Failure::io(
                "the state could not be saved: see the log, unless the disk does not answer at all. \
                 The next start restores what was saved before",
            )
            .hint("Postfix admits nobody until then"));
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
