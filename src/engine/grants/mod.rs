//! The set of client addresses that may relay, each until a moment.
//!
//! Promise  `at(address, now)` answers exactly while `now < until`; sweeping is housekeeping.
//! Limits   at most `most` addresses; the one that would end first makes room.
//! Shape    ordered indexes, by address and by deadline; only `insert` and `remove` touch them. No
//!          question to the set takes longer because many are in it, and whoever wants them all
//!          asks for a slice at a time.
//! Not here clock, disk, sockets, log.

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
use grant::{Grant, GrantedBy, ManualGrant};

/// Addresses in one slice: what is dearest to do with them takes below a millisecond.
pub(super) const SLICE: usize = 1024;

/// What gives an address a right.
#[derive(Clone, Debug)]
pub struct GrantRequest {
    /// Who gives it.
    pub by: GrantedBy,
    /// Who logged in, if that is known and remembered.
    pub user: Option<String>,
    /// For how long.
    pub span: Duration,
    /// What the operator writes about it.
    pub note: Option<String>,
}

/// What a login did to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantOutcome {
    /// The address was not authorised before.
    New,
    /// The address was authorised; its deadline has moved.
    Renewed,
    /// Too many users have logged in from the address; it is not authorised.
    Shared,
}

/// What was made of the next addresses of the set.
#[derive(Debug)]
pub struct Slice<T> {
    /// What was made of them.
    pub items: T,
    /// Behind this address the next slice begins, if there is one.
    pub next: Option<IpAddr>,
}

/// The expiring set.
#[derive(Debug, Default)]
pub struct Grants {
    by_address: BTreeMap<IpAddr, Box<Grant>>,
    by_deadline: BTreeSet<(Time, IpAddr)>,
    /// Those that are shared.
    shared: BTreeSet<IpAddr>,
    /// How many of the others have a key that admits other hosts too.
    inexact: usize,
}

impl Grants {
    /// Authorises an address, or renews its right; the later deadline wins. An address with more
    /// than `most_users` is shared and loses its right, but not what the operator gave. If its right
    /// has ended, it must have been taken out before.
    pub fn grant(
        &mut self,
        address: IpAddr,
        given: GrantRequest,
        now: Time,
        most_users: Option<usize>,
    ) -> GrantOutcome {
        let GrantRequest { by, user, span, note } = given;
        let end = now + span;
        let old = self.remove(address);
        let renewed = old.as_ref().is_some_and(|old| !old.shared);
        let mut grant = old.unwrap_or_else(|| Grant::none(address, now));
        if !renewed {
            grant.since = now;
        }
        grant.by_login = grant.by_login.filter(|until| now < *until);
        grant.manual = grant.manual.filter(|hand| now < hand.until);
        if by == GrantedBy::Operator {
            let hand = || Box::new(ManualGrant { given: now, until: end, note: None });
            let mut hand = grant.manual.filter(|old| end < old.until).unwrap_or_else(hand);
            hand.note = note.or(hand.note);
            grant.manual = Some(hand);
        } else {
            grant.by_login = grant.by_login.max(Some(end));
            grant.logins = grant.logins.saturating_add(1);
        }
        grant.by = by;
        grant.users.retain(|user| now < user.until);
        if let Some(name) = &user {
            grant.log_in(name, end);
        }
        grant.settle(most_users);
        let shared = grant.shared;
        self.insert(grant);
        match (shared, renewed) {
            (true, _) => GrantOutcome::Shared,
            (false, true) => GrantOutcome::Renewed,
            (false, false) => GrantOutcome::New,
        }
    }

    /// A session of an address is over: what its logins have given ends at `until`, and the right
    /// of the user at his own moment. Whether the address was in the set.
    pub fn log_out(
        &mut self,
        address: IpAddr,
        until: Option<Time>,
        user: Option<(String, Time)>,
        most_users: Option<usize>,
    ) -> bool {
        let Some(mut grant) = self.remove(address) else { return false };
        grant.by_login = until;
        if let Some((name, until)) = user {
            let same = grant.users.iter_mut().filter(|user| *user.name == *name);
            same.for_each(|user| user.until = until);
        }
        grant.settle(most_users);
        self.insert(grant);
        true
    }

