//! What the map should list, what it is known to list, and when to publish it again.
//!
//! - **Promise**: each publication has the whole set, whatever changed. A change raises the desired
//!   number, a success raises the published number, and while they differ a generation is due. A
//!   failure changes neither number, so there is nothing to undo.
//! - **Limits**: a change is published at once, unless the last publication has just ended: after it
//!   there is a pause of `PAUSE_FACTOR` times what it took, at most the configured longest pause. After
//!   a failure the pause doubles from `FIRST_PAUSE` to `LONGEST_PAUSE`.
//! - **Not here**: postmap, files, and the set itself.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::grants::{Cursor, Slice};
use super::time::Time;

/// The key of the entry by which a publication is verified. No client has this name.
pub const GENERATION_KEY: &str = "_pbs_generation_";

/// The pause after a publication, in multiples of what that took: publishing takes a sixth of the time
/// at most, and devices that send soon after their login wait as little as the host allows.
const PAUSE_FACTOR: u32 = 5;
/// The shortest pause after a publication: logins of one moment share the next one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// The pause after the first failure: the next attempt may succeed, and users wait for it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between attempts while postmap keeps failing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the map may list an address that was removed from the set, in addition to twice the
/// duration of a publication.
const MAX_STALE: Duration = Duration::from_secs(60);

/// Addresses in one slice of what the map should list.
const ADDRESS_SLICE: u32 = 16_384;

/// Addresses in a piece of the source.
const PIECE: usize = 4096;
/// Bytes of most lines of the source, without the value.
const TYPICAL_LINE: usize = 18;

/// The whole map at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counts up with every change of membership.
    pub number: u64,
    /// Canonical addresses in ascending order.
    pub addresses: Vec<IpAddr>,
}

impl Generation {
    /// Creates one of canonical addresses in any order.
    pub fn new(number: u64, mut addresses: Vec<IpAddr>) -> Self {
        addresses.sort_unstable();
        // An entry that was removed and returned may have been visited twice.
        addresses.dedup();
        Self { number, addresses }
    }

    /// Returns the value of the generation's own entry; `DUNNO` changes no decision of Postfix.
    pub fn entry_value(&self) -> String {
        format!("DUNNO {}", self.number)
    }

    /// Returns the source of the access map (access(5)), piece by piece: a line `ADDRESS VALUE` for
    /// each address, then the generation's own entry.
    pub fn text(&self, value: &str) -> impl Iterator<Item = String> {
        let own = format!("{GENERATION_KEY} {}\n", self.entry_value());
        let piece = move |addresses: &[IpAddr]| {
            let mut text = String::with_capacity(addresses.len() * (TYPICAL_LINE + value.len()));
            for address in addresses {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{address} {value}");
            }
            text
        };
        self.addresses.chunks(PIECE).map(piece).chain([own])
    }
}

/// Counters and times of the publications so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Published generations.
    pub published: u64,
    /// Failed attempts.
    pub failed: u64,
    /// When the last generation was published.
    pub last: Option<Time>,
    /// How long that took, from composing it.
    pub took: Duration,
    /// When the first attempt that failed since the last success began.
    pub failing_since: Option<Time>,
}

/// The desired and the published number, and the earliest moment of the next attempt.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    desired: u64,
    published: u64,
    not_before: Time,
    failures: u32,
    /// The map is empty, whatever was published last.
    emptied: bool,
    /// When the map has to be emptied, because it lists an address that was removed from the set.
    empty_at: Option<Time>,
    /// Emptying it has failed.
    stuck: bool,
    composed: Option<Time>,
    history: History,
}

impl Publication {
    /// Creates a state in which a generation is due at once: what the map lists is unknown.
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

    /// Records a change of the set.
    pub fn change(&mut self) {
        self.desired += 1;
    }

    /// Requests another publication, because the map may have changed. If the last attempt has failed,
    /// it is made at once, and the pauses begin again: what made it fail may have been corrected.
    pub fn again(&mut self) {
        self.change();
        if self.failures > 0 {
            self.failures = 1;
            self.not_before = Time::default();
        }
    }

    /// Records that an address was removed from the set which the map lists.
    pub fn remove(&mut self, now: Time) {
        self.change();
        if !self.emptied {
            self.empty_at.get_or_insert(now + MAX_STALE + 2 * self.history.took);
        }
    }

    /// Returns whether the map lists an address that was removed from the set.
    pub fn has_stale_entries(&self) -> bool {
        self.empty_at.is_some()
    }

