//! The set of client addresses that may relay, each until its deadline.
//!
//! - **Promise**: [`Grants::at`] returns a grant exactly while `now < until`; sweeping is
//!   housekeeping.
//! - **Limits**: at most `max_clients` addresses (enforced by the engine); the entry closest to
//!   expiry is evicted.
//! - **How**: `slots` has the grants in numbered slots and finds them by address and by deadline;
//!   `stored` is how a grant is kept there, [`grant`] how it is worked with. The time of a lookup does
//!   not grow with the set. All entries are visited slice by slice, in the order of slots.
//! - **Not here**: clock, disk, sockets, log.

pub mod exclude;
pub mod grant;
pub mod loading;
pub mod origins;
pub mod removed;
mod slots;
pub mod stored;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::message::address;
use super::time::Time;
use grant::{Grant, GrantedBy};
use slots::{SlotNumber, Slots};
use stored::StoredGrant;

/// Addresses in one slice: the most expensive operation on them takes about 0.3 milliseconds.
pub(super) const SLICE: SlotNumber = 256;

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

/// Where the next slice begins. The default is the beginning of the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(SlotNumber);

/// The next part of the set, converted.
#[derive(Debug)]
pub struct Slice<T> {
    /// The converted entries.
    pub items: T,
    /// Where the next slice begins; `None`: this is the last one.
    pub next: Option<Cursor>,
}

/// The expiring set.
#[derive(Debug, Default)]
pub struct Grants {
    slots: Slots,
    /// The shared addresses.
    shared: BTreeSet<IpAddr>,
    /// How many of the others have a key that would also admit other hosts.
    inexact: usize,
}

