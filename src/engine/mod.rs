//! The engine: finds logins in log frames, keeps the expiring set of client addresses, and knows
//! what Postfix should be told.
//!
//! - **Promise**: a value with synchronous methods. It knows no clock, socket, disk, log or thread;
//!   the time is an argument. It never panics on input. When in doubt, an address is not listed.
//! - **Path of a frame**: [`message`] parses it; [`maildaemons`] recognises what the message
//!   reports; [`correlation`] interprets it together with earlier ones; `process` decides;
//!   [`verdict`] names the result and the reason.
//! - **The set**: [`grants`] are who may relay until when; [`publication`] is what the map should
//!   list; [`state`] is what survives a restart; [`events`] are what those who watch are told.
//! - **Several hosts**: [`cluster`] is what they tell each other of their grants.
//! - **Lookups**: [`protocol`] parses Postfix's requests and writes the replies; [`relay`] decides
//!   what may be relayed, within the [`limits`].
//! - **Proof**: [`proof`] shows for tests and `check` that no pattern accepts a message which an
//!   unauthenticated client can cause.
//!
//! # Order of calls
//!
//! `now` never decreases. Any call that changes the engine may change [`Engine::sweep_at`],
//! [`Engine::publish_at`] and [`Engine::has_changes`].
//!
//! 1. **Start**: [`Engine::new`], then at most once [`Engine::restore`], before any frame.
//! 2. **Events**, in any order: [`Engine::process`] for each frame, [`Engine::allow`] and
//!    [`Engine::revoke`] for the operator, [`Engine::reload`] and [`Engine::exclude`] for new rules.
//! 3. **Expiry**: [`Engine::tick`] at [`Engine::sweep_at`] (`None`: nothing to do; a time in the
//!    past: at once). It returns each removal once; an early call is harmless, and so is a late one,
//!    since lookups compare with the deadline themselves.
//! 4. **Publication**: at [`Engine::publish_at`], [`Engine::due`] returns the number of a
//!    generation. Collect [`Engine::listed`], publish it, and report [`Engine::published`] or
//!    [`Engine::failed`]; both set the time of the next attempt. `due` reserves nothing, so only one
//!    caller publishes. When [`Publication::empty_at`] has passed, empty the map and report
//!    [`Engine::emptied`] (idempotent) or [`Engine::not_emptied`]. [`Engine::publish_again`] when
//!    the map was modified externally; [`Engine::last_generation`] at the end.
//! 5. **State file**: while [`Engine::has_changes`], append [`Engine::journal`] until its `number`
//!    is set. If `whole` is set or a write has failed, write a new file with [`Engine::state`].
//! 6. **Watching**: from [`Engine::watch`] to [`Engine::unwatch`], [`Engine::events`] keeps what
//!    happens to grants.
//! 7. **Cluster**: [`Engine::join_cluster`] before [`Engine::restore`]. With each connection
//!    [`Engine::begin_reading`], [`Engine::hear`] for each entry, once [`Engine::end_reading`]; all the
//!    while [`Engine::untold`], answered by [`Engine::told`] or [`Engine::not_told`], and
//!    [`Engine::heartbeat`].
//! 8. **Questions**, at any time: [`Engine::decide`] counts what may be relayed and may revoke;
//!    [`Engine::admits`], [`Engine::list`] and the other methods with `&self` change nothing.

pub mod cluster;
pub mod correlation;
pub mod events;
pub mod grants;
pub mod limits;
pub mod login_rules;
pub mod maildaemons;
pub mod message;
mod process;
pub mod proof;
pub mod protocol;
pub mod publication;
pub mod recent;
pub mod relay;
mod reload;
pub mod state;
pub mod stats;
pub mod time;
pub mod user_name;
pub mod verdict;

use message::address;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cluster::Cluster;
use correlation::sessions::Sessions;
use correlation::streams::Streams;
use events::{EventKind, EventLog};
use grants::exclude::Exclude;
use grants::grant::{Grant, GrantedBy};
use grants::origins::Origins;
pub use grants::removed::{RemovalReason, Removed};
use grants::{Cursor, GrantOutcome, GrantRequest, Grants, SLICE, Slice};
use limits::Limits;
use limits::usage::Usage;
use login_rules::LoginRules;
use maildaemons::DaemonTable;
use message::hosts::Hosts;
use message::probes::Probes;
use protocol::sender_logins::Senders;
use publication::Publication;
use recent::Recent;
use stats::Stats;
use time::Time;

/// Expired grants removed by one call: a million may expire together, and no caller should wait
/// for all of them.
const SWEEP: usize = 1024;

