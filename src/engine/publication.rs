//! What the map should say, what it is known to say, and when to say it again.
//!
//! Promise  the whole set is published from a level, not from edges: a change raises the number
//!          that is desired, a success raises the number that is published, and while they differ
//!          a generation is due. A failed publication needs no undo; its number has not moved.
//! Limits   one generation per `interval` at most; after a failure the pause doubles from
//!          `FIRST_PAUSE` to `LONGEST_PAUSE`.
//! Not here postmap, files, and the set itself.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::time::Time;

/// The key of the entry by which a publication is verified. No client has such a name.
pub const GENERATION_KEY: &str = "_pbs_generation_";

/// After the first failure: long enough for a full disk's cleaner, short enough for a user.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A neighbour that stays broken is tried this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// For so long, and twice what a publication takes, somebody may stand in the map who has left the
/// set.
const MAX_STALE: Duration = Duration::from_secs(60);

/// The whole map at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counts up with every change of membership.
    pub number: u64,
    /// Canonical addresses in ascending order.
    pub addresses: Vec<IpAddr>,
}

impl Generation {
    /// What the generation entry of this generation says: `DUNNO` changes no decision of Postfix.
    pub fn entry_value(&self) -> String {
        format!("DUNNO {}", self.number)
    }

    /// The source of the access map (access(5)): one `ADDRESS VALUE` a line, then the generation.
    pub fn text(&self, value: &str) -> String {
        let mut text = String::with_capacity(self.addresses.len() * 20 + 64);
        for address in &self.addresses {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{address} {value}");
        }
        let _ = writeln!(text, "{GENERATION_KEY} {}", self.entry_value());
        text
    }
}

/// What became of the generations until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Generations that were published.
    pub published: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// When the last generation was published.
    pub last: Option<Time>,
    /// How long that took, from the moment at which it was composed.
    pub took: Duration,
    /// When the first of the attempts began that have failed since the last success.
    pub failing_since: Option<Time>,
}

/// The desired and the published number, and the earliest moment of the next attempt.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    desired: u64,
    published: u64,
    not_before: Time,
    failures: u32,
    /// The map lists nobody, whatever was published last.
    emptied: bool,
    /// Somebody stands in the map who has left the set: when it has to be emptied for that.
    empty_at: Option<Time>,
    /// It could not be.
    stuck: bool,
    composed: Option<Time>,
    history: History,
}

impl Publication {
    /// A state in which a generation is due at once: what the map says now is unknown.
    pub fn unknown() -> Self {
        Self {
            desired: 1,
            published: 0,
            not_before: Time::default(),
            failures: 0,
            emptied: false,
            empty_at: None,
            stuck: false,
            composed: None,
            history: History::default(),
        }
    }

    /// The set has changed.
    pub fn change(&mut self) {
        self.desired += 1;
    }

    /// Something may have happened to the map: it is published again, at once if it could not be
    /// published before.
    pub fn again(&mut self) {
        self.change();
        if self.failures > 0 {
            self.not_before = Time::default();
        }
    }

    /// Somebody has left the set whom the map has.
    pub fn remove(&mut self, now: Time) {
        self.change();
        if !self.emptied {
            self.empty_at.get_or_insert(now + MAX_STALE + 2 * self.history.took);
        }
    }

    /// Whether somebody stands in the map who has left the set.
    pub fn has_stale_entries(&self) -> bool {
        self.empty_at.is_some()
    }

    /// When the map has to be emptied if no generation is published before: somebody who has left
    /// stands in it for too long.
    pub fn empty_at(&self) -> Option<Time> {
        self.empty_at
    }

    /// Whether it had to be emptied and could not be: nobody ends the rights of those in it.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The map could not be emptied; it is tried again later.
    pub fn not_emptied(&mut self, now: Time) {
        self.stuck = true;
        self.empty_at = Some(now + LONGEST_PAUSE);
    }

    /// Whether the map lists nobody because it could not be published.
    pub fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// The map lists nobody, until a generation is published.
    pub fn emptied(&mut self) {
        self.emptied = true;
        self.empty_at = None;
        self.stuck = false;
    }

    /// The number of the generation that says what the set is now.
    pub fn desired(&self) -> u64 {
        self.desired
    }

    /// The number of the generation that is due at some time, if one is.
    pub fn due(&self) -> Option<(u64, Time)> {
        (self.published < self.desired).then_some((self.desired, self.not_before))
    }

    /// A generation is composed, to be published.
    pub fn compose(&mut self, now: Time) {
        self.composed = Some(now);
    }

