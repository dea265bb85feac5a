//! One set of grants for several hosts: what this host tells the others, and what it hears.
//!
//! - **How**: the hosts share a stream of entries ([`entry`]), which the daemon reads and writes.
//!   What a host has granted is its *part* of an address ([`address`]); operators' decisions are the
//!   address's *ruling* ([`ruling`]). The grant in the set is what all parts together are.
//! - **Promise**: the stream is an exchange, not the truth. Each host answers from its own set, and
//!   what a host hears it keeps, whatever becomes of the stream. Hosts that have heard the same agree.
//!   No grant lasts longer than its login gives, nor than the rules of the host that hears it.
//! - **Recovery**: with each connection a host reads the whole stream, and then tells what the stream
//!   lacks ([`telling`]): its own parts, rulings, and the parts of hosts that are silent.
//! - **Layers**: [`clock`] is the time that the hosts share, [`members`] are the hosts, [`hearing`]
//!   is what entries do to the set.

pub mod address;
pub mod clock;
pub mod entry;
pub mod hearing;
pub mod members;
pub mod ruling;
pub mod stored;
pub mod telling;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use smol_str::SmolStr;

use super::events::EventKind;
use super::grants::grant::{Grant, User};
use super::grants::{Cursor, GrantOutcome, GrantRequest};
use super::time::Time;
use super::{Engine, MAX_MANUAL, RemovalReason};
use address::{ClusterAddress, Part};
use clock::StreamClock;
use entry::EntryId;
use members::Members;
use ruling::AddressRuling;

/// Addresses to be checked in one call of [`Engine::tick`].
const CHECKED: usize = 1024;
/// Most addresses that are remembered, unless `max-clients` is more than half of it.
const MAX_REMEMBERED: usize = 1 << 18;
/// A renewal is told when it moves the deadline by this part of the grace.
const WINDOW_PART: u32 = 30;
/// Or, with a long grace, by this time.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// What was told and heard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterStats {
    /// Entries told.
    pub told: u64,
    /// Entries of other hosts.
    pub heard: u64,
    /// Entries that are none, or not believed.
    pub refused: u64,
}

/// What this host shares with others.
#[derive(Debug)]
pub struct Cluster {
    /// This host.
    host: SmolStr,
    /// Tells this process from others of the same name.
    instance: u64,
    clock: StreamClock,
    addresses: HashMap<IpAddr, Box<ClusterAddress>>,
    /// The addresses that have a ruling.
    ruled: BTreeSet<IpAddr>,
    /// When to look whether an address can be forgotten.
    checks: BinaryHeap<Reverse<(Time, IpAddr)>>,
    /// What has changed here, the oldest first.
    fresh: VecDeque<IpAddr>,
    /// Up to where the set was searched for what the stream lacks; `None`: it lacks nothing.
    search: Option<Cursor>,
    /// When to search once more, also for what hosts that live have not told again.
    thorough_at: Option<Time>,
    /// Whether the present search is that one.
    is_thorough: bool,
    /// Entries of this host that a later one replaces.
    obsolete: Vec<EntryId>,
    members: Members,
    /// How often the stream was read from its beginning.
    reading: u32,
    /// Whether it was read to its end, so that what this host has told before is known.
    has_read: bool,
    /// Whether it is being read up to where it ended when that began.
    is_catching_up: bool,
    /// The last entry that was read.
    read: EntryId,
    /// Whether the stream must be read again: new rules may accept what was not accepted.
    rereads: bool,
    /// Whether others wait for a heartbeat.
    beats: bool,
    /// How long the last own heartbeat took to be read.
    lag: Option<Duration>,
    /// When this process began to read the stream.
    joined: Option<Time>,
    /// Most addresses, with those that are remembered only because of an older entry.
    most: usize,
    /// When another process beat under this host's name.
    twin: Option<Time>,
    stats: ClusterStats,
}

impl Cluster {
    fn new(host: SmolStr, instance: u64, most: usize) -> Self {
        Self {
            host,
            instance,
            clock: StreamClock::default(),
            addresses: HashMap::new(),
            ruled: BTreeSet::new(),
            checks: BinaryHeap::new(),
            fresh: VecDeque::new(),
            search: None,
            thorough_at: None,
            is_thorough: false,
            obsolete: Vec::new(),
            members: Members::default(),
            reading: 0,
            has_read: false,
            is_catching_up: false,
            read: EntryId::default(),
            rereads: false,
            beats: false,
            lag: None,
            joined: None,
            most,
            twin: None,
            stats: ClusterStats::default(),
        }
    }

