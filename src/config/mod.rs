//! The configuration, as types that cannot hold wrong values.
//!
//! - **Layers**: [`values`] is the value of one option, [`options`] the table of all options,
//!   [`layer`] what one of command line, environment and file sets; [`Config`] is all three with the
//!   defaults, checked against each other. [`listeners`] checks senders and hosts, [`lookups`]
//!   Postfix's requests, [`control`] the control sockets, [`sending`] envelope senders,
//!   [`login_rules`] whose logins authorise, [`limiting`] how much may be relayed, [`cluster`] which
//!   hosts share their clients.
//! - **Not here**: what depends on the host, on Postfix and on descriptions of mail daemons
//!   ([`crate::rules`]).

pub mod cluster;
pub mod control;
pub mod daemon_names;
pub mod environment;
pub mod file;
pub mod layer;
pub mod limiting;
pub mod listeners;
pub mod login_rules;
pub mod lookups;
pub mod options;
pub mod rule_entry;
pub mod sending;
pub mod values;
pub mod written;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::maildaemons::Selection;
use crate::engine::message::hosts::Hosts;
use crate::error::{Failure, Failures};
use crate::postfix::map_spec::{MapSpec, MapValue};
use crate::sys::log::{LogFormat, LogLevel};
use cluster::ClusterOptions;
use control::Control;
use layer::Layer;
use limiting::Limiting;
use lookups::{Lookups, SocketRole};
use sending::Sending;
use values::{ExcludeWhat, Facilities, Inet, Listen, Network};

/// The default path of the control socket.
pub const DEFAULT_CONTROL: &str = "/run/pop-before-smtp/control.sock";
/// The default path of the state file.
pub const DEFAULT_STATE: &str = "/var/lib/pop-before-smtp/state";
/// The default directory of the administrator's own mail daemons.
pub const DEFAULT_DAEMONS_DIR: &str = "/etc/pop-before-smtp/daemons";

/// Longest grace: a login of last week says nothing about who has the address today.
const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most addresses that can be held: the largest map that was measured.
const MAX_CLIENTS: usize = 10_000_000;

/// Which messages count, from which hosts, and who is never authorised.
#[derive(Clone, Debug)]
pub struct Matching {
    /// The mail daemons whose logins count.
    pub daemons: Selection,
    /// The facilities to which some mail daemons are restricted.
    pub facilities: Vec<Facilities>,
    /// The hosts whose messages are accepted.
    pub hosts: Hosts,
    /// The directory of the administrator's own mail daemons.
    pub daemons_dir: DaemonsDir,
    /// What is never authorised.
    pub exclude: Vec<ExcludeWhat>,
    /// Postfix's configuration directory, if not its default.
    pub postfix_config: Option<PathBuf>,
}

/// The directory of the administrator's own mail daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonsDir {
    /// The default directory, which need not exist.
    Default,
    /// Named by the administrator, so it must exist.
    Named(PathBuf),
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The options as they were set.
    pub layer: Layer,
    /// The sockets that receive frames, without those that systemd passes.
    pub listen: Vec<Listen>,
    /// The networks whose UDP frames are accepted.
    pub allow_from: Vec<Network>,
    /// The users whose processes may send over Unix sockets; `None` accepts all.
    pub allow_uid: Option<Vec<u32>>,
    /// The map to publish.
    pub map: Option<MapSpec>,
    /// The value of each entry, in the map and in answers.
    pub map_value: MapValue,
    /// Longest pause after a publication.
    pub map_interval: Duration,
    /// Whether IPv6 addresses are published even if their key would admit other hosts.
    pub map_inexact_ipv6: bool,
    /// The sockets for Postfix's requests.
    pub lookups: Lookups,
    /// The rules for envelope senders and the use of user names.
    pub sending: Sending,
    /// How much may be relayed.
    pub limiting: Limiting,
    /// How long a login authorises.
    pub grace: Duration,
    /// How long a connected client stays authorised at most; `None` switches sessions off.
    pub session_ceiling: Option<Duration>,
    /// Maximum number of addresses.
    pub max_clients: usize,
    /// Which messages count, and who is excluded.
    pub matching: Matching,
    /// The state file.
    pub state: Option<PathBuf>,
    /// The control sockets.
    pub control: Control,
    /// The other hosts, if there are any.
    pub cluster: Option<ClusterOptions>,
    /// Whether to log what would be done, and write no map and no state.
    pub dry_run: bool,
    /// The socket for metrics and health checks, without those that systemd passes.
    pub metrics: Option<Inet>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// The format of the log, if the administrator sets one.
    pub log_format: Option<LogFormat>,
}

impl Matching {
    /// Takes the options that `test` and `daemons` need from a layer.
    pub fn from_layer(layer: &Layer) -> Self {
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
    /// Returns its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Default => Path::new(DEFAULT_DAEMONS_DIR),
            Self::Named(path) => path,
        }
    }
}

