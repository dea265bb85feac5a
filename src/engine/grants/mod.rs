//! The set of client addresses that may relay, each until its deadline.
//!
//! - **Promise**: [`Grants::at`] returns a grant exactly while `now < until`; sweeping is
//!   housekeeping.
//! - **Limits**: at most `max_clients` addresses (enforced by the engine); the entry closest to
//!   expiry is evicted.
//! - **How**: ordered indexes, by address and by deadline; only `insert`, `remove` and `reindex` touch them. The
//!   time of a lookup does not grow with the set, and listing all entries is done slice by slice.
//! - **Not here**: clock, disk, sockets, log.

pub mod exclude;
pub mod grant;
pub mod origins;
pub mod removed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use super::message::address;
use super::time::Time;
use grant::{Grant, GrantedBy};

/// Addresses in one slice: the most expensive operation on them takes less than a millisecond.
pub(super) const SLICE: usize = 1024;

/// A request to authorise an address.
#[derive(Clone, Debug)]
pub struct GrantRequest {
    /// Who authorises it.
    pub by: GrantedBy,
    /// Who logged in, if known and to be remembered.
    pub user: Option<String>,
    /// For how long.
    pub span: Duration,
    /// The operator's note.
    pub note: Option<String>,
}

/// What a login did to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantOutcome {
    /// The address was not authorised before.
    New,
    /// The address was authorised already.
    Renewed,
    /// Too many users have logged in from the address; it is not authorised.
    Shared,
}

/// The next part of the set, converted.
#[derive(Debug)]
pub struct Slice<T> {
    /// The converted entries.
    pub items: T,
    /// The cursor: the next slice begins after this address; `None`: this is the last one.
    pub next: Option<IpAddr>,
}

/// The expiring set.
#[derive(Debug, Default)]
pub struct Grants {
    by_address: BTreeMap<IpAddr, Box<Grant>>,
    by_deadline: BTreeSet<(Time, IpAddr)>,
    /// The shared addresses.
    shared: BTreeSet<IpAddr>,
    /// How many of the others have a key that would also admit other hosts.
    inexact: usize,
}

impl Grants {
    /// Authorises an address or renews its grant; the later deadline wins. An address with more than
    /// `max_users` becomes shared and keeps only the operator's grant. An expired entry must have
    /// been removed before.
    pub fn grant(
        &mut self,
        address: IpAddr,
        request: GrantRequest,
        now: Time,
        max_users: Option<usize>,
    ) -> GrantOutcome {
        let Some(grant) = self.by_address.get_mut(&address) else {
            let mut grant = Grant::none(address, now);
            grant.apply(request, now, max_users);
            let outcome = if grant.shared { GrantOutcome::Shared } else { GrantOutcome::New };
            self.insert(grant);
            return outcome;
        };
        let before = (grant.until, grant.shared);
        if grant.shared {
            grant.since = now;
        }
        grant.apply(request, now, max_users);
        let after = (grant.until, grant.shared);
        self.reindex(address, before, after);
        match (before.1, after.1) {
            (_, true) => GrantOutcome::Shared,
            (false, false) => GrantOutcome::Renewed,
            (true, false) => GrantOutcome::New,
        }
    }

    /// Brings the other indexes up to date with a grant whose deadline or sharing has changed.
    fn reindex(&mut self, address: IpAddr, before: (Time, bool), after: (Time, bool)) {
        if before.0 != after.0 {
            self.by_deadline.remove(&(before.0, address));
            self.by_deadline.insert((after.0, address));
        }
        if before.1 != after.1 {
            self.count_shared(address, before.1, false);
            self.count_shared(address, after.1, true);
        }
    }

    /// Adds an address to the shared ones or to the count of the others, or removes it.
    fn count_shared(&mut self, address: IpAddr, shared: bool, add: bool) {
        let inexact = usize::from(address::admits_others(address));
        match (shared, add) {
            (true, true) => _ = self.shared.insert(address),
            (true, false) => _ = self.shared.remove(&address),
            (false, true) => self.inexact += inexact,
            (false, false) => self.inexact -= inexact,
        }
    }

    /// Ends a session of an address: its deadline from logins becomes `until`, and the user's own
    /// deadline the time in `user`. Returns whether the address was in the set.
    pub fn log_out(
        &mut self,
        address: IpAddr,
        until: Option<Time>,
        user: Option<(String, Time)>,
        max_users: Option<usize>,
    ) -> bool {
        let Some(mut grant) = self.remove(address) else { return false };
        grant.by_login = until;
        if let Some((name, until)) = user {
            let same = grant.users.iter_mut().filter(|user| *user.name == *name);
            same.for_each(|user| user.until = until);
        }
        grant.settle(max_users);
        self.insert(grant);
        true
    }

