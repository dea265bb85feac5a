//! Grants that are read from a file, where a later record of an address replaces an earlier one.
//!
//! - **Promise**: the index by deadline is built at once when all are known, and not changed for each
//!   record, which would take longer and leave it half empty.

use std::net::IpAddr;

use super::Grants;
use super::grant::Grant;
use super::slots::Slots;
use super::stored::StoredGrant;

/// Grants that are not in force yet.
#[derive(Debug, Default)]
pub struct LoadingGrants(Slots);

impl LoadingGrants {
    /// Prepares for so many addresses.
    pub fn reserve(&mut self, addresses: usize) {
        self.0.reserve(addresses);
    }

    /// Adds a grant, in place of any other for its address.
    pub fn put(&mut self, grant: Grant) {
        self.0.load(grant.into());
    }

    /// Removes the grant of an address.
    pub fn remove(&mut self, address: IpAddr) {
        self.0.unload(address);
    }

    /// Returns the set of the grants that stay as they are, and of what `keep` returns of each other
    /// one; and how many were kept otherwise than they were.
    pub fn into_grants(
        self,
        stays: impl Fn(&StoredGrant) -> bool,
        mut keep: impl FnMut(Grant) -> Option<Grant>,
    ) -> (Grants, usize) {
        let Self(mut slots) = self;
        let mut grants = Grants::default();
        let mut changed = 0;
        for slot in 0..slots.end() {
            let Some(stored) = slots.get(slot) else { continue };
            if stays(stored) {
                grants.count_shared(stored.address(), stored.is_shared(), true);
                continue;
            }
            let before = stored.grant();
            let Some(after) = keep(before.clone()) else {
                slots.unload(before.address);
                continue;
            };
            grants.count_shared(after.address, after.shared, true);
            if after != before {
                slots.load(after.into());
                changed += 1;
            }
        }
        slots.index_deadlines();
        grants.slots = slots;
        (grants, changed)
    }
}
