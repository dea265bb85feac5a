//! From the configuration, the users' own daemon files, the host and Postfix to the engine's rules.
//!
//! Promise  everything that is wrong is found in one go. What cannot be learned of Postfix's
//!          `mynetworks` is said; only if it was asked for by name is it a fault.

pub mod sender_logins;

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

/// No daemon's description is longer; the built-in ones have a tenth of it.
const MAX_FILE: u64 = 1 << 20;

/// What is never authorised: lists that stay, and what the host must be asked again.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    fixed: Vec<NetworkList>,
    own: bool,
    gateway: bool,
    /// What could not be learned or understood, in sentences.
    pub remarks: Vec<String>,
}

impl Exclusions {
    /// Asks Postfix what must be asked once.
    ///
    /// # Errors
    /// `mynetworks` was asked for by name and cannot be learned.
    pub async fn learn(matching: &Matching) -> Result<Self, Failure> {
        let mut learned = Self::default();
        let mut networks = Vec::new();
        for what in &matching.exclude {
            match what {
                ExcludeWhat::Loopback => learned.add("loopback", loopback()),
                ExcludeWhat::LinkLocal => learned.add("link-local", link_local()),
                ExcludeWhat::Own => learned.own = true,
                ExcludeWhat::Gateway => learned.gateway = true,
                ExcludeWhat::Mynetworks => match mynetworks(matching).await {
                    Ok(found) => {
                        learned.remarks.extend(found.not_understood());
                        let rules = found.networks().to_vec();
                        learned.fixed.push(NetworkList { name: "mynetworks".into(), rules });
                    }
                    Err(failure) if matching.exclude == ExcludeWhat::DEFAULT => {
                        learned.remarks.push(format!(
                            "mynetworks is not excluded: {}; name what is never authorised with \
                             --exclude",
                            failure.what()
                        ));
                    }
                    Err(failure) => return Err(failure),
                },
                ExcludeWhat::Network(network) => networks.push(*network),
                ExcludeWhat::None => {}
            }
        }
        learned.add("exclude", networks);
        Ok(learned)
    }

    fn add(&mut self, name: &str, networks: Vec<Network>) {
        self.fixed.push(NetworkList::new(name, networks.into_iter().map(|network| network.0)));
    }

    /// The lists as they are now; the host may have got other addresses.
    ///
    /// # Errors
    /// The host does not tell its addresses or routes.
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

/// Reads the users' own daemon files; with a failure for a directory that was named and cannot be
/// read, and for each file.
fn own_daemons(dir: &DaemonsDir) -> (Vec<DaemonFile>, Vec<Failure>) {
    let mut paths = match trusted_file::list(dir.path()) {
        Ok(paths) => paths,
        Err(refusal) if *dir == DaemonsDir::Default && refusal.is_missing() => Vec::new(),
        Err(refusal) => {
            let hint = "name a directory of TOML files with --daemons-dir";
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

/// The table of the daemons that are believed, whatever their examples say.
///
/// # Errors
/// Every fault of every file but those of examples, and every facility of a daemon that no file has.
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

/// The users' own examples that do not prove true. The built-in ones are proved when the program
/// is tested.
pub fn false_examples(table: &DaemonTable) -> Vec<Failure> {
    let users = table.daemons().iter().filter(|daemon| daemon.origin.is_some());
    failures(&users.flat_map(examples::prove).collect::<Vec<_>>())
}

/// The table of the daemons that are believed, each of which has proved its examples.
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

/// Proves that the users' own patterns cannot be deceived by the messages of any daemon of the
/// table, nor the built-in ones by those of the users' own. (The built-in ones among themselves
/// are proved when the program is tested.) With remarks on what deserves a second look.
///
/// # Errors
/// Every pattern of which this could not be proved, with a message to try.
pub fn prove(table: &DaemonTable) -> Result<Vec<String>, Vec<Failure>> {
    let users = |daemon: &MailDaemon| daemon.origin.is_some();
    let faults = claims::prove(table.daemons(), |one, other| users(one) || users(other));
    if !faults.is_empty() {
        return Err(failures(&faults));
    }
    let mut remarks = Vec::new();
    for daemon in table.daemons() {
        let Some(origin) = &daemon.origin else { continue };
        if maildaemons::BUILT_IN.iter().any(|(name, _)| **name == *daemon.name) {
            remarks.push(format!("`{origin}` takes the place of the built-in `{}`", daemon.name));
        }
        if daemon.shapes.is_empty() {
            remarks.push(format!(
                "`{origin}` has no [[shape]]: nothing is proved of what a stranger can make \
                 `{}` write",
                daemon.name
            ));
        }
    }
    Ok(remarks)
}

/// Every daemon that can be named, with those of the users' own that are sound, and the faults of
/// the others.
pub fn all_daemons(dir: &DaemonsDir) -> (Vec<MailDaemon>, Vec<Failure>) {
    let (own, unread) = own_daemons(dir);
    let (daemons, mut faults) = maildaemons::all(&own);
    faults.extend(daemons.iter().filter(|d| d.origin.is_some()).flat_map(examples::prove));
    (daemons, failures(&faults).into_iter().chain(unread).collect())
}

/// The engine's rules, and the exclusions they were made with.
///
/// # Errors
/// Everything that is wrong.
pub async fn build(config: &Config) -> Result<(Rules, Exclusions), Vec<Failure>> {
    let learned = learn(&config.matching).await;
    match (learned, sender_logins::senders(config).await) {
        (Ok((table, exclude, mut exclusions)), Ok(senders)) => {
            exclusions.remarks.extend(config.remarks());
            exclusions.remarks.extend(trusted_file::remarks(config.deciding_files()));
            let rules = Rules {
                table,
                hosts: config.matching.hosts.clone(),
                grace: config.grace,
                max_clients: config.max_clients,
                exclude,
                remember_users: config.sending.remember_users,
                max_users: config.sending.max_users,
                senders,
                session_ceiling: config.session_ceiling,
                publish_interval: config.map_interval,
                // Without a map there is nothing to keep an address out of.
                publish_inexact: config.map_inexact_ipv6 || config.map.is_none(),
            };
            Ok((rules, exclusions))
        }
        (learned, senders) => {
            let mut faults = learned.err().unwrap_or_default();
            faults.extend(senders.err());
            Err(faults)
        }
    }
}

/// What is matched, and what excluded now.
///
/// # Errors
/// Everything that is wrong.
pub async fn learn(
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

/// What is excluded now, and how to learn it again.
///
/// # Errors
/// Postfix or the host does not tell.
pub async fn exclude(matching: &Matching) -> Result<(Exclude, Exclusions), Failure> {
    let exclusions = Exclusions::learn(matching).await?;
    let exclude = exclusions.now();
    let exclude = exclude
        .map_err(|error| Failure::io(format!("cannot learn this host's addresses: {error}")))?;
    Ok((exclude, exclusions))
}
