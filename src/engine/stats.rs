//! Plain counters, counted where the decision is made.

use std::collections::BTreeMap;

use super::daemons::Name;
use super::time::Time;

/// What has happened since the start. All counters only grow.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Frames that arrived.
    pub frames: u64,
    /// Frames that are no syslog message.
    pub malformed: u64,
    /// Messages of programs that belong to no mail daemon.
    pub other_programs: u64,
    /// Complete logins, excluded ones not counted.
    pub logins: u64,
    /// Logins from addresses that are never authorised.
    pub excluded: u64,
    /// Logins from addresses that the operator has blocked.
    pub blocked: u64,
    /// Messages that fitted a login pattern and were not believed.
    pub refused: u64,
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

/// What one mail daemon has contributed.
#[derive(Clone, Debug, Default)]
pub struct DaemonStats {
    /// Complete logins.
    pub logins: u64,
    /// Messages of its programs that no pattern fits.
    pub unmatched: u64,
    /// When its last login was heard.
    pub last_login: Option<Time>,
}
