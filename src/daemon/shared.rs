//! The one door to the engine: the lock, the clock, and the bells for those who wait for it.
//!
//! Promise  what is asked of the engine is a synchronous closure, so the lock is never held
//!          across a wait, and what goes over the whole set is asked slice by slice. This file is
//!          the only reader of the clock.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use crate::engine::Engine;
use crate::engine::grants::Slice;
use crate::engine::time::Time;

/// The wall clock at the start plus the time since on `CLOCK_BOOTTIME`: it never jumps, it counts
/// the time for which the host was suspended, and its moments outlive the process.
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

/// Between two slices, long enough for whoever waits for the lock to get it.
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
    /// The last change that the disk has.
    saved: watch::Sender<u64>,
    /// The last generation of the map.
    published: watch::Sender<u64>,
}

impl Shared {
    /// Puts an engine after the door.
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
        }
    }

    /// Asks the engine something, at this moment.
    pub fn with<R>(&self, ask: impl FnOnce(&mut Engine, Time) -> R) -> R {
        // The engine does not panic; if it did, its counters and sets would still be sound.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let (sweep_at, publish_at) = (engine.sweep_at(), engine.publish_at());
        let (has_changes, published) =
            (engine.has_changes(), engine.publication().published_generation());
        let answer = ask(&mut engine, self.clock.now());
        let sweep_moved = engine.sweep_at() != sweep_at;
        if sweep_moved {
            self.sweep_moved.notify_one();
        }
        // Also then: whoever publishes looks after the map when something happens.
        if sweep_moved || engine.publish_at() != publish_at {
            self.publication_moved.notify_one();
        }
        if engine.has_changes() && !has_changes {
            self.state_changed.notify_one();
        }
        if engine.publication().published_generation() != published {
            self.published.send_replace(engine.publication().published_generation());
        }
        answer
    }

    /// What the engine says of all that it holds: it is asked for one slice after another, which
    /// begins after an address, and others have their turn in between. For threads that may
    /// sleep.
    pub fn slices<T>(
        &self,
        ask: impl Fn(&Engine, Time, Option<IpAddr>) -> Slice<T>,
    ) -> impl Iterator<Item = T> {
        let mut next = Some(None);
        std::iter::from_fn(move || {
            let after = next?;
            if after.is_some() {
                self.let_others_in();
            }
            let slice = self.with(|engine, now| ask(engine, now, after));
            next = slice.next.map(Some);
            Some(slice.items)
        })
    }

    /// Waits until the next moment to take out what has ended may be another one.
    pub async fn sweep_moved(&self) {
        self.sweep_moved.notified().await;
    }

    /// Waits until the next moment of a publication may be another one.
    pub async fn publication_moved(&self) {
        self.publication_moved.notified().await;
    }

    /// Between two slices: whoever waits for the lock gets it. For threads that may sleep.
    pub fn let_others_in(&self) {
        std::thread::sleep(BETWEEN_SLICES);
    }

    /// Waits until the state file is to have something that it does not have.
    pub async fn state_changed(&self) {
        self.state_changed.notified().await;
    }

    /// Waits until somebody waits for the state file.
    pub async fn save_wanted(&self) {
        self.save_wanted.notified().await;
    }

    /// The disk has all changes up to this one.
    pub fn mark_saved(&self, last_change: u64) {
        self.saved.send_replace(last_change);
    }

    /// Waits until the disk has all that the engine has decided until now.
    pub async fn saved(&self) {
        let last_change = self.with(|engine, _| engine.last_change());
        self.save_wanted.notify_one();
        // Its sender is here: it does not close.
        let _ = self.saved.subscribe().wait_for(|saved| *saved >= last_change).await;
    }

    /// Waits until the map says what is decided until now.
    pub async fn published(&self) {
        let wanted = self.with(|engine, _| engine.publication().desired());
        // Its sender is here: it does not close.
        let _ = self.published.subscribe().wait_for(|published| *published >= wanted).await;
    }
}