    /// Generation `number` is what Postfix reads from now on; the next one waits for `interval`.
    pub fn published(&mut self, number: u64, now: Time, interval: Duration) {
        self.published = self.published.max(number.min(self.desired));
        self.not_before = now + interval;
        self.failures = 0;
        self.emptied = false;
        self.stuck = false;
        self.history.published += 1;
        self.history.last = Some(now);
        self.history.took = self.composed.take().map_or(Duration::ZERO, |begin| now.since(begin));
        self.history.failing_since = None;
        // Whoever has left since it was composed.
        let span = MAX_STALE + 2 * self.history.took;
        self.empty_at = self.empty_at.filter(|_| number < self.desired).map(|_| now + span);
    }

    /// A generation could not be published; the pause before the next attempt grows.
    pub fn failed(&mut self, now: Time) -> Duration {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures);
        let pause = pause.min(LONGEST_PAUSE);
        self.failures = (self.failures + 1).min(16);
        self.not_before = now + pause;
        self.history.failed += 1;
        self.history.failing_since.get_or_insert(self.composed.unwrap_or(now));
        pause
    }

    /// Since when the map is to be published and is not: an attempt usually takes a moment.
    pub fn trying_since(&self) -> Option<Time> {
        self.history.failing_since.or(self.composed)
    }

    /// Failed attempts since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What became of the generations until now.
    pub fn history(&self) -> History {
        self.history
    }

    /// The number of the last generation that was published.
    pub fn published_generation(&self) -> u64 {
        self.published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn changes_during_a_publication_make_one_more() {
        let mut publication = Publication::unknown();
        assert_eq!(publication.due(), Some((1, Time::default())));
        publication.change();
        publication.change();
        publication.published(1, at(10), SECOND);
        assert_eq!(publication.due(), Some((3, at(11))));
        publication.published(3, at(11), SECOND);
        assert_eq!(publication.due(), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut publication = Publication::unknown();
        let pauses: Vec<u64> = (0..9).map(|_| publication.failed(at(0)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(publication.due(), Some((1, at(60))));
        publication.published(1, at(60), SECOND);
        assert_eq!(publication.failures(), 0);
    }

    #[test]
    fn what_became_of_editions_is_remembered() {
        let mut publication = Publication::unknown();
        publication.compose(at(1));
        publication.failed(at(2));
        publication.compose(at(3));
        publication.failed(at(4));
        let failing = History { failed: 2, failing_since: Some(at(1)), ..History::default() };
        assert_eq!(publication.history(), failing);
        publication.compose(at(8));
        publication.published(1, at(9), SECOND);
        let well = History {
            published: 1,
            failed: 2,
            last: Some(at(9)),
            took: SECOND,
            failing_since: None,
        };
        assert_eq!(publication.history(), well);
    }

    #[test]
    fn a_map_is_emptied_if_somebody_stands_in_it_for_too_long() {
        let mut publication = Publication::unknown();
        publication.published(1, at(0), SECOND);
        publication.change();
        publication.failed(at(1));
        assert_eq!(publication.empty_at(), None, "those who wait to be listed have time");
        publication.remove(at(10));
        publication.remove(at(20));
        assert_eq!(publication.empty_at(), Some(at(70)), "the first counts");
        publication.not_emptied(at(70));
        assert!(publication.is_stuck() && publication.has_stale_entries());
        assert_eq!(publication.empty_at(), Some(at(130)));
        publication.emptied();
        publication.remove(at(200));
        assert!(
            !publication.has_stale_entries() && !publication.is_stuck(),
            "nobody is left in it"
        );
        publication.published(publication.desired(), at(210), SECOND);
        publication.remove(at(220));
        publication.compose(at(225));
        publication.remove(at(230));
        publication.published(publication.desired() - 1, at(235), SECOND);
        assert_eq!(publication.empty_at(), Some(at(315)), "he has left behind that generation");
        publication.published(publication.desired(), at(240), SECOND);
        assert!(!publication.has_stale_entries());
    }

    #[test]
    fn whoever_asks_for_it_need_not_wait_for_the_pause() {
        let mut publication = Publication::unknown();
        publication.published(1, at(0), SECOND);
        publication.again();
        assert_eq!(publication.due(), Some((2, at(1))), "a storm of requests is borne");
        for _ in 0..9 {
            publication.failed(at(2));
        }
        publication.again();
        assert_eq!(publication.due(), Some((3, Time::default())));
    }

    #[test]
    fn the_text_is_an_access_map() {
        let addresses = ["192.0.2.7", "2001:db8:1:2:3:4:5:6"].map(|a| a.parse().expect("address"));
        let generation = Generation { number: 7, addresses: addresses.to_vec() };
        assert_eq!(
            generation.text("OK"),
            "192.0.2.7 OK\n2001:db8:1:2:3:4:5:6 OK\n_pbs_generation_ DUNNO 7\n"
        );
    }
}
