//! Builds the engine's rules from the configuration, the administrator's daemon files, the host and
//! Postfix.
//!
//! - **Promise**: reports all faults at once. If Postfix's `mynetworks` cannot be read, that is a
//!   remark by default, and a fault only if it was configured explicitly.

mod excluded;
pub mod limits;
pub mod login_rules;
pub mod sender_logins;
mod table_file;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ipnet::IpNet;

use crate::config::values::{ExcludeWhat, Facilities, Network};
use crate::config::{Config, DaemonsDir, Matching, loopback};
use crate::engine::Rules;
use crate::engine::grants::exclude::{Exclude, NetworkList};
use crate::engine::maildaemons;
use crate::engine::maildaemons::{DaemonFile, DaemonTable, DescriptionFault, MailDaemon};
use crate::engine::proof::{claims, examples};
use crate::error::Failure;
use crate::postfix::Postfix;
use crate::postfix::mynetworks::Mynetworks;
use crate::sys::host;
use crate::sys::trusted_file;

/// Longest daemon file in bytes; the built-in ones have a tenth of it.
const MAX_FILE: u64 = 1 << 20;

/// What is never authorised: fixed lists, and lists that the host determines each time.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    fixed: Vec<NetworkList>,
    own: bool,
    gateway: bool,
    /// What could not be determined or understood.
    pub remarks: Vec<String>,
}

impl Exclusions {
    /// Determines the fixed lists, querying Postfix if necessary.
    ///
    /// # Errors
    /// `mynetworks` was configured explicitly and cannot be read, or a file with networks is invalid.
    pub async fn determine(matching: &Matching) -> Result<Self, Failure> {
        let mut exclusions = Self::default();
        let mut networks = Vec::new();
        for what in &matching.exclude {
            match what {
                ExcludeWhat::Loopback => exclusions.add("loopback", loopback()),
                ExcludeWhat::LinkLocal => exclusions.add("link-local", link_local()),
                ExcludeWhat::Own => exclusions.own = true,
                ExcludeWhat::Gateway => exclusions.gateway = true,
                ExcludeWhat::Mynetworks => match mynetworks(matching).await {
                    Ok(found) => {
                        exclusions.remarks.extend(found.not_understood());
                        let rules = found.networks().to_vec();
                        exclusions.fixed.push(NetworkList::ordered("mynetworks", rules));
                    }
                    Err(failure) if matching.exclude == ExcludeWhat::DEFAULT => {
                        exclusions.remarks.push(format!(
                            "mynetworks is not excluded: {}; list what must never be authorised \
                             in `exclude`",
                            failure.what()
                        ));
                    }
                    Err(failure) => return Err(failure),
                },
                ExcludeWhat::Network(network) => networks.push(*network),
                ExcludeWhat::File(path) => {
                    exclusions.add(&format!("file:{}", path.display()), excluded::read_file(path)?);
                }
                ExcludeWhat::None => {}
            }
        }
        exclusions.add("exclude", networks);
        Ok(exclusions)
    }

    fn add(&mut self, name: &str, networks: Vec<Network>) {
        self.fixed.push(NetworkList::new(name, networks.into_iter().map(|network| network.0)));
    }

    /// Returns the lists with the host's current addresses and gateways.
    ///
    /// # Errors
    /// The kernel does not report addresses or routes.
    pub fn now(&self) -> io::Result<Exclude> {
        let mut lists = self.fixed.clone();
        let mut add = |name: &str, addresses: Vec<std::net::IpAddr>| {
            lists.push(NetworkList::new(name, addresses.into_iter().map(IpNet::from)));
        };
        if self.own {
            add("own", host::own_addresses()?);
        }
        if self.gateway {
            add("gateway", host::gateways()?);
        }
        Ok(Exclude(lists))
    }
}

fn link_local() -> Vec<Network> {
    let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16);
    let v6 = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    vec![Network(v4.into()), Network(ipnet::Ipv6Net::new_assert(v6, 10).into())]
}

async fn mynetworks(matching: &Matching) -> Result<Mynetworks, Failure> {
    let postfix = Postfix::locate(matching.postfix_config.clone())?;
    Ok(Mynetworks::read(&postfix.parameter("mynetworks").await?))
}

