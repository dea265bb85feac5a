//! The order of life: bind, restore, publish, ready, serve, leave.
//!
//! Promise  frames are heard and lookups answered from the moment the state is restored (before,
//!          the kernel keeps them waiting); systemd hears "ready" when the
//!          first map is in place; on the way out the state is on disk, the map is empty and the
//!          sockets are gone, within a bounded time.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::config::layer::Layer;
use crate::config::lookups::Role;
use crate::config::{Config, DEFAULT_CONTROL, DEFAULT_STATE, Matching};
use crate::control::Rights;
use crate::engine::Engine;
use crate::engine::map::Edition;
use crate::error::Failure;
use crate::farewells::Farewells;
use crate::lock::Lock;
use crate::log::Log;
use crate::lookup::Service;
use crate::metrics::http::Door;
use crate::postfix::Postfix;
use crate::postfix::map_spec::{MapSpec, MapValue};
use crate::postfix::postmap::MapTarget;
use crate::privacy;
use crate::publisher::{Outlet, Publisher};
use crate::receiver::Receiver;
use crate::receiver::bind::{self, Bound};
use crate::rules::{self, Exclusions};
use crate::shared::Shared;
use crate::signals::{Event, Signals};
use crate::state_file::{self, StateFile};
use crate::status::Describe;
use crate::systemd::{self, Passed};
use crate::{control, lookup, metrics};

/// The host is asked for its own addresses and gateways this often.
const HOST_INTERVAL: Duration = Duration::from_secs(60);
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
    layers: impl Fn() -> Result<Layer, Failure>,
) -> Result<(), Vec<Failure>> {
    privacy::close_memory();
    let signals = Signals::new().map_err(one)?;
    let impatient = Signals::new().map_err(one)?;
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
    layers: impl Fn() -> Result<Layer, Failure>,
    signals: Signals,
) -> Result<(), Vec<Failure>> {
    let (rules, exclusions) = rules::build(&config).await?;
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    let outlet = outlet(&config).await.map_err(one)?;
    make_default_directories(&config);
    // The files of the sockets go with these names, however this function ends.
    let control::bind::Bound { listeners, files: _control_files } =
        control::bind::all(&config).map_err(one)?;
    let Bound { receivers, files: _files } = bind::all(&config, &mut passed).map_err(one)?;
    let lookup::bind::Bound { services, files: _lookup_files } =
        asked(&config, &mut passed).map_err(one)?;
    let doors = metrics::http::bind::all(&config, &mut passed).map_err(one)?;
    let _locks = lock_files(&config).map_err(one)?;
    let mut daemon = start(&config, rules, outlet, receivers, services, log).map_err(one)?;
    let read = || Config::of(&layers().map_err(one)?, passed.roles());
    let outcome = daemon.serve(listeners, doors, exclusions, signals, &config, read).await;
    let left = daemon.leave().await.map_err(one);
    outcome.and(left)
}

fn one(failure: Failure) -> Vec<Failure> {
    vec![failure]
}

/// Examines what `run` would refuse at the start, without starting anything. What should be known
/// but keeps nothing from running is returned. Sockets and the state file are not touched.
///
/// # Errors
/// Every fault.
pub async fn examine(layer: &Layer) -> Result<Vec<String>, Vec<Failure>> {
    // Whether systemd will pass a receiving socket is not known here.
    let config = Config::of(layer, &[Role::Frames]);
    let matching = Matching::of(layer);
    let learned = match &config {
        Ok(config) => rules::build(config).await.map(|(_, exclusions)| exclusions),
        Err(_) => rules::learn(&matching).await.map(|(_, _, exclusions)| exclusions),
    };
    // The value has been checked with the rest of the configuration.
    let target = match layer.map.as_ref().filter(|_| layer.dry_run != Some(true)) {
        Some(map) => map_target(map, MapValue::default(), &matching).await.map(drop),
        None => Ok(()),
    };
    // A table that cannot be had is among the faults of what was learned.
    let proofs = rules::load(&matching).map_or(Ok(Vec::new()), |table| rules::prove(&table));
    match (config, learned, proofs, target) {
        (Ok(_), Ok(exclusions), Ok(mut remarks), Ok(())) => {
            remarks.extend(exclusions.remarks);
            Ok(remarks)
        }
        (config, learned, proofs, target) => {
            let mut faults = config.err().unwrap_or_default();
            faults.extend(learned.err().unwrap_or_default());
            faults.extend(proofs.err().unwrap_or_default());
            faults.extend(target.err());
            Err(faults)
        }
    }
}