impl Grants {
    /// Prepares for so many addresses.
    pub fn reserve(&mut self, addresses: usize) {
        self.slots.reserve(addresses);
    }

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
        let Some(slot) = self.slots.find(address) else {
            let mut grant = Grant::none(address, now);
            grant.apply(request, now, max_users);
            let outcome = if grant.shared { GrantOutcome::Shared } else { GrantOutcome::New };
            self.insert(grant);
            return outcome;
        };
        if self.slots.change(slot, |grant| grant.renew(&request, now)) == Some(true) {
            return GrantOutcome::Renewed;
        }
        let Some(mut grant) = self.slots.get(slot).map(StoredGrant::grant) else {
            return GrantOutcome::Renewed;
        };
        let was_shared = grant.shared;
        if was_shared {
            grant.since = now;
        }
        grant.apply(request, now, max_users);
        let is_shared = grant.shared;
        self.replace(slot, grant);
        match (was_shared, is_shared) {
            (_, true) => GrantOutcome::Shared,
            (false, false) => GrantOutcome::Renewed,
            (true, false) => GrantOutcome::New,
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

    /// Changes the grant of an address; returns whether there is one.
    pub fn work_on(&mut self, address: IpAddr, work: impl FnOnce(&mut Grant)) -> bool {
        let Some(slot) = self.slots.find(address) else { return false };
        let Some(mut grant) = self.slots.get(slot).map(StoredGrant::grant) else { return false };
        work(&mut grant);
        self.replace(slot, grant);
        true
    }

    /// Changes every grant, and applies a new limit of users that may share an address; returns the
    /// changed grants as they were before.
    pub fn settle_all(
        &mut self,
        max_users: Option<usize>,
        change: impl Fn(&mut Grant),
    ) -> Vec<Grant> {
        let mut changed = Vec::new();
        for slot in 0..self.slots.end() {
            let Some(before) = self.slots.get(slot).map(StoredGrant::grant) else { continue };
            let mut after = before.clone();
            change(&mut after);
            after.settle(max_users);
            if after != before {
                self.replace(slot, after);
                changed.push(before);
            }
        }
        changed.sort_unstable_by_key(|grant| grant.address);
        changed
    }

    /// Inserts a grant as it is, in place of any other for its address.
    pub fn put(&mut self, grant: Grant) {
        match self.slots.find(grant.address) {
            Some(slot) => self.replace(slot, grant),
            None => self.insert(grant),
        }
    }

    /// Returns the grant of an address if it is in force at a moment.
    pub fn at(&self, address: IpAddr, now: Time) -> Option<Grant> {
        self.find(address).filter(|grant| grant.lasts(now)).map(StoredGrant::grant)
    }

    /// Returns the entry of an address as it is stored, expired and shared ones too.
    pub fn find(&self, address: IpAddr) -> Option<&StoredGrant> {
        self.slots.find(address).and_then(|slot| self.slots.get(slot))
    }

    /// Returns whether an address has a grant that began at `since` and is in force at a moment.
    pub fn has(&self, now: Time, address: IpAddr, since: Time) -> bool {
        self.find(address).is_some_and(|grant| grant.lasts(now) && grant.since() == since)
    }

    /// Returns the entry of an address, expired and shared ones too.
    pub fn get(&self, address: IpAddr) -> Option<Grant> {
        self.find(address).map(StoredGrant::grant)
    }

    /// Removes an address.
    pub fn remove(&mut self, address: IpAddr) -> Option<Grant> {
        let grant = self.slots.find(address).and_then(|slot| self.slots.remove(slot))?;
        self.count_shared(address, grant.is_shared(), false);
        Some(grant.into())
    }

    fn insert(&mut self, grant: Grant) {
        self.count_shared(grant.address, grant.shared, true);
        self.slots.insert(grant.into());
    }

    fn replace(&mut self, slot: SlotNumber, grant: Grant) {
        let (address, is_shared) = (grant.address, grant.shared);
        let before = self.slots.change(slot, |stored| {
            let before = stored.is_shared();
            *stored = grant.into();
            before
        });
        if before.is_some_and(|before| before != is_shared) {
            self.count_shared(address, !is_shared, false);
            self.count_shared(address, is_shared, true);
        }
    }

    fn first(&self) -> Option<&StoredGrant> {
        self.slots.by_deadline().next().and_then(|(_, slot)| self.slots.get(slot))
    }

    /// Returns the address with the first deadline, if it has expired.
    pub fn first_expired(&self, now: Time) -> Option<IpAddr> {
        self.first().filter(|grant| grant.until() <= now).map(StoredGrant::address)
    }

    /// Returns the address with the first deadline, if there are more than `max`.
    pub fn first_excess(&self, max: usize) -> Option<IpAddr> {
        if self.len() > max { self.first().map(StoredGrant::address) } else { None }
    }

    /// Returns the first deadline.
    pub fn first_deadline(&self) -> Option<Time> {
        self.slots.by_deadline().next().map(|(until, _)| until)
    }

    /// Returns how many addresses are held, shared ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether no address is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all entries, shared ones included, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &StoredGrant> {
        self.slots.iter()
    }

    /// Calls `each` for the next entries from a cursor on, expired and shared ones included. An entry
    /// that is in the set during all slices is in exactly one of them.
    pub fn slice<T>(
        &self,
        from: Cursor,
        size: SlotNumber,
        mut items: T,
        mut each: impl FnMut(&mut T, &StoredGrant),
    ) -> Slice<T> {
        let (Cursor(start), end) = (from, self.slots.end());
        let stop = start.saturating_add(size).min(end);
        (start..stop)
            .filter_map(|slot| self.slots.get(slot))
            .for_each(|grant| each(&mut items, grant));
        Slice { items, next: (stop < end).then_some(Cursor(stop)) }
    }

    /// Returns the shared addresses, in ascending order.
    pub fn shared(&self) -> impl Iterator<Item = Grant> {
        self.shared.iter().filter_map(|address| self.get(*address))
    }

    /// Returns how many grants are in force at a moment.
    pub fn count(&self, now: Time) -> usize {
        let expired = self.slots.by_deadline().take_while(|(until, _)| *until <= now);
        let is_shared = |slot| self.slots.get(slot).is_some_and(StoredGrant::is_shared);
        let expired = expired.filter(|(_, slot)| !is_shared(*slot)).count();
        self.len() - self.shared.len() - expired
    }

    /// Returns how many addresses, except shared ones, have a key that would also admit other hosts.
    pub fn inexact(&self) -> usize {
        self.inexact
    }

    /// Forgets all users.
    pub fn forget_users(&mut self) {
        for slot in 0..self.slots.end() {
            self.slots.change(slot, StoredGrant::forget_users);
        }
    }
}