    /// Ends all sessions of an address: no deadline from logins is later than `latest`.
    pub fn end_sessions(&mut self, address: IpAddr, latest: Time, max_users: Option<usize>) {
        let Some(mut grant) = self.remove(address) else { return };
        grant.by_login = grant.by_login.map(|until| until.min(latest));
        grant.users.iter_mut().for_each(|user| user.until = user.until.min(latest));
        grant.settle(max_users);
        self.insert(grant);
    }

    /// Applies a new limit of users that may share an address; returns the changed grants as they
    /// were before.
    pub fn settle_all(&mut self, max_users: Option<usize>) -> Vec<Grant> {
        let settled = |old: &Grant| {
            let mut grant = old.clone();
            grant.settle(max_users);
            grant
        };
        let changed = |old: &Grant| Some((old.clone(), settled(old))).filter(|(a, b)| a != b);
        let changed: Vec<_> = self.iter().filter_map(changed).collect();
        let (before, after): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
        after.into_iter().for_each(|grant| self.put(grant));
        before
    }

    /// Inserts a grant as it is, in place of any other for its address.
    pub fn put(&mut self, grant: Grant) {
        self.remove(grant.address);
        self.insert(grant);
    }

    /// Returns the grant of an address if it is in force at a moment.
    pub fn at(&self, address: IpAddr, now: Time) -> Option<&Grant> {
        self.get(address).filter(|grant| grant.lasts(now))
    }

    /// Returns the entry of an address, expired and shared ones too.
    pub fn get(&self, address: IpAddr) -> Option<&Grant> {
        self.by_address.get(&address).map(Box::as_ref)
    }

    /// Removes an address.
    pub fn remove(&mut self, address: IpAddr) -> Option<Grant> {
        let grant = self.by_address.remove(&address)?;
        self.by_deadline.remove(&(grant.until, address));
        self.count_shared(address, grant.shared, false);
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
        Some(*grant)
    }

    fn insert(&mut self, grant: Grant) {
        self.by_deadline.insert((grant.until, grant.address));
        self.count_shared(grant.address, grant.shared, true);
        self.by_address.insert(grant.address, Box::new(grant));
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
    }

    /// Returns the address with the first deadline, if it has expired.
    pub fn first_expired(&self, now: Time) -> Option<IpAddr> {
        self.by_deadline.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }

    /// Returns the address with the first deadline, if there are more than `max`.
    pub fn first_excess(&self, max: usize) -> Option<IpAddr> {
        let first = self.by_deadline.first().filter(|_| self.len() > max);
        first.map(|(_, address)| *address)
    }

    /// Returns the first deadline.
    pub fn first_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(until, _)| *until)
    }

    /// Returns how many addresses are held, shared ones included.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Returns whether no address is held.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Returns all grants in the order of addresses, shared ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.by_address.values().map(Box::as_ref)
    }

    /// Calls `each` for the next entries after an address, in ascending order, expired and shared
    /// ones included.
    pub fn slice<T>(
        &self,
        after: Option<IpAddr>,
        mut items: T,
        mut each: impl FnMut(&mut T, &Grant),
    ) -> Slice<T> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut seen, mut last) = (0, None);
        for (address, grant) in self.by_address.range((start, Bound::Unbounded)).take(SLICE) {
            (seen, last) = (seen + 1, Some(*address));
            each(&mut items, grant);
        }
        Slice { items, next: last.filter(|_| seen == SLICE) }
    }

    /// Returns the shared addresses.
    pub fn shared(&self) -> impl Iterator<Item = &Grant> {
        self.shared.iter().filter_map(|address| self.get(*address))
    }

    /// Returns how many grants are in force at a moment.
    pub fn count(&self, now: Time) -> usize {
        let expired = self.by_deadline.iter().take_while(|(until, _)| *until <= now);
        let expired = expired.filter(|(_, address)| !self.shared.contains(address)).count();
        self.len() - self.shared.len() - expired
    }

    /// Returns how many addresses, except shared ones, have a key that would also admit other hosts.
    pub fn inexact(&self) -> usize {
        self.inexact
    }

    /// Forgets all users.
    pub fn forget_users(&mut self) {
        self.by_address.values_mut().for_each(|grant| grant.users.clear());
    }
}