/// Publishes an empty map in the place of a daemon that has ended, so that nobody may relay by what
/// it has left. The state file stays: the next start knows who may. The map, if there is one.
///
/// # Errors
/// A daemon runs, or the map cannot be published.
pub async fn wipe(layer: &Layer) -> Result<Option<String>, Failure> {
    let Some(map) = layer.map.as_ref().filter(|_| layer.dry_run != Some(true)) else {
        return Ok(None);
    };
    // The value stands in no entry. Faults in other options are no reason to leave the map.
    let mut target = map_target(map, MapValue::default(), &Matching::of(layer)).await?;
    let _lock = Lock::take(&map.path)?;
    let empty = Edition { number: 0, addresses: Vec::new() };
    target.publish(&empty).await.map_err(|failure| Failure::io(failure.to_string()))?;
    Ok(Some(target.table()))
}

async fn outlet(config: &Config) -> Result<Outlet, Failure> {
    match &config.map {
        None => Ok(Outlet::Said(None)),
        Some(map) if config.dry_run => Ok(Outlet::Said(Some(format!("postmap -r {map}.new")))),
        Some(map) => {
            let target = map_target(map, config.map_value.clone(), &config.matching).await?;
            if let Some(remark) = target.remark() {
                warn!("{remark}");
            }
            Ok(Outlet::Map(target))
        }
    }
}

async fn map_target(
    map: &MapSpec,
    value: MapValue,
    matching: &Matching,
) -> Result<MapTarget, Failure> {
    let postfix = Postfix::locate(matching.postfix_config.clone())?;
    MapTarget::prepare(postfix, map, value).await
}

/// Two daemons on one map or one state file would undo each other's work.
fn lock_files(config: &Config) -> Result<Vec<Lock>, Failure> {
    let map = config.map.as_ref().filter(|_| !config.dry_run).map(|map| map.path.as_path());
    map.into_iter().chain(config.state.as_deref()).map(Lock::take).collect()
}

/// The directories of the default paths are ours to make; others are the administrator's.
fn make_default_directories(config: &Config) {
    let state = config.state.as_deref();
    let control = Some(config.control.as_path());
    for (path, default) in [(state, DEFAULT_STATE), (control, DEFAULT_CONTROL)] {
        let ours = path.filter(|path| *path == std::path::Path::new(default));
        if let Some(parent) = ours.and_then(|path| path.parent()) {
            // What cannot be made is reported where it is needed.
            let _ = std::fs::create_dir(parent);
        }
    }
}

/// Where Postfix asks; a dry run answers nobody, for it authorises nobody.
fn asked(config: &Config, passed: &mut Passed) -> Result<lookup::bind::Bound, Failure> {
    if config.dry_run {
        return Ok(lookup::bind::Bound::default());
    }
    lookup::bind::all(config, passed)
}

/// The parts that live together.
struct Daemon {
    shared: Arc<Shared>,
    receivers: Arc<Vec<Receiver>>,
    services: Arc<Vec<Service>>,
    state: Option<Arc<StateFile>>,
    publisher: Publisher,
    describe: Describe,
}

fn start(
    config: &Config,
    rules: crate::engine::Rules,
    outlet: Outlet,
    receivers: Vec<Receiver>,
    services: Vec<Service>,
    log: Log,
) -> Result<Daemon, Failure> {
    let shared = Arc::new(Shared::new(Engine::new(rules)));
    let restore = |path: &std::path::PathBuf| StateFile::restore(path, &shared).map(Arc::new);
    let state = config.state.as_ref().map(restore).transpose()?;
    let receivers = Arc::new(receivers);
    let services = Arc::new(services);
    let map = match &outlet {
        Outlet::Map(target) => Some(target.table()),
        Outlet::Said(_) => None,
    };
    let started = shared.with(|_, now| now);
    Ok(Daemon {
        describe: Describe {
            receivers: Arc::clone(&receivers),
            services: Arc::clone(&services),
            map,
            log,
            started,
        },
        publisher: Publisher {
            shared: Arc::clone(&shared),
            outlet,
            farewells: Farewells::default(),
        },
        state,
        receivers,
        services,
        shared,
    })
}

