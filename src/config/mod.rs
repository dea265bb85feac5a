//! What the administrator has decided, as types that cannot be wrong.
//!
//! Layers   `values` one option's value; `layer` what one of command line, environment and file
//!          says; here all three with the defaults, checked against each other. `listeners` who
//!          is heard; `lookups` where Postfix asks; `control` where operators do; `sending` who may
//!          send as what.
//! Not here what the host, Postfix and the mail daemons' tables say to it (`rules`).

pub mod control;
pub mod layer;
pub mod listeners;
pub mod lookups;
pub mod options;
pub mod sending;
pub mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::maildaemons::Selection;
use crate::engine::message::hosts::Hosts;
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::{MapSpec, MapValue};
use crate::sys::log::{LogFormat, LogLevel};
use control::Control;
use layer::Layer;
use lookups::{Lookups, SocketRole};
use sending::Sending;
use values::{ExcludeWhat, Facilities, Inet, Listen, Network};

/// Where the state file is unless the administrator says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/pop-before-smtp/state";
/// Where the users' own mail daemons are unless the administrator says otherwise.
pub const DEFAULT_DAEMONS_DIR: &str = "/etc/pop-before-smtp/daemons";

/// Longest grace: a login of last week proves nothing about who has the address today.
const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most addresses that can be held: as many as a map was measured with.
const MAX_CLIENTS: usize = 10_000_000;

/// Which messages are believed, from whom, and who is never authorised.
#[derive(Clone, Debug)]
pub struct Matching {
    /// The mail daemons that are believed.
    pub daemons: Selection,
    /// The facilities to which some of them are narrowed.
    pub facilities: Vec<Facilities>,
    /// The hosts that are believed.
    pub hosts: Hosts,
    /// The directory with the users' own mail daemons.
    pub daemons_dir: DaemonsDir,
    /// What is never authorised.
    pub exclude: Vec<ExcludeWhat>,
    /// Postfix's configuration directory, if not its own.
    pub postfix_config: Option<PathBuf>,
}

/// The directory with the users' own mail daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonsDir {
    /// The default one, if it is there.
    Default,
    /// The administrator names it, so it must be there.
    Named(PathBuf),
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The options of which it is made.
    pub layer: Layer,
    /// Where frames are received, beside sockets that systemd passes.
    pub listen: Vec<Listen>,
    /// UDP senders that are heard.
    pub allow_from: Vec<Network>,
    /// Users whose processes are heard over Unix sockets, if not all.
    pub allow_uid: Option<Vec<u32>>,
    /// The map to publish.
    pub map: Option<MapSpec>,
    /// The value of each entry, in the map as in answers.
    pub map_value: MapValue,
    /// Least time between two publications.
    pub map_interval: Duration,
    /// Whether IPv6 addresses are published whose key would admit other hosts.
    pub map_inexact_ipv6: bool,
    /// Where Postfix asks.
    pub lookups: Lookups,
    /// Who may send as what, and what is known of users.
    pub sending: Sending,
    /// How long a login authorises.
    pub grace: Duration,
    /// If a client who stays connected stays authorised: for how long at most.
    pub session_ceiling: Option<Duration>,
    /// Most addresses held.
    pub max_clients: usize,
    /// What is matched and what excluded.
    pub matching: Matching,
    /// The state file.
    pub state: Option<PathBuf>,
    /// The control sockets.
    pub control: Control,
    /// Say what would be done, write no map and no state.
    pub dry_run: bool,
    /// Where monitoring asks, beside sockets that systemd passes.
    pub metrics: Option<Inet>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// What the log looks like, if the administrator says so.
    pub log_format: Option<LogFormat>,
}

impl Matching {
    /// The part of a layer that `test` and `daemons` need.
    pub fn of(layer: &Layer) -> Self {
        Self {
            daemons: layer.daemon.clone().map_or(Selection::Verified, Selection::Named),
            facilities: layer.facility.clone().unwrap_or_default(),
            hosts: listeners::hosts(layer),
            daemons_dir: layer.daemons_dir.clone().map_or(DaemonsDir::Default, DaemonsDir::Named),
            exclude: layer.exclude.clone().unwrap_or_else(|| ExcludeWhat::DEFAULT.to_vec()),
            postfix_config: layer.postfix_config.clone(),
        }
    }
}

impl DaemonsDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Default => Path::new(DEFAULT_DAEMONS_DIR),
            Self::Named(path) => path,
        }
    }
}