/// Reads the administrator's daemon files; with a failure for each file, or for a configured
/// directory that cannot be read.
fn own_daemons(dir: &DaemonsDir) -> (Vec<DaemonFile>, Vec<Failure>) {
    let mut paths = match trusted_file::list(dir.path()) {
        Ok(paths) => paths,
        Err(refusal) if *dir == DaemonsDir::Default && refusal.is_missing() => Vec::new(),
        Err(refusal) => {
            let hint = "create it, or remove daemons-dir";
            let kind = "directory with mail daemons";
            return (Vec::new(), vec![refusal.failure(Failure::config, kind, hint)]);
        }
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for path in &paths {
        match read_daemon(path) {
            Ok(file) => files.push(file),
            Err(failure) => faults.push(failure),
        }
    }
    (files, faults)
}

fn read_daemon(path: &Path) -> Result<DaemonFile, Failure> {
    let origin = path.display().to_string();
    let bytes = trusted_file::read(path, MAX_FILE).map_err(|refusal| {
        let hint = "the daemon's user must be able to read it";
        refusal.failure(Failure::config, "mail daemon's file", hint)
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::config(format!("`{origin}` is not UTF-8 text")))?;
    Ok(DaemonFile { origin: Some(origin), text })
}

/// Loads the table of accepted mail daemons, without checking examples.
///
/// # Errors
/// Every fault of every file except false examples, and every facility of an unknown daemon.
pub fn load(matching: &Matching) -> Result<DaemonTable, Vec<Failure>> {
    let (own, faults) = own_daemons(&matching.daemons_dir);
    if !faults.is_empty() {
        return Err(faults);
    }
    let loaded = DaemonTable::load(&own, &matching.daemons).map_err(|faults| failures(&faults));
    let mut table = loaded?;
    let mut facilities: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for Facilities { daemon, codes } in &matching.facilities {
        facilities.entry(daemon).or_default().extend(codes);
    }
    let set = facilities.iter().filter_map(|(name, codes)| table.set_facilities(name, codes).err());
    let faults: Vec<DescriptionFault> = set.collect();
    if faults.is_empty() { Ok(table) } else { Err(failures(&faults)) }
}

/// Returns the examples in the administrator's files that do not hold. Those of the built-in files are
/// checked when the program is tested.
pub fn false_examples(table: &DaemonTable) -> Vec<Failure> {
    let own = table.daemons().iter().filter(|daemon| daemon.origin.is_some());
    failures(&own.flat_map(examples::prove).collect::<Vec<_>>())
}

/// Loads the table of accepted mail daemons and checks their examples.
///
/// # Errors
/// Every fault of every file.
pub fn table(matching: &Matching) -> Result<DaemonTable, Vec<Failure>> {
    let table = load(matching)?;
    let faults = false_examples(&table);
    if faults.is_empty() { Ok(table) } else { Err(faults) }
}

fn failures(faults: &[DescriptionFault]) -> Vec<Failure> {
    faults.iter().map(|fault| Failure::config(fault.to_string())).collect()
}

/// Proves that no message of any daemon in the table is mistaken for a login by the administrator's
/// patterns, nor a message of theirs by the built-in patterns. (Between built-in ones this is proved
/// when the program is tested.) Returns remarks.
///
/// # Errors
/// Every pattern for which this could not be proved, with a message to try.
pub fn prove(table: &DaemonTable) -> Result<Vec<String>, Vec<Failure>> {
    let is_own = |daemon: &MailDaemon| daemon.origin.is_some();
    let faults = claims::prove(table.daemons(), |one, other| is_own(one) || is_own(other));
    if !faults.is_empty() {
        return Err(failures(&faults));
    }
    let mut remarks = Vec::new();
    for daemon in table.daemons() {
        let Some(origin) = &daemon.origin else { continue };
        if maildaemons::BUILT_IN.iter().any(|(name, _)| **name == *daemon.name) {
            remarks.push(format!("`{origin}` replaces the built-in `{}`", daemon.name));
        }
        if daemon.shapes.is_empty() {
            remarks.push(format!(
                "`{origin}` has no [[shape]]: it is not proved that unauthenticated clients \
                 cannot make `{}` log a login",
                daemon.name
            ));
        }
    }
    Ok(remarks)
}

/// Returns all daemons, built-in and sound ones of the administrator, and the faults of the others.
pub fn all_daemons(dir: &DaemonsDir) -> (Vec<MailDaemon>, Vec<Failure>) {
    let (own, unread) = own_daemons(dir);
    let (daemons, mut faults) = maildaemons::all(&own);
    faults.extend(daemons.iter().filter(|d| d.origin.is_some()).flat_map(examples::prove));
    (daemons, failures(&faults).into_iter().chain(unread).collect())
}

/// Builds the engine's rules, and returns the exclusions in them.
///
/// # Errors
/// All faults.
pub async fn build(config: &Config) -> Result<(Rules, Exclusions), Vec<Failure>> {
    let determined = determine(&config.matching).await;
    let limits = limits::limits(&config.limiting);
    match (determined, sender_logins::senders(config).await, limits) {
        (Ok((table, exclude, mut exclusions)), Ok(senders), Ok(limits)) => {
            exclusions.remarks.extend(config.remarks());
            let logins = login_rules::login_rules(&config.layer);
            exclusions.remarks.extend(login_rules::remarks(&logins));
            exclusions.remarks.extend(limits::remark(&limits, senders.binding));
            exclusions.remarks.extend(trusted_file::remarks(config.deciding_files()));
            let rules = Rules {
                table,
                hosts: config.matching.hosts.clone(),
                grace: config.grace,
                logins,
                max_clients: config.max_clients,
                exclude,
                remember_users: config.sending.remember_users,
                max_users: config.sending.max_users,
                senders,
                limits,
                session_ceiling: config.session_ceiling,
                longest_pause: config.map_interval,
                // Without a map there are no inexact keys.
                publish_inexact: config.map_inexact_ipv6 || config.map.is_none(),
            };
            Ok((rules, exclusions))
        }
        (determined, senders, limits) => {
            let mut faults = determined.err().unwrap_or_default();
            faults.extend(senders.err());
            faults.extend(limits.err());
            Err(faults)
        }
    }
}

/// Loads the table of mail daemons, and determines what is excluded now.
///
/// # Errors
/// All faults.
pub async fn determine(
    matching: &Matching,
) -> Result<(DaemonTable, Exclude, Exclusions), Vec<Failure>> {
    match (table(matching), exclude(matching).await) {
        (Ok(table), Ok((exclude, exclusions))) => Ok((table, exclude, exclusions)),
        (table, exclusions) => {
            let mut faults = table.err().unwrap_or_default();
            faults.extend(exclusions.err());
            Err(faults)
        }
    }
}

/// Determines what is excluded now, and how to determine it again.
///
/// # Errors
/// Postfix or the kernel does not report it.
pub async fn exclude(matching: &Matching) -> Result<(Exclude, Exclusions), Failure> {
    let exclusions = Exclusions::determine(matching).await?;
    let exclude = exclusions.now();
    let exclude = exclude.map_err(|error| {
        Failure::io(format!("cannot read this host's addresses and routes: {error}"))
    })?;
    Ok((exclude, exclusions))
}
