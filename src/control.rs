//! The operator's Unix socket: one line of JSON asks, one line of JSON answers.
//!
//! Promise  who may open the socket may ask and change; its file mode admits root, the daemon's
//!          user and one group. A slow or silent client costs a seat and nothing else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::engine::Engine;
use crate::engine::grants::{By, Grant, Granted};
use crate::engine::time::Time;
use crate::shared::Shared;
use crate::status::{self, Status};

/// A request fits easily; a note is the only part of free length.
const MAX_REQUEST: u64 = 4096;
/// Operators' scripts, health checks, a fail2ban: no more at once.
const SEATS: usize = 32;
/// A client that neither asks nor reads loses its seat.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an operator can ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Who is authorised now.
    List,
    /// Is this address authorised?
    Query {
        /// The address.
        address: IpAddr,
    },
    /// Authorise by hand.
    Allow {
        /// The address.
        address: IpAddr,
        /// For how many seconds; the grace period if missing.
        seconds: Option<u64>,
        /// Why.
        note: Option<String>,
    },
    /// End an authorisation.
    Revoke {
        /// The address.
        address: IpAddr,
        /// For how many seconds new logins do not count.
        block: Option<u64>,
    },
    /// How the daemon is.
    Status,
}

/// What the daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To `List`.
    List(Vec<Entry>),
    /// To `Query`: the entry, if the address is authorised.
    Query(Option<Entry>),
    /// To `Allow`.
    Allowed(Entry),
    /// To `Revoke`: whether the address was authorised.
    Revoked(bool),
    /// To `Status`.
    Status(Box<Status>),
    /// The request cannot be met.
    Refused(String),
}

/// One authorised address, as `list --json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The client, canonical.
    pub address: IpAddr,
    /// Who logged in last.
    pub user: Option<String>,
    /// All who have logged in and whose right lasts, the latest last.
    pub users: Vec<String>,
    /// The mail daemon; nothing if authorised by hand.
    pub daemon: Option<String>,
    /// The host that logged it.
    pub host: Option<String>,
    /// The first login of this unbroken time, RFC 3339.
    pub since: String,
    /// The end of the right, RFC 3339.
    pub expires: String,
    /// Whole seconds until then, rounded up.
    pub expires_in: u64,
    /// Logins since then.
    pub logins: u64,
    /// What the operator wrote about it.
    pub note: Option<String>,
}

impl Entry {
    fn of(grant: &Grant, now: Time) -> Self {
        let (daemon, host) = match &grant.by {
            By::Login(origin) => (Some(origin.daemon.to_string()), origin.host.clone()),
            By::Hand => (None, None),
        };
        let users: Vec<String> = grant.users(now).map(str::to_owned).collect();
        Self {
            address: grant.address,
            user: users.last().cloned(),
            users,
            daemon,
            host,
            since: rfc3339(grant.since),
            expires: rfc3339(grant.until),
            expires_in: grant.until.since(now).as_millis().div_ceil(1000) as u64,
            logins: grant.logins,
            note: grant.by_hand.as_ref().and_then(|hand| hand.note.clone()),
        }
    }
}

/// A moment as RFC 3339 text in UTC, to the second.
pub fn rfc3339(time: Time) -> String {
    // A damaged state file may hold a moment that no calendar has; the engine caps deadlines.
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()));
    let printable = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(moment.unwrap_or(printable).min(printable)).to_string()
}

/// Answers operators until the task is dropped.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>, describe: status::Describe) {
    let seats = Arc::new(Semaphore::new(SEATS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, describe) = (Arc::clone(&shared), describe.clone());
                tokio::spawn(async move {
                    let _seat = seat;
                    match timeout(PATIENCE, converse(stream, shared, describe)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "control connection broke"),
                        Err(_) => debug!("control connection took too long"),
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    shared: Arc<Shared>,
    describe: status::Describe,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        // A long list takes its time.
        Ok(request) => {
            spawn_blocking(move || serde_json::to_vec(&answer(request, &shared, &describe)))
        }
        Err(error) => {
            let refused = Answer::Refused(format!("the request is not understood: {error}"));
            spawn_blocking(move || serde_json::to_vec(&refused))
        }
    };
    let mut text = answer.await.map_err(std::io::Error::other)??;
    text.push(b'\n');
    write.write_all(&text).await
}

fn answer(request: Request, shared: &Shared, describe: &status::Describe) -> Answer {
    match request {
        Request::List => Answer::List(list(shared)),
        Request::Query { address } => Answer::Query(
            shared
                .with(|engine, now| engine.admits(now, address).map(|grant| Entry::of(grant, now))),
        ),
        Request::Allow { address, seconds, note } => {
            let span = seconds.map(Duration::from_secs);
            allow(shared, address, span, note)
        }
        Request::Revoke { address, block } => {
            let block = block.map(Duration::from_secs);
            let revoked = shared.with(|engine, now| engine.revoke(now, address, block));
            info!(%address, revoked, ?block, "revoked by hand");
            Answer::Revoked(revoked)
        }
        Request::Status => Answer::Status(Box::new(describe.status(shared))),
    }
}

/// All who are authorised, by address.
fn list(shared: &Shared) -> Vec<Entry> {
    let entries =
        |engine: &Engine, now, behind| engine.list(now, behind, |grant| Entry::of(grant, now));
    shared.slices(entries).flatten().collect()
}

fn allow(shared: &Shared, address: IpAddr, span: Option<Duration>, note: Option<String>) -> Answer {
    let address = match crate::engine::address::read(&address.to_string()) {
        Ok(address) => address,
        Err(why) => return Answer::Refused(format!("{address} cannot be authorised: {why}")),
    };
    let allowed = shared.with(|engine, now| {
        let granted = engine.allow(now, address, span, note)?;
        Ok::<_, String>((granted, engine.admits(now, address).map(|grant| Entry::of(grant, now))))
    });
    match allowed {
        Ok((granted, Some(entry))) => {
            let renewed = granted == Granted::Renewed;
            info!(%address, expires = entry.expires, renewed, note = entry.note, "authorised by hand");
            Answer::Allowed(entry)
        }
        // max-clients is reached, and this one would have ended first.
        Ok((_, None)) => {
            Answer::Refused(format!("{address}: there is no room for a shorter right"))
        }
        Err(list) => {
            Answer::Refused(format!("{address} is never authorised: it belongs to `{list}`"))
        }
    }
}