impl Daemon {
    async fn serve(
        &mut self,
        listeners: Vec<(UnixListener, Rights)>,
        doors: Vec<Door>,
        exclusions: Exclusions,
        mut signals: Signals,
        config: &Config,
        read: impl Fn() -> Result<Config, Vec<Failure>>,
    ) -> Result<(), Vec<Failure>> {
        let mut tasks: JoinSet<String> = JoinSet::new();
        for index in 0..self.receivers.len() {
            let (receivers, shared) = (Arc::clone(&self.receivers), Arc::clone(&self.shared));
            tasks.spawn(async move {
                let receiver = &receivers[index];
                let Err(error) = receiver.run(&shared).await;
                format!("{}: {error}", receiver.name)
            });
        }
        let mut helpers = JoinSet::new();
        helpers.spawn(lookup::serve(Arc::clone(&self.services), Arc::clone(&self.shared)));
        helpers.spawn(state_file::keep(self.state.clone(), Arc::clone(&self.shared)));
        let monitored: Vec<String> = doors.iter().map(|door| door.name.clone()).collect();
        let answering =
            metrics::http::serve(doors, self.describe.clone(), Arc::clone(&self.shared));
        helpers.spawn(answering);
        let published = tokio::select! {
            published = self.publisher.first() => published,
            () = signals.stop() => return Ok(()),
        };
        if !published {
            return Err(one(Failure::io("the first map could not be published; the log says why")
                .hint("`pop-before-smtp check` and `postmap` by hand show more")));
        }
        for (listener, rights) in listeners {
            let shared = Arc::clone(&self.shared);
            helpers.spawn(control::serve(listener, rights, shared, self.describe.clone()));
        }
        helpers.spawn(watchdog());
        let exclusions = Arc::new(std::sync::Mutex::new(exclusions));
        helpers.spawn(watch_host(Arc::clone(&self.shared), Arc::clone(&exclusions)));
        for receiver in self.receivers.iter() {
            info!(receiver = receiver.name, "listening");
        }
        for service in self.services.iter() {
            info!(service = service.name, "answering Postfix");
        }
        for door in monitored {
            info!(door, "answering monitoring");
        }
        systemd::ready("serving");
        info!(version = env!("CARGO_PKG_VERSION"), map = self.describe.map, "ready");
        let shared = Arc::clone(&self.shared);
        let attend = async {
            loop {
                tokio::select! {
                    Some(ended) = tasks.join_next() => {
                        let cause = ended.unwrap_or_else(|lost| lost.to_string());
                        return Err(one(Failure::io(format!("a receiver has failed: {cause}"))));
                    }
                    event = signals.next() => match event {
                        Event::Stop => return Ok(()),
                        Event::Reload => {
                            systemd::reloading();
                            match reload(&shared, &exclusions, config, &read).await {
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
            () = self.publisher.run() => Ok(()),
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        systemd::stopping();
        for receiver in self.receivers.iter() {
            receiver.drain(LAST_FRAMES, &self.shared);
        }
        if let Some(state) = &self.state {
            // What could not be saved has been said.
            state.sync(&self.shared).await;
        }
        if !self.publisher.farewell().await {
            return Err(Failure::io(
                "the empty map could not be published; the log says why. The clients of the old \
                 one may relay for as long as it stays",
            )
            .hint("take the map out of main.cf, or empty its source and run postmap"));
        }
        info!("stopped");
        Ok(())
    }
}

async fn reload(
    shared: &Shared,
    exclusions: &std::sync::Mutex<Exclusions>,
    started_with: &Config,
    read: &impl Fn() -> Result<Config, Vec<Failure>>,
) -> Result<(), Vec<Failure>> {
    let config = read()?;
    let (rules, learned) = rules::build(&config).await?;
    let fixed = started_with.fixed_differences(&config);
    if !fixed.is_empty() {
        warn!("only a restart changes these options: {}", fixed.join(", "));
    }
    for remark in &learned.remarks {
        warn!("{remark}");
    }
    // First, or else the old ones might be looked up once more and come back after the reload.
    *exclusions.lock().unwrap_or_else(|p| p.into_inner()) = learned;
    shared.with(|engine, now| engine.reload(now, rules));
    Ok(())
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

/// Addresses and gateways of the host may change while the daemon runs.
async fn watch_host(shared: Arc<Shared>, exclusions: Arc<std::sync::Mutex<Exclusions>>) {
    loop {
        tokio::time::sleep(HOST_INTERVAL).await;
        let now = exclusions.lock().unwrap_or_else(|p| p.into_inner()).now();
        match now {
            Ok(exclude) => shared.with(|engine, _| {
                if engine.rules().exclude != exclude {
                    info!("the addresses or gateways of this host have changed");
                    engine.exclude(exclude);
                }
            }),
            Err(error) => warn!(%error, "cannot learn this host's addresses; the old ones hold"),
        }
    }
}
