//! The store: a stream in Redis or Valkey, and the commands for it.
//!
//! - **Limits**: a command that is not answered within `PATIENCE` fails. Commands are XADD, XDEL,
//!   XREAD, XRANGE, XREVRANGE, XTRIM, TIME and ROLE; no other key than the stream's is touched.

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, TlsCertificates, Value, cmd, pipe,
};

use crate::config::cluster::{ClusterOptions, StoreAddress, StoreUrl};
use crate::engine::cluster::entry::EntryId;
use crate::engine::cluster::hearing::LOOKED_BACK;
use crate::engine::time::Time;
use crate::error::Failure;
use crate::sys::trusted_file;

/// Time limit for a connection and for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a read waits for new entries.
const BLOCK: Duration = Duration::from_secs(1);
/// Most entries of one answer.
const READ: usize = 2000;
/// Largest file with a password, a certificate or a key, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The name of an entry's only field.
const FIELD: &str = "e";

/// An entry as it was read: its id and its text.
pub type ReadEntry = (EntryId, String);

/// What is needed to connect.
pub struct Client {
    /// The stores, by their URLs.
    pub(super) stores: Vec<(String, redis::Client)>,
    /// The key of the stream.
    pub(super) key: String,
}

/// Two connections to the primary store.
#[derive(Clone)]
pub struct Store {
    /// Which one it is.
    pub name: String,
    key: String,
    commands: MultiplexedConnection,
    /// It waits for new entries, and nothing else may wait for it.
    reading: MultiplexedConnection,
}

impl Client {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// One of them cannot be read, or is not what it should be.
    pub fn new(config: &ClusterOptions) -> Result<Self, Failure> {
        // The library asks for a provider of the process; this is the only one compiled in.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let password = config.password_file.as_deref().map(|path| secret(path, "password file"));
        let password = password
            .transpose()?
            .map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned());
        let client = |url: &StoreUrl| {
            let info = info(url, password.as_deref());
            let client = match &url.address {
                StoreAddress::Tcp { tls: true, .. } => {
                    redis::Client::build_with_tls(info, certificates(config)?)
                }
                _ => redis::Client::open(info),
            };
            let client = client.map_err(|error| {
                Failure::config(format!("cluster: {url}: {error}"))
                    .hint("cluster-ca, cluster-cert and cluster-key name files in PEM form")
            });
            Ok::<_, Failure>((url.to_string(), client?))
        };
        let stores = config.stores.iter().map(client).collect::<Result<_, _>>()?;
        Ok(Self { stores, key: config.key() })
    }

    /// Connects to the primary store.
    ///
    /// # Errors
    /// For each store what is wrong with it.
    pub async fn connect(&self) -> Result<Store, String> {
        let mut errors = Vec::new();
        for (name, client) in &self.stores {
            match self.connect_to(name, client).await {
                Ok(store) => return Ok(store),
                Err(error) => errors.push(format!("{name}: {error}")),
            }
        }
        Err(errors.join("; "))
    }

    async fn connect_to(&self, name: &str, client: &redis::Client) -> Result<Store, String> {
        let mut commands = open(client, Duration::ZERO).await?;
        if !is_primary(&mut commands).await? {
            return Err("it is a replica, not the primary store".into());
        }
        let reading = open(client, BLOCK).await?;
        Ok(Store { name: name.to_owned(), key: self.key.clone(), commands, reading })
    }
}

impl Store {
    /// Returns the store's clock, and the newest entries, the last one first.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub async fn look_back(&mut self) -> Result<(Time, Vec<ReadEntry>), String> {
        let mut newest = cmd("XREVRANGE");
        newest.arg(&self.key).arg("+").arg("-").arg("COUNT").arg(LOOKED_BACK);
        let time = self.time().await?;
        Ok((time, entries(send(&mut self.commands, newest).await?)))
    }

    async fn time(&mut self) -> Result<Time, String> {
        let (seconds, micros): (u64, u64) = send(&mut self.commands, cmd("TIME")).await?;
        Ok(Time::from_millis(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
    }

    /// Waits for entries after this one; there are none if it takes long.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub async fn read(&mut self, after: EntryId) -> Result<Vec<ReadEntry>, String> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(READ).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.key).arg(after.to_string());
        // One stream, as an array (RESP2): its name and its entries.
        let streams: Value = send(&mut self.reading, read).await?;
        let stream = match streams {
            Value::Array(mut streams) => streams.pop().unwrap_or_default(),
            _ => Value::Nil,
        };
        match stream {
            Value::Array(mut fields) => Ok(entries(fields.pop().unwrap_or_default())),
            _ => Ok(Vec::new()),
        }
    }

    /// Adds entries, deletes others, and returns the ids of those that were added.
    ///
    /// # Errors
    /// The store does not answer, or refuses one of them.
    pub async fn add<'t>(
        &mut self,
        texts: impl Iterator<Item = &'t str>,
        obsolete: &[EntryId],
    ) -> Result<Vec<EntryId>, StoreError> {
        let mut pipeline = pipe();
        for text in texts {
            pipeline.cmd("XADD").arg(&self.key).arg("*").arg(FIELD).arg(text);
        }
        if !obsolete.is_empty() {
            let ids: Vec<String> = obsolete.iter().map(ToString::to_string).collect();
            pipeline.cmd("XDEL").arg(&self.key).arg(ids).ignore();
        }
        let ids: Vec<String> = pipeline.query_async(&mut self.commands).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Adds a heartbeat in place of the last one. Returns its id, and whether the last one was still
    /// there.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub async fn beat(
        &mut self,
        text: &str,
        last: Option<EntryId>,
    ) -> Result<(EntryId, bool), StoreError> {
        let last = last.map(|id| id.to_string());
        let mut pipeline = pipe();
        if let Some(last) = &last {
            pipeline.cmd("XRANGE").arg(&self.key).arg(last).arg(last);
        }
        pipeline.cmd("XADD").arg(&self.key).arg("*").arg(FIELD).arg(text);
        if let Some(last) = &last {
            pipeline.cmd("XDEL").arg(&self.key).arg(last).ignore();
        }
        let mut answers: Vec<Value> = pipeline.query_async(&mut self.commands).await?;
        let id = answers.pop().as_ref().and_then(text_of_id).unwrap_or_default();
        let is_there = answers.pop().is_none_or(|found| !entries(found).is_empty());
        Ok((id, is_there))
    }

    /// Removes entries that are older than this by the store's clock.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub async fn trim(&mut self, age: Duration) -> Result<(), String> {
        let oldest = self.time().await? - age;
        let mut trim = cmd("XTRIM");
        trim.arg(&self.key).arg("MINID").arg("~").arg(oldest.as_millis());
        send(&mut self.commands, trim).await
    }
}

