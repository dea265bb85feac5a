//! Builds the parts of the daemon from the configuration.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::warn;

use super::Running;
use super::cluster::Exchange;
use super::lookup;
use super::lookup::LookupService;
use super::passed_sockets::Passed;
use super::publisher::{MapOutput, Publisher};
use super::receiver::Receiver;
use super::shared::Shared;
use super::state_file::StateFile;
use super::status::StatusSource;
use crate::config::DEFAULT_CONTROL;
use crate::config::{Config, DEFAULT_STATE, Matching};
use crate::engine::{Engine, Rules};
use crate::error::Failure;
use crate::postfix::Postfix;
use crate::postfix::access_map::MapTarget;
use crate::postfix::map_spec::{MapSpec, MapValue};
use crate::sys::blocking::blocking;
use crate::sys::lock::Lock;
use crate::sys::log::Log;

/// Prepares the map's output. Remarks that are in `logged` are not logged again.
pub(super) async fn map_output(config: &Config, logged: &[String]) -> Result<MapOutput, Failure> {
    match &config.map {
        None => Ok(MapOutput::DryRun(None)),
        Some(map) if config.dry_run => Ok(MapOutput::DryRun(Some(format!("postmap -r {map}.new")))),
        Some(map) => {
            let target = map_target(map, config.map_value.clone(), &config.matching).await?;
            if let Some(remark) =
                target.remark().filter(|remark| !logged.iter().any(|it| it == remark))
            {
                warn!("{remark}");
            }
            Ok(MapOutput::Postmap(target))
        }
    }
}

/// The locks of the map and the state file: two daemons that share a file would overwrite each
/// other's changes. They are released only after a clean shutdown. Otherwise a thread may still wait
/// for a stuck disk and write later, so no other daemon may start before this process has exited.
pub(super) struct Locks(ManuallyDrop<Vec<Lock>>);

impl Locks {
    /// Releases them; nothing in this process writes any more.
    pub(super) fn release(self) {
        drop(ManuallyDrop::into_inner(self.0));
    }
}

/// Takes the locks, on a thread that may wait for the disk, so that signals are handled meanwhile.
pub(super) async fn lock_files(config: &Config) -> Result<Locks, Failure> {
    let map = config.map.as_ref().filter(|_| !config.dry_run).map(|map| map.path.clone());
    let paths: Vec<PathBuf> = map.into_iter().chain(config.state.clone()).collect();
    let locks = blocking(move || paths.iter().map(|path| Lock::take(path)).collect()).await?;
    Ok(Locks(ManuallyDrop::new(locks)))
}

/// Creates the directories of the default paths; others are the administrator's task.
pub(super) fn make_default_directories(config: &Config) {
    let state = config.state.as_deref();
    let control = Some(config.control.change.path.as_path());
    for (path, default) in [(state, DEFAULT_STATE), (control, DEFAULT_CONTROL)] {
        let ours = path.filter(|path| *path == Path::new(default));
        if let Some(parent) = ours.and_then(|path| path.parent()) {
            // A failure is reported where the directory is needed.
            let _ = std::fs::create_dir(parent);
        }
    }
}

/// Makes the sockets for Postfix's requests; a dry run has none, because it authorises nobody.
pub(super) fn lookup_sockets(
    config: &Config,
    passed: &mut Passed,
) -> Result<lookup::bind::LookupSockets, Failure> {
    if config.dry_run {
        return Ok(lookup::bind::LookupSockets::default());
    }
    lookup::bind::all(config, passed)
}

/// Prepares a map for publication.
pub(super) async fn map_target(
    map: &MapSpec,
    value: MapValue,
    matching: &Matching,
) -> Result<MapTarget, Failure> {
    let postfix = Postfix::locate(matching.postfix_config.clone())?;
    MapTarget::prepare(postfix, map, value).await
}

/// Builds all parts and restores the state, on a thread that may wait for the disk. Nothing runs yet.
pub(super) async fn daemon(
    config: &Config,
    rules: Rules,
    output: MapOutput,
    receivers: Vec<Receiver>,
    services: Vec<LookupService>,
    log: Log,
) -> Result<Running, Failure> {
    let mut engine = Engine::new(rules);
    if let Some(cluster) = &config.cluster {
        super::cluster::examine(cluster)?;
        engine.join_cluster(cluster.host.as_str().into(), instance());
    }
    let shared = Arc::new(Shared::new(engine));
    let (path, known) = (config.state.clone(), Arc::clone(&shared));
    let restore = move || path.map(|path| StateFile::restore(&path, &known)).transpose();
    let state = blocking(restore).await?.map(Arc::new);
    let receivers = Arc::new(receivers);
    let services = Arc::new(services);
    let map = match &output {
        MapOutput::Postmap(target) => Some(target.table()),
        MapOutput::DryRun(_) => None,
    };
    let started = shared.with(|_, now| now);
    Ok(Running {
        source: StatusSource {
            receivers: Arc::clone(&receivers),
            services: Arc::clone(&services),
            map,
            state,
            cluster: config.cluster.clone().map(|it| Arc::new(Exchange::new(it, started))),
            log,
            started,
        },
        publisher: Publisher { shared: Arc::clone(&shared), output },
        receivers,
        services,
        shared,
        receiving: JoinSet::new(),
        helpers: JoinSet::new(),
    })
}

/// Returns a number that no other process has.
fn instance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