    /// Returns the name of this host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns what was told and heard.
    pub fn stats(&self) -> ClusterStats {
        self.stats
    }

    /// Returns the other hosts.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Returns how long it takes until this host reads what it has told.
    pub fn lag(&self) -> Option<Duration> {
        self.lag
    }

    /// Returns whether another process has lately used this host's name.
    pub fn has_twin(&self, now: Time) -> bool {
        self.twin.is_some_and(|seen| now.since(seen) < 2 * members::SILENT)
    }

    /// Returns what this host has granted an address, if that lasts.
    fn own(&self, now: Time, address: IpAddr) -> Option<Grant> {
        let part = self.addresses.get(&address)?.part(&self.host)?;
        Some(part.grant.grant()).filter(|grant| now < grant.until)
    }

    /// Puts what this host has granted in the place of its part, and has it told unless only the
    /// deadline has moved, by less than `window`.
    fn put_own(&mut self, now: Time, grant: Grant, window: Duration) {
        let address = grant.address;
        let shared = self.addresses.entry(address).or_default();
        let is_untold = match shared.part_mut(&self.host) {
            Some(part) => {
                let was_untold = part.is_untold;
                part.is_untold |= !is_same(&part.grant.grant(), &grant, now)
                    || grant.by_login.is_some_and(|it| it < part.told || it >= part.told + window);
                part.keep = part.keep.max(grant.until);
                part.grant = grant.into();
                part.is_untold && !was_untold
            }
            None => {
                shared.parts.push(Part {
                    host: self.host.clone(),
                    sequence: Time::default(),
                    place: None,
                    told: Time::default(),
                    keep: grant.until,
                    is_untold: true,
                    grant: grant.into(),
                });
                true
            }
        };
        if is_untold {
            self.queue(address);
        }
    }

    /// Forgets what no longer matters of an address.
    fn prune(&mut self, now: Time, address: IpAddr) {
        let Some(shared) = self.addresses.get_mut(&address) else { return };
        let own = shared.part(&self.host).filter(|part| part.keep <= now);
        self.obsolete.extend(own.and_then(|part| part.place).map(|place| place.entry));
        match shared.prune(now) {
            Some(later) => self.check_at(later, address),
            None => self.forget(address),
        }
    }

    /// Has an address looked at then, unless it will be anyway.
    fn check_at(&mut self, at: Time, address: IpAddr) {
        let Some(shared) = self.addresses.get_mut(&address) else { return };
        if !std::mem::replace(&mut shared.has_check, true) {
            self.checks.push(Reverse((at, address)));
        }
    }

    fn forget(&mut self, address: IpAddr) {
        self.addresses.remove(&address);
        self.ruled.remove(&address);
    }

    /// Forgets the parts of an address, but not what operators have decided about it.
    fn drop_parts(&mut self, address: IpAddr) {
        let Some(shared) = self.addresses.get_mut(&address) else { return };
        shared.parts.clear();
        if shared.ruling.is_none() {
            self.forget(address);
        }
    }

    fn sweep(&mut self, now: Time) {
        for _ in 0..CHECKED {
            match self.checks.peek() {
                Some(Reverse((at, address))) if *at <= now => {
                    let address = *address;
                    self.checks.pop();
                    let shared = self.addresses.get_mut(&address);
                    shared.into_iter().for_each(|shared| shared.has_check = false);
                    self.prune(now, address);
                }
                _ => return,
            }
        }
    }

    /// Changes the ruling of an address.
    fn rule(&mut self, now: Time, address: IpAddr, change: impl FnOnce(&mut AddressRuling)) {
        let keep = now + MAX_MANUAL;
        let dropped = self.addresses.entry(address).or_default().rule(keep, change);
        let own = dropped.iter().filter(|part| part.host == self.host);
        self.obsolete.extend(own.filter_map(|part| part.place).map(|place| place.entry));
        self.ruled.insert(address);
        self.check_at(keep, address);
    }

