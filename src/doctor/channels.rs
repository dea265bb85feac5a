//! The channels by which the daemon tells Postfix who may relay, and their names in main.cf.
//!
//! - **Promise**: names are compared as smtpd resolves them: socket paths are relative to the queue
//!   directory, and inside it if the service is chrooted.

use crate::sys::unix_socket::UnixSocket;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::permissions::real;
use super::postfix::restrictions::{Restriction, policy_call};
use crate::config::Config;
use crate::config::values::Serve;
use crate::control::status::Status;

/// A channel by which the daemon tells Postfix who may relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The daemon publishes this table.
    Map(String),
    /// The daemon answers the socketmap protocol here.
    Socketmap(Serve),
    /// The daemon answers the policy protocol here.
    Policy(Serve),
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(table) => write!(f, "map {table}"),
            Self::Socketmap(serve) => write!(f, "socketmap {serve}"),
            Self::Policy(serve) => write!(f, "policy {serve}"),
        }
    }
}

/// The socket to which a restriction makes smtpd connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// `unix:PATH` or `inet:HOST:PORT`.
    pub name: &'a str,
    /// proxymap(8) connects instead of smtpd.
    pub proxied: bool,
}

impl Channel {
    /// Returns the channels of the running daemon.
    pub fn running(status: &Status) -> Vec<Self> {
        let map = status.map.table.clone().map(Self::Map);
        let lookups = status.lookups.iter().filter_map(|lookup| {
            // A socket passed by systemd may have no path.
            let serve = lookup.address.parse().ok()?;
            Some(if lookup.protocol == "policy" {
                Self::Policy(serve)
            } else {
                Self::Socketmap(serve)
            })
        });
        map.into_iter().chain(lookups).collect()
    }

    /// Returns the channels of a configuration; `table` is its map as main.cf names it.
    pub fn configured(config: &Config, table: Option<String>) -> Vec<Self> {
        if config.dry_run {
            return Vec::new();
        }
        let socketmap = config.lookups.socketmap.clone().map(Self::Socketmap);
        let policy = config.lookups.policy.clone().map(Self::Policy);
        table.map(Self::Map).into_iter().chain(socketmap).chain(policy).collect()
    }

    /// Returns the socket, unless it is a map.
    pub fn serve(&self) -> Option<&Serve> {
        match self {
            Self::Map(_) => None,
            Self::Socketmap(serve) | Self::Policy(serve) => Some(serve),
        }
    }

    /// Returns the endpoint of a restriction, if it is of the kind that can query this channel.
    pub fn endpoint<'a>(&self, restriction: &'a Restriction) -> Option<Endpoint<'a>> {
        let argument = restriction.argument.as_deref()?;
        match self {
            Self::Map(_) => None,
            Self::Socketmap(_) => {
                let (table, proxied) = table_of(restriction, "check_client_access")?;
                let (name, _) = table.strip_prefix("socketmap:")?.rsplit_once(':')?;
                Some(Endpoint { name, proxied })
            }
            Self::Policy(_) => (restriction.name == "check_policy_service")
                .then(|| Endpoint { name: policy_call(argument, "").0, proxied: false }),
        }
    }

    /// Returns whether a restriction is meant to query this channel, even if smtpd would not find the
    /// socket under the name given.
    pub fn is_meant_by(&self, restriction: &Restriction, queue: &Path) -> bool {
        if let Self::Map(ours) = self {
            return table_of(restriction, "check_client_access").is_some_and(|(t, _)| t == ours);
        }
        let (Some(serve), Some(endpoint)) = (self.serve(), self.endpoint(restriction)) else {
            return false;
        };
        match (serve, endpoint.name.split_once(':')) {
            (Serve::Unix(UnixSocket { path: ours, .. }), Some(("unix", path))) => {
                let seen = [false, true].map(|chrooted| seen_by_smtpd(path, queue, chrooted));
                seen.iter().any(|seen| is_same(seen, ours))
                    || last_two(Path::new(path)) == last_two(ours)
            }
            (Serve::Inet(ours), Some(("inet", address))) => {
                address.rsplit(':').next() == Some(&*ours.port().to_string())
            }
            _ => false,
        }
    }

    /// Returns the restriction for main.cf. Sockets inside the queue directory get a relative path.
    pub fn restriction(&self, queue: &Path) -> String {
        let endpoint = |serve: &Serve| match serve {
            Serve::Inet(_) => serve.to_string(),
            Serve::Unix(socket) => {
                format!("unix:{}", main_cf_path(&socket.path, queue).display())
            }
        };
        match self {
            Self::Map(table) => format!("check_client_access {table}"),
            Self::Socketmap(serve) => {
                format!("check_client_access socketmap:{}:clients", endpoint(serve))
            }
            Self::Policy(serve) => format!(
                "check_policy_service {{ {}, timeout=3s, default_action=DUNNO }}",
                endpoint(serve)
            ),
        }
    }
}

