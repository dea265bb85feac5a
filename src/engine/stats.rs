//! Counters of frames, logins and grants, and which mail daemons no longer have logins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::maildaemons::Name;
use super::time::Time;

/// A daemon is suspected only after this many unmatched messages since its last login: fewer are
/// normal when nobody logs in.
const MIN_UNMATCHED: u64 = 100;
/// A daemon is not suspected earlier after its last login, however busy it was.
const SHORTEST_SILENCE: Duration = Duration::from_secs(3600);
/// A day without a login is reported, however long the earlier gaps were.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

/// Counters since the start. They never decrease.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// When the rules were last replaced.
    pub reloaded: Option<Time>,
    /// Frames that arrived.
    pub frames: u64,
    /// Frames that are not syslog messages.
    pub malformed: u64,
    /// Messages of hosts that are not accepted.
    pub other_hosts: u64,
    /// Messages of programs that belong to no mail daemon.
    pub other_programs: u64,
    /// Complete logins, without excluded ones.
    pub logins: u64,
    /// Logins from addresses that are never authorised.
    pub excluded: u64,
    /// Logins that a rule refuses, or of users whom `users` does not name.
    pub refused_by_rule: u64,
    /// Logins from addresses that the operator has blocked.
    pub blocked: u64,
    /// Messages that matched a login pattern but were refused, or were too long to be matched.
    pub refused: u64,
    /// Logins and connect lines that were delivered when their grace period was over.
    pub late: u64,
    /// Logins without an address of processes that may have several connections.
    pub ambiguous: u64,
    /// Addresses added to the set.
    pub granted: u64,
    /// Addresses that expired.
    pub expired: u64,
    /// Addresses evicted because `max-clients` was reached.
    pub evicted: u64,
    /// Addresses that lost their grant because too many users share them.
    pub shared: u64,
    /// Logins refused because the tables that keep streams apart were full.
    pub overloaded: u64,
    /// What was relayed.
    pub relayed: RelayCounts,
    /// Recipients that were refused because of limits.
    pub limited: LimitCounts,
    /// When the last login was seen.
    pub last_login: Option<Time>,
    /// The counters of each mail daemon.
    pub daemons: BTreeMap<Name, DaemonStats>,
}

/// What was relayed, as far as Postfix asked by the policy protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
}

/// Recipients that were refused because of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitCounts {
    /// By the limit of messages.
    pub messages: u64,
    /// By the limit of recipients.
    pub recipients: u64,
    /// Because more clients or users relay than are counted.
    pub too_many_clients: u64,
}

impl Stats {
    /// Returns the counters of a mail daemon.
    pub(super) fn daemon(&mut self, name: &Name) -> &mut DaemonStats {
        if !self.daemons.contains_key(name) {
            self.daemons.insert(name.clone(), DaemonStats::default());
        }
        self.daemons.get_mut(name).expect("it has just been inserted")
    }
}

/// The counters of one mail daemon, and whether its logins have stopped.
#[derive(Clone, Debug, Default)]
pub struct DaemonStats {
    /// Complete logins.
    pub logins: u64,
    /// Messages of its programs that no pattern matches.
    pub unmatched: u64,
    /// When its last login was seen.
    pub last_login: Option<Time>,
    /// The facilities (RFC 5424 section 6.2.1) from which its logins came.
    pub facilities: BTreeSet<u8>,
    unmatched_since: u64,
    longest_gap: Duration,
    reported: bool,
}

impl DaemonStats {
    /// Counts a login, with the facility of its frame if it had one.
    pub fn login(&mut self, now: Time, facility: Option<u8>) {
        self.facilities.extend(facility);
        if let Some(last) = self.last_login.replace(now) {
            self.longest_gap = self.longest_gap.max(now.since(last));
        }
        self.logins += 1;
        self.unmatched_since = 0;
        self.reported = false;
    }

    /// Records a login that may not authorise: its patterns still match.
    pub fn excluded(&mut self) {
        self.unmatched_since = 0;
    }

    /// Counts a message of one of its programs that no pattern matches.
    pub fn unmatched(&mut self) {
        self.unmatched += 1;
        self.unmatched_since += 1;
    }

    /// Returns whether its logins have stopped although it continues to log: most likely an upgrade
    /// has changed the wording of its log.
    pub fn has_stopped(&self, now: Time) -> bool {
        let patience = (self.longest_gap * 4).clamp(SHORTEST_SILENCE, LONGEST_SILENCE);
        let silence = self.last_login.map(|last| now.since(last));
        self.unmatched_since >= MIN_UNMATCHED && silence.is_some_and(|silence| silence >= patience)
    }

    /// Returns whether its logins have stopped, once until the next login.
    pub fn has_just_stopped(&mut self, now: Time) -> bool {
        let is_new = self.has_stopped(now) && !self.reported;
        self.reported |= is_new;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_whose_logins_stop_is_reported_once() {
        let at = |minutes: u64| Time::from_millis(minutes * 60_000);
        let mut daemon = DaemonStats::default();
        (0..1000).for_each(|_| daemon.unmatched());
        assert!(!daemon.has_stopped(at(10_000)), "it never had a login");
        daemon.login(at(0), Some(2));
        daemon.login(at(30), None);
        (0..MIN_UNMATCHED - 1).for_each(|_| daemon.unmatched());
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
