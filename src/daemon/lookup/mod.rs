//! Answers Postfix's requests: one loop for the socketmap and the policy protocol.
//!
//! - **Promise**: each answer reflects the engine's current state. A connection stays open for any
//!   number of requests; a silent one costs a few kilobytes, and is closed when another one needs its
//!   slot: Postfix then repeats its request over a new connection. Malformed input closes its
//!   connection. What a client sends is logged above debug level only if it is authorised.
//! - **Limits**: one that has sent a part of a request, or does not read, costs some 70 kB at most:
//!   the longest request, and the replies up to the one that exceeds `MAX_REPLIES`.
//! - **Layers**: the protocols are in [`crate::engine::protocol`], from bytes to bytes; [`bind`]
//!   creates the sockets, [`super::connections`] limits the connections, `relay_log` records
//!   messages; here are the time limits.

pub mod bind;
mod relay_log;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::connections::{Connections, Slot};
use super::shared::Shared;
use crate::engine::Engine;
use crate::engine::protocol::decoded::Decoded;
use crate::engine::protocol::policy;
use crate::engine::protocol::policy::Action;
use crate::engine::protocol::socketmap;
use crate::engine::relay::RelayRecord;
use crate::engine::time::Time;
use crate::postfix::map_spec::MapValue;
use relay_log::RelayLog;

/// Connections of one service: each smtpd process keeps one after its first request, and Postfix runs
/// up to a hundred of them for each port (postconf(5), default_process_limit).
const MAX_CONNECTIONS: u64 = 2000;
/// File descriptors for everything else: control and metrics connections, receivers, the pipes of a
/// postmap.
const OTHER_DESCRIPTORS: u64 = 256;
/// Time limit between two requests: longer than Postfix keeps an idle connection
/// (smtpd_policy_service_max_idle is 300 s), so that Postfix closes it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Time limit for the rest of a request, and for the client to read a reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at once; a usual request has a few hundred.
const CHUNK: usize = 4096;
/// Replies in bytes after which no further request is answered before they are written: a request
/// may be much shorter than its reply.
const MAX_REPLIES: usize = 16 * 1024;

/// A protocol of Postfix.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// socketmap_table(5), with the value of each authorised address.
    Socketmap(MapValue),
    /// Access policy delegation (SMTPD_POLICY_README).
    Policy,
}

impl Protocol {
    /// Returns its name, which is also the name of the option.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Socketmap(_) => "socketmap",
            Self::Policy => "policy",
        }
    }

    /// Answers the first request in `input`.
    fn answer(
        &self,
        engine: &mut Engine,
        now: Time,
        input: &[u8],
        output: &mut Vec<u8>,
        records: &mut Vec<RelayRecord>,
    ) -> Decoded<Answered> {
        match self {
            Self::Socketmap(value) => socketmap::read(input).map(|key| {
                let admitted = key.is_some_and(|address| engine.admits(now, address).is_some());
                socketmap::write(admitted.then(|| value.as_str()), output);
                if admitted { Answered::Yes } else { Answered::No }
            }),
            Self::Policy => policy::read(input).map(|request| {
                let decision = engine.decide(now, &request);
                decision.action.write(output);
                records.extend(decision.record.map(|record| *record));
                match decision.action {
                    Action::Ok => Answered::Yes,
                    Action::Dunno => Answered::No,
                    Action::Reject(_) | Action::Defer(_) => Answered::Rejected,
                }
            }),
        }
    }
}

/// The answer to a request, for the counters.
#[derive(Clone, Copy)]
enum Answered {
    Yes,
    No,
    Rejected,
}

/// The counters of one service.
#[derive(Debug, Default)]
pub struct LookupCounters {
    /// Open connections.
    pub open: AtomicU64,
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Requests whose client may relay.
    pub admitted: AtomicU64,
    /// Requests that were rejected with a text because of their sender or a limit.
    pub rejected: AtomicU64,
    /// Connections that were closed because of malformed input or a timeout.
    pub broken: AtomicU64,
    /// Idle connections that were closed to make room for others.
    pub evicted: AtomicU64,
}

