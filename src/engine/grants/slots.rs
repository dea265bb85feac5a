//! The stored grants, each in a numbered slot, found by address and by deadline.
//!
//! - **Promise**: a grant stays in its slot until it is removed, whatever happens to others, so that
//!   a walk over the slots may be interrupted. The address is hashed with a random key.
//! - **Limits**: `u32::MAX` grants. The index by address grows at once only beyond the capacity it
//!   was created with; growing later moves it as a whole.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::stored::{StoredGrant, mapped};
use crate::engine::time::Time;

/// The number of a slot.
pub(super) type SlotNumber = u32;

/// All grants.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<StoredGrant>>,
    free: Vec<SlotNumber>,
    by_address: HashTable<SlotNumber>,
    hasher: RandomState,
    by_deadline: BTreeSet<Deadline>,
    /// Given to the last deadline that was set.
    order: u32,
}

/// A deadline, the order in which equal ones were set, and the slot that has it.
type Deadline = (Time, u32, SlotNumber);

impl Slots {
    /// Reserves room in the index by address, so that it need not grow while clients wait. The memory
    /// is used only as it fills, except one byte for each address.
    pub(super) fn reserve(&mut self, capacity: usize) {
        let Self { slots, by_address, hasher, .. } = self;
        let missing = capacity.saturating_sub(by_address.len());
        by_address.reserve(missing, |slot| hash_of(hasher, slots, *slot));
    }

    /// Returns the slot of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<SlotNumber> {
        let address = mapped(address);
        let is_it = |slot: &SlotNumber| key(&self.slots, *slot) == Some(address);
        self.by_address.find(hash(&self.hasher, address), is_it).copied()
    }

    /// Returns the grant in a slot.
    pub(super) fn get(&self, slot: SlotNumber) -> Option<&StoredGrant> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Adds the grant of an address that has none.
    pub(super) fn insert(&mut self, mut grant: StoredGrant) {
        self.order = self.order.wrapping_add(1);
        grant.order = self.order;
        let until = grant.until();
        let slot = self.load(grant);
        self.by_deadline.insert((until, self.order, slot));
    }

    /// Adds or replaces a grant, but leaves the index by deadline to [`Self::index_deadlines`]. Returns
    /// its slot.
    pub(super) fn load(&mut self, grant: StoredGrant) -> SlotNumber {
        let Self { slots, free, by_address, hasher, .. } = self;
        let address = grant.key();
        let is_it = |slot: &SlotNumber| key(slots, *slot) == Some(address);
        let rehash = |slot: &SlotNumber| hash_of(hasher, slots, *slot);
        let slot = match by_address.entry(hash(hasher, address), is_it, rehash) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(place) => {
                let slot = free.pop().unwrap_or_else(|| {
                    slots.push(None);
                    slots.len() as SlotNumber - 1
                });
                place.insert(slot);
                slot
            }
        };
        slots[slot as usize] = Some(grant);
        slot
    }

    /// Removes a grant, but leaves the index by deadline to [`Self::index_deadlines`].
    pub(super) fn unload(&mut self, address: IpAddr) {
        if let Some(slot) = self.find(address) {
            self.take(slot);
        }
    }

    /// Builds the index by deadline.
    pub(super) fn index_deadlines(&mut self) {
        let deadline = |(slot, grant): (SlotNumber, &Option<StoredGrant>)| {
            grant.as_ref().map(|grant| (grant.until(), grant.order, slot))
        };
        self.by_deadline = (0..).zip(&self.slots).filter_map(deadline).collect();
    }

    /// Changes the grant in a slot, but not its address.
    pub(super) fn change<R>(
        &mut self,
        slot: SlotNumber,
        change: impl FnOnce(&mut StoredGrant) -> R,
    ) -> Option<R> {
        let grant = self.slots.get_mut(slot as usize)?.as_mut()?;
        let (before, order) = (grant.until(), grant.order);
        let result = change(grant);
        let after = grant.until();
        grant.order = order;
        if before != after {
            self.order = self.order.wrapping_add(1);
            grant.order = self.order;
            self.by_deadline.remove(&(before, order, slot));
            self.by_deadline.insert((after, self.order, slot));
        }
        Some(result)
    }

    /// Removes the grant in a slot.
    pub(super) fn remove(&mut self, slot: SlotNumber) -> Option<StoredGrant> {
        let grant = self.take(slot)?;
        self.by_deadline.remove(&(grant.until(), grant.order, slot));
        debug_assert_eq!(self.by_address.len(), self.by_deadline.len());
        Some(grant)
    }

    /// Takes a grant out of its slot and of the index by address.
    fn take(&mut self, slot: SlotNumber) -> Option<StoredGrant> {
        let hashed = hash_of(&self.hasher, &self.slots, slot);
        let grant = self.slots.get_mut(slot as usize)?.take()?;
        if let Ok(found) = self.by_address.find_entry(hashed, |found| *found == slot) {
            found.remove();
        }
        self.free.push(slot);
        Some(grant)
    }

    /// Returns the slots in the order of deadlines.
    pub(super) fn by_deadline(&self) -> impl Iterator<Item = (Time, SlotNumber)> {
        self.by_deadline.iter().map(|(until, _, slot)| (*until, *slot))
    }

    /// Returns how many grants there are.
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Returns the number after that of the last slot, free ones included.
    pub(super) fn end(&self) -> SlotNumber {
        self.slots.len() as SlotNumber
    }

    /// Returns the grants in all slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StoredGrant> {
        self.slots.iter().flatten()
    }
}

fn key(slots: &[Option<StoredGrant>], slot: SlotNumber) -> Option<Ipv6Addr> {
    slots.get(slot as usize)?.as_ref().map(StoredGrant::key)
}

fn hash(hasher: &RandomState, address: Ipv6Addr) -> u64 {
    hasher.hash_one(address.to_bits())
}

/// Returns the hash of the address in a slot. No free slot is in the index.
fn hash_of(hasher: &RandomState, slots: &[Option<StoredGrant>], slot: SlotNumber) -> u64 {
    hash(hasher, key(slots, slot).unwrap_or(Ipv6Addr::UNSPECIFIED))
}
