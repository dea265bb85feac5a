//! What each store permits, and how it is set up, for `doctor`.
//!
//! - **Promise**: changes nothing. Commands that would change something have arguments with which
//!   they cannot; what the store thinks of the command itself it says before it looks at them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};

use super::store::{Client, explain, is_primary, open, text};
use crate::config::cluster::ClusterOptions;
use crate::error::Failure;

/// A key that nobody has.
const OTHER_KEY: &str = "pop-before-smtp-doctor";
/// An id that no entry has.
const NO_ENTRY: &str = "0-1";
/// What the store says of arguments that are wrong, and a replica of a command that writes. Anything
/// else would prevent the command.
const HARMLESS: [&str; 2] = ["ERR", "READONLY"];

/// A store, and what it answers; or why it cannot be used.
pub type Examined = (String, Result<StoreAnswers, String>);

/// What a store answers.
#[derive(Debug)]
pub struct StoreAnswers {
    /// Whether it is primary, not a replica.
    pub is_primary: bool,
    /// Commands that it refuses, and why.
    pub refused: Vec<(&'static str, String)>,
    /// What it permits beyond what is needed.
    pub excess: Vec<&'static str>,
    /// What it does when its memory is full, if it says so.
    pub eviction: Option<String>,
    /// How far its clock and this host's are apart.
    pub clock_difference: Duration,
}

/// Asks each store.
///
/// # Errors
/// The files that the options name cannot be read.
pub async fn examine(config: &ClusterOptions) -> Result<Vec<Examined>, Failure> {
    let client = Client::new(config)?;
    let mut examined = Vec::new();
    for (name, store) in &client.stores {
        examined.push((name.clone(), ask(store, &client.key).await));
    }
    Ok(examined)
}

async fn ask(store: &redis::Client, key: &str) -> Result<StoreAnswers, String> {
    let mut connection = open(store, Duration::ZERO).await?;
    let is_primary = is_primary(&mut connection).await?;
    let mut refused = Vec::new();
    for (name, command) in needed(key) {
        if let Err(error) = run(&mut connection, &command).await
            && !error.code().is_some_and(|code| HARMLESS.contains(&code))
        {
            refused.push((name, explain(&error)));
        }
    }
    let mut excess = Vec::new();
    let mut delete = cmd("XDEL");
    delete.arg(OTHER_KEY).arg(NO_ENTRY);
    if !is_denied(&run(&mut connection, &delete).await) {
        excess.push("change other keys");
    }
    let mut config = cmd("CONFIG");
    config.arg("GET").arg("maxmemory-policy");
    let config = run(&mut connection, &config).await;
    if !is_denied(&config) {
        excess.push("read and change the store's configuration");
    }
    let mut info = cmd("INFO");
    info.arg("memory");
    let info = run(&mut connection, &info).await.ok();
    let eviction = match config {
        Ok(Value::Array(fields)) => fields.last().and_then(text),
        _ => info.as_ref().and_then(text).as_deref().and_then(eviction),
    };
    let clock_difference = clock_difference(&mut connection).await?;
    Ok(StoreAnswers { is_primary, refused, excess, eviction, clock_difference })
}

/// Returns the commands that the daemon uses, with arguments with which they change nothing.
fn needed(key: &str) -> [(&'static str, Cmd); 7] {
    let command = |name: &'static str, arguments: &[&str]| {
        let mut command = cmd(name);
        command.arg(arguments);
        (name, command)
    };
    [
        // An id must be greater than 0-0, so nothing is added.
        command("XADD", &[key, "NOMKSTREAM", "0-0", "e", "doctor"]),
        command("XDEL", &[key, NO_ENTRY]),
        command("XTRIM", &[key, "MINID", "~", "0"]),
        command("XREAD", &["COUNT", "1", "STREAMS", key, "$"]),
        command("XRANGE", &[key, "-", "+", "COUNT", "1"]),
        command("XREVRANGE", &[key, "+", "-", "COUNT", "1"]),
        command("TIME", &[]),
    ]
}

/// Finds the eviction policy in what INFO says.
fn eviction(info: &str) -> Option<String> {
    let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
    policy.map(|policy| policy.trim().to_owned())
}

async fn run(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    command.query_async(connection).await
}

fn is_denied(answer: &Result<Value, RedisError>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some("NOPERM"))
}

async fn clock_difference(connection: &mut MultiplexedConnection) -> Result<Duration, String> {
    let time = run(connection, &cmd("TIME")).await.map_err(|error| explain(&error))?;
    let (seconds, micros): (u64, u64) =
        redis::from_redis_value(time).map_err(|error| format!("TIME: {error}"))?;
    let theirs = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
    let ours = SystemTime::now();
    Ok(ours.duration_since(theirs).unwrap_or_else(|error| error.duration()))
}
