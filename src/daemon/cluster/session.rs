//! What is done while there is a connection: the stream is read from its beginning, and what changes
//! here is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::Exchange;
use super::store::{Client, ReadEntry, Store, StoreError};
use crate::daemon::shared::Shared;
use crate::engine::MAX_MANUAL;
use crate::engine::cluster::Cluster;
use crate::engine::cluster::entry::EntryId;
use crate::engine::cluster::hearing::HEARTBEAT;
use crate::error::Failure;
use crate::sys::log_limit::LogLimiter;

/// Entries taken under one lock: less than a millisecond.
const HEARD: usize = 128;
/// Entries told at once, so that what changes meanwhile does not wait long.
const TOLD: usize = 256;
/// Pause after entries that are told again: 10,000 in a second, so that no host falls behind, and what
/// changes meanwhile is heard at once.
const TOLD_AGAIN_PAUSE: Duration = Duration::from_millis(12);
/// Pause before the next attempt to connect; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause after the store has refused an entry.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Heartbeats between two times at which old entries are trimmed.
const TRIM_BEATS: u64 = 60;
/// Entries older than this by the store's clock are trimmed: no grant lasts so long, and the clock
/// may have been wrong.
const OLDEST: Duration = Duration::from_secs(MAX_MANUAL.as_secs() + 24 * 3600);

/// Why a connection ended.
enum End {
    /// It failed.
    Failed(String),
    /// The stream must be read again.
    ReadAgain(&'static str),
}

impl From<String> for End {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// Keeps a connection.
pub(super) async fn keep(
    exchange: &Exchange,
    client: &Client,
    shared: &Arc<Shared>,
) -> Result<(), Failure> {
    let limiter = LogLimiter::default();
    let mut pause = PAUSE;
    loop {
        let end = match client.connect().await {
            Ok(store) => {
                let begun = tokio::time::Instant::now();
                let end = session(exchange, store, shared).await;
                if begun.elapsed() > LONGEST_PAUSE {
                    pause = PAUSE;
                }
                end
            }
            Err(error) => End::Failed(error),
        };
        match end {
            End::Failed(error) => {
                exchange.lost(shared.with(|_, now| now), &error);
                if let Some(times) = limiter.record(1) {
                    warn!(
                        times,
                        error,
                        "the cluster's store is away: this host goes on by itself, and does not hear \
                         of logins elsewhere"
                    );
                }
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
            End::ReadAgain(why) => info!("reading the cluster's stream again: {why}"),
        }
    }
}

async fn session(exchange: &Exchange, store: Store, shared: &Arc<Shared>) -> End {
    match try_session(exchange, store, shared).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_session(
    exchange: &Exchange,
    mut store: Store,
    shared: &Arc<Shared>,
) -> Result<End, End> {
    let (time, newest) = store.look_back().await?;
    let last = newest.first().map(|(id, _)| *id);
    let reading = shared.with(|engine, now| {
        engine.begin_reading(now, time, newest.iter().map(|(id, text)| (*id, &**text)));
        engine.cluster().map(Cluster::reading)
    });
    if exchange.connected(&store.name) {
        info!(store = store.name, "connected to the cluster's store");
    }
    let _catching_up = CatchingUp(shared);
    tokio::select! {
        end = read(store.clone(), shared, reading, last) => end,
        end = tell(exchange, store.clone(), shared) => end,
    }
}

/// However the connection ends, also by a stop of the daemon: what was heard gets into the state file.
struct CatchingUp<'a>(&'a Shared);

impl Drop for CatchingUp<'_> {
    fn drop(&mut self) {
        self.0.with(|engine, _| engine.end_catching_up());
    }
}

/// Reads the stream from its beginning, and then what is added.
async fn read(
    mut store: Store,
    shared: &Arc<Shared>,
    reading: Option<u32>,
    last: Option<EntryId>,
) -> Result<End, End> {
    let mut after = EntryId::default();
    let mut is_read = false;
    let mut hearing = None;
    loop {
        let has_all = last.is_none_or(|last| last <= after);
        if is_read || has_all {
            wait_for(&mut hearing).await;
        }
        if !is_read && has_all {
            is_read = true;
            shared.with(|engine, now| engine.end_reading(now));
            shared.tell_now();
        }
        let entries = store.read(after).await?;
        wait_for(&mut hearing).await;
        after = match entries.last() {
            Some((id, _)) => *id,
            // The newest was deleted meanwhile.
            None if !is_read => after.max(last.unwrap_or_default()),
            None => after,
        };
        // While many are heard, the next ones are read.
        if entries.len() > HEARD {
            let shared = Arc::clone(shared);
            hearing = Some(tokio::task::spawn_blocking(move || {
                hear_many(&shared, reading, &entries);
            }));
        } else {
            hear(shared, reading, &entries);
        }
        if shared.with(|engine, _| engine.cluster().is_some_and(|it| it.wants_reading())) {
            return Ok(End::ReadAgain("the rules or the clock have changed"));
        }
    }
}

async fn wait_for(hearing: &mut Option<JoinHandle<()>>) {
    if let Some(hearing) = hearing.take() {
        // It does not panic, and nobody aborts it.
        let _ = hearing.await;
    }
}

/// Takes many entries, on a thread that may sleep: frames and lookups get their turn in between.
fn hear_many(shared: &Shared, reading: Option<u32>, entries: &[ReadEntry]) {
    for entries in entries.chunks(HEARD) {
        hear(shared, reading, entries);
        shared.yield_lock();
    }
}

/// Takes entries, unless another reading has begun meanwhile: they may be of a stream that is lost.
fn hear(shared: &Shared, reading: Option<u32>, entries: &[ReadEntry]) {
    shared.with(|engine, now| {
        if engine.cluster().map(Cluster::reading) != reading {
            return;
        }
        entries.iter().for_each(|(id, text)| engine.hear(now, *id, text));
    });
    shared.mark_heard();
}

/// Tells what changes, and beats.
async fn tell(exchange: &Exchange, mut store: Store, shared: &Shared) -> Result<End, End> {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut count) = (None, 0);
    loop {
        let is_due = tokio::select! {
            biased;
            _ = beats.tick() => true,
            () = shared.cluster_moved() => false,
        };
        let wants =
            shared.with(|engine, _| engine.cluster().is_some_and(|it| it.wants_heartbeat()));
        let mut told = Ok(());
        if is_due || wants {
            told = beat(&mut store, shared, &mut last).await;
        }
        if let Ok(()) = told {
            told = tell_all(&mut store, shared, &mut beats).await;
        }
        match told {
            Ok(()) => exchange.lock().untellable = None,
            Err(Trouble::Refused(error)) => {
                if exchange.refused(&error) {
                    warn!(error, "the cluster's store refuses what this host tells");
                }
                sleep(REFUSED_PAUSE).await;
            }
            Err(Trouble::Ended(end)) => return Err(end),
        }
        if is_due {
            // Removals, and blocks that end.
            shared.sweep_now();
            count += 1;
            if count % TRIM_BEATS == 0 {
                store.trim(OLDEST).await?;
            }
        }
    }
}

/// Why something was not told.
enum Trouble {
    /// The store refuses it, but answers.
    Refused(String),
    /// The connection must end.
    Ended(End),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        if error.is_refusal {
            Self::Refused(error.text)
        } else {
            Self::Ended(End::Failed(error.text))
        }
    }
}

