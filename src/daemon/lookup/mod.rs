//! Postfix asks: one loop for the socketmap and the policy protocol.
//!
//! Promise  each answer is the engine's truth at this moment. A connection stays open for as many
//!          requests as its client has; a slow or silent one costs a few kilobytes, and ends when
//!          another one needs its slot: Postfix asks again over a new one.
//!          What is not understood ends its connection; nothing that a client sends is logged
//!          above debug level.
//! Layers   the protocols are in `engine::protocol`, from bytes to bytes;
//!          `bind` makes the sockets, `connections` says who keeps a slot; here limits and
//!          patience.

pub mod bind;

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
use crate::engine::time::Time;
use crate::postfix::map_spec::MapValue;

/// Connections of a service at once: each smtpd process that has asked keeps one, and Postfix runs a
/// hundred of them for each port (postconf(5), default_process_limit).
const MAX_CONNECTIONS: u64 = 2000;
/// File descriptors for everything else: operators and monitoring with all their slots, receivers,
/// the pipes of a postmap.
const OTHER_DESCRIPTORS: u64 = 256;
/// Between two requests: longer than Postfix keeps an idle connection (smtpd_policy_service_max_idle
/// is 300 s), so that it is Postfix who closes it.
const IDLE: Duration = Duration::from_secs(600);
/// For the rest of a request that has begun, and for a reply to be taken: a local peer needs no time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Taken from a socket at once; a usual request has a few hundred bytes.
const CHUNK: usize = 4096;

/// A protocol that Postfix speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// socketmap_table(5), with the value of each authorised address.
    Socketmap(MapValue),
    /// Access policy delegation.
    Policy,
}

impl Protocol {
    /// Returns its name, which is also that of the option.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Socketmap(_) => "socketmap",
            Self::Policy => "policy",
        }
    }

    /// Answers the request at the front of `input`.
    fn answer(
        &self,
        engine: &Engine,
        now: Time,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Decoded<Answered> {
        match self {
            Self::Socketmap(value) => socketmap::read(input).map(|asked| {
                let admitted = asked.is_some_and(|address| engine.admits(now, address).is_some());
                socketmap::write(admitted.then(|| value.as_str()), output);
                if admitted { Answered::Yes } else { Answered::No }
            }),
            Self::Policy => policy::read(input).map(|request| {
                let action = engine.decide(now, &request);
                action.write(output);
                match action {
                    Action::Ok => Answered::Yes,
                    Action::Dunno => Answered::No,
                    Action::Reject(_) => Answered::Rejected,
                }
            }),
        }
    }
}

/// What Postfix was told, for the counters.
#[derive(Clone, Copy)]
enum Answered {
    Yes,
    No,
    Rejected,
}

/// What one service has counted.
#[derive(Debug, Default)]
pub struct LookupCounters {
    /// Connections that are open.
    pub open: AtomicU64,
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Those of them whose client may relay.
    pub admitted: AtomicU64,
    /// Those of them that were refused with a text, because of their sender.
    pub rejected: AtomicU64,
    /// Connections that were closed because of what came over them, or because nothing did.
    pub broken: AtomicU64,
    /// Connections that were idle and made room for others.
    pub evicted: AtomicU64,
}

impl LookupCounters {
    fn count(&self, told: Answered) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match told {
            Answered::Yes => self.admitted.fetch_add(1, Ordering::Relaxed),
            Answered::Rejected => self.rejected.fetch_add(1, Ordering::Relaxed),
            Answered::No => 0,
        };
    }
}

/// One socket on which Postfix asks.
#[derive(Debug)]
pub struct LookupService {
    /// What Postfix asks.
    pub protocol: Protocol,
    /// Where it listens, or `systemd` if that has no name.
    pub address: String,
    /// What it has counted.
    pub counters: LookupCounters,
    listener: LookupListener,
}

#[derive(Debug)]
enum LookupListener {
    Unix(UnixListener),
    Inet(TcpListener),
}

/// Answers on all services until the task is dropped.
pub async fn serve(services: Arc<Vec<LookupService>>, shared: Arc<Shared>) {
    if services.is_empty() {
        return;
    }
    let slots = slots(services.len() as u64);
    let mut loops = JoinSet::new();
    for index in 0..services.len() {
        loops.spawn(accept(Arc::clone(&services), index, Arc::clone(&shared), slots));
    }
    while loops.join_next().await.is_some() {}
}

