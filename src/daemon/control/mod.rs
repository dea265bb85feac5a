//! The control sockets: one line of JSON for a request, one for its answer; a list takes several, and
//! a watch has one for each event until the client closes the connection.
//!
//! - **Promise**: clients of the control socket may query and change, clients of the read-only one
//!   may only query; the file modes admit root, the daemon's user and one group each. A slow or
//!   silent client blocks nobody, and never holds more than one slice of a list in memory.
//! - **Layers**: [`bind`] creates the sockets, [`super::connections`] limits the connections; here
//!   requests are answered, and `watch` tells events.

pub mod bind;
mod watch;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::cluster;
use super::connections::{Connections, Slot};
use super::shared::Shared;
use super::status;
use crate::control::protocol::{
    Access, Answer, Block, Entry, Request, Unconfirmed, WhyNot, rfc3339,
};
use crate::engine::Engine;
use crate::engine::grants::grant::{Grant, GrantedBy};
use crate::engine::grants::{Cursor, GrantOutcome, Slice};
use crate::engine::message::address;
use crate::engine::recent;
use crate::engine::time::Time;
use crate::sys::blocking::blocking;
use crate::sys::log_limit::LogLimiter;

/// Longest request, in bytes; only a note can be long.
const MAX_REQUEST: u64 = 4096;
/// Enough for operators' scripts, health checks and fail2ban. A list that is not read holds one
/// slice, some 400 kB of text.
const MAX_CONNECTIONS: usize = 32;
/// Time limit for a request: clients send it as soon as they are connected.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a change to be on disk, which usually takes a fraction of a second.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a change to be in the map; a large map takes seconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the other hosts to confirm a change.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the client to read an answer, or a slice of a list.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns an entry.
fn entry(engine: &Engine, source: &status::StatusSource, grant: &Grant, now: Time) -> Entry {
    let relays = engine.relays_of(grant);
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
        origin: engine.heard_by(grant).map(Into::into),
        since: rfc3339(grant.since),
        expires: rfc3339(grant.until),
        expires_in: grant.until.since(now).as_millis().div_ceil(1000) as u64,
        logins: grant.logins.into(),
        messages: relays.messages.into(),
        recipients: relays.recipients.into(),
        note: grant.manual.as_ref().and_then(|manual| manual.note.clone()),
        in_map: in_map(engine, source, grant.address),
    }
}

/// Returns whether the map can show an address to Postfix: its key is exact, and the map not empty
/// because it could not be published.
fn in_map(engine: &Engine, source: &status::StatusSource, address: IpAddr) -> Option<bool> {
    let _map = source.map.as_ref()?;
    Some(engine.is_published(address) && !engine.publication().is_emptied())
}

/// What the clients of one socket may do.
struct ControlSocket {
    access: Access,
    /// The places for those who watch.
    places: Semaphore,
}

impl ControlSocket {
    fn new(access: Access) -> Self {
        Self { access, places: watch::places(access) }
    }
}