impl Config {
    /// Adds the defaults to a layer and checks the options against each other. `passed` are the
    /// roles of the sockets that systemd has passed.
    ///
    /// # Errors
    /// Every wrong option and every contradiction.
    pub fn from_layer(layer: &Layer, passed: &[SocketRole]) -> Result<Self, Failures> {
        let mut faults = layer.faults.clone();
        // What is missing because of another fault is no fault of its own.
        let is_read = |names: &[&str]| !names.iter().any(|name| layer.unread.contains(name));
        let has_socket = |role| match role {
            SocketRole::Frames => layer.listen.as_ref().is_some_and(|list| !list.is_empty()),
            SocketRole::Socketmap => layer.socketmap.is_some(),
            SocketRole::Policy => layer.policy.is_some(),
            SocketRole::Metrics => layer.metrics.is_some(),
        } || passed.contains(&role);
        let lookups = Lookups::from_layer(layer, has_socket(SocketRole::Socketmap), &mut faults);
        let sending = Sending::from_layer(layer, has_socket(SocketRole::Policy), &mut faults);
        let limiting = Limiting::from_layer(layer, has_socket(SocketRole::Policy), &mut faults);
        let control = Control::from_layer(layer, &mut faults);
        let cluster = ClusterOptions::from_layer(layer, &mut faults);
        let allow_uid = listeners::users(layer, &mut faults);
        login_rules::check(layer, &mut faults);
        let mut fault = |what: String, hint: &str| {
            faults.push(Failure::config(what).hint(hint));
        };
        let how = |name, value| layer.how_to_set(name, value);
        let dry_run = layer.dry_run();
        let listen = layer.listen.clone().unwrap_or_default();
        if !has_socket(SocketRole::Frames) && is_read(&["listen"]) {
            let local = how("listen", "unix:/run/pop-before-smtp/log.sock");
            fault(
                "there is no socket to receive syslog frames on".into(),
                &format!("{local}; for other hosts udp:ADDRESS:514"),
            );
        }
        let shown: Vec<String> = listen.iter().map(Listen::to_string).collect();
        if let Some(twice) = shown.iter().enumerate().find(|(i, l)| shown[..*i].contains(l)) {
            fault(format!("listen: `{}` is named twice", twice.1), "name each socket once");
        }
        let has_output = layer.map.is_some()
            || has_socket(SocketRole::Socketmap)
            || has_socket(SocketRole::Policy);
        if !has_output && !dry_run && is_read(&["map", "socketmap", "policy", "dry-run"]) {
            let map = how("map", "auto:/var/lib/pop-before-smtp/clients");
            fault(
                "there is neither a map nor a socket for Postfix".into(),
                &format!(
                    "{map}, or set socketmap or policy, or dry-run to only log; only the running \
                     daemon knows the sockets that systemd passes"
                ),
            );
        }
        let value = layer.map_value().parse::<MapValue>();
        let value = value.unwrap_or_else(|why| {
            fault(
                format!("map-value `{}`: {why}", layer.map_value()),
                "remove it to use the default, OK",
            );
            MapValue::default()
        });
        let grace = layer.grace().0;
        if grace > MAX_GRACE {
            fault("grace: longer than 7 days".into(), &how("grace", "30m"));
        }
        let session_ceiling = layer.extend_while_connected.map(|span| span.0);
        if session_ceiling.is_some_and(|ceiling| ceiling > MAX_GRACE) {
            let hint = how("extend-while-connected", "24h");
            fault("extend-while-connected: longer than 7 days".into(), &hint);
        }
        let max_clients = layer.max_clients();
        if !(1..=MAX_CLIENTS).contains(&max_clients) {
            fault(
                format!("max-clients: {max_clients} is not between 1 and {MAX_CLIENTS}"),
                &how("max-clients", "65536"),
            );
        }
        let matching = Matching::from_layer(layer);
        if matching.exclude.contains(&ExcludeWhat::None) && matching.exclude.len() > 1 {
            fault(
                "exclude: `none` cannot be combined with other values".into(),
                "use `none` alone, or remove it",
            );
        }
        if let Selection::Named(names) = &matching.daemons
            && names.is_empty()
        {
            fault("daemon: the list is empty".into(), "remove it to accept all verified ones");
        }
        if matching.hosts == Hosts::Named(Vec::new()) {
            fault("allow-host: the list is empty".into(), "remove it to accept every host");
        }
        if let Some(path) = layer.state.as_ref().filter(|path| !path.is_absolute()) {
            let what = format!("state: `{}` is not an absolute path", path.display());
            fault(what, &how("state", DEFAULT_STATE));
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
            limiting,
            grace,
            session_ceiling,
            max_clients,
            matching,
            state: (!dry_run).then(|| layer.state()),
            control,
            cluster: cluster.filter(|_| !dry_run),
            dry_run,
            metrics: layer.metrics,
            log_level: layer.log_level(),
            log_format: layer.log_format,
        })
    }
}

impl Config {
    /// Returns the files that decide who may relay, and the directory of mail daemons.
    pub fn deciding_files(&self) -> impl Iterator<Item = &Path> {
        let tables = [&self.sending.table, &self.limiting.table];
        let named = [&self.layer.file, &self.state].into_iter().chain(tables).flatten();
        let excluding = self.matching.exclude.iter().filter_map(|what| match what {
            ExcludeWhat::File(path) => Some(path),
            _ => None,
        });
        let named = named.chain(excluding).map(PathBuf::as_path);
        named.chain([self.matching.daemons_dir.path()])
    }

    /// Returns warnings that do not prevent the start.
    pub fn remarks(&self) -> Vec<String> {
        let map = self.map.is_some().then_some("map");
        let socketmap = self.lookups.by_socketmap.then_some("socketmap");
        let unrestricted: Vec<_> = map.into_iter().chain(socketmap).collect();
        let mut remarks = self.layer.remarks.clone();
        remarks.extend(self.sending.remarks(&unrestricted));
        remarks.extend(self.limiting.remarks(&unrestricted));
        remarks.extend(self.lookups.remarks());
        remarks.extend(listeners::remarks(self));
        remarks.extend(self.cluster.iter().flat_map(ClusterOptions::remarks));
        if self.matching.exclude == [ExcludeWhat::None] {
            remarks.push(
                "exclude: with `none` a login from this host or its gateway also authorises, such as \
                 a webmail's: then all its users, or all clients behind the gateway, may relay"
                    .into(),
            );
        }
        remarks
    }
}

/// Returns 127.0.0.0/8 and ::1.
pub fn loopback() -> Vec<Network> {
    let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
    vec![Network(v4.into()), Network(v6.into())]
}
