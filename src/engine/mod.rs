//! The sentence itself: it hears that somebody has logged in, remembers the address until a
//! moment, and knows what Postfix should be told.
//!
//! Promise  a value with synchronous methods. It knows no clock, socket, disk, log or thread; the
//!          moment is an argument. It never panics on input. Calls that come early or twice
//!          change nothing. When in doubt an address is not listed.
//! Layers   `syslog` a frame's message; `daemons` what a message says; `streams` what it means
//!          after those before it; `exclude` and `grants` who may relay until when; `map` what
//!          Postfix should read; `state` what survives a restart. `socketmap` and `policy` what
//!          Postfix asks and how it is answered; `senders` who may send as what. Beside them, for
//!          tests and `check`: `examples`, and `claims`, which `proof` proves.

pub mod address;
pub mod claims;
pub mod daemons;
pub mod examples;
pub mod exclude;
pub mod frame;
pub mod grants;
mod hear;
pub mod heard;
pub mod map;
pub mod netstring;
pub mod policy;
pub mod proof;
pub mod senders;
pub mod sessions;
pub mod socketmap;
pub mod state;
pub mod stats;
pub mod streams;
pub mod syslog;
pub mod time;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use daemons::Table;
use exclude::Exclude;
use grants::{By, Given, Grant, Granted, Grants};
use map::{Edition, Level};
use senders::Senders;
use sessions::Sessions;
use stats::Stats;
use streams::Streams;
use time::Time;

/// Longest time for which the operator may authorise or block an address by hand.
pub const MAX_BY_HAND: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the administrator has decided; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Rules {
    /// The mail daemons that are believed.
    pub table: Table,
    /// How long a login authorises.
    pub grace: Duration,
    /// Most addresses held.
    pub max_clients: usize,
    /// Addresses that are never authorised.
    pub exclude: Exclude,
    /// Whether it is remembered who has logged in.
    pub remember_users: bool,
    /// An address from which more users than this have logged in is not authorised. Below
    /// [`grants::MAX_USERS`].
    pub max_users: Option<usize>,
    /// Who may send as what.
    pub senders: Senders,
    /// If a client who stays connected stays authorised: for how long at most.
    pub session_ceiling: Option<Duration>,
    /// Least time between two publications of the map.
    pub publish_interval: Duration,
    /// Whether the map gets IPv6 addresses whose key would admit other hosts too.
    pub publish_inexact: bool,
}

impl Default for Rules {
    /// The documented defaults, with no daemon and nobody excluded.
    fn default() -> Self {
        Self {
            table: Table::default(),
            grace: Duration::from_secs(30 * 60),
            max_clients: 65_536,
            exclude: Exclude::default(),
            remember_users: true,
            max_users: None,
            senders: Senders::default(),
            session_ceiling: None,
            publish_interval: Duration::from_secs(1),
            publish_inexact: false,
        }
    }
}

/// An address that has left the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The right it had.
    pub grant: Grant,
    /// Why it has left.
    pub why: WhyGone,
}

/// Why an address has left the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyGone {
    /// Its time was up.
    Expired,
    /// It would have ended first, and `max-clients` was reached.
    Evicted,
    /// The operator has ended it.
    Revoked,
    /// A reload has excluded it.
    Excluded,
    /// Too many users have logged in from it.
    Shared,
}

impl WhyGone {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "no longer authorised: its time is up",
            Self::Evicted => "no longer authorised: max-clients is reached, and it would end first",
            Self::Revoked => "no longer authorised: revoked by hand",
            Self::Excluded => "no longer authorised: excluded by the new configuration",
            Self::Shared => {
                "no longer authorised: more different users than max-users-per-address have \
                 logged in from it"
            }
        }
    }
}

/// The engine. See the head of this file.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    streams: Streams,
    sessions: Sessions,
    grants: Grants,
    blocked: HashMap<IpAddr, Time>,
    level: Level,
    gone: Vec<Gone>,
    dirty: HashSet<IpAddr>,
    dirty_blocks: HashSet<IpAddr>,
    stats: Stats,
}