/// Serves one control socket until the task is dropped.
pub async fn serve(
    listener: UnixListener,
    access: Access,
    shared: Arc<Shared>,
    source: status::StatusSource,
) {
    let mut connections = Connections::new(MAX_CONNECTIONS);
    let socket = Arc::new(ControlSocket::new(access));
    let (evicted, slow) = (LogLimiter::default(), Arc::new(LogLimiter::default()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, source) = (Arc::clone(&shared), source.clone());
                let (socket, slow) = (Arc::clone(&socket), Arc::clone(&slow));
                let handle = |slot: Arc<Slot>| async move {
                    if let Err(error) = handle(stream, &slot, &socket, shared, source).await {
                        debug!(%error, "control connection failed");
                        if error.kind() == io::ErrorKind::TimedOut
                            && let Some(times) = slow.record(1)
                        {
                            warn!(
                                times,
                                "a control client was too slow; its connection was closed"
                            );
                        }
                    }
                };
                if connections.serve(handle).await
                    && let Some(times) = evicted.record(1)
                {
                    warn!(
                        times,
                        "all {MAX_CONNECTIONS} control connections are in use; an idle one was closed"
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

async fn handle(
    stream: UnixStream,
    slot: &Slot,
    socket: &ControlSocket,
    shared: Arc<Shared>,
    source: status::StatusSource,
) -> io::Result<()> {
    let ControlSocket { access, places } = socket;
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_REQUEST));
    timeout(REQUEST_TIMEOUT, read.read_line(&mut line)).await??;
    slot.waiting();
    let request = serde_json::from_str::<Request>(&line);
    match request {
        Ok(Request::List) => write_list(&mut write, slot, &shared, &source).await?,
        Ok(Request::Watch { initial }) => {
            let was_admitted = tokio::select! {
                outcome = watch::tell(&mut write, &shared, places, initial) => outcome?,
                () = closed(read) => true,
            };
            if was_admitted {
                return Ok(());
            }
        }
        _ => {}
    }
    let answer = match request {
        Ok(request) if request.needs() == Access::Change && *access == Access::Read => {
            let why = "this socket is read-only; use the control socket for changes";
            Answer::Refused(why.into())
        }
        Ok(request) => answer(request, *access, &shared, &source).await,
        Err(error) => Answer::Unknown(error.to_string()),
    };
    write_line(&mut write, slot, &text(&answer)?).await
}

/// Waits until the client closes the connection.
async fn closed(mut read: impl AsyncRead + Unpin) {
    while read.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
}

/// Writes the list of authorised addresses, in no order, slice by slice.
async fn write_list(
    write: &mut OwnedWriteHalf,
    slot: &Slot,
    shared: &Arc<Shared>,
    source: &status::StatusSource,
) -> io::Result<()> {
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        let (shared, source) = (Arc::clone(shared), source.clone());
        // Not on the threads that process frames.
        let slice = blocking(move || {
            let slice = |engine: &mut Engine, now| {
                engine.list(now, from, |grant| entry(engine, &source, grant, now))
            };
            let Slice { items, next } = shared.with(slice);
            let text = if items.is_empty() { Vec::new() } else { text(&Answer::List(items))? };
            Ok::<_, io::Error>((text, next))
        });
        let (text, rest) = slice.await?;
        write_line(write, slot, &text).await?;
        next = rest;
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

async fn answer(
    request: Request,
    access: Access,
    shared: &Shared,
    source: &status::StatusSource,
) -> Answer {
    match request {
        // The end of a list that has been written already.
        Request::List => Answer::List(Vec::new()),
        Request::Query { address } => {
            shared.with(|engine, now| match engine.admits(now, address) {
                Some(grant) => Answer::Query(entry(engine, source, &grant, now)),
                None => Answer::No(why_not(engine.why_not(now, address))),
            })
        }
        Request::Allow { address, seconds, note } => {
            match allow(shared, source, address, seconds.map(Duration::from_secs), note) {
                Ok(entry) => {
                    let published = published(shared, source);
                    let unconfirmed = unconfirmed(shared, source, address);
                    let (published, unconfirmed) = tokio::join!(published, unconfirmed);
                    Answer::Allowed { entry, published, unconfirmed }
                }
                Err(why) => Answer::Refused(why),
            }
        }
        Request::Revoke { address, block } => {
            // Its record in the state file would be damaged, and other hosts would refuse it.
            if let Err(why) = client(address) {
                return Answer::Refused(why);
            }
            let was_authorised = revoke(shared, address, block.map(Duration::from_secs));
            let (saved, published, unconfirmed) = tokio::join!(
                saved(shared, source),
                published(shared, source),
                unconfirmed(shared, source, address),
            );
            let publication = shared.with(|engine, _| *engine.publication());
            Answer::Revoked {
                was_authorised,
                saved,
                // An empty map does not contain the address either.
                published: published || publication.is_emptied(),
                stuck: publication.is_stuck(),
                unconfirmed,
            }
        }
        Request::Blocked => shared.with(|engine, now| {
            let blocks = engine.blocks(now).map(|(address, until)| Block {
                address,
                until: rfc3339(until),
                ends_in: until.since(now).as_millis().div_ceil(1000) as u64,
            });
            let mut blocks: Vec<_> = blocks.collect();
            blocks.sort_by_key(|block| block.address);
            Answer::Blocks(blocks)
        }),
        // A watch that was admitted does not end with an answer.
        Request::Watch { .. } => Answer::Refused(watch::refusal(access)),
        Request::Status => Answer::Status(Box::new(source.snapshot(shared).status())),
        Request::Probe { text } => {
            Answer::Probe(shared.with(|engine, _| engine.probes().count(&text)))
        }
    }
}

fn why_not(why: recent::AbsenceReason) -> WhyNot {
    match why {
        recent::AbsenceReason::Excluded(list) => WhyNot::Excluded(list),
        recent::AbsenceReason::Blocked(until) => WhyNot::Blocked(rfc3339(until)),
        recent::AbsenceReason::Shared(users) => WhyNot::Shared(users),
        recent::AbsenceReason::Rule(label) => WhyNot::Rule(label),
        recent::AbsenceReason::Refused(at, reason) => {
            WhyNot::Refused { at: rfc3339(at), reason: reason.to_string() }
        }
        recent::AbsenceReason::Ended(at, reason) => {
            WhyNot::Ended { at: rfc3339(at), reason: reason.as_str().to_owned() }
        }
        recent::AbsenceReason::Unknown => WhyNot::Unknown,
    }
}

/// Waits until the state file has all changes, and returns whether it has.
async fn saved(shared: &Shared, source: &status::StatusSource) -> bool {
    source.state.is_none() || timeout(SAVE_TIMEOUT, shared.saved()).await.is_ok()
}

/// Waits until the map has all changes, and returns whether it has. Does not wait while publication
/// fails.
async fn published(shared: &Shared, source: &status::StatusSource) -> bool {
    let failing = shared.with(|engine, _| engine.publication().failures() > 0);
    let limit = if failing { Duration::ZERO } else { PUBLISH_TIMEOUT };
    source.map.is_none() || timeout(limit, shared.published()).await.is_ok()
}

/// Waits until the other hosts have confirmed what was decided about an address. Does not wait while
/// the store is away.
async fn unconfirmed(
    shared: &Shared,
    source: &status::StatusSource,
    address: IpAddr,
) -> Unconfirmed {
    let Some(cluster) = &source.cluster else { return Unconfirmed::default() };
    let link = cluster.link();
    let is_away = link.away.is_some() || link.untellable.is_some();
    let limit = if is_away { Duration::ZERO } else { CONFIRM_TIMEOUT };
    let (is_told, hosts) = cluster::confirmed(shared, address, limit).await;
    Unconfirmed { untold: !is_told, hosts }
}

/// Returns the canonical address of a client, or why no client can have it.
fn client(address: IpAddr) -> Result<IpAddr, String> {
    address::check(address.to_canonical())
        .map_err(|why| format!("{address} cannot be authorised: {why}"))
}

/// Authorises an address, or returns why it cannot be.
fn allow(
    shared: &Shared,
    source: &status::StatusSource,
    address: IpAddr,
    span: Option<Duration>,
    note: Option<String>,
) -> Result<Entry, String> {
    let address = client(address)?;
    let (outcome, entry) = shared.with(|engine, now| {
        let outcome = engine.allow(now, address, span, note).map_err(|list| {
            format!(
                "{address} is never authorised: it belongs to `{list}`; see the option `exclude`"
            )
        })?;
        let entry = engine.admits(now, address).map(|grant| entry(engine, source, &grant, now));
        Ok::<_, String>((outcome, entry))
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
