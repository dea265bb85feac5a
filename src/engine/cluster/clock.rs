//! The clock on which the hosts agree: that of the stream.
//!
//! - **Promise**: it never goes back, unless it is more than [`MAX_MANUAL`] wrong. It is the latest of all that was seen: the store's clock, the
//!   ids of entries and the times in heartbeats, each carried on by this host's own clock. So a store
//!   whose clock is wrong, or another store with another clock, makes no grant longer.
//! - **Limits**: what is more than [`MAX_MANUAL`] ahead is not believed, since nothing that was told
//!   before would last until then.
//! - **Not here**: the engine's own time, which is not that of the stream.

use std::time::Duration;

use crate::engine::MAX_MANUAL;
use crate::engine::time::Time;

/// The stream's clock. Its times are [`Time`]s too, in milliseconds since 1970 by that clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamClock {
    /// How far it is ahead of the engine's time, in milliseconds; `None` before anything was seen.
    ahead: Option<i64>,
    /// Whether it has been set forward, so that what was told before seems to end too early.
    has_jumped: bool,
}

/// A step of more milliseconds is a jump: clocks of their own differ less between two looks.
const JUMP: i64 = 2000;

impl StreamClock {
    /// Takes a time that was seen into account. Returns whether it is believed.
    pub fn observe(&mut self, now: Time, seen: Time) -> bool {
        let ahead = difference(seen, now);
        if self.ahead.is_some_and(|known| ahead > known.saturating_add(millis(MAX_MANUAL))) {
            return false;
        }
        self.has_jumped |= self.ahead.is_some_and(|known| ahead > known.saturating_add(JUMP));
        self.ahead = self.ahead.max(Some(ahead));
        true
    }

    /// Sets the clock to that of the store if they are so far apart that nothing that was told by one
    /// could last by the other.
    pub fn correct(&mut self, now: Time, store_time: Time) {
        let ahead = difference(store_time, now);
        let is_far = |known: i64| known.abs_diff(ahead) > MAX_MANUAL.as_millis() as u64;
        if self.ahead.is_some_and(is_far) {
            *self = Self { ahead: Some(ahead), has_jumped: false };
        }
    }

    /// Returns whether it has jumped forward.
    pub fn has_jumped(&self) -> bool {
        self.has_jumped
    }

    /// Records that the stream is read again, so that what was told before the jump is noticed.
    pub fn follow_jump(&mut self) {
        self.has_jumped = false;
    }

    /// Sets the clock forward.
    pub fn advance(&mut self, span: Duration) {
        self.ahead = self.ahead.map(|ahead| ahead.saturating_add(millis(span)));
    }

    /// Returns the stream's time.
    pub fn now(&self, now: Time) -> Option<Time> {
        self.ahead.map(|ahead| shift(now, ahead))
    }

    /// Converts a time of the engine.
    pub fn to_stream(&self, time: Time) -> Time {
        shift(time, self.ahead.unwrap_or_default())
    }

    /// Converts a time of the stream.
    pub fn to_engine(&self, time: Time) -> Time {
        shift(time, self.ahead.unwrap_or_default().saturating_neg())
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn difference(later: Time, earlier: Time) -> i64 {
    let signed = |time: Time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    signed(later).saturating_sub(signed(earlier))
}

fn shift(time: Time, ahead: i64) -> Time {
    Time::from_millis(time.as_millis().saturating_add_signed(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn it_never_goes_back_and_passes_like_the_hosts_own() {
        let mut clock = StreamClock::default();
        assert_eq!(clock.now(at(100)), None);
        assert!(clock.observe(at(100), at(5000)));
        assert_eq!(clock.now(at(110)), Some(at(5010)));
        assert!(clock.observe(at(120), at(1400)), "a store whose clock is an hour behind");
        assert_eq!(clock.now(at(120)), Some(at(5020)));
        assert!(clock.observe(at(120), at(5021)) && !clock.has_jumped());
        assert_eq!(clock.now(at(120)), Some(at(5021)));
        let week = 7 * 24 * 3600;
        assert!(!clock.observe(at(120), at(5022 + week)));
        assert!(!clock.observe(at(120), Time::from_millis(u64::MAX)));
        assert_eq!(clock.now(at(120)), Some(at(5021)));
        assert!(clock.observe(at(120), at(8621)) && clock.has_jumped());
        clock.follow_jump();
        assert!(clock.observe(at(120), at(5021)) && !clock.has_jumped());
        assert_eq!(clock.now(at(120)), Some(at(8621)));
        clock.correct(at(120), at(3000));
        assert_eq!(clock.now(at(120)), Some(at(8621)), "an hour is nothing");
        let mut wrong = clock;
        wrong.correct(at(120), at(8622 + week));
        assert_eq!(wrong.now(at(120)), Some(at(8622 + week)));
        wrong.correct(at(120), at(100));
        assert_eq!(wrong.now(at(120)), Some(at(100)));
        assert_eq!(clock.to_stream(at(200)), at(8701));
        assert_eq!(clock.to_engine(at(8701)), at(200));
    }
}