impl Engine {
    /// An engine that holds nobody. An edition of the map is due at once.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            streams: Streams::default(),
            sessions: Sessions::default(),
            grants: Grants::default(),
            blocked: HashMap::new(),
            level: Level::unknown(),
            gone: Vec::new(),
            dirty: HashSet::new(),
            dirty_blocks: HashSet::new(),
            stats: Stats::default(),
        }
    }

    fn grant(&mut self, now: Time, address: IpAddr, given: Given) -> Granted {
        self.sweep(now);
        let admitted = self.grants.at(address, now).is_some();
        let granted = self.grants.grant(address, given, now, self.rules.max_users);
        self.dirty.insert(address);
        match granted {
            Granted::New => {
                self.stats.granted += 1;
                self.membership_changed(address);
                self.shrink();
            }
            Granted::Shared if admitted => {
                self.stats.shared += 1;
                if let Some(grant) = self.grants.get(address).cloned() {
                    self.left(Grant { shared: false, ..grant }, WhyGone::Shared);
                }
            }
            Granted::Shared | Granted::Renewed => {}
        }
        granted
    }

    /// Makes the set obey `max_clients`.
    fn shrink(&mut self) {
        while let Some(grant) = self.grants.pop_excess(self.rules.max_clients) {
            self.stats.evicted += 1;
            self.left(grant, WhyGone::Evicted);
        }
    }

    fn left(&mut self, grant: Grant, why: WhyGone) {
        self.sessions.forget(grant.address);
        // That its time is up is in the record of the grant itself.
        if why != WhyGone::Expired {
            self.dirty.insert(grant.address);
        }
        // One that is shared has left before.
        if !grant.shared {
            self.membership_changed(grant.address);
            self.gone.push(Gone { grant, why });
        }
    }

    fn membership_changed(&mut self, address: IpAddr) {
        if self.is_published(address) {
            self.level.change();
        }
    }

    /// Whether the map lists an address while it is authorised.
    pub fn is_published(&self, address: IpAddr) -> bool {
        self.rules.publish_inexact || !address::admits_others(address)
    }

    fn sweep(&mut self, now: Time) {
        while let Some(grant) = self.grants.pop_expired(now) {
            let crowd = grant.crowd_left(now, self.rules.max_users);
            self.stats.expired += u64::from(!grant.shared);
            self.left(grant, WhyGone::Expired);
            if let Some(crowd) = crowd {
                self.grants.put(crowd);
            }
        }
    }

    /// The truth, at the lookup: the right of an address at this moment.
    pub fn admits(&self, now: Time, address: IpAddr) -> Option<&Grant> {
        self.grants.at(address.to_canonical(), now)
    }

    /// What Postfix is told about a policy request.
    pub fn decide(&self, now: Time, request: &policy::Request<'_>) -> policy::Action {
        let asks = request.asks();
        let Some(grant) = asks.and_then(|address| self.admits(now, address)) else {
            return policy::Action::Dunno;
        };
        if grant.is_by_hand(now) || self.rules.senders.admit(grant.users(now), request.sender()) {
            return policy::Action::Ok;
        }
        self.rules.senders.mismatch.clone()
    }

    /// Authorises an address by hand, for `span` or else for the grace period.
    ///
    /// # Errors
    /// The list on which the address stands as one that is never authorised.
    pub fn allow(
        &mut self,
        now: Time,
        address: IpAddr,
        span: Option<Duration>,
        note: Option<String>,
    ) -> Result<Granted, String> {
        let address = address.to_canonical();
        if let Some(list) = self.rules.exclude.reason(address) {
            return Err(list.to_owned());
        }
        self.blocked.remove(&address);
        // Also of one that has ended: its record would come to life if the clock were set back.
        self.dirty_blocks.insert(address);
        let span = span.unwrap_or(self.rules.grace).min(MAX_BY_HAND);
        Ok(self.grant(now, address, Given { by: By::Hand, user: None, span, note }))
    }

    /// Ends the right of an address now, and refuses new ones for a while if asked to. Whether
    /// it had one.
    pub fn revoke(&mut self, now: Time, address: IpAddr, block: Option<Duration>) -> bool {
        let address = address.to_canonical();
        self.sweep(now);
        self.blocked.retain(|_, until| now < *until);
        if let Some(span) = block {
            self.blocked.insert(address, now + span.min(MAX_BY_HAND));
            self.dirty_blocks.insert(address);
        }
        let Some(grant) = self.grants.remove(address) else { return false };
        let was_authorised = !grant.shared;
        self.left(grant, WhyGone::Revoked);
        was_authorised
    }

    /// Housekeeping: takes out what has ended and tells what has left the set since the last call.
    pub fn tick(&mut self, now: Time) -> Vec<Gone> {
        self.sweep(now);
        self.blocked.retain(|_, until| now < *until);
        std::mem::take(&mut self.gone)
    }

    /// The next moment at which `tick` or `edition` has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        if !self.gone.is_empty() {
            return Some(Time::default());
        }
        let due = self.level.due().map(|(_, at)| at);
        [self.grants.first_deadline(), due].into_iter().flatten().min()
    }

    /// The whole map, if another edition than the published one is due.
    pub fn edition(&mut self, now: Time) -> Option<Edition> {
        self.sweep(now);
        let (number, at) = self.level.due()?;
        if now < at {
            return None;
        }
        self.level.compose(now);
        let listed = |grant: &&Grant| !grant.shared && self.is_published(grant.address);
        let mut addresses: Vec<_> =
            self.grants.iter().filter(listed).map(|grant| grant.address).collect();
        addresses.sort_unstable();
        Some(Edition { number, addresses })
    }

    /// The last edition: a map without any entry.
    pub fn farewell(&mut self) -> Edition {
        self.level.change();
        Edition { number: self.level.wanted(), addresses: Vec::new() }
    }

    /// Edition `number` is what Postfix reads from now on.
    pub fn published(&mut self, number: u64, now: Time) {
        self.level.published(number, now, self.rules.publish_interval);
    }

    /// An edition could not be published. How long the pause before the next attempt is.
    pub fn failed(&mut self, now: Time) -> Duration {
        self.level.failed(now)
    }

    /// The state of publication.
    pub fn level(&self) -> &Level {
        &self.level
    }

    /// Replaces the rules and keeps the set, but for addresses that are excluded now or that more
    /// users share than may. If sessions no longer count, those that are open end now.
    pub fn reload(&mut self, now: Time, rules: Rules) {
        self.sweep(now);
        let inexact_changed = self.rules.publish_inexact != rules.publish_inexact;
        self.rules = rules;
        if !self.rules.remember_users {
            self.grants.forget_users();
        }
        if self.rules.session_ceiling.is_none() {
            for address in std::mem::take(&mut self.sessions).addresses() {
                self.grants.end_sessions(address, now + self.rules.grace);
                self.dirty.insert(address);
            }
        }
        for before in self.grants.settle_all(self.rules.max_users) {
            self.dirty.insert(before.address);
            if self.grants.get(before.address).is_some_and(|grant| grant.shared) {
                self.left(before, WhyGone::Shared);
            }
        }
        self.drop_excluded();
        self.shrink();
        if inexact_changed {
            self.level.change();
        }
    }

    /// Replaces the lists of those that are never authorised.
    pub fn exclude(&mut self, exclude: Exclude) {
        self.rules.exclude = exclude;
        self.drop_excluded();
    }

    fn drop_excluded(&mut self) {
        let excluded = |grant: &&Grant| self.rules.exclude.reason(grant.address).is_some();
        let addresses: Vec<_> = self.grants.iter().filter(excluded).map(|g| g.address).collect();
        for address in addresses {
            if let Some(grant) = self.grants.remove(address) {
                self.left(grant, WhyGone::Excluded);
            }
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// All rights that are in force at this moment, by address.
    pub fn list(&self, now: Time) -> Vec<Grant> {
        let lasts = |grant: &&Grant| now < grant.until && !grant.shared;
        let mut list: Vec<_> = self.grants.iter().filter(lasts).cloned().collect();
        list.sort_unstable_by_key(|grant| grant.address);
        list
    }

    /// How many addresses are authorised at this moment.
    pub fn clients_at(&mut self, now: Time) -> usize {
        self.sweep(now);
        self.grants.iter().filter(|grant| !grant.shared).count()
    }

    /// The addresses that too many users share, each with their number.
    pub fn shared(&self, now: Time) -> Vec<(IpAddr, usize)> {
        let shared = self.grants.iter().filter(|grant| grant.shared && now < grant.until);
        let mut list: Vec<_> = shared.map(|g| (g.address, g.users(now).count())).collect();
        list.sort_unstable();
        list
    }

    /// How many addresses are held and kept out of the map because their key would admit others.
    pub fn unpublished(&self) -> usize {
        let kept_out = |grant: &&Grant| !grant.shared && !self.is_published(grant.address);
        self.grants.iter().filter(kept_out).count()
    }

    /// The mail daemons whose logins have stopped although they go on to log; each is told once.
    pub fn stopped_daemons(&mut self, now: Time) -> Vec<daemons::Name> {
        let stats = self.stats.daemons.iter_mut();
        stats
            .filter_map(|(name, daemon)| daemon.has_just_stopped(now).then(|| name.clone()))
            .collect()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
