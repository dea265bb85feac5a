//! A bounded memory of processes and streams that forgets by age.
//!
//! Promise  what was remembered is there until it is taken out or too old. When something could
//!          not be remembered, the memory says so for as long as that would have mattered.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::streams::Key;
use crate::engine::time::Time;

/// There is no room, so something could not be remembered: nothing is believed that depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What is remembered of a key, in which place and since when.
#[derive(Debug)]
struct Aged<T> {
    value: T,
    place: u64,
    since: Time,
}

/// The memory.
#[derive(Debug)]
pub struct Aging<T> {
    most: usize,
    age: Duration,
    entries: HashMap<Key, Aged<T>>,
    /// Keys in the order in which they came, each with the number of its place, for several may come
    /// at one moment; those that were taken out leave their place behind.
    order: VecDeque<(Key, u64)>,
    last: u64,
    overflowed: Option<Time>,
}

impl<T> Aging<T> {
    /// Room for `most` entries; one that is older than `age` matters no longer.
    pub fn new(most: usize, age: Duration) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { most, age, entries, order, last: 0, overflowed: None }
    }

    /// Remembers an entry from now on, in place of an older one with the same key.
    ///
    /// # Errors
    /// There is no room; until that no longer matters, [`Self::lacks_some`] says so.
    pub fn remember(&mut self, key: Key, value: T, now: Time) -> Result<(), Full> {
        self.entries.remove(&key);
        if self.entries.len() >= self.most {
            self.sweep(now);
        }
        if self.entries.len() >= self.most {
            self.overflowed = Some(now);
            return Err(Full);
        }
        self.insert(key, value, now);
        Ok(())
    }

    /// Remembers an entry; if there is no room, the oldest one is forgotten for it.
    pub fn remember_newest(&mut self, key: Key, value: T, now: Time) {
        self.entries.remove(&key);
        while self.entries.len() >= self.most && self.forget_oldest() {}
        self.insert(key, value, now);
    }

    /// The entry, unless it is too old.
    pub fn get_mut(&mut self, key: Key, now: Time) -> Option<&mut T> {
        let entry = self.entries.get_mut(&key)?;
        (now.since(entry.since) <= self.age).then_some(&mut entry.value)
    }

    /// Takes an entry out, however old it is.
    pub fn take(&mut self, key: Key) -> Option<T> {
        self.entries.remove(&key).map(|entry| entry.value)
    }

    /// Whether something could not be remembered that might still matter.
    pub fn lacks_some(&self, now: Time) -> bool {
        self.overflowed.is_some_and(|at| now.since(at) <= self.age)
    }

    fn insert(&mut self, key: Key, value: T, now: Time) {
        self.last += 1;
        self.entries.insert(key, Aged { value, place: self.last, since: now });
        self.order.push_back((key, self.last));
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order
                .retain(|(key, place)| entries.get(key).is_some_and(|entry| entry.place == *place));
        }
    }

    fn sweep(&mut self, now: Time) {
        while let Some((key, place)) = self.order.front() {
            let current = self.entries.get(key).filter(|entry| entry.place == *place);
            if current.is_some_and(|entry| now.since(entry.since) <= self.age) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Takes the first place off, and the entry if it is still there. Whether there was a place.
    fn forget_oldest(&mut self) -> bool {
        let Some((key, place)) = self.order.pop_front() else { return false };
        if self.entries.get(&key).is_some_and(|entry| entry.place == place) {
            self.entries.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 100;
    const AGE: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn entries_age_and_an_overflow_is_told_as_long_as_it_matters() {
        let mut memory = Aging::new(MOST, AGE);
        for number in 0..MOST as u64 {
            assert_eq!(memory.remember(Key::of(number), number, at(number)), Ok(()));
        }
        assert_eq!(memory.remember(Key::of(7), 77, at(200)), Ok(()), "it has its place");
        assert!(!memory.lacks_some(at(300)));
        assert_eq!(memory.remember(Key::of(1000), 0, at(300)), Err(Full));
        assert_eq!([(); 2].map(|()| memory.take(Key::of(0))), [Some(0), None]);
        assert!(memory.lacks_some(at(60_300)), "also when there is room again");
        assert!(!memory.lacks_some(at(60_301)));
        assert_eq!(memory.get_mut(Key::of(7), at(60_200)), Some(&mut 77));
        assert_eq!(memory.get_mut(Key::of(7), at(60_201)), None);
        for number in 1000..1000 + MOST as u64 {
            assert_eq!(memory.remember(Key::of(number), number, at(60_301)), Ok(()));
        }
        assert_eq!(memory.entries.len(), MOST, "the old ones made room");
    }

    #[test]
    fn what_comes_and_goes_in_one_moment_leaves_nothing_behind() {
        let mut memory = Aging::new(MOST, AGE);
        for _ in 0..1000 {
            assert_eq!(memory.remember(Key::of(7), (), at(0)), Ok(()));
            assert_eq!(memory.take(Key::of(7)), Some(()));
        }
        assert!(memory.order.len() <= 65, "{} places for none", memory.order.len());
    }

    #[test]
    fn the_oldest_makes_room_where_that_is_wanted() {
        let mut memory = Aging::new(MOST, AGE);
        for number in 0..1000 {
            memory.remember_newest(Key::of(7), (), at(number));
        }
        assert!(memory.order.len() <= 68, "{} places for one", memory.order.len());
        for number in 100..100 + MOST as u64 {
            memory.remember_newest(Key::of(number), (), at(1000));
        }
        assert_eq!(memory.entries.len(), MOST);
        assert_eq!([7, 100].map(|key| memory.take(Key::of(key))), [None, Some(())]);
    }
}