/// Longest time for which the operator may authorise or block an address.
pub const MAX_MANUAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The configuration of the engine; a reload replaces it as a whole.
#[derive(Debug)]
pub struct Rules {
    /// The mail daemons whose logins count.
    pub table: DaemonTable,
    /// The hosts whose messages are accepted.
    pub hosts: Hosts,
    /// How long a login authorises, unless one of `logins` says otherwise.
    pub grace: Duration,
    /// Which logins authorise.
    pub logins: LoginRules,
    /// Most addresses held at a time.
    pub max_clients: usize,
    /// Addresses that are never authorised.
    pub exclude: Exclude,
    /// Whether user names are remembered.
    pub remember_users: bool,
    /// An address from which more users than this have logged in is not authorised. Less than
    /// [`grants::grant::MAX_USERS`].
    pub max_users: Option<usize>,
    /// Which users may use which envelope senders.
    pub senders: Senders,
    /// How much may be relayed.
    pub limits: Limits,
    /// Longest time for which an open session extends a grant; `None`: sessions do not extend it.
    pub session_ceiling: Option<Duration>,
    /// Longest pause after a publication of the map; it is shorter if that took little time.
    pub longest_pause: Duration,
    /// Whether the map lists IPv6 addresses whose key would also admit other hosts.
    pub publish_inexact: bool,
}

impl Default for Rules {
    /// Returns the documented defaults, without mail daemons and exclusions.
    fn default() -> Self {
        Self {
            table: DaemonTable::default(),
            hosts: Hosts::default(),
            grace: Duration::from_secs(30 * 60),
            logins: LoginRules::default(),
            max_clients: 65_536,
            exclude: Exclude::default(),
            remember_users: true,
            max_users: None,
            senders: Senders::default(),
            limits: Limits::default(),
            session_ceiling: None,
            longest_pause: Duration::from_secs(1),
            publish_inexact: false,
        }
    }
}

/// The engine; see the [module](self) for the order of calls.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    streams: Streams,
    sessions: Sessions,
    grants: Grants,
    origins: Origins,
    blocked: BTreeMap<IpAddr, Time>,
    usage: Usage,
    publication: Publication,
    removed: Vec<Removed>,
    changes: state::Changes,
    events: EventLog,
    stats: Stats,
    probes: Probes,
    recent: Recent,
    cluster: Option<Box<Cluster>>,
}

impl Engine {
    /// Creates an engine with an empty set. A generation of the map is due at once.
    pub fn new(rules: Rules) -> Self {
        let mut grants = Grants::default();
        grants.reserve(rules.max_clients);
        Self {
            rules,
            streams: Streams::default(),
            sessions: Sessions::default(),
            grants,
            origins: Origins::default(),
            blocked: BTreeMap::new(),
            usage: Usage::default(),
            publication: Publication::unknown(),
            removed: Vec::new(),
            changes: state::Changes::default(),
            events: EventLog::default(),
            stats: Stats::default(),
            probes: Probes::default(),
            recent: Recent::default(),
            cluster: None,
        }
    }

    fn grant(&mut self, now: Time, address: IpAddr, request: GrantRequest) -> GrantOutcome {
        if self.cluster.is_some() {
            return self.grant_shared(now, address, request);
        }
        self.expire(now, address);
        let admitted = self.grants.find(address).is_some_and(|grant| grant.lasts(now));
        let outcome = self.grants.grant(address, request, now, self.rules.max_users);
        self.changed(address);
        match outcome {
            GrantOutcome::New => {
                self.stats.granted += 1;
                self.tell_grant(now, address, EventKind::Granted);
                if self.is_published(address) {
                    self.publication.change();
                }
                self.shrink(now);
            }
            GrantOutcome::Shared if admitted => {
                self.stats.shared += 1;
                if let Some(grant) = self.grants.get(address) {
                    self.removed(now, Grant { shared: false, ..grant }, RemovalReason::Shared);
                }
            }
            GrantOutcome::Renewed => self.tell_grant(now, address, EventKind::Renewed),
            GrantOutcome::Shared => {}
        }
        outcome
    }

