//! The last hour of one client or user.
//!
//! - **Promise**: what was counted leaves the hour after an hour, up to `SLOT` early: the count is
//!   exact to a sixtieth.
//! - **Limits**: 61 slots, and only those in which something was counted.

use std::time::Duration;

use smallvec::SmallVec;

use super::Quantity;
use crate::engine::time::Time;

/// The time over which is counted.
pub const HOUR: Duration = Duration::from_secs(3600);
/// What follows within this time is counted together.
const SLOT: Duration = Duration::from_secs(60);

/// What was relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relays {
    /// Messages.
    pub messages: u32,
    /// Recipients.
    pub recipients: u32,
}

impl Relays {
    /// Adds others.
    pub fn add(&mut self, more: Self) {
        self.messages = self.messages.saturating_add(more.messages);
        self.recipients = self.recipients.saturating_add(more.recipients);
    }

    const fn get(self, what: Quantity) -> u32 {
        match what {
            Quantity::Messages => self.messages,
            Quantity::Recipients => self.recipients,
        }
    }
}

#[derive(Clone, Debug)]
struct TimeSlot {
    begin: Time,
    relays: Relays,
}

impl TimeSlot {
    fn end(&self) -> Time {
        self.begin + HOUR
    }
}

/// What was relayed within the last hour.
#[derive(Clone, Debug, Default)]
pub struct Hour(SmallVec<[TimeSlot; 1]>);

impl Hour {
    /// Counts more.
    pub fn add(&mut self, now: Time, relays: Relays) {
        self.0.retain(|slot| now < slot.end());
        match self.0.last_mut().filter(|last| now < last.begin + SLOT) {
            Some(last) => last.relays.add(relays),
            None => self.0.push(TimeSlot { begin: now, relays }),
        }
    }

    /// Returns whether a limit is reached: how long until there is room for one more.
    pub fn wait(&self, now: Time, what: Quantity, max: u32) -> Option<Duration> {
        let slots = self.0.iter().filter(|slot| now < slot.end());
        let of = |slot: &TimeSlot| u64::from(slot.relays.get(what));
        let (mut count, max): (u64, u64) = (slots.clone().map(of).sum(), max.into());
        if count < max {
            return None;
        }
        for slot in slots {
            count -= of(slot);
            if count < max {
                return Some(slot.end().since(now));
            }
        }
        // The limit is none at all.
        Some(HOUR)
    }

    /// Returns when all that was counted has left the hour; a time in the past if nothing is counted.
    pub fn end(&self) -> Time {
        self.0.last().map(TimeSlot::end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(1_795_000_000_000 + seconds * 1000)
    }

    const MESSAGE: Relays = Relays { messages: 1, recipients: 4 };

    #[test]
    fn an_hour_slides() {
        let mut hour = Hour::default();
        let wait = |hour: &Hour, seconds, max| {
            hour.wait(at(seconds), Quantity::Messages, max).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&hour, 0, 1), None);
        assert_eq!(wait(&hour, 0, 0), Some(3600), "none at all");
        for seconds in [0, 59, 60, 1000] {
            hour.add(at(seconds), MESSAGE);
        }
        assert_eq!(hour.0.len(), 3, "two were counted together");
        assert_eq!(wait(&hour, 1000, 5), None);
        assert_eq!(wait(&hour, 1000, 4), Some(2600));
        assert_eq!(wait(&hour, 1000, 3), Some(2600), "two at once");
        assert_eq!(wait(&hour, 1000, 2), Some(2660));
        assert_eq!(wait(&hour, 3599, 4), Some(1));
        assert_eq!(wait(&hour, 3600, 4), None);
        assert_eq!(wait(&hour, 4599, 1), Some(1));
        assert_eq!(wait(&hour, 4600, 1), None);
        assert_eq!(hour.wait(at(1000), Quantity::Recipients, 17), None);
        assert!(hour.wait(at(1000), Quantity::Recipients, 16).is_some());
        assert_eq!(hour.end(), at(4600));
    }

    #[test]
    fn the_slots_are_bounded_and_exact_to_a_sixtieth() {
        let mut hour = Hour::default();
        for seconds in 0..20_000 {
            hour.add(at(seconds), MESSAGE);
            assert!(hour.0.len() <= 61, "{}", hour.0.len());
            let count: u32 = hour.0.iter().map(|slot| slot.relays.messages).sum();
            let exact = (seconds + 1).min(3600) as u32;
            assert!(count <= exact && count + 60 >= exact, "{count} at {seconds}");
        }
    }
}
