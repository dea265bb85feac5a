//! The one door to the engine: the lock, the clock, and the bells for those who wait for it.
//!
//! Promise  what is asked of the engine is a synchronous closure, so the lock is never held
//!          across a wait, and what goes over the whole set is asked slice by slice. This file is
//!          the only reader of the clock.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

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
    journal_filled: Notify,
    journal_saved: Notify,
    map_published: Notify,
}

impl Shared {
    /// Puts an engine behind the door.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine: Mutex::new(engine),
            clock: Clock::new(),
            sweep_moved: Notify::new(),
            publication_moved: Notify::new(),
            journal_filled: Notify::new(),
            journal_saved: Notify::new(),
            map_published: Notify::new(),
        }
    }

    /// Asks the engine something, at this moment.
    pub fn with<R>(&self, ask: impl FnOnce(&mut Engine, Time) -> R) -> R {
        // The engine does not panic; if it did, its counters and sets would still be sound.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let (sweep_at, publish_at) = (engine.sweep_at(), engine.publish_at());
        let (filled, saved) = (engine.has_journal(), engine.saved_until());
        let published = engine.level().last();
        let answer = ask(&mut engine, self.clock.now());
        let sweep_moved = engine.sweep_at() != sweep_at;
        if sweep_moved {
            self.sweep_moved.notify_one();
        }
        // Also then: whoever publishes looks after the map when something happens.
        if sweep_moved || engine.publish_at() != publish_at {
            self.publication_moved.notify_one();
        }
        if engine.has_journal() && !filled {
            self.journal_filled.notify_one();
        }
        if engine.saved_until() != saved {
            self.journal_saved.notify_waiters();
        }
        if engine.level().last() != published {
            self.map_published.notify_waiters();
        }
        answer
    }

    /// What the engine says of all that it holds: it is asked for one slice after another, which
    /// begins behind an address, and others have their turn in between. For threads that may
    /// sleep.
    pub fn slices<T>(
        &self,
        ask: impl Fn(&Engine, Time, Option<IpAddr>) -> Slice<T>,
    ) -> impl Iterator<Item = T> {
        let mut next = Some(None);
        std::iter::from_fn(move || {
            let behind = next?;
            if behind.is_some() {
                std::thread::sleep(BETWEEN_SLICES);
            }
            let slice = self.with(|engine, now| ask(engine, now, behind));
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

    /// Waits until the disk has all that the engine has decided until now.
    pub async fn saved(&self) {
        let decided = self.with(|engine, _| engine.decided());
        loop {
            // First, or else it might happen between the question and the wait.
            let saved = self.journal_saved.notified();
            if self.with(|engine, _| decided <= engine.saved_until()) {
                return;
            }
            saved.await;
        }
    }

    /// Waits until the map says what is decided, and saved, until now.
    pub async fn published(&self) {
        let wanted = self.with(|engine, _| engine.level().wanted());
        loop {
            // First, as above.
            let published = self.map_published.notified();
            if self.with(|engine, _| wanted <= engine.level().last()) {
                return;
            }
            published.await;
        }
    }

    /// Waits until the engine has something to write down.
    pub async fn journal_filled(&self) {
        self.journal_filled.notified().await;
    }
}
