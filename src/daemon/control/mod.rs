//! The operators' Unix sockets: one line of JSON asks, one line of JSON answers; a list takes more.
//!
//! Promise  who may open the control socket may ask and change, who may open the reading socket
//!          may only ask; their file modes admit root, the daemon's user and one group each. A
//!          slow or silent client keeps nobody from asking, and no more of a list in memory than
//!          a slice.
//! Layers   `bind` makes the sockets, `connections` says who keeps a slot; here what goes over them.

pub mod bind;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::connections::{Connections, Slot};
use super::shared::Shared;
use super::status;
use crate::control::protocol::{Answer, Entry, Request, Rights, rfc3339};
use crate::engine::Engine;
use crate::engine::grants::grant::{Grant, GrantedBy};
use crate::engine::grants::{GrantOutcome, Slice};
use crate::engine::message::address;
use crate::engine::time::Time;
use crate::sys::log_limit::LogLimiter;

/// A request fits easily; a note is the only part of free length.
const MAX_REQUEST: u64 = 4096;
/// Operators' scripts, health checks, a fail2ban: no more at once. A list that is not taken holds a
/// slice, some 400 kB of text.
const MAX_CONNECTIONS: usize = 32;
/// A client asks in the moment in which it connects; one that does not gives up its slot.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// For what was revoked to be on the disk, which takes a fraction of a second.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the map to say it: a large one takes seconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer, or a slice of a list, to be taken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

fn entry(grant: &Grant, now: Time) -> Entry {
    let (daemon, host) = match &grant.by {
        GrantedBy::Login(origin) => (Some(origin.daemon.to_string()), origin.host.clone()),
        GrantedBy::Operator => (None, None),
    };
    let users: Vec<String> = grant.users(now).map(str::to_owned).collect();
    Entry {
        address: grant.address,
        user: users.last().cloned(),
        users,
        daemon,
        host,
        since: rfc3339(grant.since),
        expires: rfc3339(grant.until),
        expires_in: grant.until.since(now).as_millis().div_ceil(1000) as u64,
        logins: grant.logins,
        note: grant.manual.as_ref().and_then(|hand| hand.note.clone()),
    }
}

/// Answers the operators of one socket until the task is dropped.
pub async fn serve(
    listener: UnixListener,
    rights: Rights,
    shared: Arc<Shared>,
    describe: status::Describe,
) {
    let mut connections = Connections::new(MAX_CONNECTIONS);
    let (refused, slow) = (LogLimiter::default(), Arc::new(LogLimiter::default()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, describe) = (Arc::clone(&shared), describe.clone());
                let slow = Arc::clone(&slow);
                let converse = |slot: Arc<Slot>| async move {
                    if let Err(error) = converse(stream, &slot, rights, shared, describe).await {
                        debug!(%error, "control connection broke");
                        if error.kind() == io::ErrorKind::TimedOut
                            && let Some(times) = slow.record(1)
                        {
                            warn!(times, "a control client was too slow and lost its connection");
                        }
                    }
                };
                if connections.serve(converse).await
                    && let Some(times) = refused.record(1)
                {
                    warn!(
                        times,
                        "all {MAX_CONNECTIONS} control connections are taken; an idle one was closed"
                    );
                }
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
    slot: &Slot,
    rights: Rights,
    shared: Arc<Shared>,
    describe: status::Describe,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_REQUEST));
    timeout(REQUEST_TIMEOUT, read.read_line(&mut line)).await??;
    slot.waiting();
    let request = serde_json::from_str::<Request>(&line);
    if let Ok(Request::List) = request {
        write_list(&mut write, slot, &shared).await?;
    }
    let answer = match request {
        Ok(request) if request.needs() == Rights::Change && rights == Rights::Read => {
            let why = "this socket is for reading; only the control socket changes";
            Answer::Refused(why.into())
        }
        Ok(request) => answer(request, &shared, &describe).await,
        Err(error) => Answer::Unknown(error.to_string()),
    };
    write_line(&mut write, slot, &text(&answer)?).await
}

