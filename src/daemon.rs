//! The order of life: bind, restore, publish, ready, serve, leave.
//!
//! Promise  frames are heard from the moment the state is restored; systemd hears "ready" when the
//!          first map is in place; on the way out the state is on disk, the map is empty and the
//!          sockets are gone, within a bounded time.

use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::config::layer::Layer;
use crate::config::values::Mode;
use crate::config::{Config, DEFAULT_CONTROL, DEFAULT_STATE};
use crate::engine::Engine;
use crate::error::Failure;
use crate::postfix::Postfix;
use crate::postfix::postmap::MapTarget;
use crate::publisher::{self, Outlet, Publisher};
use crate::receiver::{Receiver, bind};
use crate::rules::{self, Exclusions};
use crate::shared::Shared;
use crate::state_file::StateFile;
use crate::status::Describe;
use crate::unix_socket::{self, SocketFile};
use crate::{control, systemd};

/// The host is asked for its own addresses and gateways this often.
const HOST_INTERVAL: Duration = Duration::from_secs(60);
/// Frames still taken from each socket on the way out.
const LAST_FRAMES: usize = 10_000;
/// Owner and group: reading and changing is for operators.
const CONTROL_MODE: Mode = Mode(0o660);

/// Runs the daemon until a signal ends it. `layers` reads the configuration, now and on SIGHUP.
///
/// # Errors
/// Everything that keeps it from starting; nothing has been started then.
pub async fn run(
    config: Config,
    mut passed: ListenFd,
    layers: impl Fn() -> Result<Layer, Failure>,
) -> Result<(), Vec<Failure>> {
    let signals = Signals::new().map_err(one)?;
    let (rules, exclusions) = rules::build(&config).await?;
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    let outlet = outlet(&config).await.map_err(one)?;
    make_default_directories(&config);
    let (listener, control_file) = open_control(&config).map_err(one)?;
    let passed_count = passed.len();
    let mut bound = bind::all(&config, &mut passed).map_err(one)?;
    bound.files.push(control_file);
    let alive = start(&config, rules, outlet, bound.receivers).map_err(one);
    let mut daemon = match alive {
        Ok(daemon) => daemon,
        Err(failures) => {
            bound.files.iter().for_each(SocketFile::remove);
            return Err(failures);
        }
    };
    let outcome = daemon.serve(listener, exclusions, passed_count, signals, layers).await;
    daemon.leave().await;
    bound.files.iter().for_each(SocketFile::remove);
    outcome
}

fn one(failure: Failure) -> Vec<Failure> {
    vec![failure]
}

/// Examines what `run` would refuse at the start, without starting anything. What should be known
/// but keeps nothing from running is returned.
///
/// # Errors
/// Every fault.
pub async fn examine(config: &Config) -> Result<Vec<String>, Vec<Failure>> {
    let rules = rules::build(config).await;
    let outlet = outlet(config).await;
    // A table that cannot be had is among the faults of the rules.
    let table = rules::load(&config.matching);
    let proofs = table.map_or(Ok(Vec::new()), |table| rules::prove(&table));
    match (rules, proofs, outlet) {
        (Ok((_, exclusions)), Ok(mut remarks), Ok(_)) => {
            remarks.extend(exclusions.remarks);
            Ok(remarks)
        }
        (rules, proofs, outlet) => {
            let mut faults = rules.err().unwrap_or_default();
            faults.extend(proofs.err().unwrap_or_default());
            faults.extend(outlet.err());
            Err(faults)
        }
    }
}