impl LookupCounters {
    fn count(&self, answered: Answered) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match answered {
            Answered::Yes => self.admitted.fetch_add(1, Ordering::Relaxed),
            Answered::Rejected => self.rejected.fetch_add(1, Ordering::Relaxed),
            Answered::No => 0,
        };
    }
}

/// One socket on which Postfix sends requests.
#[derive(Debug)]
pub struct LookupService {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address, or `systemd` if it has none.
    pub address: String,
    /// Its counters.
    pub counters: LookupCounters,
    relay_log: RelayLog,
    listener: LookupListener,
}

#[derive(Debug)]
enum LookupListener {
    Unix(UnixListener),
    Inet(TcpListener),
}

/// Serves all services until the task is dropped.
pub async fn serve(services: Arc<Vec<LookupService>>, shared: Arc<Shared>) {
    if services.is_empty() {
        return;
    }
    let limit = connection_limit(services.len() as u64);
    let mut loops = JoinSet::new();
    for index in 0..services.len() {
        loops.spawn(accept(Arc::clone(&services), index, Arc::clone(&shared), limit));
    }
    while loops.join_next().await.is_some() {}
}

/// Raises the limit of open files if it is low, and returns how many connections it allows for each
/// service.
fn connection_limit(services: u64) -> usize {
    let wanted = MAX_CONNECTIONS * services + OTHER_DESCRIPTORS;
    let granted = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= wanted => wanted,
        Ok((soft, hard)) => {
            let more = wanted.min(hard);
            setrlimit(Resource::RLIMIT_NOFILE, more, hard).map_or(soft, |()| more)
        }
        Err(_) => 2 * OTHER_DESCRIPTORS,
    };
    let connections = granted.saturating_sub(OTHER_DESCRIPTORS) / services;
    if connections < MAX_CONNECTIONS {
        warn!(connections, "few connections for Postfix: raise the limit of open files");
    }
    usize::try_from(connections).unwrap_or(1)
}