    /// The sessions of an address no longer count: nothing that its logins have given ends after
    /// `latest`.
    pub fn end_sessions(&mut self, address: IpAddr, latest: Time, most_users: Option<usize>) {
        let Some(mut grant) = self.remove(address) else { return };
        grant.by_login = grant.by_login.map(|until| until.min(latest));
        grant.users.iter_mut().for_each(|user| user.until = user.until.min(latest));
        grant.settle(most_users);
        self.insert(grant);
    }

    /// Applies a new limit of users that may share an address. Those for which this changes
    /// something, as they were.
    pub fn settle_all(&mut self, most_users: Option<usize>) -> Vec<Grant> {
        let settled = |old: &Grant| {
            let mut grant = old.clone();
            grant.settle(most_users);
            grant
        };
        let changed = |old: &Grant| Some((old.clone(), settled(old))).filter(|(a, b)| a != b);
        let changed: Vec<_> = self.iter().filter_map(changed).collect();
        let (before, after): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
        after.into_iter().for_each(|grant| self.put(grant));
        before
    }

    /// Puts a grant in as it is, in place of any other for its address.
    pub fn put(&mut self, grant: Grant) {
        self.remove(grant.address);
        self.insert(grant);
    }

    /// The right of an address at a moment.
    pub fn at(&self, address: IpAddr, now: Time) -> Option<&Grant> {
        self.get(address).filter(|grant| grant.lasts(now))
    }

    /// The entry of an address, ended or not.
    pub fn get(&self, address: IpAddr) -> Option<&Grant> {
        self.by_address.get(&address).map(Box::as_ref)
    }

    /// Takes an address out.
    pub fn remove(&mut self, address: IpAddr) -> Option<Grant> {
        let grant = self.by_address.remove(&address)?;
        self.by_deadline.remove(&(grant.until, address));
        if !self.shared.remove(&address) {
            self.inexact -= usize::from(address::admits_others(address));
        }
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
        Some(*grant)
    }

    fn insert(&mut self, grant: Grant) {
        self.by_deadline.insert((grant.until, grant.address));
        if grant.shared {
            self.shared.insert(grant.address);
        } else {
            self.inexact += usize::from(address::admits_others(grant.address));
        }
        self.by_address.insert(grant.address, Box::new(grant));
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
    }

    /// The address whose right ends first, if it has ended.
    pub fn first_expired(&self, now: Time) -> Option<IpAddr> {
        self.by_deadline.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }

    /// The address whose right ends first, if there are more than `most`.
    pub fn first_excess(&self, most: usize) -> Option<IpAddr> {
        let first = self.by_deadline.first().filter(|_| self.len() > most);
        first.map(|(_, address)| *address)
    }

    /// The next deadline.
    pub fn first_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(until, _)| *until)
    }

    /// How many addresses are held, those included that are shared.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// All grants, by address, those of shared addresses included.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.by_address.values().map(Box::as_ref)
    }

    /// Does something with the next grants after an address, in ascending order, those included
    /// that have ended or are shared.
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

    /// The addresses that are shared.
    pub fn shared(&self) -> impl Iterator<Item = &Grant> {
        self.shared.iter().filter_map(|address| self.get(*address))
    }

    /// How many addresses have a right at a moment.
    pub fn count(&self, now: Time) -> usize {
        let ended = self.by_deadline.iter().take_while(|(until, _)| *until <= now);
        let ended = ended.filter(|(_, address)| !self.shared.contains(address)).count();
        self.len() - self.shared.len() - ended
    }

    /// How many addresses, shared ones aside, have a key that admits other hosts too.
    pub fn inexact(&self) -> usize {
        self.inexact
    }

    /// Forgets who has logged in.
    pub fn forget_users(&mut self) {
        self.by_address.values_mut().for_each(|grant| grant.users.clear());
    }
}