/// Writes all who are authorised, by address, slice by slice.
async fn write_list(
    write: &mut OwnedWriteHalf,
    slot: &Slot,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let mut next = Some(None);
    while let Some(after) = next {
        let shared = Arc::clone(shared);
        // The threads that process frames have better things to do.
        let slice = spawn_blocking(move || {
            let slice =
                |engine: &mut Engine, now| engine.list(now, after, |grant| entry(grant, now));
            let Slice { items, next } = shared.with(slice);
            let text = if items.is_empty() { Vec::new() } else { text(&Answer::List(items))? };
            Ok::<_, io::Error>((text, next))
        });
        let (text, last) = slice.await.map_err(io::Error::other)??;
        write_line(write, slot, &text).await?;
        next = last.map(Some);
    }
    Ok(())
}

fn text(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    Ok(text)
}

async fn write_line(write: &mut OwnedWriteHalf, slot: &Slot, text: &[u8]) -> io::Result<()> {
    slot.idle();
    timeout(WRITE_TIMEOUT, write.write_all(text)).await?
}

async fn answer(request: Request, shared: &Shared, describe: &status::Describe) -> Answer {
    match request {
        // The end of the list, which has been written.
        Request::List => Answer::List(Vec::new()),
        Request::Query { address } => shared.with(|engine, now| {
            Answer::Query(engine.admits(now, address).map(|grant| entry(grant, now)))
        }),
        Request::Allow { address, seconds, note } => {
            match allow(shared, address, seconds.map(Duration::from_secs), note) {
                Ok(entry) => {
                    Answer::Allowed { entry, published: published(shared, describe).await }
                }
                Err(why) => Answer::Refused(why),
            }
        }
        Request::Revoke { address, block } => {
            let was_authorised = revoke(shared, address, block.map(Duration::from_secs));
            let saved = saved(shared, describe).await;
            let published = published(shared, describe).await;
            let publication = shared.with(|engine, _| *engine.publication());
            Answer::Revoked {
                was_authorised,
                saved,
                // An empty map does not have the address either.
                published: published || publication.is_emptied(),
                stuck: publication.is_stuck(),
            }
        }
        Request::Status => Answer::Status(Box::new(describe.snapshot(shared).status())),
        Request::Probe { text } => {
            Answer::Probe(shared.with(|engine, _| engine.probes().count(&text)))
        }
    }
}

/// Waits until the state file has all changes, and returns whether it has.
async fn saved(shared: &Shared, describe: &status::Describe) -> bool {
    describe.state.is_none() || timeout(SAVE_TIMEOUT, shared.saved()).await.is_ok()
}

/// Waits until the map has all changes, and returns whether it has. While publication fails it does
/// not wait.
async fn published(shared: &Shared, describe: &status::Describe) -> bool {
    let failing = shared.with(|engine, _| engine.publication().failures() > 0);
    let limit = if failing { Duration::ZERO } else { PUBLISH_TIMEOUT };
    describe.map.is_none() || timeout(limit, shared.published()).await.is_ok()
}

/// Authorises an address, or returns why it cannot be.
fn allow(
    shared: &Shared,
    address: IpAddr,
    span: Option<Duration>,
    note: Option<String>,
) -> Result<Entry, String> {
    let address = address::check(address.to_canonical())
        .map_err(|why| format!("{address} cannot be authorised: {why}"))?;
    let (outcome, entry) = shared.with(|engine, now| {
        let outcome = engine.allow(now, address, span, note).map_err(|list| {
            format!(
                "{address} is never authorised: it belongs to `{list}`; the option `exclude` \
                 decides this"
            )
        })?;
        Ok::<_, String>((outcome, engine.admits(now, address).map(|grant| entry(grant, now))))
    })?;
    // With max-clients reached, the grant that expires first is evicted.
    let entry = entry.ok_or_else(|| {
        format!("{address}: max-clients is reached, and all other grants expire later")
    })?;
    let renewed = outcome == GrantOutcome::Renewed;
    info!(%address, expires = entry.expires, renewed, note = entry.note, "authorised manually");
    Ok(entry)
}

/// Revokes the grant of an address, and returns whether it had one.
fn revoke(shared: &Shared, address: IpAddr, block: Option<Duration>) -> bool {
    let revoked = shared.with(|engine, now| engine.revoke(now, address, block));
    let block = block.map(|span| humantime::format_duration(span).to_string());
    info!(%address, revoked, block, "revoked manually");
    revoked
}

#[cfg(test)]
mod tests;