async fn outlet(config: &Config) -> Result<Outlet, Failure> {
    let Some(map) = &config.map else { return Ok(Outlet::Said(None)) };
    if config.dry_run {
        let command = format!("postmap -r {}.new", map.spec);
        return Ok(Outlet::Said(Some(command)));
    }
    let postfix = Postfix::locate(config.matching.postfix_config.clone())?;
    let target = MapTarget::prepare(postfix, &map.spec, map.value.clone()).await?;
    if let Some(remark) = target.remark() {
        warn!("{remark}");
    }
    Ok(Outlet::Map(target))
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

fn open_control(config: &Config) -> Result<(UnixListener, SocketFile), Failure> {
    let (listener, file) = unix_socket::bind_stream(&config.control)?;
    let listen = || {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    let listener = listen().map_err(|error| {
        Failure::io(format!("cannot listen on `{}`: {error}", config.control.display()))
    });
    let opened = listener.and_then(|listener| {
        file.give_to(CONTROL_MODE, config.control_group.as_deref()).map(|()| listener)
    });
    match opened {
        Ok(listener) => Ok((listener, file)),
        Err(failure) => {
            file.remove();
            Err(failure)
        }
    }
}

/// The parts that live together.
struct Daemon {
    shared: Arc<Shared>,
    receivers: Arc<Vec<Receiver>>,
    publisher: Publisher,
    describe: Describe,
}

fn start(
    config: &Config,
    rules: crate::engine::Rules,
    outlet: Outlet,
    receivers: Vec<Receiver>,
) -> Result<Daemon, Failure> {
    let shared = Arc::new(Shared::new(Engine::new(rules)));
    let restore = |path: &std::path::PathBuf| {
        shared.with(|engine, now| StateFile::restore(path, engine, now)).map(Arc::new)
    };
    let state = config.state.as_ref().map(restore).transpose()?;
    let receivers = Arc::new(receivers);
    let map = match &outlet {
        Outlet::Map(target) => Some(target.table()),
        Outlet::Said(_) => None,
    };
    let started = shared.with(|_, now| now);
    Ok(Daemon {
        describe: Describe { receivers: Arc::clone(&receivers), map, started },
        publisher: Publisher { shared: Arc::clone(&shared), state, outlet },
        receivers,
        shared,
    })
}

impl Daemon {
    async fn serve(
        &mut self,
        listener: UnixListener,
        exclusions: Exclusions,
        passed: usize,
        mut signals: Signals,
        layers: impl Fn() -> Result<Layer, Failure>,
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
        helpers.spawn(publisher::keep(Arc::clone(&self.shared), self.publisher.state.clone()));
        if !self.publisher.first().await {
            return Err(one(Failure::io("the first map could not be published; the log says why")
                .hint("`pop-before-smtp check` and `postmap` by hand show more")));
        }
        helpers.spawn(control::serve(listener, Arc::clone(&self.shared), self.describe.clone()));
        helpers.spawn(watchdog());
        let exclusions = Arc::new(std::sync::Mutex::new(exclusions));
        helpers.spawn(watch_host(Arc::clone(&self.shared), Arc::clone(&exclusions)));
        for receiver in self.receivers.iter() {
            info!(receiver = receiver.name, "listening");
        }
        systemd::ready("serving");
        info!(version = env!("CARGO_PKG_VERSION"), map = self.describe.map, "ready");
        let shared = Arc::clone(&self.shared);
        let publishing = self.publisher.run();
        tokio::pin!(publishing);
        loop {
            tokio::select! {
                () = &mut publishing => {}
                Some(ended) = tasks.join_next() => {
                    let cause = ended.unwrap_or_else(|lost| lost.to_string());
                    return Err(one(Failure::io(format!("a receiver has failed: {cause}"))));
                }
                event = signals.next() => match event {
                    Event::Stop => return Ok(()),
                    Event::Reload => {
                        systemd::reloading();
                        match reload(&shared, passed, &layers).await {
                            Ok(learned) => {
                                *exclusions.lock().unwrap_or_else(|p| p.into_inner()) = learned;
                                info!("configuration reloaded");
                            }
                            Err(failures) => {
                                for failure in failures {
                                    error!("not reloaded, the old configuration stays: {failure}");
                                }
                            }
                        }
                        systemd::ready("serving");
                    }
                },
            }
        }
    }

    async fn leave(&mut self) {
        systemd::stopping();
        for receiver in self.receivers.iter() {
            receiver.drain(LAST_FRAMES, &self.shared);
        }
        self.publisher.farewell().await;
        info!("stopped");
    }
}

async fn reload(
    shared: &Shared,
    passed: usize,
    layers: &impl Fn() -> Result<Layer, Failure>,
) -> Result<Exclusions, Vec<Failure>> {
    let layer = layers().map_err(one)?;
    let config = Config::of(&layer, passed)?;
    let (rules, exclusions) = rules::build(&config).await?;
    for remark in &exclusions.remarks {
        warn!("{remark}");
    }
    shared.with(|engine, _| engine.reload(rules));
    Ok(exclusions)
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

/// What a signal asks for.
enum Event {
    Stop,
    Reload,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::io(format!("cannot catch signals: {error}")))
        };
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
            hup: catch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            _ = self.hup.recv() => return Event::Reload,
        }
        info!("stopping; a second signal ends at once");
        tokio::spawn(end_at_next_signal());
        Event::Stop
    }
}

async fn end_at_next_signal() {
    let Ok(mut signals) = Signals::new() else { return };
    tokio::select! {
        _ = signals.term.recv() => {}
        _ = signals.int.recv() => {}
    }
    std::process::exit(1);
}