async fn beat(
    store: &mut Store,
    shared: &Shared,
    last: &mut Option<EntryId>,
) -> Result<(), Trouble> {
    let (text, read) = shared.with(|engine, now| {
        let read = engine.cluster().map(|cluster| cluster.read()).unwrap_or_default();
        (engine.heartbeat(now), read)
    });
    let Some(text) = text else { return Ok(()) };
    let (id, was_there) = store.beat(&text, *last).await?;
    *last = Some(id);
    if !was_there {
        return Err(Trouble::Ended(End::ReadAgain("entries of this host are missing")));
    }
    if id < read {
        return Err(Trouble::Ended(End::ReadAgain("it has begun anew")));
    }
    Ok(())
}

/// Tells everything, but stops for a heartbeat.
async fn tell_all(
    store: &mut Store,
    shared: &Shared,
    beats: &mut tokio::time::Interval,
) -> Result<(), Trouble> {
    let begun = tokio::time::Instant::now();
    loop {
        let untold = shared.with(|engine, now| engine.untold(now, TOLD));
        if untold.messages.is_empty() && untold.obsolete.is_empty() {
            if untold.has_more {
                tokio::task::yield_now().await;
                continue;
            }
            return Ok(());
        }
        let texts = untold.messages.iter().map(|message| &*message.text);
        match store.add(texts, &untold.obsolete).await {
            Ok(ids) => shared.with(|engine, _| {
                untold.messages.iter().zip(ids).for_each(|(it, id)| engine.told(it, id));
            }),
            Err(error) => {
                shared.with(|engine, _| engine.not_told(&untold.messages));
                return Err(error.into());
            }
        }
        shared.mark_heard();
        if untold.is_again {
            tokio::select! {
                () = sleep(TOLD_AGAIN_PAUSE) => {}
                () = shared.cluster_moved() => {}
            }
        }
        if begun.elapsed() >= HEARTBEAT {
            // There is more: the next turn comes at once.
            beats.reset_immediately();
            return Ok(());
        }
    }
}
