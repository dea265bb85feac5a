//! The connections of one listener: so many at once, and one that is idle makes room for the next.
//!
//! Promise  whoever comes gets a slot at once. Who goes for it is the one that has never asked,
//!          the oldest of them first; else the one that has done nothing for longest; one whose
//!          request is being worked on only if all are. Those who have come last are spared: their
//!          request may be on its way. All connections end with this value.
//! Not here what is said over a connection, and how long it may take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{AbortHandle, Id, JoinSet};

/// Of so many slots one is kept for those who have come last and not asked yet: else a crowd that
/// connects without a pause would take the slot of each before its request can be read.
const SPARED: usize = 8;

/// What a connection is doing, in the order in which such connections have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has not asked anything yet.
    #[default]
    Silent,
    /// It has asked; the next step is its own.
    Idle,
    /// It waits for an answer.
    Waiting,
}

/// The slot of one connection, which tells what the connection is doing.
#[derive(Debug, Default)]
pub struct Slot {
    turns: Arc<AtomicU64>,
    /// What it is doing, and since which turn.
    doing: Mutex<(Stage, u64)>,
}

impl Slot {
    fn new(turns: &Arc<AtomicU64>) -> Self {
        let slot = Self { turns: Arc::clone(turns), ..Self::default() };
        slot.set(Stage::Silent);
        slot
    }

    /// A request has arrived, and will take a while.
    pub fn waiting(&self) {
        self.set(Stage::Waiting);
    }

    /// A request is answered, or a part of its answer has been taken.
    pub fn idle(&self) {
        self.set(Stage::Idle);
    }

    fn set(&self, stage: Stage) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = (stage, turn);
    }

    fn doing(&self) -> (Stage, u64) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    turns: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    slots: HashMap<Id, (Arc<Slot>, AbortHandle)>,
}

impl Connections {
    /// For so many at once, at least one.
    pub fn new(most: usize) -> Self {
        let (tasks, slots) = (JoinSet::new(), HashMap::new());
        Self { most: most.max(1), turns: Arc::default(), tasks, slots }
    }

    /// Serves one more. Returns whether another one had to go for it, which has ended then.
    pub async fn serve<F>(&mut self, converse: impl FnOnce(Arc<Slot>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.remove(ended);
        }
        let is_full = self.tasks.len() >= self.most;
        if is_full {
            if let Some(slot) = self.first_to_go() {
                slot.abort();
            }
            // Its file is closed before there is another one.
            if let Some(ended) = self.tasks.join_next_with_id().await {
                self.remove(ended);
            }
        }
        let slot = Arc::new(Slot::new(&self.turns));
        let task = self.tasks.spawn(converse(Arc::clone(&slot)));
        self.slots.insert(task.id(), (slot, task));
        // Its request may be here already, and counts before the next connection does.
        tokio::task::yield_now().await;
        is_full
    }

    fn first_to_go(&self) -> Option<&AbortHandle> {
        let doing = || self.slots.values().map(|(slot, task)| (slot.doing(), task));
        let silent = doing().filter(|((stage, _), _)| *stage == Stage::Silent).count();
        let rank = |(stage, since)| match stage {
            Stage::Silent if silent <= self.most / SPARED => (Stage::Idle, since),
            _ => (stage, since),
        };
        doing().min_by_key(|(doing, _)| rank(*doing)).map(|(_, task)| task)
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

    /// Connections that stay, by number, until they have to go.
    struct Scene {
        connections: Connections,
        slots: Vec<Arc<Slot>>,
        gone: Arc<Mutex<Vec<usize>>>,
    }

    /// Says who has gone.
    struct Last(usize, Arc<Mutex<Vec<usize>>>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.1.lock().expect("a lock").push(self.0);
        }
    }

    impl Scene {
        fn new(most: usize) -> Self {
            Self { connections: Connections::new(most), slots: Vec::new(), gone: Arc::default() }
        }

        /// One more comes; who has gone for it.
        async fn come(&mut self) -> Option<usize> {
            let last = Last(self.slots.len(), Arc::clone(&self.gone));
            let slots = &mut self.slots;
            let served = self.connections.serve(|slot| {
                slots.push(slot);
                async move {
                    let _last = last;
                    pending().await
                }
            });
            let had_to_go = served.await;
            let gone = self.gone.lock().expect("a lock").pop();
            assert_eq!(had_to_go, gone.is_some());
            gone
        }
    }

    #[tokio::test]
    async fn those_who_never_ask_go_first_and_the_oldest_of_them() {
        let mut scene = Scene::new(8);
        for _ in 0..8 {
            assert_eq!(scene.come().await, None);
        }
        scene.slots[0].idle();
        scene.slots[2].waiting();
        let mut gone = Vec::new();
        for _ in 0..12 {
            gone.extend(scene.come().await);
        }
        assert_eq!(gone, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert_eq!(scene.connections.slots.len(), 8);
    }

    #[tokio::test]
    async fn then_the_one_that_has_been_idle_longest() {
        let mut scene = Scene::new(8);
        for _ in 0..8 {
            scene.come().await;
        }
        scene.slots[0].waiting();
        for number in [3, 1, 2, 4, 5, 6, 7, 3] {
            scene.slots[number].idle();
        }
        assert_eq!(scene.come().await, Some(1));
        assert_eq!(scene.come().await, Some(2), "the last one is spared, it may be about to ask");
        assert_eq!(scene.come().await, Some(8), "two are not");
        scene.slots[9].idle();
        scene.slots[10].idle();
        assert_eq!(scene.come().await, Some(4));
    }

    #[tokio::test]
    async fn one_that_waits_for_its_answer_goes_if_all_do() {
        let mut scene = Scene::new(2);
        for number in [0, 1] {
            scene.come().await;
            scene.slots[number].waiting();
        }
        scene.slots[0].waiting();
        assert_eq!(scene.come().await, Some(1));
        assert_eq!(scene.come().await, Some(2));
    }

    #[tokio::test]
    async fn who_leaves_needs_nobody_to_go() {
        let mut connections = Connections::new(1);
        for _ in 0..100 {
            assert!(!connections.serve(|_| async {}).await);
        }
        assert!(connections.slots.len() <= 1);
    }
}
