//! The only access to the engine: the lock, the clock, and notifications for tasks that wait for it.
//!
//! - **Promise**: the engine is used in synchronous closures, so the lock is never held across an
//!   await; the whole set is visited slice by slice. This is the only source of the engine's time
//!   while the daemon runs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use super::lost_logins::LostLogins;
use crate::engine::Engine;
use crate::engine::grants::{Cursor, Slice};
use crate::engine::time::Time;

/// The wall clock at the start plus the time since then on `CLOCK_BOOTTIME`: it never jumps, it
/// includes the time for which the host was suspended, and its times are valid after a restart.
#[derive(Debug)]
struct Clock {
    start: Time,
    boot_at_start: Duration,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Time::default() + wall, boot_at_start: since_boot() }
    }

    fn now(&self) -> Time {
        self.start + since_boot().saturating_sub(self.boot_at_start)
    }
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39").into()
}

/// Pause between two slices, long enough for another thread to get the lock.
const BETWEEN_SLICES: Duration = Duration::from_micros(60);

/// The engine, shared by all tasks.
#[derive(Debug)]
pub struct Shared {
    engine: Mutex<Engine>,
    clock: Clock,
    sweep_moved: Notify,
    publication_moved: Notify,
    state_changed: Notify,
    save_wanted: Notify,
    /// The last change that is on disk.
    saved: watch::Sender<u64>,
    /// The last generation that was published.
    published: watch::Sender<u64>,
    /// The numbers of the first event that is kept, and of the next one.
    events: watch::Sender<(u64, u64)>,
    /// Why the last attempt to publish failed, if it did.
    map_error: Mutex<Option<String>>,
    lost_logins: LostLogins,
    cluster_moved: Notify,
    cluster_heard: Notify,
}

impl Shared {
    /// Shares an engine.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine: Mutex::new(engine),
            clock: Clock::new(),
            sweep_moved: Notify::new(),
            publication_moved: Notify::new(),
            state_changed: Notify::new(),
            save_wanted: Notify::new(),
            saved: watch::Sender::default(),
            published: watch::Sender::default(),
            events: watch::Sender::default(),
            map_error: Mutex::default(),
            lost_logins: LostLogins::default(),
            cluster_moved: Notify::new(),
            cluster_heard: Notify::new(),
        }
    }

    /// Calls `use_engine` with the engine and the current time, and wakes tasks that wait for a
    /// change.
    pub fn with<R>(&self, use_engine: impl FnOnce(&mut Engine, Time) -> R) -> R {
        // Never poisoned: a panic ends the program.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let (sweep_at, publish_at) = (engine.sweep_at(), engine.publish_at());
        let (has_changes, published) =
            (engine.has_changes(), engine.publication().published_generation());
        let events_end = engine.events().end();
        let had_to_tell = engine.has_to_tell();
        let result = use_engine(&mut engine, self.clock.now());
        let sweep_moved = engine.sweep_at() != sweep_at;
        if sweep_moved {
            self.sweep_moved.notify_one();
        }
        // The publisher also checks the map's files when a grant has changed.
        if sweep_moved || engine.publish_at() != publish_at {
            self.publication_moved.notify_one();
        }
        if engine.has_changes() && !has_changes {
            self.state_changed.notify_one();
        }
        if engine.publication().published_generation() != published {
            self.published.send_replace(engine.publication().published_generation());
        }
        if engine.has_to_tell() && !had_to_tell {
            self.cluster_moved.notify_one();
        }
        if engine.events().end() != events_end {
            self.events.send_replace((engine.events().first(), engine.events().end()));
        }
        result
    }

    /// Iterates over the whole set slice by slice, and lets others use the engine in between. `ask`
    /// returns the slice from a cursor on. For threads that may sleep.
    pub fn slices<T>(
        &self,
        ask: impl Fn(&Engine, Time, Cursor) -> Slice<T>,
    ) -> impl Iterator<Item = T> {
        let mut next = Some(Cursor::default());
        std::iter::from_fn(move || {
            let from = next?;
            if from != Cursor::default() {
                self.yield_lock();
            }
            let slice = self.with(|engine, now| ask(engine, now, from));
            next = slice.next;
            Some(slice.items)
        })
    }

    /// Returns a receiver of the numbers of the first event that is kept and of the next one.
    pub fn event_numbers(&self) -> watch::Receiver<(u64, u64)> {
        self.events.subscribe()
    }

    /// Has the other hosts told of what they lack.
    pub fn tell_now(&self) {
        self.cluster_moved.notify_one();
    }

    /// Waits until there is something to tell the other hosts.
    pub async fn cluster_moved(&self) {
        self.cluster_moved.notified().await;
    }

    /// Records that entries of the stream were read or added.
    pub fn mark_heard(&self) {
        self.cluster_heard.notify_waiters();
    }

    /// Waits until entries of the stream are read or added, from this call on.
    pub fn cluster_heard(&self) -> impl Future<Output = ()> {
        self.cluster_heard.notified()
    }

    /// Has removals checked now: those that depend on other hosts have no time of their own.
    pub fn sweep_now(&self) {
        self.sweep_moved.notify_one();
    }

    /// Waits until the time of the next expiry may have changed.
    pub async fn sweep_moved(&self) {
        self.sweep_moved.notified().await;
    }

    /// Waits until the time of the next publication may have changed.
    pub async fn publication_moved(&self) {
        self.publication_moved.notified().await;
    }

    /// Sleeps between two slices, so that others get the lock. For threads that may sleep.
    pub fn yield_lock(&self) {
        std::thread::sleep(BETWEEN_SLICES);
    }

    /// Waits until there are changes that the state file does not have.
    pub async fn state_changed(&self) {
        self.state_changed.notified().await;
    }

    /// Waits until a task waits for the state file.
    pub async fn save_wanted(&self) {
        self.save_wanted.notified().await;
    }

    /// Records that all changes up to this one are on disk.
    pub fn mark_saved(&self, last_change: u64) {
        self.saved.send_replace(last_change);
    }

    /// Returns the logins that authorised nobody.
    pub fn lost_logins(&self) -> &LostLogins {
        &self.lost_logins
    }

    /// Records why the last attempt to publish failed, or that it succeeded.
    pub fn set_map_error(&self, error: Option<String>) {
        *self.map_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Returns why the last attempt to publish failed, if it did.
    pub fn map_error(&self) -> Option<String> {
        self.map_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all changes so far are on disk.
    pub async fn saved(&self) {
        let last_change = self.with(|engine, _| engine.last_change());
        self.save_wanted.notify_one();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.saved.subscribe().wait_for(|saved| *saved >= last_change).await;
    }

    /// Waits until the map has all changes so far.
    pub async fn published(&self) {
        let wanted = self.with(|engine, _| engine.publication().desired());
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.published.subscribe().wait_for(|published| *published >= wanted).await;
    }
}
