//! A bounded memory of processes and streams that forgets by age.
//!
//! - **Promise**: an entry stays until it is taken out or too old. When an entry could not be stored,
//!   the memory reports this for as long as it would have mattered.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::key::Key;
use crate::engine::time::Time;

/// The memory is full, so an entry could not be stored: what depends on it must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An entry, with its place in the order and since when it is there.
#[derive(Debug)]
struct Aged<T> {
    value: T,
    place: u64,
    since: Time,
}

/// The memory.
#[derive(Debug)]
pub struct Aging<T> {
    capacity: usize,
    age: Duration,
    entries: HashMap<Key, Aged<T>>,
    /// Keys in order of arrival, each with the number of its place, since several may arrive at the
    /// same moment. The places of removed entries are cleaned up later.
    order: VecDeque<(Key, u64)>,
    last: u64,
    overflowed: Option<Time>,
}

impl<T> Aging<T> {
    /// Creates a memory for `capacity` entries; one that is older than `age` no longer counts.
    pub fn new(capacity: usize, age: Duration) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { capacity, age, entries, order, last: 0, overflowed: None }
    }

    /// Stores an entry, in place of an older one with the same key.
    ///
    /// # Errors
    /// The memory is full; [`Self::has_overflowed`] then returns true until `age` has passed.
    pub fn remember(&mut self, key: Key, value: T, now: Time) -> Result<(), Full> {
        self.entries.remove(&key);
        if self.entries.len() >= self.capacity {
            self.sweep(now);
        }
        if self.entries.len() >= self.capacity {
            self.overflowed = Some(now);
            return Err(Full);
        }
        self.insert(key, value, now);
        Ok(())
    }

    /// Stores an entry; if the memory is full, forgets the oldest one for it.
    pub fn remember_newest(&mut self, key: Key, value: T, now: Time) {
        self.entries.remove(&key);
        while self.entries.len() >= self.capacity && self.forget_oldest() {}
        self.insert(key, value, now);
    }

    /// Returns the entry, unless it is too old.
    pub fn get_mut(&mut self, key: Key, now: Time) -> Option<&mut T> {
        let entry = self.entries.get_mut(&key)?;
        (now.since(entry.since) <= self.age).then_some(&mut entry.value)
    }

    /// Removes and returns an entry, however old it is.
    pub fn take(&mut self, key: Key) -> Option<T> {
        self.entries.remove(&key).map(|entry| entry.value)
    }

    /// Returns whether an entry that might still count could not be stored.
    pub fn has_overflowed(&self, now: Time) -> bool {
        self.overflowed.is_some_and(|at| now.since(at) <= self.age)
    }

    /// Returns whether it has an entry, or ever lacked room for one.
    pub fn may_matter(&self) -> bool {
        !self.entries.is_empty() || self.overflowed.is_some()
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

    /// Removes the first place, and its entry if that is still there; returns whether there was one.
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

    const CAPACITY: usize = 100;
    const AGE: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn entries_age_and_an_overflow_is_reported_until_it_would_have_aged() {
        let mut memory = Aging::new(CAPACITY, AGE);
        for number in 0..CAPACITY as u64 {
            assert_eq!(memory.remember(Key(number), number, at(number)), Ok(()));
        }
        assert_eq!(memory.remember(Key(7), 77, at(200)), Ok(()), "an existing key needs no room");
        assert!(!memory.has_overflowed(at(300)));
        assert_eq!(memory.remember(Key(1000), 0, at(300)), Err(Full));
        assert_eq!([(); 2].map(|()| memory.take(Key(0))), [Some(0), None]);
        assert!(memory.has_overflowed(at(60_300)), "even when there is room again");
        assert!(!memory.has_overflowed(at(60_301)));
        assert_eq!(memory.get_mut(Key(7), at(60_200)), Some(&mut 77));
        assert_eq!(memory.get_mut(Key(7), at(60_201)), None);
        for number in 1000..1000 + CAPACITY as u64 {
            assert_eq!(memory.remember(Key(number), number, at(60_301)), Ok(()));
        }
        assert_eq!(memory.entries.len(), CAPACITY, "aged entries were dropped");
    }

    #[test]
    fn places_of_removed_entries_are_cleaned_up() {
        let mut memory = Aging::new(CAPACITY, AGE);
        for _ in 0..1000 {
            assert_eq!(memory.remember(Key(7), (), at(0)), Ok(()));
            assert_eq!(memory.take(Key(7)), Some(()));
        }
        assert!(memory.order.len() <= 65, "{} places for none", memory.order.len());
    }

    #[test]
    fn remember_newest_forgets_the_oldest() {
        let mut memory = Aging::new(CAPACITY, AGE);
        for number in 0..1000 {
            memory.remember_newest(Key(7), (), at(number));
        }
        assert!(memory.order.len() <= 68, "{} places for one", memory.order.len());
        for number in 100..100 + CAPACITY as u64 {
            memory.remember_newest(Key(number), (), at(1000));
        }
        assert_eq!(memory.entries.len(), CAPACITY);
        assert_eq!([7, 100].map(|key| memory.take(Key(key))), [None, Some(())]);
    }
}