    /// Returns when the map has to be emptied if no generation is published before, because it has
    /// stale entries.
    pub fn empty_at(&self) -> Option<Time> {
        self.empty_at
    }

    /// Returns whether emptying the map has failed, so that clients in it may relay past their
    /// deadlines.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Records that the map could not be emptied; the next attempt follows later.
    pub fn not_emptied(&mut self, now: Time) {
        self.stuck = true;
        self.empty_at = Some(now + LONGEST_PAUSE);
    }

    /// Returns whether the map is empty because it could not be published.
    pub fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// Records that the map is empty until a generation is published.
    pub fn emptied(&mut self) {
        self.emptied = true;
        self.empty_at = None;
        self.stuck = false;
    }

    /// Returns the number of the generation that contains the current set.
    pub fn desired(&self) -> u64 {
        self.desired
    }

    /// Returns the number of the generation to be published, and from when on.
    pub fn due(&self) -> Option<(u64, Time)> {
        (self.published < self.desired).then_some((self.desired, self.not_before))
    }

    /// Records that a generation is being composed.
    pub fn compose(&mut self, now: Time) {
        self.composed = Some(now);
    }

    /// Records that Postfix reads generation `number`; the next one waits for at most `longest_pause`.
    pub fn published(&mut self, number: u64, now: Time, longest_pause: Duration) {
        self.published = self.published.max(number.min(self.desired));
        self.failures = 0;
        self.emptied = false;
        self.stuck = false;
        self.history.published += 1;
        self.history.last = Some(now);
        self.history.took = self.composed.take().map_or(Duration::ZERO, |begin| now.since(begin));
        let pause = (PAUSE_FACTOR * self.history.took).max(SHORTEST_PAUSE);
        self.not_before = now + pause.min(longest_pause);
        self.history.failing_since = None;
        // For addresses removed since it was composed.
        let span = MAX_STALE + 2 * self.history.took;
        self.empty_at = self.empty_at.filter(|_| number < self.desired).map(|_| now + span);
    }

    /// Records a failed attempt; returns the pause before the next one, which grows.
    pub fn failed(&mut self, now: Time) -> Duration {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures);
        let pause = pause.min(LONGEST_PAUSE);
        self.failures = (self.failures + 1).min(16);
        self.not_before = now + pause;
        self.history.failed += 1;
        self.history.failing_since.get_or_insert(self.composed.unwrap_or(now));
        pause
    }

    /// Returns since when attempts have failed, or else when the running one began.
    pub fn trying_since(&self) -> Option<Time> {
        self.history.failing_since.or(self.composed)
    }

    /// Returns the number of failed attempts since the last success or request.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns counters and times of the publications so far.
    pub fn history(&self) -> History {
        self.history
    }

    /// Returns the number of the last published generation.
    pub fn published_generation(&self) -> u64 {
        self.published
    }
}

impl Engine {
    /// Returns the next moment at which a generation is due or the map has to be emptied.
    pub fn publish_at(&self) -> Option<Time> {
        let due = self.publication.due().map(|(_, at)| at);
        [due, self.publication.empty_at()].into_iter().flatten().min()
    }

    /// Returns the number of the generation that is due, if one is. It contains what
    /// [`Self::listed`] returns from now on; what changes meanwhile makes another one due.
    pub fn due(&mut self, now: Time) -> Option<u64> {
        let (number, _) = self.publication.due().filter(|(_, at)| *at <= now)?;
        self.publication.compose(now);
        Some(number)
    }

    /// Returns the next slice of the addresses that the map should list, in no order.
    pub fn listed(&self, now: Time, from: Cursor) -> Slice<Vec<IpAddr>> {
        self.grants.slice(from, ADDRESS_SLICE, Vec::new(), |addresses, grant| {
            let address = grant.address();
            if now < grant.until() && self.is_listed(address, grant.is_shared()) {
                addresses.push(address);
            }
        })
    }

    /// Returns the last generation: a map without clients.
    pub fn last_generation(&mut self) -> Generation {
        self.publication.change();
        Generation::new(self.publication.desired(), Vec::new())
    }

    /// Makes a generation due although the set has not changed: what Postfix reads is no longer
    /// known.
    pub fn publish_again(&mut self) {
        self.publication.again();
    }

    /// Records that Postfix reads generation `number` from now on.
    pub fn published(&mut self, number: u64, now: Time) {
        self.publication.published(number, now, self.rules.longest_pause);
    }

    /// Records that a generation could not be published; returns the pause before the next attempt.
    pub fn failed(&mut self, now: Time) -> Duration {
        self.publication.failed(now)
    }