/// Why something could not be added.
#[derive(Debug)]
pub struct StoreError {
    /// What happened.
    pub text: String,
    /// Whether the store goes on answering other commands: it is full, or does not permit this one.
    pub is_refusal: bool,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let is_lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
        let is_refusal =
            !is_lost && !matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"));
        Self { text: explain(&error), is_refusal }
    }
}

/// Opens a connection on which an answer may take `longer` than usual.
pub(super) async fn open(
    client: &redis::Client,
    longer: Duration,
) -> Result<MultiplexedConnection, String> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE + longer));
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    connection.await.map_err(|error| explain(&error))
}

/// Returns whether it is the primary store.
pub(super) async fn is_primary(connection: &mut MultiplexedConnection) -> Result<bool, String> {
    let role: Value = send(connection, cmd("ROLE")).await?;
    let Value::Array(fields) = role else { return Ok(false) };
    Ok(fields.first().and_then(text).as_deref() == Some("master"))
}

async fn send<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: redis::Cmd,
) -> Result<T, String> {
    command.query_async(connection).await.map_err(|error| explain(&error))
}

/// Says what happened, and what to do.
pub(super) fn explain(error: &RedisError) -> String {
    // Of several commands, the first that failed; the library tells the code of a single one only.
    let errors = error.clone().into_server_errors();
    let answered = errors.as_deref().and_then(|errors| errors.first());
    let code = answered.map(|(_, error)| error.code()).or(error.code());
    let detail = answered.and_then(|(_, error)| error.details()).or(error.detail());
    let what = detail.map_or_else(
        || error.to_string(),
        |detail| format!("{} {detail}", code.unwrap_or_default()).trim().to_owned(),
    );
    match code {
        // The library hides the answer to AUTH.
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            "it refuses the user or the password (see cluster-password-file, and the user in the URL)"
                .into()
        }
        Some("NOAUTH" | "WRONGPASS") => {
            format!("{what} (see cluster-password-file, and the user in the URL)")
        }
        Some("NOPERM") => format!("{what} (deploy/cluster has the rule that suffices)"),
        Some("OOM") => format!("{what} (raise maxmemory)"),
        _ if what.contains("fatal alert: ") => format!("{what} (see cluster-cert and cluster-key)"),
        _ if what.contains("peer certificate") => {
            format!("{what} (see cluster-ca, and the names in the store's certificate)")
        }
        _ => what,
    }
}

fn info(url: &StoreUrl, password: Option<&str>) -> ConnectionInfo {
    let address = match &url.address {
        StoreAddress::Tcp { host, port, tls: false } => ConnectionAddr::Tcp(host.clone(), *port),
        StoreAddress::Tcp { host, port, tls: true } => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
        StoreAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    // CLIENT SETINFO would need a rule of its own, which older stores do not know.
    let mut login = RedisConnectionInfo::default().set_db(url.database).set_skip_set_lib_name();
    if let Some(user) = &url.user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let info = address.into_connection_info().unwrap_or_else(|_| unreachable!());
    info.set_redis_settings(login)
}

fn certificates(config: &ClusterOptions) -> Result<TlsCertificates, Failure> {
    let identity = config.identity.as_ref().map(|(cert, key)| {
        let client_cert = secret(cert, "certificate")?;
        Ok::<_, Failure>(ClientTlsConfig { client_cert, client_key: secret(key, "key")? })
    });
    let root_cert = config.ca.as_deref().map(|path| secret(path, "certificates"));
    Ok(TlsCertificates { client_tls: identity.transpose()?, root_cert: root_cert.transpose()? })
}

fn secret(path: &Path, kind: &str) -> Result<Vec<u8>, Failure> {
    trusted_file::read(path, MAX_FILE).map_err(|refusal| {
        refusal.failure(Failure::config, kind, "the daemon's user must be able to read it")
    })
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn text_of_id(value: &Value) -> Option<EntryId> {
    text(value)?.parse().ok()
}

/// Returns entries: each is an array of its id and an array of fields and values. What has another
/// form has an empty text.
fn entries(value: Value) -> Vec<ReadEntry> {
    let Value::Array(entries) = value else { return Vec::new() };
    let entry = |entry: Value| {
        let Value::Array(parts) = entry else { return None };
        let [id, fields] = &*parts else { return None };
        let text = match fields {
            Value::Array(fields) => fields.get(1).and_then(text).unwrap_or_default(),
            _ => String::new(),
        };
        Some((text_of_id(id)?, text))
    };
    entries.into_iter().filter_map(entry).collect()
}