/// Returns the table of a restriction with this name, and whether proxymap(8) opens it.
pub fn table_of<'a>(restriction: &'a Restriction, name: &str) -> Option<(&'a str, bool)> {
    let argument = restriction.argument.as_deref().filter(|_| restriction.name == name)?;
    let bare = argument.strip_prefix("proxy:");
    Some((bare.unwrap_or(argument), bare.is_some()))
}

/// Returns the last two components. They identify a socket that was moved: a name such as `policy`
/// alone would not.
fn last_two(path: &Path) -> Vec<Component<'_>> {
    path.components().rev().take(2).collect()
}

/// Returns a socket's path as an smtpd resolves it.
pub fn seen_by_smtpd(path: &str, queue: &Path, chrooted: bool) -> PathBuf {
    match path.strip_prefix('/') {
        Some(inside) if chrooted => queue.join(inside),
        // The working directory of every service is the queue directory.
        _ => queue.join(path),
    }
}

/// Returns whether two paths refer to the same file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    match (real(one), real(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Returns the path of a file relative to a directory, if it is inside.
pub fn below(path: &Path, directory: &Path) -> Option<PathBuf> {
    let (path, directory) = (real(path).ok()?, real(directory).ok()?);
    path.strip_prefix(directory).ok().map(Path::to_owned)
}

fn main_cf_path(path: &Path, queue: &Path) -> PathBuf {
    below(path, queue).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::postfix::restrictions;

    #[test]
    fn recognises_channels_in_main_cf() {
        let queue = Path::new("/nowhere/queue");
        let map = Channel::Map("hash:/var/lib/pop-before-smtp/clients".into());
        let unix = |path: &str| Serve::Unix(UnixSocket::at(path));
        let inet = || Serve::Inet("127.0.0.1:10040".parse().expect("an address"));
        let policy = Channel::Policy(unix("/nowhere/queue/pbs/policy"));
        let socketmap = Channel::Socketmap(unix("/nowhere/queue/pbs/asked"));
        let rows = [
            (&map, "check_client_access hash:/var/lib/pop-before-smtp/clients", true),
            (&map, "check_client_access proxy:hash:/var/lib/pop-before-smtp/clients", true),
            (&map, "check_client_access lmdb:/var/lib/pop-before-smtp/clients", false),
            (&map, "check_sender_access hash:/var/lib/pop-before-smtp/clients", false),
            (&map, "check_client_access", false),
            (&policy, "check_policy_service unix:pbs/policy", true),
            (&policy, "check_policy_service unix:/pbs/policy", true),
            (&policy, "check_policy_service { unix:/nowhere/queue/pbs/policy, timeout=3s }", true),
            (&policy, "check_policy_service unix:/run/pbs/policy", true),
            (&policy, "check_policy_service unix:private/policy", false),
            (&policy, "check_policy_service unix:private/postgrey", false),
            (&policy, "check_policy_service inet:127.0.0.1:10040", false),
            (&Channel::Policy(inet()), "check_policy_service inet:localhost:10040", true),
            (&Channel::Policy(inet()), "check_policy_service inet:127.0.0.1:10023", false),
            (&socketmap, "check_client_access socketmap:unix:pbs/asked:clients", true),
            (&socketmap, "check_client_access proxy:socketmap:unix:pbs/asked:any", true),
            (&socketmap, "check_policy_service unix:pbs/asked", false),
            (&Channel::Socketmap(inet()), "check_client_access socketmap:inet:[::1]:10040:x", true),
        ];
        for (channel, text, expected) in rows {
            let list = restrictions::read(text);
            assert_eq!(channel.is_meant_by(&list[0], queue), expected, "{channel}, {text}");
        }
    }

    #[test]
    fn paths_as_smtpd_resolves_them() {
        for (path, chrooted, expected) in [
            ("pbs/policy", true, "/q/pbs/policy"),
            ("pbs/policy", false, "/q/pbs/policy"),
            ("/run/policy", true, "/q/run/policy"),
            ("/run/policy", false, "/run/policy"),
        ] {
            assert_eq!(seen_by_smtpd(path, Path::new("/q"), chrooted), Path::new(expected));
        }
    }
}