    /// Records that Postfix reads an empty map because no generation could be published.
    pub fn emptied(&mut self) {
        self.publication.emptied();
    }

    /// Records that the map could not be emptied either.
    pub fn not_emptied(&mut self, now: Time) {
        self.publication.not_emptied(now);
    }

    /// Returns the state of publication.
    pub fn publication(&self) -> &Publication {
        &self.publication
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
        assert_eq!(publication.due().map(|(number, _)| number), Some(3));
        publication.published(3, at(11), SECOND);
        assert_eq!(publication.due(), None);
    }

    #[test]
    fn the_pause_is_five_times_what_the_publication_took() {
        let ms = Time::from_millis;
        let rows = [(0, 20), (3, 20), (4, 20), (5, 25), (50, 250), (200, 1000), (7000, 1000)];
        for (took, pause) in rows {
            let mut publication = Publication::unknown();
            publication.compose(ms(1000));
            publication.change();
            publication.published(1, ms(1000 + took), SECOND);
            assert_eq!(publication.due(), Some((2, ms(1000 + took + pause))), "{took} ms");
        }
        let mut publication = Publication::unknown();
        publication.published(1, ms(1000), Duration::from_millis(7));
        publication.change();
        assert_eq!(publication.due(), Some((2, ms(1007))), "the configured longest pause");
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut publication = Publication::unknown();
        let pauses: Vec<u64> = (0..9).map(|_| publication.failed(at(0)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(publication.due(), Some((1, at(60))));
        publication.published(1, at(60), SECOND);
        assert_eq!(publication.failures(), 0);
    }

    #[test]
    fn history_counts_successes_and_failures() {
        let mut publication = Publication::unknown();
        publication.compose(at(1));
        publication.failed(at(2));
        publication.compose(at(3));
        publication.failed(at(4));
        let failing = History { failed: 2, failing_since: Some(at(1)), ..History::default() };
        assert_eq!(publication.history(), failing);
        publication.compose(at(8));
        publication.published(1, at(9), SECOND);
        let recovered = History {
            published: 1,
            failed: 2,
            last: Some(at(9)),
            took: SECOND,
            failing_since: None,
        };
        assert_eq!(publication.history(), recovered);
    }

    #[test]
    fn a_map_with_stale_entries_has_to_be_emptied() {
        let mut publication = Publication::unknown();
        publication.published(1, at(0), SECOND);
        publication.change();
        publication.failed(at(1));
        assert_eq!(publication.empty_at(), None, "a new client can wait");
        publication.remove(at(10));
        publication.remove(at(20));
        assert_eq!(publication.empty_at(), Some(at(70)), "the first removal counts");
        publication.not_emptied(at(70));
        assert!(publication.is_stuck() && publication.has_stale_entries());
        assert_eq!(publication.empty_at(), Some(at(130)));
        publication.emptied();
        publication.remove(at(200));
        assert!(
            !publication.has_stale_entries() && !publication.is_stuck(),
            "an empty map has no stale entries"
        );
        publication.published(publication.desired(), at(210), SECOND);
        publication.remove(at(220));
        publication.compose(at(225));
        publication.remove(at(230));
        publication.published(publication.desired() - 1, at(235), SECOND);
        assert_eq!(publication.empty_at(), Some(at(315)), "removed after it was composed");
        publication.published(publication.desired(), at(240), SECOND);
        assert!(!publication.has_stale_entries());
    }

    #[test]
    fn a_requested_publication_does_not_wait_for_the_pause() {
        let mut publication = Publication::unknown();
        publication.published(1, at(0), SECOND);
        publication.again();
        let pause = Some((2, Time::default() + SHORTEST_PAUSE));
        assert_eq!(publication.due(), pause, "requests do not skip the pause");
        for _ in 0..9 {
            publication.failed(at(2));
        }
        publication.again();
        assert_eq!(publication.due(), Some((3, Time::default())));
        assert_eq!(publication.failed(at(3)), 2 * FIRST_PAUSE, "requests do not lengthen it");
    }

    #[test]
    fn the_text_is_an_access_map() {
        let addresses = ["192.0.2.7", "2001:db8:1:2:3:4:5:6"].map(|a| a.parse().expect("address"));
        let generation = Generation::new(7, addresses.to_vec());
        assert_eq!(
            generation.text("OK").collect::<String>(),
            "192.0.2.7 OK\n2001:db8:1:2:3:4:5:6 OK\n_pbs_generation_ DUNNO 7\n"
        );
    }
}
