//! The engine learns that somebody has logged in, remembers the address until a moment, and knows
//! what Postfix should be told.
//!
//! - **Promise**: a value with synchronous methods. It knows no clock, socket, disk, log or thread;
//!   the moment is an argument. It never panics on input. Calls that come early or twice change
//!   nothing. When in doubt an address is not listed.
//! - **A frame's way**: [`message`] reads it; [`maildaemons`] says what the message tells;
//!   [`correlation`] what it means after those before it; `process` decides, and [`verdict`] says
//!   what became of it and why.
//! - **The set**: [`grants`] are who may relay until when; [`publication`] is what the map should
//!   list; [`state`] what survives a restart.
//! - **Questions**: [`protocol`] reads Postfix's and writes the answers.
//! - **Proof**: [`proof`] shows for tests and `check` that no stranger's message is a login.

pub mod correlation;
pub mod grants;
pub mod maildaemons;
pub mod message;
mod process;
pub mod proof;
pub mod protocol;
pub mod publication;
pub mod state;
pub mod stats;
pub mod time;
pub mod verdict;

use message::address;
use protocol::policy;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use correlation::sessions::Sessions;
use correlation::streams::Streams;
use grants::exclude::Exclude;
use grants::grant::{Grant, GrantedBy};
use grants::origins::Origins;
pub use grants::removed::{RemovalReason, Removed};
use grants::{GrantOutcome, GrantRequest, Grants, Slice};
use maildaemons::DaemonTable;
use message::hosts::Hosts;
use message::probes::Probes;
use protocol::sender_logins::Senders;
use publication::{Generation, Publication};
use stats::Stats;
use time::Time;

/// Rights that have ended and are taken out in one go: a million may end together, and nobody
/// shall wait for all of them.
const SWEEP: usize = 1024;

/// Longest time for which the operator may authorise or block an address by hand.
pub const MAX_MANUAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the administrator has decided; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Rules {
    /// The mail daemons that are believed.
    pub table: DaemonTable,
    /// The hosts whose messages are believed.
    pub hosts: Hosts,
    /// How long a login authorises.
    pub grace: Duration,
    /// Most addresses held.
    pub max_clients: usize,
    /// Addresses that are never authorised.
    pub exclude: Exclude,
    /// Whether it is remembered who has logged in.
    pub remember_users: bool,
    /// An address from which more users than this have logged in is not authorised. Below
    /// [`grants::grant::MAX_USERS`].
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
            table: DaemonTable::default(),
            hosts: Hosts::default(),
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

/// The engine. See the head of this file.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    streams: Streams,
    sessions: Sessions,
    grants: Grants,
    origins: Origins,
    blocked: BTreeMap<IpAddr, Time>,
    publication: Publication,
    removed: Vec<Removed>,
    changes: state::Changes,
    stats: Stats,
    probes: Probes,
}