    /// Makes a decision about an address, and has it told.
    fn decide(&mut self, now: Time, address: IpAddr, decision: RulingChange) {
        let host = self.host.clone();
        self.rule(now, address, |ruling| match decision {
            RulingChange::Revoke(block) => ruling.revoke(&host, block),
            RulingChange::Lift => ruling.lift(&host),
        });
        let shared = self.addresses.get_mut(&address);
        if let Some(known) = shared.and_then(|shared| shared.ruling.as_mut()) {
            (known.is_untold, known.place) = (true, None);
        }
        self.queue(address);
    }

    /// Returns whether an address can be remembered: it is known, or there are not too many.
    fn has_room(&self, address: IpAddr) -> bool {
        self.addresses.len() < self.most || self.addresses.contains_key(&address)
    }
}

/// A decision of this host about an address.
#[derive(Clone, Copy, Debug)]
enum RulingChange {
    /// Its grant ends, and it is blocked until then.
    Revoke(Option<Time>),
    /// It is blocked no longer.
    Lift,
}

/// Returns whether a grant of this host becomes another one that differs in nothing but later deadlines
/// and the last login.
fn is_same(one: &Grant, other: &Grant, now: Time) -> bool {
    let ends_earlier =
        |user: &User| other.users.iter().any(|it| it.name == user.name && it.until < user.until);
    let names = |grant: &Grant| -> BTreeSet<SmolStr> {
        grant.users.iter().map(|user| user.name.clone()).collect()
    };
    one.until > now
        && one.manual == other.manual
        && !one.users.iter().any(ends_earlier)
        && one.shared == other.shared
        && names(one) == names(other)
}

impl Engine {
    /// Shares grants with other hosts from now on. Before [`Self::restore`]; `instance` is a random
    /// number.
    pub fn join_cluster(&mut self, host: SmolStr, instance: u64) {
        let most = MAX_REMEMBERED.max(2 * self.rules.max_clients);
        self.cluster = Some(Box::new(Cluster::new(host, instance, most)));
    }

    /// Returns what is shared with other hosts.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// Returns the host that has heard the login, or whose operator has granted, if it is known.
    pub fn heard_by(&self, grant: &Grant) -> Option<SmolStr> {
        let shared = self.cluster.as_ref()?.addresses.get(&grant.address)?;
        let last = shared.parts.iter().max_by_key(|part| part.grant.until());
        last.map(|part| part.host.clone())
    }

    /// Grants, and tells the others.
    pub(super) fn grant_shared(
        &mut self,
        now: Time,
        address: IpAddr,
        request: GrantRequest,
    ) -> GrantOutcome {
        self.expire(now, address);
        let before = self.grants.get(address);
        let Some(cluster) = &self.cluster else { return GrantOutcome::Renewed };
        let own = cluster.own(now, address);
        let mut grant = own.unwrap_or_else(|| Grant::none(address, now));
        grant.apply(request, now, self.rules.max_users);
        self.put_own(now, grant);
        self.changed(address);
        self.combine(now, address, RemovalReason::Expired);
        match (before, self.grants.get(address)) {
            (_, Some(after)) if after.shared => GrantOutcome::Shared,
            (Some(before), _) if !before.shared => GrantOutcome::Renewed,
            _ => GrantOutcome::New,
        }
    }

    /// Changes what this host has granted an address, and tells the others; returns whether it has
    /// granted anything.
    pub(super) fn change_own(
        &mut self,
        now: Time,
        address: IpAddr,
        change: impl FnOnce(&mut Grant),
    ) -> bool {
        let own = self.cluster.as_ref().and_then(|cluster| cluster.own(now, address));
        let Some(mut grant) = own else { return false };
        change(&mut grant);
        self.put_own(now, grant);
        self.changed(address);
        self.combine(now, address, RemovalReason::Expired);
        true
    }

    /// Returns how long a login may count while its session is open.
    fn session_ceiling(&self) -> Duration {
        self.rules.session_ceiling.unwrap_or_default()
    }

    fn put_own(&mut self, now: Time, grant: Grant) {
        let window = (self.rules.grace / WINDOW_PART).min(LONGEST_WINDOW);
        if let Some(cluster) = &mut self.cluster {
            cluster.put_own(now, grant, window);
        }
    }