/// Accepts connections, and closes them when it is dropped.
async fn accept(
    services: Arc<Vec<LookupService>>,
    index: usize,
    shared: Arc<Shared>,
    limit: usize,
) {
    let mut connections = Connections::new(limit);
    let service = &services[index];
    loop {
        match service.listener.accept().await {
            Ok(stream) => {
                let (services, shared) = (Arc::clone(&services), Arc::clone(&shared));
                let handle = |slot: Arc<Slot>| async move {
                    services[index].handle(stream, &slot, &shared).await;
                };
                if connections.serve(handle).await {
                    service.counters.evicted.fetch_add(1, Ordering::Relaxed);
                    debug!(%service, "all connections are in use; an idle one was closed");
                }
            }
            Err(error) => {
                warn!(%service, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl LookupListener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Inet(listener) => {
                let (stream, _) = listener.accept().await?;
                // Otherwise a reply may wait for the acknowledgement of the previous one.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Counts a connection as open until it is dropped.
struct OpenConnection<'c>(&'c LookupCounters);

impl<'c> OpenConnection<'c> {
    fn new(counters: &'c LookupCounters) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for LookupService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.name(), self.address)
    }
}

impl LookupService {
    async fn handle(&self, stream: Box<dyn Stream>, slot: &Slot, shared: &Shared) {
        let _open = OpenConnection::new(&self.counters);
        if let Err(error) = self.answer_all(stream, slot, shared).await {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            debug!(service = %self, %error, "connection closed");
        }
    }

    /// Answers requests until the peer closes the connection.
    async fn answer_all(
        &self,
        mut stream: Box<dyn Stream>,
        slot: &Slot,
        shared: &Shared,
    ) -> io::Result<()> {
        let mut input = Vec::new();
        let mut deadline = Instant::now() + IDLE_TIMEOUT;
        loop {
            let begins = input.is_empty();
            // Exactly: doubled for a long request, there would be room for thousands of short ones.
            if input.len() == input.capacity() {
                input.reserve_exact(CHUNK);
            }
            if timeout_at(deadline, stream.read_buf(&mut input)).await?? == 0 {
                return Ok(());
            }
            let mut has_answered = false;
            loop {
                let (replies, rest) = self.answer_some(&mut input, shared);
                if !replies.is_empty() {
                    has_answered = true;
                    slot.idle();
                    timeout(REQUEST_TIMEOUT, stream.write_all(&replies)).await??;
                }
                match rest {
                    Remainder::Whole => {}
                    Remainder::Short => break,
                    Remainder::Broken => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
            if input.is_empty() {
                deadline = Instant::now() + IDLE_TIMEOUT;
            } else if begins || has_answered {
                // One limit for the whole request, however slowly it arrives.
                deadline = Instant::now() + REQUEST_TIMEOUT;
            }
        }
    }

    /// Answers the requests in `input` and removes them, up to [`MAX_REPLIES`]. Returns the replies.
    fn answer_some(&self, input: &mut Vec<u8>, shared: &Shared) -> (Vec<u8>, Remainder) {
        let (mut used, mut replies, mut records) = (0, Vec::new(), Vec::new());
        let rest = shared.with(|engine, now| {
            while replies.len() < MAX_REPLIES {
                let input = &input[used..];
                match self.protocol.answer(engine, now, input, &mut replies, &mut records) {
                    Decoded::Whole { request, used: more } => {
                        self.counters.count(request);
                        used += more;
                    }
                    Decoded::Short => return Remainder::Short,
                    Decoded::Broken => return Remainder::Broken,
                }
            }
            Remainder::Whole
        });
        records.iter().for_each(|record| self.relay_log.log(record));
        if used > 0 {
            input.drain(..used);
            // The connection may be idle from now on.
            input.shrink_to(CHUNK);
        }
        (replies, rest)
    }
}

/// What the rest of the input begins with.
enum Remainder {
    /// Perhaps a whole request.
    Whole,
    /// The beginning of a request.
    Short,
    /// Bytes that cannot become a request.
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Rules;

    const QUERY: &[u8] = b"17:clients 192.0.2.7,";
    const REPLY: &[u8] = b"9:NOTFOUND ,";

    fn service() -> LookupService {
        let listener = bind::inet(([127, 0, 0, 1], 0).into()).expect("a port");
        LookupService {
            protocol: Protocol::Socketmap(MapValue::default()),
            address: "inet:127.0.0.1:0".into(),
            counters: LookupCounters::default(),
            relay_log: RelayLog::default(),
            listener: LookupListener::Inet(listener),
        }
    }

    /// Pauses in seconds, each followed by the bytes that are sent.
    type Script<'a> = &'a [(u64, &'a [u8])];

    /// Plays the client's side, and expects this many replies.
    async fn play(script: Script<'_>, replies: usize) -> io::Result<()> {
        let (mut peer, stream) = tokio::io::duplex(CHUNK);
        let (service, shared) = (service(), Shared::new(Engine::new(Rules::default())));
        let slot = Slot::default();
        let served = service.answer_all(Box::new(stream), &slot, &shared);
        let played = async {
            for (pause, bytes) in script {
                tokio::time::sleep(Duration::from_secs(*pause)).await;
                // The connection may have been closed.
                let _ = peer.write_all(bytes).await;
            }
            let _ = peer.shutdown().await;
            let mut received = Vec::new();
            let _ = peer.read_to_end(&mut received).await;
            received
        };
        let (served, received) = tokio::join!(served, played);
        assert_eq!(received, REPLY.repeat(replies), "{script:?}");
        served
    }

    #[tokio::test(start_paused = true)]
    async fn slow_requests_and_idle_connections_time_out() {
        let (head, rest) = QUERY.split_at(5);
        let rows: &[(Script<'_>, usize, bool)] = &[
            (&[(0, QUERY), (599, QUERY), (599, QUERY)], 3, true),
            (&[(0, QUERY), (601, QUERY)], 1, false),
            (&[(601, QUERY)], 0, false),
            (&[(0, head), (29, rest), (29, QUERY)], 2, true),
            (&[(0, head), (31, rest)], 0, false),
            (&[(0, &QUERY[..1]), (20, &QUERY[1..2]), (20, &QUERY[2..])], 0, false),
        ];
        for (script, replies, is_sound) in rows {
            let served = play(script, *replies).await;
            assert_eq!(served.is_ok(), *is_sound, "{script:?}: {served:?}");
        }
    }
}