impl Engine {
    /// An engine that holds nobody. A generation of the map is due at once.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            streams: Streams::default(),
            sessions: Sessions::default(),
            grants: Grants::default(),
            origins: Origins::default(),
            blocked: BTreeMap::new(),
            publication: Publication::unknown(),
            removed: Vec::new(),
            changes: state::Changes::default(),
            stats: Stats::default(),
            probes: Probes::default(),
        }
    }

    fn grant(&mut self, now: Time, address: IpAddr, given: GrantRequest) -> GrantOutcome {
        self.expire(now, address);
        let admitted = self.grants.at(address, now).is_some();
        let granted = self.grants.grant(address, given, now, self.rules.max_users);
        self.changed(address);
        match granted {
            GrantOutcome::New => {
                self.stats.granted += 1;
                if self.is_published(address) {
                    self.publication.change();
                }
                self.shrink(now);
            }
            GrantOutcome::Shared if admitted => {
                self.stats.shared += 1;
                if let Some(grant) = self.grants.get(address).cloned() {
                    self.removed(now, Grant { shared: false, ..grant }, RemovalReason::Shared);
                }
            }
            GrantOutcome::Shared | GrantOutcome::Renewed => {}
        }
        granted
    }

    /// Makes the set obey `max_clients`.
    fn shrink(&mut self, now: Time) {
        while let Some(address) = self.grants.first_excess(self.rules.max_clients) {
            if self.expire(now, address) {
                continue;
            }
            if let Some(grant) = self.grants.remove(address) {
                self.stats.evicted += 1;
                self.removed(now, grant, RemovalReason::Evicted);
            }
        }
    }

    fn removed(&mut self, now: Time, grant: Grant, reason: RemovalReason) {
        self.sessions.forget(grant.address);
        // That its time is up is in the record of the grant itself.
        if reason != RemovalReason::Expired {
            self.changed(grant.address);
        }
        // One that is shared has left before.
        if !grant.shared {
            if self.is_listed(&grant) {
                self.publication.remove(now);
            }
            self.removed.push(Removed { grant, reason });
        }
    }

    /// Whether the map lists an address while it is authorised.
    pub fn is_published(&self, address: IpAddr) -> bool {
        self.rules.publish_inexact || !address::admits_others(address)
    }

    /// Whether the map has the address of a right, while that lasts.
    fn is_listed(&self, grant: &Grant) -> bool {
        !grant.shared && self.is_published(grant.address)
    }

    fn sweep(&mut self, now: Time) {
        for _ in 0..SWEEP {
            let Some(address) = self.grants.first_expired(now) else { return };
            self.expire(now, address);
        }
    }

    /// Takes an address out if its right has ended. Whether it had.
    fn expire(&mut self, now: Time, address: IpAddr) -> bool {
        if self.grants.get(address).is_none_or(|grant| now < grant.until) {
            return false;
        }
        let Some(grant) = self.grants.remove(address) else { return false };
        let remaining = grant.remaining_shared(now, self.rules.max_users);
        self.stats.expired += u64::from(!grant.shared);
        self.removed(now, grant, RemovalReason::Expired);
        if let Some(remaining) = remaining {
            self.grants.put(remaining);
        }
        true
    }

    /// The truth, at the lookup: the right of an address at this moment.
    pub fn admits(&self, now: Time, address: IpAddr) -> Option<&Grant> {
        self.grants.at(address.to_canonical(), now)
    }

    /// What Postfix is told about a policy request.
    pub fn decide(&self, now: Time, request: &policy::PolicyRequest<'_>) -> policy::Action {
        let asks = request.asks();
        let Some(grant) = asks.and_then(|address| self.admits(now, address)) else {
            return policy::Action::Dunno;
        };
        if grant.is_manual(now) || self.rules.senders.admit(grant.users(now), request.sender()) {
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
    ) -> Result<GrantOutcome, String> {
        let address = address.to_canonical();
        if let Some(list) = self.rules.exclude.reason(address) {
            return Err(list.to_owned());
        }
        self.blocked.remove(&address);
        // Also of one that has ended: its record would come to life if the clock were set back.
        self.changes.block(address);
        let span = span.unwrap_or(self.rules.grace).min(MAX_MANUAL);
        Ok(self.grant(
            now,
            address,
            GrantRequest { by: GrantedBy::Operator, user: None, span, note },
        ))
    }

    /// Ends the right of an address now, and refuses new ones for a while if asked to. Whether
    /// it had one.
    pub fn revoke(&mut self, now: Time, address: IpAddr, block: Option<Duration>) -> bool {
        let address = address.to_canonical();
        self.expire(now, address);
        if let Some(span) = block {
            self.blocked.insert(address, now + span.min(MAX_MANUAL));
            self.changes.block(address);
        }
        let Some(grant) = self.grants.remove(address) else { return false };
        let was_authorised = !grant.shared;
        self.removed(now, grant, RemovalReason::Revoked);
        was_authorised
    }

    /// Housekeeping: takes out what has ended and tells what has left the set since the last call.
    /// If very much has ended, [`Self::sweep_at`] asks for another call at once.
    pub fn tick(&mut self, now: Time) -> Vec<Removed> {
        self.sweep(now);
        self.blocked.retain(|_, until| now < *until);
        std::mem::take(&mut self.removed)
    }

    /// The next moment at which `tick` has something to do.
    pub fn sweep_at(&self) -> Option<Time> {
        if self.removed.is_empty() { self.grants.first_deadline() } else { Some(Time::default()) }
    }

    /// The next moment at which a generation is due or the map has to be emptied.
    pub fn publish_at(&self) -> Option<Time> {
        let due = self.publication.due().map(|(_, at)| at);
        [due, self.publication.empty_at()].into_iter().flatten().min()
    }

    /// The number of another generation than the published one, if one is due. It says what
    /// [`Self::listed`] says from now on; what changes meanwhile makes another one due.
    pub fn due(&mut self, now: Time) -> Option<u64> {
        let (number, _) = self.publication.due().filter(|(_, at)| *at <= now)?;
        self.publication.compose(now);
        Some(number)
    }

    /// The addresses that the map should have, a slice of them.
    pub fn listed(&self, now: Time, after: Option<IpAddr>) -> Slice<Vec<IpAddr>> {
        self.grants.slice(after, Vec::new(), |addresses, grant| {
            if now < grant.until && self.is_listed(grant) {
                addresses.push(grant.address);
            }
        })
    }

    /// The last generation: a map without any entry.
    pub fn last_generation(&mut self) -> Generation {
        self.publication.change();
        Generation { number: self.publication.desired(), addresses: Vec::new() }
    }

    /// What Postfix reads is not known any more: a generation is due although nothing has changed.
    pub fn publish_again(&mut self) {
        self.publication.again();
    }

    /// Generation `number` is what Postfix reads from now on.
    pub fn published(&mut self, number: u64, now: Time) {
        self.publication.published(number, now, self.rules.publish_interval);
    }

    /// A generation could not be published. How long the pause before the next attempt is.
    pub fn failed(&mut self, now: Time) -> Duration {
        self.publication.failed(now)
    }

    /// Postfix reads a map that lists nobody, for lack of a generation that could be published.
    pub fn emptied(&mut self) {
        self.publication.emptied();
    }

    /// The map could not even be emptied.
    pub fn not_emptied(&mut self, now: Time) {
        self.publication.not_emptied(now);
    }

    /// The state of publication.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Replaces the rules and keeps the set, but for addresses that are excluded now or that more
    /// users share than may. If sessions no longer count, those that are open end now.
    pub fn reload(&mut self, now: Time, rules: Rules) {
        while self.grants.first_expired(now).is_some() {
            self.sweep(now);
        }
        let inexact_changed = self.rules.publish_inexact != rules.publish_inexact;
        let most_users = self.rules.max_users;
        self.rules = rules;
        if !self.rules.remember_users {
            self.grants.forget_users();
        }
        if self.rules.session_ceiling.is_none() {
            for address in std::mem::take(&mut self.sessions).addresses() {
                // How many may share an address is another matter, and comes next.
                self.grants.end_sessions(address, now + self.rules.grace, most_users);
                self.changed(address);
            }
        }
        for before in self.grants.settle_all(self.rules.max_users) {
            self.changed(before.address);
            match self.grants.get(before.address) {
                Some(grant) if grant.shared => self.removed(now, before, RemovalReason::Shared),
                Some(grant) if before.shared && self.is_listed(grant) => self.publication.change(),
                _ => {}
            }
        }
        self.drop_excluded(now);
        self.shrink(now);
        if inexact_changed {
            self.publication.change();
        }
    }

    /// Replaces the lists of those that are never authorised.
    pub fn exclude(&mut self, now: Time, exclude: Exclude) {
        self.rules.exclude = exclude;
        self.drop_excluded(now);
    }

    fn drop_excluded(&mut self, now: Time) {
        let excluded = |grant: &&Grant| self.rules.exclude.reason(grant.address).is_some();
        let addresses: Vec<_> = self.grants.iter().filter(excluded).map(|g| g.address).collect();
        for address in addresses {
            if let Some(grant) = self.grants.remove(address) {
                self.removed(now, grant, RemovalReason::Excluded);
            }
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What `each` makes of the rights that are in force at this moment, by address, a slice of
    /// them.
    pub fn list<T>(
        &self,
        now: Time,
        after: Option<IpAddr>,
        each: impl Fn(&Grant) -> T,
    ) -> Slice<Vec<T>> {
        self.grants.slice(after, Vec::new(), |list, grant| {
            if grant.lasts(now) {
                list.push(each(grant));
            }
        })
    }

    /// How many addresses are authorised at this moment.
    pub fn clients_at(&self, now: Time) -> usize {
        self.grants.count(now)
    }

    /// The addresses that too many users share, each with their number, in ascending order.
    pub fn shared(&self, now: Time) -> Vec<(IpAddr, usize)> {
        let shared = self.grants.shared().filter(|grant| now < grant.until);
        shared.map(|grant| (grant.address, grant.user_count(now))).collect()
    }

    /// How many addresses are held and kept out of the map because their key would admit others.
    pub fn unpublished(&self) -> usize {
        if self.rules.publish_inexact { 0 } else { self.grants.inexact() }
    }

    /// The mail daemons whose logins have stopped although they go on to log; each is told once.
    pub fn stopped_daemons(&mut self, now: Time) -> Vec<maildaemons::Name> {
        let stats = self.stats.daemons.iter_mut();
        stats
            .filter_map(|(name, daemon)| daemon.has_just_stopped(now).then(|| name.clone()))
            .collect()
    }

    /// The probes that have arrived.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