    /// Evicts entries until the set obeys `max_clients`.
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
        self.removed_shared(now, grant.address, reason);
        // The entry of a shared address stays, and its log-outs still count.
        if reason != RemovalReason::Shared {
            self.sessions.forget(grant.address);
        }
        // The record of the grant already has its deadline.
        if reason != RemovalReason::Expired {
            self.changed(grant.address);
        }
        // A shared address was reported when it became shared.
        if !grant.shared {
            if self.is_listed(grant.address, grant.shared) {
                self.publication.remove(now);
            }
            self.recent.ended(grant.address, now, reason);
            self.tell(now, &grant, EventKind::Ended(reason));
            self.removed.push(Removed { grant, reason });
        }
    }

    /// Returns until when the operator has blocked an address, if they have.
    pub fn blocked_until(&self, now: Time, address: IpAddr) -> Option<Time> {
        self.blocked.get(&address.to_canonical()).copied().filter(|until| now < *until)
    }

    /// Returns the addresses that the operator has blocked, and until when.
    pub fn blocks(&self, now: Time) -> impl Iterator<Item = (IpAddr, Time)> {
        let blocks = self.blocked.iter().map(|(address, until)| (*address, *until));
        blocks.filter(move |(_, until)| now < *until)
    }

    /// Returns whether the map lists an address while it is authorised.
    pub fn is_published(&self, address: IpAddr) -> bool {
        self.rules.publish_inexact || !address::admits_others(address)
    }

    /// Returns whether the map lists the grant of an address until its deadline.
    fn is_listed(&self, address: IpAddr, is_shared: bool) -> bool {
        !is_shared && self.is_published(address)
    }

    fn sweep(&mut self, now: Time) {
        for _ in 0..SWEEP {
            let Some(address) = self.grants.first_expired(now) else { return };
            self.expire(now, address);
        }
    }

    /// Removes an expired address; returns whether it had expired.
    fn expire(&mut self, now: Time, address: IpAddr) -> bool {
        if self.grants.find(address).is_none_or(|grant| now < grant.until()) {
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

    /// Returns the grant of an address at this moment. The deadline decides, not the last sweep.
    pub fn admits(&self, now: Time, address: IpAddr) -> Option<Grant> {
        self.grants.at(address.to_canonical(), now)
    }

    /// Authorises an address for the operator, for `span` or else for the grace period.
    ///
    /// # Errors
    /// The name of the exclusion list that contains the address.
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
        self.unblock_shared(now, address);
        self.blocked.remove(&address);
        // Also for an expired block: its record would count again if the clock were set back.
        self.changes.block(address);
        let span = span.unwrap_or(self.rules.grace).min(MAX_MANUAL);
        Ok(self.grant(
            now,
            address,
            GrantRequest { by: GrantedBy::Operator, user: None, span, note },
        ))
    }

    /// Revokes the grant of an address, and refuses new ones for the time of `block`. Returns
    /// whether the address was authorised.
    pub fn revoke(&mut self, now: Time, address: IpAddr, block: Option<Duration>) -> bool {
        self.end(now, address.to_canonical(), block, RemovalReason::Revoked)
    }

    fn end(
        &mut self,
        now: Time,
        address: IpAddr,
        block: Option<Duration>,
        reason: RemovalReason,
    ) -> bool {
        self.expire(now, address);
        if self.cluster.is_some() {
            self.revoke_shared(now, address, block);
        } else if let Some(span) = block {
            self.blocked.insert(address, now + span.min(MAX_MANUAL));
            self.changes.block(address);
        }
        let Some(grant) = self.grants.remove(address) else { return false };
        let was_authorised = !grant.shared;
        self.removed(now, grant, reason);
        was_authorised
    }

    /// Removes expired entries and returns what was removed since the last call. If very many have
    /// expired, [`Self::sweep_at`] asks for another call at once.
    pub fn tick(&mut self, now: Time) -> Vec<Removed> {
        self.sweep(now);
        let ended = self.blocked.extract_if(.., |_, until| *until <= now).collect();
        self.sweep_cluster(now, ended);
        let Self { usage, grants, .. } = self;
        usage.sweep(now, SWEEP, |address, since| grants.has(now, address, since));
        std::mem::take(&mut self.removed)
    }

    /// Returns the next moment at which [`Self::tick`] has something to do.
    pub fn sweep_at(&self) -> Option<Time> {
        if self.removed.is_empty() { self.grants.first_deadline() } else { Some(Time::default()) }
    }

    /// Returns the rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the next slice of the grants in force, in no order, converted by `each`.
    pub fn list<T>(&self, now: Time, from: Cursor, each: impl Fn(&Grant) -> T) -> Slice<Vec<T>> {
        self.grants.slice(from, SLICE, Vec::new(), |list, grant| {
            if grant.lasts(now) {
                list.push(each(&grant.grant()));
            }
        })
    }

    /// Returns how many addresses are authorised at this moment.
    pub fn clients_at(&self, now: Time) -> usize {
        self.grants.count(now)
    }

    /// Returns the addresses shared by too many users, each with its number of users, in ascending
    /// order.
    pub fn shared(&self, now: Time) -> Vec<(IpAddr, usize)> {
        let shared = self.grants.shared().filter(|grant| now < grant.until);
        shared.map(|grant| (grant.address, grant.user_count(now))).collect()
    }

    /// Returns how many addresses are kept out of the map because their key would also admit other
    /// hosts.
    pub fn unpublished(&self) -> usize {
        if self.rules.publish_inexact { 0 } else { self.grants.inexact() }
    }

    /// Returns the mail daemons that continue to log but no longer log logins; each is returned
    /// once.
    pub fn stopped_daemons(&mut self, now: Time) -> Vec<maildaemons::Name> {
        let stats = self.stats.daemons.iter_mut();
        stats
            .filter_map(|(name, daemon)| daemon.has_just_stopped(now).then(|| name.clone()))
            .collect()
    }

    /// Returns the probes that have arrived.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Returns the counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