impl Config {
    /// Puts the defaults under a layer and checks what the options say to each other. `passed`
    /// is what the sockets are for that systemd has passed.
    ///
    /// # Errors
    /// Every contradiction there is.
    pub fn of(layer: &Layer, passed: &[SocketRole]) -> Result<Self, Failures> {
        let mut faults = Vec::new();
        let is_asked = |role| match role {
            SocketRole::Frames => layer.listen.as_ref().is_some_and(|list| !list.is_empty()),
            SocketRole::Socketmap => layer.socketmap.is_some(),
            SocketRole::Policy => layer.policy.is_some(),
            SocketRole::Metrics => layer.metrics.is_some(),
        } || passed.contains(&role);
        let lookups = Lookups::of(layer, is_asked(SocketRole::Socketmap), &mut faults);
        let sending = Sending::of(layer, is_asked(SocketRole::Policy), &mut faults);
        let control = Control::of(layer, &mut faults);
        let allow_uid = listeners::users(layer, &mut faults);
        let mut fault = |what: String, hint: &str| {
            faults.push(Failure::config(what).hint(hint));
        };
        let dry_run = layer.dry_run();
        let listen = layer.listen.clone().unwrap_or_default();
        if !is_asked(SocketRole::Frames) {
            fault(
                "there is no socket to receive syslog frames on".into(),
                "add --listen unix:/run/pop-before-smtp/log.sock or --listen udp:127.0.0.1:5514",
            );
        }
        let shown: Vec<String> = listen.iter().map(Listen::to_string).collect();
        if let Some(twice) = shown.iter().enumerate().find(|(i, l)| shown[..*i].contains(l)) {
            fault(format!("`{}` is listened on twice", twice.1), "name each socket once");
        }
        let tells =
            layer.map.is_some() || is_asked(SocketRole::Socketmap) || is_asked(SocketRole::Policy);
        if !tells && !dry_run {
            fault(
                "there is nothing to tell Postfix by".into(),
                "add --map auto:/var/lib/pop-before-smtp/clients, --socketmap or --policy, or \
                 --dry-run to only look on; sockets that systemd passes for it are known to the \
                 running daemon only",
            );
        }
        let value = layer.map_value().parse::<MapValue>();
        let value = value.unwrap_or_else(|why| {
            fault(
                format!("map-value `{}`: {why}", layer.map_value()),
                "leave it out, and it is OK",
            );
            MapValue::default()
        });
        let grace = layer.grace().0;
        if grace > MAX_GRACE {
            fault("grace: longer than 7 days".into(), "30m is usual");
        }
        let session_ceiling = layer.extend_while_connected.map(|span| span.0);
        if session_ceiling.is_some_and(|ceiling| ceiling > MAX_GRACE) {
            fault("extend-while-connected: longer than 7 days".into(), "24h is usual");
        }
        let max_clients = layer.max_clients();
        if !(1..=MAX_CLIENTS).contains(&max_clients) {
            fault(
                format!("max-clients: {max_clients} is not between 1 and {MAX_CLIENTS}"),
                "65536 is the default",
            );
        }
        let matching = Matching::of(layer);
        if matching.exclude.contains(&ExcludeWhat::None) && matching.exclude.len() > 1 {
            fault(
                "exclude: `none` stands beside others".into(),
                "name `none` alone, or the others",
            );
        }
        if let Selection::Named(names) = &matching.daemons
            && names.is_empty()
        {
            fault("daemon: the list is empty".into(), "leave it out to believe all verified ones");
        }
        if matching.hosts == Hosts::Named(Vec::new()) {
            fault("allow-host: the list is empty".into(), "leave it out to believe every host");
        }
        if let Some(path) = layer.state.as_ref().filter(|path| !path.is_absolute()) {
            let what = format!("state: `{}` is not an absolute path", path.display());
            fault(what, "begin it with /");
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            layer: layer.clone(),
            listen,
            allow_from: layer.allow_from.clone().unwrap_or_else(loopback),
            allow_uid,
            map: layer.map.clone(),
            map_value: value,
            map_interval: layer.map_interval().0,
            map_inexact_ipv6: layer.map_inexact_ipv6(),
            lookups,
            sending,
            grace,
            session_ceiling,
            max_clients,
            matching,
            state: (!dry_run).then(|| layer.state()),
            control,
            dry_run,
            metrics: layer.metrics,
            log_level: layer.log_level(),
            log_format: layer.log_format,
        })
    }
}

impl Config {
    /// The files that decide who may relay, and the directory of those of mail daemons.
    pub fn deciding_files(&self) -> impl Iterator<Item = &Path> {
        let named = [&self.layer.file, &self.sending.table, &self.state].into_iter().flatten();
        named.map(PathBuf::as_path).chain([self.matching.daemons_dir.path()])
    }

    /// What should be known though it keeps nothing from running.
    pub fn remarks(&self) -> Vec<String> {
        let map = self.map.is_some().then_some("map");
        let socketmap = self.lookups.by_socketmap.then_some("socketmap");
        let unbound: Vec<_> = map.into_iter().chain(socketmap).collect();
        let mut remarks = self.sending.remarks(&unbound);
        remarks.extend(self.lookups.remarks());
        remarks.extend(listeners::remarks(&self.listen, self.allow_uid.as_ref()));
        remarks
    }
}

/// 127.0.0.0/8 and ::1.
pub fn loopback() -> Vec<Network> {
    let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
    vec![Network(v4.into()), Network(v6.into())]
}
