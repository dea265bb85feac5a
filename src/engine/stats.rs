//! Plain counters, counted where the decision is made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::maildaemons::Name;
use super::time::Time;

/// Fewer messages without a login among them are a quiet night, or a few bots.
const MESSAGES: u64 = 100;
/// A daemon is not suspected sooner after its last login, however busy it was.
const SHORTEST_SILENCE: Duration = Duration::from_secs(3600);
/// A day without a login is worth a word, however long the pauses were before.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

/// What has happened since the start. All counters only grow.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Frames that arrived.
    pub frames: u64,
    /// Frames that are no syslog message.
    pub malformed: u64,
    /// Messages of hosts that are not believed.
    pub other_hosts: u64,
    /// Messages of programs that belong to no mail daemon.
    pub other_programs: u64,
    /// Complete logins, excluded ones not counted.
    pub logins: u64,
    /// Logins from addresses that are never authorised.
    pub excluded: u64,
    /// Logins from addresses that the operator has blocked.
    pub blocked: u64,
    /// Messages that fitted a login pattern and were not believed, or were too long for one.
    pub refused: u64,
    /// Logins, and connect lines of such, that a forwarder delivered after the grace was over.
    pub late: u64,
    /// Logins without an address of processes that may have several connections.
    pub ambiguous: u64,
    /// Addresses that came into the set.
    pub granted: u64,
    /// Addresses whose time was up.
    pub expired: u64,
    /// Addresses that made room for another because `max-clients` was reached.
    pub evicted: u64,
    /// Addresses that lost their right because too many users share them.
    pub shared: u64,
    /// Logins refused because the tables that keep streams apart were full.
    pub overloaded: u64,
    /// When the last login was heard.
    pub last_login: Option<Time>,
    /// What each mail daemon has contributed.
    pub daemons: BTreeMap<Name, DaemonStats>,
}

/// What one mail daemon has contributed, and whether it still does.
#[derive(Clone, Debug, Default)]
pub struct DaemonStats {
    /// Complete logins.
    pub logins: u64,
    /// Messages of its programs that no pattern fits.
    pub unmatched: u64,
    /// When its last login was heard.
    pub last_login: Option<Time>,
    /// The facilities (RFC 5424 section 6.2.1) from which its logins came.
    pub facilities: BTreeSet<u8>,
    unmatched_since: u64,
    longest_gap: Duration,
    told: bool,
}

impl DaemonStats {
    /// A login was heard, from this facility if its frame told one.
    pub fn login(&mut self, now: Time, facility: Option<u8>) {
        self.facilities.extend(facility);
        if let Some(last) = self.last_login.replace(now) {
            self.longest_gap = self.longest_gap.max(now.since(last));
        }
        self.logins += 1;
        self.unmatched_since = 0;
        self.told = false;
    }

    /// A message of one of its programs fitted no pattern.
    pub fn unmatched(&mut self) {
        self.unmatched += 1;
        self.unmatched_since += 1;
    }

    /// Whether its logins have stopped while it goes on to log: most likely an upgrade has
    /// changed the wording of its log.
    pub fn has_stopped(&self, now: Time) -> bool {
        let patience = (self.longest_gap * 4).clamp(SHORTEST_SILENCE, LONGEST_SILENCE);
        let silence = self.last_login.map(|last| now.since(last));
        self.unmatched_since >= MESSAGES && silence.is_some_and(|silence| silence >= patience)
    }

    /// Whether its logins have stopped and this has not been asked since.
    pub fn has_just_stopped(&mut self, now: Time) -> bool {
        let news = self.has_stopped(now) && !self.told;
        self.told |= news;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_stops_is_told_of_once() {
        let at = |minutes: u64| Time::from_millis(minutes * 60_000);
        let mut daemon = DaemonStats::default();
        (0..1000).for_each(|_| daemon.unmatched());
        assert!(!daemon.has_stopped(at(10_000)), "it never had a login");
        daemon.login(at(0), Some(2));
        daemon.login(at(30), None);
        (0..MESSAGES - 1).for_each(|_| daemon.unmatched());
        assert!(!daemon.has_stopped(at(300)), "too few messages");
        daemon.unmatched();
        assert!(!daemon.has_stopped(at(149)), "four times the longest gap is not over");
        assert!(daemon.has_just_stopped(at(150)));
        assert!(daemon.has_stopped(at(151)) && !daemon.has_just_stopped(at(151)));
        daemon.login(at(200), Some(21));
        assert_eq!(daemon.facilities, [2, 21].into());
        assert!(!daemon.has_stopped(at(10_000)));
    }
}