/// How many connections each of some services may have at once: as many as the limit of open files
/// admits for all of them together, which is raised if it is low.
fn slots(services: u64) -> usize {
    let wanted = MAX_CONNECTIONS * services + OTHER_DESCRIPTORS;
    let granted = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= wanted => wanted,
        Ok((soft, hard)) => {
            let more = wanted.min(hard);
            setrlimit(Resource::RLIMIT_NOFILE, more, hard).map_or(soft, |()| more)
        }
        Err(_) => 2 * OTHER_DESCRIPTORS,
    };
    let slots = granted.saturating_sub(OTHER_DESCRIPTORS) / services;
    if slots < MAX_CONNECTIONS {
        warn!(connections = slots, "few connections at once; raise the limit of open files");
    }
    usize::try_from(slots).unwrap_or(1)
}

/// Accepts connections, and ends them when it is dropped.
async fn accept(
    services: Arc<Vec<LookupService>>,
    index: usize,
    shared: Arc<Shared>,
    slots: usize,
) {
    let mut connections = Connections::new(slots);
    let service = &services[index];
    loop {
        match service.listener.accept().await {
            Ok(stream) => {
                let (services, shared) = (Arc::clone(&services), Arc::clone(&shared));
                let converse = |slot: Arc<Slot>| async move {
                    services[index].converse(stream, &slot, &shared).await;
                };
                if connections.serve(converse).await {
                    service.counters.evicted.fetch_add(1, Ordering::Relaxed);
                    debug!(%service, "all slots are taken; an idle connection ends");
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
                // Otherwise a reply may wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that is counted as open, however it ends.
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
    async fn converse(&self, stream: Box<dyn Stream>, slot: &Slot, shared: &Shared) {
        let _open = OpenConnection::new(&self.counters);
        if let Err(error) = self.answer_all(stream, slot, shared).await {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            debug!(service = %self, %error, "connection closed");
        }
    }

    /// Answers until the peer hangs up.
    async fn answer_all(
        &self,
        mut stream: Box<dyn Stream>,
        slot: &Slot,
        shared: &Shared,
    ) -> io::Result<()> {
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let mut deadline = Instant::now() + IDLE;
        loop {
            let begins = input.is_empty();
            input.reserve(CHUNK);
            if timeout_at(deadline, stream.read_buf(&mut input)).await?? == 0 {
                return Ok(());
            }
            let (used, rest) = shared.with(|engine, now| {
                let mut used = 0;
                loop {
                    match self.protocol.answer(engine, now, &input[used..], &mut output) {
                        Decoded::Whole { request, used: more } => {
                            self.counters.count(request);
                            used += more;
                        }
                        Decoded::Short => break (used, Ok(())),
                        Decoded::Broken => break (used, Err(io::ErrorKind::InvalidData)),
                    }
                }
            });
            if used > 0 {
                slot.idle();
                timeout(REQUEST_TIMEOUT, stream.write_all(&output)).await??;
                output.clear();
                input.drain(..used);
            }
            rest?;
            if input.is_empty() {
                input.shrink_to(CHUNK);
                deadline = Instant::now() + IDLE;
            } else if begins || used > 0 {
                // It must be whole in time, however slowly it trickles in.
                deadline = Instant::now() + REQUEST_TIMEOUT;
            }
        }
    }
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
            listener: LookupListener::Inet(listener),
        }
    }

    /// Pauses in seconds, each followed by some bytes.
    type Script<'a> = &'a [(u64, &'a [u8])];

    /// Plays what a client sends, and expects so many replies.
    async fn play(script: Script<'_>, replies: usize) -> io::Result<()> {
        let (mut peer, stream) = tokio::io::duplex(CHUNK);
        let (service, shared) = (service(), Shared::new(Engine::new(Rules::default())));
        let slot = Slot::default();
        let served = service.answer_all(Box::new(stream), &slot, &shared);
        let played = async {
            for (pause, bytes) in script {
                tokio::time::sleep(Duration::from_secs(*pause)).await;
                // It may have hung up.
                let _ = peer.write_all(bytes).await;
            }
            let _ = peer.shutdown().await;
            let mut got = Vec::new();
            let _ = peer.read_to_end(&mut got).await;
            got
        };
        let (served, got) = tokio::join!(served, played);
        assert_eq!(got, REPLY.repeat(replies), "{script:?}");
        served
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_idle_connections_have_their_time() {
        let (head, tail) = QUERY.split_at(5);
        let rows: &[(Script<'_>, usize, bool)] = &[
            (&[(0, QUERY), (599, QUERY), (599, QUERY)], 3, true),
            (&[(0, QUERY), (601, QUERY)], 1, false),
            (&[(601, QUERY)], 0, false),
            (&[(0, head), (29, tail), (29, QUERY)], 2, true),
            (&[(0, head), (31, tail)], 0, false),
            (&[(0, &QUERY[..1]), (20, &QUERY[1..2]), (20, &QUERY[2..])], 0, false),
        ];
        for (script, replies, is_sound) in rows {
            let served = play(script, *replies).await;
            assert_eq!(served.is_ok(), *is_sound, "{script:?}: {served:?}");
        }
    }
}