    /// Revokes on all hosts.
    pub(super) fn revoke_shared(&mut self, now: Time, address: IpAddr, block: Option<Duration>) {
        let block = block.map(|span| now + span.min(MAX_MANUAL));
        self.decide_shared(now, address, RulingChange::Revoke(block));
    }

    /// Lifts the blocks of an address on all hosts, if there are any.
    pub(super) fn unblock_shared(&mut self, now: Time, address: IpAddr) {
        if self.blocked_until(now, address).is_some() {
            self.decide_shared(now, address, RulingChange::Lift);
        }
    }

    fn decide_shared(&mut self, now: Time, address: IpAddr, decision: RulingChange) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.decide(now, address, decision);
        self.follow_ruling(now, address);
        self.changed(address);
    }

    /// Blocks an address, or not, as its ruling says.
    fn follow_ruling(&mut self, now: Time, address: IpAddr) {
        let shared = self.cluster.as_ref().and_then(|cluster| cluster.addresses.get(&address));
        match shared.and_then(|shared| shared.blocked_until(now)) {
            Some(until) => _ = self.blocked.insert(address, until),
            None => _ = self.blocked.remove(&address),
        }
    }

    /// Puts what all parts of an address together are into the set.
    fn combine(&mut self, now: Time, address: IpAddr, reason: RemovalReason) {
        self.expire(now, address);
        let shared = self.cluster.as_ref().and_then(|cluster| cluster.addresses.get(&address));
        let after = shared.and_then(|shared| shared.effective(now, self.rules.max_users));
        let before = self.grants.get(address);
        let Some(after) = after else {
            if let Some(before) = before {
                self.grants.remove(address);
                self.removed(now, before, reason);
            }
            return;
        };
        if before.as_ref() == Some(&after) {
            return;
        }
        let is_shared = after.shared;
        self.grants.put(after);
        match before.filter(|before| !before.shared) {
            None if !is_shared => {
                self.stats.granted += 1;
                self.tell_grant(now, address, EventKind::Granted);
                if self.is_published(address) {
                    self.publication.change();
                }
            }
            Some(_) if !is_shared => self.tell_grant(now, address, EventKind::Renewed),
            Some(before) => {
                self.stats.shared += 1;
                self.removed(now, before, RemovalReason::Shared);
            }
            None => {}
        }
        self.shrink(now);
    }

    /// Follows what has happened to the grant of an address.
    pub(super) fn removed_shared(&mut self, now: Time, address: IpAddr, reason: RemovalReason) {
        let Some(cluster) = &mut self.cluster else { return };
        match reason {
            RemovalReason::Expired => cluster.prune(now, address),
            RemovalReason::Evicted | RemovalReason::Excluded | RemovalReason::Refused => {
                cluster.drop_parts(address);
            }
            // What ended it has changed its ruling, or what is known of its users.
            RemovalReason::Revoked | RemovalReason::Limited | RemovalReason::Shared => {}
        }
    }

    /// Forgets what is over. Where a block has ended, a grant that was heard meanwhile counts.
    pub(super) fn sweep_cluster(&mut self, now: Time, unblocked: Vec<(IpAddr, Time)>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.sweep(now);
        cluster.members.sweep(now);
        for (address, _) in unblocked {
            self.combine(now, address, RemovalReason::Expired);
        }
    }

    /// Has the stream read again.
    pub(super) fn read_again(&mut self) {
        self.cluster.iter_mut().for_each(|cluster| cluster.rereads = true);
    }

    /// Applies new rules to all parts, and has the stream read again.
    pub(super) fn reload_shared(&mut self, now: Time, change: impl Fn(&mut Grant)) {
        self.read_again();
        let Some(cluster) = &mut self.cluster else { return };
        let mut addresses: Vec<IpAddr> = cluster.addresses.keys().copied().collect();
        addresses.sort_unstable();
        for shared in cluster.addresses.values_mut() {
            for part in &mut shared.parts {
                let mut grant = part.grant.grant();
                change(&mut grant);
                part.grant = grant.into();
            }
        }
        for address in addresses {
            self.changed(address);
            self.combine(now, address, RemovalReason::Refused);
        }
    }
}
