//! The options that let several hosts share one set of clients, checked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::options::Layer;
use crate::engine::cluster::ruling::host_name;
use crate::error::{Failure, Failures};
use crate::sys::host;

/// The port of Redis and Valkey.
const PORT: u16 = 6379;

/// Where the store is: `redis://[USER@]HOST[:PORT][/DB]`, `rediss://...` (TLS) or
/// `redis+unix://[USER@]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// Where to connect.
    pub address: StoreAddress,
    /// The user of the store; `None`: its default user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: i64,
    text: String,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// A host and a port.
    Tcp {
        /// The name or address of the host.
        host: String,
        /// The port.
        port: u16,
        /// Whether to use TLS.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no store; write redis://HOST:{PORT}, rediss://HOST:{PORT} (TLS) or \
                 redis+unix:///PATH"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(
                    "a password does not belong here: everybody can see it; write it into a \
                            file and name that in cluster-password-file"
                        .into(),
                );
            }
            Some((user, rest)) if !user.is_empty() => (Some(user.to_owned()), rest),
            Some(_) => return Err(wrong()),
            None => (None, rest),
        };
        let (address, database) = match scheme {
            "redis+unix" if rest.len() > 1 && rest.starts_with('/') => {
                (StoreAddress::Unix(rest.into()), 0)
            }
            "redis" | "rediss" => {
                let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
                let database = if database.is_empty() { Ok(0) } else { database.parse::<u16>() };
                let (host, port) = host_and_port(place).ok_or_else(wrong)?;
                let tls = scheme == "rediss";
                (StoreAddress::Tcp { host, port, tls }, database.map_err(|_| wrong())?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self { address, user, database: database.into(), text: text.to_owned() })
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let is_plain = !host.is_empty() && host.bytes().all(is_host);
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
    is_plain.then(|| (host.to_owned(), port))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Several hosts with one set of clients.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The store; of several the one that is primary.
    pub stores: Vec<StoreUrl>,
    /// The site: hosts with the same name share one set.
    pub name: String,
    /// How the others call this host.
    pub host: String,
    /// The file with the store's password.
    pub password_file: Option<PathBuf>,
    /// The file with the certificates of authorities, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The files with this host's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClusterOptions {
    /// Takes the options from a layer and adds what is wrong with them to `faults`.
    pub fn from_layer(layer: &Layer, faults: &mut Failures) -> Option<Self> {
        let mut fault = |what: &str, hint: &str| faults.push(Failure::config(what).hint(hint));
        let stores = layer.cluster.clone().unwrap_or_default();
        let companions = [
            ("cluster-name", layer.cluster_name.is_some()),
            ("cluster-host", layer.cluster_host.is_some()),
            ("cluster-password-file", layer.cluster_password_file.is_some()),
            ("cluster-ca", layer.cluster_ca.is_some()),
            ("cluster-cert", layer.cluster_cert.is_some()),
            ("cluster-key", layer.cluster_key.is_some()),
        ];
        let set = companions.iter().find(|(_, is_set)| *is_set);
        if stores.is_empty() {
            if let Some((name, _)) = set.filter(|_| !layer.unread.contains("cluster")) {
                let how = layer.how_to_set("cluster", "redis://store.example.org:6379");
                fault(&format!("{name}: has no effect without cluster"), &how);
            }
            return None;
        }
        if !cfg!(feature = "cluster") {
            let hint = "use the program of a package, or build it with `--features cluster`";
            fault("cluster: this program was built without it", hint);
        }
        let is_tls = |url: &StoreUrl| matches!(url.address, StoreAddress::Tcp { tls: true, .. });
        let tls = companions[3..].iter().find(|(_, is_set)| *is_set);
        if let Some((name, _)) = tls.filter(|_| !stores.iter().any(is_tls)) {
            let hint = "write rediss:// in cluster, or remove it";
            fault(&format!("{name}: no store is reached by TLS"), hint);
        }
        let identity = match (layer.cluster_cert.clone(), layer.cluster_key.clone()) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let hint = "name both, or neither";
                fault("cluster-cert and cluster-key: one is of no use without the other", hint);
                None
            }
        };
        let name = layer.cluster_name();
        if host_name(&name).is_none() {
            let hint = "write letters, digits, full stops, hyphens and underscores, at most 63";
            fault(&format!("cluster-name: `{}` is not a name", name.escape_debug()), hint);
        }
        let own = layer.cluster_host.clone().or_else(host::name).unwrap_or_default();
        if host_name(&own).is_none() {
            let hint = layer.how_to_set("cluster-host", "mx1");
            let what = format!("cluster-host: `{}` is not a name", own.escape_debug());
            fault(&what, &format!("{hint}; each host needs its own"));
        }
        let password_file = layer.cluster_password_file.clone();
        Some(Self {
            stores,
            name,
            host: own,
            password_file,
            ca: layer.cluster_ca.clone(),
            identity,
        })
    }

    /// Returns the key of the stream.
    pub fn key(&self) -> String {
        format!("pop-before-smtp:{}", self.name)
    }

    /// Returns warnings that do not prevent the start.
    pub fn remarks(&self) -> Vec<String> {
        let is_open = |url: &&StoreUrl| match &url.address {
            StoreAddress::Tcp { host, tls: false, .. } => {
                !["localhost", "127.0.0.1", "::1"].contains(&&**host)
            }
            _ => false,
        };
        let open = self.stores.iter().find(is_open);
        let remark = open.map(|url| {
            format!(
                "cluster: {url} is neither on this host nor reached by TLS: who can read or change \
                 what is sent there can authorise any address; write rediss://"
            )
        });
        remark.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores() {
        let tcp = |host: &str, port, tls| StoreAddress::Tcp { host: host.into(), port, tls };
        let rows = [
            ("redis://store", tcp("store", 6379, false), None, 0),
            ("redis://store:7000/3", tcp("store", 7000, false), None, 3),
            (
                "rediss://pbs@store.example.org:6380",
                tcp("store.example.org", 6380, true),
                Some("pbs"),
                0,
            ),
            ("redis://[2001:db8::1]:6379", tcp("2001:db8::1", 6379, false), None, 0),
            ("redis+unix:///run/redis.sock", StoreAddress::Unix("/run/redis.sock".into()), None, 0),
            ("redis+unix://pbs@/run/r", StoreAddress::Unix("/run/r".into()), Some("pbs"), 0),
        ];
        for (text, address, user, database) in rows {
            let url: StoreUrl = text.parse().expect(text);
            assert_eq!((url.address, url.user.as_deref(), url.database), (address, user, database));
        }
        let wrong = [
            "",
            "store",
            "redis://",
            "redis://store:0",
            "redis://store:x",
            "redis://store/x",
            "http://store",
            "redis+unix://run/r",
            "redis+unix:///",
            "redis://@store",
            "redis://a b",
        ];
        for text in wrong {
            let why = text.parse::<StoreUrl>().expect_err(text);
            assert!(why.contains("redis+unix:///PATH"), "{why}");
        }
        let secret = "redis://pbs:secret@store".parse::<StoreUrl>().expect_err("a password");
        assert!(
            secret.contains("cluster-password-file") && !secret.contains("secret@"),
            "{secret}"
        );
    }
}
