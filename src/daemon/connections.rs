//! The connections of one listener: limited in number; when all slots are in use, a new connection
//! replaces an idle one.
//!
//! - **Promise**: a new connection gets a slot at once. The one evicted for it is the oldest that has
//!   not sent a request; otherwise the one that has been idle longest; one that waits for an answer
//!   only if all do. The newest connections are spared, because their request may be on its way.
//!   Dropping [`Connections`] closes them all.
//! - **Not here**: what is sent over a connection, and its time limits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{AbortHandle, Id, JoinSet};

/// One slot in this many is kept for new connections without a request: otherwise clients that
/// connect without pause would evict each other before a request can be read.
const SPARED_SHARE: usize = 8;

/// What a connection is doing, in the order of eviction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has not sent a request yet.
    #[default]
    Silent,
    /// Its requests are answered.
    Idle,
    /// It waits for an answer.
    Waiting,
}

/// The slot of one connection, with what the connection is doing.
#[derive(Debug, Default)]
pub struct Slot {
    sequence: Arc<AtomicU64>,
    /// The stage, and its number in the sequence of all changes.
    stage: Mutex<(Stage, u64)>,
}

impl Slot {
    fn new(sequence: &Arc<AtomicU64>) -> Self {
        let slot = Self { sequence: Arc::clone(sequence), ..Self::default() };
        slot.set(Stage::Silent);
        slot
    }

    /// Marks that a request has arrived and its answer will take a while.
    pub fn waiting(&self) {
        self.set(Stage::Waiting);
    }

    /// Marks that a request is answered, or that the client has read a part of the answer.
    pub fn idle(&self) {
        self.set(Stage::Idle);
    }

    fn set(&self, stage: Stage) {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = (stage, number);
    }

    fn stage(&self) -> (Stage, u64) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    sequence: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    slots: HashMap<Id, (Arc<Slot>, AbortHandle)>,
}

impl Connections {
    /// Creates a set of at most `limit` connections, at least one.
    pub fn new(limit: usize) -> Self {
        let (tasks, slots) = (JoinSet::new(), HashMap::new());
        Self { limit: limit.max(1), sequence: Arc::default(), tasks, slots }
    }

    /// Serves a new connection. Returns whether another one was closed for it.
    pub async fn serve<F>(&mut self, handle: impl FnOnce(Arc<Slot>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.remove(ended);
        }
        let is_full = self.tasks.len() >= self.limit;
        if is_full {
            if let Some(task) = self.to_evict() {
                task.abort();
            }
            // Its file descriptor is closed before the next one is used.
            if let Some(ended) = self.tasks.join_next_with_id().await {
                self.remove(ended);
            }
        }
        let slot = Arc::new(Slot::new(&self.sequence));
        let task = self.tasks.spawn(handle(Arc::clone(&slot)));
        self.slots.insert(task.id(), (slot, task));
        // Its request may have arrived already: read it before the next connection is accepted.
        tokio::task::yield_now().await;
        is_full
    }

    fn to_evict(&self) -> Option<&AbortHandle> {
        let stages = || self.slots.values().map(|(slot, task)| (slot.stage(), task));
        let silent = stages().filter(|((stage, _), _)| *stage == Stage::Silent).count();
        let rank = |(stage, since)| match stage {
            Stage::Silent if silent <= self.limit / SPARED_SHARE => (Stage::Idle, since),
            _ => (stage, since),
        };
        stages().min_by_key(|(stage, _)| rank(*stage)).map(|(_, task)| task)
    }

    fn remove(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.slots.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Connections, by number, that stay open until they are evicted.
    struct Scene {
        connections: Connections,
        slots: Vec<Arc<Slot>>,
        closed: Arc<Mutex<Vec<usize>>>,
    }

    /// Records the number of a connection when it is closed.
    struct RecordsClose(usize, Arc<Mutex<Vec<usize>>>);

    impl Drop for RecordsClose {
        fn drop(&mut self) {
            self.1.lock().expect("a lock").push(self.0);
        }
    }

    impl Scene {
        fn new(limit: usize) -> Self {
            Self { connections: Connections::new(limit), slots: Vec::new(), closed: Arc::default() }
        }

        /// Opens one more connection and returns the one that was evicted for it.
        async fn connect(&mut self) -> Option<usize> {
            let guard = RecordsClose(self.slots.len(), Arc::clone(&self.closed));
            let slots = &mut self.slots;
            let served = self.connections.serve(|slot| {
                slots.push(slot);
                async move {
                    let _guard = guard;
                    pending().await
                }
            });
            let has_evicted = served.await;
            let closed = self.closed.lock().expect("a lock").pop();
            assert_eq!(has_evicted, closed.is_some());
            closed
        }
    }

    #[tokio::test]
    async fn silent_connections_are_evicted_first_oldest_first() {
        let mut scene = Scene::new(8);
        for _ in 0..8 {
            assert_eq!(scene.connect().await, None);
        }
        scene.slots[0].idle();
        scene.slots[2].waiting();
        let mut evicted = Vec::new();
        for _ in 0..12 {
            evicted.extend(scene.connect().await);
        }
        assert_eq!(evicted, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert_eq!(scene.connections.slots.len(), 8);
    }

    #[tokio::test]
    async fn then_the_longest_idle_connection() {
        let mut scene = Scene::new(8);
        for _ in 0..8 {
            scene.connect().await;
        }
        scene.slots[0].waiting();
        for number in [3, 1, 2, 4, 5, 6, 7, 3] {
            scene.slots[number].idle();
        }
        assert_eq!(scene.connect().await, Some(1));
        assert_eq!(scene.connect().await, Some(2), "one silent connection is spared");
        assert_eq!(scene.connect().await, Some(8), "two are not");
        scene.slots[9].idle();
        scene.slots[10].idle();
        assert_eq!(scene.connect().await, Some(4));
    }

    #[tokio::test]
    async fn waiting_connections_are_evicted_only_if_all_wait() {
        let mut scene = Scene::new(2);
        for number in [0, 1] {
            scene.connect().await;
            scene.slots[number].waiting();
        }
        scene.slots[0].waiting();
        assert_eq!(scene.connect().await, Some(1));
        assert_eq!(scene.connect().await, Some(2));
    }

    #[tokio::test]
    async fn closed_connections_free_their_slots() {
        let mut connections = Connections::new(1);
        for _ in 0..100 {
            assert!(!connections.serve(|_| async {}).await);
        }
        assert!(connections.slots.len() <= 1);
    }
}
